//! Actions on sockets: through the standard library, as drivers of databases do, and by the functions of WASI.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde::Deserialize;
use serde_json::{Value, json};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::told;

/// An action on sockets.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what", deny_unknown_fields)]
pub(crate) enum SocketAction {
    /// The addresses of a name.
    Resolve { name: String },
    /// Connects, writes a line and reads one.
    Ask { to: String, line: String },
    /// Connects, writes so many bytes, shuts its end, and reads what comes.
    Send { to: String, bytes: usize },
    /// Connects, and keeps the connection for later messages.
    Keep { to: String },
    /// Writes a line to the connection that is kept, and reads one.
    AskKept { line: String },
    /// Connects to an address by the functions of WASI.
    Connect { address: [u8; 4], port: u16 },
    /// Connects so often at once, keeps all, and tells how many came to what.
    Connects { address: [u8; 4], port: u16, count: usize },
    /// Binds a socket to a port, and listens.
    Listen,
}

thread_local! {
    static KEPT: RefCell<Option<TcpStream>> = const { RefCell::new(None) };
}

fn code<T>(result: Result<T, ErrorCode>) -> Result<T, String> {
    result.map_err(|code| code.name().to_owned())
}

fn resolve(name: &str) -> Result<Value, String> {
    let found = code(resolve_addresses(&instance_network(), name))?;
    let mut addresses = Vec::new();
    loop {
        match found.resolve_next_address() {
            Ok(Some(IpAddress::Ipv4((a, b, c, d)))) => addresses.push(format!("{a}.{b}.{c}.{d}")),
            Ok(Some(IpAddress::Ipv6(parts))) => addresses.push(format!("{parts:?}")),
            Ok(None) => return Ok(addresses.into()),
            Err(ErrorCode::WouldBlock) => found.subscribe().block(),
            Err(error) => return Err(error.name().to_owned()),
        }
    }
}

fn ask(stream: &TcpStream, line: &str) -> std::io::Result<String> {
    let mut writer = stream;
    writer.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

fn send(to: &str, bytes: usize) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(&vec![b'.'; bytes])?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn begin([a, b, c, d]: [u8; 4], port: u16) -> Result<TcpSocket, String> {
    let socket = code(create_tcp_socket(IpAddressFamily::Ipv4))?;
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) });
    code(socket.start_connect(&instance_network(), address))?;
    Ok(socket)
}

fn finish(socket: &TcpSocket) -> Result<(), String> {
    loop {
        match socket.finish_connect() {
            // Kept with its socket: a stream that is dropped closes its half.
            Ok(streams) => {
                std::mem::forget(streams);
                return Ok(());
            }
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            Err(error) => return Err(error.name().to_owned()),
        }
    }
}

fn connects(address: [u8; 4], port: u16, count: usize) -> Value {
    let mut told = BTreeMap::new();
    let begun: Vec<_> = (0..count).map(|_| begin(address, port)).collect();
    for socket in &begun {
        let outcome = match socket {
            Ok(socket) => finish(socket).err().unwrap_or_else(|| "connected".to_owned()),
            Err(error) => error.clone(),
        };
        *told.entry(outcome).or_insert(0) += 1;
    }
    // Left open, as a careless guest would: the message ends before they do.
    std::mem::forget(begun);
    json!(told)
}

fn listen() -> Value {
    let socket = match code(create_tcp_socket(IpAddressFamily::Ipv4)) {
        Ok(socket) => socket,
        Err(error) => return json!({ "error": error }),
    };
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 0, address: (0, 0, 0, 0) });
    let bound = code(socket.start_bind(&instance_network(), address));
    json!({ "bind": told(bound.map(|()| "done")), "listen": told(code(socket.start_listen()).map(|()| "done")) })
}

pub(crate) fn act(action: SocketAction) -> Value {
    match action {
        SocketAction::Resolve { name } => told(resolve(&name)),
        SocketAction::Ask { to, line } => told(TcpStream::connect(to).and_then(|stream| ask(&stream, &line))),
        SocketAction::Send { to, bytes } => told(send(&to, bytes)),
        SocketAction::Keep { to } => told(TcpStream::connect(to).map(|stream| {
            KEPT.with_borrow_mut(|kept| drop(kept.replace(stream)));
            "kept"
        })),
        SocketAction::AskKept { line } => KEPT.with_borrow(|kept| match kept {
            Some(stream) => told(ask(stream, &line)),
            None => json!({ "error": "nothing is kept" }),
        }),
        SocketAction::Connect { address, port } => {
            told(begin(address, port).and_then(|socket| finish(&socket)).map(|()| "connected"))
        }
        SocketAction::Connects { address, port, count } => connects(address, port, count),
        SocketAction::Listen => listen(),
    }
}
