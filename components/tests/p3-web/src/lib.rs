//! An HTTP agent of WASI 0.3 that carries out the action in the path, good or bad.
//!
//! | path | effect |
//! |---|---|
//! | `/ok` | status 200 and `ok` |
//! | `/upper` | the request's body in capitals, written while it is read |
//! | `/count` | the length of the request's body |
//! | `/trailers` | `ok`, and a trailer after it |
//! | `/length` | a body of 1,234 bytes with its length in the head, of which HEAD is given nothing |
//! | `/short` | a head that promises more than the body has |
//! | `/request` | what the guest sees of its request |
//! | `/sleep?MS` | waits so long before there is a response |
//! | `/together?MS` | waits so long ten times at once |
//! | `/loop`, `/loop-midway` | computes for ever, before or after the head |
//! | `/grow` | takes memory until it is refused, then traps |
//! | `/trap`, `/trap-midway` | traps before there is a response, or after its first part |
//! | `/error` | gives the host an error code instead of a response |
//! | `/wait` | waits for what never comes, with the head out |
//! | `/pour` | a body that never ends, until nobody reads it |
//! | `/hoard` | makes streams until it is refused |
//! | `/call?URL`, `/proxy?URL` | calls a server, and answers with what came of it, or passes its answer on |
//! | `/sent?URL` | sends the request's body there |
//! | `/visit` | adds one to the key `visits` and answers with it |
//! | `/late` | adds one to the key `late` when the head is out |
//! | `/fail` | adds one to the key `visits`, and answers with status 500 |
//! | `/supply` | the time and random numbers |
//! | `/say` | a line on stdout by the streams of WASI 0.3 |

use std::future::Future;

use wasip3::clocks::{monotonic_clock, system_clock};
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::wit_bindgen::{StreamReader, StreamResult, StreamWriter};
use wasip3::{wit_future, wit_stream};

use self::caxton::agent::state;

wit_bindgen::generate!({
    path: "../../../wit",
    inline: r#"
        package caxton:service;

        world effects {
            import caxton:agent/state@0.1.0;
        }
    "#,
    world: "caxton:service/effects",
    generate_all,
});

const LONG: usize = 1_234;
const PIECE: usize = 16 << 10;
const MILLISECOND: u64 = 1_000_000;

struct Agent;

wasip3::http::service::export!(Agent);

impl wasip3::exports::http::handler::Guest for Agent {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        Ok(match path {
            "/ok" => respond("ok"),
            "/upper" => upper(request),
            "/count" => respond(count(request).await.to_string()),
            "/trailers" => with_trailers(),
            "/length" => promised(LONG, if matches!(request.get_method(), Method::Head) { 0 } else { LONG }),
            "/short" => promised(LONG, LONG / 2),
            "/request" => respond(format!(
                "{:?} {:?} {:?} {}",
                request.get_method(),
                request.get_scheme(),
                request.get_authority(),
                request.get_headers().has("x-mine")
            )),
            "/sleep" => {
                monotonic_clock::wait_for(number(query) * MILLISECOND).await;
                respond("slept")
            }
            "/together" => {
                together(number(query)).await;
                respond("slept")
            }
            "/loop" => compute(),
            "/loop-midway" => stream(200, Fields::new(), |mut body| async move {
                body.write_all(b"begun".to_vec()).await;
                compute()
            }),
            "/grow" => {
                let mut taken = Vec::new();
                loop {
                    taken.push(std::hint::black_box(vec![1_u8; 1 << 20]));
                }
            }
            "/trap" => panic!("told to trap"),
            "/trap-midway" => stream(200, Fields::new(), |mut body| async move {
                body.write_all(b"begun".to_vec()).await;
                monotonic_clock::wait_for(MILLISECOND).await;
                panic!("told to trap midway")
            }),
            "/error" => return Err(ErrorCode::InternalError(Some(String::from("told to fail")))),
            "/wait" => stream(200, Fields::new(), |mut body| async move {
                body.write_all(b"begun".to_vec()).await;
                monotonic_clock::wait_for(u64::MAX).await;
            }),
            "/pour" => stream(200, Fields::new(), |mut body| async move {
                while body.write_all(vec![b'.'; PIECE]).await.is_empty() {}
            }),
            "/hoard" => {
                let mut held = Vec::new();
                loop {
                    held.push(wit_stream::new::<u8>());
                }
            }
            "/call" => call(query).await,
            "/proxy" => match client::send(get(query)).await {
                Ok(response) => pass_on(response),
                Err(code) => respond(format!("{code:?}")),
            },
            "/sent" => send(query, request).await,
            "/visit" => respond(visit("visits")),
            "/late" => stream(200, Fields::new(), |mut body| async move {
                // The host has the head only when the guest gives way.
                monotonic_clock::wait_for(MILLISECOND).await;
                body.write_all(format!("{:?}", state::increment("late", 1)).into_bytes()).await;
            }),
            "/fail" => {
                visit("visits");
                stream(500, Fields::new(), |_| async {})
            }
            "/supply" => respond(format!(
                "{} {} {:?}",
                system_clock::now().seconds,
                monotonic_clock::now(),
                wasip3::random::random::get_random_u64()
            )),
            "/say" => {
                let (mut out, reader) = wit_stream::new();
                let written = wasip3::cli::stdout::write_via_stream(reader);
                out.write_all(b"said by a stream\n".to_vec()).await;
                drop(out);
                respond(format!("{:?}", written.await))
            }
            _ => stream(404, Fields::new(), |_| async {}),
        })
    }
}

