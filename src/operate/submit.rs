//! Putting a request into the queue: the ledger's row first, then the file that workers find.

use serde_json::Value;

use super::request::{self, request_ref};
use crate::contract::ReasonCode;
use crate::json::Tape;
use crate::ledger::{LedgerError, RunRow, Status, Submitted};
use crate::pipeline::admit::Admitted;
use crate::pipeline::gate::{Env, document};
use crate::pipeline::run::{self, Host, Request, RunResult};
use crate::pipeline::{Phase, Refusal, pin};
use crate::store::{ErrorKind, Immutable, Ref, StoreError, create_immutable, read};
use crate::time::Instant;

/// Largest request file in bytes.
pub(super) const MAX_BYTES: u64 = 16 << 20;

/// A request that is in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Its id.
    pub request_id: String,
    /// Where its file lies.
    pub request_ref: Ref,
    /// The run that it is.
    pub run_key: String,
    /// Where that run stands.
    pub status: Status,
}

/// Submits a request. The same one again changes nothing, finishes what an earlier submission left
/// undone, or queues a run again that failed for a reason that a new attempt can help (O130, O140).
///
/// # Errors
/// What keeps the ledger from recording; every refusal is a [`RunResult`] and on record.
pub fn submit(request: &Request, env: &Env, host: &Host) -> Result<Result<Queued, Box<RunResult>>, LedgerError> {
    let admitted = match run::admit(request, env, host)? {
        Ok(admitted) => admitted,
        Err(refused) => return Ok(Err(refused)),
    };
    let digest = match pin::run_config_digest(&run::on_record(env, host, admitted.run_key())) {
        Ok(digest) => digest,
        Err(refusal) => return refuse(&admitted, &refusal, host),
    };
    let at = request_ref(&admitted.intent().platform_run_id, &admitted.intent().request_id);
    let document_of = |submitted| request::document(&admitted, &digest, submitted);
    // Looked at before anything is queued: what stands is never overwritten, so it has to be this request.
    if let Err(refusal) = standing(document_of(Instant(0)), &at, env) {
        return refuse(&admitted, &refusal, host);
    }
    let row = match host.ledger.submit(&run::new_run(&admitted))? {
        Submitted::New(row) | Submitted::Existing(row) => row,
        Submitted::Mismatch(row) => return Ok(Err(Box::new(run::taken(&admitted, &row)))),
    };
    let again = host.ledger.requeue(&row.run_key)?;
    match write(document_of(row.created), &at, env) {
        Ok(()) => Ok(Ok(Queued {
            request_id: admitted.intent().request_id.clone(),
            request_ref: at,
            run_key: row.run_key,
            status: if again { Status::Queued } else { row.status },
        })),
        // The row stays: the next submission of the request finishes it.
        Err(refusal) => Ok(Err(Box::new(RunResult::refused(&admitted.intent().request_id, &row.run_key, row.status, &refusal)))),
    }
}

/// Puts a publish-only retry of a run into the queue. Asked for again before a worker has used it, nothing
/// changes (O025, O130, O140).
///
/// # Errors
/// `PUBLISH_RETRY_EXHAUSTED`, `RETRY_NOT_PENDING`, and what keeps the ledger from recording; every other
/// refusal is a [`RunResult`].
pub fn submit_retry(row: &RunRow, env: &Env, host: &Host) -> Result<Result<Queued, Box<RunResult>>, LedgerError> {
    let refused = |refusal: &Refusal| {
        let request_id = row.request_id.as_deref().unwrap_or_default();
        Ok(Err(Box::new(RunResult::refused(request_id, &row.run_key, row.status, refusal))))
    };
    let digest = match pin::run_config_digest(&run::on_record(env, host, &row.run_key)) {
        Ok(digest) => digest,
        Err(refusal) => return refused(&refusal),
    };
    let active = env.config.text("workspace", "platform_run_id");
    let run = row.platform_run_id.as_deref().unwrap_or_default();
    if !active.is_empty() && active != run {
        let message = format!("run {} is of {run}, not of the active run {active} of this workspace", row.run_key);
        return refused(&Refusal::new(ReasonCode::RunScopeInvalid, Phase::Operate, message));
    }
    let request_id = request::retry_id(row);
    host.ledger.retry_queued(&row.run_key, env.config.launcher().max_publish_retry_attempts, &request_id)?;
    let at = request_ref(run, &request_id);
    match write(request::retry_document(row, run, &digest, host.clock.now()), &at, env) {
        Ok(()) => Ok(Ok(Queued { request_id, request_ref: at, run_key: row.run_key.clone(), status: row.status })),
        Err(refusal) => refused(&refusal),
    }
}

/// Puts a request's file in place, or finds it there.
fn write(wanted: Value, at: &Ref, env: &Env) -> Result<(), Refusal> {
    match create_immutable(env.store.as_ref(), at, &document(&wanted)) {
        Ok(Immutable::New | Immutable::Same) => Ok(()),
        Ok(Immutable::Different(_)) => standing(wanted, at, env),
        Err(error) => Err(of_store(&error)),
    }
}

fn of_store(error: &StoreError) -> Refusal {
    Refusal::of_store(Phase::Operate, error)
}

fn refuse<T>(admitted: &Admitted, refusal: &Refusal, host: &Host) -> Result<Result<T, Box<RunResult>>, LedgerError> {
    let intent = admitted.intent();
    let (id, run, kind) = (Some(intent.request_id.as_str()), Some(intent.platform_run_id.as_str()), Some(intent.kind.as_str()));
    host.ledger.reject(admitted.run_key(), id, run, kind, refusal.code, &refusal.to_json())?;
    Ok(Err(Box::new(RunResult::refused(&intent.request_id, admitted.run_key(), Status::Rejected, refusal))))
}

/// Whether the file of a request stands already, whenever it was submitted. One that says anything else is a
/// refusal.
fn standing(mut wanted: Value, at: &Ref, env: &Env) -> Result<(), Refusal> {
    let bytes = match read(env.store.as_ref(), at, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(e) if e.kind == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(of_store(&e)),
    };
    let mut tape = Tape::new();
    let Ok(mut stands) = tape.parse(&bytes).map(|doc| doc.root().to_value()) else {
        return Err(other(at, "it is not a request at all"));
    };
    for value in [&mut stands, &mut wanted] {
        if let Some(map) = value.as_object_mut() {
            map.remove("submitted_at_utc");
        }
    }
    if stands == wanted {
        return Ok(());
    }
    let (queued_under, here) = (stands.get("run_config_digest").cloned(), wanted.get("run_config_digest").cloned());
    if let (Some(stands), Some(wanted)) = (stands.as_object_mut(), wanted.as_object_mut()) {
        stands.remove("run_config_digest");
        wanted.remove("run_config_digest");
    }
    if stands != wanted {
        return Err(other(at, "it is another request"));
    }
    let message = format!("the request {at} was queued under another configuration than the one in force");
    let evidence = [format!("queued under {}", queued_under.unwrap_or_default()), format!("in force {}", here.unwrap_or_default())];
    Err(Refusal::new(ReasonCode::RunConfigDigestMismatch, Phase::Operate, message).with_evidence(evidence))
}

fn other(at: &Ref, what: &str) -> Refusal {
    Refusal::new(ReasonCode::RequestIdPayloadMismatch, Phase::Operate, format!("{at} stands and is never overwritten: {what}"))
}
