//! An answer while it comes: its pieces are shown as they are, or as hooks let them through.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::around::Around;
use super::model::{Delta, Reply};
use crate::failure::Failure;
use crate::message::{AssistantPart, Chunks, Piece};
use crate::payload::Payload;
use crate::workflow::StepContext;

/// How many pieces of an answer may wait to be shown before the model is slowed down.
pub(super) const PIECES_MAX: usize = 256;

/// How far a block was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The block, as subscribers know it.
    pub id: String,
    /// How many bytes of it were shown.
    pub bytes: usize,
    /// Whether its end was.
    pub ended: bool,
}

/// Shows pieces of an answer as they come; while some are written, more gather.
pub(super) struct Showing {
    cx: StepContext,
    chunks: Chunks,
    pieces: mpsc::Receiver<Delta>,
    pub(super) shown: Vec<Shown>,
    /// What hooks have let through, a block each; only where there are such hooks.
    blocks: Vec<Block>,
    /// What is noted and not written yet.
    write: Option<BoxFuture<'static, Result<(), Failure>>>,
}

/// A block of an answer that hooks look at.
struct Block {
    id: String,
    reasoning: bool,
    /// How many bytes of it the model has said.
    said: usize,
    /// What was let through.
    passed: String,
}

/// Why showing through hooks has ended before the answer was there.
pub(super) enum Ended {
    /// A chunk could not be written, or a hook has failed.
    Failed(Failure),
    /// A hook has ended the turn.
    Stopped,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Showing {
    pub(super) fn new(cx: &StepContext, chunks: Chunks, pieces: mpsc::Receiver<Delta>) -> Self {
        Self { cx: cx.clone(), chunks, pieces, shown: Vec::new(), blocks: Vec::new(), write: None }
    }

    /// Shows what hooks let through, until the model has said all.
    pub(super) async fn through(&mut self, hooks: &mut Around) -> Result<(), Ended> {
        let mut pieces = Vec::with_capacity(PIECES_MAX);
        while self.pieces.recv_many(&mut pieces, PIECES_MAX).await > 0 {
            let mut chunks = Vec::new();
            for piece in pieces.drain(..) {
                self.pass(piece, hooks, &mut chunks).await?;
            }
            let chunks: Result<Vec<Payload>, _> = chunks.iter().map(Payload::of).collect();
            self.cx.show(chunks.map_err(Failure::from)?).await?;
            if hooks.stop.is_some() {
                return Err(Ended::Stopped);
            }
        }
        Ok(())
    }

    async fn pass(&mut self, piece: Delta, hooks: &mut Around, chunks: &mut Vec<Value>) -> Result<(), Failure> {
        match piece {
            Delta::TextStart { id } => self.begin(false, id),
            Delta::ReasoningStart { id } => self.begin(true, id),
            Delta::Text { id, text } | Delta::Reasoning { id, text } => {
                let Some(block) = self.blocks.iter_mut().rev().find(|block| block.id == id) else { return Ok(()) };
                block.said += text.len();
                let reasoning = block.reasoning;
                let passed = hooks.piece(reasoning, &block.passed, text).await?;
                if passed.is_empty() {
                    return Ok(());
                }
                block.passed.push_str(&passed);
                // A block of which nothing is let through is not there.
                if self.shown.iter().all(|shown| shown.id != id) {
                    chunks.push(self.block(reasoning, id.clone()));
                }
                chunks.push(self.more(reasoning, &id, &passed));
            }
            Delta::TextEnd { id } | Delta::ReasoningEnd { id } => {
                let reasoning = self.blocks.iter().any(|block| block.id == id && block.reasoning);
                if self.shown.iter().any(|shown| shown.id == id) {
                    chunks.push(self.end(reasoning, &id));
                }
            }
            input => chunks.push(self.note(input)),
        }
        Ok(())
    }

    fn begin(&mut self, reasoning: bool, id: String) {
        self.blocks.push(Block { id, reasoning, said: 0, passed: String::new() });
    }

    /// Puts what was let through in the place of what was said; what the model has said in its answer alone passes now.
    pub(super) async fn settle(&mut self, reply: &mut Reply, hooks: &mut Around) -> Result<(), Failure> {
        let mut blocks = self.blocks.iter();
        for part in &mut reply.parts {
            let (reasoning, text) = match part {
                AssistantPart::Text(text) => (false, text),
                AssistantPart::Reasoning { text, .. } if !text.is_empty() => (true, text),
                AssistantPart::Reasoning { .. } | AssistantPart::Call(_) => continue,
            };
            let (said, before) = blocks.next().map_or((0, ""), |block| (block.said, block.passed.as_str()));
            let rest = text.get(said..).unwrap_or_default().to_owned();
            let passed = format!("{before}{}", hooks.piece(reasoning, before, rest).await?);
            if *text != passed {
                *text = passed;
                if let AssistantPart::Reasoning { signature, .. } = part {
                    // The provider has sealed other words.
                    *signature = None;
                }
            }
        }
        reply.parts.retain(|part| !matches!(part, AssistantPart::Text(text) if text.is_empty()) && !unsaid(part));
        Ok(())
    }

    /// What was let through before a hook ended the turn.
    pub(super) fn passed(&self) -> Vec<AssistantPart> {
        let blocks = self.blocks.iter().filter(|block| !block.passed.is_empty());
        blocks
            .map(|block| match block.reasoning {
                true => AssistantPart::Reasoning { text: block.passed.clone(), signature: None },
                false => AssistantPart::Text(block.passed.clone()),
            })
            .collect()
    }

    /// Shows until a write fails; otherwise for ever.
    pub(super) async fn until_failed(&mut self) -> Failure {
        let mut pieces = Vec::with_capacity(PIECES_MAX);
        loop {
            if let Err(failure) = self.written().await {
                return failure;
            }
            if self.pieces.recv_many(&mut pieces, PIECES_MAX).await == 0 {
                // The model has said all; its reply is on its way.
                return std::future::pending().await;
            }
            // Noted before it is written: a piece may be shown twice by nobody.
            let chunks: Vec<Value> = pieces.drain(..).map(|piece| self.note(piece)).collect();
            let chunks: Result<Vec<Payload>, _> = chunks.iter().map(Payload::of).collect();
            let cx = self.cx.clone();
            self.write = Some(Box::pin(async move { cx.show(chunks?).await }));
        }
    }

    /// Waits until what was noted is written; may be given up and asked again.
    pub(super) async fn written(&mut self) -> Result<(), Failure> {
        let Some(write) = &mut self.write else { return Ok(()) };
        let written = write.await;
        self.write = None;
        written
    }

    fn note(&mut self, piece: Delta) -> Value {
        match piece {
            Delta::TextStart { id } => self.block(false, id),
            Delta::Text { id, text } => self.more(false, &id, &text),
            Delta::TextEnd { id } => self.end(false, &id),
            Delta::ReasoningStart { id } => self.block(true, id),
            Delta::Reasoning { id, text } => self.more(true, &id, &text),
            Delta::ReasoningEnd { id } => self.end(true, &id),
            Delta::ToolInputStart { id, name } => self.chunks.tool_input(&id, &name, &Piece::Start(&id)),
            Delta::ToolInput { id, name, text } => self.chunks.tool_input(&id, &name, &Piece::More(&id, &text)),
            Delta::ToolInputEnd { id } => self.chunks.tool_input(&id, "", &Piece::End(&id)),
        }
    }

    fn block(&mut self, reasoning: bool, id: String) -> Value {
        let chunk = self.chunks.text(reasoning, &Piece::Start(&id));
        self.shown.push(Shown { id, bytes: 0, ended: false });
        chunk
    }

    fn more(&mut self, reasoning: bool, id: &str, text: &str) -> Value {
        if let Some(block) = self.shown.iter_mut().rev().find(|block| block.id == id) {
            block.bytes += text.len();
        }
        self.chunks.text(reasoning, &Piece::More(id, text))
    }

    fn end(&mut self, reasoning: bool, id: &str) -> Value {
        if let Some(block) = self.shown.iter_mut().rev().find(|block| block.id == id) {
            block.ended = true;
        }
        self.chunks.text(reasoning, &Piece::End(id))
    }
}

/// Thinking of which nothing is left, not even a seal.
fn unsaid(part: &AssistantPart) -> bool {
    matches!(part, AssistantPart::Reasoning { text, signature: None } if text.is_empty())
}
