//! Aggregates that add up: what the rows of two sets come to is the sum of what each set comes to, exactly.
//!
//! That lets a set be taken out of a larger one again, in any order and without a trace.

use std::marker::PhantomData;

use super::accumulator::TooLarge;
use crate::engine::exact::{PowerOfTen, Total};
use crate::engine::float_sum::ExactFloatSum;

/// What a set of rows adds up to.
pub(super) trait Part: Clone {
    /// Of no row.
    fn zero() -> Self;
    /// Forgets all rows.
    fn clear(&mut self) {
        *self = Self::zero();
    }
    /// Joins the rows of another set, which shares none with this one.
    fn add(&mut self, other: &Self);
    /// Takes a subset out.
    fn sub(&mut self, other: &Self);
}

/// What rows add up to, and what is made of that.
pub(super) trait Additive {
    /// What it computes.
    type Item: Copy + Default;
    /// What it is made of.
    type Part: Part;

    /// Adds one row.
    fn put(&self, part: &mut Self::Part, row: usize);
    /// Takes one row out that is in.
    fn take(&self, part: &mut Self::Part, row: usize);
    /// The result over the rows of `part`; `None` is null.
    fn finish(&self, part: &Self::Part) -> Result<Option<Self::Item>, TooLarge>;
}

impl Part for u64 {
    fn zero() -> Self {
        0
    }

    fn add(&mut self, other: &Self) {
        *self += other;
    }

    fn sub(&mut self, other: &Self) {
        *self -= other;
    }
}

impl<T: Total> Part for T {
    fn zero() -> Self {
        T::of(0)
    }

    fn add(&mut self, other: &Self) {
        *self += *other;
    }

    fn sub(&mut self, other: &Self) {
        *self -= *other;
    }
}

impl Part for ExactFloatSum {
    fn zero() -> Self {
        ExactFloatSum::new()
    }

    fn clear(&mut self) {
        ExactFloatSum::clear(self);
    }

    fn add(&mut self, other: &Self) {
        self.add_sum(other);
    }

    fn sub(&mut self, other: &Self) {
        self.sub_sum(other);
    }
}

impl<A: Part, B: Part> Part for (A, B) {
    fn zero() -> Self {
        (A::zero(), B::zero())
    }

    fn clear(&mut self) {
        self.0.clear();
        self.1.clear();
    }

    fn add(&mut self, other: &Self) {
        self.0.add(&other.0);
        self.1.add(&other.1);
    }

    fn sub(&mut self, other: &Self) {
        self.0.sub(&other.0);
        self.1.sub(&other.1);
    }
}

/// The number of rows.
pub(super) struct Count;

impl Additive for Count {
    type Item = i64;
    type Part = u64;

    #[inline]
    fn put(&self, n: &mut u64, _: usize) {
        *n += 1;
    }

    #[inline]
    fn take(&self, n: &mut u64, _: usize) {
        *n -= 1;
    }

    #[inline]
    fn finish(&self, n: &u64) -> Result<Option<i64>, TooLarge> {
        i64::try_from(*n).map(Some).map_err(|_| TooLarge)
    }
}

/// An exact sum of integers and what is made of it, given the sum and the number of rows.
pub(super) struct IntegerSum<'a, V, T, F> {
    values: &'a [V],
    finish: F,
    /// What the sum is held in.
    held_in: PhantomData<T>,
}

impl<'a, V, T: Total, F> IntegerSum<'a, V, T, F> {
    pub(super) fn new(values: &'a [V], finish: F) -> Self {
        Self { values, finish, held_in: PhantomData }
    }
}

impl<V, T, R, F> Additive for IntegerSum<'_, V, T, F>
where
    V: Copy + Into<i128>,
    T: Total,
    R: Copy + Default,
    F: Fn(T, u64) -> Result<R, TooLarge>,
{
    type Item = R;
    type Part = (u64, T);

    #[inline]
    fn put(&self, (n, sum): &mut Self::Part, row: usize) {
        *n += 1;
        *sum += T::of(self.values[row].into());
    }

    #[inline]
    fn take(&self, (n, sum): &mut Self::Part, row: usize) {
        *n -= 1;
        *sum -= T::of(self.values[row].into());
    }

    #[inline]
    fn finish(&self, (n, sum): &Self::Part) -> Result<Option<R>, TooLarge> {
        if *n == 0 {
            return Ok(None);
        }
        (self.finish)(*sum, *n).map(Some)
    }
}

/// An exact sum of doubles and the one rounding of it.
pub(super) struct FloatSum<'a, F> {
    pub(super) values: &'a [f64],
    pub(super) finish: F,
}

impl<F: Fn(&ExactFloatSum, u64) -> f64> Additive for FloatSum<'_, F> {
    type Item = f64;
    type Part = (u64, ExactFloatSum);

    #[inline]
    fn put(&self, (n, sum): &mut Self::Part, row: usize) {
        *n += 1;
        sum.add(self.values[row]);
    }

    #[inline]
    fn take(&self, (n, sum): &mut Self::Part, row: usize) {
        *n -= 1;
        sum.sub(self.values[row]);
    }

    #[inline]
    fn finish(&self, (n, sum): &Self::Part) -> Result<Option<f64>, TooLarge> {
        if *n == 0 {
            return Ok(None);
        }
        let value = (self.finish)(sum, *n);
        if value.is_finite() { Ok(Some(value)) } else { Err(TooLarge) }
    }
}

/// The standard deviation, from the exact sums behind it: the values' and their squares'.
pub(super) struct Spread<'a, V, T> {
    values: &'a [V],
    /// Square of the decimal unit.
    unit: PowerOfTen,
    /// What the sums are held in.
    held_in: PhantomData<T>,
}

impl<'a, V, T: Total> Spread<'a, V, T> {
    pub(super) fn new(values: &'a [V], unit: PowerOfTen) -> Self {
        Self { values, unit, held_in: PhantomData }
    }
}

impl<V: Copy + Into<i128>, T: Total> Additive for Spread<'_, V, T> {
    type Item = f64;
    type Part = (u64, (T, T));

    #[inline]
    fn put(&self, (n, (sum, squares)): &mut Self::Part, row: usize) {
        let value = T::of(self.values[row].into());
        *n += 1;
        *sum += value;
        *squares += value * value;
    }

    #[inline]
    fn take(&self, (n, (sum, squares)): &mut Self::Part, row: usize) {
        let value = T::of(self.values[row].into());
        *n -= 1;
        *sum -= value;
        *squares -= value * value;
    }

    #[inline]
    fn finish(&self, (n, (sum, squares)): &Self::Part) -> Result<Option<f64>, TooLarge> {
        if *n < 2 {
            return Ok(None);
        }
        // The numerator is exact and so never negative: the root cannot be NaN.
        let numerator = T::of(i128::from(*n)) * *squares - *sum * *sum;
        let pairs = u128::from(*n) * u128::from(*n - 1);
        Ok(Some(numerator.over(pairs, self.unit).sqrt()))
    }
}
