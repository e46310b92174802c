//! How each gate of a run stands, from the run's own events: the one answer that `ofs show`, its JSON and the
//! console give.

use serde_json::{Value, json};

use crate::contract::ReasonCode;
use crate::ledger::{EventRow, RunRow, Status};
use crate::pipeline::Phase;

/// How a gate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It was passed.
    Passed,
    /// It refused.
    Refused,
    /// Work on it goes on.
    Running,
    /// Nobody has come to it.
    NotReached,
}

impl Standing {
    /// The stable name, like `NOT_REACHED`.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Passed => "PASSED",
            Standing::Refused => "REFUSED",
            Standing::Running => "RUNNING",
            Standing::NotReached => "NOT_REACHED",
        }
    }
}

/// One gate of the latest attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Which.
    pub phase: Phase,
    /// How it stands.
    pub standing: Standing,
    /// The refusal's document, where it refused.
    pub reason: Option<Value>,
    /// Ref of its receipt, or of what it found when it refused.
    pub evidence: Option<String>,
    /// Whether the latest attempt proved it again from its own files instead of passing it anew.
    pub reproved: bool,
    /// What it proved, in a few facts, where it was passed.
    pub facts: Vec<(String, String)>,
}

impl Gate {
    /// As in `ofs.run.v1`.
    pub fn to_json(&self) -> Value {
        json!({"phase": self.phase.as_str(), "result": self.standing.as_str(), "reason": self.reason, "evidence": self.evidence, "reproved": self.reproved})
    }
}

/// The gates of a run's latest full attempt, with what publish-only attempts after it came to; of a run that is done,
/// the last word on each gate in any attempt.
pub fn gates(events: &[EventRow], row: &RunRow) -> Vec<Gate> {
    let full = |e: &EventRow| {
        matches!(e.event_type.as_str(), "RUN_STARTED" | "LEASE_TAKEN_OVER")
            && e.detail.get("mode").and_then(Value::as_str) != Some("PUBLISH_ONLY")
    };
    // What is done may rest on gates that an owner passed who was killed after the commit.
    let begin = if row.status == Status::Done { 0 } else { events.iter().rposition(full).unwrap_or(0) };
    let latest = events.get(begin..).unwrap_or_default();
    // A report needs no labels, and there is nothing of it to commit.
    let data_set = row.intent_kind.as_deref().is_none_or(|kind| kind == "dataset_build");
    let passes = |phase: &&Phase| data_set || matches!(phase, Phase::Pins | Phase::Replay | Phase::Features);
    Phase::RUN.iter().filter(passes).map(|phase| gate(*phase, latest, row)).collect()
}

fn gate(phase: Phase, events: &[EventRow], row: &RunRow) -> Gate {
    let of_phase = |event: &&EventRow| event.detail.get("phase").and_then(Value::as_str) == Some(phase.as_str());
    let passed = events.iter().rev().filter(|e| matches!(e.event_type.as_str(), "GATE_PASSED" | "GATE_REPROVED")).find(of_phase);
    let entered = events.iter().filter(|e| e.event_type == "PHASE_ENTERED").any(|e| of_phase(&e));
    let refused = row.reason.as_ref().and_then(|r| r.get("phase")).and_then(Value::as_str) == Some(phase.as_str());
    // Called off or given up between two gates: the one before was passed all the same.
    let by_operator = row.code().is_some_and(|code| matches!(code, ReasonCode::CancelledByOperator | ReasonCode::FailedByOperator));
    let standing = match passed {
        Some(_) if by_operator => Standing::Passed,
        _ if refused && matches!(row.status, Status::Failed | Status::PublishPending | Status::Cancelled) => Standing::Refused,
        Some(_) => Standing::Passed,
        None if entered && row.status == Status::Running => Standing::Running,
        None if row.status == Status::Done && phase == Phase::Publication => Standing::Passed,
        None => Standing::NotReached,
    };
    let found = || row.result.as_ref().and_then(|r| r.pointer("/evidence/refusal")).and_then(Value::as_str);
    let refused = standing == Standing::Refused;
    let receipt = passed.and_then(|e| e.detail.pointer("/evidence/receipt_ref")).and_then(Value::as_str);
    let facts = passed.and_then(|e| e.detail.pointer("/evidence/facts")).and_then(Value::as_object);
    Gate {
        phase,
        standing,
        reproved: passed.is_some_and(|e| e.event_type == "GATE_REPROVED"),
        reason: if refused { row.reason.clone() } else { None },
        evidence: receipt.or_else(|| if refused { found() } else { None }).map(str::to_owned),
        facts: facts.into_iter().flatten().map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned))).collect(),
    }
}
