//! The BuildIntent `learning.ofs_build_intent.v0`: what a build is asked to prove.
//!
//! Parsing yields the *normal form*: instants in UTC with six digits, offsets without leading zeros,
//! scenario ids sorted and unique, overlapping or touching slices merged, so that spelling never
//! reaches the identity (O013, O071, pitfalls 18 and 24). Everything that needs no I/O is checked
//! here, all problems at once, each with the code that its field decides (O001 to O019).

use serde_json::{Map, Value, json};

use super::decimal::Ratio;
use super::{Offset, OffsetKind, Problem, ReasonCode, path_safe};
use crate::json::{self, Item, Tape};
use crate::time::Instant;

mod read;

use read::Reader;

/// The only schema version accepted.
pub const SCHEMA_VERSION: &str = "learning.ofs_build_intent.v0";
/// The only resolution rule that is built (O090).
pub const RESOLUTION_RULE: &str = "observed_time<=label_asof_utc";

/// What the intent asks for (O002).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentKind {
    /// A data set.
    DatasetBuild,
    /// A comparison with an online snapshot; publishes a report, never a data set.
    ParityRebuild,
    /// The state of given keys at a given moment; publishes no data set.
    ForensicRebuild,
}

impl IntentKind {
    /// The name in contracts.
    pub fn as_str(self) -> &'static str {
        match self {
            IntentKind::DatasetBuild => "dataset_build",
            IntentKind::ParityRebuild => "parity_rebuild",
            IntentKind::ForensicRebuild => "forensic_rebuild",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [IntentKind::DatasetBuild, IntentKind::ParityRebuild, IntentKind::ForensicRebuild].into_iter().find(|k| k.as_str() == name)
    }
}

/// One partition of the basis: where its offsets live.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// Topic.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// How it numbers records.
    pub kind: OffsetKind,
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A range of offsets, both ends inclusive (O051).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OffsetRange {
    /// First offset.
    pub start: Offset,
    /// Last offset.
    pub end: Offset,
}

impl OffsetKind {
    /// Every offset that a record of this kind may have.
    pub fn everything(self) -> OffsetRange {
        let digits = if self.dense() { i64::MAX.to_string() } else { "9".repeat(56) };
        OffsetRange { start: Offset::default(), end: Offset::parse(&digits).unwrap_or_default() }
    }
}

impl OffsetRange {
    /// Whether the offset lies inside.
    pub fn contains(&self, offset: Offset) -> bool {
        self.start <= offset && offset <= self.end
    }

    /// How many integers it spans.
    pub fn span(&self) -> Offset {
        self.end.above(self.start).next()
    }
}

impl std::fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.start == self.end { write!(f, "{}", self.start) } else { write!(f, "{}-{}", self.start, self.end) }
    }
}

/// One slice of the replay basis.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slice {
    /// The partition.
    pub lane: Lane,
    /// The offsets.
    pub range: OffsetRange,
}

impl Slice {
    /// As in the intent and the manifest.
    pub fn to_json(&self) -> Value {
        json!({"topic": self.lane.topic, "partition": self.lane.partition, "offset_kind": self.lane.kind,
            "start_offset": self.range.start, "end_offset": self.range.end})
    }
}

/// Which labels may be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelBasis {
    /// The cut-off on observed time.
    pub asof: Instant,
    /// Days before the cut-off after which a row counts as mature.
    pub maturity_days: Option<u32>,
}

/// Thresholds of the label gate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoveragePolicy {
    /// Per label type, the least share of targets that must be resolved; others need all.
    pub min_coverage: std::collections::BTreeMap<String, Ratio>,
    /// The largest share of targets in conflict; none when absent.
    pub max_conflict: Option<Ratio>,
    /// The least share of mature rows; gates only when given.
    pub min_mature: Option<Ratio>,
}

/// A row filter: the payload field must equal one of the values.
#[derive(Debug, Clone, PartialEq)]
pub struct RowFilter {
    /// Payload field.
    pub field: String,
    /// Accepted scalars.
    pub any_of: Vec<Value>,
}

/// As of when a forensic rebuild is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsOf {
    /// Right after an event, in canonical order.
    Event(String),
    /// After everything up to an instant.
    Instant(Instant),
}

