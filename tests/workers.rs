//! The queue: requests, workers and receipts, as whoever runs them sees it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, Output, Workspace, archive_folder, halt, large, outcome, signal, thorough, usage, wait_for, woken};

const TRAIN: &str = "nycflights13.train.2013-01-01.2013-01-02";
const AUDIT: &str = "nycflights13.audit.2013-01-01.2013-01-02";

fn submit(w: &Workspace, intent: &str) -> Output {
    w.ofs(&["submit", w.path(&format!("intents/{intent}.json")).to_str().unwrap(), "--json"])
}

/// One pass; (request id, status) of what it processed.
fn once(w: &Workspace) -> Vec<(String, String)> {
    told(&w.ofs(&["worker", "--once", "--json"]).expect(0).json())
}

fn told(document: &Value) -> Vec<(String, String)> {
    assert_eq!(document["schema_version"], "ofs.worker.v1");
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    document["processed"].as_array().unwrap().iter().map(|p| (text(&p["request_id"]), text(&p["status"]))).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(id, status)| ((*id).to_owned(), (*status).to_owned())).collect()
}

fn request_file(request: &str) -> String {
    format!("store/{FLIGHTS_RUN}/ofs/job_requests/{request}.json")
}

/// The receipts of a request, by number.
fn receipts(w: &Workspace, run: &str, request: &str) -> BTreeMap<u32, Value> {
    let number = |name: &str| name.strip_suffix(".json").unwrap().parse().unwrap();
    let all = w.tree(&format!("store/{run}/ofs/job_invocations/{request}"));
    all.iter().map(|(name, bytes)| (number(name), serde_json::from_slice(bytes).unwrap())).collect()
}

fn receipt(w: &Workspace, request: &str, number: u32) -> Value {
    receipts(w, FLIGHTS_RUN, request).remove(&number).unwrap_or_else(|| panic!("no receipt {number} of {request}"))
}

fn errors(w: &Workspace, request: &str) -> Vec<String> {
    let code = |r: Value| r.pointer("/error/code").and_then(Value::as_str).unwrap_or_default().to_owned();
    receipts(w, FLIGHTS_RUN, request).into_values().map(code).collect()
}

#[test]
fn a_changed_byte_in_a_receipt_of_a_worker_is_found() {
    let w = Workspace::flights();
    submit(&w, "train").expect(0);
    assert_eq!(once(&w), pairs(&[(TRAIN, "DONE")]));
    let id = w.row(TRAIN)["manifest_id"].as_str().unwrap().to_owned();
    w.ofs(&["verify", &id]).expect(0);
    let at = format!("store/{FLIGHTS_RUN}/ofs/job_invocations/{TRAIN}/1.json");
    let good = w.text(&at).into_bytes();
    for byte in (0..good.len()).step_by(good.len() / 12).chain([good.len() - 1]) {
        let mut bad = good.clone();
        bad[byte] ^= 1 << (byte % 8);
        w.write(&at, &bad);
        let told = w.ofs(&["verify", &id, "--json"]).expect(3).json();
        let named = told["problems"].as_array().unwrap().iter().any(|p| format!("store/{}", p["ref"].as_str().unwrap()) == at);
        assert!(named, "byte {byte}: {told}");
    }
    w.write(&at, &good);
    w.ofs(&["verify", &id]).expect(0);
    fs::remove_file(w.path(&at)).unwrap();
    w.ofs(&["verify", &id]).expect(3);
}

