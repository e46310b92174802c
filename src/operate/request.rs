//! Job requests and the receipts of their invocations: what they look like, without I/O (O130 to O133).
//!
//! Both are closed contracts. A request is immutable once it lies in the store, so whatever is wrong
//! with it stays wrong: it is refused alone, with a receipt.

use serde_json::{Map, Value, json};

use crate::contract::intent::request_id_valid;
use crate::contract::{Problem, ReasonCode, path_safe};
use crate::json::{Item, Kind, Tape};
use crate::ledger::{Ended, RunRow, Status};
use crate::pipeline::admit::{Admitted, Supersession};
use crate::pipeline::pin::RELEASE;
use crate::pipeline::run::Request;
use crate::store::Ref;
use crate::time::Instant;

/// Schema version of a request.
pub const REQUEST: &str = "learning.ofs_job_request.v0";
/// Schema version of a receipt.
pub const RECEIPT: &str = "learning.ofs_job_invocation_receipt.v0";
/// The folder of requests below `<run>/ofs/`.
pub const REQUESTS: &str = "job_requests";
/// The folder of receipts below `<run>/ofs/`.
pub const RECEIPTS: &str = "job_invocations";

const BUILD: &str = "dataset_build";
const RETRY: &str = "publish_retry";

/// What a request asks for.
#[derive(Debug, Clone)]
pub enum Command {
    /// To build an intent.
    Build(Box<Request>),
    /// To retry the publication of a pending run. Its draft is the run's own, never the caller's
    /// (pitfall 31).
    PublishRetry {
        /// The run.
        run_key: String,
    },
}

impl Command {
    /// Its name in the contract.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Build(_) => BUILD,
            Command::PublishRetry { .. } => RETRY,
        }
    }
}

/// A request that is well formed.
#[derive(Debug, Clone)]
pub struct JobRequest {
    /// Its id, which is also the name of its file.
    pub request_id: String,
    /// The platform run that it belongs to.
    pub platform_run_id: String,
    /// The configuration under which it was submitted.
    pub run_config_digest: String,
    /// What it asks for.
    pub command: Command,
}

/// Where the request with this id lies.
pub fn request_ref(platform_run_id: &str, request_id: &str) -> Ref {
    Ref::of(&[platform_run_id, "ofs", REQUESTS, &format!("{request_id}.json")])
}

/// A name that may be a path segment: every run of other characters becomes one `_`.
pub fn safe_token(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-') {
            out.push(c);
        } else if !out.ends_with('_') {
            out.push('_');
        }
    }
    out.truncate(200);
    if path_safe(&out) { out } else { "_".into() }
}

/// The document of a request.
pub fn document(admitted: &Admitted, run_config_digest: &str, submitted: Instant) -> Value {
    let intent = admitted.intent();
    let mut inputs = Map::new();
    if !admitted.superseded().is_empty() {
        inputs.insert("supersedes_manifest_refs".into(), json!(admitted.superseded_as_given()));
    }
    if let Some(reason) = admitted.supersede_reason() {
        inputs.insert("backfill_reason".into(), json!(reason));
    }
    json!({
        "schema_version": REQUEST, "request_id": intent.request_id, "command": BUILD, "platform_run_id": intent.platform_run_id,
        "submitted_at_utc": submitted, "run_config_digest": run_config_digest, "intent": intent.to_json(), "inputs": inputs,
    })
}

/// The id of the request for the next publish-only retry of a run: the same one until that retry was used.
pub fn retry_id(row: &RunRow) -> String {
    format!("publish-retry.{}.{}", row.run_key, row.publish_retry_attempts.saturating_add(1))
}

/// The document of a request for a publish-only retry.
pub fn retry_document(row: &RunRow, platform_run_id: &str, run_config_digest: &str, submitted: Instant) -> Value {
    json!({
        "schema_version": REQUEST, "request_id": retry_id(row), "command": RETRY, "platform_run_id": platform_run_id,
        "submitted_at_utc": submitted, "run_config_digest": run_config_digest, "run_key": row.run_key,
    })
}

