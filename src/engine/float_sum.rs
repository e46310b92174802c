//! Exact sums of doubles, with exact retraction.
//!
//! Floating point addition loses what a later subtraction would need: after `1e16 + 1 - 1e16` the
//! one is gone. A sliding window must retract, so its sum is kept as one long fixed-point number
//! that holds every finite double without loss, and is rounded only when it is read.
#![expect(clippy::indexing_slicing, reason = "limb indexes come from an eleven-bit exponent and stay below LIMBS; tests cover both ends")]

use super::exact::round_to_f64;

/// Limbs of 64 bits that the mantissas of all finite doubles can reach: positions 0 to 2098 above
/// `2^-1074`.
const LIMBS: usize = 33;

/// Exponent of the accumulator's lowest bit: the smallest subnormal is `2^-1074`.
const LOWEST: i32 = -1074;

/// An exact sum of finite doubles.
///
/// Limb `i` has the weight `2^(64 i - 1074)` and is held in an `i128`, though each term changes it
/// by less than `2^64`: carries can therefore wait until the sum is read, and up to `2^62`
/// additions and retractions cannot overflow a limb. Reading costs in proportion to the limbs that
/// were touched since the last [`clear`](Self::clear), two or three for ordinary data.
#[derive(Clone, Debug)]
pub struct ExactFloatSum {
    limbs: [i128; LIMBS],
    /// The touched limbs are `low..high`.
    low: usize,
    high: usize,
}

impl Default for ExactFloatSum {
    fn default() -> Self {
        Self::new()
    }
}

impl ExactFloatSum {
    /// The empty sum, zero.
    #[must_use]
    pub fn new() -> Self {
        Self { limbs: [0; LIMBS], low: LIMBS, high: 0 }
    }

    /// Adds a finite `value`, exactly.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.accumulate(value, value.is_sign_negative());
    }

    /// Retracts a finite `value`, exactly: the sum is then what it would be without it.
    #[inline]
    pub fn sub(&mut self, value: f64) {
        self.accumulate(value, value.is_sign_positive());
    }

    /// Adds another sum, exactly. The terms of both count together towards what a limb can hold.
    pub fn add_sum(&mut self, other: &Self) {
        self.join(other, |limb, of_other| *limb += of_other);
    }

    /// Retracts another sum, exactly.
    pub fn sub_sum(&mut self, other: &Self) {
        self.join(other, |limb, of_other| *limb -= of_other);
    }

    fn join(&mut self, other: &Self, change: impl Fn(&mut i128, i128)) {
        if other.low >= other.high {
            return;
        }
        let touched = other.low..other.high;
        self.limbs[touched.clone()].iter_mut().zip(&other.limbs[touched]).for_each(|(limb, of_other)| change(limb, *of_other));
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
    }

    /// Sets the sum to zero.
    pub fn clear(&mut self) {
        if self.low < self.high {
            self.limbs[self.low..self.high].fill(0);
        }
        self.low = LIMBS;
        self.high = 0;
    }

    /// The sum rounded once to the nearest `f64`, ties to even.
    ///
    /// A zero sum is `+0.0`. A sum beyond the range of `f64` is an infinity, which the caller
    /// refuses.
    #[must_use]
    pub fn round(&self) -> f64 {
        let Some(leading) = self.leading() else {
            return 0.0;
        };
        let [first, second, third] = leading.digits;
        let below = leading.below || third != 0;
        leading.signed(round_leading(first, second, below, leading.exponent))
    }

    /// The sum divided by `n`, rounded once: the sum itself is not rounded first and may lie beyond
    /// the range of `f64`.
    ///
    /// A quotient that rounds to zero is `+0.0`. An `n` of zero gives NaN.
    #[must_use]
    pub fn round_mean(&self, n: u64) -> f64 {
        if n == 0 {
            return f64::NAN;
        }
        let Some(leading) = self.leading() else {
            return 0.0;
        };
        // Three digits, the first of them not zero, are at least 2^128 and leave a quotient of more
        // than 64 bits for any n; what lies below them can only be sticky.
        let (first, rest) = divide_step(0, leading.digits[0], n);
        let (second, rest) = divide_step(rest, leading.digits[1], n);
        let (third, rest) = divide_step(rest, leading.digits[2], n);
        let below = leading.below || rest != 0;
        let rounded = if first != 0 {
            round_leading(first, second, below || third != 0, leading.exponent)
        } else {
            round_leading(second, third, below, leading.exponent - 64)
        };
        leading.signed(rounded)
    }

    #[inline]
    fn accumulate(&mut self, value: f64, negative: bool) {
        debug_assert!(value.is_finite(), "only finite values can be summed");
        let bits = value.to_bits();
        let fraction = bits & ((1 << 52) - 1);
        // The sign is dropped by the mask; the field is at most eleven bits.
        let field = ((bits >> 52) & 0x7ff) as usize;
        let (mantissa, position) = match field {
            0 => (fraction, 0),
            _ => (fraction | (1 << 52), field - 1),
        };
        if mantissa == 0 {
            return;
        }
        let limb = position / 64;
        let spread = i128::from(mantissa) << (position % 64);
        let (low, high) = (spread & i128::from(u64::MAX), spread >> 64);
        if negative {
            self.limbs[limb] -= low;
            self.limbs[limb + 1] -= high;
        } else {
            self.limbs[limb] += low;
            self.limbs[limb + 1] += high;
        }
        self.low = self.low.min(limb);
        self.high = self.high.max(limb + 2);
    }

    /// Resolves the carries and finds the leading digits; `None` for a zero sum.
    #[inline]
    fn leading(&self) -> Option<Leading> {
        let limbs = self.limbs.get(self.low..self.high).unwrap_or_default();
        // What the limbs carry out at the top has the sign of the whole.
        let negative = limbs.iter().fold(0, |carry, limb| (limb + carry) >> 64) < 0;
        let mut found = None;
        let (mut carry, mut second, mut third, mut below) = (0, 0, 0, 0);
        // At most 33 limbs: far from the range of an i32.
        let mut exponent = 64 * self.low as i32 + LOWEST;
        for limb in limbs.iter().chain(&[0]) {
            let sum = carry + if negative { -limb } else { *limb };
            let digit = sum as u64; // the low 64 bits, two's complement
            carry = sum >> 64;
            if digit != 0 {
                found = Some(Leading { digits: [digit, second, third], below: below != 0, exponent, negative });
            }
            below |= third;
            (third, second) = (second, digit);
            exponent += 64;
        }
        found
    }
}

