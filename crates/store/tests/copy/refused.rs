//! What is no source and what is no target.

use std::time::Duration;

use tempalias_store::copy::{CopyError, Offline, Place, Source, Target};
use tempalias_store::{Adopted, Created};

use crate::fixture::{Time, end, file, fill, limits, path, redis, row, serve, try_copy, try_serve};
use crate::servers::Server;

async fn refusal(from: &Place, to: &Place) -> String {
    try_copy(from, to).await.expect_err("it was copied").to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_that_are_served_or_hold_something_are_refused() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let on_server = |_| redis(&server.address(), &time);
    let (full_file, full_redis) = (file(&folder, &time), on_server(1));
    for full in [&full_file, &full_redis] {
        for empty in [file(&folder, &time), on_server(2)] {
            let store = serve(full).await;
            let is_first = store.list(None, 1).await.unwrap().is_empty();
            if is_first {
                let made = store.create(row(1, limits(1, None)), &[], None).await;
                assert_eq!(made, Ok(Created::Done));
            }
            let error = refusal(full, &empty).await;
            assert!(error.contains("served by a-node") || error.contains("already in use"), "{error}");
            end(store).await;
            // A target, too, may have a node that waits for aliases.
            let waiting = serve(&empty).await;
            let error = refusal(full, &empty).await;
            assert!(error.contains("served by a-node") || error.contains("already in use"), "{error}");
            end(waiting).await;
            // An empty store that was served once is as good as none.
            try_copy(full, &empty).await.unwrap();
            // But not twice.
            let error = refusal(full, &empty).await;
            assert!(error.contains("holds 1 aliases already"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_copies_at_once_into_one_server_one_goes_on() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let sources = [file(&folder, &time), file(&folder, &time)];
    for (place, first) in sources.iter().zip([1, 101]) {
        let store = serve(place).await;
        for number in first..first + 20 {
            let made = store.create(row(number, limits(1, None)), &[], None).await;
            assert_eq!(made, Ok(Created::Done));
        }
        end(store).await;
    }
    for _ in 0..10 {
        server.cli(&["FLUSHALL"]);
        let to = redis(&server.address(), &time);
        let (one, other) = tokio::join!(try_copy(&sources[0], &to), try_copy(&sources[1], &to));
        let refused = match (one, other) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused.to_string(),
            both => panic!("{both:?}"),
        };
        assert!(refused.contains("unfinished copy") || refused.contains("holds 20 aliases"), "{refused}");
        let store = serve(&to).await;
        assert_eq!(store.list(None, 100).await.unwrap().len(), 20, "of one of them");
        end(store).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_there_is_not_made() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let (none, to) = (file(&folder, &time), file(&folder, &time));
    assert!(refusal(&none, &to).await.contains("there is no store at"));
    assert!(!path(&none).exists() && !path(&to).exists());
    let empty = redis(&server.address(), &time);
    assert!(refusal(&empty, &to).await.contains("holds no tempalias store"));
    assert_eq!(server.cli(&["DBSIZE"]), "0");
    assert!(!path(&to).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_store_is_not_copied_onto_itself() {
    let time = Time::new();
    let server = Server::start(&[]);
    let place = redis(&server.address(), &time);
    end(serve(&place).await).await;
    let error = try_copy(&place, &place).await.unwrap_err();
    assert!(matches!(error, CopyError::Same(..)), "{error}");
    assert_eq!(server.cli(&["EXISTS", "copy:{copying}"]), "0");
    end(serve(&place).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_has_lost_a_part_is_no_source() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let from = redis(&server.address(), &time);
    let Place::Redis(options) = &from else { panic!("a Redis") };
    end(serve(&from).await).await;
    let lose = |what: &str| server.cli(&["DEL", &format!("{}:{{b3ff}}:{what}", options.namespace)]);
    let adopt = async || tempalias_store::adopt(options).await.unwrap();
    for what in ["marker", "index"] {
        assert_eq!(lose(what), "1");
        let error = refusal(&from, &file(&folder, &time)).await;
        assert!(error.contains("1 of 1024 parts"), "{what}: {error}");
        assert_eq!(adopt().await, Adopted::Mended { parts: 1, of: 1024, aliases: 0 });
    }
}

/// Nor one that loses it while it is copied: what the lost list had would be missing on both sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_lost_while_it_is_copied_ends_the_copy() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let from = redis(&server.address(), &time);
    let Place::Redis(options) = &from else { panic!("a Redis") };
    let store = serve(&from).await;
    fill(&store, &time).await;
    end(store).await;
    let source = Offline::source(from.clone()).await.unwrap();
    let target = Target::open(file(&folder, &time), source.origin()).await.unwrap();
    let indexes = format!(
        "for i = 1, 1023 do redis.call('DEL', string.format('{}:{{b%03x}}:index', i)) end",
        options.namespace
    );
    server.cli(&["EVAL", &indexes, "0"]);
    let error = tempalias_store::copy::copy(&source, &target, |_| ()).await.unwrap_err().to_string();
    assert!(error.contains("threw some away"), "{error}");
}

/// Half a copy is nothing that can be served, copied, adopted, or filled from elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_copy_is_good_for_nothing_else() {
    let (folder, time) = (tempfile::tempdir().unwrap(), Time::new());
    let server = Server::start(&[]);
    let (from, other) = (file(&folder, &time), file(&folder, &time));
    for place in [&from, &other] {
        let store = serve(place).await;
        fill(&store, &time).await;
        end(store).await;
    }
    for to in [file(&folder, &time), redis(&server.address(), &time)] {
        let source = Offline::source(from.clone()).await.unwrap();
        drop(Target::open(to.clone(), source.origin()).await.unwrap());
        drop(source);
        let error = try_serve(&to).await.unwrap_err().to_string();
        assert!(error.contains("unfinished copy of sqlite:") && error.contains("db copy"), "{error}");
        let error = Offline::source(to.clone()).await.unwrap_err().to_string();
        assert!(error.contains("unfinished copy of sqlite:"), "{error}");
        let error = refusal(&other, &to).await;
        assert!(
            error.contains("holds an unfinished copy of") && error.contains("finish that one"),
            "{error}"
        );
        if let Place::Redis(options) = &to {
            let error = tempalias_store::adopt(options).await.unwrap_err().to_string();
            assert!(error.contains("unfinished copy of sqlite:"), "{error}");
        }
        try_copy(&from, &to).await.unwrap();
        end(serve(&to).await).await;
    }
}

/// A node that was there before the copy, and whose lease nobody saw, stops serving.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_serves_half_a_copy_stops() {
    let time = Time::new();
    let server = Server::start(&[]);
    let to = redis(&server.address(), &time);
    let store = serve(&to).await;
    let Place::Redis(options) = &to else { panic!("a Redis") };
    server.cli(&["SET", &format!("{}:{{copying}}", options.namespace), "\nsome source\nsome source"]);
    for _ in 0..3000 {
        if !store.check().await.is_ready() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it goes on serving");
}
