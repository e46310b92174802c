//! What a window holds while rows enter at its end and leave at its start: exact, so that what has left leaves
//! no trace.

use std::collections::VecDeque;
use std::ops::Range;

use super::Rows;
use super::additive::{Additive, Part};
use super::late::{AsArrived, Choice, Chosen, LateDistinct, Places, Sums};

/// A result that does not fit its type.
pub(super) struct TooLarge;

/// The state of a window that rows enter at its end and leave at its start, in the same order.
pub(super) trait Accumulator {
    /// What it computes.
    type Item: Copy + Default;

    /// Empties the window before the rows of `group`.
    fn reset(&mut self, group: &Range<usize>);
    /// Takes a row in.
    fn enter(&mut self, row: usize);
    /// Retracts the oldest row that entered and has not left.
    fn leave(&mut self, row: usize);
    /// The result over the rows inside; `None` is null.
    fn result(&mut self) -> Result<Option<Self::Item>, TooLarge>;

    /// An empty window of the same kind over a group with late rows.
    fn as_arrived<'a>(&'a self, places: &'a Places) -> impl AsArrived<Item = Self::Item> + 'a;
}

/// What the rows inside add up to.
pub(super) struct Moving<A: Additive> {
    rule: A,
    inside: A::Part,
}

impl<A: Additive> Moving<A> {
    pub(super) fn new(rule: A) -> Self {
        Moving { rule, inside: A::Part::zero() }
    }
}

impl<A: Additive> Accumulator for Moving<A> {
    type Item = A::Item;

    fn reset(&mut self, _: &Range<usize>) {
        self.inside.clear();
    }

    #[inline]
    fn enter(&mut self, row: usize) {
        self.rule.put(&mut self.inside, row);
    }

    #[inline]
    fn leave(&mut self, row: usize) {
        self.rule.take(&mut self.inside, row);
    }

    #[inline]
    fn result(&mut self) -> Result<Option<A::Item>, TooLarge> {
        self.rule.finish(&self.inside)
    }

    fn as_arrived<'a>(&'a self, places: &'a Places) -> impl AsArrived<Item = A::Item> + 'a {
        Sums::new(&self.rule, places)
    }
}

/// The least or greatest value. The queue holds the rows that may still become the result: each
/// strictly better than all that follow it, the current result in front.
pub(super) struct Extreme<'a, V, F> {
    pub(super) values: &'a [V],
    pub(super) queue: VecDeque<usize>,
    /// Whether a later value makes an earlier one irrelevant for good.
    pub(super) displaces: F,
}

impl<V, F> Accumulator for Extreme<'_, V, F>
where
    V: Copy + Default,
    F: Fn(V, V) -> bool,
{
    type Item = V;

    fn reset(&mut self, _: &Range<usize>) {
        self.queue.clear();
    }

    #[inline]
    fn enter(&mut self, row: usize) {
        while let Some(&last) = self.queue.back()
            && (self.displaces)(self.values[row], self.values[last])
        {
            self.queue.pop_back();
        }
        self.queue.push_back(row);
    }

    #[inline]
    fn leave(&mut self, row: usize) {
        if self.queue.front() == Some(&row) {
            self.queue.pop_front();
        }
    }

    #[inline]
    fn result(&mut self) -> Result<Option<V>, TooLarge> {
        Ok(self.queue.front().map(|&row| self.values[row]))
    }

    fn as_arrived<'a>(&'a self, places: &'a Places) -> impl AsArrived<Item = V> + 'a {
        Chosen::new(self, places)
    }
}

impl<V, F> Choice for Extreme<'_, V, F>
where
    V: Copy + Default,
    F: Fn(V, V) -> bool,
{
    type Item = V;

    fn better(&self, a: usize, b: usize) -> usize {
        if (self.displaces)(self.values[b], self.values[a]) { b } else { a }
    }

    fn value(&self, row: usize) -> V {
        self.values[row]
    }
}

