//! The event log: append-only, gapless from 1, each event's hash taken over the one before; and the
//! audit of what operators did.

use rusqlite::{Connection, Row, params};
use serde_json::{Value, json};

use super::row::{signed, unsigned};
use super::{Lease, Ledger, LedgerError, Result, RunRow, Status, decode, encode};
use crate::contract::ReasonCode;
use crate::digest::digest;
use crate::json::canonical;
use crate::time::Instant;

/// One event of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// The run.
    pub run_key: String,
    /// Its place, from 1 without gaps.
    pub seq: u64,
    /// What happened, like `RUN_STARTED`.
    pub event_type: String,
    /// The state of the run after it.
    pub status: Status,
    /// When.
    pub at: Instant,
    /// Who.
    pub actor: String,
    /// Why, by name.
    pub reason_code: Option<String>,
    /// The particulars.
    pub detail: Value,
    /// Hash of the event before; empty for the first.
    pub prev_hash: String,
    /// BLAKE3 hex, see [`EventRow::digest`].
    pub hash: String,
}

impl EventRow {
    /// What `hash` must be: BLAKE3 hex of the canonical JSON of recipe `ofs.run_event.v1` and of every
    /// other field of this event.
    pub fn digest(&self) -> String {
        digest(&json!({
            "recipe": "ofs.run_event.v1", "run_key": self.run_key, "seq": self.seq, "event_type": self.event_type,
            "status": self.status, "at_utc": self.at, "actor": self.actor, "reason_code": self.reason_code,
            "detail": self.detail, "prev_hash": self.prev_hash,
        }))
    }

    fn from_sql(row: &Row<'_>) -> Result<Self> {
        let status: String = row.get("status")?;
        Ok(EventRow {
            run_key: row.get("run_key")?,
            seq: unsigned(row.get("seq")?)?,
            event_type: row.get("event_type")?,
            status: Status::parse(&status).ok_or_else(|| LedgerError::Corrupt(format!("unknown status {status}")))?,
            at: Instant(row.get("at_us")?),
            actor: row.get("actor")?,
            reason_code: row.get("reason_code")?,
            detail: decode(&row.get::<_, String>("detail_json")?)?,
            prev_hash: row.get("prev_hash")?,
            hash: row.get("hash")?,
        })
    }

    /// As [`EventRow::from_sql`], and only where the particulars stand in the very bytes that were written:
    /// the hash is taken of what they say, and another spelling of it is a change, too.
    fn as_written(row: &Row<'_>) -> Result<Self> {
        let event = Self::from_sql(row)?;
        if canonical(&event.detail) != row.get::<_, String>("detail_json")? {
            return Err(LedgerError::Corrupt("its particulars are not in the form in which they were written".into()));
        }
        Ok(event)
    }

    fn insert(&self, conn: &Connection) -> Result<()> {
        conn.prepare_cached("INSERT INTO run_events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?.execute(params![
            self.run_key,
            signed(self.seq)?,
            self.event_type,
            self.status.as_str(),
            self.at.0,
            self.actor,
            self.reason_code,
            encode(&self.detail)?,
            self.prev_hash,
            self.hash
        ])?;
        Ok(())
    }
}

/// One thing that an operator, or a program in an operator's name, did.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRow {
    /// Its place, from 1 without gaps.
    pub seq: u64,
    /// When.
    pub at: Instant,
    /// Who.
    pub actor: String,
    /// On which host.
    pub host: String,
    /// What.
    pub action: String,
    /// To which run.
    pub run_key: Option<String>,
    /// The particulars.
    pub detail: Value,
}

/// A run under change inside one write transaction.
pub(super) struct Change<'t> {
    pub(super) conn: &'t Connection,
    pub(super) row: RunRow,
    pub(super) now: Instant,
    actor: &'t str,
    host: &'t str,
}

impl Change<'_> {
    /// Appends an event that bears the state the row is in now.
    pub(super) fn event(&mut self, event_type: &str, reason: Option<ReasonCode>, detail: Value) -> Result<()> {
        let mut event = EventRow {
            run_key: self.row.run_key.clone(),
            seq: self.row.last_seq + 1,
            event_type: event_type.to_owned(),
            status: self.row.status,
            at: self.now,
            actor: self.actor.to_owned(),
            reason_code: reason.map(|r| r.as_str().to_owned()),
            detail,
            prev_hash: self.row.last_hash.clone(),
            hash: String::new(),
        };
        event.hash = event.digest();
        event.insert(self.conn)?;
        self.tell(&event)?;
        (self.row.last_seq, self.row.last_hash, self.row.updated) = (event.seq, event.hash, self.now);
        Ok(())
    }

    /// Who writes, and from which host.
    pub(super) fn who(&self) -> (String, String) {
        (self.actor.to_owned(), self.host.to_owned())
    }

    /// Appends to the audit.
    pub(super) fn audit(&self, action: &str, detail: &Value) -> Result<()> {
        audit(self.conn, self.now, (self.actor, self.host), action, Some(&self.row.run_key), detail)
    }
}

