//! Demos on the console's own screen: what will be attacked, the untouched build that succeeds, the attack,
//! the refusal, and what an operator would do next. Each is played in a scratch workspace of its own; the
//! console over it is read-only.

mod live;
mod menu;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::live::{Live, choose};
pub use self::menu::Menu;
use super::cast::Cast;
use super::data::Source;
use super::data::detail::Detail;
use super::data::runs::RunsUpdate;
use super::driver::{Caption, Driver, Load};
use super::filter::Filter;
use super::model::{Start, View};
use super::msg::{Feed, Msg};
use super::update;
use crate::config::Config;
use crate::contract::ReasonCode;
use crate::ledger::Ledger;
use crate::operate::mutate::Broken;
use crate::operate::open;
use crate::operate::play::{Observed, Played, Player, StepReport};
use crate::operate::scenario::Scenario;
use crate::store::Store;
use crate::time::{Clock, FixedClock, Instant};

/// When every demo happens: midnight of a day in 2026, in UTC.
const BEGIN: Instant = Instant(1_767_225_600_000_000);

/// What the clock of a demo moves on by with every step. The lease of a killed owner must not run out
/// because somebody reads slowly.
const STEP_US: i64 = 1_000_000;

/// Runs that a demo shows at most.
const RUNS: u64 = 500;

/// The keys while a demo plays.
const HINT: &str = "Space pause  Enter next  q leave";

/// Why a demo does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    /// The scenario cannot be played as written.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The terminal cannot be written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Whoever watched left, or a signal came, with this exit code.
    #[error("left before the end")]
    Left(u8),
}

/// How time passes while something is on the screen.
pub trait Pace<W: Write> {
    /// Lets people read for so long.
    ///
    /// # Errors
    /// A terminal that is gone; whoever left.
    fn hold(&mut self, driver: &mut Driver<W>, time: Duration) -> Result<(), ShowError>;
}

/// Time that passes in a recording only.
#[derive(Debug)]
pub struct Recorded {
    cast: Cast,
    speed: f64,
}

impl Recorded {
    /// Time of that recording, `speed` times as fast as people read.
    pub fn new(cast: Cast, speed: f64) -> Self {
        Recorded { cast, speed }
    }
}

impl<W: Write> Pace<W> for Recorded {
    fn hold(&mut self, driver: &mut Driver<W>, time: Duration) -> Result<(), ShowError> {
        driver.paint()?;
        self.cast.advance(u64::try_from(time.div_f64(self.speed).as_micros()).unwrap_or(u64::MAX));
        Ok(())
    }
}

/// How long people read a caption.
fn reading(text: &str) -> Duration {
    Duration::from_millis(1_200 + 35 * text.chars().count() as u64)
}

/// A demo being shown.
struct Show<'s, W: Write> {
    scenario: &'s Scenario,
    driver: &'s mut Driver<W>,
    pace: &'s mut dyn Pace<W>,
    clock: Arc<FixedClock>,
    start: &'s dyn Fn(Instant) -> Start,
    beat: usize,
}

/// Shows a scenario: its base untouched in `untouched`, then the scenario itself in `workspace`; both folders
/// must be empty or absent. Every step is held against its expectation, as without a screen.
///
/// # Errors
/// See [`ShowError`].
pub fn show<W: Write>(
    scenario: &Scenario,
    (untouched, workspace): (&Path, &Path),
    driver: &mut Driver<W>,
    pace: &mut dyn Pace<W>,
    start: &dyn Fn(Instant) -> Start,
) -> Result<Played, ShowError> {
    let mut show = Show { scenario, driver, pace, clock: Arc::new(FixedClock::new(BEGIN)), start, beat: 0 };
    show.driver.feed(Msg::Feed(Feed::Absent));
    show.driver.feed(Msg::Runs(RunsUpdate { complete: true, ..RunsUpdate::default() }));
    show.caption(&format!("{}. {}", scenario.title, scenario.shows))?;
    show.untouched(untouched)?;
    show.attack(workspace)
}

