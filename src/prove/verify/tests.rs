//! A real data set is built once, then damaged in every way that a disk or a person can damage it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use serde_json::{Value, json};

use super::*;
use crate::config::Config;
use crate::contract::ReasonCode;
use crate::contract::embedded;
use crate::digest;
use crate::engine::dataset_file::{PartWriter, read_part};
use crate::engine::digest::{Tree, leaves, schema_digest};
use crate::ledger::{Access, LedgerError, Owner, Watch};
use crate::pipeline::Phase;
use crate::pipeline::feature::TS_COLUMN;
use crate::pipeline::progress::Progress;
use crate::pipeline::run::{self, Host, Request, StopSignal, Unattended};
use crate::prove::explain::Explanation;
use crate::prove::find_manifest;
use crate::store::LocalStore;
use crate::time::{FixedClock, Instant};

/// A workspace with published data sets.
struct Home {
    dir: tempfile::TempDir,
    env: Env,
    host: Host,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in embedded::below("fixtures/flights-day") {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        let mut config = Config::load(Some(dir.path()), Path::new("/"), &BTreeMap::new()).unwrap();
        config.set_flag("paths", "scratch", dir.path().join("scratch").to_str().unwrap()).unwrap();
        let store = LocalStore::open(&config.path("object_store")).unwrap();
        let clock = Arc::new(FixedClock::new(Instant::parse("2026-02-10T10:00:00Z").unwrap()));
        let ledger = Arc::new(Ledger::open(&config.path("ledger"), clock.clone(), "t").unwrap());
        let env = Env {
            store_root: Some(store.root().to_owned()),
            store: Arc::new(store),
            config: Arc::new(config),
            cancel: Default::default(),
            progress: Arc::new(Progress::default()),
            attempt: "t".into(),
            audit: Arc::new(crate::store::Unrecorded),
        };
        Home { env, host: Host { ledger, clock, owner: Owner::current(), signal: StopSignal::default() }, dir }
    }

    fn build(&self, intent: &Value) -> Set<'_> {
        let request = Request { intent: intent.to_string().into_bytes(), supersession: Default::default() };
        let result = run::run(&request, &self.env, &self.host, &Unattended).unwrap();
        assert_eq!(result.exit, 0, "{}", result.document);
        Set { home: self, manifest: Ref::parse(result.text("/dataset/manifest_ref")).unwrap(), run_key: result.text("/run_key").to_owned() }
    }

    fn path(&self, at: &Ref) -> PathBuf {
        self.dir.path().join("store").join(at.as_str())
    }
}

fn intent(name: &str) -> Value {
    serde_json::from_slice(embedded::file(&format!("fixtures/flights-day/intents/{name}.json")).unwrap()).unwrap()
}

/// One published data set.
struct Set<'h> {
    home: &'h Home,
    manifest: Ref,
    run_key: String,
}

impl Set<'_> {
    fn report(&self) -> Report {
        verify(&self.home.env, Some(&self.home.host.ledger), &self.manifest).unwrap()
    }

    /// Kinds found without the ledger, but for the one that says so.
    fn alone(&self) -> Vec<Kind> {
        let report = verify(&self.home.env, None, &self.manifest).unwrap();
        assert!(!report.ok() && !report.anchored);
        report.problems.iter().map(|p| p.kind).filter(|k| *k != Kind::Unanchored).collect()
    }

    fn kinds(&self) -> BTreeSet<Kind> {
        let report = self.report();
        assert_eq!(report.ok(), report.problems.is_empty() && report.anchored);
        report.problems.iter().map(|p| p.kind).collect()
    }

    fn folder(&self) -> Ref {
        Place::of(&self.manifest).unwrap().folder()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path(&self.folder().join(name))
    }

    fn receipt(&self, folder: &str) -> PathBuf {
        self.home.path(&Ref::of(&[self.manifest.first(), "ofs", folder, &format!("{}.json", self.run_key)]))
    }

    /// With `path` holding `bytes`, asks, and puts the file back.
    fn with<T>(&self, path: &Path, bytes: &[u8], ask: impl FnOnce() -> T) -> T {
        let before = fs::read(path).unwrap();
        fs::write(path, bytes).unwrap();
        let answer = ask();
        fs::write(path, before).unwrap();
        answer
    }
}

