//! Aggregates over trailing time windows, key by key.
//!
//! The rows of one shard come sorted by key and, inside a key, in canonical order. The window of a
//! row covers the rows of its key that stand at or before it and are younger than the duration:
//! those `j <= e` with `ts[j] > ts[e] - duration`. Both ends only ever move forward, so one pass
//! lets every row enter once and leave once. What leaves is retracted in exact arithmetic only, so
//! a value never depends on the rows that have left. With [`Window::arrival`] a row sees, of its own
//! partition, only what had arrived before it; see [`arrival`].
#![expect(clippy::indexing_slicing, reason = "row numbers come from group ranges that were checked against the length of every column")]

pub mod arrival;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use self::arrival::Arrivals;
use super::exact::{PowerOfTen, Total, Wide};
use super::float_sum::ExactFloatSum;

/// Microseconds in a second.
const MICROS_PER_SECOND: f64 = 1e6;

/// Largest precision and scale of a decimal that fits an `i128`.
const MAX_DECIMAL_DIGITS: u8 = 38;

/// The values of a column, one per row; those at null rows are ignored.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// 64-bit integers.
    Int64(&'a [i64]),
    /// Unscaled decimals; the scale is in [`Window::decimal`].
    Decimal(&'a [i128]),
    /// Finite doubles.
    Float64(&'a [f64]),
    /// Order-preserving dictionary ranks of strings, below the size of the dictionary.
    Rank(&'a [u32]),
    /// Booleans.
    Bool(&'a [bool]),
}

/// A column of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Column<'a> {
    /// One value per row.
    pub values: Values<'a>,
    /// Whether a row has a value; `None` if all rows have.
    pub valid: Option<&'a [bool]>,
}

/// What is computed over a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agg {
    /// Rows, or values that are not null; any column or none; zero when empty.
    Count,
    /// Distinct values that are not null; any column; zero when empty.
    CountDistinct,
    /// Exact sum in the column's own type; integers, decimals and doubles.
    Sum,
    /// Exact mean rounded once to a double; integers, decimals and doubles.
    Mean,
    /// Least value; any column but booleans.
    Min,
    /// Greatest value; any column but booleans.
    Max,
    /// Value of the first row in canonical order; any column.
    First,
    /// Value of the last row in canonical order; any column.
    Last,
    /// Sample standard deviation (divisor `n - 1`); integers and decimals.
    Stddev,
}

/// One aggregate over one trailing window.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// What is computed.
    pub agg: Agg,
    /// The column it is computed on; `None` only to count rows.
    pub column: Option<Column<'a>>,
    /// Only rows with `true` take part; `None` if all do. Every row gets a result all the same.
    pub mask: Option<&'a [bool]>,
    /// Length of the window in microseconds.
    pub duration_us: i64,
    /// Precision and scale of a decimal column (each at most 38); the precision bounds a sum.
    pub decimal: Option<(u8, u8)>,
    /// The order of arrival, where rows must not see what arrived after them; `None` for event time.
    pub arrival: Option<&'a Arrivals>,
}

/// One result per row. Where `valid` is false the result is null and the value a default.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// 64-bit integers.
    Int64 {
        /// One value per row.
        values: Vec<i64>,
        /// Whether it is not null.
        valid: Vec<bool>,
    },
    /// Unscaled decimals of the column's scale.
    Decimal {
        /// One value per row.
        values: Vec<i128>,
        /// Whether it is not null.
        valid: Vec<bool>,
    },
    /// Finite doubles, never `-0.0`.
    Float64 {
        /// One value per row.
        values: Vec<f64>,
        /// Whether it is not null.
        valid: Vec<bool>,
    },
    /// Ranks in the column's dictionary.
    Rank {
        /// One value per row.
        values: Vec<u32>,
        /// Whether it is not null.
        valid: Vec<bool>,
    },
    /// Booleans.
    Bool {
        /// One value per row.
        values: Vec<bool>,
        /// Whether it is not null.
        valid: Vec<bool>,
    },
}

/// Why an aggregate has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowError {
    /// The result at `row` (the first such row) does not fit its type.
    Overflow {
        /// Row number in the shard.
        row: usize,
    },
    /// The aggregate is not defined on this column, or the inputs do not fit together.
    Unsupported,
}

/// Computes one aggregate for every row of a shard.
///
/// `groups` are the row ranges of the keys, disjoint, `ts` the event times in microseconds, not decreasing
/// inside a group. Rows outside all groups stay null. Nulls take part in no aggregate but a count
/// of rows. Counts are never null; a deviation is null below two values and every other aggregate
/// is null over an empty window.
///
/// # Errors
///
/// [`WindowError::Overflow`] at the first row whose result does not fit: a sum outside `i64`, the
/// decimal's precision or the doubles. [`WindowError::Unsupported`] for an aggregate the column's
/// type does not have, a missing or impossible decimal type, and slices or groups that do not fit
/// the number of rows.
pub fn aggregate(groups: &[Range<usize>], ts: &[i64], w: &Window<'_>) -> Result<Output, WindowError> {
    if !well_formed(groups, ts.len(), w) {
        return Err(WindowError::Unsupported);
    }
    let frames = Frames {
        groups,
        ts,
        duration: i128::from(w.duration_us),
        rows: Rows { mask: w.mask, valid: w.column.and_then(|column| column.valid) },
        arrival: w.arrival,
    };
    if w.agg == Agg::Count {
        return frames.sweep(&mut Count { n: 0 }).map(int64);
    }
    let values = w.column.ok_or(WindowError::Unsupported)?.values;
    match w.agg {
        Agg::Sum => sum(&frames, values, w.decimal),
        Agg::Mean => mean(&frames, values, w.decimal),
        Agg::Stddev => stddev(&frames, values, w.decimal),
        Agg::Min => extreme::<true>(&frames, values),
        Agg::Max => extreme::<false>(&frames, values),
        Agg::First | Agg::Last => edge(&frames, values, w.agg == Agg::First),
        Agg::CountDistinct | Agg::Count => count_distinct(&frames, values),
    }
}

