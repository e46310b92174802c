//! `ofs demo`: fail-closed scenarios on embedded real data, in a scratch workspace.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::{Context, Failure, Outcome, say};
use crate::console::cast::{Cast, Tee};
use crate::console::demo::{Live, Menu, Pace, Recorded, ShowError, choose, show};
use crate::console::driver::{Caption, Driver, Mask};
use crate::console::keys::Keymap;
use crate::console::look::{Glyphs, Look, Theme};
use crate::console::model::{Mode, Start};
use crate::console::terminal::{Terminal, install_panic_hook, output};
use crate::ledger::Owner;
use crate::operate::mutate::Broken;
use crate::operate::play::{self, Observed, Played, StepReport};
use crate::operate::scenario::{self, Scenario};
use crate::text::{nearest, safe, safe_json};
use crate::time::Instant;

/// Columns and rows of a recording that nobody watches while it is made.
const RECORDED: (u16, u16) = (100, 30);

/// Arguments of `ofs demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which scenario; without one a menu opens, `--list` names them.
    scenario: Option<String>,
    /// List the scenarios.
    #[arg(long)]
    list: bool,
    /// Play without the console.
    #[arg(long)]
    headless: bool,
    /// Play in this folder (empty or new) and leave everything there.
    #[arg(long, value_name = "DIR", requires = "scenario")]
    out: Option<PathBuf>,
    /// Write a recording of the screen (asciinema v2) into this new file.
    #[arg(long, value_name = "FILE", requires = "scenario")]
    record: Option<PathBuf>,
    /// How fast captions pass: 2 is twice as fast as people read.
    #[arg(long, value_name = "SPEED", default_value = "1", value_parser = pace)]
    pace: f64,
    /// Hide the names of host and user, on the screen and in recordings.
    #[arg(long)]
    mask: bool,
}

fn pace(text: &str) -> Result<f64, String> {
    let speed: f64 = text.parse().map_err(|_| "expected a number, like 2 or 0.5".to_owned())?;
    if (0.05..=1_000.0).contains(&speed) { Ok(speed) } else { Err("expected a number from 0.05 to 1000".into()) }
}

pub(super) fn broken(error: impl Into<String>) -> Failure {
    Failure { exit: 1, code: Some(crate::contract::ReasonCode::InternalError), message: error.into(), hint: None }
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let scenarios = scenario::all().map_err(broken)?;
    let mask = if args.mask { mask() } else { Mask::default() };
    let terminal = !args.headless && !context.json && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if args.list {
        return Ok(list(context, &scenarios));
    }
    let Some(name) = args.scenario.as_deref() else {
        if terminal {
            return menu(context, args, &scenarios, &mask);
        }
        return Err(Failure::usage("which scenario? The menu needs a terminal")
            .hint("`ofs demo --list` names them; `ofs demo NAME --headless` plays one"));
    };
    let Some(scenario) = scenarios.iter().find(|s| s.name == name) else {
        let near = nearest(name, scenarios.iter().map(|s| s.name.as_str())).map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        return Err(Failure::usage(format!("there is no scenario {name}{near}")).hint("`ofs demo --list` names them"));
    };
    args.record.as_deref().map_or(Ok(()), |file| context.may_write(file))?;
    args.out.as_deref().map_or(Ok(()), |dir| context.may_fill(dir))?;
    // Found out before anything is played: nothing that is there is ever replaced.
    if let Some(file) = args.record.as_deref().filter(|file| file.symlink_metadata().is_ok()) {
        return Err(Failure::usage(format!("{} is there; nothing was written", file.display())).hint("name a new file"));
    }
    let workspace = match &args.out {
        Some(dir) if dir.read_dir().is_ok_and(|mut d| d.next().is_some()) => {
            return Err(Failure::usage(format!("{} is not empty; nothing was written", dir.display())).hint("name a new folder"));
        }
        Some(dir) => dir.clone(),
        None => temporary(name)?,
    };
    let played = match (terminal, &args.record) {
        (true, _) => on_terminal(args, |live| present(context, args, &mask, scenario, &workspace, live))?,
        (false, Some(file)) => record(context, args, &mask, scenario, &workspace, file)?,
        (false, None) => plainly(context, &mask, scenario, &workspace)?,
    };
    if context.json {
        masked_document(&played.to_json(), &mask);
    } else {
        verdict(&played, &mask);
        if let Some(file) = &args.record {
            tell(&mask, format!("recording  {}", file.display()));
        }
    }
    Ok(if played.ok() { 0 } else { 3 })
}

