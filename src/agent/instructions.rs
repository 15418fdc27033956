//! Files of instructions, such as `AGENTS.md`: once a tool has touched a folder, what such a file says there is put
//! before the model, once per thread (T15.4).

use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use futures::FutureExt as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::processor::{Hook, Hooked, InputHook, Processor};
use crate::failure::Failure;
use crate::message::{Attributes, Body, CallState, Category, Message, NewSignal, ReplyPart};

/// Under which key a signal's metadata names its file.
const KEY: &str = "instructionsFile";

/// Puts the instructions of folders before the model:
/// `Agent::new("coder").processor(Instructions::under("/srv/project"))`.
///
/// A tool has touched what its arguments name under `path`, `file`, `file_path`, `filePath`, `dir`, `directory`, `folder`
/// or `cwd`. Every folder from the root down to there counts. Nothing outside the root is read, whatever links or `..`
/// lead there.
#[derive(Debug, Clone)]
pub struct Instructions {
    root: PathBuf,
    names: Vec<String>,
    arguments: Vec<String>,
    bytes_max: usize,
}

impl Instructions {
    /// The instructions below a folder, in files called `AGENTS.md`, up to 32 KiB of each.
    #[must_use]
    pub fn under(root: impl Into<PathBuf>) -> Self {
        let arguments = ["path", "file", "file_path", "filePath", "dir", "directory", "folder", "cwd"];
        Self {
            root: root.into(),
            names: vec!["AGENTS.md".to_owned()],
            arguments: arguments.map(str::to_owned).to_vec(),
            bytes_max: 32 * 1024,
        }
    }

    /// The files are called so instead.
    #[must_use]
    pub fn named(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Tools name what they touch under these arguments instead.
    #[must_use]
    pub fn touched_by(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// So many bytes of each file are read at the most.
    #[must_use]
    pub fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// The paths that tools have touched, as they were named.
    fn touched(&self, messages: &[Message]) -> Vec<String> {
        let parts = messages.iter().filter_map(|message| match &message.body {
            Body::Assistant(reply) => Some(&reply.parts),
            _ => None,
        });
        let calls = parts.flatten().filter_map(|part| match part {
            ReplyPart::Tool(it) if matches!(it.state, CallState::Done(_)) => Some(&it.call.arguments),
            _ => None,
        });
        let named = |arguments: &Value| -> Vec<String> {
            let found = self.arguments.iter().filter_map(|name| arguments.get(name)?.as_str());
            found.map(str::to_owned).collect()
        };
        let mut touched: Vec<String> = Vec::new();
        for path in calls.flat_map(named) {
            if !touched.contains(&path) {
                touched.push(path);
            }
        }
        touched
    }

    /// The files of instructions for what was touched, from the root down, by their paths below the root.
    fn files(&self, touched: &[String]) -> Vec<(String, PathBuf)> {
        let Ok(root) = self.root.canonicalize() else { return Vec::new() };
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        for folder in touched.iter().filter_map(|path| folder_below(&root, Path::new(path))) {
            let chain = std::iter::once(PathBuf::new()).chain(folder.iter().scan(PathBuf::new(), |below, part| {
                below.push(part);
                Some(below.clone())
            }));
            for (below, name) in chain.flat_map(|below| self.names.iter().map(move |name| (below.clone(), name))) {
                let below = below.join(name);
                // A link may lead out of the root: what counts is where the file really is.
                let Ok(file) = root.join(&below).canonicalize() else { continue };
                let shown = below.to_string_lossy().replace('\\', "/");
                if file.starts_with(&root) && file.is_file() && files.iter().all(|(known, _)| *known != shown) {
                    files.push((shown, file));
                }
            }
        }
        files
    }

    /// What a file says, as far as it is read.
    fn text(&self, file: &Path) -> std::io::Result<String> {
        let mut bytes = Vec::new();
        std::fs::File::open(file)?.take(self.bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        let cut = bytes.len() > self.bytes_max;
        bytes.truncate(self.bytes_max);
        let text = String::from_utf8_lossy(&bytes);
        let text = if cut { text.trim_end_matches(char::REPLACEMENT_CHARACTER) } else { &text };
        Ok(if cut { format!("{text}\n(cut after {} bytes)", self.bytes_max) } else { text.to_owned() })
    }
}

/// The folder of a path, below the root; none if it is not there, or is somewhere else.
fn folder_below(root: &Path, path: &Path) -> Option<PathBuf> {
    if path.components().any(|part| part == Component::ParentDir) {
        return None;
    }
    let mut folder = if path.is_absolute() { path.to_owned() } else { root.join(path) };
    // What was touched may be gone by now, or be a file: the next folder above it that is there.
    loop {
        match folder.canonicalize() {
            Ok(real) if real.is_dir() => return real.strip_prefix(root).ok().map(Path::to_owned),
            _ => {
                if !folder.pop() {
                    return None;
                }
            }
        }
    }
}

/// The id of the signal that a file becomes: the same file is not added to a thread twice, wherever the window begins.
fn signal_id(file: &str) -> String {
    let digest: String = Sha256::digest(file.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("instructions-{digest}")
}

fn is_told(messages: &[Message], file: &str) -> bool {
    messages.iter().filter_map(Message::as_signal).any(|signal| signal.metadata.get(KEY).is_some_and(|it| it == file))
}

impl Processor for Instructions {
    fn id(&self) -> &str {
        "instructions"
    }

    fn hooks(&self) -> &[Hook] {
        &[Hook::InputStep]
    }

    fn process_input_step<'h>(&'h self, hook: InputHook<'h>) -> Hooked<'h> {
        async move {
            let touched = self.touched(hook.context.messages());
            if touched.is_empty() {
                return Ok(());
            }
            let this = self.clone();
            let files = tokio::task::spawn_blocking(move || this.files(&touched)).await?;
            let new = files.into_iter().filter(|(file, _)| !is_told(hook.context.messages(), file));
            let new: Vec<(String, PathBuf)> = new.collect();
            if new.is_empty() {
                return Ok(());
            }
            let ids = new.iter().map(|(file, _)| signal_id(file)).collect();
            let stored = hook.context.step().messages_named(ids).await?;
            for (file, path) in new.into_iter().filter(|(file, _)| !is_told(&stored, file)) {
                let this = self.clone();
                let text = match tokio::task::spawn_blocking(move || this.text(&path)).await? {
                    Ok(text) => text,
                    Err(error) => {
                        tracing::warn!(file, %error, "a file of instructions cannot be read and is left out");
                        continue;
                    }
                };
                let attributes: Attributes = serde_json::from_value(json!({ "path": file }))?;
                let mut signal = NewSignal::new(Category::Reactive, text).attributed(attributes);
                signal.id = Some(signal_id(&file));
                signal.metadata.insert(KEY.to_owned(), Value::from(file));
                hook.context.send(signal)?;
            }
            Ok::<_, Failure>(())
        }
        .boxed()
    }
}
