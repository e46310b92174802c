//! Segments on their way to the store, and which files of the archive they make superfluous.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::store::{self, Ready};
use super::{Written, internal};
use crate::contract::Offset;
use crate::contract::intent::{Lane, OffsetRange};
use crate::pipeline::gate::{Env, Refusal};
use crate::source::sealed::{Attested, RawFile, Rows, Segment, single_ranges, stem};

/// A file of lines of the archive on its way into segments.
#[derive(Debug)]
pub(super) struct RawLines {
    pub(super) bytes: u64,
    /// First and last offset that it holds.
    pub(super) span: Option<OffsetRange>,
    /// Whether every line of it will be sealed.
    pub(super) whole: bool,
}

impl Default for RawLines {
    fn default() -> Self {
        RawLines { bytes: 0, span: None, whole: true }
    }
}

/// Extends a span, so that it holds another one.
pub(super) fn grow(span: &mut Option<OffsetRange>, by: OffsetRange) {
    *span = Some(span.map_or(by, |span| OffsetRange { start: span.start.min(by.start), end: span.end.max(by.end) }));
}

/// Where segments go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'p> {
    pub(super) env: &'p Env,
    pub(super) run: &'p str,
    pub(super) lane: &'p Lane,
}

/// Segments in the order of their ranges: each waits for the next one, since the last says which files of the
/// archive are wholly sealed.
pub(super) struct Shelf<'s> {
    place: Place<'s>,
    /// Segments of the lane that stood before.
    segments: Arc<Vec<Segment>>,
    /// Offsets of records that lie in files of their own.
    singles: Vec<Offset>,
    /// Files of lines by name. Those that may still grow hold an offset beyond the segment that is waiting.
    pub(super) files: BTreeMap<String, RawLines>,
    waiting: Option<Ready>,
    written: Vec<Written>,
    /// Files that a segment vouches for.
    vouched: BTreeSet<String>,
}

impl<'s> Shelf<'s> {
    pub(super) fn new(place: Place<'s>, segments: Arc<Vec<Segment>>, singles: Vec<Offset>, files: BTreeMap<String, RawLines>) -> Self {
        Shelf { place, segments, singles, files, waiting: None, written: Vec::new(), vouched: BTreeSet::new() }
    }

    /// Takes the records of one segment, and stores the one before it.
    ///
    /// # Errors
    /// The store's, `SEALED_SEGMENT_INVALID`.
    pub(super) fn add(&mut self, range: OffsetRange, attestation: Option<Attested>, rows: Rows) -> Result<(), Refusal> {
        let inside = self.singles.partition_point(|o| *o < range.start)..self.singles.partition_point(|o| *o <= range.end);
        let singles = self.singles.get(inside).unwrap_or_default();
        let (single_files, single_ranges) = (singles.len() as u64, single_ranges(singles));
        let ready = Ready { range, attestation, encoded: rows.encode().map_err(internal)?, single_files, single_ranges };
        match self.waiting.replace(ready) {
            Some(earlier) => self.put(earlier, false),
            None => Ok(()),
        }
    }

    fn put(&mut self, ready: Ready, last: bool) -> Result<(), Refusal> {
        let Place { env, run, lane } = self.place;
        let raw_files = self.raw_files(ready.range, last);
        let records = ready.encoded.records;
        self.written.push(store::put(env, run, lane, ready, raw_files)?);
        env.progress.advance(records);
        Ok(())
    }

    /// The files of lines whose records lie in this segment and in those before it, and nowhere else.
    fn raw_files(&mut self, range: OffsetRange, last: bool) -> Vec<RawFile> {
        let known: Vec<OffsetRange> = self.segments.iter().map(|s| s.sidecar.range()).chain(self.written.iter().map(|w| w.range)).collect();
        let mut list = Vec::new();
        for (name, file) in &self.files {
            let Some(span) = file.span.filter(|span| file.whole && (last || span.end <= range.end)) else { continue };
            if self.vouched.insert(name.clone()) {
                let holds = |other: &&OffsetRange| other.start <= span.end && span.start <= other.end;
                list.push(RawFile {
                    file: name.clone(),
                    bytes: file.bytes,
                    segments: known.iter().filter(holds).map(|r| stem(*r)).collect(),
                });
            }
        }
        list
    }

    /// Stores the last one; what was written in all.
    ///
    /// # Errors
    /// As [`Shelf::add`].
    pub(super) fn finish(mut self) -> Result<Vec<Written>, Refusal> {
        if let Some(last) = self.waiting.take() {
            self.put(last, true)?;
        }
        Ok(self.written)
    }
}
