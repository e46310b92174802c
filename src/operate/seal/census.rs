//! The first pass: which offsets there are, whether they contradict each other or an attestation, and how
//! they are cut into segments.

use super::PHASE;
use super::attest::{Attestation, invalid};
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, ReasonCode};
use crate::digest::hex;
use crate::engine::sorter::Merge;
use crate::pipeline::gate::Refusal;
use crate::source::sealed::{SEGMENT_RECORDS, SEGMENT_TEXT, contains};

/// Bytes of a census record: offset, side, hash, length of the envelope's text.
pub(super) const RECORD: usize = 24 + 1 + 32 + 4;

/// Where a record was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    /// In a segment.
    Sealed,
    /// In the raw archive.
    Raw,
}

/// One record as sorted bytes.
pub(super) fn record(offset: Offset, side: Side, hash: &[u8; 32], text: usize) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    let length = u32::try_from(text).unwrap_or(u32::MAX).to_be_bytes();
    let bytes = offset.to_bytes().into_iter().chain([side as u8]).chain(*hash).chain(length);
    for (slot, byte) in record.iter_mut().zip(bytes) {
        *slot = byte;
    }
    record
}

struct Counted {
    offset: Offset,
    side: Side,
    hash: [u8; 32],
    text: u64,
}

fn parse(record: &[u8; RECORD]) -> Option<Counted> {
    let (offset, rest) = record.split_first_chunk::<24>()?;
    let ([side], rest) = rest.split_first_chunk::<1>()?;
    let (hash, rest) = rest.split_first_chunk::<32>()?;
    let side = if *side == 0 { Side::Sealed } else { Side::Raw };
    let text = u64::from(u32::from_be_bytes(*rest.first_chunk::<4>()?));
    Some(Counted { offset: Offset::from_bytes(*offset), side, hash: *hash, text })
}

/// The offsets of one segment to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// From the first to the last; of an attested range all that this part of it proves.
    pub(super) range: OffsetRange,
    /// Whether the range is attested.
    pub(super) attested: bool,
}

/// What the offsets are held against.
pub(super) struct Known<'k> {
    pub(super) lane: &'k Lane,
    /// Counts that must agree.
    pub(super) attestations: &'k [&'k Attestation],
    /// Attested ranges, or what is left of them, that no segment proves yet.
    pub(super) pieces: &'k [OffsetRange],
    /// Ranges of which segments hold every record.
    pub(super) closed: &'k [OffsetRange],
}

/// Cuts a lane into segments.
///
/// # Errors
/// `REPLAY_DUPLICATE_OFFSET_MISMATCH`, `SEALED_SEGMENT_CONFLICT`, `ATTESTATION_INVALID`, `SCRATCH_IO`.
pub(super) fn take(records: Merge<RECORD>, known: &Known<'_>) -> Result<Vec<Window>, Refusal> {
    let mut counts = vec![0u64; known.attestations.len()];
    let mut cutter = Cutter::new(known.pieces);
    let mut earlier: Option<Counted> = None;
    for record in records {
        let record = record.map_err(|e| Refusal::of_engine(PHASE, &e))?;
        let Some(found) = parse(&record) else { continue };
        if let Some(earlier) = earlier.as_ref().filter(|e| e.offset == found.offset) {
            agree(known.lane, earlier, &found)?;
            continue;
        }
        if found.side == Side::Raw && contains(known.closed, found.offset) {
            let message =
                format!("{} offset {}: the raw archive has a record where a segment attests that there is none", known.lane, found.offset);
            return Err(Refusal::new(ReasonCode::SealedSegmentConflict, PHASE, message));
        }
        let at = known.attestations.partition_point(|a| a.end_offset < found.offset);
        if let (Some(count), Some(attestation)) = (counts.get_mut(at), known.attestations.get(at)) {
            *count += u64::from(attestation.range().contains(found.offset));
        }
        cutter.push(found.offset, found.text, known.lane.kind.dense());
        earlier = Some(found);
    }
    for (attestation, count) in known.attestations.iter().zip(counts) {
        if attestation.record_count != count {
            let (lane, range, says) = (known.lane, attestation.range(), attestation.record_count);
            return Err(invalid(format!("{lane} {range}: attested are {says} records, and the archive holds {count}")));
        }
    }
    Ok(cutter.finish())
}

fn agree(lane: &Lane, a: &Counted, b: &Counted) -> Result<(), Refusal> {
    if a.hash == b.hash {
        return Ok(());
    }
    let code = match (a.side, b.side) {
        (Side::Raw, Side::Raw) => ReasonCode::ReplayDuplicateOffsetMismatch,
        _ => ReasonCode::SealedSegmentConflict,
    };
    let side = |side| if side == Side::Raw { "the raw archive" } else { "a sealed segment" };
    let message = format!("{lane} offset {}: {} has {}, {} has {}", a.offset, side(a.side), hex(&a.hash), side(b.side), hex(&b.hash));
    Err(Refusal::new(code, PHASE, message))
}

/// A window that is still growing.
struct Open {
    range: OffsetRange,
    attested: bool,
    records: usize,
    text: u64,
}

/// Cuts offsets that come in order into windows.
pub(super) struct Cutter<'c> {
    pieces: &'c [OffsetRange],
    piece: usize,
    open: Option<Open>,
    /// The windows that are closed.
    windows: Vec<Window>,
}

