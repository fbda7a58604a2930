//! Tests of events and logs that are followed.

use super::*;

async fn frames(body: &mut Body, count: usize) -> String {
    use http_body_util::BodyExt;

    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        let frame = body.frame().await.expect("the stream goes on").unwrap();
        text.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
    }
    text
}

#[tokio::test]
async fn events_are_followed_without_a_gap() {
    let bench = Bench::new(File::Good);
    let tell = |number: u32| bench.context.events.emit(Some("echo"), "test", json!({ "number": number }));
    (0..5).for_each(tell);
    bench.context.events.emit(None, "host.started", json!({}));
    bench.context.store.flush().await.unwrap();
    let request = bench.request("GET", "/v1/events?agent=echo&limit=2").header("last-event-id", "1");
    let request = request.header("accept", "text/event-stream").body(Body::empty()).unwrap();
    let response = bench.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let missed = frames(&mut body, 4).await;
    let ids: Vec<&str> = missed.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(ids, ["2", "3", "4", "5"], "all that came meanwhile, a page at a time");
    tell(5);
    assert!(frames(&mut body, 1).await.contains("id: 7\n"));
    bench.stop.cancel();
    assert!(to_bytes(body, 1_000).await.unwrap().is_empty(), "it ends with the host");
}

#[tokio::test]
async fn logs_are_shown_and_followed() {
    let bench = Bench::new(File::Good);
    let say = |text: &str| {
        let line = Line {
            at: 1,
            agent: "echo".into(),
            revision: 1,
            level: "info",
            context: "stdout".to_owned(),
            text: text.to_owned(),
        };
        bench.context.logs.write(line, 100);
    };
    say("one");
    say("two");
    let lines = bench.get("/v1/logs?agent=echo&tail=1").await.json();
    assert_eq!(
        lines,
        json!([{ "at": 1, "agent": "echo", "revision": 1, "level": "info", "context": "stdout", "text": "two" }])
    );
    assert_eq!(bench.get("/v1/logs?agent=ecko").await.code(), "no-agent");
    assert_eq!(bench.get("/v1/logs?tail=0").await.json(), json!([]));
    let request = bench.request("GET", "/v1/logs?follow=true&tail=1").body(Body::empty()).unwrap();
    let mut body = bench.router.clone().oneshot(request).await.unwrap().into_body();
    assert!(frames(&mut body, 1).await.contains("\"two\""));
    say("three");
    assert!(frames(&mut body, 1).await.contains("\"three\""));
    bench.stop.cancel();
    assert!(to_bytes(body, 1_000).await.unwrap().is_empty());
}
