//! `ofs labels import`: assertions of a file become a new SQLite timeline, the form of the label store itself.
//!
//! The file is read once, each assertion is checked and kept as its columns and as its own text. The timeline
//! is made under a temporary name and gets its own only once it is whole, and only where nothing is.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, Statement, params};
use serde_json::{Value, json};

use crate::contract::ReasonCode;
use crate::json::{Doc, Item, Kind, Tape};
use crate::source::labels::{LabelError, each_whole};
use crate::time::Instant;

const TABLE: &str = "CREATE TABLE ls_label_timeline(label_assertion_id TEXT PRIMARY KEY NOT NULL, platform_run_id TEXT NOT NULL, \
    event_id TEXT NOT NULL, label_type TEXT NOT NULL, label_value TEXT NOT NULL, effective_time TEXT NOT NULL, observed_time TEXT NOT NULL, \
    source_type TEXT, actor_id TEXT, payload_hash TEXT, evidence_refs_json TEXT, assertion_ref TEXT, assertion_json TEXT NOT NULL, \
    committed_at_utc TEXT)";
const INSERT: &str = "INSERT OR IGNORE INTO ls_label_timeline(label_assertion_id, platform_run_id, event_id, label_type, label_value, \
    effective_time, observed_time, source_type, actor_id, payload_hash, evidence_refs_json, assertion_json) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The new timeline's name is taken, or its folder is not there.
    #[error("{0}")]
    Target(String),
    /// The file cannot be read, or an assertion cannot be kept.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The new timeline cannot be written.
    #[error("{}: {message}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What happened.
        message: String,
    },
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The new timeline.
    pub out: PathBuf,
    /// Assertions in it.
    pub assertions: u64,
    /// Lines that said again what an earlier one had said.
    pub repeated: u64,
    /// Run, type and how many.
    pub counts: Vec<(String, String, u64)>,
}

impl Imported {
    /// `ofs.labels_import.v1`.
    pub fn to_json(&self) -> Value {
        let count =
            |(run, label_type, n): &(String, String, u64)| json!({"platform_run_id": run, "label_type": label_type, "assertions": n});
        json!({
            "schema_version": "ofs.labels_import.v1", "out": self.out.display().to_string(), "assertions": self.assertions,
            "repeated": self.repeated, "counts": self.counts.iter().map(count).collect::<Vec<_>>(),
        })
    }
}

/// Makes the timeline `out` of the assertions in `file`.
///
/// # Errors
/// See [`ImportError`]; then nothing is there that was not there before.
pub fn import(file: &Path, out: &Path) -> Result<Imported, ImportError> {
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if out.symlink_metadata().is_ok() {
        return Err(ImportError::Target(format!("{} is there already, and is never replaced", out.display())));
    }
    if !matches!(out.extension().and_then(|e| e.to_str()), Some("db" | "sqlite")) || !folder.is_dir() {
        return Err(ImportError::Target(format!("{}: expected a new *.db or *.sqlite in a folder that is there", out.display())));
    }
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = Unfinished(folder.join(format!(".{name}.import-{}", std::process::id())));
    let (assertions, repeated, counts) = fill(file, &unfinished.0)?;
    let failed = |e: std::io::Error| ImportError::Write { path: out.to_owned(), message: e.to_string() };
    File::open(&unfinished.0).and_then(|f| f.sync_all()).map_err(failed)?;
    // A second name for the finished file, which is refused where there is one: never a replacement.
    std::fs::hard_link(&unfinished.0, out).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => ImportError::Target(format!("{} is there already, and is never replaced", out.display())),
        _ => failed(e),
    })?;
    drop(unfinished);
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed)?;
    Ok(Imported { out: out.to_owned(), assertions, repeated, counts })
}

/// The timeline under its temporary name, which does not outlive the import.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

type Filled = (u64, u64, Vec<(String, String, u64)>);

fn fill(file: &Path, into: &Path) -> Result<Filled, ImportError> {
    let failed = |e: rusqlite::Error| ImportError::Write { path: into.to_owned(), message: e.to_string() };
    let taken = |e: std::io::Error| ImportError::Write { path: into.to_owned(), message: e.to_string() };
    File::create_new(into).map_err(taken)?;
    let mut db = Connection::open(into).map_err(failed)?;
    // Until it has its name nobody looks at it, so a journal would guard nothing.
    db.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;").map_err(failed)?;
    let tx = db.transaction().map_err(failed)?;
    tx.execute(TABLE, []).map_err(failed)?;
    let (mut assertions, mut repeated) = (0, 0);
    {
        let mut insert = tx.prepare(INSERT).map_err(failed)?;
        let mut stands = tx.prepare("SELECT assertion_json FROM ls_label_timeline WHERE label_assertion_id = ?1").map_err(failed)?;
        let mut tape = Tape::new();
        each_whole(file, &mut |place, text| {
            let doc = tape.parse(text.as_bytes()).map_err(|e| LabelError::inconsistent(place(), e))?;
            let fields = checked(doc).map_err(|(code, message)| LabelError { code, place: place(), message })?;
            let kept = keep(&mut insert, &fields, text).map_err(|e| LabelError::unavailable(place(), e))?;
            assertions += u64::from(kept);
            if !kept {
                repeated += 1;
                same(&mut stands, &fields.id, text, place)?;
            }
            Ok(())
        })?;
    }
    tx.commit().map_err(failed)?;
    let counts = counts(&db).map_err(failed)?;
    db.close().map_err(|(_, e)| failed(e))?;
    Ok((assertions, repeated, counts))
}

