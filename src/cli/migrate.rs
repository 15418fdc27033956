//! `aldis migrate`: brings the store's schema up to date.

use serde_json::json;

use super::error::Error;
use super::{Desk, Exit, print};
use crate::store::{OpenError, Options, Store};

pub(super) async fn run(desk: &Desk) -> Result<Exit, Error> {
    let was = match Store::open(desk.store(), Options { migrate: false, ..Options::default() }).await {
        Ok(store) => {
            let schema = store.schema().await?;
            store.close().await;
            schema.applied
        }
        Err(OpenError::NotMigrated { applied, .. }) => applied,
        // There is none yet, or it cannot be reached: the next attempt tells which.
        Err(OpenError::Unreachable { .. }) => 0,
        Err(error) => return Err(error.into()),
    };
    let store = Store::open(desk.store(), Options::default()).await?;
    let (now, location) = (store.schema().await?.applied, store.location().to_owned());
    store.close().await;
    if desk.json() {
        print::json(&json!({ "store": location, "from": was, "to": now }))?;
    } else if was == now {
        print::line(&format!("{location} has schema {now} already; nothing was changed"))?;
    } else {
        print::line(&format!("{location}: schema {was} brought to {now}"))?;
    }
    Ok(Exit::Good)
}
