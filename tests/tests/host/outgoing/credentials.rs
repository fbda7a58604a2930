//! Headers that the host adds, and that nobody else sees.

use std::fs;
use std::path::Path;

use caxton_tests::{Host, Setup};
use serde_json::{Value, json};

use super::server::Server;
use super::{act, caller, get, log};
use crate::BINARY;

/// The secret of the tests.
const KEY: &str = "hunter2-and-more";

/// Returns the headers that the server got in its last request, as text.
fn last(server: &Server) -> String {
    server.requests().last().map(|request| request["headers"].to_string()).unwrap_or_default()
}

fn setup(server: &Server) -> Setup {
    let place = format!(
        "{{ url = \"http://{}/*\", private = true, headers = {{ Authorization = \"Bearer ${{secret:key}}\", x-from = \"caxton\" }} }}",
        server.address
    );
    let toml = caller(&place, "", "") + "[secrets]\nkey = { file = \"key\" }\n";
    let setup = Setup::new(BINARY, &toml);
    fs::write(setup.folder().join("key"), format!("{KEY}\n")).expect("the folder can be written to");
    setup
}

fn change_key(host: &Host, value: &str) {
    fs::write(host.folder().join("key.new"), value).expect("the folder can be written to");
    fs::rename(host.folder().join("key.new"), host.folder().join("key")).expect("the folder can be written to");
}

#[test]
fn the_host_adds_credentials_on_the_way_out() {
    let server = Server::start();
    let mut host = setup(&server).start();
    let own = json!({
        "url": server.url("/echo"),
        "headers": [["authorization", "Basic mine"], ["Authorization", "Basic again"], ["x-own", "1"]],
    });
    assert_eq!(act(&host, &json!({ "do": "call", "call": own }))["status"], 200);
    let sent = last(&server);
    assert!(
        sent.contains(&format!("[\"authorization\",\"Bearer {KEY}\"]")) && sent.contains("[\"x-from\",\"caxton\"]"),
        "{sent}"
    );
    assert!(!sent.contains("Basic") && sent.contains("x-own"), "the guest's own is dropped: {sent}");
    // A new value is for the next call, without a revision or another instance.
    let before = host.agent("caller");
    change_key(&host, "the-next-one");
    host.until("the next value", |host| {
        get(host, &server.url("/echo"));
        last(&server).contains("Bearer the-next-one").then_some(())
    });
    let after = host.agent("caller");
    assert_eq!((&after["revision"], &after["started_instances"]), (&before["revision"], &before["started_instances"]));
}

/// Returns whether a file below a folder has a text, and which.
fn found_in(folder: &Path, text: &str, except: &str) -> Option<String> {
    for entry in fs::read_dir(folder).expect("the folder can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = found_in(&path, text, except) {
                return Some(found);
            }
        } else if path.file_name().is_some_and(|name| name != except) {
            let content = fs::read(&path).unwrap_or_default();
            if content.windows(text.len()).any(|part| part == text.as_bytes()) {
                return Some(path.display().to_string());
            }
        }
    }
    None
}

#[test]
fn credentials_are_in_no_log_event_answer_or_file() {
    let server = Server::start();
    let host = setup(&server).start();
    // The server tells the guest what it was sent, and the guest logs it: the log has its name only.
    act(&host, &json!({ "do": "log", "call": { "url": server.url("/echo") } }));
    let told = log(&host);
    assert!(told.contains("[secret key]") && !told.contains(KEY), "{told}");
    // Failures of all kinds.
    for action in [
        json!({ "do": "call", "call": { "url": server.url("/status?code=500") } }),
        json!({ "do": "call", "call": { "url": "http://other.example/" } }),
        json!({ "do": "download", "call": { "url": server.url("/trickle"), "between-bytes-ms": 50 } }),
        json!({ "do": "trap", "call": { "url": server.url("/trickle") } }),
    ] {
        host.client().post("/caller", action.to_string());
    }
    let metrics = caxton_tests::Client::new(&host.admin, None).get("/metrics").text();
    assert!(metrics.contains("caxton_outgoing_calls_total") && !metrics.contains(KEY));
    for path in ["/v1/agents/caller", "/v1/events", "/v1/config", "/v1/dead-letters", "/v1/logs"] {
        let answer = host.api().get(path).text();
        assert!(!answer.contains(KEY), "{path}: {answer}");
    }
    for arguments in [&["check", "-o", "json"][..], &["diff"], &["ps", "-o", "json"], &["dead", "ls"]] {
        let (_, out, words) = host.caxton(arguments);
        assert!(!out.contains(KEY) && !words.contains(KEY), "{arguments:?}: {out}{words}");
    }
    let output = host.output();
    assert!(!output.contains(KEY), "{output}");
    let folder = host.folder().to_owned();
    let (_, stopped) = host.stop();
    assert_eq!(found_in(&folder, KEY, "key"), None);
    drop(stopped);
}

