//! `ofs completions SHELL`: a completion script on stdout.

use std::io::Write;

use clap_complete::Shell;
use serde_json::json;

use super::{Outcome, document};

/// Arguments of `ofs completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
}

/// Prints the script for the whole command line.
pub(super) fn run(as_json: bool, args: &Args, mut command: clap::Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "ofs", &mut script);
    if as_json {
        document(
            &json!({"schema_version": "ofs.completions.v1", "shell": args.shell.to_string(), "script": String::from_utf8_lossy(&script)}),
        );
    } else {
        std::io::stdout().lock().write_all(&script)?;
    }
    Ok(0)
}