/// The names that are hidden: of this host, this user, and the user's folder.
pub(super) fn mask() -> Mask {
    let variable = |name: &str| std::env::var(name).ok();
    let home = variable("HOME").and_then(|home| Some(Path::new(&home).file_name()?.to_str()?.to_owned()));
    let words = [Some(Owner::current().host), variable("USER"), variable("LOGNAME"), variable("HOSTNAME"), home];
    Mask::new(words.into_iter().flatten())
}

/// Plays a scenario without a screen, telling each step.
fn plainly(context: &Context, mask: &Mask, scenario: &Scenario, workspace: &Path) -> Result<Played, Failure> {
    if !context.json {
        tell(mask, format!("{}: {}", scenario.name, scenario.title));
        tell(mask, format!("  {}\n", scenario.shows));
    }
    let mut each = |report: &StepReport| {
        if !context.json {
            step(report, mask);
        }
    };
    play::play(scenario, workspace, &mut each).map_err(|Broken(e)| broken(e))
}

/// Plays a scenario on a screen that only the recording sees.
fn record(context: &Context, args: &Args, mask: &Mask, scenario: &Scenario, workspace: &Path, file: &Path) -> Result<Played, Failure> {
    let cast = Cast::new(RECORDED.0, RECORDED.1, &format!("ofs demo {}", scenario.name));
    let look = Look { theme: Theme::named("ansi16").map_err(|e| broken(e.to_string()))?, glyphs: Glyphs::UNICODE };
    let limits = super::console::limits(&context.config);
    let start = move |now: Instant| start(now, RECORDED, look.clone(), Keymap::default(), limits);
    let mut driver = driver(start(Instant(0)), cast.clone(), false, mask);
    // The recording is the same whatever theme the environment asks for.
    crossterm::style::force_color_output(true);
    let mut pace = Recorded::new(cast.clone(), args.pace);
    let played = both(scenario, workspace, &mut driver, &mut pace, &start)?;
    write_new(file, &cast)?;
    Ok(played)
}

pub(super) fn write_new(file: &Path, cast: &Cast) -> Result<(), Failure> {
    let written = std::fs::File::create_new(file).and_then(|mut f| f.write_all(cast.text().as_bytes()));
    written.map_err(|e| Failure { exit: 1, code: None, message: format!("{}: {e}", file.display()), hint: Some("name a new file".into()) })
}

/// A console that is to be shown over a scratch workspace: nothing can be changed from it.
fn start(now: Instant, size: (u16, u16), look: Look, keys: Keymap, limits: crate::ledger::Limits) -> Start {
    Start { now, size, look, keys, limits, mode: Mode::ReadOnly("a demo".into()), workspace: "demo".into(), mouse: false }
}

fn driver<W: Write>(start: Start, out: W, sync: bool, mask: &Mask) -> Driver<W> {
    Driver::new(start, out, sync, mask.clone(), Box::new(|_, _| Err("nothing was built yet".into())))
}

/// Plays the untouched build in a folder that goes away, and the scenario in its own.
fn both<W: Write>(
    scenario: &Scenario,
    workspace: &Path,
    driver: &mut Driver<W>,
    pace: &mut dyn Pace<W>,
    start: &dyn Fn(Instant) -> Start,
) -> Result<Played, Failure> {
    let untouched = temporary("untouched")?;
    let shown = show(scenario, (&untouched, workspace), driver, pace, start);
    let _ = std::fs::remove_dir_all(&untouched);
    shown.map_err(Failure::from)
}

impl From<ShowError> for Failure {
    fn from(error: ShowError) -> Self {
        match error {
            ShowError::Broken(Broken(message)) => broken(message),
            ShowError::Io(error) => error.into(),
            ShowError::Left(exit) => Failure { exit, code: None, message: "the demo was left before its end".into(), hint: None },
        }
    }
}

/// Takes the terminal for `work` and gives it back before anything else is printed.
fn on_terminal<T>(args: &Args, work: impl FnOnce(&Live) -> Result<T, Failure>) -> Result<T, Failure> {
    crossterm::style::force_color_output(true);
    install_panic_hook(std::thread::current().id());
    let live = Live::new(args.pace)?;
    let terminal = Terminal::take(false)?;
    let done = work(&live);
    drop(terminal);
    done
}

