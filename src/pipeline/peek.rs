//! Looking at what a gate has just proved: the first rows, or those that are looked for. Nothing is read
//! until somebody asks, and then no more than [`MAX_ROWS`] come back from at most [`MAX_SCAN`] read.

mod draft;
mod spooled;

use std::collections::BTreeMap;

use serde_json::Value;

use super::gate::{Env, Refusal};
use super::pin::Pinned;

/// Most rows of an answer.
pub const MAX_ROWS: usize = 200;
/// Most rows that are read for one answer.
pub const MAX_SCAN: u64 = 4_000_000;
/// Most characters of a cell.
const CELL: usize = 160;

/// What can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Look {
    /// What was pinned.
    Pins,
    /// Delivered events, in canonical order.
    Events,
    /// The label that each row has, or why it has none.
    Labels,
    /// Assertions that were observed after the cut-off.
    Late,
    /// Rows of the data set.
    Rows,
    /// The events that the windows of one event cover.
    Window,
    /// What a gate that refused has found.
    Findings,
}

impl Look {
    /// All of them.
    pub const ALL: [Look; 7] = [Look::Pins, Look::Events, Look::Labels, Look::Late, Look::Rows, Look::Window, Look::Findings];

    /// Its name, as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Look::Pins => "pins",
            Look::Events => "events",
            Look::Labels => "labels",
            Look::Late => "late",
            Look::Rows => "rows",
            Look::Window => "window",
            Look::Findings => "findings",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Look::ALL.into_iter().find(|look| look.name() == name)
    }
}

/// A question to a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What to look at.
    pub look: Look,
    /// What the rows must hold: part of an event id, key or assertion id, or an offset as `17` or
    /// `<partition>/17`; empty for the first rows. [`Look::Window`] needs the event id.
    pub find: String,
    /// How many rows at most; never more than [`MAX_ROWS`].
    pub limit: usize,
}

/// A table that answers a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peeked {
    /// What was asked.
    pub question: Question,
    /// Names of the columns.
    pub columns: Vec<String>,
    /// The rows; cells are data from outside and have to be made safe before a terminal sees them.
    pub rows: Vec<Vec<String>>,
    /// Rows that were read.
    pub scanned: u64,
    /// Rows that fit, as far as was read.
    pub matched: u64,
    /// Whether everything was read that there is.
    pub whole: bool,
    /// What has to be known about the rows, if anything.
    pub note: Option<String>,
}

/// A proof that can be looked at.
pub trait Peek {
    /// What it has to show.
    fn looks(&self) -> &'static [Look];

    /// Answers a question, within the bounds of this module.
    ///
    /// # Errors
    /// What cannot be read; a look that this proof does not have, in words.
    fn peek(&self, env: &Env, question: &Question) -> Result<Peeked, Refusal>;
}

/// A text as a cell.
fn cell(text: &str) -> String {
    crate::text::clip(text, CELL).into_owned()
}

/// A question that a proof has no answer to.
fn nothing_there(phase: super::Phase, question: &Question) -> Refusal {
    Refusal::new(crate::contract::ReasonCode::InternalError, phase, format!("this gate has no {} to show", question.look.name()))
}

/// The best rows of a scan: the first by an order of their own, as many as were asked for.
struct Best<K: Ord> {
    limit: usize,
    rows: BTreeMap<K, Vec<String>>,
    scanned: u64,
    matched: u64,
    whole: bool,
}

impl<K: Ord + Clone> Best<K> {
    fn new(question: &Question) -> Self {
        Best { limit: question.limit.clamp(1, MAX_ROWS), rows: BTreeMap::new(), scanned: 0, matched: 0, whole: true }
    }

    /// Takes a row that fits, unless there are enough better ones; `row` is only made where it is kept.
    fn offer(&mut self, key: K, row: impl FnOnce() -> Vec<String>) {
        if self.rows.contains_key(&key) {
            return;
        }
        self.matched += 1;
        if self.rows.len() >= self.limit {
            if self.rows.last_key_value().is_none_or(|(last, _)| *last < key) {
                return;
            }
            self.rows.pop_last();
        }
        self.rows.insert(key, row());
    }

    fn answer(self, question: &Question, columns: Vec<String>, note: Option<String>) -> Peeked {
        Peeked {
            question: question.clone(),
            columns,
            rows: self.rows.into_values().collect(),
            scanned: self.scanned,
            matched: self.matched,
            whole: self.whole,
            note,
        }
    }
}

/// The leaves of a document as (path, value), in its own order.
fn leaves(value: &Value, path: &str, out: &mut Vec<(String, String)>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| leaves(value, &below(key), out)),
        Value::Array(list) if list.iter().any(|v| v.is_object() || v.is_array()) => {
            list.iter().enumerate().for_each(|(i, value)| leaves(value, &below(&i.to_string()), out));
        }
        Value::String(text) => out.push((path.to_owned(), text.clone())),
        other => out.push((path.to_owned(), other.to_string())),
    }
}

/// A document's leaves as a table.
fn document(question: &Question, value: &Value) -> Peeked {
    let mut all = Vec::new();
    leaves(value, "", &mut all);
    let mut best = Best::new(question);
    for (at, (path, value)) in all.into_iter().enumerate() {
        best.scanned += 1;
        if question.find.is_empty() || path.contains(&question.find) || value.contains(&question.find) {
            best.offer(at, || vec![cell(&path), cell(&value)]);
        }
    }
    best.answer(question, vec!["what".into(), "value".into()], None)
}

impl Peek for Pinned {
    fn looks(&self) -> &'static [Look] {
        &[Look::Pins]
    }

    fn peek(&self, _: &Env, question: &Question) -> Result<Peeked, Refusal> {
        match question.look {
            Look::Pins => Ok(document(question, self.plan())),
            _ => Err(nothing_there(super::Phase::Pins, question)),
        }
    }
}

/// A refusal shows what was found.
impl Peek for Refusal {
    fn looks(&self) -> &'static [Look] {
        &[Look::Findings]
    }

    fn peek(&self, _: &Env, question: &Question) -> Result<Peeked, Refusal> {
        match question.look {
            Look::Findings => Ok(document(question, self.artifact.as_ref().unwrap_or(&Value::Null))),
            _ => Err(nothing_there(self.phase, question)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_and_the_rest_counted() {
        let question = Question { look: Look::Events, find: String::new(), limit: 3 };
        let mut best = Best::new(&question);
        for n in [5, 1, 4, 1, 3, 9, 2] {
            best.offer(n, || vec![n.to_string()]);
        }
        let answer = best.answer(&question, vec!["n".into()], None);
        assert_eq!(answer.rows, [["1"], ["2"], ["3"]]);
        // The second 1 is the same row served twice.
        assert_eq!(answer.matched, 6);
    }

    #[test]
    fn no_question_gets_more_than_the_limit() {
        let question = Question { look: Look::Pins, find: String::new(), limit: usize::MAX };
        let value: Value = (0..5_000).map(|n| serde_json::json!({ "n": n })).collect();
        let answer = document(&question, &value);
        assert_eq!((answer.rows.len(), answer.matched), (MAX_ROWS, 5_000));
        let one = document(&Question { find: "4999".into(), ..question }, &value);
        assert_eq!(one.rows, [["4999.n", "4999"]]);
    }

    #[test]
    fn every_look_has_a_name_of_its_own() {
        for look in Look::ALL {
            assert_eq!(Look::named(look.name()), Some(look));
        }
        assert_eq!(Look::named("everything"), None);
    }
}
