//! `ofs verify --reprove`: the data set is built once more from the inputs as they are now, in scratch space,
//! and must come out as it was published: the same proofs, rows and files. What differs names the input
//! that has drifted; a label that was added under an old observed time is LABEL_STATE_DRIFT.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::dataset::{Opened, Part};
use super::diff::{self, Cause, Diff, DiffSide};
use super::verify::{Kind, Problem, Report};
use crate::contract::ReasonCode;
use crate::digest;
use crate::engine::dataset_file::WRITER_REVISION;
use crate::engine::scratch::PREFIX;
use crate::ledger::{Ledger, RunRow, Status};
use crate::pipeline::feature::Drafted;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::run::{self, Request};
use crate::pipeline::{admit, pin};
use crate::store::{Overlay, Ref, Store, StoreError};

/// Rows that a problem names.
const NAMED: usize = 3;

/// Rebuilds the data set and adds what differs to the report.
///
/// # Errors
/// What keeps a rebuild from being made at all: the environment's, the ledger's, `DIGEST_MISMATCH` where the published
/// parts cannot be read, `INTERRUPTED`. An input that has drifted is a problem of the report.
pub(super) fn check(env: &Env, ledger: Option<&Ledger>, manifest: &Ref, report: &mut Report) -> Result<(), Refusal> {
    let opened = Opened::open(env, manifest)?;
    let Some(row) = finished(ledger, &opened.manifest_id)? else {
        report.rebuilt = Some(false);
        problem(report, manifest, Kind::Unanchored, "a finished run in the ledger, whose request can be built again", "none");
        return Ok(());
    };
    let (scratch, store) = scratch(env)?;
    let drafted = match pins(env, &row, &opened).and_then(|pinned| run::rebuild(pinned, &scratch)) {
        Ok(drafted) => drafted,
        Err(refusal) => return refused(refusal, manifest, report),
    };
    report.rebuilt = Some(true);
    compare(env, &store, &opened, &drafted, report)
}

/// A finished run of a data set, whose request can be built again.
///
/// # Errors
/// The ledger's: one that cannot be read is another matter than one that holds no such run.
pub(super) fn finished(ledger: Option<&Ledger>, manifest_id: &str) -> Result<Option<RunRow>, Refusal> {
    let Some(ledger) = ledger else { return Ok(None) };
    let rows = ledger.by_manifest(manifest_id).map_err(|e| Refusal::new(e.code(), Phase::Ledger, e.to_string()))?;
    Ok(rows.into_iter().find(|row| row.status == Status::Done))
}

/// An environment whose store takes every write in scratch space.
fn scratch(env: &Env) -> Result<(Env, Arc<dyn Store>), Refusal> {
    within(env, overlay(env, false)?, &[])
}

fn unusable(message: String) -> Refusal {
    Refusal::new(ReasonCode::ScratchIo, Phase::Operate, message)
}

/// A layer in scratch space over the store; with events of its own, the archive below is not seen.
pub(super) fn overlay(env: &Env, own_events: bool) -> Result<Overlay, Refusal> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("{PREFIX}rebuild-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (store, folder) = (env.store.clone(), env.config.scratch().join(name));
    let made = if own_events { Overlay::with_own_events(store, folder) } else { Overlay::new(store, folder) };
    made.map_err(|e: StoreError| unusable(e.to_string()))
}

/// An environment over such a layer, with some inputs read from elsewhere.
pub(super) fn within(env: &Env, overlay: Overlay, inputs: &[(&str, PathBuf)]) -> Result<(Env, Arc<dyn Store>), Refusal> {
    let mut config = (*env.config).clone();
    let spill = ("scratch", overlay.spill());
    for (key, path) in inputs.iter().chain([&spill]) {
        let path = path.to_str().ok_or_else(|| unusable("the path of scratch space is not UTF-8".into()))?;
        config.set_flag("paths", key, path).map_err(|e| unusable(e.to_string()))?;
    }
    let store: Arc<dyn Store> = Arc::new(overlay);
    Ok((Env { store: store.clone(), config: Arc::new(config), attempt: "rebuild".into(), ..env.clone() }, store))
}

/// The pins of the request as they resolve now, which must be those of the data set.
pub(super) fn pins(env: &Env, row: &RunRow, opened: &Opened) -> Result<pin::Pinned, Refusal> {
    let request = Request::of_row(row).map_err(|e| Refusal::new(e.code(), Phase::Ledger, e.to_string()))?;
    let active = env.config.text("workspace", "platform_run_id");
    let admitted = admit::prove(&request.intent, request.supersession, active).map_err(|not| not.refusal)?;
    let pinned = pin::resolve(admitted, env)?;
    if pinned.id().manifest_id == opened.manifest_id {
        return Ok(pinned);
    }
    let differing: Vec<String> =
        pinned.identity().as_object().into_iter().flatten().filter(|(k, v)| opened.identity(k) != **v).map(|(k, _)| k.clone()).collect();
    let message = format!("the request now resolves to {}, by another {}", pinned.id().manifest_id, differing.join(", "));
    Err(Refusal::new(ReasonCode::BuildPlanImmutabilityViolation, Phase::Pins, message))
}

/// Whether a refusal says nothing of the inputs, but that this machine could not build.
pub(super) fn environment(code: ReasonCode) -> bool {
    use ReasonCode as C;
    matches!(code, C::StoreIo | C::SourceIo | C::ScratchIo | C::LabelStoreUnavailable | C::LedgerIo | C::Interrupted | C::MemoryBudget)
}

