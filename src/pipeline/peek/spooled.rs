//! Looking into the spools: delivered events, label decisions, and the window of one event.

use std::collections::HashSet;

use arrow::array::{Array, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{Best, Look, MAX_SCAN, Peek, Peeked, Question, cell, nothing_there};
use crate::contract::Offset;
use crate::engine::EngineError;
use crate::engine::offsets::Offsets;
use crate::engine::spool::Spool;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::label::{Labelled, STATUS, decision_columns};
use crate::pipeline::projection::{KEPT, event};
use crate::pipeline::replay::Replayed;
use crate::time::Instant;

fn internal() -> EngineError {
    EngineError::Internal("a spool column is missing or of another type".into())
}

/// Visits the shards of a spool until all are seen, enough was read, or the visitor has what it wanted.
fn scan<K: Ord + Clone>(
    spool: &Spool,
    env: &Env,
    phase: Phase,
    best: &mut Best<K>,
    mut each: impl FnMut(&RecordBatch, &mut Best<K>) -> Result<bool, EngineError>,
) -> Result<(), Refusal> {
    let engine = |e: EngineError| Refusal::of_engine(phase, &e);
    for shard in 0..spool.shards() {
        env.check(phase)?;
        if best.scanned >= MAX_SCAN {
            best.whole = false;
            return Ok(());
        }
        let batch = spool.shard(shard).map_err(engine)?;
        best.scanned += batch.num_rows() as u64;
        if !each(&batch, best).map_err(engine)? {
            return Ok(());
        }
    }
    Ok(())
}

/// The columns of an event batch that name and order an event.
struct Events<'b> {
    batch: &'b RecordBatch,
    ts: &'b Int64Array,
    lane: &'b Int32Array,
    offset: Offsets,
    event_id: &'b StringArray,
    key: &'b StringArray,
    drop: &'b Int32Array,
}

impl<'b> Events<'b> {
    fn of(batch: &'b RecordBatch) -> Result<Self, EngineError> {
        let column = |at: usize| batch.columns().get(at).ok_or_else(internal);
        Ok(Events {
            batch,
            ts: column(event::TS)?.as_primitive_opt::<Int64Type>().ok_or_else(internal)?,
            lane: column(event::LANE)?.as_primitive_opt::<Int32Type>().ok_or_else(internal)?,
            offset: Offsets::of(column(event::OFFSET)?.as_ref())?,
            event_id: column(event::EVENT_ID)?.as_string_opt::<i32>().ok_or_else(internal)?,
            key: column(event::KEY)?.as_string_opt::<i32>().ok_or_else(internal)?,
            drop: column(event::DROP)?.as_primitive_opt::<Int32Type>().ok_or_else(internal)?,
        })
    }

    fn place(&self, row: usize) -> (i64, i32, Offset) {
        (self.ts.value(row), self.lane.value(row), self.offset.get(row))
    }

    fn found(&self, row: usize, replayed: &Replayed, find: &str) -> bool {
        let at = || {
            let partition = replayed.lanes().get(self.lane.value(row) as usize).map_or(0, |lane| lane.partition);
            let offset = self.offset.get(row).to_string();
            offset == find || find.strip_prefix(&format!("{partition}/")) == Some(offset.as_str())
        };
        find.is_empty() || self.event_id.value(row).contains(find) || self.key.value(row).contains(find) || at()
    }

    /// A row of the answer: place, time, id, key, whether it stays, payload fields.
    fn cells(&self, row: usize, replayed: &Replayed) -> Vec<String> {
        let lane = replayed.lanes().get(self.lane.value(row) as usize).map(ToString::to_string).unwrap_or_default();
        let drop = self.drop.value(row);
        let stays = if drop == KEPT { "row".to_owned() } else { format!("dropped, {}", replayed.projection().drop_name(drop)) };
        let mut cells = vec![
            Instant(self.ts.value(row)).to_string(),
            cell(&lane),
            self.offset.get(row).to_string(),
            cell(self.event_id.value(row)),
            cell(self.key.value(row)),
            stays,
        ];
        cells.extend(self.batch.columns().iter().skip(event::FIELDS).map(|column| shown(column.as_ref(), row)));
        cells
    }
}

fn event_columns(replayed: &Replayed) -> Vec<String> {
    let fixed = ["ts_utc", "partition", "offset", "event_id", "key", "becomes"].map(str::to_owned);
    fixed.into_iter().chain(replayed.projection().fields().iter().map(|f| f.name.clone())).collect()
}

/// A value as a cell.
pub(super) fn shown(column: &dyn Array, row: usize) -> String {
    let stamps = column.as_primitive_opt::<TimestampMicrosecondType>();
    if let Some(stamps) = stamps.filter(|stamps| stamps.is_valid(row)) {
        return Instant(stamps.value(row)).to_string();
    }
    let options = FormatOptions::default().with_null("null");
    ArrayFormatter::try_new(column, &options).and_then(|f| f.value(row).try_to_string()).map_or_else(|e| e.to_string(), |text| cell(&text))
}