/// Reads the request in the file `<name>.json` of a platform run's folder.
///
/// # Errors
/// `REQUEST_INVALID`, `REQUEST_COMMAND_UNSUPPORTED`, and `RUN_SCOPE_INVALID` for a request of another
/// platform run than the one it lies under.
pub fn parse(bytes: &[u8], name: &str, platform_run_id: &str) -> Result<JobRequest, Problem> {
    let mut tape = Tape::new();
    let doc = tape.parse(bytes).map_err(|e| invalid("", format!("not a JSON document: {e}")))?;
    if let Some(key) = doc.duplicate_key() {
        return Err(invalid("", format!("the key {key} stands twice")));
    }
    let root = doc.root();
    if root.kind() != Kind::Object {
        return Err(invalid("", format!("expected an object, found {}", root.kind())));
    }
    one_of(root, "schema_version", &[REQUEST])?;
    let request_id = text(root, "request_id")?;
    if request_id != name || !request_id_valid(&request_id) {
        return Err(invalid("request_id", format!("expected a request id that is the name of the file, {name}")));
    }
    let command = command_of(root)?;
    Instant::parse(&text(root, "submitted_at_utc")?).map_err(|e| invalid("submitted_at_utc", e.to_string()))?;
    let run = text(root, "platform_run_id")?;
    if run != platform_run_id {
        let message = format!("the request is of {run}, but lies under {platform_run_id}");
        return Err(Problem::new(ReasonCode::RunScopeInvalid, "platform_run_id", message));
    }
    let of_intent = |key: &str| root.get("intent").and_then(|i| i.get(key)).and_then(Item::str);
    for (key, expected) in [("request_id", &request_id), ("platform_run_id", &run)] {
        if of_intent(key).is_some_and(|found| found != *expected) {
            return Err(invalid(&format!("intent.{key}"), format!("expected {expected}, as the request says")));
        }
    }
    Ok(JobRequest { request_id, platform_run_id: run, run_config_digest: text(root, "run_config_digest")?, command })
}

fn command_of(root: Item<'_>) -> Result<Command, Problem> {
    const COMMON: [&str; 6] = ["schema_version", "request_id", "command", "platform_run_id", "submitted_at_utc", "run_config_digest"];
    let closed = |own: &[&str]| unknown(root, "", &[COMMON.as_slice(), own].concat());
    match text(root, "command")?.as_str() {
        BUILD => {
            closed(&["intent", "inputs"])?;
            let intent = root.get("intent").filter(|i| i.kind() == Kind::Object).ok_or_else(|| invalid("intent", "expected an object"))?;
            let supersession = root.get("inputs").map_or(Ok(Supersession::default()), inputs)?;
            Ok(Command::Build(Box::new(Request { intent: intent.raw().as_bytes().to_vec(), supersession })))
        }
        RETRY => {
            closed(&["run_key"])?;
            Ok(Command::PublishRetry { run_key: text(root, "run_key")? })
        }
        other => Err(Problem::new(
            ReasonCode::RequestCommandUnsupported,
            "command",
            format!("expected {BUILD} or {RETRY}, found {}", crate::text::clip(other, 80)),
        )),
    }
}

fn inputs(inputs: Item<'_>) -> Result<Supersession, Problem> {
    if inputs.kind() != Kind::Object {
        return Err(invalid("inputs", format!("expected an object, found {}", inputs.kind())));
    }
    unknown(inputs, "inputs.", &["supersedes_manifest_refs", "backfill_reason"])?;
    let mut manifests = Vec::new();
    if let Some(list) = inputs.get("supersedes_manifest_refs") {
        let wrong = || invalid("inputs.supersedes_manifest_refs", "expected a list of manifest ids or refs");
        if list.kind() != Kind::Array {
            return Err(wrong());
        }
        for manifest in list.elements() {
            manifests.push(manifest.str().ok_or_else(wrong)?.into_owned());
        }
    }
    let reason = match inputs.get("backfill_reason") {
        None => None,
        Some(reason) => Some(reason.str().ok_or_else(|| invalid("inputs.backfill_reason", "expected a text"))?.into_owned()),
    };
    Ok(Supersession { manifests, reason })
}

fn invalid(path: &str, message: impl Into<String>) -> Problem {
    Problem::new(ReasonCode::RequestInvalid, path, message)
}

fn text(root: Item<'_>, key: &str) -> Result<String, Problem> {
    match root.get(key).and_then(Item::str) {
        Some(text) if !text.trim().is_empty() => Ok(text.into_owned()),
        _ => Err(invalid(key, "expected a text that is not empty")),
    }
}

fn one_of(root: Item<'_>, key: &str, known: &[&str]) -> Result<(), Problem> {
    let found = text(root, key)?;
    if known.contains(&found.as_str()) { Ok(()) } else { Err(invalid(key, format!("expected {}", known.join(" or ")))) }
}

fn unknown(object: Item<'_>, path: &str, known: &[&str]) -> Result<(), Problem> {
    match object.fields().find(|(key, _)| !known.contains(&key.as_ref())) {
        Some((key, _)) => Err(invalid(&format!("{path}{}", crate::text::clip(&key, 80)), "unknown field")),
        None => Ok(()),
    }
}

