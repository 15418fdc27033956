//! A store of the measurement's own, removed afterwards.

use std::time::Duration;

use super::{Config, Error};
use crate::runtime::{Aldis, Runtime};
use crate::store::{Options, Scratch, Store};
use crate::workflow::Workflow;

/// A fresh store.
#[derive(Debug)]
pub(super) struct Place {
    scratch: Scratch,
}

impl Place {
    pub(super) async fn fresh(config: &Config) -> Result<Self, Error> {
        let beside = config
            .store
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", std::env::temp_dir().join("aldis.db").display()));
        Ok(Self { scratch: Scratch::beside(&beside).await.map_err(crate::runtime::Error::from)? })
    }

    /// The kind of store that the measurements are made on.
    pub(super) fn kind(config: &Config) -> String {
        match config.store.as_deref().and_then(|url| url.split_once(':')) {
            Some(("postgres" | "postgresql", _)) => "postgres".to_owned(),
            _ => "sqlite".to_owned(),
        }
    }

    pub(super) fn url(&self) -> &str {
        self.scratch.url()
    }

    pub(super) async fn open(&self, options: Options) -> Result<Store, Error> {
        Ok(Store::open(self.url(), options).await.map_err(crate::runtime::Error::from)?)
    }

    pub(super) async fn start(&self, workflows: Vec<Workflow>) -> Result<Runtime, Error> {
        Ok(Aldis::open(self.url()).workflows(workflows).start().await?)
    }

    pub(super) async fn stop(self, runtime: Runtime) -> Result<(), Error> {
        runtime.drain(Duration::from_secs(1)).await?;
        self.remove().await
    }

    pub(super) async fn remove(self) -> Result<(), Error> {
        let location = self.scratch.location();
        let removed = self.scratch.remove().await;
        removed.map_err(|e| Error::Place { location, what: "removed", source: Box::new(e) })
    }
}
