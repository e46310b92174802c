//! The document beside a segment: what the segment proves, and of what it was made. It is written last, so a
//! segment without one does not exist.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::columns::{ColumnSpec, SEGMENT_RECORDS, runs};
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, OffsetKind};

/// The document's schema.
pub const SCHEMA: &str = "ofs.sealed_segment.v1";
/// Raised with any change of the layout of segments, of the writer's settings, or of its crates.
pub const WRITER_REVISION: &str = "2";
/// Most ranges of single-record files that a sidecar names: one a record of a full segment.
const SINGLE_RANGES: usize = SEGMENT_RECORDS;

/// A range, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// First offset.
    pub start_offset: Offset,
    /// Last offset.
    pub end_offset: Offset,
}

impl Span {
    /// As the other rooms say it.
    pub fn range(self) -> OffsetRange {
        OffsetRange { start: self.start_offset, end: self.end_offset }
    }
}

impl From<OffsetRange> for Span {
    fn from(range: OffsetRange) -> Self {
        Span { start_offset: range.start, end_offset: range.end }
    }
}

/// What proves that nothing of the ranges is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProvedBy {
    /// Every integer of the ranges is a record.
    Contiguity,
    /// The writer of the archive counted its records.
    Attestation,
}

/// What the writer of the archive attested: so many records in this range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attested {
    /// First offset.
    pub start_offset: Offset,
    /// Last offset.
    pub end_offset: Offset,
    /// Records with an offset in the range.
    pub record_count: u64,
}

/// What a segment proves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// How.
    pub by: ProvedBy,
    /// The ranges, in order and disjoint.
    pub ranges: Vec<Span>,
    /// The attestation of which this is a part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attested>,
}

/// The segment's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentFile {
    /// Its name, in the folder of this document.
    pub path: String,
    /// BLAKE3 of its bytes.
    pub blake3: String,
    /// Its size.
    pub bytes: u64,
}

/// A file of records, one a line, all of whose records are sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawFile {
    /// Its name in the archive's folder of the partition.
    pub file: String,
    /// Its size when it was read; of another size, it is read again.
    pub bytes: u64,
    /// The segments, beside this one, that its records may lie in. Where one of them is gone, it is read again.
    pub segments: Vec<String>,
}

/// A sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    /// [`SCHEMA`].
    pub schema_version: String,
    /// [`WRITER_REVISION`].
    pub writer_revision: String,
    /// The run.
    pub platform_run_id: String,
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// How it numbers records.
    pub offset_kind: OffsetKind,
    /// First offset that the segment speaks of, as in its name.
    pub start_offset: Offset,
    /// Last offset that it speaks of.
    pub end_offset: Offset,
    /// What is proved.
    pub proof: Proof,
    /// Records.
    pub records: u64,
    /// For a dense kind, exactly which offsets the records have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub record_ranges: Vec<Span>,
    /// Single-record files that lay in the range when it was sealed.
    pub single_files: u64,
    /// Exactly which offsets those files had. Left out where the ranges would be more than a full segment has records, and
    /// unknown to writers before revision 2: then every single-record file of the range is read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub single_ranges: Vec<Span>,
    /// BLAKE3 over each record's offset (24 bytes, big-endian) and bare SHA-256, in order: what the proof of a
    /// replay digests.
    pub records_digest: String,
    /// How many payload hashes were verified, by the recipe under which they were declared.
    pub verified_hashes: BTreeMap<String, u64>,
    /// The file.
    pub file: SegmentFile,
    /// Its columns.
    pub schema: Vec<ColumnSpec>,
    /// Whether every payload field has a column; else some are in the envelope only.
    pub payload_complete: bool,
    /// Files of the archive that are wholly sealed now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raw_files: Vec<RawFile>,
}

/// How segments of a range are called.
pub fn stem(range: OffsetRange) -> String {
    format!("segment-{}-{}", range.start, range.end)
}

