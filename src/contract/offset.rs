//! Offsets: positions in a partition, from a line number to a 56-digit sequence number.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

type U192 = bnum::t!(U192);

/// Most digits that an offset of any kind may have.
const MAX_DIGITS: usize = 56;

/// How a partition numbers its records (O066).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OffsetKind {
    /// Zero-based line of a file; dense.
    FileLine,
    /// Kafka offset; treated as dense: a hole must be explained.
    KafkaOffset,
    /// Kinesis sequence number; sparse: contiguity proves only where it happens to hold.
    KinesisSequence,
}

impl OffsetKind {
    /// Every kind.
    pub const ALL: [OffsetKind; 3] = [OffsetKind::FileLine, OffsetKind::KafkaOffset, OffsetKind::KinesisSequence];

    /// The name used in contracts and paths.
    pub fn as_str(self) -> &'static str {
        match self {
            OffsetKind::FileLine => "file_line",
            OffsetKind::KafkaOffset => "kafka_offset",
            OffsetKind::KinesisSequence => "kinesis_sequence",
        }
    }

    /// The kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether every integer of a range must be a record.
    pub fn dense(self) -> bool {
        self != OffsetKind::KinesisSequence
    }
}

impl fmt::Display for OffsetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for OffsetKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        OffsetKind::parse(&name).ok_or_else(|| serde::de::Error::custom(format!("`{}` is no offset kind", crate::text::clip(&name, 40))))
    }
}

impl Serialize for OffsetKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A position in a partition, exact at any length; text form has no leading zeros (pitfall 24).
///
/// Three words, most significant first, so that the derived order is the numeric one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset([u64; 3]);

impl Offset {
    /// Reads decimal digits; leading zeros are dropped.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = text.trim_start_matches('0');
        if digits.is_empty() {
            return Some(Offset::default());
        }
        if digits.len() <= 19 {
            return digits.parse().ok().map(|n: u64| Offset::from(n));
        }
        if digits.len() > MAX_DIGITS {
            return None;
        }
        U192::from_str_radix(digits, 10).ok().map(|wide| Offset::from_bytes(wide.to_be_bytes()))
    }

    /// Whether an offset of this kind can have this value: dense kinds are signed 64-bit.
    pub fn fits(self, kind: OffsetKind) -> bool {
        !kind.dense() || self.to_i64().is_some()
    }

    /// As a signed 64-bit integer, where it fits.
    pub fn to_i64(self) -> Option<i64> {
        i64::try_from(self.to_u64()?).ok()
    }

    /// As an unsigned 64-bit integer, where it fits.
    pub fn to_u64(self) -> Option<u64> {
        let [high, middle, low] = self.0;
        (high == 0 && middle == 0).then_some(low)
    }

    /// The next position (the largest stays).
    pub fn next(self) -> Self {
        self.plus(Offset::from(1))
    }

    /// The previous position (zero stays).
    pub fn previous(self) -> Self {
        self.above(Offset::from(1))
    }

    /// How far `self` lies above `other` (zero if below).
    pub fn above(self, other: Self) -> Self {
        let ([a2, a1, a0], [b2, b1, b0]) = (self.0, other.0);
        if self <= other {
            return Offset::default();
        }
        let (low, borrow) = a0.overflowing_sub(b0);
        let (middle, first) = a1.overflowing_sub(b1);
        let (middle, second) = middle.overflowing_sub(u64::from(borrow));
        Offset([a2.wrapping_sub(b2).wrapping_sub(u64::from(first || second)), middle, low])
    }

    /// Sum (saturating).
    pub fn plus(self, other: Self) -> Self {
        let ([a2, a1, a0], [b2, b1, b0]) = (self.0, other.0);
        let (low, carry) = a0.overflowing_add(b0);
        let (middle, first) = a1.overflowing_add(b1);
        let (middle, second) = middle.overflowing_add(u64::from(carry));
        match a2.checked_add(b2).and_then(|high| high.checked_add(u64::from(first || second))) {
            Some(high) => Offset([high, middle, low]),
            None => Offset([u64::MAX; 3]),
        }
    }

    /// Big-endian bytes, for digests and sorted spill files.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        for (slot, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.0) {
            *slot = word.to_be_bytes();
        }
        bytes
    }

    /// The inverse of [`Offset::to_bytes`].
    pub fn from_bytes(bytes: [u8; 24]) -> Self {
        let mut words = [0u64; 3];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_be_bytes(*chunk);
        }
        Offset(words)
    }
}

impl From<u64> for Offset {
    fn from(n: u64) -> Self {
        Offset([0, 0, n])
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_u64() {
            Some(n) => fmt::Display::fmt(&n, f),
            None => fmt::Display::fmt(&U192::from_be_bytes(self.to_bytes()), f),
        }
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        Offset::parse(&digits).ok_or_else(|| serde::de::Error::custom(format!("`{}` is no offset", crate::text::clip(&digits, 60))))
    }
}

impl Serialize for Offset {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_exact_at_any_length() {
        let long = "49590338271490256608559692538361571095921575989136588898";
        assert_eq!(long.len(), 56);
        let offset = Offset::parse(long).unwrap();
        assert_eq!(offset.to_string(), long);
        assert_eq!(Offset::from_bytes(offset.to_bytes()), offset);
        assert_eq!(offset.next().above(offset), Offset::from(1));
        assert!(Offset::parse("18446744073709551615").unwrap() < Offset::parse("18446744073709551616").unwrap());
        assert_eq!(Offset::parse("18446744073709551616").unwrap().to_string(), "18446744073709551616");
        assert!(Offset::from(9) < Offset::from(256));
    }

    #[test]
    fn spelling_is_normalised_and_nonsense_refused() {
        assert_eq!(Offset::parse("0100").unwrap().to_string(), "100");
        assert_eq!(Offset::parse("000").unwrap(), Offset::from(0));
        for text in ["", "-1", "+1", "1.0", " 1", "1e3", "x"] {
            assert!(Offset::parse(text).is_none(), "{text}");
        }
        assert!(Offset::parse(&"9".repeat(57)).is_none());
        assert!(!Offset::parse("9223372036854775808").unwrap().fits(OffsetKind::KafkaOffset));
        assert!(Offset::parse("9223372036854775808").unwrap().fits(OffsetKind::KinesisSequence));
    }
}
