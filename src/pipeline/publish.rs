//! Gate 7: the only place that makes a data set discoverable (O112 to O129).
//!
//! Order: parts → evidence → supersession link → `COMMIT_STARTED` → index → manifest → read-back →
//! publication receipt. The manifest is the commit; before it nothing can be found, after it everything
//! that it stands for is in place and was verified (pitfall 33). From `COMMIT_STARTED` on the run cannot be
//! called off, so that a cancelled one leaves no index that names data files.

mod standing;

use serde_json::{Map, Value, json};

use super::feature::{Drafted, PartFile, dataset_schema, schema_json};
use super::gate::{Env, Phase, Refusal, document, keep_receipt};
use super::pin::{Found, Pinned};
use crate::contract::{ReasonCode, manifest, path_safe};
use crate::engine::dataset_file::WRITER_REVISION;
use crate::store::{Created, ErrorKind, Immutable, Ref, Store, StoreError, create_immutable, read};

const PHASE: Phase = Phase::Publication;

pub use standing::{Vouched, vouched};

/// How a commit ended.
#[derive(Debug)]
pub enum Commit {
    /// The data set is published.
    Published(Box<Published>),
    /// Everything is in place but the commit itself could not be settled.
    Pending(Refusal),
}

/// A published data set.
#[derive(Debug, Clone)]
pub struct Published {
    /// Ref of the manifest.
    pub manifest_ref: Ref,
    /// Ref of the publication receipt.
    pub receipt_ref: Ref,
    /// BLAKE3 of the publication receipt.
    pub receipt_blake3: String,
    /// The index.
    pub index: Value,
    /// Whether this very put made the manifest, as far as the store says; not, where it stood already.
    pub created: bool,
}

/// Called right before the manifest is put; an error stops the commit (a lost lease).
pub type CommitJournal<'j> = dyn Fn(&Ref) -> Result<(), Refusal> + 'j;

fn store(error: &crate::store::StoreError) -> Refusal {
    Refusal::of_store(PHASE, error)
}

/// Publishes a draft.
///
/// # Errors
/// A refusal of gate 7: nothing was committed.
pub fn publish(drafted: &Drafted, env: &Env, journal: &CommitJournal<'_>) -> Result<Commit, Refusal> {
    let pinned = drafted.pinned();
    env.progress.enter(PHASE, drafted.files().len() as u64 + 3);
    consistent(drafted)?;
    drafted.check_staged(env)?;
    for file in drafted.files() {
        env.check(PHASE)?;
        place_part(drafted, env, file)?;
        env.progress.advance(1);
    }
    let evidence = evidence_of(drafted, Some(env))?;
    let index = index_of(drafted, &evidence);
    let index_bytes = document(&index);
    place_supersession(pinned, env)?;
    env.check(PHASE)?;
    let manifest_ref = pinned.manifest_ref();
    journal(&manifest_ref)?;
    if let Err(refusal) = place(env, &index_ref(pinned), &index_bytes, ReasonCode::DatasetArtifactImmutabilityViolation) {
        return match refusal.code {
            // No manifest was put, so the commit is settled as not made.
            ReasonCode::StoreIo => Ok(Commit::Pending(Refusal::new(ReasonCode::CommitFailed, PHASE, refusal.message))),
            _ => Err(refusal),
        };
    }
    env.progress.advance(1);
    let created = match commit(pinned, env, &manifest_ref)? {
        Committed::Stands { created } => created,
        Committed::Unsettled(pending) => return Ok(Commit::Pending(pending)),
    };
    env.progress.advance(1);
    receipt(pinned, env, index, &index_bytes).map(|published| Commit::Published(Box::new(Published { created, ..published })))
}

fn index_ref(pinned: &Pinned) -> Ref {
    pinned.dataset_ref().join("index.json")
}

/// Plan, replay, labels and draft must speak of one basis, one cut-off and one definition (O115).
fn consistent(drafted: &Drafted) -> Result<(), Refusal> {
    let pinned = drafted.pinned();
    let [(_, features), (_, labels), (_, replay)] = drafted.proofs();
    let pins = Pins {
        basis: crate::identity::basis_hash(pinned.intent()),
        asof: pinned.intent().labels.asof.to_string(),
        definition: pinned.group_digest().to_owned(),
        training: pinned.intent().training(),
    };
    let parts = drafted.files().iter().map(|f| f.stats.rows).sum();
    agree(&pins, replay, labels, features, (drafted.rows(), parts))
}

