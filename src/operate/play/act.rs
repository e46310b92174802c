//! The actions of a scenario, in this process, under the store's fault.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{Observed, queue};
use crate::config::Config;
use crate::contract::ReasonCode;
use crate::ledger::{ExecutionMode, Ledger, LedgerError, Order, RunFilter, RunRow, Status};
use crate::operate::fault::{Fault, FaultyStore, until_killed};
use crate::operate::mutate::{Broken, Scratchpad, broken};
use crate::operate::open;
use crate::operate::scenario::{Step, Verb};
use crate::operate::seal;
use crate::pipeline::Refusal;
use crate::pipeline::admit::Supersession;
use crate::pipeline::gate::{Env, outside_of_runs};
use crate::pipeline::progress::Progress;
use crate::pipeline::run::{self, Gatekeeper, Host, Request, RunResult, StopSignal, Unattended};
use crate::prove;
use crate::store::{Store, Unrecorded};
use crate::time::{Clock, FixedClock, SystemClock};

/// Who acts, in the ledger's words.
const ACTOR: &str = "DEMO::player";

/// An action that ended before there was a result.
pub(super) struct NotRun {
    code: ReasonCode,
    message: String,
}

impl From<LedgerError> for NotRun {
    fn from(error: LedgerError) -> Self {
        NotRun { code: error.code(), message: error.to_string() }
    }
}

impl From<Refusal> for NotRun {
    fn from(refusal: Refusal) -> Self {
        NotRun { code: refusal.code, message: refusal.message }
    }
}

/// The workspace's configuration, with scratch space inside the workspace so that nothing is written elsewhere.
pub(super) fn config(root: &Path) -> Result<Config, crate::config::ConfigError> {
    let environment = BTreeMap::from([("OFS_PATHS_SCRATCH".to_owned(), "scratch".to_owned())]);
    Config::load(Some(root), root, &environment)
}

/// The ledger for reading.
pub(super) fn reader(config: &Config) -> Result<Ledger, LedgerError> {
    Ledger::open_read_only(&config.path("ledger"), Arc::new(SystemClock), ACTOR)
}

/// Does what an action says.
pub(super) fn act(pad: &Scratchpad, step: &Step, clock: &Arc<dyn Clock>) -> Result<Observed, Broken> {
    let fault = step.fault.clone().unwrap_or_default();
    let opened = open_up(pad, &fault, clock);
    let (env, host) = match opened {
        Ok(opened) => opened,
        Err(not_run) => return Ok(not_run.observed()),
    };
    let request = |name: &str| -> Result<Request, Broken> {
        let supersession = Supersession { manifests: step.supersedes.iter().map(|m| pad.fill(m)).collect(), reason: step.reason.clone() };
        Ok(Request { intent: std::fs::read(pad.path(&format!("intents/{name}.json")))?, supersession })
    };
    let done = match &step.verb {
        Verb::Run(name) => {
            let request = request(name)?;
            until_killed(|| run::run(&request, &env, &host, &Unattended).map_err(NotRun::from).map(|r| Observed::of(&r)))
        }
        Verb::Retry(name) => {
            let request_id = request_id(&request(name)?.intent);
            until_killed(|| again(&request_id, &env, &host, run::retry))
        }
        Verb::Resume(name) => {
            let request_id = request_id(&request(name)?.intent);
            until_killed(|| again(&request_id, &env, &host, run::resume))
        }
        Verb::Submit(name) => {
            let request = request(name)?;
            until_killed(|| queue::submit(&request, &env, &host))
        }
        Verb::SubmitRetry(name) => {
            let request_id = request_id(&request(name)?.intent);
            until_killed(|| queue::submit_retry(&request_id, &env, &host))
        }
        Verb::Work(name) => {
            let request_id = requested(pad, name)?;
            until_killed(|| queue::work(pad.name("run"), &request_id, &env, &host))
        }
        Verb::Race { intent, owners } => {
            let intent = pad.path(&format!("intents/{intent}.json"));
            until_killed(|| queue::race(pad, &intent, *owners))
        }
        Verb::Cancel(name) | Verb::Fail(name) => {
            let order = if matches!(step.verb, Verb::Cancel(_)) { Order::Cancel } else { Order::Fail };
            let request_id = request_id(&request(name)?.intent);
            until_killed(|| queue::end(order, &request_id, &host))
        }
        Verb::Verify(manifest) => until_killed(|| verify(&pad.fill(manifest), &env, &host)),
        Verb::Seal { attest } => {
            let attest = attest.as_ref().map(|file| std::fs::read(pad.path(file))).transpose()?;
            until_killed(|| archive_seal(pad.name("run"), attest.as_deref(), &env))
        }
        other => return broken(format!("{} is no action", other.words())),
    };
    let mut observed = match done {
        Some(Ok(observed)) => observed,
        Some(Err(not_run)) => not_run.observed(),
        None => Observed { status: "KILLED".into(), exit: 137, ..Observed::default() },
    };
    if let Verb::Run(name) | Verb::Resume(name) | Verb::Retry(name) | Verb::Work(name) = &step.verb {
        let key = crate::identity::run_key(&requested(pad, name)?);
        complete(&mut observed, host.ledger.run(&key).ok().flatten());
    }
    Ok(observed)
}

