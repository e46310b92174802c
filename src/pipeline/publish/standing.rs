//! What of a published data set stands: whether it is still what it claims to be, and what a run's own receipt
//! vouches for where its manifest is gone.

use serde_json::Value;

use super::PHASE;
use crate::contract::{ReasonCode, manifest};
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::pin::Pinned;
use crate::store::{ErrorKind, Ref, StoreError, digest, read};

/// Data files of up to so many bytes in all are digested again before a data set is adopted; of more, only
/// the sizes are compared.
const CHEAP: u64 = 64 << 20;
/// Largest receipt or evidence document in bytes.
const DOCUMENT: u64 = 256 << 20;

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn store(error: &StoreError) -> Refusal {
    Refusal::of_store(PHASE, error)
}

fn differs(at: &Ref, stands: &str, named: &str) -> Refusal {
    let message = format!("{at} stands with other content than its index names; nothing is taken over from it");
    Refusal::new(ReasonCode::DatasetArtifactImmutabilityViolation, PHASE, message)
        .with_evidence([format!("stands {stands}"), format!("named {named}")])
}

/// Digests again what a data set that was found rests on: its evidence, and its data files where that is cheap.
///
/// # Errors
/// `DATASET_ARTIFACT_IMMUTABILITY_VIOLATION` where anything is not what the index names; the store's.
pub(super) fn check_whole(pinned: &Pinned, env: &Env, index: &Value) -> Result<(), Refusal> {
    let folder = pinned.dataset_ref();
    let mut wanted: Vec<(Ref, &str)> = ["replay", "labels", "features"]
        .into_iter()
        .map(|name| (folder.join("evidence").join(&format!("{name}.json")), text(index, &format!("/evidence/{name}/blake3"))))
        .collect();
    let files: Vec<&Value> = index.get("files").and_then(Value::as_array).into_iter().flatten().collect();
    let bytes = |file: &Value| file.get("bytes").and_then(Value::as_u64).unwrap_or(u64::MAX);
    if files.iter().fold(0u64, |sum, file| sum.saturating_add(bytes(file))) <= CHEAP {
        let safe = files.iter().filter(|file| crate::contract::path_safe(text(file, "/path")));
        wanted.extend(safe.map(|file| (folder.join(text(file, "/path")), text(file, "/blake3"))));
    }
    for (at, named) in wanted {
        let (stands, _) = digest(env.store.as_ref(), &at).map_err(|e| store(&e))?;
        if stands != named {
            return Err(differs(&at, &stands, named));
        }
    }
    let at = folder.join("evidence/features.json");
    let features = read(env.store.as_ref(), &at, DOCUMENT).map_err(|e| store(&e))?;
    let features: Value = serde_json::from_slice(&features).map_err(|e| differs(&at, &e.to_string(), "a JSON document"))?;
    for key in ["/rows_digest", "/rows"] {
        let (stands, named) = (index.pointer(key), features.pointer(key));
        if stands != named {
            let show = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
            return Err(differs(&folder.join("index.json"), &show(stands), &show(named)));
        }
    }
    Ok(())
}

/// What the publication receipt of a run vouches for.
#[derive(Debug, Clone)]
pub struct Vouched {
    /// BLAKE3 of the index.
    pub(super) index: String,
}

/// Reads the publication receipt of a run whose manifest is gone: it must be the one that the ledger
/// recorded, and speak of the manifest that this identity has.
///
/// # Errors
/// `DATASET_NOT_FOUND` where the receipt is gone as well, `PUBLICATION_RECEIPT_IMMUTABILITY_VIOLATION` where it
/// is not that one; the store's.
pub fn vouched(pinned: &Pinned, env: &Env, recorded: &str) -> Result<Vouched, Refusal> {
    let at = pinned.receipt_ref("publication_receipts");
    let bytes = read(env.store.as_ref(), &at, DOCUMENT).map_err(|e| match e.kind {
        ErrorKind::NotFound => {
            let message = format!("the manifest is gone and so is {at}, which vouches for it; a new request id publishes again");
            Refusal::new(ReasonCode::DatasetNotFound, PHASE, message)
        }
        _ => store(&e),
    })?;
    let other = |message: String, stands: String, wanted: String| {
        Refusal::new(ReasonCode::PublicationReceiptImmutabilityViolation, PHASE, message)
            .with_evidence([format!("stands {stands}"), format!("recorded {wanted}")])
    };
    let stands = blake3::hash(&bytes).to_hex().to_string();
    if stands != recorded {
        return Err(other(format!("{at} is not the receipt that the ledger recorded"), stands, recorded.to_owned()));
    }
    let receipt: Value = serde_json::from_slice(&bytes).map_err(|e| other(format!("{at}: {e}"), stands, recorded.to_owned()))?;
    let made = blake3::hash(&manifest::manifest_bytes(pinned.intent(), pinned.id())).to_hex().to_string();
    let named = text(&receipt, "/manifest/blake3");
    if made != named {
        return Err(other(format!("{at} speaks of another manifest than this identity has"), made, named.to_owned()));
    }
    Ok(Vouched { index: text(&receipt, "/index/blake3").to_owned() })
}
