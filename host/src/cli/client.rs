//! The way to a host: its management API.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

use super::options::HostArgs;
use super::output::{CliError, Exit, printable};
use super::sse;
use super::tls;
use crate::admin::{CLI_AGENT, ProblemDetails, TOKEN_FILE, read_token};
use crate::host::HOST_FILE;

/// The timeout of connecting. The host is on this machine or at the other end of a tunnel.
const CONNECT: Duration = Duration::from_secs(5);
/// The bound of a response in bytes, which no path of the API exceeds.
const MAX_ANSWER: usize = 256 << 20;

/// A client of a host's management API.
pub(super) struct Client {
    http: Http<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// The base of all URLs, such as `https://127.0.0.1:8081`.
    base: String,
    token: String,
    /// A suggestion for a host that does not answer.
    hint: String,
}

/// The file in which a host records its address.
#[derive(Debug, serde::Deserialize)]
pub(super) struct HostFile {
    /// The address of the management API.
    pub(super) admin: String,
    /// The process id.
    pub(super) pid: u32,
    /// The fingerprint of the API's certificate; `None` for plain HTTP.
    #[serde(default)]
    pub(super) admin_certificate: Option<String>,
}

impl HostFile {
    /// Returns the base of the API's URLs.
    fn base(&self) -> Result<String, CliError> {
        let scheme = if self.admin_certificate.is_some() { "https" } else { "http" };
        let address = match self.admin.parse::<SocketAddr>() {
            // An address to listen on and not to connect to.
            Ok(SocketAddr::V4(address)) if address.ip().is_unspecified() => {
                SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())).to_string()
            }
            Ok(SocketAddr::V6(address)) if address.ip().is_unspecified() => {
                SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())).to_string()
            }
            Ok(_) | Err(_) => self.admin.clone(),
        };
        base(&format!("{scheme}://{address}"))
    }
}

/// Reads the file of the host on a data folder; `None` if there is none.
pub(super) fn host_file(data: &Path) -> Result<Option<HostFile>, CliError> {
    let path = data.join(HOST_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| {
            let message = format!("{} does not say where a host is: {error}; start the host again", path.display());
            CliError::new(Exit::Failed, message)
        }),
        // No host has run on this folder, or the last one stopped in order and removed its file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::new(Exit::Failed, format!("{}: {error}", path.display()))),
    }
}

