//! Folders that agents are granted: real files, and all the ways that do not lead out of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use caxton_tests::{Host, Setup};
use rustix::fs::{CWD, FileType, Mode};
use serde_json::{Value, json};

use crate::rollouts::install;
use crate::shadowing::install_equal_component;
use crate::{BINARY, file};

const SECRET: &str = "nobody sees this";

/// Returns a file with the agent `visitor`, which sees these folders.
fn visitor(files: &str, more: &str) -> String {
    file(&format!(
        "[agents.visitor]\ncomponent = \"GUEST(visitor)\"\nallow.files = [{files}]\n{more}\n\
         [[agents.visitor.http]]\nroute = \"/visitor\"\n"
    ))
}

/// Makes a folder to read, one to write to, and beside them what no agent is granted.
fn fill(folder: &Path) {
    for name in ["data/sub", "out/sub", "secrets"] {
        fs::create_dir_all(folder.join(name)).expect("the folder can be written to");
    }
    for (name, text) in [
        ("data/a.txt", "in data"),
        ("data/sub/b.txt", "in sub"),
        ("out/sub/b.txt", "in out/sub"),
        ("secret.txt", SECRET),
        ("secrets/key.txt", SECRET),
    ] {
        fs::write(folder.join(name), text).expect("the folder can be written to");
    }
    for (target, name) in [
        ("../secret.txt", "data/link"),
        ("../secrets", "data/to-folder"),
        ("/etc/passwd", "data/absolute"),
        ("/proc/self/fd", "data/files-of-the-host"),
        ("/proc/self/root", "data/root"),
        ("sub/../../secret.txt", "data/dots"),
        ("link", "data/link-to-link"),
        ("sub/b.txt", "data/good-link"),
        ("../secret.txt", "out/link"),
    ] {
        symlink(target, folder.join(name)).expect("the folder can be written to");
    }
}

const BOTH: &str = "\"data\", { folder = \"out\", write = true }";

fn start(files: &str, more: &str) -> Host {
    let setup = Setup::new(BINARY, &visitor(files, more));
    fill(setup.folder());
    setup.start()
}

fn act(host: &Host, action: &Value) -> Value {
    let reply = host.client().post("/visitor", action.to_string());
    serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("{}: {}", reply.status, reply.text()))
}

/// Lets the agent do something with files.
fn with_file(host: &Host, mut action: Value) -> Value {
    action["do"] = "file".into();
    act(host, &action)
}

fn log(host: &Host) -> String {
    host.caxton(&["logs", "visitor", "--tail", "1000"]).1
}

#[test]
fn programs_read_and_write_what_was_granted() {
    let host = start(&format!("{BOTH}, {{ folder = \"data/sub\", name = \"/deep/er\" }}"), "");
    assert_eq!(with_file(&host, json!({ "what": "folders" })), json!(["/data", "/deep/er", "/out"]));
    for (path, text) in [("/data/a.txt", "in data"), ("/data/good-link", "in sub"), ("/deep/er/b.txt", "in sub")] {
        assert_eq!(with_file(&host, json!({ "what": "read", "path": path })), json!({ "ok": text }), "{path}");
    }
    let write = json!({ "what": "write", "path": "/out/new.txt", "text": "written" });
    assert_eq!(with_file(&host, write), json!({ "ok": "done" }));
    assert_eq!(fs::read_to_string(host.folder().join("out/new.txt")).expect("it is there"), "written");
    for action in [
        json!({ "what": "make-folder", "folder": "/out", "path": "made" }),
        json!({ "what": "rename", "folder": "/out", "path": "new.txt", "to": "/out", "new_path": "made/moved.txt" }),
        json!({ "what": "link", "folder": "/out", "path": "made/moved.txt", "to": "/out", "new_path": "again.txt" }),
        json!({ "what": "symlink", "folder": "/out", "target": "again.txt", "path": "short" }),
        json!({ "what": "set-times", "folder": "/out", "path": "short" }),
        json!({ "what": "unlink", "folder": "/out", "path": "made/moved.txt" }),
        json!({ "what": "remove-folder", "folder": "/out", "path": "made" }),
    ] {
        assert_eq!(with_file(&host, action.clone()), json!({ "ok": "done" }), "{action}");
    }
    assert_eq!(with_file(&host, json!({ "what": "read", "path": "/out/short" })), json!({ "ok": "written" }));
    let (code, told, words) = host.caxton(&["check", "-o", "json"]);
    assert!(code == 0 && told.contains("allow.files = /data, /deep/er, /out (write)"), "{told}{words}");
}

