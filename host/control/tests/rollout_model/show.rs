//! The text output of the model, for golden scripts.

use std::fmt::Write as _;

use caxton_control::AgentName;
use caxton_control::lifecycle::RevisionState;
use caxton_control::rollout::{MemoryHandover, RolloutAction};

use super::{Agent, World, name_of};

impl World {
    /// Formats the named agent and those with a rollout in progress; without a name, all agents.
    pub(crate) fn show(&self, named: Option<&AgentName>) -> String {
        let shown = |(name, agent): &(&AgentName, &Agent)| {
            named.is_none_or(|named| named == *name) || agent.ledger.open().is_some()
        };
        self.agents.iter().filter(shown).map(|(name, agent)| agent.show(name)).collect()
    }
}

impl Agent {
    fn show(&self, name: &AgentName) -> String {
        let parts: Vec<String> = self
            .revisions
            .iter()
            .map(|(number, rev)| {
                let mut text = format!("@{number} {} {}", name_of(rev.digest), rev.seen.state);
                if let RevisionState::Failed { reason } = &rev.seen.state {
                    _ = write!(text, " ({reason})");
                }
                if let Some(share) = self.shares.get(number).filter(|_| self.shares.len() > 1) {
                    _ = write!(text, " {share}%");
                }
                if rev.work.is_some() {
                    text.push_str(" (busy)");
                }
                if rev.seen.in_flight > 0 {
                    _ = write!(text, " ({} in flight)", rev.seen.in_flight);
                }
                if let Some(cap) = rev.seen.instance_limit {
                    _ = write!(text, " (at most {cap})");
                }
                text
            })
            .collect();
        let mut text = format!("{name}: {}", parts.join(", "));
        if self.paused {
            text.push_str(", held");
        }
        if self.shadowed {
            text.push_str(", copied");
        }
        if self.waiting > 0 {
            _ = write!(text, ", {} waiting", self.waiting);
        }
        text.push('\n');
        if let Some(rollout) = self.ledger.rollouts.last() {
            let (status, why) = (rollout.status.as_str(), &rollout.why);
            let strategy = rollout.settings.strategy.as_str();
            _ = writeln!(text, "{name}: {strategy} to @{}: {status}: {why}", rollout.to.number);
        }
        let why = self.ledger.open().map_or("", |rollout| rollout.why.as_str());
        for waits in self.waits.iter().filter(|waits| *waits != why) {
            _ = writeln!(text, "... {name}: {waits}");
        }
        text
    }
}

/// Formats an action as a line.
pub(crate) fn action(action: &RolloutAction) -> String {
    match action {
        RolloutAction::Revive { revision } => format!("bring back {revision}"),
        RolloutAction::Prepare { revision, instances } => format!("prepare {revision} with {instances} instances"),
        RolloutAction::Start { revision, instances } => format!("start {revision} up to {instances} instances"),
        RolloutAction::Cap { revision, instances: Some(most) } => format!("keep {revision} to {most} instances"),
        RolloutAction::Cap { revision, instances: None } => format!("let {revision} have its instances"),
        RolloutAction::Probe { revision } => format!("probe {revision}"),
        RolloutAction::Rehearse { revision, messages } => format!("rehearse {revision} with {messages} messages"),
        RolloutAction::Shadow { revision, on: true } => format!("copy messages to {revision}"),
        RolloutAction::Shadow { revision, on: false } => format!("copy no more messages to {revision}"),
        RolloutAction::Weigh { stable, candidate, percent } => {
            format!("weigh {stable} {}%, {candidate} {percent}%", 100 - percent)
        }
        RolloutAction::Pause { agent } => format!("hold the mailbox of {agent}"),
        RolloutAction::Resume { agent } => format!("let the mailbox of {agent} go on"),
        RolloutAction::Handoff { revision, memory: MemoryHandover::Migrate, .. } => format!("hand off to {revision}"),
        RolloutAction::Handoff { revision, memory: MemoryHandover::Discard, .. } => {
            format!("hand off to {revision}, which begins anew")
        }
        RolloutAction::TakeBack { revision, .. } => format!("take the memory back to {revision}"),
        RolloutAction::KeepState { revision } => format!("keep the state of {revision}"),
        RolloutAction::Convert { revision, conversion } if conversion.restores.is_some() => {
            format!("put an earlier state in place for {revision}")
        }
        RolloutAction::Convert { revision, conversion } if conversion.migrates => {
            format!("migrate the state for {revision}")
        }
        RolloutAction::Convert { revision, .. } => format!("convert the state for {revision}"),
        RolloutAction::RestoreState { revision } => format!("put back the state of {revision}"),
        RolloutAction::Stop { revision } => format!("stop {revision}"),
    }
}
