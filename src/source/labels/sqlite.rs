//! The SQLite label timeline (`ls_label_timeline`), opened read-only. It keeps an assertion twice, as
//! columns and as `assertion_json`; both observed times are handed over, and with every row what else differs,
//! so that the label gate judges it where the row matters.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::SystemTime;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row, params_from_iter};

use super::{Assertion, LabelError, LabelQuery, LabelSink, LabelTimeline, Part, Stamp};
use crate::json::{Kind, Tape};
use crate::text::{clip, file_uri};
use crate::time::Instant;

/// The columns that are read. Without the first four nobody could say whom a row is about.
const COLUMNS: [&str; 11] = [
    "label_assertion_id",
    "event_id",
    "label_type",
    "platform_run_id",
    "label_value",
    "effective_time",
    "observed_time",
    "payload_hash",
    "assertion_json",
    "source_type",
    "actor_id",
];
const NEEDED: usize = 4;
/// Where the assertion itself stands.
const OWN: usize = 8;

/// A row's columns.
type Texts<'r> = [Option<&'r str>; COLUMNS.len()];

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
        Connection::open_with_flags(format!("{}?{options}", file_uri(&self.path)), flags)
            .map_err(|e| LabelError::unavailable(self.place(), e))
    }

    /// What a row's columns say, and what is wrong with those that it could do without.
    fn columns<'r>(&self, row: &'r Row<'_>) -> Result<(Option<String>, Texts<'r>), LabelError> {
        let (mut fault, mut texts) = (None, [None; COLUMNS.len()]);
        for (at, (name, text)) in COLUMNS.iter().zip(&mut texts).enumerate() {
            let value = row.get_ref(at).map_err(|e| LabelError::unavailable(self.place(), e))?;
            match value.as_str_or_null() {
                Ok(value) => *text = value,
                Err(e) if at < NEEDED => return Err(LabelError::inconsistent(self.place(), format!("column {name}: {e}"))),
                Err(e) => fault = fault.or_else(|| Some(format!("its column {name}: {e}"))),
            }
        }
        Ok((fault, texts))
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
        let columns = COLUMNS.join(", ");
        let sql = format!(
            "SELECT {columns} FROM ls_label_timeline WHERE (platform_run_id = ? AND label_type IN ({marks})) \
             OR typeof(label_assertion_id) <> 'text' OR typeof(platform_run_id) <> 'text' \
             OR typeof(event_id) <> 'text' OR typeof(label_type) <> 'text'"
        );
        let mut statement = connection.prepare(&sql).map_err(unavailable)?;
        let values = std::iter::once(query.platform_run_id).chain(query.types.iter().map(String::as_str));
        let mut rows = statement.query(params_from_iter(values)).map_err(unavailable)?;
        let mut tape = Tape::new();
        while let Some(row) = rows.next().map_err(unavailable)? {
            let (mut fault, columns) = self.columns(row)?;
            let [id, event_id, label_type, run, value, effective, observed, payload_hash, json, ..] = columns;
            let (Some(id), Some(event_id), Some(label_type), Some(_)) = (id, event_id, label_type, run) else {
                let id = id.unwrap_or("NULL");
                return Err(LabelError::inconsistent(
                    self.place(),
                    format!("the row of assertion {id} lacks label_assertion_id, platform_run_id, event_id or label_type"),
                ));
            };
            let own = match json {
                Some(json) => Own::of(json, &columns, &mut tape),
                // Null says nothing; what is no text says something that cannot be read.
                None => Own { unread: row.get_ref(OWN).map_err(unavailable)? != ValueRef::Null, ..Own::default() },
            };
            fault = fault.or_else(|| own.fault.map(|what| format!("its assertion_json: {what}")));
            let assertion = Assertion {
                id,
                event_id,
                label_type,
                value,
                effective: effective.map(Stamp::Text),
                observed: observed.map(Stamp::Text),
                embedded_observed: own.observed.as_deref().map(Stamp::Text),
                payload_hash,
                fault: fault.as_deref(),
                unread: own.unread,
            };
            // Where the two copies name two events, it may be about either.
            let other = own.event_id.as_deref().map(|event_id| Assertion { event_id, ..assertion });
            if std::iter::once(assertion).chain(other).any(|assertion| sink(assertion).is_break()) {
                break;
            }
        }
        if settled && self.stamp()? != before {
            return Err(LabelError::unavailable(self.place(), "the database changed while it was read; run again"));
        }
        Ok(())
    }
}

/// What the assertion itself says, held against the columns. What it does not mention is no difference.
#[derive(Default)]
struct Own<'t> {
    observed: Option<Cow<'t, str>>,
    /// The event that it is about, where that is not the one of the column.
    event_id: Option<Cow<'t, str>>,
    /// What differs, or why it cannot be read.
    fault: Option<String>,
    /// Whether its observed time cannot be read.
    unread: bool,
}

impl<'t> Own<'t> {
    fn of(json: &'t str, columns: &Texts<'_>, tape: &'t mut Tape) -> Self {
        let broken = |fault: String| Own { fault: Some(fault), unread: true, ..Own::default() };
        let doc = match tape.parse(json.as_bytes()) {
            Ok(doc) => doc,
            Err(e) => return broken(e.to_string()),
        };
        let root = doc.root();
        if root.kind() != Kind::Object {
            return broken(format!("expected an object, found {}", root.kind()));
        }
        if let Some(key) = doc.duplicate_key() {
            return broken(format!("the key `{}` stands twice in one object", clip(&key, 80)));
        }
        let (subject, mut own) = (root.get("label_subject_key"), Own::default());
        for (name, column) in COLUMNS.iter().zip(columns) {
            let object = match *name {
                "platform_run_id" | "event_id" => subject,
                // What differs in time is told apart from what differs otherwise, and the assertion is no part of itself.
                "observed_time" | "assertion_json" => None,
                _ => Some(root),
            };
            let Some(field) = object.and_then(|o| o.get(name)) else { continue };
            let text = field.str();
            let same = match (&text, *column) {
                (Some(field), Some(column)) => field == column || (*name == "effective_time" && same_instant(field, column)),
                (None, None) => field.is_null(),
                _ => false,
            };
            if !same {
                own.fault.get_or_insert_with(|| format!("{name} differs from its column"));
                own.event_id = own.event_id.or(text.filter(|_| *name == "event_id"));
            }
        }
        match root.get("observed_time").filter(|field| !field.is_null()).map(|field| field.str()) {
            Some(None) => {
                own.fault.get_or_insert_with(|| "observed_time is not text".to_owned());
                own.unread = true;
            }
            observed => own.observed = observed.flatten(),
        }
        own
    }
}

/// Whether two spellings mean one instant.
fn same_instant(a: &str, b: &str) -> bool {
    matches!((Instant::parse(a), Instant::parse(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_timeline_is_found_below_a_folder_of_any_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(std::ffi::OsStr::from_bytes(b"l\xff\xc3?#%&mode=rwc"));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("labels.db");
        Connection::open(dir.path().join("labels.db")).unwrap().execute_batch("CREATE TABLE ls_label_timeline (x)").unwrap();
        std::fs::copy(dir.path().join("labels.db"), &path).unwrap();
        for options in ["mode=ro", "mode=ro&immutable=1"] {
            let connection = SqliteLabels::new(path.clone()).connect(options).unwrap();
            let rows = connection.query_row("SELECT count(*) FROM ls_label_timeline", [], |row| row.get::<_, i64>(0));
            assert_eq!(rows.unwrap(), 0, "{options}");
        }
    }
}
