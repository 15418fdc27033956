//! Conversations recorded once and played back ever after: tests with a real model's answers, and no network.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::deltas::say;
use super::{Deltas, Model, ModelError, Reply, Request, beginning, digest_of};
use crate::message::{Part, PromptMessage};

const VERSION: u32 = 1;

/// A recording as its file holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// The form of the file.
    pub version: u32,
    /// The name of the model that was recorded.
    pub model: String,
    /// In the order they were made. Requests that are the same have several; the last one stands for all further ones.
    pub exchanges: Vec<Exchange>,
}

/// One request and its reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exchange {
    /// The request's digest.
    pub digest: String,
    /// The beginning of what was said last, for whoever reads the file.
    pub about: String,
    /// The reply.
    pub reply: Reply,
}

/// Why a recording cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be read.
    #[error("the recording {} cannot be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        problem: io::Error,
    },
    /// The file is not a recording.
    #[error("{} is not a recording of version {VERSION}: {problem}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// The file of a recording: it records what models are asked, or plays that. Shared by all models of a conversation.
#[derive(Debug)]
pub struct Tape {
    file: PathBuf,
    recording: Mutex<Recording>,
    /// How many replies to a request were played.
    played: Mutex<BTreeMap<String, usize>>,
    /// What must not stand in the file, and what stands there instead.
    hidden: Vec<(String, String)>,
    /// Held by the one that writes the file; none where it is played.
    writing: Option<tokio::sync::Mutex<()>>,
}

impl Tape {
    /// Plays the recording in `file`.
    ///
    /// # Errors
    /// If it is not there or is not a recording.
    pub fn play(file: impl Into<PathBuf>) -> Result<Self, RecordingError> {
        let file = file.into();
        match std::fs::read(&file) {
            Ok(bytes) => Self::from(file, &bytes),
            Err(problem) => Err(RecordingError::Unreadable { file, problem }),
        }
    }

