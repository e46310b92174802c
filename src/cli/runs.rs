//! `ofs runs`: the ledger's runs, newest first.

use serde_json::{Value, json};

use super::{Context, Failure, Outcome, document, say};
use crate::ledger::{RunFilter, RunRow, Status};
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

/// Why a run is stuck, if it is.
pub(super) fn stuck(context: &Context, row: &RunRow) -> Option<&'static str> {
    let launcher = context.config.launcher();
    let micros = |seconds: u64| i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    row.stuck_reason(
        context.clock.now(),
        micros(launcher.stall_seconds),
        micros(launcher.max_pause_seconds),
        true,
        launcher.max_publish_retry_attempts,
    )
}

/// A run as in `ofs.runs.v1`.
pub(super) fn row_json(context: &Context, row: &RunRow) -> Value {
    let stuck = stuck(context, row);
    json!({
        "run_key": row.run_key, "request_id": row.request_id, "intent_kind": row.intent_kind, "status": row.status, "stuck": stuck.is_some(), "stuck_reason": stuck,
        "reason_code": row.reason_code, "phase": row.phase, "attempts": row.attempt(), "owner": row.owner.as_ref().map(ToString::to_string),
        "lease_expires_utc": row.lease_expires, "updated_at_utc": row.updated, "manifest_id": row.manifest_id, "end_class": row.end_class,
    })
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let status = match args.status.as_deref().map(str::to_ascii_uppercase) {
        None => None,
        Some(name) => Some(Status::parse(&name).ok_or_else(|| {
            let known: Vec<&str> = Status::ALL.iter().map(|s| s.as_str()).collect();
            Failure::usage(format!("unknown status {name}")).hint(format!("one of {}", known.join(", ")))
        })?),
    };
    let rows = match context.reader()? {
        None => Vec::new(),
        Some(ledger) => ledger.runs(&RunFilter { status, ..RunFilter::default() })?,
    };
    let rows: Vec<RunRow> = rows.into_iter().filter(|r| !args.stuck || stuck(context, r).is_some()).collect();
    if context.json {
        document(&json!({"schema_version": "ofs.runs.v1", "runs": rows.iter().map(|r| row_json(context, r)).collect::<Vec<_>>()}));
        return Ok(0);
    }
    if rows.is_empty() {
        say(if args.stuck { "no run is stuck" } else { "no runs yet; `ofs run INTENT` makes one" });
    }
    for row in &rows {
        let age = span(context.clock.now().0.saturating_sub(row.updated.0));
        let what = stuck(context, row)
            .map(|s| format!("STUCK {s}"))
            .or_else(|| row.reason_code.clone())
            .or_else(|| row.manifest_id.clone())
            .unwrap_or_default();
        say(format!(
            "{:<8}  {:<15}  {:<11}  {:>8} ago  {:<38}  {}",
            clip(&row.run_key, 8).trim_end_matches('…'),
            row.status,
            row.phase.as_deref().unwrap_or("-"),
            age,
            safe(row.request_id.as_deref().unwrap_or("-")),
            safe(&what)
        ));
        if args.stuck {
            let next = row.actions().first().copied().unwrap_or("show");
            say(format!("          next: ofs {next} {}", row.run_key));
        }
    }
    Ok(0)
}