/// What the proofs of one run are held to.
struct Pins {
    basis: String,
    asof: String,
    definition: String,
    training: bool,
}

/// Whether the proofs are of the run that the pins name, and for training of one whose label gate is ready (O114).
/// `draft` is the number of its rows, as it says and as its parts have them.
fn agree(pins: &Pins, replay: &Value, labels: &Value, features: &Value, draft: (u64, u64)) -> Result<(), Refusal> {
    let refuse = |code, message: String| Err(Refusal::new(code, PHASE, message));
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let checks = [
        ("replay status", text(replay, "/status"), "COMPLETE"),
        ("basis of the replay", text(replay, "/basis_hash"), pins.basis.as_str()),
        ("cut-off of the labels", text(labels, "/label_basis/label_asof_utc"), pins.asof.as_str()),
        ("definition of the features", text(features, "/feature_definition_set/group_digest"), pins.definition.as_str()),
    ];
    if let Some((what, found, wanted)) = checks.into_iter().find(|(_, found, wanted)| found != wanted) {
        return refuse(ReasonCode::ProvenanceInconsistent, format!("{what}: {found}, but the pins say {wanted}"));
    }
    let rows = |value: &Value| value.get("rows").and_then(Value::as_u64);
    if rows(labels) != rows(features) || draft.0 != draft.1 {
        return refuse(ReasonCode::ProvenanceInconsistent, "labels, features and parts differ in their number of rows".into());
    }
    if pins.training && labels.pointer("/gate/ready") != Some(&Value::Bool(true)) {
        return refuse(ReasonCode::LabelGateUnsatisfied, "a training data set needs a label gate that is ready".into());
    }
    Ok(())
}

fn place_part(drafted: &Drafted, env: &Env, file: &PartFile) -> Result<(), Refusal> {
    let (staged, to) = (drafted.staged_ref(file), drafted.pinned().dataset_ref().join(&file.path));
    match env.store.promote(&staged, &to) {
        Ok(Created::New) => return Ok(()),
        // It stands already, from this very draft or from another one.
        Ok(Created::Exists) => {}
        Err(e) if e.kind == ErrorKind::NotFound => {}
        Err(e) => return Err(store(&e)),
    }
    let (digest, bytes) = crate::store::digest(env.store.as_ref(), &to).map_err(|e| store(&e))?;
    if digest != file.stats.blake3 || bytes != file.stats.bytes {
        return Err(Refusal::new(
            ReasonCode::DatasetArtifactImmutabilityViolation,
            PHASE,
            format!("{to} stands with other content; a label that became known late under an old observed time is the usual cause"),
        )
        .with_evidence([
            format!("stands {digest} ({bytes} bytes)"),
            format!("proved {} ({} bytes)", file.stats.blake3, file.stats.bytes),
        ]));
    }
    Ok(())
}

fn place(env: &Env, at: &Ref, bytes: &[u8], violation: ReasonCode) -> Result<(), Refusal> {
    match create_immutable(env.store.as_ref(), at, bytes).map_err(|e| store(&e))? {
        Immutable::New | Immutable::Same => Ok(()),
        Immutable::Different(found) => Err(Refusal::new(violation, PHASE, format!("{at} stands with other content"))
            .with_evidence([format!("stands {found}"), format!("proved {}", blake3::hash(bytes).to_hex())])),
    }
}

/// Ref below the data set and BLAKE3 of each proof document, which is put there where an environment is given.
fn evidence_of(drafted: &Drafted, env: Option<&Env>) -> Result<Map<String, Value>, Refusal> {
    let folder = drafted.pinned().dataset_ref();
    let mut evidence = Map::new();
    for (name, proof) in drafted.proofs() {
        let bytes = document(proof);
        let at = folder.join("evidence").join(&format!("{name}.json"));
        if let Some(env) = env {
            place(env, &at, &bytes, ReasonCode::DatasetArtifactImmutabilityViolation)?;
        }
        evidence.insert(name.into(), json!({"ref": at.as_str(), "blake3": blake3::hash(&bytes).to_hex().to_string()}));
    }
    Ok(evidence)
}

