//! Windows that know when a row arrived: of its own partition, a row sees only what stood before it.
//!
//! Event time alone lets a late event count in the windows of rows that had arrived before it. Where a
//! group declares `availability: arrival`, the window of a row leaves out the rows of the same lane that
//! stand at higher offsets. Nearly every key's events arrive in the order of their times; then nothing is
//! left out and the plain sweep gives the answer. Only keys with a late event take another way, that of
//! `late`.

use std::collections::HashMap;
use std::ops::Range;

use super::Rows;

/// Where every row of a shard stands in the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrivals {
    pub(super) lane: Vec<u32>,
    /// Grows with the offset inside a lane.
    pub(super) rank: Vec<u32>,
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
    #[cfg(test)]
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

/// The row that each row's gap is measured from: of the rows that passed, the latest that had arrived.
///
/// Of its own lane that is the latest whose rank is not above the row's. A row that passes makes every earlier
/// one of its lane irrelevant that arrived after it, so what is left is sorted by place and by rank.
#[derive(Default)]
struct Previous {
    lanes: HashMap<u32, Vec<(u32, usize)>>,
    /// The latest row of any lane, and the latest of any lane but that one.
    latest: Option<(u32, usize)>,
    other: Option<(u32, usize)>,
}

impl Previous {
    fn pass(&mut self, arrivals: &Arrivals, row: usize) {
        let (lane, rank) = (arrivals.lane[row], arrivals.rank[row]);
        let stairs = self.lanes.entry(lane).or_default();
        while stairs.pop_if(|(last, _)| *last >= rank).is_some() {}
        stairs.push((rank, row));
        if self.latest.is_some_and(|(latest, _)| latest != lane) {
            self.other = self.latest;
        }
        self.latest = Some((lane, row));
    }

    fn before(&self, arrivals: &Arrivals, row: usize) -> Option<usize> {
        let (lane, rank) = (arrivals.lane[row], arrivals.rank[row]);
        let own = self.lanes.get(&lane).and_then(|stairs| {
            let above = stairs.partition_point(|(passed, _)| *passed <= rank);
            above.checked_sub(1).and_then(|at| stairs.get(at)).map(|(_, row)| *row)
        });
        let other = self.latest.filter(|(latest, _)| *latest != lane).or(self.other);
        own.max(other.map(|(_, row)| row))
    }
}

/// For each row of a group, the row before it that it may see and that takes part.
pub(super) fn previous(arrivals: &Arrivals, group: &Range<usize>, rows: Rows<'_>, mut found: impl FnMut(usize, usize)) {
    let mut passed = Previous::default();
    for row in group.clone() {
        if let Some(previous) = passed.before(arrivals, row) {
            found(row, previous);
        }
        if rows.take_part(row) {
            passed.pass(arrivals, row);
        }
    }
}
