//! What becomes of inputs, seen from outside: many senders, repeats, odd names and contents, behaviours while a turn runs.

use std::collections::BTreeSet;

use aldis::agent::Agent;
use aldis::intake::SendOptions;
use aldis::message::{Attributes, Body, Category, Contents, NewSignal, Part, PromptMessage};
use aldis::runtime::{Action, Client, Since, ThreadHandle};
use aldis::store::Window;
use aldis::testing::Error;
use aldis::thread::{IfActive, IfIdle};
use serde_json::json;

use crate::common::{Puppet, agents, echoes, history, inputs, message, stream, text_of, thread};
use crate::support::kit;

fn attributes(json: serde_json::Value) -> Attributes {
    serde_json::from_value(json).expect("attributes")
}

/// So many senders at once on an idle thread: all are answered, each once, one run at a time.
async fn senders(client: &Client, thread: &ThreadHandle, number: usize) -> Result<BTreeSet<String>, Error> {
    let senders = (0..number).map(|n| {
        let thread = thread.clone();
        tokio::spawn(async move { thread.signal(message(&format!("m{n}"), &format!("text {n};"))).await })
    });
    let mut woken = BTreeSet::new();
    for sent in futures::future::join_all(senders).await {
        let sent = sent.expect("a sender")?;
        assert!(!sent.repeat);
        let run = sent.run.expect("a run").to_string();
        match sent.action {
            Action::Wake => assert!(woken.insert(run), "two wake one run"),
            Action::Deliver => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(!woken.is_empty());
    assert!(client.find(woken.first().expect("one")).await.is_ok());
    Ok(woken)
}

each_store! {
    // T10.13
    async fn of_two_eight_and_a_hundred_senders_at_once_all_are_answered(kind) {
        for number in [2, 8, 100] {
            let kit = kit(kind).agent(Agent::new("demo").memory(10_000)).start().await?;
            let thread = thread(&kit);
            senders(&kit, &thread, number).await?;
            kit.run_to_rest().await?;
            assert_eq!(inputs(&thread).await?.len(), number);
            let echoes = echoes(&stream(&kit, &thread).await?);
            assert!(echoes.len() == number && echoes.values().all(|times| *times == 1), "{echoes:?}");
            let (mut asked, mut answered) = (String::new(), String::new());
            for message in thread.history(Window::latest(i64::MAX, 1_000)).await? {
                match message.body {
                    Body::Signal(signal) => asked.push_str(&signal.contents.all_text()),
                    Body::Assistant(reply) => answered.push_str(&text_of(&reply).replace('\n', "")),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(asked, answered);
            kit.finish().await?;
        }
    }

    // T9.7: what is sent while a turn runs is answered before what was queued earlier; T9.3: queued ones in their order.
    async fn what_is_sent_is_answered_before_what_was_queued_earlier(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        thread.send("one").await?;
        let asked = strings.recv().await.unwrap();
        let first = thread.queue("queued one").await?;
        let second = thread.queue("queued two").await?;
        let joined = thread.send("two").await?;
        assert_eq!([first.action, second.action, joined.action], [Action::Deliver; 3]);
        assert_eq!(thread.find().await?.unwrap().queued, 2);
        assert_eq!(BTreeSet::from([&first.run, &second.run, &joined.run]).len(), 3);
        asked.answer("1");
        for (text, answer) in [("two", "2"), ("queued one", "3"), ("queued two", "4")] {
            let asked = strings.recv().await.unwrap();
            assert!(asked.prompt().contains(text) && !asked.prompt().contains(&format!("{text} 2")), "{}", asked.prompt());
            asked.answer(answer);
        }
        kit.run_to_rest().await?;
        assert_eq!(
            history(&thread).await?,
            ["user one", "demo 1", "user two", "demo 2", "user queued one", "demo 3", "user queued two", "demo 4"]
        );
        assert_eq!(echoes(&stream(&kit, &thread).await?).len(), 4);
        kit.finish().await?;
    }

    // T20.4
    async fn one_id_sent_by_many_at_once_is_taken_once_and_other_contents_are_refused(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let texts = ["same", "same", "other", "same", "other", "same"].repeat(4);
        let sends = texts.iter().map(|text| thread.signal(message("m1", text)));
        let answers = futures::future::join_all(sends).await;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        let taken = lines[0].strip_prefix("user ").unwrap();
        assert_eq!(lines, [format!("user {taken}"), format!("demo {taken}")]);
        let mut first = None;
        for (text, answer) in texts.iter().zip(answers) {
            match answer {
                Ok(sent) => {
                    assert_eq!(*text, taken);
                    assert_eq!(sent.action, Action::Wake);
                    assert_eq!(*first.get_or_insert(sent.run.clone()), sent.run);
                }
                Err(refused) => {
                    assert_ne!(*text, taken);
                    assert_eq!(refused.code(), "signal_conflict");
                }
            }
        }
        kit.finish().await?;
    }

    // T20.4: after it was persisted, delivered, queued, discarded.
    async fn a_repeat_gets_the_first_answer_wherever_the_first_went(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        thread.send("/call ask {\"question\":\"?\"}").await?;
        kit.settle().await?;
        let ways = [
            (SendOptions::default(), Action::Deliver),
            (SendOptions { queue: true, ..SendOptions::default() }, Action::Deliver),
            (SendOptions { if_active: IfActive::Persist, ..SendOptions::default() }, Action::Persist),
        ];
        for (n, (options, action)) in ways.iter().enumerate() {
            let id = format!("m{n}");
            let first = thread.send_with(message(&id, "text"), options.clone()).await?;
            let again = thread.send_with(message(&id, "text"), options.clone()).await?;
            assert_eq!((first.action, first.repeat, again.action, again.repeat), (*action, false, *action, true));
            assert_eq!((&first.run, first.signal.accepted_at), (&again.run, again.signal.accepted_at));
            let other = thread.send_with(message(&id, "another"), options.clone()).await;
            assert_eq!(other.unwrap_err().code(), "signal_conflict");
        }
        let call = thread.waiting().await?[0].call.clone();
        thread.approve(&call).await?;
        kit.run_to_rest().await?;
        assert_eq!(inputs(&thread).await?.len(), 4);
        kit.finish().await?;
    }

    // T3.15 to T3.17, T20.9
    async fn a_bad_name_is_refused_whatever_is_asked_and_the_thread_still_runs(kind) {
        let kit = agents(kind).start().await?;
        let thread = thread(&kit);
        let bad = ["", "a:b", "a b", "1st", "naïve", "-a", "a\"b"];
        let behaviours: Vec<SendOptions> = [IfActive::Deliver, IfActive::Persist, IfActive::Discard]
            .into_iter()
            .flat_map(|if_active| {
                [IfIdle::Wake, IfIdle::Persist, IfIdle::Discard]
                    .map(|if_idle| SendOptions { if_active, if_idle, ..SendOptions::default() })
            })
            .chain([SendOptions { queue: true, ..SendOptions::default() }])
            .collect();
        for active in [false, true] {
            if active {
                thread.send("/call ask {\"question\":\"?\"}").await?;
                kit.settle().await?;
            }
            for options in &behaviours {
                for name in bad {
                    let named = attributes(json!({ name: "x" }));
                    let tries = [
                        (NewSignal::user("text").tagged(name), options.clone(), "invalid_tag_name"),
                        (NewSignal::user("text").attributed(named.clone()), options.clone(), "invalid_attribute_name"),
                        (
                            NewSignal::user("text"),
                            SendOptions { active_attributes: named.clone(), ..options.clone() },
                            "invalid_attribute_name",
                        ),
                        (
                            NewSignal::user("text"),
                            SendOptions { idle_attributes: named, ..options.clone() },
                            "invalid_attribute_name",
                        ),
                    ];
                    for (signal, options, code) in tries {
                        let refused = thread.send_with(signal, options).await.unwrap_err();
                        assert_eq!(refused.code(), code, "{name:?}");
                    }
                }
            }
            assert_eq!(thread.find().await?.is_some(), active);
        }
        let call = thread.waiting().await?[0].call.clone();
        thread.approve(&call).await?;
        kit.run_to_rest().await?;
        thread.send("Still here?").await?;
        kit.run_to_rest().await?;
        let lines = history(&thread).await?;
        assert_eq!((lines.len(), lines.last().unwrap().as_str()), (4, "demo Still here?"));
        kit.finish().await?;
    }

    // T3.5, T3.18, T4.3, T4.4, T5.2, T5.6, T5.7, T7.9
    async fn odd_contents_and_attributes_come_through_whole(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        let large = "x".repeat(1024 * 1024);
        let odd = "<b> & \"quotes\" 'n' \\ \u{0}\u{1}\n\tüñí 漢字 🦀 \u{202e}";
        let cases = [
            (NewSignal::user(""), SendOptions::default(), ""),
            (NewSignal::user(large.as_str()), SendOptions::default(), large.as_str()),
            (NewSignal::user(odd), SendOptions::default(), odd),
            (
                NewSignal::user("Hi").attributed(attributes(json!({ "name": null }))),
                SendOptions::default(),
                "Hi",
            ),
            (
                NewSignal::user("a < b").attributed(attributes(json!({ "name": "A\"&<\n'ü", "n": 3, "b": true, "z": null }))),
                SendOptions { idle_attributes: attributes(json!({ "n": 4, "at": "home" })), ..SendOptions::default() },
                "<user name=\"A&quot;&amp;&lt;\n'ü\" n=\"4\" b=\"true\" at=\"home\">a &lt; b</user>",
            ),
            (
                NewSignal::new(Category::Notification, "").tagged("slack").attributed(attributes(json!({ "from": "a\"b" }))),
                SendOptions::default(),
                "<slack from=\"a&quot;b\" />",
            ),
        ];
        for (n, (signal, options, reads)) in cases.into_iter().enumerate() {
            let (contents, own) = (signal.contents.clone(), signal.attributes.clone());
            let merged = own.merged(&options.idle_attributes);
            let sent = thread.send_with(signal, options).await?;
            assert_eq!(sent.signal.attributes, merged);
            let asked = strings.recv().await.unwrap();
            let Some(PromptMessage::User { parts, .. }) = asked.request.messages.last() else { panic!("case {n}") };
            let text = match parts.first() {
                Some(Part::Text { text, .. }) => text.as_str(),
                _ => "",
            };
            assert!(text == reads, "case {n}: {text:.200}");
            asked.answer("yes");
            kit.settle().await?;
            let history = thread.history(Window::latest(i64::MAX, 2)).await?;
            let Body::Signal(stored) = &history[0].body else { panic!("{history:?}") };
            assert!(stored.contents == contents && stored.attributes == merged && stored.id == sent.signal.id, "case {n}");
            let mut subscription = thread.subscribe(Since::Cursor(0));
            let echo = loop {
                let chunk = subscription.next().await?.chunk;
                if chunk["data"]["id"] == *sent.signal.id {
                    break chunk;
                }
            };
            let echoed: Contents = serde_json::from_value(echo["data"]["contents"].clone()).unwrap();
            assert!(echoed == contents, "case {n}");
        }
        let larger = thread.send("x".repeat(1024 * 1024 + 1)).await.unwrap_err();
        assert_eq!(larger.code(), "too_many_bytes");
        kit.run_to_rest().await?;
        kit.finish().await?;
    }

    // T7.4
    async fn what_is_persisted_while_a_turn_runs_is_read_by_the_next_one(kind) {
        let (models, mut strings) = Puppet::models();
        let kit = kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models).start().await?;
        let thread = thread(&kit);
        thread.send("one").await?;
        let asked = strings.recv().await.unwrap();
        let keep = SendOptions { if_active: IfActive::Persist, ..SendOptions::default() };
        assert_eq!(thread.send_with(message("kept", "kept for later"), keep).await?.action, Action::Persist);
        // Another message gives the turn another step.
        thread.send("two").await?;
        asked.answer("1");
        let asked = strings.recv().await.unwrap();
        assert!(asked.prompt().contains("two") && !asked.prompt().contains("kept for later"), "{}", asked.prompt());
        asked.answer("2");
        kit.run_to_rest().await?;
        let echoed = echoes(&stream(&kit, &thread).await?);
        assert!(echoed.len() == 2 && !echoed.contains_key("kept"), "{echoed:?}");
        thread.send("three").await?;
        let asked = strings.recv().await.unwrap();
        assert!(asked.prompt().contains("kept for later"), "{}", asked.prompt());
        asked.answer("3");
        kit.run_to_rest().await?;
        assert_eq!(inputs(&thread).await?.len(), 4);
        kit.finish().await?;
    }

    // T10.7: no look after the last step; the rest has a turn of its own, with a fresh budget of steps.
    async fn a_message_during_the_only_step_is_answered_by_the_next_turn(kind) {
        let (models, mut strings) = Puppet::models();
        let agent = Agent::new("demo").model("puppet/x").steps_max(1);
        let kit = kit(kind).agent(agent).models(models).start().await?;
        let thread = thread(&kit);
        let first = thread.send("one").await?;
        for (answer, next) in [("1", Some("two")), ("2", Some("three")), ("3", None)] {
            let asked = strings.recv().await.unwrap();
            if let Some(next) = next {
                assert_eq!(thread.send(next).await?.action, Action::Deliver);
            }
            asked.answer(answer);
        }
        kit.run_to_rest().await?;
        assert_eq!(history(&thread).await?, ["user one", "demo 1", "user two", "demo 2", "user three", "demo 3"]);
        let chunks = stream(&kit, &thread).await?;
        assert!(echoes(&chunks).values().all(|times| *times == 1));
        let runs: BTreeSet<&str> = chunks.iter().filter_map(|chunk| chunk["runId"].as_str()).collect();
        assert_eq!(runs.len(), 3);
        assert!(runs.contains(first.run.unwrap().as_str()));
        assert!(chunks.iter().filter(|it| it["type"] == "finish").all(|it| it["payload"]["stepResult"]["reason"] == "stop"));
        kit.finish().await?;
    }
}
