//! Real servers of Redis for tests: one, or a Cluster, on private sockets and ports. They end with the test, even if it
//! is killed.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempalias_store::RedisAddress;

/// Longest that a server may take to do what a test waits for, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program of Redis: as `tests/install` unpacks it, with the libraries that it brings; otherwise the system's.
/// `REDIS_SERVER` names another server to try: a Valkey, say.
fn program(name: &str) -> Command {
    if let (Some(server), "redis-server") = (std::env::var_os("REDIS_SERVER"), name) {
        return Command::new(server);
    }
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/redis/usr");
    let path = unpacked.join("bin").join(name);
    if !path.exists() {
        return Command::new(name);
    }
    let mut command = Command::new(path);
    let libraries = unpacked.join("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    command.env("LD_LIBRARY_PATH", libraries);
    command
}

/// Runs a server; its shell kills it when our end of the pipe is gone.
const KEEPER: &str =
    r#"bin=$1; shift; "$bin" "$@" >/dev/null & echo $!; cat >/dev/null; kill -9 $! 2>/dev/null"#;

/// One server in a folder of its own.
pub(crate) struct Server {
    folder: tempfile::TempDir,
    options: Vec<String>,
    environment: Vec<(String, String)>,
    keeper: Child,
    pid: u32,
    /// Its port; none: it has only a socket.
    port: Option<u16>,
}

impl Server {
    /// On a socket in a folder of its own, with these options beside.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::launch(None, options)
    }

    /// With a clock that [`Server::set_clock`] sets.
    pub(crate) fn with_clock(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/clock.c");
        let library = path("clock.so");
        let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o", &library, source]).status();
        assert!(made.expect("a C compiler, as for the build").success());
        std::fs::write(path("clock"), "0").unwrap();
        let environment = vec![("LD_PRELOAD".to_owned(), library), ("CLOCK_FILE".to_owned(), path("clock"))];
        Self::launch_in(folder, None, options, environment)
    }

    /// How far the server's clock is off, in days.
    pub(crate) fn set_clock(&self, days: i64) {
        let next = self.folder.path().join("clock.next");
        std::fs::write(&next, (days * 86_400).to_string()).unwrap();
        std::fs::rename(next, self.folder.path().join("clock")).unwrap();
    }

    /// On a TCP port.
    pub(crate) fn on_port(port: u16, options: &[&str]) -> Self {
        Self::launch(Some(port), options)
    }

    fn launch(port: Option<u16>, options: &[&str]) -> Self {
        Self::launch_in(tempfile::tempdir().unwrap(), port, options, Vec::new())
    }

    fn launch_in(
        folder: tempfile::TempDir,
        port: Option<u16>,
        options: &[&str],
        environment: Vec<(String, String)>,
    ) -> Self {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let (keeper, pid) = run(folder.path(), port, &options, &environment);
        let server = Self { folder, options, environment, keeper, pid, port };
        server.wait_until_it_answers();
        server
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn address(&self) -> RedisAddress {
        match self.port {
            Some(port) => format!("redis://127.0.0.1:{port}").parse().unwrap(),
            None => format!("unix:{}", self.socket().display()).parse().unwrap(),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap()
    }

    /// What redis-cli prints for a command.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        let mut cli = program("redis-cli");
        match self.port {
            Some(port) => cli.arg("-p").arg(port.to_string()),
            None => cli.arg("-s").arg(self.socket()),
        };
        let output = cli.args(command).output().expect("redis-cli: run tests/install first");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    pub(crate) fn wait_until_it_answers(&self) {
        wait_for("a server answers", || {
            let answer = self.cli(&["PING"]);
            answer == "PONG" || answer.starts_with("NOAUTH")
        });
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap();
    }

    /// Starts again, on the same data if it kept any.
    pub(crate) fn restart(&mut self) {
        drop(std::fs::remove_file(self.socket()));
        (self.keeper, self.pid) = run(self.folder.path(), self.port, &self.options, &self.environment);
    }

    /// Whatever it saved is gone.
    pub(crate) fn forget(&self) {
        for entry in std::fs::read_dir(self.folder()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else if path.extension().is_some_and(|end| end == "rdb" || end == "aof") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let done = Command::new("kill").arg(format!("-{signal}")).arg(self.pid.to_string()).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

fn run(
    folder: &Path,
    port: Option<u16>,
    options: &[String],
    environment: &[(String, String)],
) -> (Child, u32) {
    let server = program("redis-server");
    let mut shell = Command::new("sh");
    shell.args(["-c", KEEPER, "keeper"]).arg(server.get_program()).current_dir(folder);
    shell.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.args(["--dir", ".", "--save", "", "--port"]).arg(port.unwrap_or(0).to_string());
    shell.args(["--bind", "127.0.0.1", "--unixsocket", "s", "--logfile", "log"]).args(options);
    shell.envs(environment.iter().cloned());
    let mut keeper = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (keeper, line.trim().parse().unwrap())
}

/// A Cluster of masters with replicas.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Server>,
    masters: usize,
}

impl Cluster {
    pub(crate) fn start(masters: usize, replicas: usize) -> Self {
        // A port may be taken between our look and the server's start: another try finds others.
        for _ in 0..5 {
            if let Some(cluster) = Self::try_start(masters, replicas) {
                return cluster;
            }
        }
        panic!("no Cluster came up: run tests/install first, and see that ports on 127.0.0.1 can be had");
    }

    fn try_start(masters: usize, replicas: usize) -> Option<Self> {
        let count = masters * (1 + replicas);
        let ports = free_ports(2 * count);
        let nodes: Vec<Server> = ports
            .chunks(2)
            .map(|ports| {
                let bus = ports[1].to_string();
                let options = [
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

/// A port that nobody listens on at this moment.
pub(crate) fn free_port() -> u16 {
    free_ports(1)[0]
}

/// Ports that nobody listens on at this moment.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Waits until something is so.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
