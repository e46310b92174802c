//! The command line: one file a command. A command parses, calls the library, prints (text or one JSON
//! document on stdout, talk on stderr) and chooses the exit code.

mod context;
mod events;
mod init;
mod intent;
mod plan;
mod progress;
mod run;
mod runs;
mod show;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

pub(crate) use self::context::Context;
use crate::config::ConfigError;
use crate::contract::ReasonCode;
use crate::ledger::LedgerError;
use crate::pipeline::Refusal;
use crate::store::StoreError;
use crate::text::safe_lines;

/// The Offline Feature Plane: rebuilds training data sets so that every row can be proved, and refuses
/// whatever it cannot prove.
#[derive(Debug, Parser)]
#[command(name = "ofs", version, about, disable_help_subcommand = true, after_help = AFTER)]
struct Cli {
    /// Workspace directory; else $OFS_WORKSPACE, else the nearest parent with an ofs.toml, else here.
    #[arg(long, global = true, value_name = "DIR")]
    workspace: Option<PathBuf>,
    /// Print one JSON document on stdout.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
First steps:
  ofs demo clean --headless        build a real day of data in a scratch workspace
  ofs intent check intents/x.json  every problem of an intent at once
  ofs plan intents/x.json          what would be read, and whether it can be complete
  ofs run intents/x.json           build; prints where the data set lies, or why it was refused

Exit codes: 0 done, 1 internal error or the ledger cannot be written, 2 usage or configuration,
3 refused, 4 publication pending, 5 busy, 129/130/143 ended by HUP/INT/TERM.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new workspace with copies of another's inputs.
    Init(init::Args),
    /// Check an intent without running it.
    #[command(subcommand)]
    Intent(intent::Args),
    /// Resolve the pins and say per partition whether the basis can be complete; writes nothing.
    Plan(plan::Args),
    /// Submit an intent and build it.
    Run(run::RunArgs),
    /// Go on with an interrupted, stuck or retryable run.
    Resume(run::KeyArgs),
    /// Retry the publication of a pending run with its own draft.
    Retry(run::KeyArgs),
    /// List runs, newest first.
    Runs(runs::Args),
    /// One run: its gates, its reason, what can be done now.
    Show(show::Args),
    /// The events of a run.
    Events(events::Args),
}

/// What stops a command: words, a way out, and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    pub(crate) code: Option<ReasonCode>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure { exit: 2, code: None, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure {
            exit: 2,
            code: Some(ReasonCode::ConfigInvalid),
            message: error.to_string(),
            hint: Some("`ofs config show --origin` lists every setting".into()),
        }
    }
}

impl From<LedgerError> for Failure {
    fn from(error: LedgerError) -> Self {
        let code = error.code();
        Failure { exit: code.info().exit, code: Some(code), message: error.to_string(), hint: Some(code.info().remedy.to_owned()) }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = error.code();
        Failure { exit: 3, code: Some(code), message: error.to_string(), hint: Some(code.info().remedy.to_owned()) }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure { exit: refusal.code.info().exit, code: Some(refusal.code), message: refusal.message, hint: Some(refusal.remedy) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure { exit: 1, code: None, message: error.to_string(), hint: None }
    }
}

/// The result of a command: its exit code.
pub(crate) type Outcome = Result<u8, Failure>;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let json = cli.json;
    let outcome = dispatch(cli);
    match outcome {
        Ok(exit) => ExitCode::from(exit),
        Err(failure) => {
            report(&failure, json);
            ExitCode::from(failure.exit)
        }
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let context = Context::load(cli.workspace.as_deref(), cli.json)?;
    match cli.command {
        Command::Init(args) => init::run(&context, &args),
        Command::Intent(args) => intent::run(&context, &args),
        Command::Plan(args) => plan::run(&context, &args),
        Command::Run(args) => run::run(&context, args),
        Command::Resume(args) => run::resume(&context, &args),
        Command::Retry(args) => run::retry(&context, &args),
        Command::Runs(args) => runs::run(&context, &args),
        Command::Show(args) => show::run(&context, &args),
        Command::Events(args) => events::run(&context, &args),
    }
}

fn report(failure: &Failure, json: bool) {
    let mut err = std::io::stderr().lock();
    let code = failure.code.map(|c| format!("{c}: ")).unwrap_or_default();
    let _ = writeln!(err, "ofs: {code}{}", safe_lines(&failure.message));
    if let Some(hint) = &failure.hint {
        let _ = writeln!(err, "  next: {}", safe_lines(hint));
    }
    if json {
        let document = serde_json::json!({"schema_version": "ofs.error.v1", "code": failure.code, "message": failure.message, "hint": failure.hint, "exit": failure.exit});
        let _ = writeln!(std::io::stdout().lock(), "{document}");
    }
}

/// Prints a line on stdout; a reader that went away ends the talk quietly.
pub(crate) fn say(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout().lock(), "{}", safe_lines(line.as_ref()));
}

/// Prints a document on stdout.
pub(crate) fn document(value: &Value) {
    let _ = writeln!(std::io::stdout().lock(), "{}", serde_json::to_string_pretty(value).unwrap_or_default());
}
