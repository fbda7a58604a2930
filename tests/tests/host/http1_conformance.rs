//! HTTP/1.1 by the text of RFC 9112 and RFC 9110: no corpus of cases is in the package registries, so this is a table of
//! our own, against both listeners.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use caxton_tests::PATIENCE;

use crate::{agent, host};

/// A request or several on one connection, and the statuses that may come.
struct Exchange {
    /// The section of RFC 9112 unless it says otherwise.
    section: &'static str,
    about: &'static str,
    /// What is sent; `TARGET` stands for a path that takes `GET`.
    sent: &'static str,
    /// The sequences of statuses that are right, each until the connection ends. Status 0 is an end without an answer.
    right: &'static [&'static [u16]],
}

const fn row(
    section: &'static str,
    about: &'static str,
    sent: &'static str,
    right: &'static [&'static [u16]],
) -> Exchange {
    Exchange { section, about, sent, right }
}

const TAKEN: &[&[u16]] = &[&[200]];
const REFUSED: &[&[u16]] = &[&[400]];
/// A refusal, or an end where the error is in what follows the head.
const NOT_TAKEN: &[&[u16]] = &[&[400], &[0], &[413]];

/// Requests without a body, for both listeners.
#[rustfmt::skip]
const HEADS: &[Exchange] = &[
    row("2.2", "an empty line before the request is skipped", "\r\nGET TARGET HTTP/1.1\r\nhost: localhost\r\n\r\n", TAKEN),
    row("2.2", "a line may end with a line feed alone", "GET TARGET HTTP/1.1\nhost: localhost\n\n", &[&[200], &[400]]),
    row("2.2", "a carriage return alone is no end of a line", "GET TARGET HTTP/1.1\r\nhost: localhost\rx: y\r\n\r\n", REFUSED),
    row("2.2", "a head does not begin with white space", "GET TARGET HTTP/1.1\r\n host: localhost\r\n\r\n", REFUSED),
    row("2.3", "version 1.0 needs no host", "GET TARGET HTTP/1.0\r\nhost: localhost\r\n\r\n", TAKEN),
    row("2.3", "a version is in upper case", "GET TARGET http/1.1\r\nhost: localhost\r\n\r\n", REFUSED),
    row("2.3", "a version of two digits", "GET TARGET HTTP/1.10\r\nhost: localhost\r\n\r\n", REFUSED),
    row("2.3", "a version of another protocol", "GET TARGET SIP/2.0\r\nhost: localhost\r\n\r\n", REFUSED),
    row("2.3", "a major version that is not spoken in this form", "GET TARGET HTTP/3.0\r\nhost: localhost\r\n\r\n", &[&[400], &[505]]),
    row("3", "two spaces in the request line", "GET  TARGET HTTP/1.1\r\nhost: localhost\r\n\r\n", REFUSED),
    row("3", "a tab in the request line", "GET\tTARGET\tHTTP/1.1\r\nhost: localhost\r\n\r\n", REFUSED),
    row("3", "no version", "GET TARGET\r\nhost: localhost\r\n\r\n", REFUSED),
    row("3", "no target", "GET HTTP/1.1\r\nhost: localhost\r\n\r\n", REFUSED),
    row("3", "nothing but a version", " HTTP/1.1\r\nhost: localhost\r\n\r\n", REFUSED),
    row("3.1", "a method that is no token", "G@T TARGET HTTP/1.1\r\nhost: localhost\r\n\r\n", REFUSED),
    row("3.1", "a method in lower case is another", "get TARGET HTTP/1.1\r\nhost: localhost\r\n\r\n", &[&[405], &[501], &[404]]),
    row("3.2", "no host", "GET TARGET HTTP/1.1\r\n\r\n", &[&[400], &[421]]),
    row("3.2", "two hosts", "GET TARGET HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n", &[&[400], &[421]]),
    row("3.2", "a host that is none", "GET TARGET HTTP/1.1\r\nhost: a b\r\n\r\n", &[&[400], &[421]]),
    row("3.2", "a space in the target", "GET TARGET x HTTP/1.1\r\nhost: localhost\r\n\r\n", REFUSED),
    row("3.2.2", "the absolute form", "GET http://localhostTARGET HTTP/1.1\r\nhost: localhost\r\n\r\n", TAKEN),
    row("3.2.3", "the authority form is for CONNECT alone", "GET localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n", &[&[400], &[404]]),
    row("3.2.4", "the asterisk form is for OPTIONS alone", "GET * HTTP/1.1\r\nhost: localhost\r\n\r\n", &[&[400], &[404]]),
    row("5", "a field line without a colon", "GET TARGET HTTP/1.1\r\nhost: localhost\r\nnonsense\r\n\r\n", REFUSED),
    row("5", "a name without a letter", "GET TARGET HTTP/1.1\r\nhost: localhost\r\n: x\r\n\r\n", REFUSED),
    row("5.1", "white space before the colon", "GET TARGET HTTP/1.1\r\nhost: localhost\r\nx : y\r\n\r\n", REFUSED),
    row("5.1", "white space around a value is none of it", "GET TARGET HTTP/1.1\r\nhost:  \t localhost \t \r\n\r\n", TAKEN),
    row("5.2", "a folded line", "GET TARGET HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\n\r\n", REFUSED),
    row("9110 5.5", "a null character in a value", "GET TARGET HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n", REFUSED),
    row("9110 5.6.2", "a name that is no token", "GET TARGET HTTP/1.1\r\nhost: localhost\r\nx(y): z\r\n\r\n", REFUSED),
    row("9.3", "requests of one connection are answered in order",
        "GET TARGET HTTP/1.1\r\nhost: localhost\r\n\r\nGET TARGET HTTP/1.1\r\nhost: localhost\r\n\r\n", &[&[200, 200]]),
    row("9.6", "nothing follows `close`",
        "GET TARGET HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\nGET TARGET HTTP/1.1\r\nhost: localhost\r\n\r\n", TAKEN),
    row("9.3", "nothing follows in version 1.0",
        "GET TARGET HTTP/1.0\r\nhost: localhost\r\n\r\nGET TARGET HTTP/1.0\r\nhost: localhost\r\n\r\n", TAKEN),
    row("9.3", "something follows in version 1.0 that asks for it",
        "GET TARGET HTTP/1.0\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\nGET TARGET HTTP/1.0\r\nhost: localhost\r\n\r\n", &[&[200, 200]]),
    row("2.2", "what follows an error is not read as a request",
        "GET TARGET HTTP/1.1\r\nhost : x\r\n\r\nGET TARGET HTTP/1.1\r\nhost: localhost\r\n\r\n", REFUSED),
    row("6.3", "a body that nobody wants does not become a request",
        "GET TARGET HTTP/1.1\r\nhost: localhost\r\ncontent-length: 42\r\n\r\nGET TARGET HTTP/1.1\r\nhost: localhost\r\n\r\n", &[&[200], &[400]]),
];

