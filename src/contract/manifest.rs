//! The DatasetManifest `learning.dataset_manifest.v0`: the commit point. Its shape is closed, so what a
//! data set holds and how it was proved stands in `index.json` beside the parts.

use serde_json::{Value, json};

use super::intent::Intent;
use crate::json::canonical;

/// The schema version of manifests.
pub const SCHEMA_VERSION: &str = "learning.dataset_manifest.v0";

/// The name of a data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetId {
    /// BLAKE3 hex over the identity.
    pub fingerprint: String,
    /// `dm_` and 32 hex.
    pub manifest_id: String,
}

/// The manifest of an identity: a pure function of it, so "already there" is answered by comparing bytes.
pub fn manifest(intent: &Intent, id: &DatasetId) -> Value {
    json!({
        "schema_version": SCHEMA_VERSION, "dataset_manifest_id": id.manifest_id, "dataset_fingerprint": id.fingerprint,
        "platform_run_id": intent.platform_run_id, "scenario_run_ids": intent.scenario_run_ids, "replay_basis": intent.basis_json(),
        "label_basis": intent.label_basis_json(), "feature_definition_set": intent.feature_set_json(),
        "provenance": {"ofs_code_release_id": intent.code_release, "config_revision": intent.config_revision},
    })
}

/// The bytes that are committed: canonical JSON and a line feed.
pub fn manifest_bytes(intent: &Intent, id: &DatasetId) -> Vec<u8> {
    let mut text = canonical(&manifest(intent, id));
    text.push('\n');
    text.into_bytes()
}
