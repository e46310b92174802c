//! The row chosen among those that had arrived.

use std::ops::Range;

use super::{AsArrived, Places};
use crate::engine::window::accumulator::TooLarge;

/// An aggregate that is the value of one row of the window, chosen two by two.
pub(in crate::engine::window) trait Choice {
    /// What it computes.
    type Item: Copy + Default;

    /// The row of two that is chosen: in whatever order and grouping, the last one left has the same value.
    fn better(&self, a: usize, b: usize) -> usize;
    /// The value of the row that was chosen.
    fn value(&self, row: usize) -> Self::Item;
}

/// No row.
const NONE: u32 = u32::MAX;

/// The rows inside a window, as the leaves of a tree in the order of their places; each node holds the row chosen
/// among its leaves. The choice among all leaves but a stretch takes as many steps as the tree is high.
pub(in crate::engine::window) struct Chosen<'a, C> {
    rule: &'a C,
    places: &'a Places,
    /// Rows counted from the group's first. The children of `i` are `2 * i` and `2 * i + 1`, the leaves come last.
    nodes: Vec<u32>,
}

impl<'a, C: Choice> Chosen<'a, C> {
    pub(in crate::engine::window) fn new(rule: &'a C, places: &'a Places) -> Self {
        Chosen { rule, places, nodes: vec![NONE; 2 * places.len()] }
    }

    fn better(&self, a: u32, b: u32) -> u32 {
        match (a, b) {
            (NONE, other) | (other, NONE) => other,
            (a, b) => {
                let start = self.places.start;
                (self.rule.better(start + a as usize, start + b as usize) - start) as u32
            }
        }
    }

    /// The row chosen among the leaves of a range.
    fn among(&self, leaves: Range<usize>) -> u32 {
        let (mut from, mut to) = (leaves.start + self.places.len(), leaves.end + self.places.len());
        let mut best = NONE;
        while from < to {
            if from % 2 == 1 {
                best = self.better(best, self.nodes[from]);
                from += 1;
            }
            if to % 2 == 1 {
                to -= 1;
                best = self.better(best, self.nodes[to]);
            }
            (from, to) = (from / 2, to / 2);
        }
        best
    }
}

impl<C: Choice> AsArrived for Chosen<'_, C> {
    type Item = C::Item;

    fn set(&mut self, row: usize, inside: bool) {
        let mut at = self.places.len() + self.places.of(row);
        self.nodes[at] = if inside { (row - self.places.start) as u32 } else { NONE };
        while at > 1 {
            at /= 2;
            self.nodes[at] = self.better(self.nodes[2 * at], self.nodes[2 * at + 1]);
        }
    }

    fn seen_by(&self, row: usize) -> Result<Option<C::Item>, TooLarge> {
        let hidden = self.places.hidden_from(row);
        let chosen = self.better(self.among(0..hidden.start), self.among(hidden.end..self.places.len()));
        Ok((chosen != NONE).then(|| self.rule.value(self.places.start + chosen as usize)))
    }
}
