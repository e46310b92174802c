//! Forensic rebuilds: what the features of given keys were as of an event or an instant.
//!
//! The answer is a snapshot for people who look into a case. It is no data set: it has no rows, no labels
//! and no manifest, and where the replay is not complete it says INCOMPLETE instead of being refused.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use serde_json::{Map, Value, json};

use super::feature::shard::Events;
use super::feature::value_fault;
use super::gate::{Env, Phase, Refusal};
use super::pin::Pinned;
use super::projection::{event, subject};
use super::replay::{Incomplete, Replayed};
use super::report;
use super::window_columns::{self, Rows, WindowFailure, feature_fields};
use crate::contract::intent::{AsOf, ForensicScope};
use crate::contract::profile::Availability;
use crate::contract::{Offset, ReasonCode};
use crate::engine::EngineError;
use crate::engine::offsets::Offsets;
use crate::engine::shard::shard_of;
use crate::engine::window::arrival::Arrivals;
use crate::store::Ref;
use crate::time::Instant;

const PHASE: Phase = Phase::Features;
/// Where reports lie.
pub const FOLDER: &str = "forensic";
/// A lane that no event is of: what is asked as of an instant arrived after everything.
const NO_LANE: u32 = u32::MAX;

/// Proof that the features were computed as of the moment asked for, or the word that they are not whole.
#[derive(Debug)]
pub struct Forensic {
    pinned: Pinned,
    report: Value,
}

/// The moment asked for, as a place in canonical order.
#[derive(Debug, Clone, Copy)]
struct Moment {
    ts: i64,
    /// Lane and offset of the event; nothing where an instant is asked for.
    place: Option<(i32, Offset)>,
}

impl Moment {
    /// Whether an event stands at or before it.
    fn reaches(&self, ts: i64, lane: i32, offset: Offset) -> bool {
        match self.place {
            None => ts <= self.ts,
            Some((of, at)) => (ts, lane, offset) <= (self.ts, of, at),
        }
    }
}

fn engine(error: EngineError) -> Refusal {
    Refusal::of_engine(PHASE, &error)
}

fn internal() -> EngineError {
    EngineError::Internal("a spool column is missing or of another type".into())
}

/// Rebuilds from a complete replay.
///
/// # Errors
/// A refusal of gate 6: values that fit no type, contradicting deliveries, the environment.
pub fn prove(replayed: &Replayed, env: &Env) -> Result<Forensic, Refusal> {
    let replay = json!({"status": "COMPLETE", "proof_digest": crate::digest::digest(replayed.proof())});
    rebuild(replayed, env, &replay, Vec::new())
}

/// Rebuilds from what was delivered, and says that it is not everything.
///
/// # Errors
/// As [`prove`].
pub fn incomplete(replay: &Incomplete, env: &Env) -> Result<Forensic, Refusal> {
    let refusal = replay.refusal();
    let missing = std::iter::once(format!("{}: {}", refusal.code, refusal.message)).chain(refusal.evidence.iter().cloned()).collect();
    let told = json!({"status": "INCOMPLETE", "proof_digest": null, "reason": refusal.code});
    rebuild(replay.delivered(), env, &told, missing)
}

fn rebuild(replayed: &Replayed, env: &Env, replay: &Value, mut missing: Vec<String>) -> Result<Forensic, Refusal> {
    let pinned = replayed.pinned();
    let Some(scope) = &pinned.intent().forensic else {
        return Err(Refusal::new(ReasonCode::InternalError, PHASE, "a forensic rebuild without its scope"));
    };
    value_fault(replayed)?;
    env.progress.enter(PHASE, scope.keys.len() as u64);
    let moment = moment(replayed, scope)?;
    let mut keys = Vec::new();
    match moment {
        None => missing.push(format!("event {} is not among the events of the basis", as_of_text(scope))),
        Some(moment) => {
            for key in &scope.keys {
                env.check(PHASE)?;
                keys.push(of_key(replayed, key, moment)?);
                env.progress.advance(1);
            }
        }
    }
    let part = |pointer: &str| pinned.plan().pointer(pointer).cloned().unwrap_or(Value::Null);
    let at = moment.map(|m| json!({"ts_utc": Instant(m.ts), "place": m.place.map(|(lane, offset)| place(replayed, lane, offset))}));
    let report = json!({
        "schema_version": "ofs.forensic_report.v1", "run_key": pinned.admitted().run_key(), "request_id": pinned.intent().request_id,
        "platform_run_id": pinned.intent().platform_run_id, "status": if missing.is_empty() { "COMPLETE" } else { "INCOMPLETE" }, "missing": missing,
        "training_data": false, "as_of": {"asked": part("/join_scope/forensic"), "resolved": at},
        "feature_profile": part("/feature_profile"), "feature_availability": pinned.group().availability.as_str(), "plan_id": part("/plan_id"),
        "basis_hash": part("/basis_hash"), "replay_basis": pinned.intent().basis_json(), "scenario_run_ids": pinned.intent().scenario_run_ids,
        "replay": replay, "keys": keys,
    });
    Ok(Forensic { pinned: pinned.clone(), report })
}

