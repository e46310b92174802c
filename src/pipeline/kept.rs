//! What a passed gate keeps in staging, so that a later attempt of the same run need not do its work again
//! (decision 6).
//!
//! Kept files are never trusted. The ledger has the digest of a gate's list, the list has the digests of its
//! files, and all of them are hashed anew before anything is read. What does not fit costs the work of the
//! gate once more, and never truth.

use std::io::{BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::gate::{Env, Phase, Refusal, document};
use super::parallel;
use super::pin::{self, Pinned};
use crate::contract::ReasonCode;
use crate::engine::EngineError;
use crate::engine::spool::Share;
use crate::ledger::EventRow;
use crate::store::{ErrorKind, PIECE, Ref, StagedFile, StoreError, digest, pieces, read};

/// How the name of every kept file begins; the epoch of its owner follows.
const PREFIX: &str = "kept-";
/// Largest receipt in bytes.
const RECEIPT_BYTES: u64 = 256 << 20;
/// Largest list in bytes.
const LIST_BYTES: u64 = 1 << 20;
/// Bytes that are gathered before they are digested and handed to the store.
const BUFFER: usize = 64 << 10;

/// The folder in which a gate leaves its receipt.
pub fn receipt_folder(gate: Phase) -> &'static str {
    match gate {
        Phase::Pins => "resolved_build_plan",
        Phase::Replay => "replay_completeness",
        Phase::Labels => "label_resolution",
        Phase::Features => "dataset_draft",
        _ => "publication_receipts",
    }
}

/// What the ledger recorded of the gates that a run has passed.
#[derive(Debug, Clone, Default)]
pub struct Recorded(Map<String, Value>);

impl Recorded {
    /// Reads the events of a run; of several passes of one gate the latest counts.
    pub fn of(events: &[EventRow]) -> Self {
        let passed = events.iter().filter(|e| e.event_type == "GATE_PASSED").filter_map(|e| {
            let phase = e.detail.get("phase")?.as_str()?;
            Some((phase.to_owned(), e.detail.get("evidence")?.clone()))
        });
        Recorded(passed.collect())
    }

    /// The evidence with which a gate was passed.
    pub fn evidence(&self, gate: Phase) -> Option<&Value> {
        self.0.get(gate.as_str())
    }

    fn text(&self, gate: Phase, pointer: &str) -> Option<&str> {
        self.evidence(gate)?.pointer(pointer)?.as_str()
    }

    /// The digest of the receipt that a gate left.
    pub fn receipt_digest(&self, gate: Phase) -> Option<&str> {
        self.text(gate, "/receipt_blake3")
    }

    /// The receipt of a gate, if it is still the one that the ledger recorded (pitfall 31). `phase` is who asks.
    ///
    /// # Errors
    /// `PROVENANCE_INCONSISTENT` where it is another; the store's.
    pub fn receipt(&self, pinned: &Pinned, env: &Env, gate: Phase, phase: Phase) -> Result<Value, Refusal> {
        let at = pinned.receipt_ref(receipt_folder(gate));
        let bytes = read(env.store.as_ref(), &at, RECEIPT_BYTES).map_err(|e| Refusal::of_store(phase, &e))?;
        let foreign = |message: String| Refusal::new(ReasonCode::ProvenanceInconsistent, phase, message);
        if self.text(gate, "/receipt_blake3") != Some(blake3::hash(&bytes).to_hex().as_str()) {
            return Err(foreign(format!("{at} is not the receipt that gate {} recorded in the ledger", gate.as_str())));
        }
        let receipt: Value = serde_json::from_slice(&bytes).map_err(|e| foreign(format!("{at}: {e}")))?;
        // What a receipt names is part of what it says.
        let named = |key: &str| receipt.pointer(&format!("/observation/anomalies_{key}")).and_then(Value::as_str);
        if let Some((anomalies, wanted)) = named("ref").and_then(|at| Ref::parse(at).ok()).zip(named("blake3")) {
            let (found, _) = digest(env.store.as_ref(), &anomalies).map_err(|e| Refusal::of_store(phase, &e))?;
            if found != wanted {
                return Err(foreign(format!("{anomalies} is not what {at} says of it")));
            }
        }
        Ok(receipt)
    }
}

/// The name of a kept file, by its owner and gate.
fn name(epoch: &str, gate: Phase, what: &str) -> String {
    format!("{PREFIX}{epoch}-{}-{what}", gate.number())
}

/// Whether a name is one of a gate's kept files, or of a gate after it.
fn of_gate_or_later(name: &str, gate: Phase) -> bool {
    let mut parts = name.split('-').skip(2);
    name.starts_with(PREFIX) && parts.next().and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| n >= gate.number())
}

/// The files that a gate is about to keep.
pub(super) struct Keep<'k> {
    pinned: &'k Pinned,
    env: &'k Env,
    gate: Phase,
    files: Vec<Value>,
}

