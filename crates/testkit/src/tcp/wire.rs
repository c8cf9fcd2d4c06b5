//! Sockets as a stream of events, so that every wait is for one channel.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATIENCE;

/// One connection, by the order in which they came.
pub(super) type Id = usize;

enum Happened {
    Accepted(TcpStream),
    Octets(Id, Vec<u8>),
    End(Id),
}

/// All connections of one dialogue.
pub(super) struct Wire {
    happens: UnboundedReceiver<Happened>,
    tell: UnboundedSender<Happened>,
    accepting: JoinHandle<()>,
    pub(super) connections: BTreeMap<Id, Connection>,
    next: Id,
}

pub(super) struct Connection {
    writer: OwnedWriteHalf,
    reading: JoinHandle<()>,
    /// Octets that came and that nobody took.
    pub(super) inbox: Vec<u8>,
    pub(super) ended: bool,
    /// Whether the server opened it: a next hop's.
    pub(super) accepted: bool,
    /// Whether the next hop greeted on it.
    pub(super) greeted: bool,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.connections.values().for_each(|connection| connection.reading.abort());
    }
}

impl Wire {
    /// Listens as the next hop; says where.
    pub(super) async fn listen() -> io::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (tell, happens) = unbounded_channel();
        let accepted = tell.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if accepted.send(Happened::Accepted(stream)).is_err() {
                    return;
                }
            }
        });
        Ok((Self { happens, tell, accepting, connections: BTreeMap::new(), next: 0 }, address))
    }

    /// Connects as a sender.
    pub(super) async fn connect(&mut self, to: SocketAddr) -> io::Result<Id> {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await??;
        Ok(self.take_in(stream, false))
    }

    fn take_in(&mut self, stream: TcpStream, accepted: bool) -> Id {
        // Dialogues cut writes on purpose.
        drop(stream.set_nodelay(true));
        let id = self.next;
        self.next += 1;
        let (reader, writer) = stream.into_split();
        let reading = tokio::spawn(read(id, reader, self.tell.clone()));
        let connection =
            Connection { writer, reading, inbox: vec![], ended: false, accepted, greeted: false };
        self.connections.insert(id, connection);
        id
    }

    /// Writes; a peer that no longer reads shows later, in what it does not say.
    pub(super) async fn write(&mut self, id: Id, octets: &[u8]) {
        if let Some(connection) = self.connections.get_mut(&id) {
            drop(timeout(PATIENCE, connection.writer.write_all(octets)).await);
        }
    }

    /// Closes both directions.
    pub(super) async fn close(&mut self, id: Id) {
        if let Some(connection) = self.connections.remove(&id) {
            connection.reading.abort();
            // The socket closes with its second half.
            drop(connection.reading.await);
            drop(connection.writer);
        }
    }

    /// Waits until something happens. False: nothing did, for too long.
    pub(super) async fn wait(&mut self) -> bool {
        match timeout(PATIENCE, self.happens.recv()).await {
            Ok(Some(happened)) => {
                self.take(happened);
                self.take_all();
                true
            }
            _ => false,
        }
    }

    /// Takes what has happened already.
    pub(super) fn take_all(&mut self) {
        while let Ok(happened) = self.happens.try_recv() {
            self.take(happened);
        }
    }

    fn take(&mut self, happened: Happened) {
        match happened {
            Happened::Accepted(stream) => {
                self.take_in(stream, true);
            }
            Happened::Octets(id, octets) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.inbox.extend(octets);
                }
            }
            Happened::End(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.ended = true;
                }
            }
        }
    }
}

impl Connection {
    /// The next line, without its CRLF, if all of it is here.
    pub(super) fn line(&mut self) -> Option<String> {
        let end = self.inbox.windows(2).position(|pair| pair == b"\r\n")?;
        let line: Vec<u8> = self.inbox.drain(..end + 2).take(end).collect();
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

async fn read(id: Id, mut reader: OwnedReadHalf, tell: UnboundedSender<Happened>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let happened = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => Happened::End(id),
            Ok(read) => Happened::Octets(id, buffer[..read].to_vec()),
        };
        let end = matches!(happened, Happened::End(_));
        if tell.send(happened).is_err() || end {
            return;
        }
    }
}
