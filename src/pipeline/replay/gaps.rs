//! Which offsets of a lane were not delivered, and why: accounted for while its records pass by in offset order,
//! in one pass and in memory that does not grow with what is missing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::contract::intent::OffsetRange;
use crate::contract::{Offset, OffsetKind};
use crate::engine::interval::RangeSet;

/// Gaps, conflicts and unreadable offsets of a lane that are kept for evidence; their totals are exact.
pub(super) const KEPT: usize = 1_000;

/// Why a range was not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    BelowRetention,
    AbsentFromArchive,
    BeyondEnd,
    UnreadableRecord,
    SparseUnattested,
}

impl Cause {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Cause::BelowRetention => "BELOW_RETENTION",
            Cause::AbsentFromArchive => "ABSENT_FROM_ARCHIVE",
            Cause::BeyondEnd => "BEYOND_END",
            Cause::UnreadableRecord => "UNREADABLE_RECORD",
            Cause::SparseUnattested => "SPARSE_UNATTESTED",
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Cause::BelowRetention => "below the bus's retention and absent from the archive",
            Cause::AbsentFromArchive => "absent from the archive and not on the bus",
            Cause::BeyondEnd => "beyond the last record of bus and archive",
            Cause::UnreadableRecord => "an unreadable record on the bus, absent from the archive",
            Cause::SparseUnattested => "a sparse offset kind without a sealed or attested range",
        }
    }
}

/// A range that was not delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) range: OffsetRange,
    pub(super) cause: Cause,
}

/// How many gaps, and how many offsets they span.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) ranges: u64,
    pub(super) offsets: Offset,
}

impl Tally {
    pub(super) fn plus(self, other: Tally) -> Tally {
        Tally { ranges: self.ranges + other.ranges, offsets: self.offsets.plus(other.offsets) }
    }
}

/// The gaps of a lane: the first of them, and exact totals of all.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    /// In order, [`KEPT`] at most.
    pub(super) kept: Vec<Gap>,
    by_cause: BTreeMap<Cause, Tally>,
}

impl Gaps {
    /// Whether nothing is missing.
    pub(super) fn none(&self) -> bool {
        self.by_cause.is_empty()
    }

    /// All of them, kept or not.
    pub(super) fn total(&self) -> Tally {
        self.by_cause.values().fold(Tally::default(), |sum, tally| sum.plus(*tally))
    }

    /// Those of one cause.
    pub(super) fn of(&self, cause: Cause) -> Tally {
        self.by_cause.get(&cause).copied().unwrap_or_default()
    }

    /// Those that were kept, as receipts list them.
    pub(super) fn listed(&self) -> Value {
        self.kept.iter().map(|g| json!({"start_offset": g.range.start, "end_offset": g.range.end, "cause": g.cause.as_str()})).collect()
    }

    /// The totals by cause, as receipts tell them.
    pub(super) fn told_by_cause(&self) -> Value {
        let told = |tally: &Tally| json!({"ranges": tally.ranges, "offsets": crate::json::number(&tally.offsets.to_string())});
        self.by_cause.iter().map(|(cause, tally)| (cause.as_str().to_owned(), told(tally))).collect::<serde_json::Map<_, _>>().into()
    }

    fn push(&mut self, range: OffsetRange, cause: Cause) {
        let sum = self.by_cause.entry(cause).or_default();
        *sum = sum.plus(Tally { ranges: 1, offsets: range.span() });
        if self.kept.len() < KEPT {
            self.kept.push(Gap { range, cause });
        }
    }
}

/// Walks along what a lane owes while its offsets pass by in ascending order; what is passed over is missing.
#[derive(Debug)]
pub(super) struct Account {
    dense: bool,
    retained_from: Option<Offset>,
    /// What is left of the range that the walk has come to, and the ranges after it.
    current: Option<OffsetRange>,
    owed: std::vec::IntoIter<OffsetRange>,
    gaps: Gaps,
    /// Of the kept gaps, those from here on lie beyond every offset that was delivered so far.
    settled: usize,
}

