use super::*;

/// A complete intent that admission accepts.
pub(crate) fn sample() -> Value {
    json!({
        "schema_version": SCHEMA_VERSION, "request_id": "request.001", "intent_kind": "dataset_build", "platform_run_id": "platform_20260210T122800Z",
        "scenario_run_ids": ["b", "a", "b"],
        "replay_basis": [{"topic": "t", "partition": 0, "offset_kind": "kafka_offset", "start_offset": "0", "end_offset": "9"}],
        "label_basis": {"label_asof_utc": "2026-02-10T10:00:00Z", "resolution_rule": RESOLUTION_RULE, "maturity_days": 7},
        "feature_definition_set": {"feature_set_id": "core_features", "feature_set_version": "v1"},
        "join_scope": {"subject_key": "platform_run_id,event_id", "required_output_ids": ["b", "a"]},
        "filters": {"label_types": ["fraud_disposition"], "country": ["US"]},
        "run_facts_ref": "platform_20260210T122800Z/facts.json", "policy_revision": "p0", "config_revision": "c0", "ofs_code_release_id": "git:1"
    })
}

fn refused(change: impl FnOnce(&mut Value)) -> (ReasonCode, String) {
    let mut value = sample();
    change(&mut value);
    let refused = parse(value.to_string().as_bytes()).unwrap_err();
    (refused.problems[0].code, refused.problems[0].path.clone())
}

#[test]
fn a_complete_intent_is_read_in_normal_form() {
    let intent = parse(sample().to_string().as_bytes()).unwrap();
    assert_eq!(intent.scenario_run_ids, ["a", "b"]);
    assert_eq!(intent.required_outputs, ["a", "b"]);
    assert_eq!(intent.label_types, ["fraud_disposition"]);
    assert_eq!(intent.row_filters.len(), 1);
    assert!(intent.training());
    assert_eq!(parse(intent.to_json().to_string().as_bytes()).unwrap().to_json(), intent.to_json());
}

#[test]
fn a_forensic_rebuild_says_which_keys_and_as_of_when() {
    let with = |scope: Value| {
        let mut value = sample();
        value["intent_kind"] = json!("forensic_rebuild");
        value["join_scope"]["forensic"] = scope;
        parse(value.to_string().as_bytes())
    };
    let scope = with(json!({"keys": ["b", "a", "b"], "as_of_utc": "2026-01-01T01:00:00+01:00"})).unwrap().forensic.unwrap();
    assert_eq!(scope.keys, ["a", "b"]);
    assert_eq!(scope.as_of, AsOf::Instant(Instant::parse("2026-01-01T00:00:00Z").unwrap()));
    assert_eq!(with(json!({"keys": ["a"], "as_of_event_id": "e"})).unwrap().forensic.unwrap().as_of, AsOf::Event("e".into()));
    for bad in [
        json!(null),
        json!({}),
        json!({"keys": [], "as_of_event_id": "e"}),
        json!({"keys": ["a"]}),
        json!({"keys": ["a"], "as_of_event_id": "e", "as_of_utc": "2026-01-01T00:00:00Z"}),
        json!({"keys": ["a"], "as_of_event_id": " "}),
        json!({"keys": ["a"], "as_of_event_id": "e", "more": 1}),
    ] {
        assert_eq!(with(bad.clone()).unwrap_err().problems[0].code, ReasonCode::SchemaInvalid, "{bad}");
    }
    assert_eq!(with(json!({"keys": ["a"], "as_of_utc": "x"})).unwrap_err().problems[0].code, ReasonCode::AsOfSpecInvalid);
    assert_eq!(refused(|v| v["intent_kind"] = json!("forensic_rebuild")).1, "join_scope.forensic");
    assert_eq!(refused(|v| v["join_scope"]["forensic"] = json!({"keys": ["a"], "as_of_event_id": "e"})).0, ReasonCode::SchemaInvalid);
}

#[test]
fn request_ids_have_a_charset_and_a_length() {
    for id in ["short", &"x".repeat(129), "with/slash", "white space"] {
        assert_eq!(refused(|v| v["request_id"] = json!(id)), (ReasonCode::RequestIdInvalid, "request_id".into()));
    }
    assert_eq!(refused(|v| drop(v.as_object_mut().unwrap().remove("request_id"))).0, ReasonCode::RequestIdInvalid);
}

#[test]
fn every_shape_of_absence_has_the_code_of_its_field() {
    let cases = [
        ("/intent_kind", ReasonCode::IntentKindUnsupported),
        ("/replay_basis", ReasonCode::BasisUnresolved),
        ("/label_basis", ReasonCode::LabelAsofMissing),
        ("/label_basis/label_asof_utc", ReasonCode::LabelAsofMissing),
        ("/label_basis/resolution_rule", ReasonCode::LabelAsofMissing),
        ("/feature_definition_set", ReasonCode::FeatureProfileUnresolved),
        ("/feature_definition_set/feature_set_id", ReasonCode::FeatureProfileUnresolved),
        ("/feature_definition_set/feature_set_version", ReasonCode::FeatureProfileUnresolved),
        ("/run_facts_ref", ReasonCode::RunFactsUnavailable),
        ("/policy_revision", ReasonCode::PolicyRevisionMissing),
        ("/config_revision", ReasonCode::ConfigRevisionMissing),
        ("/ofs_code_release_id", ReasonCode::CodeReleaseMissing),
        ("/schema_version", ReasonCode::SchemaInvalid),
        ("/platform_run_id", ReasonCode::SchemaInvalid),
    ];
    for (pointer, code) in cases {
        for absent in [json!(null), json!(""), json!("  "), json!(5)] {
            assert_eq!(refused(|v| *v.pointer_mut(pointer).unwrap() = absent.clone()).0, code, "{pointer} = {absent}");
        }
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        assert_eq!(refused(|v| drop(v.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key))).0, code, "{pointer} removed");
    }
}

