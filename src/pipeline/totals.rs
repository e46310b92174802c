//! The online plane's running totals, rebuilt from the delivered events (O096, O160).
//!
//! The online plane keeps, for each scenario and key, the number of events, the float sum of their amounts
//! and the greatest event time. Events are tapped while the replay delivers them, so that what is counted is
//! what was proved. Two rules drop a redelivery: one place counts once, and of one (class, event id) the first
//! to arrive counts, whether a later one has the same content or not.
//!
//! Floats are added in the order of arrival: by offset inside a partition. Across partitions that order is on
//! no record; partitions are taken one after the other, and a key that spans several says so.

mod rules;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    ArrayRef, AsArray, BooleanBuilder, FixedSizeBinaryBuilder, Float64Builder, Int32Builder, RecordBatch, StringArray, StringBuilder,
    UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Schema, SchemaRef};
use serde_json::{Value, json};

use self::rules::{Taken, Verdict};
use super::gate::{Env, Phase, Refusal};
use super::parallel;
use super::projection::{OffsetBuilder, Projection};
use super::replay::{Waiting, Work};
use crate::contract::Offset;
use crate::contract::intent::Lane;
use crate::engine::EngineError;
use crate::engine::offsets::Offsets;
use crate::engine::shard::{shard_of, shards_of};
use crate::engine::spool::{Spool, full};
use crate::source::EventRecord;

const PHASE: Phase = Phase::Features;

/// Where the columns of the tap stand.
mod column {
    pub(super) const LANE: usize = 0;
    pub(super) const OFFSET: usize = 1;
    pub(super) const EVENT_ID: usize = 2;
    pub(super) const CLASS: usize = 3;
    pub(super) const KEY_TYPE: usize = 4;
    pub(super) const KEY_ID: usize = 5;
    pub(super) const AMOUNT: usize = 6;
    pub(super) const TS: usize = 7;
    pub(super) const HASH: usize = 8;
    pub(super) const VERDICT: usize = 9;
    pub(super) const WANTED: usize = 10;
}

/// Takes of every delivered event what the totals need.
#[derive(Debug)]
pub struct Tap {
    schema: SchemaRef,
    spool: Spool,
    precedence: Vec<String>,
    scenario: String,
    sparse: bool,
}

/// One key's totals.
#[derive(Debug, Clone, PartialEq)]
pub struct Total {
    /// Events.
    pub count: u64,
    /// Sum of their amounts, in the order of arrival.
    pub sum: f64,
    /// Sum of the amounts' magnitudes: bounds what another order could have given.
    pub magnitude: f64,
    /// Greatest event time, compared as text.
    pub last_ts: String,
    /// Whether events of several partitions went into it.
    pub spans: bool,
}

/// Everything that was rebuilt.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// By `<key type>:<key>`.
    pub by_key: BTreeMap<String, Total>,
    /// What became of the events, each place once.
    pub counts: Counts,
}

/// What became of the events, each place once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    applied: u64,
    other_scenarios: u64,
    duplicates: u64,
    payload_hash_mismatch: u64,
    ignored_event_type: u64,
    invalid_pins: u64,
    invalid_envelope: u64,
    /// Events whose key or amount the online plane would have read in a way of its own.
    pub unreadable: u64,
}

impl Counts {
    fn add(&mut self, other: Counts) {
        self.applied += other.applied;
        self.other_scenarios += other.other_scenarios;
        self.duplicates += other.duplicates;
        self.payload_hash_mismatch += other.payload_hash_mismatch;
        self.ignored_event_type += other.ignored_event_type;
        self.invalid_pins += other.invalid_pins;
        self.invalid_envelope += other.invalid_envelope;
        self.unreadable += other.unreadable;
    }

    /// As in the report.
    pub fn to_json(self) -> Value {
        json!({
            "applied": self.applied, "other_scenarios": self.other_scenarios, "duplicates": self.duplicates,
            "payload_hash_mismatch": self.payload_hash_mismatch, "ignored_event_type": self.ignored_event_type,
            "invalid_pins": self.invalid_pins, "invalid_envelope": self.invalid_envelope, "unreadable": self.unreadable,
        })
    }
}

