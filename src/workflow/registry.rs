//! The workflows that a program knows, and the checks of what is sent to them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use super::definition::Definition;
use crate::payload::Payload;

/// The workflows of a program, by name and version. Clones are the same registry. Workflows join it; none ever leaves.
#[derive(Debug, Clone, Default)]
pub struct Registry(Arc<RwLock<ByName>>);

type ByName = BTreeMap<(&'static str, u32), Arc<Registered>>;

/// A registered workflow with its checks prepared.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) definition: Definition,
    checks: Checks,
}

/// The JSON Schemas of a workflow, prepared: of its input, and of the signals and updates that it declares.
#[derive(Debug)]
pub(crate) struct Checks {
    workflow: String,
    input: Validator,
    signals: BTreeMap<String, Validator>,
}

/// A set of workflows that cannot be registered together.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Two have the same name and version.
    #[error("workflow {name:?} version {version} is registered twice; give the newer one another version")]
    Twice {
        /// The name.
        name: &'static str,
        /// The version.
        version: u32,
    },
    /// A schema that does not work.
    #[error("the JSON Schema of {what} of workflow {name:?} does not work: {problem}")]
    Schema {
        /// The workflow.
        name: &'static str,
        /// Which schema.
        what: String,
        /// What the validator says.
        problem: String,
    },
}

/// No workflow of that name and version is registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no workflow named {asked:?} is registered; registered: {}", if registered.is_empty() { "none".to_owned() } else { registered.join(", ") })]
pub struct UnknownWorkflow {
    /// What was asked for.
    pub asked: String,
    /// What there is, as `name v1`.
    pub registered: Vec<String>,
}

/// A value that does not match the JSON Schema of what it is for. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} does not match its schema: {}", problems.join("; "))]
pub struct InvalidPayload {
    /// What it is, such as `the input of workflow "refund"`.
    pub what: String,
    /// Each problem with its place.
    pub problems: Vec<String>,
}

impl Registry {
    /// Registers workflows.
    ///
    /// # Errors
    /// [`RegistryError`] for two of the same name and version, or a schema that does not work.
    pub fn new<D: Into<Definition>>(workflows: impl IntoIterator<Item = D>) -> Result<Self, RegistryError> {
        let mut registered = BTreeMap::new();
        for definition in workflows.into_iter().map(Into::into) {
            let (name, version) = (definition.name, definition.version);
            let signals = definition.signals.iter().map(|accepts| (accepts.name, &accepts.schema));
            let checks = Checks::compile(name, &definition.input, signals)
                .map_err(|(what, problem)| RegistryError::Schema { name, what, problem })?;
            let entry = Arc::new(Registered { definition, checks });
            if registered.insert((name, version), entry).is_some() {
                return Err(RegistryError::Twice { name, version });
            }
        }
        Ok(Self(Arc::new(RwLock::new(registered))))
    }

    /// The newest version of a workflow.
    ///
    /// # Errors
    /// [`UnknownWorkflow`] names what there is.
    pub(crate) fn newest(&self, name: &str) -> Result<Arc<Registered>, UnknownWorkflow> {
        let found = self.known().iter().rev().find(|((known, _), _)| *known == name).map(|(_, it)| Arc::clone(it));
        found.ok_or_else(|| self.unknown(name.to_owned()))
    }

    /// One version of a workflow.
    ///
    /// # Errors
    /// [`UnknownWorkflow`] names what there is.
    pub(crate) fn version(&self, name: &str, version: u32) -> Result<Arc<Registered>, UnknownWorkflow> {
        let is_it = |(known, at): &(&'static str, u32)| *known == name && *at == version;
        let found = self.known().iter().find(|(key, _)| is_it(key)).map(|(_, it)| Arc::clone(it));
        found.ok_or_else(|| self.unknown(format!("{name} v{version}")))
    }

    /// All of them, as `name v1`, in the order of their names.
    #[must_use]
    pub fn tags(&self) -> Vec<String> {
        self.known().values().map(|workflow| workflow.definition.tag()).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Registered>> {
        self.known().values().cloned().collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.known().len()
    }

    /// The workflows of another registry join this one. What is here already stays.
    pub(crate) fn join(&self, other: &Self) {
        let others = other.known().clone();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, workflow) in others {
            known.entry(key).or_insert(workflow);
        }
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, ByName> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown(&self, asked: String) -> UnknownWorkflow {
        UnknownWorkflow { asked, registered: self.tags() }
    }
}

impl Registered {
    /// Its checks.
    pub(crate) fn checks(&self) -> &Checks {
        &self.checks
    }

    /// Asks the validator of an update, if it has one.
    pub(crate) fn validate(&self, name: &str, payload: &Payload) -> Result<(), InvalidPayload> {
        let validator =
            self.definition.signals.iter().find(|accepts| accepts.name == name).and_then(|a| a.check.as_ref());
        match validator.map(|validator| validator(payload)) {
            Some(Err(problem)) => Err(InvalidPayload { what: self.checks.signal(name), problems: vec![problem] }),
            _ => Ok(()),
        }
    }
}

impl Checks {
    /// Prepares schemas.
    ///
    /// # Errors
    /// What it is that does not work, and why.
    pub(crate) fn compile<'a>(
        workflow: &str,
        input: &Value,
        signals: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Result<Self, (String, String)> {
        let signals = signals
            .into_iter()
            .map(|(name, schema)| Ok((name.to_owned(), compile(schema).map_err(|e| (format!("signal {name:?}"), e))?)))
            .collect::<Result<_, (String, String)>>()?;
        let input = compile(input).map_err(|e| ("the input".to_owned(), e))?;
        Ok(Self { workflow: workflow.to_owned(), input, signals })
    }

    /// Checks an input against its schema.
    pub(crate) fn check_input(&self, input: &Payload) -> Result<(), InvalidPayload> {
        check(&self.input, input, || format!("the input of workflow {:?}", self.workflow))
    }

    /// Checks a signal or update against its schema; one that was not declared is let through.
    pub(crate) fn check_signal(&self, name: &str, payload: &Payload) -> Result<(), InvalidPayload> {
        match self.signals.get(name) {
            Some(schema) => check(schema, payload, || self.signal(name)),
            None => Ok(()),
        }
    }

    fn signal(&self, name: &str) -> String {
        format!("signal {name:?} of workflow {:?}", self.workflow)
    }
}

/// Prepares a JSON Schema: no references to outside, patterns in linear time.
fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .offline()
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|e| e.to_string())
}

/// Checks a value and names each problem with its place.
fn check(schema: &Validator, payload: &Payload, what: impl Fn() -> String) -> Result<(), InvalidPayload> {
    let value: Value = payload.read().map_err(|e| InvalidPayload { what: what(), problems: vec![e.to_string()] })?;
    if schema.is_valid(&value) {
        return Ok(());
    }
    let problems = schema
        .iter_errors(&value)
        .take(5)
        .map(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { "the value".to_owned() } else { place };
            format!("{place}: {}", error.masked())
        })
        .collect();
    Err(InvalidPayload { what: what(), problems })
}
