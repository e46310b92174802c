//! `ofs events K [--follow]`: the story of a run, one line an event.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Context, Outcome, document, say};
use crate::ledger::{EventRow, LedgerError, Status};
use crate::text::{clip, safe, safe_json};

/// Arguments of `ofs events`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Run key, a unique beginning of it, or the request id.
    run: String,
    /// Go on printing events as they come, until the run has ended.
    #[arg(long)]
    follow: bool,
}

fn event_json(event: &EventRow) -> Value {
    json!({"seq": event.seq, "event_type": event.event_type, "status": event.status, "at_utc": event.at, "actor": event.actor, "reason_code": event.reason_code, "detail": event.detail, "hash": event.hash})
}

/// A line of its own, `ofs.event.v1`: the event, and whose it is.
fn followed_json(run_key: &str, event: &EventRow) -> Value {
    let mut line = event_json(event);
    if let Some(map) = line.as_object_mut() {
        map.insert("schema_version".into(), json!("ofs.event.v1"));
        map.insert("run_key".into(), json!(run_key));
    }
    line
}

fn line(event: &EventRow) -> String {
    let reason = event.reason_code.as_deref().map(|r| format!("  {r}")).unwrap_or_default();
    let detail = event
        .detail
        .as_object()
        .filter(|d| !d.is_empty())
        .map(|_| format!("  {}", clip(&event.detail.to_string(), 160)))
        .unwrap_or_default();
    format!("{:>4}  {}  {:<18} {:<15}  {}{reason}{detail}", event.seq, event.at, event.event_type, event.status, safe(&event.actor))
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let ledger = context.reader()?.ok_or_else(|| LedgerError::NotFound(args.run.clone()))?;
    let row = context.find_run(&ledger, &args.run)?;
    if !args.follow {
        let events = ledger.events(&row.run_key, 0)?;
        if context.json {
            document(
                &json!({"schema_version": "ofs.events.v1", "run_key": row.run_key, "events": events.iter().map(event_json).collect::<Vec<_>>()}),
            );
        } else {
            events.iter().for_each(|e| say(line(e)));
        }
        return Ok(0);
    }
    let mut seen = 0;
    loop {
        let ended = ledger.run(&row.run_key)?.is_none_or(|r| !matches!(r.status, Status::Queued | Status::Running));
        for event in ledger.events(&row.run_key, seen)? {
            seen = event.seq;
            let text = if context.json {
                safe_json(&followed_json(&row.run_key, &event).to_string()).into_owned()
            } else {
                safe(&line(&event)).into_owned()
            };
            // Whoever followed through a pipe and went away has seen enough.
            if writeln!(std::io::stdout().lock(), "{text}").is_err() {
                return Ok(0);
            }
        }
        if ended {
            return Ok(0);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}
