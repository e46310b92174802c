//! Who may write for a run: leases with fencing epochs (O029, O030; pitfall 29).
//!
//! An expired lease still counts until somebody takes the run over: the epoch decides, never the clock.

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::{Value, json};

use super::events::Change;
use super::row::signed;
use super::{ExecutionMode, Ledger, LedgerError, OperatorRequest, Owner, Result, RunRow, Status, decode, encode};
use crate::time::Instant;

/// Most progress samples kept of one attempt.
pub const MAX_SAMPLES: u32 = 200;

/// The right to write for a run, as long as its epoch is the run's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run_key: String,
    /// Which owner of the run this is, from 1.
    pub epoch: u64,
}

/// How far an attempt was at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRow {
    /// The attempt, see [`RunRow::attempt`].
    pub attempt: u32,
    /// When.
    pub at: Instant,
    /// What the owner measured.
    pub sample: Value,
}

impl Ledger {
    /// Makes `owner` the one who works on a run, for `lease_us` micros unless renewed. QUEUED and a
    /// retryable FAILED start a full attempt, PUBLISH_PENDING a publish-only one. A RUNNING run is taken
    /// over where that is legal; it then goes on in the mode and the attempt it is in.
    ///
    /// # Errors
    /// `Busy` under a live lease, `InvalidTransition`, `NotFound`, `Io`, `Corrupt`, `ReadOnly`.
    pub fn start(&self, run_key: &str, mode: ExecutionMode, owner: &Owner, lease_us: i64) -> Result<Lease> {
        self.start_after(run_key, mode, None, owner, lease_us)
    }

    /// [`Ledger::start`] by somebody who saw the run with `seen` full attempts: of several who see one
    /// failure, or one request in the queue, only the first begins a new attempt.
    ///
    /// # Errors
    /// As of [`Ledger::start`].
    pub fn start_after(&self, run_key: &str, mode: ExecutionMode, seen: Option<u32>, owner: &Owner, lease_us: i64) -> Result<Lease> {
        self.change(run_key, |c| {
            let unseen = c.row.status == Status::Failed && seen.is_some_and(|seen| seen != c.row.full_run_attempts);
            match (c.row.status, mode) {
                (Status::Running, _) => take_over(c, owner, lease_us)?,
                (Status::Queued, ExecutionMode::Full) | (Status::PublishPending, ExecutionMode::PublishOnly) => {
                    begin(c, mode, owner, lease_us)?
                }
                (Status::Failed, ExecutionMode::Full) if c.row.retryable() && !unseen => begin(c, mode, owner, lease_us)?,
                _ => return Err(c.row.illegal(format!("start {mode}"))),
            }
            Ok(Lease { run_key: run_key.to_owned(), epoch: c.row.lease_epoch })
        })
    }

    /// Renews a lease and says where the owner is. That the progress is another than before is what
    /// counts as progress; saying the same again does not. What comes back is the end that an operator has
    /// asked the owner to make, if one has.
    ///
    /// # Errors
    /// `LeaseLost`, `NotFound`, `Io`, `Corrupt`, `ReadOnly`.
    pub fn heartbeat(&self, lease: &Lease, lease_us: i64, progress: Option<&Value>) -> Result<Option<OperatorRequest>> {
        // Only the columns that change are written: a run's intent may be megabytes, and this comes often.
        const BEAT: &str = "UPDATE runs SET lease_expires_us = ?3, progress_json = coalesce(?4, progress_json), last_progress_us =
            CASE WHEN ?4 IS NOT NULL AND ?4 IS NOT progress_json THEN ?5 ELSE last_progress_us END
            WHERE run_key = ?1 AND lease_epoch = ?2 AND status = 'RUNNING'
            RETURNING operator_request_json";
        let progress = progress.map(encode).transpose()?;
        self.write(|tx| {
            let now = self.clock.now();
            let beat = params![lease.run_key, signed(lease.epoch)?, now.plus_micros(lease_us).0, progress, now.0];
            let found = tx.prepare_cached(BEAT)?.query_row(beat, |row| row.get::<_, Option<String>>(0)).optional()?;
            let Some(request) = found else { return Err(lost(tx, lease)?) };
            request.map(|text| OperatorRequest::from_json(&decode(&text)?)).transpose()
        })
    }

