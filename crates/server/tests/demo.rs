//! The demo, as a newcomer runs it: the program, its ports, its page, and what a taken port says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

/// A running demo and what it printed.
struct Demo {
    child: Child,
    http: String,
    alias: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn demo(http: &str, smtp: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tempalias"));
    command.args(["demo", "--http", http, "--smtp", smtp]);
    command
}

impl Demo {
    fn start() -> Self {
        let mut child = demo("127.0.0.1:0", "127.0.0.1:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut welcome = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            welcome.push_str(&line.unwrap());
            welcome.push('\n');
            if welcome.trim_end().ends_with("/aliases") {
                break;
            }
        }
        let word = |start: &str| {
            let at = welcome.find(start).unwrap() + start.len();
            welcome[at..].split_whitespace().next().unwrap().trim_end_matches('/').to_owned()
        };
        assert!(welcome.contains("curl -sS smtp://127.0.0.1:"), "{welcome}");
        Self { http: word("http://"), alias: word("made already: "), child }
    }

    fn request(&self, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        let length = body.len();
        let form = "Content-Type: application/x-www-form-urlencoded";
        write!(stream, "{head} HTTP/1.1\r\nHost: {}\r\n{form}\r\nContent-Length: {length}\r\n", self.http)
            .unwrap();
        write!(stream, "Connection: close\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn send(&self) -> String {
        let form = format!("alias={}", self.alias.replace('@', "%40"));
        assert!(self.request("POST /inbox/send", &form).starts_with("HTTP/1.1 303"));
        self.request("GET /inbox", "")
    }
}

#[test]
fn two_messages_pass_and_the_third_is_refused() {
    let demo = Demo::start();
    assert!(demo.request("GET /inbox", "").contains("Nothing has arrived yet"));
    assert!(demo.request("GET /", "").contains("real e-mail"));
    let page = demo.send();
    assert!(page.contains("Delivered.") && page.contains("1 message, the newest first"), "{page}");
    assert!(page.contains("X-Tempalias-Remaining: 1") && page.contains("you@real.example"), "{page}");
    assert!(demo.send().contains("2 messages"));
    let page = demo.send();
    assert!(page.contains("Refused.") && page.contains("550 5.1.1"), "{page}");
    assert!(page.contains("2 messages"), "{page}");
}

#[test]
fn what_is_shown_is_escaped() {
    let demo = Demo::start();
    let form = "alias=%3Cscript%3Ealert(1)%3C%2Fscript%3E%0D%0ARSET";
    assert!(demo.request("POST /inbox/send", form).starts_with("HTTP/1.1 303"));
    let page = demo.request("GET /inbox", "");
    assert!(
        !page.contains("<script>")
            && page.contains("Content-Security-Policy") | page.contains("content-security-policy")
    );
}

#[test]
fn a_taken_port_is_named_with_a_way_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    for (http, smtp) in [(taken.as_str(), "127.0.0.1:0"), ("127.0.0.1:0", taken.as_str())] {
        let said = demo(http, smtp).output().unwrap();
        let error = String::from_utf8(said.stderr).unwrap();
        assert_eq!(said.status.code(), Some(1), "{error}");
        assert!(error.contains(&taken) && error.contains("in use") && error.contains("--http"), "{error}");
    }
}
