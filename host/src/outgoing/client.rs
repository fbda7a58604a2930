//! The one client of all agents: what a call passes on its way to the server.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use arc_swap::ArcSwapOption;
use caxton_control::call_target::CallTarget;
use caxton_control::grant::PlaceRefusal;
use caxton_control::outgoing::OutgoingSpec;
use caxton_control::place::CallPlace;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Uri, header};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::client::legacy::{Error as ClientError, ResponseFuture};
use rustls::pki_types::CertificateDer;
use tokio::sync::{AcquireError, OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::call_times::CallTimes;
use super::calling_agent::CallingAgent;
use super::failure;
use super::journal::{self, BegunCall, CallBegin};
use super::pools::Pools;
use super::proxy::authorization;
use super::report::{CallProblem, CallRecord, OnProblem, count_refusal, origin};
use super::request_body::{Upload, UploadBody};
use super::response_body::{Download, DownloadBody, ResponseBounds};
use crate::bounds;
use crate::budgets::CallCharge;
use crate::message::{CallBody, CallScope, GuestHttpCall, HttpCallError, MaskedText, declared_length};
use crate::net::{CaError, calls_config, read_ca};
use crate::secrets::Secrets;
use crate::telemetry::trace::Trace;

/// The client. It makes no calls before it is [configured](Self::configure).
#[derive(Default)]
pub(crate) struct OutgoingClient {
    // Replaced as a whole, so that a call has one set of settings from its begin to its end.
    settings: ArcSwapOption<OutgoingSettings>,
}

/// The settings in force, with what is made of them.
struct OutgoingSettings {
    spec: OutgoingSpec,
    secrets: Arc<Secrets>,
    /// The certificates of `outgoing.ca`.
    own: Vec<CertificateDer<'static>>,
    /// The clients. The first call makes them: reading the system's issuers takes time, and most hosts call nothing.
    pools: Arc<OnceCell<Pools>>,
    /// The permits for calls at once.
    permits: Arc<Semaphore>,
    /// The permits for connections over TCP at once.
    connections: Arc<Semaphore>,
}

/// The settings of connections over TCP.
pub(super) struct TcpSettings {
    pub(super) spec: OutgoingSpec,
    /// The permits for connections at once.
    pub(super) permits: Arc<Semaphore>,
}

impl OutgoingClient {
    /// Takes settings for calls that begin from now on. Relative paths start from `dir`.
    ///
    /// # Errors
    /// The files of `outgoing.ca` that cannot be used. The certificates before stay in force; all else is taken.
    pub(crate) fn configure(
        &self,
        spec: &OutgoingSpec,
        dir: &Path,
        secrets: &Arc<Secrets>,
    ) -> Result<(), Vec<CaError>> {
        let before = self.settings.load_full();
        let read = read_ca(spec, dir);
        let (own, errors) = match (read, &before) {
            (Ok(own), _) => (own, Ok(())),
            (Err(errors), Some(before)) => (before.own.clone(), Err(errors)),
            (Err(errors), None) => (Vec::new(), Err(errors)),
        };
        let is_same = |before: &&Arc<OutgoingSettings>| before.spec == *spec && before.own == own;
        if before.as_ref().filter(is_same).is_some() {
            return errors;
        }
        // Connections that are open stay in the pools as long as these trust, and reach, the same.
        let keeps_pools = |before: &&Arc<OutgoingSettings>| {
            before.own == own && before.spec.proxy == spec.proxy && before.spec.connect_timeout == spec.connect_timeout
        };
        let pools = before.as_ref().filter(keeps_pools).map(|before| Arc::clone(&before.pools)).unwrap_or_default();
        let kept = before.as_ref().filter(|before| before.spec.calls == spec.calls);
        let permits =
            kept.map_or_else(|| Arc::new(Semaphore::new(spec.calls as usize)), |kept| Arc::clone(&kept.permits));
        let kept = before.as_ref().filter(|before| before.spec.connections == spec.connections);
        let connections = kept
            .map_or_else(|| Arc::new(Semaphore::new(spec.connections as usize)), |kept| Arc::clone(&kept.connections));
        let (spec, secrets) = (spec.clone(), Arc::clone(secrets));
        self.settings.store(Some(Arc::new(OutgoingSettings { spec, secrets, own, pools, permits, connections })));
        errors
    }

    /// Returns the settings of connections over TCP; `None` before there are any.
    pub(super) fn tcp(&self) -> Option<TcpSettings> {
        let settings = self.settings.load_full()?;
        Some(TcpSettings { spec: settings.spec.clone(), permits: Arc::clone(&settings.connections) })
    }

    /// Returns the secrets that are added to calls of a place, which nothing may store.
    pub(crate) fn masks(&self, place: &CallPlace) -> Vec<MaskedText> {
        self.settings.load().as_ref().map(|settings| settings.masks(place)).unwrap_or_default()
    }

    /// Makes a call. `on_problem` gets a refusal or failure, also one in the middle of the response.
    pub(crate) fn call(
        &self,
        agent: CallingAgent,
        call: GuestHttpCall,
        on_problem: OnProblem,
    ) -> impl Future<Output = Result<http::Response<CallBody>, HttpCallError>> + Send + 'static + use<> {
        let settings = self.settings.load_full().map(|settings| {
            let permit = queue_for(&settings.permits);
            (settings, permit)
        });
        async move {
            let Some((settings, permit)) = settings else {
                return Err(HttpCallError::Configuration("the host makes no calls yet".to_owned()));
            };
            let scope = Arc::clone(&call.scope);
            let made = settings.make(agent, call, permit, on_problem);
            tokio::select! {
                response = made => response,
                () = scope.ended() => Err(HttpCallError::TimeOver),
            }
        }
    }
}

