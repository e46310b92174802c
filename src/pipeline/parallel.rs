//! Work items handed to worker threads one by one. Results must not depend on who takes what.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::gate::{Env, Phase, Refusal};
use crate::contract::ReasonCode;

/// How many items there are, and on how many threads at most they are worked on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Items {
    count: usize,
    threads: usize,
}

impl From<usize> for Items {
    fn from(count: usize) -> Self {
        Items { count, threads: usize::MAX }
    }
}

/// Runs `work` over the items, by number from 0, on the configured threads; each thread has its own state. The refusal
/// of the lowest item wins, so that which thread was faster cannot be seen. A panic goes on in the caller.
pub(crate) fn each<S>(
    env: &Env,
    phase: Phase,
    items: impl Into<Items>,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<(), Refusal> + Sync,
    done: impl Fn(S) -> Result<(), Refusal> + Sync,
) -> Result<(), Refusal> {
    let Items { count, threads } = items.into();
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
        let _defect = StopOnPanic(&stop);
        let mut mine = state();
        loop {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let item = next.fetch_add(1, Ordering::Relaxed);
            if item >= count {
                break;
            }
            if let Err(refusal) = env.check(phase).and_then(|()| work(&mut mine, item)) {
                return refuse(item, refusal);
            }
        }
        if let Err(refusal) = done(mine) {
            refuse(count, refusal);
        }
    };
    crew(threads.min(env.config.workers()).clamp(1, count.max(1)), Builder::new, run);
    match refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, refusal)) => Err(refusal),
        None => Ok(()),
    }
}

/// Has the others stop where the thread that holds it panics: what they would still do is in vain.
struct StopOnPanic<'s>(&'s AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Does the same work on so many threads, or on as many as the system gives: on the caller's, where it gives none.
fn crew(threads: usize, thread: impl Fn() -> Builder, work: impl Fn() + Sync) {
    // A single one gets a thread of its own, too: the allocator gives it the memory that a thread before it has left,
    // where the caller's own would grow by as much.
    std::thread::scope(|scope| {
        let hired = hire(scope, threads, thread, || &work);
        if hired.is_empty() {
            work();
        }
        join(hired);
    });
}

/// So many threads, or as many as the system gives; each does work of its own. They have to be [`join`]ed.
pub(crate) fn hire<'s, F: FnOnce() + Send + 's>(
    scope: &'s Scope<'s, '_>,
    threads: usize,
    thread: impl Fn() -> Builder,
    work: impl Fn() -> F,
) -> Vec<ScopedJoinHandle<'s, ()>> {
    let one = |_| thread().spawn_scoped(scope, work()).inspect_err(|e| tracing::warn!("fewer threads than configured: {e}")).ok();
    (0..threads).map_while(one).collect()
}

/// Waits for threads to end. The panic of one goes on here, with the words that it had.
pub(crate) fn join(hired: Vec<ScopedJoinHandle<'_, ()>>) {
    let ended: Vec<_> = hired.into_iter().map(ScopedJoinHandle::join).collect();
    if let Some(panic) = ended.into_iter().find_map(Result::err) {
        std::panic::resume_unwind(panic);
    }
}

/// Memory that an item takes, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weight {
    /// About so much.
    pub(crate) about: u64,
    /// At the very least so much, which has to fit into the limit.
    pub(crate) least: u64,
}

/// [`each`], for items that take so much memory that they have to wait for room, which is half of what there may be;
/// `name` says what an item is.
///
/// # Errors
/// `MEMORY_BUDGET` where an item would never fit, before any work was done in vain.
pub(crate) fn weighed(
    env: &Env,
    phase: Phase,
    weights: &[Weight],
    name: impl Fn(usize) -> String,
    work: impl Fn(usize) -> Result<(), Refusal> + Sync,
) -> Result<(), Refusal> {
    for (item, weight) in weights.iter().enumerate() {
        affordable(env, phase, weight.least, || name(item))?;
    }
    let room = Room::new(env.config.memory() / 2);
    let work = |(): &mut (), item: usize| {
        let _seat = room.enter(weights.get(item).map_or(0, |weight| weight.about));
        env.check(phase)?;
        work(item)
    };
    let items = Items { count: weights.len(), threads: room.threads(weights, env.config.workers()) };
    each(env, phase, items, || (), work, |()| Ok(()))
}

/// Refuses work that needs more memory than there may be at the very least; `what` it is.
///
/// # Errors
/// `MEMORY_BUDGET`.
pub(crate) fn affordable(env: &Env, phase: Phase, least: u64, what: impl FnOnce() -> String) -> Result<(), Refusal> {
    if least <= env.config.memory() {
        return Ok(());
    }
    let message = format!("{} MiB are needed at least, more than limits.memory allows: {}", least.div_ceil(1 << 20), what());
    Err(Refusal::new(ReasonCode::MemoryBudget, phase, message))
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
struct Room {
    whole: u64,
    used: Mutex<u64>,
    left: Condvar,
}

/// A place in a [`Room`], until it is dropped.
#[derive(Debug)]
struct Seat<'r> {
    room: &'r Room,
    bytes: u64,
}

