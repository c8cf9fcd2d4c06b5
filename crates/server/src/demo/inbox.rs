//! The target's mailbox, for the demo: a small SMTP server that keeps what it gets, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tempalias_smtp::data::{DataReceiver, Progress, unstuff};
use tempalias_smtp::line::{Scan, scan};
use tempalias_smtp::{Command, ForwardPath, Reply, Status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Messages kept; older ones go.
const KEPT: usize = 50;

/// What arrived, the newest first.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    messages: Mutex<VecDeque<Arc<Message>>>,
}

/// One message as the target got it.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Whom the envelope named: the real address.
    pub(super) to: Vec<String>,
    /// Header and body, byte for byte.
    pub(super) content: Vec<u8>,
}

impl Inbox {
    pub(super) fn messages(&self) -> Vec<Arc<Message>> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Message>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, message: Message) {
        let mut messages = self.lock();
        messages.push_front(Arc::new(message));
        messages.truncate(KEPT);
    }

    /// Takes mail until the process ends.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let inbox = self.clone();
            tokio::spawn(async move { drop(Visit::new(stream).run(&inbox).await) });
        }
    }
}

/// One connection of the forwarding server.
struct Visit {
    stream: TcpStream,
    input: Vec<u8>,
    to: Vec<String>,
}

impl Visit {
    fn new(stream: TcpStream) -> Self {
        drop(stream.set_nodelay(true));
        Self { stream, input: vec![], to: vec![] }
    }

    async fn run(mut self, inbox: &Inbox) -> std::io::Result<()> {
        self.say(Status::Ready, &["inbox.example ESMTP demo inbox"]).await?;
        loop {
            let Scan::Line { text } = scan(&self.input) else {
                if !self.read().await? {
                    return Ok(());
                }
                continue;
            };
            let line: Vec<u8> = self.input.drain(..text + 2).take(text).collect();
            match Command::parse(&line) {
                Ok(Command::Ehlo(_)) => {
                    let offers =
                        ["inbox.example", "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"];
                    self.say(Status::Hello, &offers).await?;
                }
                Ok(Command::Rcpt(path)) => {
                    self.to.push(match path {
                        ForwardPath::Postmaster => "postmaster".to_owned(),
                        ForwardPath::Mailbox(mailbox) => mailbox.to_string(),
                    });
                    self.say(Status::RecipientOk, &["Welcome"]).await?;
                }
                Ok(Command::Data) => {
                    self.say(Status::StartInput, &["Go ahead"]).await?;
                    let Some(content) = self.message().await? else { return Ok(()) };
                    inbox.keep(Message { to: std::mem::take(&mut self.to), content });
                    self.say(Status::Completed, &["Kept"]).await?;
                }
                Ok(Command::Quit) => return self.say(Status::Closing, &["Bye"]).await,
                Ok(_) => {
                    self.to.clear();
                    self.say(Status::Completed, &["Fine"]).await?;
                }
                Err(_) => self.say(Status::UnknownCommand, &["Not understood"]).await?,
            }
        }
    }

    /// The message up to its dot; none: the connection ended first.
    async fn message(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let (mut receiver, mut wire) = (DataReceiver::default(), vec![]);
        loop {
            let chunk = Bytes::from(std::mem::take(&mut self.input));
            if let Progress::End { consumed } = receiver.receive(&chunk) {
                let (mine, rest) = chunk.split_at(consumed);
                wire.extend_from_slice(mine);
                self.input = rest.to_vec();
                return Ok(Some(unstuff(&wire)));
            }
            wire.extend_from_slice(&chunk);
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    async fn read(&mut self) -> std::io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.input).await? > 0)
    }

    async fn say(&mut self, status: Status, lines: &[&str]) -> std::io::Result<()> {
        let mut wire = vec![];
        Reply { status, lines: lines.iter().map(|line| (*line).to_owned().into()).collect() }
            .write_to(&mut wire);
        self.stream.write_all(&wire).await
    }
}
