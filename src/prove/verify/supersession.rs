//! The links of a correction, in both directions: what this data set supersedes, and by what it is.

use serde_json::{Value, json};

use super::{Findings, Kind, Place, Stored};
use crate::ledger::{Ledger, RunRow};
use crate::pipeline::gate::Env;
use crate::pipeline::publish::{superseded_by, superseded_folder};
use crate::prove::supersession::{self, Correction};
use crate::store::{Ref, read};

/// Largest link in bytes: two names and a frame.
const LINK_BYTES: u64 = 1 << 16;

/// The run's own link against the publication receipt, which the ledger vouches for.
pub(super) fn check_link(env: &Env, place: &Place, run: &RunRow, receipt: &Stored, findings: &mut Findings) {
    // A receipt without the field is of a release that did not take the digest of the link.
    let Some(stands) = receipt.get("/supersession").filter(|link| link.is_object()) else { return };
    let Ok(at) = Ref::parse(stands.get("ref").and_then(Value::as_str).unwrap_or_default()) else {
        findings.hold(false, &receipt.at, Kind::Receipt, "the ref of a supersession link", "none");
        return;
    };
    let Some(link) = Stored::read(env, at, findings) else { return };
    findings.same(&link.at, Kind::Receipt, "BLAKE3", stands.get("blake3"), Some(&json!(link.blake3)));
    findings.same(&link.at, Kind::Receipt, "supersedes", receipt.get("/supersedes"), link.get("/supersedes"));
    for (field, wanted) in [("/run_key", &run.run_key), ("/dataset_manifest_id", &place.id)] {
        findings.same(&link.at, Kind::Receipt, field, Some(&json!(wanted)), link.get(field));
    }
}

/// The links that lead from every data set that this one corrects to it, and from it to its corrections.
/// Their bytes follow from the two names alone.
pub(super) fn check(env: &Env, ledger: Option<&Ledger>, place: &Place, index: &Stored, findings: &mut Findings) -> Vec<Correction> {
    for old in index.get("/supersedes").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        back_link(env, place, old, &place.id, findings);
    }
    let corrections = match supersession::superseded_by(env, ledger, &place.run, &place.id) {
        Ok(corrections) => corrections,
        Err(e) => {
            findings.store(&superseded_folder(&place.run, &place.id), &e);
            return Vec::new();
        }
    };
    for correction in &corrections {
        back_link(env, place, &place.id, &correction.manifest_id, findings);
    }
    corrections
}

fn back_link(env: &Env, place: &Place, old: &str, new: &str, findings: &mut Findings) {
    let (at, wanted) = superseded_by(&place.run, old, new);
    match read(env.store.as_ref(), &at, LINK_BYTES) {
        Ok(found) => {
            findings.hold(found == wanted, &at, Kind::Receipt, format_args!("the link from {old} to {new}"), "other bytes");
        }
        Err(e) => findings.store(&at, &e),
    }
}
