//! Records of a run, each followed by a byte that stands in no JSON (H3.6).

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt as _};
use serde_json::Value;

use super::super::error::Problem;
use super::super::state::Shared;
use super::super::watch::Counted;
use super::told::Told;
use super::watched::Watched;
use crate::runtime::{Error, RunHandle};

/// What follows each record.
const SEPARATOR: u8 = 0x1E;

/// A place among the streams of this server; taken before anything is accepted, so that a refusal can be sent again.
pub(super) struct Place(Counted);

impl Place {
    pub(super) fn take(shared: &Shared) -> Result<Self, Problem> {
        let streams = &shared.metrics.streams;
        if streams.get() >= shared.options.streams_max() {
            return Err(Problem::too_many_streams());
        }
        Ok(Self(Counted::new(streams.clone())))
    }
}

/// Which records of a run are wanted.
pub(super) struct Wanted {
    /// What was told before.
    pub(super) told: Told,
    /// How many of those that follow are left out.
    pub(super) skips: usize,
    /// Whether the end of the stream is where the run waits for somebody, or its own.
    pub(super) ends_at_rest: bool,
}

struct Reading {
    watched: Watched,
    wanted: Wanted,
    ended: bool,
}

impl Reading {
    /// The next records; none once the run has ended, or rests.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while !self.ended {
            let history = self.watched.next().await?;
            let Wanted { told, skips, ends_at_rest } = &mut self.wanted;
            let records = told.read(&history);
            self.ended = told.has_ended() || *ends_at_rest && told.rests(&history);
            let skipped = records.len().min(*skips);
            *skips -= skipped;
            if records.len() > skipped {
                return Ok(Some(written(&records[skipped..])));
            }
        }
        Ok(None)
    }
}

fn written(records: &[Value]) -> Bytes {
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend_from_slice(record.to_string().as_bytes());
        bytes.push(SEPARATOR);
    }
    bytes.into()
}

/// Records of a run as they are made. Who closes it ends nothing else (H3.7).
pub(super) fn answer(shared: &Shared, place: Place, run: RunHandle, wanted: Wanted) -> Response {
    let reading = Reading { watched: Watched::new(run), wanted, ended: false };
    let records = stream::unfold(reading, async |mut reading| match reading.next().await {
        Ok(records) => records.map(|records| (records, reading)),
        Err(error) => {
            tracing::warn!(%error, "the records of a run end early");
            None
        }
    });
    let records = records.take_until(shared.draining.clone().cancelled_owned()).map(move |records| {
        // It is counted for as long as somebody reads it.
        let _ = &place.0;
        Ok::<_, Infallible>(records)
    });
    ([(header::CONTENT_TYPE, "text/plain")], Body::from_stream(records)).into_response()
}
