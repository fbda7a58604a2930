//! A message happens or it does not: never in part, never twice, and never not at all once it was accepted.
//!
//! Four banks (`components/tests/bank`) move money between them while the host is killed. Their books are read from
//! the data folder itself: all that was put in is in accounts, on its way, or in dead letters, at every commit.
//!
//! The short form is part of `cargo test`. The long form:
//!
//! ```sh
//! CAXTON_CRASH_KILLS=100 CAXTON_CRASH_SEEDS=5 cargo test -p caxton-tests --test crash -- --nocapture
//! ```
//! | variable | means | usually |
//! |---|---|---|
//! | `CAXTON_CRASH_KILLS` | how often a host is killed, for each seed | 8 |
//! | `CAXTON_CRASH_IMAGES` | copies of the data folder that are opened whole and damaged, for each seed | 2 |
//! | `CAXTON_CRASH_SEEDS`, `CAXTON_CRASH_SEED` | how many seeds, and the first; a failure names its own | 2, 1 |
//! | `CAXTON_CRASH_DISK` | a folder on a file system of about 64 MB that may be filled | a bound on files is filled |
//! | `CAXTON_SOAK` | messages of the [soak] (with `--release`, and `soak` to run nothing else) | 100,000 |
//!
//! `payments` has a server that is paid, in a host that is killed: with `CAXTON_CRASH_KILLS=100 cargo test -p caxton-tests --test
//! crash -- payments --nocapture` a hundred times
//! with idempotency keys, and as often without (usually 15 times).
//!
//! A clock that jumps is a matter of the mailbox alone, whose tests set it (`host/control/src/mailbox/tests.rs`).

mod audit;
mod bank;
mod disk;
mod kill;
mod load;
mod payments;
mod power_cut;
mod removal;
mod soak;
mod stop;

use std::time::{Duration, Instant};

use caxton_tests::{Host, PATIENCE};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// The host as users have it.
const BINARY: &str = env!("CARGO_BIN_EXE_caxton-under-test");

/// A number that the environment may give.
fn setting(name: &str, usual: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(usual, |text| text.replace('_', "").parse().unwrap_or_else(|_| panic!("{name} is a whole number")))
}

/// The seeds of this run.
fn seeds() -> impl Iterator<Item = u64> {
    let first = setting("CAXTON_CRASH_SEED", 1);
    (0..setting("CAXTON_CRASH_SEEDS", 2)).map(move |number| first + number)
}

/// Returns a random number generator that is the same for the same numbers.
fn chance(seed: u64, part: u64, number: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(1_000_003) ^ (part << 48) ^ number)
}

/// Waits until no agent has messages that wait, for their turn or their time, or are in hand. Returns the numbers of
/// messages handled and given up since the host started.
fn until_rest(host: &mut Host) -> (u64, u64) {
    let api = host.api();
    let mut before = None;
    let mut began = Instant::now();
    let mut moved = 0;
    loop {
        let agents = api.get("/v1/agents").json();
        let sum = |field: &str| -> u64 {
            let agents = agents.as_array().expect("a list of agents");
            agents.iter().map(|agent| agent[field].as_u64().expect("a number")).sum()
        };
        let now = (sum("accepted"), sum("handled"), sum("failed"));
        let idle = sum("mailbox_depth") + sum("in_flight") + sum("timers") == 0;
        // Twice the same: what left one agent has not come to another meanwhile.
        if idle && before == Some(now) {
            return (now.1, now.2);
        }
        if moved != now.1 + now.2 {
            (moved, began) = (now.1 + now.2, Instant::now());
        }
        assert!(began.elapsed() < PATIENCE, "the banks come to no rest: {agents}\n{}", host.output());
        before = idle.then_some(now);
        caxton_tests::pause();
    }
}

/// Waits for a condition without giving the time away for longer than a moment.
fn until(what: &str, host: &mut Host, mut condition: impl FnMut(&mut Host) -> bool) {
    let began = Instant::now();
    while !condition(host) {
        assert!(!host.has_ended(), "the host ended instead of {what}; it said:\n{}", host.output());
        assert!(began.elapsed() < PATIENCE, "waited in vain for {what}; the host said:\n{}", host.output());
        std::thread::yield_now();
    }
}

/// Panics with all violations, if there are some.
fn check(context: &str, wrong: &[String]) {
    const SHOWN: usize = 40;
    let shown = wrong.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n  ");
    assert!(wrong.is_empty(), "{context}: {} things are wrong:\n  {shown}", wrong.len());
}

/// Formats the time since `since`, for a line of progress.
fn seconds(since: Instant) -> String {
    let took: Duration = since.elapsed();
    format!("{:.1} s", took.as_secs_f64())
}