/// The absolute value of a sum in base `2^64`, as far as a rounding can see it.
struct Leading {
    /// The most significant digit that is not zero and the two after it.
    digits: [u64; 3],
    /// Whether any later digit is not zero.
    below: bool,
    /// The weight of the first digit is two to this power.
    exponent: i32,
    /// The sign of the sum.
    negative: bool,
}

impl Leading {
    /// Gives a rounded magnitude the sum's sign; zero stays `+0.0`.
    fn signed(&self, rounded: f64) -> f64 {
        if self.negative { 0.0 - rounded } else { rounded }
    }
}

/// One step of schoolbook division: `(rest * 2^64 + digit) / n` and its remainder, for `rest < n`.
fn divide_step(rest: u64, digit: u64, n: u64) -> (u64, u64) {
    let value = (u128::from(rest) << 64) | u128::from(digit);
    let n = u128::from(n);
    // Both fit 64 bits because the rest is below n.
    ((value / n) as u64, (value % n) as u64)
}

/// Rounds a number given by its first digit (not zero, weight `2^exponent`), its second, and
/// whether anything lies below.
fn round_leading(first: u64, second: u64, below: bool, exponent: i32) -> f64 {
    let shift = first.leading_zeros();
    let window = ((u128::from(first) << 64) | u128::from(second)) << shift;
    let sticky = below || window as u64 != 0;
    round_to_f64((window >> 64) as u64, sticky, exponent - shift.cast_signed())
}

/// Rounding by another way than the kernels': integers of 4096 bits and a comparison
/// with the point halfway between the two neighbours.
#[cfg(test)]
pub(super) mod oracle {
    use bnum::cast::As;
    use bnum::types::I4096;

    /// A double times 2^1075, an integer by construction.
    pub(crate) fn fixed(value: f64) -> I4096 {
        let bits = value.abs().to_bits();
        let (field, fraction) = (bits >> 52, bits & ((1 << 52) - 1));
        let integer = match field {
            0 => fraction.as_::<I4096>() << 1,
            _ => ((fraction + (1 << 52)).as_::<I4096>()) << (u32::try_from(field).unwrap()),
        };
        if value < 0.0 { -integer } else { integer }
    }

    /// The double nearest to `num / (den * 2^1075)`, chosen between its two neighbours.
    pub(crate) fn nearest(num: I4096, den: I4096) -> f64 {
        let magnitude = num.abs();
        let floor = magnitude / den;
        let low = match floor.unsigned_abs().bit_width() {
            ..54 => (floor >> 1_u32).as_::<u64>(),
            width @ 54..2100 => {
                let field = width - 53;
                (u64::from(field) << 52) + (floor >> field).as_::<u64>() - (1 << 52)
            }
            _ => f64::MAX.to_bits(),
        };
        let next = if low == f64::MAX.to_bits() { 1_u64.as_::<I4096>() << (1024 + 1075) } else { fixed(f64::from_bits(low + 1)) };
        let below = fixed(f64::from_bits(low));
        assert!(below <= floor && (floor < next || low == f64::MAX.to_bits()));
        let halfway = (below + next) * den;
        let twice = magnitude << 1;
        let up = twice > halfway || (twice == halfway && low % 2 == 1);
        let value = f64::from_bits(low + u64::from(up));
        if num.is_negative() { 0.0 - value } else { value }
    }
}

