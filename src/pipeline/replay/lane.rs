//! The proof of one lane, from its records in offset order.

use serde_json::{Value, json};

use super::gaps::{Account, Cause, Gaps, KEPT};
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, OffsetKind, ReasonCode};
use crate::digest::hex;
use crate::digest::pieces::Pieces;
use crate::engine::EngineError;
use crate::engine::interval::total;
use crate::engine::sorter::Merge;
use crate::source::Source;
use crate::source::sealed::contains;

/// Bytes of a proof record: offset, source, kind, hash.
pub(super) const RECORD: usize = 24 + 1 + 1 + 32;
/// Ranges by source that a receipt lists; the counts are complete in any case.
const SERVED: usize = 1_000;

/// What a record was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Event = 0,
    Foreign = 1,
    Unreadable = 2,
    /// An event of this run that the scenario selection leaves out.
    Unselected = 3,
}

impl Kind {
    /// An event, by whether the scenario selection includes it.
    pub(super) fn of_event(selected: bool) -> Self {
        if selected { Kind::Event } else { Kind::Unselected }
    }
}

/// One record as sorted bytes.
pub(super) fn proof_record(offset: Offset, source: Source, kind: Kind, hash: &[u8; 32]) -> [u8; RECORD] {
    let mut record = [0u8; RECORD];
    let side = match source {
        Source::Archive => 0,
        Source::Sealed => 1,
        Source::Bus => 2,
    };
    record[..24].copy_from_slice(&offset.to_bytes());
    record[24..26].copy_from_slice(&[side, kind as u8]);
    record[26..].copy_from_slice(hash);
    record
}

struct Record {
    offset: Offset,
    source: Source,
    kind: Kind,
    hash: [u8; 32],
}

fn parse(record: &[u8; RECORD]) -> Option<Record> {
    let (offset, rest) = record.split_first_chunk::<24>()?;
    let ([side, kind], rest) = rest.split_first_chunk::<2>()?;
    let kind = match kind {
        0 => Kind::Event,
        1 => Kind::Foreign,
        3 => Kind::Unselected,
        _ => Kind::Unreadable,
    };
    Some(Record {
        offset: Offset::from_bytes(*offset),
        source: match side {
            0 => Source::Archive,
            1 => Source::Sealed,
            _ => Source::Bus,
        },
        kind,
        hash: *rest.first_chunk::<32>()?,
    })
}

/// An offset that was delivered with two contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) offset: Offset,
    pub(super) code: ReasonCode,
    pub(super) message: String,
}

/// What one lane's records prove.
#[derive(Debug, Default)]
pub(super) struct LaneProof {
    /// Offsets with an event of this run.
    pub(super) delivered: u64,
    /// Of those, how many the scenario selection leaves out: by offset, whoever served it.
    pub(super) unselected: u64,
    /// Digest over (offset, hash) of those, in order.
    pub(super) digest: String,
    pub(super) gaps: Gaps,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) conflict_total: u64,
    pub(super) unreadable: Vec<Offset>,
    foreign: u64,
    archive: u64,
    /// Of those, how many a sealed segment stands for.
    sealed: u64,
    bus: u64,
    both: u64,
    doubled: u64,
    covered: Offset,
    served: Vec<(OffsetRange, Source)>,
    served_total: u64,
}

/// Everything delivered for one offset.
#[derive(Default)]
struct Group {
    archive: Option<Content>,
    sealed: Option<Content>,
    bus: Option<Content>,
    unreadable: bool,
    unselected: bool,
    doubled: u64,
    conflict: Option<(ReasonCode, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Event([u8; 32]),
    Foreign,
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Content::Event(hash) => f.write_str(&hex(hash)),
            Content::Foreign => f.write_str("a record of another run"),
        }
    }
}

impl Group {
    fn add(&mut self, record: &Record) {
        let content = match record.kind {
            Kind::Unreadable => {
                self.unreadable = true;
                return;
            }
            Kind::Event => Content::Event(record.hash),
            Kind::Unselected => {
                self.unselected = true;
                Content::Event(record.hash)
            }
            Kind::Foreign => Content::Foreign,
        };
        let (side, code) = match record.source {
            Source::Archive => (&mut self.archive, ReasonCode::ReplayDuplicateOffsetMismatch),
            Source::Sealed => (&mut self.sealed, ReasonCode::SealedSegmentConflict),
            Source::Bus => (&mut self.bus, ReasonCode::ReplayDuplicateOffsetMismatch),
        };
        match side {
            None => *side = Some(content),
            // That segments overlap, or a raw record is there still, is no redelivery.
            Some(earlier) if *earlier == content => self.doubled += u64::from(record.source != Source::Sealed),
            Some(earlier) => self.conflict = Some((code, format!("{} has it twice, {earlier} and {content}", record.source))),
        }
    }

