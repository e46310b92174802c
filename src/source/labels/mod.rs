//! Label timelines: JSONL files, Parquet files, or a SQLite timeline, behind one trait. A timeline
//! hands over every assertion of the wanted types as it stands, unparsed: what a broken one
//! means depends on whether it is about a row of the data set, which only the label gate knows.

mod column;
mod jsonl;
mod parquet;
mod sqlite;
mod whole;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

pub use jsonl::JsonlLabels;
pub use parquet::ParquetLabels;
pub use sqlite::SqliteLabels;
pub use whole::{WholeSink, each_whole};

use crate::contract::ReasonCode;
use crate::time::Instant;

/// One assertion as the store holds it. Absent texts are `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assertion<'a> {
    /// Assertion id.
    pub id: &'a str,
    /// Event that it is about.
    pub event_id: &'a str,
    /// Label type.
    pub label_type: &'a str,
    /// Value.
    pub value: Option<&'a str>,
    /// Effective time.
    pub effective: Option<Stamp<'a>>,
    /// Observed time in the place that the store selects by.
    pub observed: Option<Stamp<'a>>,
    /// Observed time in the assertion itself, where the store keeps it twice.
    pub embedded_observed: Option<Stamp<'a>>,
    /// Digest of everything else that the assertion says.
    pub payload_hash: Option<&'a str>,
    /// Why the store cannot be trusted about it, where it keeps it twice and the two differ or one cannot be read.
    pub fault: Option<&'a str>,
    /// Whether it has an observed time of its own that cannot be read: then nothing but the column says when it was
    /// known, and of a column alone no lateness is believed (O087).
    pub unread: bool,
}

/// What stands where an instant should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp<'a> {
    /// A text as written.
    Text(&'a str),
    /// A value of a type for instants, which may lie beyond the calendar.
    Typed(Instant),
}

impl<'a> Stamp<'a> {
    /// The instant, where it is one.
    pub fn instant(self) -> Option<Instant> {
        match self {
            Stamp::Text(text) => Instant::parse(text).ok(),
            Stamp::Typed(at) => at.in_calendar().then_some(at),
        }
    }

    /// The text as written; a typed value in the normal form.
    pub fn text(self) -> Cow<'a, str> {
        match self {
            Stamp::Text(text) => Cow::Borrowed(text),
            Stamp::Typed(at) => Cow::Owned(at.to_string()),
        }
    }
}

/// What is wanted of a timeline.
#[derive(Debug, Clone, Copy)]
pub struct LabelQuery<'a> {
    /// The run.
    pub platform_run_id: &'a str,
    /// The label types.
    pub types: &'a BTreeSet<String>,
}

/// A timeline that could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{place}: {message}")]
pub struct LabelError {
    /// `LABEL_STORE_UNAVAILABLE`, `LABEL_TIMELINE_INCONSISTENT` or `REF_ACCESS_DENIED`.
    pub code: ReasonCode,
    /// File and line.
    pub place: String,
    /// What happened.
    pub message: String,
}

impl LabelError {
    pub(crate) fn unavailable(place: impl Into<String>, message: impl fmt::Display) -> Self {
        LabelError { code: ReasonCode::LabelStoreUnavailable, place: place.into(), message: message.to_string() }
    }

    pub(crate) fn inconsistent(place: impl Into<String>, message: impl fmt::Display) -> Self {
        LabelError { code: ReasonCode::LabelTimelineInconsistent, place: place.into(), message: message.to_string() }
    }
}

/// A piece of a timeline that can be read on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Which file of the timeline.
    pub(crate) file: usize,
    /// First byte, row group or row id.
    pub(crate) from: u64,
    /// End of the piece (exclusive).
    pub(crate) to: u64,
}

/// Takes assertions; `Break` ends the scan early.
pub type LabelSink<'s> = dyn FnMut(Assertion<'_>) -> ControlFlow<()> + 's;

