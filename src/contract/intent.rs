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

/// The only schema version accepted.
pub const SCHEMA_VERSION: &str = "learning.ofs_build_intent.v0";
/// The only resolution rule that is built (O090).
pub const RESOLUTION_RULE: &str = "observed_time<=label_asof_utc";
/// Most slices in one basis.
const MAX_SLICES: usize = 65_536;

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
    let mut reader = Reader { problems: Vec::new() };
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

const FIELDS: [&str; 16] = [
    "schema_version",
    "request_id",
    "intent_kind",
    "platform_run_id",
    "scenario_run_ids",
    "replay_basis",
    "label_basis",
    "feature_definition_set",
    "join_scope",
    "filters",
    "run_facts_ref",
    "policy_revision",
    "config_revision",
    "ofs_code_release_id",
    "parity_anchor_ref",
    "non_training_allowed",
];

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, code: ReasonCode, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(code, path, message));
    }

    fn closed(&mut self, item: Item<'_>, path: &str, known: &[&str]) {
        for (key, _) in item.fields() {
            if !known.contains(&key.as_ref()) {
                let hint = crate::text::nearest(&key, known.iter().copied()).map(|k| format!("; did you mean `{k}`?")).unwrap_or_default();
                let full = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
                self.problem(ReasonCode::SchemaInvalid, &full, format!("unknown field{hint}"));
            }
        }
    }

    /// A string that is there and not blank; its absence in every shape is the field's own code (pitfall 47).
    fn text(&mut self, parent: Item<'_>, key: &str, path: &str, code: ReasonCode) -> Option<String> {
        let full = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match parent.get(key) {
            None => self.problem(code, &full, "required, but missing"),
            Some(item) => match item.str() {
                Some(text) if !text.trim().is_empty() => return Some(text.into_owned()),
                Some(_) => self.problem(code, &full, "expected text, found a blank"),
                None => self.problem(code, &full, format!("expected a string, found {}", item.kind())),
            },
        }
        None
    }

    fn object<'t>(&mut self, root: Item<'t>, key: &str, code: ReasonCode, required: bool) -> Option<Item<'t>> {
        match root.get(key) {
            Some(item) if item.kind() == json::Kind::Object => return Some(item),
            Some(item) => self.problem(code, key, format!("expected an object, found {}", item.kind())),
            None if required => self.problem(code, key, "required, but missing"),
            None => {}
        }
        None
    }

    fn intent(&mut self, root: Item<'_>) -> Option<Intent> {
        use ReasonCode as C;
        let version = self.text(root, "schema_version", "", C::SchemaInvalid);
        if version.as_deref().is_some_and(|v| v != SCHEMA_VERSION) {
            self.problem(C::SchemaInvalid, "schema_version", format!("expected `{SCHEMA_VERSION}`"));
        }
        let request_id = self.request_id(root);
        let kind = self.kind(root);
        let platform_run_id = self.text(root, "platform_run_id", "", C::SchemaInvalid);
        if platform_run_id.as_deref().is_some_and(|id| !path_safe(id)) {
            self.problem(
                C::SchemaInvalid,
                "platform_run_id",
                "expected letters, digits and `_ . : -`, since it names a folder of the store",
            );
        }
        let scenario_run_ids = self.scenarios(root);
        let basis = self.basis(root);
        let labels = self.label_basis(root);
        let features = self.object(root, "feature_definition_set", C::FeatureProfileUnresolved, true).map(|set| {
            let id = self.text(set, "feature_set_id", "feature_definition_set", C::FeatureProfileUnresolved);
            let version = self.text(set, "feature_set_version", "feature_definition_set", C::FeatureProfileUnresolved);
            self.closed(set, "feature_definition_set", &["feature_set_id", "feature_set_version"]);
            (id, version)
        });
        let join_scope = self.object(root, "join_scope", C::SchemaInvalid, false).map(object_of).unwrap_or_default();
        let filters = self.object(root, "filters", C::SchemaInvalid, false).map(object_of).unwrap_or_default();
        let run_facts_ref = self.text(root, "run_facts_ref", "", C::RunFactsUnavailable);
        let policy_revision = self.text(root, "policy_revision", "", C::PolicyRevisionMissing);
        let config_revision = self.text(root, "config_revision", "", C::ConfigRevisionMissing);
        let code_release = self.text(root, "ofs_code_release_id", "", C::CodeReleaseMissing);
        let parity_anchor_ref =
            if root.get("parity_anchor_ref").is_some() { self.text(root, "parity_anchor_ref", "", C::ParityAnchorInvalid) } else { None };
        let non_training_allowed = match root.get("non_training_allowed") {
            None => false,
            Some(item) => item.bool().unwrap_or_else(|| {
                self.problem(C::SchemaInvalid, "non_training_allowed", format!("expected true or false, found {}", item.kind()));
                false
            }),
        };
        self.closed(root, "", &FIELDS);
        let scope = self.scope(&join_scope, &filters, kind);
        let forensic = self.forensic(join_scope.get("forensic"), kind);
        let (feature_set_id, feature_set_version) = features?;
        Some(Intent {
            request_id: request_id?,
            kind: kind?,
            platform_run_id: platform_run_id?,
            scenario_run_ids,
            basis,
            labels: labels?,
            feature_set_id: feature_set_id?,
            feature_set_version: feature_set_version?,
            join_scope,
            filters,
            run_facts_ref: run_facts_ref?,
            policy_revision: policy_revision?,
            config_revision: config_revision?,
            code_release: code_release?,
            parity_anchor_ref,
            non_training_allowed,
            label_types: scope.label_types,
            coverage: scope.coverage,
            required_outputs: scope.required_outputs,
            row_filters: scope.row_filters,
            forensic,
        })
    }

    fn request_id(&mut self, root: Item<'_>) -> Option<String> {
        let id = self.text(root, "request_id", "", ReasonCode::RequestIdInvalid)?;
        if !request_id_valid(&id) {
            self.problem(ReasonCode::RequestIdInvalid, "request_id", "expected 8 to 128 characters of A-Z a-z 0-9 _ . : -");
            return None;
        }
        Some(id)
    }

    fn kind(&mut self, root: Item<'_>) -> Option<IntentKind> {
        let name = self.text(root, "intent_kind", "", ReasonCode::IntentKindUnsupported)?;
        let kind = IntentKind::parse(&name);
        if kind.is_none() {
            self.problem(ReasonCode::IntentKindUnsupported, "intent_kind", "expected dataset_build, parity_rebuild or forensic_rebuild");
        }
        kind
    }

    fn scenarios(&mut self, root: Item<'_>) -> Vec<String> {
        let Some(item) = root.get("scenario_run_ids") else { return Vec::new() };
        if item.kind() != json::Kind::Array {
            self.problem(ReasonCode::SchemaInvalid, "scenario_run_ids", format!("expected an array of strings, found {}", item.kind()));
        }
        let mut ids = Vec::new();
        for (i, element) in item.elements().enumerate() {
            match element.str().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()) {
                Some(id) => ids.push(id),
                None => self.problem(ReasonCode::SchemaInvalid, &format!("scenario_run_ids[{i}]"), "expected a string that is not blank"),
            }
        }
        ids.sort();
        ids.dedup();
        ids
    }

    fn basis(&mut self, root: Item<'_>) -> Vec<Slice> {
        const CODE: ReasonCode = ReasonCode::BasisUnresolved;
        let Some(item) = root.get("replay_basis") else {
            self.problem(CODE, "replay_basis", "required, but missing");
            return Vec::new();
        };
        if item.kind() != json::Kind::Array {
            self.problem(CODE, "replay_basis", format!("expected an array of slices, found {}", item.kind()));
            return Vec::new();
        }
        let mut slices = Vec::new();
        for (i, element) in item.elements().enumerate() {
            if i >= MAX_SLICES {
                self.problem(CODE, "replay_basis", format!("more slices than the limit of {MAX_SLICES}"));
                break;
            }
            slices.extend(self.slice(element, &format!("replay_basis[{i}]")));
        }
        if item.elements().next().is_none() {
            self.problem(CODE, "replay_basis", "expected at least one slice, found none");
        }
        let merged = merge(slices);
        // One partition numbered in two ways would have no one order of offsets.
        let same = |a: &Lane, b: &Lane| (&a.topic, a.partition) == (&b.topic, b.partition) && a.kind != b.kind;
        if let Some(slice) = merged.iter().zip(merged.iter().skip(1)).find_map(|(a, b)| same(&a.lane, &b.lane).then_some(b)) {
            self.problem(CODE, "replay_basis", format!("{} appears with two offset kinds; a partition has one", slice.lane));
        }
        merged
    }

    fn slice(&mut self, item: Item<'_>, path: &str) -> Option<Slice> {
        const CODE: ReasonCode = ReasonCode::BasisUnresolved;
        if item.kind() != json::Kind::Object {
            self.problem(CODE, path, format!("expected an object, found {}", item.kind()));
            return None;
        }
        self.closed(item, path, &["topic", "partition", "offset_kind", "start_offset", "end_offset"]);
        let topic = self.text(item, "topic", path, CODE);
        if topic.as_deref().is_some_and(|t| !path_safe(t)) {
            self.problem(CODE, &format!("{path}.topic"), "expected letters, digits and `_ . : -`, since it names a folder");
            return None;
        }
        let partition = item.get("partition").and_then(Item::number).and_then(|t| t.parse::<i32>().ok()).filter(|p| *p >= 0);
        if partition.is_none() {
            self.problem(CODE, &format!("{path}.partition"), "expected a whole number from 0 to 2147483647");
        }
        let kind_name = self.text(item, "offset_kind", path, CODE);
        let kind = kind_name.as_deref().and_then(OffsetKind::parse);
        if kind_name.is_some() && kind.is_none() {
            self.problem(CODE, &format!("{path}.offset_kind"), "expected file_line, kafka_offset or kinesis_sequence");
        }
        let offset = |reader: &mut Self, key: &str| -> Option<Offset> {
            let full = format!("{path}.{key}");
            let text = reader.text(item, key, path, CODE)?;
            let offset = Offset::parse(&text).filter(|o| kind.is_none_or(|k| o.fits(k)));
            if offset.is_none() {
                reader.problem(CODE, &full, "expected decimal digits within the range of the offset kind");
            }
            offset
        };
        let (start, end) = (offset(self, "start_offset"), offset(self, "end_offset"));
        let (start, end) = (start?, end?);
        if end < start {
            self.problem(CODE, path, format!("end_offset {end} lies before start_offset {start}"));
            return None;
        }
        Some(Slice { lane: Lane { topic: topic?, partition: partition?, kind: kind? }, range: OffsetRange { start, end } })
    }

    fn label_basis(&mut self, root: Item<'_>) -> Option<LabelBasis> {
        use ReasonCode as C;
        let basis = self.object(root, "label_basis", C::LabelAsofMissing, true)?;
        self.closed(basis, "label_basis", &["label_asof_utc", "resolution_rule", "maturity_days"]);
        let asof = self.text(basis, "label_asof_utc", "label_basis", C::LabelAsofMissing).and_then(|text| match Instant::parse(&text) {
            Ok(instant) => Some(instant),
            Err(e) => {
                self.problem(C::AsOfSpecInvalid, "label_basis.label_asof_utc", e.to_string());
                None
            }
        });
        let rule = self.text(basis, "resolution_rule", "label_basis", C::LabelAsofMissing);
        if rule.as_deref().is_some_and(|r| r != RESOLUTION_RULE) {
            self.problem(C::RuleNotSupported, "label_basis.resolution_rule", format!("expected `{RESOLUTION_RULE}`"));
        }
        let maturity_days = basis.get("maturity_days").and_then(|item| {
            let days = item.number().and_then(|t| t.parse::<u32>().ok()).filter(|d| *d <= 36_500);
            if days.is_none() {
                self.problem(C::LabelPolicyInvalid, "label_basis.maturity_days", "expected a whole number of days from 0 to 36500");
            }
            days
        });
        rule?;
        Some(LabelBasis { asof: asof?, maturity_days })
    }

    fn scope(&mut self, join_scope: &Map<String, Value>, filters: &Map<String, Value>, kind: Option<IntentKind>) -> Scope {
        use ReasonCode as C;
        let required_outputs =
            self.names(join_scope.get("required_output_ids"), "join_scope.required_output_ids", C::SchemaInvalid).unwrap_or_default();
        if let Some(subject) = join_scope.get("subject_key")
            && subject.as_str().map(|s| s.replace(' ', "")) != Some("platform_run_id,event_id".into())
        {
            self.problem(
                C::SubjectMappingMissing,
                "join_scope.subject_key",
                "expected `platform_run_id,event_id`, the only subject that labels can be joined by",
            );
        }
        let coverage = self.coverage(filters.get("label_coverage_policy"));
        // Both are read, so that a broken one is a problem even where the other decides.
        let of_filters = self.names(filters.get("label_types"), "filters.label_types", C::LabelPolicyInvalid);
        let of_scope = self.names(join_scope.get("label_types"), "join_scope.label_types", C::LabelPolicyInvalid);
        let declared = of_filters.or(of_scope).unwrap_or_else(|| coverage.min_coverage.keys().cloned().collect());
        if declared.is_empty() && kind == Some(IntentKind::DatasetBuild) {
            self.problem(
                C::LabelTypeScopeUnresolved,
                "filters.label_types",
                "no label type is declared here, in join_scope.label_types, or by a coverage threshold",
            );
        }
        let row_filters = filters
            .iter()
            .filter(|(key, _)| *key != "label_types" && *key != "label_coverage_policy")
            .filter_map(|(field, value)| self.row_filter(field, value))
            .collect();
        Scope { required_outputs, label_types: declared, coverage, row_filters }
    }

    /// A forensic rebuild says which keys and as of when; for any other kind the scope would mean nothing.
    fn forensic(&mut self, value: Option<&Value>, kind: Option<IntentKind>) -> Option<ForensicScope> {
        use ReasonCode as C;
        const PATH: &str = "join_scope.forensic";
        let value = match (value, kind) {
            (None, Some(IntentKind::ForensicRebuild)) => {
                self.problem(C::SchemaInvalid, PATH, "a forensic_rebuild needs keys, and as_of_event_id or as_of_utc");
                return None;
            }
            (None, _) => return None,
            (Some(value), Some(IntentKind::ForensicRebuild) | None) => value,
            (Some(_), Some(_)) => {
                self.problem(C::SchemaInvalid, PATH, "only a forensic_rebuild has such a scope");
                return None;
            }
        };
        let Some(map) = value.as_object() else {
            self.problem(C::SchemaInvalid, PATH, "expected an object of keys, and as_of_event_id or as_of_utc");
            return None;
        };
        for key in map.keys().filter(|key| !["keys", "as_of_event_id", "as_of_utc"].contains(&key.as_str())) {
            self.problem(C::SchemaInvalid, &format!("{PATH}.{key}"), "unknown field");
        }
        let keys = self.names(map.get("keys"), &format!("{PATH}.keys"), C::SchemaInvalid).filter(|keys| !keys.is_empty());
        if keys.is_none() {
            self.problem(C::SchemaInvalid, &format!("{PATH}.keys"), "expected at least one feature key");
        }
        let text = |key: &str| map.get(key).map(|v| v.as_str().filter(|t| !t.trim().is_empty()).unwrap_or_default());
        let as_of = match (text("as_of_event_id"), text("as_of_utc")) {
            (Some(id), None) if !id.is_empty() => Some(AsOf::Event(id.to_owned())),
            (None, Some(stamp)) => match Instant::parse(stamp) {
                Ok(instant) => Some(AsOf::Instant(instant)),
                Err(e) => {
                    self.problem(C::AsOfSpecInvalid, &format!("{PATH}.as_of_utc"), e.to_string());
                    None
                }
            },
            _ => {
                self.problem(C::SchemaInvalid, PATH, "expected one of as_of_event_id and as_of_utc");
                None
            }
        };
        Some(ForensicScope { keys: keys?, as_of: as_of? })
    }

    fn names(&mut self, value: Option<&Value>, path: &str, code: ReasonCode) -> Option<Vec<String>> {
        let value = value?;
        let names: Option<Vec<String>> =
            value.as_array().and_then(|list| list.iter().map(|v| v.as_str().filter(|s| !s.trim().is_empty()).map(str::to_owned)).collect());
        match names {
            Some(mut names) => {
                names.sort();
                names.dedup();
                Some(names)
            }
            None => {
                self.problem(code, path, "expected a list of names");
                Some(Vec::new())
            }
        }
    }

    fn coverage(&mut self, value: Option<&Value>) -> CoveragePolicy {
        const CODE: ReasonCode = ReasonCode::LabelPolicyInvalid;
        const PATH: &str = "filters.label_coverage_policy";
        let mut policy = CoveragePolicy::default();
        let Some(value) = value else { return policy };
        let Some(map) = value.as_object() else {
            self.problem(CODE, PATH, "expected an object");
            return policy;
        };
        let ratio = |reader: &mut Self, path: String, value: &Value| {
            let ratio = value.as_number().and_then(|n| Ratio::parse(n.as_str()));
            if ratio.is_none() {
                reader.problem(CODE, &path, "expected a number from 0 to 1 with at most twelve decimals");
            }
            ratio
        };
        for (key, value) in map {
            let path = format!("{PATH}.{key}");
            match key.as_str() {
                "max_conflict_ratio" => policy.max_conflict = ratio(self, path, value),
                "min_mature_ratio" => policy.min_mature = ratio(self, path, value),
                "min_coverage_by_label_type" => match value.as_object() {
                    Some(types) => {
                        for (name, value) in types {
                            if let Some(min) = ratio(self, format!("{path}.{name}"), value) {
                                policy.min_coverage.insert(name.clone(), min);
                            }
                        }
                    }
                    None => self.problem(CODE, &path, "expected an object of label type to ratio"),
                },
                _ => self.problem(CODE, &path, "unknown field; known are min_coverage_by_label_type, max_conflict_ratio, min_mature_ratio"),
            }
        }
        policy
    }

    fn row_filter(&mut self, field: &str, value: &Value) -> Option<RowFilter> {
        let scalar = |v: &Value| !v.is_array() && !v.is_object();
        let any_of = match value {
            Value::Array(list) if !list.is_empty() && list.iter().all(scalar) => list.clone(),
            other if scalar(other) => vec![other.clone()],
            _ => {
                self.problem(
                    ReasonCode::FilterInvalid,
                    &format!("filters.{field}"),
                    "expected a scalar, or a list of scalars that is not empty",
                );
                return None;
            }
        };
        Some(RowFilter { field: field.to_owned(), any_of })
    }
}

