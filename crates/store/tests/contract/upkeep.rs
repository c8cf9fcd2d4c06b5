//! Rate limits, the sweep, and health.

use std::time::Duration;

use tempalias_alias::{Answer, LimitChange, Outcome, RETENTION, Rate, RowKey};
use tempalias_store::{Change, Created, IDEMPOTENCY_RETENTION, NewRow, Once, ROW_RETENTION};

use crate::fixture::{DAY, World, key, reply, tag};

const RATE: Rate = Rate { burst: 2, every: Duration::from_secs(30) };

pub(crate) async fn a_bucket_refuses_and_fills_again_over_restarts(mut world: World) {
    for _ in 0..2 {
        assert_eq!(world.store().take(tag(1), RATE).await, Ok(Ok(())));
    }
    world.restart();
    assert_eq!(world.store().take(tag(1), RATE).await, Ok(Err(Duration::from_secs(30))));
    assert_eq!(world.store().take(tag(2), RATE).await, Ok(Ok(())), "another client");
    world.pass(Duration::from_secs(29));
    assert_eq!(world.store().take(tag(1), RATE).await, Ok(Err(Duration::from_secs(1))));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.store().take(tag(1), RATE).await, Ok(Ok(())));
    assert_eq!(world.store().take(tag(1), RATE).await, Ok(Err(Duration::from_secs(30))));
}

pub(crate) async fn a_clock_that_was_ahead_locks_nobody_out(world: World) {
    world.pass(400 * DAY);
    for _ in 0..2 {
        assert_eq!(world.store().take(tag(1), RATE).await, Ok(Ok(())));
    }
    world.go_back(400 * DAY);
    for _ in 0..2 {
        assert_eq!(world.store().take(tag(1), RATE).await, Ok(Ok(())));
    }
    assert_eq!(world.store().take(tag(1), RATE).await, Ok(Err(Duration::from_secs(30))));
}

pub(crate) async fn sweeping_takes_what_is_over_and_nothing_else(mut world: World) {
    let (ended, removed, lives) = (world.make(1, 5).await, world.make(2, 5).await, world.make(3, 5).await);
    let once = Once { name: tag(1), reply: reply(1) };
    assert_eq!(world.store().create(world.row(4, 1), &[], Some(once)).await, Ok(Created::Done));
    assert_eq!(world.store().take(tag(1), RATE).await, Ok(Ok(())));
    assert_eq!(world.claim(removed, 1, 1).await, Answer::Granted);
    world.settle(removed, 1, Outcome::Delivered).await;
    world.store().change(removed, Change::Remove).await.unwrap();
    assert_eq!(world.store().sweep().await.unwrap().rows, 0);

    world.pass(IDEMPOTENCY_RETENTION);
    assert_eq!(world.store().sweep().await.unwrap().rows, 0);
    assert_eq!(world.claim(removed, 1, 2).await, Answer::Already);

    world.pass(RETENTION);
    assert_eq!(world.store().sweep().await.unwrap().rows, 1);
    assert_eq!(world.store().find(&[removed]).await, Ok(None), "5 days after its removal");

    let longer = world.row(3, 5).limits;
    world
        .store()
        .change(
            lives,
            Change::Limits(LimitChange { valid_until: longer.valid_until, max_usage: longer.max_usage }),
        )
        .await
        .unwrap();
    world.pass(4 * DAY + ROW_RETENTION);
    assert_eq!(world.store().sweep().await.unwrap().rows, 2);
    world.reopen();
    assert_eq!(world.store().find(&[ended]).await, Ok(None));
    assert_eq!(world.store().find(&[key(4)]).await, Ok(None));
    assert!(world.store().find(&[lives]).await.unwrap().is_some(), "its end was moved");
}

pub(crate) async fn sweeping_takes_many_steps(world: World) {
    for number in 0..600_u16 {
        let [high, low] = number.to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&[high, low]);
        let row = NewRow { key: RowKey(bytes), ..world.row(1, 1) };
        assert_eq!(world.store().create(row, &[], None).await, Ok(Created::Done));
    }
    world.pass(10 * DAY + ROW_RETENTION);
    assert_eq!(world.store().sweep().await.unwrap().rows, 600);
    assert_eq!(world.store().list(None, 10).await, Ok(Vec::new()));
}

pub(crate) async fn sweeping_claims_leaves_the_counter(world: World) {
    let row = world.make(1, 2).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    assert_eq!(world.claim(row, 2, 2).await, Answer::Granted);
    world.settle(row, 1, Outcome::Lost).await;
    world.pass(RETENTION);
    world.store().sweep().await.unwrap();
    let ledger = world.found(row).await.ledger;
    assert_eq!((ledger.used, ledger.kept.len()), (2, 0));
}

pub(crate) async fn a_healthy_store_says_so(world: World) {
    let health = world.store().check().await;
    assert!(health.is_ready());
    assert_eq!(health.to_string(), "ready");
}
