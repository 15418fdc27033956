//! Lists of threads and of their messages (section 10).

use serde_json::{Value, json};

use crate::served::Served;

fn ids(listed: &Value, what: &str) -> Vec<String> {
    let of = |it: &Value| it["id"].as_str().expect("an id").to_owned();
    listed[what].as_array().expect("a list").iter().map(of).collect()
}

/// A text as a query holds it.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Puts a note with this id into a thread.
async fn note(served: &Served, thread: &str, resource: &str, signal: Value) {
    let body = json!({
        "signal": signal, "resourceId": resource, "threadId": thread, "ifIdle": { "behavior": "persist" },
    });
    served.post("/api/agents/demo/signals", body).await.ok();
}

each_store! {
    // H10.1
    async fn threads_are_listed_newest_first_and_in_pages(kind) {
        let served = Served::start(kind).await?;
        for thread in ["t1", "t2", "t3"] {
            note(&served, thread, "ann", json!({ "type": "notification", "contents": thread })).await;
            served.kit.advance(std::time::Duration::from_secs(1)).await?;
        }
        note(&served, "t9", "bob", json!({ "type": "notification", "contents": "his" })).await;
        note(&served, "t1", "ann", json!({ "type": "notification", "contents": "more" })).await;
        let list = |query: &'static str| served.get(query);
        let all = list("/api/memory/threads?resourceId=ann&agentId=demo").await.ok();
        assert_eq!(ids(&all, "threads"), ["t3", "t2", "t1"]);
        assert_eq!(
            (&all["total"], &all["page"], &all["perPage"], &all["hasMore"]),
            (&json!(3), &json!(0), &json!(100), &json!(false))
        );
        let updated = list("/api/memory/threads?resourceId=ann&orderBy[field]=updatedAt&orderBy[direction]=DESC").await;
        assert_eq!(ids(&updated.ok(), "threads"), ["t1", "t3", "t2"]);
        let oldest = list("/api/memory/threads?resourceId=ann&orderBy=%7B%22direction%22%3A%22ASC%22%7D&perPage=2").await.ok();
        assert_eq!((ids(&oldest, "threads"), &oldest["hasMore"]), (vec!["t1".into(), "t2".into()], &json!(true)));
        let last = list("/api/memory/threads?resourceId=ann&page=1&perPage=2").await.ok();
        assert_eq!((ids(&last, "threads"), &last["hasMore"]), (vec!["t1".into()], &json!(false)));
        let none = list("/api/memory/threads?resourceId=ann&perPage=0").await.ok();
        assert_eq!((ids(&none, "threads"), &none["total"]), (vec![], &json!(3)));
        let (status, _, says) = list("/api/memory/threads?page=-1").await.refused();
        assert_eq!((status, says.as_str()), (400, "Invalid query parameters"));
        served.finish().await?;
    }

    // H10.2
    async fn a_thread_is_told_to_its_owner_only(kind) {
        let served = Served::start(kind).await?;
        note(&served, "t1", "ann", json!({ "type": "notification", "contents": "hers" })).await;
        let thread = served.get("/api/memory/threads/t1?agentId=demo&resourceId=ann").await.ok();
        assert_eq!(
            (&thread["id"], &thread["resourceId"], &thread["title"], &thread["metadata"]),
            (&json!("t1"), &json!("ann"), &json!(""), &json!(null))
        );
        assert!(thread["createdAt"].as_str().unwrap().ends_with('Z'), "{thread}");
        assert_eq!(served.get("/api/memory/threads/t1").await.ok()["id"], "t1");
        assert_eq!(served.get("/api/memory/threads/t1?resourceId=bob").await.refused().0, 403);
        let (status, _, says) = served.get("/api/memory/threads/none").await.refused();
        assert_eq!((status, says.as_str()), (404, "Thread not found"));
        served.finish().await?;
    }

    // H10.3
    async fn a_thread_is_made_and_nobody_else_takes_it_over(kind) {
        let served = Served::start(kind).await?;
        let body = json!({ "threadId": "t", "resourceId": "ann", "title": "Rent", "metadata": { "a": 1 }, "agentId": "demo" });
        let made = served.post("/api/memory/threads?agentId=demo", body).await.ok();
        assert_eq!((&made["id"], &made["resourceId"], &made["title"]), (&json!("t"), &json!("ann"), &json!("Rent")));
        assert_eq!(made["metadata"]["a"], 1);
        let again = json!({ "threadId": "t", "resourceId": "ann", "title": "Flat" });
        let again = served.post("/api/memory/threads", again).await.ok();
        assert_eq!((&again["title"], &again["metadata"]["a"]), (&json!("Flat"), &json!(1)));
        let (status, _, says) = served.post("/api/memory/threads", json!({ "threadId": "t", "resourceId": "bob" })).await.refused();
        assert_eq!((status, says.as_str()), (403, "Access denied: thread belongs to a different resource"));
        assert_eq!(served.post("/api/memory/threads", json!({ "threadId": "t2" })).await.refused().0, 400);
        let unnamed = served.post("/api/memory/threads", json!({ "resourceId": "ann" })).await.ok();
        assert!(!unnamed["id"].as_str().unwrap().is_empty());
        assert_eq!(served.get("/api/memory/threads?resourceId=ann").await.ok()["total"], 2);
        served.finish().await?;
    }

    // H10.4, H10.5
    async fn a_thread_is_changed_and_deleted_with_its_messages(kind) {
        let served = Served::start(kind).await?;
        note(&served, "t", "ann", json!({ "type": "notification", "contents": "old" })).await;
        let path = "/api/memory/threads/t";
        let changed = served.patch(path, json!({ "title": "Rent", "metadata": { "b": 2 } })).await.ok();
        assert_eq!((&changed["title"], &changed["metadata"]["b"]), (&json!("Rent"), &json!(2)));
        assert_eq!(served.patch(path, json!({ "metadata": { "c": 3 } })).await.ok()["metadata"], json!({ "c": 3 }));
        assert_eq!(served.patch(path, json!({ "title": "x", "resourceId": "bob" })).await.refused().0, 403);
        assert_eq!(served.patch("/api/memory/threads/none", json!({ "title": "x" })).await.refused().0, 404);
        assert_eq!(served.delete(&format!("{path}?resourceId=bob")).await.refused().0, 403);
        assert_eq!(served.delete(&format!("{path}?agentId=demo")).await.ok(), json!({ "result": "Thread deleted" }));
        let (status, _, says) = served.delete(path).await.refused();
        assert_eq!((status, says.as_str()), (404, "Thread not found"));
        note(&served, "t", "ann", json!({ "type": "notification", "contents": "new" })).await;
        assert_eq!(served.get(&format!("{path}/messages")).await.ok()["total"], 1);
        served.finish().await?;
    }

    // H10.6, trap 8
    async fn the_first_page_of_messages_is_the_newest_and_its_oldest_comes_first(kind) {
        let served = Served::start(kind).await?;
        for n in 1..=5 {
            let signal = json!({ "id": format!("s{n}"), "type": "notification", "contents": n.to_string() });
            note(&served, "t", "ann", signal).await;
        }
        let reminder = json!({ "id": "r1", "type": "reactive", "contents": "hidden" });
        note(&served, "t", "ann", reminder).await;
        let path = "/api/memory/threads/t/messages";
        let newest = served.get(&format!("{path}?perPage=2")).await.ok();
        assert_eq!((ids(&newest, "messages"), &newest["total"], &newest["hasMore"]), (vec!["s4".into(), "s5".into()], &json!(5), &json!(true)));
        let before = served.get(&format!("{path}?perPage=2&page=2")).await.ok();
        assert_eq!((ids(&before, "messages"), &before["hasMore"]), (vec!["s1".into()], &json!(false)));
        let oldest = served.get(&format!("{path}?perPage=2&orderBy=%7B%22field%22%3A%22createdAt%22%2C%22direction%22%3A%22ASC%22%7D")).await;
        assert_eq!(ids(&oldest.ok(), "messages"), ["s1", "s2"]);
        // T6.9
        let all = served.get(&format!("{path}?includeSystemReminders=true")).await.ok();
        assert_eq!((ids(&all, "messages").last().cloned(), &all["total"]), (Some("r1".into()), &json!(6)));
        let include = "%5B%7B%22id%22%3A%22s2%22%2C%22withPreviousMessages%22%3A1%7D%5D";
        let around = served.get(&format!("{path}?perPage=1&include={include}")).await.ok();
        assert_eq!(ids(&around, "messages"), ["s1", "s2", "s5"]);
        assert_eq!(all["uiMessages"], json!(null));
        assert_eq!(served.get(&format!("{path}?resourceId=bob")).await.refused().0, 403);
        assert_eq!(served.get("/api/memory/threads/none/messages").await.refused().0, 404);
        served.finish().await?;
    }

    async fn messages_are_filtered_by_time(kind) {
        let served = Served::start(kind).await?;
        note(&served, "t", "ann", json!({ "id": "s1", "type": "notification", "contents": "a\u{0}b" })).await;
        let early = served.kit.now().to_string();
        served.kit.advance(std::time::Duration::from_secs(60)).await?;
        served.say("Hello").await?;
        let path = "/api/memory/threads/t/messages";
        let until = served.get(&format!("{path}?filter=%7B%22dateRange%22%3A%7B%22end%22%3A%22{early}%22%7D%7D")).await;
        assert_eq!(ids(&until.ok(), "messages"), ["s1"]);
        let after = format!("{path}?filter=%7B%22dateRange%22%3A%7B%22start%22%3A%22{early}%22,%22startExclusive%22%3Atrue%7D%7D");
        assert_eq!(served.get(&after).await.ok()["total"], 2);
        let bad = served.get(&format!("{path}?filter=%7B%22dateRange%22%3A%7B%22end%22%3A%22noon%22%7D%7D")).await;
        assert_eq!(bad.json()["issues"][0]["field"], "filter.dateRange.end");
        served.finish().await?;
    }

    // H10.6
    async fn messages_are_found_by_their_metadata(kind) {
        let served = Served::start(kind).await?;
        for (id, metadata) in [("s1", json!({ "a": 1, "b": "x" })), ("s2", json!({ "a": 2 })), ("s3", json!({ "a": 1 }))] {
            // Texts may hold what databases cannot look into.
            let contents = format!("a \u{0}zero and a \\\u{0} {id}");
            let signal = json!({ "id": id, "type": "notification", "contents": contents, "metadata": metadata });
            note(&served, "t", "ann", signal).await;
        }
        let said = json!({ "id": "m1", "role": "user", "content": "Hello", "metadata": { "a": 1, "n": null } });
        let memory = json!({ "thread": "t", "resource": "ann" });
        served.post("/api/agents/demo/generate", json!({ "messages": [said], "memory": memory })).await.ok();
        let found = async |wanted: Value| {
            let filter = json!({ "metadata": wanted }).to_string();
            let path = format!("/api/memory/threads/t/messages?filter={}", encoded(&filter));
            let listed = served.get(&path).await.ok();
            assert_eq!(listed["total"], ids(&listed, "messages").len());
            ids(&listed, "messages")
        };
        assert_eq!(found(json!({ "a": 1 })).await, ["s1", "s3", "m1"]);
        assert_eq!(found(json!({ "a": 1, "b": "x" })).await, ["s1"]);
        assert_eq!(found(json!({ "n": null })).await, ["m1"]);
        assert_eq!(found(json!({ "a": "1" })).await, Vec::<String>::new());
        // Of an answer: who has made it.
        assert_eq!(found(json!({ "provider": "offline" })).await.len(), 1);
        let nested = json!({ "metadata": { "a": { "b": 1 } } }).to_string();
        let refused = served.get(&format!("/api/memory/threads/t/messages?filter={}", encoded(&nested))).await;
        assert_eq!(refused.json()["issues"][0]["field"], "filter.metadata");
        served.finish().await?;
    }

    // H10.6
    async fn messages_of_another_thread_of_the_owner_are_included(kind) {
        let served = Served::start(kind).await?;
        for (thread, resource, id) in [("t1", "ann", "a1"), ("t2", "ann", "b1"), ("t1", "ann", "a2"), ("t2", "ann", "b2"), ("t3", "bob", "c1")] {
            note(&served, thread, resource, json!({ "id": id, "type": "notification", "contents": id })).await;
            served.kit.advance(std::time::Duration::from_secs(1)).await?;
        }
        let including = async |include: Value| {
            let path = format!("/api/memory/threads/t1/messages?perPage=1&include={}", encoded(&include.to_string()));
            served.get(&path).await
        };
        let listed = including(json!([{ "id": "b1", "threadId": "t2", "withNextMessages": 1 }, { "id": "a1" }])).await.ok();
        assert_eq!(ids(&listed, "messages"), ["a1", "b1", "a2", "b2"]);
        assert_eq!((&listed["total"], &listed["messages"][1]["threadId"]), (&json!(2), &json!("t2")));
        let nowhere = including(json!([{ "id": "x", "threadId": "none" }])).await.ok();
        assert_eq!(ids(&nowhere, "messages"), ["a2"]);
        let foreign = including(json!([{ "id": "c1", "threadId": "t3" }])).await.refused();
        assert_eq!((foreign.0, foreign.1.as_str()), (403, "thread_foreign"));
        served.finish().await?;
    }

    // H10.7
    async fn messages_are_deleted_by_their_ids_alone(kind) {
        let served = Served::start(kind).await?;
        for (thread, resource, id) in [("t1", "ann", "a1"), ("t1", "ann", "a2"), ("t2", "ann", "b1"), ("t2", "ann", "b2"), ("t3", "bob", "c1")] {
            note(&served, thread, resource, json!({ "id": id, "type": "notification", "contents": id })).await;
        }
        let delete = async |body: Value| served.post("/api/memory/messages/delete?agentId=demo", body).await;
        let told = |message: &str| json!({ "success": true, "message": message });
        assert_eq!(delete(json!({ "messageIds": "a1" })).await.ok(), told("1 message deleted successfully"));
        assert_eq!(delete(json!({ "messageIds": "a1" })).await.ok(), told("0 messages deleted successfully"));
        let several = json!({ "messageIds": ["a2", { "id": "b1" }, "b1", "none"] });
        assert_eq!(delete(several).await.ok(), told("2 messages deleted successfully"));
        assert_eq!(delete(json!({ "messageIds": { "id": "c1" } })).await.ok(), told("1 message deleted successfully"));
        for (thread, left) in [("t1", vec![]), ("t2", vec!["b2"]), ("t3", vec![])] {
            let listed = served.get(&format!("/api/memory/threads/{thread}/messages")).await.ok();
            assert_eq!(ids(&listed, "messages"), left);
        }
        assert_eq!(delete(json!({ "messageIds": [] })).await.json()["issues"][0]["field"], "messageIds");
        assert_eq!(delete(json!({})).await.refused().0, 400);
        served.finish().await?;
    }

    // H10.7: the wire names no thread, and ids are unique per thread only.
    async fn a_message_that_could_be_one_of_two_is_not_deleted(kind) {
        let served = Served::start(kind).await?;
        for (thread, resource) in [("t1", "ann"), ("t2", "bob")] {
            note(&served, thread, resource, json!({ "id": "same", "type": "notification", "contents": "x" })).await;
        }
        let delete = async |body: Value| served.post("/api/memory/messages/delete", body).await;
        let refused = delete(json!({ "messageIds": "same" })).await.refused();
        assert_eq!((refused.0, refused.1.as_str()), (409, "message_ambiguous"));
        delete(json!({ "messageIds": "same", "threadId": "t1" })).await.ok();
        assert_eq!(served.get("/api/memory/threads/t1/messages").await.ok()["total"], 0);
        assert_eq!(served.get("/api/memory/threads/t2/messages").await.ok()["total"], 1);
        served.finish().await?;
    }

    // H10.6: the forms of rows.
    async fn an_answer_with_a_call_is_one_row(kind) {
        let served = Served::start(kind).await?;
        served.say("/call add {\"a\":1,\"b\":2}").await?;
        let listed = served.get("/api/memory/threads/t/messages").await.ok();
        let row = &listed["messages"][1];
        assert_eq!((&row["role"], &row["threadId"], &row["resourceId"]), (&json!("assistant"), &json!("t"), &json!("ann")));
        let call = row["content"]["parts"].as_array().unwrap().iter().find(|it| it["type"] == "tool-invocation").unwrap();
        let call = &call["toolInvocation"];
        assert_eq!((&call["state"], &call["toolName"], &call["result"]), (&json!("result"), &json!("add"), &json!(3)));
        assert_eq!(row["content"]["metadata"], json!({ "modelId": "offline", "provider": "offline" }));
        served.finish().await?;
    }
}
