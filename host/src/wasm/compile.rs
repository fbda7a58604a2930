//! Compiling, in a child process with bounds on memory and time: Cranelift is not meant to be safe against a
//! hostile component, and a 15 MB one takes it many seconds.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::process::Command;
use wasmtime::Engine;

use super::engine;
use super::program::ProgramError;

/// How long compiling one component may take.
const TIME: Duration = Duration::from_secs(300);
/// Memory that compiling may use. The largest real components (18 MB) need about 1 GB.
const MEMORY_BYTES: u64 = 4 << 30;

/// Compiles `input` into the new file `output`, in a child process: the command line `compiler`.
pub(super) async fn compile(
    compiler: &[OsString],
    input: &Path,
    output: &Path,
    fuel: bool,
) -> Result<(), ProgramError> {
    let failed = |why: String| ProgramError::Compile(why);
    let Some((program, arguments)) = compiler.split_first() else {
        return Err(failed("there is no compiler".to_owned()));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg("compile-component")
        .args([input.as_os_str(), output.as_os_str(), OsStr::new(if fuel { "fuel" } else { "plain" })])
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let shown = Path::new(program).display();
    let child = command.spawn().map_err(|error| failed(format!("{shown} did not start: {error}")))?;
    let finished = tokio::time::timeout(TIME, child.wait_with_output())
        .await
        .map_err(|_| failed(format!("it took longer than {} s", TIME.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if finished.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&finished.stderr);
    // A panic says where it was on a line before what it was, and has advice on the line after.
    let mut said = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("note: "));
    let said = said.next_back().map(str::to_owned);
    Err(failed(said.unwrap_or_else(|| format!("the compiler ended with {}", finished.status))))
}

/// What the child does: `caxton compile-component INPUT OUTPUT plain|fuel`.
///
/// # Errors
/// A text for the parent to show.
pub(crate) fn compile_child(input: &Path, output: &Path, fuel: bool) -> Result<(), String> {
    bound(Resource::Data, MEMORY_BYTES)?;
    bound(Resource::Cpu, TIME.as_secs())?;
    bound(Resource::Core, 0)?;
    let bytes = std::fs::read(input).map_err(|error| error.to_string())?;
    // One place in the pool: what is compiled depends on the kind of allocation, not on its size.
    let engine = Engine::new(&engine::config(fuel, Some(1))).map_err(|error| format!("{error:#}"))?;
    let compiled = engine.precompile_component(&bytes).map_err(|error| format!("{error:#}"))?;
    std::fs::write(output, compiled).map_err(|error| error.to_string())
}

fn bound(resource: Resource, value: u64) -> Result<(), String> {
    // Only root may raise a hard limit again; a lower one that is there stays.
    let hard = getrlimit(resource).maximum;
    let value = hard.map_or(value, |hard| hard.min(value));
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
        .map_err(|error| format!("bounding the compiler: {error}"))
}
