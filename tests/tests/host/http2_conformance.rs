//! HTTP/2 by h2spec, which is fetched as a Go module, against both listeners.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use caxton_tests::{target, tested_with};

use crate::{agent, host};

/// The modules that the program is built of, with their versions.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/h2spec");

/// The cases that fail or may fail, by section and description, and why that is as it should be.
const FAILING: [(&str, &str, &str); 2] = [
    (
        "http2/3.5",
        "Sends invalid connection preface",
        "the same port speaks HTTP/1.1: a connection that begins with no preface gets a refusal in that form, and ends",
    ),
    (
        "http2/6.9.1",
        "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
        "a short response may be over by then, and a stream that has ended has no window",
    ),
];

/// Returns the command `go`. Prints how to get it where it is missing.
fn go() -> Option<PathBuf> {
    // Where the archive of the Go project puts it, which is on no path by itself.
    let places = ["go", "/usr/local/go/bin/go"].map(PathBuf::from);
    let found = places.into_iter().find(|go| Command::new(go).arg("version").output().is_ok());
    if found.is_none() {
        println!("not tested: HTTP/2 by h2spec; install Go (go.dev/doc/install) so that `go version` runs");
    }
    found
}

/// The program, built once for each set of modules.
fn h2spec(go: &Path) -> PathBuf {
    let wanted = fs::read_to_string(format!("{MODULES}/go.sum")).expect("the modules that it needs");
    let folder = target().join("caxton-h2spec");
    let (program, noted) = (folder.join("h2spec"), folder.join("go.sum"));
    if fs::read_to_string(&noted).is_ok_and(|found| found == wanted) {
        return program;
    }
    fs::create_dir_all(&folder).expect("the target folder can be written to");
    let mut build = Command::new(go);
    build.current_dir(MODULES).env("GOFLAGS", "-mod=readonly").args(["build", "-o"]).arg(&program);
    let output = build.arg("github.com/summerwind/h2spec/cmd/h2spec").output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "h2spec was not built; it needs the Go module proxy and Go as in go.mod:\n{said}");
    // Last, so that a build that was broken off is made anew.
    fs::write(noted, wanted).expect("the folder can be written to");
    program
}

/// Runs all cases against an address. Returns those that failed: section and description.
fn failed(program: &Path, address: &str, path: &str) -> Vec<(String, String)> {
    let (name, port) = address.rsplit_once(':').expect("an address");
    let report = tempfile::tempdir().expect("a temporary folder");
    let file = report.path().join("report.xml");
    let mut command = Command::new(program);
    command.args(["--strict", "--host", name, "--port", port, "--path", path, "--timeout", "5", "--junit-report"]);
    let output = command.arg(&file).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}:\n{said}"));
    let attribute = |line: &str, name: &str| {
        let value = line.split_once(&format!("{name}=\""))?.1.split('"').next()?;
        Some(value.replace("&#39;", "'").replace("&quot;", "\"").replace("&amp;", "&"))
    };
    let cases: Vec<&str> = told.split("<testcase ").skip(1).collect();
    assert!(cases.len() > 100, "{} cases:\n{said}", cases.len());
    let failed = cases.iter().filter(|case| case.contains("<failure") || case.contains("<error"));
    let named = failed
        .map(|case| (attribute(case, "package").unwrap_or_default(), attribute(case, "classname").unwrap_or_default()));
    let named: Vec<_> = named.collect();
    println!("{address}{path}: {} cases, {} failed", cases.len(), named.len());
    if !named.is_empty() {
        println!("{said}");
    }
    named
}

#[test]
fn both_listeners_speak_http2_as_h2spec_wants_it() {
    let Some(go) = go() else { return };
    let program = h2spec(&go);
    let web = "[agents.web]\ncomponent = \"GUEST(rogue-web)\"\nlimits = { time = \"2m\" }\n\
               [[agents.web.http]]\nroute = \"/{*path}\"\n";
    let host = host(&(agent("echo", "echo", "") + web));
    for (address, path) in [(&host.http, "/upload"), (&host.admin, "/healthz")] {
        let failed = failed(&program, address, path);
        let known = |(section, about): &(String, String)| {
            FAILING.iter().any(|(known, case, _)| known == section && case == about)
        };
        let new: Vec<_> = failed.iter().filter(|failed| !known(failed)).collect();
        assert!(new.is_empty(), "{address}{path}: {new:#?}");
    }
    tested_with("h2spec 2.2.1");
    assert!(!host.output().contains("panicked"), "{}", host.output());
}
