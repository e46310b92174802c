//! `ofs verify`: whether a published data set is what it was proved to be (O112 to O129, pitfall 33).
//!
//! Four witnesses are questioned, and none is trusted alone: the manifest, the data set's folder (index,
//! evidence, parts, every row), the publication receipts, and the ledger's hash chain. The first three
//! lie in one store, so whoever can rewrite the store can make them agree; only the ledger, which lies
//! elsewhere, anchors them. Without its record a data set can be free of contradictions and still not ok.
//!
//! An anchored data set is vouched for by a chain of digests: the ledger's events, the receipt that the last
//! of them names, manifest and index that the receipt names, and every file that the index names. Where the
//! whole chain holds, the files are byte for byte those whose rows were proved when they were published, and
//! decoding them again could tell nothing of any change. So rows are decoded where the chain does not hold,
//! or where somebody wants the rows themselves to be asked ([`verify_rows`]): then a file is not trusted
//! for its digest.

mod anchor;
mod evidence;
mod manifest;
mod parts;
mod rows;
mod supersession;
#[cfg(test)]
mod tests;
mod told;

use std::collections::BTreeSet;
use std::fmt::Display;

use serde_json::{Value, json};

use super::supersession::Correction;
use super::{MANIFEST_FOLDERS, not_found};
use crate::contract::manifest::DatasetId;
use crate::contract::path_safe;
use crate::identity;
use crate::ledger::Ledger;
use crate::pipeline::gate::{Env, Phase, Refusal, document};
use crate::store::{ErrorKind, Ref, StoreError, read};

/// Largest manifest in bytes.
const MANIFEST_BYTES: u64 = 64 << 20;
/// Largest index, evidence document or receipt in bytes.
const DOCUMENT_BYTES: u64 = 1 << 30;

/// What kind of contradiction a problem is. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A file that is named is not there.
    Missing,
    /// A file cannot be read, or is not what its name says (no JSON, no Parquet).
    Unreadable,
    /// A document is not in canonical form, so these are not the bytes that were written.
    NotCanonical,
    /// A document has not the shape of its contract.
    Shape,
    /// A name is not a function of what it names (manifest id, file name, folder).
    Name,
    /// A field contradicts the identity that the data set was fingerprinted under.
    Identity,
    /// The bytes are not those that a digest or a size stands for.
    Digest,
    /// Number or range of rows differ.
    Rows,
    /// The columns differ.
    Schema,
    /// The rows are not those that `rows_digest` stands for.
    RowsDigest,
    /// Rows are not in canonical order.
    Order,
    /// A row's id is not a function of its place.
    RowId,
    /// A row comes from outside the replay basis.
    OutsideBasis,
    /// A label was observed after the cut-off, or shown without being resolved.
    Leakage,
    /// Evidence contradicts the index or other evidence.
    Evidence,
    /// A file that nothing names lies in the data set.
    ExtraFile,
    /// A receipt contradicts the data set.
    Receipt,
    /// The ledger contradicts the receipts, or cannot be read.
    Ledger,
    /// The ledger's chain of events is broken.
    Chain,
    /// No record outside the store vouches for the data set.
    Unanchored,
    /// A rebuild is refused at the pins, or resolves to another identity: profile, run facts or world
    /// are not those that it was built from.
    PinsDrift,
    /// A rebuild is delivered other records.
    ReplayDrift,
    /// A rebuild meets other labels: an assertion was added under an observed time before the cut-off,
    /// changed or removed.
    LabelStateDrift,
}

impl Kind {
    /// The stable name, like `ROWS_DIGEST`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Missing => "MISSING",
            Kind::Unreadable => "UNREADABLE",
            Kind::NotCanonical => "NOT_CANONICAL",
            Kind::Shape => "SHAPE",
            Kind::Name => "NAME",
            Kind::Identity => "IDENTITY",
            Kind::Digest => "DIGEST",
            Kind::Rows => "ROWS",
            Kind::Schema => "SCHEMA",
            Kind::RowsDigest => "ROWS_DIGEST",
            Kind::Order => "ORDER",
            Kind::RowId => "ROW_ID",
            Kind::OutsideBasis => "OUTSIDE_BASIS",
            Kind::Leakage => "LEAKAGE",
            Kind::Evidence => "EVIDENCE",
            Kind::ExtraFile => "EXTRA_FILE",
            Kind::Receipt => "RECEIPT",
            Kind::Ledger => "LEDGER",
            Kind::Chain => "CHAIN",
            Kind::Unanchored => "UNANCHORED",
            Kind::PinsDrift => "PINS_DRIFT",
            Kind::ReplayDrift => "REPLAY_DRIFT",
            Kind::LabelStateDrift => "LABEL_STATE_DRIFT",
        }
    }
}

