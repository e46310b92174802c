//! What superseded what (O121, O123): a correction is a data set of its own, and the one that it corrects
//! keeps every byte, so that only the links between them tell which of the two is meant to be used.

use serde_json::{Value, json};

use crate::ledger::{Ledger, RunRow};
use crate::pipeline::gate::Env;
use crate::pipeline::publish::corrections;
use crate::store::{Ref, StoreError};

/// A published data set that corrects another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// The correcting data set.
    pub manifest_id: String,
    /// Its manifest.
    pub manifest_ref: Ref,
    /// Why it was made, as its run said; nothing where the ledger does not know that run.
    pub reason: Option<String>,
}

impl Correction {
    /// As in `ofs show`, `ofs runs` and `ofs verify`.
    pub fn to_json(&self) -> Value {
        json!({"manifest_id": self.manifest_id, "manifest_ref": self.manifest_ref.as_str(), "reason": self.reason})
    }
}

/// The published corrections of a data set, by name of the correction. A link whose data set was never
/// committed counts for nothing: its build was cut off, and may still come.
///
/// # Errors
/// The store's.
pub fn superseded_by(env: &Env, ledger: Option<&Ledger>, run: &str, manifest_id: &str) -> Result<Vec<Correction>, StoreError> {
    let correction = |(new, manifest_ref): (String, Ref)| {
        let reason = ledger.and_then(|l| l.by_manifest(&new).ok()).and_then(|rows| rows.iter().find_map(reason));
        Correction { manifest_id: new, manifest_ref, reason }
    };
    Ok(corrections(env.store.as_ref(), run, manifest_id)?.into_iter().map(correction).collect())
}

/// What a run supersedes, as its request said.
pub fn supersedes(run: &RunRow) -> Vec<String> {
    let list = run.provenance.as_ref().and_then(|p| p.get("supersedes")).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|id| id.as_str().map(str::to_owned)).collect()
}

/// Why a run supersedes anything, as its request said.
pub fn reason(run: &RunRow) -> Option<String> {
    run.provenance.as_ref()?.get("supersede_reason")?.as_str().map(str::to_owned)
}