/// Seconds between each row and the previous row of its key that `mask` lets through, however old;
/// null if there is none.
///
/// The difference is taken in whole microseconds, converted to a double and divided by a million.
/// The row itself need not pass the mask. With `arrival`, rows of the same lane that arrived later are
/// passed over. `groups` must be ranges of `ts`, `mask` as long, and `arrival` of the same groups.
#[must_use]
pub fn seconds_since_previous(groups: &[Range<usize>], ts: &[i64], mask: Option<&[bool]>, arrival: Option<&Arrivals>) -> Output {
    let rows = Rows { mask, valid: None };
    let mut values = vec![0.0; ts.len()];
    let mut valid = vec![false; ts.len()];
    for (at, group) in groups.iter().enumerate() {
        if let Some(arrivals) = arrival.filter(|a| a.disordered(at)) {
            for row in group.clone() {
                let seen = |j: &usize| rows.take_part(*j) && !arrivals.later(*j, row);
                if let Some(previous) = (group.start..row).rev().find(seen) {
                    values[row] = ts[row].abs_diff(ts[previous]) as f64 / MICROS_PER_SECOND;
                    valid[row] = true;
                }
            }
            continue;
        }
        let mut previous = None;
        for row in group.clone() {
            if let Some(previous) = previous {
                // Times do not decrease, so the distance is the difference, and it fits a u64.
                values[row] = ts[row].abs_diff(previous) as f64 / MICROS_PER_SECOND;
                valid[row] = true;
            }
            if rows.take_part(row) {
                previous = Some(ts[row]);
            }
        }
    }
    Output::Float64 { values, valid }
}

/// Whether every slice has one element per row, and every group is a range of rows.
fn well_formed(groups: &[Range<usize>], rows: usize, w: &Window<'_>) -> bool {
    let flags = |flags: Option<&[bool]>| flags.is_none_or(|flags| flags.len() == rows);
    let column = w.column.is_none_or(|column| {
        let len = match column.values {
            Values::Int64(values) => values.len(),
            Values::Decimal(values) => values.len(),
            Values::Float64(values) => values.len(),
            Values::Rank(values) => values.len(),
            Values::Bool(values) => values.len(),
        };
        len == rows && flags(column.valid)
    });
    let ranges = groups.iter().all(|g| g.start <= g.end && g.end <= rows);
    column && flags(w.mask) && ranges && w.arrival.is_none_or(|arrivals| arrivals.fits(rows, groups.len()))
}

/// Which rows take part in a window.
#[derive(Clone, Copy)]
struct Rows<'a> {
    mask: Option<&'a [bool]>,
    valid: Option<&'a [bool]>,
}

impl Rows<'_> {
    #[inline]
    fn take_part(&self, row: usize) -> bool {
        self.mask.is_none_or(|mask| mask[row]) && self.valid.is_none_or(|valid| valid[row])
    }
}

/// A result that does not fit its type.
struct TooLarge;

/// The state of a window that rows enter at its end and leave at its start, in the same order.
trait Accumulator {
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
    /// `frame` spans the window, and `seen` says which of its rows take part and are not hidden.
    fn result_without(
        &mut self,
        hidden: &[usize],
        _frame: Range<usize>,
        _seen: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Self::Item>, TooLarge> {
        // Counts and exact sums do not mind in which order rows come and go.
        hidden.iter().for_each(|row| self.leave(*row));
        let result = self.result();
        hidden.iter().for_each(|row| self.enter(*row));
        result
    }
}

/// The windows of all rows of a shard.
struct Frames<'a> {
    groups: &'a [Range<usize>],
    ts: &'a [i64],
    /// Microseconds.
    duration: i128,
    rows: Rows<'a>,
    arrival: Option<&'a Arrivals>,
}

/// Values and validity, one per row.
type Cells<T> = (Vec<T>, Vec<bool>);

impl Frames<'_> {
    /// Moves the window over every group, reading one result per row.
    fn sweep<A: Accumulator>(&self, window: &mut A) -> Result<Cells<A::Item>, WindowError> {
        let mut values = vec![A::Item::default(); self.ts.len()];
        let mut valid = vec![false; self.ts.len()];
        for (at, group) in self.groups.iter().enumerate() {
            window.reset(group);
            if let Some(arrivals) = self.arrival.filter(|a| a.disordered(at)) {
                self.as_arrived(arrivals, group, window, &mut values, &mut valid)?;
                continue;
            }
            let mut start = group.start;
            for row in group.clone() {
                if self.rows.take_part(row) {
                    window.enter(row);
                }
                // In 128 bits no pair of time and duration can overflow.
                let bound = i128::from(self.ts[row]) - self.duration;
                while start <= row && i128::from(self.ts[start]) <= bound {
                    if self.rows.take_part(start) {
                        window.leave(start);
                    }
                    start += 1;
                }
                match window.result() {
                    Ok(Some(value)) => {
                        values[row] = value;
                        valid[row] = true;
                    }
                    Ok(None) => {}
                    Err(TooLarge) => return Err(WindowError::Overflow { row }),
                }
            }
        }
        Ok((values, valid))
    }

    /// Rows of the largest group: no window holds more.
    fn longest(&self) -> u128 {
        let longest = self.groups.iter().map(Range::len).max();
        longest.unwrap_or(0) as u128
    }
}

fn int64((values, valid): Cells<i64>) -> Output {
    Output::Int64 { values, valid }
}

fn decimal((values, valid): Cells<i128>) -> Output {
    Output::Decimal { values, valid }
}

/// A stored `-0.0` becomes `0.0`: adding zero changes no other value.
fn float64((mut values, valid): Cells<f64>) -> Output {
    for value in &mut values {
        *value += 0.0;
    }
    Output::Float64 { values, valid }
}

