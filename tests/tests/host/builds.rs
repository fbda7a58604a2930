//! Builds that follow from changed sources, and their end.

use std::fs;
use std::path::Path;

use caxton_tests::{Host, Setup, guest};
use rustix::process::{Pid, Signal, test_kill_process};

use crate::{BINARY, file};

/// An agent whose build counts its runs in `NAME.runs`, a line each.
fn counting(name: &str, patterns: &str) -> String {
    format!(
        "[agents.{name}]\ncomponent = \"GUEST(echo)\"\nbuild = {{ command = \"echo run >> {name}.runs\", watch = [{patterns}] }}\n"
    )
}

fn runs(folder: &Path, name: &str) -> usize {
    fs::read_to_string(folder.join(format!("{name}.runs"))).unwrap_or_default().lines().count()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
    fs::write(path, text).expect("the folder can be written to");
}

/// Waits until a build has been run again, and nothing is built any more: sources that change in one run after another
/// are taken for the build's own.
fn until_more(host: &mut Host, name: &str, before: usize) {
    host.until(&format!("{name} is built again"), |host| {
        let said = host.output();
        let is_idle = said.matches("building: ").count() == said.matches("built in ").count();
        (is_idle && runs(host.folder(), name) > before).then_some(())
    });
}

fn is_there(pid: i32) -> bool {
    // One that nobody has buried yet is dead all the same.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    test_kill_process(Pid::from_raw(pid).expect("a process")).is_ok() && !stat.contains(") Z ")
}

#[test]
fn every_form_of_a_source_pattern_is_watched() {
    let outside = tempfile::tempdir().expect("a temporary folder");
    write(&outside.path().join("src/a.rs"), "a");
    let setup = Setup::new(BINARY, "").argument("--watch");
    let folder = setup.folder().to_owned();
    write(&folder.join("src/one.rs"), "a");
    let relative = format!("../{}/src/**", outside.path().file_name().expect("a name").to_string_lossy());
    let inside = [
        ("plain", "\"src/**\"".to_owned()),
        ("dotted", "\"./src/**\"".to_owned()),
        ("folder", "\"src\"".to_owned()),
        ("slash", "\"src/\"".to_owned()),
        ("absolute", format!("\"{}/src/**\"", folder.display())),
        ("absolute-folder", format!("\"{}/src\"", folder.display())),
        ("star", "\"src/*.rs\"".to_owned()),
        ("brace", "\"src/*.{rs,toml}\"".to_owned()),
        ("brace-folder", "\"{src,lib}/**\"".to_owned()),
        ("single", "\"src/one.rs\"".to_owned()),
        ("everything", "\"**/*.rs\"".to_owned()),
        ("second", "\"lib/**\", \"src/**\"".to_owned()),
    ];
    let beside = [
        ("parent", format!("\"{relative}\"")),
        ("other", format!("\"{}\"", outside.path().display())),
        ("linked", "\"link/*.rs\"".to_owned()),
    ];
    std::os::unix::fs::symlink(outside.path().join("src"), folder.join("link")).expect("the folder can be written to");
    let all = || inside.iter().chain(&beside);
    setup.edit(&file(&all().map(|(name, patterns)| counting(name, patterns)).collect::<String>()));
    let mut host = setup.start();
    // A file of these is no change of another's.
    write(&folder.join("src/one.rs"), "b");
    for (name, _) in &inside {
        until_more(&mut host, name, 0);
    }
    for (name, _) in &beside {
        assert_eq!(runs(&folder, name), 0, "{name}");
    }
    write(&outside.path().join("src/a.rs"), "b");
    for (name, _) in &beside {
        until_more(&mut host, name, 0);
    }
}

#[test]
fn sources_are_watched_when_their_folders_are_moved() {
    let setup = Setup::new(BINARY, &file(&counting("late", "\"sources/deep/**\""))).argument("--watch");
    let mut host = setup.start();
    let folder = host.folder().join("sources");
    host.until_output("the pattern `sources/deep/**` of build.watch matches no file: sources/deep is not there");
    // It comes; a folder in it comes; it goes and is made anew; it is exchanged.
    write(&folder.join("deep/a.rs"), "a");
    until_more(&mut host, "late", 0);
    let before = runs(host.folder(), "late");
    write(&folder.join("deep/er/and/er/b.rs"), "a");
    until_more(&mut host, "late", before);
    let before = runs(host.folder(), "late");
    write(&folder.join("deep/er/and/er/b.rs"), "ab");
    until_more(&mut host, "late", before);
    let before = runs(host.folder(), "late");
    fs::remove_dir_all(&folder).expect("the folder is there");
    until_more(&mut host, "late", before);
    let before = runs(host.folder(), "late");
    write(&folder.join("deep/a.rs"), "abc");
    until_more(&mut host, "late", before);
    let before = runs(host.folder(), "late");
    write(&host.folder().join("others/deep/a.rs"), "abcd");
    fs::rename(&folder, host.folder().join("old")).expect("the folder is there");
    fs::rename(host.folder().join("others"), &folder).expect("the folder is there");
    until_more(&mut host, "late", before);
}