/// A refusal where there was none when the data set was published: which input has drifted, unless it is the
/// environment that fails.
fn refused(refusal: Refusal, manifest: &Ref, report: &mut Report) -> Result<(), Refusal> {
    if environment(refusal.code) {
        return Err(refusal);
    }
    report.rebuilt = Some(false);
    let kind = match refusal.phase {
        Phase::Labels => Kind::LabelStateDrift,
        Phase::Replay => Kind::ReplayDrift,
        Phase::Features => Kind::RowsDigest,
        _ => Kind::PinsDrift,
    };
    let found = refusal.evidence.first().map_or_else(|| refusal.message.clone(), |line| format!("{}: {line}", refusal.message));
    problem(
        report,
        manifest,
        kind,
        "a rebuild that passes every gate again",
        format!("{} at the {} gate: {found}", refusal.code, refusal.phase.as_str()),
    );
    Ok(())
}

fn problem(report: &mut Report, place: &Ref, kind: Kind, expected: impl Into<String>, found: impl Into<String>) {
    report.problems.push(Problem { place: place.to_string(), kind, expected: expected.into(), found: found.into() });
}

/// Rebuilt against published.
fn compare(env: &Env, store: &Arc<dyn Store>, opened: &Opened, drafted: &Drafted, report: &mut Report) -> Result<(), Refusal> {
    let folder = Ref::of(&[&opened.run, "ofs", "datasets", &opened.manifest_id]);
    let of = |pointer: &str| opened.index.pointer(pointer).cloned().unwrap_or_default();
    report.checked += 1;
    let [_, (_, labels), (_, replay)] = drafted.proofs();
    let same_replay = proof(&folder, "replay", replay, Kind::ReplayDrift, &of("/evidence/replay/blake3"), report);
    let same_labels = proof(&folder, "labels", labels, Kind::LabelStateDrift, &of("/evidence/labels/blake3"), report);
    let same_rows = json!(drafted.rows_digest()) == of("/rows_digest");
    if !same_rows || !same_labels {
        let rows = differing(env, store, opened, drafted)?;
        let kind = match (same_labels, same_replay, rows.by_cause.contains_key(&Cause::LateAssertion)) {
            (false, ..) | (_, _, true) => Kind::LabelStateDrift,
            (_, false, _) => Kind::ReplayDrift,
            _ => Kind::RowsDigest,
        };
        problem(
            report,
            &folder,
            kind,
            format!("rows_digest {}", text(&of("/rows_digest"))),
            format!("rows_digest {}{}", drafted.rows_digest(), named(&rows)),
        );
    }
    // Under another revision of the writer the bytes may lawfully differ, and the rows decide.
    if same_rows && of("/writer_revision") == json!(WRITER_REVISION) {
        let (published, rebuilt) = (of("/files"), drafted.files().iter().map(|f| f.to_json()).collect::<Value>());
        report.checked += 1;
        if published != rebuilt {
            problem(report, &folder, Kind::Digest, format!("files {published}"), format!("files {rebuilt}"));
        }
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("none")
}

/// Whether a proof comes out as it was published.
fn proof(folder: &Ref, name: &str, rebuilt: &Value, kind: Kind, published: &Value, report: &mut Report) -> bool {
    report.checked += 1;
    let digest = blake3::hash(&crate::pipeline::gate::document(rebuilt)).to_hex().to_string();
    let same = text(published) == digest;
    if !same {
        let at = folder.join("evidence").join(&format!("{name}.json"));
        let found = format!("{digest} (proof {})", digest::digest(rebuilt));
        problem(report, &at, kind, text(published), found);
    }
    same
}

/// Which rows differ between the published parts and those of the rebuild.
fn differing(env: &Env, store: &Arc<dyn Store>, opened: &Opened, drafted: &Drafted) -> Result<Diff, Refusal> {
    let side = |rows_digest: String| DiffSide {
        manifest_id: opened.manifest_id.clone(),
        manifest_ref: opened.manifest_ref.clone(),
        rows_digest,
        rows: 0,
    };
    let mut rows = Diff::new(
        side(text(&opened.index.get("rows_digest").cloned().unwrap_or_default()).to_owned()),
        side(drafted.rows_digest().to_owned()),
        Vec::new(),
    );
    let staged = drafted.files().iter();
    let staged: Vec<Part> =
        staged.map(|f| Part { at: drafted.staged_ref(f), bytes: f.stats.bytes, blake3: f.stats.blake3.clone() }).collect();
    let (left, right) = (diff::open_rows(env, &env.store, opened.parts.clone())?, diff::open_rows(env, store, staged)?);
    diff::merge(left, right, &diff::Rebuild, NAMED, &mut rows)?;
    Ok(rows)
}

/// The differing rows in words, the first few by name.
fn named(rows: &Diff) -> String {
    let count = rows.rows;
    let changed = rows.changed.iter().flat_map(|row| {
        row.changes.iter().take(1).map(move |c| format!("{}: {} was {}, is {}", row.row.event_id, c.column, c.left, c.right))
    });
    let alone = |list: &[(diff::RowRef, Cause)], what: &str| -> Vec<String> {
        list.iter().map(|(row, _)| format!("{} {what}", row.event_id)).collect()
    };
    let first: Vec<String> = changed.chain(alone(&rows.removed, "is gone")).chain(alone(&rows.added, "is new")).take(NAMED).collect();
    if first.is_empty() {
        return String::new();
    }
    format!("; {} row(s) changed, {} gone, {} new: {}", count.changed, count.removed, count.added, first.join("; "))
}
