//! The file is edited while the host runs.

use std::sync::mpsc;

use caxton_tests::{Client, Host, guest};
use serde_json::json;

use crate::{agent, file, host};

/// Calls without pause over several connections until stopped. Returns the number of calls, and the
/// failures among their responses.
fn load(host: &Host, path: &'static str, connections: usize) -> impl FnOnce() -> (usize, Vec<String>) + use<> {
    let (sender, receivers): (Vec<_>, Vec<_>) = (0..connections).map(|_| mpsc::channel::<()>()).unzip();
    let callers: Vec<_> = receivers
        .into_iter()
        .map(|stopped| {
            let address = host.http.clone();
            std::thread::spawn(move || {
                let client = Client::new(&address, None);
                let (mut calls, mut wrong) = (0, Vec::new());
                while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                    calls += 1;
                    match client.try_send(http::Method::POST, path, &[], "ping") {
                        Ok(reply) if reply.status.as_u16() == 200 => {}
                        Ok(reply) => wrong.push(format!("{} {}", reply.status, reply.text())),
                        Err(error) => wrong.push(error),
                    }
                }
                (calls, wrong)
            })
        })
        .collect();
    move || {
        drop(sender);
        let mut all = (0, Vec::new());
        for caller in callers {
            let (calls, wrong) = caller.join().expect("a caller ends well");
            all.0 += calls;
            all.1.extend(wrong);
        }
        all
    }
}

#[test]
fn no_call_fails_because_of_a_reload() {
    let mut host = host(&agent("echo", "echo", ""));
    let stop = load(&host, "/echo", 4);
    for revision in 2..=12 {
        host.edit(&file(&agent("echo", "echo", &format!("config = {{ n = \"{revision}\" }}"))));
        let wanted = json!(format!("echo@{revision}"));
        host.until_agent("echo", "the new revision runs", |status| status["revision"] == wanted);
    }
    let (calls, wrong) = stop();
    assert_eq!(wrong, Vec::<String>::new(), "of {calls} calls");
    assert!(calls > 100, "{calls} calls were made");
    host.until_agent("echo", "the old revisions ended", |status| {
        status["revisions"].as_array().is_some_and(|revisions| revisions.len() == 1)
    });
}

#[test]
fn changed_bytes_are_taken_up_under_load() {
    let component = |host: &Host, name: &str| {
        let temporary = host.folder().join("new.wasm");
        std::fs::copy(guest(name), &temporary).expect("the guest can be copied");
        std::fs::rename(temporary, host.folder().join("agent.wasm")).expect("the folder can be written to");
    };
    let toml = file("[agents.echo]\ncomponent = \"agent.wasm\"\n[[agents.echo.http]]\nroute = \"/echo\"\n");
    let setup = caxton_tests::Setup::new(crate::BINARY, &toml);
    std::fs::copy(guest("echo"), setup.folder().join("agent.wasm")).expect("the guest can be copied");
    let mut host = setup.start();
    let stop = load(&host, "/echo", 4);
    component(&host, "session");
    host.until_agent("echo", "the other component runs", |status| status["kind"] == "stateful");
    component(&host, "echo");
    host.until_agent("echo", "the first component runs again", |status| status["kind"] == "message");
    let (calls, wrong) = stop();
    assert_eq!(wrong, Vec::<String>::new(), "of {calls} calls");
    // The same bytes again are nothing to do.
    let revision = host.agent("echo")["revision"].clone();
    component(&host, "echo");
    let (code, _, said) = host.caxton(&["apply"]);
    assert_eq!((code, &host.agent("echo")["revision"]), (0, &revision), "{said}");
}

