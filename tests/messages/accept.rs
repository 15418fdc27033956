//! What is taken, and what is refused in which words (section 3, 4, 14.1).

use aldis::message::{Attributes, Category, Contents, Limits, Mode, NewSignal, NewState, Part, Refused, XmlName};
use serde_json::{Value, json};

use crate::support::NOW;

fn read(value: Value) -> Result<NewSignal, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn refused(signal: &NewSignal) -> Refused {
    signal.check(&Limits::default(), &[]).unwrap_err()
}

#[test]
fn the_older_words_are_folded_into_the_four_categories_t3_11_t22_1() {
    let words = ["user", "state", "notification", "reactive", "user-message", "system-reminder"];
    let folded = words.map(|word| Category::of_word(word).map(|c| (c.word(), c.default_tag())));
    let reactive = Ok(("reactive", "system-reminder"));
    let (user, state, notification) =
        (Ok(("user", "user")), Ok(("state", "state")), Ok(("notification", "notification")));
    assert_eq!(folded, [user.clone(), state, notification, reactive.clone(), user, reactive]);
}

#[test]
fn any_other_type_is_refused_in_the_contracts_words_t3_13() {
    let sentence = "Invalid signal type: slack. Use a supported signal type and set tagName for custom XML tags.";
    assert_eq!(Category::of_word("slack").unwrap_err().to_string(), sentence);
    assert_eq!(read(json!({ "type": "slack", "contents": "x" })), Err(sentence.to_owned()));
}

#[test]
fn a_name_is_ascii_and_begins_with_a_letter_or_underscore_t3_15() {
    for name in ["a", "_", "A1_.-z"] {
        assert_eq!(XmlName::tag(name).map(|name| name.to_string()), Ok(name.to_owned()));
    }
    for text in ["", "1x", "-a", ".a", "a b", "a:b", "é", "aé", "a\n", "a>"] {
        assert!(!XmlName::is_name(text), "{text:?}");
    }
}

