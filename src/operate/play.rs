//! Plays a scenario in a scratch workspace, step by step, and holds what comes of it against what was
//! expected. Every action runs in this process through the same library calls as the command it stands for.

mod act;
mod judge;
mod queue;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::mutate::{Broken, Scratchpad, broken};
use super::scenario::{Expect, Scenario, Step};
use crate::time::{Clock, SystemClock};

/// What came of an action.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Observed {
    /// Status of the run; `KILLED` for an owner that died, `NOT_RUN` where nothing could be recorded.
    pub status: String,
    /// Exit code of the command.
    pub exit: u8,
    /// NEW, ALREADY_PUBLISHED or DUPLICATE.
    pub outcome: Option<String>,
    /// Reason code.
    pub code: Option<String>,
    /// Gate that refused.
    pub phase: Option<String>,
    /// What was found, in a sentence.
    pub message: Option<String>,
    /// The facts that matter.
    pub evidence: Vec<String>,
    /// Rows of the data set.
    pub rows: Option<u64>,
    /// Key of the run.
    pub run_key: Option<String>,
    /// The identity that the run resolved to, published or not.
    pub manifest_id: Option<String>,
    /// Where the manifest lies, if the data set is published.
    pub manifest_ref: Option<String>,
}

/// One step as it went.
#[derive(Debug, Clone)]
pub struct StepReport {
    /// Its place, from 1.
    pub number: usize,
    /// What was done, in words.
    pub what: String,
    /// What had to come of it; nothing for a mutation.
    pub expected: Option<Expect>,
    /// What came of it.
    pub found: Option<Observed>,
    /// What is not as it must be.
    pub problems: Vec<String>,
}

/// A scenario as it went.
#[derive(Debug, Clone)]
pub struct Played {
    /// Its name.
    pub name: String,
    /// Its title.
    pub title: String,
    /// The workspace it was played in.
    pub workspace: PathBuf,
    /// Its steps.
    pub steps: Vec<StepReport>,
}

impl Played {
    /// Whether every expectation held.
    pub fn ok(&self) -> bool {
        self.steps.iter().all(|s| s.problems.is_empty())
    }

    /// The folder of the data set that was published last, if one was.
    pub fn dataset(&self) -> Option<PathBuf> {
        let published = self.steps.iter().rev().filter_map(|s| s.found.as_ref());
        let found = published.into_iter().find(|found| found.manifest_ref.is_some())?;
        let run = found.manifest_ref.as_deref()?.split('/').next()?;
        Some(self.workspace.join("store").join(run).join("ofs/datasets").join(found.manifest_id.as_deref()?))
    }

    /// `ofs.demo.v1`.
    pub fn to_json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|s| {
                json!({"step": s.number, "what": s.what, "expected": s.expected, "found": s.found, "ok": s.problems.is_empty(), "problems": s.problems})
            })
            .collect();
        json!({
            "schema_version": "ofs.demo.v1", "scenario": self.name, "title": self.title, "ok": self.ok(), "steps": steps,
            "workspace": self.workspace.display().to_string(), "dataset": self.dataset().map(|d| d.display().to_string()),
        })
    }
}

/// A scenario that is being played.
#[derive(Debug)]
pub struct Player<'s> {
    scenario: &'s Scenario,
    pad: Scratchpad,
    named: BTreeMap<String, Observed>,
    next: usize,
    clock: Arc<dyn Clock>,
}

impl<'s> Player<'s> {
    /// Unpacks the scenario's base workspace.
    ///
    /// # Errors
    /// A folder that is in use, the environment's.
    pub fn new(scenario: &'s Scenario, into: &Path) -> Result<Self, Broken> {
        Self::under(scenario, into, Arc::new(SystemClock))
    }

    /// The same under another clock, so that what is recorded of it is the same every time.
    ///
    /// # Errors
    /// As of [`Player::new`].
    pub fn under(scenario: &'s Scenario, into: &Path, clock: Arc<dyn Clock>) -> Result<Self, Broken> {
        Ok(Player { scenario, pad: Scratchpad::unpack(&scenario.base, into)?, named: BTreeMap::new(), next: 0, clock })
    }

    /// The step that comes next, and what it will do in words.
    pub fn coming(&self) -> Option<(&'s Step, String)> {
        let step = self.scenario.steps.get(self.next)?;
        Some((step, self.words(step)))
    }

    /// The workspace.
    pub fn workspace(&self) -> &Path {
        self.pad.root()
    }

    fn words(&self, step: &Step) -> String {
        let mut what = step.say.clone().unwrap_or_else(|| step.verb.words());
        if let (Some(fault), None) = (&step.fault, &step.say) {
            what = format!("{what}, while {}", fault.words());
        }
        self.pad.fill(&what)
    }

    /// Takes the next step; nothing when there is none left.
    ///
    /// # Errors
    /// A step that cannot be taken as written. That what came of it was not expected is no error.
    pub fn step(&mut self) -> Result<Option<StepReport>, Broken> {
        let Some(step) = self.scenario.steps.get(self.next) else { return Ok(None) };
        self.next += 1;
        let report = self.take(step).map_err(|e| Broken(format!("{}, step {}: {e}", self.scenario.name, self.next)))?;
        Ok(Some(report))
    }

    fn take(&mut self, step: &Step) -> Result<StepReport, Broken> {
        let what = self.words(step);
        let mut report = StepReport { number: self.next, what, expected: None, found: None, problems: Vec::new() };
        let Some(expect) = &step.expect else {
            self.pad.change(&step.verb)?;
            return Ok(report);
        };
        let before = judge::snapshot(&self.pad)?;
        let found = act::act(&self.pad, step, &self.clock)?;
        if let (Some(name), Some(key)) = (&step.name, &found.run_key) {
            self.pad.set_name(format!("key.{name}"), key.clone());
            self.pad.set_name(format!("manifest.{name}"), found.manifest_id.clone().unwrap_or_default());
        }
        report.problems = judge::judge(&self.pad, &self.named, expect, &found)?;
        report.problems.extend(judge::aftermath(&self.pad, &before, expect)?);
        if let Some(name) = &step.name {
            self.named.insert(name.clone(), found.clone());
        }
        (report.expected, report.found) = (Some(expect.clone()), Some(found));
        Ok(report)
    }
}

/// Plays a scenario to its end, telling each step as it is taken.
///
/// # Errors
/// As [`Player::new`] and [`Player::step`].
pub fn play(scenario: &Scenario, into: &Path, told: &mut dyn FnMut(&StepReport)) -> Result<Played, Broken> {
    let mut player = Player::new(scenario, into)?;
    let workspace = player.pad.root().to_owned();
    let mut steps = Vec::new();
    while let Some(report) = player.step()? {
        told(&report);
        steps.push(report);
    }
    if steps.is_empty() {
        return broken(format!("{} has no steps", scenario.name));
    }
    Ok(Played { name: scenario.name.clone(), title: scenario.title.clone(), workspace, steps })
}
