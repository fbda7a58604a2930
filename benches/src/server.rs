//! Servers to be measured, each a process of its own.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// A server that runs until it is dropped, and is killed then.
pub struct Server {
    child: Child,
    /// The address for requests.
    pub address: String,
    /// The address of the management API; empty if the server is not a Caxton host.
    pub admin: String,
    folder: Option<tempfile::TempDir>,
}

impl Server {
    /// Returns the resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1_024
    }

    /// Returns the folder of a host's file.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new("."), tempfile::TempDir::path)
    }

    /// Returns the token of a host's management API.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.folder().join(".caxton/token")).unwrap_or_default().trim().to_owned()
    }
}

impl Server {
    /// Stops the process, with its state, until it [is resumed](Self::resume).
    ///
    /// # Panics
    /// The process has ended.
    pub fn suspend(&self) {
        self.signal(Signal::STOP);
    }

    /// Continues a stopped process.
    ///
    /// # Panics
    /// The process has ended.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("the server runs");
    }

    /// Kills a host, as a power cut would, and starts it again in its folder. Returns it with the time that the start
    /// took.
    ///
    /// # Panics
    /// The server is no host.
    pub fn again(mut self, binary: &str) -> (Self, Duration) {
        let folder = self.folder.take().expect("a host has a folder");
        drop(self);
        host_in(binary, folder)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Killed and not stopped: a drain would only delay the next bench.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the path of a guest that `components/build.sh` built.
pub fn guest(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace");
    root.join("components/dist").join(format!("{name}.wasm"))
}

/// Builds the guests.
///
/// # Panics
/// The script fails.
pub fn build_guests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in a workspace");
    let status = Command::new(root.join("components/build.sh"))
        .args(["demo", "benches", "hostile", "caller", "tally", "rogue", "rogue-web"])
        .status();
    assert!(status.expect("components/build.sh starts").success(), "components/build.sh failed");
}

/// Starts a host with this file and waits until its agents are ready. Returns it with the time that this took.
pub fn host(binary: &str, toml: &str) -> (Server, Duration) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("caxton.toml"), toml).expect("the folder can be written to");
    host_in(binary, folder)
}

/// Starts a host with this file in a folder to which `more` adds files, and waits until its agents are ready.
pub fn host_with(binary: &str, toml: &str, more: impl FnOnce(&Path)) -> Server {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("caxton.toml"), toml).expect("the folder can be written to");
    more(folder.path());
    host_in(binary, folder).0
}

fn host_in(binary: &str, folder: tempfile::TempDir) -> (Server, Duration) {
    // Left by the former host, whose ports are not those of the next one.
    let _ = std::fs::remove_file(folder.path().join("ports.json"));
    let began = Instant::now();
    let child = Command::new(binary)
        .current_dir(folder.path())
        .args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ports-file", "ports.json"])
        // Lines of progress would be a part of the measurement.
        .env("CAXTON_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the host starts");
    let mut server = Server { child, address: String::new(), admin: String::new(), folder: Some(folder) };
    let path = server.folder().join("ports.json");
    let ports: serde_json::Value = loop {
        if let Ok(Some(status)) = server.child.try_wait() {
            panic!("the host ended with {status}");
        }
        if let Some(ports) = std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str(&text).ok()) {
            break ports;
        }
        // Short, since the time of the start is measured.
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = began.elapsed();
    server.address = ports["http"].as_str().expect("an address").to_owned();
    server.admin = ports["admin"].as_str().expect("an address").to_owned();
    (server, took)
}

/// Starts this program as a bare hyper server that returns the body it gets.
pub fn bare_hyper() -> Server {
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .arg("bare-hyper")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout is a pipe")).read_line(&mut line).expect("it says its address");
    Server { child, address: line.trim().to_owned(), admin: String::new(), folder: None }
}

/// Starts `wasmtime serve` of version 48, if it is installed. `reuse` is the number of requests that one instance
/// handles; `None` leaves the default.
///
/// # Errors
/// The program is missing or of another version; the text says how to install it.
pub fn wasmtime_serve(component: &Path, reuse: Option<u32>) -> Result<Server, String> {
    let how = "install it with `cargo install --locked wasmtime-cli@48.0.8`";
    let version = Command::new("wasmtime").arg("--version").output().map_err(|_| format!("no `wasmtime`; {how}"))?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.starts_with("wasmtime 48.") {
        return Err(format!("`wasmtime` is {}, not 48; {how}", version.trim()));
    }
    // The program neither accepts port 0 nor reports its port, so a free one is looked up.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let address = format!("127.0.0.1:{port}");
    let mut command = Command::new("wasmtime");
    // The pooling allocator is what the host uses; with another one the peer would be slower.
    command.args(["serve", "-O", "pooling-allocator", "-S", "cli", "--addr", &address]);
    if let Some(reuse) = reuse {
        command.args(["--max-instance-reuse-count", &reuse.to_string()]);
    }
    let child = command
        .arg(component)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let server = Server { child, address: address.clone(), admin: String::new(), folder: None };
    let began = Instant::now();
    while std::net::TcpStream::connect(&address).is_err() {
        if began.elapsed() > Duration::from_secs(30) {
            return Err("`wasmtime serve` does not listen".to_owned());
        }
        // The start of the peer is not measured, so the poll may be coarse.
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(server)
}
