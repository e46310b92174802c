//! What an owner writes on the way, how a run ends, and what becomes of its publication.

use serde_json::{Value, json};

use super::{Lease, Ledger, LedgerError, Result, RunRow, Status};
use crate::contract::ReasonCode;

/// The event of a run that is done.
pub const RUN_DONE: &str = "RUN_DONE";
/// The event of a run whose manifest turned up after its commit had been given up as pending.
pub const RUN_DONE_LATE: &str = "RUN_DONE_LATE";
/// A run that corrects published data sets has resolved which: its pins are proved, nothing is built yet.
pub const BACKFILL_DECLARED: &str = "BACKFILL_DECLARED";
/// A run that corrects published data sets is done.
pub const BACKFILL_COMPLETED: &str = "BACKFILL_COMPLETED";

/// How an owner ends its work on a run.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// It is done.
    Done {
        /// The manifest as read back; a data set build must have one (O031).
        manifest_ref: Option<String>,
        /// What is answered to the same request later.
        result: Value,
        /// [`RUN_DONE`] or [`RUN_DONE_LATE`].
        event: &'static str,
        /// Particulars of the event, such as the digest of the receipt.
        detail: Value,
    },
    /// It was refused or broke off, and whatever commit it had begun is settled by a read-back.
    Failed {
        /// Why.
        reason: ReasonCode,
        /// End class, where it is another than the reason's.
        end_class: Option<String>,
        /// The refusal, also the event's particulars.
        document: Value,
        /// What is answered to the same request later.
        result: Value,
    },
    /// Everything but the commit is there.
    Pending {
        /// `COMMIT_FAILED` settles the commit as not made; with any other reason it stays unsettled.
        reason: ReasonCode,
        /// The refusal, also the event's particulars.
        document: Value,
        /// What is answered to the same request later.
        result: Value,
    },
    /// It was called off before its commit.
    Cancelled {
        /// Why.
        reason: ReasonCode,
        /// Who and why, also the event's particulars.
        document: Value,
        /// What is answered to the same request later.
        result: Value,
    },
    /// A signal ended the process: the run is QUEUED again and loses nothing.
    Interrupted {
        /// Its name, like `TERM`.
        signal: String,
    },
}

impl End {
    fn status(&self) -> Status {
        match self {
            End::Done { .. } => Status::Done,
            End::Failed { .. } => Status::Failed,
            End::Pending { .. } => Status::PublishPending,
            End::Cancelled { .. } => Status::Cancelled,
            End::Interrupted { .. } => Status::Queued,
        }
    }

    fn reason(&self) -> Option<ReasonCode> {
        match self {
            End::Done { .. } => None,
            End::Failed { reason, .. } | End::Pending { reason, .. } | End::Cancelled { reason, .. } => Some(*reason),
            End::Interrupted { .. } => Some(ReasonCode::Interrupted),
        }
    }

    /// What was asked for, in the words of a refusal.
    fn action(&self) -> &'static str {
        match self {
            End::Done { .. } => "done",
            End::Failed { .. } => "fail",
            End::Pending { .. } => "pending",
            End::Cancelled { .. } => "cancel",
            End::Interrupted { .. } => "interrupt",
        }
    }

    /// Whether the run has already ended in just this way (O032).
    fn already(&self, row: &RunRow) -> bool {
        let manifest = !matches!(self, End::Done { manifest_ref, .. } if *manifest_ref != row.manifest_ref);
        row.status == self.status() && row.reason_code.as_deref() == self.reason().map(ReasonCode::as_str) && manifest
    }

    fn check(&self, row: &RunRow) -> Result<()> {
        match self {
            End::Done { event, .. } if ![RUN_DONE, RUN_DONE_LATE].contains(event) => {
                Err(LedgerError::Misuse(format!("{event} is not how a run is done")))
            }
            End::Done { manifest_ref: None, .. } if row.intent_kind.as_deref() == Some("dataset_build") => {
                Err(LedgerError::Misuse("a data set build is not done without its manifest".into()))
            }
            // Until a read-back settles the commit, the data set may be out (O030, O033).
            End::Cancelled { .. } if row.commit_started => Err(row.illegal(self.action())),
            _ => Ok(()),
        }
    }

    /// Changes the record; names the event and its particulars.
    pub(super) fn apply(&self, row: &mut RunRow) -> (&'static str, Value) {
        row.status = self.status();
        row.reason_code = self.reason().map(|r| r.as_str().to_owned());
        match self {
            End::Done { manifest_ref, result, event, detail } => {
                (row.manifest_ref, row.result, row.commit_started) = (manifest_ref.clone(), Some(result.clone()), false);
                (event, detail.clone())
            }
            End::Failed { reason, end_class, document, result } => {
                let class = end_class.clone().or_else(|| Some(reason.info().end_class.to_owned()).filter(|c| !c.is_empty()));
                (row.end_class, row.reason, row.result, row.commit_started) = (class, Some(document.clone()), Some(result.clone()), false);
                ("RUN_FAILED", document.clone())
            }
            End::Pending { reason, document, result } => {
                (row.reason, row.result) = (Some(document.clone()), Some(result.clone()));
                row.commit_started &= *reason != ReasonCode::CommitFailed;
                ("PUBLISH_PENDING", document.clone())
            }
            End::Cancelled { document, result, .. } => {
                (row.reason, row.result) = (Some(document.clone()), Some(result.clone()));
                ("RUN_CANCELLED", document.clone())
            }
            End::Interrupted { signal } => ("RUN_INTERRUPTED", json!({"signal": signal})),
        }
    }
}