fn document_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_published_data_set_holds_and_can_be_found() {
    let home = Home::new();
    let set = home.build(&intent("train"));
    let report = set.report();
    assert_eq!(report.problems, []);
    assert!(report.ok() && report.anchored && report.rows > 800 && (80..report.rows).contains(&report.checked), "{report:?}");
    // Who asks the rows hears the same, and each of them counts.
    let decoded = verify_rows(&home.env, Some(&home.host.ledger), &set.manifest).unwrap();
    assert!(decoded.ok() && decoded.rows == report.rows && decoded.checked > report.rows + 80, "{decoded:?}");
    let said = |report: &Report| (report.rows_checked.as_str(), report.lines().into_iter().map(|l| l.text).collect::<String>());
    let ((by, told), (rows_by, rows_told)) = (said(&report), said(&decoded));
    assert_eq!((by, rows_by), ("BY_DIGEST", "DECODED"));
    assert!(told.contains("rows by file digest") && rows_told.contains("rows among them"), "{told} {rows_told}");
    let schema: Vec<String> = report.to_json().as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        schema,
        [
            "anchored",
            "checked",
            "manifest_id",
            "manifest_ref",
            "ok",
            "problems",
            "rebuilt",
            "rows",
            "rows_checked",
            "schema_version",
            "superseded_by",
            "supersedes"
        ]
    );
    // Without the ledger nothing is wrong, and still it is not ok.
    assert_eq!(set.alone(), []);
    let ledger = Some(home.host.ledger.as_ref());
    assert_eq!(find_manifest(&home.env, ledger, &report.manifest_id).unwrap(), set.manifest);
    assert_eq!(find_manifest(&home.env, None, set.manifest.as_str()).unwrap(), set.manifest);
    assert_eq!(find_manifest(&home.env, None, home.path(&set.manifest).to_str().unwrap()).unwrap(), set.manifest);
    let mut config = (*home.env.config).clone();
    config.set_flag("workspace", "platform_run_id", set.manifest.first()).unwrap();
    let active = Env { config: Arc::new(config), ..home.env.clone() };
    assert_eq!(find_manifest(&active, None, &report.manifest_id).unwrap(), set.manifest);
    for (env, given) in [(&home.env, report.manifest_id.as_str()), (&active, "dm_0"), (&active, "..")] {
        assert_eq!(find_manifest(env, None, given).unwrap_err().code.as_str(), "DATASET_NOT_FOUND", "{given}");
    }
    for at in ["R/ofs/manifests/dm_0.json", "R/ofs/other/dm_0.json", "dm_0.json"] {
        let refusal = verify(&home.env, ledger, &Ref::parse(at).unwrap()).unwrap_err();
        assert_eq!((refusal.code.as_str(), refusal.code.info().exit), ("DATASET_NOT_FOUND", 2), "{at}");
    }
}

#[test]
fn every_flipped_byte_is_found() {
    let home = Home::new();
    let set = home.build(&intent("train"));
    let own = [
        home.path(&set.manifest),
        set.file("index.json"),
        set.file("evidence/replay.json"),
        set.file("evidence/labels.json"),
        set.file("evidence/features.json"),
    ];
    let folders = ["publication_receipts", "resolved_build_plan", "replay_completeness", "label_resolution", "dataset_draft"];
    let receipts = folders.map(|f| set.receipt(f));
    let mut samples = 0;
    for (path, inside) in own.iter().map(|p| (p, true)).chain(receipts.iter().map(|p| (p, false))) {
        let bytes = fs::read(path).unwrap();
        let step = (bytes.len() / 45).max(1);
        for at in (samples % step..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (samples % 7);
            set.with(path, &flipped, || {
                assert!(!set.kinds().is_empty(), "{} byte {at} with the ledger", path.display());
                // What lies with the data set contradicts itself even without the ledger.
                assert!(!inside || !set.alone().is_empty(), "{} byte {at} without the ledger", path.display());
            });
            samples += 1;
        }
        for length in [0, 1, bytes.len() / 2, bytes.len() - 1] {
            set.with(path, &bytes[..length], || assert!(!set.kinds().is_empty(), "{} cut to {length}", path.display()));
        }
        fs::remove_file(path).unwrap();
        if path != &own[0] {
            assert!(set.kinds().contains(&Kind::Missing), "{}", path.display());
        }
        fs::write(path, &bytes).unwrap();
    }
    assert!(samples >= 300, "{samples}");
    let part = set.file("part-00000.parquet");
    let bytes = fs::read(&part).unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        set.with(&part, &flipped, || assert_eq!(set.alone(), [Kind::Digest], "byte {at}"));
    }
    set.with(&part, &bytes[..bytes.len() - 1], || assert!(set.kinds().contains(&Kind::Digest)));
    set.with(&part, &[bytes.as_slice(), b"x"].concat(), || assert!(set.kinds().contains(&Kind::Digest)));
    assert!(set.report().ok(), "everything was put back");
}

