//! Messages by the clock: the schedules of agents, with what a stopped host missed (SPEC §7).
//!
//! That a schedule fired is kept in the commit that holds its message, so that it never fires twice.

use caxton_control::Performative;
use caxton_control::mailbox::Priority;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use caxton_control::schedule::Schedule;
use tokio_util::sync::CancellationToken;

use super::HostDirectory;
use crate::agent::Agent;
use crate::api_types::ScheduleStatus;
use crate::budgets::{TreeLink, TreeRoot};
use crate::clock;
use crate::message::{Deliver, Envelope, Message, Outgoing, new_id};
use crate::store::{Commit, CommitRequest, Committed, Fired};

/// The longest pause between two looks at the declaration and the clock, both of which may change.
const LOOK: Duration = Duration::from_secs(1);
/// The most messages that one schedule makes up for after a stop.
const MOST_MISSED: usize = 1_000;
/// The milliseconds between those, so that they keep their order.
const APART: u64 = 10;
/// A clock that is set back by more than this, in milliseconds, was wrong before: what it showed then counts no more.
/// One that is set back by less shows some times twice, of which the second do not count.
const SET_BACK: u64 = 60 * 60 * 1_000;

/// The next times of schedules.
#[derive(Default)]
struct NextTimes {
    /// The times by agent and key of the schedule.
    times: HashMap<(String, String), Option<u64>>,
    /// The latest time that the clock has shown since it was right, in milliseconds since 1970.
    latest: u64,
}

