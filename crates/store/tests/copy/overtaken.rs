//! One copy begun twice: the last run goes on, and whatever was left of one before it changes nothing any more.

use std::pin::pin;

use tempalias_alias::{Answer, Outcome};
use tempalias_store::copy::{Copied, CopyError, Offline, Place, Progress, Source, Stage, Target};
use tempalias_store::{Created, Settlement, Store};

use crate::fixture::{
    Time, end, file, fill, for_steps, key, limits, make_many, redis, request, row, see, serve, try_copy,
    try_copy_watched, try_serve,
};
use crate::servers::Server;

/// Aliases for one message each.
const ROWS: u8 = 8;

async fn fill_with_rows(place: &Place) {
    let store = serve(place).await;
    for number in 1..=ROWS {
        let made = store.create(row(number, limits(1, None)), &[], None).await;
        assert_eq!(made, Ok(Created::Done));
    }
    make_many(&store, 600).await;
    end(store).await;
}

/// A message to every alias; what each was answered.
async fn send_to_all(store: &Store, message: u8) -> Vec<Answer> {
    let mut answers = Vec::new();
    for number in 1..=ROWS {
        let claim = request(store, key(number), message, u64::from(message) * 100 + u64::from(number));
        let answer = store.claim(vec![claim]).await.unwrap()[0].answer;
        if answer == Answer::Granted {
            let (row, attempt) = (claim.row, claim.attempt);
            store.settle(vec![Settlement { row, attempt, outcome: Outcome::Delivered }]).await.unwrap();
        }
        answers.push(answer);
    }
    answers
}

/// Ctrl-Z, the same command again, the copy is served and used; then the first run is woken up, wherever it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_sleeps_through_the_end_of_its_copy_changes_nothing() {
    let time = Time::new();
    let server = Server::start(&[]);
    let from = redis(&server.address(), &time);
    fill_with_rows(&from).await;
    let (mut steps, mut slept) = (1, 0);
    loop {
        let to = redis(&server.address(), &time);
        let mut first = pin!(try_copy(&from, &to));
        if let Some(done) = for_steps(first.as_mut(), steps).await {
            done.unwrap();
            break;
        }
        match try_copy(&from, &to).await {
            Ok(_) => slept += 1,
            // The first was at its last word.
            Err(error) => assert!(error.to_string().contains("aliases already"), "{steps} steps: {error}"),
        }
        let store = serve(&to).await;
        assert_eq!(send_to_all(&store, 1).await, [Answer::Granted; ROWS as usize], "{steps} steps");
        let woken = first.await;
        let store = still_serving(store, &to).await;
        assert_eq!(send_to_all(&store, 2).await, [Answer::Over; ROWS as usize], "{steps} steps: {woken:?}");
        is_told_well(&woken, steps);
        end(store).await;
        steps += 1 + steps / 5;
    }
    assert!(slept > 10, "it slept {slept} times");
}

/// The node that served, or the next one: a run that was woken up just after it looked may stop nodes for a moment.
async fn still_serving(store: Store, place: &Place) -> Store {
    if store.check().await.is_ready() {
        return store;
    }
    end(store).await;
    serve(place).await
}

fn is_told_well(woken: &Result<Copied, CopyError>, steps: u32) {
    let Err(error) = woken else { return };
    let error = error.to_string();
    // The last one is of a run that slept while it connected.
    let known = ["another run of this copy", "aliases already", "is served by", "cannot be used: no answer"];
    assert!(known.iter().any(|words| error.contains(words)), "{steps} steps: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_runs_at_once_one_goes_on() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let from = redis(&server.address(), &time);
    fill_with_rows(&from).await;
    for _ in 0..6 {
        let to = redis(&server.address(), &time);
        let (one, other) = tokio::join!(try_copy(&from, &to), try_copy(&from, &to));
        let refused = match (one, other) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused.to_string(),
            both => panic!("{both:?}"),
        };
        assert!(refused.contains("another run of this copy"), "{refused}");
        end(serve(&to).await).await;
        // And from there on, as from any store.
        try_copy(&to, &file(&folder, &time)).await.unwrap();
    }
}

