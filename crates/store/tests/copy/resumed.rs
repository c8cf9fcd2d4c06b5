//! A copy that is cut anywhere goes on; one that came out wrong is told, and mended.

use std::pin::pin;

use tempalias_alias::UnixTime;
use tempalias_store::copy::{CopyError, Offline, Place, Progress, Source, Stage, Target, copy};
use tempalias_store::{Change, Created, Store};

use crate::fixture::{
    Time, end, file, fill, for_steps, key, limits, make_many, path, redis, row, see, serve, try_copy,
    try_copy_watched, try_serve, until_free,
};
use crate::servers::Server;

/// More than two pages of either kind of store.
const MANY: u32 = 2_300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_is_dropped_anywhere_goes_on() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let full = file(&folder, &time);
    let store = serve(&full).await;
    let some = fill(&store, &time).await;
    make_many(&store, MANY).await;
    let wanted = see(&store).await;
    end(store).await;
    let pairs = [(full.clone(), redis(&server.address(), &time)), (full.clone(), file(&folder, &time))];
    let mut from_redis = None;
    for (from, to) in pairs {
        cut_often(&from, &to, some.rows + u64::from(MANY), &wanted).await;
        from_redis = Some(to).filter(|to| matches!(to, Place::Redis(_))).or(from_redis);
    }
    cut_often(&from_redis.unwrap(), &file(&folder, &time), some.rows + u64::from(MANY), &wanted).await;
}

async fn cut_often(from: &Place, to: &Place, rows: u64, wanted: &crate::fixture::Seen) {
    let (mut steps, mut cuts, mut resumed) = (1, 0, 0);
    loop {
        let source = Offline::source(from.clone()).await.unwrap();
        let target = Target::open(to.clone(), source.origin()).await.unwrap();
        resumed += u32::from(target.is_resumed());
        let mut last = None;
        let done = for_steps(pin!(copy(&source, &target, |progress| last = Some(progress))), steps).await;
        if let Some(done) = done {
            assert_eq!(done.unwrap().rows, rows);
            break;
        }
        drop((source, target));
        until_free(from).await;
        until_free(to).await;
        match try_serve(to).await {
            // Its very last step was on its way when it was cut.
            Ok(store) => {
                let done = last.filter(|last| last.stage == Stage::Comparing && last.done == last.total);
                assert!(done.is_some(), "half a copy is served after {steps} steps: {last:?}");
                end(store).await;
                break;
            }
            Err(error) => assert!(error.to_string().contains("unfinished copy"), "{steps} steps: {error}"),
        }
        (steps, cuts) = (steps + 1 + steps / 8, cuts + 1);
    }
    assert!(cuts > 5 && resumed > 2, "{from:?} to {to:?}: {cuts} cuts, {resumed} times something was there");
    let store = serve(to).await;
    see(&store).await.assert_is(wanted);
    end(store).await;
}

/// Begins a copy and drops it as soon as it has come so far.
async fn cut_when(from: &Place, to: &Place, is_so_far: impl Fn(Progress) -> bool) {
    let source = Offline::source(from.clone()).await.unwrap();
    let target = Target::open(to.clone(), source.origin()).await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let watch = move |progress: Progress| {
        if is_so_far(progress) {
            tell.send(()).unwrap_or_default();
        }
    };
    tokio::select! {
        biased;
        _ = told.recv() => {}
        _ = copy(&source, &target, watch) => panic!("it was not cut"),
    }
    drop((source, target));
    until_free(from).await;
    until_free(to).await;
}

/// A resumed copy does not begin at the first row again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_is_not_done_again() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let from = file(&folder, &time);
    let store = serve(&from).await;
    make_many(&store, MANY).await;
    end(store).await;
    for to in [file(&folder, &time), redis(&server.address(), &time)] {
        // Until the second page is there.
        cut_when(&from, &to, |progress| progress.done >= 2000 && progress.stage == Stage::Copying).await;
        let mut first = None;
        let watch = |progress: Progress| first = first.or(Some(progress.done));
        assert_eq!(try_copy_watched(&from, &to, watch).await.unwrap().rows, u64::from(MANY));
        assert!(first.unwrap() >= 2000, "it began at {first:?}");
    }
}

/// Changes the target behind the copy's back when the comparison begins; what the copy says of it.
async fn altered(from: &Place, to: &Place, mut alter: impl FnMut()) -> CopyError {
    let mut is_done = false;
    let watch = |progress: Progress| {
        if progress.stage == Stage::Comparing && !std::mem::replace(&mut is_done, true) {
            alter();
        }
    };
    try_copy_watched(from, to, watch).await.unwrap_err()
}