#[test]
fn bad_names_are_refused_at_the_door_in_every_branch_t3_16_t3_17() {
    let plain = NewSignal::user("x");
    let bad = Attributes::new().with("a b", 1);
    let cases = [
        plain.clone().tagged("1x").check(&Limits::default(), &[]),
        plain.clone().attributed(bad.clone()).check(&Limits::default(), &[]),
        plain.check(&Limits::default(), &[&Attributes::new(), &bad]),
    ];
    let said = cases.map(|case| {
        let refused = case.unwrap_err();
        assert!(refused.remedy().is_some() && !refused.is_too_large());
        format!("{}: {refused}", refused.code())
    });
    insta::assert_snapshot!(said.join("\n"), @r"
    invalid_tag_name: Invalid signal XML tag name: 1x
    invalid_attribute_name: Invalid signal XML attribute name: a b
    invalid_attribute_name: Invalid signal XML attribute name: a b
    ");
}

#[test]
fn what_is_over_a_limit_is_refused_as_too_large_t3_18() {
    let full: Attributes = (0..64).map(|n| (format!("a{n}"), n as i64)).collect();
    let long = |bytes: usize| "x".repeat(bytes);
    let mut wordy = NewSignal::user("x");
    wordy.metadata.insert("m".into(), Value::from(long(64 * 1024)));
    let fitting = NewSignal::user(long(1024 * 1024)).attributed(full.clone());
    assert_eq!(fitting.check(&Limits::default(), &[&full]), Ok(()));
    let value_fits = NewSignal::user("x").attributed(Attributes::new().with("v", long(4096)));
    assert_eq!(value_fits.check(&Limits::default(), &[]), Ok(()));
    let one_more = Attributes::new().with("one_more", 1);
    let cases = [
        refused(&NewSignal::user(long(1024 * 1024 + 1))),
        fitting.check(&Limits::default(), &[&one_more]).unwrap_err(),
        refused(&NewSignal::user("x").attributed(Attributes::new().with("v", long(4097)))),
        refused(&wordy),
    ];
    let said = cases.map(|refused| {
        assert!(refused.is_too_large());
        refused.to_string()
    });
    insta::assert_snapshot!(said.join("\n"), @"
    the contents of the signal would take 1048577 bytes, the limit is 1048576; keep large files elsewhere and pass a URL
    the signal has 65 attributes with its branch's, the limit is 64; put what the model need not see into metadata
    the attribute v of the signal would take 4097 bytes, the limit is 4096; say it in the contents
    the metadata of the signal would take 65544 bytes, the limit is 65536; keep large data elsewhere and pass a reference
    ");
}

#[test]
fn the_limits_can_be_set_t3_18() {
    let limits = Limits { contents_bytes_max: 3, ..Limits::default() };
    assert_eq!(NewSignal::user("abc").check(&limits, &[]), Ok(()));
    assert_eq!(NewSignal::user("a\nc").check(&limits, &[]).unwrap_err().code(), "too_many_bytes");
}

#[test]
fn a_state_signal_cannot_be_transient_even_if_the_flag_says_no_t3_20() {
    for flag in [true, false] {
        let signal = read(json!({ "type": "state", "contents": "x", "transient": flag })).unwrap();
        assert_eq!(refused(&signal).to_string(), "state signals cannot be transient");
        let state = NewState { transient: Some(flag), ..NewState::snapshot("browser", "k", "x") };
        assert_eq!(state.check(&Limits::default(), &[]), Err(Refused::TransientState));
    }
}

#[test]
fn a_lane_and_its_cache_key_are_required_t14_1() {
    let check = |value| serde_json::from_value::<NewState>(value).unwrap().check(&Limits::default(), &[]);
    let cases = [
        check(json!({ "contents": "x", "cacheKey": "k" })),
        check(json!({ "contents": "x", "id": "browser" })),
        check(json!({ "contents": "x", "id": "browser", "cacheKey": "" })),
    ];
    let said = cases.map(|case| case.unwrap_err().to_string());
    assert_eq!(
        said,
        ["state signal id is required", "state signal cacheKey is required", "state signal cacheKey is required"]
    );
    assert_eq!(check(json!({ "contents": "x", "id": "browser", "cacheKey": "k", "mode": "delta" })), Ok(()));
}

#[test]
fn a_state_signal_carries_its_mark_in_its_metadata_t14_2() {
    let state = NewState { value: Some(json!({ "url": "/" })), ..NewState::delta("browser", "k2", "moved") };
    assert_eq!(state.mode, Mode::Delta);
    let signal = state.accept("s9", NOW, &Attributes::new(), "t", 2);
    let wire = json!(signal);
    assert_eq!(
        wire["metadata"],
        json!({ "state": { "id": "browser", "cacheKey": "k2", "mode": "delta", "threadId": "t", "version": 2 }, "value": { "url": "/" } })
    );
    assert_eq!(serde_json::from_value::<aldis::message::ThreadSignal>(wire).unwrap(), signal);
}

#[test]
fn a_state_signal_of_the_plain_route_has_no_lane_whatever_its_metadata_claims_t3_14() {
    let forged = json!({ "type": "state", "contents": "x", "metadata": {
        "state": { "id": "browser", "cacheKey": "k", "mode": "snapshot", "threadId": "t", "version": 9 } } });
    let signal = read(forged).unwrap().accept("s1", NOW, &Attributes::new());
    assert_eq!(serde_json::from_value::<aldis::message::ThreadSignal>(json!(signal)).unwrap().state, None);
}

#[test]
fn one_plain_text_part_is_a_text_and_no_part_is_the_empty_one_t4_3_t4_4() {
    let contents = |value| serde_json::from_value::<Contents>(value).unwrap();
    assert_eq!(contents(json!([{ "type": "text", "text": "a", "providerOptions": null }])), Contents::from("a"));
    assert_eq!(contents(json!([])), Contents::from(""));
    assert_eq!(contents(json!("")), Contents::from(""));
    let kept = json!([{ "type": "text", "text": "a", "providerOptions": { "p": { "x": 1 } } }]);
    assert_eq!(json!(contents(kept.clone())), kept);
    assert_eq!(json!(Contents::Parts(vec![Part::text("a")])), json!("a"));
}

#[test]
fn what_is_no_signal_is_refused_with_what_is_wrong_t4_2_t4_4() {
    let wrong = [
        json!({ "type": "user" }),
        json!({ "type": "user", "contents": null }),
        json!({ "type": "user", "contents": [{ "type": "image", "image": "x" }] }),
        json!({ "type": "user", "contents": "x", "attributes": { "a": [1] } }),
        json!({ "type": "user", "contents": "x", "createdAt": "yesterday" }),
    ];
    let said = wrong.map(|value| read(value).unwrap_err());
    insta::assert_snapshot!(said.join("\n"), @r#"
    missing field `contents`
    invalid type: null, expected a text or a list of parts
    unknown variant `image`, expected `text` or `file`
    attribute "a": an attribute is a text, a number, a boolean or null, not a list; put it into metadata
    "yesterday" is not an instant; write it as 2026-01-02T03:04:05.000Z
    "#);
}

#[test]
fn ids_and_provider_options_have_a_form() {
    let mut odd = NewSignal::user("x");
    odd.provider_options.insert("openai".into(), json!(1));
    let cases = [read(json!({ "type": "user", "contents": "x", "id": "" })).unwrap(), odd];
    let said = cases.map(|signal| refused(&signal).to_string());
    insta::assert_snapshot!(said.join("\n"), @r#"
    signal id "" is not usable: it is empty; give 1 to 200 bytes without control characters
    the provider options for "openai" are not an object; write them as {"openai": {"option": …}}
    "#);
}

#[test]
fn the_sender_sets_id_and_time_and_the_server_the_rest_t3_1_t3_9_t3_10() {
    let own = json!({ "type": "user-message", "contents": "x", "id": "mine", "createdAt": "2026-01-01T00:00:00Z", "acceptedAt": "1999-01-01T00:00:00Z" });
    let signal = read(own).unwrap().accept("made", NOW, &Attributes::new());
    assert_eq!((signal.id.as_str(), signal.created_at.to_string().as_str()), ("mine", "2026-01-01T00:00:00.000Z"));
    assert_eq!(signal.accepted_at, NOW);
    let entered = signal.entered(NOW);
    assert_eq!((entered.created_at, entered.accepted_at), (NOW, NOW));
    assert_eq!(NewSignal::user("x").accept("made", NOW, &Attributes::new()).id, "made");
}

#[test]
fn the_digest_tells_a_repeat_from_a_contradiction_t20_4() {
    let digest = |value| read(value).unwrap().digest();
    let first = digest(json!({ "type": "user", "contents": "x", "metadata": { "a": 1, "b": { "c": 2, "d": 3 } } }));
    let same = [
        json!({ "metadata": { "b": { "d": 3, "c": 2 }, "a": 1 }, "contents": "x", "type": "user" }),
        json!({ "type": "user-message", "tagName": "user", "id": "i", "createdAt": "2026-01-01T00:00:00Z",
                "contents": [{ "type": "text", "text": "x" }], "metadata": { "a": 1, "b": { "c": 2, "d": 3 } } }),
    ];
    for value in same {
        assert_eq!(digest(value), first);
    }
    let others = [
        json!({ "type": "user", "contents": "y", "metadata": { "a": 1, "b": { "c": 2, "d": 3 } } }),
        json!({ "type": "user", "contents": "x", "metadata": { "a": 1, "b": { "c": 2, "d": 4 } } }),
        json!({ "type": "user", "contents": "x", "tagName": "t", "metadata": { "a": 1, "b": { "c": 2, "d": 3 } } }),
        json!({ "type": "user", "contents": "x", "transient": true, "metadata": { "a": 1, "b": { "c": 2, "d": 3 } } }),
    ];
    for value in others {
        assert_ne!(digest(value), first);
    }
    // Kept in stores: it may never change.
    insta::assert_snapshot!(NewSignal::user("x").digest(), @"39ab6e6c2a7ce0c8b66eea7a9af817430d372241ed280dc0c882c27d34077187");
}
