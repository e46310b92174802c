//! One row's past, read again from where truth lies: every place that served the event, and every event of
//! its key that a feature may rest on, computed by the very kernels of gate 6. Nothing is written, and what
//! is held is one key's events within the reach of the features.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, RecordBatch};
use serde_json::Value;

use super::feature::shard::{Events, Ordered, arrivals, order};
use super::gate::{Env, Phase, Refusal};
use super::parallel;
use super::projection::{FieldSpec, Gatherer, KEPT, NO_KEY, Projection, event};
use super::replay::{Waiting, Work};
use super::window_columns::{self, Rows, WindowFailure};
use crate::contract::intent::{Intent, Lane, OffsetRange};
use crate::contract::profile::{Agg, Availability, Group};
use crate::contract::{Offset, ReasonCode};
use crate::engine::cell::cell;
use crate::engine::scratch::bytes_of;
use crate::engine::spool::Spool;
use crate::source::{Chunk, Decoder, Delivery, EventLog, EventRecord, Needs, ReadScope, Source};
use crate::time::Instant;

const PHASE: Phase = Phase::Replay;
/// How many times one key's events are held at once while they are computed.
const COPIES: u64 = 3;

/// Where a record stands in canonical order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Event time.
    pub ts: Instant,
    /// The lane.
    pub lane: Lane,
    /// The offset.
    pub offset: Offset,
}

/// A record of the event, as one side serves it now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    /// Where it stands.
    pub place: Place,
    /// Which side serves it.
    pub source: Source,
    /// SHA-256 of its canonical envelope, recomputed.
    pub payload_hash: [u8; 32],
    /// Its key under the definition.
    pub key: Option<String>,
    /// Why it gives no row, if it gives none: `scenario_not_selected`, `missing_key`, `filter:<field>`.
    pub dropped: Option<String>,
}

/// A record that stands where something was looked for and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unusable {
    /// Lane and offset, in words.
    pub at: String,
    /// Which side.
    pub source: Source,
    /// Its reason code.
    pub code: ReasonCode,
    /// What is wrong.
    pub message: String,
}

/// What one pass over the basis found.
#[derive(Debug)]
pub struct Found {
    /// Every record with the event's id, in order.
    pub served: Vec<Served>,
    /// Records that cannot be used, the first few.
    pub unusable: Vec<Unusable>,
}

/// Most unusable records that are kept.
const KEPT_UNUSABLE: usize = 20;

/// The events of one key up to and including one of them, with every feature at that one.
#[derive(Debug)]
pub struct History {
    lanes: Vec<Lane>,
    batch: RecordBatch,
    rows: Vec<u32>,
    ts: Vec<i64>,
    /// The features in the order of their columns.
    pub features: Vec<Feature>,
}

/// One feature column at the row.
#[derive(Debug, Clone)]
pub struct Feature {
    /// Column name.
    pub column: String,
    /// What is computed.
    pub agg: Agg,
    /// The payload field with its declared type.
    pub field: Option<FieldSpec>,
    /// Equality conditions as written.
    pub conditions: Value,
    /// Length of its window in microseconds; none where it looks at the previous event, whatever its age.
    pub duration_us: Option<i64>,
    /// The value as computed now.
    pub value: Value,
    /// Positions in the history of the events that count, oldest first.
    pub contributors: Vec<usize>,
    /// Number of the payload field's column in the history.
    field_at: Option<usize>,
}

/// One event of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Where it stands.
    pub place: Place,
    /// Its id.
    pub event_id: String,
    /// SHA-256 of its canonical envelope, recomputed.
    pub payload_hash: String,
}

/// A way through the basis for one question.
pub struct Lineage<'l> {
    env: &'l Env,
    intent: &'l Intent,
    group: &'l Group,
    projection: Projection,
    lanes: Vec<(Lane, Vec<OffsetRange>)>,
    logs: Vec<Box<dyn EventLog>>,
    items: Vec<(usize, usize, Chunk)>,
}

