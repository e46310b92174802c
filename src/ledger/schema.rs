//! The tables, as migrations that are only ever appended to, and the rules the database itself keeps.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{LedgerError, Result};

/// Marks a SQLite file as a ledger ("ofsL").
const APPLICATION_ID: i64 = 0x6f66_734c;

/// One batch a version; version N is reached by running the first N. Never edit one that was released.
const MIGRATIONS: &[&str] = &[V1, V2, V3, V4];

const V1: &str = "
CREATE TABLE runs (
    run_key TEXT PRIMARY KEY,
    request_id TEXT UNIQUE,
    request_hash TEXT,
    platform_run_id TEXT,
    intent_kind TEXT,
    intent_json TEXT,
    status TEXT NOT NULL CHECK (status IN ('QUEUED', 'RUNNING', 'DONE', 'FAILED', 'PUBLISH_PENDING', 'CANCELLED', 'REJECTED')),
    execution_mode TEXT NOT NULL CHECK (execution_mode IN ('NONE', 'FULL', 'PUBLISH_ONLY')),
    full_run_attempts INTEGER NOT NULL CHECK (full_run_attempts >= 0),
    publish_retry_attempts INTEGER NOT NULL CHECK (publish_retry_attempts >= 0),
    phase TEXT,
    reason_code TEXT,
    reason_json TEXT,
    end_class TEXT,
    fingerprint TEXT,
    manifest_id TEXT,
    manifest_ref TEXT,
    result_json TEXT,
    commit_started INTEGER NOT NULL CHECK (commit_started IN (0, 1)),
    lease_epoch INTEGER NOT NULL CHECK (lease_epoch >= 0),
    lease_owner TEXT,
    lease_expires_us INTEGER,
    progress_json TEXT,
    last_progress_us INTEGER,
    paused_since_us INTEGER,
    provenance_json TEXT,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    started_us INTEGER,
    completed_us INTEGER,
    last_seq INTEGER NOT NULL,
    last_hash TEXT NOT NULL,
    -- A run is RUNNING exactly while it has an owner and an expiry: both are set in one write.
    CHECK ((status = 'RUNNING') = (lease_owner IS NOT NULL)),
    CHECK ((lease_owner IS NULL) = (lease_expires_us IS NULL)),
    -- No data set build is called done without its manifest.
    CHECK (status <> 'DONE' OR intent_kind IS NOT 'dataset_build' OR manifest_ref IS NOT NULL)
) STRICT;
CREATE INDEX runs_by_manifest ON runs (manifest_id) WHERE manifest_id IS NOT NULL;
CREATE INDEX runs_by_update ON runs (updated_us DESC, run_key);
CREATE TRIGGER runs_keep BEFORE DELETE ON runs
BEGIN SELECT RAISE(ABORT, 'runs are never deleted'); END;
CREATE TRIGGER runs_fence BEFORE UPDATE OF lease_epoch ON runs WHEN NEW.lease_epoch < OLD.lease_epoch
BEGIN SELECT RAISE(ABORT, 'a lease epoch never falls'); END;

CREATE TABLE run_events (
    run_key TEXT NOT NULL REFERENCES runs (run_key) DEFERRABLE INITIALLY DEFERRED,
    seq INTEGER NOT NULL,
    event_type TEXT NOT NULL,
    status TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason_code TEXT,
    detail_json TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (run_key, seq)
) STRICT, WITHOUT ROWID;
-- This one also stops INSERT OR REPLACE, which deletes without firing the trigger on DELETE.
CREATE TRIGGER run_events_gapless BEFORE INSERT ON run_events
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM run_events WHERE run_key = NEW.run_key)
BEGIN SELECT RAISE(ABORT, 'run_events has no gaps'); END;
CREATE TRIGGER run_events_no_update BEFORE UPDATE ON run_events
BEGIN SELECT RAISE(ABORT, 'run_events is append-only'); END;
CREATE TRIGGER run_events_no_delete BEFORE DELETE ON run_events
BEGIN SELECT RAISE(ABORT, 'run_events is append-only'); END;

CREATE TABLE progress_samples (
    id INTEGER PRIMARY KEY,
    run_key TEXT NOT NULL REFERENCES runs (run_key),
    attempt INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    sample_json TEXT NOT NULL
) STRICT;
CREATE INDEX progress_samples_by_attempt ON progress_samples (run_key, attempt, id);

