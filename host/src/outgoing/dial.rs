//! Connections to addresses that were checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;

use super::resolve::resolve;
use crate::message::HttpCallError;
use caxton_control::reach::Reach;

/// The time after which the next address is tried beside the one before (RFC 8305, section 5).
const NEXT_ATTEMPT: Duration = Duration::from_millis(250);
/// The addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;

/// Resolves a host, and connects to one of its addresses that the reach admits. The address that was checked is the one
/// that is connected to: nothing is resolved again.
pub(super) async fn dial(host: &str, port: u16, reach: Reach) -> Result<TcpStream, HttpCallError> {
    let found = match literal(host) {
        Some(address) => vec![address],
        None => resolve(host).await?,
    };
    if found.is_empty() {
        return Err(HttpCallError::Dns("there is none".to_owned()));
    }
    let admitted = found.iter().copied().filter(|address| reach.admits(*address));
    let addresses: Vec<SocketAddr> = alternate(admitted).map(|address| (address, port).into()).collect();
    if addresses.is_empty() {
        return Err(HttpCallError::AddressProhibited);
    }
    let stream = connect(&addresses).await.map_err(|error| unconnected(&error))?;
    // A request is often smaller than a packet, and is waited for.
    stream.set_nodelay(true).map_err(|error| unconnected(&error))?;
    Ok(stream)
}

/// Returns the address, if a host of a URI is one.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
}

/// Takes addresses of the two families in turn, so that one family without a way is no long wait.
fn alternate(addresses: impl Iterator<Item = IpAddr>) -> impl Iterator<Item = IpAddr> {
    let all: Vec<IpAddr> = addresses.take(MAX_ADDRESSES).collect();
    let first_is_v6 = all.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<IpAddr>, Vec<IpAddr>) = all.iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut is_second = false;
    std::iter::from_fn(move || {
        is_second = !is_second;
        if is_second { first.next().or_else(|| second.next()) } else { second.next().or_else(|| first.next()) }
    })
}

/// Connects to the first address that answers. A slow one does not hold up the next.
async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut left = addresses.iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let next = left.next();
        if let Some(address) = next {
            attempts.push(TcpStream::connect(*address));
        }
        if attempts.is_empty() {
            return Err(last);
        }
        let wait = async {
            match next {
                Some(_) if left.len() > 0 => tokio::time::sleep(NEXT_ATTEMPT).await,
                // Nothing is left to be tried beside those under way.
                Some(_) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            done = attempts.next() => match done {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = wait => {}
        }
    }
}

/// Returns the error for a connection that was not made.
fn unconnected(error: &io::Error) -> HttpCallError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => HttpCallError::ConnectionRefused,
        io::ErrorKind::TimedOut => HttpCallError::ConnectionTimeout,
        _ => HttpCallError::Unreachable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        for (given, expected) in [
            (&["::1", "::2", "1.1.1.1", "1.1.1.2"][..], &["::1", "1.1.1.1", "::2", "1.1.1.2"][..]),
            (&["1.1.1.1", "1.1.1.2", "::1"], &["1.1.1.1", "::1", "1.1.1.2"]),
            (&["1.1.1.1"], &["1.1.1.1"]),
            (&[], &[]),
        ] {
            let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
            assert_eq!(alternate(parse(given).into_iter()).collect::<Vec<_>>(), parse(expected));
        }
    }

    #[tokio::test]
    async fn an_address_that_refuses_makes_way_for_the_next() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        // Bound and closed again, so that nothing answers there.
        let bad = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(connect(&[bad, good]).await.unwrap().peer_addr().unwrap(), good);
        assert_eq!(connect(&[bad]).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn only_admitted_addresses_are_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            assert_eq!(dial(host, port, Reach::Public).await.unwrap_err(), HttpCallError::AddressProhibited, "{host}");
        }
        dial("127.0.0.1", port, Reach::Any).await.unwrap();
        dial("127.0.0.1", port, Reach::Private).await.unwrap();
        assert_eq!(dial("1.1.1.1", port, Reach::Private).await.unwrap_err(), HttpCallError::AddressProhibited);
    }
}
