//! A SQLite label timeline, made from JSONL assertions as its owner would.

use std::path::Path;

use rusqlite::{Connection, params};
use serde_json::Value;

use super::{Broken, broken};

const TABLE: &str = "CREATE TABLE ls_label_timeline(label_assertion_id TEXT PRIMARY KEY, platform_run_id TEXT, event_id TEXT, \
    label_type TEXT, label_value TEXT, effective_time TEXT, observed_time TEXT, source_type TEXT, actor_id TEXT, payload_hash TEXT, \
    assertion_json TEXT)";

fn sql(error: rusqlite::Error) -> Broken {
    Broken(error.to_string())
}

/// Makes the timeline and removes the JSONL file, so that there is one truth.
pub(super) fn import(lines: &Path, into: &Path) -> Result<(), Broken> {
    if into.exists() {
        return broken(format!("{} is there already", into.display()));
    }
    let text = std::fs::read_to_string(lines)?;
    let mut db = Connection::open(into).map_err(sql)?;
    let tx = db.transaction().map_err(sql)?;
    tx.execute(TABLE, []).map_err(sql)?;
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).map_err(|e| Broken(e.to_string()))?;
        let field = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        let row = params![
            field("/label_assertion_id"),
            field("/label_subject_key/platform_run_id"),
            field("/label_subject_key/event_id"),
            field("/label_type"),
            field("/label_value"),
            field("/effective_time"),
            field("/observed_time"),
            field("/source_type"),
            field("/actor_id"),
            field("/payload_hash"),
            line
        ];
        tx.execute("INSERT INTO ls_label_timeline VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)", row).map_err(sql)?;
    }
    tx.commit().map_err(sql)?;
    Ok(std::fs::remove_file(lines)?)
}

/// Runs one statement that must change exactly one row.
pub(super) fn execute(file: &Path, statement: &str) -> Result<(), Broken> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
    let db = Connection::open_with_flags(file, flags).map_err(sql)?;
    match db.execute(statement, []).map_err(sql)? {
        1 => Ok(()),
        n => broken(format!("the statement changed {n} rows")),
    }
}
