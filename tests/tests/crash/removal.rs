//! An agent that is removed while messages are on their way to it.

use caxton_tests::{Client, Setup};
use rusqlite::Connection;

use crate::audit::{self, Books};
use crate::bank::{self, BANKS};
use crate::load::Load;
use crate::{BINARY, check, seeds, until, until_rest};

#[test]
fn unhandled_messages_of_a_removed_agent_become_dead_letters() {
    for seed in seeds() {
        let load = Load::new(seed);
        let mut host = Setup::new(BINARY, &bank::file("")).start();
        bank::open(&host.client());
        let clients = load.start(&host, 0);
        until("requests", &mut host, |_| load.accepted() >= 200);
        clients.stop();
        clients.join();
        host.edit(&bank::file_of(&BANKS[..3], ""));
        let api = host.api();
        host.until("the removal", |_| (api.get("/v1/agents/bank-d").status.as_u16() == 404).then_some(()));
        until_rest(&mut host);
        let (code, setup) = host.stop();
        assert_eq!(code, 0);
        let books = Books::of(setup.folder());
        println!("seed {seed}: {} effects, {} dead, {} wait", books.effects(), books.dead(), books.waiting());
        check(&format!("seed {seed}"), &books.wrong());
        assert_eq!(books.waiting(), 0, "seed {seed}: messages wait for nobody");
    }
}

#[test]
fn a_removal_does_not_wait_for_a_message_that_is_never_sent() {
    let agent = |name: &str, more: &str| {
        let route = format!("[[agents.{name}.http]]\nroute = \"/{name}\"\n");
        format!("[agents.{name}]\ncomponent = \"GUEST(rogue)\"\nreload = {{ drain = \"10m\" }}\n{more}\n{route}")
    };
    let desk = "capabilities = [\"desk\"]";
    // Its own settings stay as they are.
    let others = agent("aa", "allow = { send = [\"cap:desk\"] }") + &agent("cc", desk);
    let both = format!("caxton = 1\n{others}{}", agent("bb", desk));
    let mut host = Setup::new(BINARY, &both).start();
    let address = host.http.clone();
    // A place is kept for what it sends until it fails.
    let steps = r#"{"do": "steps", "steps": [{"do": "send", "to": "bb", "content": {"do": "none"}},
        {"do": "sleep", "ms": 5000}, {"do": "fail", "cause": "rejected", "reason": "on purpose"}]}"#;
    let call = std::thread::spawn(move || Client::new(&address, None).post("/aa", steps).status.as_u16());
    host.until_agent("bb", "a place is kept", |status| status["mailbox_depth"] == 1);
    host.edit(&format!("caxton = 1\n{others}"));
    // Not by the API: who asks makes the host look.
    let store = Connection::open(audit::database(host.folder())).expect("the database can be opened");
    let removed = || -> i64 {
        let sql = "SELECT count(*) FROM event WHERE kind = 'agent.removed' AND agent = 'bb'";
        store.query_row(sql, [], |row| row.get(0)).expect("events can be read")
    };
    host.until("the removal", |_| (removed() == 1).then_some(()));
    assert_eq!(call.join().expect("the call is answered"), 422);
}
