//! Writing the draft: rows in canonical order are cut into parts of equal length; each part is laid out,
//! digested and written by one worker while the merge goes on.

use std::sync::Arc;
use std::thread::Builder;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{PHASE, PartFile, TS_COLUMN, dataset_schema, output};
use crate::contract::ReasonCode;
use crate::contract::intent::Lane;
use crate::digest::push_hex;
use crate::engine::EngineError;
use crate::engine::dataset_file::{PART_ROWS, PartWriter, encoded_width};
use crate::engine::digest::{Hash, Tree, leaves, schema_digest};
use crate::engine::merge::{BATCH_ROWS, Merged};
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::label::{Labelled, STATUS};
use crate::pipeline::parallel::{self, InOrder};
use crate::store::Ref;

/// Begins the names of parts that are still being written.
pub(super) const UNPROVED: &str = "unproved-";

/// What was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) files: Vec<PartFile>,
    pub(super) rows: u64,
    pub(super) rows_digest: String,
}

/// A part to be written: its number and its rows as they come.
struct Job {
    index: usize,
    rows: Receiver<RecordBatch>,
}

struct Finished {
    index: usize,
    result: Result<(PartFile, Vec<Hash>), Refusal>,
}

/// What every worker needs.
struct Layout<'l> {
    env: &'l Env,
    schema: SchemaRef,
    lanes: &'l [Lane],
    features: usize,
    labels: usize,
    staging: Ref,
}

/// Writes all parts and digests all rows.
pub(super) fn write(labelled: &Labelled, env: &Env, merged: Merged) -> Result<Written, Refusal> {
    let engine = |e: EngineError| Refusal::of_engine(PHASE, &e);
    let schema = dataset_schema(labelled.pinned());
    let labels = labelled.pinned().vocabulary().len();
    let layout = Layout {
        env,
        features: schema.fields().len() - 9 - 4 * labels,
        schema: schema.clone(),
        lanes: labelled.replayed().lanes(),
        labels,
        staging: labelled.pinned().staging_ref(),
    };
    let row = encoded_width(&schema);
    let workers = writers(env.config.memory(), env.config.workers(), part_bytes(row, PART_ROWS));
    let queue = queued(env.config.memory(), row);
    let mut collected = Collected { parts: InOrder::new(), files: Vec::new(), tree: Tree::new(), refusal: None };
    std::thread::scope(|scope| -> Result<(), Refusal> {
        let (jobs, queue_of_jobs) = bounded::<Job>(0);
        let (results, finished) = unbounded::<Finished>();
        let hired = parallel::hire(scope, workers, Builder::new, || {
            let (queue_of_jobs, results, layout) = (queue_of_jobs.clone(), results.clone(), &layout);
            move || work(layout, &queue_of_jobs, &results)
        });
        drop((queue_of_jobs, results));
        if hired.is_empty() {
            return Err(Refusal::new(ReasonCode::ThreadUnavailable, PHASE, "no thread to write parts while their rows are merged"));
        }
        let fed = feed(env, merged, &jobs, &finished, queue, &mut collected);
        drop(jobs);
        for done in &finished {
            collected.take(done);
        }
        parallel::join(hired);
        fed
    })?;
    if let Some((_, refusal)) = collected.refusal {
        return Err(refusal);
    }
    let digest = schema_digest(&schema).map_err(engine)?;
    Ok(Written { rows: collected.tree.count(), rows_digest: crate::digest::hex(&collected.tree.root(&digest)), files: collected.files })
}

/// Refuses rows of so many columns that not even one part of them could be written.
///
/// # Errors
/// `MEMORY_BUDGET`.
pub(super) fn affordable(labelled: &Labelled, env: &Env) -> Result<(), Refusal> {
    let schema = dataset_schema(labelled.pinned());
    let part = part_bytes(encoded_width(&schema), labelled.rows());
    parallel::affordable(env, PHASE, limit_for(part), || {
        format!("a part of the data set is written as a whole, and has {} columns", schema.fields().len())
    })
}

/// What a part takes while it is written: it is held until its only row group is complete, encoded, with the pages of
/// every column that are being filled. `row` is what a row takes.
fn part_bytes(row: u64, rows: u64) -> u64 {
    rows.min(PART_ROWS) * row * 6 / 5
}

/// The smallest limit at which one part of so many bytes is written within what a build may take beyond its limit: beside
/// it there are the rows that wait, and what the allocator keeps of the work before (measured).
fn limit_for(part: u64) -> u64 {
    const BEYOND: u64 = 30_000_000;
    part.saturating_sub(BEYOND) / 2 * 5
}

