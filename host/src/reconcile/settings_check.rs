//! The check of an agent's settings against its component.

use caxton_control::AgentSpec;
use caxton_control::desired::{ResponseMode, Reuse};

use crate::wasm::{Kind, Summary};

/// Checks the settings of an agent against a component.
///
/// # Errors
/// A setting cannot act on the component: the reason, for a person.
pub(crate) fn check_settings(spec: &AgentSpec, summary: &Summary) -> Result<(), String> {
    let limit = spec.limits.memory_bytes;
    if summary.memory_bytes > limit {
        return Err(format!(
            "the component begins with {} bytes of memory, more than limits.memory ({limit} bytes); raise it",
            summary.memory_bytes
        ));
    }
    if let (Kind::Stateful, Reuse::Own(times)) = (summary.kind, spec.instances.reuse) {
        return Err(format!(
            "it keeps state in its memory, which its one instance has as long as it lives: `instances.reuse` = {times} is \
             for other agents; take it out"
        ));
    }
    if summary.kind != Kind::Stateful && spec.snapshot.own {
        return Err("it keeps nothing in its memory, so nothing reads its settings in `snapshot`: they are for agents that export \
            caxton:agent/snapshot; leave it out"
            .to_owned());
    }
    if summary.kind == Kind::Http && spec.http.iter().any(|route| route.mode == ResponseMode::Enqueue) {
        return Err("it is an HTTP agent, which answers itself: a route with mode = \"enqueue\" is for agents that take messages".to_owned());
    }
    if summary.kind == Kind::Http && spec.rollout.rollback.rehearse > 0 {
        return Err("it is an HTTP agent, whose calls are not kept: `rollback.rehearse` is for agents that take messages; set it to 0".to_owned());
    }
    if summary.kind == Kind::Http && !spec.schedules.is_empty() {
        return Err("it is an HTTP agent: a schedule is for agents that take messages".to_owned());
    }
    Ok(())
}
