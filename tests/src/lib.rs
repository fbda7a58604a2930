//! A host to test: a process of its own, in a folder of its own, with ports chosen by the system.
//!
//! Nothing here sleeps or retries: tests wait for a condition, woken by the host's output or by a short poll, and a
//! timeout shows the output of the host.

mod client;
mod guests;
mod screen;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use client::{Client, Reply};
pub use guests::{guest, has_language, has_python, target, tested_with};
pub use screen::screen;

/// The time after which any wait fails: generous, for a slow machine under load.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The name of the socket in a host's folder on which it takes [orders](Host::order).
// Relative to the folder of the host: paths of sockets have a limit of 108 bytes.
const ORDERS: &str = "orders.sock";

/// A running host.
pub struct Host {
    child: Child,
    folder: Arc<tempfile::TempDir>,
    binary: PathBuf,
    /// The address for calls of agents: `127.0.0.1:PORT`.
    pub http: String,
    /// The address of the management API.
    pub admin: String,
    output: Arc<Output>,
    /// The thread that reads the output to its end.
    reader: Option<JoinHandle<()>>,
}

/// The output of a host so far.
#[derive(Default)]
struct Output {
    text: Mutex<String>,
    more: Condvar,
}

/// The preparation of a host's start.
pub struct Setup {
    binary: PathBuf,
    folder: Arc<tempfile::TempDir>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    /// The shell commands that run before the shell becomes the host.
    within: Option<String>,
}

impl Setup {
    /// Prepares a host of `binary` with this text as its file. `GUEST(name)` in it stands for the path of a built
    /// guest.
    pub fn new(binary: &str, toml: &str) -> Self {
        // Shared by all hosts of a test in this folder: it is removed with the last of them.
        let folder = Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let setup =
            Self { binary: binary.into(), folder, arguments: Vec::new(), environment: Vec::new(), within: None };
        setup.write(toml);
        setup
    }

    /// Adds an argument of `up`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts the host in a shell after these commands, for limits that a shell sets.
    #[must_use]
    pub fn within(mut self, commands: &str) -> Self {
        self.within = Some(commands.to_owned());
        self
    }

    /// Returns the folder of the file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the text of the file while no host runs.
    pub fn edit(&self, toml: &str) {
        self.write(toml);
    }

    fn write(&self, toml: &str) {
        fs::write(self.folder.path().join("caxton.toml"), expand(toml)).expect("the folder can be written to");
    }

    /// Returns the command that starts the host.
    pub fn command(&self) -> Command {
        let mut command = match &self.within {
            None => program(&self.binary),
            Some(commands) => {
                let mut shell = program(Path::new("sh"));
                // `exec` keeps the process id, to which signals are sent.
                shell.args(["-c", &format!("{commands} && exec \"$0\" \"$@\"")]).arg(&self.binary);
                shell
            }
        };
        command
            .current_dir(self.folder.path())
            // Port 0, so that tests run in parallel; the host writes the chosen ports to a file.
            .args(["up", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ports-file", "ports.json"])
            .args(&self.arguments)
            .env("UNDER_TEST_SOCKET", ORDERS)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // Read all the time, so that a full pipe never blocks the host.
            .stderr(Stdio::piped());
        command
    }

    /// Starts the host and waits until its agents are ready or have failed.
    pub fn start(self) -> Host {
        let mut host = self.spawn();
        host.until_ready();
        host
    }

    /// Starts the host and returns at once. Its addresses are known after [`Host::until_ready`].
    pub fn spawn(self) -> Host {
        for left in ["ports.json", ORDERS] {
            // Left by an earlier host in this folder: with its ports the new one would seem ready at once.
            let _ = fs::remove_file(self.folder.path().join(left));
        }
        let mut child = self.command().spawn().expect("the host starts");
        let output = Arc::new(Output::default());
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let into = Arc::clone(&output);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut text = into.text.lock().expect("no reader panics");
                text.push_str(&line);
                text.push('\n');
                into.more.notify_all();
            }
        });
        Host {
            child,
            folder: self.folder,
            binary: self.binary,
            http: String::new(),
            admin: String::new(),
            output,
            reader: Some(reader),
        }
    }

    /// Runs a command of the program in the folder, without a host. Returns exit code, stdout and stderr.
    pub fn caxton(&self, arguments: &[&str]) -> (i32, String, String) {
        command(&self.binary, self.folder.path(), arguments)
    }

    /// Returns another setup in the same folder, without the arguments and variables of this one.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            binary: self.binary.clone(),
            folder: Arc::clone(&self.folder),
            arguments: Vec::new(),
            environment: Vec::new(),
            within: None,
        }
    }

    /// Runs a host that is expected not to start. Returns its exit code and output.
    pub fn refused(self) -> (i32, String) {
        let mut host = self.spawn();
        let ports = host.folder.path().join("ports.json");
        host.until("the refusal", |host| {
            assert!(!ports.exists(), "the host started; it said:\n{}", host.output());
            host.has_ended().then_some(())
        });
        let code = host.ended();
        (code, host.output())
    }
}