    /// The end that an operator has asked the owner of a lease to make, if one has. Writes nothing.
    ///
    /// # Errors
    /// `LeaseLost`, `NotFound`, `Io`, `Corrupt`.
    pub fn asked(&self, lease: &Lease) -> Result<Option<OperatorRequest>> {
        const ASKED: &str = "SELECT operator_request_json FROM runs WHERE run_key = ?1 AND lease_epoch = ?2 AND status = 'RUNNING'";
        self.read(|tx| {
            let held = params![lease.run_key, signed(lease.epoch)?];
            let found = tx.prepare_cached(ASKED)?.query_row(held, |row| row.get::<_, Option<String>>(0)).optional()?;
            let Some(request) = found else { return Err(lost(tx, lease)?) };
            request.map(|text| OperatorRequest::from_json(&decode(&text)?)).transpose()
        })
    }

    /// Whether a lease still gives the right to write.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn holds(&self, lease: &Lease) -> Result<bool> {
        const HELD: &str = "SELECT 1 FROM runs WHERE run_key = ?1 AND lease_epoch = ?2 AND status = 'RUNNING'";
        self.ask(|conn| Ok(conn.prepare_cached(HELD)?.exists(params![lease.run_key, signed(lease.epoch)?])?))
    }

    /// Keeps one measurement of progress. When [`MAX_SAMPLES`] are there, every second one goes first.
    ///
    /// # Errors
    /// `LeaseLost`, `NotFound`, `Io`, `Corrupt`, `ReadOnly`.
    pub fn sample(&self, lease: &Lease, sample: &Value) -> Result<()> {
        const ATTEMPT: &str = "SELECT full_run_attempts + publish_retry_attempts FROM runs
            WHERE run_key = ?1 AND lease_epoch = ?2 AND status = 'RUNNING'";
        const THIN: &str = "DELETE FROM progress_samples WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS n
            FROM progress_samples WHERE run_key = ?1 AND attempt = ?2) WHERE n % 2 = 0)";
        let sample = encode(sample)?;
        self.write(|tx| {
            let attempt =
                tx.prepare_cached(ATTEMPT)?.query_map(params![lease.run_key, signed(lease.epoch)?], |row| row.get::<_, u32>(0))?.next();
            let Some(attempt) = attempt.transpose()? else { return Err(lost(tx, lease)?) };
            let count = "SELECT count(*) FROM progress_samples WHERE run_key = ?1 AND attempt = ?2";
            if tx.prepare_cached(count)?.query_row(params![lease.run_key, attempt], |row| row.get::<_, u32>(0))? >= MAX_SAMPLES {
                tx.prepare_cached(THIN)?.execute(params![lease.run_key, attempt])?;
            }
            let insert = "INSERT INTO progress_samples (run_key, attempt, at_us, sample_json) VALUES (?1, ?2, ?3, ?4)";
            tx.prepare_cached(insert)?.execute(params![lease.run_key, attempt, self.clock.now().0, sample])?;
            Ok(())
        })
    }
}

/// Why an owner's write found no run of its own.
fn lost(conn: &Connection, lease: &Lease) -> Result<LedgerError> {
    let known = conn.prepare_cached("SELECT 1 FROM runs WHERE run_key = ?1")?.exists([&lease.run_key])?;
    let run_key = lease.run_key.clone();
    Ok(if known { LedgerError::LeaseLost { run_key } } else { LedgerError::NotFound(run_key) })
}

/// Makes `owner` the one who begins an attempt.
pub(super) fn begin(c: &mut Change<'_>, mode: ExecutionMode, owner: &Owner, lease_us: i64) -> Result<()> {
    let row = &mut c.row;
    if mode == ExecutionMode::Full {
        row.full_run_attempts += 1;
    }
    (row.status, row.execution_mode) = (Status::Running, mode);
    (row.reason_code, row.reason, row.end_class, row.result) = (None, None, None, None);
    (row.phase, row.progress, row.started, row.completed) = (None, None, Some(c.now), None);
    hold(row, owner, c.now, lease_us);
    let detail = json!({"mode": mode, "attempt": row.attempt(), "epoch": row.lease_epoch, "owner": owner});
    c.event("RUN_STARTED", None, detail)
}

