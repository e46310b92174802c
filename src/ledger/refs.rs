//! The audit of protected refs: one record of each resolution, granted or denied (O145).

use rusqlite::{Connection, params};
use serde_json::{Value, json};

use super::row::{signed, unsigned};
use super::schema::has_table;
use super::{Lease, Ledger, LedgerError, Result, Status};
use crate::store::Resolution;
use crate::text::clip;
use crate::time::Instant;

/// Longest text that is kept of a ref or a message, in bytes.
const MAX_TEXT: usize = 2_048;

/// One resolution of a protected ref.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefRow {
    /// Its place, from 1 without gaps.
    pub seq: u64,
    /// When.
    pub at: Instant,
    /// The identity that resolved it, as the configuration names it.
    pub actor: String,
    /// Who ran the command.
    pub by: String,
    /// On which host.
    pub host: String,
    /// For which run.
    pub run_key: String,
    /// Under which lease epoch, where an owner resolved it.
    pub lease_epoch: Option<u64>,
    /// As what, like `RUN_FACTS`.
    pub ref_type: String,
    /// What for.
    pub purpose: String,
    /// The ref as it was given.
    pub given: String,
    /// Where it leads, after links were followed.
    pub resolved: Option<String>,
    /// `GRANTED` or `DENIED`.
    pub decision: String,
    /// Why it was denied, by name.
    pub reason_code: Option<String>,
    /// And in words.
    pub message: Option<String>,
}

impl RefRow {
    /// As in documents.
    pub fn to_json(&self) -> Value {
        json!({
            "seq": self.seq, "at_utc": self.at, "actor": self.actor, "by": self.by, "host": self.host, "lease_epoch": self.lease_epoch,
            "ref_type": self.ref_type, "purpose": self.purpose, "ref": self.given, "resolved": self.resolved, "decision": self.decision,
            "reason_code": self.reason_code, "message": self.message,
        })
    }
}

impl Ledger {
    /// Puts the resolution of a ref on record, for a run that need not exist yet; an owner's under its lease.
    ///
    /// # Errors
    /// `LeaseLost` for an owner that was superseded; `Io`, `Corrupt`, `ReadOnly`.
    pub fn ref_resolved(&self, run_key: &str, lease: Option<&Lease>, resolution: &Resolution) -> Result<()> {
        const INSERT: &str =
            "INSERT INTO ref_audit SELECT coalesce(max(seq), 0) + 1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13
            FROM ref_audit";
        let short = |text: &str| clip(text, MAX_TEXT).into_owned();
        self.write(|tx| {
            lease.map_or(Ok(()), |lease| holds(tx, lease))?;
            tx.prepare_cached(INSERT)?.execute(params![
                self.clock.now().0,
                resolution.actor,
                self.actor,
                self.host,
                run_key,
                lease.map(|lease| signed(lease.epoch)).transpose()?,
                resolution.ref_type.as_str(),
                resolution.purpose,
                short(&resolution.given),
                resolution.resolved.as_deref().map(short),
                resolution.decision(),
                resolution.denied.as_ref().map(|(code, _)| code.as_str()),
                resolution.denied.as_ref().map(|(_, message)| short(message)),
            ])?;
            Ok(())
        })
    }

    /// The resolutions of refs in order, of one run or of all.
    ///
    /// # Errors
    /// `Io`, `Corrupt`.
    pub fn ref_rows(&self, run_key: Option<&str>) -> Result<Vec<RefRow>> {
        self.ask(|conn| {
            if !has_table(conn, "ref_audit")? {
                return Ok(Vec::new());
            }
            // One condition that allows for both would read the whole table for one run.
            let of = if run_key.is_some() { "run_key = ?1" } else { "?1 IS NULL" };
            let mut query = conn.prepare_cached(&format!("SELECT * FROM ref_audit WHERE {of} ORDER BY seq"))?;
            let rows = query.query_and_then([run_key], |row| {
                Ok(RefRow {
                    seq: unsigned(row.get("seq")?)?,
                    at: Instant(row.get("at_us")?),
                    actor: row.get("actor")?,
                    by: row.get("by")?,
                    host: row.get("host")?,
                    run_key: row.get("run_key")?,
                    lease_epoch: row.get::<_, Option<i64>>("lease_epoch")?.map(unsigned).transpose()?,
                    ref_type: row.get("ref_type")?,
                    purpose: row.get("purpose")?,
                    given: row.get("given")?,
                    resolved: row.get("resolved")?,
                    decision: row.get("decision")?,
                    reason_code: row.get("reason_code")?,
                    message: row.get("message")?,
                })
            })?;
            rows.collect()
        })
    }
}

