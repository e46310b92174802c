//! Parity and forensic rebuilds: an anchor that an independent script made (`tests/parity_anchor.py`), each
//! class of difference, what is missing, and features as of an event held against the published rows.

use std::fs;

use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, FLIGHTS_TOPIC, Workspace, canonical, files, repository, sha256_hex};

const FIELDS: [&str; 9] = [
    "pins",
    "as_of_time_utc",
    "feature_groups",
    "feature_def_policy_rev",
    "eb_offset_basis",
    "graph_version",
    "run_config_digest",
    "features",
    "freshness",
];

/// The anchor of the fixture.
fn anchor(w: &Workspace) -> Value {
    let folder = w.path(&format!("store/{FLIGHTS_RUN}/online_feature_plane/snapshots"));
    let found = files(&folder);
    assert_eq!(found.len(), 1);
    serde_json::from_str(&fs::read_to_string(&found[0]).unwrap()).unwrap()
}

/// Makes an anchor's hash anew, by the online plane's recipe written down once more.
fn rehash(anchor: &mut Value) {
    let covered: Value = FIELDS.iter().map(|f| ((*f).to_owned(), anchor.get(*f).cloned().unwrap_or(Value::Null))).collect();
    anchor["snapshot_hash"] = json!(sha256_hex(canonical(&covered, true).as_bytes()));
}

/// Runs a parity rebuild against an anchor made from the fixture's; the result and its exit code.
fn compare(w: &Workspace, name: &str, change: impl FnOnce(&mut Value)) -> (i32, Value) {
    let mut anchor = anchor(w);
    change(&mut anchor);
    w.write(&format!("store/{FLIGHTS_RUN}/anchors/{name}.json"), anchor.to_string());
    w.intent(name, "train", |i| {
        i["intent_kind"] = json!("parity_rebuild");
        i["request_id"] = json!(format!("request.{name}"));
        i["parity_anchor_ref"] = json!(format!("{FLIGHTS_RUN}/anchors/{name}.json"));
    });
    let run = w.run(name);
    (run.code, run.json())
}

fn ended(result: &(i32, Value)) -> (i32, &str, &str, Option<&str>) {
    let text = |pointer: &str| result.1.pointer(pointer).and_then(Value::as_str);
    (result.0, text("/status").unwrap(), text("/parity/outcome").unwrap_or("none"), text("/parity/class"))
}

fn report(w: &Workspace, result: &Value, folder: &str) -> Value {
    let at = result[folder]["report_ref"].as_str().unwrap();
    assert_eq!(at, format!("{FLIGHTS_RUN}/ofs/{folder}/{}.json", result["run_key"].as_str().unwrap()));
    let report = w.json(&format!("store/{at}"));
    let schema = fs::read_to_string(repository().join(format!("contracts/{folder}_report_v1.schema.json"))).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let problems: Vec<String> = schema.iter_errors(&report).map(|e| format!("{e} at {}", e.instance_path())).collect();
    assert_eq!(problems, [""; 0], "{report}");
    report
}

#[test]
fn an_anchor_from_an_independent_script_matches() {
    let w = Workspace::flights();
    let found = compare(&w, "same", |_| {});
    assert_eq!(ended(&found), (0, "DONE", "MATCH", None));
    let report = report(&w, &found.1, "parity");
    assert_eq!(report["rebuilt"]["snapshot_hash"], anchor(&w)["snapshot_hash"]);
    assert_eq!((&report["rebuilt"]["keys"], &report["rebuilt"]["events"]["applied"]), (&json!(649), &json!(842)));
    assert_eq!((&report["anchor_offsets"], &report["replay"]["status"]), (&json!("LAST"), &json!("COMPLETE")));
    assert_eq!((&found.1["dataset"], &found.1["evidence"]["labels"]), (&Value::Null, &Value::Null));
    w.assert_nothing_published(FLIGHTS_RUN);
    assert!(w.event_types("request.same").contains(&"PARITY_RESULT".to_owned()));
    // Asked again it is answered from the record; elsewhere, and in other threads, it is the same bytes.
    let again = w.run("same").expect(0).json();
    assert_eq!((&again["outcome"], &again["parity"]), (&json!("DUPLICATE"), &found.1["parity"]));
    let twin = Workspace::flights();
    twin.write("ofs.toml", "[limits]\nmemory = \"64MiB\"\nthreads = 7\n");
    assert_eq!(ended(&compare(&twin, "same", |_| {})), (0, "DONE", "MATCH", None));
    assert_eq!(w.tree(&format!("store/{FLIGHTS_RUN}/ofs/parity")), twin.tree(&format!("store/{FLIGHTS_RUN}/ofs/parity")));
}

