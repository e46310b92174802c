//! Reading the timeline: every assertion to the shard of its event, and its id to the duplicate check.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Int32Builder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::PHASE;
use crate::contract::ReasonCode;
use crate::engine::EngineError;
use crate::engine::shard::shard_of;
use crate::engine::sorter::Sorter;
use crate::engine::spool::Spool;
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::parallel;
use crate::pipeline::pin::Pinned;
use crate::pipeline::replay::{Waiting, Work};
use crate::source::labels::{Assertion, LabelQuery, LabelTimeline};
use crate::time::{EffectiveTime, Instant, ObservedTime};

/// Assertions gathered before they are handed over.
const GATHER: usize = 16_384;
/// Bytes of a duplicate-check record: id digest, content digest, known at the cut-off.
const RECORD: usize = 16 + 16 + 1;
/// Most assertion ids with two contents that are remembered.
const MAX_INCONSISTENT: usize = 1_000_000;

/// Where the columns of the assertion spool stand.
pub(super) mod column {
    pub(in super::super) const EVENT_ID: usize = 0;
    pub(in super::super) const TYPE: usize = 1;
    pub(in super::super) const ASSERTION: usize = 2;
    pub(in super::super) const VALUE: usize = 3;
    pub(in super::super) const OBSERVED: usize = 4;
    pub(in super::super) const EMBEDDED: usize = 5;
    pub(in super::super) const FLAGS: usize = 6;
}

/// The observed time is missing or not an instant.
pub(super) const OBSERVED_BAD: i32 = 1;
/// The store's two copies of the observed time differ.
pub(super) const OBSERVED_DIFFERS: i32 = 2;
/// The effective time is not an instant.
pub(super) const EFFECTIVE_BAD: i32 = 4;

/// The store as this attempt found it (O091).
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) assertions: u64,
    pub(super) known: u64,
    pub(super) digest: String,
}

/// All assertions of the wanted types.
#[derive(Debug)]
pub(super) struct Assertions {
    pub(super) spool: Spool,
    /// Digests of assertion ids that stand for two contents.
    pub(super) inconsistent: HashSet<[u8; 16]>,
    pub(super) state: State,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("event_id", DataType::Utf8, false),
        Field::new("type", DataType::Int32, false),
        Field::new("assertion_id", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
        Field::new("observed", DataType::Int64, true),
        Field::new("embedded", DataType::Int64, true),
        Field::new("flags", DataType::Int32, false),
    ]))
}

/// First half of a BLAKE3.
pub(super) fn short_digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut short = [0u8; 16];
    for (slot, byte) in short.iter_mut().zip(hasher.finalize().as_bytes()) {
        *slot = *byte;
    }
    short
}

struct Intake<'i> {
    spool: &'i Spool,
    ids: &'i Sorter<RECORD>,
    types: &'i [String],
    cutoff: Instant,
    event_id: StringBuilder,
    label_type: Int32Builder,
    assertion: StringBuilder,
    value: StringBuilder,
    observed: Int64Builder,
    embedded: Int64Builder,
    flags: Int32Builder,
    shard_of: Vec<u32>,
    records: Vec<[u8; RECORD]>,
}

impl<'i> Intake<'i> {
    fn new(spool: &'i Spool, ids: &'i Sorter<RECORD>, types: &'i [String], cutoff: Instant) -> Self {
        Intake {
            spool,
            ids,
            types,
            cutoff,
            event_id: StringBuilder::new(),
            label_type: Int32Builder::new(),
            assertion: StringBuilder::new(),
            value: StringBuilder::new(),
            observed: Int64Builder::new(),
            embedded: Int64Builder::new(),
            flags: Int32Builder::new(),
            shard_of: Vec::new(),
            records: Vec::new(),
        }
    }

    fn push(&mut self, assertion: Assertion<'_>) -> Result<(), EngineError> {
        let Ok(label_type) = self.types.binary_search_by(|t| t.as_str().cmp(assertion.label_type)) else { return Ok(()) };
        let observed = assertion.observed.and_then(|t| Instant::parse(t).ok()).map(ObservedTime);
        let embedded = assertion.embedded_observed.map(|t| Instant::parse(t).ok().map(ObservedTime));
        let effective = assertion.effective.map(|t| Instant::parse(t).map(EffectiveTime));
        let mut flags = 0;
        if observed.is_none() {
            flags |= OBSERVED_BAD;
        }
        if embedded.is_some_and(|inner| inner != observed) {
            flags |= OBSERVED_DIFFERS;
        }
        if effective.is_some_and(|e| e.is_err()) {
            flags |= EFFECTIVE_BAD;
        }
        self.event_id.append_value(assertion.event_id);
        self.label_type.append_value(label_type as i32);
        self.assertion.append_value(assertion.id);
        self.value.append_option(assertion.value);
        self.observed.append_option(observed.map(|o| o.0.0));
        self.embedded.append_option(embedded.flatten().map(|o| o.0.0));
        self.flags.append_value(flags);
        self.shard_of.push(shard_of(assertion.event_id.as_bytes(), self.spool.shards()));
        self.records.push(id_record(&assertion, observed.is_some_and(|o| o.known_at(self.cutoff))));
        if self.records.len() >= GATHER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        let batch = RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(self.event_id.finish()),
                Arc::new(self.label_type.finish()),
                Arc::new(self.assertion.finish()),
                Arc::new(self.value.finish()),
                Arc::new(self.observed.finish()),
                Arc::new(self.embedded.finish()),
                Arc::new(self.flags.finish()),
            ],
        )?;
        self.spool.push(&batch, &self.shard_of)?;
        self.shard_of.clear();
        self.ids.push(std::mem::take(&mut self.records))
    }
}

