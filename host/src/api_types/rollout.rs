//! Shapes of rollouts and rehearsals.

use serde::{Deserialize, Serialize};

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RolloutStatus {
    /// The agent's name.
    pub(crate) agent: String,
    /// Counts the agent's rollouts, from 1.
    pub(crate) rollout: u64,
    /// The revision that ran before, such as `echo@1`.
    pub(crate) from: String,
    /// The new revision.
    pub(crate) to: String,
    /// The strategy, such as `canary`.
    pub(crate) strategy: String,
    /// The state, such as `in-progress` or `rolled-back`.
    pub(crate) status: String,
    /// Set once the rollout has come to its end.
    pub(crate) ended: bool,
    /// The reason for the state, for a person.
    pub(crate) why: String,
    /// The current step, from 1.
    pub(crate) step: usize,
    /// The number of steps.
    pub(crate) steps: usize,
    /// Set if the new revision has all traffic, and only the end of the old one or enough data for a judgement is
    /// missing.
    pub(crate) moved: bool,
    /// The share of messages for the new revision, in percent.
    pub(crate) weight: u8,
    /// The person or cause that started it.
    pub(crate) who: String,
    /// The start, in milliseconds since 1970.
    pub(crate) began_at: u64,
    /// The duration so far, or in total, in milliseconds.
    pub(crate) took_ms: u64,
    /// Messages and calls answered by the old revision meanwhile.
    pub(crate) stable_messages: u64,
    /// Messages and calls answered by the new revision meanwhile.
    pub(crate) candidate_messages: u64,
    /// Instances of the new revision that started.
    pub(crate) started_instances: u64,
    /// Instances of the new revision that failed to start, trapped or exceeded a limit.
    pub(crate) failed_instances: u64,
    /// The largest memory of an instance of the new revision, in bytes.
    pub(crate) peak_memory_bytes: u64,
    /// Probes of the new revision's `health` that passed.
    pub(crate) probes_passed: u64,
    /// Probes of the new revision's `health` that failed.
    pub(crate) probes_failed: u64,
    /// The goals still to be reached, in order, each in a few words.
    pub(crate) plan: Vec<String>,
    /// The figures that the judgement is based on: of the old revision, and of the new one. Null once the rollout has
    /// ended.
    pub(crate) measured: Option<[SideStatus; 2]>,
    /// The number of active conversations since the present weight began that stay with the old revision although they
    /// belong to the share of the new one. `why` gives the reason.
    #[serde(default)]
    pub(crate) held_conversations: u64,
    /// The longest time for which the mailbox was held for a handoff, in milliseconds.
    pub(crate) longest_pause_ms: u64,
    /// Messages accepted during the rollout that were missing after its end: neither handled, nor dead letters, nor
    /// waiting, nor in flight. Null until they are counted right after the end, and where the host keeps no messages.
    pub(crate) lost_messages: Option<u64>,
    /// Copies of messages whose answers were compared (`parallel`).
    pub(crate) copies: u64,
    /// Copies that were answered alike.
    pub(crate) copies_alike: u64,
    /// Messages without a compared copy: there was no time, or data that the copy needed is no longer kept.
    pub(crate) copies_set_aside: u64,
    /// Messages of the rehearsal whose answers were compared (`rollback.rehearse`).
    #[serde(default)]
    pub(crate) rehearsed: u64,
    /// Messages of the rehearsal that were answered alike.
    #[serde(default)]
    pub(crate) rehearsed_alike: u64,
    /// Messages of the rehearsal that were handled without a comparison of answers: the answer that was given is
    /// unknown, or the running revision fails at them now.
    #[serde(default)]
    pub(crate) rehearsed_not_compared: u64,
}

/// The figures of a revision since the present weight began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct SideStatus {
    /// Messages and calls that it ended.
    pub(crate) messages: u64,
    /// Messages and calls that failed by its fault.
    pub(crate) failed: u64,
    /// The 95th percentile of handling times in microseconds; null without messages.
    pub(crate) p95_us: Option<u64>,
    /// The largest memory of an instance since the revision started, in bytes.
    pub(crate) memory_bytes: u64,
}

