//! The outbox: governance facts are written in the same transaction as the transition that they tell of,
//! and leave from here, so that a kill between any two writes neither loses nor doubles one (O142, O143;
//! decision 6). A fact never changes once it is written; only its delivery is noted beside it.

use rusqlite::{Row, params};
use serde_json::{Value, json};

use super::events::{Change, EventRow};
use super::row::{signed, unsigned};
use super::schema::has_table;
use super::{Ledger, LedgerError, Result, RunRow, decode, encode};
use crate::contract::intent;
use crate::time::Instant;
use crate::{digest, identity};

/// The family of every fact.
pub const FAMILY: &str = "LEARNING_LIFECYCLE";

/// A fact, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct FactRow {
    /// Its id: a function of the event that it tells of and of its type.
    pub id: String,
    /// The run.
    pub run_key: String,
    /// The event.
    pub seq: u64,
    /// Its type, like `DATASET_BUILD_COMPLETED`.
    pub fact_type: String,
    /// What is sent, frozen when the event was written.
    pub body: Value,
    /// When the event was.
    pub created: Instant,
    /// How it ended, or nothing while it waits.
    pub delivery: Option<Delivery>,
    /// Sends that failed.
    pub failures: u64,
    /// Why it was skipped, or why the latest send failed.
    pub note: Option<String>,
}

/// How a signal left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Delivery {
    /// It lies where it belongs.
    Sent,
    /// A policy keeps it back; that is on record (O154).
    Skipped,
    /// It could not be written; that is on record (O153).
    Failed,
}

impl Delivery {
    /// The stable name, like `SKIPPED_BY_POLICY`.
    pub fn as_str(self) -> &'static str {
        match self {
            Delivery::Sent => "SENT",
            Delivery::Skipped => "SKIPPED_BY_POLICY",
            Delivery::Failed => "FAILED_TO_SEND",
        }
    }

    fn parse(name: &str) -> Result<Self> {
        let known = [Delivery::Sent, Delivery::Skipped, Delivery::Failed].into_iter().find(|d| d.as_str() == name);
        known.ok_or_else(|| LedgerError::Corrupt(format!("unknown delivery {name}")))
    }
}

/// What became of the latest emission of one signal of one platform run.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalRow {
    /// Its name, like `metrics`.
    pub signal: String,
    /// How it left.
    pub delivery: Delivery,
    /// When.
    pub at: Instant,
    /// Where it lies, why it was skipped, or why it could not be written.
    pub note: String,
    /// How often it could not be written, in all.
    pub failures: u64,
}

/// The type of the fact that an event gives; most events give none.
fn fact_type(event_type: &str, row: &RunRow) -> Option<String> {
    let stem = match row.intent_kind.as_deref() {
        Some("parity_rebuild") => "PARITY",
        Some("forensic_rebuild") => "FORENSIC_REBUILD",
        _ => "DATASET_BUILD",
    };
    let how = match event_type {
        "INTENT_QUEUED" => "REQUESTED",
        // How a comparison came out is the fact, whichever way the run ended.
        "RUN_DONE" | "RUN_DONE_LATE" | "RUN_FAILED" | "OPERATOR_FAIL" if stem == "PARITY" => "RESULT",
        "RUN_DONE" | "RUN_DONE_LATE" => "COMPLETED",
        "RUN_FAILED" | "OPERATOR_FAIL" => "FAILED",
        "RUN_CANCELLED" | "OPERATOR_CANCEL" => "CANCELLED",
        "PUBLISH_PENDING" => "PUBLISH_PENDING",
        // These are what they are, whatever kind of run they happen to.
        "DATA_RESTORED" => return Some("DATASET_RESTORED".into()),
        "INTENT_REJECTED" | "REQUEST_REFUSED" => return Some("REQUEST_REFUSED".into()),
        "BACKFILL_DECLARED" | "BACKFILL_COMPLETED" => return Some(event_type.to_owned()),
        _ => return None,
    };
    Some(format!("{stem}_{how}"))
}

