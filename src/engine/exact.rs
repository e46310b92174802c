//! Exact integers and the one rounding that turns an exact result into an `f64`.
//!
//! Every aggregate is computed exactly and rounded once, at the very end. Rounding once is what
//! makes a value reproducible: it does not depend on the order in which rows came and went.

use std::ops::{AddAssign, Mul, Sub, SubAssign};

use bnum::cast::As;

/// A 512-bit signed integer.
///
/// Wide enough for every intermediate of a decimal(38) deviation: `n * sum(x^2)` stays below
/// `2^63 * 2^63 * 2^254`, and its divisor `n * (n - 1) * 10^76` below `2^126 * 2^253`.
pub type Wide = bnum::types::I512;

/// An unsigned integer with room for a [`Wide`] magnitude shifted left by [`QUOTIENT_BITS`].
type Room = bnum::Uint<80>;

/// Bits to the left of the binary point that a scaled quotient gets (one more may appear): the 53
/// of a double, a guard bit, and a spare; all that lies below is folded into one sticky bit.
const QUOTIENT_BITS: i32 = 55;

/// Integers below this magnitude are exact as `f64`.
const EXACT_AS_F64: u128 = 1 << 53;

/// Widens an integer. Lossless.
#[must_use]
pub fn wide(value: i128) -> Wide {
    value.as_()
}

/// The exact rational `num / den`, rounded once to the nearest `f64` (ties to even).
///
/// Zero is `+0.0`. A quotient beyond the range of `f64` is an infinity and a `den` that is not
/// positive gives NaN: the caller refuses whatever is not finite.
#[must_use]
pub fn quotient_to_f64(num: Wide, den: Wide) -> f64 {
    if !den.is_positive() {
        return f64::NAN;
    }
    if let (Ok(num), Ok(den)) = (i128::try_from(num), u128::try_from(den)) {
        return ratio_to_f64(num, den);
    }
    let quotient = divide_wide(num.unsigned_abs().as_(), den.unsigned_abs().as_());
    with_sign(quotient, num.is_negative())
}

/// The same as [`quotient_to_f64`] for operands of at most 128 bits, without wide arithmetic for
/// any divisor below `2^73`.
///
/// A `den` of zero gives NaN.
#[must_use]
pub fn ratio_to_f64(num: i128, den: u128) -> f64 {
    let magnitude = num.unsigned_abs();
    if magnitude < EXACT_AS_F64 && den < EXACT_AS_F64 {
        if den == 0 {
            return f64::NAN;
        }
        // Both operands are exact doubles, and IEEE division rounds an exact quotient once. They fit 64 bits, from
        // which a double is made at once.
        return num as i64 as f64 / den as i64 as f64;
    }
    if den == 0 {
        return f64::NAN;
    }
    let quotient = if 128 - den.leading_zeros() <= 128 - QUOTIENT_BITS.unsigned_abs() {
        divide_narrow(magnitude, den)
    } else {
        divide_wide(magnitude.as_(), den.as_())
    };
    with_sign(quotient, num < 0)
}

/// Rounds `(mantissa + tail) * 2^exponent` to the nearest `f64`, ties to even, where the tail is
/// strictly between 0 and 1 if `sticky` is set and zero otherwise.
///
/// Subnormal results are rounded at their own, coarser step. Beyond the range of `f64` the result
/// is infinity. With `sticky` set the mantissa must have at least 54 significant bits, so that the
/// tail lies below the rounding position.
#[must_use]
pub fn round_to_f64(mantissa: u64, sticky: bool, exponent: i32) -> f64 {
    if mantissa == 0 {
        return 0.0;
    }
    let width = 64 - mantissa.leading_zeros().cast_signed();
    debug_assert!(!sticky || width >= 54, "a sticky tail would reach the rounding bit");
    let top = exponent + width - 1;
    if top > 1023 {
        return f64::INFINITY;
    }
    // Weight of the result's last bit: 52 below its first, but never below the subnormal step.
    let last = (top - 52).max(-1074);
    let drop = last - exponent;
    let kept = if drop <= 0 {
        mantissa << drop.unsigned_abs()
    } else if drop > width {
        0 // Below half the smallest subnormal.
    } else {
        round_off(mantissa, drop.unsigned_abs(), sticky)
    };
    // The mantissa's leading bit adds one to the exponent field by itself, and so does a carry out
    // of rounding; a subnormal has no leading bit and keeps a field of zero.
    f64::from_bits(kept + (u64::from((last + 1074).unsigned_abs()) << 52))
}