#[test]
fn swapped_moved_added_and_missing_files_are_found() {
    let home = Home::new();
    let set = home.build(&intent("train"));
    let mut later = intent("train");
    later["request_id"] = json!("another.request.of.tests");
    later["replay_basis"].as_array_mut().unwrap().pop();
    let other = home.build(&later);
    assert_ne!(set.manifest, other.manifest);
    for name in ["part-00000.parquet", "index.json", "evidence/labels.json", "evidence/replay.json"] {
        let swapped = fs::read(other.file(name)).unwrap();
        assert!(swapped != fs::read(set.file(name)).unwrap(), "{name} is the same in both");
        set.with(&set.file(name), &swapped, || assert!(!set.alone().is_empty() && !set.kinds().is_empty(), "{name}"));
    }
    let swapped = fs::read(home.path(&other.manifest)).unwrap();
    set.with(&home.path(&set.manifest), &swapped, || assert!(set.kinds().contains(&Kind::Name)));
    for name in ["part-00001.parquet", "evidence/more.json", "notes.txt"] {
        fs::write(set.file(name), b"x").unwrap();
        assert_eq!(set.alone(), [Kind::ExtraFile], "{name}");
        fs::remove_file(set.file(name)).unwrap();
    }
    let part = fs::read(set.file("part-00000.parquet")).unwrap();
    fs::remove_file(set.file("part-00000.parquet")).unwrap();
    assert_eq!(set.alone(), [Kind::Missing]);
    fs::write(set.file("part-00000.parquet"), part).unwrap();
    // A copy in the other folder would make one data set both fit and unfit for training.
    let place = Place::of(&set.manifest).unwrap();
    let copy = home.path(&place.other());
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::copy(home.path(&set.manifest), &copy).unwrap();
    assert_eq!(set.alone(), [Kind::Name]);
    let unfit = verify(&home.env, None, &place.other()).unwrap();
    assert!(unfit.problems.iter().filter(|p| p.kind == Kind::Name).count() >= 2, "{:?}", unfit.problems);
}

/// Changes one value of each row of the first part and says so in the file's digest; the digest of the rows as
/// they are now.
fn forge_part(set: &Set<'_>) -> Value {
    let part = set.file("part-00000.parquet");
    let batches: Vec<RecordBatch> = read_part(fs::read(&part).unwrap().into()).unwrap().map(Result::unwrap).collect();
    let schema = batches[0].schema();
    let mut writer = PartWriter::new(Vec::new(), schema.clone(), TS_COLUMN).unwrap();
    let mut tree = Tree::new();
    for batch in &batches {
        let mut columns = batch.columns().to_vec();
        let at = schema.fields().iter().position(|f| f.name().starts_with("departures")).unwrap();
        let changed: Int64Array = columns[at].as_primitive::<Int64Type>().iter().map(|v| v.map(|v| v + 1)).collect();
        columns[at] = Arc::new(changed) as ArrayRef;
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        tree.extend(&leaves(&batch).unwrap());
        writer.write(&batch).unwrap();
    }
    let (bytes, stats) = writer.finish().unwrap();
    fs::write(&part, &bytes).unwrap();
    let digest = json!(digest::hex(&tree.root(&schema_digest(&schema).unwrap())));
    let mut index = document_of(&set.file("index.json"));
    (index["files"][0]["blake3"], index["files"][0]["bytes"]) = (json!(stats.blake3), json!(stats.bytes));
    fs::write(set.file("index.json"), document(&index)).unwrap();
    digest
}

