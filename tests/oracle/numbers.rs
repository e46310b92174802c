//! Whole numbers of any size and the nearest double of a quotient, as plainly as they can be written.

use std::cmp::Ordering;

/// A whole number: sign and magnitude, least limb first, no leading zero limbs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Big {
    negative: bool,
    limbs: Vec<u32>,
}

fn trimmed(mut limbs: Vec<u32>) -> Vec<u32> {
    while limbs.last() == Some(&0) {
        limbs.pop();
    }
    limbs
}

fn compare(a: &[u32], b: &[u32]) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.iter().rev().cmp(b.iter().rev()))
}

fn sum(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut out = Vec::new();
    let mut carry = 0u64;
    for i in 0..a.len().max(b.len()) {
        carry += u64::from(a.get(i).copied().unwrap_or(0)) + u64::from(b.get(i).copied().unwrap_or(0));
        out.push(carry as u32);
        carry >>= 32;
    }
    out.push(carry as u32);
    trimmed(out)
}

/// `a - b`, where `a` is not the smaller.
fn difference(a: &[u32], b: &[u32]) -> Vec<u32> {
    let mut out = Vec::new();
    let mut borrow = 0i64;
    for (i, limb) in a.iter().enumerate() {
        let mut digit = i64::from(*limb) - i64::from(b.get(i).copied().unwrap_or(0)) - borrow;
        borrow = i64::from(digit < 0);
        if digit < 0 {
            digit += 1 << 32;
        }
        out.push(digit as u32);
    }
    trimmed(out)
}

impl Big {
    pub(super) fn of(n: i128) -> Self {
        let magnitude = n.unsigned_abs();
        let limbs = (0..4).map(|i| (magnitude >> (32 * i)) as u32).collect();
        Big { negative: n < 0, limbs: trimmed(limbs) }
    }

    /// From decimal digits.
    pub(super) fn digits(text: &str) -> Self {
        text.bytes().fold(Big::default(), |n, digit| n.times(&Big::of(10)).plus(&Big::of(i128::from(digit - b'0'))))
    }

    pub(super) fn negated(mut self) -> Self {
        self.negative = !self.negative && !self.limbs.is_empty();
        self
    }

    pub(super) fn plus(&self, other: &Big) -> Big {
        let (limbs, negative) = if self.negative == other.negative {
            (sum(&self.limbs, &other.limbs), self.negative)
        } else if compare(&self.limbs, &other.limbs) == Ordering::Less {
            (difference(&other.limbs, &self.limbs), other.negative)
        } else {
            (difference(&self.limbs, &other.limbs), self.negative)
        };
        Big { negative: negative && !limbs.is_empty(), limbs }
    }

    pub(super) fn times(&self, other: &Big) -> Big {
        let mut out = vec![0u32; self.limbs.len() + other.limbs.len() + 1];
        for (i, a) in self.limbs.iter().enumerate() {
            let mut carry = 0u64;
            for (j, b) in other.limbs.iter().enumerate() {
                carry += u64::from(out[i + j]) + u64::from(*a) * u64::from(*b);
                out[i + j] = carry as u32;
                carry >>= 32;
            }
            out[i + other.limbs.len()] = carry as u32;
        }
        let limbs = trimmed(out);
        Big { negative: self.negative != other.negative && !limbs.is_empty(), limbs }
    }

    pub(super) fn shifted(&self, bits: u32) -> Big {
        let mut limbs = vec![0; (bits / 32) as usize];
        limbs.extend(&self.limbs);
        Big { negative: self.negative, limbs: trimmed(limbs) }.times(&Big::of(1 << (bits % 32)))
    }

    pub(super) fn power_of_ten(n: u32) -> Big {
        (0..n).fold(Big::of(1), |p, _| p.times(&Big::of(10)))
    }

    pub(super) fn magnitude_below(&self, other: &Big) -> bool {
        compare(&self.limbs, &other.limbs) == Ordering::Less
    }

    pub(super) fn to_i128(&self) -> Option<i128> {
        if self.limbs.len() > 4 {
            return None;
        }
        let magnitude = self.limbs.iter().rev().fold(0u128, |n, limb| n << 32 | u128::from(*limb));
        if self.negative { 0i128.checked_sub_unsigned(magnitude) } else { i128::try_from(magnitude).ok() }
    }

    pub(super) fn zero(&self) -> bool {
        self.limbs.is_empty()
    }
}

const INFINITE: u64 = 0x7ff0_0000_0000_0000;

