//! What the commands do and print when all is well.

use serde_json::{Value, json};

use crate::support::Place;

const APPROVED: &str = r#"{"approved":true,"by":"ana"}"#;

#[test]
fn a_run_prints_its_id_first_and_then_its_output() {
    let place = Place::sqlite();
    let done = place.aldis(&["run", "refund", "--input", &place.order(0), "--id", "r1"]);
    assert_eq!((done.code, done.out.as_str()), (0, "r1\n{\"paid\":false,\"decided_by\":null}\n"));
    assert_eq!(place.effects(), ["charged", "released", "told"]);
}

#[test]
fn a_run_tells_machines_its_id_and_its_outcome() {
    let place = Place::sqlite();
    let done = place.aldis(&["run", "refund", "--input", &place.order(0), "--id", "r1", "--json"]);
    let outcome = json!({
        "id": "r1", "status": "completed", "output": { "paid": false, "decided_by": null }, "signals_unread": 0
    });
    assert_eq!(done.json(), [json!({ "id": "r1", "started": "new" }), outcome]);
}

#[test]
fn a_run_can_print_its_journal() {
    let place = Place::sqlite();
    let done = place.aldis(&["run", "refund", "--input", &place.order(0), "--id", "r1", "--journal"]);
    let journal = place.aldis(&["journal", "r1"]).out;
    assert_eq!(done.out, format!("r1\n{journal}{{\"paid\":false,\"decided_by\":null}}\n"));
}

#[test]
fn the_input_may_come_on_standard_input() {
    let place = Place::sqlite();
    let order = std::fs::read_to_string(place.order(0)).unwrap();
    let done = place.aldis_with(&["run", "refund", "--input", "-"], &order);
    assert_eq!(done.code, 0, "{done:?}");
}

#[tokio::test]
async fn a_detached_run_is_left_to_whoever_advances_runs() {
    let place = Place::sqlite();
    let done = place.aldis(&["run", "refund", "--input", &place.order(0), "--id", "r1", "--detach"]);
    assert_eq!((done.code, done.out.as_str()), (0, "r1\n"));
    assert_eq!(place.aldis(&["show", "r1", "--json"]).json()[0]["status"], "due");
    let worker = place.begin(&["work"]);
    place.until("r1", "completed").await;
    assert_eq!(worker.stop(), 0);
}

#[tokio::test]
async fn beside_a_worker_a_run_is_queued_and_its_outcome_is_waited_for() {
    let place = Place::sqlite();
    let worker = place.begin(&["work", "--json"]);
    let ready: Value = serde_json::from_str(&worker.first).unwrap();
    assert_eq!((ready["ready"].as_bool(), ready["workflows"][0].as_str()), (Some(true), Some("refund v1")));
    let run = place.begin(&["run", "refund", "--input", &place.order(3_600), "--id", "r1"]);
    place.until("r1", "waiting").await;
    assert_eq!(place.aldis(&["signal", "r1", "approval", APPROVED]).code, 0);
    assert_eq!(run.end(), (0, "{\"paid\":true,\"decided_by\":\"ana\"}\n".to_owned()));
    assert_eq!(place.events("r1")[0], "RunQueued refund");
}

#[tokio::test]
async fn a_signal_is_accepted_once_under_the_senders_id() {
    let place = Place::sqlite();
    let run = place.begin(&["run", "refund", "--input", &place.order(3_600), "--id", "r1", "--detach"]);
    assert_eq!(run.end().0, 0);
    let send = || place.aldis(&["signal", "r1", "approval", APPROVED, "--id", "mail-1", "--json"]).json();
    assert_eq!(send(), [json!({ "run": "r1", "accepted": "new", "ordinal": 1 })]);
    assert_eq!(send(), [json!({ "run": "r1", "accepted": "already", "ordinal": 1 })]);
}

#[tokio::test]
async fn a_cancelled_run_ends_with_exit_code_3_and_undoes_what_it_did() {
    let place = Place::sqlite();
    let run = place.begin(&["run", "refund", "--input", &place.order(3_600), "--id", "r1"]);
    place.until("r1", "waiting").await;
    assert_eq!(place.aldis(&["cancel", "r1", "--reason", "test"]).code, 0);
    assert_eq!(run.end().0, 3);
    assert_eq!(place.effects(), ["charged", "released"]);
}

#[tokio::test]
async fn a_deadline_asks_the_run_to_cancel() {
    let place = Place::sqlite();
    let done = place.aldis(&["run", "refund", "--input", &place.order(3_600), "--deadline", "1s", "--json"]);
    assert_eq!((done.code, done.json()[1]["status"].as_str()), (3, Some("cancelled")));
}

#[test]
fn an_idempotency_key_leads_to_the_first_run() {
    let place = Place::sqlite();
    let order = place.order(0);
    let start =
        || place.aldis(&["run", "refund", "--input", &order, "--idempotency-key", "k", "--key-kept", "1h", "--json"]);
    let (first, second) = (start().json(), start().json());
    assert_eq!(second[0], json!({ "id": first[0]["id"], "started": "existing" }));
    assert_eq!(place.effects().len(), 3);
}