impl Client {
    /// Finds the host and its token.
    pub(super) fn find(args: &HostArgs) -> Result<Self, CliError> {
        let failed = |message: String| CliError::new(Exit::Failed, message);
        let mut pinned = None;
        let (base, hint) = match &args.admin {
            Some(url) => (base(url)?, "is it the address of a host's management API?".to_owned()),
            None => {
                let found = host_file(&args.data)?.ok_or_else(|| {
                    failed(format!(
                        "no host runs here ({} is not there); start one with `caxton up`, or say where it is with `--data DIR` or `--admin URL`",
                        args.data.join(HOST_FILE).display()
                    ))
                })?;
                let hint = format!(
                    "if process {} has ended, start a host with `caxton up`; else say where it is with `--data DIR` or `--admin URL`",
                    found.pid
                );
                pinned.clone_from(&found.admin_certificate);
                (found.base()?, hint)
            }
        };
        // The token is read even with `--admin`: the API has no access without it.
        let file = args.token_file.clone().unwrap_or_else(|| args.data.join(TOKEN_FILE));
        let token = read_token(&file).map_err(|error| failed(format!("{error}; `--token-file FILE` names another")))?;
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(CONNECT));
        // Requests are written at once; Nagle's algorithm would only delay them.
        tcp.set_nodelay(true);
        // The schemes are told apart by the connector around it.
        tcp.enforce_http(false);
        let tls = if base.starts_with("https:") { tls::config(args, pinned)? } else { tls::unused() };
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let connector = connector.enable_http1().wrap_connector(tcp);
        Ok(Self { http: Http::builder(TokioExecutor::new()).build(connector), base, token, hint })
    }

    /// Requests a path with GET.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.json(Method::GET, path).await
    }

    /// Requests a path and parses the response.
    pub(super) async fn json<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, CliError> {
        let response = self.send(method, path, None, Bytes::new()).await?;
        parse(&response.into_body())
    }

    /// Sends a request and reads the whole response. A problem response is an error.
    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Bytes>, CliError> {
        let response = self.begin(method, path, content_type, body).await?;
        let (head, body) = response.into_parts();
        let body = collect(body).await?;
        if !head.status.is_success() {
            return Err(problem(head.status, &body));
        }
        Ok(Response::from_parts(head, body))
    }

    /// Sends a request and passes the response on in chunks, until it ends or `take` fails.
    pub(super) async fn download(
        &self,
        method: Method,
        path: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let response = self.begin(method, path, None, Bytes::new()).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(problem(status, &collect(response.into_body()).await?));
        }
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            // A response that is shorter than announced is an error, too.
            let frame = frame.map_err(broken_off)?;
            if let Some(data) = frame.data_ref() {
                take(data)?;
            }
        }
        Ok(())
    }

    /// Follows a stream of server-sent events until it ends or `take` fails.
    pub(super) async fn follow(
        &self,
        path: &str,
        mut take: impl FnMut(sse::Frame) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let response = self.begin(Method::GET, path, None, Bytes::new()).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(problem(status, &collect(response.into_body()).await?));
        }
        let mut body = response.into_body();
        let mut reader = sse::SseReader::default();
        while let Some(frame) = body.frame().await {
            // A host that ends cuts the stream, which is its regular end.
            let Ok(frame) = frame else { break };
            for event in frame.data_ref().map(|data| reader.read(data)).unwrap_or_default() {
                take(event)?;
            }
        }
        Ok(())
    }

    async fn begin(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        body: Bytes,
    ) -> Result<Response<Incoming>, CliError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            // The host records commands of this program as `cli:` in its events.
            .header(USER_AGENT, format!("{CLI_AGENT}/{}", env!("CARGO_PKG_VERSION")));
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Full::new(body))
            .map_err(|error| CliError::new(Exit::Usage, format!("the request cannot be made: {error}")))?;
        self.http.request(request).await.map_err(|error| {
            if let Some(why) = tls::explain(&error) {
                return CliError::new(Exit::Failed, format!("the host at {}: {why}", self.base));
            }
            // A refused connection means that no host is there; anything else, that it ended meanwhile.
            let why = if error.is_connect() { "does not answer" } else { "broke off" };
            // The error of the client itself says only that the connection failed.
            let source = std::error::Error::source(&error).map(|source| format!(" ({source})")).unwrap_or_default();
            CliError::new(Exit::Failed, format!("the host at {} {why}{source}; {}", self.base, self.hint))
        })
    }
}

/// Returns scheme, host and port of an address as people write it.
fn base(url: &str) -> Result<String, CliError> {
    let wrong = |why: &str| {
        let message = format!(
            "`{url}` is not the address of a management API: {why}; it looks like http://127.0.0.1:8081 or https://host.example:8081"
        );
        CliError::new(Exit::Usage, message)
    };
    // `127.0.0.1:8081` alone parses as a URI with a scheme.
    let full = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = full.parse().map_err(|error| wrong(&format!("{error}")))?;
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority)) if uri.path() == "/" => {
            Ok(format!("{scheme}://{authority}"))
        }
        (Some("http" | "https"), Some(_)) => Err(wrong("it has a path")),
        _ => Err(wrong("it is no http address")),
    }
}

async fn collect(body: Incoming) -> Result<Bytes, CliError> {
    // Another program at this address could send without end.
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    Ok(body.map_err(broken_off)?.to_bytes())
}

fn broken_off(error: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Failed, format!("the host broke off its answer: {error}"))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, CliError> {
    // Unknown members are ignored, so that only a missing or changed one fails.
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("the answer is not what this version expects ({error}); is the host of another version?");
        CliError::new(Exit::Failed, message)
    })
}

