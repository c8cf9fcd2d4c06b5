//! Every dialogue, cut at every event: see `tempalias_testkit::cut`.

use std::sync::atomic::{AtomicUsize, Ordering};

use tempalias_testkit::{Dialogue, cut};

#[test]
fn whatever_breaks_wherever_nothing_is_lost_burnt_or_left_behind() {
    let wanted = std::env::var("DIALOGUE").unwrap_or_default();
    let dialogues: Vec<Dialogue> =
        Dialogue::all().into_iter().filter(|dialogue| dialogue.name.contains(&wanted)).collect();
    let (next, cuts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let mut failed = vec![];
        while let Some(dialogue) = dialogues.get(next.fetch_add(1, Ordering::Relaxed)) {
            match cut::everywhere(dialogue) {
                Ok(made) => drop(cuts.fetch_add(made, Ordering::Relaxed)),
                Err(why) => failed.push(why.to_string()),
            }
        }
        failed
    };
    let failed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    println!("{} cuts in {} dialogues", cuts.load(Ordering::Relaxed), dialogues.len());
    assert!(failed.is_empty(), "{} dialogues failed\n{}", failed.len(), failed.join("\n"));
}
