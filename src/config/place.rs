//! Where a key was set.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a key was set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file; lines and columns begin with 1.
    File {
        /// The file, as it was asked for.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// In a variable of the environment.
    Variable(String),
    /// Nowhere that could be said.
    Unknown,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::Unknown => f.write_str("the settings"),
        }
    }
}

/// A key's path, from the top.
pub(super) type KeyPath = Vec<String>;

/// The places of all keys that are set.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(BTreeMap<KeyPath, Place>);

impl Places {
    /// Those of a file.
    pub(super) fn of(file: &Path, text: &str, table: &DeTable<'_>) -> Self {
        let mut places = Self::default();
        places.table(&Text { file, text }, &mut Vec::new(), table);
        places
    }

    fn table(&mut self, text: &Text<'_>, path: &mut KeyPath, table: &DeTable<'_>) {
        for (key, value) in table {
            path.push(key.get_ref().clone().into_owned());
            self.0.insert(path.clone(), text.place(key.span()));
            self.value(text, path, value);
            path.pop();
        }
    }

    fn value(&mut self, text: &Text<'_>, path: &mut KeyPath, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(text, path, table),
            DeValue::Array(values) => {
                for (number, value) in values.iter().enumerate() {
                    path.push(number.to_string());
                    self.0.insert(path.clone(), text.place(value.span()));
                    self.value(text, path, value);
                    path.pop();
                }
            }
            _ => {}
        }
    }

    /// A variable has set this key.
    pub(super) fn set(&mut self, path: KeyPath, place: Place) {
        self.0.insert(path, place);
    }

    /// Where this key was set, or the next thing around it.
    pub(super) fn of_key(&self, path: &[String]) -> Place {
        let around = (0..=path.len()).rev().map(|length| &path[..length]);
        around.filter_map(|path| self.0.get(path)).next().cloned().unwrap_or(Place::Unknown)
    }
}

/// A file's text, to find lines in.
pub(super) struct Text<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Text<'_> {
    /// Where this part of the text begins.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_begin = before.rfind('\n').map_or(0, |at| at + 1);
        Place::File {
            path: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_begin..].chars().count() + 1,
        }
    }
}