/// What the data set is and how it was proved: a pure function of identity and rows.
fn index_of(drafted: &Drafted, evidence: &Map<String, Value>) -> Value {
    let pinned = drafted.pinned();
    let [(_, features), (_, labels), _] = drafted.proofs();
    let copy = |value: &Value, key: &str| value.get(key).cloned().unwrap_or(Value::Null);
    json!({
        "schema_version": "ofs.dataset_index.v1", "manifest_id": pinned.id().manifest_id, "fingerprint": pinned.id().fingerprint, "identity": pinned.identity(),
        "plan_id": crate::identity::plan_id(pinned.identity()), "basis_hash": crate::identity::basis_hash(pinned.intent()), "training": pinned.intent().training(),
        "rows": drafted.rows(), "rows_digest": drafted.rows_digest(), "files": drafted.files().iter().map(PartFile::to_json).collect::<Vec<_>>(),
        "schema": schema_json(&dataset_schema(pinned)), "evidence": evidence, "writer_revision": WRITER_REVISION,
        "anchor_mode": copy(features, "anchor_mode"), "sampling": Value::Null, "label_posture": copy(labels, "label_posture"),
        "feature_availability": copy(features, "feature_availability"), "rows_using_later_arrivals": copy(features, "rows_using_later_arrivals"),
        "intervals": {"offsets": "closed", "windows": copy(features, "window_interval")}, "row_order": copy(features, "row_order"),
        "dropped": copy(features, "dropped"), "redelivered_events": copy(features, "redelivered_events"), "delivered_events": copy(features, "delivered_events"),
        "label_coverage": copy(labels, "types"), "label_gate": copy(labels, "gate"), "supersedes": pinned.admitted().superseded(),
    })
}

/// Links to what is superseded, before the commit so that a refused one leaves no manifest (pitfall 33),
/// and from each old manifest to the new one, so that the old can be asked what superseded it (O123).
fn place_supersession(pinned: &Pinned, env: &Env) -> Result<(), Refusal> {
    let Some((at, link)) = supersession_link(pinned) else { return Ok(()) };
    place(env, &at, &link, ReasonCode::SupersessionLinkImmutabilityViolation)?;
    let (run, new) = (&pinned.intent().platform_run_id, &pinned.id().manifest_id);
    for old in pinned.admitted().superseded() {
        let (at, back) = superseded_by(run, old, new);
        place(env, &at, &back, ReasonCode::SupersessionLinkImmutabilityViolation)?;
    }
    Ok(())
}

/// Where the run's own link to what it supersedes lies, and its bytes; nothing for a build that corrects nothing.
fn supersession_link(pinned: &Pinned) -> Option<(Ref, Vec<u8>)> {
    let superseded = pinned.admitted().superseded();
    let link = json!({
        "schema_version": "learning.ofs_dataset_supersession.v1", "run_key": pinned.admitted().run_key(), "platform_run_id": pinned.intent().platform_run_id,
        "dataset_manifest_id": pinned.id().manifest_id, "supersedes": superseded, "correction_stamp": crate::identity::correction_stamp(superseded),
        "reason": pinned.admitted().supersede_reason(),
    });
    (!superseded.is_empty()).then(|| (pinned.receipt_ref("supersession"), document(&link)))
}

/// Below which folder the links from a superseded data set to its corrections lie.
pub fn superseded_folder(run: &str, old: &str) -> Ref {
    Ref::of(&[run, "ofs", "supersession", "by_manifest", old])
}

