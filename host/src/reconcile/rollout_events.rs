//! The events of rollouts: `rollout.step` and `rollout.status`.

use caxton_control::rollout::{Rollout, Status};

use crate::context::HostContext;

/// The progress of a rollout that events were emitted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReportedProgress {
    rollout: u64,
    status: Status,
    step: usize,
    weight: u8,
}

impl ReportedProgress {
    pub(super) fn of(rollout: &Rollout) -> Self {
        Self { rollout: rollout.id, status: rollout.status, step: rollout.step, weight: rollout.weight }
    }
}

/// Emits events for the step and the status of a rollout if they differ from those reported before.
pub(super) fn emit_progress(context: &HostContext, rollout: &Rollout, before: Option<&ReportedProgress>) {
    let (agent, status, why) = (&rollout.agent, rollout.status.as_str(), &rollout.why);
    let strategy = rollout.settings.strategy.as_str();
    // The progress of an earlier rollout is none of this one.
    let before = before.filter(|before| before.rollout == rollout.id);
    if let (Some(before), Some(step)) = (before, rollout.steps.get(rollout.step))
        && (before.step, before.weight) != (rollout.step, rollout.weight)
    {
        let data = serde_json::json!({
            "rollout": rollout.id, "from": rollout.from.number, "to": rollout.to.number,
            "step": rollout.step + 1, "steps": rollout.steps.len(), "what": step.to_string(), "weight": rollout.weight,
        });
        context.events.emit(Some(agent.as_str()), "rollout.step", data);
    }
    if before.is_some_and(|before| before.status == rollout.status) {
        return;
    }
    let data = serde_json::json!({
        "rollout": rollout.id, "from": rollout.from.number, "to": rollout.to.number, "strategy": strategy,
        "status": status, "before": before.map(|before| before.status.as_str()), "why": why,
    });
    context.events.emit(Some(agent.as_str()), "rollout.status", data);
    let candidate = rollout.candidate();
    match rollout.status {
        Status::RolledBack | Status::Failed => {
            tracing::warn!(%agent, "the rollout of {candidate} ({strategy}) is {status}: {why}");
        }
        _ => tracing::debug!(%agent, "the rollout of {candidate} ({strategy}) is {status}: {why}"),
    }
}