#[test]
fn every_field_of_the_identity_that_differs_is_a_class_of_its_own() {
    let w = Workspace::flights();
    // Each change with its hash made anew, so that the anchor itself is whole.
    let class = |name: &str, pointer: &str, to: Value| {
        let found = compare(&w, name, |a| {
            *a.pointer_mut(pointer).unwrap() = to;
            rehash(a);
        });
        let (exit, status, outcome, class) = ended(&found);
        assert_eq!(
            (exit, status, outcome, found.1["reason"]["code"].as_str()),
            (3, "FAILED", "MISMATCH", Some("PARITY_MISMATCH")),
            "{name}"
        );
        report(&w, &found.1, "parity");
        class.unwrap().to_owned()
    };
    let basis =
        |offset: &str| json!({"stream": FLIGHTS_TOPIC, "offset_kind": "kafka_offset", "offsets": [{"partition": 0, "offset": offset}]});
    assert_eq!(class("offset", "/eb_offset_basis/offsets/2/offset", json!("100")), "BASIS");
    assert_eq!(class("topic", "/eb_offset_basis/offsets/2/topic", json!("t")), "BASIS");
    assert_eq!(class("kind", "/eb_offset_basis/offset_kind", json!("file_line")), "BASIS");
    assert_eq!(class("partitions", "/eb_offset_basis", basis("203")), "BASIS");
    assert_eq!(class("group", "/feature_groups/0/version", json!("v2")), "VERSION");
    assert_eq!(class("policy", "/feature_def_policy_rev/policy_id", json!("p")), "VERSION");
    assert_eq!(class("revision", "/feature_def_policy_rev/revision", json!("r2")), "VERSION");
    assert_eq!(class("digest", "/feature_def_policy_rev/content_digest", json!("0".repeat(64))), "VERSION");
    assert_eq!(class("world", "/pins/manifest_fingerprint", json!("0".repeat(64))), "VERSION");
    assert_eq!(class("count", "/features/flow_id:N0EGMQ/event_count", json!(3)), "CONTENT");
    assert_eq!(class("stamp", "/features/flow_id:N0EGMQ/last_event_ts_utc", json!("2013-01-01T21:00:01.000000Z")), "CONTENT");
    assert_eq!(class("spelling", "/features/flow_id:N0EGMQ/amount_sum", json!(54)), "CANONICALIZATION");
    let gone = compare(&w, "gone", |a| {
        a["features"].as_object_mut().unwrap().remove("flow_id:N0EGMQ");
        rehash(a);
    });
    assert_eq!(ended(&gone), (3, "FAILED", "MISMATCH", Some("DATA_GAP")));
    assert_eq!(report(&w, &gone.1, "parity")["comparison"]["keys"]["extra"], json!(1));
    w.assert_nothing_published(FLIGHTS_RUN);
}

