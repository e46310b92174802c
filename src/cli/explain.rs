//! `ofs explain M EVENT_ID`: where one row of a published data set comes from.

use super::{Context, Outcome, document, told};
use crate::prove::explain;
use crate::prove::find_manifest;
use crate::text::safe;

/// Arguments of `ofs explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Manifest ref, or the id of a data set (`dm_…`).
    #[arg(value_name = "M")]
    manifest: String,
    /// The event whose row is meant.
    #[arg(value_name = "EVENT_ID")]
    event_id: String,
    /// Contributing events that are listed for each feature, the newest; their number is exact.
    #[arg(long, value_name = "N", default_value_t = explain::LIMIT)]
    limit: usize,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let env = context.env()?;
    let ledger = context.witness();
    let manifest = find_manifest(&env, ledger.as_ref(), &args.manifest)?;
    let explanation = explain::explain(&env, ledger.as_ref(), &manifest, &args.event_id, args.limit)?;
    if context.json {
        document(&explanation.to_json());
    } else {
        told(&explanation.lines());
    }
    Ok(match explanation.outcome {
        explain::Outcome::NotInBasis => {
            eprintln!("ofs: no record of the basis of {} has the event id {}", safe(&explanation.manifest_id), safe(&args.event_id));
            2
        }
        _ if explanation.holds() => 0,
        _ => 3,
    })
}