impl Ledger {
    /// The owner enters a phase.
    ///
    /// # Errors
    /// `LeaseLost`, `NotFound`, `Io`, `Corrupt`, `ReadOnly`; so every owner's write.
    pub fn enter_phase(&self, lease: &Lease, phase: &str) -> Result<()> {
        self.owned(lease, |c| {
            c.row.phase = Some(phase.to_owned());
            c.row.last_progress = Some(c.now);
            c.event("PHASE_ENTERED", None, json!({"phase": phase}))
        })
    }

    /// A gate was passed; `detail` says with what evidence.
    ///
    /// # Errors
    /// As of [`Ledger::enter_phase`].
    pub fn gate_passed(&self, lease: &Lease, phase: &str, detail: &Value) -> Result<()> {
        self.owned(lease, |c| {
            c.row.last_progress = Some(c.now);
            c.event("GATE_PASSED", None, json!({"phase": phase, "evidence": detail}))
        })
    }

    /// A gate that an earlier attempt had passed was not walked again: its evidence was read and hashed anew.
    ///
    /// # Errors
    /// As of [`Ledger::enter_phase`].
    pub fn gate_reproved(&self, lease: &Lease, phase: &str, detail: &Value) -> Result<()> {
        self.owned(lease, |c| {
            c.row.last_progress = Some(c.now);
            c.event("GATE_REPROVED", None, json!({"phase": phase, "evidence": detail}))
        })
    }

    /// The identity of the data set is known.
    ///
    /// # Errors
    /// As of [`Ledger::enter_phase`].
    pub fn identify(&self, lease: &Lease, fingerprint: &str, manifest_id: &str) -> Result<()> {
        self.owned(lease, |c| {
            (c.row.fingerprint, c.row.manifest_id) = (Some(fingerprint.to_owned()), Some(manifest_id.to_owned()));
            c.event("IDENTITY_RESOLVED", None, json!({"fingerprint": fingerprint, "manifest_id": manifest_id}))
        })
    }

    /// Any other event of the owner's.
    ///
    /// # Errors
    /// As of [`Ledger::enter_phase`].
    pub fn record(&self, lease: &Lease, event_type: &str, reason: Option<ReasonCode>, detail: &Value) -> Result<()> {
        self.owned(lease, |c| c.event(event_type, reason, detail.clone()))
    }

    /// The owner waits at a gate for a person, or goes on.
    ///
    /// # Errors
    /// As of [`Ledger::enter_phase`].
    pub fn set_paused(&self, lease: &Lease, paused: bool) -> Result<()> {
        self.owned(lease, |c| {
            if c.row.paused_since.is_some() == paused {
                return Ok(());
            }
            c.row.paused_since = paused.then_some(c.now);
            c.row.last_progress = Some(c.now);
            c.event(if paused { "RUN_PAUSED" } else { "RUN_UNPAUSED" }, None, json!({"phase": c.row.phase}))
        })
    }

