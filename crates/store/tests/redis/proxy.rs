//! A TCP proxy before a server, which can cut, mute and count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use tempalias_store::RedisAddress;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Shared with the tasks.
#[derive(Default)]
struct State {
    /// Octets are taken and go nowhere: those of connections that stood when this was said.
    is_mute: AtomicBool,
    /// Requests wait, and go on when this ends.
    is_holding: AtomicBool,
    /// The server's answers that may still pass; after that the connection is cut, before the next.
    answers_left: AtomicU64,
    connections: AtomicU64,
    /// Where new connections go.
    port: AtomicU16,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    /// Changes when all connections are to be cut.
    cut: watch::Sender<u64>,
}

impl Proxy {
    pub(crate) async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            answers_left: AtomicU64::new(u64::MAX),
            port: AtomicU16::new(port),
            ..State::default()
        });
        let (cut, _) = watch::channel(0);
        let (shared, cuts) = (state.clone(), cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, mut cuts) = (shared.clone(), cuts.subscribe());
                tokio::spawn(async move {
                    let port = shared.port.load(Ordering::SeqCst);
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    tokio::select! {
                        () = pass(client, server, &shared) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Self { address, state, cut }
    }

    pub(crate) fn address(&self) -> RedisAddress {
        format!("redis://{}", self.address).parse().unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on the name leads elsewhere; what stands is cut.
    pub(crate) fn lead_to(&self, port: u16) {
        self.state.port.store(port, Ordering::SeqCst);
        self.cut();
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Cuts everything that stands.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// What stands goes silent without an end; new connections work, once it speaks again.
    pub(crate) fn mute(&self, is_mute: bool) {
        self.state.is_mute.store(is_mute, Ordering::SeqCst);
    }

    /// Requests wait, those of clients that have gone meanwhile, too; and go on when this ends.
    pub(crate) fn hold(&self, is_holding: bool) {
        self.state.is_holding.store(is_holding, Ordering::SeqCst);
    }

    /// Lets so many more answers pass and then cuts, request after request.
    pub(crate) fn cut_after(&self, answers: u64) {
        self.state.answers_left.store(answers, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, mut server: TcpStream, state: &State) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        let mut buffer = vec![0; 65_536];
        let mut was_mute = false;
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            was_mute |= state.is_mute.load(Ordering::SeqCst);
            while state.is_holding.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if !was_mute && to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 65_536];
        let mut was_mute = false;
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            was_mute |= state.is_mute.load(Ordering::SeqCst);
            let left = state.answers_left.load(Ordering::SeqCst);
            if left == 0 {
                break;
            }
            if left != u64::MAX {
                state.answers_left.store(left - 1, Ordering::SeqCst);
            }
            if !was_mute && to_client.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = up => {} () = down => {} }
}
