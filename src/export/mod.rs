//! What other tools read about a published data set: a datasheet for people, Croissant for loaders, OpenLineage
//! events for lineage servers, an in-toto statement for auditors. All of it is derived from the data set, which
//! must verify first; it commits nothing, and can be made again at any time, byte for byte. So no clock, host,
//! actor or run is in it: every instant is one of the data set's own evidence.
//!
//! Exports lie in `<run>/ofs/exports/<id>/`, apart from manifests and data, where nothing looks for either. They
//! are created once like everything else in the store: the same bytes again are fine, others are refused.

mod croissant;
mod datasheet;
mod intoto;
mod openlineage;
mod place;
mod subject;

use std::path::PathBuf;

use serde_json::{Value, json};

use self::place::Place;
use self::subject::Subject;
use crate::contract::ReasonCode;
use crate::digest::sha256_hex;
use crate::ledger::Ledger;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::prove::verify;
use crate::store::Ref;

const PHASE: Phase = Phase::Publication;

/// Raised with any change of what an export of the same data set says.
pub const EXPORT_REVISION: &str = "1";

/// A kind of export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// `DATASHEET.md`: basis, coverage, drops, columns, intended use and limits, for people.
    Datasheet,
    /// `croissant.json`: Croissant 1.1, for loaders.
    Croissant,
    /// `openlineage.jsonl`: a START and a COMPLETE event, one a line, for lineage servers.
    Openlineage,
    /// `provenance.intoto.json`: an in-toto Statement v1 with SLSA provenance v1, for auditors.
    Intoto,
}

impl Format {
    /// All of them, in the order in which they are written.
    pub const ALL: [Format; 4] = [Format::Datasheet, Format::Croissant, Format::Openlineage, Format::Intoto];

    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Datasheet => "datasheet",
            Format::Croissant => "croissant",
            Format::Openlineage => "openlineage",
            Format::Intoto => "intoto",
        }
    }

    /// The name of the file.
    pub fn file(self) -> &'static str {
        match self {
            Format::Datasheet => "DATASHEET.md",
            Format::Croissant => "croissant.json",
            Format::Openlineage => "openlineage.jsonl",
            Format::Intoto => "provenance.intoto.json",
        }
    }

    fn render(self, subject: &Subject, place: &Place) -> Vec<u8> {
        match self {
            Format::Datasheet => datasheet::render(subject).into_bytes(),
            Format::Croissant => croissant::render(subject, place).into_bytes(),
            Format::Openlineage => openlineage::render(subject).into_bytes(),
            Format::Intoto => intoto::render(subject).into_bytes(),
        }
    }
}

/// A file that was written, or that stood already with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Which.
    pub format: Format,
    /// Its ref in the store, or its path where it was written elsewhere.
    pub at: String,
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3 of it.
    pub blake3: String,
    /// SHA-256 of it.
    pub sha256: String,
    /// Whether this call made it.
    pub created: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The data set.
    pub manifest_id: String,
    /// Its manifest.
    pub manifest_ref: Ref,
    /// The files, in the order of [`Format::ALL`].
    pub files: Vec<Written>,
}

impl Exported {
    /// `ofs.export.v1`.
    pub fn to_json(&self) -> Value {
        let file = |w: &Written| json!({"format": w.format.as_str(), "ref": w.at, "bytes": w.bytes, "blake3": w.blake3, "sha256": w.sha256, "created": w.created});
        json!({
            "schema_version": "ofs.export.v1", "manifest_id": self.manifest_id, "manifest_ref": self.manifest_ref.as_str(),
            "export_revision": EXPORT_REVISION, "files": self.files.iter().map(file).collect::<Vec<_>>(),
        })
    }
}

/// Writes exports of a published data set, beside it in the store or into a folder.
///
/// # Errors
/// `DATASET_NOT_FOUND`; `DATASET_UNVERIFIED` where `ofs verify` would not say ok; `EXPORT_IMMUTABILITY_VIOLATION`
/// where a file stands with other content, which is left as it is; the environment's.
pub fn export(
    env: &Env,
    ledger: Option<&Ledger>,
    manifest: &Ref,
    formats: &[Format],
    folder: Option<PathBuf>,
) -> Result<Exported, Refusal> {
    verified(env, ledger, manifest)?;
    let subject = Subject::read(env, manifest)?;
    let place = Place::of(env, &subject, folder)?;
    // Everything is made before anything is written.
    let made: Vec<(Format, Vec<u8>)> = formats.iter().map(|format| (*format, format.render(&subject, &place))).collect();
    let write = |(format, bytes): (Format, Vec<u8>)| {
        let (at, created) = place.put(env, format.file(), &bytes)?;
        Ok(Written {
            format,
            at,
            bytes: bytes.len() as u64,
            blake3: blake3::hash(&bytes).to_hex().to_string(),
            sha256: sha256_hex(&bytes),
            created,
        })
    };
    let files = made.into_iter().map(write).collect::<Result<Vec<_>, Refusal>>()?;
    Ok(Exported { manifest_id: subject.opened.manifest_id, manifest_ref: manifest.clone(), files })
}

/// Nothing is told about a data set that does not hold.
fn verified(env: &Env, ledger: Option<&Ledger>, manifest: &Ref) -> Result<(), Refusal> {
    let report = verify::verify(env, ledger, manifest)?;
    if report.ok() {
        return Ok(());
    }
    let line = |p: &verify::Problem| format!("{} {}: expected {}, found {}", p.kind.as_str(), p.place, p.expected, p.found);
    let message = format!("{}: {} thing(s) do not hold", report.manifest_id, report.problems.len());
    Err(Refusal::new(ReasonCode::DatasetUnverified, PHASE, message).with_evidence(report.problems.iter().map(line)))
}

/// A document as exports have it: keys in order, indented, nothing in it that could command a terminal.
fn pretty(value: &Value) -> String {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    format!("{}\n", crate::text::safe_json(&text))
}