#[test]
fn a_build_that_writes_into_its_own_sources_is_detected() {
    let toml = file(
        "[agents.gen]\ncomponent = \"agent.wasm\"\nbuild = { command = \"echo run >> gen.runs; cp $(cat echo.path) agent.wasm; date +%N > src/generated.rs\", watch = [\"**/*.rs\", \"*.wasm\", \"src\"] }\n",
    );
    let setup = Setup::new(BINARY, &toml).argument("--build").argument("--watch");
    write(&setup.folder().join("src/main.rs"), "a");
    write(&setup.folder().join("echo.path"), &guest("echo").display().to_string());
    let mut host = setup.start();
    host.until_output("changes its own sources");
    assert_eq!(runs(host.folder(), "gen"), 5, "{}", host.output());
    // From then on it is run for what others change, once each.
    for (round, text) in [(6, "b"), (7, "c"), (8, "d")] {
        // In one go: half an edit would be built too.
        write(&host.folder().join("edited"), text);
        fs::rename(host.folder().join("edited"), host.folder().join("src/main.rs")).expect("the folder is there");
        host.until("it is built", |host| (host.output().matches("built in").count() == round).then_some(()));
    }
    let (_, setup) = host.stop();
    assert_eq!(runs(setup.folder(), "gen"), 8);
}

#[test]
fn a_stop_in_the_middle_of_a_build_ends_all_its_processes() {
    // A shell that starts another, which starts a third.
    let build = "build = { command = \"test -e go || exit 0; echo $$ > outer; sh -c 'sleep 300 & echo $! > inner; wait'; true\", watch = [\"go\"] }\n";
    let toml = file(&format!("[agents.slow]\ncomponent = \"GUEST(echo)\"\n{build}"));
    for at_start in [true, false] {
        let setup = Setup::new(BINARY, &toml).argument("--build").argument("--watch");
        let folder = setup.folder().to_owned();
        let go = || write(&folder.join("go"), "");
        let mut host = if at_start {
            go();
            setup.spawn()
        } else {
            let host = setup.start();
            go();
            host
        };
        let pid =
            |name: &str| fs::read_to_string(folder.join(name)).ok().and_then(|text| text.trim().parse::<i32>().ok());
        let pids = host.until("the build", |_| Some([pid("outer")?, pid("inner")?]));
        host.signal(Signal::TERM);
        let code = host.ended();
        assert!([0, 130].contains(&code), "{code}: {}", host.output());
        host.until("its processes to end", |_| (!pids.iter().any(|pid| is_there(*pid))).then_some(()));
    }
}

#[test]
fn patterns_that_match_nothing_are_reported() {
    let toml = file(&(counting("aa", "\"scr/**\"") + &counting("bb", "\"src/*.go\", \"src/**\"")));
    let setup = Setup::new(BINARY, &toml).argument("--watch");
    write(&setup.folder().join("src/main.rs"), "a");
    let (code, _, said) = setup.caxton(&["check"]);
    assert_eq!(code, 0, "sources need not be there: {said}");
    let told = [
        "the pattern `scr/**` of build.watch matches no file: scr is not there; did you mean `src/**`?",
        "the pattern `src/*.go` of build.watch matches no file in src; `src/**` would match 1",
    ];
    for part in told {
        assert!(said.contains(part), "{part}: {said}");
    }
    let host = setup.start();
    for part in told {
        host.until_output(part);
    }
    drop(host);
    let setup = Setup::new(BINARY, &file(&counting("aa", "\"src/{a,b\"")));
    let (code, _, said) = setup.caxton(&["check"]);
    assert!(code == 2 && said.contains("the pattern `src/{a,b` of build.watch means nothing"), "{code} {said}");
}
