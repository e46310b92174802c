//! Sets of offsets as sorted, disjoint, closed ranges.

use crate::contract::Offset;
use crate::contract::intent::OffsetRange;

/// A growing set; offsets arrive in ascending order, so adding is constant time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<OffsetRange>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The set of these ranges, which are sorted and disjoint.
    pub fn of(ranges: &[OffsetRange]) -> Self {
        RangeSet { ranges: ranges.to_vec() }
    }

    /// Adds an offset that is not below any earlier one; adjacent offsets become one range.
    pub fn push(&mut self, offset: Offset) {
        match self.ranges.last_mut() {
            Some(last) if offset <= last.end => {}
            Some(last) if offset == last.end.next() => last.end = offset,
            _ => self.ranges.push(OffsetRange { start: offset, end: offset }),
        }
    }

    /// The ranges in order.
    pub fn ranges(&self) -> &[OffsetRange] {
        &self.ranges
    }

    /// How many integers the set holds.
    pub fn count(&self) -> Offset {
        total(&self.ranges)
    }

    /// What of `wanted` (sorted, disjoint) the set does not hold.
    pub fn missing_from(&self, wanted: &[OffsetRange]) -> Vec<OffsetRange> {
        let mut missing = Vec::new();
        let mut held = self.ranges.iter().peekable();
        for range in wanted {
            let mut at = range.start;
            loop {
                while held.peek().is_some_and(|h| h.end < at) {
                    held.next();
                }
                match held.peek() {
                    Some(h) if h.start <= range.end => {
                        if h.start > at {
                            missing.push(OffsetRange { start: at, end: h.start.previous() });
                        }
                        if h.end >= range.end {
                            break;
                        }
                        at = h.end.next();
                    }
                    _ => {
                        missing.push(OffsetRange { start: at, end: range.end });
                        break;
                    }
                }
            }
        }
        missing
    }
}

/// How many integers disjoint ranges hold together.
pub fn total(ranges: &[OffsetRange]) -> Offset {
    ranges.iter().fold(Offset::default(), |sum, r| sum.plus(r.span()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, end: u64) -> OffsetRange {
        OffsetRange { start: start.into(), end: end.into() }
    }

    proptest! {
        #[test]
        fn missing_is_exactly_the_complement(held in proptest::collection::btree_set(0u64..60, 0..40), cuts in proptest::collection::btree_set(0u64..60, 0..8)) {
            let mut set = RangeSet::new();
            for offset in &held {
                set.push((*offset).into());
                set.push((*offset).into());
            }
            let cuts: Vec<u64> = cuts.into_iter().collect();
            let wanted: Vec<OffsetRange> = cuts.chunks_exact(2).map(|c| range(c[0], c[1])).collect();
            let missing = set.missing_from(&wanted);
            for offset in 0..60u64 {
                let inside = |ranges: &[OffsetRange]| ranges.iter().any(|r| r.contains(offset.into()));
                prop_assert_eq!(inside(&missing), inside(&wanted) && !held.contains(&offset));
            }
            prop_assert_eq!(set.count(), Offset::from(held.len() as u64));
            prop_assert!(missing.windows(2).all(|w| w[0].end < w[1].start));
        }
    }

    #[test]
    fn a_gap_across_sparse_space_is_one_range() {
        let mut set = RangeSet::new();
        let far = Offset::parse("49590338271490256608559692538361571095921575989136588898").unwrap();
        set.push(far);
        let wanted = [OffsetRange { start: far.previous(), end: far.next() }];
        assert_eq!(set.missing_from(&wanted).len(), 2);
    }
}