/// Changes the first part and makes everything that lies in the store agree with it.
fn forge(set: &Set<'_>) {
    let digest = forge_part(set);
    let (mut index, mut features) = (document_of(&set.file("index.json")), document_of(&set.file("evidence/features.json")));
    (index["rows_digest"], features["rows_digest"]) = (digest.clone(), digest);
    let features = document(&features);
    index["evidence"]["features"]["blake3"] = json!(blake3_hex(&features));
    fs::write(set.file("evidence/features.json"), features).unwrap();
    fs::write(set.file("index.json"), document(&index)).unwrap();
}

#[test]
fn a_consistent_forgery_is_found_by_receipt_and_ledger() {
    let home = Home::new();
    let set = home.build(&intent("train"));
    forge(&set);
    // The store agrees with itself: this is why nothing is ok without an anchor outside it.
    assert_eq!(set.alone(), []);
    assert_eq!(set.kinds(), BTreeSet::from([Kind::Receipt]));
    assert!(!set.report().anchored);
    // With the publication receipt forged as well, only the ledger is left, and it is enough.
    forge_receipt(&set);
    let mut receipt = document_of(&set.receipt("publication_receipts"));
    receipt["rows_digest"] = document_of(&set.file("index.json"))["rows_digest"].clone();
    fs::write(set.receipt("publication_receipts"), document(&receipt)).unwrap();
    let report = set.report();
    assert!(
        !report.anchored && report.problems.iter().any(|p| p.kind == Kind::Receipt && p.place.contains("publication_receipts")),
        "{report:?}"
    );
    // And a ledger whose event was changed to match has a broken chain.
    let forged = blake3_hex(&document(&receipt));
    let raw = rusqlite::Connection::open(home.env.config.path("ledger")).unwrap();
    raw.execute_batch("DROP TRIGGER run_events_no_update").unwrap();
    let stands = home.host.ledger.events(&set.run_key, 0).unwrap().last().unwrap().detail["receipt_blake3"].as_str().unwrap().to_owned();
    let changed = raw.execute("UPDATE run_events SET detail_json = replace(detail_json, ?1, ?2)", [&stands, &forged]).unwrap();
    assert!(changed > 0);
    let report = set.report();
    assert!(!report.anchored && report.problems.iter().any(|p| p.kind == Kind::Chain), "{report:?}");
}

/// Makes the publication receipt name the index as it is now; the digest that the ledger knows, and the new one.
fn forge_receipt(set: &Set<'_>) -> (String, String) {
    let path = set.receipt("publication_receipts");
    let stands = blake3_hex(&fs::read(&path).unwrap());
    let mut receipt = document_of(&path);
    receipt["index"]["blake3"] = json!(blake3_hex(&fs::read(set.file("index.json")).unwrap()));
    let bytes = document(&receipt);
    fs::write(&path, &bytes).unwrap();
    (stands, blake3_hex(&bytes))
}

/// Writes the run's events anew with one text for another, each hash as its recipe makes it, and the head of the chain.
fn forge_ledger(set: &Set<'_>, stands: &str, instead: &str) {
    let raw = rusqlite::Connection::open(set.home.env.config.path("ledger")).unwrap();
    raw.execute_batch("DROP TRIGGER run_events_no_update").unwrap();
    let mut before = String::new();
    for mut event in set.home.host.ledger.events(&set.run_key, 0).unwrap() {
        let detail = crate::json::canonical(&event.detail).replace(stands, instead);
        event.detail = serde_json::from_str(&detail).unwrap();
        event.prev_hash = before;
        before = event.digest();
        let sql = "UPDATE run_events SET detail_json = ?1, prev_hash = ?2, hash = ?3 WHERE run_key = ?4 AND seq = ?5";
        raw.execute(sql, rusqlite::params![detail, event.prev_hash, before, event.run_key, event.seq as i64]).unwrap();
    }
    assert_eq!(raw.execute("UPDATE runs SET last_hash = ?1 WHERE run_key = ?2", [&before, &set.run_key]).unwrap(), 1);
}

