//! A fault at every store operation: fail the N-th one, for N = 1, 2, 3 … until a build passes without
//! meeting its fault. After each, a documented command must bring the run to the same bytes as an
//! undisturbed build, and nothing discoverable may be wrong meanwhile.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ofs::config::Config;
use ofs::ledger::{Ledger, Owner};
use ofs::pipeline::admit::Supersession;
use ofs::pipeline::gate::Env;
use ofs::pipeline::progress::Progress;
use ofs::pipeline::run::{self, Host, Request, RunResult, StopSignal, Unattended};
use ofs::store::{Created, ErrorKind, LocalStore, Ref, StagedFile, Store, StoreError};
use ofs::time::SystemClock;
use tokio_util::sync::CancellationToken;

use crate::support::{Workspace, files};

/// What happens at the operation that is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It fails and did nothing.
    Before,
    /// It was carried out, but the answer is an error.
    After,
    /// The process dies before it.
    Kill,
}

#[derive(Debug)]
struct Nth {
    inner: LocalStore,
    mode: Mode,
    at: u64,
    count: Arc<AtomicU64>,
}

struct Killed;

fn broken(at: &Ref) -> StoreError {
    StoreError::new(ErrorKind::Io, at.as_str(), "an injected fault")
}

impl Nth {
    fn hit<T>(&self, at: &Ref, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 != self.at {
            return work();
        }
        match self.mode {
            Mode::Before => Err(broken(at)),
            Mode::After => work().and_then(|_| Err(broken(at))),
            // A worker thread cannot take the process down here; there the fault is an error.
            Mode::Kill if std::thread::current().name() == Some("build") => std::panic::resume_unwind(Box::new(Killed)),
            Mode::Kill => Err(broken(at)),
        }
    }
}

/// A staged file whose writes count too; the one that is hit is cut short.
struct NthFile {
    inner: Box<dyn StagedFile>,
    at: Ref,
    hit_at: u64,
    count: Arc<AtomicU64>,
}

impl Write for NthFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 == self.hit_at {
            let _ = self.inner.write(&bytes[..bytes.len() / 2]);
            return Err(std::io::Error::other("No space left on device (an injected fault)"));
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl StagedFile for NthFile {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 == self.hit_at {
            return Err(broken(&self.at));
        }
        self.inner.finish()
    }
}

impl Store for Nth {
    fn open(&self, at: &Ref) -> Result<Box<dyn Read + Send>, StoreError> {
        self.hit(at, || self.inner.open(at))
    }
    fn size(&self, at: &Ref) -> Result<Option<u64>, StoreError> {
        self.hit(at, || self.inner.size(at))
    }
    fn list(&self, below: &Ref) -> Result<Vec<(Ref, u64)>, StoreError> {
        self.hit(below, || self.inner.list(below))
    }
    fn create(&self, at: &Ref, bytes: &[u8]) -> Result<Created, StoreError> {
        self.hit(at, || self.inner.create(at, bytes))
    }
    fn stage(&self, at: &Ref) -> Result<Box<dyn StagedFile>, StoreError> {
        let inner = self.hit(at, || self.inner.stage(at))?;
        Ok(Box::new(NthFile { inner, at: at.clone(), hit_at: self.at, count: self.count.clone() }))
    }
    fn promote(&self, staged: &Ref, to: &Ref) -> Result<Created, StoreError> {
        self.hit(to, || self.inner.promote(staged, to))
    }
    fn unstage(&self, at: &Ref) -> Result<(), StoreError> {
        self.hit(at, || self.inner.unstage(at))
    }
}

fn environment(root: &Path, store: Arc<dyn Store>) -> Env {
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
        audit: Arc::new(ofs::store::Unrecorded),
    }
}

fn host(root: &Path, owner: Owner) -> Host {
    let clock = Arc::new(SystemClock);
    let ledger = Ledger::open(&root.join("state/ledger.db"), clock.clone(), "test").unwrap();
    Host { ledger: Arc::new(ledger), clock, owner, signal: StopSignal::default() }
}

fn request(root: &Path) -> Request {
    Request { intent: std::fs::read(root.join("intents/train.json")).unwrap(), supersession: Supersession::default() }
}

