//! Bindings generated from the contract in `wit/`.

wasmtime::component::bindgen!({
    path: "../wit",
    inline: "
        package caxton:host@0.1.0;
        world every-export {
            include caxton:agent/stateful-agent@0.1.0;
            import caxton:agent/effects@0.1.0;
            export caxton:agent/health@0.1.0;
            export caxton:agent/migration@0.1.0;
        }
    ",
    world: "caxton:host/every-export",
    imports: {
        "caxton:agent/effects.commit": async | trappable,
        "caxton:agent/messaging.request": async | trappable,
        "caxton:agent/messaging.request-all": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    require_store_data_send: true,
});

pub(crate) use self::caxton::agent::types;
pub(crate) use exports::caxton::agent::{handler, health, migration, snapshot};
pub(crate) use wasmtime_wasi_http::p2::bindings::exports::wasi::http::incoming_handler;
