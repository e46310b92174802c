//! `ofs intent check`: every problem of an intent at once, without a workspace's data; `ofs intent new`: a
//! complete intent from what the workspace holds.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Context, Failure, Outcome, document, say};
use crate::identity;
use crate::operate::intent_new::{self, Selectors};
use crate::pipeline::admit::{self, Supersession};
use crate::text::safe_lines;
use crate::time::Instant;

/// What can be done with an intent.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Args {
    /// Check an intent: all problems at once, with their paths.
    Check {
        /// The intent file.
        file: PathBuf,
    },
    /// Make a complete intent: times become concrete offsets, whatever is left out is resolved from the
    /// workspace, and how is recorded beside it.
    New(Box<NewArgs>),
}

/// Arguments of `ofs intent new`.
#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// Events from this instant on (RFC 3339); else from the first one.
    #[arg(long, value_name = "T", value_parser = instant)]
    from: Option<Instant>,
    /// Events before this instant; else to the last one.
    #[arg(long, value_name = "T", value_parser = instant)]
    to: Option<Instant>,
    /// The feature set; without a version, the only one that the authority holds.
    #[arg(long, value_name = "SET@VERSION")]
    features: Option<String>,
    /// The label cut-off; else the latest observed time of the timeline.
    #[arg(long, value_name = "T", value_parser = instant)]
    asof: Option<Instant>,
    /// The platform run; else the active one, or the only one of the store.
    #[arg(long, value_name = "R")]
    run: Option<String>,
    /// Only these topics.
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only these label types; else all that the timeline speaks of.
    #[arg(long = "label-type", value_name = "TYPE")]
    label_types: Vec<String>,
    /// Least share of rows that need a label of each type; else all.
    #[arg(long, value_name = "SHARE")]
    min_coverage: Option<String>,
    /// Allow a data set that is unfit for training.
    #[arg(long)]
    non_training: bool,
    /// The request id; else a digest of everything else, so that the same question is the same request.
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Write the intent to FILE and how it was resolved to FILE.mapping.json, both new; else to stdout and stderr.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn instant(text: &str) -> Result<Instant, String> {
    Instant::parse(text).map_err(|e| e.to_string())
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    match args {
        Args::Check { file } => check(context, file),
        Args::New(args) => new(context, args),
    }
}

fn new(context: &Context, args: &NewArgs) -> Outcome {
    let selectors = Selectors {
        from: args.from,
        to: args.to,
        features: args.features.clone(),
        asof: args.asof,
        run: args.run.clone(),
        topics: args.topics.clone(),
        label_types: args.label_types.clone(),
        min_coverage: args.min_coverage.clone(),
        non_training: args.non_training,
        request_id: args.request_id.clone(),
    };
    args.output.as_deref().map_or(Ok(()), |path| context.may_write(path))?;
    let made = intent_new::resolve(&context.env()?, &selectors)?;
    let pretty = |value: &Value| format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default());
    if let Some(path) = &args.output {
        intent_new::write(&made, path).map_err(|(at, e)| {
            Failure::usage(format!("{}: {e}", at.display())).hint("name a file that does not exist, in a folder that does")
        })?;
    }
    match (&args.output, context.json) {
        (_, true) => {
            document(&json!({"schema_version": "ofs.intent_new.v1", "intent": made.intent, "mapping": made.mapping, "file": args.output}))
        }
        (None, false) => {
            document(&made.intent);
            eprint!("{}", safe_lines(&pretty(&made.mapping)));
        }
        (Some(path), false) => {
            say(format!("{}  request {}", path.display(), made.intent.get("request_id").and_then(Value::as_str).unwrap_or_default()))
        }
    }
    Ok(0)
}

fn check(context: &Context, file: &Path) -> Outcome {
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
