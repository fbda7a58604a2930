//! The guests, built once per run by the project's own script.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace")
}

/// Returns the folder in which cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Records a program beside the host that a test used, in the file `tested-with` in the target folder. CI prints the
/// file: a test that was skipped because something is missing shows there.
pub fn tested_with(program: &str) {
    let file = File::options().create(true).append(true).open(target().join("tested-with"));
    // One write, so that lines of concurrent tests stay whole.
    file.and_then(|mut file| file.write_all(format!("{program}\n").as_bytes()))
        .expect("the target folder can be written to");
}

/// Builds missing guests and returns their folder. The script serializes concurrent runs.
fn dist() -> &'static Path {
    static DIST: OnceLock<PathBuf> = OnceLock::new();
    DIST.get_or_init(|| {
        let output = Command::new(root().join("components/build.sh")).output().expect("components/build.sh starts");
        assert!(
            output.status.success(),
            "components/build.sh failed:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        root().join("components/dist")
    })
}

/// Returns the path of a guest.
pub fn guest(name: &str) -> PathBuf {
    let path = dist().join(format!("{name}.wasm"));
    assert!(path.is_file(), "components/build.sh makes no {name}.wasm");
    path
}

/// Returns `true` if guests in this language (`rust`, `javascript`, `python`) were built. Prints a missing language, so
/// that it is not taken for tested.
pub fn has_language(language: &str) -> bool {
    let text = std::fs::read_to_string(dist().join("languages")).expect("the script writes which languages it built");
    let languages: serde_json::Value = serde_json::from_str(&text).expect("it writes JSON");
    let built = languages[language] == true;
    if !built {
        println!("not tested: guests in {language} ({})", languages[language]);
    }
    built
}

/// Returns `true` if Python is present in a version that the tests need. Prints if it is not.
pub fn has_python() -> bool {
    let version = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))";
    let found = Command::new("python3").args(["-c", version]).output().is_ok_and(|output| output.status.success());
    if !found {
        println!("not tested: what needs python3 >= 3.10 with venv");
    }
    found
}
