//! Hosts that cannot start, agents that cannot, and hosts that end.

use std::fs;
use std::net::TcpListener;

use caxton_tests::{Client, Setup, guest};
use serde_json::json;

use crate::{BINARY, agent, file, host, in_hand};

#[test]
fn memory_uses_huge_pages() {
    if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        eprintln!("not tested: this kernel has no huge pages");
        return;
    }
    let host = host(&agent("echo", "echo", ""));
    let maps = fs::read_to_string(format!("/proc/{}/smaps", host.pid().as_raw_nonzero())).expect("the host runs");
    // As the kernel's documentation of /proc names the flag of what was asked for.
    let asked =
        |line: &str| line.strip_prefix("VmFlags:").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hg"));
    assert!(maps.lines().any(asked), "as `.cargo/config.toml` says");
}

#[test]
fn a_component_that_cannot_be_used_is_refused_with_the_reason() {
    let setup = Setup::new(BINARY, "");
    let folder = setup.folder().to_owned();
    let echo = fs::read(guest("echo")).expect("the guest can be read");
    fs::write(folder.join("empty.wasm"), b"").expect("the folder can be written to");
    fs::write(folder.join("garbage.wasm"), b"this is no component").expect("the folder can be written to");
    fs::write(folder.join("truncated.wasm"), &echo[..echo.len() / 2]).expect("the folder can be written to");
    fs::write(folder.join("core.wasm"), b"\0asm\x01\0\0\0").expect("the folder can be written to");
    let rows = [
        (
            "missing",
            "missing.wasm",
            "the component missing.wasm is not there; build it (`caxton up --build`) or mend the path",
        ),
        (
            "empty",
            "empty.wasm",
            "empty.wasm: the component cannot be used: the file is empty (empty); build it again, for the target wasm32-wasip2",
        ),
        ("garbage", "garbage.wasm", "the file is not WebAssembly (not-wasm)"),
        ("truncated", "truncated.wasm", "(truncated); build or copy it again"),
        ("core", "core.wasm", "the file is a core module, not a component (core-module)"),
        ("world", "GUEST(by-record)", "which makes no agent (no-world)"),
        ("start", "GUEST(slow-start)", "no instance could be started: cpu-exceeded: used more than 1000 ms on a core"),
    ];
    let mut toml = file("");
    for (name, path, _) in rows {
        toml += &format!("[agents.{name}]\ncomponent = \"{path}\"\n[[agents.{name}.http]]\nroute = \"/{name}\"\n");
    }
    toml += &agent("good", "echo", "");
    fs::write(folder.join("caxton.toml"), &toml).expect("the folder can be written to");
    let host = setup.start();
    host.edit(&toml);
    let mut host = host;
    for (name, _, part) in rows {
        host.until_agent(name, part, |status| status["waiting"].as_str().is_some_and(|why| why.contains(part)));
        let reply = host.client().post(&format!("/{name}"), "x");
        assert_eq!(reply.status.as_u16(), 503, "{name}: {}", reply.text());
    }
    assert_eq!(host.client().post("/good", "x").text(), "x");
    assert_eq!(Client::new(&host.admin, None).get("/readyz").status.as_u16(), 503);
    assert_eq!(Client::new(&host.admin, None).get("/healthz").status.as_u16(), 200);
}

#[test]
fn a_component_for_another_agent_kind_of_route_is_refused() {
    let toml = agent("web", "web", "").replace("route = \"/web\"", "route = \"/web\"\nmode = \"enqueue\"");
    let host = host(&toml);
    let why = host.agent("web")["waiting"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("it is an HTTP agent, which answers itself"), "{why}");
}

#[test]
fn a_port_in_use_is_reported_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, said) =
        Setup::new(BINARY, &file(&agent("echo", "echo", ""))).argument("--listen").argument(&address).refused();
    // The last --listen counts.
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(&format!("http.listen: the port of {address} is in use by another program; stop that one, or choose another with `--listen 127.0.0.1:0` or in the file")),
        "{said}"
    );
}