/// How many parts of so many bytes are written at once.
fn writers(memory: u64, threads: usize, part: u64) -> usize {
    usize::try_from(memory / 2 / part.max(1)).unwrap_or(usize::MAX).min(threads).clamp(1, 8)
}

/// How many batches a worker that lags behind the merge may queue: where memory allows it, a whole part of some forty
/// megabytes. `row` is what a row takes.
fn queued(memory: u64, row: u64) -> usize {
    const PART: usize = PART_ROWS as usize / BATCH_ROWS;
    let bytes: u64 = match memory >> 20 {
        0..256 => 1_500_000,
        256..1_024 => 20_000_000,
        _ => 40_000_000,
    };
    usize::try_from(bytes / (row * BATCH_ROWS as u64).max(1)).unwrap_or(PART).clamp(1, PART)
}

/// Results in part order, however they finish.
struct Collected {
    parts: InOrder<(PartFile, Vec<Hash>)>,
    files: Vec<PartFile>,
    tree: Tree,
    /// Of the lowest part that failed.
    refusal: Option<(usize, Refusal)>,
}

impl Collected {
    fn take(&mut self, done: Finished) {
        match done.result {
            Ok(part) => self.parts.put(done.index, part, |(file, leaves)| {
                self.tree.extend(&leaves);
                self.files.push(file);
            }),
            Err(refusal) => {
                if self.refusal.as_ref().is_none_or(|(earlier, _)| done.index < *earlier) {
                    self.refusal = Some((done.index, refusal));
                }
            }
        }
    }
}

/// Deals merged batches to parts; every part begins with a full batch, so its bytes do not depend on
/// how the merge was cut.
fn feed(
    env: &Env,
    merged: Merged,
    jobs: &Sender<Job>,
    finished: &Receiver<Finished>,
    queue: usize,
    collected: &mut Collected,
) -> Result<(), Refusal> {
    let mut current: Option<(Sender<RecordBatch>, u64)> = None;
    let mut next = 0;
    for batch in merged {
        env.check(PHASE)?;
        let batch = batch.map_err(|e| Refusal::of_engine(PHASE, &e))?;
        let rows = batch.num_rows() as u64;
        if current.as_ref().is_none_or(|(_, filled)| *filled >= PART_ROWS) {
            // Hanging up tells the worker of the part before that it has all its rows.
            drop(current.take());
            while let Ok(done) = finished.try_recv() {
                collected.take(done);
            }
            let (tx, rx) = bounded(queue);
            if collected.refusal.is_some() || jobs.send(Job { index: next, rows: rx }).is_err() {
                return Ok(());
            }
            next += 1;
            current = Some((tx, 0));
        }
        if let Some((tx, filled)) = &mut current {
            *filled += rows;
            // A worker that failed hangs up; its refusal is collected afterwards.
            if tx.send(batch).is_err() {
                return Ok(());
            }
        }
        env.progress.advance(rows);
    }
    Ok(())
}

fn work(layout: &Layout<'_>, jobs: &Receiver<Job>, results: &Sender<Finished>) {
    for job in jobs {
        let result = layout.part(job.index, &job.rows);
        if results.send(Finished { index: job.index, result }).is_err() {
            return;
        }
    }
}