/// A label timeline, read-only (O075, O166).
pub trait LabelTimeline: Send + Sync + fmt::Debug {
    /// What this is, for receipts: never a path.
    fn describe(&self) -> &'static str;

    /// Splits the timeline into pieces.
    ///
    /// # Errors
    /// The environment's.
    fn parts(&self) -> Result<Vec<Part>, LabelError>;

    /// Hands over every assertion of the wanted run and types in one piece.
    ///
    /// # Errors
    /// `LABEL_STORE_UNAVAILABLE`, or `LABEL_TIMELINE_INCONSISTENT` for a line that is no assertion.
    fn scan(&self, part: &Part, query: LabelQuery<'_>, sink: &mut LabelSink<'_>) -> Result<(), LabelError>;
}

/// Opens the timeline at a path: a directory of `*.jsonl` and `*.parquet`, one such file, or a SQLite
/// timeline (`*.db`, `*.sqlite`).
///
/// # Errors
/// `LABEL_STORE_UNAVAILABLE` where nothing usable is there.
pub fn open(path: &Path) -> Result<Box<dyn LabelTimeline>, LabelError> {
    let place = path.display().to_string();
    let real = path.canonicalize().map_err(|e| LabelError::unavailable(&place, e))?;
    if real.is_file() {
        return match real.extension().and_then(|e| e.to_str()) {
            Some("jsonl") => Ok(Box::new(JsonlLabels::new(vec![real]))),
            Some("parquet") => Ok(Box::new(ParquetLabels::new(vec![real]))),
            Some("db" | "sqlite") => Ok(Box::new(SqliteLabels::new(real))),
            _ => Err(LabelError::unavailable(place, "expected *.jsonl, *.parquet, *.db or *.sqlite")),
        };
    }
    let (mut lines, mut columns) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(&real).map_err(|e| LabelError::unavailable(&place, e))? {
        let file = entry.map_err(|e| LabelError::unavailable(&place, e))?.path();
        let list = match file.extension().and_then(|e| e.to_str()) {
            Some("jsonl") => &mut lines,
            Some("parquet") => &mut columns,
            _ => continue,
        };
        let shown = file.display().to_string();
        match crate::store::contained(&real, &file) {
            Ok(Some(file)) => list.push(file),
            Ok(None) => return Err(LabelError::unavailable(shown, "a link to nothing")),
            Err(e) => return Err(LabelError { code: ReasonCode::RefAccessDenied, place: shown, message: e.to_string() }),
        }
    }
    lines.sort();
    columns.sort();
    match (lines.is_empty(), columns.is_empty()) {
        (true, true) => Err(LabelError::unavailable(place, "no *.jsonl and no *.parquet is there")),
        (false, true) => Ok(Box::new(JsonlLabels::new(lines))),
        (true, false) => Ok(Box::new(ParquetLabels::new(columns))),
        (false, false) => Ok(Box::new(Both { lines: JsonlLabels::new(lines), columns: ParquetLabels::new(columns) })),
    }
}

/// A directory with both kinds of file.
#[derive(Debug)]
struct Both {
    lines: JsonlLabels,
    columns: ParquetLabels,
}

/// Marks the pieces of the second store.
const SECOND: usize = 1 << 32;

impl LabelTimeline for Both {
    fn describe(&self) -> &'static str {
        "jsonl+parquet"
    }

    fn parts(&self) -> Result<Vec<Part>, LabelError> {
        let mut parts = self.lines.parts()?;
        parts.extend(self.columns.parts()?.into_iter().map(|p| Part { file: p.file + SECOND, ..p }));
        Ok(parts)
    }

    fn scan(&self, part: &Part, query: LabelQuery<'_>, sink: &mut LabelSink<'_>) -> Result<(), LabelError> {
        match part.file.checked_sub(SECOND) {
            None => self.lines.scan(part, query, sink),
            Some(file) => self.columns.scan(&Part { file, ..part.clone() }, query, sink),
        }
    }
}
