//! `ofs diff` names exactly the rows that differ, and the input that explains each; `ofs verify --reprove`
//! rebuilds and finds what has drifted.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, FLIGHTS_TOPIC, Workspace, archive_folder};

fn id(result: &Value) -> String {
    result["dataset"]["manifest_id"].as_str().unwrap().to_owned()
}

fn diff(w: &Workspace, left: &str, right: &str) -> Value {
    let told = w.ofs(&["diff", left, right, "--limit", "100000", "--json"]).expect(0).json();
    assert_eq!(told["schema_version"], "ofs.diff.v1");
    told
}

fn ids(list: &Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|r| r["event_id"].as_str().unwrap().to_owned()).collect()
}

fn causes(told: &Value) -> Vec<&str> {
    told["by_cause"].as_object().unwrap().keys().map(String::as_str).collect()
}

/// The label of every event at a cut-off, by the rule alone.
fn known(w: &Workspace, cutoff: &str) -> std::collections::BTreeMap<String, (String, String, String)> {
    let mut best = std::collections::BTreeMap::new();
    for line in w.text("labels/assertions.jsonl").lines() {
        let a: Value = serde_json::from_str(line).unwrap();
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        // The instants of the fixture all have one spelling, so that texts compare as they do.
        let claim = (text(&a["observed_time"]), text(&a["label_assertion_id"]), text(&a["label_value"]));
        if claim.0.as_str() <= cutoff {
            let slot = best.entry(text(&a["label_subject_key"]["event_id"])).or_insert_with(|| claim.clone());
            *slot = slot.clone().max(claim);
        }
    }
    best
}

#[test]
fn train_and_audit_differ_in_exactly_the_rows_whose_labels_were_observed_in_between() {
    let w = Workspace::flights().unguarded();
    let (train, audit) = (id(&w.build("train")), id(&w.build("audit")));
    let told = diff(&w, &audit, &train);
    let cutoff = |name: &str| w.json(&format!("intents/{name}.json"))["label_basis"]["label_asof_utc"].as_str().unwrap().to_owned();
    let (before, after) = (known(&w, &cutoff("audit")), known(&w, &cutoff("train")));
    let wanted: BTreeSet<String> =
        after.iter().filter(|(event, claim)| before.get(*event) != Some(claim)).map(|(e, _)| e.clone()).collect();
    assert!(!wanted.is_empty() && wanted.len() < after.len(), "{}", wanted.len());
    assert_eq!(ids(&told["changed"]), wanted);
    assert_eq!(told["counts"], json!({"added": 0, "removed": 0, "changed": wanted.len(), "unchanged": 842 - wanted.len()}));
    assert_eq!(causes(&told), ["LABEL_CUTOFF"]);
    let fields: BTreeSet<&str> = told["identity"].as_array().unwrap().iter().map(|f| f["field"].as_str().unwrap()).collect();
    assert!(fields.contains("label_basis.label_asof_utc"), "{fields:?}");
    assert!(!fields.iter().any(|f| f.starts_with("replay_basis") || f.starts_with("feature_definition_set")), "{fields:?}");
    // A limit cuts what is told, never what is counted.
    let brief = w.ofs(&["diff", &audit, &train, "--limit", "1", "--json"]).expect(0).json();
    assert_eq!((&brief["counts"], brief["changed"].as_array().unwrap().len()), (&told["counts"], 1));
    let text = w.ofs(&["diff", &audit, &train, "--limit", "1"]).expect(0).out;
    assert!(text.contains("label_basis.label_asof_utc") && text.contains("LABEL_CUTOFF") && text.contains("more row(s)"), "{text}");
    let same = diff(&w, &train, &train);
    assert_eq!((&same["same"], &same["counts"]["unchanged"]), (&json!(true), &json!(842)));
    w.ofs(&["diff", &train, "dm_0", "--json"]).refused(2, "DATASET_NOT_FOUND");
}

