//! Everything there is to know about one run, as one snapshot.

use super::Source;
use super::evidence::EvidenceTree;
use super::labels::LabelsView;
use super::pins::PinsView;
use super::replay::ReplayView;
use super::timeline::TimelineView;
use super::triage::Triage;
use crate::ledger::{LedgerError, RunRow};
use crate::time::Instant;

/// Newest events of a run that are looked at.
pub const MAX_EVENTS: u64 = 2_000;

/// One run, as it was known at one moment.
#[derive(Debug, Clone)]
pub struct Detail {
    /// The run.
    pub run_key: String,
    /// Its record.
    pub row: RunRow,
    /// When this was read.
    pub as_of: Instant,
    /// Why it stands where it does.
    pub triage: Triage,
    /// Completeness by partition.
    pub replay: ReplayView,
    /// Labels as of the cut-off.
    pub labels: LabelsView,
    /// Pinned versions and their drift.
    pub pins: PinsView,
    /// What happened when.
    pub timeline: TimelineView,
    /// What the gates wrote.
    pub evidence: EvidenceTree,
}

impl Detail {
    /// Reads everything about a run. What cannot be read or believed is UNKNOWN in its place.
    ///
    /// # Errors
    /// Only where the ledger cannot be read, or holds no such run.
    pub fn load(source: &Source, run_key: &str) -> Result<Self, LedgerError> {
        let row = source.ledger.run(run_key)?.ok_or_else(|| LedgerError::NotFound(run_key.to_owned()))?;
        let events = source.ledger.events(run_key, row.last_seq.saturating_sub(MAX_EVENTS))?;
        Ok(Detail {
            run_key: row.run_key.clone(),
            as_of: source.clock.now(),
            triage: Triage::load(source, &row, &events),
            replay: ReplayView::load(source, &row, &events),
            labels: LabelsView::load(source, &row, &events),
            pins: PinsView::load(source, &row, &events),
            timeline: TimelineView::load(source, &row, &events),
            evidence: EvidenceTree::load(source, &row, &events),
            row,
        })
    }

    /// The incident as Markdown.
    pub fn summary(&self, now: Instant) -> String {
        self.triage.summary(now)
    }
}
