//! What every black-box test needs: workspaces, the binary in a clean environment, JSON documents, trees
//! of files with their digests, and the pieces of a made-up world.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ofs::config::Config;
use ofs::pipeline::gate::Env;
use ofs::pipeline::progress::Progress;
use ofs::store::{LocalStore, Store, Unrecorded};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// The platform run of the committed fixture.
pub(crate) const FLIGHTS_RUN: &str = "platform_20130101T000000Z";
/// The topic of the committed fixture.
pub(crate) const FLIGHTS_TOPIC: &str = "fp.bus.traffic.flights.v1";

/// The repository.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The store of the workspace at `root`.
pub(crate) fn store_of(root: &Path) -> Arc<dyn Store> {
    Arc::new(LocalStore::open(&root.join("store")).unwrap())
}

/// The environment of the workspace at `root` for a build in this process, over a store of the test's choice.
pub(crate) fn environment(root: &Path, store: Arc<dyn Store>) -> Env {
    let mut config = Config::load(Some(root), root, &BTreeMap::new()).unwrap();
    config.set_flag("limits", "threads", "1").unwrap();
    config.set_flag("paths", "scratch", "scratch").unwrap();
    Env {
        store,
        store_root: None,
        config: Arc::new(config),
        cancel: CancellationToken::new(),
        progress: Arc::new(Progress::default()),
        attempt: "test".into(),
        audit: Arc::new(Unrecorded),
    }
}

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Output {
    fn of(output: std::process::Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the program prints UTF-8");
        Output { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The one JSON document on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}\nstdout: {}\nstderr: {}", self.out, self.err))
    }

    /// Holds the exit code.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    /// Holds the exit code, and the reason code in the document and on stderr.
    pub(crate) fn refused(self, exit: i32, reason: &str) -> Self {
        let this = self.expect(exit);
        let document = this.json();
        let found = document.pointer("/reason/code").or(document.get("code")).and_then(Value::as_str);
        assert_eq!(found, Some(reason), "stdout: {}\nstderr: {}", this.out, this.err);
        assert!(this.err.contains(reason), "{}", this.err);
        this
    }
}

/// A file with all that may not change about an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    digest: String,
    modified: SystemTime,
}

/// A workspace of its own, with scratch space of its own.
pub(crate) struct Workspace {
    dir: TempDir,
    /// Whether inputs are hashed around every command.
    guarded: bool,
}

