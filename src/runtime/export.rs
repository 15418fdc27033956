//! A run as text that can be taken elsewhere: a line about the run, then one per event.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::clock::Instant;
use crate::id::{Namespace, RunId, Seq};
use crate::journal::{EVENT_VERSION, Event, Recorded};
use crate::payload::Payload;

/// A run outside any store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedRun {
    /// Its namespace.
    pub namespace: Namespace,
    /// What the outside calls it.
    pub id: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// The workflow's version.
    pub version: u32,
    /// Its journal.
    pub journal: Vec<Recorded>,
}

/// The text form: one JSON object a line.
#[derive(Debug, Clone, Copy)]
pub struct Export;

/// The version of the text form.
const FORM: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Head {
    aldis_export: u32,
    namespace: Namespace,
    id: RunId,
    workflow: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Line {
    seq: Seq,
    at: Instant,
    event: String,
    v: i16,
    data: Payload,
}

impl Export {
    /// Writes a run as text.
    ///
    /// # Errors
    /// If a value has no JSON form, which a journal's cannot be.
    pub fn write(run: &ExportedRun) -> Result<String, Error> {
        let head = Head {
            aldis_export: FORM,
            namespace: run.namespace.clone(),
            id: run.id.clone(),
            workflow: run.workflow.clone(),
            version: run.version,
        };
        let mut text = Payload::of(&head)?.to_string();
        text.push('\n');
        for line in &run.journal {
            let mut data = Vec::new();
            line.event.encode_into(&mut data);
            let data = Payload::parse(&String::from_utf8_lossy(&data))
                .map_err(|e| Error::Import { line: 0, problem: e.to_string() })?;
            let (event, v) = (line.event.kind().to_owned(), EVENT_VERSION);
            text.push_str(Payload::of(&Line { seq: line.seq, at: line.at, event, v, data })?.as_str());
            text.push('\n');
        }
        Ok(text)
    }

    /// Reads what [`Export::write`] wrote, in this or an earlier version.
    ///
    /// # Errors
    /// [`Error::Import`] names the line and what is wrong with it.
    pub fn read(text: &str) -> Result<ExportedRun, Error> {
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let wrong = |number: usize, problem: String| Error::Import { line: number + 1, problem };
        let (number, head) = lines.next().ok_or_else(|| wrong(0, "there is no line".into()))?;
        let head: Head = serde_json::from_str(head).map_err(|e| wrong(number, e.to_string()))?;
        if head.aldis_export != FORM {
            return Err(wrong(
                number,
                format!("form {} is not known here, this build reads form {FORM}", head.aldis_export),
            ));
        }
        let mut journal = Vec::new();
        for (number, line) in lines {
            let line: Line = serde_json::from_str(line).map_err(|e| wrong(number, e.to_string()))?;
            let expected = Seq(journal.len() as i64 + 1);
            if line.seq != expected {
                return Err(wrong(number, format!("it has seq {}, expected {expected}", line.seq)));
            }
            let event = Event::decode(line.seq, &line.event, line.v, line.data.as_str())
                .map_err(|e| wrong(number, e.to_string()))?;
            journal.push(Recorded { seq: line.seq, at: line.at, event });
        }
        Ok(ExportedRun {
            namespace: head.namespace,
            id: head.id,
            workflow: head.workflow,
            version: head.version,
            journal,
        })
    }
}
