//! A run as it stood at a moment of its record. What is read is what is read of the present, by the same
//! loaders, from a record that ends at that moment: what was not known then is not reached, and what the
//! record does not keep (leases, what the world around said) is UNKNOWN.

use serde_json::{Value, json};

use super::Source;
use super::pins::{Drift, PinsView};
use super::triage::Triage;
use crate::console::scrub::{Moment, Stop};
use crate::contract::ReasonCode;
use crate::ledger::{EventRow, RunRow};

/// The record as it was at a moment.
pub(super) fn row(now: &RunRow, moment: &Moment) -> RunRow {
    let (fingerprint, manifest_id) = moment.identity.clone().unzip();
    RunRow {
        status: moment.status,
        full_run_attempts: moment.attempt,
        publish_retry_attempts: 0,
        retries_granted: 0,
        phase: moment.phase.clone(),
        reason_code: moment.reason.clone(),
        reason: moment.document.clone(),
        end_class: moment.reason.as_deref().and_then(ReasonCode::parse).map(|code| code.info().end_class.to_owned()),
        fingerprint,
        manifest_id,
        manifest_ref: moment.manifest.clone(),
        result: moment.document.as_ref().and_then(findings).map(|at| json!({"evidence": {"refusal": at}})),
        commit_started: false,
        owner: moment.owner.clone().and_then(|owner| serde_json::from_value(owner).ok()),
        lease_expires: None,
        progress: moment.sample.clone(),
        last_progress: None,
        paused_since: moment.paused.then_some(moment.stop.at),
        operator_request: None,
        updated: moment.stop.at,
        started: None,
        completed: None,
        last_seq: moment.stop.seq,
        ..now.clone()
    }
}

/// Where a refusal's document says that its findings lie.
fn findings(document: &Value) -> Option<&str> {
    let phase = document.get("phase")?.as_str()?;
    let refs = document.get("artifacts")?.as_array()?.iter().filter_map(|a| a.get("ref")?.as_str());
    refs.into_iter().find(|at| at.rsplit('/').next() == Some(&format!("{phase}.json")))
}

/// The events of a moment's past, itself included.
pub(super) fn events<'e>(events: &'e [EventRow], stop: &Stop) -> &'e [EventRow] {
    let known = events.iter().position(|e| e.seq > stop.seq).unwrap_or(events.len());
    events.get(..known).unwrap_or_default()
}

/// Where a source is to be read as of a moment.
pub(super) fn source(source: &Source, stop: &Stop) -> Source {
    Source { then: Some(stop.at), ..source.clone() }
}

/// Nothing may be done in the past, and whether it was stuck nobody wrote down.
pub(super) fn triage(mut now: Triage, stop: &Stop) -> Triage {
    now.deeds.retain(|deed| deed.at <= stop.at);
    now.actions.clear();
    (now.stuck, now.asked, now.past) = (None, None, Some(*stop));
    now
}

/// What a run's plan says of its intent is the same at all times; what authority, program, other runs and
/// store said then is not on record.
pub(super) fn pins(mut now: PinsView) -> PinsView {
    for row in now.rows.iter_mut().filter(|row| row.against != "intent") {
        (row.now, row.drift) = ("UNKNOWN".into(), Drift::Unknown);
        row.note = "what it said then is not on record; Esc shows what it says now".into();
    }
    now
}
