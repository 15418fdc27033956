//! Threads through the crash harness: the process dies before, at and after every write, or loses an answer, and the
//! thread comes to what it comes to in peace.
//!
//! In every world each input stands in one place of the history (T20.6), each run echoes what it takes once (T6.6), runs
//! do not interleave (T11.4), and a subscriber that goes on after its last cursor sees every chunk once (T11.10).

use std::sync::Arc;

use aldis::Failure;
use aldis::agent::model::Models;
use aldis::agent::{Agent, Function, ToolCallContext};
use aldis::id::RunId;
use aldis::intake::SendOptions;
use aldis::message::NewSignal;
use aldis::runtime::{Action, Since};
use aldis::store::{Fault, Kind};
use aldis::testing::{Crash, Error, Ledger, Setup, World};
use aldis::thread::{IfActive, IfIdle};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::common::{Talkative, echoes, history, inputs, message, stream, thread, told};
use crate::support::kit;

#[derive(Debug, Deserialize, JsonSchema)]
struct What {
    what: String,
}

/// Two agents, one with tools whose calls are entered in the ledger.
fn setup(kind: Kind, ledger: &Ledger) -> Setup {
    let entering = |name: &'static str| {
        let ledger = ledger.clone();
        Function::new(name, "Enters something.", move |call: ToolCallContext, What { what }: What| {
            let ledger = ledger.clone();
            async move {
                ledger.enter(&call.step, format!("{name} {what}"));
                Ok::<_, Failure>(what)
            }
        })
    };
    let demo = Agent::new("demo").tool(entering("enter")).tool(entering("pay").with_approval());
    kit(kind).agent(demo).agent(Agent::new("other")).models(Models::new().with(Arc::new(Talkative)))
}

/// On Postgres without crashes before a write: they leave the same rows as a crash after the write before.
pub fn crash(kind: Kind, setup: impl Fn(Kind, &Ledger) -> Setup) -> Crash<impl Fn(&Ledger) -> Setup> {
    let crash = Crash::of(move |ledger: &Ledger| setup(kind, ledger));
    match kind {
        Kind::Sqlite => crash,
        Kind::Postgres => crash.only([Fault::CrashAfter, Fault::LoseAnswer]),
    }
}

/// A subscriber that reads now and then, and remembers its cursor alone.
#[derive(Debug, Default)]
struct Reader {
    cursor: i64,
    seen: Vec<Value>,
}

impl Reader {
    async fn read(&mut self, world: &World) -> Result<(), Error> {
        let from = self.cursor;
        let more = world
            .ask(async |kit| {
                let thread = thread(kit);
                let Some(found) = thread.find().await? else { return Ok(Vec::new()) };
                let last = kit.store().last_chunks(found.key, 1).await.map_err(aldis::Error::from)?;
                let last = last.last().map_or(0, |chunk| chunk.offset);
                let mut subscription = thread.subscribe(Since::Cursor(from));
                let mut more: Vec<aldis::runtime::Seen> = Vec::new();
                while more.last().map_or(from, |seen| seen.cursor) < last {
                    more.push(subscription.next().await?);
                }
                Ok(more)
            })
            .await?;
        for seen in more {
            assert_eq!(seen.cursor, self.cursor + 1, "a gap or a repeat");
            self.cursor = seen.cursor;
            self.seen.push((*seen.chunk).clone());
        }
        Ok(())
    }
}

/// What a scenario does on the thread.
struct Play {
    world: World,
    reader: Reader,
    sent: Vec<String>,
}

impl Play {
    fn on(world: &World) -> Self {
        Self { world: world.clone(), reader: Reader::default(), sent: Vec::new() }
    }

    async fn send(&mut self, id: &str, text: &str) -> Result<(Action, Option<RunId>), Error> {
        self.send_to("demo", message(id, text), SendOptions::default()).await
    }

    async fn queue(&mut self, id: &str, text: &str) -> Result<(Action, Option<RunId>), Error> {
        self.send_to("demo", message(id, text), SendOptions { queue: true, ..SendOptions::default() }).await
    }

    async fn send_to(
        &mut self,
        agent: &str,
        signal: NewSignal,
        options: SendOptions,
    ) -> Result<(Action, Option<RunId>), Error> {
        self.sent.push(signal.id.clone().expect("an id"));
        let sent = self.world.ask(async |kit| {
            let thread = kit.agent(agent).thread("t", "ann")?;
            Ok(thread.send_with(signal.clone(), options.clone()).await?)
        });
        let sent = sent.await?;
        self.reader.read(&self.world).await?;
        Ok((sent.action, sent.run))
    }