impl Account {
    /// An account of `ranges`. Where `attested` says so, what was not delivered is none.
    pub(super) fn open(kind: OffsetKind, ranges: &[OffsetRange], attested: &[OffsetRange], retained_from: Option<Offset>) -> Self {
        let mut owed = RangeSet::of(attested).missing_from(ranges).into_iter();
        Account { dense: kind.dense(), retained_from, current: owed.next(), owed, gaps: Gaps::default(), settled: 0 }
    }

    /// An offset was delivered.
    pub(super) fn covered(&mut self, offset: Offset) {
        self.pass_to(offset);
        self.take(offset);
        // What is missing below a delivered offset does not lie beyond the end.
        if let Some(tally) = self.gaps.by_cause.remove(&Cause::BeyondEnd) {
            let absent = self.gaps.by_cause.entry(Cause::AbsentFromArchive).or_default();
            *absent = absent.plus(tally);
            for gap in self.gaps.kept.iter_mut().skip(self.settled).filter(|gap| gap.cause == Cause::BeyondEnd) {
                gap.cause = Cause::AbsentFromArchive;
            }
        }
        self.settled = self.gaps.kept.len();
    }

    /// An offset has a record on the bus that cannot be read, and nothing else.
    pub(super) fn unreadable(&mut self, offset: Offset) {
        // Where numbers are left out anyway, one more tells nothing.
        if self.dense {
            self.pass_to(offset);
            if self.take(offset) {
                self.gaps.push(OffsetRange { start: offset, end: offset }, Cause::UnreadableRecord);
            }
        }
    }

    /// What is missing once every offset has passed by.
    pub(super) fn close(mut self) -> Gaps {
        while let Some(range) = self.current {
            self.missing(range);
            self.current = self.owed.next();
        }
        self.gaps
    }

    /// Everything owed below this offset that has not passed by is missing.
    fn pass_to(&mut self, offset: Offset) {
        while let Some(range) = self.current.filter(|range| range.start < offset) {
            let end = range.end.min(offset.previous());
            self.missing(OffsetRange { start: range.start, end });
            self.go_past(end);
        }
    }

    /// Takes an offset to which the walk has come, and says whether it is owed.
    fn take(&mut self, offset: Offset) -> bool {
        let owed = self.current.is_some_and(|range| range.start == offset);
        if owed {
            self.go_past(offset);
        }
        owed
    }

    fn go_past(&mut self, offset: Offset) {
        self.current = match self.current {
            Some(range) if offset < range.end => Some(OffsetRange { start: offset.next(), end: range.end }),
            _ => self.owed.next(),
        };
    }

