//! Observability and governance: the report on a workspace in which runs have ended in every way (phase 9),
//! and its reconciliation, which closes the golden path (O155).

use std::collections::BTreeMap;

use serde_json::Value;

use super::bench::Bench;
use super::{Checks, ensure, tree};
use crate::ledger::{Delivery, FactRow, RunFilter, Status};
use crate::observe::health::Level;
use crate::observe::{self, Report, RunReport};
use crate::operate::fault::Fault;
use crate::operate::mutate::Broken;
use crate::time::{Clock, FixedClock};

pub(super) fn walk(bench: &mut Bench, checks: &Checks<'_>, clock: &dyn Clock) {
    checks.hold(9, "one fact for each transition that matters, in the store once, however often it is sent", facts(bench, clock));
    checks.hold(9, "counters are those of the ledger", counters(bench, clock));
    checks.hold(9, "metrics have durations, replay by partition and label coverage", measured(bench, clock));
    checks.hold(9, "health speaks of what is wrong now, and recovers", health(bench, clock));
    checks.hold(9, "a sink that fails is recorded, changes no data set, and gets every fact later", broken_sink(bench, clock));
    checks.hold(9, "a signal that a policy keeps back is recorded as skipped", skipped(bench, clock));
    checks.hold(10, "ledger and store are reconciled, and every ref on the way resolves", reconciled(bench, clock));
}

fn report(bench: &Bench, clock: &dyn Clock) -> Result<Report, Broken> {
    let (env, host) = bench.open(&Fault::default())?;
    Ok(observe::report(&env, &host.ledger, clock)?)
}

/// The report on the bench's own platform run.
fn mine<'r>(bench: &Bench, report: &'r Report) -> Result<&'r RunReport, Broken> {
    let found = report.runs.iter().find(|r| r.platform_run_id == bench.platform_run());
    found.ok_or_else(|| Broken("the report leaves the platform run out".into()))
}

fn stored(bench: &Bench) -> Result<BTreeMap<String, Vec<u8>>, Broken> {
    tree(&bench.path("{ofs}/governance/facts"))
}

fn told(bench: &Bench) -> Result<Vec<FactRow>, Broken> {
    Ok(bench.open(&Fault::default())?.1.ledger.facts()?)
}

fn facts(bench: &Bench, clock: &dyn Clock) -> Result<(), Broken> {
    report(bench, clock)?;
    let (first, told) = (stored(bench)?, told(bench)?);
    let sent: Vec<&FactRow> = told.iter().filter(|f| f.delivery == Some(Delivery::Sent)).collect();
    ensure(told.iter().all(|f| f.delivery.is_some()), || "a fact still waits".into())?;
    ensure(sent.len() == first.len() && !sent.is_empty(), || format!("{} facts were sent, {} lie there", sent.len(), first.len()))?;
    let (_, host) = bench.open(&Fault::default())?;
    for fact in sent {
        let event = host.ledger.events(&fact.run_key, fact.seq.saturating_sub(1))?.into_iter().next();
        let hash = fact.body.pointer("/event/hash").and_then(Value::as_str);
        ensure(event.is_some_and(|e| Some(e.hash.as_str()) == hash), || format!("{} tells of no event of the chain", fact.id))?;
        let keyed = ["platform_run_id", "request_id", "run_key", "basis_hash", "policy_revision"]
            .iter()
            .all(|key| fact.body.pointer(&format!("/keys/{key}")).is_some_and(Value::is_string));
        ensure(keyed, || format!("{} lacks a key: {}", fact.id, fact.body))?;
    }
    for status in [Status::Done, Status::Failed, Status::Cancelled, Status::PublishPending] {
        let some = told.iter().any(|f| f.body.get("status").is_some_and(|s| s == status.as_str()));
        ensure(some, || format!("no fact tells of a run that is {status}"))?;
    }
    let again = report(bench, clock)?;
    ensure(again.flush.is_some_and(|f| f.sent == 0), || "a second report sent facts again".into())?;
    ensure(stored(bench)? == first, || "a second report changed what was told".into())
}

fn counters(bench: &Bench, clock: &dyn Clock) -> Result<(), Broken> {
    let report = report(bench, clock)?;
    let (_, host) = bench.open(&Fault::default())?;
    for status in Status::ALL {
        let rows = host.ledger.runs(&RunFilter { status: Some(status), ..RunFilter::default() })?;
        let counted: u64 = mine(bench, &report)?.metrics.counters.values().map(|c| c.of(status)).sum();
        ensure(counted == rows.len() as u64, || format!("{counted} runs are counted as {status}, the ledger has {}", rows.len()))?;
    }
    Ok(())
}