/// The value of the first row in the window.
pub(super) struct First<'a, V> {
    pub(super) values: &'a [V],
    pub(super) rows: Rows<'a>,
    pub(super) n: u64,
    /// No row before this one is in the window.
    pub(super) first: usize,
}

impl<V: Copy + Default> Accumulator for First<'_, V> {
    type Item = V;

    fn reset(&mut self, group: &Range<usize>) {
        self.n = 0;
        self.first = group.start;
    }

    #[inline]
    fn enter(&mut self, row: usize) {
        if self.n == 0 {
            self.first = row;
        }
        self.n += 1;
    }

    #[inline]
    fn leave(&mut self, row: usize) {
        self.n -= 1;
        self.first = row + 1;
    }

    #[inline]
    fn result(&mut self) -> Result<Option<V>, TooLarge> {
        if self.n == 0 {
            return Ok(None);
        }
        // Ends at the latest with the last row that entered.
        while !self.rows.take_part(self.first) {
            self.first += 1;
        }
        Ok(Some(self.values[self.first]))
    }

    fn as_arrived<'a>(&'a self, places: &'a Places) -> impl AsArrived<Item = V> + 'a {
        Chosen::new(self, places)
    }
}

impl<V: Copy + Default> Choice for First<'_, V> {
    type Item = V;

    fn better(&self, a: usize, b: usize) -> usize {
        a.min(b)
    }

    fn value(&self, row: usize) -> V {
        self.values[row]
    }
}

/// The value of the last row in the window: as rows leave in the order in which they entered, the
/// last to enter is inside as long as any is.
pub(super) struct Last<'a, V> {
    pub(super) values: &'a [V],
    pub(super) n: u64,
    pub(super) last: usize,
}

impl<V: Copy + Default> Accumulator for Last<'_, V> {
    type Item = V;

    fn reset(&mut self, _: &Range<usize>) {
        self.n = 0;
    }

    #[inline]
    fn enter(&mut self, row: usize) {
        self.n += 1;
        self.last = row;
    }

    #[inline]
    fn leave(&mut self, _: usize) {
        self.n -= 1;
    }

    #[inline]
    fn result(&mut self) -> Result<Option<V>, TooLarge> {
        Ok((self.n > 0).then(|| self.values[self.last]))
    }

    fn as_arrived<'a>(&'a self, places: &'a Places) -> impl AsArrived<Item = V> + 'a {
        Chosen::new(self, places)
    }
}

impl<V: Copy + Default> Choice for Last<'_, V> {
    type Item = V;

    fn better(&self, a: usize, b: usize) -> usize {
        a.max(b)
    }

    fn value(&self, row: usize) -> V {
        self.values[row]
    }
}

/// The number of distinct values, given by dense ids.
pub(super) struct Distinct<'a> {
    pub(super) ids: &'a [u32],
    pub(super) rows: Rows<'a>,
    /// Rows in the window per id.
    pub(super) counts: Vec<u32>,
    pub(super) distinct: i64,
}

impl Accumulator for Distinct<'_> {
    type Item = i64;

    fn reset(&mut self, group: &Range<usize>) {
        // Clearing only the ids of this group keeps many small groups cheap.
        for row in group.clone().filter(|&row| self.rows.take_part(row)) {
            self.counts[self.ids[row] as usize] = 0;
        }
        self.distinct = 0;
    }

    #[inline]
    fn enter(&mut self, row: usize) {
        let count = &mut self.counts[self.ids[row] as usize];
        self.distinct += i64::from(*count == 0);
        *count += 1;
    }

    #[inline]
    fn leave(&mut self, row: usize) {
        let count = &mut self.counts[self.ids[row] as usize];
        *count -= 1;
        self.distinct -= i64::from(*count == 0);
    }

    #[inline]
    fn result(&mut self) -> Result<Option<i64>, TooLarge> {
        Ok(Some(self.distinct))
    }

    fn as_arrived<'a>(&'a self, places: &'a Places) -> impl AsArrived<Item = i64> + 'a {
        LateDistinct::new(self.ids, places)
    }
}
