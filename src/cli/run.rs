//! `ofs run`, `ofs resume`, `ofs retry`: build under one cancellation token, progress on stderr.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::progress::Ticker;
use super::{Context, Failure, Outcome, document, say};
use crate::ledger::LedgerError;
use crate::pipeline::admit::Supersession;
use crate::pipeline::gate::Env;
use crate::pipeline::run::{self, GateView, Gatekeeper, Halt, Host, Request, RunResult, Verdict};
use crate::prove::supersession::{Correction, superseded_by};
use crate::text::{grouped, safe};

/// Arguments of `ofs run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// The intent file.
    intent: PathBuf,
    /// Stop at each gate and ask; what was proved can be looked at (needs a terminal).
    #[arg(long)]
    step: bool,
    /// Published data sets that this one corrects, by manifest id or ref.
    #[arg(long, value_name = "M", value_delimiter = ',', requires = "reason")]
    supersedes: Vec<String>,
    /// Why they are corrected.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// A run by key.
#[derive(Debug, clap::Args)]
pub(super) struct KeyArgs {
    /// Run key, a unique beginning of it, or the request id.
    run: String,
}

/// Arguments of `ofs retry`.
#[derive(Debug, clap::Args)]
pub(super) struct RetryArgs {
    /// Run key, a unique beginning of it, or the request id.
    run: String,
    /// Renew a spent budget by so many retries first.
    #[arg(long, value_name = "N", requires = "reason", value_parser = clap::value_parser!(u32).range(1..=1000))]
    grant: Option<u32>,
    /// Why the budget is renewed.
    #[arg(long, value_name = "TEXT", requires = "grant")]
    reason: Option<String>,
}

/// Says each gate as it passes, on a terminal that a running line may stand on.
struct Teller;

impl Gatekeeper for Teller {
    fn passed(&self, gate: &GateView, _: &dyn Halt) -> Verdict {
        let _ = writeln!(std::io::stderr().lock(), "\r\u{1b}[K{}", line(gate));
        Verdict::Go
    }
}

fn line(gate: &GateView) -> String {
    let facts: Vec<String> = gate.facts.iter().take(3).map(|(what, value)| format!("{what} {}", safe(value))).collect();
    let how = if gate.reproved { "PROVED AGAIN" } else { "PASSED" };
    format!("{:>2} {:<12} {how}  {}", gate.phase.number(), gate.phase.as_str(), facts.join(", "))
}

/// Says each gate without terminal control.
struct Plain;

impl Gatekeeper for Plain {
    fn passed(&self, gate: &GateView, _: &dyn Halt) -> Verdict {
        let _ = writeln!(std::io::stderr().lock(), "{}", line(gate));
        Verdict::Go
    }
}

pub(super) fn keeper(step: bool) -> Result<Box<dyn Gatekeeper>, Failure> {
    let terminal = std::io::stderr().is_terminal() && std::io::stdin().is_terminal();
    if step {
        if !terminal {
            return Err(Failure::usage("--step needs a terminal").hint("run without --step; every gate leaves its receipt"));
        }
        return Ok(Box::new(super::step::keeper()?));
    }
    if std::io::stderr().is_terminal() { Ok(Box::new(Teller)) } else { Ok(Box::new(Plain)) }
}

/// The text of an intent file.
pub(super) fn read_intent(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| {
        Failure::usage(format!("{}: {e}", path.display())).hint("name an intent file; `ofs intent check FILE` explains what one needs")
    })
}

pub(super) fn run(context: &Context, args: RunArgs) -> Outcome {
    let intent = read_intent(&args.intent)?;
    let keeper = keeper(args.step)?;
    let request = Request { intent, supersession: Supersession { manifests: args.supersedes, reason: args.reason } };
    execute(context, !args.step, move |env, host| run::run(&request, env, host, keeper.as_ref()))
}

pub(super) fn resume(context: &Context, args: &KeyArgs) -> Outcome {
    let ledger = context.ledger()?;
    let row = context.find_run(&ledger, &args.run)?;
    drop(ledger);
    let keeper = keeper(false)?;
    execute(context, true, move |env, host| run::resume(&row, env, host, keeper.as_ref()))
}

pub(super) fn retry(context: &Context, args: &RetryArgs) -> Outcome {
    let reason = args.reason.as_deref().map(super::operator::words).transpose()?;
    let (ledger, row) = super::operator::open(context, &args.run)?;
    if let (Some(grant), Some(reason)) = (args.grant, reason) {
        ledger.grant_retries(&row.run_key, grant, reason)?;
    }
    drop(ledger);
    let keeper = keeper(false)?;
    execute(context, true, move |env, host| run::retry(&row, env, host, keeper.as_ref()))
}

