//! What a turn asks for first is found out before its message is accepted, and written in the commit that begins it.

use aldis::agent::Agent;
use aldis::id::RunId;
use aldis::runtime::{Action, Client};
use aldis::testing::{Error, Setup};
use tokio::sync::mpsc;

use crate::common::{Asked, Puppet, agents, chunks, history, message, thread};
use crate::crashes::crash;
use crate::support::kit;

/// The kinds of the lines that a run has.
async fn lines(client: &Client, run: Option<&RunId>) -> Result<Vec<&'static str>, Error> {
    let run = client.find(run.expect("a run").as_str()).await?;
    Ok(run.journal().await?.iter().map(|line| line.event.kind()).collect())
}

fn puppets(kind: aldis::store::Kind) -> (Setup, mpsc::UnboundedReceiver<Asked>) {
    let (models, asked) = Puppet::models();
    (kit(kind).agent(Agent::new("demo").model("puppet/x")).models(models), asked)
}

each_store! {
    async fn a_turn_is_under_way_when_its_message_is_acknowledged(kind) {
        let (setup, mut asked) = puppets(kind);
        let kit = setup.start().await?;
        let sent = thread(&kit).send("Hello").await?;
        // No settling in between: what is there was there when the sender heard of it.
        assert_eq!(
            lines(&kit, sent.run.as_ref()).await?,
            ["RunQueued", "RunStarted", "MessageAdded", "SignalsChecked", "SignalAwaited", "StepScheduled", "SignalAwaited"]
        );
        assert_eq!(history(&thread(&kit)).await?, ["user Hello"]);
        let call = asked.recv().await.expect("the model is asked");
        call.say("Hi");
        drop(call);
        kit.run_to_rest().await?;
        assert_eq!(history(&thread(&kit)).await?, ["user Hello", "demo Hi"]);
        assert_eq!(kit.store().stats().logical_commits, 1, "beside the acceptance one commit ends the turn");
        kit.finish().await?;
    }

    // A process that has never written to a thread does not know its key: what it foresees would be for a new one.
    async fn a_thread_of_an_earlier_process_is_answered_the_ordinary_way(kind) {
        let kit = agents(kind).start().await?;
        thread(&kit).send("one").await?;
        kit.run_to_rest().await?;
        let kit = kit.crash().await?;
        let sent = thread(&kit).send("two").await?;
        assert_eq!(sent.action, Action::Wake);
        kit.run_to_rest().await?;
        thread(&kit).send("three").await?;
        kit.run_to_rest().await?;
        let said = ["user one", "demo one", "user two", "demo two", "user three", "demo three"];
        assert_eq!(history(&thread(&kit)).await?, said);
        kit.finish().await?;
    }

    // T10.5: the second joins the turn of the first; what was foreseen of a turn of its own is dropped, and shows nowhere.
    async fn of_a_turn_that_does_not_begin_nothing_is_left(kind) {
        let (setup, mut asked) = puppets(kind);
        let kit = setup.start().await?;
        let first = thread(&kit).send("one").await?;
        let call = asked.recv().await.expect("the model is asked");
        let second = thread(&kit).send("two").await?;
        assert_eq!((second.action, &second.run), (Action::Deliver, &first.run));
        call.say("first");
        drop(call);
        let call = asked.recv().await.expect("the model is asked again");
        call.say("second");
        drop(call);
        kit.run_to_rest().await?;
        assert_eq!(history(&thread(&kit)).await?, ["user one", "demo first", "user two", "demo second"]);
        assert_eq!(kit.runs().await?.len(), 1);
        kit.finish().await?;
    }

    // The second finds the thread known: with its first line written or not, it is answered and shown once.
    async fn what_was_foreseen_is_shown_once_after_every_crash(kind) {
        crash(kind, |kind, _| agents(kind))
            .survives(async |world| {
                for id in ["m1", "m2"] {
                    world.ask(async |kit| Ok(thread(kit).send_with(message(id, id), <_>::default()).await?.action)).await?;
                    world.run_to_rest().await?;
                }
                world
                    .ask(async |kit| {
                        let thread = thread(kit);
                        let seen = chunks(kit, &thread).await?;
                        for echo in ["data-user-message m1", "data-user-message m2"] {
                            assert_eq!(seen.iter().filter(|it| *it == echo).count(), 1, "{seen:?}");
                        }
                        history(&thread).await
                    })
                    .await
            })
            .await?;
    }
}
