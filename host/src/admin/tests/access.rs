//! Tests of tokens and their roles.

use super::*;

#[tokio::test]
async fn requests_without_the_token_are_refused() {
    let bench = Bench::new(File::Good);
    let ask = |authorization: Option<String>, host: &str, path: &str| {
        let mut request = Request::builder().uri(path).header("host", host);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        bench.send(request.body(Body::empty()).unwrap())
    };
    let token = || Some(format!("Bearer {}", bench.token));
    for (authorization, host, path, status) in [
        (token(), "localhost", "/v1/host", 200),
        (Some(format!("bearer  {}", bench.token)), "127.0.0.1:8081", "/v1/host", 200),
        (None, "localhost", "/v1/host", 401),
        (Some("Bearer wrong".to_owned()), "localhost", "/v1/host", 401),
        (Some(format!("Basic {}", bench.token)), "localhost", "/v1/host", 401),
        (None, "localhost", "/v1/openapi.json", 401),
        (None, "localhost", "/v1/nothing", 401),
        (token(), "localhost", "/v1/nothing", 404),
        (None, "localhost", "/nothing", 404),
        (None, "localhost", "/healthz", 200),
        (None, "evil.example", "/healthz", 421),
        (token(), "evil.example", "/v1/host", 421),
    ] {
        let shown = format!("{authorization:?} {host} {path}");
        let answer = ask(authorization, host, path).await;
        assert_eq!(answer.status, status, "{shown}");
        assert!(answer.headers.get("access-control-allow-origin").is_none());
        if status == 401 {
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
    }
}

#[tokio::test]
async fn every_route_needs_a_role_and_the_document_names_it() {
    let bench = Bench::new(File::Good);
    let document = bench.get("/v1/openapi.json").await.json();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            // The probes need no token: their requirement is an empty one.
            if operation["security"] == json!([{}]) {
                continue;
            }
            let method = method.to_uppercase();
            let role = role_of(&method, path);
            assert_eq!(operation["security"], json!([{ "token": [role] }]), "{method} {path}");
            let text = operation["description"].as_str().unwrap();
            assert!(text.ends_with(&format!("Needs the role `{role}`.")), "{method} {path}: {text}");
            described.insert((method, path.clone()));
        }
    }
    let listed: BTreeSet<(String, String)> =
        admin_routes().iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
    assert_eq!(described, listed, "the left are in the document, the right in the table of roles");
}

#[tokio::test]
async fn routes_are_closed_to_lesser_roles() {
    let bench = Bench::new(File::Good);
    let token = |role: Role| bench.api.access.tokens.make(&role.as_str().parse().unwrap(), role, None).unwrap().text;
    let tokens: Vec<(Role, String)> = Role::ALL.into_iter().map(|role| (role, token(role))).collect();
    for route in admin_routes() {
        let path = route.path.replace("{command}", "jump").replace("{name}", "nobody").replace(['{', '}'], "");
        // A stream has no end, and the check of these needs none.
        let streams = ["/v1/rollouts/agent/events"].contains(&path.as_str());
        for (role, token) in &tokens {
            let answer = if *role < route.role || !streams {
                bench.ask_with(token, route.method, &path).await
            } else {
                continue;
            };
            let shown = format!("{} {path} with {role}: {}", route.method, answer.status);
            if *role >= route.role {
                assert!(![401, 403].contains(&answer.status), "{shown}");
                continue;
            }
            assert_eq!((answer.status, answer.code().as_str()), (403, "role-needed"), "{shown}");
            let needed = format!("needs a token with the role `{}`; `{role}` has `{role}`", route.role);
            assert!(answer.json()["detail"].as_str().unwrap().contains(&needed), "{}", answer.json());
        }
    }
    // A method that the path does not take, and a path that is none, are no matter of roles.
    let (_, read) = &tokens[0];
    assert_eq!(bench.ask_with(read, "POST", "/v1/host").await.status, 405);
    assert_eq!(bench.ask_with(read, "GET", "/v1/nothing").await.status, 404);
}

#[tokio::test]
async fn tokens_are_made_rotated_and_ended() {
    let bench = Bench::new(File::Good);
    let made = bench.ask("POST", "/v1/tokens/ci?role=read&expires=1h", "").await;
    assert_eq!((made.status, &made.headers["cache-control"]), (201, &"no-store".parse().unwrap()));
    let made = made.json();
    let first = made["token"].as_str().unwrap().to_owned();
    assert_eq!(made["expires_at"].as_u64().unwrap() - made["made_at"].as_u64().unwrap(), 3_600_000);
    assert_eq!(bench.ask_with(&first, "GET", "/v1/agents").await.status, 200);
    let rotated = bench.ask("POST", "/v1/tokens/ci/rotate", "").await.json();
    let second = rotated["token"].as_str().unwrap().to_owned();
    assert_eq!(bench.ask_with(&first, "GET", "/v1/agents").await.status, 401);
    assert_eq!(bench.ask_with(&second, "GET", "/v1/agents").await.status, 200);
    let listed = bench.get("/v1/tokens").await;
    assert!(!String::from_utf8_lossy(&listed.body).contains(&second));
    let names: Vec<Value> = listed.json().as_array().unwrap().iter().map(|token| token["name"].clone()).collect();
    assert_eq!(names, ["ci", "local"]);
    assert_eq!(bench.ask("DELETE", "/v1/tokens/ci", "").await.status, 204);
    assert_eq!(bench.ask_with(&second, "GET", "/v1/agents").await.status, 401);
    for (method, path, code) in [
        ("POST", "/v1/tokens/local?role=read", "conflict"),
        ("DELETE", "/v1/tokens/local", "conflict"),
        ("DELETE", "/v1/tokens/ci", "no-token"),
        ("POST", "/v1/tokens/ci/rotate", "no-token"),
        ("POST", "/v1/tokens/CI?role=read", "bad-request"),
        ("POST", "/v1/tokens/ci?role=root", "bad-request"),
        ("POST", "/v1/tokens/ci?role=read&expires=0s", "bad-request"),
    ] {
        assert_eq!(bench.ask(method, path, "").await.code(), code, "{method} {path}");
    }
    bench.context.store.flush().await.unwrap();
    let events = bench.get("/v1/events").await.json();
    let told: Vec<String> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| format!("{} {} {}", event["kind"], event["data"]["by"], event["data"]["token"]).replace('"', ""))
        .collect();
    assert_eq!(told, ["token.made api:local ci", "token.rotated api:local ci", "token.ended api:local ci"]);
}

#[tokio::test]
async fn expired_tokens_are_refused_with_the_way_out() {
    let bench = Bench::new(File::Good);
    let name = "old".parse().unwrap();
    let old = bench.api.access.tokens.make(&name, Role::Admin, Some(0)).unwrap().text;
    let refused = bench.ask_with(&old, "GET", "/v1/host").await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "unauthorised"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("`old` has expired; `caxton token rotate old`"));
    assert_eq!(bench.get("/v1/tokens").await.json()[1]["expired"], true);
}
