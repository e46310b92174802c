//! What the tests of this room share, and its model: any sequence of actions against a small machine
//! that says what must happen.

use std::path::PathBuf;
use std::sync::{Arc, Barrier};

use proptest::prelude::*;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::*;
use crate::time::FixedClock;

pub(super) const ACTOR: &str = "tester";
pub(super) const START: Instant = Instant(1_770_717_600_000_000);

/// A ledger's place on disk.
pub(super) struct Home {
    _dir: tempfile::TempDir,
    pub(super) file: PathBuf,
    pub(super) clock: Arc<FixedClock>,
}

impl Home {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state/ledger.db");
        std::fs::create_dir(dir.path().join("state")).unwrap();
        Home { _dir: dir, file, clock: Arc::new(FixedClock::new(START)) }
    }

    pub(super) fn open(&self) -> Result<Ledger> {
        Ledger::open(&self.file, self.clock.clone(), ACTOR)
    }

    pub(super) fn open_read_only(&self) -> Result<Ledger> {
        Ledger::open_read_only(&self.file, self.clock.clone(), ACTOR)
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.open().unwrap()
    }

    /// A connection past all checks but the file's own.
    pub(super) fn raw(&self) -> Connection {
        let conn = Connection::open(&self.file).unwrap();
        conn.busy_timeout(BUSY).unwrap();
        conn.pragma_update(None, "foreign_keys", true).unwrap();
        conn
    }

    /// Takes the triggers away.
    pub(super) fn untie(&self) {
        let raw = self.raw();
        let mut query = raw.prepare("SELECT name FROM sqlite_schema WHERE type = 'trigger'").unwrap();
        let names: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        for name in names {
            raw.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
        }
    }

    /// Everything that a table holds.
    pub(super) fn dump(&self, table: &str) -> Vec<Vec<rusqlite::types::Value>> {
        let raw = self.raw();
        let mut query = raw.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
        let width = query.column_count();
        let rows = query.query_map([], |row| (0..width).map(|i| row.get(i)).collect());
        rows.unwrap().map(Result::unwrap).collect()
    }
}

/// A ledger without a file, and its clock.
pub(super) fn in_memory() -> (Arc<FixedClock>, Ledger) {
    let clock = Arc::new(FixedClock::new(START));
    let mut conn = Connection::open_in_memory().unwrap();
    Ledger::prepare(&mut conn).unwrap();
    (clock.clone(), Ledger::over(conn, clock, ACTOR))
}

pub(super) fn new_run(run_key: &str) -> NewRun {
    NewRun {
        run_key: run_key.into(),
        request_id: format!("req-{run_key}"),
        request_hash: "hash".into(),
        platform_run_id: "platform_1".into(),
        intent_kind: "dataset_build".into(),
        intent: json!({"request_id": run_key, "n": crate::json::number("1.0")}),
        provenance: json!({"release": "git:abc"}),
    }
}

/// A process of another host.
pub(super) fn elsewhere(pid: u32) -> Owner {
    Owner { host: "elsewhere".into(), pid, started: "1".into() }
}

/// A process of this host that is gone.
pub(super) fn dead() -> Owner {
    Owner { pid: u32::MAX, ..Owner::current() }
}

/// Submits and starts a run of an owner elsewhere.
pub(super) fn running(ledger: &Ledger, run_key: &str) -> Lease {
    ledger.submit(&new_run(run_key)).unwrap();
    ledger.start(run_key, ExecutionMode::Full, &elsewhere(1), 1_000).unwrap()
}

pub(super) fn done(manifest: &str) -> End {
    End::Done { manifest_ref: Some(manifest.into()), result: json!({"rows": 1}), event: RUN_DONE, detail: json!({}) }
}

pub(super) fn failed(code: &str) -> End {
    let reason = ReasonCode::parse(code).unwrap();
    End::Failed { reason, end_class: None, document: json!({"code": code}), result: json!({}) }
}

pub(super) fn commit_failed() -> End {
    End::Pending { reason: ReasonCode::CommitFailed, document: json!({}), result: json!({}) }
}

pub(super) fn cancelled() -> End {
    End::Cancelled { reason: ReasonCode::CancelledByOperator, document: json!({}), result: json!({}) }
}

/// A run that waits for its publication.
pub(super) fn pending() -> (Arc<FixedClock>, Ledger, Lease) {
    let (clock, ledger) = in_memory();
    let lease = running(&ledger, "k");
    ledger.finish(&lease, &commit_failed()).unwrap();
    (clock, ledger, lease)
}

/// Starts a publish-only retry of the run `k`.
pub(super) fn retried(ledger: &Ledger, max: u32) -> Result<Lease> {
    Ok(ledger.start_retry("k", &Retry { max, request_id: None }, &elsewhere(1), LEASE)?.expect("no request has had it"))
}

