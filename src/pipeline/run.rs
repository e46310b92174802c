//! Drives the gates for one request, and keeps the ledger's story of it. The command line, a worker and
//! the console call the same functions and differ only in [`Gatekeeper`] and progress.

mod audit;
mod corridor;
mod halt;
mod heartbeat;
mod outcome;
mod resume;
pub mod step;
mod walk;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

pub(crate) use audit::on_record;
pub(crate) use corridor::{event_logs, timeline};
pub use outcome::RunResult;

use self::corridor::{Attempt, Right};
use super::admit::{self, Admitted, Supersession};
use super::gate::{Env, Phase, Refusal};
use super::peek::{Look, Peeked, Question};
use super::pin;
use crate::contract::ReasonCode;
use crate::ledger::{End, ExecutionMode, Ledger, LedgerError, NewRun, Owner, RUN_DONE_LATE, Retry, RunRow, Status, Submitted};
use crate::time::{Clock, Instant};

/// What stands at each gate: it may look at the proof that was just made, and stop the run.
pub trait Gatekeeper: Send + Sync {
    /// Called after a gate has passed; decides how it goes on.
    fn passed(&self, gate: &GateView, halt: &dyn Halt) -> Verdict;

    /// Called when a gate has refused, before the run is closed with it. Nothing can change the refusal.
    fn refused(&self, _refusal: &Refusal, _halt: &dyn Halt) {}
}

/// How a run goes on from a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To the next one.
    Go,
    /// Nowhere: an operator calls it off.
    CallOff,
    /// Later: it is handed back as QUEUED, with what it proved so far; the text says why, as a signal's name does.
    HandBack(&'static str),
}

/// What a gatekeeper can do while a run stands at a gate.
pub trait Halt {
    /// The run.
    fn run_key(&self) -> &str;

    /// Says in the ledger that the run waits for a person, or goes on. The lease is kept meanwhile.
    ///
    /// # Errors
    /// What keeps the ledger from recording; the pipeline meets it again and ends by it.
    fn set_paused(&self, paused: bool) -> Result<(), LedgerError>;

    /// Whether the build was told to stop, by a signal, by an operator or by the loss of its lease.
    fn told_to_stop(&self) -> bool;

    /// The time, by the host's clock.
    fn now(&self) -> Instant;

    /// For how many microseconds a person may keep it waiting.
    fn max_pause_us(&self) -> i64;

    /// What there is to look at.
    fn looks(&self) -> &'static [Look];

    /// Looks at it.
    ///
    /// # Errors
    /// What cannot be read or is not there.
    fn peek(&self, question: &Question) -> Result<Peeked, Refusal>;
}

