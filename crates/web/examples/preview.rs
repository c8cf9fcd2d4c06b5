//! The pages on loopback, over a store in a temporary folder: `cargo run -p tempalias-web --example preview`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tempalias_alias::{
    Attempt, Caps, ClaimRequest, Fingerprint, Keys, Owner, Rate, SenderTag, ServerKey, Wanted,
};
use tempalias_service::{Aliases, Draft, Policy, Requester};
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
    let aliases = Aliases::new(store.clone(), Arc::new(keys), policy, random);
    held_alias(&aliases, &store).await?;
    let state = tempalias_web::WebState::new(aliases, Vec::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8099").await?;
    println!("http://127.0.0.1:8099/");
    let service = tempalias_web::router(state).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}

/// An alias with one use that a delivery left in doubt, seen by its owner and from its mail.
async fn held_alias(aliases: &Aliases, store: &Store) -> Result<(), Box<dyn std::error::Error>> {
    let wanted = Wanted { max_usage: std::num::NonZeroU32::new(1), ..Wanted::default() };
    let target = Some("a.rather.long.local.part.of.jane.doe@mailbox.department.university.example".parse()?);
    let draft = Draft { target, wanted, ..Draft::default() };
    let made = aliases.create(&draft, Requester::Operator, None).await?;
    let key = ServerKey::new([1; 32]);
    let request = ClaimRequest {
        row: key.row_key(&made.id),
        fingerprint: Fingerprint([1; 16]),
        was_counted: true,
        identified: true,
        sender: SenderTag([1; 8]),
        attempt: Attempt { owner: Owner { node: 9, boot: 9 }, number: 1 },
    };
    store.claim(vec![request]).await?;
    println!("{}", aliases.policy().manage_url(&made.id, &made.secret));
    let mac = key.mail_mac(&made.id, made.limits.valid_until);
    println!("{}", aliases.policy().mail_url(&made.id, &mac));
    Ok(())
}