CREATE TABLE workers (
    worker_id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    heartbeat_at INTEGER NOT NULL,
    stopped_at INTEGER
) STRICT;

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    host TEXT NOT NULL,
    action TEXT NOT NULL,
    run_key TEXT,
    detail_json TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_run ON audit (run_key, seq);
CREATE TRIGGER audit_gapless BEFORE INSERT ON audit
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM audit)
BEGIN SELECT RAISE(ABORT, 'audit has no gaps'); END;
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END;

CREATE TABLE outbox (
    id TEXT PRIMARY KEY,
    run_key TEXT REFERENCES runs (run_key) DEFERRABLE INITIALLY DEFERRED,
    seq INTEGER,
    kind TEXT NOT NULL,
    body_json TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    delivered_at INTEGER
) STRICT;
CREATE INDEX outbox_undelivered ON outbox (created_at) WHERE delivered_at IS NULL;
";

/// What operators ask of a run: publish-only retries beyond the policy's, and an end that its live owner
/// has yet to obey.
const V2: &str = "
ALTER TABLE runs ADD COLUMN retries_granted INTEGER NOT NULL DEFAULT 0 CHECK (retries_granted >= 0);
ALTER TABLE runs ADD COLUMN operator_request_json TEXT CHECK (operator_request_json IS NULL OR status = 'RUNNING');
";

/// What became of each fact and of each signal; a fact itself is frozen when it is written.
const V3: &str = "
ALTER TABLE outbox ADD COLUMN outcome TEXT CHECK (outcome IN ('SENT', 'SKIPPED_BY_POLICY'));
ALTER TABLE outbox ADD COLUMN failures INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0);
ALTER TABLE outbox ADD COLUMN note TEXT;
CREATE TRIGGER outbox_frozen BEFORE UPDATE OF id, run_key, seq, kind, body_json, created_at ON outbox
BEGIN SELECT RAISE(ABORT, 'facts never change'); END;
CREATE TRIGGER outbox_settled BEFORE UPDATE ON outbox WHEN OLD.delivered_at IS NOT NULL
BEGIN SELECT RAISE(ABORT, 'settled facts never change'); END;
CREATE TRIGGER outbox_keep BEFORE DELETE ON outbox
BEGIN SELECT RAISE(ABORT, 'facts never change, nor are they deleted'); END;
CREATE INDEX run_events_with_reason ON run_events (at_us) WHERE reason_code IS NOT NULL;
CREATE TABLE signals (
    platform_run_id TEXT NOT NULL,
    signal TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('SENT', 'SKIPPED_BY_POLICY', 'FAILED_TO_SEND')),
    at INTEGER NOT NULL,
    note TEXT NOT NULL,
    failures INTEGER NOT NULL CHECK (failures >= 0),
    PRIMARY KEY (platform_run_id, signal)
) STRICT, WITHOUT ROWID;
";

/// The audit of protected refs: one record of each resolution.
const V4: &str = "
CREATE TABLE ref_audit (
    seq INTEGER PRIMARY KEY,
    at_us INTEGER NOT NULL,
    actor TEXT NOT NULL,
    by TEXT NOT NULL,
    host TEXT NOT NULL,
    run_key TEXT NOT NULL,
    lease_epoch INTEGER,
    ref_type TEXT NOT NULL,
    purpose TEXT NOT NULL,
    given TEXT NOT NULL,
    resolved TEXT,
    decision TEXT NOT NULL CHECK (decision IN ('GRANTED', 'DENIED')),
    reason_code TEXT,
    message TEXT,
    CHECK ((decision = 'DENIED') = (reason_code IS NOT NULL))
) STRICT;
CREATE INDEX ref_audit_by_run ON ref_audit (run_key, seq);
CREATE TRIGGER ref_audit_gapless BEFORE INSERT ON ref_audit
WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM ref_audit)
BEGIN SELECT RAISE(ABORT, 'ref_audit has no gaps'); END;
CREATE TRIGGER ref_audit_no_update BEFORE UPDATE ON ref_audit
BEGIN SELECT RAISE(ABORT, 'ref_audit is append-only'); END;
CREATE TRIGGER ref_audit_no_delete BEFORE DELETE ON ref_audit
BEGIN SELECT RAISE(ABORT, 'ref_audit is append-only'); END;
";

