//! The data set that an export tells of: what its index and evidence say, and every file with the digests
//! that other tools know. Nothing here comes from a clock, a host or a run's receipts, so that the same data
//! set gives the same bytes whoever asks, and whenever.

use std::io::Read;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::contract::ReasonCode;
use crate::contract::profile::{Agg, Feature};
use crate::digest::hex;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::prove::dataset::Opened;
use crate::store::{Ref, StoreError, read};
use crate::time::Instant;

const PHASE: Phase = Phase::Publication;
/// Largest evidence document in bytes.
const DOCUMENT_BYTES: u64 = 1 << 30;

/// What a file is to the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Manifest,
    Index,
    Evidence,
    Part,
}

/// A file of the data set.
#[derive(Debug, Clone)]
pub(super) struct File {
    pub(super) role: Role,
    /// Its last segment.
    pub(super) name: String,
    pub(super) at: Ref,
    pub(super) bytes: u64,
    pub(super) blake3: String,
    pub(super) sha256: String,
}

/// A column with what it means.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    /// As in the index: `utf8`, `int32`, `int64`, `float64`, `bool`, `timestamp_us_utc`, `decimal(p,s)`.
    pub(super) kind: String,
    pub(super) nullable: bool,
    pub(super) meaning: String,
    /// The payload fields that a feature is computed from; empty for every other column.
    pub(super) reads: Vec<String>,
}

/// What the proof of the replay says of one lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneFacts<'s>(&'s Value);

impl LaneFacts<'_> {
    /// A field as text.
    pub(super) fn text(&self, key: &str) -> String {
        self.0.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).unwrap_or_default()
    }

    pub(super) fn events(&self) -> u64 {
        self.0.get("events").and_then(Value::as_u64).unwrap_or_default()
    }

    /// First and last offset of each slice, both delivered.
    pub(super) fn slices(&self) -> Vec<(String, String)> {
        let text = |slice: &Value, key: &str| slice.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let slices = self.0.get("slices").and_then(Value::as_array).into_iter().flatten();
        slices.map(|s| (text(s, "start_offset"), text(s, "end_offset"))).collect()
    }

    /// `<topic>/<partition>`.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.text("topic"), self.text("partition"))
    }
}

/// The data set with its files.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) opened: Opened,
    pub(super) files: Vec<File>,
    pub(super) replay: Value,
    pub(super) labels: Value,
    pub(super) columns: Vec<Column>,
}

impl Subject {
    /// Reads the data set, which was verified before. What was altered since is refused.
    ///
    /// # Errors
    /// `DIGEST_MISMATCH`, the store's, `INTERRUPTED`.
    pub(super) fn read(env: &Env, manifest: &Ref) -> Result<Self, Refusal> {
        let opened = Opened::open(env, manifest)?;
        let folder = Ref::of(&[&opened.run, "ofs", "datasets", &opened.manifest_id]);
        let mut files = vec![digests(env, manifest, Role::Manifest, None)?, digests(env, &folder.join("index.json"), Role::Index, None)?];
        for name in ["features", "labels", "replay"] {
            let wanted = opened.index.pointer(&format!("/evidence/{name}/blake3")).and_then(Value::as_str);
            files.push(digests(env, &folder.join(&format!("evidence/{name}.json")), Role::Evidence, wanted)?);
        }
        for part in &opened.parts {
            files.push(digests(env, &part.at, Role::Part, Some(&part.blake3))?);
        }
        let (replay, labels) = (proof(env, &folder, "replay")?, proof(env, &folder, "labels")?);
        let columns = columns(&opened);
        Ok(Subject { opened, files, replay, labels, columns })
    }

    /// A text of the index, or nothing.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.opened.index.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A number of the index.
    pub(super) fn number(&self, pointer: &str) -> u64 {
        self.opened.index.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
    }

    /// A list of the index.
    pub(super) fn list(&self, pointer: &str) -> &[Value] {
        self.opened.index.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|f| f.role == Role::Part)
    }

    /// Rows of a part, as the index has them.
    pub(super) fn rows_of(&self, part: &File) -> u64 {
        let entry = self.list("/files").iter().find(|f| f.get("path").and_then(Value::as_str) == Some(&part.name));
        entry.and_then(|f| f.get("rows")).and_then(Value::as_u64).unwrap_or_default()
    }

    /// First and last event time; nothing without rows.
    pub(super) fn range(&self) -> Option<(Instant, Instant)> {
        let stamps =
            |key: &str| -> Vec<Instant> { self.list("/files").iter().filter_map(|f| Instant::parse(f.get(key)?.as_str()?).ok()).collect() };
        Some((stamps("min_ts_utc").into_iter().min()?, stamps("max_ts_utc").into_iter().max()?))
    }

    /// The newest instant that the data set knows of: its label cut-off, or its last event where that is later.
    pub(super) fn as_of(&self) -> Instant {
        let cutoff = self.opened.intent.labels.asof;
        self.range().map_or(cutoff, |(_, last)| cutoff.max(last))
    }

    /// The lanes of the replay: topic, partition, events, digest and slices of each.
    pub(super) fn lanes(&self) -> impl Iterator<Item = LaneFacts<'_>> {
        self.replay.get("lanes").and_then(Value::as_array).into_iter().flatten().map(LaneFacts)
    }

    /// `<feature set>@<version>`.
    pub(super) fn feature_set(&self) -> String {
        format!("{}@{}", self.opened.intent.feature_set_id, self.opened.intent.feature_set_version)
    }
}

