//! Going on gate by gate: what a gate has proved is proved again from its own files and never done again; what
//! does not prove itself any more is done again.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    FLIGHTS_RUN, Output, Workspace, archive_folder, archive_record, assertion, facts, instant, intent, lines, outcome, small,
};

const TRAIN: &str = "nycflights13.train.2013-01-01.2013-01-02";
const GATES: [&str; 3] = ["replay", "labels", "features"];

/// The gates that events of a type tell of.
fn gates(w: &Workspace, run: &str, event_type: &str) -> Vec<String> {
    let events = w.events(run);
    let of_type = events.iter().filter(|e| e["event_type"] == event_type);
    of_type.map(|e| e["detail"]["phase"].as_str().unwrap().to_owned()).filter(|gate| GATES.contains(&gate.as_str())).collect()
}

/// Kills the program right before its `n`-th write to the ledger; whether it came so far.
fn killed(w: &Workspace, intent: &str, n: usize) -> bool {
    let mut command = w.command(&["run", w.path(&format!("intents/{intent}.json")).to_str().unwrap(), "--json"]);
    command.env("OFS_FAULT", format!("kill@ledger.write:{n}"));
    command.output().unwrap().status.code().is_none()
}

/// A workspace whose run was killed with these gates passed.
fn killed_after(passed: &[&str], run: &str, make: impl Fn() -> Workspace, name: &str) -> Workspace {
    for n in 3.. {
        let w = make();
        assert!(killed(&w, name, n), "no kill leaves {passed:?} passed");
        if gates(&w, run, "GATE_PASSED") == passed {
            return w;
        }
    }
    unreachable!("some kill is the last one")
}

/// Takes the sources away from which the gates were proved.
fn take_away(w: &Workspace, run: &str, passed: &[&str]) {
    fs::remove_dir_all(w.path(&format!("store/{run}/archive"))).unwrap();
    let _ = fs::remove_dir_all(w.path("bus"));
    if passed.contains(&"labels") {
        fs::remove_dir_all(w.path("labels")).unwrap();
    }
}

fn resume(w: &Workspace, run: &str) -> Output {
    w.ofs(&["resume", run, "--json"])
}

#[test]
fn wherever_it_is_killed_a_gate_that_was_passed_is_not_walked_again() {
    let reference = small();
    reference.build("train");
    let wanted = reference.published(FLIGHTS_RUN);
    let mut met = Vec::new();
    for n in 3.. {
        let w = small();
        if !killed(&w, "train", n) {
            break;
        }
        let passed = gates(&w, TRAIN, "GATE_PASSED");
        if passed.is_empty() || w.row(TRAIN)["status"] == "DONE" {
            continue;
        }
        let passed: Vec<&str> = passed.iter().map(String::as_str).collect();
        take_away(&w, FLIGHTS_RUN, &passed);
        // With the replay alone, the labels are still needed; else nothing is.
        let done = resume(&w, TRAIN).expect(0).json();
        assert_eq!(done["status"], "DONE", "write {n}");
        assert_eq!(w.published(FLIGHTS_RUN), wanted, "write {n}");
        assert!(w.tree(&format!("store/{FLIGHTS_RUN}/ofs/staging")).is_empty(), "write {n}");
        // Once its manifest stands there is nothing to prove again.
        let reproved = gates(&w, TRAIN, "GATE_REPROVED");
        assert!(reproved.is_empty() || reproved == passed, "write {n}: {reproved:?}");
        let walked = gates(&w, TRAIN, "GATE_PASSED");
        assert!(walked == GATES || walked == passed, "write {n}: {walked:?}");
        let show = w.ofs(&["show", TRAIN, "--json"]).expect(0).json();
        assert!(show["gates"].as_array().unwrap().iter().all(|gate| gate["result"] == "PASSED"), "write {n}: {show}");
        if !reproved.is_empty() {
            for gate in show["gates"].as_array().unwrap() {
                let again = passed.contains(&gate["phase"].as_str().unwrap());
                assert_eq!((&gate["result"], &gate["reproved"]), (&json!("PASSED"), &json!(again)), "{gate}");
            }
            assert_eq!(w.ofs(&["show", TRAIN]).expect(0).out.matches("(proved again)").count(), passed.len());
            assert!(GATES.iter().zip(["replay", "labels", "draft"]).all(|(_, name)| done["evidence"][name].is_string()), "{done}");
            met.push(passed.len());
        }
    }
    met.dedup();
    assert_eq!(met, [1, 2, 3], "kills met every gate");
}

