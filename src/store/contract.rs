//! The values that pass between the store and the rooms above it.

use std::time::Duration;

use crate::clock::Instant;
use crate::failure::Outcome;
use crate::id::{Fence, Namespace, RunId, RunKey, Seq, ThreadKey, WorkerKey};
use crate::journal::{EVENT_VERSION, Event, Recorded};
use crate::payload::Payload;
use crate::run::{BlockReason, Closed, IdempotencyKey, IfClosed, IfOpen, Run};
use crate::signal::{Pending, SignalKind};

use super::receive::First;
use super::turns::ThreadPart;

/// What a run wants to leave behind: one write that lands whole or not at all.
///
/// It is applied only if the run's fence and head are still the ones it names and its preconditions hold.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The run.
    pub run: RunKey,
    /// The owner's fence.
    pub fence: Fence,
    /// The journal's last line before this commit.
    pub head: Seq,
    /// The row to insert first, if this commit begins the run. Then `head` is [`Seq::NONE`].
    pub begins: Option<Box<NewRun>>,
    /// The lines to add, encoded.
    pub lines: Lines,
    /// How the run is to stand afterwards.
    pub leaves: Leaves,
    /// The signal counter up to which the owner has seen the run's signals. If more were accepted, a run that would be
    /// left waiting is left due instead: no signal is slept through.
    pub signals_seen: i64,
    /// What must hold when it is applied.
    pub preconditions: Preconditions,
    /// The ordinals of the pending signals that these lines take.
    pub taken: Vec<i64>,
    /// Values to publish, by name.
    pub published: Vec<(String, Payload)>,
    /// Answers to updates, by the update's id.
    pub replies: Vec<(String, Payload)>,
    /// Values to append to streams.
    pub chunks: Vec<Chunk>,
    /// What it leaves with the thread that the run answers.
    pub thread: Option<Box<ThreadPart>>,
    /// When.
    pub at: Instant,
}

impl Commit {
    /// A commit that adds no line and leaves nothing but the run as told.
    #[must_use]
    pub fn new(run: RunKey, fence: Fence, head: Seq, leaves: Leaves, at: Instant) -> Self {
        Self {
            run,
            fence,
            head,
            begins: None,
            lines: Lines::default(),
            leaves,
            signals_seen: 0,
            preconditions: Preconditions::default(),
            taken: Vec::new(),
            published: Vec::new(),
            replies: Vec::new(),
            chunks: Vec::new(),
            thread: None,
            at,
        }
    }

    /// Adds what the next commit of the same run leaves behind, so that both are one.
    pub(super) fn continued(&mut self, next: &Self) {
        self.lines.append(&next.lines);
        self.leaves = next.leaves.clone();
        self.published.extend_from_slice(&next.published);
        self.chunks.extend_from_slice(&next.chunks);
        self.thread = next.thread.clone();
        self.at = self.at.max(next.at);
    }
}

/// What must hold when a commit is applied; compared with counters of the row that it locks, never with other rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preconditions {
    /// No signal was accepted beyond the commit's `signals_seen`.
    pub drained: bool,
}

/// How a commit leaves its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaves {
    /// With its owner: bodies run.
    Running(WorkerKey),
    /// With nobody, until a signal or `wake_at`.
    Waiting {
        /// Its earliest timer.
        wake_at: Option<Instant>,
    },
    /// With nobody, to be claimed from `at` on.
    Due {
        /// The earliest time.
        at: Instant,
    },
    /// With nobody, until the cause is gone.
    Blocked {
        /// The cause.
        reason: BlockReason,
        /// The build that met it; another build may try again.
        build: String,
    },
    /// Ended; the last line says with what.
    Closed(Closed),
}

/// Journal lines, encoded once where they were made: one buffer, and where each line lies in it.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    /// The JSON of all lines, one after the other.
    pub bytes: Vec<u8>,
    /// Each line, in order.
    pub lines: Vec<Line>,
}

/// One encoded journal line.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Its kind.
    pub kind: &'static str,
    /// The version of its form.
    pub version: i16,
    /// When it was recorded.
    pub at: Instant,
    /// Where its JSON begins in the buffer.
    pub begin: usize,
    /// Where its JSON ends in the buffer.
    pub end: usize,
}

impl Lines {
    /// Adds a line.
    pub fn push(&mut self, at: Instant, event: &Event) {
        let begin = self.bytes.len();
        event.encode_into(&mut self.bytes);
        self.lines.push(Line { kind: event.kind(), version: EVENT_VERSION, at, begin, end: self.bytes.len() });
    }

