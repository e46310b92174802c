//! `ofs archive seal`: raw records of the archive become sealed segments, each record verified once.
//!
//! A lane is read twice. The first pass takes the offsets, which says how the segments are cut and whether
//! attested counts agree; the second takes the records, verifies every payload hash and sends each to its
//! segment, within the memory limit. Nothing is written before both have found nothing wrong with the lane.
//! Each segment's sidecar is written last, so whatever is killed goes on where it was; a lane without new
//! records is left as it is. An archive that this program itself writes is sealed on the way ([`Stream`]).

mod attest;
mod census;
mod lane;
mod shelf;
mod store;
mod stream;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

pub use self::attest::{Attestation, parse as parse_attestations};
pub use self::stream::Stream;
use crate::contract::ReasonCode;
use crate::contract::intent::{Lane, OffsetRange};
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::parallel;
use crate::pipeline::replay::Work;
use crate::source::lanes_below;
use crate::source::sealed::Index;
use crate::store::Ref;

const PHASE: Phase = Phase::Replay;

/// What became of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Segments were written.
    Sealed,
    /// There was nothing new.
    UpToDate,
    /// A sparse kind without an attestation for what is new: its records stay raw.
    Unattested,
    /// A record, a segment or an attestation contradicts another; nothing of what is new was sealed.
    Refused,
}

impl Outcome {
    /// As in `ofs.seal.v1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Sealed => "SEALED",
            Outcome::UpToDate => "UP_TO_DATE",
            Outcome::Unattested => "UNATTESTED",
            Outcome::Refused => "REFUSED",
        }
    }
}

/// A segment that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its file.
    pub file: Ref,
    /// What it speaks of.
    pub range: OffsetRange,
    /// Records.
    pub records: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Whether its range is attested.
    pub attested: bool,
}

/// A lane after sealing.
#[derive(Debug)]
pub struct LaneSealed {
    /// Which.
    pub lane: Lane,
    /// What became of it.
    pub outcome: Outcome,
    /// What was written.
    pub segments: Vec<Written>,
    /// Lines whose offset cannot be known; they stay raw, and so does their file.
    pub unreadable: u64,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
}

/// What sealing came to.
#[derive(Debug)]
pub struct Report {
    /// The run.
    pub platform_run_id: String,
    /// Its lanes in order.
    pub lanes: Vec<LaneSealed>,
}

impl Report {
    /// Records that were sealed now.
    pub fn records(&self) -> u64 {
        self.lanes.iter().flat_map(|lane| &lane.segments).map(|s| s.records).sum()
    }

    /// The first refusal.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.lanes.iter().find_map(|lane| lane.refusal.as_ref())
    }

    /// `ofs.seal.v1`.
    pub fn to_json(&self) -> Value {
        let segment = |s: &Written| json!({"ref": s.file.as_str(), "start_offset": s.range.start, "end_offset": s.range.end, "records": s.records, "bytes": s.bytes, "attested": s.attested});
        let lane = |l: &LaneSealed| {
            json!({
                "topic": l.lane.topic, "partition": l.lane.partition, "offset_kind": l.lane.kind, "outcome": l.outcome.as_str(),
                "segments": l.segments.iter().map(segment).collect::<Vec<_>>(), "undecodable_unplaced": l.unreadable,
                "reason": l.refusal.as_ref().map(|r| json!({"code": r.code, "message": r.message, "evidence": r.evidence})),
            })
        };
        let segments: Vec<&Written> = self.lanes.iter().flat_map(|lane| &lane.segments).collect();
        json!({
            "schema_version": "ofs.seal.v1", "platform_run_id": self.platform_run_id, "segments": segments.len(), "records": self.records(),
            "bytes": segments.iter().map(|s| s.bytes).sum::<u64>(), "lanes": self.lanes.iter().map(lane).collect::<Vec<_>>(),
        })
    }
}

