//! Payments: an agent pays at a server of this test while the host is killed. The server's books say how often it was asked,
//! and the host's what became of each message.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use caxton_tests::{Client, Host, Setup};
use http::Method;
use rand::Rng;
use serde_json::{Value, json};

use crate::{BINARY, chance, check, seconds, seeds, setting, until, until_rest};

/// The requests that a server got: the payment and the idempotency key of each.
type PaymentRequests = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A server that takes payments, until the test ends.
struct PaymentServer {
    address: SocketAddr,
    requests: PaymentRequests,
}

impl PaymentServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, requests) = (listener.local_addr().expect("an address"), PaymentRequests::default());
        let books = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let books = Arc::clone(&books);
                std::thread::spawn(move || serve(stream, &books));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<(String, Option<String>)> {
        self.requests.lock().expect("no thread panics with it").clone()
    }

    /// Returns the number of payments by their name: requests, or keys where these are honoured.
    fn payments(&self, honours_keys: bool) -> BTreeMap<String, usize> {
        let mut made: BTreeMap<String, usize> = BTreeMap::new();
        let mut keys = BTreeSet::new();
        for (id, key) in self.requests() {
            let is_new = key.is_none_or(|key| keys.insert(key)) || !honours_keys;
            *made.entry(id).or_default() += usize::from(is_new);
        }
        made
    }
}

/// Serves the requests of a connection. A payment is made once its body is here.
fn serve(stream: TcpStream, books: &PaymentRequests) {
    let Ok(mut writing) = stream.try_clone() else { return };
    let mut reading = BufReader::new(stream);
    loop {
        let (mut length, mut key, mut line) = (0, None, String::new());
        loop {
            line.clear();
            if !reading.read_line(&mut line).is_ok_and(|read| read > 0) {
                return;
            }
            let Some((name, value)) = line.trim().split_once(':') else {
                if line.trim().is_empty() {
                    break;
                }
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().expect("a length"),
                "idempotency-key" => key = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        if reading.read_exact(&mut body).is_err() {
            return;
        }
        let id = String::from_utf8(body).expect("a name");
        let paid = format!("paid {id}");
        books.lock().expect("no thread panics with it").push((id, key));
        let head = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n", paid.len());
        if writing.write_all(format!("{head}{paid}").as_bytes()).is_err() {
            return;
        }
    }
}

fn file(bank: &PaymentServer, place: &str) -> String {
    format!(
        r#"
        caxton = 1
        [agents.payer]
        component = "GUEST(caller)"
        instances = {{ max = 4 }}
        allow.http = [{{ url = "http://{}/*", journal = true, {place} }}]
        limits = {{ cpu = "10s", time = "60s" }}
        mailbox = {{ depth = 100000, attempts = 5, backoff = {{ first = "100ms" }} }}
        breaker = {{ faults = 100, reset = "5s" }}
        [[agents.payer.http]]
        route = "/pay"
        mode = "enqueue"
        "#,
        bank.address
    )
}

/// The payments that were asked for; set for those that the host said it has.
type AskedPayments = Arc<Mutex<BTreeMap<String, bool>>>;

/// Asks for payments until it is stopped, or the host ends.
fn pay(address: &str, bank: &str, asked: &AskedPayments, who: &str, stop: &AtomicBool) {
    let client = Client::new(address, None);
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let id = format!("{who}-{number}");
        asked.lock().expect("no thread panics with it").insert(id.clone(), false);
        // Some fail after they have paid, and some read what others write.
        let (trap_until, shared) = (if number % 4 == 0 { 2 } else { 0 }, (number % 3 == 0).then_some("sum"));
        let order = json!({
            "do": "pay", "call": { "method": "POST", "url": format!("http://{bank}/pay"), "body": id }, "id": id,
            "trap-until": trap_until, "shared": shared,
        });
        let Ok(reply) = client.try_send(Method::POST, "/pay", &[], order.to_string()) else { return };
        assert_eq!(reply.status.as_u16(), 202, "{}", reply.text());
        asked.lock().expect("no thread panics with it").insert(id, true);
    }
}

/// Lets a host live until it is killed at a random moment.
fn live(setup: Setup, bank: &PaymentServer, asked: &AskedPayments, (seed, number): (u64, u64)) -> Setup {
    let mut chance = chance(seed, 9 << 8, number);
    let mut host = setup.start();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..2)
        .map(|client| {
            let (address, bank, asked) = (host.http.clone(), bank.address.to_string(), Arc::clone(asked));
            let (who, stop) = (format!("s{seed}k{number}c{client}"), Arc::clone(&stop));
            std::thread::spawn(move || pay(&address, &bank, &asked, &who, &stop))
        })
        .collect();
    let most = bank.requests().len() + chance.random_range(1..60);
    until("payments", &mut host, |_| bank.requests().len() >= most);
    for _ in 0..chance.random_range(0..3_000) {
        std::thread::yield_now();
    }
    let setup = host.kill();
    stop.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().expect("a client ends with the host"));
    setup
}

