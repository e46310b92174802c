//! `ofs report`: facts, metrics, health and reconciliation agree with the ledger, whatever fails on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ofs::ledger::{Delivery, Ledger, Owner};
use ofs::observe;
use ofs::pipeline::admit::Supersession;
use ofs::pipeline::gate::Env;
use ofs::pipeline::run::{self, Host, Request, StopSignal, Unattended};
use ofs::store::{Created, ErrorKind, LocalStore, Ref, StagedFile, Store, StoreError};
use ofs::time::SystemClock;
use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, Workspace, blake3_hex, canonical, copy, environment, large, repository, store_of};

const TRAIN: &str = "nycflights13.train.2013-01-01.2013-01-02";
const AUDIT: &str = "nycflights13.audit.2013-01-01.2013-01-02";

fn report(w: &Workspace) -> Value {
    w.ofs(&["report", "--json"]).expect(0).json()
}

/// The one platform run of a report.
fn mine(report: &Value) -> &Value {
    let runs = report["platform_runs"].as_array().unwrap();
    assert_eq!(runs.len(), 1, "{report}");
    &runs[0]
}

fn artifact(w: &Workspace, name: &str) -> Value {
    w.json(&format!("store/{FLIGHTS_RUN}/ofs/{name}.json"))
}

fn facts(w: &Workspace) -> BTreeMap<String, Vec<u8>> {
    w.tree(&format!("store/{FLIGHTS_RUN}/ofs/governance/facts"))
}

fn signal<'r>(report: &'r Value, name: &str) -> &'r Value {
    mine(report)["signals"].as_array().unwrap().iter().find(|s| s["signal"] == name).unwrap()
}

fn reasons(report: &Value) -> Vec<&str> {
    mine(report)["health"]["reasons"].as_array().unwrap().iter().map(|r| r["code"].as_str().unwrap()).collect()
}

/// A run that fails at the pins gate, and one that is refused at admission.
fn troubled() -> Workspace {
    let w = Workspace::flights();
    w.build("train");
    w.build("audit");
    w.intent("v9", "train", |i| {
        i["request_id"] = json!("request.v9");
        i["feature_definition_set"]["feature_set_version"] = json!("v9");
    });
    w.run("v9").expect(3);
    w.intent("no-cutoff", "train", |i| {
        i["request_id"] = json!("request.no-cutoff");
        i["label_basis"].as_object_mut().unwrap().remove("label_asof_utc");
    });
    w.run("no-cutoff").expect(3);
    w
}

