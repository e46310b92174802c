//! Operators at work on other processes' runs: calling off, giving up, notes, budgets, bundles.

use std::collections::BTreeMap;
use std::fs;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use ofs::config::Config;
use ofs::ledger::{Ledger, Order};
use ofs::operate::fault::{Fault, FaultyStore, until_killed};
use ofs::pipeline::admit::Supersession;
use ofs::pipeline::gate::Env;
use ofs::pipeline::progress::Progress;
use ofs::pipeline::run::{self, Host, Request, StopSignal, Unattended};
use ofs::store::{LocalStore, Unrecorded};
use ofs::time::SystemClock;
use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, Output, Workspace, blake3_hex, halt, keys, large, outcome, signal, thorough, wait_for};

const TRAIN: &str = "nycflights13.train.2013-01-01.2013-01-02";
const LARGE: &str = "request.large";
const LARGE_RUN: &str = "platform_20260301T000000Z";
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a build that takes a while, and waits until its replay is under way.
fn under_way(w: &Workspace) -> Child {
    let child = w.start(&["run", w.path("intents/x.json").to_str().unwrap(), "--json"]);
    wait_for("the replay", PATIENCE, || {
        let shown = w.ofs(&["show", LARGE, "--json"]);
        shown.code == 0 && shown.json()["run"]["status"] == "RUNNING" && shown.json()["run"]["phase"] == "replay"
    });
    child
}

/// What a build of the train intent runs in, with a fault.
fn house(w: &Workspace, fault: Fault) -> (Env, Host, Request) {
    let config = Arc::new(Config::load(Some(&w.root()), &w.root(), &BTreeMap::new()).unwrap());
    let store = LocalStore::open(&config.path("object_store")).unwrap();
    let clock = Arc::new(SystemClock);
    let host = Host {
        ledger: Arc::new(Ledger::open(&config.path("ledger"), clock.clone(), "HUMAN::tester").unwrap()),
        clock,
        owner: fault.owner(),
        signal: StopSignal::default(),
    };
    let env = Env {
        store_root: Some(store.root().to_owned()),
        store: Arc::new(FaultyStore::new(Arc::new(store), fault)),
        config,
        cancel: Default::default(),
        progress: Arc::new(Progress::default()),
        attempt: "p1".into(),
        audit: Arc::new(Unrecorded),
    };
    let intent = fs::read(w.path("intents/train.json")).unwrap();
    (env, host, Request { intent, supersession: Supersession::default() })
}

/// A build that dies right before it puts its manifest, so that its commit is unsettled.
fn killed_at_the_manifest(w: &Workspace) {
    let (env, host, request) = house(w, Fault { die_before: Some("/manifests/".into()), ..Fault::default() });
    assert!(until_killed(|| run::run(&request, &env, &host, &Unattended)).is_none());
}

/// `ofs.action.v1` as it must be.
fn acted(output: &Output, action: &str, from: &str, to: &str) -> Value {
    let document = output.json();
    assert_eq!(document["schema_version"], "ofs.action.v1");
    assert_eq!((&document["action"], &document["from"], &document["to"]), (&json!(action), &json!(from), &json!(to)));
    assert_eq!(document["run_key"].as_str().unwrap().len(), 32);
    document
}

fn last_event(w: &Workspace, run: &str) -> Value {
    w.events(run).pop().unwrap()
}