#[test]
fn a_chain_that_does_not_hold_makes_every_row_be_asked() {
    let home = Home::new();
    let set = home.build(&intent("train"));
    let stages: [&dyn Fn(); 3] = [
        &|| drop(forge_part(&set)),
        &|| drop(forge_receipt(&set)),
        // The event says what the receipt is, its own hash is that of before.
        &|| {
            let raw = rusqlite::Connection::open(home.env.config.path("ledger")).unwrap();
            raw.execute_batch("DROP TRIGGER run_events_no_update").unwrap();
            let stands = home.host.ledger.events(&set.run_key, 0).unwrap().last().unwrap().detail["receipt_blake3"].clone();
            let now = blake3_hex(&fs::read(set.receipt("publication_receipts")).unwrap());
            let sql = "UPDATE run_events SET detail_json = replace(detail_json, ?1, ?2)";
            assert!(raw.execute(sql, [stands.as_str().unwrap(), &now]).unwrap() > 0);
        },
    ];
    for (at, stage) in stages.iter().enumerate() {
        stage();
        let report = set.report();
        let kinds = set.kinds();
        assert!(!report.anchored && report.rows_checked == RowsChecked::Decoded, "{at}: {report:?}");
        // What only the rows tell is told, too, and it is what it would be if they had been asked for.
        assert!(kinds.contains(&Kind::RowsDigest) && kinds.contains(if at < 2 { &Kind::Receipt } else { &Kind::Chain }), "{at}: {kinds:?}");
        assert_eq!(report, verify_rows(&home.env, Some(&home.host.ledger), &set.manifest).unwrap());
    }
}

#[test]
fn rows_answer_for_themselves_where_every_digest_was_forged() {
    let home = Home::new();
    let set = home.build(&intent("train"));
    forge_part(&set);
    let (stands, instead) = forge_receipt(&set);
    forge_ledger(&set, &stands, &instead);
    // Whoever writes store and ledger anew makes a chain that holds: no byte differs from what it vouches for.
    let report = set.report();
    assert!(report.ok() && report.rows_checked == RowsChecked::ByDigest, "{report:?}");
    // The rows are not those that the digest of the rows was taken of.
    let decoded = verify_rows(&home.env, Some(&home.host.ledger), &set.manifest).unwrap();
    assert_eq!(decoded.problems.iter().map(|p| p.kind).collect::<Vec<_>>(), [Kind::RowsDigest], "{decoded:?}");
    assert!(decoded.anchored && !decoded.ok());
    let rebuilt = reprove(&home.env, Some(&home.host.ledger), &set.manifest).unwrap();
    assert!(rebuilt.problems.iter().any(|p| p.kind == Kind::RowsDigest), "{rebuilt:?}");
}

#[test]
fn a_file_is_not_read_beyond_the_size_that_the_index_names() {
    let home = Home::new();
    let set = home.build(&intent("train"));
    let part = set.file("part-00000.parquet");
    let whole = fs::metadata(&part).unwrap().len();
    for (length, found) in
        [(whole + 1, "more bytes".to_owned()), (1 << 40, "more bytes".into()), (whole - 1, format!("{} bytes", whole - 1))]
    {
        fs::OpenOptions::new().write(true).open(&part).unwrap().set_len(length).unwrap();
        let report = set.report();
        assert!(report.problems.iter().any(|p| p.kind == Kind::Digest && p.found == found), "{length}: {report:?}");
    }
}

