//! The worker: takes queued requests one by one, runs them like every other command does, and leaves one
//! receipt for each end (O130 to O139).
//!
//! The ledger says where a request stands; a receipt says which of the ledger's events it answers. So a
//! worker that dies anywhere leaves nothing that the next one cannot go on with, and a request that
//! cannot be read costs a receipt and never the queue (pitfall 40).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use serde_json::{Map, Value, json};

use super::request::{self, Command, Invocation, JobRequest, RECEIPTS, REQUESTS};
use super::submit::MAX_BYTES;
use crate::contract::ReasonCode;
use crate::contract::intent::request_id_valid;
use crate::identity;
use crate::ledger::{Head, Ledger, LedgerError, Owner, RunRow, Status};
use crate::observe::facts;
use crate::pipeline::admit::{self, Admitted};
use crate::pipeline::gate::{Env, document};
use crate::pipeline::progress::Progress;
use crate::pipeline::run::{self, Gatekeeper, Host, Request, RunResult};
use crate::pipeline::{Phase, Refusal, pin};
use crate::store::{ErrorKind, Immutable, Ref, RefType, StoreError, create_immutable, read};

/// Largest receipt in bytes.
const RECEIPT_BYTES: u64 = 1 << 20;

/// What became of one request in a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processed {
    /// Its id, or the safe name of its file.
    pub request_id: String,
    /// The receipt's status, or QUEUED for a run that was handed back.
    pub status: &'static str,
    /// The run, where it became one.
    pub run_key: Option<String>,
}

impl Processed {
    /// As in `ofs.worker.v1`.
    pub fn to_json(&self) -> Value {
        json!({"request_id": self.request_id, "status": self.status, "run_key": self.run_key})
    }
}

/// A registered worker; dropping it signs it off.
pub struct Worker<'w> {
    env: &'w Env,
    host: &'w Host,
    keeper: &'w dyn Gatekeeper,
    _heart: Heart,
    /// Requests with nothing to do, by the ledger event after which that was so.
    settled: BTreeMap<Ref, Option<u64>>,
    /// Well-formed requests that have to wait for another owner.
    waiting: BTreeMap<Ref, JobRequest>,
    /// What was there at the end of the last pass, if that left nothing to do.
    idle: Option<(Vec<Item>, i64)>,
}

/// A request's file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    at: Ref,
    platform_run_id: String,
    /// The safe name of the file.
    name: String,
}

impl Item {
    fn run_key(&self) -> String {
        identity::run_key(&self.name)
    }

    /// The key under which whatever is refused about the request is on record.
    fn record(&self) -> String {
        if request_id_valid(&self.name) { self.run_key() } else { identity::invalid_run_key(self.at.as_str().as_bytes()) }
    }

    fn receipts(&self) -> Ref {
        Ref::of(&[&self.platform_run_id, "ofs", RECEIPTS, &self.name])
    }
}

/// What a look at one request came to.
enum Look {
    /// Nothing is to be done until the ledger says otherwise.
    Settled,
    /// Not now: another owner works on it, or the store could not be read.
    Open,
    /// It was worked on.
    Done(Processed),
}

/// Why a look cannot be finished.
enum Trouble {
    Ledger(LedgerError),
    Store(StoreError),
}

impl From<LedgerError> for Trouble {
    fn from(error: LedgerError) -> Self {
        Trouble::Ledger(error)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Store(error)
    }
}

impl<'w> Worker<'w> {
    /// Registers this process as a worker and keeps it registered.
    ///
    /// # Errors
    /// What keeps the ledger from recording.
    pub fn start(env: &'w Env, host: &'w Host, keeper: &'w dyn Gatekeeper) -> Result<Self, LedgerError> {
        let heart = Heart::start(Builder::new(), host.ledger.clone(), host.owner.clone(), env.config.launcher().lease_seconds)?;
        tracing::info!(owner = %host.owner, "worker registered");
        Ok(Worker { env, host, keeper, _heart: heart, settled: BTreeMap::new(), waiting: BTreeMap::new(), idle: None })
    }

