//! One shard of keys: duplicates dropped, windows computed, labels joined, rows in canonical order.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};

use super::PHASE;
use crate::contract::profile::{Agg, Availability, Feature, Group};
use crate::contract::{Offset, ReasonCode};
use crate::engine::EngineError;
use crate::engine::merge::Offsets;
use crate::engine::order::places;
use crate::engine::window::arrival::Arrivals;
use crate::identity::{RowIds, RowPlace};
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::label::{Labelled, decision_columns};
use crate::pipeline::projection::{KEPT, Projection, event};
use crate::pipeline::window_columns::{self, Rows, WindowFailure};

/// How many times a shard's rows are held at once while it is computed.
const COPIES: u64 = 3;

/// The ordering and naming columns of a shard.
pub(in crate::pipeline) struct Events {
    pub(in crate::pipeline) ts: Int64Array,
    pub(in crate::pipeline) lane: Int32Array,
    pub(in crate::pipeline) offset: Offsets,
    pub(in crate::pipeline) event_id: StringArray,
    pub(in crate::pipeline) key: StringArray,
    drop: Int32Array,
    pub(in crate::pipeline) mask: Int64Array,
}

fn internal() -> EngineError {
    EngineError::Internal("a spool column is missing or of another type".into())
}

impl Events {
    pub(in crate::pipeline) fn of(batch: &RecordBatch) -> Result<Self, EngineError> {
        let column = |at: usize| batch.columns().get(at).ok_or_else(internal);
        let text = |at: usize| column(at)?.as_string_opt::<i32>().cloned().ok_or_else(internal);
        let int = |at: usize| column(at)?.as_primitive_opt::<Int32Type>().cloned().ok_or_else(internal);
        Ok(Events {
            ts: column(event::TS)?.as_primitive_opt::<Int64Type>().cloned().ok_or_else(internal)?,
            lane: int(event::LANE)?,
            offset: Offsets::of(column(event::OFFSET)?.as_ref())?,
            event_id: text(event::EVENT_ID)?,
            key: text(event::KEY)?,
            drop: int(event::DROP)?,
            mask: column(event::MASK)?.as_primitive_opt::<Int64Type>().cloned().ok_or_else(internal)?,
        })
    }
}

/// Rows by key in canonical order, each event once.
pub(in crate::pipeline) struct Ordered {
    pub(in crate::pipeline) rows: Vec<u32>,
    pub(in crate::pipeline) groups: Vec<Range<usize>>,
    pub(in crate::pipeline) ts: Vec<i64>,
}

pub(in crate::pipeline) fn order(events: &Events) -> Ordered {
    let mut ids: HashMap<&str, u32> = HashMap::new();
    let mut keyed: Vec<(u32, i64, i32, Offset, u32)> = Vec::with_capacity(events.ts.len());
    for row in 0..events.ts.len() {
        let next = ids.len() as u32;
        let id = *ids.entry(events.key.value(row)).or_insert(next);
        keyed.push((id, events.ts.value(row), events.lane.value(row), events.offset.get(row), row as u32));
    }
    keyed.sort_unstable();
    // Bus and archive may both have served a place; it is one event.
    keyed.dedup_by(|b, a| (a.0, a.1, a.2, a.3) == (b.0, b.1, b.2, b.3));
    let mut ordered = Ordered { rows: Vec::with_capacity(keyed.len()), groups: Vec::new(), ts: Vec::with_capacity(keyed.len()) };
    let mut last = None;
    for instant in keyed.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let Some((id, ts, ..)) = instant.first().copied() else { continue };
        let start = ordered.rows.len();
        if last.replace(id) != Some(id) {
            ordered.groups.push(start..start);
        }
        push_instant(events, instant, &mut ordered.rows);
        ordered.ts.resize(ordered.rows.len(), ts);
        if let Some(group) = ordered.groups.last_mut() {
            group.end = ordered.rows.len();
        }
    }
    ordered
}

