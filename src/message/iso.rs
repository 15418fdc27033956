//! Instants as they stand in JSON: RFC 3339 in UTC with milliseconds.

use serde::{Deserialize, Deserializer, Serializer, de};

use crate::clock::Instant;

pub(crate) fn parse(text: &str) -> Option<Instant> {
    text.parse::<jiff::Timestamp>().ok().map(|at| Instant(at.as_millisecond()))
}

pub(crate) fn serialize<S: Serializer>(at: &Instant, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(at)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Instant, D::Error> {
    let text = String::deserialize(from)?;
    parse(&text).ok_or_else(|| {
        let found = crate::message::name::shortened(&text);
        de::Error::custom(format!("{found:?} is not an instant; write it as 2026-01-02T03:04:05.000Z"))
    })
}

/// The same for an instant that may be absent or null.
pub(crate) mod option {
    use super::{Deserialize, Deserializer, Instant, Serializer};

    pub(crate) fn serialize<S: Serializer>(at: &Option<Instant>, to: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::serialize(at, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Instant>, D::Error> {
        #[derive(Deserialize)]
        struct At(#[serde(deserialize_with = "super::deserialize")] Instant);

        Option::<At>::deserialize(from).map(|at| at.map(|At(at)| at))
    }
}
