//! Everything that an escalation needs about one run, in one document (`ofs.bundle.v1`): what the ledger
//! holds, what the gates wrote, how the program was set up, how the house is, and what the log says.
//!
//! Whatever cannot be read is named in the place where it would stand; a bundle is made of a broken
//! workspace most of all.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::doctor;
use crate::config::Config;
use crate::contract::path_safe;
use crate::json::Tape;
use crate::ledger::{Ledger, LedgerError, OperatorRequest, RunRow};
use crate::store::{ErrorKind, Ref, Store, read};
use crate::text::clip;
use crate::time::Clock;

/// Log lines that are kept.
pub const LOG_LINES: usize = 500;
/// Longest log line that is looked at, in bytes.
const LOG_LINE: u64 = 64 << 10;
/// Largest document of the store that is copied, in bytes.
const MAX_DOCUMENT: u64 = 4 << 20;
/// Most that is copied from the store in all, in bytes.
const MAX_TOTAL: u64 = 64 << 20;
/// Folders below `<run>/ofs` that hold one receipt a run key.
const RECEIPTS: [&str; 8] = [
    "resolved_build_plan",
    "replay_completeness",
    "label_resolution",
    "dataset_draft",
    "publication_receipts",
    "supersession",
    "parity",
    "forensic",
];

/// Collects everything about `row`; `store` is the object store, or why there is none.
///
/// # Errors
/// The ledger's.
pub fn collect(
    config: &Config,
    clock: &Arc<dyn Clock>,
    ledger: &Ledger,
    row: &RunRow,
    store: Result<&dyn Store, String>,
) -> Result<Value, LedgerError> {
    let key = &row.run_key;
    let mut samples = Vec::new();
    for attempt in 0..=row.attempt() {
        samples
            .extend(ledger.samples(key, attempt)?.into_iter().map(|s| json!({"attempt": s.attempt, "at_utc": s.at, "sample": s.sample})));
    }
    let (receipts, refusals) = match (store, row.platform_run_id.as_deref().filter(|run| path_safe(run))) {
        (Ok(store), Some(run)) => stored(store, run, row),
        (Err(why), _) => (json!([{"unreadable": mask(&why)}]), json!([])),
        (Ok(_), None) => (json!([]), json!([])),
    };
    Ok(json!({
        "schema_version": "ofs.bundle.v1", "run_key": key, "made_at_utc": clock.now(), "release": crate::pipeline::pin::RELEASE,
        "ledger_schema_version": ledger.schema_version()?, "run": run_json(row), "actions": row.actions(),
        "events": events(ledger, key)?, "chain_problems": ledger.verify_chain(key)?, "audit": audit(ledger, key)?, "samples": samples,
        "ref_audit": ledger.ref_rows(Some(key))?.iter().map(crate::ledger::RefRow::to_json).collect::<Vec<_>>(), "receipts": receipts, "refusals": refusals, "config": settings(config), "doctor": house(config, clock, ledger),
        "log": log_tail(&config.path("logs"), key),
    }))
}

/// Writes a bundle to a file that must not exist, for its owner's eyes only; its BLAKE3 and size.
///
/// # Errors
/// `AlreadyExists`, and the environment's; then no file is left.
pub fn write(path: &Path, bundle: &Value) -> std::io::Result<(String, u64)> {
    let mut text = serde_json::to_string_pretty(bundle)?;
    text.push('\n');
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    if let Err(error) = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()) {
        let _ = std::fs::remove_file(path);
        return Err(error);
    }
    Ok((blake3::hash(text.as_bytes()).to_hex().to_string(), text.len() as u64))
}

