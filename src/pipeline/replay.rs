//! Gate 4: every offset of the basis is delivered into the build, verified, and accounted for (O050 to
//! O074). Completeness is computed from the records that were delivered, never from a listing
//! (pitfalls 11 to 14): the same pass that hands events on also feeds the proof.

mod again;
mod lane;

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

pub use self::again::Rows;
use self::lane::{LaneProof, RECORD, Wanted, proof_record};
use super::gate::{Env, Phase, Refusal, keep_receipt};
use super::parallel;
use super::pin::Pinned;
use super::progress::LaneProgress;
use super::projection::{Gatherer, Projection, ValueFault};
use super::totals::{Taker, Tap};
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, ReasonCode};
use crate::engine::EngineError;
use crate::engine::scratch::{Budget, Scratch};
use crate::engine::sorter::Sorter;
use crate::engine::spool::Spool;
use crate::source::{Chunk, Columns, Decoder, Delivery, EventLog, Fault, Handed, Needs, ReadScope, Source};
use crate::store::Ref;

const PHASE: Phase = Phase::Replay;
/// Faults that are kept for evidence, lowest offsets first; the total is kept besides.
const KEPT_FAULTS: usize = 1_000;
/// Records between two reports of progress.
const REPORT: u64 = 1_024;
/// Proof records that a thread gathers before it hands them over.
const GATHER: usize = 16_384;

/// Proof that the basis was delivered completely, with the delivered events on their way to shards.
#[derive(Debug)]
pub struct Replayed {
    pinned: Pinned,
    projection: Projection,
    events: Spool,
    subjects: Spool,
    /// How many of the subjects are events without a key.
    keyless: u64,
    lanes: Vec<Lane>,
    proof: Value,
    observation: Value,
    value_fault: Option<(ValueFault, u64)>,
    tap: Option<Tap>,
    work: Work,
}

/// A replay that is not complete, with what was delivered all the same. It is no proof, so no data set can
/// be built on it; a report that says so may (O058).
#[derive(Debug)]
pub struct Incomplete {
    delivered: Replayed,
    refusal: Refusal,
}

/// How a replay ended.
#[derive(Debug)]
pub enum Examined {
    /// Every offset was delivered.
    Complete(Box<Replayed>),
    /// Something is missing or contradicts itself.
    Incomplete(Box<Incomplete>),
}

/// Spill space that the whole build shares, and what each kind of waiting row may hold of the memory.
///
/// Each kind has a budget of its own, so that one that is small never spills because another is large.
#[derive(Debug, Clone)]
pub struct Work {
    /// Where rows spill.
    pub scratch: Arc<Scratch>,
    memory: u64,
}

/// A kind of rows that wait, with its share of the memory in hundredths. The other half of the memory is
/// for the shards in work and the parts being written.
#[derive(Debug, Clone, Copy)]
pub enum Waiting {
    /// Delivered events.
    Events = 18,
    /// Event ids and places.
    Subjects = 7,
    /// Offsets and hashes of the completeness proof.
    Proofs = 6,
    /// Label assertions.
    Assertions = 9,
    /// Digests of assertion ids.
    AssertionIds = 4,
    /// Label decisions.
    Decisions = 8,
    /// Finished rows.
    Rows = 17,
}

impl Work {
    /// Spill space for one attempt of a run.
    ///
    /// # Errors
    /// `SCRATCH_IO`.
    pub fn new(env: &Env, run_key: &str) -> Result<Self, Refusal> {
        let workspace = blake3::hash(env.config.workspace.to_string_lossy().as_bytes()).to_hex();
        let owner = format!("{}-{run_key}", workspace.get(..8).unwrap_or_default());
        let scratch = Scratch::new(&env.config.scratch(), &owner, &env.attempt).map_err(|e| Refusal::of_engine(PHASE, &e))?;
        Ok(Work { memory: env.config.memory(), scratch: Arc::new(scratch) })
    }

    /// A budget for one kind of rows.
    pub fn budget(&self, kind: Waiting) -> Arc<Budget> {
        Arc::new(Budget::new(self.memory / 100 * kind as u64))
    }
}

struct Item {
    lane: usize,
    log: usize,
    chunk: Chunk,
}