impl Workspace {
    /// Nothing at all.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["w", "tmp", "home"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Workspace { dir, guarded: true }
    }

    /// A copy of the committed fixture.
    pub(crate) fn flights() -> Self {
        let this = Self::empty();
        copy(&repository().join("fixtures/flights-day"), &this.root());
        this
    }

    /// The same inputs again, in another directory.
    pub(crate) fn copy_of(other: &Workspace) -> Self {
        let this = Workspace { guarded: other.guarded, ..Self::empty() };
        copy(&other.root(), &this.root());
        this
    }

    /// Without hashing inputs around every command, where they are large.
    pub(crate) fn unguarded(mut self) -> Self {
        self.guarded = false;
        self
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("w")
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root().join(relative)
    }

    pub(crate) fn text(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
    }

    pub(crate) fn json(&self, relative: &str) -> Value {
        serde_json::from_str(&self.text(relative)).unwrap()
    }

    pub(crate) fn write(&self, relative: &str, text: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The binary with a clean environment, in the workspace's parent.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ofs"));
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.dir.path().join("home"))
            .env("TMPDIR", self.scratch())
            .env("OFS_WORKSPACE", self.root())
            .current_dir(self.dir.path().join("home"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; no input may differ afterwards.
    pub(crate) fn ofs(&self, args: &[&str]) -> Output {
        self.finish(self.command(args))
    }

    /// As [`Workspace::ofs`], with further environment.
    pub(crate) fn ofs_with(&self, environment: &[(&str, &str)], args: &[&str]) -> Output {
        let mut command = self.command(args);
        command.envs(environment.iter().copied());
        self.finish(command)
    }

    pub(crate) fn finish(&self, mut command: Command) -> Output {
        let before = self.guarded.then(|| self.inputs());
        let output = Output::of(command.output().expect("the program starts"));
        if let Some(before) = before {
            assert_eq!(self.inputs(), before, "an input changed under {command:?}");
        }
        output
    }

    /// Starts a command with its output piped.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    }

    /// `ofs run --json` of an intent in `intents/`.
    pub(crate) fn run(&self, intent: &str) -> Output {
        self.ofs(&["run", self.path(&format!("intents/{intent}.json")).to_str().unwrap(), "--json"])
    }

    /// Runs an intent that must end DONE; its result document.
    pub(crate) fn build(&self, intent: &str) -> Value {
        self.run(intent).expect(0).json()
    }

    /// Writes an intent made from another one.
    pub(crate) fn intent(&self, name: &str, from: &str, change: impl FnOnce(&mut Value)) {
        let mut intent = self.json(&format!("intents/{from}.json"));
        change(&mut intent);
        self.write(&format!("intents/{name}.json"), serde_json::to_vec_pretty(&intent).unwrap());
    }

    /// Everything that OFS must never change: whatever is not its state and not below `<run>/ofs`.
    pub(crate) fn inputs(&self) -> BTreeMap<String, Seen> {
        let ours = |path: &str| {
            let parts: Vec<&str> = path.split('/').collect();
            matches!(parts.as_slice(), ["state", ..] | ["store", _, "ofs", ..])
        };
        let mut seen = BTreeMap::new();
        for path in files(&self.root()) {
            let name = path.strip_prefix(self.root()).unwrap().to_str().unwrap().to_owned();
            if !ours(&name) {
                let modified = fs::symlink_metadata(&path).unwrap().modified().unwrap();
                seen.insert(name, Seen { digest: blake3_hex(&fs::read(&path).unwrap()), modified });
            }
        }
        seen
    }

    /// Relative path and bytes of every file below a folder of the workspace, without the back end's own
    /// temporary names.
    pub(crate) fn tree(&self, relative: &str) -> BTreeMap<String, Vec<u8>> {
        let folder = self.path(relative);
        let name = |p: &Path| p.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        files(&folder).into_iter().filter(|p| !temporary(p)).map(|p| (name(&p), fs::read(&p).unwrap())).collect()
    }

    /// Everything that was published: data sets with their evidence, and manifests of both kinds.
    pub(crate) fn published(&self, run: &str) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        for folder in ["datasets", "manifests", "manifests_nontraining"] {
            for (name, bytes) in self.tree(&format!("store/{run}/ofs/{folder}")) {
                all.insert(format!("{folder}/{name}"), bytes);
            }
        }
        all
    }

    /// The manifests, by name.
    pub(crate) fn manifests(&self, run: &str) -> Vec<String> {
        self.published(run).into_keys().filter(|k| k.starts_with("manifests")).collect()
    }

    /// Nothing success-shaped is there: no manifest, no data set.
    pub(crate) fn assert_nothing_published(&self, run: &str) {
        assert_eq!(self.published(run).into_keys().collect::<Vec<_>>(), [""; 0]);
    }

    /// No manifest of either kind is there, whatever else may be.
    pub(crate) fn assert_no_manifest(&self, run: &str) {
        assert_eq!(self.manifests(run), [""; 0]);
    }

    /// The events of a run by key or request id.
    pub(crate) fn events(&self, run: &str) -> Vec<Value> {
        let document = self.ofs(&["events", run, "--json"]).expect(0).json();
        document["events"].as_array().unwrap().clone()
    }

    pub(crate) fn event_types(&self, run: &str) -> Vec<String> {
        self.events(run).iter().map(|e| e["event_type"].as_str().unwrap().to_owned()).collect()
    }

    /// A run's row as `ofs show` gives it.
    pub(crate) fn row(&self, run: &str) -> Value {
        self.ofs(&["show", run, "--json"]).expect(0).json()["run"].clone()
    }
}

/// Whether a name is one of the store's unfinished files (`name#<digits>`).
fn temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    name.rsplit_once('#').is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// All files below a folder, sorted; none where it is not there.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// The fixture cut to one small lane, so that a build takes a few milliseconds of work.
pub(crate) fn small() -> Workspace {
    let workspace = Workspace::flights().unguarded();
    workspace.intent("train", "train", |intent| {
        let basis = intent["replay_basis"].as_array_mut().unwrap();
        basis.truncate(1);
        basis[0]["end_offset"] = "19".into();
    });
    workspace
}

/// Copies a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Whether figures are wanted, and every case of a loop that takes minutes: `OFS_THOROUGH=1`. Figures want a machine
/// for themselves, so no test holds one otherwise.
pub(crate) fn thorough() -> bool {
    std::env::var_os("OFS_THOROUGH").is_some()
}