impl Total {
    /// As the online plane writes it.
    pub fn to_json(&self) -> Value {
        json!({
            "event_count": self.count, "amount_sum": crate::json::number(&rules::python_float(self.sum)), "last_event_ts_utc": self.last_ts,
        })
    }

    /// How far the sum could lie from that of the same amounts in another order.
    pub fn order_bound(&self) -> f64 {
        if self.spans { self.count as f64 * f64::EPSILON * self.magnitude } else { 0.0 }
    }
}

fn internal() -> EngineError {
    EngineError::Internal("a column of the totals is missing or of another type".into())
}

impl Tap {
    /// A tap for one scenario run. `precedence` are the payload fields that may hold the key.
    pub fn new(projection: &Projection, precedence: &[String], scenario: &str, shards: usize, work: &Work) -> Self {
        let schema = Arc::new(Schema::new(vec![
            Field::new("lane", DataType::Int32, false),
            Field::new("offset", projection.offset_type(), false),
            Field::new("event_id", DataType::Utf8, false),
            Field::new("class", DataType::Utf8, false),
            Field::new("key_type", DataType::Utf8, false),
            Field::new("key_id", DataType::Utf8, false),
            Field::new("amount", DataType::Float64, false),
            Field::new("ts", DataType::Utf8, false),
            Field::new("hash", DataType::FixedSizeBinary(32), false),
            Field::new("verdict", DataType::Int32, false),
            Field::new("wanted", DataType::Boolean, false),
        ]));
        let mut precedence = precedence.to_vec();
        if !precedence.iter().any(|name| name == rules::OWN_ID) {
            precedence.push(rules::OWN_ID.to_owned());
        }
        // Labels wait only after the totals are done with, so their share of the memory is free.
        let spool = Spool::new(schema.clone(), shards, work.budget(Waiting::Assertions), work.scratch.clone());
        Tap { schema, spool, precedence, scenario: scenario.to_owned(), sparse: projection.sparse() }
    }

    /// A thread's end of the tap.
    pub fn open(&self) -> Taker<'_> {
        Taker {
            tap: self,
            scratch: Vec::new(),
            lane: Int32Builder::new(),
            offset: OffsetBuilder::new(self.sparse),
            event_id: StringBuilder::new(),
            class: StringBuilder::new(),
            key_type: StringBuilder::new(),
            key_id: StringBuilder::new(),
            amount: Float64Builder::new(),
            ts: StringBuilder::new(),
            hash: FixedSizeBinaryBuilder::new(32),
            verdict: Int32Builder::new(),
            wanted: BooleanBuilder::new(),
            shard: Vec::new(),
        }
    }

    /// Drops what was taken, where nobody asks for the totals.
    pub fn clear(&self) {
        self.spool.clear();
    }

    /// Adds up what was taken.
    ///
    /// # Errors
    /// Spill space that fails, and the order to stop.
    pub fn totals(&self, env: &Env, work: &Work) -> Result<Totals, Refusal> {
        let engine = |e: EngineError| Refusal::of_engine(PHASE, &e);
        let shards = self.spool.shards();
        let applied = Spool::new(self.schema.clone(), shards, work.budget(Waiting::Decisions), work.scratch.clone());
        let counts = Mutex::new(Counts::default());
        env.progress.enter(PHASE, 2 * shards as u64);
        let first_seen = |(): &mut (), shard: usize| {
            let batch = self.spool.shard(shard).map_err(engine)?;
            let (kept, mine) = dedupe(&batch).map_err(engine)?;
            counts.lock().unwrap_or_else(PoisonError::into_inner).add(mine);
            env.progress.advance(1);
            let kept = take_record_batch(&batch, &UInt32Array::from(kept)).map_err(|e| engine(e.into()))?;
            let shard_of_row = key_shards(&kept, shards).map_err(engine)?;
            applied.push(&kept, &shard_of_row).map_err(engine)
        };
        parallel::each(env, PHASE, shards, || (), first_seen, |()| Ok(()))?;
        self.spool.clear();
        let by_key = Mutex::new(BTreeMap::new());
        let summed = |(): &mut (), shard: usize| {
            let totals = sum(&applied.shard(shard).map_err(engine)?).map_err(engine)?;
            by_key.lock().unwrap_or_else(PoisonError::into_inner).extend(totals);
            env.progress.advance(1);
            Ok(())
        };
        parallel::each(env, PHASE, shards, || (), summed, |()| Ok(()))?;
        let mut counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
        let by_pair: BTreeMap<(String, String), Total> = by_key.into_inner().unwrap_or_else(PoisonError::into_inner);
        counts.unreadable += by_pair.values().filter(|t| !t.sum.is_finite()).count() as u64;
        // Two pairs may spell one name; then the greater pair stands, as in the online plane.
        let by_key = by_pair.into_iter().map(|((key_type, key_id), total)| (format!("{key_type}:{key_id}"), total)).collect();
        Ok(Totals { by_key, counts })
    }
}