    /// The owner is about to put the manifest: from here on only a read-back tells whether the data set
    /// is out (`interface` 4 "Commit").
    ///
    /// # Errors
    /// `CalledOff` where an operator's request came first; otherwise as of [`Ledger::enter_phase`].
    pub fn commit_started(&self, lease: &Lease, manifest_ref: &str) -> Result<()> {
        self.owned(lease, |c| {
            // Of a request and a commit, the one that the ledger saw first holds (O033).
            if let Some(request) = &c.row.operator_request {
                return Err(LedgerError::CalledOff(Box::new(request.clone())));
            }
            c.row.commit_started = true;
            c.event("COMMIT_STARTED", None, json!({"manifest_ref": manifest_ref, "epoch": c.row.lease_epoch}))
        })
    }

    /// Ends the owner's work and releases the lease. Ending in the same way again changes nothing. An end
    /// that would leave the run open gives way to what an operator has asked for meanwhile; any other end
    /// stands, and an event says that the request came to nothing.
    ///
    /// # Errors
    /// `InvalidTransition` for another end than the first, or a cancellation after the commit was
    /// started; otherwise as of [`Ledger::enter_phase`].
    pub fn finish(&self, lease: &Lease, end: &End) -> Result<RunRow> {
        self.change(&lease.run_key, |c| {
            if c.row.lease_epoch != lease.epoch {
                return Err(LedgerError::LeaseLost { run_key: lease.run_key.clone() });
            }
            if c.row.status != Status::Running {
                return if end.already(&c.row) { Ok(c.row.clone()) } else { Err(c.row.illegal(end.action())) };
            }
            end.check(&c.row)?;
            let asked = c.row.operator_request.take();
            let open = matches!(end, End::Interrupted { .. } | End::Pending { .. }) && !c.row.commit_started;
            let obeyed = asked.as_ref().filter(|_| open).map(|request| request.end(c.row.phase.as_deref()));
            if let Some(request) = asked.filter(|request| obeyed.is_none() && end.reason() != Some(request.action.reason())) {
                c.event("OPERATOR_REQUEST_LAPSED", None, json!({"request": request.to_json(), "ends": end.status()}))?;
            }
            let end = obeyed.as_ref().unwrap_or(end);
            let (event, detail) = end.apply(&mut c.row);
            (c.row.owner, c.row.lease_expires, c.row.paused_since) = (None, None, None);
            c.row.completed = matches!(c.row.status, Status::Done | Status::Failed | Status::Cancelled).then_some(c.now);
            if let Some(superseded) = detail.get("supersedes").and_then(Value::as_array).filter(|list| !list.is_empty()) {
                // In the same write as the end: a correction is complete exactly when its run is done (O121).
                let completed = json!({"manifest_id": c.row.manifest_id, "supersedes": superseded});
                c.event(BACKFILL_COMPLETED, None, completed)?;
            }
            c.event(event, end.reason(), detail)?;
            Ok(c.row.clone())
        })
    }

