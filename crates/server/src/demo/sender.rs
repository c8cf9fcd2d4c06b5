//! A sender for the "send a test message" button: speaks SMTP to the demo's own port, and notes the conversation.

use std::net::SocketAddr;
use std::time::Duration;

use tempalias_smtp::data::stuff;
use tempalias_smtp::reply::NextHopReply;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far longer than a delivery on this machine takes.
const PATIENCE: Duration = Duration::from_secs(20);
const FROM: &str = "shop@sender.example";

/// One line of the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Whether we said it, or the server.
    pub(super) by_us: bool,
    /// The line.
    pub(super) line: String,
}

/// How it went.
#[derive(Debug, Clone)]
pub(super) struct Conversation {
    pub(super) said: Vec<Said>,
    pub(super) accepted: bool,
}

/// Sends one message to `to`. `number` makes it a message of its own.
pub(super) async fn send(server: SocketAddr, to: &str, number: u64) -> Conversation {
    let mut conversation = Conversation { said: vec![], accepted: false };
    let talk = talk(server, to, number, &mut conversation);
    let outcome = timeout(PATIENCE, talk).await;
    if !matches!(outcome, Ok(Ok(()))) {
        let line = "(the connection ended before the server answered)".to_owned();
        conversation.said.push(Said { by_us: false, line });
    }
    conversation
}

async fn talk(server: SocketAddr, to: &str, number: u64, log: &mut Conversation) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(server).await?;
    hear(&mut stream, log).await?;
    let envelope = [
        "EHLO sender.example".to_owned(),
        format!("MAIL FROM:<{FROM}>"),
        format!("RCPT TO:<{to}>"),
        "DATA".to_owned(),
    ];
    for command in envelope {
        let refused = say(&mut stream, &command, log).await?;
        if refused {
            say(&mut stream, "QUIT", log).await?;
            return Ok(());
        }
    }
    let message = format!(
        "From: A Shop <{FROM}>\r\nTo: {to}\r\nSubject: Test message {number}\r\n\
         Message-ID: <{number}@sender.example>\r\n\r\nThis is test message {number}. It came through your alias.\r\n"
    );
    log.said.push(Said { by_us: true, line: "(the message, then a dot)".to_owned() });
    stream.write_all(&stuff(message.as_bytes())).await?;
    let refused = hear(&mut stream, log).await?;
    log.accepted = !refused;
    say(&mut stream, "QUIT", log).await?;
    Ok(())
}

/// Whether the answer is a refusal.
async fn say(stream: &mut TcpStream, command: &str, log: &mut Conversation) -> std::io::Result<bool> {
    log.said.push(Said { by_us: true, line: command.to_owned() });
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    hear(stream, log).await
}

async fn hear(stream: &mut TcpStream, log: &mut Conversation) -> std::io::Result<bool> {
    let mut input = vec![];
    loop {
        let reply = NextHopReply::parse(&input).map_err(std::io::Error::other)?;
        if let Some((reply, _)) = reply {
            let line = String::from_utf8_lossy(&input).trim_end().replace("\r\n", "\n");
            log.said.push(Said { by_us: false, line });
            return Ok(reply.refusal().is_some());
        }
        if stream.read_buf(&mut input).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
