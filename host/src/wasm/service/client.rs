//! Calls over HTTP by `wasi:http/client`: through the same client as those of WASI 0.2.

use std::future::poll_fn;
use std::pin::pin;

use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p3::bindings::http::client::HostWithStore;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{WasiHttp, WasiHttpView};

use crate::wasm::call::ctx::Ctx;
use crate::wasm::service::offered::VERSION;

/// Replaces `send` in the linker by one that knows the message that is being handled.
pub(super) fn add_to_linker(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    type Sent = Result<Resource<Response>, ErrorCode>;
    linker.instance(&format!("wasi:http/client@{VERSION}"))?.func_wrap_concurrent(
        "send",
        |tasks, (request,): (Resource<Request>,)| {
            Box::pin(async move {
                // A call cannot be undone, so that a run which has to be repeated ends before it.
                tasks.with(|mut store| store.data_mut().check_not_blocked())?;
                let view = tasks.with_getter::<WasiHttp>(Ctx::http);
                let mut sending = pin!(<WasiHttp as HostWithStore<Ctx>>::send(&view, request));
                let sent = poll_fn(|cx| {
                    // For the time of a poll: other tasks of the guest need the context in between.
                    tasks.with(|mut store| {
                        let ctx = store.data_mut();
                        let work = ctx.work.take();
                        ctx.outbound.lend(work);
                    });
                    let polled = sending.as_mut().poll(cx);
                    tasks.with(|mut store| {
                        let ctx = store.data_mut();
                        ctx.work = ctx.outbound.take_back();
                    });
                    polled
                })
                .await;
                let sent: Sent = match sent {
                    Ok(response) => Ok(response),
                    Err(error) => Err(error.downcast()?),
                };
                Ok((sent,))
            })
        },
    )
}