#[test]
fn a_queued_request_is_built_like_any_other_and_leaves_a_receipt() {
    let w = Workspace::flights();
    let queued = submit(&w, "train").expect(0).json();
    assert_eq!((&queued["schema_version"], &queued["request_id"]), (&json!("ofs.request.v1"), &json!(TRAIN)));
    assert_eq!(queued["request_ref"], format!("{FLIGHTS_RUN}/ofs/job_requests/{TRAIN}.json"));
    assert_eq!(w.row(TRAIN)["status"], "QUEUED");
    let request = w.json(&request_file(TRAIN));
    assert_eq!((&request["schema_version"], &request["command"]), (&json!("learning.ofs_job_request.v0"), &json!("dataset_build")));
    assert_eq!(once(&w), pairs(&[(TRAIN, "DONE")]));
    let row = w.row(TRAIN);
    let receipt = receipt(&w, TRAIN, 1);
    for (at, expected) in [
        ("/schema_version", json!("learning.ofs_job_invocation_receipt.v0")),
        ("/status", json!("DONE")),
        ("/command", json!("dataset_build")),
        ("/platform_run_id", json!(FLIGHTS_RUN)),
        ("/stream_id", json!(format!("ofs.v0::{FLIGHTS_RUN}"))),
        ("/launcher_policy", json!({"policy_id": "ofs.launcher.v0", "revision": "r1"})),
        ("/run_config_digest", request["run_config_digest"].clone()),
        ("/request_ref", queued["request_ref"].clone()),
        ("/run_key", row["run_key"].clone()),
        ("/details/submission_outcome", json!("NEW")),
    ] {
        assert_eq!(receipt.pointer(at), Some(&expected), "{at}");
    }
    assert!(receipt["service_release_id"].as_str().unwrap().starts_with("ofs ") && receipt.get("error").is_none());
    assert!(receipt["started_at_utc"].as_str() < receipt["completed_at_utc"].as_str());
    let refs = receipt["refs"].as_object().unwrap();
    assert_eq!(refs.len(), 6);
    assert!(refs.values().all(|at| w.path(&format!("store/{}", at.as_str().unwrap())).is_file()), "{refs:?}");
    // What a worker builds is what everybody builds; and there is nothing more to do.
    let reference = Workspace::flights();
    reference.build("train");
    assert_eq!(w.published(FLIGHTS_RUN), reference.published(FLIGHTS_RUN));
    assert_eq!(once(&w), []);
    assert_eq!(receipts(&w, FLIGHTS_RUN, TRAIN).len(), 1);
    assert_eq!(w.run("train").expect(0).json()["outcome"], "DUPLICATE");
}

#[test]
fn the_same_request_again_changes_nothing_and_another_one_is_refused() {
    let w = Workspace::flights();
    let first = submit(&w, "train").expect(0).json();
    let (file, events) = (w.text(&request_file(TRAIN)), w.event_types(TRAIN));
    assert_eq!(submit(&w, "train").expect(0).json(), first);
    assert_eq!((w.text(&request_file(TRAIN)), w.event_types(TRAIN)), (file.clone(), events));
    // A row without a file is what a killed submission leaves; the next one finishes it, byte for byte.
    fs::remove_file(w.path(&request_file(TRAIN))).unwrap();
    submit(&w, "train").expect(0);
    assert_eq!(w.text(&request_file(TRAIN)), file);
    w.intent("other", "train", |i| i["policy_revision"] = json!("another"));
    submit(&w, "other").refused(3, "REQUEST_ID_PAYLOAD_MISMATCH");
    assert_eq!(w.text(&request_file(TRAIN)), file);
    assert_eq!((&w.row(TRAIN)["status"], w.event_types(TRAIN).last().unwrap().as_str()), (&json!("QUEUED"), "REQUEST_REFUSED"));
    // A refused intent is on record and not in the queue.
    w.intent("bad", "audit", |i| i["label_basis"]["label_asof_utc"] = json!("yesterday"));
    submit(&w, "bad").refused(3, "AS_OF_SPEC_INVALID");
    assert_eq!(w.row(AUDIT)["status"], "REJECTED");
    assert!(!w.path(&request_file(AUDIT)).exists());
    assert_eq!(once(&w), pairs(&[(TRAIN, "DONE")]));
    // Done, it stays done, however often it is asked for.
    assert_eq!(submit(&w, "train").expect(0).json()["status"], "DONE");
    assert_eq!(once(&w), []);
}