/// A file needs no markers: whoever copies into it holds its lock, asleep or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_into_a_file_does_not_begin() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let (from, to) = (redis(&server.address(), &time), file(&folder, &time));
    fill_with_rows(&from).await;
    let source = Offline::source(from.clone()).await.unwrap();
    let first = Target::open(to.clone(), source.origin()).await.unwrap();
    let error = try_copy(&from, &to).await.unwrap_err().to_string();
    assert!(error.contains("already in use"), "{error}");
    drop(first);
    try_copy(&from, &to).await.unwrap();
}

/// What stands in every bucket while a copy goes on is of one run; a store that is served has a marker of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_run_has_a_marker_and_so_has_the_finished_copy() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let (from, to) = (file(&folder, &time), redis(&server.address(), &time));
    fill_with_rows(&from).await;
    let Place::Redis(options) = &to else { panic!("a Redis") };
    let name = |rest: &str| format!("{}:{rest}", options.namespace);
    let marker = || server.cli(&["GET", &name("{b123}:marker")]);
    end(serve(&to).await).await;
    let mut markers = vec![marker()];
    for _ in 0..2 {
        let source = Offline::source(from.clone()).await.unwrap();
        drop(Target::open(to.clone(), source.origin()).await.unwrap());
        markers.push(marker());
        // As if it had been cut short while it began or ended.
        server.cli(&["SET", &name("{b007}:marker"), &markers[0]]);
        server.cli(&["DEL", &name("{b008}:marker")]);
        let error = Offline::source(to.clone()).await.unwrap_err().to_string();
        assert!(error.contains("unfinished copy"), "{error}");
    }
    try_copy(&from, &to).await.unwrap();
    markers.push(marker());
    let different: std::collections::BTreeSet<&String> = markers.iter().collect();
    assert_eq!(different.len(), markers.len(), "{markers:?}");
    assert_eq!(server.cli(&["GET", &name("{b007}:marker")]), marker());
    end(serve(&to).await).await;
}

/// A run wrote down that it begins just after another had finished, and died: nothing of it may stay in the way, and
/// nothing may be copied over what was served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_came_too_late_is_let_go() {
    let time = Time::new();
    let server = Server::start(&[]);
    let (from, to) = (redis(&server.address(), &time), redis(&server.address(), &time));
    fill_with_rows(&from).await;
    try_copy(&from, &to).await.unwrap();
    let source = Offline::source(from.clone()).await.unwrap();
    let Place::Redis(options) = &to else { panic!("a Redis") };
    let copying = format!("{}:{{copying}}", options.namespace);
    server.cli(&["SET", &copying, &format!("claimed\n2 ff 9\n{}\nx", source.origin().id)]);
    assert!(try_serve(&to).await.is_err());
    let error = try_copy(&from, &to).await.unwrap_err().to_string();
    assert!(error.contains("aliases already"), "{error}");
    end(serve(&to).await).await;
}

/// An index that is lost after its rows were compared would be told only by the nodes that serve the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_lost_at_the_very_end_is_seen() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let (from, to) = (file(&folder, &time), redis(&server.address(), &time));
    let store = serve(&from).await;
    fill(&store, &time).await;
    let wanted = see(&store).await;
    end(store).await;
    let Place::Redis(options) = &to else { panic!("a Redis") };
    // One with a row, and one without.
    for bucket in ["b020", "b3fe"] {
        let index = format!("{}:{{{bucket}}}:index", options.namespace);
        let mut is_done = false;
        let lose = |progress: Progress| {
            let is_last = progress.stage == Stage::Comparing && progress.done == progress.total;
            if is_last && !std::mem::replace(&mut is_done, true) {
                assert_eq!(server.cli(&["DEL", &index]), "1");
            }
        };
        try_copy_watched(&from, &to, lose).await.unwrap_err();
        assert!(try_serve(&to).await.is_err(), "{bucket}");
    }
    for _ in 0..3 {
        if try_copy(&from, &to).await.is_ok() {
            break;
        }
    }
    let store = serve(&to).await;
    see(&store).await.assert_is(&wanted);
    end(store).await;
}