/// Converts a problem response to the error of a command.
fn problem(status: StatusCode, body: &[u8]) -> CliError {
    // Exit codes follow the status, so that scripts need not parse messages.
    let exit = match status {
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::CONFLICT => Exit::Conflict,
        StatusCode::GATEWAY_TIMEOUT => Exit::Timeout,
        StatusCode::BAD_REQUEST => Exit::Usage,
        _ => Exit::Failed,
    };
    // Another program may listen on the port of a host that has ended.
    let Ok(details) = serde_json::from_slice::<ProblemDetails>(body) else {
        // As a port with TLS answers a request without it.
        let words = std::str::from_utf8(body).ok().filter(|text| status == 400 && text.len() < 200);
        let words = words.map_or_else(String::new, |text| format!(" (`{}`)", printable(text.trim())));
        let message =
            format!("the answer is {status}{words}, and not a host's; is it the address of a management API?");
        return CliError::new(exit, message);
    };
    // A file with errors or an unusable component is a fault of the input, wherever it was read.
    let given = !details.errors.is_empty() || details.code == "component-unusable";
    let exit = if given { Exit::Usage } else { exit };
    let mut message = printable(&details.detail);
    for error in &details.errors {
        message.push_str(&format!("\n  {error}"));
        if let Some(help) = &error.help {
            message.push_str(&format!("\n    {help}"));
        }
    }
    if let Some(words) = &details.stderr {
        message.push_str("\n  it said on stderr:");
        printable(words).lines().for_each(|line| message.push_str(&format!("\n    {line}")));
    }
    if let (Some(agent), Some(id)) = (&details.agent, &details.message_id) {
        message.push_str(&format!("\n  this was message {id}; `caxton logs {agent}` tells more"));
    }
    CliError::new(exit, message).with_details(serde_json::to_value(&details).unwrap_or_default())
}

/// Percent-encodes a part of a path or query, except for unreserved characters (RFC 3986, section 2.3).
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Builds a query of the pairs that have a value.
pub(super) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let given = pairs.iter().filter_map(|(name, value)| value.map(|value| format!("{name}={}", encode(value))));
    let query = given.collect::<Vec<_>>().join("&");
    if query.is_empty() { query } else { format!("?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed() {
        for (url, expected) in [
            ("http://127.0.0.1:8081", Some("http://127.0.0.1:8081")),
            ("http://localhost:1/", Some("http://localhost:1")),
            ("127.0.0.1:8081", Some("http://127.0.0.1:8081")),
            ("[::1]:8081", Some("http://[::1]:8081")),
            ("https://host.example:8081", Some("https://host.example:8081")),
            ("https://127.0.0.1/v1", None),
            ("http://127.0.0.1/v1", None),
            ("ftp://a", None),
            ("", None),
        ] {
            assert_eq!(base(url).ok().as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn paths_and_queries_are_encoded() {
        assert_eq!(encode("a/b ü~"), "a%2Fb%20%C3%BC~");
        assert_eq!(query(&[("a", Some("x&y")), ("b", None), ("c", Some("1"))]), "?a=x%26y&c=1");
        assert_eq!(query(&[("b", None)]), "");
    }

    #[test]
    fn stderr_of_guests_is_shown_with_a_hint() {
        let details = r#"{"title":"Internal Server Error","status":500,"code":"trap","detail":"trapped: unreachable",
            "agent":"crust","message_id":"m-1","stderr":"panicked at src/lib.rs:3:5:\nno\u001b[2J","trace_id":"t"}"#;
        let error = problem(StatusCode::INTERNAL_SERVER_ERROR, details.as_bytes());
        let expected = "trapped: unreachable\n  it said on stderr:\n    panicked at src/lib.rs:3:5:\n    no\\u{1b}[2J\n  \
                        this was message m-1; `caxton logs crust` tells more";
        assert_eq!((error.exit, error.message.as_deref()), (Exit::Failed, Some(expected)));
    }

    #[test]
    fn problems_become_messages_and_exit_codes() {
        let details = r#"{"title":"Conflict","status":409,"code":"file-errors","detail":"the file has 1 errors",
            "errors":[{"code":"unknown-key","place":"caxton.toml:2:1","key":"agnts","message":"unknown key","help":"did you mean `agents`?"}]}"#;
        let error = problem(StatusCode::CONFLICT, details.as_bytes());
        assert_eq!(error.exit, Exit::Usage);
        assert_eq!(
            error.message.as_deref(),
            Some("the file has 1 errors\n  caxton.toml:2:1: agnts: unknown key\n    did you mean `agents`?")
        );
        for (status, exit) in [(404, Exit::NotFound), (504, Exit::Timeout), (503, Exit::Failed), (400, Exit::Usage)] {
            let error = problem(StatusCode::from_u16(status).unwrap(), b"<html>");
            assert_eq!(error.exit, exit);
            assert!(error.message.unwrap().contains("is it the address of a management API?"));
        }
    }
}
