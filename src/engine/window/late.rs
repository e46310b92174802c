//! The windows of keys that hold a late event.
//!
//! One such event sends all rows of its key through here, so nothing may look at all rows of a window, or of the
//! key, for each of its rows. In the order of lane and arrival, what a row may not see is one stretch: what follows
//! it in its own lane. Each kind of aggregate leaves such a stretch out in steps that grow with the logarithm of
//! the key's rows.

mod chosen;
mod distinct;
mod sums;

use std::ops::Range;

pub(super) use self::chosen::{Choice, Chosen};
pub(super) use self::distinct::LateDistinct;
pub(super) use self::sums::Sums;
use super::accumulator::{Accumulator, TooLarge};
use super::arrival::Arrivals;
use super::{Frames, WindowError};

/// A window over a group with late rows, which rows enter at its end and leave at its start.
pub(super) trait AsArrived {
    /// What it computes.
    type Item: Copy + Default;

    /// Takes a row in, or out again.
    fn set(&mut self, row: usize, inside: bool);
    /// The result over the rows inside that had arrived when `row` did, as far as one lane can tell; `None` is null.
    fn seen_by(&self, row: usize) -> Result<Option<Self::Item>, TooLarge>;
}

/// The rows of a group in the order of lane and arrival. A place in that order is counted from zero.
pub(super) struct Places {
    /// The group's first row.
    start: usize,
    /// The place of each row, and the row (counted from the first) at each place.
    place: Vec<u32>,
    row: Vec<u32>,
    /// Per place, where its lane ends.
    lane_end: Vec<u32>,
}

impl Places {
    /// Nothing comes back for more rows than are numbered in 32 bits.
    pub(super) fn new(arrivals: &Arrivals, group: &Range<usize>) -> Option<Self> {
        let rows = u32::try_from(group.len()).ok().filter(|rows| *rows < u32::MAX)?;
        let lane = |row: u32| arrivals.lane[group.start + row as usize];
        let mut order: Vec<u32> = (0..rows).collect();
        order.sort_unstable_by_key(|&row| (lane(row), arrivals.rank[group.start + row as usize], row));
        let (mut place, mut lane_end) = (vec![0; order.len()], Vec::with_capacity(order.len()));
        (0..).zip(&order).for_each(|(at, &row)| place[row as usize] = at);
        for stretch in order.chunk_by(|&a, &b| lane(a) == lane(b)) {
            let end = (lane_end.len() + stretch.len()) as u32;
            lane_end.resize(end as usize, end);
        }
        Some(Places { start: group.start, place, row: order, lane_end })
    }

    fn len(&self) -> usize {
        self.row.len()
    }

    fn of(&self, row: usize) -> usize {
        self.place[row - self.start] as usize
    }

    fn row(&self, place: usize) -> usize {
        self.start + self.row[place] as usize
    }

    fn one_lane(&self, a: usize, b: usize) -> bool {
        self.lane_end[a] == self.lane_end[b]
    }

    /// The places of the rows that arrived after `row` in its own lane.
    fn hidden_from(&self, row: usize) -> Range<usize> {
        let own = self.of(row);
        own + 1..self.lane_end[own] as usize
    }
}

impl Frames<'_> {
    /// Moves the window over a group that has late rows.
    pub(super) fn as_arrived<A: Accumulator>(
        &self,
        arrivals: &Arrivals,
        group: &Range<usize>,
        window: &A,
        values: &mut [A::Item],
        valid: &mut [bool],
    ) -> Result<(), WindowError> {
        let places = Places::new(arrivals, group).ok_or(WindowError::Unsupported)?;
        let mut window = window.as_arrived(&places);
        let mut start = group.start;
        for row in group.clone() {
            if self.rows.take_part(row) {
                window.set(row, true);
            }
            let bound = i128::from(self.ts[row]) - self.duration;
            while start <= row && i128::from(self.ts[start]) <= bound {
                if self.rows.take_part(start) {
                    window.set(start, false);
                }
                start += 1;
            }
            match window.seen_by(row) {
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
