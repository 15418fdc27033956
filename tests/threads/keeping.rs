//! Threads that are deleted under a run (case 19), copies, deleted messages, what is kept of a stream, and recordings.

use aldis::agent::Agent;
use aldis::agent::model::Models;
use aldis::id::ThreadKey;
use aldis::intake::Edit;
use aldis::runtime::Since;
use aldis::store::{Fault, Kind, MessageFilter, Page, Retain, SuspendedFilter};
use aldis::testing::Crash;
use serde_json::json;

use crate::common::{Puppet, about, agents, history, message, stream, thread};
use crate::support::kit;

each_store! {
    // Case 19, H10.5
    async fn a_thread_that_is_deleted_under_a_run_leaves_nothing_to_the_one_after_it(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        let mut subscription = thread.subscribe(Since::Now);
        subscription.ready().await?;
        thread.send_with(message("m1", "the old one"), <_>::default()).await?;
        let asked = strings.recv().await.expect("the model is asked");
        let (mut seen, mut cursor) = (vec![about(&subscription.next().await?.chunk)], 1);
        assert_eq!(seen, ["start"]);
        thread.send_with(message("m2", "pending"), <_>::default()).await?;
        let erased = thread.delete("ann").await?.expect("it was there");
        assert_eq!((erased.runs.len(), erased.untaken), (1, vec!["m2".to_owned()]));
        assert_eq!((thread.find().await?, thread.delete("ann").await?), (None, None));
        // Its model is cut, and what it has said is recorded nowhere.
        while asked.says("too late") {
            tokio::task::yield_now().await;
        }
        kit.settle().await?;
        thread.send_with(message("m1", "the new one"), <_>::default()).await?;
        let asked = strings.recv().await.expect("the model is asked");
        let prompt = asked.prompt();
        assert!(prompt.contains("the new one") && !prompt.contains("old") && !prompt.contains("pending"), "{prompt}");
        asked.answer("Hello");
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user the new one", "demo Hello"]);
        // Who has subscribed is told, and goes on with the new one, cursors ever growing.
        while seen.last().is_none_or(|last: &String| !last.starts_with("finish")) {
            let next = subscription.next().await?;
            assert!(next.cursor > cursor, "{} after {cursor}", next.cursor);
            cursor = next.cursor;
            seen.push(about(&next.chunk));
        }
        let told = seen.iter().position(|it| it == "data-thread-deleted").expect("it is told");
        assert_eq!(seen[told - 1], "abort");
        assert_eq!(seen[told + 1..told + 3], ["start", "data-user-message the new one"]);
        assert!(!seen.iter().any(|it| it.contains("too late")), "{seen:?}");
        kit.finish().await?;
    }

    // H10.7
    async fn a_message_that_is_deleted_is_not_read_by_the_runs_that_follow(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        thread.send_with(message("m1", "a secret"), <_>::default()).await?;
        let asked = strings.recv().await.expect("the model is asked");
        thread.send_with(message("m2", "more"), <_>::default()).await?;
        assert_eq!(thread.delete_messages(["m1", "none"]).await?, ["m1"]);
        asked.answer("one");
        // The same run, another step.
        let asked = strings.recv().await.expect("the model is asked");
        assert!(asked.prompt().contains("a secret"), "{}", asked.prompt());
        asked.answer("two");
        kit.run_to_rest().await?;
        thread.send_with(message("m3", "and now"), <_>::default()).await?;
        let asked = strings.recv().await.expect("the model is asked");
        assert!(!asked.prompt().contains("a secret") && asked.prompt().contains("more"), "{}", asked.prompt());
        asked.answer("three");
        kit.run_to_rest().await?;
        let page = thread.messages(&MessageFilter::page(Page::first(2))).await?;
        assert_eq!((page.items[0].id.as_str(), page.items.len(), page.total), ("m3", 2, 5));
        kit.finish().await?;
    }

    async fn a_copy_goes_on_by_itself(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let edit = Edit { title: Some("Rent".into()), metadata: Some(json!({ "kind": "x" })) };
        assert_eq!(thread.create(edit).await?.title, "Rent");
        thread.send("one").await?;
        kit.run_to_rest().await?;
        let copy = thread.copy_to("u", None, Edit::default()).await?;
        copy.send("two").await?;
        kit.run_to_rest().await?;
        assert_eq!(history(&copy).await?, ["user one", "demo one", "user two", "demo two"]);
        assert_eq!(history(&thread).await?, ["user one", "demo one"]);
        let copied = copy.find().await?.expect("the copy");
        assert_eq!((copied.title.as_str(), copied.metadata.as_str()), ("Rent", r#"{"kind":"x"}"#));
        let taken = thread.copy_to("u", None, Edit::default()).await.expect_err("it is there");
        assert_eq!(taken.code(), "thread_exists");
        kit.finish().await?;
    }

    // T11.10
    async fn a_cursor_whose_chunks_are_not_kept_any_longer_is_told_what_is(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        for text in ["one", "two"] {
            thread.send(text).await?;
            kit.run_to_rest().await?;
        }
        let last = stream(&kit, &thread).await?.len() as i64;
        let look = Retain { after: ThreadKey(0), threads: 9, chunks: 1_000, before: kit.now(), keep: 4 };
        kit.store().retain_chunks(look).await?;
        let gone = thread.subscribe(Since::Cursor(2)).next().await.expect_err("not kept");
        assert_eq!(gone.code(), "chunks_gone");
        assert_eq!(
            gone.to_string(),
            format!(
                "the chunks after cursor 2 are not kept any longer: the thread keeps those from {} on; subscribe after \
                 cursor {}, and read the history for what was said before",
                last - 3,
                last - 4
            )
        );
        for since in [Since::Cursor(last - 4), Since::Cursor(0)] {
            assert_eq!(thread.subscribe(since).next().await?.cursor, last - 3);
        }
        assert_eq!(thread.subscribe(Since::Cursor(last - 2)).next().await?.cursor, last - 1);
        kit.finish().await?;
    }

    // Case 19, through the crash harness.
    async fn a_deletion_holds_whatever_dies_around_it(kind) {
        let crash = Crash::of(move |_| agents(kind));
        let crash = match kind {
            Kind::Sqlite => crash,
            Kind::Postgres => crash.only([Fault::CrashAfter, Fault::LoseAnswer]),
        };
        let survived = crash
            .survives(async |world| {
                world
                    .ask(async |kit| {
                        let ask = "/call refund {\"order\":\"A-1\",\"cents\":1}";
                        Ok(thread(kit).send_with(message("m1", ask), <_>::default()).await?)
                    })
                    .await?;
                world.settle().await?;
                world.ask(async |kit| Ok(thread(kit).delete("ann").await?)).await?;
                world.settle().await?;
                let waiting = world.ask(async |kit| {
                    Ok(kit.suspended_runs(&SuspendedFilter::default(), Page::first(9)).await?.total)
                });
                assert_eq!(waiting.await?, 0, "nobody is asked any more");
                world
                    .ask(async |kit| Ok(thread(kit).send_with(message("m1", "Hello"), <_>::default()).await?))
                    .await?;
                world.run_to_rest().await?;
                world.ask(async |kit| Ok(history(&thread(kit)).await?)).await
            })
            .await?;
        assert_eq!(survived.value, ["user Hello", "demo Hello"]);
        assert!(survived.struck > 0, "{survived:?}");
    }

    async fn a_conversation_is_recorded_once_and_played_without_its_model(kind) {
        let place = tempfile::tempdir().expect("a place");
        let file = place.path().join("talk.json");
        let (models, mut strings) = Puppet::models();
        let agent = || Agent::new("demo").model("puppet/x");
        let live = kit(kind).agent(agent()).models(models).recorded(&file)?.start().await?;
        thread(&live).send("Hello").await?;
        strings.recv().await.expect("the model is asked").answer("Good morning");
        live.run_to_rest().await?;
        let told = history(&thread(&live)).await?;
        live.finish().await?;
        // No model of that name is there.
        let played = kit(kind).agent(agent()).models(Models::new()).recorded(&file)?.start().await?;
        thread(&played).send("Hello").await?;
        played.run_to_rest().await?;
        assert_eq!(history(&thread(&played)).await?, told);
        assert_eq!(told, ["user Hello", "demo Good morning"]);
        played.finish().await?;
    }
}
