//! What a signal must be to be accepted.

use serde::Serialize;
use serde_json::Value;

use crate::id::ID_BYTES_MAX;
use crate::message::attributes::{Attributes, Scalar, odd_provider};
use crate::message::contents::{Contents, Part};
use crate::message::name::{Category, InvalidName, UnknownCategory, XmlName, shortened};
use crate::message::signal::NewSignal;

/// How much a signal may carry (T3.18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the contents, written as JSON; a text is counted without its quotes. Also the bound of a state signal's
    /// value and of its delta.
    pub contents_bytes_max: usize,
    /// Attributes, with a branch's merged in.
    pub attributes_max: usize,
    /// Bytes of one attribute's value, and of its name and of a tag.
    pub attribute_bytes_max: usize,
    /// Bytes of the metadata, written as JSON. Also the bound of the provider options.
    pub metadata_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            contents_bytes_max: 1024 * 1024,
            attributes_max: 64,
            attribute_bytes_max: 4 * 1024,
            metadata_bytes_max: 64 * 1024,
        }
    }
}

/// Why a signal is not accepted. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its type is none of the four.
    #[error(transparent)]
    Category(#[from] UnknownCategory),
    /// The tag or an attribute's name, its own or a branch's, cannot stand in XML.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// An id is empty, too long, or not one line of text.
    #[error("{what} {found:?} is not usable: {why}; give 1 to {ID_BYTES_MAX} bytes without control characters")]
    Id {
        /// Which id.
        what: &'static str,
        /// The text, cut after 80 characters.
        found: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// A part of the signal has more bytes than it may.
    #[error("{what} of the signal would take {size} bytes, the limit is {limit}; {remedy}")]
    TooManyBytes {
        /// Which part.
        what: String,
        /// Its size.
        size: usize,
        /// The most it may have.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// There are more attributes than there may be.
    #[error(
        "the signal has {count} attributes with its branch's, the limit is {limit}; put what the model need not see into metadata"
    )]
    TooManyAttributes {
        /// How many there are.
        count: usize,
        /// The most there may be.
        limit: usize,
    },
    /// A provider's options are not an object.
    #[error(
        "the provider options for {provider:?} are not an object; write them as {{\"{provider}\": {{\"option\": …}}}}"
    )]
    ProviderOptions {
        /// The provider, cut after 80 characters.
        provider: String,
    },
    /// A state signal says whether it is transient (T3.20).
    #[error("state signals cannot be transient")]
    TransientState,
    /// A state signal names no lane (T14.1).
    #[error("state signal id is required")]
    StateIdMissing,
    /// A state signal names no cache key (T14.1).
    #[error("state signal cacheKey is required")]
    StateCacheKeyMissing,
}

impl Refused {
    /// A word for programs; never changes.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Category(_) => "invalid_signal_type",
            Self::Name(InvalidName::Tag(_)) => "invalid_tag_name",
            Self::Name(InvalidName::Attribute(_)) => "invalid_attribute_name",
            Self::Id { .. } => "invalid_id",
            Self::TooManyBytes { .. } => "too_many_bytes",
            Self::TooManyAttributes { .. } => "too_many_attributes",
            Self::ProviderOptions { .. } => "invalid_provider_options",
            Self::TransientState => "transient_state",
            Self::StateIdMissing => "state_id_missing",
            Self::StateCacheKeyMissing => "state_cache_key_missing",
        }
    }

    /// Whether it is a matter of size (413 over HTTP) rather than of form (400).
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooManyBytes { .. } | Self::TooManyAttributes { .. })
    }

    /// What the sender can do, where the sentence itself, fixed by the contract, does not say.
    #[must_use]
    pub fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Name(_) => {
                Some("a name begins with an ASCII letter or an underscore and goes on with letters, digits, _ . and -")
            }
            Self::TransientState => Some("leave the transient flag out"),
            Self::StateIdMissing => Some("give the lane's name as id, such as browser"),
            Self::StateCacheKeyMissing => Some("give a cacheKey that changes when the contents do"),
            Self::Category(_)
            | Self::Id { .. }
            | Self::TooManyBytes { .. }
            | Self::TooManyAttributes { .. }
            | Self::ProviderOptions { .. } => None,
        }
    }
}

