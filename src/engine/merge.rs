//! Canonical order across shards: sorted shard outputs merged into one stream of equal batches.
//!
//! The order is (ts, lane, offset); lanes are numbered by (topic, partition, kind), so this is the
//! canonical order of rows, and (lane, offset) is unique, so it is total.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};

use super::EngineError;
use super::offsets::Offsets;
use super::scratch::{Budget, Held, Scratch};
use super::spill::{Place, Spill};
use super::tournament::Tournament;
use crate::contract::Offset;

/// Rows of a batch that goes out.
pub const BATCH_ROWS: usize = 2_048;
/// Fewest and most rows of a batch that is read back.
const READ_ROWS: (u64, u64) = (4, 2_048);

/// Position of the columns that order rows.
#[derive(Debug, Clone, Copy)]
pub struct OrderColumns {
    /// Event time, int64 micros.
    pub ts: usize,
    /// Lane number, int32.
    pub lane: usize,
    /// Offset, int64 or decimal text.
    pub offset: usize,
}

/// A place in canonical order.
pub type Key = (i64, i32, Offset);

/// The ordering columns of one batch.
#[derive(Debug)]
pub struct Keys {
    ts: Int64Array,
    lane: Int32Array,
    offset: Offsets,
}

impl Keys {
    /// The ordering columns of a batch.
    ///
    /// # Errors
    /// Columns of other types.
    pub fn of(batch: &RecordBatch, columns: OrderColumns) -> Result<Self, EngineError> {
        let missing = || EngineError::Internal("an ordering column is missing or of another type".into());
        let at = |i: usize| batch.columns().get(i).ok_or_else(missing);
        Ok(Keys {
            ts: at(columns.ts)?.as_primitive_opt::<Int64Type>().ok_or_else(missing)?.clone(),
            lane: at(columns.lane)?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?.clone(),
            offset: Offsets::of(at(columns.offset)?.as_ref())?,
        })
    }

    /// The key of a row.
    pub fn get(&self, row: usize) -> Key {
        (self.ts.value(row), self.lane.value(row), self.offset.get(row))
    }
}

/// Sorted outputs, one or more a shard, held in memory within the budget and spilled beyond it.
#[derive(Debug)]
pub struct SortedRuns {
    expected: u64,
    budget: Arc<Budget>,
    spill: Spill,
    runs: Mutex<Vec<Box<[Piece]>>>,
}

/// The next rows of a run.
#[derive(Debug)]
enum Piece {
    // Of those on disk there may be very many, and this is the larger.
    Memory(Box<(RecordBatch, Held)>),
    Disk(Place),
}

/// A run on its way in: its rows come piece by piece, in canonical order.
#[derive(Debug)]
pub struct Run<'r> {
    runs: &'r SortedRuns,
    pieces: Vec<Piece>,
}

impl SortedRuns {
    /// Nothing yet; some `expected` runs will come.
    pub fn new(schema: SchemaRef, expected: usize, budget: Arc<Budget>, scratch: Arc<Scratch>) -> Self {
        SortedRuns { expected: expected as u64, budget, spill: Spill::new("rows", schema, scratch), runs: Mutex::new(Vec::new()) }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        self.spill.schema()
    }

    /// Begins a run.
    pub fn run(&self) -> Run<'_> {
        Run { runs: self, pieces: Vec::new() }
    }

    /// One stream in canonical order.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn merge(self, columns: OrderColumns) -> Result<Merged, EngineError> {
        let runs = self.runs.into_inner().unwrap_or_else(PoisonError::into_inner);
        let cursor = |pieces: Box<[Piece]>| Cursor { pieces: pieces.into_iter(), batch: None, row: 0, held: None };
        let mut merged =
            Merged { columns, spill: self.spill, cursors: runs.into_iter().map(cursor).collect(), heads: Tournament::new(Vec::new()) };
        let mut heads = Vec::with_capacity(merged.cursors.len());
        for index in 0..merged.cursors.len() {
            merged.load(index)?;
            heads.push(merged.head(index));
        }
        merged.heads = Tournament::new(heads);
        Ok(merged)
    }
}

impl Run<'_> {
    /// Adds the next rows.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn push(&mut self, batch: RecordBatch) -> Result<(), EngineError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let budget = &self.runs.budget;
        let bytes = batch.get_array_memory_size() as u64;
        let within = budget.take(bytes);
        let held = Held::new(budget.clone(), bytes);
        if within {
            self.pieces.push(Piece::Memory(Box::new((batch, held))));
            return Ok(());
        }
        // So small that a piece of every run may be in memory at once.
        let (fewest, most) = READ_ROWS;
        let of_a_row = bytes.div_ceil(batch.num_rows() as u64).max(1);
        let rows = (budget.limit() / 2 / self.runs.expected.max(1) / of_a_row).clamp(fewest, most) as usize;
        for start in (0..batch.num_rows()).step_by(rows) {
            let place = self.runs.spill.write(&batch.slice(start, rows.min(batch.num_rows() - start)))?;
            self.pieces.push(Piece::Disk(place));
        }
        Ok(())
    }

    /// The run is complete.
    pub fn end(self) {
        self.runs.runs.lock().unwrap_or_else(PoisonError::into_inner).push(self.pieces.into());
    }
}

struct Cursor {
    pieces: std::vec::IntoIter<Piece>,
    batch: Option<(Keys, RecordBatch, Option<Held>)>,
    row: usize,
    /// Where the current batch stands among those of the batch being made.
    held: Option<usize>,
}

/// Rows of all shards in canonical order, as batches of exactly [`BATCH_ROWS`] (the last may be shorter).
pub struct Merged {
    columns: OrderColumns,
    spill: Spill,
    cursors: Vec<Cursor>,
    heads: Tournament<Key>,
}

