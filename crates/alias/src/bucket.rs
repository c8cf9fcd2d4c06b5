//! Rate limits as arithmetic on a passed `now` (a generic cell rate algorithm: one timestamp is the whole state).

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::UnixTime;

/// `burst` at once, then one per `every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many may come at once.
    pub burst: u32,
    /// How long until one more may come.
    pub every: Duration,
}

impl Rate {
    /// Takes one. `full_at` is the stored state: when the bucket will be as full as it can be (none: it is).
    /// Returns the new state.
    ///
    /// # Errors
    /// How long to wait, when nothing is left; the state stays as it was, so a refusal needs no write.
    pub fn take(self, full_at: Option<UnixTime>, now: UnixTime) -> Result<UnixTime, Duration> {
        let base = full_at.unwrap_or(now).max(now);
        let next = base.plus(self.every);
        let room = self.every.saturating_mul(self.burst.max(1));
        let over = next.since(now).saturating_sub(room);
        if over.is_zero() { Ok(next) } else { Err(over) }
    }
}

/// Who counts as one client: an IPv4 address, or a /64 of IPv6 (one customer has that many).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientNetwork(IpAddr);

impl ClientNetwork {
    /// The network that `address` counts under.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let net = u128::from(v6) & (u128::MAX << 64);
                Self(IpAddr::V6(Ipv6Addr::from(net)))
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }

    /// Its bytes, for a keyed hash.
    pub(crate) fn octets(self) -> Vec<u8> {
        match self.0 {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_one_per_interval() {
        let rate = Rate { burst: 3, every: Duration::from_secs(30) };
        let start = UnixTime::from_secs(1000);
        let mut state = None;
        for _ in 0..3 {
            state = Some(rate.take(state, start).unwrap());
        }
        assert_eq!(rate.take(state, start), Err(Duration::from_secs(30)));
        let later = start.plus(Duration::from_secs(29));
        assert_eq!(rate.take(state, later), Err(Duration::from_secs(1)));
        let state = rate.take(state, start.plus(Duration::from_secs(30))).unwrap();
        assert!(rate.take(Some(state), start.plus(Duration::from_secs(30))).is_err());
    }

    #[test]
    fn a_long_pause_refills_no_more_than_the_burst() {
        let rate = Rate { burst: 2, every: Duration::from_secs(1) };
        let state = Some(UnixTime::from_secs(5));
        let now = UnixTime::from_secs(1_000_000);
        let state = Some(rate.take(state, now).unwrap());
        let state = Some(rate.take(state, now).unwrap());
        assert!(rate.take(state, now).is_err());
    }

    #[test]
    fn ipv6_counts_by_64_and_mapped_addresses_as_ipv4() {
        let of = |s: &str| ClientNetwork::of(s.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }
}
