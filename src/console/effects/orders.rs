//! Carries operator orders out. What is legal is decided here once more, by the ledger, on the state it finds:
//! the run may have moved since the screen was drawn.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::json;

use super::World;
use crate::console::msg::{Order, Told};
use crate::ledger::{Ledger, LedgerError, Order as End, Ordered};
use crate::observe::bundle;
use crate::store::Store;

/// How long a live owner may take to obey.
const PATIENCE: Duration = Duration::from_secs(3);

/// Carries one out and says what came of it.
pub(super) fn carry_out(world: &World, run_key: &str, order: &Order) -> Told {
    let name = order.name();
    let short = run_key.get(..8).unwrap_or(run_key);
    let ledger = match Ledger::open(&world.ledger_path(), world.clock.clone(), &world.actor) {
        Ok(ledger) => ledger,
        Err(error) => return failed(name, short, &error),
    };
    let done = match order {
        Order::Cancel { reason } => ledger.carry_out(End::Cancel, run_key, reason, PATIENCE).map(words),
        Order::Fail { reason } => ledger.carry_out(End::Fail, run_key, reason, PATIENCE).map(words),
        Order::Note { text } => ledger.note(run_key, text).map(|row| format!("event {} holds it", row.last_seq)),
        Order::Bundle { file } => return bundled(world, &ledger, run_key, &world.config.workspace.join(file)),
        Order::Resume | Order::Retry { .. } => return Told::bad(format!("{name} {short}: a build does that")),
    };
    match done {
        Ok(text) => Told::good(format!("{name} {short}: {text}")),
        Err(error) => failed(name, short, &error),
    }
}

fn failed(name: &str, short: &str, error: &LedgerError) -> Told {
    Told::bad(format!("{name} {short}: {}: {error}", error.code()))
}

/// What came of an order to end a run.
pub(super) fn ordered(name: &str, run_key: &str, ordered: Result<Ordered, LedgerError>) -> Told {
    let short = run_key.get(..8).unwrap_or(run_key);
    match ordered {
        Ok(ordered) => Told::good(format!("{name} {short}: {}", words(ordered))),
        Err(error) => failed(name, short, &error),
    }
}

/// Renews a spent retry budget by one.
pub(super) fn grant(world: &World, run_key: &str, reason: &str) -> Result<(), Told> {
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

fn bundled(world: &World, ledger: &Ledger, run_key: &str, file: &std::path::Path) -> Told {
    let row = match ledger.run(run_key) {
        Ok(Some(row)) => row,
        Ok(None) => return Told::bad("bundle: the ledger holds no such run"),
        Err(error) => return failed("bundle", run_key, &error),
    };
    let store = crate::operate::open::store(&world.config).map_err(|e| e.message);
    let store = store.as_ref().map(|store| store as &dyn Store).map_err(Clone::clone);
    let content = match bundle::collect(&world.config, &world.clock, ledger, &row, store) {
        Ok(content) => content,
        Err(error) => return failed("bundle", run_key, &error),
    };
    match bundle::write(file, &content) {
        Ok((blake3, bytes)) => {
            let recorded = ledger.bundled(run_key, &json!({"file": file.display().to_string(), "blake3": blake3, "bytes": bytes}));
            let record = if recorded.is_ok() { "" } else { "; not on record, the ledger cannot be written" };
            Told::good(format!("bundle: {bytes} bytes in {}{record}", file.display()))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Told::bad(format!("bundle: {} is there; nothing was written", file.display()))
        }
        Err(error) => Told::bad(format!("bundle: {}: {error}", file.display())),
    }
}