/// The id of a request: that of an intent, or the name itself.
fn requested(pad: &Scratchpad, name: &str) -> Result<String, Broken> {
    match std::fs::read(pad.path(&format!("intents/{name}.json"))) {
        Ok(intent) => Ok(request_id(&intent)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(pad.fill(name)),
        Err(e) => Err(e.into()),
    }
}

/// The run of a request.
pub(super) fn row(request_id: &str, host: &Host) -> Result<RunRow, NotRun> {
    Ok(host.ledger.run_by_request(request_id)?.ok_or_else(|| LedgerError::NotFound(request_id.to_owned()))?)
}

fn request_id(intent: &[u8]) -> String {
    let intent: Value = serde_json::from_slice(intent).unwrap_or_default();
    intent.get("request_id").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A run that was refused or killed may still have an identity, which only the ledger knows.
fn complete(observed: &mut Observed, row: Option<RunRow>) {
    if let Some(row) = row {
        observed.run_key.get_or_insert(row.run_key);
        observed.manifest_id = observed.manifest_id.take().or(row.manifest_id);
    }
}

pub(super) fn open_up(pad: &Scratchpad, fault: &Fault, clock: &Arc<dyn Clock>) -> Result<(Env, Host), NotRun> {
    let config = config(pad.root()).map_err(|e| NotRun { code: ReasonCode::ConfigInvalid, message: e.to_string() })?;
    let store = open::store(&config).map_err(|e| NotRun { code: e.code, message: e.message })?;
    let ledger = Ledger::open(&config.path("ledger"), clock.clone(), ACTOR)?;
    let (store_root, inner): (_, Arc<dyn Store>) = (Some(store.root().to_owned()), Arc::new(store));
    let env = Env {
        store: Arc::new(FaultyStore::new(inner, fault.clone()).overtaken(overtake(&config))),
        store_root,
        config: Arc::new(config),
        cancel: CancellationToken::new(),
        progress: Arc::new(Progress::default()),
        attempt: outside_of_runs(clock.now()),
        audit: Arc::new(Unrecorded),
    };
    let host = Host { ledger: Arc::new(ledger), clock: clock.clone(), owner: fault.owner(), signal: StopSignal::default() };
    Ok((env, host))
}

/// Another process takes over every run that is under way, as it would once the lease of a stalled owner is
/// over, and is gone at once.
fn overtake(config: &Config) -> Box<dyn Fn() + Send + Sync> {
    let path = config.path("ledger");
    let ahead = i64::try_from(config.launcher().lease_seconds.saturating_add(1).saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    Box::new(move || {
        let later = FixedClock::new(SystemClock.now().plus_micros(ahead));
        let Ok(ledger) = Ledger::open(&path, Arc::new(later), ACTOR) else { return };
        for row in ledger.runs(&RunFilter::default()).unwrap_or_default().into_iter().filter(|row| row.status == Status::Running) {
            let _ = ledger.start(&row.run_key, ExecutionMode::Full, &Fault::gone(), ahead);
        }
    })
}

/// An operator's action on the run of a request.
type Again = fn(&RunRow, &Env, &Host, &dyn Gatekeeper) -> Result<RunResult, LedgerError>;

fn again(request_id: &str, env: &Env, host: &Host, action: Again) -> Result<Observed, NotRun> {
    let row = row(request_id, host)?;
    Ok(Observed::of(&action(&row, env, host, &Unattended)?))
}

fn verify(given: &str, env: &Env, host: &Host) -> Result<Observed, NotRun> {
    let manifest = prove::find_manifest(env, Some(&host.ledger), given)?;
    let report = prove::verify::verify_rows(env, Some(&host.ledger), &manifest)?;
    Ok(Observed {
        status: if report.ok() { "VERIFIED".into() } else { "CONTRADICTED".into() },
        exit: if report.ok() { 0 } else { 3 },
        evidence: report
            .problems
            .iter()
            .map(|p| format!("{} {}: expected {}, found {}", p.kind.as_str(), p.place, p.expected, p.found))
            .collect(),
        rows: Some(report.rows),
        manifest_id: Some(report.manifest_id),
        manifest_ref: Some(report.manifest_ref),
        ..Observed::default()
    })
}

fn archive_seal(run: &str, attest: Option<&[u8]>, env: &Env) -> Result<Observed, NotRun> {
    let attestations = attest.map(seal::parse_attestations).transpose()?.unwrap_or_default();
    let report = seal::seal(env, run, &attestations)?;
    let refusal = report.refusal();
    let status = match refusal {
        Some(_) => "REFUSED",
        None if report.lanes.iter().any(|lane| lane.outcome == seal::Outcome::Sealed) => "SEALED",
        None => "UP_TO_DATE",
    };
    Ok(Observed {
        status: status.into(),
        exit: refusal.map_or(0, |r| r.code.info().exit),
        code: refusal.map(|r| r.code.as_str().to_owned()),
        message: refusal.map(|r| r.message.clone()),
        evidence: report.lanes.iter().map(|l| format!("{} {}", l.lane, l.outcome.as_str())).collect(),
        rows: Some(report.records()),
        ..Observed::default()
    })
}

impl NotRun {
    pub(super) fn observed(self) -> Observed {
        Observed {
            status: "NOT_RUN".into(),
            exit: self.code.info().exit,
            code: Some(self.code.as_str().to_owned()),
            message: Some(self.message),
            ..Observed::default()
        }
    }
}

impl Observed {
    pub(super) fn of(result: &RunResult) -> Self {
        let text = |pointer: &str| result.document.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let evidence = result.document.pointer("/reason/evidence").and_then(Value::as_array);
        Observed {
            status: text("/status").unwrap_or_default(),
            exit: result.exit,
            outcome: text("/outcome"),
            code: text("/reason/code"),
            phase: text("/reason/phase"),
            message: text("/reason/message"),
            evidence: evidence.into_iter().flatten().filter_map(|l| l.as_str().map(str::to_owned)).collect(),
            rows: result.document.pointer("/dataset/rows").and_then(Value::as_u64),
            run_key: text("/run_key"),
            manifest_id: text("/dataset/manifest_id"),
            manifest_ref: text("/dataset/manifest_ref"),
        }
    }
}