/// Fires schedules until `stop`.
pub(crate) async fn run(directory: Arc<HostDirectory>, stop: CancellationToken) {
    let mut next = NextTimes::default();
    loop {
        let soonest = fire_due(&directory, &mut next, clock::now_ms());
        let pause = soonest.map_or(LOOK, |at| Duration::from_millis(at.saturating_sub(clock::now_ms())).min(LOOK));
        tokio::select! {
            () = stop.cancelled() => return,
            () = directory.clock_set.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The part of a list of schedules that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListRange<'a> {
    /// Selects agents after this name.
    pub(crate) after: Option<&'a str>,
    /// The number of schedules after which no further agent is listed.
    pub(crate) more_than: usize,
}

/// Returns the schedules of an agent, or of all in order of name.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn list(
    directory: &HostDirectory,
    agent: Option<&Agent>,
    range: ListRange<'_>,
    now: u64,
) -> Result<Vec<ScheduleStatus>, String> {
    let routes = directory.routes.load();
    let mut agents: Vec<&Agent> = match agent {
        Some(agent) => vec![agent],
        None => routes.agents().map(|agent| &**agent).collect(),
    };
    agents.retain(|agent| range.after.is_none_or(|after| agent.name().as_str() > after));
    // The routes are a hash map, and a list should not change its order between calls.
    agents.sort_unstable_by_key(|agent| agent.name());
    let mut found = Vec::new();
    for agent in agents {
        // Between agents only, so that the list has all schedules of each.
        if found.len() > range.more_than {
            break;
        }
        for schedule in &agent.spec().schedules {
            // Before it fires for the first time the store has since when its times count.
            let fired = |at: &u64| schedule.next_after(at.saturating_sub(1)) == Some(*at);
            let last = directory.context.store.queue().fired_at(agent.name().as_str(), &schedule.key())?;
            found.push(ScheduleStatus {
                agent: agent.name().to_string(),
                cron: schedule.cron.as_str().to_owned(),
                timezone: schedule.timezone.to_string(),
                missed: schedule.missed.as_str().to_owned(),
                last_at: last.filter(fired),
                next_at: schedule.next_after(valid_from(last, now)),
            });
        }
    }
    Ok(found)
}

/// Returns the time after which the times of a schedule count.
fn valid_from(last: Option<u64>, now: u64) -> u64 {
    // A time far ahead was noted while the clock was wrong: waiting for it would silence the schedule.
    last.filter(|last| last.saturating_sub(now) <= SET_BACK).unwrap_or(now).max(now)
}

/// Fires what is due. Returns the time of the next.
fn fire_due(directory: &HostDirectory, next: &mut NextTimes, now: u64) -> Option<u64> {
    // Compared with the latest time and not the last: a clock may be set back in several small steps.
    let anew = now.saturating_add(SET_BACK) < next.latest;
    if anew {
        let back = Duration::from_millis(next.latest - now);
        tracing::warn!(?back, "the clock was set back; schedules go by what it shows now");
        directory.context.events.emit(
            None,
            "schedule.clock-set-back",
            serde_json::json!({ "seconds": back.as_secs() }),
        );
        // Otherwise schedules would be silent until the clock is where it was.
        *next = NextTimes::default();
    }
    next.latest = next.latest.max(now);
    let mut seen = HashMap::new();
    for agent in directory.routes.load().agents() {
        for schedule in &agent.spec().schedules {
            let key = (agent.name().to_string(), schedule.key());
            let at = match next.times.remove(&key) {
                Some(Some(at)) if at <= now => {
                    fire(directory, agent, schedule, &key.1, at, None);
                    schedule.next_after(now)
                }
                // Also when the clock was set back a little: the times before have been.
                Some(at) => at,
                None => begin(directory, agent, schedule, &key.1, now, !anew),
            };
            seen.insert(key, at);
        }
    }
    // Schedules that are no longer declared fall out here.
    next.times = seen;
    next.times.values().flatten().min().copied()
}

/// Starts a schedule, and makes up for missed times if declared. Returns its next time.
fn begin(
    directory: &HostDirectory,
    agent: &Arc<Agent>,
    schedule: &Schedule,
    key: &str,
    now: u64,
    make_up: bool,
) -> Option<u64> {
    let last = match directory.context.store.queue().fired_at(agent.name().as_str(), key) {
        Ok(last) => last,
        Err(error) => {
            tracing::error!(agent = %agent.name(), error, "when a schedule fired last cannot be read; what it missed is not made up for");
            return schedule.next_after(now);
        }
    };
    match last {
        Some(last) if make_up => {
            for (at, index) in schedule.missed(last, now, MOST_MISSED).into_iter().zip(0..) {
                fire(directory, agent, schedule, key, at, Some(clock::steady_ms() + index * APART));
            }
        }
        // Not after the clock was set back: what it showed before does not say what was missed.
        Some(_) => {}
        // From now on is counted.
        None => {
            let mut commit = Commit::new(agent.name().shared());
            commit.fired = Some(Fired { schedule: key.to_owned(), at: now });
            directory.context.store.submit(CommitRequest::new(commit, Vec::new(), Box::new(|_| ())));
        }
    }
    schedule.next_after(valid_from(last, now))
}

/// Sends the message of a schedule that was due at a time.
fn fire(directory: &HostDirectory, agent: &Arc<Agent>, schedule: &Schedule, key: &str, at: u64, due: Option<u64>) {
    let name = agent.name().clone();
    // The bound of the mailbox holds for the clock as for any sender.
    if let Err(error) = agent.reserve_place(None) {
        tracing::warn!(agent = %name, cron = %schedule.cron, %error, "a schedule did not fire");
        directory.context.events.emit(
            Some(name.as_str()),
            "schedule.refused",
            serde_json::json!({ "cron": schedule.cron.as_str(), "at": at, "reason": error.to_string() }),
        );
        return;
    }
    let id = new_id();
    let message = Message {
        performative: Performative::Request,
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
        priority: Priority::Normal,
        sent_at: clock::now_ms(),
        attempt: 1,
        headers: vec![
            ("schedule-cron".to_owned(), schedule.cron.as_str().to_owned()),
            ("schedule-at".to_owned(), at.to_string()),
        ],
        id,
    };
    // The message and the record of the firing are one commit: neither exists without the other.
    let tree = agent.begin_tree(schedule.budget.as_ref(), &message.id, || TreeRoot::outside(&message.id));
    let envelope = Box::new(Envelope { due, tree: tree.map(TreeLink::Live), ..Envelope::new(message) });
    let done = Box::new(move |committed: Committed| match committed.result {
        Ok(()) => committed.sends.into_iter().for_each(Outgoing::deliver),
        Err(error) => tracing::error!(agent = %name, %error, "a schedule did not fire"),
    });
    let mut commit = Commit::new(agent.name().shared());
    let sent = Outgoing::new(Arc::clone(agent) as Arc<dyn Deliver>, envelope);
    commit.fired = Some(Fired { schedule: key.to_owned(), at });
    directory.context.store.submit(CommitRequest::new(commit, vec![sent], done));
}

#[cfg(test)]
mod tests {
    use std::collections::hash_map::RandomState;

    use caxton_control::desired::Durability;

    use super::*;
    use crate::context::HostContext;
    use crate::conversation::Conversations;
    use crate::directory::routes::Routes;
    use crate::store::{EventFilter, Store};

    /// 2026-01-01T00:00:00Z.
    const BEGAN: u64 = 1_767_225_600_000;
    const MINUTE: u64 = 60_000;

    /// A store in this folder, and an agent `clock` with a schedule for every minute.
    fn open(folder: &tempfile::TempDir, missed: &str, depth: u32) -> Arc<HostDirectory> {
        let text = format!(
            "caxton = 1\n[agents.clock]\ncomponent = \"clock.wasm\"\nmailbox = {{ depth = {depth} }}\n\
             [[agents.clock.schedule]]\ncron = \"* * * * *\"\nmissed = \"{missed}\"\n"
        );
        let path = folder.path().join("caxton.toml");
        std::fs::write(&path, text).unwrap();
        let desired = crate::config::load(&path, std::iter::empty(), &[]).unwrap().desired;
        let store =
            Store::open(folder.path(), &crate::store::tests::settings(Durability::Os), Conversations::load).unwrap();
        let context = HostContext::new(store, tokio::runtime::Handle::current());
        let directory = HostDirectory::new(context).unwrap();
        let agent = Agent::new(Arc::clone(&desired.agents["clock"]), Arc::clone(&directory) as _);
        directory.routes.store(Arc::new(Routes::new(&[(agent.name().clone(), agent)].into())));
        directory
    }

    /// The messages that wait, once all is written.
    async fn waiting(directory: &HostDirectory) -> usize {
        directory.context.store.flush().await.unwrap();
        directory.context.store.queue().queued(&RandomState::new()).unwrap().get("clock").map_or(0, Vec::len)
    }

    /// Lets go of the folder, which the agents hold as well.
    async fn close(directory: Arc<HostDirectory>) {
        directory.routes.store(Arc::default());
        // What is answered second comes after all that the first commits told.
        directory.context.store.flush().await.unwrap();
        directory.context.store.flush().await.unwrap();
        assert_eq!(Arc::strong_count(&directory), 1);
    }

    fn status(directory: &HostDirectory, now: u64) -> (Option<u64>, Option<u64>) {
        let found = list(directory, None, ListRange { after: None, more_than: usize::MAX }, now).unwrap();
        (found[0].last_at, found[0].next_at)
    }

    #[tokio::test]
    async fn each_time_fires_once_from_when_it_is_declared() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(&folder, "all", 100);
        let mut next = NextTimes::default();
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
            let soonest = fire_due(&directory, &mut next, at);
            assert_eq!(soonest, Some(at - at % MINUTE + MINUTE), "{at}");
            assert_eq!(waiting(&directory).await, count, "{at}");
        }
        let (last, after) = status(&directory, BEGAN + 7 * MINUTE);
        assert_eq!((last, after), (Some(BEGAN + 3 * MINUTE), Some(BEGAN + 8 * MINUTE)));
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_makes_nothing_fire_twice_unless_it_was_quite_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(&folder, "all", 100);
        let mut next = NextTimes::default();
        let hours = |hours: u64| hours * 60 * MINUTE;
        let noon = BEGAN + hours(12);
        for (at, soonest, count) in [
            (noon + 30_000, noon + MINUTE, 0),
            (noon + MINUTE, noon + 2 * MINUTE, 1),
            // Set back a little: the minutes that have been do not come again.
            (noon - MINUTE, noon + 2 * MINUTE, 1),
            (noon - 30 * MINUTE, noon + 2 * MINUTE, 1),
            (noon + MINUTE, noon + 2 * MINUTE, 1),
            (noon + 2 * MINUTE, noon + 3 * MINUTE, 2),
            // Set back by so much that it must have been wrong, in two steps.
            (noon - 30 * MINUTE, noon + 3 * MINUTE, 2),
            (noon - hours(1), noon - 59 * MINUTE, 2),
            (noon - 59 * MINUTE, noon - 58 * MINUTE, 3),
        ] {
            assert_eq!(fire_due(&directory, &mut next, at), Some(soonest), "{}", at.cast_signed() - noon.cast_signed());
            assert_eq!(waiting(&directory).await, count, "{}", at.cast_signed() - noon.cast_signed());
        }
        let told: Vec<_> =
            directory.context.store.events().list(&EventFilter { limit: 10, ..EventFilter::default() }).unwrap();
        let told: Vec<_> = told.iter().map(|event| (event.kind.as_str(), event.data["seconds"].as_u64())).collect();
        assert_eq!(told, [("schedule.clock-set-back", Some(62 * 60))]);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_while_the_host_is_stopped_makes_nothing_fire_twice() {
        let folder = tempfile::tempdir().unwrap();
        let noon = BEGAN + 12 * 60 * MINUTE;
        let directory = open(&folder, "all", 100);
        let mut next = NextTimes::default();
        fire_due(&directory, &mut next, noon - 1_000);
        fire_due(&directory, &mut next, noon);
        assert_eq!(waiting(&directory).await, 1);
        close(directory).await;
        for (now, soonest) in [
            (noon - 2_000, noon + MINUTE),
            (noon - 60 * MINUTE, noon + MINUTE),
            (noon - 61 * MINUTE, noon - 60 * MINUTE),
        ] {
            let directory = open(&folder, "all", 100);
            assert_eq!(fire_due(&directory, &mut NextTimes::default(), now), Some(soonest), "{}", noon - now);
            assert_eq!(status(&directory, now).1, Some(soonest), "as it is listed");
            assert_eq!(waiting(&directory).await, 1, "{}", noon - now);
            close(directory).await;
        }
    }

    #[tokio::test]
    async fn what_a_stop_missed_is_made_up_for_as_declared_and_once() {
        for (missed, count) in [("skip", 0), ("latest", 1), ("all", 3)] {
            let folder = tempfile::tempdir().unwrap();
            let directory = open(&folder, missed, 100);
            fire_due(&directory, &mut NextTimes::default(), BEGAN + 1_000);
            assert_eq!(waiting(&directory).await, 0, "{missed}");
            assert_eq!(status(&directory, BEGAN), (None, Some(BEGAN + MINUTE)), "{missed}: it never fired");
            close(directory).await;
            let now = BEGAN + 3 * MINUTE + 2_000;
            for round in ["first", "second"] {
                let directory = open(&folder, missed, 100);
                fire_due(&directory, &mut NextTimes::default(), now);
                assert_eq!(waiting(&directory).await, count, "{missed}, {round} start");
                close(directory).await;
            }
        }
    }

    #[tokio::test]
    async fn a_full_mailbox_gets_no_more_and_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let directory = open(&folder, "skip", 1);
        let mut next = NextTimes::default();
        for minute in 0..=3 {
            fire_due(&directory, &mut next, BEGAN + minute * MINUTE);
        }
        assert_eq!(waiting(&directory).await, 1);
        assert_eq!(status(&directory, BEGAN).0, Some(BEGAN + MINUTE), "the only one that fired");
        let refused: Vec<_> =
            directory.context.store.events().list(&EventFilter { limit: 10, ..EventFilter::default() }).unwrap();
        let times: Vec<_> = refused.iter().map(|event| (event.kind.as_str(), event.data["at"].as_u64())).collect();
        let expected = [2, 3].map(|minute| ("schedule.refused", Some(BEGAN + minute * MINUTE)));
        assert_eq!(times, expected);
    }
}
