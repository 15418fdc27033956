use aldis::store::Declared;

use crate::support::*;

fn declared(workflow: &str, version: u32, input: &str) -> Declared {
    Declared {
        workflow: workflow.into(),
        version,
        input: json(input),
        output: json("true"),
        signals: json(r#"{"approval":{"kind":"signal","schema":{"type":"object"}}}"#),
    }
}

each_store! {
    async fn declared_workflows_are_known_with_their_schemas(store) {
        assert_eq!(store.declared().await.unwrap(), []);
        let (one, two) = (declared("report", 1, "{}"), declared("order", 2, r#"{"type":"string"}"#));
        store.declare(&[one.clone(), two.clone()], at(10)).await.unwrap();
        assert_eq!(store.declared().await.unwrap(), [two, one]);
    }

    async fn declaring_again_brings_the_schemas_up_to_date(store) {
        store.declare(&[declared("order", 1, "{}"), declared("order", 2, "{}")], at(10)).await.unwrap();
        store.declare(&[declared("order", 2, "true")], at(20)).await.unwrap();
        store.declare(&[], at(30)).await.unwrap();
        assert_eq!(store.declared().await.unwrap(), [declared("order", 1, "{}"), declared("order", 2, "true")]);
    }
}
