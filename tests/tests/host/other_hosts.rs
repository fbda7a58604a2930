//! Components made with the SDKs of other hosts, unchanged.

use caxton_tests::{Client, Host};
use http::Method;

use crate::{agent, host};

const ALL_PATHS: &str = "route = \"/{*path}\"\n";

/// An agent of a guest, called at all paths.
fn at_all_paths(name: &str, guest: &str, more: &str) -> String {
    agent(name, guest, more).replace(&format!("route = \"/{name}\"\n"), ALL_PATHS)
}

fn state(host: &Host, agent: &str, key: &str) -> String {
    host.caxton(&["state", "get", agent, key]).1.trim().to_owned()
}

fn status(client: &Client, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let reply = client.send(method, path, headers, body.to_owned());
    (reply.status.as_u16(), reply.text())
}

#[test]
fn a_component_of_spin_counts_in_its_key_value_store() {
    let host = host(&at_all_paths("spin", "spin-counter", "config = { greeting = \"hello\" }"));
    let client = host.client();
    assert_eq!(status(&client, Method::POST, "/count", &[], ""), (200, "1".to_owned()));
    assert_eq!(status(&client, Method::POST, "/count", &[], ""), (200, "2".to_owned()));
    assert_eq!(state(&host, "spin", "count"), "2", "the agent's own state, committed with the response");
    assert_eq!(client.post("/fail", "").status.as_u16(), 500);
    assert_eq!(state(&host, "spin", "count"), "2", "a response that says that it failed commits nothing");
    // Safe when the client has its answer: also for a host that is killed.
    let host = host.kill().start();
    let client = host.client();
    assert_eq!(status(&client, Method::POST, "/count", &[], ""), (200, "3".to_owned()));
    assert_eq!(client.get("/variable/greeting").text(), "hello");
    assert_eq!(status(&client, Method::GET, "/variable/none", &[], ""), (404, "undefined: none".to_owned()));
}

#[test]
fn stores_of_spin_are_parts_of_the_state() {
    let host = host(&at_all_paths("spin", "spin-counter", "limits = { state = \"64KiB\" }"));
    let client = host.client();
    let sessions: &[(&str, &str)] = &[("x-store", "sessions")];
    for (key, store) in [("a", &[][..]), ("@a", &[]), ("b", sessions), ("c/d", sessions)] {
        assert_eq!(status(&client, Method::PUT, &format!("/keys/{key}"), store, key), (204, String::new()), "{key}");
        assert_eq!(status(&client, Method::GET, &format!("/keys/{key}"), store, ""), (200, key.to_owned()), "{key}");
    }
    assert_eq!(client.get("/keys").text(), "@a\na", "in the order of the state");
    assert_eq!(status(&client, Method::GET, "/keys", sessions, "").1, "b\nc/d");
    assert_eq!(state(&host, "spin", "@sessions/c/d"), "c/d");
    assert_eq!(status(&client, Method::DELETE, "/keys/b", sessions, "").0, 204);
    assert_eq!(status(&client, Method::GET, "/keys", sessions, "").1, "c/d");
    assert_eq!(status(&client, Method::GET, "/keys", &[("x-store", "a/b")], ""), (404, "no such store".to_owned()));
    // Bounded as the state is, with the setting in the error.
    let (code, why) = status(&client, Method::PUT, "/keys/large", &[], &"x".repeat(65 << 10));
    assert!(code == 413 && why.contains("limits.state"), "{code} {why}");
    let (code, why) = status(&client, Method::PUT, &format!("/keys/{}", "k".repeat(1_025)), &[], "1");
    assert!(code == 413 && why.contains("1 to 1024 bytes"), "{code} {why}");
}

#[test]
fn a_component_of_wasmcloud_has_a_mailbox() {
    let cloud = "config = { greeting = \"hello \" }\nallow = { send = [\"echo\"] }\n\
                 limits = { writes = 5_000 }\nmailbox = { attempts = 1 }";
    let mut host = host(&(agent("cloud", "wasmcloud-echo", cloud) + &agent("echo", "echo", "")));
    let client = host.client();
    assert_eq!(host.agent("cloud")["kind"], "message");
    assert_eq!(client.post("/cloud", "you").text(), "hello you 1 at cloud");
    assert_eq!(state(&host, "cloud", "@echo/count"), "1", "one commit with the message");
    let failed = client.post("/cloud", "fail");
    assert!(failed.status.is_server_error(), "{}", failed.text());
    assert_eq!(state(&host, "cloud", "@echo/count"), "1", "a handler that fails leaves nothing behind");
    assert_eq!(client.post("/cloud", "ask echo.created").text(), "Ok(\"asked\")");
    for (subject, part) in [("nobody", "nobody"), ("cloud", "allow.send"), (".", "allow.send")] {
        let told = client.post("/cloud", format!("ask {subject}")).text();
        assert!(told.starts_with("Err(") && told.contains(part), "{subject}: {told}");
    }
    client.post("/cloud", "tell echo");
    host.until_agent("echo", "a request and a message came", |status| status["handled"] == 2);
    assert_eq!(client.post("/cloud", "twice").text(), "first");
    assert!(state(&host, "cloud", "@echo/second").contains("has its reply already"));
    assert_eq!(client.post("/cloud", "list").text(), "1000 1000 500");
    let host = host.kill().start();
    assert_eq!(state(&host, "cloud", "@many/key-2499"), "1");
}

