//! `ofs prove`: that no row depends on what it may not know, and that one row is a row of the data set.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::contracts::{schema, valid};
use crate::support::{FLIGHTS_RUN, Output, Workspace, assertion, large, repository};

fn published(w: &Workspace, intent: &str) -> String {
    w.build(intent)["dataset"]["manifest_id"].as_str().unwrap().to_owned()
}

/// Runs a Python script of the repository.
fn python(script: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("python3").arg(repository().join(script)).args(arguments).output().expect("python3 is there");
    (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

fn nothing_left(w: &Workspace) {
    assert_eq!(fs::read_dir(w.scratch()).unwrap().count(), 0, "a world stayed in scratch space");
}

fn prove(w: &Workspace, id: &str, more: &[&str]) -> Output {
    w.ofs(&[["prove", id, "--noninterference", "--json"].as_slice(), more].concat())
}

#[test]
fn no_row_depends_on_what_it_may_not_know_and_each_on_what_it_must() {
    let w = Workspace::flights();
    let id = published(&w, "train");
    let before = w.tree(&format!("store/{FLIGHTS_RUN}/ofs"));
    let told = prove(&w, &id, &["--samples", "2", "--seed", "4"]).expect(0).json();
    valid(&schema("noninterference_v1"), "certificate", &told);
    assert_eq!((&told["holds"], &told["reason"]), (&json!(true), &Value::Null));
    let checks = told["checks"].as_array().unwrap();
    let names: Vec<&str> = checks.iter().map(|c| c["what"].as_str().unwrap()).collect();
    assert_eq!(names, ["late labels", "outside the basis", "later events", "later events", "one label", "one amount"]);
    for check in checks {
        assert_eq!(check["verdict"], "HOLDS", "{check}");
        assert!(check["changed_inputs"].as_u64().unwrap() > 0, "{check}");
    }
    // Rows that may not change do not, and rows that must do.
    assert!(checks[..2].iter().all(|c| c["equal_rows"] == 842 && c["changed_rows"] == 0));
    assert!(checks[2..4].iter().all(|c| c["equal_rows"].as_u64().unwrap() > 0 && c["changed_rows"].as_u64().unwrap() > 0));
    assert!(checks[4]["changed_rows"] == 1 && checks[4]["dependent_rows"] == 1);
    assert!(checks[5]["changed_rows"].as_u64().unwrap() >= 1 && checks[5]["changed_rows"] == checks[5]["dependent_rows"]);
    // The seed says which worlds there are; nothing is left of them.
    assert_eq!(prove(&w, &id, &["--samples", "2", "--seed", "4"]).expect(0).json(), told);
    assert_ne!(prove(&w, &id, &["--samples", "2", "--seed", "5"]).expect(0).json()["checks"], told["checks"]);
    assert_eq!(w.tree(&format!("store/{FLIGHTS_RUN}/ofs")), before);
    nothing_left(&w);
    w.ofs(&["prove", &id]).expect(2);
    w.ofs(&["prove", &id, "--noninterference", "--samples", "0"]).expect(2);
}

#[test]
fn worlds_have_redeliveries_ties_and_late_events_too() {
    let w = Workspace::empty().unguarded();
    w.ofs(&["generate", "--events", "1500", "--partitions", "3", "--seed", "7", w.path("g").to_str().unwrap()]).expect(0);
    let at = |args: &[&str]| w.ofs_with(&[("OFS_WORKSPACE", w.path("g").to_str().unwrap())], args);
    let built = at(&["run", w.path("g/intents/audit.json").to_str().unwrap(), "--json"]).expect(0).json();
    let manifest = built["dataset"]["manifest_ref"].as_str().unwrap();
    let told = at(&["prove", manifest, "--noninterference", "--json", "--samples", "4"]).expect(0).json();
    let checks = told["checks"].as_array().unwrap();
    assert!(checks.iter().all(|c| c["verdict"] == "HOLDS"), "{told}");
    assert_eq!(checks.last().unwrap()["changed_rows"], checks.last().unwrap()["dependent_rows"]);
    nothing_left(&w);
}

#[test]
fn arrival_aware_rows_depend_on_fewer_events() {
    let w = Workspace::flights();
    let authority = w.text("authority/features_v0.yaml");
    w.write("authority/features_v0.yaml", authority.replace("    key_type: flow_id", "    availability: arrival\n    key_type: flow_id"));
    let id = published(&w, "train");
    let told = prove(&w, &id, &["--samples", "2"]).expect(0).json();
    assert!(told["checks"].as_array().unwrap().iter().all(|c| c["verdict"] == "HOLDS"), "{told}");
}

#[test]
fn nothing_is_certified_of_a_data_set_whose_inputs_have_drifted() {
    let w = Workspace::flights();
    let id = published(&w, "train");
    let (event, _) = first_row(&w, &id);
    let late = assertion(FLIGHTS_RUN, "added-later", &event, ("arrival_status", "CANCELLED"), "2013-01-20T00:00:00Z");
    w.write("labels/assertions.jsonl", format!("{}{late}\n", w.text("labels/assertions.jsonl")));
    let told = prove(&w, &id, &[]).refused(3, "DATASET_UNVERIFIED");
    assert!(told.json()["message"].as_str().unwrap().contains("as they are now"), "{}", told.out);
    nothing_left(&w);
}

/// Event id of some row, and its index.
fn first_row(w: &Workspace, id: &str) -> (String, String) {
    let event = w.text("labels/assertions.jsonl").lines().find_map(|line| {
        let a: Value = serde_json::from_str(line).unwrap();
        a["label_subject_key"]["event_id"].as_str().map(str::to_owned)
    });
    (event.unwrap(), format!("store/{FLIGHTS_RUN}/ofs/datasets/{id}/index.json"))
}

#[test]
fn a_row_is_proved_by_the_index_alone() {
    let w = Workspace::flights();
    let id = published(&w, "train");
    let (event, index) = first_row(&w, &id);
    let (file, index) = (w.scratch().join("proof.json"), w.path(&index));
    let (file, index) = (file.to_str().unwrap(), index.to_str().unwrap());
    let told = w.ofs(&["prove", &id, "--row", &event, "-o", file, "--json"]).expect(0).json();
    valid(&schema("prove_row_v1"), "told", &told);
    let proof: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    valid(&schema("row_proof_v1"), "proof", &proof);
    let (holds, said) = python("contracts/verify_row.py", &[file, index]);
    assert!(holds && said.contains(&format!("event_id = \"{event}\"")), "{said}");
    // The row that was proved is the row that is explained.
    let explained = w.ofs(&["explain", &id, &event, "--json"]).expect(0).json();
    let row = &explained["row"];
    for (name, value) in [("row_id", &row["row_id"]), ("payload_hash", &row["payload_hash"]), ("key", &row["key"])] {
        assert!(said.contains(&format!("  {name} = {value}")), "{name}: {value}\n{said}");
    }
    // Nor does it prove a row of another data set, or stand for another event.
    let other = published(&w, "audit");
    let (_, of_other) = first_row(&w, &other);
    let (holds, said) = python("contracts/verify_row.py", &[file, w.path(&of_other).to_str().unwrap()]);
    assert!(!holds && said.contains("NOT PROVED"), "{said}");
    w.ofs(&["prove", &id, "--row", &event, "-o", file]).expect(2);
    w.ofs(&["prove", &id, "--row", "nobody", "-o", &format!("{file}.2"), "--json"]).refused(2, "ROW_NOT_FOUND");
    assert!(!w.scratch().join("proof.json.2").exists());
    let lines = fs::read_to_string(repository().join("contracts/verify_row.py")).unwrap().lines().count();
    assert!(lines < 300, "{lines}");
}

#[test]
fn no_bit_of_a_row_proof_or_of_what_it_rests_on_can_be_turned() {
    let w = large(5);
    let built = w.build("x");
    let (manifest, id) = (built["dataset"]["manifest_ref"].as_str().unwrap(), built["dataset"]["manifest_id"].as_str().unwrap());
    let file = w.scratch().join("proof.json");
    let run = manifest.split('/').next().unwrap();
    let index = w.path(&format!("store/{run}/ofs/datasets/{id}/index.json"));
    w.ofs(&["prove", manifest, "--row", "e00000004", "-o", file.to_str().unwrap()]).expect(0);
    let (holds, said) = python("tests/flip_row.py", &[file.to_str().unwrap(), index.to_str().unwrap()]);
    assert!(holds, "{said}");
    let tried: u64 = said.split_whitespace().next().unwrap().parse().unwrap();
    assert!(tried > 10_000, "{said}");
}
