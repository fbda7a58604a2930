//! Tests of the whole API, on a real store, with a reconciler that answers as the test tells it to.

mod access;
mod contents;
mod document;
mod follow;
mod probes;

use std::collections::BTreeSet;
use std::future::IntoFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::MethodFilter;
use caxton_control::Desired;
use caxton_control::access::{Role, admin_routes, role_of};
use caxton_control::desired::Durability;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::extract::MAX_BODY;
use super::router::{api_routes, open_routes, probes_router, router};
use super::*;
use crate::access::{Access, TOKEN_FILE, read_token};
use crate::agent::Agent;
use crate::api_types::tests::{agent, host};
use crate::api_types::{ApplyResult, FileError, PlannedChange, RehearsalError};
use crate::context::HostContext;
use crate::conversation::Conversations;
use crate::directory::HostDirectory;
use crate::directory::routes::Routes;
use crate::logs::Line;
use crate::reconcile::handle::{AgentSelection, Readiness, ReconcilerHandle, Request as ReconcilerRequest};
use crate::store::Store;

/// Starts an API with one agent, `echo`, without a running revision.
pub(crate) struct Bench {
    pub(crate) context: Arc<HostContext>,
    pub(crate) directory: Arc<HostDirectory>,
    token: String,
    router: Router,
    api: Api,
    pub(crate) stop: CancellationToken,
    ready: watch::Sender<Readiness>,
    folder: tempfile::TempDir,
}

/// The reconciler's answer about the file.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum File {
    Good,
    Bad,
    /// A request that never answers.
    Slow,
}

fn declared() -> Desired {
    let text = "caxton = 1\n[agents.echo]\ncomponent = \"echo.wasm\"\nmailbox = { depth = 2 }\nlimits = { message = \"10B\", state = \"1KiB\" }\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("caxton.toml");
    std::fs::write(&path, text).unwrap();
    crate::config::load(&path, std::iter::empty(), &[]).unwrap().desired
}

fn file_error() -> FileError {
    FileError {
        code: "unknown-key".to_owned(),
        place: "caxton.toml:2:1".to_owned(),
        key: "agnts".to_owned(),
        message: "unknown key".to_owned(),
        help: Some("did you mean `agents`?".to_owned()),
    }
}

async fn answer(mut commands: mpsc::Receiver<ReconcilerRequest>, file: File) {
    let change = || PlannedChange {
        agent: Some("echo".to_owned()),
        change: "add".to_owned(),
        details: vec!["a: 1 -> 2".to_owned()],
    };
    let mut held = Vec::new();
    // The caller may be gone.
    while let Some(command) = commands.recv().await {
        match (command, file) {
            (ReconcilerRequest::Apply(answer), File::Slow) => held.push(answer),
            (ReconcilerRequest::Apply(answer), File::Bad) => drop(answer.send(Err(vec![file_error()]))),
            (ReconcilerRequest::Apply(answer), File::Good) => {
                drop(answer.send(Ok(ApplyResult { changes: vec![change()], waiting: Vec::new(), settled: true })));
            }
            (ReconcilerRequest::Reload(answer), _) => drop(answer.send(Err(vec![file_error()]))),
            (ReconcilerRequest::Diff(answer), File::Bad) => drop(answer.send(Err(vec![file_error()]))),
            (ReconcilerRequest::Diff(answer), _) => drop(answer.send(Ok(vec![change()]))),
            (ReconcilerRequest::Status(answer), _) => drop(answer.send(host())),
            (ReconcilerRequest::Rollouts(_, answer), _) => drop(answer.send(Vec::new())),
            (ReconcilerRequest::Rollout(wish, answer), _) => drop(answer.send(Err(format!("no {:?}", wish.command)))),
            (ReconcilerRequest::Rehearse(wish, answer), _) => {
                drop(answer.send(Err(RehearsalError::Component(format!("{} bytes", wish.component.len())))));
            }
            (ReconcilerRequest::Agents(AgentSelection::After { .. }, answer), _) => {
                drop(answer.send(vec![agent("echo"), agent("triage")]));
            }
            (ReconcilerRequest::Agents(AgentSelection::Named(name), answer), _) => {
                let known = ["echo", "triage"].contains(&name.as_str());
                drop(answer.send(known.then(|| agent(&name)).into_iter().collect()));
            }
        }
    }
}

