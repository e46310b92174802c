//! `ofs archive seal`: raw records of the archive become sealed segments.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use super::{Context, Failure, Outcome, document, say};
use crate::operate::seal::{self, LaneSealed, Report};
use crate::text::{grouped, safe};

/// Arguments of `ofs archive`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Args {
    /// Verify what is new in the raw archive once, and keep it as columns that a build proves by a digest.
    Seal(SealArgs),
}

/// Arguments of `ofs archive seal`.
#[derive(Debug, clap::Args)]
pub(super) struct SealArgs {
    /// The archive writer's checkpoint: how many records each range holds. A sparse offset kind needs it.
    #[arg(long, value_name = "FILE")]
    attest: Option<PathBuf>,
    /// The platform run; else the active one, else the only one that has an archive.
    #[arg(long, value_name = "R")]
    run: Option<String>,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    match args {
        Args::Seal(args) => seal(context, args),
    }
}

fn seal(context: &Context, args: &SealArgs) -> Outcome {
    let attestations = match &args.attest {
        None => Vec::new(),
        Some(path) => {
            let text = std::fs::read(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
            seal::parse_attestations(&text)?
        }
    };
    let env = context.env()?;
    let run = seal::run_of(&env, args.run.as_deref()).map_err(|message| {
        Failure::usage(message).hint("name the run with --run R, or set platform_run_id below [workspace] in ofs.toml")
    })?;
    let report = seal::seal(&env, &run, &attestations)?;
    if context.json {
        document(&report.to_json());
    } else {
        tell(&report);
    }
    let Some(refusal) = report.refusal() else { return Ok(0) };
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "ofs: {}: {}\n  next: {}", refusal.code, safe(&refusal.message), refusal.code.info().remedy);
    Ok(refusal.code.info().exit)
}

fn tell(report: &Report) {
    for lane in &report.lanes {
        say(format!("{}  {}", lane.lane, words(lane)));
    }
    if report.lanes.is_empty() {
        say(format!("{} has no archive: nothing to seal", report.platform_run_id));
    } else if std::io::stdout().is_terminal() && report.lanes.iter().any(|lane| lane.outcome == seal::Outcome::Unattested) {
        say("next: ofs archive seal --attest FILE, with the checkpoint of the archive's writer");
    }
}

fn words(lane: &LaneSealed) -> String {
    let sum = |of: fn(&seal::Written) -> u64| lane.segments.iter().map(of).sum::<u64>();
    let unreadable = match lane.unreadable {
        0 => String::new(),
        n => format!("; {} line(s) cannot be read, and their files stay raw", grouped(n)),
    };
    match lane.outcome {
        seal::Outcome::Sealed => {
            let (records, bytes) = (grouped(sum(|s| s.records)), grouped(sum(|s| s.bytes)));
            format!("sealed: {records} record(s) in {} segment(s), {bytes} bytes{unreadable}", lane.segments.len())
        }
        seal::Outcome::UpToDate => format!("nothing new{unreadable}"),
        seal::Outcome::Unattested => "stays raw: a sparse offset kind is sealed with an attestation only".into(),
        seal::Outcome::Refused => {
            let refusal = lane.refusal.as_ref();
            format!("refused: {}", refusal.map(|r| format!("{} {}", r.code, r.message)).unwrap_or_default())
        }
    }
}
