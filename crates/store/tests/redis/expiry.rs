//! What ends is deleted by the server itself; a row has no end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempalias_alias::{Outcome, RETENTION, Rate, RowKey, Sealed};
use tempalias_store::{Change, Created, IDEMPOTENCY_RETENTION, Idempotent, Once, RedisOptions};

use crate::fixture::{claim, key_of, make, open, options, row, serving, settle, tag};
use crate::servers::Server;

/// In how long the keys like this go, in milliseconds; -1: never.
fn ends(server: &Server, pattern: &str) -> Vec<i64> {
    let script = "local t = {} for _, key in ipairs(redis.call('KEYS', ARGV[1])) do t[#t + 1] = redis.call('PTTL', key) end
                  return table.concat(t, ' ')";
    let said = server.cli(&["EVAL", script, "0", pattern]);
    said.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

fn within(server: &Server, pattern: &str, most: Duration) {
    let ends = ends(server, pattern);
    let most = i64::try_from(most.as_millis()).unwrap();
    assert!(!ends.is_empty() && ends.iter().all(|end| (1..=most).contains(end)), "{pattern}: {ends:?}");
}

fn row_key(row: RowKey) -> String {
    format!("*:row:{row}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_ends_has_an_end_and_a_row_has_none() {
    let server = Server::start(&[]);
    let store = open(&server.address()).await;
    let (lives, removed) = (make(&store, 1, 5).await, make(&store, 2, 5).await);
    claim(&store, lives, 1, 1).await;
    settle(&store, lives, 1, Outcome::Delivered).await;
    within(&server, "*:claims:*", RETENTION);
    within(&server, "*:judged:*", Duration::from_mins(1));
    within(&server, "*:lease:*", Duration::from_secs(15));
    assert_eq!(ends(&server, &row_key(lives)), [-1]);

    let rate = Rate { burst: 3, every: Duration::from_secs(30) };
    store.take(tag(1), rate).await.unwrap().unwrap();
    within(&server, "*{rate:*", rate.every);

    let once = Once { name: tag(9), reply: Idempotent { body: tag(8), reply: Sealed(vec![1].into()) } };
    assert_eq!(store.create(row(&store, 3, 1), &[], Some(once)).await, Ok(Created::Done));
    within(&server, "*{once:*", IDEMPOTENCY_RETENTION);

    // A row and its name in the index go in one step, when the sweep takes both.
    store.change(removed, Change::Remove).await.unwrap();
    assert_eq!(ends(&server, &row_key(removed)), [-1]);
    assert_eq!(ends(&server, "*:index"), [-1; 1024]);
    assert_eq!(ends(&server, "*:marker"), [-1; 1024]);
}

/// What is kept of an alias's messages: the ended go when another is written, and the rest stay as long as the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_go_one_by_one_and_their_key_with_the_last() {
    let server = Server::start(&[]);
    let begun = tempalias_store::system_clock()();
    let days = Arc::new(AtomicU64::new(0));
    let passed = days.clone();
    let clock: tempalias_store::Clock =
        Arc::new(move || begun.plus(Duration::from_hours(24 * passed.load(Ordering::Relaxed))));
    let options = RedisOptions { clock: Some(clock), ..options(&server.address(), true) };
    let store = serving(options).await;
    let key = make(&store, 1, 5).await;
    let name = key_of(&format!("claims:{key}"), 1);
    let kept = || server.cli(&["HLEN", &name]);
    let ends = || server.cli(&["PEXPIRETIME", &name]).parse::<u64>().unwrap();
    let until = |day: u64| begun.plus(Duration::from_hours(24 * day) + RETENTION).millis();
    claim(&store, key, 1, 1).await;
    days.store(4, Ordering::Relaxed);
    claim(&store, key, 2, 2).await;
    settle(&store, key, 1, Outcome::Delivered).await;
    assert_eq!((kept().as_str(), ends()), ("2", until(4)), "not with the one that was written last");
    days.store(6, Ordering::Relaxed);
    claim(&store, key, 3, 3).await;
    assert_eq!((kept().as_str(), ends()), ("2", until(6)), "the first is over");
}
