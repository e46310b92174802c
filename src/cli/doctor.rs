//! `ofs doctor`: whether everything that a build needs is usable, and what killed processes left behind.

use serde_json::json;

use super::runs::{next, stuck, workers};
use super::{Context, Failure, Outcome, document, say};
use crate::ledger::Ledger;
use crate::observe::doctor::{self, Leftover, OLD_SECONDS, Resource, State};
use crate::text::{grouped, safe};
use crate::time::span;

/// Arguments of `ofs doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Remove leftovers that are older than a day and that no run needs.
    #[arg(long)]
    sweep: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let resources = doctor::examine(&context.config, &context.clock);
    let found = reader(context).and_then(|l| Ok(doctor::leftovers(&context.config, l.as_ref(), context.clock.now())?));
    let leftovers = match (found, args.sweep) {
        (Ok(mut found), true) => {
            doctor::sweep(&mut found);
            audit(context, &found)?;
            found
        }
        (Ok(found), false) => found,
        (Err(failure), true) => return Err(failure),
        // Which runs still need their staging cannot be known, so nothing is called a leftover; the
        // ledger's own line says why.
        (Err(_), false) => Vec::new(),
    };
    let ok = resources.iter().all(|r| r.supported && r.state != State::Broken);
    if context.json {
        document(&json!({
            "schema_version": "ofs.doctor.v1", "ok": ok, "release": crate::pipeline::pin::RELEASE, "workspace": context.config.workspace.display().to_string(),
            "resources": resources.iter().map(Resource::to_json).collect::<Vec<_>>(), "leftovers": leftovers.iter().map(Leftover::to_json).collect::<Vec<_>>(),
        }));
    } else {
        print(context, &resources, &leftovers)?;
    }
    Ok(if ok { 0 } else { 3 })
}

/// The ledger, where there is one; a store that is missing does not matter here.
fn reader(context: &Context) -> Result<Option<Ledger>, Failure> {
    if context.config.path("ledger").exists() { context.reader() } else { Ok(None) }
}

/// What was removed is on record, as every operator action is.
fn audit(context: &Context, leftovers: &[Leftover]) -> Result<(), Failure> {
    let swept: Vec<String> = leftovers.iter().filter(|l| l.swept == Some(Ok(()))).map(|l| l.path.display().to_string()).collect();
    if swept.is_empty() || !context.config.path("ledger").exists() {
        return Ok(());
    }
    Ok(context.ledger()?.audit("SWEPT", None, &json!({"removed": swept}))?)
}

fn print(context: &Context, resources: &[Resource], leftovers: &[Leftover]) -> Result<(), Failure> {
    say(format!("{}   workspace {}", crate::pipeline::pin::RELEASE, context.config.workspace.display()));
    say(format!("{:<10} {:<38} {:<16} {:<9} {:<7} found", "resource", "configured", "back end", "supported", "state"));
    for r in resources {
        let supported = if r.supported { "yes" } else { "no" };
        say(format!(
            "{:<10} {:<38} {:<16} {supported:<9} {:<7} {}",
            r.name,
            safe(&r.configured),
            r.backend,
            r.state.as_str(),
            safe(&r.detail)
        ));
    }
    if leftovers.is_empty() {
        say("no leftovers");
        return Ok(());
    }
    let ledger = reader(context)?;
    say(format!("leftovers (--sweep removes those older than {} that no run needs):", span(OLD_SECONDS * 1_000_000)));
    for l in leftovers {
        let fate = match (&l.swept, &l.needed_by) {
            (Some(Ok(())), _) => "removed".to_owned(),
            (Some(Err(e)), _) => format!("not removed: {e}"),
            (None, Some((key, status))) => {
                let next = ledger.as_ref().map_or(Ok(None), |ledger| way_on(context, ledger, key))?;
                format!("needed by a run that is {status}{}", next.map(|next| format!(" and stuck; next: {next}")).unwrap_or_default())
            }
            (None, None) if l.sweepable() => "old".to_owned(),
            (None, None) => "young".to_owned(),
        };
        say(format!(
            "  {:<9} {:>10} B  {:>8}  {fate}  {}",
            l.kind,
            grouped(l.bytes),
            span(l.age_seconds.saturating_mul(1_000_000)),
            safe(&l.path.display().to_string())
        ));
    }
    Ok(())
}

/// The command that moves a run on, where it is stuck.
fn way_on(context: &Context, ledger: &Ledger, key: &str) -> Result<Option<String>, Failure> {
    let workers = workers(context, ledger)?;
    let row = ledger.run(key)?;
    Ok(row.and_then(|row| stuck(context, &row, workers).map(|reason| next(&row, reason))))
}
