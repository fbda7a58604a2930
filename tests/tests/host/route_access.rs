//! Callers of agents' routes over real sockets: tokens, signatures, JSON web tokens, and rates.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use caxton_tests::{Client, Host, Reply, Setup};
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{BINARY, agent, file, host};

/// A key pair of P-256 that was made for tests alone.
const PRIVATE: &str = include_str!("../../../host/src/access/testdata/jwt-ec.pem");
const JWKS: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","use":"sig","x":"seLpJFhMrptakMpa7KfBUnc4ldhgutbpOWznsiiKKss","y":"7-hxC9EdLepMd94dA8_GGQYvdiGMZcdInuhA9b-WoWg"}]}"#;
/// An action of the guest `rogue`: it answers with the message that it got.
const SHOW: &str = r#"{"do":"message"}"#;

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header of a signed request.
fn signature(key: &str, caller: &str, time: u64, method: &str, target: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("a key may have any length");
    mac.update(format!("{method}\n{target}\n{time}\n{}", hex(&Sha256::digest(body))).as_bytes());
    format!("caller={caller}, time={time}, hmac-sha256={}", hex(&mac.finalize().into_bytes()))
}

fn post(host: &Host, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    host.client().send(Method::POST, path, headers, body.to_owned())
}

/// The callers that the agent was told of.
fn callers(message: &Value) -> Vec<&str> {
    let headers = message["headers"].as_array().expect("a list of headers");
    headers.iter().filter(|pair| pair[0] == "caxton-caller").map(|pair| pair[1].as_str().expect("a text")).collect()
}

fn code(reply: &Reply) -> (u16, String) {
    (reply.status.as_u16(), reply.json()["code"].as_str().unwrap_or_default().to_owned())
}

/// A host with a message agent, whose routes ask for each kind of credential, and an HTTP agent.
fn guarded() -> Host {
    let text = format!(
        "{}\n[[agents.rogue.http]]\nroute = \"/tokens\"\nauth = {{ tokens = [\"shop\", \"bank=sha256:{}\"] }}\n\
         [[agents.rogue.http]]\nroute = \"/signed\"\nauth = {{ hmac = {{ partner = \"file:partner.key\", other = \"env:OTHER_KEY\" }} }}\n\
         [[agents.rogue.http]]\nroute = \"/jwt\"\nauth = {{ jwt = {{ jwks = \"jwks.json\", issuer = \"https://id.example\", audience = \"tickets\" }} }}\n\
         [agents.web]\ncomponent = \"GUEST(web)\"\n[[agents.web.http]]\nroute = \"/headers\"\nauth = {{ tokens = [\"shop\"] }}\n\
         [[agents.web.http]]\nroute = \"/echo\"\nauth = {{ hmac = {{ partner = \"file:partner.key\" }} }}\n",
        agent("rogue", "rogue", ""),
        hex(&Sha256::digest("token of the bank")),
    );
    let setup = Setup::new(BINARY, &file(&text)).variable("OTHER_KEY", &"o".repeat(40));
    fs::write(setup.folder().join("partner.key"), "p".repeat(32) + "\n").expect("the folder can be written to");
    fs::write(setup.folder().join("jwks.json"), JWKS).expect("the folder can be written to");
    setup.start()
}

