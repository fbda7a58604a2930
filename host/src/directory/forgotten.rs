//! Reports to operators what has left the store before anybody looked at it: dead letters beyond their bounds, and
//! handled messages beyond the bound in bytes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use caxton_control::units::print_bytes;
use serde_json::json;

use crate::context::HostContext;
use crate::store::Left;

/// The least time between two reports of dead letters. They are work that is lost, so that the first is told at once.
const DEAD_EVERY: Duration = Duration::from_secs(60);
/// The same of handled messages, which leave all the time once the bound is reached.
const HISTORY_EVERY: Duration = Duration::from_secs(3_600);
/// The agents that a report names; it has the sum of all.
const NAMED: usize = 20;

/// The times of the last reports.
#[derive(Debug, Default)]
pub(super) struct ForgottenReports {
    dead: Option<Instant>,
    history: Option<Instant>,
}

impl ForgottenReports {
    /// Reports what has left since the last reports, if it is time for another.
    pub(super) fn report(&mut self, context: &HostContext) {
        if is_due(self.dead, DEAD_EVERY) && report_dead(context) {
            self.dead = Some(Instant::now());
        }
        if is_due(self.history, HISTORY_EVERY) && report_history(context) {
            self.history = Some(Instant::now());
        }
    }

    /// Reports what has left and was not reported, as the host ends.
    pub(super) fn report_last(context: &HostContext) {
        report_dead(context);
    }
}

fn is_due(last: Option<Instant>, every: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= every)
}

/// Reports dead letters that have left. Returns `false` if there are none.
fn report_dead(context: &HostContext) -> bool {
    let by_agent = context.store.retention.take_dead();
    let Left { count, bytes } = by_agent.values().fold(Left::default(), |sum, left| sum.and(*left));
    if count == 0 {
        return false;
    }
    tracing::warn!(
        "{count} dead letters ({}) left for newer ones and are lost: there were more than `store.dead-letters` or their \
         bytes more than `store.dead-letters-max`; redeliver or drop dead letters, or raise the bound",
        print_bytes(bytes)
    );
    let mut largest: Vec<(String, Left)> = by_agent.into_iter().collect();
    largest.sort_by_key(|(_, left)| std::cmp::Reverse(left.count));
    let named: BTreeMap<String, u64> =
        largest.into_iter().take(NAMED).map(|(agent, left)| (agent, left.count)).collect();
    let settings = ["store.dead-letters", "store.dead-letters-max"];
    let data = json!({ "count": count, "bytes": bytes, "by_agent": named, "settings": settings });
    context.events.emit(None, "dead-letters.forgotten", data);
    true
}

/// Reports handled messages that have left for the bound in bytes. Returns `false` if there are none.
fn report_history(context: &HostContext) -> bool {
    let Left { count, bytes } = context.store.retention.take_history();
    if count == 0 {
        return false;
    }
    tracing::info!(
        "the handled messages that are kept are fewer than `store.history`: {count} ({}) left for `store.history-max`",
        print_bytes(bytes)
    );
    let data = json!({ "count": count, "bytes": bytes, "setting": "store.history-max" });
    context.events.emit(None, "history.shortened", data);
    true
}
