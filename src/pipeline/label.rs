//! Gate 5: labels as they were known at the cut-off (O075 to O094).
//!
//! Every assertion of the wanted types is read once and sent to the shard of its event; each shard then
//! decides for the rows that remain. Assertions about other events never refuse; those observed after
//! the cut-off are excluded lawfully and counted; what cannot be trusted about a row refuses the build.

mod again;
mod intake;
mod shard;
pub mod story;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::{Value, json};

use self::shard::{DISTANCES_US, Decide, ShardOutcome, TypeCounts};
use super::gate::{Env, Phase, Refusal, keep_receipt};
use super::parallel::{self, InOrder, Weight};
use super::pin::Pinned;
use super::replay::{Replayed, Waiting};
use crate::contract::ReasonCode;
use crate::contract::decimal::{Ratio, share};
use crate::contract::intent::RESOLUTION_RULE;
use crate::engine::spool::Spool;
use crate::source::labels::LabelTimeline;

const PHASE: Phase = Phase::Labels;
/// Late assertions and violations that are kept as evidence; totals are complete.
pub const KEPT: usize = 1_000;
const DAY_US: i64 = 86_400_000_000;

/// Proof of the label that every remaining row has, or lacks.
#[derive(Debug)]
pub struct Labelled {
    replayed: Replayed,
    decisions: Spool,
    proof: Value,
    observation: Value,
    rows: u64,
    drops: BTreeMap<i32, u64>,
    redelivered: u64,
}

/// Columns of one label type in the decision spool.
#[derive(Debug, Clone, Copy)]
pub struct DecisionColumns {
    /// The value, null unless resolved.
    pub value: usize,
    /// 0 resolved, 1 conflict, 2 not found.
    pub status: usize,
    /// Observed time of the selected or tied assertions.
    pub observed: usize,
    /// The selected assertion.
    pub assertion: usize,
}

/// Names of the status codes in the decision spool.
pub const STATUS: [&str; 3] = ["RESOLVED", "CONFLICT", "NOT_FOUND"];

/// Where the columns of label type `index` stand; column 0 is the event id.
pub fn decision_columns(index: usize) -> DecisionColumns {
    let first = 1 + index * 4;
    DecisionColumns { value: first, status: first + 1, observed: first + 2, assertion: first + 3 }
}

fn decision_schema(types: usize) -> SchemaRef {
    let mut columns = vec![Field::new("event_id", DataType::Utf8, false)];
    for i in 0..types {
        columns.push(Field::new(format!("value{i}"), DataType::Utf8, true));
        columns.push(Field::new(format!("status{i}"), DataType::Int32, false));
        columns.push(Field::new(format!("observed{i}"), DataType::Int64, true));
        columns.push(Field::new(format!("assertion{i}"), DataType::Utf8, true));
    }
    Arc::new(Schema::new(columns))
}

/// Resolves labels and judges them.
///
/// # Errors
/// A refusal of gate 5, with the violations as its artifact.
pub fn prove(replayed: Replayed, env: &Env, timeline: &dyn LabelTimeline) -> Result<Labelled, Refusal> {
    let pinned = replayed.pinned();
    let types = pinned.vocabulary().len();
    env.progress.enter(PHASE, 0);
    let work = replayed.work();
    let assertions = intake::read(pinned, env, timeline, work)?;
    let decisions = Spool::new(decision_schema(types), pinned.shards(), work.budget(Waiting::Decisions), work.scratch.clone());
    let decide = Decide::new(&replayed, &assertions, &decisions);
    let shards = pinned.shards();
    env.progress.enter(PHASE, shards as u64);
    let weigh = |index| {
        let least = replayed.subjects().size(index).bytes.saturating_add(assertions.spool.size(index).bytes);
        Weight { about: least.saturating_mul(2), least }
    };
    let weights: Vec<Weight> = (0..shards).map(weigh).collect();
    let name = |index| format!("the assertions about the events of shard {index} are too many for one unit of work");
    let total = Mutex::new((InOrder::new(), ShardOutcome::new(types)));
    parallel::weighed(env, PHASE, &weights, name, |index| {
        let outcome = decide.shard(index)?;
        env.progress.advance(1);
        let (decided, total) = &mut *total.lock().unwrap_or_else(PoisonError::into_inner);
        decided.put(index, outcome, |outcome| total.absorb(outcome));
        Ok(())
    })?;
    let (_, total) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let state = assertions.state;
    drop(assertions.spool);
    let gate = Gate::judge(pinned, &total);
    let proof = proof_of(pinned, &total, &gate);
    let observation = observation_of(pinned, &total, &state, timeline.describe());
    refuse(pinned, &total, &gate, &observation)?;
    replayed.subjects().clear();
    let labelled =
        Labelled { decisions, proof, observation, rows: total.targets, drops: total.drops, redelivered: total.redelivered, replayed };
    labelled.write_receipt(env, &gate)?;
    Ok(labelled)
}