/// Gathers rows for the tap; one a thread.
pub struct Taker<'t> {
    tap: &'t Tap,
    scratch: Vec<u8>,
    lane: Int32Builder,
    offset: OffsetBuilder,
    event_id: StringBuilder,
    class: StringBuilder,
    key_type: StringBuilder,
    key_id: StringBuilder,
    amount: Float64Builder,
    ts: StringBuilder,
    hash: FixedSizeBinaryBuilder,
    verdict: Int32Builder,
    wanted: BooleanBuilder,
    shard: Vec<u32>,
}

impl Taker<'_> {
    /// Takes what the totals need of a delivered event, whatever the scenario selection says of it: what
    /// another scenario brought first is a redelivery in this one.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn push(&mut self, lane: i32, of: &Lane, event: &EventRecord<'_>) -> Result<(), EngineError> {
        let missing = || EngineError::Internal("the totals need envelopes, and none was asked for".into());
        let Taken { verdict, class, key_type, key_id, amount, ts, hash } =
            rules::take(event, event.envelope.ok_or_else(missing)?, &of.topic, &self.tap.precedence, &mut self.scratch);
        self.lane.append_value(lane);
        self.offset.append(event.offset);
        self.event_id.append_value(&event.event_id);
        self.class.append_value(class);
        self.key_type.append_value(key_type);
        self.key_id.append_value(key_id);
        self.amount.append_value(amount);
        self.ts.append_value(ts);
        self.hash.append_value(hash)?;
        self.verdict.append_value(verdict as i32);
        self.wanted.append_value(event.scenario_run_id.as_deref() == Some(self.tap.scenario.as_str()));
        self.shard.push(shard_of(event.event_id.as_bytes(), self.tap.spool.shards()));
        let texts = [&self.event_id, &self.key_id].map(|texts| texts.values_slice().len());
        if full(self.shard.len(), texts.iter().sum()) { self.flush() } else { Ok(()) }
    }

    /// Hands everything gathered over.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn flush(&mut self) -> Result<(), EngineError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.lane.finish()),
            self.offset.finish(),
            Arc::new(self.event_id.finish()),
            Arc::new(self.class.finish()),
            Arc::new(self.key_type.finish()),
            Arc::new(self.key_id.finish()),
            Arc::new(self.amount.finish()),
            Arc::new(self.ts.finish()),
            Arc::new(self.hash.finish()),
            Arc::new(self.verdict.finish()),
            Arc::new(self.wanted.finish()),
        ];
        let batch = RecordBatch::try_new(self.tap.schema.clone(), columns)?;
        self.tap.spool.push(&batch, &self.shard)?;
        self.shard.clear();
        Ok(())
    }
}

/// The columns of a batch that decide and name.
struct Columns<'b> {
    batch: &'b RecordBatch,
    offsets: Offsets,
}

impl<'b> Columns<'b> {
    fn of(batch: &'b RecordBatch) -> Result<Self, EngineError> {
        let offsets = Offsets::of(batch.columns().get(column::OFFSET).ok_or_else(internal)?.as_ref())?;
        Ok(Columns { batch, offsets })
    }

    fn at(&self, column: usize) -> Result<&'b ArrayRef, EngineError> {
        self.batch.columns().get(column).ok_or_else(internal)
    }

    fn text(&self, column: usize) -> Result<&'b StringArray, EngineError> {
        self.at(column)?.as_string_opt::<i32>().ok_or_else(internal)
    }

    /// (lane, offset) of each row.
    fn places(&self) -> Result<Vec<(i32, Offset)>, EngineError> {
        let lanes = self.at(column::LANE)?.as_primitive_opt::<Int32Type>().ok_or_else(internal)?;
        Ok((0..lanes.len()).map(|row| (lanes.value(row), self.offsets.get(row))).collect())
    }
}

