//! The evidence of a data set: each document against its digest, and all of them against the index, the
//! identity and each other.

use serde_json::{Value, json};

use super::rows::Outcome;
use super::{Findings, Kind, Place, Stored, brief, named_by};
use crate::digest;
use crate::pipeline::gate::Env;

/// The proofs that a data set rests on.
pub(super) const NAMES: [&str; 3] = ["features", "labels", "replay"];

/// The documents, where they are there.
pub(super) struct Proofs {
    pub(super) features: Option<Stored>,
    pub(super) labels: Option<Stored>,
    pub(super) replay: Option<Stored>,
}

/// Fields of the index that repeat a field of the feature or label proof.
const COPIES: [(&str, &str); 11] = [
    ("/rows", "/rows"),
    ("/rows_digest", "/rows_digest"),
    ("/schema", "/schema"),
    ("/writer_revision", "/writer_revision"),
    ("/anchor_mode", "/anchor_mode"),
    ("/feature_availability", "/feature_availability"),
    ("/rows_using_later_arrivals", "/rows_using_later_arrivals"),
    ("/row_order", "/row_order"),
    ("/dropped", "/dropped"),
    ("/redelivered_events", "/redelivered_events"),
    ("/delivered_events", "/delivered_events"),
];

/// Reads the three documents and holds them against the index and each other.
pub(super) fn check(env: &Env, place: &Place, index: &Stored, findings: &mut Findings) -> Proofs {
    let names: Vec<&str> =
        index.get("/evidence").and_then(Value::as_object).map(|m| m.keys().map(String::as_str).collect()).unwrap_or_default();
    findings.hold(names == NAMES, &index.at, Kind::Shape, format_args!("evidence {}", NAMES.join(", ")), names.join(", "));
    let mut read = |name: &str| {
        let at = place.folder().join(&format!("evidence/{name}.json"));
        let stands = index.text(&format!("/evidence/{name}/ref"));
        findings.hold(stands == at.as_str(), &index.at, Kind::Shape, format_args!("evidence {at}"), stands);
        let stored = Stored::read(env, at, findings)?;
        let wanted = index.text(&format!("/evidence/{name}/blake3"));
        findings.hold(stored.blake3 == wanted, &stored.at, Kind::Digest, wanted, &stored.blake3);
        Some(stored)
    };
    let proofs = Proofs { features: read("features"), labels: read("labels"), replay: read("replay") };
    let (identity, id) = named_by(index);
    if let Some(features) = &proofs.features {
        check_features(index, &identity, features, findings);
    }
    if let Some(labels) = &proofs.labels {
        check_labels(index, &identity, labels, findings);
    }
    if let Some(replay) = &proofs.replay {
        check_replay(index, &identity, &id.fingerprint, replay, findings);
    }
    proofs
}

fn check_features(index: &Stored, identity: &Value, features: &Stored, findings: &mut Findings) {
    let kind = Kind::Evidence;
    for (there, here) in COPIES {
        findings.same(&features.at, kind, here, index.get(there), features.get(here));
    }
    let intervals = json!({"offsets": "closed", "windows": features.get("/window_interval")});
    findings.same(&index.at, kind, "intervals", Some(&intervals), index.get("/intervals"));
    let set = identity.get("feature_definition_set");
    findings.same(&features.at, kind, "feature_definition_set", set, features.get("/feature_definition_set"));
    let definition = features.get("/definition").unwrap_or(&Value::Null);
    let digest = json!(digest::recipe_digest("ofs.feature_group.v1", definition));
    findings.same(&features.at, kind, "digest of the definition", set.and_then(|s| s.get("group_digest")), Some(&digest));
    // A definition that does not say otherwise counts events by their time alone.
    let availability = definition.get("availability").cloned().unwrap_or_else(|| json!("event_time"));
    findings.same(&features.at, kind, "feature_availability", Some(&availability), features.get("/feature_availability"));
    findings.same(&features.at, kind, "schema_version", Some(&json!("ofs.feature_proof.v1")), features.get("/schema_version"));
}

fn check_labels(index: &Stored, identity: &Value, labels: &Stored, findings: &mut Findings) {
    let kind = Kind::Evidence;
    findings.same(&labels.at, kind, "label_basis", identity.get("label_basis"), labels.get("/label_basis"));
    for (there, here) in [("/rows", "/rows"), ("/label_coverage", "/types"), ("/label_gate", "/gate"), ("/label_posture", "/label_posture")]
    {
        findings.same(&labels.at, kind, here, index.get(there), labels.get(here));
    }
    let rule = identity.pointer("/label_basis/resolution_rule");
    findings.same(&labels.at, kind, "resolution_rule", rule, labels.get("/resolution_rule"));
    if identity.get("training") == Some(&json!(true)) {
        findings.same(&labels.at, kind, "training data needs a gate that is ready:", Some(&json!(true)), labels.get("/gate/ready"));
    }
    findings.same(&labels.at, kind, "schema_version", Some(&json!("ofs.label_proof.v1")), labels.get("/schema_version"));
}