/// Drops `drop` (1..=64) low bits of `mantissa`, rounding to nearest even.
fn round_off(mantissa: u64, drop: u32, sticky: bool) -> u64 {
    let kept = mantissa.checked_shr(drop).unwrap_or(0);
    let dropped = u128::from(mantissa) & ((1 << drop) - 1);
    let half = 1_u128 << (drop - 1);
    let up = dropped > half || (dropped == half && (sticky || kept & 1 == 1));
    kept + u64::from(up)
}

/// Left shift that brings a quotient of operands of these widths to `QUOTIENT_BITS` bits.
fn scaling(num: u32, den: u32) -> i32 {
    QUOTIENT_BITS - (num.cast_signed() - den.cast_signed())
}

/// `num / den` for a non-zero `den` below `2^73`, so that no shift can leave 128 bits.
fn divide_narrow(num: u128, den: u128) -> f64 {
    let shift = scaling(128 - num.leading_zeros(), 128 - den.leading_zeros());
    let (num, den) = if shift >= 0 {
        // A zero numerator asks for a longer shift than 128 bits have.
        (num.checked_shl(shift.unsigned_abs()).unwrap_or(0), den)
    } else {
        (num, den << shift.unsigned_abs())
    };
    // At most 56 bits by the choice of the shift.
    round_to_f64((num / den) as u64, !num.is_multiple_of(den), -shift)
}

/// `num / den` for a non-zero `den`, both magnitudes of a [`Wide`].
fn divide_wide(num: Room, den: Room) -> f64 {
    if num.is_zero() {
        return 0.0;
    }
    let shift = scaling(num.bit_width(), den.bit_width());
    let (num, den) = if shift >= 0 { (num << shift.unsigned_abs(), den) } else { (num, den << shift.unsigned_abs()) };
    let quotient = num / den;
    round_to_f64(quotient.as_(), quotient * den != num, -shift)
}

/// Gives a magnitude its sign; a zero stays `+0.0`.
fn with_sign(magnitude: f64, negative: bool) -> f64 {
    if negative { 0.0 - magnitude } else { magnitude }
}

/// A power of ten, `10^k` for `k` up to 76, as divisor of a scaled decimal.
#[derive(Clone, Copy, Debug)]
pub struct PowerOfTen {
    narrow: Option<u128>,
    wide: Wide,
}

impl PowerOfTen {
    /// `10^exponent`; `None` above `10^76`, the square of the largest decimal(38) unit.
    #[must_use]
    pub fn new(exponent: u32) -> Option<Self> {
        if exponent > 76 {
            return None;
        }
        Some(Self { narrow: 10_u128.checked_pow(exponent), wide: wide(10).pow(exponent) })
    }

    /// `10^0`, the unit of plain integers.
    #[must_use]
    pub fn one() -> Self {
        Self { narrow: Some(1), wide: wide(1) }
    }
}

/// An exact running total: `i128` where the caller has shown that it cannot overflow, [`Wide`]
/// everywhere else.
pub trait Total: Copy + AddAssign + SubAssign + Sub<Output = Self> + Mul<Output = Self> {
    /// The integer as a total. Lossless.
    fn of(value: i128) -> Self;

    /// The total as `i128`, or `None` if it does not fit.
    fn narrow(self) -> Option<i128>;

