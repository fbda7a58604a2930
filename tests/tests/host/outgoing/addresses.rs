//! The addresses of names, and the hops of redirects.

use serde_json::json;

use super::server::Server;
use super::{act, get, host, until_logged};

#[test]
fn a_name_of_this_machine_needs_a_private_place() {
    let server = Server::start();
    let url = format!("http://localhost:{}", server.port());
    let mut refused = host(&format!("\"{url}\""), "", "");
    assert_eq!(get(&refused, &url)["error"], "destination-IP-prohibited");
    until_logged(
        &mut refused,
        "has no address that it may have; `private = true` allows those of this machine and of private networks (destination-IP-prohibited)",
    );
    assert_eq!(server.connections(), 0);
    let granted = host(&format!("{{ url = \"{url}\", private = true }}"), "", "");
    assert_eq!(get(&granted, &url)["status"], 200);
    // The grant of the address itself needs no more; that of another address is none.
    let literal = host(&format!("\"http://127.0.0.1:{}\", \"http://10.9.9.9\"", server.port()), "", "");
    assert_eq!(get(&literal, &server.url("/"))["status"], 200);
    assert_eq!(get(&literal, &url)["error"], "HTTP-request-denied");
}

#[test]
fn names_are_judged_by_their_addresses_at_each_connection() {
    let server = Server::start();
    let url = format!("http://rebind.example:{}/", server.port());
    let private = format!("http://inside.example:{}/", server.port());
    let places = format!("\"{url}\", {{ url = \"{private}\", private = true }}");
    let host = host(&places, "", "limits.time = \"1m\"");
    let call = |url: &str| {
        // The address is of the internet, which need not be there.
        act(&host, &json!({ "do": "call", "call": { "url": url, "connect-ms": 200 } }))["error"].clone()
    };
    for addresses in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "168.63.129.16",
        "fd00:ec2::254",
        "fe80::1",
        "0.0.0.0",
        "224.0.0.1",
        "127.0.0.1,10.0.0.1",
    ] {
        host.order(&format!("resolve rebind.example {addresses}"));
        assert_eq!(call(&url), "destination-IP-prohibited", "{addresses}");
    }
    // In turn, and both in one answer: only the good one is tried.
    for addresses in ["93.184.215.14", "127.0.0.1", "93.184.215.14,127.0.0.1", "127.0.0.1,93.184.215.14"] {
        host.order(&format!("resolve rebind.example {addresses}"));
        let error = call(&url);
        assert_eq!(error == "destination-IP-prohibited", addresses == "127.0.0.1", "{addresses}: {error}");
        assert!(error.is_string(), "{addresses}");
    }
    assert_eq!(server.connections(), 0, "nothing was connected to but what was checked");
    host.order("resolve inside.example 127.0.0.1");
    assert_eq!(get(&host, &private)["status"], 200);
    // A connection that one place may have is not lent to another.
    host.order("resolve rebind.example 127.0.0.1");
    assert_eq!(call(&url), "destination-IP-prohibited");
}

#[test]
fn a_name_without_an_address_is_an_error_of_the_name() {
    let host = host("\"https://nowhere.invalid\"", "", "");
    let error = get(&host, "https://nowhere.invalid/")["error"].clone();
    assert!(error == "DNS-error" || error == "connection-timeout", "{error}");
}

#[test]
fn each_hop_of_a_redirect_is_a_call_of_its_own() {
    let (server, inside) = (Server::start(), Server::start());
    let host = host(&server.place(), "", "");
    let to = inside.url("/metadata");
    let answer = get(&host, &server.url(&format!("/redirect?to={}", to.replace('/', "%2F"))));
    assert_eq!(answer["status"], 302, "the host follows none: {answer}");
    let headers = answer["headers"].to_string();
    assert!(headers.contains(&to), "{headers}");
    assert_eq!(get(&host, &to)["error"], "HTTP-request-denied");
    assert_eq!(inside.connections(), 0);
}