/// Waits for a condition in short looks.
pub(crate) fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal by name to one process.
pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().expect("kill is there");
    assert!(status.success());
}

/// Stops a process at an instant at which it is not writing to the ledger: stopped inside a write it would hold
/// the only write lock, and nobody else could say a word.
pub(crate) fn halt(w: &Workspace, child: &Child) {
    let state = || fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    wait_for("a stop between two writes", Duration::from_secs(60), || {
        signal(child, "STOP");
        wait_for("the stop", Duration::from_secs(60), || state().rsplit_once(')').unwrap().1.starts_with(" T"));
        let ledger = rusqlite::Connection::open(w.path("state/ledger.db")).unwrap();
        ledger.busy_timeout(Duration::ZERO).unwrap();
        let free = ledger.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok();
        if !free {
            signal(child, "CONT");
        }
        free
    });
}

/// Kills programs at random instants of their work.
///
/// How long the work takes is a first guess, which every program that ended before its instant corrects: on a machine
/// that was slow at first and is free afterwards hardly any kill would find a living process.
pub(crate) struct Kills {
    random: Random,
    whole: Duration,
    met: usize,
    turns: usize,
}

impl Kills {
    /// `whole`: what one build took.
    pub(crate) fn new(seed: u64, whole: Duration) -> Self {
        Kills { random: Random::new(seed), whole, met: 0, turns: 0 }
    }

    /// How many found a living process; fails where it happens so seldom that something must be wrong with the aim.
    pub(crate) fn met(&self) -> usize {
        assert!(self.turns < 100 || self.met > self.turns / 10, "only {} of {} kills met a living process", self.met, self.turns);
        self.met
    }

    /// Kills a program that was just started and that has a whole build to do; whether it was still alive.
    pub(crate) fn kill(&mut self, mut child: Child) -> bool {
        let began = Instant::now();
        let instant = self.whole.mul_f64(self.random.below(1_000) as f64 / 1_000.0);
        while began.elapsed() < instant && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        let lived = began.elapsed();
        child.kill().unwrap();
        let ended = outcome(child);
        assert!(ended.code <= 0, "{}", ended.err);
        // No exit code: the signal ended it.
        let met = ended.code == -1;
        (self.turns, self.met) = (self.turns + 1, self.met + usize::from(met));
        if !met {
            self.whole = (self.whole + lived) / 2;
        }
        met
    }
}

/// Processor time in ms and voluntary switches of all threads.
pub(crate) fn usage(pid: u32) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    let switches = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().map(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap_or("0").trim().to_owned();
        line.parse::<u64>().unwrap_or(0)
    });
    (ticks * 10, switches.sum())
}

/// Waits until a process that has nothing to do has looked round so many times: what it does not do meanwhile,
/// it does not do by itself.
pub(crate) fn woken(pid: u32, times: u64) {
    let before = usage(pid).1;
    wait_for("a process to wake up", Duration::from_secs(60), || usage(pid).1 >= before + times);
}

pub(crate) fn outcome(child: Child) -> Output {
    Output::of(child.wait_with_output().unwrap())
}

pub(crate) fn blake3_hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Canonical JSON: keys sorted, compact, number tokens as they are; pure ASCII where wanted.
pub(crate) fn canonical(value: &Value, ascii: bool) -> String {
    fn text(text: &str, ascii: bool) -> String {
        let plain = Value::String(text.to_owned()).to_string();
        if !ascii {
            return plain;
        }
        let mut out = String::new();
        for c in plain.chars() {
            if (' '..='~').contains(&c) {
                out.push(c);
            } else {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
        }
        out
    }
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let fields: Vec<String> = sorted.into_iter().map(|(k, v)| format!("{}:{}", text(k, ascii), canonical(v, ascii))).collect();
            format!("{{{}}}", fields.join(","))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(|v| canonical(v, ascii)).collect::<Vec<_>>().join(",")),
        Value::String(s) => text(s, ascii),
        other => other.to_string(),
    }
}

/// The bare payload hash of an envelope.
pub(crate) fn payload_hash(envelope: &Value) -> String {
    sha256_hex(canonical(envelope, true).as_bytes())
}