/// The ranges of these offsets (sorted), or none where they are too many to be named.
pub fn single_ranges(offsets: &[Offset]) -> Vec<Span> {
    let ranges: Vec<Span> = runs(offsets.iter().copied()).take(SINGLE_RANGES + 1).map(Span::from).collect();
    if ranges.len() > SINGLE_RANGES { Vec::new() } else { ranges }
}

impl Sidecar {
    /// The range that the segment speaks of.
    pub fn range(&self) -> OffsetRange {
        OffsetRange { start: self.start_offset, end: self.end_offset }
    }

    /// The range of which the segment holds every record that there ever was.
    pub fn attested(&self) -> Option<OffsetRange> {
        (self.proof.by == ProvedBy::Attestation).then(|| self.range())
    }

    /// Whether the single-record files of the range, by their offsets (sorted), are those that it was made of. Of a sparse kind some may
    /// be gone; of a dense one, those that are left are read where one is gone, for it may have been replaced.
    pub fn made_of(&self, singles: &[Offset]) -> bool {
        if self.offset_kind.dense() && singles.len() as u64 != self.single_files {
            return false;
        }
        let mut ranges = self.single_ranges.iter().peekable();
        singles.iter().all(|offset| {
            // Both are sorted, so a range that ends before this offset has none of those that follow.
            while ranges.next_if(|range| range.end_offset < *offset).is_some() {}
            ranges.peek().is_some_and(|range| range.start_offset <= *offset)
        })
    }

    /// Reads one, and holds it against where it lies.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &[u8], run: &str, lane: &Lane, name: &str) -> Result<Self, String> {
        let found: Sidecar = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        if found.schema_version != SCHEMA {
            return Err(format!("expected {SCHEMA}, found {}", crate::text::clip(&found.schema_version, 60)));
        }
        let here = found.platform_run_id == run
            && (found.topic.as_str(), found.partition, found.offset_kind) == (lane.topic.as_str(), lane.partition, lane.kind);
        let called = stem(found.range());
        if !here || called != name || found.file.path != format!("{called}.parquet") {
            return Err("it speaks of another segment than its place and name do".into());
        }
        let inside = |span: &Span| {
            span.start_offset <= span.end_offset && span.start_offset >= found.start_offset && span.end_offset <= found.end_offset
        };
        let ascending =
            |list: &[Span]| list.windows(2).all(|pair| matches!(pair, [a, b] if a.end_offset < b.start_offset)) && list.iter().all(inside);
        let lists = [&found.proof.ranges, &found.record_ranges, &found.single_ranges];
        if found.start_offset > found.end_offset || !lists.into_iter().all(|list| ascending(list)) {
            return Err("its ranges make no sense".into());
        }
        let singles = found.single_ranges.iter().fold(Offset::default(), |sum, span| sum.plus(span.range().span()));
        if !found.single_ranges.is_empty() && singles.to_u64() != Some(found.single_files) {
            return Err("it names other single-record files than it counts".into());
        }
        let whole = found.proof.ranges == [Span::from(found.range())];
        match found.proof.by {
            ProvedBy::Attestation if !whole || found.proof.attestation.is_none() => Err("an attested range without its attestation".into()),
            ProvedBy::Contiguity if found.proof.ranges != found.record_ranges => Err("it proves other offsets than it holds".into()),
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_files_are_named_unless_their_ranges_are_too_many() {
        let named =
            |offsets: &[Offset]| -> Vec<String> { single_ranges(offsets).into_iter().map(|span| span.range().to_string()).collect() };
        assert_eq!(named(&[]), [""; 0]);
        assert_eq!(named(&[3, 4, 5, 7, 9, 10].map(Offset::from)), ["3-5", "7", "9-10"]);
        let apart: Vec<Offset> = (0..=SINGLE_RANGES as u64).map(|n| Offset::from(2 * n)).collect();
        assert_eq!(named(&apart), [""; 0]);
        assert_eq!(named(apart.get(1..).unwrap()).len(), SINGLE_RANGES);
    }
}
