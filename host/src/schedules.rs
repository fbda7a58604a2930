//! Messages by the clock: what agents' schedules ask for, also of the time when the host was not there (SPEC §7).
//!
//! That a schedule fired is kept in the commit that holds its message, so that it never fires twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caxton_control::schedule::Schedule;
use tokio_util::sync::CancellationToken;

use crate::agent::Agent;
use crate::clock;
use crate::commons::Commons;
use crate::status::ScheduleStatus;
use crate::store::{Commit, Committed, Fired};
use crate::wasm::{Envelope, Inbox, Sent, new_id, wit};

/// How often the declaration and the clock, which may be set, are looked at beside the times of schedules.
const LOOK: Duration = Duration::from_secs(1);
/// The most messages for the time when the host was not there, of one schedule.
const MOST_MISSED: usize = 1_000;
/// How far apart those come, in milliseconds.
const APART: u64 = 10;

/// When schedules fire next, by agent and the schedule's key.
type Next = HashMap<(String, String), Option<u64>>;

/// Lets schedules fire until `stop`.
pub(crate) async fn run(commons: Arc<Commons>, stop: CancellationToken) {
    let mut next = Next::new();
    loop {
        let soonest = look(&commons, &mut next, clock::now_ms());
        let pause = soonest.map_or(LOOK, |at| Duration::from_millis(at.saturating_sub(clock::now_ms())).min(LOOK));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The schedules of an agent, or of all in order of name, as they stand.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn list(commons: &Commons, agent: Option<&Agent>, now: u64) -> Result<Vec<ScheduleStatus>, String> {
    let routes = commons.routes.load();
    let mut agents: Vec<&Agent> = match agent {
        Some(agent) => vec![agent],
        None => routes.agents().map(|agent| &**agent).collect(),
    };
    agents.sort_unstable_by_key(|agent| agent.name());
    let mut found = Vec::new();
    for agent in agents {
        for schedule in &agent.spec().schedules {
            // Before it fires for the first time the store has since when its times count.
            let fired = |at: &u64| schedule.next_after(at.saturating_sub(1)) == Some(*at);
            found.push(ScheduleStatus {
                agent: agent.name().to_string(),
                cron: schedule.cron.as_str().to_owned(),
                timezone: schedule.timezone.to_string(),
                missed: schedule.missed.as_str().to_owned(),
                last_at: commons.store.fired_at(agent.name().as_str(), &schedule.key())?.filter(fired),
                next_at: schedule.next_after(now),
            });
        }
    }
    Ok(found)
}

/// Lets fire what is due; gives when the next is.
fn look(commons: &Commons, next: &mut Next, now: u64) -> Option<u64> {
    let mut seen = Next::new();
    for agent in commons.routes.load().agents() {
        for schedule in &agent.spec().schedules {
            let key = (agent.name().to_string(), schedule.key());
            let at = match next.remove(&key) {
                Some(Some(at)) if at <= now => {
                    fire(commons, agent, schedule, &key.1, at, None);
                    schedule.next_after(now)
                }
                // A clock that was set back must not make it wait for the time that was.
                Some(Some(at)) => schedule.next_after(now).map(|first| first.min(at)),
                Some(None) => None,
                None => begin(commons, agent, schedule, &key.1, now),
            };
            seen.insert(key, at);
        }
    }
    *next = seen;
    next.values().flatten().min().copied()
}

/// Takes up a schedule: makes up for what was missed, and gives when it fires next.
fn begin(commons: &Commons, agent: &Arc<Agent>, schedule: &Schedule, key: &str, now: u64) -> Option<u64> {
    match commons.store.fired_at(agent.name().as_str(), key) {
        Ok(Some(last)) => {
            for (at, index) in schedule.missed(last, now, MOST_MISSED).into_iter().zip(0..) {
                fire(commons, agent, schedule, key, at, Some(now + index * APART));
            }
        }
        // From now on is counted.
        Ok(None) => {
            let mut commit = Commit::new(agent.name().shared(), Box::new(|_| ()));
            commit.fired = Some(Fired { schedule: key.to_owned(), at: now });
            commons.store.submit(commit);
        }
        Err(error) => {
            tracing::error!(agent = %agent.name(), error, "when a schedule fired last cannot be read; what it missed is not made up for");
        }
    }
    schedule.next_after(now)
}

/// Sends the message of a schedule that was due at a time.
fn fire(commons: &Commons, agent: &Arc<Agent>, schedule: &Schedule, key: &str, at: u64, due: Option<u64>) {
    let name = agent.name().clone();
    if let Err(error) = agent.reserve_place() {
        tracing::warn!(agent = %name, cron = %schedule.cron, %error, "a schedule did not fire");
        commons.events.tell(
            Some(name.as_str()),
            "schedule.refused",
            serde_json::json!({ "cron": schedule.cron.as_str(), "at": at, "reason": error.to_string() }),
        );
        return;
    }
    let id = new_id();
    let message = wit::Message {
        performative: wit::Performative::Request,
        sender: "host:schedule".to_owned(),
        receiver: name.to_string(),
        content: schedule.content.clone().into_bytes(),
        content_type: schedule.content_type.clone(),
        ontology: None,
        protocol: None,
        conversation_id: id.clone(),
        reply_with: None,
        in_reply_to: None,
        reply_by: None,
        priority: wit::Priority::Normal,
        sent_at: clock::now_ms(),
        attempt: 1,
        headers: vec![
            ("schedule-cron".to_owned(), schedule.cron.as_str().to_owned()),
            ("schedule-at".to_owned(), at.to_string()),
        ],
        id,
    };
    let envelope = Box::new(Envelope { due, ..Envelope::new(message, Instant::now()) });
    let done = Box::new(move |committed: Committed| match committed.result {
        Ok(()) => committed.sends.into_iter().for_each(Sent::deliver),
        Err(error) => tracing::error!(agent = %name, %error, "a schedule did not fire"),
    });
    let mut commit = Commit::new(agent.name().shared(), done);
    commit.sends = vec![Sent::new(Arc::clone(agent) as Arc<dyn Inbox>, envelope)];
    commit.fired = Some(Fired { schedule: key.to_owned(), at });
    commons.store.submit(commit);
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;

    use caxton_control::desired::Durability;

    use super::*;
    use crate::routes::Routes;
    use crate::store::{EventFilter, Store};

    /// 2026-01-01T00:00:00Z.
    const BEGAN: u64 = 1_767_225_600_000;
    const MINUTE: u64 = 60_000;

    /// A store in this folder, and an agent `clock` with a schedule for every minute.
    fn open(folder: &tempfile::TempDir, missed: &str, depth: u32) -> Arc<Commons> {
        let text = format!(
            "caxton = 1\n[agents.clock]\ncomponent = \"clock.wasm\"\nmailbox = {{ depth = {depth} }}\n\
             [[agents.clock.schedule]]\ncron = \"* * * * *\"\nmissed = \"{missed}\"\n"
        );
        let path = folder.path().join("caxton.toml");
        std::fs::write(&path, text).unwrap();
        let desired = crate::config::load(&path, std::iter::empty(), &[]).unwrap().desired;
        let store = Store::open(folder.path(), &crate::store::tests::settings(Durability::Os)).unwrap();
        let commons = Commons::new(store).unwrap();
        let agent = Agent::new(Arc::clone(&desired.agents["clock"]), Arc::clone(&commons));
        commons.routes.store(Arc::new(Routes::new(&[(agent.name().clone(), agent)].into())));
        commons
    }

    /// The messages that wait, once all is written.
    async fn waiting(commons: &Commons) -> usize {
        commons.store.flush().await.unwrap();
        commons.store.queued(&RandomState::new()).unwrap().get("clock").map_or(0, Vec::len)
    }

    /// Lets go of the folder, which the agents hold as well.
    async fn close(commons: Arc<Commons>) {
        commons.routes.store(Arc::default());
        // What is answered second comes after all that the first commits told.
        commons.store.flush().await.unwrap();
        commons.store.flush().await.unwrap();
        assert_eq!(Arc::strong_count(&commons), 1);
    }

    fn status(commons: &Commons, now: u64) -> (Option<u64>, Option<u64>) {
        let found = list(commons, None, now).unwrap();
        (found[0].last_at, found[0].next_at)
    }

    #[tokio::test]
    async fn each_time_fires_once_from_when_it_is_declared() {
        let folder = tempfile::tempdir().unwrap();
        let commons = open(&folder, "all", 100);
        let mut next = Next::new();
        for (at, count) in [
            (BEGAN + 30_000, 0),
            (BEGAN + MINUTE - 1, 0),
            (BEGAN + MINUTE, 1),
            (BEGAN + MINUTE + 1, 1),
            (BEGAN + 2 * MINUTE - 1, 1),
            (BEGAN + 2 * MINUTE + 500, 2),
            // Looked at too late: a host that runs makes up for nothing.
            (BEGAN + 7 * MINUTE, 3),
        ] {
            let soonest = look(&commons, &mut next, at);
            assert_eq!(soonest, Some(at - at % MINUTE + MINUTE), "{at}");
            assert_eq!(waiting(&commons).await, count, "{at}");
        }
        let (last, after) = status(&commons, BEGAN + 7 * MINUTE);
        assert_eq!((last, after), (Some(BEGAN + 3 * MINUTE), Some(BEGAN + 8 * MINUTE)));
    }

    #[tokio::test]
    async fn what_a_stop_missed_is_made_up_for_as_declared_and_once() {
        for (missed, count) in [("skip", 0), ("latest", 1), ("all", 3)] {
            let folder = tempfile::tempdir().unwrap();
            let commons = open(&folder, missed, 100);
            look(&commons, &mut Next::new(), BEGAN + 1_000);
            assert_eq!(waiting(&commons).await, 0, "{missed}");
            assert_eq!(status(&commons, BEGAN), (None, Some(BEGAN + MINUTE)), "{missed}: it never fired");
            close(commons).await;
            let now = BEGAN + 3 * MINUTE + 2_000;
            for round in ["first", "second"] {
                let commons = open(&folder, missed, 100);
                look(&commons, &mut Next::new(), now);
                assert_eq!(waiting(&commons).await, count, "{missed}, {round} start");
                close(commons).await;
            }
        }
    }

    #[tokio::test]
    async fn a_full_mailbox_gets_no_more_and_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let commons = open(&folder, "skip", 1);
        let mut next = Next::new();
        for minute in 0..=3 {
            look(&commons, &mut next, BEGAN + minute * MINUTE);
        }
        assert_eq!(waiting(&commons).await, 1);
        assert_eq!(status(&commons, BEGAN).0, Some(BEGAN + MINUTE), "the only one that fired");
        let refused: Vec<_> = commons.store.events(&EventFilter { limit: 10, ..EventFilter::default() }).unwrap();
        let times: Vec<_> = refused.iter().map(|event| (event.kind.as_str(), event.data["at"].as_u64())).collect();
        let expected = [2, 3].map(|minute| ("schedule.refused", Some(BEGAN + minute * MINUTE)));
        assert_eq!(times, expected);
    }
}