/// One ledger for each state, with the run `k` in it (FAILED: for good).
pub(super) fn one_of_each() -> Vec<(Status, Ledger, Arc<FixedClock>)> {
    let make = |status| {
        let (clock, ledger) = in_memory();
        let end = match status {
            Status::Queued => {
                ledger.submit(&new_run("k")).unwrap();
                None
            }
            Status::Rejected => {
                ledger.reject("k", Some("req-k"), None, None, ReasonCode::SchemaInvalid, &json!({})).unwrap();
                None
            }
            Status::Running => Some(None),
            Status::Done => Some(Some(done("R/m.json"))),
            Status::Failed => Some(Some(failed("FEATURE_OVERFLOW"))),
            Status::PublishPending => Some(Some(commit_failed())),
            Status::Cancelled => Some(Some(cancelled())),
        };
        if let Some(end) = end {
            let lease = running(&ledger, "k");
            if let Some(end) = end {
                ledger.finish(&lease, &end).unwrap();
            }
        }
        assert_eq!(ledger.run("k").unwrap().unwrap().status, status);
        (status, ledger, clock)
    };
    Status::ALL.into_iter().map(make).collect()
}

/// A record without what every event moves on.
pub(super) fn but_for_events(row: RunRow) -> RunRow {
    RunRow { last_seq: 0, last_hash: String::new(), ..row }
}

/// Every owner's write under this lease, and how it failed. The last one ends the run.
pub(super) fn owners_writes(ledger: &Ledger, lease: &Lease) -> Vec<(&'static str, Option<LedgerError>)> {
    let detail = json!({"x": 1});
    vec![
        ("heartbeat", ledger.heartbeat(lease, 1, Some(&detail)).err()),
        ("sample", ledger.sample(lease, &detail).err()),
        ("enter_phase", ledger.enter_phase(lease, "p").err()),
        ("gate_passed", ledger.gate_passed(lease, "p", &detail).err()),
        ("gate_reproved", ledger.gate_reproved(lease, "p", &detail).err()),
        ("identify", ledger.identify(lease, "f", "m").err()),
        ("record", ledger.record(lease, "E", None, &detail).err()),
        ("set_paused", ledger.set_paused(lease, true).err()),
        ("commit_started", ledger.commit_started(lease, "m").err()),
        ("finish", ledger.finish(lease, &done("m")).err()),
    ]
}

/// Runs `f` twice at once, each with its own connection as two processes would.
pub(super) fn race<T: Send>(home: &Home, f: impl Fn(&Ledger) -> T + Sync) -> Vec<T> {
    let barrier = Barrier::new(2);
    let one = || {
        let ledger = home.ledger();
        barrier.wait();
        f(&ledger)
    };
    std::thread::scope(|scope| {
        let both = [scope.spawn(one), scope.spawn(one)];
        both.map(|t| t.join().unwrap()).into()
    })
}

#[derive(Debug, Clone)]
enum Action {
    Submit {
        hash: bool,
    },
    Reject,
    Start {
        mode: ExecutionMode,
    },
    Wait {
        micros: i64,
    },
    /// An owner's write with the newest lease, or with the one before.
    Beat {
        old: bool,
    },
    CommitStarted {
        old: bool,
    },
    Finish {
        old: bool,
        end: u8,
    },
    Retry,
    Restore,
    Order {
        order: Order,
    },
    Note,
    Grant,
}

fn action() -> impl Strategy<Value = Action> {
    let mode = prop_oneof![3 => Just(ExecutionMode::Full), 2 => Just(ExecutionMode::PublishOnly)];
    let old = || proptest::bool::weighted(0.2);
    prop_oneof![
        3 => proptest::bool::weighted(0.8).prop_map(|hash| Action::Submit { hash }),
        1 => Just(Action::Reject),
        6 => mode.prop_map(|mode| Action::Start { mode }),
        2 => (0..150i64).prop_map(|micros| Action::Wait { micros }),
        2 => old().prop_map(|old| Action::Beat { old }),
        2 => old().prop_map(|old| Action::CommitStarted { old }),
        6 => (old(), 0..7u8).prop_map(|(old, end)| Action::Finish { old, end }),
        2 => Just(Action::Retry),
        1 => Just(Action::Restore),
        2 => prop_oneof![Just(Order::Cancel), Just(Order::Fail)].prop_map(|order| Action::Order { order }),
        1 => Just(Action::Note),
        1 => Just(Action::Grant),
    ]
}

fn end(number: u8) -> End {
    match number {
        0 => done("R/m.json"),
        1 => failed("SOURCE_IO"),
        2 => failed("FEATURE_OVERFLOW"),
        3 => commit_failed(),
        4 => cancelled(),
        5 => End::Pending { reason: ReasonCode::PublishAmbiguous, document: json!({}), result: json!({}) },
        _ => End::Interrupted { signal: "TERM".into() },
    }
}

