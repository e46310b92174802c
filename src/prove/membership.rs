//! `ofs prove M --row`: that one row is a row of a data set, so that whoever holds `index.json` can check it without
//! the data, without this program and without its code: the row in the encoding that `rows_digest` is taken of, its
//! number, and its way up the Merkle tree. `contracts/verify_row.py` is such a checker.

use arrow::array::AsArray;
use serde_json::{Value, json};

use super::dataset::{Opened, batch, open_part};
use crate::contract::ReasonCode;
use crate::digest::hex;
use crate::engine::digest::{Audit, Tree, encoded, leaves, schema_digest};
use crate::pipeline::gate::{Env, Phase, Refusal, document};
use crate::store::Ref;

const PHASE: Phase = Phase::Publication;

/// A row with its way to the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowProof {
    /// The data set.
    pub manifest_id: String,
    /// The event that the row was made of.
    pub event_id: String,
    /// Its number in canonical order, from 0.
    pub number: u64,
    /// Rows of the data set.
    pub rows: u64,
    /// What both lead to.
    pub rows_digest: String,
    /// The row's encoding.
    pub row: Vec<u8>,
    /// The siblings on the way, from the bottom up.
    pub path: Vec<[u8; 32]>,
}

impl RowProof {
    /// `ofs.row_proof.v1`, byte for byte as it is written: canonical, so that no other bytes say the same.
    pub fn document(&self) -> Vec<u8> {
        document(&json!({
            "schema_version": "ofs.row_proof.v1", "manifest_id": self.manifest_id, "event_id": self.event_id, "row_number": self.number, "rows": self.rows,
            "rows_digest": self.rows_digest, "row": hex(&self.row), "path": self.path.iter().map(|h| hex(h)).collect::<Vec<_>>(),
        }))
    }
}

/// Makes the proof of an event's row. Reads every part once and holds a few hashes.
///
/// # Errors
/// `DATASET_NOT_FOUND`, `ROW_NOT_FOUND`, `DIGEST_MISMATCH` where the rows are not those that the index stands for,
/// the store's, `INTERRUPTED`.
pub fn prove(env: &Env, manifest: &Ref, event_id: &str) -> Result<RowProof, Refusal> {
    let opened = Opened::open(env, manifest)?;
    let engine = |e| Refusal::of_engine(PHASE, &e);
    let (mut tree, mut audit, mut row, mut schema) = (Tree::new(), Audit::default(), None, None);
    env.progress.enter(PHASE, opened.parts.len() as u64);
    for part in &opened.parts {
        for rows in open_part(&env.store, part)? {
            env.check(PHASE)?;
            let rows = batch(part, rows)?;
            if schema.is_none() {
                schema = Some(schema_digest(&rows.schema()).map_err(engine)?);
            }
            let ids = rows.column_by_name("event_id").and_then(|c| c.as_string_opt::<i32>());
            if let Some(at) = ids.and_then(|ids| ids.iter().position(|id| id == Some(event_id))).filter(|_| row.is_none()) {
                // Only once it is met: no subtree that holds it has been joined with another before.
                audit.leaf = Some(tree.count() + at as u64);
                row = Some(encoded(&rows, at).map_err(engine)?);
            }
            leaves(&rows).map_err(engine)?.into_iter().for_each(|leaf| tree.push_beside(leaf, &mut audit));
        }
        env.progress.advance(1);
    }
    let of = |key: &str| opened.index.get(key).cloned().unwrap_or_default();
    let (Some(row), Some(schema)) = (row, schema) else {
        let message = format!("{} has no row of event {event_id}", opened.manifest_id);
        return Err(Refusal::new(ReasonCode::RowNotFound, PHASE, message));
    };
    let root = hex(&tree.root_beside(&schema, &mut audit));
    if of("rows_digest") != json!(root) || of("rows") != json!(tree.count()) {
        let message = format!("{manifest}: its rows have the digest {root}, its index says another; `ofs verify` tells what does not hold");
        return Err(Refusal::new(ReasonCode::DigestMismatch, PHASE, message));
    }
    Ok(RowProof {
        manifest_id: opened.manifest_id,
        event_id: event_id.to_owned(),
        number: audit.leaf.unwrap_or_default(),
        rows: tree.count(),
        rows_digest: root,
        row,
        path: audit.path,
    })
}

/// `ofs.prove_row.v1`: where the proof was written, and what it proves.
pub fn told(proof: &RowProof, file: &str) -> Value {
    let bytes = proof.document();
    json!({
        "schema_version": "ofs.prove_row.v1", "manifest_id": proof.manifest_id, "event_id": proof.event_id, "row_number": proof.number, "rows": proof.rows,
        "rows_digest": proof.rows_digest, "file": file, "bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().to_string(),
    })
}
