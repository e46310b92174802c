//! Runs in brief, for lists of a hundred thousand: no documents, and only what changed since last time.

use rusqlite::{Connection, Params, Row, params};
use serde_json::Value;

use super::row::unsigned;
use super::schema::has_column;
use super::{Ledger, LedgerError, Owner, Result, Standing, Status, decode};
use crate::contract::ReasonCode;
use crate::time::Instant;

/// A run in one line.
#[derive(Debug, Clone, PartialEq)]
pub struct RunLine {
    /// Its key.
    pub run_key: String,
    /// The request it serves; none where the id itself was invalid.
    pub request_id: Option<String>,
    /// What kind of build.
    pub intent_kind: Option<String>,
    /// Where it stands.
    pub status: Status,
    /// The phase entered last.
    pub phase: Option<String>,
    /// Why it stands where it does, by name.
    pub reason_code: Option<String>,
    /// Manifest id of the identity it resolved to.
    pub manifest_id: Option<String>,
    /// Attempts at the whole corridor.
    pub full_run_attempts: u32,
    /// Publish-only retries used.
    pub publish_retry_attempts: u32,
    /// Publish-only retries that operators granted.
    pub retries_granted: u32,
    /// A commit was journalled and is not settled.
    pub commit_started: bool,
    /// Who holds the lease.
    pub owner: Option<Owner>,
    /// That owner was a process of this host and is gone, as of the reading.
    pub owner_gone: bool,
    /// When the lease ends unless renewed.
    pub lease_expires: Option<Instant>,
    /// Units done and to do in its phase, while it runs.
    pub progress: Option<(u64, u64)>,
    /// When its progress last changed.
    pub last_progress: Option<Instant>,
    /// Since when it waits at a gate for a person.
    pub paused_since: Option<Instant>,
    /// An operator has asked its live owner to end it.
    pub asked: bool,
    /// When its latest event happened.
    pub updated: Instant,
    /// Number of its latest event.
    pub last_seq: u64,
}

/// The columns of a line. An older ledger that is only read lacks those that its version did not have yet.
fn columns(conn: &Connection) -> Result<String> {
    let (granted, asked) = match has_column(conn, "runs", "retries_granted")? {
        true => ("retries_granted", "operator_request_json IS NOT NULL"),
        false => ("0", "0"),
    };
    Ok(format!(
        "run_key, request_id, intent_kind, status, phase, reason_code, manifest_id, full_run_attempts,
        publish_retry_attempts, {granted}, commit_started, lease_owner, lease_expires_us,
        CASE WHEN status = 'RUNNING' THEN progress_json END, last_progress_us, paused_since_us, {asked}, updated_us, last_seq"
    ))
}

impl RunLine {
    /// Attempts of both kinds.
    pub fn attempts(&self) -> u32 {
        self.full_run_attempts.saturating_add(self.publish_retry_attempts)
    }

    /// The facts that what may be done with it depends on.
    pub fn standing(&self) -> Standing {
        Standing {
            status: self.status,
            code: self.reason_code.as_deref().and_then(ReasonCode::parse),
            owner_gone: self.owner_gone || self.owner.is_none(),
            lease_expires: self.lease_expires,
            last_progress: self.last_progress,
            paused_since: self.paused_since,
            updated: self.updated,
            publish_retry_attempts: self.publish_retry_attempts,
            retries_granted: self.retries_granted,
            commit_started: self.commit_started,
        }
    }

    /// The latest sign of life: its newest event or, while it runs, its newest progress.
    pub fn sign(&self) -> Instant {
        self.last_progress.filter(|_| self.status == Status::Running).map_or(self.updated, |at| at.max(self.updated))
    }

    fn from_sql(row: &Row<'_>) -> Result<Self> {
        let instant = |i: usize| -> Result<Option<Instant>> { Ok(row.get::<_, Option<i64>>(i)?.map(Instant)) };
        let status: String = row.get(3)?;
        let owner: Option<String> = row.get(11)?;
        let owner: Option<Owner> =
            owner.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| LedgerError::Corrupt(format!("lease owner: {e}")))?;
        let progress: Option<String> = row.get(13)?;
        Ok(RunLine {
            run_key: row.get(0)?,
            request_id: row.get(1)?,
            intent_kind: row.get(2)?,
            status: Status::parse(&status).ok_or_else(|| LedgerError::Corrupt(format!("unknown status {status}")))?,
            phase: row.get(4)?,
            reason_code: row.get(5)?,
            manifest_id: row.get(6)?,
            full_run_attempts: row.get(7)?,
            publish_retry_attempts: row.get(8)?,
            retries_granted: row.get(9)?,
            commit_started: row.get(10)?,
            owner_gone: owner.as_ref().is_some_and(|o| o.alive_here() == Some(false)),
            owner,
            lease_expires: instant(12)?,
            progress: progress.as_deref().map(decode).transpose()?.as_ref().and_then(units),
            last_progress: instant(14)?,
            paused_since: instant(15)?,
            asked: row.get(16)?,
            updated: Instant(row.get(17)?),
            last_seq: unsigned(row.get(18)?)?,
        })
    }
}