    /// Files of a data set that was DONE are there again (`DATA_RESTORED`): an event, and audited.
    ///
    /// # Errors
    /// `InvalidTransition` for a run that is not DONE; `NotFound`, `Io`, `Corrupt`, `ReadOnly`.
    pub fn restored(&self, run_key: &str, event_type: &str, detail: &Value) -> Result<()> {
        self.change(run_key, |c| {
            if c.row.status != Status::Done {
                return Err(c.row.illegal(event_type));
            }
            c.event(event_type, None, detail.clone())?;
            c.audit(event_type, detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{ExecutionMode, Retry};
    use super::*;

    fn ends() -> [End; 5] {
        [done("R/m.json"), failed("SOURCE_IO"), commit_failed(), cancelled(), End::Interrupted { signal: "INT".into() }]
    }

    #[test]
    fn every_end_of_a_running_run_releases_the_lease_and_says_so() {
        for (end, event, reason, class, completed) in [
            (done("R/m.json"), "RUN_DONE", None, None, true),
            (failed("SOURCE_IO"), "RUN_FAILED", Some("SOURCE_IO"), Some("FAILED"), true),
            (failed("REPLAY_INCOMPLETE"), "RUN_FAILED", Some("REPLAY_INCOMPLETE"), Some("INCOMPLETE_EXPLICIT"), true),
            (commit_failed(), "PUBLISH_PENDING", Some("COMMIT_FAILED"), None, false),
            (cancelled(), "RUN_CANCELLED", Some("CANCELLED_BY_OPERATOR"), None, true),
            (End::Interrupted { signal: "INT".into() }, "RUN_INTERRUPTED", Some("INTERRUPTED"), None, false),
        ] {
            let (_, ledger) = in_memory();
            let lease = running(&ledger, "k");
            let row = ledger.finish(&lease, &end).unwrap();
            assert_eq!((row.status, row.owner.is_none(), row.lease_expires, row.lease_epoch), (end.status(), true, None, 1));
            assert_eq!((row.reason_code.as_deref(), row.end_class.as_deref()), (reason, class), "{event}");
            assert_eq!((row.completed.is_some(), row.result.is_some()), (completed, event != "RUN_INTERRUPTED"), "{event}");
            assert_eq!(ledger.run("k").unwrap().unwrap(), row);
            let told = ledger.events("k", 2).unwrap();
            assert_eq!(told.len(), 1);
            assert_eq!((told[0].event_type.as_str(), told[0].status, told[0].reason_code.as_deref()), (event, end.status(), reason));
            assert_eq!(ledger.verify_chain("k").unwrap(), [""; 0]);
        }
    }

    #[test]
    fn a_given_end_class_goes_before_the_reasons_own() {
        let (_, ledger) = in_memory();
        let lease = running(&ledger, "k");
        let End::Failed { reason, document, result, .. } = failed("SOURCE_IO") else { panic!("failed") };
        let end = End::Failed { reason, document, result, end_class: Some("NEEDS_HUMAN".into()) };
        assert_eq!(ledger.finish(&lease, &end).unwrap().end_class.as_deref(), Some("NEEDS_HUMAN"));
    }

    #[test]
    fn ending_again_in_the_same_way_is_nothing_and_in_another_is_illegal() {
        for first in ends() {
            for second in ends() {
                let (_, ledger) = in_memory();
                let lease = running(&ledger, "k");
                let row = ledger.finish(&lease, &first).unwrap();
                let again = ledger.finish(&lease, &second);
                if first == second {
                    assert_eq!(again.unwrap(), row);
                } else {
                    let expected = row.illegal(second.action());
                    assert_eq!(again.unwrap_err(), expected, "{first:?} {second:?}");
                }
                assert_eq!(ledger.run("k").unwrap().unwrap(), row);
            }
        }
        let (_, ledger) = in_memory();
        let lease = running(&ledger, "k");
        ledger.finish(&lease, &done("R/m.json")).unwrap();
        assert!(matches!(ledger.finish(&lease, &done("R/other.json")), Err(LedgerError::InvalidTransition { .. })));
    }

    #[test]
    fn which_starts_are_legal_in_which_state() {
        for (status, ledger, _home) in one_of_each() {
            for mode in [ExecutionMode::None, ExecutionMode::Full, ExecutionMode::PublishOnly] {
                let before = ledger.run("k").unwrap().unwrap();
                let started = ledger.start("k", mode, &elsewhere(2), 10);
                let legal =
                    matches!((status, mode), (Status::Queued, ExecutionMode::Full) | (Status::PublishPending, ExecutionMode::PublishOnly));
                let after = ledger.run("k").unwrap().unwrap();
                match started {
                    Ok(lease) => {
                        assert!(legal, "{status} {mode}");
                        assert_eq!(
                            (after.status, after.execution_mode, after.lease_epoch),
                            (Status::Running, mode, before.lease_epoch + 1)
                        );
                        assert_eq!((after.reason_code, after.end_class, after.result), (None, None, None));
                        // Back to where it was, for the mode after this one.
                        assert_eq!(ledger.finish(&lease, &End::Interrupted { signal: "INT".into() }).unwrap().status, Status::Queued);
                        break;
                    }
                    Err(error) => {
                        assert!(!legal, "{status} {mode}");
                        let busy = matches!(&error, LedgerError::Busy { .. }) && status == Status::Running;
                        assert!(busy || error == before.illegal(format!("start {mode}")), "{status} {mode}: {error}");
                        assert_eq!(after, before, "{status} {mode}");
                    }
                }
            }
        }
    }

    #[test]
    fn failed_starts_again_only_where_the_reason_says_that_it_can_help() {
        for (code, legal) in [("SOURCE_IO", true), ("REPLAY_INCOMPLETE", true), ("FEATURE_OVERFLOW", false), ("FAILED_BY_OPERATOR", false)]
        {
            let (_, ledger) = in_memory();
            let lease = running(&ledger, "k");
            ledger.finish(&lease, &failed(code)).unwrap();
            let started = ledger.start("k", ExecutionMode::Full, &elsewhere(1), 10);
            assert_eq!(started.is_ok(), legal, "{code}");
            let row = ledger.run("k").unwrap().unwrap();
            assert_eq!((row.full_run_attempts, row.completed.is_none()), if legal { (2, true) } else { (1, false) }, "{code}");
        }
    }

    #[test]
    fn no_data_set_build_is_done_without_its_manifest() {
        let (_, ledger) = in_memory();
        let lease = running(&ledger, "k");
        let bare = End::Done { manifest_ref: None, result: json!({}), event: RUN_DONE, detail: json!({}) };
        assert!(matches!(ledger.finish(&lease, &bare), Err(LedgerError::Misuse(_))));
        let odd = End::Done { manifest_ref: Some("m".into()), result: json!({}), event: "RUN_OVER", detail: json!({}) };
        assert!(matches!(ledger.finish(&lease, &odd), Err(LedgerError::Misuse(_))));
        assert_eq!(ledger.run("k").unwrap().unwrap().status, Status::Running);
        let forensic = super::super::NewRun { intent_kind: "forensic_rebuild".into(), ..new_run("f") };
        ledger.submit(&forensic).unwrap();
        let lease = ledger.start("f", ExecutionMode::Full, &elsewhere(1), 10).unwrap();
        assert_eq!(ledger.finish(&lease, &bare).unwrap().status, Status::Done);
    }

    #[test]
    fn a_started_commit_cannot_be_cancelled_until_it_is_settled() {
        let (_, ledger) = in_memory();
        let lease = running(&ledger, "k");
        ledger.commit_started(&lease, "R/m.json").unwrap();
        let row = ledger.run("k").unwrap().unwrap();
        assert!(row.commit_started);
        assert_eq!(ledger.finish(&lease, &cancelled()).unwrap_err(), row.illegal("cancel"));
        assert_eq!(ledger.run("k").unwrap().unwrap(), row);
        // Neither an interruption nor an outcome that nobody can read back settles it.
        assert!(ledger.finish(&lease, &End::Interrupted { signal: "INT".into() }).unwrap().commit_started);
        let lease = ledger.start("k", ExecutionMode::Full, &elsewhere(1), 10).unwrap();
        let End::Pending { document, result, .. } = commit_failed() else { panic!("pending") };
        let unknown = End::Pending { reason: ReasonCode::PublishAmbiguous, document, result };
        assert!(ledger.finish(&lease, &unknown).unwrap().commit_started);
        let lease = ledger.start("k", ExecutionMode::PublishOnly, &elsewhere(1), 10).unwrap();
        assert!(!ledger.finish(&lease, &commit_failed()).unwrap().commit_started);
        let lease = ledger.start("k", ExecutionMode::PublishOnly, &elsewhere(1), 10).unwrap();
        assert_eq!(ledger.finish(&lease, &cancelled()).unwrap().status, Status::Cancelled);
    }

    #[test]
    fn a_manifest_that_turns_up_late_wins() {
        let (_home, ledger, _) = pending();
        let lease = retried(&ledger, 3).unwrap();
        let late = End::Done { manifest_ref: Some("R/m.json".into()), result: json!({}), event: RUN_DONE_LATE, detail: json!({}) };
        assert_eq!(ledger.finish(&lease, &late).unwrap().manifest_ref.as_deref(), Some("R/m.json"));
        assert_eq!(ledger.events("k", 0).unwrap().pop().unwrap().event_type, RUN_DONE_LATE);
    }

    #[test]
    fn publish_only_retries_are_bounded_and_never_full_runs() {
        let (_home, ledger, _) = pending();
        for n in 1..=3 {
            let lease = retried(&ledger, 3).unwrap();
            assert_eq!(ledger.finish(&lease, &commit_failed()).unwrap().publish_retry_attempts, n);
        }
        let before = ledger.run("k").unwrap().unwrap();
        assert_eq!(retried(&ledger, 3).unwrap_err(), LedgerError::Exhausted { run_key: "k".into(), attempts: 3 });
        let after = ledger.run("k").unwrap().unwrap();
        assert_eq!((after.full_run_attempts, after.publish_retry_attempts, after.attempt()), (1, 3, 4));
        assert_eq!(but_for_events(after), but_for_events(before));
        let last = ledger.events("k", 0).unwrap().pop().unwrap();
        assert_eq!((last.event_type.as_str(), last.reason_code.as_deref()), ("PUBLISH_RETRY_EXHAUSTED", Some("PUBLISH_RETRY_EXHAUSTED")));
        // A larger budget is a larger number, nothing else.
        assert!(retried(&ledger, 4).is_ok());
    }

    #[test]
    fn a_retry_of_what_is_not_pending_is_refused_and_on_record() {
        for (status, ledger, _home) in one_of_each() {
            if status == Status::PublishPending {
                continue;
            }
            let before = ledger.run("k").unwrap().unwrap();
            assert_eq!(
                ledger.retry_open("k", &Retry { max: 3, request_id: None }).unwrap_err(),
                LedgerError::NotPending { run_key: "k".into(), status }
            );
            let last = ledger.events("k", before.last_seq).unwrap().remove(0);
            assert_eq!((last.event_type.as_str(), last.reason_code.as_deref()), ("PUBLISH_RETRY_SKIPPED", Some("RETRY_NOT_PENDING")));
            assert_eq!(but_for_events(ledger.run("k").unwrap().unwrap()), but_for_events(before));
        }
        let (_, ledger) = in_memory();
        assert_eq!(ledger.retry_open("nobody", &Retry { max: 3, request_id: None }).unwrap_err(), LedgerError::NotFound("nobody".into()));
    }

    #[test]
    fn only_a_done_run_can_be_restored_and_that_is_audited() {
        for (status, ledger, _home) in one_of_each() {
            let before = ledger.run("k").unwrap().unwrap();
            let restored = ledger.restored("k", "DATA_RESTORED", &json!({"files": 1}));
            let after = ledger.run("k").unwrap().unwrap();
            if status == Status::Done {
                restored.unwrap();
                let event = ledger.events("k", before.last_seq).unwrap().remove(0);
                assert_eq!((event.event_type.as_str(), event.status), ("DATA_RESTORED", Status::Done));
                let audit = ledger.audit_rows(Some("k")).unwrap();
                assert_eq!((audit.len(), audit[0].action.as_str()), (1, "DATA_RESTORED"));
            } else {
                assert_eq!(restored.unwrap_err(), before.illegal("DATA_RESTORED"));
                assert_eq!((after, ledger.audit_rows(None).unwrap().len()), (before, 0));
            }
        }
    }

    #[test]
    fn phases_identity_and_pauses_show_in_the_record() {
        let (clock, ledger) = in_memory();
        let lease = running(&ledger, "k");
        clock.advance(5);
        ledger.enter_phase(&lease, "replay").unwrap();
        ledger.identify(&lease, "f", "dm_1").unwrap();
        ledger.set_paused(&lease, true).unwrap();
        ledger.set_paused(&lease, true).unwrap();
        let row = ledger.run("k").unwrap().unwrap();
        assert_eq!(
            (row.phase.as_deref(), row.fingerprint.as_deref(), row.manifest_id.as_deref()),
            (Some("replay"), Some("f"), Some("dm_1"))
        );
        assert_eq!((row.paused_since, row.last_progress), (Some(START.plus_micros(5)), Some(START.plus_micros(5))));
        clock.advance(5);
        ledger.set_paused(&lease, false).unwrap();
        let row = ledger.run("k").unwrap().unwrap();
        assert_eq!((row.paused_since, row.last_progress), (None, Some(START.plus_micros(10))));
        let told: Vec<_> = ledger.events("k", 4).unwrap().into_iter().map(|e| e.event_type).collect();
        assert_eq!(told, ["RUN_PAUSED", "RUN_UNPAUSED"]);
    }
}