#[test]
fn requests_that_cannot_be_read_cost_a_receipt_and_never_the_queue() {
    let w = Workspace::flights();
    submit(&w, "train").expect(0);
    submit(&w, "audit").expect(0);
    let good = w.json(&request_file(AUDIT));
    let with = |change: fn(&mut Value)| {
        let mut bad = good.clone();
        bad["request_id"] = json!("zz.bad.request");
        bad["intent"]["request_id"] = json!("zz.bad.request");
        change(&mut bad);
        bad.to_string()
    };
    for (name, text) in [
        ("a.empty.object", "{}".to_owned()),
        ("a.garbage.file", "\u{0}\u{1}garbage".to_owned()),
        ("a name; rm -rf", "[]".to_owned()),
        ("short", "{}".to_owned()),
        ("a.foreign.name", good.to_string()),
        ("zz.bad.request", with(|b| b["command"] = json!("shutdown"))),
    ] {
        w.write(&request_file(name), text);
    }
    w.write(&format!("store/{FLIGHTS_RUN}/ofs/job_requests/a.not.utf8.json"), [0xff, 0xfe]);
    w.write(&format!("store/{FLIGHTS_RUN}/ofs/job_requests/notes.txt"), "no request");
    fs::create_dir(w.path(&request_file("a.folder.here"))).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", w.path(&request_file("a.link.outside"))).unwrap();
    std::os::unix::fs::symlink("nowhere", w.path(&request_file("a.link.nowhere"))).unwrap();
    let processed: BTreeMap<String, String> = once(&w).into_iter().collect();
    let bad =
        ["a.empty.object", "a.garbage.file", "a_name_rm_-rf", "short", "a.foreign.name", "a.not.utf8", "a.link.outside", "zz.bad.request"];
    for name in bad {
        let code = match name {
            "zz.bad.request" => "REQUEST_COMMAND_UNSUPPORTED",
            "a.link.outside" => "REF_ACCESS_DENIED",
            _ => "REQUEST_INVALID",
        };
        assert_eq!((processed.get(name).map(String::as_str), errors(&w, name)), (Some("FAILED"), vec![code.to_owned()]), "{name}");
        // Nothing that was refused is invisible.
        let key = receipt(&w, name, 1)["run_key"].as_str().unwrap().to_owned();
        assert_eq!((&w.row(&key)["status"], &w.row(&key)["reason_code"]), (&json!("REJECTED"), &json!(code)), "{name}");
    }
    assert_eq!((processed[TRAIN].as_str(), processed[AUDIT].as_str(), processed.len()), ("DONE", "DONE", bad.len() + 2));
    assert_eq!(once(&w), []);
}

#[test]
fn a_request_whose_intent_is_not_its_runs_is_refused_and_the_run_goes_on() {
    let w = Workspace::flights();
    submit(&w, "train").expect(0);
    let (before, sent) = (w.row(TRAIN), w.text(&request_file(TRAIN)));
    let mut forged = w.json(&request_file(TRAIN));
    forged["intent"]["policy_revision"] = json!("forged");
    w.write(&request_file(TRAIN), forged.to_string());
    assert_eq!(once(&w), pairs(&[(TRAIN, "FAILED")]));
    assert_eq!(errors(&w, TRAIN), ["REQUEST_ID_PAYLOAD_MISMATCH"]);
    assert_eq!(once(&w), []);
    w.assert_nothing_published(FLIGHTS_RUN);
    // The run is what it was and has an event more.
    let mut after = w.row(TRAIN);
    assert_eq!((&after["status"], &after["reason_code"]), (&json!("QUEUED"), &json!(null)));
    after["updated_at_utc"] = before["updated_at_utc"].clone();
    assert_eq!((after, w.event_types(TRAIN)), (before, vec!["INTENT_QUEUED".to_owned(), "REQUEST_REFUSED".to_owned()]));
    // With its own request again, a worker goes on with it.
    w.write(&request_file(TRAIN), sent);
    submit(&w, "train").expect(0);
    assert_eq!(once(&w), pairs(&[(TRAIN, "DONE")]));
    assert_eq!(errors(&w, TRAIN), ["REQUEST_ID_PAYLOAD_MISMATCH", ""]);
}

#[test]
fn a_run_whose_request_was_changed_can_be_built_all_the_same() {
    let w = Workspace::flights();
    submit(&w, "train").expect(0);
    let mut forged = w.json(&request_file(TRAIN));
    forged["intent"]["policy_revision"] = json!("forged");
    w.write(&request_file(TRAIN), forged.to_string());
    assert_eq!(once(&w), pairs(&[(TRAIN, "FAILED")]));
    assert_eq!(w.build("train")["outcome"], "NEW");
    // The changed request is refused of the ended run, too, once.
    assert_eq!(once(&w), pairs(&[(TRAIN, "FAILED")]));
    assert_eq!((once(&w), w.row(TRAIN)["status"].as_str()), (vec![], Some("DONE")));
}

