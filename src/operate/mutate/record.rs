//! Records of archive and bus, found by `<partition>/<offset>`.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::edit::{apply, read_json, write_json};
use super::{Broken, Scratchpad, broken};
use crate::json::{Tape, canonical};
use crate::operate::scenario::EditRecord;

/// Where a record lies: a file of its own, or a line (from 0) of one.
#[derive(Debug)]
pub(super) struct Found {
    path: PathBuf,
    line: Option<usize>,
    text: String,
}

fn place(at: &str) -> Result<(u32, u64), Broken> {
    let parts = at.split_once('/').and_then(|(p, o)| Some((p.parse().ok()?, o.parse().ok()?)));
    parts.ok_or_else(|| Broken(format!("{at} is no <partition>/<offset>")))
}

fn folder(pad: &Scratchpad, partition: u32) -> PathBuf {
    pad.path(&format!("{{archive}}/partition={partition}/offset_kind={{kind}}"))
}

/// Finds a record.
pub(super) fn find(pad: &Scratchpad, at: &str, bus: bool) -> Result<Found, Broken> {
    let (partition, offset) = place(at)?;
    let lost = || Broken(format!("there is no record {at}"));
    if bus {
        let path = pad.path(&format!("{{bus}}/partition={partition}.jsonl"));
        let line = offset.checked_sub(base_of(pad, partition)?).and_then(|n| usize::try_from(n).ok()).ok_or_else(lost)?;
        let text = std::fs::read_to_string(&path)?;
        let text = text.lines().nth(line).ok_or_else(lost)?.to_owned();
        return Ok(Found { path, line: Some(line), text });
    }
    let single = folder(pad, partition).join(format!("offset={offset}.json"));
    if single.is_file() {
        return Ok(Found { text: std::fs::read_to_string(&single)?, path: single, line: None });
    }
    let wanted = json!(offset.to_string());
    for entry in std::fs::read_dir(folder(pad, partition))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            for (line, text) in std::fs::read_to_string(&path)?.lines().enumerate() {
                let record: Value = serde_json::from_str(text).unwrap_or_default();
                if record.pointer("/origin_offset/offset") == Some(&wanted) {
                    return Ok(Found { path, line: Some(line), text: text.to_owned() });
                }
            }
        }
    }
    Err(lost())
}

impl Found {
    /// The record.
    pub(super) fn value(&self) -> Result<Value, Broken> {
        serde_json::from_str(&self.text).map_err(|e| Broken(e.to_string()))
    }

    /// Puts a text in its place, or nothing.
    pub(super) fn replace(&self, text: Option<&str>) -> Result<(), Broken> {
        let Some(line) = self.line else {
            match text {
                Some(text) => std::fs::write(&self.path, format!("{text}\n"))?,
                None => std::fs::remove_file(&self.path)?,
            }
            return Ok(());
        };
        let all = std::fs::read_to_string(&self.path)?;
        let kept = all.lines().enumerate().filter_map(|(i, old)| if i == line { text } else { Some(old) });
        Ok(std::fs::write(&self.path, kept.map(|line| format!("{line}\n")).collect::<String>())?)
    }

    /// Keeps the first half.
    pub(super) fn tear(&self) -> Result<(), Broken> {
        let half: String = self.text.chars().take(self.text.chars().count() / 2).collect();
        self.replace(Some(&half))
    }
}

/// Changes a record in place.
pub(super) fn edit(pad: &Scratchpad, edit: &EditRecord) -> Result<(), Broken> {
    let found = find(pad, &edit.at, edit.bus)?;
    let mut record = found.value()?;
    pad.set(&mut record, &edit.set)?;
    for (pointer, bytes) in &edit.fill {
        apply(&mut record, pointer, Some(json!("x".repeat(*bytes))))?;
    }
    if edit.restate {
        restate(&mut record)?;
    }
    found.replace(Some(&canonical(&record)))
}

/// Makes everything that a record says about its envelope true of the envelope as it now is.
fn restate(record: &mut Value) -> Result<(), Broken> {
    let Some(envelope) = record.get("envelope").cloned() else { return broken("only an archived record can be restated") };
    for key in ["event_id", "event_type", "platform_run_id", "scenario_run_id", "ts_utc"] {
        if let Some(value) = envelope.get(key) {
            apply(record, &format!("/{key}"), Some(value.clone()))?;
        }
    }
    let (mut tape, mut scratch, text) = (Tape::new(), Vec::new(), canonical(&envelope));
    let doc = tape.parse(text.as_bytes()).map_err(|e| Broken(e.to_string()))?;
    let hash = crate::digest::sha256_hex(doc.root().canonical(&mut scratch));
    apply(record, "/payload_hash", Some(json!(hash)))
}

/// Archives a record again under another offset, in a file of its own.
pub(super) fn copy(pad: &Scratchpad, from: &str, to: &str) -> Result<(), Broken> {
    let mut record = find(pad, from, false)?.value()?;
    let (partition, offset) = place(to)?;
    apply(&mut record, "/origin_offset/offset", Some(json!(offset.to_string())))?;
    apply(&mut record, "/origin_offset/partition", Some(json!(partition)))?;
    let path = folder(pad, partition).join(format!("offset={offset}.json"));
    if path.exists() { broken(format!("{to} has a file already")) } else { write_json(&path, &record) }
}

fn base_of(pad: &Scratchpad, partition: u32) -> Result<u64, Broken> {
    let meta = read_json(&pad.path(&format!("{{bus}}/partition={partition}.meta.json")))?;
    meta.get("base_offset").and_then(Value::as_u64).ok_or_else(|| Broken("the bus says no base_offset".into()))
}

/// The bus forgets its oldest records.
pub(super) fn move_retention(pad: &Scratchpad, partition: u32, lines: u64) -> Result<(), Broken> {
    let base = base_of(pad, partition)?;
    let count = usize::try_from(lines).map_err(|e| Broken(e.to_string()))?;
    pad.remove_lines(&format!("{{bus}}/partition={partition}.jsonl"), 1, count)?;
    let meta = pad.path(&format!("{{bus}}/partition={partition}.meta.json"));
    let mut value = read_json(&meta)?;
    apply(&mut value, "/base_offset", Some(json!(base + lines)))?;
    write_json(&meta, &value)
}
