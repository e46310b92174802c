//! One attempt: gate by gate under a lease, every step in the ledger.

use serde_json::{Map, Value, json};

use super::heartbeat::Heartbeat;
use super::outcome::{self, Parts, RunResult};
use super::{GateView, Gatekeeper, Halt, Host, Verdict, done};
use crate::contract::ReasonCode;
use crate::ledger::{End, ExecutionMode, Lease, LedgerError, RunRow, Status};
use crate::pipeline::admit::Admitted;
use crate::pipeline::feature::{self, Drafted};
use crate::pipeline::gate::{Env, Phase, Refusal, document};
use crate::pipeline::peek::{Look, Peek, Peeked, Question};
use crate::pipeline::pin::{self, Found, Pinned};
use crate::pipeline::publish::{self, Commit, Published};
use crate::pipeline::{label, replay};
use crate::source::{Archive, EventLog, FileBus, labels};
use crate::store::{Ref, create_immutable};
use crate::time::Instant;

/// Why an attempt stops.
enum Stop {
    /// A gate refused, the owner was interrupted, or a keeper called it off.
    Refused(Box<Refusal>),
    /// Only the commit is left.
    Pending(Box<Refusal>),
    /// The ledger cannot be written.
    Ledger(LedgerError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(Box::new(refusal))
    }
}

impl From<LedgerError> for Stop {
    fn from(error: LedgerError) -> Self {
        Stop::Ledger(error)
    }
}

/// An attempt that holds the lease.
pub(super) struct Attempt<'a> {
    admitted: Admitted,
    env: Env,
    host: &'a Host,
    lease: Lease,
    heart: Heartbeat,
    number: u32,
    /// Whether an earlier attempt may have left a draft to go on with.
    resumed: bool,
    evidence: Map<String, Value>,
    timings: Map<String, Value>,
    phase_began: Instant,
    journalled: std::sync::atomic::AtomicBool,
    /// Whether the manifest turned up after the commit had been given up.
    late: bool,
    /// Why the keeper handed the run back, if it did.
    handed_back: Option<&'static str>,
}

/// The logs of a run: the archive is the truth, the bus an accelerator.
pub(in crate::pipeline) fn event_logs(env: &Env, run: &str) -> Result<Vec<Box<dyn EventLog>>, Refusal> {
    let bus = FileBus::open(&env.config.path("bus")).map_err(|e| Refusal::new(ReasonCode::SourceIo, Phase::Replay, e.to_string()))?;
    Ok(vec![Box::new(Archive::new(env.store.clone(), run)), Box::new(bus)])
}

fn timeline(env: &Env) -> Result<Box<dyn labels::LabelTimeline>, Refusal> {
    labels::open(&env.config.path("labels")).map_err(|e| Refusal::new(e.code, Phase::Labels, e.to_string()))
}

/// A defect that panics ends the run as FAILED with its words, instead of leaving it RUNNING. What unwinds
/// without words is no panic but a scenario that kills its owner, and passes.
fn contained<T>(work: impl FnOnce() -> Result<T, Stop>) -> Result<T, Stop> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        let Some(words) = words else { std::panic::resume_unwind(panic) };
        Err(Refusal::new(ReasonCode::RunPanicked, Phase::Operate, format!("a defect of this program: {words}")).into())
    })
}

/// Called when a gate has passed, with what it proved.
type AtGate<'g> = dyn FnMut(Phase, &Pinned, Facts, &dyn Peek) -> Result<(), Stop> + 'g;

/// What a gate proved, as (what, value).
type Facts = Vec<(&'static str, String)>;

/// A run that stands at a gate.
struct Standing<'s> {
    lease: &'s Lease,
    host: &'s Host,
    env: &'s Env,
    proof: &'s dyn Peek,
}