    /// What the archive has, in either form; a sealed segment stands for the raw record.
    fn truth(&self) -> Option<(Content, Source)> {
        let sealed = self.sealed.map(|content| (content, Source::Sealed));
        sealed.or(self.archive.map(|content| (content, Source::Archive)))
    }

    /// What contradicts what, the worst last.
    fn conflict(&mut self, attested: bool) -> Option<(ReasonCode, String)> {
        let mut conflict = self.conflict.take();
        match (self.sealed, self.archive) {
            (Some(sealed), Some(raw)) if sealed != raw => {
                conflict = Some((ReasonCode::SealedSegmentConflict, format!("a sealed segment has {sealed}, the raw archive {raw}")));
            }
            (None, Some(raw)) if attested => {
                let message = format!("the raw archive has {raw}, and the sealed segment that attests the range has nothing");
                conflict = Some((ReasonCode::SealedSegmentConflict, message));
            }
            _ => {}
        }
        match (self.truth(), self.bus) {
            (Some((truth, _)), Some(bus)) if truth != bus => {
                conflict = Some((ReasonCode::ReplayBasisMismatch, format!("the archive has {truth}, the bus {bus}")));
            }
            (None, Some(bus @ Content::Event(_))) if attested => {
                conflict =
                    Some((ReasonCode::ReplayBasisMismatch, format!("the bus has {bus}, and the archive attests that there is nothing")));
            }
            _ => {}
        }
        conflict
    }
}

/// What is to be proved of a lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'w> {
    pub(super) kind: OffsetKind,
    pub(super) ranges: &'w [OffsetRange],
    pub(super) retained_from: Option<Offset>,
    /// Where nothing is but what the sealed segments delivered.
    pub(super) attested: &'w [OffsetRange],
}

/// Reads a lane's records in order and proves what they cover.
pub(super) fn prove(records: Merge<RECORD>, wanted: Wanted<'_>) -> Result<LaneProof, EngineError> {
    let mut proof = LaneProof::default();
    let mut account = Account::open(wanted.kind, wanted.ranges, wanted.attested, wanted.retained_from);
    let mut digest = Pieces::new();
    let mut current: Option<(Offset, Group)> = None;
    for record in records {
        let Some(record) = parse(&record?) else { continue };
        match &mut current {
            Some((offset, group)) if *offset == record.offset => group.add(&record),
            _ => {
                if let Some((offset, group)) = current.take() {
                    proof.close(offset, group, wanted.attested, &mut account, &mut digest);
                }
                let mut group = Group::default();
                group.add(&record);
                current = Some((record.offset, group));
            }
        }
    }
    if let Some((offset, group)) = current {
        proof.close(offset, group, wanted.attested, &mut account, &mut digest);
    }
    proof.digest = digest.digest().to_hex().to_string();
    proof.gaps = account.close();
    proof.covered = total(wanted.ranges).above(proof.gaps.total().offsets);
    Ok(proof)
}

impl LaneProof {
    fn close(&mut self, offset: Offset, mut group: Group, attested: &[OffsetRange], account: &mut Account, digest: &mut Pieces) {
        self.both += u64::from(group.truth().is_some() && group.bus.is_some());
        let conflict = group.conflict(!attested.is_empty() && contains(attested, offset));
        if let Some((code, message)) = conflict {
            self.conflict_total += 1;
            if self.conflicts.len() < KEPT {
                self.conflicts.push(Conflict { offset, code, message });
            }
        }
        self.doubled += group.doubled;
        let (content, source) = match (group.truth(), group.bus) {
            (Some(truth), _) => truth,
            (None, Some(content)) => (content, Source::Bus),
            (None, None) => {
                if self.unreadable.len() < KEPT {
                    self.unreadable.push(offset);
                }
                account.unreadable(offset);
                return;
            }
        };
        if group.unreadable && self.unreadable.len() < KEPT {
            self.unreadable.push(offset);
        }
        account.covered(offset);
        match source {
            Source::Bus => self.bus += 1,
            Source::Archive | Source::Sealed => self.archive += 1,
        }
        self.sealed += u64::from(source == Source::Sealed);
        self.serve(offset, source);
        match content {
            Content::Foreign => self.foreign += 1,
            Content::Event(hash) => {
                self.delivered += 1;
                self.unselected += u64::from(group.unselected);
                digest.push(&offset.to_bytes());
                digest.push(&hash);
            }
        }
    }

