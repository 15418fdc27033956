//! What a run says while it goes on: updates, published values, streams.

use aldis::testing::Crash;
use aldis::{Context, Failure, Published, Step, Stream, Update, Workflow};

use crate::support::{code, kit};

const ADD: Update<u32, u32> =
    Update::new("add").validated_by(|n| if *n == 13 { Err("not thirteen".into()) } else { Ok(()) });
const SUM: Published<u32> = Published::new("sum");
const TOKENS: Stream<String> = Stream::new("tokens");
const SAY: Step<Vec<String>, usize> = Step::new("say").attempts(3);
const KEEP: Step<u32, u32> = Step::new("keep");

/// Adds what it is told until the sum is over ten.
fn adder() -> Workflow {
    Workflow::new("adder", |cx: Context, (): ()| async move {
        let mut sum = 0;
        while sum <= 10 {
            let request = cx.update(&ADD).await?;
            sum = cx.step(&KEEP, sum + request.input, |_, sum| async move { Ok::<_, Failure>(sum) }).await?;
            cx.publish(&SUM, &sum);
            cx.append(&TOKENS, &format!("sum {sum}"));
            request.reply(&sum);
        }
        Ok::<_, Failure>(sum)
    })
    .update(&ADD)
}

/// A step that streams its words; its first attempt breaks off in the middle.
fn speaker() -> Workflow {
    Workflow::new("speaker", |cx: Context, words: Vec<String>| async move {
        cx.append(&TOKENS, &"begin".to_owned());
        let said = cx.step(&SAY, words, |cx, words| async move {
            for (n, word) in words.iter().enumerate() {
                if n == 2 && cx.attempt() == 1 {
                    return Err(Failure::new("the line was cut"));
                }
                cx.append(&TOKENS, word).await?;
            }
            Ok(words.len())
        });
        let said = said.await?;
        cx.append(&TOKENS, &"end".to_owned());
        Ok::<_, Failure>(said)
    })
}

each_store! {
    async fn an_update_is_answered_once_and_a_repeat_gets_the_same_answer(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(adder()))
            .survives(async |world| {
                world.start("r", "adder", &()).await?;
                let first: u32 = world.update("r", "u1", &ADD, &4).await?;
                let again: u32 = world.update("r", "u1", &ADD, &4).await?;
                let published = world.query("r", &SUM).await?;
                let last: u32 = world.update("r", "u2", &ADD, &7).await?;
                // Also after the end.
                world.end("r").await?;
                let late: u32 = world.update("r", "u1", &ADD, &4).await?;
                Ok((first, again, published, last, late, world.query("r", &SUM).await?))
            })
            .await?;
        assert_eq!(survived.value, (4, 4, Some(4), 11, 4, Some(11)));
        says!(survived.runs["r"].join("\n"), @r#"
        RunStarted adder v1 null
        SignalAwaited 1 add (update)
        SignalsTaken 1 u1 4
        StepScheduled 2 keep 4
        StepFinished 2 4
        ValuePublished sum 4
        StreamAppended tokens 7 bytes
        UpdateAnswered u1 4
        SignalAwaited 3 add (update)
        SignalsTaken 3 u2 7
        StepScheduled 4 keep 11
        StepFinished 4 11
        ValuePublished sum 11
        StreamAppended tokens 8 bytes
        UpdateAnswered u2 11
        RunCompleted 11
        is completed
        "#);
    }

    async fn a_validator_refuses_before_anything_is_recorded(kind) {
        let kit = kit(kind).workflow(adder()).start().await?;
        let run = kit.run_as("r", "adder", &()).await?;
        kit.settle().await?;
        let head = run.row().await?.head;
        let refused = run.update(&ADD, &13).await.unwrap_err();
        says!(refused.to_string(), @r#"signal "add" of workflow "adder" does not match its schema: not thirteen"#);
        assert_eq!(code(&refused), "payload_invalid");
        assert_eq!((run.row().await?.head, run.row().await?.signals_accepted), (head, 0));
        kit.finish().await?;
    }

    async fn an_update_that_is_never_answered_says_so(kind) {
        let kit = kit(kind).workflow(adder()).start().await?;
        let run = kit.run_as("r", "adder", &()).await?;
        kit.settle().await?;
        run.cancel("enough", "me").await?;
        let sent = run.update_as("u1", &ADD, &1).await.unwrap_err();
        assert!(["update_unanswered", "run_closed"].contains(&code(&sent)), "{sent}");
        kit.finish().await?;
    }

    async fn a_stream_resumes_after_an_offset_and_marks_the_parts_of_its_attempts(kind) {
        let kit = kit(kind).workflow(speaker()).start().await?;
        let run = kit.run_as("r", "speaker", &["one", "two", "three"]).await?;
        kit.run_to_end(&run).await?;
        let read = run.stream(&TOKENS, 0, 100).await?;
        let read: Vec<_> = read.iter().map(|read| format!("{} {} {}", read.offset, read.part, read.value)).collect();
        assert_eq!(
            read,
            [
                r#"1 code "begin""#,
                r#"2 1#1 "one""#,
                r#"3 1#1 "two""#,
                r#"4 1#2 "one""#,
                r#"5 1#2 "two""#,
                r#"6 1#2 "three""#,
                r#"7 code "end""#,
            ]
        );
        let page: Vec<i64> = run.stream(&TOKENS, 2, 3).await?.iter().map(|read| read.offset).collect();
        assert_eq!(page, [3, 4, 5]);
        kit.finish().await?;
    }

    async fn what_the_code_appends_is_there_once_through_every_crash(kind) {
        let survived = Crash::of(|_| kit(kind).workflow(adder()))
            .survives(async |world| {
                world.start("r", "adder", &()).await?;
                let _: u32 = world.update("r", "u1", &ADD, &5).await?;
                let _: u32 = world.update("r", "u2", &ADD, &6).await?;
                world.end("r").await?;
                world.ask(async |kit| {
                    let read = kit.find("r").await?.stream(&TOKENS, 0, 100).await?;
                    Ok(read.into_iter().map(|read| (read.offset, read.value.to_string())).collect::<Vec<_>>())
                }).await
            })
            .await?;
        assert_eq!(survived.value, [(1, r#""sum 5""#.to_owned()), (2, r#""sum 11""#.to_owned())]);
    }
}