struct Scope {
    required_outputs: Vec<String>,
    label_types: Vec<String>,
    coverage: CoveragePolicy,
    row_filters: Vec<RowFilter>,
}

fn object_of(item: Item<'_>) -> Map<String, Value> {
    match item.to_value() {
        Value::Object(map) => map,
        _ => Map::new(),
    }
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
pub(crate) mod tests {
    use super::*;

    /// A complete intent that admission accepts.
    pub(crate) fn sample() -> Value {
        json!({
            "schema_version": SCHEMA_VERSION, "request_id": "request.001", "intent_kind": "dataset_build", "platform_run_id": "platform_20260210T122800Z",
            "scenario_run_ids": ["b", "a", "b"],
            "replay_basis": [{"topic": "t", "partition": 0, "offset_kind": "kafka_offset", "start_offset": "0", "end_offset": "9"}],
            "label_basis": {"label_asof_utc": "2026-02-10T10:00:00Z", "resolution_rule": RESOLUTION_RULE, "maturity_days": 7},
            "feature_definition_set": {"feature_set_id": "core_features", "feature_set_version": "v1"},
            "join_scope": {"subject_key": "platform_run_id,event_id", "required_output_ids": ["b", "a"]},
            "filters": {"label_types": ["fraud_disposition"], "country": ["US"]},
            "run_facts_ref": "platform_20260210T122800Z/facts.json", "policy_revision": "p0", "config_revision": "c0", "ofs_code_release_id": "git:1"
        })
    }

    fn refused(change: impl FnOnce(&mut Value)) -> (ReasonCode, String) {
        let mut value = sample();
        change(&mut value);
        let refused = parse(value.to_string().as_bytes()).unwrap_err();
        (refused.problems[0].code, refused.problems[0].path.clone())
    }

    #[test]
    fn a_complete_intent_is_read_in_normal_form() {
        let intent = parse(sample().to_string().as_bytes()).unwrap();
        assert_eq!(intent.scenario_run_ids, ["a", "b"]);
        assert_eq!(intent.required_outputs, ["a", "b"]);
        assert_eq!(intent.label_types, ["fraud_disposition"]);
        assert_eq!(intent.row_filters.len(), 1);
        assert!(intent.training());
        assert_eq!(parse(intent.to_json().to_string().as_bytes()).unwrap().to_json(), intent.to_json());
    }

    #[test]
    fn a_forensic_rebuild_says_which_keys_and_as_of_when() {
        let with = |scope: Value| {
            let mut value = sample();
            value["intent_kind"] = json!("forensic_rebuild");
            value["join_scope"]["forensic"] = scope;
            parse(value.to_string().as_bytes())
        };
        let scope = with(json!({"keys": ["b", "a", "b"], "as_of_utc": "2026-01-01T01:00:00+01:00"})).unwrap().forensic.unwrap();
        assert_eq!(scope.keys, ["a", "b"]);
        assert_eq!(scope.as_of, AsOf::Instant(Instant::parse("2026-01-01T00:00:00Z").unwrap()));
        assert_eq!(with(json!({"keys": ["a"], "as_of_event_id": "e"})).unwrap().forensic.unwrap().as_of, AsOf::Event("e".into()));
        for bad in [
            json!(null),
            json!({}),
            json!({"keys": [], "as_of_event_id": "e"}),
            json!({"keys": ["a"]}),
            json!({"keys": ["a"], "as_of_event_id": "e", "as_of_utc": "2026-01-01T00:00:00Z"}),
            json!({"keys": ["a"], "as_of_event_id": " "}),
            json!({"keys": ["a"], "as_of_event_id": "e", "more": 1}),
        ] {
            assert_eq!(with(bad.clone()).unwrap_err().problems[0].code, ReasonCode::SchemaInvalid, "{bad}");
        }
        assert_eq!(with(json!({"keys": ["a"], "as_of_utc": "x"})).unwrap_err().problems[0].code, ReasonCode::AsOfSpecInvalid);
        assert_eq!(refused(|v| v["intent_kind"] = json!("forensic_rebuild")).1, "join_scope.forensic");
        assert_eq!(refused(|v| v["join_scope"]["forensic"] = json!({"keys": ["a"], "as_of_event_id": "e"})).0, ReasonCode::SchemaInvalid);
    }

    #[test]
    fn request_ids_have_a_charset_and_a_length() {
        for id in ["short", &"x".repeat(129), "with/slash", "white space"] {
            assert_eq!(refused(|v| v["request_id"] = json!(id)), (ReasonCode::RequestIdInvalid, "request_id".into()));
        }
        assert_eq!(refused(|v| drop(v.as_object_mut().unwrap().remove("request_id"))).0, ReasonCode::RequestIdInvalid);
    }

    #[test]
    fn every_shape_of_absence_has_the_code_of_its_field() {
        let cases = [
            ("/intent_kind", ReasonCode::IntentKindUnsupported),
            ("/replay_basis", ReasonCode::BasisUnresolved),
            ("/label_basis", ReasonCode::LabelAsofMissing),
            ("/label_basis/label_asof_utc", ReasonCode::LabelAsofMissing),
            ("/label_basis/resolution_rule", ReasonCode::LabelAsofMissing),
            ("/feature_definition_set", ReasonCode::FeatureProfileUnresolved),
            ("/feature_definition_set/feature_set_id", ReasonCode::FeatureProfileUnresolved),
            ("/feature_definition_set/feature_set_version", ReasonCode::FeatureProfileUnresolved),
            ("/run_facts_ref", ReasonCode::RunFactsUnavailable),
            ("/policy_revision", ReasonCode::PolicyRevisionMissing),
            ("/config_revision", ReasonCode::ConfigRevisionMissing),
            ("/ofs_code_release_id", ReasonCode::CodeReleaseMissing),
            ("/schema_version", ReasonCode::SchemaInvalid),
            ("/platform_run_id", ReasonCode::SchemaInvalid),
        ];
        for (pointer, code) in cases {
            for absent in [json!(null), json!(""), json!("  "), json!(5)] {
                assert_eq!(refused(|v| *v.pointer_mut(pointer).unwrap() = absent.clone()).0, code, "{pointer} = {absent}");
            }
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            assert_eq!(refused(|v| drop(v.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key))).0, code, "{pointer} removed");
        }
    }

    #[test]
    fn unknown_fields_are_refused_by_path_and_never_by_text() {
        assert_eq!(refused(|v| v["foo"] = json!(1)), (ReasonCode::SchemaInvalid, "foo".into()));
        assert_eq!(refused(|v| v["my_request_id"] = json!(1)), (ReasonCode::SchemaInvalid, "my_request_id".into()));
        assert_eq!(refused(|v| v["label_basis"]["x"] = json!(1)), (ReasonCode::SchemaInvalid, "label_basis.x".into()));
        assert_eq!(refused(|v| v["replay_basis"][0]["x"] = json!(1)), (ReasonCode::SchemaInvalid, "replay_basis[0].x".into()));
        let twice = sample().to_string().replacen('{', "{\"request_id\":\"another.one\",", 1);
        assert_eq!(parse(twice.as_bytes()).unwrap_err().problems[0].code, ReasonCode::SchemaInvalid);
        for text in ["", "[]", "\"x\"", "{", "null"] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().problems[0].code, ReasonCode::SchemaInvalid);
        }
    }

    #[test]
    fn slices_must_be_concrete_ranges() {
        let slice = |change: fn(&mut Value)| refused(|v| change(&mut v["replay_basis"][0]));
        for (code, _) in [
            slice(|s| s["partition"] = json!(-1)),
            slice(|s| s["partition"] = json!(true)),
            slice(|s| s["start_offset"] = json!(0)),
            slice(|s| s["start_offset"] = json!("-1")),
            slice(|s| {
                s["start_offset"] = json!("5");
                s["end_offset"] = json!("1")
            }),
            slice(|s| s["offset_kind"] = json!("pulsar")),
            slice(|s| s["end_offset"] = json!("9223372036854775808")),
            slice(|s| s["topic"] = json!("../x")),
        ] {
            assert_eq!(code, ReasonCode::BasisUnresolved);
        }
        assert_eq!(refused(|v| v["replay_basis"] = json!([])).0, ReasonCode::BasisUnresolved);
        let mut twin = sample()["replay_basis"][0].clone();
        twin["offset_kind"] = json!("file_line");
        assert_eq!(refused(|v| v["replay_basis"].as_array_mut().unwrap().push(twin)).0, ReasonCode::BasisUnresolved);
    }

    #[test]
    fn overlapping_and_touching_slices_are_merged() {
        let slice = |start: &str, end: &str| json!({"topic": "t", "partition": 0, "offset_kind": "kafka_offset", "start_offset": start, "end_offset": end});
        let mut value = sample();
        value["replay_basis"] = json!([slice("0003", "6"), slice("0", "4"), slice("7", "9"), slice("20", "20")]);
        let intent = parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(intent.basis.iter().map(|s| s.range.to_string()).collect::<Vec<_>>(), ["0-9", "20"]);
    }

    #[test]
    fn cut_offs_rules_and_policies_are_checked_at_admission() {
        assert_eq!(refused(|v| v["label_basis"]["label_asof_utc"] = json!("x")).0, ReasonCode::AsOfSpecInvalid);
        assert_eq!(refused(|v| v["label_basis"]["resolution_rule"] = json!("latest")).0, ReasonCode::RuleNotSupported);
        assert_eq!(refused(|v| v["label_basis"]["maturity_days"] = json!(-1)).0, ReasonCode::LabelPolicyInvalid);
        assert_eq!(refused(|v| v["filters"] = json!({})).0, ReasonCode::LabelTypeScopeUnresolved);
        assert_eq!(
            refused(|v| v["filters"]["label_coverage_policy"] = json!({"max_conflict_ratio": 1.5})).0,
            ReasonCode::LabelPolicyInvalid
        );
        assert_eq!(
            refused(|v| v["filters"]["label_coverage_policy"] = json!({"min_coverage_by_label_type": {"a": "x"}})).0,
            ReasonCode::LabelPolicyInvalid
        );
        assert_eq!(refused(|v| v["filters"]["country"] = json!({"x": 1})).0, ReasonCode::FilterInvalid);
        assert_eq!(refused(|v| v["join_scope"]["subject_key"] = json!("account_id")).0, ReasonCode::SubjectMappingMissing);
    }
}
