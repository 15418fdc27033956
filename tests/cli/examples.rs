//! What the examples are there to show.

use crate::support::Place;

const RENAMED: [(&str, &str); 1] = [("RENAMED", "1")];

fn invoice(place: &Place) -> String {
    let file = place.folder.path().join("invoice.json");
    std::fs::write(&file, r#"{"number":"2031-07"}"#).unwrap();
    file.display().to_string()
}

/// A run of the old code that waits for its signal, and whose process is gone.
async fn an_open_invoice(place: &Place) {
    let input = invoice(place);
    let run = place.begin_example("renamed_step", &["run", "invoice", "--id", "inv-7", "--input", &input]);
    place.until("inv-7", "waiting").await;
    run.kill();
}

#[tokio::test]
async fn replay_names_a_renamed_step_and_the_remedy() {
    let place = Place::sqlite();
    an_open_invoice(&place).await;
    let replayed = place.example("renamed_step", &RENAMED, &["replay", "inv-7"]);
    assert_eq!(replayed.code, 1);
    insta::assert_snapshot!(replayed.err, @r#"replay of run inv-7 diverged at event 2: the journal holds step "fetch_invoice" at 1, the code asked for step "load_invoice" at 1; recorded by build before, replayed by build renamed; a changed step needs a new name in a new version of the workflow: put the old code back, or keep it registered under its version for the runs that began on it"#);
    assert_eq!(place.example("renamed_step", &[], &["replay", "inv-7"]).code, 0);
}

#[tokio::test]
async fn a_renamed_step_blocks_its_run_until_the_old_name_is_back() {
    let place = Place::sqlite();
    an_open_invoice(&place).await;
    assert_eq!(place.example("renamed_step", &[], &["signal", "inv-7", "approved", "true"]).code, 0);
    let blocked = place.example("renamed_step", &RENAMED, &["wait", "inv-7"]);
    assert_eq!((blocked.code, blocked.out.as_str()), (3, ""));
    let shown = place.aldis(&["show", "inv-7", "--json"]).json().remove(0);
    assert_eq!((&shown["status"], &shown["blocked"]["code"]), (&"blocked".into(), &"mismatch".into()));
    let doctor = place.aldis(&["doctor", "--json"]);
    assert_eq!(doctor.code, 1, "{}", doctor.out);
    let completed = place.example("renamed_step", &[], &["wait", "inv-7"]);
    assert_eq!((completed.code, completed.out.as_str()), (0, "\"invoice 2031-07 over 700 cents: approved\"\n"));
}

#[tokio::test]
async fn a_run_that_fails_ends_with_exit_code_1() {
    let place = Place::sqlite();
    an_open_invoice(&place).await;
    place.example("renamed_step", &[], &["signal", "inv-7", "approved", "false"]);
    let failed = place.example("renamed_step", &[], &["wait", "inv-7"]);
    assert_eq!((failed.code, failed.out.as_str()), (1, ""));
    insta::assert_snapshot!(failed.err, @"run inv-7 failed: invoice 2031-07 was refused");
}

#[test]
fn a_foreign_sleep_blocks_its_run_with_the_sentence_that_names_it() {
    let place = Place::sqlite();
    let blocked = place.example("foreign_sleep", &[], &["run", "nap", "--id", "n1"]);
    assert_eq!((blocked.code, blocked.out.as_str()), (3, "n1\n"));
    insta::assert_snapshot!(blocked.err, @"run n1 is blocked: the workflow of run n1 awaits something that is not the engine's (a timer, channel or task of another runtime): inside a workflow wait with cx.sleep, cx.signal or cx.step, and do such work in a step's body");
}
