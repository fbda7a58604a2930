//! Rollouts, as the management API and the commands tell of them.

use serde::{Deserialize, Serialize};

/// A rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RolloutStatus {
    /// Whose.
    pub(crate) agent: String,
    /// Counts the agent's rollouts from 1.
    pub(crate) rollout: u64,
    /// The revision that ran before, such as `echo@1`.
    pub(crate) from: String,
    /// The new one.
    pub(crate) to: String,
    /// How it takes over, such as `canary`.
    pub(crate) strategy: String,
    /// How far it is, such as `in-progress` or `rolled-back`.
    pub(crate) status: String,
    /// Whether nothing follows.
    pub(crate) ended: bool,
    /// Why it is there, for a person.
    pub(crate) why: String,
    /// The step it is at, from 1.
    pub(crate) step: usize,
    /// How many there are.
    pub(crate) steps: usize,
    /// Whether all traffic is with the new one, and only the end of the old one, or more to judge by, is waited for.
    pub(crate) moved: bool,
    /// How much of a hundred messages the new one is to have.
    pub(crate) weight: u8,
    /// Who began it.
    pub(crate) who: String,
    /// When, in milliseconds since 1970.
    pub(crate) began_at: u64,
    /// How long it took, or takes already, in milliseconds.
    pub(crate) took_ms: u64,
    /// Messages and calls that the revision before answered meanwhile.
    pub(crate) stable_messages: u64,
    /// Those that the new one answered.
    pub(crate) candidate_messages: u64,
    /// Instances of the new one that stood.
    pub(crate) started_instances: u64,
    /// Instances of the new one that did not come to stand, or ended in a trap or beyond a limit.
    pub(crate) failed_instances: u64,
    /// The most memory that one of its instances had, in bytes.
    pub(crate) peak_memory_bytes: u64,
    /// Probes of its `health` that passed.
    pub(crate) probes_passed: u64,
    /// Probes of its `health` that did not.
    pub(crate) probes_failed: u64,
    /// What is to be reached, in order, each in a few words.
    pub(crate) plan: Vec<String>,
    /// What it is judged by now: the one before, and the new one. None when it is over.
    pub(crate) measured: Option<[SideStatus; 2]>,
    /// Conversations in which something was said since the present weight began, and that stay with the one before although
    /// the new one has their place; `why` says what lets them go over.
    #[serde(default)]
    pub(crate) held_conversations: u64,
    /// The longest time for which the mailbox was held for a handoff, in milliseconds.
    pub(crate) longest_pause_ms: u64,
    /// Messages that were accepted while it went on and that nobody had any more after its end: neither handled, nor
    /// given up, nor waiting, nor in hand. None until that is counted, right after the end, and where the host keeps no
    /// messages.
    pub(crate) lost_messages: Option<u64>,
    /// Copies of messages whose answers were compared (`parallel`).
    pub(crate) copies: u64,
    /// How many of them were answered alike.
    pub(crate) copies_alike: u64,
    /// Messages of which no copy was compared: there was no time, or what it needs is not known any more.
    pub(crate) copies_set_aside: u64,
}

/// What was measured of a revision since the present weight began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct SideStatus {
    /// Messages and calls that it ended.
    pub(crate) messages: u64,
    /// How many of them failed by its fault.
    pub(crate) failed: u64,
    /// 95 of 100 took no longer, in microseconds; none without messages.
    pub(crate) p95_us: Option<u64>,
    /// The most memory that one of its instances ever had, in bytes.
    pub(crate) memory_bytes: u64,
}

/// What somebody wants of an agent's rollout.
#[derive(Debug, Clone)]
pub(crate) struct RolloutWish {
    /// Whose.
    pub(crate) agent: String,
    /// What.
    pub(crate) command: caxton_control::rollout::Command,
    /// For `undo`, where to go back to and how.
    pub(crate) undo: caxton_control::rollout::Undo,
    /// Who.
    pub(crate) who: String,
}

/// Where copies of messages were answered otherwise in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Differences {
    /// Whose.
    pub(crate) agent: String,
    /// The rollout, counted from 1.
    pub(crate) rollout: u64,
    /// What differs when the running revision is compared with itself, and was not looked at.
    pub(crate) by_nature: Vec<String>,
    /// The first messages that were answered otherwise.
    pub(crate) messages: Vec<Differing>,
}

/// A message whose copy was answered otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Differing {
    /// Its id.
    pub(crate) message: String,
    /// Who sent it.
    pub(crate) sender: String,
    /// The conversation that it is in.
    pub(crate) conversation: String,
    /// When it was found, in milliseconds since 1970.
    pub(crate) at: u64,
    /// Where the answers differ.
    pub(crate) differences: Vec<PathDiffers>,
}

/// One place in which two answers differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct PathDiffers {
    /// Where, such as `reply.items[0].price`.
    pub(crate) path: String,
    /// What the running revision has there; none if nothing.
    pub(crate) stable: Option<String>,
    /// What the new one has there.
    pub(crate) candidate: Option<String>,
}

/// A component that somebody wants to be tried on an agent's last messages.
#[derive(Debug)]
pub(crate) struct RehearsalWish {
    /// Whose messages.
    pub(crate) agent: String,
    /// The component's bytes.
    pub(crate) component: bytes::Bytes,
    /// How many of the last messages.
    pub(crate) messages: u32,
}

/// What came of a component that was tried on an agent's last messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct Rehearsal {
    /// Whose messages.
    pub(crate) agent: String,
    /// What runs, such as `triage@7`.
    pub(crate) stable: String,
    /// The component's SHA-256.
    pub(crate) digest: String,
    /// Whether it handled what it could be judged by.
    pub(crate) passed: bool,
    /// Messages that were there to rehearse with.
    pub(crate) messages: u32,
    /// How many it handled.
    pub(crate) handled: u32,
    /// How many say nothing of it: what runs fails at them now as well, or the host could not do its part.
    pub(crate) set_aside: u32,
    /// The first that it failed at.
    pub(crate) failed: Vec<RehearsalFailure>,
    /// Why it did not start, or did not take up the memory of what runs.
    pub(crate) unready: Option<String>,
}

/// A message that a component failed at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct RehearsalFailure {
    /// Its id.
    pub(crate) message: String,
    /// What went wrong, for a person.
    pub(crate) why: String,
}

/// Why a component was not tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRehearsed {
    /// It is not one that the agent could have.
    #[error("{0}")]
    Component(String),
    /// The agent does not run.
    #[error("{0}")]
    Unavailable(String),
    /// The host could not do its part.
    #[error("{0}")]
    Host(String),
}
