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
pub(super) fn announce<'a>(shared: &Shared, accepted: impl Iterator<Item = (&'a Arrival, &'a AcceptAnswer)>) {
    let mut order = Vec::new();
    let mut signals: HashMap<RunKey, Vec<Pending>> = HashMap::new();
    let mut new = 0;
    for (arrival, answer) in accepted {
        if let Ok((run, Accepted::New { ordinal })) = answer {
            let of_run = signals.entry(*run).or_default();
            if of_run.is_empty() {
                order.push(*run);
            }
            of_run.push(pending(arrival, *ordinal));
            new += 1;
        }
    }
    shared.arrivals.fetch_add(new, Ordering::SeqCst);
    for run in order {
        if let Some(mut signals) = signals.remove(&run) {
            signals.sort_by_key(|it| it.ordinal);
            shared.signalled(run, signals);
        }
    }
}

#[cfg(feature = "postgres")]
pub(super) mod postgres {
    use std::collections::HashMap;

    use sqlx::{PgConnection, Row};

    use super::super::commit::postgres::Tries;
    use super::super::writer::{ArrivalFact, Batch, Frame};
    use super::{Addressee, Arrival, RunKey};
    use crate::clock::Instant;

    /// How often what fits into a run that is nearly full is tried.
    const FITTING_MAX: usize = 4;

    /// Adds what is new and fits; one fact per arrival.
    pub(in super::super) async fn accept(
        tx: &mut PgConnection,
        batch: &Batch,
        frame: Frame,
    ) -> Result<Vec<ArrivalFact>, sqlx::Error> {
        let arrivals = &batch.arrivals;
        let mut facts: Vec<Option<ArrivalFact>> = vec![None; arrivals.len()];
        let mut asked: Vec<usize> = (0..arrivals.len()).collect();
        for _ in 0..FITTING_MAX {
            let some: Vec<&Arrival> = asked.iter().map(|i| &arrivals[*i]).collect();
            let mut tries = Tries::of(frame);
            let added = loop {
                if let Some(added) = tries.settled(add(tx, &some).await) {
                    break added?;
                }
            };
            batch.partly();
            let mut refused = Vec::new();
            for (i, added) in asked.into_iter().zip(added) {
                match added {
                    Added::Fact(fact) => facts[i] = Some(fact),
                    Added::Refused(run) => refused.push((i, run)),
                }
            }
            if refused.is_empty() {
                break;
            }
            asked = fitting(tx, arrivals, &refused, &mut facts).await?;
            if asked.is_empty() {
                break;
            }
        }
        // What was tried so often met a run that others fill as fast as its signals are taken.
        Ok(facts
            .into_iter()
            .zip(arrivals)
            .map(|(fact, it)| fact.unwrap_or(ArrivalFact::Full { pending: it.pending_max }))
            .collect())
    }

    enum Added {
        Fact(ArrivalFact),
        /// The run is closed, or not all of the batch's signals for it fit.
        Refused(i64),
    }

