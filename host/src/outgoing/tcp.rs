//! Connections over TCP that agents make, to the places that `allow.tcp` grants.
//!
//! A name is looked up by the host, and only the addresses that its place may have are returned. A connection is decided by
//! its address and port and by the names that led there, and is made to that address: nothing is resolved again.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use caxton_control::grant::Grants;
use caxton_control::meter::UnitMeter;
use caxton_control::tcp_place::TcpRefusal;
use caxton_control::{AgentName, AgentSpec};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::client::{OutgoingClient, TcpSettings};
use super::dial::literal;
use super::resolve::resolve;
use crate::bounds;
use crate::budgets::{CallCharge, ChargeRefusal, Tree};
use crate::message::{CallScope, GuestConnect, HttpCallError, LookedUp, TcpConnection, TcpError};

/// A connection or a look-up that was refused or failed.
#[derive(Debug, Clone)]
pub(crate) struct TcpProblem {
    /// The place; `None` if no grant covers it.
    pub(crate) place: Option<Arc<str>>,
    /// The name, or the address with the port.
    pub(crate) target: String,
    /// The error.
    pub(crate) error: TcpError,
    /// The reason, with the setting that would allow it if there is one.
    pub(crate) reason: String,
}

/// Gets the problem of one connection.
pub(crate) type OnTcpProblem = Arc<dyn Fn(&TcpProblem) + Send + Sync>;

impl OutgoingClient {
    /// Looks up a name for an agent.
    pub(crate) fn look_up(
        &self,
        agent: ConnectingAgent,
        name: String,
        scope: Arc<CallScope>,
        on_problem: OnTcpProblem,
    ) -> impl Future<Output = Result<LookedUp, TcpError>> + Send + 'static + use<> {
        let settings = self.tcp();
        async move {
            let Some(settings) = settings else { return Err(TcpError::Denied) };
            let attempt = TcpAttempt::new(&settings, agent, name.clone(), on_problem);
            let found = attempt.look_up(&settings, &name);
            tokio::select! {
                found = found => found,
                () = scope.ended() => Err(TcpError::TimeOver),
            }
        }
    }

    /// Makes a connection for an agent.
    pub(crate) fn connect(
        &self,
        agent: ConnectingAgent,
        call: GuestConnect,
        on_problem: OnTcpProblem,
    ) -> impl Future<Output = Result<Arc<TcpConnection>, TcpError>> + Send + 'static + use<> {
        let settings = self.tcp();
        async move {
            let Some(settings) = settings else { return Err(TcpError::Denied) };
            let scope = Arc::clone(&call.scope);
            let attempt = TcpAttempt::new(&settings, agent, call.address.to_string(), on_problem);
            tokio::select! {
                made = attempt.connect(&settings, &call) => made,
                () = scope.ended() => Err(TcpError::TimeOver),
            }
        }
    }
}

/// The agent that connects, and its message.
pub(crate) struct ConnectingAgent {
    /// The name.
    pub(crate) name: AgentName,
    /// The settings, with the grants.
    pub(crate) spec: Arc<AgentSpec>,
    /// The time by which the message has to end.
    pub(crate) deadline: std::time::Instant,
    /// The tree of the message, if that has a budget.
    pub(crate) tree: Option<Tree>,
}

impl ConnectingAgent {
    /// Takes a connection from the budget, in which it counts as a call.
    async fn charge(&self) -> Result<Option<Arc<CallCharge>>, ChargeRefusal> {
        let Some(tree) = &self.tree else { return Ok(None) };
        tree.begin_call(&self.name, &UnitMeter::default()).await.map(Some)
    }
}

/// A connection or look-up of an agent.
struct TcpAttempt {
    agent: ConnectingAgent,
    target: String,
    on_problem: OnTcpProblem,
    /// The time by which it has to be done.
    by: Instant,
}

impl TcpAttempt {
    fn new(settings: &TcpSettings, agent: ConnectingAgent, target: String, on_problem: OnTcpProblem) -> Self {
        let by = (Instant::now() + settings.spec.connect_timeout).min(agent.deadline.into());
        Self { agent, target: bounds::cut(target, bounds::QUOTED), on_problem, by }
    }

    /// Counts and reports an error.
    fn fail<T>(&self, place: Option<&str>, error: TcpError, reason: &str) -> Result<T, TcpError> {
        count(self.agent.name.as_str(), place, error.code());
        let reason = bounds::cut(format!("{reason} ({})", error.code()), bounds::REASON);
        let (place, target) = (place.map(Arc::from), self.target.clone());
        (self.on_problem)(&TcpProblem { place, target, error: error.clone(), reason });
        Err(error)
    }

    fn refuse<T>(&self, refusal: &TcpRefusal) -> Result<T, TcpError> {
        let place = match refusal {
            TcpRefusal::Prohibited(place) => Some(place.as_str()),
            TcpRefusal::Nothing | TcpRefusal::NotGranted(_) | TcpRefusal::OtherPort(_) => None,
        };
        self.fail(place, TcpError::Denied, &refusal.to_string())
    }

