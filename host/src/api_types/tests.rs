//! Values for tests of the API and the command line.

use super::*;

/// Returns an agent with a distinct figure in every field.
pub(crate) fn agent(name: &str) -> AgentStatus {
    AgentStatus {
        name: name.to_owned(),
        state: "running".to_owned(),
        revision: Some(format!("{name}@7")),
        digest: Some("ab".repeat(32)),
        kind: Some("message".to_owned()),
        component: format!("components/{name}.wasm"),
        started_instances: 9,
        restarts_in_ms: None,
        reuse: Some(1_000),
        instances: 3,
        max_instances: 8,
        in_flight: 1,
        mailbox_depth: 2,
        mailbox_bound: 10_000,
        accepted: 12,
        handled: 9,
        failed: 4,
        refused: 5,
        retries: 6,
        runs: 21,
        conflicts: 2,
        later: 1,
        timers: 3,
        held: false,
        breaker: "closed".to_owned(),
        opening: None,
        dead_letters: 3,
        state_bytes: 2_048,
        memory: None,
        routes: vec![format!("POST /{name}")],
        capabilities: vec!["desk".to_owned()],
        revisions: vec![RevisionStatus {
            number: 7,
            state: "running".to_owned(),
            reason: None,
            digest: "ab".repeat(32),
            in_flight: 1,
            since_ms: 61_000,
        }],
        waiting: None,
        obstacle: None,
    }
}

/// Returns a host that is in order.
pub(crate) fn host() -> HostStatus {
    HostStatus {
        version: "0.1.0".to_owned(),
        file: "caxton.toml".to_owned(),
        started_at: 1_000,
        http: "127.0.0.1:8080".to_owned(),
        admin: "127.0.0.1:8081".to_owned(),
        ready: true,
        in_sync: true,
        file_errors: Vec::new(),
        waiting: Vec::new(),
        instances: 3,
        max_instances: 5_000,
        engines: vec!["plain".to_owned()],
        stopping: false,
        memory: HostMemory { limit_bytes: 1 << 30, ..HostMemory::default() },
    }
}