fn run_json(row: &RunRow) -> Value {
    json!({
        "run_key": row.run_key, "request_id": row.request_id, "request_hash": row.request_hash, "platform_run_id": row.platform_run_id,
        "intent_kind": row.intent_kind, "intent": row.intent, "status": row.status, "execution_mode": row.execution_mode,
        "full_run_attempts": row.full_run_attempts, "publish_retry_attempts": row.publish_retry_attempts, "retries_granted": row.retries_granted,
        "phase": row.phase, "reason_code": row.reason_code, "reason": row.reason, "end_class": row.end_class, "fingerprint": row.fingerprint,
        "manifest_id": row.manifest_id, "manifest_ref": row.manifest_ref, "result": row.result, "commit_started": row.commit_started,
        "lease_epoch": row.lease_epoch, "owner": row.owner, "lease_expires_utc": row.lease_expires, "progress": row.progress,
        "last_progress_utc": row.last_progress, "paused_since_utc": row.paused_since, "provenance": row.provenance,
        "operator_request": row.operator_request.as_ref().map(OperatorRequest::to_json), "created_at_utc": row.created,
        "updated_at_utc": row.updated, "started_at_utc": row.started, "completed_at_utc": row.completed, "as_of_utc": row.as_of,
    })
}

fn events(ledger: &Ledger, key: &str) -> Result<Vec<Value>, LedgerError> {
    let event = |e: crate::ledger::EventRow| {
        json!({
            "seq": e.seq, "event_type": e.event_type, "status": e.status, "at_utc": e.at, "actor": e.actor, "reason_code": e.reason_code,
            "detail": e.detail, "prev_hash": e.prev_hash, "hash": e.hash,
        })
    };
    Ok(ledger.events(key, 0)?.into_iter().map(event).collect())
}

fn audit(ledger: &Ledger, key: &str) -> Result<Vec<Value>, LedgerError> {
    let line = |a: crate::ledger::AuditRow| json!({"seq": a.seq, "at_utc": a.at, "actor": a.actor, "host": a.host, "action": a.action, "detail": a.detail});
    Ok(ledger.audit_rows(Some(key))?.into_iter().map(line).collect())
}

/// The receipts of a run with what it published, and what its refused gates found.
fn stored(store: &dyn Store, run: &str, row: &RunRow) -> (Value, Value) {
    let mut left = MAX_TOTAL;
    let key = format!("{}.json", row.run_key);
    let mut refs: Vec<Ref> = RECEIPTS.iter().map(|folder| Ref::of(&[run, "ofs", folder, &key])).collect();
    if let Some(manifest) = row.manifest_ref.as_deref().and_then(|at| Ref::parse(at).ok()) {
        let id = row.manifest_id.as_deref().unwrap_or_default();
        refs.push(Ref::of(&[manifest.first(), "ofs", "datasets", id, "index.json"]));
        refs.push(manifest);
    }
    let receipts: Vec<Value> = refs.iter().filter_map(|at| copied(store, at, &mut left)).collect();
    let folder = Ref::of(&[run, "ofs", "refusals", &row.run_key]);
    let refusals = match store.list(&folder) {
        Ok(found) => found.iter().filter_map(|(at, _)| copied(store, at, &mut left)).collect(),
        Err(e) => json!([{"ref": folder.as_str(), "unreadable": e.to_string()}]),
    };
    (json!(receipts), refusals)
}

/// One document of the store; nothing where there is none.
fn copied(store: &dyn Store, at: &Ref, left: &mut u64) -> Option<Value> {
    let bytes = match read(store, at, MAX_DOCUMENT.min(*left)) {
        Ok(bytes) => bytes,
        Err(e) if e.kind == ErrorKind::NotFound => return None,
        Err(e) => return Some(json!({"ref": at.as_str(), "unreadable": e.to_string()})),
    };
    *left = left.saturating_sub(bytes.len() as u64);
    let mut tape = Tape::new();
    let document = tape.parse(&bytes).map(|doc| doc.root().to_value()).unwrap_or_else(|_| json!(String::from_utf8_lossy(&bytes)));
    Some(json!({"ref": at.as_str(), "blake3": blake3::hash(&bytes).to_hex().to_string(), "bytes": bytes.len(), "document": document}))
}

/// Every setting with its origin, without secrets.
fn settings(config: &Config) -> Value {
    let one = |(setting, value, origin): (&crate::config::Setting, Value, &crate::config::Origin)| {
        let secret = ["secret", "password", "token", "credential"].iter().any(|word| setting.key.contains(word));
        json!({"key": setting.path(), "value": if secret { json!("***") } else { masked(value) }, "origin": origin.to_string()})
    };
    json!({"workspace": config.workspace.display().to_string(), "settings": config.entries().map(one).collect::<Vec<_>>()})
}