    fn missing(&mut self, OffsetRange { mut start, end }: OffsetRange) {
        if !self.dense {
            return self.gaps.push(OffsetRange { start, end }, Cause::SparseUnattested);
        }
        if let Some(base) = self.retained_from.filter(|base| *base > start) {
            self.gaps.push(OffsetRange { start, end: end.min(base.previous()) }, Cause::BelowRetention);
            start = base;
        }
        // Until a later offset is delivered.
        if start <= end {
            self.gaps.push(OffsetRange { start, end }, Cause::BeyondEnd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What passes by at an offset.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Seen {
        Nothing,
        Covered,
        Unreadable,
    }

    fn ranges(cuts: &[u64]) -> Vec<OffsetRange> {
        cuts.chunks_exact(2).map(|c| OffsetRange { start: c[0].into(), end: c[1].into() }).collect()
    }

    fn account(kind: OffsetKind, seen: &[Seen], wanted: &[OffsetRange], attested: &[OffsetRange], retained: Option<u64>) -> Gaps {
        let mut account = Account::open(kind, wanted, attested, retained.map(Offset::from));
        for (offset, seen) in (0u64..).zip(seen) {
            match seen {
                Seen::Nothing => {}
                Seen::Covered => account.covered(offset.into()),
                Seen::Unreadable => account.unreadable(offset.into()),
            }
        }
        account.close()
    }

    /// The same, offset by offset from the definitions; neighbours of one cause are one gap.
    fn naive(kind: OffsetKind, seen: &[Seen], wanted: &[OffsetRange], attested: &[OffsetRange], retained: Option<u64>) -> Vec<Gap> {
        let last = seen.iter().rposition(|s| *s == Seen::Covered);
        let mut gaps: Vec<Gap> = Vec::new();
        for range in wanted {
            let mut open = false;
            for (at, seen) in seen.iter().enumerate().filter(|(at, _)| range.contains((*at as u64).into())) {
                let offset = Offset::from(at as u64);
                if *seen == Seen::Covered || attested.iter().any(|r| r.contains(offset)) {
                    open = false;
                    continue;
                }
                let cause = match seen {
                    _ if !kind.dense() => Cause::SparseUnattested,
                    Seen::Unreadable => Cause::UnreadableRecord,
                    _ if retained.is_some_and(|base| (at as u64) < base) => Cause::BelowRetention,
                    _ if last.is_some_and(|last| at < last) => Cause::AbsentFromArchive,
                    _ => Cause::BeyondEnd,
                };
                match gaps.last_mut().filter(|g| open && g.cause == cause && cause != Cause::UnreadableRecord) {
                    Some(gap) => gap.range.end = offset,
                    None => gaps.push(Gap { range: OffsetRange { start: offset, end: offset }, cause }),
                }
                open = true;
            }
        }
        gaps
    }

    proptest! {
        #[test]
        fn every_missing_offset_is_in_one_gap_of_its_cause(
            seen in proptest::collection::vec(proptest::sample::select(vec![Seen::Nothing, Seen::Covered, Seen::Covered, Seen::Unreadable]), 40),
            wanted in proptest::collection::btree_set(0u64..40, 0..8),
            attested in proptest::collection::btree_set(0u64..40, 0..5),
            retained in proptest::option::of(0u64..45),
            dense: bool,
        ) {
            let kind = if dense { OffsetKind::KafkaOffset } else { OffsetKind::KinesisSequence };
            let (wanted, attested) = (ranges(&Vec::from_iter(wanted)), ranges(&Vec::from_iter(attested)));
            let got = account(kind, &seen, &wanted, &attested, retained);
            let want = naive(kind, &seen, &wanted, &attested, retained);
            prop_assert_eq!(got.total().ranges, want.len() as u64);
            prop_assert_eq!(got.total().offsets, want.iter().fold(Offset::default(), |sum, g| sum.plus(g.range.span())));
            for cause in [Cause::BelowRetention, Cause::AbsentFromArchive, Cause::BeyondEnd, Cause::UnreadableRecord, Cause::SparseUnattested] {
                prop_assert_eq!(got.of(cause).ranges, want.iter().filter(|g| g.cause == cause).count() as u64);
            }
            prop_assert_eq!(got.none(), want.is_empty());
            prop_assert_eq!(got.kept, want);
        }
    }

    #[test]
    fn of_very_many_gaps_the_first_are_kept_and_all_are_counted() {
        // Every second record is missing; of those that are there every third cannot be read.
        const MANY: u64 = 600_000;
        let wanted = ranges(&[0, MANY - 1]);
        let mut account = Account::open(OffsetKind::KafkaOffset, &wanted, &[], Some(10u64.into()));
        let mut most = 0;
        for offset in (1..MANY).step_by(2) {
            if offset % 3 == 0 {
                account.unreadable(offset.into())
            } else {
                account.covered(offset.into())
            }
            most = most.max(account.gaps.kept.len());
        }
        let gaps = account.close();
        assert_eq!((most, gaps.kept.len()), (KEPT, KEPT));
        let tally = |ranges: u64| Tally { ranges, offsets: ranges.into() };
        assert_eq!(gaps.of(Cause::BelowRetention), tally(5));
        assert_eq!((gaps.of(Cause::UnreadableRecord), gaps.of(Cause::AbsentFromArchive)), (tally(MANY / 6), tally(MANY / 2 - 5)));
        assert_eq!((gaps.total(), gaps.of(Cause::BeyondEnd)), (tally(MANY / 2 + MANY / 6), tally(0)));
        assert_eq!((gaps.kept[0].cause, gaps.kept[0].range.to_string()), (Cause::BelowRetention, "0".to_owned()));
    }
}