#[test]
fn a_second_host_on_the_same_folder_is_refused() {
    let first = host(&agent("echo", "echo", ""));
    let data = first.folder().join(".caxton");
    let second = Setup::new(BINARY, &file(&agent("echo", "echo", "")));
    let (code, said) = second.argument("--data").argument(&data.display().to_string()).refused();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is in use by another host (process "), "{said}");
    assert_eq!(first.client().post("/echo", "x").text(), "x");
}

#[test]
fn a_host_that_starts_while_another_ends_gets_the_folder() {
    let mut first = host(&agent("counter", "counter", ""));
    assert_eq!(first.client().post("/counter", r#"{"by": 7}"#).json()["count"], 7);
    let data = first.folder().join(".caxton");
    let second = Setup::new(BINARY, &file(&agent("counter", "counter", "")));
    let mut second = second.argument("--data").argument(&data.display().to_string()).spawn();
    second.until_output(&format!(
        "waits for another host (process {}) to leave the data folder",
        first.pid().as_raw_nonzero()
    ));
    first.signal(rustix::process::Signal::KILL);
    second.until_ready();
    assert_eq!(second.client().post("/counter", r#"{"by": 1}"#).json()["count"], 8);
    first.ended();
}

#[test]
fn declared_agents_can_be_called_from_the_first_moment() {
    let many: String = (0..1_000).map(|n| agent(&format!("echo-{n}"), "echo", "")).collect();
    let mut host = Setup::new(BINARY, &file(&many)).spawn();
    let listens = host.folder().join(".caxton/host.json");
    host.until_at_once("it listens", || listens.exists());
    let text = fs::read_to_string(&listens).expect("it is written whole");
    let ports: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let client = Client::new(ports["http"].as_str().expect("an address"), None);
    // Nobody runs yet, but all are known.
    let first = client.post("/echo-999", "x");
    assert!(matches!(first.status.as_u16(), 200 | 503), "{} {}", first.status, first.text());
    host.until_ready();
    assert_eq!(client.post("/echo-999", "x").text(), "x");
}

#[test]
fn a_data_folder_that_cannot_be_created_is_reported() {
    let setup = Setup::new(BINARY, &file(""));
    fs::write(setup.folder().join("taken"), "a file").expect("the folder can be written to");
    let (code, said) = setup.argument("--data").argument("taken").refused();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the data folder") && said.contains("cannot be used"), "{said}");
}

#[test]
fn a_broken_file_starts_nothing() {
    let (code, said) = Setup::new(BINARY, "caxton = 1\n[http\nlisten = 3\n").refused();
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("caxton.toml:2:"), "{said}");
}

#[test]
fn sigterm_lets_running_handlers_finish() {
    let mut host = host(&agent("rogue", "rogue", "limits = { time = \"30s\" }"));
    let address = host.http.clone();
    let slow = std::thread::spawn(move || Client::new(&address, None).post("/rogue", r#"{"do":"sleep","ms":1000}"#));
    host.until_agent("rogue", "the call is in hand", in_hand);
    let (code, _) = host.stop();
    assert_eq!(code, 0);
    assert_eq!(slow.join().expect("the call is answered").status.as_u16(), 200);
}

#[test]
fn a_stop_ends_at_its_limit_and_at_once_after_a_second_signal() {
    let toml =
        |drain: &str| format!("[host]\ndrain = \"{drain}\"\n{}", agent("rogue", "rogue", "limits = { time = \"5m\" }"));
    for (drain, again, code) in [("1s", false, 0), ("5m", true, 130)] {
        let mut host = host(&toml(drain));
        let address = host.http.clone();
        let stuck = std::thread::spawn(move || {
            Client::new(&address, None).try_send(http::Method::POST, "/rogue", &[], r#"{"do":"sleep","ms":200000}"#)
        });
        host.until_agent("rogue", "the call is in hand", |status| status["in_flight"] == 1);
        host.signal(rustix::process::Signal::TERM);
        host.until_output("stopping");
        if again {
            host.signal(rustix::process::Signal::TERM);
        }
        assert_eq!(host.ended(), code, "{}", host.output());
        let answer = stuck.join().expect("the caller ends");
        if let Ok(reply) = answer {
            assert_eq!(reply.status.as_u16(), 503, "{}", reply.text());
        }
    }
}

#[test]
fn a_queue_is_drained_before_the_end() {
    let later = "[[agents.rogue.http]]\nroute = \"/later\"\nmode = \"enqueue\"\n";
    let host = host(&(agent("rogue", "rogue", "instances = { max = 1 }\n") + later));
    let client = host.client();
    for _ in 0..10 {
        let action =
            json!({"do": "steps", "steps": [{"do": "sleep", "ms": 50}, {"do": "increment", "key": "n", "by": 1}]});
        assert_eq!(client.post("/later", action.to_string()).status.as_u16(), 202);
    }
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    let host = setup.start();
    assert_eq!(host.client().post("/rogue", r#"{"do":"get","key":"n"}"#).json()["value"], "10");
}
