//! The server as a whole: what is built in which order, what runs, and how it ends.
//!
//! Nothing listens before everything that can fail at the start has not failed: a server that is up works.

mod http;
mod listen;
mod open_files;
mod wiring;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tempalias_mail::{Parts, Server};
use tempalias_outside::dns::{Hickory, SetupError};
use tempalias_outside::{Dialer, Outside, PoolLimits, dial};
use tempalias_service::Aliases;
use tempalias_store::Store;
use tempalias_web::{Part, Readiness, WebState};
use tokio::task::JoinSet;

use crate::admin::{AdminSocket, SocketError};
use crate::config::Config;
use crate::keyfile::{self, KeyError};
use crate::parts::{self, Opener, StoreFault};

pub use listen::ListenError;

use http::Web;

/// How long a mail past its dot may take to finish once the server was told to end: longer than
/// `delivery.dot_timeout` can be, so that none is cut.
const DRAIN_LIMIT: Duration = Duration::from_mins(11);
/// How long open HTTP requests may take then.
const HTTP_DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How often the store is swept of what has ended.
const SWEEP_EVERY: Duration = Duration::from_mins(10);

/// Everything that was opened and bound; it serves once it [`App::run`]s.
#[derive(Debug)]
pub struct App {
    mail: Server,
    aliases: Aliases,
    store: Store,
    smtp: Vec<tokio::net::TcpListener>,
    web: Vec<tokio::net::TcpListener>,
    health: Vec<tokio::net::TcpListener>,
    admin: Option<AdminSocket>,
    web_state: WebState,
    extra: axum::Router,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server's keys.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreFault),
    /// The resolver.
    #[error(transparent)]
    Dns(#[from] SetupError),
    /// A port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The admin socket.
    #[error(transparent)]
    Admin(#[from] SocketError),
    /// No domain; a checked configuration has one.
    #[error("no domain is configured")]
    NoDomain,
}

impl App {
    /// Opens keys and store, binds every listener. Needs a running `tokio`.
    ///
    /// # Errors
    /// [`StartError`]: says what to do about it.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let opened = keyfile::open_or_create(&config.store.key_files, config.store.url.file())?;
        if opened.is_new {
            let file = config.store.key_files.first().map(|path| path.display().to_string());
            tracing::info!(file, "made a new server key; keep a copy of it in a safe place");
        }
        let store = parts::open_store(config, &opened.keys, Opener::Server { is_new: opened.is_new }).await?;
        let keys = Arc::new(opened.keys);
        let policy = parts::policy(config).ok_or(StartError::NoDomain)?;
        let aliases = Aliases::new(store.clone(), keys.clone(), policy, parts::random());
        let smtp = listen::bind_all("smtp.listen", &config.smtp.listen)?;
        let web = listen::bind_all("http.listen", &config.http.listen)?;
        let health = listen::bind_all("admin_http.listen", &config.admin_http.listen)?;
        let admin = Some(AdminSocket::bind(&config.admin_socket.path)?);
        let mail = Server::new(Parts {
            policy: Arc::new(wiring::relay_policy(config, keys)),
            outside: outside(config, &listen::addresses(&smtp))?,
            store: store.clone(),
            smarthost: config.delivery.smarthost.as_ref().map(wiring::smarthost),
            limits: wiring::door_limits(config, open_files::raise()),
            log_addresses: config.privacy.log_addresses,
        });
        let web_state = WebState::new(aliases.clone(), config.http.trusted_proxies.clone());
        let extra = axum::Router::new();
        Ok(Self { mail, aliases, store, smtp, web, health, admin, web_state, extra })
    }

    /// More pages beside the service's own.
    #[must_use]
    pub fn with_pages(self, extra: axum::Router) -> Self {
        Self { extra, ..self }
    }

    /// Where SMTP is served.
    pub fn smtp_addresses(&self) -> Vec<SocketAddr> {
        listen::addresses(&self.smtp)
    }

    /// Where pages and API are served.
    pub fn web_addresses(&self) -> Vec<SocketAddr> {
        listen::addresses(&self.web)
    }

    /// What can be done with aliases, without a detour over a socket.
    pub fn aliases(&self) -> &Aliases {
        &self.aliases
    }

    /// Serves until `stop`, then ends in order. Whether every mail that had begun was finished.
    pub async fn run(self, stop: impl Future<Output = ()>) -> bool {
        let (smtp, web, health) = (&self.smtp, &self.web, &self.health);
        tracing::info!(
            smtp = %Addresses(smtp), http = %Addresses(web), admin_http = %Addresses(health), "listening"
        );
        let (draining, readiness) = readiness(&self.store);
        let mut tasks = JoinSet::new();
        for listener in self.smtp {
            let mail = self.mail.clone();
            tasks.spawn(async move { mail.serve(listener).await });
        }
        let pages = Web::new(tempalias_web::router(self.web_state).merge(self.extra));
        let health = Web::new(tempalias_web::admin_router(readiness));
        self.web.into_iter().for_each(|listener| drop(tasks.spawn(pages.clone().serve(listener))));
        self.health.into_iter().for_each(|listener| drop(tasks.spawn(health.clone().serve(listener))));
        if let Some(admin) = self.admin {
            let aliases = self.aliases;
            tasks.spawn(async move { match admin.serve(aliases).await {} });
        }
        tasks.spawn(sweep(self.store.clone()));
        stop.await;
        draining.send_replace(true);
        tracing::info!(
            sessions = self.mail.sessions(),
            "ending: no new connections; open mails are finished"
        );
        let (finished, ()) = tokio::join!(self.mail.drain(DRAIN_LIMIT), pages.drain(HTTP_DRAIN_LIMIT));
        tasks.shutdown().await;
        // Nothing of this node is in flight any more. The store's lock is free when this returns.
        self.store.close().await;
        if finished {
            tracing::info!("ended");
        } else {
            tracing::warn!("ended although some mails were not finished");
        }
        finished
    }
}

fn outside(config: &Config, own: &[SocketAddr]) -> Result<Outside, SetupError> {
    let dns = Arc::new(Hickory::new(&wiring::dns_settings(config))?);
    let dialer = Dialer::new(wiring::dial_config(config, own), dns, dial::system_seeds());
    Ok(Outside::new(dialer, PoolLimits::default()))
}

/// What `/readyz` looks at, and the switch that makes it say no.
fn readiness(store: &Store) -> (tokio::sync::watch::Sender<bool>, Readiness) {
    let (draining, seen) = tokio::sync::watch::channel(false);
    let store = store.clone();
    let look = move || {
        let (store, draining) = (store.clone(), *seen.borrow());
        let looked = async move {
            let health = store.check().await;
            let fault =
                |part: Result<(), _>| part.err().map(|error: tempalias_store::StoreError| error.to_string());
            vec![
                Part { name: "serving", fault: draining.then(|| "the server is ending".to_owned()) },
                Part { name: "store reading", fault: fault(health.reader) },
                Part { name: "store writing", fault: fault(health.writer) },
            ]
        };
        Box::pin(looked) as std::pin::Pin<Box<dyn Future<Output = Vec<Part>> + Send>>
    };
    (draining, Arc::new(look))
}

async fn sweep(store: Store) {
    let mut timer = tokio::time::interval(SWEEP_EVERY);
    loop {
        timer.tick().await;
        match store.sweep().await {
            Ok(swept) => tracing::debug!(?swept, "swept"),
            Err(error) => tracing::warn!(%error, "the store could not be swept"),
        }
    }
}

/// Addresses in one log field.
struct Addresses<'a>(&'a [tokio::net::TcpListener]);

impl std::fmt::Display for Addresses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = listen::addresses(self.0).iter().map(SocketAddr::to_string).collect();
        f.write_str(&all.join(" "))
    }
}
