//! The command line over HTTP, against real servers: the same commands, refusals with their code and remedy, and streams that
//! come back after a SIGKILL.

use std::time::Duration;

use aldis::client::{Client, Error, Message, Said, Stream};
use serde_json::Value;

use crate::support::{Done, Going, Place};

/// A server under way, and another place from which it is asked: nothing of its store is there.
struct Served {
    place: Place,
    elsewhere: Place,
    server: Option<Going>,
    base: String,
    address: String,
}

impl Served {
    fn start(place: Place) -> Self {
        let (server, base, address) = serve(&place, "127.0.0.1:0");
        Self { place, elsewhere: Place::sqlite(), server: Some(server), base, address }
    }

    /// SIGKILL, and a server at the same address.
    fn kill_and_start_again(&mut self) {
        self.server.take().unwrap().kill();
        self.server = Some(serve(&self.place, &self.address).0);
    }

    fn aldis(&self, args: &[&str]) -> Done {
        self.elsewhere.aldis_under(&[("ALDIS_SERVER", &self.base)], args)
    }

    fn begin(&self, args: &[&str]) -> Going {
        self.elsewhere.begin_under(&[("ALDIS_SERVER", &self.base)], args)
    }

    fn finish(mut self) {
        assert_eq!(self.server.take().unwrap().stop(), 0);
        let store = self.elsewhere.folder.path().join("aldis.db");
        assert!(!store.exists(), "a command has made a store instead of asking the server");
    }
}

fn serve(place: &Place, listen: &str) -> (Going, String, String) {
    let server = place.begin(&["serve", "--listen", listen, "--json"]);
    let first: Value = serde_json::from_str(&server.first).unwrap_or_else(|e| panic!("{e}: {:?}", server.first));
    let text = |key: &str| first[key].as_str().unwrap().to_owned();
    let (base, address) = (text("base"), text("address"));
    (server, base, address)
}

const REFUND: &str = "/call refund {\"order\":\"A-1\",\"cents\":100}";