    /// Looks at the queue again and again until the build environment is told to stop. `pause` waits
    /// for so long, or less where it is told to stop; `each` hears what became of every request.
    ///
    /// # Errors
    /// What keeps the ledger from recording: nothing can go on then.
    pub fn serve(&mut self, pause: &dyn Fn(Duration), each: &mut dyn FnMut(Processed)) -> Result<(), LedgerError> {
        let poll =
            Duration::try_from_secs_f64(self.env.config.seconds("launcher", "request_poll_seconds")).unwrap_or(Duration::from_secs(2));
        while !self.env.cancel.is_cancelled() {
            self.pass()?.into_iter().for_each(&mut *each);
            if !self.env.cancel.is_cancelled() {
                pause(poll);
            }
        }
        Ok(())
    }

    /// One look at the queue: at most as many requests as the policy allows, in the order of their names.
    /// Where nothing has changed since a look that found nothing to do, only that is found out.
    ///
    /// # Errors
    /// As of [`Worker::serve`].
    pub fn pass(&mut self) -> Result<Vec<Processed>, LedgerError> {
        let version = self.host.ledger.data_version()?;
        let items = self.items();
        if self.idle.as_ref().is_some_and(|(seen, at)| *seen == items && *at == version) {
            return Ok(Vec::new());
        }
        self.idle = None;
        let limit = usize::try_from(self.env.config.int("launcher", "request_batch_limit")).unwrap_or(usize::MAX);
        let (mut processed, mut open) = (Vec::new(), false);
        for item in &items {
            if self.env.cancel.is_cancelled() || processed.len() >= limit {
                open = true;
                break;
            }
            match self.look(item)? {
                Look::Settled => {}
                Look::Open => open = true,
                Look::Done(done) => {
                    tracing::info!(request_id = done.request_id, run_key = done.run_key, status = done.status, "request processed");
                    processed.push(done);
                }
            }
        }
        if !processed.is_empty() {
            facts::flush_quietly(self.env, &self.host.ledger);
        }
        if processed.is_empty() && !open {
            self.idle = Some((items, version));
        }
        Ok(processed)
    }

    /// The files of all requests, sorted. Only names are read: one file that cannot be read must not
    /// hide the others.
    fn items(&self) -> Vec<Item> {
        let active = self.env.config.text("workspace", "platform_run_id");
        let mut items = Vec::new();
        let Some(root) = &self.env.store_root else {
            let below = Ref::of(&[active, "ofs", REQUESTS]);
            let listed = self.env.store.list(&below).inspect_err(|e| tracing::warn!("the queue cannot be listed: {e}")).unwrap_or_default();
            items.extend(listed.into_iter().filter_map(|(at, _)| item(active, at.as_str().rsplit('/').next().unwrap_or_default())));
            return items;
        };
        for run in names(root) {
            for name in names(&root.join(&run).join("ofs").join(REQUESTS)) {
                items.extend(item(&run, &name));
            }
        }
        items.sort_by(|a, b| a.at.cmp(&b.at));
        items
    }

    fn look(&mut self, item: &Item) -> Result<Look, LedgerError> {
        let head = self.host.ledger.head(&item.run_key())?;
        let mark = head.map(|h| h.last_seq);
        if self.settled.get(&item.at) == Some(&mark) {
            return Ok(Look::Settled);
        }
        match self.examine(item, head) {
            Ok(Look::Settled) => {
                self.settled.insert(item.at.clone(), mark);
                Ok(Look::Settled)
            }
            Ok(look) => Ok(look),
            // The environment may recover; the request stays as it is.
            Err(Trouble::Store(error)) => {
                tracing::warn!(request = item.at.as_str(), "not now: {error}");
                Ok(Look::Open)
            }
            Err(Trouble::Ledger(error @ (LedgerError::Io(_) | LedgerError::ReadOnly))) => Err(error),
            // The run changed under this worker's hands, or its record is damaged; others can go on.
            Err(Trouble::Ledger(error)) => {
                tracing::warn!(request = item.at.as_str(), "not now: {error}");
                Ok(Look::Open)
            }
        }
    }

