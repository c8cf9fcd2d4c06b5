//! Rows: making, finding, changing, listing.

use std::num::NonZeroU32;

use tempalias_alias::{Answer, LimitChange, Limits, Outcome, Sealed, State};
use tempalias_store::{Change, Created, IDEMPOTENCY_RETENTION, NewRow, Once};

use crate::fixture::{DAY, World, key, reply, sealed, tag};

pub(crate) async fn what_was_made_is_found_under_any_key_asked_for(mut world: World) {
    let limits = Limits {
        valid_from: Some(world.now().plus(DAY)),
        valid_until: Some(world.now().plus(3 * DAY)),
        max_usage: NonZeroU32::new(7),
    };
    let row = NewRow { limits, ..world.row(1, 0) };
    assert_eq!(world.store().create(row, &[key(2)], None).await, Ok(Created::Done));
    let made = world.now();
    world.reopen();
    world.pass(DAY);
    for keys in [vec![key(1)], vec![key(1), key(2)], vec![key(3), key(1)]] {
        let found = world.store().find(&keys).await.unwrap().unwrap();
        assert_eq!((found.key, found.created, found.now), (key(1), made, world.now()));
        assert_eq!((found.ledger.limits, found.ledger.state), (limits, State::Active));
        assert_eq!((found.ledger.used, found.ledger.kept.len()), (0, 0));
        assert_eq!(found.sealed, sealed(1));
    }
    assert_eq!(world.store().find(&[key(2), key(3)]).await, Ok(None));
    assert_eq!(world.store().find(&[]).await, Ok(None));
}

pub(crate) async fn a_taken_key_clashes_and_changes_nothing(world: World) {
    let row = world.make(1, 5).await;
    let before = world.found(row).await;
    assert_eq!(world.store().create(world.row(1, 9), &[], None).await, Ok(Created::Clash));
    let once = Once { name: tag(1), reply: reply(1) };
    let under_another_key = world.store().create(world.row(2, 9), &[key(3), row], Some(once)).await;
    assert_eq!(under_another_key, Ok(Created::Clash));
    assert_eq!(world.found(row).await, before);
    assert_eq!(world.store().find(&[key(2)]).await, Ok(None));
    assert_eq!(world.store().idempotent_reply(tag(1)).await, Ok(None), "no reply for what was not made");
}

/// A change that names everything.
fn all_of(limits: Limits) -> LimitChange {
    LimitChange { valid_until: limits.valid_until, max_usage: limits.max_usage }
}

pub(crate) async fn limits_and_pauses_change(mut world: World) {
    let row = world.make(1, 1).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    let limits = Limits { max_usage: NonZeroU32::new(2), ..world.found(row).await.ledger.limits };
    let found = world.store().change(row, Change::Limits(all_of(limits))).await.unwrap().unwrap();
    assert_eq!((found.ledger.limits, found.ledger.used), (limits, 1));
    world.settle(row, 1, Outcome::Delivered).await;
    world.reopen();
    assert_eq!(world.found(row).await.ledger.limits, limits);
    let paused = world.store().change(row, Change::Pause).await.unwrap().unwrap();
    assert_eq!(paused.ledger.state, State::Paused);
    world.reopen();
    assert_eq!(world.claim(row, 2, 3).await, Answer::Over);
    let resumed = world.store().change(row, Change::Resume).await.unwrap().unwrap();
    assert_eq!((resumed.ledger.state, resumed.sealed), (State::Active, sealed(1)));
    assert_eq!(world.claim(row, 2, 4).await, Answer::Granted);
}

pub(crate) async fn two_changes_at_the_same_time_both_hold(world: World) {
    let row = world.make(1, 5).await;
    let until = Some(world.now().plus(20 * DAY));
    let longer = LimitChange { valid_until: until, max_usage: None };
    let more = LimitChange { valid_until: None, max_usage: NonZeroU32::new(9) };
    let store = world.store();
    let (one, other) =
        tokio::join!(store.change(row, Change::Limits(longer)), store.change(row, Change::Limits(more)));
    assert!(one.is_ok() && other.is_ok());
    let limits = world.found(row).await.ledger.limits;
    assert_eq!((limits.valid_until, limits.max_usage), (until, NonZeroU32::new(9)));
}

