//! The positive path and the rebuild guarantee: from an intent to a verified data set, the same again in
//! another place, and again after its files were deleted (O155, O157, O159).

use std::path::Path;

use serde_json::{Value, json};

use super::bench::Bench;
use super::{Checks, ensure};
use crate::identity;
use crate::operate::fault::Fault;
use crate::operate::mutate::Broken;
use crate::pipeline::run::RunResult;
use crate::prove::{find_manifest, verify};

/// The intents of the embedded day: one for training, one that is not.
const INTENTS: [&str; 2] = ["train", "audit"];

/// Walks the path; what it published, for the evidence.
pub(super) fn walk(scratch: &Path, checks: &Checks<'_>) -> Value {
    let mut published = Vec::new();
    let built = Bench::new(&scratch.join("positive")).and_then(|bench| {
        let results = INTENTS.iter().map(|i| bench.expect(i, &Fault::default(), "DONE", 0)).collect::<Result<Vec<_>, _>>()?;
        Ok((bench, results))
    });
    match built {
        Err(broken) => (1..=7).chain([10]).for_each(|phase| checks.hold(phase, "the positive path", Err(broken.clone()))),
        Ok((bench, results)) => {
            for (intent, result) in INTENTS.iter().zip(&results) {
                let dataset = result.document.get("dataset").cloned().unwrap_or_default();
                published.push(json!({"intent": intent, "dataset": dataset}));
                path(checks, &bench, intent, result);
            }
            checks.hold(10, "rebuilt in another place, on one thread in little memory, to the same bytes", elsewhere(scratch, &bench));
            checks.hold(10, "deleted data files are rebuilt to the same bytes", restored(&bench, &results));
        }
    }
    Value::Array(published)
}

fn path(checks: &Checks<'_>, bench: &Bench, intent: &str, result: &RunResult) {
    let hold = |phase, what: &str, result| checks.hold(phase, &format!("{intent}: {what}"), result);
    hold(1, "run key and data set id follow from request and fingerprint", identified(result));
    hold(2, "the chain of events is whole, and the request again changes nothing", recorded(bench, intent, result));
    hold(3, "the plan was frozen before anything was replayed", pinned(bench, intent, result));
    hold(4, "every offset of every partition was delivered", replayed(bench, result));
    hold(5, "every row has its label's status, and the gate says whether it is fit for training", labelled(bench, intent, result));
    hold(6, "the draft's rows and digest are those of the index", drafted(bench, result));
    hold(7, "the published data set holds against everything that speaks of it", published(bench, result));
    hold(10, "a consumer finds every file from the manifest ref alone", consumable(bench, result));
}

fn identified(result: &RunResult) -> Result<(), Broken> {
    let (request, key) = (result.text("/request_id"), result.text("/run_key"));
    ensure(identity::run_key(request) == key, || format!("{key} is not the run key of {request}"))?;
    let (fingerprint, id) = (result.text("/dataset/fingerprint"), result.text("/dataset/manifest_id"));
    ensure(identity::manifest_id(fingerprint) == id, || format!("{id} is not the id of {fingerprint}"))
}

fn recorded(bench: &Bench, intent: &str, result: &RunResult) -> Result<(), Broken> {
    let (_, host) = bench.open(&Fault::default())?;
    let chain = host.ledger.verify_chain(result.text("/run_key"))?;
    ensure(chain.is_empty(), || chain.join("; "))?;
    let before = bench.published()?;
    let again = bench.expect(intent, &Fault::default(), "DONE", 0)?;
    ensure(again.text("/outcome") == "DUPLICATE", || format!("the same request came to {}", again.text("/outcome")))?;
    ensure(again.document.get("dataset") == result.document.get("dataset"), || "the same request names another data set".into())?;
    ensure(bench.published()? == before, || "the same request changed what is published".into())
}

fn pinned(bench: &Bench, intent: &str, result: &RunResult) -> Result<(), Broken> {
    let plan = bench.document(result.text("/evidence/plan"))?;
    let same = plan.get("dataset_fingerprint").and_then(Value::as_str) == Some(result.text("/dataset/fingerprint"));
    ensure(same, || "the plan pins another identity".into())?;
    let (_, host) = bench.open(&Fault::default())?;
    let events = host.ledger.events(&bench.row(&host, intent)?.run_key, 0)?;
    let at = |event: &str, phase: &str| {
        events.iter().find(|e| e.event_type == event && e.detail.get("phase").is_some_and(|p| p == phase)).map(|e| e.seq)
    };
    let (frozen, replayed) = (at("GATE_PASSED", "pins"), at("PHASE_ENTERED", "replay"));
    ensure(frozen.is_some() && frozen < replayed, || format!("pins passed at event {frozen:?}, replay began at {replayed:?}"))
}

fn array<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn replayed(bench: &Bench, result: &RunResult) -> Result<(), Broken> {
    let receipt = bench.document(result.text("/evidence/replay"))?;
    ensure(receipt.get("status").is_some_and(|s| s == "COMPLETE"), || "the receipt does not say COMPLETE".into())?;
    let mut lanes = 0;
    for lane in array(&receipt, "/observation/partitions") {
        let n = |key: &str| lane.get(key).and_then(Value::as_u64);
        let whole = n("required_offsets") == n("covered_offsets") && n("missing_offsets") == Some(0) && n("mismatch_count") == Some(0);
        ensure(whole, || format!("a partition is not whole: {lane}"))?;
        lanes += 1;
    }
    ensure(lanes > 0, || "the receipt names no partition".into())
}

