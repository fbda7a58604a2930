//! The whole program under load: `cargo bench -p caxton-benches --bench load [-- NAME...]`.
//!
//! Every figure is a ratio of two measurements of this run, taken in turn, or a time printed beside its goal. Names:
//! `http`, `peers`, `fresh`, `contended`, `messages`, `first`, `many`, `outgoing`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use caxton_benches::{
    Load, Request, Server, agent, bare_client, bare_hyper, build_guests, chains, drive, exchange, guest,
    guests_calling, host, median, relays, wasmtime_serve,
};
use http_body_util::{BodyExt, Full};

const HOST: &str = env!("CARGO_BIN_EXE_caxton-benched");
/// The duration of one measurement, and the number of rounds.
const TIME: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;
/// The settings of an HTTP agent whose instances are reused.
const REUSED: &str = "instances = { reuse = 1000 }";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if arguments.first().is_some_and(|argument| argument == "bare-hyper") {
        return serve_bare();
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    build_guests();
    if wanted("http") {
        against_hyper();
    }
    if wanted("peers") {
        against_wasmtime();
    }
    if wanted("fresh") {
        fresh_instances();
    }
    if wanted("contended") {
        contended();
    }
    if wanted("messages") {
        messages();
    }
    if wanted("first") {
        first_calls();
    }
    if wanted("many") {
        many_agents();
    }
    if wanted("outgoing") {
        outgoing_calls();
    }
}

fn echo(address: &str, path: &str) -> Request {
    Request { address: address.to_owned(), path: path.to_owned(), body: b"Hello, are you there?".to_vec() }
}

/// Measures two servers in turn, so that changes of the machine's speed affect both. Prints both and the ratio of the
/// first to the second.
fn compare(title: &str, ours: &Request, theirs: &Request, goal: &str) {
    for connections in [1, 16, 64] {
        let (mut ratios, mut tails) = (Vec::new(), Vec::new());
        let (mut last, mut other) = (None, None);
        for _ in 0..ROUNDS {
            let a = drive(ours, connections, TIME);
            let b = drive(theirs, connections, TIME);
            ratios.push(a.rate / b.rate);
            tails.push(a.p99_us / b.p99_us);
            (last, other) = (Some(a), Some(b));
        }
        let show = |load: Option<Load>| {
            load.map_or_else(String::new, |l| {
                format!("{:>6.0}/s p50 {:>5.0} us p99 {:>6.0} us", l.rate, l.p50_us, l.p99_us)
            })
        };
        println!(
            "{title:<46} {connections:>2} connections: {:.2} x ({goal}), p99 {:.2} x | ours {} | theirs {}",
            median(&mut ratios),
            median(&mut tails),
            show(last),
            show(other)
        );
    }
}

fn against_hyper() {
    let (caxton, _) = host(HOST, &format!("caxton = 1\n{}", agent("echo", "echo", "")));
    let bare = bare_hyper();
    compare(
        "warm Rust echo agent / bare hyper echo",
        &echo(&caxton.address, "/echo"),
        &echo(&bare.address, "/"),
        "goal 0.60",
    );
}

fn against_wasmtime() {
    // By default both create an instance for every request to a component of WASI 0.2.
    for (title, reuse, settings, goal) in [
        ("HTTP agent / wasmtime serve, both as they ship", None, "", "goal 2.00"),
        ("HTTP agent reused / wasmtime serve as it ships", None, REUSED, "goal 2.00"),
        ("HTTP agent / wasmtime serve, reused 1000 times", Some(1_000), REUSED, "bound by the connection"),
    ] {
        let component = guest("web-echo");
        match wasmtime_serve(&component, reuse) {
            Err(why) => println!("{title:<46} not measured: {why}"),
            Ok(theirs) => {
                let (caxton, _) = host(HOST, &format!("caxton = 1\n{}", agent("web", "web-echo", settings)));
                let request = |server: &Server, path: &str| Request {
                    address: server.address.clone(),
                    path: path.to_owned(),
                    body: Vec::new(),
                };
                compare(title, &request(&caxton, "/web"), &request(&theirs, "/"), goal);
            }
        }
    }
}

