//! `ofs export`: what other tools read about a data set. The formats' own tools judge it in `tests/exports.py`; here it
//! is derived, reproducible, immutable, and refused for a data set that does not hold.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::contracts::{schema, valid};
use crate::support::{FLIGHTS_RUN, Workspace, blake3_hex, sha256_hex};

fn published(w: &Workspace, intent: &str) -> String {
    w.build(intent)["dataset"]["manifest_id"].as_str().unwrap().to_owned()
}

fn folder(id: &str) -> String {
    format!("store/{FLIGHTS_RUN}/ofs/exports/{id}")
}

#[test]
fn exports_are_derived_immutable_and_the_same_wherever_they_are_made() {
    let (here, there) = (Workspace::flights(), Workspace::flights());
    let id = published(&here, "train");
    // Another request, another user, another configuration: the data set is the same one.
    there.intent("other", "train", |i| i["request_id"] = json!("request.other"));
    there.write("ofs.toml", "[workspace]\nprofile = \"elsewhere\"\n[limits]\nthreads = 1\n");
    assert_eq!(published(&there, "other"), id);
    let before = here.published(FLIGHTS_RUN);
    let told = here.ofs(&["export", &id, "all", "--json"]).expect(0).json();
    valid(&schema("export_v1"), "export", &told);
    there.ofs_with(&[("USER", "somebody"), ("TZ", "Asia/Tokyo"), ("LANG", "de_DE.UTF-8")], &["export", &id, "all"]).expect(0);
    let files = here.tree(&folder(&id));
    assert_eq!(files.keys().collect::<Vec<_>>(), ["DATASHEET.md", "croissant.json", "openlineage.jsonl", "provenance.intoto.json"]);
    assert_eq!(files, there.tree(&folder(&id)));
    for file in told["files"].as_array().unwrap() {
        let bytes = fs::read(here.path(&format!("store/{}", file["ref"].as_str().unwrap()))).unwrap();
        assert_eq!((&file["blake3"], &file["sha256"]), (&json!(blake3_hex(&bytes)), &json!(sha256_hex(&bytes))));
        assert_eq!((&file["bytes"], &file["created"]), (&json!(bytes.len()), &json!(true)));
    }
    // No second commit point, and nothing that was published looks different.
    assert_eq!(here.published(FLIGHTS_RUN), before);
    here.ofs(&["verify", &id]).expect(0);
    let again = here.ofs(&["export", &id, "all", "--json"]).expect(0).json();
    assert!(again["files"].as_array().unwrap().iter().all(|f| f["created"] == false));
    // What stands with other content stays.
    let sheet = format!("{}/DATASHEET.md", folder(&id));
    here.write(&sheet, "mine");
    here.ofs(&["export", &id, "datasheet", "--json"]).refused(3, "EXPORT_IMMUTABILITY_VIOLATION");
    assert_eq!(here.text(&sheet), "mine");
    here.ofs(&["export", &id, "croissant"]).expect(0);
}

