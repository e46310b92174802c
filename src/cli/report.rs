//! `ofs report`: facts sent, metrics, health and reconciliation, kept in the store.

use super::{Context, Outcome, document, say};
use crate::ledger::Status;
use crate::observe::{self, RunReport};
use crate::text::{grouped, safe};

/// Arguments of `ofs report`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only look: send no fact and write nothing.
    #[arg(long)]
    look: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let env = context.env()?;
    let clock = context.clock.as_ref();
    let report = match context.reader()? {
        Some(reader) if args.look => observe::look(&env, &reader, clock)?,
        Some(_) => {
            let _log = context.log();
            observe::report(&env, &context.ledger()?, clock)?
        }
        // No run was ever recorded, so there is nothing to send and nobody to send it for.
        None => observe::Report { at: clock.now(), flush: None, runs: Vec::new(), unscoped: 0 },
    };
    if context.json {
        document(&report.to_json());
        return Ok(0);
    }
    if report.runs.is_empty() {
        say("nothing to report: the ledger holds no run of a platform run");
    }
    report.runs.iter().for_each(print);
    if report.unscoped > 0 {
        say(format!("{} refused request(s) name no platform run and belong to none", report.unscoped));
    }
    if let Some(flush) = &report.flush {
        let failed = flush.error.as_ref().map(|e| format!(", {} FAILED TO SEND: {}", flush.failed, safe(e))).unwrap_or_default();
        say(format!("facts       {} sent, {} skipped by policy{failed}", flush.sent, flush.skipped));
    }
    Ok(0)
}

fn print(run: &RunReport) {
    say(format!("{:<6}  {}", run.health.level.as_str(), safe(&run.platform_run_id)));
    for reason in &run.health.reasons {
        let runs: Vec<&str> = reason.runs.iter().map(|k| k.get(..8).unwrap_or(k)).collect();
        say(format!("  {:<24} {} found, speaks from {}: {}", reason.code, reason.found, reason.threshold, runs.join(" ")));
    }
    let metrics = &run.metrics;
    for (kind, c) in &metrics.counters {
        let of = |status| c.of(status);
        say(format!(
            "builds      {kind}: {} requested, {} completed, {} failed, {} pending, {} cancelled, {} rejected, {} running, {} queued, {} stuck",
            c.requested,
            of(Status::Done),
            of(Status::Failed),
            of(Status::PublishPending),
            of(Status::Cancelled),
            of(Status::Rejected),
            of(Status::Running),
            of(Status::Queued),
            c.stuck
        ));
    }
    say(format!("data sets   {} built", metrics.datasets_built));
    for (kind, d) in &metrics.durations {
        let mean = d.sum_ms.checked_div(d.count).unwrap_or(0);
        say(format!("duration    {kind}: {} ended, {} ms on average, {} ms at most", d.count, grouped(mean), grouped(d.max_ms)));
    }
    for ((topic, partition, _), p) in &metrics.partitions {
        say(format!(
            "replay      {}/{partition}: {} events, {} offsets, {} by archive, {} by bus, {} missing, {} mismatched",
            safe(topic),
            grouped(p.events),
            grouped(p.span),
            grouped(p.archive),
            grouped(p.bus),
            p.missing,
            p.mismatched
        ));
    }
    for (name, c) in &metrics.labels {
        let percent = c.ratio_millionths().map_or("-".to_owned(), |r| format!("{}.{:02}%", r / 10_000, r % 10_000 / 100));
        say(format!(
            "labels      {}: {percent} of {} rows, {} conflict(s), {} late (excluded)",
            safe(name),
            grouped(c.targets),
            c.conflict,
            c.late
        ));
    }
    for (code, n) in &metrics.anomalies {
        say(format!("anomaly     {code}: {n}"));
    }
    match &run.reconciliation {
        Ok(r) if r.ok() => say(format!("reconciled  ledger and store agree on {} run(s)", r.entries.len())),
        Ok(r) => {
            say(format!("reconciled  {} DIFFERENCE(S) between ledger and store", r.differences.len()));
            r.differences.iter().take(12).for_each(|d| say(format!("  {:<20} {}: {}", d.kind, safe(&d.at), d.message)));
        }
        Err(error) => say(format!("reconciled  NOT: {}", safe(error))),
    }
    for signal in &run.signals {
        say(format!("signal      {:<15} {:<18} {}", signal.signal, signal.delivery.as_str(), safe(&signal.note)));
    }
}
