//! Implementations of the host traits of WASI and of its proposals for a store.

use wasmtime_wasi::{WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use crate::wasm::bindings::wasi::{config, logging};
use crate::wasm::call::ctx::Ctx;
use crate::wasm::convert;

impl config::store::Host for Ctx {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, config::store::Error>> {
        Ok(Ok(self.config.texts(&self.who.spec.config).get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, config::store::Error>> {
        Ok(Ok(self
            .config
            .texts(&self.who.spec.config)
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()))
    }
}

impl logging::logging::Host for Ctx {
    fn log(&mut self, level: logging::logging::Level, context: String, message: String) -> wasmtime::Result<()> {
        let [context, message] = [&context, &message].map(|text| self.config.mask(text));
        self.host().log(&self.who, convert::level(level), &context, &message);
        Ok(())
    }
}

impl WasiView for Ctx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Ctx {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        // Each function of wasi:http comes by here, and may make a resource.
        self.bound_resources();
        WasiHttpCtxView { hooks: &mut self.outbound, table: &mut self.table, ctx: &mut self.http }
    }
}
