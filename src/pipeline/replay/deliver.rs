//! One pass over the records of both sides: events to their shards, every offset to the proof of its lane.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use super::lane::{self, RECORD, proof_record};
use super::{Item, KEPT_FAULTS, LaneInput, PHASE, engine};
use crate::contract::ReasonCode;
use crate::contract::intent::Lane;
use crate::engine::EngineError;
use crate::engine::spool::Spool;
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::parallel;
use crate::pipeline::pin::{Pinned, verifies_hashes};
use crate::pipeline::projection::{Gatherer, Projection, ValueFault};
use crate::pipeline::totals::{Taker, Tap};
use crate::source::{Columns, Decoder, Delivery, EventLog, Fault, Handed, Needs, ReadScope, Source};

/// Records between two reports of progress.
const REPORT: u64 = 1_024;
/// Proof records that a thread gathers before it hands them over.
pub(super) const GATHER: usize = 16_384;

/// A fault with the lane and side it was found on, in the order in which faults are reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) lane: usize,
    pub(super) source: Source,
    pub(super) fault: Fault,
}

/// Records that cannot be read, and say no offset, that are told by their places.
const KEPT_UNPLACED: usize = 20;

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) kept: Vec<Found>,
    pub(super) total: u64,
    pub(super) unplaced: u64,
    pub(super) unplaced_sample: Vec<Fault>,
    pub(super) bus_unreadable: u64,
    by_lane: BTreeMap<usize, u64>,
}

impl Faults {
    fn push(&mut self, found: Found) {
        self.total += 1;
        *self.by_lane.entry(found.lane).or_default() += 1;
        self.kept.push(found);
        if self.kept.len() >= 2 * KEPT_FAULTS {
            self.trim();
        }
    }

    fn trim(&mut self) {
        self.kept
            .sort_by(|a, b| (a.lane, a.fault.offset, a.source, &a.fault.place).cmp(&(b.lane, b.fault.offset, b.source, &b.fault.place)));
        self.kept.truncate(KEPT_FAULTS);
    }

    /// A record that cannot be read and does not say which offset it is. Which of many are told depends on their
    /// places alone.
    fn push_unplaced(&mut self, fault: Fault) {
        self.unplaced += 1;
        self.unplaced_sample.push(fault);
        if self.unplaced_sample.len() >= 2 * KEPT_UNPLACED {
            self.trim_unplaced();
        }
    }

    /// Of one file, the line with the shorter number comes first.
    fn trim_unplaced(&mut self) {
        self.unplaced_sample.sort_by(|a, b| (a.place.len(), &a.place).cmp(&(b.place.len(), &b.place)));
        self.unplaced_sample.truncate(KEPT_UNPLACED);
    }

    /// How many there are on a lane, kept or not.
    pub(super) fn of_lane(&self, lane: usize) -> u64 {
        self.by_lane.get(&lane).copied().unwrap_or(0)
    }

    pub(super) fn merge(&mut self, other: Faults) {
        self.total += other.total;
        for (lane, count) in other.by_lane {
            *self.by_lane.entry(lane).or_default() += count;
        }
        self.unplaced += other.unplaced;
        self.bus_unreadable += other.bus_unreadable;
        self.kept.extend(other.kept);
        self.unplaced_sample.extend(other.unplaced_sample);
        self.trim_unplaced();
        self.trim();
    }
}

#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) faults: Faults,
    pub(super) value_fault: Option<ValueFault>,
    pub(super) value_faults: u64,
    pub(super) keyless: u64,
}

struct Worker<'r> {
    decoder: Decoder,
    rows: Delivered<'r>,
}

/// What one thread makes of what is delivered to it.
struct Delivered<'r> {
    gatherer: Gatherer<'r>,
    taker: Option<Taker<'r>>,
    records: Vec<[u8; RECORD]>,
    faults: Faults,
}

/// One pass over every record of both sides: events to their shards, every offset to its lane's proof.
pub(super) fn deliver(
    pinned: &Pinned,
    env: &Env,
    logs: &[Box<dyn EventLog>],
    inputs: &[LaneInput],
    items: &[Item],
    (projection, events, subjects, tap): (&Projection, &Spool, &Spool, Option<&Tap>),
) -> Result<Totals, Refusal> {
    let verify = verifies_hashes(pinned.intent(), env);
    let fields = projection.wanted();
    // What the online plane totals is not in columns.
    let needs = if tap.is_some() { Needs::Envelope } else { Needs::Fields(&fields) };
    let totals = Mutex::new(Totals::default());
    parallel::each(
        env,
        PHASE,
        items.len(),
        || Worker {
            decoder: Decoder::new(),
            rows: Delivered {
                gatherer: Gatherer::new(projection, events, subjects),
                taker: tap.map(Tap::open),
                records: Vec::new(),
                faults: Faults::default(),
            },
        },
        |worker, index| {
            let Some(item) = items.get(index) else { return Ok(()) };
            let (Some(input), Some(log)) = (inputs.get(item.lane), logs.get(item.log)) else { return Ok(()) };
            let run = &pinned.intent().platform_run_id;
            let scope = ReadScope { platform_run_id: run, lane: &input.lane, ranges: &input.ranges, verify, needs };
            worker.read(env, log.as_ref(), item, input, scope)
        },
        |Worker { mut rows, .. }| {
            rows.gatherer.flush().map_err(engine)?;
            rows.taker.as_mut().map_or(Ok(()), Taker::flush).map_err(engine)?;
            let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
            totals.faults.merge(rows.faults);
            totals.keyless += rows.gatherer.keyless();
            let (first, count) = rows.gatherer.faults();
            totals.value_faults += count;
            totals.value_fault = match (totals.value_fault.take(), first) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            Ok(())
        },
    )?;
    env.check(PHASE)?;
    Ok(totals.into_inner().unwrap_or_else(PoisonError::into_inner))
}