#[test]
fn a_live_build_of_another_process_is_called_off() {
    let w = large(150_000);
    let other = Workspace::copy_of(&w).unguarded();
    for (w, command, status, code) in
        [(&w, "cancel", "CANCELLED", "CANCELLED_BY_OPERATOR"), (&other, "fail", "FAILED", "FAILED_BY_OPERATOR")]
    {
        let child = under_way(w);
        let output = w.ofs_with(&[("USER", "ada")], &[command, LARGE, "--reason", "wrong day", "--json"]).expect(0);
        acted(&output, command, "RUNNING", status);
        let owner = outcome(child).refused(3, code);
        assert_eq!(owner.json()["status"], status);
        let row = w.row(LARGE);
        assert_eq!((&row["status"], &row["reason_code"], &row["owner"]), (&json!(status), &json!(code), &Value::Null));
        w.assert_no_manifest(LARGE_RUN);
        let events = w.events(LARGE);
        let asked = events.iter().find(|e| e["event_type"] == format!("OPERATOR_{}_REQUESTED", command.to_uppercase())).unwrap();
        assert_eq!((&asked["actor"], &asked["detail"]["reason"]), (&json!("HUMAN::ada"), &json!("wrong day")));
        let took = moment(events.last().unwrap()) - moment(asked);
        println!("the owner obeyed after {took} us");
        assert!(!thorough() || took < 2_000_000, "{took} us");
        let message = events.last().unwrap()["detail"]["message"].as_str().unwrap();
        assert!(message.contains("HUMAN::ada") && message.contains("wrong day"), "{message}");
        // The same request again starts nothing.
        let again = w.run("x").refused(3, code);
        assert_eq!(again.json()["outcome"], "DUPLICATE");
        // Neither does the same order.
        w.ofs(&[command, LARGE, "--reason", "again", "--json"]).refused(3, "INVALID_TRANSITION");
    }
}

/// A moment in the ledger, in micros.
fn moment(event: &Value) -> i64 {
    ofs::time::Instant::parse(event["at_utc"].as_str().unwrap()).unwrap().0
}

#[test]
fn a_run_called_off_during_its_publication_leaves_no_index() {
    let w = Workspace::flights();
    let (env, host, request) = house(&w, Fault::default());
    let ledger = host.ledger.clone();
    let order = move || {
        let key = ledger.run_by_request(TRAIN).unwrap().unwrap().run_key;
        ledger.order(Order::Cancel, &key, "the wrong day").unwrap();
    };
    let store = FaultyStore::new(env.store.clone(), Fault { overtaken_before: Some("/evidence/features.json".into()), ..Fault::default() });
    let env = Env { store: Arc::new(store.overtaken(Box::new(order))), ..env };
    let result = run::run(&request, &env, &host, &Unattended).unwrap();
    assert_eq!(result.text("/status"), "CANCELLED");
    let left: Vec<String> = w.published(FLIGHTS_RUN).into_keys().collect();
    assert!(left.iter().all(|name| !name.ends_with("index.json") && !name.starts_with("manifests")), "{left:?}");
    assert_eq!(w.tree(&format!("store/{FLIGHTS_RUN}/ofs/publication_receipts")).len(), 0);
    // The same meaning under another request goes on from there.
    w.intent("again", "train", |i| i["request_id"] = json!("request.again"));
    let done = w.build("again");
    let reference = Workspace::flights();
    reference.build("train");
    assert_eq!((done["outcome"].as_str(), w.published(FLIGHTS_RUN)), (Some("NEW"), reference.published(FLIGHTS_RUN)));
}

#[test]
fn a_note_does_not_hide_that_a_run_is_stuck() {
    let w = Workspace::flights();
    w.write("ofs.toml", "[launcher]\nstall_seconds = 1\n");
    w.ofs(&["submit", w.path("intents/train.json").to_str().unwrap(), "--json"]).expect(0);
    let stuck = || w.ofs(&["runs", "--stuck", "--json"]).expect(0).json()["runs"].clone();
    wait_for("the stall", PATIENCE, || stuck()[0]["stuck_reason"] == "QUEUED_NO_WORKER");
    w.ofs(&["note", TRAIN, "I look into it"]).expect(0);
    w.ofs(&["bundle", TRAIN, "-o", w.scratch().join("b.json").to_str().unwrap()]).expect(0);
    assert_eq!(
        (&stuck()[0]["stuck_reason"], last_event(&w, TRAIN)["event_type"].as_str()),
        (&json!("QUEUED_NO_WORKER"), Some("OPERATOR_BUNDLE"))
    );
}

