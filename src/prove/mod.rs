//! Read-only questions about what was published. Nothing here writes, and no answer rests on one
//! witness alone: parts, index, evidence, receipts and ledger are held against each other.

pub(crate) mod dataset;
pub mod diff;
pub mod explain;
pub mod membership;
pub mod noninterference;
mod reprove;
mod rows;
pub mod supersession;
pub mod verify;

pub use rows::first_rows;

use crate::contract::{ReasonCode, path_safe};
use crate::ledger::Ledger;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::store::Ref;

/// Where manifests lie, with whether that folder is for training data sets.
pub const MANIFEST_FOLDERS: [(&str, bool); 2] = [("manifests", true), ("manifests_nontraining", false)];

/// `DATASET_NOT_FOUND` with its words.
fn not_found(message: impl Into<String>) -> Refusal {
    Refusal::new(ReasonCode::DatasetNotFound, Phase::Publication, message)
}

/// The manifest that is meant: a ref, or a bare id, which is looked up in the ledger and then under the
/// active run of the configuration.
///
/// # Errors
/// `DATASET_NOT_FOUND` where the id is known to neither, or the text is no ref; the store's and the ledger's.
pub fn find_manifest(env: &Env, ledger: Option<&Ledger>, given: &str) -> Result<Ref, Refusal> {
    if given.contains('/') {
        // A path as a shell completes it is taken as the ref that it stands for.
        let path = env.store_root.as_deref().and_then(|root| {
            let real = std::path::Path::new(given).canonicalize().ok()?;
            real.strip_prefix(root).ok()?.to_str().map(str::to_owned)
        });
        let at = Ref::parse(given).ok().filter(|at| matches!(env.store.size(at), Ok(Some(_))));
        return match (at, path) {
            (Some(at), _) => Ok(at),
            (None, Some(path)) => Ref::parse(&path).map_err(|e| not_found(e.to_string())),
            (None, None) => Ref::parse(given).map_err(|e| not_found(e.to_string())),
        };
    }
    if !path_safe(given) {
        return Err(not_found(format!("`{given}` is neither a manifest ref nor the id of a data set")));
    }
    if let Some(ledger) = ledger {
        let rows = ledger.by_manifest(given).map_err(|e| Refusal::new(e.code(), Phase::Ledger, e.to_string()))?;
        if let Some(at) = rows.iter().filter_map(|row| row.manifest_ref.as_deref()).find_map(|text| Ref::parse(text).ok()) {
            return Ok(at);
        }
    }
    let active = env.config.text("workspace", "platform_run_id");
    if path_safe(active) {
        for (folder, _) in MANIFEST_FOLDERS {
            let at = Ref::of(&[active, "ofs", folder, &format!("{given}.json")]);
            if env.store.size(&at).map_err(|e| Refusal::of_store(Phase::Publication, &e))?.is_some() {
                return Ok(at);
            }
        }
    }
    let under = if active.is_empty() { "no active run is configured".to_owned() } else { format!("{active} holds none either") };
    Err(not_found(format!("the ledger knows no published data set {given}, and {under}; give the ref: <run>/ofs/manifests/{given}.json")))
}
