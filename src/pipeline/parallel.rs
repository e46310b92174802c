//! Work items handed to worker threads one by one. Results must not depend on who takes what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::gate::{Env, Phase, Refusal};
use crate::contract::ReasonCode;

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

/// Results that finish in any order and are taken in the order of their numbers, from 0, as soon as it is their turn:
/// what waits is no more than what overtook.
#[derive(Debug)]
pub(crate) struct InOrder<T> {
    next: usize,
    waiting: BTreeMap<usize, T>,
}

impl<T> InOrder<T> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        InOrder { next: 0, waiting: BTreeMap::new() }
    }

    /// Adds a result; `take` gets those whose turn it is.
    pub(crate) fn put(&mut self, number: usize, result: T, mut take: impl FnMut(T)) {
        self.waiting.insert(number, result);
        while let Some(result) = self.waiting.remove(&self.next) {
            self.next += 1;
            take(result);
        }
    }
}

/// Memory for work whose size is known before it begins: who finds no room waits until others have left. Work that
/// is larger than the whole is done alone.
#[derive(Debug)]
pub(crate) struct Room {
    whole: u64,
    used: Mutex<u64>,
    left: Condvar,
}

/// A place in a [`Room`], until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat<'r> {
    room: &'r Room,
    bytes: u64,
}

impl Room {
    /// Room for `whole` bytes.
    pub(crate) fn new(whole: u64) -> Self {
        Room { whole, used: Mutex::new(0), left: Condvar::new() }
    }

    /// Waits for room for work that takes about `bytes`, at the very `least` of which has to fit into the limit.
    ///
    /// # Errors
    /// `MEMORY_BUDGET` where it never will, with `why`; the order to stop, if it was given meanwhile.
    pub(crate) fn admit(&self, env: &Env, phase: Phase, bytes: u64, least: u64, why: impl FnOnce() -> String) -> Result<Seat<'_>, Refusal> {
        if least > env.config.memory() {
            let message = format!("{} MiB are needed at least, more than limits.memory allows: {}", least >> 20, why());
            return Err(Refusal::new(ReasonCode::MemoryBudget, phase, message));
        }
        let seat = self.enter(bytes);
        env.check(phase)?;
        Ok(seat)
    }

    /// Waits for room.
    fn enter(&self, bytes: u64) -> Seat<'_> {
        let bytes = bytes.min(self.whole);
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |used: &mut u64| *used > 0 && *used + bytes > self.whole;
        *self.left.wait_while(used, full).unwrap_or_else(PoisonError::into_inner) += bytes;
        Seat { room: self, bytes }
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        *self.room.used.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.room.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_taken_in_order_as_soon_as_it_is_their_turn() {
        let (mut results, mut taken) = (InOrder::new(), Vec::new());
        let after: Vec<usize> = [2, 0, 3, 1, 4]
            .into_iter()
            .map(|n| {
                results.put(n, n * 10, |result| taken.push(result));
                taken.len()
            })
            .collect();
        assert_eq!((taken, after), (vec![0, 10, 20, 30, 40], vec![0, 1, 1, 4, 5]));
    }

    #[test]
    fn work_waits_for_room_and_the_largest_is_done_alone() {
        let room = Room::new(10);
        let (entered, order) = std::sync::mpsc::channel();
        let small = (room.enter(4), room.enter(6));
        std::thread::scope(|scope| {
            for bytes in [25, 1] {
                let (room, entered) = (&room, entered.clone());
                scope.spawn(move || {
                    let _seat = room.enter(bytes);
                    entered.send(*room.used.lock().unwrap()).unwrap();
                });
            }
            // Nobody comes in while there is no room; then the small one may, beside what is left, and the large one
            // not before it is alone.
            assert!(order.try_recv().is_err());
            drop(small.1);
            assert_eq!(order.recv().unwrap(), 5);
            assert!(order.try_recv().is_err());
            drop(small.0);
            assert_eq!(order.recv().unwrap(), 10);
        });
        assert_eq!(*room.used.lock().unwrap(), 0);
    }
}
