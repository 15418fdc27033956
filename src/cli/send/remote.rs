//! `aldis send --server`: the same over HTTP. The stream comes back if the server is killed meanwhile.

use serde_json::{Value, json};

use super::{Send, Whose, show};
use crate::cli::error::Error;
use crate::cli::stop::Stop;
use crate::cli::{Desk, Exit, print};
use crate::client::{Client, Message, Sent, Stream, Thread};

impl Whose {
    /// The thread, on a server.
    pub(in crate::cli) fn remote(&self, client: &Client, thread: &str) -> Thread {
        client.thread(&self.agent, thread, &self.resource)
    }
}

pub(in crate::cli) async fn run(desk: &Desk, client: &Client, asked: &Send) -> Result<Exit, Error> {
    if asked.record.is_some() || asked.play.is_some() {
        let what = "the server asks the models; --record and --play are for models that this process asks";
        return Err(Error::Usage(what.to_owned()));
    }
    if asked.queue && asked.category != "user" {
        return Err(Error::Usage("a server queues messages of users; leave --queue or --category away".to_owned()));
    }
    let thread = asked.whose.remote(client, &asked.thread);
    let id = asked.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let message = Message::new(&asked.text).category(&asked.category).id(id);
    let mut stop = Stop::listen()?;
    let stream = match asked.detach {
        true => None,
        false => Some(thread.subscribe(None).await?.missing_nothing()),
    };
    let sent = if asked.queue { thread.queue(&message).await? } else { thread.send(&message).await? };
    told(desk, &sent)?;
    match stream {
        Some(stream) if sent.is_taken() => tokio::select! {
            exit = follow(desk, &asked.thread, &sent, stream) => exit,
            () = stop.asked() => {
                eprintln!("the server goes on with it; `aldis thread {}` shows the answer", asked.thread);
                Ok(Exit::Interrupted)
            }
        },
        _ => Ok(Exit::Good),
    }
}

fn told(desk: &Desk, sent: &Sent) -> Result<(), Error> {
    let Sent { run, signal, action } = sent;
    if desk.json() {
        let run = sent.is_taken().then_some(run);
        return print::json(&json!({ "signal": signal, "action": action, "run": run }));
    }
    match action.as_str() {
        "wake" => eprintln!("run {run}"),
        "deliver" => eprintln!("run {run} takes it"),
        "persist" => eprintln!("kept in the history"),
        _ => eprintln!("discarded"),
    }
    Ok(())
}

/// Shows what is said from the message on, until the run that has taken it has ended.
async fn follow(desk: &Desk, thread: &str, sent: &Sent, mut stream: Stream) -> Result<Exit, Error> {
    let mut taken_by: Option<String> = None;
    loop {
        let said = stream.next().await?;
        let chunk = without_cursor(said.chunk);
        let of_run = chunk["runId"].as_str();
        if chunk["data"]["id"] == sent.id() {
            taken_by = of_run.map(str::to_owned);
        }
        // A message that was sent before may have entered before: its run tells what becomes of it.
        let begins = of_run == Some(sent.run.as_str()) && chunk["type"] == "start";
        if taken_by.is_none() && begins {
            taken_by = Some(sent.run.clone());
        }
        if taken_by.is_none() || of_run != taken_by.as_deref() {
            continue;
        }
        show(desk, thread, said.cursor.parse().unwrap_or_default(), &chunk)?;
        match chunk["type"].as_str() {
            Some("finish") => return Ok(Exit::Good),
            Some("error") => return Ok(Exit::Bad),
            Some("abort") => return Ok(Exit::Stopped),
            _ => {}
        }
    }
}

fn without_cursor(mut chunk: Value) -> Value {
    if let Some(fields) = chunk.as_object_mut() {
        fields.remove("cursor");
    }
    chunk
}
