//! The small applications in `components`, under realistic use: many callers at once, bad input among good, thousands
//! of timers.

use std::sync::Barrier;

use caxton_tests::{Client, Host};
use serde_json::{Value, json};

use crate::host;

/// Posts all bodies at the same moment, each from a client of its own. Returns statuses and responses.
fn at_once(host: &Host, path: &str, bodies: &[String]) -> Vec<(u16, String)> {
    let barrier = Barrier::new(bodies.len());
    std::thread::scope(|scope| {
        let post = |body: &String| {
            let (barrier, address, body) = (&barrier, host.http.as_str(), body.clone());
            scope.spawn(move || {
                let client = Client::new(address, None);
                barrier.wait();
                let reply = client.post(path, body);
                (reply.status.as_u16(), reply.text())
            })
        };
        let threads: Vec<_> = bodies.iter().map(post).collect();
        threads.into_iter().map(|thread| thread.join().expect("it is answered")).collect()
    })
}

const CHAT: &str = "[agents.chat]\ncomponent = \"GUEST(chat)\"\n";

fn chat(more: &str) -> Host {
    host(&format!("{CHAT}[[agents.chat.http]]\nroute = \"/rooms/{{room}}\"\n{more}"))
}

#[test]
fn a_chat_keeps_all_concurrent_messages() {
    // With a conversation for each room, and without: then those who write in one room at once run again.
    for conversation in ["conversation = \"room-{room}\"\n", ""] {
        let mut host = chat(conversation);
        let mut count = 0;
        for callers in [16, 128] {
            let texts: Vec<String> = (0..callers).map(|n| format!("{callers}-{n}")).collect();
            let answers = at_once(&host, "/rooms/a", &texts);
            let mut numbers: Vec<u64> = answers
                .iter()
                .map(|(status, answer)| {
                    assert_eq!(*status, 200, "{conversation}{answer}");
                    answer.parse().expect("a number")
                })
                .collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (count + 1..=count + callers).collect::<Vec<_>>(), "{conversation}");
            count += callers;
            let said = host.client().get("/rooms/a").json();
            let kept =
                |text: &String| said.as_array().is_some_and(|said| said.iter().any(|said| said["text"] == **text));
            assert!(texts.iter().all(kept), "{conversation}{said}");
        }
        host = host.kill().start();
        let said = host.client().get("/rooms/a").json();
        assert_eq!(said.as_array().map(Vec::len), Some(144), "what was answered outlasts the host");
    }
}

#[test]
fn a_crawler_gets_through_all_good_pages_and_gives_up_the_bad_ones() {
    let role = |name: &str, role: &str, more: &str| {
        format!("[agents.{name}]\ncomponent = \"GUEST(crawler)\"\nconfig = {{ role = \"{role}\" }}\n{more}\n")
    };
    let crawl = "capabilities = [\"crawler\"]\nallow = { send = [\"index\"] }\n\
                 mailbox = { depth = 5_000, attempts = 3, backoff = { first = \"100ms\", max = \"1s\" } }";
    let pool = ["one", "two", "three"].map(|name| role(name, "crawl", crawl)).concat();
    let seed = role(
        "seed",
        "seed",
        "allow = { send = [\"cap:crawler\"] }\nlimits = { sends = 5_000 }\n[[agents.seed.http]]\nroute = \"/seed\"",
    );
    let mut host = host(&(seed + &pool + &role("index", "index", "")));
    // Every fiftieth page is one that the crawler traps on.
    let page = |n: usize| if n % 50 == 49 { "<a" } else { "see <a> and <b>" };
    let pages: Vec<&str> = (0..2_000).map(page).collect();
    assert_eq!(host.client().post("/seed", json!(pages).to_string()).text(), "2000");
    host.until("all good pages", |host| {
        (host.caxton(&["state", "get", "index", "pages"]).1.trim() == "1960").then_some(())
    });
    host.until("all bad pages", |host| {
        let agents = host.api().get("/v1/agents").json();
        let given_up = |agent: &Value| agent["dead_letters"].as_u64().unwrap_or(0);
        (agents.as_array()?.iter().map(given_up).sum::<u64>() == 40).then_some(())
    });
    assert_eq!(host.caxton(&["state", "get", "index", "links"]).1.trim(), "3920");
}

#[test]
fn ten_thousand_timers_leave_room_for_messages() {
    let mut host = host(
        "[agents.report]\ncomponent = \"GUEST(report)\"\n[[agents.report.http]]\nroute = \"/sales\"\n\
         [[agents.report.schedule]]\ncron = \"* * * * * *\"\ncontent = \"nightly\"\n",
    );
    let amounts = json!(vec![1; 1_000]).to_string();
    for _ in 0..10 {
        let reply = host.client().post("/sales", amounts.clone());
        assert!(reply.status.is_success(), "{}", reply.text());
    }
    host = host.kill().start();
    // Whatever night each of them fell into, all are in one report.
    host.until("all sales are reported", |host| {
        let sales = host.client().get("/sales").json();
        let reported: i64 = sales["reports"].as_object()?.values().filter_map(Value::as_i64).sum();
        assert!(reported + sales["today"].as_i64()? <= 10_000, "{sales}");
        (reported == 10_000 && sales["today"] == 0 && sales["asked"] == 0).then_some(())
    });
    assert_eq!(host.agent("report")["timers"], 10_000);
    assert_eq!(host.agent("report")["dead_letters"], 0);
}
