//! Sealed segments: records of the raw archive that were verified once, as columns. They lie below
//! `<run>/ofs/sealed/`, are a derived cache and never part of the truth: without them a build reads the raw
//! records and comes to the same rows.
//!
//! Each segment is a Parquet file and a [`Sidecar`] that is written after it. What a build checks of a segment
//! is one digest; what it reads are the columns that it needs. Segments may overlap where they agree. A range
//! that a segment's writer attested holds nothing but the segment's own records, which is how a sparse offset
//! kind can be complete (O066).

mod columns;
mod log;
mod read;
mod sidecar;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

pub use columns::{Encoded, Row, Rows, SEGMENT_RECORDS, SEGMENT_TEXT};
pub use log::Sealed;
pub use sidecar::{Attested, Proof, ProvedBy, RawFile, SCHEMA, SegmentFile, Sidecar, Span, WRITER_REVISION, single_ranges, stem};

use super::{SourceError, of_store};
use crate::contract::ReasonCode;
use crate::contract::intent::{Lane, OffsetRange};
use crate::store::{ErrorKind, Ref, Store, StoreError};

/// Largest sidecar in bytes.
const SIDECAR_BYTES: u64 = 64 << 20;

/// The folder of a lane's segments.
pub fn folder(run: &str, lane: &Lane) -> Ref {
    let (topic, partition, kind) =
        (format!("topic={}", lane.topic), format!("partition={}", lane.partition), format!("offset_kind={}", lane.kind));
    Ref::of(&[run, "ofs", "sealed", &topic, &partition, &kind])
}

/// A segment: its sidecar, and where its file lies.
#[derive(Debug)]
pub struct Segment {
    /// The sidecar.
    pub sidecar: Sidecar,
    /// The file.
    pub file: Ref,
}

/// A segment that cannot be used, and the way out.
pub fn invalid(place: &Ref, what: impl std::fmt::Display) -> SourceError {
    let stem = place.as_str().trim_end_matches(".parquet").trim_end_matches(".json");
    let message = format!("{what}; remove {stem}.parquet and {stem}.json, they are a cache, and `ofs archive seal` writes them again");
    SourceError { place: place.as_str().to_owned(), message, code: ReasonCode::SealedSegmentInvalid }
}

/// The segments of one run, read once a lane.
#[derive(Debug)]
pub struct Index {
    store: Arc<dyn Store>,
    run: String,
    lanes: Mutex<BTreeMap<Lane, Arc<Vec<Segment>>>>,
}

impl Index {
    /// The segments of `run`.
    pub fn new(store: Arc<dyn Store>, run: &str) -> Self {
        Index { store, run: run.to_owned(), lanes: Mutex::new(BTreeMap::new()) }
    }