/// Requests with a body, for the listener of agents.
#[rustfmt::skip]
const BODIES: &[Exchange] = &[
    row("6.2", "a length", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello", TAKEN),
    row("6.2", "a length of zero", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", TAKEN),
    row("6.2", "a length twice, the same", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", &[&[200], &[400]]),
    row("6.2", "a length twice, another", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!", REFUSED),
    row("6.2", "a list of lengths", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5, 6\r\n\r\nhello!", REFUSED),
    row("6.2", "a sign before a length", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: +5\r\n\r\nhello", REFUSED),
    row("6.2", "a length below zero", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\nhello", REFUSED),
    row("6.2", "a length in hexadecimal", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 0x5\r\n\r\nhello", REFUSED),
    row("6.2", "a length that no number holds", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\nhello", &[&[400], &[413]]),
    row("6.2", "an empty length", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length:\r\n\r\nhello", REFUSED),
    row("6.3", "a body that is shorter than its length", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\nhello", NOT_TAKEN),
    row("6.1", "chunks", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", TAKEN),
    row("6.1", "a name of a coding has no case", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", TAKEN),
    row("6.1", "chunks and a length: no request may follow",
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /echo HTTP/1.1\r\nhost: x\r\n\r\n", &[&[200], &[400]]),
    row("6.1", "chunks are the last coding", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n", REFUSED),
    row("6.1", "a coding that nobody knows", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", &[&[400], &[501]]),
    row("6.1", "chunks twice", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", &[&[400], &[501], &[200]]),
    row("6.1", "chunks in version 1.0", "POST /echo HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", &[&[400], &[200]]),
    row("7.1", "zeros before a size", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0005\r\nhello\r\n000\r\n\r\n", TAKEN),
    row("7.1", "a size in upper case", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nA\r\nhellohello\r\n0\r\n\r\n", TAKEN),
    row("7.1", "a size that is none", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nz\r\nhello\r\n0\r\n\r\n", NOT_TAKEN),
    row("7.1", "a size below zero", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", NOT_TAKEN),
    row("7.1", "a size with a prefix", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", NOT_TAKEN),
    row("7.1", "a size that no number holds", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n", NOT_TAKEN),
    row("7.1", "a chunk that is longer than its size", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", NOT_TAKEN),
    row("7.1", "no last chunk", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", NOT_TAKEN),
    row("7.1.1", "an extension of a chunk", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;a=b;c=\"d\"\r\nhello\r\n0\r\n\r\n", TAKEN),
    row("7.1.1", "a line feed in an extension", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5;a=\nb\r\nhello\r\n0\r\n\r\n", NOT_TAKEN),
    row("7.1.2", "trailers", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n", TAKEN),
    row("7.1.2", "a trailer is no header", "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\ncontent-length: 9\r\n\r\n", &[&[200], &[400]]),
    row("9110 10.1.1", "a client that waits for leave", "POST /echo HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello", &[&[100, 200], &[200]]),
    row("9.3", "a request after a body", "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhelloPOST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", &[&[200, 200]]),
    row("9110 9.3.6", "CONNECT leads nowhere", "CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n", &[&[501]]),
    row("9110 9.3.8", "TRACE is not answered with what was sent", "TRACE /echo HTTP/1.1\r\nhost: x\r\ncookie: secret\r\n\r\n", &[&[405]]),
];

/// Returns the statuses of all responses on a connection; `[0]` if there is none.
fn statuses(address: &str, sent: &str) -> Vec<u16> {
    let mut stream = TcpStream::connect(address).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    let _ = stream.write_all(sent.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer).into_owned();
    assert!(!text.contains("cookie: secret"), "{text}");
    let found = text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok());
    let found: Vec<u16> = found.collect();
    if found.is_empty() { vec![0] } else { found }
}

/// Returns the rows whose answer is not right.
fn wrong(address: &str, target: &str, rows: &[Exchange]) -> Vec<String> {
    let check = |row: &Exchange| {
        let found = statuses(address, &row.sent.replace("TARGET", target));
        let Exchange { section, about, sent, right } = row;
        let is_right = right.contains(&found.as_slice());
        (!is_right).then(|| format!("{section}, {about}: {found:?} and not one of {right:?}, for {sent:?}"))
    };
    rows.iter().filter_map(check).collect()
}

#[test]
fn both_listeners_speak_http1_as_the_rfcs_want_it() {
    let page = "[[agents.page.http]]\nroute = \"/healthz\"\nmethods = [\"GET\"]\n";
    let host = host(&(agent("echo", "echo", "") + &agent("page", "echo", "") + page));
    let mut found = wrong(&host.http, "/healthz", HEADS);
    found.extend(wrong(&host.admin, "/healthz", HEADS).into_iter().map(|row| format!("management API: {row}")));
    found.extend(wrong(&host.http, "", BODIES));
    assert!(found.is_empty(), "{} of {} rows:\n{}", found.len(), 2 * HEADS.len() + BODIES.len(), found.join("\n"));
    assert!(!host.output().contains("panicked"), "{}", host.output());
}
