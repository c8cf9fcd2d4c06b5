//! Loads for `bench/run` that no foreign program makes:
//!
//! * `idle PORT SESSIONS`: opens sessions that have said EHLO, says "ready", and holds them until standard input ends;
//! * `refuse PORT SESSIONS RECIPIENTS DOMAIN`: asks for recipients that do not exist, all sessions at once; prints
//!   how many were refused with 550 and in how many microseconds;
//! * `latency PORT MAILS SIZE TO`: one mail at a time, each on its own connection; prints the microseconds of each,
//!   from connecting to the answer to the dot, and then to that to QUIT.

use std::io::{BufRead as _, BufReader, Error, Read as _, Result, Write as _};
use std::net::TcpStream;
use std::time::Instant;

/// Recipients asked for in one write: as many as a sender may pipeline.
const BATCH: usize = 50;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["idle", port, sessions] => idle(number(port)?, number(sessions)?),
        ["refuse", port, sessions, recipients, domain] => {
            refuse(number(port)?, number(sessions)?, number(recipients)?, domain)
        }
        ["latency", port, mails, size, to] => latency(number(port)?, number(mails)?, number(size)?, to),
        _ => Err(Error::other("usage: see the top of bench/tool/src/main.rs")),
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::other(format!("not a number: {text}")))
}

/// One SMTP connection.
struct Smtp {
    reader: BufReader<TcpStream>,
}

impl Smtp {
    /// Connected and greeted; `buffer` octets for replies.
    fn open(port: u16, buffer: usize) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let mut this = Self { reader: BufReader::with_capacity(buffer, stream) };
        this.expect("220")?;
        this.say("EHLO client.example\r\n", "250")?;
        Ok(this)
    }

    fn say(&mut self, text: &str, code: &str) -> Result<()> {
        self.reader.get_mut().write_all(text.as_bytes())?;
        self.expect(code)
    }

    fn expect(&mut self, code: &str) -> Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            if !line.starts_with(code) {
                return Err(Error::other(format!("expected {code}, got {line:?}")));
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }
}

fn idle(port: u16, sessions: usize) -> Result<()> {
    let held = (0..sessions).map(|_| Smtp::open(port, 256)).collect::<Result<Vec<_>>>()?;
    println!("ready");
    std::io::stdin().read_to_end(&mut vec![])?;
    drop(held);
    Ok(())
}

fn refuse(port: u16, sessions: usize, recipients: usize, domain: &str) -> Result<()> {
    let connections = (0..sessions).map(|_| Smtp::open(port, 16 << 10)).collect::<Result<Vec<_>>>()?;
    let each = recipients / sessions;
    let began = Instant::now();
    let threads: Vec<_> = connections
        .into_iter()
        .enumerate()
        .map(|(session, smtp)| {
            let domain = domain.to_owned();
            std::thread::spawn(move || ask(smtp, session, each, &domain))
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| Error::other("a session failed"))??;
    }
    println!("{} {}", each * sessions, began.elapsed().as_micros());
    Ok(())
}

fn ask(mut smtp: Smtp, session: usize, recipients: usize, domain: &str) -> Result<()> {
    smtp.say("MAIL FROM:<author@sender.example>\r\n", "250")?;
    let mut asked = 0;
    while asked < recipients {
        let batch = BATCH.min(recipients - asked);
        let commands: String =
            (asked..asked + batch).map(|n| format!("RCPT TO:<n{session}x{n}@{domain}>\r\n")).collect();
        smtp.reader.get_mut().write_all(commands.as_bytes())?;
        for _ in 0..batch {
            smtp.expect("550")?;
        }
        asked += batch;
    }
    Ok(())
}

fn latency(port: u16, mails: usize, size: usize, to: &str) -> Result<()> {
    let line = format!("{}\r\n", "x".repeat(78));
    let body = line.repeat(size.div_ceil(line.len()));
    for mail in 0..mails {
        let message =
            format!("Message-ID: <{mail}.latency@sender.example>\r\nSubject: latency\r\n\r\n{body}.\r\n");
        let began = Instant::now();
        let mut smtp = Smtp::open(port, 4096)?;
        smtp.say("MAIL FROM:<author@sender.example>\r\n", "250")?;
        smtp.say(&format!("RCPT TO:<{to}>\r\n"), "250")?;
        smtp.say("DATA\r\n", "354")?;
        smtp.say(&message, "250")?;
        let answered = began.elapsed();
        smtp.say("QUIT\r\n", "221")?;
        println!("{} {}", answered.as_micros(), began.elapsed().as_micros());
    }
    Ok(())
}
