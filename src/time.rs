//! Instants, the two clocks that must never be mixed, and the injected wall clock.
//!
//! All instants are whole microseconds since 1970 in UTC; text is RFC 3339 with a zone on the way in
//! and always `YYYY-MM-DDTHH:MM:SS.ffffffZ` on the way out (`interface` 4 and 6, decision 8).

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

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
        let impossible = TimeError("an impossible date or time");
        let days = days_of(year, month, day).ok_or_else(|| impossible.clone())?;
        if hour > 23 || minute > 59 || second > 59 {
            return Err(impossible);
        }
        let seconds = days * DAY_SECONDS + hour * 3_600 + minute * 60 + second;
        let instant = Instant((seconds - offset_seconds) * 1_000_000 + micros);
        // By its zone it may lie beyond the calendar that its own text begins or ends.
        if instant.in_calendar() { Ok(instant) } else { Err(TimeError("in UTC it is not in the years 0 to 9999")) }
    }

    /// Whether there is a text for it that [`Instant::parse`] reads: it lies in the years 0 to 9999.
    pub fn in_calendar(self) -> bool {
        (FIRST_SECOND..=LAST_SECOND).contains(&self.0.div_euclid(1_000_000))
    }

    /// The normal form `YYYY-MM-DDTHH:MM:SS.ffffffZ`, for the years 0 to 9999.
    pub fn text(self) -> Option<[u8; 27]> {
        if !self.in_calendar() {
            return None;
        }
        let (seconds, micros) = (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000));
        let (year, month, day) = date_of(seconds.div_euclid(DAY_SECONDS));
        let of_day = seconds.rem_euclid(DAY_SECONDS);
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let fields = [
            (0, 4, year),
            (5, 7, month),
            (8, 10, day),
            (11, 13, of_day / 3_600),
            (14, 16, of_day / 60 % 60),
            (17, 19, of_day % 60),
            (20, 26, micros),
        ];
        for (from, to, mut value) in fields {
            for digit in text.get_mut(from..to).unwrap_or_default().iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        }
        Some(text)
    }

    /// This instant moved by whole microseconds, stopping at the ends of the range.
    pub fn plus_micros(self, micros: i64) -> Self {
        Instant(self.0.saturating_add(micros))
    }
}

const DAY_SECONDS: i64 = 86_400;
/// The first second of the year 0.
const FIRST_SECOND: i64 = -62_167_219_200;
/// The last second of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

/// Days since 1970-01-01 of a date of the years 0 to 9999, where it is one.
///
/// A build reads several instants an event, so this and its inverse are done in a few multiplications: years begin in
/// March, so that the leap day is the last of its year. A test holds both against jiff's calendar.
fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

/// The date that lies so many days after 1970-01-01; the inverse of [`days_of`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    if month < 10 { (era * 400 + year, month + 3, day) } else { (era * 400 + year + 1, month - 9, day) }
}

fn digits(bytes: Option<&[u8]>) -> Option<i64> {
    bytes?.iter().try_fold(0i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(std::str::from_utf8(&text).unwrap_or_default()),
            None => write!(f, "{}us", self.0),
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

    #[test]
    fn the_calendar_is_the_crates() {
        let start = jiff::civil::date(0, 1, 1);
        let epoch = days_of(0, 1, 1).unwrap();
        for (date, days) in start.series(jiff::Span::new().days(1)).zip(epoch..) {
            let (year, month, day) = (i64::from(date.year()), i64::from(date.month()), i64::from(date.day()));
            assert_eq!((days_of(year, month, day), date_of(days)), (Some(days), (year, month, day)), "{date}");
        }
        for (year, month, day) in [(2026, 0, 1), (2026, 13, 1), (2026, 1, 0), (2026, 4, 31), (2100, 2, 29), (2024, 2, 30)] {
            assert_eq!(days_of(year, month, day), None);
        }
        assert_eq!(days_of(1970, 1, 1), Some(0));
        assert_eq!(Instant::parse("9999-12-31T23:59:59.999999Z").unwrap(), Instant(LAST_SECOND * 1_000_000 + 999_999));
        assert_eq!(Instant::parse("0000-01-01T00:00:00Z").unwrap(), Instant(FIRST_SECOND * 1_000_000));
    }

    #[test]
    fn a_zone_does_not_lead_out_of_the_calendar() {
        for text in [
            "9999-12-31T22:00:00-05:00",
            "9999-12-31T23:59:59.999999-00:01",
            "0000-01-01T00:00:00+01:00",
            "0000-01-01T00:59:59.999999+01:00",
        ] {
            assert!(Instant::parse(text).is_err(), "{text}");
        }
        for (text, normal) in [
            ("9999-12-30T22:00:00-05:00", "9999-12-31T03:00:00.000000Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000000Z"),
            ("0000-01-01T01:00:00+01:00", "0000-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(Instant::parse(text).map(|at| at.to_string()).as_deref(), Ok(normal));
        }
    }

    #[test]
    fn only_an_instant_of_the_calendar_has_a_text_that_is_read_again() {
        let last = LAST_SECOND * 1_000_000 + 999_999;
        for inside in [FIRST_SECOND * 1_000_000, -1, 0, last] {
            assert!(Instant(inside).in_calendar(), "{inside}");
            assert_eq!(Instant::parse(&Instant(inside).to_string()), Ok(Instant(inside)));
        }
        for outside in [i64::MIN, FIRST_SECOND * 1_000_000 - 1, last + 1, i64::MAX] {
            assert!(!Instant(outside).in_calendar(), "{outside}");
            assert!(Instant::parse(&Instant(outside).to_string()).is_err(), "{outside}");
        }
    }

    proptest! {
        #[test]
        fn the_text_is_the_crates(micros in -62_167_219_200_000_000i64..253_402_207_200_999_999) {
            let theirs = jiff::Timestamp::from_microsecond(micros).unwrap().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
            prop_assert_eq!(Instant(micros).to_string(), theirs);
        }

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
