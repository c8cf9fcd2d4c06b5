//! Opening ports.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that may wait to be accepted: a burst of senders is not turned away by the kernel.
const BACKLOG: i32 = 1024;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another program has it.
    #[error("{key}: {address} is in use by another program; stop that one, or use another port")]
    InUse {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A port below 1024.
    #[error(
        "{key}: no permission to listen on {address}; ports below 1024 need CAP_NET_BIND_SERVICE: \
         use a higher port and redirect to it, or grant that capability"
    )]
    Permission {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// Anything else.
    #[error("{key}: cannot listen on {address}: {why}")]
    Other {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        why: io::Error,
    },
}

/// Opens all of `addresses`. Where one serves both families already (`[::]` on some systems), IPv6 is kept to
/// itself, so that `0.0.0.0` and `[::]` stand side by side everywhere.
pub(super) fn bind_all(key: &'static str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ListenError> {
    addresses
        .iter()
        .filter_map(|&address| match bind(address) {
            Ok(listener) => Some(Ok(listener)),
            // The default listens on both families; a system without IPv6 is no reason not to start.
            Err(why) if address.is_ipv6() && addresses.len() > 1 && is_family_missing(&why) => {
                tracing::warn!(%address, "this system has no IPv6; not listening there");
                None
            }
            Err(why) => Some(Err(match why.kind() {
                io::ErrorKind::AddrInUse => ListenError::InUse { key, address },
                io::ErrorKind::PermissionDenied => ListenError::Permission { key, address },
                _ => ListenError::Other { key, address, why },
            })),
        })
        .collect()
}

/// The addresses bound, with the ports that the system chose for port 0.
pub(super) fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

/// `EAFNOSUPPORT` and `EADDRNOTAVAIL`.
fn is_family_missing(why: &io::Error) -> bool {
    matches!(why.raw_os_error(), Some(97 | 99))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_key() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind_all("smtp.listen", &[held.local_addr().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("smtp.listen") && error.contains("in use"), "{error}");
        assert!(bind_all("smtp.listen", &[taken]).is_ok(), "free again at once");
    }
}
