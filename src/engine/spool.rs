//! Rows on their way to their shards: batches cut by shard, held in memory within the budget, spilled
//! shard by shard beyond it. Reading a shard concatenates its pieces; the order of pieces carries
//! no meaning, since every consumer sorts by a total order.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use super::EngineError;
use super::scratch::{Budget, Scratch, bytes_of};
use super::spill::{Place, Spill};

/// Rows, and bytes of text, that are gathered before they are pushed: lines may be long, and a column of texts ends
/// at two gigabytes.
pub const GATHER: (usize, usize) = (16_384, 4 << 20);

/// Whether what was gathered is to be pushed.
pub fn full(rows: usize, text: usize) -> bool {
    rows >= GATHER.0 || text >= GATHER.1
}

/// Rows by shard.
#[derive(Debug)]
pub struct Spool {
    shards: usize,
    budget: Arc<Budget>,
    spill: Spill,
    runs: Mutex<Runs>,
}

#[derive(Debug, Default)]
struct Runs {
    resident: Vec<Run>,
    /// Of every time that memory was full, the batches of the shards that had rows, in the order of shards.
    spilled: Vec<Box<[(u32, Place)]>>,
    /// Size of the spilled rows of each shard.
    sizes: Vec<Size>,
}

/// How much the rows of a shard are, wherever they wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Size {
    fn add(self, batch: &RecordBatch) -> Size {
        let bytes = bytes_of(batch).unwrap_or(u64::MAX);
        Size { rows: self.rows + batch.num_rows() as u64, bytes: self.bytes.saturating_add(bytes) }
    }
}

/// One of several equal shares of a spool's rows, counted from 0.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// Which.
    pub index: usize,
    /// How many shares make the whole.
    pub of: usize,
}

impl Share {
    fn of<T>(self, all: impl Iterator<Item = T>) -> Vec<T> {
        all.skip(self.index).step_by(self.of.max(1)).collect()
    }
}

/// A batch sorted by shard; `bounds[s]..bounds[s + 1]` are the rows of shard `s`.
#[derive(Debug)]
struct Run {
    batch: RecordBatch,
    bounds: Vec<u32>,
    bytes: u64,
}

impl Runs {
    /// Where the spilled rows of a shard lie.
    fn places(&self, shard: usize) -> impl Iterator<Item = Place> {
        self.spilled.iter().filter_map(move |places| {
            let at = places.binary_search_by_key(&shard, |(shard, _)| *shard as usize).ok()?;
            places.get(at).map(|(_, place)| *place)
        })
    }
}

impl Run {
    fn rows(&self, shard: usize) -> Range<usize> {
        let at = |i: usize| self.bounds.get(i).copied().unwrap_or_default() as usize;
        at(shard)..at(shard + 1)
    }

    fn slice(&self, shard: usize) -> Option<RecordBatch> {
        let rows = self.rows(shard);
        (!rows.is_empty()).then(|| self.batch.slice(rows.start, rows.len()))
    }

    /// The shard of each row.
    fn shards(&self) -> UInt32Array {
        let shards = 0..u32::try_from(self.bounds.len().saturating_sub(1)).unwrap_or_default();
        let rows = |shard: u32| std::iter::repeat_n(shard, self.rows(shard as usize).len());
        UInt32Array::from_iter_values(shards.flat_map(rows))
    }
}

/// Row numbers grouped by shard, and where each shard begins, with the end of the last; within a shard rows keep
/// their order.
pub fn group(shard_of: &[u32], shards: usize) -> (UInt32Array, Vec<u32>) {
    let mut bounds = vec![0u32; shards + 1];
    for shard in shard_of {
        if let Some(count) = bounds.get_mut(*shard as usize + 1) {
            *count += 1;
        }
    }
    let mut sum = 0;
    for bound in &mut bounds {
        sum += *bound;
        *bound = sum;
    }
    let mut next = bounds.clone();
    let mut order = vec![0u32; shard_of.len()];
    for (row, shard) in shard_of.iter().enumerate() {
        if let Some(at) = next.get_mut(*shard as usize) {
            if let Some(slot) = order.get_mut(*at as usize) {
                *slot = row as u32;
            }
            *at += 1;
        }
    }
    (UInt32Array::from(order), bounds)
}