impl Worker<'_> {
    fn read(&mut self, env: &Env, log: &dyn EventLog, item: &Item, input: &LaneInput, scope: ReadScope<'_>) -> Result<(), Refusal> {
        let from = Piece { lane: item.lane, topic: &input.lane, source: log.source(), scope };
        let mut failed: Option<EngineError> = None;
        let mut count = 0u64;
        let result = log.read_wide(&item.chunk, scope, &mut self.decoder, &mut |handed| {
            let (step, rows) = match handed {
                Handed::Record(delivery) => (self.rows.record(&from, delivery), 1),
                Handed::Columns(columns) => (self.rows.columns(&from, columns), columns.len() as u64),
            };
            count += rows;
            if count >= REPORT {
                input.progress.delivered.fetch_add(count, Ordering::Relaxed);
                env.progress.advance(count);
                count = 0;
                if env.cancel.is_cancelled() {
                    return ControlFlow::Break(());
                }
            }
            match step.and(hand_over(&mut self.rows.records, input)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        input.progress.delivered.fetch_add(count, Ordering::Relaxed);
        env.progress.advance(count);
        result.map_err(|e| Refusal::of_source(PHASE, &e))?;
        if let Some(error) = failed {
            return Err(engine(error));
        }
        input.sorter.push(std::mem::take(&mut self.rows.records)).map_err(engine)
    }
}

/// Hands proof records over to their lane once [`GATHER`] wait: a piece may hold more than there is memory for.
pub(super) fn hand_over(records: &mut Vec<[u8; RECORD]>, input: &LaneInput) -> Result<(), EngineError> {
    if records.len() < GATHER { Ok(()) } else { input.sorter.push(std::mem::take(records)) }
}

/// Where a piece lies, and what is asked of it.
struct Piece<'f> {
    lane: usize,
    topic: &'f Lane,
    source: Source,
    scope: ReadScope<'f>,
}

impl Piece<'_> {
    fn number(&self) -> i32 {
        i32::try_from(self.lane).unwrap_or(i32::MAX)
    }
}

impl Delivered<'_> {
    fn record(&mut self, from: &Piece<'_>, delivery: Delivery<'_>) -> Result<(), EngineError> {
        match delivery {
            Delivery::Event(event) => {
                let selected = self.gatherer.selects(&event);
                self.records.push(proof_record(event.offset, from.source, lane::Kind::of_event(selected), &event.payload_hash));
                self.taker.as_mut().map_or(Ok(()), |taker| taker.push(from.number(), from.topic, &event))?;
                if selected { self.gatherer.push(from.number(), &event) } else { Ok(()) }
            }
            Delivery::Foreign(offset) => {
                self.records.push(proof_record(offset, from.source, lane::Kind::Foreign, &[0; 32]));
                Ok(())
            }
            Delivery::Fault(fault) => {
                place_fault(&mut self.faults, &mut self.records, Found { lane: from.lane, source: from.source, fault }, from.scope);
                Ok(())
            }
        }
    }

    fn columns(&mut self, from: &Piece<'_>, columns: &Columns) -> Result<(), EngineError> {
        let selected = self.gatherer.selection(columns);
        for (row, (hash, selected)) in columns.hashes().iter().zip(selected.values()).enumerate() {
            let hash = hash.and_then(|hash| hash.first_chunk()).unwrap_or(&[0; 32]);
            self.records.push(proof_record(columns.offset(row), from.source, lane::Kind::of_event(selected), hash));
        }
        if selected.true_count() == selected.len() {
            return self.gatherer.take(from.number(), columns);
        }
        for row in selected.values().set_indices() {
            let event = columns.event(row).ok_or_else(|| EngineError::Internal("a selected row is no event".into()))?;
            self.gatherer.push(from.number(), &event)?;
        }
        Ok(())
    }
}

/// A bad record: fatal in the archive at a known offset of the basis, and wherever a hash contradicts;
/// unreadable on the bus, where the archive may still have the offset; else unplaced and counted.
pub(super) fn place_fault(faults: &mut Faults, records: &mut Vec<[u8; RECORD]>, found: Found, scope: ReadScope<'_>) {
    match found.fault.offset {
        None => faults.push_unplaced(found.fault),
        Some(offset) if !scope.wants(offset) => {}
        Some(offset) if found.source == Source::Bus && found.fault.code != ReasonCode::PayloadHashMismatch => {
            faults.bus_unreadable += 1;
            records.push(proof_record(offset, found.source, lane::Kind::Unreadable, &[0; 32]));
        }
        Some(_) => faults.push(found),
    }
}
