//! What a replay comes to: the verdict, the proof, and what was observed.

use serde_json::{Value, json};

use super::deliver::{Found, Totals};
use super::gaps::{Cause, Tally};
use super::lane::{self, LaneProof};
use super::{KEPT_FAULTS, LaneInput, PHASE};
use crate::contract::ReasonCode;
use crate::pipeline::gate::Refusal;
use crate::pipeline::pin::Pinned;
use crate::source::Source;

/// Decides, worst first: a contradiction outranks a gap, since a gap can be filled.
pub(super) fn judge(inputs: &[LaneInput], proofs: &[LaneProof], totals: &Totals) -> Result<(), Refusal> {
    let refusal =
        contradiction(inputs, totals).or_else(|| conflict(inputs, proofs)).or_else(|| gap(inputs, proofs, totals)).or_else(|| {
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

/// Records that cannot be read, and so do not say which offset they are, may be what is missing.
fn unplaced(totals: &Totals) -> Option<String> {
    let first = totals.faults.unplaced_sample.first()?;
    let count = totals.faults.unplaced;
    Some(format!(
        "{count} record(s) of the archive cannot be read and may be among the missing; the first: {}: {}",
        first.place, first.message
    ))
}

fn gap(inputs: &[LaneInput], proofs: &[LaneProof], totals: &Totals) -> Option<Refusal> {
    let all = proofs.iter().fold(Tally::default(), |sum, p| sum.plus(p.gaps.total()));
    if all.ranges == 0 {
        return None;
    }
    let lanes = proofs.iter().filter(|p| !p.gaps.none()).count();
    let kept = inputs.iter().zip(proofs).flat_map(|(i, p)| p.gaps.kept.iter().map(move |g| (i, g)));
    let of_gaps = kept.map(|(i, g)| format!("{} {}: {}", i.lane, g.range, g.cause.words()));
    let unplaced = unplaced(totals);
    let lines = all.ranges + u64::from(unplaced.is_some());
    let message = format!("{} offset(s) of {lanes} partition(s) were not delivered", all.offsets);
    let mut refusal =
        Refusal::new(ReasonCode::ReplayIncomplete, PHASE, message).with_evidence_of(unplaced.into_iter().chain(of_gaps), lines);
    let only = |cause: Cause| proofs.iter().map(|p| p.gaps.of(cause).ranges).sum::<u64>() == all.ranges;
    if only(Cause::SparseUnattested) {
        refusal.end_class = Some("UNCHECKABLE_EXPLICIT");
    } else if only(Cause::BelowRetention) {
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
    let complete = proofs.iter().all(|p| p.gaps.none() && p.conflict_total == 0) && totals.faults.total == 0;
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
        list.extend(proof.gaps.kept.iter().map(|g| json!({"code": ReasonCode::ReplayBasisGap, "lane": input.lane.to_string(), "start_offset": g.range.start, "end_offset": g.range.end, "cause": g.cause.as_str(), "message": g.cause.words()})));
        list.extend(proof.unreadable.iter().map(|o| json!({"code": ReasonCode::DecodeError, "lane": input.lane.to_string(), "offset": o, "source": Source::Bus.as_str(), "message": "unreadable on the bus"})));
    }
    let mut told = json!({"schema_version": "ofs.replay_anomalies.v1", "unusable_records": totals.faults.total, "undecodable_unplaced": totals.faults.unplaced,
        "conflicts": proofs.iter().map(|p| p.conflict_total).sum::<u64>(), "kept_at_most": KEPT_FAULTS, "anomalies": list});
    let gaps: u64 = proofs.iter().map(|p| p.gaps.total().ranges).sum();
    // What a build that passed has kept stays as it always was.
    if let Some(map) = told.as_object_mut().filter(|_| gaps > 0) {
        map.insert("gaps".into(), json!(gaps));
    }
    told
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::contract::intent::{Lane, OffsetRange};
    use crate::contract::{Offset, OffsetKind};
    use crate::engine::scratch::{Budget, Scratch};
    use crate::engine::sorter::Sorter;
    use crate::pipeline::gate::EVIDENCE_LINES;
    use crate::pipeline::replay::gaps::KEPT;
    use lane::{Kind, Wanted, proof_record, prove};

    /// What a replay comes to that delivers every second offset below 10,000, which is where retention begins.
    fn refused(end: u64) -> Refusal {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Arc::new(Scratch::new(dir.path(), "t", "1").unwrap());
        let input = LaneInput {
            lane: Lane { topic: "t".into(), partition: 0, kind: OffsetKind::KafkaOffset },
            ranges: vec![OffsetRange { start: Offset::default(), end: end.into() }],
            sorter: Sorter::new(Arc::new(Budget::new(1 << 30)), scratch),
            progress: Arc::default(),
            retained_from: Some(10_000u64.into()),
            attested: Vec::new(),
            ignored_files: 0,
        };
        let record = |at: u64| proof_record(at.into(), Source::Archive, Kind::Event, &[1; 32]);
        input.sorter.push((1..10_000).step_by(2).map(record).collect()).unwrap();
        let wanted = Wanted { kind: input.lane.kind, ranges: &input.ranges, retained_from: input.retained_from, attested: &[] };
        let proof = prove(input.sorter.finish().unwrap(), wanted).unwrap();
        judge(&[input], &[proof], &Totals::default()).unwrap_err()
    }

    #[test]
    fn what_is_told_of_very_many_gaps_is_bounded_and_their_totals_are_exact() {
        let refusal = refused(9_999);
        assert_eq!((refusal.code, refusal.end_class), (ReasonCode::ReplayIncomplete, Some("UNSATISFIABLE_IN_ENV")));
        assert_eq!(refusal.message, "5000 offset(s) of 1 partition(s) were not delivered");
        assert_eq!(refusal.evidence.last().map(String::as_str), Some(format!("and {} more", 5_000 - EVIDENCE_LINES).as_str()));
        let found = refusal.artifact.unwrap();
        let lane = &found["replay"]["partitions"][0];
        assert_eq!(lane["missing_ranges"].as_array().map(Vec::len), Some(KEPT));
        assert_eq!(
            (&lane["missing_ranges_total"], &lane["missing_offsets"], &lane["covered_offsets"]),
            (&json!(5_000), &json!(5_000), &json!(5_000))
        );
        assert_eq!(lane["missing_by_cause"], json!({"BELOW_RETENTION": {"ranges": 5_000, "offsets": 5_000}}));
        let anomalies = &found["anomalies"];
        assert_eq!((&anomalies["gaps"], &anomalies["kept_at_most"]), (&json!(5_000), &json!(KEPT)));
        assert_eq!(anomalies["anomalies"].as_array().map(Vec::len), Some(KEPT));
    }

    #[test]
    fn a_gap_that_is_not_kept_decides_all_the_same() {
        let refusal = refused(10_009);
        assert_eq!((refusal.end_class, refusal.message.split(' ').next()), (None, Some("5010")));
    }
}