/// The published corrections of a data set, by name, each with its manifest. A link whose data set was never
/// committed counts for nothing: its build was cut off, and may still come.
///
/// # Errors
/// The store's.
pub fn corrections(store: &dyn Store, run: &str, old: &str) -> Result<Vec<(String, Ref)>, StoreError> {
    let folder = superseded_folder(run, old);
    let mut found = Vec::new();
    for (at, _) in store.list(&folder)? {
        let name = at.as_str().strip_prefix(folder.as_str()).and_then(|n| n.strip_prefix('/')).and_then(|n| n.strip_suffix(".json"));
        let Some(new) = name.filter(|n| path_safe(n)) else { continue };
        for kind in ["manifests", "manifests_nontraining"] {
            let manifest = Ref::of(&[run, "ofs", kind, &format!("{new}.json")]);
            if store.size(&manifest)?.is_some() {
                found.push((new.to_owned(), manifest));
                break;
            }
        }
    }
    Ok(found)
}

/// Whether a data set that another request published may be this request's, too: one that a published
/// correction supersedes only where the policy says so (O123).
///
/// # Errors
/// `SUPERSEDED_REUSE_DENIED`, the store's.
pub fn reusable(pinned: &Pinned, env: &Env) -> Result<(), Refusal> {
    if env.config.flag("launcher", "reuse_superseded") {
        return Ok(());
    }
    let (run, id) = (&pinned.intent().platform_run_id, &pinned.id().manifest_id);
    let corrections = corrections(env.store.as_ref(), run, id).map_err(|e| store(&e))?;
    if corrections.is_empty() {
        return Ok(());
    }
    let message = format!("{id} is published, but superseded, and launcher.reuse_superseded is off");
    let lines = corrections.into_iter().map(|(new, at)| format!("superseded by {new}: {at}"));
    Err(Refusal::new(ReasonCode::SupersededReuseDenied, PHASE, message).with_evidence(lines))
}

/// The link from a superseded data set to one of its corrections: where it lies, and its bytes, which
/// follow from the two names alone.
pub fn superseded_by(run: &str, old: &str, new: &str) -> (Ref, Vec<u8>) {
    let back = json!({"schema_version": "learning.ofs_dataset_superseded_by.v1", "dataset_manifest_id": old, "superseded_by": new});
    (superseded_folder(run, old).join(&format!("{new}.json")), document(&back))
}

/// What a commit came to.
enum Committed {
    /// The manifest of this identity stands. Not created: somebody had put it before.
    Stands { created: bool },
    /// It does not, or nobody can tell.
    Unsettled(Refusal),
}

/// Puts the manifest and settles the answer by reading back: what stands decides, not what the put said.
fn commit(pinned: &Pinned, env: &Env, manifest_ref: &Ref) -> Result<Committed, Refusal> {
    let bytes = manifest::manifest_bytes(pinned.intent(), pinned.id());
    let put = env.store.create(manifest_ref, &bytes);
    match (read(env.store.as_ref(), manifest_ref, bytes.len() as u64 + (1 << 20)), put) {
        (Ok(found), put) if found == bytes => Ok(Committed::Stands { created: !matches!(put, Ok(Created::Exists)) }),
        (Ok(found), _) => Err(Refusal::new(
            ReasonCode::ManifestImmutabilityViolation,
            PHASE,
            format!("{manifest_ref} stands and is not the manifest of this identity"),
        )
        .with_evidence([format!("stands {}", blake3::hash(&found).to_hex()), format!("proved {}", blake3::hash(&bytes).to_hex())])),
        (Err(e), Err(put)) if e.kind == ErrorKind::NotFound => Ok(Committed::Unsettled(Refusal::new(
            ReasonCode::CommitFailed,
            PHASE,
            format!("the store refused the manifest and holds none: {put}"),
        ))),
        (Err(e), Ok(_)) if e.kind == ErrorKind::NotFound => Ok(Committed::Unsettled(Refusal::new(
            ReasonCode::PublishAmbiguous,
            PHASE,
            format!("the store took the manifest, yet does not hold it: {e}"),
        ))),
        (Err(e), _) => Ok(Committed::Unsettled(Refusal::new(
            ReasonCode::PublishAmbiguous,
            PHASE,
            format!("whether the manifest was committed cannot be read back: {e}"),
        ))),
    }
}

fn receipt(pinned: &Pinned, env: &Env, index: Value, index_bytes: &[u8]) -> Result<Published, Refusal> {
    let manifest_bytes = manifest::manifest_bytes(pinned.intent(), pinned.id());
    let digests = (blake3::hash(&manifest_bytes).to_hex().to_string(), blake3::hash(index_bytes).to_hex().to_string());
    write_receipt(pinned, env, index, digests.0, digests.1)
}

