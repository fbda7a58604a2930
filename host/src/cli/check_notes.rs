//! Notes of `caxton check`: consequences of a declaration that are no errors.

use caxton_control::AgentSpec;
use caxton_control::units::print_bytes;

use crate::wasm::{ENGINE, Kind, Summary};

/// Returns the notes on an agent, with what is known of its component.
pub(super) fn notes(spec: &AgentSpec, summary: Option<&Summary>) -> Vec<String> {
    let of_component = summary.into_iter().flat_map(|summary| [unsaved(spec, summary), experimental(summary)]);
    of_component.flatten().chain(short_journal(spec, summary)).collect()
}

/// Returns a note if the memory may grow larger than a snapshot may be.
fn unsaved(spec: &AgentSpec, summary: &Summary) -> Option<String> {
    let (max, memory) = (spec.snapshot.max_bytes, spec.limits.memory_bytes);
    (summary.kind == Kind::Stateful && memory > max).then(|| {
        format!(
            "it may have more in its memory ({}, limits.memory) than it may save ({}, snapshot.max); a save above that \
             fails, and with it a reload and a clean stop",
            print_bytes(memory),
            print_bytes(max)
        )
    })
}

/// Returns a note about a component of WASI 0.3.
fn experimental(summary: &Summary) -> Option<String> {
    let (engine, version) = ENGINE;
    summary.is_of_wasi_03().then(|| {
        format!(
            "it is of WASI 0.3: the makers of {engine} {version} call their support of that experimental, and mend its \
             faults in no patch release; let it run only if you trust it"
        )
    })
}

/// Returns a note if the agent has a journal of its calls that is not kept with all that it handles.
fn short_journal(spec: &AgentSpec, summary: Option<&Summary>) -> Option<String> {
    let place = spec.allow.http.iter().find(|place| place.journal().is_kept)?.url();
    Some(match summary.map(|summary| summary.kind) {
        Some(Kind::Http) => format!(
            "the journal of its calls ({place}) lasts as long as each request: what an HTTP agent is asked is neither kept \
             nor tried again"
        ),
        Some(Kind::Message | Kind::Stateful | Kind::Both) | None => format!(
            "the journal of its calls ({place}) is kept with messages from mailboxes and from routes with `mode = \"enqueue\"`; \
             for a request that is waited for it lasts as long as that"
        ),
    })
}