    /// Until somebody is asked; which calls wait.
    async fn suspended(&mut self) -> Result<Vec<String>, Error> {
        self.world.settle().await?;
        self.reader.read(&self.world).await?;
        let waiting = self.world.ask(async |kit| Ok(thread(kit).waiting().await?)).await?;
        assert!(!waiting.is_empty(), "nobody is asked");
        Ok(waiting.into_iter().map(|it| it.call).collect())
    }

    async fn approve(&mut self, call: &str) -> Result<(), Error> {
        self.world.ask(async |kit| Ok(thread(kit).approve(call).await?)).await?;
        self.reader.read(&self.world).await
    }

    /// To the end: the history, and what a client has made of the stream. Each input is echoed so often.
    async fn ends(mut self, echoed: impl Fn(&str) -> usize) -> Result<(Vec<String>, Vec<String>), Error> {
        self.world.run_to_rest().await?;
        self.reader.read(&self.world).await?;
        let (lines, mut ids, chunks) = self
            .world
            .ask(async |kit| {
                let thread = thread(kit);
                assert_eq!(thread.find().await?.expect("the thread").current, None);
                assert_eq!(thread.waiting().await?, []);
                Ok((history(&thread).await?, inputs(&thread).await?, stream(kit, &thread).await?))
            })
            .await?;
        assert_eq!(self.reader.seen, chunks);
        let echoes = echoes(&chunks);
        ids.sort();
        self.sent.sort();
        assert_eq!(ids, self.sent);
        for id in &ids {
            assert_eq!(echoes.get(id).copied().unwrap_or(0), echoed(id), "echoes of {id}: {:?}", told(&chunks));
        }
        Ok((lines, told(&chunks)))
    }
}

const PAY: &str = "/call pay {\"what\":\"rent\"}";