/// The number of rows.
struct Count {
    n: i64,
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
struct IntegerSum<'a, V, T, F> {
    values: &'a [V],
    n: u64,
    sum: T,
    finish: F,
}

impl<'a, V, T: Total, F> IntegerSum<'a, V, T, F> {
    fn new(values: &'a [V], finish: F) -> Self {
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
struct FloatSum<'a, F> {
    values: &'a [f64],
    n: u64,
    sum: ExactFloatSum,
    finish: F,
}

impl<'a, F> FloatSum<'a, F> {
    fn new(values: &'a [f64], finish: F) -> Self {
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
struct Spread<'a, V, T> {
    values: &'a [V],
    n: u64,
    sum: T,
    squares: T,
    /// Square of the decimal unit.
    unit: PowerOfTen,
}

impl<'a, V, T: Total> Spread<'a, V, T> {
    fn new(values: &'a [V], unit: PowerOfTen) -> Self {
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
struct Extreme<'a, V, F> {
    values: &'a [V],
    queue: VecDeque<usize>,
    /// Whether a later value makes an earlier one irrelevant for good.
    displaces: F,
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

    /// What a hidden row displaced may be the result again, so the whole window is looked at.
    fn result_without(&mut self, _: &[usize], frame: Range<usize>, seen: &dyn Fn(usize) -> bool) -> Result<Option<V>, TooLarge> {
        let values = frame.filter(|&row| seen(row)).map(|row| self.values[row]);
        Ok(values.reduce(|best, new| if (self.displaces)(new, best) { new } else { best }))
    }
}

/// The value of the first row in the window.
struct First<'a, V> {
    values: &'a [V],
    rows: Rows<'a>,
    n: u64,
    /// No row before this one is in the window.
    first: usize,
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

    fn result_without(&mut self, _: &[usize], mut frame: Range<usize>, seen: &dyn Fn(usize) -> bool) -> Result<Option<V>, TooLarge> {
        Ok(frame.find(|&row| seen(row)).map(|row| self.values[row]))
    }
}

/// The value of the last row in the window: as rows leave in the order in which they entered, the
/// last to enter is inside as long as any is.
struct Last<'a, V> {
    values: &'a [V],
    n: u64,
    last: usize,
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