/// A proof of the data set.
fn proof(env: &Env, folder: &Ref, name: &str) -> Result<Value, Refusal> {
    let at = folder.join(&format!("evidence/{name}.json"));
    let bytes = read(env.store.as_ref(), &at, DOCUMENT_BYTES).map_err(|e| Refusal::of_store(PHASE, &e))?;
    serde_json::from_slice(&bytes).map_err(|e| altered(&at, &e.to_string()))
}

fn altered(at: &Ref, what: &str) -> Refusal {
    Refusal::new(ReasonCode::DigestMismatch, PHASE, format!("{at}: {what}; `ofs verify` tells what else does not hold"))
}

/// Both digests of a file in one reading, held against the one that names it.
fn digests(env: &Env, at: &Ref, role: Role, wanted: Option<&str>) -> Result<File, Refusal> {
    env.check(PHASE)?;
    let store = |e: &StoreError| Refusal::of_store(PHASE, e);
    let mut reader = env.store.open(at).map_err(|e| store(&e))?;
    let (mut blake3, mut sha256, mut bytes) = (blake3::Hasher::new(), Sha256::new(), 0u64);
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let n = reader.read(&mut buffer).map_err(|e| altered(at, &e.to_string()))?;
        let Some(block) = buffer.get(..n).filter(|b| !b.is_empty()) else { break };
        blake3.update(block);
        sha256.update(block);
        bytes += n as u64;
    }
    let blake3 = blake3.finalize().to_hex().to_string();
    if wanted.is_some_and(|wanted| wanted != blake3) {
        return Err(altered(at, "other bytes than the index names"));
    }
    let name = at.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    Ok(File { role, name, at: at.clone(), bytes, blake3, sha256: hex(&sha256.finalize()) })
}

/// Every column of the index with its meaning.
fn columns(opened: &Opened) -> Vec<Column> {
    let features = features(opened);
    let schema = opened.index.get("schema").and_then(Value::as_array).into_iter().flatten();
    schema
        .map(|column| {
            let text = |key: &str| column.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let name = text("name");
            let feature = features.iter().find(|(known, ..)| *known == name);
            let meaning = feature.map(|(_, meaning, _)| meaning.clone()).or_else(|| label(opened, &name));
            Column {
                meaning: meaning.unwrap_or_else(|| fixed(&name).to_owned()),
                reads: feature.map(|(.., reads)| reads.clone()).unwrap_or_default(),
                kind: text("type"),
                nullable: column.get("nullable") == Some(&Value::Bool(true)),
                name,
            }
        })
        .collect()
}

fn fixed(name: &str) -> &'static str {
    match name {
        "row_id" => "Names the row: 32 hex digits of a digest over run, event, place, payload hash and feature definition.",
        "event_id" => "Id of the event that the row was made of.",
        "ts_utc" => "Event time, UTC, microseconds.",
        "topic" => "Topic of the event.",
        "partition" => "Partition of the event.",
        "offset" => "Offset of the event within its partition.",
        "offset_kind" => "How offsets of the partition are counted.",
        "payload_hash" => "SHA-256 of the event's canonical envelope.",
        "key" => "Key that the features are grouped by.",
        _ => "",
    }
}

fn label(opened: &Opened, name: &str) -> Option<String> {
    let cutoff = opened.intent.labels.asof;
    opened.intent.label_types.iter().find_map(|label| match name.strip_prefix("label_")?.strip_prefix(label.as_str())? {
        "" => Some(format!("Label {label} as it was known at {cutoff}; null where none was resolved.")),
        "_status" => Some(format!("What became of label {label}: RESOLVED, CONFLICT or NOT_FOUND.")),
        "_observed_utc" => Some(format!("When the selected assertion of label {label} was observed, never after {cutoff}.")),
        "_assertion_id" => Some(format!("Id of the selected assertion of label {label}.")),
        _ => None,
    })
}

/// Column, meaning and payload fields of every feature.
fn features(opened: &Opened) -> Vec<(String, String, Vec<String>)> {
    let group = &opened.group;
    let mut all = Vec::new();
    for feature in &group.features {
        let mut windows = group.windows.iter();
        for column in group.columns_of(feature) {
            let window = if feature.agg == Agg::SecondsSincePrevious { None } else { windows.next().map(|w| w.duration_us) };
            let mut reads: Vec<String> = feature.input.iter().map(|(field, _)| field.clone()).collect();
            reads.extend(feature.conditions.keys().filter(|f| feature.input.as_ref().is_none_or(|(field, _)| field != *f)).cloned());
            all.push((column, words(feature, window), reads));
        }
    }
    all
}

fn words(feature: &Feature, window_us: Option<i64>) -> String {
    let of = feature.input.as_ref().map(|(field, kind)| format!(" of payload field {field} ({kind})")).unwrap_or_default();
    let over = match window_us {
        Some(us) => format!(" over the key's events in (ts - {}, ts], the event itself included", length(us)),
        None => " of the same key".to_owned(),
    };
    let only = feature.conditions.iter().map(|(field, value)| format!("{field} = {value}")).collect::<Vec<_>>();
    let only = if only.is_empty() { String::new() } else { format!(", only where {}", only.join(" and ")) };
    format!("{}{of}{over}{only}.", feature.agg.as_str())
}

/// A length in its largest whole unit: no rounding, since it is a definition.
fn length(micros: i64) -> String {
    let units = [(86_400_000_000, "d"), (3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1, " microseconds")];
    let (unit, name) = units.into_iter().find(|(unit, _)| micros % unit == 0).unwrap_or((1, " microseconds"));
    format!("{}{name}", micros / unit)
}
