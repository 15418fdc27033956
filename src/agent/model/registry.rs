//! The models that are known here, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Deltas, Model, ModelError, Offline, Reply, Request};

/// Models by name: `offline`, `PROVIDER/MODEL`, or another name given to one of these.
#[derive(Debug, Clone)]
pub struct Models {
    providers: BTreeMap<String, Arc<dyn Model>>,
    names: BTreeMap<String, String>,
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
        Self { providers: BTreeMap::new(), names: BTreeMap::new() }.with(Arc::new(Offline))
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
        match self.providers.get(provider) {
            Some(model) if !id.is_empty() => Ok(Resolved { model: Arc::clone(model), id: id.to_owned() }),
            Some(model) if provider == "offline" => Ok(Resolved { model: Arc::clone(model), id: full.to_owned() }),
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
