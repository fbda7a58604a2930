//! A small blocking client over real sockets.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Runtime;

/// A client of one address. Keeps connections open.
pub struct Client {
    address: String,
    token: Option<String>,
    pool: Pool<HttpConnector, Full<Bytes>>,
    runtime: Runtime,
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Reply {
    /// The response's status.
    pub status: StatusCode,
    /// The response's headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Reply {
    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.text()))
    }

    /// Returns a header as text; empty if it is missing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

impl Client {
    /// Creates a client of `address`, with a token if one is needed.
    pub fn new(address: &str, token: Option<&str>) -> Self {
        // A runtime of its own, so that tests need not be async and may use a client in any thread.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let pool = Pool::builder(TokioExecutor::new()).build_http();
        Self { address: address.to_owned(), token: token.map(str::to_owned), pool, runtime }
    }

    /// Creates a client that speaks HTTP/2 from its first byte.
    pub fn http2(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let pool = Pool::builder(TokioExecutor::new()).http2_only(true).build_http();
        Self { address: address.to_owned(), token: None, pool, runtime }
    }

    /// Gets a path.
    pub fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], Bytes::new())
    }

    /// Posts a body.
    pub fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Method::POST, path, &[], body)
    }

    /// Sends a request and reads the whole response.
    pub fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        self.try_send(method, path, headers, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Sends a request where the connection may break.
    ///
    /// # Errors
    /// There was no whole response.
    pub fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Reply, String> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body.into())).map_err(|error| error.to_string())?;
        self.runtime.block_on(async {
            let response = self.pool.request(request).await.map_err(|error| format!("{error:?}"))?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
            Ok(Reply { status: parts.status, headers: parts.headers, body })
        })
    }
}