#[tokio::test]
async fn show_says_what_a_run_waits_for() {
    let place = Place::sqlite();
    let run = place.begin(&["run", "refund", "--input", &place.order(3_600), "--id", "r1"]);
    place.until("r1", "waiting").await;
    let mut shown = place.aldis(&["show", "r1", "--json"]).json().remove(0);
    run.kill();
    for instant in ["created_at", "updated_at", "next_wake"] {
        shown[instant] = shown[instant].is_i64().into();
    }
    for wait in shown["waits_for"].as_array_mut().unwrap() {
        wait["since"] = wait["since"].is_i64().into();
        if wait["until"] != Value::Null {
            wait["until"] = wait["until"].is_i64().into();
        }
    }
    insta::assert_json_snapshot!(shown, @r#"
    {
      "id": "r1",
      "namespace": "default",
      "workflow": "refund",
      "version": 1,
      "status": "waiting",
      "waits_for": [
        {
          "kind": "timer",
          "op": "3",
          "since": true,
          "until": true
        },
        {
          "kind": "signal",
          "name": "approval",
          "op": "4",
          "since": true
        }
      ],
      "next_wake": true,
      "undos": 1,
      "signals_pending": 0,
      "events": 7,
      "created_at": true,
      "updated_at": true
    }
    "#);
}

#[tokio::test]
async fn show_tells_people_that_nobody_advances_the_run() {
    let place = Place::sqlite();
    place.aldis(&["run", "refund", "--input", &place.order(3_600), "--id", "r1", "--detach"]);
    let shown = place.aldis(&["show", "r1"]).out;
    assert_eq!(shown.lines().last(), Some("  nobody advances the runs of this store now; start `aldis work`"));
}

#[test]
fn a_journal_line_is_one_flat_object() {
    let place = Place::sqlite();
    place.aldis(&["run", "refund", "--input", &place.order(0), "--id", "r1"]);
    let lines = place.aldis(&["journal", "r1", "--json"]).json();
    let keys = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&lines[1]), "seq at event name op input");
    assert_eq!(
        (lines[1]["seq"].as_i64(), lines[1]["event"].as_str(), lines[1]["name"].as_str()),
        (Some(2), Some("StepScheduled"), Some("charge"))
    );
}

#[test]
fn runs_are_listed_newest_first_and_by_pages() {
    let place = Place::sqlite();
    let order = place.order(3_600);
    for id in ["r1", "r2", "r3"] {
        place.aldis(&["run", "refund", "--input", &order, "--id", id, "--detach"]);
    }
    let ids = |args: &[&str]| {
        let runs = place.aldis(&[&["runs", "--json"], args].concat()).json();
        runs.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&["--limit", "2"]), ["r3", "r2"]);
    assert_eq!(ids(&["--before", "r2"]), ["r1"]);
    assert_eq!(ids(&["--status", "completed,failed"]), [""; 0]);
    assert_eq!(ids(&["--workflow", "refund", "--status", "due"]), ["r3", "r2", "r1"]);
}

#[test]
fn an_exported_run_is_replayed_and_brought_in_elsewhere() {
    let (here, there) = (Place::sqlite(), Place::sqlite());
    here.aldis(&["run", "refund", "--input", &here.order(0), "--id", "r1"]);
    let file = there.folder.path().join("r1.jsonl").display().to_string();
    assert_eq!(here.aldis(&["export", "r1", "--output", &file]).code, 0);
    let replayed = there.aldis(&["replay", "--file", &file, "--json"]);
    assert_eq!(replayed.json(), [json!({ "id": "r1", "agrees": true, "events": 16, "ahead": 0 })]);
    assert_eq!(there.aldis(&["import", &file, "--json"]).json(), [json!({ "id": "r1", "events": 16 })]);
    assert_eq!(there.events("r1"), here.events("r1"));
}

#[test]
fn migrate_makes_a_store_and_then_leaves_it_alone() {
    let place = Place::sqlite();
    let migrate = || place.aldis(&["migrate", "--json"]).json().remove(0);
    let (first, second) = (migrate(), migrate());
    assert_eq!(
        (first["from"].as_i64(), first["to"] == second["to"], second["from"] == second["to"]),
        (Some(0), true, true)
    );
}

#[test]
fn the_doctor_finds_nothing_in_a_healthy_store() {
    let place = Place::sqlite();
    place.aldis(&["run", "refund", "--input", &place.order(0)]);
    let done = place.aldis(&["doctor", "--json"]);
    let states: Vec<_> = done.json().iter().map(|finding| finding["state"].clone()).collect();
    assert_eq!((done.code, states.iter().all(|state| state == "ok")), (0, true), "{}", done.out);
}

#[test]
fn the_bench_tells_every_figure() {
    let place = Place::sqlite();
    let done = place.aldis(&["bench", "seq", "--runs", "20", "--in-flight", "4", "--rounds", "1", "--json"]);
    let report = done.json().remove(0);
    let keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).take(11).collect();
    let expected = [
        "shape",
        "store",
        "unit",
        "per_s",
        "p50_ms",
        "p99_ms",
        "limit_per_s",
        "share_of_limit",
        "logical_commits",
        "physical_commits",
        "peak_rss_mb",
    ];
    assert_eq!(keys, expected);
    assert_eq!(report["logical_commits"], 20 * 6);
    let left: Vec<_> = std::fs::read_dir(place.folder.path()).unwrap().collect();
    assert_eq!(left.len(), 0, "{left:?}");
}

#[test]
fn many_parked_runs_are_resumed_by_another_process() {
    let place = Place::sqlite();
    let args = ["bench", "await", "--parked", "50", "--runs", "20", "--in-flight", "4", "--rounds", "1", "--json"];
    let report = place.aldis(&args).json().remove(0);
    assert_eq!((report["parked"].as_i64(), report["logical_commits"].as_i64()), (Some(50), Some(50)));
}

#[test]
fn completions_are_printed_for_a_shell() {
    let place = Place::sqlite();
    let done = place.aldis(&["completions", "bash"]);
    assert_eq!((done.code, done.out.contains("complete -F _aldis")), (0, true));
}