/// Waits until a call waits for an answer, as the server tells it.
async fn waiting(served: &Served) -> Value {
    for _ in 0..600 {
        let listed = served.aldis(&["approvals", "--json"]);
        if let Some(first) = listed.json().first() {
            return first.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no call waits: {:?}", served.aldis(&["approvals"]));
}

#[tokio::test]
async fn commands_do_over_http_what_they_do_on_a_store() {
    let served = Served::start(Place::sqlite());
    let sent = served.aldis(&["send", "t", "Hello"]);
    assert_eq!((sent.code, sent.out.as_str()), (0, "Hello\n"), "{sent:?}");
    let called = served.aldis(&["send", "t", "/call add {\"a\":1,\"b\":2}"]);
    assert_eq!(called.out, "[add {\"a\":1,\"b\":2}]\n[add: 3]\nadd answered 3\n", "{called:?}");
    let history = served.aldis(&["thread", "t"]).out;
    assert!(history.starts_with("user: Hello\nassistant: Hello\nuser: /call add"), "{history}");
    for how in [&[][..], &["--model"]] {
        let args = [&["thread", "t"], how].concat();
        assert_eq!(served.aldis(&args).out, served.place.aldis(&args).out);
    }
    let threads = served.aldis(&["threads", "--json"]).json();
    assert_eq!((threads.len(), &threads[0]["id"], &threads[0]["resource"]), (1, &"t".into(), &"cli".into()));

    let runs = served.aldis(&["runs", "--json"]).json();
    assert_eq!((runs.len(), &runs[0]["status"]), (2, &"completed".into()), "{runs:?}");
    let run = runs[0]["id"].as_str().unwrap();
    assert_eq!(served.aldis(&["show", run, "--json"]).json(), served.place.aldis(&["show", run, "--json"]).json());
    assert_eq!(
        served.aldis(&["journal", run, "--json"]).json(),
        served.place.aldis(&["journal", run, "--json"]).json()
    );
    let journal = served.aldis(&["journal", run]).out;
    assert!(journal.contains("StepFinished") && journal.trim_end().ends_with("RunCompleted"), "{journal}");
    let page = served.aldis(&["runs", "--limit", "1", "--json"]).json();
    assert_eq!(page, runs[..1]);
    let table = served.aldis(&["runs", "--status", "completed"]).out;
    assert!(table.starts_with("RUN") && table.contains(run), "{table}");
    served.finish();
}

#[tokio::test]
async fn a_call_is_approved_and_a_run_is_signalled_and_cancelled() {
    let served = Served::start(Place::sqlite());
    let detached = served.aldis(&["send", "t", REFUND, "--detach", "--json"]);
    assert_eq!(detached.json()[0]["action"], "wake", "{detached:?}");
    let suspended = waiting(&served).await;
    assert_eq!((&suspended["thread"], &suspended["calls"][0]["tool"]), (&"t".into(), &"refund".into()));
    let table = served.aldis(&["approvals", "--thread", "t"]).out;
    assert!(table.contains("refund") && table.contains("A-1"), "{table}");
    let approved = served.aldis(&["approve", "t"]);
    assert!(approved.code == 0 && approved.out.ends_with(": approved\n"), "{approved:?}");
    served.place.until(suspended["run"].as_str().unwrap(), "completed").await;

    let order = served.place.order(3600);
    served.place.aldis(&["run", "refund", "--input", &order, "--id", "r-1", "--detach"]);
    let signalled =
        served.aldis(&["signal", "r-1", "approval", r#"{"approved":true,"by":"ana"}"#, "--id", "k", "--json"]);
    assert_eq!(signalled.json()[0]["accepted"], "new", "{signalled:?}");
    let again = served.aldis(&["signal", "r-1", "approval", r#"{"approved":true,"by":"ana"}"#, "--id", "k", "--json"]);
    assert!(again.code != 0 || again.json()[0]["accepted"] == "already", "{again:?}");
    served.place.until("r-1", "completed").await;
    served.place.aldis(&["run", "refund", "--input", &order, "--id", "r-2", "--detach"]);
    let cancelled = served.aldis(&["cancel", "r-2", "--reason", "enough"]);
    assert!(cancelled.code == 0 && cancelled.out.contains("accepted"), "{cancelled:?}");
    served.place.until("r-2", "cancelled").await;
    served.finish();
}

#[tokio::test]
async fn a_refusal_keeps_the_server_s_code_and_remedy() {
    let served = Served::start(Place::sqlite());
    let refused = served.aldis(&["send", "t", "Hello", "--agent", "demi", "--json"]);
    let told: Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!((refused.code, &told["code"]), (2, &"agent_unknown".into()), "{refused:?}");
    assert_eq!(told["error"], "Agent with id demi not found; here are: demo");
    let unknown = served.aldis(&["show", "nobody", "--json"]);
    assert!(unknown.code == 2 && unknown.err.contains("\"run_unknown\""), "{unknown:?}");
    let local = served.aldis(&["export", "r-1"]);
    assert!(local.code == 2 && local.err.contains("goes to the store itself"), "{local:?}");
    let client = Client::new(&served.base).unwrap();
    match client.thread("demi", "t", "ann").send(&Message::new("Hello")).await {
        Err(Error::Refused { status: 404, code, remedy: Some(remedy), .. }) => {
            assert_eq!((code.as_str(), remedy.as_str()), ("agent_unknown", "here are: demo"));
        }
        other => panic!("{other:?}"),
    }
    served.finish();
}

#[tokio::test]
async fn a_key_opens_the_server_and_is_never_told() {
    let place = Place::sqlite();
    let made = place.aldis(&["keys", "create", "phone"]);
    let key = made.out.trim().to_owned();
    let served = Served::start(place);
    let refused = served.aldis(&["send", "t", "Hello", "--json"]);
    assert!(
        refused.code == 2 && refused.err.contains("\"unauthorized\"") && refused.err.contains("aldis keys create"),
        "{refused:?}"
    );
    let with = |key: &str, args: &[&str]| {
        served
            .elsewhere
            .aldis_under(&[("ALDIS_SERVER", &served.base), ("ALDIS_KEY", key), ("ALDIS_LOG", "trace")], args)
    };
    let sent = with(&key, &["send", "t", "Hello"]);
    assert_eq!((sent.code, sent.out.as_str()), (0, "Hello\n"), "{sent:?}");
    assert!(!sent.err.contains(&key), "the key is in a log");
    let well = with(&key, &["doctor", "--json"]);
    let states: Vec<(Value, Value)> = well.json().iter().map(|it| (it["check"].clone(), it["state"].clone())).collect();
    let ok = |check: &str| (Value::from(check), Value::from("ok"));
    assert_eq!(states, ["server", "version", "clock", "ready", "auth"].map(ok), "{well:?}");
    let ill = with("no-such-key", &["doctor"]);
    assert!(ill.code == 1 && ill.out.contains("bad   auth") && !ill.out.contains("no-such-key"), "{ill:?}");
    served.finish();
}

#[test]
fn a_server_that_is_not_there_is_told_so() {
    let place = Place::sqlite();
    // Nobody listens on the port of the discard service here.
    let refused = place.aldis(&["runs", "--server", "http://127.0.0.1:9", "--json"]);
    assert!(refused.code == 2 && refused.err.contains("\"server_unreachable\""), "{refused:?}");
    let ill = place.aldis(&["doctor", "--server", "http://127.0.0.1:9"]);
    assert!(ill.code == 1 && ill.out.starts_with("bad   server"), "{ill:?}");
    let wrong = place.aldis(&["runs", "--server", "http://ann:secret@127.0.0.1:9"]);
    assert!(wrong.code == 2 && !wrong.err.contains("secret"), "{wrong:?}");
}

// H13.3: the stream goes on behind what was seen, whatever was killed in between.
#[tokio::test]
async fn a_stream_comes_back_after_a_kill() {
    let mut served = Served::start(Place::sqlite());
    let talking = served.begin(&["send", "t", REFUND]);
    let suspended = waiting(&served).await;
    served.kill_and_start_again();
    assert_eq!(served.aldis(&["approve", "t"]).code, 0);
    served.place.until(suspended["run"].as_str().unwrap(), "completed").await;
    assert_eq!(talking.first, "[refund {\"order\":\"A-1\",\"cents\":100}]");
    let (code, rest) = talking.end();
    let lines: Vec<&str> = rest.lines().collect();
    assert_eq!((code, lines.len()), (0, 3), "{rest}");
    assert!(lines[0].starts_with("[refund waits for approval") && lines[1].starts_with("[refund: {"), "{rest}");
    assert!(lines[2].starts_with("refund answered"), "{rest}");
    served.finish();
}

async fn until_finish(stream: &mut Stream) -> Vec<Said> {
    let mut said = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(60), stream.next()).await.expect("in time").unwrap();
        let last = next.chunk["type"] == "finish";
        said.push(next);
        if last {
            return said;
        }
    }
}

/// Two servers on one database: each has an agent that the other has not, so it is certain who runs a turn.
#[tokio::test]
async fn two_servers_on_one_postgres_are_one_to_who_asks() {
    let place = Place::postgres().await;
    let begin = |name: &str| {
        let file = place.folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, format!("[agents.{name}]\n")).unwrap();
        let server =
            place.begin(&["serve", "--listen", "127.0.0.1:0", "--json", "--config", &file.display().to_string()]);
        let first: Value = serde_json::from_str(&server.first).unwrap();
        assert_eq!(first["agents"], serde_json::json!([name]));
        (server, Client::new(first["base"].as_str().unwrap()).unwrap())
    };
    let ((one, left), (two, right)) = (begin("left"), begin("right"));
    // What the left one accepts the right one runs, and the reverse; both tell of it.
    for (agent, door) in [("right", &left), ("left", &right)] {
        let thread = format!("t-{agent}");
        let mut streams = Vec::new();
        for client in [&left, &right] {
            streams.push(client.thread(agent, &thread, "ann").subscribe(None).await.unwrap());
        }
        let sent = door.thread(agent, &thread, "ann").send(&Message::new("Hello").id("m-1")).await.unwrap();
        assert_eq!(sent.action, "wake");
        let told = [until_finish(&mut streams[0]).await, until_finish(&mut streams[1]).await];
        assert_eq!(told[0], told[1], "both tell the same, with the same cursors");
        assert!(told[0].iter().any(|said| said.chunk["payload"]["text"] == "Hello"), "{told:?}");
        // The same message again is the same one, at either door.
        let again = left.thread(agent, &thread, "ann").send(&Message::new("Hello").id("m-1")).await.unwrap();
        assert_eq!((again.id(), &again.run), (sent.id(), &sent.run));
        // And where one has read, the other goes on.
        let halfway = &told[0][told[0].len() / 2].cursor;
        let mut rest = right.thread(agent, &thread, "ann").subscribe(Some(halfway)).await.unwrap();
        assert_eq!(until_finish(&mut rest).await, told[0][told[0].len() / 2 + 1..]);
    }
    // Without the one that has the agent the turn waits, and is run once it is there again.
    two.kill();
    let sent = left.thread("right", "t-right", "ann").send(&Message::new("Again")).await.unwrap();
    let mut stream = left.thread("right", "t-right", "ann").subscribe(None).await.unwrap();
    let (two, _) = begin("right");
    let said = until_finish(&mut stream).await;
    assert!(said.iter().all(|it| it.chunk["runId"] == sent.run.as_str()), "{said:?}");
    assert_eq!((one.stop(), two.stop()), (0, 0));
    place.remove().await;
}