/// Events of one key and instant: a redelivered event id counts once, at its lowest place. Its content
/// is the same, which the label gate proved.
fn push_instant(events: &Events, instant: &[(u32, i64, i32, Offset, u32)], rows: &mut Vec<u32>) {
    if let [only] = instant {
        rows.push(only.4);
        return;
    }
    let mut seen: HashSet<&str> = HashSet::with_capacity(instant.len());
    rows.extend(instant.iter().filter(|e| seen.insert(events.event_id.value(e.4 as usize))).map(|e| e.4));
}

/// The order in which the rows of a shard arrived, where the group asks for it.
pub(in crate::pipeline) fn arrivals(group: &Group, events: &Events, ordered: &Ordered) -> Result<Option<Arrivals>, EngineError> {
    if group.availability == Availability::EventTime {
        return Ok(None);
    }
    let place = |row: &u32| (events.lane.value(*row as usize), events.offset.get(*row as usize));
    let mut by_place: Vec<(i32, Offset, u32)> = ordered.rows.iter().zip(0..).map(|(row, at)| (place(row).0, place(row).1, at)).collect();
    by_place.sort_unstable();
    let mut rank = vec![0; by_place.len()];
    for ((_, _, at), arrived) in by_place.iter().zip(0..) {
        if let Some(slot) = rank.get_mut(*at as usize) {
            *slot = arrived;
        }
    }
    let lanes = ordered.rows.iter().map(|row| u32::try_from(place(row).0).unwrap_or_default()).collect();
    let arrivals = Arrivals::new(&ordered.groups, lanes, rank);
    arrivals.map(Some).ok_or_else(|| EngineError::Internal("the rows of a shard have no order of arrival".into()))
}

/// Computes a shard. Also says how many of its rows used an event that arrived later than they did.
pub(super) fn compute(labelled: &Labelled, env: &Env, schema: &SchemaRef, index: usize) -> Result<(RecordBatch, u64), Refusal> {
    let engine = |e: EngineError| Refusal::of_engine(PHASE, &e);
    let batch = labelled.replayed().events().shard(index).map_err(engine)?;
    let bytes = batch.get_array_memory_size() as u64;
    if bytes.saturating_mul(COPIES) > env.config.memory() {
        let message = format!(
            "shard {index} needs about {} MiB, more than limits.memory allows; its keys are too large to split",
            (bytes * COPIES) >> 20
        );
        return Err(Refusal::new(ReasonCode::MemoryBudget, PHASE, message));
    }
    let events = Events::of(&batch).map_err(engine)?;
    let ordered = order(&events);
    let (group, projection) = (labelled.pinned().group(), labelled.replayed().projection());
    let arrivals = arrivals(group, &events, &ordered).map_err(engine)?;
    let rows = Rows { rows: &ordered.rows, groups: &ordered.groups, ts: &ordered.ts, arrival: arrivals.as_ref(), asking: None };
    let features = window_columns::compute(group, projection, &batch, rows).map_err(|failure| match failure {
        WindowFailure::Engine(e) => engine(e),
        WindowFailure::Overflow(o) => overflow(labelled, &events, &ordered, &o),
    })?;
    let late_positions = match arrivals {
        // What arrived later was left out, so no row used it.
        Some(_) => Vec::new(),
        None => late_use(&events, &ordered, &Reach::of(group, projection)),
    };
    let kept = canonical(&events, &ordered);
    let late = kept.iter().filter(|at| late_positions.get(**at as usize) == Some(&true)).count() as u64;
    assemble(labelled, schema, &batch, &events, &ordered, &kept, features, index).map(|out| (out, late)).map_err(engine)
}