    /// `self / (count * unit)` rounded once; see [`quotient_to_f64`]. `count` is positive and
    /// below `2^127`.
    fn over(self, count: u128, unit: PowerOfTen) -> f64;
}

impl Total for i128 {
    #[inline]
    fn of(value: i128) -> Self {
        value
    }

    #[inline]
    fn narrow(self) -> Option<i128> {
        Some(self)
    }

    #[inline]
    fn over(self, count: u128, unit: PowerOfTen) -> f64 {
        match unit.narrow.and_then(|unit| count.checked_mul(unit)) {
            Some(den) => ratio_to_f64(self, den),
            None => wide(self).over(count, unit),
        }
    }
}

impl Total for Wide {
    #[inline]
    fn of(value: i128) -> Self {
        wide(value)
    }

    #[inline]
    fn narrow(self) -> Option<i128> {
        i128::try_from(self).ok()
    }

    fn over(self, count: u128, unit: PowerOfTen) -> f64 {
        quotient_to_f64(self, count.as_::<Wide>() * unit.wide)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ten_to(exponent: u32) -> Wide {
        wide(10).pow(exponent)
    }

    /// The standard library's decimal parser rounds once too, by a different algorithm.
    fn parsed(num: i128, exponent: i32) -> f64 {
        format!("{num}e{exponent}").parse::<f64>().unwrap() + 0.0
    }

    #[test]
    fn halves_go_to_even() {
        let two_53 = 1_i128 << 53;
        assert_eq!(ratio_to_f64(two_53 + 1, 1), 9_007_199_254_740_992.0);
        assert_eq!(ratio_to_f64(two_53 + 3, 1), 9_007_199_254_740_996.0);
        assert_eq!(ratio_to_f64(-two_53 - 1, 1), -9_007_199_254_740_992.0);
        // One unit far below the half decides.
        assert_eq!(quotient_to_f64((wide(two_53 + 1) << 200) + wide(1), wide(1) << 200), 9_007_199_254_740_994.0);
        assert_eq!(quotient_to_f64((wide(two_53 + 1) << 200) - wide(1), wide(1) << 200), 9_007_199_254_740_992.0);
    }

    #[test]
    fn hard_quotients() {
        assert_eq!(ratio_to_f64(1, 3), 1.0 / 3.0);
        assert_eq!(ratio_to_f64(1, 10), 0.1);
        assert_eq!(ratio_to_f64(i128::MIN, 1), -(2_f64.powi(127)));
        assert_eq!(ratio_to_f64(1, u128::MAX), 2_f64.powi(-128));
        assert_eq!(ratio_to_f64(i128::MAX, u128::MAX), 0.5);
        // Decimals known to sit close to a midpoint between two doubles.
        for (num, exponent) in [
            (9_214_843_084_008_499, 0),
            (8_511_030_020_275_656, -6),
            (6_929_001_713_869_936, 23),
            (5_592_117_679_628_511, -17),
            (7_205_759_403_792_793_199_999_i128, -5),
            (9_007_199_254_740_993_000_000_i128, -6),
        ] {
            let power = ten_to(i32::unsigned_abs(exponent));
            let got = if exponent >= 0 { quotient_to_f64(wide(num) * power, wide(1)) } else { quotient_to_f64(wide(num), power) };
            assert_eq!(got, parsed(num, exponent), "{num}e{exponent}");
        }
    }

    #[test]
    fn zero_and_bad_divisors() {
        assert!(quotient_to_f64(wide(0), ten_to(70)).is_sign_positive());
        assert_eq!(quotient_to_f64(wide(0), ten_to(70)), 0.0);
        assert_eq!(ratio_to_f64(0, 1 << 60).to_bits(), 0);
        assert_eq!(ratio_to_f64(0, u128::MAX).to_bits(), 0);
        assert!(ratio_to_f64(1, 0).is_nan());
        assert!(ratio_to_f64(i128::MAX, 0).is_nan());
        assert!(quotient_to_f64(wide(1), wide(0)).is_nan());
        assert!(quotient_to_f64(wide(1), wide(-1)).is_nan());
    }

    #[test]
    fn extremes_of_the_wide_type() {
        assert_eq!(quotient_to_f64(Wide::MIN, wide(1)), -(2_f64.powi(511)));
        assert_eq!(quotient_to_f64(Wide::MAX, Wide::MAX), 1.0);
        assert_eq!(quotient_to_f64(wide(1), Wide::MAX), 2_f64.powi(-511));
        assert_eq!(quotient_to_f64(Wide::MIN, Wide::MAX), -1.0);
    }

    #[test]
    fn rounding_at_the_ends_of_the_range() {
        assert_eq!(round_to_f64(1, false, -1074).to_bits(), 1);
        assert_eq!(round_to_f64(1, false, -1075), 0.0); // a tie, to even
        assert_eq!(round_to_f64(3, false, -1075).to_bits(), 2);
        assert_eq!(round_to_f64((1 << 63) + 1, false, -1075 - 63).to_bits(), 1);
        assert_eq!(round_to_f64(1 << 63, true, -1075 - 63).to_bits(), 1);
        assert_eq!(round_to_f64(u64::MAX, false, -1075 - 63).to_bits(), 1);
        assert_eq!(round_to_f64(u64::MAX, true, -1075 - 64), 0.0);
        assert_eq!(round_to_f64(u64::MAX, true, -1076 - 64), 0.0);
        assert_eq!(round_to_f64(u64::MAX, true, -3000), 0.0);
        // The largest subnormal, one step more, and rounding up into the normals.
        assert_eq!(round_to_f64((1 << 52) - 1, false, -1074).to_bits(), (1 << 52) - 1);
        assert_eq!(round_to_f64(1 << 52, false, -1074), f64::MIN_POSITIVE);
        assert_eq!(round_to_f64((1 << 53) - 1, false, -1075), f64::MIN_POSITIVE);
        assert_eq!(round_to_f64((1 << 53) - 1, false, 971), f64::MAX);
        assert_eq!(round_to_f64((1 << 54) - 1, false, 970), f64::INFINITY);
        assert_eq!(round_to_f64((1 << 54) - 2, false, 970), f64::MAX);
        assert_eq!(round_to_f64(1, false, 1024), f64::INFINITY);
    }

    #[test]
    fn powers_of_ten_end_at_76() {
        assert!(PowerOfTen::new(76).is_some());
        assert!(PowerOfTen::new(77).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..Default::default() })]

