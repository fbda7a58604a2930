//! A data folder that is removed or exchanged under a running host.

use std::fs;
use std::path::Path;
use std::process::Command;

use caxton_tests::{Client, Host, Setup};
use http::Method;

use crate::{BINARY, Writers, agent, file, host};

/// A way to lose the data folder.
type Exchange = fn(&Path);

fn counter() -> Host {
    let host = host(&agent("counter", "counter", "instances = { max = 4 }"));
    assert_eq!(host.client().post("/counter", r#"{"by": 1}"#).json()["count"], 1);
    host
}

fn count(host: &Host) -> u64 {
    host.client().post("/counter", r#"{"by": 0}"#).json()["count"].as_u64().expect("a count")
}

const EXCHANGES: [(&str, Exchange); 5] = [
    ("removed", |folder| fs::remove_dir_all(folder.join(".caxton")).expect("it can be removed")),
    ("moved away", |folder| fs::rename(folder.join(".caxton"), folder.join("aside")).expect("it can be moved")),
    ("exchanged", |folder| {
        fs::rename(folder.join(".caxton"), folder.join("aside")).expect("it can be moved");
        fs::create_dir(folder.join(".caxton")).expect("it can be made");
    }),
    ("exchanged for a copy", |folder| {
        fs::rename(folder.join(".caxton"), folder.join("aside")).expect("it can be moved");
        let copied = Command::new("cp").args(["-r", "aside", ".caxton"]).current_dir(folder).status();
        assert!(copied.expect("it can be copied").success());
    }),
    ("without its database", |folder| fs::remove_file(folder.join(".caxton/caxton.db")).expect("it can be removed")),
];

#[test]
fn an_idle_host_notices_that_its_folder_is_lost_and_ends() {
    for (what, exchange) in EXCHANGES {
        let mut host = counter();
        exchange(host.folder());
        assert_eq!(host.ended(), 1, "{what}: {}", host.output());
        let said = host.output();
        assert!(
            said.contains("is not the one that this host opened") && said.contains("could not go on"),
            "{what}: {said}"
        );
        assert!(
            !host.folder().join(".caxton/logs").exists() || what.contains("copy") || what.contains("database"),
            "{what}"
        );
    }
}

#[test]
fn nothing_is_acknowledged_once_the_folder_is_lost() {
    for (what, exchange) in EXCHANGES {
        let mut host = counter();
        let client = host.client();
        exchange(host.folder());
        // Whatever comes first: this, or the look of once a second.
        if let Ok(reply) = client.try_send(Method::POST, "/counter", &[], r#"{"by": 1}"#) {
            assert!(reply.status.is_server_error(), "{what}: {} {}", reply.status, reply.text());
        }
        let admin = Client::new(&host.admin, None);
        if let Ok(ready) = admin.try_send(Method::GET, "/readyz", &[], "") {
            assert_eq!(ready.status.as_u16(), 503, "{what}: {}", ready.text());
        }
        assert_eq!(host.ended(), 1, "{what}");
    }
}

#[test]
fn a_second_host_on_the_path_keeps_all_writes_acknowledged_since_its_start() {
    // While others write, so that the first has acknowledgements under way.
    let mut first = counter();
    let writers = Writers::start(&first);
    let folder = first.folder().to_owned();
    while writers.acknowledged() < 20 {
        caxton_tests::pause();
    }
    fs::rename(folder.join(".caxton"), folder.join("aside")).expect("it can be moved");
    let data = folder.join(".caxton").display().to_string();
    let mut second =
        Setup::new(BINARY, &file(&agent("counter", "counter", ""))).argument("--data").argument(&data).spawn();
    second.until_ready();
    // Before that the first has ended, or acknowledges nothing any more.
    let acknowledged = writers.acknowledged();
    assert_eq!(count(&second), 0, "it began anew");
    assert_eq!(first.ended(), 1, "{}", first.output());
    assert_eq!(writers.join(), acknowledged, "nothing was acknowledged beside the second");
    second.client().post("/counter", r#"{"by": 3}"#);
    let (code, _) = second.stop();
    assert_eq!(code, 0);
    // All that was acknowledged before is where it was.
    let third = Setup::new(BINARY, &file(&agent("counter", "counter", "")));
    let kept = third.argument("--data").argument(&folder.join("aside").display().to_string()).start();
    assert!(count(&kept) > acknowledged, "{} of {acknowledged}", count(&kept));
}
