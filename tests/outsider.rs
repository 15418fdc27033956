//! The workflows that come with Aldis, compiled as a stranger's: here `aldis` is a foreign crate, so one that reaches for
//! an internal does not compile.

#[path = "../workflows/mod.rs"]
#[allow(dead_code, reason = "it is enough that they compile")]
mod workflows;

#[test]
fn every_workflow_is_written_with_the_public_face_alone() {
    let tags: Vec<String> =
        workflows::all().into_iter().map(|workflow| aldis::workflow::Definition::from(workflow).tag()).collect();
    let registry = aldis::workflow::Registry::new(workflows::all()).expect("they can be registered together");
    assert_eq!(registry.tags(), tags);
}
