//! An in-toto Statement v1 with the SLSA provenance v1 predicate: the files of the data set by digest, what asked for
//! them, and what they were made of. It is not signed; what vouches for the data set is the ledger.

use serde_json::{Value, json};

use super::subject::{Role, Subject};
use super::{EXPORT_REVISION, pretty};

/// What a subject is, so that a reader may tell index and manifest from data.
fn annotation(role: Role) -> &'static str {
    match role {
        Role::Manifest => "manifest",
        Role::Index => "index",
        Role::Evidence => "evidence",
        Role::Part => "rows",
    }
}

/// The document.
pub(super) fn render(subject: &Subject) -> String {
    let subjects: Vec<Value> = subject
        .files
        .iter()
        .map(|f| json!({"name": f.at.as_str(), "digest": {"sha256": f.sha256, "blake3": f.blake3}, "annotations": {"role": annotation(f.role), "bytes": f.bytes.to_string()}}))
        .collect();
    pretty(&json!({
        "_type": "https://in-toto.io/Statement/v1", "subject": subjects, "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:ofs:build:offline-feature-dataset:v1",
                "externalParameters": subject.opened.identity,
                "internalParameters": {
                    "rows": subject.number("/rows").to_string(), "rows_digest": subject.text("/rows_digest"), "basis_hash": subject.text("/basis_hash"),
                    "plan_id": subject.text("/plan_id"), "dataset_fingerprint": subject.text("/fingerprint"), "writer_revision": subject.text("/writer_revision"),
                    "export_revision": EXPORT_REVISION,
                },
                "resolvedDependencies": materials(subject),
            },
            "runDetails": {
                "builder": {"id": "urn:ofs:builder", "version": {"ofs_code_release_id": subject.opened.intent.code_release, "writer_revision": subject.text("/writer_revision")}},
                "metadata": {"invocationId": format!("urn:ofs:{}:{}", subject.opened.run, subject.text("/plan_id"))},
            },
        },
    }))
}

/// What the data set was made of. The digests are those of the proofs: of the delivered sequence of (offset, payload
/// hash), of the selected labels, and of definition and vocabulary in normal form.
fn materials(subject: &Subject) -> Vec<Value> {
    let run = &subject.opened.run;
    let mut all = Vec::new();
    for lane in subject.lanes() {
        let slices: Vec<Value> = lane.slices().into_iter().map(|(start, end)| json!({"start_offset": start, "end_offset": end})).collect();
        all.push(json!({
            "name": format!("events of {}", lane.name()),
            "uri": format!("urn:ofs:{run}:events:{}:{}", urn_safe(&lane.text("topic")), lane.text("partition")),
            "digest": {"ofsSequenceBlake3": lane.text("sequence_digest")},
            "annotations": {"offset_kind": lane.text("offset_kind"), "events": lane.events().to_string(), "slices": slices},
        }));
    }
    all.push(json!({
        "name": "label assertions as known at the cut-off", "uri": format!("urn:ofs:{run}:labels"),
        "digest": {"ofsSelectionBlake3": subject.labels.get("selection_digest").cloned().unwrap_or_default()},
        "annotations": {"label_asof_utc": subject.opened.intent.labels.asof, "label_types": subject.opened.intent.label_types},
    }));
    let identity = |pointer: &str| subject.opened.identity.pointer(pointer).cloned().unwrap_or_default();
    all.push(json!({
        "name": format!("feature definition {}", subject.feature_set()), "uri": format!("urn:ofs:{run}:features:{}", urn_safe(&subject.feature_set())),
        "digest": {"ofsDefinitionBlake3": identity("/feature_definition_set/group_digest")},
    }));
    all.push(json!({
        "name": "label vocabulary", "uri": format!("urn:ofs:{run}:label-vocabulary"), "digest": {"ofsDefinitionBlake3": identity("/label_vocabulary_digest")},
    }));
    all
}

/// A name as a URN may have it.
pub(super) fn urn_safe(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'@' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