/// Seals what is new in the archive of a run. A lane that contradicts itself is refused and the others are
/// sealed all the same.
///
/// # Errors
/// The environment's, and the order to stop.
pub fn seal(env: &Env, run: &str, attestations: &[Attestation]) -> Result<Report, Refusal> {
    let lanes: Vec<Lane> =
        held(env, run)?.into_iter().chain(attestations.iter().map(Attestation::lane)).collect::<BTreeSet<_>>().into_iter().collect();
    let work = Work::new(env, &format!("seal-{run}"))?;
    let index = Arc::new(Index::new(env.store.clone(), run));
    let done: Vec<Mutex<Option<LaneSealed>>> = lanes.iter().map(|_| Mutex::new(None)).collect();
    env.progress.enter(PHASE, 0);
    parallel::each(
        env,
        PHASE,
        lanes.len(),
        || (),
        |(), at| {
            let (Some(lane), Some(slot)) = (lanes.get(at), done.get(at)) else { return Ok(()) };
            let sealed = lane::seal(&lane::Task { env, run, lane, index: &index, work: &work, attestations });
            let sealed = match sealed {
                Err(refusal) if environmental(refusal.code) => return Err(refusal),
                Err(refusal) => LaneSealed {
                    lane: lane.clone(),
                    outcome: Outcome::Refused,
                    segments: Vec::new(),
                    unreadable: 0,
                    refusal: Some(refusal),
                },
                Ok(sealed) => sealed,
            };
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(sealed);
            Ok(())
        },
        |()| Ok(()),
    )?;
    let lanes = done.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
    Ok(Report { platform_run_id: run.to_owned(), lanes })
}

/// The run to be sealed: the one that is named, the active one, or the only one with an archive.
///
/// # Errors
/// In words, where that is none or several.
pub fn run_of(env: &Env, named: Option<&str>) -> Result<String, String> {
    if let Some(run) = named.or(Some(env.config.text("workspace", "platform_run_id")).filter(|run| !run.is_empty())) {
        let usable = crate::contract::path_safe(run);
        return if usable { Ok(run.to_owned()) } else { Err(format!("{} is no run", crate::text::safe(run))) };
    }
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(env.config.path("object_store")).map_err(|e| e.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if crate::contract::path_safe(&name) && entry.path().join("archive/events").is_dir() {
            runs.push(name);
        }
    }
    runs.sort();
    match &runs[..] {
        [run] => Ok(run.clone()),
        [] => Err("no run of this store has an archive".into()),
        several => Err(format!("several runs have an archive: {}", several.join(", "))),
    }
}

/// Whether what failed is the machine and not the archive.
fn environmental(code: ReasonCode) -> bool {
    use ReasonCode::{InternalError, Interrupted, MemoryBudget, ScratchIo, SourceIo, StoreIo};
    matches!(code, SourceIo | StoreIo | ScratchIo | MemoryBudget | Interrupted | InternalError)
}

/// The partitions that the archive of a run has folders for.
fn held(env: &Env, run: &str) -> Result<BTreeSet<Lane>, Refusal> {
    lanes_below(env.store.as_ref(), &Ref::of(&[run, "archive", "events"])).map_err(|e| Refusal::of_store(PHASE, &e))
}

fn internal(message: String) -> Refusal {
    Refusal::new(ReasonCode::InternalError, PHASE, message)
}

#[cfg(test)]
pub(crate) mod testing {
    //! An environment for tests of sealing.

    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::pipeline::progress::Progress;
    use crate::store::{Store, Unrecorded};

    /// What sealing runs in, with scratch space below `root`.
    pub(crate) fn env(root: &Path, store: Arc<dyn Store>) -> Env {
        let mut config = Config::load(Some(root), root, &BTreeMap::new()).unwrap();
        config.set_flag("paths", "scratch", "scratch").unwrap();
        Env {
            store,
            store_root: None,
            config: Arc::new(config),
            cancel: tokio_util::sync::CancellationToken::new(),
            progress: Arc::new(Progress::default()),
            attempt: "test".into(),
            audit: Arc::new(Unrecorded),
        }
    }
}
