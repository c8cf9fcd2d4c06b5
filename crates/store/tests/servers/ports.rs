//! Servers on TCP ports.

use std::net::TcpListener;

use crate::servers::Server;

impl Server {
    /// On a TCP port.
    pub(crate) fn on_port(port: u16, options: &[&str]) -> Self {
        Self::launch(Some(port), options)
    }
}

/// Ports that nobody listens on at this moment.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
