//! Connections over TCP of agents: to a server with a line protocol, as databases have one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caxton_tests::{Host, Setup};
use serde_json::{Value, json};

use crate::rollouts::install;
use crate::shadowing::install_equal_component;
use crate::{BINARY, file, metric};

/// A server that answers each line in capitals, and the end of what it is sent with the number of bytes.
struct LineServer {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    open: AtomicU64,
}

impl LineServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let counts = Arc::<Counts>::default();
        let seen = Arc::clone(&counts);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                seen.accepted.fetch_add(1, Ordering::SeqCst);
                seen.open.fetch_add(1, Ordering::SeqCst);
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || {
                    serve(&stream);
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, counts }
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::SeqCst)
    }

    fn open(&self) -> u64 {
        self.counts.open.load(Ordering::SeqCst)
    }
}

fn serve(stream: &TcpStream) {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    let mut bytes = 0;
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(1 << 20).read_until(b'\n', &mut line) {
            Ok(read @ 1..) => bytes += read,
            Ok(0) => {
                let _ = writer.write_all(bytes.to_string().as_bytes());
                return;
            }
            Err(_) => return,
        }
        if line.ends_with(b"\n") && writer.write_all(&line.to_ascii_uppercase()).is_err() {
            return;
        }
    }
}

fn visitor(places: &str, outgoing: &str, more: &str) -> String {
    file(&format!(
        "[outgoing]\n{outgoing}\n[agents.visitor]\ncomponent = \"GUEST(visitor)\"\nallow.tcp = [{places}]\n{more}\n\
         [[agents.visitor.http]]\nroute = \"/visitor\"\n"
    ))
}

fn host(places: &str, outgoing: &str, more: &str) -> Host {
    Setup::new(BINARY, &visitor(places, outgoing, more)).start()
}

/// Lets the agent do something with sockets.
fn act(host: &Host, mut action: Value) -> Value {
    action["do"] = "socket".into();
    let reply = host.client().post("/visitor", action.to_string());
    serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("{}: {}", reply.status, reply.text()))
}

fn ask(host: &Host, to: &str) -> Value {
    act(host, json!({ "what": "ask", "to": to, "line": "select one" }))
}

fn connect(host: &Host, port: u16) -> Value {
    act(host, json!({ "what": "connect", "address": [127, 0, 0, 1], "port": port }))
}

fn log(host: &Host) -> String {
    host.caxton(&["logs", "visitor", "--tail", "1000"]).1
}

fn until_logged(host: &mut Host, text: &str) {
    host.until(&format!("the line {text:?}"), |host| log(host).contains(text).then_some(()));
}

#[test]
fn a_granted_place_is_connected_to_by_name_and_by_address() {
    let server = LineServer::start();
    let port = server.port();
    let places = format!("{{ to = \"db.example:{port}\", private = true }}, \"127.0.0.1:{port}\"");
    let mut host = host(&places, "", "");
    host.order("resolve db.example 127.0.0.1");
    let answer = json!({ "ok": "SELECT ONE" });
    assert_eq!(ask(&host, &format!("db.example:{port}")), answer);
    assert_eq!(ask(&host, &format!("127.0.0.1:{port}")), answer);
    assert_eq!(act(&host, json!({ "what": "resolve", "name": "DB.example." })), json!({ "ok": ["127.0.0.1"] }));
    // More than all buffers on the way hold, in one go.
    let bytes = 8 << 20;
    let sent = act(&host, json!({ "what": "send", "to": format!("127.0.0.1:{port}"), "bytes": bytes }));
    assert_eq!(sent, json!({ "ok": bytes.to_string() }));
    host.until("the connections end", |_| (server.open() == 0).then_some(()));
    assert_eq!(server.accepted(), 3);
    let counted = |place: &str| {
        let line =
            format!("caxton_outgoing_connections_total{{agent=\"visitor\",place=\"{place}\",result=\"connected\"}}");
        metric(&host, &line)
    };
    // The address itself is the more exact one of the two.
    let (by_address, by_name) = (counted(&format!("127.0.0.1:{port}")), counted(&format!("db.example:{port}")));
    assert_eq!(by_address + by_name, 3);
    let sent =
        format!("caxton_outgoing_bytes_total{{agent=\"visitor\",place=\"127.0.0.1:{port}\",direction=\"sent\"}}");
    assert!(metric(&host, &sent) >= bytes);
    let (code, told, words) = host.caxton(&["check", "-o", "json"]);
    assert!(code == 0 && told.contains(&format!("allow.tcp = 127.0.0.1:{port}, db.example:{port}")), "{told}{words}");
}