/// A node may have begun to serve either side while it was copied: what it changed is not in the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_while_a_copy_goes_on_spoils_it() {
    let time = Time::new();
    let server = Server::start(&[]);
    let (from, to) = (redis(&server.address(), &time), redis(&server.address(), &time));
    fill_with_rows(&from).await;
    for place in [&from, &to] {
        let Place::Redis(options) = place else { panic!("a Redis") };
        let lease = format!("{}:{{b000}}:lease:1:1", options.namespace);
        let watch = |progress: Progress| {
            if progress.stage == Stage::Comparing {
                server.cli(&["SET", &lease, "a-late-node"]);
            }
        };
        let error = try_copy_watched(&from, &to, watch).await.unwrap_err().to_string();
        assert!(error.contains("served by a-late-node"), "{error}");
        assert!(try_serve(&to).await.is_err(), "it may not be whole");
        assert_eq!(server.cli(&["DEL", &lease]), "1");
    }
    try_copy(&from, &to).await.unwrap();
    end(serve(&to).await).await;
}

/// What the scripts compare before they write, at moments that a run seldom sleeps through.
#[test]
fn what_another_run_has_written_stays() {
    let server = Server::start(&[]);
    let run = |script: &str, keys: &[&str], args: &[&str]| {
        let count = keys.len().to_string();
        server.cli(&[&["EVAL", script, &count], keys, args].concat())
    };
    let remark =
        |args: &[&str]| run(include_str!("../../src/redis/lua/remark.lua"), &["{a}marker", "{a}index"], args);
    assert_eq!(remark(&["one", "begin", ""]), "one", "there was none");
    assert_eq!(remark(&["one", "begin", ""]), "one", "said twice");
    assert_eq!(remark(&["two", "begin", ""]), "one", "there is one by now");
    assert_eq!(remark(&["two", "begin", "zero", "one"]), "two");
    assert_eq!(remark(&["last", "end", "one"]), "two", "the first run ends too late");
    assert_eq!(server.cli(&["DEL", "{a}index"]), "1");
    assert!(remark(&["last", "end", "two"]).starts_with("NOTOURS"), "the index is lost");
    assert_eq!(server.cli(&["GET", "{a}marker"]), "two");

    let claim =
        |args: &[&str]| run(include_str!("../../src/redis/lua/copying_claim.lua"), &["{copying}"], args);
    let note =
        |args: &[&str]| run(include_str!("../../src/redis/lua/copying_note.lua"), &["{copying}"], args);
    assert_eq!(note(&["one"]), "gone");
    assert!(note(&["one", "x\none\ny\nz"]).starts_with("NOTOURS"), "it would begin anew");
    assert_eq!(claim(&["", "\none\ny\nz"]), "\none\ny\nz");
    assert_eq!(claim(&["", "\ntwo\ny\nz"]), "\none\ny\nz", "there is one by now");
    assert_eq!(claim(&["\none\ny\nz", "\ntwo\ny\nz"]), "\ntwo\ny\nz");
    for args in [&["one", "ff\none\ny\nz"][..], &["one"]] {
        assert!(note(args).starts_with("NOTOURS"), "{args:?}");
    }
    assert_eq!(note(&["two", "ff\ntwo\ny\nz"]), "done");
    assert_eq!(server.cli(&["GET", "{copying}"]), "ff\ntwo\ny\nz");
    assert_eq!((note(&["two"]), note(&["two"])), ("done".to_owned(), "gone".to_owned()));
}
