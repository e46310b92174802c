//! One attempt: gate by gate under a lease, every step in the ledger.

mod report;

use std::thread::Builder;

use serde_json::{Map, Value, json};

use super::audit;
use super::halt::Standing;
use super::heartbeat::{Heartbeat, Lost, Ready};
use super::outcome::{self, Parts, RunResult};
use super::walk::{Facts, Keeper, Reached, Story, Untold, draft};
use super::{GateView, Gatekeeper, Host, Verdict, done};
use crate::contract::ReasonCode;
use crate::contract::intent::IntentKind;
use crate::ledger::{BACKFILL_DECLARED, End, ExecutionMode, Lease, LedgerError, Retry, RunRow, Status};
use crate::pipeline::admit::Admitted;
use crate::pipeline::feature::Drafted;
use crate::pipeline::gate::{Env, Phase, Refusal, document};
use crate::pipeline::kept;
use crate::pipeline::peek::Peek;
use crate::pipeline::pin::{self, Found, Pinned};
use crate::pipeline::publish::{self, Commit, Published};
use crate::pipeline::replay::Replayed;
use crate::source::{Archive, EventLog, FileBus, Sealed, labels};
use crate::store::{Immutable, Ref, RefType, create_immutable};
use crate::time::Instant;

/// Why an attempt stops.
pub(super) enum Stop {
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

/// By what an attempt may begin.
pub(super) enum Right<'r> {
    /// The state of the run.
    State(ExecutionMode),
    /// A publish-only retry.
    Retry(Retry<'r>),
}

/// An attempt that holds the lease.
pub(super) struct Attempt<'a> {
    admitted: Admitted,
    pub(super) env: Env,
    pub(super) host: &'a Host,
    pub(super) lease: Lease,
    heart: Heartbeat,
    number: u32,
    /// Whether an earlier attempt may have left something to go on with.
    pub(super) resumed: bool,
    evidence: Map<String, Value>,
    timings: Map<String, Value>,
    /// What the result says besides the data set: how a comparison with an anchor ended.
    findings: Map<String, Value>,
    phase_began: Instant,
    /// Whether the manifest turned up after the commit had been given up.
    late: bool,
    /// Why the keeper handed the run back, if it did.
    handed_back: Option<&'static str>,
}

/// The logs of a run: the archive is the truth, sealed segments stand for what they verified of it, and the
/// bus is an accelerator.
pub(crate) fn event_logs(env: &Env, run: &str) -> Result<Vec<Box<dyn EventLog>>, Refusal> {
    let bus = FileBus::open(&env.config.path("bus")).map_err(|e| Refusal::new(ReasonCode::SourceIo, Phase::Replay, e.to_string()))?;
    let sealed = Sealed::new(env.store.clone(), run);
    let archive = Archive::new(env.store.clone(), run).beside(sealed.index());
    Ok(vec![Box::new(sealed), Box::new(archive), Box::new(bus)])
}

