//! `ofs show K`: one run, the reason first.

use serde_json::{Value, json};

use super::runs::{next, row_json, stuck, workers};
use super::{Context, Outcome, document, say};
use crate::ledger::LedgerError;
use crate::observe::gates;
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
    if context.json {
        document(
            &json!({"schema_version": "ofs.run.v1", "run": row_json(context, &row, workers), "intent": row.intent, "gates": gates, "actions": row.actions()}),
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
    for gate in &gates {
        let text = |key: &str| gate.get(key).and_then(Value::as_str).unwrap_or("-");
        say(format!("  {:<12} {:<12} {}", text("phase"), text("result"), text("evidence")));
    }
    say(format!("actions  {}", row.actions().join(", ")));
    Ok(0)
}
