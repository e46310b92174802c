//! The files of a data set: their names and columns as the index tells them, and their bytes against their
//! digests.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Findings, Kind, Place, Stored, blake3_hex, brief};
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::parallel;
use crate::store::{ErrorKind, PIECE, Ref, StoreError, pieces, read};

/// The columns that every data set begins with; `offset` is a text where a lane is sparse.
pub(super) const FIXED: [&str; 9] = ["row_id", "event_id", "ts_utc", "topic", "partition", "offset", "offset_kind", "payload_hash", "key"];

/// A file as the index names it.
pub(super) struct File {
    pub(super) at: Ref,
    pub(super) entry: Value,
}

/// The files of the index, whose names must be those of parts in order.
pub(super) fn files(place: &Place, index: &Stored, findings: &mut Findings) -> Vec<File> {
    let list = index.get("/files").and_then(Value::as_array);
    findings.hold(list.is_some(), &index.at, Kind::Shape, "a list of files", brief(index.get("/files")));
    let mut files = Vec::new();
    for (at, entry) in list.into_iter().flatten().enumerate() {
        let (wanted, path) = (format!("part-{at:05}.parquet"), entry.get("path").and_then(Value::as_str).unwrap_or_default());
        if findings.hold(path == wanted, &index.at, Kind::Shape, format_args!("file {wanted}"), path) {
            files.push(File { at: place.folder().join(path), entry: entry.clone() });
        }
    }
    files
}

pub(super) fn label_types(index: &Stored) -> Vec<String> {
    let types = index.get("/label_coverage").and_then(Value::as_array);
    types.into_iter().flatten().filter_map(|t| t.get("label_type").and_then(Value::as_str).map(str::to_owned)).collect()
}

/// The names of the columns of a schema.
pub(super) fn names(schema: &Value) -> Vec<&str> {
    schema.as_array().into_iter().flatten().filter_map(|c| c.get("name").and_then(Value::as_str)).collect()
}

/// The fixed columns stand first, the label columns of the types last.
pub(super) fn check_columns(index: &Stored, findings: &mut Findings) {
    let names = index.get("/schema").map(names).unwrap_or_default();
    let begins: Vec<&str> = names.iter().take(FIXED.len()).copied().collect();
    findings.hold(begins == FIXED, &index.at, Kind::Schema, FIXED.join(", "), begins.join(", "));
    let suffixes = ["", "_status", "_observed_utc", "_assertion_id"];
    let wanted: Vec<String> = label_types(index).iter().flat_map(|t| suffixes.map(|suffix| format!("label_{t}{suffix}"))).collect();
    let ends: Vec<&str> = names.iter().skip(names.len().saturating_sub(wanted.len())).copied().collect();
    findings.hold(ends == wanted, &index.at, Kind::Schema, wanted.join(", "), ends.join(", "));
}

/// Digests every file, several at a time, and decodes none; the rows that they stand for by the index.
///
/// # Errors
/// `INTERRUPTED`; everything else is a finding.
pub(super) fn check(env: &Env, place: &Place, index: &Stored, findings: &mut Findings) -> Result<u64, Refusal> {
    let files = files(place, index, findings);
    check_columns(index, findings);
    env.progress.enter(Phase::Publication, files.len() as u64);
    let found: Mutex<BTreeMap<usize, Findings>> = Mutex::default();
    parallel::each(
        env,
        Phase::Publication,
        files.len(),
        || vec![0; PIECE],
        |buffer, at| {
            let mut findings = Findings::default();
            if let Some(file) = files.get(at) {
                file.digest(env, buffer, &mut findings);
            }
            found.lock().unwrap_or_else(PoisonError::into_inner).insert(at, findings);
            env.progress.advance(1);
            Ok(())
        },
        |_| Ok(()),
    )?;
    found.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().for_each(|of_file| findings.take(of_file));
    let rows = files.iter().filter_map(|file| file.entry.get("rows")?.as_u64()).fold(0u64, u64::saturating_add);
    findings.same(&index.at, Kind::Rows, "rows", index.get("/rows"), Some(&json!(rows)));
    Ok(rows)
}

impl File {
    fn size(&self) -> u64 {
        self.entry.get("bytes").and_then(Value::as_u64).unwrap_or(0)
    }

    /// The bytes of a part, where they are those that the index names. Others are never decoded.
    pub(super) fn read(&self, env: &Env, findings: &mut Findings) -> Option<Bytes> {
        let bytes = read(env.store.as_ref(), &self.at, self.size()).map_err(|e| self.unread(&e, findings)).ok()?;
        self.judge(bytes.len() as u64, &blake3_hex(&bytes), findings).then(|| Bytes::from(bytes))
    }

    /// Holds the bytes against the digest, piece by piece.
    fn digest(&self, env: &Env, buffer: &mut [u8], findings: &mut Findings) {
        match self.stream(env, buffer) {
            Ok((bytes, blake3)) => drop(self.judge(bytes, &blake3, findings)),
            Err(e) => self.unread(&e, findings),
        }
    }

    fn stream(&self, env: &Env, buffer: &mut [u8]) -> Result<(u64, String), StoreError> {
        let (limit, mut room, mut hasher) = (self.size(), self.size(), blake3::Hasher::new());
        let bytes = pieces(env.store.as_ref(), &self.at, buffer, |piece| {
            let Some(left) = room.checked_sub(piece.len() as u64) else { return ControlFlow::Break(()) };
            room = left;
            hasher.update(piece);
            ControlFlow::Continue(())
        })?;
        if bytes > limit {
            return Err(StoreError::new(ErrorKind::TooLarge, self.at.as_str(), format!("larger than {limit} bytes")));
        }
        Ok((bytes, hasher.finalize().to_hex().to_string()))
    }

    fn unread(&self, error: &StoreError, findings: &mut Findings) {
        if error.kind == ErrorKind::TooLarge {
            findings.hold(false, &self.at, Kind::Digest, format_args!("{} bytes", self.size()), "more bytes");
        } else {
            findings.store(&self.at, error);
        }
    }

    /// Whether size and digest are those of the index.
    fn judge(&self, bytes: u64, blake3: &str, findings: &mut Findings) -> bool {
        let size = self.size();
        findings.hold(bytes == size, &self.at, Kind::Digest, format_args!("{size} bytes"), format_args!("{bytes} bytes"));
        let wanted = self.entry.get("blake3").and_then(Value::as_str).unwrap_or_default();
        findings.hold(blake3 == wanted, &self.at, Kind::Digest, wanted, blake3)
    }
}
