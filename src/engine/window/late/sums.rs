//! What the rows that had arrived add up to.

use super::{AsArrived, Places};
use crate::engine::window::accumulator::TooLarge;
use crate::engine::window::additive::{Additive, Part};

/// Places that share a node: a node of doubles takes half a kilobyte.
const BLOCK: usize = 32;

/// The sums of the rows inside a window, in a Fenwick tree over blocks of places. What stands before a place is one
/// node per binary digit of its block and the rows inside of its own block.
pub(in crate::engine::window) struct Sums<'a, A: Additive> {
    rule: &'a A,
    places: &'a Places,
    /// Per place, whether its row is inside.
    inside: Vec<bool>,
    all: A::Part,
    /// Node `i - 1` holds the blocks from `i` less its lowest binary digit up to `i`.
    nodes: Vec<A::Part>,
}

impl<'a, A: Additive> Sums<'a, A> {
    pub(in crate::engine::window) fn new(rule: &'a A, places: &'a Places) -> Self {
        let blocks = places.len() / BLOCK;
        Sums { rule, places, inside: vec![false; places.len()], all: A::Part::zero(), nodes: vec![A::Part::zero(); blocks] }
    }

    /// Takes the row at a place in, or out again.
    pub(super) fn set_place(&mut self, place: usize, inside: bool) {
        let row = self.places.row(place);
        let change = |part: &mut A::Part| if inside { self.rule.put(part, row) } else { self.rule.take(part, row) };
        self.inside[place] = inside;
        change(&mut self.all);
        let mut block = place / BLOCK + 1;
        while let Some(node) = self.nodes.get_mut(block - 1) {
            change(node);
            block += 1 << block.trailing_zeros();
        }
    }

    /// The nodes that together hold the blocks before `block`.
    fn before(&self, mut block: usize) -> impl Iterator<Item = &A::Part> {
        std::iter::from_fn(move || {
            let node = &self.nodes[block.checked_sub(1)?];
            block &= block - 1;
            Some(node)
        })
    }

    /// The rows inside that stand before `place` in its own block.
    fn beside(&self, place: usize) -> impl Iterator<Item = usize> {
        (place / BLOCK * BLOCK..place).filter(|&before| self.inside[before]).map(|before| self.places.row(before))
    }
}

impl<A: Additive> AsArrived for Sums<'_, A> {
    type Item = A::Item;

    fn set(&mut self, row: usize, inside: bool) {
        self.set_place(self.places.of(row), inside);
    }

    fn seen_by(&self, row: usize) -> Result<Option<A::Item>, TooLarge> {
        let hidden = self.places.hidden_from(row);
        if hidden.is_empty() {
            return self.rule.finish(&self.all);
        }
        // Each step holds what some set of rows adds up to, so nothing on the way is larger than the bounds of a sum.
        let mut seen = self.all.clone();
        self.before(hidden.end / BLOCK).for_each(|node| seen.sub(node));
        self.beside(hidden.end).for_each(|row| self.rule.take(&mut seen, row));
        self.before(hidden.start / BLOCK).for_each(|node| seen.add(node));
        self.beside(hidden.start).for_each(|row| self.rule.put(&mut seen, row));
        self.rule.finish(&seen)
    }
}
