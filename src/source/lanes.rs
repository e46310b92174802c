//! Which partitions there are, by the folders that hold their records.

use std::collections::BTreeSet;

use crate::contract::OffsetKind;
use crate::contract::intent::Lane;
use crate::store::{Ref, Store, StoreError};

/// The lanes that hold objects below a folder, as `<folder>/topic=<t>/partition=<p>/offset_kind=<k>/<file>`.
///
/// # Errors
/// As of [`Store::list`].
pub fn lanes_below(store: &dyn Store, folder: &Ref) -> Result<BTreeSet<Lane>, StoreError> {
    let listed = store.list(folder)?;
    Ok(listed.iter().filter_map(|(at, _)| lane_of(at.as_str().strip_prefix(folder.as_str())?)).collect())
}

fn lane_of(path: &str) -> Option<Lane> {
    let mut parts = path.split('/').skip(1);
    let mut part = |name: &str| parts.next()?.strip_prefix(name);
    let (topic, partition, kind) = (part("topic=")?, part("partition=")?, part("offset_kind=")?);
    Some(Lane { topic: topic.to_owned(), partition: partition.parse().ok().filter(|p| *p >= 0)?, kind: OffsetKind::parse(kind)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_named_by_its_three_folders_and_by_nothing_else() {
        let told = |path: &str| lane_of(path).map(|lane| (lane.topic, lane.partition, lane.kind));
        let lane = Some(("t.v1".to_owned(), 3, OffsetKind::KafkaOffset));
        assert_eq!(told("/topic=t.v1/partition=3/offset_kind=kafka_offset/offset=1.json"), lane);
        for other in [
            "",
            "/x",
            "/topic=t/partition=-1/offset_kind=kafka_offset/f",
            "/topic=t/partition=3/offset_kind=other/f",
            "/partition=3/topic=t",
        ] {
            assert_eq!(told(other), None, "{other}");
        }
    }
}