#[test]
fn every_ref_that_a_run_resolves_is_on_record_and_in_no_proof() {
    let w = Workspace::flights();
    let plan = w.ofs(&["plan", w.path("intents/train.json").to_str().unwrap(), "--json"]).expect(0);
    assert!(plan.json()["feasible"] == true && !w.path("state/ledger.db").exists());
    w.build("train");
    let refs = w.ofs(&["show", TRAIN, "--json"]).expect(0).json()["refs"].clone();
    let told = |refs: &Value| -> Vec<(String, String)> {
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        refs.as_array().unwrap().iter().map(|r| (text(&r["ref_type"]), text(&r["decision"]))).collect()
    };
    let granted = |kinds: &[&str]| kinds.iter().map(|k| ((*k).to_owned(), "GRANTED".to_owned())).collect::<Vec<_>>();
    assert_eq!(told(&refs), granted(&["RUN_FACTS", "OWNERSHIP_BOUNDARY", "FEATURE_AUTHORITY", "LABEL_TIMELINE"]), "{refs}");
    assert_eq!(
        (&refs[0]["actor"], &refs[0]["lease_epoch"], &refs[0]["reason_code"]),
        (&json!("SYSTEM::ofs_worker"), &json!(1), &Value::Null)
    );
    assert!(refs[0]["ref"].as_str().unwrap().starts_with(FLIGHTS_RUN) && refs[0]["purpose"].as_str().unwrap().len() > 5);
    // Asked again, nothing is resolved, so nothing more is on record.
    w.build("train");
    assert_eq!(w.ofs(&["show", TRAIN, "--json"]).expect(0).json()["refs"], refs);
    // A denial is on record, for everybody to see, and blocks.
    w.intent("denied", "train", |i| {
        i["request_id"] = json!("request.denied");
        i["parity_anchor_ref"] = json!("platform_elsewhere/anchor.json");
    });
    w.run("denied").refused(3, "REF_SCOPE_MISMATCH");
    let shown = w.ofs(&["show", "request.denied"]).expect(0).out;
    assert!(shown.contains("platform_elsewhere/anchor.json as PARITY_ANCHOR: REF_SCOPE_MISMATCH"), "{shown}");
    let file = w.scratch().join("denied.json");
    w.ofs(&["bundle", "request.denied", "-o", file.to_str().unwrap()]).expect(0);
    let bundle: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let last = bundle["ref_audit"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["ref_type"], &last["decision"], &last["reason_code"]),
        (&json!("PARITY_ANCHOR"), &json!("DENIED"), &json!("REF_SCOPE_MISMATCH"))
    );
    // Who resolved what is about a run and never in what it proves.
    for (name, bytes) in w.tree(&format!("store/{FLIGHTS_RUN}/ofs/datasets")) {
        assert!(!String::from_utf8_lossy(&bytes).contains("SYSTEM::ofs_worker"), "{name}");
    }
}

#[test]
fn an_owner_that_does_not_obey_is_named_and_can_be_replaced() {
    let w = large(150_000);
    w.write("ofs.toml", "[launcher]\nlease_seconds = 6\n");
    let child = under_way(&w);
    halt(&w, &child);
    let output = w.ofs(&["cancel", LARGE, "--reason", "it hangs", "--json"]).expect(5);
    let told = acted(&output, "cancel", "RUNNING", "RUNNING");
    assert!(told["owner"].as_str().unwrap().contains(&format!("pid {}", child.id())), "{told}");
    assert!(output.err.contains("has not obeyed") && output.err.contains("takes the run over"), "{}", output.err);
    // Another order does not replace the first.
    let other = w.ofs(&["fail", LARGE, "--reason", "no, fail it", "--json"]).refused(3, "INVALID_TRANSITION");
    assert!(other.err.contains("after a cancel"), "{}", other.err);
    wait_for("the lease to end", PATIENCE, || w.row(LARGE)["stuck_reason"] == "LEASE_EXPIRED");
    acted(&w.ofs(&["fail", LARGE, "--reason", "it hangs", "--json"]).expect(0), "fail", "RUNNING", "FAILED");
    // The owner who wakes up changes nothing.
    let before = w.events(LARGE);
    signal(&child, "CONT");
    outcome(child).refused(5, "LEASE_LOST");
    assert_eq!((w.events(LARGE), w.row(LARGE)["status"].clone()), (before, json!("FAILED")));
    w.assert_no_manifest(LARGE_RUN);
}

