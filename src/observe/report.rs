//! The report on a workspace: facts sent, metrics, health and reconciliation of each platform run, and what
//! became of each of these signals. The console and `ofs report` show the same value.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Map, Value, json};

use super::facts::{self, Flush};
use super::health::{self, Health, Level};
use super::metrics::{self, Metrics};
use super::reconcile::{self, Reconciliation};
use super::world::World;
use crate::contract::path_safe;
use crate::ledger::{Delivery, FactRow, Ledger, LedgerError, RunFilter, RunRow, SignalRow};
use crate::pipeline::gate::{Env, document};
use crate::pipeline::pin::RELEASE;
use crate::store::{Ref, StoreError, read};
use crate::time::{Clock, Instant};

/// Largest latest state that is read back before it is replaced, in bytes.
const STATE_BYTES: u64 = 256 << 20;

/// What is to be said of a workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// When it was made.
    pub at: Instant,
    /// What the flush of the outbox came to; nothing where it was only looked.
    pub flush: Option<Flush>,
    /// Each platform run, by name.
    pub runs: Vec<RunReport>,
    /// Requests refused that name no platform run, and so belong to none (O152).
    pub unscoped: u64,
}

/// What is to be said of one platform run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunReport {
    /// The platform run.
    pub platform_run_id: String,
    /// Its metrics.
    pub metrics: Metrics,
    /// Its health.
    pub health: Health,
    /// Ledger against store, or why the store could not be looked at.
    pub reconciliation: Result<Reconciliation, String>,
    /// What became of its signals when they were last emitted.
    pub signals: Vec<SignalRow>,
}

impl Report {
    /// The worst health of all platform runs.
    pub fn level(&self) -> Level {
        self.runs.iter().map(|r| r.health.level).max().unwrap_or(Level::Green)
    }

    /// `ofs.report.v1`.
    pub fn to_json(&self) -> Value {
        let flush = self.flush.as_ref().map(|f| json!({"sent": f.sent, "skipped": f.skipped, "failed": f.failed, "error": f.error}));
        json!({
            "schema_version": "ofs.report.v1", "release": RELEASE, "at_utc": self.at, "status": self.level().as_str(), "flush": flush,
            "unscoped_refusals": self.unscoped, "platform_runs": self.runs.iter().map(|r| r.to_json(self.at)).collect::<Vec<_>>(),
        })
    }
}

impl RunReport {
    /// A document of its own: the common fields, then `fields`.
    fn artifact(&self, schema: &str, at: Option<Instant>, fields: Value) -> Value {
        let mut map = Map::from_iter([
            ("schema_version".to_owned(), json!(schema)),
            ("platform_run_id".to_owned(), json!(self.platform_run_id)),
            ("release".to_owned(), json!(RELEASE)),
        ]);
        if let Some(at) = at {
            map.insert("at_utc".into(), json!(at));
        }
        if let Value::Object(fields) = fields {
            map.extend(fields);
        }
        Value::Object(map)
    }

    fn reconciled(&self) -> Value {
        match &self.reconciliation {
            Ok(reconciliation) => reconciliation.to_json(),
            Err(error) => json!({"ok": false, "error": error}),
        }
    }

    fn to_json(&self, at: Instant) -> Value {
        let signals: Vec<Value> = self
            .signals
            .iter()
            .map(|s| json!({"signal": s.signal, "delivery": s.delivery.as_str(), "at_utc": s.at, "note": s.note, "failures": s.failures}))
            .collect();
        json!({
            "platform_run_id": self.platform_run_id, "signals": signals,
            "metrics": self.artifact("ofs.metrics.v1", Some(at), self.metrics.to_json()),
            "health": self.artifact("ofs.health.v1", Some(at), self.health.to_json()),
            "reconciliation": self.artifact("ofs.reconciliation.v1", Some(at), self.reconciled()),
        })
    }
}

/// What the ledger holds, read once for all platform runs.
struct Records {
    runs: Vec<RunRow>,
    facts: Vec<FactRow>,
    reasons: Vec<(String, Instant, String)>,
    workers_alive: usize,
}

impl Records {
    fn read(env: &Env, ledger: &Ledger) -> Result<Self, LedgerError> {
        let life = i64::try_from(env.config.launcher().lease_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        Ok(Records {
            runs: ledger.runs(&RunFilter::default())?,
            facts: ledger.facts()?,
            reasons: ledger.reasons()?,
            workers_alive: ledger.workers_alive(life)?,
        })
    }

    /// The platform runs there are, or the active one alone.
    fn platform_runs(&self, env: &Env) -> Vec<&str> {
        let active = env.config.text("workspace", "platform_run_id");
        let mut all: Vec<&str> = self.runs.iter().filter_map(|r| r.platform_run_id.as_deref()).filter(|r| path_safe(r)).collect();
        all.sort_unstable();
        all.dedup();
        all.retain(|run| active.is_empty() || *run == active);
        all
    }

    fn world<'w>(&'w self, env: &'w Env, platform_run_id: &'w str, now: Instant) -> World<'w> {
        let runs: Vec<&RunRow> = self.runs.iter().filter(|r| r.platform_run_id.as_deref() == Some(platform_run_id)).collect();
        let mine: std::collections::BTreeSet<&str> = runs.iter().map(|r| r.run_key.as_str()).collect();
        World {
            env,
            platform_run_id,
            now,
            workers_alive: self.workers_alive,
            facts: self.facts.iter().filter(|f| mine.contains(f.run_key.as_str())).collect(),
            reasons: self.reasons.iter().filter(|(key, _, _)| mine.contains(key.as_str())).collect(),
            runs,
        }
    }
}