/// How the rows were checked. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsChecked {
    /// By the digests of the files that hold them, under the chain of digests that ends in the ledger.
    ByDigest,
    /// Every row was decoded, digested and held against schema, order, basis, id and label cut-off.
    Decoded,
}

impl RowsChecked {
    /// The stable name, like `BY_DIGEST`.
    pub fn as_str(self) -> &'static str {
        match self {
            RowsChecked::ByDigest => "BY_DIGEST",
            RowsChecked::Decoded => "DECODED",
        }
    }
}

/// One contradiction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Ref of the file, or the run of the ledger, that it is about.
    pub place: String,
    /// What kind.
    pub kind: Kind,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The manifest.
    pub manifest_ref: String,
    /// The data set, as the manifest's file name says it.
    pub manifest_id: String,
    /// Rows that were checked: as many as were decoded, or as the index counts in files of the right digest.
    pub rows: u64,
    /// How they were checked.
    pub rows_checked: RowsChecked,
    /// Whether the ledger vouches for manifest and index.
    pub anchored: bool,
    /// What it supersedes, as its index says.
    pub supersedes: Vec<String>,
    /// Published data sets that correct it.
    pub superseded_by: Vec<Correction>,
    /// How many things were checked; a row counts once where it was decoded.
    pub checked: u64,
    /// Whether it was rebuilt in scratch space and compared, where that was asked for; `false` where a
    /// rebuild could not be made, which is a problem, too.
    pub rebuilt: Option<bool>,
    /// Everything that does not hold.
    pub problems: Vec<Problem>,
}

impl Report {
    /// Whether every check held and the ledger vouches for the data set.
    pub fn ok(&self) -> bool {
        self.anchored && self.problems.is_empty()
    }

    /// `ofs.verify.v1`.
    pub fn to_json(&self) -> Value {
        let problems: Vec<Value> = self
            .problems
            .iter()
            .map(|p| json!({"ref": p.place, "kind": p.kind.as_str(), "expected": p.expected, "found": p.found}))
            .collect();
        json!({
            "schema_version": "ofs.verify.v1", "manifest_id": self.manifest_id, "manifest_ref": self.manifest_ref, "ok": self.ok(), "anchored": self.anchored,
            "rows": self.rows, "rows_checked": self.rows_checked.as_str(), "supersedes": self.supersedes, "superseded_by": self.superseded_by.iter().map(Correction::to_json).collect::<Vec<_>>(),
            "rebuilt": self.rebuilt, "checked": self.checked, "problems": problems,
        })
    }
}

/// Checks made so far, and what did not hold.
#[derive(Debug, Default)]
struct Findings {
    checked: u64,
    problems: Vec<Problem>,
}

impl Findings {
    /// Counts a check; notes a problem where it does not hold.
    fn hold(&mut self, holds: bool, place: impl Display, kind: Kind, expected: impl Display, found: impl Display) -> bool {
        self.checked += 1;
        if !holds {
            self.add(place, kind, expected, found);
        }
        holds
    }

    /// Two values must be equal.
    fn same(&mut self, place: impl Display, kind: Kind, what: &str, expected: Option<&Value>, found: Option<&Value>) -> bool {
        // Two fields that are both absent say nothing, so they do not hold either.
        let holds = expected.is_some() && expected == found;
        self.hold(holds, place, kind, format_args!("{what} {}", brief(expected)), format_args!("{what} {}", brief(found)))
    }

    fn add(&mut self, place: impl Display, kind: Kind, expected: impl Display, found: impl Display) {
        self.problems.push(Problem { place: place.to_string(), kind, expected: expected.to_string(), found: found.to_string() });
    }