#[cfg(test)]
mod tests {
    use bnum::cast::As;
    use bnum::types::I4096;
    use proptest::prelude::*;

    use super::oracle::{fixed, nearest};
    use super::*;

    fn sum_of(values: &[f64]) -> ExactFloatSum {
        let mut sum = ExactFloatSum::new();
        for &value in values {
            sum.add(value);
        }
        sum
    }

    fn check(values: &[f64]) {
        let sum = sum_of(values);
        let exact = values.iter().fold(I4096::default(), |sum, &v| sum + fixed(v));
        assert_eq!(sum.round().to_bits(), nearest(exact, 1.as_()).to_bits(), "sum of {values:?}");
        for n in [1_u64, 2, 3, 7, 10, 1 << 40, u64::MAX] {
            let (got, want) = (sum.round_mean(n), nearest(exact, n.as_()));
            assert_eq!(got.to_bits(), want.to_bits(), "mean of {values:?} over {n}");
        }
    }

    #[test]
    fn cancellation_keeps_the_small_terms() {
        assert_eq!(sum_of(&[1e16, 1.0, -1e16]).round(), 1.0);
        assert_eq!(sum_of(&[1e308, 5e-324, -1e308]).round(), 5e-324);
        assert_eq!(sum_of(&[0.1; 10]).round(), 1.0);
    }

    #[test]
    fn zero_is_positive() {
        assert_eq!(ExactFloatSum::new().round().to_bits(), 0);
        assert_eq!(ExactFloatSum::default().round_mean(3).to_bits(), 0);
        assert_eq!(sum_of(&[-0.0, -0.0]).round().to_bits(), 0);
        assert_eq!(sum_of(&[-1.5, 1.5]).round().to_bits(), 0);
        assert_eq!(sum_of(&[-5e-324]).round_mean(3).to_bits(), 0);
        assert!(sum_of(&[1.0]).round_mean(0).is_nan());
    }

    #[test]
    fn beyond_the_range() {
        let sum = sum_of(&[f64::MAX; 1000]);
        assert_eq!(sum.round(), f64::INFINITY);
        assert_eq!(sum.round_mean(1000), f64::MAX);
        assert_eq!(sum_of(&[f64::MIN; 3]).round(), f64::NEG_INFINITY);
        let mut sum = sum_of(&[f64::MAX, f64::MAX]);
        sum.sub(f64::MAX);
        assert_eq!(sum.round(), f64::MAX);
    }

    #[test]
    fn clearing_forgets_everything() {
        let mut sum = sum_of(&[1e308, 1e-308, 7.0]);
        sum.clear();
        sum.clear();
        assert_eq!(sum.round().to_bits(), 0);
        sum.add(2.5);
        assert_eq!(sum.round(), 2.5);
        assert_eq!((sum.low, sum.high), (15, 17));
    }

    #[test]
    fn ties_and_ends() {
        check(&[9_007_199_254_740_992.0, 1.0]);
        check(&[9_007_199_254_740_992.0, 1.0, 5e-324]);
        check(&[9_007_199_254_740_994.0, 1.0]);
        check(&[f64::MAX, f64::MAX.to_bits() as f64]);
        check(&[f64::MAX, 2_f64.powi(970)]);
        check(&[5e-324, 5e-324, f64::MIN_POSITIVE]);
        check(&[f64::MIN, f64::MIN, f64::MIN, 5e-324]);
    }

    fn any_finite() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |v| v.is_finite()),
            (-1e6..1e6),
            prop_oneof![
                Just(0.0),
                Just(-0.0),
                Just(5e-324),
                Just(-5e-324),
                Just(1e308),
                Just(-1e308),
                Just(f64::MAX),
                Just(f64::MIN),
                Just(f64::MIN_POSITIVE),
                Just(1e16),
                Just(1.0),
            ],
            (0..1_u64 << 53).prop_map(f64::from_bits),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

        #[test]
        fn sums_and_means_are_the_nearest_doubles(values in prop::collection::vec(any_finite(), 0..12)) {
            check(&values);
        }

        #[test]
        fn retraction_is_exact(
            stay in prop::collection::vec(any_finite(), 0..6),
            gone in prop::collection::vec(any_finite(), 0..6),
        ) {
            let mut sum = sum_of(&gone);
            stay.iter().for_each(|&v| sum.add(v));
            gone.iter().for_each(|&v| sum.sub(v));
            prop_assert_eq!(sum.round().to_bits(), sum_of(&stay).round().to_bits());
            prop_assert_eq!(sum.round_mean(3).to_bits(), sum_of(&stay).round_mean(3).to_bits());
            sum.add_sum(&sum_of(&gone));
            let both: Vec<f64> = stay.iter().chain(&gone).copied().collect();
            prop_assert_eq!(sum.round().to_bits(), sum_of(&both).round().to_bits());
            sum.sub_sum(&sum_of(&stay));
            prop_assert_eq!(sum.round().to_bits(), sum_of(&gone).round().to_bits());
        }
    }
}