    fn examine(&mut self, item: &Item, head: Option<Head>) -> Result<Look, Trouble> {
        let answered = self.answered(item)?;
        if let Some(seq) = answered {
            match head {
                None => return Ok(Look::Settled),
                Some(head) if head.last_seq == seq || head.status == Status::Rejected => return Ok(Look::Settled),
                Some(_) => {}
            }
        }
        match head.map(|h| h.status) {
            None | Some(Status::Queued | Status::Rejected) => {}
            Some(Status::Running) => {
                let row = self.host.ledger.run(&item.run_key())?;
                if !row.is_some_and(|r| r.takeover_legal(self.host.clock.now())) {
                    return Ok(Look::Open);
                }
            }
            Some(_) => {
                let ended = self.host.ledger.ended(&item.run_key())?;
                if answered.as_ref().zip(ended).is_some_and(|(seq, ended)| *seq >= ended.seq) {
                    // Whoever wrote the receipt may have been cut off before the ledger heard of it.
                    if let Some((at, bytes)) = self.latest(item)? {
                        self.vouch(&item.run_key(), &at, &bytes)?;
                    }
                    return Ok(Look::Settled);
                }
            }
        }
        let job = match self.waiting.get(&item.at) {
            Some(job) => Ok(job.clone()),
            None => match self.open(item)? {
                Some(job) => job,
                None => return Ok(Look::Settled),
            },
        };
        match job {
            Ok(job) => {
                let look = self.invoke(item, &job)?;
                // A request never changes, so one that has to wait is not resolved at every look.
                match look {
                    Look::Open => self.waiting.insert(item.at.clone(), job),
                    _ => self.waiting.remove(&item.at),
                };
                Ok(look)
            }
            // Nor is one that could not be read once.
            Err(_) if answered.is_some() => Ok(Look::Settled),
            Err(refusal) => self.refuse(item, None, &refusal),
        }
    }

    /// Reads a request through the evidence corridor; nothing where it is gone.
    fn open(&self, item: &Item) -> Result<Option<Result<JobRequest, Refusal>>, Trouble> {
        let env = run::on_record(self.env, self.host, &item.record());
        let corridor = env.corridor(&item.platform_run_id);
        let denied = match corridor.read(RefType::JobRequest, item.at.as_str(), "to work it off", MAX_BYTES) {
            Ok((_, bytes)) => {
                let job = request::parse(&bytes, &item.name, &item.platform_run_id);
                return Ok(Some(job.map_err(|problem| Refusal::of_problem(Phase::Operate, problem))));
            }
            Err(denied) => denied,
        };
        match &denied.denied {
            Some((ReasonCode::RefNotFound, _)) => Ok(None),
            // The environment may recover.
            Some((ReasonCode::StoreIo, message)) => Err(StoreError::new(ErrorKind::Io, item.at.as_str(), message).into()),
            Some((ReasonCode::LedgerIo, message)) => Err(LedgerError::Io(message.clone()).into()),
            Some((ReasonCode::RefInvalid | ReasonCode::LimitExceeded, message)) => {
                Ok(Some(Err(Refusal::new(ReasonCode::RequestInvalid, Phase::Operate, message))))
            }
            _ => Ok(Some(Err(Refusal::of_denial(Phase::Operate, &denied, ReasonCode::RequestInvalid)))),
        }
    }

    /// Which event of the ledger the latest receipt of a request answers.
    fn answered(&self, item: &Item) -> Result<Option<u64>, StoreError> {
        Ok(self.latest(item)?.map(|(_, bytes)| ledger_seq(&bytes)))
    }

    /// The latest receipt of a request.
    fn latest(&self, item: &Item) -> Result<Option<(Ref, Vec<u8>)>, StoreError> {
        let store = self.env.store.as_ref();
        let number = |at: &Ref| at.as_str().rsplit('/').next()?.strip_suffix(".json")?.parse::<u32>().ok();
        let latest = store.list(&item.receipts())?.into_iter().filter_map(|(at, _)| Some((number(&at)?, at))).max();
        latest.map(|(_, at)| read(store, &at, RECEIPT_BYTES).map(|bytes| (at, bytes))).transpose()
    }

    /// Has the ledger's chain hold the digest of a receipt. A run that waits keeps its latest event: by it the
    /// queue knows what was refused.
    fn vouch(&self, run_key: &str, at: &Ref, bytes: &[u8]) -> Result<(), LedgerError> {
        match self.host.ledger.head(run_key)? {
            None | Some(Head { status: Status::Queued | Status::Running, .. }) => Ok(()),
            Some(_) => self.host.ledger.vouch(run_key, at.as_str(), blake3::hash(bytes).to_hex().as_str()),
        }
    }