/// Looks at everything and writes nothing.
///
/// # Errors
/// The ledger's. A store that cannot be read is said in the report.
pub fn look(env: &Env, ledger: &Ledger, clock: &dyn Clock) -> Result<Report, LedgerError> {
    look_at(env, ledger, clock, None)
}

/// As [`look`], at one platform run alone where one is named.
///
/// # Errors
/// As of [`look`].
pub fn look_at(env: &Env, ledger: &Ledger, clock: &dyn Clock, only: Option<&str>) -> Result<Report, LedgerError> {
    let (records, at) = (Records::read(env, ledger)?, clock.now());
    let mut runs = Vec::new();
    for platform_run_id in records.platform_runs(env).into_iter().filter(|run| only.is_none_or(|only| only == *run)) {
        if env.cancel.is_cancelled() {
            break;
        }
        let world = records.world(env, platform_run_id, at);
        runs.push(RunReport {
            platform_run_id: platform_run_id.to_owned(),
            metrics: metrics::measure(&world),
            health: health::judge(&world),
            reconciliation: reconcile::reconcile(&world).map_err(|e| e.to_string()),
            signals: ledger.signals(platform_run_id)?,
        });
    }
    let unscoped = records.runs.iter().filter(|r| r.platform_run_id.as_deref().is_none_or(|run| !path_safe(run))).count();
    Ok(Report { at, flush: None, runs, unscoped: unscoped as u64 })
}

/// Sends the facts that wait, looks at everything, and keeps the latest state of each signal in the store,
/// unless a policy keeps it back. What cannot be written is recorded and changes nothing else (O153, O154).
///
/// # Errors
/// The ledger's.
pub fn report(env: &Env, ledger: &Ledger, clock: &dyn Clock) -> Result<Report, LedgerError> {
    let flush = facts::flush(env, ledger)?;
    let mut report = look(env, ledger, clock)?;
    for run in &mut report.runs {
        emit(env, ledger, run, report.at, &flush)?;
        run.signals = ledger.signals(&run.platform_run_id)?;
    }
    report.flush = Some(flush);
    Ok(report)
}

/// Keeps the latest state of each signal of a platform run.
fn emit(env: &Env, ledger: &Ledger, run: &RunReport, at: Instant, flush: &Flush) -> Result<(), LedgerError> {
    let governance = match &flush.error {
        _ if !env.config.flag("observe", "governance") => (Delivery::Skipped, "observe.governance is off".to_owned()),
        Some(error) => (Delivery::Failed, error.clone()),
        None => (Delivery::Sent, facts::folder(&run.platform_run_id).to_string()),
    };
    ledger.signal_left(&run.platform_run_id, "governance", governance.0, &governance.1)?;
    let metrics = BTreeMap::from([("last_metrics".to_owned(), run.artifact("ofs.metrics.v1", Some(at), run.metrics.to_json()))]);
    let health = BTreeMap::from([("last_health".to_owned(), run.artifact("ofs.health.v1", Some(at), run.health.to_json()))]);
    let mut reconciliation =
        BTreeMap::from([("last_reconciliation".to_owned(), run.artifact("ofs.reconciliation.v1", Some(at), run.reconciled()))]);
    // A day's file says nothing that another report of the same facts would not: it holds no clock.
    for (day, facts) in run.reconciliation.iter().flat_map(|r| &r.days) {
        reconciliation.insert(day.clone(), run.artifact("ofs.reconciliation_day.v1", None, json!({"day": day, "facts": facts})));
    }
    for (signal, files) in [("metrics", metrics), ("health", health), ("reconciliation", reconciliation)] {
        let (delivery, note) = if env.config.flag("observe", signal) {
            match keep_all(env, &Ref::of(&[&run.platform_run_id, "ofs", signal]), &files) {
                Ok(folder) => (Delivery::Sent, folder),
                Err(error) => {
                    tracing::warn!(platform_run_id = run.platform_run_id, signal, "could not be written: {error}");
                    (Delivery::Failed, error.to_string())
                }
            }
        } else {
            (Delivery::Skipped, format!("observe.{signal} is off"))
        };
        ledger.signal_left(&run.platform_run_id, signal, delivery, &note)?;
    }
    Ok(())
}

fn keep_all(env: &Env, folder: &Ref, files: &BTreeMap<String, Value>) -> Result<String, StoreError> {
    for (name, value) in files {
        keep(env, &folder.join(&format!("{name}.json")), &document(value))?;
    }
    Ok(folder.to_string())
}

/// Puts a latest state in the place of the earlier one, whole or not at all; equal bytes stay untouched.
fn keep(env: &Env, at: &Ref, bytes: &[u8]) -> Result<(), StoreError> {
    if env.store.size(at)? == Some(bytes.len() as u64) && read(env.store.as_ref(), at, STATE_BYTES)? == bytes {
        return Ok(());
    }
    let mut file = env.store.stage(at)?;
    file.write_all(bytes).map_err(|e| StoreError::new(crate::store::ErrorKind::Io, at.as_str(), e.to_string()))?;
    file.finish()
}
