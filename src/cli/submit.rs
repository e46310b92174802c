//! `ofs submit`: put an intent, or the retry of a publication, into the queue of the workers.

use std::path::PathBuf;

use serde_json::json;

use super::run::{print, read_intent};
use super::{Context, Failure, Outcome, document, say};
use crate::operate::submit;
use crate::pipeline::admit::Supersession;
use crate::pipeline::run::Request;

/// Arguments of `ofs submit`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The intent file.
    #[arg(required_unless_present = "publish_retry")]
    intent: Option<PathBuf>,
    /// Queue a publish-only retry of this run (key, a unique beginning of it, or the request id) instead.
    #[arg(long, value_name = "K", conflicts_with_all = ["intent", "supersedes", "reason"])]
    publish_retry: Option<String>,
    /// Published data sets that this one corrects, by manifest id.
    #[arg(long, value_name = "M", value_delimiter = ',', requires = "reason")]
    supersedes: Vec<String>,
    /// Why they are corrected.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn run(context: &Context, args: Args) -> Outcome {
    let queued = match (&args.publish_retry, &args.intent) {
        (Some(run), _) => {
            let (ledger, row) = super::operator::open(context, run)?;
            drop(ledger);
            let (env, host) = (context.env()?, context.host()?);
            let _log = context.log();
            submit::submit_retry(&row, &env, &host)?
        }
        (None, Some(intent)) => {
            let intent = read_intent(intent)?;
            let request = Request { intent, supersession: Supersession { manifests: args.supersedes, reason: args.reason } };
            let (env, host) = (context.env()?, context.host()?);
            let _log = context.log();
            submit::submit(&request, &env, &host)?
        }
        (None, None) => return Err(Failure::usage("name an intent file, or a run with --publish-retry")),
    };
    match queued {
        Ok(queued) => {
            if context.json {
                document(&json!({
                    "schema_version": "ofs.request.v1", "request_id": queued.request_id, "request_ref": queued.request_ref.as_str(),
                    "run_key": queued.run_key, "status": queued.status,
                }));
            } else {
                say(format!("{}  run {}  request {}", queued.status, queued.run_key, queued.request_id));
                say(format!("request      {}", queued.request_ref));
            }
            Ok(0)
        }
        Err(refused) => {
            print(context, &refused);
            Ok(refused.exit)
        }
    }
}