impl Bench {
    pub(crate) fn new(file: File) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store =
            Store::open(folder.path(), &crate::store::tests::settings(Durability::Os), Conversations::load).unwrap();
        let context = HostContext::new(store, tokio::runtime::Handle::current());
        let directory = HostDirectory::new(Arc::clone(&context)).unwrap();
        let echo = Agent::new(Arc::clone(&declared().agents["echo"]), Arc::clone(&directory) as _);
        directory.routes.store(Arc::new(Routes::new(&[(echo.name().clone(), echo)].into())));
        let (sender, commands) = mpsc::channel(8);
        let (ready, readiness) = watch::channel(Readiness::default());
        let control = ReconcilerHandle::new(sender, readiness);
        tokio::spawn(answer(commands, file));
        let metrics = crate::telemetry::metrics::install();
        let access = Arc::new(Access::open(folder.path(), folder.path(), 1 << 20).unwrap());
        let state = AdminState::new(control, Arc::clone(&directory), metrics, access, folder.path());
        let token = read_token(&folder.path().join(TOKEN_FILE)).unwrap();
        let stop = CancellationToken::new();
        let api = Api::new(state, stop.clone());
        Self { context, directory, token, router: router(api.clone(), false), api, stop, ready, folder }
    }

    /// Serves the API on a free port, and writes its address to the data folder, which it returns.
    pub(crate) async fn serve(&self) -> PathBuf {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let text = json!({ "http": "127.0.0.1:1", "admin": listener.local_addr().unwrap(), "pid": 1 }).to_string();
        std::fs::write(self.folder.path().join(crate::host::HOST_FILE), text).unwrap();
        let serving = axum::serve(listener, self.router.clone());
        tokio::spawn(serving.with_graceful_shutdown(self.stop.clone().cancelled_owned()).into_future());
        self.folder.path().to_owned()
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.token))
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        Answer { status: head.status.as_u16(), headers: head.headers, body: to_bytes(body, 1 << 20).await.unwrap() }
    }

    async fn ask(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        self.send(self.request(method, path).body(body.into()).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    /// Sends a request with another token than the host's own.
    async fn ask_with(&self, token: &str, method: &str, path: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("authorization", format!("Bearer {token}"));
        self.send(request.body(Body::empty()).unwrap()).await
    }
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: bytes::Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test]
async fn errors_are_problem_details_with_the_callers_trace() {
    let bench = Bench::new(File::Good);
    let request = bench
        .request("GET", "/v1/agents/trige")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .body(Body::empty())
        .unwrap();
    let answer = bench.send(request).await;
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(
        answer.json(),
        json!({
            "title": "Not Found",
            "status": 404,
            "code": "no-agent",
            "detail": "there is no agent `trige`; did you mean `triage`?",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        })
    );
    for (method, path, status, code, detail) in [
        ("POST", "/v1/host", 405, "wrong-method", "does not take POST"),
        ("GET", "/v1/agents/%ff", 400, "bad-request", "UTF-8"),
        ("GET", "/v1/events?folow=true", 400, "bad-request", "no key `folow`; it has agent, after, limit, follow"),
        ("GET", "/v1/host?verbose", 400, "bad-request", "this path has no keys, and so not `verbose`"),
        ("GET", "/v1/agents/echo/state/a?tll=1s", 400, "bad-request", "`tll`"),
        ("GET", "/v1/events?limit=0", 400, "bad-request", "between 1 and 1000"),
        ("POST", "/v1/agents/echo/invoke?performative=ask", 400, "bad-request", "called `ask`"),
        ("POST", "/v1/agents/echo/invoke?timeout=2h", 400, "bad-request", "between 1ms and 1h"),
        ("POST", "/v1/agents/triage/invoke", 503, "unavailable", "`triage` does not run"),
    ] {
        let answer = bench.ask(method, path, "").await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(detail), "{}", answer.json());
    }
    let answer = bench.ask("POST", "/v1/host", "").await;
    assert_eq!(answer.headers["allow"], "GET,HEAD");
}

