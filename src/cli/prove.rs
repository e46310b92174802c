//! `ofs prove M`: certificates. That no row depends on what it may not know, and that one row is a row of the data set.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::{Context, Failure, Outcome, document, say};
use crate::prove::noninterference::{self, Certificate, Options};
use crate::prove::{find_manifest, membership};
use crate::text::{grouped, safe};

/// Arguments of `ofs prove`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("certificate").required(true).args(["noninterference", "row"]))]
pub(super) struct Args {
    /// Manifest ref, or the id of a data set (`dm_…`).
    #[arg(value_name = "M")]
    manifest: String,
    /// Rebuild it in scratch space from worlds that differ in what no row may depend on, and in one label and one amount.
    #[arg(long)]
    noninterference: bool,
    /// What all random choices follow from.
    #[arg(long, value_name = "S", default_value_t = 1, requires = "noninterference")]
    seed: u64,
    /// Rows that are drawn; events after each are changed in a build of its own.
    #[arg(long, value_name = "N", default_value_t = noninterference::SAMPLES, requires = "noninterference", value_parser = clap::value_parser!(u64).range(1..=noninterference::MAX_SAMPLES))]
    samples: u64,
    /// Write a proof that the row of this event is in the data set's `rows_digest`.
    #[arg(long, value_name = "EVENT_ID", requires = "file")]
    row: Option<String>,
    /// The file to write; it must not exist.
    #[arg(short = 'o', long = "output", value_name = "FILE", requires = "row")]
    file: Option<PathBuf>,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let env = context.env()?;
    let ledger = context.witness();
    let manifest = find_manifest(&env, ledger.as_ref(), &args.manifest)?;
    if let Some((event_id, file)) = args.row.as_deref().zip(args.file.as_deref()) {
        context.may_write(file)?;
        let proof = membership::prove(&env, &manifest, event_id)?;
        create(file, &proof.document())?;
        let told = membership::told(&proof, &file.display().to_string());
        if context.json {
            document(&told);
        } else {
            say(format!("row {} of {} of {}", grouped(proof.number), grouped(proof.rows), safe(&proof.manifest_id)));
            say(format!("proof     {}", safe(&file.display().to_string())));
            say("check it  python3 verify_row.py PROOF index.json   (`ofs schema verify_row` prints the checker)");
        }
        return Ok(0);
    }
    let options = Options { seed: args.seed, samples: args.samples };
    let certificate = noninterference::prove(&env, ledger.as_ref(), &manifest, options)?;
    if context.json {
        document(&certificate.to_json());
    } else {
        print(&certificate);
    }
    let Some(code) = certificate.reason() else { return Ok(0) };
    eprintln!("ofs: {code}: {}\n  next: {}", code.info().meaning, code.info().remedy);
    Ok(code.info().exit)
}

/// Writes a file that must not be there.
fn create(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => Failure::usage(format!("{} is there already", path.display())).hint("give a name that nothing has yet"),
        _ => Failure::usage(format!("{}: {e}", path.display())),
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all())?;
    Ok(())
}

fn print(certificate: &Certificate) {
    let verdict = certificate.reason().map_or("holds", |code| code.as_str());
    say(format!("{verdict}  {}  seed {}", safe(&certificate.manifest_id), certificate.seed));
    say(format!(
        "{:<18} {:<15} {:>14} {:>12} {:>13} {:>15}",
        "WORLD", "VERDICT", "CHANGED INPUTS", "EQUAL ROWS", "CHANGED ROWS", "DEPENDENT ROWS"
    ));
    for check in &certificate.checks {
        let dependent = check.dependent_rows.map_or_else(|| "-".to_owned(), grouped);
        say(format!(
            "{:<18} {:<15} {:>14} {:>12} {:>13} {:>15}",
            check.what,
            check.verdict.as_str(),
            grouped(check.changed_inputs),
            grouped(check.equal_rows),
            grouped(check.changed_rows),
            dependent
        ));
        let about = check.event_id.as_deref().map(|id| format!(", row of {}", safe(id))).unwrap_or_default();
        say(format!("    {}{about}", check.world));
        check.found.iter().for_each(|found| say(format!("    {}", safe(found))));
    }
}
