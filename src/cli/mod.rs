//! The command line: one file a command. A command parses, calls the library, prints (text or one JSON
//! document on stdout, talk on stderr) and chooses the exit code.

mod archive;
mod closure;
mod completions;
mod config;
mod console;
mod context;
mod demo;
mod diff;
mod doctor;
mod events;
mod explain;
mod export;
mod generate;
mod init;
mod intent;
mod keys;
mod labels;
mod operator;
mod plan;
mod progress;
mod prove;
mod report;
mod run;
mod runs;
mod schema;
mod show;
mod step;
mod submit;
mod verify;
mod worker;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use serde_json::Value;

pub(crate) use self::context::Context;
use crate::config::ConfigError;
use crate::contract::ReasonCode;
use crate::ledger::LedgerError;
use crate::pipeline::Refusal;
use crate::store::StoreError;
use crate::text::{safe_json, safe_lines};

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
    command: Option<Command>,
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
    /// The terminal console; also what `ofs` alone starts.
    Console(console::Args),
    /// Make a new workspace with copies of another's inputs.
    Init(init::Args),
    /// Check an intent without running it, or make one from what the workspace holds.
    #[command(subcommand)]
    Intent(intent::Args),
    /// Resolve the pins and say per partition whether the basis can be complete; writes nothing.
    Plan(plan::Args),
    /// Submit an intent and build it.
    Run(run::RunArgs),
    /// Queue an intent for a worker.
    Submit(submit::Args),
    /// Work off queued requests until a signal comes, or once.
    Worker(worker::Args),
    /// Go on with an interrupted, stuck or retryable run.
    Resume(run::KeyArgs),
    /// Retry the publication of a pending run with its own draft.
    Retry(run::RetryArgs),
    /// Call a run off before its commit.
    Cancel(operator::CancelArgs),
    /// Give a run up before its commit.
    Fail(operator::FailArgs),
    /// Leave a note on a run for whoever comes next.
    Note(operator::NoteArgs),
    /// Write everything about a run into one file, for an escalation.
    Bundle(operator::BundleArgs),
    /// List runs, newest first.
    Runs(runs::Args),
    /// One run: its gates, its reason, what can be done now.
    Show(show::Args),
    /// The events of a run.
    Events(events::Args),
    /// Check a published data set against everything that speaks of it.
    Verify(verify::Args),
    /// Metrics, health, governance facts and reconciliation of the ledger's runs, kept in the store.
    Report(report::Args),
    /// Where one row of a published data set comes from.
    Explain(explain::Args),
    /// Why two published data sets differ: identity first, rows second.
    Diff(diff::Args),
    /// Write a datasheet, Croissant, OpenLineage events or an in-toto statement of a published data set.
    Export(export::Args),
    /// Certificates: no row depends on what it may not know; one row is in the data set.
    Prove(prove::Args),
    /// Play a fail-closed scenario on embedded real data; works in an empty directory.
    Demo(demo::Args),
    /// The closure gate: everything that is owed, shown in a scratch workspace, with one evidence file.
    Closure(closure::Args),
    /// Every action of the console with its keys.
    Keys,
    /// The configuration: every value and where it comes from.
    #[command(subcommand)]
    Config(config::Args),
    /// The contracts that this program carries.
    Schema(schema::Args),
    /// Whether everything that a build needs is usable, and what killed processes left behind.
    Doctor(doctor::Args),
    /// The raw archive: seal what is new in it, so that builds need not verify it again.
    #[command(subcommand)]
    Archive(archive::Args),
    /// Label assertions as a SQLite timeline.
    #[command(subcommand)]
    Labels(labels::Args),
    /// Write a synthetic, realistic workspace of any size.
    Generate(generate::Args),
    /// A completion script for a shell.
    Completions(completions::Args),
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
            if !error.use_stderr() {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            // What was typed stands in the words, and may have come from anywhere.
            let _ = write!(std::io::stderr().lock(), "{}", safe_lines(&error.render().to_string()));
            return ExitCode::from(2);
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
    // What the program alone can answer works beside a broken ofs.toml, too.
    let command = match cli.command.unwrap_or(Command::Console(console::Args::default())) {
        Command::Schema(args) => return schema::run(cli.json, &args),
        Command::Completions(args) => return completions::run(cli.json, &args, Cli::command()),
        Command::Generate(args) => {
            Context::load(cli.workspace.as_deref(), cli.json)?.may_fill(args.dir())?;
            return generate::run(cli.json, args);
        }
        command => command,
    };
    let context = Context::load(cli.workspace.as_deref(), cli.json)?;
    match command {
        Command::Console(args) => console::run(&context, &args),
        Command::Keys => keys::run(&context),
        Command::Init(args) => init::run(&context, &args),
        Command::Intent(args) => intent::run(&context, &args),
        Command::Plan(args) => plan::run(&context, &args),
        Command::Run(args) => run::run(&context, args),
        Command::Submit(args) => submit::run(&context, args),
        Command::Worker(args) => worker::run(&context, &args),
        Command::Resume(args) => run::resume(&context, &args),
        Command::Retry(args) => run::retry(&context, &args),
        Command::Cancel(args) => operator::cancel(&context, &args),
        Command::Fail(args) => operator::fail(&context, &args),
        Command::Note(args) => operator::note(&context, &args),
        Command::Bundle(args) => operator::bundle(&context, &args),
        Command::Runs(args) => runs::run(&context, &args),
        Command::Show(args) => show::run(&context, &args),
        Command::Events(args) => events::run(&context, &args),
        Command::Verify(args) => verify::run(&context, &args),
        Command::Report(args) => report::run(&context, &args),
        Command::Closure(args) => closure::run(&context, &args),
        Command::Archive(args) => archive::run(&context, &args),
        Command::Labels(args) => labels::run(&context, &args),
        Command::Explain(args) => explain::run(&context, &args),
        Command::Diff(args) => diff::run(&context, &args),
        Command::Export(args) => export::run(&context, &args),
        Command::Prove(args) => prove::run(&context, &args),
        Command::Demo(args) => demo::run(&context, &args),
        Command::Config(args) => config::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args),
        Command::Schema(_) | Command::Completions(_) | Command::Generate(_) => Ok(0),
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
        let _ = writeln!(std::io::stdout().lock(), "{}", safe_json(&document.to_string()));
    }
}

/// Prints a line on stdout; a reader that went away ends the talk quietly.
pub(crate) fn say(line: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout().lock(), "{}", safe_lines(line.as_ref()));
}

/// Says on stderr what went wrong beside the work and changes nothing of it.
pub(crate) fn warn(trouble: Option<String>) {
    if let Some(trouble) = trouble {
        let _ = writeln!(std::io::stderr().lock(), "ofs: {}", safe_lines(&trouble));
    }
}

/// Prints an answer on stdout.
pub(crate) fn told(lines: &[crate::answer::Line]) {
    lines.iter().for_each(|line| say(&line.text));
}

/// Prints a document on stdout.
pub(crate) fn document(value: &Value) {
    let _ = writeln!(std::io::stdout().lock(), "{}", safe_json(&serde_json::to_string_pretty(value).unwrap_or_default()));
}