/// The rows that count for the wanted scenario, by both rules, and what became of the others.
fn dedupe(batch: &RecordBatch) -> Result<(Vec<u32>, Counts), EngineError> {
    let columns = Columns::of(batch)?;
    let (classes, ids) = (columns.text(column::CLASS)?, columns.text(column::EVENT_ID)?);
    let verdicts = columns.at(column::VERDICT)?.as_primitive_opt::<Int32Type>().ok_or_else(internal)?;
    let wanted = columns.at(column::WANTED)?.as_boolean_opt().ok_or_else(internal)?;
    let hashes = columns.at(column::HASH)?.as_fixed_size_binary_opt().ok_or_else(internal)?;
    let places = columns.places()?;
    let mut rows: Vec<(&str, &str, (i32, Offset), u32)> =
        places.iter().zip(0_u32..).map(|(place, row)| (classes.value(row as usize), ids.value(row as usize), *place, row)).collect();
    rows.sort_unstable();
    rows.dedup_by(|b, a| (a.0, a.1, a.2) == (b.0, b.1, b.2));
    let (mut kept, mut counts) = (Vec::new(), Counts::default());
    for same in rows.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let mut first: Option<&[u8]> = None;
        for row in same.iter().map(|r| r.3 as usize) {
            match (verdicts.value(row), first) {
                (v, _) if v == Verdict::IgnoredType as i32 => counts.ignored_event_type += 1,
                (v, _) if v == Verdict::InvalidPins as i32 => counts.invalid_pins += 1,
                (v, _) if v == Verdict::InvalidEnvelope as i32 => counts.invalid_envelope += 1,
                (_, Some(hash)) if hash == hashes.value(row) => counts.duplicates += 1,
                (_, Some(_)) => counts.payload_hash_mismatch += 1,
                (verdict, None) => {
                    first = Some(hashes.value(row));
                    match (wanted.value(row), verdict == Verdict::Unreadable as i32) {
                        (false, _) => counts.other_scenarios += 1,
                        (true, true) => counts.unreadable += 1,
                        (true, false) => {
                            counts.applied += 1;
                            kept.push(row as u32);
                        }
                    }
                }
            }
        }
    }
    Ok((kept, counts))
}

fn key_shards(batch: &RecordBatch, shards: usize) -> Result<Vec<u32>, EngineError> {
    let keys = Columns::of(batch)?.text(column::KEY_ID)?;
    Ok(shards_of(keys, shards))
}

/// Key type and key with their totals.
type Keyed = ((String, String), Total);

/// The totals of a shard of keys.
fn sum(batch: &RecordBatch) -> Result<Vec<Keyed>, EngineError> {
    let columns = Columns::of(batch)?;
    let (types, keys, stamps) = (columns.text(column::KEY_TYPE)?, columns.text(column::KEY_ID)?, columns.text(column::TS)?);
    let amounts = columns.at(column::AMOUNT)?.as_primitive_opt::<Float64Type>().ok_or_else(internal)?;
    let places = columns.places()?;
    let mut rows: Vec<(&str, &str, (i32, Offset), usize)> =
        places.iter().enumerate().map(|(row, place)| (types.value(row), keys.value(row), *place, row)).collect();
    rows.sort_unstable();
    let mut totals = Vec::new();
    for same in rows.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let Some((key_type, key_id, (lane, _), _)) = same.first() else { continue };
        let amount = |row: &(&str, &str, (i32, Offset), usize)| amounts.value(row.3);
        let total = Total {
            count: same.len() as u64,
            // Adding to positive zero also makes a sum of negative zeros positive.
            sum: same.iter().fold(0.0, |sum, row| sum + amount(row)),
            magnitude: same.iter().fold(0.0, |sum, row| sum + amount(row).abs()),
            last_ts: same.iter().map(|row| stamps.value(row.3)).max().unwrap_or_default().to_owned(),
            spans: same.iter().any(|row| row.2.0 != *lane),
        };
        totals.push((((*key_type).to_owned(), (*key_id).to_owned()), total));
    }
    Ok(totals)
}
