//! `aldis keys`: who may ask over HTTP.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::error::Error;
use super::{Desk, Exit, print};
use crate::clock::Clock;
use crate::store::ApiKey;

/// Makes, lists and revokes the keys by which programs prove over HTTP who they are.
#[derive(Debug, Args)]
pub(super) struct Keys {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Makes a key and prints it, this once: only its digest is kept
    Create {
        /// What people call it
        name: String,
        /// The only resource whose threads it opens [default: all]
        #[arg(long, value_name = "NAME")]
        resource: Option<String>,
    },
    /// Lists keys, the oldest first
    List,
    /// Ends a key: the next request with it is refused
    Revoke {
        /// Its id, as `list` shows it
        id: String,
    },
}

pub(super) async fn run(desk: &Desk, asked: Keys) -> Result<Exit, Error> {
    let client = match asked.what {
        // The first key of a new installation may come before its store.
        What::Create { .. } => desk.bare().connect().await?,
        What::List | What::Revoke { .. } => desk.client().await?,
    };
    let exit = match asked.what {
        What::Create { name, resource } => {
            let new = client.create_key(&name, resource.as_deref()).await?;
            if desk.json() {
                let mut told = object(&new.key);
                told["key"] = new.secret.as_str().into();
                print::json(&told)?;
            } else {
                print::line(&new.secret)?;
                eprintln!("key {}; it is not shown again", new.key.id);
            }
            Exit::Good
        }
        What::List => {
            list(desk, &client.keys().await?)?;
            Exit::Good
        }
        What::Revoke { id } => {
            if !client.revoke_key(&id).await? {
                return Err(Error::Usage(format!("there is no key {id:?}; see `aldis keys list`")));
            }
            Exit::Good
        }
    };
    client.store().close().await;
    Ok(exit)
}

fn list(desk: &Desk, keys: &[ApiKey]) -> Result<(), Error> {
    if desk.json() {
        return keys.iter().try_for_each(|key| print::json(&object(key)));
    }
    let now = Clock::System.now();
    let row = |key: &ApiKey| {
        vec![
            key.id.clone(),
            key.name.clone(),
            key.resource.clone().unwrap_or_else(|| "all".to_owned()),
            print::from_now(key.created_at, now),
            key.revoked_at.map_or_else(String::new, |at| print::from_now(at, now)),
        ]
    };
    let rows: Vec<Vec<String>> = keys.iter().map(row).collect();
    print::text(&print::table(&["KEY", "NAME", "RESOURCE", "CREATED", "REVOKED"], &rows))
}

fn object(key: &ApiKey) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "resource": key.resource,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    })
}