#[test]
fn a_request_holds_only_under_the_configuration_it_was_queued_under() {
    let w = Workspace::flights();
    submit(&w, "train").expect(0);
    // Wiring is not policy.
    w.write("ofs.toml", "[limits]\nthreads = 1\n[workspace]\nprofile = \"other\"\n");
    assert_eq!(once(&w), pairs(&[(TRAIN, "FAILED")]));
    let receipt = receipt(&w, TRAIN, 1);
    assert_eq!(receipt["error"]["code"], "RUN_CONFIG_DIGEST_MISMATCH");
    assert_eq!(receipt["run_config_digest"], w.json(&request_file(TRAIN))["run_config_digest"]);
    assert_eq!((&w.row(TRAIN)["status"], once(&w).len()), (&json!("REJECTED"), 0));
    w.assert_nothing_published(FLIGHTS_RUN);
    // The file stands, so the other configuration needs another request; the first one can come back.
    submit(&w, "train").refused(3, "RUN_CONFIG_DIGEST_MISMATCH");
    w.write("ofs.toml", "[limits]\nthreads = 1\n");
    assert_eq!(once(&w), []);
    submit(&w, "train").expect(0);
    assert_eq!(once(&w), pairs(&[(TRAIN, "DONE")]));
    assert_eq!(errors(&w, TRAIN), ["RUN_CONFIG_DIGEST_MISMATCH", ""]);
}

#[test]
fn a_request_of_another_run_than_the_active_one_is_refused() {
    let w = Workspace::flights();
    submit(&w, "train").expect(0);
    w.write("ofs.toml", "[workspace]\nplatform_run_id = \"platform_20300101T000000Z\"\n");
    submit(&w, "audit").refused(3, "RUN_SCOPE_INVALID");
    assert_eq!(once(&w), pairs(&[(TRAIN, "FAILED")]));
    assert_eq!(errors(&w, TRAIN), ["RUN_SCOPE_INVALID"]);
    // Under the active run's own prefix, a request of another run is refused just so.
    let strayed = w.text(&request_file(TRAIN));
    w.write(&format!("store/platform_20300101T000000Z/ofs/job_requests/{TRAIN}.json"), strayed);
    assert_eq!(once(&w), pairs(&[(TRAIN, "FAILED")]));
    assert_eq!(receipts(&w, "platform_20300101T000000Z", TRAIN)[&1]["error"]["code"], "RUN_SCOPE_INVALID");
    assert_eq!(once(&w), []);
    w.assert_nothing_published(FLIGHTS_RUN);
}

#[test]
fn a_failed_run_is_tried_again_only_when_it_is_submitted_again() {
    let w = Workspace::flights();
    let single = format!("{}/offset=9.json", archive_folder(FLIGHTS_RUN, "fp.bus.traffic.flights.v1", 0, "kafka_offset"));
    let record = w.text(&single);
    fs::remove_file(w.path(&single)).unwrap();
    submit(&w, "train").expect(0);
    assert_eq!(once(&w), pairs(&[(TRAIN, "FAILED")]));
    let first = receipt(&w, TRAIN, 1);
    assert_eq!((&first["error"]["code"], &first["details"]["retryable"]), (&json!("REPLAY_INCOMPLETE"), &json!(true)));
    assert!(w.path(&format!("store/{}", first["refs"]["refusal_ref"].as_str().unwrap())).is_file());
    w.write(&single, &record);
    assert_eq!(once(&w), []);
    assert_eq!(submit(&w, "train").expect(0).json()["status"], "QUEUED");
    assert_eq!(w.event_types(TRAIN).last().unwrap(), "RUN_QUEUED_AGAIN");
    assert_eq!(once(&w), pairs(&[(TRAIN, "DONE")]));
    assert_eq!(errors(&w, TRAIN), ["REPLAY_INCOMPLETE", ""]);
    assert_eq!(receipt(&w, TRAIN, 1), first);
}

