//! Looking through bus, archive and timeline for what a span of time and a cut-off come to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::Selectors;
use crate::contract::Offset;
use crate::contract::intent::{Lane, OffsetRange, Slice};
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::{parallel, run};
use crate::source::labels::{self, LabelQuery, Stamp};
use crate::source::{Decoder, Delivery, FileBus, Needs, ReadScope, lanes_below};
use crate::store::Ref;
use crate::time::Instant;

const PHASE: Phase = Phase::Intent;

/// What a partition holds of the span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LaneFound {
    lane: Lane,
    /// The smallest range that holds every event of the span.
    pub(super) range: Option<OffsetRange>,
    /// First and last event time of the span.
    times: Option<(Instant, Instant)>,
    /// Events of the span, by the side that serves them.
    events: BTreeMap<&'static str, u64>,
    /// Records whose time cannot be read, whatever their offset.
    unreadable: u64,
}

impl LaneFound {
    fn new(lane: Lane) -> Self {
        LaneFound { lane, range: None, times: None, events: BTreeMap::new(), unreadable: 0 }
    }

    fn take(&mut self, source: &'static str, offset: Offset, ts: Instant) {
        let range = self.range.get_or_insert(OffsetRange { start: offset, end: offset });
        *range = OffsetRange { start: range.start.min(offset), end: range.end.max(offset) };
        let times = self.times.get_or_insert((ts, ts));
        *times = (times.0.min(ts), times.1.max(ts));
        *self.events.entry(source).or_default() += 1;
    }

    fn merge(&mut self, other: LaneFound) {
        if let (Some(range), Some(times)) = (other.range, other.times) {
            self.take("", range.start, times.0);
            self.take("", range.end, times.1);
            self.events.remove("");
        }
        for (source, n) in other.events {
            *self.events.entry(source).or_default() += n;
        }
        self.unreadable += other.unreadable;
    }

    pub(super) fn slice(&self) -> Option<Value> {
        self.range.map(|range| Slice { lane: self.lane.clone(), range }.to_json())
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "topic": self.lane.topic, "partition": self.lane.partition, "offset_kind": self.lane.kind,
            "start_offset": self.range.map(|r| r.start), "end_offset": self.range.map(|r| r.end), "offsets": self.range.map(|r| r.span()),
            "first_ts_utc": self.times.map(|t| t.0), "last_ts_utc": self.times.map(|t| t.1), "events_in_span": self.events, "unreadable": self.unreadable,
        })
    }
}

/// Every partition that the workspace holds of a run, with what lies in the span.
pub(super) fn lanes(env: &Env, run: &str, selectors: &Selectors) -> Result<Vec<LaneFound>, Refusal> {
    let lanes: Vec<Lane> =
        held(env, run)?.into_iter().filter(|lane| selectors.topics.is_empty() || selectors.topics.contains(&lane.topic)).collect();
    let logs = run::event_logs(env, run)?;
    let mut items = Vec::new();
    for (lane_at, lane) in lanes.iter().enumerate() {
        for (log_at, log) in logs.iter().enumerate() {
            let chunks = log.chunks(lane, &[lane.kind.everything()]).map_err(|e| Refusal::of_source(PHASE, &e))?;
            items.extend(chunks.into_iter().map(|chunk| (lane_at, log_at, chunk)));
        }
    }
    let found: Mutex<Vec<LaneFound>> = Mutex::new(lanes.iter().cloned().map(LaneFound::new).collect());
    let inside = |ts: Instant| selectors.from.is_none_or(|from| ts >= from) && selectors.to.is_none_or(|to| ts < to);
    parallel::each(
        env,
        PHASE,
        items.len(),
        Decoder::new,
        |decoder, index| {
            let Some((lane_at, log_at, chunk)) = items.get(index) else { return Ok(()) };
            let (Some(lane), Some(log)) = (lanes.get(*lane_at), logs.get(*log_at)) else { return Ok(()) };
            let ranges = [lane.kind.everything()];
            let scope = ReadScope { platform_run_id: run, lane, ranges: &ranges, verify: false, needs: Needs::Fields(&[]) };
            let mut mine = LaneFound::new(lane.clone());
            let source = log.source().as_str();
            log.read(chunk, scope, decoder, &mut |delivery| {
                match delivery {
                    Delivery::Event(event) if inside(event.ts) => mine.take(source, event.offset, event.ts),
                    Delivery::Fault(_) => mine.unreadable += 1,
                    _ => {}
                }
                if env.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .map_err(|e| Refusal::of_source(PHASE, &e))?;
            if let Some(all) = found.lock().unwrap_or_else(PoisonError::into_inner).get_mut(*lane_at) {
                all.merge(mine);
            }
            Ok(())
        },
        |_| Ok(()),
    )?;
    env.check(PHASE)?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The partitions that archive, sealed segments and bus have folders or files for.
fn held(env: &Env, run: &str) -> Result<BTreeSet<Lane>, Refusal> {
    let bus = FileBus::open(&env.config.path("bus")).map_err(|e| Refusal::of_store(PHASE, &e))?;
    let mut lanes = bus.lanes().map_err(|e| Refusal::of_source(PHASE, &e))?;
    for folder in [Ref::of(&[run, "archive", "events"]), Ref::of(&[run, "ofs", "sealed"])] {
        lanes.extend(lanes_below(env.store.as_ref(), &folder).map_err(|e| Refusal::of_store(PHASE, &e))?);
    }
    Ok(lanes)
}

/// What the timeline holds of a label type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TypeFound {
    pub(super) label_type: String,
    pub(super) assertions: u64,
    known: u64,
    pub(super) latest: Option<Instant>,
    unreadable: u64,
}

impl TypeFound {
    pub(super) fn to_json(&self) -> Value {
        json!({"label_type": self.label_type, "assertions": self.assertions, "known_at_cutoff": self.known, "latest_observed_utc": self.latest, "unreadable": self.unreadable})
    }
}

/// Counts the assertions of each type; those known at the cut-off are all where none is given.
pub(super) fn labels(env: &Env, run: &str, types: &BTreeSet<String>, asof: Option<Instant>) -> Result<Vec<TypeFound>, Refusal> {
    let unavailable = |e: labels::LabelError| Refusal::new(e.code, PHASE, e.to_string());
    let timeline = run::timeline(env)?;
    let blank = |name: &String| TypeFound { label_type: name.clone(), assertions: 0, known: 0, latest: None, unreadable: 0 };
    let mut found: BTreeMap<&str, TypeFound> = types.iter().map(|name| (name.as_str(), blank(name))).collect();
    let query = LabelQuery { platform_run_id: run, types };
    for part in timeline.parts().map_err(unavailable)? {
        timeline
            .scan(&part, query, &mut |assertion| {
                if let Some(of_type) = found.get_mut(assertion.label_type) {
                    of_type.assertions += 1;
                    match assertion.observed.and_then(Stamp::instant) {
                        Some(observed) => {
                            of_type.known += u64::from(asof.is_none_or(|asof| observed <= asof));
                            of_type.latest = of_type.latest.max(Some(observed));
                        }
                        None => of_type.unreadable += 1,
                    }
                }
                if env.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .map_err(unavailable)?;
        env.check(PHASE)?;
    }
    Ok(found.into_values().collect())
}
