//! How a request becomes a run, or the record of a refusal: one row per request, whoever asks and how
//! often (O020, O022, O023; pitfall 45).

use serde_json::{Value, json};

use super::{Ledger, Result, RunRow, Status};
use crate::contract::ReasonCode;

/// A request that passed admission.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Its key.
    pub run_key: String,
    /// Its id.
    pub request_id: String,
    /// Hash of the intent in normal form and of what it supersedes.
    pub request_hash: String,
    /// The platform run it reads.
    pub platform_run_id: String,
    /// What kind of build.
    pub intent_kind: String,
    /// The intent in normal form.
    pub intent: Value,
    /// Which program and settings it came with.
    pub provenance: Value,
}

/// How a submission ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// The run is new, or the id had only been refused before.
    New(RunRow),
    /// The same request had been submitted before.
    Existing(RunRow),
    /// The id is taken by a request with another content; that run stays as it is and has an event more.
    Mismatch(RunRow),
}

impl Ledger {
    /// Puts a request on record as QUEUED, once.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `ReadOnly`.
    pub fn submit(&self, new: &NewRun) -> Result<Submitted> {
        self.upsert(&new.run_key, |c| {
            if c.row.last_seq > 0 && c.row.status != Status::Rejected {
                if c.row.request_hash.as_deref() == Some(&new.request_hash) {
                    return Ok(Submitted::Existing(c.row.clone()));
                }
                let detail = json!({"request_hash": new.request_hash, "recorded_hash": c.row.request_hash});
                c.event("REQUEST_REFUSED", Some(ReasonCode::RequestIdPayloadMismatch), detail)?;
                return Ok(Submitted::Mismatch(c.row.clone()));
            }
            // Of the refusal nothing but its events remains.
            c.row = RunRow {
                request_id: Some(new.request_id.clone()),
                request_hash: Some(new.request_hash.clone()),
                platform_run_id: Some(new.platform_run_id.clone()),
                intent_kind: Some(new.intent_kind.clone()),
                intent: Some(new.intent.clone()),
                provenance: Some(new.provenance.clone()),
                created: c.row.created,
                lease_epoch: c.row.lease_epoch,
                last_seq: c.row.last_seq,
                last_hash: c.row.last_hash.clone(),
                ..RunRow::blank(&new.run_key, c.now)
            };
            let detail = json!({
                "request_id": new.request_id, "request_hash": new.request_hash, "platform_run_id": new.platform_run_id,
                "intent_kind": new.intent_kind,
            });
            c.event("INTENT_QUEUED", None, detail)?;
            Ok(Submitted::New(c.row.clone()))
        })
    }

