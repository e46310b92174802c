//! Gate 6: features under the pinned definition, labels joined into the rows, canonical order across
//! parts, and the draft in staging (O095 to O111).

mod parts;
pub(super) mod shard;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde_json::{Value, json};

use super::gate::{Env, Phase, Refusal, keep_receipt};
use super::kept::Recorded;
use super::label::Labelled;
use super::parallel::{self, Weight};
use super::pin::Pinned;
use super::replay::{Replayed, Waiting};
use super::window_columns::feature_fields;
use crate::contract::ReasonCode;
use crate::engine::dataset_file::{PartStats, WRITER_REVISION};
use crate::engine::digest::schema_digest;
use crate::engine::merge::{OrderColumns, SortedRuns};
use crate::store::{ErrorKind, Ref};
use crate::time::Instant;

const PHASE: Phase = Phase::Features;

/// Where the columns of a shard's output stand; features and labels follow.
mod output {
    pub(super) const TS: usize = 0;
    pub(super) const LANE: usize = 1;
    pub(super) const OFFSET: usize = 2;
    pub(super) const EVENT_ID: usize = 3;
    pub(super) const HASH: usize = 4;
    pub(super) const KEY: usize = 5;
    pub(super) const ROW_ID: usize = 6;
    pub(super) const FEATURES: usize = 7;
}

/// Position of `ts_utc` in a part.
pub const TS_COLUMN: usize = 2;

/// A part of the data set: its name and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFile {
    /// File name, `part-00000.parquet`.
    pub path: String,
    /// Rows, bytes, digest, range.
    pub stats: PartStats,
}

impl PartFile {
    /// Its name in staging: content-addressed, so that no other attempt can put other bytes there.
    pub fn staged_name(&self) -> String {
        format!("{}-{}", self.stats.blake3, self.path)
    }

    /// As in the index and the draft receipt.
    pub fn to_json(&self) -> Value {
        let stamp = |ts: i64| if self.stats.rows == 0 { Value::Null } else { json!(Instant(ts)) };
        json!({"path": self.path, "blake3": self.stats.blake3, "rows": self.stats.rows, "bytes": self.stats.bytes, "min_ts_utc": stamp(self.stats.min_ts), "max_ts_utc": stamp(self.stats.max_ts)})
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let stamp = |key: &str| text(key).and_then(|t| Instant::parse(t).ok()).map_or(0, |i| i.0);
        let number = |key: &str| value.get(key).and_then(Value::as_u64);
        let path = text("path").filter(|p| crate::contract::path_safe(p))?.to_owned();
        let stats = PartStats {
            rows: number("rows")?,
            bytes: number("bytes")?,
            blake3: text("blake3")?.to_owned(),
            min_ts: stamp("min_ts_utc"),
            max_ts: stamp("max_ts_utc"),
        };
        Some(PartFile { path, stats })
    }
}

/// Proof that every row was computed, with the parts complete and digested in staging.
#[derive(Debug)]
pub struct Drafted {
    pinned: Pinned,
    replay_proof: Value,
    label_proof: Value,
    feature_proof: Value,
    files: Vec<PartFile>,
}

