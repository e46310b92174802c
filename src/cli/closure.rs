//! `ofs closure`: the closure gate, with one evidence file.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Context, Failure, Outcome, document, say};
use crate::operate::closure::{self, Check, Closure};
use crate::text::safe;

/// Arguments of `ofs closure`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the evidence goes; an earlier evidence file of the gate is replaced, anything else is not.
    #[arg(long, value_name = "FILE", default_value = "ofs-closure.json")]
    out: PathBuf,
    /// Keep the scratch workspaces in this folder (empty or new) instead of removing them.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

fn broken(error: impl Into<String>) -> Failure {
    Failure { exit: 1, code: Some(crate::contract::ReasonCode::InternalError), message: error.into(), hint: None }
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    context.may_write(&args.out)?;
    args.keep.as_deref().map_or(Ok(()), |dir| context.may_fill(dir))?;
    replaceable(&args.out)?;
    let (scratch, temporary) = match &args.keep {
        Some(dir) if dir.read_dir().is_ok_and(|mut d| d.next().is_some()) => {
            return Err(Failure::usage(format!("{} is not empty; nothing was written", dir.display())).hint("name a new folder"));
        }
        Some(dir) => (dir.clone(), false),
        None => (super::demo::temporary("closure")?, true),
    };
    let tell = |check: &Check| {
        let mut err = std::io::stderr().lock();
        let mark = if check.problems.is_empty() { "ok" } else { "FAILED" };
        let _ = writeln!(err, "{mark:<6}  {}", safe(&check.name));
        for problem in &check.problems {
            let _ = writeln!(err, "        {}", safe(problem));
        }
    };
    let closure = closure::run(&scratch, context.clock.as_ref(), &tell);
    if temporary {
        let _ = std::fs::remove_dir_all(&scratch);
    }
    let closure = closure.map_err(|e| broken(e.0))?;
    write(&args.out, &closure)?;
    if context.json {
        document(&closure.to_json());
    } else {
        print(&closure, &args.out);
    }
    Ok(if closure.closed() { 0 } else { 3 })
}

/// Asked before anything runs: what is not the gate's own is never replaced.
fn replaceable(out: &Path) -> Result<(), Failure> {
    match std::fs::read(out) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Failure::usage(format!("{}: {e}", out.display()))),
        Ok(bytes) => {
            let stands: Option<Value> = serde_json::from_slice(&bytes).ok();
            if stands.is_some_and(|v| v.get("schema_version").is_some_and(|s| s == closure::SCHEMA)) {
                return Ok(());
            }
            Err(Failure::usage(format!("{} stands and is no evidence of the gate; nothing was written", out.display()))
                .hint("name another file with --out"))
        }
    }
}

/// Whole or not at all.
fn write(out: &Path, closure: &Closure) -> Result<(), Failure> {
    let place = |e: std::io::Error| broken(format!("{}: {e}", out.display()));
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let draft = out.with_file_name(name);
    let text = serde_json::to_string_pretty(&closure.to_json()).unwrap_or_default();
    std::fs::write(&draft, format!("{text}\n")).and_then(|()| std::fs::rename(&draft, out)).map_err(place)
}

fn print(closure: &Closure, out: &Path) {
    say(format!("{:>5}  {:<30} {:<14} {:>6}  obligations", "phase", "", "status", "checks"));
    for row in &closure.rows {
        let phase = if row.phase == 0 { "-".to_owned() } else { row.phase.to_string() };
        let (proved, all) = (row.proved.len(), row.proved.len() + row.unproved.len());
        say(format!("{phase:>5}  {:<30} {:<14} {:>6}  {proved}/{all}", row.name, row.standing.as_str(), row.checks));
        row.problems.iter().take(12).for_each(|p| say(format!("         {}", safe(p))));
    }
    let (proved, all) = closure.proved();
    for (number, name, passed) in closure.gates() {
        say(format!("gate {number}  {name:<12} {}", if passed { "PASSED" } else { "NOT PASSED" }));
    }
    say(format!("{}  {proved}/{all} obligations proved; evidence {}", closure.verdict(), safe(&out.display().to_string())));
}
