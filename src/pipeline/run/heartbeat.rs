//! Keeps a lease alive while its owner works, and tells the owner when it is lost or when an operator
//! wants the run to end.

use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use crate::ledger::{Lease, Ledger, LedgerError, OperatorRequest};
use crate::pipeline::gate::Env;

/// How soon an operator's request is heard of: what is asked meanwhile costs one read of a counter, and one of
/// the run where another process has written.
const LISTEN: Duration = Duration::from_millis(200);

/// A thread that waits for a lease to keep alive. It is asked of the system before the lease is taken, so that no run
/// has an owner whose lease nobody renews.
pub(super) struct Ready {
    beats: Sender<Beats>,
    thread: JoinHandle<()>,
}

/// What a heartbeat does until it is stopped.
type Beats = Box<dyn FnOnce() + Send>;

impl Ready {
    /// Asks the system for the thread.
    ///
    /// # Errors
    /// `NoHeartbeat` where it gives none.
    pub(super) fn new(thread: Builder) -> Result<Self, LedgerError> {
        let (beats, given) = bounded::<Beats>(1);
        // Who takes no lease hangs up.
        let work = move || given.into_iter().for_each(|beats| beats());
        let thread = thread.name("heartbeat".into()).spawn(work).map_err(|e| LedgerError::NoHeartbeat(e.to_string()))?;
        Ok(Ready { beats, thread })
    }
}

/// Why an owner may not count on its lease any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lost {
    /// Another owner has it, or an operator ended the run.
    Taken,
    /// The ledger could not be written for as long as the lease lives; why not.
    Unwritable(String),
}

