//! `ofs diff M1 M2`: why two published data sets differ, identity first, rows second.

use serde_json::Value;

use super::{Context, Failure, Outcome, document, say};
use crate::prove::diff::{self, Change, Diff, RowRef};
use crate::prove::find_manifest;
use crate::text::{clip, grouped, safe};

/// Arguments of `ofs diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Manifest ref, or the id of a data set (`dm_…`).
    #[arg(value_name = "M1")]
    left: String,
    /// What it is compared with.
    #[arg(value_name = "M2")]
    right: String,
    /// Rows of each kind that are told in detail; every count is exact.
    #[arg(long, value_name = "N", default_value_t = diff::LIMIT)]
    limit: usize,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    if args.limit > diff::MAX_LIMIT {
        return Err(Failure::usage(format!("--limit is at most {}", grouped(diff::MAX_LIMIT as u64))));
    }
    let env = context.env()?;
    let ledger = context.witness();
    let find = |given: &str| find_manifest(&env, ledger.as_ref(), given);
    let diff = diff::diff(&env, &find(&args.left)?, &find(&args.right)?, args.limit)?;
    if context.json {
        document(&diff.to_json());
    } else {
        print(&diff);
    }
    Ok(0)
}

fn value(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    safe(&clip(&text, 80)).into_owned()
}

fn row(row: &RowRef) -> String {
    safe(&format!("{}  {} offset {} at {}", row.event_id, row.place.lane, row.place.offset, row.place.ts)).into_owned()
}

fn print(diff: &Diff) {
    for (mark, side) in [('-', &diff.left), ('+', &diff.right)] {
        say(format!("{mark} {}  {} rows", safe(&side.manifest_id), grouped(side.rows)));
    }
    if diff.same() {
        return say("same: identities and rows do not differ");
    }
    for field in &diff.identity {
        say(format!("identity  {}", safe(&field.field)));
        say(format!("  - {}", value(&field.left)));
        say(format!("  + {}", value(&field.right)));
    }
    for (words, columns) in
        [("only in -", &diff.columns.only_left), ("only in +", &diff.columns.only_right), ("redefined", &diff.columns.redefined)]
    {
        if !columns.is_empty() {
            say(format!("columns   {words}: {}", safe(&columns.join(", "))));
        }
    }
    let n = diff.rows;
    let counts = [n.added, n.removed, n.changed, diff.unchanged].map(grouped);
    let [added, removed, changed, unchanged] = counts;
    say(format!("rows      {added} added, {removed} removed, {changed} changed, {unchanged} unchanged"));
    for (cause, n) in &diff.by_cause {
        let told: Vec<String> = [("added", n.added), ("removed", n.removed), ("changed", n.changed)]
            .into_iter()
            .filter(|(_, n)| *n > 0)
            .map(|(what, n)| format!("{} {what}", grouped(n)))
            .collect();
        say(format!("  {:<15} {}: {}", cause.as_str(), told.join(", "), cause.words()));
    }
    for (column, n) in &diff.by_column {
        say(format!("  {} differs in {} row(s)", safe(column), grouped(*n)));
    }
    for (mark, list) in [('-', &diff.removed), ('+', &diff.added)] {
        for (reference, cause) in list {
            say(format!("{mark} {}  {}", row(reference), cause.as_str()));
        }
    }
    for changed in &diff.changed {
        say(format!("~ {}", row(&changed.row)));
        changed.changes.iter().for_each(change);
    }
    more(diff);
}

fn change(change: &Change) {
    say(format!("    {}: {} -> {}  {}", safe(&change.column), value(&change.left), value(&change.right), change.cause.as_str()));
}

/// Says how many rows were not told in detail.
fn more(diff: &Diff) {
    let told = [
        diff.rows.removed - diff.removed.len() as u64,
        diff.rows.added - diff.added.len() as u64,
        diff.rows.changed - diff.changed.len() as u64,
    ];
    let hidden: u64 = told.iter().sum();
    if hidden > 0 {
        say(format!("… {} more row(s); --limit N tells more of them", grouped(hidden)));
    }
}