impl<'c> Cutter<'c> {
    /// Nothing yet, with these attested ranges to be covered.
    pub(super) fn new(pieces: &'c [OffsetRange]) -> Self {
        Cutter { pieces, piece: 0, open: None, windows: Vec::new() }
    }

    /// How many windows are closed: a record for which this grows belongs to the next one.
    pub(super) fn closed(&self) -> usize {
        self.windows.len()
    }

    /// The next record: its offset, bytes of text, and whether its kind is dense.
    pub(super) fn push(&mut self, offset: Offset, text: u64, dense: bool) {
        while self.pieces.get(self.piece).is_some_and(|piece| piece.end < offset) {
            self.close_piece();
        }
        let piece = self.pieces.get(self.piece).filter(|piece| piece.start <= offset).copied();
        // Nothing proves a sparse kind but an attestation: the rest stays raw.
        if piece.is_none() && !dense {
            return;
        }
        let full = |open: &Open| open.records >= SEGMENT_RECORDS || open.text + text > SEGMENT_TEXT;
        let mut from = piece.map_or(offset, |piece| piece.start);
        if self.open.as_ref().is_some_and(|open| full(open) || open.attested != piece.is_some()) {
            let continues = self.open.as_ref().is_some_and(|open| open.attested && piece.is_some());
            if let Some(last) = self.close().filter(|_| continues) {
                from = last.next();
            }
        }
        let fresh = Open { range: OffsetRange { start: from, end: offset }, attested: piece.is_some(), records: 0, text: 0 };
        let open = self.open.get_or_insert(fresh);
        open.range.end = offset;
        open.records += 1;
        open.text += text;
    }

    /// Ends the open window where it stands.
    fn close(&mut self) -> Option<Offset> {
        let open = self.open.take()?;
        self.windows.push(Window { range: open.range, attested: open.attested });
        Some(open.range.end)
    }

    /// Ends a piece, which is proved to its end, also where it holds no record.
    fn close_piece(&mut self) {
        let Some(piece) = self.pieces.get(self.piece).copied() else { return };
        self.piece += 1;
        match &mut self.open {
            Some(open) if open.attested => {
                open.range.end = piece.end;
                self.close();
            }
            _ => {
                self.close();
                self.windows.push(Window { range: piece, attested: true });
            }
        }
    }

    fn finish(mut self) -> Vec<Window> {
        while self.piece < self.pieces.len() {
            self.close_piece();
        }
        self.close();
        self.windows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::OffsetKind;
    use crate::engine::scratch::{Budget, Scratch};
    use crate::engine::sorter::Sorter;
    use std::sync::Arc;

    fn range(start: u64, end: u64) -> OffsetRange {
        OffsetRange { start: start.into(), end: end.into() }
    }

    fn cut(kind: OffsetKind, offsets: &[u64], pieces: &[(u64, u64)], text: usize) -> Vec<(String, bool)> {
        let dir = tempfile::tempdir().unwrap();
        let sorter = Sorter::<RECORD>::new(Arc::new(Budget::new(1 << 20)), Arc::new(Scratch::new(dir.path(), "t", "1").unwrap()));
        sorter.push(offsets.iter().map(|o| record((*o).into(), Side::Raw, &[0; 32], text)).collect()).unwrap();
        let lane = Lane { topic: "t".into(), partition: 0, kind };
        let pieces: Vec<OffsetRange> = pieces.iter().map(|(a, b)| range(*a, *b)).collect();
        let known = Known { lane: &lane, attestations: &[], pieces: &pieces, closed: &[] };
        take(sorter.finish().unwrap(), &known).unwrap().into_iter().map(|w| (w.range.to_string(), w.attested)).collect()
    }

    #[test]
    fn windows_are_bounded_and_attested_ranges_are_covered_whole() {
        let yes = |text: &str| (text.to_owned(), true);
        let no = |text: &str| (text.to_owned(), false);
        let (dense, sparse) = (OffsetKind::KafkaOffset, OffsetKind::KinesisSequence);
        assert_eq!(cut(dense, &[1, 2, 5], &[], 10), [no("1-5")]);
        assert_eq!(cut(sparse, &[1, 2, 5], &[], 10), []);
        assert_eq!(cut(sparse, &[3, 5, 30, 50], &[(0, 9), (10, 19), (40, 60)], 10), [yes("0-9"), yes("10-19"), yes("40-60")]);
        assert_eq!(cut(dense, &[1, 3, 12, 15, 30], &[(2, 10), (13, 20)], 10), [no("1"), yes("2-10"), no("12"), yes("13-20"), no("30")]);
        // Two records fill a segment by their text.
        let big = (SEGMENT_TEXT / 2) as usize;
        assert_eq!(cut(sparse, &[3, 5, 7, 8, 9], &[(0, 20)], big), [yes("0-5"), yes("6-8"), yes("9-20")]);
        assert_eq!(cut(dense, &[3, 5, 7], &[], big), [no("3-5"), no("7")]);
        let many: Vec<u64> = (0..SEGMENT_RECORDS as u64 + 1).collect();
        assert_eq!(cut(dense, &many, &[], 1).len(), 2);
    }
}