#[test]
fn a_secret_that_no_header_can_have_fails_the_call_and_is_not_told() {
    let server = Server::start();
    let mut host = setup(&server).start();
    change_key(&host, "two\nlines");
    host.until("the next value", |host| {
        (get(host, &server.url("/echo"))["error"] == "configuration-error").then_some(())
    });
    host.until("the line", |host| {
        log(host).contains("the header `authorization` cannot have its value (configuration-error)").then_some(())
    });
    assert!(!log(&host).contains("lines"));
}

#[test]
fn credentials_and_places_are_checked_with_the_file() {
    let check = |places: &str, more: &str| {
        let (code, _, words) =
            Setup::new(BINARY, &(caller(places, "", "") + more)).caxton(&["check", "--no-components"]);
        (code, words)
    };
    let header = "headers = { authorization = \"Bearer ${secret:key}\" }";
    for (places, more, expected) in [
        (
            "\"api.example.com\"",
            "",
            "error[bad-place]: agents.caller.allow.http[0]: `api.example.com` is no place to call",
        ),
        ("\"https://a.example\", \"https://A.example/\"", "", "covers the same calls as another place of this agent"),
        (&format!("{{ url = \"https://a.example\", {header} }}"), "", "error[unknown-secret]"),
        (
            &format!("{{ url = \"http://a.example\", {header} }}"),
            "[secrets]\nkey = { env = \"HOME\" }\n",
            "headers are added over `https`",
        ),
        (
            &format!("{{ url = \"https://a.example\", {header} }}"),
            "[secrets]\nkey = { env = \"NOT_SET_ANYWHERE\" }\n",
            "error[unusable-secret]",
        ),
        (&format!("{{ url = \"https://a.example\", {header} }}"), "[secrets]\nfolder = \"run\"\n", "cannot be read"),
    ] {
        let (code, words) = check(places, more);
        assert!(code == 2 && words.contains(expected) && words.contains("caxton.toml:"), "{expected:?}: {words}");
    }
    let (code, words) =
        check(&format!("{{ url = \"https://a.example\", {header} }}"), "[secrets]\nkey = { env = \"PATH\" }\n");
    assert_eq!(code, 0, "{words}");
}

#[test]
fn a_place_in_plain_text_takes_its_credentials_to_private_addresses_only() {
    let server = Server::start();
    let place = format!(
        "{{ url = \"http://inside.example:{}/*\", private = true, headers = {{ x-key = \"${{secret:key}}\" }} }}",
        server.port()
    );
    let toml = caller(&place, "", "") + "[secrets]\nkey = { env = \"GIVEN\" }\n";
    let host = Setup::new(BINARY, &toml).variable("GIVEN", KEY).start();
    let url = format!("http://inside.example:{}/echo", server.port());
    host.order("resolve inside.example 93.184.215.14");
    assert_eq!(get(&host, &url)["error"], "destination-IP-prohibited");
    host.order("resolve inside.example 127.0.0.1");
    let answer: Value = get(&host, &url);
    assert_eq!(answer["status"], 200, "{answer}");
    assert!(last(&server).contains(KEY));
}
