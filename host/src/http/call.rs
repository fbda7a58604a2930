//! A request on its way to an agent, and the response on its way back.

use std::sync::Arc;
use std::time::Instant;

use caxton_control::desired::ResponseMode;
use caxton_control::names::BudgetName;
use caxton_control::template::Template;
use http::{Response, request};

use super::body::ReplyBody;
use super::callers::RouteCaller;
use crate::agent::{Agent, Revision};
use crate::net::ClientBody;
use crate::problem::Problem;
use crate::telemetry::trace::Trace;

/// A request whose route and agent have been found.
pub(super) struct Call {
    pub(super) head: request::Parts,
    pub(super) body: ClientBody,
    pub(super) agent: Arc<Agent>,
    pub(super) revision: Arc<Revision>,
    pub(super) mode: ResponseMode,
    /// The pattern of the route as declared.
    pub(super) route: String,
    /// The values of the route's parameters, still percent-encoded.
    pub(super) params: Vec<(String, String)>,
    /// The template of the conversation id, for a route that declares one.
    pub(super) conversation: Option<Arc<Template>>,
    /// The budget that the route names.
    pub(super) budget: Option<BudgetName>,
    /// Set if an HTTP agent gets the request before its body has come (`stream`).
    pub(super) streams: bool,
    pub(super) caller: RouteCaller,
    pub(super) trace: Trace,
}

impl Call {
    /// Returns the conversation that the request names by the template of its route or by the `caxton-conversation`
    /// header.
    ///
    /// # Errors
    /// `bad-request` if a header that the template needs is missing.
    pub(super) fn conversation(&self) -> Result<Option<String>, Problem> {
        let header = |name: &str| self.head.headers.get(name).and_then(|value| value.to_str().ok());
        let Some(template) = &self.conversation else {
            return Ok(header("caxton-conversation").map(str::to_owned));
        };
        let param = |name: &str| self.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        template.fill(param, header).map(Some).map_err(|missing| {
            Problem::bad_request(format!("the header {missing} names the conversation of this route, and is missing"))
        })
    }
}

/// A response and the deadline of its body.
pub(super) struct HttpReply {
    pub(super) response: Response<ReplyBody>,
    /// The time by which a streamed body has to be complete; `None` for a body that is in memory.
    pub(super) deadline: Option<Instant>,
}

impl From<Response<ReplyBody>> for HttpReply {
    fn from(response: Response<ReplyBody>) -> Self {
        Self { response, deadline: None }
    }
}