fn pragma(conn: &Connection, name: &str) -> Result<i64> {
    Ok(conn.pragma_query_value(None, name, |row| row.get(0))?)
}

/// The newest version this program knows.
fn newest() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The version of the file; 0 for an empty one.
///
/// # Errors
/// `Corrupt` for a SQLite file of something else, `Io` for a ledger newer than this program.
pub(super) fn version(conn: &Connection) -> Result<i64> {
    // In one transaction, or another process that is just making the file shows half of it.
    version_within(&conn.unchecked_transaction()?)
}

fn version_within(conn: &Transaction<'_>) -> Result<i64> {
    let (id, version) = (pragma(conn, "application_id")?, pragma(conn, "user_version")?);
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if id != APPLICATION_ID && (id, version, tables) != (0, 0, 0) {
        return Err(LedgerError::Corrupt("a SQLite file, but not a ledger".into()));
    }
    if version > newest() {
        let text = format!("written by a newer ofs (schema version {version}, this one knows up to {}); use that version", newest());
        return Err(LedgerError::Io(text));
    }
    Ok(version)
}

/// Brings the file to the newest version, in one transaction, however many processes try at once.
pub(super) fn migrate(conn: &mut Connection) -> Result<()> {
    if version(conn)? == newest() {
        return Ok(());
    }
    let tx = Transaction::new(conn, TransactionBehavior::Immediate)?;
    // Asked again under the lock: another process may have been faster.
    let from = usize::try_from(version_within(&tx)?).unwrap_or(0);
    for batch in MIGRATIONS.iter().skip(from) {
        tx.execute_batch(batch)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", newest())?;
    Ok(tx.commit()?)
}

/// Refuses a file that a reader cannot use as it is. An older ledger is read as it stands, without what its
/// version did not have yet; the next command that writes brings it up.
pub(super) fn readable(conn: &Connection) -> Result<()> {
    match version(conn)? {
        0 => Err(LedgerError::Unborn),
        _ => Ok(()),
    }
}

/// Whether a table is there, which an older ledger that is only read may lack.
pub(super) fn has_table(conn: &Connection, table: &str) -> Result<bool> {
    Ok(conn.prepare_cached("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1")?.exists([table])?)
}

/// Whether a table has a column, which so may be lacking.
pub(super) fn has_column(conn: &Connection, table: &str, column: &str) -> Result<bool> {
    Ok(conn.prepare_cached("SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2")?.exists([table, column])?)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_ledger_of_a_newer_program_is_refused_by_name_and_left_alone() {
        let home = Home::new();
        drop(home.ledger());
        home.raw().pragma_update(None, "user_version", newest() + 1).unwrap();
        for opened in [home.open(), home.open_read_only()] {
            let error = opened.unwrap_err();
            assert!(matches!(&error, LedgerError::Io(text) if text.contains("newer ofs")), "{error}");
        }
        assert_eq!(pragma(&home.raw(), "user_version").unwrap(), newest() + 1);
    }

    #[test]
    fn a_ledger_of_the_first_version_is_brought_up_and_keeps_what_it_holds() {
        let home = Home::new();
        let raw = home.raw();
        raw.execute_batch(V1).unwrap();
        raw.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        raw.pragma_update(None, "user_version", 1).unwrap();
        let row = "INSERT INTO runs (run_key, request_id, status, execution_mode, full_run_attempts, publish_retry_attempts, commit_started,
            lease_epoch, created_us, updated_us, last_seq, last_hash) VALUES ('k', 'r', 'PUBLISH_PENDING', 'FULL', 1, 3, 0, 1, 0, 0, 0, '')";
        raw.execute(row, []).unwrap();
        // Who only reads changes nothing, and still sees all of it.
        let reader = home.open_read_only().unwrap();
        let read = reader.run("k").unwrap().unwrap();
        assert_eq!((read.status.as_str(), read.publish_retry_attempts, read.retries_granted), ("PUBLISH_PENDING", 3, 0));
        let lines = [
            reader.newest_lines(9).unwrap(),
            reader.lines_after(super::super::Instant(9), "", 9).unwrap(),
            reader.changed_lines(super::super::Instant(0), &["k".to_owned()]).unwrap(),
        ];
        for line in lines.iter().flatten() {
            assert_eq!((line.standing(), line.asked, line.last_seq), (read.standing(), false, 0));
        }
        assert_eq!(lines.map(|found| found.len()), [1, 1, 1]);
        assert_eq!((reader.ref_rows(None).unwrap().len(), reader.audit_rows(None).unwrap().len()), (0, 0));
        assert_eq!((reader.facts().unwrap().len(), reader.waiting_facts(9).unwrap().len(), reader.signals("p").unwrap().len()), (0, 0, 0));
        assert_eq!(pragma(&raw, "user_version").unwrap(), 1);
        let found = home.ledger().run("k").unwrap().unwrap();
        assert_eq!((found.publish_retry_attempts, found.retries_granted, found.operator_request), (3, 0, None));
        assert_eq!(pragma(&raw, "user_version").unwrap(), newest());
    }

    #[test]
    fn what_is_no_ledger_is_corrupt_and_keeps_its_bytes() {
        let home = Home::new();
        std::fs::write(&home.file, b"hello, I am a text of some length and surely no database at all").unwrap();
        assert!(matches!(home.open().unwrap_err(), LedgerError::Corrupt(_)));
        std::fs::remove_file(&home.file).unwrap();
        home.raw().execute_batch("CREATE TABLE other (x)").unwrap();
        let before = std::fs::read(&home.file).unwrap();
        for opened in [home.open(), home.open_read_only()] {
            assert!(matches!(opened.unwrap_err(), LedgerError::Corrupt(_)));
        }
        assert_eq!(std::fs::read(&home.file).unwrap(), before);
    }

    #[test]
    fn a_file_has_the_settings_that_durability_rests_on() {
        let home = Home::new();
        let ledger = home.ledger();
        let conn = ledger.conn();
        assert_eq!(conn.pragma_query_value(None, "journal_mode", |r| r.get::<_, String>(0)).unwrap(), "wal");
        assert_eq!(pragma(&conn, "synchronous").unwrap(), 2);
        assert_eq!(pragma(&conn, "foreign_keys").unwrap(), 1);
        assert_eq!(pragma(&conn, "busy_timeout").unwrap(), 5000);
        assert_eq!(pragma(&conn, "user_version").unwrap(), newest());
        let tables =
            "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND name NOT LIKE 'sqlite%' AND strict";
        assert_eq!(conn.query_row(tables, [], |r| r.get::<_, i64>(0)).unwrap(), 8);
    }

    #[test]
    fn events_audit_and_runs_refuse_to_be_changed_or_deleted() {
        let home = Home::new();
        let ledger = home.ledger();
        ledger.submit(&new_run("a")).unwrap();
        ledger.audit("looked", None, &serde_json::json!({})).unwrap();
        for (sql, why) in [
            ("UPDATE run_events SET actor = 'x'", "append-only"),
            ("DELETE FROM run_events", "append-only"),
            (
                "INSERT OR REPLACE INTO run_events SELECT run_key, seq, 'X', status, at_us, actor, NULL, '{}', '', '' FROM run_events",
                "gaps",
            ),
            ("INSERT INTO run_events SELECT run_key, 3, 'X', status, at_us, actor, NULL, '{}', '', '' FROM run_events", "gaps"),
            ("UPDATE audit SET actor = 'x'", "append-only"),
            ("DELETE FROM audit", "append-only"),
            ("INSERT OR REPLACE INTO audit SELECT seq, at, 'x', host, action, run_key, detail_json FROM audit", "gaps"),
            ("DELETE FROM runs", "never deleted"),
            ("UPDATE runs SET lease_epoch = lease_epoch - 1", "never falls"),
            ("UPDATE runs SET status = 'RUNNING'", "CHECK"),
            ("UPDATE runs SET operator_request_json = '{}'", "CHECK"),
            ("UPDATE runs SET retries_granted = -1", "CHECK"),
            ("UPDATE runs SET status = 'LOST'", "CHECK"),
            ("UPDATE runs SET status = 'DONE'", "CHECK"),
            ("INSERT INTO run_events VALUES ('nobody', 1, 'X', 'QUEUED', 0, 'x', NULL, '{}', '', '')", "FOREIGN KEY"),
        ] {
            let before = (home.dump("runs"), home.dump("run_events"), home.dump("audit"));
            let error = home.raw().execute(sql, []).unwrap_err().to_string();
            assert!(error.contains(why), "{sql}: {error}");
            assert_eq!((home.dump("runs"), home.dump("run_events"), home.dump("audit")), before, "{sql}");
        }
    }
}