impl<'k> Keep<'k> {
    /// Begins; what earlier attempts had kept of this gate, and of those that rest on it, is of no use any more.
    pub(super) fn begin(pinned: &'k Pinned, env: &'k Env, gate: Phase) -> Self {
        pinned.clear_staging(env, |name| of_gate_or_later(name, gate));
        Keep { pinned, env, gate, files: Vec::new() }
    }

    /// Writes rows of one kind into as many files as there are threads, side by side; `fill` is told which share
    /// of the rows is to be written.
    pub(super) fn rows(
        &mut self,
        what: &str,
        fill: impl Fn(Share, &mut dyn Write) -> Result<(), EngineError> + Sync,
    ) -> Result<(), Refusal> {
        let of = self.env.config.workers();
        let written = Mutex::new(Vec::new());
        parallel::each(
            self.env,
            self.gate,
            of,
            || (),
            |(), index| {
                let file = self.file(what, index, |to| fill(Share { index, of }, to))?;
                written.lock().unwrap_or_else(PoisonError::into_inner).push((index, file));
                Ok(())
            },
            |()| Ok(()),
        )?;
        let mut written = written.into_inner().unwrap_or_else(PoisonError::into_inner);
        written.sort_by_key(|(index, _)| *index);
        self.files.extend(written.into_iter().map(|(_, file)| file));
        Ok(())
    }

    /// Writes a file, digesting it on the way; its entry in the list.
    fn file(&self, what: &str, index: usize, fill: impl FnOnce(&mut dyn Write) -> Result<(), EngineError>) -> Result<Value, Refusal> {
        let store = |e: &StoreError| Refusal::of_store(self.gate, e);
        let path = name(&self.env.attempt, self.gate, &format!("{what}-{index}"));
        let at = self.pinned.staging_ref().join(&path);
        let staged = self.env.store.stage(&at).map_err(|e| store(&e))?;
        let mut out = Hashed { staged, hasher: blake3::Hasher::new(), bytes: 0, broken: None };
        let mut buffer = BufWriter::with_capacity(BUFFER, &mut out);
        let filled = fill(&mut buffer).and_then(|()| buffer.flush().map_err(|e| EngineError::Internal(e.to_string())));
        drop(buffer);
        self.env.check(self.gate)?;
        if let Some(message) = out.broken {
            return Err(store(&StoreError::new(ErrorKind::Io, at.as_str(), message)));
        }
        filled.map_err(|e| Refusal::of_engine(self.gate, &e))?;
        out.staged.finish().map_err(|e| store(&e))?;
        Ok(json!({"what": what, "path": path, "blake3": out.hasher.finalize().to_hex().to_string(), "bytes": out.bytes}))
    }

    /// Writes the list, last. What comes back is what the ledger has to record of it.
    pub(super) fn seal(self, proof: &Value, about: &Value) -> Result<Value, Refusal> {
        let list = document(&json!({
            "schema_version": "ofs.kept_gate.v2", "basis": self.basis(proof), "files": self.files, "about": about,
        }));
        let path = name(&self.env.attempt, self.gate, "list.json");
        let written = || {
            let mut staged = self.env.store.stage(&self.pinned.staging_ref().join(&path))?;
            staged.write_all(&list).map_err(|e| StoreError::new(ErrorKind::Io, path.as_str(), e.to_string()))?;
            staged.finish()
        };
        written().map_err(|e| Refusal::of_store(self.gate, &e))?;
        Ok(json!({"path": path, "blake3": blake3::hash(&list).to_hex().to_string()}))
    }

    fn basis(&self, proof: &Value) -> Value {
        basis(self.pinned, self.env, self.gate, proof)
    }
}

/// What kept files hold for: another program, another policy of replay or another identity has no use for them.
fn basis(pinned: &Pinned, env: &Env, gate: Phase, proof: &Value) -> Value {
    json!({
        "run_key": pinned.admitted().run_key(), "fingerprint": pinned.id().fingerprint, "shards": pinned.shards(), "gate": gate.as_str(),
        "proof_digest": crate::digest::digest(proof), "release": pin::RELEASE,
        "payload_hashes_verified": pin::verifies_hashes(pinned.intent(), env),
    })
}

/// Digests what passes, and remembers that it was the store that failed.
struct Hashed {
    staged: Box<dyn StagedFile>,
    hasher: blake3::Hasher,
    bytes: u64,
    broken: Option<String>,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.staged.write(bytes).inspect_err(|e| self.broken = Some(e.to_string()))?;
        self.hasher.update(bytes.get(..n).unwrap_or_default());
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.staged.flush()
    }
}

/// Kept files whose digests are still those that were recorded.
pub(super) struct Kept<'k> {
    env: &'k Env,
    gate: Phase,
    folder: Ref,
    list: Value,
}

