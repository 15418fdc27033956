use std::sync::Arc;

use aldis::agent::model::{Deltas, ModelError, Models};
use aldis::failure::{Failure, Fault, Retry};

use crate::support::{Waiting, asking};

fn models() -> Models {
    Models::new().with(Arc::new(Waiting::default())).named("fast", "waiting/small").named("try", "offline")
}

fn refused(name: &str) -> ModelError {
    models().resolve(name).expect_err("no such model")
}

#[tokio::test]
async fn a_model_is_found_by_its_name() {
    let found = |name: &str| {
        let found = models().resolve(name).expect("a model");
        (found.model.name().to_owned(), found.id)
    };
    assert_eq!(found("offline"), ("offline".to_owned(), "offline".to_owned()));
    assert_eq!(found("waiting/maker/large"), ("waiting".to_owned(), "maker/large".to_owned()));
    assert_eq!(found("fast"), ("waiting".to_owned(), "small".to_owned()));
    let reply =
        models().resolve("try").expect("a model").ask(asking("hello"), &Deltas::ignored()).await.expect("an answer");
    assert_eq!((reply.text().as_str(), reply.model_id.as_str()), ("hello", "offline"));
}

#[test]
fn a_name_that_is_not_known_is_answered_with_the_nearest_that_is() {
    insta::assert_snapshot!(refused("ofline"), @r#"no model named "ofline", did you mean "offline"?; known: fast, try, offline, waiting/…"#);
    insta::assert_snapshot!(refused("wating/small"), @r#"no model named "wating/small", did you mean "waiting/small"?; known: fast, try, offline, waiting/…"#);
    insta::assert_snapshot!(refused("waiting"), @r#"no model named "waiting", did you mean "waiting/MODEL"?; known: fast, try, offline, waiting/…"#);
    insta::assert_snapshot!(refused("zzz"), @r#"no model named "zzz"; known: fast, try, offline, waiting/…"#);
    assert_eq!(refused("zzz").retry(), Retry::Never);
}

#[test]
fn an_error_survives_the_journal_with_its_code() {
    let error = refused("zzz");
    let failure = error.clone().into_failure();
    assert_eq!((failure.code.as_deref(), failure.retry), (Some("model_unknown"), Retry::Never));
    let line = serde_json::to_string(&failure).expect("JSON");
    let back: Failure = serde_json::from_str(&line).expect("a failure");
    assert_eq!(ModelError::from_failure(back).expect("the same error"), error);
}