/// Writes the publication receipt of a data set that another request published, or that this run had
/// committed before it was cut off.
///
/// # Errors
/// `PUBLICATION_RECEIPT_IMMUTABILITY_VIOLATION` where another receipt of this run stands,
/// `DATASET_ARTIFACT_IMMUTABILITY_VIOLATION` where a file is there that is not what the index names.
pub fn adopt(pinned: &Pinned, env: &Env, found: Found) -> Result<Published, Refusal> {
    standing::check_whole(pinned, env, &found.index)?;
    // Whoever published it had reasons of its own for the correction; this run's link says this run's.
    place_supersession(pinned, env)?;
    write_receipt(pinned, env, found.index, found.manifest_blake3, found.index_blake3)
}

fn write_receipt(pinned: &Pinned, env: &Env, index: Value, manifest_blake3: String, index_blake3: String) -> Result<Published, Refusal> {
    let manifest_ref = pinned.manifest_ref();
    let copy = |key: &str| index.get(key).cloned().unwrap_or(Value::Null);
    let link =
        supersession_link(pinned).map(|(at, bytes)| json!({"ref": at.as_str(), "blake3": blake3::hash(&bytes).to_hex().to_string()}));
    let receipt = json!({
        "schema_version": "learning.ofs_manifest_publication_receipt.v1", "running": pinned.running(), "run_key": pinned.admitted().run_key(), "request_id": pinned.intent().request_id,
        "platform_run_id": pinned.intent().platform_run_id, "dataset_manifest_id": pinned.id().manifest_id, "dataset_fingerprint": pinned.id().fingerprint,
        "training_intent": pinned.intent().training(), "manifest": {"ref": manifest_ref.as_str(), "blake3": manifest_blake3},
        "index": {"ref": pinned.dataset_ref().join("index.json").as_str(), "blake3": index_blake3},
        "rows": copy("rows"), "rows_digest": copy("rows_digest"), "supersedes": pinned.admitted().superseded(), "supersession": link,
        "policy": {"claimed": {"policy_revision": pinned.intent().policy_revision, "config_revision": pinned.intent().config_revision, "ofs_code_release_id": pinned.intent().code_release}},
    });
    let at = pinned.receipt_ref("publication_receipts");
    let fields = ["run_key", "request_id", "dataset_manifest_id", "manifest", "index", "rows_digest", "supersedes"];
    keep_receipt(env.store.as_ref(), &at, &receipt, &fields, ReasonCode::PublicationReceiptImmutabilityViolation, PHASE)?;
    // The first receipt of a run stands, so what the ledger anchors is what is stored, not what was made now.
    let (receipt_blake3, _) = crate::store::digest(env.store.as_ref(), &at).map_err(|e| store(&e))?;
    Ok(Published { manifest_ref, receipt_ref: at, receipt_blake3, index, created: false })
}

