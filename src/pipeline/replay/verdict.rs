//! What a replay comes to: the verdict, the proof, and what was observed.

use serde_json::{Value, json};

use super::deliver::{Found, Totals};
use super::lane::{self, LaneProof};
use super::{KEPT_FAULTS, LaneInput, PHASE};
use crate::contract::{Offset, ReasonCode};
use crate::pipeline::gate::Refusal;
use crate::pipeline::pin::Pinned;
use crate::source::Source;

/// Decides, worst first: a contradiction outranks a gap, since a gap can be filled.
pub(super) fn judge(inputs: &[LaneInput], proofs: &[LaneProof], totals: &Totals) -> Result<(), Refusal> {
    let refusal = contradiction(inputs, totals).or_else(|| conflict(inputs, proofs)).or_else(|| gap(inputs, proofs)).or_else(|| {
        let delivered: u64 = proofs.iter().map(|p| p.delivered).sum();
        (delivered <= unselected(proofs))
            .then(|| Refusal::new(ReasonCode::ReplayEventsEmpty, PHASE, "the basis holds no event of this run and its scenario runs"))
    });
    match refusal {
        None => Ok(()),
        Some(refusal) => Err(refusal
            .with_artifact(json!({"replay": observation_of(inputs, proofs, totals), "anomalies": anomalies_of(inputs, proofs, totals)}))),
    }
}

/// Events that the scenario selection leaves out. Counted by offset: that both sides may serve one is an
/// observation, and this number is part of what is proved.
fn unselected(proofs: &[LaneProof]) -> u64 {
    proofs.iter().map(|p| p.unselected).sum()
}

fn contradiction(inputs: &[LaneInput], totals: &Totals) -> Option<Refusal> {
    let first = totals.faults.kept.first()?;
    let line = |found: &Found| {
        let lane = inputs.get(found.lane).map(|i| i.lane.to_string()).unwrap_or_default();
        let offset = found.fault.offset.map(|o| format!(" offset {o}")).unwrap_or_default();
        format!("{lane}{offset} ({}, {}): {} {}", found.source, found.fault.place, found.fault.code, found.fault.message)
    };
    Some(
        Refusal::new(first.fault.code, PHASE, format!("{} record(s) cannot be used; the first: {}", totals.faults.total, line(first)))
            .with_evidence(totals.faults.kept.iter().map(line)),
    )
}

fn conflict(inputs: &[LaneInput], proofs: &[LaneProof]) -> Option<Refusal> {
    let all: Vec<(&LaneInput, &lane::Conflict)> =
        inputs.iter().zip(proofs).flat_map(|(i, p)| p.conflicts.iter().map(move |c| (i, c))).collect();
    let total: u64 = proofs.iter().map(|p| p.conflict_total).sum();
    // Bus against archive outranks a doubled offset within one side.
    let (_, first) = all.iter().find(|(_, c)| c.code == ReasonCode::ReplayBasisMismatch).or(all.first())?;
    let line =
        |(input, conflict): &(&LaneInput, &lane::Conflict)| format!("{} offset {}: {}", input.lane, conflict.offset, conflict.message);
    let message = format!("{total} offset(s) were delivered with contradicting content");
    Some(Refusal::new(first.code, PHASE, message).with_evidence(all.iter().filter(|(_, c)| c.code == first.code).map(line)))
}

fn gap(inputs: &[LaneInput], proofs: &[LaneProof]) -> Option<Refusal> {
    let gaps: Vec<(&LaneInput, &lane::Gap)> = inputs.iter().zip(proofs).flat_map(|(i, p)| p.gaps.iter().map(move |g| (i, g))).collect();
    if gaps.is_empty() {
        return None;
    }
    let lanes = inputs.iter().zip(proofs).filter(|(_, p)| !p.gaps.is_empty()).count();
    let missing = gaps.iter().fold(Offset::default(), |sum, (_, g)| sum.plus(g.range.span()));
    let mut refusal =
        Refusal::new(ReasonCode::ReplayIncomplete, PHASE, format!("{missing} offset(s) of {lanes} partition(s) were not delivered"))
            .with_evidence(gaps.iter().map(|(i, g)| format!("{} {}: {}", i.lane, g.range, g.cause.words())));
    let all = |cause: lane::Cause| gaps.iter().all(|(_, g)| g.cause == cause);
    if all(lane::Cause::SparseUnattested) {
        refusal.end_class = Some("UNCHECKABLE_EXPLICIT");
    } else if all(lane::Cause::BelowRetention) {
        refusal.end_class = Some("UNSATISFIABLE_IN_ENV");
    }
    Some(refusal)
}

