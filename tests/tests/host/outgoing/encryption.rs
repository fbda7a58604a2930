//! Calls over TLS: whom the host trusts, and HTTP/2.

use std::fs;

use caxton_tests::{Host, Setup};
use serde_json::Value;

use super::server::Server;
use super::{caller, get, until_logged};
use crate::BINARY;
use crate::authority::{Authority, Issued};

/// Starts a host that trusts an issuer, and may call these servers by the name `localhost`.
fn host(authority: &Authority, servers: &[&Server]) -> Host {
    let places: Vec<String> = servers
        .iter()
        .map(|server| format!("{{ url = \"https://localhost:{}\", private = true }}", server.port()))
        .collect();
    let setup = Setup::new(BINARY, &caller(&places.join(", "), "ca = [\"ca.pem\"]", ""));
    fs::write(setup.folder().join("ca.pem"), authority.pem()).expect("the folder can be written to");
    setup.start()
}

fn call(host: &Host, server: &Server) -> Value {
    get(host, &format!("https://localhost:{}/echo", server.port()))
}

#[test]
fn both_versions_of_http_are_spoken_over_tls() {
    let authority = Authority::new("the issuer");
    let issued = authority.issue(&["localhost"]);
    let (new, old) = (Server::with_tls(&issued, &["h2", "http/1.1"]), Server::with_tls(&issued, &["http/1.1"]));
    let none = Server::with_tls(&issued, &[]);
    let host = host(&authority, &[&new, &old, &none]);
    for (server, version) in [(&new, "HTTP/2.0"), (&old, "HTTP/1.1"), (&none, "HTTP/1.1")] {
        for _ in 0..2 {
            let answer = call(&host, server);
            assert_eq!(answer["status"], 200, "{answer}");
        }
        assert_eq!(server.requests()[0]["version"], version);
        assert_eq!(server.connections(), 1, "{version}");
    }
}

#[test]
fn certificates_that_are_not_good_are_refused_with_the_reason() {
    let (authority, other) = (Authority::new("the issuer"), Authority::new("another"));
    let server = |issued: &Issued| Server::with_tls(issued, &["http/1.1"]);
    let (expired, named) =
        (server(&authority.issue_expired(&["localhost"])), server(&authority.issue(&["other.example"])));
    let unknown = server(&other.issue(&["localhost"]));
    // It vouches for itself.
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let own = server(&Issued { cert: own.cert.pem(), key: own.signing_key.serialize_pem() });
    let mut host = host(&authority, &[&expired, &named, &unknown, &own]);
    assert_eq!(call(&host, &own)["error"], "TLS-certificate-error");
    assert!(own.requests().is_empty());
    for (server, reason) in [
        (&expired, "the certificate is not trusted: it has expired (TLS-certificate-error)"),
        (&named, "the certificate is not trusted: it is for another name (TLS-certificate-error)"),
        (&unknown, "its issuer is unknown; `outgoing.ca` names files with others to trust (TLS-certificate-error)"),
    ] {
        assert_eq!(call(&host, server)["error"], "TLS-certificate-error");
        until_logged(&mut host, reason);
        assert!(server.requests().is_empty());
    }
}

#[test]
fn a_plain_server_speaks_no_tls() {
    let (authority, server) = (Authority::new("the issuer"), Server::start());
    let host = host(&authority, &[&server]);
    let error = call(&host, &server)["error"].clone();
    assert!(error.as_str().is_some_and(|code| code.starts_with("TLS-") || code.starts_with("connection-")), "{error}");
}

#[test]
fn issuers_are_taken_again_when_their_file_changes() {
    let (first, second) = (Authority::new("the first"), Authority::new("the second"));
    let server = Server::with_tls(&second.issue(&["localhost"]), &["http/1.1"]);
    let mut host = host(&first, &[&server]);
    assert_eq!(call(&host, &server)["error"], "TLS-certificate-error");
    let write = |host: &Host, text: &str| {
        fs::write(host.folder().join("ca.new"), text).expect("the folder can be written to");
        fs::rename(host.folder().join("ca.new"), host.folder().join("ca.pem")).expect("the folder can be written to");
    };
    // A broken one leaves those that were taken before in use, and is told.
    write(&host, "no certificate");
    host.until_output(
        "outgoing.ca[0]: `ca.pem` has no certificate in PEM form; the issuers that were taken before stay in use",
    );
    let (code, _, words) = host.caxton(&["check", "--no-components"]);
    assert!(code == 2 && words.contains("error[unusable-file]: outgoing.ca[0]"), "{words}");
    write(&host, second.pem());
    host.until("the second issuer", |host| (call(host, &server)["status"] == 200).then_some(()));
}
