//! Reading the timeline: every assertion to the shard of its event, and its id to the duplicate check.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayBuilder, Int32Builder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::PHASE;
use crate::contract::ReasonCode;
use crate::digest::many::{Hash, Texts};
use crate::digest::pieces::Pieces;
use crate::engine::EngineError;
use crate::engine::shard::shards_of;
use crate::engine::sorter::Sorter;
use crate::engine::spool::{Spool, full};
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::parallel;
use crate::pipeline::pin::Pinned;
use crate::pipeline::replay::{Waiting, Work};
use crate::source::labels::{Assertion, LabelQuery, LabelTimeline, Stamp};
use crate::text::clip;
use crate::time::{EffectiveTime, Instant, ObservedTime};

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
    pub(in super::super) const OTHER: usize = 7;
}

/// The observed time is missing or not an instant.
pub(super) const OBSERVED_BAD: i32 = 1;
/// The store's two copies of the observed time differ.
pub(super) const OBSERVED_DIFFERS: i32 = 2;
/// The effective time is not an instant.
pub(super) const EFFECTIVE_BAD: i32 = 4;

/// The store cannot be trusted about it; why stands where the value outside the vocabulary would.
pub(super) const FAULTY: i32 = 8;
/// It has an observed time of its own that cannot be read.
pub(super) const UNREAD: i32 = 16;
/// Most characters of a fault.
const MAX_FAULT: usize = 200;

/// The store as this attempt found it (O091).
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) assertions: u64,
    pub(super) known: u64,
    pub(super) digest: String,
}

/// Stands for every value that is not in the vocabulary, which is then beside it, and for none.
pub(super) const OUTSIDE: i32 = -1;

/// All assertions of the wanted types.
#[derive(Debug)]
pub(super) struct Assertions {
    pub(super) spool: Spool,
    /// Digests of assertion ids that stand for two contents, both known at the cut-off.
    pub(super) inconsistent: HashSet<[u8; 16]>,
    pub(super) state: State,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("event_id", DataType::Utf8, false),
        Field::new("type", DataType::Int32, false),
        Field::new("assertion_id", DataType::Utf8, false),
        Field::new("value", DataType::Int32, false),
        Field::new("observed", DataType::Int64, true),
        Field::new("embedded", DataType::Int64, true),
        Field::new("flags", DataType::Int32, false),
        Field::new("other_value", DataType::Utf8, true),
    ]))
}

/// Adds a part to a text that is digested, with its length before it.
fn part(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// First half of a BLAKE3.
fn short(hash: &Hash) -> [u8; 16] {
    hash.first_chunk().copied().unwrap_or_default()
}

/// What an assertion id is remembered by.
pub(super) fn id_digest(id: &str) -> [u8; 16] {
    let (mut texts, mut digest) = (Texts::new(), Vec::with_capacity(1));
    push_id(id, &mut texts);
    texts.digest_into(&mut digest);
    digest.first().map(short).unwrap_or_default()
}

/// The text that an assertion's id is digested from.
fn push_id(id: &str, texts: &mut Texts) {
    part(id.as_bytes(), texts.text());
    texts.end_of_blocks();
}

struct Intake<'i> {
    spool: &'i Spool,
    ids: &'i Sorter<RECORD>,
    /// Label types by name, with their values in order.
    vocabulary: &'i [(String, Vec<String>)],
    cutoff: Instant,
    event_id: StringBuilder,
    label_type: Int32Builder,
    assertion: StringBuilder,
    /// Where the value stands in the vocabulary.
    value: Int32Builder,
    observed: Int64Builder,
    embedded: Int64Builder,
    flags: Int32Builder,
    other_value: StringBuilder,
    /// Of each assertion that is not yet among the records, what its id and what its content is digested from.
    texts: Texts,
    hashes: Vec<Hash>,
    /// Whether each of those was known at the cut-off.
    known: Vec<bool>,
    records: Vec<[u8; RECORD]>,
}

impl<'i> Intake<'i> {
    fn new(spool: &'i Spool, ids: &'i Sorter<RECORD>, vocabulary: &'i [(String, Vec<String>)], cutoff: Instant) -> Self {
        Intake {
            spool,
            ids,
            vocabulary,
            cutoff,
            event_id: StringBuilder::new(),
            label_type: Int32Builder::new(),
            assertion: StringBuilder::new(),
            value: Int32Builder::new(),
            observed: Int64Builder::new(),
            embedded: Int64Builder::new(),
            flags: Int32Builder::new(),
            other_value: StringBuilder::new(),
            texts: Texts::new(),
            hashes: Vec::new(),
            known: Vec::new(),
            records: Vec::new(),
        }
    }

