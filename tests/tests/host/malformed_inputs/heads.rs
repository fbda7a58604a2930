//! Heads of HTTP/1 that are malformed.

use caxton_tests::Host;

use super::{Siege, exchange};
use crate::mutation::{Case, INPUTS, mutate};

/// Words that mean something in a head.
const WORDS: [&[u8]; 44] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b"\x1b[2J",
    b"\xe2\x80\xae",
    b" ",
    b"\t",
    b":",
    b"/",
    b"//",
    b"/../",
    b"/%2e%2e/",
    b"?",
    b"#",
    b"*",
    b"http://other.example/",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/9.9",
    b"HTTP/2.0",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET",
    b"CONNECT",
    b"OPTIONS",
    b"host: a\r\n",
    b"host: b@c\r\n",
    b"content-length: 0\r\n",
    b"content-length: 18446744073709551616\r\n",
    b"content-length: -1\r\n",
    b"content-length: 1, 1\r\n",
    b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: gzip, chunked\r\n",
    b"transfer-encoding: identity\r\n",
    b"connection: host, close\r\n",
    b"connection: upgrade\r\nupgrade: h2c\r\n",
    b"expect: 100-continue\r\n",
    b"ffffffffffffffff\r\n",
    b"0\r\n\r\n",
    b"1;a=\"b\r\n",
    b"authorization: Bearer x\r\n",
    b"caxton-caller: x\r\n",
    b"x-long: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n",
];

const HEADS: [&[u8]; 8] = [
    b"POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello",
    b"POST /echo HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST /web/upper HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n",
    b"GET /web/headers?a=b HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\ncookie: a=b\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: keep-alive\r\n\r\nGET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n",
    b"GET /v1/agents/echo?x=y HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer nonsense\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\norigin: http://a.example\r\naccess-control-request-method: POST\r\n\r\n",
    b"POST /echo HTTP/1.0\r\ncontent-type: text/plain\r\ncaxton-deadline: 5s\r\ncontent-length: 2\r\n\r\nhi",
];

#[test]
fn malformed_heads_are_answered_or_their_connection_ends() {
    let web = "[agents.web]\ncomponent = \"GUEST(web)\"\n[[agents.web.http]]\nroute = \"/web/{*path}\"\n";
    let siege = Siege::start(web);
    siege.make(INPUTS, |host: &Host, numbers| {
        for number in numbers {
            let (_case, mut chance) = Case::begin("head", number);
            let head = chance.pick(&HEADS);
            let bytes = mutate(&mut chance, head, &WORDS);
            let address = if number % 4 == 0 { &host.admin } else { &host.http };
            // A head that is never complete has to be ended by the host; few, since each waits for its timeout.
            let half = number % 200 == 1;
            let answer = if half {
                exchange(address, &bytes[..bytes.len().min(12)].iter().map(|b| b | 0x20).collect::<Vec<u8>>(), false)
            } else {
                exchange(address, &bytes, true)
            };
            let is_http = answer.is_empty() || answer.starts_with(b"HTTP/1.") || answer.starts_with(&[0, 0]);
            assert!(is_http, "{:?}", String::from_utf8_lossy(&answer));
        }
    });
    siege.check();
}
