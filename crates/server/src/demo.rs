//! `tempalias demo`: the whole service on this machine, in one command.
//!
//! Everything is the real thing, on the production path: store, sessions, claims, pages, API. Only the last hop is
//! replaced: all targets' mail goes by SMTP to a listener of our own, and its page shows what arrived. The store
//! is a temporary folder, gone with the process.

mod inbox;
mod page;
mod sender;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tempalias_address::Mailbox;
use tempalias_alias::Wanted;
use tempalias_service::{Draft, Requester};

use crate::app::{App, StartError};
use crate::config::{self, Config, ConfigError, Environment};

use inbox::Inbox;

/// Uses of the alias that the demo makes at its start: few, so that its end is soon seen.
const USES: u32 = 2;
/// Whom that alias leads to. No mail goes there: the inbox takes it.
const TARGET: &str = "you@real.example";

/// Where the demo listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Pages and API.
    pub http: SocketAddr,
    /// SMTP.
    pub smtp: SocketAddr,
}

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A port is taken.
    #[error(
        "{0}; to choose other ports: tempalias demo --http 127.0.0.1:8081 --smtp 127.0.0.1:2526 (port 0: any)"
    )]
    Listen(crate::app::ListenError),
    /// Anything else that stops a server from starting.
    #[error(transparent)]
    Start(StartError),
    /// The demo's own configuration is not valid; a fault of the program.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No temporary folder, or no port for the inbox.
    #[error("cannot set up the demo: {0}")]
    Io(#[from] std::io::Error),
    /// The first alias could not be made.
    #[error("cannot make the first alias: {0}")]
    Alias(#[from] tempalias_service::CreateError),
}

impl From<StartError> for DemoError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Listen(error) => Self::Listen(error),
            error => Self::Start(error),
        }
    }
}

/// A demo that is ready to run.
#[derive(Debug)]
pub struct Demo {
    app: App,
    first: String,
    smtp: SocketAddr,
    http: SocketAddr,
    folder: tempfile::TempDir,
}

impl Demo {
    /// Binds everything and makes a first alias. Needs a running `tokio`.
    ///
    /// # Errors
    /// [`DemoError`].
    pub async fn start(options: Options) -> Result<Self, DemoError> {
        let folder = tempfile::Builder::new().prefix("tempalias-demo-").tempdir()?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let inbox = Arc::new(Inbox::default());
        let config = configuration(options, listener.local_addr()?, folder.path())?;
        let app = App::start(&config).await?;
        tokio::spawn(inbox.clone().serve(listener));
        let made = app.aliases().create(&first_alias(), Requester::Operator, None).await?;
        let smtp = app.smtp_addresses().first().copied().unwrap_or(options.smtp);
        let http = app.web_addresses().first().copied().unwrap_or(options.http);
        let first = made.address();
        let app = app.with_pages(page::routes(page::Desk { inbox, smtp, http, first: first.clone() }));
        Ok(Self { app, first, smtp, http, folder })
    }

    /// What a newcomer reads in the terminal.
    pub fn welcome(&self) -> String {
        let Self { first, smtp, http, .. } = self;
        format!(
            "tempalias demo. Everything runs on this machine; nothing is kept when it ends (Ctrl-C).

  Make an alias       http://{http}/
  See what arrives    http://{http}/inbox      (send test messages from there, too)

  A first alias is made already: {first}
  It passes {USES} messages on to {TARGET}; the next one is refused. Paste, three times:

    printf 'From: me@shop.example\\nTo: {first}\\nSubject: Hello\\n\\nIt works.\\n' |
      curl -sS smtp://{smtp} --mail-from me@shop.example --mail-rcpt {first} --upload-file - --crlf

  Make another one from the command line (the call of 2010, unchanged):

    curl --no-keepalive -H \"Content-Type: application/json\" \\
         --data-binary '{{\"target\":\"{TARGET}\",\"days\": 3,\"max-usage\": 5}}' \\
         -qsS http://{http}/aliases
"
        )
    }

    /// Where pages and API are.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: impl Future<Output = ()>) -> bool {
        let finished = self.app.run(stop).await;
        drop(self.folder);
        finished
    }
}

fn first_alias() -> Draft {
    Draft {
        target: TARGET.parse::<Mailbox>().ok(),
        wanted: Wanted { max_usage: std::num::NonZeroU32::new(USES), ..Wanted::default() },
        ..Draft::default()
    }
}

/// A real configuration, read as any other: the demo shows nothing that `serve` does not do.
fn configuration(options: Options, inbox: SocketAddr, folder: &Path) -> Result<Config, ConfigError> {
    let Options { http, smtp } = options;
    let folder = folder.display();
    let text = format!(
        "domains = [\"alias.example\"]
hostname = \"mx.alias.example\"
admin = \"operator@real.example\"
[smtp]
listen = [\"{smtp}\"]
[http]
listen = [\"{http}\"]
public_url = \"http://{http}\"
[admin_http]
listen = [\"127.0.0.1:0\"]
[admin_socket]
path = \"{folder}/admin.sock\"
[delivery]
smarthost = \"{inbox}\"
[dns]
servers = [\"127.0.0.1:53\"]
[store]
url = \"sqlite:{folder}/aliases.db\"
key_files = [\"{folder}/server.key\"]
[limits]
create_burst = 100
[log]
level = \"warn\"
"
    );
    Ok(config::parse(&text, Path::new("(the demo's configuration)"), &Environment::default())?.config)
}
