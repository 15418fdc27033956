//! From a file's text and the environment to [`Settings`], with every problem at its place.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::{Map, Value};
use serde_path_to_error::Segment;
use toml::de::DeTable;

use super::keys::{Key, Node, keys, tree};
use super::place::{KeyPath, Place, Places, Text};
use super::problem::{Problem, Problems};
use super::settings::Settings;

/// The file that is read where none is named, if it is there.
pub const DEFAULT_FILE: &str = "aldis.toml";

/// Names as like as this are taken for a mistyped one.
const NEAR: f64 = 0.75;

/// The variables of an environment. Their values are told to nobody.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's own; what is no text is left out.
    #[must_use]
    pub fn of_process() -> Self {
        let texts =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self(texts.collect())
    }

    /// One of these variables alone.
    #[must_use]
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Environment({} variables)", self.0.len())
    }
}

/// Settings, and where each of them comes from.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// What is set, with the defaults of what is not.
    pub settings: Settings,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    pub(super) set: Map<String, Value>,
    pub(super) places: Places,
}

impl Config {
    /// Reads a file, and the variables that go before it.
    ///
    /// # Errors
    /// All that is wrong, each with its place. No text of a secret is among it.
    pub fn read(file: &Path, environment: &Environment) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(file).map_err(|e| unread(file, &e))?;
        Self::of(file, &text, environment)
    }

    /// Reads [`DEFAULT_FILE`] in the working directory if it is there, and the variables.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn find(environment: &Environment) -> Result<Self, Problems> {
        let file = Path::new(DEFAULT_FILE);
        match std::fs::read_to_string(file) {
            Ok(text) => Self::of(file, &text, environment),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::without_file(environment),
            Err(error) => Err(unread(file, &error)),
        }
    }

    /// The variables and the defaults alone.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn without_file(environment: &Environment) -> Result<Self, Problems> {
        Self::default().settled(environment)
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn of(file: &Path, text: &str, environment: &Environment) -> Result<Self, Problems> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // The error's own text would repeat the line, and a secret may stand there.
            let whole = Text { file, text };
            let told = errors.iter().map(|error| Problem {
                place: whole.place(error.span().unwrap_or_default()),
                what: error.message().replace('\n', ", "),
            });
            return Problems::or(told.collect(), Self::default());
        }
        let places = Places::of(file, text, table.get_ref());
        let set = Map::deserialize(toml::de::Deserializer::from(table))
            .map_err(|error| Problems(vec![Problem { place: Place::Unknown, what: error.message().to_owned() }]))?;
        Self { settings: Settings::default(), file: Some(file.to_owned()), set, places }.settled(environment)
    }

    /// The folder that paths of the file begin at.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    fn settled(mut self, environment: &Environment) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        self.forget_unknown(&mut problems);
        self.take_variables(environment, &mut problems);
        let mut known = Value::Object(self.set.clone());
        // What does not fit is told and left out, until the rest does.
        self.settings = loop {
            match serde_path_to_error::deserialize(&known) {
                Ok(settings) => break settings,
                Err(error) => {
                    let path = path_of(error.path());
                    problems.push(self.problem(&path, in_words(error.inner())));
                    if !remove(&mut known, &path) {
                        break Settings::default();
                    }
                }
            }
        };
        Problems::or(problems, self)
    }

    pub(super) fn problem(&self, path: &[String], what: impl fmt::Display) -> Problem {
        Problem { place: self.places.of_key(path), what: format!("{}: {what}", written(path)) }
    }

    fn forget_unknown(&mut self, problems: &mut Vec<Problem>) {
        let mut unknown = Vec::new();
        strangers(&self.set, tree(), &mut Vec::new(), &mut unknown);
        for path in unknown {
            problems.push(Problem { place: self.places.of_key(&path), what: stranger(&path) });
            let mut set = Value::Object(std::mem::take(&mut self.set));
            remove(&mut set, &path);
            if let Value::Object(known) = set {
                self.set = known;
            }
        }
    }

    fn take_variables(&mut self, environment: &Environment, problems: &mut Vec<Problem>) {
        for key in keys() {
            let Some(name) = &key.variable else { continue };
            let Some(text) = environment.get(name).filter(|text| !text.is_empty()) else { continue };
            let place = Place::Variable(name.clone());
            match value_of(key, &text) {
                Ok(value) => {
                    insert(&mut self.set, &key.path, value);
                    self.places.set(key.path.clone(), place);
                }
                Err(what) => problems.push(Problem { place, what }),
            }
        }
    }
}