/// The verdict over coverage, conflicts and maturity.
struct Gate {
    ready: bool,
    reasons: Vec<String>,
    immature: Vec<String>,
}

impl Gate {
    fn judge(pinned: &Pinned, total: &ShardOutcome) -> Gate {
        let policy = &pinned.intent().coverage;
        let max_conflict = policy.max_conflict.unwrap_or(Ratio::ZERO);
        let (mut reasons, mut immature) = (Vec::new(), Vec::new());
        for ((name, _), counts) in pinned.vocabulary().iter().zip(&total.types) {
            let min = policy.min_coverage.get(name).copied().unwrap_or(Ratio::ONE);
            if !min.reached_by(counts.resolved, total.targets) {
                reasons.push(format!("COVERAGE_BELOW_MIN:{name}:{}<{min}", share(counts.resolved, total.targets)));
            }
            if max_conflict.exceeded_by(counts.conflict, total.targets) {
                reasons.push(format!("CONFLICT_RATIO_ABOVE_MAX:{name}:{}>{max_conflict}", share(counts.conflict, total.targets)));
            }
        }
        if let Some(min) = policy.min_mature.filter(|min| !min.reached_by(total.mature_rows, total.targets)) {
            immature.push(format!("MATURE_BELOW_MIN:{}<{min}", share(total.mature_rows, total.targets)));
        }
        reasons.sort();
        Gate { ready: reasons.is_empty() && immature.is_empty(), reasons, immature }
    }
}

fn refuse(pinned: &Pinned, total: &ShardOutcome, gate: &Gate, observation: &Value) -> Result<(), Refusal> {
    let artifact = || json!({"labels": observation, "gate": {"ready": gate.ready, "reasons": gate.reasons, "maturity": gate.immature}, "counts": counts_of(pinned, total)});
    if let Some(first) = total.id_conflicts.first() {
        let message = format!("{} event id(s) were delivered with two contents; the first: {}", total.id_conflict_total, first);
        return Err(Refusal::new(ReasonCode::ReplayEventIdConflict, PHASE, message)
            .with_evidence(total.id_conflicts.iter().cloned())
            .with_artifact(artifact()));
    }
    if total.targets == 0 {
        return Err(Refusal::new(ReasonCode::LabelScopeEmpty, PHASE, "no row remains to be labelled: every delivered event was dropped")
            .with_artifact(artifact()));
    }
    if let Some(first) = total.violations.first() {
        let of_code = |code: ReasonCode| total.violations.iter().filter(move |v| v.code == code);
        let message = format!("{} label violation(s); the first: assertion {}: {}", total.violation_total, first.assertion, first.why);
        let lines: Vec<String> = of_code(first.code).map(|v| v.line()).collect();
        return Err(Refusal::new(first.code, PHASE, message).with_evidence(lines).with_artifact(artifact()));
    }
    if !pinned.intent().training() {
        return Ok(());
    }
    if !gate.reasons.is_empty() {
        let message = format!("{} row(s) do not meet the label coverage policy", total.targets);
        return Err(Refusal::new(ReasonCode::CoveragePolicyViolation, PHASE, message)
            .with_evidence(gate.reasons.iter().cloned())
            .with_artifact(artifact()));
    }
    if !gate.immature.is_empty() {
        let message = format!("{} of {} row(s) are mature", total.mature_rows, total.targets);
        return Err(Refusal::new(ReasonCode::MaturityPolicyViolation, PHASE, message)
            .with_evidence(gate.immature.iter().cloned())
            .with_artifact(artifact()));
    }
    Ok(())
}

fn type_counts(name: &str, counts: &TypeCounts, targets: u64, mature_rows: u64) -> Value {
    json!({
        "label_type": name, "targets": targets, "resolved": counts.resolved, "conflict": counts.conflict, "not_found": counts.not_found,
        "coverage_ratio": share(counts.resolved, targets), "conflict_ratio": share(counts.conflict, targets), "values": counts.values,
        "mature_rows": mature_rows, "mature_row_ratio": share(mature_rows, targets), "selected_by_maturity_cutoff": counts.mature_selected,
    })
}

fn counts_of(pinned: &Pinned, total: &ShardOutcome) -> Vec<Value> {
    pinned
        .vocabulary()
        .iter()
        .zip(&total.types)
        .map(|((name, _), counts)| type_counts(name, counts, total.targets, total.mature_rows))
        .collect()
}