each_store! {
    async fn a_message_is_answered(kind) {
        let survived = crash(kind, setup)
            .survives(async |world| {
                let mut play = Play::on(&world);
                assert_eq!(play.send("m1", "Hello").await?.0, Action::Wake);
                play.ends(|_| 1).await
            })
            .await?;
        assert_eq!(survived.value.0, ["user Hello", "demo Hello"]);
        assert!(survived.struck > 0, "{survived:?}");
    }

    // T20.7
    async fn calls_whose_results_are_recorded_are_not_made_again(kind) {
        let survived = crash(kind, setup)
            .in_any_order()
            .survives(async |world| {
                let mut play = Play::on(&world);
                play.send("m1", "/call enter {\"what\":\"a\"}\n/call enter {\"what\":\"b\"}").await?;
                let ended = play.ends(|_| 1).await?;
                assert_eq!(world.ledger().entries().len(), 2);
                assert!(world.ledger().times().values().all(|times| *times <= 2));
                Ok(ended)
            })
            .await?;
        assert!(survived.value.0[1].contains(r#"[enter {"what":"a"}: "a"] [enter {"what":"b"}: "b"]"#), "{survived:?}");
    }

    // T13.9, T13.10
    async fn a_call_that_waits_for_approval_is_made_once_it_is_given(kind) {
        let survived = crash(kind, setup)
            .survives(async |world| {
                let mut play = Play::on(&world);
                play.send("m1", PAY).await?;
                let calls = play.suspended().await?;
                assert_eq!(world.ledger().entries().len(), 0);
                play.approve(&calls[0]).await?;
                play.ends(|_| 1).await
            })
            .await?;
        assert!(survived.value.0[1].contains(r#"[pay {"what":"rent"}: "rent"]"#), "{survived:?}");
    }

    // T9.3
    async fn queued_messages_are_answered_one_by_one(kind) {
        let survived = crash(kind, setup)
            .survives(async |world| {
                let mut play = Play::on(&world);
                for (id, text) in [("m1", "one"), ("m2", "two"), ("m3", "three")] {
                    play.queue(id, text).await?;
                }
                play.ends(|_| 1).await
            })
            .await?;
        let history = ["user one", "demo one", "user two", "demo two", "user three", "demo three"];
        assert_eq!(survived.value.0, history);
    }

    // T9.7, T10.4, T13.13
    async fn signals_join_a_suspended_turn_and_queued_ones_wait_for_its_end(kind) {
        let survived = crash(kind, setup)
            .survives(async |world| {
                let mut play = Play::on(&world);
                play.send("m1", PAY).await?;
                let calls = play.suspended().await?;
                assert_eq!(play.queue("m2", "last").await?.0, Action::Deliver);
                assert_eq!(play.send("m3", "two").await?.0, Action::Deliver);
                assert_eq!(play.send("m4", "three").await?.0, Action::Deliver);
                play.approve(&calls[0]).await?;
                play.ends(|_| 1).await
            })
            .await?;
        let lines = &survived.value.0;
        assert_eq!(lines[2..], ["user two", "user three", "demo two\nthree", "user last", "demo last"], "{lines:?}");
        assert_eq!(survived.runs.len(), 2);
    }

    // T10.9, T10.10: whoever is faster.
    async fn messages_that_come_at_any_time_are_each_answered_once(kind) {
        let survived = crash(kind, setup)
            .whatever_is_recorded()
            .survives(async |world| {
                let mut play = Play::on(&world);
                for (id, text) in [("m1", "one;"), ("m2", "two;"), ("m3", "three;"), ("m4", "four;")] {
                    play.send(id, text).await?;
                }
                let (lines, _) = play.ends(|_| 1).await?;
                let of = |who: &str| -> String {
                    let said = lines.iter().filter_map(|line| line.strip_prefix(who));
                    said.collect::<Vec<_>>().concat().replace('\n', "")
                };
                assert_eq!(of("demo "), of("user "), "{lines:?}");
                Ok(of("user "))
            })
            .await?;
        assert_eq!(survived.value, "one;two;three;four;");
    }

    // T12.3, T12.4, T12.6
    async fn an_abort_ends_a_suspended_turn_and_what_waits_goes_on(kind) {
        let survived = crash(kind, setup)
            .survives(async |world| {
                let mut play = Play::on(&world);
                let (_, run) = play.send("m1", &format!("/say I pay.\n{PAY}")).await?;
                play.suspended().await?;
                play.send("m2", "never mind").await?;
                play.queue("m3", "and then").await?;
                world.ask(async |kit| Ok(thread(kit).abort("ann", run.as_ref()).await?)).await?;
                play.ends(|_| 1).await
            })
            .await?;
        let lines = &survived.value.0;
        assert_eq!(lines[1], r#"demo I pay. [pay {"what":"rent"}: open] (aborted)"#);
        assert_eq!(lines[2..], ["user never mind", "demo never mind", "user and then", "demo and then"], "{lines:?}");
    }

    // T7.4, T7.5, T11.9
    async fn what_is_persisted_is_kept_and_read_by_the_next_turn(kind) {
        let survived = crash(kind, setup)
            .survives(async |world| {
                let mut play = Play::on(&world);
                let keep = || SendOptions { if_active: IfActive::Persist, if_idle: IfIdle::Persist, ..SendOptions::default() };
                assert_eq!(play.send_to("demo", message("m1", "before"), keep()).await?.0, Action::Persist);
                play.send("m2", PAY).await?;
                let calls = play.suspended().await?;
                assert_eq!(play.send_to("demo", message("m3", "meanwhile"), keep()).await?.0, Action::Persist);
                play.approve(&calls[0]).await?;
                world.run_to_rest().await?;
                play.send("m4", "and?").await?;
                play.ends(|id| usize::from(id != "m3")).await
            })
            .await?;
        let lines = &survived.value.0;
        assert_eq!((lines[0].as_str(), lines[3].as_str()), ("user before", "user meanwhile"), "{lines:?}");
        assert!(lines.last().is_some_and(|line| line.ends_with("and?")), "{lines:?}");
    }

    // T7.3, T7.8, T9.7, T11.9
    async fn two_agents_take_turns(kind) {
        let survived = crash(kind, setup)
            .survives(async |world| {
                let mut play = Play::on(&world);
                play.send("m1", PAY).await?;
                let calls = play.suspended().await?;
                let (keep, send) = (SendOptions { if_idle: IfIdle::Persist, ..SendOptions::default() }, SendOptions::default());
                assert_eq!(play.send_to("other", message("m2", "for other"), send).await?.0, Action::Deliver);
                assert_eq!(play.send_to("other", message("m3", "a note"), keep).await?.0, Action::Persist);
                play.queue("m4", "for demo").await?;
                play.approve(&calls[0]).await?;
                play.ends(|_| 1).await
            })
            .await?;
        let (lines, told) = &survived.value;
        assert_eq!(lines[2], "user a note");
        assert_eq!(lines[3], "user for other");
        assert_eq!(lines[5], "user for demo");
        let at = |what: &str| told.iter().position(|it| it == what).unwrap_or_else(|| panic!("{what}: {told:?}"));
        assert!(at("data-user-message for other") < at("data-user-message a note"));
        assert!(at("data-user-message a note") < at("data-user-message for demo"));
    }

    // T11.11
    async fn an_answer_that_streams_is_whole_and_what_was_shown_of_a_lost_one_is_dropped(kind) {
        let survived = crash(kind, |kind, ledger| setup(kind, ledger).agent(Agent::new("demo").model("talkative/x")))
            .whatever_is_recorded()
            .survives(async |world| {
                let mut play = Play::on(&world);
                play.send("m1", "Count").await?;
                let (lines, told) = play.ends(|_| 1).await?;
                assert_eq!(lines[1], format!("demo {}", Talkative::says()));
                Ok(told)
            })
            .await?;
        assert_eq!(survived.value.len(), 8, "{:?}", survived.value);
    }
}