#[test]
fn a_run_of_a_dead_owner_is_stuck_at_once_and_can_be_given_up() {
    let w = large(150_000);
    let mut child = under_way(&w);
    child.kill().unwrap();
    child.wait().unwrap();
    let stuck = w.ofs(&["runs", "--stuck", "--json"]).expect(0).json();
    let run = &stuck["runs"][0];
    let key = run["run_key"].as_str().unwrap();
    assert_eq!((&run["stuck_reason"], &stuck["workers_alive"]), (&json!("LEASE_EXPIRED"), &json!(0)));
    assert_eq!(run["next"], format!("ofs resume {key}"));
    let text = w.ofs(&["runs", "--stuck"]).expect(0).out;
    assert!(text.contains("LEASE_EXPIRED") && text.contains(&format!("next: ofs resume {key}")) && text.contains("0 worker(s)"), "{text}");
    w.ofs(&["fail", LARGE, "--json"]).expect(2);
    w.ofs(&["fail", LARGE, "--reason", " ", "--json"]).expect(2);
    acted(&w.ofs(&["fail", LARGE, "--reason", "the host is gone", "--json"]).expect(0), "fail", "RUNNING", "FAILED");
    let row = w.row(LARGE);
    assert_eq!(
        (&row["status"], &row["reason_code"], &row["end_class"]),
        (&json!("FAILED"), &json!("FAILED_BY_OPERATOR"), &json!("FAILED"))
    );
    assert_eq!(last_event(&w, LARGE)["event_type"], "OPERATOR_FAIL");
    assert_eq!(w.ofs(&["runs", "--stuck", "--json"]).expect(0).json()["runs"], json!([]));
    w.ofs(&["resume", LARGE, "--json"]).refused(3, "INVALID_TRANSITION");
    w.assert_no_manifest(LARGE_RUN);
}

#[test]
fn from_the_start_of_a_commit_until_it_is_settled_nothing_can_be_called_off() {
    let w = Workspace::flights();
    killed_at_the_manifest(&w);
    assert_eq!(last_event(&w, TRAIN)["event_type"], "COMMIT_STARTED");
    let before = w.events(TRAIN);
    for args in [["cancel", TRAIN, "--reason", "x", "--json"], ["fail", TRAIN, "--reason", "x", "--json"]] {
        let refused = w.ofs(&args).refused(3, "INVALID_TRANSITION");
        assert!(refused.err.contains("unsettled; legal now: resume, note, bundle"), "{}", refused.err);
    }
    assert_eq!(w.events(TRAIN), before);
    assert_eq!(w.ofs(&["show", TRAIN, "--json"]).expect(0).json()["actions"], json!(["resume", "note", "bundle"]));
    assert_eq!(w.ofs(&["resume", TRAIN, "--json"]).expect(0).json()["status"], "DONE");
    let late = w.ofs(&["cancel", TRAIN, "--json"]).refused(3, "INVALID_TRANSITION");
    assert!(late.err.contains("is DONE"), "{}", late.err);
    assert_eq!(w.manifests(FLIGHTS_RUN).len(), 1);
}

#[test]
fn a_note_stays_with_a_run_that_is_done() {
    let w = Workspace::flights();
    w.build("train");
    let before = (w.row(TRAIN), w.published(FLIGHTS_RUN));
    let hostile = "hand over to Bo\u{202e}\u{1b}[2J";
    let output = w.ofs_with(&[("USER", "ada")], &["note", TRAIN, hostile, "--json"]).expect(0);
    acted(&output, "note", "DONE", "DONE");
    let event = last_event(&w, TRAIN);
    assert_eq!((&event["event_type"], &event["status"], &event["actor"]), (&json!("OPERATOR_NOTE"), &json!("DONE"), &json!("HUMAN::ada")));
    assert_eq!(event["detail"]["text"], hostile);
    let text = w.ofs(&["events", TRAIN]).expect(0).out;
    assert!(text.contains("hand over to Bo") && !text.contains(crate::support::hostile), "{text}");
    let mut after = w.row(TRAIN);
    after["updated_at_utc"] = before.0["updated_at_utc"].clone();
    assert_eq!((after, w.published(FLIGHTS_RUN)), before);
    w.ofs(&["note", TRAIN, ""]).expect(2);
    w.ofs(&["note", TRAIN, &"x".repeat(5_000)]).expect(2);
    w.ofs(&["note", "nobody", "x", "--json"]).refused(2, "RUN_NOT_FOUND");
    // Looking for a run makes no ledger.
    let bare = Workspace::flights();
    bare.ofs(&["cancel", "nobody", "--json"]).refused(2, "RUN_NOT_FOUND");
    assert!(!bare.path("state/ledger.db").exists());
}