#[test]
fn basis_selection_and_definition_are_told_apart() {
    let w = Workspace::flights().unguarded();
    let train = w.build("train");
    w.intent("less", "train", |intent| {
        intent["request_id"] = json!("request.less");
        intent["replay_basis"][3]["end_offset"] = json!("99");
    });
    w.intent("some", "train", |intent| {
        intent["request_id"] = json!("request.some");
        intent["filters"]["origin"] = json!("JFK");
    });
    let authority = w.text("authority/features_v0.yaml");
    let (head, group) = authority.split_once("feature_groups:\n").unwrap();
    let second = group
        .replace("version: v1", "version: v2")
        .replace("agg: max, field: amount", "agg: min, field: amount")
        .replace("name: airports", "name: places");
    w.write("authority/features_v0.yaml", format!("{head}feature_groups:\n{group}{second}"));
    w.intent("other", "train", |intent| {
        intent["request_id"] = json!("request.other.definition");
        intent["feature_definition_set"]["feature_set_version"] = json!("v2");
    });
    let train = id(&train);
    let less = diff(&w, &train, &id(&w.build("less")));
    assert_eq!((&less["counts"]["removed"], &less["counts"]["added"]), (&json!(93), &json!(0)));
    assert_eq!(causes(&less), ["BASIS"]);
    assert!(
        less["removed"]
            .as_array()
            .unwrap()
            .iter()
            .all(|r| r["partition"] == 3 && r["offset"].as_str().unwrap().parse::<u64>().unwrap() > 99)
    );
    assert!(less["identity"].as_array().unwrap().iter().any(|f| f["field"] == "replay_basis"));
    // History still counts for what a filter leaves, so that no value changes.
    let some = diff(&w, &train, &id(&w.build("some")));
    assert_eq!((causes(&some), &some["counts"]["changed"]), (vec!["SELECTION"], &json!(0)));
    assert!(some["counts"]["removed"].as_u64().unwrap() > 100);
    let other = diff(&w, &train, &id(&w.build("other")));
    assert_eq!(causes(&other), ["DEFINITION"]);
    assert_eq!(other["columns"]["redefined"], json!(["delay_max_1h", "delay_max_24h", "delay_max_7d"]));
    assert_eq!(other["columns"]["only_right"], json!(["places_1h", "places_24h", "places_7d"]));
    let columns: Vec<&String> = other["by_column"].as_object().unwrap().keys().collect();
    assert!(!columns.is_empty() && columns.iter().all(|c| c.starts_with("delay_max_")), "{columns:?}");
}