#[test]
fn no_way_leads_out_of_a_folder() {
    let host = start(BOTH, "");
    let before: Vec<_> = names(host.folder());
    for path in [
        "../secret.txt",
        "sub/../../secret.txt",
        "./.././secret.txt",
        "/etc/passwd",
        "/data/a.txt",
        "link",
        "to-folder/key.txt",
        "to-folder/../../secret.txt",
        "absolute",
        "files-of-the-host/0",
        "root/etc/passwd",
        "dots",
        "link-to-link",
        "..",
        "",
    ] {
        for write in [false, true] {
            let open = json!({ "what": "open", "folder": "/data", "path": path, "write": write });
            let told = with_file(&host, open);
            assert!(told["error"].is_string() && !told.to_string().contains(SECRET), "{path}: {told}");
        }
    }
    for path in ["/data/../secret.txt", "/secret.txt", "secret.txt", "/etc/passwd", "/data/link", "/proc/self/environ"]
    {
        let told = with_file(&host, json!({ "what": "read", "path": path }));
        assert!(told["error"].is_string(), "{path}: {told}");
    }
    // A link is opened as such by nobody, and says where it leads.
    let link = json!({ "what": "open", "folder": "/data", "path": "link", "no_follow": true });
    assert!(with_file(&host, link)["error"].is_string());
    for action in [
        json!({ "what": "rename", "folder": "/out", "path": "../secret.txt", "to": "/out", "new_path": "mine" }),
        json!({ "what": "rename", "folder": "/out", "path": "sub", "to": "/out", "new_path": "../sub" }),
        json!({ "what": "rename", "folder": "/data", "path": "a.txt", "to": "/out", "new_path": "a.txt" }),
        json!({ "what": "rename", "folder": "/out", "path": "sub", "to": "/data", "new_path": "sub2" }),
        json!({ "what": "link", "folder": "/out", "path": "../secret.txt", "to": "/out", "new_path": "mine" }),
        json!({ "what": "link", "folder": "/data", "path": "a.txt", "to": "/out", "new_path": "mine" }),
        json!({ "what": "link", "folder": "/out", "path": "sub/b.txt", "to": "/out", "new_path": "../mine" }),
        json!({ "what": "symlink", "folder": "/out", "target": "/etc/passwd", "path": "mine" }),
        json!({ "what": "symlink", "folder": "/out", "target": "sub", "path": "../mine" }),
        json!({ "what": "make-folder", "folder": "/out", "path": "../mine" }),
        json!({ "what": "remove-folder", "folder": "/out", "path": "../secrets" }),
        json!({ "what": "unlink", "folder": "/out", "path": "../secret.txt" }),
        json!({ "what": "set-times", "folder": "/out", "path": "link" }),
        json!({ "what": "stat", "folder": "/data", "path": "link" }),
        json!({ "what": "read-link", "folder": "/data", "path": "../secret.txt" }),
        json!({ "what": "open", "folder": "/out", "path": "../mine", "write": true, "create": true }),
        json!({ "what": "open", "folder": "/out", "path": "link", "write": true, "create": true }),
    ] {
        let told = with_file(&host, action.clone());
        assert!(told["error"].is_string(), "{action}: {told}");
    }
    // A link of its own that leads out leads nowhere.
    let own = json!({ "what": "symlink", "folder": "/out", "target": "../secrets/key.txt", "path": "own" });
    with_file(&host, own);
    assert!(with_file(&host, json!({ "what": "read", "path": "/out/own" }))["error"].is_string());
    assert_eq!(names(host.folder()), before, "nothing was made beside the folders");
    assert_eq!(fs::read_to_string(host.folder().join("secret.txt")).expect("it is there"), SECRET);
}

/// Returns the names in a folder that are not the host's own.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder can be read");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

#[test]
fn a_folder_that_is_read_only_is_not_changed() {
    let mut host = start(BOTH, "");
    for action in [
        json!({ "what": "open", "folder": "/data", "path": "a.txt", "write": true }),
        json!({ "what": "open", "folder": "/data", "path": "new", "create": true }),
        json!({ "what": "open", "folder": "/data", "path": "a.txt", "create": true }),
        json!({ "what": "make-folder", "folder": "/data", "path": "new" }),
        json!({ "what": "remove-folder", "folder": "/data", "path": "sub" }),
        json!({ "what": "unlink", "folder": "/data", "path": "a.txt" }),
        json!({ "what": "rename", "folder": "/data", "path": "a.txt", "to": "/data", "new_path": "b.txt" }),
        json!({ "what": "link", "folder": "/data", "path": "a.txt", "to": "/data", "new_path": "b.txt" }),
        json!({ "what": "symlink", "folder": "/data", "target": "a.txt", "path": "b.txt" }),
        json!({ "what": "set-times", "folder": "/data", "path": "a.txt" }),
    ] {
        assert_eq!(with_file(&host, action.clone()), json!({ "error": "read-only" }), "{action}");
    }
    let told = with_file(&host, json!({ "what": "write", "path": "/data/sub/b.txt", "text": "other" }));
    assert!(told["error"].is_string(), "{told}");
    assert_eq!(fs::read_to_string(host.folder().join("data/sub/b.txt")).expect("it is there"), "in sub");
    host.until("the line", |host| {
        let line = "it wanted to change `/data/a.txt`, which was denied: `allow.files` grants the folder without";
        log(host).contains(line).then_some(())
    });
}

