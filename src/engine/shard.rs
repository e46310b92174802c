//! Cutting work into shards by key: a pure function of the basis, never of cores (decision 2).

use arrow::array::{Array, StringArray};

use crate::contract::Offset;
use crate::contract::intent::{OffsetRange, Slice};

/// Offsets that one shard is meant for.
const SPAN_A_SHARD: u64 = 65_536;
/// Shards of a basis with a sparse kind, whose span says nothing about its size.
const SPARSE_SHARDS: usize = 64;
/// Most shards.
const MAX_SHARDS: usize = 1_024;

/// How many shards a basis is cut into: 64 for sparse kinds, else the span divided by 65,536 and
/// rounded up to a power of two, within 1 to 1,024.
pub fn shards(basis: &[Slice]) -> usize {
    if basis.iter().any(|s| !s.lane.kind.dense()) {
        return SPARSE_SHARDS;
    }
    let ranges: Vec<OffsetRange> = basis.iter().map(|s| s.range).collect();
    let span = super::interval::total(&ranges);
    let wanted = span.to_u64().map_or(MAX_SHARDS, |n| usize::try_from(n.div_ceil(SPAN_A_SHARD)).unwrap_or(MAX_SHARDS));
    wanted.clamp(1, MAX_SHARDS).next_power_of_two()
}

/// The shard of a key among `shards` (a power of two): FNV-1a with a finishing mix, the same on every
/// machine and in every version.
pub fn shard_of(key: &[u8], shards: usize) -> u32 {
    finish(key.iter().fold(START, |hash, byte| step(hash, *byte)), shards)
}

/// The shard of every text of a column, by [`shard_of`].
pub fn shards_of(texts: &StringArray, shards: usize) -> Vec<u32> {
    let text = |row: usize| if row < texts.len() { texts.value(row).as_bytes() } else { &[] };
    let mut out = Vec::with_capacity(texts.len() + 3);
    for row in (0..texts.len()).step_by(4) {
        let four @ [a, b, c, d] = [row, row + 1, row + 2, row + 3].map(text);
        if [b, c, d].iter().any(|other| other.len() != a.len()) {
            out.extend(four.map(|text| shard_of(text, shards)));
            continue;
        }
        // Each step of a hash waits for the one before it; those of four texts do not wait for each other.
        let bytes = a.iter().zip(b).zip(c.iter().zip(d));
        let hashes = bytes.fold([START; 4], |[h, i, j, k], ((a, b), (c, d))| [step(h, *a), step(i, *b), step(j, *c), step(k, *d)]);
        out.extend(hashes.map(|hash| finish(hash, shards)));
    }
    out.truncate(texts.len());
    out
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
}

fn finish(mut hash: u64, shards: usize) -> u32 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    (hash & (shards.max(1) as u64 - 1)) as u32
}

/// The number of offsets that a basis spans.
pub fn span(basis: &[Slice]) -> Offset {
    basis.iter().fold(Offset::default(), |sum, s| sum.plus(s.range.span()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::OffsetKind;
    use crate::contract::intent::Lane;

    fn basis(kind: OffsetKind, spans: &[u64]) -> Vec<Slice> {
        spans
            .iter()
            .enumerate()
            .map(|(i, n)| Slice {
                lane: Lane { topic: "t".into(), partition: i as i32, kind },
                range: OffsetRange { start: 0.into(), end: (n - 1).into() },
            })
            .collect()
    }

    #[test]
    fn the_number_of_shards_depends_on_the_basis_alone() {
        assert_eq!(shards(&basis(OffsetKind::KafkaOffset, &[1])), 1);
        assert_eq!(shards(&basis(OffsetKind::KafkaOffset, &[65_536])), 1);
        assert_eq!(shards(&basis(OffsetKind::KafkaOffset, &[65_536, 1])), 2);
        assert_eq!(shards(&basis(OffsetKind::FileLine, &[336_776])), 8);
        assert_eq!(shards(&basis(OffsetKind::KafkaOffset, &[u64::MAX >> 1])), 1024);
        assert_eq!(shards(&basis(OffsetKind::KinesisSequence, &[5])), 64);
    }

    #[test]
    fn the_shard_of_a_key_never_changes() {
        assert_eq!(shard_of(b"N14228", 1024), GOLDEN);
        let counts = (0..8_000).fold([0; 8], |mut counts, i| {
            counts[shard_of(format!("key-{i}").as_bytes(), 8) as usize] += 1;
            counts
        });
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
    }

    #[test]
    fn texts_side_by_side_have_the_shards_that_they_have_alone() {
        for rows in 0..12 {
            let texts: Vec<String> = (0..rows).map(|n| "x".repeat(if n < 8 { 5 } else { n }) + &n.to_string()).collect();
            let alone: Vec<u32> = texts.iter().map(|text| shard_of(text.as_bytes(), 1024)).collect();
            assert_eq!(shards_of(&StringArray::from(texts), 1024), alone);
        }
    }

    const GOLDEN: u32 = 333;
}
