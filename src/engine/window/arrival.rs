//! Windows that know when a row arrived: of its own partition, a row sees only what stood before it.
//!
//! Event time alone lets a late event count in the windows of rows that had arrived before it. Where a
//! group declares `availability: arrival`, the window of a row leaves out the rows of the same lane that
//! stand at higher offsets. Nearly every key's events arrive in the order of their times; then nothing is
//! left out and the plain sweep gives the answer. Only keys with a late event take the way through here: one
//! such event is enough, so nothing here may look at all rows of a window, or of a key, for each of its rows.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::accumulator::{Accumulator, TooLarge};
use super::{Frames, Rows, WindowError};

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

/// No row.
const NONE: u32 = u32::MAX;

/// The rows inside a window of a group, as the leaves of a tree in the order of lane and arrival; each node holds the
/// row chosen among its leaves. What a row may not see is a stretch of leaves, so the choice among all the
/// others takes as many steps as the tree is high.
struct Tree {
    start: usize,
    /// The leaf of each row, and per leaf where its lane ends.
    leaf: Vec<u32>,
    lane_end: Vec<u32>,
    /// Rows counted from the group's first. The children of `i` are `2 * i` and `2 * i + 1`, the leaves come last.
    nodes: Vec<u32>,
}

impl Tree {
    fn new(arrivals: &Arrivals, group: &Range<usize>) -> Option<Self> {
        let rows = u32::try_from(group.len()).ok().filter(|rows| *rows < NONE)?;
        let lane = |row: u32| arrivals.lane[group.start + row as usize];
        let mut order: Vec<u32> = (0..rows).collect();
        order.sort_unstable_by_key(|&row| (lane(row), arrivals.rank[group.start + row as usize], row));
        let (mut leaf, mut lane_end) = (vec![0; order.len()], Vec::with_capacity(order.len()));
        (0..).zip(&order).for_each(|(at, &row)| leaf[row as usize] = at);
        for stretch in order.chunk_by(|&a, &b| lane(a) == lane(b)) {
            let end = (lane_end.len() + stretch.len()) as u32;
            lane_end.resize(end as usize, end);
        }
        Some(Tree { start: group.start, leaf, lane_end, nodes: vec![NONE; 2 * order.len()] })
    }

    fn leaves(&self) -> usize {
        self.leaf.len()
    }

    fn better<A: Accumulator>(&self, window: &A, a: u32, b: u32) -> u32 {
        match (a, b) {
            (NONE, other) | (other, NONE) => other,
            (a, b) => (window.better(self.start + a as usize, self.start + b as usize) - self.start) as u32,
        }
    }

    fn set<A: Accumulator>(&mut self, window: &A, row: usize, inside: bool) {
        let row = row - self.start;
        let mut at = self.leaves() + self.leaf[row] as usize;
        self.nodes[at] = if inside { row as u32 } else { NONE };
        while at > 1 {
            at /= 2;
            self.nodes[at] = self.better(window, self.nodes[2 * at], self.nodes[2 * at + 1]);
        }
    }

    /// The row chosen among the leaves of a range.
    fn among<A: Accumulator>(&self, window: &A, leaves: Range<usize>) -> u32 {
        let (mut from, mut to) = (leaves.start + self.leaves(), leaves.end + self.leaves());
        let mut best = NONE;
        while from < to {
            if from % 2 == 1 {
                best = self.better(window, best, self.nodes[from]);
                from += 1;
            }
            if to % 2 == 1 {
                to -= 1;
                best = self.better(window, best, self.nodes[to]);
            }
            (from, to) = (from / 2, to / 2);
        }
        best
    }

    /// The row chosen among all inside that `row` may see: of its own lane, what arrived no later.
    fn seen_by<A: Accumulator>(&self, window: &A, row: usize) -> Option<usize> {
        let own = self.leaf[row - self.start] as usize;
        let lane_end = self.lane_end[own] as usize;
        let chosen = self.better(window, self.among(window, 0..own + 1), self.among(window, lane_end..self.leaves()));
        (chosen != NONE).then(|| self.start + chosen as usize)
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
        if A::CHOOSES {
            return self.chosen_as_arrived(arrivals, group, window, values, valid);
        }
        let (mut inside, mut hidden, mut start) = (Inside::default(), Vec::new(), group.start);
        for row in group.clone() {
            if self.rows.take_part(row) {
                window.enter(row);
                inside.enter(arrivals, row);
            }
            for row in self.leaving(&mut start, row) {
                window.leave(row);
                inside.leave(arrivals, row);
            }
            inside.later_than(arrivals, row, &mut hidden);
            let result = if hidden.is_empty() { window.result() } else { window.result_without(&hidden) };
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

    /// The same for what is the value of one row.
    fn chosen_as_arrived<A: Accumulator>(
        &self,
        arrivals: &Arrivals,
        group: &Range<usize>,
        window: &A,
        values: &mut [A::Item],
        valid: &mut [bool],
    ) -> Result<(), WindowError> {
        let mut tree = Tree::new(arrivals, group).ok_or(WindowError::Unsupported)?;
        let mut start = group.start;
        for row in group.clone() {
            if self.rows.take_part(row) {
                tree.set(window, row, true);
            }
            for row in self.leaving(&mut start, row) {
                tree.set(window, row, false);
            }
            if let Some(value) = tree.seen_by(window, row).and_then(|chosen| window.chosen(chosen)) {
                values[row] = value;
                valid[row] = true;
            }
        }
        Ok(())
    }

    /// The rows that take part and are too old for the window of `row`; `start` moves past them.
    fn leaving(&self, start: &mut usize, row: usize) -> impl Iterator<Item = usize> {
        let bound = i128::from(self.ts[row]) - self.duration;
        let from = *start;
        while *start <= row && i128::from(self.ts[*start]) <= bound {
            *start += 1;
        }
        (from..*start).filter(|&row| self.rows.take_part(row))
    }
}
