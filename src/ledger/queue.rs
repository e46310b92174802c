//! What the queue of job requests asks of the ledger: where a run stands, in brief; to queue it again;
//! to refuse its request.

use rusqlite::OptionalExtension;
use serde_json::{Value, json};

use super::row::unsigned;
use super::{Ledger, LedgerError, Owner, Result, RunRow, Status};
use crate::contract::ReasonCode;
use crate::time::Instant;

/// The event that holds the digest of a worker's receipt.
const INVOCATION_RECORDED: &str = "INVOCATION_RECORDED";

/// Where a run stands, without its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its state.
    pub status: Status,
    /// Number of its latest event.
    pub last_seq: u64,
}

/// How the state that a run is in began.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// The event that brought the run into its state.
    pub seq: u64,
    /// When that was.
    pub at: Instant,
    /// The process that worked on it last, if any did.
    pub owner: Option<Owner>,
}

impl Ledger {
    /// A number that changes whenever another connection has written to the file.
    ///
    /// # Errors
    /// `Io`, `Corrupt`; so every question here.
    pub fn data_version(&self) -> Result<i64> {
        self.ask(|conn| Ok(conn.pragma_query_value(None, "data_version", |row| row.get(0))?))
    }

    /// Where a run stands.
    ///
    /// # Errors
    /// As of [`Ledger::data_version`].
    pub fn head(&self, run_key: &str) -> Result<Option<Head>> {
        let found: Option<(String, i64)> = self.ask(|conn| {
            let mut query = conn.prepare_cached("SELECT status, last_seq FROM runs WHERE run_key = ?1")?;
            Ok(query.query_row([run_key], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
        })?;
        found
            .map(|(status, seq)| {
                let status = Status::parse(&status).ok_or_else(|| LedgerError::Corrupt(format!("unknown status {status}")))?;
                Ok(Head { status, last_seq: unsigned(seq)? })
            })
            .transpose()
    }

    /// How the state that a run is in began; nothing for an unknown run.
    ///
    /// # Errors
    /// As of [`Ledger::data_version`].
    pub fn ended(&self, run_key: &str) -> Result<Option<Ended>> {
        let events = self.events(run_key, 0)?;
        let Some(last) = events.last() else { return Ok(None) };
        let begin = events.iter().rev().take_while(|e| e.status == last.status).last().unwrap_or(last);
        let owner = events.iter().rev().filter(|e| e.seq <= begin.seq).find_map(|e| match e.event_type.as_str() {
            "RUN_STARTED" => e.detail.get("owner"),
            "LEASE_TAKEN_OVER" => e.detail.get("to"),
            _ => None,
        });
        let owner = owner.and_then(|o| serde_json::from_value(o.clone()).ok());
        Ok(Some(Ended { seq: begin.seq, at: begin.at, owner }))
    }

    /// Queues a run again that FAILED for a reason that a new attempt can help, or whose request was
    /// refused while it was QUEUED. Says whether it did; any other run stays as it is.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `Corrupt`, `ReadOnly`.
    pub fn requeue(&self, run_key: &str) -> Result<bool> {
        const LATEST: &str = "SELECT event_type FROM run_events WHERE run_key = ?1 ORDER BY seq DESC LIMIT 1";
        self.change(run_key, |c| {
            let refused = c.row.status == Status::Queued
                && c.conn.prepare_cached(LATEST)?.query_row([run_key], |row| row.get::<_, String>(0))? == "REQUEST_REFUSED";
            if !refused && !c.row.retryable() {
                return Ok(false);
            }
            let after = c.row.reason_code.take();
            c.row.status = Status::Queued;
            (c.row.reason, c.row.end_class, c.row.result, c.row.completed) = (None, None, None, None);
            c.event("RUN_QUEUED_AGAIN", None, json!({"after": after}))?;
            Ok(true)
        })
    }

    /// Puts the digest of a worker's receipt into the chain, so that a change of it is found. The first that is told of
    /// a receipt stands: one that was changed since must not be vouched for.
    ///
    /// # Errors
    /// `NotFound`, `Io`, `Corrupt`, `ReadOnly`.
    pub fn vouch(&self, run_key: &str, receipt_ref: &str, blake3: &str) -> Result<()> {
        const TOLD: &str = "SELECT 1 FROM run_events WHERE run_key = ?1 AND event_type = ?2
            AND json_extract(detail_json, '$.artifacts[0].ref') = ?3";
        self.change(run_key, |c| {
            // Asked in the write itself: of two workers at once only one tells.
            if c.conn.prepare_cached(TOLD)?.exists([run_key, INVOCATION_RECORDED, receipt_ref])? {
                return Ok(());
            }
            // Nothing happened to the run by it.
            let updated = c.row.updated;
            c.event(INVOCATION_RECORDED, None, json!({"artifacts": [{"ref": receipt_ref, "blake3": blake3}]}))?;
            c.row.updated = updated;
            Ok(())
        })
    }

    /// Refuses the request of a run: one that is QUEUED and never started is REJECTED; any other stays
    /// as it is and has an event more; where there is none the refusal is put on record.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `ReadOnly`.
    pub fn refuse(
        &self,
        run_key: &str,
        request_id: Option<&str>,
        platform_run_id: Option<&str>,
        reason: ReasonCode,
        detail: &Value,
    ) -> Result<RunRow> {
        let waiting = self.change(run_key, |c| {
            if c.row.status != Status::Queued || c.row.attempt() > 0 {
                return Ok(None);
            }
            c.row.status = Status::Rejected;
            c.row.reason_code = Some(reason.as_str().to_owned());
            c.row.reason = Some(detail.clone());
            c.row.end_class = Some("REJECTED".into());
            c.row.completed = Some(c.now);
            c.event("INTENT_REJECTED", Some(reason), detail.clone())?;
            Ok(Some(c.row.clone()))
        });
        match waiting {
            Ok(Some(row)) => Ok(row),
            Ok(None) | Err(LedgerError::NotFound(_)) => self.reject(run_key, request_id, platform_run_id, None, reason, detail),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::testing::*;
    use super::super::{Access, End, ExecutionMode, Watch};
    use super::*;

    fn last(ledger: &Ledger) -> String {
        ledger.events("k", 0).unwrap().pop().unwrap().event_type
    }

    #[test]
    fn only_what_can_be_helped_is_queued_again() {
        for (status, ledger, _home) in one_of_each() {
            let before = ledger.run("k").unwrap().unwrap();
            assert!(!ledger.requeue("k").unwrap(), "{status}");
            assert_eq!(ledger.run("k").unwrap().unwrap(), before, "{status}");
        }
        let (_, ledger) = in_memory();
        let lease = running(&ledger, "k");
        ledger.finish(&lease, &failed("SOURCE_IO")).unwrap();
        assert!(ledger.requeue("k").unwrap());
        let row = ledger.run("k").unwrap().unwrap();
        assert_eq!((row.status, row.reason_code, row.reason, row.result, row.completed), (Status::Queued, None, None, None, None));
        assert_eq!((row.full_run_attempts, last(&ledger).as_str()), (1, "RUN_QUEUED_AGAIN"));
        assert!(!ledger.requeue("k").unwrap());
        ledger.start("k", ExecutionMode::Full, &elsewhere(1), 10).unwrap();
        assert_eq!(ledger.verify_chain("k").unwrap(), [""; 0]);
        assert_eq!(ledger.requeue("nobody").unwrap_err(), LedgerError::NotFound("nobody".into()));
    }

    #[test]
    fn a_refused_request_is_rejected_only_before_it_started() {
        let refuse = |ledger: &Ledger| ledger.refuse("k", Some("req-k"), None, ReasonCode::RunConfigDigestMismatch, &json!({})).unwrap();
        for (status, ledger, _home) in one_of_each() {
            let before = ledger.run("k").unwrap().unwrap();
            let after = refuse(&ledger);
            if matches!(status, Status::Queued | Status::Rejected) {
                assert_eq!((after.status, after.reason_code.as_deref()), (Status::Rejected, Some("RUN_CONFIG_DIGEST_MISMATCH")));
            } else {
                assert_eq!((but_for_events(after), last(&ledger).as_str()), (but_for_events(before), "REQUEST_REFUSED"), "{status}");
            }
        }
        let (_, ledger) = in_memory();
        assert_eq!(refuse(&ledger).status, Status::Rejected);
        // One that was handed back keeps its work, and can be asked for again.
        let (_, ledger) = in_memory();
        let lease = running(&ledger, "k");
        ledger.finish(&lease, &End::Interrupted { signal: "TERM".into() }).unwrap();
        assert_eq!((refuse(&ledger).status, last(&ledger).as_str()), (Status::Queued, "REQUEST_REFUSED"));
        assert!(ledger.requeue("k").unwrap() && !ledger.requeue("k").unwrap());
    }

    #[test]
    fn the_head_and_the_beginning_of_the_end_are_told() {
        let (clock, ledger) = in_memory();
        assert_eq!((ledger.head("k").unwrap(), ledger.ended("k").unwrap()), (None, None));
        let lease = running(&ledger, "k");
        clock.advance(5);
        ledger.finish(&lease, &done("R/m.json")).unwrap();
        ledger.restored("k", "DATA_RESTORED", &json!({})).unwrap();
        assert_eq!(ledger.head("k").unwrap(), Some(Head { status: Status::Done, last_seq: 4 }));
        assert_eq!(ledger.ended("k").unwrap(), Some(Ended { seq: 3, at: START.plus_micros(5), owner: Some(elsewhere(1)) }));
    }

    #[test]
    fn a_receipt_is_vouched_for_once_and_never_after_it_was_changed() {
        for (status, ledger, _home) in one_of_each() {
            let before = ledger.run("k").unwrap().unwrap();
            ledger.vouch("k", "R/ofs/job_invocations/k/1.json", "aa").unwrap();
            ledger.vouch("k", "R/ofs/job_invocations/k/1.json", "bb").unwrap();
            ledger.vouch("k", "R/ofs/job_invocations/k/2.json", "cc").unwrap();
            let after = ledger.run("k").unwrap().unwrap();
            assert_eq!(but_for_events(after), but_for_events(before.clone()), "{status}");
            let told: Vec<Value> =
                ledger.events("k", before.last_seq).unwrap().into_iter().map(|e| e.detail["artifacts"][0]["blake3"].clone()).collect();
            assert_eq!(told, [json!("aa"), json!("cc")], "{status}");
            assert_eq!(ledger.verify_chain("k").unwrap(), [""; 0]);
        }
    }

    /// Another worker vouches for the same receipt right before the first write.
    #[derive(Debug)]
    struct Faster(Mutex<Option<Ledger>>);

    impl Watch for Faster {
        fn around(&self, access: Access, operation: &mut dyn FnMut() -> Result<()>) -> Result<()> {
            if access == Access::Write
                && let Some(other) = self.0.lock().unwrap().take()
            {
                other.vouch("k", "R/1.json", "theirs")?;
            }
            operation()
        }
    }

    #[test]
    fn two_workers_at_once_vouch_once() {
        let home = Home::new();
        let lease = running(&home.ledger(), "k");
        home.ledger().finish(&lease, &done("R/m.json")).unwrap();
        let ledger = home.ledger().with_watch(Arc::new(Faster(Mutex::new(Some(home.ledger())))));
        ledger.vouch("k", "R/1.json", "mine").unwrap();
        let events = ledger.events("k", 0).unwrap();
        let told: Vec<&Value> =
            events.iter().filter(|e| e.event_type == INVOCATION_RECORDED).map(|e| &e.detail["artifacts"][0]["blake3"]).collect();
        assert_eq!(told, ["theirs"]);
        assert_eq!(ledger.verify_chain("k").unwrap(), [""; 0]);
    }

    #[test]
    fn the_data_version_tells_writes_of_others_from_ones_own() {
        let home = Home::new();
        let (mine, other) = (home.ledger(), home.ledger());
        let before = mine.data_version().unwrap();
        mine.register_worker(&elsewhere(1)).unwrap();
        assert_eq!(mine.data_version().unwrap(), before);
        other.register_worker(&elsewhere(2)).unwrap();
        assert_ne!(mine.data_version().unwrap(), before);
    }
}