fn proof_of(pinned: &Pinned, total: &ShardOutcome, gate: &Gate) -> Value {
    let policy = &pinned.intent().coverage;
    let thresholds: BTreeMap<&str, String> = pinned
        .vocabulary()
        .iter()
        .map(|(n, _)| (n.as_str(), policy.min_coverage.get(n).copied().unwrap_or(Ratio::ONE).to_string()))
        .collect();
    json!({
        "schema_version": "ofs.label_proof.v1", "label_basis": pinned.intent().label_basis_json(), "resolution_rule": RESOLUTION_RULE, "label_posture": "KNEW_THEN",
        "rows": total.targets, "types": counts_of(pinned, total), "selection_digest": total.digest(),
        "gate": {"ready": gate.ready, "reasons": gate.reasons, "maturity": gate.immature, "min_coverage_by_label_type": thresholds,
            "max_conflict_ratio": policy.max_conflict.unwrap_or(Ratio::ZERO).to_string(), "min_mature_ratio": policy.min_mature.map(|r| r.to_string())},
    })
}

fn observation_of(pinned: &Pinned, total: &ShardOutcome, state: &intake::State, store: &str) -> Value {
    let late: Vec<Value> =
        pinned.vocabulary().iter().zip(&total.types).map(|((name, _), c)| json!({"label_type": name, "late": c.late})).collect();
    let by_type: Vec<Value> = pinned
        .vocabulary()
        .iter()
        .zip(&total.types)
        .map(|((name, _), c)| json!({"label_type": name, "eligible": c.eligible, "late": c.late, "violations": c.violations, "before_cutoff": c.before, "after_cutoff": c.after}))
        .collect();
    json!({
        "label_store": store, "query": {"platform_run_id": pinned.intent().platform_run_id, "label_types": pinned.intent().label_types, "label_asof_utc": pinned.intent().labels.asof},
        "state_marker": {"assertions": state.assertions, "known_at_cutoff": state.known, "known_digest": state.digest},
        "late": late, "by_type": by_type, "distances_us": DISTANCES_US, "late_assertions": total.late.iter().map(|l| l.to_json(&pinned.intent().label_types)).collect::<Vec<_>>(), "late_total": total.types.iter().map(|c| c.late).sum::<u64>(),
        "violations": total.violations.iter().map(|v| v.to_json(&pinned.intent().label_types)).collect::<Vec<_>>(), "violation_total": total.violation_total, "kept_at_most": KEPT,
    })
}

/// The instant until which a row counts as mature.
fn maturity_cutoff(pinned: &Pinned) -> i64 {
    let days = i64::from(pinned.intent().labels.maturity_days.unwrap_or(0));
    pinned.intent().labels.asof.0.saturating_sub(days.saturating_mul(DAY_US))
}

impl Labelled {
    fn write_receipt(&self, env: &Env, gate: &Gate) -> Result<(), Refusal> {
        let pinned = self.pinned();
        let receipt = json!({
            "schema_version": "learning.ofs_label_resolution_receipt.v1", "running": pinned.running(), "run_key": pinned.admitted().run_key(), "request_id": pinned.intent().request_id,
            "platform_run_id": pinned.intent().platform_run_id, "status": if gate.ready { "READY_FOR_TRAINING" } else { "NOT_READY_FOR_TRAINING" },
            "proof_digest": crate::digest::digest(&self.proof), "proof": self.proof, "observation": self.observation,
        });
        let at = pinned.receipt_ref("label_resolution");
        keep_receipt(
            env.store.as_ref(),
            &at,
            &receipt,
            &["status", "proof_digest"],
            ReasonCode::LabelResolutionImmutabilityViolation,
            PHASE,
        )
    }

    /// The pins.
    pub fn pinned(&self) -> &Pinned {
        self.replayed.pinned()
    }

    /// The replay that this rests on.
    pub fn replayed(&self) -> &Replayed {
        &self.replayed
    }

    /// Label decisions by shard of the row's key.
    pub fn decisions(&self) -> &Spool {
        &self.decisions
    }

    /// The proof document.
    pub fn proof(&self) -> &Value {
        &self.proof
    }

    /// The observation of this attempt.
    pub fn observation(&self) -> &Value {
        &self.observation
    }

    /// Rows of the data set.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Dropped events by drop code.
    pub fn drops(&self) -> &BTreeMap<i32, u64> {
        &self.drops
    }

    /// Events delivered again under another offset.
    pub fn redelivered(&self) -> u64 {
        self.redelivered
    }
}
