//! The backlog against a store that is a closure, on simulated time.

use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tempalias_alias::{Attempt, Outcome, Owner, RowKey};

use super::*;

/// A store that is down for as long as the test says, and may hold something against one attempt.
#[derive(Debug, Default)]
struct Fake {
    is_up: AtomicBool,
    /// Refuses each of these, until it is mended.
    never_takes: Range<u64>,
    is_mended: AtomicBool,
    /// These are for a server of it that is away, and how that shows.
    elsewhere: Option<(Range<u64>, StoreError)>,
    /// Panics at this one, once.
    breaks_at: Mutex<Option<u64>>,
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
        if self.breaks_at.lock().unwrap().take_if(|breaks_at| *breaks_at == number).is_some() {
            panic!("broken");
        }
        let is_mended = self.is_mended.load(Ordering::Relaxed);
        if let Some((numbers, error)) = &self.elsewhere
            && numbers.contains(&number)
            && !is_mended
        {
            return Err(error.clone());
        }
        if !self.is_up.load(Ordering::Relaxed) || (self.never_takes.contains(&number) && !is_mended) {
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
    back: watch::Sender<u64>,
}

impl World {
    fn new(most: usize, store: Fake) -> Self {
        Self {
            backlog: Arc::new(Backlog::new(most)),
            store: Arc::new(store),
            draining: watch::Sender::new(false),
            back: watch::Sender::new(0),
        }
    }

    /// The store has failed once to settle these.
    fn add(&self, numbers: Range<u64>) -> oneshot::Receiver<()> {
        let place = self.backlog.reserve(usize::try_from(numbers.end - numbers.start).unwrap());
        assert!(place.is_some());
        self.add_at(place, numbers)
    }

    fn add_at(&self, place: Option<Place>, numbers: Range<u64>) -> oneshot::Receiver<()> {
        let settlements = numbers.map(settlement).collect();
        let added = self.backlog.add(settlements, place, &StoreError::Timeout);
        if added.needs_work {
            let (backlog, store) = (self.backlog.clone(), self.store.clone());
            let (draining, back) = (self.draining.subscribe(), self.back.subscribe());
            tokio::spawn(async move { backlog.work(draining, back, |one| store.clone().settle(one)).await });
        }
        added.done
    }

