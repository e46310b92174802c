//! Sorting and joining by texts.
//!
//! The texts of a shard's column lie scattered as soon as its rows are not taken in their own order, and each
//! look at one then waits for memory. So a sort looks at eight bytes of every text at a time, as a number that
//! goes along with the row, and only rows that these leave undecided look at the next eight. Whoever then reads
//! the rows one after the other takes them into their order first: a walk over memory that lies in order waits
//! for none of it.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::{Array, StringArray, UInt32Array};

/// Rows that are compared text by text rather than eight bytes at a time.
const FEW: usize = 12;
/// Bytes of a text after which the rest is compared text by text, however many rows are left.
const DEEP: usize = 64;

/// A row with eight bytes of its text.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The bytes as a number that orders as they do; what is missing counts as zero.
    front: u64,
    row: u32,
}

fn front(text: &str, from: usize) -> u64 {
    let rest = text.as_bytes().get(from..).unwrap_or_default();
    match rest.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(rest).for_each(|(slot, byte)| *slot = *byte);
            u64::from_be_bytes(bytes)
        }
    }
}

/// Orders rows whose texts have their first `from` bytes in common.
fn sort(entries: &mut [Entry], texts: &StringArray, from: usize, then: &impl Fn(usize, usize) -> Ordering) {
    let text = |entry: &Entry| texts.value(entry.row as usize);
    if entries.len() <= FEW || from >= DEEP || entries.iter().all(|entry| text(entry).len() <= from) {
        entries.sort_unstable_by(|a, b| text(a).cmp(text(b)).then_with(|| then(a.row as usize, b.row as usize)));
        return;
    }
    for entry in entries.iter_mut() {
        entry.front = front(texts.value(entry.row as usize), from);
    }
    entries.sort_unstable_by_key(|entry| entry.front);
    for undecided in entries.chunk_by_mut(|a, b| a.front == b.front).filter(|run| run.len() > 1) {
        sort(undecided, texts, from + 8, then);
    }
}

/// Rows in the order of their texts and, where those are the same, by `then`.
pub fn by_text(texts: &StringArray, then: impl Fn(usize, usize) -> Ordering) -> UInt32Array {
    let mut entries: Vec<Entry> = (0..texts.len() as u32).map(|row| Entry { front: 0, row }).collect();
    sort(&mut entries, texts, 0, &then);
    entries.iter().map(|entry| entry.row).collect::<Vec<_>>().into()
}

/// The rows with the text `wanted`, searched from the row `from` on; `texts` are in order, and none before that
/// row is the wanted one.
pub fn find(texts: &StringArray, wanted: &str, from: usize) -> Range<usize> {
    let mut rest = (from..texts.len()).map(|row| texts.value(row).cmp(wanted)).peekable();
    let mut start = from;
    while rest.next_if(|order| order.is_lt()).is_some() {
        start += 1;
    }
    start..start + rest.take_while(|order| order.is_eq()).count()
}

/// Where each wanted id stands among `ids`, which are all different; nothing where one is missing. Both are
/// sorted and walked together, which for the ids of a shard is several times faster than a map of texts.
pub fn places<'a>(ids: &StringArray, wanted: impl Iterator<Item = &'a str>) -> Option<Vec<u32>> {
    let wanted: StringArray = wanted.map(Some).collect();
    let (stand, asked) = (by_text(ids, |a, b| a.cmp(&b)), by_text(&wanted, |a, b| a.cmp(&b)));
    let (stand, asked) = (stand.values(), asked.values());
    let mut places = vec![0; asked.len()];
    let mut from = 0;
    for row in asked {
        let id = wanted.value(*row as usize);
        from += stand.get(from..)?.iter().position(|at| ids.value(*at as usize) >= id)?;
        let found = stand.get(from).filter(|at| ids.value(**at as usize) == id)?;
        *places.get_mut(*row as usize)? = *found;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::compute::take;
    use proptest::prelude::*;

    /// Texts that are short, that have long beginnings in common, and that end in zeros; many of them equal.
    const TEXTS: &str = "[ab\\x00]{0,3}|[ab]{7,9}|[a]{29,35}[b\\x00]?|[a]{62,70}b?";

    fn sorted(texts: &StringArray) -> StringArray {
        take(texts, &by_text(texts, |a, b| a.cmp(&b)), None).unwrap().as_string().clone()
    }

    proptest! {
        #[test]
        fn rows_are_in_the_order_of_their_texts(texts in prop::collection::vec(TEXTS, 0..200)) {
            let mut wanted: Vec<u32> = (0..texts.len() as u32).collect();
            wanted.sort_by(|a, b| texts[*a as usize].cmp(&texts[*b as usize]).then(b.cmp(a)));
            let order = by_text(&StringArray::from(texts), |a, b| b.cmp(&a));
            prop_assert_eq!(order.values().to_vec(), wanted);
        }

        #[test]
        fn equal_texts_are_found_in_another_order(texts in prop::collection::vec(TEXTS, 1..40), others in prop::collection::vec(TEXTS, 0..40)) {
            let theirs: Vec<String> = others.iter().chain(&texts).cloned().collect();
            let (mine, theirs) = (sorted(&StringArray::from(texts.clone())), sorted(&StringArray::from(theirs)));
            let (mut at, mut from) = (0, 0);
            while at < mine.len() {
                let (same, found) = (find(&mine, mine.value(at), at), find(&theirs, mine.value(at), from));
                let count = |texts: &mut dyn Iterator<Item = &String>| texts.filter(|t| *t == mine.value(at)).count();
                prop_assert_eq!((same.start, same.len()), (at, count(&mut texts.iter())));
                prop_assert_eq!(found.len(), count(&mut others.iter().chain(&texts)));
                prop_assert!(found.clone().all(|other| theirs.value(other) == mine.value(at)));
                (at, from) = (same.end, found.end);
            }
        }

        #[test]
        fn every_id_is_found_where_it_stands(ids in prop::collection::btree_set(TEXTS, 0..60), asked in prop::collection::vec(any::<prop::sample::Index>(), 0..60)) {
            let ids: Vec<String> = ids.into_iter().rev().collect();
            let array = StringArray::from(ids.clone());
            let asked: Vec<usize> = if ids.is_empty() { Vec::new() } else { asked.iter().map(|i| i.index(ids.len())).collect() };
            let found = places(&array, asked.iter().map(|at| ids[*at].as_str()));
            prop_assert_eq!(found, Some(asked.iter().map(|at| *at as u32).collect()));
            prop_assert_eq!(places(&array, ["none"].into_iter()), None);
        }
    }
}