/// The label store, through the evidence corridor.
pub(crate) fn timeline(env: &Env) -> Result<Box<dyn labels::LabelTimeline>, Refusal> {
    let found = env
        .corridor("")
        .file(RefType::LabelTimeline, env.config.text("paths", "labels"), "to resolve labels as they were known")
        .map_err(|denied| Refusal::of_denial(Phase::Labels, &denied, ReasonCode::LabelStoreUnavailable))?;
    // Where nothing is there the timeline says so, in the words of its kind.
    let at = found.unwrap_or_else(|| env.config.path("labels"));
    labels::open(&at).map_err(|e| Refusal::new(e.code, Phase::Labels, e.to_string()))
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

/// Rebuilds a published data set and puts back what is missing; what was put back. Where the manifest itself
/// is gone, the run's receipt vouches for it, of which the ledger `recorded` the digest.
pub(super) fn restore(pinned: Pinned, env: &Env, recorded: &str) -> Result<Vec<String>, Refusal> {
    let (found, vouched) = match pinned.find_published(env)? {
        Some(found) => (found, None),
        None => {
            let vouched = publish::vouched(&pinned, env, recorded)?;
            (pinned.find_remains(env)?, Some(vouched))
        }
    };
    let drafted = rebuild(pinned, env).map_err(drifted)?;
    publish::restore(&drafted, env, &found, vouched.as_ref())?;
    drafted.pinned().clear_staging(env, |_| true);
    Ok(found.missing)
}

/// Puts every gate of an attempt on record.
struct Told<'t, 'a> {
    attempt: &'t mut Attempt<'a>,
    keeper: &'t dyn Gatekeeper,
}

impl Story for Told<'_, '_> {
    fn compare(&mut self, replayed: &Replayed) -> Result<(), Stop> {
        self.attempt.warn_of_parity(replayed)
    }

    fn enter(&mut self, phase: Phase) -> Result<(), Stop> {
        self.attempt.enter(phase)
    }

    fn passed(&mut self, phase: Phase, pinned: &Pinned, facts: Facts, keep: Option<Keeper<'_>>, proof: &dyn Peek) -> Result<(), Stop> {
        self.attempt.passed(phase, pinned, facts, keep, proof, self.keeper)
    }
}

/// What evidence calls the receipt of a gate, and the folder that it lies in.
fn receipt(pinned: &Pinned, phase: Phase) -> (&'static str, &'static str) {
    let name = match phase {
        Phase::Features if !pinned.publishes() => return report::folder(pinned),
        Phase::Pins => "plan",
        Phase::Replay => "replay",
        Phase::Labels => "labels",
        Phase::Features => "draft",
        _ => "publication",
    };
    (name, kept::receipt_folder(phase))
}

/// Walks from pins to a draft without a ledger: for a store that nobody publishes from.
pub(super) fn rebuild(pinned: Pinned, env: &Env) -> Result<Drafted, Refusal> {
    draft(Reached::Pins(Box::new(pinned)), env, &mut Untold).map_err(|stop| match stop {
        Stop::Refused(r) | Stop::Pending(r) => *r,
        Stop::Ledger(e) => Refusal::new(e.code(), Phase::Ledger, e.to_string()),
    })
}

impl<'a> Attempt<'a> {
    /// Takes the lease and starts the heartbeat; what there is instead, as where a live owner is elsewhere, is the
    /// other answer.
    pub(super) fn start(
        admitted: Admitted,
        row: &RunRow,
        right: Right<'_>,
        env: &Env,
        host: &'a Host,
    ) -> Result<Result<Self, Box<RunResult>>, LedgerError> {
        let seconds = env.config.launcher().lease_seconds;
        let lease_us = i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        let key = &row.run_key;
        let ready = Ready::new(Builder::new())?;
        let started = match right {
            Right::State(mode) => host.ledger.start_after(key, mode, Some(row.full_run_attempts), &host.owner, lease_us).map(Some),
            Right::Retry(retry) => host.ledger.start_retry(key, &retry, &host.owner, lease_us),
        };
        let lease = match started {
            Ok(Some(lease)) => lease,
            Ok(None) => return Ok(Err(Box::new(RunResult::pending(row)))),
            Err(LedgerError::Busy { owner, expires }) => {
                let refusal =
                    Refusal::new(ReasonCode::RunBusy, Phase::Ledger, format!("{owner} works on this run; its lease lives until {expires}"));
                return Ok(Err(Box::new(RunResult::refused(&admitted.intent().request_id, admitted.run_key(), Status::Running, &refusal))));
            }
            Err(error) => return Err(error),
        };
        let number = host.ledger.run(&row.run_key)?.map_or(1, |r| r.attempt());
        // The token is a child, so that a lost lease stops this build and no other.
        let env = Env { cancel: env.cancel.child_token(), attempt: lease.epoch.to_string(), ..audit::on_record_of(env, host, &lease) };
        let heart = Heartbeat::start(ready, host.ledger.clone(), lease.clone(), &env, seconds);
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
            findings: Map::new(),
            phase_began: host.clock.now(),
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
            // Known once the pins are frozen.
            plan_id = tracing::field::Empty,
            manifest_id = tracing::field::Empty,
        )
    }

    /// The whole corridor.
    pub(super) fn walk(mut self, keeper: &dyn Gatekeeper) -> Result<RunResult, LedgerError> {
        let _story = self.span().entered();
        if self.admitted.intent().kind != IntentKind::DatasetBuild {
            let outcome = contained(|| self.report(keeper));
            return self.close_report(outcome);
        }
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
        let outcome = contained(|| self.late());
        self.close(outcome)
    }

    fn late(&mut self) -> Result<(&'static str, Published), Stop> {
        let pinned = self.pins(&super::Unattended)?;
        match pinned.find_published(&self.env)? {
            Some(found) if found.missing.is_empty() => Ok((self.whose(&pinned)?, publish::adopt(&pinned, &self.env, found)?)),
            _ => Err(Refusal::new(
                ReasonCode::PublishAmbiguous,
                Phase::Publication,
                "the manifest that had turned up cannot be read any more",
            )
            .into()),
        }
    }

    fn full(&mut self, keeper: &dyn Gatekeeper) -> Result<(&'static str, Published), Stop> {
        let pinned = self.pins(keeper)?;
        if let Some(found) = pinned.find_published(&self.env)? {
            return self.converge(pinned, found, keeper);
        }
        self.test_store(&pinned)?;
        let reached = self.furthest(pinned, keeper)?;
        let drafted = self.build(reached, keeper)?;
        self.publish(&drafted, keeper)
    }

    /// A store that cannot create conditionally may not be published into.
    fn test_store(&self, pinned: &Pinned) -> Result<(), Stop> {
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
        Ok(())
    }

    fn pins(&mut self, keeper: &dyn Gatekeeper) -> Result<Pinned, Stop> {
        self.enter(Phase::Pins)?;
        self.env.check(Phase::Pins)?;
        let pinned = pin::prove(self.admitted.clone(), &self.env)?;
        self.host.ledger.identify(&self.lease, &pinned.id().fingerprint, &pinned.id().manifest_id)?;
        let span = tracing::Span::current();
        span.record("plan_id", pinned.plan().get("plan_id").and_then(Value::as_str).unwrap_or_default());
        span.record("manifest_id", pinned.id().manifest_id.as_str());
        self.declare(&pinned)?;
        let facts = vec![
            ("data set", pinned.id().manifest_id.clone()),
            ("feature set", format!("{}@{}", pinned.group().name, pinned.group().version)),
            ("group digest", pinned.group_digest().to_owned()),
            ("label cut-off", pinned.intent().labels.asof.to_string()),
            ("shards", pinned.shards().to_string()),
        ];
        self.passed(Phase::Pins, &pinned, facts, None, &pinned, keeper)?;
        Ok(pinned)
    }

    /// A correction is declared once, however many attempts it takes: what it supersedes exists, which the
    /// pins have proved, and the reason is on record before anything is built (O121, O122).
    fn declare(&self, pinned: &Pinned) -> Result<(), LedgerError> {
        let (superseded, reason) = (pinned.admitted().superseded(), pinned.admitted().supersede_reason());
        let declared = || -> Result<bool, LedgerError> {
            Ok(self.host.ledger.events(&self.lease.run_key, 0)?.iter().any(|e| e.event_type == BACKFILL_DECLARED))
        };
        if superseded.is_empty() || declared()? {
            return Ok(());
        }
        let detail = json!({"manifest_id": pinned.id().manifest_id, "supersedes": superseded, "reason": reason});
        self.host.ledger.record(&self.lease, BACKFILL_DECLARED, None, &detail)
    }

    fn build(&mut self, from: Reached, keeper: &dyn Gatekeeper) -> Result<Drafted, Stop> {
        let env = self.env.clone();
        draft(from, &env, &mut Told { attempt: self, keeper })
    }

    /// The identity is published already: its data set is the answer, after a look whether it is whole.
    fn converge(&mut self, pinned: Pinned, found: Found, keeper: &dyn Gatekeeper) -> Result<(&'static str, Published), Stop> {
        let outcome = self.whose(&pinned)?;
        if outcome == "ALREADY_PUBLISHED" {
            publish::reusable(&pinned, &self.env)?;
        }
        if found.missing.is_empty() {
            self.enter(Phase::Publication)?;
            return Ok((outcome, publish::adopt(&pinned, &self.env, found)?));
        }
        let drafted = self.build(Reached::Pins(Box::new(pinned.clone())), keeper).map_err(|stop| match stop {
            Stop::Refused(refusal) => drifted(*refusal).into(),
            other => other,
        })?;
        self.enter(Phase::Publication)?;
        publish::restore(&drafted, &self.env, &found, None)?;
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

    fn publish_only(&mut self, keeper: &dyn Gatekeeper) -> Result<(&'static str, Published), Stop> {
        let pinned = self.pins(&super::Unattended)?;
        if let Some(found) = pinned.find_published(&self.env)?.filter(|f| f.missing.is_empty()) {
            self.late = true;
            return Ok((self.whose(&pinned)?, publish::adopt(&pinned, &self.env, found)?));
        }
        let recorded = self.recorded()?;
        let reached = Reached::Draft(Box::new(Drafted::reprove(pinned, &self.env, &recorded)?));
        self.tell(&reached, &recorded, &super::Unattended)?;
        let drafted = self.build(reached, keeper)?;
        self.publish(&drafted, keeper)
    }

    fn publish(&mut self, drafted: &Drafted, keeper: &dyn Gatekeeper) -> Result<(&'static str, Published), Stop> {
        self.enter(Phase::Publication)?;
        // Whether an earlier attempt of this run may have put the manifest: asked before this one journals.
        let before = self.whose(drafted.pinned())?;
        let (host, lease) = (self.host, &self.lease);
        let journal = |manifest: &Ref| {
            host.ledger.commit_started(lease, manifest.as_str()).map_err(|e| Refusal::new(e.code(), Phase::Ledger, e.to_string()))
        };
        match publish::publish(drafted, &self.env, &journal) {
            Ok(Commit::Published(published)) => {
                let facts = vec![("manifest", published.manifest_ref.to_string()), ("rows", drafted.rows().to_string())];
                self.passed(Phase::Publication, drafted.pinned(), facts, None, drafted, keeper).or_else(|stop| match stop {
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

    pub(super) fn enter(&mut self, phase: Phase) -> Result<(), Stop> {
        self.phase_began = self.host.clock.now();
        self.env.progress.enter(phase, 0);
        tracing::info!(run_key = self.lease.run_key, phase = phase.as_str(), attempt = self.number, "enter");
        Ok(self.host.ledger.enter_phase(&self.lease, phase.as_str())?)
    }

    /// A gate has passed: its receipt's digest goes to the ledger, with that of what it kept, and the keeper
    /// may look.
    fn passed(
        &mut self,
        phase: Phase,
        pinned: &Pinned,
        facts: Facts,
        keep: Option<Keeper<'_>>,
        proof: &dyn Peek,
        keeper: &dyn Gatekeeper,
    ) -> Result<(), Stop> {
        let (name, folder) = receipt(pinned, phase);
        let at = pinned.receipt_ref(folder);
        let (digest, _) = crate::store::digest(self.env.store.as_ref(), &at).map_err(|e| Refusal::of_store(phase, &e))?;
        let described: Map<String, Value> = facts.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        let mut evidence = json!({"receipt_ref": at.as_str(), "receipt_blake3": digest, "facts": described});
        if let (Some(keep), Some(evidence)) = (keep, evidence.as_object_mut()) {
            evidence.insert("kept".into(), keep(&self.env)?);
        }
        let took = self.note(phase, name, &at);
        self.host.ledger.gate_passed(&self.lease, phase.as_str(), &evidence)?;
        let _ = self.host.ledger.sample(&self.lease, &self.env.progress.sample());
        tracing::info!(run_key = self.lease.run_key, phase = phase.as_str(), took_ms = took, "passed");
        self.look(GateView { run_key: self.lease.run_key.clone(), phase, facts, evidence: at.to_string(), reproved: false }, proof, keeper)
    }

    /// A gate that an earlier attempt had passed was proved again from its own files.
    pub(super) fn reproved(
        &mut self,
        phase: Phase,
        pinned: &Pinned,
        evidence: &Value,
        (facts, proof): (Facts, &dyn Peek),
        keeper: &dyn Gatekeeper,
    ) -> Result<(), Stop> {
        let (name, folder) = receipt(pinned, phase);
        let at = pinned.receipt_ref(folder);
        self.note(phase, name, &at);
        self.host.ledger.gate_reproved(&self.lease, phase.as_str(), evidence)?;
        tracing::info!(run_key = self.lease.run_key, phase = phase.as_str(), "proved again");
        self.look(GateView { run_key: self.lease.run_key.clone(), phase, facts, evidence: at.to_string(), reproved: true }, proof, keeper)
    }

    /// Notes a gate for the result; how long it took in milliseconds.
    fn note(&mut self, phase: Phase, name: &str, receipt: &Ref) -> i64 {
        let took = self.host.clock.now().0.saturating_sub(self.phase_began.0) / 1_000;
        self.timings.insert(phase.as_str().into(), json!(took));
        self.evidence.insert(name.into(), json!(receipt.as_str()));
        took
    }

    /// Lets the keeper look at a gate.
    fn look(&mut self, view: GateView, proof: &dyn Peek, keeper: &dyn Gatekeeper) -> Result<(), Stop> {
        let phase = view.phase;
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
        match outcome.map_err(|stop| self.blamed(stop)) {
            Ok((outcome, published)) => {
                let mut evidence = self.evidence.clone();
                evidence.insert("publication".into(), json!(published.receipt_ref.as_str()));
                let dataset = outcome::dataset(&published.manifest_ref, &published.index);
                let result = self.result(Status::Done, Some(outcome), None, dataset, evidence);
                let end = done(&published, self.admitted.superseded(), &result, self.late);
                self.finish(end, result)
            }
            Err(Stop::Ledger(LedgerError::LeaseLost { .. })) => Ok(self.superseded()),
            Err(Stop::Ledger(error)) => Err(error),
            Err(Stop::Refused(refusal)) if refusal.code == ReasonCode::LeaseLost || self.replaced() => Ok(self.superseded()),
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
        let kept = self.keep_findings(&refusal);
        if let Some((at, _)) = kept.first() {
            evidence.insert("refusal".into(), json!(at.as_str()));
        }
        tracing::warn!(run_key = self.lease.run_key, code = %refusal.code, phase = refusal.phase.as_str(), "refused: {}", refusal.message);
        let cancelled = refusal.code == ReasonCode::CancelledByOperator;
        let status = if cancelled { Status::Cancelled } else { Status::Failed };
        let result = self.result(status, None, Some(&refusal), Value::Null, evidence);
        let (reason, mut document) = (refusal.code, refusal.to_json());
        if let (false, Some(map)) = (kept.is_empty(), document.as_object_mut()) {
            // The chain of events vouches for what the gate found, too.
            let artifacts: Vec<Value> = kept.iter().map(|(at, digest)| json!({"ref": at.as_str(), "blake3": digest})).collect();
            map.insert("artifacts".into(), json!(artifacts));
        }
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

    /// Whether this owner may not write any more. Asked before anything is left in the store about a refusal,
    /// which may itself come of having been replaced.
    fn replaced(&self) -> bool {
        self.heart.lost().is_some() || matches!(self.host.ledger.holds(&self.lease), Ok(false))
    }

    /// What stops because its lease could not be renewed is stopped by the ledger: nobody has replaced its owner, and
    /// a resume takes the run up.
    fn blamed(&self, stop: Stop) -> Stop {
        match (stop, self.heart.lost()) {
            (Stop::Refused(_), Some(Lost::Unwritable(why))) => {
                let run = &self.lease.run_key;
                Stop::Ledger(LedgerError::Io(format!("the lease on run {run} could not be renewed while it lived: {why}")))
            }
            (stop, _) => stop,
        }
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
        let ended = self.host.ledger.finish(&self.lease, &end);
        // Only who ended the run for good may clear up after it: a superseded owner would take from the next one.
        if ended.as_ref().is_ok_and(|row| row.over()) {
            pin::clear_staging(&self.admitted, &self.env, |_| true);
        }
        match ended {
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
        let mut result = RunResult::of(Parts {
            request_id: &self.admitted.intent().request_id,
            run_key: self.admitted.run_key(),
            status,
            outcome,
            reason,
            dataset,
            evidence,
            timings: self.timings.clone(),
        });
        if let Some(document) = result.document.as_object_mut() {
            document.extend(self.findings.clone());
        }
        result
    }

    /// What a refused gate found, for whoever has to clear it: where it lies and its BLAKE3, the refusal
    /// itself first. A store that fails here changes nothing: the refusal stands in the ledger.
    fn keep_findings(&self, refusal: &Refusal) -> Vec<(Ref, String)> {
        let run = &self.admitted.intent().platform_run_id;
        let folder = Ref::of(&[run, "ofs", "refusals", self.admitted.run_key(), &self.number.to_string()]);
        let mut found = refusal.to_json();
        let mut findings = refusal.artifact.clone().unwrap_or(Value::Null);
        // Anomalies are an artifact of their own (O074).
        let anomalies = findings.as_object_mut().and_then(|f| f.remove("anomalies"));
        if let Some(map) = found.as_object_mut() {
            map.insert("schema_version".into(), json!("ofs.refusal.v1"));
            map.insert("findings".into(), findings);
        }
        let refused = self.keep(folder.join(&format!("{}.json", refusal.phase.as_str())), &found);
        let anomalies = anomalies.and_then(|anomalies| self.keep(folder.join("anomalies.json"), &anomalies));
        if refused.is_some() { refused.into_iter().chain(anomalies).collect() } else { Vec::new() }
    }

    /// Keeps one finding; the BLAKE3 of what stands there afterwards.
    fn keep(&self, at: Ref, found: &Value) -> Option<(Ref, String)> {
        let bytes = document(found);
        match create_immutable(self.env.store.as_ref(), &at, &bytes) {
            Ok(Immutable::Different(stands)) => Some((at, stands)),
            Ok(Immutable::New | Immutable::Same) => Some((at, blake3::hash(&bytes).to_hex().to_string())),
            Err(error) => {
                tracing::warn!(run_key = self.lease.run_key, "{at}: what the gate found could not be kept: {error}");
                None
            }
        }
    }
}