    fn result_without(&mut self, _: &[usize], frame: Range<usize>, seen: &dyn Fn(usize) -> bool) -> Result<Option<V>, TooLarge> {
        Ok(frame.rev().find(|&row| seen(row)).map(|row| self.values[row]))
    }
}

/// The number of distinct values, given by dense ids.
struct Distinct<'a> {
    ids: &'a [u32],
    rows: Rows<'a>,
    /// Rows in the window per id.
    counts: Vec<u32>,
    distinct: i64,
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

/// Largest magnitude of a column.
fn peak<V: Copy + Into<i128>>(values: &[V]) -> u128 {
    let magnitudes = values.iter().map(|&value| value.into().unsigned_abs());
    magnitudes.max().unwrap_or(0)
}

/// Whether no sum over a window can leave an `i128`.
fn narrow_sums(frames: &Frames<'_>, peak: u128) -> bool {
    let bound = frames.longest().checked_mul(peak);
    bound.is_some_and(|bound| i128::try_from(bound).is_ok())
}

/// Whether no term of a variance can leave an `i128`: neither `n * sum(x^2)` nor `sum(x)^2` exceeds
/// the square of `n * peak`.
fn narrow_spread(frames: &Frames<'_>, peak: u128) -> bool {
    let bound = frames.longest().checked_mul(peak);
    let bound = bound.and_then(|bound| bound.checked_mul(bound));
    bound.is_some_and(|bound| i128::try_from(bound).is_ok())
}

/// The decimal type of a window, refused if there is none or if it cannot be held.
fn decimal_type(decimal: Option<(u8, u8)>) -> Result<(u32, u32), WindowError> {
    match decimal {
        Some((precision, scale)) if precision.max(scale) <= MAX_DECIMAL_DIGITS => Ok((u32::from(precision), u32::from(scale))),
        _ => Err(WindowError::Unsupported),
    }
}

fn sum(frames: &Frames<'_>, values: Values<'_>, decimal_of: Option<(u8, u8)>) -> Result<Output, WindowError> {
    match values {
        Values::Int64(values) => {
            // Fewer than 2^64 terms below 2^63 cannot leave an i128.
            let finish = |sum: i128, _| i64::try_from(sum).map_err(|_| TooLarge);
            frames.sweep(&mut IntegerSum::new(values, finish)).map(int64)
        }
        Values::Decimal(values) => {
            let (precision, _) = decimal_type(decimal_of)?;
            let limit = 10_u128.pow(precision);
            let fit = |sum: i128| (sum.unsigned_abs() < limit).then_some(sum).ok_or(TooLarge);
            if narrow_sums(frames, peak(values)) {
                let finish = |sum: i128, _| fit(sum);
                frames.sweep(&mut IntegerSum::new(values, finish))
            } else {
                let finish = |sum: Wide, _| sum.narrow().ok_or(TooLarge).and_then(fit);
                frames.sweep(&mut IntegerSum::new(values, finish))
            }
            .map(decimal)
        }
        Values::Float64(values) => {
            let finish = |sum: &ExactFloatSum, _| sum.round();
            frames.sweep(&mut FloatSum::new(values, finish)).map(float64)
        }
        Values::Rank(_) | Values::Bool(_) => Err(WindowError::Unsupported),
    }
}

fn mean(frames: &Frames<'_>, values: Values<'_>, decimal_of: Option<(u8, u8)>) -> Result<Output, WindowError> {
    match values {
        Values::Int64(values) => {
            let unit = PowerOfTen::one();
            let finish = |sum: i128, n| Ok(sum.over(u128::from(n), unit));
            frames.sweep(&mut IntegerSum::new(values, finish))
        }
        Values::Decimal(values) => {
            let (_, scale) = decimal_type(decimal_of)?;
            let unit = PowerOfTen::new(scale).ok_or(WindowError::Unsupported)?;
            if narrow_sums(frames, peak(values)) {
                let finish = |sum: i128, n| Ok(sum.over(u128::from(n), unit));
                frames.sweep(&mut IntegerSum::new(values, finish))
            } else {
                let finish = |sum: Wide, n| Ok(sum.over(u128::from(n), unit));
                frames.sweep(&mut IntegerSum::new(values, finish))
            }
        }
        Values::Float64(values) => frames.sweep(&mut FloatSum::new(values, ExactFloatSum::round_mean)),
        Values::Rank(_) | Values::Bool(_) => Err(WindowError::Unsupported),
    }
    .map(float64)
}

fn stddev(frames: &Frames<'_>, values: Values<'_>, decimal_of: Option<(u8, u8)>) -> Result<Output, WindowError> {
    match values {
        Values::Int64(values) => spread(frames, values, PowerOfTen::one()),
        Values::Decimal(values) => {
            let (_, scale) = decimal_type(decimal_of)?;
            let unit = PowerOfTen::new(2 * scale).ok_or(WindowError::Unsupported)?;
            spread(frames, values, unit)
        }
        _ => Err(WindowError::Unsupported),
    }
}

fn spread<V: Copy + Into<i128>>(frames: &Frames<'_>, values: &[V], unit: PowerOfTen) -> Result<Output, WindowError> {
    if narrow_spread(frames, peak(values)) {
        frames.sweep(&mut Spread::<V, i128>::new(values, unit))
    } else {
        frames.sweep(&mut Spread::<V, Wide>::new(values, unit))
    }
    .map(float64)
}

/// The least (`LEAST`) or greatest value.
fn extreme<const LEAST: bool>(frames: &Frames<'_>, values: Values<'_>) -> Result<Output, WindowError> {
    fn run<const LEAST: bool, V: Copy + Default + PartialOrd>(frames: &Frames<'_>, values: &[V]) -> Result<Cells<V>, WindowError> {
        frames.sweep(&mut Extreme {
            values,
            queue: VecDeque::new(),
            displaces: |new: V, old: V| if LEAST { new <= old } else { new >= old },
        })
    }
    match values {
        Values::Int64(values) => run::<LEAST, _>(frames, values).map(int64),
        Values::Decimal(values) => run::<LEAST, _>(frames, values).map(decimal),
        // Finite doubles are ordered by value, and both zeros are one value.
        Values::Float64(values) => run::<LEAST, _>(frames, values).map(float64),
        Values::Rank(values) => run::<LEAST, _>(frames, values).map(|(values, valid)| Output::Rank { values, valid }),
        Values::Bool(_) => Err(WindowError::Unsupported),
    }
}

/// The first or the last value.
fn edge(frames: &Frames<'_>, values: Values<'_>, first: bool) -> Result<Output, WindowError> {
    fn run<V: Copy + Default>(frames: &Frames<'_>, values: &[V], first: bool) -> Result<Cells<V>, WindowError> {
        if first {
            frames.sweep(&mut First { values, rows: frames.rows, n: 0, first: 0 })
        } else {
            frames.sweep(&mut Last { values, n: 0, last: 0 })
        }
    }
    match values {
        Values::Int64(values) => run(frames, values, first).map(int64),
        Values::Decimal(values) => run(frames, values, first).map(decimal),
        Values::Float64(values) => run(frames, values, first).map(float64),
        Values::Rank(values) => run(frames, values, first).map(|(values, valid)| Output::Rank { values, valid }),
        Values::Bool(values) => run(frames, values, first).map(|(values, valid)| Output::Bool { values, valid }),
    }
}

fn count_distinct(frames: &Frames<'_>, values: Values<'_>) -> Result<Output, WindowError> {
    let ids = match values {
        Values::Int64(values) => Cow::Owned(dense_ids(frames, values, |value| value)?),
        Values::Decimal(values) => Cow::Owned(dense_ids(frames, values, |value| value)?),
        // Equal doubles have equal bits once `-0.0` is gone.
        Values::Float64(values) => Cow::Owned(dense_ids(frames, values, |value| (value + 0.0).to_bits())?),
        Values::Rank(values) => Cow::Borrowed(values),
        Values::Bool(values) => Cow::Owned(values.iter().copied().map(u32::from).collect()),
    };
    // The id of a null row may be anything.
    let counted = (0..ids.len()).filter(|&row| frames.rows.take_part(row));
    let largest = counted.map(|row| ids[row]).max().unwrap_or(0);
    frames.sweep(&mut Distinct { ids: &ids, rows: frames.rows, counts: vec![0; largest as usize + 1], distinct: 0 }).map(int64)
}

/// Numbers the distinct values of every group from zero. A number means nothing beyond its group,
/// which keeps both the sorting and the counters inside the cache.
fn dense_ids<V: Copy, K: Ord>(frames: &Frames<'_>, values: &[V], key: impl Fn(V) -> K) -> Result<Vec<u32>, WindowError> {
    u32::try_from(frames.longest()).map_err(|_| WindowError::Unsupported)?;
    let mut ids = vec![0; values.len()];
    let mut sorted = Vec::new();
    for group in frames.groups {
        sorted.clear();
        sorted.extend(group.clone().map(|row| (key(values[row]), row)));
        sorted.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (id, run) in (0..).zip(sorted.chunk_by(|(a, _), (b, _)| a == b)) {
            for &(_, row) in run {
                ids[row] = id;
            }
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use bnum::cast::As;
    use bnum::types::{I1024, I4096};
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::float_sum::oracle::{fixed, nearest};
    use super::*;

    /// One result, doubles by their bits.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Cell {
        Null,
        Int(i64),
        Decimal(i128),
        Float(u64),
        Rank(u32),
        Bool(bool),
    }

    fn big(value: impl Into<i128>) -> I4096 {
        value.into().as_()
    }

    /// The double nearest to `num / den`.
    fn rounded(num: I4096, den: I4096) -> f64 {
        nearest(num << 1075, den)
    }

    fn cells(output: Output) -> Vec<Cell> {
        fn zip<T>(values: Vec<T>, valid: Vec<bool>, cell: impl Fn(T) -> Cell) -> Vec<Cell> {
            let pairs = values.into_iter().zip(valid);
            pairs.map(|(value, valid)| if valid { cell(value) } else { Cell::Null }).collect()
        }
        match output {
            Output::Int64 { values, valid } => zip(values, valid, Cell::Int),
            Output::Decimal { values, valid } => zip(values, valid, Cell::Decimal),
            Output::Float64 { values, valid } => zip(values, valid, |v| Cell::Float(v.to_bits())),
            Output::Rank { values, valid } => zip(values, valid, Cell::Rank),
            Output::Bool { values, valid } => zip(values, valid, Cell::Bool),
        }
    }

    fn cell_at(values: Values<'_>, row: usize) -> Cell {
        match values {
            Values::Int64(values) => Cell::Int(values[row]),
            Values::Decimal(values) => Cell::Decimal(values[row]),
            Values::Float64(values) if values[row] == 0.0 => Cell::Float(0),
            Values::Float64(values) => Cell::Float(values[row].to_bits()),
            Values::Rank(values) => Cell::Rank(values[row]),
            Values::Bool(values) => Cell::Bool(values[row]),
        }
    }

    /// Exact value of a numeric cell, doubles times 2^1075.
    fn exact(cell: Cell) -> Option<I4096> {
        match cell {
            Cell::Int(value) => Some(big(value)),
            Cell::Decimal(value) => Some(big(value)),
            Cell::Float(bits) => Some(fixed(f64::from_bits(bits))),
            Cell::Rank(value) => Some(big(value)),
            Cell::Bool(_) | Cell::Null => None,
        }
    }

    type Answer = Result<Cell, Option<()>>;
    const UNSUPPORTED: Answer = Err(None);
    const TOO_LARGE: Answer = Err(Some(()));

    fn finite(value: f64) -> Answer {
        if value.is_finite() { Ok(Cell::Float(value.to_bits())) } else { TOO_LARGE }
    }

    /// One aggregate of the cells of one window, from the definitions.
    fn answer(w: &Window<'_>, values: Values<'_>, inside: &[Cell]) -> Answer {
        let float = matches!(values, Values::Float64(_));
        let text = matches!(values, Values::Rank(_));
        let boolean = matches!(values, Values::Bool(_));
        let (precision, scale) = match values {
            Values::Decimal(_) => w.decimal.unwrap(),
            _ => (0, 0),
        };
        let unit = big(10).pow(u32::from(scale));
        match w.agg {
            Agg::CountDistinct => {
                let mut seen: Vec<Cell> = Vec::new();
                for cell in inside {
                    if !seen.contains(cell) {
                        seen.push(*cell);
                    }
                }
                return Ok(Cell::Int(seen.len().try_into().unwrap()));
            }
            Agg::First => return Ok(inside.first().copied().unwrap_or(Cell::Null)),
            Agg::Last => return Ok(inside.last().copied().unwrap_or(Cell::Null)),
            Agg::Min | Agg::Max if boolean => return UNSUPPORTED,
            Agg::Sum | Agg::Mean | Agg::Stddev if boolean || text => return UNSUPPORTED,
            Agg::Stddev if float => return UNSUPPORTED,
            _ => {}
        }
        let numbers: Vec<I4096> = inside.iter().map(|&cell| exact(cell).unwrap()).collect();
        let sum = numbers.iter().fold(I4096::default(), |sum, &x| sum + x);
        let n = big(numbers.len() as u64);
        let two = if w.agg == Agg::Stddev { 2 } else { 1 };
        if numbers.len() < two {
            return Ok(Cell::Null);
        }
        match w.agg {
            Agg::Sum if float => finite(nearest(sum, big(1))),
            Agg::Sum if matches!(values, Values::Int64(_)) => i64::try_from(sum).map(Cell::Int).map_err(|_| Some(())),
            Agg::Sum if sum.abs() < big(10).pow(u32::from(precision)) => Ok(Cell::Decimal(sum.as_())),
            Agg::Sum => TOO_LARGE,
            Agg::Mean if float => finite(nearest(sum, n)),
            Agg::Mean => finite(rounded(sum, n * unit)),
            Agg::Stddev => {
                // Sum of squared deviations, each times n.
                let away = numbers.iter().map(|&x| (n * x - sum).as_::<I1024>());
                let spread = away.fold(I1024::default(), |sum, x| sum + x * x);
                let den = n * n * (n - big(1)) * unit * unit;
                finite(rounded(spread.as_(), den).sqrt())
            }
            _ => {
                let mut best = 0;
                for (i, number) in numbers.iter().enumerate() {
                    let better = if w.agg == Agg::Min { *number < numbers[best] } else { *number > numbers[best] };
                    if better {
                        best = i;
                    }
                }
                Ok(inside[best])
            }
        }
    }

    /// All results by looking at every pair of rows.
    fn naive(groups: &[Range<usize>], ts: &[i64], w: &Window<'_>) -> Result<Vec<Cell>, WindowError> {
        let mut results = vec![Cell::Null; ts.len()];
        for group in groups {
            for e in group.clone() {
                let inside: Vec<usize> = (group.start..=e)
                    .filter(|&j| big(ts[j]) > big(ts[e]) - big(w.duration_us))
                    .filter(|&j| w.mask.is_none_or(|mask| mask[j]))
                    .filter(|&j| w.column.and_then(|c| c.valid).is_none_or(|valid| valid[j]))
                    .filter(|&j| w.arrival.is_none_or(|arrivals| !arrivals.later(j, e)))
                    .collect();
                let result = match (w.agg, w.column) {
                    (Agg::Count, _) => Ok(Cell::Int(inside.len().try_into().unwrap())),
                    (_, None) => UNSUPPORTED,
                    (_, Some(column)) => {
                        let inside: Vec<Cell> = inside.iter().map(|&j| cell_at(column.values, j)).collect();
                        answer(w, column.values, &inside)
                    }
                };
                results[e] = result.map_err(|error| match error {
                    Some(()) => WindowError::Overflow { row: e },
                    None => WindowError::Unsupported,
                })?;
            }
        }
        Ok(results)
    }

    #[derive(Clone, Debug)]
    struct Row {
        step: i64,
        raw: i128,
        valid: bool,
        mask: bool,
        lane: u32,
        late: i64,
    }

    /// A shard with columns of every kind.
    #[derive(Debug, Default)]
    struct Shard {
        groups: Vec<Range<usize>>,
        ts: Vec<i64>,
        ints: Vec<i64>,
        decimals: Vec<i128>,
        floats: Vec<f64>,
        ranks: Vec<u32>,
        bools: Vec<bool>,
        valid: Vec<bool>,
        mask: Vec<bool>,
        lanes: Vec<u32>,
        late: Vec<i64>,
    }

    const TEN_38: i128 = 10_i128.pow(38);

    impl Shard {
        /// `style` ranges from small values over ordinary and arbitrary ones to extremes.
        fn new(keys: &[(i64, Vec<Row>)], style: u8) -> Self {
            let mut shard = Self::default();
            for (begin, rows) in keys {
                let start = shard.ts.len();
                let mut now = *begin;
                for row in rows {
                    now = now.saturating_add(row.step);
                    shard.ts.push(now);
                    shard.push(row, style);
                }
                shard.groups.push(start..shard.ts.len());
            }
            shard
        }

        fn push(&mut self, row: &Row, style: u8) {
            let raw = row.raw;
            let pick = usize::try_from(raw.rem_euclid(9)).unwrap();
            let bits = f64::from_bits(raw as u64);
            let (int, decimal, float) = match style {
                0 => (raw as i64 % 4, raw % 4, (raw % 4) as f64 / 8.0),
                1 => (raw as i64 % 1_000_000, raw % 1_000_000, (raw % 1_000_000) as f64 / 100.0),
                2 => (raw as i64 >> (raw.rem_euclid(61)), raw % TEN_38, if bits.is_finite() { bits } else { 1e308 }),
                _ => (
                    [i64::MIN, i64::MAX, 0, -1, 1, i64::MAX, i64::MIN, 1 << 53, 3][pick],
                    [TEN_38 - 1, 1 - TEN_38, 0, 1, -1, i128::MAX, i128::MIN, TEN_38 / 2, 7][pick],
                    [5e-324, -5e-324, 1e308, -1e308, -0.0, 0.0, 1e16, 1.0, f64::MIN_POSITIVE][pick],
                ),
            };
            self.ints.push(int);
            self.decimals.push(decimal);
            self.floats.push(float);
            self.ranks.push(u32::try_from(raw.rem_euclid(7)).unwrap());
            self.bools.push(raw & 1 == 1);
            self.valid.push(row.valid);
            self.mask.push(row.mask);
            self.lanes.push(row.lane);
            self.late.push(row.late);
        }

        /// Rows arrive in their order, but for some that come so many places later.
        fn arrivals(&self) -> Arrivals {
            let mut order: Vec<usize> = (0..self.ts.len()).collect();
            order.sort_by_key(|&row| (row as i64 + self.late[row], row));
            let mut rank = vec![0; order.len()];
            order.iter().enumerate().for_each(|(at, &row)| rank[row] = at as u32);
            Arrivals::new(&self.groups, self.lanes.clone(), rank).unwrap()
        }

        fn values(&self, kind: usize) -> Values<'_> {
            match kind {
                0 => Values::Int64(&self.ints),
                1 => Values::Decimal(&self.decimals),
                2 => Values::Float64(&self.floats),
                3 => Values::Rank(&self.ranks),
                _ => Values::Bool(&self.bools),
            }
        }
    }

    const ALL: [Agg; 9] = [Agg::Count, Agg::CountDistinct, Agg::Sum, Agg::Mean, Agg::Min, Agg::Max, Agg::First, Agg::Last, Agg::Stddev];

    fn any_row() -> impl Strategy<Value = Row> {
        let step = select(vec![0, 0, 1, 1, 2, 5, 20]);
        let late = select(vec![0, 0, 0, 1, 3, 20]);
        (step, any::<i128>(), prop::bool::weighted(0.8), prop::bool::weighted(0.7), 0..2_u32, late)
            .prop_map(|(step, raw, valid, mask, lane, late)| Row { step, raw, valid, mask, lane, late })
    }

    fn any_shard() -> impl Strategy<Value = Shard> {
        let begin = select(vec![0, -7, i64::MIN, i64::MAX - 20]);
        let key = (begin, prop::collection::vec(any_row(), 0..16));
        (prop::collection::vec(key, 1..4), 0..4_u8).prop_map(|(keys, style)| Shard::new(&keys, style))
    }

    fn any_duration() -> impl Strategy<Value = i64> {
        select(vec![1, 1, 2, 3, 5, 8, 20, 100, i64::MAX, 0, -3, i64::MIN])
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

        #[test]
        fn agrees_with_the_definitions(
            shard in any_shard(),
            kind in 0..5_usize,
            duration_us in any_duration(),
            nulls: bool,
            masked: bool,
            arriving: bool,
            decimal in select(vec![(38, 0), (38, 2), (38, 38), (20, 5), (3, 3)]),
        ) {
            let mask = masked.then_some(&shard.mask[..]);
            let valid = nulls.then_some(&shard.valid[..]);
            let arrivals = shard.arrivals();
            let arrival = arriving.then_some(&arrivals);
            let column = Column { values: shard.values(kind), valid };
            let all = ALL.into_iter().map(|agg| (agg, Some(column)));
            let all = all.chain([(Agg::Count, None)]);
            for (agg, column) in all {
                let w = Window { agg, column, mask, duration_us, decimal: Some(decimal), arrival };
                let got = aggregate(&shard.groups, &shard.ts, &w).map(cells);
                let want = naive(&shard.groups, &shard.ts, &w);
                // Whether a type has an aggregate shows without any row.
                if got != Err(WindowError::Unsupported) || !shard.ts.is_empty() {
                    prop_assert_eq!(got, want, "{:?}", w);
                }
            }
        }

        #[test]
        fn previous_row_is_the_nearest_that_the_mask_lets_through(shard in any_shard(), masked: bool, arriving: bool) {
            let arrivals = shard.arrivals();
            let arrival = arriving.then_some(&arrivals);
            let mask = masked.then_some(&shard.mask[..]);
            let mut want = vec![Cell::Null; shard.ts.len()];
            for group in &shard.groups {
                for e in group.clone() {
                    let previous = (group.start..e)
                        .rev()
                        .find(|&j| mask.is_none_or(|mask| mask[j]) && arrival.is_none_or(|arrivals| !arrivals.later(j, e)));
                    if let Some(j) = previous {
                        let micros = i128::from(shard.ts[e]) - i128::from(shard.ts[j]);
                        want[e] = Cell::Float((micros as f64 / 1e6).to_bits());
                    }
                }
            }
            prop_assert_eq!(cells(seconds_since_previous(&shard.groups, &shard.ts, mask, arrival)), want);
        }
    }

    /// The aggregate over one group of rows a microsecond apart.
    fn run(agg: Agg, values: Values<'_>, rows: usize, frame: i64) -> Result<Vec<Cell>, WindowError> {
        let ts: Vec<i64> = (0..rows).map(|row| i64::try_from(row).unwrap()).collect();
        let w = Window {
            agg,
            column: Some(Column { values, valid: None }),
            mask: None,
            duration_us: frame,
            decimal: Some((38, 2)),
            arrival: None,
        };
        aggregate(std::slice::from_ref(&(0..rows)), &ts, &w).map(cells)
    }

    fn floats(values: &[f64]) -> Vec<Cell> {
        values.iter().map(|value| Cell::Float(value.to_bits())).collect()
    }

    #[test]
    fn a_sum_that_does_not_fit_is_refused_at_its_row() {
        let overflow = Err(WindowError::Overflow { row: 2 });
        let values = [0, i64::MAX, i64::MAX];
        assert_eq!(run(Agg::Sum, Values::Int64(&values), 3, 2), overflow);
        assert!(run(Agg::Sum, Values::Int64(&values), 3, 1).is_ok());
        // A total that leaves the range in between is no obstacle.
        let values = [i64::MAX, i64::MIN, i64::MAX];
        assert_eq!(run(Agg::Sum, Values::Int64(&values), 3, 3), Ok(vec![Cell::Int(i64::MAX), Cell::Int(-1), Cell::Int(i64::MAX - 1)]));
        let values = [1, 10_i128.pow(38) - 1, 1];
        assert_eq!(run(Agg::Sum, Values::Decimal(&values), 3, 2), Err(WindowError::Overflow { row: 1 }));
        let values = [1e308, 0.0, 1e308, 1e308];
        assert_eq!(run(Agg::Sum, Values::Float64(&values), 4, 2), Err(WindowError::Overflow { row: 3 }));
        assert!(run(Agg::Mean, Values::Float64(&values), 4, 2).is_ok());
    }

    #[test]
    fn doubles_that_left_leave_nothing_behind() {
        assert_eq!(
            run(Agg::Sum, Values::Float64(&[1e16, 1.0, 1.0, 1.0]), 4, 2),
            Ok(floats(&[1e16, 1e16, 2.0, 2.0])) // 1e16 + 1 is a tie, to even
        );
    }

    #[test]
    fn negative_zero_becomes_zero() {
        for agg in [Agg::Sum, Agg::Mean, Agg::Min, Agg::Max, Agg::First, Agg::Last] {
            let got = run(agg, Values::Float64(&[-0.0, 0.0, -0.0]), 3, 2);
            assert_eq!(got, Ok(floats(&[0.0; 3])), "{agg:?}");
        }
        let distinct = run(Agg::CountDistinct, Values::Float64(&[-0.0, 0.0]), 2, 2);
        assert_eq!(distinct, Ok(vec![Cell::Int(1); 2]));
    }

    #[test]
    fn deviation_of_amounts_is_never_nan() {
        // 0.10, 0.10, 0.10 has no spread; a difference of rounded squares would be negative.
        let values: Vec<i128> = [10; 5].into_iter().chain([1_999, 1_999, 1_999]).collect();
        let got = run(Agg::Stddev, Values::Decimal(&values), 8, 3).unwrap();
        assert_eq!(got[..3], [Cell::Null, Cell::Float(0), Cell::Float(0)]);
        assert_eq!(got[7], Cell::Float(0));
        let mut state = 1_i128;
        let amounts: Vec<i128> = std::iter::repeat_with(|| {
            state = state * 48_271 % 2_147_483_647;
            10_000_000 + state % 3
        })
        .take(2_000)
        .collect();
        for cell in run(Agg::Stddev, Values::Decimal(&amounts), 2_000, 4).unwrap() {
            if let Cell::Float(bits) = cell {
                assert!((0.0..=0.02).contains(&f64::from_bits(bits)));
            }
        }
        // 1, 2, 3, 4: variance 5 / 3.
        let got = run(Agg::Stddev, Values::Int64(&[1, 2, 3, 4]), 4, 4).unwrap();
        assert_eq!(got[3], Cell::Float((5.0_f64 / 3.0).sqrt().to_bits()));
    }

    #[test]
    fn means_round_once_and_halves_to_even() {
        let two_53 = 1_i64 << 53;
        let mean = |values: &[i64]| {
            let got = run(Agg::Mean, Values::Int64(values), values.len(), 10);
            got.unwrap().last().copied()
        };
        let is = |value: f64| Some(Cell::Float(value.to_bits()));
        assert_eq!(mean(&[two_53 + 1]), is(9_007_199_254_740_992.0));
        assert_eq!(mean(&[two_53 + 3]), is(9_007_199_254_740_996.0));
        assert_eq!(mean(&[two_53, two_53 + 2]), is(9_007_199_254_740_992.0));
        assert_eq!(mean(&[two_53 + 2, two_53 + 4]), is(9_007_199_254_740_996.0));
        // A third above the half.
        assert_eq!(mean(&[two_53 + 1, two_53 + 1, two_53 + 2]), is(9_007_199_254_740_994.0));
        assert_eq!(mean(&[1, 0, 0]), is(1.0 / 3.0));
        assert_eq!(mean(&[i64::MIN, i64::MIN]), is(-9_223_372_036_854_775_808.0));
        let got = run(Agg::Mean, Values::Decimal(&[10, 20]), 2, 2);
        assert_eq!(got, Ok(floats(&[0.1, 0.15])));
    }

    #[test]
    fn ties_in_time_are_cut_by_position_at_the_end_only() {
        let ts = [0, 10, 10, 10, 20];
        let w = Window {
            agg: Agg::Count,
            column: None,
            mask: Some(&[true, true, false, true, false]),
            duration_us: 10,
            decimal: None,
            arrival: None,
        };
        let got = aggregate(&[0..2, 2..5], &ts, &w).map(cells);
        assert_eq!(got, Ok([1, 1, 0, 1, 0].map(Cell::Int).to_vec()));
        let got = aggregate(std::slice::from_ref(&(0..5)), &ts, &w).map(cells);
        assert_eq!(got, Ok([1, 1, 1, 2, 0].map(Cell::Int).to_vec()));
    }

    #[test]
    fn what_arrived_later_is_not_seen_and_comes_back_for_others() {
        // Rows 0 and 2 are of lane 0, row 0 arrived last of all; row 1 is of lane 1 and cannot tell.
        let all = 0..3;
        let groups = std::slice::from_ref(&all);
        let arrivals = Arrivals::new(groups, vec![0, 1, 0], vec![9, 1, 2]).unwrap();
        let run = |agg| {
            let column = Some(Column { values: Values::Int64(&[5, 2, 3]), valid: None });
            let w = Window { agg, column, mask: None, duration_us: 10, decimal: None, arrival: Some(&arrivals) };
            aggregate(groups, &[0, 1, 2], &w).map(cells)
        };
        assert_eq!(run(Agg::Count), Ok([1, 2, 2].map(Cell::Int).to_vec()));
        assert_eq!(run(Agg::Sum), Ok([5, 7, 5].map(Cell::Int).to_vec()));
        assert_eq!(run(Agg::Max), Ok([5, 5, 3].map(Cell::Int).to_vec()));
        assert_eq!(run(Agg::First), Ok([5, 5, 2].map(Cell::Int).to_vec()));
        assert!(Arrivals::new(groups, vec![0], vec![1]).is_none());
        let other = Arrivals::new(&[0..1, 0..0], vec![0], vec![1]).unwrap();
        let w = Window { agg: Agg::Count, column: None, mask: None, duration_us: 1, decimal: None, arrival: Some(&other) };
        assert_eq!(aggregate(groups, &[0, 1, 2], &w), Err(WindowError::Unsupported));
    }

    #[test]
    fn null_rows_may_hold_any_rank() {
        let w = Window {
            agg: Agg::CountDistinct,
            column: Some(Column { values: Values::Rank(&[3, u32::MAX, 3, 0]), valid: Some(&[true, false, true, true]) }),
            mask: None,
            duration_us: 5,
            decimal: None,
            arrival: None,
        };
        let got = aggregate(std::slice::from_ref(&(0..4)), &[0, 1, 2, 3], &w).map(cells);
        assert_eq!(got, Ok([1, 1, 1, 2].map(Cell::Int).to_vec()));
    }

    #[test]
    fn what_does_not_fit_together_is_unsupported() {
        let ints = Some(Column { values: Values::Int64(&[1, 2]), valid: None });
        let decimals = Some(Column { values: Values::Decimal(&[1, 2]), valid: None });
        let w = |agg, column, mask, decimal| Window { agg, column, mask, duration_us: 1, decimal, arrival: None };
        let cases = [
            (0..3, w(Agg::Sum, ints, None, None)),
            (0..2, w(Agg::Sum, None, None, None)),
            (0..2, w(Agg::Sum, ints, Some(&[true][..]), None)),
            (0..2, w(Agg::Sum, decimals, None, None)),
            (0..2, w(Agg::Mean, decimals, None, Some((39, 0)))),
            (0..2, w(Agg::Stddev, decimals, None, Some((38, 39)))),
        ];
        for (group, w) in cases {
            let got = aggregate(std::slice::from_ref(&group), &[0, 1], &w);
            assert_eq!(got, Err(WindowError::Unsupported), "{w:?}");
        }
    }

    #[test]
    fn seconds_come_from_whole_microseconds() {
        let ts = [0, 1_500_000, 1_500_000, i64::MAX];
        let got = seconds_since_previous(&[0..3, 3..4], &ts, None, None);
        let mut want = floats(&[0.0, 1.5, 0.0, 0.0]);
        (want[0], want[3]) = (Cell::Null, Cell::Null);
        assert_eq!(cells(got), want);
    }
}