impl Halt for Standing<'_> {
    fn run_key(&self) -> &str {
        &self.lease.run_key
    }

    fn set_paused(&self, paused: bool) -> Result<(), LedgerError> {
        self.host.ledger.set_paused(self.lease, paused)
    }

    fn told_to_stop(&self) -> bool {
        self.env.cancel.is_cancelled()
    }

    fn now(&self) -> Instant {
        self.host.clock.now()
    }

    fn max_pause_us(&self) -> i64 {
        i64::try_from(self.env.config.launcher().max_pause_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
    }

    fn looks(&self) -> &'static [Look] {
        self.proof.looks()
    }

    fn peek(&self, question: &Question) -> Result<Peeked, Refusal> {
        self.proof.peek(self.env, question)
    }
}

/// Walks from pins to a draft, without a ledger.
fn draft(pinned: Pinned, env: &Env, at: &mut AtGate<'_>, enter: &mut dyn FnMut(Phase) -> Result<(), Stop>) -> Result<Drafted, Stop> {
    let count = |value: &Value, key: &str| value.get(key).map(Value::to_string).unwrap_or_default();
    enter(Phase::Replay)?;
    let logs = event_logs(env, &pinned.intent().platform_run_id)?;
    let replayed = replay::prove(pinned, env, &logs)?;
    let facts = vec![
        ("events", count(replayed.proof(), "events")),
        ("partitions", replayed.lanes().len().to_string()),
        ("status", "COMPLETE".into()),
    ];
    at(Phase::Replay, replayed.pinned(), facts, &replayed)?;
    enter(Phase::Labels)?;
    let labelled = label::prove(replayed, env, timeline(env)?.as_ref())?;
    let ready = labelled.proof().pointer("/gate/ready").map(Value::to_string).unwrap_or_default();
    let facts = vec![
        ("rows", labelled.rows().to_string()),
        ("late assertions (excluded)", count(labelled.observation(), "late_total")),
        ("ready for training", ready),
    ];
    at(Phase::Labels, labelled.pinned(), facts, &labelled)?;
    enter(Phase::Features)?;
    let drafted = feature::prove(labelled, env)?;
    let facts = vec![
        ("rows", drafted.rows().to_string()),
        ("rows digest", drafted.rows_digest().to_owned()),
        ("parts", drafted.files().len().to_string()),
    ];
    at(Phase::Features, drafted.pinned(), facts, &drafted)?;
    Ok(drafted)
}

/// A rebuild for lost files that contradicts what this very run had proved is, for whoever asked for the
/// files, a data set that cannot be restored (`interface` 6).
fn drifted(refusal: Refusal) -> Refusal {
    let cause = match refusal.code {
        ReasonCode::LabelResolutionImmutabilityViolation => {
            "LABEL_STATE_DRIFT: an assertion was added under an observed time before the cut-off, changed or removed"
        }
        ReasonCode::CompletenessReceiptImmutabilityViolation => "the archive delivers other records than were proved",
        ReasonCode::DatasetDraftImmutabilityViolation => "the same inputs give other rows",
        _ => return refusal,
    };
    let message = format!("the rebuilt rows are not those that were published ({cause})");
    let first = format!("{}: {}", refusal.code, refusal.message);
    Refusal::new(ReasonCode::DatasetArtifactImmutabilityViolation, Phase::Publication, message)
        .with_evidence(std::iter::once(first).chain(refusal.evidence))
}

/// Rebuilds a published data set and puts back what is missing; what was put back.
pub(super) fn restore(pinned: Pinned, env: &Env) -> Result<Vec<String>, Refusal> {
    let found = pinned.find_published(env)?.ok_or_else(|| {
        Refusal::new(ReasonCode::DatasetNotFound, Phase::Publication, "the manifest itself is gone; a new request id publishes again")
    })?;
    let drafted = draft(pinned, env, &mut |_, _, _, _| Ok(()), &mut |_| Ok(())).map_err(|stop| match stop {
        Stop::Refused(r) | Stop::Pending(r) => drifted(*r),
        Stop::Ledger(e) => Refusal::new(e.code(), Phase::Ledger, e.to_string()),
    })?;
    publish::restore(&drafted, env, &found)?;
    Ok(found.missing)
}