/// A gate that was just passed.
#[derive(Debug, Clone)]
pub struct GateView {
    /// Key of the run.
    pub run_key: String,
    /// The gate.
    pub phase: Phase,
    /// What it proved, as (what, value).
    pub facts: Vec<(&'static str, String)>,
    /// Where the receipt lies.
    pub evidence: String,
    /// Whether an earlier attempt had passed it, and its files prove it still.
    pub reproved: bool,
}

/// Lets every gate pass.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unattended;

impl Gatekeeper for Unattended {
    fn passed(&self, _: &GateView, _: &dyn Halt) -> Verdict {
        Verdict::Go
    }
}

/// Which signal asked the process to stop.
#[derive(Debug, Clone, Default)]
pub struct StopSignal(Arc<Mutex<Option<&'static str>>>);

impl StopSignal {
    /// Notes the signal's name, like `TERM`.
    pub fn set(&self, name: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
    }

    /// The name, if one came.
    pub fn get(&self) -> Option<&'static str> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who runs: the ledger it writes to, its clock and its name.
#[derive(Clone)]
pub struct Host {
    /// The run ledger.
    pub ledger: Arc<Ledger>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// This process.
    pub owner: Owner,
    /// The signal that stopped it, if one did.
    pub signal: StopSignal,
}

/// A request to build.
#[derive(Debug, Clone)]
pub struct Request {
    /// The intent's text.
    pub intent: Vec<u8>,
    /// What it supersedes.
    pub supersession: Supersession,
}

impl Request {
    /// The request that a run was made from.
    ///
    /// # Errors
    /// `INVALID_TRANSITION` in words where the record holds no intent (a refused one).
    pub fn of_row(row: &RunRow) -> Result<Self, LedgerError> {
        let intent = row.intent.as_ref().ok_or_else(|| LedgerError::InvalidTransition {
            run_key: row.run_key.clone(),
            from: row.status,
            action: "resume".into(),
            legal: row.actions(),
        })?;
        let list = |key: &str| row.provenance.as_ref().and_then(|p| p.get(key)).cloned().unwrap_or(Value::Null);
        let manifests =
            list("supersedes").as_array().map(|a| a.iter().filter_map(|m| m.as_str().map(str::to_owned)).collect()).unwrap_or_default();
        Ok(Request {
            intent: intent.to_string().into_bytes(),
            supersession: Supersession { manifests, reason: list("supersede_reason").as_str().map(str::to_owned) },
        })
    }
}

/// Submits a request and executes it, or answers with what it had come to before.
///
/// # Errors
/// Only what keeps the ledger from recording anything; every refusal is a [`RunResult`].
pub fn run(request: &Request, env: &Env, host: &Host, keeper: &dyn Gatekeeper) -> Result<RunResult, LedgerError> {
    carry_on(request, env, host, keeper, true)
}

/// As [`run`], for whoever works off a queue: a run that has failed is not tried again unless it was put into
/// the queue again.
///
/// # Errors
/// As of [`run`].
pub fn take_up(request: &Request, env: &Env, host: &Host, keeper: &dyn Gatekeeper) -> Result<RunResult, LedgerError> {
    carry_on(request, env, host, keeper, false)
}

fn carry_on(request: &Request, env: &Env, host: &Host, keeper: &dyn Gatekeeper, again_failed: bool) -> Result<RunResult, LedgerError> {
    let admitted = match admit(request, env, host)? {
        Ok(admitted) => admitted,
        Err(result) => return Ok(*result),
    };
    let mut looks = 0;
    loop {
        // What failed under somebody else's hands meanwhile is the answer, not a reason to try again.
        match answer(admitted.clone(), env, host, keeper, again_failed && looks == 0) {
            // Another process brought the run further between the look and the start; its state now is what counts.
            Err(LedgerError::InvalidTransition { .. }) if looks < MOST_LOOKS => looks += 1,
            answered => return answered,
        }
    }
}

/// How often a request looks again at a run that others bring from state to state under its hands.
const MOST_LOOKS: u32 = 16;

/// Does what the state of a request's run calls for.
fn answer(admitted: Admitted, env: &Env, host: &Host, keeper: &dyn Gatekeeper, again_failed: bool) -> Result<RunResult, LedgerError> {
    match host.ledger.submit(&new_run(&admitted))? {
        Submitted::New(row) => execute(admitted, row, env, host, keeper),
        Submitted::Mismatch(row) => Ok(taken(&admitted, &row)),
        Submitted::Existing(row) => match row.status {
            Status::Queued | Status::Running => execute(admitted, row, env, host, keeper),
            Status::Failed if again_failed && row.retryable() => execute(admitted, row, env, host, keeper),
            Status::Done => again(admitted, &row, env, host),
            Status::PublishPending => settle(admitted, &row, env, host),
            Status::Failed | Status::Cancelled | Status::Rejected => Ok(RunResult::duplicate(&row)),
        },
    }
}

/// Goes on with a run that waits, was interrupted, is stuck, or failed with a reason that a new attempt can help.
///
/// # Errors
/// `INVALID_TRANSITION` in every other state, and what keeps the ledger from recording.
pub fn resume(row: &RunRow, env: &Env, host: &Host, keeper: &dyn Gatekeeper) -> Result<RunResult, LedgerError> {
    if !matches!(row.status, Status::Queued | Status::Running) && !row.retryable() {
        return Err(LedgerError::InvalidTransition {
            run_key: row.run_key.clone(),
            from: row.status,
            action: "resume".into(),
            legal: row.actions(),
        });
    }
    let request = Request::of_row(row)?;
    host.ledger.audit("resume", Some(&row.run_key), &json!({"from": row.status}))?;
    run(&request, env, host, keeper)
}

/// Retries the publication of a pending run with its own draft, re-read and re-digested (O025, O128). The retry is
/// spent when its attempt begins, and not by what keeps it from beginning.
///
/// # Errors
/// `PUBLISH_RETRY_EXHAUSTED`, `RETRY_NOT_PENDING`, and what keeps the ledger from recording.
pub fn retry(row: &RunRow, env: &Env, host: &Host, keeper: &dyn Gatekeeper) -> Result<RunResult, LedgerError> {
    republish(None, row, env, host, keeper)
}

/// As [`retry`], for a queued request, which has one retry: where it has had it, how the run stands is the answer.
///
/// # Errors
/// As of [`retry`].
pub fn retry_for(request_id: &str, row: &RunRow, env: &Env, host: &Host, keeper: &dyn Gatekeeper) -> Result<RunResult, LedgerError> {
    republish(Some(request_id), row, env, host, keeper)
}

fn republish(request_id: Option<&str>, row: &RunRow, env: &Env, host: &Host, keeper: &dyn Gatekeeper) -> Result<RunResult, LedgerError> {
    let retry = Retry { max: env.config.launcher().max_publish_retry_attempts, request_id };
    if !host.ledger.retry_open(&row.run_key, &retry)? {
        return Ok(RunResult::pending(row));
    }
    let admitted = match admit(&Request::of_row(row)?, env, host)? {
        Ok(admitted) => admitted,
        Err(result) => return Ok(*result),
    };
    match Attempt::start(admitted, row, Right::Retry(retry), env, host) {
        Ok(Ok(attempt)) => attempt.republish(keeper),
        Ok(Err(other)) => Ok(*other),
        // Another retry was faster, and has published it meanwhile.
        Err(error @ LedgerError::NotPending { status: Status::Done, .. }) => match host.ledger.run(&row.run_key)? {
            Some(row) => Ok(RunResult::duplicate(&row)),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Rebuilds a data set as far as its draft, in an environment whose store is scratch space: every gate is
/// walked, nothing is published, and no ledger is touched.
///
/// # Errors
/// The refusal of a gate.
pub fn rebuild(pinned: pin::Pinned, env: &Env) -> Result<super::feature::Drafted, Refusal> {
    corridor::rebuild(pinned, env)
}

/// Admits a request, or puts its refusal on record.
///
/// # Errors
/// What keeps the ledger from recording.
pub(crate) fn admit(request: &Request, env: &Env, host: &Host) -> Result<Result<Admitted, Box<RunResult>>, LedgerError> {
    let active = env.config.text("workspace", "platform_run_id");
    match admit::prove(&request.intent, request.supersession.clone(), active) {
        Ok(admitted) => Ok(Ok(admitted)),
        Err(not) => {
            let detail = not.refusal.to_json();
            host.ledger.reject(
                &not.run_key,
                not.request_id.as_deref(),
                not.platform_run_id.as_deref(),
                not.intent_kind.as_deref(),
                not.refusal.code,
                &detail,
            )?;
            tracing::warn!(run_key = not.run_key, code = %not.refusal.code, phase = "intent", "rejected: {}", not.refusal.message);
            Ok(Err(Box::new(RunResult::refused(
                not.request_id.as_deref().unwrap_or_default(),
                &not.run_key,
                Status::Rejected,
                &not.refusal,
            ))))
        }
    }
}

/// The answer to a request whose id belongs to another one.
pub(crate) fn taken(admitted: &Admitted, row: &RunRow) -> RunResult {
    let refusal = Refusal::new(
        ReasonCode::RequestIdPayloadMismatch,
        Phase::Ledger,
        format!("request id {} belongs to another intent", admitted.intent().request_id),
    )
    .with_evidence([format!("stands {}", row.request_hash.clone().unwrap_or_default()), format!("now {}", admitted.request_hash())]);
    RunResult::refused(&admitted.intent().request_id, admitted.run_key(), Status::Rejected, &refusal)
}

/// What the ledger keeps of an admitted request.
pub(crate) fn new_run(admitted: &Admitted) -> NewRun {
    let intent = admitted.intent();
    NewRun {
        run_key: admitted.run_key().to_owned(),
        request_id: intent.request_id.clone(),
        request_hash: admitted.request_hash().to_owned(),
        platform_run_id: intent.platform_run_id.clone(),
        intent_kind: intent.kind.as_str().to_owned(),
        intent: intent.to_json(),
        provenance: json!({
            "ofs_code_release_id": intent.code_release, "policy_revision": intent.policy_revision, "config_revision": intent.config_revision, "run_facts_ref": intent.run_facts_ref,
            "non_training_allowed": intent.non_training_allowed, "parity_anchor_ref": intent.parity_anchor_ref, "running_release": pin::RELEASE,
            "supersedes": admitted.superseded_as_given(), "supersede_reason": admitted.supersede_reason(),
        }),
    }
}

fn execute(admitted: Admitted, row: RunRow, env: &Env, host: &Host, keeper: &dyn Gatekeeper) -> Result<RunResult, LedgerError> {
    match Attempt::start(admitted, &row, Right::State(ExecutionMode::Full), env, host)? {
        Ok(attempt) => attempt.walk(keeper),
        Err(busy) => Ok(*busy),
    }
}

/// A request that was DONE comes again: its stored result, after a look whether its data is still there.
fn again(admitted: Admitted, row: &RunRow, env: &Env, host: &Host) -> Result<RunResult, LedgerError> {
    let env = &on_record(env, host, &row.run_key);
    let intact = outcome::files_are_there(row, env);
    let recorded = receipt_on_record(row, host)?;
    let pinned = match intact {
        Ok(true) => {
            // What it had staged may have stayed if the store failed right after the commit.
            pin::clear_staging(&admitted, env, |_| true);
            return Ok(RunResult::duplicate(row));
        }
        Ok(false) => pin::resolve(admitted, env),
        Err(refusal) => Err(refusal),
    };
    let restored = pinned.and_then(|pinned| {
        if Some(&pinned.id().manifest_id) != row.manifest_id.as_ref() {
            let message = "data files are gone and cannot be rebuilt: the pins of this request have changed since it was published";
            return Err(Refusal::new(ReasonCode::BuildPlanImmutabilityViolation, Phase::Pins, message));
        }
        corridor::restore(pinned, env, &recorded)
    });
    match restored {
        Ok(missing) => {
            host.ledger.restored(&row.run_key, "DATA_RESTORED", &json!({"restored": missing}))?;
            Ok(RunResult::duplicate(row))
        }
        Err(refusal) => Ok(RunResult::refused(row.request_id.as_deref().unwrap_or_default(), &row.run_key, Status::Done, &refusal)),
    }
}

/// The digest of the publication receipt, as the ledger recorded it when the run was done.
fn receipt_on_record(row: &RunRow, host: &Host) -> Result<String, LedgerError> {
    let events = host.ledger.events(&row.run_key, 0)?;
    let done = events.iter().rev().find(|e| [crate::ledger::RUN_DONE, RUN_DONE_LATE].contains(&e.event_type.as_str()));
    let digest = done.and_then(|e| e.detail.get("receipt_blake3")).and_then(Value::as_str);
    Ok(digest.unwrap_or_default().to_owned())
}

/// A pending run comes again: a manifest that turned up meanwhile wins; else it stays pending.
fn settle(admitted: Admitted, row: &RunRow, env: &Env, host: &Host) -> Result<RunResult, LedgerError> {
    let recorded = on_record(env, host, &row.run_key);
    let found = pin::resolve(admitted.clone(), &recorded).and_then(|pinned| pinned.find_published(env).map(|found| (pinned, found)));
    let Ok((_, Some(_))) = found else { return Ok(RunResult::pending(row)) };
    match Attempt::start(admitted, row, Right::State(ExecutionMode::PublishOnly), env, host)? {
        Ok(attempt) => attempt.adopt_late(),
        Err(busy) => Ok(*busy),
    }
}

/// Ends an attempt as done.
fn done(published: &super::publish::Published, superseded: &[String], result: &RunResult, late: bool) -> End {
    let mut detail = json!({"manifest_ref": published.manifest_ref.as_str(), "receipt_ref": published.receipt_ref.as_str(), "receipt_blake3": published.receipt_blake3, "outcome": result.document.get("outcome")});
    if let (false, Some(map)) = (superseded.is_empty(), detail.as_object_mut()) {
        map.insert("supersedes".into(), json!(superseded));
    }
    End::Done {
        manifest_ref: Some(published.manifest_ref.to_string()),
        result: result.document.clone(),
        event: if late { RUN_DONE_LATE } else { crate::ledger::RUN_DONE },
        detail,
    }
}