impl<'l> Lineage<'l> {
    /// Opens the logs of the basis.
    ///
    /// # Errors
    /// What cannot be opened, as a refusal of gate 4.
    pub fn open(env: &'l Env, intent: &'l Intent, group: &'l Group) -> Result<Self, Refusal> {
        let logs = super::run::event_logs(env, &intent.platform_run_id)?;
        let (lanes, mut items) = (intent.lanes(), Vec::new());
        for (lane_at, (lane, ranges)) in lanes.iter().enumerate() {
            for (log_at, log) in logs.iter().enumerate() {
                let chunks = log.chunks(lane, ranges).map_err(|e| Refusal::of_source(PHASE, &e))?;
                items.extend(chunks.into_iter().map(|chunk| (lane_at, log_at, chunk)));
            }
        }
        Ok(Lineage { env, intent, group, projection: Projection::new(intent, group)?, lanes, logs, items })
    }

    /// Hands every delivered event of the basis to the threads' sinks, each with the number of its lane.
    fn pass<S>(
        &self,
        state: impl Fn() -> S + Sync,
        sink: impl Fn(&mut S, usize, Source, Delivery<'_>) -> Result<(), Refusal> + Sync,
        done: impl Fn(S) -> Result<(), Refusal> + Sync,
    ) -> Result<(), Refusal> {
        self.env.progress.enter(PHASE, self.items.len() as u64);
        let fields = self.projection.wanted();
        parallel::each(
            self.env,
            PHASE,
            self.items.len(),
            || (Decoder::new(), state()),
            |(decoder, mine), index| {
                let Some((lane_at, log_at, chunk)) = self.items.get(index) else { return Ok(()) };
                let (Some((lane, ranges)), Some(log)) = (self.lanes.get(*lane_at), self.logs.get(*log_at)) else { return Ok(()) };
                let needs = Needs::Fields(&fields);
                let scope = ReadScope { platform_run_id: &self.intent.platform_run_id, lane, ranges, verify: true, needs };
                let (source, mut failed) = (log.source(), None);
                let read = log.read(chunk, scope, decoder, &mut |delivery| match sink(mine, *lane_at, source, delivery) {
                    Ok(()) if !self.env.cancel.is_cancelled() => ControlFlow::Continue(()),
                    Ok(()) => ControlFlow::Break(()),
                    Err(refusal) => {
                        failed = Some(refusal);
                        ControlFlow::Break(())
                    }
                });
                read.map_err(|e| Refusal::of_source(PHASE, &e))?;
                self.env.progress.advance(1);
                failed.map_or(Ok(()), Err)
            },
            |(_, mine)| done(mine),
        )?;
        self.env.check(PHASE)
    }

    fn place(&self, lane_at: usize, event: &EventRecord<'_>) -> Option<Place> {
        self.lanes.get(lane_at).map(|(lane, _)| Place { ts: event.ts, lane: lane.clone(), offset: event.offset })
    }

    /// One pass over the basis: every record with this event id, whether or not it gives a row; and where it
    /// is known to be one, the events of its key that its features may rest on, with what these come to now.
    /// No history comes back where the event is not delivered at its place any more.
    ///
    /// # Errors
    /// What cannot be read; `MEMORY_BUDGET` where the key has more events in reach than the memory limit holds.
    pub fn trace(&self, event_id: &str, row: Option<(&str, &Place)>) -> Result<(Found, Option<History>), Refusal> {
        let engine = |e| Refusal::of_engine(PHASE, &e);
        // Each question has spill space of its own, also where one process asks several at once.
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let work = Work::new(self.env, &format!("explain-{}-{}", self.env.attempt, NEXT.fetch_add(1, Ordering::Relaxed)))?;
        let spool = Spool::new(self.projection.event_schema(), 1, work.budget(Waiting::Events), work.scratch.clone());
        // The gatherer also fills a spool for labels, which nobody reads here.
        let subjects = Spool::new(self.projection.subject_schema(), 1, work.budget(Waiting::Subjects), work.scratch.clone());
        let all = Mutex::new(Found { served: Vec::new(), unusable: Vec::new() });
        self.pass(
            || (Found { served: Vec::new(), unusable: Vec::new() }, Gatherer::new(&self.projection, &spool, &subjects)),
            |(mine, gatherer), lane_at, source, delivery| {
                match delivery {
                    Delivery::Event(event) => {
                        if event.event_id == event_id {
                            mine.served.extend(self.place(lane_at, &event).map(|place| self.served(place, source, &event)));
                        }
                        if row.is_some_and(|(key, here)| self.reaches(lane_at, &event, key, here)) {
                            gatherer.push(i32::try_from(lane_at).unwrap_or(i32::MAX), &event).map_err(engine)?;
                        }
                    }
                    Delivery::Fault(fault) if mine.unusable.len() < KEPT_UNUSABLE => {
                        let lane = self.lanes.get(lane_at).map(|(lane, _)| lane.to_string()).unwrap_or_default();
                        let at = fault.offset.map_or(lane.clone(), |offset| format!("{lane} offset {offset}"));
                        mine.unusable.push(Unusable { at, source, code: fault.code, message: fault.message });
                    }
                    _ => {}
                }
                Ok(())
            },
            |(mine, mut gatherer)| {
                gatherer.flush().map_err(engine)?;
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.served.extend(mine.served);
                all.unusable.extend(mine.unusable);
                Ok(())
            },
        )?;
        let mut found = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.served.sort();
        found.unusable.sort();
        found.unusable.truncate(KEPT_UNUSABLE);
        let history = row.map(|(_, here)| self.compute(spool.shard(0).map_err(engine)?, here)).transpose()?;
        Ok((found, history.flatten()))
    }

    /// Whether an event is one of the row's key, not after it, and near enough for some feature to count it.
    fn reaches(&self, lane_at: usize, event: &EventRecord<'_>, key: &str, here: &Place) -> bool {
        let looks_back = self.group.features.iter().any(|f| f.agg == Agg::SecondsSincePrevious);
        let from = if looks_back { i64::MIN } else { here.ts.0.saturating_sub(self.group.widest_us()) };
        event.ts.0 > from
            && event.ts <= here.ts
            && self.projection.selects(event)
            && self.projection.key(event.payload).is_some_and(|k| k == key)
            && self.place(lane_at, event).is_some_and(|place| place <= *here)
    }

    fn served(&self, place: Place, source: Source, event: &EventRecord<'_>) -> Served {
        let key = self.projection.key(event.payload).map(|k| k.into_owned());
        let dropped = match (self.projection.selects(event), &key) {
            (false, _) => Some("scenario_not_selected".into()),
            (true, None) => Some(self.projection.drop_name(NO_KEY)),
            (true, Some(_)) => match self.projection.drop_code(event.payload) {
                KEPT => None,
                code => Some(self.projection.drop_name(code)),
            },
        };
        Served { place, source, payload_hash: event.payload_hash, key, dropped }
    }

    fn compute(&self, batch: RecordBatch, here: &Place) -> Result<Option<History>, Refusal> {
        let engine = |e| Refusal::of_engine(PHASE, &e);
        let bytes = bytes_of(&batch).map_err(engine)?;
        parallel::affordable(self.env, PHASE, bytes.saturating_mul(COPIES), || "the key's events in reach".into())?;
        let events = Events::of(&batch).map_err(engine)?;
        let ordered = order(&events);
        let lane_at = self.lanes.iter().position(|(lane, _)| *lane == here.lane);
        let stands = |row: u32| {
            let row = row as usize;
            (Some(events.lane.value(row) as usize), events.offset.get(row)) == (lane_at, here.offset)
        };
        let Some(at) = ordered.rows.iter().rposition(|row| stands(*row)) else { return Ok(None) };
        let arrivals = arrivals(self.group, &events, &ordered).map_err(engine)?;
        let rows = Rows { rows: &ordered.rows, groups: &ordered.groups, ts: &ordered.ts, arrival: arrivals.as_ref(), asking: None };
        let columns = window_columns::compute(self.group, &self.projection, &batch, rows);
        let columns = columns.map_err(|failure| match failure {
            WindowFailure::Engine(e) => engine(e),
            WindowFailure::Overflow(o) => {
                Refusal::new(ReasonCode::FeatureOverflow, PHASE, format!("{}: an exact result does not fit its type", o.column))
            }
        })?;
        let features = self.features(&batch, &events, &ordered, at, &columns);
        let lanes = self.lanes.iter().map(|(lane, _)| lane.clone()).collect();
        Ok(Some(History { lanes, rows: ordered.rows, ts: ordered.ts, features, batch }))
    }

    fn features(&self, batch: &RecordBatch, events: &Events, ordered: &Ordered, at: usize, columns: &[ArrayRef]) -> Vec<Feature> {
        let mut features = Vec::new();
        let mut columns = columns.iter();
        // Where rows may not see what came later, an event of the row's own lane beyond its offset is no contributor.
        let by_arrival = self.group.availability == Availability::Arrival;
        let own = ordered.rows.get(at).copied().unwrap_or_default() as usize;
        let later =
            |row: usize| by_arrival && events.lane.value(row) == events.lane.value(own) && events.offset.get(row) > events.offset.get(own);
        for (feature, (field_at, condition)) in self.group.features.iter().zip(self.projection.features()) {
            let previous = feature.agg == Agg::SecondsSincePrevious;
            let spans: Vec<Option<i64>> =
                if previous { vec![None] } else { self.group.windows.iter().map(|w| Some(w.duration_us)).collect() };
            let counts = |position: usize| {
                let row = ordered.rows.get(position).copied().unwrap_or_default() as usize;
                if later(row) {
                    return false;
                }
                let holds = condition.is_none_or(|bit| events.mask.value(row) >> bit & 1 == 1);
                holds && field_at.is_none_or(|f| batch.columns().get(event::FIELDS + f).is_some_and(|c| c.is_valid(row)))
            };
            for (duration_us, column) in spans.into_iter().zip(self.group.columns_of(feature)) {
                features.push(Feature {
                    column,
                    agg: feature.agg,
                    field: field_at.and_then(|f| self.projection.fields().get(f)).cloned(),
                    conditions: serde_json::json!(feature.conditions),
                    value: columns.next().map(|c| cell(c.as_ref(), at)).unwrap_or_default(),
                    contributors: contributors(&ordered.ts, at, duration_us, &counts),
                    duration_us,
                    field_at: *field_at,
                });
            }
        }
        features
    }
}

/// Positions that a column of the row at `at` counts: those within `(ts - duration, ts]`, not after the row,
/// or the latest one before it.
fn contributors(ts: &[i64], at: usize, duration_us: Option<i64>, counts: &dyn Fn(usize) -> bool) -> Vec<usize> {
    let stamp = |position: usize| ts.get(position).copied().unwrap_or_default();
    match duration_us {
        None => (0..at).rev().find(|p| counts(*p)).into_iter().collect(),
        Some(duration) => {
            let from = stamp(at).saturating_sub(duration);
            (0..=at).filter(|p| stamp(*p) > from && counts(*p)).collect()
        }
    }
}

impl History {
    /// The event at a position.
    pub fn past(&self, position: usize) -> Option<Past> {
        let row = *self.rows.get(position)? as usize;
        let text = |at: usize| self.batch.columns().get(at).map(|c| cell(c.as_ref(), row));
        let lane = self.lanes.get(usize::try_from(text(event::LANE)?.as_i64()?).ok()?)?.clone();
        let offset = match text(event::OFFSET)? {
            Value::String(digits) => Offset::parse(&digits)?,
            number => Offset::parse(&number.to_string())?,
        };
        Some(Past {
            place: Place { ts: Instant(*self.ts.get(position)?), lane, offset },
            event_id: text(event::EVENT_ID)?.as_str()?.to_owned(),
            payload_hash: text(event::HASH)?.as_str()?.to_owned(),
        })
    }

    /// The value of a feature's field at a position; null where the feature reads none.
    pub fn value(&self, feature: &Feature, position: usize) -> Value {
        let column = feature.field_at.and_then(|f| self.batch.columns().get(event::FIELDS + f));
        match (column, self.rows.get(position)) {
            (Some(column), Some(row)) => cell(column.as_ref(), *row as usize),
            _ => Value::Null,
        }
    }
}