impl Spool {
    /// An empty spool.
    pub fn new(schema: SchemaRef, shards: usize, budget: Arc<Budget>, scratch: Arc<Scratch>) -> Self {
        Spool { spill: Spill::new("spool", schema, scratch), shards, budget, runs: Mutex::new(Runs::default()) }
    }

    /// The columns.
    pub fn schema(&self) -> &SchemaRef {
        self.spill.schema()
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// Adds rows; `shard_of` names the shard of each.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn push(&self, batch: &RecordBatch, shard_of: &[u32]) -> Result<(), EngineError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let (order, bounds) = group(shard_of, self.shards);
        let batch = take_record_batch(batch, &order)?;
        let bytes = batch.get_array_memory_size() as u64;
        let within = self.budget.take(bytes);
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.resident.push(Run { batch, bounds, bytes });
        if !within {
            self.spill(&mut runs)?;
        }
        Ok(())
    }

    fn spill(&self, runs: &mut Runs) -> Result<(), EngineError> {
        let mut places = Vec::new();
        runs.sizes.resize(self.shards, Size::default());
        for (shard, size) in (0..).zip(&mut runs.sizes) {
            let slices: Vec<RecordBatch> = runs.resident.iter().filter_map(|r| r.slice(shard as usize)).collect();
            if !slices.is_empty() {
                let batch = concat_batches(self.spill.schema(), &slices)?;
                *size = size.add(&batch);
                places.push((shard, self.spill.write(&batch)?));
            }
        }
        self.budget.give(runs.resident.iter().map(|r| r.bytes).sum());
        runs.resident.clear();
        runs.spilled.push(places.into());
        Ok(())
    }

    /// How much all rows of one shard are.
    pub fn size(&self, shard: usize) -> Size {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let spilled = runs.sizes.get(shard).copied().unwrap_or_default();
        runs.resident.iter().filter_map(|run| run.slice(shard)).fold(spilled, |size, rows| size.add(&rows))
    }

