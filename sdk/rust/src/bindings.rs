//! The bindings that `wit-bindgen` generates from `wit/agent.wit`: the records as they cross the boundary, and the raw
//! imports.
//!
//! The rest of this crate is built on them. Use them for types and functions that the other modules do not cover.

#![allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::pedantic)]

wit_bindgen::generate!({
    path: "../../wit",
    inline: r#"
        package caxton:sdk;

        world agent {
            include caxton:agent/agent@0.1.0;
            import caxton:agent/effects@0.1.0;
        }
    "#,
    world: "caxton:sdk/agent",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_agent",
    default_bindings_module: "::caxton_sdk::bindings",
    runtime_path: "::caxton_sdk::wit_bindgen::rt",
    additional_derives: [PartialEq],
});

/// The additional export of agents with state in their memory.
pub mod memory {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: r#"
            package caxton:sdk;

            world memory {
                export caxton:agent/snapshot@0.1.0;
            }
        "#,
        world: "caxton:sdk/memory",
        pub_export_macro: true,
        export_macro_name: "export_memory",
        default_bindings_module: "::caxton_sdk::bindings::memory",
        runtime_path: "::caxton_sdk::wit_bindgen::rt",
    });
}

/// The export with which an agent converts its state.
pub mod migration {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: r#"
            package caxton:sdk;

            world migration {
                export caxton:agent/migration@0.1.0;
            }
        "#,
        world: "caxton:sdk/migration",
        with: { "caxton:agent/types@0.1.0": crate::bindings::caxton::agent::types },
        pub_export_macro: true,
        export_macro_name: "export_migration",
        default_bindings_module: "::caxton_sdk::bindings::migration",
        runtime_path: "::caxton_sdk::wit_bindgen::rt",
    });
}

/// The export with which an agent reports if it can work.
pub mod probe {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: r#"
            package caxton:sdk;

            world probe {
                export caxton:agent/health@0.1.0;
            }
        "#,
        world: "caxton:sdk/probe",
        pub_export_macro: true,
        export_macro_name: "export_probe",
        default_bindings_module: "::caxton_sdk::bindings::probe",
        runtime_path: "::caxton_sdk::wit_bindgen::rt",
    });
}