fn id_record(assertion: &Assertion<'_>, known: bool) -> [u8; RECORD] {
    let text = |t: Option<&str>| t.map_or_else(Vec::new, |t| [b"+", t.as_bytes()].concat());
    // Two spellings of one instant are one content; what is no instant stands as it is written.
    let stamp = |t: Option<&str>| match t.map(Instant::parse) {
        Some(Ok(at)) => [b"@".as_slice(), &at.0.to_le_bytes()].concat(),
        _ => text(t),
    };
    let content = short_digest(&[
        assertion.event_id.as_bytes(),
        assertion.label_type.as_bytes(),
        &text(assertion.value),
        &stamp(assertion.effective),
        &stamp(assertion.observed),
        &stamp(assertion.embedded_observed),
        &text(assertion.payload_hash),
    ]);
    let mut record = [0u8; RECORD];
    let bytes = short_digest(&[assertion.id.as_bytes()]).into_iter().chain(content).chain([u8::from(known)]);
    for (slot, byte) in record.iter_mut().zip(bytes) {
        *slot = byte;
    }
    record
}

/// Reads the whole timeline in parallel pieces.
pub(super) fn read(pinned: &Pinned, env: &Env, timeline: &dyn LabelTimeline, work: &Work) -> Result<Assertions, Refusal> {
    let engine = |e: EngineError| Refusal::of_engine(PHASE, &e);
    let labels = |e: crate::source::labels::LabelError| Refusal::new(e.code, PHASE, e.to_string());
    let spool = Spool::new(schema(), pinned.shards(), work.budget(Waiting::Assertions), work.scratch.clone());
    let ids = Sorter::<RECORD>::new(work.budget(Waiting::AssertionIds), work.scratch.clone());
    let types: BTreeSet<String> = pinned.intent().label_types.iter().cloned().collect();
    let query = LabelQuery { platform_run_id: &pinned.intent().platform_run_id, types: &types };
    let parts = timeline.parts().map_err(labels)?;
    let count = AtomicU64::new(0);
    parallel::each(
        env,
        PHASE,
        parts.len(),
        || Intake::new(&spool, &ids, &pinned.intent().label_types, pinned.intent().labels.asof),
        |intake, index| {
            let Some(part) = parts.get(index) else { return Ok(()) };
            let mut failed = None;
            let mut seen = 0u64;
            let scanned = timeline.scan(part, query, &mut |assertion| {
                seen += 1;
                if seen.is_multiple_of(4_096) && env.cancel.is_cancelled() {
                    return ControlFlow::Break(());
                }
                match intake.push(assertion) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            });
            scanned.map_err(labels)?;
            count.fetch_add(seen, Ordering::Relaxed);
            failed.map_or(Ok(()), |e| Err(engine(e)))
        },
        |mut intake| intake.flush().map_err(engine),
    )?;
    env.check(PHASE)?;
    let (inconsistent, state) = check_ids(&ids, count.into_inner())?;
    Ok(Assertions { spool, inconsistent, state })
}

/// One id, two contents: the store cannot be trusted about whatever that id says.
fn check_ids(ids: &Sorter<RECORD>, assertions: u64) -> Result<(HashSet<[u8; 16]>, State), Refusal> {
    let engine = |e: EngineError| Refusal::of_engine(PHASE, &e);
    let mut inconsistent = HashSet::new();
    let mut hasher = blake3::Hasher::new();
    let mut known = 0u64;
    let mut last: Option<[u8; RECORD]> = None;
    for record in ids.finish().map_err(engine)? {
        let record = record.map_err(engine)?;
        if last == Some(record) {
            continue;
        }
        if let (Some((id, _)), Some((before, _))) =
            (record.split_first_chunk::<16>(), last.as_ref().and_then(|l| l.split_first_chunk::<16>()))
            && id == before
        {
            inconsistent.insert(*id);
            if inconsistent.len() > MAX_INCONSISTENT {
                let message = format!("more than {MAX_INCONSISTENT} assertion ids stand for two contents");
                return Err(Refusal::new(ReasonCode::LabelTimelineInconsistent, PHASE, message));
            }
        }
        if record.last() == Some(&1) {
            known += 1;
            hasher.update(&record);
        }
        last = Some(record);
    }
    Ok((inconsistent, State { assertions, known, digest: hasher.finalize().to_hex().to_string() }))
}