pub(crate) async fn what_has_ended_stays_ended(world: World) {
    let used_up = world.make(1, 1).await;
    assert_eq!(world.claim(used_up, 1, 1).await, Answer::Granted);
    world.settle(used_up, 1, Outcome::Delivered).await;
    let expired = world.make(2, 1).await;
    let before = [world.found(used_up).await.ledger.limits, world.found(expired).await.ledger.limits];
    let more =
        Limits { max_usage: NonZeroU32::new(9), valid_until: Some(world.now().plus(400 * DAY)), ..before[0] };
    // Pausing it first opens no way round.
    world.store().change(used_up, Change::Pause).await.unwrap().unwrap();
    let found = world.store().change(used_up, Change::Limits(all_of(more))).await.unwrap().unwrap();
    assert_eq!(found.ledger.limits, before[0]);
    world.pass(11 * DAY);
    let found = world.store().change(expired, Change::Limits(all_of(more))).await.unwrap().unwrap();
    assert_eq!(found.ledger.limits, before[1]);
    let listed = world.store().list(None, 10).await.unwrap();
    assert!(listed.len() == 2 && listed.iter().all(|row| row.has_ended), "{listed:?}");
}

pub(crate) async fn removal_wipes_and_is_for_ever(mut world: World) {
    let row = world.make(1, 5).await;
    let removed = world.store().change(row, Change::Remove).await.unwrap().unwrap();
    assert_eq!((removed.ledger.state, &removed.sealed), (State::Removed, &Sealed::default()));
    world.reopen();
    let limits = Limits { max_usage: NonZeroU32::new(50), ..removed.ledger.limits };
    let changes =
        [Change::Resume, Change::Pause, Change::Limits(all_of(limits)), Change::FreeHeld, Change::Remove];
    for change in changes {
        assert_eq!(world.store().change(row, change).await, Ok(Some(removed.clone())));
    }
    assert_eq!(world.store().create(world.row(1, 5), &[], None).await, Ok(Created::Clash));
}

pub(crate) async fn freeing_gives_back_what_nobody_sends(mut world: World) {
    let row = world.make(1, 3).await;
    for message in 1..=3 {
        assert_eq!(world.claim(row, message, u64::from(message)).await, Answer::Granted);
    }
    world.settle(row, 1, Outcome::Lost).await;
    world.settle(row, 2, Outcome::Delivered).await;
    world.restart();
    let found = world.store().change(row, Change::FreeHeld).await.unwrap().unwrap();
    assert_eq!(found.ledger.used, 1, "in doubt, and in flight under a dead owner");
    assert_eq!(found.ledger.kept.len(), 1, "what was delivered stays known");
    world.reopen();
    assert_eq!(world.claim(row, 1, 9).await, Answer::Granted);
}

pub(crate) async fn freeing_leaves_alone_what_is_in_flight(world: World) {
    let row = world.make(1, 1).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    let found = world.store().change(row, Change::FreeHeld).await.unwrap().unwrap();
    assert_eq!((found.ledger.used, found.ledger.kept.len()), (1, 1));
}

pub(crate) async fn a_change_of_nothing_is_nothing(world: World) {
    assert_eq!(world.store().change(key(1), Change::Remove).await, Ok(None));
}

pub(crate) async fn pages_cover_every_row_once(world: World) {
    for number in (1..=25).rev() {
        world.make(number, u32::from(number)).await;
    }
    assert_eq!(world.claim(key(5), 1, 1).await, Answer::Granted);
    assert_eq!(world.claim(key(5), 2, 2).await, Answer::Granted);
    world.settle(key(5), 1, Outcome::Delivered).await;
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = world.store().list(after, 10).await.unwrap();
        assert!(page.len() <= 10);
        let Some(last) = page.last() else { break };
        after = Some(last.key);
        seen.extend(page);
    }
    let keys: Vec<_> = seen.iter().map(|listed| listed.key).collect();
    assert_eq!(keys, (1..=25).map(key).collect::<Vec<_>>());
    let fifth = &seen[4];
    assert_eq!((fifth.used, fifth.held, fifth.state), (2, 1, State::Active));
    assert_eq!((fifth.created, fifth.limits.max_usage), (world.now(), NonZeroU32::new(5)));
    assert_eq!(world.store().list(None, 0).await, Ok(Vec::new()));
}

pub(crate) async fn a_retried_request_makes_one_row(mut world: World) {
    let once = |number| Some(Once { name: tag(1), reply: reply(number) });
    assert_eq!(world.store().idempotent_reply(tag(1)).await, Ok(None));
    assert_eq!(world.store().create(world.row(1, 1), &[], once(1)).await, Ok(Created::Done));
    world.reopen();
    let retried = world.store().create(world.row(2, 1), &[], once(2)).await;
    assert_eq!(retried, Ok(Created::Replayed(reply(1))));
    assert_eq!(world.store().find(&[key(2)]).await, Ok(None));
    assert_eq!(world.store().idempotent_reply(tag(1)).await, Ok(Some(reply(1))));
    world.pass(IDEMPOTENCY_RETENTION);
    assert_eq!(world.store().idempotent_reply(tag(1)).await, Ok(None));
    assert_eq!(world.store().create(world.row(3, 1), &[], once(3)).await, Ok(Created::Done));
    assert_eq!(world.store().idempotent_reply(tag(1)).await, Ok(Some(reply(3))));
}
