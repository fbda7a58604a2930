//! An agent that is removed while messages are on their way to it.

use caxton_tests::Setup;

use crate::bank::{self, BANKS};
use crate::books::Books;
use crate::load::Load;
use crate::{BINARY, check, seeds, until, until_rest};

#[test]
fn what_a_removed_agent_does_not_handle_becomes_dead_letters() {
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
        until("the removal", &mut host, |_| api.get("/v1/agents/bank-d").status.as_u16() == 404);
        until_rest(&mut host);
        let (code, setup) = host.stop();
        assert_eq!(code, 0);
        let books = Books::of(setup.folder());
        println!("seed {seed}: {} effects, {} dead, {} wait", books.effects(), books.dead(), books.waiting());
        check(&format!("seed {seed}"), &books.wrong());
        assert_eq!(books.waiting(), 0, "seed {seed}: messages wait for nobody");
    }
}
