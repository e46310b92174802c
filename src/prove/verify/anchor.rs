//! What vouches for a data set from outside it: the receipts of the runs that published it, and the
//! ledger, whose chain of events holds the digests of those receipts.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::evidence::Proofs;
use super::{Findings, Kind, Place, Stored, supersession};
use crate::digest;
use crate::ledger::{EventRow, Ledger, RUN_DONE, RUN_DONE_LATE, RunRow};
use crate::pipeline::gate::Env;
use crate::store::Ref;

/// The runs that resolved to this data set; a ledger that cannot be asked is a problem.
fn runs(ledger: &Ledger, place: &Place, findings: &mut Findings) -> Vec<RunRow> {
    ledger.by_manifest(&place.id).unwrap_or_else(|e| {
        findings.hold(false, "ledger", Kind::Ledger, "a ledger that can be read", e);
        Vec::new()
    })
}

fn events(ledger: &Ledger, run: &RunRow, findings: &mut Findings) -> Vec<EventRow> {
    ledger.events(&run.run_key, 0).unwrap_or_else(|e| {
        findings.hold(false, ledger_place(run), Kind::Ledger, "events that can be read", e);
        Vec::new()
    })
}

fn ledger_place(run: &RunRow) -> String {
    format!("ledger run {}", run.run_key)
}

fn end(events: &[EventRow]) -> Option<&EventRow> {
    events.iter().rev().find(|e| e.event_type == RUN_DONE || e.event_type == RUN_DONE_LATE)
}

/// Whether some finished run of the ledger vouches for manifest and index. Every one that it knows is
/// checked: a second run that adopted a changed index shows here.
pub(super) fn check(
    env: &Env,
    ledger: Option<&Ledger>,
    place: &Place,
    manifest: &Stored,
    index: Option<&Stored>,
    findings: &mut Findings,
) -> bool {
    let expected = "a finished run in the ledger that holds the digest of the publication receipt";
    let Some(ledger) = ledger else {
        findings.hold(false, &manifest.at, Kind::Unanchored, expected, "no ledger");
        return false;
    };
    let (mut finished, mut anchored) = (0, true);
    for run in runs(ledger, place, findings) {
        let before = findings.problems.len();
        match ledger.verify_chain(&run.run_key) {
            Ok(broken) => {
                findings.hold(broken.is_empty(), ledger_place(&run), Kind::Chain, "an unbroken chain of events", broken.join("; "));
            }
            Err(e) => {
                findings.hold(false, ledger_place(&run), Kind::Ledger, "a run that can be read", e);
            }
        }
        let events = events(ledger, &run, findings);
        if let Some(done) = end(&events) {
            finished += 1;
            publication(env, place, &run, done, manifest, index, findings);
        }
        anchored &= findings.problems.len() == before;
    }
    let found = format!("{finished} such run(s)");
    findings.hold(finished > 0, &manifest.at, Kind::Unanchored, expected, found) && anchored && index.is_some()
}

/// The publication receipt of a run against the ledger's event, the manifest and the index.
fn publication(
    env: &Env,
    place: &Place,
    run: &RunRow,
    done: &EventRow,
    manifest: &Stored,
    index: Option<&Stored>,
    findings: &mut Findings,
) {
    let at = Ref::of(&[&place.run, "ofs", "publication_receipts", &format!("{}.json", run.run_key)]);
    let detail = |key: &str| done.detail.get(key);
    findings.same(ledger_place(run), Kind::Ledger, "manifest", Some(&json!(manifest.at.as_str())), detail("manifest_ref"));
    findings.same(ledger_place(run), Kind::Ledger, "receipt", Some(&json!(at.as_str())), detail("receipt_ref"));
    let Some(receipt) = Stored::read(env, at, findings) else { return };
    let stands = json!(receipt.blake3);
    findings.same(&receipt.at, Kind::Receipt, "BLAKE3", detail("receipt_blake3"), Some(&stands));
    let wanted = [
        ("/run_key", json!(run.run_key)),
        ("/platform_run_id", json!(place.run)),
        ("/dataset_manifest_id", json!(place.id)),
        ("/dataset_fingerprint", manifest.get("/dataset_fingerprint").cloned().unwrap_or_default()),
        ("/training_intent", json!(place.training)),
        ("/manifest", json!({"ref": manifest.at.as_str(), "blake3": manifest.blake3})),
    ];
    for (field, value) in wanted {
        findings.same(&receipt.at, Kind::Receipt, field, Some(&value), receipt.get(field));
    }
    supersession::check_link(env, place, run, &receipt, findings);
    if let Some(index) = index {
        let stands = json!({"ref": index.at.as_str(), "blake3": index.blake3});
        findings.same(&index.at, Kind::Receipt, "index", receipt.get("/index"), Some(&stands));
        for field in ["/rows", "/rows_digest"] {
            findings.same(&receipt.at, Kind::Receipt, field, index.get(field), receipt.get(field));
        }
    }
}

/// What the chain of events vouches for besides the publication: the receipts of the gates that a run
/// passed, whether or not it came to its end, the proofs in them, and what refused gates had found.
pub(super) fn check_receipts(env: &Env, ledger: Option<&Ledger>, place: &Place, proofs: &Proofs, findings: &mut Findings) {
    let Some(ledger) = ledger else { return };
    for run in ledger.by_manifest(&place.id).unwrap_or_default() {
        let events = ledger.events(&run.run_key, 0).unwrap_or_default();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for event in events.iter().rev() {
            let passed = (event.event_type == "GATE_PASSED").then(|| event.detail.get("evidence")).flatten();
            let passed = passed.map(|e| (e.get("receipt_ref"), e.get("receipt_blake3")));
            let found = event.detail.get("artifacts").and_then(Value::as_array).into_iter().flatten();
            for (at, blake3) in passed.into_iter().chain(found.map(|a| (a.get("ref"), a.get("blake3")))) {
                let at = at.and_then(Value::as_str).unwrap_or_default();
                // The receipt of a publication is checked with the event that ends the run.
                if !at.contains("/publication_receipts/") && seen.insert(at) {
                    recorded(env, &run, at, blake3, proofs, findings);
                }
            }
        }
    }
}

/// One document whose digest an event holds.
fn recorded(env: &Env, run: &RunRow, at: &str, blake3: Option<&Value>, proofs: &Proofs, findings: &mut Findings) {
    let Ok(at) = Ref::parse(at) else {
        findings.hold(false, ledger_place(run), Kind::Ledger, "the ref of a receipt", at);
        return;
    };
    let Some(receipt) = Stored::read(env, at, findings) else { return };
    findings.same(&receipt.at, Kind::Receipt, "BLAKE3", blake3, Some(&json!(receipt.blake3)));
    let folders = [("replay_completeness", &proofs.replay), ("label_resolution", &proofs.labels), ("dataset_draft", &proofs.features)];
    if let Some((_, Some(proof))) = folders.iter().find(|(folder, _)| receipt.at.as_str().contains(&format!("/{folder}/"))) {
        let digest = json!(digest::digest(&proof.value));
        findings.same(&proof.at, Kind::Receipt, "digest of the proof", receipt.get("/proof_digest"), Some(&digest));
    }
    // A receipt without the digest is of a release that did not take it, which the chain vouches for.
    if let (Some(blake3), Ok(anomalies)) =
        (receipt.get("/observation/anomalies_blake3"), Ref::parse(receipt.text("/observation/anomalies_ref")))
        && let Some(stored) = Stored::read(env, anomalies, findings)
    {
        findings.same(&stored.at, Kind::Receipt, "BLAKE3", Some(blake3), Some(&json!(stored.blake3)));
    }
}