#[test]
fn what_was_done_before_is_answered_as_done() {
    let w = Workspace::flights();
    w.build("train");
    submit(&w, "train").expect(0);
    assert_eq!(once(&w), pairs(&[(TRAIN, "ALREADY_DONE")]));
    assert_eq!(receipt(&w, TRAIN, 1)["refs"]["manifest_ref"], json!(format!("{FLIGHTS_RUN}/ofs/{}", w.manifests(FLIGHTS_RUN)[0])));
    // A receipt that a killed worker owed is written by the next one.
    fs::remove_dir_all(w.path(&format!("store/{FLIGHTS_RUN}/ofs/job_invocations"))).unwrap();
    assert_eq!(once(&w), pairs(&[(TRAIN, "ALREADY_DONE")]));
}

#[test]
fn a_pending_publication_is_retried_by_request_from_the_runs_own_draft() {
    let w = Workspace::flights();
    let blocked = format!("store/{FLIGHTS_RUN}/ofs/manifests");
    w.write(&blocked, "in the way");
    submit(&w, "train").expect(0);
    assert_eq!(once(&w), pairs(&[(TRAIN, "PUBLISH_PENDING")]));
    assert_eq!(receipt(&w, TRAIN, 1)["details"]["pending_reason"], "COMMIT_FAILED");
    assert_eq!(once(&w), []);
    let key = w.row(TRAIN)["run_key"].as_str().unwrap().to_owned();
    let digest = w.json(&request_file(TRAIN))["run_config_digest"].clone();
    let retry = |id: &str, key: &str| {
        let request = json!({
            "schema_version": "learning.ofs_job_request.v0", "request_id": id, "command": "publish_retry", "platform_run_id": FLIGHTS_RUN,
            "submitted_at_utc": "2026-01-01T00:00:00Z", "run_config_digest": digest, "run_key": key,
        });
        w.write(&request_file(id), request.to_string());
    };
    retry("retry.one.1", &key);
    retry("retry.nobody", "nobody");
    assert_eq!(once(&w), pairs(&[("retry.nobody", "FAILED"), ("retry.one.1", "PUBLISH_PENDING")]));
    assert_eq!(errors(&w, "retry.nobody"), ["RUN_NOT_FOUND"]);
    fs::remove_file(w.path(&blocked)).unwrap();
    retry("retry.one.2", &key);
    let processed: BTreeMap<String, String> = once(&w).into_iter().collect();
    assert_eq!(processed.get("retry.one.2").map(String::as_str), Some("DONE"));
    assert_eq!(w.row(TRAIN)["status"], "DONE");
    once(&w);
    assert_eq!(once(&w), []);
}

#[test]
fn a_retry_is_queued_by_a_command_and_had_once() {
    let w = Workspace::flights();
    let blocked = format!("store/{FLIGHTS_RUN}/ofs/manifests");
    w.write(&blocked, "in the way");
    w.run("train").refused(4, "COMMIT_FAILED");
    let key = w.row(TRAIN)["run_key"].as_str().unwrap().to_owned();
    let queue = || w.ofs(&["submit", "--publish-retry", TRAIN, "--json"]);
    let first = queue().expect(0).json();
    let id = first["request_id"].as_str().unwrap().to_owned();
    assert_eq!(
        (id.as_str(), &first["run_key"], &first["status"]),
        (&*format!("publish-retry.{key}.1"), &json!(key), &json!("PUBLISH_PENDING"))
    );
    let (file, events) = (w.text(&request_file(&id)), w.event_types(TRAIN));
    assert_eq!((events.last().unwrap().as_str(), queue().expect(0).json()), ("PUBLISH_RETRY_QUEUED", first));
    assert_eq!((w.text(&request_file(&id)), w.event_types(TRAIN)), (file, events));
    fs::remove_file(w.path(&blocked)).unwrap();
    let workers: Vec<_> = (0..3).map(|_| w.start(&["worker", "--once", "--json"])).collect();
    workers.into_iter().for_each(|child| drop(outcome(child).expect(0)));
    let all: Vec<Value> = receipts(&w, FLIGHTS_RUN, &id).into_values().map(|r| r["status"].clone()).collect();
    assert_eq!((&w.row(TRAIN)["status"], all), (&json!("DONE"), vec![json!("DONE")]));
    let asked = w.event_types(TRAIN).iter().filter(|t| *t == "PUBLISH_RETRY_REQUESTED").count();
    assert_eq!(asked, 1);
    queue().refused(3, "RETRY_NOT_PENDING");
    w.ofs(&["submit", "--publish-retry", "nobody", "--json"]).refused(2, "RUN_NOT_FOUND");
    w.ofs(&["submit", "--json"]).expect(2);
}

