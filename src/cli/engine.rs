//! What a command does that waits for runs: where nobody advances them, this process does meanwhile; where another
//! process does, this one takes its place if it ends.

use std::time::Duration;

use super::error::Error;
use super::stop::Stop;
use super::{Desk, Exit};
use crate::runtime::{self, Client, Runtime};

/// Does something with a client while somebody advances the runs. Steps have `grace` to finish if this process is asked to
/// stop.
pub(super) async fn with_engine<W>(desk: &Desk, grace: Duration, work: W) -> Result<Exit, Error>
where
    W: AsyncFnOnce(Client, Stop) -> Result<Exit, Error>,
{
    // From here on a signal of the system leaves the runs in good order.
    let stop = Stop::listen()?;
    match desk.aldis()?.start().await {
        Ok(runtime) => {
            let exit = work(runtime.client().clone(), stop).await;
            runtime.drain(if matches!(exit, Ok(Exit::Interrupted)) { grace } else { Duration::ZERO }).await?;
            exit
        }
        Err(runtime::Error::EngineElsewhere { .. }) => beside(desk, stop, work).await,
        Err(error) => Err(error.into()),
    }
}

/// Another process advances the runs: it gets them, and is replaced if it ends first.
async fn beside<W>(desk: &Desk, stop: Stop, work: W) -> Result<Exit, Error>
where
    W: AsyncFnOnce(Client, Stop) -> Result<Exit, Error>,
{
    let client = desk.bare().connect().await?;
    let successor = tokio::spawn(desk.aldis()?.standby(true).start());
    let exit = work(client.clone(), stop).await;
    if successor.is_finished() {
        let runtime: Result<Runtime, runtime::Error> =
            successor.await.map_err(|e| Error::io("the engine ended early")(std::io::Error::other(e)))?;
        runtime?.drain(Duration::ZERO).await?;
    } else {
        successor.abort();
    }
    client.store().close().await;
    exit
}
