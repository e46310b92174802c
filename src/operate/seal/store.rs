//! Storing a segment: the file under its final name first, the sidecar last, each only where nothing is.

use serde_json::Value;

use super::{PHASE, Written};
use crate::contract::ReasonCode;
use crate::contract::intent::{Lane, OffsetRange};
use crate::pipeline::gate::{Env, Refusal, document};
use crate::source::sealed::{self, Attested, Encoded, Proof, ProvedBy, RawFile, SegmentFile, Sidecar, Span, stem};
use crate::store::{Created, Immutable, Ref, StoreError, create_immutable, digest};

/// A segment that is about to be stored.
pub(super) struct Ready {
    pub(super) range: OffsetRange,
    pub(super) attestation: Option<Attested>,
    pub(super) encoded: Encoded,
    pub(super) single_files: u64,
    pub(super) single_ranges: Vec<Span>,
}

fn store(error: &StoreError) -> Refusal {
    Refusal::of_store(PHASE, error)
}

fn stands(at: &Ref, what: &str) -> Refusal {
    let error = sealed::invalid(at, what);
    Refusal::of_source(PHASE, &error)
}

/// Where a segment of a lane waits until it is whole: a name of this attempt alone, for two may seal one lane at once.
/// What a killed process left is listed by `ofs doctor`.
fn staging(env: &Env, run: &str, lane: &Lane) -> Ref {
    let name = blake3::hash(format!("{}/{}/{}", lane.topic, lane.partition, lane.kind).as_bytes()).to_hex();
    Ref::of(&[run, "ofs", "staging", &format!("seal-{}", env.attempt), name.get(..16).unwrap_or_default()])
}

/// Stores a segment.
///
/// # Errors
/// `SEALED_SEGMENT_INVALID` where another file or sidecar of its name stands; the store's.
pub(super) fn put(env: &Env, run: &str, lane: &Lane, ready: Ready, raw_files: Vec<RawFile>) -> Result<Written, Refusal> {
    let (folder, name, staged) = (sealed::folder(run, lane), stem(ready.range), staging(env, run, lane));
    let file = folder.join(&format!("{name}.parquet"));
    let (bytes, blake3) = (ready.encoded.bytes.len() as u64, blake3::hash(&ready.encoded.bytes).to_hex().to_string());
    stage(env, &staged, &ready.encoded.bytes).map_err(|e| store(&e))?;
    let promoted = env.store.promote(&staged, &file);
    if !matches!(promoted, Ok(Created::New)) {
        // It was there, or the answer was lost: what stands there decides.
        let found = match (digest(env.store.as_ref(), &file), promoted) {
            (Ok(found), _) => found,
            (Err(_), Err(error)) | (Err(error), Ok(_)) => return Err(store(&error)),
        };
        if found != (blake3.clone(), bytes) {
            return Err(stands(
                &file,
                "a file of this name stands with other content, and no sidecar vouches for it; `ofs doctor` lists it",
            ));
        }
    }
    env.store.unstage(&staged).map_err(|e| store(&e))?;
    let (range, records, attested) = (ready.range, ready.encoded.records, ready.attestation.is_some());
    let sidecar = sidecar(run, lane, ready, SegmentFile { path: format!("{name}.parquet"), blake3, bytes }, raw_files);
    let value: Value =
        serde_json::to_value(&sidecar).map_err(|e| Refusal::new(ReasonCode::InternalError, PHASE, format!("a sidecar: {e}")))?;
    let at = folder.join(&format!("{name}.json"));
    match create_immutable(env.store.as_ref(), &at, &document(&value)).map_err(|e| store(&e))? {
        Immutable::New | Immutable::Same => Ok(Written { file, range, records, bytes, attested }),
        Immutable::Different(_) => Err(stands(&at, "a sidecar of this name stands and says otherwise")),
    }
}

fn stage(env: &Env, staged: &Ref, bytes: &[u8]) -> Result<(), StoreError> {
    let failed = |e: std::io::Error| StoreError::new(crate::store::ErrorKind::Io, staged.as_str(), e.to_string());
    let mut file = env.store.stage(staged)?;
    file.write_all(bytes).map_err(failed)?;
    file.finish()
}

fn sidecar(run: &str, lane: &Lane, ready: Ready, file: SegmentFile, raw_files: Vec<RawFile>) -> Sidecar {
    let Ready { range, attestation, encoded, single_files, single_ranges } = ready;
    let runs: Vec<Span> = encoded.runs.into_iter().map(Span::from).collect();
    let proof = match attestation {
        Some(_) => Proof { by: ProvedBy::Attestation, ranges: vec![Span::from(range)], attestation },
        None => Proof { by: ProvedBy::Contiguity, ranges: runs.clone(), attestation: None },
    };
    Sidecar {
        schema_version: sealed::SCHEMA.into(),
        writer_revision: sealed::WRITER_REVISION.into(),
        platform_run_id: run.to_owned(),
        topic: lane.topic.clone(),
        partition: lane.partition,
        offset_kind: lane.kind,
        start_offset: range.start,
        end_offset: range.end,
        proof,
        records: encoded.records,
        record_ranges: if lane.kind.dense() { runs } else { Vec::new() },
        single_files,
        single_ranges,
        records_digest: encoded.records_digest,
        verified_hashes: encoded.recipes,
        file,
        schema: encoded.schema,
        payload_complete: encoded.payload_complete,
        raw_files,
    }
}
