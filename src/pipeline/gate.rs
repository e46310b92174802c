//! What every gate shares: phases, refusals, and the environment that a build runs in.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use crate::config::Config;
use crate::contract::{Problem, ReasonCode};
use crate::engine::EngineError;
use crate::source::SourceError;
use crate::store::{AuditSink, Corridor, Ref, Resolution, Store, StoreError};
use crate::time::Instant;

/// A gate of the corridor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// 1: the intent is complete and consistent.
    Intent,
    /// 2: the request is the ledger's.
    Ledger,
    /// 3: every input is frozen.
    Pins,
    /// 4: every offset is delivered.
    Replay,
    /// 5: labels as known at the cut-off.
    Labels,
    /// 6: features and draft.
    Features,
    /// 7: publication.
    Publication,
    /// 8: run and operate.
    Operate,
}

impl Phase {
    /// The gates that a run passes, in order.
    pub const RUN: [Phase; 5] = [Phase::Pins, Phase::Replay, Phase::Labels, Phase::Features, Phase::Publication];

    /// Lower-case name, stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Intent => "intent",
            Phase::Ledger => "ledger",
            Phase::Pins => "pins",
            Phase::Replay => "replay",
            Phase::Labels => "labels",
            Phase::Features => "features",
            Phase::Publication => "publication",
            Phase::Operate => "operate",
        }
    }

    /// Its number, 1 to 8.
    pub fn number(self) -> u8 {
        self as u8 + 1
    }
}

impl Serialize for Phase {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A gate's "no": what could not be proved, by which evidence, and what would clear it. A value, not
/// an error: refusing is what the program is for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Refusal {
    /// The stable code.
    pub code: ReasonCode,
    /// The gate that refused.
    pub phase: Phase,
    /// What was found, in one sentence.
    pub message: String,
    /// The facts that matter, most telling first; capped, with the totals in the refusal's artifact.
    pub evidence: Vec<String>,
    /// What would clear it.
    pub remedy: String,
    /// End class, where the gate knows better than the code's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_class: Option<&'static str>,
    /// Everything that the gate found, for the refusal's artifact.
    #[serde(skip)]
    pub artifact: Option<Value>,
}

/// Most evidence lines of a refusal.
pub const EVIDENCE_LINES: usize = 12;

impl Refusal {
    /// A refusal with the code's own remedy.
    pub fn new(code: ReasonCode, phase: Phase, message: impl Into<String>) -> Self {
        Refusal {
            code,
            phase,
            message: message.into(),
            evidence: Vec::new(),
            remedy: code.info().remedy.to_owned(),
            end_class: None,
            artifact: None,
        }
    }

    /// With evidence lines, of which the first [`EVIDENCE_LINES`] are kept.
    pub fn with_evidence(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        let mut lines = lines.into_iter();
        self.evidence.extend(lines.by_ref().take(EVIDENCE_LINES));
        let more = lines.count() as u64;
        self.and_more(more)
    }

    /// With lines of evidence of which there are `total`, though only the first of them were kept.
    pub fn with_evidence_of(mut self, lines: impl IntoIterator<Item = String>, total: u64) -> Self {
        let before = self.evidence.len();
        self.evidence.extend(lines.into_iter().take(EVIDENCE_LINES));
        let told = (self.evidence.len() - before) as u64;
        self.and_more(total.saturating_sub(told))
    }

    fn and_more(mut self, more: u64) -> Self {
        if more > 0 {
            self.evidence.push(format!("and {more} more"));
        }
        self
    }

    /// With everything that was found.
    pub fn with_artifact(mut self, artifact: Value) -> Self {
        self.artifact = Some(artifact);
        self
    }

    /// The end class of a run that ends with it (O034).
    pub fn end_class(&self) -> &'static str {
        self.end_class.unwrap_or(self.code.info().end_class)
    }

    /// As in results and the ledger.
    pub fn to_json(&self) -> Value {
        json!({"code": self.code, "phase": self.phase.as_str(), "message": self.message, "evidence": self.evidence, "remedy": self.remedy})
    }

    /// A contract's problem at a gate.
    pub fn of_problem(phase: Phase, problem: Problem) -> Self {
        Refusal::new(problem.code, phase, problem.to_string())
    }

    /// A store's error at a gate.
    pub fn of_store(phase: Phase, error: &StoreError) -> Self {
        Refusal::new(error.code(), phase, error.to_string())
    }

    /// A source's error at a gate.
    pub fn of_source(phase: Phase, error: &SourceError) -> Self {
        Refusal::new(error.code, phase, error.to_string())
    }

    /// The corridor's denial at a gate; `missing` is the code where nothing usable is there.
    pub fn of_denial(phase: Phase, resolution: &Resolution, missing: ReasonCode) -> Self {
        let (code, message) = resolution.denied.clone().unwrap_or((ReasonCode::RefInvalid, String::new()));
        let code = if matches!(code, ReasonCode::RefNotFound | ReasonCode::SourceIo) { missing } else { code };
        let given = crate::text::clip(&resolution.given, 200);
        Refusal::new(code, phase, format!("{} ({given}): {message}", resolution.ref_type.words()))
    }

    /// A kernel's error at a gate.
    pub fn of_engine(phase: Phase, error: &EngineError) -> Self {
        let code = match error {
            EngineError::Scratch { .. } => ReasonCode::ScratchIo,
            EngineError::Memory(_) => ReasonCode::MemoryBudget,
            EngineError::Internal(_) => ReasonCode::InternalError,
        };
        Refusal::new(code, phase, error.to_string())
    }

    /// The build was told to stop.
    pub fn interrupted(phase: Phase) -> Self {
        Refusal::new(ReasonCode::Interrupted, phase, "the build was asked to stop")
    }
}