impl Room {
    /// Room for `whole` bytes.
    fn new(whole: u64) -> Self {
        Room { whole, used: Mutex::new(0), left: Condvar::new() }
    }

    /// How many threads may find room at once, most of the time. Who would only wait for the others had better not
    /// work at all: the allocator keeps memory for every thread that has worked.
    fn threads(&self, weights: &[Weight], threads: usize) -> usize {
        let total: u64 = weights.iter().map(|weight| weight.about).fold(0, u64::saturating_add);
        let each = (total / weights.len().max(1) as u64).max(1);
        threads.min(usize::try_from(self.whole / each).unwrap_or(usize::MAX)).max(1)
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
    use std::sync::Arc;

    use super::*;
    use crate::config::Config;
    use crate::store::{LocalStore, Unrecorded};

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

    fn env(dir: &std::path::Path, limit: (&str, &str)) -> Env {
        let limits = BTreeMap::from([(limit.0.to_owned(), limit.1.to_owned())]);
        Env {
            store: Arc::new(LocalStore::open(dir).unwrap()),
            store_root: None,
            config: Arc::new(Config::load(Some(dir), dir, &limits).unwrap()),
            cancel: tokio_util::sync::CancellationToken::new(),
            progress: Arc::default(),
            attempt: "test".into(),
            audit: Arc::new(Unrecorded),
        }
    }

    /// The words of a panic.
    fn words(work: impl FnOnce()) -> Option<String> {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).err()?;
        panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
    }

    #[test]
    fn a_panic_keeps_its_words_and_stops_the_other_threads() {
        const ITEMS: usize = 1_000_000;
        let dir = tempfile::tempdir().unwrap();
        let (env, done, gone) = (env(dir.path(), ("OFS_LIMITS_THREADS", "2")), AtomicUsize::new(0), AtomicBool::new(false));
        /// Says when the thread that panics is about to be gone.
        struct Last<'l>(&'l AtomicBool);
        impl Drop for Last<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let work = |_: &mut (), item: usize| {
            if item == 0 {
                let _last = Last(&gone);
                panic!("item {item} is a defect");
            }
            done.fetch_add(1, Ordering::SeqCst);
            // The other one waits, so that it has not worked through all items before.
            while !gone.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
            Ok(())
        };
        let told = words(|| drop(each(&env, Phase::Features, ITEMS, || (), work, |()| Ok(()))));
        assert_eq!(told.as_deref(), Some("item 0 is a defect"));
        assert!(done.into_inner() < ITEMS - 1);
    }

    #[test]
    fn work_is_done_on_as_many_threads_as_the_system_gives() {
        // More than there are addresses.
        let refused = || Builder::new().stack_size(1 << 50);
        for given in 0..4 {
            let (asked, here) = (AtomicUsize::new(0), std::thread::current().id());
            let thread = || if asked.fetch_add(1, Ordering::SeqCst) < given { Builder::new() } else { refused() };
            let by = Mutex::new(Vec::new());
            crew(3, thread, || by.lock().unwrap().push(std::thread::current().id()));
            let by = by.into_inner().unwrap();
            assert_eq!((by.len(), by.contains(&here)), (given.clamp(1, 3), given == 0), "{given}");
        }
        assert_eq!(words(|| crew(2, refused, || panic!("here"))).as_deref(), Some("here"));
        assert_eq!(words(|| crew(2, Builder::new, || panic!("there"))).as_deref(), Some("there"));
    }

    #[test]
    fn what_never_fits_is_refused_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let env = env(dir.path(), ("OFS_LIMITS_MEMORY", "64MiB"));
        let weights = [1 << 20, 64 << 20, 65 << 20].map(|least| Weight { about: least, least });
        let done = AtomicUsize::new(0);
        let work = |weights: &[Weight]| {
            weighed(
                &env,
                Phase::Features,
                weights,
                |item| format!("item {item}"),
                |_| {
                    done.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                },
            )
        };
        let refusal = work(&weights).unwrap_err();
        assert_eq!((refusal.code, done.load(Ordering::Relaxed)), (ReasonCode::MemoryBudget, 0));
        assert!(refusal.message.contains("65 MiB") && refusal.message.ends_with("item 2"), "{}", refusal.message);
        work(&weights[..2]).unwrap();
        assert_eq!(done.into_inner(), 2);
    }

    #[test]
    fn no_more_threads_than_find_room_at_once() {
        let weights = |all: &[u64]| all.iter().map(|about| Weight { about: *about, least: 0 }).collect::<Vec<_>>();
        let threads = |all: &[u64], threads| Room::new(100).threads(&weights(all), threads);
        assert_eq!([threads(&[60, 60], 2), threads(&[50, 50], 2), threads(&[10, 10, 10, 170], 8), threads(&[200], 4)], [1, 2, 2, 1]);
        assert_eq!([threads(&[], 2), threads(&[0, 0], 2)], [2, 2]);
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