    fn push(&mut self, assertion: Assertion<'_>) -> Result<(), EngineError> {
        let place = self.vocabulary.binary_search_by(|(name, _)| name.as_str().cmp(assertion.label_type));
        let Some((label_type, (_, values))) = place.ok().and_then(|at| Some((at, self.vocabulary.get(at)?))) else { return Ok(()) };
        let read = |stamp: Option<Stamp<'_>>| stamp.map(Stamp::instant);
        let stamps = Stamps {
            effective: read(assertion.effective),
            observed: read(assertion.observed),
            embedded: read(assertion.embedded_observed),
        };
        let observed = stamps.observed.flatten().map(ObservedTime);
        let embedded = stamps.embedded.map(|inner| inner.map(ObservedTime));
        let effective = stamps.effective.map(|t| t.map(EffectiveTime));
        let mut flags = 0;
        if observed.is_none() {
            flags |= OBSERVED_BAD;
        }
        if embedded.is_some_and(|inner| inner != observed) {
            flags |= OBSERVED_DIFFERS;
        }
        if effective.is_some_and(|e| e.is_none()) {
            flags |= EFFECTIVE_BAD;
        }
        if assertion.fault.is_some() {
            flags |= FAULTY;
        }
        if assertion.unread {
            flags |= UNREAD;
        }
        self.event_id.append_value(assertion.event_id);
        self.label_type.append_value(label_type as i32);
        self.assertion.append_value(assertion.id);
        let value = assertion.value.and_then(|value| values.binary_search_by(|v| v.as_str().cmp(value)).ok());
        self.value.append_value(value.map_or(OUTSIDE, |at| at as i32));
        match assertion.fault {
            Some(fault) => self.other_value.append_value(clip(fault, MAX_FAULT)),
            None => self.other_value.append_option(assertion.value.filter(|_| value.is_none())),
        }
        self.observed.append_option(observed.map(|o| o.0.0));
        self.embedded.append_option(embedded.flatten().map(|o| o.0.0));
        self.flags.append_value(flags);
        push_texts(&assertion, &stamps, &mut self.texts);
        self.known.push(observed.is_some_and(|o| o.known_at(self.cutoff)));
        if self.texts.len() >= Texts::BATCH {
            self.digest();
        }
        let texts = [&self.event_id, &self.assertion, &self.other_value].map(|texts| texts.values_slice().len());
        if full(self.flags.len(), self.texts.bytes() + texts.iter().sum::<usize>()) { self.flush() } else { Ok(()) }
    }

    /// Makes records of the texts that wait.
    fn digest(&mut self) {
        self.texts.digest_into(&mut self.hashes);
        for (pair, known) in self.hashes.chunks_exact(2).zip(self.known.drain(..)) {
            if let [id, content] = pair {
                let mut record = [u8::from(known); RECORD];
                record.chunks_exact_mut(16).zip([id, content]).for_each(|(half, hash)| half.copy_from_slice(&short(hash)));
                self.records.push(record);
            }
        }
        self.hashes.clear();
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        self.digest();
        let event_id = self.event_id.finish();
        let shards = shards_of(&event_id, self.spool.shards());
        let batch = RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(event_id),
                Arc::new(self.label_type.finish()),
                Arc::new(self.assertion.finish()),
                Arc::new(self.value.finish()),
                Arc::new(self.observed.finish()),
                Arc::new(self.embedded.finish()),
                Arc::new(self.flags.finish()),
                Arc::new(self.other_value.finish()),
            ],
        )?;
        self.spool.push(&batch, &shards)?;
        self.ids.push(std::mem::take(&mut self.records))
    }
}

/// The instants of an assertion: absent, no instant, or one.
struct Stamps {
    effective: Option<Option<Instant>>,
    observed: Option<Option<Instant>>,
    embedded: Option<Option<Instant>>,
}

/// The two texts that an assertion's id and its content are digested from. Each part has its length before it, so
/// zeros behind the last one change nothing.
fn push_texts(assertion: &Assertion<'_>, stamps: &Stamps, texts: &mut Texts) {
    push_id(assertion.id, texts);
    let out = texts.text();
    part(assertion.event_id.as_bytes(), out);
    part(assertion.label_type.as_bytes(), out);
    stated(b'+', assertion.value.map(str::as_bytes), out);
    for (written, read) in
        [(assertion.effective, stamps.effective), (assertion.observed, stamps.observed), (assertion.embedded_observed, stamps.embedded)]
    {
        match read.flatten() {
            // Two spellings of one instant are one content; what is no instant stands as it is written.
            Some(at) => stated(b'@', Some(&at.0.to_le_bytes()), out),
            None => stated(b'+', written.map(Stamp::text).as_deref().map(str::as_bytes), out),
        }
    }
    stated(b'+', assertion.payload_hash.map(str::as_bytes), out);
    // Only where there is one, so that a store without has the digest that it always had.
    if let Some(fault) = assertion.fault {
        stated(b'!', Some(fault.as_bytes()), out);
    }
    texts.end_of_blocks();
}

/// A part that may be absent: a mark before what is there tells it from an empty one.
fn stated(mark: u8, bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(bytes) = bytes else { return part(&[], out) };
    out.extend_from_slice(&(bytes.len() as u64 + 1).to_le_bytes());
    out.push(mark);
    out.extend_from_slice(bytes);
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
        || Intake::new(&spool, &ids, pinned.vocabulary(), pinned.intent().labels.asof),
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

/// One id, two contents that were both known: the store cannot be trusted about whatever that id says. What was observed
/// later is none of this build's knowledge, and an id that is used again then may not break a rerun.
fn check_ids(ids: &Sorter<RECORD>, assertions: u64) -> Result<(HashSet<[u8; 16]>, State), Refusal> {
    let engine = |e: EngineError| Refusal::of_engine(PHASE, &e);
    let mut inconsistent = HashSet::new();
    let mut digest = Pieces::new();
    let mut known = 0u64;
    let mut last: Option<[u8; RECORD]> = None;
    for record in ids.finish().map_err(engine)? {
        let record = record.map_err(engine)?;
        if record.last() != Some(&1) || last == Some(record) {
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
        known += 1;
        digest.push(&record);
        last = Some(record);
    }
    Ok((inconsistent, State { assertions, known, digest: digest.digest().to_hex().to_string() }))
}