    /// The segments of a lane by their first offset.
    ///
    /// # Errors
    /// `SEALED_SEGMENT_INVALID` for a sidecar that is none, or without its file; the environment's.
    pub fn lane(&self, lane: &Lane) -> Result<Arc<Vec<Segment>>, SourceError> {
        let known = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).get(lane).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = Arc::new(self.load(lane)?);
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).insert(lane.clone(), found.clone());
        Ok(found)
    }

    fn load(&self, lane: &Lane) -> Result<Vec<Segment>, SourceError> {
        let folder = folder(&self.run, lane);
        let prefix = format!("{folder}/");
        let listed: BTreeSet<String> =
            self.store.list(&folder).map_err(of_store)?.into_iter().map(|(at, _)| at.as_str().to_owned()).collect();
        let mut segments = Vec::new();
        for at in &listed {
            let name = at.strip_prefix(&prefix).filter(|name| !name.contains('/')).and_then(|name| name.strip_suffix(".json"));
            let Some(name) = name.filter(|name| name.starts_with("segment-")) else { continue };
            let place = folder.join(&format!("{name}.json"));
            let text = crate::store::read(self.store.as_ref(), &place, SIDECAR_BYTES).map_err(|e| unreadable(&place, e))?;
            let sidecar = Sidecar::parse(&text, &self.run, lane, name).map_err(|what| invalid(&place, what))?;
            let file = folder.join(&sidecar.file.path);
            if !listed.contains(file.as_str()) {
                return Err(invalid(&file, "the sidecar's file is not there"));
            }
            segments.push(Segment { sidecar, file });
        }
        segments.sort_by_key(|s| s.sidecar.range());
        Ok(segments)
    }

    /// What the lane's segments stand for, so that it need not be read from the raw archive.
    ///
    /// # Errors
    /// As [`Index::lane`].
    pub fn cover(&self, lane: &Lane) -> Result<Cover, SourceError> {
        let segments = self.lane(lane)?;
        let names: BTreeSet<String> = segments.iter().map(|s| stem(s.sidecar.range())).collect();
        let mut cover = Cover { segments: segments.clone(), ..Cover::default() };
        for segment in segments.iter() {
            for raw in segment.sidecar.raw_files.iter().filter(|raw| raw.segments.iter().all(|name| names.contains(name))) {
                cover.files.insert((raw.file.clone(), raw.bytes));
            }
            cover.records.extend(segment.sidecar.record_ranges.iter().map(|span| span.range()));
            // Of a sparse kind it is not said which offsets the records have, but the range of an attestation holds no others.
            cover.records.extend(segment.sidecar.attested().filter(|_| !lane.kind.dense()));
        }
        cover.records = merged(std::mem::take(&mut cover.records));
        Ok(cover)
    }

    /// The ranges of a lane in which nothing but the segments' records ever was, sorted and disjoint.
    ///
    /// # Errors
    /// As [`Index::lane`].
    pub fn attested(&self, lane: &Lane) -> Result<Vec<OffsetRange>, SourceError> {
        Ok(merged(self.lane(lane)?.iter().filter_map(|s| s.sidecar.attested()).collect()))
    }
}

fn unreadable(place: &Ref, error: StoreError) -> SourceError {
    match error.kind {
        ErrorKind::TooLarge => invalid(place, error.message),
        _ => of_store(error),
    }
}

/// What segments stand for.
#[derive(Debug, Default)]
pub struct Cover {
    /// Files of lines by name and size.
    files: BTreeSet<(String, u64)>,
    /// Offsets that are sealed for certain.
    records: Vec<OffsetRange>,
    /// The segments, each of which says what single-record files it was made of.
    segments: Arc<Vec<Segment>>,
}

impl Cover {
    /// Whether every record of this file of lines is sealed.
    pub fn file(&self, name: &str, bytes: u64) -> bool {
        self.files.iter().any(|(file, size)| file == name && *size == bytes)
    }

    /// Which of these single records (sorted) are sealed. A segment names those that lay in its range: where there are others
    /// now, or of a dense kind fewer, all of the range are read, for a new one may contradict what was sealed (O057).
    pub fn singles(&self, offsets: &[crate::contract::Offset]) -> Vec<bool> {
        let mut sealed: Vec<bool> = offsets.iter().map(|o| contains(&self.records, *o)).collect();
        for segment in self.segments.iter() {
            let range = segment.sidecar.range();
            let inside = offsets.partition_point(|o| *o < range.start)..offsets.partition_point(|o| *o <= range.end);
            if !offsets.get(inside.clone()).is_some_and(|singles| segment.sidecar.made_of(singles)) {
                sealed.get_mut(inside).into_iter().flatten().for_each(|slot| *slot = false);
            }
        }
        sealed
    }
}

/// Whether one of the ranges, sorted and disjoint, holds the offset.
pub fn contains(ranges: &[OffsetRange], offset: crate::contract::Offset) -> bool {
    let after = ranges.partition_point(|r| r.start <= offset);
    after.checked_sub(1).and_then(|i| ranges.get(i)).is_some_and(|r| r.contains(offset))
}

/// The ranges sorted, with those that touch or overlap made one.
pub fn merged(mut ranges: Vec<OffsetRange>) -> Vec<OffsetRange> {
    ranges.sort();
    let mut out: Vec<OffsetRange> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end.next() => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}
