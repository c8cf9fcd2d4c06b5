//! Claims: every answer, every way to end one, and that all of it is still so after a restart.

use std::time::Duration;

use tempalias_alias::{Answer, Fingerprint, KeptState, MAX_DOUBTS, Outcome, RETENTION};
use tempalias_store::{Change, Settlement};

use crate::fixture::{DAY, World, key};

pub(crate) async fn every_answer_is_given_and_survives_a_restart(mut world: World) {
    let row = world.make(1, 2).await;
    let first = world.claimed(row, 1, 1).await;
    assert_eq!((first.answer, first.used, first.now), (Answer::Granted, 1, world.now()));
    assert_eq!(first.limits, Some(world.found(row).await.ledger.limits));

    world.reopen();
    assert_eq!(world.used(row).await, 1);
    assert_eq!(world.claim(row, 1, 2).await, Answer::Busy, "in flight under a live owner");

    world.settle(row, 1, Outcome::Lost).await;
    world.reopen();
    assert_eq!(world.claim(row, 1, 3).await, Answer::Again);
    world.reopen();
    assert_eq!(world.claim(row, 1, 4).await, Answer::Busy, "the second attempt is in flight");
    assert_eq!(world.used(row).await, 1, "the same use");

    world.settle(row, 3, Outcome::Delivered).await;
    world.reopen();
    assert_eq!(world.claim(row, 1, 5).await, Answer::Already);

    assert_eq!(world.claim(row, 2, 6).await, Answer::Granted);
    assert_eq!(world.claim(row, 3, 7).await, Answer::Busy, "the last use is only held");
    world.settle(row, 6, Outcome::Delivered).await;
    world.reopen();
    assert_eq!(world.claim(row, 3, 8).await, Answer::Over, "used up");
    assert_eq!(world.used(row).await, 2);
    assert_eq!(world.claim(row, 2, 9).await, Answer::Already, "even when used up");
}

pub(crate) async fn a_row_that_is_not_there_is_over_and_shows_no_limits(world: World) {
    let claimed = world.claimed(key(9), 1, 1).await;
    assert_eq!((claimed.answer, claimed.limits, claimed.used), (Answer::Over, None, 0));
}

pub(crate) async fn uncounted_needs_no_use(world: World) {
    let row = world.make(1, 0).await;
    for attempt in 1..4 {
        let claimed = world.claimed(row, 1, attempt).await;
        assert_eq!((claimed.answer, claimed.used), (Answer::Uncounted, 0));
        assert!(claimed.limits.is_some());
    }
    assert!(world.found(row).await.ledger.kept.is_empty());
    let _ = world.store().change(row, Change::Pause).await.unwrap();
    assert_eq!(world.claim(row, 1, 5).await, Answer::Over, "a change binds the next dot");
}

pub(crate) async fn paused_and_removed_are_over_but_the_delivered_is_known(world: World) {
    let row = world.make(1, 5).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    world.settle(row, 1, Outcome::Delivered).await;
    for change in [Change::Pause, Change::Remove] {
        world.store().change(row, change).await.unwrap();
        assert_eq!(world.claim(row, 2, 2).await, Answer::Over);
        assert_eq!(world.claim(row, 1, 3).await, Answer::Already);
    }
}

pub(crate) async fn asking_again_under_one_attempt_gets_the_same_answer(world: World) {
    let row = world.make(1, 1).await;
    for _ in 0..3 {
        assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
        assert_eq!(world.used(row).await, 1);
    }
    world.settle(row, 1, Outcome::Lost).await;
    for _ in 0..3 {
        assert_eq!(world.claim(row, 1, 2).await, Answer::Again);
    }
    assert_eq!(world.found(row).await.ledger.kept[0].doubts, 1, "one doubt, however often it was asked for");
}

/// The store or the next hop may be away for days: as long as nothing may have been delivered once more, the message may
/// come again.
pub(crate) async fn attempts_that_delivered_nothing_are_not_counted(world: World) {
    let row = world.make(1, 1).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    world.settle(row, 1, Outcome::Lost).await;
    for number in 2..50 {
        assert_eq!(world.claim(row, 1, number).await, Answer::Again);
        let outcome = if number % 2 == 0 { Outcome::Unsent } else { Outcome::Deferred };
        world.settle(row, number, outcome).await;
    }
    assert_eq!(world.found(row).await.ledger.kept[0].doubts, 1);
}

