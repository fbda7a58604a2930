//! Files that are followed: through links and folders that are exchanged, while they are written, and whatever else
//! happens beside them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caxton_tests::{Host, Setup, guest};

use crate::{BINARY, agent, file};

/// The text of a file with one agent of a component, which another `n` makes another revision of.
fn declaration(component: &str, n: u32) -> String {
    file(&format!(
        "[agents.echo]\ncomponent = \"{component}\"\nconfig = {{ n = \"{n}\" }}\ndeploy = {{ strategy = \"immediate\" }}\n[[agents.echo.http]]\nroute = \"/echo\"\n"
    ))
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
    fs::write(path, text).expect("the folder can be written to");
}

/// Puts a guest at a path.
fn copy(name: &str, path: &Path) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
    fs::copy(guest(name), path).expect("the guest can be copied");
}

/// Puts a link at a path, in place of another at once.
fn link(target: &str, path: &Path) {
    let temporary = path.with_file_name("new-link");
    symlink(target, &temporary).expect("the folder can be written to");
    fs::rename(temporary, path).expect("the folder can be written to");
}

fn until_revision(host: &mut Host, number: u32, what: &str) {
    host.until_agent("echo", what, |status| status["revision"] == format!("echo@{number}"));
}

fn until_kind(host: &mut Host, kind: &str, what: &str) {
    host.until_agent("echo", what, |status| status["kind"] == kind);
}

/// Calls these paths again and again for a time; each call is answered by its agent.
fn check_served_for(host: &mut Host, time: Duration, paths: &[&str]) {
    let (client, began) = (host.client(), Instant::now());
    host.until("the time to pass", |host| {
        for path in paths {
            let reply = client.post(path, "");
            assert_eq!(reply.status.as_u16(), 200, "{path}: {}\n{}", reply.text(), host.output());
        }
        (began.elapsed() > time).then_some(())
    });
}

#[test]
fn a_declaration_is_watched_through_links() {
    let echo = guest("echo").display().to_string();
    let setup = Setup::new(BINARY, "");
    let folder = setup.folder().to_owned();
    let named = folder.join("caxton.toml");
    fs::remove_file(&named).expect("the file is there");
    // As Kubernetes lays out what it mounts.
    write(&folder.join("..1/caxton.toml"), &declaration(&echo, 1));
    link("..1", &folder.join("..data"));
    link("..data/caxton.toml", &named);
    let mut host = setup.start();
    until_revision(&mut host, 1, "it runs");
    write(&folder.join("..2/caxton.toml"), &declaration(&echo, 2));
    link("..2", &folder.join("..data"));
    fs::remove_dir_all(folder.join("..1")).expect("the folder is there");
    until_revision(&mut host, 2, "the link in the middle leads elsewhere");
    // Its target is edited in place.
    write(&folder.join("..2/caxton.toml"), &declaration(&echo, 3));
    until_revision(&mut host, 3, "the target was edited");
    // The link itself is exchanged, for one to a folder that is reached through another link.
    write(&folder.join("far/releases/4/caxton.toml"), &declaration(&echo, 4));
    link("releases/4", &folder.join("far/current"));
    link("far/current/caxton.toml", &named);
    until_revision(&mut host, 4, "the link leads elsewhere");
    write(&folder.join("far/releases/5/caxton.toml"), &declaration(&echo, 5));
    link("releases/5", &folder.join("far/current"));
    until_revision(&mut host, 5, "the link on the way leads elsewhere");
    // The folder that the link leads to is exchanged by a rename.
    write(&folder.join("far/releases/new/caxton.toml"), &declaration(&echo, 6));
    fs::rename(folder.join("far/releases/5"), folder.join("far/releases/old")).expect("the folder is there");
    fs::rename(folder.join("far/releases/new"), folder.join("far/releases/5")).expect("the folder is there");
    until_revision(&mut host, 6, "the folder is another");
    // A link to nothing changes nothing, until there is something.
    link("nowhere/caxton.toml", &named);
    write(&folder.join("nowhere/caxton.toml"), &declaration(&echo, 7));
    until_revision(&mut host, 7, "the target was made");
}