/// Done and total of a progress document.
fn units(progress: &Value) -> Option<(u64, u64)> {
    Some((progress.get("done")?.as_u64()?, progress.get("total")?.as_u64()?))
}

impl Ledger {
    /// The newest `limit` runs, the one with the newest event first.
    ///
    /// # Errors
    /// As of [`Ledger::run`]; so both below.
    pub fn newest_lines(&self, limit: u64) -> Result<Vec<RunLine>> {
        let limit = super::row::signed(limit)?;
        self.lines("ORDER BY updated_us DESC, run_key LIMIT ?1", params![limit])
    }

    /// The `limit` runs that come after `(updated, run_key)` in that order.
    ///
    /// # Errors
    /// As of [`Ledger::newest_lines`].
    pub fn lines_after(&self, updated: Instant, run_key: &str, limit: u64) -> Result<Vec<RunLine>> {
        let limit = super::row::signed(limit)?;
        let rest = "WHERE updated_us <= ?1 AND (updated_us < ?1 OR run_key > ?2) ORDER BY updated_us DESC, run_key LIMIT ?3";
        self.lines(rest, params![updated.0, run_key, limit])
    }

    /// The runs with an event at `since` or later, and those named, whose progress and lease move without
    /// events.
    ///
    /// # Errors
    /// As of [`Ledger::newest_lines`].
    pub fn changed_lines(&self, since: Instant, running: &[String]) -> Result<Vec<RunLine>> {
        let mut changed = self.lines("WHERE updated_us >= ?1 ORDER BY updated_us DESC, run_key", [since.0])?;
        for run_key in running {
            if changed.iter().all(|line| line.run_key != *run_key) {
                changed.extend(self.lines("WHERE run_key = ?1", [run_key])?);
            }
        }
        Ok(changed)
    }

