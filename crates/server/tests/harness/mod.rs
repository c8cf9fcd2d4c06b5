//! A whole server in this process, a next hop and senders, all on loopback.

#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of this")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempalias_alias::Wanted;
use tempalias_server::app::App;
use tempalias_server::config::{self, Environment};
use tempalias_service::{Aliases, Draft, Requester};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running server.
pub(crate) struct Running {
    pub(crate) smtp: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) aliases: Aliases,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<bool>,
}

impl Running {
    /// Starts one with its files in `folder`, mail going to `next_hop`; `smtp` are more lines for `[smtp]`.
    pub(crate) async fn start(folder: &Path, next_hop: SocketAddr, smtp: &str) -> Self {
        let shown = folder.display();
        let text = format!(
            "domains = [\"alias.test\"]\nhostname = \"mx.alias.test\"\nadmin = \"operator@real.test\"\n\
             [smtp]\nlisten = [\"127.0.0.1:0\"]\n{smtp}\n[http]\nlisten = [\"127.0.0.1:0\"]\n\
             [admin_http]\nlisten = [\"127.0.0.1:0\"]\n[admin_socket]\npath = \"{shown}/admin.sock\"\n\
             [delivery]\nsmarthost = \"{next_hop}\"\n[dns]\nservers = [\"127.0.0.1:53\"]\n\
             [store]\nurl = \"sqlite:{shown}/aliases.db\"\nkey_files = [\"{shown}/server.key\"]\n"
        );
        let config = config::parse(&text, Path::new("test.toml"), &Environment::default()).unwrap().config;
        let app = App::start(&config).await.unwrap();
        let (smtp, http, aliases) = (app.smtp_addresses()[0], app.web_addresses()[0], app.aliases().clone());
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(app.run(async { drop(stopped.await) }));
        Self { smtp, http, aliases, stop: Some(stop), ended }
    }

    /// A new alias with so many uses (0: uncounted).
    pub(crate) async fn alias(&self, uses: u32) -> String {
        let wanted = Wanted {
            max_usage: std::num::NonZeroU32::new(uses),
            days: std::num::NonZeroU32::new(1),
            ..Wanted::default()
        };
        let draft = Draft { target: Some("hidden@target.test".parse().unwrap()), wanted, ..Draft::default() };
        self.aliases.create(&draft, Requester::Operator, None).await.unwrap().address()
    }

    /// Tells it to end, without waiting.
    pub(crate) fn tell_to_end(&mut self) {
        drop(self.stop.take());
    }

    /// Waits for its end; whether every mail was finished.
    pub(crate) async fn ended(mut self) -> bool {
        self.tell_to_end();
        self.ended.await.unwrap()
    }
}

/// What a next hop does with the n-th message (from 0).
pub(crate) type Script = Arc<dyn Fn(usize) -> Act + Send + Sync>;

/// One behaviour at the dot.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Act {
    Accept,
    /// Take it, and close without a verdict.
    AcceptAndVanish,
    /// 4xx at the dot.
    Defer,
    /// 5xx at the dot.
    Refuse,
    /// Accept after a while.
    AcceptAfter(Duration),
    /// 5xx at the dot, after a while.
    RefuseAfter(Duration),
}

/// A next hop that notes what it accepted.
pub(crate) struct NextHop {
    pub(crate) address: SocketAddr,
    accepted: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Every verb that it heard, a connection's banner as "connected".
    pub(crate) heard: Arc<Mutex<Vec<String>>>,
    pub(crate) reached_dot: Arc<tokio::sync::Notify>,
}

impl NextHop {
    pub(crate) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let reached_dot: Arc<tokio::sync::Notify> = Arc::default();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let verbs = heard.clone();
        let (all, dot, count) = (accepted.clone(), reached_dot.clone(), Arc::new(Mutex::new(0usize)));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (all, dot, count, script) = (all.clone(), dot.clone(), count.clone(), script.clone());
                let verbs = verbs.clone();
                tokio::spawn(
                    async move { drop(converse(stream, &all, &verbs, &dot, &count, &script).await) },
                );
            }
        });
        Self { address, accepted, heard, reached_dot }
    }

    /// Accepts everything.
    pub(crate) async fn accepting() -> Self {
        Self::start(Arc::new(|_| Act::Accept)).await
    }

    /// Every message it accepted, whole.
    pub(crate) fn messages(&self) -> Vec<Vec<u8>> {
        self.accepted.lock().unwrap().clone()
    }

    /// How often it accepted each Message-ID.
    pub(crate) fn by_id(&self) -> HashMap<String, usize> {
        let mut all = HashMap::new();
        for message in self.messages() {
            let text = String::from_utf8_lossy(&message).into_owned();
            let id = text.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap_or("none");
            *all.entry(id.to_owned()).or_default() += 1;
        }
        all
    }
}