    fn serve(&mut self, offset: Offset, source: Source) {
        match self.served.last_mut() {
            Some((range, side)) if *side == source && range.end.next() == offset => range.end = offset,
            _ => {
                self.served_total += 1;
                if self.served.len() < SERVED {
                    self.served.push((OffsetRange { start: offset, end: offset }, source));
                }
            }
        }
    }

    /// Whether the lane can be complete, and by what (O069). A build refuses the `unusable` records before it looks for
    /// gaps, even where another side has their offsets.
    pub(super) fn feasible(&self, lane: &Lane, ranges: &[OffsetRange], retained_from: Option<Offset>, unusable: u64) -> Value {
        let cause = |cause: Cause| self.gaps.of(cause).ranges > 0;
        let outcome = if unusable > 0 {
            "INFEASIBLE_ARCHIVE_GAP"
        } else if self.gaps.none() {
            if self.archive == 0 { "FEASIBLE_EB_ONLY" } else { "FEASIBLE_REQUIRES_ARCHIVE" }
        } else if cause(Cause::SparseUnattested) {
            "UNCHECKABLE_ARCHIVE_COMPLETENESS"
        } else if self.archive == 0 && cause(Cause::BelowRetention) {
            "INFEASIBLE_RETENTION_EXCEEDED_NO_ARCHIVE"
        } else {
            "INFEASIBLE_ARCHIVE_GAP"
        };
        let missing = self.gaps.total();
        json!({
            "topic": lane.topic, "partition": lane.partition, "offset_kind": lane.kind, "feasibility": outcome, "required_offsets": big(total(ranges)),
            "on_archive": self.archive, "on_sealed": self.sealed, "on_bus": self.bus + self.both, "missing_offsets": big(missing.offsets), "bus_retained_from": retained_from,
            "missing_ranges": self.gaps.listed(), "missing_ranges_total": missing.ranges, "missing_by_cause": self.gaps.told_by_cause(), "unusable_records": unusable,
        })
    }

    /// How this attempt found the lane: who served what, and where bus took over from archive.
    pub(super) fn observed(&self, lane: &Lane, ranges: &[OffsetRange], retained_from: Option<Offset>, ignored_files: u64) -> Value {
        let first_bus = self.served.iter().find(|(_, s)| *s == Source::Bus).map(|(r, _)| r.start);
        let archive_after = first_bus.is_some_and(|bus| self.served.iter().any(|(r, s)| *s != Source::Bus && r.start > bus));
        let mode = match (self.archive, self.bus) {
            (0, 0) => "NOTHING",
            (_, 0) => "ARCHIVE_ONLY",
            (0, _) => "EB_ONLY",
            _ if archive_after => "INTERLEAVED",
            _ => "ARCHIVE_THEN_EB",
        };
        let required = total(ranges);
        let missing = self.gaps.total();
        let range = |r: &OffsetRange| json!({"start_offset": r.start, "end_offset": r.end});
        let mut told = json!({
            "topic": lane.topic, "partition": lane.partition, "offset_kind": lane.kind, "requested_ranges": ranges.iter().map(range).collect::<Vec<_>>(),
            "required_offsets": big(required), "covered_offsets": big(self.covered), "missing_offsets": big(missing.offsets), "mismatch_count": self.conflict_total,
            "delivered_events": self.delivered, "foreign_records": self.foreign, "served_by_archive": self.archive, "served_by_sealed": self.sealed, "served_by_bus": self.bus, "compared_on_both": self.both,
            "redelivered_offsets": self.doubled, "cutover": {"mode": mode, "cutover_offset": first_bus, "bus_retained_from": retained_from}, "ignored_files": ignored_files,
            "selected_ranges": self.served.iter().map(|(r, s)| json!({"start_offset": r.start, "end_offset": r.end, "source": s.as_str()})).collect::<Vec<_>>(),
            "selected_ranges_total": self.served_total,
            "missing_ranges": self.gaps.listed(),
        });
        // The receipt of a replay without gaps stays as it always was.
        if let Some(map) = told.as_object_mut().filter(|_| !self.gaps.none()) {
            map.insert("missing_ranges_total".into(), json!(missing.ranges));
            map.insert("missing_by_cause".into(), self.gaps.told_by_cause());
        }
        told
    }
}

