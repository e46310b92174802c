use bnum::cast::As;
use bnum::types::{I1024, I4096};
use proptest::prelude::*;
use proptest::sample::select;

use super::super::float_sum::oracle::{fixed, nearest};
use super::additive::{Additive, Part};
use super::late::{AsArrived, Choice, Chosen, Places};
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
                .filter(|&j| i128::from(ts[j]) > i128::from(ts[e]) - i128::from(w.duration_us))
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
    (step, any::<i128>(), prop::bool::weighted(0.8), prop::bool::weighted(0.7), 0..4_u32, late)
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
            agrees(&shard, &Window { agg, column, mask, duration_us, decimal: Some(decimal), arrival })?;
        }
    }

    #[test]
    fn previous_row_is_the_nearest_that_the_mask_lets_through(shard in any_shard(), masked: bool, arriving: bool) {
        measures_from_the_previous(&shard, masked, arriving)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

    #[test]
    fn long_keys_of_many_lanes_see_what_had_arrived(
        shard in long_shard(),
        kind in 0..5_usize,
        duration_us in select(vec![1, 8, 60, 300, i64::MAX]),
        masked: bool,
    ) {
        let mask = masked.then_some(&shard.mask[..]);
        let arrivals = shard.arrivals();
        let column = Column { values: shard.values(kind), valid: Some(&shard.valid) };
        for agg in ALL {
            let w = Window { agg, column: Some(column), mask, duration_us, decimal: Some((38, 2)), arrival: Some(&arrivals) };
            agrees(&shard, &w)?;
        }
        measures_from_the_previous(&shard, masked, true)?;
    }
}

/// Keys of very many rows over many lanes: some arrive early or late, or all in reverse, or every other after all else.
fn long_shard() -> impl Strategy<Value = Shard> {
    let late = select(vec![0, 0, 0, 0, 0, 1, 3, 40, 200, -25]);
    let row = (any_row(), 0..6_u32, late).prop_map(|(row, lane, late)| Row { lane, late, ..row });
    let key = (Just(0), prop::collection::vec(row, 60..140));
    (prop::collection::vec(key, 1..3), 0..4_u8, 0..3_u8).prop_map(|(keys, style, order)| {
        let mut shard = Shard::new(&keys, style);
        let rows = shard.late.len() as i64;
        for (late, row) in shard.late.iter_mut().zip(0..) {
            *late = match order {
                0 => *late,
                1 => -2 * row,
                _ => rows * (row % 2),
            };
        }
        shard
    })
}

fn agrees(shard: &Shard, w: &Window<'_>) -> Result<(), TestCaseError> {
    let got = aggregate(&shard.groups, &shard.ts, w).map(cells);
    let want = naive(&shard.groups, &shard.ts, w);
    // Whether a type has an aggregate shows without any row.
    if got != Err(WindowError::Unsupported) || !shard.ts.is_empty() {
        prop_assert_eq!(got, want, "{:?}", w);
    }
    Ok(())
}

fn measures_from_the_previous(shard: &Shard, masked: bool, arriving: bool) -> Result<(), TestCaseError> {
    let arrivals = shard.arrivals();
    let arrival = arriving.then_some(&arrivals);
    let mask = masked.then_some(&shard.mask[..]);
    let mut want = vec![Cell::Null; shard.ts.len()];
    for group in &shard.groups {
        for e in group.clone() {
            let previous =
                (group.start..e).rev().find(|&j| mask.is_none_or(|mask| mask[j]) && arrival.is_none_or(|arrivals| !arrivals.later(j, e)));
            if let Some(j) = previous {
                let micros = i128::from(shard.ts[e]) - i128::from(shard.ts[j]);
                want[e] = Cell::Float((micros as f64 / 1e6).to_bits());
            }
        }
    }
    prop_assert_eq!(cells(seconds_since_previous(&shard.groups, &shard.ts, mask, arrival)), want);
    Ok(())
}

/// The last row, and how often two rows were compared to choose it.
struct Comparisons(std::cell::Cell<usize>);

impl Accumulator for Comparisons {
    type Item = i64;

    fn reset(&mut self, _: &Range<usize>) {}
    fn enter(&mut self, _: usize) {}
    fn leave(&mut self, _: usize) {}

    fn result(&mut self) -> Result<Option<i64>, TooLarge> {
        Ok(None)
    }

    fn as_arrived<'a>(&'a self, places: &'a Places) -> impl AsArrived<Item = i64> + 'a {
        Chosen::new(self, places)
    }
}

impl Choice for Comparisons {
    type Item = i64;

    fn better(&self, a: usize, b: usize) -> usize {
        self.0.set(self.0.get() + 1);
        a.max(b)
    }

    fn value(&self, row: usize) -> i64 {
        row as i64
    }
}

