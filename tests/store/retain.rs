//! Retention of what subscribers see (T11.10).

use aldis::id::ThreadKey;
use aldis::store::{Input, Retain, Store};
use aldis::thread::{IfIdle, Routing};

use crate::support::*;
use crate::threads::{claimed, ends, input, received};

/// All that is older than 1000 and all but the last 100 leaves.
fn asked() -> Retain {
    Retain { after: ThreadKey(0), threads: 100, chunks: 1_000, before: at(1_000), keep: 100 }
}

async fn idle(store: &Store, id: &str) -> ThreadKey {
    let routing = Routing { if_idle: IfIdle::Persist, ..Routing::default() };
    let thread = aldis::id::ThreadId::parse(id).unwrap();
    received(store, Input { routing, thread, ..input(store, id).await }).await.thread
}

async fn show(store: &Store, thread: ThreadKey, run: &str, n: usize, time: i64) {
    let chunk = json(&format!(r#"{{"type":"text-delta","runId":"{run}"}}"#));
    store.show(thread, "p", vec![chunk; n], at(time)).await.unwrap();
}

async fn kept(store: &Store, thread: ThreadKey) -> (i64, i64) {
    let kept = store.kept_chunks(thread).await.unwrap().unwrap();
    (kept.first, kept.last)
}

each_store! {
    async fn chunks_leave_by_age_and_by_number_and_the_last_one_stays(store) {
        // Each has three chunks of its beginning, from 10.
        let (old, young, many, both) =
            (idle(store, "a").await, idle(store, "b").await, idle(store, "c").await, idle(store, "d").await);
        show(store, young, "r", 5, 2_000).await;
        show(store, many, "r", 150, 2_000).await;
        show(store, both, "r", 5, 500).await;
        show(store, both, "r", 5, 1_000).await;
        let retained = store.retain_chunks(asked()).await.unwrap();
        assert_eq!(retained.next, ThreadKey(0), "all were looked at");
        assert_eq!(kept(store, old).await, (3, 3));
        assert_eq!(kept(store, young).await, (4, 8));
        assert_eq!(kept(store, many).await, (54, 153));
        assert_eq!(kept(store, both).await, (9, 13));
        assert_eq!(retained.chunks, 2 + 3 + 53 + 8);
        assert_eq!(store.retain_chunks(asked()).await.unwrap().chunks, 0);
        // It goes on counting.
        show(store, old, "r", 1, 3_000).await;
        assert_eq!(kept(store, old).await, (3, 4));
    }

    // T11.3: who subscribes sees the run from its first chunk on, however long it waits.
    async fn the_run_that_has_a_thread_keeps_its_chunks(store) {
        let thread = idle(store, "t").await;
        received(store, input(store, "s1").await).await;
        show(store, thread, "turn-s1", 200, 20).await;
        store.retain_chunks(asked()).await.unwrap();
        assert_eq!(kept(store, thread).await, (4, 203), "what came before it leaves");
        let turn = claimed(store, "turn-s1").await;
        store.applied(ends(&turn, thread)).await;
        store.retain_chunks(asked()).await.unwrap();
        assert_eq!(kept(store, thread).await, (203, 203));
    }

    async fn a_look_takes_a_bounded_piece_and_goes_on_where_it_was(store) {
        let mut threads = Vec::new();
        for n in 0..3 {
            let thread = idle(store, &format!("t{n}")).await;
            show(store, thread, "r", 17, 20).await;
            threads.push(thread);
        }
        let (mut after, mut rounds, mut gone) = (ThreadKey(0), 0, 0);
        loop {
            let look = Retain { after, threads: 2, chunks: 10, ..asked() };
            let retained = store.retain_chunks(look).await.unwrap();
            assert!(retained.chunks <= 10);
            (after, rounds, gone) = (retained.next, rounds + 1, gone + retained.chunks);
            if retained.chunks < 10 && after == ThreadKey(0) {
                break;
            }
        }
        assert_eq!(gone, 3 * 19);
        assert!(rounds >= 6, "{rounds}");
        for thread in threads {
            assert_eq!(kept(store, thread).await, (20, 20));
        }
    }

    async fn a_look_that_finds_nothing_writes_nothing(store) {
        let thread = idle(store, "t").await;
        show(store, thread, "r", 5, 2_000).await;
        store.retain_chunks(asked()).await.unwrap();
        let before = store.stats().physical_writes;
        store.retain_chunks(asked()).await.unwrap();
        assert_eq!(store.stats().physical_writes, before);
    }
}