/// The same, if it is one difference; in words.
async fn differing(from: &Place, to: &Place, alter: impl FnMut()) -> String {
    let error = altered(from, to, alter).await;
    let CopyError::Differs(differences) = &error else { panic!("{error}") };
    assert_eq!(differences.count, 1, "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_changes_in_between_is_found_and_mended() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let from = file(&folder, &time);
    let store = serve(&from).await;
    fill(&store, &time).await;
    let wanted = see(&store).await;
    end(store).await;
    let eight = "08".repeat(16);

    // What stands in the file beside the rows. (Rows that were altered there are told as damage.)
    let in_sql = [
        ("DELETE FROM reply WHERE hex(name) = '05050505050505050505050505050505'", "a reply"),
        (
            "UPDATE rate SET full_at = full_at + 1 WHERE hex(tag) = '01010101010101010101010101010101'",
            "a rate limit: not the same",
        ),
    ];
    for (sql, words) in in_sql {
        let to = file(&folder, &time);
        let alter = || in_file(&to, sql);
        let error = differing(&from, &to, alter).await;
        assert!(error.contains(words) && error.contains("cannot be served"), "{sql}: {error}");
        mended(&from, &to, &wanted).await;
    }

    let on_redis: [(&[&str], &str); 4] = [
        (&["HINCRBY", "{row}", "u", "1"], "not the same: uses"),
        (&["DEL", "{row}"], "missing in the copy"),
        (&["DEL", "{claims}"], "not the same: claims"),
        (&["DEL", "{once}"], "a reply"),
    ];
    for (command, words) in on_redis {
        let to = redis(&server.address(), &time);
        let Place::Redis(options) = &to else { panic!("a Redis") };
        let name = |word: &str| {
            let word = word.replace("{row}", &format!("NS:{{b020}}:row:{eight}"));
            let word = word.replace("{claims}", &format!("NS:{{b020}}:claims:{eight}"));
            word.replace("{once}", &format!("NS:{{once:{}}}", "05".repeat(16)))
                .replace("NS", &options.namespace)
        };
        let command: Vec<String> = command.iter().map(|word| name(word)).collect();
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let alter = || assert_ne!(server.cli(&command), "0", "{command:?}");
        let error = differing(&from, &to, alter).await;
        assert!(error.contains(words), "{command:?}: {error}");
        mended(&from, &to, &wanted).await;
    }
}

fn in_file(place: &Place, sql: &str) {
    let changed = rusqlite::Connection::open(path(place)).unwrap().execute(sql, []);
    assert!(changed.unwrap() > 0, "{sql}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_damaged_in_between_is_not_served() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let (from, to) = (file(&folder, &time), file(&folder, &time));
    let store = serve(&from).await;
    fill(&store, &time).await;
    end(store).await;
    let alter = || in_file(&to, "UPDATE alias SET used = used + 1 WHERE length(row_key) > 0");
    let error = altered(&from, &to, alter).await.to_string();
    assert!(error.contains("damaged"), "{error}");
    assert!(try_serve(&to).await.is_err());
}

async fn mended(from: &Place, to: &Place, wanted: &crate::fixture::Seen) {
    assert!(try_serve(to).await.is_err(), "it is served although it differs");
    try_copy(from, to).await.unwrap();
    let store = serve(to).await;
    see(&store).await.assert_is(wanted);
    end(store).await;
}

/// Somebody brings the source back to life between two parts of the copy: rows that were copied change and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_lived_on_in_between_is_copied_as_it_is_then() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let pairs = [
        (file(&folder, &time), file(&folder, &time)),
        (file(&folder, &time), redis(&server.address(), &time)),
        (redis(&server.address(), &time), redis(&server.address(), &time)),
        (redis(&server.address(), &time), file(&folder, &time)),
    ];
    for (from, to) in pairs {
        let store = serve(&from).await;
        fill(&store, &time).await;
        // Two pages: what changes later is in the first one.
        make_many(&store, 1500).await;
        end(store).await;
        cut_when(&from, &to, |progress| progress.stage == Stage::Comparing).await;
        live_on(&from, time.now()).await;
        // Or it comes back from a backup that knows an alias less.
        let mut differing = 2;
        if let Place::Redis(options) = &from {
            let eight = "08".repeat(16);
            let (row, index) = (format!("{}:{{b020}}:row:{eight}", options.namespace), "\u{8}".repeat(16));
            assert_eq!(server.cli(&["DEL", &row]), "1");
            assert_eq!(server.cli(&["ZREM", &format!("{}:{{b020}}:index", options.namespace), &index]), "1");
            differing = 3;
        }
        // The first run finds what has changed, the second mends it.
        let error = try_copy(&from, &to).await.unwrap_err();
        let CopyError::Differs(differences) = &error else { panic!("{error}") };
        assert_eq!(differences.count, differing, "{error}");
        // A program that another test starts at this moment has the lock for as long.
        until_free(&from).await;
        until_free(&to).await;
        try_copy(&from, &to).await.unwrap();
        if let Place::Embedded(options) = &to {
            let file = rusqlite::Connection::open(&options.path).unwrap();
            let sql = "SELECT (SELECT sum(row_count) FROM server_key) - count(*) FROM alias WHERE length(row_key) > 0";
            assert_eq!(file.query_row(sql, [], |row| row.get(0)), Ok(0), "rows are counted under their keys");
        }
        let (from, to) = (serve(&from).await, serve(&to).await);
        see(&from).await.assert_is(&see(&to).await);
        end(from).await;
        end(to).await;
    }
}

async fn live_on(place: &Place, now: UnixTime) {
    let store: Store = serve(place).await;
    let made = store.create(row(0x33, limits(1, Some(now.plus(crate::fixture::DAY)))), &[], None).await;
    assert_eq!(made, Ok(Created::Done));
    store.change(key(5), Change::Remove).await.unwrap();
    end(store).await;
}
