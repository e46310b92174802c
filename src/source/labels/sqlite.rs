//! The SQLite label timeline (`ls_label_timeline`), opened read-only. It keeps an assertion twice, as
//! columns and as `assertion_json`; both are handed over so that the label gate can hold them together.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, OpenFlags, params_from_iter};

use super::{Assertion, LabelError, LabelQuery, LabelSink, LabelTimeline, Part, Stamp};
use crate::json::{Doc, Kind, Tape};
use crate::time::Instant;

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

    fn connect(&self, options: &str) -> Result<Connection, LabelError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(uri(&self.path, options), flags).map_err(|e| LabelError::unavailable(self.place(), e))
    }

    /// Length and time of change of the database.
    fn stamp(&self) -> Result<(u64, Option<SystemTime>), LabelError> {
        let data = self.path.metadata().map_err(|e| LabelError::unavailable(self.place(), e))?;
        Ok((data.len(), data.modified().ok()))
    }

    /// Whether the file alone is the whole database although it is in WAL mode: every commit has been
    /// moved into it, and no journal waits to be rolled back.
    fn settled(&self) -> Result<bool, LabelError> {
        let mut header = [0; 20];
        let whole = File::open(&self.path).and_then(|mut file| file.read_exact(&mut header));
        let wal_mode = match whole {
            Ok(()) => matches!(header, [.., 2, 2]),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => false,
            Err(e) => return Err(LabelError::unavailable(self.place(), e)),
        };
        let holds = |suffix: &str| {
            let mut beside = self.path.clone().into_os_string();
            beside.push(suffix);
            match std::fs::metadata(beside) {
                Ok(data) => data.len() > 0,
                Err(e) => e.kind() != std::io::ErrorKind::NotFound,
            }
        };
        Ok(wal_mode && !holds("-wal") && !holds("-journal"))
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
        // Even a reader makes side files beside a database in WAL mode. One that is settled is read as
        // immutable instead, which also works on a read-only mount; that nobody wrote to it meanwhile
        // is checked at the end. In every other case SQLite's own locks and recovery decide.
        let before = self.stamp()?;
        let settled = self.settled()?;
        let connection = self.connect(if settled { "mode=ro&immutable=1" } else { "mode=ro" })?;
        let marks = vec!["?"; query.types.len()].join(",");
        let sql = format!(
            "SELECT label_assertion_id, event_id, label_type, label_value, effective_time, observed_time, payload_hash, \
             assertion_json, platform_run_id, source_type, actor_id \
             FROM ls_label_timeline WHERE (platform_run_id = ? AND label_type IN ({marks})) \
             OR typeof(label_assertion_id) <> 'text' OR typeof(platform_run_id) <> 'text' \
             OR typeof(event_id) <> 'text' OR typeof(label_type) <> 'text'"
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
            let columns = [text(0)?, text(1)?, text(2)?, text(8)?];
            let [Some(id), Some(event_id), Some(label_type), Some(run)] = columns else {
                let [id, ..] = columns.map(|c| c.unwrap_or("NULL"));
                return Err(LabelError::inconsistent(
                    self.place(),
                    format!("the row of assertion {id} lacks label_assertion_id, platform_run_id, event_id or label_type"),
                ));
            };
            let (value, effective, payload_hash) = (text(3)?, text(4)?, text(6)?);
            let embedded = match text(7)? {
                None => None,
                Some(json) => {
                    let doc = tape
                        .parse(json.as_bytes())
                        .map_err(|e| LabelError::inconsistent(self.place(), format!("assertion_json of {id}: {e}")))?;
                    let columns = [
                        ("label_assertion_id", Some(id)),
                        ("label_type", Some(label_type)),
                        ("label_value", value),
                        ("effective_time", effective),
                        ("payload_hash", payload_hash),
                        ("source_type", text(9)?),
                        ("actor_id", text(10)?),
                    ];
                    Some(
                        agreed(doc, &columns, &[("platform_run_id", Some(run)), ("event_id", Some(event_id))])
                            .map_err(|what| LabelError::inconsistent(self.place(), format!("assertion_json of {id}: {what}")))?,
                    )
                }
            };
            let assertion = Assertion {
                id,
                event_id,
                label_type,
                value,
                effective: effective.map(Stamp::Text),
                observed: text(5)?.map(Stamp::Text),
                embedded_observed: embedded.as_ref().and_then(|e| e.as_deref()).map(Stamp::Text),
                payload_hash,
            };
            if sink(assertion).is_break() {
                break;
            }
        }
        if settled && self.stamp()? != before {
            return Err(LabelError::unavailable(self.place(), "the database changed while it was read; run again"));
        }
        Ok(())
    }
}

/// The observed time inside the assertion, after holding its other fields against the columns. What
/// the assertion does not mention is no difference.
fn agreed<'t>(doc: Doc<'t>, columns: &[(&str, Option<&str>)], subject: &[(&str, Option<&str>)]) -> Result<Option<Cow<'t, str>>, String> {
    let root = doc.root();
    if root.kind() != Kind::Object {
        return Err(format!("expected an object, found {}", root.kind()));
    }
    if let Some(key) = doc.duplicate_key() {
        return Err(format!("the key `{key}` stands twice in one object"));
    }
    let inner = root.get("label_subject_key");
    let fields = columns.iter().map(|c| (Some(root), c)).chain(subject.iter().map(|c| (inner, c)));
    for (object, (what, column)) in fields {
        let Some(field) = object.and_then(|o| o.get(what)) else { continue };
        let same = match (field.str(), *column) {
            (Some(field), Some(column)) => field == column || (*what == "effective_time" && same_instant(&field, column)),
            (None, None) => field.is_null(),
            _ => false,
        };
        if !same {
            return Err(format!("{what} differs from its column"));
        }
    }
    match root.get("observed_time") {
        Some(field) if !field.is_null() => field.str().map(Some).ok_or_else(|| "observed_time is not text".into()),
        _ => Ok(None),
    }
}

/// Whether two spellings mean one instant.
fn same_instant(a: &str, b: &str) -> bool {
    matches!((Instant::parse(a), Instant::parse(b)), (Ok(a), Ok(b)) if a == b)
}
