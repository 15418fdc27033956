//! What the program says when it refuses, and that it says it with exit code 2.

use crate::support::Place;

/// What is told on standard error, without the place's own names.
fn refused(place: &Place, args: &[&str]) -> String {
    let done = place.aldis(args);
    assert_eq!(done.code, 2, "{done:?}");
    let folder = place.folder.path().display().to_string();
    done.err.trim_end().replace(&place.store, "STORE").replace(&folder, "FOLDER")
}

#[test]
fn looking_at_a_store_that_is_not_there_makes_none() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["runs"]), @"aldis: the store at STORE cannot be reached: error returned from database: (code: 14) unable to open database file; `aldis run`, `aldis work` and `aldis migrate` make a store where there is none");
    assert!(!place.folder.path().join("aldis.db").exists());
}

#[test]
fn a_mistyped_workflow_is_refused_with_the_nearest_name() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["run", "refnud"]), @r#"aldis: no workflow named "refnud" is registered; registered: refund v1, turn:demo v1; did you mean "refund"?"#);
}

#[test]
fn an_input_that_does_not_match_is_refused() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["run", "refund"]), @r#"aldis: the input of workflow "refund" does not match its schema: the value: value is not of type "object""#);
    insta::assert_snapshot!(place.aldis(&["runs"]).out, @"RUN  WORKFLOW  STATUS  EVENTS  CREATED  CHANGED");
}

#[test]
fn an_input_that_is_not_json_is_refused() {
    let place = Place::sqlite();
    std::fs::write(place.folder.path().join("in.json"), "{").unwrap();
    insta::assert_snapshot!(refused(&place, &["run", "refund", "--input", "in.json"]), @"aldis: the input in in.json is not one JSON value: EOF while parsing an object at line 1 column 1");
}

#[test]
fn an_input_file_that_is_not_there_is_named() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["run", "refund", "--input", "none.json"]), @"aldis: the input cannot be read from none.json: No such file or directory (os error 2)");
}

#[test]
fn an_id_with_a_slash_is_refused() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["run", "refund", "--id", "a/b", "--input", &place.order(0)]), @r#"aldis: run id "a/b" is not usable: it holds a character that ids may not have; an id has 1 to 200 bytes and none of / ? #, spaces or control characters"#);
}

#[test]
fn an_open_id_is_refused_and_says_what_else_can_be_asked() {
    let place = Place::sqlite();
    let order = place.order(3_600);
    place.aldis(&["run", "refund", "--input", &order, "--id", "r1", "--detach"]);
    insta::assert_snapshot!(refused(&place, &["run", "refund", "--input", &order, "--id", "r1", "--detach"]), @"aldis: run r1 is open (due); choose another id, or ask to use the existing run; `aldis wait` waits for that run");
}

#[test]
fn an_unknown_run_is_named() {
    let place = Place::sqlite();
    place.aldis(&["migrate"]);
    insta::assert_snapshot!(refused(&place, &["show", "r7"]), @"aldis: no run r7 here; see `aldis runs`");
}

#[test]
fn a_signal_that_is_not_json_is_refused() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["signal", "r1", "approval", "yes"]), @r#"aldis: the value "yes" is not JSON: expected value at line 1 column 1; a text is written '"so"'"#);
}

#[test]
fn a_signal_that_does_not_match_is_refused() {
    let place = Place::sqlite();
    place.aldis(&["run", "refund", "--input", &place.order(3_600), "--id", "r1", "--detach"]);
    insta::assert_snapshot!(refused(&place, &["signal", "r1", "approval", "true"]), @r#"aldis: signal "approval" of workflow "refund" does not match its schema: the value: value is not of type "object""#);
}

#[test]
fn a_signal_to_a_run_that_has_ended_is_refused() {
    let place = Place::sqlite();
    place.aldis(&["run", "refund", "--input", &place.order(0), "--id", "r1"]);
    let send = ["signal", "r1", "approval", r#"{"approved":true,"by":"ana"}"#];
    insta::assert_snapshot!(refused(&place, &send), @"aldis: run r1 is completed and takes no more signals");
}

#[tokio::test]
async fn a_second_engine_on_one_file_is_refused_in_words() {
    let place = Place::sqlite();
    let worker = place.begin(&["work"]);
    insta::assert_snapshot!(refused(&place, &["work"]), @"aldis: another process advances the runs of STORE; signals and reads work beside it, and --standby waits until it ends");
    assert_eq!(worker.stop(), 0);
}

#[test]
fn a_store_of_an_unknown_kind_is_refused_without_its_password() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["runs", "--store", "mysql://me:secret@host/db"]), @r#"aldis: "mysql://me@host/db" is no store that this build can open; write sqlite://path/to/file.db or postgres://user@host/database"#);
}

