//! `accept`: the door in for signals. Shares the writer's transactions with commits.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::Error;
use super::contract::{Addressee, Arrival};
use super::open::Store;
use super::writer::{AcceptAnswer, ArrivalFact, Shared};
use crate::id::RunKey;
use crate::signal::{Accepted, Pending, Refused};

impl Store {
    /// Accepts a signal for a run: it is durable once this returns, and a waiting run is due. A repeat with the same id
    /// is told the place that the first one got, for as long as the run is kept.
    ///
    /// # Errors
    /// The inner one says why the signal was refused; nothing was written. [`Error::Overloaded`] if the writer's queue
    /// stayed full for five seconds; [`Error::Unavailable`], [`Error::Closed`].
    pub async fn accept(&self, arrival: Arrival) -> Result<Result<(RunKey, Accepted), Refused>, Error> {
        self.0.shared.open()?;
        let answer = self.send_arrival(arrival).await?;
        self.heard(answer).await
    }
}

fn named(to: &Addressee) -> String {
    match to {
        Addressee::Key(run) => format!("#{run}"),
        Addressee::Id(_, id) => id.to_string(),
    }
}

/// What the sender is told. `doubtful`: the signal was sent to the database before, and may have been added then.
pub(super) fn answer(arrival: &Arrival, fact: &ArrivalFact, doubtful: bool) -> AcceptAnswer {
    match *fact {
        ArrivalFact::New { run, ordinal, .. } => Ok((run, Accepted::New { ordinal })),
        // Added by the try whose answer was lost: for the sender it is new.
        ArrivalFact::Already { run, ordinal, at } if doubtful && at == arrival.at => {
            Ok((run, Accepted::New { ordinal }))
        }
        ArrivalFact::Already { run, ordinal, .. } => Ok((run, Accepted::Already { ordinal })),
        ArrivalFact::Unknown => Err(Refused::UnknownRun { run: named(&arrival.to) }),
        ArrivalFact::Closed { ref status } => {
            Err(Refused::ClosedRun { run: named(&arrival.to), status: status.clone() })
        }
        ArrivalFact::Full { pending } => {
            Err(Refused::TooManyPending { run: named(&arrival.to), pending, limit: arrival.pending_max })
        }
    }
}

/// The signal as the run will find it.
pub(super) fn pending(arrival: &Arrival, ordinal: i64) -> Pending {
    Pending {
        ordinal,
        kind: arrival.kind,
        name: arrival.name.clone(),
        id: arrival.id.clone(),
        payload: arrival.payload.clone(),
        accepted_at: arrival.at,
    }
}

/// Tells the engine here and processes elsewhere what came in.
pub(super) fn announce<'a>(
    shared: &Shared,
    accepted: impl Iterator<Item = (&'a Arrival, &'a AcceptAnswer, &'a ArrivalFact)>,
) {
    let mut order = Vec::new();
    let mut signals: HashMap<RunKey, Vec<Pending>> = HashMap::new();
    let mut due = false;
    let mut new = 0;
    for (arrival, answer, fact) in accepted {
        if let Ok((run, Accepted::New { ordinal })) = answer {
            let of_run = signals.entry(*run).or_default();
            if of_run.is_empty() {
                order.push(*run);
            }
            of_run.push(pending(arrival, *ordinal));
            new += 1;
            due |= !matches!(fact, ArrivalFact::New { due: false, .. });
        }
    }
    shared.arrivals.fetch_add(new, Ordering::SeqCst);
    for run in order {
        if let Some(mut signals) = signals.remove(&run) {
            signals.sort_by_key(|it| it.ordinal);
            shared.signalled(run, signals);
        }
    }
    if due {
        shared.due();
    }
}