#[test]
fn rows_are_held_against_basis_order_id_and_cut_off() {
    let home = Home::new();
    let set = home.build(&intent("train"));
    let part = set.file("part-00000.parquet");
    let original = fs::read(&part).unwrap();
    let batches: Vec<RecordBatch> = read_part(original.clone().into()).unwrap().map(Result::unwrap).collect();
    let schema = batches[0].schema();
    let whole = arrow::compute::concat_batches(&schema, &batches).unwrap();
    let index_bytes = fs::read(set.file("index.json")).unwrap();
    // The file's own digest is made to fit each time, so that the rows themselves are what is judged.
    let judged = |batch: &RecordBatch| {
        let mut writer = PartWriter::new(Vec::new(), schema.clone(), TS_COLUMN).unwrap();
        writer.write(batch).unwrap();
        let (bytes, stats) = writer.finish().unwrap();
        let mut index: Value = serde_json::from_slice(&index_bytes).unwrap();
        (index["files"][0]["blake3"], index["files"][0]["bytes"]) = (json!(stats.blake3), json!(stats.bytes));
        set.with(&part, &bytes, || set.with(&set.file("index.json"), &document(&index), || set.alone()))
    };
    let rows = whole.num_rows() as u32;
    let take = |order: Vec<u32>| arrow::compute::take_record_batch(&whole, &arrow::array::UInt32Array::from(order)).unwrap();
    assert_eq!(judged(&whole), []);
    assert!(judged(&take([1, 0].into_iter().chain(2..rows).collect())).contains(&Kind::Order));
    assert!(judged(&take((0..rows - 1).collect())).contains(&Kind::Rows));
    assert!(judged(&take((0..rows).map(|r| if r == 5 { 4 } else { r }).collect())).contains(&Kind::Order));
    let with = |name: &str, change: &dyn Fn(&ArrayRef) -> ArrayRef| {
        let mut columns = whole.columns().to_vec();
        let at = schema.index_of(name).unwrap();
        columns[at] = change(&columns[at]);
        judged(&RecordBatch::try_new(schema.clone(), columns).unwrap())
    };
    let more = |array: &ArrayRef| {
        Arc::new(array.as_primitive::<Int64Type>().iter().map(|v| v.map(|v| v + 100_000)).collect::<Int64Array>()) as ArrayRef
    };
    assert!(with("offset", &more).contains(&Kind::OutsideBasis));
    assert!(with("departures_1h", &more).contains(&Kind::RowsDigest));
    let text = |f: &dyn Fn(&str) -> String, array: &ArrayRef| {
        Arc::new(array.as_string::<i32>().iter().map(|v| v.map(f)).collect::<arrow::array::StringArray>()) as ArrayRef
    };
    assert!(with("row_id", &|a| text(&|_| "0".repeat(32), a)).contains(&Kind::RowId));
    assert!(with("payload_hash", &|a| text(&|_| "0".repeat(64), a)).contains(&Kind::RowId));
    let late = |array: &ArrayRef| {
        let moved = array.as_primitive::<arrow::datatypes::TimestampMicrosecondType>().unary(|ts| ts + 400 * 86_400_000_000);
        Arc::new(arrow::array::TimestampMicrosecondArray::from(moved).with_timezone("UTC")) as ArrayRef
    };
    assert!(with("label_arrival_status_observed_utc", &late).contains(&Kind::Leakage));
    assert!(with("label_arrival_status_status", &|a| text(&|_| "NOT_FOUND".into(), a)).contains(&Kind::Leakage));
    assert!(set.report().ok());
}

#[test]
fn an_adopted_data_set_is_anchored_by_both_runs_and_a_changed_index_shows_in_each() {
    let home = Home::new();
    let set = home.build(&intent("train"));
    let mut again = intent("train");
    again["request_id"] = json!("another.request.of.tests");
    let second = home.build(&again);
    assert_eq!((&set.manifest, set.report().ok()), (&second.manifest, true));
    forge(&set);
    let told: BTreeSet<String> = set.report().problems.into_iter().map(|p| p.place).collect();
    assert!([&set, &second].iter().all(|s| told.iter().any(|p| p.contains(&s.run_key))), "{told:?}");
}

/// A ledger that another process keeps locked.
#[derive(Debug)]
struct Locked;

impl Watch for Locked {
    fn around(&self, _: Access, _: &mut dyn FnMut() -> Result<(), LedgerError>) -> Result<(), LedgerError> {
        Err(LedgerError::Io("another process kept it locked".into()))
    }
}

