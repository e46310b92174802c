//! `ofs verify M`: whether a published data set is what it was proved to be.

use super::{Context, Outcome, document, told};
use crate::prove::{find_manifest, verify};

/// Arguments of `ofs verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Manifest ref, or the id of a data set (`dm_…`).
    #[arg(value_name = "M")]
    manifest: String,
    /// Decode and digest every row again. Without it rows are decoded only where digests do not hold all
    /// the way from the ledger to every file: where they do, no byte has changed since the rows were proved.
    #[arg(long)]
    rows: bool,
    /// Also rebuild it in scratch space from the inputs as they are now, and compare rows and files.
    /// Decodes every row as well.
    #[arg(long)]
    reprove: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let env = context.env()?;
    let ledger = context.witness();
    let manifest = find_manifest(&env, ledger.as_ref(), &args.manifest)?;
    let check = match (args.reprove, args.rows) {
        (true, _) => verify::reprove,
        (false, true) => verify::verify_rows,
        (false, false) => verify::verify,
    };
    let report = check(&env, ledger.as_ref(), &manifest)?;
    if context.json {
        document(&report.to_json());
    } else {
        told(&report.lines());
    }
    Ok(if report.ok() { 0 } else { 3 })
}
