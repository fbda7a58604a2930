//! The listener of probes, and cross-origin requests of browsers.

use caxton_tests::{Client, Host, Reply, Setup};
use http::Method;
use rustix::process::Signal;

use crate::{BINARY, agent, file, host};

fn probes(host: &Host) -> Client {
    let ports = std::fs::read_to_string(host.folder().join("ports.json")).expect("the host wrote its ports");
    let ports: serde_json::Value = serde_json::from_str(&ports).expect("it writes JSON");
    Client::new(ports["probes"].as_str().expect("an address"), None)
}

#[test]
fn probes_and_metrics_have_a_listener_of_their_own() {
    let web = agent("web", "web", "limits = { time = \"1m\" }")
        .replace("[[agents.web.http]]\nroute = \"/web\"\n", "[[agents.web.http]]\nroute = \"/{*path}\"\n");
    let toml = file(&format!("[probes]\nlisten = \"127.0.0.1:0\"\n{web}"));
    for setup in [Setup::new(BINARY, &toml), Setup::new(BINARY, &toml).argument("--probes").argument("127.0.0.1:0")] {
        let mut host = setup.start();
        let probes = probes(&host);
        // By whatever name, and without a token.
        let far = |path: &str| probes.send(Method::GET, path, &[("host", "node-7.cluster.example")], "");
        assert_eq!(far("/healthz").json()["status"], "ok");
        assert_eq!(far("/readyz").json()["ready"], true);
        assert!(far("/metrics").text().contains("caxton_"), "metrics");
        let token = std::fs::read_to_string(host.folder().join(".caxton/token")).expect("the host wrote its token");
        let with_token = [("authorization", &*format!("Bearer {}", token.trim()))];
        for path in ["/v1/agents", "/v1/openapi.json", "/", "/web"] {
            assert_eq!(probes.send(Method::GET, path, &with_token, "").status.as_u16(), 404, "{path}");
        }
        assert_eq!(probes.post("/healthz", "").status.as_u16(), 405);
        let said =
            std::fs::read_to_string(host.folder().join(".caxton/host.json")).expect("the host wrote where it is");
        assert!(said.contains("\"probes\""), "{said}");
        // While the host drains it lives, and is not ready.
        let address = host.http.clone();
        let caller = std::thread::spawn(move || Client::new(&address, None).get("/wait?ms=4000").status.as_u16());
        host.until_agent("web", "it has the call in hand", |status| status["in_flight"] == 1);
        host.signal(Signal::TERM);
        host.until_output("stopping");
        let ready = far("/readyz");
        assert_eq!((ready.status.as_u16(), &ready.json()["ready"]), (503, &false.into()));
        assert_eq!(far("/healthz").status.as_u16(), 200);
        assert_eq!(caller.join().expect("it is answered"), 200);
        assert_eq!(host.ended(), 0);
    }
}

const PAGE: &str = "https://app.example";

fn cors(reply: &Reply) -> Vec<(String, String)> {
    let told = reply.headers.iter().filter(|(name, _)| name.as_str().starts_with("access-control-"));
    told.map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect()
}

fn preflight(client: &Client, path: &str, origin: &str, method: &str) -> Reply {
    let headers =
        [("origin", origin), ("access-control-request-method", method), ("access-control-request-headers", "x-mine")];
    client.send(Method::OPTIONS, path, &headers, "")
}

#[test]
fn permitted_origins_can_call_message_agents() {
    let settings = format!("[http.cors]\norigins = [\"{PAGE}\"]\ncredentials = true\nmax-age = \"1m\"\n");
    let echo = agent("echo", "echo", "").replace("route = \"/echo\"", "route = \"/echo\"\nmethods = [\"POST\"]");
    let more = "[[agents.echo.http]]\nroute = \"/closed\"\ncors = false\n";
    let web = agent("web", "web", "").replace("route = \"/web\"", "route = \"/headers\"");
    let open = "[[agents.web.http]]\nroute = \"/status\"\ncors = true\n";
    let host = host(&format!("{settings}{echo}{more}{web}{open}"));
    let client = host.client();
    let answer = preflight(&client, "/echo", PAGE, "POST");
    assert_eq!(answer.status.as_u16(), 204);
    for (name, value) in [
        ("access-control-allow-origin", PAGE),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "60"),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("access-control-allow-headers").contains("caxton-conversation"), "{answer:?}");
    assert!(answer.header("vary").contains("origin"), "{answer:?}");
    assert_eq!(cors(&preflight(&client, "/echo", "https://evil.example", "POST")), []);
    assert_eq!(cors(&preflight(&client, "/closed", PAGE, "POST")), []);
    // Every response to such a page can be read by it, errors included.
    let call = |path: &str, origin: &str| client.send(Method::POST, path, &[("origin", origin)], "hello");
    let reply = call("/echo", PAGE);
    assert_eq!((reply.status.as_u16(), reply.header("access-control-allow-origin")), (200, PAGE));
    assert!(reply.header("access-control-expose-headers").contains("caxton-message-id"), "{reply:?}");
    let wrong = client.send(Method::POST, "/echo", &[("origin", PAGE), ("caxton-performative", "ask")], "");
    assert_eq!((wrong.status.as_u16(), wrong.header("access-control-allow-origin")), (400, PAGE));
    assert_eq!(call("/nothing", PAGE).header("access-control-allow-origin"), PAGE);
    let foreign = call("/echo", "https://evil.example");
    assert_eq!((foreign.status.as_u16(), cors(&foreign)), (200, Vec::new()));
    assert_eq!(foreign.header("vary"), "origin");
    assert_eq!(cors(&call("/closed", PAGE)), []);
    // An HTTP agent answers for itself, unless its route says otherwise.
    let own = client.send(Method::GET, "/headers", &[("origin", PAGE)], "");
    assert_eq!((own.status.as_u16(), cors(&own)), (200, Vec::new()));
    assert_eq!(preflight(&client, "/headers", PAGE, "GET").status.as_u16(), 405, "the agent says what it takes");
    let shared = client.send(Method::GET, "/status?code=200", &[("origin", PAGE)], "");
    assert_eq!(shared.header("access-control-allow-origin"), PAGE);
    assert_eq!(preflight(&client, "/status", PAGE, "GET").header("access-control-allow-methods"), "GET");
}

#[test]
fn without_the_setting_there_are_no_cors_headers() {
    let mut host = host(&agent("e", "echo", ""));
    let client = host.client();
    let reply = client.send(Method::POST, "/e", &[("origin", PAGE)], "one letter is a name");
    assert_eq!((reply.status.as_u16(), reply.header("caxton-agent")), (200, "e"));
    assert_eq!((cors(&reply), reply.header("vary")), (Vec::new(), ""));
    assert_eq!(cors(&preflight(&client, "/e", PAGE, "POST")), []);
    // It acts at once.
    host.edit(&file(&format!("[http.cors]\norigins = [\"*\"]\n{}", agent("e", "echo", ""))));
    host.until("pages may call", |_| {
        let reply = client.send(Method::POST, "/e", &[("origin", PAGE)], "");
        (reply.header("access-control-allow-origin") == "*").then_some(())
    });
}