    /// Adds the lines of another.
    fn append(&mut self, other: &Self) {
        let moved = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        let lines = other.lines.iter();
        self.lines.extend(lines.map(|line| Line { begin: line.begin + moved, end: line.end + moved, ..*line }));
    }

    /// How many lines.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// How the run ends with these lines, if it does.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let line = self.lines.last()?;
        let json = std::str::from_utf8(self.json(line)).ok()?;
        Event::decode(Seq::NONE, line.kind, line.version, json).ok()?.outcome()
    }

    /// The JSON of a line.
    #[must_use]
    pub fn json(&self, line: &Line) -> &[u8] {
        &self.bytes[line.begin..line.end]
    }
}

/// The row of a run that begins.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Its key, from a block that this process reserved.
    pub key: RunKey,
    /// Its namespace.
    pub namespace: Namespace,
    /// What the outside calls it.
    pub id: RunId,
    /// The workflow's written name.
    pub workflow: String,
    /// The workflow's version.
    pub version: u32,
    /// The thread that it answers, if it is a turn.
    pub thread: Option<ThreadKey>,
}

/// The verdict on one commit. A commit that is refused does not hurt its neighbours in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is durable, whole.
    Applied,
    /// Nothing of it was written.
    Refused(Refusal),
}

/// Why a commit was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another worker has taken the run since. Drop everything; it is replayed there.
    #[error("run is held under fence {theirs}, this commit carries fence {ours}")]
    Fenced {
        /// The commit's fence.
        ours: Fence,
        /// The row's fence.
        theirs: Fence,
    },
    /// The journal has another head than the commit builds on.
    #[error("the journal ends at line {found}, this commit builds on line {expected}")]
    Moved {
        /// The commit's head.
        expected: Seq,
        /// The row's head.
        found: Seq,
    },
    /// A signal has arrived that the commit's precondition says there is none of.
    #[error("{accepted} signals were accepted, this commit has seen {seen}")]
    Undrained {
        /// The row's counter.
        accepted: i64,
        /// The commit's counter.
        seen: i64,
    },
    /// The run would begin, but its id belongs to another run.
    #[error("the run's id is in use")]
    IdInUse,
    /// There is no such run.
    #[error("there is no such run")]
    Gone,
}

/// A signal at the door.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Whom it is for.
    pub to: Addressee,
    /// What it is.
    pub kind: SignalKind,
    /// Its name.
    pub name: String,
    /// The sender's id, or one made here; unique per run.
    pub id: String,
    /// The value.
    pub payload: Payload,
    /// When.
    pub at: Instant,
    /// The most signals that may be pending at the run.
    pub pending_max: i64,
}

/// How a run is addressed from outside.
#[derive(Debug, Clone)]
pub enum Addressee {
    /// By its key: that run, whatever has begun under its id since.
    Key(RunKey),
    /// By its id: the latest run that has it.
    Id(Namespace, RunId),
}

/// All that is needed to go on with a run.
#[derive(Debug, Clone)]
pub struct History {
    /// The run's row.
    pub run: Run,
    /// Its journal.
    pub journal: Vec<Recorded>,
    /// The signals it has not taken, in the order of acceptance.
    pub pending: Vec<Pending>,
}

/// A run whose journal cannot be read: a line of a kind, version or form that this build does not know.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{problem}")]
pub struct Unreadable {
    /// The run's row.
    pub run: Run,
    /// The first line that cannot be read.
    pub problem: crate::journal::Undecipherable,
}

/// What a transactional step came to.
#[derive(Debug)]
pub enum Transacted<A> {
    /// The body's writes and the commit are durable, together.
    Applied,
    /// The commit was refused; the body's writes were rolled back.
    Refused(Refusal),
    /// The body gave up; its writes were rolled back.
    Aborted(A),
    /// The body panicked; its writes were rolled back.
    Panicked(String),
    /// The body took longer than its deadline; its writes were rolled back.
    TimedOut,
}

/// A start that must look before it writes: with an id that may be in use, or an idempotency key.
#[derive(Debug, Clone)]
pub struct Start {
    /// The commit that begins the run. It is used as it is if the run may begin.
    pub commit: Commit,
    /// If the id belongs to an open run.
    pub if_open: IfOpen,
    /// If the id belongs to a closed run.
    pub if_closed: IfClosed,
    /// A repeat with the same key returns the first run.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Signals accepted with the start, by whichever run comes of it. Their `to` is ignored.
    pub signals: Vec<Arrival>,
    /// Who asks; recorded if a run is terminated for it.
    pub by: String,
}

/// What a start came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// The run has begun.
    New,
    /// Nothing was begun: this run has the id, or the idempotency key, already.
    Existing(RunKey),
}

