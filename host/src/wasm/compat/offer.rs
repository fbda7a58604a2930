//! The interfaces of other hosts that are offered, and the nearest ones in place of those that are not.

/// The interfaces that are offered, each with its version. A draft is compatible with itself only.
pub(in crate::wasm) const OFFERED: &[&str] = &[
    "fermyon:spin/key-value@2.0.0",
    "fermyon:spin/variables@2.0.0",
    "wasi:config/runtime@0.2.0-draft",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/store@0.2.0-draft-2024-09-27",
    "wasi:keyvalue/atomics@0.2.0-draft",
    "wasi:keyvalue/atomics@0.2.0-draft2",
    "wasi:keyvalue/batch@0.2.0-draft",
    "wasi:keyvalue/batch@0.2.0-draft2",
    "wasi:keyvalue/store@0.2.0-draft",
    "wasi:keyvalue/store@0.2.0-draft2",
    "wasi:logging/logging",
    "wasmcloud:messaging/consumer@0.2.0",
    "wasmcloud:messaging/types@0.2.0",
];

/// The handler of wasmCloud's messages, whose export makes an agent that takes messages.
pub(in crate::wasm) const BROKER_HANDLER: &str = "wasmcloud:messaging/handler@0.2.0";

/// The start of an interface's name, and the help for one that is not offered. The first that fits counts.
const NEAREST: &[(&str, &str)] = &[
    (
        "fermyon:spin/key-value@",
        "this host has fermyon:spin/key-value@2.0.0: build it with version 2 to 5 of Spin's SDK",
    ),
    (
        "fermyon:spin/variables@",
        "this host has fermyon:spin/variables@2.0.0: build it with version 2 to 5 of Spin's SDK",
    ),
    (
        "fermyon:spin/sqlite@",
        "the nearest is fermyon:spin/key-value@2.0.0: keys and values in the agent's own state, listed by page with \
         wasi:keyvalue/store@0.2.0-draft2",
    ),
    ("spin:sqlite/", "the nearest is fermyon:spin/key-value@2.0.0: keys and values in the agent's own state"),
    (
        "fermyon:spin/llm@",
        "the nearest is wasi:http/outgoing-handler@0.2.x: call a service for models that `allow.http` names",
    ),
    (
        "fermyon:spin/redis@",
        "the nearest is fermyon:spin/key-value@2.0.0, and for messages caxton:agent/messaging@0.1.0",
    ),
    ("fermyon:spin/mqtt@", "the nearest is caxton:agent/messaging@0.1.0, whose messages go to agents"),
    (
        "fermyon:spin/",
        "the nearest is wasi:http/outgoing-handler@0.2.x: reach the service by HTTP, at a place that `allow.http` names",
    ),
    (
        "spin:",
        "the nearest is wasi:http/outgoing-handler@0.2.x: reach the service by HTTP, at a place that `allow.http` names",
    ),
    ("wasi:blobstore/", "the nearest is wasi:keyvalue/store@0.2.0-draft2, with values of up to 256 MiB (limits.state)"),
    (
        "wasi:keyvalue/watcher@",
        "nothing tells an agent of changes; send it a message when one is made (caxton:agent/messaging@0.1.0)",
    ),
    ("wasi:keyvalue/", "this host has store, atomics and batch of wasi:keyvalue@0.2.0-draft and @0.2.0-draft2"),
    (
        "wasi:messaging/",
        "the nearest are caxton:agent/messaging@0.1.0 and wasmcloud:messaging@0.2.0, whose messages go to agents",
    ),
    ("wasmcloud:messaging/", "this host has consumer and handler of wasmcloud:messaging@0.2.0"),
    ("wasmcloud:bus/", "a message goes to the agent that its subject names: leave the choice of a link out"),
    (
        "wasmcloud:secrets/",
        "the nearest is wasi:config/store: `config = { name = \"${secret:NAME}\" }` gives the agent one",
    ),
    ("wasmcloud:", "of wasmCloud this host has consumer and handler of wasmcloud:messaging@0.2.0"),
    ("wasi:sql/", "the nearest is wasi:keyvalue/store@0.2.0-draft2: keys and values in the agent's own state"),
];

/// Returns `true` for an interface through which a guest reaches the agent's state.
pub(in crate::wasm) fn keeps_state(import: &str) -> bool {
    import.starts_with("wasi:keyvalue/") || import.starts_with("fermyon:spin/key-value@")
}

/// Returns the help for an interface of another host that is not offered; `None` for one of an unknown package.
pub(in crate::wasm) fn nearest(import: &str) -> Option<&'static str> {
    NEAREST.iter().find(|(start, _)| import.starts_with(start)).map(|(_, help)| *help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_that_is_not_offered_has_the_help_of_its_own_kind() {
        for (import, part) in [
            ("fermyon:spin/key-value@1.0.0", "fermyon:spin/key-value@2.0.0"),
            ("fermyon:spin/mysql@2.0.0", "allow.http"),
            ("spin:postgres/postgres@4.0.0", "allow.http"),
            ("wasi:blobstore/container@0.2.0-draft", "wasi:keyvalue/store"),
            ("wasi:keyvalue/store@0.1.0", "draft2"),
            ("wasmcloud:bus/lattice@1.0.0", "subject"),
            ("wasmcloud:messaging/consumer@0.3.0", "wasmcloud:messaging@0.2.0"),
        ] {
            assert!(!OFFERED.contains(&import), "{import}");
            assert!(nearest(import).is_some_and(|help| help.contains(part)), "{import}: {:?}", nearest(import));
        }
        assert_eq!(nearest("acme:things/store@1.0.0"), None);
        assert!(keeps_state("wasi:keyvalue/batch@0.2.0-draft") && !keeps_state("fermyon:spin/variables@2.0.0"));
    }
}
