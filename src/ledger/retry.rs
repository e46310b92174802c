//! Publish-only retries: who may have one, and which of them a queued request has had (O025, O026, O130).

use rusqlite::params;
use serde_json::json;

use super::events::Change;
use super::lease::{begin, live};
use super::{ExecutionMode, Lease, Ledger, LedgerError, Owner, Result, Status};
use crate::contract::ReasonCode;

/// A wish for a publish-only retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry<'r> {
    /// How many a run may have beside those that were granted to it.
    pub max: u32,
    /// The queued request that wishes it, which has one however many workers ask.
    pub request_id: Option<&'r str>,
}

/// What stands for a wish.
enum Standing {
    /// A retry is left for it.
    Left,
    /// It had been given one that no attempt has used: programs before this one gave it before they began.
    Given,
    /// Its request has had it.
    Had,
}

impl Ledger {
    /// Whether a run may have a publish-only retry; not, where the request has had its own. Nothing is spent yet.
    ///
    /// # Errors
    /// `Exhausted` and `NotPending`, both put on record as events; `NotFound`, `Io`, `Corrupt`, `ReadOnly`.
    pub fn retry_open(&self, run_key: &str, retry: &Retry<'_>) -> Result<bool> {
        self.change(run_key, |c| Ok(standing(c, retry)?.map(|stands| !matches!(stands, Standing::Had))))?
    }

    /// Starts a publish-only attempt of a run that waits for its publication, and takes the retry for it in the same
    /// write: whoever loses a race for the run spends nothing. No lease comes back where the request has had its retry.
    ///
    /// # Errors
    /// As of [`Ledger::retry_open`], and `Busy` under a live lease.
    pub fn start_retry(&self, run_key: &str, retry: &Retry<'_>, owner: &Owner, lease_us: i64) -> Result<Option<Lease>> {
        self.change(run_key, |c| {
            if let Some(busy) = live(&c.row, c.now) {
                return Err(busy);
            }
            match standing(c, retry)? {
                Err(error) => return Ok(Err(error)),
                Ok(Standing::Had) => return Ok(Ok(None)),
                Ok(Standing::Given) => {}
                Ok(Standing::Left) => give(c, retry)?,
            }
            begin(c, ExecutionMode::PublishOnly, owner, lease_us)?;
            Ok(Ok(Some(Lease { run_key: run_key.to_owned(), epoch: c.row.lease_epoch })))
        })?
    }

    /// A retry was put into the queue under a request id: an event, once, and audited. Nothing is given yet.
    ///
    /// # Errors
    /// As of [`Ledger::retry_open`].
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

/// What stands for a wish, or why it cannot be had, put on record.
fn standing(c: &mut Change<'_>, retry: &Retry<'_>) -> Result<Result<Standing>> {
    const GIVEN: &str = "SELECT max(seq) FROM run_events WHERE run_key = ?1 AND event_type = 'PUBLISH_RETRY_REQUESTED'
        AND json_extract(detail_json, '$.request_id') = ?2";
    const BEGUN: &str = "SELECT 1 FROM run_events WHERE run_key = ?1 AND seq > ?2 AND event_type = 'RUN_STARTED'";
    if let Some(request_id) = retry.request_id {
        let given: Option<i64> = c.conn.prepare_cached(GIVEN)?.query_row(params![c.row.run_key, request_id], |row| row.get(0))?;
        if let Some(given) = given {
            if c.conn.prepare_cached(BEGUN)?.exists(params![c.row.run_key, given])? {
                return Ok(Ok(Standing::Had));
            }
            // It counts already, so only the state can be in its way.
            return Ok(refusal(c, u32::MAX)?.map_or(Ok(Standing::Given), Err));
        }
    }
    Ok(refusal(c, retry.max)?.map_or(Ok(Standing::Left), Err))
}

fn give(c: &mut Change<'_>, retry: &Retry<'_>) -> Result<()> {
    c.row.publish_retry_attempts += 1;
    let mut detail = json!({"attempt": c.row.publish_retry_attempts, "max": c.row.retry_budget(retry.max)});
    if let (Some(id), Some(map)) = (retry.request_id, detail.as_object_mut()) {
        map.insert("request_id".into(), json!(id));
    }
    c.audit("retry", &detail)?;
    c.event("PUBLISH_RETRY_REQUESTED", None, detail)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    const fn wish(max: u32, request_id: Option<&str>) -> Retry<'_> {
        Retry { max, request_id }
    }