impl<'k> Kept<'k> {
    /// Looks up what a gate has kept, and hashes all of it.
    ///
    /// # Errors
    /// `PROVENANCE_INCONSISTENT` or `DIGEST_MISMATCH` where it is not what was recorded, or does not hold here;
    /// the store's.
    pub(super) fn find(pinned: &Pinned, env: &'k Env, gate: Phase, recorded: &Recorded, proof: &Value) -> Result<Self, Refusal> {
        let foreign = |message: String| Refusal::new(ReasonCode::ProvenanceInconsistent, gate, message);
        let text = |pointer| recorded.text(gate, pointer).ok_or_else(|| foreign("the ledger records nothing that this gate kept".into()));
        let (path, wanted) = (text("/kept/path")?, text("/kept/blake3")?);
        if !crate::contract::path_safe(path) {
            return Err(foreign("the ledger names a list outside staging".into()));
        }
        let folder = pinned.staging_ref();
        let bytes = read(env.store.as_ref(), &folder.join(path), LIST_BYTES).map_err(|e| Refusal::of_store(gate, &e))?;
        if blake3::hash(&bytes).to_hex().as_str() != wanted {
            return Err(Refusal::new(ReasonCode::DigestMismatch, gate, format!("{path} changed after it was recorded")));
        }
        let list: Value = serde_json::from_slice(&bytes).map_err(|e| foreign(format!("{path}: {e}")))?;
        if list.get("basis") != Some(&basis(pinned, env, gate, proof)) {
            return Err(foreign(format!("{path} was kept for another identity, policy or release")));
        }
        let kept = Kept { env, gate, folder, list };
        kept.files().try_for_each(|file| kept.check(file))?;
        Ok(kept)
    }

    fn files(&self) -> impl Iterator<Item = &Value> {
        self.list.get("files").and_then(Value::as_array).into_iter().flatten()
    }

    fn place(&self, file: &Value) -> Result<Ref, Refusal> {
        let path = file.get("path").and_then(Value::as_str).filter(|path| crate::contract::path_safe(path));
        path.map(|path| self.folder.join(path)).ok_or_else(|| self.damaged("a list without paths"))
    }

    fn damaged(&self, message: &str) -> Refusal {
        Refusal::new(ReasonCode::ProvenanceInconsistent, self.gate, message)
    }

    fn check(&self, file: &Value) -> Result<(), Refusal> {
        let at = self.place(file)?;
        let mut hasher = blake3::Hasher::new();
        let digested = pieces(self.env.store.as_ref(), &at, &mut vec![0; PIECE], |piece| {
            hasher.update(piece);
            if self.env.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        self.env.check(self.gate)?;
        digested.map_err(|e| Refusal::of_store(self.gate, &e))?;
        let found = hasher.finalize().to_hex();
        let wanted = file.get("blake3").and_then(Value::as_str).unwrap_or_default();
        if found.as_str() == wanted {
            return Ok(());
        }
        Err(Refusal::new(ReasonCode::DigestMismatch, self.gate, format!("{at} changed after it was kept"))
            .with_evidence([format!("kept {wanted}"), format!("found {found}")]))
    }

    /// Reads rows of one kind, file by file; `take` is given up where the build is to stop.
    pub(super) fn rows(&self, what: &str, mut take: impl FnMut(&mut dyn Read) -> Result<(), EngineError>) -> Result<(), Refusal> {
        let mut files = self.files().filter(|file| file.get("what").and_then(Value::as_str) == Some(what)).peekable();
        if files.peek().is_none() {
            return Err(self.damaged("a file is not listed"));
        }
        for file in files {
            let mut reader = self.env.store.open(&self.place(file)?).map_err(|e| Refusal::of_store(self.gate, &e))?;
            let taken = take(&mut reader);
            self.env.check(self.gate)?;
            taken.map_err(|e| Refusal::of_engine(self.gate, &e))?;
        }
        Ok(())
    }

    /// What the gate said of itself besides.
    pub(super) fn about(&self, pointer: &str) -> Option<&Value> {
        self.list.get("about")?.pointer(pointer)
    }

    /// A number that it said.
    ///
    /// # Errors
    /// `PROVENANCE_INCONSISTENT` where it did not.
    pub(super) fn number(&self, pointer: &str) -> Result<u64, Refusal> {
        self.about(pointer).and_then(Value::as_u64).ok_or_else(|| self.damaged("the list lacks a number"))
    }
}

/// Stops a long pass over kept rows where the build is to stop; the pass's caller says why.
pub(super) fn go_on(env: &Env) -> Result<(), EngineError> {
    if env.cancel.is_cancelled() { Err(EngineError::Internal("the build was asked to stop".into())) } else { Ok(()) }
}
