use aldis::store::{Chunk, Commit, Fault, Faults, Options};

use crate::support::*;

fn chunk(stream: &str, part: &str, value: &str) -> Chunk {
    Chunk { stream: stream.into(), part: part.into(), value: json(value) }
}

each_store! {
    async fn appended_values_are_read_in_order_with_their_places(store) {
        let held = store.begun("r-1").await;
        store.append(held.run, vec![chunk("out", "3#1", "1"), chunk("out", "3#1", "2")], at(20)).await.unwrap();
        store.append(held.run, vec![chunk("out", "3#2", r#"{"n":3}"#)], at(30)).await.unwrap();
        let read = store.read_stream(held.run, "out", 0, 9).await.unwrap();
        let read: Vec<_> =
            read.iter().map(|it| (it.offset, it.part.as_str(), it.at.0, it.value.as_str())).collect();
        assert_eq!(read, [(1, "3#1", 20, "1"), (2, "3#1", 20, "2"), (3, "3#2", 30, r#"{"n":3}"#)]);
    }

    async fn reading_resumes_after_a_place_and_keeps_to_its_limit(store) {
        let held = store.begun("r-1").await;
        let chunks = (0..10).map(|n| chunk("out", "code", &n.to_string())).collect();
        store.append(held.run, chunks, at(20)).await.unwrap();
        let read = store.read_stream(held.run, "out", 4, 3).await.unwrap();
        assert_eq!(read.iter().map(|it| it.offset).collect::<Vec<_>>(), [5, 6, 7]);
        assert_eq!(store.read_stream(held.run, "out", 10, 3).await.unwrap(), []);
    }

    async fn streams_and_runs_count_on_their_own(store) {
        let (one, two) = (store.begun("r-1").await, store.begun("r-2").await);
        store.append(one.run, vec![chunk("a", "code", "1"), chunk("b", "code", "2")], at(20)).await.unwrap();
        store.append(two.run, vec![chunk("a", "code", "3")], at(20)).await.unwrap();
        for (run, stream, value) in [(one.run, "a", "1"), (one.run, "b", "2"), (two.run, "a", "3")] {
            let read = store.read_stream(run, stream, 0, 9).await.unwrap();
            assert_eq!(read.iter().map(|it| (it.offset, it.value.as_str())).collect::<Vec<_>>(), [(1, value)]);
        }
    }

    async fn a_commits_values_follow_those_appended_before(store) {
        let held = store.begun("r-1").await;
        store.append(held.run, vec![chunk("out", "3#1", "1")], at(20)).await.unwrap();
        let chunks = vec![chunk("out", "code", "2"), chunk("log", "code", "0"), chunk("out", "code", "3")];
        store.applied(Commit { chunks, ..held.adds([finished("1")]) }).await;
        let read = store.read_stream(held.run, "out", 0, 9).await.unwrap();
        let read: Vec<_> = read.iter().map(|it| (it.offset, it.value.as_str(), it.at.0)).collect();
        assert_eq!(read, [(1, "1", 20), (2, "2", 10), (3, "3", 10)]);
    }

    async fn values_appended_together_keep_each_senders_order(store) {
        let held = store.begun("r-1").await;
        let senders = (0..8).map(|sender| {
            let store = (**store).clone();
            let run = held.run;
            tokio::spawn(async move {
                for n in 0..10 {
                    let chunks = vec![chunk("out", &format!("{sender}#1"), &n.to_string())];
                    store.append(run, chunks, at(20)).await.unwrap();
                }
            })
        });
        for sender in senders.collect::<Vec<_>>() {
            sender.await.unwrap();
        }
        let read = store.read_stream(held.run, "out", 0, 100).await.unwrap();
        assert_eq!(read.iter().map(|it| it.offset).collect::<Vec<_>>(), (1..=80).collect::<Vec<_>>());
        for sender in 0..8 {
            let part = format!("{sender}#1");
            let of_sender: Vec<_> =
                read.iter().filter(|it| it.part == part).map(|it| it.value.read::<i64>().unwrap()).collect();
            assert_eq!(of_sender, (0..10).collect::<Vec<_>>());
        }
    }

    // An append whose answer was lost is recognised wherever in the stream it stands by now.
    async fn an_append_whose_answer_was_lost_stands_there_once_although_others_append(store) {
        let held = store.begun("r-1").await;
        let (others, run) = ((**store).clone(), held.run);
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let others = tokio::spawn(async move {
            let mut appended = 0;
            while !stopped.load(std::sync::atomic::Ordering::SeqCst) {
                others.append(run, vec![chunk("out", "other", "0")], at(20)).await.unwrap();
                appended += 1;
            }
            appended
        });
        // The same value again and again, at the same time: only the sender knows which is which.
        for _ in 0..5 {
            let options = Options { faults: Some(Faults::at(1, Fault::LoseAnswer)), ..Options::default() };
            let shaky = store.elsewhere_with(options).await;
            shaky.append(held.run, vec![chunk("out", "shaky", "7"), chunk("log", "shaky", "7")], at(20)).await.unwrap();
            shaky.close().await;
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        let appended: usize = others.await.unwrap();
        let read = store.read_stream(held.run, "out", 0, 1_000_000).await.unwrap();
        assert_eq!(read.iter().filter(|it| it.part == "shaky").count(), 5);
        assert_eq!(read.len(), appended + 5);
        assert!(read.iter().map(|it| it.offset).eq(1..=read.len() as i64), "no gap");
        assert_eq!(store.read_stream(held.run, "log", 0, 100).await.unwrap().len(), 5);
    }

    async fn writers_of_several_processes_append_to_one_stream(store) {
        let held = store.begun("r-1").await;
        let options = || Options { writers: 4, ..Options::default() };
        let stores = [store.elsewhere_with(options()).await, store.elsewhere_with(options()).await];
        let senders: Vec<_> = (0..8)
            .map(|n| {
                let (store, run) = (stores[n % 2].clone(), held.run);
                tokio::spawn(async move {
                    for i in 0..20 {
                        let chunks = vec![chunk("out", &n.to_string(), &i.to_string())];
                        store.append(run, chunks, at(20)).await.unwrap();
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await.unwrap();
        }
        let read = store.read_stream(held.run, "out", 0, 1_000).await.unwrap();
        assert!(read.iter().map(|it| it.offset).eq(1..=160));
        for n in 0..8 {
            let of_sender = read.iter().filter(|it| it.part == n.to_string()).map(|it| it.value.read::<i64>().unwrap());
            assert!(of_sender.eq(0..20), "the order of sender {n}");
        }
        for store in stores {
            store.close().await;
        }
    }

    async fn appending_counts_as_no_commit(store) {
        let held = store.begun("r-1").await;
        let before = store.stats();
        store.append(held.run, vec![chunk("out", "code", "1")], at(20)).await.unwrap();
        store.append(held.run, Vec::new(), at(20)).await.unwrap();
        let after = store.stats();
        assert_eq!((after.logical_commits, after.physical_commits), (before.logical_commits, before.physical_commits));
        assert_eq!(after.physical_writes - before.physical_writes, 1);
    }
}
