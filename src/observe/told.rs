//! The report in lines.

use super::health::{Level, Reason};
use super::metrics::Metrics;
use super::report::{Report, RunReport};
use crate::answer::{Line, Tone};
use crate::ledger::{Delivery, Status};
use crate::text::grouped;

/// The signals that a report leaves, by name.
const SIGNALS: [&str; 4] = ["governance", "health", "metrics", "reconciliation"];

impl Report {
    /// Everything that is to be said of the workspace.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        if self.runs.is_empty() {
            lines.push(Line::new(Tone::Unknown, "nothing to report: the ledger holds no run of a platform run"));
        }
        lines.extend(self.runs.iter().flat_map(RunReport::lines));
        if self.unscoped > 0 {
            lines.push(Line::plain(format!("{} refused request(s) name no platform run and belong to none", self.unscoped)));
        }
        if let Some(flush) = &self.flush {
            let failed = flush.error.as_ref().map(|e| format!(", {} FAILED TO SEND: {e}", flush.failed));
            let tone = if failed.is_some() { Tone::Bad } else { Tone::Plain };
            let failed = failed.unwrap_or_default();
            lines.push(Line::new(tone, format!("facts       {} sent, {} skipped by policy{failed}", flush.sent, flush.skipped)));
        }
        lines
    }
}

impl RunReport {
    /// Everything that is to be said of the platform run: its health with the thresholds, its metrics, its facts,
    /// whether ledger and store agree, and what became of its signals.
    pub fn lines(&self) -> Vec<Line> {
        let tone = level(self.health.level);
        let mut lines = vec![Line::new(tone, format!("{:<6}  {}", self.health.level.as_str(), self.platform_run_id))];
        lines.extend(self.health.reasons.iter().map(|reason| rule(level(reason.level), reason)));
        lines.extend(self.health.quiet.iter().map(|reason| rule(Tone::Dim, reason)));
        builds(&self.metrics, &mut lines);
        evidence(&self.metrics, &mut lines);
        lines.push(facts(&self.metrics));
        self.agreement(&mut lines);
        self.emitted(&mut lines);
        lines
    }

    fn agreement(&self, lines: &mut Vec<Line>) {
        match &self.reconciliation {
            Ok(r) if r.ok() => {
                lines.push(Line::new(Tone::Good, format!("reconciled  ledger and store agree on {} run(s)", r.entries.len())));
            }
            Ok(r) => {
                lines.push(Line::new(Tone::Bad, format!("reconciled  {} DIFFERENCE(S) between ledger and store", r.differences.len())));
                let told = |d: &super::reconcile::Difference| Line::plain(format!("  {:<20} {}: {}", d.kind, d.at, d.message));
                lines.extend(r.differences.iter().take(12).map(told));
            }
            Err(error) => lines.push(Line::new(Tone::Unknown, format!("reconciled  NOT: {error}"))),
        }
    }

    /// What became of each signal when it was last emitted; one of a report that never was is UNKNOWN.
    fn emitted(&self, lines: &mut Vec<Line>) {
        let others = self.signals.iter().map(|signal| signal.signal.as_str()).filter(|name| !SIGNALS.contains(name));
        for name in SIGNALS.into_iter().chain(others) {
            lines.push(match self.signals.iter().find(|signal| signal.signal == name) {
                Some(signal) => {
                    let tone = if signal.delivery == Delivery::Failed { Tone::Bad } else { Tone::Plain };
                    let at = signal.at;
                    Line::new(tone, format!("signal      {name:<15} {:<18} {at}  {}", signal.delivery.as_str(), signal.note))
                }
                None => Line::new(Tone::Unknown, format!("signal      {name:<15} {:<18} not yet written; `ofs report` does", "UNKNOWN")),
            });
        }
    }
}

/// Governance facts by what became of them.
fn facts(metrics: &Metrics) -> Line {
    let told: Vec<String> = metrics.facts.iter().map(|(fate, n)| format!("{} {fate}", grouped(*n))).collect();
    let failed = metrics.facts.contains_key(Delivery::Failed.as_str());
    let text = if told.is_empty() { "none yet".to_owned() } else { told.join(", ") };
    Line::new(if failed { Tone::Bad } else { Tone::Plain }, format!("governance  {text}"))
}

fn level(level: Level) -> Tone {
    match level {
        Level::Green => Tone::Good,
        Level::Amber => Tone::Warn,
        Level::Red => Tone::Bad,
    }
}

fn rule(tone: Tone, reason: &Reason) -> Line {
    let runs: Vec<&str> = reason.runs.iter().map(|k| k.get(..8).unwrap_or(k)).collect();
    let runs = if runs.is_empty() { String::new() } else { format!(": {}", runs.join(" ")) };
    Line::new(tone, format!("  {:<24} {} found, speaks from {}{runs}", reason.code, reason.found, reason.threshold))
}

/// What was built, and how long it took.
fn builds(metrics: &Metrics, lines: &mut Vec<Line>) {
    for (kind, c) in &metrics.counters {
        let of = |status| c.of(status);
        lines.push(Line::plain(format!(
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
        )));
    }
    lines.push(Line::plain(format!("data sets   {} built", metrics.datasets_built)));
    for (kind, d) in &metrics.durations {
        let mean = d.sum_ms.checked_div(d.count).unwrap_or(0);
        lines.push(Line::plain(format!(
            "duration    {kind}: {} ended, {} ms on average, {} ms at most",
            d.count,
            grouped(mean),
            grouped(d.max_ms)
        )));
    }
}

/// What was replayed, which labels were resolved, and what went wrong.
fn evidence(metrics: &Metrics, lines: &mut Vec<Line>) {
    for ((topic, partition, _), p) in &metrics.partitions {
        let text = format!(
            "replay      {topic}/{partition}: {} events, {} offsets, {} by archive, {} by bus, {} missing, {} mismatched",
            grouped(p.events),
            grouped(p.span),
            grouped(p.archive),
            grouped(p.bus),
            p.missing,
            p.mismatched
        );
        lines.push(Line::new(if p.missing + p.mismatched > 0 { Tone::Warn } else { Tone::Plain }, text));
    }
    for (name, c) in &metrics.labels {
        let percent = c.ratio_millionths().map_or("-".to_owned(), |r| format!("{}.{:02}%", r / 10_000, r % 10_000 / 100));
        lines.push(Line::plain(format!(
            "labels      {name}: {percent} of {} rows, {} conflict(s), {} late (excluded)",
            grouped(c.targets),
            c.conflict,
            c.late
        )));
    }
    lines.extend(metrics.anomalies.iter().map(|(code, n)| Line::new(Tone::Warn, format!("anomaly     {code}: {n}"))));
}