thread_local! {
    /// How often a row or a number of rows was put into a [`Counted`] or taken out.
    static ADDITIONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[derive(Clone)]
struct Counted(u64);

impl Counted {
    fn becomes(&mut self, rows: u64) {
        self.0 = rows;
        ADDITIONS.set(ADDITIONS.get() + 1);
    }
}

impl Part for Counted {
    fn zero() -> Self {
        Counted(0)
    }

    fn add(&mut self, other: &Self) {
        self.becomes(self.0 + other.0);
    }

    fn sub(&mut self, other: &Self) {
        self.becomes(self.0 - other.0);
    }
}

/// The number of rows, counting the steps it takes.
struct Counting;

impl Additive for Counting {
    type Item = i64;
    type Part = Counted;

    fn put(&self, part: &mut Counted, _: usize) {
        part.becomes(part.0 + 1);
    }

    fn take(&self, part: &mut Counted, _: usize) {
        part.becomes(part.0 - 1);
    }

    fn finish(&self, part: &Counted) -> Result<Option<i64>, TooLarge> {
        Ok(Some(part.0 as i64))
    }
}

/// A key of so many rows a microsecond apart, of two lanes in turn, of which the first row arrived last of all.
fn one_late(rows: usize) -> (Range<usize>, Vec<i64>, Arrivals) {
    let ts = (0..rows).map(|row| row as i64).collect();
    let mut rank: Vec<u32> = (0..rows).map(|row| row as u32).collect();
    rank[0] = rows as u32;
    let arrivals = Arrivals::new(std::slice::from_ref(&(0..rows)), (0..rows).map(|row| row as u32 % 2).collect(), rank).unwrap();
    (0..rows, ts, arrivals)
}

#[test]
fn a_late_row_does_not_make_every_row_look_at_the_whole_window() {
    const ROWS: usize = 1 << 14;
    for duration in [i128::MAX / 2, 1_000] {
        let (group, ts, arrivals) = one_late(ROWS);
        let rows = Rows { mask: None, valid: None };
        let frames = Frames { groups: std::slice::from_ref(&group), ts: &ts, duration, rows, arrival: Some(&arrivals) };
        let mut counting = Comparisons(std::cell::Cell::new(0));
        let Ok((values, valid)) = frames.sweep(&mut counting) else { panic!("a row is always chosen") };
        assert!(valid.iter().all(|valid| *valid) && values == ts);
        // Entering, leaving and two choices: each at most twice as many as the tree is high.
        assert!(counting.0.get() <= ROWS * 5 * 15, "{}", counting.0.get());
    }
}

#[test]
fn a_late_row_does_not_make_every_row_take_out_the_whole_window() {
    const ROWS: usize = 1 << 14;
    for span in [ROWS, 1_000] {
        let (group, ts, arrivals) = one_late(ROWS);
        let rows = Rows { mask: None, valid: None };
        let frames = Frames { groups: std::slice::from_ref(&group), ts: &ts, duration: span as i128, rows, arrival: Some(&arrivals) };
        ADDITIONS.set(0);
        let Ok((values, _)) = frames.sweep(&mut Moving::new(Counting)) else { panic!("rows are always counted") };
        for (row, seen) in values.into_iter().enumerate() {
            let misses_the_first = row > 0 && row < span && row % 2 == 0;
            assert_eq!(seen, (row + 1).min(span) as i64 - i64::from(misses_the_first), "{row}");
        }
        // Entering and leaving are a total and ten nodes each at most; a result has two ends, each of nine nodes
        // and what stands beside them in a block of 32.
        assert!(ADDITIONS.get() <= ROWS * (2 * 11 + 2 * (9 + 31)), "{}", ADDITIONS.get());
    }
}

#[test]
fn a_gap_is_measured_without_walking_back_over_the_key() {
    // The first two rows alone pass, and the first had not arrived before any other of its lane.
    const ROWS: usize = 400_000;
    let (group, ts, arrivals) = one_late(ROWS);
    let mask: Vec<bool> = (0..ROWS).map(|row| row < 2).collect();
    let got = cells(seconds_since_previous(&[group], &ts, Some(&mask), Some(&arrivals)));
    assert_eq!(got[..4], [Cell::Null, Cell::Float(1e-6_f64.to_bits()), Cell::Float(1e-6_f64.to_bits()), Cell::Float(2e-6_f64.to_bits())]);
    assert!((2..ROWS).all(|row| got[row] == Cell::Float(((row - 1) as f64 / 1e6).to_bits())));
}

/// The aggregate over one group of rows a microsecond apart.
fn run(agg: Agg, values: Values<'_>, rows: usize, frame: i64) -> Result<Vec<Cell>, WindowError> {
    let ts: Vec<i64> = (0..rows).map(|row| i64::try_from(row).unwrap()).collect();
    let w =
        Window { agg, column: Some(Column { values, valid: None }), mask: None, duration_us: frame, decimal: Some((38, 2)), arrival: None };
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
