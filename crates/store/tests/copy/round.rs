//! Nothing is lost or changed on any way.

use tempalias_alias::{Answer, KeyId};
use tempalias_store::copy::Place;
use tempalias_store::{RedisOptions, Store};

use crate::fixture::{
    SECOND_KEY, Time, end, file, fill, key, path, redis, request, see, see_all, serve, try_copy, try_serve,
};
use crate::redis_cluster::Cluster;
use crate::servers::Server;

/// Every kind of store into every kind, one after another; the last must show what the first did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_every_kind_of_store_into_every_kind() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let (server, cluster) = (Server::start(&[]), Cluster::start(3, 0));
    let single = server.address();
    let several = cluster.address();
    let places = [
        file(&folder, &time),
        file(&folder, &time),
        redis(&single, &time),
        redis(&single, &time),
        redis(&several, &time),
        redis(&several, &time),
        file(&folder, &time),
        redis(&several, &time),
        redis(&single, &time),
        file(&folder, &time),
    ];
    let first = serve(&places[0]).await;
    let counts = fill(&first, &time).await;
    let wanted = see(&first).await;
    end(first).await;
    for pair in places.windows(2) {
        let copied = try_copy(&pair[0], &pair[1]).await.unwrap();
        assert_eq!(copied, counts, "{pair:?}");
        let store = serve(&pair[1]).await;
        see(&store).await.assert_is(&wanted);
        end(store).await;
    }
    // All at once could only be seen by taking: the first and the last are left as they were until here.
    let (first, last) = (serve(&places[0]).await, serve(&places[9]).await);
    see_all(&last).await.assert_is(&see_all(&first).await);
    assert!(wanted.numbers().starts_with(&[0, 2, 3]) && !wanted.numbers().contains(&1), "{wanted:?}");
}

/// What was in flight when the servers ended is in doubt, what was delivered is known, what is free is free.
async fn goes_on(store: &Store) {
    let answers = async |row, message| {
        let claim = request(store, key(row), message, 1000 + u64::from(row) * 10 + u64::from(message));
        store.claim(vec![claim]).await.unwrap()[0].answer
    };
    assert_eq!(answers(8, 1).await, Answer::Again, "was in flight");
    assert_eq!(answers(8, 3).await, Answer::Already, "was delivered");
    assert_eq!(answers(8, 9).await, Answer::Granted, "the fourth use is free");
    assert_eq!(answers(8, 10).await, Answer::Busy, "all others are held");
    assert_eq!(answers(7, 1).await, Answer::Over, "paused");
    assert_eq!(answers(10, 1).await, Answer::Already, "removed, and this message is known");
    assert_eq!(answers(4, 1).await, Answer::Uncounted, "without any limit");
    assert_eq!(answers(0xff, 1).await, Answer::Granted);
    assert_eq!(answers(2, 1).await, Answer::Over, "has ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_lives_as_the_first_would_have() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let (from, between, to) = (file(&folder, &time), redis(&server.address(), &time), file(&folder, &time));
    let store = serve(&from).await;
    fill(&store, &time).await;
    end(store).await;
    try_copy(&from, &between).await.unwrap();
    try_copy(&between, &to).await.unwrap();
    let Place::Redis(options) = &between else { panic!("a Redis") };
    for (key, ends) in [("row:0a", false), ("claims:0a", true), ("row:08", false), ("claims:08", true)] {
        let (kind, number) = key.split_once(':').unwrap();
        let bucket = if number == "0a" { "b028" } else { "b020" };
        let key = format!("{}:{{{bucket}}}:{kind}:{}", options.namespace, number.repeat(16));
        let at: i64 = server.cli(&["PEXPIRETIME", &key]).parse().unwrap();
        assert_eq!(at > 0, ends, "{key}: {at}");
        assert_ne!(at, -2, "{key} is there");
    }
    let once = format!("{}:{{once:{}}}", options.namespace, "05".repeat(16));
    let (until, at) = (server.cli(&["HGET", &once, "until"]), server.cli(&["PEXPIRETIME", &once]));
    assert!(until == at && at.parse::<i64>().unwrap() > 0, "a kept reply ends by itself: {until} {at}");
    for place in [&between, &to, &from] {
        let store = serve(place).await;
        goes_on(&store).await;
        end(store).await;
    }
    // Rows go when they would have gone.
    time.pass(6 * crate::fixture::DAY);
    let mut left = Vec::new();
    for place in [&from, &between, &to] {
        let store = serve(place).await;
        store.sweep().await.unwrap();
        left.push(see(&store).await.numbers());
        end(store).await;
    }
    assert_eq!(left[0], [0, 3, 4, 5, 6, 7, 8, 9, 0xff], "the removed one and the one long over are gone");
    assert!(left[0] == left[1] && left[0] == left[2], "{left:?}");
}

/// A server key that copied rows need must be there when the copy is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keys_that_rows_need_are_known_to_the_copy() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let (from, between, to) = (file(&folder, &time), redis(&server.address(), &time), file(&folder, &time));
    let store = serve(&from).await;
    fill(&store, &time).await;
    end(store).await;
    try_copy(&from, &between).await.unwrap();
    try_copy(&between, &to).await.unwrap();
    for place in [between, to] {
        let keys = vec![KeyId([9; 4]), SECOND_KEY];
        let place = match place {
            Place::Embedded(options) => Place::Embedded(tempalias_store::Options { keys, ..options }),
            Place::Redis(options) => Place::Redis(RedisOptions { keys, ..options }),
        };
        let error = try_serve(&place).await.unwrap_err().to_string();
        assert!(error.contains("01020304"), "{error}");
    }
}

