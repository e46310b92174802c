//! `ofs export M FORMAT`: what other tools read about a data set.

use std::path::PathBuf;

use super::{Context, Outcome, document, say};
use crate::export::{self, Format};
use crate::prove::find_manifest;
use crate::text::{grouped, safe};

/// Arguments of `ofs export`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Manifest ref, or the id of a data set (`dm_…`).
    #[arg(value_name = "M")]
    manifest: String,
    /// Which.
    #[arg(value_name = "FORMAT", value_enum)]
    format: Choice,
    /// A folder to write to instead of `<run>/ofs/exports/<id>/` in the store.
    #[arg(short = 'o', long = "output", value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// A format, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    /// DATASHEET.md: basis, coverage, drops, columns, intended use and limits.
    Datasheet,
    /// croissant.json: Croissant 1.1, for loaders.
    Croissant,
    /// openlineage.jsonl: START and COMPLETE of the build, for lineage servers.
    Openlineage,
    /// provenance.intoto.json: in-toto Statement with SLSA provenance, for auditors.
    Intoto,
    /// All of them.
    All,
}

impl Choice {
    fn formats(self) -> Vec<Format> {
        match self {
            Choice::Datasheet => vec![Format::Datasheet],
            Choice::Croissant => vec![Format::Croissant],
            Choice::Openlineage => vec![Format::Openlineage],
            Choice::Intoto => vec![Format::Intoto],
            Choice::All => Format::ALL.to_vec(),
        }
    }
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let env = context.env()?;
    args.folder.as_deref().map_or(Ok(()), |folder| context.may_write(folder))?;
    let ledger = context.witness();
    let manifest = find_manifest(&env, ledger.as_ref(), &args.manifest)?;
    let exported = export::export(&env, ledger.as_ref(), &manifest, &args.format.formats(), args.folder.clone())?;
    if context.json {
        document(&exported.to_json());
        return Ok(0);
    }
    say(format!("{}  verified", safe(&exported.manifest_id)));
    for file in &exported.files {
        let how = if file.created { "written" } else { "as it stood" };
        say(format!("{:<12} {how:<11}  {} bytes  {}", file.format.as_str(), grouped(file.bytes), safe(&file.at)));
    }
    Ok(0)
}
