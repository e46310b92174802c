//! Reports: what a run publishes that is no data set. One document a run, created once.

use serde_json::Value;

use super::gate::{Env, Phase, Refusal, keep_receipt};
use super::pin::Pinned;
use crate::contract::ReasonCode;
use crate::store::{Ref, read};

const PHASE: Phase = Phase::Features;
/// Largest report in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Publishes a report below `folder`: the same again is the same, another one is refused.
///
/// # Errors
/// `PUBLICATION_RECEIPT_IMMUTABILITY_VIOLATION` where another report of this run stands; the store's.
pub(super) fn publish(pinned: &Pinned, folder: &str, report: &Value, env: &Env) -> Result<Ref, Refusal> {
    let at = pinned.receipt_ref(folder);
    let keys: Vec<&str> = report.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    keep_receipt(env.store.as_ref(), &at, report, &keys, ReasonCode::PublicationReceiptImmutabilityViolation, PHASE)?;
    Ok(at)
}

/// Reads this run's own report again, held against the digest that the ledger recorded.
///
/// # Errors
/// `PROVENANCE_INCONSISTENT` where it is not the one on record; the store's.
pub(super) fn reread(pinned: &Pinned, folder: &str, env: &Env, recorded: Option<&str>) -> Result<Value, Refusal> {
    let at = pinned.receipt_ref(folder);
    let bytes = read(env.store.as_ref(), &at, MAX_BYTES).map_err(|e| Refusal::of_store(PHASE, &e))?;
    if recorded != Some(blake3::hash(&bytes).to_hex().as_str()) {
        return Err(foreign(&at, "is not the report that the ledger recorded"));
    }
    serde_json::from_slice(&bytes).map_err(|e| foreign(&at, &e.to_string()))
}

/// A report that is not this run's.
pub(super) fn foreign(at: &Ref, what: &str) -> Refusal {
    Refusal::new(ReasonCode::ProvenanceInconsistent, PHASE, format!("{at} {what}"))
}
