//! The pools of connections: one for each reach, and for each again over the proxy.

use std::sync::Arc;
use std::time::Duration;

use caxton_control::outgoing::OutgoingSpec;
use caxton_control::place::CallPlace;
use caxton_control::reach::Reach;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;

use super::connector::CheckedConnector;
use super::request_body::UploadBody;
use crate::secrets::Secrets;

/// The time for which an idle connection is kept. Shorter than the time after which most servers close it, so that few
/// requests meet one that is being closed.
const IDLE: Duration = Duration::from_secs(30);
/// The idle connections of one authority that are kept.
const MAX_IDLE: usize = 64;
/// The bytes of a response that are read ahead, of each stream and of each connection: guests may leave many unread.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// The largest head of a response in bytes, and with HTTP/1.1 what is read ahead.
const MAX_HEAD: u32 = 64 << 10;

/// A client with its pool.
pub(super) type PooledClient = Client<CheckedConnector, UploadBody>;

/// The pools. Made anew when the issuers, the proxy or the time for a connection change.
pub(super) struct Pools {
    direct: [PooledClient; 3],
    proxied: Option<[PooledClient; 3]>,
}

impl Pools {
    pub(super) fn new(tls: &ClientConfig, spec: &OutgoingSpec, secrets: &Arc<Secrets>) -> Self {
        let direct = Reach::ALL.map(|reach| client(CheckedConnector::new(tls.clone(), spec, reach, None)));
        let proxied = spec.proxy.as_ref().map(|proxy| {
            let over = || Some((proxy.clone(), Arc::clone(secrets)));
            Reach::ALL.map(|reach| client(CheckedConnector::new(tls.clone(), spec, reach, over())))
        });
        Self { direct, proxied }
    }

    /// Returns the client for a place.
    pub(super) fn client(&self, place: &CallPlace) -> &PooledClient {
        let pools = self.proxied.as_ref().filter(|_| !place.is_direct()).unwrap_or(&self.direct);
        match place.reach() {
            Reach::Public => &pools[0],
            Reach::Any => &pools[1],
            Reach::Private => &pools[2],
        }
    }
}

fn client(connector: CheckedConnector) -> PooledClient {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MAX_IDLE)
        .http1_max_buf_size(MAX_HEAD as usize)
        .http2_max_header_list_size(MAX_HEAD)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW);
    builder.build(connector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_in_the_order_of_the_reaches() {
        assert_eq!(Reach::ALL, [Reach::Public, Reach::Any, Reach::Private]);
    }
}