fn superseded(row: &RunRow) -> &[Value] {
    row.provenance.as_ref().and_then(|p| p.get("supersedes")).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl RunRow {
    /// The keys that tie whatever is said of this run to its request, plan, data set, basis, definition,
    /// cut-off, policy and pins (O150). What the run has not come to yet is null.
    pub fn correlation(&self) -> Value {
        let at = |key: &str| self.provenance.as_ref().and_then(|p| p.get(key)).cloned().unwrap_or_default();
        let parsed = self.intent.as_ref().and_then(|i| intent::parse(i.to_string().as_bytes()).ok());
        let plan = self.fingerprint.as_ref().and(self.platform_run_id.as_ref());
        json!({
            "platform_run_id": self.platform_run_id, "scenario_run_ids": parsed.as_ref().map(|i| &i.scenario_run_ids),
            "request_id": self.request_id, "run_key": self.run_key, "intent_kind": self.intent_kind,
            "plan_ref": plan.map(|run| format!("{run}/ofs/resolved_build_plan/{}.json", self.run_key)),
            "dataset_fingerprint": self.fingerprint, "dataset_manifest_id": self.manifest_id, "manifest_ref": self.manifest_ref,
            "basis_hash": parsed.as_ref().map(identity::basis_hash),
            "feature_set": parsed.as_ref().map(|i| format!("{}@{}", i.feature_set_id, i.feature_set_version)),
            "label_asof_utc": parsed.as_ref().map(|i| i.labels.asof), "policy_revision": at("policy_revision"),
            "config_revision": at("config_revision"), "ofs_code_release_id": at("ofs_code_release_id"), "run_facts_ref": at("run_facts_ref"),
            "supersedes": superseded(self),
        })
    }
}

impl Change<'_> {
    /// Puts the fact of an event into the outbox, where it has one.
    pub(super) fn tell(&self, event: &EventRow) -> Result<()> {
        const INSERT: &str = "INSERT INTO outbox (id, run_key, seq, kind, body_json, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let Some(fact_type) = fact_type(&event.event_type, &self.row) else { return Ok(()) };
        let payload = json!({"run_key": event.run_key, "seq": event.seq, "event_hash": event.hash, "fact_type": fact_type});
        let id = format!("gf_{}", digest::recipe_digest("ofs.governance_fact.v1", &payload).chars().take(32).collect::<String>());
        let body = json!({
            "schema_version": "ofs.governance_fact.v1", "fact_id": id, "fact_type": fact_type, "family": FAMILY,
            "platform_run_id": self.row.platform_run_id, "at_utc": event.at, "actor": event.actor,
            "event": {"seq": event.seq, "type": event.event_type, "hash": event.hash}, "status": event.status,
            "reason_code": event.reason_code, "attempt": self.row.attempt(), "end_class": self.row.end_class,
            // By reference: what a fact points to holds the content.
            "outcome": event.detail.get("outcome").or_else(|| event.detail.pointer("/parity/outcome")),
            "receipt_ref": event.detail.get("receipt_ref"), "keys": self.row.correlation(),
        });
        let row = params![id, event.run_key, signed(event.seq)?, fact_type, encode(&body)?, event.at.0];
        self.conn.prepare_cached(INSERT)?.execute(row)?;
        Ok(())
    }
}

impl FactRow {
    fn from_sql(row: &Row<'_>) -> Result<Self> {
        let delivery: Option<String> = row.get("outcome")?;
        Ok(FactRow {
            id: row.get("id")?,
            run_key: row.get("run_key")?,
            seq: unsigned(row.get("seq")?)?,
            fact_type: row.get("kind")?,
            body: decode(&row.get::<_, String>("body_json")?)?,
            created: Instant(row.get("created_at")?),
            delivery: delivery.as_deref().map(Delivery::parse).transpose()?,
            failures: unsigned(row.get("failures")?)?,
            note: row.get("note")?,
        })
    }

    /// The platform run that it is of, where it names one.
    pub fn platform_run_id(&self) -> Option<&str> {
        self.body.get("platform_run_id").and_then(Value::as_str)
    }
}

impl SignalRow {
    fn from_sql(row: &Row<'_>) -> Result<Self> {
        Ok(SignalRow {
            signal: row.get("signal")?,
            delivery: Delivery::parse(&row.get::<_, String>("outcome")?)?,
            at: Instant(row.get("at")?),
            note: row.get("note")?,
            failures: unsigned(row.get("failures")?)?,
        })
    }
}

/// A reader of a ledger from before the outbox was used finds none of this in it.
impl Ledger {
    /// Facts that wait, at most `limit`, in the order in which they came about.
    ///
    /// # Errors
    /// `Io`, `Corrupt`; so every question here.
    pub fn waiting_facts(&self, limit: u64) -> Result<Vec<FactRow>> {
        let sql = "SELECT * FROM outbox WHERE delivered_at IS NULL ORDER BY failures, created_at, run_key, seq, kind LIMIT ?1";
        self.ask(|conn| match has_table(conn, "signals")? {
            true => conn.prepare_cached(sql)?.query_and_then([signed(limit)?], FactRow::from_sql)?.collect(),
            false => Ok(Vec::new()),
        })
    }

    /// Every fact, in the order in which they came about.
    ///
    /// # Errors
    /// As of [`Ledger::waiting_facts`].
    pub fn facts(&self) -> Result<Vec<FactRow>> {
        let sql = "SELECT * FROM outbox ORDER BY created_at, run_key, seq, kind";
        self.ask(|conn| match has_table(conn, "signals")? {
            true => conn.prepare_cached(sql)?.query_and_then([], FactRow::from_sql)?.collect(),
            false => Ok(Vec::new()),
        })
    }

