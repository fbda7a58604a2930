//! Rates of requests, by caller, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// A number of requests in a time, of which all may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The requests that may come at once.
    burst: u32,
    /// The time after which one more may come.
    interval: Duration,
}

impl Rate {
    /// Creates a rate of `count` requests in each `per`, and a burst of as many. `count` is at least 1.
    pub const fn new(count: u32, per: Duration) -> Self {
        let count = if count == 0 { 1 } else { count };
        // In nanoseconds, so that a million in a second still has an interval.
        let interval = per.as_nanos() / count as u128;
        Self { burst: count, interval: Duration::from_nanos(if interval == 0 { 1 } else { interval as u64 }) }
    }

    /// Returns the rate with another burst.
    #[must_use]
    pub const fn with_burst(self, burst: u32) -> Self {
        Self { burst: if burst == 0 { 1 } else { burst }, ..self }
    }

    /// Takes one request at `now`. `spent` is the time until which the requests so far have used the rate up (the
    /// generic cell rate algorithm: one number for a caller, and no timer). Returns the new time, or the wait until
    /// there is a request.
    fn take(self, spent: Duration, now: Duration) -> Result<Duration, Duration> {
        let next = spent.max(now) + self.interval;
        let ahead = self.interval * self.burst;
        // A refused request takes nothing, or callers that try again would never get through.
        if next > now + ahead { Err(next - now - ahead) } else { Ok(next) }
    }
}

/// Returns the network that an address is counted under: an IPv4 address itself, of an IPv6 address the first 64 bits.
pub fn peer_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        // One customer has at least so many addresses (RFC 6177): each a caller of its own would be no bound.
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

/// The rates of many callers. Holds at most twice its capacity; beyond that the callers that came least lately are
/// forgotten, which gives them a full rate again.
#[derive(Debug)]
pub struct RateTable<K> {
    rate: Rate,
    capacity: usize,
    /// The callers of the present generation, with the time until which they have used their rate up.
    recent: HashMap<K, Duration>,
    /// Those of the one before. A caller that comes again moves to the present one.
    earlier: HashMap<K, Duration>,
}

impl<K: Eq + Hash> RateTable<K> {
    /// Creates a table that remembers at least `capacity` callers.
    pub fn new(rate: Rate, capacity: usize) -> Self {
        Self { rate, capacity: capacity.max(1), recent: HashMap::new(), earlier: HashMap::new() }
    }

    /// Takes one request of a caller at `now`, a time since any fixed moment.
    ///
    /// # Errors
    /// The wait until the caller may come again.
    pub fn take(&mut self, caller: K, now: Duration) -> Result<(), Duration> {
        let spent = match self.recent.get(&caller) {
            Some(spent) => *spent,
            None => self.earlier.remove(&caller).unwrap_or_default(),
        };
        let taken = self.rate.take(spent, now);
        self.keep(caller, *taken.as_ref().unwrap_or(&spent));
        taken.map(|_| ())
    }

    /// Returns the wait of a caller that has used its rate up, and takes nothing.
    ///
    /// # Errors
    /// The wait until the caller may come again.
    pub fn check(&self, caller: &K, now: Duration) -> Result<(), Duration> {
        let spent = self.recent.get(caller).or_else(|| self.earlier.get(caller)).copied().unwrap_or_default();
        self.rate.take(spent, now).map(|_| ())
    }

    fn keep(&mut self, caller: K, spent: Duration) {
        // Two generations and not a list in the order of use: constant time, whatever comes.
        if self.recent.len() >= self.capacity && !self.recent.contains_key(&caller) {
            self.earlier = std::mem::take(&mut self.recent);
        }
        self.recent.insert(caller, spent);
    }

    /// Returns the number of callers that are remembered.
    pub fn len(&self) -> usize {
        self.recent.len() + self.earlier.len()
    }

    /// Returns `true` if no caller is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn rates_empty_and_refill() {
        let mut table = RateTable::new(Rate::new(1_000, Duration::from_secs(1)).with_burst(2_000), 10);
        for _ in 0..2_000 {
            table.take("a", 5 * MS).unwrap();
        }
        assert_eq!(table.check(&"a", 5 * MS), Err(MS));
        assert_eq!(table.take("a", 5 * MS), Err(MS));
        assert_eq!(table.take("a", 5 * MS), Err(MS), "a refused request takes nothing");
        table.take("b", 5 * MS).unwrap();
        let later = 1_005 * MS;
        assert_eq!((0..2_000).filter(|_| table.take("a", later).is_ok()).count(), 1_000);
    }

    #[test]
    fn slow_rates_have_long_waits() {
        let mut table = RateTable::new(Rate::new(2, Duration::from_secs(60)), 10);
        table.take((), Duration::ZERO).unwrap();
        table.take((), Duration::ZERO).unwrap();
        assert_eq!(table.take((), Duration::ZERO), Err(Duration::from_secs(30)));
        assert_eq!(table.take((), Duration::from_secs(29)), Err(Duration::from_secs(1)));
        table.take((), Duration::from_secs(30)).unwrap();
    }

    #[test]
    fn memory_is_bounded_and_frequent_callers_stay() {
        let mut table = RateTable::new(Rate::new(1, Duration::from_secs(3_600)), 100);
        table.take(0_u32, MS).unwrap();
        for caller in 1..10_000 {
            table.take(caller, MS).unwrap();
            assert!(table.take(0, MS).is_err(), "who comes all the time is not forgotten");
            assert!(table.len() <= 200);
        }
    }

    #[test]
    fn addresses_are_counted_by_network() {
        for (address, network) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            assert_eq!(peer_network(address.parse().unwrap()), network.parse::<IpAddr>().unwrap(), "{address}");
        }
    }

    proptest! {
        #[test]
        fn no_more_pass_than_the_rate_allows(
            count in 1_u32..50, per_ms in 1_u64..5_000, gaps in prop::collection::vec(0_u64..200, 1..300),
        ) {
            let per = Duration::from_millis(per_ms);
            let mut table = RateTable::new(Rate::new(count, per), 4);
            let (mut now, mut passed) = (Duration::ZERO, 0_u128);
            for gap in gaps {
                now += Duration::from_millis(gap);
                match table.take("a", now) {
                    Ok(()) => passed += 1,
                    // The promised wait is enough, and no longer than it has to be.
                    Err(wait) => {
                        prop_assert!(table.check(&"a", now + wait).is_ok());
                        prop_assert!(table.check(&"a", now + wait - Duration::from_nanos(1)).is_err());
                    }
                }
                let allowed = u128::from(count) + (now.as_nanos() * u128::from(count)).div_ceil(per.as_nanos()) + 1;
                prop_assert!(passed <= allowed, "{} passed of {}", passed, allowed);
            }
        }
    }
}
