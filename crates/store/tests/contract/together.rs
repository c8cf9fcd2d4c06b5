//! Many callers at once.

use std::time::Duration;

use tempalias_alias::{Answer, Fingerprint, Rate};
use tempalias_store::{Created, Once};

use crate::fixture::{World, key, reply, tag};

const TASKS: u8 = 64;

pub(crate) async fn n_uses_are_granted_n_times_under_contention(world: World) {
    for (number, uses) in [(1, 1), (2, 5), (3, 100)] {
        let row = world.make(number, uses).await;
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| {
                let store = world.store().clone();
                let request = world.request(row, 0, u64::from(task) * 4);
                tokio::spawn(async move {
                    let mut granted = 0;
                    for message in 0..4 {
                        let mut request = request;
                        request.attempt.number += u64::from(message);
                        request.fingerprint =
                            Fingerprint([task, message, 0, 0].repeat(4).try_into().unwrap());
                        let answer = store.claim(vec![request]).await.unwrap()[0].answer;
                        granted += u32::from(answer == Answer::Granted);
                        assert!(matches!(answer, Answer::Granted | Answer::Busy), "{answer:?}");
                    }
                    granted
                })
            })
            .collect();
        let mut granted = 0;
        for task in tasks {
            granted += task.await.unwrap();
        }
        assert_eq!(granted, uses);
        assert_eq!(world.used(row).await, uses);
    }
}

pub(crate) async fn a_rate_holds_under_contention(world: World) {
    let rate = Rate { burst: 5, every: Duration::from_mins(1) };
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = world.store().clone();
            tokio::spawn(async move { u32::from(store.take(tag(1), rate).await.unwrap().is_ok()) })
        })
        .collect();
    let mut taken = 0;
    for task in tasks {
        taken += task.await.unwrap();
    }
    assert_eq!(taken, 5);
}

pub(crate) async fn one_name_makes_one_row_under_contention(world: World) {
    let tasks: Vec<_> = (1..=TASKS)
        .map(|task| {
            let (store, row) = (world.store().clone(), world.row(task, 1));
            let once = Once { name: tag(1), reply: reply(task) };
            tokio::spawn(async move { (task, store.create(row, &[], Some(once)).await.unwrap()) })
        })
        .collect();
    let (mut made, mut replayed) = (Vec::new(), Vec::new());
    for task in tasks {
        match task.await.unwrap() {
            (task, Created::Done) => made.push(task),
            (_, Created::Replayed(reply)) => replayed.push(reply),
            (_, Created::Clash) => panic!("the keys differ"),
        }
    }
    assert_eq!(made.len(), 1);
    assert!(replayed.iter().all(|earlier| *earlier == reply(made[0])));
    assert_eq!(world.store().list(None, 100).await.unwrap()[0].key, key(made[0]));
}
