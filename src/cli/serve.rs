//! `aldis serve`: serves agents and threads over HTTP, and advances their runs.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;

use super::access::Access;
use super::connections::Connections;
use super::error::Error;
use super::reload::Reload;
use super::stop::Stop;
use super::{Desk, Exit, notify, print};
use crate::config::{self, Span};
use crate::http::{Keys, Options, Server};

/// Serves agents and threads over HTTP until SIGINT or SIGTERM, and advances their runs. Then streams end, so that their
/// readers come back, what was asked before is answered, and steps under way may finish.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:4111]
    #[arg(long, env = "ALDIS_LISTEN", value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// What the routes begin with [default: /api]
    #[arg(long, env = "ALDIS_PREFIX", value_name = "PATH", value_parser = config::prefix)]
    prefix: Option<String>,
    /// Origins whose pages may talk to it from a browser, or * for all
    #[arg(long, env = "ALDIS_ORIGINS", value_delimiter = ',', value_name = "ORIGIN")]
    origin: Option<Vec<String>>,
    /// Asks for a key even where the store has none yet and only this machine can reach the server
    #[arg(long, env = "ALDIS_REQUIRE_KEYS")]
    require_keys: bool,
    /// The most bytes of a request's body [default: 4194304]
    #[arg(long, env = "ALDIS_BODY_MAX", value_name = "BYTES")]
    body_max: Option<usize>,
    /// How long a request may take [default: 30s]
    #[arg(long, env = "ALDIS_REQUEST_TIMEOUT", value_name = "SPAN")]
    timeout: Option<Span>,
    /// How long a stream is silent before it says that it is alive [default: 25s]
    #[arg(long, env = "ALDIS_HEARTBEAT", value_name = "SPAN")]
    heartbeat: Option<Span>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    connections: Connections,
    /// Where another process advances the runs of this SQLite file: waits until it ends
    #[arg(long)]
    standby: bool,
    /// How long requests and steps may go on after this process was asked to stop; asked again, it stops at once [default: 10s]
    #[arg(long, env = "ALDIS_GRACE", value_name = "SPAN")]
    grace: Option<Span>,
}

impl Serve {
    /// What is not said here the settings say.
    fn or(self, settings: &config::Settings) -> config::Serve {
        let serve = settings.serve.clone();
        config::Serve {
            listen: self.listen.unwrap_or(serve.listen),
            prefix: self.prefix.unwrap_or(serve.prefix),
            origins: self.origin.unwrap_or(serve.origins),
            require_keys: self.require_keys || serve.require_keys,
            body_bytes_max: self.body_max.unwrap_or(serve.body_bytes_max),
            timeout: self.timeout.unwrap_or(serve.timeout),
            heartbeat: self.heartbeat.unwrap_or(serve.heartbeat),
            ..serve
        }
    }
}

pub(super) async fn run(desk: &Desk, asked: Serve) -> Result<Exit, Error> {
    let options = asked.access.options(desk, asked.connections.options(&desk.config.settings.serve))?;
    let mut stop = Stop::listen()?;
    let (standby, grace) = (asked.standby, asked.grace.unwrap_or(desk.config.settings.work.grace).0);
    let asked = asked.or(&desk.config.settings);
    let taken = format!("{} cannot be listened on", asked.listen);
    let listener = TcpListener::bind(asked.listen).await.map_err(Error::io(taken))?;
    let address = listener.local_addr().map_err(Error::io("the address is not known"))?;
    let people = desk.people()?;
    let mut reload = Reload::listen(desk, people.clone())?;
    let runtime = tokio::select! {
        started = desk.aldis_with(&people).standby(standby).start() => started?,
        // Nothing was begun yet.
        () = stop.asked() => return Ok(Exit::Good),
    };
    let tokens = options.jwt.is_some();
    let proven = tokens || runtime.has_keys().await?;
    let keys = proven || asked.require_keys;
    let reachable = !address.ip().is_loopback();
    if !proven && reachable {
        runtime.drain(Duration::ZERO).await?;
        return Err(Error::Usage(format!(
            "{} can be reached from other machines, and nobody would have to prove who they are; \
             make a key first (`aldis keys create NAME`), have tokens checked (`--jwt-keys`), or listen on 127.0.0.1",
            asked.listen
        )));
    }
    let options = Options {
        keys: if keys || reachable { Keys::Required } else { Keys::OnceMade },
        prefix: asked.prefix,
        body_bytes_max: asked.body_bytes_max,
        timeout: asked.timeout.0,
        heartbeat: asked.heartbeat.0,
        origins: asked.origins,
        ..options
    };
    let base = format!("http://{address}{}", options.prefix);
    let server = Server::new(runtime.client().clone(), options);
    let store = runtime.store().location().to_owned();
    let agents: Vec<String> = runtime.agents().all().map(|agent| agent.name().to_owned()).collect();
    if desk.json() {
        print::json(
            &json!({ "ready": true, "address": address, "base": base, "store": store, "agents": agents, "keys": keys }),
        )?;
    } else {
        let whom = match (keys, tokens) {
            (_, true) => "to those who have a key or a token",
            (true, false) => "to those who have a key",
            (false, false) => "to every program of this machine",
        };
        print::line(&format!("{base} serves {} on {store}, {whom}", agents.join(", ")))?;
    }
    let (asked_to_stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let serving = server.serve(listener, async { drop(stopping.await) }, grace);
    let serving = tokio::spawn(serving);
    notify::ready();
    let failed = tokio::select! {
        () = stop.asked() => None,
        failed = reload.whenever_asked(&runtime) => Some(failed),
    };
    notify::stopping();
    if !desk.json() {
        eprintln!("stopping; requests and steps under way have {} to finish", print::span(grace));
    }
    drop(asked_to_stop);
    let end = async {
        serving.await.map_err(|e| Error::io("the server has failed")(std::io::Error::other(e)))?;
        runtime.drain(grace).await?;
        failed.map_or(Ok(Exit::Good), Err)
    };
    tokio::select! {
        ended = end => ended,
        // As good as a crash: what was not committed did not happen.
        () = stop.asked() => Ok(Exit::Interrupted),
    }
}
