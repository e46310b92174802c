//! Sealing a lane while its archive is being written: whoever makes the records hands each over once, in the
//! order of its offset and verified, so that nothing is read back. What is cut, encoded, proved and stored is
//! what sealing that archive afterwards comes to, byte for byte.

use std::collections::BTreeMap;

use super::census::Cutter;
use super::shelf::{Place, RawLines, Shelf, grow};
use super::{LaneSealed, Outcome, PHASE, internal};
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, ReasonCode};
use crate::pipeline::gate::{Env, Refusal};
use crate::source::sealed::{Index, Row, Rows};

/// A lane of a dense offset kind that is sealed as it is written. Holds two segments at the most.
pub struct Stream<'s> {
    place: Place<'s>,
    shelf: Shelf<'s>,
    cutter: Cutter<'static>,
    rows: Rows,
    last: Option<Offset>,
    /// The file of lines that is being written.
    file: Option<(String, RawLines)>,
}

impl<'s> Stream<'s> {
    /// Begins a lane of which nothing is sealed yet.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` for a sparse kind, which nothing but an attestation proves; `SEALED_SEGMENT_CONFLICT` where
    /// segments stand; the store's.
    pub fn begin(env: &'s Env, run: &'s str, lane: &'s Lane) -> Result<Self, Refusal> {
        if !lane.kind.dense() {
            return Err(internal(format!("{lane}: a sparse kind is sealed with an attestation only")));
        }
        let segments = Index::new(env.store.clone(), run).lane(lane).map_err(|e| Refusal::of_source(PHASE, &e))?;
        if !segments.is_empty() {
            let message = format!("{lane}: segments stand where the archive is only being written");
            return Err(Refusal::new(ReasonCode::SealedSegmentConflict, PHASE, message));
        }
        let place = Place { env, run, lane };
        let shelf = Shelf::new(place, segments, Vec::new(), BTreeMap::new());
        Ok(Stream { place, shelf, cutter: Cutter::new(&[]), rows: Rows::new(lane.kind), last: None, file: None })
    }

    /// The records that follow lie in this file of lines.
    pub fn open(&mut self, name: String) {
        self.file = Some((name, RawLines::default()));
    }

    /// That file is written, and has so many bytes.
    pub fn close(&mut self, bytes: u64) {
        if let Some((name, file)) = self.file.take() {
            self.shelf.files.insert(name, RawLines { bytes, ..file });
        }
    }

    /// A record of the lane, whose hash was taken of its canonical envelope, which is this text.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` for a record out of order or an envelope that is no JSON; the store's; the order to stop.
    pub fn push(&mut self, row: Row<'_>) -> Result<(), Refusal> {
        if self.last.replace(row.offset).is_some_and(|last| row.offset <= last) {
            return Err(internal(format!("{} offset {}: out of order", self.place.lane, row.offset)));
        }
        let closed = self.cutter.closed();
        self.cutter.push(row.offset, row.envelope.len() as u64, true);
        if self.cutter.closed() > closed {
            self.place.env.check(PHASE)?;
            self.shelve()?;
        }
        if let Some((_, file)) = &mut self.file {
            grow(&mut file.span, OffsetRange { start: row.offset, end: row.offset });
        }
        self.rows.push(row).map_err(internal)
    }

    /// Hands on the records of a window.
    fn shelve(&mut self) -> Result<(), Refusal> {
        let rows = std::mem::replace(&mut self.rows, Rows::new(self.place.lane.kind));
        rows.span().map_or(Ok(()), |range| self.shelf.add(range, None, rows))
    }

    /// Stores what is left.
    ///
    /// # Errors
    /// `INTERNAL_ERROR` where a file of lines is still open; the store's.
    pub fn finish(mut self) -> Result<LaneSealed, Refusal> {
        if let Some((name, _)) = &self.file {
            return Err(internal(format!("{}: {name} is still being written", self.place.lane)));
        }
        self.shelve()?;
        let segments = self.shelf.finish()?;
        let outcome = if segments.is_empty() { Outcome::UpToDate } else { Outcome::Sealed };
        Ok(LaneSealed { lane: self.place.lane.clone(), outcome, segments, unreadable: 0, refusal: None })
    }
}
