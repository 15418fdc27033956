//! Secrets: a file of settings says where one is, never what it is.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::read::Environment;

/// Where a secret is: `{ env = "OPENAI_API_KEY" }` or `{ file = "/run/secrets/openai" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Secret {
    /// In a variable of the environment.
    Env(String),
    /// In a file, but for white space at its end.
    File(PathBuf),
}

/// A text, or where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Plain {
    /// The text itself.
    Text(String),
    /// Where it is.
    Secret(Secret),
}

/// How a secret is to be written, for whoever has written it otherwise.
const HOW: &str = r#"write where the secret is: { env = "NAME" } or { file = "PATH" }"#;

impl Secret {
    /// Gets it. Files are looked for below `folder` unless their paths begin at the root.
    ///
    /// # Errors
    /// What is missing, in words that hold no secret.
    pub fn get(&self, environment: &Environment, folder: &Path) -> Result<SecretString, String> {
        let text = match self {
            Self::Env(name) => environment
                .get(name)
                .ok_or_else(|| format!("the variable {name} is not set; set it, or remove this"))?,
            Self::File(path) => {
                let path = folder.join(path);
                let read = std::fs::read_to_string(&path);
                read.map_err(|e| format!("{} cannot be read: {e}", path.display()))?.trim_end().to_owned()
            }
        };
        if text.is_empty() {
            return Err(format!("{} is empty", self.place()));
        }
        Ok(SecretString::from(text))
    }

    fn place(&self) -> String {
        match self {
            Self::Env(name) => format!("the variable {name}"),
            Self::File(path) => path.display().to_string(),
        }
    }
}

// By hand: what the derived code says of a value of another form would repeat the value, and that may be the secret.
impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let Ok(Value::Object(fields)) = Value::deserialize(from) else {
            return Err(D::Error::custom(format!("a secret is not written here; {HOW}")));
        };
        let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        match (text("env"), text("file"), fields.len()) {
            (Some(name), None, 1) => Ok(Self::Env(name.to_owned())),
            (None, Some(path), 1) => Ok(Self::File(path.into())),
            _ => Err(D::Error::custom(HOW)),
        }
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from) {
            Ok(Value::String(text)) => Ok(Self::Text(text)),
            Ok(other) => Secret::deserialize(other).map(Self::Secret).map_err(D::Error::custom),
            Err(_) => Err(D::Error::custom(format!("write a text, or {HOW}"))),
        }
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-form": "secret", "x-secret": true })
    }
}

impl JsonSchema for Plain {
    fn schema_name() -> Cow<'static, str> {
        "Plain".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-form": "text or secret", "x-secret": true })
    }
}

/// Whether what has this name is a secret: a variable, or a header of a request.
pub(super) fn names_a_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["KEY", "TOKEN", "SECRET", "PASSWORD", "AUTHORIZATION", "COOKIE"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_secret_that_is_written_out_is_refused_and_not_repeated() {
        for wrong in [r#""sk-very-secret""#, r#"{ "key": "sk-very-secret" }"#, r#"{ "env": "A", "file": "b" }"#, "7"] {
            let refused = serde_json::from_str::<Secret>(wrong).unwrap_err().to_string();
            assert!(refused.contains("{ env = \"NAME\" }") && !refused.contains("sk-very"), "{refused}");
        }
    }

    #[test]
    fn a_file_s_last_line_break_is_no_part_of_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "sk-1\n").unwrap();
        let nothing = Environment::of([]);
        let got = Secret::File("key".into()).get(&nothing, folder.path()).unwrap();
        assert_eq!(got.expose_secret(), "sk-1");
        let missing = Secret::Env("NO_SUCH".into()).get(&nothing, folder.path()).unwrap_err();
        assert_eq!(missing, "the variable NO_SUCH is not set; set it, or remove this");
    }
}
