//! A progress line on stderr while a build runs, on a terminal only.

use std::io::{IsTerminal, Write};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::pipeline::gate::Env;
use crate::text::{grouped, safe};

/// The running line; dropping it takes the line away.
pub(super) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn start(env: &Env) -> Self {
        if !std::io::stderr().is_terminal() {
            return Ticker { stop: None, thread: None };
        }
        let (stop, stopped) = bounded::<()>(0);
        let progress = env.progress.clone();
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
            let mut began = Instant::now();
            let mut phase = None;
            let mut shown = String::new();
            while stopped.recv_timeout(Duration::from_millis(250)) == Err(RecvTimeoutError::Timeout) {
                let Some(now) = progress.phase() else { continue };
                if phase != Some(now) {
                    phase = Some(now);
                    began = Instant::now();
                }
                let (done, total) = progress.units();
                let rate = done as f64 / began.elapsed().as_secs_f64().max(0.001);
                let slowest = progress
                    .lanes()
                    .into_iter()
                    .filter(|(_, wanted, got)| got < wanted)
                    .min_by_key(|(_, wanted, got)| got * 1_000 / wanted.max(&1));
                let lane = slowest
                    .map(|(name, wanted, got)| format!("  behind: {} {}/{}", safe(&name), grouped(got), grouped(wanted)))
                    .unwrap_or_default();
                let line = format!(
                    "{:>2} {:<12} {} of {}  {}/s{lane}",
                    now.number(),
                    now.as_str(),
                    grouped(done),
                    grouped(total),
                    grouped(rate as u64)
                );
                if line != shown {
                    let mut err = std::io::stderr().lock();
                    let _ = write!(err, "\r\u{1b}[K{}", crate::text::clip(&line, 78)).and_then(|()| err.flush());
                    shown = line;
                }
            }
            let mut err = std::io::stderr().lock();
            let _ = write!(err, "\r\u{1b}[K").and_then(|()| err.flush());
        });
        Ticker { stop: Some(stop), thread: thread.ok() }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