struct LaneInput {
    lane: Lane,
    ranges: Vec<OffsetRange>,
    sorter: Sorter<RECORD>,
    progress: Arc<LaneProgress>,
    retained_from: Option<Offset>,
    attested: Vec<OffsetRange>,
    ignored_files: u64,
}

/// A fault with the lane and side it was found on, in the order in which faults are reported.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    lane: usize,
    source: Source,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Faults {
    kept: Vec<Found>,
    total: u64,
    unplaced: u64,
    unplaced_sample: Vec<Fault>,
    bus_unreadable: u64,
}

impl Faults {
    fn push(&mut self, found: Found) {
        self.total += 1;
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

    fn merge(&mut self, other: Faults) {
        self.total += other.total;
        self.unplaced += other.unplaced;
        self.bus_unreadable += other.bus_unreadable;
        self.kept.extend(other.kept);
        self.unplaced_sample.extend(other.unplaced_sample);
        self.unplaced_sample.sort_by(|a, b| a.place.cmp(&b.place));
        self.unplaced_sample.truncate(20);
        self.trim();
    }
}

#[derive(Debug, Default)]
struct Totals {
    faults: Faults,
    value_fault: Option<ValueFault>,
    value_faults: u64,
    keyless: u64,
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

/// Replays the basis.
///
/// # Errors
/// A refusal of gate 4, with everything that was found as its artifact.
pub fn prove(pinned: Pinned, env: &Env, logs: &[Box<dyn EventLog>]) -> Result<Replayed, Refusal> {
    match examine(pinned, env, logs)? {
        Examined::Complete(replayed) => Ok(*replayed),
        Examined::Incomplete(incomplete) => Err(incomplete.refusal),
    }
}

/// Replays the basis for whoever can also use what is not complete.
///
/// # Errors
/// What keeps the replay from being judged at all: the environment, the order to stop.
pub fn examine(pinned: Pinned, env: &Env, logs: &[Box<dyn EventLog>]) -> Result<Examined, Refusal> {
    let work = Work::new(env, pinned.admitted().run_key())?;
    let projection = Projection::new(pinned.intent(), pinned.group())?;
    let events = Spool::new(projection.event_schema(), pinned.shards(), work.budget(Waiting::Events), work.scratch.clone());
    let subjects = Spool::new(projection.subject_schema(), pinned.shards(), work.budget(Waiting::Subjects), work.scratch.clone());
    let (inputs, items) = plan_items(&pinned, env, logs, &work)?;
    let tap = pinned.snapshot_scope().map(|(keys, scenario)| Tap::new(&projection, keys, scenario, pinned.shards(), &work));
    let totals = deliver(&pinned, env, logs, &inputs, &items, (&projection, &events, &subjects, tap.as_ref()))?;
    let proofs = prove_lanes(env, &inputs)?;
    let verdict = judge(&inputs, &proofs, &totals);
    let proof = if verdict.is_ok() { proof_of(&pinned, &proofs) } else { Value::Null };
    let mut observation = observation_of(&inputs, &proofs, &totals);
    // A refused gate leaves no receipt; a report that goes on without proof has to leave this one.
    if verdict.is_ok() || !pinned.publishes() {
        let anomalies_ref = pinned.receipt_ref("replay_anomalies");
        let stands = keep_anomalies(env, &anomalies_ref, &anomalies_of(&inputs, &proofs, &totals))?;
        if let Some(map) = observation.as_object_mut() {
            map.insert("anomalies_ref".into(), json!(anomalies_ref.as_str()));
            map.insert("anomalies_blake3".into(), json!(stands));
        }
    }
    let replayed = Replayed {
        lanes: inputs.into_iter().map(|i| i.lane).collect(),
        value_fault: totals.value_fault.map(|f| (f, totals.value_faults)),
        pinned,
        projection,
        events,
        subjects,
        keyless: totals.keyless,
        proof,
        observation,
        tap,
        work,
    };
    match verdict {
        Ok(()) => {
            replayed.write_receipts(env, "COMPLETE")?;
            Ok(Examined::Complete(Box::new(replayed)))
        }
        Err(refusal) => {
            if !replayed.pinned.publishes() {
                replayed.write_receipts(env, "INCOMPLETE")?;
            }
            Ok(Examined::Incomplete(Box::new(Incomplete { delivered: replayed, refusal })))
        }
    }
}

/// Keeps the anomalies; the digest of what stands. An earlier attempt's stand, so the receipt vouches for what
/// is there, not for what was made now.
fn keep_anomalies(env: &Env, at: &Ref, anomalies: &Value) -> Result<String, Refusal> {
    keep_receipt(env.store.as_ref(), at, anomalies, &[], ReasonCode::CompletenessReceiptImmutabilityViolation, PHASE)?;
    Ok(crate::store::digest(env.store.as_ref(), at).map_err(|e| Refusal::of_store(PHASE, &e))?.0)
}

fn engine(error: EngineError) -> Refusal {
    Refusal::of_engine(PHASE, &error)
}

fn plan_items(pinned: &Pinned, env: &Env, logs: &[Box<dyn EventLog>], work: &Work) -> Result<(Vec<LaneInput>, Vec<Item>), Refusal> {
    let proofs = work.budget(Waiting::Proofs);
    let mut inputs = Vec::new();
    let mut items = Vec::new();
    for (index, (lane, ranges)) in pinned.intent().lanes().into_iter().enumerate() {
        let (mut retained_from, mut attested, mut ignored_files) = (None, Vec::new(), 0);
        for (log_index, log) in logs.iter().enumerate() {
            env.check(PHASE)?;
            let bounds = log.bounds(&lane).map_err(|e| Refusal::of_source(PHASE, &e))?;
            ignored_files += bounds.ignored_files;
            attested.extend(bounds.attested);
            retained_from = retained_from.or(bounds.retained_from);
            let chunks = log.chunks(&lane, &ranges).map_err(|e| Refusal::of_source(PHASE, &e))?;
            items.extend(chunks.into_iter().map(|chunk| Item { lane: index, log: log_index, chunk }));
        }
        let wanted = crate::engine::interval::total(&ranges).to_u64().unwrap_or(0);
        let progress = Arc::new(LaneProgress { name: lane.to_string(), wanted, ..LaneProgress::default() });
        inputs.push(LaneInput {
            lane,
            ranges,
            sorter: Sorter::new(proofs.clone(), work.scratch.clone()),
            progress,
            retained_from,
            attested,
            ignored_files,
        });
    }
    env.progress.enter(PHASE, crate::engine::shard::span(&pinned.intent().basis).to_u64().unwrap_or(0));
    env.progress.set_lanes(inputs.iter().map(|i| i.progress.clone()).collect());
    Ok((inputs, items))
}

/// One pass over every record of both sides: events to their shards, every offset to its lane's proof.
fn deliver(
    pinned: &Pinned,
    env: &Env,
    logs: &[Box<dyn EventLog>],
    inputs: &[LaneInput],
    items: &[Item],
    (projection, events, subjects, tap): (&Projection, &Spool, &Spool, Option<&Tap>),
) -> Result<Totals, Refusal> {
    let verify = env.config.flag("replay", "verify_payload_hashes");
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
            let records = &mut self.rows.records;
            let full = if records.len() >= GATHER { input.sorter.push(std::mem::take(records)) } else { Ok(()) };
            match step.and(full) {
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
fn place_fault(faults: &mut Faults, records: &mut Vec<[u8; RECORD]>, found: Found, scope: ReadScope<'_>) {
    match found.fault.offset {
        None => {
            faults.unplaced += 1;
            if faults.unplaced_sample.len() < 20 {
                faults.unplaced_sample.push(found.fault);
            }
        }
        Some(offset) if !scope.wants(offset) => {}
        Some(offset) if found.source == Source::Bus && found.fault.code != ReasonCode::PayloadHashMismatch => {
            faults.bus_unreadable += 1;
            records.push(proof_record(offset, found.source, lane::Kind::Unreadable, &[0; 32]));
        }
        Some(_) => faults.push(found),
    }
}

fn prove_lanes(env: &Env, inputs: &[LaneInput]) -> Result<Vec<LaneProof>, Refusal> {
    let proofs: Vec<Mutex<Option<LaneProof>>> = inputs.iter().map(|_| Mutex::new(None)).collect();
    parallel::each(
        env,
        PHASE,
        inputs.len(),
        || (),
        |(), index| {
            let (Some(input), Some(slot)) = (inputs.get(index), proofs.get(index)) else { return Ok(()) };
            let basis =
                Wanted { kind: input.lane.kind, ranges: &input.ranges, retained_from: input.retained_from, attested: &input.attested };
            let proof = lane::prove(input.sorter.finish().map_err(engine)?, basis).map_err(engine)?;
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(proof);
            Ok(())
        },
        |()| Ok(()),
    )?;
    Ok(proofs.into_iter().filter_map(|p| p.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}

/// Decides, worst first: a contradiction outranks a gap, since a gap can be filled.
fn judge(inputs: &[LaneInput], proofs: &[LaneProof], totals: &Totals) -> Result<(), Refusal> {
    let refusal = contradiction(inputs, totals).or_else(|| conflict(inputs, proofs)).or_else(|| gap(inputs, proofs)).or_else(|| {
        let delivered: u64 = proofs.iter().map(|p| p.delivered).sum();
        (delivered <= unselected(proofs))
            .then(|| Refusal::new(ReasonCode::ReplayEventsEmpty, PHASE, "the basis holds no event of this run and its scenario runs"))
    });
    match refusal {
        None => Ok(()),
        Some(refusal) => Err(refusal
            .with_artifact(json!({"replay": observation_of(inputs, proofs, totals), "anomalies": anomalies_of(inputs, proofs, totals)}))),
    }
}

/// Events that the scenario selection leaves out. Counted by offset: that both sides may serve one is an
/// observation, and this number is part of what is proved.
fn unselected(proofs: &[LaneProof]) -> u64 {
    proofs.iter().map(|p| p.unselected).sum()
}

fn contradiction(inputs: &[LaneInput], totals: &Totals) -> Option<Refusal> {
    let first = totals.faults.kept.first()?;
    let line = |found: &Found| {
        let lane = inputs.get(found.lane).map(|i| i.lane.to_string()).unwrap_or_default();
        let offset = found.fault.offset.map(|o| format!(" offset {o}")).unwrap_or_default();
        format!("{lane}{offset} ({}, {}): {} {}", found.source, found.fault.place, found.fault.code, found.fault.message)
    };
    Some(
        Refusal::new(first.fault.code, PHASE, format!("{} record(s) cannot be used; the first: {}", totals.faults.total, line(first)))
            .with_evidence(totals.faults.kept.iter().map(line)),
    )
}

fn conflict(inputs: &[LaneInput], proofs: &[LaneProof]) -> Option<Refusal> {
    let all: Vec<(&LaneInput, &lane::Conflict)> =
        inputs.iter().zip(proofs).flat_map(|(i, p)| p.conflicts.iter().map(move |c| (i, c))).collect();
    let total: u64 = proofs.iter().map(|p| p.conflict_total).sum();
    // Bus against archive outranks a doubled offset within one side.
    let (_, first) = all.iter().find(|(_, c)| c.code == ReasonCode::ReplayBasisMismatch).or(all.first())?;
    let line =
        |(input, conflict): &(&LaneInput, &lane::Conflict)| format!("{} offset {}: {}", input.lane, conflict.offset, conflict.message);
    let message = format!("{total} offset(s) were delivered with contradicting content");
    Some(Refusal::new(first.code, PHASE, message).with_evidence(all.iter().filter(|(_, c)| c.code == first.code).map(line)))
}

fn gap(inputs: &[LaneInput], proofs: &[LaneProof]) -> Option<Refusal> {
    let gaps: Vec<(&LaneInput, &lane::Gap)> = inputs.iter().zip(proofs).flat_map(|(i, p)| p.gaps.iter().map(move |g| (i, g))).collect();
    if gaps.is_empty() {
        return None;
    }
    let lanes = inputs.iter().zip(proofs).filter(|(_, p)| !p.gaps.is_empty()).count();
    let missing = gaps.iter().fold(Offset::default(), |sum, (_, g)| sum.plus(g.range.span()));
    let mut refusal =
        Refusal::new(ReasonCode::ReplayIncomplete, PHASE, format!("{missing} offset(s) of {lanes} partition(s) were not delivered"))
            .with_evidence(gaps.iter().map(|(i, g)| format!("{} {}: {}", i.lane, g.range, g.cause.words())));
    let all = |cause: lane::Cause| gaps.iter().all(|(_, g)| g.cause == cause);
    if all(lane::Cause::SparseUnattested) {
        refusal.end_class = Some("UNCHECKABLE_EXPLICIT");
    } else if all(lane::Cause::BelowRetention) {
        refusal.end_class = Some("UNSATISFIABLE_IN_ENV");
    }
    Some(refusal)
}

/// The proof: depends on identity alone.
fn proof_of(pinned: &Pinned, proofs: &[LaneProof]) -> Value {
    let intent = pinned.intent();
    let lanes: Vec<Value> = intent
        .lanes()
        .iter()
        .zip(proofs)
        .map(|((lane, ranges), proof)| {
            let slices: Vec<Value> = ranges
                .iter()
                .map(|range| {
                    let id = crate::digest::recipe_digest("ofs.slice.v1", &json!([pinned.id().fingerprint, lane.topic, lane.partition, lane.kind, range.start, range.end]));
                    json!({"slice_id": id.chars().take(32).collect::<String>(), "start_offset": range.start, "end_offset": range.end})
                })
                .collect();
            json!({"topic": lane.topic, "partition": lane.partition, "offset_kind": lane.kind, "slices": slices, "events": proof.delivered, "sequence_digest": proof.digest})
        })
        .collect();
    let sequence = crate::digest::recipe_digest("ofs.delivered_sequence.v1", &Value::Array(lanes.clone()));
    json!({
        "schema_version": "ofs.replay_proof.v1", "status": "COMPLETE", "basis_hash": crate::identity::basis_hash(intent), "offset_interval": "closed",
        "lanes": lanes, "events": proofs.iter().map(|p| p.delivered).sum::<u64>(), "delivered_sequence_digest": sequence,
    })
}

fn observation_of(inputs: &[LaneInput], proofs: &[LaneProof], totals: &Totals) -> Value {
    let lanes: Vec<Value> = inputs
        .iter()
        .zip(proofs)
        .map(|(input, proof)| proof.observed(&input.lane, &input.ranges, input.retained_from, input.ignored_files))
        .collect();
    let complete = proofs.iter().all(|p| p.gaps.is_empty() && p.conflict_total == 0) && totals.faults.total == 0;
    json!({
        "status": if complete { "COMPLETE" } else { "INCOMPLETE" }, "partitions": lanes, "unselected_by_scenario": unselected(proofs),
        "undecodable_unplaced": totals.faults.unplaced, "bus_unreadable": totals.faults.bus_unreadable, "unusable_records": totals.faults.total,
    })
}

fn anomalies_of(inputs: &[LaneInput], proofs: &[LaneProof], totals: &Totals) -> Value {
    let mut list: Vec<Value> = Vec::new();
    for found in &totals.faults.kept {
        let lane = inputs.get(found.lane).map(|i| i.lane.to_string());
        list.push(json!({"code": found.fault.code, "lane": lane, "offset": found.fault.offset, "source": found.source.as_str(), "place": found.fault.place, "message": found.fault.message}));
    }
    for fault in &totals.faults.unplaced_sample {
        list.push(json!({"code": fault.code, "place": fault.place, "message": fault.message}));
    }
    for (input, proof) in inputs.iter().zip(proofs) {
        list.extend(
            proof
                .conflicts
                .iter()
                .map(|c| json!({"code": c.code, "lane": input.lane.to_string(), "offset": c.offset, "message": c.message})),
        );
        list.extend(proof.gaps.iter().map(|g| json!({"code": ReasonCode::ReplayBasisGap, "lane": input.lane.to_string(), "start_offset": g.range.start, "end_offset": g.range.end, "cause": g.cause.as_str(), "message": g.cause.words()})));
        list.extend(proof.unreadable.iter().map(|o| json!({"code": ReasonCode::DecodeError, "lane": input.lane.to_string(), "offset": o, "source": Source::Bus.as_str(), "message": "unreadable on the bus"})));
    }
    json!({"schema_version": "ofs.replay_anomalies.v1", "unusable_records": totals.faults.total, "undecodable_unplaced": totals.faults.unplaced,
        "conflicts": proofs.iter().map(|p| p.conflict_total).sum::<u64>(), "kept_at_most": KEPT_FAULTS, "anomalies": list})
}

impl Replayed {
    fn write_receipts(&self, env: &Env, status: &str) -> Result<(), Refusal> {
        let receipt = json!({
            "schema_version": "learning.ofs_replay_completeness_receipt.v1", "run_key": self.pinned.admitted().run_key(), "request_id": self.pinned.intent().request_id,
            "platform_run_id": self.pinned.intent().platform_run_id, "status": status, "proof_digest": crate::digest::digest(&self.proof),
            "proof": self.proof, "observation": self.observation,
        });
        let at = self.pinned.receipt_ref("replay_completeness");
        keep_receipt(
            env.store.as_ref(),
            &at,
            &receipt,
            &["status", "proof_digest"],
            ReasonCode::CompletenessReceiptImmutabilityViolation,
            PHASE,
        )
    }

    /// The pins.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// What was taken out of every event.
    pub fn projection(&self) -> &Projection {
        &self.projection
    }

    /// The lanes in order; a lane's number is its place here.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Delivered events with a key, by shard of the key.
    pub fn events(&self) -> &Spool {
        &self.events
    }

    /// Delivered events, by shard of the event id.
    pub fn subjects(&self) -> &Spool {
        &self.subjects
    }

    /// The proof document.
    pub fn proof(&self) -> &Value {
        &self.proof
    }

    /// The observation of this attempt.
    pub fn observation(&self) -> &Value {
        &self.observation
    }

    /// The first payload value that does not fit its declared type, and how many there are.
    pub fn value_fault(&self) -> Option<&(ValueFault, u64)> {
        self.value_fault.as_ref()
    }

    /// What was tapped for the online plane's totals, where an anchor asks for them.
    pub fn tap(&self) -> Option<&Tap> {
        self.tap.as_ref()
    }

    /// Spill space and budget.
    pub fn work(&self) -> &Work {
        &self.work
    }
}

impl Incomplete {
    /// Why it is not complete.
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    /// The pins.
    pub fn pinned(&self) -> &Pinned {
        self.delivered.pinned()
    }

    /// What was delivered, for a report that says it is not everything.
    pub(super) fn delivered(&self) -> &Replayed {
        &self.delivered
    }
}

/// Says per partition whether the basis can be complete, from offsets alone: payload hashes are not
/// recomputed and nothing is written (O069).
///
/// # Errors
/// What cannot be read.
pub fn feasibility(pinned: &Pinned, env: &Env) -> Result<Vec<Value>, Refusal> {
    let logs = super::run::event_logs(env, &pinned.intent().platform_run_id)?;
    let work = Work::new(env, &format!("plan-{}", pinned.admitted().run_key()))?;
    let (inputs, items) = plan_items(pinned, env, &logs, &work)?;
    let faults = Mutex::new(Faults::default());
    parallel::each(
        env,
        PHASE,
        items.len(),
        || (Decoder::new(), Vec::new(), Faults::default()),
        |(decoder, records, mine), index| {
            let Some(item) = items.get(index) else { return Ok(()) };
            let (Some(input), Some(log)) = (inputs.get(item.lane), logs.get(item.log)) else { return Ok(()) };
            let (run, needs) = (&pinned.intent().platform_run_id, Needs::Fields(&[]));
            let scope = ReadScope { platform_run_id: run, lane: &input.lane, ranges: &input.ranges, verify: false, needs };
            let source = log.source();
            let read = log.read(&item.chunk, scope, decoder, &mut |delivery| {
                match delivery {
                    Delivery::Event(event) => records.push(proof_record(event.offset, source, lane::Kind::Event, &[0; 32])),
                    Delivery::Foreign(offset) => records.push(proof_record(offset, source, lane::Kind::Event, &[0; 32])),
                    Delivery::Fault(fault) => place_fault(mine, records, Found { lane: item.lane, source, fault }, scope),
                }
                if env.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            read.map_err(|e| Refusal::of_source(PHASE, &e))?;
            input.sorter.push(std::mem::take(records)).map_err(engine)
        },
        |(_, _, mine)| {
            faults.lock().unwrap_or_else(PoisonError::into_inner).merge(mine);
            Ok(())
        },
    )?;
    let proofs = prove_lanes(env, &inputs)?;
    Ok(inputs.iter().zip(&proofs).map(|(input, proof)| proof.feasible(&input.lane, &input.ranges, input.retained_from)).collect())
}
