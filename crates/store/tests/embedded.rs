//! What only the embedded store promises: its files, its lock, its commits, its faults.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail loudly")]

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tempalias_address::ReversePath;
use tempalias_alias::{
    AliasId, Answer, Attempt, ClaimRequest, ClientNetwork, Fingerprint, KeyId, Limits, ManageSecret,
    MessageHasher, Outcome, Private, Purpose, Rate, RowKey, Sealed, SenderTag, ServerKey, UnixTime,
};
use tempalias_store::{
    CALL_TIMEOUT, Change, Created, Embedded, Idempotent, NewRow, Once, OpenError, Options, Settlement, Stats,
    Store, StoreError,
};

const KEY: KeyId = KeyId([0xab, 1, 2, 3]);
const ROW: RowKey = RowKey([1; 16]);
const UNCOUNTED: RowKey = RowKey([2; 16]);

fn options(path: &Path, keys: &[KeyId]) -> Options {
    Options { path: path.to_owned(), boot: 1, clock: tempalias_store::system_clock(), keys: keys.to_vec() }
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("aliases.db");
    (folder, path)
}

fn open(path: &Path) -> Store {
    Store::open(options(path, &[KEY])).unwrap()
}

fn stats(store: &Store) -> Stats {
    let Store::Embedded(embedded) = store else { panic!("the embedded one") };
    embedded.stats()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn new_row(store: &Store, key: RowKey, max_usage: u32) -> NewRow {
    let valid_until = Some(store.now().plus(Duration::from_hours(24)));
    let limits = Limits { valid_from: None, valid_until, max_usage: NonZeroU32::new(max_usage) };
    NewRow { key, key_id: KEY, limits, sealed: Sealed(vec![7; 64].into()) }
}

async fn make(store: &Store, key: RowKey, max_usage: u32) {
    assert_eq!(store.create(new_row(store, key, max_usage), &[], None).await, Ok(Created::Done));
}

fn request(store: &Store, row: RowKey, message: u8) -> ClaimRequest {
    ClaimRequest {
        row,
        fingerprint: Fingerprint([message; 16]),
        identified: true,
        sender: SenderTag([0; 8]),
        attempt: Attempt { owner: store.owner(), number: message.into() },
        // Not said, as for an alias that got its limit after RCPT: the reader is asked first.
        was_counted: false,
    }
}

async fn claim(store: &Store, row: RowKey, message: u8) -> Result<Answer, StoreError> {
    Ok(store.claim(vec![request(store, row, message)]).await?[0].answer)
}

/// Somebody's `sqlite3` holds the write lock until this is dropped.
fn hold_the_write_lock(path: &Path) -> Connection {
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

#[tokio::test]
async fn a_claim_that_was_answered_is_in_the_file() {
    let (folder, path) = folder();
    let store = open(&path);
    make(&store, ROW, 1).await;
    assert_eq!(claim(&store, ROW, 1).await, Ok(Answer::Granted));
    // What a power cut would leave: the files as they are now, while the store runs on.
    let copy = folder.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
    let after = Store::open(Options { boot: 2, ..options(&copy, &[KEY]) }).unwrap();
    let ledger = after.find(&[ROW]).await.unwrap().unwrap().ledger;
    assert_eq!((ledger.used, ledger.kept.len()), (1, 1));
    assert_eq!(claim(&after, ROW, 2).await, Ok(Answer::Busy));
    assert_eq!(claim(&after, ROW, 1).await, Ok(Answer::Again));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_a_commit() {
    let (_folder, path) = folder();
    let store = open(&path);
    make(&store, ROW, 64).await;
    let before = stats(&store);
    let lock = hold_the_write_lock(&path);
    let claims: Vec<_> = (0..64)
        .map(|message| {
            let store = store.clone();
            tokio::spawn(async move { claim(&store, ROW, message).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(lock);
    for claim in claims {
        assert_eq!(claim.await.unwrap(), Ok(Answer::Granted));
    }
    let after = stats(&store);
    assert_eq!(after.calls - before.calls, 64);
    assert!(after.commits - before.commits <= 3, "{before:?} {after:?}");
}

#[tokio::test]
async fn answers_that_change_nothing_write_nothing() {
    let (_folder, path) = folder();
    let store = open(&path);
    make(&store, ROW, 2).await;
    make(&store, UNCOUNTED, 0).await;
    assert_eq!(claim(&store, ROW, 1).await, Ok(Answer::Granted));
    assert_eq!(claim(&store, ROW, 2).await, Ok(Answer::Granted));
    let settlement =
        Settlement { row: ROW, attempt: request(&store, ROW, 1).attempt, outcome: Outcome::Delivered };
    store.settle(vec![settlement]).await.unwrap();
    let rate = Rate { burst: 1, every: Duration::from_mins(1) };
    let tag = tempalias_alias::ClientTag([1; 16]);
    store.take(tag, rate).await.unwrap().unwrap();
    let before = stats(&store);
    let mut again = request(&store, ROW, 1);
    again.attempt.number = 50;
    assert_eq!(store.claim(vec![again]).await.unwrap()[0].answer, Answer::Already);
    for (row, answer) in
        [(ROW, Answer::Busy), (RowKey([9; 16]), Answer::Over), (UNCOUNTED, Answer::Uncounted)]
    {
        assert_eq!(claim(&store, row, 3).await, Ok(answer));
    }
    assert_eq!(claim(&store, ROW, 2).await, Ok(Answer::Granted), "the same attempt");
    assert!(store.take(tag, rate).await.unwrap().is_err());
    store.settle(vec![settlement]).await.unwrap();
    store.acknowledge(vec![(ROW, request(&store, ROW, 1).fingerprint)]).await.unwrap();
    let _ = store.find(&[UNCOUNTED]).await.unwrap();
    let _ = store.list(None, 10).await.unwrap();
    assert_eq!(stats(&store).commits, before.commits);
}

#[tokio::test]
async fn nobody_is_told_to_retry_because_of_a_settling_that_is_under_way() {
    let (_folder, path) = folder();
    let store = open(&path);
    make(&store, ROW, 1).await;
    assert_eq!(claim(&store, ROW, 1).await, Ok(Answer::Granted));
    assert_eq!(claim(&store, ROW, 2).await, Ok(Answer::Busy));
    let settlement =
        Settlement { row: ROW, attempt: request(&store, ROW, 1).attempt, outcome: Outcome::Delivered };
    // The first of the three is handed over first; the others look while it waits to be committed.
    let lock = hold_the_write_lock(&path);
    let store = &store;
    let unlock = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(lock);
    };
    let (settled, found, claimed, ()) =
        tokio::join!(store.settle(vec![settlement]), store.find(&[ROW]), claim(store, ROW, 2), unlock);
    settled.unwrap();
    let found = found.unwrap().unwrap();
    assert_eq!(found.ledger.admit(found.now), tempalias_alias::Admission::Over);
    assert_eq!(claimed, Ok(Answer::Over));
}

#[tokio::test]
async fn an_acknowledged_claim_is_expected_no_more_even_before_it_is_written() {
    let (_folder, path) = folder();
    let store = open(&path);
    make(&store, ROW, 1).await;
    assert_eq!(claim(&store, ROW, 1).await, Ok(Answer::Granted));
    let attempt = request(&store, ROW, 1).attempt;
    store.settle(vec![Settlement { row: ROW, attempt, outcome: Outcome::Delivered }]).await.unwrap();
    assert_eq!(store.find(&[ROW]).await.unwrap().unwrap().ledger.kept.len(), 1);
    store.acknowledge(vec![(ROW, request(&store, ROW, 1).fingerprint)]).await.unwrap();
    assert!(store.find(&[ROW]).await.unwrap().unwrap().ledger.kept.is_empty());
}

#[tokio::test]
async fn a_writer_that_must_wait_holds_up_no_reader_and_recovers() {
    let (_folder, path) = folder();
    let store = open(&path);
    make(&store, ROW, 5).await;
    make(&store, UNCOUNTED, 0).await;
    let lock = hold_the_write_lock(&path);
    let (held_up, reads) = tokio::join!(claim(&store, ROW, 1), async {
        let begin = Instant::now();
        assert!(store.find(&[ROW]).await.unwrap().is_some());
        assert_eq!(claim(&store, UNCOUNTED, 1).await, Ok(Answer::Uncounted));
        begin.elapsed()
    });
    assert!(reads < Duration::from_millis(500), "{reads:?}");
    assert!(matches!(held_up, Err(StoreError::Away(_))), "{held_up:?}");
    let health = store.check().await;
    assert!(health.reader.is_ok() && health.writer.is_err(), "{health}");
    assert!(health.to_string().starts_with("writing: "), "{health}");
    // Calls that arrive while the writer waits have their turn later, and their bound all the same.
    let begin = Instant::now();
    let late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let begin = Instant::now();
        (claim(&store, ROW, 3).await, begin.elapsed())
    };
    let (early, (late, waited)) = tokio::join!(claim(&store, ROW, 2), late);
    assert!(early.is_err() && late.is_err());
    assert!(waited < CALL_TIMEOUT + Duration::from_millis(300), "{waited:?}");
    assert!(begin.elapsed() < Duration::from_secs(4));
    drop(lock);
    assert_eq!(claim(&store, ROW, 1).await, Ok(Answer::Granted));
    assert!(store.check().await.is_ready());
    assert_eq!(store.find(&[ROW]).await.unwrap().unwrap().ledger.used, 1, "no failed claim was granted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_happens_though_its_caller_has_gone_and_a_claim_does_not() {
    let (_folder, path) = folder();
    let store = open(&path);
    make(&store, ROW, 5).await;
    assert_eq!(claim(&store, ROW, 1).await, Ok(Answer::Granted));
    let lock = hold_the_write_lock(&path);
    // The first call keeps the writer waiting for the lock, so that the others are still in the queue.
    let busy = tokio::spawn({
        let store = store.clone();
        async move { store.change(ROW, Change::Resume).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let gone = tokio::spawn({
        let store = store.clone();
        async move {
            let outcome = Outcome::Refused;
            let settlement = Settlement { row: ROW, attempt: request(&store, ROW, 1).attempt, outcome };
            let _ = tokio::join!(store.settle(vec![settlement]), claim(&store, ROW, 2));
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    drop(lock);
    assert!(busy.await.unwrap().is_ok());
    store.change(ROW, Change::Resume).await.unwrap();
    let ledger = store.find(&[ROW]).await.unwrap().unwrap().ledger;
    assert_eq!((ledger.used, ledger.kept.len()), (0, 0));
}

#[tokio::test]
async fn only_one_daemon_has_the_store() {
    let (folder, path) = folder();
    let store = open(&path);
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let error = Embedded::open(options(name, &[KEY])).unwrap_err();
        assert!(matches!(error, OpenError::InUse { holder: Some(pid), .. } if pid == std::process::id()));
        assert!(error.to_string().contains("already in use by process"), "{error}");
    }
    let clone = store.clone();
    drop(store);
    assert!(Embedded::open(options(&path, &[KEY])).is_err(), "a clone is the same store");
    drop(clone);
    assert!(!beside(&path, "-wal").exists(), "a clean end leaves no log");
    drop(open(&path));
}

#[tokio::test]
async fn a_missing_server_key_is_named() {
    let (_folder, path) = folder();
    let other = KeyId([5, 6, 7, 8]);
    drop(Store::open(options(&path, &[other])).unwrap());
    let store = open(&path);
    make(&store, ROW, 1).await;
    make(&store, UNCOUNTED, 1).await;
    drop(store);
    let error = Store::open(options(&path, &[other])).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenError::MissingKey { missing: KEY, rows: 2, .. }), "{error:?}");
    assert!(text.contains("ab010203") && text.contains("05060708") && text.contains("key_files"), "{text}");
    drop(Store::open(options(&path, &[other, KEY])).unwrap());

    // With the last row of a key the key may go.
    let later = Options {
        clock: std::sync::Arc::new(|| UnixTime::from_secs(9_000_000_000)),
        ..options(&path, &[KEY])
    };
    let store = Store::open(later).unwrap();
    assert_eq!(store.sweep().await.unwrap().rows, 2);
    drop(store);
    drop(Store::open(options(&path, &[other])).unwrap());
}

#[test]
fn what_is_not_our_store_is_refused_and_left_alone() {
    let (folder, path) = folder();
    let absent = folder.path().join("absent/aliases.db");
    let error = Store::open(options(&absent, &[])).unwrap_err();
    assert!(matches!(&error, OpenError::Folder { .. }), "{error:?}");
    assert!(error.to_string().contains("absent"), "{error}");

    fs::write(&path, "Dear diary, this is no database at all, and it has a long first line. ".repeat(9))
        .unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(Store::open(options(&path, &[])), Err(OpenError::Foreign { .. })));
    assert_eq!(fs::read(&path).unwrap(), before);

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    let before = fs::read(&foreign).unwrap();
    assert!(matches!(Store::open(options(&foreign, &[])), Err(OpenError::Foreign { .. })));
    assert_eq!(fs::read(&foreign).unwrap(), before);

    let newer = folder.path().join("newer.db");
    drop(open(&newer));
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(options(&newer, &[])).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error:?}");
    assert!(error.to_string().contains("newer version"), "{error}");
}

#[tokio::test]
async fn the_files_are_ours_alone() {
    let (_folder, path) = folder();
    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let store = open(&path);
    make(&store, ROW, 1).await;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let mode = fs::metadata(beside(&path, suffix)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{suffix}");
    }
}

#[tokio::test]
async fn a_file_that_was_moved_away_makes_the_store_unready() {
    let (_folder, path) = folder();
    let store = open(&path);
    make(&store, ROW, 1).await;
    let away = beside(&path, ".away");
    fs::rename(&path, &away).unwrap();
    let health = store.check().await;
    assert!(health.reader.is_err() && health.writer.is_err(), "{health}");
    assert!(health.to_string().contains("aliases.db is gone"), "{health}");
    assert!(claim(&store, ROW, 1).await.is_err());
    fs::write(&path, "").unwrap();
    assert!(store.check().await.to_string().contains("replaced"));
    fs::rename(&away, &path).unwrap();
    assert!(store.check().await.is_ready());
    assert_eq!(claim(&store, ROW, 1).await, Ok(Answer::Granted));
}

/// Everything that lies in the folder, in one piece.
fn all_bytes(folder: &Path) -> Vec<u8> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.flat_map(|file| fs::read(file).unwrap()).collect()
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn removing_and_sweeping_leave_nothing_sealed_behind() {
    let (folder, path) = folder();
    let store = open(&path);
    let sealed = Sealed(b"a text that is easily found again, sealed".as_slice().into());
    let row = NewRow { sealed: sealed.clone(), ..new_row(&store, ROW, 1) };
    assert_eq!(store.create(row, &[], None).await, Ok(Created::Done));
    make(&store, UNCOUNTED, 1).await;
    assert!(holds(&all_bytes(folder.path()), &sealed.0));
    store.change(ROW, Change::Remove).await.unwrap();
    store.sweep().await.unwrap();
    assert!(!holds(&all_bytes(folder.path()), &sealed.0));
    assert!(holds(&all_bytes(folder.path()), &[7; 64]), "the other row stands");
}

/// What a thief would look for.
const NAMES: [&str; 10] = [
    "mycuriousalias",
    "mymanagesecret",
    "veryhidden",
    "target.example",
    "ourdomain",
    "203.0.113.77",
    "my-request-name",
    "private subject",
    "friend",
    "sender.example",
];

#[tokio::test]
async fn the_files_name_nobody() {
    let (folder, path) = folder();
    let server_key = ServerKey::new([42; 32]);
    let store = Store::open(options(&path, &[server_key.id()])).unwrap();
    let id: AliasId = NAMES[0].parse().unwrap();
    let key = server_key.row_key(&id);
    call_everything(&store, &server_key, &id).await;
    let look = || {
        let bytes = all_bytes(folder.path());
        assert!(bytes.len() > 4096);
        for name in NAMES {
            assert!(!holds(&bytes, name.as_bytes()), "{name}");
        }
        let address = [203, 0, 113, 77];
        assert!(!holds(&bytes, &address) && !holds(&bytes, &[42; 32]));
    };
    look();
    store.change(key, Change::Remove).await.unwrap();
    store.sweep().await.unwrap();
    look();
    drop(store);
    look();
}

async fn call_everything(store: &Store, server_key: &ServerKey, id: &AliasId) {
    let secret: ManageSecret = "mymanagesecret".parse().unwrap();
    let private = Private {
        target: "veryhidden@target.example".parse().unwrap(),
        domain: "ourdomain.example".parse().unwrap(),
        manage: server_key.manage_hash(id, &secret),
    };
    let key = server_key.row_key(id);
    let tag = server_key.client_tag("create", ClientNetwork::of("203.0.113.77".parse().unwrap()));
    let name = b"my-request-name";
    let address = b"mycuriousalias@ourdomain.example";
    let reply = server_key.seal_bytes(Purpose::IdempotentReply, name, address, [2; 12]);
    let reply = Idempotent { body: tag, reply };
    let once = Once { name: server_key.name_tag("idempotency", name), reply };
    let sealed = server_key.seal(id, &private, [1; 12]);
    let row = NewRow { key, key_id: server_key.id(), sealed, ..new_row(store, key, 3) };
    assert_eq!(store.create(row, &[], Some(once)).await, Ok(Created::Done));
    store.take(tag, Rate { burst: 5, every: Duration::from_secs(30) }).await.unwrap().unwrap();
    let mut hasher = MessageHasher::new();
    hasher.field(b"Subject", b"a private subject");
    let sender = ReversePath::Mailbox("friend@sender.example".parse().unwrap());
    let request = ClaimRequest {
        fingerprint: server_key.fingerprint(id, &hasher.finish()),
        sender: server_key.sender_tag(id, &sender),
        ..request(store, key, 1)
    };
    assert_eq!(store.claim(vec![request]).await.unwrap()[0].answer, Answer::Granted);
    let settlement = Settlement { row: key, attempt: request.attempt, outcome: Outcome::Lost };
    store.settle(vec![settlement]).await.unwrap();
    store.change(key, Change::Pause).await.unwrap();
    store.change(key, Change::Resume).await.unwrap();
    assert!(store.check().await.is_ready());
    let opened = store.find(&[key]).await.unwrap().unwrap().sealed;
    assert_eq!(server_key.open(id, &opened), Ok(private));
}