impl OutgoingSettings {
    async fn make(
        &self,
        agent: CallingAgent,
        call: GuestHttpCall,
        permit: AwaitedPermit,
        on_problem: OnProblem,
    ) -> Result<http::Response<CallBody>, HttpCallError> {
        let GuestHttpCall { request, timeouts, scope } = call;
        let (mut parts, body) = request.into_parts();
        let (method, origin) = (parts.method.as_str().to_owned(), origin(&parts.uri));
        let refuse = |place: Option<Arc<str>>, error: HttpCallError, reason: String| {
            count_refusal(agent.name.as_str(), place.as_deref(), error.code());
            let (origin, method, reason) = (origin.clone(), method.clone(), format!("{reason} ({})", error.code()));
            on_problem(&CallProblem { place, origin, method, error: error.clone(), reason });
            Err(error)
        };
        if !scope.admit(self.spec.calls_per_message) {
            let most = self.spec.calls_per_message;
            let reason = format!("handling one message may make {most} calls (outgoing.calls-per-message)");
            return refuse(None, HttpCallError::TooManyCalls, reason);
        }
        let decided = CallTarget::parse(&parts.uri.to_string())
            .map_err(PlaceRefusal::from)
            .and_then(|target| Ok((agent.spec.allow.place(&method, &target)?, target)));
        let (place, target) = match decided {
            Ok(decided) => decided,
            Err(refusal) => {
                return refuse(None, of_refusal(&refusal), bounds::cut(refusal.to_string(), bounds::REASON));
            }
        };
        let name: Arc<str> = place.url().into();
        let told = (&agent.on_note, &on_problem);
        let asked = CallBegin {
            place: (place, &name),
            head: &mut parts,
            body,
            most: self.spec.journal_max_bytes,
            masks: self.masks(place),
        };
        let (begun, body) = match journal::begin(asked, agent.calls.as_ref(), told, &scope).await {
            Ok((begun, body)) => (begun, body),
            Err(journal::NotBegun::Answered(answer)) => return *answer,
            Err(journal::NotBegun::Refused(error, reason)) => return refuse(Some(name), error, reason),
        };
        if let Err(why) = self.prepare(&mut parts, place, &target, agent.trace.as_ref()) {
            return begun.end(refuse(Some(name), why.clone(), why.to_string())).await;
        }
        let charge = match agent.charge(place).await {
            Ok(charge) => charge,
            Err(why) => return begun.end(refuse(Some(name), why.clone(), why.to_string())).await,
        };
        let record = CallRecord::new(
            (agent.name.shared(), name),
            (method.clone(), target.origin()),
            (self.spec.max_request_body_bytes, self.spec.max_response_body_bytes),
            on_problem.clone(),
        );
        let times = CallTimes::new(&self.spec, timeouts, agent.deadline);
        let made = self.exchange((parts, body), place, (permit, record, &times), (&scope, &begun, charge)).await;
        begun.end(made).await
    }

