//! A component of Spin: it counts in a key-value store, and tells a variable. It knows nothing of Caxton.
//!
//! | request | answer |
//! |---|---|
//! | `POST /count` | how often it was asked, from the default store |
//! | `POST /fail` | counts, and then fails |
//! | `PUT /keys/KEY` | keeps the body in the default store, or in that of the header `x-store` |
//! | `GET /keys/KEY`, `DELETE /keys/KEY` | gives it, or removes it |
//! | `GET /keys` | the keys of the store, one on a line |
//! | `GET /variable/NAME` | the variable |

use anyhow::{Context, Result, bail};
use spin_sdk::http::{IntoResponse, Method, Request, Response};
use spin_sdk::http_component;
use spin_sdk::key_value::{Error, Store};
use spin_sdk::variables;

#[http_component]
fn handle(request: Request) -> Result<impl IntoResponse> {
    let path = request.path().to_owned();
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (first, rest) = (parts.next().unwrap_or_default(), parts.next());
    match (request.method(), first, rest) {
        (Method::Post, "count", None) => Ok(Response::new(200, count()?.to_string())),
        (Method::Post, "fail", None) => bail!("counted to {}, and told to fail", count()?),
        (Method::Get, "variable", Some(name)) => match variables::get(name) {
            Ok(value) => Ok(Response::new(200, value)),
            Err(variables::Error::Undefined(name)) => Ok(Response::new(404, format!("undefined: {name}"))),
            Err(error) => Err(error.into()),
        },
        (method, "keys", key) => {
            let label = request.header("x-store").and_then(|label| label.as_str()).unwrap_or("default");
            let store = match Store::open(label) {
                Err(Error::NoSuchStore) => return Ok(Response::new(404, "no such store")),
                opened => opened?,
            };
            keys(&store, method, key, request.body())
        }
        _ => Ok(Response::new(404, "no such path")),
    }
}

fn count() -> Result<u64> {
    let store = Store::open_default()?;
    let before = match store.get("count")? {
        Some(bytes) => std::str::from_utf8(&bytes)?.parse::<u64>().context("the count is no number")?,
        None => 0,
    };
    store.set("count", (before + 1).to_string().as_bytes())?;
    Ok(before + 1)
}

fn keys(store: &Store, method: &Method, key: Option<&str>, body: &[u8]) -> Result<Response> {
    match (method, key) {
        (Method::Get, None) => Ok(Response::new(200, store.get_keys()?.join("\n"))),
        (Method::Get, Some(key)) if !store.exists(key)? => Ok(Response::new(404, "no such key")),
        (Method::Get, Some(key)) => Ok(Response::new(200, store.get(key)?.unwrap_or_default())),
        (Method::Put, Some(key)) => match store.set(key, body) {
            Err(Error::Other(why)) => Ok(Response::new(413, why)),
            written => {
                written?;
                Ok(Response::new(204, ()))
            }
        },
        (Method::Delete, Some(key)) => {
            store.delete(key)?;
            Ok(Response::new(204, ()))
        }
        _ => Ok(Response::new(405, "no such method")),
    }
}