fn events(replayed: &Replayed, env: &Env, phase: Phase, question: &Question) -> Result<Peeked, Refusal> {
    let mut best = Best::new(question);
    scan(replayed.events(), env, phase, &mut best, |batch, best| {
        let events = Events::of(batch)?;
        // Bus and archive may both have served a place, into one shard; it is one event.
        let mut seen = HashSet::new();
        for row in 0..batch.num_rows() {
            if events.found(row, replayed, &question.find) && seen.insert(events.place(row)) {
                best.offer(events.place(row), || events.cells(row, replayed));
            }
        }
        Ok(true)
    })?;
    Ok(best.answer(question, event_columns(replayed), None))
}

/// The events of the key of one event, as far back as the widest window looks, up to itself.
fn window(labelled: &Labelled, env: &Env, question: &Question) -> Result<Peeked, Refusal> {
    let (replayed, group) = (labelled.replayed(), labelled.pinned().group());
    let mut best = Best::new(question);
    scan(replayed.events(), env, Phase::Labels, &mut best, |batch, best| {
        let events = Events::of(batch)?;
        let Some(anchor) =
            (0..batch.num_rows()).filter(|row| events.event_id.value(*row) == question.find).min_by_key(|row| events.place(*row))
        else {
            return Ok(true);
        };
        let (top, key) = (events.place(anchor), events.key.value(anchor));
        for row in 0..batch.num_rows() {
            let place = events.place(row);
            let age = top.0.saturating_sub(place.0);
            if place <= top && age < group.widest_us() && events.key.value(row) == key {
                // The newest first: those are in every window.
                best.offer(std::cmp::Reverse(place), || {
                    let inside = group.windows.iter().filter(|w| age < w.duration_us).map(|w| w.name.as_str());
                    let mut cells = vec![inside.collect::<Vec<_>>().join(" ")];
                    cells.extend(events.cells(row, replayed));
                    cells
                });
            }
        }
        Ok(false)
    })?;
    let note = best.rows.is_empty().then(|| format!("no delivered event has the id {}", super::cell(&question.find)));
    let columns = std::iter::once("windows".to_owned()).chain(event_columns(replayed)).collect();
    Ok(best.answer(question, columns, note))
}

fn decisions(labelled: &Labelled, env: &Env, question: &Question) -> Result<Peeked, Refusal> {
    let types = labelled.pinned().vocabulary();
    let mut best = Best::new(question);
    scan(labelled.decisions(), env, Phase::Labels, &mut best, |batch, best| {
        let text = |at: usize| batch.columns().get(at).and_then(|c| c.as_string_opt::<i32>()).ok_or_else(internal);
        let ids = text(0)?;
        let assertions = (0..types.len()).map(|i| text(decision_columns(i).assertion)).collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let find = question.find.as_str();
            let hit = || assertions.iter().any(|a| a.is_valid(row) && a.value(row).contains(find));
            if find.is_empty() || ids.value(row).contains(find) || hit() {
                best.offer(ids.value(row).to_owned(), || decision(batch, ids.value(row), row, types.len()));
            }
        }
        Ok(true)
    })?;
    let per_type = types
        .iter()
        .flat_map(|(name, _)| [name.clone(), format!("{name} status"), format!("{name} observed_utc"), format!("{name} assertion")]);
    Ok(best.answer(question, std::iter::once("event_id".to_owned()).chain(per_type).collect(), None))
}

fn decision(batch: &RecordBatch, event_id: &str, row: usize, types: usize) -> Vec<String> {
    let mut cells = vec![cell(event_id)];
    for i in 0..types {
        let at = decision_columns(i);
        let column = |at: usize| batch.columns().get(at).map(AsRef::as_ref);
        let number = |at: usize| column(at).and_then(|c| c.as_primitive_opt::<Int32Type>()).map_or(-1, |c| c.value(row));
        let observed = column(at.observed).and_then(|c| c.as_primitive_opt::<Int64Type>()).filter(|c| c.is_valid(row));
        cells.push(column(at.value).map_or_else(String::new, |c| shown(c, row)));
        cells.push(usize::try_from(number(at.status)).ok().and_then(|n| STATUS.get(n)).copied().unwrap_or("UNKNOWN").to_owned());
        cells.push(observed.map_or_else(|| "null".to_owned(), |c| Instant(c.value(row)).to_string()));
        cells.push(column(at.assertion).map_or_else(String::new, |c| shown(c, row)));
    }
    cells
}

impl Peek for Replayed {
    fn looks(&self) -> &'static [Look] {
        &[Look::Events, Look::Pins]
    }

    fn peek(&self, env: &Env, question: &Question) -> Result<Peeked, Refusal> {
        match question.look {
            Look::Events => events(self, env, Phase::Replay, question),
            Look::Pins => self.pinned().peek(env, question),
            _ => Err(nothing_there(Phase::Replay, question)),
        }
    }
}

impl Peek for Labelled {
    fn looks(&self) -> &'static [Look] {
        &[Look::Labels, Look::Late, Look::Events, Look::Window, Look::Pins]
    }

    fn peek(&self, env: &Env, question: &Question) -> Result<Peeked, Refusal> {
        match question.look {
            Look::Labels => decisions(self, env, question),
            Look::Late => {
                let late = self.observation().get("late_assertions").cloned().unwrap_or_default();
                Ok(super::document(question, &late))
            }
            Look::Events => events(self.replayed(), env, Phase::Labels, question),
            Look::Window => window(self, env, question),
            Look::Pins => self.pinned().peek(env, question),
            _ => Err(nothing_there(Phase::Labels, question)),
        }
    }
}
