//! The pages on loopback, over a store in a temporary folder: `cargo run -p tempalias-web --example preview`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tempalias_alias::{Caps, Keys, Rate, ServerKey};
use tempalias_service::{Aliases, Policy};
use tempalias_store::{Options, Store, system_clock};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let keys = Keys::new(ServerKey::new([1; 32]), Vec::new());
    let store = Store::open(Options {
        path: folder.path().join("aliases.db"),
        boot: 1,
        clock: system_clock(),
        keys: keys.all().map(ServerKey::id).collect(),
    })?;
    let policy = Policy {
        default_domain: "alias.example".parse()?,
        more_domains: vec!["bücher.example".parse()?],
        caps: Caps { max_days: 60, max_usage: 100 },
        allow_domains: Vec::new(),
        public_url: "http://127.0.0.1:8099".parse()?,
        create_rate: Rate { burst: 50, every: Duration::from_secs(1) },
    };
    let random = Arc::new(|bytes: &mut [u8]| getrandom::fill(bytes).expect("the system has randomness"));
    let state = tempalias_web::WebState::new(Aliases::new(store, Arc::new(keys), policy, random), Vec::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8099").await?;
    println!("http://127.0.0.1:8099/");
    let service = tempalias_web::router(state).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}