/// What a forensic rebuild is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForensicScope {
    /// Feature keys, sorted and unique.
    pub keys: Vec<String>,
    /// As of when.
    pub as_of: AsOf,
}

/// A parsed intent in normal form.
#[derive(Debug, Clone, PartialEq)]
pub struct Intent {
    /// Idempotency key of the request.
    pub request_id: String,
    /// What is asked for.
    pub kind: IntentKind,
    /// The one platform run in scope.
    pub platform_run_id: String,
    /// Scenario runs, sorted and unique; empty means no restriction.
    pub scenario_run_ids: Vec<String>,
    /// Merged slices in order.
    pub basis: Vec<Slice>,
    /// Label cut-off.
    pub labels: LabelBasis,
    /// Feature set id.
    pub feature_set_id: String,
    /// Feature set version.
    pub feature_set_version: String,
    /// Join scope as written.
    pub join_scope: Map<String, Value>,
    /// Filters as written.
    pub filters: Map<String, Value>,
    /// Where the run facts are.
    pub run_facts_ref: String,
    /// Policy revision that the author pins.
    pub policy_revision: String,
    /// Configuration revision that the author pins.
    pub config_revision: String,
    /// Code release that the author pins.
    pub code_release: String,
    /// Online snapshot to compare with.
    pub parity_anchor_ref: Option<String>,
    /// Whether the data set may be unfit for training.
    pub non_training_allowed: bool,
    /// Label types, sorted: from filters, else join scope, else threshold keys.
    pub label_types: Vec<String>,
    /// Label gate.
    pub coverage: CoveragePolicy,
    /// Outputs whose PASS is required, sorted and unique; empty means every locator.
    pub required_outputs: Vec<String>,
    /// Row filters in key order.
    pub row_filters: Vec<RowFilter>,
    /// What a forensic rebuild is about; no other kind has it.
    pub forensic: Option<ForensicScope>,
}

impl Intent {
    /// Whether the data set must be fit for training.
    pub fn training(&self) -> bool {
        self.kind == IntentKind::DatasetBuild && !self.non_training_allowed
    }

    /// The lanes of the basis, each once, in order.
    pub fn lanes(&self) -> Vec<(Lane, Vec<OffsetRange>)> {
        let mut lanes: Vec<(Lane, Vec<OffsetRange>)> = Vec::new();
        for slice in &self.basis {
            match lanes.last_mut() {
                Some((lane, ranges)) if *lane == slice.lane => ranges.push(slice.range),
                _ => lanes.push((slice.lane.clone(), vec![slice.range])),
            }
        }
        lanes
    }

    /// Label basis as in the manifest.
    pub fn label_basis_json(&self) -> Value {
        let mut basis = json!({"label_asof_utc": self.labels.asof, "resolution_rule": RESOLUTION_RULE});
        if let (Some(days), Some(map)) = (self.labels.maturity_days, basis.as_object_mut()) {
            map.insert("maturity_days".into(), json!(days));
        }
        basis
    }

    /// Feature definition set as in the manifest.
    pub fn feature_set_json(&self) -> Value {
        json!({"feature_set_id": self.feature_set_id, "feature_set_version": self.feature_set_version})
    }

    /// The merged basis as in the manifest.
    pub fn basis_json(&self) -> Value {
        Value::Array(self.basis.iter().map(Slice::to_json).collect())
    }

    /// The whole intent in normal form; its hash is the request hash (O022, O023).
    pub fn to_json(&self) -> Value {
        let mut value = json!({
            "schema_version": SCHEMA_VERSION, "request_id": self.request_id, "intent_kind": self.kind.as_str(),
            "platform_run_id": self.platform_run_id, "scenario_run_ids": self.scenario_run_ids, "replay_basis": self.basis_json(),
            "label_basis": self.label_basis_json(), "feature_definition_set": self.feature_set_json(), "join_scope": self.join_scope,
            "filters": self.filters, "run_facts_ref": self.run_facts_ref, "policy_revision": self.policy_revision,
            "config_revision": self.config_revision, "ofs_code_release_id": self.code_release, "non_training_allowed": self.non_training_allowed,
        });
        if let (Some(anchor), Some(map)) = (&self.parity_anchor_ref, value.as_object_mut()) {
            map.insert("parity_anchor_ref".into(), json!(anchor));
        }
        value
    }
}

