//! Workflows over HTTP (section 11): the refund, from its start over its approval to its end.

use aldis::testing::Error;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::served::{Served, types};

const FLOW: &str = "/api/workflows/refund";

fn order(ledger: &TempDir) -> Value {
    json!({ "order": "A-1", "amount_cents": 4200, "customer": "ann", "ledger": ledger.path().join("ledger.jsonl") })
}

fn approval(by: &str) -> Value {
    json!({ "step": "approval", "resumeData": { "approved": true, "by": by } })
}

/// A refund under this id, which waits for its approval.
async fn waiting(served: &Served, run: &str) -> Result<TempDir, Error> {
    let ledger = tempfile::tempdir().expect("a folder");
    let body = json!({ "inputData": order(&ledger) });
    let answer = served.post(&format!("{FLOW}/start-async?runId={run}"), body).await.ok();
    assert_eq!(answer["status"], "suspended", "{answer}");
    Ok(ledger)
}

/// What a stream of records says, read to its end (H3.6).
async fn records(served: &Served, path: &str, body: Value) -> Vec<Value> {
    let answer = served.post(path, body).await;
    assert_eq!((answer.status.as_u16(), &answer.headers["content-type"]), (200, &"text/plain".parse().unwrap()));
    let records = answer.text.split_terminator('\u{1e}');
    records.map(|record| serde_json::from_str(record).unwrap_or_else(|e| panic!("{e}: {record:?}"))).collect()
}