    /// Notes what became of sending a fact: one that was sent or skipped is settled for good, one that
    /// failed waits on. Says whether this call settled it.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `ReadOnly`.
    pub fn fact_left(&self, id: &str, delivery: Delivery, note: Option<&str>) -> Result<bool> {
        const SETTLE: &str = "UPDATE outbox SET delivered_at = ?2, outcome = ?3, note = ?4 WHERE id = ?1 AND delivered_at IS NULL";
        const FAIL: &str = "UPDATE outbox SET failures = failures + 1, note = ?2 WHERE id = ?1 AND delivered_at IS NULL";
        self.write(|tx| {
            Ok(match delivery {
                Delivery::Failed => tx.prepare_cached(FAIL)?.execute(params![id, note]).map(|_| false)?,
                _ => tx.prepare_cached(SETTLE)?.execute(params![id, self.clock.now().0, delivery.as_str(), note])? == 1,
            })
        })
    }

    /// Notes what became of the latest emission of a signal.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `ReadOnly`.
    pub fn signal_left(&self, platform_run_id: &str, signal: &str, delivery: Delivery, note: &str) -> Result<()> {
        const UPSERT: &str = "INSERT INTO signals (platform_run_id, signal, outcome, at, note, failures) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
            ON CONFLICT (platform_run_id, signal) DO UPDATE SET outcome = ?3, at = ?4, note = ?5, failures = failures + ?6";
        let failed = i64::from(delivery == Delivery::Failed);
        self.write(|tx| {
            let row = params![platform_run_id, signal, delivery.as_str(), self.clock.now().0, note, failed];
            tx.prepare_cached(UPSERT)?.execute(row)?;
            Ok(())
        })
    }

    /// The latest emissions of the signals of a platform run, by name.
    ///
    /// # Errors
    /// As of [`Ledger::waiting_facts`].
    pub fn signals(&self, platform_run_id: &str) -> Result<Vec<SignalRow>> {
        self.ask(|conn| {
            if !has_table(conn, "signals")? {
                return Ok(Vec::new());
            }
            let mut query = conn.prepare_cached("SELECT * FROM signals WHERE platform_run_id = ?1 ORDER BY signal")?;
            query.query_and_then([platform_run_id], SignalRow::from_sql)?.collect()
        })
    }

