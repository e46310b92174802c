//! Work items handed to worker threads one by one. Results must not depend on who takes what.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::gate::{Env, Phase, Refusal};

/// Runs `work` over `0..items` on the configured threads; each thread has its own state. The refusal
/// of the lowest item wins, so that which thread was faster cannot be seen.
pub(crate) fn each<S>(
    env: &Env,
    phase: Phase,
    items: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<(), Refusal> + Sync,
    done: impl Fn(S) -> Result<(), Refusal> + Sync,
) -> Result<(), Refusal> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let refused: Mutex<Option<(usize, Refusal)>> = Mutex::new(None);
    let refuse = |item: usize, refusal: Refusal| {
        stop.store(true, Ordering::Relaxed);
        let mut slot = refused.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_none_or(|(earlier, _)| item < *earlier) {
            *slot = Some((item, refusal));
        }
    };
    let run = || {
        let mut mine = state();
        loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= items {
                break;
            }
            if let Err(refusal) = env.check(phase).and_then(|()| work(&mut mine, item)) {
                return refuse(item, refusal);
            }
        }
        if let Err(refusal) = done(mine) {
            refuse(items, refusal);
        }
    };
    let threads = env.config.threads().min(items.max(1));
    if threads <= 1 {
        run();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(run);
            }
        });
    }
    match refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, refusal)) => Err(refusal),
        None => Ok(()),
    }
}
