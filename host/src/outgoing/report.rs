//! The report of a call: metrics of each, and the problem of one that was refused or failed.

use std::sync::Arc;

use http::Uri;
use http::header::CONTENT_TYPE;
use metrics::SharedString;
use tokio::time::Instant;

use super::request_body::Upload;
use crate::bounds;
use crate::budgets::CallCharge;
use crate::message::HttpCallError;

/// A call that was refused or failed.
#[derive(Debug, Clone)]
pub(crate) struct CallProblem {
    /// The place; `None` if no grant covers the call.
    pub(crate) place: Option<Arc<str>>,
    /// The scheme, host and port. The path and the query may contain secrets.
    pub(crate) origin: String,
    /// The method.
    pub(crate) method: String,
    /// The error.
    pub(crate) error: HttpCallError,
    /// The reason, with the setting that would allow the call if there is one.
    pub(crate) reason: String,
}

/// What the journal has to tell of a call.
#[derive(Debug, Clone)]
pub(crate) struct CallNote {
    /// The place.
    pub(crate) place: Arc<str>,
    /// The method, and scheme, host and port.
    pub(crate) line: String,
    /// The kind.
    pub(crate) kind: NoteKind,
}

/// A kind of note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoteKind {
    /// The call was answered from the record.
    Answered,
    /// An earlier run asked for something else, and the call is made.
    Diverged,
    /// The outcome of the call is not known, and it is made again.
    Repeated,
    /// The outcome of the call is not known, and the message is given up.
    Unknown,
}

impl NoteKind {
    /// Returns the name in metrics and events.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Diverged => "diverged",
            Self::Repeated => "repeated",
            Self::Unknown => "unknown",
        }
    }
}

/// Gets the notes of one call.
pub(crate) type OnNote = Arc<dyn Fn(&CallNote) + Send + Sync>;

/// Gets each problem of one call.
pub(crate) type OnProblem = Arc<dyn Fn(&CallProblem) + Send + Sync>;

/// The record of a call, which counts it when it is dropped.
pub(super) struct CallRecord {
    agent: Arc<str>,
    /// The place by its URL.
    place: Arc<str>,
    origin: String,
    method: String,
    began: Instant,
    upload: Option<Arc<Upload>>,
    /// The call in the budget of its tree, which is settled with the record.
    charge: Option<Arc<CallCharge>>,
    received: u64,
    /// The class of the status, or the code of the error.
    result: &'static str,
    on_problem: OnProblem,
    /// The reason for an error whose text alone does not name the setting.
    most: (u64, u64),
}

impl CallRecord {
    /// Begins a record. `most` are the bounds of the two bodies.
    pub(super) fn new(
        (agent, place): (Arc<str>, Arc<str>),
        (method, origin): (String, String),
        most: (u64, u64),
        on_problem: OnProblem,
    ) -> Self {
        Self {
            agent,
            place,
            origin,
            method,
            began: Instant::now(),
            upload: None,
            charge: None,
            received: 0,
            // Of a call that its guest gave up before an answer.
            result: "given-up",
            on_problem,
            most,
        }
    }

    /// Counts what is sent, too, and what the call takes from a budget.
    pub(super) fn follow(&mut self, upload: Arc<Upload>, charge: Option<Arc<CallCharge>>) {
        (self.upload, self.charge) = (Some(upload), charge);
    }

    /// Counts a part of the response.
    ///
    /// # Errors
    /// The budget has not so many bytes left.
    pub(super) fn note_received(&mut self, data: &[u8]) -> Result<(), HttpCallError> {
        self.received += data.len() as u64;
        let Some(charge) = &self.charge else { return Ok(()) };
        // First: the part has come, and may have the figure.
        charge.read(data);
        charge.add_bytes(data.len() as u64).map_err(|over| HttpCallError::OverBudget(over.to_string()))
    }

