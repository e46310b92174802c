//! `ofs show K`: one run, the reason first.

use serde_json::{Value, json};

use super::runs::{corrections, next, row_json, stuck, workers};
use super::{Context, Outcome, document, say};
use crate::ledger::{LedgerError, RefRow};
use crate::observe::gates;
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
    let gates: Vec<Value> = gates::gates(&ledger.events(&row.run_key, 0)?, &row).iter().map(gates::Gate::to_json).collect();
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
        say(correction.line().text);
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
