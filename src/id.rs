//! Identities: what the outside calls a thing, and the numbers the inside uses for it.
//!
//! Outside, a run has a text id, chosen by the caller or made as a UUIDv7. Inside, it has an integer key,
//! which keeps the journal's index narrow. Nothing here reads a clock or a database.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The most bytes a text id may have.
pub const ID_BYTES_MAX: usize = 200;

/// A text that cannot be an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {found:?} is not usable: {why}; an id has 1 to {ID_BYTES_MAX} bytes and none of / ? #, spaces or control characters"
)]
pub struct InvalidId {
    /// Which id it was meant to be, such as `run id`.
    pub what: &'static str,
    /// The text as it was given, cut after 80 characters.
    pub found: String,
    /// The rule it breaks.
    pub why: &'static str,
}

fn check(what: &'static str, text: &str) -> Result<(), InvalidId> {
    let why = if text.is_empty() {
        "it is empty"
    } else if text.len() > ID_BYTES_MAX {
        "it is too long"
    } else if text.chars().any(|c| matches!(c, '/' | '?' | '#') || c.is_whitespace() || c.is_control()) {
        "it holds a character that ids may not have"
    } else {
        return Ok(());
    };
    let found = text.chars().take(80).collect();
    Err(InvalidId { what, found, why })
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a text and takes it as an id.
            ///
            /// # Errors
            /// [`InvalidId`] names the rule that the text breaks.
            pub fn parse(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                check($what, text.as_ref())?;
                Ok(Self(Arc::from(text.as_ref())))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
                Self::parse(text.as_ref()).map_err(serde::de::Error::custom)
            }
        }
    };
}

text_id! {
    /// What the outside calls a run: chosen by the caller, or a UUIDv7. One open run per id and [`Namespace`].
    RunId, "run id"
}

text_id! {
    /// What the outside calls a thread: chosen by the caller. One thread per id and [`Namespace`].
    ThreadId, "thread id"
}

text_id! {
    /// A wall between tenants: ids, limits and listings do not cross it.
    Namespace, "namespace"
}

impl RunId {
    /// A new id that sorts by the time it was made.
    #[must_use]
    pub fn generate() -> Self {
        Self(Arc::from(uuid::Uuid::now_v7().to_string()))
    }
}

impl Default for Namespace {
    /// The namespace of callers that name none.
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number! {
    /// A run's key inside one store. Never shown as the run's name.
    RunKey
}

number! {
    /// A thread's key inside one store. Runs and threads are numbered in one sequence: no thread has a run's key.
    ThreadKey
}

number! {
    /// A worker process, as the store numbers them.
    WorkerKey
}

number! {
    /// Grows by one at each change of a run's owner; a commit that carries an older one is refused.
    Fence
}

number! {
    /// A line's place in a run's journal: 1, 2, 3, … without gaps.
    Seq
}

impl Fence {
    /// The fence of a run that its starter owns.
    pub const FIRST: Self = Self(1);
}

impl Seq {
    /// The head of a journal that holds no event yet.
    pub const NONE: Self = Self(0);

    /// The place `n` lines further on.
    #[must_use]
    pub fn plus(self, n: usize) -> Self {
        Self(self.0 + n as i64)
    }
}

/// Where in a workflow's code an operation was asked for: the path of its scope and its ordinal there, or its key.
///
/// Written `3` for the third operation of the run's own scope, `audit/1` for the first of the scope `audit`,
/// `lines[A7]/2` inside the keyed scope `lines[A7]`. Taken where the call is written, not when it is first polled, so
/// that the order in which branches happen to be polled cannot change it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct OpId(Arc<str>);

impl OpId {
    /// Takes a text that the journal or a scope's counter made.
    #[must_use]
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(Arc::from(text.as_ref()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for OpId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(from).map(|text| Self(Arc::from(text.as_ref())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_with_a_slash_is_refused_in_words() {
        let refused = RunId::parse("orders/7").unwrap_err();
        insta::assert_snapshot!(refused, @r#"run id "orders/7" is not usable: it holds a character that ids may not have; an id has 1 to 200 bytes and none of / ? #, spaces or control characters"#);
    }

    #[test]
    fn an_empty_id_is_refused_in_words() {
        let refused = RunId::parse("").unwrap_err();
        insta::assert_snapshot!(refused, @r#"run id "" is not usable: it is empty; an id has 1 to 200 bytes and none of / ? #, spaces or control characters"#);
    }

    #[test]
    fn generated_ids_sort_by_time() {
        let (first, second) = (RunId::generate(), RunId::generate());
        assert!(first < second);
    }
}
