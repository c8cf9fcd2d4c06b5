//! In which order next hops are tried.
//!
//! Pure: randomness is passed in as a seed, so that a test sees the same order every time.

use std::net::IpAddr;

use tempalias_address::Domain;

use crate::dns::MxHost;

/// Lowest preference first, equal ones shuffled (RFC 5321 §5.1), each host once.
pub(crate) fn by_preference(mut hosts: Vec<MxHost>, seed: u64) -> Vec<Domain> {
    shuffle(&mut hosts, seed);
    hosts.sort_by_key(|host| host.preference);
    let mut ordered: Vec<Domain> = Vec::with_capacity(hosts.len());
    for MxHost { host, .. } in hosts {
        if !ordered.contains(&host) {
            ordered.push(host);
        }
    }
    ordered
}

/// Both families in turn, each in the order in which the DNS gave it. IPv4 is first: large receivers ask more of a
/// sender that comes over IPv6, and many senders' IPv6 addresses have no reverse name.
pub(crate) fn alternate_families(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut v4 = addresses.iter().filter(|ip| ip.is_ipv4());
    let mut v6 = addresses.iter().filter(|ip| ip.is_ipv6());
    let mut ordered = Vec::with_capacity(addresses.len());
    while ordered.len() < addresses.len() {
        ordered.extend(v4.next());
        ordered.extend(v6.next());
    }
    ordered
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for end in (1..items.len()).rev() {
        let at = next_random(&mut state) % (end as u64 + 1);
        items.swap(end, usize::try_from(at).unwrap_or_default());
    }
}

/// `SplitMix64`: spreads load, protects nothing.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hosts(of: &[(u16, &str)]) -> Vec<MxHost> {
        of.iter().map(|&(preference, host)| MxHost { preference, host: host.parse().unwrap() }).collect()
    }

    fn names(of: &[Domain]) -> Vec<&str> {
        of.iter().map(Domain::as_str).collect()
    }

    #[test]
    fn preference_decides_and_equal_ones_take_turns() {
        let given = hosts(&[(20, "d.x"), (10, "a.x"), (10, "b.x"), (10, "c.x"), (5, "first.x")]);
        let mut orders = HashSet::new();
        for seed in 0..200 {
            let ordered = by_preference(given.clone(), seed);
            assert_eq!(ordered, by_preference(given.clone(), seed), "the seed decides");
            assert_eq!(ordered.first().unwrap().as_str(), "first.x");
            assert_eq!(ordered.last().unwrap().as_str(), "d.x");
            orders.insert(ordered);
        }
        assert_eq!(orders.len(), 6, "all orders of three equal hosts occur");
    }

    #[test]
    fn each_host_is_tried_once_at_its_best_preference() {
        let ordered = by_preference(hosts(&[(20, "a.x"), (10, "a.x"), (15, "b.x")]), 7);
        assert_eq!(names(&ordered), ["a.x", "b.x"]);
    }

    #[test]
    fn families_alternate_and_nothing_is_lost() {
        let ips = |of: &[&str]| of.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        let ordered = alternate_families(&ips(&["2::1", "2::2", "2::3", "1.0.0.1", "1.0.0.2"]));
        assert_eq!(ordered, ips(&["1.0.0.1", "2::1", "1.0.0.2", "2::2", "2::3"]));
        assert_eq!(alternate_families(&ips(&["2::1"])), ips(&["2::1"]));
        assert_eq!(alternate_families(&[]), ips(&[]));
    }
}