/// An exact JSON number of any size.
fn big(n: Offset) -> Value {
    crate::json::number(&n.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::scratch::{Budget, Scratch};
    use crate::engine::sorter::Sorter;
    use std::sync::Arc;

    fn run(kind: OffsetKind, ranges: &[(u64, u64)], retained: Option<u64>, records: &[(u64, Source, Kind, u8)]) -> LaneProof {
        let dir = tempfile::tempdir().unwrap();
        let sorter = Sorter::<RECORD>::new(Arc::new(Budget::new(1 << 20)), Arc::new(Scratch::new(dir.path(), "t", "1").unwrap()));
        sorter.push(records.iter().map(|(o, s, k, h)| proof_record((*o).into(), *s, *k, &[*h; 32])).collect()).unwrap();
        let ranges: Vec<OffsetRange> = ranges.iter().map(|(s, e)| OffsetRange { start: (*s).into(), end: (*e).into() }).collect();
        let wanted = Wanted { kind, ranges: &ranges, retained_from: retained.map(Offset::from), attested: &[] };
        prove(sorter.finish().unwrap(), wanted).unwrap()
    }

    use Kind::{Event, Foreign, Unreadable};
    use Source::{Archive, Bus};
    const KAFKA: OffsetKind = OffsetKind::KafkaOffset;

    fn gaps(proof: &LaneProof) -> Vec<(String, &'static str)> {
        proof.gaps.kept.iter().map(|g| (g.range.to_string(), g.cause.as_str())).collect()
    }

    #[test]
    fn overlap_counts_once_and_the_archive_serves_it() {
        let proof = run(
            KAFKA,
            &[(0, 3)],
            Some(2),
            &[(0, Archive, Event, 1), (1, Archive, Event, 2), (2, Archive, Event, 3), (2, Bus, Event, 3), (3, Bus, Event, 4)],
        );
        assert!(proof.gaps.none() && proof.conflicts.is_empty());
        assert_eq!((proof.delivered, proof.archive, proof.bus, proof.both), (4, 3, 1, 1));
        let archive_only =
            run(KAFKA, &[(0, 3)], None, &[(0, Archive, Event, 1), (1, Archive, Event, 2), (2, Archive, Event, 3), (3, Archive, Event, 4)]);
        assert_eq!(archive_only.digest, proof.digest);
    }

    #[test]
    fn every_gap_has_its_range_and_cause() {
        let proof =
            run(KAFKA, &[(0, 11)], Some(4), &[(1, Archive, Event, 1), (4, Bus, Event, 1), (5, Bus, Unreadable, 0), (7, Bus, Event, 1)]);
        assert_eq!(
            gaps(&proof),
            [
                ("0".into(), "BELOW_RETENTION"),
                ("2-3".into(), "BELOW_RETENTION"),
                ("5".into(), "UNREADABLE_RECORD"),
                ("6".into(), "ABSENT_FROM_ARCHIVE"),
                ("8-11".into(), "BEYOND_END")
            ]
        );
    }

    #[test]
    fn contradictions_are_found_within_and_between_sides() {
        let proof = run(
            KAFKA,
            &[(0, 2)],
            None,
            &[
                (0, Archive, Event, 1),
                (0, Bus, Event, 2),
                (1, Archive, Event, 1),
                (1, Archive, Event, 2),
                (2, Archive, Event, 1),
                (2, Bus, Foreign, 0),
            ],
        );
        assert_eq!(
            proof.conflicts.iter().map(|c| c.code).collect::<Vec<_>>(),
            [ReasonCode::ReplayBasisMismatch, ReasonCode::ReplayDuplicateOffsetMismatch, ReasonCode::ReplayBasisMismatch]
        );
    }

    #[test]
    fn foreign_records_cover_their_offset_and_stay_out_of_the_digest() {
        let with = run(KAFKA, &[(0, 1)], None, &[(0, Bus, Event, 1), (1, Bus, Foreign, 0)]);
        assert!(with.gaps.none());
        let without = run(KAFKA, &[(0, 0)], None, &[(0, Bus, Event, 1)]);
        assert_eq!(with.digest, without.digest);
    }

    #[test]
    fn what_the_selection_leaves_out_counts_once_by_offset() {
        let records =
            [(0, Archive, Kind::Unselected, 1), (0, Bus, Kind::Unselected, 1), (1, Archive, Event, 2), (2, Bus, Kind::Unselected, 3)];
        let proof = run(KAFKA, &[(0, 2)], None, &records);
        assert_eq!((proof.delivered, proof.unselected, proof.gaps.total().ranges, proof.conflict_total), (3, 2, 0, 0));
        // Left out or not, it is proved with the rest.
        let selected = run(KAFKA, &[(0, 2)], None, &[(0, Archive, Event, 1), (1, Archive, Event, 2), (2, Bus, Event, 3)]);
        assert_eq!(proof.digest, selected.digest);
    }

    fn beside(attested: &[(u64, u64)], records: &[(u64, Source, Kind, u8)]) -> LaneProof {
        let dir = tempfile::tempdir().unwrap();
        let sorter = Sorter::<RECORD>::new(Arc::new(Budget::new(1 << 20)), Arc::new(Scratch::new(dir.path(), "t", "1").unwrap()));
        sorter.push(records.iter().map(|(o, s, k, h)| proof_record((*o).into(), *s, *k, &[*h; 32])).collect()).unwrap();
        let range = |(start, end): (u64, u64)| OffsetRange { start: start.into(), end: end.into() };
        let attested: Vec<OffsetRange> = attested.iter().copied().map(range).collect();
        let wanted = Wanted { kind: OffsetKind::KinesisSequence, ranges: &[range((0, 9))], retained_from: None, attested: &attested };
        prove(sorter.finish().unwrap(), wanted).unwrap()
    }

    #[test]
    fn an_attested_range_is_complete_and_tolerates_nothing_beside_its_segment() {
        let sealed = [(0, Source::Sealed, Event, 1), (7, Source::Sealed, Event, 2)];
        let proof = beside(&[(0, 9)], &sealed);
        assert_eq!((gaps(&proof), proof.sealed, proof.archive, proof.covered), (vec![], 2, 2, Offset::from(10)));
        let digest = proof.digest;
        assert_eq!(gaps(&beside(&[(0, 5)], &sealed)), [("6".into(), "SPARSE_UNATTESTED"), ("8-9".into(), "SPARSE_UNATTESTED")]);
        // The raw record may still be there, and the bus may serve it, too: that is no redelivery.
        let all = [&sealed[..], &[(7, Archive, Event, 2), (7, Bus, Event, 2), (5, Bus, Foreign, 0)]].concat();
        let proof = beside(&[(0, 9)], &all);
        assert_eq!((proof.conflict_total, proof.doubled, proof.both), (0, 0, 1));
        assert_eq!(proof.digest, digest);
        let code = |more: (u64, Source, Kind, u8)| {
            let proof = beside(&[(0, 9)], &[&sealed[..], &[more]].concat());
            proof.conflicts.iter().map(|c| c.code).collect::<Vec<_>>()
        };
        use ReasonCode::{ReplayBasisMismatch, SealedSegmentConflict};
        assert_eq!(code((7, Archive, Event, 3)), [SealedSegmentConflict]);
        assert_eq!(code((7, Source::Sealed, Event, 3)), [SealedSegmentConflict]);
        assert_eq!(code((7, Bus, Event, 3)), [ReplayBasisMismatch]);
        assert_eq!(code((5, Archive, Event, 3)), [SealedSegmentConflict]);
        assert_eq!(code((5, Bus, Event, 3)), [ReplayBasisMismatch]);
    }

    #[test]
    fn sparse_kinds_are_proven_only_where_contiguous() {
        let kinesis = OffsetKind::KinesisSequence;
        assert!(run(kinesis, &[(5, 6)], None, &[(5, Archive, Event, 1), (6, Archive, Event, 1)]).gaps.none());
        assert_eq!(
            gaps(&run(kinesis, &[(5, 9)], None, &[(5, Archive, Event, 1), (9, Archive, Event, 1)])),
            [("6-8".into(), "SPARSE_UNATTESTED")]
        );
    }
}