#[test]
fn a_bundle_holds_everything_about_a_run_and_replaces_nothing() {
    let w = Workspace::flights();
    let done = w.build("train");
    let key = done["run_key"].as_str().unwrap();
    let file = w.scratch().join("bundle.json");
    let at = file.to_str().unwrap();
    let told = acted(&w.ofs(&["bundle", TRAIN, "-o", at, "--json"]).expect(0), "bundle", "DONE", "DONE");
    let bytes = fs::read(&file).unwrap();
    assert_eq!((&told["blake3"], &told["bytes"]), (&json!(blake3_hex(&bytes)), &json!(bytes.len())));
    let bundle: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((&bundle["schema_version"], &bundle["run_key"]), (&json!("ofs.bundle.v1"), &json!(key)));
    let wanted = ["run", "events", "audit", "samples", "receipts", "refusals", "config", "doctor", "release", "log", "chain_problems"];
    assert!(wanted.iter().all(|k| keys(&bundle).contains(*k)), "{:?}", keys(&bundle));
    let list = |name: &str| bundle[name].as_array().unwrap().clone();
    let types: Vec<Value> = list("events").iter().map(|e| e["event_type"].clone()).collect();
    assert_eq!((types.first(), types.last()), (Some(&json!("INTENT_QUEUED")), Some(&json!("RUN_DONE"))));
    let receipts = list("receipts");
    for folder in ["resolved_build_plan", "replay_completeness", "label_resolution", "dataset_draft", "publication_receipts"] {
        let reference = format!("{FLIGHTS_RUN}/ofs/{folder}/{key}.json");
        let receipt = receipts.iter().find(|r| r["ref"] == *reference).unwrap_or_else(|| panic!("{folder}"));
        let stored = w.text(&format!("store/{reference}"));
        assert_eq!(receipt["blake3"], blake3_hex(stored.as_bytes()));
        assert_eq!(receipt["document"], serde_json::from_str::<Value>(&stored).unwrap());
    }
    assert!(receipts.iter().any(|r| r["ref"] == done["dataset"]["manifest_ref"]));
    assert_eq!((bundle["run"]["status"].as_str(), &bundle["chain_problems"]), (Some("DONE"), &json!([])));
    assert!(!list("samples").is_empty() && !bundle["doctor"]["resources"].as_array().unwrap().is_empty());
    let log = list("log");
    assert!(!log.is_empty() && log.len() <= 500 && log.iter().all(|l| l.as_str().unwrap().contains(key)));
    let settings = bundle["config"]["settings"].as_array().unwrap();
    assert!(settings.iter().any(|s| s["key"] == "paths.object_store" && s["value"] == "store"));
    // It is on record, and what is there stays.
    assert_eq!(last_event(&w, TRAIN)["detail"]["blake3"], told["blake3"]);
    let refused = w.ofs(&["bundle", TRAIN, "-o", at]).expect(2);
    assert!(refused.err.contains("nothing was written"), "{}", refused.err);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    // What a refused gate found comes along, and secrets of a store's address do not.
    w.intent("bad", "train", |i| {
        i["request_id"] = json!("request.bad");
        i["filters"]["label_coverage_policy"]["max_conflict_ratio"] = json!(0);
        i["label_basis"]["label_asof_utc"] = json!("2013-01-01T00:00:00Z");
    });
    assert_eq!(w.run("bad").code, 3);
    let other = w.scratch().join("other.json");
    w.ofs(&["bundle", "request.bad", "-o", other.to_str().unwrap()]).expect(0);
    let bundle: Value = serde_json::from_slice(&fs::read(&other).unwrap()).unwrap();
    assert!(!bundle["refusals"].as_array().unwrap().is_empty(), "{bundle}");
    let broken = w.scratch().join("broken.json");
    let address = [("OFS_PATHS_OBJECT_STORE", "s3://key:hunter2@bucket/x?sig=hunter2")];
    let output = w.ofs_with(&address, &["bundle", TRAIN, "-o", broken.to_str().unwrap()]);
    // Even a workspace whose store is out of reach gives a bundle.
    assert_eq!(output.code, 0, "{}", output.err);
    let text = fs::read_to_string(&broken).unwrap();
    let leak = text.lines().find(|l| l.contains("hunter2"));
    assert!(leak.is_none() && text.contains("s3://***@bucket/x?***"), "{leak:?}");
}

