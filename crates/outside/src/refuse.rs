//! Which addresses a next hop may not have.
//!
//! Owns the list that keeps a stranger's choice of target from reaching into our own network: it is asked about
//! the address that is about to be connected to, never about a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Networks that are private, special, or nobody's.
const REFUSED_V4: [Ipv4Net; 11] = [
    v4(0, 0, 8),      // "this network"; 0.0.0.0 reaches the machine itself
    v4(10, 0, 8),     // private
    v4(100, 64, 10),  // carrier-grade NAT
    v4(127, 0, 8),    // loopback
    v4(169, 254, 16), // link-local; the clouds' metadata services
    v4(172, 16, 12),  // private
    v4(192, 0, 24),   // 192.0.0.0/24, protocol assignments
    v4(192, 168, 16), // private
    v4(198, 18, 15),  // benchmarks
    v4(224, 0, 4),    // multicast
    v4(240, 0, 4),    // reserved, and broadcast
];

const REFUSED_V6: [Ipv6Net; 6] = [
    v6([0, 0, 0], 127),        // unspecified and loopback
    v6([0x64, 0xff9b, 1], 48), // local NAT64 (RFC 8215): may lead to any private IPv4 address
    v6([0xfc00, 0, 0], 7),     // private
    v6([0xfe80, 0, 0], 10),    // link-local
    v6([0xfec0, 0, 0], 10),    // site-local, deprecated, still routed by some
    v6([0xff00, 0, 0], 8),     // multicast
];

/// Prefixes behind which an IPv4 address stands, and how many octets before it.
const EMBEDDING: [(Ipv6Net, usize); 4] = [
    (v6([0, 0, 0], 96), 12),         // IPv4-compatible, deprecated
    (v6_mapped(), 12),               // IPv4-mapped
    (v6([0x64, 0xff9b, 0], 96), 12), // NAT64 (RFC 6052)
    (v6([0x2002, 0, 0], 16), 2),     // 6to4
];

/// Whether nothing that a stranger chose may lead to `ip`, save through a network that the operator allowed.
pub(crate) fn is_refused(ip: IpAddr, allowed: &[IpNet]) -> bool {
    let forms = [Some(ip), embedded(ip).map(IpAddr::V4)];
    let mut forms = forms.iter().flatten();
    if allowed.iter().any(|net| forms.clone().any(|form| net.contains(form))) {
        return false;
    }
    forms.any(|form| match form {
        IpAddr::V4(form) => REFUSED_V4.iter().any(|net| net.contains(form)),
        IpAddr::V6(form) => REFUSED_V6.iter().any(|net| net.contains(form)),
    })
}

/// The IPv4 address that a packet to `ip` would end at.
fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let (_, at) = EMBEDDING.iter().find(|(net, _)| net.contains(&ip))?;
    let octets: [u8; 4] = ip.octets().get(*at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

const fn v4(first: u8, second: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(first, second, 0, 0), length)
}

const fn v6(first: [u16; 3], length: u8) -> Ipv6Net {
    let [a, b, c] = first;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

const fn v6_mapped() -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(ip: &str) -> bool {
        is_refused(ip.parse().unwrap(), &[])
    }

    /// First and last address of each refused network, and the neighbours that are fine.
    const V4: &[(&str, &str, Option<&str>, Option<&str>)] = &[
        ("0.0.0.0", "0.255.255.255", None, Some("1.0.0.0")),
        ("10.0.0.0", "10.255.255.255", Some("9.255.255.255"), Some("11.0.0.0")),
        ("100.64.0.0", "100.127.255.255", Some("100.63.255.255"), Some("100.128.0.0")),
        ("127.0.0.0", "127.255.255.255", Some("126.255.255.255"), Some("128.0.0.0")),
        ("169.254.0.0", "169.254.255.255", Some("169.253.255.255"), Some("169.255.0.0")),
        ("172.16.0.0", "172.31.255.255", Some("172.15.255.255"), Some("172.32.0.0")),
        ("192.0.0.0", "192.0.0.255", Some("191.255.255.255"), Some("192.0.1.0")),
        ("192.168.0.0", "192.168.255.255", Some("192.167.255.255"), Some("192.169.0.0")),
        ("198.18.0.0", "198.19.255.255", Some("198.17.255.255"), Some("198.20.0.0")),
        ("224.0.0.0", "239.255.255.255", Some("223.255.255.255"), None),
        ("240.0.0.0", "255.255.255.255", None, None),
    ];

    #[test]
    fn every_ipv4_network_in_every_disguise() {
        for (first, last, below, above) in V4 {
            for (ip, expected) in
                [(Some(first), true), (Some(last), true), (below.as_ref(), false), (above.as_ref(), false)]
            {
                let Some(ip) = ip else { continue };
                let plain: Ipv4Addr = ip.parse().unwrap();
                let [a, b, c, d] = plain.octets();
                assert_eq!(refused(ip), expected, "{ip}");
                assert_eq!(refused(&format!("::ffff:{ip}")), expected, "mapped {ip}");
                assert_eq!(refused(&format!("::{ip}")), expected, "compatible {ip}");
                assert_eq!(refused(&format!("64:ff9b::{ip}")), expected, "NAT64 {ip}");
                let six_to_four = format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1");
                assert_eq!(refused(&six_to_four), expected, "6to4 {ip}");
            }
        }
    }

    #[test]
    fn every_ipv6_network() {
        for ip in [
            "::",
            "::1",
            "64:ff9b:1::",
            "64:ff9b:1:ffff:ffff:ffff:ffff:ffff",
            "fc00::",
            "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fe80::",
            "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fec0::",
            "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "ff00::",
            "ff02::1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            assert!(refused(ip), "{ip}");
        }
        for ip in [
            "64:ff9b:2::",
            "64:ff9b::808:808",
            "2001:4860:4860::8888",
            "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fe00::",
            "2a00:1450::1",
            "2003::1",
            "::1:0:0:0",
        ] {
            assert!(!refused(ip), "{ip}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_allowed_in_every_disguise_and_nothing_else_is() {
        let allowed: Vec<IpNet> = vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for ip in
            ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2002:0a01:0203::1", "fd12::1", "8.8.8.8"]
        {
            assert!(!is_refused(ip.parse().unwrap(), &allowed), "{ip}");
        }
        for ip in ["10.2.0.0", "::ffff:10.2.0.0", "fc00::1", "127.0.0.1"] {
            assert!(is_refused(ip.parse().unwrap(), &allowed), "{ip}");
        }
    }
}
