//! Calls of a candidate's share while the candidate cannot take them.

use caxton_tests::{Host, Setup};
use serde_json::Value;

use crate::rollouts::install;
use crate::{BINARY, file};

/// `agent.wasm` at any path, by one instance, with half of the calls for a candidate and little time for each.
fn half(rollback: &str) -> String {
    file(&format!(
        "[agents.echo]\ncomponent = \"agent.wasm\"\nlimits = {{ time = \"300ms\" }}\ninstances = {{ min = 1, max = 1 }}\n\
         reload = {{ strategy = \"traffic-splitting\", steps = [50, 100], every = \"1h\" }}\n\
         rollback = {{ slower = \"10000%\", {rollback} }}\n[[agents.echo.http]]\nroute = \"/{{*path}}\"\n"
    ))
}

/// A host on which `stable` has run, and `candidate` has half of the calls by now.
fn start(toml: &str, stable: &str, candidate: &str) -> Host {
    let setup = Setup::new(BINARY, toml);
    install(setup.folder(), stable);
    let mut host = setup.start();
    install(host.folder(), candidate);
    host.until_output("echo@1 has 50%; echo@2 has 50%");
    host.until_agent("echo", "both run", |status| {
        let running = status["revisions"].as_array().into_iter().flatten().filter(|one| one["state"] == "running");
        running.count() == 2
    });
    host
}

const TRAP: &str = r#"{"do":"trap"}"#;

/// Makes calls that only the candidate traps at. Returns status and revision of each.
fn calls(host: &Host, path: &str, count: usize) -> Vec<(u16, String)> {
    let client = host.client();
    let call = |_| client.post(path, TRAP);
    (0..count).map(call).map(|reply| (reply.status.as_u16(), reply.header("caxton-revision").to_owned())).collect()
}

/// Checks that stable answers the calls that the candidate does not take: half of them are the candidate's, and it takes
/// few. Returns the number of calls at which the candidate trapped.
fn stable_answers(host: &Host, path: &str) -> usize {
    let told = calls(host, path, 200);
    let of = |wanted: u16| told.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!(of(200) + of(500), told.len(), "nothing but answers and traps: {told:?}");
    assert!(of(200) > 100, "stable had more than its half: {told:?}");
    assert!(told.iter().all(|(status, revision)| *status != 200 || revision == "echo@1"), "{told:?}");
    of(500)
}

const NEVER: &str = "min-messages = 100000, errors = \"100%\"";

#[test]
fn stable_answers_calls_that_the_candidate_cannot_accept() {
    let host = start(&half(NEVER), "echo", "rogue");
    assert!(stable_answers(&host, "/echo") > 1, "the candidate trapped");
    assert_eq!(host.agent("echo")["breaker"], "closed");
}

#[test]
fn stable_answers_http_calls_that_the_candidate_cannot_accept() {
    let host = start(&half(NEVER), "web-echo", "rogue-web");
    assert!(stable_answers(&host, "/trap") > 1, "the candidate trapped");
}

#[test]
fn stable_answers_conversations_of_an_unavailable_candidate() {
    let mut host = start(&half(NEVER), "echo", "rogue");
    let client = host.client();
    let say = |name: &str| {
        let body = r#"{"do":"reply","text":"\"well\""}"#;
        let reply = client.send(http::Method::POST, "/echo", &[("caxton-conversation", name)], body);
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
        reply.header("caxton-revision").to_owned()
    };
    let began = (0..64).map(|nth| format!("c{nth}")).find(|name| say(name) == "echo@2").expect("half of them");
    assert_eq!(say(&began), "echo@2", "it stays");
    host.until("stable answers it", |host| {
        calls(host, "/echo", 12);
        (say(&began) == "echo@1").then_some(())
    });
    host.until("the candidate answers it again", |_| (say(&began) == "echo@2").then_some(()));
}

#[test]
fn fallbacks_count_against_the_candidate() {
    // By traps alone this many take minutes: after each the candidate is left alone for longer.
    let mut host = start(&half("min-messages = 40, errors = \"60%\""), "echo", "rogue");
    let ended = host.until("the candidate is refused", |host| {
        calls(host, "/echo", 10);
        let newest: Value = host.api().get("/v1/rollouts/echo").json()[0].clone();
        (newest["ended"] == true).then_some(newest)
    });
    let why = ended["why"].as_str().unwrap_or_default();
    assert!(why.starts_with("errors: ") && why.contains("could not even be taken, and stable answered"), "{ended}");
    assert_eq!(calls(&host, "/echo", 1), [(200, "echo@1".to_owned())]);
}

#[test]
fn queued_messages_of_the_candidate_do_not_block_the_fallback() {
    let toml = half(NEVER) + "[[agents.echo.http]]\nroute = \"/keep\"\nmode = \"enqueue\"\n";
    let mut host = start(&toml, "echo", "rogue");
    calls(&host, "/echo", 40);
    // Messages of the candidate's share, each alone and each to trap.
    let client = host.client();
    for _ in 0..20 {
        assert_eq!(client.post("/keep", TRAP).status.as_u16(), 202);
    }
    stable_answers(&host, "/echo");
    host.until_agent("echo", "all are handled in the end", |status| {
        ["mailbox_depth", "in_flight", "later"].iter().all(|key| status[key] == 0)
    });
    assert_eq!(host.agent("echo")["dead_letters"], 0);
}
