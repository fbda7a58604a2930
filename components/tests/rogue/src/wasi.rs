//! Actions on the environment, clocks, files and the network.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use caxton_sdk::prelude::*;
use serde_json::{Value, json};

pub(crate) fn environment() -> Value {
    let variables: Vec<_> = std::env::vars().collect();
    let arguments: Vec<_> = std::env::args().collect();
    json!({ "variables": variables, "arguments": arguments })
}

pub(crate) fn clock() -> Result<Value, Failure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).or_fault()?;
    Ok(json!({ "ms": u64::try_from(since.as_millis()).or_fault()? }))
}

/// Returns this many random bytes in hexadecimal. They are the keys of a hash map, the only random numbers that the
/// standard library hands out.
pub(crate) fn random(bytes: usize) -> Value {
    use std::hash::{BuildHasher, RandomState};
    let mut text = String::new();
    for word in 0..bytes.div_ceil(8) {
        text += &format!("{:016x}", RandomState::new().hash_one(word));
    }
    text.truncate(bytes * 2);
    json!({ "random": text })
}

/// The number of random bytes that one call of the host returns.
pub(crate) fn random_at_once(bytes: u64) -> usize {
    wasip2::random::random::get_random_bytes(bytes).len()
}

/// A file's text, or a folder's names.
pub(crate) fn read(path: &str) -> Value {
    described(read_path(path))
}

pub(crate) fn write(path: &str) -> Value {
    described(std::fs::write(path, "rogue").map(|()| Value::from("written")))
}

pub(crate) fn connect(address: &str) -> Value {
    described(std::net::TcpStream::connect(address).map(|_| Value::from("connected")))
}

fn read_path(path: &str) -> std::io::Result<Value> {
    if std::fs::metadata(path)?.is_dir() {
        let names: std::io::Result<Vec<_>> =
            std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
        return Ok(Value::from(names?));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(64 * 1024).read_to_string(&mut text)?;
    Ok(Value::from(text))
}

fn described(result: std::io::Result<Value>) -> Value {
    match result {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({ "error": "io", "detail": error.to_string() }),
    }
}