#[test]
fn counters_and_metrics_agree_with_the_ledger() {
    let w = troubled();
    let document = report(&w);
    let metrics = &mine(&document)["metrics"];
    let runs = w.ofs(&["runs", "--json"]).expect(0).json();
    let count = |status: &str| runs["runs"].as_array().unwrap().iter().filter(|r| r["status"] == status).count();
    let counters = &metrics["counters"]["dataset_build"];
    for (name, status) in [("completed", "DONE"), ("failed", "FAILED"), ("publish_pending", "PUBLISH_PENDING"), ("cancelled", "CANCELLED")]
    {
        assert_eq!(counters[name], json!(count(status)), "{name}: {counters}");
    }
    let rejected: u64 = metrics["counters"].as_object().unwrap().values().map(|c| c["rejected"].as_u64().unwrap()).sum();
    assert_eq!((rejected, count("REJECTED")), (1, 1));
    assert_eq!((&counters["requested"], &metrics["datasets_built"]), (&json!(3), &json!(2)));
    assert_eq!(metrics["anomalies"], json!({"FEATURE_PROFILE_UNRESOLVED": 1, "LABEL_ASOF_MISSING": 1}));
    assert_eq!(metrics["publications"]["NEW"], 2);
    let partitions = metrics["replay"]["partitions"].as_array().unwrap();
    let sum = |key: &str| partitions.iter().map(|p| p[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!((partitions.len(), sum("events"), sum("offsets_spanned"), sum("missing_offsets")), (4, 2 * 842, 2 * 842, 0));
    assert_eq!(sum("served_by_archive") + sum("served_by_bus"), 2 * 842);
    assert_eq!(metrics["replay"]["archive_used_runs"], 2);
    assert_eq!(metrics["durations_ms"]["dataset_build"]["count"], 3);
    assert_eq!(metrics["labels"]["arrival_status"]["targets"], 2 * 842);
    // The share of each build is, to the last digit, the one that its receipt has.
    for request in [TRAIN, AUDIT] {
        let row = w.row(request);
        let build = metrics["builds"].as_array().unwrap().iter().find(|b| b["keys"]["run_key"] == row["run_key"]).unwrap();
        let proof = w.json(&format!("store/{FLIGHTS_RUN}/ofs/datasets/{}/evidence/labels.json", row["manifest_id"].as_str().unwrap()));
        let receipt = proof["types"].as_array().unwrap().iter().find(|t| t["label_type"] == "arrival_status").unwrap();
        assert_eq!(build["labels"]["arrival_status"]["coverage_ratio"], receipt["coverage_ratio"], "{receipt}");
    }
    assert_eq!(metrics["parity"], json!({}));
    // What is printed is what is kept.
    assert_eq!(&artifact(&w, "metrics/last_metrics"), metrics);
    assert_eq!(artifact(&w, "health/last_health"), mine(&document)["health"]);
    let text = w.ofs(&["report"]).expect(0).out;
    for part in ["RED", "FAILED_TOTAL_RED", "2 completed", "1 rejected", "ledger and store agree", "metrics", "SENT"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn gaps_are_measured_and_health_recovers_when_they_are_filled() {
    let w = Workspace::flights();
    let record =
        format!("store/{FLIGHTS_RUN}/archive/events/topic=fp.bus.traffic.flights.v1/partition=0/offset_kind=kafka_offset/offset=17.json");
    let kept = w.text(&record);
    fs::remove_file(w.path(&record)).unwrap();
    w.run("train").expect(3);
    let broken = report(&w);
    assert_eq!((broken["status"].as_str(), reasons(&broken)), (Some("RED"), vec!["FAILED_TOTAL_RED", "ANOMALIES_AMBER"]));
    assert_eq!(mine(&broken)["metrics"]["replay"]["gap_runs"], 1);
    for reason in mine(&broken)["health"]["reasons"].as_array().unwrap() {
        assert!(!reason["recovers"].as_str().unwrap().is_empty() && reason["threshold"].as_u64().unwrap() >= 1, "{reason}");
    }
    // Thresholds are settings.
    let lenient =
        w.ofs_with(&[("OFS_OBSERVE_FAILED_RED", "2"), ("OFS_OBSERVE_ANOMALIES_AMBER", "2")], &["report", "--json"]).expect(0).json();
    assert_eq!(lenient["status"], "GREEN");
    w.write(&record, kept);
    w.run("train").expect(0);
    let healed = report(&w);
    assert_eq!((healed["status"].as_str(), reasons(&healed)), (Some("GREEN"), vec![]));
    let counters = &mine(&healed)["metrics"]["counters"]["dataset_build"];
    assert_eq!((&counters["failed"], &counters["failures_ever"], &counters["completed"]), (&json!(0), &json!(1), &json!(1)));
}

#[test]
fn facts_leave_with_the_run_once_and_under_ids_that_follow_from_their_events() {
    let w = troubled();
    let first = facts(&w);
    // Before any report: they left when the runs ended.
    let types: Vec<String> =
        first.values().map(|b| serde_json::from_slice::<Value>(b).unwrap()["fact_type"].as_str().unwrap().to_owned()).collect();
    let of = |name: &str| types.iter().filter(|t| *t == name).count();
    assert_eq!((of("DATASET_BUILD_REQUESTED"), of("DATASET_BUILD_COMPLETED"), of("DATASET_BUILD_FAILED"), types.len()), (3, 2, 1, 6));
    for (name, bytes) in &first {
        let fact: Value = serde_json::from_slice(bytes).unwrap();
        let keys = &fact["keys"];
        let payload = json!({"run_key": keys["run_key"], "seq": fact["event"]["seq"], "event_hash": fact["event"]["hash"], "fact_type": fact["fact_type"]});
        let recipe = json!({"recipe": "ofs.governance_fact.v1", "payload": payload});
        let id = format!("gf_{}", &blake3_hex(canonical(&recipe, false).as_bytes())[..32]);
        assert_eq!((fact["fact_id"].as_str(), name), (Some(id.as_str()), &format!("{id}.json")));
        let events = w.events(keys["run_key"].as_str().unwrap());
        let event = &events[fact["event"]["seq"].as_u64().unwrap() as usize - 1];
        assert_eq!(
            (&event["hash"], &event["event_type"], &event["at_utc"]),
            (&fact["event"]["hash"], &fact["event"]["type"], &fact["at_utc"])
        );
    }
    for _ in 0..2 {
        assert_eq!(report(&w)["flush"]["sent"], 0);
        assert_eq!(facts(&w), first);
    }
    // The same request again is no second request.
    w.build("train");
    assert_eq!(facts(&w), first);
}

#[test]
fn what_was_not_admitted_is_counted_and_sent_nowhere() {
    let w = Workspace::flights();
    w.write("intents/none.json", "[]");
    w.run("none").expect(3);
    w.intent("elsewhere", "train", |i| {
        i["platform_run_id"] = json!("platform_20990101T000000Z");
        i["request_id"] = json!("x");
    });
    w.run("elsewhere").expect(3);
    let document = report(&w);
    assert_eq!((&document["unscoped_refusals"], &document["flush"]["sent"]), (&json!(1), &json!(0)));
    let run = mine(&document);
    assert_eq!(run["platform_run_id"], "platform_20990101T000000Z");
    assert_eq!(run["metrics"]["facts"], json!({"SKIPPED_BY_POLICY": 1}));
    assert_eq!(run["metrics"]["anomalies"], json!({"REQUEST_ID_INVALID": 1}));
}

#[test]
fn a_signal_left_out_by_policy_is_recorded_as_left_out() {
    let w = Workspace::flights();
    let off = ["METRICS", "HEALTH", "GOVERNANCE", "RECONCILIATION"].map(|s| format!("OFS_OBSERVE_{s}"));
    let off: Vec<(&str, &str)> = off.iter().map(|name| (name.as_str(), "false")).collect();
    let train = w.path("intents/train.json");
    w.ofs_with(&off, &["run", train.to_str().unwrap(), "--json"]).expect(0);
    let document = w.ofs_with(&off, &["report", "--json"]).expect(0).json();
    for name in ["metrics", "health", "governance", "reconciliation"] {
        assert_eq!(signal(&document, name)["delivery"], "SKIPPED_BY_POLICY", "{name}");
        assert!(w.tree(&format!("store/{FLIGHTS_RUN}/ofs/{name}")).is_empty(), "{name}");
    }
    assert_eq!(mine(&document)["metrics"]["facts"], json!({"SKIPPED_BY_POLICY": 2}));
    // Skipped is settled: another policy later sends what comes later.
    assert_eq!(report(&w)["flush"]["sent"], 0);
    assert_eq!(signal(&report(&w), "metrics")["delivery"], "SENT");
}

#[test]
fn a_sink_that_fails_is_recorded_and_changes_no_data_set() {
    let (w, calm) = (Workspace::flights(), Workspace::flights());
    calm.build("train");
    for name in ["governance", "metrics", "health", "reconciliation"] {
        w.write(&format!("store/{FLIGHTS_RUN}/ofs/{name}"), "in the way");
    }
    w.build("train");
    assert_eq!(w.published(FLIGHTS_RUN), calm.published(FLIGHTS_RUN));
    let document = report(&w);
    for name in ["governance", "metrics", "health", "reconciliation"] {
        let signal = signal(&document, name);
        assert_eq!((signal["delivery"].as_str(), signal["failures"].as_u64()), (Some("FAILED_TO_SEND"), Some(1)), "{name}");
        assert!(!signal["note"].as_str().unwrap().is_empty());
    }
    assert_eq!(mine(&document)["metrics"]["facts"]["FAILED_TO_SEND"], 2);
    assert!(reasons(&document).contains(&"FACTS_UNSENT_AMBER"));
    assert_eq!(w.row("nycflights13.train.2013-01-01.2013-01-02")["status"], "DONE");
    for name in ["governance", "metrics", "health", "reconciliation"] {
        fs::remove_file(w.path(&format!("store/{FLIGHTS_RUN}/ofs/{name}"))).unwrap();
    }
    let healed = report(&w);
    assert_eq!((&healed["flush"]["sent"], facts(&w).len()), (&json!(2), 2));
    assert_eq!((signal(&healed, "metrics")["delivery"].as_str(), reasons(&healed)), (Some("SENT"), vec![]));
}

#[test]
fn every_record_carries_the_keys_that_tie_it_to_everything_else() {
    let w = troubled();
    let document = report(&w);
    let always = ["platform_run_id", "run_key", "request_id"];
    let built = [
        "plan_ref",
        "dataset_fingerprint",
        "dataset_manifest_id",
        "manifest_ref",
        "basis_hash",
        "feature_set",
        "label_asof_utc",
        "policy_revision",
        "run_facts_ref",
    ];
    let hold = |record: &Value| {
        let keys = &record["keys"];
        assert!(always.iter().all(|k| keys[k].is_string()), "{record}");
        if record["status"] == "DONE" {
            assert!(built.iter().all(|k| keys[k].is_string()), "{record}");
            let plan = w.json(&format!("store/{}", keys["plan_ref"].as_str().unwrap()));
            assert_eq!(plan["basis_hash"], keys["basis_hash"]);
        }
    };
    let (builds, runs) = (&mine(&document)["metrics"]["builds"], &mine(&document)["reconciliation"]["runs"]);
    assert_eq!((builds.as_array().unwrap().len(), runs.as_array().unwrap().len()), (4, 4));
    builds.as_array().unwrap().iter().chain(runs.as_array().unwrap()).for_each(hold);
    facts(&w).values().for_each(|bytes| hold(&serde_json::from_slice(bytes).unwrap()));
    for name in ["metrics/last_metrics", "health/last_health", "reconciliation/last_reconciliation"] {
        assert_eq!(artifact(&w, name)["platform_run_id"], FLIGHTS_RUN, "{name}");
    }
    // Every log record of a build, and once the pins are frozen, plan and data set as well.
    let mut passed = 0;
    for line in
        w.tree("state/logs").values().flat_map(|b| String::from_utf8(b.clone()).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
    {
        let record: Value = serde_json::from_str(&line).unwrap();
        let Some(span) = record.get("span") else { continue };
        for key in ["run_key", "request_id", "platform_run_id", "basis_hash", "feature_set", "label_asof_utc", "policy_revision"] {
            assert!(span[key].is_string(), "{key}: {line}");
        }
        if record["message"] == "passed" {
            assert!(
                span["plan_id"].as_str().unwrap().starts_with("plan_") && span["manifest_id"].as_str().unwrap().starts_with("dm_"),
                "{line}"
            );
            passed += 1;
        }
    }
    assert_eq!(passed, 10);
}

#[test]
fn log_volume_follows_partitions_and_never_events() {
    let lines = |events: usize| {
        let w = large(events);
        w.ofs(&["run", w.path("intents/x.json").to_str().unwrap()]).expect(0);
        w.tree("state/logs").values().map(|b| b.iter().filter(|b| **b == b'\n').count()).sum::<usize>()
    };
    assert_eq!(lines(40), lines(4_000));
}

#[test]
fn reconciliation_refers_and_never_copies_and_names_what_is_gone() {
    let w = troubled();
    let document = report(&w);
    let reconciliation = &mine(&document)["reconciliation"];
    assert_eq!((&reconciliation["ok"], &reconciliation["differences"]), (&json!(true), &json!([])));
    for run in reconciliation["runs"].as_array().unwrap() {
        for at in run["refs"].as_object().unwrap().values() {
            assert!(w.path(&format!("store/{}", at.as_str().unwrap())).is_file(), "{at}");
        }
        assert!(run.get("result").is_none() && run.get("intent").is_none());
    }
    let folder = format!("store/{FLIGHTS_RUN}/ofs/reconciliation");
    let days: BTreeMap<String, Vec<u8>> = w.tree(&folder).into_iter().filter(|(name, _)| !name.starts_with("last")).collect();
    let mut told = 0;
    for (name, bytes) in &days {
        let day: Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!(day["day"].as_str().unwrap(), name.strip_suffix(".json").unwrap());
        for fact in day["facts"].as_array().unwrap().iter().filter(|f| f["delivery"] == "SENT") {
            assert!(w.path(&format!("store/{}", fact["fact_ref"].as_str().unwrap())).is_file(), "{fact}");
            told += 1;
        }
    }
    assert_eq!(told, 6);
    report(&w);
    let again = w.tree(&folder);
    assert!(days.iter().all(|(name, bytes)| again.get(name) == Some(bytes)), "a day's file says the same again");
    let manifest = w.manifests(FLIGHTS_RUN).remove(0);
    let fact = facts(&w).into_keys().next().unwrap();
    fs::remove_file(w.path(&format!("store/{FLIGHTS_RUN}/ofs/{manifest}"))).unwrap();
    fs::remove_file(w.path(&format!("store/{FLIGHTS_RUN}/ofs/governance/facts/{fact}"))).unwrap();
    w.write(&format!("store/{FLIGHTS_RUN}/ofs/manifests/dm_unknown.json"), "{}");
    let kinds: BTreeSet<String> = mine(&report(&w))["reconciliation"]["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["FACT_MISSING", "MANIFEST_MISSING", "MANIFEST_UNCLAIMED"].map(str::to_owned).into());
}

#[test]
fn a_look_writes_nothing() {
    let w = Workspace::flights();
    assert_eq!(w.ofs(&["report", "--json"]).expect(0).json()["platform_runs"], json!([]));
    assert!(!w.path("state").exists());
    w.build("train");
    let before = w.tree("store");
    let looked = w.ofs(&["report", "--look", "--json"]).expect(0).json();
    assert_eq!((&looked["flush"], looked["status"].as_str()), (&Value::Null, Some("GREEN")));
    assert_eq!(w.tree("store"), before);
}

#[test]
fn no_secret_of_the_surroundings_reaches_the_store() {
    let w = Workspace::flights();
    let train = w.path("intents/train.json");
    let secrets = [("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI-K7MDENG"), ("DATABASE_URL", "postgres://ofs:hunter2@db/x")];
    w.ofs_with(&secrets, &["run", train.to_str().unwrap()]).expect(0);
    w.ofs_with(&secrets, &["report"]).expect(0);
    let root = w.root();
    for (name, bytes) in w.tree(&format!("store/{FLIGHTS_RUN}/ofs")) {
        for hidden in ["wJalrXUtnFEMI-K7MDENG", "hunter2", root.to_str().unwrap()] {
            assert!(!bytes.windows(hidden.len()).any(|w| w == hidden.as_bytes()), "{name} holds {hidden}");
        }
    }
}

#[test]
fn facts_fit_their_schema_and_none_is_valid_without_its_platform_run() {
    let w = troubled();
    let text = fs::read_to_string(repository().join("contracts/governance_fact_v1.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap();
    for bytes in facts(&w).values() {
        let mut fact: Value = serde_json::from_slice(bytes).unwrap();
        let problems: Vec<String> = schema.iter_errors(&fact).map(|e| format!("{e} at {}", e.instance_path())).collect();
        assert_eq!(problems, [""; 0], "{fact}");
        fact["platform_run_id"] = Value::Null;
        assert!(!schema.is_valid(&fact));
        fact.as_object_mut().unwrap().remove("platform_run_id");
        assert!(!schema.is_valid(&fact));
    }
}

/// What happens at the operation that is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hit {
    FailBefore,
    FailAfter,
    KillBefore,
    KillAfter,
}

struct Killed;

/// A store whose N-th operation goes wrong.
#[derive(Debug)]
struct Nth {
    inner: LocalStore,
    hit: Hit,
    at: u64,
    count: Arc<AtomicU64>,
}

impl Nth {
    fn go<T>(&self, at: &Ref, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 != self.at {
            return work();
        }
        if matches!(self.hit, Hit::FailAfter | Hit::KillAfter) {
            let _ = work();
        }
        match self.hit {
            Hit::KillBefore | Hit::KillAfter => std::panic::resume_unwind(Box::new(Killed)),
            _ => Err(StoreError::new(ErrorKind::Io, at.as_str(), "an injected fault")),
        }
    }
}

impl Store for Nth {
    fn open(&self, at: &Ref) -> Result<Box<dyn Read + Send>, StoreError> {
        self.go(at, || self.inner.open(at))
    }
    fn size(&self, at: &Ref) -> Result<Option<u64>, StoreError> {
        self.go(at, || self.inner.size(at))
    }
    fn list(&self, below: &Ref) -> Result<Vec<(Ref, u64)>, StoreError> {
        self.go(below, || self.inner.list(below))
    }
    fn create(&self, at: &Ref, bytes: &[u8]) -> Result<Created, StoreError> {
        self.go(at, || self.inner.create(at, bytes))
    }
    fn stage(&self, at: &Ref) -> Result<Box<dyn StagedFile>, StoreError> {
        self.go(at, || self.inner.stage(at))
    }
    fn promote(&self, staged: &Ref, to: &Ref) -> Result<Created, StoreError> {
        self.go(to, || self.inner.promote(staged, to))
    }
    fn unstage(&self, at: &Ref) -> Result<(), StoreError> {
        self.go(at, || self.inner.unstage(at))
    }
}

fn process(root: &Path, store: Arc<dyn Store>) -> (Env, Host) {
    let env = environment(root, store);
    let ledger = Ledger::open(&root.join("state/ledger.db"), Arc::new(SystemClock), "test").unwrap();
    (env, Host { ledger: Arc::new(ledger), clock: Arc::new(SystemClock), owner: Owner::current(), signal: StopSignal::default() })
}

/// A workspace whose runs have ended and whose facts all wait.
fn waiting() -> Workspace {
    let w = Workspace::flights();
    w.intent("train", "train", |intent| {
        let basis = intent["replay_basis"].as_array_mut().unwrap();
        basis.truncate(1);
        basis[0]["end_offset"] = "19".into();
    });
    w.intent("v9", "train", |i| {
        i["request_id"] = json!("request.v9");
        i["feature_definition_set"]["feature_set_version"] = json!("v9");
    });
    let store: Arc<dyn Store> = store_of(&w.root());
    let (env, host) = process(&w.root(), store);
    for name in ["train", "v9"] {
        let intent = fs::read(w.path(&format!("intents/{name}.json"))).unwrap();
        run::run(&Request { intent, supersession: Supersession::default() }, &env, &host, &Unattended).unwrap();
    }
    w
}

/// Reports on a copy of `origin` with the N-th operation going wrong, for every N, then once more.
fn every_operation(origin: &Workspace, hit: Hit) -> u64 {
    for at in 1.. {
        let w = Workspace::empty();
        copy(&origin.root(), &w.root());
        let count = Arc::new(AtomicU64::new(0));
        let inner = LocalStore::open(&w.path("store")).unwrap();
        let (env, host) = process(&w.root(), Arc::new(Nth { inner, hit, at, count: count.clone() }));
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| observe::report(&env, &host.ledger, &SystemClock).map(|_| ())));
        match ran {
            Ok(done) => done.unwrap(),
            Err(cause) => assert!(cause.is::<Killed>(), "{hit:?} at {at}"),
        }
        let met = count.load(Ordering::SeqCst) >= at;
        let (env, host) = process(&w.root(), store_of(&w.root()));
        let report = observe::report(&env, &host.ledger, &SystemClock).unwrap();
        let told = host.ledger.facts().unwrap();
        assert!(told.len() == 4 && told.iter().all(|f| f.delivery == Some(Delivery::Sent)), "{hit:?} at {at}: {told:?}");
        let wanted: BTreeMap<String, Vec<u8>> =
            told.iter().map(|f| (format!("{}.json", f.id), format!("{}\n", canonical(&f.body, false)).into_bytes())).collect();
        assert_eq!(facts(&w), wanted, "{hit:?} at {at}");
        let run = &report.runs[0];
        assert!(
            run.reconciliation.as_ref().is_ok_and(|r| r.ok()) && run.signals.iter().all(|s| s.delivery == Delivery::Sent),
            "{hit:?} at {at}"
        );
        for name in ["metrics/last_metrics", "health/last_health", "reconciliation/last_reconciliation"] {
            assert_eq!(artifact(&w, name)["platform_run_id"], FLIGHTS_RUN);
        }
        if !met {
            return at - 1;
        }
    }
    unreachable!("the loop ends at a report that its fault did not meet")
}

#[test]
fn no_fault_between_any_two_writes_loses_or_doubles_a_fact() {
    let origin = waiting();
    for hit in [Hit::FailBefore, Hit::FailAfter, Hit::KillBefore, Hit::KillAfter] {
        let operations = every_operation(&origin, hit);
        println!("{operations} operations, {hit:?}");
        assert!(operations > 15);
    }
}

#[test]
fn two_that_send_at_once_send_each_fact_once() {
    let w = waiting();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let (env, host) = process(&w.root(), store_of(&w.root()));
                observe::report(&env, &host.ledger, &SystemClock).unwrap();
            });
        }
    });
    assert_eq!(facts(&w).len(), 4);
}