#[test]
fn a_spent_retry_budget_stays_stuck_until_it_is_renewed_or_the_run_is_called_off() {
    let w = Workspace::flights();
    w.write(
        "ofs.toml",
        format!("{}\n[launcher]\nmax_publish_retry_attempts = 1\n", fs::read_to_string(w.path("ofs.toml")).unwrap_or_default()),
    );
    let blocked = format!("store/{FLIGHTS_RUN}/ofs/manifests");
    w.write(&blocked, "in the way");
    w.run("train").refused(4, "COMMIT_FAILED");
    let twin = Workspace::copy_of(&w);
    w.ofs(&["retry", TRAIN, "--json"]).refused(4, "COMMIT_FAILED");
    w.ofs(&["retry", TRAIN, "--json"]).refused(3, "PUBLISH_RETRY_EXHAUSTED");
    let stuck = w.ofs(&["runs", "--stuck", "--json"]).expect(0).json();
    assert_eq!(stuck["runs"][0]["stuck_reason"], "RETRY_EXHAUSTED");
    assert!(stuck["runs"][0]["next"].as_str().unwrap().contains("--grant"), "{stuck}");
    for args in [vec!["--grant", "1"], vec!["--reason", "x"], vec!["--grant", "0", "--reason", "x"], vec!["--grant", "1", "--reason", ""]] {
        let args: Vec<&str> = ["retry", TRAIN].into_iter().chain(args).collect();
        w.ofs(&args).expect(2);
    }
    fs::remove_file(w.path(&blocked)).unwrap();
    let done = w.ofs(&["retry", TRAIN, "--grant", "2", "--reason", "the store is back", "--json"]).expect(0).json();
    assert_eq!(done["status"], "DONE");
    let events = w.events(TRAIN);
    let granted = events.iter().find(|e| e["event_type"] == "RETRY_GRANTED").unwrap();
    assert_eq!((&granted["detail"]["grant"], &granted["detail"]["reason"]), (&json!(2), &json!("the store is back")));
    assert_eq!(w.row(TRAIN)["retries_granted"], 2);
    w.ofs(&["retry", TRAIN, "--grant", "1", "--reason", "x", "--json"]).refused(3, "RETRY_NOT_PENDING");
    // A settled pending run may be called off instead.
    acted(&twin.ofs(&["cancel", TRAIN, "--json"]).expect(0), "cancel", "PUBLISH_PENDING", "CANCELLED");
    assert_eq!(twin.ofs(&["runs", "--stuck", "--json"]).expect(0).json()["runs"], json!([]));
    twin.ofs(&["retry", TRAIN, "--json"]).refused(3, "RETRY_NOT_PENDING");
}

