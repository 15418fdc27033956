//! SIGHUP: agents and models are read again, and take the place of those there were, without a new start.

use serde_json::json;

use super::error::{Error, with_causes};
use super::{Desk, notify, print};
use crate::config::{Config, People};
use crate::runtime::Runtime;

/// Reads the settings again whenever this process is asked to. A file that does not hold changes nothing.
pub(super) struct Reload {
    desk: Desk,
    people: People,
    #[cfg(unix)]
    hangups: tokio::signal::unix::Signal,
}

impl Reload {
    /// Listens from now on: the process is no longer ended by SIGHUP.
    pub(super) fn listen(desk: &Desk, people: People) -> Result<Self, Error> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let failed = Error::io("this process cannot listen for signals of the system");
            Ok(Self { desk: desk.clone(), people, hangups: signal(SignalKind::hangup()).map_err(failed)? })
        }
        #[cfg(not(unix))]
        Ok(Self { desk: desk.clone(), people })
    }

    /// Reads them again as often as it is asked to. Ends only if this process cannot write what it has to tell.
    pub(super) async fn whenever_asked(&mut self, runtime: &Runtime) -> Error {
        loop {
            self.asked().await;
            notify::reloading();
            let read = self.read_again(runtime).await;
            notify::ready();
            if let Err(error) = self.tell(read) {
                return error;
            }
        }
    }

    async fn asked(&mut self) {
        #[cfg(unix)]
        if self.hangups.recv().await.is_some() {
            return;
        }
        std::future::pending::<()>().await;
    }

    async fn read_again(&mut self, runtime: &Runtime) -> Result<Vec<String>, Error> {
        let Desk { common, environment, base, .. } = &self.desk;
        // The file that was read at the start, even if there is another default by now.
        let file = common.config.as_deref().or(self.desk.config.file.as_deref());
        let config = super::read(file, environment)?;
        let people = config.people(base, environment, Some(&self.people))?;
        let renewed = Desk { config, ..self.desk.clone() };
        let gone = runtime.renew(people.agents.clone(), people.models.clone(), &renewed.build()).await?;
        if !gone.is_empty() {
            tracing::warn!(agents = gone.join(", "), "agents that are no longer declared stay until this process ends");
        }
        if needs_a_start(&self.desk.config, &renewed.config) {
            tracing::warn!("settings other than agents, models, providers and MCP servers change at the next start");
        }
        self.people = people;
        Ok(runtime.agents().all().map(|agent| agent.name().to_owned()).collect())
    }

    fn tell(&self, read: Result<Vec<String>, Error>) -> Result<(), Error> {
        match (read, self.desk.json()) {
            (Ok(agents), true) => print::json(&json!({ "reloaded": true, "agents": agents })),
            (Ok(agents), false) => {
                eprintln!("the settings were read again; agents: {}", agents.join(", "));
                Ok(())
            }
            (Err(error), json) => {
                let why = with_causes(&error);
                tracing::warn!(why, "the settings could not be read again; everything stays as it was");
                if json { print::json(&json!({ "reloaded": false, "error": why })) } else { Ok(()) }
            }
        }
    }
}

/// Whether something has changed that only a new start brings into force.
fn needs_a_start(before: &Config, now: &Config) -> bool {
    let (a, b) = (&before.settings, &now.settings);
    (&a.store, &a.serve, &a.work, &a.retention, &a.limits) != (&b.store, &b.serve, &b.work, &b.retention, &b.limits)
}