#[test]
fn what_no_place_has_is_refused() {
    let (server, other) = (LineServer::start(), LineServer::start());
    let places = format!("{{ to = \"db.example:{}\", private = true }}, \"10.9.0.0/16:5432\"", server.port());
    let mut host = host(&places, "", "");
    host.order("resolve db.example 127.0.0.1");
    host.order("resolve other.example 127.0.0.1");
    // An address that no name has led to, a name, and a port.
    assert_eq!(connect(&host, server.port()), json!({ "error": "access-denied" }));
    assert_eq!(act(&host, json!({ "what": "resolve", "name": "other.example" })), json!({ "error": "access-denied" }));
    assert!(ask(&host, &format!("other.example:{}", server.port()))["error"].is_string());
    assert!(ask(&host, &format!("db.example:{}", other.port()))["error"].is_string());
    assert_eq!(server.accepted() + other.accepted(), 0);
    for line in [
        format!(
            "its connection to `127.0.0.1:{0}` was refused: no place of `allow.tcp` has this host; it needs one such as \
             \"127.0.0.1:{0}\" (access-denied)",
            server.port()
        ),
        "its connection to `other.example` was refused: no place of `allow.tcp` has this host".to_owned(),
        format!("`allow.tcp` has `db.example:{}`, which is another port (access-denied)", server.port()),
    ] {
        until_logged(&mut host, &line);
    }
    let refused = "caxton_outgoing_connections_total{agent=\"visitor\",place=\"none\",result=\"access-denied\"}";
    assert!(metric(&host, refused) >= 4);
    host.until("the event", |host| {
        let (_, events, _) = host.caxton(&["events", "-o", "json"]);
        (events.contains("outgoing.refused") && events.contains("tcp://127.0.0.1:")).then_some(())
    });
    // Nobody listens, binds or sends datagrams.
    let told = act(&host, json!({ "what": "listen" }));
    assert_eq!(told, json!({ "bind": { "error": "access-denied" }, "listen": { "error": "access-denied" } }));
}

#[test]
fn a_name_that_leads_inside_needs_a_private_place() {
    let server = LineServer::start();
    let port = server.port();
    let mut host = host(&format!("\"db.example:{port}\""), "connect-timeout = \"200ms\"", "limits.time = \"1m\"");
    for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.1", "169.254.169.254", "fd00:ec2::254"] {
        host.order(&format!("resolve db.example {address}"));
        let told = act(&host, json!({ "what": "resolve", "name": "db.example" }));
        assert_eq!(told, json!({ "error": "access-denied" }), "{address}");
    }
    // In turn, and both at once: the guest sees the good one alone, and connects to no other.
    for addresses in ["93.184.215.14", "127.0.0.1,93.184.215.14", "93.184.215.14,127.0.0.1"] {
        host.order(&format!("resolve db.example {addresses}"));
        let told = act(&host, json!({ "what": "resolve", "name": "db.example" }));
        assert_eq!(told, json!({ "ok": ["93.184.215.14"] }), "{addresses}");
        assert!(ask(&host, &format!("db.example:{port}"))["error"].is_string());
        assert_eq!(connect(&host, port), json!({ "error": "access-denied" }));
    }
    assert_eq!(server.accepted(), 0);
    until_logged(&mut host, "has no address that it may have; `private = true` allows those of this machine");
}

#[test]
fn servers_that_refuse_or_are_not_there_have_the_codes_of_the_standard() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let places = format!("\"127.0.0.1:{closed}\", \"nowhere.invalid:1\"");
    let mut host = host(&places, "", "");
    assert_eq!(connect(&host, closed), json!({ "error": "connection-refused" }));
    let told = act(&host, json!({ "what": "resolve", "name": "nowhere.invalid" }));
    assert!(told["error"] == "name-unresolvable" || told["error"] == "timeout", "{told}");
    until_logged(&mut host, "failed: the connection was refused (connection-refused)");
}