    fn masks(&self, place: &CallPlace) -> Vec<MaskedText> {
        let names = place.secrets();
        // Of most places, without a look at the values.
        if names.is_empty() {
            return Vec::new();
        }
        let values = self.secrets.texts();
        let text = |name: String| {
            let text = values.get(&name)?.to_owned();
            Some((name, text))
        };
        names.into_iter().filter_map(text).collect()
    }

    /// Makes a call that was granted. Returns the response, whose body is passed on as it comes.
    async fn exchange(
        &self,
        (parts, body): (http::request::Parts, CallBody),
        place: &CallPlace,
        (permit, mut record, times): (AwaitedPermit, CallRecord, &CallTimes),
        (scope, begun, charge): (&Arc<CallScope>, &BegunCall, Option<Arc<CallCharge>>),
    ) -> Result<http::Response<CallBody>, HttpCallError> {
        let most = (self.spec.max_request_body_bytes, self.spec.max_response_body_bytes);
        let (body, upload) = UploadBody::new(body, most.0, scope, charge.clone());
        record.follow(Arc::clone(&upload), charge);
        let length = body.size_hint().exact().or_else(|| declared_length(&parts.headers));
        let body = body.of_length(length);
        let made = if length.is_some_and(|length| length > most.0) {
            Err(HttpCallError::RequestTooLarge(most.0))
        } else {
            self.send(http::Request::from_parts(parts, body), permit, place, (times, &upload, begun)).await
        };
        let (response, permit) = match made {
            Ok(response) => response,
            Err(error) => {
                let error = upload.failure().unwrap_or(error);
                record.fail(&error);
                return Err(error);
            }
        };
        record.answered(&response);
        if response.body().size_hint().lower() > most.1 {
            // Before the first byte of it: the length in the head says enough.
            let error = HttpCallError::ResponseTooLarge(most.1);
            record.fail(&error);
            return Err(error);
        }
        let bounds = ResponseBounds { most: most.1, stall: times.between_bytes, deadline: times.deadline };
        let wrap = |incoming| DownloadBody::new(Download::new(incoming, bounds, record, permit), scope);
        Ok(response.map(|incoming| wrap(incoming).boxed_unsync()))
    }

    /// Waits for a permit and sends the request. Returns the response with the permit.
    async fn send(
        &self,
        mut request: http::Request<UploadBody>,
        permit: AwaitedPermit,
        place: &CallPlace,
        (times, upload, begun): (&CallTimes, &Upload, &BegunCall),
    ) -> Result<(http::Response<Incoming>, OwnedSemaphorePermit), HttpCallError> {
        let permit = match timeout_at(times.connect_by(), permit).await {
            // The semaphore is never closed.
            Ok(permit) => permit.map_err(|_| HttpCallError::TooManyCalls)?,
            Err(_) => return Err(HttpCallError::TooManyCalls),
        };
        let pools = self.pools().await?;
        let mut connection = capture_connection(&mut request);
        let connected = async move {
            let found = connection.wait_for_connection_metadata().await;
            if let Some(found) = found.as_ref() {
                upload.follow(found);
            }
            // From here on the server may have the request.
            begun.leaves();
        };
        let response = pools.client(place).request(request);
        match within(response, connected, times, upload).await {
            Ok(response) => Ok((response, permit)),
            Err(error) => {
                // The guest may be in the middle of writing to a server that takes nothing, and learns of it by this.
                upload.abandon(&error);
                // Also of a request that was sent: no other call gets a connection whose answer is awaited.
                upload.break_off();
                Err(error)
            }
        }
    }

    async fn pools(&self) -> Result<&Pools, HttpCallError> {
        let make = || async {
            let (own, spec, secrets) = (self.own.clone(), self.spec.clone(), Arc::clone(&self.secrets));
            // On a thread of its own: it reads files.
            let made = tokio::task::spawn_blocking(move || Pools::new(&calls_config(&own), &spec, &secrets)).await;
            made.map_err(|error| HttpCallError::Configuration(format!("the client cannot be made: {error}")))
        };
        self.pools.get_or_try_init(make).await
    }

