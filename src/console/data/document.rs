//! Documents of the store, believed only as far as the ledger bears them out.

use serde_json::Value;

use super::Source;
use crate::contract::path_safe;
use crate::ledger::{EventRow, RunRow};
use crate::pipeline::Phase;
use crate::store::{ErrorKind, Ref, read};

/// Largest receipt that a view is made of, in bytes.
pub const MAX_RECEIPT: u64 = 64 << 20;

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    /// Nothing lies there.
    Absent,
    /// Something lies there that must not be believed, or it cannot be read: why.
    Untrusted(String),
}

/// Folder of the receipt that a gate leaves.
pub fn folder(phase: Phase) -> &'static str {
    match phase {
        Phase::Replay => "replay_completeness",
        Phase::Labels => "label_resolution",
        Phase::Features => "dataset_draft",
        Phase::Publication => "publication_receipts",
        _ => "resolved_build_plan",
    }
}

/// Reads one JSON document with its BLAKE3, at most `limit` bytes.
///
/// # Errors
/// Why there is none.
pub fn load(source: &Source, at: &Ref, limit: u64) -> Result<(Value, String), Gap> {
    let store = source.store.as_ref().map_err(|why| Gap::Untrusted(why.clone()))?;
    let bytes = read(store.as_ref(), at, limit).map_err(|e| match e.kind {
        ErrorKind::NotFound => Gap::Absent,
        _ => Gap::Untrusted(e.to_string()),
    })?;
    let digest = blake3::hash(&bytes).to_hex().to_string();
    let value = serde_json::from_slice(&bytes).map_err(|e| Gap::Untrusted(format!("{at} is not a JSON document: {e}")))?;
    Ok((value, digest))
}

/// The receipt of a gate that this run has passed. It must name this run, its proof must have the digest
/// that it states, and the whole must be what the ledger recorded when the gate passed.
///
/// # Errors
/// Why there is none, or why it is not believed.
pub fn receipt(source: &Source, row: &RunRow, events: &[EventRow], phase: Phase) -> Result<(Ref, Value), Gap> {
    let at = receipt_ref(row, phase)?;
    let passed = events.iter().rev().find(|e| e.event_type == "GATE_PASSED" && phase_of(e) == Some(phase.as_str()));
    let recorded = passed.and_then(|e| e.detail.pointer("/evidence/receipt_blake3")).and_then(Value::as_str);
    if source.then.is_some() && recorded.is_none() {
        // What lies there now was not there then.
        return Err(Gap::Absent);
    }
    let (value, digest) = load(source, &at, MAX_RECEIPT).map_err(|gap| match gap {
        Gap::Absent if recorded.is_some() => Gap::Untrusted(format!("{at} is gone, though the ledger says that this gate passed")),
        gap => gap,
    })?;
    let untrusted = |what: String| Gap::Untrusted(format!("{at} {what}"));
    if value.get("run_key").and_then(Value::as_str) != Some(&row.run_key) {
        return Err(untrusted("is of another run".into()));
    }
    if let (Some(stated), Some(proof)) = (value.get("proof_digest").and_then(Value::as_str), value.get("proof"))
        && crate::digest::digest(proof) != stated
    {
        return Err(untrusted("holds a proof that has not the digest it states".into()));
    }
    match recorded {
        Some(recorded) if recorded != digest => Err(untrusted("is not the one that the ledger recorded when the gate passed".into())),
        // Between writing the receipt and recording it a process may have died: nothing bears it out.
        None => Err(untrusted("is not borne out by the ledger: no event says that this gate passed".into())),
        Some(_) => Ok((at, value)),
    }
}

/// What the gate that refused this run last found; nothing where another gate refused, or none.
///
/// # Errors
/// Why there is none, or why it is not believed.
pub fn refusal(source: &Source, row: &RunRow, phase: Phase) -> Result<(Ref, Value), Gap> {
    if !refused_at(row, phase) {
        return Err(Gap::Absent);
    }
    let named = row.result.as_ref().and_then(|r| r.pointer("/evidence/refusal")).and_then(Value::as_str);
    let Some(named) = named else {
        return Err(Gap::Untrusted("the refusal's findings were not kept".into()));
    };
    let at = Ref::parse(named).map_err(|e| Gap::Untrusted(e.to_string()))?;
    let (value, _) = load(source, &at, MAX_RECEIPT).map_err(|gap| match gap {
        Gap::Absent => Gap::Untrusted(format!("{at} is gone, though the ledger names it")),
        gap => gap,
    })?;
    let reason = row.reason.as_ref();
    let same = ["code", "phase", "message", "evidence"].iter().all(|key| value.get(key) == reason.and_then(|r| r.get(key)));
    if same { Ok((at, value)) } else { Err(Gap::Untrusted(format!("{at} tells another reason than the ledger"))) }
}

/// Whether the run stands where it does because this gate refused.
pub fn refused_at(row: &RunRow, phase: Phase) -> bool {
    let ended = row.reason.as_ref().and_then(|r| r.get("phase")).and_then(Value::as_str) == Some(phase.as_str());
    ended && !matches!(row.status, crate::ledger::Status::Running | crate::ledger::Status::Queued | crate::ledger::Status::Done)
}

/// Where the receipt of a gate lies.
///
/// # Errors
/// A run that was refused before it had a place.
pub fn receipt_ref(row: &RunRow, phase: Phase) -> Result<Ref, Gap> {
    let run = row.platform_run_id.as_deref().filter(|run| path_safe(run));
    let run = run.ok_or_else(|| Gap::Untrusted("the run has no platform run, so it has no receipts".into()))?;
    Ok(Ref::of(&[run, "ofs", folder(phase), &format!("{}.json", row.run_key)]))
}

/// The phase that an event is about.
pub fn phase_of(event: &EventRow) -> Option<&str> {
    event.detail.get("phase").and_then(Value::as_str)
}

/// A text in a document.
pub fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// A count in a document.
pub fn count(value: &Value, pointer: &str) -> Option<u64> {
    value.pointer(pointer).and_then(Value::as_u64)
}

/// The items of a list in a document; none where it is no list.
pub fn items<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}