fn as_of_text(scope: &ForensicScope) -> String {
    match &scope.as_of {
        AsOf::Event(id) => crate::text::clip(id, 120).into_owned(),
        AsOf::Instant(instant) => instant.to_string(),
    }
}

fn place(replayed: &Replayed, lane: i32, offset: Offset) -> Value {
    let lane = usize::try_from(lane).ok().and_then(|lane| replayed.lanes().get(lane));
    json!({"topic": lane.map(|l| &l.topic), "partition": lane.map(|l| l.partition), "offset_kind": lane.map(|l| l.kind), "offset": offset})
}

/// Where the moment asked for stands; nothing where its event is not there.
fn moment(replayed: &Replayed, scope: &ForensicScope) -> Result<Option<Moment>, Refusal> {
    let id = match &scope.as_of {
        AsOf::Instant(instant) => return Ok(Some(Moment { ts: instant.0, place: None })),
        AsOf::Event(id) => id,
    };
    let shard = shard_of(id.as_bytes(), replayed.subjects().shards());
    let batch = replayed.subjects().shard(shard as usize).map_err(engine)?;
    let column = |at: usize| batch.columns().get(at).ok_or_else(|| engine(internal()));
    let ids = column(subject::EVENT_ID)?.as_string_opt::<i32>().ok_or_else(|| engine(internal()))?;
    let stamps = column(subject::TS)?.as_primitive_opt::<Int64Type>().ok_or_else(|| engine(internal()))?;
    let lanes = column(subject::LANE)?.as_primitive_opt::<arrow::datatypes::Int32Type>().ok_or_else(|| engine(internal()))?;
    let offsets = Offsets::of(column(subject::OFFSET)?.as_ref()).map_err(engine)?;
    let delivered = (0..ids.len()).filter(|row| ids.value(*row) == id.as_str());
    // Of redelivered events the lowest place survives.
    let lowest = delivered.map(|row| (lanes.value(row), offsets.get(row), stamps.value(row))).min();
    Ok(lowest.map(|(lane, offset, ts)| Moment { ts, place: Some((lane, offset)) }))
}

/// The events of one key up to a moment, each once, in canonical order, as rows of the batch.
fn history(events: &Events, hashes: &dyn Array, key: &str, moment: Moment) -> Result<Vec<u32>, Refusal> {
    let hashes = hashes.as_fixed_size_binary_opt().ok_or_else(|| engine(internal()))?;
    let mut by_id: HashMap<&str, u32> = HashMap::new();
    let at = |row: u32| (events.lane.value(row as usize), events.offset.get(row as usize));
    for row in (0..events.key.len() as u32).filter(|row| events.key.value(*row as usize) == key) {
        let kept = by_id.entry(events.event_id.value(row as usize)).or_insert(row);
        if hashes.value(*kept as usize) != hashes.value(row as usize) {
            let id = crate::text::clip(events.event_id.value(row as usize), 120);
            let message = format!("event {id} was delivered with two contents");
            return Err(Refusal::new(ReasonCode::ReplayEventIdConflict, PHASE, message));
        }
        if at(row) < at(*kept) {
            *kept = row;
        }
    }
    let order = |row: &u32| (events.ts.value(*row as usize), at(*row).0, at(*row).1);
    let mut rows: Vec<u32> = by_id
        .into_values()
        .filter(|row| {
            let (ts, lane, offset) = order(row);
            moment.reaches(ts, lane, offset)
        })
        .collect();
    rows.sort_unstable_by_key(order);
    Ok(rows)
}

/// One key's features as of a moment.
fn of_key(replayed: &Replayed, key: &str, moment: Moment) -> Result<Value, Refusal> {
    let shard = shard_of(key.as_bytes(), replayed.events().shards());
    let batch = replayed.events().shard(shard as usize).map_err(engine)?;
    let events = Events::of(&batch).map_err(engine)?;
    let hashes = batch.columns().get(event::HASH).ok_or_else(|| engine(internal()))?;
    let rows = history(&events, hashes.as_ref(), key, moment)?;
    let count = rows.len();
    let last = rows.last().map(|row| {
        let row = *row as usize;
        json!({"event_id": events.event_id.value(row), "ts_utc": Instant(events.ts.value(row)), "place": place(replayed, events.lane.value(row), events.offset.get(row))})
    });
    let features = features(replayed, &batch, &events, rows, moment)?;
    Ok(json!({"key": key, "events": count, "last_event": last, "features": features}))
}