#[test]
fn workers_that_race_try_a_failing_run_once() {
    let w = Workspace::flights().unguarded();
    fs::remove_file(w.path(&format!("{}/offset=9.json", archive_folder(FLIGHTS_RUN, "fp.bus.traffic.flights.v1", 0, "kafka_offset"))))
        .unwrap();
    submit(&w, "train").expect(0);
    let workers: Vec<_> = (0..4).map(|_| w.start(&["worker", "--once", "--json"])).collect();
    workers.into_iter().for_each(|child| drop(outcome(child).expect(0)));
    let types = w.event_types(TRAIN);
    assert_eq!(types.iter().filter(|t| *t == "RUN_STARTED").count(), 1, "{types:?}");
    assert_eq!(errors(&w, TRAIN), ["REPLAY_INCOMPLETE"]);
}

#[test]
fn a_request_that_waits_for_its_run_is_resolved_once() {
    let w = large(60_000);
    // A worker says a few times a lease that it is alive; with a long one that falls into no second of this test.
    w.write("ofs.toml", "[launcher]\nrequest_poll_seconds = 0.1\nlease_seconds = 300\n");
    submit(&w, "x").expect(0);
    let owner = w.start(&["run", w.path("intents/x.json").to_str().unwrap(), "--json"]);
    wait_for("a running build", Duration::from_secs(60), || w.event_types("request.large").iter().any(|t| t == "PHASE_ENTERED"));
    halt(&w, &owner);
    let key = w.row("request.large")["run_key"].clone();
    let run = "platform_20260301T000000Z";
    let request = json!({
        "schema_version": "learning.ofs_job_request.v0", "request_id": "retry.waits", "command": "publish_retry", "platform_run_id": run,
        "submitted_at_utc": "2026-01-01T00:00:00Z", "run_config_digest": "x", "run_key": key,
    });
    w.write(&format!("store/{run}/ofs/job_requests/retry.waits.json"), request.to_string());
    let ledger = || w.ofs(&["runs", "--json"]).expect(0).json()["workers_alive"].clone();
    let worker = w.start(&["worker"]);
    wait_for("the worker", Duration::from_secs(60), || ledger() == 1);
    let written = || fs::metadata(w.path("state/ledger.db-wal")).unwrap().modified().unwrap();
    woken(worker.id(), 4);
    let before = written();
    woken(worker.id(), 4);
    assert_eq!(written(), before, "waiting writes nothing");
    signal(&worker, "TERM");
    assert_eq!(outcome(worker).code, 143);
    signal(&owner, "CONT");
    assert_eq!(outcome(owner).expect(0).json()["status"], "DONE");
}

#[test]
fn two_workers_that_race_publish_once() {
    let w = Workspace::flights().unguarded();
    submit(&w, "train").expect(0);
    submit(&w, "audit").expect(0);
    let workers: Vec<_> = (0..4).map(|_| w.start(&["worker", "--once", "--json"])).collect();
    let outputs: Vec<Output> = workers.into_iter().map(|child| outcome(child).expect(0)).collect();
    let all: Vec<(String, String)> = outputs.iter().flat_map(|o| told(&o.json())).collect();
    assert!(all.iter().all(|(_, status)| status == "DONE"), "{all:?}");
    for id in [TRAIN, AUDIT] {
        let types = w.event_types(id);
        assert_eq!(types.iter().filter(|t| *t == "RUN_STARTED").count(), 1, "{types:?}");
        let receipts = receipts(&w, FLIGHTS_RUN, id);
        assert_eq!((receipts.len(), &receipts[&1]["details"]["submission_outcome"]), (1, &json!("NEW")));
    }
    assert_eq!(once(&w), []);
}

