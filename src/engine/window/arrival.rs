//! Windows that know when a row arrived: of its own partition, a row sees only what stood before it.
//!
//! Event time alone lets a late event count in the windows of rows that had arrived before it. Where a
//! group declares `availability: arrival`, the window of a row leaves out the rows of the same lane that
//! stand at higher offsets. Nearly every key's events arrive in the order of their times; then nothing is
//! left out and the plain sweep gives the answer. Only keys with a late event take the way through here.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::accumulator::{Accumulator, TooLarge};
use super::{Frames, WindowError};

/// Where every row of a shard stands in the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    lane: Vec<u32>,
    /// Grows with the offset inside a lane.
    rank: Vec<u32>,
    /// Per group, whether a row stands after one of its own lane that arrived later.
    disordered: Vec<bool>,
}

impl Arrivals {
    /// The order of arrival of the rows in `groups`: `lane` and `rank` have one entry a row, ranks grow
    /// with the offset inside a lane. Nothing comes back where the inputs do not fit together.
    #[must_use]
    pub fn new(groups: &[Range<usize>], lane: Vec<u32>, rank: Vec<u32>) -> Option<Self> {
        if lane.len() != rank.len() || groups.iter().any(|g| g.start > g.end || g.end > lane.len()) {
            return None;
        }
        let disordered = groups.iter().map(|group| out_of_order(group, &lane, &rank)).collect();
        Some(Arrivals { lane, rank, disordered })
    }

    /// Whether it is of a shard with so many rows and groups.
    pub(super) fn fits(&self, rows: usize, groups: usize) -> bool {
        self.lane.len() == rows && self.disordered.len() == groups
    }

    /// Whether a group holds a late row at all.
    pub(super) fn disordered(&self, group: usize) -> bool {
        self.disordered[group]
    }

    /// Whether `row` had not arrived when `than` did, as far as one lane can tell.
    pub(super) fn later(&self, row: usize, than: usize) -> bool {
        self.lane[row] == self.lane[than] && self.rank[row] > self.rank[than]
    }
}

fn out_of_order(group: &Range<usize>, lane: &[u32], rank: &[u32]) -> bool {
    let mut highest: HashMap<u32, u32> = HashMap::new();
    group.clone().any(|row| {
        let top = highest.entry(lane[row]).or_insert(rank[row]);
        let late = rank[row] < *top;
        *top = (*top).max(rank[row]);
        late
    })
}

/// The rows inside a window, each lane in the order of arrival.
#[derive(Default)]
struct Inside {
    lanes: HashMap<u32, BTreeMap<u32, usize>>,
}

impl Inside {
    fn enter(&mut self, arrivals: &Arrivals, row: usize) {
        self.lanes.entry(arrivals.lane[row]).or_default().insert(arrivals.rank[row], row);
    }

    fn leave(&mut self, arrivals: &Arrivals, row: usize) {
        if let Some(lane) = self.lanes.get_mut(&arrivals.lane[row]) {
            lane.remove(&arrivals.rank[row]);
        }
    }

    /// The rows of the row's own lane that arrived after it.
    fn later_than(&self, arrivals: &Arrivals, row: usize, into: &mut Vec<usize>) {
        into.clear();
        if let Some(after) = arrivals.rank[row].checked_add(1)
            && let Some(lane) = self.lanes.get(&arrivals.lane[row])
        {
            into.extend(lane.range(after..).map(|(_, row)| *row));
        }
    }
}

impl Frames<'_> {
    /// Moves the window over a group that has late rows. What a row may not see is taken out for its
    /// result and put back, which exact arithmetic undoes without a trace.
    pub(super) fn as_arrived<A: Accumulator>(
        &self,
        arrivals: &Arrivals,
        group: &Range<usize>,
        window: &mut A,
        values: &mut [A::Item],
        valid: &mut [bool],
    ) -> Result<(), WindowError> {
        let (mut inside, mut hidden, mut start) = (Inside::default(), Vec::new(), group.start);
        for row in group.clone() {
            if self.rows.take_part(row) {
                window.enter(row);
                inside.enter(arrivals, row);
            }
            let bound = i128::from(self.ts[row]) - self.duration;
            while start <= row && i128::from(self.ts[start]) <= bound {
                if self.rows.take_part(start) {
                    window.leave(start);
                    inside.leave(arrivals, start);
                }
                start += 1;
            }
            inside.later_than(arrivals, row, &mut hidden);
            let result = if hidden.is_empty() {
                window.result()
            } else {
                let seen = |j: usize| self.rows.take_part(j) && !arrivals.later(j, row);
                window.result_without(&hidden, start..row + 1, &seen)
            };
            match result {
                Ok(Some(value)) => {
                    values[row] = value;
                    valid[row] = true;
                }
                Ok(None) => {}
                Err(TooLarge) => return Err(WindowError::Overflow { row }),
            }
        }
        Ok(())
    }
}