/// An archive record for an envelope at a place.
pub(crate) fn archive_record(topic: &str, partition: i32, kind: &str, offset: &str, envelope: &Value) -> Value {
    json!({
        "archived_at_utc": "2030-01-01T00:00:00.000000Z", "envelope": envelope, "event_id": envelope["event_id"],
        "origin_offset": {"topic": topic, "partition": partition, "offset_kind": kind, "offset": offset},
        "payload_hash": payload_hash(envelope), "platform_run_id": envelope["platform_run_id"], "ts_utc": envelope["ts_utc"],
    })
}

/// The archive folder of a lane.
pub(crate) fn archive_folder(run: &str, topic: &str, partition: i32, kind: &str) -> String {
    format!("store/{run}/archive/events/topic={topic}/partition={partition}/offset_kind={kind}")
}

/// A small generator: the same numbers everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<'t, T>(&mut self, list: &'t [T]) -> &'t T {
        &list[self.below(list.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for i in (1..list.len()).rev() {
            list.swap(i, self.below(i + 1));
        }
    }
}

/// Microseconds since 1970 as the program writes instants.
pub(crate) fn instant(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).unwrap().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// One instant in one of its lawful spellings.
pub(crate) fn spelled(micros: i64, way: usize) -> String {
    let at = jiff::Timestamp::from_microsecond(micros).unwrap();
    match way % 4 {
        0 => instant(micros),
        1 => {
            let shifted = jiff::Timestamp::from_microsecond(micros + 7_200_000_000).unwrap();
            shifted.strftime("%Y-%m-%dT%H:%M:%S.%6f+02:00").to_string()
        }
        2 if micros % 1_000_000 == 0 => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        3 => at.strftime("%Y-%m-%dT%H:%M:%S.%6f000Z").to_string(),
        _ => at.strftime("%Y-%m-%dT%H:%M:%S.%6f-00:00").to_string(),
    }
}

/// The events of the fixture's lane: envelope by offset, from archive and bus.
pub(crate) fn flights_lane(workspace: &Workspace, partition: i32) -> BTreeMap<u64, Value> {
    let mut all = BTreeMap::new();
    let folder = workspace.path(&archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, partition, "kafka_offset"));
    for path in files(&folder) {
        for line in fs::read_to_string(&path).unwrap().lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            all.insert(record["origin_offset"]["offset"].as_str().unwrap().parse().unwrap(), record["envelope"].clone());
        }
    }
    let meta = workspace.json(&format!("bus/{FLIGHTS_TOPIC}/partition={partition}.meta.json"));
    let base = meta["base_offset"].as_u64().unwrap();
    for (i, line) in workspace.text(&format!("bus/{FLIGHTS_TOPIC}/partition={partition}.jsonl")).lines().enumerate() {
        let record: Value = serde_json::from_str(line).unwrap();
        all.insert(base + i as u64, record["payload"].clone());
    }
    all
}

/// An intent for a made-up world; the caller changes what matters to it.
pub(crate) fn intent(run: &str, request: &str, basis: Value, features: &str) -> Value {
    json!({
        "schema_version": "learning.ofs_build_intent.v0", "request_id": request, "intent_kind": "dataset_build", "platform_run_id": run,
        "scenario_run_ids": [], "replay_basis": basis,
        "label_basis": {"label_asof_utc": "2026-02-01T00:00:00Z", "resolution_rule": "observed_time<=label_asof_utc", "maturity_days": 7},
        "feature_definition_set": {"feature_set_id": features, "feature_set_version": "v1"},
        "join_scope": {"subject_key": "platform_run_id,event_id", "required_output_ids": ["world"]},
        "filters": {"label_types": ["alpha"], "label_coverage_policy": {"min_coverage_by_label_type": {"alpha": 0}, "max_conflict_ratio": 1}},
        "run_facts_ref": format!("{run}/sr/facts.json"), "policy_revision": "p0", "config_revision": "c0", "ofs_code_release_id": "git:0",
        "non_training_allowed": false,
    })
}

/// Run facts of a made-up world, with a PASS for its one output.
pub(crate) fn facts(run: &str, scenario: &str) -> Value {
    let path = format!("{run}/world/world.json");
    json!({
        "platform_run_id": run, "scenario_run_id": scenario, "run_id": scenario,
        "pins": {"platform_run_id": run, "scenario_run_id": scenario, "manifest_fingerprint": "f"},
        "locators": [{"output_id": "world", "path": path, "manifest_fingerprint": "f"}],
        "instance_receipts": [{"output_id": "world", "status": "PASS", "target_ref": {"output_id": "world", "path": path}}],
        "gate_receipts": [],
    })
}