#[test]
fn a_connection_ends_with_its_message() {
    let server = LineServer::start();
    let to = format!("127.0.0.1:{}", server.port());
    let mut host = host(&format!("\"{to}\""), "", "instances.max = 1\nlimits.time = \"1m\"");
    assert_eq!(act(&host, json!({ "what": "keep", "to": to })), json!({ "ok": "kept" }));
    host.until("the connection ends", |_| (server.open() == 0 && server.accepted() == 1).then_some(()));
    // The same instance, with the socket in its memory.
    let told = act(&host, json!({ "what": "ask-kept", "line": "again" }));
    assert!(told["error"].is_string() || told["ok"] == "", "{told}");
    assert_ne!(told["error"], "nothing is kept");
    assert_eq!(ask(&host, &to), json!({ "ok": "SELECT ONE" }));
}

#[test]
fn connections_at_once_are_bounded() {
    let server = LineServer::start();
    let outgoing = "connections = 4\nconnections-per-message = 50\nconnect-timeout = \"300ms\"";
    let places = format!("\"127.0.0.1:{}\"", server.port());
    let limits = "limits = { time = \"1m\", cpu = \"30s\", memory = \"256MiB\" }";
    let mut host = host(&places, outgoing, limits);
    let connects = |host: &Host, count: usize| {
        let what = json!({ "what": "connects", "address": [127, 0, 0, 1], "port": server.port(), "count": count });
        act(host, what)
    };
    // Four have a place, the others wait in vain.
    let told = connects(&host, 10);
    assert_eq!(told, json!({ "connected": 4, "new-socket-limit": 6 }));
    host.until("they end", |_| (server.open() == 0).then_some(()));
    let told = connects(&host, 10_000);
    assert_eq!(told["connected"], 4, "{told}");
    assert_eq!(told["new-socket-limit"], 9_996, "{told}");
    until_logged(&mut host, "no other connection ended in time (outgoing.connections) (new-socket-limit)");
    until_logged(
        &mut host,
        "handling one message may make 50 connections (outgoing.connections-per-message) (new-socket-limit)",
    );
    host.until("they end", |_| (server.open() == 0).then_some(()));
    assert_eq!(ask(&host, &format!("127.0.0.1:{}", server.port())), json!({ "ok": "SELECT ONE" }), "the host is well");
}

#[test]
fn an_agent_without_places_is_denied_as_ever() {
    let server = LineServer::start();
    let host = host("", "", "");
    assert_eq!(connect(&host, server.port()), json!({ "error": "access-denied" }));
    assert_eq!(
        act(&host, json!({ "what": "resolve", "name": "db.example" })),
        json!({ "error": "permanent-resolver-failure" })
    );
    assert_eq!(server.accepted(), 0);
}

#[test]
fn a_copy_of_a_message_connects_to_nobody_and_the_difference_says_so() {
    let server = LineServer::start();
    let to = format!("127.0.0.1:{}", server.port());
    let toml =
        visitor(&format!("\"{to}\""), "", "reload = { strategy = \"parallel\", for = \"1h\", min-messages = 1 }")
            .replace("GUEST(visitor)", "agent.wasm");
    let setup = Setup::new(BINARY, &toml);
    install(setup.folder(), "visitor");
    let mut host = setup.start();
    install_equal_component(host.folder(), "visitor");
    let rollout = |host: &Host| host.api().get("/v1/rollouts/visitor").json()[0].clone();
    host.until("copies are made", |host| {
        rollout(host)["why"].as_str().is_some_and(|why| why.contains("copies to judge by")).then_some(())
    });
    assert_eq!(ask(&host, &to), json!({ "ok": "SELECT ONE" }));
    host.until("the end of the rollout", |host| (rollout(host)["status"] == "rolled-back").then_some(()));
    assert_eq!(server.accepted(), 1, "of the live message");
    let found = host.api().get("/v1/rollouts/visitor/differences").json();
    let differences = found["messages"][0]["differences"].as_array().cloned().unwrap_or_default();
    let of_call = differences.iter().find(|found| found["path"] == "calls[0]");
    let of_call = of_call.unwrap_or_else(|| panic!("the connection is among {found}"));
    assert_eq!(of_call["stable"], format!("connect to {to}"));
    let refused = format!("connect to {to}, refused: a copy of a message makes no connection (access-denied)");
    assert_eq!(of_call["candidate"], refused);
}
