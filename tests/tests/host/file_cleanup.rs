//! The removal of files: those of a revision go with it, and those that a killed host left behind go at the next start.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use caxton_tests::{Setup, guest};

use crate::{BINARY, agent, file};

const OWN: &str = "[agents.echo]\ncomponent = \"agent.wasm\"\nreload = { strategy = \"immediate\" }\n\
                   rollback = { min-messages = 0, keep = 1 }\n[[agents.echo.http]]\nroute = \"/echo\"\n";

/// Puts the guest with another custom section in place, which changes nothing that it does.
fn install(folder: &Path, version: u8) {
    let mut bytes = fs::read(guest("echo")).expect("the guest is there");
    bytes.extend([0, 4, 1, b'v', version, version]);
    let temporary = folder.join("new.wasm");
    fs::write(&temporary, bytes).expect("the folder can be written to");
    fs::rename(temporary, folder.join("agent.wasm")).expect("the folder can be written to");
}

fn names(folder: &Path, suffix: &str) -> Vec<String> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(suffix));
    names.sort();
    names
}

/// Sets the modification time of a file to this many days ago.
fn make_old(path: &Path, days: u32) {
    fs::create_dir_all(path.parent().expect("it is in a folder")).expect("the folder can be made");
    let file = File::create(path).expect("the folder can be written to");
    file.set_modified(SystemTime::now() - Duration::from_secs(24 * 3_600) * days).expect("its time can be set");
}

#[test]
fn compiled_code_and_components_are_removed_with_their_revision() {
    let setup = Setup::new(BINARY, &file(OWN)).within("unset CAXTON_CACHE");
    install(setup.folder(), 1);
    let mut host = setup.start();
    let data = host.folder().join(".caxton");
    for version in 2..=6 {
        install(host.folder(), version);
        host.until_agent("echo", "the new version runs", |status| status["revision"] == format!("echo@{version}"));
    }
    host.until("what is left is of two revisions", |_| {
        let compiled = names(&data.join("cache"), ".cwasm");
        let kept = names(&data.join("components"), ".wasm");
        let same = compiled.iter().zip(&kept).all(|(compiled, kept)| compiled[..64] == kept[..64]);
        let sealed = names(&data.join("cache"), ".seal").len();
        (compiled.len() == 2 && kept.len() == 2 && sealed == 2 && same).then_some(())
    });
    // What is kept can be gone back to.
    assert_eq!(host.caxton(&["rollout", "undo", "echo"]).0, 0);
    host.until_agent("echo", "the one before runs", |status| status["revision"] == "echo@5");
    assert_eq!(host.client().post("/echo", "x").text(), "x");
}

#[test]
fn leftovers_of_a_killed_host_are_removed_at_the_next_start() {
    let setup = Setup::new(BINARY, &file(&agent("echo", "echo", ""))).within("unset CAXTON_CACHE");
    let data = setup.folder().join(".caxton");
    let none = "0".repeat(64);
    let left =
        ["cache/0199.tmp", "cache/0199.seal", "components/0199.tmp", "rehearse-0199.tmp", "copy-0199", ".tmp0199"];
    left.iter().for_each(|name| make_old(&data.join(name), 0));
    // Of an engine that this host does not have, and of a component that it does not know.
    let of_others = [format!("cache/{none}-0123456789abcdef.cwasm"), format!("cache/{none}-0123456789abcdef.seal")];
    of_others.iter().for_each(|name| make_old(&data.join(name), 0));
    for (name, days) in [("gone.log", 8), ("gone.log.1", 30), ("lately.log", 2), ("echo.log", 400)] {
        make_old(&data.join("logs").join(name), days);
    }
    let mut host = setup.start();
    for name in left.into_iter().chain(of_others.iter().map(String::as_str)) {
        assert!(!data.join(name).exists(), "{name} is still there");
    }
    assert_eq!(names(&data.join("cache"), ".cwasm").len(), 1, "what is used is there");
    host.until("old logs of agents that are gone are removed", |_| {
        (names(&data.join("logs"), "") == ["echo.log", "lately.log"]).then_some(())
    });
}

#[test]
fn a_shared_cache_keeps_the_files_of_other_hosts() {
    let setup = Setup::new(BINARY, &file(&agent("echo", "echo", "")));
    let shared = setup.folder().join("shared");
    let compiled = shared.join("compiled");
    let [of_another, given_up] =
        ["1", "2"].map(|digit| compiled.join(format!("{}-0123456789abcdef.cwasm", digit.repeat(64))));
    make_old(&of_another, 29);
    make_old(&given_up, 31);
    make_old(&compiled.join("half.tmp"), 0);
    let setup = setup.variable("CAXTON_CACHE", &shared.display().to_string());
    let host = setup.start();
    assert_eq!(host.client().post("/echo", "x").text(), "x");
    assert!(of_another.exists(), "another host has used it within 30 days");
    assert!(compiled.join("half.tmp").exists(), "another host may be compiling");
    assert!(!given_up.exists(), "nobody has used it for 30 days");
    assert_eq!(names(&compiled, ".cwasm").len(), 2);
}