fn build(root: &Path, store: Arc<dyn Store>, owner: Owner) -> Option<RunResult> {
    let (root, request) = (root.to_owned(), request(root));
    let thread = std::thread::Builder::new().name("build".into());
    let run = move || run::run(&request, &environment(&root, store), &host(&root, owner), &Unattended).expect("the ledger is whole");
    match thread.spawn(run).unwrap().join() {
        Ok(result) => Some(result),
        Err(cause) if cause.is::<Killed>() => None,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

/// What anyone can discover: data sets, manifests and reports, by name and content.
fn published(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let all = files(&root.join("store"));
    let name = |p: &Path| p.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let discoverable = |n: &str| ["/ofs/datasets/", "/ofs/manifests", "/ofs/parity/", "/ofs/forensic/"].iter().any(|f| n.contains(f));
    all.iter().filter(|p| discoverable(&name(p))).map(|p| (name(p), std::fs::read(p).unwrap())).collect()
}

/// The world cut to one small lane, so that a build is a few milliseconds.
fn small() -> Workspace {
    let workspace = Workspace::flights();
    workspace.intent("train", "train", |intent| {
        let basis = intent["replay_basis"].as_array_mut().unwrap();
        basis.truncate(1);
        basis[0]["end_offset"] = "19".into();
    });
    workspace
}

/// The small world asked for a parity report, against an anchor whose content is not there, so that its totals
/// are rebuilt to the end.
fn compared() -> Workspace {
    let workspace = small();
    let snapshots = workspace.path("store/platform_20130101T000000Z/online_feature_plane");
    let mut anchor: serde_json::Value = serde_json::from_slice(&std::fs::read(&files(&snapshots)[0]).unwrap()).unwrap();
    anchor.as_object_mut().unwrap().remove("features");
    anchor["eb_offset_basis"]["offsets"].as_array_mut().unwrap().truncate(1);
    anchor["eb_offset_basis"]["offsets"][0]["offset"] = "19".into();
    anchor["eb_offset_basis"].as_object_mut().unwrap().remove("basis_digest");
    workspace.write("store/platform_20130101T000000Z/anchor.json", anchor.to_string());
    workspace.intent("train", "train", |intent| {
        intent["intent_kind"] = "parity_rebuild".into();
        intent["parity_anchor_ref"] = "platform_20130101T000000Z/anchor.json".into();
    });
    workspace
}

/// The small world asked for a forensic report.
fn looked_into() -> Workspace {
    let workspace = small();
    workspace.intent("train", "train", |intent| {
        intent["intent_kind"] = "forensic_rebuild".into();
        intent["join_scope"]["forensic"] = serde_json::json!({"keys": ["N488UA"], "as_of_utc": "2013-01-02T00:00:00Z"});
    });
    workspace
}

fn recovered(root: &Path, first: Option<RunResult>) -> RunResult {
    let clean: Arc<dyn Store> = Arc::new(LocalStore::open(&root.join("store")).unwrap());
    if first.as_ref().is_some_and(|r| r.text("/status") == "PUBLISH_PENDING") {
        let host = host(root, Owner::current());
        let row = host.ledger.run(first.unwrap().text("/run_key")).unwrap().unwrap();
        return run::retry(&row, &environment(root, clean), &host, &Unattended).unwrap();
    }
    build(root, clean, Owner::current()).expect("nothing kills the second attempt")
}

fn every_operation(mode: Mode, world: fn() -> Workspace, files_published: usize) -> u64 {
    let undisturbed = world();
    let store: Arc<dyn Store> = Arc::new(LocalStore::open(&undisturbed.path("store")).unwrap());
    assert_eq!(build(&undisturbed.root(), store, Owner::current()).unwrap().text("/status"), "DONE");
    let wanted = published(&undisturbed.root());
    assert!(wanted.len() >= files_published, "{:?}", wanted.keys());
    for at in 1.. {
        let workspace = world();
        let root = workspace.root();
        let count = Arc::new(AtomicU64::new(0));
        let inner = LocalStore::open(&root.join("store")).unwrap();
        let faulty: Arc<dyn Store> = Arc::new(Nth { inner, mode, at, count: count.clone() });
        // An owner that dies must be one that nobody can take for alive.
        let mut owner = Owner::current();
        if mode == Mode::Kill {
            owner.pid = 4_999_999;
        }
        let first = build(&root, faulty, owner);
        if count.load(Ordering::SeqCst) < at {
            assert_eq!(first.unwrap().text("/status"), "DONE");
            return at - 1;
        }
        let seen = published(&root);
        let manifests: Vec<_> = seen.keys().filter(|n| n.contains("/manifests/")).collect();
        assert!(manifests.len() <= 1, "{mode:?} at {at}: {manifests:?}");
        for (name, bytes) in &seen {
            assert_eq!(Some(bytes), wanted.get(name), "{mode:?} at {at}: {name} is discoverable and wrong");
        }
        if !manifests.is_empty() {
            assert_eq!(seen, wanted, "{mode:?} at {at}: a manifest whose data is not all there");
        }
        let outcome = first.as_ref().map_or("killed".to_owned(), |r| format!("{} {}", r.text("/status"), r.text("/reason/code")));
        let second = recovered(&root, first);
        assert_eq!(second.text("/status"), "DONE", "{mode:?} at {at} after {outcome}: {}", second.document);
        assert_eq!(published(&root), wanted, "{mode:?} at {at} after {outcome}");
        let ledger = host(&root, Owner::current()).ledger;
        assert!(ledger.verify_chain(second.text("/run_key")).unwrap().is_empty(), "{mode:?} at {at}");
        // Where the build was done and only its tidying up failed, `ofs doctor --sweep` takes what stayed.
        let tidy = files(&root.join("store")).iter().all(|p| !p.to_str().unwrap().contains("/staging/"));
        assert!(tidy || outcome.starts_with("DONE"), "{mode:?} at {at} after {outcome}: leftovers stay");
    }
    unreachable!("the loop ends at a build that its fault did not meet")
}

#[test]
fn a_failure_before_any_store_operation_is_recovered() {
    println!("{} operations failed before", every_operation(Mode::Before, small, 6));
}

#[test]
fn a_lost_answer_of_any_store_operation_is_recovered() {
    println!("{} operations failed after", every_operation(Mode::After, small, 6));
}

#[test]
fn a_kill_before_any_store_operation_is_recovered() {
    println!("{} operations killed", every_operation(Mode::Kill, small, 6));
}

#[test]
fn a_parity_report_comes_out_the_same_after_a_fault_at_any_store_operation() {
    for mode in [Mode::Before, Mode::Kill] {
        println!("{mode:?}: {} operations", every_operation(mode, compared, 1));
    }
}

#[test]
fn a_forensic_report_comes_out_the_same_after_a_kill_before_any_store_operation() {
    println!("{} operations killed", every_operation(Mode::Kill, looked_into, 1));
}