#[test]
fn kept_files_that_changed_are_not_trusted() {
    let reference = small();
    reference.build("train");
    let staging = format!("store/{FLIGHTS_RUN}/ofs/staging");
    type Damage = fn(&std::path::Path);
    let flip: Damage = |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let remove: Damage = |path| fs::remove_file(path).unwrap();
    for (suffix, damage, code) in [
        ("events-0", flip, "DIGEST_MISMATCH"),
        ("keyless-0", flip, "DIGEST_MISMATCH"),
        ("list.json", flip, "DIGEST_MISMATCH"),
        ("events-0", remove, "REF_NOT_FOUND"),
        ("list.json", remove, "REF_NOT_FOUND"),
    ] {
        let w = killed_after(&["replay"], TRAIN, small, "train");
        let name = w.tree(&staging).into_keys().find(|name| name.ends_with(&format!("-4-{suffix}"))).unwrap();
        damage(&w.path(&format!("{staging}/{name}")));
        assert_eq!(resume(&w, TRAIN).expect(0).json()["status"], "DONE", "{suffix}");
        let discarded: Vec<Value> = w.events(TRAIN).into_iter().filter(|e| e["event_type"] == "EVIDENCE_DISCARDED").collect();
        assert_eq!((discarded.len(), &discarded[0]["reason_code"], &discarded[0]["detail"]["phase"]), (1, &json!(code), &json!("replay")));
        assert_eq!(gates(&w, TRAIN, "GATE_PASSED"), ["replay", "replay", "labels", "features"]);
        assert_eq!(gates(&w, TRAIN, "GATE_REPROVED"), [""; 0]);
        assert_eq!(w.published(FLIGHTS_RUN), reference.published(FLIGHTS_RUN));
    }
    // Under another policy of replay, what an earlier one let through is not enough.
    let unverified = || {
        let w = small();
        w.write("ofs.toml", "[replay]\nverify_payload_hashes = false\n");
        w.intent("unverified", "train", |i| {
            i["request_id"] = json!("request.unverified");
            i["non_training_allowed"] = json!(true);
        });
        w
    };
    let w = killed_after(&["replay"], "request.unverified", unverified, "unverified");
    w.write("ofs.toml", "");
    resume(&w, "request.unverified");
    assert_eq!(gates(&w, "request.unverified", "GATE_REPROVED"), [""; 0]);
}

#[test]
fn a_run_that_failed_after_its_replay_goes_on_from_there() {
    let reference = small();
    reference.build("train");
    let w = small();
    fs::rename(w.path("labels"), w.scratch().join("labels")).unwrap();
    fs::create_dir(w.path("labels")).unwrap();
    assert_eq!(w.run("train").code, 3);
    assert_eq!((&w.row(TRAIN)["status"], gates(&w, TRAIN, "GATE_PASSED")), (&json!("FAILED"), vec!["replay".to_owned()]));
    fs::remove_dir(w.path("labels")).unwrap();
    fs::rename(w.scratch().join("labels"), w.path("labels")).unwrap();
    take_away(&w, FLIGHTS_RUN, &["replay"]);
    assert_eq!(resume(&w, TRAIN).expect(0).json()["outcome"], "NEW");
    assert_eq!(gates(&w, TRAIN, "GATE_REPROVED"), ["replay"]);
    assert_eq!(w.published(FLIGHTS_RUN), reference.published(FLIGHTS_RUN));
}

const RUN: &str = "platform_20260401T000000Z";

