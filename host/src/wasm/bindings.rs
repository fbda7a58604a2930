//! Bindings generated from the contract in `wit/`.

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package caxton:host@0.1.0;
        world guest {
            import caxton:agent/messaging@0.1.0;
            import caxton:agent/state@0.1.0;
            import caxton:agent/effects@0.1.0;
            import wasi:config/store@0.2.0-rc.1;
            import wasi:logging/logging@0.1.0-draft;
            export caxton:agent/snapshot@0.1.0;
            export caxton:agent/health@0.1.0;
            export caxton:agent/migration@0.1.0;
        }
    ",
    world: "caxton:host/guest",
    imports: {
        "caxton:agent/effects.commit": async | trappable,
        "caxton:agent/messaging.request": async | trappable,
        "caxton:agent/messaging.request-all": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    require_store_data_send: true,
});

/// The handler, in bindings of its own: here a message borrows its texts and its content, so that the envelope keeps
/// them while the guest runs and nothing is copied. Imports cannot borrow, because their values come from the guest.
///
/// `unused` is exported by no component: bindgen gives a record that no function uses borrowed fields without a
/// lifetime.
pub(crate) mod borrowed {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "
            package caxton:host@0.1.0;
            interface unused {
                use caxton:agent/types@0.1.0.{draft, send-error, request-error, state-error, key-page};
                owns: func() -> tuple<draft, send-error, request-error, state-error, key-page>;
            }
            world message-handler {
                export caxton:agent/handler@0.1.0;
                export unused;
            }
        ",
        world: "caxton:host/message-handler",
        ownership: Borrowing { duplicate_if_necessary: false },
        exports: { default: async },
        require_store_data_send: true,
    });

    pub(crate) use self::caxton::agent::types;
    pub(crate) use exports::caxton::agent::handler;
}

pub(crate) use self::borrowed::handler;
pub(crate) use self::caxton::agent::types;
pub(crate) use exports::caxton::agent::{health, migration, snapshot};
pub(crate) use wasmtime_wasi_http::p2::bindings::exports::wasi::http::incoming_handler;
pub(crate) use wasmtime_wasi_http::p3::bindings::exports::wasi::http::handler as service_handler;
