//! The management API against its own description: requests that follow it and requests that do not, made up by
//! schemathesis, which is fetched from PyPI.

use std::path::PathBuf;
use std::process::Command;

use caxton_tests::{Host, has_python, target, tested_with};

use crate::{agent, host};

/// The same requests in every run.
const SEED: &str = "20251130";
/// The number of random requests for each operation, beside those at the bounds of each parameter.
const EXAMPLES: &str = "8";
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis/requirements.txt");

/// The tool, in a folder of its own that is made once.
fn schemathesis() -> PathBuf {
    let wanted = std::fs::read_to_string(REQUIREMENTS).expect("the list of what it needs");
    let folder = target().join("caxton-schemathesis");
    let noted = folder.join("requirements.txt");
    if std::fs::read_to_string(&noted).is_ok_and(|found| found == wanted) {
        return folder.join("bin/schemathesis");
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", REQUIREMENTS];
    run(Command::new(folder.join("bin/python")).args(pip));
    // Last, so that one that was broken off is made anew.
    std::fs::write(noted, wanted).expect("the folder can be written to");
    folder.join("bin/schemathesis")
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    said
}

/// Streams never end: so much of each is enough.
const STREAMS: &str = "\
[[operations]]
include-path-regex = \"/(events|logs)$\"
request-timeout = 2.0
";

/// The operation that gives a token another text.
const ROTATE: &str = "/v1/tokens/{name}/rotate";

/// Checks the operations that these arguments choose, with all checks.
fn check(host: &Host, chosen: &[&str]) {
    let token = std::fs::read_to_string(host.folder().join(".caxton/token")).expect("the host wrote its token");
    std::fs::write(host.folder().join("schemathesis.toml"), STREAMS).expect("the folder can be written to");
    let mut command = Command::new(schemathesis());
    command
        .current_dir(host.folder())
        .args(["run", &format!("http://{}/v1/openapi.json", host.admin), "--checks", "all"])
        .args(["--header", &format!("Authorization: Bearer {}", token.trim())])
        .args(["--seed", SEED, "--max-examples", EXAMPLES, "--continue-on-failure", "--no-color"])
        // Expects 401 however often a wrong token comes; the host answers 429 then, which `access` tests.
        .args(["--exclude-checks", "ignored_auth"])
        .args(["--request-timeout", "60", "--suppress-health-check", "all"])
        .args(chosen);
    let said = run(&mut command);
    let end: Vec<&str> = said.lines().rev().take(12).collect();
    println!("{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
}

#[test]
fn the_api_conforms_to_its_openapi_document() {
    if !has_python() {
        return;
    }
    // Agents that take any content: what another rejects (422) is its own affair.
    let host = host(&format!("{}{}{}", agent("echo", "echo", ""), agent("other", "echo", ""), agent("web", "web", "")));
    // Whoever calls an agent that is paused waits, which is as it should be and takes long.
    check(&host, &["--exclude-path", "/v1/mailboxes/{agent}/pause", "--exclude-path", ROTATE]);
    check(&host, &["--include-path-regex", "^/v1/mailboxes"]);
    // Last: names that the API tells are tried as well, and `local` is the token of these requests.
    check(&host, &["--include-path", ROTATE]);
    tested_with(run(Command::new(schemathesis()).arg("--version")).trim());
}
