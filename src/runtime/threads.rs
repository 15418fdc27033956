//! Keeping threads, from outside: making, changing, listing, copying and deleting them, and paging through their histories.

use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use super::client::Client;
use super::thread::{ThreadHandle, message_of};
use crate::id::{Namespace, ThreadId, ThreadKey};
use crate::intake::{Edit, InputError};
use crate::message::Message;
use crate::store::{self, Erase, Erased, MessageFilter, Page, Paged, SuspendedFilter, ThreadFilter, WaitingCall};
use crate::thread::{SuspendedRun, Thread};

impl ThreadHandle {
    /// Makes the thread; if it is there it gets the title and the metadata (H10.3). Sending makes it as well.
    ///
    /// # Errors
    /// If it is somebody else's, or what is to be kept is too large or no object. Nothing was written.
    pub async fn create(&self, edit: Edit) -> Result<Thread, Error> {
        let key = ThreadKey(self.client.next_key().await?.0);
        self.client.inner.door.make_thread(key, self.to.clone(), edit).await?;
        self.require().await
    }

    /// Changes the title, the metadata, or both (H10.4).
    ///
    /// # Errors
    /// [`Error::UnknownThread`]; else as [`ThreadHandle::create`].
    pub async fn edit(&self, edit: Edit) -> Result<Thread, Error> {
        match self.client.inner.door.change_thread(&self.to, edit).await? {
            true => self.require().await,
            false => Err(Error::UnknownThread { thread: self.id().to_string() }),
        }
    }

    /// Deletes the thread with its history, its lanes, its queue and its chunks; none if it is not there (H10.5).
    ///
    /// A run that has it is ended in the same transaction: nothing that it still does is recorded, and what it is doing is
    /// told to stop, a call of a model is cut; in another process once it next writes. What was sent to it and
    /// not taken, and what is queued, goes too, and the journals of the ended runs say what. Subscribers get `abort` for
    /// the run and a last chunk `data-thread-deleted`. What is sent later makes another thread: it knows nothing of this
    /// one, also not the ids that were accepted, and goes on counting its chunks, so that no cursor is ambiguous.
    ///
    /// # Errors
    /// If it is somebody else's, or the store does not take it.
    pub async fn delete(&self, by: &str) -> Result<Option<Erased>, Error> {
        let asked = Erase {
            namespace: self.to.namespace.clone(),
            id: self.to.thread.clone(),
            resource: Some(self.to.resource.clone()),
            by: by.to_owned(),
            at: self.client.clock().now(),
        };
        let erased = self.client.store().delete_thread(asked).await?;
        Ok(erased.map_err(InputError::from)?)
    }

    /// Takes messages out of the history (H10.7); tells the ids of those that were there. The run that has the thread goes
    /// on with what it has read, the runs after it do not see them; the journals keep what happened.
    ///
    /// # Errors
    /// If the thread is somebody else's, or the store does not take it.
    pub async fn delete_messages(
        &self,
        ids: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<String>, Error> {
        let Some(thread) = self.find().await? else { return Ok(Vec::new()) };
        let ids = ids.into_iter().map(Into::into).collect();
        Ok(self.client.store().delete_messages(thread.key, ids, self.client.clock().now()).await?)
    }

    /// A page of the history (H10.6). A row that cannot be read is left out, with a warning.
    ///
    /// # Errors
    /// [`Error::UnknownThread`], [`Error::ForeignThread`]; if the metadata is looked for by more than texts, numbers and
    /// booleans.
    pub async fn messages(&self, filter: &MessageFilter) -> Result<Paged<Message>, Error> {
        let thread = self.require().await?;
        let Paged { items, total } = self.client.list_rows(&thread, filter).await?;
        Ok(Paged { items: items.iter().filter_map(message_of).collect(), total })
    }

    /// Copies the history, up to and with the message `until` if one is named, to a thread of the same owner under another
    /// id. It gets the title and the metadata of this one where `edit` says nothing; its messages get ids of their own.
    ///
    /// # Errors
    /// [`Error::UnknownThread`], [`Error::ForeignThread`]; if there is a thread of that id, or no such message.
    pub async fn copy_to(&self, id: &str, until: Option<&str>, edit: Edit) -> Result<Self, Error> {
        let thread = self.require().await?;
        let kept = Edit {
            title: edit.title.or(Some(thread.title)),
            metadata: edit.metadata.or_else(|| thread.metadata.read().ok()),
        };
        let mut copy = self.clone();
        copy.to.thread = ThreadId::parse(id)?;
        let key = ThreadKey(self.client.next_key().await?.0);
        let until = until.map(str::to_owned);
        self.client.inner.door.copy_thread(thread.key, until, key, copy.to.clone(), kept).await?;
        Ok(copy)
    }
}

impl Client {
    /// Threads, the one that was changed last first; of one resource, or of all.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn threads(&self, resource: Option<&str>, page: Page) -> Result<Paged<Thread>, Error> {
        let order = crate::store::ThreadOrder::UpdatedAt;
        let filter = ThreadFilter { resource: resource.map(str::to_owned), order, ..ThreadFilter::default() };
        self.list_threads(&filter, page).await
    }

