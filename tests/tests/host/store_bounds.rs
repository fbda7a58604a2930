//! The bounds in bytes of what the store keeps after it was handled or given up.

use caxton_tests::Host;

use crate::{agent, file, host, metric};

const MIB: u64 = 1 << 20;
const FAIL: &str = r#"{"do":"fail","cause":"rejected","reason":"no"}"#;
const NONE: &str = r#"{"do":"none"}"#;

/// Sends messages of so many bytes that the agent rejects, or handles.
fn send(host: &Host, count: usize, bytes: usize, action: &str) {
    for _ in 0..count {
        let content = format!("{action}{}", " ".repeat(bytes));
        let reply = host.api().post("/v1/agents/rogue/messages", content);
        assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
    }
}

fn store(host: &Host) -> serde_json::Value {
    host.api().get("/v1/store").json()
}

fn events(host: &Host, kind: &str) -> Vec<serde_json::Value> {
    let all = host.api().get("/v1/events?limit=1000").json();
    let events = all.as_array().unwrap_or_else(|| panic!("{all}")).clone();
    events.into_iter().filter(|event| event["kind"] == kind).collect()
}

#[test]
fn dead_letters_beyond_their_bytes_leave_and_an_event_tells_how_many() {
    let rogue = agent("rogue", "rogue", "limits = { message = \"1MiB\" }\n");
    let bounds = |most: &str| format!("[store]\ndead-letters-max = \"{most}\"\n{rogue}");
    let mut host = host(&bounds("2MiB"));
    send(&host, 40, 200_000, FAIL);
    host.until("all are given up", |host| {
        (metric(host, "caxton_dead_letters_total{agent=\"rogue\",reason=\"invalid\"}") == 40).then_some(())
    });
    let kept = store(&host);
    let (dead, bytes) = (kept["dead"].as_u64().expect("a number"), kept["dead_bytes"].as_u64().expect("a number"));
    assert!(bytes <= 2 * MIB && (9..=10).contains(&dead), "{kept}");
    assert_eq!(metric(&host, "caxton_dead_letters_forgotten_total"), 40 - dead);
    let (_, shown, _) = host.caxton(&["store", "show"]);
    assert!(shown.contains(&format!("dead letters  {dead}, of 1.")), "{shown}");
    let told =
        host.until("the event", |host| Some(events(host, "dead-letters.forgotten")).filter(|told| !told.is_empty()));
    assert!(
        told[0]["data"]["count"].as_u64() > Some(0) && told[0]["data"]["by_agent"]["rogue"] == told[0]["data"]["count"],
        "{told:?}"
    );
    host.until_output("dead letters");
    // A larger bound applies at once.
    host.edit(&file(&bounds("64MiB")));
    host.until("the larger bound", |host| {
        send(host, 1, 200_000, FAIL);
        (store(host)["dead"].as_u64() > Some(dead + 2)).then_some(())
    });
}

#[test]
fn handled_messages_beyond_their_bytes_leave() {
    let rogue = agent("rogue", "rogue", "limits = { message = \"1MiB\" }\n");
    let mut host = host(&format!("[store]\nhistory-max = \"3MiB\"\n{rogue}"));
    send(&host, 60, 200_000, NONE);
    host.until_agent("rogue", "all are handled", |status| status["handled"] == 60);
    let kept = host.until("the oldest have left", |host| {
        // What is beyond the bound leaves with the commits that follow.
        send(host, 1, 10, NONE);
        Some(store(host)).filter(|kept| kept["handled_bytes"].as_u64() <= Some(3 * MIB))
    });
    assert!(kept["handled"].as_u64() >= Some(5), "{kept}");
    assert!(metric(&host, "caxton_history_forgotten_total{bound=\"bytes\"}") >= 40);
    host.until("the event", |host| (!events(host, "history.shortened").is_empty()).then_some(()));
    // The next start counts them again, as far as they may be too many.
    let host = host.kill().start();
    send(&host, 30, 200_000, NONE);
    let mut host = host;
    host.until("the bound holds", |host| {
        send(host, 1, 10, NONE);
        (store(host)["handled_bytes"].as_u64() <= Some(3 * MIB)).then_some(())
    });
}