/// The intent that an identity stands for, as far as an identity tells: request id and run facts are no
/// part of it. Nothing where the payload is no identity.
pub fn of_identity(identity: &Value) -> Option<Intent> {
    let of = |key: &str| identity.get(key).cloned().unwrap_or(Value::Null);
    let set = of("feature_definition_set");
    let value = json!({
        "schema_version": SCHEMA_VERSION, "request_id": "of.an.identity", "run_facts_ref": "of/an/identity",
        "intent_kind": of("intent_kind"), "platform_run_id": of("platform_run_id"), "scenario_run_ids": of("scenario_run_ids"),
        "replay_basis": of("replay_basis"), "label_basis": of("label_basis"), "join_scope": of("join_scope"), "filters": of("filters"),
        "feature_definition_set": {"feature_set_id": set.get("feature_set_id"), "feature_set_version": set.get("feature_set_version")},
        "policy_revision": of("policy_revision"), "config_revision": of("config_revision"), "ofs_code_release_id": of("ofs_code_release_id"),
        "non_training_allowed": !of("training").as_bool()?,
    });
    parse(value.to_string().as_bytes()).ok()
}

/// What could be read of an intent that was refused: enough for its ledger record.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The request id, if it is a valid one.
    pub request_id: Option<String>,
    /// The platform run, if it names one.
    pub platform_run_id: Option<String>,
    /// The kind as written.
    pub intent_kind: Option<String>,
    /// Everything that is wrong, first things first.
    pub problems: Vec<Problem>,
}

/// Parses an intent.
///
/// # Errors
/// All problems at once, in the order of the contract's fields; the first one gives the reason code.
pub fn parse(text: &[u8]) -> Result<Intent, Box<Refused>> {
    let mut tape = Tape::new();
    let schema = |message: String| {
        Box::new(Refused {
            request_id: None,
            platform_run_id: None,
            intent_kind: None,
            problems: vec![Problem::new(ReasonCode::SchemaInvalid, "", message)],
        })
    };
    let doc = tape.parse(text).map_err(|e| schema(format!("not a JSON document: {e}")))?;
    let root = doc.root();
    if root.kind() != json::Kind::Object {
        return Err(schema(format!("expected a JSON object, found {}", root.kind())));
    }
    let mut reader = Reader::default();
    if let Some(key) = doc.duplicate_key() {
        reader.problem(ReasonCode::SchemaInvalid, &key, "the key stands twice in one object");
    }
    let intent = reader.intent(root);
    match intent {
        Some(intent) if reader.problems.is_empty() => Ok(intent),
        _ => Err(Box::new(Refused {
            request_id: root.get("request_id").and_then(Item::str).filter(|id| request_id_valid(id)).map(|s| s.into_owned()),
            platform_run_id: root.get("platform_run_id").and_then(Item::str).filter(|id| path_safe(id)).map(|s| s.into_owned()),
            intent_kind: root.get("intent_kind").and_then(Item::str).and_then(|k| IntentKind::parse(&k)).map(|k| k.as_str().to_owned()),
            problems: reader.problems,
        })),
    }
}

/// Whether a request id has 8 to 128 characters of `[A-Za-z0-9_.:-]` (O001).
pub fn request_id_valid(id: &str) -> bool {
    (8..=128).contains(&id.len()) && path_safe(id)
}

/// Sorts slices and joins those that overlap or touch (O071).
pub(super) fn merge(mut slices: Vec<Slice>) -> Vec<Slice> {
    slices.sort();
    let mut merged: Vec<Slice> = Vec::with_capacity(slices.len());
    for slice in slices {
        match merged.last_mut() {
            Some(last) if last.lane == slice.lane && slice.range.start <= last.range.end.next() => {
                last.range.end = last.range.end.max(slice.range.end)
            }
            _ => merged.push(slice),
        }
    }
    merged
}

#[cfg(test)]
pub(crate) mod tests;
