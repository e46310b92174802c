//! Reads a document field by field, and notes every problem with its path and code.

use serde_json::{Map, Value};

use super::{
    AsOf, CoveragePolicy, ForensicScope, Intent, IntentKind, LabelBasis, Lane, OffsetRange, RESOLUTION_RULE, RowFilter, SCHEMA_VERSION,
    Slice, merge, request_id_valid,
};
use crate::contract::decimal::Ratio;
use crate::contract::{Offset, OffsetKind, Problem, ReasonCode, path_safe};
use crate::json::{self, Item};
use crate::time::Instant;

/// Most slices in one basis.
const MAX_SLICES: usize = 65_536;

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

/// What was found wrong so far.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn problem(&mut self, code: ReasonCode, path: &str, message: impl Into<String>) {
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

    pub(super) fn intent(&mut self, root: Item<'_>) -> Option<Intent> {
        use ReasonCode as C;
        let version = self.text(root, "schema_version", "", C::SchemaInvalid);
        if version.as_deref().is_some_and(|v| v != SCHEMA_VERSION) {
            self.problem(C::SchemaInvalid, "schema_version", format!("expected `{SCHEMA_VERSION}`"));
        }
        let request_id = self.request_id(root);
        let kind = self.kind(root);
        let platform_run_id = self.platform_run_id(root);
        let scenario_run_ids = self.scenarios(root);
        let basis = self.basis(root);
        let labels = self.label_basis(root);
        let features = self.features(root);
        let join_scope = self.object(root, "join_scope", C::SchemaInvalid, false).map(object_of).unwrap_or_default();
        let filters = self.object(root, "filters", C::SchemaInvalid, false).map(object_of).unwrap_or_default();
        let run_facts_ref = self.text(root, "run_facts_ref", "", C::RunFactsUnavailable);
        let policy_revision = self.text(root, "policy_revision", "", C::PolicyRevisionMissing);
        let config_revision = self.text(root, "config_revision", "", C::ConfigRevisionMissing);
        let code_release = self.text(root, "ofs_code_release_id", "", C::CodeReleaseMissing);
        let parity_anchor_ref =
            if root.get("parity_anchor_ref").is_some() { self.text(root, "parity_anchor_ref", "", C::ParityAnchorInvalid) } else { None };
        let non_training_allowed = self.flag(root, "non_training_allowed");
        self.closed(root, "", &FIELDS);
        let scope = self.scope(&join_scope, &filters, kind);
        self.maturity(root, &scope.coverage);
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

    fn platform_run_id(&mut self, root: Item<'_>) -> Option<String> {
        let id = self.text(root, "platform_run_id", "", ReasonCode::SchemaInvalid);
        if id.as_deref().is_some_and(|id| !path_safe(id)) {
            let wanted = "expected letters, digits and `_ . : -`, since it names a folder of the store";
            self.problem(ReasonCode::SchemaInvalid, "platform_run_id", wanted);
        }
        id
    }

    /// Id and version of the feature definitions.
    fn features(&mut self, root: Item<'_>) -> Option<(Option<String>, Option<String>)> {
        const CODE: ReasonCode = ReasonCode::FeatureProfileUnresolved;
        let set = self.object(root, "feature_definition_set", CODE, true)?;
        let id = self.text(set, "feature_set_id", "feature_definition_set", CODE);
        let version = self.text(set, "feature_set_version", "feature_definition_set", CODE);
        self.closed(set, "feature_definition_set", &["feature_set_id", "feature_set_version"]);
        Some((id, version))
    }

    /// True only where it is said.
    fn flag(&mut self, root: Item<'_>, key: &str) -> bool {
        let Some(item) = root.get(key) else { return false };
        let said = item.bool();
        if said.is_none() {
            self.problem(ReasonCode::SchemaInvalid, key, format!("expected true or false, found {}", item.kind()));
        }
        said.unwrap_or(false)
    }

    /// Without days every row up to the cut-off is mature, and a least ratio of mature rows would hold nothing back.
    fn maturity(&mut self, root: Item<'_>, coverage: &CoveragePolicy) {
        let matures = root.get("label_basis").and_then(|basis| basis.get("maturity_days")).is_some();
        if coverage.min_mature.is_some() && !matures {
            let path = "filters.label_coverage_policy.min_mature_ratio";
            self.problem(ReasonCode::LabelPolicyInvalid, path, "needs label_basis.maturity_days, which says when a row is mature");
        }
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
