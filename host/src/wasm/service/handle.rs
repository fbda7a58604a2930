//! A call of a guest that exports `wasi:http/handler`.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, Scheme};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::AsContextMut;
use wasmtime::component::{Accessor, Resource};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{Error as WasiHttpError, FieldMap, WasiBody, WasiHttpView};

use crate::message::{CallContext, CallOrigin, Fault};
use crate::wasm::bindings::service_handler::Guest;
use crate::wasm::call::ctx::{Ctx, HttpAnswering};
use crate::wasm::call::instance::{Instance, bounded};
use crate::wasm::http::bodyless::is_bodyless;
use crate::wasm::http::caller::BodyError;
use crate::wasm::http::head_commit::{Head, HeadCommit};
use crate::wasm::http::over_tls::OverTls;
use crate::wasm::service::answer_body::body_end;

/// The parts of a request that its response depends on.
struct Asked {
    method: http::Method,
    status: Arc<AtomicU16>,
    sender: oneshot::Sender<Head>,
}

impl Instance {
    /// Runs a request until all tasks of the guest have ended and the body was read. `sender` gets the head of the response
    /// when the guest returns it, with the effects until then. Later effects stay with the instance.
    pub(in crate::wasm) async fn serve_service<B>(
        &mut self,
        request: http::Request<B>,
        work: CallContext,
        time: Duration,
        (sender, head_commit): (oneshot::Sender<Head>, HeadCommit),
    ) -> Result<(), Fault>
    where
        B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
    {
        self.begin(Some(work), time);
        let Self { store, exports, meter, .. } = self;
        let Some(guest) = &exports.service else {
            return Err(Fault::Host("the component exports no wasi:http/handler".to_owned()));
        };
        let method = request.method().clone();
        let origin = request.extensions().get::<CallOrigin>().cloned();
        let ctx = store.data_mut();
        ctx.supply_by(|| {
            let CallOrigin { id, at_ms } = origin.unwrap_or_else(CallOrigin::now);
            (id, at_ms)
        });
        let status = Arc::<AtomicU16>::default();
        let head = method == http::Method::HEAD;
        ctx.answer = HttpAnswering { head, status: Arc::clone(&status), head_commit };
        let request = incoming(ctx, request);
        let asked = Asked { method, status, sender };
        // Around all of it: inside of the closure a timer does not fire while a guest computes.
        let call = Box::pin(store.run_concurrent(async move |tasks| answer(tasks, guest, request, asked).await));
        let result = bounded(meter, time, call).await;
        self.explain(result.map(Result::flatten), time)
    }
}

/// Makes a request of the guest's types.
fn incoming<B>(ctx: &mut Ctx, request: http::Request<B>) -> Request
where
    B: Body<Data = Bytes, Error = BodyError> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    // What the request itself says of its scheme is the client's word.
    let scheme = if parts.extensions.get::<OverTls>().is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let named = || parts.headers.get(HOST)?.to_str().ok()?.parse::<Authority>().ok();
    let authority = parts.uri.authority().cloned().or_else(named);
    let path = parts.uri.path_and_query().cloned();
    let headers = FieldMap::new_immutable(ctx.http().hooks, parts.headers);
    // The guest's word on how it took the body has no reader.
    let (request, _taken) = Request::new(parts.method, Some(scheme), authority, path, headers, None, body);
    request
}

/// Calls the guest, passes the head of its response on, and waits for its tasks.
async fn answer(tasks: &Accessor<Ctx>, guest: &Guest, request: Request, asked: Asked) -> wasmtime::Result<()> {
    let request = tasks.with(|mut store| store.data_mut().table.push(request))?;
    let answered = guest.call_handle(tasks, request).await?;
    let body_read = pass_head(tasks, answered, asked)?;
    if let Some(body_read) = body_read {
        // First, as the body may come from a call of the guest's, which ends with this one.
        let _ = body_read.await;
    }
    poll_fn(|cx| tasks.poll_no_interesting_tasks(cx)).await;
    Ok(())
}

/// Passes the head on. Returns the receiver of the end of its body.
fn pass_head(
    tasks: &Accessor<Ctx>,
    answered: Result<Resource<Response>, ErrorCode>,
    Asked { method, status, sender }: Asked,
) -> wasmtime::Result<Option<oneshot::Receiver<()>>> {
    tasks.with(|mut store| {
        let (head, body_read) = match answered {
            Err(code) => (Err(format!("{code:?}")), None),
            Ok(response) => {
                let (response, body_read) = outgoing(&mut store, response, &method)?;
                (Ok(response), Some(body_read))
            }
        };
        let ctx = store.data_mut();
        ctx.answered.note_response_set(head.as_ref().ok());
        if let Ok(response) = &head {
            status.store(response.status().as_u16(), Ordering::Relaxed);
        }
        let is_kept = head.as_ref().is_ok_and(|response| !response.status().is_server_error());
        let taken = ctx.effects.lock().take_with_head(is_kept);
        // The client may have left, which is not an error of the guest.
        let _ = sender.send((head, taken));
        Ok(body_read)
    })
}

/// Takes the guest's response. Returns it with the receiver of the end of its body.
fn outgoing(
    mut store: impl AsContextMut<Data = Ctx>,
    response: Resource<Response>,
    method: &http::Method,
) -> wasmtime::Result<(http::Response<WasiBody>, oneshot::Receiver<()>)> {
    let mut store = store.as_context_mut();
    let ctx = store.data_mut();
    let mut response = ctx.table.delete(response)?;
    let mut length = None;
    if is_bodyless(method, response.status) {
        // It tells the length of a GET's body, which none of these has to meet.
        let mut headers = http::HeaderMap::from(std::mem::take(&mut response.headers));
        length = headers.remove(CONTENT_LENGTH);
        response.headers = FieldMap::new_immutable(ctx.http().hooks, headers);
    }
    let progress = ctx.answered.clone();
    let (wrap, ends) = body_end();
    let guest = async move { ends.guest.await.unwrap_or(Err(WasiHttpError::ConnectionTerminated)) };
    let response = response.into_http(&mut store, guest)?;
    let mut response = response.map(|body| wrap(body, progress).boxed_unsync());
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    Ok((response, ends.call))
}