#[test]
fn a_folder_that_becomes_a_link_leads_to_no_other_place() {
    let host = start(BOTH, "instances.max = 1");
    let hold = json!({ "what": "hold", "folder": "/out", "path": "sub" });
    assert_eq!(with_file(&host, hold), json!({ "ok": "done" }));
    let at = |name: &str| host.folder().join(name);
    // Between two messages, with the folder open and without.
    fs::rename(at("out/sub"), at("out/moved")).expect("it is there");
    symlink("../secrets", at("out/sub")).expect("the folder can be written to");
    assert_eq!(with_file(&host, json!({ "what": "held-read", "path": "b.txt" })), json!({ "ok": "in out/sub" }));
    for action in [
        json!({ "what": "held-read", "path": "key.txt" }),
        json!({ "what": "held-read", "path": "../../secret.txt" }),
        json!({ "what": "open", "folder": "/out", "path": "sub/key.txt" }),
    ] {
        assert!(with_file(&host, action.clone())["error"].is_string(), "{action}");
    }
    // The granted folder itself.
    fs::rename(at("data"), at("data.before")).expect("it is there");
    symlink("secrets", at("data")).expect("the folder can be written to");
    assert_eq!(with_file(&host, json!({ "what": "read", "path": "/data/a.txt" })), json!({ "ok": "in data" }));
    assert!(with_file(&host, json!({ "what": "read", "path": "/data/key.txt" }))["error"].is_string());
}

