//! `ofs report`: facts sent, metrics, health and reconciliation, kept in the store.

use super::{Context, Outcome, document, told};
use crate::observe;

/// Arguments of `ofs report`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only look: send no fact and write nothing.
    #[arg(long)]
    look: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let env = context.env()?;
    let clock = context.clock.as_ref();
    let report = match context.reader()? {
        Some(reader) if args.look => observe::look(&env, &reader, clock)?,
        Some(_) => {
            let _log = context.log();
            observe::report(&env, &context.ledger()?, clock)?
        }
        // No run was ever recorded, so there is nothing to send and nobody to send it for.
        None => observe::Report { at: clock.now(), flush: None, runs: Vec::new(), unscoped: 0 },
    };
    if context.json {
        document(&report.to_json());
        return Ok(0);
    }
    told(&report.lines());
    Ok(0)
}