#[test]
fn a_batch_has_a_limit() {
    let w = Workspace::flights();
    w.write("ofs.toml", "[launcher]\nrequest_batch_limit = 2\n");
    for i in 0..5 {
        w.write(&request_file(&format!("a.bad.request.{i}")), "{}");
    }
    submit(&w, "train").expect(0);
    assert_eq!([once(&w).len(), once(&w).len(), once(&w).len(), once(&w).len()], [2, 2, 2, 0]);
    assert_eq!(w.row(TRAIN)["status"], "DONE");
}

#[test]
fn a_worker_hands_its_run_back_and_the_next_one_completes_it() {
    for (name, exit) in [("TERM", 143), ("HUP", 129)] {
        let w = large(60_000);
        submit(&w, "x").expect(0);
        let worker = w.start(&["worker", "--json"]);
        wait_for("a running build", Duration::from_secs(60), || w.event_types("request.large").iter().any(|t| t == "PHASE_ENTERED"));
        assert_eq!(w.ofs(&["runs", "--stuck", "--json"]).expect(0).json()["workers_alive"], 1);
        signal(&worker, name);
        let output = outcome(worker);
        assert_eq!((output.code, told(&output.json())), (exit, pairs(&[("request.large", "QUEUED")])), "{}", output.err);
        let events = w.events("request.large");
        let last = events.last().unwrap();
        assert_eq!((&last["event_type"], &last["detail"]["signal"]), (&json!("RUN_INTERRUPTED"), &json!(name)));
        let run = "platform_20260301T000000Z";
        assert_eq!(receipts(&w, run, "request.large").len(), 0);
        assert_eq!(once(&w), pairs(&[("request.large", "DONE")]));
        let all = receipts(&w, run, "request.large");
        assert_eq!(all.into_iter().map(|(n, r)| (n, r["status"].clone())).collect::<Vec<_>>(), [(2, json!("DONE"))]);
    }
}

#[test]
fn an_idle_worker_does_nothing_and_still_sees_what_comes() {
    let w = Workspace::flights().unguarded();
    // As above: its signs of life fall into no moment of this test.
    w.write("ofs.toml", "[launcher]\nrequest_poll_seconds = 0.1\nlease_seconds = 300\n");
    let worker = w.start(&["worker"]);
    let alive = || w.ofs(&["runs", "--json"]).expect(0).json()["workers_alive"] == 1;
    wait_for("the worker", Duration::from_secs(60), || w.path("state/ledger.db").exists() && alive());
    let ledger = || ["state/ledger.db", "state/ledger.db-wal"].map(|f| fs::metadata(w.path(f)).unwrap().modified().unwrap());
    woken(worker.id(), 6);
    let ((before, _), written, began) = (usage(worker.id()), ledger(), Instant::now());
    woken(worker.id(), 20);
    assert_eq!(ledger(), written, "nothing is written where nothing changes");
    let (took, seconds) = (usage(worker.id()).0 - before, began.elapsed().as_secs_f64());
    println!("{took} ms of processor time in {seconds:.1} idle seconds");
    assert!(!thorough() || took as f64 <= 25.0 * seconds, "{took} ms in {seconds} s");
    submit(&w, "train").expect(0);
    wait_for("the receipt", Duration::from_secs(60), || receipts(&w, FLIGHTS_RUN, TRAIN).len() == 1);
    signal(&worker, "INT");
    assert_eq!(outcome(worker).code, 130);
    assert_eq!(w.ofs(&["runs", "--json"]).expect(0).json()["workers_alive"], 0);
}

#[test]
fn a_request_that_nobody_works_on_is_shown_as_stuck() {
    let w = Workspace::flights();
    w.write("ofs.toml", "[launcher]\nstall_seconds = 1\n");
    submit(&w, "train").expect(0);
    let stuck = || w.ofs(&["runs", "--stuck", "--json"]).expect(0).json();
    wait_for("a stuck run", Duration::from_secs(60), || stuck()["runs"][0].is_object());
    let stuck = stuck();
    assert_eq!((&stuck["runs"][0]["stuck_reason"], &stuck["workers_alive"]), (&json!("QUEUED_NO_WORKER"), &json!(0)));
    let worker = w.start(&["worker"]);
    wait_for("the run", Duration::from_secs(60), || w.row(TRAIN)["status"] == "DONE");
    signal(&worker, "TERM");
    assert_eq!(outcome(worker).code, 143);
}