    fn asked(&self) -> usize {
        self.store.asked.load(Ordering::Relaxed)
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

    fn count(&self, words: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(words)).count()
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
async fn the_moment_the_store_is_back_everything_is_settled() {
    for _ in 0..20 {
        let world = World::new(1000, Fake::default());
        let done = world.add(0..200);
        sleep(Duration::from_secs(37)).await;
        world.is_up(true);
        world.back.send_modify(|times| *times += 1);
        let back = Instant::now();
        drop(done.await);
        assert!(back.elapsed() < FIRST_PAUSE / 2, "{:?}", back.elapsed());
        assert_eq!(world.store.taken().len(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_new_is_tried_soon_and_does_not_make_the_tries_endless() {
    let world = World::new(10_000, Fake::default());
    let _waits = world.add(0..1);
    sleep(Duration::from_mins(5)).await;
    let before = world.asked();
    for number in 1..1001 {
        drop(world.add(number..number + 1));
        sleep(Duration::from_millis(10)).await;
    }
    // 10 s of an outage with a new one every 10 ms.
    let passes = (world.asked() - before) / AT_ONCE;
    assert!((20..=220).contains(&passes), "{passes}");
    world.is_up(true);
    drop(world.add(5000..5001).await);
    assert_eq!(world.store.taken().len(), 1002);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_never_taken_holds_nothing_up() {
    let (log, _guard) = Log::keep();
    let world = World::new(1000, Fake { never_takes: 1..2, ..Fake::default() });
    let mut of_one_mail = world.add(0..3);
    sleep(Duration::from_hours(1)).await;
    world.is_up(true);
    sleep(LONGEST_PAUSE * 2).await;
    assert_eq!(world.store.taken(), [0, 2]);
    assert!(of_one_mail.try_recv().is_err_and(|why| why == oneshot::error::TryRecvError::Empty));
    // What others settle shows that the store works.
    world.backlog.was_taken();
    sleep(LONGEST_PAUSE * 2).await;
    assert_eq!((log.count("settles others"), log.count("apart=1")), (1, 2), "{:#?}", log.lines());
    assert_eq!(log.count("no claim waits for the store any longer"), 1);
    let before = world.asked();
    sleep(Duration::from_hours(10)).await;
    let tries = world.asked() - before;
    assert!((595..=605).contains(&tries), "once a minute: {tries}");
    assert_eq!(log.lines().len(), 3, "{:#?}", log.lines());
    // The next outage is told, and nobody waits for that one's minute.
    world.is_up(false);
    let done = world.add(3..5);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(log.count("WARN"), 2, "{:#?}", log.lines());
    world.is_up(true);
    let back = Instant::now();
    drop(done.await);
    assert!(back.elapsed() <= LONGEST_PAUSE + FIRST_PAUSE, "{:?}", back.elapsed());
    assert_eq!(world.store.taken(), [0, 2, 3, 4]);
    assert_eq!((log.count("settles others"), log.count("any longer")), (1, 2), "{:#?}", log.lines());
    // Nor does the end of the program.
    world.draining.send_replace(true);
    let told = Instant::now();
    drop(of_one_mail.await);
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    assert_eq!(log.count("left=1"), 1, "{:#?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn many_that_are_never_taken_do_not_hide_one_that_is() {
    let world = World::new(10_000, Fake { never_takes: 0..1000, ..Fake::default() });
    world.is_up(true);
    let mut refused = world.add(0..1000);
    let done = world.add(1000..1001);
    let begun = Instant::now();
    drop(done.await);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(refused.try_recv().is_err_and(|why| why == oneshot::error::TryRecvError::Empty));
}

/// Of a Cluster, a server may be away for long while the others go on.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_part_that_is_away_is_settled_as_soon_as_that_is_back() {
    for error in [StoreError::Timeout, StoreError::Away("gone".to_owned())] {
        let (log, _guard) = Log::keep();
        let elsewhere = Some((0..3, error));
        let world = World::new(1000, Fake { elsewhere, is_up: AtomicBool::new(true), ..Fake::default() });
        let done = world.add(0..3);
        for _ in 0..600 {
            world.backlog.was_taken();
            sleep(Duration::from_millis(500)).await;
        }
        world.store.is_mended.store(true, Ordering::Relaxed);
        let back = Instant::now();
        drop(done.await);
        assert!(back.elapsed() <= LONGEST_PAUSE + FIRST_PAUSE, "{:?}", back.elapsed());
        assert_eq!(log.count("settles others"), 0, "{:#?}", log.lines());
    }
}

/// What stood apart may have been of a part that is back.
#[tokio::test(start_paused = true)]
async fn what_stands_apart_is_tried_the_moment_the_store_is_back() {
    let (log, _guard) = Log::keep();
    let world = World::new(1000, Fake { never_takes: 0..1, is_up: AtomicBool::new(true), ..Fake::default() });
    let done = world.add(0..1);
    for _ in 0..10 {
        world.backlog.was_taken();
        sleep(LONGEST_PAUSE).await;
    }
    assert_eq!(log.count("settles others"), 1, "it stands apart: {:#?}", log.lines());
    world.store.is_mended.store(true, Ordering::Relaxed);
    world.back.send_modify(|times| *times += 1);
    let back = Instant::now();
    drop(done.await);
    assert!(back.elapsed() < FIRST_PAUSE, "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_outage_alone_makes_no_settlement_stand_apart() {
    let (log, _guard) = Log::keep();
    let world = World::new(1000, Fake::default());
    world.backlog.was_taken();
    let done = world.add(0..100);
    sleep(Duration::from_hours(1)).await;
    world.is_up(true);
    let back = Instant::now();
    drop(done.await);
    assert!(back.elapsed() <= LONGEST_PAUSE + FIRST_PAUSE, "{:?}", back.elapsed());
    assert_eq!((log.count("settles others"), log.lines().len()), (0, 2), "{:#?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_ends_without_a_word_is_tried_again() {
    let world = World::new(1000, Fake { breaks_at: Mutex::new(Some(1)), ..Fake::default() });
    world.is_up(true);
    drop(world.add(0..3).await);
    assert_eq!(world.store.taken(), [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_found_no_room_is_settled_all_the_same() {
    let world = World::new(2, Fake::default());
    let done = world.add(0..2);
    assert!(world.backlog.reserve(1).is_none());
    let beyond = world.add_at(None, 2..3);
    sleep(Duration::from_mins(5)).await;
    world.is_up(true);
    drop((done.await, beyond.await));
    assert_eq!(world.store.taken(), [0, 1, 2]);
    let all = world.backlog.reserve(2);
    assert!(all.is_some() && world.backlog.reserve(1).is_none(), "what was beyond the room gives none back");
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