/// A non-negative double as `mantissa * 2^exponent`; the pattern of infinity stands for 2^1024.
fn parts(bits: u64) -> (Big, i32) {
    let (exponent, fraction) = ((bits >> 52) as i32, bits & ((1 << 52) - 1));
    match exponent {
        0 => (Big::of(fraction.into()), -1074),
        _ => (Big::of((fraction | 1 << 52).into()), exponent - 1075),
    }
}

/// Compares `numerator / denominator` (both positive) with a double given as parts.
fn against(numerator: &Big, denominator: &Big, (mantissa, exponent): (Big, i32)) -> Ordering {
    let scaled = mantissa.times(denominator);
    if exponent >= 0 {
        compare(&numerator.limbs, &scaled.shifted(exponent as u32).limbs)
    } else {
        compare(&numerator.shifted(exponent.unsigned_abs()).limbs, &scaled.limbs)
    }
}

/// The double nearest to `numerator / denominator`, ties to even, found by halving; `+0.0` for zero.
pub(super) fn nearest(numerator: &Big, denominator: &Big) -> f64 {
    assert!(!denominator.negative && !denominator.zero());
    if numerator.zero() {
        return 0.0;
    }
    let (mut low, mut high) = (0u64, INFINITE);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if against(numerator, denominator, parts(middle)) == Ordering::Less { high = middle } else { low = middle }
    }
    // The exact middle of two neighbours needs one more bit than either.
    let ((a, x), (b, y)) = (parts(low), parts(high));
    let exponent = x.min(y);
    let middle = a.shifted((x - exponent) as u32).plus(&b.shifted((y - exponent) as u32));
    let bits = match against(numerator, denominator, (middle, exponent - 1)) {
        Ordering::Less => low,
        Ordering::Greater => high,
        Ordering::Equal => low + low % 2,
    };
    let value = f64::from_bits(bits) + 0.0;
    if numerator.negative && value != 0.0 { -value } else { value }
}

/// A finite double as a whole number of 2^-1074.
pub(super) fn units(value: f64) -> Big {
    let (mantissa, exponent) = parts(value.abs().to_bits());
    let n = mantissa.shifted((exponent + 1074) as u32);
    if value < 0.0 { n.negated() } else { n }
}

/// How many of those make one.
pub(super) fn one() -> Big {
    Big::of(1).shifted(1074)
}

/// A number token as a whole number times a power of ten: digits without zeros at either end.
pub(super) fn token(text: &str) -> (bool, String, i64) {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let exponent = exponent.trim_start_matches('+').parse::<i64>().unwrap() - fraction.len() as i64;
    let kept = digits.trim_start_matches('0');
    let short = kept.trim_end_matches('0');
    if short.is_empty() {
        return (false, String::new(), 0);
    }
    (negative, short.to_owned(), exponent + (kept.len() - short.len()) as i64)
}

/// A token times `10^scale`, where that is whole.
pub(super) fn scaled(text: &str, scale: u32) -> Option<Big> {
    let (negative, digits, exponent) = token(text);
    let power = exponent + i64::from(scale);
    if digits.is_empty() {
        return Some(Big::default());
    }
    if !(0..1_000).contains(&power) {
        return None;
    }
    let n = Big::digits(&digits).times(&Big::power_of_ten(power as u32));
    Some(if negative { n.negated() } else { n })
}

pub(super) fn check() {
    let ratio = |a: i128, b: i128| nearest(&Big::of(a), &Big::of(b));
    for (a, b) in [(1, 3), (-2, 3), (7, 1), (10, 4), (1, 10), (i128::from(i64::MAX), 7), (-9, 2)] {
        assert_eq!(ratio(a, b), a as f64 / b as f64, "{a}/{b}");
    }
    assert_eq!(ratio((1 << 53) + 1, 1), (1u64 << 53) as f64);
    assert_eq!(ratio((1 << 53) + 3, 1), ((1u64 << 53) + 4) as f64);
    for value in [0.1, -1e300, 5e-324, f64::MAX, f64::MIN_POSITIVE, 1.0, -0.3] {
        assert_eq!(nearest(&units(value), &one()), value);
    }
    assert!(nearest(&units(f64::MAX).plus(&units(f64::MAX)), &one()).is_infinite());
    assert_eq!(nearest(&units(5e-324), &one().times(&Big::of(2))), 0.0);
    assert_eq!(scaled("1.25e1", 1).and_then(|n| n.to_i128()), Some(125));
    assert_eq!(scaled("1.25", 1), None);
    assert_eq!(scaled("-9223372036854775808", 0).and_then(|n| n.to_i128()), Some(i128::from(i64::MIN)));
}