    fn store(&mut self, at: &Ref, error: &StoreError) {
        self.checked += 1;
        match error.kind {
            ErrorKind::NotFound => self.add(at, Kind::Missing, "a file", "nothing"),
            _ => self.add(at, Kind::Unreadable, "a file that can be read", &error.message),
        }
    }

    fn take(&mut self, other: Findings) {
        self.checked += other.checked;
        self.problems.extend(other.problems);
    }
}

fn brief(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".into(), |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
    crate::text::clip(&text, 200).into_owned()
}

fn blake3_hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// A document of the store: its bytes, and what they say where they are JSON.
struct Stored {
    at: Ref,
    blake3: String,
    value: Value,
}

impl Stored {
    /// Reads a document; what is not canonical JSON becomes a problem, and says nothing.
    fn read(env: &Env, at: Ref, findings: &mut Findings) -> Option<Self> {
        let bytes = read(env.store.as_ref(), &at, DOCUMENT_BYTES).map_err(|e| findings.store(&at, &e)).ok()?;
        Some(Self::of(at, &bytes, findings))
    }

    fn of(at: Ref, bytes: &[u8], findings: &mut Findings) -> Self {
        let value = match serde_json::from_slice::<Value>(bytes) {
            Ok(value) => {
                // Duplicate keys, other spellings and trailing bytes all end here: they do not write back alike.
                findings.hold(document(&value) == bytes, &at, Kind::NotCanonical, "canonical JSON and a line feed", "other bytes");
                value
            }
            Err(e) => {
                findings.hold(false, &at, Kind::Unreadable, "a JSON document", e);
                Value::Null
            }
        };
        Stored { at, blake3: blake3_hex(bytes), value }
    }

    fn get(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer)
    }

    fn text(&self, pointer: &str) -> &str {
        self.get(pointer).and_then(Value::as_str).unwrap_or_default()
    }
}

/// What a manifest's ref says by itself.
pub(super) struct Place {
    pub(super) run: String,
    pub(super) id: String,
    training: bool,
}

impl Place {
    pub(super) fn of(manifest: &Ref) -> Option<Self> {
        let parts: Vec<&str> = manifest.as_str().split('/').collect();
        let [run, "ofs", folder, name] = parts.as_slice() else { return None };
        let id = name.strip_suffix(".json").filter(|id| path_safe(id))?;
        let (_, training) = MANIFEST_FOLDERS.into_iter().find(|(f, _)| f == folder)?;
        Some(Place { run: (*run).to_owned(), id: id.to_owned(), training })
    }

    pub(super) fn folder(&self) -> Ref {
        Ref::of(&[&self.run, "ofs", "datasets", &self.id])
    }

    /// Where the same name must not stand as well.
    fn other(&self) -> Ref {
        let folder = if self.training { "manifests_nontraining" } else { "manifests" };
        Ref::of(&[&self.run, "ofs", folder, &format!("{}.json", self.id)])
    }
}

/// Checks a published data set against everything that speaks of it. Reads only. Rows are decoded only
/// where the chain of digests from the ledger to every file does not hold; then every check is made, so
/// that the report tells all there is to tell.
///
/// # Errors
/// `DATASET_NOT_FOUND` where there is no manifest, `INTERRUPTED`. What is there and does not hold is in
/// the report.
pub fn verify(env: &Env, ledger: Option<&Ledger>, manifest: &Ref) -> Result<Report, Refusal> {
    // Without a ledger nothing anchors the digests, and only the rows can speak for themselves.
    if ledger.is_some() {
        let report = examine(env, ledger, manifest, RowsChecked::ByDigest)?;
        if report.ok() {
            return Ok(report);
        }
    }
    verify_rows(env, ledger, manifest)
}

/// As [`verify`], and decodes every row whatever the digests say: what is asked then is not only whether
/// anything changed since the rows were proved, but the rows themselves.
///
/// # Errors
/// As [`verify`].
pub fn verify_rows(env: &Env, ledger: Option<&Ledger>, manifest: &Ref) -> Result<Report, Refusal> {
    examine(env, ledger, manifest, RowsChecked::Decoded)
}