/// A running heartbeat; dropping it stops it.
pub(super) struct Heartbeat {
    lost: Arc<OnceLock<Lost>>,
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
    pub(super) fn start(ready: Ready, ledger: Arc<Ledger>, lease: Lease, env: &Env, lease_seconds: u64) -> Self {
        let (stop, stopped) = bounded::<()>(0);
        let lost = Arc::new(OnceLock::new());
        let asked = Arc::new(OnceLock::new());
        let (env, flag, request) = (env.clone(), lost.clone(), asked.clone());
        let life = Duration::from_secs(lease_seconds);
        let lease_us = i64::try_from(life.as_micros()).unwrap_or(i64::MAX);
        let beats = move || {
            // Once a second at least, so that another process sees progress within two.
            let pause = (life / 3).min(Duration::from_secs(1));
            let (mut renewed, mut beaten, mut version) = (Instant::now(), Instant::now(), None);
            while stopped.recv_timeout(pause.min(LISTEN)) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                let due = beaten.elapsed() >= pause;
                let heard = if due {
                    beaten = Instant::now();
                    ledger.heartbeat(&lease, lease_us, Some(&env.progress.sample()))
                } else {
                    listen(&ledger, &lease, &mut version)
                };
                match heard {
                    // Only a lease that was renewed lives on: that the ledger can be read says nothing of that.
                    Ok(None) if due => renewed = beaten,
                    Ok(None) => {}
                    // Not renewed any more: an owner that does not obey can be replaced when its lease ends.
                    Ok(Some(order)) => {
                        tracing::warn!(run_key = lease.run_key, "{order}");
                        let _ = request.set(order);
                        env.cancel.cancel();
                        return;
                    }
                    // A ledger that is briefly unreachable costs nothing while the lease still lives.
                    Err(LedgerError::Io(_)) if !due => {}
                    Err(LedgerError::Io(_)) if renewed.elapsed() + pause < life => {}
                    Err(error) => {
                        tracing::warn!(run_key = lease.run_key, epoch = lease.epoch, "heartbeat stopped: {error}");
                        let _ = flag.set(match error {
                            LedgerError::Io(why) => Lost::Unwritable(why),
                            _ => Lost::Taken,
                        });
                        env.cancel.cancel();
                        return;
                    }
                }
            }
        };
        let Ready { beats: give, thread } = ready;
        // It waits for just this.
        let _ = give.send(Box::new(beats));
        Heartbeat { lost, asked, stop: Some(stop), thread: Some(thread) }
    }

    /// The end that an operator has asked for.
    pub(super) fn asked(&self) -> Option<&OperatorRequest> {
        self.asked.get()
    }

    /// Whether, and why, the lease was lost.
    pub(super) fn lost(&self) -> Option<&Lost> {
        self.lost.get()
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::config::Config;
    use crate::ledger::{Access, ExecutionMode, NewRun, Owner, Watch};
    use crate::store::{LocalStore, Unrecorded};
    use crate::time::SystemClock;

    /// A full disk: everything can be read, and nothing written.
    #[derive(Debug, Default)]
    struct Full {
        now: AtomicBool,
        reads: AtomicUsize,
        refused: AtomicUsize,
        written: AtomicUsize,
    }

    impl Watch for Full {
        fn around(&self, access: Access, operation: &mut dyn FnMut() -> Result<(), LedgerError>) -> Result<(), LedgerError> {
            match access {
                Access::Write if self.now.load(Ordering::SeqCst) => {
                    self.refused.fetch_add(1, Ordering::SeqCst);
                    Err(LedgerError::Io("no space".into()))
                }
                Access::Write => {
                    self.written.fetch_add(1, Ordering::SeqCst);
                    operation()
                }
                Access::Read => {
                    self.reads.fetch_add(1, Ordering::SeqCst);
                    operation()
                }
            }
        }
    }

    fn env(dir: &std::path::Path) -> Env {
        Env {
            store: Arc::new(LocalStore::open(dir).unwrap()),
            store_root: None,
            config: Arc::new(Config::load(Some(dir), dir, &BTreeMap::new()).unwrap()),
            cancel: tokio_util::sync::CancellationToken::new(),
            progress: Arc::default(),
            attempt: "test".into(),
            audit: Arc::new(Unrecorded),
        }
    }

    /// A heartbeat of a lease that lives so many seconds, on a disk that is full from the start.
    fn on_a_full_disk(dir: &std::path::Path, lease_seconds: u64) -> (Arc<Full>, Env, Heartbeat) {
        let full = Arc::new(Full::default());
        let ledger = Ledger::open(&dir.join("ledger.db"), Arc::new(SystemClock), "test").unwrap().with_watch(full.clone());
        let new = NewRun {
            run_key: "k".into(),
            request_id: "k".into(),
            request_hash: "k".into(),
            platform_run_id: "p".into(),
            intent_kind: "dataset_build".into(),
            intent: serde_json::json!({}),
            provenance: serde_json::json!({}),
        };
        ledger.submit(&new).unwrap();
        let lease = ledger.start("k", ExecutionMode::Full, &Owner::current(), 60_000_000).unwrap();
        full.now.store(true, Ordering::SeqCst);
        let (env, ready) = (env(dir), Ready::new(Builder::new()).unwrap());
        let heart = Heartbeat::start(ready, Arc::new(ledger), lease, &env, lease_seconds);
        (full, env, heart)
    }

    fn until(what: &str, over: impl Fn() -> bool) {
        let began = Instant::now();
        while !over() {
            assert!(began.elapsed() < Duration::from_secs(120), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn an_owner_whose_lease_cannot_be_renewed_hears_of_it_though_the_ledger_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let (full, env, heart) = on_a_full_disk(dir.path(), 1);
        until("the lease is given up", || heart.lost().is_some());
        assert_eq!(heart.lost(), Some(&Lost::Unwritable("no space".into())), "nobody took it");
        assert!(env.cancel.is_cancelled());
        assert!(full.reads.load(Ordering::SeqCst) > 0, "it listened meanwhile");
    }

    #[test]
    fn a_ledger_that_cannot_be_written_for_a_while_costs_no_lease_that_lives_longer() {
        let dir = tempfile::tempdir().unwrap();
        let (full, env, heart) = on_a_full_disk(dir.path(), 3_600);
        until("it fails again and again", || full.refused.load(Ordering::SeqCst) > 3);
        let before = full.written.load(Ordering::SeqCst);
        full.now.store(false, Ordering::SeqCst);
        until("it is renewed", || full.written.load(Ordering::SeqCst) > before);
        assert!(heart.lost().is_none() && !env.cancel.is_cancelled());
    }

    #[test]
    fn without_a_thread_there_is_no_heartbeat_and_that_is_told() {
        // More than there are addresses.
        let refused = Ready::new(Builder::new().stack_size(1 << 50)).err().unwrap();
        assert!(matches!(refused, LedgerError::NoHeartbeat(_)), "{refused}");
        assert_eq!(refused.code().info().exit, 3);
    }

    #[test]
    fn who_takes_no_lease_leaves_no_thread_behind() {
        let Ready { beats, thread } = Ready::new(Builder::new()).unwrap();
        drop(beats);
        thread.join().unwrap();
    }
}