    /// Notes the head of the response.
    pub(super) fn answered<B>(&mut self, response: &http::Response<B>) {
        if let Some(charge) = &self.charge {
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            let kind = kind.split(';').next().unwrap_or_default().trim();
            charge.begin_response(kind.eq_ignore_ascii_case("text/event-stream"));
        }
        self.result = match response.status().as_u16() {
            0..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
    }

    /// Notes and reports an error.
    pub(super) fn fail(&mut self, error: &HttpCallError) {
        self.result = error.code();
        if let Some(charge) = self.charge.as_ref().filter(|_| error.is_before_sending()) {
            charge.never_left();
        }
        (self.on_problem)(&CallProblem {
            place: Some(Arc::clone(&self.place)),
            origin: self.origin.clone(),
            method: self.method.clone(),
            error: error.clone(),
            reason: self.reason(error),
        });
    }

    /// Returns the reason of an error, with the setting that it is about.
    fn reason(&self, error: &HttpCallError) -> String {
        let help = match error {
            HttpCallError::AddressProhibited => {
                format!(
                    "the host of `{}` has no address that it may have; `private = true` allows those of this machine \
                         and of private networks",
                    self.place
                )
            }
            HttpCallError::TooManyCalls => "no other call ended in time (outgoing.calls)".to_owned(),
            HttpCallError::DnsTimeout | HttpCallError::ConnectionTimeout => {
                format!("{error} (outgoing.connect-timeout, or what the agent asks for)")
            }
            HttpCallError::ReadTimeout => {
                format!("{error} (outgoing.first-byte-timeout, outgoing.stall-timeout, or what the agent asks for)")
            }
            HttpCallError::WriteTimeout => format!("{error} (outgoing.stall-timeout)"),
            HttpCallError::RequestTooLarge(_) => {
                format!("its body has more than {} bytes (outgoing.max-request-body)", self.most.0)
            }
            HttpCallError::ResponseTooLarge(_) => {
                format!("the response has more than {} bytes (outgoing.max-response-body)", self.most.1)
            }
            HttpCallError::TimeOver => format!("{error} (limits.time)"),
            other => other.to_string(),
        };
        format!("{help} ({})", error.code())
    }
}

/// Counts a call that was refused before it began.
pub(super) fn count_refusal(agent: &str, place: Option<&str>, code: &'static str) {
    // Without the URL: what guests ask for is data, and no label.
    let labels =
        [("agent", agent.to_owned()), ("place", place.unwrap_or("none").to_owned()), ("result", code.to_owned())];
    metrics::counter!("caxton_outgoing_calls_total", &labels).increment(1);
}

/// Returns scheme, host and port of a URI. The path, the query and a user may contain secrets.
pub(super) fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or_default();
    bounds::cut(format!("{}://{host}", uri.scheme_str().unwrap_or("http")), bounds::QUOTED)
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        // Not with the last of its handles: the connection may have the request a moment longer.
        self.charge.iter().for_each(|charge| charge.settle());
        // Shared and not copied: three or four metrics of each call have them.
        let agent = ("agent", SharedString::from_shared(Arc::clone(&self.agent)));
        let place = ("place", SharedString::from_shared(Arc::clone(&self.place)));
        let labels = |name, value| [agent.clone(), place.clone(), (name, SharedString::const_str(value))];
        metrics::counter!("caxton_outgoing_calls_total", &labels("result", self.result)).increment(1);
        let seconds = metrics::histogram!("caxton_outgoing_seconds", &[agent.clone(), place.clone()]);
        seconds.record(self.began.elapsed().as_secs_f64());
        let sent = self.upload.as_ref().map_or(0, |upload| upload.sent());
        for (direction, bytes) in [("sent", sent), ("received", self.received)] {
            // Most calls have one body at most.
            if bytes > 0 {
                metrics::counter!("caxton_outgoing_bytes_total", &labels("direction", direction)).increment(bytes);
            }
        }
    }
}
