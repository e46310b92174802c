//! A published data set opened for questions: manifest, index, definition and parts, each held against the
//! digest that names it. Whether everything fits together is what `verify` answers; here it only has to be
//! certain which data set is being read.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use serde_json::Value;

use super::{not_found, verify::Place};
use crate::contract::ReasonCode;
use crate::contract::intent::{self, Intent};
use crate::contract::profile::Group;
use crate::engine::dataset_file::read_part;
use crate::identity;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::store::{ErrorKind, Ref, Store, read};

const PHASE: Phase = Phase::Publication;
/// Largest manifest, index or evidence document in bytes.
const DOCUMENT_BYTES: u64 = 1 << 30;

/// A part: where it lies and what it must be.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) at: Ref,
    pub(crate) bytes: u64,
    pub(crate) blake3: String,
}

/// An opened data set.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) manifest_ref: Ref,
    pub(crate) manifest_id: String,
    pub(crate) run: String,
    pub(crate) index: Value,
    pub(crate) identity: Value,
    pub(crate) intent: Intent,
    pub(crate) group: Group,
    pub(crate) parts: Vec<Part>,
}

/// Bytes that are not those that stand for the data set.
fn altered(at: &Ref, what: impl std::fmt::Display) -> Refusal {
    Refusal::new(ReasonCode::DigestMismatch, PHASE, format!("{at}: {what}; `ofs verify` tells what else does not hold"))
}

fn document(env: &Env, at: &Ref) -> Result<(Value, String), Refusal> {
    let bytes = read(env.store.as_ref(), at, DOCUMENT_BYTES).map_err(|e| Refusal::of_store(PHASE, &e))?;
    let value = serde_json::from_slice(&bytes).map_err(|e| altered(at, e))?;
    Ok((value, blake3::hash(&bytes).to_hex().to_string()))
}

/// The parts that a list of files in an index or a draft names.
pub(crate) fn parts(folder: &Ref, files: Option<&Value>) -> Option<Vec<Part>> {
    let part = |file: &Value| {
        let path = file.get("path")?.as_str().filter(|p| crate::contract::path_safe(p))?;
        Some(Part { at: folder.join(path), bytes: file.get("bytes")?.as_u64()?, blake3: file.get("blake3")?.as_str()?.to_owned() })
    };
    files?.as_array()?.iter().map(part).collect()
}

impl Opened {
    /// Opens the data set of a manifest.
    ///
    /// # Errors
    /// `DATASET_NOT_FOUND`, `DIGEST_MISMATCH` where something that names it was altered, the store's.
    pub(crate) fn open(env: &Env, manifest_ref: &Ref) -> Result<Self, Refusal> {
        let place = Place::of(manifest_ref)
            .ok_or_else(|| not_found(format!("{manifest_ref} is no manifest ref: <run>/ofs/manifests/<id>.json")))?;
        match env.store.size(manifest_ref) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(not_found(format!("{manifest_ref}: no manifest is there"))),
            Err(e) => return Err(Refusal::of_store(PHASE, &e)),
        }
        let folder = place.folder();
        let at = folder.join("index.json");
        let (index, _) = document(env, &at)?;
        let identity = index.get("identity").cloned().unwrap_or_default();
        if identity::dataset_id(&identity).manifest_id != place.id {
            return Err(altered(&at, format_args!("its identity is not that of {}", place.id)));
        }
        let evidence = folder.join("evidence/features.json");
        let (features, blake3) = document(env, &evidence)?;
        if index.pointer("/evidence/features/blake3").and_then(Value::as_str) != Some(&blake3) {
            return Err(altered(&evidence, "it is not the evidence that the index names"));
        }
        let group = features.get("definition").and_then(Group::from_json);
        let digest = identity.pointer("/feature_definition_set/group_digest").and_then(Value::as_str);
        let group = group.filter(|g| Some(g.digest().as_str()) == digest);
        let group = group.ok_or_else(|| altered(&evidence, "its definition is not the one of the identity"))?;
        let intent = intent::of_identity(&identity).ok_or_else(|| altered(&at, "its identity is no identity"))?;
        let parts = parts(&folder, index.get("files")).ok_or_else(|| altered(&at, "its list of files is none"))?;
        Ok(Opened { manifest_ref: manifest_ref.clone(), manifest_id: place.id, run: place.run, index, identity, intent, group, parts })
    }

    /// A part of the identity.
    pub(crate) fn identity(&self, key: &str) -> Value {
        self.identity.get(key).cloned().unwrap_or_default()
    }
}

/// The rows of a part, after its bytes were held against its digest.
///
/// # Errors
/// `DIGEST_MISMATCH`, `STORE_IO`.
pub(crate) fn open_part(store: &Arc<dyn Store>, part: &Part) -> Result<ParquetRecordBatchReader, Refusal> {
    let bytes = read(store.as_ref(), &part.at, part.bytes).map_err(|e| match e.kind {
        ErrorKind::TooLarge => altered(&part.at, "more bytes than the index names"),
        _ => Refusal::of_store(PHASE, &e),
    })?;
    if blake3::hash(&bytes).to_hex().as_str() != part.blake3 {
        return Err(altered(&part.at, "other bytes than the index names"));
    }
    read_part(Bytes::from(bytes)).map_err(|e| altered(&part.at, e))
}

/// A batch that can be read.
///
/// # Errors
/// `DIGEST_MISMATCH` for one that cannot, which a part of the right digest has only by a defect.
pub(crate) fn batch(part: &Part, batch: Result<RecordBatch, arrow::error::ArrowError>) -> Result<RecordBatch, Refusal> {
    batch.map_err(|e| altered(&part.at, e))
}
