//! Real servers of Redis for tests: one, or a Cluster, on private sockets and ports. They end with the test, even if it
//! is killed. What only some tests need stands in the files beside this one, which they name themselves.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempalias_store::RedisAddress;

/// Longest that a server may take to do what a test waits for, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program of Redis: as `tests/install` unpacks it, with the libraries that it brings; otherwise the system's.
/// `REDIS_SERVER` names another server to try: a Valkey, say.
pub(crate) fn program(name: &str) -> Command {
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
    pub(crate) folder: tempfile::TempDir,
    options: Vec<String>,
    environment: Vec<(String, String)>,
    /// None: it was killed.
    process: Option<Process>,
    /// Its port; none: it has only a socket.
    pub(crate) port: Option<u16>,
}

struct Process {
    keeper: Child,
    pid: u32,
}

impl Server {
    /// On a socket in a folder of its own, with these options beside.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::launch(None, options)
    }

    pub(crate) fn launch(port: Option<u16>, options: &[&str]) -> Self {
        Self::launch_in(tempfile::tempdir().unwrap(), port, options, Vec::new())
    }

    pub(crate) fn launch_in(
        folder: tempfile::TempDir,
        port: Option<u16>,
        options: &[&str],
        environment: Vec<(String, String)>,
    ) -> Self {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let mut server = Self { folder, options, environment, process: None, port };
        server.restart();
        server.wait_until_it_answers();
        server
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
        self.try_signal("KILL");
        if let Some(mut process) = self.process.take() {
            drop(process.keeper.stdin.take());
            drop(process.keeper.wait());
        }
    }

    /// Starts again, on the same data if it kept any.
    pub(crate) fn restart(&mut self) {
        drop(std::fs::remove_file(self.socket()));
        self.process = Some(run(self.folder.path(), self.port, &self.options, &self.environment));
    }

    /// Whether there was a process to take it.
    pub(crate) fn try_signal(&self, signal: &str) -> bool {
        self.process.as_ref().is_some_and(|process| {
            let mut kill = Command::new("kill");
            kill.arg(format!("-{signal}")).arg(process.pid.to_string()).status().unwrap().success()
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn run(folder: &Path, port: Option<u16>, options: &[String], environment: &[(String, String)]) -> Process {
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
    Process { keeper, pid: line.trim().parse().unwrap() }
}

/// Waits until something is so.
pub(crate) fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