/// Runs the build on a blocking thread while signals are awaited beside it.
///
/// `running_line` shows the progress on a terminal.
fn execute(
    context: &Context,
    running_line: bool,
    work: impl FnOnce(&Env, &Host) -> Result<RunResult, LedgerError> + Send + 'static,
) -> Outcome {
    let env = context.env()?;
    let host = context.host()?;
    let _log = context.log();
    // A running line would write over the question that step mode asks.
    let ticker = running_line.then(|| Ticker::start(&env));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (signal, cancel) = (host.signal.clone(), env.cancel.clone());
    let built = runtime.block_on(async move {
        let build = tokio::task::spawn_blocking(move || {
            let result = work(&env, &host);
            crate::observe::facts::flush_quietly(&env, &host.ledger);
            let run_key = result.as_ref().map(|r| r.text("/run_key").to_owned());
            let trouble = run_key.ok().and_then(|run_key| crate::observe::export(&env, &host, &run_key));
            (result, trouble)
        });
        tokio::pin!(build);
        loop {
            tokio::select! {
                done = &mut build => return done,
                name = stop_signal() => {
                    signal.set(name);
                    cancel.cancel();
                }
            }
        }
    });
    drop(ticker);
    let (result, trouble) = built.map_err(|e| Failure {
        exit: 1,
        code: Some(crate::contract::ReasonCode::InternalError),
        message: format!("the build panicked: {e}"),
        hint: Some("the run is still on record; `ofs resume` goes on with it".into()),
    })?;
    let mut result = result?;
    super::warn(trouble);
    let corrections = corrections(context, &result);
    if let (Ok(found), Some(document)) = (&corrections, result.document.as_object_mut()) {
        document.insert("superseded_by".into(), found.iter().map(Correction::to_json).collect());
    }
    print(context, &result);
    match corrections {
        Ok(found) => found.iter().for_each(|correction| eprintln!("{}", correction.line().text)),
        Err(why) => eprintln!("warning: whether the data set was corrected since cannot be told: {}", safe(&why.message)),
    }
    Ok(result.exit)
}

/// A data set that was published before may have been corrected since: whoever asks for it again is told
/// (O123). Where the store cannot be asked, that is no answer.
fn corrections(context: &Context, result: &RunResult) -> Result<Vec<Correction>, Failure> {
    let id = result.text("/dataset/manifest_id");
    let run = result.text("/dataset/manifest_ref").split('/').next().unwrap_or_default();
    if id.is_empty() {
        return Ok(Vec::new());
    }
    let ledger = context.reader().ok().flatten();
    Ok(superseded_by(&context.env()?, ledger.as_ref(), run, id)?)
}

#[cfg(unix)]
pub(super) async fn stop_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut hup), Ok(mut int), Ok(mut term)) =
        (signal(SignalKind::hangup()), signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = hup.recv() => "HUP",
        _ = int.recv() => "INT",
        _ = term.recv() => "TERM",
    }
}

#[cfg(not(unix))]
pub(super) async fn stop_signal() -> &'static str {
    match tokio::signal::ctrl_c().await {
        Ok(()) => "INT",
        Err(_) => std::future::pending().await,
    }
}

pub(super) fn print(context: &Context, result: &RunResult) {
    if let Some(reason) = result.document.get("reason").filter(|r| r.is_object()) {
        let text = |key: &str| reason.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut err = std::io::stderr().lock();
        let _ =
            writeln!(err, "{}: {} at the {} gate: {}", safe(result.text("/status")), text("code"), text("phase"), safe(text("message")));
        for line in reason.get("evidence").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            let _ = writeln!(err, "  - {}", safe(line));
        }
        if let Some(at) = result.document.pointer("/evidence/refusal").and_then(Value::as_str) {
            let _ = writeln!(err, "  everything found: {}", safe(at));
        }
        let _ = writeln!(err, "  next: {}", safe(text("remedy")));
    }
    if context.json {
        return document(&result.document);
    }
    let status = result.text("/status");
    let outcome = result.document.get("outcome").and_then(Value::as_str).map(|o| format!(" ({o})")).unwrap_or_default();
    say(format!("{status}{outcome}  run {}  request {}", result.text("/run_key"), result.text("/request_id")));
    for kind in ["parity", "forensic"] {
        if let Some(found) = result.document.get(kind) {
            say_report(kind, found);
        }
    }
    if let Some(dataset) = result.document.get("dataset").filter(|d| d.is_object()) {
        let text = |key: &str| dataset.get(key).and_then(Value::as_str).unwrap_or_default();
        let rows = dataset.get("rows").and_then(Value::as_u64).unwrap_or(0);
        let files = dataset.get("files").and_then(Value::as_array).map_or(0, Vec::len);
        say(format!("data set     {}", text("manifest_id")));
        say(format!("manifest     {}", text("manifest_ref")));
        say(format!("rows         {} in {files} file(s)", grouped(rows)));
        say(format!("rows digest  {}", text("rows_digest")));
        let folder = context.config.path("object_store");
        let run = text("manifest_ref").split('/').next().unwrap_or_default().to_owned();
        say(format!("files        {}", folder.join(run).join("ofs/datasets").join(text("manifest_id")).display()));
    }
}

/// How a comparison or a forensic rebuild ended, and what it lacked.
fn say_report(kind: &str, found: &Value) {
    let text = |key: &str| found.get(key).and_then(Value::as_str);
    let ended = text("outcome").or(text("status")).unwrap_or_default();
    let class = text("class").map(|class| format!(" ({class})")).unwrap_or_default();
    say(format!("{kind:<12} {ended}{class}"));
    for line in found.get("missing").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        say(format!("missing      {}", safe(line)));
    }
    say(format!("report       {}", text("report_ref").unwrap_or_default()));
}