fn take_over(c: &mut Change<'_>, owner: &Owner, lease_us: i64) -> Result<()> {
    if let Some(busy) = live(&c.row, c.now) {
        return Err(busy);
    }
    let from = c.row.owner.clone();
    hold(&mut c.row, owner, c.now, lease_us);
    let detail = json!({"from": from, "to": owner, "epoch": c.row.lease_epoch});
    c.event("LEASE_TAKEN_OVER", None, detail)
}

/// Who works on the run under a lease that lives, as a refusal.
pub(super) fn live(row: &RunRow, now: Instant) -> Option<LedgerError> {
    match (row.takeover_legal(now), &row.owner, row.lease_expires) {
        (false, Some(owner), Some(expires)) => Some(LedgerError::Busy { owner: owner.clone(), expires }),
        _ => None,
    }
}

/// Gives the run to `owner` under a new epoch.
fn hold(row: &mut RunRow, owner: &Owner, now: Instant, lease_us: i64) {
    row.lease_epoch += 1;
    row.owner = Some(owner.clone());
    row.lease_expires = Some(now.plus_micros(lease_us));
    row.last_progress = Some(now);
    row.paused_since = None;
}

#[cfg(test)]
mod tests {
    use super::super::End;
    use super::super::testing::*;
    use super::*;
    use crate::contract::ReasonCode;

    #[test]
    fn a_start_sets_state_owner_expiry_and_epoch_at_once() {
        let home = Home::new();
        let ledger = home.ledger();
        ledger.submit(&new_run("k")).unwrap();
        let lease = ledger.start("k", ExecutionMode::Full, &elsewhere(1), 1_000).unwrap();
        assert_eq!(lease, Lease { run_key: "k".into(), epoch: 1 });
        let row = ledger.run("k").unwrap().unwrap();
        assert_eq!((row.status, row.execution_mode, row.full_run_attempts), (Status::Running, ExecutionMode::Full, 1));
        assert_eq!((row.owner, row.lease_expires, row.lease_epoch), (Some(elsewhere(1)), Some(START.plus_micros(1_000)), 1));
        assert_eq!((row.started, row.last_progress), (Some(START), Some(START)));
        let detail = ledger.events("k", 1).unwrap().remove(0).detail;
        assert_eq!(detail, json!({"mode": "FULL", "attempt": 1, "epoch": 1, "owner": elsewhere(1)}));
        assert_eq!(ledger.start("nobody", ExecutionMode::Full, &elsewhere(1), 1).unwrap_err(), LedgerError::NotFound("nobody".into()));
    }

    #[test]
    fn of_two_who_see_one_failure_only_the_first_tries_again() {
        let (_, ledger) = in_memory();
        ledger.submit(&new_run("k")).unwrap();
        let start = |seen| ledger.start_after("k", ExecutionMode::Full, Some(seen), &elsewhere(1), 1_000);
        ledger.finish(&start(0).unwrap(), &failed("SOURCE_IO")).unwrap();
        // One who saw it in the queue begins nothing once it has failed, nor one who saw an earlier failure.
        assert!(matches!(start(0), Err(LedgerError::InvalidTransition { .. })));
        ledger.finish(&start(1).unwrap(), &failed("SOURCE_IO")).unwrap();
        assert!(matches!(start(1), Err(LedgerError::InvalidTransition { .. })));
        assert_eq!(ledger.run("k").unwrap().unwrap().full_run_attempts, 2);
    }

