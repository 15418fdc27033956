//! The models that are known here, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Deltas, Model, ModelError, Offline, Recorded, Reply, Request, Tape};

/// Models by name: `offline`, `PROVIDER/MODEL`, or another name given to one of these.
#[derive(Debug, Clone)]
pub struct Models {
    providers: BTreeMap<String, Arc<dyn Model>>,
    names: BTreeMap<String, String>,
    tape: Option<Arc<Tape>>,
}

/// A model that was found by its name.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The provider.
    pub model: Arc<dyn Model>,
    /// What the provider calls the model: the [`Request::model`] to ask it with.
    pub id: String,
}

impl Resolved {
    /// Asks it, whatever model the request named.
    ///
    /// # Errors
    /// As [`Model::ask`].
    pub async fn ask(&self, mut request: Request, deltas: &Deltas) -> Result<Reply, ModelError> {
        request.model.clone_from(&self.id);
        self.model.ask(&request, deltas).await
    }
}

impl Default for Models {
    fn default() -> Self {
        Self::new()
    }
}

impl Models {
    /// The offline model alone.
    #[must_use]
    pub fn new() -> Self {
        Self { providers: BTreeMap::new(), names: BTreeMap::new(), tape: None }.with(Arc::new(Offline))
    }

    /// With this provider, under its own name; it takes the place of one of the same name.
    #[must_use]
    pub fn with(mut self, model: Arc<dyn Model>) -> Self {
        self.providers.insert(model.name().to_owned(), model);
        self
    }

    /// With another name for a model, such as `fast` for `openai/gpt-x`. Looked up when it is resolved.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>, model: impl Into<String>) -> Self {
        self.names.insert(name.into(), model.into());
        self
    }

    /// On a tape: what they are asked is recorded, or played. While it plays, no provider is asked and none has to be known.
    #[must_use]
    pub fn recorded(mut self, tape: Tape) -> Self {
        self.tape = Some(Arc::new(tape));
        self
    }

    /// All names: given ones, the offline model, and `PROVIDER/…` for each provider.
    #[must_use]
    pub fn known(&self) -> Vec<String> {
        let providers =
            self.providers.keys().map(|name| if name == "offline" { name.clone() } else { format!("{name}/…") });
        self.names.keys().cloned().chain(providers).collect()
    }

    /// Finds a model by its name.
    ///
    /// # Errors
    /// [`ModelError::UnknownModel`], with the nearest name that is known.
    pub fn resolve(&self, name: &str) -> Result<Resolved, ModelError> {
        let full = self.names.get(name).map_or(name, String::as_str);
        let (provider, id) = full.split_once('/').unwrap_or((full, ""));
        let id = if provider == "offline" && id.is_empty() { full } else { id };
        let found = self.providers.get(provider).filter(|_| !id.is_empty());
        match (&self.tape, found) {
            (Some(tape), found) if found.is_some() || tape.plays() => {
                let model = Recorded::on(tape, provider.to_owned(), found.cloned());
                Ok(Resolved { model: Arc::new(model), id: id.to_owned() })
            }
            (_, Some(model)) => Ok(Resolved { model: Arc::clone(model), id: id.to_owned() }),
            _ => Err(ModelError::UnknownModel {
                name: full.to_owned(),
                nearest: self.nearest(full),
                known: self.known(),
            }),
        }
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let (provider, id) = name.split_once('/').unwrap_or((name, ""));
        let near = |known: &str, like: &str| strsim::jaro_winkler(known, like);
        let names = self.names.keys().map(|known| (near(known, name), known.clone()));
        let providers = self.providers.keys().map(|known| {
            let whole = match (known.as_str(), id) {
                ("offline", "") => known.clone(),
                (_, "") => format!("{known}/MODEL"),
                _ => format!("{known}/{id}"),
            };
            (near(known, provider), whole)
        });
        let best = names.chain(providers).max_by(|a, b| a.0.total_cmp(&b.0));
        best.filter(|(likeness, _)| *likeness > 0.8).map(|(_, name)| name)
    }
}