    fn invoke(&self, item: &Item, job: &JobRequest) -> Result<Look, Trouble> {
        match &job.command {
            Command::Build(request) => self.build(item, job, request),
            Command::PublishRetry { run_key } => self.retry(item, job, run_key),
        }
    }

    fn build(&self, item: &Item, job: &JobRequest, request: &Request) -> Result<Look, Trouble> {
        let admitted = match admit::prove(&request.intent, request.supersession.clone(), "") {
            Ok(admitted) => admitted,
            Err(not) => return self.refuse(item, Some(job), &not.refusal),
        };
        if let Some(row) = self.host.ledger.run(admitted.run_key())?.filter(|row| row.status != Status::Rejected) {
            if row.request_hash.as_deref() != Some(admitted.request_hash()) {
                return self.refuse_other(item, job, &refusal_of(&run::taken(&admitted, &row), ReasonCode::RequestIdPayloadMismatch));
            }
            if !matches!(row.status, Status::Queued | Status::Running) {
                return self.close(item, job, &row);
            }
        }
        if let Some(refusal) = self.unfit(item, job) {
            return self.refuse(item, Some(job), &refusal);
        }
        let result = run::take_up(request, &self.env_of_one(), self.host, self.keeper)?;
        self.settle(item, job, &admitted, &result)
    }

    /// The receipt of a run that was just worked on.
    fn settle(&self, item: &Item, job: &JobRequest, admitted: &Admitted, result: &RunResult) -> Result<Look, Trouble> {
        let Some(row) = self.host.ledger.run(admitted.run_key())? else { return Ok(Look::Open) };
        match Status::parse(result.text("/status")) {
            Some(Status::Queued) => Ok(Look::Done(processed(item, "QUEUED", Some(row.run_key)))),
            // Another owner has it.
            None | Some(Status::Running) => Ok(Look::Open),
            Some(Status::Rejected) => {
                let code = result.code().unwrap_or(ReasonCode::InternalError);
                self.receipt(item, self.refused(item, Some(job), &refusal_of(result, code), &row))
            }
            Some(_) => self.close(item, job, &row),
        }
    }