    /// Threads by owner and metadata, in the order asked for, in pages with the number of all (H10.1).
    ///
    /// # Errors
    /// If the metadata is looked for by more than texts, numbers and booleans; if the store cannot be read.
    pub async fn list_threads(&self, filter: &ThreadFilter, page: Page) -> Result<Paged<Thread>, Error> {
        self.inner.door.check_metadata(&filter.metadata)?;
        Ok(self.inner.store.list_threads(filter, page).await?)
    }

    /// A page of a thread's history, as its rows stand (H10.6).
    ///
    /// # Errors
    /// As [`Client::list_threads`].
    pub async fn list_rows(&self, thread: &Thread, filter: &MessageFilter) -> Result<Paged<store::Message>, Error> {
        self.inner.door.check_metadata(&filter.metadata)?;
        Ok(self.inner.store.list_messages(thread.key, filter).await?)
    }

    /// Takes messages out of their threads by their ids alone (H10.7), as [`ThreadHandle::delete_messages`] does; on threads
    /// of this owner, and on this thread, where one is named. Tells how many were there.
    ///
    /// # Errors
    /// [`Error::AmbiguousMessage`] if several threads have a message of one of these ids: nothing was deleted. If the store
    /// does not take it, some may have been deleted; it may be asked again.
    pub async fn delete_messages(
        &self,
        ids: &[String],
        resource: Option<&str>,
        thread: Option<&str>,
    ) -> Result<usize, Error> {
        let mut homes = self.inner.store.homes(&Namespace::default(), ids).await?;
        homes.retain(|home| resource.is_none_or(|it| it == home.resource));
        homes.retain(|home| thread.is_none_or(|it| it == home.thread.as_str()));
        let mut of_thread: BTreeMap<ThreadKey, Vec<String>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for home in homes {
            if !seen.insert(home.message.clone()) {
                return Err(Error::AmbiguousMessage { message: home.message });
            }
            of_thread.entry(home.key).or_default().push(home.message);
        }
        let mut deleted = 0;
        for (thread, ids) in of_thread {
            deleted += self.inner.store.delete_messages(thread, ids, self.inner.clock.now()).await?.len();
        }
        Ok(deleted)
    }

    /// Turns that wait for somebody outside, each with its open calls; the one that waits longest first (T13.11).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn suspended_runs(&self, filter: &SuspendedFilter, page: Page) -> Result<Paged<SuspendedRun>, Error> {
        Ok(self.inner.store.suspended(filter, page).await?)
    }

    /// The calls that wait for an answer, of all threads.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn waiting_calls(&self, limit: usize) -> Result<Vec<WaitingCall>, Error> {
        Ok(self.inner.store.waiting_calls(None, limit).await?)
    }
}