fn number(query: &str) -> u64 {
    query.parse().unwrap_or_default()
}

fn compute() -> ! {
    loop {
        std::hint::black_box(());
    }
}

fn visit(key: &str) -> String {
    state::increment(key, 1).expect("the host keeps state").to_string()
}

async fn together(milliseconds: u64) {
    let mut sleeps: Vec<_> = (0..10).map(|_| Box::pin(monotonic_clock::wait_for(milliseconds * MILLISECOND))).collect();
    std::future::poll_fn(|cx| {
        sleeps.retain_mut(|sleep| sleep.as_mut().poll(cx).is_pending());
        if sleeps.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}

/// A response whose body is written by a task after it was returned.
fn stream<F>(status: u16, headers: Fields, write: impl FnOnce(StreamWriter<u8>) -> F) -> Response
where
    F: Future<Output = ()> + 'static,
{
    let (writer, reader) = wit_stream::new();
    let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(reader), trailers_reader);
    response.set_status_code(status).expect("a status");
    let written = write(writer);
    wasip3::spawn(async move {
        written.await;
        drop(trailers);
    });
    response
}

fn respond(text: impl Into<String>) -> Response {
    let text = text.into();
    stream(200, Fields::new(), |mut body| async move {
        body.write_all(text.into_bytes()).await;
    })
}

fn promised(length: usize, written: usize) -> Response {
    let headers = Fields::new();
    headers.append("content-length", length.to_string().as_bytes()).expect("a header");
    stream(200, headers, move |mut body| async move {
        body.write_all(vec![b'x'; written]).await;
    })
}

fn with_trailers() -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
    let headers = Fields::new();
    headers.append("trailer", b"x-sum").expect("a header");
    let (response, _sent) = Response::new(headers, Some(reader), trailers_reader);
    wasip3::spawn(async move {
        writer.write_all(b"ok".to_vec()).await;
        drop(writer);
        let sums = Fields::new();
        sums.append("x-sum", b"2").expect("a trailer");
        let _ = trailers.write(Ok(Some(sums))).await;
    });
    response
}

fn body_of(request: Request) -> StreamReader<u8> {
    let (taken, taken_reader) = wit_future::new(|| Ok(()));
    let (body, _trailers) = Request::consume_body(request, taken_reader);
    drop(taken);
    body
}

async fn read(body: &mut StreamReader<u8>) -> Option<Vec<u8>> {
    match body.read(Vec::with_capacity(PIECE)).await {
        (StreamResult::Complete(_), piece) => Some(piece),
        (StreamResult::Dropped | StreamResult::Cancelled, piece) => Some(piece).filter(|piece| !piece.is_empty()),
    }
}

fn upper(request: Request) -> Response {
    let mut body = body_of(request);
    stream(200, Fields::new(), |mut out| async move {
        while let Some(mut piece) = read(&mut body).await {
            piece.make_ascii_uppercase();
            if !out.write_all(piece).await.is_empty() {
                return;
            }
        }
    })
}

async fn count(request: Request) -> usize {
    let mut body = body_of(request);
    let mut length = 0;
    while let Some(piece) = read(&mut body).await {
        length += piece.len();
    }
    length
}

/// A request for a URL such as `http://127.0.0.1:80/path`.
fn request(url: &str, method: &Method, content: Option<StreamReader<u8>>) -> Request {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (trailers, trailers_reader) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), content, trailers_reader, None);
    drop(trailers);
    request.set_method(method).expect("a method");
    request.set_scheme(Some(if scheme == "https" { &Scheme::Https } else { &Scheme::Http })).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).expect("a path");
    request
}

fn get(url: &str) -> Request {
    request(url, &Method::Get, None)
}

async fn call(url: &str) -> Response {
    match client::send(get(url)).await {
        Ok(response) => respond(answer(response).await),
        Err(code) => respond(format!("{code:?}")),
    }
}

async fn send(url: &str, from: Request) -> Response {
    match client::send(request(url, &Method::Post, Some(body_of(from)))).await {
        Ok(response) => respond(answer(response).await),
        Err(code) => respond(format!("{code:?}")),
    }
}

async fn answer(response: Response) -> String {
    let status = response.get_status_code();
    let (taken, taken_reader) = wit_future::new(|| Ok(()));
    let (mut body, _trailers) = Response::consume_body(response, taken_reader);
    drop(taken);
    let mut text = Vec::new();
    while let Some(piece) = read(&mut body).await {
        text.extend(piece);
    }
    format!("{status} {}", String::from_utf8_lossy(&text))
}

/// A response with the body of another, which the host passes on by itself.
fn pass_on(response: Response) -> Response {
    let (taken, taken_reader) = wit_future::new(|| Ok(()));
    let (body, trailers) = Response::consume_body(response, taken_reader);
    drop(taken);
    let (passed, _sent) = Response::new(Fields::new(), Some(body), trailers);
    passed
}
