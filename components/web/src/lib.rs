//! An HTTP agent made for any host of `wasi:http`: it imports nothing of Caxton's and runs in `wasmtime serve`
//! as well. Bodies go through in constant memory, whatever their length.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | this list |
//! | `POST /upper` | the body with ASCII letters in upper case, as it arrives |
//! | `POST /echo` | the body as it is, as it arrives |
//! | `POST /sum` | `{"bytes": LENGTH, "sha256": HEX}` of the body |
//! | `GET /stream?bytes=N` | N bytes, in lines of 64 |
//! | `GET /headers` | method, path, query and headers of the request as JSON |
//! | `GET /wait?ms=N` | an answer after N milliseconds |
//! | `GET /status?code=N` | an empty answer with the status N |

use serde_json::json;
use sha2::{Digest, Sha256};
use wstd::http::body::{Body, Bytes, Frame};
use wstd::http::{BodyExt, Error, Method, Request, Response, StatusCode};
use wstd::time::Duration;

const HOME: &str =
    "POST /upper\nPOST /echo\nPOST /sum\nGET /stream?bytes=N\nGET /headers\nGET /wait?ms=N\nGET /status?code=N\n";
const LINE: &[u8; 64] = b"The quick brown fox jumps over the lazy dog, again and again ..\n";
/// The size of a chunk: large enough that the calls of the host do not show, small beside an instance's memory.
const CHUNK: usize = 16 * 1024;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/") => answer(StatusCode::OK, "text/plain", HOME),
        (&Method::POST, "/upper") => answer(StatusCode::OK, "text/plain", upper(request.into_body())),
        (&Method::POST, "/echo") => answer(StatusCode::OK, "application/octet-stream", request.into_body()),
        (&Method::POST, "/sum") => {
            let sum = sum(request.into_body()).await?;
            answer(StatusCode::OK, "application/json", sum)
        }
        (&Method::GET, "/stream") => match number(&request, "bytes") {
            Some(bytes) => answer(StatusCode::OK, "text/plain", stream(bytes)),
            None => bad_request("say how many bytes: /stream?bytes=1000"),
        },
        (&Method::GET, "/headers") => answer(StatusCode::OK, "application/json", describe(&request)),
        (&Method::GET, "/wait") => match number(&request, "ms") {
            Some(ms) => {
                wstd::task::sleep(Duration::from_millis(ms)).await;
                answer(StatusCode::OK, "text/plain", format!("waited {ms} ms\n"))
            }
            None => bad_request("say how long: /wait?ms=100"),
        },
        (&Method::GET, "/status") => {
            match number(&request, "code").and_then(|code| StatusCode::from_u16(u16::try_from(code).ok()?).ok()) {
                Some(code) => answer(code, "text/plain", ""),
                None => bad_request("say which status: /status?code=503"),
            }
        }
        (_, "/" | "/upper" | "/echo" | "/sum" | "/stream" | "/headers" | "/wait" | "/status") => {
            answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "this path takes another method\n")
        }
        (_, path) => answer(StatusCode::NOT_FOUND, "text/plain", format!("there is no {path} here\n")),
    }
}

fn answer(status: StatusCode, content_type: &str, body: impl Into<Body>) -> Result<Response<Body>, Error> {
    Ok(Response::builder().status(status).header("content-type", content_type).body(body.into())?)
}

fn bad_request(reason: &str) -> Result<Response<Body>, Error> {
    answer(StatusCode::BAD_REQUEST, "text/plain", format!("{reason}\n"))
}

/// Returns the number under this name in the query.
fn number(request: &Request<Body>, name: &str) -> Option<u64> {
    let pairs = request.uri().query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?.1.parse().ok()
}

fn upper(body: Body) -> Body {
    Body::from_http_body(body.into_boxed_body().map_frame(|frame| {
        frame.map_data(|data| {
            let mut letters = Vec::from(data);
            letters.make_ascii_uppercase();
            Bytes::from(letters)
        })
    }))
}

async fn sum(body: Body) -> Result<String, Error> {
    let mut body = body.into_boxed_body();
    let (mut bytes, mut hash) = (0_u64, Sha256::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes += data.len() as u64;
            hash.update(&data);
        }
    }
    let sha256: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(json!({ "bytes": bytes, "sha256": sha256 }).to_string())
}

fn stream(bytes: u64) -> Body {
    let lines = Bytes::from(LINE.repeat(CHUNK / LINE.len()));
    let chunks = Chunks { left: bytes, lines };
    Body::from_http_body(chunks)
}

/// Returns a body of this many bytes, all of them slices of the same lines.
struct Chunks {
    left: u64,
    lines: Bytes,
}

impl wstd::http::body::HttpBody for Chunks {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.left == 0 {
            return std::task::Poll::Ready(None);
        }
        let length = self.left.min(self.lines.len() as u64);
        self.left -= length;
        let chunk = self.lines.slice(..usize::try_from(length).expect("no longer than the lines"));
        std::task::Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

fn describe(request: &Request<Body>) -> String {
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    json!({
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "query": request.uri().query(),
        "authority": request.uri().authority().map(|authority| authority.as_str()),
        "scheme": request.uri().scheme_str(),
        "headers": headers,
    })
    .to_string()
}
