//! What the observers look at, read once: the ledger's runs, facts and reasons of one platform run, and
//! the receipts that the runs left.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::ledger::{FactRow, RunRow, Status};
use crate::pipeline::gate::Env;
use crate::store::{Ref, read};
use crate::time::Instant;

/// Largest receipt that is read for its numbers, in bytes.
const RECEIPT_BYTES: u64 = 64 << 20;

/// One platform run as the ledger tells of it.
pub(super) struct World<'w> {
    pub(super) env: &'w Env,
    pub(super) platform_run_id: &'w str,
    pub(super) now: Instant,
    pub(super) workers_alive: usize,
    /// Newest first.
    pub(super) runs: Vec<&'w RunRow>,
    /// In the order in which they came about.
    pub(super) facts: Vec<&'w FactRow>,
    /// Events with a reason: (run, when, reason), oldest first.
    pub(super) reasons: Vec<&'w (String, Instant, String)>,
}

impl World<'_> {
    /// A JSON document of the store, if it is there and is one.
    pub(super) fn document(&self, at: &str) -> Option<Value> {
        let at = Ref::parse(at).ok()?;
        serde_json::from_slice(&read(self.env.store.as_ref(), &at, RECEIPT_BYTES).ok()?).ok()
    }

    /// Why a run is stuck, if it is.
    pub(super) fn stuck(&self, row: &RunRow) -> Option<&'static str> {
        let launcher = self.env.config.launcher();
        let micros = |seconds: u64| i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        let (stall, pause) = (micros(launcher.stall_seconds), micros(launcher.max_pause_seconds));
        row.stuck_reason(self.now, stall, pause, self.workers_alive > 0, launcher.max_publish_retry_attempts)
    }

    /// Runs whose trouble is over: DONE, or another run has published their identity since.
    pub(super) fn resolved(&self) -> impl Fn(&RunRow) -> bool {
        let mut published: BTreeMap<String, Instant> = BTreeMap::new();
        for row in self.runs.iter().filter(|r| r.status == Status::Done) {
            if let (Some(id), Some(at)) = (&row.manifest_id, row.completed) {
                let newest = published.entry(id.clone()).or_insert(at);
                *newest = at.max(*newest);
            }
        }
        move |row| {
            let since = row.manifest_id.as_ref().and_then(|id| published.get(id));
            row.status == Status::Done || since.is_some_and(|at| *at >= row.updated)
        }
    }
}

/// A ref that a run's stored result names.
pub(super) fn evidence<'r>(row: &'r RunRow, name: &str) -> Option<&'r str> {
    row.result.as_ref()?.get("evidence")?.get(name)?.as_str()
}
