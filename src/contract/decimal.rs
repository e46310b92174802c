//! Number tokens as exact values: JSON and plain decimal text, never through a float.

/// A decimal number of any size: `±digits × 10^exponent`, borrowed from its token.
#[derive(Debug, Clone, Copy)]
pub struct Token<'t> {
    negative: bool,
    whole: &'t str,
    fraction: &'t str,
    exponent: i64,
}

impl<'t> Token<'t> {
    /// Reads a JSON number or plain decimal text (`-12.50`); exponents only with `exponents`.
    pub fn parse(text: &'t str, exponents: bool) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(_) if !exponents => return None,
            Some(at) => {
                let digits = rest.get(at + 1..)?;
                let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
                if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                // An absurd exponent is clamped: its value cannot fit anything either way.
                let size: i64 = unsigned.parse().unwrap_or(i64::MAX / 4);
                (rest.get(..at)?, if digits.starts_with('-') { -size } else { size })
            }
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || (mantissa.contains('.') && fraction.is_empty()) {
            return None;
        }
        Some(Token { negative, whole, fraction, exponent })
    }

    fn digit_bytes(&self) -> impl DoubleEndedIterator<Item = u8> + 't {
        let (whole, fraction) = (self.whole, self.fraction);
        whole.bytes().chain(fraction.bytes()).map(|b| b - b'0')
    }

    /// The value times `10^scale` as an integer, if that is exact and fits.
    pub fn scaled(&self, scale: u32) -> Option<i128> {
        if self.digit_bytes().all(|d| d == 0) {
            return Some(0);
        }
        let shift = self.exponent.saturating_add(i64::from(scale)).saturating_sub(i64::try_from(self.fraction.len()).ok()?);
        let total = self.whole.len() + self.fraction.len();
        let dropped = usize::try_from((-shift).max(0)).ok()?;
        // Digits beyond the scale must be zeros: a value is never rounded to fit.
        if self.digit_bytes().rev().take(dropped.min(total)).any(|d| d != 0) || dropped >= total {
            return None;
        }
        let mut sum: i128 = 0;
        for digit in self.digit_bytes().take(total - dropped) {
            sum = sum.checked_mul(10)?.checked_sub(i128::from(digit))?;
        }
        for _ in 0..shift.max(0) {
            sum = sum.checked_mul(10)?;
        }
        if self.negative { Some(sum) } else { sum.checked_neg() }
    }

    /// One text for every spelling of the same value, for equality.
    pub fn normal(&self) -> String {
        let digits: String = self.digit_bytes().map(|d| char::from(b'0' + d)).collect();
        let kept = digits.trim_start_matches('0');
        let trimmed = kept.trim_end_matches('0');
        if trimmed.is_empty() {
            return "0".into();
        }
        let exponent =
            self.exponent - i64::try_from(self.fraction.len()).unwrap_or(0) + i64::try_from(kept.len() - trimmed.len()).unwrap_or(0);
        format!("{}{trimmed}e{exponent}", if self.negative { "-" } else { "" })
    }
}

/// An integral JSON number (`10`, `10.0`, `1e1`) that fits 64 bits.
pub fn int64(token: &str) -> Option<i64> {
    if let Ok(n) = token.parse::<i64>() {
        return Some(n);
    }
    i64::try_from(Token::parse(token, true)?.scaled(0)?).ok()
}

/// A JSON number or plain decimal text as `decimal(precision, scale)`; excess non-zero digits do not fit.
pub fn decimal(text: &str, is_number: bool, precision: u8, scale: u8) -> Option<i128> {
    let value = Token::parse(text, is_number)?.scaled(u32::from(scale))?;
    (value.unsigned_abs() < 10u128.checked_pow(u32::from(precision))?).then_some(value)
}

/// A share between 0 and 1, exact to the twelfth digit, for policy thresholds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ratio(i128);

/// Parts of a whole ratio.
const PARTS: i128 = 1_000_000_000_000;

impl Ratio {
    /// The whole.
    pub const ONE: Ratio = Ratio(PARTS);
    /// Nothing.
    pub const ZERO: Ratio = Ratio(0);