#[test]
fn exports_name_the_files_by_digest_and_the_inputs_by_proof() {
    let w = Workspace::flights();
    let id = published(&w, "audit");
    w.ofs(&["export", &id, "all"]).expect(0);
    let at = |name: &str| format!("{}/{name}", folder(&id));
    let (croissant, statement) = (w.json(&at("croissant.json")), w.json(&at("provenance.intoto.json")));
    let file = &croissant["distribution"][0];
    let part = fs::read(w.path(&at(file["contentUrl"].as_str().unwrap()))).unwrap();
    assert_eq!(file["sha256"], json!(sha256_hex(&part)));
    let index = w.json(&format!("store/{FLIGHTS_RUN}/ofs/datasets/{id}/index.json"));
    let names = |list: &Value| list.as_array().unwrap().iter().map(|c| c["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&croissant["recordSet"][0]["field"]), names(&index["schema"]));
    for subject in statement["subject"].as_array().unwrap() {
        let bytes = fs::read(w.path(&format!("store/{}", subject["name"].as_str().unwrap()))).unwrap();
        assert_eq!(subject["digest"], json!({"sha256": sha256_hex(&bytes), "blake3": blake3_hex(&bytes)}));
    }
    let predicate = &statement["predicate"]["buildDefinition"];
    assert_eq!(predicate["externalParameters"], index["identity"]);
    let events: Vec<Value> = w.text(&at("openlineage.jsonl")).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let replay = w.json(&format!("store/{FLIGHTS_RUN}/ofs/datasets/{id}/evidence/replay.json"));
    let digests = |list: &Value, pointer: &str| -> BTreeSet<String> {
        list.as_array().unwrap().iter().filter_map(|i| Some(i.pointer(pointer)?.as_str()?.to_owned())).collect()
    };
    let lanes = digests(&replay["lanes"], "/sequence_digest");
    assert!(lanes.is_subset(&digests(&events[0]["inputs"], "/facets/version/datasetVersion")));
    assert!(lanes.is_subset(&digests(&predicate["resolvedDependencies"], "/digest/ofsSequenceBlake3")));
    assert_eq!(events[1]["outputs"][0]["facets"]["version"]["datasetVersion"], index["fingerprint"]);
    // The one instant in the events is one of the evidence: the cut-off, or the last event where that is later.
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let newest = text(&index["identity"]["label_basis"]["label_asof_utc"]).max(text(&index["files"][0]["max_ts_utc"]));
    assert!(events.iter().all(|e| e["eventTime"] == json!(newest)));
    assert!(w.text(&at("DATASHEET.md")).contains("**Not training data**"));
}

#[test]
fn nothing_is_told_about_a_data_set_that_does_not_hold() {
    let w = Workspace::flights();
    let id = published(&w, "train");
    let part = format!("store/{FLIGHTS_RUN}/ofs/datasets/{id}/part-00000.parquet");
    let good = fs::read(w.path(&part)).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 1;
    w.write(&part, &bad);
    w.ofs(&["export", &id, "all", "--json"]).refused(3, "DATASET_UNVERIFIED");
    assert!(w.tree(&folder(&id)).is_empty());
    w.write(&part, &good);
    // Nor about one that nothing outside the store vouches for.
    fs::rename(w.path("state"), w.path("state.away")).unwrap();
    let manifest = format!("{FLIGHTS_RUN}/ofs/manifests/{id}.json");
    w.ofs(&["export", &manifest, "intoto", "--json"]).refused(3, "DATASET_UNVERIFIED");
    fs::rename(w.path("state.away"), w.path("state")).unwrap();
    w.ofs(&["export", "dm_none", "all", "--json"]).refused(2, "DATASET_NOT_FOUND");
    w.ofs(&["export", &id, "pdf"]).expect(2);
}

#[test]
fn exports_written_elsewhere_lead_to_the_same_data() {
    let w = Workspace::flights();
    let id = published(&w, "train");
    let there = w.scratch().join("for others");
    let told = w.ofs(&["export", &id, "all", "-o", there.to_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(told["files"].as_array().unwrap().len(), 4);
    assert!(w.tree(&folder(&id)).is_empty());
    let croissant: Value = serde_json::from_slice(&fs::read(there.join("croissant.json")).unwrap()).unwrap();
    let file = &croissant["distribution"][0];
    let part = fs::read(there.join(file["contentUrl"].as_str().unwrap())).unwrap();
    assert_eq!(file["sha256"], json!(sha256_hex(&part)));
    fs::write(there.join("croissant.json"), "mine").unwrap();
    w.ofs(&["export", &id, "croissant", "-o", there.to_str().unwrap(), "--json"]).refused(3, "EXPORT_IMMUTABILITY_VIOLATION");
    assert_eq!(fs::read(there.join("croissant.json")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(&there).unwrap().count(), 4);
}
