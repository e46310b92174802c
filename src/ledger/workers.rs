//! Who is there to work on queued requests: every worker registers, says regularly that it is alive, and
//! signs off.

use rusqlite::params;

use super::{Ledger, Owner, Result};
use crate::time::Instant;

/// How long a worker that is gone stays on record, in micros: long enough to tell who ended a run.
const KEPT: i64 = 7 * 86_400 * 1_000_000;

/// The key of a worker's record.
fn id(worker: &Owner) -> String {
    format!("{}/{}/{}", worker.host, worker.pid, worker.started)
}

impl Ledger {
    /// Puts a worker on record as alive, and forgets those that have been gone for a week.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `ReadOnly`; so every write here.
    pub fn register_worker(&self, worker: &Owner) -> Result<()> {
        const INSERT: &str = "INSERT INTO workers (worker_id, host, pid, started_at, heartbeat_at) VALUES (?1, ?2, ?3, ?4, ?4)
            ON CONFLICT (worker_id) DO UPDATE SET started_at = ?4, heartbeat_at = ?4, stopped_at = NULL";
        self.write(|tx| {
            let now = self.clock.now();
            tx.execute("DELETE FROM workers WHERE heartbeat_at < ?1", [now.plus_micros(-KEPT).0])?;
            tx.execute(INSERT, params![id(worker), worker.host, worker.pid, now.0])?;
            Ok(())
        })
    }

    /// Says that a worker is alive.
    ///
    /// # Errors
    /// As of [`Ledger::register_worker`].
    pub fn worker_alive(&self, worker: &Owner) -> Result<()> {
        self.write(|tx| {
            let now = self.clock.now().0;
            tx.prepare_cached("UPDATE workers SET heartbeat_at = ?2 WHERE worker_id = ?1")?.execute(params![id(worker), now])?;
            Ok(())
        })
    }

    /// Signs a worker off.
    ///
    /// # Errors
    /// As of [`Ledger::register_worker`].
    pub fn worker_stopped(&self, worker: &Owner) -> Result<()> {
        self.write(|tx| {
            let now = self.clock.now().0;
            tx.execute("UPDATE workers SET heartbeat_at = ?2, stopped_at = ?2 WHERE worker_id = ?1", params![id(worker), now])?;
            Ok(())
        })
    }

    /// Whether this process is, or was, a worker.
    ///
    /// # Errors
    /// `Io`, `Corrupt`; so every question here.
    pub fn is_worker(&self, process: &Owner) -> Result<bool> {
        self.ask(|conn| Ok(conn.prepare_cached("SELECT 1 FROM workers WHERE worker_id = ?1")?.exists([id(process)])?))
    }

    /// How many workers are alive: heard of within `life_us`, not signed off, and not a process of this
    /// host that is gone.
    ///
    /// # Errors
    /// As of [`Ledger::is_worker`].
    pub fn workers_alive(&self, life_us: i64) -> Result<usize> {
        let Instant(since) = self.clock.now().plus_micros(-life_us);
        self.ask(|conn| {
            let mut query =
                conn.prepare_cached("SELECT worker_id, host, pid FROM workers WHERE stopped_at IS NULL AND heartbeat_at >= ?1")?;
            let workers = query.query_map([since], |row| {
                let id: String = row.get(0)?;
                let started = id.rsplit_once('/').map(|(_, started)| started.to_owned()).unwrap_or_default();
                Ok(Owner { host: row.get(1)?, pid: row.get(2)?, started })
            })?;
            let mut alive = 0;
            for worker in workers {
                alive += usize::from(worker?.alive_here() != Some(false));
            }
            Ok(alive)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_worker_is_alive_while_it_is_heard_of_and_has_not_signed_off() {
        let (clock, ledger) = in_memory();
        let (one, two) = (elsewhere(1), elsewhere(2));
        assert_eq!(ledger.workers_alive(10).unwrap(), 0);
        ledger.register_worker(&one).unwrap();
        ledger.register_worker(&two).unwrap();
        ledger.register_worker(&two).unwrap();
        assert_eq!(ledger.workers_alive(10).unwrap(), 2);
        clock.advance(8);
        ledger.worker_alive(&one).unwrap();
        clock.advance(8);
        assert_eq!(ledger.workers_alive(10).unwrap(), 1);
        ledger.worker_stopped(&one).unwrap();
        assert_eq!(ledger.workers_alive(10).unwrap(), 0);
        assert!(ledger.is_worker(&one).unwrap() && !ledger.is_worker(&elsewhere(3)).unwrap());
    }

    #[test]
    fn those_gone_for_a_week_are_forgotten() {
        let (clock, ledger) = in_memory();
        ledger.register_worker(&elsewhere(1)).unwrap();
        clock.advance(KEPT + 1);
        ledger.register_worker(&elsewhere(2)).unwrap();
        assert!(!ledger.is_worker(&elsewhere(1)).unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_dead_process_of_this_host_is_no_worker_at_once() {
        let (_, ledger) = in_memory();
        ledger.register_worker(&dead()).unwrap();
        assert_eq!(ledger.workers_alive(i64::from(u32::MAX)).unwrap(), 0);
        ledger.register_worker(&Owner::current()).unwrap();
        assert_eq!(ledger.workers_alive(i64::from(u32::MAX)).unwrap(), 1);
    }
}