#[test]
fn changing_one_agent_touches_no_other() {
    let mut host = host(&(agent("aa", "echo", "") + &agent("bb", "echo", "")));
    let client = host.client();
    host.edit(&file(&(agent("aa", "echo", "") + &agent("bb", "echo", "") + &agent("cc", "counter", ""))));
    host.until_agent("cc", "it runs", |status| status["state"] == "running");
    assert_eq!(client.post("/cc", "").json()["count"], 1);
    host.edit(&file(&(agent("aa", "echo", "limits = { cpu = \"2s\" }") + &agent("cc", "counter", ""))));
    host.until_agent("aa", "it has a new revision", |status| status["revision"] == "aa@2");
    host.until("bb is gone", |host| (host.api().get("/v1/agents/bb").status.as_u16() == 404).then_some(()));
    assert_eq!(client.post("/bb", "x").status.as_u16(), 404);
    assert_eq!(host.agent("cc")["revision"], "cc@1");
    assert_eq!(client.post("/cc", "").json()["count"], 2);
    // It comes back with what it kept.
    host.edit(&file(&agent("aa", "echo", "limits = { cpu = \"2s\" }")));
    host.until("cc is gone", |host| (host.api().get("/v1/agents/cc").status.as_u16() == 404).then_some(()));
    host.edit(&file(&(agent("aa", "echo", "limits = { cpu = \"2s\" }") + &agent("cc", "counter", ""))));
    host.until_agent("cc", "it runs again", |status| status["state"] == "running");
    assert_eq!(client.post("/cc", "").json()["count"], 3);
}

#[test]
fn settings_in_place_need_no_new_revision() {
    let mut host = host(&agent("echo", "echo", ""));
    host.edit(&file(&agent("echo", "echo", "mailbox = { depth = 7 }").replace("\"/echo\"", "\"/other\"")));
    host.until_agent("echo", "the bound is another", |status| status["mailbox_bound"] == 7);
    assert_eq!(host.agent("echo")["revision"], "echo@1");
    let client = host.client();
    assert_eq!((client.post("/echo", "x").status.as_u16(), client.post("/other", "x").status.as_u16()), (404, 200));
}

#[test]
fn a_file_with_errors_changes_nothing_and_is_reported() {
    let mut host = host(&agent("echo", "echo", ""));
    host.edit(&file(&(agent("echo", "echo", "limits = { memroy = \"1MiB\" }") + "[store]\ndurability = 7\n")));
    host.until_output("memroy");
    host.until_output("durability");
    assert_eq!(host.client().post("/echo", "still here").text(), "still here");
    let (_, _, words) = host.caxton(&["ps"]);
    assert!(words.contains("caxton.toml"), "ps tells that file and host differ: {words}");
    let ready = Client::new(&host.admin, None).get("/readyz");
    assert_eq!(ready.status.as_u16(), 200, "it serves");
    assert!(ready.text().contains("memroy"), "and tells that it is not as the file says: {}", ready.text());
    let (code, _, words) = host.caxton(&["apply"]);
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("did you mean `memory`"), "{words}");
    host.edit(&file(&agent("echo", "echo", "limits = { memory = \"1MiB\" }")));
    host.until_agent("echo", "the mended file is taken", |status| {
        status["revision"] == "echo@2" || status["waiting"].is_string()
    });
}

