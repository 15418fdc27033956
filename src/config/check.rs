//! What is set, to be shown: secrets as `set`, addresses without passwords.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::keys::{Leaf, Node, tree};
use super::place::{KeyPath, Place};
use super::read::{Config, written};

/// A key that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The key.
    pub key: String,
    /// Its value as it may be shown.
    pub value: String,
    /// Where it was set.
    pub place: Place,
}

impl Config {
    /// All keys that are set, in the order of the file.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        self.gather(&self.set, tree(), &mut Vec::new(), &mut lines);
        lines
    }

    /// A short digest of what agents and models are made of; none if nothing of it is set.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        let made_of = ["models", "providers", "mcp", "agents"].map(|table| self.set.get(table));
        made_of.iter().any(Option::is_some).then(|| {
            let text = serde_json::to_string(&made_of).unwrap_or_default();
            Sha256::digest(text).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
        })
    }

    fn gather(&self, table: &Map<String, Value>, node: &Node, path: &mut KeyPath, lines: &mut Vec<Line>) {
        for (name, value) in table {
            path.push(name.clone());
            match (node.below(name), value) {
                (Some(Node::Leaf(leaf)), value) => {
                    let place = self.places.of_key(path);
                    lines.push(Line { key: written(path), value: shown(leaf, value), place });
                }
                // An empty table declares something all the same.
                (Some(Node::Table(_)), Value::Object(table)) if table.is_empty() => {
                    let place = self.places.of_key(path);
                    lines.push(Line { key: written(path), value: "{}".to_owned(), place });
                }
                (Some(below), Value::Object(table)) => self.gather(table, below, path, lines),
                (Some(_) | None, _) => {}
            }
            path.pop();
        }
    }
}

fn shown(leaf: &Leaf, value: &Value) -> String {
    match value {
        _ if leaf.secret => "set".to_owned(),
        Value::String(text) if leaf.address => Value::from(without_secrets(text)).to_string(),
        value => beginning(&value.to_string()),
    }
}

/// Instructions may be long.
fn beginning(text: &str) -> String {
    const SHOWN: usize = 100;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// An address without its password, and without what stands behind its path.
pub(super) fn without_secrets(address: &str) -> String {
    let address = address.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((who, host)) => {
            let user = who.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{host}{path}")
        }
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let shown = without_secrets("postgres://ann:s3:cret@db.example:5432/aldis?password=hunter2");
        assert_eq!(shown, "postgres://ann@db.example:5432/aldis");
        assert_eq!(without_secrets("sqlite://aldis.db"), "sqlite://aldis.db");
    }
}
