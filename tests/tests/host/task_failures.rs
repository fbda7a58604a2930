//! A task of the host that dies ends it with a reason, or is made again.

use serde_json::{Value, json};

use caxton_tests::{Client, Host};

use crate::{agent, file, host, metric};

const LATER: &str = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";

fn rogue(settings: &str) -> Host {
    host(&(agent("rogue", "rogue", settings) + LATER))
}

fn task(host: &Host, name: &str) -> Value {
    let told = Client::new(&host.admin, None).get("/healthz").json();
    told["tasks"].as_array().into_iter().flatten().find(|task| task["name"] == name).cloned().unwrap_or_default()
}

#[test]
fn a_host_that_loses_a_vital_task_ends_with_a_reason() {
    for name in ["reconciler", "http-listener", "admin-listener", "store-writer", "store-checkpoint"] {
        let mut host = rogue("");
        assert_eq!(Client::new(&host.admin, None).get("/healthz").json()["status"], "ok");
        host.order(&format!("panic {name}"));
        if name.starts_with("store-") {
            // They come round with the next commits. Which of them is answered, nobody knows.
            let (address, action) = (host.http.clone(), r#"{"do":"increment","key":"n"}"#);
            std::thread::spawn(move || {
                let clients: Vec<Client> = (0..8).map(|_| Client::new(&address, None)).collect();
                std::thread::scope(|scope| {
                    for client in clients {
                        scope
                            .spawn(move || while client.try_send(http::Method::POST, "/later", &[], action).is_ok() {});
                    }
                });
            });
        }
        assert_eq!(host.ended(), 1, "{name}: {}", host.output());
        let said = host.output();
        assert!(
            said.contains("the host could not go on and has ended") && said.contains("was ordered to panic by a test"),
            "{said}"
        );
        assert!(said.contains("panicked at"), "the panic is said like all else: {said}");
    }
}

#[test]
fn a_host_whose_reconciler_died_finishes_and_keeps_what_is_in_hand() {
    let mut host = rogue("limits = { time = \"60s\" }");
    let address = host.http.clone();
    let action = json!({ "do": "steps", "steps": [{ "do": "sleep", "ms": 1_500 }, { "do": "increment", "key": "n" }] });
    let slow = std::thread::spawn(move || Client::new(&address, None).post("/rogue", action.to_string()));
    host.until_agent("rogue", "the call is in hand", crate::in_hand);
    host.order("panic reconciler");
    assert_eq!(slow.join().expect("it is answered").status.as_u16(), 200);
    assert_eq!(host.ended(), 1);
    let host = host.again().start();
    assert_eq!(host.caxton(&["state", "get", "rogue", "n"]).1.trim(), "1");
}

#[test]
fn a_restartable_task_is_restarted_and_reported() {
    let mut host = rogue("allow = { send = [\"rogue\"] }");
    for name in ["timers", "schedules", "watch", "figures", "sweep", "log-writer", "agents-logs"] {
        assert_eq!(task(&host, name)["restarts"], 0, "{name}");
        host.order(&format!("panic {name}"));
        host.until(name, |host| {
            // What is written takes the writers round.
            host.client().post("/rogue", r#"{"do":"print","stderr":"hello"}"#);
            if name == "log-writer" {
                // Which the host says.
                host.signal(rustix::process::Signal::HUP);
            }
            let task = task(host, name);
            (task["restarts"] == 1 && task["state"] == "runs").then_some(())
        });
        let line = format!("caxton_task_restarts_total{{task=\"{name}\"}}");
        assert_eq!(metric(&host, &line), 1, "{name}");
    }
    assert_eq!(task(&host, "timers")["reason"], "the timers was ordered to panic by a test");
    // All of them do their work.
    let later = json!({ "do": "send", "to": "rogue", "content": { "do": "increment", "key": "n" }, "with": { "after-ms": 300 } });
    assert_eq!(host.client().post("/rogue", later.to_string()).status.as_u16(), 200);
    host.until("the timer", |host| (host.caxton(&["state", "get", "rogue", "n"]).1.trim() == "1").then_some(()));
    host.edit(&file(&(agent("rogue", "rogue", "config = { n = \"2\" }") + LATER)));
    host.until_agent("rogue", "the edit is followed", |status| status["revision"] == "rogue@2");
    let (code, _) = host.stop();
    assert_eq!(code, 0);
}

#[test]
fn a_task_that_keeps_dying_ends_the_host() {
    let mut host = rogue("");
    for time in 1..=5 {
        host.order("panic figures");
        host.until("it is made again", |host| (task(host, "figures")["restarts"] == time).then_some(()));
    }
    host.order("panic figures");
    assert_eq!(host.ended(), 1);
    assert!(host.output().contains("a task of the host died (figures)"), "{}", host.output());
}