/// The features at the last of these rows if it is the event asked for, else at the moment itself, which
/// counts in none of them.
fn features(replayed: &Replayed, batch: &RecordBatch, events: &Events, mut rows: Vec<u32>, moment: Moment) -> Result<Value, Refusal> {
    let group = replayed.pinned().group();
    let fields = feature_fields(group);
    let Some(last) = rows.last().copied() else {
        // Nothing to count; every other aggregate of nothing is null.
        return Ok(fields
            .iter()
            .map(|f| (f.name().clone(), if f.is_nullable() { Value::Null } else { json!(0) }))
            .collect::<Map<_, _>>()
            .into());
    };
    let at = |row: u32| (events.lane.value(row as usize), events.offset.get(row as usize));
    let itself = Some(at(last)) == moment.place;
    let mut stamps: Vec<i64> = rows.iter().map(|row| events.ts.value(*row as usize)).collect();
    let mut places: Vec<(u32, Offset)> = rows.iter().map(|row| (u32::try_from(at(*row).0).unwrap_or(NO_LANE), at(*row).1)).collect();
    let mut asking = vec![false; rows.len()];
    if !itself {
        // Any row may stand for the moment, since what it holds is masked out.
        rows.push(last);
        stamps.push(moment.ts);
        places.push(moment.place.map_or((NO_LANE, Offset::default()), |(lane, offset)| (u32::try_from(lane).unwrap_or(NO_LANE), offset)));
        asking.push(true);
    }
    let all = 0..rows.len();
    let whole = std::slice::from_ref(&all);
    let arrival = if group.availability == Availability::Arrival { Some(arrivals(whole, &places).map_err(engine)?) } else { None };
    let laid = Rows { rows: &rows, groups: whole, ts: &stamps, arrival: arrival.as_ref(), asking: Some(&asking) };
    let columns = window_columns::compute(group, replayed.projection(), batch, laid).map_err(|failure| match failure {
        WindowFailure::Engine(e) => engine(e),
        WindowFailure::Overflow(o) => {
            Refusal::new(ReasonCode::FeatureOverflow, PHASE, format!("an exact result does not fit its type: {}", o.column))
        }
    })?;
    let row = rows.len() - 1;
    let cells = fields.iter().zip(&columns).map(|(field, column)| (field.name().clone(), cell(column, row)));
    Ok(cells.collect::<Map<_, _>>().into())
}

fn arrivals(whole: &[std::ops::Range<usize>], places: &[(u32, Offset)]) -> Result<Arrivals, EngineError> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|at| places.get(*at).copied());
    let mut rank = vec![0; places.len()];
    for (arrived, at) in (0..).zip(order) {
        if let Some(slot) = rank.get_mut(at) {
            *slot = arrived;
        }
    }
    Arrivals::new(whole, places.iter().map(|p| p.0).collect(), rank).ok_or_else(internal)
}

/// A value as a report holds it: decimals as text, so that no reader rounds them.
fn cell(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Int64 => json!(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => json!(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => json!(column.as_primitive::<Decimal128Type>().value_as_string(row)),
        DataType::Boolean => json!(column.as_boolean().value(row)),
        DataType::Utf8 => json!(column.as_string::<i32>().value(row)),
        _ => Value::Null,
    }
}

impl Forensic {
    /// Takes this run's own report again, held against the digest that the ledger recorded.
    ///
    /// # Errors
    /// `PROVENANCE_INCONSISTENT` where the report is not the one on record; the store's.
    pub fn reprove(pinned: Pinned, env: &Env, recorded: Option<&str>) -> Result<Forensic, Refusal> {
        let report = report::reread(&pinned, FOLDER, env, recorded)?;
        Ok(Forensic { pinned, report })
    }

    /// Publishes the report: created once, and the same again is the same.
    ///
    /// # Errors
    /// `PUBLICATION_RECEIPT_IMMUTABILITY_VIOLATION` where another report of this run stands; the store's.
    pub fn publish(&self, env: &Env) -> Result<Ref, Refusal> {
        report::publish(&self.pinned, FOLDER, &self.report, env)
    }

    /// The pins.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// COMPLETE, or INCOMPLETE with what is missing in the report.
    pub fn status(&self) -> &str {
        self.report.get("status").and_then(Value::as_str).unwrap_or_default()
    }

    /// As in the result of the run.
    pub fn summary(&self) -> Value {
        json!({"status": self.status(), "missing": self.report.get("missing"), "report_ref": self.pinned.receipt_ref(FOLDER).as_str()})
    }
}
