//! `ofs show K`: one run, the reason first.

use serde_json::{Value, json};

use super::runs::{corrections, next, row_json, stuck, workers};
use super::{Context, Outcome, document, say};
use crate::ledger::{EventRow, Ledger, LedgerError, RefRow, RunRow, Status};
use crate::pipeline::Phase;
use crate::prove::supersession::{reason, supersedes};
use crate::text::safe;
use crate::time::span;

/// Arguments of `ofs show`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Run key, a unique beginning of it, or the request id.
    run: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let ledger = context.reader()?.ok_or_else(|| LedgerError::NotFound(args.run.clone()))?;
    let row = context.find_run(&ledger, &args.run)?;
    let gates = gates(&ledger, &row)?;
    let workers = workers(context, &ledger)?;
    let refs = ledger.ref_rows(Some(&row.run_key))?;
    let corrections = corrections(context, &ledger, &row);
    if context.json {
        let refs: Vec<Value> = refs.iter().map(RefRow::to_json).collect();
        document(
            &json!({"schema_version": "ofs.run.v1", "run": row_json(context, &row, workers, &corrections), "intent": row.intent, "gates": gates, "actions": row.actions(), "refs": refs}),
        );
        return Ok(0);
    }
    say(format!("run      {}   request {}", row.run_key, row.request_id.as_deref().unwrap_or("-")));
    say(format!(
        "status   {}   {} ago   attempts {}",
        row.status,
        span(context.clock.now().0.saturating_sub(row.updated.0)),
        row.attempt()
    ));
    if let Some(reason) = row.reason.as_ref() {
        let text = |key: &str| reason.get(key).and_then(Value::as_str).unwrap_or_default();
        say(format!("reason   {} at the {} gate: {}", text("code"), text("phase"), text("message")));
        for line in reason.get("evidence").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            say(format!("         - {}", safe(line)));
        }
        say(format!("clears   {}", text("remedy")));
    }
    if let Some(stuck) = stuck(context, &row, workers) {
        say(format!("stuck    {stuck}; next: {}", next(&row, stuck)));
    }
    if let Some(request) = &row.operator_request {
        say(format!("asked    to be {request}"));
    }
    if let Some(owner) = &row.owner {
        say(format!("owner    {owner}, lease until {}", row.lease_expires.map(|e| e.to_string()).unwrap_or_default()));
    }
    if let Some(manifest) = &row.manifest_ref {
        say(format!("manifest {manifest}"));
    }
    let superseded = supersedes(&row);
    if !superseded.is_empty() {
        say(format!("corrects {}: {}", superseded.join(", "), safe(&reason(&row).unwrap_or_default())));
    }
    for correction in &corrections {
        say(super::verify::superseded(correction));
    }
    for gate in &gates {
        let text = |key: &str| gate.get(key).and_then(Value::as_str).unwrap_or("-");
        // From the files of an earlier attempt, without the work.
        let again = if gate.get("reproved") == Some(&Value::Bool(true)) { "  (proved again)" } else { "" };
        say(format!("  {:<12} {:<12} {}{again}", text("phase"), text("result"), text("evidence")));
    }
    for denied in refs.iter().filter(|r| r.decision == "DENIED") {
        let code = denied.reason_code.as_deref().unwrap_or_default();
        say(format!("denied   {} {} as {}: {code}", denied.at, safe(&denied.given), denied.ref_type));
    }
    say(format!("actions  {}", row.actions().join(", ")));
    Ok(0)
}

/// Each gate of the latest attempt: how it ended and where its evidence lies.
fn gates(ledger: &Ledger, row: &RunRow) -> Result<Vec<Value>, LedgerError> {
    let events = ledger.events(&row.run_key, 0)?;
    let begin = events.iter().rposition(|e| matches!(e.event_type.as_str(), "RUN_STARTED" | "LEASE_TAKEN_OVER")).unwrap_or(0);
    let latest = events.get(begin..).unwrap_or_default();
    let reason = row.reason.as_ref();
    let refused = reason.and_then(|r| r.get("phase")).and_then(Value::as_str);
    // A report needs no labels, and there is nothing of it to commit.
    let data_set = row.intent_kind.as_deref().is_none_or(|kind| kind == "dataset_build");
    let passes = |phase: &&Phase| data_set || matches!(phase, Phase::Pins | Phase::Replay | Phase::Features);
    Ok(Phase::RUN.iter().filter(passes).map(|phase| gate(*phase, latest, row, refused, reason)).collect())
}

fn gate(phase: Phase, events: &[EventRow], row: &RunRow, refused: Option<&str>, reason: Option<&Value>) -> Value {
    let of_phase = |event: &&EventRow| event.detail.get("phase").and_then(Value::as_str) == Some(phase.as_str());
    let passed = events.iter().filter(|e| matches!(e.event_type.as_str(), "GATE_PASSED" | "GATE_REPROVED")).find(of_phase);
    let reproved = passed.is_some_and(|e| e.event_type == "GATE_REPROVED");
    let entered = events.iter().filter(|e| e.event_type == "PHASE_ENTERED").any(|e| of_phase(&e));
    let result = match passed {
        _ if refused == Some(phase.as_str()) && matches!(row.status, Status::Failed | Status::PublishPending | Status::Cancelled) => {
            "REFUSED"
        }
        Some(_) => "PASSED",
        None if entered && row.status == Status::Running => "RUNNING",
        None if row.status == Status::Done && phase == Phase::Publication => "PASSED",
        None => "NOT_REACHED",
    };
    let evidence = passed
        .and_then(|e| e.detail.pointer("/evidence/receipt_ref"))
        .cloned()
        .or_else(|| (result == "REFUSED").then(|| row.result.as_ref().and_then(|r| r.pointer("/evidence/refusal")).cloned()).flatten());
    json!({"phase": phase.as_str(), "result": result, "reason": if result == "REFUSED" { reason.cloned() } else { None }, "evidence": evidence, "reproved": reproved})
}