        #[test]
        fn decimals_agree_with_the_parser(num: i128, drop in 0_u32..127, exponent in 0_u32..77) {
            let num = num >> drop;
            let want = parsed(num, -exponent.cast_signed());
            let unit = PowerOfTen::new(exponent).unwrap();
            prop_assert_eq!(quotient_to_f64(wide(num), ten_to(exponent)).to_bits(), want.to_bits());
            prop_assert_eq!(num.over(1, unit).to_bits(), want.to_bits());
            if let Ok(den) = u128::try_from(ten_to(exponent)) {
                prop_assert_eq!(ratio_to_f64(num, den).to_bits(), want.to_bits());
            }
            let tall = quotient_to_f64(wide(num) * ten_to(exponent), wide(1));
            prop_assert_eq!(tall.to_bits(), parsed(num, exponent.cast_signed()).to_bits());
        }

        #[test]
        fn narrow_and_wide_division_agree(num: i128, den in 1_u128.., a in 0_u32..127, b in 0_u32..127) {
            let (num, den) = (num >> a, (den >> b).max(1));
            let wide_way = with_sign(divide_wide(num.unsigned_abs().as_(), den.as_()), num < 0);
            prop_assert_eq!(ratio_to_f64(num, den).to_bits(), wide_way.to_bits());
        }
    }
}
