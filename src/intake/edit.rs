//! What clients keep with threads, at the door: titles and metadata, checked, for threads that are made, changed or copied.

use serde_json::{Map, Value};

use super::thread::To;
use super::{Door, InputError};
use crate::id::ThreadKey;
use crate::payload::{Payload, TooLarge};
use crate::store::{CopyThread, NewThread, ThreadChange};
use crate::thread::{TITLE_BYTES_MAX, check_resource};

/// What is to be kept with a thread; what is left out stays as it is, or empty with a new one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Edit {
    /// What people call it.
    pub title: Option<String>,
    /// What clients keep with it: an object, or null. It replaces what they kept; the key `mastra` stays (H10.4).
    pub metadata: Option<Value>,
}

impl Door {
    /// Has the store make a thread, or change one of the same owner; `key` is of this process's own block.
    ///
    /// # Errors
    /// [`InputError`]; nothing was written.
    pub async fn make_thread(&self, key: ThreadKey, to: To, edit: Edit) -> Result<(), InputError> {
        let change = self.change(&to, edit)?;
        let new = NewThread {
            key,
            namespace: to.namespace,
            id: to.thread,
            resource: to.resource,
            title: change.title.clone().unwrap_or_default(),
            metadata: Payload::null(),
            aside: false,
            at: change.at,
        };
        Ok(self.store.make_thread(new, change).await??)
    }

    /// Has the store change a thread; false if it is not there.
    ///
    /// # Errors
    /// [`InputError`]; nothing was written.
    pub async fn change_thread(&self, to: &To, edit: Edit) -> Result<bool, InputError> {
        Ok(self.store.change_thread(self.change(to, edit)?).await??)
    }

    /// Has the store copy a thread's history, up to the message `until`; `to` is the copy, `key` of this process's own block.
    ///
    /// # Errors
    /// [`InputError`]; nothing was written.
    pub async fn copy_thread(
        &self,
        from: ThreadKey,
        until: Option<String>,
        key: ThreadKey,
        to: To,
        edit: Edit,
    ) -> Result<usize, InputError> {
        let change = self.change(&to, edit)?;
        let new = NewThread {
            key,
            namespace: to.namespace,
            id: to.thread,
            resource: to.resource,
            title: change.title.unwrap_or_default(),
            metadata: change.metadata.unwrap_or_else(Payload::null),
            aside: false,
            at: change.at,
        };
        Ok(self.store.copy_thread(CopyThread { from, until, to: new }).await??)
    }

    /// Checks the metadata by which threads, or messages, are looked for (H10.1, H10.6).
    ///
    /// # Errors
    /// [`InputError::Metadata`] if a value is not a text, a number, a boolean or null.
    pub fn check_metadata(&self, wanted: &Map<String, Value>) -> Result<(), InputError> {
        let nested = wanted.iter().find(|(_, value)| value.is_object() || value.is_array());
        if let Some((name, _)) = nested {
            let problem = format!("{name} is looked for by an object or a list; look for texts, numbers and booleans");
            return Err(InputError::Metadata { problem });
        }
        plain(&Value::Object(wanted.clone()))
    }

    fn change(&self, to: &To, Edit { title, metadata }: Edit) -> Result<ThreadChange, InputError> {
        check_resource(&to.resource)?;
        let field = || format!("the title of thread {}", to.thread);
        if let Some(size) = title.as_ref().map(String::len).filter(|size| *size > TITLE_BYTES_MAX) {
            return Err(TooLarge { field: field(), size, limit: TITLE_BYTES_MAX }.into());
        }
        if title.as_ref().is_some_and(|title| title.contains('\0')) {
            return Err(InputError::Metadata { problem: "the title holds the character U+0000".to_owned() });
        }
        let metadata = metadata.map(|metadata| self.metadata(to, metadata)).transpose()?;
        Ok(ThreadChange {
            namespace: to.namespace.clone(),
            id: to.thread.clone(),
            resource: Some(to.resource.clone()),
            title,
            metadata,
            at: self.clock.now(),
        })
    }

    fn metadata(&self, to: &To, metadata: Value) -> Result<Payload, InputError> {
        if !metadata.is_object() && !metadata.is_null() {
            return Err(InputError::Metadata { problem: format!("it is {metadata}; expected an object, or null") });
        }
        plain(&metadata)?;
        let limit = self.limits.signals.metadata_bytes_max;
        Ok(Payload::of(&metadata)?.within(limit, || format!("the metadata of thread {}", to.thread))?)
    }
}

/// Databases cannot look into texts that hold the character zero.
fn plain(value: &Value) -> Result<(), InputError> {
    let holds_zero = |text: &str| text.contains('\0');
    let wrong = || InputError::Metadata { problem: "it holds the character U+0000".to_owned() };
    match value {
        Value::String(text) if holds_zero(text) => Err(wrong()),
        Value::Array(items) => items.iter().try_for_each(plain),
        Value::Object(fields) => plain_fields(fields, wrong),
        _ => Ok(()),
    }
}

fn plain_fields(fields: &Map<String, Value>, wrong: impl Fn() -> InputError) -> Result<(), InputError> {
    fields.iter().try_for_each(|(name, value)| if name.contains('\0') { Err(wrong()) } else { plain(value) })
}
