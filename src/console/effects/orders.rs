//! Carries operator orders out. What is legal is decided here once more, by the ledger, on the state it finds:
//! the run may have moved since the screen was drawn.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::time::Duration;

use serde_json::json;

use super::World;
use crate::console::msg::{Order, Told};
use crate::ledger::{Ledger, LedgerError, Order as End, Ordered};
use crate::observe::bundle;
use crate::store::Store;

/// How long a live owner may take to obey.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Its reason code; where there is none, what it is in a few words.
    pub(super) code: String,
    /// The whole of it.
    pub(super) text: String,
}

impl Problem {
    /// One without a reason code.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Problem { code: text.clone(), text }
    }
}

/// What came of an order: what was done, or why it was not.
pub(super) type Done = Result<String, Problem>;

/// The word about it.
pub(super) fn told(done: Done) -> Told {
    match done {
        Ok(text) => Told::good(text),
        Err(problem) => Told::bad(problem.text),
    }
}

/// What came of one order for several runs, each by its own: a line, and the refused ones.
pub(super) fn summary(name: &str, done: &[Done]) -> (Told, Vec<String>) {
    let refused: Vec<&Problem> = done.iter().filter_map(|done| done.as_ref().err()).collect();
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    for problem in &refused {
        *codes.entry(&problem.code).or_default() += 1;
    }
    let codes: Vec<String> = codes.iter().map(|(code, n)| format!(", {n} refused ({code})")).collect();
    let text = format!("{name}: {} done{}", done.len() - refused.len(), codes.concat());
    let lines = refused.iter().map(|problem| problem.text.clone()).collect();
    (if refused.is_empty() { Told::good(text) } else { Told::bad(text) }, lines)
}

/// Carries one out, with patience for a live owner that has to obey.
pub(super) fn carry_out(world: &World, run_key: &str, order: &Order, patience: Duration) -> Done {
    let name = order.name();
    let short = run_key.get(..8).unwrap_or(run_key);
    let ledger = match Ledger::open(&world.ledger_path(), world.clock.clone(), &world.actor) {
        Ok(ledger) => ledger,
        Err(error) => return Err(failed(name, short, &error)),
    };
    let done = match order {
        Order::Cancel { reason } => ledger.carry_out(End::Cancel, run_key, reason, patience).map(words),
        Order::Fail { reason } => ledger.carry_out(End::Fail, run_key, reason, patience).map(words),
        Order::Note { text } => ledger.note(run_key, text).map(|row| format!("event {} holds it", row.last_seq)),
        Order::Bundle { file } => return bundled(world, &ledger, run_key, &world.config.workspace.join(file)),
        Order::Resume | Order::Retry { .. } => return Err(Problem::plain(format!("{name} {short}: a build does that"))),
    };
    done.map(|text| format!("{name} {short}: {text}")).map_err(|error| failed(name, short, &error))
}

fn failed(name: &str, short: &str, error: &LedgerError) -> Problem {
    Problem { code: error.code().to_string(), text: format!("{name} {short}: {}: {error}", error.code()) }
}

/// What came of an order to end a run.
pub(super) fn ordered(name: &str, run_key: &str, ordered: Result<Ordered, LedgerError>) -> Done {
    let short = run_key.get(..8).unwrap_or(run_key);
    ordered.map(|ordered| format!("{name} {short}: {}", words(ordered))).map_err(|error| failed(name, short, &error))
}

/// Renews a spent retry budget by one.
pub(super) fn grant(world: &World, run_key: &str, reason: &str) -> Result<(), Problem> {
    let granted =
        Ledger::open(&world.ledger_path(), world.clock.clone(), &world.actor).and_then(|ledger| ledger.grant_retries(run_key, 1, reason));
    granted.map(drop).map_err(|error| failed("retry", run_key.get(..8).unwrap_or(run_key), &error))
}

fn words(ordered: Ordered) -> String {
    match ordered {
        Ordered::Ended { from, to } => format!("was {from}, is {to}"),
        Ordered::Asked { owner, .. } => format!("{owner} was asked; it obeys at its next safe point"),
    }
}

fn bundled(world: &World, ledger: &Ledger, run_key: &str, file: &std::path::Path) -> Done {
    let row = match ledger.run(run_key) {
        Ok(Some(row)) => row,
        Ok(None) => return Err(Problem::plain("bundle: the ledger holds no such run")),
        Err(error) => return Err(failed("bundle", run_key, &error)),
    };
    if let Some(refused) = super::files::refused(&world.config, file) {
        return Err(Problem::plain(format!("bundle: {refused}")));
    }
    let store = crate::operate::open::store(&world.config).map_err(|e| e.message);
    let store = store.as_ref().map(|store| store as &dyn Store).map_err(Clone::clone);
    let content = match bundle::collect(&world.config, &world.clock, ledger, &row, store) {
        Ok(content) => content,
        Err(error) => return Err(failed("bundle", run_key, &error)),
    };
    match bundle::write(file, &content) {
        Ok((blake3, bytes)) => {
            let recorded = ledger.bundled(run_key, &json!({"file": file.display().to_string(), "blake3": blake3, "bytes": bytes}));
            let record = if recorded.is_ok() { "" } else { "; not on record, the ledger cannot be written" };
            Ok(format!("bundle: {bytes} bytes in {}{record}", file.display()))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(Problem::plain(format!("bundle: {} is there; nothing was written", file.display())))
        }
        Err(error) => Err(Problem::plain(format!("bundle: {}: {error}", file.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::msg::Mood;

    #[test]
    fn what_came_of_many_orders_fits_a_line_and_the_refused_are_named() {
        let problem = |code: &str, text: &str| Err(Problem { code: code.into(), text: text.into() });
        let mut done: Vec<Done> = (0..5).map(|_| Ok("done".into())).collect();
        assert_eq!(summary("cancel", &done), (Told { mood: Mood::Good, text: "cancel: 5 done".into() }, Vec::new()));
        done.push(problem("INVALID_TRANSITION", "it is DONE"));
        let (told, lines) = summary("cancel", &done);
        assert_eq!((told.mood, told.text.as_str()), (Mood::Bad, "cancel: 5 done, 1 refused (INVALID_TRANSITION)"));
        assert_eq!(lines, ["it is DONE"]);
        done.push(problem("RUN_BUSY", "another works on it"));
        assert!(summary("cancel", &done).0.text.ends_with("1 refused (INVALID_TRANSITION), 1 refused (RUN_BUSY)"));
    }
}
