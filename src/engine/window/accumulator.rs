//! What a window holds while rows enter at its end and leave at its start: exact, so that what has left leaves
//! no trace.

use std::collections::VecDeque;
use std::ops::Range;

use super::Rows;
use crate::engine::exact::{PowerOfTen, Total};
use crate::engine::float_sum::ExactFloatSum;

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

    /// The result as if the rows of `hidden`, which are inside, were not; the window stays as it is.
    fn result_without(&mut self, hidden: &[usize]) -> Result<Option<Self::Item>, TooLarge> {
        // Counts and exact sums do not mind in which order rows come and go.
        hidden.iter().for_each(|row| self.leave(*row));
        let result = self.result();
        hidden.iter().for_each(|row| self.enter(*row));
        result
    }

    /// Whether the result is the value of one row of the window, chosen two by two with [`Accumulator::better`].
    /// Such a row may have displaced others for good, so it cannot be taken out and put back.
    const CHOOSES: bool = false;

    /// The row of two that is chosen: in whatever order and grouping, the last one left has the same value.
    fn better(&self, a: usize, _: usize) -> usize {
        a
    }

    /// The value of the row that was chosen.
    fn chosen(&self, _: usize) -> Option<Self::Item> {
        None
    }
}

/// The number of rows.
pub(super) struct Count {
    pub(super) n: i64,
}

impl Accumulator for Count {
    type Item = i64;

    fn reset(&mut self, _: &Range<usize>) {
        self.n = 0;
    }

    #[inline]
    fn enter(&mut self, _: usize) {
        self.n += 1;
    }

    #[inline]
    fn leave(&mut self, _: usize) {
        self.n -= 1;
    }

    #[inline]
    fn result(&mut self) -> Result<Option<i64>, TooLarge> {
        Ok(Some(self.n))
    }
}

/// An exact sum of integers and what is made of it.
pub(super) struct IntegerSum<'a, V, T, F> {
    pub(super) values: &'a [V],
    pub(super) n: u64,
    pub(super) sum: T,
    pub(super) finish: F,
}

impl<'a, V, T: Total, F> IntegerSum<'a, V, T, F> {
    pub(super) fn new(values: &'a [V], finish: F) -> Self {
        Self { values, n: 0, sum: T::of(0), finish }
    }
}

impl<V, T, R, F> Accumulator for IntegerSum<'_, V, T, F>
where
    V: Copy + Into<i128>,
    T: Total,
    R: Copy + Default,
    F: Fn(T, u64) -> Result<R, TooLarge>,
{
    type Item = R;

    fn reset(&mut self, _: &Range<usize>) {
        self.n = 0;
        self.sum = T::of(0);
    }

    #[inline]
    fn enter(&mut self, row: usize) {
        self.n += 1;
        self.sum += T::of(self.values[row].into());
    }

    #[inline]
    fn leave(&mut self, row: usize) {
        self.n -= 1;
        self.sum -= T::of(self.values[row].into());
    }

    #[inline]
    fn result(&mut self) -> Result<Option<R>, TooLarge> {
        if self.n == 0 {
            return Ok(None);
        }
        (self.finish)(self.sum, self.n).map(Some)
    }
}

/// An exact sum of doubles and the one rounding of it.
pub(super) struct FloatSum<'a, F> {
    pub(super) values: &'a [f64],
    pub(super) n: u64,
    pub(super) sum: ExactFloatSum,
    pub(super) finish: F,
}

impl<'a, F> FloatSum<'a, F> {
    pub(super) fn new(values: &'a [f64], finish: F) -> Self {
        Self { values, n: 0, sum: ExactFloatSum::new(), finish }
    }
}

impl<F: Fn(&ExactFloatSum, u64) -> f64> Accumulator for FloatSum<'_, F> {
    type Item = f64;

    fn reset(&mut self, _: &Range<usize>) {
        self.n = 0;
        self.sum.clear();
    }

    #[inline]
    fn enter(&mut self, row: usize) {
        self.n += 1;
        self.sum.add(self.values[row]);
    }

    #[inline]
    fn leave(&mut self, row: usize) {
        self.n -= 1;
        self.sum.sub(self.values[row]);
    }

    #[inline]
    fn result(&mut self) -> Result<Option<f64>, TooLarge> {
        if self.n == 0 {
            return Ok(None);
        }
        let value = (self.finish)(&self.sum, self.n);
        if value.is_finite() { Ok(Some(value)) } else { Err(TooLarge) }
    }
}

/// The exact sums behind a variance.
pub(super) struct Spread<'a, V, T> {
    pub(super) values: &'a [V],
    pub(super) n: u64,
    pub(super) sum: T,
    pub(super) squares: T,
    /// Square of the decimal unit.
    pub(super) unit: PowerOfTen,
}

impl<'a, V, T: Total> Spread<'a, V, T> {
    pub(super) fn new(values: &'a [V], unit: PowerOfTen) -> Self {
        Self { values, n: 0, sum: T::of(0), squares: T::of(0), unit }
    }
}

impl<V: Copy + Into<i128>, T: Total> Accumulator for Spread<'_, V, T> {
    type Item = f64;

    fn reset(&mut self, _: &Range<usize>) {
        self.n = 0;
        self.sum = T::of(0);
        self.squares = T::of(0);
    }

    #[inline]
    fn enter(&mut self, row: usize) {
        let value = T::of(self.values[row].into());
        self.n += 1;
        self.sum += value;
        self.squares += value * value;
    }

    #[inline]
    fn leave(&mut self, row: usize) {
        let value = T::of(self.values[row].into());
        self.n -= 1;
        self.sum -= value;
        self.squares -= value * value;
    }

    #[inline]
    fn result(&mut self) -> Result<Option<f64>, TooLarge> {
        if self.n < 2 {
            return Ok(None);
        }
        // The numerator is exact and so never negative: the root cannot be NaN.
        let numerator = T::of(i128::from(self.n)) * self.squares - self.sum * self.sum;
        let pairs = u128::from(self.n) * u128::from(self.n - 1);
        Ok(Some(numerator.over(pairs, self.unit).sqrt()))
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

    const CHOOSES: bool = true;

    fn better(&self, a: usize, b: usize) -> usize {
        if (self.displaces)(self.values[b], self.values[a]) { b } else { a }
    }

    fn chosen(&self, row: usize) -> Option<V> {
        Some(self.values[row])
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

    const CHOOSES: bool = true;

    fn better(&self, a: usize, b: usize) -> usize {
        a.min(b)
    }

    fn chosen(&self, row: usize) -> Option<V> {
        Some(self.values[row])
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

    const CHOOSES: bool = true;

    fn better(&self, a: usize, b: usize) -> usize {
        a.max(b)
    }

    fn chosen(&self, row: usize) -> Option<V> {
        Some(self.values[row])
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
}