/// Names work outside of a run, which no lease numbers: by its process, the instant and a count, so that two at once
/// never share a name, nor two processes of one number on two machines.
pub fn outside_of_runs(now: Instant) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("p{}-{:x}-{}", std::process::id(), now.0, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a build runs in. Everything that differs between machines is here and never in a proof.
#[derive(Debug, Clone)]
pub struct Env {
    /// The object store.
    pub store: Arc<dyn Store>,
    /// Its canonical root, for absolute refs below it.
    pub store_root: Option<PathBuf>,
    /// The configuration.
    pub config: Arc<Config>,
    /// Tells the build to stop at the next safe point.
    pub cancel: CancellationToken,
    /// Where progress is shown.
    pub progress: Arc<Progress>,
    /// Names this attempt among all that may be alive: the epoch of its lease, or [`outside_of_runs`]. Whatever
    /// is not yet proved is written under it, so that a superseded owner can spoil nothing.
    pub attempt: String,
    /// Where each resolution of a protected ref goes on record (O145). What starts a run puts the ledger here;
    /// questions that change nothing leave [`crate::store::Unrecorded`].
    pub audit: Arc<dyn AuditSink>,
}

impl Env {
    /// Refuses once the build was told to stop.
    ///
    /// # Errors
    /// `INTERRUPTED`.
    pub fn check(&self, phase: Phase) -> Result<(), Refusal> {
        if self.cancel.is_cancelled() { Err(Refusal::interrupted(phase)) } else { Ok(()) }
    }

    /// The gate through which every ref of a run is resolved.
    pub fn corridor<'e>(&'e self, platform_run_id: &'e str) -> Corridor<'e> {
        Corridor {
            store: self.store.as_ref(),
            root: self.store_root.as_deref(),
            workspace: &self.config.workspace,
            actor: self.config.text("access", "actor"),
            allowed: self.config.list("access", "allowed_actors"),
            platform_run_id,
            audit: self.audit.as_ref(),
        }
    }
}

/// Writes one of a run's receipts: the first of a run key stands; a later attempt must say the same in
/// every field of `proof` and may differ in its observation.
///
/// # Errors
/// `violation` where the receipt that stands says otherwise; the store's.
pub fn keep_receipt(
    store: &dyn Store,
    at: &Ref,
    receipt: &Value,
    proof: &[&str],
    violation: ReasonCode,
    phase: Phase,
) -> Result<(), Refusal> {
    let bytes = document(receipt);
    match crate::store::create_immutable(store, at, &bytes).map_err(|e| Refusal::of_store(phase, &e))? {
        crate::store::Immutable::New | crate::store::Immutable::Same => Ok(()),
        crate::store::Immutable::Different(_) => {
            let found = crate::store::read(store, at, 256 << 20).map_err(|e| Refusal::of_store(phase, &e))?;
            let found: Value =
                serde_json::from_slice(&found).map_err(|e| Refusal::new(violation, phase, format!("{at} is not a receipt: {e}")))?;
            let differing: Vec<String> = proof
                .iter()
                .filter(|key| found.get(**key) != receipt.get(**key))
                .map(|key| format!("{key}: stands {}, now {}", brief(found.get(*key)), brief(receipt.get(*key))))
                .collect();
            if differing.is_empty() {
                Ok(())
            } else {
                Err(Refusal::new(violation, phase, format!("{at} stands and says otherwise")).with_evidence(differing))
            }
        }
    }
}

fn brief(value: Option<&Value>) -> String {
    let text = value.map_or("nothing".into(), Value::to_string);
    crate::text::clip(&text, 160).into_owned()
}

/// A document as it is stored: canonical JSON and a line feed.
pub fn document(value: &Value) -> Vec<u8> {
    let mut text = crate::json::canonical(value);
    text.push('\n');
    text.into_bytes()
}