/// An HTTP agent with all of `wasi:keyvalue`, and the agent that it asks.
fn keyvalue(more: &str) -> Host {
    let more = format!("config = {{ a = \"1\", b = \"2\" }}\nallow = {{ send = [\"echo\"] }}\n{more}");
    host(&(at_all_paths("kv", "keyvalue", &more) + &agent("echo", "echo", "")))
}

#[test]
fn key_value_functions_are_those_of_the_draft() {
    let host = keyvalue("limits = { writes = 5_000 }");
    let client = host.client();
    for (path, expected) in [
        ("/open/other", "opened"),
        ("/open/a%20b", "Error::NoSuchStore"),
        ("/increment/5", "5"),
        ("/increment/-7", "-2"),
        ("/swap/first", "None swapped"),
        ("/swap/second", "Some(\"first\") swapped"),
        ("/swap-stale", "failed with Some(\"changed\"), then swapped"),
        ("/swap/third", "Some(\"won\") swapped"),
        ("/increment-asking", "-1"),
        ("/set-many/2500/3", "set"),
        ("/get-many/3000", "2500"),
        ("/pages/many", "1000 1000 500"),
        // Those of `many` are left out at once.
        ("/pages/default", "2"),
        ("/delete-many/2000", "deleted"),
        ("/pages/many", "500"),
        ("/pages/other", "0"),
        ("/set/1000", "true Some(1000) false"),
        ("/config/a", "Some(\"1\") of 2"),
        ("/config/c", "None of 2"),
    ] {
        assert_eq!(client.get(path).text(), expected, "{path}");
    }
    assert_eq!(client.get("/fail").status.as_u16(), 500);
    assert_eq!(host.caxton(&["state", "get", "kv", "failed"]).0, 3, "nothing of it is kept");
    // A number is kept as text, as `caxton:agent/state` keeps it.
    assert_eq!(state(&host, "kv", "count"), "-1");
}

#[test]
fn keys_and_values_are_bounded_as_the_state_is() {
    let host = keyvalue("limits = { state = \"1MiB\", writes = 100 }");
    let client = host.client();
    for (path, part) in [
        ("/set/2000000", "limits.state"),
        ("/set-key/1024", "set"),
        ("/set-key/1025", "1 to 1024 bytes"),
        ("/set-key/0", "1 to 1024 bytes"),
        ("/set-many/101/1", "limits.writes"),
    ] {
        let told = client.get(path).text();
        assert!(told.contains(part), "{path}: {told}");
    }
    assert_eq!(client.get("/pages/many").text(), "100", "it answered 200, and what came before the error is kept");
}

#[test]
fn two_calls_in_conflict_are_both_answered() {
    let mut host = keyvalue("limits = { time = \"2m\" }");
    assert_eq!(host.caxton(&["mailbox", "pause", "echo"]).0, 0);
    let call = |address: &str| {
        let address = address.to_owned();
        std::thread::spawn(move || Client::new(&address, None).get("/increment-asking"))
    };
    let calls = [call(&host.http), call(&host.http)];
    // Both have read the count by then.
    host.until_agent("echo", "both questions wait", |status| status["mailbox_depth"] == 2);
    assert_eq!(host.caxton(&["mailbox", "resume", "echo"]).0, 0);
    let replies = calls.map(|call| call.join().expect("it is answered"));
    let mut told = replies.map(|reply| (reply.status.as_u16(), reply.text()));
    told.sort();
    assert_eq!(told, [(200, "1".to_owned()), (200, "2".to_owned())]);
    assert_eq!(state(&host, "kv", "count"), "2");
    let status = host.agent("kv");
    assert_eq!((&status["conflicts"], &status["runs"]), (&serde_json::json!(1), &serde_json::json!(3)));
    assert_eq!(host.agent("echo")["handled"], 2, "the run after the conflict asked nothing again");
}

#[test]
fn what_is_not_offered_is_named_with_the_nearest_that_is() {
    let setup = caxton_tests::Setup::new(crate::BINARY, &crate::file(&agent("blobs", "spin-counter", "")));
    let component = r#"(component
        (import "wasi:blobstore/blobstore@0.2.0-draft" (instance))
        (import "fermyon:spin/sqlite@2.0.0" (instance))
        (import "wasi:keyvalue/store@0.1.0" (instance))
        (instance $i) (export "wasi:http/incoming-handler@0.2.6" (instance $i)))"#;
    std::fs::write(setup.folder().join("blobs.wasm"), wat::parse_str(component).expect("it is a component"))
        .expect("the folder can be written to");
    setup.edit(&crate::file("[agents.blobs]\ncomponent = \"blobs.wasm\"\n"));
    let (code, stdout, stderr) = setup.caxton(&["check"]);
    let told = stdout + &stderr;
    assert_ne!(code, 0, "{told}");
    for part in [
        "the nearest is wasi:keyvalue/store@0.2.0-draft2, with values",
        "the nearest is fermyon:spin/key-value@2.0.0",
        "this host has store, atomics and batch of wasi:keyvalue@0.2.0-draft and @0.2.0-draft2",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
