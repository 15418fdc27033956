use aldis::id::Seq;
use aldis::journal::{Event, Recorded};
use aldis::run::{Closed, Status};
use aldis::store::Error;

use crate::support::*;

fn recorded(events: Vec<Event>) -> Vec<Recorded> {
    events.into_iter().zip(1..).map(|(event, n)| Recorded { seq: Seq(n), at: at(n * 100), event }).collect()
}

each_store! {
    async fn a_closed_run_is_kept_as_it_was(store) {
        let run = new_run(store.key().await, "r-1");
        let key = run.key;
        let journal = recorded(vec![started("r-1"), finished("1"), completed()]);
        store.import(run, journal.clone(), Some(Closed::Completed), at(900)).await.unwrap().unwrap();
        let past = store.past(key).await;
        assert_eq!(past.journal, journal);
        assert_eq!(past.run.status, Status::Closed { how: Closed::Completed, at: at(300) });
        assert_eq!(store.outcome(key).await.unwrap().unwrap().event, completed());
    }

    async fn an_open_run_waits_and_nobody_claims_it(store) {
        let run = new_run(store.key().await, "r-1");
        let key = run.key;
        store.import(run, recorded(vec![started("r-1")]), None, at(900)).await.unwrap().unwrap();
        assert_eq!(store.row(key).await.status, Status::Waiting { wake_at: None });
        assert_eq!(store.claim(ME, &knows(&["order v1"]), 9, at(9_999)).await.unwrap(), []);
    }

    async fn an_id_in_use_is_refused(store) {
        store.waiting("r-1").await;
        let run = new_run(store.key().await, "r-1");
        let refused = store.import(run, recorded(vec![started("r-1")]), None, at(900)).await.unwrap().unwrap_err();
        insta::assert_snapshot!(refused, @"run r-1 is open (waiting); choose another id, or ask to use the existing run");
    }

    async fn lines_with_a_gap_are_refused(store) {
        let run = new_run(store.key().await, "r-1");
        let mut journal = recorded(vec![started("r-1"), finished("1"), completed()]);
        journal.remove(1);
        let Err(Error::Corrupt { found }) = store.import(run, journal, None, at(900)).await else { panic!("kept") };
        insta::assert_snapshot!(found, @"the lines of imported run r-1 are not dense");
        assert!(store.all().await.is_empty());
    }
}