#[test]
fn a_ledger_that_cannot_be_read_is_told_of_and_not_held_for_an_empty_one() {
    let home = Home::new();
    let set = home.build(&intent("train"));
    let locked = Ledger::open(&home.env.config.path("ledger"), home.host.clock.clone(), "t").unwrap().with_watch(Arc::new(Locked));
    let mut report = set.report();
    let refusal = crate::prove::reprove::check(&home.env, Some(&locked), &set.manifest, &mut report).unwrap_err();
    assert_eq!((refusal.code, refusal.phase, report.problems), (ReasonCode::LedgerIo, Phase::Ledger, vec![]));
    let explain = |ledger| crate::prove::explain::explain(&home.env, ledger, &set.manifest, "nobody", 1).unwrap();
    let (told, without) = (explain(Some(&*home.host.ledger)), explain(None));
    let untold = explain(Some(&locked));
    assert_eq!((told.runs.len(), without.runs.len(), untold.runs.len()), (1, 0, 0));
    let notes = |explanation: &Explanation| explanation.notes.iter().filter(|n| n.contains("UNKNOWN: LEDGER_IO")).count();
    assert_eq!((notes(&told), notes(&without), notes(&untold)), (0, 0, 1));
}

/// A generator of its own, so that a seed names the same flips everywhere.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// A small data set with a past: its first attempt was refused, and it corrects another one.
fn eventful(home: &Home) -> Set<'_> {
    let mut first = intent("train");
    first["replay_basis"] = json!([first["replay_basis"][0]]);
    first["replay_basis"][0]["end_offset"] = json!("39");
    let old = home.build(&first);
    first["request_id"] = json!("a.correction.of.tests");
    let record = home
        .dir
        .path()
        .join("store")
        .join(old.manifest.first())
        .join("archive/events/topic=fp.bus.traffic.flights.v1/partition=0/offset_kind=kafka_offset/offset=3.json");
    let bytes = fs::read(&record).unwrap();
    fs::remove_file(&record).unwrap();
    let supersession =
        crate::pipeline::admit::Supersession { manifests: vec![Place::of(&old.manifest).unwrap().id], reason: Some("tests".into()) };
    let request = Request { intent: first.to_string().into_bytes(), supersession };
    let refused = run::run(&request, &home.env, &home.host, &Unattended).unwrap();
    assert_eq!(refused.text("/reason/code"), "REPLAY_INCOMPLETE");
    fs::write(&record, bytes).unwrap();
    let result = run::run(&request, &home.env, &home.host, &Unattended).unwrap();
    assert_eq!(result.exit, 0, "{}", result.document);
    Set { home, manifest: Ref::parse(result.text("/dataset/manifest_ref")).unwrap(), run_key: result.text("/run_key").to_owned() }
}

/// Every file that the data set, its run and the run's events lead to.
fn reachable(set: &Set<'_>) -> Vec<PathBuf> {
    let run = set.manifest.first();
    let id = Place::of(&set.manifest).unwrap().id;
    let store = set.home.env.store.as_ref();
    let mut all: Vec<Ref> = store.list(&Ref::of(&[run, "ofs"])).unwrap().into_iter().map(|(at, _)| at).collect();
    all.retain(|at| at.as_str().contains(&id) || at.as_str().contains(&set.run_key));
    let named = |part: &str| assert!(all.iter().any(|at| at.as_str().contains(part)), "{part} is not among {all:?}");
    for part in ["/manifests/", "/datasets/", "/evidence/replay", "/resolved_build_plan/", "/replay_completeness/", "/replay_anomalies/"] {
        named(part);
    }
    for part in ["/label_resolution/", "/dataset_draft/", "/publication_receipts/", "/supersession/", "/by_manifest/", "/refusals/"] {
        named(part);
    }
    all.iter().map(|at| set.home.path(at)).collect()
}

