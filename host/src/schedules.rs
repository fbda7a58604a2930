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
        let soonest = look(&commons, &mut next);
        let pause = soonest.map_or(LOOK, |at| Duration::from_millis(at.saturating_sub(clock::now_ms())).min(LOOK));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Lets fire what is due; gives when the next is.
fn look(commons: &Commons, next: &mut Next) -> Option<u64> {
    let now = clock::now_ms();
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
