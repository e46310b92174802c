//! Questions about runs that change nothing.

use rusqlite::{Params, params};

use super::row::signed;
use super::{Ledger, LedgerError, Result, RunRow, SampleRow, Status, decode};
use crate::time::Instant;

/// Which runs to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunFilter {
    /// Only those in this state.
    pub status: Option<Status>,
    /// At most so many.
    pub limit: Option<u64>,
}

impl Ledger {
    /// The version of the tables.
    ///
    /// # Errors
    /// As of [`Ledger::run`].
    pub fn schema_version(&self) -> Result<i64> {
        self.ask(super::schema::version)
    }

    /// The run with this key.
    ///
    /// # Errors
    /// `Io`, `Corrupt`; so every question here.
    pub fn run(&self, run_key: &str) -> Result<Option<RunRow>> {
        self.ask(|conn| RunRow::load(conn, run_key, self.clock.now()))
    }

    /// The run of this request.
    ///
    /// # Errors
    /// As of [`Ledger::run`].
    pub fn run_by_request(&self, request_id: &str) -> Result<Option<RunRow>> {
        Ok(self.select("WHERE request_id = ?1", [request_id])?.pop())
    }

    /// Runs, the one with the newest event first, ties by key.
    ///
    /// # Errors
    /// As of [`Ledger::run`].
    pub fn runs(&self, filter: &RunFilter) -> Result<Vec<RunRow>> {
        // SQLite takes a negative limit for none.
        let limit = filter.limit.map_or(Ok(-1), signed)?;
        let status = filter.status.map(Status::as_str);
        self.select("WHERE ?1 IS NULL OR status = ?1 ORDER BY updated_us DESC, run_key LIMIT ?2", params![status, limit])
    }

    /// The runs that resolved to this identity, newest first.
    ///
    /// # Errors
    /// As of [`Ledger::run`].
    pub fn by_manifest(&self, manifest_id: &str) -> Result<Vec<RunRow>> {
        self.select("WHERE manifest_id = ?1 ORDER BY updated_us DESC, run_key", [manifest_id])
    }

    /// The progress samples kept of one attempt, in order.
    ///
    /// # Errors
    /// As of [`Ledger::run`].
    pub fn samples(&self, run_key: &str, attempt: u32) -> Result<Vec<SampleRow>> {
        self.ask(|conn| {
            let sql = "SELECT at_us, sample_json FROM progress_samples WHERE run_key = ?1 AND attempt = ?2 ORDER BY id";
            let mut query = conn.prepare_cached(sql)?;
            let rows = query.query_and_then(params![run_key, attempt], |row| {
                Ok::<_, LedgerError>(SampleRow { attempt, at: Instant(row.get(0)?), sample: decode(&row.get::<_, String>(1)?)? })
            })?;
            rows.collect()
        })
    }

    fn select(&self, rest: &str, params: impl Params) -> Result<Vec<RunRow>> {
        let now = self.clock.now();
        self.ask(|conn| {
            let mut query = conn.prepare_cached(&format!("SELECT * FROM runs {rest}"))?;
            query.query_and_then(params, |row| RunRow::from_sql(row, now))?.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn runs_come_newest_first_and_can_be_narrowed() {
        let (clock, ledger) = in_memory();
        for key in ["b", "a", "c"] {
            ledger.submit(&new_run(key)).unwrap();
        }
        clock.advance(1);
        running(&ledger, "d");
        let keys = |status, limit| {
            let rows = ledger.runs(&RunFilter { status, limit }).unwrap();
            rows.into_iter().map(|r| r.run_key).collect::<Vec<_>>().join("")
        };
        assert_eq!(keys(None, None), "dabc");
        assert_eq!(keys(None, Some(2)), "da");
        assert_eq!(keys(Some(Status::Queued), None), "abc");
        assert_eq!(keys(Some(Status::Queued), Some(0)), "");
        assert_eq!(keys(Some(Status::Done), None), "");
    }

    #[test]
    fn runs_are_found_by_key_request_and_manifest() {
        let (_, ledger) = in_memory();
        for key in ["a", "b"] {
            let lease = running(&ledger, key);
            ledger.identify(&lease, "f", "dm_1").unwrap();
        }
        assert_eq!(ledger.run("a").unwrap(), ledger.run_by_request("req-a").unwrap());
        assert_eq!((ledger.run("x").unwrap(), ledger.run_by_request("x").unwrap()), (None, None));
        let found = ledger.by_manifest("dm_1").unwrap();
        assert_eq!(found.iter().map(|r| r.run_key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(ledger.by_manifest("dm_2").unwrap(), []);
        let plan = "EXPLAIN QUERY PLAN SELECT * FROM runs WHERE manifest_id = 'x' ORDER BY updated_us DESC, run_key";
        let plan: String = ledger.conn().query_row(plan, [], |row| row.get(3)).unwrap();
        assert!(plan.contains("runs_by_manifest"), "{plan}");
    }
}