pub(crate) async fn a_message_that_was_in_doubt_too_often_is_refused(world: World) {
    let row = world.make(1, 1).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    world.settle(row, 1, Outcome::Lost).await;
    for number in 2..=1 + u64::from(MAX_DOUBTS) {
        assert_eq!(world.claim(row, 1, number).await, Answer::Again);
        world.settle(row, number, Outcome::Lost).await;
    }
    assert_eq!(world.claim(row, 1, 99).await, Answer::Over);
}

/// An attempt whose owner died may have delivered.
pub(crate) async fn a_death_is_a_doubt(mut world: World) {
    let row = world.make(1, 1).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    for number in 2..5 {
        world.restart();
        assert_eq!(world.claim(row, 1, number).await, Answer::Again);
        assert_eq!(u64::from(world.found(row).await.ledger.kept[0].doubts), number - 1);
    }
}

pub(crate) async fn a_claim_of_a_dead_boot_goes_again(mut world: World) {
    let row = world.make(1, 1).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    world.restart();
    assert_eq!(world.claim(row, 2, 1).await, Answer::Busy, "its use is held for the same message");
    assert_eq!(world.claim(row, 1, 2).await, Answer::Again);
    world.settle(row, 2, Outcome::Refused).await;
    assert_eq!(world.used(row).await, 1, "the first attempt may have reached its dot");
    assert_eq!(world.claim(row, 2, 3).await, Answer::Over);
}

pub(crate) async fn a_batch_is_answered_in_order(mut world: World) {
    let (counted, uncounted) = (world.make(1, 1).await, world.make(2, 0).await);
    let requests: Vec<_> =
        [counted, key(77), uncounted].into_iter().map(|row| world.request(row, 1, 1)).collect();
    let answers: Vec<_> =
        world.store().claim(requests).await.unwrap().iter().map(|claimed| claimed.answer).collect();
    assert_eq!(answers, [Answer::Granted, Answer::Over, Answer::Uncounted]);
    let settlements = [counted, key(77), uncounted].map(|row| Settlement {
        row,
        attempt: world.attempt(1),
        outcome: Outcome::Unsent,
    });
    world.store().settle(settlements.to_vec()).await.unwrap();
    world.reopen();
    assert_eq!(world.used(counted).await, 0);
    assert_eq!(world.store().claim(Vec::new()).await, Ok(Vec::new()));
}

pub(crate) async fn refused_gives_back_only_what_is_clean(mut world: World) {
    let row = world.make(1, 3).await;
    for (attempt, outcome) in [(11, Outcome::Refused), (12, Outcome::Unsent)] {
        assert_eq!(world.claim(row, 1, attempt).await, Answer::Granted);
        world.settle(row, attempt, outcome).await;
        world.reopen();
        assert_eq!(world.used(row).await, 0, "{outcome:?}");
        assert!(world.found(row).await.ledger.kept.is_empty());
    }
    assert_eq!(world.claim(row, 1, 2).await, Answer::Granted);
    world.settle(row, 2, Outcome::Lost).await;
    assert_eq!(world.claim(row, 1, 3).await, Answer::Again);
    world.settle(row, 3, Outcome::Unsent).await;
    assert_eq!(world.found(row).await.ledger.kept[0].state, KeptState::InDoubt, "still in doubt");
    assert_eq!(world.claim(row, 1, 4).await, Answer::Again);
    world.settle(row, 4, Outcome::Refused).await;
    world.reopen();
    let ledger = world.found(row).await.ledger;
    assert_eq!((ledger.used, ledger.kept.len()), (1, 0), "spent: an earlier attempt may have been delivered");
}

pub(crate) async fn settling_twice_or_stale_or_unknown_changes_nothing(world: World) {
    let row = world.make(1, 3).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    assert_eq!(world.claim(row, 2, 2).await, Answer::Granted);
    for _ in 0..2 {
        world.settle(row, 1, Outcome::Refused).await;
        assert_eq!(world.used(row).await, 1);
    }
    world.settle(row, 2, Outcome::Delivered).await;
    let before = world.found(row).await;
    for outcome in [Outcome::Refused, Outcome::Unsent, Outcome::Lost, Outcome::Delivered] {
        world.settle(row, 2, outcome).await;
        world.settle(row, 99, outcome).await;
        world.settle(key(50), 2, outcome).await;
    }
    assert_eq!(world.found(row).await, before);
    // Overtaken: attempt 3 was lost, 4 has the claim, and 3's refusal no longer counts.
    assert_eq!(world.claim(row, 3, 3).await, Answer::Granted);
    world.settle(row, 3, Outcome::Lost).await;
    assert_eq!(world.claim(row, 3, 4).await, Answer::Again);
    world.settle(row, 3, Outcome::Refused).await;
    assert_eq!(world.used(row).await, 2);
    assert_eq!(world.claim(row, 3, 5).await, Answer::Busy);
}