/// Shows one scenario on the terminal.
fn present(context: &Context, args: &Args, mask: &Mask, scenario: &Scenario, workspace: &Path, live: &Live) -> Result<Played, Failure> {
    let size = crossterm::terminal::size()?;
    let (look, keys) = appearance(context)?;
    let limits = super::console::limits(&context.config);
    let start = move |now: Instant| start(now, size, look.clone(), keys.clone(), limits);
    let cast = args.record.as_ref().map(|_| Cast::new(size.0, size.1, &format!("ofs demo {}", scenario.name)));
    let mut driver = driver(start(Instant(0)), Tee(output()?, cast.clone()), true, mask);
    let mut pace = live.with(cast.clone());
    let played = both(scenario, workspace, &mut driver, &mut pace, &start)?;
    driver.say(Caption { text: said(&played), hint: "Enter goes on".into(), ..driver.caption().clone() });
    // Leaving now is leaving after the end.
    pace.hold(&mut driver, Duration::from_secs(5)).or_else(|e| if matches!(e, ShowError::Left(0)) { Ok(()) } else { Err(e) })?;
    if let (Some(file), Some(cast)) = (&args.record, &cast) {
        write_new(file, cast)?;
    }
    Ok(played)
}

pub(super) fn appearance(context: &Context) -> Result<(Look, Keymap), Failure> {
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let term = environment("TERM").unwrap_or_default();
    Ok((super::console::look(&context.config, &term, &environment)?, super::console::keymap(&context.config)?))
}

/// The menu: one scenario after the other, until the person leaves.
fn menu(context: &Context, args: &Args, scenarios: &[Scenario], mask: &Mask) -> Outcome {
    let (look, keys) = appearance(context)?;
    let mut menu = Menu::new(scenarios.iter().map(|s| (s.name.clone(), s.title.clone(), s.shows.clone())).collect());
    on_terminal(args, |live| {
        let mut exit = 0;
        while let Some(name) = choose(&mut menu, live, &look, &keys, output()?)? {
            let Some(scenario) = scenarios.iter().find(|s| s.name == name) else { continue };
            let workspace = temporary(&name)?;
            let played = present(context, args, mask, scenario, &workspace, live);
            let _ = std::fs::remove_dir_all(&workspace);
            match played {
                Ok(played) => {
                    menu.told = said(&played);
                    exit = if played.ok() { exit } else { 3 };
                }
                // Leaving a demo leads back to the menu; a signal leads out.
                Err(failure) if failure.exit == 0 => menu.told = format!("{name}: left before its end"),
                Err(failure) => return Err(failure),
            }
        }
        Ok(exit)
    })
}

fn said(played: &Played) -> String {
    let held = if played.ok() { "every expectation held" } else { "an expectation did NOT hold" };
    format!("{}: {held}", played.name)
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
        super::document(&json!({"schema_version": "ofs.demos.v1", "scenarios": list}));
        return 0;
    }
    let width = scenarios.iter().map(|s| s.name.len()).max().unwrap_or(0);
    for s in scenarios {
        say(format!("{:<width$}  {}", s.name, s.title));
    }
    0
}

/// Prints a line without the names that are hidden.
fn tell(mask: &Mask, line: impl AsRef<str>) {
    say(mask.text(line.as_ref()));
}

/// Prints a document without the names that are hidden.
fn masked_document(value: &serde_json::Value, mask: &Mask) {
    let text = mask.text(&serde_json::to_string_pretty(value).unwrap_or_default());
    let _ = writeln!(std::io::stdout().lock(), "{}", safe_json(&text));
}

fn step(report: &StepReport, mask: &Mask) {
    let say = |line: String| tell(mask, line);
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
        say("     as expected".into());
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

fn verdict(played: &Played, mask: &Mask) {
    let say = |line: String| tell(mask, line);
    say(String::new());
    say(if played.ok() {
        "held: every expectation; inputs are byte-identical, the ledger's chains whole, nothing unproven looks published".into()
    } else {
        "did NOT hold: see the steps above".into()
    });
    say(match played.dataset() {
        Some(dataset) => format!("data set   {}", dataset.display()),
        None => "data set   none was published".into(),
    });
    say(format!("workspace  {}", played.workspace.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_sensible_number() {
        assert_eq!((pace("2"), pace("0.5")), (Ok(2.0), Ok(0.5)));
        for bad in ["0", "-1", "NaN", "inf", "fast", "1e9"] {
            assert!(pace(bad).is_err(), "{bad}");
        }
    }
}
