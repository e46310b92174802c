//! `ofs cancel`, `ofs fail`, `ofs note`, `ofs bundle`: what an operator does to a run, on record with
//! actor and reason.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Context, Failure, Outcome, document, say};
use crate::contract::ReasonCode;
use crate::ledger::{Ledger, LedgerError, MAX_TEXT, Order, Ordered, RunRow, Status};
use crate::observe::bundle;
use crate::text::safe;

/// How long a live owner may take to obey: its heartbeat comes once a second, its next safe point within two.
const PATIENCE: Duration = Duration::from_secs(3);

/// Arguments of `ofs cancel`.
#[derive(Debug, clap::Args)]
pub(super) struct CancelArgs {
    /// Run key, a unique beginning of it, or the request id.
    run: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    reason: String,
}

/// Arguments of `ofs fail`.
#[derive(Debug, clap::Args)]
pub(super) struct FailArgs {
    /// Run key, a unique beginning of it, or the request id.
    run: String,
    /// Why it is given up.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Arguments of `ofs note`.
#[derive(Debug, clap::Args)]
pub(super) struct NoteArgs {
    /// Run key, a unique beginning of it, or the request id.
    run: String,
    /// What the next one on duty should know.
    text: String,
}

/// Arguments of `ofs bundle`.
#[derive(Debug, clap::Args)]
pub(super) struct BundleArgs {
    /// Run key, a unique beginning of it, or the request id.
    run: String,
    /// The file to write; it must not exist.
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    file: PathBuf,
}

/// The words of an operator, refused where they cannot be kept.
pub(super) fn words(text: &str) -> Result<&str, Failure> {
    match text.trim() {
        "" => Err(Failure::usage("the text says nothing").hint("say why in a few words; they go on record")),
        _ if text.len() > MAX_TEXT => Err(Failure::usage(format!("the text is longer than the limit of {MAX_TEXT} bytes"))),
        text => Ok(text),
    }
}

/// The ledger for writing and a run in it; looking for a run makes no ledger.
pub(super) fn open(context: &Context, run: &str) -> Result<(Ledger, RunRow), Failure> {
    if context.reader()?.is_none() {
        return Err(LedgerError::NotFound(run.to_owned()).into());
    }
    let ledger = context.ledger()?;
    let row = context.find_run(&ledger, run)?;
    Ok((ledger, row))
}

/// `ofs.action.v1`.
fn action(run_key: &str, action: &str, from: Status, to: Status) -> Value {
    json!({"schema_version": "ofs.action.v1", "run_key": run_key, "action": action, "from": from, "to": to})
}

pub(super) fn cancel(context: &Context, args: &CancelArgs) -> Outcome {
    order(context, Order::Cancel, &args.run, &args.reason)
}

pub(super) fn fail(context: &Context, args: &FailArgs) -> Outcome {
    order(context, Order::Fail, &args.run, &args.reason)
}

fn order(context: &Context, order: Order, run: &str, reason: &str) -> Outcome {
    let reason = words(reason)?;
    let (ledger, row) = open(context, run)?;
    let (from, to, unmet) = match ledger.carry_out(order, &row.run_key, reason, PATIENCE)? {
        Ordered::Ended { from, to } => (from, to, None),
        Ordered::Asked { owner, expires } => (Status::Running, Status::Running, Some((owner, expires))),
    };
    let mut told = action(&row.run_key, order.as_str(), from, to);
    if let (Some((owner, expires)), Some(map)) = (&unmet, told.as_object_mut()) {
        map.insert("owner".into(), json!(owner.to_string()));
        map.insert("lease_expires_utc".into(), json!(expires));
        let mut err = std::io::stderr().lock();
        let _ = writeln!(err, "ofs: {}: {} has not obeyed; the request stands", ReasonCode::RunBusy, safe(&owner.to_string()));
        let again = format!("ofs {} {} --reason TEXT", order.as_str(), row.run_key);
        let _ =
            writeln!(err, "  next: its lease is not renewed; unless it obeys, `{again}` takes the run over and ends it from {expires} on");
    }
    if context.json {
        document(&told);
    } else {
        say(format!("{}: run {} was {from}, is {to}", order.as_str(), row.run_key));
    }
    Ok(if unmet.is_some() { ReasonCode::RunBusy.info().exit } else { 0 })
}

pub(super) fn note(context: &Context, args: &NoteArgs) -> Outcome {
    let text = words(&args.text)?;
    let (ledger, row) = open(context, &args.run)?;
    let row = ledger.note(&row.run_key, text)?;
    if context.json {
        document(&action(&row.run_key, "note", row.status, row.status));
    } else {
        say(format!("note: run {} is {}; event {} holds it", row.run_key, row.status, row.last_seq));
    }
    Ok(0)
}

pub(super) fn bundle(context: &Context, args: &BundleArgs) -> Outcome {
    let taken = || Failure::usage(format!("{} is there; nothing was written", args.file.display())).hint("name a new file");
    let ledger = context.reader()?.ok_or_else(|| LedgerError::NotFound(args.run.clone()))?;
    let row = context.find_run(&ledger, &args.run)?;
    context.may_write(&args.file)?;
    if args.file.symlink_metadata().is_ok() {
        return Err(taken());
    }
    let store = context.store().map_err(|failure| failure.message);
    let store = store.as_ref().map(|store| store as &dyn crate::store::Store).map_err(Clone::clone);
    let content = bundle::collect(&context.config, &context.clock, &ledger, &row, store)?;
    let (blake3, bytes) = bundle::write(&args.file, &content).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => taken(),
        _ => Failure { exit: 1, code: None, message: format!("{}: {e}", args.file.display()), hint: None },
    })?;
    // What left the house is on record; where nothing can be recorded, an escalation goes out all the same.
    let recorded = context.ledger().and_then(|ledger| {
        let detail = json!({"file": args.file.display().to_string(), "blake3": blake3, "bytes": bytes});
        Ok(ledger.bundled(&row.run_key, &detail)?)
    });
    if let Err(failure) = recorded {
        let _ = writeln!(std::io::stderr().lock(), "ofs: the bundle is not on record: {}", safe(&failure.message));
    }
    if context.json {
        let mut told = action(&row.run_key, "bundle", row.status, row.status);
        if let Some(map) = told.as_object_mut() {
            map.insert("file".into(), json!(args.file.display().to_string()));
            map.insert("blake3".into(), json!(blake3));
            map.insert("bytes".into(), json!(bytes));
        }
        document(&told);
    } else {
        say(format!("bundle: run {} in {} ({bytes} bytes, BLAKE3 {blake3})", row.run_key, args.file.display()));
    }
    Ok(0)
}