fn overflow(labelled: &Labelled, events: &Events, ordered: &Ordered, overflow: &window_columns::Overflow) -> Refusal {
    let row = ordered.rows.get(overflow.row).copied().unwrap_or_default() as usize;
    let lane = labelled.replayed().lanes().get(events.lane.value(row) as usize).map(ToString::to_string).unwrap_or_default();
    let line =
        format!("{} at {lane} offset {} (key {})", overflow.column, events.offset.get(row), crate::text::clip(events.key.value(row), 60));
    Refusal::new(ReasonCode::FeatureOverflow, PHASE, format!("an exact result does not fit its type: {line}")).with_evidence([line])
}

/// Positions of the rows that stay, in canonical order.
fn canonical(events: &Events, ordered: &Ordered) -> Vec<u32> {
    let mut kept: Vec<(i64, i32, Offset, u32)> = Vec::with_capacity(ordered.rows.len());
    for (at, row) in ordered.rows.iter().enumerate() {
        let row = *row as usize;
        if events.drop.value(row) == KEPT {
            kept.push((events.ts.value(row), events.lane.value(row), events.offset.get(row), at as u32));
        }
    }
    kept.sort_unstable();
    kept.into_iter().map(|k| k.3).collect()
}

/// How far back the features of a group look.
struct Reach {
    /// The widest window in microseconds, if a feature has windows.
    widest: Option<i64>,
    /// For each feature that looks at the previous event, the number of its condition set, if it has one.
    previous: Vec<Option<usize>>,
}

impl Reach {
    fn of(group: &Group, projection: &Projection) -> Self {
        let looks_back = |f: &&Feature| f.agg == Agg::SecondsSincePrevious;
        let conditions = group.features.iter().zip(projection.features());
        Reach {
            widest: group.features.iter().any(|f| !looks_back(&f)).then(|| group.widest_us()),
            previous: conditions.filter(|(f, _)| looks_back(f)).map(|(_, (_, condition))| *condition).collect(),
        }
    }
}

/// Whether each row's widest window, or a previous event that a feature asked for, holds an event of the
/// row's own partition with a higher offset: one that had not arrived when the row did.
fn late_use(events: &Events, ordered: &Ordered, reach: &Reach) -> Vec<bool> {
    let mut late = vec![false; ordered.rows.len()];
    let place = |at: usize| {
        let row = ordered.rows.get(at).copied().unwrap_or_default() as usize;
        (events.lane.value(row), events.offset.get(row))
    };
    for group in &ordered.groups {
        let mut highest: HashMap<i32, Offset> = HashMap::new();
        let mut disordered = false;
        for at in group.clone() {
            let (lane, offset) = place(at);
            let top = highest.entry(lane).or_insert(offset);
            disordered |= offset < *top;
            *top = (*top).max(offset);
        }
        // Within a key, arrival nearly always follows event time; then nothing was late.
        if disordered {
            let passes = |at: usize, condition: usize| {
                let row = ordered.rows.get(at).copied().unwrap_or_default() as usize;
                events.mask.value(row) >> condition & 1 == 1
            };
            mark_late(ordered, group, reach, &place, &passes, &mut late);
        }
    }
    late
}