#[test]
fn a_component_is_watched_through_links_and_folders() {
    let setup = Setup::new(BINARY, &declaration("app/current/dist/agent.wasm", 1));
    let folder = setup.folder().join("app");
    let mut host = setup.start();
    // Nothing on the way is there yet; it comes bit by bit.
    fs::create_dir_all(folder.join("releases/1")).expect("the folder can be made");
    link("releases/1", &folder.join("current"));
    fs::create_dir(folder.join("releases/1/dist")).expect("the folder can be made");
    copy("echo", &folder.join("releases/1/dist/agent.wasm"));
    until_kind(&mut host, "message", "the component has come");
    copy("session", &folder.join("releases/2/dist/agent.wasm"));
    link("releases/2", &folder.join("current"));
    until_kind(&mut host, "stateful", "the link on the way leads elsewhere");
    // The folder is removed and made anew, as `cargo clean` and a build do it.
    fs::remove_dir_all(folder.join("releases/2/dist")).expect("the folder is there");
    copy("echo", &folder.join("releases/2/dist/agent.wasm"));
    until_kind(&mut host, "message", "the folder was made anew");
    // And exchanged by a rename.
    copy("session", &folder.join("releases/2/new/agent.wasm"));
    fs::rename(folder.join("releases/2/dist"), folder.join("releases/2/old")).expect("the folder is there");
    fs::rename(folder.join("releases/2/new"), folder.join("releases/2/dist")).expect("the folder is there");
    until_kind(&mut host, "stateful", "the folder is another");
    // So is one above it.
    copy("echo", &folder.join("others/2/dist/agent.wasm"));
    fs::rename(folder.join("releases"), folder.join("gone")).expect("the folder is there");
    fs::rename(folder.join("others"), folder.join("releases")).expect("the folder is there");
    until_kind(&mut host, "message", "the folder above it is another");
    // A file of the same size in place of it, with a time of long ago.
    let path = folder.join("releases/2/dist/agent.wasm");
    copy("session", &folder.join("older.wasm"));
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let older = File::options().write(true).open(folder.join("older.wasm")).expect("the file is there");
    older.set_modified(long_ago).expect("the time can be set");
    drop(older);
    fs::rename(folder.join("older.wasm"), &path).expect("the folder can be written to");
    until_kind(&mut host, "stateful", "an older file was put in its place");
}

#[test]
fn the_folder_of_the_declaration_is_watched_by_name() {
    let echo = guest("echo").display().to_string();
    let setup =
        Setup::new(BINARY, "").argument("--data").argument(".caxton").argument("-f").argument("app/caxton.toml");
    let folder = setup.folder().to_owned();
    write(&folder.join("app/caxton.toml"), &declaration(&echo, 1));
    let mut host = setup.start();
    write(&folder.join("next/caxton.toml"), &declaration(&echo, 2));
    fs::rename(folder.join("app"), folder.join("old")).expect("the folder is there");
    fs::rename(folder.join("next"), folder.join("app")).expect("the folder is there");
    until_revision(&mut host, 2, "the folder is another");
}

