//! Governance facts leave the ledger's outbox for the object store: one immutable object each, under an
//! id that follows from the event it tells of. "Already there" is read back; equal bytes are success. So a
//! kill between any two writes is made good by the next flush, whoever makes it (O142, O143).

use std::collections::BTreeSet;

use crate::contract::path_safe;
use crate::ledger::{Delivery, FactRow, Ledger, LedgerError};
use crate::pipeline::gate::{Env, document};
use crate::store::{Immutable, Ref, create_immutable};

/// Facts taken at one look at the outbox.
const BATCH: u64 = 256;
/// Failures in a row after which the store is taken for out of order and the rest waits.
const PATIENCE: u32 = 3;

/// What a flush came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flush {
    /// Facts that lie in the store now and did not before this flush settled them.
    pub sent: u64,
    /// Facts that a policy keeps back.
    pub skipped: u64,
    /// Sends that failed; those facts wait for the next flush.
    pub failed: u64,
    /// What the first failure said.
    pub error: Option<String>,
}

/// Where the facts of a platform run lie.
pub fn folder(platform_run_id: &str) -> Ref {
    Ref::of(&[platform_run_id, "ofs", "governance", "facts"])
}

/// Where a fact lies, or will lie once it is sent.
pub fn place(platform_run_id: &str, id: &str) -> Ref {
    folder(platform_run_id).join(&format!("{id}.json"))
}

/// Why a policy keeps a fact back.
fn kept_back(env: &Env, fact: &FactRow) -> Option<&'static str> {
    let active = env.config.text("workspace", "platform_run_id");
    match fact.platform_run_id() {
        _ if !env.config.flag("observe", "governance") => Some("observe.governance is off"),
        // A record without its platform run is not valid (O152).
        None => Some("it names no platform run"),
        Some(run) if !path_safe(run) => Some("what it names as its platform run is none"),
        Some(run) if !active.is_empty() && run != active => Some("it is of another run than the active one"),
        // What was never admitted only claims its platform run; ledger and counters show it (O148).
        Some(_) if fact.body.pointer("/event/type").is_some_and(|t| t == "INTENT_REJECTED") => Some("the request was not admitted"),
        Some(_) => None,
    }
}

fn send(env: &Env, fact: &FactRow) -> Result<Ref, String> {
    let at = place(fact.platform_run_id().unwrap_or_default(), &fact.id);
    match create_immutable(env.store.as_ref(), &at, &document(&fact.body)) {
        Ok(Immutable::New | Immutable::Same) => Ok(at),
        Ok(Immutable::Different(found)) => Err(format!("{at} stands and says otherwise (blake3 {found})")),
        Err(error) => Err(error.to_string()),
    }
}

/// Sends what waits. A store that fails costs facts time and nothing else: the failure is noted, they wait
/// for the next flush, and no data set is touched (O153).
///
/// # Errors
/// What keeps the ledger from recording.
pub fn flush(env: &Env, ledger: &Ledger) -> Result<Flush, LedgerError> {
    let mut flush = Flush::default();
    let (mut tried, mut failures) = (BTreeSet::new(), 0);
    loop {
        let batch: Vec<FactRow> = ledger.waiting_facts(BATCH)?.into_iter().filter(|f| !tried.contains(&f.id)).collect();
        if batch.is_empty() || failures >= PATIENCE {
            return Ok(flush);
        }
        for fact in batch {
            if failures >= PATIENCE {
                break;
            }
            match kept_back(env, &fact) {
                Some(why) => flush.skipped += u64::from(ledger.fact_left(&fact.id, Delivery::Skipped, Some(why))?),
                None => match send(env, &fact) {
                    Ok(_) => {
                        failures = 0;
                        flush.sent += u64::from(ledger.fact_left(&fact.id, Delivery::Sent, None)?);
                    }
                    Err(error) => {
                        failures += 1;
                        flush.failed += 1;
                        ledger.fact_left(&fact.id, Delivery::Failed, Some(&error))?;
                        tracing::warn!(run_key = fact.run_key, fact = fact.id, "a governance fact could not be sent: {error}");
                        flush.error.get_or_insert(error);
                    }
                },
            }
            tried.insert(fact.id);
        }
    }
}

/// Sends what waits at the end of a piece of work, where a failure must change nothing: not the result,
/// not the exit code.
pub fn flush_quietly(env: &Env, ledger: &Ledger) {
    if let Err(error) = flush(env, ledger) {
        tracing::warn!("governance facts wait for `ofs report`: {error}");
    }
}
