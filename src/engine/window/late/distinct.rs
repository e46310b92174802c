//! The number of distinct values among the rows that had arrived.

use std::collections::{BTreeSet, HashMap};

use super::{AsArrived, Places, Sums};
use crate::engine::window::accumulator::TooLarge;
use crate::engine::window::additive::Count;

/// The distinct values inside a window.
///
/// A value that stands in two lanes is seen by every row, as a row misses rows of its own lane only. One that stands
/// in a single lane is missed where its earliest row is: so that row is marked, and of the marks those are counted
/// that can be seen.
pub(in crate::engine::window) struct LateDistinct<'a> {
    ids: &'a [u32],
    places: &'a Places,
    /// The places of the rows inside, per value.
    standing: HashMap<u32, BTreeSet<usize>>,
    /// Values that stand in several lanes.
    seen_by_all: i64,
    marks: Sums<'a, Count>,
}

impl<'a> LateDistinct<'a> {
    pub(in crate::engine::window) fn new(ids: &'a [u32], places: &'a Places) -> Self {
        LateDistinct { ids, places, standing: HashMap::new(), seen_by_all: 0, marks: Sums::new(&Count, places) }
    }
}

/// Where the rows of one value stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stand {
    Nowhere,
    /// In one lane, the earliest at this place.
    Single(usize),
    Several,
}

fn stand(places: &Places, rows: &BTreeSet<usize>) -> Stand {
    match (rows.first(), rows.last()) {
        (Some(&first), Some(&last)) if places.one_lane(first, last) => Stand::Single(first),
        (Some(_), Some(_)) => Stand::Several,
        _ => Stand::Nowhere,
    }
}

impl AsArrived for LateDistinct<'_> {
    type Item = i64;

    fn set(&mut self, row: usize, inside: bool) {
        let place = self.places.of(row);
        let rows = self.standing.entry(self.ids[row]).or_default();
        let before = stand(self.places, rows);
        if inside {
            rows.insert(place);
        } else {
            rows.remove(&place);
        }
        let after = stand(self.places, rows);
        if before == after {
            return;
        }
        if let Stand::Single(earliest) = before {
            self.marks.set_place(earliest, false);
        }
        if let Stand::Single(earliest) = after {
            self.marks.set_place(earliest, true);
        }
        self.seen_by_all += i64::from(after == Stand::Several) - i64::from(before == Stand::Several);
    }

    fn seen_by(&self, row: usize) -> Result<Option<i64>, TooLarge> {
        Ok(self.marks.seen_by(row)?.map(|marks| marks + self.seen_by_all))
    }
}
