//! Publish-only retries: who may have one, and which of them a queued request has had (O025, O026, O130).

use rusqlite::params;
use serde_json::json;

use super::events::Change;
use super::{Ledger, LedgerError, Result, Status};
use crate::contract::ReasonCode;

/// What came of a queued request's wish for a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It has one, the run's n-th.
    Given(u32),
    /// It had been given one before, see [`Ledger::retry_for`].
    Before {
        /// Whether an attempt has begun since.
        begun: bool,
    },
}

impl Ledger {
    /// Gives one of `max` publish-only retries, and of those granted beside them, to a run that waits for
    /// its publication, and says which one it is.
    ///
    /// # Errors
    /// `Exhausted` and `NotPending`, both put on record as events; `NotFound`, `Io`, `Corrupt`, `ReadOnly`.
    pub fn retry_requested(&self, run_key: &str, max: u32) -> Result<u32> {
        self.change(run_key, |c| refusal(c, max)?.map_or_else(|| Ok(Ok(give(c, max, None)?)), |error| Ok(Err(error))))?
    }

    /// [`Ledger::retry_requested`] for a queued request, which is given one retry however many workers ask.
    ///
    /// # Errors
    /// As of [`Ledger::retry_requested`].
    pub fn retry_for(&self, run_key: &str, max: u32, request_id: &str) -> Result<Retry> {
        const GIVEN: &str = "SELECT max(seq) FROM run_events WHERE run_key = ?1 AND event_type = 'PUBLISH_RETRY_REQUESTED'
            AND json_extract(detail_json, '$.request_id') = ?2";
        const BEGUN: &str = "SELECT 1 FROM run_events WHERE run_key = ?1 AND seq > ?2 AND event_type = 'RUN_STARTED'";
        self.change(run_key, |c| {
            let given: Option<i64> = c.conn.prepare_cached(GIVEN)?.query_row(params![run_key, request_id], |row| row.get(0))?;
            if let Some(given) = given {
                let begun = c.conn.prepare_cached(BEGUN)?.exists(params![run_key, given])?;
                return Ok(Ok(Retry::Before { begun }));
            }
            match refusal(c, max)? {
                None => Ok(Ok(Retry::Given(give(c, max, Some(request_id))?))),
                Some(error) => Ok(Err(error)),
            }
        })?
    }

    /// A retry was put into the queue under a request id: an event, once, and audited. Nothing is given yet.
    ///
    /// # Errors
    /// As of [`Ledger::retry_requested`].
    pub fn retry_queued(&self, run_key: &str, max: u32, request_id: &str) -> Result<()> {
        const QUEUED: &str = "SELECT 1 FROM run_events WHERE run_key = ?1 AND event_type = 'PUBLISH_RETRY_QUEUED'
            AND json_extract(detail_json, '$.request_id') = ?2";
        self.change(run_key, |c| {
            if let Some(error) = refusal(c, max)? {
                return Ok(Err(error));
            }
            if !c.conn.prepare_cached(QUEUED)?.exists(params![run_key, request_id])? {
                let detail = json!({"request_id": request_id});
                c.audit("submit", &detail)?;
                c.event("PUBLISH_RETRY_QUEUED", None, detail)?;
            }
            Ok(Ok(()))
        })?
    }
}

/// Why a run may have no retry, put on record.
fn refusal(c: &mut Change<'_>, max: u32) -> Result<Option<LedgerError>> {
    let (run_key, attempts, max) = (c.row.run_key.clone(), c.row.publish_retry_attempts, c.row.retry_budget(max));
    let detail = json!({"attempts": attempts, "max": max});
    if c.row.status != Status::PublishPending {
        c.event("PUBLISH_RETRY_SKIPPED", Some(ReasonCode::RetryNotPending), detail)?;
        return Ok(Some(LedgerError::NotPending { run_key, status: c.row.status }));
    }
    if attempts >= max {
        c.event("PUBLISH_RETRY_EXHAUSTED", Some(ReasonCode::PublishRetryExhausted), detail)?;
        return Ok(Some(LedgerError::Exhausted { run_key, attempts }));
    }
    Ok(None)
}

fn give(c: &mut Change<'_>, max: u32, request_id: Option<&str>) -> Result<u32> {
    c.row.publish_retry_attempts += 1;
    let given = c.row.publish_retry_attempts;
    let mut detail = json!({"attempt": given, "max": c.row.retry_budget(max)});
    if let (Some(id), Some(map)) = (request_id, detail.as_object_mut()) {
        map.insert("request_id".into(), json!(id));
    }
    c.audit("retry", &detail)?;
    c.event("PUBLISH_RETRY_REQUESTED", None, detail)?;
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::super::ExecutionMode;
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_queued_request_has_one_retry_however_many_workers_ask() {
        let (_home, ledger, _) = pending();
        ledger.retry_queued("k", 3, "retry.1").unwrap();
        ledger.retry_queued("k", 3, "retry.1").unwrap();
        assert_eq!(ledger.retry_for("k", 3, "retry.1"), Ok(Retry::Given(1)));
        assert_eq!(ledger.retry_for("k", 3, "retry.1"), Ok(Retry::Before { begun: false }));
        let lease = ledger.start("k", ExecutionMode::PublishOnly, &elsewhere(1), 10).unwrap();
        ledger.finish(&lease, &commit_failed()).unwrap();
        assert_eq!(ledger.retry_for("k", 3, "retry.1"), Ok(Retry::Before { begun: true }));
        let row = ledger.run("k").unwrap().unwrap();
        assert_eq!((row.publish_retry_attempts, row.status), (1, Status::PublishPending));
        assert_eq!(ledger.retry_for("k", 3, "retry.2"), Ok(Retry::Given(2)));
        assert_eq!(ledger.retry_for("k", 2, "retry.3"), Err(LedgerError::Exhausted { run_key: "k".into(), attempts: 2 }));
        let queued = ledger.events("k", 0).unwrap().iter().filter(|e| e.event_type == "PUBLISH_RETRY_QUEUED").count();
        assert_eq!((queued, ledger.verify_chain("k").unwrap().len()), (1, 0));
    }

    #[test]
    fn a_retry_of_what_is_not_pending_is_not_queued() {
        for (status, ledger, _home) in one_of_each() {
            let queued = ledger.retry_queued("k", 3, "retry.1");
            assert_eq!(queued.is_ok(), status == Status::PublishPending, "{status}");
        }
    }
}