fn audit(conn: &Connection, now: Instant, who: (&str, &str), action: &str, run_key: Option<&str>, detail: &Value) -> Result<()> {
    conn.prepare_cached("INSERT INTO audit SELECT coalesce(max(seq), 0) + 1, ?1, ?2, ?3, ?4, ?5, ?6 FROM audit")?.execute(params![
        now.0,
        who.0,
        who.1,
        action,
        run_key,
        encode(detail)?
    ])?;
    Ok(())
}

impl Ledger {
    /// Changes a run that need not exist yet: `f` sees its record, or a blank one with no event.
    pub(super) fn upsert<T>(&self, run_key: &str, f: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
        self.write(|tx| {
            // Asked under the write lock, so that an expiry is judged by a clock that no wait made stale.
            let now = self.clock.now();
            let row = RunRow::load(tx, run_key, now)?.unwrap_or_else(|| RunRow::blank(run_key, now));
            let mut change = Change { conn: tx, row, now, actor: &self.actor, host: &self.host };
            let out = f(&mut change)?;
            change.row.save(tx)?;
            Ok(out)
        })
    }

    /// Changes a run that exists.
    pub(super) fn change<T>(&self, run_key: &str, f: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
        self.upsert(run_key, |c| if c.row.last_seq == 0 { Err(LedgerError::NotFound(run_key.to_owned())) } else { f(c) })
    }

    /// An owner's write: only under the epoch that the run has now, and only while it is RUNNING.
    pub(super) fn owned<T>(&self, lease: &Lease, f: impl FnOnce(&mut Change<'_>) -> Result<T>) -> Result<T> {
        self.change(&lease.run_key, |c| {
            if c.row.lease_epoch != lease.epoch || c.row.status != Status::Running {
                return Err(LedgerError::LeaseLost { run_key: lease.run_key.clone() });
            }
            f(c)
        })
    }

    /// Records something that an operator did, on a run or on none.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `ReadOnly`.
    pub fn audit(&self, action: &str, run_key: Option<&str>, detail: &Value) -> Result<()> {
        self.write(|tx| audit(tx, self.clock.now(), (&self.actor, &self.host), action, run_key, detail))
    }

    /// The events of a run after `after_seq`, in order; none for an unknown run.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn events(&self, run_key: &str, after_seq: u64) -> Result<Vec<EventRow>> {
        self.ask(|conn| {
            let mut query = conn.prepare_cached("SELECT * FROM run_events WHERE run_key = ?1 AND seq > ?2 ORDER BY seq")?;
            query.query_and_then(params![run_key, signed(after_seq)?], EventRow::from_sql)?.collect()
        })
    }

    /// The audit in order, of one run or of all.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn audit_rows(&self, run_key: Option<&str>) -> Result<Vec<AuditRow>> {
        self.ask(|conn| {
            // One condition that allows for both would read the whole table for one run.
            let of = if run_key.is_some() { "run_key = ?1" } else { "?1 IS NULL" };
            let mut query = conn.prepare_cached(&format!("SELECT * FROM audit WHERE {of} ORDER BY seq"))?;
            let rows = query.query_and_then([run_key], |row| {
                Ok(AuditRow {
                    seq: unsigned(row.get("seq")?)?,
                    at: Instant(row.get("at")?),
                    actor: row.get("actor")?,
                    host: row.get("host")?,
                    action: row.get("action")?,
                    run_key: row.get("run_key")?,
                    detail: decode(&row.get::<_, String>("detail_json")?)?,
                })
            })?;
            rows.collect()
        })
    }

    /// What is wrong with the events of a run: gaps, changed content, a broken chain, a tail that is
    /// missing, a run that claims another state than its last event. Empty when all is well.
    ///
    /// # Errors
    /// `NotFound`, `Io`, and `Corrupt` where the run's own record cannot be read.
    pub fn verify_chain(&self, run_key: &str) -> Result<Vec<String>> {
        self.read(|tx| {
            let run = RunRow::load(tx, run_key, self.clock.now())?.ok_or_else(|| LedgerError::NotFound(run_key.to_owned()))?;
            let mut query = tx.prepare_cached("SELECT * FROM run_events WHERE run_key = ?1 ORDER BY seq")?;
            let events =
                query.query_and_then([run_key], |row| Ok::<_, LedgerError>((row.get::<_, i64>("seq")?, EventRow::as_written(row))))?;
            chain_problems(&run, events)
        })
    }
}

