//! The parts of a request's head that the host reads itself.

use std::collections::BTreeSet;
use std::time::Duration;

use caxton_control::Performative;
use caxton_control::desired::ErrorDetails;
use caxton_control::hosts;
use caxton_control::units::parse_duration;
use http::header::HOST;
use http::{HeaderMap, HeaderValue, Version, request};

use crate::problem::Problem;
use crate::telemetry::trace::Trace;

/// Headers of a request that a message agent gets under their own names. Credentials and cookies are left out: an agent
/// that needs them has to be an HTTP agent.
const PASSED: &[&str] = &[
    "accept",
    "accept-language",
    "content-encoding",
    "content-language",
    "idempotency-key",
    "traceparent",
    "tracestate",
];
/// The content type of a body whose request names none (RFC 9110, section 8.3).
const UNKNOWN_TYPE: &str = "application/octet-stream";
/// The longest deadline that a request may set, so that an entry of a waiting caller cannot stay for ever.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// The head of a request to a message agent.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) performative: Performative,
    pub(super) conversation: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) ontology: Option<String>,
    /// The time the caller waits for a reply, from `caxton-deadline`.
    pub(super) deadline: Option<Duration>,
    pub(super) content_type: String,
    /// The headers for the agent, from [`PASSED`].
    pub(super) agent_headers: Vec<(String, String)>,
}

/// Returns the trace that a request belongs to, and starts a new one if it names none or an invalid one.
pub(super) fn trace(headers: &HeaderMap) -> Trace {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text("traceparent").and_then(|parent| Trace::parse(parent, text("tracestate"))).unwrap_or_else(Trace::start)
}

/// Refuses a request whose `host` header is missing, repeated or invalid (RFC 9112, section 3.2).
pub(super) fn check_host(head: &request::Parts) -> Result<(), Problem> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(Problem::bad_request("the header host is there twice")),
        (Some(host), None) if host.as_bytes().iter().all(u8::is_ascii_graphic) => Ok(()),
        (Some(_), None) => Err(Problem::bad_request("the header host names no host")),
        // HTTP/1.0 does not have the header, and HTTP/2 has `:authority` in its place.
        (None, _) if head.version <= Version::HTTP_10 || head.uri.authority().is_some() => Ok(()),
        (None, _) => Err(Problem::bad_request("the header host is missing")),
    }
}

/// Refuses a request for a host name that is not in `http.hosts`.
pub(super) fn check_served(hosts: &BTreeSet<String>, head: &request::Parts) -> Result<(), Problem> {
    // Nearly always: without the setting no name is looked at.
    if hosts.is_empty() {
        return Ok(());
    }
    let named = head.headers.get(HOST).map(|host| host.to_str().unwrap_or_default());
    let target = head.uri.authority().map(http::uri::Authority::as_str);
    // Both, where there are two: an agent may read either.
    let (mut names, is_named) = (named.into_iter().chain(target), named.or(target).is_some());
    if is_named && names.all(|name| hosts::serves(hosts, name)) { Ok(()) } else { Err(Problem::of_code("wrong-host")) }
}

/// Reads the head of a request to a message agent. Unknown headers are ignored.
///
/// # Errors
/// `bad-request` for a header with an invalid value.
pub(super) fn read(headers: &HeaderMap) -> Result<RequestHead, Problem> {
    let mut head = RequestHead {
        performative: Performative::Request,
        conversation: None,
        protocol: None,
        ontology: None,
        deadline: None,
        content_type: String::new(),
        agent_headers: Vec::with_capacity(4),
    };
    for (name, value) in headers {
        let name = name.as_str();
        match name {
            "content-type" => text(name, value)?.clone_into(&mut head.content_type),
            "caxton-performative" => {
                let act = text(name, value)?;
                head.performative =
                    act.parse().map_err(|error| Problem::bad_request(format!("the header {name}: {error}")))?;
            }
            "caxton-conversation" => head.conversation = Some(text(name, value)?.to_owned()),
            "caxton-protocol" => head.protocol = Some(text(name, value)?.to_owned()),
            "caxton-ontology" => head.ontology = Some(text(name, value)?.to_owned()),
            "caxton-deadline" => head.deadline = Some(deadline(text(name, value)?)?),
            // Checked after the host's own headers, which are not passed on.
            _ if PASSED.contains(&name) => head.agent_headers.push((name.to_owned(), text(name, value)?.to_owned())),
            _ => {}
        }
    }
    if head.content_type.is_empty() {
        UNKNOWN_TYPE.clone_into(&mut head.content_type);
    }
    Ok(head)
}

fn text<'v>(name: &str, value: &'v HeaderValue) -> Result<&'v str, Problem> {
    value
        .to_str()
        .map_err(|_| Problem::bad_request(format!("the header {name} has other characters than those of ASCII")))
}

