//! `kill -9` at any moment.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use caxton_tests::{Host, Setup};
use rand::Rng;
use rand::rngs::StdRng;

use crate::audit::Books;
use crate::load::Load;
use crate::{BINARY, bank, chance, check, seconds, seeds, setting, until, until_rest};

/// The moment at which a host is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The host has accepted this many transfers, and accepts more.
    Taken(u64),
    /// The host has handled this many messages.
    Handled(u64),
    /// The host has accepted this many transfers and gets no more; most are done, the rest wait for their time.
    Quiet(u64),
    /// The host starts, and has reached this stage.
    Starting(Stage),
}

/// A stage of the start of a host.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// The host has the lock of the data folder.
    Holds,
    /// The host listens.
    Listens,
    /// The agents handle the messages that waited.
    Works,
}

impl Moment {
    fn pick(chance: &mut StdRng) -> Self {
        match chance.random_range(0..10) {
            0..4 => Self::Taken(chance.random_range(1..300)),
            4..6 => Self::Handled(chance.random_range(1..1_000)),
            6 | 7 => Self::Quiet(chance.random_range(10..100)),
            _ => Self::Starting(match chance.random_range(0..3) {
                0 => Stage::Holds,
                1 => Stage::Listens,
                _ => Stage::Works,
            }),
        }
    }
}

impl Stage {
    /// Returns whether the host has reached this stage.
    fn is_reached(self, host: &Host) -> bool {
        let pid = host.pid().as_raw_nonzero().to_string();
        let names = |file: &str| fs::read_to_string(host.folder().join(file)).is_ok_and(|text| text.contains(&pid));
        match self {
            Self::Holds => names(".caxton/lock"),
            Self::Listens => names(".caxton/host.json"),
            Self::Works => host.folder().join("ports.json").exists(),
        }
    }
}

#[test]
fn a_message_happens_once_or_not_at_all_whenever_the_host_is_killed() {
    let kills = setting("CAXTON_CRASH_KILLS", 8);
    for seed in seeds() {
        run(seed, kills);
    }
}

fn run(seed: u64, kills: u64) {
    let began = Instant::now();
    let mut chance = chance(seed, 1 << 8, 0);
    let load = Load::new(seed);
    // Every other host forgets what it has handled as soon as it may, and is then asked for less.
    let keeps = seed % 2 == 1;
    let history = if keeps { "history = 1_000_000" } else { "history = 0" };
    let file = bank::file(history);
    let first = Setup::new(BINARY, &file).start();
    bank::open(&first.client());
    let mut setup = first.kill();
    for number in 1..=kills {
        let moment = Moment::pick(&mut chance);
        // Now and then every bank gets another revision meanwhile.
        let edited = chance.random_bool(0.3).then(|| bank::edition(&file, number));
        setup = run_until_killed(setup.spawn(), edited, &load, number, moment, &mut chance);
        let books = Books::of(setup.folder());
        let sent = load.sent();
        println!(
            "seed {seed}, kill {number} of {kills} ({moment:?}): {} of {} transfers acknowledged, {} repeated; {} effects, {} messages wait, {} dead; {}",
            load.accepted(),
            sent.len(),
            load.repeated(),
            books.effects(),
            books.waiting(),
            books.dead(),
            seconds(began),
        );
        let missing = if keeps { books.missing(&sent) } else { Vec::new() };
        check(&format!("seed {seed}, kill {number} ({moment:?})"), &[books.wrong(), missing].concat());
    }
    check_at_rest(setup.start(), &load, &format!("seed {seed}, after {kills} kills"));
}

/// The life of a host until it is killed.
fn run_until_killed(
    mut host: Host,
    edited: Option<String>,
    load: &Arc<Load>,
    round: u64,
    moment: Moment,
    chance: &mut StdRng,
) -> Setup {
    if let Moment::Starting(stage) = moment {
        until("the start", &mut host, |host| stage.is_reached(host));
        wait_randomly(chance);
        return host.kill();
    }
    host.until_ready();
    let before = load.accepted();
    let clients = load.start(&host, round);
    if let Some(edited) = edited {
        host.edit(&edited);
    }
    let api = host.api();
    let sum = |field: &str| -> u64 {
        // The API bears so many requests a second.
        caxton_tests::pause();
        let agents = api.get("/v1/agents").json();
        agents.as_array().expect("agents").iter().map(|agent| agent[field].as_u64().expect("a number")).sum()
    };
    match moment {
        Moment::Starting(_) => {}
        Moment::Taken(count) => until("requests", &mut host, |_| load.accepted() >= before + count),
        Moment::Handled(count) => until("messages", &mut host, |_| sum("handled") >= count),
        Moment::Quiet(count) => {
            until("requests", &mut host, |_| load.accepted() >= before + count);
            clients.stop();
            until("quiet", &mut host, |_| sum("in_flight") == 0);
        }
    }
    wait_randomly(chance);
    let setup = host.kill();
    clients.join();
    setup
}

/// Waits for some random microseconds, so that the kill also hits the steps next to the moment.
fn wait_randomly(chance: &mut StdRng) {
    for _ in 0..chance.random_range(0..3_000) {
        std::thread::yield_now();
    }
}

/// Waits until everything is at rest and checks all of it, as reported by the banks and as stored.
pub(crate) fn check_at_rest(mut host: Host, load: &Load, context: &str) {
    let client = host.client();
    load.repeat_all(&client);
    until_rest(&mut host);
    let sent = load.sent();
    let (sum, seen) = (bank::sum(&client), bank::audit(&client));
    let (code, setup) = host.stop();
    assert_eq!(code, 0, "{context}");
    let books = Books::of(setup.folder());
    check(context, &[books.wrong(), books.unsettled(&sent)].concat());
    assert_eq!((books.in_accounts(), books.seen()), (sum, seen), "{context}: the banks tell what the store has");
    println!(
        "{context}: {} transfers, {} acknowledged, {} repeated: {} effects, {} dead letters, all money is there",
        sent.len(),
        load.accepted(),
        load.repeated(),
        books.effects(),
        books.dead()
    );
}
