//! Keys for who asks over HTTP: made, listed, revoked and recognised.

use sha2::{Digest as _, Sha256};

use super::Error;
use super::client::Client;
use crate::intake::InputError;
use crate::store::ApiKey;
use crate::thread::check_resource;

/// What keys begin with, so that they are found where they should not be.
const MARK: &str = "aldis_";

/// A key that was just made. It is told this once: of it, only a digest is kept.
#[derive(Clone)]
pub struct NewKey {
    /// The key as it is listed.
    pub key: ApiKey,
    /// What proves it.
    pub secret: String,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a key that opens the threads of one resource, or of all. Durable once this returns.
    ///
    /// # Errors
    /// If the resource has no usable name, or the store does not take it.
    pub async fn create_key(&self, name: &str, resource: Option<&str>) -> Result<NewKey, Error> {
        if let Some(resource) = resource {
            check_resource(resource).map_err(InputError::from)?;
        }
        // Two random ids: 244 bits that nobody can guess.
        let secret = format!("{MARK}{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let key = ApiKey {
            id: uuid::Uuid::now_v7().to_string(),
            name: name.to_owned(),
            resource: resource.map(str::to_owned),
            created_at: self.clock().now(),
            revoked_at: None,
        };
        self.store().add_key(&key, &digest(&secret)).await?;
        Ok(NewKey { key, secret })
    }

    /// All keys, revoked ones too, the oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn keys(&self) -> Result<Vec<ApiKey>, Error> {
        Ok(self.store().keys().await?)
    }

    /// Whether there is a key that was not revoked.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn has_keys(&self) -> Result<bool, Error> {
        Ok(self.store().has_keys().await?)
    }

    /// Ends a key: the next request with it is refused. False if there is none of this id.
    ///
    /// # Errors
    /// If the store does not take it.
    pub async fn revoke_key(&self, id: &str) -> Result<bool, Error> {
        Ok(self.store().revoke_key(id, self.clock().now()).await?)
    }

    /// The key that this proves, if it was not revoked. What is compared are digests, which tell nothing of the key by how
    /// long that takes.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn key_of(&self, secret: &str) -> Result<Option<ApiKey>, Error> {
        if !looks_like_a_key(secret) {
            return Ok(None);
        }
        Ok(self.store().key_of(&digest(secret)).await?)
    }
}

/// Whether this may be a key, or is something else for certain.
pub(crate) fn looks_like_a_key(secret: &str) -> bool {
    secret.starts_with(MARK)
}

fn digest(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
