//! `aldis replay`: the code against a journal, without effects.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::error::Error;
use super::{Desk, Exit, print};
use crate::engine::{Diverged, rehearse};
use crate::id::{Fence, RunKey, Seq};
use crate::run::{Run, Status};
use crate::runtime::{self, ExportedRun};
use crate::store::History;
use crate::workflow::Registry;

/// Runs the code against a run's journal and reports the first line that does not agree. No step runs, nothing is written.
///
/// Exit code: 0 the code agrees with the journal, 1 it does not.
#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The run's id
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    run: Option<String>,
    /// What `aldis export` wrote, instead of a run of the store
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Compares the recorded inputs and outcomes too, not only kind, name and place
    #[arg(long)]
    values: bool,
}

pub(super) async fn run(desk: &Desk, asked: Replay) -> Result<Exit, Error> {
    let history = match (&asked.run, &asked.file) {
        (_, Some(file)) => of_export(super::import::read(file)?),
        (Some(run), None) => {
            let client = desk.client().await?;
            let history = client.find(run).await?.history().await?;
            client.store().close().await;
            history
        }
        (None, None) => return Err(Error::Usage("say which run, or give --file".into())),
    };
    let id = history.run.id.clone();
    let registry = Registry::new(desk.workflows.clone()).map_err(runtime::Error::from)?;
    match rehearse(history, &registry, &desk.build, asked.values) {
        Ok(replayed) => {
            if desk.json() {
                let (events, ahead) = (replayed.head.0, replayed.ahead);
                print::json(&json!({ "id": id, "agrees": true, "events": events, "ahead": ahead }))?;
            } else {
                print::line(&format!("run {id}: the code agrees with all {} lines of the journal", replayed.head))?;
            }
            Ok(Exit::Good)
        }
        Err(diverged) => {
            let code = match &diverged {
                Diverged::Unregistered(_) => "unregistered",
                Diverged::Blocked(reason) => reason.code(),
            };
            if desk.json() {
                let problem = diverged.to_string();
                print::json(&json!({ "id": id, "agrees": false, "code": code, "problem": problem }))?;
            } else {
                eprintln!("{diverged}");
            }
            Ok(Exit::Bad)
        }
    }
}

/// The row of an exported run is not exported: what replay needs of it follows from the journal.
fn of_export(exported: ExportedRun) -> History {
    let ExportedRun { namespace, id, workflow, version, journal } = exported;
    let at = |line: Option<&crate::journal::Recorded>| line.map_or_else(Default::default, |line| line.at);
    let run = Run {
        key: RunKey(0),
        namespace,
        id,
        workflow,
        version,
        thread: None,
        status: Status::Due { at: at(journal.last()) },
        fence: Fence::FIRST,
        head: Seq::NONE.plus(journal.len()),
        signals_accepted: 0,
        signals_pending: 0,
        created_at: at(journal.first()),
        updated_at: at(journal.last()),
    };
    History { run, journal, pending: Vec::new() }
}