/// Why a start was refused. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartRefused {
    /// The id belongs to a run that is open.
    #[error("run {run} is open ({status}); choose another id, or ask to use the existing run")]
    Open {
        /// The id.
        run: RunId,
        /// How it stands.
        status: &'static str,
    },
    /// The id belongs to a run that is closed, and the caller's policy does not allow another.
    #[error(
        "run {run} has ended ({status}) and the start asks not to begin it again; choose another id, or another policy"
    )]
    Closed {
        /// The id.
        run: RunId,
        /// How it ended.
        status: &'static str,
    },
    /// A signal that came with the start was refused.
    #[error(transparent)]
    Signal(#[from] crate::signal::Refused),
}

/// Values for a stream.
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The stream's name.
    pub stream: String,
    /// Which part of it: the workflow's own (`code`), or `op#attempt` of the body that writes. Another attempt of the
    /// same operation is another part: readers may discard the earlier one.
    pub part: String,
    /// The value.
    pub value: Payload,
}

/// A value read from a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Its place in the stream: 1, 2, 3, …; reading resumes after it.
    pub offset: i64,
    /// Which part it belongs to.
    pub part: String,
    /// When it was appended.
    pub at: Instant,
    /// The value.
    pub value: Payload,
}

/// A worker process as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its number.
    pub key: WorkerKey,
    /// Host and process id, for people.
    pub name: String,
    /// What its workflows were built from.
    pub build: String,
    /// Its runs are taken over after this.
    pub lease_until: Instant,
    /// The workflows it can run, as `name v1`.
    pub knows: Vec<String>,
}

/// A registered workflow, kept so that any process can check a start or a signal without the program's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its written name.
    pub workflow: String,
    /// Its version.
    pub version: u32,
    /// The JSON Schema of its input.
    pub input: Payload,
    /// The JSON Schema of its output.
    pub output: Payload,
    /// The JSON Schemas of its signals and updates, by name: `{"approval":{"kind":"signal","schema":{…}}}`.
    pub signals: Payload,
}

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The namespace; all if none.
    pub namespace: Option<Namespace>,
    /// Only this workflow.
    pub workflow: Option<String>,
    /// Only these status words; all if empty.
    pub statuses: Vec<String>,
    /// Only runs with a smaller key: the page after the last one seen.
    pub before: Option<RunKey>,
}

/// What a write told the rooms above, in this process, once it was durable. A hint: losing one costs a poll.
#[derive(Debug, Clone)]
pub enum Hint {
    /// These signals were accepted for the run; they are whole, so no read is needed. If the run waited, it is due now:
    /// who does not hold it looks for due runs.
    Signalled {
        /// The run.
        run: RunKey,
        /// The signals, in the order of acceptance.
        signals: Vec<Pending>,
    },
    /// Some run became due.
    Due,
    /// Somebody has ended the run over the head of whoever works on it: nothing of it is recorded any more.
    Ended(RunKey),
    /// A turn was begun for this process's worker, and is its own already. Unlike the others this one is never dropped:
    /// nobody else would look for the run.
    Owned(Box<Owned>),
}

/// A turn that was begun as this process's worker's own.
#[derive(Debug, Clone)]
pub struct Owned {
    /// What would be read of it, had `first` not been written.
    pub history: History,
    /// What was found out in advance and written with its beginning.
    pub first: Option<First>,
}

/// What a store is opened with.
#[derive(Debug, Clone)]
pub struct Options {
    /// SQLite: whether acknowledged means on disk (`FULL`), or may be lost with the machine's power (`NORMAL`).
    pub durability: Durability,
    /// Postgres: how many writer connections.
    pub writers: usize,
    /// How many connections read.
    pub readers: u32,
    /// How many logical commits one physical transaction takes at the most.
    pub batch_max: usize,
    /// How many requests may wait for the writer before senders have to wait.
    pub queue_max: usize,
    /// How long a SQLite writer waits for another process's transaction.
    pub busy_timeout: Duration,
    /// Whether to bring the schema up to date while opening.
    pub migrate: bool,
    /// Scripted faults, for the crash harness; none in production.
    pub faults: Option<super::Faults>,
}

/// What "acknowledged" means on SQLite. Postgres follows its own `synchronous_commit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On disk.
    #[default]
    Full,
    /// With the operating system: safe against a killed process, not against lost power.
    Normal,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            writers: 1,
            readers: 4,
            batch_max: 256,
            queue_max: 4_096,
            busy_timeout: Duration::from_secs(30),
            migrate: true,
            faults: None,
        }
    }
}