#[test]
fn a_pipe_holds_up_nobody() {
    let mut host = start(BOTH, "limits.time = \"60s\"");
    let out = host.folder().join("out");
    rustix::fs::mknodat(CWD, out.join("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("a pipe");
    let _socket = UnixListener::bind(out.join("socket")).expect("a socket");
    symlink("pipe", out.join("to-pipe")).expect("the folder can be written to");
    let mut steps = Vec::new();
    // More than the host has threads for files.
    for _ in 0..100 {
        for path in ["pipe", "to-pipe", "socket"] {
            steps.push(json!({ "do": "file", "what": "open", "folder": "/out", "path": path }));
            steps.push(json!({ "do": "file", "what": "open", "folder": "/out", "path": path, "write": true }));
            steps.push(json!({ "do": "file", "what": "set-times", "folder": "/out", "path": path }));
        }
    }
    let told = act(&host, &json!({ "do": "steps", "steps": steps }));
    let told = told.as_array().expect("a list");
    assert!(told.len() == 900 && told.iter().all(|outcome| outcome["error"] == "not-permitted"), "{:?}", told[0]);
    let listed = with_file(&host, json!({ "what": "list", "folder": "/out" }));
    assert_eq!(listed["ok"]["names"], json!(["link", "pipe", "socket", "sub", "to-pipe"]));
    host.until("the line", |host| {
        let line = "which was denied: it is neither a file nor a folder, but a pipe, a socket or a device";
        log(host).contains(line).then_some(())
    });
}

#[test]
fn a_folder_with_many_entries_is_read_in_parts() {
    const ENTRIES: usize = 60_000;
    let host = start("\"data\"", "limits = { time = \"2m\", cpu = \"1m\" }");
    let many = host.folder().join("data");
    let long = "x".repeat(240);
    for number in 0..ENTRIES {
        rustix::fs::mknodat(
            CWD,
            many.join(format!("{number}-{long}")),
            FileType::RegularFile,
            Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a file");
    }
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", host.pid().as_raw_nonzero())).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    let list = json!({ "what": "list", "folder": "/data" });
    let before = peak();
    let told = with_file(&host, list);
    // Those that were there before, with links.
    assert_eq!(told["ok"]["count"], ENTRIES + 10, "{told}");
    let grown = peak() - before;
    assert!(grown < 12 << 10, "all names together have 15 MB, and the host has grown by {grown} kB");
}

#[test]
fn open_files_are_bounded_and_close_with_what_held_them() {
    let mut host = start(BOTH, "instances.max = 1");
    for _ in 0..3 {
        let told = with_file(&host, json!({ "what": "open-many", "folder": "/data", "path": "a.txt", "count": 1_000 }));
        let open = told["ok"]["open"].as_u64().expect("a number");
        assert!(told["ok"]["error"] == "quota" && (64..128).contains(&open), "{told}");
    }
    host.until("the line", |host| log(host).contains("it opens too many files").then_some(()));
    assert_eq!(with_file(&host, json!({ "what": "read", "path": "/data/a.txt" })), json!({ "ok": "in data" }));
}

#[test]
fn a_copy_of_a_message_changes_no_file_and_the_difference_says_so() {
    let toml = visitor(BOTH, "reload = { strategy = \"parallel\", for = \"1h\", min-messages = 1 }")
        .replace("GUEST(visitor)", "agent.wasm");
    let setup = Setup::new(BINARY, &toml);
    fill(setup.folder());
    install(setup.folder(), "visitor");
    let mut host = setup.start();
    install_equal_component(host.folder(), "visitor");
    let rollout = |host: &Host| host.api().get("/v1/rollouts/visitor").json()[0].clone();
    host.until("copies are made", |host| {
        rollout(host)["why"].as_str().is_some_and(|why| why.contains("copies to judge by")).then_some(())
    });
    let steps = json!({ "do": "steps", "steps": [
        { "do": "file", "what": "read", "path": "/data/a.txt" },
        { "do": "file", "what": "open", "folder": "/out", "path": "new.txt", "write": true, "create": true },
    ] });
    assert_eq!(act(&host, &steps), json!([{ "ok": "in data" }, { "ok": "opened" }]));
    // So that a copy that writes would show.
    fs::remove_file(host.folder().join("out/new.txt")).expect("it was made");
    host.until("the end of the rollout", |host| (rollout(host)["status"] == "rolled-back").then_some(()));
    let found = host.api().get("/v1/rollouts/visitor/differences").json();
    let differences = found["messages"][0]["differences"].as_array().cloned().unwrap_or_default();
    let of_file = differences.iter().find(|found| found["path"] == "calls[0]");
    let of_file = of_file.unwrap_or_else(|| panic!("the change is among {found}"));
    assert_eq!(of_file["stable"], "change /out/new.txt");
    let refused = "change /out/new.txt, refused: a copy of a message changes no file (read-only)";
    assert_eq!(of_file["candidate"], refused);
    // What was read is alike.
    assert!(!found.to_string().contains("in data"), "{found}");
}

#[test]
fn a_folder_that_is_not_there_is_an_error_with_its_line() {
    let setup = Setup::new(BINARY, &visitor("\"data\", { folder = \"gone\", write = true }", ""));
    fill(setup.folder());
    let (code, _, words) = setup.caxton(&["check", "--no-components"]);
    assert_eq!(code, 2, "{words}");
    assert!(
        words.contains("error[unusable-file]: agents.visitor.allow.files[1].folder: `gone` does not exist"),
        "{words}"
    );
    assert!(words.contains("caxton.toml:4:"), "{words}");
    let (code, said) = setup.refused();
    assert!(code != 0 && said.contains("`gone` does not exist"), "{said}");
    // An edit of a running host changes nothing.
    let mut host = start("\"data\"", "");
    host.edit(&visitor("\"data\", \"data/a.txt\"", ""));
    host.until_output("agents.visitor.allow.files[1]: `data/a.txt` is not a folder");
    assert_eq!(with_file(&host, json!({ "what": "folders" })), json!(["/data"]));
    // A grant that can be met makes another revision.
    host.edit(&visitor(BOTH, ""));
    host.until("the grant", |host| {
        (with_file(host, json!({ "what": "folders" })) == json!(["/data", "/out"])).then_some(())
    });
    assert_eq!(host.agent("visitor")["revision"], "visitor@2");
}

#[test]
fn the_policy_bounds_what_can_be_granted() {
    let toml = visitor(BOTH, "allow.tcp = [\"db.example:5432\", \"10.0.0.7:6379\"]")
        + "[policy]\nfiles = \"read\"\ntcp = \"public\"\n";
    let setup = Setup::new(BINARY, &toml);
    fill(setup.folder());
    let (code, _, words) = setup.caxton(&["check", "--no-components"]);
    assert_eq!(code, 2, "{words}");
    for line in [
        "error[forbidden-by-policy]: agents.visitor.allow.files[1].folder: a folder to write to cannot be granted: \
         `policy.files = \"read\"`",
        "error[forbidden-by-policy]: agents.visitor.allow.tcp[1]: a connection to a private address cannot be granted: \
         `policy.tcp = \"public\"`",
    ] {
        assert!(words.contains(line), "{line}\n{words}");
    }
    assert_eq!(words.matches("error[").count(), 2, "{words}");
    // The operator's own file bounds the grants and the other file's rules.
    fs::write(setup.folder().join("policy.toml"), "caxton = 1\n[policy]\nfiles = \"none\"\n")
        .expect("it can be written");
    let (_, _, words) = setup.caxton(&["check", "--no-components", "--policy", "policy.toml"]);
    assert!(words.contains("a folder cannot be granted: `policy.files = \"none\"`"), "{words}");
    assert!(words.contains("looser-than-policy"), "{words}");
}