fn unread(file: &Path, error: &io::Error) -> Problems {
    let place = Place::File { path: file.to_owned(), line: 1, column: 1 };
    Problems(vec![Problem { place, what: format!("it cannot be read: {error}") }])
}

/// A path as it is written in a file.
pub(super) fn written(path: &[String]) -> String {
    let plain = |part: &str| part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let parts = path.iter().map(|part| if plain(part) { part.clone() } else { format!("{part:?}") });
    parts.collect::<Vec<_>>().join(".")
}

/// The keys of a table that are not known, however deep.
fn strangers(table: &Map<String, Value>, node: &Node, path: &mut KeyPath, found: &mut Vec<KeyPath>) {
    for (name, value) in table {
        path.push(name.clone());
        match (node.below(name), value) {
            (None, _) => found.push(path.clone()),
            (Some(below @ (Node::Table(_) | Node::Named(_))), Value::Object(table)) => {
                strangers(table, below, path, found);
            }
            (Some(_), _) => {}
        }
        path.pop();
    }
}

/// What to say of a key that is not known.
fn stranger(path: &[String]) -> String {
    let (name, above) = path.split_last().map_or(("", &[][..]), |(name, above)| (name.as_str(), above));
    let here = if above.is_empty() { "at the top".to_owned() } else { format!("in [{}]", written(above)) };
    let known: Vec<&str> = match tree().at(above) {
        Some(Node::Table(keys)) => keys.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("there is no key {name:?} {here}; did you mean {near:?}?"),
        None => match elsewhere(name) {
            Some(place) => format!("there is no key {name:?} {here}; it stands in {place}"),
            None => format!("there is no key {name:?} {here}; there are: {}", known.join(", ")),
        },
    }
}

/// The table in which a key of this name stands.
fn elsewhere(name: &str) -> Option<String> {
    let found = keys().iter().find(|key| key.path.last().is_some_and(|last| last == name))?;
    let (_, above) = found.path.split_last()?;
    Some(if above.is_empty() { "no table, at the top".to_owned() } else { format!("[{}]", written(above)) })
}

/// The name that was probably meant.
pub(super) fn nearest<'a>(asked: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = names.map(|name| (strsim::jaro_winkler(asked, name), name)).filter(|(likeness, _)| *likeness > NEAR);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}

/// A variable's text as a file would have its value.
fn value_of(key: &Key, text: &str) -> Result<Value, String> {
    match key.form.as_str() {
        "whole number" => text.parse::<u64>().map(Value::from).map_err(|_| format!("{text:?} is no whole number")),
        "true or false" => {
            text.parse::<bool>().map(Value::from).map_err(|_| format!("{text:?} is neither true nor false"))
        }
        form if form.starts_with("list") => Ok(text.split(',').map(str::trim).map(Value::from).collect()),
        _ => Ok(Value::from(text)),
    }
}

fn insert(table: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => drop(table.insert(name.clone(), value)),
        [name, below @ ..] => {
            let entry = table.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(table) = entry {
                insert(table, below, value);
            }
        }
    }
}

/// Takes a value away; false if it is not there.
fn remove(value: &mut Value, path: &[String]) -> bool {
    match (path, value) {
        ([name], Value::Object(table)) => table.remove(name).is_some(),
        ([number], Value::Array(values)) => match number.parse::<usize>() {
            Ok(number) if number < values.len() => {
                values.remove(number);
                true
            }
            _ => false,
        },
        ([name, below @ ..], Value::Object(table)) => table.get_mut(name).is_some_and(|it| remove(it, below)),
        ([number, below @ ..], Value::Array(values)) => {
            number.parse().ok().and_then(|number: usize| values.get_mut(number)).is_some_and(|it| remove(it, below))
        }
        _ => false,
    }
}

fn path_of(path: &serde_path_to_error::Path) -> KeyPath {
    let parts = path.iter().filter_map(|segment| match segment {
        Segment::Map { key } => Some(key.clone()),
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    parts.collect()
}

/// What does not fit, without the names of Rust's types.
fn in_words(error: &serde_json::Error) -> String {
    const WORDS: [(&str, &str); 5] = [
        ("invalid IP address syntax", "write an address, such as 10.0.0.1"),
        ("invalid socket address syntax", "write an address and a port, such as 127.0.0.1:4111"),
        ("expected u32", "expected a whole number that is not negative"),
        ("expected u64", "expected a whole number that is not negative"),
        ("expected usize", "expected a whole number that is not negative"),
    ];
    WORDS.iter().fold(error.to_string(), |text, (technical, plain)| text.replace(technical, plain))
}
