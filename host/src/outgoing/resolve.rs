//! The addresses of names.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, LazyLock};

use tokio::sync::Semaphore;

use crate::message::HttpCallError;
use crate::test_hooks;

/// The look-ups at once. Each blocks a thread until the system's resolver answers, which may take half a minute if the
/// servers of names are gone.
const MAX_LOOKUPS: usize = 64;

static LOOKUPS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_LOOKUPS)));

/// Resolves a name as the system does. Waits for others' look-ups, so that the caller has to bound the time.
pub(super) async fn resolve(name: &str) -> Result<Vec<IpAddr>, HttpCallError> {
    if let Some(addresses) = test_hooks::addresses(name) {
        return Ok(addresses);
    }
    let permit = Arc::clone(&LOOKUPS).acquire_owned().await.map_err(|_| HttpCallError::DnsTimeout)?;
    let name = name.to_owned();
    let looked_up = tokio::task::spawn_blocking(move || {
        // Released by the look-up and not by the call, which may have given up long before.
        let _permit = permit;
        (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())
    });
    match looked_up.await {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => Err(HttpCallError::Dns(error.to_string())),
        Err(error) => Err(HttpCallError::Dns(error.to_string())),
    }
}