    /// Every event with a reason, of all runs: (run, when, reason), oldest first.
    ///
    /// # Errors
    /// As of [`Ledger::waiting_facts`].
    pub fn reasons(&self) -> Result<Vec<(String, Instant, String)>> {
        let sql = "SELECT run_key, at_us, reason_code FROM run_events WHERE reason_code IS NOT NULL ORDER BY at_us, run_key, seq";
        self.ask(|conn| {
            let mut query = conn.prepare_cached(sql)?;
            query.query_and_then([], |row| Ok((row.get(0)?, Instant(row.get(1)?), row.get(2)?)))?.collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::super::{ExecutionMode, NewRun, Order};
    use super::*;

    fn told(ledger: &Ledger) -> Vec<(String, u64)> {
        ledger.facts().unwrap().into_iter().map(|f| (f.fact_type, f.seq)).collect()
    }

    #[test]
    fn each_transition_that_matters_gives_one_fact_in_its_own_transaction() {
        let (_, ledger) = in_memory();
        let lease = running(&ledger, "k");
        ledger.enter_phase(&lease, "pins").unwrap();
        assert_eq!(told(&ledger), [("DATASET_BUILD_REQUESTED".into(), 1)]);
        ledger.finish(&lease, &failed("SOURCE_IO")).unwrap();
        // Ending in the same way again is no second end.
        ledger.finish(&lease, &failed("SOURCE_IO")).unwrap();
        let lease = ledger.start("k", ExecutionMode::Full, &elsewhere(1), 10).unwrap();
        ledger.finish(&lease, &commit_failed()).unwrap();
        let lease = retried(&ledger, 3).unwrap();
        ledger.finish(&lease, &done("R/m.json")).unwrap();
        ledger.submit(&NewRun { request_hash: "other".into(), ..new_run("k") }).unwrap();
        let types: Vec<String> = told(&ledger).into_iter().map(|(t, _)| t).collect();
        let wanted = ["REQUESTED", "FAILED", "PUBLISH_PENDING", "COMPLETED"].map(|t| format!("DATASET_BUILD_{t}"));
        assert_eq!(types[..4], wanted);
        assert_eq!(types[4..], ["REQUEST_REFUSED"]);
        let facts = ledger.facts().unwrap();
        let event = ledger.events("k", facts[3].seq - 1).unwrap().remove(0);
        assert_eq!(facts[3].body["event"]["hash"], event.hash);
        assert_eq!(facts[3].body["keys"]["manifest_ref"], "R/m.json");
        assert_eq!(facts[1].body["reason_code"], "SOURCE_IO");
        assert_eq!(facts[0].platform_run_id(), new_run("k").platform_run_id.as_str().into());
    }

    #[test]
    fn a_write_that_is_refused_leaves_no_fact() {
        let (_, ledger) = in_memory();
        let lease = running(&ledger, "k");
        ledger.finish(&lease, &done("R/m.json")).unwrap();
        let before = told(&ledger);
        assert!(ledger.finish(&lease, &failed("SOURCE_IO")).is_err());
        assert!(ledger.order(Order::Cancel, "k", "because").is_err());
        assert_eq!(told(&ledger), before);
    }

    #[test]
    fn parity_corrections_and_refusals_have_types_of_their_own() {
        let (_, ledger) = in_memory();
        let kinds = [("p", "parity_rebuild"), ("f", "forensic_rebuild"), ("b", "dataset_build")];
        for (key, kind) in kinds {
            ledger.submit(&NewRun { intent_kind: kind.into(), ..new_run(key) }).unwrap();
            let lease = ledger.start(key, ExecutionMode::Full, &elsewhere(1), 10).unwrap();
            if key == "b" {
                ledger.record(&lease, "BACKFILL_DECLARED", None, &json!({"supersedes": ["dm_1"]})).unwrap();
            }
            ledger.finish(&lease, &done("R/m.json")).unwrap();
        }
        ledger.reject("r", None, None, None, crate::contract::ReasonCode::SchemaInvalid, &json!({})).unwrap();
        let mut of: Vec<(String, String)> = ledger.facts().unwrap().into_iter().map(|f| (f.run_key, f.fact_type)).collect();
        of.sort();
        let of: Vec<(&str, &str)> = of.iter().map(|(k, t)| (k.as_str(), t.as_str())).collect();
        let wanted = [
            ("b", "BACKFILL_DECLARED"),
            ("b", "DATASET_BUILD_COMPLETED"),
            ("b", "DATASET_BUILD_REQUESTED"),
            ("f", "FORENSIC_REBUILD_COMPLETED"),
            ("f", "FORENSIC_REBUILD_REQUESTED"),
            ("p", "PARITY_REQUESTED"),
            ("p", "PARITY_RESULT"),
            ("r", "REQUEST_REFUSED"),
        ];
        assert_eq!(of, wanted);
    }

    #[test]
    fn a_fact_is_settled_once_and_never_changes() {
        let home = Home::new();
        let ledger = home.ledger();
        running(&ledger, "k");
        let id = ledger.waiting_facts(9).unwrap().remove(0).id;
        assert!(!ledger.fact_left(&id, Delivery::Failed, Some("full")).unwrap());
        let waiting = ledger.waiting_facts(9).unwrap().remove(0);
        assert_eq!((waiting.delivery, waiting.failures, waiting.note.as_deref()), (None, 1, Some("full")));
        assert!(ledger.fact_left(&id, Delivery::Sent, None).unwrap());
        assert!(!ledger.fact_left(&id, Delivery::Skipped, None).unwrap());
        assert!(!ledger.fact_left(&id, Delivery::Failed, Some("late")).unwrap());
        let settled = ledger.facts().unwrap().remove(0);
        assert_eq!((settled.delivery, settled.failures, settled.note), (Some(Delivery::Sent), 1, None));
        assert_eq!(ledger.waiting_facts(9).unwrap(), []);
        for sql in [
            "UPDATE outbox SET body_json = '{}'",
            "UPDATE outbox SET id = 'x'",
            "UPDATE outbox SET outcome = NULL, delivered_at = NULL",
            "DELETE FROM outbox",
        ] {
            assert!(home.raw().execute(sql, []).unwrap_err().to_string().contains("never change"), "{sql}");
        }
    }

    #[test]
    fn the_latest_emission_of_a_signal_stands_and_failures_add_up() {
        let (clock, ledger) = in_memory();
        for delivery in [Delivery::Failed, Delivery::Failed, Delivery::Sent, Delivery::Skipped] {
            clock.advance(1);
            ledger.signal_left("R", "metrics", delivery, delivery.as_str()).unwrap();
        }
        let wanted = SignalRow {
            signal: "metrics".into(),
            delivery: Delivery::Skipped,
            at: START.plus_micros(4),
            note: "SKIPPED_BY_POLICY".into(),
            failures: 2,
        };
        assert_eq!(ledger.signals("R").unwrap(), [wanted]);
        assert_eq!(ledger.signals("S").unwrap(), []);
    }
}