#[tokio::test]
async fn agents_are_shown() {
    let bench = Bench::new(File::Good);
    let names: Vec<String> = bench
        .get("/v1/agents")
        .await
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| agent["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["echo", "triage"]);
    assert_eq!(bench.get("/v1/agents/echo").await.json()["revision"], "echo@7");
    assert_eq!(bench.get("/v1/agents/echo/revisions").await.json()[0]["number"], 7);
    assert_eq!(bench.get("/v1/host").await.json()["in_sync"], true);
}

#[tokio::test]
async fn missing_answers_time_out() {
    let bench = Bench::new(File::Slow);
    // No revision runs, so that the message waits.
    let answer = bench.ask("POST", "/v1/agents/echo/invoke?timeout=20ms", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "deadline-exceeded"));
    assert!(answer.json()["message_id"].is_string());
    let answer = bench.ask("POST", "/v1/config/apply?timeout=20ms", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "timeout"));
}

/// Reads this many frames from a stream.
#[tokio::test]
async fn excessive_requests_have_to_wait() {
    let bench = Bench::new(File::Good);
    let (local, other) = ("local".parse().unwrap(), "other".parse().unwrap());
    let other_token = bench.api.access.tokens.make(&other, Role::Read, None).unwrap().text;
    // The rate was used up at a time to come, so that it does not refill during the test.
    let future = bench.api.access.now() + Duration::from_secs(3_600);
    while bench.api.take_request(&local, future).is_ok() {}
    let refused = bench.get("/v1/host").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.code(), "too-many-requests");
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_590..=3_600).contains(&wait), "{wait}");
    assert_eq!(bench.get("/healthz").await.status, 200, "probes are not counted");
    assert_eq!(bench.ask_with(&other_token, "GET", "/v1/host").await.status, 200, "each token has a rate of its own");
}

#[tokio::test]
async fn parameters_have_bounds_and_bodies_have_types() {
    let bench = Bench::new(File::Good);
    let document = bench.get("/v1/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    let mut found = std::collections::BTreeMap::new();
    for (path, operation) in
        paths.iter().flat_map(|(path, all)| all.as_object().unwrap().values().map(move |one| (path, one)))
    {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let (name, schema) = (parameter["name"].as_str().unwrap(), &parameter["schema"]);
            assert!(schema["type"].is_string(), "{path} {name}: {schema}");
            assert!(schema["type"] != "integer" || schema["maximum"].is_i64(), "{path} {name}: {schema}");
            found.insert(name.to_owned(), schema.clone());
        }
        let bodies = [&operation["requestBody"]["content"], &operation["responses"]["200"]["content"]];
        for (kind, content) in bodies.into_iter().filter_map(Value::as_object).flatten() {
            let expected = match kind.as_str() {
                "application/json" => continue,
                "text/event-stream" => "object",
                _ => "string",
            };
            assert_eq!(content["schema"]["type"], expected, "{path} {kind}: {content}");
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(response["description"].is_string(), "{path} {status}: {response}");
        }
    }
    assert_eq!(found["performative"]["enum"].as_array().unwrap().len(), 22);
    assert_eq!(found["command"]["enum"], json!(["pause", "resume", "promote", "abort", "undo", "retry"]));
    assert_eq!(found["rehearse"]["type"], json!("boolean"));
    assert_eq!((&found["limit"]["minimum"], &found["limit"]["maximum"]), (&json!(1), &json!(1_000)));
    let events = &document["paths"]["/v1/events"]["get"]["responses"]["200"]["content"];
    assert!(events["application/json"].is_object() && events["text/event-stream"].is_object(), "{events}");
}