    fn retry(&self, item: &Item, job: &JobRequest, run_key: &str) -> Result<Look, Trouble> {
        let refuse = |code, message: String| self.refuse(item, Some(job), &Refusal::new(code, Phase::Operate, message));
        let Some(row) = self.host.ledger.run(run_key)? else {
            return refuse(ReasonCode::RunNotFound, format!("the ledger holds no run {run_key}"));
        };
        if row.platform_run_id.as_deref() != Some(&job.platform_run_id) {
            return refuse(ReasonCode::RunScopeInvalid, format!("run {run_key} is not of {}", job.platform_run_id));
        }
        match row.status {
            // What another owner works on is waited for; what is done needs no retry.
            Status::Running if !row.takeover_legal(self.host.clock.now()) => return Ok(Look::Open),
            Status::Done => return self.close(item, job, &row),
            _ => {}
        }
        if let Some(refusal) = self.unfit(item, job) {
            return self.refuse(item, Some(job), &refusal);
        }
        let env = self.env_of_one();
        let retried = match row.status {
            // A retry that was interrupted, or whose owner is gone, is gone on with.
            Status::Queued | Status::Running => run::take_up(&Request::of_row(&row)?, &env, self.host, self.keeper),
            _ => run::retry_for(&item.name, &row, &env, self.host, self.keeper),
        };
        match retried {
            Ok(_) => {}
            Err(error @ (LedgerError::Exhausted { .. } | LedgerError::NotPending { .. })) => {
                return refuse(error.code(), error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        match self.host.ledger.run(run_key)? {
            Some(row) if !matches!(row.status, Status::Queued | Status::Running) => self.close(item, job, &row),
            _ => Ok(Look::Open),
        }
    }

    /// Why a request cannot be worked off under the configuration of this worker.
    fn unfit(&self, item: &Item, job: &JobRequest) -> Option<Refusal> {
        // Without a usable authority there is no digest, and the pins gate says why.
        let here = pin::run_config_digest(&run::on_record(self.env, self.host, &item.record())).ok();
        if let Some(here) = here.filter(|here| *here != job.run_config_digest) {
            let message = "the configuration in force is not the one under which the request was queued";
            let evidence = [format!("queued under {}", job.run_config_digest), format!("in force {here}")];
            return Some(Refusal::new(ReasonCode::RunConfigDigestMismatch, Phase::Operate, message).with_evidence(evidence));
        }
        let active = self.env.config.text("workspace", "platform_run_id");
        if !active.is_empty() && active != job.platform_run_id {
            let message = format!("{} is not the active run {active} of this workspace", job.platform_run_id);
            return Some(Refusal::new(ReasonCode::RunScopeInvalid, Phase::Operate, message));
        }
        None
    }

    /// Each run has a progress of its own.
    fn env_of_one(&self) -> Env {
        Env { progress: Arc::new(Progress::default()), ..self.env.clone() }
    }

    /// Puts a refusal of the request itself on record, in the ledger and as a receipt.
    fn refuse(&self, item: &Item, job: Option<&JobRequest>, refusal: &Refusal) -> Result<Look, Trouble> {
        let run_key = item.record();
        let (id, run) = (request_id_valid(&item.name).then_some(item.name.as_str()), Some(item.platform_run_id.as_str()));
        tracing::warn!(request = item.at.as_str(), code = %refusal.code, "refused: {}", refusal.message);
        let row = self.host.ledger.refuse(&run_key, id, run, refusal.code, &refusal.to_json())?;
        self.receipt(item, self.refused(item, job, refusal, &row))
    }

    /// Refuses a request that says something else than the run whose id it has: that run stays as it is.
    fn refuse_other(&self, item: &Item, job: &JobRequest, refusal: &Refusal) -> Result<Look, Trouble> {
        tracing::warn!(request = item.at.as_str(), code = %refusal.code, "refused: {}", refusal.message);
        let (id, run) = (Some(item.name.as_str()), Some(item.platform_run_id.as_str()));
        let row = self.host.ledger.reject(&item.record(), id, run, None, refusal.code, &refusal.to_json())?;
        self.receipt(item, self.refused(item, Some(job), refusal, &row))
    }

    fn refused(&self, item: &Item, job: Option<&JobRequest>, refusal: &Refusal, row: &RunRow) -> Invocation {
        let mut invocation = self.blank(item, job);
        (invocation.started, invocation.completed, invocation.ledger_seq) = (row.updated, row.updated, row.last_seq);
        invocation.run_key = Some(row.run_key.clone());
        invocation.attempt = row.attempt();
        invocation.error = Some((refusal.code.as_str().to_owned(), refusal.message.clone()));
        if !refusal.evidence.is_empty() {
            invocation.details.insert("evidence".into(), json!(refusal.evidence));
        }
        invocation
    }

    /// Writes the receipt of a run that has ended.
    fn close(&self, item: &Item, job: &JobRequest, row: &RunRow) -> Result<Look, Trouble> {
        let Some(ended) = self.host.ledger.ended(&row.run_key)? else { return Ok(Look::Open) };
        let by_worker = match &ended.owner {
            Some(owner) => self.host.ledger.is_worker(owner)?,
            None => false,
        };
        self.receipt(item, self.blank(item, Some(job)).ended(row, &ended, by_worker))
    }

    fn blank(&self, item: &Item, job: Option<&JobRequest>) -> Invocation {
        let launcher = self.env.config.launcher();
        let now = self.host.clock.now();
        Invocation {
            request_id: item.name.clone(),
            request_ref: item.at.to_string(),
            platform_run_id: item.platform_run_id.clone(),
            command: job.map(|j| j.command.name()),
            run_config_digest: job.map(|j| j.run_config_digest.clone()),
            policy: (launcher.policy_id, launcher.revision),
            status: "FAILED",
            started: now,
            completed: now,
            run_key: None,
            attempt: 0,
            ledger_seq: 0,
            refs: Map::new(),
            details: Map::new(),
            error: None,
        }
    }

    /// Writes a receipt under the number of its attempt, or the next one that is free: a refusal can
    /// come before and after an attempt without being one.
    fn receipt(&self, item: &Item, invocation: Invocation) -> Result<Look, Trouble> {
        let store = self.env.store.as_ref();
        let bytes = document(&invocation.to_json());
        let mut number = invocation.attempt.max(1);
        let (at, stands) = loop {
            let at = item.receipts().join(&format!("{number}.json"));
            match create_immutable(store, &at, &bytes)? {
                Immutable::New | Immutable::Same => break (at, bytes),
                Immutable::Different(_) => {
                    let found = read(store, &at, RECEIPT_BYTES)?;
                    // Another worker recorded the same end.
                    if ledger_seq(&found) == invocation.ledger_seq {
                        break (at, found);
                    }
                    number += 1;
                }
            }
        };
        if let Some(run_key) = &invocation.run_key {
            self.vouch(run_key, &at, &stands)?;
        }
        Ok(Look::Done(processed(item, invocation.status, invocation.run_key)))
    }
}

fn processed(item: &Item, status: &'static str, run_key: Option<String>) -> Processed {
    Processed { request_id: item.name.clone(), status, run_key }
}

/// The refusal that a result tells of.
fn refusal_of(result: &RunResult, code: ReasonCode) -> Refusal {
    let evidence = result.document.pointer("/reason/evidence").and_then(Value::as_array).into_iter().flatten();
    Refusal::new(code, Phase::Operate, result.text("/reason/message")).with_evidence(evidence.filter_map(|e| e.as_str().map(str::to_owned)))
}

/// The event that a receipt answers; 0 for one that is not ours.
fn ledger_seq(receipt: &[u8]) -> u64 {
    serde_json::from_slice::<Value>(receipt).ok().and_then(|r| r.get("ledger_seq")?.as_u64()).unwrap_or(0)
}

/// The request in a file of this name, if it is one.
fn item(platform_run_id: &str, name: &str) -> Option<Item> {
    let stem = name.strip_suffix(".json")?;
    Some(Item {
        at: Ref::of(&[platform_run_id, "ofs", REQUESTS, name]),
        platform_run_id: platform_run_id.to_owned(),
        name: request::safe_token(stem),
    })
}

/// The names in a folder; none where there is no folder.
fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            if !matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) {
                tracing::warn!("{} cannot be listed: {error}", folder.display());
            }
            return Vec::new();
        }
    };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// Says three times within the life of a lease that the worker is alive; dropping it signs it off.
