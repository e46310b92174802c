//! `ofs runs`: the ledger's runs, newest first.

use serde_json::{Value, json};

use super::{Context, Failure, Outcome, document, say};
use crate::ledger::{Ledger, LedgerError, OperatorRequest, RunFilter, RunRow, Status};
use crate::prove::supersession::{Correction, superseded_by, supersedes};
use crate::text::{clip, safe};
use crate::time::span;

/// Arguments of `ofs runs`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only runs in this status.
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only stuck runs, with the reason and the next command.
    #[arg(long)]
    stuck: bool,
}

fn micros(seconds: u64) -> i64 {
    i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
}

/// Workers that gave a sign of life within a lease's time.
pub(super) fn workers(context: &Context, ledger: &Ledger) -> Result<usize, LedgerError> {
    ledger.workers_alive(micros(context.config.launcher().lease_seconds))
}

/// Why a run is stuck, if it is.
pub(super) fn stuck(context: &Context, row: &RunRow, workers: usize) -> Option<&'static str> {
    let launcher = context.config.launcher();
    row.stuck_reason(
        context.clock.now(),
        micros(launcher.stall_seconds),
        micros(launcher.max_pause_seconds),
        workers > 0,
        launcher.max_publish_retry_attempts,
    )
}

/// Published data sets that correct the one that a run resolved to. The ledger's rows are shown even where
/// the store cannot be asked, and then say nothing of it.
pub(super) fn corrections(context: &Context, ledger: &Ledger, row: &RunRow) -> Vec<Correction> {
    let (Some(run), Some(id)) = (&row.platform_run_id, row.manifest_id.as_ref().filter(|_| row.manifest_ref.is_some())) else {
        return Vec::new();
    };
    let env = context.env().ok();
    env.and_then(|env| superseded_by(&env, Some(ledger), run, id).ok()).unwrap_or_default()
}

/// A run as in `ofs.runs.v1`.
pub(super) fn row_json(context: &Context, row: &RunRow, workers: usize, corrections: &[Correction]) -> Value {
    let stuck = stuck(context, row, workers);
    json!({
        "run_key": row.run_key, "request_id": row.request_id, "intent_kind": row.intent_kind, "status": row.status, "stuck": stuck.is_some(), "stuck_reason": stuck,
        "reason_code": row.reason_code, "phase": row.phase, "attempts": row.attempt(), "owner": row.owner.as_ref().map(ToString::to_string),
        "lease_expires_utc": row.lease_expires, "updated_at_utc": row.updated, "manifest_id": row.manifest_id, "end_class": row.end_class,
        "next": stuck.map(|stuck| next(row, stuck)), "retries_granted": row.retries_granted,
        "operator_request": row.operator_request.as_ref().map(OperatorRequest::to_json),
        "supersedes": supersedes(row), "superseded_by": corrections.iter().map(Correction::to_json).collect::<Vec<_>>(),
    })
}

/// The command that moves a stuck run on.
pub(super) fn next(row: &RunRow, stuck: &str) -> String {
    let actions = row.actions();
    match stuck {
        "RETRY_EXHAUSTED" => format!("ofs retry {} --grant 1 --reason TEXT", row.run_key),
        _ if actions.contains(&"resume") => format!("ofs resume {}", row.run_key),
        // Its owner lives and holds the lease, so waiting or calling it off is all there is.
        _ if actions.contains(&"cancel") => format!("ofs cancel {} --reason TEXT", row.run_key),
        _ => format!("ofs events {} --follow", row.run_key),
    }
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let status = match args.status.as_deref().map(str::to_ascii_uppercase) {
        None => None,
        Some(name) => Some(Status::parse(&name).ok_or_else(|| {
            let known: Vec<&str> = Status::ALL.iter().map(|s| s.as_str()).collect();
            Failure::usage(format!("unknown status {name}")).hint(format!("one of {}", known.join(", ")))
        })?),
    };
    let ledger = context.reader()?;
    let (rows, workers) = match &ledger {
        None => (Vec::new(), 0),
        Some(ledger) => (ledger.runs(&RunFilter { status, ..RunFilter::default() })?, workers(context, ledger)?),
    };
    let rows: Vec<RunRow> = rows.into_iter().filter(|r| !args.stuck || stuck(context, r, workers).is_some()).collect();
    let corrections = |row: &RunRow| ledger.as_ref().map(|ledger| corrections(context, ledger, row)).unwrap_or_default();
    if context.json {
        let runs: Vec<Value> = rows.iter().map(|r| row_json(context, r, workers, &corrections(r))).collect();
        document(&json!({"schema_version": "ofs.runs.v1", "workers_alive": workers, "runs": runs}));
        return Ok(0);
    }
    if rows.is_empty() {
        say(if args.stuck { "no run is stuck" } else { "no runs yet; `ofs run INTENT` makes one" });
    }
    if args.stuck && !rows.is_empty() {
        say(format!("{workers} worker(s) alive"));
    }
    for row in &rows {
        let age = span(context.clock.now().0.saturating_sub(row.updated.0));
        let stuck = stuck(context, row, workers);
        let what =
            stuck.map(|s| format!("STUCK {s}")).or_else(|| row.reason_code.clone()).or_else(|| row.manifest_id.clone()).unwrap_or_default();
        say(format!(
            "{:<8}  {:<15}  {:<11}  {:>8} ago  {:<38}  {}",
            clip(&row.run_key, 8).trim_end_matches('…'),
            row.status,
            row.phase.as_deref().unwrap_or("-"),
            age,
            safe(row.request_id.as_deref().unwrap_or("-")),
            safe(&what)
        ));
        for correction in corrections(row) {
            say(format!("          {}", correction.line().text));
        }
        if let Some(stuck) = stuck.filter(|_| args.stuck) {
            say(format!("          next: {}", next(row, stuck)));
        }
    }
    Ok(0)
}
