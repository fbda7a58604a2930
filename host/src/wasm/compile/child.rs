//! The compilation in a child process with bounds on memory and time: Cranelift does not promise to be safe against a
//! hostile component, and a component of 15 MB takes many seconds.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use caxton_control::inspection::Finding;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::process::Command;
use wasmtime::Engine;

use crate::wasm::compile::engine;
use crate::wasm::compile::engine_kind::EngineKind;
use crate::wasm::compile::program::ProgramError;
use crate::wasm::validate::validate;

/// The time limit for one component.
const TIME: Duration = Duration::from_secs(300);
/// The memory limit. The largest real components (18 MB) need about 1 GB.
const MEMORY_BYTES: u64 = 4 << 30;

/// The beginning of the line by which the child reports a finding.
const FINDING: &str = "finding: ";

/// The work of a child process.
#[derive(Debug, Clone, Copy)]
pub(in crate::wasm) enum ChildTask<'a> {
    /// Validates a component and compiles it into a new file.
    Compile {
        /// The file.
        output: &'a Path,
        /// The engine that runs the code.
        kind: EngineKind,
    },
    /// Validates a component, with the proposals that a policy lists, if it does.
    Inspect(Option<&'a BTreeSet<&'static str>>),
}

impl ChildTask<'_> {
    /// Returns the arguments after the path of the component.
    fn arguments(self) -> Vec<OsString> {
        match self {
            Self::Compile { output, kind } => vec![output.into(), kind.name().into()],
            Self::Inspect(None) => vec![NO_OUTPUT.into(), "inspect".into()],
            Self::Inspect(Some(features)) => {
                let features: Vec<&str> = features.iter().copied().collect();
                vec![NO_OUTPUT.into(), "inspect".into(), features.join(",").into()]
            }
        }
    }
}

/// The name in place of the output of a task that has none.
const NO_OUTPUT: &str = "-";

/// Runs a task for `input` in a child process with the command line `compiler`.
pub(in crate::wasm) async fn run(compiler: &[OsString], input: &Path, task: ChildTask<'_>) -> Result<(), ProgramError> {
    let failed = |why: String| ProgramError::Compile(why);
    let Some((program, arguments)) = compiler.split_first() else {
        return Err(failed("there is no compiler".to_owned()));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        // After the given arguments, because a test's harness has some of its own in front.
        .arg("compile-component")
        .arg(input)
        .args(task.arguments())
        // The last line on stderr becomes the error's text.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Piped and read to its end, because a full pipe would stop the child.
        .stderr(Stdio::piped())
        // A revision that is withdrawn while it is compiled must not keep the cores busy.
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
    // A panic prints its place on the line before its message, and a note on the line after it.
    let said = || said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("note: "));
    let findings: Vec<Finding> =
        said().filter_map(|line| line.strip_prefix(FINDING)).filter_map(Finding::of_line).collect();
    if !findings.is_empty() {
        return Err(ProgramError::Findings(findings));
    }
    let last = said().next_back().map(str::to_owned);
    Err(failed(last.unwrap_or_else(|| format!("the compiler ended with {}", finished.status))))
}

/// The child process: `caxton compile-component INPUT OUTPUT ENGINE` or `INPUT - inspect [FEATURES]`. Sets its own
/// limits first.
///
/// # Errors
/// A message for the parent to show.
pub(crate) fn compile_child(input: &Path, output: &Path, engine: &str, features: Option<&str>) -> Result<(), String> {
    // Data and not address space: wasmtime reserves far more of the latter than it uses.
    bound(Resource::Data, MEMORY_BYTES)?;
    // In the child as well as in the parent: a parent that is killed cannot end it.
    bound(Resource::Cpu, TIME.as_secs())?;
    // A crash must not write gigabytes of memory to the disk.
    bound(Resource::Core, 0)?;
    // Where memory ends all the same, the kernel ends this process and not the host. A system without this file has no
    // such order.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let bytes = std::fs::read(input).map_err(|error| error.to_string())?;
    // An empty list allows no proposal.
    let features = features.map(|list| list.split(',').filter(|name| !name.is_empty()).collect::<BTreeSet<&str>>());
    // Here and not in the host: a hostile component may make it long.
    let findings = validate(&bytes, features.as_ref());
    if !findings.is_empty() {
        let lines: Vec<String> = findings.iter().map(|finding| format!("{FINDING}{}", finding.to_line())).collect();
        return Err(lines.join("\n"));
    }
    if engine == "inspect" {
        return Ok(());
    }
    let kind = EngineKind::named(engine).ok_or_else(|| format!("there is no engine `{engine}`"))?;
    // A pool of one: artefacts depend on the kind of allocator, not on its size.
    let engine = Engine::new(&engine::config(kind, Some((1, 1)))).map_err(|error| format!("{error:#}"))?;
    let compiled = engine.precompile_component(&bytes).map_err(|error| format!("{error:#}"))?;
    // New: a name that is there could be a link to another file.
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(output);
    file.and_then(|mut file| file.write_all(&compiled)).map_err(|error| error.to_string())
}

fn bound(resource: Resource, value: u64) -> Result<(), String> {
    // Only root can raise a hard limit again, so that a lower one is kept.
    let hard = getrlimit(resource).maximum;
    let value = hard.map_or(value, |hard| hard.min(value));
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
        .map_err(|error| format!("bounding the compiler: {error}"))
}