/// A made-up world with events that have no key, a row filter, a redelivery, and, where `bad`, a value that does
/// not fit its type.
fn odd(bad: bool) -> Workspace {
    let w = Workspace::empty().unguarded();
    let event = |i: usize| {
        let mut payload = json!({"amount": i, "country": if i.is_multiple_of(3) { "FR" } else { "DE" }});
        if !i.is_multiple_of(5) {
            payload["flow_id"] = json!(format!("k{}", i % 7));
        }
        if bad && i == 33 {
            payload["amount"] = json!("many");
        }
        json!({"event_id": format!("e{i:04}"), "platform_run_id": RUN, "ts_utc": instant(1_769_904_000_000_000 + i as i64 * 60_000_000), "payload": payload})
    };
    let mut records: Vec<Value> = (0..60).map(|i| archive_record("t", 0, "kafka_offset", &i.to_string(), &event(i))).collect();
    records.push(archive_record("t", 0, "kafka_offset", "60", &event(7)));
    w.write(&format!("{}/all.jsonl", archive_folder(RUN, "t", 0, "kafka_offset")), lines(&records));
    let labels: Vec<Value> =
        (0..60).map(|i| assertion(RUN, &format!("a{i}"), &format!("e{i:04}"), ("alpha", "X"), "2026-01-01T00:00:00Z")).collect();
    w.write("labels/all.jsonl", lines(&labels));
    w.write(
        "authority/features_v0.yaml",
        "policy_id: p\nrevision: r1\nlabel_types: {alpha: [X]}\nfeature_groups:\n  - {name: group, version: v1, windows: [{window: 1h, duration: 1h, ttl: 1h}], features: [{name: n, agg: count}, {name: s, agg: sum, field: amount, type: int64}]}\n",
    );
    w.write(&format!("store/{RUN}/sr/facts.json"), facts(RUN, "s").to_string());
    w.write(&format!("store/{RUN}/world/world.json"), "{}");
    let basis = json!([{"topic": "t", "partition": 0, "offset_kind": "kafka_offset", "start_offset": "0", "end_offset": "60"}]);
    let mut it = intent(RUN, "request.odd", basis, "group");
    it["filters"]["country"] = json!(["DE"]);
    w.write("intents/odd.json", it.to_string());
    w
}

#[test]
fn what_a_replay_found_out_about_odd_events_is_kept_with_it() {
    let reference = odd(false);
    reference.build("odd");
    for passed in [&["replay"][..], &["replay", "labels"]] {
        let w = killed_after(passed, "request.odd", || odd(false), "odd");
        take_away(&w, RUN, passed);
        resume(&w, "request.odd").expect(0);
        assert_eq!(gates(&w, "request.odd", "GATE_REPROVED"), passed);
        assert_eq!(w.published(RUN), reference.published(RUN));
        let undisturbed = odd(true).run("odd").refused(3, "FEATURE_VALUE_INVALID").json();
        let w = killed_after(passed, "request.odd", || odd(true), "odd");
        take_away(&w, RUN, passed);
        let refused = resume(&w, "request.odd").refused(3, "FEATURE_VALUE_INVALID").json();
        assert_eq!(refused["reason"], undisturbed["reason"]);
        w.assert_nothing_published(RUN);
    }
}

#[test]
fn an_interrupted_run_goes_on_from_its_replay() {
    let w = crate::support::large(60_000);
    let build = w.start(&["run", w.path("intents/x.json").to_str().unwrap(), "--json"]);
    crate::support::wait_for("the replay", std::time::Duration::from_secs(120), || {
        w.path("state/ledger.db").exists() && w.ofs(&["events", "request.large", "--json"]).out.contains("\"labels\"")
    });
    crate::support::signal(&build, "TERM");
    let output = outcome(build);
    assert_eq!((output.code, output.json()["status"].as_str()), (143, Some("QUEUED")), "{}", output.err);
    resume(&w, "request.large").expect(0);
    assert_eq!(gates(&w, "request.large", "GATE_REPROVED")[0], "replay");
}
