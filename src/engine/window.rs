//! Aggregates over trailing time windows, key by key.
//!
//! The rows of one shard come sorted by key and, inside a key, in canonical order. The window of a
//! row covers the rows of its key that stand at or before it and are younger than the duration:
//! those `j <= e` with `ts[j] > ts[e] - duration`. Both ends only ever move forward, so one pass
//! lets every row enter once and leave once. What leaves is retracted in exact arithmetic only, so
//! a value never depends on the rows that have left. With [`Window::arrival`] a row sees, of its own
//! partition, only what had arrived before it; see [`arrival`].
#![expect(clippy::indexing_slicing, reason = "row numbers come from group ranges that were checked against the length of every column")]

mod accumulator;
mod additive;
pub mod arrival;
mod late;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use self::accumulator::{Accumulator, Distinct, Extreme, First, Last, Moving, TooLarge};
use self::additive::{Count, FloatSum, IntegerSum, Spread};
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
        return frames.sweep(&mut Moving::new(Count)).map(int64);
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
            arrival::previous(arrivals, group, rows, |row, previous| {
                values[row] = ts[row].abs_diff(ts[previous]) as f64 / MICROS_PER_SECOND;
                valid[row] = true;
            });
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
            frames.sweep(&mut Moving::new(IntegerSum::new(values, finish))).map(int64)
        }
        Values::Decimal(values) => {
            let (precision, _) = decimal_type(decimal_of)?;
            let limit = 10_u128.pow(precision);
            let fit = |sum: i128| (sum.unsigned_abs() < limit).then_some(sum).ok_or(TooLarge);
            if narrow_sums(frames, peak(values)) {
                let finish = |sum: i128, _| fit(sum);
                frames.sweep(&mut Moving::new(IntegerSum::new(values, finish)))
            } else {
                let finish = |sum: Wide, _| sum.narrow().ok_or(TooLarge).and_then(fit);
                frames.sweep(&mut Moving::new(IntegerSum::new(values, finish)))
            }
            .map(decimal)
        }
        Values::Float64(values) => {
            let finish = |sum: &ExactFloatSum, _| sum.round();
            frames.sweep(&mut Moving::new(FloatSum { values, finish })).map(float64)
        }
        Values::Rank(_) | Values::Bool(_) => Err(WindowError::Unsupported),
    }
}

fn mean(frames: &Frames<'_>, values: Values<'_>, decimal_of: Option<(u8, u8)>) -> Result<Output, WindowError> {
    match values {
        Values::Int64(values) => {
            let unit = PowerOfTen::one();
            let finish = |sum: i128, n| Ok(sum.over(u128::from(n), unit));
            frames.sweep(&mut Moving::new(IntegerSum::new(values, finish)))
        }
        Values::Decimal(values) => {
            let (_, scale) = decimal_type(decimal_of)?;
            let unit = PowerOfTen::new(scale).ok_or(WindowError::Unsupported)?;
            if narrow_sums(frames, peak(values)) {
                let finish = |sum: i128, n| Ok(sum.over(u128::from(n), unit));
                frames.sweep(&mut Moving::new(IntegerSum::new(values, finish)))
            } else {
                let finish = |sum: Wide, n| Ok(sum.over(u128::from(n), unit));
                frames.sweep(&mut Moving::new(IntegerSum::new(values, finish)))
            }
        }
        Values::Float64(values) => {
            let finish = ExactFloatSum::round_mean;
            frames.sweep(&mut Moving::new(FloatSum { values, finish }))
        }
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
        frames.sweep(&mut Moving::new(Spread::<V, i128>::new(values, unit)))
    } else {
        frames.sweep(&mut Moving::new(Spread::<V, Wide>::new(values, unit)))
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
mod tests;
