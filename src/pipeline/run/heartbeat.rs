//! Keeps a lease alive while its owner works, and tells the owner when it is lost or when an operator
//! wants the run to end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use crate::ledger::{Lease, Ledger, LedgerError, OperatorRequest};
use crate::pipeline::gate::Env;

/// How soon an operator's request is heard of: what is asked meanwhile costs one read of a counter, and one of
/// the run where another process has written.
const LISTEN: Duration = Duration::from_millis(200);

/// A running heartbeat; dropping it stops it.
pub(super) struct Heartbeat {
    lost: Arc<AtomicBool>,
    asked: Arc<OnceLock<OperatorRequest>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What an operator has asked for since the ledger was looked at last.
fn listen(ledger: &Ledger, lease: &Lease, seen: &mut Option<i64>) -> Result<Option<OperatorRequest>, LedgerError> {
    let version = ledger.data_version()?;
    if seen.replace(version) == Some(version) {
        return Ok(None);
    }
    ledger.asked(lease)
}

impl Heartbeat {
    /// Starts to renew `lease` three times within its life, with the build's progress.
    pub(super) fn start(ledger: Arc<Ledger>, lease: Lease, env: &Env, lease_seconds: u64) -> Self {
        let (stop, stopped) = bounded::<()>(0);
        let lost = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(OnceLock::new());
        let (env, flag, request) = (env.clone(), lost.clone(), asked.clone());
        let life = Duration::from_secs(lease_seconds);
        let lease_us = i64::try_from(life.as_micros()).unwrap_or(i64::MAX);
        let thread = std::thread::Builder::new().name("heartbeat".into()).spawn(move || {
            // Once a second at least, so that another process sees progress within two.
            let pause = (life / 3).min(Duration::from_secs(1));
            let (mut failures, mut beaten, mut version) = (0u32, Instant::now(), None);
            while stopped.recv_timeout(pause.min(LISTEN)) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                let due = beaten.elapsed() >= pause;
                let heard = if due {
                    beaten = Instant::now();
                    ledger.heartbeat(&lease, lease_us, Some(&env.progress.sample()))
                } else {
                    listen(&ledger, &lease, &mut version)
                };
                match heard {
                    Ok(None) => failures = 0,
                    // Not renewed any more: an owner that does not obey can be replaced when its lease ends.
                    Ok(Some(order)) => {
                        tracing::warn!(run_key = lease.run_key, "{order}");
                        let _ = request.set(order);
                        env.cancel.cancel();
                        return;
                    }
                    // A ledger that is briefly unreachable costs nothing while the lease still lives.
                    Err(LedgerError::Io(_)) if failures < 2 => failures += 1,
                    Err(error) => {
                        tracing::warn!(run_key = lease.run_key, epoch = lease.epoch, "heartbeat stopped: {error}");
                        flag.store(true, Ordering::SeqCst);
                        env.cancel.cancel();
                        return;
                    }
                }
            }
        });
        Heartbeat { lost, asked, stop: Some(stop), thread: thread.ok() }
    }

    /// The end that an operator has asked for.
    pub(super) fn asked(&self) -> Option<&OperatorRequest> {
        self.asked.get()
    }

    /// Whether the lease was lost.
    pub(super) fn lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