impl Host {
    /// Starts a host with this text as its file; see [`Setup::new`].
    pub fn start(binary: &str, toml: &str) -> Self {
        Setup::new(binary, toml).start()
    }

    /// Waits until its agents are ready or have failed.
    pub fn until_ready(&mut self) {
        // The host writes the file last, once its agents are ready or have failed.
        let path = self.folder.path().join("ports.json");
        let ports = self.until("the ports file", |host| {
            if let Ok(Some(status)) = host.child.try_wait() {
                panic!("the host ended with {status} before it was ready; it said:\n{}", host.output());
            }
            fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
        });
        ports["http"].as_str().expect("an address").clone_into(&mut self.http);
        ports["admin"].as_str().expect("an address").clone_into(&mut self.admin);
    }

    /// Returns the folder of the file.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces the text of the file.
    pub fn edit(&self, toml: &str) {
        // Atomically, as editors do: the host never reads half of it.
        let temporary = self.folder.path().join("caxton.toml.new");
        fs::write(&temporary, expand(toml)).expect("the folder can be written to");
        fs::rename(temporary, self.folder.path().join("caxton.toml")).expect("the folder can be written to");
    }

    /// Sends the host an order that no caller can send: `clock SECONDS` sets its wall clock ahead of the system's,
    /// `panic TASK` makes one of its tasks panic, `stall TASK` makes it stall. Returns once the order was carried out.
    pub fn order(&self, order: &str) {
        let mut stream = UnixStream::connect(self.folder.path().join(ORDERS)).expect("the host takes orders");
        writeln!(stream, "{order}").expect("the host reads them");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("the host answers");
        assert_eq!(answer.trim(), "ok", "{order}");
    }

    /// Returns the output so far.
    pub fn output(&self) -> String {
        self.output.text.lock().expect("no reader panics").clone()
    }

    /// Waits until the output contains `part`.
    pub fn until_output(&self, part: &str) {
        let text = self.output.text.lock().expect("no reader panics");
        let (text, waited) =
            self.output.more.wait_timeout_while(text, PATIENCE, |text| !text.contains(part)).expect("no reader panics");
        assert!(!waited.timed_out(), "the host never said {part:?}; it said:\n{text}");
    }