impl Layout<'_> {
    fn part(&self, index: usize, rows: &Receiver<RecordBatch>) -> Result<(PartFile, Vec<Hash>), Refusal> {
        let engine = |e: EngineError| match e {
            // The sink is the store's staging, so what fails there is the store.
            EngineError::Scratch { message, .. } => Refusal::new(ReasonCode::StoreIo, PHASE, format!("staging: {message}")),
            other => Refusal::of_engine(PHASE, &other),
        };
        let path = format!("part-{index:05}.parquet");
        let unproved = self.staging.join(&format!("{UNPROVED}{}-{index:05}", self.env.attempt));
        let staged = self.env.store.stage(&unproved).map_err(|e| Refusal::of_store(PHASE, &e))?;
        let mut writer = PartWriter::new(staged, self.schema.clone(), TS_COLUMN).map_err(engine)?;
        let mut all = Vec::with_capacity(PART_ROWS as usize);
        for batch in rows {
            let batch = self.lay_out(&batch).map_err(engine)?;
            all.extend(leaves(&batch).map_err(engine)?);
            writer.write(&batch).map_err(engine)?;
        }
        self.env.check(PHASE)?;
        let (staged, stats) = writer.finish().map_err(engine)?;
        staged.finish().map_err(|e| Refusal::of_store(PHASE, &e))?;
        let file = PartFile { path, stats };
        self.env.store.promote(&unproved, &self.staging.join(&file.staged_name())).map_err(|e| Refusal::of_store(PHASE, &e))?;
        self.env.store.unstage(&unproved).map_err(|e| Refusal::of_store(PHASE, &e))?;
        Ok((file, all))
    }

    /// From a shard's compact columns to the columns of the data set.
    fn lay_out(&self, batch: &RecordBatch) -> Result<RecordBatch, EngineError> {
        let missing = || EngineError::Internal("a column of the output is missing or of another type".into());
        let column = |at: usize| batch.columns().get(at).ok_or_else(missing);
        let lanes = column(output::LANE)?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?;
        let lane = |row: usize| self.lanes.get(lanes.value(row) as usize).ok_or_else(missing);
        let rows = batch.num_rows();
        let mut topics = StringBuilder::new();
        let mut kinds = StringBuilder::new();
        let mut partitions = Vec::with_capacity(rows);
        for row in 0..rows {
            let lane = lane(row)?;
            topics.append_value(&lane.topic);
            kinds.append_value(lane.kind.as_str());
            partitions.push(lane.partition);
        }
        let mut columns: Vec<ArrayRef> = vec![
            hex_column(column(output::ROW_ID)?)?,
            column(output::EVENT_ID)?.clone(),
            stamps(column(output::TS)?)?,
            Arc::new(topics.finish()),
            Arc::new(Int32Array::from(partitions)),
            column(output::OFFSET)?.clone(),
            Arc::new(kinds.finish()),
            hex_column(column(output::HASH)?)?,
            column(output::KEY)?.clone(),
        ];
        for at in 0..self.features {
            columns.push(column(output::FEATURES + at)?.clone());
        }
        for at in 0..self.labels {
            let first = output::FEATURES + self.features + 4 * at;
            let status = column(first + 1)?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?;
            let names: StringArray = status.values().iter().map(|s| STATUS.get(*s as usize).copied()).collect();
            columns.push(column(first)?.clone());
            columns.push(Arc::new(names));
            columns.push(stamps(column(first + 2)?)?);
            columns.push(column(first + 3)?.clone());
        }
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

fn hex_column(array: &ArrayRef) -> Result<ArrayRef, EngineError> {
    let bytes = array.as_fixed_size_binary_opt().ok_or_else(|| EngineError::Internal("expected fixed bytes".into()))?;
    let width = bytes.value_length() as usize;
    let mut text = Vec::with_capacity(bytes.len() * 2 * width);
    for row in 0..bytes.len() {
        push_hex(bytes.value(row), &mut text);
    }
    let ends = OffsetBuffer::from_repeated_length(2 * width, bytes.len());
    Ok(Arc::new(StringArray::try_new(ends, Buffer::from_vec(text), None)?))
}

fn stamps(array: &ArrayRef) -> Result<ArrayRef, EngineError> {
    let micros: &Int64Array = array.as_primitive_opt::<Int64Type>().ok_or_else(|| EngineError::Internal("expected int64".into()))?;
    Ok(Arc::new(TimestampMicrosecondArray::new(micros.values().clone(), micros.nulls().cloned()).with_timezone("UTC")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_parts_are_written_at_once_as_memory_allows() {
        let at = |mib: u64, threads, row| writers(mib << 20, threads, part_bytes(row, PART_ROWS));
        let usual = [(64, 2), (128, 8), (256, 2), (256, 8), (2_048, 1), (2_048, 64)].map(|(mib, threads)| at(mib, threads, 300));
        assert_eq!(usual, [1, 1, 2, 2, 1, 8]);
        // Rows of hundreds of features take more.
        assert_eq!([at(256, 8, 1_600), at(1_024, 8, 1_600), at(2_048, 64, 1_600)], [1, 2, 4]);
    }

    #[test]
    fn the_least_limit_holds_the_usual_part_and_grows_with_its_columns() {
        let least = |row| limit_for(part_bytes(row, PART_ROWS)) >> 20;
        assert_eq!([least(100), least(300), least(360), least(1_600)], [0, 40, 63, 528]);
        assert_eq!(limit_for(part_bytes(100_000, 10)), 0);
    }

    #[test]
    fn what_waits_for_a_writer_is_bounded_in_bytes() {
        let at = |mib: u64, row| queued(mib << 20, row);
        assert_eq!([at(64, 300), at(256, 300), at(2_048, 300), at(2_048, 10)], [2, 32, 64, 64]);
        assert_eq!([at(64, 1_600), at(256, 1_600), at(2_048, 1_600)], [1, 6, 12]);
    }
}