#[test]
fn unknown_fields_are_refused_by_path_and_never_by_text() {
    assert_eq!(refused(|v| v["foo"] = json!(1)), (ReasonCode::SchemaInvalid, "foo".into()));
    assert_eq!(refused(|v| v["my_request_id"] = json!(1)), (ReasonCode::SchemaInvalid, "my_request_id".into()));
    assert_eq!(refused(|v| v["label_basis"]["x"] = json!(1)), (ReasonCode::SchemaInvalid, "label_basis.x".into()));
    assert_eq!(refused(|v| v["replay_basis"][0]["x"] = json!(1)), (ReasonCode::SchemaInvalid, "replay_basis[0].x".into()));
    let twice = sample().to_string().replacen('{', "{\"request_id\":\"another.one\",", 1);
    assert_eq!(parse(twice.as_bytes()).unwrap_err().problems[0].code, ReasonCode::SchemaInvalid);
    for text in ["", "[]", "\"x\"", "{", "null"] {
        assert_eq!(parse(text.as_bytes()).unwrap_err().problems[0].code, ReasonCode::SchemaInvalid);
    }
}

#[test]
fn slices_must_be_concrete_ranges() {
    let slice = |change: fn(&mut Value)| refused(|v| change(&mut v["replay_basis"][0]));
    for (code, _) in [
        slice(|s| s["partition"] = json!(-1)),
        slice(|s| s["partition"] = json!(true)),
        slice(|s| s["start_offset"] = json!(0)),
        slice(|s| s["start_offset"] = json!("-1")),
        slice(|s| {
            s["start_offset"] = json!("5");
            s["end_offset"] = json!("1")
        }),
        slice(|s| s["offset_kind"] = json!("pulsar")),
        slice(|s| s["end_offset"] = json!("9223372036854775808")),
        slice(|s| s["topic"] = json!("../x")),
    ] {
        assert_eq!(code, ReasonCode::BasisUnresolved);
    }
    assert_eq!(refused(|v| v["replay_basis"] = json!([])).0, ReasonCode::BasisUnresolved);
    let mut twin = sample()["replay_basis"][0].clone();
    twin["offset_kind"] = json!("file_line");
    assert_eq!(refused(|v| v["replay_basis"].as_array_mut().unwrap().push(twin)).0, ReasonCode::BasisUnresolved);
}

#[test]
fn overlapping_and_touching_slices_are_merged() {
    let slice = |start: &str, end: &str| json!({"topic": "t", "partition": 0, "offset_kind": "kafka_offset", "start_offset": start, "end_offset": end});
    let mut value = sample();
    value["replay_basis"] = json!([slice("0003", "6"), slice("0", "4"), slice("7", "9"), slice("20", "20")]);
    let intent = parse(value.to_string().as_bytes()).unwrap();
    assert_eq!(intent.basis.iter().map(|s| s.range.to_string()).collect::<Vec<_>>(), ["0-9", "20"]);
}

#[test]
fn cut_offs_rules_and_policies_are_checked_at_admission() {
    assert_eq!(refused(|v| v["label_basis"]["label_asof_utc"] = json!("x")).0, ReasonCode::AsOfSpecInvalid);
    assert_eq!(refused(|v| v["label_basis"]["resolution_rule"] = json!("latest")).0, ReasonCode::RuleNotSupported);
    assert_eq!(refused(|v| v["label_basis"]["maturity_days"] = json!(-1)).0, ReasonCode::LabelPolicyInvalid);
    // A share of mature rows says nothing unless it is said when a row is mature.
    let mature = |days: Option<u32>| {
        let mut value = sample();
        value["filters"]["label_coverage_policy"] = json!({"min_mature_ratio": 0.9});
        value["label_basis"]["maturity_days"] = json!(days);
        if days.is_none() {
            value["label_basis"].as_object_mut().unwrap().remove("maturity_days");
        }
        parse(value.to_string().as_bytes()).map(drop).map_err(|refused| (refused.problems[0].code, refused.problems[0].path.clone()))
    };
    assert_eq!((mature(Some(7)), mature(Some(0))), (Ok(()), Ok(())));
    let path = "filters.label_coverage_policy.min_mature_ratio".to_owned();
    assert_eq!(mature(None), Err((ReasonCode::LabelPolicyInvalid, path)));
    assert_eq!(refused(|v| v["filters"] = json!({})).0, ReasonCode::LabelTypeScopeUnresolved);
    assert_eq!(refused(|v| v["filters"]["label_coverage_policy"] = json!({"max_conflict_ratio": 1.5})).0, ReasonCode::LabelPolicyInvalid);
    assert_eq!(
        refused(|v| v["filters"]["label_coverage_policy"] = json!({"min_coverage_by_label_type": {"a": "x"}})).0,
        ReasonCode::LabelPolicyInvalid
    );
    assert_eq!(refused(|v| v["filters"]["country"] = json!({"x": 1})).0, ReasonCode::FilterInvalid);
    assert_eq!(refused(|v| v["join_scope"]["subject_key"] = json!("account_id")).0, ReasonCode::SubjectMappingMissing);
}