    /// Waits until a condition returns a value.
    pub fn until<T>(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(value) = condition(self) {
                return value;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}; the host said:\n{}", self.output());
            pause();
        }
    }

    /// Waits for a condition that holds only for a moment: polls it without a pause.
    pub fn until_at_once(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        // Busy, since the moment may be shorter than a poll's pause.
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < PATIENCE, "waited in vain for {what}; the host said:\n{}", self.output());
        }
    }

    /// Returns a client of its agents.
    pub fn client(&self) -> Client {
        Client::new(&self.http, None)
    }

    /// Returns a client of its management API, with its token.
    pub fn api(&self) -> Client {
        // Read each time: a host that starts in a new folder writes another one.
        let token = fs::read_to_string(self.folder.path().join(".caxton/token")).expect("the host wrote its token");
        Client::new(&self.admin, Some(token.trim()))
    }

    /// Returns an agent's status from the management API.
    pub fn agent(&self, name: &str) -> serde_json::Value {
        self.api().get(&format!("/v1/agents/{name}")).json()
    }

    /// Waits until an agent's status fulfils a condition.
    pub fn until_agent(&mut self, name: &str, what: &str, condition: impl Fn(&serde_json::Value) -> bool) {
        let what = format!("{name}: {what}");
        self.until(&what, |host| condition(&host.agent(name)).then_some(()));
    }

    /// Runs a command of the program against this host. Returns exit code, stdout and stderr.
    pub fn caxton(&self, arguments: &[&str]) -> (i32, String, String) {
        command(&self.binary, self.folder.path(), arguments)
    }

    /// Returns a command of the program against this host, whose output the caller can redirect.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(&self.binary);
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command on a terminal of this size. Returns exit code and the bytes written to the terminal.
    pub fn caxton_on_terminal(&self, arguments: &[&str], columns: u16, rows: u16) -> (i32, String) {
        let mut command = program(&self.binary);
        command.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        screen::run_on_terminal(command, columns, rows)
    }

    /// Returns the id of the host's process.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Sends a signal to the host.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("the process is there");
    }

    /// Kills the host, as a power cut would. Returns a setup that starts it again in the same folder.
    pub fn kill(mut self) -> Setup {
        self.child.kill().expect("the process is there");
        // The next host in this folder must not start before this one has ended.
        self.child.wait().expect("the process can be waited for");
        self.again()
    }

    /// Terminates the host as an operator does. Returns its exit code and a setup that starts it again.
    pub fn stop(mut self) -> (i32, Setup) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.wait().expect("the process can be waited for");
        (status.code().unwrap_or(-1), self.again())
    }

    /// Returns `true` if the process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the process can be waited for").is_some()
    }

    /// Waits for the end of the process and of its output. Returns its exit code.
    pub fn ended(&mut self) -> i32 {
        let status = self.child.wait().expect("the process can be waited for");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no reader panics");
        }
        status.code().unwrap_or(-1)
    }

    /// Returns a setup that starts a host in the same folder once this one has ended.
    #[must_use]
    pub fn again(&self) -> Setup {
        Setup {
            binary: self.binary.clone(),
            folder: Arc::clone(&self.folder),
            arguments: Vec::new(),
            environment: Vec::new(),
            within: None,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A failed test must leave no process behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a command of the program, without those variables of the tests' environment that would configure a host.
fn program(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        // A developer's environment must not configure the host under test.
        if name.to_string_lossy().starts_with("CAXTON_") {
            command.env_remove(name);
        }
    }
    command.env("CAXTON_CACHE", cache());
    command
}

fn command(binary: &Path, folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output =
        program(binary).current_dir(folder).args(arguments).stdin(Stdio::null()).output().expect("the program starts");
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Returns the cache of compiled components, shared by all tests so that each component is compiled once.
fn cache() -> &'static Path {
    // Below `target`, so that it outlives the run and `cargo clean` removes it.
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| guests::target().join("caxton-tests"))
}

/// Replaces `GUEST(name)` by the paths of guests.
fn expand(toml: &str) -> String {
    let mut text = String::new();
    let mut rest = toml;
    while let Some((before, after)) = rest.split_once("GUEST(") {
        let (name, after) = after.split_once(')').expect("GUEST(name) is closed");
        text.push_str(before);
        text.push_str(&guest(name).display().to_string());
        rest = after;
    }
    text + rest
}

/// Yields the processor for a moment between two polls of a condition.
pub fn pause() {
    // A timed wait on a condition that is never signalled: tests may not sleep.
    let (lock, condition) = (Mutex::new(()), Condvar::new());
    let guard = lock.lock().expect("no other thread has this lock");
    // Long enough to leave the cores to the host, short beside the steps that tests wait for.
    let _ = condition.wait_timeout(guard, Duration::from_millis(5));
}