#[test]
fn an_edit_is_seen_while_other_files_beside_it_are_written_all_the_time() {
    let setup = Setup::new(BINARY, &declaration("agent.wasm", 1));
    copy("echo", &setup.folder().join("agent.wasm"));
    let mut host = setup.start();
    let (folder, done) = (host.folder().to_owned(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = File::create(folder.join("some.log")).expect("the folder can be written to");
            while !done.load(Ordering::Relaxed) {
                log.write_all(b"a line\n").expect("the file can be written to");
                fs::write(folder.join("other.txt"), "x").expect("the folder can be written to");
            }
        });
        host.edit(&declaration("agent.wasm", 2));
        until_revision(&mut host, 2, "the edit is seen");
        copy("session", &folder.join("new"));
        fs::rename(folder.join("new"), folder.join("agent.wasm")).expect("the folder can be written to");
        until_kind(&mut host, "stateful", "the component is seen");
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn an_edit_is_seen_when_the_kernel_queue_overflows() {
    let mut host = Host::start(BINARY, &declaration("GUEST(echo)", 1));
    host.signal(rustix::process::Signal::STOP);
    // Its queue holds 16,384.
    for n in 0..20_000 {
        let path = host.folder().join(format!("other-{}", n % 10));
        fs::write(&path, "x").expect("the folder can be written to");
    }
    host.edit(&declaration("GUEST(echo)", 2));
    host.signal(rustix::process::Signal::CONT);
    until_revision(&mut host, 2, "the edit is seen");
}

#[test]
fn a_half_written_declaration_is_not_applied() {
    let two = |n: u32| {
        let settings = format!("config = {{ n = \"{n}\" }}\ndeploy = {{ strategy = \"immediate\" }}\n");
        (file(&agent("aa", "echo", &settings)), agent("bb", "echo", &settings))
    };
    let (first, second) = two(1);
    let setup = Setup::new(BINARY, &(first + &second));
    // As the file is with the paths of its guests.
    let text = fs::read_to_string(setup.folder().join("caxton.toml")).expect("the file is there");
    let mut host = setup.start();
    let path = host.folder().join("caxton.toml");
    let text = text.replace("n = \"1\"", "n = \"2\"");
    let middle = text.find("[agents.bb]").expect("it is declared");
    let mut writer = File::create(&path).expect("the folder can be written to");
    writer.write_all(&text.as_bytes()[..middle]).expect("the file can be written to");
    // Longer than any rest after a change.
    check_served_for(&mut host, Duration::from_secs(4), &["/aa", "/bb"]);
    assert_eq!(host.agent("aa")["revision"], "aa@1", "nothing of it is taken up");
    // Somebody who asks for it now is answered when it is whole.
    let asked = std::thread::scope(|scope| {
        let asks = scope.spawn(|| host.caxton(&["apply"]));
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(500) {
            assert!(!asks.is_finished(), "it was taken up in the middle");
            caxton_tests::pause();
        }
        writer.write_all(&text.as_bytes()[middle..]).expect("the file can be written to");
        drop(writer);
        asks.join().expect("it ends well")
    });
    assert_eq!(asked.0, 0, "{asked:?}");
    host.until_agent("aa", "all of it is taken up", |status| status["revision"] == "aa@2");
    host.until_agent("bb", "all of it is taken up", |status| status["revision"] == "bb@2");
    assert!(!host.output().contains("removed"), "{}", host.output());
}

#[test]
fn a_change_held_up_by_another_program_is_reported() {
    let mut host = Setup::new(BINARY, &declaration("GUEST(echo)", 1)).start();
    let path = host.folder().join("caxton.toml");
    // As an editor or a script that keeps it open after its write.
    let mut writer = File::options().append(true).open(path).expect("the file is there");
    writer.write_all(b"[agents.echo.limits]\nhops = 7\n").expect("the file can be written to");
    host.until_output("caxton.toml has changed and is open for writing in another program");
    drop(writer);
    until_revision(&mut host, 2, "it is taken up as soon as it is closed");
}

#[test]
fn a_file_that_suddenly_lacks_agents_is_read_again() {
    let (first, second) = (file(&agent("aa", "echo", "")), agent("bb", "echo", ""));
    let mut host = Host::start(BINARY, &format!("{first}{second}"));
    let path = host.folder().join("caxton.toml");
    let text = fs::read_to_string(&path).expect("the file is there");
    let middle = text.find("[agents.bb]").expect("it is declared");
    // Closed in the middle, without agents, and empty.
    for (part, round) in [(&text[..middle], 1), ("caxton = 1\n", 2), ("", 3)] {
        write(&path, part);
        if part.is_empty() {
            host.until_output("has errors");
        } else {
            host.until("it to be seen", |host| {
                (host.output().matches("it is looked at again before").count() >= round).then_some(())
            });
        }
        write(&path, &text);
        check_served_for(&mut host, Duration::from_secs(3), &["/aa", "/bb"]);
    }
    assert!(!host.output().contains("removed"), "{}", host.output());
    // One that goes on lacking them means it.
    host.edit(&first);
    host.until("it is taken out", |host| (host.api().get("/v1/agents/bb").status.as_u16() == 404).then_some(()));
}

#[test]
fn a_half_written_component_is_not_a_revision() {
    let setup = Setup::new(BINARY, &declaration("agent.wasm", 1));
    let path = setup.folder().join("agent.wasm");
    copy("echo", &path);
    let mut host = setup.start();
    let [echo, counter] = ["echo", "counter"].map(|name| fs::read(guest(name)).expect("the guest can be read"));
    // A writer that pauses.
    let mut writer = File::create(&path).expect("the folder can be written to");
    writer.write_all(&counter[..counter.len() / 2]).expect("the file can be written to");
    check_served_for(&mut host, Duration::from_secs(4), &["/echo"]);
    writer.write_all(&counter[counter.len() / 2..]).expect("the file can be written to");
    drop(writer);
    until_revision(&mut host, 2, "the whole is the next revision");
    // One that closes it between.
    fs::write(&path, &echo[..echo.len() / 2]).expect("the folder can be written to");
    check_served_for(&mut host, Duration::from_secs(1), &["/echo"]);
    fs::write(&path, &echo).expect("the folder can be written to");
    until_revision(&mut host, 3, "the whole is the next revision");
    // One that stays like that is told of, and is no revision either.
    fs::write(&path, &counter[..counter.len() / 2]).expect("the folder can be written to");
    host.until_agent("echo", "it is told", |status| {
        status["waiting"].as_str().is_some_and(|why| why.contains("(truncated); build or copy it again"))
    });
    assert_eq!(host.agent("echo")["revision"], "echo@3");
    assert_eq!(host.client().post("/echo", "").status.as_u16(), 200);
    fs::write(&path, &counter).expect("the folder can be written to");
    until_revision(&mut host, 4, "the whole is the next revision");
}

#[test]
fn a_host_that_starts_while_its_file_is_written_waits_for_it() {
    let setup = Setup::new(BINARY, &declaration("GUEST(echo)", 1));
    let path = setup.folder().join("caxton.toml");
    let text = fs::read_to_string(&path).expect("the file is there");
    let mut writer = File::create(&path).expect("the folder can be written to");
    writer.write_all(b"caxton = 1\n[agents").expect("the file can be written to");
    let mut host = setup.spawn();
    host.until_output("is being written");
    writer.write_all(&text.as_bytes()[b"caxton = 1\n[agents".len()..]).expect("the file can be written to");
    drop(writer);
    host.until_ready();
    assert_eq!(host.client().post("/echo", "x").text(), "x");
}

#[test]
fn missing_components_are_reported_with_all_other_errors() {
    let toml = file(
        "[agents.aa]\ncomponent = \"dist/none.wasm\"\nlimits = { memroy = \"1MiB\" }\n[agents.bb]\ncomponent = \"GUEST(echo)\"\n[agents.cc]\ncomponent = \"dist/neither.wasm\"\n",
    );
    let setup = Setup::new(BINARY, &toml);
    let (code, _, said) = setup.caxton(&["check"]);
    assert_eq!(code, 2, "{said}");
    for part in [
        "did you mean `memory`",
        "agents.aa: the component dist/none.wasm is not there (missing)",
        "agents.cc: the component dist/neither.wasm is not there (missing)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("agents.bb"), "{said}");
    let (code, out, _) = setup.caxton(&["check", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &told["valid"]), (2, &serde_json::json!(false)), "{told}");
    let missing: Vec<&str> = told["agents"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|agent| agent["findings"][0]["code"] == "missing")
        .filter_map(|agent| agent["agent"].as_str())
        .collect();
    assert_eq!(missing, ["aa", "cc"], "{told}");
    assert_eq!(told["errors"].as_array().map(Vec::len), Some(1), "{told}");
}
