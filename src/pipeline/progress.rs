//! Progress as counters that many threads bump and one observer samples; nothing is ever queued.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::gate::Phase;

/// Counters of one lane's replay.
#[derive(Debug, Default)]
pub struct LaneProgress {
    /// The lane as shown.
    pub name: String,
    /// Offsets wanted.
    pub wanted: u64,
    /// Records delivered.
    pub delivered: AtomicU64,
}

/// What a build is doing now.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    lanes: Mutex<Vec<std::sync::Arc<LaneProgress>>>,
}

impl Progress {
    /// Enters a phase with a number of units to do (0 when unknown).
    pub fn enter(&self, phase: Phase, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.phase.store(phase.number(), Ordering::Relaxed);
    }

    /// Counts units as done.
    pub fn advance(&self, units: u64) {
        self.done.fetch_add(units, Ordering::Relaxed);
    }

    /// Announces the lanes of a replay.
    pub fn set_lanes(&self, lanes: Vec<std::sync::Arc<LaneProgress>>) {
        *self.lanes.lock().unwrap_or_else(PoisonError::into_inner) = lanes;
    }

    /// The phase now, if one was entered.
    pub fn phase(&self) -> Option<Phase> {
        let number = self.phase.load(Ordering::Relaxed);
        [Phase::Intent, Phase::Ledger, Phase::Pins, Phase::Replay, Phase::Labels, Phase::Features, Phase::Publication, Phase::Operate]
            .into_iter()
            .find(|p| p.number() == number)
    }

    /// Units done and to do.
    pub fn units(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// The lanes with wanted and delivered counts.
    pub fn lanes(&self) -> Vec<(String, u64, u64)> {
        let lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().map(|l| (l.name.clone(), l.wanted, l.delivered.load(Ordering::Relaxed))).collect()
    }

    /// A sample for the ledger.
    pub fn sample(&self) -> Value {
        let (done, total) = self.units();
        let lanes: Vec<Value> =
            self.lanes().into_iter().take(4_096).map(|(name, wanted, delivered)| json!([name, wanted, delivered])).collect();
        json!({"phase": self.phase().map(Phase::as_str), "done": done, "total": total, "lanes": lanes})
    }
}
