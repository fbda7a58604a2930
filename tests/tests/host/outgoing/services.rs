//! Calls of agents of WASI 0.3, by `wasi:http/client`.

use caxton_tests::{Host, Setup};

use super::server::Server;
use crate::{BINARY, agent, file, metric};

/// Starts a host with the agent `web`, which may call these places.
fn service(guest: &str, places: &str) -> Host {
    let web = agent("web", guest, &format!("allow.http = [{places}]"));
    Setup::new(BINARY, &file(&web.replace("\"/web\"", "\"/{*path}\""))).start()
}

#[test]
fn a_granted_call_of_wasi_03_reaches_its_server() {
    let server = Server::start();
    for guest in ["p3-web", "p3-candidate"] {
        let host = service(guest, &server.place());
        let client = host.client();
        let told = client.get(&format!("/call?{}", server.url("/status?code=418"))).text();
        assert!(told.starts_with("418 "), "{guest}: {told}");
        let told = client.post(&format!("/sent?{}", server.url("/echo")), "hello").text();
        assert!(told.starts_with("200 ") && told.contains("\"body\":\"hello\""), "{guest}: {told}");
        let passed = client.get(&format!("/proxy?{}", server.url("/echo"))).text();
        assert!(passed.contains("\"method\":\"GET\""), "{guest}: {passed}");
    }
}

#[test]
fn a_call_of_wasi_03_that_no_place_covers_is_refused() {
    let server = Server::start();
    let place = format!("\"http://{}/v1/*\"", server.address);
    let mut host = service("p3-web", &place);
    let client = host.client();
    let told = client.get(&format!("/call?{}", server.url("/v2/a"))).text();
    assert!(told.contains("HttpRequestDenied"), "{told}");
    assert!(server.requests().is_empty(), "{:?}", server.requests());
    let refused = "caxton_outgoing_calls_total{agent=\"web\",place=\"none\",result=\"HTTP-request-denied\"}";
    assert_eq!(metric(&host, refused), 1);
    host.until("the line", |host| {
        host.caxton(&["logs", "web", "--tail", "100"]).1.contains("does not cover the path").then_some(())
    });
    // An agent without places is told which setting it needs.
    let mut host = service("p3-web", "");
    let told = host.client().get(&format!("/call?{}", server.url("/a"))).text();
    assert!(told.contains("HttpRequestDenied"), "{told}");
    host.until("the line", |host| {
        host.caxton(&["logs", "web", "--tail", "100"]).1.contains("`allow.http` lists the places").then_some(())
    });
}
