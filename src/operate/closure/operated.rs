//! Running and operating: the queue with its worker, a publication that is retried, a run that is called
//! off, an owner that died and one that is busy, and a ref that is denied (phase 8). What it leaves is the
//! world that the observers then report on.

use std::path::Path;

use serde_json::{Value, json};

use super::bench::Bench;
use super::{Checks, ensure, observed};
use crate::contract::ReasonCode;
use crate::ledger::{Order, Ordered, Status};
use crate::operate::fault::Fault;
use crate::operate::mutate::Broken;
use crate::operate::request::{RECEIPTS, REQUESTS};
use crate::operate::submit;
use crate::operate::worker::Worker;
use crate::pipeline::run::{self, Unattended};
use crate::time::Clock;

/// Dies right before the manifest is put.
fn dies() -> Fault {
    Fault { die_before: Some("/manifests/".into()), ..Fault::default() }
}

pub(super) fn walk(scratch: &Path, checks: &Checks<'_>, clock: &dyn Clock) {
    let mut bench = match Bench::new(&scratch.join("operated")) {
        Ok(bench) => bench,
        Err(broken) => return [8, 9].into_iter().for_each(|phase| checks.hold(phase, "a workspace to operate", Err(broken.clone()))),
    };
    checks.hold(8, "a worker serves the queue, and a malformed request costs a receipt and not the queue", queue(&bench));
    checks.hold(8, "a publication that the store refused is retried from the run's own draft", retried(&bench));
    checks.hold(8, "a run that is called off leaves no manifest", cancelled(&bench));
    checks.hold(8, "a run whose owner died is taken over and ends as if nothing had been", taken_over(&bench));
    checks.hold(8, "a live owner of another host is not disturbed", busy(&bench));
    checks.hold(8, "a ref that the actor may not read is denied, and that is on record", denied(&mut bench));
    observed::walk(&mut bench, checks, clock);
}

fn queue(bench: &Bench) -> Result<(), Broken> {
    let (env, host) = bench.open(&Fault::default())?;
    let queued = submit::submit(&bench.request("train")?, &env, &host)?;
    ensure(queued.is_ok(), || format!("the request was not queued: {queued:?}"))?;
    let queue = bench.path(&format!("{{ofs}}/{REQUESTS}"));
    // Before the good one by its name, so that it would be in the way.
    std::fs::write(queue.join("a-malformed-request.json"), "{}")?;
    let mut worker = Worker::start(&env, &host, &Unattended)?;
    let done: Vec<(String, &str)> = worker.pass()?.into_iter().map(|p| (p.request_id, p.status)).collect();
    let row = bench.row(&host, "train")?;
    let id = row.request_id.clone().unwrap_or_default();
    let wanted = [("a-malformed-request".to_owned(), "FAILED"), (id.clone(), "DONE")];
    ensure(done == wanted, || format!("the worker came to {done:?}"))?;
    ensure(worker.pass()?.is_empty(), || "a second look found something to do".into())?;
    for name in ["a-malformed-request", &id] {
        let receipts = bench.path(&format!("{{ofs}}/{RECEIPTS}/{name}"));
        let count = receipts.read_dir().map(Iterator::count).unwrap_or(0);
        ensure(count == 1, || format!("{name} has {count} receipts"))?;
    }
    ensure(row.status == Status::Done, || format!("the run is {}", row.status))
}

fn retried(bench: &Bench) -> Result<(), Broken> {
    bench.variant("retried")?;
    let full = Fault { deny_create: Some("/manifests/".into()), ..Fault::default() };
    bench.expect("retried", &full, "PUBLISH_PENDING", 4)?;
    let (env, host) = bench.open(&Fault::default())?;
    let result = run::retry(&bench.row(&host, "retried")?, &env, &host, &Unattended)?;
    ensure(result.text("/status") == "DONE", || format!("the retry came to {}", result.document))?;
    let row = bench.row(&host, "retried")?;
    ensure((row.full_run_attempts, row.publish_retry_attempts) == (1, 1), || "the retry was counted as a full run".into())
}

fn cancelled(bench: &Bench) -> Result<(), Broken> {
    bench.variant("cancelled")?;
    let before = bench.published()?;
    let (env, host) = bench.open(&Fault::default())?;
    let queued = submit::submit(&bench.request("cancelled")?, &env, &host)?;
    let key = queued.map(|q| q.run_key).map_err(|r| Broken(r.document.to_string()))?;
    let ordered = host.ledger.order(Order::Cancel, &key, "nobody wants it any more")?;
    ensure(matches!(ordered, Ordered::Ended { to: Status::Cancelled, .. }), || format!("the order came to {ordered:?}"))?;
    let again = bench.run("cancelled", &Fault::default())?;
    let status = again.as_ref().map(|r| r.text("/status").to_owned());
    ensure(status.as_deref() == Some("CANCELLED"), || format!("a cancelled request came to {status:?}"))?;
    let audited = host.ledger.audit_rows(Some(&key))?.iter().any(|a| a.action == "cancel");
    ensure(audited, || "the order is not in the audit".into())?;
    ensure(bench.published()? == before, || "something was published".into())
}

fn taken_over(bench: &Bench) -> Result<(), Broken> {
    bench.variant("taken-over")?;
    ensure(bench.run("taken-over", &dies())?.is_none(), || "the owner did not die".into())?;
    let (env, host) = bench.open(&Fault::default())?;
    let row = bench.row(&host, "taken-over")?;
    ensure(row.status == Status::Running && row.actions().contains(&"resume"), || format!("{} allows {:?}", row.status, row.actions()))?;
    let result = run::resume(&row, &env, &host, &Unattended)?;
    ensure(result.text("/status") == "DONE", || format!("it came to {}", result.document))?;
    let chain = host.ledger.verify_chain(&row.run_key)?;
    ensure(chain.is_empty(), || chain.join("; "))
}

fn busy(bench: &Bench) -> Result<(), Broken> {
    bench.variant("busy")?;
    ensure(bench.run("busy", &Fault { elsewhere: true, ..dies() })?.is_none(), || "the owner did not die".into())?;
    let result = bench.expect("busy", &Fault::default(), "RUNNING", 5)?;
    ensure(result.code() == Some(ReasonCode::RunBusy), || format!("it came to {}", result.document))
}

fn denied(bench: &mut Bench) -> Result<(), Broken> {
    bench.variant("denied")?;
    bench.set("access", "actor", "SOMEBODY::else");
    let result = bench.expect("denied", &Fault::default(), "FAILED", 3);
    bench.set("access", "actor", "SYSTEM::ofs_worker");
    let result = result?;
    ensure(result.code() == Some(ReasonCode::RefAccessDenied), || format!("it came to {}", result.document))?;
    let (_, host) = bench.open(&Fault::default())?;
    let row = bench.row(&host, "denied")?;
    let told = host.ledger.events(&row.run_key, 0)?.iter().any(|e| e.reason_code.as_deref() == Some("REF_ACCESS_DENIED"));
    ensure(told && row.reason.as_ref().is_some_and(|r| r.get("code") == Some(&json!("REF_ACCESS_DENIED"))), || {
        format!("the record says {}", row.reason.unwrap_or(Value::Null))
    })
}