/// What the run must be.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    status: Option<Status>,
    code: Option<&'static str>,
    epoch: u64,
    expires: i64,
    full: u32,
    retries: u32,
    commit: bool,
    asked: Option<Order>,
    granted: u32,
    events: u64,
}

const LEASE: i64 = 100;
const RETRIES: u32 = 2;

impl Model {
    /// Does the action, or names the code it is refused with.
    fn step(&mut self, action: &Action, now: i64) -> Result<(), &'static str> {
        use Status as S;
        match action {
            Action::Wait { .. } => Ok(()),
            Action::Submit { hash } => {
                match self.status {
                    None | Some(S::Rejected) => {
                        (self.status, self.code) = (Some(S::Queued), None);
                        self.events += 1;
                    }
                    Some(_) => self.events += u64::from(!hash),
                }
                Ok(())
            }
            Action::Reject => {
                if matches!(self.status, None | Some(S::Rejected)) {
                    (self.status, self.code) = (Some(S::Rejected), Some("SCHEMA_INVALID"));
                }
                self.events += 1;
                Ok(())
            }
            Action::Start { mode } => self.start(*mode, now),
            Action::Beat { old } => {
                self.own(*old)?;
                self.expires = now + LEASE;
                Ok(())
            }
            Action::CommitStarted { old } => {
                self.own(*old)?;
                if let Some(order) = self.asked {
                    return Err(order.reason().as_str());
                }
                (self.commit, self.events) = (true, self.events + 1);
                Ok(())
            }
            Action::Finish { old, end } => self.finish(*old, *end),
            Action::Retry => {
                let status = self.status.ok_or("RUN_NOT_FOUND")?;
                if status == S::Running && now < self.expires {
                    return Err("RUN_BUSY");
                }
                self.events += 1;
                if status != S::PublishPending {
                    return Err("RETRY_NOT_PENDING");
                }
                if self.retries >= RETRIES + self.granted {
                    return Err("PUBLISH_RETRY_EXHAUSTED");
                }
                self.retries += 1;
                self.start(ExecutionMode::PublishOnly, now)
            }
            Action::Restore => {
                if self.status.ok_or("RUN_NOT_FOUND")? != S::Done {
                    return Err("INVALID_TRANSITION");
                }
                self.events += 1;
                Ok(())
            }
            Action::Order { order } => self.order(*order, now),
            Action::Note => {
                self.status.ok_or("RUN_NOT_FOUND")?;
                self.events += 1;
                Ok(())
            }
            Action::Grant => {
                let status = self.status.ok_or("RUN_NOT_FOUND")?;
                self.events += 1;
                if status != S::PublishPending {
                    return Err("RETRY_NOT_PENDING");
                }
                self.granted += 1;
                Ok(())
            }
        }
    }

    fn order(&mut self, order: Order, now: i64) -> Result<(), &'static str> {
        let status = self.status.ok_or("RUN_NOT_FOUND")?;
        let open = matches!(status, Status::Queued | Status::Running | Status::PublishPending);
        let live = status == Status::Running && now < self.expires;
        if !open || self.commit || (live && self.asked.is_some_and(|first| first != order)) {
            return Err("INVALID_TRANSITION");
        }
        self.events += 1;
        if live {
            self.asked = Some(order);
        } else {
            (self.status, self.code) = (Some(order.status()), Some(order.reason().as_str()));
            (self.epoch, self.asked) = (self.epoch + 1, None);
        }
        Ok(())
    }

    fn start(&mut self, mode: ExecutionMode, now: i64) -> Result<(), &'static str> {
        match (self.status.ok_or("RUN_NOT_FOUND")?, mode) {
            (Status::Running, _) if now < self.expires => return Err("RUN_BUSY"),
            (Status::Running, _) | (Status::PublishPending, ExecutionMode::PublishOnly) => {}
            (Status::Queued, ExecutionMode::Full) => self.full += 1,
            (Status::Failed, ExecutionMode::Full) if self.code == Some("SOURCE_IO") => self.full += 1,
            _ => return Err("INVALID_TRANSITION"),
        }
        (self.status, self.code) = (Some(Status::Running), None);
        (self.epoch, self.expires, self.events) = (self.epoch + 1, now + LEASE, self.events + 1);
        Ok(())
    }

    fn own(&self, old: bool) -> Result<(), &'static str> {
        let status = self.status.ok_or("RUN_NOT_FOUND")?;
        if old || status != Status::Running { Err("LEASE_LOST") } else { Ok(()) }
    }

    fn finish(&mut self, old: bool, end: u8) -> Result<(), &'static str> {
        let status = self.status.ok_or("RUN_NOT_FOUND")?;
        if old {
            return Err("LEASE_LOST");
        }
        let (to, code) = match end {
            0 => (Status::Done, None),
            1 => (Status::Failed, Some("SOURCE_IO")),
            2 => (Status::Failed, Some("FEATURE_OVERFLOW")),
            3 => (Status::PublishPending, Some("COMMIT_FAILED")),
            4 => (Status::Cancelled, Some("CANCELLED_BY_OPERATOR")),
            5 => (Status::PublishPending, Some("PUBLISH_AMBIGUOUS")),
            _ => (Status::Queued, Some("INTERRUPTED")),
        };
        if status != Status::Running {
            return if (status, self.code) == (to, code) { Ok(()) } else { Err("INVALID_TRANSITION") };
        }
        if end == 4 && self.commit {
            return Err("INVALID_TRANSITION");
        }
        let asked = self.asked.take();
        let obeyed = asked.filter(|_| [3, 5, 6].contains(&end) && !self.commit);
        let lapsed = asked.is_some_and(|order| obeyed.is_none() && code != Some(order.reason().as_str()));
        let (to, code) = obeyed.map_or((to, code), |order| (order.status(), Some(order.reason().as_str())));
        self.commit &= end > 4;
        (self.status, self.code, self.events) = (Some(to), code, self.events + 1 + u64::from(lapsed));
        Ok(())
    }
}

