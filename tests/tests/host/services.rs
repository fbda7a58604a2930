//! Agents of WASI 0.3: components that export `wasi:http/handler`.

use std::io::{Read, Write};
use std::net::TcpStream;

use caxton_tests::{Host, PATIENCE, Setup, guest};
use http::Method;

use crate::rollouts::{Load, install};
use crate::wasi_http::resident;
use crate::{BINARY, agent, file, host, metric};

/// An agent of one of these guests, called at all paths.
fn service(guest: &str, more: &str) -> String {
    agent("web", guest, more).replace("route = \"/web\"", "route = \"/{*path}\"")
}

#[test]
fn a_component_of_wasi_03_answers() {
    let host = host(&service("p3-web", ""));
    let client = host.client();
    let reply = client.get("/ok");
    assert_eq!((reply.status.as_u16(), reply.text().as_str(), reply.header("caxton-revision")), (200, "ok", "web@1"));
    assert_eq!(client.get("/nowhere").status.as_u16(), 404);
    assert_eq!(client.post("/upper", "hello").text(), "HELLO");
    assert_eq!(client.post("/count", vec![b'x'; 300_000]).text(), "300000");
    let told = client.send(Method::PUT, "/request?a=b", &[("x-mine", "1")], "").text();
    assert_eq!(told, format!("Method::Put Some(Scheme::Http) Some(\"{}\") true", host.http));
    // HEAD is told the length of what it does not get.
    let length = client.get("/length");
    assert_eq!((length.body.len(), length.header("content-length")), (1_234, "1234"));
    let head = client.send(Method::HEAD, "/length", &[], "");
    assert_eq!((head.status.as_u16(), head.body.len(), head.header("content-length")), (200, 0, "1234"));
    // Ten waits at once, in one call.
    assert_eq!(client.get("/together?50").text(), "slept");
    assert_eq!(client.get("/say").text(), "Ok(())");
    let (_, logs, _) = host.caxton(&["logs", "web", "--tail", "100"]);
    assert!(logs.contains("said by a stream"), "{logs}");
}

#[test]
fn trailers_follow_the_body() {
    let host = host(&service("p3-web", ""));
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    stream
        .write_all(b"GET /trailers HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\n\r\n")
        .expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    assert!(text.contains("\r\nok\r\n0\r\nx-sum: 2\r\n"), "{text}");
}

