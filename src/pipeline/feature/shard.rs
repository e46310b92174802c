//! One shard of keys: duplicates dropped, windows computed, labels joined, rows in canonical order.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeBinaryBuilder, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Int32Type, Int64Type};

use super::PHASE;
use crate::contract::profile::{Agg, Availability, Feature, Group};
use crate::contract::{Offset, ReasonCode};
use crate::engine::EngineError;
use crate::engine::merge::SortedRuns;
use crate::engine::offsets::Offsets;
use crate::engine::order::places;
use crate::engine::scratch::width;
use crate::engine::spool::group;
use crate::engine::window::arrival::Arrivals;
use crate::identity::{RowIds, RowPlace};
use crate::pipeline::gate::Refusal;
use crate::pipeline::label::Labelled;
use crate::pipeline::parallel::Weight;
use crate::pipeline::projection::{KEPT, Projection, event};
use crate::pipeline::window_columns::{self, Rows, WindowFailure};

/// How many times a shard's events are held at once while they are ordered.
const COPIES: u64 = 3;
/// Bytes of a row's places in the orders of its key and of its data set.
const PLACES: u64 = 32;
/// Rows that are put together at once.
const PIECE_ROWS: usize = 8_192;

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

impl Ordered {
    /// The rows at some positions.
    fn rows_at(&self, positions: &[u32]) -> Vec<u32> {
        positions.iter().filter_map(|at| self.rows.get(*at as usize).copied()).collect()
    }
}

impl Events {
    /// The order of rows of one instant.
    fn by_place(&self, a: u32, b: u32) -> Ordering {
        let place = |row: u32| (self.lane.value(row as usize), self.offset.get(row as usize));
        place(a).cmp(&place(b))
    }

    /// Rows into canonical order. They come from few logs, each nearly in order, and a stable sort makes use of that.
    fn sort(&self, rows: &mut [Stamped]) {
        rows.sort_by(|a, b| a.ts.cmp(&b.ts).then_with(|| self.by_place(a.row, b.row)));
    }
}

/// A row with the time that nearly always decides where it stands, so that sorting looks up nothing else.
struct Stamped {
    ts: i64,
    row: u32,
}

/// The rows of each key: row numbers, and where each key begins among them.
fn by_key(events: &Events) -> (UInt32Array, Vec<u32>) {
    let mut ids: HashMap<&str, u32> = HashMap::new();
    let key_of: Vec<u32> = (0..events.key.len())
        .map(|row| {
            let next = ids.len() as u32;
            *ids.entry(events.key.value(row)).or_insert(next)
        })
        .collect();
    group(&key_of, ids.len())
}

pub(in crate::pipeline) fn order(events: &Events) -> Ordered {
    let (rows, bounds) = by_key(events);
    let mut ordered =
        Ordered { rows: Vec::with_capacity(rows.len()), groups: Vec::with_capacity(bounds.len()), ts: Vec::with_capacity(rows.len()) };
    let mut key: Vec<Stamped> = Vec::new();
    for (from, to) in bounds.iter().zip(bounds.iter().skip(1)) {
        let of_key = rows.values().get(*from as usize..*to as usize).unwrap_or_default();
        key.clear();
        key.extend(of_key.iter().map(|row| Stamped { ts: events.ts.value(*row as usize), row: *row }));
        events.sort(&mut key);
        // Bus and archive may both have served a place; it is one event.
        key.dedup_by(|b, a| a.ts == b.ts && events.by_place(a.row, b.row).is_eq());
        let start = ordered.rows.len();
        for instant in key.chunk_by(|a, b| a.ts == b.ts) {
            push_instant(events, instant, &mut ordered.rows);
            ordered.ts.resize(ordered.rows.len(), instant.first().map(|event| event.ts).unwrap_or_default());
        }
        ordered.groups.push(start..ordered.rows.len());
    }
    ordered
}

