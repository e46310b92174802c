//! The ownership boundary: who may write data-set manifests at all (O016).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Problem, ReasonCode};

#[derive(Deserialize)]
struct Boundaries {
    owners: BTreeMap<String, Owner>,
}

#[derive(Deserialize)]
struct Owner {
    #[serde(default)]
    outputs: Vec<String>,
}

/// Checks that the file grants `owners.ofs` the output `dataset_manifest`.
///
/// # Errors
/// `OWNERSHIP_BOUNDARY_VIOLATION` where it does not, or cannot be read.
pub fn check(text: &str) -> Result<(), Problem> {
    let refuse = |message: String| Problem::new(ReasonCode::OwnershipBoundaryViolation, "owners.ofs", message);
    let boundaries: Boundaries = serde_saphyr::from_str(text)
        .map_err(|e| refuse(format!("not an ownership file: {}", e.to_string().lines().next().unwrap_or_default())))?;
    let owner = boundaries.owners.get("ofs").ok_or_else(|| refuse("the file grants nothing to ofs".into()))?;
    if owner.outputs.iter().any(|o| o == "dataset_manifest") {
        Ok(())
    } else {
        Err(refuse("the outputs of ofs do not list dataset_manifest".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_must_grant_the_manifest() {
        assert!(check("owners:\n  ofs: {outputs: [dataset_manifest]}\n").is_ok());
        for text in [
            "owners:\n  ofs: {outputs: [other]}\n",
            "owners:\n  else: {outputs: [dataset_manifest]}\n",
            "nothing: 1\n",
            "owners:\n  ofs: {}\n",
        ] {
            assert_eq!(check(text).unwrap_err().code, ReasonCode::OwnershipBoundaryViolation, "{text}");
        }
    }
}