    fn events(ledger: &Ledger, event_type: &str) -> usize {
        ledger.events("k", 0).unwrap().iter().filter(|e| e.event_type == event_type).count()
    }

    #[test]
    fn a_queued_request_has_one_retry_however_many_workers_ask() {
        let (_home, ledger, _) = pending();
        ledger.retry_queued("k", 3, "retry.1").unwrap();
        ledger.retry_queued("k", 3, "retry.1").unwrap();
        let start = |max, id| ledger.start_retry("k", &wish(max, Some(id)), &elsewhere(1), 10);
        assert_eq!(ledger.retry_open("k", &wish(3, Some("retry.1"))), Ok(true));
        let lease = start(3, "retry.1").unwrap().unwrap();
        ledger.finish(&lease, &commit_failed()).unwrap();
        assert_eq!((ledger.retry_open("k", &wish(3, Some("retry.1"))), start(3, "retry.1")), (Ok(false), Ok(None)));
        let row = ledger.run("k").unwrap().unwrap();
        assert_eq!((row.publish_retry_attempts, row.status), (1, Status::PublishPending));
        let lease = start(3, "retry.2").unwrap().unwrap();
        ledger.finish(&lease, &commit_failed()).unwrap();
        assert_eq!(start(2, "retry.3"), Err(LedgerError::Exhausted { run_key: "k".into(), attempts: 2 }));
        // What it had is no retry that it lacks now.
        assert_eq!(start(2, "retry.1"), Ok(None));
        assert_eq!((events(&ledger, "PUBLISH_RETRY_QUEUED"), ledger.verify_chain("k").unwrap().len()), (1, 0));
    }

    #[test]
    fn who_loses_the_race_for_a_run_spends_nothing() {
        let (_clock, ledger, _) = pending();
        let retry = wish(3, None);
        for _ in 0..5 {
            assert_eq!(ledger.retry_open("k", &retry), Ok(true));
        }
        let lease = ledger.start_retry("k", &retry, &elsewhere(1), 10).unwrap().unwrap();
        let before = ledger.run("k").unwrap().unwrap();
        assert!(matches!(ledger.start_retry("k", &retry, &elsewhere(2), 10), Err(LedgerError::Busy { .. })));
        assert_eq!(ledger.run("k").unwrap().unwrap(), before);
        assert_eq!((before.publish_retry_attempts, before.attempt(), events(&ledger, "PUBLISH_RETRY_REQUESTED")), (1, 2, 1));
        ledger.finish(&lease, &done("R/m.json")).unwrap();
        let late = ledger.start_retry("k", &retry, &elsewhere(2), 10);
        assert_eq!(late, Err(LedgerError::NotPending { run_key: "k".into(), status: Status::Done }));
        assert_eq!(ledger.run("k").unwrap().unwrap().publish_retry_attempts, 1);
    }

    #[test]
    fn of_two_retries_at_once_one_is_spent() {
        for _ in 0..10 {
            let home = Home::new();
            let lease = running(&home.ledger(), "k");
            home.ledger().finish(&lease, &commit_failed()).unwrap();
            let outcomes = race(&home, |ledger| ledger.start_retry("k", &wish(3, None), &elsewhere(1), 1_000_000));
            assert_eq!(outcomes.iter().filter(|o| matches!(o, Err(LedgerError::Busy { .. }))).count(), 1, "{outcomes:?}");
            assert_eq!(home.ledger().run("k").unwrap().unwrap().publish_retry_attempts, 1);
        }
    }

    #[test]
    fn a_retry_that_was_given_and_never_begun_is_gone_on_with() {
        let (_clock, ledger, _) = pending();
        // As it was left by who gave it before its attempt began.
        ledger.change("k", |c| give(c, &wish(1, Some("retry.1")))).unwrap();
        let (given, other) = (wish(1, Some("retry.1")), wish(1, Some("retry.2")));
        assert_eq!(ledger.retry_open("k", &given), Ok(true));
        assert!(matches!(ledger.retry_open("k", &other), Err(LedgerError::Exhausted { .. })));
        assert!(ledger.start_retry("k", &given, &elsewhere(1), 10).unwrap().is_some());
        assert_eq!(ledger.run("k").unwrap().unwrap().publish_retry_attempts, 1);
    }

    #[test]
    fn a_retry_of_what_is_not_pending_is_not_queued() {
        for (status, ledger, _home) in one_of_each() {
            let queued = ledger.retry_queued("k", 3, "retry.1");
            assert_eq!(queued.is_ok(), status == Status::PublishPending, "{status}");
        }
    }
}
