//! Attestations: the checkpoint of the archive's writer, which says how many records a range holds.

use serde::Deserialize;

use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, OffsetKind, ReasonCode, path_safe};
use crate::pipeline::gate::Refusal;

use super::PHASE;

/// Most attestations of one file.
const MOST: usize = 100_000;

/// So many records in this range, and no more.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// How it numbers records.
    pub offset_kind: OffsetKind,
    /// First offset.
    pub start_offset: Offset,
    /// Last offset.
    pub end_offset: Offset,
    /// Records with an offset in the range.
    pub record_count: u64,
}

impl Attestation {
    /// The lane that it speaks of.
    pub fn lane(&self) -> Lane {
        Lane { topic: self.topic.clone(), partition: self.partition, kind: self.offset_kind }
    }

    /// The range that it speaks of.
    pub fn range(&self) -> OffsetRange {
        OffsetRange { start: self.start_offset, end: self.end_offset }
    }
}

/// A refusal about attestations.
pub(super) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ReasonCode::AttestationInvalid, PHASE, message)
}

/// Reads a list of attestations, sorted by lane and range.
///
/// # Errors
/// `ATTESTATION_INVALID`: no such list, an impossible lane or range, ranges of one lane that overlap.
pub fn parse(text: &[u8]) -> Result<Vec<Attestation>, Refusal> {
    let mut list: Vec<Attestation> = serde_json::from_slice(text).map_err(|e| invalid(format!("no list of attestations: {e}")))?;
    if list.len() > MOST {
        return Err(invalid(format!("{} attestations; the limit is {MOST}", list.len())));
    }
    for attestation in &list {
        let (lane, range) = (attestation.lane(), attestation.range());
        let fits = range.start <= range.end && range.end.fits(lane.kind);
        if !path_safe(&lane.topic) || lane.partition < 0 || !fits {
            return Err(invalid(format!("{} {range}: no lane or no range", crate::text::clip(&lane.to_string(), 80))));
        }
        if lane.kind.dense() && range.span() < Offset::from(attestation.record_count) {
            return Err(invalid(format!("{lane} {range}: {} records do not fit into it", attestation.record_count)));
        }
    }
    list.sort_by_key(|a| (a.lane(), a.range()));
    let overlap = list.windows(2).find_map(|pair| match pair {
        [a, b] if a.lane() == b.lane() && b.start_offset <= a.end_offset => {
            Some(invalid(format!("{} {}: overlaps another", b.lane(), b.range())))
        }
        _ => None,
    });
    overlap.map_or(Ok(list), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn attestations_are_read_strictly() {
        let one = |start: &str, end: &str, count: u64| json!({"topic": "t", "partition": 0, "offset_kind": "kinesis_sequence", "start_offset": start, "end_offset": end, "record_count": count});
        let read = |value: serde_json::Value| parse(value.to_string().as_bytes());
        let list = read(json!([one("10", "20", 3), one("0", "9", 0)])).unwrap();
        assert_eq!(list[0].range().to_string(), "0-9");
        let mut odd = one("0", "9", 1);
        odd["more"] = json!(1);
        let mut dense = one("0", "9", 11);
        dense["offset_kind"] = json!("kafka_offset");
        for wrong in [
            json!({}),
            json!([odd]),
            json!([dense]),
            json!([one("9", "0", 1)]),
            json!([one("0", "9", 1), one("9", "12", 1)]),
            json!([one("x", "9", 1)]),
        ] {
            assert_eq!(read(wrong.clone()).unwrap_err().code, ReasonCode::AttestationInvalid, "{wrong}");
        }
    }
}