    /// Reads a JSON number from 0 to 1 with at most twelve decimals.
    pub fn parse(token: &str) -> Option<Self> {
        let parts = Token::parse(token, true)?.scaled(12)?;
        (0..=PARTS).contains(&parts).then_some(Ratio(parts))
    }

    /// Whether `part / whole >= self`, exactly. An empty whole reaches nothing but zero.
    pub fn reached_by(self, part: u64, whole: u64) -> bool {
        i128::from(part) * PARTS >= self.0 * i128::from(whole) && (whole > 0 || self.0 == 0)
    }

    /// Whether `part / whole > self`, exactly.
    pub fn exceeded_by(self, part: u64, whole: u64) -> bool {
        i128::from(part) * PARTS > self.0 * i128::from(whole)
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = format!("{:013}", self.0);
        let (whole, fraction) = digits.split_at(digits.len() - 12);
        let trimmed = fraction.trim_end_matches('0');
        write!(f, "{whole}.{}", if trimmed.is_empty() { "0" } else { trimmed })
    }
}

/// `part / whole` in millionths, rounded half up; nothing of nothing.
pub fn millionths(part: u64, whole: u64) -> Option<u128> {
    (u128::from(part) * 2_000_000 + u128::from(whole)).checked_div(2 * u128::from(whole))
}

/// `part / whole` with six decimals, rounded half up; `0.000000` of nothing.
pub fn share(part: u64, whole: u64) -> String {
    let millionths = millionths(part, whole).unwrap_or(0);
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integral_spellings_fit_int64_and_others_do_not() {
        for token in ["10", "10.0", "1e1", "1E+1", "100e-1", "0.1e2"] {
            assert_eq!(int64(token), Some(10), "{token}");
        }
        assert_eq!(int64("-0"), Some(0));
        assert_eq!(int64("0e999999999999999999999"), Some(0));
        assert_eq!(int64("-9223372036854775808"), Some(i64::MIN));
        for token in ["1.5", "1e-1", "9223372036854775808", "1e999999999999999999999", "x", ""] {
            assert_eq!(int64(token), None, "{token}");
        }
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        assert_eq!(decimal("12.50", true, 10, 2), Some(1250));
        assert_eq!(decimal("12.500", true, 10, 2), Some(1250));
        assert_eq!(decimal("1.25e1", true, 10, 2), Some(1250));
        assert_eq!(decimal("-0.01", false, 3, 2), Some(-1));
        assert_eq!(decimal("12.505", true, 10, 2), None);
        assert_eq!(decimal("1e1", false, 10, 2), None);
        assert_eq!(decimal("100", true, 4, 2), None);
        let widest = "9".repeat(38);
        assert_eq!(decimal(&widest, true, 38, 0), Some(10i128.pow(38) - 1));
        assert_eq!(decimal(&format!("-{widest}"), true, 38, 0), Some(1 - 10i128.pow(38)));
        assert_eq!(decimal(&"9".repeat(39), true, 38, 0), None);
    }

    #[test]
    fn equality_ignores_spelling() {
        let normal = |t| Token::parse(t, true).unwrap().normal();
        assert_eq!(normal("10"), normal("1e1"));
        assert_eq!(normal("10"), normal("10.00"));
        assert_eq!(normal("-0"), normal("0.0"));
        assert_ne!(normal("10"), normal("-10"));
        assert_ne!(normal("10"), normal("1.0"));
    }

    #[test]
    fn ratios_compare_exactly() {
        let ratio = Ratio::parse("0.99").unwrap();
        assert!(ratio.reached_by(99, 100));
        assert!(!ratio.reached_by(98_999_999, 100_000_000));
        assert!(Ratio::ONE.reached_by(7, 7) && !Ratio::ONE.reached_by(0, 0) && Ratio::ZERO.reached_by(0, 0));
        assert!(Ratio::ZERO.exceeded_by(1, 1_000_000) && !Ratio::ZERO.exceeded_by(0, 5));
        assert_eq!(ratio.to_string(), "0.99");
        assert_eq!(Ratio::ONE.to_string(), "1.0");
        for token in ["1.1", "-0.1", "0.1234567890123", "x"] {
            assert!(Ratio::parse(token).is_none(), "{token}");
        }
        assert_eq!(share(2, 3), "0.666667");
    }
}
