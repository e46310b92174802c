//! Cutting work into shards by key: a pure function of the basis, never of cores (decision 2).

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
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
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

    const GOLDEN: u32 = 333;
}