async fn converse(
    stream: TcpStream,
    all: &Mutex<Vec<Vec<u8>>>,
    verbs: &Mutex<Vec<String>>,
    dot: &tokio::sync::Notify,
    count: &Mutex<usize>,
    script: &Script,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    verbs.lock().unwrap().push("connected".to_owned());
    stream.write_all(b"220 next.test\r\n").await?;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        line.clear();
        verbs.lock().unwrap().push(verb.clone());
        match verb.as_str() {
            "EHLO" => stream.write_all(b"250-next.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n").await?,
            "QUIT" => return stream.write_all(b"221 bye\r\n").await,
            "DATA" => {
                stream.write_all(b"354 go\r\n").await?;
                let mut message = vec![];
                while !message.ends_with(b"\r\n.\r\n") {
                    if stream.read_until(b'\n', &mut message).await? == 0 {
                        return Ok(());
                    }
                }
                let number = {
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    *count - 1
                };
                dot.notify_one();
                let act = script(number);
                if let Act::AcceptAfter(pause) | Act::RefuseAfter(pause) = act {
                    tokio::time::sleep(pause).await;
                }
                match act {
                    Act::Defer => stream.write_all(b"451 4.3.0 hidden@target.test later\r\n").await?,
                    Act::Refuse | Act::RefuseAfter(_) => {
                        stream.write_all(b"554 5.7.1 hidden@target.test no\r\n").await?
                    }
                    Act::AcceptAndVanish => {
                        all.lock().unwrap().push(message);
                        return Ok(());
                    }
                    Act::Accept | Act::AcceptAfter(_) => {
                        all.lock().unwrap().push(message);
                        stream.write_all(b"250 2.0.0 ok\r\n").await?;
                    }
                }
            }
            _ => stream.write_all(b"250 ok\r\n").await?,
        }
    }
    Ok(())
}

/// A sender's connection.
pub(crate) struct Sender {
    stream: BufReader<TcpStream>,
}

impl Sender {
    pub(crate) async fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Past the banner and EHLO.
    pub(crate) async fn greeted(server: SocketAddr) -> Self {
        let mut sender = Self::connect(server).await;
        assert_eq!(sender.hear().await.0, 220);
        assert_eq!(sender.say("EHLO sender.test").await.0, 250);
        sender
    }

    /// Writes as it is.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.unwrap();
    }

    /// One reply: code and text; 0 when the connection ended.
    pub(crate) async fn hear(&mut self) -> (u16, String) {
        let mut text = String::new();
        loop {
            let from = text.len();
            match self.stream.read_line(&mut text).await {
                Ok(read) if read > 0 => {}
                _ => return (0, text),
            }
            let line = &text[from..];
            if line.as_bytes().get(3) != Some(&b'-') {
                return (line[..3].parse().unwrap_or(0), text);
            }
        }
    }

    pub(crate) async fn say(&mut self, command: &str) -> (u16, String) {
        self.write(format!("{command}\r\n").as_bytes()).await;
        self.hear().await
    }

    /// One mail; the final code.
    pub(crate) async fn send(&mut self, to: &str, id: &str) -> u16 {
        let (code, _) = self.say("MAIL FROM:<author@sender.test>").await;
        if code != 250 {
            return code;
        }
        let (code, _) = self.say(&format!("RCPT TO:<{to}>")).await;
        if code != 250 {
            self.say("RSET").await;
            return code;
        }
        let (code, _) = self.say("DATA").await;
        if code != 354 {
            return code;
        }
        self.write(message(id).as_bytes()).await;
        self.hear().await.0
    }

    /// Whether the server has closed the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = vec![];
        let read = tokio::time::timeout(Duration::from_secs(10), self.stream.read_to_end(&mut rest)).await;
        read.is_ok()
    }
}

/// A message with its dot.
pub(crate) fn message(id: &str) -> String {
    format!("Message-ID: {id}\r\nSubject: test\r\n\r\nText of {id}.\r\n.\r\n")
}
