//! `aldis serve`: serves agents and threads over HTTP, and advances their runs.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;

use super::access::Access;
use super::connections::Connections;
use super::error::Error;
use super::run::Span;
use super::stop::Stop;
use super::{Desk, Exit, print};
use crate::http::{Keys, Options, Server};

/// Serves agents and threads over HTTP until SIGINT or SIGTERM, and advances their runs. Then streams end, so that their
/// readers come back, what was asked before is answered, and steps under way may finish.
#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Where to listen; port 0 takes a free one
    #[arg(long, env = "ALDIS_LISTEN", default_value = "127.0.0.1:4111", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// What the routes begin with
    #[arg(long, env = "ALDIS_PREFIX", default_value = "/api", value_name = "PATH", value_parser = prefix)]
    prefix: String,
    /// Origins whose pages may talk to it from a browser, or * for all
    #[arg(long, env = "ALDIS_ORIGINS", value_delimiter = ',', value_name = "ORIGIN")]
    origin: Vec<String>,
    /// The most bytes of a request's body
    #[arg(long, env = "ALDIS_BODY_MAX", default_value_t = Options::default().body_bytes_max, value_name = "BYTES")]
    body_max: usize,
    /// How long a request may take
    #[arg(long, env = "ALDIS_REQUEST_TIMEOUT", default_value = "30s", value_name = "SPAN")]
    timeout: Span,
    /// How long a stream is silent before it says that it is alive
    #[arg(long, env = "ALDIS_HEARTBEAT", default_value = "25s", value_name = "SPAN")]
    heartbeat: Span,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    connections: Connections,
    /// Where another process advances the runs of this SQLite file: waits until it ends
    #[arg(long)]
    standby: bool,
    /// How long requests and steps may go on after this process was asked to stop; asked again, it stops at once
    #[arg(long, default_value = "10s", value_name = "SPAN")]
    grace: Span,
}

fn prefix(text: &str) -> Result<String, String> {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.');
    match text {
        "" | "/" => Ok(String::new()),
        _ if text.starts_with('/') && text.chars().all(usable) => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err("a prefix is a path such as /api, of letters, digits and / - _ .".to_owned()),
    }
}

pub(super) async fn run(desk: &Desk, asked: Serve) -> Result<Exit, Error> {
    let options = asked.access.options(asked.connections.options())?;
    let mut stop = Stop::listen()?;
    let taken = format!("{} cannot be listened on", asked.listen);
    let listener = TcpListener::bind(asked.listen).await.map_err(Error::io(taken))?;
    let address = listener.local_addr().map_err(Error::io("the address is not known"))?;
    let runtime = tokio::select! {
        started = desk.aldis().standby(asked.standby).start() => started?,
        // Nothing was begun yet.
        () = stop.asked() => return Ok(Exit::Good),
    };
    let tokens = options.jwt.is_some();
    let keys = tokens || runtime.has_keys().await?;
    let reachable = !address.ip().is_loopback();
    if !keys && reachable {
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
        body_bytes_max: asked.body_max,
        timeout: asked.timeout.0,
        heartbeat: asked.heartbeat.0,
        origins: asked.origin,
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
    let serving = server.serve(listener, async { drop(stopping.await) }, asked.grace.0);
    let serving = tokio::spawn(serving);
    stop.asked().await;
    if !desk.json() {
        eprintln!("stopping; requests and steps under way have {} to finish", print::span(asked.grace.0));
    }
    drop(asked_to_stop);
    let end = async {
        serving.await.map_err(|e| Error::io("the server has failed")(std::io::Error::other(e)))?;
        runtime.drain(asked.grace.0).await?;
        Ok(Exit::Good)
    };
    tokio::select! {
        ended = end => ended,
        // As good as a crash: what was not committed did not happen.
        () = stop.asked() => Ok(Exit::Interrupted),
    }
}