/// Events of one key and instant: a redelivered event id counts once, at its lowest place. Its content
/// is the same, which the label gate proved.
fn push_instant(events: &Events, instant: &[Stamped], rows: &mut Vec<u32>) {
    if let [only] = instant {
        rows.push(only.row);
        return;
    }
    let mut seen: HashSet<&str> = HashSet::with_capacity(instant.len());
    rows.extend(instant.iter().map(|event| event.row).filter(|row| seen.insert(events.event_id.value(*row as usize))));
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

/// What a shard came to.
pub(super) struct Computed {
    pub(super) rows: u64,
    /// How many of them used an event that arrived later than they did.
    pub(super) late: u64,
}

/// The memory that a shard takes while it is computed.
pub(super) fn weight(labelled: &Labelled, index: usize) -> Weight {
    let (events, decisions) = (labelled.replayed().events().size(index), labelled.decisions().size(index).bytes);
    let features: u64 = window_columns::feature_fields(labelled.pinned().group()).iter().map(|field| width(field.data_type())).sum();
    let computed = events.rows.saturating_mul(PLACES + features).saturating_add(decisions).saturating_add(events.bytes);
    let ordered = events.bytes.saturating_mul(COPIES);
    let least = ordered.max(computed);
    Weight { about: least.max(ordered.saturating_add(decisions.saturating_mul(2))), least }
}

/// Computes a shard, whose rows become a run.
pub(super) fn compute(labelled: &Labelled, index: usize, runs: &SortedRuns) -> Result<Computed, Refusal> {
    let engine = |e: EngineError| Refusal::of_engine(PHASE, &e);
    let batch = labelled.replayed().events().shard(index).map_err(engine)?;
    let events = Events::of(&batch).map_err(engine)?;
    let ordered = order(&events);
    let kept = canonical(&events, &ordered);
    // Before there are features: the largest shards are where memory is short.
    let decided = join_labels(labelled, &events, &ordered, &kept, index).map_err(engine)?;
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
    let late = kept.iter().filter(|at| late_positions.get(**at as usize) == Some(&true)).count() as u64;
    assemble(labelled, runs, &batch, &events, &ordered, &kept, &features, &decided).map_err(engine)?;
    Ok(Computed { rows: kept.len() as u64, late })
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
    let mut position: Vec<Option<u32>> = vec![None; events.ts.len()];
    for (row, at) in ordered.rows.iter().zip(0..) {
        if let Some(slot) = position.get_mut(*row as usize).filter(|_| events.drop.value(*row as usize) == KEPT) {
            *slot = Some(at);
        }
    }
    let stays = position.iter().zip(0..).filter(|(at, _)| at.is_some());
    let mut kept: Vec<Stamped> = stays.map(|(_, row)| Stamped { ts: events.ts.value(row as usize), row }).collect();
    events.sort(&mut kept);
    kept.iter().filter_map(|event| position.get(event.row as usize).copied().flatten()).collect()
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
    let mut highest: HashMap<i32, Offset> = HashMap::new();
    for group in &ordered.groups {
        // Of each lane the highest offset so far; the lane of the row before is at hand, and mostly the only one.
        highest.clear();
        let mut disordered = false;
        let (mut current, mut top) = place(group.start);
        for at in group.clone() {
            let (lane, offset) = place(at);
            if lane != current {
                highest.insert(current, top);
                (current, top) = (lane, highest.get(&lane).copied().unwrap_or(offset));
            }
            disordered |= offset < top;
            top = top.max(offset);
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
    runs: &SortedRuns,
    batch: &RecordBatch,
    events: &Events,
    ordered: &Ordered,
    kept: &[u32],
    features: &[ArrayRef],
    decided: &Decided,
) -> Result<(), EngineError> {
    let mut run = runs.run();
    for (kept, decided_of) in kept.chunks(PIECE_ROWS).zip(decided.of.chunks(PIECE_ROWS)) {
        let (positions, decided_of) = (UInt32Array::from(kept.to_vec()), UInt32Array::from(decided_of.to_vec()));
        let rows = UInt32Array::from(ordered.rows_at(kept));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(runs.schema().fields().len());
        for at in [event::TS, event::LANE, event::OFFSET, event::EVENT_ID, event::HASH, event::KEY] {
            columns.push(take(batch.columns().get(at).ok_or_else(internal)?, &rows, None)?);
        }
        columns.push(row_ids(labelled, batch, events, &rows)?);
        for feature in features {
            columns.push(take(feature, &positions, None)?);
        }
        for column in &decided.columns {
            columns.push(take(column, &decided_of, None)?);
        }
        run.push(RecordBatch::try_new(runs.schema().clone(), columns)?)?;
    }
    run.end();
    Ok(())
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

/// The label decisions of a shard.
struct Decided {
    /// Their columns type by type, in the order in which they stand in a row.
    columns: Vec<ArrayRef>,
    /// Which of them is that of each row.
    of: Vec<u32>,
}

fn join_labels(labelled: &Labelled, events: &Events, ordered: &Ordered, kept: &[u32], index: usize) -> Result<Decided, EngineError> {
    let decisions = labelled.decisions().shard(index)?;
    let (ids, columns) = decisions.columns().split_first().ok_or_else(internal)?;
    let ids = ids.as_string_opt::<i32>().ok_or_else(internal)?;
    if ids.len() != kept.len() {
        return Err(EngineError::Internal(format!("shard {index}: {} label decisions for {} rows", ids.len(), kept.len())));
    }
    let rows = ordered.rows_at(kept);
    let wanted = rows.iter().map(|row| events.event_id.value(*row as usize));
    let of = places(ids, wanted).ok_or_else(|| EngineError::Internal(format!("shard {index}: a row without a label decision")))?;
    Ok(Decided { columns: columns.to_vec(), of })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An event: key, time, lane, offset, event id, whether the row stays.
    type Event = (u8, i64, i32, i64, u8, bool);

    fn events(all: &[Event]) -> Events {
        Events {
            ts: all.iter().map(|e| e.1).collect(),
            lane: all.iter().map(|e| e.2).collect(),
            offset: Offsets::Dense(all.iter().map(|e| e.3).collect()),
            event_id: all.iter().map(|e| Some(format!("event-{}", e.4))).collect(),
            key: all.iter().map(|e| Some(format!("key-{}", e.0))).collect(),
            drop: all.iter().map(|e| if e.5 { KEPT } else { KEPT + 1 }).collect(),
            mask: vec![0; all.len()].into(),
        }
    }

    /// Event ids of one key and time that are the same are the same event, delivered twice.
    fn once(mut all: Vec<(u8, i64, i32, i64, u8, bool, u32)>) -> Vec<(u8, i64, i32, i64, u8, bool, u32)> {
        let (mut places, mut ids) = (HashSet::new(), HashSet::new());
        all.retain(|e| places.insert((e.0, e.1, e.2, e.3)));
        all.retain(|e| ids.insert((e.0, e.1, e.4)));
        all
    }

    proptest! {
        #[test]
        fn rows_stand_key_by_key_and_stay_in_canonical_order(all in prop::collection::vec((0u8..4, 0i64..6, 0i32..3, 0i64..8, 0u8..6, any::<bool>()), 0..80)) {
            let batch = events(&all);
            let ordered = order(&batch);
            let mut wanted: Vec<_> = all.iter().zip(0..).map(|(e, row)| (e.0, e.1, e.2, e.3, e.4, e.5, row)).collect();
            wanted.sort_by_key(|e| (all.iter().position(|first| first.0 == e.0), e.1, e.2, e.3, e.6));
            let mut wanted = once(wanted);
            prop_assert_eq!(&ordered.rows, &wanted.iter().map(|e| e.6).collect::<Vec<_>>());
            prop_assert_eq!(&ordered.ts, &wanted.iter().map(|e| e.1).collect::<Vec<_>>());
            let keys: Vec<usize> = wanted.chunk_by(|a, b| a.0 == b.0).map(<[_]>::len).collect();
            prop_assert_eq!(ordered.groups.iter().map(Range::len).collect::<Vec<_>>(), keys);
            prop_assert!(ordered.groups.windows(2).all(|pair| pair[0].end == pair[1].start));
            let kept: Vec<u32> = canonical(&batch, &ordered).iter().map(|at| ordered.rows[*at as usize]).collect();
            wanted.retain(|e| e.5);
            // Where two keys claim one place, which no log does, both orders are canonical.
            wanted.sort_by_key(|e| (e.1, e.2, e.3, e.6));
            prop_assert_eq!(kept, wanted.iter().map(|e| e.6).collect::<Vec<_>>());
        }

        /// However the lanes of a key take turns, a row is late as soon as its window holds a later arrival of its lane.
        #[test]
        fn late_use_is_seen_in_every_lane(all in prop::collection::vec((0u8..3, 0i64..30, 0i32..3, 0i64..1_000, 0u8..200, Just(true)), 0..60), widest in 1i64..20) {
            let batch = events(&all);
            let ordered = order(&batch);
            let found = late_use(&batch, &ordered, &Reach { widest: Some(widest), previous: vec![None] });
            for group in &ordered.groups {
                let mut previous = None;
                for at in group.clone() {
                    let place = |at: usize| (all[ordered.rows[at] as usize].2, all[ordered.rows[at] as usize].3);
                    let later = |other: usize| place(other).0 == place(at).0 && place(other).1 > place(at).1;
                    let window = group.clone().take_while(|other| *other < at).filter(|other| ordered.ts[*other] > ordered.ts[at] - widest);
                    prop_assert_eq!(found[at], window.into_iter().any(later) || previous.is_some_and(later));
                    previous = Some(at);
                }
            }
        }
    }
}