each_store! {
    async fn a_ledger_that_is_none_is_refused_and_no_file_is_made(kind) {
        let served = Served::start(kind).await?;
        let folder = tempfile::tempdir().expect("a folder");
        let mut order = order(&folder);
        order["ledger"] = json!(folder.path().join("authorized_keys"));
        let answer = served.post(&format!("{FLOW}/start-async"), json!({ "inputData": order })).await;
        assert_eq!((answer.status.as_u16(), answer.text.contains("ledger")), (400, true), "{}", answer.text);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
        served.finish().await?;
    }

    // H11.1
    async fn workflows_are_described_by_their_names_without_the_turns_of_agents(kind) {
        let served = Served::start(kind).await?;
        let all = served.get("/api/workflows").await.ok();
        let refund = served.get(FLOW).await.ok();
        assert_eq!(all["refund"], refund);
        assert!(all.as_object().unwrap().keys().all(|name| !name.starts_with("turn:")), "{all}");
        let schema: Value = serde_json::from_str(refund["inputSchema"].as_str().unwrap()).unwrap();
        assert_eq!(schema["json"]["properties"]["amount_cents"]["minimum"], 1);
        assert!(refund["steps"]["approval"]["resumeSchema"].as_str().unwrap().contains("approved"));
        for unknown in ["/api/workflows/none", "/api/workflows/turn:demo"] {
            let refused = served.get(unknown).await.refused();
            assert_eq!((refused.0, refused.2.as_str()), (404, "Workflow not found"));
        }
        served.finish().await?;
    }

    // H11.2
    async fn a_result_comes_when_the_run_is_suspended_and_again_when_it_ends(kind) {
        let served = Served::start(kind).await?;
        let ledger = tempfile::tempdir().expect("a folder");
        let created = served.post(&format!("{FLOW}/create-run?runId=r-1"), json!({})).await.ok();
        assert_eq!(created, json!({ "runId": "r-1" }));
        assert_eq!(served.get(&format!("{FLOW}/runs/r-1")).await.refused().2, "Workflow run not found");
        let body = json!({ "inputData": order(&ledger) });
        let rests = served.post(&format!("{FLOW}/start-async?runId=r-1"), body).await.ok();
        assert_eq!((&rests["status"], &rests["suspended"]), (&json!("suspended"), &json!([["approval"]])));
        assert_eq!((&rests["input"], &rests["steps"]["input"]), (&order(&ledger), &order(&ledger)));
        assert_eq!(rests["steps"]["charge"]["status"], "success");
        assert_eq!(rests["suspendPayload"]["approval"], json!({ "kind": "signal", "name": "approval" }));
        let ended = served.post(&format!("{FLOW}/resume-async?runId=r-1"), approval("ann")).await.ok();
        assert_eq!((&ended["status"], &ended["runId"]), (&json!("success"), &json!("r-1")));
        assert_eq!(ended["result"], json!({ "paid": true, "decided_by": "ann" }));
        assert_eq!(ended["steps"]["approval"]["output"], approval("ann")["resumeData"]);
        assert!(ended["steps"]["notify"]["endedAt"].is_i64(), "{ended}");
        served.finish().await?;
    }

    // H13.1: a start that is sent again.
    async fn a_run_is_begun_once_under_its_id_while_it_is_open_and_after_its_end(kind) {
        let served = Served::start(kind).await?;
        let ledger = waiting(&served, "r-1").await?;
        let start = format!("{FLOW}/start?runId=r-1");
        let same = json!({ "inputData": order(&ledger) });
        let mut other = same.clone();
        other["inputData"]["order"] = json!("A-2");
        for resumed in [false, true] {
            if resumed {
                served.post(&format!("{FLOW}/resume-async?runId=r-1"), approval("ann")).await.ok();
            }
            assert_eq!(served.post(&start, same.clone()).await.ok(), json!({ "message": "Workflow run started" }));
            let refused = served.post(&start, other.clone()).await.refused();
            assert_eq!((refused.0, refused.1.as_str()), (409, "run_id_in_use"));
        }
        assert_eq!(served.get(&format!("{FLOW}/runs")).await.ok()["total"], 1);
        assert_eq!(served.post(&format!("{FLOW}/start"), same).await.refused().0, 400);
        assert_eq!(served.post(&format!("{FLOW}/start?runId=r-2"), json!({})).await.refused().1, "payload_invalid");
        served.finish().await?;
    }

    // H11.5
    async fn a_run_is_resumed_once_and_only_while_it_waits_for_that(kind) {
        let served = Served::start(kind).await?;
        let _ledger = waiting(&served, "r-1").await?;
        let resume = format!("{FLOW}/resume?runId=r-1");
        let refused = served.post(&resume, json!({ "step": "charge", "resumeData": {} })).await.refused();
        assert_eq!((refused.0, refused.1.as_str()), (409, "run_not_suspended"));
        assert_eq!(served.post(&resume, json!({ "resumeData": { "by": 1 } })).await.refused().1, "payload_invalid");
        let no_wait = format!("{FLOW}/resume-no-wait?runId=r-1");
        // The only thing that it waits for need not be named.
        let unnamed = json!({ "resumeData": approval("ann")["resumeData"] });
        assert_eq!(served.post_keyed(&no_wait, "k", unnamed.clone()).await.ok(), json!({ "runId": "r-1" }));
        served.kit.settle().await?;
        assert_eq!(served.post(&resume, approval("bob")).await.refused().0, 409);
        // The same again, by its key, is what was done.
        assert_eq!(served.post_keyed(&no_wait, "k", unnamed).await.ok(), json!({ "runId": "r-1" }));
        let run = served.get(&format!("{FLOW}/runs/r-1?fields=result")).await.ok();
        assert_eq!((&run["status"], &run["result"]["decided_by"]), (&json!("success"), &json!("ann")));
        assert!(run.get("steps").is_none(), "{run}");
        assert_eq!(served.get(&format!("{FLOW}/runs/r-1?fields=colour")).await.refused().0, 400);
        served.finish().await?;
    }

    // H3.6, H11.4
    async fn records_are_streamed_until_the_run_waits_and_observed_from_any_offset(kind) {
        let served = Served::start(kind).await?;
        let ledger = tempfile::tempdir().expect("a folder");
        let body = json!({ "inputData": order(&ledger) });
        let first = records(&served, &format!("{FLOW}/stream?runId=r-1"), body).await;
        assert_eq!(
            types(&first),
            [
                "workflow-start",
                "workflow-step-start",
                "workflow-step-result",
                "workflow-step-finish",
                "workflow-step-start",
                "workflow-step-suspended",
            ]
        );
        assert!(first.iter().all(|record| record["runId"] == "r-1" && record["from"] == "WORKFLOW"), "{first:?}");
        assert_eq!((&first[2]["payload"]["id"], &first[2]["payload"]["status"]), (&json!("charge"), &json!("success")));
        let rest = records(&served, &format!("{FLOW}/resume-stream?runId=r-1"), approval("ann")).await;
        assert_eq!(rest[0]["payload"]["output"], approval("ann")["resumeData"]);
        assert_eq!(rest.last().unwrap()["payload"]["workflowStatus"], "success");
        let all = [first, rest].concat();
        assert_eq!(records(&served, &format!("{FLOW}/observe?runId=r-1"), json!({})).await, all);
        assert_eq!(records(&served, &format!("{FLOW}/observe?runId=r-1&offset=4"), json!({})).await, all[4..]);
        assert_eq!(served.post(&format!("{FLOW}/observe?runId=none"), json!({})).await.refused().0, 404);
        served.finish().await?;
    }

    // H11.3
    async fn runs_are_cancelled_and_listed_by_how_they_stand(kind) {
        let served = Served::start(kind).await?;
        let _first = waiting(&served, "r-1").await?;
        let _second = waiting(&served, "r-2").await?;
        let cancel = format!("{FLOW}/runs/r-1/cancel");
        assert_eq!(served.post(&cancel, json!({})).await.ok(), json!({ "message": "Workflow run cancelled" }));
        served.kit.settle().await?;
        let seen = records(&served, &format!("{FLOW}/observe?runId=r-1"), json!({})).await;
        assert!(types(&seen).contains(&"workflow-canceled"), "{seen:?}");
        let list = async |query: &str| served.get(&format!("{FLOW}/runs?{query}")).await.ok();
        for (query, expected) in [
            ("perPage=1&page=1", json!(["r-1"])),
            ("limit=false&offset=1", json!(["r-1"])),
            ("status=canceled", json!(["r-1"])),
            ("status=suspended", json!(["r-2"])),
            ("status=waiting", json!([])),
            ("toDate=2001-01-01T00:00:00.000Z", json!([])),
            ("resourceId=ann", json!([])),
            ("", json!(["r-2", "r-1"])),
        ] {
            let listed = list(query).await;
            let ids: Value = listed["runs"].as_array().unwrap().iter().map(|run| run["runId"].clone()).collect();
            assert_eq!(ids, expected, "{query}: {listed}");
        }
        assert_eq!(list("perPage=1&page=1").await["total"], 2);
        assert_eq!(list("status=suspended").await["runs"][0]["snapshot"]["status"], "suspended");
        assert_eq!(served.get(&format!("{FLOW}/runs?status=lost")).await.refused().0, 400);
        served.finish().await?;
    }
}