impl<'a> Attempt<'a> {
    /// Takes the lease and starts the heartbeat; a live owner elsewhere is the other answer.
    pub(super) fn start(
        admitted: Admitted,
        row: &RunRow,
        mode: ExecutionMode,
        env: &Env,
        host: &'a Host,
    ) -> Result<Result<Self, Box<RunResult>>, LedgerError> {
        let seconds = env.config.launcher().lease_seconds;
        let lease_us = i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        let lease = match host.ledger.start(&row.run_key, mode, &host.owner, lease_us) {
            Ok(lease) => lease,
            Err(LedgerError::Busy { owner, expires }) => {
                let refusal =
                    Refusal::new(ReasonCode::RunBusy, Phase::Ledger, format!("{owner} works on this run; its lease lives until {expires}"));
                return Ok(Err(Box::new(RunResult::refused(&admitted.intent().request_id, admitted.run_key(), Status::Running, &refusal))));
            }
            Err(error) => return Err(error),
        };
        let number = host.ledger.run(&row.run_key)?.map_or(1, |r| r.attempt());
        // The token is a child, so that a lost lease stops this build and no other.
        let env = Env { cancel: env.cancel.child_token(), attempt: lease.epoch.to_string(), ..env.clone() };
        let heart = Heartbeat::start(host.ledger.clone(), lease.clone(), &env, seconds);
        let resumed = row.last_seq > 1;
        Ok(Ok(Attempt {
            admitted,
            host,
            lease,
            heart,
            number,
            resumed,
            evidence: Map::new(),
            timings: Map::new(),
            phase_began: host.clock.now(),
            journalled: false.into(),
            late: false,
            handed_back: None,
            env,
        }))
    }

    /// The keys that every log record of this attempt carries (O150).
    fn span(&self) -> tracing::Span {
        let intent = self.admitted.intent();
        tracing::info_span!(
            "attempt",
            run_key = self.lease.run_key,
            attempt = self.number,
            request_id = intent.request_id,
            platform_run_id = intent.platform_run_id,
            basis_hash = crate::identity::basis_hash(intent),
            feature_set = format!("{}@{}", intent.feature_set_id, intent.feature_set_version),
            label_asof_utc = intent.labels.asof.to_string(),
            policy_revision = intent.policy_revision,
        )
    }

    /// The whole corridor.
    pub(super) fn walk(mut self, keeper: &dyn Gatekeeper) -> Result<RunResult, LedgerError> {
        let _story = self.span().entered();
        let outcome = contained(|| self.full(keeper));
        let outcome = contained(|| self.tell_refused(outcome, keeper));
        self.close(outcome)
    }

    /// The publication alone, from this run's own draft.
    pub(super) fn republish(mut self, keeper: &dyn Gatekeeper) -> Result<RunResult, LedgerError> {
        let _story = self.span().entered();
        let outcome = contained(|| self.publish_only(keeper));
        let outcome = contained(|| self.tell_refused(outcome, keeper));
        self.close(outcome)
    }

    /// A manifest turned up after the commit had been given up.
    pub(super) fn adopt_late(mut self) -> Result<RunResult, LedgerError> {
        self.late = true;
        let outcome = self.pins(&super::Unattended).and_then(|pinned| match pinned.find_published(&self.env)? {
            Some(found) if found.missing.is_empty() => Ok((self.whose(&pinned)?, publish::adopt(&pinned, &self.env, found)?)),
            _ => Err(Refusal::new(
                ReasonCode::PublishAmbiguous,
                Phase::Publication,
                "the manifest that had turned up cannot be read any more",
            )
            .into()),
        });
        self.close(outcome)
    }

    fn full(&mut self, keeper: &dyn Gatekeeper) -> Result<(&'static str, Published), Stop> {
        let pinned = self.pins(keeper)?;
        if let Some(found) = pinned.find_published(&self.env)? {
            return self.converge(pinned, found, keeper);
        }
        let run = &pinned.intent().platform_run_id;
        if !crate::store::self_test(self.env.store.as_ref(), run, pinned.admitted().run_key(), &self.env.attempt)
            .map_err(|e| Refusal::of_store(Phase::Publication, &e))?
        {
            return Err(Refusal::new(
                ReasonCode::StoreNoConditionalCreate,
                Phase::Publication,
                "a second create of one name was not refused by the store",
            )
            .into());
        }
        let drafted = match self.earlier_draft(&pinned) {
            Some(drafted) => drafted,
            None => self.build(pinned, keeper)?,
        };
        self.publish(&drafted, keeper)
    }