#[test]
fn tokens_of_a_route_let_their_callers_in() {
    let host = guarded();
    let made = |name: &str| host.caxton(&["token", "make", name, "--role", "read"]).1.trim().to_owned();
    let (shop, other) = (made("shop"), made("other"));
    let with = |token: &str| {
        post(&host, "/tokens", &[("authorization", &format!("Bearer {token}")), ("caxton-caller", "token:root")], SHOW)
    };
    let seen = with(&shop).json();
    assert_eq!(callers(&seen), ["token:shop"], "the host's own word, and no other");
    assert!(!seen.to_string().contains(&shop), "the agent does not see the token: {seen}");
    assert_eq!(callers(&with("token of the bank").json()), ["token:bank"]);
    for token in [other.as_str(), "wrong", ""] {
        let refused = with(token);
        assert_eq!(code(&refused), (401, "unauthorised".to_owned()), "{token}");
        assert_eq!(refused.header("www-authenticate"), "Bearer, Caxton-Signature");
    }
    assert_eq!(code(&post(&host, "/tokens", &[], SHOW)), (401, "unauthorised".to_owned()));
    // A route without `auth` knows no caller, whatever the request says.
    assert_eq!(callers(&post(&host, "/rogue", &[("caxton-caller", "token:root")], SHOW).json()), [""; 0]);
    // Nor does an agent pass itself off as one.
    let asked = json!({ "do": "request", "to": "", "content": { "do": "message" },
        "with": { "headers": [["Caxton-Caller", "token:root"], ["caxton-caller", "token:root"]] } });
    let told = post(&host, "/rogue", &[], &asked.to_string()).text().to_ascii_lowercase();
    assert!(!told.contains("caxton-caller"), "{told}");
    // An HTTP agent sees its caller, and neither the token nor a forged caller.
    let headers = [("authorization", format!("Bearer {shop}")), ("caxton-caller", "token:root".to_owned())];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let seen = host.client().send(Method::GET, "/headers", &headers, "").json();
    assert_eq!(callers(&seen), ["token:shop"], "{seen}");
    assert!(!seen.to_string().contains("authorization"), "{seen}");
    // A token that has ended is refused at once.
    assert_eq!(host.caxton(&["token", "end", "shop"]).0, 0);
    assert_eq!(with(&shop).status, 401);
}

