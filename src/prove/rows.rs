//! The first rows of a published data set: what a person chooses from who wants one of them explained.

use super::dataset::Opened;
use super::diff::{RowRef, open_rows};
use crate::pipeline::gate::{Env, Refusal};
use crate::store::Ref;

/// The first `limit` rows, in canonical order. Reads only.
///
/// # Errors
/// `DATASET_NOT_FOUND`, `DIGEST_MISMATCH` where what names the data set was altered, the store's, `INTERRUPTED`.
pub fn first_rows(env: &Env, manifest: &Ref, limit: usize) -> Result<Vec<RowRef>, Refusal> {
    let mut side = open_rows(env, &env.store, Opened::open(env, manifest)?.parts)?;
    let mut rows = Vec::new();
    while rows.len() < limit {
        let Some(row) = side.row() else { break };
        rows.push(row.reference());
        side.advance()?;
    }
    Ok(rows)
}