/// The proof: depends on identity alone.
pub(super) fn proof_of(pinned: &Pinned, proofs: &[LaneProof]) -> Value {
    let intent = pinned.intent();
    let lanes: Vec<Value> = intent
        .lanes()
        .iter()
        .zip(proofs)
        .map(|((lane, ranges), proof)| {
            let slices: Vec<Value> = ranges
                .iter()
                .map(|range| {
                    let id = crate::digest::recipe_digest("ofs.slice.v1", &json!([pinned.id().fingerprint, lane.topic, lane.partition, lane.kind, range.start, range.end]));
                    json!({"slice_id": id.chars().take(32).collect::<String>(), "start_offset": range.start, "end_offset": range.end})
                })
                .collect();
            json!({"topic": lane.topic, "partition": lane.partition, "offset_kind": lane.kind, "slices": slices, "events": proof.delivered, "sequence_digest": proof.digest})
        })
        .collect();
    let sequence = crate::digest::recipe_digest("ofs.delivered_sequence.v1", &Value::Array(lanes.clone()));
    json!({
        "schema_version": "ofs.replay_proof.v1", "status": "COMPLETE", "basis_hash": crate::identity::basis_hash(intent), "offset_interval": "closed",
        "lanes": lanes, "events": proofs.iter().map(|p| p.delivered).sum::<u64>(), "delivered_sequence_digest": sequence,
    })
}

pub(super) fn observation_of(inputs: &[LaneInput], proofs: &[LaneProof], totals: &Totals) -> Value {
    let lanes: Vec<Value> = inputs
        .iter()
        .zip(proofs)
        .map(|(input, proof)| proof.observed(&input.lane, &input.ranges, input.retained_from, input.ignored_files))
        .collect();
    let complete = proofs.iter().all(|p| p.gaps.is_empty() && p.conflict_total == 0) && totals.faults.total == 0;
    json!({
        "status": if complete { "COMPLETE" } else { "INCOMPLETE" }, "partitions": lanes, "unselected_by_scenario": unselected(proofs),
        "undecodable_unplaced": totals.faults.unplaced, "bus_unreadable": totals.faults.bus_unreadable, "unusable_records": totals.faults.total,
    })
}

pub(super) fn anomalies_of(inputs: &[LaneInput], proofs: &[LaneProof], totals: &Totals) -> Value {
    let mut list: Vec<Value> = Vec::new();
    for found in &totals.faults.kept {
        let lane = inputs.get(found.lane).map(|i| i.lane.to_string());
        list.push(json!({"code": found.fault.code, "lane": lane, "offset": found.fault.offset, "source": found.source.as_str(), "place": found.fault.place, "message": found.fault.message}));
    }
    for fault in &totals.faults.unplaced_sample {
        list.push(json!({"code": fault.code, "place": fault.place, "message": fault.message}));
    }
    for (input, proof) in inputs.iter().zip(proofs) {
        list.extend(
            proof
                .conflicts
                .iter()
                .map(|c| json!({"code": c.code, "lane": input.lane.to_string(), "offset": c.offset, "message": c.message})),
        );
        list.extend(proof.gaps.iter().map(|g| json!({"code": ReasonCode::ReplayBasisGap, "lane": input.lane.to_string(), "start_offset": g.range.start, "end_offset": g.range.end, "cause": g.cause.as_str(), "message": g.cause.words()})));
        list.extend(proof.unreadable.iter().map(|o| json!({"code": ReasonCode::DecodeError, "lane": input.lane.to_string(), "offset": o, "source": Source::Bus.as_str(), "message": "unreadable on the bus"})));
    }
    json!({"schema_version": "ofs.replay_anomalies.v1", "unusable_records": totals.faults.total, "undecodable_unplaced": totals.faults.unplaced,
        "conflicts": proofs.iter().map(|p| p.conflict_total).sum::<u64>(), "kept_at_most": KEPT_FAULTS, "anomalies": list})
}
