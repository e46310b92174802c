//! `ofs labels import`: assertions of a file become a new SQLite timeline.

use std::path::PathBuf;

use super::{Context, Failure, Outcome, document, say};
use crate::operate::label_import::{ImportError, import};
use crate::text::grouped;

/// Arguments of `ofs labels`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Args {
    /// Load assertions into a new SQLite timeline, each checked; an existing one is never touched.
    Import(ImportArgs),
}

/// Arguments of `ofs labels import`.
#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The assertions: *.jsonl or *.parquet.
    file: PathBuf,
    /// The new timeline, *.db or *.sqlite; else `labels.db` in the workspace.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        let message = error.to_string();
        match error {
            ImportError::Target(_) => Failure::usage(message).hint("name another file with --out PATH"),
            ImportError::Label(label) => {
                Failure { exit: label.code.info().exit, code: Some(label.code), message, hint: Some(label.code.info().remedy.to_owned()) }
            }
            ImportError::Write { .. } => Failure { exit: 1, code: None, message, hint: None },
        }
    }
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let Args::Import(args) = args;
    let out = args.out.clone().unwrap_or_else(|| context.config.workspace.join("labels.db"));
    // The timeline that is configured and not there yet may be made; an existing one is refused below.
    let awaited = !out.exists() && std::path::absolute(&out).ok() == std::path::absolute(context.config.path("labels")).ok();
    if !awaited {
        context.may_write(&out)?;
    }
    let imported = import(&args.file, &out)?;
    if context.json {
        document(&imported.to_json());
        return Ok(0);
    }
    say(format!("{}: {} assertion(s), {} said twice", imported.out.display(), grouped(imported.assertions), grouped(imported.repeated)));
    for (run, label_type, count) in &imported.counts {
        say(format!("  {run}  {label_type}  {}", grouped(*count)));
    }
    say(format!("next: labels = \"{}\" below [paths] in ofs.toml", imported.out.display()));
    Ok(0)
}
