//! Tests of messages, state and the file.

use super::*;

#[tokio::test]
async fn messages_are_accepted_within_their_bounds() {
    let bench = Bench::new(File::Good);
    let request =
        bench.request("POST", "/v1/agents/echo/messages?conversation=c-1").header("content-type", "text/plain");
    let answer = bench.send(request.body(Body::from("hello")).unwrap()).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.json()["conversation"], "c-1");
    assert_eq!(bench.directory.routes.load().agent("echo").unwrap().depth(), 1);

    let answer = bench.ask("POST", "/v1/agents/echo/messages", "more than ten bytes").await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too-large"));
    assert_eq!(answer.json()["limit"], 10);
    let answer = bench.ask("POST", "/v1/agents/echo/messages", vec![0; MAX_BODY + 1]).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too-large"));
    assert_eq!(answer.json()["limit"], MAX_BODY);

    bench.ask("POST", "/v1/agents/echo/messages", "").await;
    let answer = bench.ask("POST", "/v1/agents/echo/messages", "").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "mailbox-full"));
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test]
async fn state_is_read_and_changed() {
    let bench = Bench::new(File::Good);
    let path = "/v1/agents/echo/state/a%2Fb%20%C3%BC";
    assert_eq!(bench.get(path).await.code(), "no-key");
    assert_eq!(bench.ask("PUT", path, "one").await.status, 204);
    assert_eq!(bench.ask("PUT", "/v1/agents/echo/state/a/c", "2").await.status, 204);
    let found = bench.get(path).await;
    assert_eq!((found.status, &found.body[..]), (200, &b"one"[..]));

    let page = bench.get("/v1/agents/echo/state?prefix=a/&limit=1").await.json();
    assert_eq!(page, json!({ "keys": [{ "key": "a/b ü", "bytes": 3 }], "next": "a/b ü", "bytes": 13 }));
    let page = bench.get("/v1/agents/echo/state?prefix=a/&after=a/b%20%C3%BC").await.json();
    assert_eq!(page["keys"], json!([{ "key": "a/c", "bytes": 1 }]));
    assert_eq!(page["next"], Value::Null);

    let tag = found.headers["etag"].clone();
    let matching = |tag: &http::HeaderValue, value: &'static str| {
        bench.send(bench.request("PUT", path).header("if-match", tag).body(Body::from(value)).unwrap())
    };
    assert_eq!(matching(&tag, "two").await.status, 204);
    assert_eq!(matching(&tag, "three").await.code(), "conflict");
    assert_eq!(&bench.get(path).await.body[..], b"two");

    // The expiry is returned with the value, and a later write removes it.
    let lives = format!("{path}?ttl=1h30m");
    let before = crate::clock::now_ms();
    assert_eq!(bench.ask("PUT", &lives, "two").await.status, 204);
    let found = bench.get(path).await;
    let gone_at: u64 = found.headers["caxton-expires-at"].to_str().unwrap().parse().unwrap();
    assert!((before..=crate::clock::now_ms()).contains(&(gone_at - 5_400_000)), "{gone_at}");
    assert_eq!(bench.get("/v1/agents/echo/state?prefix=a/b").await.json()["keys"][0]["expires_at"], gone_at);
    assert_eq!(bench.ask("PUT", path, "two").await.status, 204);
    assert!(!bench.get(path).await.headers.contains_key("caxton-expires-at"));
    for ttl in ["0s", "10", "soon", "1m1h"] {
        let refused = bench.ask("PUT", &format!("{path}?ttl={ttl}"), "three").await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "bad-request"), "{ttl}");
    }

    assert_eq!(bench.ask("PUT", path, vec![0; 2_000]).await.code(), "quota");
    assert_eq!(bench.ask("DELETE", path, "").await.status, 204);
    assert_eq!(bench.ask("DELETE", path, "").await.code(), "no-key");
    assert_eq!(bench.get("/v1/agents/echo/state").await.json()["bytes"], 4);

    bench.context.store.flush().await.unwrap();
    let events = bench.get("/v1/events?agent=echo").await.json();
    let kinds: Vec<&str> = events.as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["state.set", "state.set", "state.set", "state.set", "state.set", "state.removed"]);
    assert!(events[0]["data"]["by"].as_str().unwrap().starts_with("api:"));
}

#[tokio::test]
async fn the_file_is_compared_and_applied() {
    let bench = Bench::new(File::Good);
    assert_eq!(bench.get("/v1/config/diff").await.json()["changes"][0]["change"], "add");
    let request = bench.request("POST", "/v1/config/apply").header("user-agent", "caxton-cli/0.1.0");
    let applied = bench.send(request.body(Body::empty()).unwrap()).await.json();
    assert_eq!(applied["settled"], true);
    bench.context.store.flush().await.unwrap();
    let event = &bench.get("/v1/events").await.json()[0];
    assert_eq!(event["kind"], "config.apply");
    assert!(event["data"]["by"].as_str().unwrap().starts_with("cli:"), "{event}");

    let bench = Bench::new(File::Bad);
    for answer in [bench.get("/v1/config/diff").await, bench.ask("POST", "/v1/config/apply", "").await] {
        assert_eq!((answer.status, answer.code().as_str()), (409, "file-errors"));
        assert_eq!(answer.json()["errors"][0]["place"], "caxton.toml:2:1");
    }
}
