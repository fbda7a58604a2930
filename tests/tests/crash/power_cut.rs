//! Copies of the data folder from any moment, whole and with a damaged log.
//!
//! The host stands still while its files are copied, so that they are of one moment. A power cut may take the end
//! of the log, but nothing of it that is copied into the database already: the log is synced before that is begun.
//! So the log is damaged behind that place only.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use caxton_tests::{Host, Setup};
use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use rustix::process::Signal;

use crate::audit::{self, Books};
use crate::load::{Load, Response, Sent};
use crate::{BINARY, bank, chance, check, seconds, seeds, setting, until, until_rest};

/// Bytes of the head of a log, and of the head of each page in it.
const LOG_HEAD: u64 = 32;
const PAGE_HEAD: u64 = 24;
/// Bytes of garbage: more than a page.
const GARBAGE: usize = 16 << 10;

/// The damage to a copy.
#[derive(Debug, Clone, Copy)]
enum Damage {
    /// An intact copy.
    None,
    /// A log that ends at this offset.
    Cut(u64),
    /// A log with other bytes from this offset on.
    Garbage(u64),
}

/// The files of one moment.
struct Image {
    folder: tempfile::TempDir,
    /// The transfers sent before the copy.
    sent: Vec<Sent>,
    /// The part of the log that is not synced, which a power cut may damage.
    loose: std::ops::RangeInclusive<u64>,
}

impl Image {
    /// Copies the files of a host that works.
    fn take(host: &mut Host, load: &Load) -> Self {
        host.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", host.pid().as_raw_nonzero());
        until("the host to stand still", host, |_| stands_still(Path::new(&tasks)));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let database = audit::copy(host.folder(), folder.path());
        let loose = loose(&audit::index(host.folder()), &audit::log(&database));
        // What is acknowledged after this was committed before it.
        let sent = load.sent();
        host.signal(Signal::CONT);
        Self { folder, sent, loose }
    }

    fn damage(&self, chance: &mut StdRng) -> Damage {
        let at = chance.random_range(self.loose.clone());
        if chance.random_bool(0.5) { Damage::Cut(at) } else { Damage::Garbage(at) }
    }

    /// A host's folder with these files, damaged.
    fn place(&self, damage: Damage, chance: &mut StdRng) -> Setup {
        let setup = Setup::new(BINARY, &bank::file("history = 1_000_000"));
        let log = audit::log(&audit::copy(self.folder.path(), setup.folder()));
        let open = || OpenOptions::new().write(true).open(&log).expect("the copy has a log");
        match damage {
            Damage::None => {}
            Damage::Cut(at) => open().set_len(at).expect("the copy can be cut"),
            Damage::Garbage(at) => {
                let mut file = open();
                let mut garbage = vec![0; GARBAGE];
                chance.fill_bytes(&mut garbage);
                file.seek(SeekFrom::Start(at)).expect("the copy can be written to");
                file.write_all(&garbage).expect("the copy can be written to");
            }
        }
        setup
    }
}

/// Returns whether every thread of a process is stopped.
fn stands_still(tasks: &Path) -> bool {
    let state = |path: &Path| {
        let text = fs::read_to_string(path.join("stat")).unwrap_or_default();
        text.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    };
    fs::read_dir(tasks).expect("the process is there").all(|task| state(&task.expect("a thread").path()))
}

/// The part of a log that is not copied into its database yet, by the index that the processes share
/// (<https://sqlite.org/walformat.html>, section 2).
fn loose(index: &Path, log: &Path) -> std::ops::RangeInclusive<u64> {
    let mut head = [0; 136];
    fs::File::open(index).and_then(|mut file| file.read_exact(&mut head)).expect("a host that works has an index");
    let number = |at: usize| u64::from(u32::from_ne_bytes(head[at..at + 4].try_into().expect("four bytes")));
    let (last, begun) = (number(16), number(128));
    let size = u64::from(u16::from_ne_bytes([head[14], head[15]]));
    let place = |page: u64| LOG_HEAD + page * (PAGE_HEAD + size);
    let end = fs::metadata(log).expect("a host that works has a log").len();
    place(begun).min(end)..=place(last.max(begun)).min(end)
}

#[test]
fn a_copy_of_any_moment_has_all_the_money() {
    let images = setting("CAXTON_CRASH_IMAGES", 2);
    for seed in seeds() {
        let mut chance = chance(seed, 2 << 8, 0);
        for (number, image) in (1..).zip(take_images(seed, images, &mut chance)) {
            let mut damages = vec![Damage::None];
            damages.extend((0..3).map(|_| image.damage(&mut chance)));
            // At once: most of their time they wait for what is to come later.
            std::thread::scope(|scope| {
                for damage in damages {
                    let setup = image.place(damage, &mut chance);
                    let context = format!("seed {seed}, image {number} of {images}, {damage:?} in {:?}", image.loose);
                    let image = &image;
                    scope.spawn(move || check_image(setup, image, damage, &context));
                }
            });
        }
    }
}

/// Runs a host under load, and copies its files now and then.
fn take_images(seed: u64, count: u64, chance: &mut StdRng) -> Vec<Image> {
    let load = Load::new(seed);
    let mut host = Setup::new(BINARY, &bank::file("history = 1_000_000")).start();
    bank::open(&host.client());
    let clients = load.start(&host, 0);
    let mut images = Vec::new();
    for _ in 0..count {
        let enough = load.accepted() + chance.random_range(1..300);
        until("requests", &mut host, |_| load.accepted() >= enough);
        images.push(Image::take(&mut host, &load));
    }
    drop(host);
    clients.join();
    images
}

/// Starts a host on a copy, and checks it at rest.
fn check_image(setup: Setup, image: &Image, damage: Damage, context: &str) {
    let began = Instant::now();
    let mut sent = image.sent.clone();
    let before = Books::of(setup.folder());
    let missing = match damage {
        Damage::None => before.missing(&sent),
        // What was acknowledged last may be what the damage took.
        Damage::Cut(_) | Damage::Garbage(_) => {
            sent.iter_mut().for_each(|sent| sent.response = Response::Unknown);
            Vec::new()
        }
    };
    check(context, &[before.wrong(), missing].concat());
    let mut host = setup.start();
    until_rest(&mut host);
    let (code, setup) = host.stop();
    assert_eq!(code, 0, "{context}");
    let books = Books::of(setup.folder());
    println!(
        "{context}: {} transfers asked for; {} effects and {} waiting became {} effects and {} dead; {}",
        sent.len(),
        before.effects(),
        before.waiting(),
        books.effects(),
        books.dead(),
        seconds(began)
    );
    check(context, &[books.wrong(), books.unsettled(&sent)].concat());
}
