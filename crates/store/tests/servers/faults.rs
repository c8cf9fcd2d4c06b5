//! What is done to a server, and to its clock and its disk.

use std::path::Path;
use std::process::Command;

use crate::servers::{Server, wait_for};

impl Server {
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

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
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

    /// Throws one key away, which is nobody's alias, to make room.
    pub(crate) fn throw_a_key_away(&self) {
        self.cli(&["SET", "victim", "x", "EX", "1000"]);
        for (name, value) in [("maxmemory-policy", "volatile-ttl"), ("maxmemory", "1")] {
            self.cli(&["CONFIG", "SET", name, value]);
        }
        self.cli(&["SET", "another", "y"]);
        for (name, value) in [("maxmemory", "0"), ("maxmemory-policy", "noeviction")] {
            self.cli(&["CONFIG", "SET", name, value]);
        }
        assert!(!self.cli(&["INFO", "stats"]).contains("evicted_keys:0"));
    }

    /// Throws some keys away, whosever they are.
    pub(crate) fn throw_some_away(&self) {
        self.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
        let memory = self.cli(&["INFO", "memory"]);
        let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        let less = used.trim().parse::<u64>().unwrap() - 60_000;
        self.cli(&["CONFIG", "SET", "maxmemory", &less.to_string()]);
        wait_for("keys are thrown away", || !self.cli(&["INFO", "stats"]).contains("evicted_keys:0"));
        self.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        self.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    }

    /// As `kill` sends it.
    pub(crate) fn signal(&self, signal: &str) {
        assert!(self.try_signal(signal), "nobody to signal");
    }
}
