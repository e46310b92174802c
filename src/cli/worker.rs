//! `ofs worker`: work off the queue until a signal comes, or once.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::{Value, json};

use super::run::{keeper, stop_signal};
use super::{Context, Failure, Outcome, document, say};
use crate::ledger::LedgerError;
use crate::operate::worker::{Processed, Worker};
use crate::pipeline::gate::Env;
use crate::pipeline::run::{Gatekeeper, Host};

/// Most requests that the document of a long life names.
const REMEMBERED: usize = 1_000;

/// Arguments of `ofs worker`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Look at the queue once and end.
    #[arg(long)]
    once: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let (env, host) = (context.env()?, context.host()?);
    let _log = context.log();
    let keeper = keeper(false)?;
    let (once, talk) = (args.once, !context.json);
    let (signal, cancel) = (host.signal.clone(), env.cancel.clone());
    let came = signal.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let worked = runtime.block_on(async move {
        let work = tokio::task::spawn_blocking(move || serve(&env, &host, keeper.as_ref(), once, talk));
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                name = stop_signal() => {
                    signal.set(name);
                    cancel.cancel();
                }
            }
        }
    });
    let processed = worked.map_err(|e| Failure {
        exit: 1,
        code: Some(crate::contract::ReasonCode::InternalError),
        message: format!("the worker panicked: {e}"),
        hint: Some("requests and runs are still on record; start a worker again".into()),
    })??;
    if context.json {
        let processed: Vec<Value> = processed.iter().map(Processed::to_json).collect();
        document(&json!({"schema_version": "ofs.worker.v1", "processed": processed}));
    } else if once && processed.is_empty() {
        say("nothing to do");
    }
    Ok(match came.get() {
        None => 0,
        Some("HUP") => 129,
        Some("TERM") => 143,
        Some(_) => 130,
    })
}

/// Works on a blocking thread; signals are awaited beside it.
fn serve(env: &Env, host: &Host, keeper: &dyn Gatekeeper, once: bool, talk: bool) -> Result<VecDeque<Processed>, LedgerError> {
    let mut worker = Worker::start(env, host, keeper)?;
    let mut all = VecDeque::new();
    let mut each = |done: Processed| {
        super::warn(done.run_key.as_deref().and_then(|run_key| crate::observe::export(env, host, run_key)));
        if talk {
            say(format!("{:<15}  request {}  run {}", done.status, done.request_id, done.run_key.as_deref().unwrap_or("-")));
        }
        if all.len() == REMEMBERED && !once {
            all.pop_front();
        }
        all.push_back(done);
    };
    if once {
        worker.pass()?.into_iter().for_each(&mut each);
        return Ok(all);
    }
    let handle = tokio::runtime::Handle::current();
    let pause = |time: Duration| {
        handle.block_on(async {
            tokio::select! {
                () = tokio::time::sleep(time) => {}
                () = env.cancel.cancelled() => {}
            }
        });
    };
    worker.serve(&pause, &mut each)?;
    Ok(all)
}