/// What `ofs doctor` says.
fn house(config: &Config, clock: &Arc<dyn Clock>, ledger: &Ledger) -> Value {
    let resources: Vec<Value> = doctor::examine(config, clock).iter().map(doctor::Resource::to_json).collect();
    let leftovers = match doctor::leftovers(config, Some(ledger), clock.now()) {
        Ok(found) => found.iter().map(doctor::Leftover::to_json).collect(),
        Err(e) => json!({"unreadable": e.to_string()}),
    };
    masked(json!({"resources": resources, "leftovers": leftovers}))
}

/// The same without what stands in URLs to let somebody in.
fn masked(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(mask(&text)),
        Value::Array(list) => list.into_iter().map(masked).collect(),
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, masked(v))).collect()),
        other => other,
    }
}

/// Takes user info and query out of every URL in a text.
fn mask(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')).unwrap_or(after.len());
        let (url, tail) = after.split_at(end);
        let (place, query) = url.split_once('?').map_or((url, ""), |(place, _)| (place, "?***"));
        let host = place.find('/').unwrap_or(place.len());
        let (authority, path) = place.split_at(host);
        let authority = authority.rsplit_once('@').map_or_else(|| authority.to_owned(), |(_, host)| format!("***@{host}"));
        out.extend([before, "://", &authority, path, query]);
        rest = tail;
    }
    out + rest
}

/// The newest log lines that name the run, oldest first.
fn log_tail(folder: &Path, run_key: &str) -> Vec<String> {
    let mut files: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    // Their names end in the day.
    files.sort();
    let mut tail = VecDeque::new();
    for path in files.iter().rev() {
        let mut lines = naming(path, run_key, LOG_LINES - tail.len());
        lines.append(&mut tail);
        tail = lines;
    }
    tail.into()
}

/// The last lines of a file, at most `most`, that hold `word`.
fn naming(path: &Path, word: &str, most: usize) -> VecDeque<String> {
    let mut found = VecDeque::new();
    let Ok(file) = File::open(path) else { return found };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    // A longer line comes in pieces, each judged alone.
    while reader.by_ref().take(LOG_LINE).read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line);
        if text.contains(word) {
            found.push_back(clip(&mask(text.trim_end()), 16 << 10).into_owned());
            if found.len() > most {
                found.pop_front();
            }
        }
        line.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lets_somebody_in_is_taken_out_of_urls() {
        for (text, kept) in [
            ("store", "store"),
            ("s3://bucket/a", "s3://bucket/a"),
            ("s3://key:secret@bucket/a?token=x", "s3://***@bucket/a?***"),
            ("see https://u:p@h and http://h/x@y?q z", "see https://***@h and http://h/x@y?*** z"),
            ("{\"at\":\"s3://k:s@h/p\"}", "{\"at\":\"s3://***@h/p\"}"),
        ] {
            assert_eq!(mask(text), kept);
        }
        assert_eq!(masked(json!({"a": ["x://u@h"]})), json!({"a": ["x://***@h"]}));
    }

    #[test]
    fn the_tail_of_the_log_holds_the_newest_lines_of_the_run_over_all_files() {
        let dir = tempfile::tempdir().unwrap();
        let day = |day: u32, lines: std::ops::Range<u32>| {
            let text: String = lines.map(|n| format!("{{\"run_key\":\"k\",\"n\":{n}}}\n{{\"run_key\":\"other\"}}\n")).collect();
            std::fs::write(dir.path().join(format!("ofs.2026-01-{day:02}.jsonl")), text).unwrap();
        };
        day(1, 0..300);
        day(2, 300..700);
        let tail = log_tail(dir.path(), "\"k\"");
        assert_eq!(tail.len(), LOG_LINES);
        assert!(tail[0].contains("\"n\":200}") && tail[499].contains("\"n\":699}"), "{} {}", tail[0], tail[499]);
        assert!(log_tail(&dir.path().join("none"), "k").is_empty());
    }

    #[test]
    fn a_bundle_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.json");
        let (digest, bytes) = write(&path, &json!({"a": 1})).unwrap();
        let found = std::fs::read(&path).unwrap();
        assert_eq!((digest, bytes), (blake3::hash(&found).to_hex().to_string(), found.len() as u64));
        assert_eq!(write(&path, &json!({})).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), found);
    }
}