/// How an invocation of a request ended. All times are the ledger's, so that two workers who record the
/// same end write the same bytes.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The request, or the safe name of its file.
    pub request_id: String,
    /// Where it lies.
    pub request_ref: String,
    /// The platform run under which it lies.
    pub platform_run_id: String,
    /// What it asked for, if that could be read.
    pub command: Option<&'static str>,
    /// The configuration it was stamped with, if that could be read.
    pub run_config_digest: Option<String>,
    /// Policy id and revision of the launcher.
    pub policy: (String, String),
    /// DONE, `ALREADY_DONE`, `PUBLISH_PENDING` or FAILED.
    pub status: &'static str,
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub completed: Instant,
    /// The run that it became.
    pub run_key: Option<String>,
    /// The attempt in the ledger; 0 where nothing was started.
    pub attempt: u32,
    /// The event in the ledger that this receipt answers.
    pub ledger_seq: u64,
    /// Where the evidence lies.
    pub refs: Map<String, Value>,
    /// Particulars.
    pub details: Map<String, Value>,
    /// Code and message of what stopped it.
    pub error: Option<(String, String)>,
}

impl Invocation {
    /// As it lies in the store.
    pub fn to_json(&self) -> Value {
        let mut out = json!({
            "schema_version": RECEIPT, "request_id": self.request_id, "command": self.command, "platform_run_id": self.platform_run_id,
            "status": self.status, "started_at_utc": self.started, "completed_at_utc": self.completed, "request_ref": self.request_ref,
            "stream_id": format!("ofs.v0::{}", self.platform_run_id), "service_release_id": RELEASE,
            "launcher_policy": {"policy_id": self.policy.0, "revision": self.policy.1}, "run_config_digest": self.run_config_digest,
            "attempt": self.attempt, "ledger_seq": self.ledger_seq, "refs": self.refs, "details": self.details,
        });
        if let Some(map) = out.as_object_mut() {
            if let Some(run_key) = &self.run_key {
                map.insert("run_key".into(), json!(run_key));
            }
            if let Some((code, message)) = &self.error {
                map.insert("error".into(), json!({"code": code, "message": message}));
            }
        }
        out
    }