#[test]
fn a_span_that_cannot_be_read_is_refused() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["run", "refund", "--deadline", "soon"]), @r#"
    error: invalid value 'soon' for '--deadline <WHEN>': "soon" is no time; write a span such as 90s or 2h, or 2030-01-31T12:00:00Z

    For more information, try '--help'.
    "#);
}

#[test]
fn machines_are_told_errors_as_one_object() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["run", "refnud", "--json"]), @r#"{"error":"no workflow named \"refnud\" is registered; registered: refund v1, turn:demo v1; did you mean \"refund\"?","code":"workflow_unknown"}"#);
    insta::assert_snapshot!(refused(&place, &["shwo", "--json"]), @r#"{"error":"unrecognized subcommand 'shwo'; tip: a similar subcommand exists: 'show'","code":"usage"}"#);
}

#[test]
fn an_import_that_is_no_export_is_refused_with_its_line() {
    let place = Place::sqlite();
    std::fs::write(place.folder.path().join("e.jsonl"), "{\"hello\":1}\n").unwrap();
    insta::assert_snapshot!(refused(&place, &["import", "e.jsonl"]), @"aldis: line 1 of the import cannot be used: missing field `aldis_export` at line 1 column 11; expected what `aldis export` writes");
}

#[test]
fn a_bench_of_nothing_is_refused() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["bench", "seq", "--runs", "0"]), @"aldis: --runs is 0: there is nothing to measure; give at least 1");
}

#[cfg(feature = "server")]
#[test]
fn an_address_that_others_can_reach_needs_keys() {
    let place = Place::sqlite();
    insta::assert_snapshot!(refused(&place, &["serve", "--listen", "0.0.0.0:0"]), @"aldis: 0.0.0.0:0 can be reached from other machines, and nobody would have to prove who they are; make a key first (`aldis keys create NAME`), have tokens checked (`--jwt-keys`), or listen on 127.0.0.1");
    let made = place.aldis(&["keys", "create", "phone", "--resource", "ann", "--json"]).json().remove(0);
    let secret = made["key"].as_str().unwrap();
    let listed = place.aldis(&["keys", "list", "--json"]);
    assert_eq!(listed.json()[0]["id"], made["id"]);
    assert!(!listed.out.contains(secret), "{listed:?}");
    let going = place.begin(&["serve", "--listen", "0.0.0.0:0"]);
    assert!(going.first.ends_with("to those who have a key"), "{}", going.first);
    assert_eq!(going.stop(), 0);
    assert_eq!(place.aldis(&["keys", "revoke", made["id"].as_str().unwrap()]).code, 0);
    insta::assert_snapshot!(refused(&place, &["keys", "revoke", "none"]), @r#"aldis: there is no key "none"; see `aldis keys list`"#);
}

#[cfg(feature = "server")]
#[test]
fn tokens_that_could_be_made_by_anybody_are_refused() {
    let place = Place::sqlite();
    let file = |name: &str, text: &str| std::fs::write(place.folder.path().join(name), text).unwrap();
    file("secret", "too-short\n");
    file("keys.json", "{}");
    insta::assert_snapshot!(refused(&place, &["serve", "--jwt-secret-file", "secret"]), @"aldis: the secret has 9 bytes; one for HS256 has at least 32, made by chance (`openssl rand -hex 32`)");
    insta::assert_snapshot!(refused(&place, &["serve", "--jwt-secret-file", "none"]), @"aldis: the secret in none cannot be read: No such file or directory (os error 2)");
    insta::assert_snapshot!(refused(&place, &["serve", "--jwt-keys", "keys.json"]), @"aldis: keys.json is no JSON Web Key Set: expected an object with a list `keys`");
    insta::assert_snapshot!(refused(&place, &["serve", "--jwt-keys", "none"]), @"aldis: the keys in none cannot be read: No such file or directory (os error 2)");
    let both = place.aldis_under(
        &[("ALDIS_JWT_SECRET", "a-secret-of-thirty-two-bytes-or-more")],
        &["serve", "--jwt-keys", "keys.json"],
    );
    assert_eq!(both.code, 2, "{both:?}");
    insta::assert_snapshot!(both.err.trim_end(), @"aldis: tokens are signed in one way: --jwt-keys, --jwt-secret-file or ALDIS_JWT_SECRET, not several");
}

#[cfg(feature = "server")]
#[test]
fn a_server_of_tokens_can_be_reached_without_a_key() {
    let place = Place::sqlite();
    std::fs::write(place.folder.path().join("secret"), "a-secret-of-thirty-two-bytes-or-more\n").unwrap();
    let going = place.begin(&["serve", "--listen", "0.0.0.0:0", "--jwt-secret-file", "secret"]);
    assert!(going.first.ends_with("to those who have a key or a token"), "{}", going.first);
    assert_eq!(going.stop(), 0);
}