/// The fields that have a column.
struct Fields<'t> {
    id: std::borrow::Cow<'t, str>,
    run: std::borrow::Cow<'t, str>,
    event_id: std::borrow::Cow<'t, str>,
    label_type: std::borrow::Cow<'t, str>,
    value: std::borrow::Cow<'t, str>,
    effective: std::borrow::Cow<'t, str>,
    observed: std::borrow::Cow<'t, str>,
    optional: [Option<std::borrow::Cow<'t, str>>; 3],
    evidence: Option<&'t str>,
}

type Wrong = (ReasonCode, String);

/// Holds an assertion against its contract.
fn checked(doc: Doc<'_>) -> Result<Fields<'_>, Wrong> {
    use ReasonCode::{LabelScopeInvalid, LabelTimelineInconsistent};
    let root = doc.root();
    if root.kind() != Kind::Object {
        return Err((LabelTimelineInconsistent, format!("expected an object, found {}", root.kind())));
    }
    if let Some(key) = doc.duplicate_key() {
        return Err((LabelTimelineInconsistent, format!("the key `{key}` stands twice in one object")));
    }
    let needed =
        |object: Option<Item<'_>>, key: &str| object.and_then(|o| o.get(key)).is_some_and(|i| i.str().is_some_and(|t| !t.is_empty()));
    let subject = root.get("label_subject_key");
    let id = root.get("label_assertion_id").and_then(Item::str).filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| (LabelTimelineInconsistent, "an assertion without label_assertion_id".to_owned()))?;
    let about = |what: String| (LabelTimelineInconsistent, format!("assertion {}: {what}", crate::text::clip(&id, 80)));
    let missing: Vec<&str> = [(subject, "platform_run_id"), (subject, "event_id")]
        .into_iter()
        .chain(["label_type", "label_value", "effective_time", "observed_time"].map(|key| (Some(root), key)))
        .filter(|(object, key)| !needed(*object, key))
        .map(|(_, key)| key)
        .collect();
    if !missing.is_empty() {
        return Err(about(format!("{} must be text", missing.join(", "))));
    }
    let text = |object: Option<Item<'_>>, key: &str| object.and_then(|o| o.get(key)).and_then(Item::str).unwrap_or_default().into_owned();
    let (effective, observed) = (text(Some(root), "effective_time"), text(Some(root), "observed_time"));
    for (key, stamp) in [("effective_time", &effective), ("observed_time", &observed)] {
        if let Err(e) = Instant::parse(stamp) {
            return Err((LabelScopeInvalid, format!("assertion {}: {key}: {e}", crate::text::clip(&id, 80))));
        }
    }
    let mut optional = [None, None, None];
    for (slot, key) in optional.iter_mut().zip(["source_type", "actor_id", "payload_hash"]) {
        *slot = match root.get(key).filter(|item| !item.is_null()) {
            None => None,
            Some(item) => Some(item.str().ok_or_else(|| about(format!("{key} must be text")))?),
        };
    }
    let evidence = root.get("evidence_refs").filter(|item| !item.is_null()).map(Item::raw);
    Ok(Fields {
        run: text(subject, "platform_run_id").into(),
        event_id: text(subject, "event_id").into(),
        label_type: text(Some(root), "label_type").into(),
        value: text(Some(root), "label_value").into(),
        effective: effective.into(),
        observed: observed.into(),
        id,
        optional,
        evidence,
    })
}

/// Whether it is new.
fn keep(insert: &mut Statement<'_>, fields: &Fields<'_>, text: &str) -> Result<bool, rusqlite::Error> {
    let [source, actor, hash] = &fields.optional;
    let row = params![
        fields.id,
        fields.run,
        fields.event_id,
        fields.label_type,
        fields.value,
        fields.effective,
        fields.observed,
        source.as_deref(),
        actor.as_deref(),
        hash.as_deref(),
        fields.evidence,
        text
    ];
    Ok(insert.execute(row)? == 1)
}

/// An id that stands already may only say the same again.
fn same(stands: &mut Statement<'_>, id: &str, text: &str, place: &dyn Fn() -> String) -> Result<(), LabelError> {
    let earlier: Option<String> = stands.query_row([id], |row| row.get(0)).optional().map_err(|e| LabelError::unavailable(place(), e))?;
    let mut spelled = [Vec::new(), Vec::new()];
    for (out, text) in spelled.iter_mut().zip([earlier.as_deref().unwrap_or_default(), text]) {
        let mut tape = Tape::new();
        let doc = tape.parse(text.as_bytes()).map_err(|e| LabelError::inconsistent(place(), e))?;
        let mut scratch = Vec::new();
        out.extend_from_slice(doc.root().canonical(&mut scratch));
    }
    let [a, b] = spelled;
    if a == b {
        return Ok(());
    }
    Err(LabelError::inconsistent(place(), format!("assertion {} has two contents", crate::text::clip(id, 80))))
}

fn counts(db: &Connection) -> Result<Vec<(String, String, u64)>, rusqlite::Error> {
    let sql = "SELECT platform_run_id, label_type, count(*) FROM ls_label_timeline GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 1000";
    db.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.unsigned_abs())))?.collect()
}
