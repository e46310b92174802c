//! Instants, the two clocks that must never be mixed, and the injected wall clock.
//!
//! All instants are whole microseconds since 1970 in UTC; text is RFC 3339 with a zone on the way in
//! and always `YYYY-MM-DDTHH:MM:SS.ffffffZ` on the way out (`interface` 4 and 6, decision 8).

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::civil;
use jiff::tz::Offset;
use serde::{Serialize, Serializer};

/// A moment: microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub i64);

/// When a fact holds in the world it is about. Never says when it was known (O077).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EffectiveTime(pub Instant);

/// When a fact became known to the platform. The only clock that label eligibility looks at (O076).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObservedTime(pub Instant);

impl ObservedTime {
    /// Whether the fact was known at the cut-off, exact at the boundary (O076).
    pub fn known_at(self, cutoff: Instant) -> bool {
        self.0 <= cutoff
    }
}

/// Why a text is not an instant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TimeError(&'static str);

impl Instant {
    /// Reads RFC 3339 with a zone and at most microseconds (further digits must be zeros).
    ///
    /// # Errors
    /// Missing zone, lower-case `t` or `z`, a space, bracketed zones, leap seconds, impossible dates.
    pub fn parse(text: &str) -> Result<Self, TimeError> {
        let bytes = text.as_bytes();
        let shape = TimeError("expected RFC 3339 with a zone, like 2026-02-10T10:00:00Z");
        let fixed = bytes.get(..19).ok_or_else(|| shape.clone())?;
        let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if separators.iter().any(|(at, want)| fixed.get(*at) != Some(want)) {
            return Err(shape);
        }
        let field = |from: usize, to: usize| digits(bytes.get(from..to)).ok_or_else(|| shape.clone());
        let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
        let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
        if second == 60 {
            return Err(TimeError("leap seconds are not accepted"));
        }
        let mut rest = bytes.get(19..).unwrap_or_default();
        let mut micros = 0i64;
        if let Some((b'.', fraction)) = rest.split_first() {
            let count = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
            let (digits, zone) = fraction.split_at(count);
            if count == 0 {
                return Err(shape);
            }
            if digits.iter().skip(6).any(|b| *b != b'0') {
                return Err(TimeError("finer than microseconds"));
            }
            micros = (0..6).fold(0, |sum, i| sum * 10 + digits.get(i).map_or(0, |b| i64::from(b - b'0')));
            rest = zone;
        }
        let offset_seconds = match rest {
            b"Z" => 0,
            [sign @ (b'+' | b'-'), zone @ ..] if zone.len() == 5 && zone.get(2) == Some(&b':') => {
                let (h, m) = (digits(zone.get(..2)).ok_or_else(|| shape.clone())?, digits(zone.get(3..)).ok_or_else(|| shape.clone())?);
                if h > 23 || m > 59 {
                    return Err(TimeError("an impossible zone offset"));
                }
                (h * 3600 + m * 60) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return Err(TimeError("a zone is missing or not `Z` or `+hh:mm`")),
        };
        let impossible = |_| TimeError("an impossible date or time");
        let narrow = |n: i64| i8::try_from(n).map_err(|_| TimeError("an impossible date or time"));
        let year = i16::try_from(year).map_err(|_| TimeError("an impossible date or time"))?;
        let civil = civil::DateTime::new(year, narrow(month)?, narrow(day)?, narrow(hour)?, narrow(minute)?, narrow(second)?, 0)
            .map_err(impossible)?;
        let seconds = Offset::UTC.to_timestamp(civil).map_err(impossible)?.as_second();
        Ok(Instant((seconds - offset_seconds) * 1_000_000 + micros))
    }

    /// This instant moved by whole microseconds, stopping at the ends of the range.
    pub fn plus_micros(self, micros: i64) -> Self {
        Instant(self.0.saturating_add(micros))
    }
}

fn digits(bytes: Option<&[u8]>) -> Option<i64> {
    bytes?.iter().try_fold(0i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(stamp) => {
                let dt = Offset::UTC.to_datetime(stamp);
                let micros = self.0.rem_euclid(1_000_000);
                write!(
                    f,
                    "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{micros:06}Z",
                    dt.year(),
                    dt.month(),
                    dt.day(),
                    dt.hour(),
                    dt.minute(),
                    dt.second()
                )
            }
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The one source of "now". Only the ledger and the logs ask it; evidence never does (O165).
pub trait Clock: Send + Sync + fmt::Debug {
    /// The current instant.
    fn now(&self) -> Instant;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Instant(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands still until told otherwise: for tests and scenarios.
#[derive(Debug)]
pub struct FixedClock(AtomicI64);

impl FixedClock {
    /// A clock that shows `at`.
    pub fn new(at: Instant) -> Self {
        FixedClock(AtomicI64::new(at.0))
    }

    /// Moves the clock on.
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> Instant {
        Instant(self.0.load(Ordering::SeqCst))
    }
}

/// A span in words: `4m 05s`, `2h 10m`, `3d 4h`. Micros in.
pub fn span(micros: i64) -> String {
    let seconds = micros.max(0) / 1_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_instant_has_many_spellings_and_one_normal_form() {
        let normal = "2026-02-10T10:00:00.000000Z";
        for text in
            ["2026-02-10T10:00:00Z", "2026-02-10T10:00:00.0Z", "2026-02-10T12:00:00+02:00", "2026-02-10T07:30:00.000000000-02:30", normal]
        {
            assert_eq!(Instant::parse(text).unwrap().to_string(), normal, "{text}");
        }
        assert_eq!(Instant::parse("1969-12-31T23:59:59.999999Z").unwrap(), Instant(-1));
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "x",
            "2026-02-10",
            "2026-02-10T10:00:00",
            "2026-02-10t10:00:00Z",
            "2026-02-10T10:00:00z",
            "2026-02-10 10:00:00Z",
            "2026-02-10T10:00:60Z",
            "2026-02-30T10:00:00Z",
            "2026-02-10T24:00:00Z",
            "2026-02-10T10:00:00.1234567Z",
            "2026-02-10T10:00:00.Z",
            "2026-02-10T10:00:00+0200",
            "2026-02-10T10:00:00+02:00[Europe/Paris]",
            "2026-02-10T10:00:00+25:00",
            "+026-02-10T10:00:00Z",
            "2026-02-10T10:00:00Z ",
            "2026-2-10T10:00:00Z0",
        ] {
            assert!(Instant::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn knowledge_is_exact_at_the_boundary() {
        let cutoff = Instant::parse("2026-02-10T10:00:00Z").unwrap();
        assert!(ObservedTime(cutoff.plus_micros(-1)).known_at(cutoff));
        assert!(ObservedTime(cutoff).known_at(cutoff));
        assert!(!ObservedTime(cutoff.plus_micros(1)).known_at(cutoff));
    }

    proptest! {
        #[test]
        fn normal_form_round_trips(micros in -62_000_000_000_000_000i64..200_000_000_000_000_000) {
            let instant = Instant(micros);
            prop_assert_eq!(Instant::parse(&instant.to_string()).unwrap(), instant);
        }

        #[test]
        fn any_text_is_handled(text in ".{0,40}") {
            let _ = Instant::parse(&text);
        }
    }
}