    fn pins(&mut self, keeper: &dyn Gatekeeper) -> Result<Pinned, Stop> {
        self.enter(Phase::Pins)?;
        self.env.check(Phase::Pins)?;
        let pinned = pin::prove(self.admitted.clone(), &self.env)?;
        self.host.ledger.identify(&self.lease, &pinned.id().fingerprint, &pinned.id().manifest_id)?;
        let facts = vec![
            ("data set", pinned.id().manifest_id.clone()),
            ("feature set", format!("{}@{}", pinned.group().name, pinned.group().version)),
            ("group digest", pinned.group_digest().to_owned()),
            ("label cut-off", pinned.intent().labels.asof.to_string()),
            ("shards", pinned.shards().to_string()),
        ];
        self.passed(Phase::Pins, &pinned, facts, &pinned, keeper)?;
        Ok(pinned)
    }

    fn build(&mut self, pinned: Pinned, keeper: &dyn Gatekeeper) -> Result<Drafted, Stop> {
        let env = self.env.clone();
        let this = std::cell::RefCell::new(self);
        draft(
            pinned,
            &env,
            &mut |phase, pinned, facts, proof| this.borrow_mut().passed(phase, pinned, facts, proof, keeper),
            &mut |phase| this.borrow_mut().enter(phase),
        )
    }

    /// The identity is published already: its data set is the answer, after a look whether it is whole.
    fn converge(&mut self, pinned: Pinned, found: Found, keeper: &dyn Gatekeeper) -> Result<(&'static str, Published), Stop> {
        let outcome = self.whose(&pinned)?;
        if found.missing.is_empty() {
            self.enter(Phase::Publication)?;
            return Ok((outcome, publish::adopt(&pinned, &self.env, found)?));
        }
        let drafted = self.build(pinned.clone(), keeper).map_err(|stop| match stop {
            Stop::Refused(refusal) => drifted(*refusal).into(),
            other => other,
        })?;
        self.enter(Phase::Publication)?;
        publish::restore(&drafted, &self.env, &found)?;
        self.host.ledger.record(&self.lease, "DATA_RESTORED", None, &json!({"restored": found.missing}))?;
        let found = pinned.find_published(&self.env)?.ok_or_else(|| {
            Refusal::new(ReasonCode::ManifestInvalid, Phase::Publication, "the manifest vanished while its data was restored")
        })?;
        Ok((outcome, publish::adopt(&pinned, &self.env, found)?))
    }