fn deadline(text: &str) -> Result<Duration, Problem> {
    let wrong = || {
        let hours = MAX_DEADLINE.as_secs() / 3_600;
        Problem::bad_request(format!(
            "the header caxton-deadline is `500ms`, `5s` and so on, up to {hours} hours; it is `{text}`"
        ))
    };
    let deadline = parse_duration(text).map_err(|_| wrong())?;
    // A deadline of zero could never be met.
    if deadline.is_zero() || deadline > MAX_DEADLINE { Err(wrong()) } else { Ok(deadline) }
}

/// Returns `true` if the response may carry error details of the agent (`http.details`). `local` says that the
/// connection comes from this machine. A reverse proxy on this machine connects locally too, so that a request with a
/// header of a proxy counts as remote.
pub(super) fn may_show_details(details: ErrorDetails, local: bool, headers: &HeaderMap) -> bool {
    match details {
        ErrorDetails::Always => true,
        ErrorDetails::Never => false,
        ErrorDetails::Loopback => local && !FORWARDED.iter().any(|name| headers.contains_key(*name)),
    }
}

/// Headers that proxies add to requests they forward.
const FORWARDED: [&str; 6] =
    ["forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::super::body::ReplyBody;
    use super::super::problem::{ProblemContext, respond};
    use super::*;

    fn headers(pairs: &[(&'static str, &[u8])]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap()))
            .collect()
    }

    fn detail(problem: Problem) -> String {
        let ReplyBody::Whole(body) = respond(problem, &ProblemContext::default()).into_body() else {
            panic!("no body")
        };
        let details: serde_json::Value = serde_json::from_slice(&body).unwrap();
        details["detail"].as_str().unwrap().to_owned()
    }

    #[test]
    fn request_heads_are_parsed() {
        let head = read(&headers(&[
            ("content-type", b"text/plain"),
            ("caxton-performative", b"query-ref"),
            ("caxton-conversation", b"c-1"),
            ("caxton-protocol", b"fipa-query"),
            ("caxton-ontology", b"tickets"),
            ("caxton-deadline", b"1500ms"),
            ("accept-language", b"de"),
            ("authorization", b"Bearer x"),
            ("cookie", b"a=b"),
        ]))
        .unwrap();
        assert_eq!(head.performative, Performative::QueryRef);
        assert_eq!(head.conversation.as_deref(), Some("c-1"));
        assert_eq!(head.protocol.as_deref(), Some("fipa-query"));
        assert_eq!(head.ontology.as_deref(), Some("tickets"));
        assert_eq!(head.deadline, Some(Duration::from_millis(1_500)));
        assert_eq!(head.content_type, "text/plain");
        assert_eq!(head.agent_headers, [("accept-language".to_owned(), "de".to_owned())]);

        let plain = read(&HeaderMap::new()).unwrap();
        assert_eq!((plain.performative, plain.content_type.as_str()), (Performative::Request, UNKNOWN_TYPE));
    }

    #[test]
    fn invalid_headers_are_refused() {
        let wrong = |text: &str| {
            format!("the header caxton-deadline is `500ms`, `5s` and so on, up to 24 hours; it is `{text}`")
        };
        for (name, value, expected) in [
            (
                "caxton-performative",
                "ask",
                "the header caxton-performative: no performative of FIPA00037 is called `ask`".to_owned(),
            ),
            ("caxton-deadline", "soon", wrong("soon")),
            ("caxton-deadline", "0s", wrong("0s")),
            ("caxton-deadline", "25h", wrong("25h")),
            (
                "caxton-conversation",
                "\u{fc}",
                "the header caxton-conversation has other characters than those of ASCII".to_owned(),
            ),
        ] {
            let problem = read(&headers(&[(name, value.as_bytes())])).unwrap_err();
            assert_eq!(detail(problem), expected, "{name}: {value}");
        }
    }

    #[test]
    fn ambiguous_host_headers_are_refused() {
        for (version, uri, hosts, expected) in [
            (Version::HTTP_11, "/", vec!["a.example"], None),
            (Version::HTTP_11, "/", vec![], Some("the header host is missing")),
            (Version::HTTP_10, "/", vec![], None),
            (Version::HTTP_2, "http://a.example/", vec![], None),
            (Version::HTTP_2, "/", vec![], Some("the header host is missing")),
            (Version::HTTP_11, "http://a.example/", vec!["b.example"], None),
            (Version::HTTP_11, "/", vec!["a.example", "b.example"], Some("the header host is there twice")),
            (Version::HTTP_11, "/", vec!["a b"], Some("the header host names no host")),
        ] {
            let mut request = http::Request::builder().version(version).uri(uri);
            for host in &hosts {
                request = request.header(HOST, *host);
            }
            let found = check_host(&request.body(()).unwrap().into_parts().0).err().map(detail);
            assert_eq!(found.as_deref(), expected, "{version:?} {uri} {hosts:?}");
        }
    }

    #[test]
    fn a_trace_is_continued_or_started() {
        let parent = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let taken = trace(&headers(&[("traceparent", parent), ("tracestate", b"a=b")]));
        assert_eq!((taken.to_string().as_bytes(), taken.state.as_deref()), (&parent[..], Some("a=b")));
        let begun = trace(&headers(&[("traceparent", b"00-nothing")]));
        assert_ne!(begun.id(), taken.id());
    }
}
