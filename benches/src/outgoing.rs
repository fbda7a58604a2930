//! Calls over HTTP: of agents through a host, and of a bare client.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::{Load, Server, exchange};

/// The body of each call.
const BODY: &str = "Hello, are you there?";

/// Lets so many messages at once make so many calls each, one after the other. The agent is `caller`.
///
/// # Panics
/// A call fails: the figure would mean nothing.
pub fn guests_calling(server: &Server, url: &str, guests: usize, calls: usize) -> Load {
    let action = format!(r#"{{"do":"many","call":{{"method":"POST","url":"{url}","body":"{BODY}"}},"count":{calls}}}"#);
    let began = Instant::now();
    let threads: Vec<_> = (0..guests)
        .map(|_| {
            let (address, action) = (server.address.clone(), action.clone());
            std::thread::spawn(move || exchange(&address, "POST", "/caller", "", action.as_bytes()))
        })
        .collect();
    let answers = threads.into_iter().map(|thread| thread.join().expect("a caller works"));
    let nanos = answers.flat_map(|answer| serde_json::from_str::<Vec<u64>>(&answer).expect("the times of the calls"));
    load(nanos.collect(), began)
}

/// Lets so many tasks of a bare client of hyper make so many calls each.
///
/// # Panics
/// A call fails: the figure would mean nothing.
pub fn bare_client(url: &str, tasks: usize, calls: usize) -> Load {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let began = Instant::now();
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let (client, url) = (client.clone(), url.to_owned());
                tokio::spawn(async move {
                    let mut nanos = Vec::with_capacity(calls);
                    for _ in 0..calls {
                        let began = Instant::now();
                        let request = http::Request::post(&url).body(Full::from(BODY)).expect("a request");
                        let response = client.request(request).await.expect("the server answers");
                        response.into_body().collect().await.expect("a whole body");
                        nanos.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
                    }
                    nanos
                })
            })
            .collect();
        let mut nanos = Vec::new();
        for task in tasks {
            nanos.extend(task.await.expect("a task works"));
        }
        load(nanos, began)
    })
}

fn load(mut nanos: Vec<u64>, began: Instant) -> Load {
    let took = began.elapsed().as_secs_f64();
    nanos.sort_unstable();
    let at = |share: f64| {
        let index = ((nanos.len() as f64 * share) as usize).min(nanos.len().saturating_sub(1));
        nanos.get(index).map_or(f64::NAN, |nanos| *nanos as f64 / 1_000.0)
    };
    Load { rate: nanos.len() as f64 / took, p50_us: at(0.5), p99_us: at(0.99) }
}