    /// Whose publication stands: this run itself may have put the manifest before it was cut off, unless
    /// the record says that another did.
    fn whose(&self, pinned: &Pinned) -> Result<&'static str, LedgerError> {
        let runs = self.host.ledger.by_manifest(&pinned.id().manifest_id)?;
        let (mine, others): (Vec<&RunRow>, Vec<&RunRow>) = runs.iter().partition(|r| r.run_key == self.lease.run_key);
        let new = |r: &&RunRow| r.result.as_ref().and_then(|d| d.get("outcome")).and_then(Value::as_str) == Some("NEW");
        let began = mine.iter().any(|r| r.commit_started);
        Ok(if began && !others.iter().any(new) { "NEW" } else { "ALREADY_PUBLISHED" })
    }

    /// The digest of the receipt that each gate left, as the ledger recorded it.
    fn recorded(&self) -> Result<Map<String, Value>, LedgerError> {
        let mut recorded = Map::new();
        for event in self.host.ledger.events(&self.lease.run_key, 0)? {
            if event.event_type == "GATE_PASSED"
                && let (Some(phase), Some(digest)) =
                    (event.detail.get("phase").and_then(Value::as_str), event.detail.pointer("/evidence/receipt_blake3"))
            {
                recorded.insert(phase.to_owned(), digest.clone());
            }
        }
        Ok(recorded)
    }

    fn reprove(&self, pinned: Pinned) -> Result<Drafted, Stop> {
        let recorded = self.recorded()?;
        Ok(Drafted::reprove(pinned, &self.env, &|gate| recorded.get(gate).and_then(Value::as_str).map(str::to_owned))?)
    }

    /// A draft that an earlier attempt completed, if every byte of it still proves itself; else the
    /// gates are walked again, which costs time and never truth.
    fn earlier_draft(&self, pinned: &Pinned) -> Option<Drafted> {
        if !self.resumed {
            return None;
        }
        let drafted = self.reprove(pinned.clone()).ok()?;
        drafted.check_staged(&self.env).ok()?;
        tracing::info!(run_key = self.lease.run_key, phase = "features", "going on with the draft of an earlier attempt");
        Some(drafted)
    }

    fn publish_only(&mut self, keeper: &dyn Gatekeeper) -> Result<(&'static str, Published), Stop> {
        let pinned = self.pins(&super::Unattended)?;
        if let Some(found) = pinned.find_published(&self.env)?.filter(|f| f.missing.is_empty()) {
            self.late = true;
            return Ok((self.whose(&pinned)?, publish::adopt(&pinned, &self.env, found)?));
        }
        let drafted = self.reprove(pinned)?;
        self.publish(&drafted, keeper)
    }

    fn publish(&mut self, drafted: &Drafted, keeper: &dyn Gatekeeper) -> Result<(&'static str, Published), Stop> {
        self.enter(Phase::Publication)?;
        // Whether an earlier attempt of this run may have put the manifest: asked before this one journals.
        let before = self.whose(drafted.pinned())?;
        let (host, lease, journalled) = (self.host, &self.lease, &self.journalled);
        let journal = |manifest: &Ref| {
            journalled.store(true, std::sync::atomic::Ordering::SeqCst);
            host.ledger.commit_started(lease, manifest.as_str()).map_err(|e| Refusal::new(e.code(), Phase::Ledger, e.to_string()))
        };
        match publish::publish(drafted, &self.env, &journal) {
            Ok(Commit::Published(published)) => {
                let facts = vec![("manifest", published.manifest_ref.to_string()), ("rows", drafted.rows().to_string())];
                self.passed(Phase::Publication, drafted.pinned(), facts, drafted, keeper).or_else(|stop| match stop {
                    // Once committed there is nothing to call off.
                    Stop::Refused(_) => Ok(()),
                    other => Err(other),
                })?;
                // Of two that race for one identity, the store lets one make the manifest.
                Ok((if published.created { "NEW" } else { before }, *published))
            }
            Ok(Commit::Pending(refusal)) => Err(Stop::Pending(Box::new(refusal))),
            // The draft is whole; what failed is the environment, so only the publication is left.
            Err(refusal) if refusal.code == ReasonCode::StoreIo => Err(Stop::Pending(Box::new(refusal))),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn enter(&mut self, phase: Phase) -> Result<(), Stop> {
        self.phase_began = self.host.clock.now();
        self.env.progress.enter(phase, 0);
        tracing::info!(run_key = self.lease.run_key, phase = phase.as_str(), attempt = self.number, "enter");
        Ok(self.host.ledger.enter_phase(&self.lease, phase.as_str())?)
    }

    /// A gate has passed: its receipt's digest goes to the ledger, and the keeper may look.
    fn passed(&mut self, phase: Phase, pinned: &Pinned, facts: Facts, proof: &dyn Peek, keeper: &dyn Gatekeeper) -> Result<(), Stop> {
        let (name, folder) = match phase {
            Phase::Pins => ("plan", "resolved_build_plan"),
            Phase::Replay => ("replay", "replay_completeness"),
            Phase::Labels => ("labels", "label_resolution"),
            Phase::Features => ("draft", "dataset_draft"),
            _ => ("publication", "publication_receipts"),
        };
        let at = pinned.receipt_ref(folder);
        let (digest, _) = crate::store::digest(self.env.store.as_ref(), &at).map_err(|e| Refusal::of_store(phase, &e))?;
        let took = self.host.clock.now().0.saturating_sub(self.phase_began.0) / 1_000;
        self.timings.insert(phase.as_str().into(), json!(took));
        self.evidence.insert(name.into(), json!(at.as_str()));
        let described: Map<String, Value> = facts.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        self.host.ledger.gate_passed(
            &self.lease,
            phase.as_str(),
            &json!({"receipt_ref": at.as_str(), "receipt_blake3": digest, "facts": described}),
        )?;
        let _ = self.host.ledger.sample(&self.lease, &self.env.progress.sample());
        tracing::info!(run_key = self.lease.run_key, phase = phase.as_str(), took_ms = took, "passed");
        let view = GateView { run_key: self.lease.run_key.clone(), phase, facts, evidence: at.to_string() };
        let verdict = keeper.passed(&view, &Standing { lease: &self.lease, host: self.host, env: &self.env, proof });
        // A signal or an operator's order goes before whatever was answered here.
        self.env.check(phase)?;
        match verdict {
            Verdict::Go => Ok(()),
            Verdict::CallOff => {
                Err(Refusal::new(ReasonCode::CancelledByOperator, phase, format!("called off at the {} gate", phase.as_str())).into())
            }
            Verdict::HandBack(why) => {
                self.handed_back = Some(why);
                Err(Refusal::new(ReasonCode::Interrupted, phase, format!("handed back at the {} gate: {why}", phase.as_str())).into())
            }
        }
    }

    /// A gate has refused: the keeper may look at what was found before the run is closed with it.
    fn tell_refused<T>(&self, outcome: Result<T, Stop>, keeper: &dyn Gatekeeper) -> Result<T, Stop> {
        if let Err(Stop::Refused(refusal)) = &outcome {
            let ours = [ReasonCode::Interrupted, ReasonCode::CancelledByOperator, ReasonCode::LeaseLost].contains(&refusal.code);
            if !ours && !self.env.cancel.is_cancelled() {
                let halt = Standing { lease: &self.lease, host: self.host, env: &self.env, proof: refusal.as_ref() };
                keeper.refused(refusal, &halt);
            }
        }
        outcome
    }

    /// Writes the end of the attempt into the ledger and makes the result.
    fn close(self, outcome: Result<(&'static str, Published), Stop>) -> Result<RunResult, LedgerError> {
        match outcome {
            Ok((outcome, published)) => {
                let mut evidence = self.evidence.clone();
                evidence.insert("publication".into(), json!(published.receipt_ref.as_str()));
                let dataset = outcome::dataset(&published.manifest_ref, &published.index);
                let result = self.result(Status::Done, Some(outcome), None, dataset, evidence);
                let end = done(&published, &result, self.late);
                self.finish(end, result)
            }
            Err(Stop::Ledger(LedgerError::LeaseLost { .. })) => Ok(self.superseded()),
            Err(Stop::Ledger(error)) => Err(error),
            Err(Stop::Refused(refusal)) if refusal.code == ReasonCode::LeaseLost || self.heart.lost() => Ok(self.superseded()),
            Err(Stop::Refused(refusal)) if refusal.code == ReasonCode::Interrupted => match self.heart.asked().cloned() {
                Some(request) => {
                    let refusal = Refusal::new(request.action.reason(), refusal.phase, request.to_string());
                    self.refused(refusal.with_artifact(request.to_json()))
                }
                None => self.interrupted(&refusal),
            },
            Err(Stop::Refused(refusal)) => self.refused(*refusal),
            Err(Stop::Pending(refusal)) => {
                let result = self.result(Status::PublishPending, None, Some(&refusal), Value::Null, self.evidence.clone());
                tracing::warn!(run_key = self.lease.run_key, code = %refusal.code, phase = refusal.phase.as_str(), "publication pending: {}", refusal.message);
                self.finish(End::Pending { reason: refusal.code, document: refusal.to_json(), result: result.document.clone() }, result)
            }
        }
    }

    fn refused(self, refusal: Refusal) -> Result<RunResult, LedgerError> {
        let mut evidence = self.evidence.clone();
        if let Some(at) = self.keep_findings(&refusal) {
            evidence.insert("refusal".into(), json!(at.as_str()));
        }
        tracing::warn!(run_key = self.lease.run_key, code = %refusal.code, phase = refusal.phase.as_str(), "refused: {}", refusal.message);
        let cancelled = refusal.code == ReasonCode::CancelledByOperator;
        let status = if cancelled { Status::Cancelled } else { Status::Failed };
        let result = self.result(status, None, Some(&refusal), Value::Null, evidence);
        let (reason, document) = (refusal.code, refusal.to_json());
        let end = if cancelled {
            End::Cancelled { reason, document, result: result.document.clone() }
        } else {
            let class = refusal.end_class();
            End::Failed { reason, end_class: (!class.is_empty()).then(|| class.to_owned()), document, result: result.document.clone() }
        };
        self.finish(end, result)
    }

    fn interrupted(self, refusal: &Refusal) -> Result<RunResult, LedgerError> {
        let signal = self.host.signal.get().or(self.handed_back).unwrap_or("CANCEL");
        let mut result = self.result(Status::Queued, None, Some(refusal), Value::Null, self.evidence.clone());
        result.exit = match signal {
            "HUP" => 129,
            "TERM" => 143,
            _ => 130,
        };
        self.finish(End::Interrupted { signal: signal.to_owned() }, result)
    }

    fn superseded(self) -> RunResult {
        let refusal = Refusal::new(
            ReasonCode::LeaseLost,
            Phase::Ledger,
            format!("another owner took run {} over, or an operator ended it; this one wrote nothing more", self.lease.run_key),
        );
        self.result(Status::Running, None, Some(&refusal), Value::Null, self.evidence.clone())
    }

    fn finish(self, end: End, result: RunResult) -> Result<RunResult, LedgerError> {
        match self.host.ledger.finish(&self.lease, &end) {
            // An operator had asked meanwhile for another end, which the ledger saw to in the same write.
            Ok(row) if Some(row.status.as_str()) != result.document.get("status").and_then(Value::as_str) => Ok(RunResult::pending(&row)),
            Ok(_) => Ok(result),
            Err(LedgerError::LeaseLost { .. }) => Ok(self.superseded()),
            Err(error) => Err(error),
        }
    }

    fn result(
        &self,
        status: Status,
        outcome: Option<&'static str>,
        reason: Option<&Refusal>,
        dataset: Value,
        evidence: Map<String, Value>,
    ) -> RunResult {
        RunResult::of(Parts {
            request_id: &self.admitted.intent().request_id,
            run_key: self.admitted.run_key(),
            status,
            outcome,
            reason,
            dataset,
            evidence,
            timings: self.timings.clone(),
        })
    }

    /// What a refused gate found, for whoever has to clear it. A store that fails here changes nothing:
    /// the refusal itself stands in the ledger.
    fn keep_findings(&self, refusal: &Refusal) -> Option<Ref> {
        let run = &self.admitted.intent().platform_run_id;
        let folder = Ref::of(&[run, "ofs", "refusals", self.admitted.run_key(), &self.number.to_string()]);
        let mut found = refusal.to_json();
        let mut findings = refusal.artifact.clone().unwrap_or(Value::Null);
        if let Some(anomalies) = findings.as_object_mut().and_then(|f| f.remove("anomalies")) {
            // Anomalies are an artifact of their own (O074).
            let _ = create_immutable(self.env.store.as_ref(), &folder.join("anomalies.json"), &document(&anomalies));
        }
        if let Some(map) = found.as_object_mut() {
            map.insert("schema_version".into(), json!("ofs.refusal.v1"));
            map.insert("findings".into(), findings);
        }
        let at = folder.join(&format!("{}.json", refusal.phase.as_str()));
        match create_immutable(self.env.store.as_ref(), &at, &document(&found)) {
            Ok(_) => Some(at),
            Err(error) => {
                tracing::warn!(run_key = self.lease.run_key, "the refusal's findings could not be kept: {error}");
                None
            }
        }
    }
}