fn check_replay(index: &Stored, identity: &Value, fingerprint: &str, replay: &Stored, findings: &mut Findings) {
    let kind = Kind::Evidence;
    findings.same(&replay.at, kind, "schema_version", Some(&json!("ofs.replay_proof.v1")), replay.get("/schema_version"));
    findings.same(&replay.at, kind, "status", Some(&json!("COMPLETE")), replay.get("/status"));
    findings.same(&replay.at, kind, "offset_interval", Some(&json!("closed")), replay.get("/offset_interval"));
    findings.same(&replay.at, kind, "basis_hash", index.get("/basis_hash"), replay.get("/basis_hash"));
    let lanes = replay.get("/lanes").cloned().unwrap_or(Value::Null);
    let (mut slices, mut ids, mut wanted_ids, mut events) = (Vec::new(), Vec::new(), Vec::new(), 0u64);
    for lane in lanes.as_array().into_iter().flatten() {
        let of = |key: &str| lane.get(key).cloned().unwrap_or(Value::Null);
        events = events.saturating_add(of("events").as_u64().unwrap_or(0));
        for slice in lane.get("slices").and_then(Value::as_array).into_iter().flatten() {
            let at = |key: &str| slice.get(key).cloned().unwrap_or(Value::Null);
            let (start, end) = (at("start_offset"), at("end_offset"));
            let place = json!([fingerprint, of("topic"), of("partition"), of("offset_kind"), start, end]);
            let digest = digest::recipe_digest("ofs.slice.v1", &place);
            wanted_ids.push(json!(digest.chars().take(32).collect::<String>()));
            ids.push(at("slice_id"));
            slices.push(json!({"topic": of("topic"), "partition": of("partition"), "offset_kind": of("offset_kind"), "start_offset": start, "end_offset": end}));
        }
    }
    findings.same(&replay.at, kind, "slices", identity.get("replay_basis"), Some(&Value::Array(slices)));
    findings.same(&replay.at, kind, "slice ids", Some(&Value::Array(wanted_ids)), Some(&Value::Array(ids)));
    let sequence = json!(digest::recipe_digest("ofs.delivered_sequence.v1", &lanes));
    findings.same(&replay.at, kind, "delivered_sequence_digest", Some(&sequence), replay.get("/delivered_sequence_digest"));
    findings.same(&replay.at, kind, "events", Some(&json!(events)), replay.get("/events"));
    findings.same(&replay.at, kind, "delivered events", index.get("/delivered_events"), replay.get("/events"));
}

/// What the rows themselves say, against the evidence and the index.
pub(super) fn check_rows(index: &Stored, proofs: &Proofs, outcome: &Outcome, findings: &mut Findings) {
    // Parts that could not be read are problems already, and leave nothing to compare.
    let Some(read) = &outcome.read else { return };
    findings.same(&index.at, Kind::Rows, "rows", index.get("/rows"), Some(&json!(outcome.rows)));
    findings.same(&index.at, Kind::RowsDigest, "rows_digest", index.get("/rows_digest"), Some(&json!(read.rows_digest)));
    if let Some(features) = &proofs.features {
        findings.same(&features.at, Kind::Schema, "schema_digest", features.get("/schema_digest"), Some(&json!(read.schema_digest)));
        let list = json!(digest::recipe_digest("ofs.feature_list.v1", &json!(read.features)));
        findings.same(&features.at, Kind::Schema, "feature_list_digest", features.get("/feature_list_digest"), Some(&list));
        for (field, stamp) in [("/min_ts_utc", read.range.0), ("/max_ts_utc", read.range.1)] {
            findings.same(&features.at, Kind::Rows, field, features.get(field), Some(&json!(stamp)));
        }
    }
    let Some(labels) = &proofs.labels else { return };
    for (at, counts) in read.labels.iter().enumerate() {
        let name = labels.text(&format!("/types/{at}/label_type")).to_owned();
        for (field, count) in ["resolved", "conflict", "not_found"].iter().zip(counts) {
            let stands = labels.get(&format!("/types/{at}/{field}"));
            let holds = stands.and_then(Value::as_u64) == Some(*count);
            findings.hold(holds, &labels.at, Kind::Evidence, format_args!("{name} {field} {count}, as in the rows"), brief(stands));
        }
    }
}
