//! Sorting and joining by texts, without looking the texts up at every step.
//!
//! The texts of a shard's column lie scattered as soon as its rows are not taken in their own order, and each
//! look at one then waits for memory. So the first bytes of a text go along with its row number. Event ids are
//! seldom longer than that, and then nothing else is ever looked at.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::{Array, StringArray};

/// Bytes of a text that go along.
const FRONT: usize = 32;

/// A row with the beginning of its text.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// The first bytes as numbers that order as they do; what is missing counts as zero.
    front: [u128; 2],
    length: u32,
    row: u32,
}

impl Entry {
    fn of(text: &str, row: u32) -> Self {
        let mut bytes = [0u8; FRONT];
        match text.as_bytes().first_chunk::<FRONT>() {
            Some(first) => bytes = *first,
            None => bytes.iter_mut().zip(text.bytes()).for_each(|(slot, byte)| *slot = byte),
        }
        let half = |from: usize| bytes.get(from..).and_then(|b| b.first_chunk()).map_or(0, |b| u128::from_be_bytes(*b));
        Entry { front: [half(0), half(FRONT / 2)], length: text.len() as u32, row }
    }

    /// The order of two texts; `mine` and `theirs` look them up where their beginnings do not decide.
    fn compare<'t>(&self, other: &Entry, mine: impl FnOnce() -> &'t str, theirs: impl FnOnce() -> &'t str) -> Ordering {
        self.front.cmp(&other.front).then_with(|| {
            if self.length.max(other.length) as usize <= FRONT {
                // Equal but for zeros at the end of one of them.
                self.length.cmp(&other.length)
            } else {
                mine().cmp(theirs())
            }
        })
    }
}

/// Rows in the order of a text column.
#[derive(Debug)]
pub struct ByText {
    texts: StringArray,
    rows: Vec<Entry>,
}

/// Rows ordered by a text and, where it is the same, by `then`.
pub fn by_text(texts: &StringArray, then: impl Fn(usize, usize) -> Ordering) -> ByText {
    let mut rows: Vec<Entry> = (0..texts.len() as u32).map(|row| Entry::of(texts.value(row as usize), row)).collect();
    let text = |entry: &Entry| texts.value(entry.row as usize);
    rows.sort_unstable_by(|a, b| a.compare(b, || text(a), || text(b)).then_with(|| then(a.row as usize, b.row as usize)));
    ByText { texts: texts.clone(), rows }
}

impl ByText {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row at a position of the order.
    pub fn row(&self, at: usize) -> usize {
        self.rows.get(at).map_or(0, |entry| entry.row as usize)
    }

    fn text(&self, entry: &Entry) -> &str {
        self.texts.value(entry.row as usize)
    }

    /// Positions whose text is that of `start`, which is the first of them.
    pub fn same(&self, start: usize) -> Range<usize> {
        self.find(self, start, start)
    }

    /// Positions with the text that stands at a position of another order, searched from `from` on: nothing
    /// before it may be that text.
    pub fn find(&self, other: &ByText, at: usize, from: usize) -> Range<usize> {
        let Some(wanted) = other.rows.get(at) else { return from..from };
        let compare = |entry: &Entry| entry.compare(wanted, || self.text(entry), || other.text(wanted));
        let mut rest = self.rows.get(from..).unwrap_or_default().iter().map(compare).peekable();
        let mut start = from;
        while rest.next_if(|order| order.is_lt()).is_some() {
            start += 1;
        }
        start..start + rest.take_while(|order| order.is_eq()).count()
    }
}

/// Where each wanted id stands among `ids`, which are all different; nothing where one is missing. Both are
/// sorted and walked together, which for the ids of a shard is several times faster than a map of texts.
pub fn places<'a>(ids: &StringArray, wanted: impl Iterator<Item = &'a str>) -> Option<Vec<u32>> {
    let stand = by_text(ids, |a, b| a.cmp(&b));
    let asked = by_text(&wanted.map(Some).collect(), |a, b| a.cmp(&b));
    let mut places = vec![0; asked.len()];
    let mut from = 0;
    for at in 0..asked.len() {
        let found = stand.find(&asked, at, from);
        from = found.start;
        *places.get_mut(asked.row(at))? = u32::try_from(stand.row(found.start)).ok().filter(|_| !found.is_empty())?;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_are_in_the_order_of_their_texts(texts in prop::collection::vec("[ab\\x00]{0,3}|[ab]{30,34}", 0..60)) {
            let array = StringArray::from(texts.clone());
            let mut wanted: Vec<usize> = (0..texts.len()).collect();
            wanted.sort_by(|a, b| texts[*a].cmp(&texts[*b]).then(b.cmp(a)));
            let order = by_text(&array, |a, b| b.cmp(&a));
            prop_assert_eq!((0..order.len()).map(|at| order.row(at)).collect::<Vec<_>>(), wanted);
        }

        #[test]
        fn equal_texts_are_found_in_another_order(texts in prop::collection::vec("[ab\\x00]{0,3}|[a]{29,35}b?", 1..40), others in prop::collection::vec("[ab\\x00]{0,3}|[a]{29,35}b?", 0..40)) {
            let (mine, theirs) = (StringArray::from(texts.clone()), StringArray::from(others.iter().chain(&texts).cloned().collect::<Vec<_>>()));
            let (mine, theirs) = (by_text(&mine, |a, b| a.cmp(&b)), by_text(&theirs, |a, b| a.cmp(&b)));
            let (mut at, mut from) = (0, 0);
            while at < mine.len() {
                let (same, found) = (mine.same(at), theirs.find(&mine, at, from));
                let count = |texts: &mut dyn Iterator<Item = &String>| texts.filter(|t| *t == mine.texts.value(mine.row(at))).count();
                prop_assert_eq!(same.len(), count(&mut texts.iter()));
                prop_assert_eq!(found.len(), count(&mut others.iter().chain(&texts)));
                prop_assert!(found.clone().all(|other| theirs.texts.value(theirs.row(other)) == mine.texts.value(mine.row(at))));
                (at, from) = (same.end, found.end);
            }
        }

        #[test]
        fn every_id_is_found_where_it_stands(ids in prop::collection::btree_set("[ab\\x00]{0,3}|[ab]{30,34}", 0..60), asked in prop::collection::vec(any::<prop::sample::Index>(), 0..60)) {
            let ids: Vec<String> = ids.into_iter().rev().collect();
            let array = StringArray::from(ids.clone());
            let asked: Vec<usize> = if ids.is_empty() { Vec::new() } else { asked.iter().map(|i| i.index(ids.len())).collect() };
            let found = places(&array, asked.iter().map(|at| ids[*at].as_str()));
            prop_assert_eq!(found, Some(asked.iter().map(|at| *at as u32).collect()));
            prop_assert_eq!(places(&array, ["none"].into_iter()), None);
        }
    }
}
