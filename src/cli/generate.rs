//! `ofs generate`: a synthetic, realistic workspace of any size.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, bounded};
use serde_json::json;

use super::{Context, Failure, Outcome, document, say};
use crate::operate::generate::{GenerateError, Spec, World};
use crate::text::grouped;

/// Partitions where nobody says how many.
const DEFAULT_PARTITIONS: u32 = 4;

/// Arguments of `ofs generate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The new workspace; must not exist, or be empty.
    dir: PathBuf,
    /// Events in all.
    #[arg(long, value_name = "N")]
    events: u64,
    /// Partitions of the topic [default: 4, or one an event where there are fewer].
    #[arg(long, value_name = "P")]
    partitions: Option<u32>,
    /// Seed: the same arguments write the same bytes.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Archive everything and seal it: builds then read columns instead of JSON.
    #[arg(long)]
    sealed: bool,
    /// Columns alone, a sixth of the disk: no raw archive beside its segments, and labels as Parquet.
    #[arg(long, requires = "sealed")]
    columns: bool,
}

impl Args {
    /// Where the workspace is to lie.
    pub(super) fn dir(&self) -> &std::path::Path {
        &self.dir
    }
}

impl From<GenerateError> for Failure {
    fn from(error: GenerateError) -> Self {
        match error {
            GenerateError::Unusable(_) => Failure::usage(error.to_string()).hint("`ofs generate --help` says what fits"),
            GenerateError::Unsealed(refusal) => Failure::from(refusal),
            GenerateError::Io { .. } => Failure { exit: 1, code: None, message: error.to_string(), hint: None },
        }
    }
}

pub(super) fn run(as_json: bool, args: Args) -> Outcome {
    let Args { dir: out, events, partitions, seed, sealed, columns } = args;
    let partitions = partitions.unwrap_or_else(|| u32::try_from(events).unwrap_or(DEFAULT_PARTITIONS).clamp(1, DEFAULT_PARTITIONS));
    let world = World::prepare(Spec { events, partitions, seed, archived: sealed, columns, out })?;
    let spec = world.spec();
    let sealing = if sealed { Some(Context::load(Some(&spec.out), as_json)?.env()?) } else { None };
    let written = Arc::new(AtomicU64::new(0));
    let done = {
        let (stop, stopped) = bounded::<()>(0);
        let (seen, total) = (written.clone(), spec.events);
        let line = std::thread::spawn(move || {
            while std::io::stderr().is_terminal() && stopped.recv_timeout(Duration::from_millis(500)) == Err(RecvTimeoutError::Timeout) {
                let _ = write!(std::io::stderr().lock(), "\r{} of {} events", grouped(seen.load(Ordering::Relaxed)), grouped(total));
            }
        });
        let done = world.write(sealing.as_ref(), &written);
        drop(stop);
        let _ = line.join();
        done?
    };
    let sealed = sealed.then_some(done.sealed);
    let intents: Vec<String> = done.intents.iter().map(|path| path.display().to_string()).collect();
    if as_json {
        document(&json!({
            "schema_version": "ofs.generate.v1", "events": done.events, "labels": done.labels, "partitions": spec.partitions,
            "out": spec.out.display().to_string(), "intents": intents, "sealed_records": sealed,
        }));
    } else {
        say(format!("{} events in {} partition(s), {} label assertions", grouped(done.events), spec.partitions, grouped(done.labels)));
        if let Some(records) = sealed {
            say(format!("{} archived record(s) sealed", grouped(records)));
        }
        for intent in intents {
            say(format!("next: ofs --workspace {} run {intent}", spec.out.display()));
        }
    }
    Ok(0)
}
