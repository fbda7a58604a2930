//! A soak test: many messages, with memory and store as large at the end as near the beginning.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use caxton_tests::{Client, Host, Setup};

use crate::audit::{self, Books};
use crate::bank::{self, PUT_IN, Transfer};
use crate::{BINARY, seconds, setting, until, until_rest};

/// The number of further laps that the money of a transfer makes round the four banks.
const LAPS: u64 = 249;
/// Messages of a transfer: itself, and a deposit for each stop.
const MESSAGES: u64 = 1 + bank::BANKS.len() as u64 * (LAPS + 1);
/// Messages of transfers that are under way at once, at most.
const UNDER_WAY: u64 = 64 * MESSAGES;
/// Transfers share these names, so that the effects that are counted do not grow in number.
const NAMES: u64 = 64;
/// The number of samples of memory and store in a run.
const SAMPLES: u64 = 200;
/// The factor by which the last quarter may exceed the second. In the first, everything grows to its size.
const GROWTH: f64 = 1.3;
/// The allowance beside that, in bytes: the log of the store up to its checkpoint, and pools of the allocator.
const SLACK: u64 = 48 << 20;

/// The sizes after a number of messages.
#[derive(Debug, Clone, Copy)]
struct Sample {
    handled: u64,
    resident: u64,
    database: u64,
    log: u64,
}

/// A function that returns one of the sizes of a sample.
type Size = fn(&Sample) -> u64;

impl Sample {
    fn take(host: &Host, handled: u64) -> Self {
        let status = format!("/proc/{}/status", host.pid().as_raw_nonzero());
        let status = fs::read_to_string(status).expect("the process is there");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB"));
        let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let database = audit::database(host.folder());
        Self {
            handled,
            resident: resident.expect("a size").trim().parse::<u64>().expect("a size") << 10,
            database: size(&database),
            log: size(&audit::log(&database)),
        }
    }
}

/// Messages handled since the host started.
fn handled(api: &Client) -> u64 {
    let agents = api.get("/v1/agents").json();
    agents.as_array().expect("agents").iter().map(|agent| agent["handled"].as_u64().expect("a number")).sum()
}

#[test]
fn soak_in_flat_memory_and_a_flat_store() {
    let began = Instant::now();
    let transfers = setting("CAXTON_SOAK", 100_000).div_ceil(MESSAGES);
    let messages = transfers * MESSAGES;
    let mut host = Setup::new(BINARY, &bank::file("history = 10_000\n[conversations]\ntimeout = \"5m\"")).start();
    let (client, api) = (host.client(), host.api());
    bank::open(&client);
    let before = handled(&api);
    let (mut sent, mut done, mut samples) = (0, 0, Vec::new());
    while done < messages {
        while sent < transfers && (sent + 1) * MESSAGES <= done + UNDER_WAY {
            let transfer = Transfer::round(&format!("round-{}", sent % NAMES), sent);
            let reply = client.post(&transfer.path(), transfer.body(LAPS));
            assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
            sent += 1;
        }
        let last = done;
        until("another message", &mut host, |_| {
            caxton_tests::pause();
            done = handled(&api) - before;
            done > last
        });
        if done * SAMPLES / messages > samples.len() as u64 {
            samples.push(Sample::take(&host, done));
        }
    }
    let rate = messages as f64 / began.elapsed().as_secs_f64();
    until_rest(&mut host);
    assert_eq!(bank::sum(&client), PUT_IN);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    check_effects(&Books::of(setup.folder()), transfers);
    println!("{messages} messages in {}, {rate:.0} each second", seconds(began));
    check_flat(&samples, messages);
}

/// Checks that every message had its effect as often as it was sent.
fn check_effects(books: &Books, transfers: u64) {
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    for number in 0..transfers {
        let name = format!("round-{}", number % NAMES);
        *expected.entry(format!("{name}/transfer")).or_default() += 1;
        for at in 0..bank::BANKS.len() {
            *expected.entry(format!("{name}/deposit-{at}")).or_default() += LAPS as i64 + 1;
        }
    }
    let seen: BTreeMap<String, i64> = books.seen().into_iter().collect();
    let wrong = expected.iter().filter(|(key, count)| seen.get(*key) != Some(*count)).map(|(key, _)| key);
    let wrong: Vec<_> = wrong.chain(seen.keys().filter(|key| !expected.contains_key(*key))).take(5).collect();
    assert!(
        wrong.is_empty(),
        "{wrong:?} and perhaps others were seen {:?} times",
        wrong.iter().map(|key| seen.get(*key)).collect::<Vec<_>>()
    );
    assert_eq!((books.in_accounts(), books.waiting(), books.dead()), (PUT_IN, 0, 0));
}

/// Checks that no size keeps growing.
fn check_flat(samples: &[Sample], messages: u64) {
    let quarter = |number: u64, size: Size| {
        let within = |sample: &&Sample| sample.handled * 4 / messages == number;
        samples.iter().filter(within).map(size).max().expect("every quarter has samples")
    };
    let sizes: [(&str, Size); 3] =
        [("memory", |sample| sample.resident), ("database", |sample| sample.database), ("log", |sample| sample.log)];
    for (what, size) in sizes {
        let most: Vec<u64> = (0..4).map(|number| quarter(number, size)).collect();
        println!(
            "{what} in each quarter, at most: {:?} MB",
            most.iter().map(|bytes| bytes / 1_000_000).collect::<Vec<_>>()
        );
        let limit = (most[1] as f64 * GROWTH) as u64 + SLACK;
        assert!(most[3] <= limit, "the {what} grows: {most:?}");
    }
}
