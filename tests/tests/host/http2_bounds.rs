//! What one connection of HTTP/2 can make the host hold, seen from a client that knows only frames.

use std::io::{Read, Write};
use std::net::TcpStream;

use caxton_tests::{Host, PATIENCE};

use crate::{agent, host};

/// Types of frames and codes of errors (RFC 9113, sections 6 and 7).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const FLOW_CONTROL_ERROR: u32 = 3;
const ENHANCE_YOUR_CALM: u32 = 11;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

/// The window of a connection, and the largest frame, before anything is agreed.
const FIRST_WINDOW: usize = 65_535;
const FRAME: usize = 16_384;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// Returns the number at this place of the payload.
    fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }
}

/// A connection of HTTP/2, of which nothing is sent that is not asked for.
struct Connection(TcpStream);

impl Connection {
    /// Opens a connection and takes the host's settings. Returns it with the frames by which the host allows something.
    fn open(host: &Host) -> (Self, Vec<Frame>) {
        let mut stream = TcpStream::connect(&host.http).expect("the host listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("it reads");
        let mut connection = Self(stream);
        connection.send(&frame(SETTINGS, 0, 0, &[]));
        let mut frames = Vec::new();
        // The settings of the host hold for it once they are acknowledged.
        while !frames.iter().any(|frame: &Frame| (frame.kind, frame.stream) == (WINDOW_UPDATE, 0)) {
            let next = connection.next().expect("it says what it allows");
            if next.kind == SETTINGS && next.flags & ACK == 0 {
                connection.send(&frame(SETTINGS, ACK, 0, &[]));
            }
            frames.push(next);
        }
        (connection, frames)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("it reads");
    }

    /// Reads the next frame; `None` once the host has closed the connection.
    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().expect("four bytes"));
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until the host has taken all that was sent. Returns the frames before.
    fn until_pong(&mut self) -> Vec<Frame> {
        self.send(&frame(PING, 0, 0, &[0; 8]));
        let mut frames = Vec::new();
        loop {
            let frame = self.next().expect("it answers a ping");
            if frame.kind == PING && frame.flags & ACK != 0 {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// Reads until the host gives the connection up. Returns the code of the error.
    fn until_goaway(&mut self) -> Option<u32> {
        loop {
            let frame = self.next()?;
            if frame.kind == GOAWAY && frame.number(4) != 0 {
                return Some(frame.number(4));
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are small").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The frame that begins a request.
fn request(stream: u32, method: &str, path: &str, flags: u8) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")] {
        // A literal that is in no table (RFC 7541, section 6.2.2), with lengths below 127.
        block.extend([0, u8::try_from(name.len()).expect("it is short")]);
        block.extend(name.as_bytes());
        block.push(u8::try_from(value.len()).expect("it is short"));
        block.extend(value.as_bytes());
    }
    frame(HEADERS, flags | END_HEADERS, stream, &block)
}

/// The sum of what the host allows to be sent on a connection beyond what it allowed before.
fn allowed(frames: &[Frame]) -> usize {
    let updates = frames.iter().filter(|frame| (frame.kind, frame.stream) == (WINDOW_UPDATE, 0));
    updates.map(|frame| frame.number(0) as usize).sum()
}

fn rogue(http: &str) -> Host {
    let toml = agent("rogue", "rogue-web", "limits = { time = \"2m\" }\ninstances = { max = 1 }");
    host(&format!("{http}{}", toml.replace("route = \"/rogue\"", "route = \"/{*path}\"")))
}

#[test]
fn the_host_says_what_a_connection_may_send() {
    let host = rogue("[http]\nmax-head = \"16KiB\"\n");
    let (_connection, frames) = Connection::open(&host);
    let settings = frames.iter().find(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).expect("it has some");
    let setting = |id: u16| {
        let mut all = settings.payload.chunks(6).filter(|one| one[..2] == id.to_be_bytes());
        all.next_back().map(|one| u32::from_be_bytes(one[2..6].try_into().expect("four bytes")))
    };
    assert_eq!(setting(3), Some(128), "concurrent streams");
    assert_eq!(setting(4), Some(256 << 10), "the window of a stream");
    assert_eq!(setting(6), Some(16 << 10), "the list of headers");
    assert_eq!(FIRST_WINDOW + allowed(&frames), 1 << 20, "the window of all streams together");
}

#[test]
fn what_is_sent_is_bounded_over_all_streams() {
    let mut host = rogue("[http]\nbuffer = \"4KiB\"\nstall-timeout = \"5m\"\n");
    // The only instance is busy, so that nobody reads the bodies below to their end.
    let (mut busy, _) = Connection::open(&host);
    busy.send(&request(1, "GET", "/sleep", END_STREAM));
    host.until_agent("rogue", "its instance is busy", |status| status["in_flight"] == 1);
    let (mut connection, frames) = Connection::open(&host);
    let streams: Vec<u32> = (0..16).map(|number| 2 * number + 1).collect();
    for stream in &streams {
        connection.send(&request(*stream, "POST", "/upload", 0));
    }
    let (mut window, mut sent) = (FIRST_WINDOW + allowed(&frames) + allowed(&connection.until_pong()), 0);
    // Sixteen streams have windows for 4 MiB. Until the host allows no more, three times in turn: it may read a little
    // of each body after it has answered a ping.
    let (mut turn, mut silent) = (0, 0);
    while silent < 3 {
        while window >= FRAME {
            connection.send(&frame(DATA, 0, streams[turn % streams.len()], &[b'x'; FRAME]));
            (window, sent, turn) = (window - FRAME, sent + FRAME, turn + 1);
        }
        let more = allowed(&connection.until_pong());
        silent = if more == 0 { silent + 1 } else { 0 };
        window += more;
    }
    let most = (1 << 20) + streams.len() * (4_096 + FRAME);
    assert!(sent > (1 << 20) - FRAME && sent <= most, "{sent} bytes, of {most}");
    // And who sends more all the same is cut off.
    for _ in 0..2 {
        connection.send(&frame(DATA, 0, streams[turn % streams.len()], &[b'x'; FRAME]));
        turn += 1;
    }
    assert_eq!(connection.until_goaway(), Some(FLOW_CONTROL_ERROR));
}

#[test]
fn a_flood_of_resets_ends_the_connection() {
    let host = rogue("");
    let (mut connection, _) = Connection::open(&host);
    let flood: Vec<u8> = (0..5_000_u32)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [request(stream, "GET", "/ok", END_STREAM), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        })
        .collect();
    // The host may close the connection before all is sent.
    let _ = connection.0.write_all(&flood);
    let ended = connection.until_goaway();
    assert!(matches!(ended, None | Some(ENHANCE_YOUR_CALM)), "{ended:?}");
    assert_eq!(host.client().get("/ok").text(), "ok");
}

#[test]
fn a_response_before_the_body_has_come_resets_no_stream() {
    let host = rogue("");
    let (mut connection, mut seen) = Connection::open(&host);
    // A path of the host that it does not have, which is known before the body comes.
    connection.send(&request(1, "POST", "/.caxton/none", 0));
    while !seen.iter().any(|frame: &Frame| frame.stream == 1 && frame.flags & END_STREAM != 0) {
        seen.push(connection.next().expect("it answers"));
    }
    seen.extend(connection.until_pong());
    connection.send(&frame(DATA, 0, 1, &[b'x'; FRAME]));
    connection.send(&frame(DATA, END_STREAM, 1, b"end"));
    seen.extend(connection.until_pong());
    let resets = seen.iter().filter(|frame| frame.kind == RST_STREAM).count();
    assert_eq!(resets, 0, "some clients take a reset for the failure of the response");
    // What was drained makes room for other requests.
    assert!(allowed(&seen) + FIRST_WINDOW >= 1 << 20);
}
