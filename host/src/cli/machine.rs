//! Checks of the machine for what a host and builds of agents need.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::memory_budget::describe_bound;
use crate::wasm::{ENGINE, OFFERED_INTERFACES, OfferedInterface, machine_instances};

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// The finding is in order.
    Ok,
    /// A part is missing that is needed only for some purposes.
    Warn,
    /// A part is missing without which a host does not run.
    Fail,
}

/// A finding of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct MachineFinding {
    /// The object of the check.
    pub(super) what: &'static str,
    /// The result of the check.
    pub(super) level: Level,
    /// The state that was found.
    pub(super) found: String,
    /// A suggestion.
    pub(super) help: Option<String>,
}

impl MachineFinding {
    pub(super) fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, level: Level::Ok, found: found.into(), help: None }
    }

    pub(super) fn warn(what: &'static str, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what, level: Level::Warn, found: found.into(), help: Some(help.into()) }
    }

    pub(super) fn fail(what: &'static str, found: impl Into<String>, help: impl Into<String>) -> Self {
        Self { what, level: Level::Fail, found: found.into(), help: Some(help.into()) }
    }
}

/// The default of `vm.max_map_count` on Linux.
const USUAL_MAPPINGS: u64 = 65_530;
/// The open files of a host with the default `http.max-connections`.
const FILES: u64 = 12_000;

/// Checks the bound of memory mappings, which bounds the number of instances.
pub(super) fn mappings() -> MachineFinding {
    const WHAT: &str = "vm.max_map_count";
    let Some(count) = kernel_number("/proc/sys/vm/max_map_count") else {
        return MachineFinding::warn(WHAT, "unknown on this system", "nothing; the usual bound is assumed");
    };
    let found = format!("{count}: {} instances at once", machine_instances(count));
    if count < USUAL_MAPPINGS {
        return MachineFinding::warn(WHAT, found, format!("for more, `sysctl -w vm.max_map_count={USUAL_MAPPINGS}`"));
    }
    MachineFinding::ok(WHAT, found)
}

/// Lists the asynchronous interfaces of WASI 0.3 that components may use.
pub(super) fn asynchronous_interfaces() -> MachineFinding {
    let names = |denied: bool| {
        let asynchronous = |offered: &&OfferedInterface| offered.is_asynchronous && offered.is_denied == denied;
        let names: Vec<&str> = OFFERED_INTERFACES.iter().filter(asynchronous).map(|offered| offered.name).collect();
        names.join(", ")
    };
    let (engine, version) = ENGINE;
    MachineFinding::ok(
        "WASI 0.3",
        format!(
            "export wasi:http/handler; import {}; there and denied: {}; {engine} {version} calls its support experimental",
            names(false),
            names(true)
        ),
    )
}

/// Checks if address space can be reserved beyond the physical memory: instances reserve gigabytes and use little of
/// it.
pub(super) fn address_space() -> MachineFinding {
    const WHAT: &str = "address space";
    // The pool reserves gigabytes for each instance, which count against this limit although they are not used.
    if let Some(bytes) = getrlimit(Resource::As).current {
        return MachineFinding::warn(
            WHAT,
            format!("at most {bytes} bytes (ulimit -v)"),
            "`ulimit -v unlimited`: with a bound there is room for fewer instances",
        );
    }
    match kernel_number("/proc/sys/vm/overcommit_memory") {
        Some(2) => MachineFinding::warn(
            WHAT,
            "the kernel never promises more memory than it has (vm.overcommit_memory = 2)",
            "`sysctl -w vm.overcommit_memory=0`: there is room for fewer instances",
        ),
        _ => MachineFinding::ok(WHAT, "not bounded"),
    }
}

/// Checks the memory of the machine or control group, and the host's share of it.
pub(super) fn memory(asked: Option<u64>) -> MachineFinding {
    const WHAT: &str = "memory";
    match describe_bound(asked) {
        None => MachineFinding::warn(WHAT, "unknown on this system", "set `host.memory`"),
        Some((true, found)) => MachineFinding::ok(WHAT, found),
        Some((false, found)) => MachineFinding::warn(
            WHAT,
            found,
            "a smaller `host.memory`: the rest is for the program itself and its caches, and without it the kernel may end \
             the host",
        ),
    }
}

/// Checks the bound of open files, which includes connections. A host raises the soft limit to the hard one.
pub(super) fn open_files() -> MachineFinding {
    let limit = getrlimit(Resource::Nofile);
    open_files_of(limit.current, limit.maximum)
}

fn open_files_of(soft: Option<u64>, hard: Option<u64>) -> MachineFinding {
    const WHAT: &str = "open files";
    let Some(count) = hard else { return MachineFinding::ok(WHAT, "not bounded") };
    let found = match soft {
        Some(soft) if soft < count => format!("{count} (ulimit -Hn), to which a host raises the {soft} of this shell"),
        _ => format!("{count} (ulimit -n)"),
    };
    if count >= FILES {
        return MachineFinding::ok(WHAT, found);
    }
    // A warning: the listener waits for free files, so that the host runs with fewer connections.
    let help = format!("a hard limit of {FILES} (`ulimit -Hn`, `LimitNOFILE=`), or a smaller http.max-connections");
    MachineFinding::warn(WHAT, format!("{found}, each connection is one"), help)
}

