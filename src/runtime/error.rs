//! The one error of the public face, with a stable code for each kind.

use crate::engine::BeginError;
use crate::failure::Failure;
use crate::id::InvalidId;
use crate::intake::{CatalogueError, InputError, SignalError, StartError};
use crate::journal::Undecipherable;
use crate::payload::{Undecodable, Unencodable};
use crate::store::{self, NotCopied, NotReceived, OpenError, Refusal, StartRefused};
use crate::workflow::RegistryError;

/// What went wrong, as the caller sees it. [`Error::code`] is stable; the text is for people.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store could not do what was asked.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The workflows cannot be registered together.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Another process advances the runs of this SQLite file.
    #[error(
        "another process advances the runs of {store}; signals and reads work beside it, and --standby waits until it ends"
    )]
    EngineElsewhere {
        /// The store.
        store: String,
    },
    /// A text cannot be an id.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A start was refused; nothing was written.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A signal was refused; nothing was written.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// An input to a thread was refused; nothing was written.
    #[error(transparent)]
    Input(#[from] InputError),
    /// What is asked of a turn cannot be read; nothing was written.
    #[error(
        "the options of the turn cannot be used: {problem}; send them as `TurnOptions` has them, or leave them out"
    )]
    TurnOptions {
        /// Where and why.
        problem: String,
    },
    /// The messages of a direct call cannot be used; nothing was written.
    #[error("the messages cannot be used: {problem}")]
    Messages {
        /// What is wrong with them.
        problem: String,
    },
    /// There is no such thread.
    #[error("Thread not found: {thread}; see `aldis threads`")]
    UnknownThread {
        /// The id as given.
        thread: String,
    },
    /// The thread is somebody else's (T2.3).
    #[error("Access denied: thread belongs to a different resource")]
    ForeignThread {
        /// The id as given.
        thread: String,
    },
    /// What follows a subscriber's cursor is not kept any longer (T11.10).
    #[error(
        "the chunks after cursor {cursor} are not kept any longer: the thread keeps those from {first} on; subscribe after cursor {after}, and read the history for what was said before"
    )]
    ChunksGone {
        /// The cursor.
        cursor: i64,
        /// The cursor of the first chunk that is kept.
        first: i64,
        /// The cursor with which a subscription sees all that is kept.
        after: i64,
    },
    /// Messages of that id are on several threads.
    #[error("several threads have a message {message}; say which thread is meant")]
    AmbiguousMessage {
        /// The message.
        message: String,
    },
    /// No call of that id waits for an answer on the thread.
    #[error(
        "no call {call} waits for an answer on thread {thread}: no active or suspended run was found for it; `aldis approvals` says where one waits"
    )]
    NotWaiting {
        /// The thread.
        thread: String,
        /// The call.
        call: String,
    },
    /// The call was answered before, otherwise (T13.10).
    #[error("call {call} was answered before, otherwise; the first answer stands")]
    AnsweredOtherwise {
        /// The call.
        call: String,
    },
    /// The engine is stopping and begins no more runs.
    #[error("this process is stopping and begins no more runs; nothing was written")]
    Stopping,
    /// There is no such run.
    #[error("no run {run} here; see `aldis runs`")]
    UnknownRun {
        /// The id as given.
        run: String,
    },
    /// The run ended without a value.
    #[error("run {run} {status}: {failure}")]
    Ended {
        /// The run.
        run: String,
        /// How it ended.
        status: &'static str,
        /// Why.
        failure: Failure,
    },
    /// The update was accepted, but its run has ended without answering it.
    #[error("run {run} has ended without an answer to update {id:?}")]
    Unanswered {
        /// The run.
        run: String,
        /// The update's id.
        id: String,
    },
    /// A value does not fit the type that was asked for.
    #[error("{what} does not fit {expected}: {problem}")]
    Undecodable {
        /// What it is.
        what: String,
        /// The type that was asked for.
        expected: &'static str,
        /// Where and why.
        problem: Undecodable,
    },
    /// A value has no JSON form.
    #[error(transparent)]
    Unencodable(#[from] Unencodable),
    /// A journal line cannot be read by this build.
    #[error(transparent)]
    Undecipherable(#[from] Undecipherable),
    /// What is to be imported is not an export of Aldis.
    #[error("line {line} of the import cannot be used: {problem}; expected what `aldis export` writes")]
    Import {
        /// Which line.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// A stable word for the kind of error.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open(_) => "store_not_opened",
            Self::Store(store::Error::Unavailable { .. }) => "store_unavailable",
            Self::Store(store::Error::Overloaded { .. })
            | Self::Start(StartError::Store(store::Error::Overloaded { .. }))
            | Self::Signal(SignalError::Store(store::Error::Overloaded { .. })) => "overloaded",
            Self::Store(store::Error::Corrupt { .. }) => "store_corrupt",
            Self::Store(store::Error::Closed) => "store_closed",
            Self::Registry(_) => "registry_invalid",
            Self::EngineElsewhere { .. } => "engine_elsewhere",
            Self::Id(_) => "id_invalid",
            Self::Start(e) => start_code(e),
            Self::Signal(e) => signal_code(e),
            Self::Input(e) => input_code(e),
            Self::TurnOptions { .. } => "turn_options_invalid",
            Self::Messages { .. } => "messages_invalid",
            Self::UnknownThread { .. } => "thread_unknown",
            Self::ForeignThread { .. } => "thread_foreign",
            Self::ChunksGone { .. } => "chunks_gone",
            Self::AmbiguousMessage { .. } => "message_ambiguous",
            Self::NotWaiting { .. } => "call_not_waiting",
            Self::AnsweredOtherwise { .. } => "call_answered_otherwise",
            Self::Stopping => "stopping",
            Self::UnknownRun { .. } => "run_unknown",
            Self::Ended { .. } => "run_ended",
            Self::Unanswered { .. } => "update_unanswered",
            Self::Undecodable { .. } => "value_undecodable",
            Self::Unencodable(_) => "value_unencodable",
            Self::Undecipherable(_) => "journal_unreadable",
            Self::Import { .. } => "import_invalid",
        }
    }

    /// A local start that was refused, as a start through the store would have said it.
    pub(super) fn of_begin(error: BeginError, run: &crate::id::RunId, status: &'static str) -> Self {
        match error {
            BeginError::Refused(Refusal::IdInUse) => {
                StartError::from(StartRefused::Open { run: run.clone(), status }).into()
            }
            BeginError::Refused(refusal) => {
                store::Error::Corrupt { found: format!("the start of run {run} was refused: {refusal}") }.into()
            }
            BeginError::Store(e) => StartError::from(e).into(),
            BeginError::Stopping => Self::Stopping,
        }
    }
}

