//! `ofs verify M`: whether a published data set is what it was proved to be.

use super::{Context, Failure, Outcome, document, say};
use crate::prove::{find_manifest, verify};
use crate::text::{grouped, safe};

/// Arguments of `ofs verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Manifest ref, or the id of a data set (`dm_…`).
    #[arg(value_name = "M")]
    manifest: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let env = context.env()?;
    let ledger = match context.reader() {
        Ok(ledger) => ledger,
        // A ledger that cannot be used vouches for nothing; the data set can still be looked at.
        Err(Failure { message, .. }) => {
            eprintln!("ofs: {}", safe(&message));
            None
        }
    };
    let manifest = find_manifest(&env, ledger.as_ref(), &args.manifest)?;
    let report = verify::verify(&env, ledger.as_ref(), &manifest)?;
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
    for problem in &report.problems {
        say(format!("{}  {}", problem.kind.as_str(), safe(&problem.place)));
        say(format!("    expected  {}", safe(&problem.expected)));
        say(format!("    found     {}", safe(&problem.found)));
    }
}