    fn lines(&self, rest: &str, params: impl Params) -> Result<Vec<RunLine>> {
        self.ask(|conn| {
            let mut query = conn.prepare_cached(&format!("SELECT {} FROM runs {rest}", columns(conn)?))?;
            query.query_and_then(params, RunLine::from_sql)?.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::*;
    use super::super::{Access, ExecutionMode, LedgerError, Result as LedgerResult, RunFilter, Watch};
    use crate::time::{Clock, Instant};
    use serde_json::json;

    #[derive(Debug)]
    struct Deaf;

    impl Watch for Deaf {
        fn around(&self, access: Access, _: &mut dyn FnMut() -> LedgerResult<()>) -> LedgerResult<()> {
            Err(LedgerError::Io(format!("{access:?}")))
        }
    }

    #[test]
    fn a_failing_read_reaches_whoever_asks_for_lines() {
        let (_, ledger) = in_memory();
        ledger.submit(&new_run("a")).unwrap();
        let ledger = ledger.with_watch(Arc::new(Deaf));
        for asked in [ledger.newest_lines(1), ledger.lines_after(Instant(0), "a", 1), ledger.changed_lines(Instant(0), &[])] {
            assert_eq!(asked.unwrap_err(), LedgerError::Io("Read".into()));
        }
    }

    #[test]
    fn a_line_says_what_the_record_says_in_every_state() {
        for (status, ledger, _clock) in one_of_each() {
            let row = ledger.run("k").unwrap().unwrap();
            let line = ledger.newest_lines(10).unwrap().remove(0);
            assert_eq!((line.status, line.attempts(), line.last_seq), (status, row.attempt(), row.last_seq));
            assert_eq!(line.standing(), row.standing());
            assert_eq!((line.phase, line.reason_code, line.owner), (row.phase, row.reason_code, row.owner));
        }
    }

    #[test]
    fn pages_and_changes_together_give_the_whole_list() {
        let (clock, ledger) = in_memory();
        for i in 0..7 {
            ledger.submit(&new_run(&format!("r{i}"))).unwrap();
            clock.advance(i % 2);
        }
        let mut seen = ledger.newest_lines(2).unwrap();
        while let Some(last) = seen.last().cloned() {
            let more = ledger.lines_after(last.updated, &last.run_key, 2).unwrap();
            if more.is_empty() {
                break;
            }
            seen.extend(more);
        }
        let all = ledger.runs(&RunFilter::default()).unwrap();
        assert_eq!(seen.iter().map(|l| &l.run_key).collect::<Vec<_>>(), all.iter().map(|r| &r.run_key).collect::<Vec<_>>());
        let newest = seen[0].updated;
        clock.advance(5);
        let lease = ledger.start("r3", ExecutionMode::Full, &elsewhere(1), 1_000).unwrap();
        let changed = ledger.changed_lines(newest.plus_micros(1), &[]).unwrap();
        assert_eq!(changed.iter().map(|l| l.run_key.as_str()).collect::<Vec<_>>(), ["r3"]);
        // A heartbeat is no event, so only the name finds it.
        clock.advance(5);
        ledger.heartbeat(&lease, 1_000, Some(&json!({"done": 3, "total": 9}))).unwrap();
        assert_eq!(ledger.changed_lines(clock.now(), &[]).unwrap(), []);
        let changed = ledger.changed_lines(clock.now(), &["r3".to_owned(), "gone".to_owned()]).unwrap();
        assert_eq!((changed.len(), changed[0].progress, changed[0].sign()), (1, Some((3, 9)), clock.now()));
    }

    /// Every question that the console asks while somebody looks at it, with what answers it. A ledger of a hundred
    /// thousand runs has as many events and audit rows: whatever reads a whole table is felt.
    #[test]
    fn what_a_screen_asks_is_answered_from_indexes() {
        let (_, ledger) = in_memory();
        let conn = ledger.conn();
        for (sql, by) in [
            ("SELECT run_key FROM runs ORDER BY updated_us DESC, run_key LIMIT 5", "runs_by_update"),
            (
                "SELECT status FROM runs WHERE updated_us <= 9 AND (updated_us < 9 OR run_key > 'k') ORDER BY updated_us DESC, run_key LIMIT 5",
                "runs_by_update (updated_us<?)",
            ),
            ("SELECT status FROM runs WHERE updated_us >= 5 ORDER BY updated_us DESC, run_key", "runs_by_update (updated_us>?)"),
            ("SELECT status FROM runs WHERE run_key = 'k'", "sqlite_autoindex_runs_1 (run_key=?)"),
            ("SELECT * FROM runs WHERE request_id = 'r'", "sqlite_autoindex_runs_2 (request_id=?)"),
            ("SELECT * FROM runs WHERE ?1 IS NULL OR status = ?1 ORDER BY updated_us DESC, run_key LIMIT 50", "runs_by_update"),
            ("SELECT * FROM runs WHERE manifest_id = 'm' ORDER BY updated_us DESC, run_key", "runs_by_manifest (manifest_id=?)"),
            ("SELECT * FROM run_events WHERE run_key = 'k' AND seq > 3 ORDER BY seq", "PRIMARY KEY (run_key=? AND seq>?)"),
            ("SELECT * FROM audit WHERE run_key = 'k' ORDER BY seq", "audit_by_run (run_key=?)"),
            ("SELECT * FROM ref_audit WHERE run_key = 'k' ORDER BY seq", "ref_audit_by_run (run_key=?)"),
            ("SELECT * FROM progress_samples WHERE run_key = 'k' AND attempt = 1 ORDER BY id", "progress_samples_by_attempt (run_key=?"),
            (
                "SELECT * FROM outbox WHERE delivered_at IS NULL ORDER BY failures, created_at, run_key, seq, kind LIMIT 9",
                "outbox_undelivered",
            ),
        ] {
            let mut query = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let steps: Vec<String> = query
                .query_map(rusqlite::params_from_iter(vec![rusqlite::types::Null; query.parameter_count()]), |row| row.get(3))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let plan = steps.join("; ");
            assert!(plan.contains(by), "{sql}: {plan}");
            // An order that no index gives is made for the few rows that are found, never for all runs.
            let few = ["FROM outbox", "WHERE manifest_id"].iter().any(|part| sql.contains(part));
            assert!(!plan.contains("TEMP B-TREE") || few, "{sql}: {plan}");
        }
    }

    #[test]
    fn the_audit_of_one_run_is_that_of_all_without_the_others() {
        let (_, ledger) = in_memory();
        for key in ["a", "b"] {
            running(&ledger, key);
            ledger.note(key, "seen").unwrap();
        }
        let (all, one) = (ledger.audit_rows(None).unwrap(), ledger.audit_rows(Some("a")).unwrap());
        assert!(!one.is_empty() && one.len() < all.len());
        assert_eq!(one, all.into_iter().filter(|row| row.run_key.as_deref() == Some("a")).collect::<Vec<_>>());
        assert_eq!(ledger.audit_rows(Some("z")).unwrap(), []);
    }
}
