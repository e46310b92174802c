//! `ofs demo`: fail-closed scenarios on embedded real data, in a scratch workspace.

use std::io::IsTerminal;
use std::path::PathBuf;

use serde_json::json;

use super::{Context, Failure, Outcome, document, say};
use crate::operate::mutate::Broken;
use crate::operate::play::{self, Observed, Played, StepReport};
use crate::operate::scenario::{self, Scenario};
use crate::text::{nearest, safe};

/// Arguments of `ofs demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which scenario; `--list` names them.
    #[arg(required_unless_present = "list")]
    scenario: Option<String>,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
    /// Play without the console.
    #[arg(long)]
    headless: bool,
    /// Play in this folder (empty or new) and leave everything there.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

fn broken(error: impl Into<String>) -> Failure {
    Failure { exit: 1, code: Some(crate::contract::ReasonCode::InternalError), message: error.into(), hint: None }
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let scenarios = scenario::all().map_err(broken)?;
    let Some(name) = args.scenario.as_deref().filter(|_| !args.list) else { return Ok(list(context, &scenarios)) };
    let Some(scenario) = scenarios.iter().find(|s| s.name == name) else {
        let near = nearest(name, scenarios.iter().map(|s| s.name.as_str())).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        return Err(Failure::usage(format!("there is no scenario {name}{near}")).hint("`ofs demo --list` names them"));
    };
    if !args.headless && std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        eprintln!("ofs: playing without a console, as with --headless");
    }
    let workspace = match &args.out {
        Some(dir) if dir.read_dir().is_ok_and(|mut d| d.next().is_some()) => {
            return Err(Failure::usage(format!("{} is not empty; nothing was written", dir.display())).hint("name a new folder"));
        }
        Some(dir) => dir.clone(),
        None => temporary(name)?,
    };
    if !context.json {
        say(format!("{}: {}", scenario.name, scenario.title));
        say(format!("  {}\n", scenario.shows));
    }
    let mut tell = |report: &StepReport| {
        if !context.json {
            step(report);
        }
    };
    let played = play::play(scenario, &workspace, &mut tell).map_err(|Broken(e)| broken(e))?;
    if context.json {
        document(&played.to_json());
    } else {
        verdict(&played);
    }
    Ok(if played.ok() { 0 } else { 3 })
}

/// A new folder in the system's temporary directory.
pub(super) fn temporary(name: &str) -> Result<PathBuf, Failure> {
    let root = std::env::temp_dir();
    for n in 0..10_000u32 {
        let dir = root.join(format!("ofs-demo-{name}-{}-{n}", std::process::id()));
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                return Err(Failure {
                    exit: 1,
                    code: None,
                    message: format!("{}: {e}", dir.display()),
                    hint: Some("give --out DIR".into()),
                });
            }
        }
    }
    Err(Failure::usage(format!("{} is full of demos", root.display())).hint("give --out DIR"))
}

fn list(context: &Context, scenarios: &[Scenario]) -> u8 {
    if context.json {
        let list: Vec<_> = scenarios.iter().map(|s| json!({"name": s.name, "title": s.title, "shows": s.shows})).collect();
        document(&json!({"schema_version": "ofs.demos.v1", "scenarios": list}));
        return 0;
    }
    let width = scenarios.iter().map(|s| s.name.len()).max().unwrap_or(0);
    for s in scenarios {
        say(format!("{:<width$}  {}", s.name, s.title));
    }
    0
}

fn step(report: &StepReport) {
    say(format!("{:>3}  {}", report.number, report.what));
    let Some(found) = &report.found else { return };
    say(format!("     {}", ending(found)));
    if let Some(message) = &found.message {
        say(format!("     {}", safe(message)));
    }
    for line in found.evidence.iter().take(3) {
        say(format!("       - {}", safe(line)));
    }
    if report.problems.is_empty() {
        say("     as expected");
    }
    for problem in &report.problems {
        say(format!("     NOT as expected: {}", safe(problem)));
    }
}

fn ending(found: &Observed) -> String {
    let mut text = found.status.clone();
    if let Some(outcome) = &found.outcome {
        text.push_str(&format!(" ({outcome})"));
    }
    if let Some(code) = &found.code {
        text.push_str(&format!("  {code}"));
    }
    if let Some(phase) = &found.phase {
        text.push_str(&format!(" at the {phase} gate"));
    }
    if let Some(rows) = found.rows {
        text.push_str(&format!("  {rows} rows"));
    }
    format!("{text}  exit {}", found.exit)
}

fn verdict(played: &Played) {
    say("");
    if played.ok() {
        say("held: every expectation; inputs are byte-identical, the ledger's chains whole, nothing unproven looks published");
    } else {
        say("did NOT hold: see the steps above");
    }
    match played.dataset() {
        Some(dataset) => say(format!("data set   {}", dataset.display())),
        None => say("data set   none was published"),
    }
    say(format!("workspace  {}", played.workspace.display()));
}