/// Returns the payments that were given up, with their reason.
fn given_up(host: &Host) -> BTreeMap<String, String> {
    let (api, mut after, mut found) = (host.api(), 0, BTreeMap::new());
    loop {
        let page = api.get(&format!("/v1/dead-letters?after={after}")).json();
        for dead in page["dead_letters"].as_array().expect("a list") {
            let shown = api.get(&format!("/v1/dead-letters/{}", dead["number"])).json();
            let order: Value = serde_json::from_str(shown["text"].as_str().expect("text")).expect("JSON");
            let text = |value: &Value| value.as_str().expect("a text").to_owned();
            found.insert(text(&order["id"]), text(&dead["reason"]));
        }
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => return found,
        }
    }
}

/// Kills hosts, and compares the books of all.
fn run(place: &str, has_keys: bool) {
    let (kills, began) = (setting("CAXTON_CRASH_KILLS", 15), Instant::now());
    let seed = seeds().next().expect("a seed");
    let (bank, asked) = (PaymentServer::start(), AskedPayments::default());
    let mut setup = Setup::new(BINARY, &file(&bank, place));
    for number in 1..=kills {
        setup = live(setup, &bank, &asked, (seed, number));
        println!(
            "{place}: kill {number} of {kills}: {} payments asked for, {} requests; {}",
            asked.lock().expect("no thread panics with it").len(),
            bank.requests().len(),
            seconds(began)
        );
    }
    let mut host = setup.start();
    until_rest(&mut host);
    let given_up = given_up(&host);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    let books = rusqlite::Connection::open(setup.folder().join(".caxton/caxton.db")).expect("the store");
    let noted = |id: &str| -> i64 {
        let sql = "SELECT CAST(CAST(value AS TEXT) AS INTEGER) FROM state WHERE agent = 'payer' AND key = ?1";
        books.query_row(sql, [format!("paid/{id}")], |row| row.get(0)).unwrap_or(0)
    };
    let rows = |table: &str| -> i64 {
        books.query_row(&format!("SELECT count(DISTINCT seq) FROM {table}"), [], |row| row.get(0)).expect("a count")
    };
    let (requests, payments) = (bank.payments(false), bank.payments(has_keys));
    let mut wrong = Vec::new();
    let asked = asked.lock().expect("no thread panics with it");
    for (id, is_accepted) in asked.iter() {
        let count = |books: &BTreeMap<String, usize>| books.get(id).copied().unwrap_or(0);
        let (asked_for, made, noted) = (count(&requests), count(&payments), noted(id));
        let story = format!("{id}: {asked_for} requests, {made} payments, noted {noted} times, {:?}", given_up.get(id));
        let is_well = match given_up.get(id).map(String::as_str) {
            // Settled: the server was asked, once or with the same key.
            None if noted == 1 => made == 1 && (has_keys || asked_for == 1),
            // Never accepted, and so nothing of it is there.
            None => !is_accepted && noted == 0 && asked_for == 0,
            // Nobody knows, and nobody asked twice.
            Some("unknown-outcome") => !has_keys && noted == 0 && asked_for <= 1,
            Some(_) => false,
        };
        if !is_well {
            wrong.push(story);
        }
    }
    check(place, &wrong);
    assert_eq!(rows("journal"), rows("dead"), "records leave with their messages");
    let repeated = requests.values().filter(|count| **count > 1).count();
    println!(
        "{place}: {} payments, {} unknown, {repeated} asked for again with their key; {}",
        asked.len(),
        given_up.len(),
        seconds(began)
    );
}

#[test]
fn payments_with_a_key_are_made_once_and_end_well() {
    run("idempotency = \"header\"", true);
}

#[test]
fn payments_with_a_journal_alone_are_made_once_or_told_as_unknown() {
    run("private = true", false);
}
