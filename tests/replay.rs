//! Recorded journals: those of released versions replay for ever, and a run that is cut off after any commit goes on to
//! the same end.

use std::path::{Path, PathBuf};

use aldis::journal::Segments;
use aldis::runtime::{Export, ExportedRun};
use aldis::testing::{Error, TestKit, replays};
use aldis::workflows::refund::{APPROVAL, Approval};
use serde_json::json;

fn histories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots/histories")
}

#[test]
fn every_recorded_history_replays_with_the_code_as_it_is() {
    let files = replays(histories(), aldis::workflows::all()).unwrap_or_else(|error| panic!("{error}"));
    assert!(files.len() >= 4, "{files:?}");
}

/// Plays the ways that a refund can go. Set `ALDIS_RECORD` to a version to keep their journals; files are added, never
/// written again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journals_of_all_samples_can_be_recorded() -> Result<(), Error> {
    let kit = TestKit::sqlite().workflows(aldis::workflows::all()).build("0.1.0").start().await?;
    for way in ["approved", "declined", "forgotten", "cancelled"] {
        let order = json!({ "order": way, "amount_cents": 4_200, "customer": "Ada", "ledger": kit.database().file("ledger.jsonl") });
        let run = kit.run_as(&format!("refund-{way}"), "refund", &order).await?;
        kit.settle().await?;
        match way {
            "cancelled" => drop(run.cancel("the customer called", "Grace").await?),
            "forgotten" => {}
            _ => drop(
                run.signal_as("approval", &APPROVAL, &Approval { approved: way == "approved", by: "Grace".into() })
                    .await?,
            ),
        }
        kit.run_to_end(&run).await?;
        let mut exported = run.export().await?;
        without_directory(&mut exported, &kit.database().directory().to_string_lossy());
        let text = Export::write(&exported)?;
        assert_eq!(Export::read(&text)?, exported);
        if let Ok(version) = std::env::var("ALDIS_RECORD") {
            let file = histories().join(version).join(format!("refund-{way}.jsonl"));
            std::fs::create_dir_all(file.parent().expect("a directory")).expect("a place for histories");
            if !file.exists() {
                std::fs::write(file, text).expect("a file that can be written");
            }
        }
    }
    kit.finish().await
}

/// A recorded history names no directory of the machine that recorded it.
fn without_directory(exported: &mut ExportedRun, directory: &str) {
    let text = Export::write(exported).expect("an export").replace(directory, "ledgers");
    *exported = Export::read(&text).expect("the same export");
}

/// Where a commit may have ended: after the lines that belong to one delivery.
fn boundaries(exported: &ExportedRun) -> Vec<usize> {
    let segments = Segments::of(exported.journal.clone());
    let last = segments.map(|segment| segment.asked.last().map_or(segment.delivered.seq, |line| line.seq));
    last.map(|seq| usize::try_from(seq.0).expect("a place in a journal")).collect()
}

#[test]
fn a_journal_that_is_cut_after_any_commit_replays_up_to_there() {
    for file in ["approved", "declined", "forgotten", "cancelled"].map(|way| format!("0.1.0/refund-{way}.jsonl")) {
        let text = std::fs::read_to_string(histories().join(&file)).expect("a recorded history");
        let whole = Export::read(&text).expect("an export");
        let directory = tempfile::tempdir().expect("a directory");
        let ends = boundaries(&whole);
        assert!(ends.len() >= 4, "{file}: {ends:?}");
        for (number, end) in ends.iter().enumerate() {
            let cut = ExportedRun { journal: whole.journal[..*end].to_vec(), ..whole.clone() };
            std::fs::write(
                directory.path().join(format!("{number:03}.jsonl")),
                Export::write(&cut).expect("an export"),
            )
            .expect("a file");
        }
        let replayed =
            replays(directory.path(), aldis::workflows::all()).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(replayed.len(), ends.len());
    }
}
