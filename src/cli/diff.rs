//! `ofs diff M1 M2`: why two published data sets differ, identity first, rows second.

use super::{Context, Failure, Outcome, document, told};
use crate::prove::diff;
use crate::prove::find_manifest;
use crate::text::grouped;

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
        told(&diff.lines());
    }
    Ok(0)
}
