//! `ofs verify M`: whether a published data set is what it was proved to be.

use super::{Context, Outcome, document, say};
use crate::prove::supersession::Correction;
use crate::prove::{find_manifest, verify};
use crate::text::{grouped, safe};

/// Arguments of `ofs verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Manifest ref, or the id of a data set (`dm_…`).
    #[arg(value_name = "M")]
    manifest: String,
    /// Also rebuild it in scratch space from the inputs as they are now, and compare rows and files.
    #[arg(long)]
    reprove: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let env = context.env()?;
    let ledger = context.witness();
    let manifest = find_manifest(&env, ledger.as_ref(), &args.manifest)?;
    let check = if args.reprove { verify::reprove } else { verify::verify };
    let report = check(&env, ledger.as_ref(), &manifest)?;
    if context.json {
        document(&report.to_json());
    } else {
        print(&report);
    }
    Ok(if report.ok() { 0 } else { 3 })
}

fn print(report: &verify::Report) {
    let verdict = if report.ok() { "ok" } else { "NOT OK" };
    say(format!("{verdict}  {}", safe(&report.manifest_id)));
    say(format!("manifest  {}", safe(&report.manifest_ref)));
    say(format!("checked   {} things, {} rows among them", grouped(report.checked), grouped(report.rows)));
    say(if report.anchored {
        "anchored  the ledger's chain holds the receipts that hold manifest and index"
    } else {
        "UNANCHORED  nothing outside the store vouches for this data set"
    });
    match report.rebuilt {
        Some(true) => say("rebuilt   from the inputs as they are now, and compared"),
        Some(false) => say("NOT REBUILT  what does not hold stands in the way"),
        None => {}
    }
    if !report.supersedes.is_empty() {
        say(format!("supersedes  {}", safe(&report.supersedes.join(", "))));
    }
    for correction in &report.superseded_by {
        say(superseded(correction));
    }
    for problem in &report.problems {
        say(format!("{}  {}", problem.kind.as_str(), safe(&problem.place)));
        say(format!("    expected  {}", safe(&problem.expected)));
        say(format!("    found     {}", safe(&problem.found)));
    }
}

/// A correction of what is being looked at, in one line.
pub(super) fn superseded(correction: &Correction) -> String {
    let reason = correction.reason.as_deref().map(|reason| format!(": {}", safe(reason))).unwrap_or_default();
    format!("SUPERSEDED  by {}{reason}", safe(&correction.manifest_id))
}