fn perform(ledger: &Ledger, clock: &FixedClock, action: &Action, epoch: u64) -> Result<()> {
    let lease = |old: bool| Lease { run_key: "k".into(), epoch: if old { epoch.wrapping_sub(1) & 0xffff } else { epoch } };
    match action {
        Action::Submit { hash } => {
            let new = NewRun { request_hash: if *hash { "hash" } else { "other" }.into(), ..new_run("k") };
            let known = ledger.run("k")?.is_some_and(|r| r.status != Status::Rejected);
            let new = if known { new } else { new_run("k") };
            ledger.submit(&new).map(|_| ())
        }
        Action::Reject => ledger.reject("k", Some("req-k"), None, None, ReasonCode::SchemaInvalid, &json!({})).map(|_| ()),
        Action::Start { mode } => ledger.start("k", *mode, &elsewhere(1), LEASE).map(|_| ()),
        Action::Wait { micros } => {
            clock.advance(*micros);
            Ok(())
        }
        Action::Beat { old } => ledger.heartbeat(&lease(*old), LEASE, Some(&Value::Null)).map(|_| ()),
        Action::CommitStarted { old } => ledger.commit_started(&lease(*old), "R/m.json"),
        Action::Finish { old, end: number } => ledger.finish(&lease(*old), &end(*number)).map(|_| ()),
        Action::Retry => retried(ledger, RETRIES).map(|_| ()),
        Action::Restore => ledger.restored("k", "DATA_RESTORED", &json!({})),
        Action::Order { order } => ledger.order(*order, "k", "because").map(|_| ()),
        Action::Note => ledger.note("k", "x").map(|_| ()),
        Action::Grant => ledger.grant_retries("k", 1, "x").map(|_| ()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_actions_does_what_the_model_says(actions in proptest::collection::vec(action(), 1..50)) {
        let (clock, ledger) = in_memory();
        let mut model = Model::default();
        for action in &actions {
            let before = ledger.run("k").unwrap();
            let epoch = model.epoch;
            let expected = model.step(action, clock.now().0);
            let found = perform(&ledger, &clock, action, epoch);
            prop_assert_eq!(found.as_ref().map_err(|e| e.code().as_str()), expected.as_ref().map(|()| &()).map_err(|c| *c), "{:?}", action);
            let row = ledger.run("k").unwrap();
            let Some(row) = row else {
                prop_assert_eq!(model.status, None);
                continue;
            };
            if found.is_err() && row.last_seq == before.as_ref().map_or(0, |r| r.last_seq) {
                prop_assert_eq!(Some(&row), before.as_ref(), "a refusal changes nothing: {:?}", action);
            }
            let seen = Model {
                status: Some(row.status),
                code: row.code().map(ReasonCode::as_str),
                epoch: row.lease_epoch,
                expires: row.lease_expires.map_or(model.expires, |at| at.0),
                full: row.full_run_attempts,
                retries: row.publish_retry_attempts,
                commit: row.commit_started,
                asked: row.operator_request.as_ref().map(|r| r.action),
                granted: row.retries_granted,
                events: row.last_seq,
            };
            prop_assert_eq!(&seen, &model, "{:?}", action);
            prop_assert_eq!(row.owner.is_some(), row.status == Status::Running);
        }
        if model.status.is_some() {
            prop_assert_eq!(ledger.verify_chain("k").unwrap(), Vec::<String>::new());
            prop_assert_eq!(ledger.events("k", 0).unwrap().len() as u64, model.events);
        }
    }
}
