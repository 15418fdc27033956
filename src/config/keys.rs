//! The list of all keys, made from the fields of [`Settings`]: what the documentation shows, what a name is held against, and
//! which variable sets what.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::settings::Settings;

/// A key, as the documentation tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its path; `NAME` stands for a name that is chosen freely: `agents.NAME.model`.
    pub path: Vec<String>,
    /// What its value looks like.
    pub form: String,
    /// Its value where nothing is said, as it would be written.
    pub default: Option<String>,
    /// The flag that goes before everything else.
    pub flag: Option<String>,
    /// The variable that goes before the file.
    pub variable: Option<String>,
    /// What it is for.
    pub meaning: String,
}

/// What may stand at a place of the file.
#[derive(Debug)]
pub(super) enum Node {
    /// A table with these keys.
    Table(BTreeMap<String, Node>),
    /// A table with names that are chosen freely.
    Named(Box<Node>),
    /// A value.
    Leaf(Leaf),
}

/// What is to be known of a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Leaf {
    pub(super) form: String,
    /// It says where a secret is.
    pub(super) secret: bool,
    /// It is an address, which may hold a password.
    pub(super) address: bool,
}

/// The name that stands for any.
pub(super) const ANY: &str = "NAME";

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let inline = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    inline.into_generator().into_root_schema_for::<Settings>().to_value()
});

static TREE: LazyLock<Node> = LazyLock::new(|| node(&SCHEMA));

static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
    let mut keys = Vec::new();
    gather(&SCHEMA, None, &mut Vec::new(), &mut keys);
    keys
});

/// All keys, those of one table together.
#[must_use]
pub fn keys() -> &'static [Key] {
    &KEYS
}

/// What may stand in a file.
pub(super) fn tree() -> &'static Node {
    &TREE
}

impl Node {
    /// What may stand below, under this name.
    pub(super) fn below(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Table(keys) => keys.get(name),
            Self::Named(node) => Some(node),
            Self::Leaf(_) => None,
        }
    }

    /// What may stand at a path. A list's numbers lead nowhere.
    pub(super) fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.below(name))
    }
}

/// A schema without `null`, which no file can say.
fn present(schema: &Value) -> &Value {
    let choices = schema.get("anyOf").and_then(Value::as_array);
    choices.and_then(|choices| choices.iter().find(|it| it["type"] != "null")).unwrap_or(schema)
}

fn node(schema: &Value) -> Node {
    let whole = present(schema);
    if let Some(properties) = whole.get("properties").and_then(Value::as_object) {
        return Node::Table(properties.iter().map(|(name, schema)| (name.clone(), node(schema))).collect());
    }
    if let Some(named) = whole.get("additionalProperties").filter(|it| it.is_object()) {
        return Node::Named(Box::new(node(named)));
    }
    let says = |key: &str| schema.get(key).or(whole.get(key)).is_some_and(|it| it == true);
    Node::Leaf(Leaf { form: form(whole), secret: says("x-secret"), address: says("x-address") })
}

/// What a value looks like, in words.
fn form(schema: &Value) -> String {
    if let Some(form) = schema["x-form"].as_str() {
        return form.to_owned();
    }
    if schema.get("oneOf").is_some() || schema.get("enum").is_some() {
        return "text".to_owned();
    }
    let name = match &schema["type"] {
        Value::Array(types) => types.iter().find(|it| *it != "null").and_then(Value::as_str),
        name => name.as_str(),
    };
    match name {
        Some("integer") => "whole number".to_owned(),
        Some("number") => "number".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("array") => format!("list of {}s", form(&schema["items"])),
        _ => "text".to_owned(),
    }
}

fn gather(schema: &Value, default: Option<&Value>, path: &mut Vec<String>, keys: &mut Vec<Key>) {
    let whole = present(schema);
    if let Some(properties) = whole.get("properties").and_then(Value::as_object) {
        // Values before tables, as in a file.
        for tables in [false, true] {
            for (name, schema) in properties {
                if matches!(node(schema), Node::Leaf(_)) != tables {
                    path.push(name.clone());
                    let own = schema.get("default");
                    gather(schema, default.and_then(|it| it.get(name)).or(own), path, keys);
                    path.pop();
                }
            }
        }
        return;
    }
    if let Some(named) = whole.get("additionalProperties").filter(|it| it.is_object()) {
        path.push(ANY.to_owned());
        let meaning = schema["description"].as_str();
        let mut below = named.clone();
        if let (Some(meaning), Some(fields)) = (meaning, below.as_object_mut())
            && fields.get("properties").is_none()
        {
            fields.insert("description".to_owned(), meaning.into());
        }
        gather(&below, None, path, keys);
        path.pop();
        return;
    }
    let text = |key: &str| schema.get(key).or(whole.get(key)).and_then(Value::as_str).map(str::to_owned);
    let Node::Leaf(leaf) = node(schema) else { return };
    keys.push(Key {
        path: path.clone(),
        form: leaf.form,
        default: default.filter(|it| !it.is_null()).map(Value::to_string),
        flag: text("x-flag"),
        variable: text("x-variable"),
        meaning: text("description").unwrap_or_default().replace('\n', " "),
    });
}

/// All keys as the documentation shows them: a heading and a table in Markdown for each table of the file.
#[must_use]
pub fn table() -> String {
    let mut text = String::new();
    let mut heading = None;
    for key in keys() {
        let (last, above) = key.path.split_last().map_or(("", &[][..]), |(last, above)| (last.as_str(), above));
        if heading != Some(above) {
            heading = Some(above);
            let title = if above.is_empty() { "At the top".to_owned() } else { format!("`[{}]`", above.join(".")) };
            let _ = write!(
                text,
                "\n### {title}\n\n| key | value | default | flag | variable | |\n|---|---|---|---|---|---|\n"
            );
        }
        let code = |it: &Option<String>| it.as_ref().map_or(String::new(), |it| format!("`{it}`"));
        let (default, flag, variable) = (code(&key.default), code(&key.flag), code(&key.variable));
        let _ = writeln!(text, "| `{last}` | {} | {default} | {flag} | {variable} | {} |", key.form, key.meaning);
    }
    text.trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_says_what_it_is_for() {
        let silent: Vec<_> = keys().iter().filter(|key| key.meaning.is_empty() || key.form.is_empty()).collect();
        assert!(silent.is_empty(), "{silent:?}");
        assert!(keys().len() > 60, "{}", keys().len());
    }

    #[test]
    fn no_two_keys_share_a_variable() {
        let mut variables: Vec<&String> = keys().iter().filter_map(|key| key.variable.as_ref()).collect();
        variables.sort();
        let all = variables.len();
        variables.dedup();
        assert_eq!(variables.len(), all);
    }

    #[test]
    fn a_default_is_shown_as_it_would_be_written() {
        let default = |path: &str| {
            let key = keys().iter().find(|key| key.path.join(".") == path);
            key.unwrap_or_else(|| panic!("no key {path}")).default.clone()
        };
        assert_eq!(default("serve.listen").as_deref(), Some("\"127.0.0.1:4111\""));
        assert_eq!(default("providers.NAME.timeouts.connect").as_deref(), Some("\"10s\""));
        assert_eq!(default("agents.NAME.steps_max").as_deref(), Some("5"));
        assert_eq!(default("agents.NAME.budget.time_max"), None);
    }
}
