//! The manifest by itself, and manifest and index against the identity payload.

use serde_json::{Value, json};

use super::{Findings, Kind, Place, Stored, brief, named_by, texts};
use crate::contract::manifest::SCHEMA_VERSION;
use crate::contract::{Offset, OffsetKind};
use crate::engine::dataset_file::WRITER_REVISION;
use crate::time::Instant;
use crate::{digest, identity};

/// Fields of the manifest; those of its objects follow in [`OBJECTS`].
const FIELDS: [&str; 9] = [
    "dataset_fingerprint",
    "dataset_manifest_id",
    "feature_definition_set",
    "label_basis",
    "platform_run_id",
    "provenance",
    "replay_basis",
    "scenario_run_ids",
    "schema_version",
];

/// Required and optional text fields of the objects in it.
const OBJECTS: [(&str, &[&str], &[&str]); 3] = [
    ("feature_definition_set", &["feature_set_id", "feature_set_version"], &[]),
    ("label_basis", &["label_asof_utc", "resolution_rule"], &["maturity_days"]),
    ("provenance", &["config_revision", "ofs_code_release_id"], &[]),
];

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str).filter(|t| !t.is_empty())
}

/// What of a closed object is wrong: unknown, missing or blank fields.
fn closed(name: &str, value: &Value, required: &[&str], optional: &[&str], wrong: &mut Vec<String>) {
    let Some(map) = value.as_object() else {
        wrong.push(format!("{name} is no object"));
        return;
    };
    wrong.extend(map.keys().filter(|k| !required.contains(&k.as_str()) && !optional.contains(&k.as_str())).map(|k| format!("{name}.{k}")));
    wrong.extend(required.iter().filter(|k| text(value, k).is_none()).map(|k| format!("{name}.{k} is no text")));
}

/// Every slice closed, in normal form, sorted, and not touching the one before.
fn basis(value: &Value, wrong: &mut Vec<String>) {
    let slices = value.as_array().filter(|list| !list.is_empty());
    let mut before = None;
    for (at, slice) in slices.into_iter().flatten().enumerate() {
        let offset = |key: &str| text(slice, key).and_then(|t| Offset::parse(t).filter(|o| o.to_string() == t));
        let partition = slice.get("partition").and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok()).filter(|n| *n >= 0);
        let kind = text(slice, "offset_kind").and_then(OffsetKind::parse);
        let (Some(topic), Some(partition), Some(kind)) = (text(slice, "topic"), partition, kind) else {
            wrong.push(format!("replay_basis[{at}] names no partition"));
            continue;
        };
        let (Some(start), Some(end), Some(5)) = (offset("start_offset"), offset("end_offset"), slice.as_object().map(|m| m.len())) else {
            wrong.push(format!("replay_basis[{at}] has offsets in no normal form or unknown fields"));
            continue;
        };
        let lane = (topic, partition, kind);
        let apart = before.is_none_or(|(other, last): (_, Offset)| other < lane || (other == lane && last.next() < start));
        if start > end || !apart {
            wrong.push(format!("replay_basis[{at}] is not sorted and merged"));
        }
        before = Some((lane, end));
    }
    if slices.is_none() {
        wrong.push("replay_basis is no list of slices".into());
    }
}

/// Everything about a manifest that is not `learning.dataset_manifest.v0` in normal form.
fn shape(manifest: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let field = |key: &str| manifest.get(key).unwrap_or(&Value::Null);
    match manifest.as_object() {
        None => wrong.push("no object".into()),
        Some(map) => wrong.extend(map.keys().filter(|k| !FIELDS.contains(&k.as_str())).map(|k| format!("unknown field {k}"))),
    }
    if text(manifest, "schema_version") != Some(SCHEMA_VERSION) {
        wrong.push(format!("schema_version {}", brief(manifest.get("schema_version"))));
    }
    wrong.extend(
        ["dataset_fingerprint", "dataset_manifest_id", "platform_run_id"]
            .iter()
            .filter(|k| text(manifest, k).is_none())
            .map(|k| format!("{k} is no text")),
    );
    for (name, required, optional) in OBJECTS {
        closed(name, field(name), required, optional, &mut wrong);
    }
    let asof = text(field("label_basis"), "label_asof_utc");
    if !asof.is_some_and(|t| Instant::parse(t).is_ok_and(|i| i.to_string() == t)) {
        wrong.push("label_basis.label_asof_utc is no instant in normal form".into());
    }
    if field("label_basis").get("maturity_days").is_some_and(|d| d.as_u64().is_none()) {
        wrong.push("label_basis.maturity_days is no whole number".into());
    }
    let scenarios: Option<Vec<&str>> = field("scenario_run_ids").as_array().and_then(|list| list.iter().map(Value::as_str).collect());
    if !scenarios.is_some_and(|list| list.is_sorted_by(|a, b| a < b)) {
        wrong.push("scenario_run_ids is no sorted list of unique texts".into());
    }
    basis(field("replay_basis"), &mut wrong);
    wrong
}

