//! `wasi:config` of earlier drafts: `runtime` and `store` of `0.2.0-draft`, as wasmCloud 1 has them, and `store` of
//! `0.2.0-draft-2024-09-27`, as Spin has it. They have the same functions under other names.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::buckets::Returned;
use crate::wasm::call::ctx::Ctx;

const INTERFACES: [&str; 3] =
    ["wasi:config/runtime@0.2.0-draft", "wasi:config/store@0.2.0-draft", "wasi:config/store@0.2.0-draft-2024-09-27"];

/// `error` of `store`, and `config-error` of `runtime`.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum ConfigFailure {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

/// Defines the functions of all of them.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    for interface in INTERFACES {
        let mut interface = linker.instance(interface)?;
        interface.func_wrap(
            "get",
            |store: StoreContextMut<'_, Ctx>, (key,): (String,)| -> Returned<Option<String>, ConfigFailure> {
                let ctx = store.data();
                Ok((Ok(ctx.config.texts(&ctx.who.spec.config).get(&key).cloned()),))
            },
        )?;
        interface.func_wrap(
            "get-all",
            |store: StoreContextMut<'_, Ctx>, (): ()| -> Returned<Vec<(String, String)>, ConfigFailure> {
                let ctx = store.data();
                let all = ctx.config.texts(&ctx.who.spec.config).iter();
                Ok((Ok(all.map(|(key, value)| (key.clone(), value.clone())).collect()),))
            },
        )?;
    }
    Ok(())
}