    /// Puts a refusal at admission on record: as a REJECTED run where there is none (or one that was
    /// rejected before), else as an event of the run that has the key, whose state does not change.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `ReadOnly`.
    pub fn reject(
        &self,
        run_key: &str,
        request_id: Option<&str>,
        platform_run_id: Option<&str>,
        intent_kind: Option<&str>,
        reason: ReasonCode,
        detail: &Value,
    ) -> Result<RunRow> {
        self.upsert(run_key, |c| {
            if c.row.last_seq > 0 && c.row.status != Status::Rejected {
                c.event("REQUEST_REFUSED", Some(reason), detail.clone())?;
                return Ok(c.row.clone());
            }
            let owned = |text: Option<&str>| text.map(str::to_owned);
            c.row.status = Status::Rejected;
            c.row.request_id = owned(request_id);
            c.row.platform_run_id = owned(platform_run_id);
            c.row.intent_kind = owned(intent_kind);
            c.row.reason_code = Some(reason.as_str().to_owned());
            c.row.reason = Some(detail.clone());
            c.row.end_class = Some("REJECTED".into());
            c.row.completed = Some(c.now);
            c.event("INTENT_REJECTED", Some(reason), detail.clone())?;
            Ok(c.row.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{LedgerError, RunFilter};
    use super::*;

    fn types(ledger: &Ledger, run_key: &str) -> Vec<String> {
        ledger.events(run_key, 0).unwrap().into_iter().map(|e| e.event_type).collect()
    }

    #[test]
    fn a_request_is_one_run_however_often_it_comes() {
        let home = Home::new();
        let ledger = home.ledger();
        let new = new_run("k");
        let Submitted::New(row) = ledger.submit(&new).unwrap() else { panic!("new") };
        assert_eq!((row.status, row.intent.as_ref(), row.provenance.as_ref()), (Status::Queued, Some(&new.intent), Some(&new.provenance)));
        assert_eq!(ledger.submit(&new).unwrap(), Submitted::Existing(row.clone()));
        assert_eq!(ledger.run("k").unwrap().unwrap(), row);
        assert_eq!(types(&ledger, "k"), ["INTENT_QUEUED"]);
    }

    #[test]
    fn another_content_under_the_same_id_is_refused_in_every_state_and_changes_none() {
        for (status, ledger, _home) in one_of_each() {
            let before = ledger.run("k").unwrap().unwrap();
            let other = NewRun { request_hash: "other".into(), ..new_run("k") };
            let outcome = ledger.submit(&other).unwrap();
            let after = ledger.run("k").unwrap().unwrap();
            if status == Status::Rejected {
                assert_eq!((outcome, after.status), (Submitted::New(after.clone()), Status::Queued));
                continue;
            }
            assert_eq!(outcome, Submitted::Mismatch(after.clone()), "{status}");
            let event = ledger.events("k", before.last_seq).unwrap().remove(0);
            assert_eq!((event.event_type.as_str(), event.status), ("REQUEST_REFUSED", status));
            assert_eq!(event.reason_code.as_deref(), Some("REQUEST_ID_PAYLOAD_MISMATCH"));
            assert_eq!(but_for_events(after), but_for_events(before), "{status}");
            assert_eq!(ledger.verify_chain("k").unwrap(), [""; 0]);
        }
    }

    #[test]
    fn a_refused_id_may_be_used_again() {
        let home = Home::new();
        let ledger = home.ledger();
        let refuse = || ledger.reject("k", Some("req-k"), Some("p"), None, ReasonCode::AsOfSpecInvalid, &json!({"at": "x"})).unwrap();
        let row = refuse();
        assert_eq!(
            (row.status, row.reason_code.as_deref(), row.end_class.as_deref()),
            (Status::Rejected, Some("AS_OF_SPEC_INVALID"), Some("REJECTED"))
        );
        assert_eq!((row.request_id.as_deref(), row.completed, row.reason), (Some("req-k"), Some(START), Some(json!({"at": "x"}))));
        refuse();
        let Submitted::New(row) = ledger.submit(&new_run("k")).unwrap() else { panic!("new") };
        assert_eq!((row.status, row.reason_code, row.reason, row.end_class, row.completed), (Status::Queued, None, None, None, None));
        assert_eq!(row.intent, Some(new_run("k").intent));
        // Now it is taken: a later refusal is an event and nothing else.
        let before = ledger.run("k").unwrap().unwrap();
        assert_eq!(but_for_events(refuse()), but_for_events(before));
        assert_eq!(types(&ledger, "k"), ["INTENT_REJECTED", "INTENT_REJECTED", "INTENT_QUEUED", "REQUEST_REFUSED"]);
        assert_eq!(ledger.verify_chain("k").unwrap(), [""; 0]);
    }

    #[test]
    fn refusals_of_invalid_ids_have_none_and_do_not_collide() {
        let (_, ledger) = in_memory();
        for key in ["invalid-1", "invalid-2"] {
            ledger.reject(key, None, None, None, ReasonCode::RequestIdInvalid, &json!({})).unwrap();
        }
        assert_eq!(ledger.runs(&RunFilter { status: Some(Status::Rejected), limit: None }).unwrap().len(), 2);
        // One request id under two keys would be a fault in the caller.
        ledger.submit(&new_run("a")).unwrap();
        let error = ledger.submit(&NewRun { run_key: "b".into(), ..new_run("a") }).unwrap_err();
        assert!(matches!(error, LedgerError::Misuse(_)) && ledger.run("b").unwrap().is_none());
    }

    #[test]
    fn of_two_that_race_to_submit_one_is_first() {
        let home = Home::new();
        for round in 0..20 {
            let key = format!("k{round}");
            let outcomes = race(&home, |ledger| ledger.submit(&new_run(&key)).unwrap());
            let new = outcomes.iter().filter(|o| matches!(o, Submitted::New(_))).count();
            let existing = outcomes.iter().filter(|o| matches!(o, Submitted::Existing(_))).count();
            assert_eq!((new, existing), (1, 1), "{outcomes:?}");
            assert_eq!(types(&home.ledger(), &key), ["INTENT_QUEUED"]);
        }
    }
}