    /// All signals for one run are added, or none of them: the row that is locked must have room for all.
    async fn add(tx: &mut PgConnection, arrivals: &[&Arrival]) -> Result<Vec<Added>, sqlx::Error> {
        let rows = Columns::of(arrivals);
        let added = sqlx::query(
            "with a as materialized (
               select a.nth, a.kind, a.name, a.id, a.payload, a.at, a.pending_max,
                      case
                        when a.key is null then (
                          select r.key from runs r where r.namespace = a.namespace and r.id = a.run_id and r.latest = 1)
                        else (select r.key from runs r where r.key = a.key)
                      end as run
               from unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bytea[],
                           $8::bigint[], $9::bigint[]) with ordinality
                 as a (key, namespace, run_id, kind, name, id, payload, at, pending_max, nth)
             ),
             known as materialized (
               select a.*, (select s.ordinal from signals s where s.run = a.run and s.id = a.id) as ordinal
               from a
             ),
             fresh as materialized (
               select *, row_number() over (partition by run order by nth) as place
               from known
               where ordinal is null
                 and run is not null
             ),
             per_run as (
               select run, count(*) as signals, min(pending_max - place) as room, min(at) as at
               from fresh
               group by run
             ),
             counted as (
               update runs r
               set signals_accepted = r.signals_accepted + p.signals,
                   signals_pending = r.signals_pending + p.signals,
                   status = case when r.status = 'waiting' then 'due' else r.status end,
                   wake_at = case when r.status = 'waiting' then least(r.wake_at, p.at) else r.wake_at end,
                   updated_at = p.at
               from per_run p
               where r.key = any (array(select run from per_run))
                 and r.key = p.run
                 and r.closed_at is null
                 and r.signals_pending <= p.room
               returning r.key, r.signals_accepted - p.signals as before
             ),
             kept as (
               insert into signals (run, ordinal, kind, name, id, payload, accepted_at)
               select f.run, c.before + f.place, f.kind, f.name, f.id, f.payload, f.at
               from fresh f
               join counted c on c.key = f.run
             )
             select k.run, k.ordinal,
                    case
                      when k.ordinal is not null then (
                        select s.accepted_at from signals s where s.run = k.run and s.id = k.id)
                    end,
                    c.before + f.place
             from known k
             left join fresh f on f.nth = k.nth
             left join counted c on c.key = f.run
             order by k.nth",
        )
        .bind(&rows.key)
        .bind(&rows.namespace)
        .bind(&rows.run_id)
        .bind(&rows.kind)
        .bind(&rows.name)
        .bind(&rows.id)
        .bind(&rows.payload)
        .bind(&rows.at)
        .bind(&rows.pending_max)
        .fetch_all(tx)
        .await?;
        added
            .iter()
            .map(|row| {
                let Some(run) = row.try_get::<Option<i64>, _>(0)? else { return Ok(Added::Fact(ArrivalFact::Unknown)) };
                if let (Some(ordinal), Some(at)) = (row.try_get(1)?, row.try_get::<Option<i64>, _>(2)?) {
                    return Ok(Added::Fact(ArrivalFact::Already { run: RunKey(run), ordinal, at: Instant(at) }));
                }
                match row.try_get(3)? {
                    Some(ordinal) => Ok(Added::Fact(ArrivalFact::New { run: RunKey(run), ordinal })),
                    None => Ok(Added::Refused(run)),
                }
            })
            .collect()
    }

    /// Of what was refused, what fits by itself; the rest gets its fact.
    async fn fitting(
        tx: &mut PgConnection,
        arrivals: &[Arrival],
        refused: &[(usize, i64)],
        facts: &mut [Option<ArrivalFact>],
    ) -> Result<Vec<usize>, sqlx::Error> {
        let keys: Vec<i64> = refused.iter().map(|(_, run)| *run).collect();
        let rows: Vec<(i64, String, i64, Option<i64>)> = sqlx::query_as(
            "select key, status, signals_pending, closed_at
             from runs
             where key = any ($1)",
        )
        .bind(&keys)
        .fetch_all(tx)
        .await?;
        let mut runs: HashMap<i64, _> =
            rows.into_iter().map(|(key, status, pending, closed)| (key, (status, pending, closed))).collect();
        let mut fitting = Vec::new();
        for (i, run) in refused {
            match runs.get_mut(run) {
                None => facts[*i] = Some(ArrivalFact::Unknown),
                Some((status, _, Some(_))) => facts[*i] = Some(ArrivalFact::Closed { status: status.clone() }),
                Some((_, pending, None)) if *pending < arrivals[*i].pending_max => {
                    *pending += 1;
                    fitting.push(*i);
                }
                Some((_, pending, None)) => facts[*i] = Some(ArrivalFact::Full { pending: *pending }),
            }
        }
        Ok(fitting)
    }

    #[derive(Default)]
    struct Columns<'a> {
        key: Vec<Option<i64>>,
        namespace: Vec<Option<&'a str>>,
        run_id: Vec<Option<&'a str>>,
        kind: Vec<&'static str>,
        name: Vec<&'a str>,
        id: Vec<&'a str>,
        payload: Vec<&'a [u8]>,
        at: Vec<i64>,
        pending_max: Vec<i64>,
    }

    impl<'a> Columns<'a> {
        fn of(arrivals: &[&'a Arrival]) -> Self {
            let mut rows = Self::default();
            for arrival in arrivals {
                let (key, namespace, id) = match &arrival.to {
                    Addressee::Key(run) => (Some(run.0), None, None),
                    Addressee::Id(namespace, id) => (None, Some(namespace.as_str()), Some(id.as_str())),
                };
                rows.key.push(key);
                rows.namespace.push(namespace);
                rows.run_id.push(id);
                rows.kind.push(arrival.kind.word());
                rows.name.push(&arrival.name);
                rows.id.push(&arrival.id);
                rows.payload.push(arrival.payload.as_str().as_bytes());
                rows.at.push(arrival.at.0);
                rows.pending_max.push(arrival.pending_max);
            }
            rows
        }
    }
}
