//! Signals, updates and requests to cancel, at the door.

use super::{CatalogueError, Door};
use crate::id::{Namespace, RunId, RunKey};
use crate::payload::{Payload, TooLarge};
use crate::run::Run;
use crate::signal::{Accepted, Refused, SignalKind};
use crate::store::{self, Addressee, Arrival};
use crate::workflow::InvalidPayload;

/// The most bytes that a signal's name or its sender's id may have.
const NAME_BYTES_MAX: usize = 512;

/// A text that cannot be a signal's name or sender's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {found:?} is not usable: {why}; it has 1 to {NAME_BYTES_MAX} bytes and no control characters")]
pub struct InvalidName {
    /// Which text it is.
    pub what: &'static str,
    /// The text, cut after 80 characters.
    pub found: String,
    /// The rule it breaks.
    pub why: &'static str,
}

/// Why a signal was not accepted. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Its name or id cannot be used.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// It does not match its schema, or the update's validator refused it.
    #[error(transparent)]
    Invalid(#[from] InvalidPayload),
    /// It is too large.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The run does not take it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The schemas of the run's workflow could not be had.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The store could not take it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What is sent to a run.
#[derive(Debug, Clone)]
pub struct Send {
    /// Signal, update or request to cancel.
    pub kind: SignalKind,
    /// Its name.
    pub name: String,
    /// The sender's id: the same id again is the same signal. One is made if there is none.
    pub id: Option<String>,
    /// The value.
    pub payload: Payload,
}

/// The part of a run's row that the door needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct To<'a> {
    pub(crate) key: RunKey,
    pub(crate) id: &'a RunId,
    pub(crate) workflow: &'a str,
    pub(crate) version: u32,
}

impl Door {
    /// Sends a signal to a run by its id: to the latest run that has it.
    ///
    /// # Errors
    /// [`SignalError`]; nothing was written.
    pub async fn signal(
        &self,
        namespace: &Namespace,
        id: &RunId,
        send: Send,
    ) -> Result<(RunKey, Accepted), SignalError> {
        let found = self.store.find(namespace, id).await?;
        let Run { key, workflow, version, .. } = found.ok_or_else(|| Refused::UnknownRun { run: id.to_string() })?;
        let accepted = self.signal_to(To { key, id, workflow: &workflow, version }, send).await?;
        Ok((key, accepted))
    }

    /// Sends a signal to a run whose row is known: no read is needed.
    pub(crate) async fn signal_to(&self, to: To<'_>, send: Send) -> Result<Accepted, SignalError> {
        check_name("signal name", &send.name)?;
        if let Some(id) = &send.id {
            check_name("signal id", id)?;
        }
        let payload = send
            .payload
            .within(self.limits.payload_bytes_max, || format!("{} {:?} to run {}", send.kind, send.name, to.id))?;
        if send.kind != SignalKind::Cancel {
            match self.catalogue.version(&self.store, to.workflow, to.version).await {
                Ok(known) => known.check_signal(&send.name, &payload)?,
                // Nobody has declared the workflow, so there is nothing to check against; the run is there all the same.
                Err(CatalogueError::Unknown(_)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let arrival = self.arrival(Addressee::Key(to.key), send.kind, send.name, send.id, payload);
        let accepted = self.store.accept(arrival).await?.map_err(|refused| named(refused, to.id))?;
        Ok(accepted.1)
    }

    pub(super) fn arrival(
        &self,
        to: Addressee,
        kind: SignalKind,
        name: String,
        id: Option<String>,
        payload: Payload,
    ) -> Arrival {
        let id = id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let pending_max = i64::from(self.limits.pending_max);
        Arrival { to, kind, name, id, payload, at: self.clock.now(), pending_max }
    }
}

pub(super) fn check_name(what: &'static str, text: &str) -> Result<(), InvalidName> {
    let why = if text.is_empty() {
        "it is empty"
    } else if text.len() > NAME_BYTES_MAX {
        "it is too long"
    } else if text.chars().any(char::is_control) {
        "it holds a control character"
    } else {
        return Ok(());
    };
    Err(InvalidName { what, found: text.chars().take(80).collect(), why })
}

/// The store knows the run by its key; people know it by its id.
fn named(refused: Refused, id: &RunId) -> Refused {
    let run = id.to_string();
    match refused {
        Refused::UnknownRun { .. } => Refused::UnknownRun { run },
        Refused::ClosedRun { status, .. } => Refused::ClosedRun { run, status },
        Refused::TooManyPending { pending, limit, .. } => Refused::TooManyPending { run, pending, limit },
    }
}
