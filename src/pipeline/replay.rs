//! Gate 4: every offset of the basis is delivered into the build, verified, and accounted for (O050 to
//! O074). Completeness is computed from the records that were delivered, never from a listing
//! (pitfalls 11 to 14): the same pass that hands events on also feeds the proof.

mod again;
mod deliver;
mod gaps;
mod lane;
mod plan;
mod verdict;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

pub use self::again::Rows;
use self::deliver::deliver;
use self::lane::{LaneProof, RECORD, Wanted};
pub use self::plan::{Feasibility, feasibility};
use self::verdict::{anomalies_of, judge, observation_of, proof_of};
use super::gate::{Env, Phase, Refusal, keep_receipt};
use super::parallel;
use super::pin::Pinned;
use super::progress::LaneProgress;
use super::projection::{Projection, ValueFault};
use super::totals::Tap;
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, ReasonCode};
use crate::engine::EngineError;
use crate::engine::scratch::{Budget, Scratch};
use crate::engine::sorter::Sorter;
use crate::engine::spool::Spool;
use crate::source::{Chunk, EventLog};
use crate::store::Ref;

const PHASE: Phase = Phase::Replay;
/// Faults that are kept for evidence, lowest offsets first; the total is kept besides.
const KEPT_FAULTS: usize = 1_000;

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

/// A kind of rows that wait, with its share of the memory in hundredths. What is left of the memory is
/// for the shards in work and the parts being written.
#[derive(Debug, Clone, Copy)]
pub enum Waiting {
    /// Delivered events.
    Events = 13,
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
    Rows = 15,
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

impl Replayed {
    fn write_receipts(&self, env: &Env, status: &str) -> Result<(), Refusal> {
        let receipt = json!({
            "schema_version": "learning.ofs_replay_completeness_receipt.v1", "running": self.pinned.running(), "run_key": self.pinned.admitted().run_key(), "request_id": self.pinned.intent().request_id,
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