/// A finished copy is a file like any other, which older versions read, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finished_file_shows_nothing_of_the_copy() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let (from, to) = (file(&folder, &time), file(&folder, &time));
    let store = serve(&from).await;
    fill(&store, &time).await;
    end(store).await;
    try_copy(&from, &to).await.unwrap();
    let layout = |place| {
        let file = rusqlite::Connection::open(path(place)).unwrap();
        let format: u32 = file.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        let mut tables = file.prepare("SELECT sql FROM sqlite_schema ORDER BY 1").unwrap();
        let tables: Vec<Option<String>> =
            tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let mut keys = file.prepare("SELECT id, row_count FROM server_key ORDER BY 1").unwrap();
        let keys: Vec<(Vec<u8>, i64)> =
            keys.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
        (format, tables, keys.len(), keys.iter().map(|(_, count)| count).sum::<i64>())
    };
    let ((format, tables, keys, rows), copy) = (layout(&from), layout(&to));
    assert_eq!(copy, (format, tables, keys, rows - 1), "all but the row that was over");
    assert_eq!(format, 2);
}

/// A node died while it answered a request with an Idempotency-Key. If the row stands, so does the reply; if it does
/// not, nobody was told of it, and the request makes it anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_whose_row_was_being_made_goes_by_the_row() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let from = redis(&server.address(), &time);
    let Place::Redis(options) = &from else { panic!("a Redis") };
    let store = serve(&from).await;
    fill(&store, &time).await;
    end(store).await;
    let once = format!("{}:{{once:{}}}", options.namespace, "05".repeat(16));
    let five = "\u{5}".repeat(16);
    assert_eq!(server.cli(&["HSET", &once, "row", &five]), "1");
    assert_eq!(try_copy(&from, &file(&folder, &time)).await.unwrap().replies, 2, "its row stands");
    let row = format!("{}:{{b014}}:row:{}", options.namespace, "05".repeat(16));
    assert_eq!(server.cli(&["HSET", &row, "o", "another request"]), "0");
    assert_eq!(try_copy(&from, &file(&folder, &time)).await.unwrap().replies, 1, "its row is another's");
}
