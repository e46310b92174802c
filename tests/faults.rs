//! A mishap at every operation of store and ledger: at the N-th one, for N = 1, 2, 3 … until a build does
//! not meet it. After each, a documented command must bring the run to the same bytes as an undisturbed
//! build, and nothing discoverable may be wrong meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ofs::ledger::{Ledger, LedgerError, Owner, RunRow, Status};
use ofs::operate::fault::until_killed;
use ofs::operate::mishap::{Mishap, Site, Trap};
use ofs::pipeline::admit::Supersession;
use ofs::pipeline::gate::Env;
use ofs::pipeline::run::{self, Host, Request, RunResult, StopSignal, Unattended};
use ofs::time::{Clock, Instant, SystemClock};

use crate::support::{Workspace, environment, files, store_of};

const TRAIN: &str = "nycflights13.train.2013-01-01.2013-01-02";

/// What a process starts with: the store, the ledger and, perhaps, a mishap that waits in one of them.
fn process(root: &Path, trap: Option<&Arc<Trap>>) -> (Env, Host) {
    let clean = store_of(root);
    let env = environment(root, trap.map_or(clean.clone(), |trap| trap.store(clean)));
    let clock = Arc::new(SystemClock);
    let ledger = Ledger::open(&root.join("state/ledger.db"), clock.clone(), "test").unwrap();
    let ledger = match trap {
        Some(trap) => ledger.with_watch(trap.clone()),
        None => ledger,
    };
    // When the next command comes, this process is gone, however it ended.
    let owner = Owner { pid: 4_999_999, ..Owner::current() };
    (env, Host { ledger: Arc::new(ledger), clock, owner, signal: StopSignal::default() })
}

/// `ofs run`; nothing comes back from a process that was killed.
fn build(root: &Path, trap: Option<&Arc<Trap>>) -> Option<Result<RunResult, LedgerError>> {
    let (env, host) = process(root, trap);
    let request = Request { intent: std::fs::read(root.join("intents/train.json")).unwrap(), supersession: Supersession::default() };
    until_killed(|| run::run(&request, &env, &host, &Unattended))
}