    #[test]
    fn a_live_lease_is_respected_until_the_moment_it_ends() {
        let home = Home::new();
        let ledger = home.ledger();
        ledger.submit(&new_run("k")).unwrap();
        ledger.start("k", ExecutionMode::Full, &elsewhere(1), 1_000).unwrap();
        let take = || ledger.start("k", ExecutionMode::Full, &elsewhere(2), 500);
        home.clock.advance(999);
        assert_eq!(take().unwrap_err(), LedgerError::Busy { owner: elsewhere(1), expires: START.plus_micros(1_000) });
        assert_eq!(ledger.events("k", 0).unwrap().len(), 2);
        home.clock.advance(1);
        assert_eq!(take().unwrap().epoch, 2);
        let event = ledger.events("k", 2).unwrap().remove(0);
        assert_eq!((event.event_type.as_str(), event.status), ("LEASE_TAKEN_OVER", Status::Running));
        assert_eq!(event.detail, json!({"from": elsewhere(1), "to": elsewhere(2), "epoch": 2}));
        let row = ledger.run("k").unwrap().unwrap();
        assert_eq!((row.owner, row.full_run_attempts, row.lease_expires), (Some(elsewhere(2)), 1, Some(START.plus_micros(1_500))));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_dead_process_of_this_host_is_replaced_at_once_and_a_live_one_is_not() {
        for (owner, legal) in [(dead(), true), (Owner::current(), false), (elsewhere(1), false)] {
            let home = Home::new();
            let ledger = home.ledger();
            ledger.submit(&new_run("k")).unwrap();
            ledger.start("k", ExecutionMode::Full, &owner, 1_000_000).unwrap();
            let taken = ledger.start("k", ExecutionMode::Full, &Owner::current(), 1_000_000);
            assert_eq!(taken.is_ok(), legal, "{owner:?}");
            assert_eq!(ledger.run("k").unwrap().unwrap().lease_epoch, if legal { 2 } else { 1 });
        }
    }

    #[test]
    fn a_takeover_keeps_mode_attempt_and_phase() {
        let (clock, ledger, lease) = pending();
        let lease2 = retried(&ledger, 3).unwrap();
        assert_eq!(lease2.epoch, lease.epoch + 1);
        ledger.enter_phase(&lease2, "publish").unwrap();
        ledger.set_paused(&lease2, true).unwrap();
        clock.advance(1_000);
        ledger.start("k", ExecutionMode::Full, &elsewhere(2), 10).unwrap();
        let row = ledger.run("k").unwrap().unwrap();
        assert_eq!((row.execution_mode, row.full_run_attempts, row.publish_retry_attempts), (ExecutionMode::PublishOnly, 1, 1));
        assert_eq!((row.phase.as_deref(), row.paused_since), (Some("publish"), None));
    }

    #[test]
    fn a_superseded_owner_can_write_nothing() {
        let home = Home::new();
        let ledger = home.ledger();
        ledger.submit(&new_run("k")).unwrap();
        let old = ledger.start("k", ExecutionMode::Full, &elsewhere(1), 10).unwrap();
        home.clock.advance(10);
        let new = ledger.start("k", ExecutionMode::Full, &elsewhere(2), 10).unwrap();
        let unborn = Lease { epoch: new.epoch + 1, ..new.clone() };
        assert_eq!([&old, &unborn, &new].map(|lease| ledger.holds(lease).unwrap()), [false, false, true]);
        let before = (home.dump("runs"), home.dump("run_events"), home.dump("progress_samples"));
        for lease in [old, unborn] {
            for (name, error) in owners_writes(&ledger, &lease) {
                assert_eq!(error, Some(LedgerError::LeaseLost { run_key: "k".into() }), "{name}");
                assert_eq!((home.dump("runs"), home.dump("run_events"), home.dump("progress_samples")), before, "{name}");
            }
        }
        for (name, error) in owners_writes(&ledger, &Lease { run_key: "nobody".into(), epoch: 1 }) {
            assert_eq!(error, Some(LedgerError::NotFound("nobody".into())), "{name}");
        }
        // The same list under the right lease: so it is the epoch that decides.
        for (name, error) in owners_writes(&ledger, &new) {
            assert_eq!(error, None, "{name}");
        }
    }

    #[test]
    fn an_expired_lease_that_nobody_took_still_counts() {
        let (home, ledger) = in_memory();
        let lease = running(&ledger, "k");
        home.advance(i64::from(u32::MAX));
        ledger.heartbeat(&lease, 5, None).unwrap();
        assert_eq!(ledger.run("k").unwrap().unwrap().lease_expires, Some(START.plus_micros(i64::from(u32::MAX) + 5)));
    }

    #[test]
    fn only_a_change_of_progress_is_progress() {
        let (clock, ledger) = in_memory();
        let lease = running(&ledger, "k");
        let seen = || {
            let row = ledger.run("k").unwrap().unwrap();
            (row.lease_expires.unwrap().0 - START.0, row.progress, row.last_progress.unwrap().0 - START.0)
        };
        clock.advance(1);
        ledger.heartbeat(&lease, 100, Some(&json!({"done": 1}))).unwrap();
        assert_eq!(seen(), (101, Some(json!({"done": 1})), 1));
        clock.advance(1);
        ledger.heartbeat(&lease, 100, Some(&json!({"done": 1}))).unwrap();
        assert_eq!(seen(), (102, Some(json!({"done": 1})), 1));
        clock.advance(1);
        ledger.heartbeat(&lease, 100, None).unwrap();
        assert_eq!(seen(), (103, Some(json!({"done": 1})), 1));
        ledger.heartbeat(&lease, 100, Some(&json!({"done": 2}))).unwrap();
        assert_eq!(seen(), (103, Some(json!({"done": 2})), 3));
        assert_eq!(ledger.events("k", 0).unwrap().len(), 2);
    }

    #[test]
    fn samples_are_thinned_and_keep_the_whole_span() {
        let (_, ledger) = in_memory();
        let lease = running(&ledger, "k");
        for n in 0..1_001 {
            ledger.sample(&lease, &json!(n)).unwrap();
            assert!(ledger.samples("k", 1).unwrap().len() <= 200);
        }
        let kept: Vec<i64> = ledger.samples("k", 1).unwrap().iter().map(|s| s.sample.as_i64().unwrap()).collect();
        assert!(kept.len() > 100 && kept.is_sorted() && kept[0] == 0 && kept[kept.len() - 1] == 1_000, "{kept:?}");
        // Another attempt has samples of its own.
        ledger.finish(&lease, &failed("SOURCE_IO")).unwrap();
        let lease = ledger.start("k", ExecutionMode::Full, &elsewhere(1), 10).unwrap();
        ledger.sample(&lease, &json!(0)).unwrap();
        assert_eq!(ledger.samples("k", 2).unwrap(), [SampleRow { attempt: 2, at: START, sample: json!(0) }]);
        assert_eq!(ledger.samples("k", 1).unwrap().len(), kept.len());
    }

    #[test]
    fn of_two_that_race_to_start_one_wins() {
        let home = Home::new();
        for round in 0..20 {
            let key = format!("k{round}");
            home.ledger().submit(&new_run(&key)).unwrap();
            let outcomes = race(&home, |ledger| ledger.start(&key, ExecutionMode::Full, &Owner::current(), 1_000_000));
            assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{outcomes:?}");
            assert!(outcomes.iter().any(|o| matches!(o, Err(LedgerError::Busy { .. }))), "{outcomes:?}");
            let row = home.ledger().run(&key).unwrap().unwrap();
            assert_eq!((row.full_run_attempts, row.lease_epoch, row.last_seq), (1, 1, 2));
        }
    }

    #[test]
    fn of_two_that_race_to_take_over_one_wins() {
        let home = Home::new();
        for round in 0..10 {
            let key = format!("k{round}");
            home.ledger().submit(&new_run(&key)).unwrap();
            home.ledger().start(&key, ExecutionMode::Full, &elsewhere(1), 0).unwrap();
            let outcomes = race(&home, |ledger| ledger.start(&key, ExecutionMode::Full, &elsewhere(2), 1_000));
            assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1, "{outcomes:?}");
            assert_eq!(home.ledger().run(&key).unwrap().unwrap().lease_epoch, 2);
        }
    }

    #[test]
    fn a_release_keeps_the_epoch_so_the_next_owner_has_a_higher_one() {
        let (_, ledger) = in_memory();
        let first = running(&ledger, "k");
        let row = ledger.finish(&first, &End::Interrupted { signal: "HUP".into() }).unwrap();
        assert_eq!((row.owner, row.lease_expires, row.lease_epoch), (None, None, 1));
        assert_eq!(row.reason_code.as_deref(), Some(ReasonCode::Interrupted.as_str()));
        let second = ledger.start("k", ExecutionMode::Full, &elsewhere(1), 1).unwrap();
        assert_eq!(second.epoch, 2);
        assert!(matches!(ledger.heartbeat(&first, 1, None), Err(LedgerError::LeaseLost { .. })));
        let row = ledger.run("k").unwrap().unwrap();
        assert_eq!((row.full_run_attempts, row.reason_code), (2, None));
    }
}