/// Flips a bit of one column of one event of the run behind the ledger's back; whether there was one to flip.
fn flip_event(raw: &rusqlite::Connection, set: &Set<'_>, random: &mut Seeded, ask: impl FnOnce(&str)) -> bool {
    use rusqlite::types::Value as Sql;
    const COLUMNS: [&str; 10] =
        ["run_key", "seq", "event_type", "status", "at_us", "actor", "reason_code", "detail_json", "prev_hash", "hash"];
    let events = set.home.host.ledger.events(&set.run_key, 0).unwrap();
    let (seq, column) = (events[random.below(events.len())].seq as i64, COLUMNS[random.below(COLUMNS.len())]);
    let of = "FROM run_events WHERE run_key = ?1 AND seq = ?2";
    let stands: Sql = raw.query_row(&format!("SELECT {column} {of}"), rusqlite::params![set.run_key, seq], |row| row.get(0)).unwrap();
    let rowid = (set.run_key.clone(), seq);
    let write = |key: &(String, i64), value: &Sql| {
        let cast = if matches!(value, Sql::Blob(_)) { "CAST(?3 AS TEXT)" } else { "?3" };
        raw.execute(
            &format!("UPDATE run_events SET {column} = {cast} WHERE CAST(run_key AS BLOB) = CAST(?1 AS BLOB) AND seq = ?2"),
            rusqlite::params![key.0, key.1, value],
        )
    };
    let (flipped, now) = match &stands {
        Sql::Integer(n) => {
            let flipped = n ^ (1 << random.below(40));
            (Sql::Integer(flipped), (rowid.0.clone(), if column == "seq" { flipped } else { seq }))
        }
        Sql::Text(text) if !text.is_empty() => {
            let mut bytes = text.clone().into_bytes();
            let at = random.below(bytes.len());
            bytes[at] ^= 1 << random.below(8);
            // A key that is no text any more could not be named again.
            let Ok(key) = String::from_utf8(bytes.clone()) else {
                if column == "run_key" {
                    return false;
                }
                return flipped_and_back(&write, &rowid, &rowid, &Sql::Blob(bytes), &stands, || {
                    ask(&format!("{column} of event {seq} byte {at}"))
                });
            };
            (Sql::Blob(bytes), (if column == "run_key" { key } else { rowid.0.clone() }, seq))
        }
        _ => return false,
    };
    flipped_and_back(&write, &rowid, &now, &flipped, &stands, || ask(&format!("{column} of event {seq}")))
}

type Write<'w> = dyn Fn(&(String, i64), &rusqlite::types::Value) -> rusqlite::Result<usize> + 'w;

fn flipped_and_back(
    write: &Write<'_>,
    before: &(String, i64),
    after: &(String, i64),
    flipped: &rusqlite::types::Value,
    stands: &rusqlite::types::Value,
    ask: impl FnOnce(),
) -> bool {
    // Another event may have that number already.
    if write(before, flipped).is_err() {
        return false;
    }
    ask();
    assert_eq!(write(after, stands).unwrap(), 1);
    true
}

#[test]
fn every_sampled_flip_of_what_a_data_set_leads_to_is_found() {
    let wanted: usize = std::env::var("OFS_TEST_FLIPS").ok().and_then(|n| n.parse().ok()).unwrap_or(400);
    let home = Home::new();
    let set = eventful(&home);
    let report = set.report();
    assert!(report.ok(), "{report:?}");
    assert_eq!(report.supersedes.len(), 1);
    let (files, mut random) = (reachable(&set), Seeded(33));
    let sizes: Vec<usize> = files.iter().map(|f| fs::read(f).unwrap().len()).collect();
    let raw = rusqlite::Connection::open(home.env.config.path("ledger")).unwrap();
    raw.execute_batch("PRAGMA foreign_keys = OFF; DROP TRIGGER run_events_no_update; DROP TRIGGER run_events_no_delete;").unwrap();
    let (mut of_files, mut of_events, mut missed) = (0, 0, Vec::new());
    while of_files + of_events < wanted {
        if random.below(4) == 0 {
            let mut found = true;
            let mut what = String::new();
            if flip_event(&raw, &set, &mut random, |place| (what, found) = (place.to_owned(), !set.report().ok())) {
                of_events += 1;
            }
            missed.extend((!found).then_some(what));
            continue;
        }
        // Half of them by file, so that small files are met; half by byte, so that large ones are.
        let file = if random.below(2) == 0 {
            random.below(files.len())
        } else {
            let mut at = random.below(sizes.iter().sum());
            sizes
                .iter()
                .position(|size| {
                    at < *size || {
                        at -= size;
                        false
                    }
                })
                .unwrap()
        };
        let mut bytes = fs::read(&files[file]).unwrap();
        let at = random.below(bytes.len());
        bytes[at] ^= 1 << random.below(8);
        if set.with(&files[file], &bytes, || set.report().ok()) {
            missed.push(format!("{} byte {at}", files[file].display()));
        }
        of_files += 1;
    }
    println!("{of_files} flips of {} files and {of_events} of ledger events, {} missed", files.len(), missed.len());
    assert_eq!(missed, [""; 0]);
    assert!(set.report().ok(), "everything was put back");
}
