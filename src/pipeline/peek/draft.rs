//! Looking at the rows of a draft, part by part, as they lie in the store.

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;

use super::spooled::shown;
use super::{Best, Look, MAX_SCAN, Peek, Peeked, Question, nothing_there};
use crate::contract::ReasonCode;
use crate::engine::dataset_file::read_part;
use crate::pipeline::feature::{Drafted, PartFile};
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::store::{ErrorKind, read};
use crate::time::Instant;

const PHASE: Phase = Phase::Features;

/// Where the columns stand that every data set has.
mod column {
    pub(super) const EVENT_ID: usize = 1;
    pub(super) const TS: usize = 2;
    pub(super) const PARTITION: usize = 4;
    pub(super) const OFFSET: usize = 5;
    pub(super) const KEY: usize = 8;
}

/// A batch of a part with the columns that rows are looked for by.
struct Rows<'b> {
    batch: &'b RecordBatch,
    event_id: &'b StringArray,
    key: &'b StringArray,
}

impl<'b> Rows<'b> {
    fn of(batch: &'b RecordBatch) -> Option<Self> {
        let text = |at: usize| batch.columns().get(at)?.as_string_opt::<i32>();
        Some(Rows { batch, event_id: text(column::EVENT_ID)?, key: text(column::KEY)? })
    }

    fn ts(&self, row: usize) -> i64 {
        let stamps = self.batch.columns().get(column::TS).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        stamps.map_or(0, |c| c.value(row))
    }

    fn value(&self, at: usize, row: usize) -> String {
        self.batch.columns().get(at).map_or_else(String::new, |c| shown(c.as_ref(), row))
    }

    fn found(&self, row: usize, find: &str) -> bool {
        let at = || {
            let offset = self.value(column::OFFSET, row);
            offset == find || find.strip_prefix(&format!("{}/", self.value(column::PARTITION, row))) == Some(offset.as_str())
        };
        find.is_empty() || self.event_id.value(row).contains(find) || self.key.value(row).contains(find) || at()
    }

    fn cells(&self, row: usize) -> Vec<String> {
        let stamp = |at: usize| at == column::TS;
        (0..self.batch.num_columns()).map(|at| if stamp(at) { Instant(self.ts(row)).to_string() } else { self.value(at, row) }).collect()
    }
}

/// Visits the rows of a draft in canonical order until the visitor has enough.
fn scan(drafted: &Drafted, env: &Env, mut each: impl FnMut(&Rows<'_>) -> bool) -> Result<bool, Refusal> {
    let broken = |message: String| Refusal::new(ReasonCode::DigestMismatch, PHASE, message);
    let mut scanned = 0u64;
    for file in drafted.files() {
        env.check(PHASE)?;
        if scanned >= MAX_SCAN {
            return Ok(false);
        }
        scanned += file.stats.rows;
        for batch in read_part(part(drafted, env, file)?).map_err(broken)? {
            let batch = batch.map_err(|e| broken(e.to_string()))?;
            let Some(rows) = Rows::of(&batch) else { return Err(broken(format!("{} lacks a fixed column", file.path))) };
            if !each(&rows) {
                return Ok(true);
            }
        }
    }
    Ok(true)
}

/// The bytes of a part, from staging or, once published, from its final place.
fn part(drafted: &Drafted, env: &Env, file: &PartFile) -> Result<Bytes, Refusal> {
    let placed = drafted.pinned().dataset_ref().join(&file.path);
    let bytes = read(env.store.as_ref(), &drafted.staged_ref(file), file.stats.bytes)
        .or_else(|e| if e.kind == ErrorKind::NotFound { read(env.store.as_ref(), &placed, file.stats.bytes) } else { Err(e) });
    bytes.map(Bytes::from).map_err(|e| Refusal::of_store(PHASE, &e))
}

fn rows(drafted: &Drafted, env: &Env, question: &Question) -> Result<Peeked, Refusal> {
    let mut best = Best::new(question);
    let mut number = 0u64;
    let whole = scan(drafted, env, |rows| {
        for row in 0..rows.batch.num_rows() {
            number += 1;
            best.scanned = number;
            if rows.found(row, &question.find) {
                best.offer(number, || rows.cells(row));
            }
        }
        // In canonical order already: what follows is never better.
        best.rows.len() < best.limit
    })?;
    best.whole = whole && number == drafted.rows();
    let schema = crate::pipeline::feature::dataset_schema(drafted.pinned());
    Ok(best.answer(question, schema.fields().iter().map(|f| f.name().clone()).collect(), None))
}

/// The rows of one row's key as far back as the widest window looks. Events that a filter dropped count in
/// windows and are no rows, which the note says where there are any.
fn window(drafted: &Drafted, env: &Env, question: &Question) -> Result<Peeked, Refusal> {
    let group = drafted.pinned().group();
    let mut anchor = None;
    scan(drafted, env, |rows| {
        let at = (0..rows.batch.num_rows()).find(|row| rows.event_id.value(*row) == question.find);
        anchor = at.map(|row| (rows.ts(row), rows.key.value(row).to_owned()));
        anchor.is_none()
    })?;
    let mut best = Best::new(question);
    let Some((top, key)) = anchor else {
        let note = format!("no row has the event id {}", super::cell(&question.find));
        return Ok(best.answer(question, vec!["windows".into()], Some(note)));
    };
    let mut number = 0u64;
    best.whole = scan(drafted, env, |rows| {
        for row in 0..rows.batch.num_rows() {
            number += 1;
            let (age, event_id) = (top.saturating_sub(rows.ts(row)), rows.event_id.value(row));
            if (0..group.widest_us()).contains(&age) && rows.key.value(row) == key {
                best.offer(std::cmp::Reverse(number), || {
                    let inside = group.windows.iter().filter(|w| age < w.duration_us).map(|w| w.name.as_str());
                    let mut cells = vec![inside.collect::<Vec<_>>().join(" ")];
                    cells.extend(rows.cells(row));
                    cells
                });
            }
            // Whatever follows the event itself is in none of its windows.
            if event_id == question.find {
                return false;
            }
        }
        true
    })?;
    best.scanned = number;
    let dropped = drafted
        .proofs()
        .iter()
        .find(|(name, _)| *name == "features")
        .and_then(|(_, p)| p.get("dropped")?.as_object())
        .is_some_and(|d| !d.is_empty());
    let note = dropped.then(|| "events that a filter dropped count in windows, too, and are not among the rows".to_owned());
    let schema = crate::pipeline::feature::dataset_schema(drafted.pinned());
    let columns = std::iter::once("windows".to_owned()).chain(schema.fields().iter().map(|f| f.name().clone())).collect();
    Ok(best.answer(question, columns, note))
}

impl Peek for Drafted {
    fn looks(&self) -> &'static [Look] {
        &[Look::Rows, Look::Window, Look::Pins]
    }

    fn peek(&self, env: &Env, question: &Question) -> Result<Peeked, Refusal> {
        match question.look {
            Look::Rows => rows(self, env, question),
            Look::Window => window(self, env, question),
            Look::Pins => self.pinned().peek(env, question),
            _ => Err(nothing_there(PHASE, question)),
        }
    }
}
