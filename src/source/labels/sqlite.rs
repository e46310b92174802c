//! The SQLite label timeline (`ls_label_timeline`), opened read-only. It keeps an assertion twice, as
//! columns and as `assertion_json`; both are handed over so that the label gate can hold them together.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::{Assertion, LabelError, LabelQuery, LabelSink, LabelTimeline, Part};
use crate::json::{Item, Tape};

/// A timeline in SQLite.
#[derive(Debug)]
pub struct SqliteLabels {
    path: PathBuf,
}

impl SqliteLabels {
    pub(super) fn new(path: PathBuf) -> Self {
        SqliteLabels { path }
    }

    fn place(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Read-only; `immutable` where the folder cannot hold SQLite's side files (a read-only mount).
    fn open(&self) -> Result<Connection, LabelError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let probe = |uri: String| -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(uri, flags)?;
            connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
            Ok(connection)
        };
        probe(uri(&self.path, "mode=ro"))
            .or_else(|_| probe(uri(&self.path, "mode=ro&immutable=1")))
            .map_err(|e| LabelError::unavailable(self.place(), e))
    }
}

fn uri(path: &Path, options: &str) -> String {
    let mut out = String::from("file:");
    for byte in path.to_string_lossy().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'=' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("{out}?{options}")
}

impl LabelTimeline for SqliteLabels {
    fn describe(&self) -> &'static str {
        "sqlite"
    }

    fn parts(&self) -> Result<Vec<Part>, LabelError> {
        Ok(vec![Part { file: 0, from: 0, to: 1 }])
    }

    fn scan(&self, _part: &Part, query: LabelQuery<'_>, sink: &mut LabelSink<'_>) -> Result<(), LabelError> {
        let unavailable = |e: rusqlite::Error| LabelError::unavailable(self.place(), e);
        let connection = self.open()?;
        let marks = vec!["?"; query.types.len()].join(",");
        let sql = format!(
            "SELECT label_assertion_id, event_id, label_type, label_value, effective_time, observed_time, payload_hash, assertion_json \
             FROM ls_label_timeline WHERE platform_run_id = ? AND label_type IN ({marks})"
        );
        let mut statement = connection.prepare(&sql).map_err(unavailable)?;
        let values = std::iter::once(query.platform_run_id).chain(query.types.iter().map(String::as_str));
        let mut rows = statement.query(params_from_iter(values)).map_err(unavailable)?;
        let mut tape = Tape::new();
        while let Some(row) = rows.next().map_err(unavailable)? {
            let text = |i: usize| -> Result<Option<&str>, LabelError> {
                let value = row.get_ref(i).map_err(unavailable)?;
                value.as_str_or_null().map_err(|e| LabelError::inconsistent(self.place(), format!("column {i}: {e}")))
            };
            let (Some(id), Some(event_id), Some(label_type)) = (text(0)?, text(1)?, text(2)?) else {
                return Err(LabelError::inconsistent(self.place(), "a row without label_assertion_id, event_id or label_type"));
            };
            let embedded = match text(7)? {
                None => None,
                Some(json) => {
                    let doc = tape
                        .parse(json.as_bytes())
                        .map_err(|e| LabelError::inconsistent(self.place(), format!("assertion_json of {id}: {e}")))?;
                    Some(agreed(doc.root(), id, event_id, label_type, text(3)?).map_err(|what| {
                        LabelError::inconsistent(
                            self.place(),
                            format!("{what} of assertion {id} differs between its column and assertion_json"),
                        )
                    })?)
                }
            };
            let assertion = Assertion {
                id,
                event_id,
                label_type,
                value: text(3)?,
                effective: text(4)?,
                observed: text(5)?,
                embedded_observed: embedded.as_ref().and_then(|e| e.as_deref()),
                payload_hash: text(6)?,
            };
            if sink(assertion).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The observed time inside the assertion, after holding its other fields against the columns.
fn agreed<'t>(
    root: Item<'t>,
    id: &str,
    event_id: &str,
    label_type: &str,
    value: Option<&str>,
) -> Result<Option<std::borrow::Cow<'t, str>>, &'static str> {
    let field = |key: &str| root.get(key).and_then(Item::str);
    let subject = root.get("label_subject_key").and_then(|s| s.get("event_id")).and_then(Item::str);
    for (what, inner, outer) in [
        ("label_assertion_id", field("label_assertion_id"), Some(id)),
        ("event_id", subject, Some(event_id)),
        ("label_type", field("label_type"), Some(label_type)),
        ("label_value", field("label_value"), value),
    ] {
        if inner.is_some() && inner.as_deref() != outer {
            return Err(what);
        }
    }
    Ok(field("observed_time"))
}