#[test]
fn signed_requests_are_taken_and_forged_ones_are_not() {
    let host = guarded();
    let (partner, now) = ("p".repeat(32), seconds());
    let sign =
        |key: &str, caller: &str, time, target: &str, body: &str| signature(key, caller, time, "POST", target, body);
    let send =
        |target: &str, signature: &str, body: &str| post(&host, target, &[("caxton-signature", signature)], body);
    let right = sign(&partner, "partner", now, "/signed?a=1", SHOW);
    let seen = send("/signed?a=1", &right, SHOW).json();
    assert_eq!(callers(&seen), ["hmac:partner"]);
    let other = sign(&"o".repeat(40), "other", now, "/signed", SHOW);
    assert_eq!(callers(&send("/signed", &other, SHOW).json()), ["hmac:other"], "its key is in a variable");
    for (what, target, signature, body) in [
        ("another body", "/signed?a=1", right.clone(), r#"{"do":"trap"}"#),
        ("another query", "/signed?a=2", right.clone(), SHOW),
        ("another caller", "/signed", sign(&partner, "other", now, "/signed", SHOW), SHOW),
        ("an unknown caller", "/signed", sign(&partner, "nobody", now, "/signed", SHOW), SHOW),
        ("an old one", "/signed", sign(&partner, "partner", now - 400, "/signed", SHOW), SHOW),
        ("no signature", "/signed", "nonsense".to_owned(), SHOW),
    ] {
        assert_eq!(code(&send(target, &signature, body)), (401, "unauthorised".to_owned()), "{what}");
    }
    assert_eq!(host.agent("rogue")["failed"], 0, "nothing forged came to the agent");
    // The body of an HTTP agent is checked before it sees any of it.
    let right = sign(&partner, "partner", now, "/echo", "hello");
    assert_eq!(send("/echo", &right, "hello").text(), "hello");
    assert_eq!(send("/echo", &right, "hullo").status, 401);
}

#[test]
fn json_web_tokens_are_taken_with_their_issuer_and_audience() {
    let mut host = guarded();
    let sign = |claims: &Value| {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k1".to_owned());
        encode(&header, claims, &EncodingKey::from_ec_pem(PRIVATE.as_bytes()).unwrap()).unwrap()
    };
    let claims = |audience: &str, expires: u64| json!({ "sub": "user-7", "iss": "https://id.example", "aud": audience, "exp": expires });
    let send = |host: &Host, token: &str| post(host, "/jwt", &[("authorization", &format!("Bearer {token}"))], SHOW);
    let right = sign(&claims("tickets", seconds() + 300));
    assert_eq!(callers(&send(&host, &right).json()), ["jwt:user-7"]);
    for (what, token) in [
        ("of another audience", sign(&claims("billing", seconds() + 300))),
        ("an expired one", sign(&claims("tickets", seconds() - 300))),
        ("a changed one", right.replace('.', "A.")),
    ] {
        assert_eq!(code(&send(&host, &token)), (401, "unauthorised".to_owned()), "{what}");
    }
    // A new key set is taken up while the host runs; a broken one leaves the one before.
    let path = host.folder().join("jwks.json");
    fs::write(&path, "{").unwrap();
    host.until("the broken file is told of", |host| {
        assert_eq!(send(host, &right).status, 200, "the keys before stay in force");
        host.output().contains("the keys that were read before stay in force").then_some(())
    });
    fs::write(&path, JWKS.replace("k1", "k2")).unwrap();
    host.until("the new keys are in force", |host| (send(host, &right).status == 401).then_some(()));
}

#[test]
fn keys_that_cannot_be_read_close_the_route() {
    let text = format!("{}auth = {{ hmac = {{ partner = \"file:missing.key\" }} }}\n", agent("echo", "echo", ""));
    let setup = Setup::new(BINARY, &file(&text));
    let (exit, out, err) = setup.caxton(&["check"]);
    assert_eq!(exit, 2, "{out}{err}");
    assert!(format!("{out}{err}").contains("missing.key"), "{out}{err}");
    let host = setup.start();
    host.until_output("missing.key");
    let signed = signature(&"p".repeat(32), "partner", seconds(), "POST", "/echo", "hello");
    let refused = post(&host, "/echo", &[("caxton-signature", &signed)], "hello");
    assert_eq!(code(&refused), (503, "keys-unavailable".to_owned()));
    assert!(!refused.text().contains("missing.key"), "a caller learns nothing of the host's files");
    // So is one that an edit names.
    host.edit(&file(&text.replace("missing.key", "lost.key")));
    host.until_output("lost.key");
}

#[test]
fn each_caller_has_a_rate_and_idempotency_keys_of_its_own() {
    let text = format!(
        "{}rate = \"3/h\"\n[[agents.echo.http]]\nroute = \"/later\"\nmode = \"enqueue\"\nrate = \"20/h\"\n\
         auth = {{ tokens = [\"a\", \"b\"] }}\n[[agents.echo.http]]\nroute = \"/open\"\nmode = \"enqueue\"\n",
        agent("echo", "echo", "")
    );
    let host = host(&text);
    for _ in 0..3 {
        assert_eq!(post(&host, "/echo", &[], "hello").status, 200);
    }
    let refused = post(&host, "/echo", &[], "hello");
    assert_eq!(code(&refused), (429, "too-many-requests".to_owned()));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1_000..=1_200).contains(&wait), "{wait}");
    let token = |name: &str| host.caxton(&["token", "make", name, "--role", "read"]).1.trim().to_owned();
    let tokens = [token("a"), token("b")];
    let send = |token: &str| {
        let key = [("authorization", &*format!("Bearer {token}")), ("idempotency-key", "order-1")];
        post(&host, "/later", &key, "hello")
    };
    let id = |reply: &Reply| reply.header("caxton-message-id").to_owned();
    let (first, again, other) = (send(&tokens[0]), send(&tokens[0]), send(&tokens[1]));
    assert_eq!((first.status.as_u16(), other.status.as_u16()), (202, 202));
    assert_eq!(id(&first), id(&again), "a repeated key of one caller is one message");
    assert_ne!(id(&first), id(&other), "another caller has keys of its own");
    // Callers without an identity share one space.
    let open = |host: &Host| {
        Client::new(&host.http, None).send(Method::POST, "/open", &[("idempotency-key", "order-1")], "hello")
    };
    assert_eq!(id(&open(&host)), id(&open(&host)));
    assert_ne!(id(&open(&host)), id(&first));
    // The rate is that of each caller: one that has used it up does not hold back the other.
    while send(&tokens[0]).status == 202 {}
    assert_eq!(send(&tokens[0]).status, 429);
    assert_eq!(send(&tokens[1]).status, 202);
}
