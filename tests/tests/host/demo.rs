//! The demo of the repository's own file, on ports of the system's choice.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};

use caxton_tests::Host;

use crate::BINARY;

/// Starts the demo, with its components where they are. What its agents call at the file's port reaches this host.
pub(crate) fn start() -> Host {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let text = std::fs::read_to_string(format!("{root}/caxton.toml")).expect("the demo's file is there");
    let forwarder = Forwarder::start();
    let text = text
        .replace("components/dist/", &format!("{root}/components/dist/"))
        .replace("http://127.0.0.1:8080", &format!("http://{}", forwarder.address));
    caxton_tests::guest("triage");
    let host = Host::start(BINARY, &text);
    forwarder.target.set(host.http.clone()).expect("it is set once");
    host
}

/// A port that leads to an address, which need not be known yet: a host chooses its port when it starts, and its file has to
/// name it before.
struct Forwarder {
    address: String,
    target: Arc<OnceLock<String>>,
}

impl Forwarder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let target = Arc::<OnceLock<String>>::default();
        let to = Arc::clone(&target);
        std::thread::spawn(move || {
            for from in listener.incoming().flatten() {
                let Some(to) = to.get().and_then(|target| TcpStream::connect(target).ok()) else { continue };
                join(&from, &to);
                join(&to, &from);
            }
        });
        Self { address, target }
    }
}

/// Copies what comes from one connection to the other, until one of them ends.
fn join(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
    std::thread::spawn(move || {
        let end = match io::copy(&mut from, &mut to) {
            Ok(_) => Shutdown::Write,
            Err(_) => Shutdown::Both,
        };
        // Fails if the other side is gone already.
        let _ = to.shutdown(end);
    });
}
