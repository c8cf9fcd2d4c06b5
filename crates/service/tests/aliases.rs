//! What the front doors rely on, where no front door is needed to see it.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempalias_alias::{AliasId, Caps, ClientNetwork, Keys, Rate, ServerKey, UnixTime, Wanted};
use tempalias_service::{
    AccessError, Aliases, Changes, CreateError, Draft, IdempotencyKey, Made, Once, Policy, Proof, Requester,
};
use tempalias_store::{Options, Store};

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];
const NOW: UnixTime = UnixTime::from_secs(1_795_348_800);

fn open(folder: &Path, secrets: &[[u8; 32]]) -> Aliases {
    open_with(folder, secrets, |bytes| getrandom::fill(bytes).unwrap())
}

fn open_with(
    folder: &Path,
    secrets: &[[u8; 32]],
    random: impl Fn(&mut [u8]) + Send + Sync + 'static,
) -> Aliases {
    let mut all = secrets.iter().map(|secret| ServerKey::new(*secret));
    let keys = Keys::new(all.next().unwrap(), all.collect());
    let store = Store::open(Options {
        path: folder.join("aliases.db"),
        boot: 1,
        clock: Arc::new(|| NOW),
        keys: keys.all().map(ServerKey::id).collect(),
    });
    let policy = Policy {
        default_domain: "alias.example".parse().unwrap(),
        more_domains: Vec::new(),
        caps: Caps { max_days: 60, max_usage: 100 },
        allow_domains: Vec::new(),
        public_url: "https://alias.example".parse().unwrap(),
        create_rate: Rate { burst: 1, every: Duration::from_secs(30) },
    };
    Aliases::new(store.unwrap(), Arc::new(keys), policy, Arc::new(random))
}

fn draft() -> Draft {
    let wanted = Wanted { days: NonZeroU32::new(3), max_usage: NonZeroU32::new(5), ..Wanted::default() };
    Draft { target: Some("t@example.com".parse().unwrap()), wanted, ..Draft::default() }
}

async fn make(aliases: &Aliases) -> Made {
    aliases.create(&draft(), Requester::Operator, None).await.unwrap()
}

#[tokio::test]
async fn an_alias_of_an_older_key_is_found_opened_and_changed() {
    let folder = tempfile::tempdir().unwrap();
    let before = open(folder.path(), &[OLD]);
    let made = make(&before).await;
    drop(before);
    let after = open(folder.path(), &[NEW, OLD]);
    let view = after.look(&made.id, Proof::Owner(&made.secret)).await.unwrap();
    assert_eq!(view.target, Some(made.target.clone()));
    let mac = ServerKey::new(OLD).mail_mac(&made.id, made.limits.valid_until);
    assert!(after.look(&made.id, Proof::Mail(mac.as_str())).await.unwrap().target.is_none());
    let changes = Changes { paused: Some(true), ..Changes::default() };
    assert!(after.change(&made.id, Proof::Owner(&made.secret), &changes).await.unwrap().paused);
    after.remove(&made.id, Proof::Owner(&made.secret)).await.unwrap();
    let gone = after.look(&made.id, Proof::Operator).await;
    assert!(matches!(gone, Err(AccessError::NotFound)));
}

#[tokio::test]
async fn a_name_that_an_older_key_gave_away_is_not_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let before = open_with(folder.path(), &[OLD], |bytes| bytes.fill(7));
    let made = make(&before).await;
    assert_eq!(made.id, AliasId::random([7; 8]));
    drop(before);
    let after = open_with(folder.path(), &[NEW, OLD], |bytes| bytes.fill(7));
    let again = after.create(&draft(), Requester::Operator, None).await;
    assert_eq!(again.unwrap_err(), CreateError::NoFreeName);
}

#[tokio::test]
async fn a_request_repeated_after_its_key_was_rotated_makes_no_second_alias() {
    let folder = tempfile::tempdir().unwrap();
    let key: IdempotencyKey = "0123456789abcdef".parse().unwrap();
    let once = Some(Once { key: &key, body: b"{}" });
    let before = open(folder.path(), &[OLD]);
    let made = before.create(&draft(), Requester::Operator, once).await.unwrap();
    drop(before);
    let after = open(folder.path(), &[NEW, OLD]);
    let again = after.create(&draft(), Requester::Operator, once).await.unwrap();
    assert_eq!((again.id, again.secret.reveal()), (made.id, made.secret.reveal()));
    assert_eq!(after.list(None, 10).await.unwrap().len(), 1);
    let other = Some(Once { key: &key, body: b"{ }" });
    assert_eq!(after.create(&draft(), Requester::Operator, other).await.unwrap_err(), CreateError::KeyReused);
}

#[tokio::test]
async fn clients_are_counted_and_operators_and_repetitions_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let aliases = open(folder.path(), &[OLD]);
    let client = Requester::Client(ClientNetwork::of([192, 0, 2, 1].into()));
    let key: IdempotencyKey = "0123456789abcdef".parse().unwrap();
    let once = Some(Once { key: &key, body: b"{}" });
    aliases.create(&draft(), client, once).await.unwrap();
    aliases.create(&draft(), client, once).await.unwrap();
    let refused = aliases.create(&draft(), client, None).await;
    assert_eq!(refused.unwrap_err(), CreateError::RateLimited(Duration::from_secs(30)));
    make(&aliases).await;
}

#[tokio::test]
async fn an_extension_voids_the_links_of_older_mails() {
    let folder = tempfile::tempdir().unwrap();
    let aliases = open(folder.path(), &[OLD]);
    let made = make(&aliases).await;
    let mac = ServerKey::new(OLD).mail_mac(&made.id, made.limits.valid_until);
    let changes = Changes { days: NonZeroU32::new(9), ..Changes::default() };
    aliases.change(&made.id, Proof::Owner(&made.secret), &changes).await.unwrap();
    let stale = aliases.look(&made.id, Proof::Mail(mac.as_str())).await;
    assert!(matches!(stale, Err(AccessError::NotFound)));
}

#[tokio::test]
async fn nothing_that_is_printed_for_a_log_names_anyone() {
    let folder = tempfile::tempdir().unwrap();
    let aliases = open(folder.path(), &[OLD]);
    let made = make(&aliases).await;
    let view = aliases.look(&made.id, Proof::Operator).await.unwrap();
    let key: IdempotencyKey = "0123456789abcdef".parse().unwrap();
    let shown =
        format!("{aliases:?} {made:?} {view:?} {:?} {key:?} {:?}", draft(), Proof::Owner(&made.secret));
    for secret in ["t@", "example.com", made.id.as_str(), made.secret.reveal(), "0123456789abcdef"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