fn row(root: &Path) -> Option<RunRow> {
    process(root, None).1.ledger.run_by_request(TRAIN).unwrap()
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

/// A documented command after a mishap: what the state allows, `run` and `resume` by turns where both do.
fn recovered(root: &Path, turn: u64) -> RunResult {
    let (env, host) = process(root, None);
    match row(root) {
        Some(row) if row.status == Status::PublishPending => run::retry(&row, &env, &host, &Unattended).unwrap(),
        Some(row) if turn.is_multiple_of(2) && row.actions().contains(&"resume") => run::resume(&row, &env, &host, &Unattended).unwrap(),
        _ => build(root, None).expect("nothing kills the second process").unwrap(),
    }
}

/// Nothing discoverable is wrong, and the state is one that leads on.
fn lawful(root: &Path, wanted: &BTreeMap<String, Vec<u8>>, case: &str) {
    let seen = published(root);
    let manifests: Vec<_> = seen.keys().filter(|n| n.contains("/manifests/")).collect();
    assert!(manifests.len() <= 1, "{case}: {manifests:?}");
    for (name, bytes) in &seen {
        assert_eq!(Some(bytes), wanted.get(name), "{case}: {name} is discoverable and wrong");
    }
    if !manifests.is_empty() {
        assert_eq!(&seen, wanted, "{case}: a manifest whose data is not all there");
    }
    let Some(row) = row(root) else { return };
    let way_on = match row.status {
        Status::Done => true,
        Status::Failed => row.code().is_some() && row.actions().contains(&"resume"),
        Status::PublishPending => row.code().is_some() && row.actions().contains(&"retry"),
        Status::Queued | Status::Running => row.actions().contains(&"resume"),
        Status::Cancelled | Status::Rejected => false,
    };
    assert!(way_on, "{case}: {} {:?}, legal: {:?}", row.status, row.reason_code, row.actions());
}

/// Tries a mishap at every operation; how many there were, and how often each end came.
fn every_operation(world: fn() -> Workspace, site: Site, mishap: Mishap) -> (u64, BTreeMap<String, u64>) {
    let undisturbed = world();
    assert_eq!(build(&undisturbed.root(), None).unwrap().unwrap().text("/status"), "DONE");
    let wanted = published(&undisturbed.root());
    assert!(!wanted.is_empty());
    let mut ends = BTreeMap::new();
    for at in 1.. {
        let workspace = world();
        let root = workspace.root();
        let trap = Arc::new(Trap::new(site, mishap, at));
        let first = build(&root, Some(&trap));
        if !trap.sprung() {
            assert_eq!(first.unwrap().unwrap().text("/status"), "DONE");
            return (at - 1, ends);
        }
        let end = match &first {
            None => "killed".to_owned(),
            Some(Err(error)) => format!("exit 1 {}", error.code()),
            Some(Ok(result)) => format!("{} {}", result.text("/status"), result.text("/reason/code")),
        };
        let case = format!("{site:?} {mishap:?} at {at} after {end}");
        if let Some(Ok(result)) = &first {
            assert_ne!(result.text("/reason/code"), "INTERNAL_ERROR", "{case}: {}", result.document);
        }
        *ends.entry(end).or_default() += 1;
        lawful(&root, &wanted, &case);
        let second = recovered(&root, at);
        assert_eq!(second.text("/status"), "DONE", "{case}: {}", second.document);
        assert_eq!(published(&root), wanted, "{case}");
        assert!(process(&root, None).1.ledger.verify_chain(second.text("/run_key")).unwrap().is_empty(), "{case}");
        // Where the build was done and only its tidying up failed, the request tidies up when it comes again.
        build(&root, None).unwrap().unwrap();
        assert!(files(&root.join("store")).iter().all(|p| !p.to_str().unwrap().contains("/staging/")), "{case}: leftovers stay");
    }
    unreachable!("the loop ends at a build that its mishap did not meet")
}

fn every_mishap(site: Site, mishaps: &[Mishap]) -> u64 {
    every_mishap_of(small, site, mishaps)
}

fn every_mishap_of(world: fn() -> Workspace, site: Site, mishaps: &[Mishap]) -> u64 {
    let mut points = 0;
    for mishap in mishaps {
        let (tried, ends) = every_operation(world, site, *mishap);
        println!("{tried} operations of the {site:?} with {mishap:?}: {ends:?}");
        points += tried;
    }
    points
}

/// A clock that is defect from some question on.
#[derive(Debug)]
struct Defect {
    left: AtomicU64,
}

impl Clock for Defect {
    fn now(&self) -> Instant {
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(left.is_ok(), "this clock is defect");
        SystemClock.now()
    }
}

#[test]
fn a_defect_while_a_late_manifest_is_adopted_leaves_no_run_running() {
    let w = Workspace::flights();
    let blocked = "store/platform_20130101T000000Z/ofs/manifests";
    w.write(blocked, "in the way");
    w.run("train").refused(4, "COMMIT_FAILED");
    std::fs::remove_file(w.path(blocked)).unwrap();
    w.intent("twin", "train", |intent| intent["request_id"] = "request.twin".into());
    w.build("twin");
    let root = w.root();
    let (env, host) = process(&root, None);
    // One question is asked when the attempt starts, the next one within it.
    let host = Host { clock: Arc::new(Defect { left: 1.into() }), ..host };
    let request = Request { intent: std::fs::read(root.join("intents/train.json")).unwrap(), supersession: Supersession::default() };
    let result = run::run(&request, &env, &host, &Unattended).unwrap();
    assert_eq!((result.text("/status"), result.text("/reason/code")), ("FAILED", "RUN_PANICKED"), "{}", result.document);
    assert!(result.text("/reason/message").ends_with("this clock is defect"), "{}", result.document);
    assert_eq!(row(&root).unwrap().status, Status::Failed);
    assert_eq!(w.run("train").expect(0).json()["status"], "DONE");
}

#[test]
fn a_failure_before_any_store_operation_is_recovered() {
    assert!(every_mishap(Site::Store, &[Mishap::Error, Mishap::Outage]) >= 100);
}

#[test]
fn a_lost_answer_of_any_store_operation_is_recovered() {
    assert!(every_mishap(Site::Store, &[Mishap::LostAnswer]) >= 50);
}

#[test]
fn a_short_write_or_a_full_store_is_recovered() {
    assert!(every_mishap(Site::Store, &[Mishap::ShortWrite, Mishap::NoSpace]) >= 40);
}

#[test]
fn a_kill_before_any_store_operation_is_recovered() {
    assert!(every_mishap(Site::Store, &[Mishap::Kill]) >= 50);
}

#[test]
fn a_kill_after_any_store_operation_is_recovered() {
    assert!(every_mishap(Site::Store, &[Mishap::KillAfter]) >= 50);
}

#[test]
fn a_parity_report_comes_out_the_same_after_a_fault_at_any_store_operation() {
    assert!(every_mishap_of(compared, Site::Store, &[Mishap::Error, Mishap::Kill]) >= 40);
}

#[test]
fn a_forensic_report_comes_out_the_same_after_a_kill_before_any_store_operation() {
    assert!(every_mishap_of(looked_into, Site::Store, &[Mishap::Kill]) >= 20);
}

#[test]
fn any_mishap_at_any_ledger_operation_is_recovered() {
    assert!(every_mishap(Site::Ledger, &Mishap::OF_LEDGER) >= 100);
}
