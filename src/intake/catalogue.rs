//! The schemas of every workflow: of this program's own, and of those that other programs have declared in the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::payload::{Payload, Undecodable};
use crate::store::{self, Declared, Store};
use crate::workflow::{Checks, InvalidPayload, Registered, Registry, UnknownWorkflow};

/// The schemas of a workflow could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Neither this program nor the store knows it.
    #[error(transparent)]
    Unknown(#[from] UnknownWorkflow),
    /// What the store holds of it cannot be used by this build.
    #[error(
        "what the store holds about workflow {workflow:?} cannot be used: {problem}; register it again with a current program"
    )]
    Unusable {
        /// The workflow.
        workflow: String,
        /// What is wrong.
        problem: String,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// A workflow as the door knows it.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// It is registered in this program.
    Here(Arc<Registered>),
    /// Another program has declared it.
    Declared(Arc<DeclaredChecks>),
}

/// The checks of a workflow that another program has declared.
#[derive(Debug)]
pub(crate) struct DeclaredChecks {
    version: u32,
    checks: Checks,
}

impl Known {
    pub(super) fn version(&self) -> u32 {
        match self {
            Self::Here(registered) => registered.definition.version,
            Self::Declared(declared) => declared.version,
        }
    }

    pub(super) fn check_input(&self, input: &Payload) -> Result<(), InvalidPayload> {
        match self {
            Self::Here(registered) => registered.checks().check_input(input),
            Self::Declared(declared) => declared.checks.check_input(input),
        }
    }

    pub(super) fn check_signal(&self, name: &str, payload: &Payload) -> Result<(), InvalidPayload> {
        match self {
            Self::Here(registered) => {
                registered.checks().check_signal(name, payload)?;
                registered.validate(name, payload)
            }
            Self::Declared(declared) => declared.checks.check_signal(name, payload),
        }
    }
}

/// All that the door knows of workflows.
#[derive(Debug)]
pub(super) struct Catalogue {
    registry: Registry,
    /// What the store has told; a version's schemas never change, so they are kept.
    declared: Mutex<HashMap<(String, u32), Arc<DeclaredChecks>>>,
}

impl Catalogue {
    pub(super) fn new(registry: Registry) -> Self {
        Self { registry, declared: Mutex::default() }
    }

    /// The newest version of a workflow: this program's own, if it has one.
    pub(super) async fn newest(&self, store: &Store, name: &str) -> Result<Known, CatalogueError> {
        match self.registry.newest(name) {
            Ok(registered) => Ok(Known::Here(registered)),
            Err(unknown) => self.ask_store(store, name, None, unknown).await,
        }
    }

    /// One version of a workflow.
    pub(super) async fn version(&self, store: &Store, name: &str, version: u32) -> Result<Known, CatalogueError> {
        if let Ok(registered) = self.registry.version(name, version) {
            return Ok(Known::Here(registered));
        }
        if let Some(known) = self.kept().get(&(name.to_owned(), version)) {
            return Ok(Known::Declared(Arc::clone(known)));
        }
        let unknown = UnknownWorkflow { asked: format!("{name} v{version}"), registered: self.registry.tags() };
        self.ask_store(store, name, Some(version), unknown).await
    }

    async fn ask_store(
        &self,
        store: &Store,
        name: &str,
        version: Option<u32>,
        mut unknown: UnknownWorkflow,
    ) -> Result<Known, CatalogueError> {
        let all = store.declared().await?;
        unknown.registered.extend(all.iter().map(|d| format!("{} v{}", d.workflow, d.version)));
        unknown.registered.sort();
        unknown.registered.dedup();
        let wanted = |d: &&Declared| d.workflow == name && version.is_none_or(|version| d.version == version);
        let declared = all.iter().filter(wanted).max_by_key(|d| d.version).ok_or(unknown)?;
        let checks =
            compile(declared).map_err(|problem| CatalogueError::Unusable { workflow: name.to_owned(), problem })?;
        let known = Arc::new(DeclaredChecks { version: declared.version, checks });
        self.kept().insert((name.to_owned(), declared.version), Arc::clone(&known));
        Ok(Known::Declared(known))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<(String, u32), Arc<DeclaredChecks>>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compile(declared: &Declared) -> Result<Checks, String> {
    let read = |e: Undecodable| e.to_string();
    let input: Value = declared.input.read().map_err(read)?;
    let signals: serde_json::Map<String, Value> = declared.signals.read().map_err(read)?;
    let schemas = signals.iter().filter_map(|(name, accepts)| Some((name.as_str(), accepts.get("schema")?)));
    Checks::compile(&declared.workflow, &input, schemas).map_err(|(what, problem)| format!("{what}: {problem}"))
}