#[test]
fn one_changed_amount_is_content_and_names_the_key() {
    let w = Workspace::flights();
    let found = compare(&w, "amount", |a| {
        a["features"]["flow_id:N0EGMQ"]["amount_sum"] = json!(55.0);
        rehash(a);
    });
    assert_eq!(ended(&found), (3, "FAILED", "MISMATCH", Some("CONTENT")));
    assert!(
        found.1["reason"]["evidence"][0].as_str().unwrap().starts_with("flow_id:N0EGMQ amount_sum: anchor 55.0, rebuilt 54.0, delta 1")
    );
    let report = report(&w, &found.1, "parity");
    let feature = &report["comparison"]["features"]["amount_sum"];
    assert_eq!((&feature["mismatch"], &feature["equal"]), (&json!(1), &json!(648)));
    assert_eq!((&feature["worst"][0]["key"], feature["worst"][0]["delta"].as_f64()), (&json!("flow_id:N0EGMQ"), Some(1.0)));
    // A mismatch is an end: the same request is answered with it again.
    assert_eq!(w.run("amount").expect(3).json()["outcome"], json!("DUPLICATE"));
}

#[test]
fn what_a_comparison_lacks_is_named_and_is_no_error() {
    let w = Workspace::flights();
    let missing = |name: &str, class: Option<&str>, change: fn(&mut Value)| {
        let found = compare(&w, name, change);
        assert_eq!(ended(&found), (0, "DONE", "UNCHECKABLE", class), "{name}");
        report(&w, &found.1, "parity");
        let event = w.events(&format!("request.{name}")).into_iter().find(|e| e["event_type"] == "PARITY_RESULT").unwrap();
        assert!(event["reason_code"].as_str().unwrap().starts_with("PARITY_UNCHECKABLE_"), "{event}");
        found.1["parity"]["missing"][0].as_str().unwrap().to_owned()
    };
    fn drop(a: &mut Value, key: &str) {
        a.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(missing("nohash", None, |a| drop(a, "snapshot_hash")), "snapshot_hash");
    assert_eq!(missing("nobasis", Some("BASIS"), |a| drop(a, "eb_offset_basis")), "eb_offset_basis or replay_basis");
    assert_eq!(missing("nogroups", Some("VERSION"), |a| drop(a, "feature_groups")), "feature_groups");
    assert_eq!(missing("norev", Some("VERSION"), |a| drop(a, "feature_def_policy_rev")), "feature_def_policy_rev.policy_id");
    // Served content that is not what the hash was taken of (pitfall 39).
    let unfit = missing("served", Some("CANONICALIZATION"), |a| drop(&mut a["features"], "flow_id:N0EGMQ"));
    assert!(unfit.contains("snapshot_hash"), "{unfit}");
    // Without content the hash alone is proof, where it fits.
    let bare = compare(&w, "bare", |a| drop(a, "features"));
    assert_eq!(ended(&bare), (0, "DONE", "MATCH", None));
    assert_eq!(
        missing("bareother", None, |a| {
            drop(a, "features");
            a["freshness"] = json!({});
        }),
        "features"
    );
    let foreign = compare(&w, "foreign", |a| a["pins"]["platform_run_id"] = json!("platform_19990101T000000Z"));
    assert_eq!((foreign.0, foreign.1["reason"]["code"].as_str()), (3, Some("RUN_SCOPE_INVALID")));
}

#[test]
fn offsets_that_come_next_are_read_as_such() {
    let w = Workspace::flights();
    let next = |a: &mut Value| {
        for entry in a["eb_offset_basis"]["offsets"].as_array_mut().unwrap() {
            let last: u64 = entry["offset"].as_str().unwrap().parse().unwrap();
            entry["offset"] = json!((last + 1).to_string());
        }
        a["eb_offset_basis"].as_object_mut().unwrap().remove("basis_digest");
        rehash(a);
    };
    let found = compare(&w, "next", next);
    assert_eq!(ended(&found), (0, "DONE", "MATCH", None));
    assert_eq!(report(&w, &found.1, "parity")["anchor_offsets"], json!("EXCLUSIVE_NEXT"));
    // One partition read in another way than the others is another basis.
    let mixed = compare(&w, "mixed", |a| {
        a["eb_offset_basis"]["offsets"][1]["offset"] = json!("202");
        rehash(a);
    });
    assert_eq!(ended(&mixed), (3, "FAILED", "MISMATCH", Some("BASIS")));
}

#[test]
fn a_gap_or_contradiction_stays_on_record_and_nothing_is_published_as_complete() {
    for (name, code) in [("gap", "REPLAY_INCOMPLETE"), ("contradiction", "PAYLOAD_HASH_MISMATCH")] {
        let w = Workspace::flights();
        let record =
            format!("store/{FLIGHTS_RUN}/archive/events/topic={FLIGHTS_TOPIC}/partition=0/offset_kind=kafka_offset/offset=17.json");
        match name {
            "gap" => fs::remove_file(w.path(&record)).unwrap(),
            _ => w.write(&record, w.text(&record).replace("\"amount\":-4", "\"amount\":-5")),
        }
        let found = compare(&w, name, |_| {});
        assert_eq!(ended(&found), (0, "DONE", "UNCHECKABLE", Some("DATA_GAP")), "{name}");
        assert!(found.1["parity"]["missing"][0].as_str().unwrap().starts_with(code));
        let receipt = w.json(&format!("store/{}", found.1["evidence"]["replay"].as_str().unwrap()));
        assert_eq!((&receipt["status"], &receipt["proof"]), (&json!("INCOMPLETE"), &Value::Null));
        let anomalies = w.json(&format!("store/{}", receipt["observation"]["anomalies_ref"].as_str().unwrap()));
        assert!(!anomalies["anomalies"].as_array().unwrap().is_empty());
        assert_eq!(report(&w, &found.1, "parity")["rebuilt"], Value::Null);
        w.assert_nothing_published(FLIGHTS_RUN);
    }
}

#[test]
fn a_training_build_is_only_warned() {
    let w = Workspace::flights();
    let plain = w.build("train");
    let mut other = anchor(&w);
    other["features"]["flow_id:N0EGMQ"]["event_count"] = json!(9);
    rehash(&mut other);
    w.write(&format!("store/{FLIGHTS_RUN}/anchors/other.json"), other.to_string());
    let twin = Workspace::copy_of(&w);
    fs::remove_dir_all(twin.path(&format!("store/{FLIGHTS_RUN}/ofs"))).unwrap();
    fs::remove_dir_all(twin.path("state")).unwrap();
    twin.intent("anchored", "train", |i| {
        i["request_id"] = json!("request.anchored");
        i["parity_anchor_ref"] = json!(format!("{FLIGHTS_RUN}/anchors/other.json"));
    });
    let result = twin.build("anchored");
    assert_eq!((&result["status"], &result["parity"]["outcome"]), (&json!("DONE"), &json!("MISMATCH")));
    // The data set is the one that it is without an anchor.
    assert_eq!(result["dataset"], plain["dataset"]);
    report(&twin, &result, "parity");
}

/// A forensic rebuild of the train intent's basis.
fn forensic(w: &Workspace, name: &str, scope: Value) -> Value {
    w.intent(name, "train", |i| {
        i["intent_kind"] = json!("forensic_rebuild");
        i["request_id"] = json!(format!("request.{name}"));
        i["join_scope"]["forensic"] = scope;
    });
    w.build(name)
}

#[test]
fn features_as_of_an_event_are_those_of_its_row() {
    let w = Workspace::flights();
    let built = w.build("train");
    let (names, rows) = crate::oracle::read(&w, &built["dataset"]);
    let text = |cell: &crate::oracle::Cell| match cell {
        crate::oracle::Cell::Text(s) => s.clone(),
        other => panic!("{other:?}"),
    };
    for (at, row) in rows.iter().enumerate().step_by(97) {
        let (event, key) = (text(&row[1]), text(&row[8]));
        let result = forensic(&w, &format!("as.of.{at}"), json!({"keys": [key], "as_of_event_id": event}));
        let report = report(&w, &result, "forensic");
        assert_eq!((&report["status"], &report["training_data"]), (&json!("COMPLETE"), &json!(false)));
        let found = &report["keys"][0];
        assert_eq!(found["last_event"]["event_id"], json!(event));
        let features = found["features"].as_object().unwrap();
        assert_eq!(features.len(), 15);
        for (name, value) in features {
            let cell = &row[names.iter().position(|n| n == name).unwrap()];
            let same = match cell {
                crate::oracle::Cell::Null => value.is_null(),
                crate::oracle::Cell::Int(n) => *value == json!(n),
                crate::oracle::Cell::Float(bits) => value.as_f64().map(f64::to_bits) == Some(*bits),
                other => panic!("{other:?}"),
            };
            assert!(same, "{event} {name}: {cell:?} and {value}");
        }
    }
    assert_eq!(w.manifests(FLIGHTS_RUN).len(), 1);
}

#[test]
fn features_as_of_an_instant_count_what_had_happened() {
    let w = Workspace::flights();
    let ask = |name: &str, at: &str, keys: Value| {
        let result = forensic(&w, name, json!({"keys": keys, "as_of_utc": at}));
        report(&w, &result, "forensic")
    };
    let early = ask("early", "2013-01-01T00:00:00Z", json!(["N0EGMQ", "nobody"]));
    for key in [&early["keys"][0], &early["keys"][1]] {
        assert_eq!((&key["events"], &key["last_event"]), (&json!(0), &Value::Null));
        assert_eq!((&key["features"]["departures_7d"], &key["features"]["delay_sum_7d"]), (&json!(0), &Value::Null));
    }
    let late = ask("late", "2013-01-01T21:59:59.999999Z", json!(["N0EGMQ"]));
    let features = &late["keys"][0]["features"];
    assert_eq!((&features["departures_24h"], &features["delay_sum_24h"], &features["departures_1h"]), (&json!(2), &json!(54), &json!(1)));
    // The window is open at its far end.
    let later = ask("later", "2013-01-01T22:00:00Z", json!(["N0EGMQ"]));
    assert_eq!(later["keys"][0]["features"]["departures_1h"], json!(0));
    let lost = forensic(&w, "lost", json!({"keys": ["N0EGMQ"], "as_of_event_id": "of nobody"}));
    assert_eq!((&lost["status"], &lost["forensic"]["status"]), (&json!("DONE"), &json!("INCOMPLETE")));
    assert!(lost["forensic"]["missing"][0].as_str().unwrap().contains("of nobody"));
    report(&w, &lost, "forensic");
    w.assert_nothing_published(FLIGHTS_RUN);
}

#[test]
fn what_arrived_later_is_left_out_where_the_group_asks_for_it() {
    let w = Workspace::flights();
    let plain = w.build("train");
    let authority =
        w.text("authority/features_v0.yaml").replace("    key_type: flow_id\n", "    key_type: flow_id\n    availability: arrival\n");
    w.write("authority/features_v0.yaml", authority);
    w.intent("arrival", "train", |i| i["request_id"] = json!("request.arrival"));
    let built = w.build("arrival");
    assert_ne!(built["dataset"]["manifest_id"], plain["dataset"]["manifest_id"]);
    let index = |result: &Value| {
        w.json(&format!("store/{FLIGHTS_RUN}/ofs/datasets/{}/index.json", result["dataset"]["manifest_id"].as_str().unwrap()))
    };
    assert_eq!((&index(&plain)["feature_availability"], &index(&built)["feature_availability"]), (&json!("event_time"), &json!("arrival")));
    assert_eq!(index(&built)["rows_using_later_arrivals"], json!(0));
    w.ofs(&["verify", built["dataset"]["manifest_ref"].as_str().unwrap()]).expect(0);
}