pub(crate) async fn a_late_delivery_settles_what_was_lost(world: World) {
    let row = world.make(1, 2).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    world.settle(row, 1, Outcome::Lost).await;
    assert_eq!(world.claim(row, 2, 2).await, Answer::Granted);
    world.settle(row, 2, Outcome::Lost).await;
    world.settle(row, 1, Outcome::Delivered).await;
    assert_eq!(world.claim(row, 1, 3).await, Answer::Already);
    assert_eq!(
        world.claim(row, 2, 4).await,
        Answer::Again,
        "another message's doubt is none of its business"
    );
}

pub(crate) async fn acknowledged_is_forgotten_at_once(mut world: World) {
    let row = world.make(1, 3).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    let message = |n: u8| Fingerprint([n; 16]);
    world.store().acknowledge(vec![(row, message(1))]).await.unwrap();
    world.settle(row, 1, Outcome::Delivered).await;
    assert_eq!(
        world.claim(row, 1, 2).await,
        Answer::Already,
        "an acknowledgement before the end means nothing"
    );
    world.store().acknowledge(vec![(row, message(2)), (key(9), message(1))]).await.unwrap();
    assert_eq!(world.claim(row, 1, 2).await, Answer::Already, "another message, another alias");
    world.store().acknowledge(vec![(row, message(1))]).await.unwrap();
    assert_eq!(world.claim(row, 1, 3).await, Answer::Granted, "sent again on purpose: a new message");
    world.settle(row, 3, Outcome::Delivered).await;
    world.store().acknowledge(vec![(row, message(1))]).await.unwrap();
    world.reopen();
    let ledger = world.found(row).await.ledger;
    assert_eq!((ledger.used, ledger.kept.len()), (2, 0), "closing writes what was acknowledged");
}

pub(crate) async fn kept_claims_end_without_touching_the_counter(world: World) {
    let row = world.make(1, 3).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    world.settle(row, 1, Outcome::Lost).await;
    assert_eq!(world.claim(row, 2, 2).await, Answer::Granted);
    world.settle(row, 2, Outcome::Delivered).await;
    assert_eq!(world.claim(row, 3, 3).await, Answer::Granted);
    world.pass(RETENTION.saturating_sub(Duration::from_millis(1)));
    assert_eq!(world.claim(row, 2, 4).await, Answer::Already);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.claim(row, 1, 5).await, Answer::Over, "used up: nothing is held any more");
    assert_eq!(world.claim(row, 2, 6).await, Answer::Over);
    world.settle(row, 1, Outcome::Delivered).await;
    world.settle(row, 2, Outcome::Refused).await;
    world.settle(row, 3, Outcome::Refused).await;
    world.store().change(row, Change::FreeHeld).await.unwrap();
    assert_eq!(world.used(row).await, 3);
}

pub(crate) async fn a_message_without_an_id_is_never_already_there(world: World) {
    let row = world.make(1, 1).await;
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    world.settle(row, 1, Outcome::Delivered).await;
    let mut request = world.request(row, 1, 2);
    request.identified = false;
    assert_eq!(world.store().claim(vec![request]).await.unwrap()[0].answer, Answer::Again);
}

pub(crate) async fn only_the_stores_clock_decides(world: World) {
    let row = world.make(1, 5).await;
    assert_eq!(world.store().now(), world.now());
    assert_eq!(world.claim(row, 1, 1).await, Answer::Granted);
    world.settle(row, 1, Outcome::Lost).await;
    world.pass(6 * DAY);
    assert_eq!(world.claim(row, 2, 2).await, Answer::Granted);
    world.settle(row, 2, Outcome::Lost).await;
    world.pass(4 * DAY);
    assert_eq!(world.claim(row, 3, 3).await, Answer::Over, "expired");
    assert_eq!(world.claim(row, 2, 4).await, Answer::Again, "doubt goes before the end by date");
    assert_eq!(world.found(row).await.now, world.now());
}