fn mark_late(
    ordered: &Ordered,
    group: &Range<usize>,
    reach: &Reach,
    place: &dyn Fn(usize) -> (i32, Offset),
    passes: &dyn Fn(usize, usize) -> bool,
    late: &mut [bool],
) {
    let mut previous: Vec<Option<(i32, Offset)>> = vec![None; reach.previous.len()];
    // Per lane, positions whose offsets descend: the front is the highest offset of the window.
    let mut windows: HashMap<i32, std::collections::VecDeque<(usize, Offset)>> = HashMap::new();
    for at in group.clone() {
        let (lane, offset) = place(at);
        let ts = |i: usize| ordered.ts.get(i).copied().unwrap_or_default();
        let from = ts(at).saturating_sub(reach.widest.unwrap_or(0));
        let window = windows.entry(lane).or_default();
        while window.front().is_some_and(|(i, _)| ts(*i) <= from) {
            window.pop_front();
        }
        let previous_later = previous.iter().flatten().any(|(l, o)| *l == lane && *o > offset);
        if let Some(slot) = late.get_mut(at) {
            let windowed = reach.widest.is_some() && window.front().is_some_and(|(_, top)| *top > offset);
            *slot = previous_later || windowed;
        }
        while window.back().is_some_and(|(_, o)| *o <= offset) {
            window.pop_back();
        }
        window.push_back((at, offset));
        for (slot, condition) in previous.iter_mut().zip(&reach.previous) {
            if condition.is_none_or(|condition| passes(at, condition)) {
                *slot = Some((lane, offset));
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the pieces of one row, gathered in one place")]
fn assemble(
    labelled: &Labelled,
    schema: &SchemaRef,
    batch: &RecordBatch,
    events: &Events,
    ordered: &Ordered,
    kept: &[u32],
    features: Vec<ArrayRef>,
    index: usize,
) -> Result<RecordBatch, EngineError> {
    let positions = UInt32Array::from(kept.to_vec());
    let rows: UInt32Array = kept.iter().map(|at| ordered.rows.get(*at as usize).copied()).collect();
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for at in [event::TS, event::LANE, event::OFFSET, event::EVENT_ID, event::HASH, event::KEY] {
        columns.push(take(batch.columns().get(at).ok_or_else(internal)?, &rows, None)?);
    }
    columns.push(row_ids(labelled, batch, events, &rows)?);
    for feature in features {
        columns.push(take(&feature, &positions, None)?);
    }
    join_labels(labelled, events, &rows, index, &mut columns)?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn row_ids(labelled: &Labelled, batch: &RecordBatch, events: &Events, rows: &UInt32Array) -> Result<ArrayRef, EngineError> {
    let pinned = labelled.pinned();
    let hashes = batch.columns().get(event::HASH).and_then(|c| c.as_fixed_size_binary_opt()).ok_or_else(internal)?;
    let mut ids = RowIds::new(&pinned.intent().platform_run_id, pinned.group_digest());
    let mut builder = FixedSizeBinaryBuilder::with_capacity(rows.len(), 16);
    let mut offset_text = String::new();
    for row in rows.values() {
        use std::fmt::Write;
        let row = *row as usize;
        let lane = labelled.replayed().lanes().get(events.lane.value(row) as usize).ok_or_else(internal)?;
        offset_text.clear();
        let _ = write!(offset_text, "{}", events.offset.get(row));
        let payload_hash: &[u8; 32] = hashes.value(row).try_into().map_err(|_| internal())?;
        let place = RowPlace {
            event_id: events.event_id.value(row),
            topic: &lane.topic,
            partition: lane.partition,
            offset_kind: lane.kind.as_str(),
            offset: &offset_text,
            payload_hash,
        };
        ids.push(place);
    }
    for id in ids.take() {
        builder.append_value(id)?;
    }
    Ok(Arc::new(builder.finish()))
}

fn join_labels(
    labelled: &Labelled,
    events: &Events,
    rows: &UInt32Array,
    index: usize,
    columns: &mut Vec<ArrayRef>,
) -> Result<(), EngineError> {
    let decisions = labelled.decisions().shard(index)?;
    let ids = decisions.columns().first().and_then(|c| c.as_string_opt::<i32>()).ok_or_else(internal)?;
    if ids.len() != rows.len() {
        return Err(EngineError::Internal(format!("shard {index}: {} label decisions for {} rows", ids.len(), rows.len())));
    }
    let wanted = rows.values().iter().map(|row| events.event_id.value(*row as usize));
    let picked = places(ids, wanted).ok_or_else(|| EngineError::Internal(format!("shard {index}: a row without a label decision")))?;
    let picked = UInt32Array::from(picked);
    for i in 0..labelled.pinned().vocabulary().len() {
        let c = decision_columns(i);
        for at in [c.value, c.status, c.observed, c.assertion] {
            columns.push(take(decisions.columns().get(at).ok_or_else(internal)?, &picked, None)?);
        }
    }
    Ok(())
}