fn chain_problems(run: &RunRow, events: impl Iterator<Item = Result<(i64, Result<EventRow>)>>) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let (mut expected, mut prev, mut last) = (1, String::new(), None);
    for event in events {
        let (seq, event) = event?;
        if seq != expected {
            problems.push(format!("event {expected} is missing: {seq} follows {}", expected - 1));
        }
        expected = seq.saturating_add(1);
        let event = match event {
            Ok(event) => event,
            Err(e) => {
                problems.push(format!("event {seq} cannot be read: {e}"));
                continue;
            }
        };
        if event.prev_hash != prev {
            problems.push(format!("event {seq} does not continue the event before it"));
        }
        if event.digest() != event.hash {
            problems.push(format!("event {seq} is not what its hash was taken of"));
        }
        prev.clone_from(&event.hash);
        last = Some(event);
    }
    // Cutting events off the end leaves a sound chain; only the run's own record knows its head.
    if signed(run.last_seq)? != expected - 1 {
        problems.push(format!("the run names event {} as its last, the log ends with {}", run.last_seq, expected - 1));
    } else if run.last_hash != prev {
        problems.push(format!("event {} is not the one that the run names as its last", run.last_seq));
    }
    if let Some(last) = last.filter(|e| e.status != run.status) {
        problems.push(format!("the run says {}, its last event {}", run.status, last.status));
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{End, ExecutionMode};
    use super::*;

    /// A ledger with a run of seven events, and the home it lies in.
    fn told() -> (Home, Ledger) {
        let home = Home::new();
        let ledger = home.ledger();
        let lease = running(&ledger, "k");
        ledger.enter_phase(&lease, "replay").unwrap();
        ledger.gate_passed(&lease, "replay", &json!({"n": crate::json::number("1.50"), "t": "é\u{0}"})).unwrap();
        ledger.identify(&lease, "f", "dm_1").unwrap();
        ledger.record(&lease, "NOTICED", Some(ReasonCode::ReplayBasisGap), &json!({})).unwrap();
        ledger.finish(&lease, &End::Interrupted { signal: "TERM".into() }).unwrap();
        (home, ledger)
    }

    #[test]
    fn events_are_gapless_and_chained_and_carry_who_when_and_the_state() {
        let (home, ledger) = told();
        let events = ledger.events("k", 0).unwrap();
        let told: Vec<_> = events.iter().map(|e| (e.seq, e.event_type.as_str(), e.status.as_str(), e.reason_code.as_deref())).collect();
        assert_eq!(
            told,
            [
                (1, "INTENT_QUEUED", "QUEUED", None),
                (2, "RUN_STARTED", "RUNNING", None),
                (3, "PHASE_ENTERED", "RUNNING", None),
                (4, "GATE_PASSED", "RUNNING", None),
                (5, "IDENTITY_RESOLVED", "RUNNING", None),
                (6, "NOTICED", "RUNNING", Some("REPLAY_BASIS_GAP")),
                (7, "RUN_INTERRUPTED", "QUEUED", Some("INTERRUPTED")),
            ]
        );
        assert!(events.iter().all(|e| e.actor == ACTOR && e.at == START && e.run_key == "k"));
        let mut prev = "";
        for event in &events {
            assert_eq!((event.prev_hash.as_str(), event.hash.clone()), (prev, event.digest()));
            prev = &event.hash;
        }
        assert_eq!(ledger.events("k", 5).unwrap(), events[5..]);
        assert_eq!(ledger.events("nobody", 0).unwrap(), []);
        assert_eq!(ledger.verify_chain("k").unwrap(), [""; 0]);
        assert_eq!(ledger.verify_chain("nobody").unwrap_err(), LedgerError::NotFound("nobody".into()));
        // Another process, another time: the same verdict.
        assert_eq!(home.open_read_only().unwrap().verify_chain("k").unwrap(), [""; 0]);
    }

    #[test]
    fn the_recipe_of_the_hash_is_pinned() {
        let event = EventRow {
            run_key: "42d9be66cedddb9c69bb741de892805a".into(),
            seq: 1,
            event_type: "INTENT_QUEUED".into(),
            status: Status::Queued,
            at: Instant(1_770_717_600_000_000),
            actor: "tester".into(),
            reason_code: None,
            detail: json!({"b": 1, "a": "é"}),
            prev_hash: String::new(),
            hash: String::new(),
        };
        let text = concat!(
            r#"{"actor":"tester","at_utc":"2026-02-10T10:00:00.000000Z","detail":{"a":"é","b":1},"event_type":"INTENT_QUEUED","#,
            r#""prev_hash":"","reason_code":null,"recipe":"ofs.run_event.v1","run_key":"42d9be66cedddb9c69bb741de892805a","#,
            r#""seq":1,"status":"QUEUED"}"#
        );
        assert_eq!(event.digest(), blake3::hash(text.as_bytes()).to_hex().to_string());
    }

    #[test]
    fn every_kind_of_tampering_is_found() {
        for (sql, problem) in [
            ("UPDATE run_events SET actor = 'x' WHERE seq = 3", "event 3 is not what its hash"),
            ("UPDATE run_events SET at_us = at_us + 1 WHERE seq = 3", "event 3 is not what its hash"),
            ("UPDATE run_events SET status = 'DONE' WHERE seq = 3", "event 3 is not what its hash"),
            ("UPDATE run_events SET event_type = 'X' WHERE seq = 3", "event 3 is not what its hash"),
            ("UPDATE run_events SET reason_code = NULL WHERE seq = 6", "event 6 is not what its hash"),
            ("UPDATE run_events SET detail_json = '{\"n\":1.5}' WHERE seq = 4", "event 4 is not what its hash"),
            ("UPDATE run_events SET detail_json = '{' WHERE seq = 4", "event 4 cannot be read"),
            ("UPDATE run_events SET detail_json = replace(detail_json, ':', ': ') WHERE seq = 4", "event 4 cannot be read"),
            ("UPDATE run_events SET detail_json = replace(detail_json, 'é', '\\u00e9') WHERE seq = 4", "event 4 cannot be read"),
            ("UPDATE run_events SET prev_hash = '' WHERE seq = 3", "event 3 does not continue"),
            ("UPDATE run_events SET hash = 'x' WHERE seq = 3", "event 4 does not continue"),
            ("DELETE FROM run_events WHERE seq = 3", "event 3 is missing"),
            ("DELETE FROM run_events WHERE seq > 5", "names event 7 as its last, the log ends with 5"),
            ("DELETE FROM run_events", "the log ends with 0"),
            ("UPDATE runs SET last_hash = 'x'", "event 7 is not the one that the run names"),
            ("UPDATE runs SET status = 'FAILED'", "the run says FAILED, its last event QUEUED"),
        ] {
            let (home, ledger) = told();
            home.untie();
            home.raw().execute(sql, []).unwrap();
            let problems = ledger.verify_chain("k").unwrap();
            assert!(problems.iter().any(|p| p.contains(problem)), "{sql}: {problems:?}");
        }
    }

    #[test]
    fn the_audit_names_actor_host_and_run() {
        let home = Home::new();
        let ledger = home.ledger();
        ledger.audit("swept", None, &json!({"files": 2})).unwrap();
        ledger.audit("noted", Some("k"), &json!({})).unwrap();
        let rows = ledger.audit_rows(None).unwrap();
        assert_eq!(rows.iter().map(|r| (r.seq, r.action.as_str())).collect::<Vec<_>>(), [(1, "swept"), (2, "noted")]);
        assert!(rows.iter().all(|r| r.actor == ACTOR && !r.host.is_empty() && r.at == START));
        assert_eq!(rows[0].detail, json!({"files": 2}));
        assert_eq!(ledger.audit_rows(Some("k")).unwrap(), rows[1..]);
    }

    #[test]
    fn a_change_that_fails_half_way_leaves_nothing() {
        let (home, ledger) = told();
        let lease = ledger.start("k", ExecutionMode::Full, &elsewhere(1), 1_000).unwrap();
        let before = (home.dump("runs"), home.dump("run_events"));
        let broken: Result<()> = ledger.owned(&lease, |c| {
            c.row.status = Status::Done;
            c.event("HALF", None, json!({}))?;
            Err(LedgerError::Io("no space".into()))
        });
        assert!(broken.is_err());
        assert_eq!((home.dump("runs"), home.dump("run_events")), before);
    }
}