fn kernel_number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Checks if the data folder can be written to or created.
pub(super) fn folder(data: &Path) -> MachineFinding {
    const WHAT: &str = "data folder";
    // The folder need not exist yet: then its nearest parent decides.
    let there = data.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("."));
    // The ancestors of a relative path end with an empty one.
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    match tempfile::tempfile_in(there) {
        Ok(_) if there == data => MachineFinding::ok(WHAT, format!("{} can be written to", data.display())),
        Ok(_) => MachineFinding::ok(WHAT, format!("{} will be created", data.display())),
        Err(error) => MachineFinding::fail(
            WHAT,
            format!("{} cannot be used: {error}", data.display()),
            "choose another with `--data DIR` or `store.path`, or fix its permissions",
        ),
    }
}

/// Checks if a port is free.
pub(super) fn port(what: &'static str, flag: &str, address: SocketAddr) -> MachineFinding {
    // Bound for a moment, because only that shows whether the system allows it.
    match TcpListener::bind(address) {
        Ok(_) => MachineFinding::ok(what, format!("{address} is free")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => MachineFinding::fail(
            what,
            format!("{address} is in use by another program"),
            format!("stop that one, or choose another with `{flag} {}:0` or in the file", address.ip()),
        ),
        Err(error) => {
            MachineFinding::fail(what, format!("{address}: {error}"), format!("choose another with `{flag} ADDR`"))
        }
    }
}

/// Checks the tools that build agents in Rust.
pub(super) fn rust() -> MachineFinding {
    const WHAT: &str = "agents in Rust";
    const TARGET: &str = "wasm32-wasip2";
    let Some(version) = output("rustc", &["--version"]) else {
        return MachineFinding::warn(
            WHAT,
            "rustc is not installed",
            "to build such agents, get Rust from https://rustup.rs",
        );
    };
    // The compiler prints the folder of a target's library even if the target is not installed.
    let folder = output("rustc", &["--print", "target-libdir", "--target", TARGET]).map(PathBuf::from);
    let library = |folder: PathBuf| {
        let entries = std::fs::read_dir(folder).ok()?;
        let is_std = |name: &str| name.starts_with("libstd-") && name.ends_with(".rlib");
        entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_std)).then_some(())
    };
    match folder.and_then(library) {
        Some(()) => MachineFinding::ok(WHAT, format!("{version}, target {TARGET}")),
        None => MachineFinding::warn(
            WHAT,
            format!("{version} without the target {TARGET}"),
            format!("to build such agents, `rustup target add {TARGET}`"),
        ),
    }
}

/// Checks the tools that build agents in JavaScript.
pub(super) fn javascript() -> MachineFinding {
    const WHAT: &str = "agents in JavaScript";
    const HELP: &str = "to build such agents, get Node.js 20 or newer, with npm, from https://nodejs.org";
    let Some(node) = output("node", &["--version"]) else {
        return MachineFinding::warn(WHAT, "node is not installed", HELP);
    };
    let Some(npm) = output("npm", &["--version"]) else {
        return MachineFinding::warn(WHAT, format!("node {node} without npm"), HELP);
    };
    let found = format!("node {node}, npm {npm}");
    if numbers(&node) >= (20, 0) { MachineFinding::ok(WHAT, found) } else { MachineFinding::warn(WHAT, found, HELP) }
}

/// Checks the tools that build agents in Python.
pub(super) fn python() -> MachineFinding {
    const WHAT: &str = "agents in Python";
    let Some(version) = output("python3", &["--version"]) else {
        return MachineFinding::warn(
            WHAT,
            "python3 is not installed",
            "to build such agents, get Python 3.10 or newer",
        );
    };
    if numbers(&version) < (3, 10) {
        return MachineFinding::warn(WHAT, version, "to build such agents, get Python 3.10 or newer");
    }
    // Debian ships Python without them.
    if output("python3", &["-c", "import ensurepip, venv"]).is_none() {
        let help = "to build such agents, get the package python3-venv";
        return MachineFinding::warn(WHAT, format!("{version} without venv"), help);
    }
    MachineFinding::ok(WHAT, version)
}

/// Returns the trimmed output of a program; `None` if it fails or does not exist.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    // Wrappers such as rustup print advice on stderr.
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

/// Returns the first two numbers of a version such as `v22.14.0` or `Python 3.12.1`.
fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, expected) in
            [("v22.14.0", (22, 14)), ("Python 3.9.1", (3, 9)), ("Python 3.12.1", (3, 12)), ("", (0, 0))]
        {
            assert_eq!(numbers(version), expected, "{version}");
        }
    }

    #[test]
    fn the_hard_limit_of_open_files_counts() {
        let (few, many) = (Some(1_024), Some(524_288));
        for (soft, hard, level, part) in [
            (few, many, Level::Ok, "524288 (ulimit -Hn), to which a host raises the 1024 of this shell"),
            (many, many, Level::Ok, "524288 (ulimit -n)"),
            (few, few, Level::Warn, "1024 (ulimit -n), each connection is one"),
            (few, None, Level::Ok, "not bounded"),
        ] {
            let found = open_files_of(soft, hard);
            assert_eq!((found.level, found.found.as_str()), (level, part));
        }
    }

    #[test]
    fn folders_and_ports_are_checked() {
        let folder_there = tempfile::tempdir().unwrap();
        assert_eq!(folder(folder_there.path()).level, Level::Ok);
        let new = folder(&folder_there.path().join("a/b"));
        assert!(new.level == Level::Ok && new.found.ends_with("a/b will be created"), "{new:?}");
        let file = folder_there.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert_eq!(folder(&file.join("data")).level, Level::Fail);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let found = port("http.listen", "--listen", address);
        assert_eq!(found.level, Level::Fail);
        assert_eq!(
            found.help.as_deref(),
            Some("stop that one, or choose another with `--listen 127.0.0.1:0` or in the file")
        );
        drop(taken);
    }
}
