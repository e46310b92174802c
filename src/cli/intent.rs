//! `ofs intent check`: every problem of an intent at once, without a workspace's data.

use std::path::PathBuf;

use serde_json::json;

use super::{Context, Failure, Outcome, document, say};
use crate::identity;
use crate::pipeline::admit::{self, Supersession};

/// What can be done with an intent.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Args {
    /// Check an intent: all problems at once, with their paths.
    Check {
        /// The intent file.
        file: PathBuf,
    },
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let Args::Check { file } = args;
    let text = std::fs::read(file).map_err(|e| Failure::usage(format!("{}: {e}", file.display())))?;
    match admit::prove(&text, Supersession::default(), context.config.text("workspace", "platform_run_id")) {
        Ok(admitted) => {
            if context.json {
                document(
                    &json!({"schema_version": "ofs.intent_check.v1", "ok": true, "problems": [], "run_key": admitted.run_key(), "normal_form": admitted.intent().to_json()}),
                );
            } else {
                say(format!(
                    "ok: {} {} for run {}",
                    admitted.intent().kind.as_str(),
                    admitted.intent().request_id,
                    admitted.intent().platform_run_id
                ));
                say(format!("run key {}, basis {}", admitted.run_key(), identity::basis_hash(admitted.intent())));
            }
            Ok(0)
        }
        Err(not) => {
            if context.json {
                let problems: Vec<_> = not
                    .problems
                    .iter()
                    .map(|p| json!({"code": p.code, "path": p.path, "message": p.message, "remedy": p.code.info().remedy}))
                    .collect();
                document(
                    &json!({"schema_version": "ofs.intent_check.v1", "ok": false, "problems": problems, "run_key": not.run_key, "normal_form": null}),
                );
            } else {
                for problem in &not.problems {
                    say(format!("{}  {problem}\n    next: {}", problem.code, problem.code.info().remedy));
                }
            }
            eprintln!("{}: {} problem(s); nothing was written", not.refusal.code, not.problems.len());
            Ok(3)
        }
    }
}