    /// Plays the recording in `file` if there is one; else records there what models are asked. To record again, remove the
    /// file.
    ///
    /// # Errors
    /// If the file is there and is not a recording.
    pub fn once(file: impl Into<PathBuf>) -> Result<Self, RecordingError> {
        let file = file.into();
        match std::fs::read(&file) {
            Ok(bytes) => Self::from(file, &bytes),
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
                let recording = Recording { version: VERSION, model: String::new(), exchanges: Vec::new() };
                Ok(Self::new(file, recording, Some(tokio::sync::Mutex::new(()))))
            }
            Err(problem) => Err(RecordingError::Unreadable { file, problem }),
        }
    }

    /// Writes `instead` wherever `secret` would stand in the file. Requests are there as digests alone, and keys of providers
    /// are in no request; but somebody may have said one, or a model may say one again.
    #[must_use]
    pub fn hiding(mut self, secret: impl Into<String>, instead: impl Into<String>) -> Self {
        let secret = secret.into();
        if !secret.is_empty() {
            self.hidden.push((secret, instead.into()));
            // The longest first: one may be a part of another.
            self.hidden.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        }
        self
    }

    /// Whether it plays, and nothing is asked.
    #[must_use]
    pub fn plays(&self) -> bool {
        self.writing.is_none()
    }

    fn new(file: PathBuf, recording: Recording, writing: Option<tokio::sync::Mutex<()>>) -> Self {
        Self { file, recording: Mutex::new(recording), played: Mutex::default(), hidden: Vec::new(), writing }
    }

    fn from(file: PathBuf, bytes: &[u8]) -> Result<Self, RecordingError> {
        match serde_json::from_slice::<Recording>(bytes) {
            Ok(recording) if recording.version == VERSION => Ok(Self::new(file, recording, None)),
            Ok(other) => Err(RecordingError::Malformed { file, problem: format!("its version is {}", other.version) }),
            Err(problem) => Err(RecordingError::Malformed { file, problem: problem.to_string() }),
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What is recorded so far.
    #[must_use]
    pub fn recording(&self) -> Recording {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn record(&self, live: &dyn Model, request: &Request, deltas: &Deltas) -> Result<Reply, ModelError> {
        let reply = live.ask(request, deltas).await?;
        let exchange = Exchange { digest: digest_of(request), about: about(request), reply: reply.clone() };
        {
            let mut recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
            if recording.model.is_empty() {
                live.name().clone_into(&mut recording.model);
            }
            recording.exchanges.push(exchange);
        }
        self.save().await.map_err(|problem| ModelError::Unrecorded {
            cause: format!("the recording {} cannot be written: {problem}", self.file.display()),
        })?;
        Ok(reply)
    }

    async fn save(&self) -> io::Result<()> {
        let Some(writing) = &self.writing else { return Ok(()) };
        let _one_at_a_time = writing.lock().await;
        let mut recording = serde_json::to_value(self.recording())?;
        self.hide(&mut recording);
        let mut bytes = serde_json::to_vec_pretty(&recording)?;
        bytes.push(b'\n');
        // Through a file beside it, so that a recording is whole or not there.
        let beside = self.file.with_extension("part");
        tokio::fs::write(&beside, bytes).await?;
        tokio::fs::rename(&beside, &self.file).await
    }

    fn hide(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                for (secret, instead) in &self.hidden {
                    if text.contains(secret.as_str()) {
                        *text = text.replace(secret.as_str(), instead);
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.hide(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.hide(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn replay(&self, request: &Request) -> Result<Reply, ModelError> {
        let digest = digest_of(request);
        let recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        let replies: Vec<&Reply> =
            recording.exchanges.iter().filter(|one| one.digest == digest).map(|one| &one.reply).collect();
        let mut played = self.played.lock().unwrap_or_else(PoisonError::into_inner);
        let next = played.entry(digest.clone()).or_default();
        if let Some(reply) = replies.get(*next).or(replies.last()) {
            *next += 1;
            return Ok((*reply).clone());
        }
        let abouts: Vec<String> = recording.exchanges.iter().map(|one| format!("{:?}", one.about)).collect();
        Err(ModelError::Unrecorded {
            cause: format!(
                "the recording {} holds no reply to this request (digest {}, said last: {:?}); it holds {}: {}; \
                 the prompt, a tool or a setting has changed: remove the file and record again",
                self.file.display(),
                &digest[..12],
                about(request),
                recording.exchanges.len(),
                beginning(&abouts.join(", "), 500),
            ),
        })
    }
}

/// A model that records another one, or plays a recording.
#[derive(Debug)]
pub struct Recorded {
    name: String,
    tape: Arc<Tape>,
    /// The model that is being recorded.
    live: Option<Arc<dyn Model>>,
}

impl Recorded {
    /// Plays the recording in `file`.
    ///
    /// # Errors
    /// If it is not there or is not a recording.
    pub fn play(file: impl Into<PathBuf>) -> Result<Self, RecordingError> {
        let tape = Arc::new(Tape::play(file)?);
        let name = tape.recording().model;
        Ok(Self { name, tape, live: None })
    }

    /// Plays the recording in `file` if there is one; else asks `model` and records it there. To record again, remove
    /// the file.
    ///
    /// # Errors
    /// If the file is there and is not a recording.
    pub fn once(file: impl Into<PathBuf>, model: Arc<dyn Model>) -> Result<Self, RecordingError> {
        let tape = Arc::new(Tape::once(file)?);
        let name = if tape.plays() { tape.recording().model } else { model.name().to_owned() };
        Ok(Self::on(&tape, name, Some(model)))
    }

    /// A model on a tape: played if that plays, else recorded.
    pub(super) fn on(tape: &Arc<Tape>, name: String, model: Option<Arc<dyn Model>>) -> Self {
        Self { name, tape: Arc::clone(tape), live: model.filter(|_| !tape.plays()) }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.tape.file()
    }

    /// What is recorded so far.
    #[must_use]
    pub fn recording(&self) -> Recording {
        self.tape.recording()
    }
}

impl Model for Recorded {
    fn name(&self) -> &str {
        &self.name
    }

    fn ask<'a>(&'a self, request: &'a Request, deltas: &'a Deltas) -> BoxFuture<'a, Result<Reply, ModelError>> {
        Box::pin(async move {
            if let Some(live) = &self.live {
                return self.tape.record(live.as_ref(), request, deltas).await;
            }
            let reply = self.tape.replay(request)?;
            say(&reply, deltas).await;
            Ok(reply)
        })
    }
}

/// The beginning of what was said last.
fn about(request: &Request) -> String {
    let said = request.messages.iter().rev().find_map(|message| match message {
        PromptMessage::User { parts, .. } => parts.iter().find_map(|part| match part {
            Part::Text { text, .. } => Some(text.clone()),
            Part::File { .. } => None,
        }),
        PromptMessage::Tool { results } => {
            Some(format!("the answer of {}", results.first().map_or("no tool", |result| result.name.as_str())))
        }
        PromptMessage::System(_) | PromptMessage::Assistant { .. } => None,
    });
    beginning(&said.unwrap_or_default(), 80)
}