#[tokio::test]
async fn a_stopped_reconciler_is_reported() {
    let (sender, commands) = mpsc::channel(1);
    drop(commands);
    let (_ready, readiness) = watch::channel(Readiness::default());
    let control = ReconcilerHandle::new(sender, readiness);
    let error = control.apply(Duration::from_secs(1)).await.unwrap_err();
    let response = axum::response::IntoResponse::into_response(crate::problem::Problem::from(error));
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn pausing_a_mailbox_is_recorded() {
    let bench = Bench::new(File::Good);
    let mailbox = bench.get("/v1/mailboxes").await.json()[0].clone();
    let expected = json!({
        "agent": "echo", "depth": 0, "bound": 2, "later": 0, "timers": 0, "in_flight": 0, "held": false, "breaker": "closed",
        "oldest_ms": null,
    });
    assert_eq!(mailbox, expected);
    for _ in 0..2 {
        assert_eq!(bench.ask("POST", "/v1/mailboxes/echo/pause", "").await.json()["held"], true);
    }
    assert_eq!(bench.context.store.queue().paused().unwrap(), ["echo"]);
    assert_eq!(bench.ask("POST", "/v1/mailboxes/echo/resume", "").await.json()["held"], false);
    assert!(bench.context.store.queue().paused().unwrap().is_empty());
    assert_eq!(bench.ask("POST", "/v1/mailboxes/ecko/pause", "").await.code(), "no-agent");
    assert_eq!(bench.get("/v1/rollouts").await.json(), json!([]));
    for (path, code) in [
        ("echo/undo?to=3", "rollout-refused"),
        ("echo/undo?rehearse=false", "rollout-refused"),
        ("echo/undo?rehearse=perhaps", "bad-request"),
        ("ecko/undo", "no-agent"),
        ("echo/jump", "bad-request"),
    ] {
        assert_eq!(bench.ask("POST", &format!("/v1/rollouts/{path}"), "").await.code(), code, "{path}");
    }
    bench.context.store.flush().await.unwrap();
    let events = bench.get("/v1/events?agent=echo").await.json();
    let kinds: Vec<&str> = events.as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["mailbox.paused", "mailbox.resumed"], "each once");
    assert!(events[0]["data"]["by"].as_str().unwrap().starts_with("api:"));
}

#[tokio::test]
async fn only_one_backup_runs_at_a_time() {
    let bench = Bench::new(File::Good);
    bench.ask("PUT", "/v1/agents/echo/state/a", "1").await;
    let copy = bench.ask("POST", "/v1/store/backup", "").await;
    assert_eq!((copy.status, &copy.body[..15]), (200, &b"SQLite format 3"[..]));
    assert_eq!(copy.headers["content-length"], copy.body.len().to_string().as_str());
    assert_eq!(bench.get("/v1/store/check").await.json(), json!({ "ok": true, "defects": [] }));
    assert_eq!(bench.get("/v1/store").await.json()["agents"][0]["state_bytes"], 2);

    let request = bench.request("POST", "/v1/store/backup").body(Body::empty()).unwrap();
    let reading = bench.router.clone().oneshot(request).await.unwrap();
    for path in ["/v1/store/backup", "/v1/store/check"] {
        let method = if path.ends_with("check") { "GET" } else { "POST" };
        let refused = bench.ask(method, path, "").await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "busy"), "{path}");
    }
    drop(reading);
    assert_eq!(bench.get("/v1/store/check").await.status, 200, "who leaves is waited for no more");
}

#[tokio::test]
async fn statistics_are_measured() {
    let bench = Bench::new(File::Good);
    let stats = bench.get("/v1/stats").await.json();
    assert_eq!((&stats["messages"]["accepted"], &stats["delivery"]["since_start"]), (&json!(0), &Value::Null));
    bench.ask("POST", "/v1/agents/echo/messages", "hello").await;
    let stats = bench.get("/v1/stats").await.json();
    assert_eq!((&stats["messages"]["accepted"], &stats["mailboxes"][0]["depth"]), (&json!(1), &json!(1)));
    assert!(stats["store"]["commits"]["count"].as_u64() > Some(0), "{stats}");
    assert_eq!(stats["dead_letters"], json!([]));
}
