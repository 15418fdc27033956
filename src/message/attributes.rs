//! What a signal carries beside its contents and the model may see: names with plain values, in the order they came.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Number, Value};

use crate::message::contents::ProviderOptions;
use crate::message::name::shortened;

/// One attribute's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// Kept in the row and not shown to the model.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as JSON has it.
    Number(Number),
    /// A text.
    Text(String),
}

impl Scalar {
    /// What the model reads, before escaping; nothing for null.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Bool(value) => Some(value.to_string()),
            // A whole number is written without a fraction, as clients in other languages write it.
            Self::Number(number) => Some(match number.as_f64().filter(|_| number.is_f64()) {
                Some(whole) if whole.fract() == 0.0 && whole.abs() < 1e21 => format!("{:.0}", whole + 0.0),
                _ => number.to_string(),
            }),
            Self::Text(text) => Some(text.clone()),
        }
    }
}

impl TryFrom<Value> for Scalar {
    type Error = NotScalar;

    fn try_from(value: Value) -> Result<Self, NotScalar> {
        match value {
            Value::Null => Ok(Self::Null),
            Value::Bool(value) => Ok(Self::Bool(value)),
            Value::Number(number) => Ok(Self::Number(number)),
            Value::String(text) => Ok(Self::Text(text)),
            Value::Array(_) => Err(NotScalar { found: "a list" }),
            Value::Object(_) => Err(NotScalar { found: "an object" }),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Value::deserialize(from)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Scalar {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Scalar {
    fn from(value: i64) -> Self {
        Self::Number(value.into())
    }
}

/// A value that no attribute can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an attribute is a text, a number, a boolean or null, not {found}; put it into metadata")]
pub struct NotScalar {
    /// What it is instead.
    pub found: &'static str,
}

/// Attributes in order of insertion. Names are as the sender or an old row wrote them: acceptance checks them, rendering
/// leaves bad ones out.
#[derive(Debug, Clone, Default)]
pub struct Attributes(IndexMap<String, Scalar>);

impl Attributes {
    /// No attributes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more, or another value for one that is there, which keeps its place.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Scalar>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// With a branch's attributes over these: theirs wins and keeps the place, new ones come after (T5.8, T7.9).
    #[must_use]
    pub fn merged(&self, branch: &Self) -> Self {
        let mut all = self.0.clone();
        all.extend(branch.iter().map(|(name, value)| (name.to_owned(), value.clone())));
        Self(all)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Scalar)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// One value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Scalar> {
        self.0.get(name)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of a JSON object whose values can be attributes; the others are left out.
    #[must_use]
    pub(crate) fn of_object(object: &Map<String, Value>) -> Self {
        let fitting = object.iter().filter_map(|(name, value)| {
            let value = Scalar::try_from(value.clone()).ok()?;
            Some((name.clone(), value))
        });
        fitting.collect()
    }
}

impl PartialEq for Attributes {
    /// In the same order: the model reads them in it.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().eq(other.0.iter())
    }
}

impl Eq for Attributes {}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(&self.0)
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let object = Map::<String, Value>::deserialize(from)?;
        let read = object.into_iter().map(|(name, value)| match Scalar::try_from(value) {
            Ok(value) => Ok((name, value)),
            Err(odd) => Err(serde::de::Error::custom(format!("attribute {:?}: {odd}", shortened(&name)))),
        });
        read.collect::<Result<_, _>>().map(Self)
    }
}

impl<N: Into<String>, V: Into<Scalar>> FromIterator<(N, V)> for Attributes {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(from: I) -> Self {
        Self(from.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Reads absent or null attributes as none.
pub(crate) fn absent_is_none<'de, D: Deserializer<'de>>(from: D) -> Result<Attributes, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// The first provider whose options are not an object.
pub(crate) fn odd_provider(options: &ProviderOptions) -> Option<&str> {
    options.iter().find(|(_, value)| !value.is_object()).map(|(provider, _)| provider.as_str())
}
