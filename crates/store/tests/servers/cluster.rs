//! Several servers that are one Cluster.

use tempalias_store::RedisAddress;

use crate::ports::free_ports;
use crate::servers::{Server, program, wait_for};

impl Server {
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap()
    }
}

/// A Cluster of masters with replicas.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
    masters: usize,
}

impl Cluster {
    pub(crate) fn start(masters: usize, replicas: usize) -> Self {
        Self::start_with(masters, replicas, Vec::new)
    }

    /// Each server with these options beside.
    pub(crate) fn start_with(masters: usize, replicas: usize, options: impl Fn() -> Vec<String>) -> Self {
        // A port may be taken between our look and the server's start: another try finds others.
        for _ in 0..5 {
            if let Some(cluster) = Self::try_start(masters, replicas, &options) {
                return cluster;
            }
        }
        panic!("no Cluster came up: run tests/install first, and see that ports on 127.0.0.1 can be had");
    }

    fn try_start(masters: usize, replicas: usize, more: &impl Fn() -> Vec<String>) -> Option<Self> {
        let count = masters * (1 + replicas);
        let ports = free_ports(2 * count);
        let nodes: Vec<Server> = ports
            .chunks(2)
            .map(|ports| {
                let bus = ports[1].to_string();
                let more = more();
                let mut options = vec![
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    &bus,
                    "--cluster-node-timeout",
                    "2000",
                    "--appendonly",
                    "yes",
                    "--appendfsync",
                    "always",
                    "--repl-diskless-sync-delay",
                    "0",
                ];
                options.extend(more.iter().map(String::as_str));
                Server::on_port(ports[0], &options)
            })
            .collect();
        let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port()));
        let made = program("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"])
            .output()
            .unwrap();
        let cluster = Self { nodes, masters };
        made.status.success().then(|| {
            cluster.wait_until_it_is_whole();
            cluster
        })
    }

    /// Every node agrees, and every replica follows.
    fn wait_until_it_is_whole(&self) {
        for node in &self.nodes {
            wait_for("the Cluster is whole", || {
                let info = node.cli(&["CLUSTER", "INFO"]);
                let replicas = node.cli(&["INFO", "replication"]);
                info.contains("cluster_state:ok")
                    && (replicas.contains("role:master") || replicas.contains("master_link_status:up"))
            });
        }
        let masters = self.nodes.iter().filter(|node| node.cli(&["ROLE"]).starts_with("master")).count();
        assert_eq!(masters, self.masters);
    }

    pub(crate) fn address(&self) -> RedisAddress {
        let nodes: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{}", nodes.join(",")).parse().unwrap()
    }
}