    /// All rows of one shard.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn shard(&self, shard: usize) -> Result<RecordBatch, EngineError> {
        Ok(concat_batches(self.schema(), &self.pieces(shard)?)?)
    }

    fn pieces(&self, shard: usize) -> Result<Vec<RecordBatch>, EngineError> {
        let (mut pieces, spilled) = {
            let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            let resident: Vec<RecordBatch> = runs.resident.iter().filter_map(|r| r.slice(shard)).collect();
            (resident, runs.places(shard).collect::<Vec<_>>())
        };
        for place in spilled {
            pieces.push(self.spill.read(place)?);
        }
        Ok(pieces)
    }

    /// The columns that are saved: the shard of each row comes last.
    fn saved_schema(&self) -> SchemaRef {
        let fields = self.schema().fields().iter().cloned().chain([Arc::new(Field::new("shard", DataType::UInt32, false))]);
        let shards = HashMap::from([("shards".to_owned(), self.shards.to_string())]);
        Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), shards))
    }

    /// Writes what `select` leaves of a share of the rows, as an Arrow IPC stream of the batches as they are held.
    ///
    /// # Errors
    /// Spill space or a writer that fails, and whatever `select` says.
    pub fn save(
        &self,
        share: Share,
        to: impl Write,
        mut select: impl FnMut(RecordBatch) -> Result<RecordBatch, EngineError>,
    ) -> Result<(), EngineError> {
        let schema = self.saved_schema();
        let mut writer = StreamWriter::try_new(to, &schema)?;
        let mut save = |batch: &RecordBatch, shards: UInt32Array| {
            let columns = batch.columns().iter().cloned().chain([Arc::new(shards) as ArrayRef]);
            let left = select(RecordBatch::try_new(schema.clone(), columns.collect())?)?;
            if left.num_rows() == 0 { Ok(()) } else { Ok::<_, EngineError>(writer.write(&left)?) }
        };
        let (resident, spilled) = {
            let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            let resident = runs.resident.iter().map(|run| (run.batch.clone(), run.shards()));
            (share.of(resident), share.of(runs.spilled.iter().cloned()))
        };
        for (batch, shards) in resident {
            save(&batch, shards)?;
        }
        for places in spilled {
            for (shard, place) in places {
                let batch = self.spill.read(place)?;
                save(&batch, UInt32Array::from_value(shard, batch.num_rows()))?;
            }
        }
        writer.finish()?;
        Ok(())
    }

    /// Adds what [`Spool::save`] wrote; `each` sees every batch with the shards of its rows.
    ///
    /// # Errors
    /// Spill space or a reader that fails, a stream of other columns or shards, and whatever `each` says.
    pub fn load(&self, from: impl Read, mut each: impl FnMut(&RecordBatch, &[u32]) -> Result<(), EngineError>) -> Result<(), EngineError> {
        let reader = StreamReader::try_new(from, None)?;
        if reader.schema() != self.saved_schema() {
            return Err(EngineError::Internal("a stream of other columns or shards than were saved".into()));
        }
        let last = self.schema().fields().len();
        for batch in reader {
            let mut batch = batch?;
            let shards = batch.remove_column(last);
            let shards: &[u32] = shards.as_primitive::<UInt32Type>().values();
            let batch = RecordBatch::try_new(self.schema().clone(), batch.columns().to_vec())?;
            if shards.iter().any(|shard| *shard as usize >= self.shards) {
                return Err(EngineError::Internal(format!("a stream of more shards than {}", self.shards)));
            }
            self.push(&batch, shards)?;
            each(&batch, shards)?;
        }
        Ok(())
    }

    /// Drops everything that is held.
    pub fn clear(&self) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        self.budget.give(runs.resident.iter().map(|r| r.bytes).sum());
        *runs = Runs::default();
        self.spill.clear();
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    #[test]
    fn a_shard_has_its_rows_whether_spilled_or_not() {
        for limit in [0u64, 2_000, 1 << 30] {
            let dir = tempfile::tempdir().unwrap();
            let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false), Field::new("s", DataType::Utf8, true)]));
            let budget = Arc::new(Budget::new(limit));
            let spool = Spool::new(schema.clone(), 4, budget.clone(), Arc::new(Scratch::new(dir.path(), "t", "1").unwrap()));
            for round in 0..5i64 {
                let numbers: Vec<i64> = (round * 10..round * 10 + 10).collect();
                let texts: StringArray = numbers.iter().map(|n| (n % 3 != 0).then(|| n.to_string())).collect();
                let shard_of: Vec<u32> = numbers.iter().map(|n| (n % 3) as u32).collect();
                spool
                    .push(
                        &RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(numbers)), Arc::new(texts)]).unwrap(),
                        &shard_of,
                    )
                    .unwrap();
            }
            for shard in 0..4 {
                let batch = spool.shard(shard).unwrap();
                let mut found: Vec<i64> = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
                found.sort_unstable();
                assert_eq!(found, (0..50).filter(|n| n % 3 == shard as i64).collect::<Vec<_>>());
                assert_eq!(batch.column(1).null_count(), if shard == 0 { 17 } else { 0 });
                // Where rows wait is no reason to count more bytes: a piece has an offset and some bits of its own.
                let exact = bytes_of(&batch).unwrap();
                let size = spool.size(shard);
                assert!((exact..exact + 5 * 8).contains(&size.bytes) || found.is_empty(), "{exact} {size:?}");
                assert_eq!(size.rows, batch.num_rows() as u64);
            }
            // Saved in shares and loaded, each shard has the same rows; another number of shards is refused.
            let saved = [0, 1, 2].map(|index| {
                let mut saved = Vec::new();
                spool.save(Share { index, of: 3 }, &mut saved, Ok).unwrap();
                saved
            });
            let sorted = |spool: &Spool, shard| {
                let mut all: Vec<i64> = spool.shard(shard).unwrap().column(0).as_primitive::<Int64Type>().values().to_vec();
                all.sort_unstable();
                all
            };
            let scratch = Arc::new(Scratch::new(dir.path(), "u", "1").unwrap());
            let again = Spool::new(schema.clone(), 4, budget.clone(), scratch.clone());
            for saved in &saved {
                let shards = |batch: &RecordBatch, shards: &[u32]| {
                    let numbers = batch.column(0).as_primitive::<Int64Type>().values();
                    assert!(numbers.iter().zip(shards).all(|(n, shard)| n % 3 == i64::from(*shard)));
                    Ok(())
                };
                again.load(saved.as_slice(), shards).unwrap();
            }
            assert!((0..4).all(|shard| sorted(&spool, shard) == sorted(&again, shard)));
            let other = Spool::new(schema.clone(), 8, budget.clone(), scratch);
            assert!(other.load(saved[0].as_slice(), |_, _| Ok(())).is_err());
            drop((spool, again, other));
            assert_eq!(budget.used(), 0);
        }
    }
}