impl<W: Write> Show<'_, W> {
    /// Says something and lets people read it.
    fn caption(&mut self, text: &str) -> Result<(), ShowError> {
        self.beat += 1;
        self.driver.say(Caption { title: format!("demo {}  {}", self.scenario.name, self.beat), text: text.to_owned(), hint: HINT.into() });
        self.pace.hold(self.driver, reading(text))
    }

    /// The base of the scenario as it is, built: what follows is the attack's doing and nothing else's.
    fn untouched(&mut self, folder: &Path) -> Result<(), ShowError> {
        let all = crate::operate::scenario::all().map_err(Broken)?;
        let Some(clean) = all.into_iter().find(|s| s.name == "clean" && s.name != self.scenario.name) else { return Ok(()) };
        let clean = Scenario { base: self.scenario.base.clone(), steps: clean.steps.into_iter().take(1).collect(), ..clean };
        let mut player = Player::under(&clean, folder, self.clock.clone())?;
        self.enter(player.workspace());
        self.caption("First the workspace is built untouched.")?;
        while let Some(report) = player.step()? {
            self.look(player.workspace(), &report);
            self.caption(&format!("Untouched: {}", outcome(&report)))?;
        }
        Ok(())
    }

    fn attack(&mut self, folder: &Path) -> Result<Played, ShowError> {
        let mut player = Player::under(self.scenario, folder, self.clock.clone())?;
        let workspace = player.workspace().to_owned();
        self.enter(&workspace);
        let mut steps: Vec<StepReport> = Vec::new();
        while let Some((coming, words)) = player.coming() {
            let text = if coming.verb.acts() { format!("Now: {words}") } else { format!("Attack: {words}") };
            self.caption(&text)?;
            self.clock.advance(STEP_US);
            let Some(report) = player.step()? else { break };
            if report.found.is_some() {
                self.look(&workspace, &report);
                self.caption(&outcome(&report))?;
            }
            steps.push(report);
        }
        let last = steps.iter().rev().find_map(|s| s.found.as_ref());
        let next = last.map(next).unwrap_or_default();
        self.caption(&next)?;
        Ok(Played { name: self.scenario.name.clone(), title: self.scenario.title.clone(), workspace, steps })
    }

    /// A new console over a workspace.
    fn enter(&mut self, workspace: &Path) {
        let (folder, clock) = (workspace.to_owned(), self.clock.clone());
        // Opened for each look: a scenario may damage the ledger, too.
        let load: Load = Box::new(move |run_key, stop| Detail::read(&source(&folder, &clock)?, run_key, stop));
        self.driver.renew((self.start)(self.clock.now()), load);
        self.driver.feed(Msg::Runs(RunsUpdate { complete: true, ..RunsUpdate::default() }));
    }

    /// Shows what came of an action: its run, and why it stands where it does.
    fn look(&mut self, workspace: &Path, report: &StepReport) {
        self.driver.feed(Msg::Clock(self.clock.now()));
        let run_key = report.found.as_ref().and_then(|found| found.run_key.clone());
        let failed = report.found.as_ref().is_some_and(|found| found.code.is_some());
        update::open(self.driver.model_mut(), Some(if failed { View::Triage } else { View::Dashboard }), run_key, Filter::default());
        let lines = source(workspace, &self.clock).and_then(|source| source.ledger.newest_lines(RUNS).map_err(|e| e.to_string()));
        match lines {
            Ok(lines) => {
                self.driver.feed(Msg::Feed(Feed::Live));
                self.driver.feed(Msg::Runs(RunsUpdate { lines, complete: true, workers: 0 }));
            }
            Err(why) => drop(self.driver.feed(Msg::Feed(Feed::Stale(why)))),
        }
    }
}

/// What the console reads a scratch workspace from.
fn source(workspace: &Path, clock: &Arc<FixedClock>) -> Result<Source, String> {
    let config = Arc::new(Config::load(Some(workspace), workspace, &BTreeMap::new()).map_err(|e| e.to_string())?);
    let ledger = Ledger::open_read_only(&config.path("ledger"), clock.clone(), "DEMO::viewer").map_err(|e| e.to_string())?;
    let store = open::store(&config).map(|store| Arc::new(store) as Arc<dyn Store>).map_err(|e| e.message);
    Ok(Source { ledger: Arc::new(ledger), store, config, clock: clock.clone(), then: None })
}

/// What came of an action, in a sentence.
fn outcome(report: &StepReport) -> String {
    let Some(found) = &report.found else { return String::new() };
    let code = found.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
    let phase = found.phase.as_ref().map(|phase| format!(" at the {phase} gate")).unwrap_or_default();
    let rows = found.rows.map(|n| format!(", {n} rows")).unwrap_or_default();
    let message = found.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default();
    let held = if report.problems.is_empty() { "As expected." } else { "NOT as expected!" };
    format!("{}{code}{phase}{rows}, exit {}. {held}{message}", found.status, found.exit)
}

/// What an operator would do next.
fn next(found: &Observed) -> String {
    match found.code.as_deref().and_then(ReasonCode::parse) {
        Some(code) => format!("What the operator would do next: {}", code.info().remedy),
        None => "Nothing is left to do: what is published is proved, row by row.".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::driver::Mask;
    use crate::console::keys::Keymap;
    use crate::console::look::{Glyphs, Look, Theme};
    use crate::console::model::Mode;
    use crate::ledger::Limits;

    fn start(now: Instant) -> Start {
        Start {
            now,
            size: (100, 30),
            look: Look { theme: Theme::named("ansi16").unwrap(), glyphs: Glyphs::UNICODE },
            keys: Keymap::default(),
            limits: Limits { stall_us: 120_000_000, max_pause_us: 3_600_000_000, max_retries: 3 },
            mode: Mode::ReadOnly("a demo".into()),
            workspace: "demo".into(),
            mouse: false,
        }
    }

    fn recorded(name: &str, speed: f64) -> (Played, Cast) {
        let scenario = crate::operate::scenario::all().unwrap().into_iter().find(|s| s.name == name).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cast = Cast::new(100, 30, name);
        let mut driver = Driver::new(start(BEGIN), cast.clone(), false, Mask::default(), Box::new(|_, _| Err("nothing yet".into())));
        let folders = (dir.path().join("untouched"), dir.path().join("attack"));
        let mut pace = Recorded::new(cast.clone(), speed);
        let played = show(&scenario, (&folders.0, &folders.1), &mut driver, &mut pace, &start).unwrap();
        (played, cast)
    }

    #[test]
    fn a_recorded_demo_shows_both_builds_and_is_the_same_every_time() {
        let (played, cast) = recorded("archive-gap", 1.0);
        assert!(played.ok());
        let text = cast.text();
        for shown in ["DONE", "FAILED", "REPLAY_INCOMPLETE", "READ-ONLY"] {
            assert!(text.contains(shown), "{shown}");
        }
        assert_eq!(recorded("archive-gap", 1.0).1.text(), text);
        let fast = recorded("archive-gap", 4.0).1;
        assert!((fast.micros() * 4).abs_diff(cast.micros()) < 100, "{} {}", fast.micros(), cast.micros());
    }

    #[test]
    fn a_lease_outlives_the_reading() {
        // The second owner has to find the first one's lease alive, however long the captions are.
        assert!(recorded("run-busy", 0.01).0.ok());
    }
}
