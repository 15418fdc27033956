//! SIGKILL at any time loses nothing.

use crate::support::Place;

const APPROVED: &str = r#"{"approved":true,"by":"ana"}"#;

/// Each step once, and the whole refund.
const EVENTS: [&str; 15] = [
    "RunStarted refund",
    "StepScheduled charge",
    "StepFinished",
    "UndoPushed release",
    "ValuePublished progress",
    "TimerArmed",
    "SignalAwaited approval",
    "SignalsTaken",
    "WaitWithdrawn",
    "StepScheduled pay_out",
    "StepFinished",
    "UndosForgotten",
    "StepScheduled notify",
    "StepFinished",
    "ValuePublished progress",
];

async fn a_killed_run_goes_on_in_another_process(place: Place) {
    let run = place.begin(&["run", "refund", "--input", &place.order(3_600), "--id", "r1"]);
    assert_eq!(run.first, "r1");
    place.until("r1", "waiting").await;
    run.kill();
    let worker = place.begin(&["work"]);
    assert_eq!(place.aldis(&["signal", "r1", "approval", APPROVED]).code, 0);
    place.until("r1", "completed").await;
    assert_eq!(place.events("r1"), [&EVENTS[..], &["RunCompleted"]].concat());
    assert_eq!(place.effects(), ["charged", "paid_out", "told"]);
    assert_eq!(worker.stop(), 0);
    place.remove().await;
}

#[tokio::test]
async fn a_run_killed_while_it_waits_goes_on_in_another_process_on_sqlite() {
    a_killed_run_goes_on_in_another_process(Place::sqlite()).await;
}

#[tokio::test]
async fn a_run_killed_while_it_waits_goes_on_in_another_process_on_postgres() {
    a_killed_run_goes_on_in_another_process(Place::postgres().await).await;
}

#[tokio::test]
async fn with_two_workers_on_postgres_the_other_one_takes_over_from_a_killed_owner() {
    let place = Place::postgres().await;
    let owner = place.begin(&["run", "refund", "--input", &place.order(3_600), "--id", "r1"]);
    let other = place.begin(&["work", "--name", "other"]);
    place.until("r1", "waiting").await;
    owner.kill();
    assert_eq!(place.aldis(&["signal", "r1", "approval", APPROVED]).code, 0);
    place.until("r1", "completed").await;
    assert_eq!(place.events("r1"), [&EVENTS[..], &["RunCompleted"]].concat());
    assert_eq!(place.effects(), ["charged", "paid_out", "told"]);
    assert_eq!(other.stop(), 0);
    place.remove().await;
}

#[tokio::test]
async fn a_run_that_waits_beside_a_worker_takes_its_place_when_that_is_killed() {
    let place = Place::sqlite();
    let worker = place.begin(&["work"]);
    let run = place.begin(&["run", "refund", "--input", &place.order(3_600), "--id", "r1"]);
    place.until("r1", "waiting").await;
    worker.kill();
    assert_eq!(place.aldis(&["signal", "r1", "approval", APPROVED]).code, 0);
    assert_eq!(run.end(), (0, "{\"paid\":true,\"decided_by\":\"ana\"}\n".to_owned()));
    assert_eq!(place.effects(), ["charged", "paid_out", "told"]);
}

#[tokio::test]
async fn a_standby_worker_takes_over_a_file_when_its_owner_is_killed() {
    let place = Place::sqlite();
    let owner = place.begin(&["work"]);
    place.aldis(&["run", "refund", "--input", &place.order(3_600), "--id", "r1", "--detach"]);
    place.until("r1", "waiting").await;
    // It prints nothing before it has taken over.
    let standby = std::thread::scope(|scope| {
        let standby = scope.spawn(|| place.begin(&["work", "--standby"]));
        owner.kill();
        standby.join().unwrap()
    });
    assert_eq!(place.aldis(&["signal", "r1", "approval", APPROVED]).code, 0);
    place.until("r1", "completed").await;
    assert_eq!(standby.stop(), 0);
}

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_gives_its_runs_back() {
    let place = Place::sqlite();
    let run = place.begin(&["run", "refund", "--input", &place.order(3_600), "--id", "r1"]);
    place.until("r1", "waiting").await;
    assert_eq!(run.stop(), 130);
    assert_eq!(place.aldis(&["show", "r1", "--json"]).json()[0]["status"], "waiting");
    assert_eq!(place.aldis(&["doctor", "--json"]).code, 0);
}

/// The charge writes into the ledger under a lock of the file: who holds that lock stops the body where it is.
async fn a_step_that_was_killed_runs_again(place: Place) {
    let order = place.order(0);
    let ledger = std::fs::File::create(place.ledger()).unwrap();
    ledger.lock().unwrap();
    let owner = place.begin(&["work", "--lease", "1s"]);
    place.aldis(&["run", "refund", "--input", &order, "--id", "r1", "--detach"]);
    place.until("r1", "running").await;
    owner.kill();
    ledger.unlock().unwrap();
    let other = place.begin(&["work"]);
    place.until("r1", "completed").await;
    let charges = place.events("r1").iter().filter(|event| *event == "StepScheduled charge").count();
    assert_eq!((charges, place.effects()), (1, vec!["charged".into(), "released".into(), "told".into()]));
    assert_eq!(other.stop(), 0);
    place.remove().await;
}

#[tokio::test]
async fn a_step_whose_worker_is_killed_runs_again_elsewhere_and_is_recorded_once_on_sqlite() {
    a_step_that_was_killed_runs_again(Place::sqlite()).await;
}

#[tokio::test]
async fn a_step_whose_worker_is_killed_runs_again_elsewhere_and_is_recorded_once_on_postgres() {
    a_step_that_was_killed_runs_again(Place::postgres().await).await;
}
