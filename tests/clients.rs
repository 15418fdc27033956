//! The clients people already have, against the real program: the Node suite in `tests/clients/`, with the npm packages that
//! its lock file names. Every test of it starts a server of its own on a free port of 127.0.0.1.
#![cfg(all(feature = "server", feature = "cli"))]

use std::path::Path;
use std::process::Command;

/// Runs one file of the suite.
fn passes(file: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    assert!(
        folder.join("node_modules").exists(),
        "the packages are not installed; run `npm ci` in tests/clients, as .ci/test does"
    );
    let mut node = Command::new("node");
    node.current_dir(folder).args(["--test", "--test-reporter=spec", file]);
    let done = node.env("ALDIS", env!("CARGO_BIN_EXE_aldis")).env("ALDIS_LOG", "off").output();
    let done = done.expect("Node 20 or newer is installed");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{file} has failed:\n{out}\n{err}");
}

#[test]
fn the_signals_page_works_through_the_stock_client() {
    passes("threads.test.js");
}

#[test]
fn generate_and_stream_work_through_the_stock_client() {
    passes("generate.test.js");
}

#[test]
fn refusals_reach_the_stock_client() {
    passes("errors.test.js");
}

#[test]
fn a_kill_in_the_middle_of_a_stream_loses_and_doubles_nothing() {
    passes("kill.test.js");
}
