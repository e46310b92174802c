//! What the program says about itself: log files, metrics, health, governance facts, reconciliation. Logs
//! never go to stdout, and their volume follows partitions and shards, never events (O151, decision 9).
//! Observers read the ledger and the receipts; nothing that they do or fail to do changes a data set (O153).

pub mod bundle;
pub mod doctor;
pub mod facts;
pub mod gates;
pub mod health;
pub mod metrics;
#[cfg(feature = "otlp")]
mod otlp;
pub mod reconcile;
pub mod report;
mod told;
mod world;

pub use report::{Report, RunReport, look, look_at, report};

use std::io::{self, Write};
use std::path::Path;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

use crate::pipeline::gate::Env;
use crate::pipeline::run::Host;

/// Days of logs that are kept.
const KEPT_FILES: usize = 14;
/// Records that may wait to be written; a build writes some hundreds. The crate's own limit takes 4 MB from the start.
const WAITING_RECORDS: usize = 16_384;

/// Tells an OpenTelemetry collector what this process has just done on a run, where the environment names one and
/// this program was built with the feature `otlp`; otherwise nothing happens. Gives the line that a person should
/// read where it could not be sent. Waits a bounded time, and changes nothing but the record of its own delivery
/// (O149, O150, O153, O154).
pub fn export(env: &Env, host: &Host, run_key: &str) -> Option<String> {
    #[cfg(feature = "otlp")]
    return otlp::export(env, host, run_key);
    #[cfg(not(feature = "otlp"))]
    {
        let _ = (env, host, run_key);
        None
    }
}

/// Starts logging into `folder`, filtered by `OFS_LOG`. Keep the guard: dropping it flushes.
///
/// # Errors
/// In words, where the folder cannot be used; the program goes on without logs then.
pub fn start_logging(folder: &Path, filter: Option<&str>) -> Result<WorkerGuard, String> {
    let fault = |error: &io::Error| eprintln!("ofs: the log cannot be written, the work goes on: {error}");
    start_logging_with(folder, filter, tracing_subscriber::layer::Identity::new(), fault)
}

/// [`start_logging`], and `also` sees every record that passes the filter. `fault` is told once where records no
/// longer arrive, for example because the disk is full: a log that fails stops nothing.
///
/// # Errors
/// As of [`start_logging`].
pub fn start_logging_with<L>(
    folder: &Path,
    filter: Option<&str>,
    also: L,
    fault: impl FnOnce(&io::Error) + Send + 'static,
) -> Result<WorkerGuard, String>
where
    L: Layer<Registry> + Send + Sync,
{
    let place = |e: &dyn std::fmt::Display| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(folder).map_err(|e| place(&e))?;
    let appender = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("ofs")
        .filename_suffix("jsonl")
        .max_log_files(KEPT_FILES)
        .build(folder)
        .map_err(|e| place(&e))?;
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_RECORDS).finish(Watched { log: appender, fault: Some(fault) });
    let filter = EnvFilter::try_new(filter.unwrap_or("info")).map_err(|e| format!("OFS_LOG: {e}"))?;
    let file = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(writer).with_ansi(false);
    tracing_subscriber::registry().with(also).with(file).with(filter).try_init().map_err(|e| e.to_string())?;
    Ok(guard)
}

/// A log that says once that it cannot be written.
struct Watched<W, F> {
    log: W,
    fault: Option<F>,
}

impl<W: Write, F: FnOnce(&io::Error)> Write for Watched<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.log.write(bytes);
        if let Err(error) = &written
            && error.kind() != io::ErrorKind::Interrupted
            && let Some(tell) = self.fault.take()
        {
            tell(error);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.log.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_on_a_full_disk_says_so_once() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let told = std::cell::Cell::new(0);
        let mut log = Watched { log: Full, fault: Some(|_: &io::Error| told.set(told.get() + 1)) };
        for _ in 0..3 {
            assert!(log.write_all(b"record").is_err());
        }
        assert_eq!(told.get(), 1);
    }
}
