//! Hosts that start on a full disk: they say so, answer what needs no room, and go on once there is some.
//!
//! A bound on the size of files stands for the full disk, as it needs no rights: the small files of a host have room below
//! it, its database does not. Where the system lets the tests mount a file system, a small one is filled as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use caxton_tests::{Client, Host, Setup};
use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::{agent, file};

/// A bound that leaves the small files of a host their room: 4 KiB, in units of 512 bytes.
const SMALL_FILES_ONLY: &str = "ulimit -Sf 8";

fn toml() -> String {
    file(&(agent("counter", "counter", "") + &agent("rogue", "rogue", "mailbox = { attempts = 1 }")))
}

/// Lifts the bound, which is as if somebody had made room.
fn make_room(host: &Host) {
    prlimit(Some(host.pid()), Resource::Fsize, Rlimit { current: None, maximum: None }).expect("it can be lifted");
}

fn used() -> Setup {
    used_by(Setup::new(crate::BINARY, &toml()))
}

/// Uses a host, so that there is something to be read, and stops it.
fn used_by(setup: Setup) -> Setup {
    let mut host = setup.start();
    assert_eq!(host.client().post("/counter", r#"{"by": 2}"#).json()["count"], 2);
    host.api().post("/v1/agents/rogue/messages", r#"{"do":"trap"}"#);
    host.until("there is a dead letter", |host| (host.caxton(&["dead", "ls"]).1.contains("rogue")).then_some(()));
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    setup
}

/// Takes away the index of the log, so that the next host has to make it.
fn remove_index(setup: &Setup) {
    let _ = fs::remove_file(setup.folder().join(".caxton/caxton.db-shm"));
}

/// Waits until the probe says that the disk is full, or that it is not. Returns what it said.
fn until_full(host: &mut Host, is_full: bool) -> String {
    host.until("the probe tells of the disk", |host| {
        let text = Client::new(&host.admin, None).get("/readyz").text();
        (text.contains("is full") == is_full).then_some(text)
    })
}

/// Checks what a host has to do on a full disk.
fn serves_what_needs_no_room(host: &mut Host) {
    let said = until_full(host, true);
    assert!(said.contains("caxton store compact") && said.contains("make some"), "{said}");
    let probe = Client::new(&host.admin, None);
    assert_eq!((probe.get("/readyz").status.as_u16(), probe.get("/healthz").status.as_u16()), (503, 200));
    let refused = host.client().post("/counter", r#"{"by": 1}"#);
    assert_eq!(refused.status.as_u16(), 503, "{}", refused.text());
    let admin = format!("http://{}", host.admin);
    for (arguments, part) in [
        (&["ps"][..], "counter"),
        (&["state", "get", "counter", "count"], "2"),
        (&["dead", "ls"], "rogue"),
        (&["store", "show"], "dead letters  1"),
        (&["store", "check"], ""),
    ] {
        // The host may have had no room to say where it listens.
        let mut command = host.command(&[arguments, &["--admin", &admin]].concat());
        let output = command.env("CAXTON_TOKEN_FILE", ".caxton/token").output().expect("it ends");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // `ps` tells that not everything is as declared.
        assert!(output.status.success() || arguments == ["ps"], "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn a_host_starts_on_a_full_disk() {
    let setup = used();
    remove_index(&setup);
    let mut host = setup.within(SMALL_FILES_ONLY).start();
    serves_what_needs_no_room(&mut host);
    assert!(host.output().contains("kept in memory"), "{}", host.output());
    // Its instances need files, too, which this bound keeps from them.
    make_room(&host);
    until_full(&mut host, false);
    assert_eq!(host.api().send(http::Method::PUT, "/v1/agents/counter/state/count", &[], "5").status.as_u16(), 204);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    // What it has written since is there for the next host as well.
    assert_eq!(setup.start().client().post("/counter", r#"{"by": 1}"#).json()["count"], 6);
}

#[test]
fn a_host_on_a_full_file_system_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(16) else {
        eprintln!("no file system may be mounted here");
        return;
    };
    let setup = Setup::new(crate::BINARY, &toml());
    disk.use_for(&setup);
    let setup = used_by(setup);
    remove_index(&setup);
    disk.fill(0);
    let mut host = setup.start();
    serves_what_needs_no_room(&mut host);
    disk.clear();
    host.until("it is ready", |host| {
        (Client::new(&host.admin, None).get("/readyz").status.as_u16() == 200).then_some(())
    });
    assert_eq!(host.client().post("/counter", r#"{"by": 1}"#).json()["count"], 3);
    host.until("commands find it", |host| (host.caxton(&["ps"]).0 == 0).then_some(()));
}

#[test]
fn a_host_without_a_store_waits_for_room() {
    let mut host = Setup::new(crate::BINARY, &toml()).within("ulimit -Sf 0").spawn();
    host.until_output("management: http://");
    let output = host.output();
    let address = |before: &str| {
        let rest = output.split_once(before).expect("it says where it listens").1;
        rest.chars().take_while(|letter| letter.is_ascii_digit() || ".:".contains(*letter)).collect::<String>()
    };
    let (http, admin) = (address("calls: http://"), address("management: http://"));
    let client = Client::new(&admin, None);
    let ready = client.get("/readyz");
    assert_eq!((ready.status.as_u16(), &ready.json()["ready"]), (503, &json!(false)));
    assert!(ready.text().contains("there is no room on the disk"), "{}", ready.text());
    assert_eq!(client.get("/healthz").status.as_u16(), 200);
    assert_eq!(client.get("/v1/agents").json()["code"], "no-room");
    let refused = Client::new(&http, None).post("/counter", "");
    assert_eq!((refused.status.as_u16(), &refused.json()["code"]), (503, &json!("no-room")));
    assert!(!refused.text().contains(".caxton"), "{}", refused.text());
    make_room(&host);
    host.until_ready();
    assert_eq!((&host.http, &host.admin), (&http, &admin));
    assert_eq!(host.client().post("/counter", r#"{"by": 1}"#).json()["count"], 1);
}

/// A small file system that is filled with a file beside the store.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one; `None` where the tests may not.
    fn mount(mebibytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(folder.path());
        let mounted = mount.output().is_ok_and(|mounted| mounted.status.success());
        mounted.then_some(Self { folder })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    /// Makes all of the room that there can be.
    fn clear(&self) {
        let _ = fs::remove_file(self.ballast());
    }

    /// Fills it, but for this many bytes.
    fn fill(&self, left: u64) {
        self.clear();
        let space = rustix::fs::statvfs(self.folder.path()).expect("it is mounted");
        let bytes = (space.f_bavail * space.f_frsize).saturating_sub(left);
        fs::write(self.ballast(), vec![0; usize::try_from(bytes).expect("it is small")]).expect("there is room");
    }

    /// Puts the data folder of a host onto it.
    fn use_for(&self, setup: &Setup) {
        let data = self.folder.path().join("data");
        fs::create_dir(&data).expect("there is room");
        std::os::unix::fs::symlink(data, setup.folder().join(".caxton")).expect("the folder can be written to");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).expect("it is there").len()
}

#[test]
fn a_store_on_a_full_file_system_is_compacted() {
    let Some(disk) = SmallDisk::mount(16) else {
        eprintln!("no file system may be mounted here");
        return;
    };
    let setup = Setup::new(crate::BINARY, &toml());
    disk.use_for(&setup);
    let host = setup.start();
    assert_eq!(host.client().post("/counter", r#"{"by": 2}"#).json()["count"], 2);
    let large = host.api().send(http::Method::PUT, "/v1/agents/counter/state/large", &[], vec![b'x'; 4 << 20]);
    assert_eq!(large.status.as_u16(), 204);
    assert_eq!(host.api().send(http::Method::DELETE, "/v1/agents/counter/state/large", &[], "").status.as_u16(), 204);
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    let database = setup.folder().join(".caxton/caxton.db");
    let before = size(&database);
    assert!(before > 4 << 20, "{before}");
    disk.fill(0);
    let mut host = setup.start();
    host.until("it says that it is not ready", |host| {
        let reply = Client::new(&host.admin, None).get("/readyz");
        (reply.status.as_u16() == 503 && reply.text().contains("is full")).then_some(())
    });
    assert_eq!(host.client().post("/counter", r#"{"by": 1}"#).status.as_u16(), 503);
    let admin = format!("http://{}", host.admin);
    let remote = |host: &Host, arguments: &[&str]| {
        let mut command = host.command(&[arguments, &["--admin", &admin]].concat());
        let output = command.env("CAXTON_TOKEN_FILE", ".caxton/token").output().expect("it ends");
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    assert_eq!(remote(&host, &["state", "get", "counter", "count"]).0, Some(0));
    // Nothing is to be gained without any room at all, and the host says how much it takes.
    let (code, said) = remote(&host, &["store", "compact"]);
    assert!(code == Some(1) && said.contains("make room first"), "{code:?} {said}");
    // A host that has stopped leaves the room of its own files, which is enough to write the little that is in use anew.
    let (_, setup) = host.stop();
    disk.fill(1 << 20);
    let (code, out, error) = setup.caxton(&["store", "compact", "-o", "json"]);
    let compacted: Value = serde_json::from_str(&out).unwrap_or_else(|parse| panic!("{code} {parse}: {error}"));
    assert!(compacted["before"].as_u64() > compacted["after"].as_u64(), "{compacted}");
    assert!(size(&database) < 1 << 20, "{}", size(&database));
    assert_eq!(setup.start().client().post("/counter", r#"{"by": 1}"#).json()["count"], 3);
}
