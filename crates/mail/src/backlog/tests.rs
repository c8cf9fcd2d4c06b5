//! The backlog against a store that is a closure, on simulated time.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempalias_alias::{Attempt, Outcome, Owner, RowKey};

use super::*;

/// A store that is down for as long as the test says, and may hold something against one attempt.
#[derive(Debug, Default)]
struct Fake {
    is_up: AtomicBool,
    never_takes: Option<u64>,
    taken: Mutex<Vec<u64>>,
    asked: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Fake {
    async fn settle(self: Arc<Self>, one: Settlement) -> Result<(), StoreError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.most_at_once.fetch_max(self.at_once.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        sleep(Duration::from_millis(2)).await;
        self.at_once.fetch_sub(1, Ordering::Relaxed);
        let number = one.attempt.number;
        if !self.is_up.load(Ordering::Relaxed) || self.never_takes == Some(number) {
            return Err(StoreError::Failed("down".to_owned()));
        }
        self.taken.lock().unwrap().push(number);
        Ok(())
    }

    fn taken(&self) -> Vec<u64> {
        let mut taken = self.taken.lock().unwrap().clone();
        taken.sort_unstable();
        taken
    }
}

struct World {
    backlog: Arc<Backlog>,
    store: Arc<Fake>,
    draining: watch::Sender<bool>,
}

impl World {
    fn new(most: usize, store: Fake) -> Self {
        Self {
            backlog: Arc::new(Backlog::new(most)),
            store: Arc::new(store),
            draining: watch::Sender::new(false),
        }
    }

    /// The store has failed once to settle these.
    fn add(&self, numbers: std::ops::Range<u64>) -> oneshot::Receiver<()> {
        let settlements: Vec<_> = numbers.map(settlement).collect();
        let place = self.backlog.reserve(settlements.len()).unwrap();
        let added = self.backlog.add(settlements, place, &StoreError::Timeout);
        if added.needs_work {
            let (backlog, store, draining) =
                (self.backlog.clone(), self.store.clone(), self.draining.subscribe());
            tokio::spawn(async move { backlog.work(draining, |one| store.clone().settle(one)).await });
        }
        added.done
    }

    fn is_up(&self, is_up: bool) {
        self.store.is_up.store(is_up, Ordering::Relaxed);
    }
}

fn settlement(number: u64) -> Settlement {
    let attempt = Attempt { owner: Owner { node: 1, boot: 1 }, number };
    Settlement { row: RowKey([7; 16]), attempt, outcome: Outcome::Delivered }
}

/// What the log is told on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn keep() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        (log, tracing::subscriber::set_default(subscriber.finish()))
    }

    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn after_days_without_a_store_everything_is_settled_and_the_log_has_two_lines() {
    const DAYS: u64 = 3;
    let (log, _guard) = Log::keep();
    let world = World::new(1000, Fake::default());
    let first = world.add(0..2);
    sleep(Duration::from_secs(60)).await;
    let second = world.add(2..3);
    sleep(Duration::from_hours(24 * DAYS)).await;
    let asked = world.store.asked.load(Ordering::Relaxed) as u64;
    let rounds = DAYS * 24 * 3600 / LONGEST_PAUSE.as_secs();
    assert!((3 * rounds..=3 * 2 * rounds + 100).contains(&asked), "{asked} tries");
    assert_eq!(world.store.taken(), [] as [u64; 0]);
    world.is_up(true);
    let back = Instant::now();
    assert!(first.await.is_err() && second.await.is_err(), "an end, without a word");
    assert!(back.elapsed() <= LONGEST_PAUSE + Duration::from_secs(1), "{:?}", back.elapsed());
    assert_eq!(world.store.taken(), [0, 1, 2]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        world.store.asked.load(Ordering::Relaxed) as u64 - asked,
        3,
        "what is settled is not asked again"
    );
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[0].contains("WARN") && lines[0].contains("claims wait to be settled"), "{}", lines[0]);
    assert!(lines[0].contains("did not answer in time"), "{}", lines[0]);
    assert!(lines[1].contains("INFO") && lines[1].contains("settled=3 seconds=2592"), "{}", lines[1]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_and_goes_does_not_fill_the_log() {
    let (log, _guard) = Log::keep();
    let world = World::new(1000, Fake { is_up: AtomicBool::new(true), ..Fake::default() });
    for number in 0..100 {
        drop(world.add(number..number + 1).await);
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(world.store.taken().len(), 100);
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_never_taken_holds_nothing_up() {
    let world = World::new(1000, Fake { never_takes: Some(1), ..Fake::default() });
    let mut of_one_mail = world.add(0..3);
    sleep(Duration::from_hours(1)).await;
    world.is_up(true);
    sleep(LONGEST_PAUSE * 2).await;
    assert_eq!(world.store.taken(), [0, 2]);
    assert!(of_one_mail.try_recv().is_err_and(|why| why == oneshot::error::TryRecvError::Empty));
    drop(world.add(3..4).await);
    assert_eq!(world.store.taken(), [0, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_back_is_not_overrun() {
    let world = World::new(1000, Fake::default());
    let done = world.add(0..1000);
    sleep(Duration::from_mins(5)).await;
    world.is_up(true);
    drop(done.await);
    assert_eq!(world.store.taken().len(), 1000);
    assert_eq!(world.store.most_at_once.load(Ordering::Relaxed), AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_so_many_and_again_once_they_are_settled() {
    let (log, _guard) = Log::keep();
    let world = World::new(3, Fake::default());
    let done = world.add(0..2);
    assert!(world.backlog.reserve(2).is_none());
    let on_its_way = world.backlog.reserve(1).unwrap();
    assert!(world.backlog.reserve(1).is_none());
    sleep(Duration::from_hours(24)).await;
    assert!(world.backlog.reserve(1).is_none(), "nothing that waits is ever dropped for something new");
    drop(on_its_way);
    world.is_up(true);
    drop(done.await);
    assert_eq!(world.store.taken(), [0, 1]);
    let all = world.backlog.reserve(100).unwrap();
    assert!(
        world.backlog.reserve(1).is_none(),
        "a mail with more recipients than there is room has taken all"
    );
    drop(all);
    assert!(world.backlog.reserve(3).is_some());
    let lines = log.lines();
    // Two lines of an outage; no room, at once, a day later, and once more now.
    let told = lines.iter().filter(|line| line.contains("ERROR") && line.contains("most=3")).count();
    assert_eq!((told, lines.len()), (2, 4), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_program_does_not_wait_for_a_store_that_is_down() {
    for minutes in [0, 10] {
        let (log, _guard) = Log::keep();
        let world = World::new(1000, Fake::default());
        let done = world.add(0..500);
        sleep(Duration::from_mins(minutes)).await;
        world.draining.send_replace(true);
        let told = Instant::now();
        drop(done.await);
        assert!(told.elapsed() < Duration::from_secs(3), "{:?}", told.elapsed());
        assert!(log.lines().iter().any(|line| line.contains("left=500")), "{:#?}", log.lines());
        assert!(world.backlog.reserve(1000).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_program_tries_once_more() {
    let world = World::new(1000, Fake::default());
    let done = world.add(0..500);
    sleep(Duration::from_mins(10)).await;
    world.is_up(true);
    world.draining.send_replace(true);
    let told = Instant::now();
    drop(done.await);
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    assert_eq!(world.store.taken().len(), 500);
}
