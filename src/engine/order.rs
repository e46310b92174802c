//! Sorting and joining by texts, without looking the texts up at every step.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::{Array, StringArray};

/// The first sixteen bytes of a text as a number that orders as they do. Beside a row number it decides most
/// comparisons; where two fronts are equal the texts themselves have to be looked at.
fn front(text: &str) -> u128 {
    match text.as_bytes().first_chunk::<16>() {
        Some(bytes) => u128::from_be_bytes(*bytes),
        None => {
            let mut front = [0; 16];
            front.iter_mut().zip(text.bytes()).for_each(|(slot, byte)| *slot = byte);
            u128::from_be_bytes(front)
        }
    }
}

/// Rows in the order of a text column.
#[derive(Debug)]
pub struct ByText {
    texts: StringArray,
    /// The front of each row's text and the row, in order.
    rows: Vec<(u128, u32)>,
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
        self.rows.get(at).map_or(0, |(_, row)| *row as usize)
    }

    /// The text at a position of the order.
    pub fn text(&self, at: usize) -> &str {
        self.rows.get(at).map_or("", |(_, row)| self.texts.value(*row as usize))
    }

    /// Positions whose text is that of `start`, which is the first of them.
    pub fn same(&self, start: usize) -> Range<usize> {
        let wanted = self.rows.get(start).map_or(0, |(front, _)| *front);
        self.equal(start, wanted, self.text(start))
    }

    /// Positions with the text that stands at a position of another order, searched from `from` on: nothing
    /// before it may be that text.
    pub fn find(&self, other: &ByText, at: usize, from: usize) -> Range<usize> {
        let Some((wanted, row)) = other.rows.get(at) else { return from..from };
        let text = other.texts.value(*row as usize);
        let before = |(front, row): &(u128, u32)| front.cmp(wanted).then_with(|| self.texts.value(*row as usize).cmp(text)).is_lt();
        let start = from + self.rows.get(from..).unwrap_or_default().iter().take_while(|entry| before(entry)).count();
        self.equal(start, *wanted, text)
    }

    fn equal(&self, start: usize, wanted: u128, text: &str) -> Range<usize> {
        let equal = |(front, row): &(u128, u32)| *front == wanted && self.texts.value(*row as usize) == text;
        start..start + self.rows.get(start..).unwrap_or_default().iter().take_while(|entry| equal(entry)).count()
    }
}

/// Rows ordered by a text and, where it is the same, by `then`. The first bytes of the texts lie beside the
/// row numbers, so that most comparisons look no further.
pub fn by_text(texts: &StringArray, then: impl Fn(usize, usize) -> Ordering) -> ByText {
    let mut rows: Vec<(u128, u32)> = (0..texts.len() as u32).map(|row| (front(texts.value(row as usize)), row)).collect();
    rows.sort_unstable_by(|(front_a, a), (front_b, b)| {
        let (a, b) = (*a as usize, *b as usize);
        front_a.cmp(front_b).then_with(|| texts.value(a).cmp(texts.value(b))).then_with(|| then(a, b))
    });
    ByText { texts: texts.clone(), rows }
}

/// Where each wanted id stands among `ids`: both are sorted and walked together, which for the ids of a
/// shard is several times faster than a map of texts.
pub fn places<'a>(ids: &'a StringArray, wanted: impl Iterator<Item = &'a str>) -> Option<Vec<u32>> {
    let sorted = |ids: &mut Vec<(u128, &'a str, u32)>| ids.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
    let mut stand: Vec<_> = (0..ids.len()).map(|at| (front(ids.value(at)), ids.value(at), at as u32)).collect();
    let mut asked: Vec<_> = wanted.zip(0..).map(|(id, at)| (front(id), id, at)).collect();
    sorted(&mut stand);
    sorted(&mut asked);
    let mut places = vec![0; asked.len()];
    let mut here = stand.iter().peekable();
    for (front, id, at) in asked {
        while here.next_if(|(f, i, _)| (*f, *i) < (front, id)).is_some() {}
        let (_, _, place) = here.peek().filter(|(_, found, _)| *found == id)?;
        *places.get_mut(at as usize)? = *place;
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fronts_never_contradict_the_texts(a in "[ab\0]{0,20}", b in "[ab\0]{0,20}") {
            prop_assert!(front(&a) == front(&b) || front(&a).cmp(&front(&b)) == a.cmp(&b));
        }

        #[test]
        fn rows_are_in_the_order_of_their_texts(texts in prop::collection::vec("[ab]{0,18}", 0..60)) {
            let array = StringArray::from(texts.clone());
            let mut wanted: Vec<usize> = (0..texts.len()).collect();
            wanted.sort_by(|a, b| texts[*a].cmp(&texts[*b]).then(b.cmp(a)));
            let order = by_text(&array, |a, b| b.cmp(&a));
            prop_assert_eq!((0..order.len()).map(|at| order.row(at)).collect::<Vec<_>>(), wanted);
        }

        #[test]
        fn equal_texts_are_found_in_another_order(texts in prop::collection::vec("[ab]{14,18}", 1..40), others in prop::collection::vec("[ab]{14,18}", 0..40)) {
            let (mine, theirs) = (StringArray::from(texts.clone()), StringArray::from(others.iter().chain(&texts).cloned().collect::<Vec<_>>()));
            let (mine, theirs) = (by_text(&mine, |a, b| a.cmp(&b)), by_text(&theirs, |a, b| a.cmp(&b)));
            let (mut at, mut from) = (0, 0);
            while at < mine.len() {
                let (same, found) = (mine.same(at), theirs.find(&mine, at, from));
                let count = |texts: &mut dyn Iterator<Item = &String>| texts.filter(|t| *t == mine.text(at)).count();
                prop_assert_eq!(same.len(), count(&mut texts.iter()));
                prop_assert_eq!(found.len(), count(&mut others.iter().chain(&texts)));
                prop_assert!(found.clone().all(|other| theirs.text(other) == mine.text(at)));
                (at, from) = (same.end, found.end);
            }
        }

        #[test]
        fn every_id_is_found_where_it_stands(ids in prop::collection::btree_set("[ab]{0,18}", 0..60), asked in prop::collection::vec(any::<prop::sample::Index>(), 0..60)) {
            let ids: Vec<String> = ids.into_iter().rev().collect();
            let array = StringArray::from(ids.clone());
            let asked: Vec<usize> = if ids.is_empty() { Vec::new() } else { asked.iter().map(|i| i.index(ids.len())).collect() };
            let found = places(&array, asked.iter().map(|at| ids[*at].as_str()));
            prop_assert_eq!(found, Some(asked.iter().map(|at| *at as u32).collect()));
            prop_assert_eq!(places(&array, ["none"].into_iter()), None);
        }
    }
}