impl NewSignal {
    /// Checks what acceptance demands of every signal, whatever becomes of it (T3.17): names, sizes, and that a state
    /// signal is not transient. `branches` are the attributes of every branch the sender gave, also of those not taken.
    ///
    /// # Errors
    /// [`Refused`] names the first rule that is broken.
    pub fn check(&self, limits: &Limits, branches: &[&Attributes]) -> Result<(), Refused> {
        if let Some(id) = &self.id {
            limits.id("signal id", id)?;
        }
        if self.category == Category::State && self.transient.is_some() {
            return Err(Refused::TransientState);
        }
        if let Some(tag) = &self.tag {
            limits.bytes("the tag", tag.len(), limits.attribute_bytes_max, "shorten it")?;
            XmlName::tag(tag)?;
        }
        limits.attributes(&self.attributes)?;
        for branch in branches {
            limits.attributes(branch)?;
            limits.count(&self.attributes.merged(branch))?;
        }
        limits.contents(&self.contents)?;
        limits.metadata("the metadata", &self.metadata)?;
        provider_options(&self.provider_options)?;
        limits.metadata("the provider options", &self.provider_options)?;
        if let Contents::Parts(parts) = &self.contents {
            parts.iter().map(Part::provider_options).try_for_each(provider_options)?;
        }
        Ok(())
    }
}

fn provider_options(options: &serde_json::Map<String, Value>) -> Result<(), Refused> {
    match odd_provider(options) {
        Some(provider) => Err(Refused::ProviderOptions { provider: shortened(provider) }),
        None => Ok(()),
    }
}

impl Limits {
    fn bytes(&self, what: &str, size: usize, limit: usize, remedy: &'static str) -> Result<(), Refused> {
        if size <= limit { Ok(()) } else { Err(Refused::TooManyBytes { what: what.to_owned(), size, limit, remedy }) }
    }

    pub(crate) fn id(&self, what: &'static str, id: &str) -> Result<(), Refused> {
        let why = if id.is_empty() {
            "it is empty"
        } else if id.len() > ID_BYTES_MAX {
            "it is too long"
        } else if id.chars().any(char::is_control) {
            "it holds a control character"
        } else {
            return Ok(());
        };
        Err(Refused::Id { what, found: shortened(id), why })
    }

    fn count(&self, attributes: &Attributes) -> Result<(), Refused> {
        let (count, limit) = (attributes.len(), self.attributes_max);
        if count <= limit { Ok(()) } else { Err(Refused::TooManyAttributes { count, limit }) }
    }

    fn attributes(&self, attributes: &Attributes) -> Result<(), Refused> {
        self.count(attributes)?;
        for (name, value) in attributes.iter() {
            self.bytes("the name of an attribute", name.len(), self.attribute_bytes_max, "shorten it")?;
            XmlName::attribute(name)?;
            if let Scalar::Text(text) = value {
                let what = format!("the attribute {}", shortened(name));
                self.bytes(&what, text.len(), self.attribute_bytes_max, "say it in the contents")?;
            }
        }
        Ok(())
    }

    fn contents(&self, contents: &Contents) -> Result<(), Refused> {
        let quotes = if matches!(contents, Contents::Text(_)) { 2 } else { 0 };
        let size = written_bytes(contents).saturating_sub(quotes);
        let remedy = "keep large files elsewhere and pass a URL";
        self.bytes("the contents", size, self.contents_bytes_max, remedy)
    }

    fn metadata(&self, what: &str, object: &serde_json::Map<String, Value>) -> Result<(), Refused> {
        let remedy = "keep large data elsewhere and pass a reference";
        self.bytes(what, written_bytes(object), self.metadata_bytes_max, remedy)
    }

    pub(crate) fn structured(&self, what: &'static str, value: Option<&Value>) -> Result<(), Refused> {
        let size = value.map_or(0, written_bytes);
        self.bytes(what, size, self.contents_bytes_max, "keep large data elsewhere and pass a reference")
    }
}

/// The bytes of a value's JSON, without keeping it.
fn written_bytes<T: Serialize + ?Sized>(value: &T) -> usize {
    struct Count(usize);

    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(0);
    // None of the values that are measured here has a form that JSON lacks.
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}
