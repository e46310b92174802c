//! Samples what this console's builds are doing, as often as frames are drawn while something changes, less and
//! less often while nothing does, and not at all while nothing is built. Nothing is queued: a sample that the
//! screen has no room for is taken again.

use std::collections::BTreeMap;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use crate::console::builds::{Builds, Sampled};
use crate::console::msg::Msg;

/// Longest pause between two looks while a build is alive: two wake-ups a second.
const CALM: Duration = Duration::from_millis(500);

/// The sampler's thread.
#[derive(Debug, Clone)]
pub(super) struct Sampler {
    wake: Sender<()>,
}

impl Sampler {
    /// Starts it, for at most `rate` samples a second.
    pub(super) fn start(builds: Builds, told: Sender<Msg>, rate: u32) -> std::io::Result<Self> {
        let (wake, woken) = bounded(1);
        let work = move || {
            let mut look = Look::new(Duration::from_secs(1) / rate.max(1));
            let mut rest = None;
            loop {
                let waited = match rest {
                    None => woken.recv().map_err(|_| RecvTimeoutError::Disconnected),
                    Some(rest) => woken.recv_timeout(rest),
                };
                if waited == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
                let builds = builds.snapshot();
                let alive = builds.iter().filter(|build| build.alive()).map(|build| (build.run_key.clone(), build.sampled()));
                rest = look.take(alive.collect(), |msg| told.try_send(msg).is_ok());
            }
        };
        std::thread::Builder::new().name("sampler".into()).spawn(work)?;
        Ok(Sampler { wake })
    }

    /// A build has started.
    pub(super) fn wake(&self) {
        let _ = self.wake.try_send(());
    }
}

/// What was told, and how long to rest.
#[derive(Debug)]
struct Look {
    told: BTreeMap<String, Sampled>,
    gap: Duration,
    rest: Duration,
}

impl Look {
    fn new(gap: Duration) -> Self {
        Look { told: BTreeMap::new(), gap, rest: gap }
    }

    /// Tells what changed. How long to rest; none where nothing is left to look at.
    fn take(&mut self, alive: Vec<(String, Sampled)>, tell: impl Fn(Msg) -> bool) -> Option<Duration> {
        self.told.retain(|known, _| alive.iter().any(|(run_key, _)| run_key == known));
        let none = alive.is_empty();
        let mut changed = false;
        for (run_key, sampled) in alive {
            if self.told.get(&run_key) == Some(&sampled) {
                continue;
            }
            changed = true;
            if tell(Msg::Progress { run_key: run_key.clone(), sampled: sampled.clone() }) {
                self.told.insert(run_key, sampled);
            }
        }
        self.rest = if changed { self.gap } else { (self.rest * 2).min(CALM) };
        (!none).then_some(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn sampled(done: u64) -> Vec<(String, Sampled)> {
        vec![("k".into(), Sampled { phase: None, units: (done, 9), lanes: Vec::new() })]
    }

    #[test]
    fn changes_are_told_at_frame_rate_rest_grows_while_nothing_moves_and_ends_with_the_builds() {
        let gap = Duration::from_millis(100);
        let mut look = Look::new(gap);
        let told = RefCell::new(Vec::new());
        let mut take = |alive, room: bool| {
            look.take(alive, |msg| {
                told.borrow_mut().push(format!("{msg:?}"));
                room
            })
        };
        assert_eq!((take(sampled(1), true), take(sampled(2), true)), (Some(gap), Some(gap)));
        assert_eq!(told.borrow().len(), 2);
        let rests: Vec<Option<Duration>> = (0..5).map(|_| take(sampled(2), true)).collect();
        assert_eq!(rests, [200, 400, 500, 500, 500].map(|ms| Some(Duration::from_millis(ms))));
        assert_eq!(told.borrow().len(), 2);
        // What found no room is told again.
        assert_eq!(take(sampled(3), false), Some(gap));
        take(sampled(3), true);
        assert_eq!(told.borrow().len(), 4);
        assert_eq!(take(Vec::new(), true), None);
    }
}