/// An assertion about an event.
pub(crate) fn assertion(run: &str, id: &str, event: &str, label: (&str, &str), observed: &str) -> Value {
    json!({
        "label_assertion_id": id, "label_subject_key": {"platform_run_id": run, "event_id": event}, "label_type": label.0, "label_value": label.1,
        "effective_time": "2026-01-01T00:00:00Z", "observed_time": observed, "source_type": "EXTERNAL", "payload_hash": sha256_hex(id.as_bytes()),
    })
}

/// A workspace with so many events that a build takes a while: one archive file a partition, no bus.
pub(crate) fn large(events: usize) -> Workspace {
    const RUN: &str = "platform_20260301T000000Z";
    let workspace = Workspace::empty().unguarded();
    let partitions = 2;
    let (mut archive, mut labels) = (vec![String::new(); partitions], String::new());
    for i in 0..events {
        let (partition, offset) = (i % partitions, i / partitions);
        let ts = instant(1_769_904_000_000_000 + i as i64 * 1_000_000);
        let (key, amount) = (i % 997, i % 1_013);
        let envelope = format!(
            "{{\"event_id\":\"e{i:08}\",\"payload\":{{\"amount\":{amount},\"flow_id\":\"k{key}\"}},\"platform_run_id\":\"{RUN}\",\"ts_utc\":\"{ts}\"}}"
        );
        let hash = sha256_hex(envelope.as_bytes());
        archive[partition].push_str(&format!(
            "{{\"envelope\":{envelope},\"origin_offset\":{{\"offset\":\"{offset}\",\"offset_kind\":\"kafka_offset\",\"partition\":{partition},\"topic\":\"t\"}},\"payload_hash\":\"{hash}\"}}\n"
        ));
        labels.push_str(&format!(
            "{{\"label_assertion_id\":\"a{i:08}\",\"label_subject_key\":{{\"event_id\":\"e{i:08}\",\"platform_run_id\":\"{RUN}\"}},\"label_type\":\"alpha\",\"label_value\":\"X\",\"observed_time\":\"2026-01-01T00:00:00Z\"}}\n"
        ));
    }
    let mut basis = Vec::new();
    for (partition, text) in archive.into_iter().enumerate() {
        let last = (events - partition).div_ceil(partitions) - 1;
        basis.push(json!({"topic": "t", "partition": partition, "offset_kind": "kafka_offset", "start_offset": "0", "end_offset": last.to_string()}));
        workspace.write(&format!("{}/all.jsonl", archive_folder(RUN, "t", partition as i32, "kafka_offset")), text);
    }
    workspace.write("labels/all.jsonl", labels);
    workspace.write(
        "authority/features_v0.yaml",
        "policy_id: p\nrevision: r1\nlabel_types: {alpha: [X]}\nfeature_groups:\n  - {name: group, version: v1, windows: [{window: 1h, duration: 1h, ttl: 1h}, {window: 7d, duration: 7d, ttl: 7d}], features: [{name: n, agg: count}, {name: s, agg: sum, field: amount, type: int64}, {name: sd, agg: stddev, field: amount, type: int64}]}\n",
    );
    workspace.write(&format!("store/{RUN}/sr/facts.json"), facts(RUN, "s").to_string());
    workspace.write(&format!("store/{RUN}/world/world.json"), "{}");
    let mut it = intent(RUN, "request.large", Value::Array(basis), "group");
    it["label_basis"]["label_asof_utc"] = json!("2026-06-01T00:00:00Z");
    workspace.write("intents/x.json", it.to_string());
    workspace
}

/// JSON values, one a line.
pub(crate) fn lines<'v>(values: impl IntoIterator<Item = &'v Value>) -> String {
    values.into_iter().map(|v| format!("{v}\n")).collect()
}

/// The keys of a JSON object.
pub(crate) fn keys(value: &Value) -> BTreeSet<String> {
    value.as_object().unwrap_or(&Map::new()).keys().cloned().collect()
}

/// A character that could command a terminal, reorder a line or hide in it.
pub(crate) fn hostile(c: char) -> bool {
    (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200b}'..='\u{200f}' | '\u{feff}')
}