/// An owner writes only under the epoch that its run has now.
fn holds(conn: &Connection, lease: &Lease) -> Result<()> {
    const HELD: &str = "SELECT 1 FROM runs WHERE run_key = ?1 AND lease_epoch = ?2 AND status = ?3";
    let held = conn.prepare_cached(HELD)?.exists(params![lease.run_key, signed(lease.epoch)?, Status::Running.as_str()])?;
    if held { Ok(()) } else { Err(LedgerError::LeaseLost { run_key: lease.run_key.clone() }) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::contract::ReasonCode;
    use crate::store::RefType;

    fn resolution(denied: Option<ReasonCode>) -> Resolution {
        Resolution {
            actor: "SYSTEM::x".into(),
            ref_type: RefType::RunFacts,
            purpose: "to test",
            given: "R/\u{1b}[2J".into(),
            resolved: denied.is_none().then(|| "R/f".into()),
            denied: denied.map(|code| (code, "why".into())),
        }
    }

    #[test]
    fn resolutions_are_kept_in_order_and_cannot_be_changed() {
        let home = Home::new();
        let ledger = home.ledger();
        ledger.ref_resolved("k", None, &resolution(None)).unwrap();
        ledger.ref_resolved("j", None, &resolution(Some(ReasonCode::RefScopeMismatch))).unwrap();
        let rows = ledger.ref_rows(None).unwrap();
        assert_eq!(rows.iter().map(|r| (r.seq, r.run_key.as_str())).collect::<Vec<_>>(), [(1, "k"), (2, "j")]);
        assert_eq!(
            (rows[0].decision.as_str(), rows[0].resolved.as_deref(), rows[0].given.as_str()),
            ("GRANTED", Some("R/f"), "R/\u{1b}[2J")
        );
        assert_eq!((rows[0].actor.as_str(), rows[0].by.as_str(), rows[0].at), ("SYSTEM::x", ACTOR, START));
        let denied = ledger.ref_rows(Some("j")).unwrap().remove(0);
        assert_eq!(
            (denied.decision.as_str(), denied.reason_code.as_deref(), denied.message.as_deref()),
            ("DENIED", Some("REF_SCOPE_MISMATCH"), Some("why"))
        );
        for (sql, why) in [
            ("UPDATE ref_audit SET decision = 'GRANTED'", "append-only"),
            ("DELETE FROM ref_audit", "append-only"),
            ("INSERT OR REPLACE INTO ref_audit SELECT * FROM ref_audit WHERE seq = 1", "gaps"),
        ] {
            let before = home.dump("ref_audit");
            let error = home.raw().execute(sql, []).unwrap_err().to_string();
            assert!(error.contains(why) && home.dump("ref_audit") == before, "{sql}: {error}");
        }
    }

    #[test]
    fn a_superseded_owner_puts_nothing_on_record() {
        let (_, ledger) = in_memory();
        let lease = running(&ledger, "k");
        ledger.ref_resolved("k", Some(&lease), &resolution(None)).unwrap();
        assert_eq!(ledger.ref_rows(Some("k")).unwrap()[0].lease_epoch, Some(1));
        let later = Lease { epoch: 2, ..lease.clone() };
        assert_eq!(ledger.ref_resolved("k", Some(&later), &resolution(None)), Err(LedgerError::LeaseLost { run_key: "k".into() }));
        ledger.finish(&lease, &done("R/m.json")).unwrap();
        assert_eq!(ledger.ref_resolved("k", Some(&lease), &resolution(None)), Err(LedgerError::LeaseLost { run_key: "k".into() }));
        assert_eq!(ledger.ref_rows(None).unwrap().len(), 1);
    }
}