/// The manifest by itself: shape, and names that are functions of what they name.
pub(super) fn check(place: &Place, manifest: &Stored, findings: &mut Findings) {
    let wrong = shape(&manifest.value);
    findings.hold(wrong.is_empty(), &manifest.at, Kind::Shape, "learning.dataset_manifest.v0 in normal form", wrong.join("; "));
    let (id, run) = (manifest.text("/dataset_manifest_id"), manifest.text("/platform_run_id"));
    let derived = identity::manifest_id(manifest.text("/dataset_fingerprint"));
    findings.hold(derived == id, &manifest.at, Kind::Name, format_args!("{derived}, from its fingerprint"), id);
    findings.hold(place.id == id, &manifest.at, Kind::Name, format_args!("a file named {id}.json"), format_args!("{}.json", place.id));
    findings.hold(place.run == run, &manifest.at, Kind::Name, format_args!("a place below {run}"), &place.run);
}

/// Manifest and index against the identity payload that the index carries.
pub(super) fn check_identity(place: &Place, manifest: &Stored, index: &Stored, findings: &mut Findings) {
    let (payload, id) = named_by(index);
    let part = |key: &str| payload.get(key).cloned().unwrap_or(Value::Null);
    findings.hold(
        id.manifest_id == place.id,
        &index.at,
        Kind::Identity,
        format_args!("an identity that is named {}", place.id),
        &id.manifest_id,
    );
    let set = part("feature_definition_set");
    let expected = json!({
        "schema_version": SCHEMA_VERSION, "dataset_manifest_id": id.manifest_id, "dataset_fingerprint": id.fingerprint,
        "platform_run_id": part("platform_run_id"), "scenario_run_ids": part("scenario_run_ids"), "replay_basis": part("replay_basis"),
        "label_basis": part("label_basis"),
        "feature_definition_set": {"feature_set_id": set.get("feature_set_id"), "feature_set_version": set.get("feature_set_version")},
        "provenance": {"ofs_code_release_id": part("ofs_code_release_id"), "config_revision": part("config_revision")},
    });
    for field in FIELDS {
        findings.same(&manifest.at, Kind::Identity, field, expected.get(field), manifest.value.get(field));
    }
    let training = part("training");
    let folder = if training == json!(true) { "manifests" } else { "manifests_nontraining" };
    findings.hold(training == json!(place.training), &manifest.at, Kind::Name, format_args!("folder {folder}"), "the other folder");
    let superseded = texts(index.get("/supersedes"));
    let derived = json!({
        "schema_version": "ofs.dataset_index.v1", "manifest_id": id.manifest_id, "fingerprint": id.fingerprint, "training": training,
        "plan_id": identity::plan_id(&payload), "basis_hash": digest::recipe_digest("ofs.replay_basis.v1", &part("replay_basis")),
        "sampling": null, "anchor_mode": "per_event", "label_posture": "KNEW_THEN", "supersedes": superseded,
    });
    for (field, value) in derived.as_object().into_iter().flatten() {
        findings.same(&index.at, Kind::Identity, field, Some(value), index.value.get(field));
    }
    let stamp = identity::correction_stamp(&superseded);
    findings.same(&index.at, Kind::Identity, "correction_stamp", Some(&stamp), payload.get("correction_stamp"));
    // Another revision is lawful; its rows decide, and they are digested below.
    findings.hold(
        !index.text("/writer_revision").is_empty(),
        &index.at,
        Kind::Shape,
        format_args!("a writer revision, like {WRITER_REVISION}"),
        brief(index.get("/writer_revision")),
    );
}