#[test]
fn no_command_writes_where_inputs_or_published_data_lie() {
    let w = Workspace::flights();
    let id = w.build("train")["dataset"]["manifest_id"].as_str().unwrap().to_owned();
    let store = format!("store/{FLIGHTS_RUN}");
    let (inputs, published) = (w.inputs(), w.published(FLIGHTS_RUN));
    let link = w.scratch().join("link");
    std::os::unix::fs::symlink(w.path("labels"), &link).unwrap();
    let linked = link.join("b.jsonl");
    let refused = |command: &[&str], path: &str| {
        let path = w.path(path);
        let args: Vec<&str> = command.iter().copied().chain([path.to_str().unwrap(), "--json"]).collect();
        let output = w.ofs(&args).refused(2, "OUTPUT_PATH_REFUSED");
        assert!(output.err.contains("nothing was written") && output.err.contains("next:"), "{}", output.err);
    };
    let assertions = w.path("labels/assertions.jsonl");
    let assertions = assertions.to_str().unwrap();
    let bundle = ["bundle", TRAIN, "-o"];
    for at in ["labels/b.jsonl", "bus/b.json", "authority/b.yaml", "intents/../labels/b.jsonl", linked.to_str().unwrap()] {
        refused(&bundle, at);
    }
    for part in ["archive", "sr", "ofs/manifests", "ofs/datasets", "ofs/sealed", "new"] {
        refused(&bundle, &format!("{store}/{part}/dm_aaa.json"));
        refused(&["export", &id, "all", "-o"], &format!("{store}/{part}"));
    }
    refused(&["export", &id, "all", "-o"], "labels/exports");
    for at in [format!("{store}/archive/x.db"), "labels/x.db".into()] {
        refused(&["labels", "import", assertions, "--out"], &at);
    }
    refused(&["intent", "new", "--asof", "2013-02-01T00:00:00Z", "-o"], "labels/zz.jsonl");
    refused(&["prove", &id, "--row", "any", "-o"], "labels/p.jsonl");
    refused(&["closure", "--out"], "labels/c.jsonl");
    refused(&["demo", "clean", "--headless", "--record"], "labels/d.jsonl");
    refused(&["demo", "clean", "--headless", "--out"], "labels/demo");
    refused(&["generate", "--events", "10"], "bus/generated");
    // However many folders on the way are not there yet.
    refused(&["generate", "--events", "10"], "bus/new/and/deep");
    refused(&["generate", "--events", "10"], "nowhere/../bus/new/deep");
    refused(&["demo", "clean", "--headless", "--out"], &format!("{store}/archive/new/deep"));
    refused(&["init", "--from", w.path("").to_str().unwrap()], "labels/new/deep");
    for (variable, value, key) in [("OFS_PATHS_LOGS", "labels", "paths.labels"), ("OFS_PATHS_SCRATCH", "bus/x", "paths.bus")] {
        let output = w.ofs_with(&[(variable, value)], &["config", "check", "--json"]).refused(2, "CONFIG_INVALID");
        assert!(output.err.contains(key) && output.err.contains(variable), "{}", output.err);
    }
    // Settings that cannot be read do not take the inputs' protection away.
    w.write("ofs.toml", "[limits]\nmemroy = \"1GiB\"\n");
    w.ofs(&["generate", "--events", "10", w.path("labels/generated").to_str().unwrap(), "--json"]).refused(2, "CONFIG_INVALID");
    std::fs::remove_file(w.path("ofs.toml")).unwrap();
    assert!(w.inputs() == inputs && w.published(FLIGHTS_RUN) == published);
    // What is asked for elsewhere is written, exports go to their own place in the store, and a timeline that is
    // configured and not there yet is made where it is looked for.
    let aside = w.scratch().join("b.json");
    w.ofs(&["bundle", TRAIN, "-o", aside.to_str().unwrap()]).expect(0);
    w.ofs(&["export", &id, "all"]).expect(0);
    let timeline = w.scratch().join("timeline.db");
    let timeline = timeline.to_str().unwrap();
    let made = || w.ofs_with(&[("OFS_PATHS_LABELS", timeline)], &["labels", "import", assertions, "--out", timeline]);
    made().expect(0);
    made().expect(2);
    w.intent("again", "train", |i| i["request_id"] = json!("request.again"));
    assert_eq!(w.build("again")["outcome"], "ALREADY_PUBLISHED");
}