    async fn look_up(&self, settings: &TcpSettings, name: &str) -> Result<LookedUp, TcpError> {
        if let Some(address) = literal(name) {
            // The address itself, which the connection is decided by.
            return Ok(LookedUp { name: name.to_owned(), addresses: vec![address] });
        }
        let (name, places) = match self.agent.spec.allow.lookup(name) {
            Ok(granted) => granted,
            Err(refusal) => return self.refuse(&refusal),
        };
        let place = places.first().map(|place| place.to());
        let found: Vec<IpAddr> = match timeout_at(self.by, resolve(&name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(HttpCallError::Dns(why))) => {
                let error = TcpError::Unresolvable(why);
                return self.fail(place.as_deref(), error.clone(), &error.to_string());
            }
            Ok(Err(_)) | Err(_) => return self.late(settings, place.as_deref(), "the name was not resolved in time"),
        };
        if found.is_empty() {
            let error = TcpError::Unresolvable("there is none".to_owned());
            return self.fail(place.as_deref(), error.clone(), &error.to_string());
        }
        match Grants::admitted(&places, &found) {
            Ok(addresses) => Ok(LookedUp { name, addresses }),
            Err(refusal) => self.refuse(&refusal),
        }
    }

    async fn connect(&self, settings: &TcpSettings, call: &GuestConnect) -> Result<Arc<TcpConnection>, TcpError> {
        let names: Vec<&str> = call.names.iter().map(String::as_str).collect();
        let place: Arc<str> = match self.agent.spec.allow.connection(call.address, &names) {
            Ok(place) => place.to().into(),
            Err(refusal) => return self.refuse(&refusal),
        };
        let most = settings.spec.connections_per_message;
        if !call.scope.admit_connection(most) {
            let reason = format!("handling one message may make {most} connections (outgoing.connections-per-message)");
            return self.fail(Some(&place), TcpError::TooMany, &reason);
        }
        // The semaphore is never closed.
        let permit = timeout_at(self.by, Arc::clone(&settings.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            let reason = "no other connection ended in time (outgoing.connections)";
            return self.fail(Some(&place), TcpError::TooMany, reason);
        };
        let charge = match self.agent.charge().await {
            Ok(charge) => charge,
            Err(refusal) => return self.fail(Some(&place), TcpError::TooMany, &refusal.to_string()),
        };
        let stream = match timeout_at(self.by, TcpStream::connect(call.address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let error = unconnected(&error);
                return self.fail(Some(&place), error.clone(), &error.to_string());
            }
            Err(_) => return self.late(settings, Some(&place), "no connection was made in time"),
        };
        match self.begin(stream, &place, (permit, charge), call) {
            Ok(connection) => Ok(connection),
            Err(error) => {
                let error = unconnected(&error);
                self.fail(Some(&place), error.clone(), &error.to_string())
            }
        }
    }

    /// Reports that the time is over: that of the message, or of the setting.
    fn late<T>(&self, settings: &TcpSettings, place: Option<&str>, what: &str) -> Result<T, TcpError> {
        if Instant::now() >= Instant::from_std(self.agent.deadline) {
            return self.fail(place, TcpError::TimeOver, &format!("{} (limits.time)", TcpError::TimeOver));
        }
        let seconds = settings.spec.connect_timeout.as_secs_f64();
        self.fail(place, TcpError::Timeout, &format!("{what}, which is {seconds} s (outgoing.connect-timeout)"))
    }

    fn begin(
        &self,
        stream: TcpStream,
        place: &Arc<str>,
        (permit, charge): (OwnedSemaphorePermit, Option<Arc<CallCharge>>),
        call: &GuestConnect,
    ) -> io::Result<Arc<TcpConnection>> {
        // Guests write whole messages, and wait for the answer.
        stream.set_nodelay(true)?;
        let (agent, place) = (self.agent.name.shared(), Arc::clone(place));
        count(&agent, Some(&place), "connected");
        let on_end = Box::new(move |sent, received| {
            // Released with the socket: what is counted is what is open.
            drop(permit);
            if let Some(charge) = charge {
                // There is nothing left of the connection that could be refused.
                let _ = charge.add_bytes(sent + received);
            }
            for (direction, bytes) in [("sent", sent), ("received", received)] {
                if bytes > 0 {
                    let labels = [
                        ("agent", agent.to_string()),
                        ("place", place.to_string()),
                        ("direction", direction.to_owned()),
                    ];
                    metrics::counter!("caxton_outgoing_bytes_total", &labels).increment(bytes);
                }
            }
        });
        TcpConnection::new(stream, &call.scope, on_end)
    }
}

/// Counts a connection that was made, or the error of one.
fn count(agent: &str, place: Option<&str>, result: &'static str) {
    // Without the target: what guests ask for is data, and no label.
    let labels =
        [("agent", agent.to_owned()), ("place", place.unwrap_or("none").to_owned()), ("result", result.to_owned())];
    metrics::counter!("caxton_outgoing_connections_total", &labels).increment(1);
}

/// Returns the error for a connection that was not made.
fn unconnected(error: &io::Error) -> TcpError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => TcpError::Refused,
        io::ErrorKind::TimedOut => TcpError::Timeout,
        _ => TcpError::Unreachable(error.to_string()),
    }
}

/// Returns `true` for an address that a connection can be made to at all.
pub(crate) fn is_reachable(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !is_broadcast
}