struct Heart {
    ledger: Arc<Ledger>,
    owner: Owner,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    /// Registers a worker and begins to say that it is alive.
    fn start(thread: Builder, ledger: Arc<Ledger>, owner: Owner, lease_seconds: u64) -> Result<Self, LedgerError> {
        let (stop, stopped) = bounded::<()>(0);
        let pause = Duration::from_secs(lease_seconds) / 3;
        let (beats, me) = (ledger.clone(), owner.clone());
        let beat = move || {
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                // A ledger that cannot be written stops the worker at its next request, not here.
                if let Err(error) = beats.worker_alive(&me) {
                    tracing::warn!("the worker's heartbeat failed: {error}");
                }
            }
        };
        let thread = thread.name("worker-heart".into()).spawn(beat).map_err(|e| LedgerError::NoHeartbeat(e.to_string()))?;
        // Only now, so that nobody counts on a worker that nothing keeps alive.
        ledger.register_worker(&owner)?;
        Ok(Heart { ledger, owner, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if let Err(error) = self.ledger.worker_stopped(&self.owner) {
            tracing::warn!("the worker could not sign off: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SystemClock;

    #[test]
    fn a_worker_that_nothing_would_keep_alive_is_not_registered() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Ledger::open(&dir.path().join("ledger.db"), Arc::new(SystemClock), "test").unwrap());
        let start = |thread| Heart::start(thread, ledger.clone(), Owner::current(), 3_600);
        // More than there are addresses.
        let refused = start(Builder::new().stack_size(1 << 50)).err().unwrap();
        assert_eq!((refused.code(), ledger.is_worker(&Owner::current())), (ReasonCode::ThreadUnavailable, Ok(false)));
        let heart = start(Builder::new()).unwrap();
        assert_eq!(ledger.is_worker(&Owner::current()), Ok(true));
        drop(heart);
    }
}