fn catalogue_code(error: &CatalogueError) -> &'static str {
    match error {
        CatalogueError::Unknown(_) => "workflow_unknown",
        CatalogueError::Unusable { .. } => "workflow_unusable",
        CatalogueError::Store(_) => "store_unavailable",
    }
}

fn start_code(error: &StartError) -> &'static str {
    match error {
        StartError::Catalogue(e) => catalogue_code(e),
        StartError::Invalid(_) => "payload_invalid",
        StartError::TooLarge(_) => "payload_too_large",
        StartError::Name(_) => "name_invalid",
        StartError::Refused(StartRefused::Open { .. }) => "run_open",
        StartError::Refused(StartRefused::Closed { .. }) => "run_closed",
        StartError::Refused(StartRefused::Signal(refused)) => refused_code(refused),
        StartError::Store(_) => "store_unavailable",
    }
}

fn signal_code(error: &SignalError) -> &'static str {
    match error {
        SignalError::Name(_) => "name_invalid",
        SignalError::Invalid(_) => "payload_invalid",
        SignalError::TooLarge(_) => "payload_too_large",
        SignalError::Refused(refused) => refused_code(refused),
        SignalError::Catalogue(e) => catalogue_code(e),
        SignalError::Store(_) => "store_unavailable",
    }
}

fn input_code(error: &InputError) -> &'static str {
    match error {
        InputError::UnknownAgent { .. } => "agent_unknown",
        InputError::Resource(_) => "resource_invalid",
        InputError::Signal(refused) => refused.code(),
        InputError::Metadata { .. } => "metadata_invalid",
        InputError::NotCopied(NotCopied::IdInUse { .. }) => "thread_exists",
        InputError::NotCopied(NotCopied::UnknownMessage { .. }) => "message_unknown",
        InputError::TooLarge(_) => "payload_too_large",
        InputError::Unencodable(_) => "value_unencodable",
        InputError::NotReceived(NotReceived::Foreign) => "thread_foreign",
        InputError::NotReceived(NotReceived::Conflict { .. }) => "signal_conflict",
        InputError::NotReceived(NotReceived::Unchanged { .. }) => "state_unchanged",
        InputError::NotReceived(NotReceived::RunIdInUse { .. }) => "run_id_in_use",
        InputError::NotReceived(NotReceived::NoRun) => "run_not_active",
        InputError::NotReceived(NotReceived::TooManyPending { .. }) => "too_many_pending",
        InputError::Catalogue(e) => catalogue_code(e),
        InputError::Store(store::Error::Overloaded { .. }) => "overloaded",
        InputError::Store(_) => "store_unavailable",
    }
}

fn refused_code(refused: &crate::signal::Refused) -> &'static str {
    use crate::signal::Refused;
    match refused {
        Refused::UnknownRun { .. } => "run_unknown",
        Refused::ClosedRun { .. } => "run_closed",
        Refused::TooManyPending { .. } => "too_many_pending",
    }
}