/// Compares fresh instances for each request of an HTTP agent, cold and warm, with reused instances.
fn fresh_instances() {
    let agents = agent("fresh", "web-echo", "")
        + &agent("warm", "web-echo", "instances = { min = 4 }")
        + &agent("reused", "web-echo", REUSED);
    let (caxton, _) = host(HOST, &format!("caxton = 1\n{agents}"));
    let request = |path: &str| Request { address: caxton.address.clone(), path: path.to_owned(), body: Vec::new() };
    compare("HTTP agent, fresh instances / reused", &request("/fresh"), &request("/reused"), "no goal");
    compare("the same with four kept warm / reused", &request("/warm"), &request("/reused"), "no goal");
}

/// Compares handlers that all read and write one key with the same handlers run one after the other.
fn contended() {
    let line = format!("{}\n[agents.line.mailbox]\norder = \"agent\"\n", agent("line", "rogue", ""));
    let (caxton, _) = host(HOST, &format!("caxton = 1\n{}{line}", agent("free", "rogue", "")));
    for (title, between) in [("at once", ""), ("after 1 ms on a core", r#"{"do":"spin","ms":1},"#)] {
        let body =
            format!(r#"{{"do":"steps","steps":[{{"do":"get","key":"n"}},{between}{{"do":"increment","key":"n"}}]}}"#);
        let request = |path: &str| Request {
            address: caxton.address.clone(),
            path: path.to_owned(),
            body: body.clone().into_bytes(),
        };
        let title = format!("one key, written {title} / order = agent");
        compare(&title, &request("/free"), &request("/line"), "goal 0.80");
    }
}

/// Measures messages from agent to agent through real components.
fn messages() {
    let (caxton, _) = host(HOST, &relays("memory"));
    for (count, hops) in [(1u32, 999_990u32), (16, 99_990), (1_000, 1_990)] {
        let mut rates: Vec<f64> = (0..ROUNDS).map(|_| chains(&caxton, "ping", b's', count, hops)).collect();
        let rate = median(&mut rates);
        let each = if count == 1 { format!(", {:.2} us a hop (goal 5)", 1e6 / rate) } else { String::new() };
        println!("agent to agent, {count:>4} chains: {rate:>8.0} messages/s (goal 300000){each}");
    }
}

/// Measures the first call of an agent without an instance, and of one with an instance.
fn first_calls() {
    const AGENTS: usize = 200;
    let (mut cold, mut warm, mut later) = (Vec::new(), Vec::new(), Vec::new());
    let names = |kind: &str| (0..AGENTS).map(move |n| format!("{kind}{n:03}")).collect::<Vec<_>>();
    let mut toml = "caxton = 1\n".to_owned();
    for name in names("cold") {
        toml += &agent(&name, "echo", "");
    }
    for name in names("warm") {
        toml += &agent(&name, "echo", "instances = { min = 1 }");
    }
    let (caxton, _) = host(HOST, &toml);
    let mut stream = TcpStream::connect(&caxton.address).expect("the host listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let mut time = |name: &str| {
        let began = Instant::now();
        ask(&mut stream, &caxton.address, &format!("/{name}"), b"hi");
        began.elapsed().as_secs_f64() * 1e6
    };
    for _ in 0..AGENTS {
        // Warms up the connection and the code on both sides.
        time("warm000");
    }
    for (a, b) in names("cold").iter().zip(names("warm")) {
        cold.push(time(a));
        later.push(time(a));
        warm.push(time(&b));
    }
    let (cold, warm, later) = (median(&mut cold), median(&mut warm), median(&mut later));
    println!("first call without an instance: {cold:.0} us (goal 2000); later calls {later:.0} us");
    println!("first call of a warm instance: {:.0} us over a later call (goal 50)", warm - later);
}

/// Compares ten thousand agents of one component with ten.
fn many_agents() {
    let file = |count: usize, first: &str| {
        let agents = (0..count).map(|n| agent(&format!("a{n:05}"), "echo", if n == 0 { first } else { "" }));
        format!("caxton = 1\n{}", agents.collect::<String>())
    };
    let (few, _) = host(HOST, &file(10, ""));
    let (many, ready) = host(HOST, &file(10_000, ""));
    let resident = many.resident() as f64 / 1e6;
    println!("10000 agents: ready in {:.2} s (goal 10), {resident:.0} MB resident (goal 300)", ready.as_secs_f64());
    let path = many.folder().join("caxton.toml");
    let began = Instant::now();
    std::fs::write(&path, file(10_000, "limits = { memory = \"32MiB\" }")).expect("the folder can be written to");
    let head = format!("authorization: Bearer {}\r\n", many.token());
    while !exchange(&many.admin, "GET", "/v1/agents/a00000", &head, &[]).contains("a00000@2") {}
    println!("10000 agents: a change of one runs after {:.2} s (goal 1)", began.elapsed().as_secs_f64());
    let request = |server: &Server| echo(&server.address, "/a00007");
    compare("a call among 10000 agents / among 10", &request(&many), &request(&few), "goal 1.00");
}

/// Compares calls of agents over the host with those of a bare client to the same server, in turn.
fn outgoing_calls() {
    let bare = bare_hyper();
    let settings = format!(
        "allow.http = [\"http://{}\"]\ninstances = {{ max = 64 }}\nlimits = {{ time = \"5m\", cpu = \"1m\" }}",
        bare.address
    );
    let toml = format!("caxton = 1\n[outgoing]\ncalls-per-message = 100000\n{}", agent("caller", "caller", &settings));
    let (caxton, _) = host(HOST, &toml);
    let url = format!("http://{}/", bare.address);
    for (callers, calls) in [(1, 5_000), (16, 1_000), (64, 500)] {
        let (mut ratios, mut own) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let ours = guests_calling(&caxton, &url, callers, calls);
            let theirs = bare_client(&url, callers, calls);
            ratios.push(ours.rate / theirs.rate);
            own.push(ours.p50_us - theirs.p50_us);
            println!(
                "  {callers:>2} at once: ours {:>6.0}/s p50 {:>5.0} us p99 {:>6.0} us | bare {:>6.0}/s p50 {:>5.0} us p99 {:>6.0} us",
                ours.rate, ours.p50_us, ours.p99_us, theirs.rate, theirs.p50_us, theirs.p99_us
            );
        }
        let rate = median(&mut ratios);
        if callers == 1 {
            // Only here: with more at once a call waits for its turn on a core, and the difference is of the rates.
            let own = median(&mut own);
            println!("calls over HTTP / a bare hyper client, one at once: {rate:.2} x, own cost {own:.0} us (goal 60)");
        } else {
            println!("calls over HTTP / a bare hyper client, {callers} at once: {rate:.2} x (goal 0.50)");
        }
    }
}

/// Sends one request on a kept connection and reads the response.
fn ask(stream: &mut TcpStream, address: &str, path: &str, body: &[u8]) {
    let request = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[request.as_bytes(), body].concat()).expect("the server reads");
    let mut buffer = [0; 4_096];
    let mut response = Vec::new();
    while !response.ends_with(body) {
        let read = stream.read(&mut buffer).expect("the server answers");
        assert!(read > 0, "the server closed the connection");
        response.extend_from_slice(&buffer[..read]);
    }
    assert!(response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&response));
}

/// Runs a bare hyper server that reads a body and returns it.
fn serve_bare() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("an address"));
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a TCP socket");
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async {
                let body = request.into_body().collect().await?.to_bytes();
                Ok::<_, hyper::Error>(http::Response::new(Full::<Bytes>::new(body)))
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(hyper_util::rt::TokioIo::new(stream), service),
            );
        }
    });
}
