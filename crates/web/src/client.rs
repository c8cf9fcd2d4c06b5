//! Whose request this is.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;

use crate::WebState;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The other end of the connection. The server that accepted it puts this into the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The address that the request counts under.
#[derive(Clone, Copy)]
pub(crate) struct Client(pub(crate) IpAddr);

/// Puts the [`Client`] into the request.
pub(crate) async fn find(State(web): State<WebState>, mut request: Request, next: Next) -> Response {
    let client = client_of(peer_of(&request), request.headers(), &web.trusted_proxies);
    request.extensions_mut().insert(Client(client));
    next.run(request).await
}

fn peer_of(request: &Request) -> IpAddr {
    let extensions = request.extensions();
    let given = extensions.get::<Peer>().map(|peer| peer.0);
    let accepted = || extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    given.or_else(accepted).unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)).to_canonical()
}

/// The rightmost hop that no trusted proxy vouches for: everything left of it may be invented. A list that a
/// trusted proxy passed on but that cannot be read counts as if it were not there.
fn client_of(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    if !is_trusted(peer) {
        return peer;
    }
    let mut client = peer;
    for value in headers.get_all(FORWARDED_FOR).iter().rev() {
        for hop in value.to_str().unwrap_or_default().rsplit(',') {
            let Ok(hop) = hop.trim().parse::<IpAddr>() else { return peer };
            client = hop.to_canonical();
            if !is_trusted(client) {
                return client;
            }
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted = ["127.0.0.1/32", "10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
        client_of(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("127.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
    }

    #[test]
    fn what_the_client_invented_stands_left_of_what_the_proxy_saw() {
        assert_eq!(client("127.0.0.1", &["203.0.113.9, 198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("127.0.0.1", &["203.0.113.9, 198.51.100.7, 10.1.2.3"]), "198.51.100.7");
        assert_eq!(client("127.0.0.1", &["203.0.113.9", "198.51.100.7", "10.1.2.3"]), "198.51.100.7");
        assert_eq!(client("::1", &["nonsense, 2001:db8::5"]), "2001:db8::5");
        assert_eq!(client("127.0.0.1", &["10.9.9.9, 10.1.2.3"]), "10.9.9.9");
    }

    #[test]
    fn a_list_that_cannot_be_read_counts_for_nothing() {
        for bad in ["unknown", "", "198.51.100.7,", "1.2.3.4:80", "<script>"] {
            assert_eq!(client("127.0.0.1", &[bad]), "127.0.0.1", "{bad}");
        }
        assert_eq!(client("127.0.0.1", &["198.51.100.7, bad, 10.1.2.3"]), "127.0.0.1");
    }

    #[test]
    fn a_mapped_address_is_the_one_it_maps() {
        assert_eq!(client("127.0.0.1", &["::ffff:198.51.100.7"]), "198.51.100.7");
    }
}
