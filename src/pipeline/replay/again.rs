//! The other door to the proof of a replay: what an earlier attempt of this run delivered, taken from
//! staging instead of the logs.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int32Type;
use serde_json::{Value, json};

use super::{PHASE, Replayed, Waiting, Work};
use crate::contract::{Offset, ReasonCode};
use crate::engine::EngineError;
use crate::engine::shard::shards_of;
use crate::engine::spool::Spool;
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::kept::{Keep, Kept, Recorded, go_on};
use crate::pipeline::pin::Pinned;
use crate::pipeline::projection::{NO_KEY, Projection, ValueFault, event, subject};

/// Which of the delivered rows a later gate needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Events by key, and subjects by event id: the labels are still to be resolved.
    All,
    /// Events by key.
    Events,
}

impl Replayed {
    /// Keeps the delivered events in staging, for a later attempt. The subjects are those of the events, so only
    /// those of events without a key are kept besides.
    ///
    /// # Errors
    /// `STORE_IO`, `SCRATCH_IO`, `INTERRUPTED`.
    pub fn keep(&self, env: &Env) -> Result<Value, Refusal> {
        let mut keep = Keep::begin(&self.pinned, env, PHASE);
        keep.rows("events", |share, to| self.events.save(share, to, |batch| go_on(env).map(|()| batch)))?;
        // Nearly always there are none, and then nobody need look for them.
        let none = Spool::new(
            self.subjects.schema().clone(),
            self.subjects.shards(),
            self.work.budget(Waiting::Subjects),
            self.work.scratch.clone(),
        );
        let subjects = if self.keyless > 0 { &self.subjects } else { &none };
        keep.rows("keyless", |share, to| subjects.save(share, to, |batch| go_on(env).and_then(|()| keyless(&batch))))?;
        let fault = self.value_fault.as_ref().map(|(fault, total)| {
            json!({"lane": fault.lane, "offset": fault.offset, "field": fault.field, "declared": fault.declared, "found": fault.found, "total": total})
        });
        keep.seal(&self.proof, &json!({"value_fault": fault}))
    }

    /// Takes this run's own replay again: its receipt is read and held against the digest that the ledger
    /// recorded when the gate was passed, and what it kept is hashed anew. No log is asked.
    ///
    /// # Errors
    /// `PROVENANCE_INCONSISTENT` or `DIGEST_MISMATCH` where anything differs; the environment's.
    pub fn reprove(pinned: Pinned, env: &Env, recorded: &Recorded, rows: Rows) -> Result<Replayed, Refusal> {
        let receipt = recorded.receipt(&pinned, env, PHASE, PHASE)?;
        let part = |key: &str| receipt.get(key).cloned().unwrap_or(Value::Null);
        let (proof, observation) = (part("proof"), part("observation"));
        let basis = crate::identity::basis_hash(pinned.intent());
        if proof.get("basis_hash").and_then(Value::as_str) != Some(basis.as_str()) || proof.get("status") != Some(&json!("COMPLETE")) {
            return Err(Refusal::new(ReasonCode::ProvenanceInconsistent, PHASE, "the receipt of the replay is not of this basis"));
        }
        // What an anchor is held against is tapped while records are delivered, and is not kept.
        if rows == Rows::All && pinned.snapshot_scope().is_some() {
            return Err(Refusal::new(ReasonCode::ProvenanceInconsistent, PHASE, "the totals that the anchor is held against are not kept"));
        }
        let kept = Kept::find(&pinned, env, PHASE, recorded, &proof)?;
        let work = Work::new(env, pinned.admitted().run_key())?;
        let projection = Projection::new(pinned.intent(), pinned.group())?;
        let events = Spool::new(projection.event_schema(), pinned.shards(), work.budget(Waiting::Events), work.scratch.clone());
        let subjects = Spool::new(projection.subject_schema(), pinned.shards(), work.budget(Waiting::Subjects), work.scratch.clone());
        kept.rows("events", |from| {
            events.load(from, |batch, shards| {
                go_on(env)?;
                if rows == Rows::All { add_subjects(&subjects, batch, shards) } else { Ok(()) }
            })
        })?;
        let mut keyless = 0;
        if rows == Rows::All {
            kept.rows("keyless", |from| {
                subjects.load(from, |batch, _| {
                    keyless += batch.num_rows() as u64;
                    go_on(env)
                })
            })?;
        }
        Ok(Replayed {
            lanes: pinned.intent().lanes().into_iter().map(|(lane, _)| lane).collect(),
            value_fault: kept.about("/value_fault").filter(|fault| !fault.is_null()).map(value_fault).transpose()?,
            pinned,
            projection,
            events,
            subjects,
            keyless,
            proof,
            observation,
            tap: None,
            work,
        })
    }
}

fn missing() -> EngineError {
    EngineError::Internal("a column of the delivered events is missing or of another type".into())
}

fn column(batch: &RecordBatch, at: usize) -> Result<&ArrayRef, EngineError> {
    batch.columns().get(at).ok_or_else(missing)
}

/// The subjects of events without a key.
fn keyless(subjects: &RecordBatch) -> Result<RecordBatch, EngineError> {
    let drops = column(subjects, subject::DROP)?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?;
    let wanted: BooleanArray = drops.values().iter().map(|code| Some(*code == NO_KEY)).collect();
    Ok(filter_record_batch(subjects, &wanted)?)
}

/// The subjects of events with the shards of their keys, as the replay hands them on (see `projection::subject`).
fn add_subjects(subjects: &Spool, events: &RecordBatch, key_shards: &[u32]) -> Result<(), EngineError> {
    let ids = column(events, event::EVENT_ID)?.as_string_opt::<i32>().ok_or_else(missing)?;
    let shards = shards_of(ids, subjects.shards());
    let key_shards = Int32Array::from_iter_values(key_shards.iter().map(|shard| i32::try_from(*shard).unwrap_or(i32::MAX)));
    let mut columns: Vec<(usize, ArrayRef)> = vec![(subject::KEY_SHARD, Arc::new(key_shards))];
    for (to, from) in [
        (subject::EVENT_ID, event::EVENT_ID),
        (subject::HASH, event::HASH),
        (subject::LANE, event::LANE),
        (subject::OFFSET, event::OFFSET),
        (subject::TS, event::TS),
        (subject::DROP, event::DROP),
    ] {
        columns.push((to, column(events, from)?.clone()));
    }
    columns.sort_by_key(|(at, _)| *at);
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    subjects.push(&RecordBatch::try_new(subjects.schema().clone(), columns)?, &shards)
}

fn value_fault(kept: &Value) -> Result<(ValueFault, u64), Refusal> {
    let text = |key: &str| kept.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |key: &str| kept.get(key).and_then(Value::as_i64);
    let fault = || {
        let lane = i32::try_from(number("lane")?).ok()?;
        let offset = Offset::parse(&text("offset")?)?;
        let fault = ValueFault { lane, offset, field: text("field")?, declared: text("declared")?, found: text("found")? };
        Some((fault, u64::try_from(number("total")?).ok()?))
    };
    fault().ok_or_else(|| Refusal::new(ReasonCode::ProvenanceInconsistent, PHASE, "the kept value fault cannot be read"))
}
