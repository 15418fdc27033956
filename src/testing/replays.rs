//! Recorded histories: what earlier builds wrote must replay with the code as it is now.

use std::path::{Path, PathBuf};

use super::Error;
use crate::clock::Instant;
use crate::engine;
use crate::id::{Fence, RunKey, Seq};
use crate::run::{Run, Status};
use crate::runtime::{Export, ExportedRun};
use crate::store::History;
use crate::workflow::{Definition, Registry};

/// Replays every recorded history below a directory (`*.jsonl`, as `aldis export` writes them) with these workflows, and
/// returns the files in order.
///
/// # Errors
/// The first file that cannot be read or that the code does not agree with; and a directory without any.
pub fn replays<D: Into<Definition>>(
    directory: impl AsRef<Path>,
    workflows: impl IntoIterator<Item = D>,
) -> Result<Vec<PathBuf>, Error> {
    let directory = directory.as_ref();
    let registry = Registry::new(workflows).map_err(crate::runtime::Error::from)?;
    let mut files = Vec::new();
    gather(directory, &mut files)?;
    files.sort();
    if files.is_empty() {
        return Err(recorded(directory, "there is no recorded history below it".into()));
    }
    for file in &files {
        let text = std::fs::read_to_string(file).map_err(|e| recorded(file, e.to_string()))?;
        let exported = Export::read(&text).map_err(|e| recorded(file, e.to_string()))?;
        rehearse(exported, &registry).map_err(|problem| recorded(file, problem))?;
    }
    Ok(files)
}

/// Replays one recorded history.
pub(super) fn rehearse(exported: ExportedRun, registry: &Registry) -> Result<(), String> {
    let history = history(exported);
    let broken = super::history::lines(&history.journal);
    if !broken.is_empty() {
        return Err(broken.join("; "));
    }
    engine::rehearse(history, registry, "replays", false).map(|_| ()).map_err(|e| e.to_string())
}

/// An exported run as the store would give it.
fn history(exported: ExportedRun) -> History {
    let ExportedRun { namespace, id, workflow, version, journal } = exported;
    let first = journal.first().map_or(Instant(0), |line| line.at);
    let last = journal.last().map_or(Instant(0), |line| line.at);
    let run = Run {
        key: RunKey(1),
        namespace,
        id,
        workflow,
        version,
        thread: None,
        status: Status::Due { at: last },
        fence: Fence::FIRST,
        head: journal.last().map_or(Seq::NONE, |line| line.seq),
        signals_accepted: 0,
        signals_pending: 0,
        created_at: first,
        updated_at: last,
    };
    History { run, journal, pending: Vec::new() }
}

fn gather(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let unreadable = |e: std::io::Error| recorded(directory, e.to_string());
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            gather(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    Ok(())
}

fn recorded(file: &Path, problem: String) -> Error {
    Error::Recorded { file: file.display().to_string(), problem }
}
