//! What the model reads of a signal (section 5).
//!
//! A pure function of the stored signal that cannot fail: one bad row must not keep a thread from ever running again.
//! It is part of what runs replay, so a change of it is a new [`RENDERING`] (T5.11).

use std::fmt;

use crate::message::contents::{Contents, Part};
use crate::message::name::{Category, XmlName, shortened};
use crate::message::prompt::PromptMessage;
use crate::message::signal::ThreadSignal;

/// The version of the rendering. Grows with every change of what a stored signal becomes.
pub const RENDERING: u32 = 1;

/// Something of a stored signal that the model is not given as it stands (T3.17).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The tag is no name; the category's default stands in its place.
    Tag {
        /// The signal's id.
        signal: String,
        /// The tag, cut after 80 characters.
        found: String,
        /// What stands in its place.
        used: &'static str,
    },
    /// An attribute's name is none; it is left out.
    Attribute {
        /// The signal's id.
        signal: String,
        /// The name, cut after 80 characters.
        found: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag { signal, found, used } => {
                write!(f, "signal {signal} has the tag {found:?}, which XML cannot take; the model reads {used}")
            }
            Self::Attribute { signal, found } => {
                write!(
                    f,
                    "signal {signal} has an attribute {found:?}, which XML cannot take; the model reads it without"
                )
            }
        }
    }
}

impl ThreadSignal {
    /// What the model reads, and what was amiss.
    #[must_use]
    pub fn render(&self) -> (PromptMessage, Vec<Warning>) {
        let mut warnings = Vec::new();
        let attributes = self.written_attributes(&mut warnings);
        let parts = if self.category == Category::User && attributes.is_empty() {
            self.contents.to_parts()
        } else {
            let element = Element { tag: self.written_tag(&mut warnings), attributes };
            element.around(&self.contents)
        };
        (PromptMessage::User { parts, provider_options: self.provider_options.clone() }, warnings)
    }

    fn written_tag(&self, warnings: &mut Vec<Warning>) -> &str {
        if XmlName::is_name(&self.tag) {
            return &self.tag;
        }
        let used = self.category.default_tag();
        warnings.push(Warning::Tag { signal: self.id.clone(), found: shortened(&self.tag), used });
        used
    }

    /// ` name="value"` for each attribute that has a value and a name.
    fn written_attributes(&self, warnings: &mut Vec<Warning>) -> String {
        let mut written = String::new();
        for (name, value) in self.attributes.iter() {
            if !XmlName::is_name(name) {
                warnings.push(Warning::Attribute { signal: self.id.clone(), found: shortened(name) });
            } else if let Some(value) = value.shown() {
                written.extend([" ", name, "=\""]);
                escape_into(&value, true, &mut written);
                written.push('"');
            }
        }
        written
    }
}

struct Element<'a> {
    tag: &'a str,
    attributes: String,
}

impl Element<'_> {
    fn around(&self, contents: &Contents) -> Vec<Part> {
        let parts = match contents {
            Contents::Text(text) => return vec![Part::text(self.of(text))],
            Contents::Parts(parts) => parts,
        };
        let plain: Option<Vec<&str>> = parts
            .iter()
            .map(|part| match part {
                Part::Text { text, provider_options } if provider_options.is_empty() => Some(text.as_str()),
                Part::Text { .. } | Part::File { .. } => None,
            })
            .collect();
        if let Some(texts) = plain {
            return vec![Part::text(self.of(&texts.join("\n")))];
        }
        let mut parts = parts.clone();
        let first = parts.iter_mut().find_map(|part| match part {
            Part::Text { text, .. } => Some(text),
            Part::File { .. } => None,
        });
        match first {
            Some(text) => *text = self.of(text),
            None => parts.insert(0, Part::text(self.of(""))),
        }
        parts
    }

    fn of(&self, text: &str) -> String {
        let Self { tag, attributes } = self;
        if text.is_empty() {
            return format!("<{tag}{attributes} />");
        }
        let mut written = format!("<{tag}{attributes}>");
        escape_into(text, false, &mut written);
        written.extend(["</", tag, ">"]);
        written
    }
}

/// Exactly these characters and no others (T5.7).
fn escape_into(text: &str, quotes: bool, to: &mut String) {
    for c in text.chars() {
        match c {
            '&' => to.push_str("&amp;"),
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '"' if quotes => to.push_str("&quot;"),
            _ => to.push(c),
        }
    }
}
