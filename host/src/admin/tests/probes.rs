//! The probes of load balancers, at both listeners that have them.

use super::*;

#[tokio::test]
async fn probes_report_the_state() {
    let bench = Bench::new(File::Good);
    let alive = bench.get("/healthz").await.json();
    assert_eq!((&alive["status"], &alive["reason"]), (&json!("ok"), &json!(null)));
    let tasks: Vec<&str> = alive["tasks"].as_array().unwrap().iter().filter_map(|task| task["name"].as_str()).collect();
    assert_eq!(tasks, ["agents-logs", "log-writer"], "only these were started here");
    let reasons = vec!["caxton.toml has errors; the file and the host differ".to_owned()];
    bench.ready.send_replace(Readiness { ready: false, in_sync: false, reasons: reasons.clone() });
    let answer = bench.get("/readyz").await;
    assert_eq!((answer.status, answer.json()), (503, json!({ "ready": false, "reasons": reasons })));
    bench.ready.send_replace(Readiness { ready: true, in_sync: true, reasons: Vec::new() });
    assert_eq!(bench.get("/readyz").await.status, 200);
    let metrics = bench.get("/metrics").await;
    assert!(String::from_utf8_lossy(&metrics.body).contains("caxton_mailbox_depth{agent=\"triage\"} 2\n"));
}

#[tokio::test]
async fn probes_fail_after_a_fatal_error() {
    let ready = || Readiness { ready: true, in_sync: true, reasons: Vec::new() };
    for lost in [false, true] {
        let bench = Bench::new(File::Good);
        bench.ready.send_replace(ready());
        let why = if lost {
            std::fs::remove_file(bench.folder.path().join("caxton.db")).unwrap();
            bench.context.store.until_lost().await
        } else {
            bench.context.tasks.fail("reconciler", "boom");
            bench.context.tasks.until_failed().await
        };
        let (alive, ready) = (bench.get("/healthz").await, bench.get("/readyz").await);
        assert_eq!((alive.status, &alive.json()["reason"]), (503, &json!(&*why)));
        assert_eq!((ready.status, ready.json()), (503, json!({ "ready": false, "reasons": [&*why] })));
    }
}

#[tokio::test]
async fn the_probes_listener_accepts_any_host_and_serves_only_probes() {
    let bench = Bench::new(File::Good);
    let router = probes_router(bench.api.clone());
    let ask = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "node.example");
        router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    for (method, path, expected) in [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 503),
        ("GET", "/metrics", 200),
        ("HEAD", "/healthz", 200),
        ("POST", "/healthz", 405),
        ("GET", "/v1/agents", 404),
        ("GET", "/v1/openapi.json", 404),
        ("GET", "/", 404),
    ] {
        assert_eq!(ask(method, path).await, expected, "{method} {path}");
    }
    bench.stop.cancel();
    assert_eq!(ask("GET", "/readyz").await, 503);
    assert_eq!(ask("GET", "/healthz").await, 200, "it lives while it stops");
}