/// Puts back files that the index names and that are gone: the rebuilt draft must have the same rows
/// and the same bytes (O159). Where the manifest is gone too, `vouched` says what the index has to be, and the
/// manifest is put back last.
///
/// # Errors
/// `DATASET_ARTIFACT_IMMUTABILITY_VIOLATION` where it has not.
pub fn restore(drafted: &Drafted, env: &Env, found: &Found, vouched: Option<&Vouched>) -> Result<(), Refusal> {
    let pinned = drafted.pinned();
    consistent(drafted)?;
    drafted.check_staged(env)?;
    let named = found.index.get("files");
    let made: Value = drafted.files().iter().map(PartFile::to_json).collect();
    let same_rows = found.index.get("rows_digest").and_then(Value::as_str) == Some(drafted.rows_digest());
    let revision = found.index.get("writer_revision").and_then(Value::as_str);
    if !found.index.is_null() && (!same_rows || (revision == Some(WRITER_REVISION) && named != Some(&made))) {
        return Err(Refusal::new(ReasonCode::DatasetArtifactImmutabilityViolation, PHASE, "the rebuilt rows are not those that were published (LABEL_STATE_DRIFT: an assertion was added under an observed time before the cut-off, or removed)")
            .with_evidence([format!("published rows_digest {}", found.index.get("rows_digest").and_then(Value::as_str).unwrap_or("unknown")), format!("rebuilt rows_digest {}", drafted.rows_digest())]));
    }
    let index = document(&index_of(drafted, &evidence_of(drafted, None)?));
    let made = blake3::hash(&index).to_hex().to_string();
    if let Some(vouched) = vouched.filter(|vouched| vouched.index != made) {
        let message = "the rebuilt data set is not the one that was published: its index differs, and no manifest is put back for it";
        return Err(Refusal::new(ReasonCode::DatasetArtifactImmutabilityViolation, PHASE, message)
            .with_evidence([format!("published {}", vouched.index), format!("rebuilt {made}")]));
    }
    for file in drafted.files() {
        place_part(drafted, env, file)?;
    }
    evidence_of(drafted, Some(env))?;
    place(env, &index_ref(pinned), &index, ReasonCode::DatasetArtifactImmutabilityViolation)?;
    if vouched.is_some() {
        let bytes = manifest::manifest_bytes(pinned.intent(), pinned.id());
        place(env, &pinned.manifest_ref(), &bytes, ReasonCode::ManifestImmutabilityViolation)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pins, and the proofs of replay, labels and features, of a training build that differs from another in its name.
    fn run(name: &str, rows: u64) -> (Pins, [Value; 3]) {
        let pins = Pins { basis: format!("b-{name}"), asof: format!("t-{name}"), definition: format!("d-{name}"), training: true };
        let proofs = [
            json!({"status": "COMPLETE", "basis_hash": pins.basis}),
            json!({"label_basis": {"label_asof_utc": pins.asof}, "rows": rows, "gate": {"ready": true}}),
            json!({"feature_definition_set": {"group_digest": pins.definition}, "rows": rows}),
        ];
        (pins, proofs)
    }

    fn held(pins: &Pins, [replay, labels, features]: &[Value; 3], draft: (u64, u64)) -> Result<(), (ReasonCode, String)> {
        agree(pins, replay, labels, features, draft).map_err(|refusal| (refusal.code, refusal.message))
    }

    #[test]
    fn proofs_of_two_runs_are_never_published_together() {
        let ((pins, mine), (_, other)) = (run("mine", 7), run("other", 7));
        assert_eq!(held(&pins, &mine, (7, 7)), Ok(()));
        for (swapped, what) in [(0, "basis of the replay"), (1, "cut-off of the labels"), (2, "definition of the features")] {
            let mut mixed = mine.clone();
            mixed[swapped] = other[swapped].clone();
            let (code, message) = held(&pins, &mixed, (7, 7)).unwrap_err();
            assert_eq!((code, message.starts_with(what)), (ReasonCode::ProvenanceInconsistent, true), "{message}");
        }
        // Two runs of the same pins are told by their rows.
        let (_, longer) = run("mine", 8);
        for swapped in [1, 2] {
            let mut mixed = mine.clone();
            mixed[swapped] = longer[swapped].clone();
            assert_eq!(held(&pins, &mixed, (7, 7)).unwrap_err().0, ReasonCode::ProvenanceInconsistent);
        }
        assert_eq!(held(&pins, &mine, (7, 6)).unwrap_err().0, ReasonCode::ProvenanceInconsistent);
        let mut open = mine;
        open[0]["status"] = json!("INCOMPLETE");
        assert_eq!(held(&pins, &open, (7, 7)).unwrap_err().0, ReasonCode::ProvenanceInconsistent);
    }

    #[test]
    fn training_data_needs_a_label_gate_that_is_ready() {
        let (mut pins, mut proofs) = run("r", 7);
        for ready in [json!(false), Value::Null, json!("true")] {
            proofs[1]["gate"]["ready"] = ready;
            assert_eq!(held(&pins, &proofs, (7, 7)).unwrap_err().0, ReasonCode::LabelGateUnsatisfied);
        }
        pins.training = false;
        assert_eq!(held(&pins, &proofs, (7, 7)), Ok(()));
    }
}