fn labelled(bench: &Bench, intent: &str, result: &RunResult) -> Result<(), Broken> {
    let receipt = bench.document(result.text("/evidence/labels"))?;
    let rows = result.document.pointer("/dataset/rows").and_then(Value::as_u64);
    for counted in array(&receipt, "/proof/types") {
        let n = |key: &str| counted.get(key).and_then(Value::as_u64).unwrap_or(0);
        let all = n("resolved") + n("conflict") + n("not_found");
        ensure(Some(all) == rows && n("targets") == all, || format!("labels of {all} rows, not of {rows:?}"))?;
    }
    let ready = receipt.get("status").is_some_and(|s| s == "READY_FOR_TRAINING");
    ensure(ready || intent != "train", || "a training data set whose labels are not ready".into())
}

fn drafted(bench: &Bench, result: &RunResult) -> Result<(), Broken> {
    let index = bench.document(&index_ref(result))?;
    for (key, pointer) in [("rows", "/dataset/rows"), ("rows_digest", "/dataset/rows_digest")] {
        let (stands, told) = (index.get(key), result.document.pointer(pointer));
        ensure(stands.is_some() && stands == told, || format!("{key}: the index has {stands:?}, the result {told:?}"))?;
    }
    bench.document(result.text("/evidence/draft")).map(|_| ())
}

fn index_ref(result: &RunResult) -> String {
    let run = result.text("/dataset/manifest_ref").split('/').next().unwrap_or_default().to_owned();
    format!("{run}/ofs/datasets/{}/index.json", result.text("/dataset/manifest_id"))
}

fn published(bench: &Bench, result: &RunResult) -> Result<(), Broken> {
    let (env, host) = bench.open(&Fault::default())?;
    let refused = |r: crate::pipeline::Refusal| Broken(format!("{}: {}", r.code, r.message));
    let manifest = find_manifest(&env, Some(&host.ledger), result.text("/dataset/manifest_ref")).map_err(refused)?;
    let report = verify::verify_rows(&env, Some(&host.ledger), &manifest).map_err(refused)?;
    ensure(report.anchored, || "the ledger does not vouch for it".into())?;
    let lines: Vec<String> = report.problems.iter().map(|p| format!("{} {}", p.kind.as_str(), p.place)).collect();
    ensure(lines.is_empty(), || lines.join("; "))
}

/// As somebody does who has nothing but the ref: the manifest names the data set, its index the files.
fn consumable(bench: &Bench, result: &RunResult) -> Result<(), Broken> {
    let at = result.text("/dataset/manifest_ref");
    let manifest = bench.document(at)?;
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let folder = format!("{}/ofs/datasets/{}", text(&manifest, "platform_run_id"), text(&manifest, "dataset_manifest_id"));
    let index = bench.document(&format!("{folder}/index.json"))?;
    let mut rows = 0;
    for file in array(&index, "/files") {
        let path = format!("{folder}/{}", text(file, "path"));
        let bytes = std::fs::read(bench.path(&format!("store/{path}"))).map_err(|e| Broken(format!("{path}: {e}")))?;
        ensure(blake3::hash(&bytes).to_hex().as_str() == text(file, "blake3"), || format!("{path} is not what the index says"))?;
        rows += file.get("rows").and_then(Value::as_u64).unwrap_or(0);
    }
    ensure(rows > 0 && Some(rows) == index.get("rows").and_then(Value::as_u64), || format!("the files hold {rows} rows"))
}

/// The same identity, on one thread and in little memory, in another folder.
fn elsewhere(scratch: &Path, first: &Bench) -> Result<(), Broken> {
    let mut bench = Bench::new(&scratch.join("rebuilt"))?;
    bench.set("limits", "threads", "1");
    bench.set("limits", "memory", "64MiB");
    for intent in INTENTS {
        bench.expect(intent, &Fault::default(), "DONE", 0)?;
    }
    same(&first.published()?, &bench.published()?)
}

fn same(wanted: &std::collections::BTreeMap<String, Vec<u8>>, found: &std::collections::BTreeMap<String, Vec<u8>>) -> Result<(), Broken> {
    ensure(!wanted.is_empty(), || "nothing is published".into())?;
    let names: Vec<&String> = wanted.keys().chain(found.keys()).filter(|name| wanted.get(*name) != found.get(*name)).collect();
    ensure(names.is_empty(), || format!("not the same bytes: {names:?}"))
}

fn restored(bench: &Bench, results: &[RunResult]) -> Result<(), Broken> {
    let wanted = bench.published()?;
    for (intent, result) in INTENTS.iter().zip(results) {
        for file in array(&result.document, "/dataset/files") {
            let at = file.get("ref").and_then(Value::as_str).unwrap_or_default();
            std::fs::remove_file(bench.path(&format!("store/{at}"))).map_err(|e| Broken(format!("{at}: {e}")))?;
        }
        ensure(bench.published()? != wanted, || "nothing was deleted".into())?;
        bench.expect(intent, &Fault::default(), "DONE", 0)?;
        same(&wanted, &bench.published()?)?;
    }
    Ok(())
}
