//! Frames of HTTP/2 that are malformed.

use caxton_tests::Host;

use super::{Siege, exchange};
use crate::mutation::{Case, Chance, INPUTS, mutate};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Words that mean something in frames: heads of frames, indexed and literal headers, lengths.
const WORDS: [&[u8]; 20] = [
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\0\0\x04\x01\0\0\0\0",
    b"\0\0\x08\x06\0\0\0\0\0pingpong",
    b"\0\0\x04\x08\0\0\0\0\0\x7f\xff\xff\xff",
    b"\0\0\x04\x08\0\0\0\0\x01\0\0\0\0",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\x01\x01\x05\0\0\0\x01\x82",
    b"\0\0\0\x09\x04\0\0\0\x01",
    b"\0\0\0\x09\0\0\0\0\x01",
    b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\x01\xff",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff",
    b"\x80\0\0\0",
    b"\x7f\xff\xff\xff\xff",
    b"\x3f\xff\xff\xff\xff\x0f",
    b"\x40\x0acaxton-odd\x7f\x80\x80\x01",
    b"\x82\x86\x84\x41",
    b"\x0f\x0d\x01\x39",
    b"\xfe\xff",
    b"\0",
];

/// Adds a frame.
fn frame(into: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    into.extend_from_slice(&length[1..]);
    into.extend_from_slice(&[kind, flags]);
    into.extend_from_slice(&stream.to_be_bytes());
    into.extend_from_slice(payload);
}

/// Headers of a request as HPACK has them without compression.
fn headers(method: &str, path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost")] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Returns the frames of a connection with a few requests, some of a kind that no client sends.
fn frames(chance: &mut Chance) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame(&mut bytes, 4, 0, 0, &[]);
    for at in 0..=u32::try_from(chance.below(6)).expect("a small number") {
        let stream = 2 * at + 1;
        match chance.below(10) {
            0..=3 => frame(&mut bytes, 1, 5, stream, &headers("GET", "/healthz")),
            4 | 5 => {
                frame(&mut bytes, 1, 4, stream, &headers("POST", "/echo"));
                frame(&mut bytes, 0, 1, stream, b"hello");
            }
            // Opened and given up at once, as in the attack known as rapid reset.
            6 => {
                for each in 0..50 {
                    frame(&mut bytes, 1, 5, stream + 2 * each, &headers("GET", "/healthz"));
                    frame(&mut bytes, 3, 0, stream + 2 * each, &[0, 0, 0, 8]);
                }
            }
            // Headers that go on without an end.
            7 => {
                frame(&mut bytes, 1, 1, stream, &headers("GET", "/healthz"));
                for _ in 0..chance.below(40) {
                    frame(&mut bytes, 9, 0, stream, &headers("x", "y")[..1]);
                }
            }
            8 => (0..chance.below(200)).for_each(|_| frame(&mut bytes, 6, 0, 0, b"pingpong")),
            _ => {
                let kind = chance.bytes(2);
                let count = chance.below(40);
                let payload = chance.bytes(count);
                frame(&mut bytes, kind[0] % 12, kind[1], stream, &payload);
            }
        }
    }
    bytes
}

#[test]
fn malformed_frames_are_answered_or_their_connection_ends() {
    let siege = Siege::start("");
    siege.make(INPUTS, |host: &Host, numbers| {
        for number in numbers {
            let (_case, mut chance) = Case::begin("frame", number);
            let good = frames(&mut chance);
            let bad = if chance.one_in(4) { good } else { mutate(&mut chance, &good, &WORDS) };
            let address = if number % 4 == 0 { &host.admin } else { &host.http };
            exchange(address, &[PREFACE, &bad].concat(), true);
        }
    });
    siege.check();
}
