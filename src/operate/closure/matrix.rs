//! The negative matrix: every scenario, each in a workspace of its own. Which there are, and for which rows
//! they count, is data: a scenario that is added is played and counted without a change here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::{Checks, Obligation, phases_of};
use crate::operate::mutate::Broken;
use crate::operate::play;
use crate::operate::scenario::{self, Scenario};

/// Most scenarios that are played at once.
const AT_ONCE: usize = 4;

/// Plays every scenario; what it left stays where something did not hold.
pub(super) fn play(scratch: &Path, owed: &[Obligation], checks: &Checks<'_>) -> Result<(), Broken> {
    let scenarios = scenario::all().map_err(Broken)?;
    let waiting = Mutex::new(scenarios.iter());
    let players = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, AT_ONCE);
    std::thread::scope(|scope| {
        for _ in 0..players {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(scenario) = next else { return };
                    let name = format!("scenario {}: {}", scenario.name, scenario.title);
                    checks.add(&phases_of(scenario, owed), name, one(scenario, &scratch.join("scenarios").join(&scenario.name)));
                }
            });
        }
    });
    Ok(())
}

/// What did not hold in one scenario. A defect that panics is one problem more, not the end of the gate.
fn one(scenario: &Scenario, into: &Path) -> Vec<String> {
    let played = catch_unwind(AssertUnwindSafe(|| play::play(scenario, into, &mut |_| {})));
    let problems: Vec<String> = match played {
        Err(_) => vec!["a defect of this program panicked".into()],
        Ok(Err(broken)) => vec![broken.0],
        Ok(Ok(played)) => {
            played.steps.iter().flat_map(|s| s.problems.iter().map(move |p| format!("step {} ({}): {p}", s.number, s.what))).collect()
        }
    };
    if problems.is_empty() {
        let _ = std::fs::remove_dir_all(into);
    }
    problems
}
