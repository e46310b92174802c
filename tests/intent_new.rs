//! `ofs intent new`: what it writes builds, times are resolved to offsets once, and what has several answers
//! is refused.

use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, Workspace};

const ASOF: &str = "2013-02-01T00:00:00Z";

fn new(w: &Workspace, args: &[&str]) -> Value {
    let all = [&["intent", "new", "--json"], args].concat();
    w.ofs(&all).expect(0).json()
}

#[test]
fn a_new_intent_is_complete_and_builds_what_the_hand_written_one_does() {
    let w = Workspace::flights();
    let made = new(&w, &["--asof", ASOF, "--min-coverage", "0.99"]);
    let (intent, mapping) = (&made["intent"], &made["mapping"]);
    assert_eq!(intent["replay_basis"], w.json("intents/train.json")["replay_basis"]);
    assert_eq!((&intent["platform_run_id"], &intent["feature_definition_set"]["feature_set_version"]), (&json!(FLIGHTS_RUN), &json!("v1")));
    assert_eq!(intent["filters"]["label_types"], json!(["arrival_status"]));
    assert_eq!((&mapping["features"]["resolved"], &mapping["asked"]["features"]), (&json!("aircraft_history@v1"), &Value::Null));
    let per_side: u64 = mapping["lanes"].as_array().unwrap().iter().map(|l| l["events_in_span"]["ARCHIVE"].as_u64().unwrap()).sum();
    assert!(per_side > 700, "{mapping:#}");
    // The same question is the same request; another one is another.
    assert_eq!(new(&w, &["--asof", ASOF, "--min-coverage", "0.99"]), made);
    assert_ne!(new(&w, &["--asof", ASOF])["intent"]["request_id"], intent["request_id"]);
    let path = w.path("intents/made.json");
    let said = w.command(&["intent", "new", "--asof", ASOF, "--min-coverage", "0.99", "-o", path.to_str().unwrap()]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!((&w.json("intents/made.json"), &w.json("intents/made.json.mapping.json")), (intent, mapping));
    w.ofs(&["intent", "check", path.to_str().unwrap()]).expect(0);
    assert_eq!(w.build("made")["dataset"]["rows"], 842);
    // Nothing of the user's is ever replaced.
    let again = w.ofs(&["intent", "new", "--asof", ASOF, "-o", path.to_str().unwrap()]).expect(2);
    assert!(again.err.contains("made.json"), "{}", again.err);
}

#[test]
fn an_intent_that_cannot_be_written_leaves_no_mapping_behind() {
    let w = Workspace::flights();
    let (path, beside) = (w.path("intents/taken.json"), w.path("intents/taken.json.mapping.json"));
    w.write("intents/taken.json", "somebody else's");
    let refused = || w.ofs(&["intent", "new", "--asof", ASOF, "-o", path.to_str().unwrap()]).expect(2).err;
    let told = refused();
    assert!(!told.contains("mapping.json"), "{told}");
    assert_eq!((w.text("intents/taken.json").as_str(), beside.exists()), ("somebody else's", false));
    // Nothing stands in the way of the next try, and what another call made is not taken away.
    std::fs::remove_file(&path).unwrap();
    let written = w.command(&["intent", "new", "--asof", ASOF, "-o", path.to_str().unwrap()]).output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let mapping = std::fs::read(&beside).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(refused().contains("mapping.json"));
    assert_eq!((std::fs::read(&beside).unwrap(), path.exists()), (mapping, false));
}

#[test]
fn a_span_of_time_becomes_the_smallest_ranges_that_hold_it() {
    let w = Workspace::flights();
    let (from, to) = ("2013-01-01T12:00:00Z", "2013-01-01T18:00:00Z");
    let made = new(&w, &["--from", from, "--to", to, "--asof", ASOF, "--min-coverage", "0.5"]);
    let lanes = made["mapping"]["lanes"].as_array().unwrap();
    assert_eq!((lanes.len(), made["intent"]["replay_basis"].as_array().unwrap().len()), (4, 4));
    for (lane, slice) in lanes.iter().zip(made["intent"]["replay_basis"].as_array().unwrap()) {
        assert_eq!((&lane["start_offset"], &lane["end_offset"]), (&slice["start_offset"], &slice["end_offset"]));
        let (first, last) = (lane["first_ts_utc"].as_str().unwrap(), lane["last_ts_utc"].as_str().unwrap());
        assert!("2013-01-01T12:00:00.000000Z" <= first && first <= last && last < "2013-01-01T18:00:00.000000Z", "{lane}");
    }
    w.write("intents/span.json", made["intent"].to_string());
    let rows = w.build("span")["dataset"]["rows"].as_u64().unwrap();
    let offsets: u64 = lanes.iter().map(|l| l["offsets"].as_str().unwrap().parse::<u64>().unwrap()).sum();
    assert!(rows == offsets && rows < 842, "{rows} {offsets}");
    // Without a cut-off, the latest that the timeline knows, and that is said.
    let latest = new(&w, &[]);
    assert!(latest["mapping"]["labels"]["from"].as_str().unwrap().contains("latest"), "{latest:#}");
    assert_eq!(latest["mapping"]["labels"]["types"][0]["latest_observed_utc"], latest["intent"]["label_basis"]["label_asof_utc"]);
    w.ofs(&["intent", "new", "--from", "2020-01-01T00:00:00Z", "--json"]).refused(3, "BASIS_UNRESOLVED");
    w.ofs(&["intent", "new", "--from", "yesterday"]).expect(2);
}

#[test]
fn what_has_several_answers_is_refused_and_never_chosen() {
    let w = Workspace::flights();
    let authority = w.text("authority/features_v0.yaml");
    let (head, group) = authority.split_once("feature_groups:\n").unwrap();
    w.write("authority/features_v0.yaml", format!("{head}feature_groups:\n{group}{}", group.replace("version: v1", "version: v2")));
    let refused = w.ofs(&["intent", "new", "--asof", ASOF, "--json"]).refused(3, "AMBIGUOUS_INPUT");
    assert!(refused.err.contains("aircraft_history@v1") && refused.err.contains("aircraft_history@v2"), "{}", refused.err);
    let made = new(&w, &["--asof", ASOF, "--features", "aircraft_history@v2"]);
    assert_eq!(made["intent"]["feature_definition_set"]["feature_set_version"], "v2");
    w.ofs(&["intent", "new", "--asof", ASOF, "--features", "aircraft_history@v3", "--json"]).refused(3, "FEATURE_PROFILE_UNRESOLVED");
    let facts = w.tree(&format!("store/{FLIGHTS_RUN}/sr/run_facts_view"));
    w.write(&format!("store/{FLIGHTS_RUN}/sr/run_facts_view/other.json"), facts.values().next().unwrap());
    w.ofs(&["intent", "new", "--asof", ASOF, "--features", "aircraft_history@v2", "--json"]).refused(3, "AMBIGUOUS_INPUT");
}

#[cfg(unix)]
#[test]
fn what_a_build_may_not_read_no_intent_is_made_of() {
    let w = Workspace::flights();
    let outside = tempfile::tempdir().unwrap();
    let elsewhere = outside.path().join("assertions.jsonl");
    std::fs::rename(w.path("labels/assertions.jsonl"), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, w.path("labels/assertions.jsonl")).unwrap();
    w.ofs(&["intent", "new", "--asof", ASOF, "--json"]).refused(3, "REF_ACCESS_DENIED");
    w.run("train").refused(3, "REF_ACCESS_DENIED");
}