    /// Gives the head of a request the form in which it is sent: the target that was decided on, and the headers that the
    /// host adds.
    fn prepare(
        &self,
        parts: &mut http::request::Parts,
        place: &CallPlace,
        target: &CallTarget,
        trace: Option<&Trace>,
    ) -> Result<(), HttpCallError> {
        let mut path = target.path().to_owned();
        if let Some(query) = parts.uri.query() {
            // As the guest wrote it: no grant is about it, and signatures are.
            path.push('?');
            path.push_str(query);
        }
        let scheme = if target.is_https() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(target.authority()).path_and_query(path);
        parts.uri = uri.build().map_err(|_| HttpCallError::UriInvalid)?;
        if !place.meter().is_empty() {
            // The figures are looked for in the response as it comes.
            insert(parts, "accept-encoding", "identity", false)?;
        }
        // Set by the client from the URI, so that it cannot name another host.
        parts.headers.remove(header::HOST);
        if let Some(trace) = trace.filter(|_| !parts.headers.contains_key("traceparent")) {
            let child = trace.child();
            insert(parts, "traceparent", &child.to_string(), false)?;
            if let Some(state) = &child.state {
                insert(parts, "tracestate", state, false)?;
            }
        }
        if let Some(proxy) = self.spec.proxy.as_ref().filter(|_| !target.is_https() && !place.is_direct()) {
            // With each request in plain text, which the proxy itself reads. Those over TLS have a tunnel.
            parts.headers.remove(header::PROXY_AUTHORIZATION);
            if let Some(value) = authorization(proxy, &self.secrets)? {
                parts.headers.insert(header::PROXY_AUTHORIZATION, value);
            }
        }
        if place.headers().is_empty() {
            return Ok(());
        }
        let values = self.secrets.texts();
        let headers = place.resolve_headers(|name| values.get(name)).map_err(|name| {
            HttpCallError::Configuration(format!("the secret `{name}` has no value, and `{}` adds it", place.url()))
        })?;
        for (name, value) in headers {
            // Replaces those of the guest, all of them.
            insert(parts, &name, &value, true)?;
        }
        Ok(())
    }
}

/// A place in the queue for a permit.
type AwaitedPermit = BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>;

/// Queues for a permit. At once and not in the task of the call: tasks begin in any order, and a guest that waits for its
/// calls in the order in which it made them would hold permits of later ones while the first waits for one.
fn queue_for(permits: &Arc<Semaphore>) -> AwaitedPermit {
    let mut permit: AwaitedPermit = Box::pin(Arc::clone(permits).acquire_owned());
    match permit.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(permit) => Box::pin(std::future::ready(permit)),
        Poll::Pending => permit,
    }
}

/// Sets a header. A secret one is in no debug output, and in no table of a compressor.
fn insert(parts: &mut http::request::Parts, name: &str, value: &str, secret: bool) -> Result<(), HttpCallError> {
    let header = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
    let Some((key, mut value)) = header else {
        // Without the value, which may be a secret with a line feed.
        return Err(HttpCallError::Configuration(format!("the header `{name}` cannot have its value")));
    };
    value.set_sensitive(secret);
    parts.headers.insert(key, value);
    Ok(())
}

/// Waits for a response within the times.
async fn within(
    response: ResponseFuture,
    connected: impl Future<Output = ()>,
    times: &CallTimes,
    upload: &Upload,
) -> Result<http::Response<Incoming>, HttpCallError> {
    let done = |response: Result<_, ClientError>| response.map_err(|error| failure::of_call(&error));
    let (mut response, connected) = (pin!(response), pin!(connected));
    tokio::select! {
        biased;
        response = &mut response => return done(response),
        () = connected => upload.begin(),
        () = sleep_until(times.connect_by()) => return Err(times.late(HttpCallError::ConnectionTimeout)),
    }
    loop {
        let due = upload.due(times.first_byte, times.stall);
        let by = due.as_ref().map_or(times.deadline, |(by, _)| (*by).min(times.deadline));
        tokio::select! {
            biased;
            response = &mut response => return done(response),
            // The clock of the server runs again.
            () = upload.resumed(), if due.is_none() => continue,
            () = sleep_until(by) => {}
        }
        let now = Instant::now();
        if now >= times.deadline {
            return Err(HttpCallError::TimeOver);
        }
        // The request may have come further meanwhile.
        if let Some((by, error)) = upload.due(times.first_byte, times.stall)
            && by <= now
        {
            return Err(error);
        }
    }
}

fn of_refusal(refusal: &PlaceRefusal) -> HttpCallError {
    match refusal {
        PlaceRefusal::Target(_) => HttpCallError::UriInvalid,
        PlaceRefusal::Method(_) => HttpCallError::MethodInvalid,
        PlaceRefusal::OtherPath(_) | PlaceRefusal::OtherMethod(_) | PlaceRefusal::NotGranted(_) => {
            HttpCallError::Denied
        }
    }
}