#[test]
fn arrival_is_named_where_a_late_event_makes_the_difference() {
    let w = Workspace::empty().unguarded();
    w.ofs(&["generate", "--events", "3000", "--partitions", "2", "--seed", "11", w.path("g").to_str().unwrap()]).expect(0);
    let at = |args: &[&str]| w.ofs_with(&[("OFS_WORKSPACE", w.path("g").to_str().unwrap())], args);
    let authority = w.text("g/authority/features_v0.yaml");
    let (head, group) = authority.split_once("feature_groups:\n").unwrap();
    let arrival = group.replace("version: v1", "version: v2").replace("    key_type:", "    availability: arrival\n    key_type:");
    w.write("g/authority/features_v0.yaml", format!("{head}feature_groups:\n{group}{arrival}"));
    let mut intent = w.json("g/intents/audit.json");
    let build = |intent: &Value| {
        w.write("g/intents/x.json", intent.to_string());
        at(&["run", w.path("g/intents/x.json").to_str().unwrap(), "--json"]).expect(0).json()["dataset"]["manifest_ref"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let by_event_time = build(&intent);
    intent["request_id"] = json!("request.by.arrival");
    intent["feature_definition_set"]["feature_set_version"] = json!("v2");
    let by_arrival = build(&intent);
    let told = at(&["diff", &by_event_time, &by_arrival, "--limit", "100000", "--json"]).expect(0).json();
    assert_eq!(causes(&told), ["AVAILABILITY"], "{:#}", told["by_cause"]);
    assert_eq!(told["columns"]["redefined"], json!([]));
    // The index counts the rows that used a later arrival of their own partition; the counts of events differ in each.
    let index =
        by_event_time.replace("/manifests_nontraining/", "/datasets/").replace("/manifests/", "/datasets/").replace(".json", "/index.json");
    let later = w.json(&format!("g/store/{index}"))["rows_using_later_arrivals"].as_u64().unwrap();
    assert!(later > 0);
    assert_eq!(
        told["counts"],
        json!({"added": 0, "removed": 0, "changed": later, "unchanged": told["left"]["rows"].as_u64().unwrap() - later})
    );
}

fn kinds(report: &Value) -> BTreeSet<String> {
    report["problems"].as_array().unwrap().iter().map(|p| p["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_rebuild_comes_out_the_same_until_an_input_drifts() {
    let w = Workspace::flights().unguarded();
    let result = w.build("train");
    let id = id(&result);
    let reprove = |code: i32| w.ofs(&["verify", &id, "--reprove", "--json"]).expect(code).json();
    let before = w.tree("store");
    let report = reprove(0);
    assert_eq!((&report["ok"], &report["rebuilt"], &report["problems"]), (&json!(true), &json!(true), &json!([])));
    assert_eq!(w.tree("store"), before, "a rebuild writes nothing to the store");
    assert_eq!(std::fs::read_dir(w.scratch()).unwrap().count(), 0, "and leaves nothing in scratch space");
    // What is learned late under its true time changes nothing.
    let mut line: Value = serde_json::from_str(w.text("labels/assertions.jsonl").lines().next().unwrap()).unwrap();
    let event = line["label_subject_key"]["event_id"].as_str().unwrap().to_owned();
    line["label_assertion_id"] = json!("e".repeat(32));
    line["label_value"] = json!("DIVERTED");
    line["observed_time"] = json!("2014-01-01T00:00:00Z");
    w.write("labels/late.jsonl", format!("{line}\n"));
    assert_eq!(reprove(0)["ok"], true);
    // Under an old one it is found, and the row is named; the data set itself still verifies.
    line["observed_time"] = json!("2013-01-20T00:00:00Z");
    w.write("labels/late.jsonl", format!("{line}\n"));
    let report = reprove(3);
    assert_eq!((kinds(&report), &report["rebuilt"]), (BTreeSet::from(["LABEL_STATE_DRIFT".to_owned()]), &json!(true)));
    assert!(report["problems"].as_array().unwrap().iter().any(|p| p["found"].as_str().unwrap().contains(&event)), "{report:#}");
    w.ofs(&["verify", &id, "--json"]).expect(0);
    // Where the changed labels do not even pass the gate, that is what has drifted.
    line["label_assertion_id"] = json!("d".repeat(32));
    line["label_value"] = json!("ON_TIME");
    w.write("labels/later.jsonl", format!("{line}\n"));
    assert_eq!(kinds(&reprove(3)), BTreeSet::from(["LABEL_STATE_DRIFT".to_owned()]));
    std::fs::remove_file(w.path("labels/late.jsonl")).unwrap();
    std::fs::remove_file(w.path("labels/later.jsonl")).unwrap();
    let folder = archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 0, "kafka_offset");
    std::fs::rename(w.path(&format!("{folder}/offset=3.json")), w.path("gone.json")).unwrap();
    assert_eq!(kinds(&reprove(3)), BTreeSet::from(["REPLAY_DRIFT".to_owned()]));
    std::fs::rename(w.path("gone.json"), w.path(&format!("{folder}/offset=3.json"))).unwrap();
    let authority = w.text("authority/features_v0.yaml");
    w.write("authority/features_v0.yaml", authority.replace("duration: 24h", "duration: 23h"));
    assert_eq!(kinds(&reprove(3)), BTreeSet::from(["PINS_DRIFT".to_owned()]));
}
