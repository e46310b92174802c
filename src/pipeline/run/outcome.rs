//! The result document of a run (`ofs.run_result.v1`) and its exit code.

use serde_json::{Map, Value, json};

use crate::contract::ReasonCode;
use crate::ledger::{RunRow, Status};
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::store::Ref;

/// How a run ended, as a document and an exit code.
#[derive(Debug, Clone, PartialEq)]
pub struct RunResult {
    /// `ofs.run_result.v1`.
    pub document: Value,
    /// Exit code of the command.
    pub exit: u8,
}

/// What a document is made of.
pub(super) struct Parts<'p> {
    pub(super) request_id: &'p str,
    pub(super) run_key: &'p str,
    pub(super) status: Status,
    pub(super) outcome: Option<&'static str>,
    pub(super) reason: Option<&'p Refusal>,
    pub(super) dataset: Value,
    pub(super) evidence: Map<String, Value>,
    pub(super) timings: Map<String, Value>,
}

impl RunResult {
    pub(super) fn of(parts: Parts<'_>) -> Self {
        let exit = parts.reason.map_or(0, |r| exit_of(r.code, parts.status));
        let document = json!({
            "schema_version": "ofs.run_result.v1", "request_id": parts.request_id, "run_key": parts.run_key, "status": parts.status, "outcome": parts.outcome,
            "reason": parts.reason.map(Refusal::to_json), "dataset": parts.dataset, "evidence": complete(parts.evidence), "timings_ms": parts.timings,
        });
        RunResult { document, exit }
    }

    /// A refusal before anything was built.
    pub fn refused(request_id: &str, run_key: &str, status: Status, refusal: &Refusal) -> Self {
        RunResult::of(Parts {
            request_id,
            run_key,
            status,
            outcome: None,
            reason: Some(refusal),
            dataset: Value::Null,
            evidence: Map::new(),
            timings: Map::new(),
        })
    }

    /// The stored result of a request that had ended before, with the exit code of then.
    pub fn duplicate(row: &RunRow) -> Self {
        let mut result = Self::stored(row);
        if let Some(map) = result.document.as_object_mut() {
            map.insert("outcome".into(), json!("DUPLICATE"));
        }
        result
    }

    /// The stored result of a run whose publication is pending.
    pub fn pending(row: &RunRow) -> Self {
        Self::stored(row)
    }

    fn stored(row: &RunRow) -> Self {
        let fallback = || json!({"schema_version": "ofs.run_result.v1", "request_id": row.request_id, "run_key": row.run_key, "status": row.status, "outcome": null, "reason": row.reason, "dataset": null, "evidence": complete(Map::new()), "timings_ms": {}});
        let document = row.result.clone().filter(Value::is_object).unwrap_or_else(fallback);
        let exit = match row.status {
            Status::Done => 0,
            status => row.code().map_or(3, |code| exit_of(code, status)),
        };
        RunResult { document, exit }
    }

    /// The reason code, if there is one.
    pub fn code(&self) -> Option<ReasonCode> {
        self.document.pointer("/reason/code").and_then(Value::as_str).and_then(ReasonCode::parse)
    }

    /// A field of the document as text.
    pub fn text(&self, pointer: &str) -> &str {
        self.document.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// Receipts under their stable names; null where one was not written.
fn complete(mut evidence: Map<String, Value>) -> Map<String, Value> {
    for name in ["plan", "replay", "labels", "draft", "publication"] {
        evidence.entry(name).or_insert(Value::Null);
    }
    evidence
}

/// A pending publication is 4 whatever its cause; else the code decides.
fn exit_of(code: ReasonCode, status: Status) -> u8 {
    if status == Status::PublishPending { 4 } else { code.info().exit }
}

/// The data set of a result, from its index.
pub(super) fn dataset(manifest_ref: &Ref, index: &Value) -> Value {
    let folder = manifest_ref.first();
    let id = index.get("manifest_id").and_then(Value::as_str).unwrap_or_default();
    let files: Vec<Value> = index
        .get("files")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|f| {
            let path = f.get("path").and_then(Value::as_str).unwrap_or_default();
            json!({"ref": format!("{folder}/ofs/datasets/{id}/{path}"), "blake3": f.get("blake3"), "rows": f.get("rows"), "bytes": f.get("bytes")})
        })
        .collect();
    json!({"manifest_id": id, "fingerprint": index.get("fingerprint"), "manifest_ref": manifest_ref.as_str(), "rows": index.get("rows"), "rows_digest": index.get("rows_digest"), "files": files})
}

/// Whether everything that a stored result names is there with its size.
pub(super) fn files_are_there(row: &RunRow, env: &Env) -> Result<bool, Refusal> {
    let store = |e: crate::store::StoreError| Refusal::of_store(Phase::Publication, &e);
    let Some(dataset) = row.result.as_ref().and_then(|r| r.get("dataset")).filter(|d| d.is_object()) else { return Ok(true) };
    let at = |text: Option<&str>| text.and_then(|t| Ref::parse(t).ok());
    let Some(manifest) = at(dataset.get("manifest_ref").and_then(Value::as_str)) else { return Ok(true) };
    let id = dataset.get("manifest_id").and_then(Value::as_str).unwrap_or_default();
    let folder = Ref::of(&[manifest.first(), "ofs", "datasets", id]);
    let mut wanted = vec![(manifest, None), (folder.join("index.json"), None)];
    wanted.extend(["replay", "labels", "features"].map(|name| (folder.join("evidence").join(&format!("{name}.json")), None)));
    for file in dataset.get("files").and_then(Value::as_array).into_iter().flatten() {
        if let Some(at) = at(file.get("ref").and_then(Value::as_str)) {
            wanted.push((at, file.get("bytes").and_then(Value::as_u64)));
        }
    }
    for (at, bytes) in wanted {
        let size = env.store.size(&at).map_err(store)?;
        if size.is_none() || (bytes.is_some() && size != bytes) {
            return Ok(false);
        }
    }
    Ok(true)
}
