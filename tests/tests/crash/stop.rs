//! A stop under load, as an operator does it.

use std::time::{Duration, Instant};

use caxton_tests::Setup;
use rand::Rng;

use crate::audit::Books;
use crate::kill::check_at_rest;
use crate::load::Load;
use crate::{BINARY, bank, chance, check, seconds, seeds, until};

/// The time limit of a stop with short handlers only: far less than `host.drain`, which is for long ones.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_stop_does_not_wait_for_stored_messages() {
    for seed in seeds() {
        let mut chance = chance(seed, 4 << 8, 0);
        let load = Load::with(seed, true);
        let mut host = Setup::new(BINARY, &bank::file("history = 1_000_000\n[host]\ndrain = \"60s\"")).start();
        bank::open(&host.client());
        for round in 0..4 {
            let clients = load.start(&host, round);
            let enough = load.accepted() + chance.random_range(20..200);
            until("requests", &mut host, |_| load.accepted() >= enough);
            let began = Instant::now();
            let (code, setup) = host.stop();
            clients.join();
            let context = format!("seed {seed}, stop {round}");
            assert_eq!(code, 0, "{context}");
            assert!(began.elapsed() < SOON, "{context} took {}", seconds(began));
            let books = Books::of(setup.folder());
            println!("{context} took {}; {} effects, {} wait", seconds(began), books.effects(), books.waiting());
            check(&context, &[books.wrong(), books.missing(&load.sent())].concat());
            host = setup.start();
        }
        check_at_rest(host, &load, &format!("seed {seed}, stopped"));
    }
}
