//! `ofs closure`: the gate's verdict, its evidence, and what it leaves alone.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::{Workspace, files, repository};

/// Ids of the obligations of phases 1 to 10 that name no proof, without those decided against.
fn unproved() -> BTreeSet<String> {
    let text = fs::read_to_string(repository().join("contracts/obligations.toml")).unwrap();
    let list: toml::Table = text.parse().unwrap();
    let open = list["obligation"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|o| o["phase"].as_integer() > Some(0) && o["proof"].as_array().unwrap().is_empty());
    open.map(|o| o["id"].as_str().unwrap().to_owned()).filter(|id| !["O018", "O079", "O110"].contains(&id.as_str())).collect()
}

#[test]
fn the_gate_is_closed_exactly_when_every_check_holds_and_everything_owed_is_proved() {
    let w = Workspace::flights();
    let out = w.path("../evidence.json");
    let before = files(&w.root());
    let ran = w.ofs(&["closure", "--json", "--out", out.to_str().unwrap()]);
    let evidence = ran.json();
    assert_eq!(serde_json::from_slice::<Value>(&fs::read(&out).unwrap()).unwrap(), evidence);
    let failed: Vec<&Value> = evidence["checks"].as_array().unwrap().iter().filter(|c| c["ok"] != json!(true)).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let rows = evidence["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|r| r["phase"].as_u64().unwrap()).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    let mut open = BTreeSet::new();
    for row in rows {
        let mine: BTreeSet<String> =
            row["obligations"]["unproved"].as_array().unwrap().iter().map(|o| o.as_str().unwrap().to_owned()).collect();
        assert_eq!(row["status"], if mine.is_empty() { "PASSED" } else { "FAILED" }, "{row}");
        assert!(row["checks"].as_u64().unwrap() >= 5, "{row}");
        open.extend(mine);
    }
    let unproved = unproved();
    assert_eq!(open, unproved);
    let (verdict, exit) = if unproved.is_empty() { ("CLOSED", 0) } else { ("OPEN", 3) };
    assert_eq!((evidence["verdict"].as_str(), ran.code), (Some(verdict), exit));
    assert_eq!(evidence["obligations"]["total"], 167);
    let gates: Vec<&str> = evidence["gates"].as_array().unwrap().iter().map(|g| g["gate"].as_str().unwrap()).collect();
    assert_eq!(gates, ["6.2", "6.6", "6.7"]);
    // Every scenario was played.
    let scenarios = files(&repository().join("fixtures/scenarios")).len();
    let played = evidence["checks"].as_array().unwrap().iter().filter(|c| c["name"].as_str().unwrap().starts_with("scenario ")).count();
    assert_eq!(played, scenarios);
    // The user's own workspace is not even opened, and scratch space is given back.
    assert_eq!((files(&w.root()), files(&w.scratch())), (before, vec![]));
    assert!(ran.err.lines().count() >= played, "progress is told");
}

#[test]
fn the_gate_replaces_nothing_but_its_own_evidence() {
    let w = Workspace::empty();
    w.write("notes.json", "{\"mine\": true}");
    let refused = w.ofs(&["closure", "--out", w.path("notes.json").to_str().unwrap()]).expect(2);
    assert!(refused.err.contains("no evidence of the gate") && refused.err.contains("--out"), "{}", refused.err);
    assert_eq!(w.text("notes.json"), "{\"mine\": true}");
    w.ofs(&["closure", "--keep", w.root().to_str().unwrap(), "--out", w.path("new.json").to_str().unwrap()]).expect(2);
    assert_eq!(files(&w.root()).len(), 1);
}