impl Merged {
    /// Loads the next batch of a cursor.
    fn load(&mut self, index: usize) -> Result<(), EngineError> {
        let columns = self.columns;
        let Some(cursor) = self.cursors.get_mut(index) else { return Ok(()) };
        cursor.row = 0;
        cursor.held = None;
        cursor.batch = None;
        if let Some(piece) = cursor.pieces.next() {
            let (batch, held) = match piece {
                Piece::Memory(piece) => (piece.0, Some(piece.1)),
                Piece::Disk(place) => (self.spill.read(place)?, None),
            };
            cursor.batch = Some((Keys::of(&batch, columns)?, batch, held));
        }
        Ok(())
    }

    fn head(&self, index: usize) -> Option<Key> {
        let cursor = self.cursors.get(index)?;
        cursor.batch.as_ref().map(|(keys, ..)| keys.get(cursor.row))
    }

    fn fill(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        let mut held: Vec<RecordBatch> = Vec::new();
        let mut picks: Vec<(usize, usize)> = Vec::with_capacity(BATCH_ROWS);
        while picks.len() < BATCH_ROWS {
            let Some(index) = self.heads.first() else { break };
            let Some(cursor) = self.cursors.get_mut(index) else { break };
            let Some((_, batch, _)) = &cursor.batch else { break };
            let slot = *cursor.held.get_or_insert_with(|| {
                held.push(batch.clone());
                held.len() - 1
            });
            picks.push((slot, cursor.row));
            cursor.row += 1;
            if cursor.row >= batch.num_rows() {
                self.load(index)?;
            }
            let next = self.head(index);
            self.heads.next(next);
        }
        for cursor in &mut self.cursors {
            cursor.held = None;
        }
        if picks.is_empty() {
            return Ok(None);
        }
        let held: Vec<&RecordBatch> = held.iter().collect();
        Ok(Some(interleave_record_batch(&held, &picks)?))
    }
}

impl Iterator for Merged {
    type Item = Result<RecordBatch, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fill().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::scratch::bytes_of;
    use arrow::datatypes::{DataType, Field, Schema};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn rows_come_out_in_one_order_however_they_were_cut(rows in proptest::collection::btree_set((0i64..50, 0i32..3, 0i64..100), 0..400), cuts in 1usize..6, piece in 1usize..200, limit in prop_oneof![Just(0u64), Just(3_000), Just(1 << 30)]) {
            let dir = tempfile::tempdir().unwrap();
            let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("ts", DataType::Int64, false), Field::new("lane", DataType::Int32, false), Field::new("offset", DataType::Int64, false)]));
            let budget = Arc::new(Budget::new(limit));
            let runs = SortedRuns::new(schema.clone(), cuts, budget.clone(), Arc::new(Scratch::new(dir.path(), "t", "1").unwrap()));
            let all: Vec<_> = rows.iter().copied().collect();
            for cut in 0..cuts {
                let mine: Vec<_> = all.iter().filter(|r| r.2 as usize % cuts == cut).collect();
                let mut run = runs.run();
                for mine in mine.chunks(piece) {
                    run.push(RecordBatch::try_new(schema.clone(), vec![
                        Arc::new(mine.iter().map(|r| r.0).collect::<Int64Array>()),
                        Arc::new(mine.iter().map(|r| r.1).collect::<Int32Array>()),
                        Arc::new(mine.iter().map(|r| r.2).collect::<Int64Array>()),
                    ]).unwrap()).unwrap();
                }
                run.end();
            }
            let columns = OrderColumns { ts: 0, lane: 1, offset: 2 };
            let mut found = Vec::new();
            for batch in runs.merge(columns).unwrap() {
                let batch = batch.unwrap();
                let keys = Keys::of(&batch, columns).unwrap();
                found.extend((0..batch.num_rows()).map(|r| keys.get(r)));
            }
            let wanted: Vec<Key> = all.iter().map(|r| (r.0, r.1, Offset::from(r.2 as u64))).collect();
            prop_assert_eq!(found, wanted);
            prop_assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn what_the_merge_holds_does_not_grow_with_the_number_of_runs() {
        let dir = tempfile::tempdir().unwrap();
        let columns = [("ts", DataType::Int64), ("lane", DataType::Int32), ("offset", DataType::Int64)];
        let schema: SchemaRef = Arc::new(Schema::new(columns.map(|(name, of)| Field::new(name, of, false)).to_vec()));
        let (runs, rows, limit) = (200i64, 3_000, 1_000_000);
        let scratch = Arc::new(Scratch::new(dir.path(), "t", "1").unwrap());
        let sorted = SortedRuns::new(schema.clone(), runs as usize, Arc::new(Budget::new(limit)), scratch);
        for number in 0..runs {
            let mut run = sorted.run();
            let ts = Int64Array::from_iter_values(0..rows);
            let (lane, offset) =
                (Int32Array::from_value(0, rows as usize), (0..rows).map(|row| row * runs + number).collect::<Int64Array>());
            run.push(RecordBatch::try_new(schema.clone(), vec![Arc::new(ts), Arc::new(lane), Arc::new(offset)]).unwrap()).unwrap();
            run.end();
        }
        let mut merged = sorted.merge(OrderColumns { ts: 0, lane: 1, offset: 2 }).unwrap();
        let mut found = 0;
        while let Some(batch) = merged.next() {
            found += batch.unwrap().num_rows();
            let held = merged.cursors.iter().filter_map(|cursor| cursor.batch.as_ref()).map(|(_, batch, _)| bytes_of(batch).unwrap());
            // What waits in memory, and half as much again for what is read back.
            assert!(held.sum::<u64>() <= limit + limit / 2);
        }
        assert_eq!(found as i64, runs * rows);
    }
}