/// A command of an operator for an agent's rollout.
#[derive(Debug, Clone)]
pub(crate) struct RolloutRequest {
    /// The agent's name.
    pub(crate) agent: String,
    pub(crate) command: caxton_control::rollout::RolloutCommand,
    /// The revision to go back to and the way to do so, for `undo`.
    pub(crate) undo: caxton_control::rollout::UndoOptions,
    /// The operator, for the event and the log.
    pub(crate) who: String,
}

/// The differences between answers of two revisions in a rollout: to copies of live messages, and in its rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Differences)]
pub(crate) struct AnswerDifferences {
    /// The agent's name.
    pub(crate) agent: String,
    /// Counts the agent's rollouts, from 1.
    pub(crate) rollout: u64,
    /// Paths that differ even when the stable revision is compared with itself. They are ignored.
    pub(crate) by_nature: Vec<String>,
    /// The first messages that were answered differently.
    pub(crate) messages: Vec<DifferingMessage>,
}

/// A message that the two revisions answered differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Differing)]
pub(crate) struct DifferingMessage {
    /// The message id.
    pub(crate) message: String,
    pub(crate) sender: String,
    /// The conversation id.
    pub(crate) conversation: String,
    /// The time of the comparison, in milliseconds since 1970.
    pub(crate) at: u64,
    /// The paths in which the answers differ.
    pub(crate) differences: Vec<PathDifference>,
}

/// A difference at one path of two answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = PathDiffers)]
pub(crate) struct PathDifference {
    /// The path, such as `reply.items[0].price`.
    pub(crate) path: String,
    /// The value of the stable revision; null if it has none.
    pub(crate) stable: Option<String>,
    /// The value of the candidate; null if it has none.
    pub(crate) candidate: Option<String>,
}

/// A request to rehearse a component with an agent's latest messages.
#[derive(Debug)]
pub(crate) struct RehearsalRequest {
    /// The agent's name.
    pub(crate) agent: String,
    /// The bytes of the component.
    pub(crate) component: bytes::Bytes,
    /// The number of latest messages to use.
    pub(crate) messages: u32,
}

/// The result of a rehearsal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = Rehearsal)]
pub(crate) struct RehearsalResult {
    /// The agent's name.
    pub(crate) agent: String,
    /// The running revision, such as `triage@7`.
    pub(crate) stable: String,
    /// The SHA-256 of the component.
    pub(crate) digest: String,
    /// Set if the component failed at no message that counts, and enough of its answers are alike (`rollback.match`).
    pub(crate) passed: bool,
    /// Messages available for the rehearsal.
    pub(crate) messages: u32,
    /// Messages that it handled.
    pub(crate) handled: u32,
    /// Messages that say nothing about the component: the running revision fails at them as well, or the host could not
    /// provide something.
    pub(crate) set_aside: u32,
    /// The first messages at which it failed.
    pub(crate) failed: Vec<RehearsalFailure>,
    /// The reason why it did not start or did not restore the memory of the running revision; null if it did.
    pub(crate) unready: Option<String>,
    /// Messages that it answered like the running revision, or as they were answered before regardless of the state.
    pub(crate) alike: u32,
    /// Messages that it answered differently.
    pub(crate) otherwise: u32,
    /// Messages that it handled without a comparison of answers.
    pub(crate) not_compared: u32,
    /// The first messages that it answered differently.
    pub(crate) differences: Vec<DifferingMessage>,
    /// Paths that differ even when the running revision is compared with itself. They are ignored.
    pub(crate) by_nature: Vec<String>,
    /// The reason why its answers refuse it (`rollback.match`); null if they do not.
    pub(crate) refused: Option<String>,
}

/// A message at which a component failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RehearsalFailure {
    /// The message id.
    pub(crate) message: String,
    /// The reason, for a person.
    pub(crate) why: String,
}

/// The error of a rehearsal that did not take place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RehearsalError {
    /// The component cannot serve the agent.
    #[error("{0}")]
    Component(String),
    /// The agent does not run.
    #[error("{0}")]
    Unavailable(String),
    /// The host failed.
    #[error("{0}")]
    Host(String),
}
