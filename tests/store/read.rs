use aldis::id::{Namespace, RunKey, Seq};
use aldis::store::{Commit, Filter, NewRun};

use crate::support::*;

each_store! {
    async fn a_run_is_found_by_its_id_in_its_namespace(store) {
        let held = store.begun("r-1").await;
        let found = store.find(&Namespace::default(), &id("r-1")).await.unwrap().unwrap();
        assert_eq!(found, store.row(held.run).await);
        assert_eq!(store.find(&Namespace::default(), &id("r-2")).await.unwrap(), None);
        assert_eq!(store.find(&Namespace::parse("other").unwrap(), &id("r-1")).await.unwrap(), None);
        assert_eq!(store.get(RunKey(9_999_999)).await.unwrap(), None);
    }

    async fn runs_are_listed_newest_first_page_by_page(store) {
        let mut runs = Vec::new();
        for n in 0..5 {
            runs.insert(0, store.begun(&format!("r-{n}")).await.run);
        }
        let page = store.list(&Filter::default(), 2).await.unwrap();
        assert_eq!(page.iter().map(|run| run.key).collect::<Vec<_>>(), runs[..2]);
        let next = Filter { before: Some(page[1].key), ..Filter::default() };
        let page = store.list(&next, 10).await.unwrap();
        assert_eq!(page.iter().map(|run| run.key).collect::<Vec<_>>(), runs[2..]);
    }

    async fn lists_and_counts_keep_to_their_filter(store) {
        let (first, second) = (store.begun("r-1").await, store.waiting("r-2").await);
        let other = NewRun { workflow: "report".into(), ..new_run(store.key().await, "r-3") };
        let other = store.applied(beginning(other)).await;
        let tenant = Namespace::parse("tenant-2").unwrap();
        let theirs = NewRun { namespace: tenant.clone(), ..new_run(store.key().await, "r-1") };
        let theirs = store.applied(beginning(theirs)).await;
        let listed = async |filter: Filter| {
            store.list(&filter, 9).await.unwrap().into_iter().map(|run| run.key).collect::<Vec<_>>()
        };
        let default = Some(Namespace::default());
        assert_eq!(listed(Filter { namespace: Some(tenant.clone()), ..Filter::default() }).await, [theirs.run]);
        assert_eq!(listed(Filter { workflow: Some("report".into()), ..Filter::default() }).await, [other.run]);
        let statuses = vec!["running".to_owned(), "due".to_owned()];
        assert_eq!(
            listed(Filter { namespace: default, statuses, ..Filter::default() }).await,
            [other.run, first.run]
        );
        let waiting = Filter { statuses: vec!["waiting".into()], ..Filter::default() };
        assert_eq!(listed(waiting).await, [second.run]);
        let counted = |workflow: &str, status: &str, n| (workflow.to_owned(), status.to_owned(), n);
        assert_eq!(
            store.counts(Some(&Namespace::default())).await.unwrap(),
            [counted("order", "running", 1), counted("order", "waiting", 1), counted("report", "running", 1)]
        );
        assert_eq!(store.counts(None).await.unwrap()[0], counted("order", "running", 2));
    }

    async fn an_outcome_is_the_last_line_of_a_closed_run(store) {
        let held = store.begun("r-1").await;
        assert_eq!(store.outcome(held.run).await.unwrap(), None);
        store.applied(Commit { at: at(99), lines: lines(99, [finished("1"), completed()]), ..held.completes() }).await;
        let last = store.outcome(held.run).await.unwrap().unwrap();
        assert_eq!((last.seq, last.at, last.event), (Seq(3), at(99), completed()));
    }

    async fn a_reader_sees_what_was_acknowledged(store) {
        for n in 0..50 {
            let held = store.begun(&format!("r-{n}")).await;
            assert_eq!(store.row(held.run).await.head, Seq(1));
        }
    }
}