fn examine(env: &Env, ledger: Option<&Ledger>, manifest: &Ref, rows_checked: RowsChecked) -> Result<Report, Refusal> {
    let place = Place::of(manifest).ok_or_else(|| not_found(format!("{manifest} is no manifest ref: <run>/ofs/manifests/<id>.json")))?;
    let bytes = read(env.store.as_ref(), manifest, MANIFEST_BYTES).map_err(|e| match e.kind {
        ErrorKind::NotFound => not_found(format!("{manifest}: no manifest is there")),
        _ => Refusal::of_store(Phase::Publication, &e),
    })?;
    let mut findings = Findings::default();
    let stored = Stored::of(manifest.clone(), &bytes, &mut findings);
    manifest::check(&place, &stored, &mut findings);
    let other = place.other();
    match env.store.size(&other) {
        Ok(size) => {
            findings.hold(size.is_none(), &other, Kind::Name, "nothing: a data set is training data or it is not", "a file");
        }
        Err(e) => findings.store(&other, &e),
    }
    let index = Stored::read(env, place.folder().join("index.json"), &mut findings);
    let (mut rows, mut supersedes, mut superseded_by) = (0, Vec::new(), Vec::new());
    if let Some(index) = &index {
        manifest::check_identity(&place, &stored, index, &mut findings);
        let proofs = evidence::check(env, &place, index, &mut findings);
        rows = match rows_checked {
            RowsChecked::ByDigest => parts::check(env, &place, index, &mut findings)?,
            RowsChecked::Decoded => {
                let outcome = rows::check(env, &place, index, &mut findings)?;
                evidence::check_rows(index, &proofs, &outcome, &mut findings);
                outcome.rows
            }
        };
        check_folder(env, &place, index, &mut findings);
        anchor::check_receipts(env, ledger, &place, &proofs, &mut findings);
        supersedes = texts(index.get("/supersedes"));
        superseded_by = supersession::check(env, ledger, &place, index, &mut findings);
    }
    let anchored = anchor::check(env, ledger, &place, &stored, index.as_ref(), &mut findings);
    Ok(Report {
        manifest_ref: manifest.to_string(),
        manifest_id: place.id,
        rows,
        rows_checked,
        anchored,
        supersedes,
        superseded_by,
        rebuilt: None,
        checked: findings.checked,
        problems: findings.problems,
    })
}

/// As [`verify_rows`], and rebuilds the data set in scratch space from the inputs as they are now: proofs, rows
/// and files must come out as they were published. A data set that does not even hold by itself is not
/// rebuilt: there is nothing to compare with.
///
/// # Errors
/// Also what keeps a rebuild from being made: the environment's.
pub fn reprove(env: &Env, ledger: Option<&Ledger>, manifest: &Ref) -> Result<Report, Refusal> {
    let mut report = verify_rows(env, ledger, manifest)?;
    let unreadable = report.problems.iter().any(|p| p.kind != Kind::Unanchored);
    if unreadable {
        report.rebuilt = Some(false);
    } else {
        super::reprove::check(env, ledger, manifest, &mut report)?;
    }
    Ok(report)
}

fn texts(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// Nothing lies in the data set that its index does not name.
fn check_folder(env: &Env, place: &Place, index: &Stored, findings: &mut Findings) {
    let folder = place.folder();
    let mut named = BTreeSet::from([folder.join("index.json")]);
    named.extend(evidence::NAMES.map(|name| folder.join(&format!("evidence/{name}.json"))));
    for file in index.get("/files").and_then(Value::as_array).into_iter().flatten() {
        named.extend(file.get("path").and_then(Value::as_str).map(|path| folder.join(path)));
    }
    match env.store.list(&folder) {
        Ok(found) => {
            for (at, _) in found {
                findings.hold(named.contains(&at), &at, Kind::ExtraFile, "nothing: the index does not name it", "a file");
            }
        }
        Err(e) => findings.store(&folder, &e),
    }
}

/// The identity payload of an index and the name that follows from it.
fn named_by(index: &Stored) -> (Value, DatasetId) {
    let payload = index.get("/identity").cloned().unwrap_or(Value::Null);
    let id = identity::dataset_id(&payload);
    (payload, id)
}