    /// Fills in how a run ended. `by_worker` tells whether a worker did it, or somebody else before.
    #[must_use]
    pub fn ended(mut self, row: &RunRow, ended: &Ended, by_worker: bool) -> Self {
        let result = |pointer: &str| row.result.as_ref().and_then(|r| r.pointer(pointer)).filter(|v| !v.is_null()).cloned();
        self.status = match row.status {
            Status::Done if by_worker => "DONE",
            Status::Done => "ALREADY_DONE",
            Status::PublishPending => "PUBLISH_PENDING",
            _ => "FAILED",
        };
        (self.started, self.completed) = (row.started.unwrap_or(row.created), ended.at);
        (self.run_key, self.attempt, self.ledger_seq) = (Some(row.run_key.clone()), row.attempt(), ended.seq);
        for (name, pointer) in [
            ("resolved_build_plan_ref", "/evidence/plan"),
            ("replay_receipt_ref", "/evidence/replay"),
            ("label_receipt_ref", "/evidence/labels"),
            ("dataset_draft_ref", "/evidence/draft"),
            ("publication_receipt_ref", "/evidence/publication"),
            ("refusal_ref", "/evidence/refusal"),
            ("manifest_ref", "/dataset/manifest_ref"),
        ] {
            if let Some(at) = result(pointer) {
                self.refs.insert(name.into(), at);
            }
        }
        if let Some(outcome) = result("/outcome") {
            self.details.insert("submission_outcome".into(), outcome);
        }
        if row.status != Status::Done {
            let code = row.reason_code.clone().unwrap_or_else(|| row.status.as_str().to_owned());
            let message = row.reason.as_ref().and_then(|r| r.get("message")).and_then(Value::as_str).unwrap_or_default();
            if row.status == Status::PublishPending {
                self.details.insert("pending_reason".into(), json!(code));
            }
            self.details.insert("retryable".into(), json!(row.retryable()));
            self.error = Some((code, message.to_owned()));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::admit;

    const NAME: &str = "request.001";

    fn sample() -> (Value, String) {
        let intent = crate::contract::intent::tests::sample();
        let manifests = vec![format!("dm_{}", "a".repeat(32))];
        let supersession = Supersession { manifests, reason: Some("late labels".into()) };
        let admitted = admit::prove(intent.to_string().as_bytes(), supersession, "").unwrap();
        let run = admitted.intent().platform_run_id.clone();
        (document(&admitted, "digest", Instant(0)), run)
    }

    fn code(value: &Value, run: &str) -> Result<(), (ReasonCode, String)> {
        parse(value.to_string().as_bytes(), NAME, run).map(|_| ()).map_err(|p| (p.code, p.path))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (value, run) = sample();
        let read = parse(&crate::pipeline::gate::document(&value), NAME, &run).unwrap();
        assert_eq!((read.request_id.as_str(), read.run_config_digest.as_str()), (NAME, "digest"));
        let Command::Build(request) = read.command else { panic!("a build") };
        let again = admit::prove(&request.intent, request.supersession, &run).unwrap();
        assert_eq!((again.superseded().len(), again.supersede_reason()), (1, Some("late labels")));
        assert_eq!(document(&again, "digest", Instant(0)), value);
    }

    #[test]
    fn every_field_is_needed_and_no_other_is_taken() {
        let (good, run) = sample();
        assert_eq!(code(&good, &run), Ok(()));
        for key in good.as_object().unwrap().keys().filter(|k| *k != "inputs") {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(key);
            assert_eq!(code(&bad, &run).unwrap_err().0, ReasonCode::RequestInvalid, "without {key}");
            for value in [Value::Null, json!(1), json!([]), json!("")] {
                bad[key] = value;
                assert_eq!(code(&bad, &run).unwrap_err().0, ReasonCode::RequestInvalid, "{key} = {}", bad[key]);
            }
        }
        for (pointer, value) in [
            ("/extra", json!(1)),
            ("/inputs/replay_events", json!([])),
            ("/inputs/supersedes_manifest_refs", json!("x")),
            ("/inputs/supersedes_manifest_refs", json!([1])),
            ("/inputs/backfill_reason", json!(1)),
            ("/inputs", json!([])),
            ("/submitted_at_utc", json!("yesterday")),
            ("/request_id", json!("another.one")),
            ("/intent/request_id", json!("another.one")),
            ("/intent/platform_run_id", json!("another")),
            ("/schema_version", json!("learning.ofs_job_request.v1")),
        ] {
            let mut bad = good.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            bad.pointer_mut(parent).unwrap()[key] = value;
            assert_eq!(code(&bad, &run).unwrap_err().0, ReasonCode::RequestInvalid, "{pointer}");
        }
        for text in ["", "{}", "[]", "{", "\u{0}", "{\"a\":1,\"a\":1}"] {
            assert_eq!(parse(text.as_bytes(), NAME, &run).unwrap_err().code, ReasonCode::RequestInvalid, "{text:?}");
        }
    }

    #[test]
    fn commands_and_scopes_have_codes_of_their_own() {
        let (good, run) = sample();
        let mut bad = good.clone();
        bad["command"] = json!("rm");
        assert_eq!(code(&bad, &run).unwrap_err(), (ReasonCode::RequestCommandUnsupported, "command".into()));
        assert_eq!(code(&good, "other").unwrap_err(), (ReasonCode::RunScopeInvalid, "platform_run_id".into()));
        let mut retry = good.clone();
        for key in ["intent", "inputs"] {
            retry.as_object_mut().unwrap().remove(key);
        }
        (retry["command"], retry["run_key"]) = (json!("publish_retry"), json!("k"));
        assert_eq!(code(&retry, &run), Ok(()));
        // Whatever a caller brings along for a publication is refused, not trusted.
        retry["publish_inputs"] = json!({"draft": {}});
        assert_eq!(code(&retry, &run).unwrap_err(), (ReasonCode::RequestInvalid, "publish_inputs".into()));
    }

    #[test]
    fn manifests_are_named_by_id_or_ref() {
        let (mut value, run) = sample();
        let id = format!("dm_{}", "b".repeat(32));
        let (own, other) = (format!("{run}/ofs/manifests/{id}.json"), format!("other/ofs/manifests/{id}.json"));
        for (given, resolved_as) in [(&id, &id), (&own, &id), (&other, &other)] {
            value["inputs"]["supersedes_manifest_refs"] = json!([given]);
            let Command::Build(request) = parse(value.to_string().as_bytes(), NAME, &run).unwrap().command else { panic!("a build") };
            let admitted = admit::prove(&request.intent, request.supersession, &run).unwrap();
            assert_eq!(
                (admitted.superseded(), admitted.superseded_as_given()),
                ([id.clone()].as_slice(), [resolved_as.clone()].as_slice())
            );
        }
        value["inputs"]["supersedes_manifest_refs"] = json!(["../x"]);
        let Command::Build(request) = parse(value.to_string().as_bytes(), NAME, &run).unwrap().command else { panic!("a build") };
        assert!(admit::prove(&request.intent, request.supersession, &run).is_err());
    }

    #[test]
    fn names_become_safe_tokens() {
        assert_eq!(safe_token("a b/../c\u{1b}é.json"), "a_b_.._c_.json");
        assert_eq!((safe_token(""), safe_token("..")), ("_".into(), "_".into()));
        assert!(path_safe(&safe_token(&"x".repeat(400))));
    }
}
