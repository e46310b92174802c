//! The actions of a scenario that concern the queue, and owners that race.

use std::path::Path;
use std::sync::{Arc, Barrier};

use serde_json::Value;

use super::Observed;
use super::act::{NotRun, open_up};
use crate::identity;
use crate::ledger::Status;
use crate::operate::fault::Fault;
use crate::operate::mutate::Scratchpad;
use crate::operate::request::RECEIPTS;
use crate::operate::submit::{self, Queued};
use crate::operate::worker::Worker;
use crate::pipeline::gate::Env;
use crate::pipeline::run::{self, Host, Request, RunResult, Unattended};
use crate::store::{Ref, read};
use crate::time::{Clock, SystemClock};

/// Largest receipt in bytes.
const RECEIPT_BYTES: u64 = 1 << 20;

fn queued(answer: Result<Queued, Box<RunResult>>) -> Observed {
    match answer {
        Ok(queued) => Observed { status: queued.status.to_string(), run_key: Some(queued.run_key), ..Observed::default() },
        Err(refused) => Observed::of(&refused),
    }
}

/// `ofs submit`.
pub(super) fn submit(request: &Request, env: &Env, host: &Host) -> Result<Observed, NotRun> {
    Ok(queued(submit::submit(request, env, host)?))
}

/// `ofs submit --publish-retry`.
pub(super) fn submit_retry(request_id: &str, env: &Env, host: &Host) -> Result<Observed, NotRun> {
    let row = super::act::row(request_id, host)?;
    Ok(queued(submit::submit_retry(&row, env, host)?))
}

/// `ofs worker --once`; what is observed is the latest receipt of one request, or where its run stands.
pub(super) fn work(run: &str, request_id: &str, env: &Env, host: &Host) -> Result<Observed, NotRun> {
    Worker::start(env, host, &Unattended)?.pass()?;
    let mut observed = Observed::default();
    let folder = Ref::of(&[run, "ofs", RECEIPTS, request_id]);
    let number = |at: &Ref| at.as_str().rsplit('/').next()?.strip_suffix(".json")?.parse::<u32>().ok();
    let receipts = env.store.list(&folder).unwrap_or_default();
    let latest = receipts.into_iter().filter_map(|(at, _)| Some((number(&at)?, at))).max();
    if let Some(bytes) = latest.and_then(|(_, at)| read(env.store.as_ref(), &at, RECEIPT_BYTES).ok()) {
        let receipt: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = |pointer: &str| receipt.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let evidence = receipt.pointer("/details/evidence").and_then(Value::as_array).into_iter().flatten();
        observed = Observed {
            status: text("/status").unwrap_or_default(),
            outcome: text("/details/submission_outcome"),
            code: text("/error/code"),
            message: text("/error/message"),
            evidence: evidence.filter_map(|line| line.as_str().map(str::to_owned)).collect(),
            run_key: text("/run_key"),
            manifest_ref: text("/refs/manifest_ref"),
            ..observed
        };
    }
    let key = observed.run_key.clone().unwrap_or_else(|| identity::run_key(request_id));
    if let Some(row) = host.ledger.run(&key)? {
        if observed.status.is_empty() {
            observed.status = row.status.to_string();
        }
        observed.rows = row.result.as_ref().and_then(|r| r.pointer("/dataset/rows")).and_then(Value::as_u64);
        (observed.run_key, observed.manifest_id) = (Some(row.run_key), row.manifest_id);
    }
    Ok(observed)
}

/// Several owners with one intent at once, each with a ledger and a store of its own. All is well where one of
/// them publishes and every other is answered, or told that somebody is at it.
pub(super) fn race(pad: &Scratchpad, intent: &Path, owners: usize) -> Result<Observed, NotRun> {
    let text = std::fs::read(intent).unwrap_or_default();
    let (start, one) = (Barrier::new(owners), Request { intent: text, supersession: Default::default() });
    let all: Vec<Result<Observed, NotRun>> = std::thread::scope(|scope| {
        let race = || -> Result<Observed, NotRun> {
            let opened = open_up(pad, &Fault::default(), &(Arc::new(SystemClock) as Arc<dyn Clock>));
            start.wait();
            let (env, host) = opened?;
            Ok(Observed::of(&run::run(&one, &env, &host, &Unattended)?))
        };
        let threads: Vec<_> = (0..owners).map(|_| scope.spawn(race)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let ended = all.into_iter().map(|end| end.unwrap_or_else(NotRun::observed)).collect::<Vec<_>>();
    let lawful = |end: &Observed| {
        let told = (end.status.as_str(), end.outcome.as_deref(), end.code.as_deref());
        matches!(told, ("DONE", Some("NEW" | "DUPLICATE"), None) | ("RUNNING", None, Some("RUN_BUSY")))
    };
    let told = ended.iter().map(|e| format!("{} {} {}", e.status, e.outcome.as_deref().unwrap_or("-"), e.code.as_deref().unwrap_or("-")));
    let evidence: Vec<String> = told.collect();
    let new = |end: &&Observed| end.outcome.as_deref() == Some("NEW");
    let sound = ended.len() == owners && ended.iter().all(lawful) && ended.iter().filter(new).count() == 1;
    match ended.iter().find(new).filter(|_| sound) {
        Some(winner) => Ok(Observed { evidence, ..winner.clone() }),
        None => Ok(Observed { status: "CONTRADICTED".into(), exit: 3, evidence, ..Observed::default() }),
    }
}

/// `ofs cancel` and `ofs fail` on a run that nobody works on.
pub(super) fn end(order: crate::ledger::Order, request_id: &str, host: &Host) -> Result<Observed, NotRun> {
    let row = super::act::row(request_id, host)?;
    let ended = host.ledger.carry_out(order, &row.run_key, "a step of this scenario", std::time::Duration::ZERO)?;
    let status = match ended {
        crate::ledger::Ordered::Ended { to, .. } => to,
        crate::ledger::Ordered::Asked { .. } => Status::Running,
    };
    Ok(Observed { status: status.to_string(), run_key: Some(row.run_key), ..Observed::default() })
}
