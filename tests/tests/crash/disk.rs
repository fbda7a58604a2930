//! Disks that are full, and data folders that cannot be used.
//!
//! A limit on the size of files stands for a full disk: it needs no rights, and a write that meets it fails in the
//! same place. It is set while the host runs, and taken away again. With `CAXTON_CRASH_DISK=/mnt/small`, a folder on a
//! small file system, that one is filled instead, with a file beside the store.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use caxton_tests::{Host, Setup};
use rand::RngCore;
use rusqlite::Connection;
use rustix::process::{Resource, Rlimit, prlimit};

use crate::kill::check_at_rest;
use crate::load::Load;
use crate::{BINARY, audit, bank, chance, until};

/// The file system that becomes full.
enum Disk {
    /// A bound on the size of the host's files.
    Bound,
    /// A small file system.
    Small(PathBuf),
}

impl Disk {
    fn given() -> Self {
        std::env::var_os("CAXTON_CRASH_DISK").map_or(Self::Bound, |folder| Self::Small(folder.into()))
    }

    /// Puts the data folder of a host onto it.
    fn prepare(&self, setup: &Setup) {
        let Self::Small(folder) = self else { return };
        let data = folder.join("data");
        let _ = fs::remove_dir_all(&data);
        fs::create_dir(&data).expect("the small file system can be written to");
        std::os::unix::fs::symlink(data, setup.folder().join(".caxton")).expect("the folder can be written to");
    }

    /// Leaves room for about this many more bytes; `None` lifts the limit.
    fn leave(&self, host: &Host, room: Option<u64>) {
        match self {
            Self::Bound => {
                let log = fs::metadata(audit::log(&audit::database(host.folder()))).expect("there is a log").len();
                let current = room.map(|room| if room == 0 { 0 } else { log + room });
                let limit = Rlimit { current, maximum: None };
                prlimit(Some(host.pid()), Resource::Fsize, limit).expect("the limit can be set");
            }
            Self::Small(folder) => {
                let ballast = folder.join("ballast");
                let _ = fs::remove_file(&ballast);
                let Some(room) = room else { return };
                let space = rustix::fs::statvfs(folder).expect("the file system is there");
                let mut file = fs::File::create(ballast).expect("there is room for a name");
                for _ in room / space.f_frsize..space.f_bavail {
                    // The host takes room as well, until there is none.
                    let _ = file.write_all(&vec![0; usize::try_from(space.f_frsize).expect("blocks are small")]);
                }
            }
        }
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let load = Load::with(1, true);
    let disk = Disk::given();
    let setup = Setup::new(BINARY, &bank::file("history = 1_000_000"));
    disk.prepare(&setup);
    let mut host = setup.start();
    bank::open(&host.client());
    for round in 0..3 {
        let clients = load.start(&host, round);
        let before = load.accepted();
        until("requests", &mut host, |_| load.accepted() >= before + 50);
        // Full in the middle of a commit, and then altogether.
        for room in [50_000, 0] {
            disk.leave(&host, Some(room));
            let before = load.refused();
            until("refusals", &mut host, |_| load.refused() > before + 20);
        }
        let order = r#"{"do": "open", "account": "none", "amount": 1000000}"#;
        let reply = host.client().post("/bank-a/now", order);
        assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (503, &"not-committed".into()), "{}", reply.text());
        assert_eq!(host.api().get("/v1/agents").status.as_u16(), 200);
        if round == 1 {
            // It does not live to see space again.
            disk.leave(&host, None);
            let setup = host.kill();
            clients.join();
            host = setup.start();
            continue;
        }
        disk.leave(&host, None);
        let before = load.accepted();
        until("requests", &mut host, |_| load.accepted() >= before + 50);
        clients.stop();
        clients.join();
    }
    check_at_rest(host, &load, &format!("a full disk, {} refused", load.refused()));
}

/// A data folder in which a host has worked, all of it in the database, with the size of that.
fn used_data_folder() -> (Setup, u64) {
    let load = Load::new(3);
    let mut host = Setup::new(BINARY, &bank::file("")).start();
    bank::open(&host.client());
    let clients = load.start(&host, 0);
    until("requests", &mut host, |_| load.accepted() >= 300);
    clients.stop();
    clients.join();
    let (code, setup) = host.stop();
    assert_eq!(code, 0);
    let database = audit::database(setup.folder());
    let copy = Connection::open(&database).expect("the database can be opened");
    let busy: i64 = copy.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).expect("it can be copied");
    assert_eq!(busy, 0);
    drop(copy);
    let size = fs::metadata(database).expect("there is a database").len();
    (setup, size)
}

/// The name of a damage, and the function that does it to a database.
type Damage<'a> = (&'a str, &'a dyn Fn(&Path));

#[test]
fn a_damaged_store_is_reported_at_the_start() {
    let (used, size) = used_data_folder();
    // Enough to meet more than what is free or a content.
    let mut noise = vec![0; size as usize / 4];
    chance(1, 3 << 8, 0).fill_bytes(&mut noise);
    let write = |path: &Path, bytes: &[u8], at: u64| {
        let file = fs::OpenOptions::new().write(true).open(path).expect("the copy can be written to");
        file.write_all_at(bytes, at).expect("the copy can be written to");
    };
    let damages: [Damage<'_>; 7] = [
        ("garbage at the beginning", &|path| write(path, &noise, 0)),
        ("garbage after the head", &|path| write(path, &noise, 100)),
        ("garbage in the middle", &|path| write(path, &noise, size / 2)),
        ("garbage at the end", &|path| write(path, &noise, size - noise.len() as u64)),
        ("cut in the middle", &|path| {
            fs::OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|file| file.set_len(size / 2))
                .expect("it can be cut");
        }),
        ("another file", &|path| fs::write(path, "this is no database\n".repeat(1_000)).expect("it can be written")),
        ("a folder", &|path| {
            fs::remove_file(path).and_then(|()| fs::create_dir(path)).expect("it can be replaced");
        }),
    ];
    for (what, damage) in damages {
        let setup = Setup::new(BINARY, &bank::file(""));
        let database = audit::copy(used.folder(), setup.folder());
        damage(&database);
        let (code, said) = setup.refused();
        assert_eq!(code, 1, "{what}: {said}");
        let advice = if what == "a folder" { "choose another" } else { "move it away" };
        for part in ["caxton.db", advice] {
            assert!(said.contains(part), "{what}: {part:?} is not in: {said}");
        }
        assert!(!said.contains("panicked"), "{what}: {said}");
    }
}

#[test]
fn a_read_only_data_folder_is_reported_at_the_start() {
    let setup = Setup::new(BINARY, &bank::file(""));
    let data = setup.folder().join("data");
    fs::create_dir(&data).expect("the folder can be written to");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o500)).expect("it can be shut");
    // Root may write to any folder, but not make one among processes.
    let data = if rustix::process::geteuid().is_root() { "/proc/caxton".into() } else { data };
    let (code, said) = setup.argument("--data").argument(&data.display().to_string()).refused();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("the data folder {} cannot be used", data.display())), "{said}");
    assert!(said.contains("choose another with `--data DIR`") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_disk_that_is_full_at_the_start_is_waited_for() {
    let (used, _) = used_data_folder();
    for setup in [used, Setup::new(BINARY, &bank::file(""))] {
        let mut host = setup.within("ulimit -Sf 0").spawn();
        host.until_output("room on the disk");
        let limit = Rlimit { current: None, maximum: None };
        prlimit(Some(host.pid()), Resource::Fsize, limit).expect("the limit can be set");
        host.until_ready();
        assert!(!host.output().contains("panicked"), "{}", host.output());
    }
}