fn measured(bench: &Bench, clock: &dyn Clock) -> Result<(), Broken> {
    let report = report(bench, clock)?;
    let metrics = &mine(bench, &report)?.metrics;
    let whole = !metrics.partitions.is_empty() && metrics.partitions.values().all(|p| p.events > 0 && p.archive + p.bus == p.span);
    ensure(whole, || format!("replay: {:?}", metrics.partitions))?;
    ensure(metrics.labels.values().any(|c| c.targets > 0 && c.resolved > 0), || format!("labels: {:?}", metrics.labels))?;
    ensure(metrics.durations.values().any(|d| d.count > 0), || "no durations".into())?;
    ensure(metrics.datasets_built > 0 && metrics.anomalies.contains_key("REF_ACCESS_DENIED"), || format!("{:?}", metrics.anomalies))
}

fn health(bench: &Bench, clock: &dyn Clock) -> Result<(), Broken> {
    let (env, host) = bench.open(&Fault::default())?;
    let level_at = |at: &dyn Clock| -> Result<(Level, Vec<&'static str>), Broken> {
        let report = observe::look(&env, &host.ledger, at)?;
        let health = &mine(bench, &report)?.health;
        Ok((health.level, health.reasons.iter().map(|r| r.code).collect()))
    };
    let (level, codes) = level_at(clock)?;
    ensure(level == Level::Red && codes.contains(&"FAILED_TOTAL_RED"), || format!("with a failed run: {level:?} {codes:?}"))?;
    let later = clock.now().plus_micros(i64::try_from(env.config.int("observe", "window_hours")).unwrap_or(24) * 3_600_000_000 + 1);
    let (_, codes) = level_at(&FixedClock::new(later))?;
    ensure(!codes.contains(&"FAILED_TOTAL_RED"), || format!("the failure still speaks after the window: {codes:?}"))
}

fn broken_sink(bench: &Bench, clock: &dyn Clock) -> Result<(), Broken> {
    bench.variant("sink")?;
    let fault = Fault { deny_create: Some("/governance/".into()), ..Fault::default() };
    bench.expect("sink", &fault, "DONE", 0)?;
    let before = (bench.published()?, stored(bench)?);
    let (env, host) = bench.open(&fault)?;
    let report_now = observe::report(&env, &host.ledger, clock)?;
    let signals = &mine(bench, &report_now)?.signals;
    let recorded = signals.iter().any(|s| s.signal == "governance" && s.delivery == Delivery::Failed && s.failures > 0);
    ensure(recorded, || format!("the failure is not on record: {signals:?}"))?;
    ensure((bench.published()?, stored(bench)?) == before, || "the failing sink changed the store".into())?;
    report(bench, clock)?;
    let waiting = told(bench)?.into_iter().filter(|f| f.delivery.is_none()).count();
    ensure(waiting == 0 && stored(bench)?.len() > before.1.len(), || format!("{waiting} facts still wait"))
}

fn skipped(bench: &mut Bench, clock: &dyn Clock) -> Result<(), Broken> {
    bench.set("observe", "metrics", "false");
    let skipped = report(bench, clock);
    bench.set("observe", "metrics", "true");
    let skipped = skipped?;
    let signals = &mine(bench, &skipped)?.signals;
    let recorded = signals.iter().any(|s| s.signal == "metrics" && s.delivery == Delivery::Skipped);
    ensure(recorded, || format!("it is not on record: {signals:?}"))
}

fn reconciled(bench: &Bench, clock: &dyn Clock) -> Result<(), Broken> {
    let report = report(bench, clock)?;
    let reconciliation = mine(bench, &report)?.reconciliation.as_ref().map_err(|e| Broken(e.clone()))?;
    let lines: Vec<String> = reconciliation.differences.iter().map(|d| format!("{} {}", d.kind, d.at)).collect();
    ensure(lines.is_empty(), || lines.join("; "))?;
    let done = reconciliation.entries.iter().filter(|e| e.status == Status::Done && e.refs.contains_key("publication"));
    ensure(done.count() > 0, || "no published run is reconciled".into())?;
    for folder in ["metrics/last_metrics", "health/last_health", "reconciliation/last_reconciliation"] {
        let document = bench.document(&format!("{}/ofs/{folder}.json", bench.platform_run()))?;
        let of = document.get("platform_run_id").and_then(Value::as_str);
        ensure(of == Some(bench.platform_run()), || format!("{folder} is of {of:?}"))?;
    }
    Ok(())
}