#[test]
fn a_failed_reload_changes_nothing() {
    let mut host = host(&agent("echo", "echo", ""));
    let stop = load(&host, "/echo", 2);
    for (guest, part) in [("slow-start", "cpu-exceeded"), ("by-record", "no agent")] {
        host.edit(&file(&agent("echo", guest, "")));
        host.until_agent("echo", "the candidate fails", |status| {
            status["waiting"].as_str().is_some_and(|why| why.contains(part))
        });
        let status = host.agent("echo");
        assert_eq!((&status["revision"], &status["state"]), (&json!("echo@1"), &json!("running")), "{status}");
        let newest =
            status["revisions"].as_array().and_then(|all| all.last()).expect("the candidate is told of").clone();
        assert_eq!(newest["state"], "failed", "{status}");
    }
    let (_, wrong) = stop();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_drain_ends_when_the_last_call_does() {
    let mut host = host(&agent("rogue", "rogue", "limits = { time = \"60s\" }"));
    let address = host.http.clone();
    let slow = std::thread::spawn(move || Client::new(&address, None).post("/rogue", r#"{"do":"sleep","ms":12000}"#));
    host.until_agent("rogue", "the slow call is in hand", |status| status["in_flight"] == 1);
    host.edit(&file(&agent("rogue", "rogue", "config = { n = \"2\" }")));
    host.until_agent("rogue", "the new revision runs and the old one drains", |status| {
        let states: Vec<&str> =
            status["revisions"].as_array().into_iter().flatten().filter_map(|r| r["state"].as_str()).collect();
        states == ["draining", "running"]
    });
    // New calls do not wait for the old one.
    let reply = host.client().post("/rogue", r#"{"do":"reply","text":"now"}"#);
    assert_eq!(reply.header("caxton-revision"), "rogue@2");
    let reply = slow.join().expect("the slow call is answered");
    assert_eq!((reply.status.as_u16(), reply.header("caxton-revision")), (200, "rogue@1"), "{}", reply.text());
    host.until_agent("rogue", "the old revision ends", |status| {
        status["revisions"].as_array().is_some_and(|revisions| revisions.len() == 1)
    });
}

#[test]
fn messages_unfinished_at_the_end_of_a_drain_are_handled_again() {
    let settings = "limits = { time = \"1m\", cpu = \"1m\" }\nreload = { drain = \"5s\" }\n";
    let mut host = host(&agent("rogue", "rogue", settings));
    let address = host.http.clone();
    // On the old revision this never ends; attempt 2 finds another revision that answers at once.
    let stuck = std::thread::spawn(move || {
        let action = json!({"do": "steps", "steps": [{"do": "message"}, {"do": "get", "key": "go"}, {"do": "sleep", "ms": 20_000}]});
        Client::new(&address, None).post("/rogue", action.to_string())
    });
    host.until_agent("rogue", "the call is in hand", |status| status["in_flight"] == 1);
    host.edit(&file(&agent("rogue", "rogue", &format!("{settings}config = {{ n = \"2\" }}\n"))));
    let reply = stuck.join().expect("the call is answered");
    assert_eq!((reply.status.as_u16(), reply.header("caxton-revision")), (200, "rogue@2"), "{}", reply.text());
    assert!(reply.text().contains("\"attempt\":2"), "{}", reply.text());
}

#[test]
fn a_saved_source_file_is_built_and_serves() {
    let toml = file(
        "[agents.echo]\ncomponent = \"agent.wasm\"\nbuild = { command = \"cp $(cat source.txt) agent.wasm\", watch = [\"source.txt\"] }\n[[agents.echo.http]]\nroute = \"/echo\"\n",
    );
    let setup = caxton_tests::Setup::new(crate::BINARY, &toml).argument("--build").argument("--watch");
    let source = setup.folder().join("source.txt");
    std::fs::write(&source, guest("echo").display().to_string()).expect("the folder can be written to");
    let mut host = setup.start();
    assert_eq!(host.client().post("/echo", "hello").text(), "hello");
    std::fs::write(&source, guest("counter").display().to_string()).expect("the folder can be written to");
    host.until_agent("echo", "the built component runs", |status| status["revision"] == "echo@2");
    assert_eq!(host.client().post("/echo", "").json()["count"], 1);
    // A build that fails is told of, and changes nothing.
    std::fs::write(&source, "/nowhere.wasm").expect("the folder can be written to");
    host.until_output("what runs stays as it was");
    assert_eq!(host.client().post("/echo", "").json()["count"], 2);
}

#[test]
fn sighup_and_apply_check_everything() {
    let mut host = host(&agent("echo", "echo", "reload = { watch = false }"));
    host.edit(&file(&agent("echo", "echo", "reload = { watch = false }\nconfig = { n = \"2\" }")));
    host.until_agent("echo", "the file is followed", |status| status["revision"] == "echo@2");
    host.signal(rustix::process::Signal::HUP);
    host.until_output("SIGHUP");
    let (code, out, words) = host.caxton(&["diff", "-o", "json"]);
    assert_eq!(code, 0, "{words}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).expect("JSON"), json!({"changes": []}), "{out}");
}

#[test]
fn settings_that_need_a_restart_are_reported_and_not_applied() {
    let host = host(&agent("echo", "echo", ""));
    host.edit(&file(&format!("[host]\ninstances = 100\n{}", agent("echo", "echo", "mailbox = { depth = 7 }"))));
    let (code, out, words) = host.caxton(&["apply"]);
    assert!(out.contains("! host (restart-needed)"), "{out}");
    assert!(words.contains("host: the host has to start again for host.instances: none -> 100"), "{words}");
    assert!(words.contains("not everything is as declared"), "{words}");
    assert_eq!(code, 1, "{out}{words}");
    let host = host.stop().1.start();
    assert_eq!(host.caxton(&["apply"]).0, 0, "it has started with it");
    assert_eq!(host.api().get("/v1/host").json()["max_instances"], 100);
}
