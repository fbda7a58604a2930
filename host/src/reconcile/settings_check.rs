//! The check of an agent's settings against its component.

use caxton_control::AgentSpec;
use caxton_control::desired::{ResponseMode, Reuse};
use caxton_control::inspection::{self, Finding};

use crate::wasm::{Kind, Summary};

/// Returns the finding about a component that begins with more memory than its agent may have.
pub(crate) fn memory_finding(spec: &AgentSpec, summary: &Summary) -> Option<Finding> {
    let (bytes, limit) = (summary.memory_bytes, spec.limits.memory_bytes);
    (bytes > limit).then(|| {
        Finding::new(
            &inspection::MEMORY_ABOVE_LIMIT,
            "its memories and tables",
            format!("it begins with {bytes} bytes of memory and tables, more than limits.memory ({limit} bytes)"),
            "raise limits.memory",
        )
    })
}

/// Checks the settings of an agent against a component.
///
/// # Errors
/// A setting cannot act on the component: the reason, for a person.
pub(crate) fn check_settings(spec: &AgentSpec, summary: &Summary) -> Result<(), String> {
    if let Some(finding) = memory_finding(spec, summary) {
        return Err(finding.to_string());
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