#[test]
fn bodies_of_wasi_03_stream_both_ways_in_constant_memory() {
    const LARGE: usize = 100 << 20;
    let host = host(&service("p3-web", "limits = { time = \"2m\", cpu = \"1m\" }"));
    let before = resident(&host);
    let mut stream = TcpStream::connect(&host.http).expect("the host listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
    let mut reader = stream.try_clone().expect("a TCP socket");
    write!(stream, "POST /upper HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {LARGE}\r\n\r\n")
        .expect("it reads");
    let writer = std::thread::spawn(move || {
        // No letter of a head, and no digit of a chunk's size.
        let piece = vec![b'z'; 1 << 20];
        for _ in 0..LARGE >> 20 {
            stream.write_all(&piece).expect("it reads on");
        }
        stream
    });
    let (mut letters, mut buffer, mut peak) = (0usize, vec![0; 1 << 20], 0);
    loop {
        let read = reader.read(&mut buffer).expect("it answers");
        if read == 0 {
            break;
        }
        letters += buffer[..read].iter().filter(|byte| **byte == b'Z').count();
        peak = peak.max(resident(&host));
    }
    drop(writer.join().expect("all was sent"));
    assert_eq!(letters, LARGE, "letters came back");
    assert!(peak < before + (64 << 20), "from {before} to {peak} bytes for {LARGE} bytes");
}

#[test]
fn limits_hold_for_components_of_wasi_03() {
    let limits = "limits = { time = \"4s\", cpu = \"300ms\", memory = \"16MiB\" }";
    let host = host(&service("p3-web", limits));
    let client = host.client();
    for (path, status, code) in [
        ("/trap", 500, "trap"),
        ("/error", 500, "no-response"),
        ("/loop", 500, "cpu"),
        ("/sleep?60000", 504, "time"),
        ("/grow", 500, "trap"),
        ("/hoard", 500, "exceeded"),
    ] {
        let reply = client.get(path);
        assert_eq!(reply.status.as_u16(), status, "{path}: {}", reply.text());
        assert!(reply.text().contains(code), "{path}: {}", reply.text());
        assert_eq!(client.get("/ok").text(), "ok", "after {path}");
    }
    // Once the head is out there is only one way to tell: the body breaks off. Before that the client hears why.
    for path in ["/loop-midway", "/trap-midway", "/wait", "/short"] {
        let reply = client.try_send(Method::GET, path, &[], "");
        let told = reply.as_ref().is_ok_and(|reply| matches!(reply.status.as_u16(), 500 | 504));
        assert!(told || reply.is_err(), "{path}: {reply:?}");
        assert_eq!(client.get("/ok").text(), "ok", "after {path}");
    }
}

#[test]
fn fuel_is_counted_for_components_of_wasi_03() {
    let host = host(&service("p3-web", "limits = { fuel = 50_000_000 }"));
    let client = host.client();
    assert_eq!(client.get("/ok").text(), "ok");
    let reply = client.get("/loop");
    assert!(reply.status.as_u16() == 500 && reply.text().contains("fuel"), "{}", reply.text());
    assert_eq!(host.api().get("/v1/host").json()["engines"], serde_json::json!(["plain", "async-fuel"]));
}

#[test]
fn a_client_that_leaves_ends_its_call() {
    let mut host = host(&service("p3-web", "limits = { time = \"2m\", cpu = \"1m\" }"));
    for path in ["/pour", "/wait"] {
        let mut stream = TcpStream::connect(&host.http).expect("the host listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").expect("it reads");
        let mut first = [0; 20];
        stream.read_exact(&mut first).expect("it answers");
        assert_eq!(host.agent("web")["in_flight"], 1, "{path}");
        drop(stream);
        host.until_agent("web", "nothing is in hand any more", |status| status["in_flight"] == 0);
        assert_eq!(host.client().get("/ok").text(), "ok", "after {path}");
    }
}

#[test]
fn an_instance_of_wasi_03_is_used_again_where_that_is_declared() {
    let once = host(&service("p3-web", "instances = { max = 1 }"));
    let again = host(&service("p3-web", "instances = { max = 1, reuse = 100 }"));
    for nth in 1..=5 {
        for host in [&once, &again] {
            assert_eq!(host.client().post("/upper", "hello").text(), "HELLO");
        }
        assert_eq!(once.agent("web")["started_instances"], nth);
    }
    assert_eq!(again.agent("web")["started_instances"], 1);
    // One that failed is not.
    assert_eq!(again.client().get("/trap").status.as_u16(), 500);
    assert_eq!(again.client().get("/ok").text(), "ok");
    assert_eq!(again.agent("web")["started_instances"], 2);
}

#[test]
fn effects_of_wasi_03_commit_with_the_head() {
    let host = host(&service("p3-web", ""));
    let client = host.client();
    let value = |key: &str| host.caxton(&["state", "get", "web", key]);
    assert_eq!(client.get("/visit").text(), "1");
    assert_eq!(value("visits").1.trim(), "1");
    assert_eq!(client.get("/fail").status.as_u16(), 500);
    assert_eq!(value("visits").1.trim(), "1", "a server error leaves nothing behind");
    assert_eq!(client.get("/late").text(), "Ok(1)");
    assert_eq!(value("late").1.trim(), "1", "what comes after the head is a commit of its own");
    assert_eq!(client.get("/visit").text(), "2");
}

#[test]
fn clocks_and_random_numbers_of_wasi_03_are_granted() {
    let allow = |supply: &str| service("p3-web", &format!("allow = {{ clock = \"{supply}\", random = \"{supply}\" }}"));
    let host = host(&allow("message"));
    let told = host.client().get("/supply").text();
    let [seconds, monotonic, _] = told.split(' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    assert_eq!(&monotonic[..seconds.len()], seconds, "both stand at the time of the call: {told}");
    assert_eq!(host.client().get("/sleep?1").text(), "slept", "a wait is not the time");
    host.edit(&file(&allow("none")));
    host.until_output("web@2 runs");
    let refused = host.client().get("/supply");
    assert!(refused.status.as_u16() == 500 && refused.text().contains("trap"), "{}", refused.text());
    assert_eq!(host.client().get("/sleep?1").status.as_u16(), 500);
    let (_, logs, _) = host.caxton(&["logs", "web", "--tail", "100"]);
    assert!(logs.contains("allow.clock"), "{logs}");
}

#[test]
fn components_of_the_release_candidate_run() {
    for (guest, path, answer) in [("p3-candidate", "/ok", "ok"), ("p3-spin", "/there", "Hello, Spin: /there")] {
        let host = host(&service(guest, ""));
        let client = host.client();
        assert_eq!(client.get(path).text(), answer, "{guest}");
        assert_eq!(client.get(path).text(), answer, "{guest}");
    }
    let host = host(&service("p3-candidate", ""));
    assert_eq!(host.client().post("/upper", "hello").text(), "HELLO");
    assert_eq!(host.client().get("/together?1").text(), "slept");
    // Its names are those that it has, also where the host maps them.
    let (status, checked, _) = host.caxton(&["check", "-o", "json"]);
    assert!(status == 0 && checked.contains("wasi:http/types@0.3.0-rc-2026-03-15"), "{checked}");
    assert!(checked.contains("experimental"), "{checked}");
}

#[test]
fn the_second_engine_is_made_when_a_component_needs_it() {
    let echo = agent("echo", "echo", "");
    let mut host = host(&echo);
    let engines = |host: &Host| host.api().get("/v1/host").json()["engines"].clone();
    assert_eq!(engines(&host), serde_json::json!(["plain"]));
    assert_eq!(host.client().post("/echo", "hello").text(), "hello");
    host.edit(&file(&format!("{echo}{}", agent("web", "p3-web", "").replace("\"/web\"", "\"/web/{*path}\""))));
    host.until_agent("web", "it runs", |status| status["revision"] == "web@1");
    assert_eq!(engines(&host), serde_json::json!(["plain", "async"]));
    assert_eq!(metric(&host, "caxton_engines_created_total{engine=\"async\"}"), 1);
    assert_eq!(host.client().post("/echo", "hello").text(), "hello");
    let (_, doctor, _) = host.caxton(&["doctor"]);
    assert!(doctor.contains("WASI 0.3") && doctor.contains("wasi:http/client"), "{doctor}");
}

#[test]
fn a_new_revision_of_wasi_03_takes_over_under_load() {
    let setup = Setup::new(
        BINARY,
        &file("[agents.web]\ncomponent = \"agent.wasm\"\n[[agents.web.http]]\nroute = \"/{*path}\"\n"),
    );
    std::fs::copy(guest("p3-web"), setup.folder().join("agent.wasm")).expect("the guest can be copied");
    let mut host = setup.start();
    let load = Load::new(&host, "/upper", 3, |_| "ping".to_owned());
    install(host.folder(), "p3-candidate");
    host.until_agent("web", "the new one runs alone", |status| status["revision"] == "web@2");
    let after = host.agent("web")["handled"].as_u64().unwrap_or_default();
    host.until_agent("web", "it has answered", |status| status["handled"].as_u64() > Some(after + 20));
    let calls = load.end();
    assert_eq!(calls.wrong, Vec::<String>::new(), "of {:?}", calls.answered);
    assert_eq!(calls.answered.keys().map(String::as_str).collect::<Vec<_>>(), ["web@1", "web@2"]);
}

#[test]
fn a_canary_of_wasi_03_has_its_share() {
    let settings = "deploy = { strategy = \"canary\", steps = [{ weight = 50, for = \"1s\" }] }\n\
                    rollback = { min-messages = 20, slower = \"10000%\" }\n";
    let host = host(&service("p3-web", settings));
    let load = Load::new(&host, "/upper", 3, |_| "ping".to_owned());
    host.edit(&file(&service("p3-web", &format!("{settings}config = {{ n = \"2\" }}\n"))));
    host.until_output("web@2 runs; web@1 drains");
    let calls = load.end();
    assert_eq!(calls.wrong, Vec::<String>::new(), "of {:?}", calls.answered);
    assert!(calls.answered.len() == 2, "both had a share: {:?}", calls.answered);
}

#[test]
fn copies_of_calls_of_wasi_03_have_no_effects() {
    let setup = Setup::new(
        BINARY,
        &file(
            "[agents.web]\ncomponent = \"agent.wasm\"\n\
             reload = { strategy = \"parallel\", for = \"1h\", min-messages = 5 }\n\
             [[agents.web.http]]\nroute = \"/{*path}\"\n",
        ),
    );
    install(setup.folder(), "p3-web");
    let mut host = setup.start();
    install(host.folder(), "p3-candidate");
    let newest = |host: &Host| host.api().get("/v1/rollouts/web").json()[0].clone();
    host.until("copies are made", |host| {
        newest(host)["why"].as_str().is_some_and(|why| why.contains("copies to judge by")).then_some(())
    });
    let client = host.client();
    assert_eq!(client.get("/visit").text(), "1");
    assert_eq!(client.get("/fail").status.as_u16(), 500);
    assert_eq!(client.post("/upper", "hello").text(), "HELLO");
    assert_eq!(client.get("/late").text(), "Ok(1)");
    assert_eq!(client.get("/visit").text(), "2");
    let judged = host.until("all is compared", |host| {
        let newest = newest(host);
        (newest["weight"] == 100 || newest["ended"] == true).then_some(newest)
    });
    assert_eq!((&judged["weight"], &judged["copies_alike"]), (&serde_json::json!(100), &serde_json::json!(5)));
    assert_eq!(host.api().get("/v1/agents/web/state/visits").text(), "2");
}