/// The schema of a data set (`interface` 4): fixed columns, features, labels in name order.
pub fn dataset_schema(pinned: &Pinned) -> SchemaRef {
    let sparse = pinned.intent().basis.iter().any(|s| !s.lane.kind.dense());
    let stamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let mut fields = vec![
        Field::new("row_id", DataType::Utf8, false),
        Field::new("event_id", DataType::Utf8, false),
        Field::new("ts_utc", stamp.clone(), false),
        Field::new("topic", DataType::Utf8, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", if sparse { DataType::Utf8 } else { DataType::Int64 }, false),
        Field::new("offset_kind", DataType::Utf8, false),
        Field::new("payload_hash", DataType::Utf8, false),
        Field::new("key", DataType::Utf8, false),
    ];
    fields.extend(feature_fields(pinned.group()));
    for (name, _) in pinned.vocabulary() {
        fields.push(Field::new(format!("label_{name}"), DataType::Utf8, true));
        fields.push(Field::new(format!("label_{name}_status"), DataType::Utf8, false));
        fields.push(Field::new(format!("label_{name}_observed_utc"), stamp.clone(), true));
        fields.push(Field::new(format!("label_{name}_assertion_id"), DataType::Utf8, true));
    }
    Arc::new(Schema::new(fields))
}

/// The schema as a document.
pub fn schema_json(schema: &Schema) -> Value {
    let name = |t: &DataType| match t {
        DataType::Utf8 => "utf8".to_owned(),
        DataType::Int64 => "int64".into(),
        DataType::Int32 => "int32".into(),
        DataType::Float64 => "float64".into(),
        DataType::Boolean => "bool".into(),
        DataType::Decimal128(p, s) => format!("decimal({p},{s})"),
        DataType::Timestamp(..) => "timestamp_us_utc".into(),
        other => other.to_string(),
    };
    schema.fields().iter().map(|f| json!({"name": f.name(), "type": name(f.data_type()), "nullable": f.is_nullable()})).collect()
}

/// The schema of a shard's output, before constants and texts are laid out.
fn output_schema(labelled: &Labelled) -> SchemaRef {
    let projection = labelled.replayed().projection();
    let mut fields = vec![
        Field::new("ts", DataType::Int64, false),
        Field::new("lane", DataType::Int32, false),
        Field::new("offset", if projection.sparse() { DataType::Utf8 } else { DataType::Int64 }, false),
        Field::new("event_id", DataType::Utf8, false),
        Field::new("hash", DataType::FixedSizeBinary(32), false),
        Field::new("key", DataType::Utf8, false),
        Field::new("row_id", DataType::FixedSizeBinary(16), false),
    ];
    fields.extend(feature_fields(labelled.pinned().group()));
    for i in 0..labelled.pinned().vocabulary().len() {
        fields.push(Field::new(format!("value{i}"), DataType::Utf8, true));
        fields.push(Field::new(format!("status{i}"), DataType::Int32, false));
        fields.push(Field::new(format!("observed{i}"), DataType::Int64, true));
        fields.push(Field::new(format!("assertion{i}"), DataType::Utf8, true));
    }
    Arc::new(Schema::new(fields))
}

/// Computes features and writes the draft.
///
/// # Errors
/// A refusal of gate 6.
pub fn prove(labelled: Labelled, env: &Env) -> Result<Drafted, Refusal> {
    value_fault(labelled.replayed())?;
    parts::affordable(&labelled, env)?;
    let work = labelled.replayed().work().clone();
    let shards = labelled.pinned().shards();
    let runs = SortedRuns::new(output_schema(&labelled), shards, work.budget(Waiting::Rows), work.scratch.clone());
    env.progress.enter(PHASE, shards as u64);
    let (rows, late_use) = (AtomicU64::new(0), AtomicU64::new(0));
    // A few shards are much larger than most, for they have the largest keys.
    let weights: Vec<Weight> = (0..shards).map(|index| shard::weight(&labelled, index)).collect();
    let name = |index| format!("the keys of shard {index} are too large to split");
    parallel::weighed(env, PHASE, &weights, name, |index| {
        let computed = shard::compute(&labelled, index, &runs)?;
        rows.fetch_add(computed.rows, Ordering::Relaxed);
        late_use.fetch_add(computed.late, Ordering::Relaxed);
        env.progress.advance(1);
        Ok(())
    })?;
    labelled.replayed().events().clear();
    labelled.decisions().clear();
    if rows.load(Ordering::Relaxed) != labelled.rows() {
        let message = format!("{} row(s) were labelled, {} computed", labelled.rows(), rows.load(Ordering::Relaxed));
        return Err(Refusal::new(ReasonCode::InternalError, PHASE, message));
    }
    let merged = runs
        .merge(OrderColumns { ts: output::TS, lane: output::LANE, offset: output::OFFSET })
        .map_err(|e| Refusal::of_engine(PHASE, &e))?;
    env.progress.enter(PHASE, labelled.rows());
    labelled.pinned().clear_staging(env, |name| name.starts_with(parts::UNPROVED));
    let written = parts::write(&labelled, env, merged)?;
    let feature_proof = proof_of(&labelled, &written, late_use.into_inner())?;
    let drafted = Drafted {
        replay_proof: labelled.replayed().proof().clone(),
        label_proof: labelled.proof().clone(),
        feature_proof,
        files: written.files,
        pinned: labelled.pinned().clone(),
    };
    drafted.write_receipt(env)?;
    Ok(drafted)
}

/// A payload value that does not fit its declared type has no place in any window.
pub(super) fn value_fault(replayed: &Replayed) -> Result<(), Refusal> {
    let Some((fault, total)) = replayed.value_fault() else { return Ok(()) };
    let lane = replayed.lanes().get(fault.lane as usize).map(ToString::to_string).unwrap_or_default();
    let line = format!("{lane} offset {}: field {} holds {}, which is no {}", fault.offset, fault.field, fault.found, fault.declared);
    Err(Refusal::new(ReasonCode::FeatureValueInvalid, PHASE, format!("{total} value(s) do not fit their declared type; the first: {line}"))
        .with_evidence([line]))
}

fn proof_of(labelled: &Labelled, written: &parts::Written, late_use: u64) -> Result<Value, Refusal> {
    let pinned = labelled.pinned();
    let schema = dataset_schema(pinned);
    let digest = schema_digest(&schema).map_err(|e| Refusal::of_engine(PHASE, &e))?;
    let replayed = labelled.replayed();
    let delivered = replayed.proof().get("events").and_then(Value::as_u64).unwrap_or(0);
    let unselected = replayed.observation().get("unselected_by_scenario").and_then(Value::as_u64).unwrap_or(0);
    let mut drops: serde_json::Map<String, Value> =
        labelled.drops().iter().map(|(code, n)| (replayed.projection().drop_name(*code), json!(n))).collect();
    if unselected > 0 {
        drops.insert("scenario_not_selected".into(), json!(unselected));
    }
    let (min, max) = written
        .files
        .iter()
        .filter(|f| f.stats.rows > 0)
        .fold((i64::MAX, i64::MIN), |(min, max), f| (min.min(f.stats.min_ts), max.max(f.stats.max_ts)));
    Ok(json!({
        "schema_version": "ofs.feature_proof.v1",
        "feature_definition_set": {"feature_set_id": pinned.group().name, "feature_set_version": pinned.group().version, "group_digest": pinned.group_digest()},
        "definition": pinned.group().to_json(), "rows": written.rows, "rows_digest": written.rows_digest, "schema": schema_json(&schema), "schema_digest": crate::digest::hex(&digest),
        "feature_list_digest": crate::digest::recipe_digest("ofs.feature_list.v1", &json!(feature_fields(pinned.group()).iter().map(|f| f.name().clone()).collect::<Vec<_>>())),
        "row_order": ["ts_utc", "topic", "partition", "offset", "event_id"], "min_ts_utc": Instant(min), "max_ts_utc": Instant(max), "shards": pinned.shards(),
        "delivered_events": delivered, "redelivered_events": labelled.redelivered(), "dropped": drops,
        "anchor_mode": "per_event", "sampling": null, "feature_availability": pinned.group().availability.as_str(), "rows_using_later_arrivals": late_use,
        "window_interval": "(ts - duration, ts], the event itself included", "writer_revision": WRITER_REVISION,
    }))
}

impl Drafted {
    fn receipt(&self) -> Value {
        let pinned = &self.pinned;
        json!({
            "schema_version": "learning.ofs_dataset_draft.v1", "running": pinned.running(), "run_key": pinned.admitted().run_key(), "request_id": pinned.intent().request_id,
            "platform_run_id": pinned.intent().platform_run_id, "dataset_manifest_id": pinned.id().manifest_id,
            "rows": self.rows(), "rows_digest": self.rows_digest(), "files": self.files.iter().map(PartFile::to_json).collect::<Vec<_>>(),
            "proof_digest": crate::digest::digest(&self.feature_proof), "proof": self.feature_proof,
            "rests_on": {"replay": crate::digest::digest(&self.replay_proof), "labels": crate::digest::digest(&self.label_proof)},
        })
    }

    fn write_receipt(&self, env: &Env) -> Result<(), Refusal> {
        let at = self.pinned.receipt_ref("dataset_draft");
        keep_receipt(
            env.store.as_ref(),
            &at,
            &self.receipt(),
            &["proof_digest", "rows_digest", "files", "rests_on"],
            ReasonCode::DatasetDraftImmutabilityViolation,
            PHASE,
        )
    }

    /// Takes this run's own draft again: its receipts are read, held against the digests that the ledger
    /// recorded when their gates passed, and every staged part is hashed anew (O128, pitfall 31).
    ///
    /// # Errors
    /// `PROVENANCE_INCONSISTENT` or `DIGEST_MISMATCH` where anything differs; the store's.
    pub fn reprove(pinned: Pinned, env: &Env, recorded: &Recorded) -> Result<Drafted, Refusal> {
        let foreign = |message: String| Refusal::new(ReasonCode::ProvenanceInconsistent, Phase::Publication, message);
        let receipt = |gate: Phase| recorded.receipt(&pinned, env, gate, Phase::Publication);
        let proof = |receipt: &Value| receipt.get("proof").cloned().unwrap_or(Value::Null);
        let draft = receipt(PHASE)?;
        let files: Option<Vec<PartFile>> =
            draft.get("files").and_then(Value::as_array).map(|list| list.iter().map(PartFile::from_json).collect()).unwrap_or_default();
        let files = files.ok_or_else(|| foreign("the draft receipt lists no readable parts".into()))?;
        let drafted = Drafted {
            replay_proof: proof(&receipt(Phase::Replay)?),
            label_proof: proof(&receipt(Phase::Labels)?),
            feature_proof: proof(&draft),
            files,
            pinned,
        };
        // Whoever retries may run under another policy than the one who drafted.
        let (mut mine, mut theirs) = (drafted.receipt(), draft);
        for receipt in [&mut mine, &mut theirs] {
            receipt.as_object_mut().and_then(|receipt| receipt.remove("running"));
        }
        if mine != theirs {
            return Err(foreign("the receipts of this run do not fit together".into()));
        }
        Ok(drafted)
    }

    /// Hashes every staged part again; a part that already lies in its final place may be gone from staging.
    ///
    /// # Errors
    /// `DIGEST_MISMATCH` naming the part; the store's.
    pub fn check_staged(&self, env: &Env) -> Result<(), Refusal> {
        let check = |(): &mut (), part: usize| {
            let Some(file) = self.files.get(part) else { return Ok(()) };
            let staged = self.staged_ref(file);
            let placed = self.pinned.dataset_ref().join(&file.path);
            let found = crate::store::digest(env.store.as_ref(), &staged)
                .or_else(|e| if e.kind == ErrorKind::NotFound { crate::store::digest(env.store.as_ref(), &placed) } else { Err(e) });
            let (digest, bytes) = found.map_err(|e| Refusal::of_store(Phase::Publication, &e))?;
            if digest != file.stats.blake3 || bytes != file.stats.bytes {
                return Err(Refusal::new(ReasonCode::DigestMismatch, Phase::Publication, format!("{staged} changed after it was proved"))
                    .with_evidence([
                        format!("proved {} ({} bytes)", file.stats.blake3, file.stats.bytes),
                        format!("found {digest} ({bytes} bytes)"),
                    ]));
            }
            Ok(())
        };
        parallel::each(env, Phase::Publication, self.files.len(), || (), check, |()| Ok(()))
    }

    /// Where a part lies before publication.
    pub fn staged_ref(&self, file: &PartFile) -> Ref {
        self.pinned.staging_ref().join(&file.staged_name())
    }

    /// The pins.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// The parts in order.
    pub fn files(&self) -> &[PartFile] {
        &self.files
    }

    /// Rows of the data set.
    pub fn rows(&self) -> u64 {
        self.feature_proof.get("rows").and_then(Value::as_u64).unwrap_or(0)
    }

    /// Root over all rows.
    pub fn rows_digest(&self) -> &str {
        self.feature_proof.get("rows_digest").and_then(Value::as_str).unwrap_or_default()
    }

    /// The three proofs by name.
    pub fn proofs(&self) -> [(&'static str, &Value); 3] {
        [("features", &self.feature_proof), ("labels", &self.label_proof), ("replay", &self.replay_proof)]
    }
}
