//! Making a connection, to one server or to a Cluster; and why none could be made.

use std::time::Duration;

use futures_util::future::join_all;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, RedisError, TlsCertificates};

use super::address::RedisAddress;
use super::fault::CLOSED_AT_ONCE;
use super::greet::Unfit;
use super::link::{COMMAND_TIMEOUT, Pipe, no_answer};

/// How long a connection may take to stand, TLS and password included.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(600);
/// A Cluster is connected to as a whole: every master, one after another in the worst case.
const CLUSTER_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How to reach a server.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: RedisAddress,
    /// Certificates in PEM to trust in place of the system's.
    pub(super) ca: Option<Vec<u8>>,
}

impl Target {
    pub(super) async fn connect(&self) -> Result<Pipe, RedisError> {
        let limit = if self.address.is_cluster() { CLUSTER_CONNECT_TIMEOUT } else { CONNECT_TIMEOUT };
        let connecting = async {
            if self.address.is_cluster() {
                self.connect_cluster().await
            } else {
                self.connect_single(self.address.nodes.first().cloned().ok_or_else(no_answer)?).await
            }
        };
        let connected = tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| Err(no_answer()));
        match connected {
            Err(error) if self.address.is_cluster() => Err(self.why_no_cluster(error).await),
            connected => connected,
        }
    }

    /// The client does not tell why it found no Cluster: its nodes are asked one by one, as it would have asked them. What
    /// somebody must mend comes before what may pass.
    async fn why_no_cluster(&self, error: RedisError) -> RedisError {
        let asked = self.address.nodes.iter().map(|node| async move {
            let asking = async {
                let mut pipe = self.connect_single(node.clone()).await?;
                pipe.ask(redis::cmd("CLUSTER").arg("SLOTS")).await.map(drop)
            };
            tokio::time::timeout(CONNECT_TIMEOUT, asking).await.unwrap_or_else(|_| Err(no_answer()))
        });
        let mut told = Vec::new();
        for answer in join_all(asked).await {
            match answer {
                Ok(()) => {}
                Err(why) if matches!(Unfit::from(why.clone()), Unfit::Wrong(_)) => return why,
                Err(why) => told.push(why),
            }
        }
        told.into_iter().next().unwrap_or(error)
    }

    async fn connect_single(&self, node: ConnectionInfo) -> Result<Pipe, RedisError> {
        let client = match &self.ca {
            Some(_) => Client::build_with_tls(node, self.certificates())?,
            None => Client::open(node)?,
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(2 * COMMAND_TIMEOUT));
        match client.get_multiplexed_async_connection_with_config(&config).await {
            Err(error) if !self.address.is_tls() && is_closed(&error) => {
                Err((redis::ErrorKind::Io, CLOSED_AT_ONCE).into())
            }
            connected => connected.map(Pipe::Single),
        }
    }

    async fn connect_cluster(&self) -> Result<Pipe, RedisError> {
        let mut builder = redis::cluster::ClusterClientBuilder::new(self.address.nodes.clone())
            .connection_timeout(CONNECT_TIMEOUT)
            .response_timeout(2 * COMMAND_TIMEOUT)
            .retries(2)
            .min_retry_wait(20)
            .max_retry_wait(100);
        if self.ca.is_some() {
            builder = builder.certs(self.certificates());
        }
        builder.build()?.get_async_connection().await.map(Pipe::Cluster)
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: None, root_cert: self.ca.clone() }
    }
}

/// Whether somebody was there, and ended it.
fn is_closed(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal()
}
