//! One budget of threads and memory for all builds of this process.
//!
//! A build that starts takes half of what is free, rounded up, so that there is always something left for
//! the next one and the whole is never passed; where too little is free it waits. What a build is given
//! shapes only how fast it is: no byte that it publishes depends on threads or memory (decision 2).

use crate::config::{Config, ConfigError};

/// The least memory that a build can work with, in MiB.
const LEAST_MEMORY: u64 = 64;

/// Threads and memory of one build, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Worker threads.
    pub threads: u64,
    /// Memory before it spills, in MiB.
    pub memory: u64,
}

impl Share {
    /// What the configuration gives to all builds together.
    pub fn of(config: &Config) -> Self {
        Share { threads: config.threads() as u64, memory: (config.memory() >> 20).max(LEAST_MEMORY) }
    }

    /// The configuration of a build with this share.
    ///
    /// # Errors
    /// None for a share that [`Pool::take`] gave.
    pub fn apply(self, config: &Config) -> Result<Config, ConfigError> {
        let mut config = config.clone();
        config.set_flag("limits", "threads", &self.threads.to_string())?;
        config.set_flag("limits", "memory", &format!("{}MiB", self.memory))?;
        Ok(config)
    }
}

/// What is free of the budget.
#[derive(Debug)]
pub struct Pool {
    free: Share,
}

impl Pool {
    /// A budget of which nothing is taken.
    pub fn new(all: Share) -> Self {
        Pool { free: all }
    }

    /// Half of what is free, if that is enough for a build.
    pub fn take(&mut self) -> Option<Share> {
        if self.free.threads == 0 || self.free.memory < LEAST_MEMORY {
            return None;
        }
        let share = Share { threads: self.free.threads.div_ceil(2), memory: (self.free.memory.div_ceil(2)).max(LEAST_MEMORY) };
        self.free.threads -= share.threads;
        self.free.memory -= share.memory;
        Some(share)
    }

    /// Gives a share back.
    pub fn give(&mut self, share: Share) {
        self.free.threads += share.threads;
        self.free.memory += share.memory;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn builds_share_by_halves_and_wait_when_nothing_is_free() {
        let mut pool = Pool::new(Share { threads: 4, memory: 2_048 });
        let shares: Vec<Share> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(shares, [Share { threads: 2, memory: 1_024 }, Share { threads: 1, memory: 512 }, Share { threads: 1, memory: 256 }]);
        pool.give(shares[0]);
        assert_eq!(pool.take(), Some(Share { threads: 1, memory: 640 }));
    }

    proptest! {
        #[test]
        fn the_whole_is_never_passed(threads in 1u64..64, memory in 64u64..65_536, steps in prop::collection::vec(any::<bool>(), 1..60)) {
            let mut pool = Pool::new(Share { threads, memory });
            let mut held: Vec<Share> = Vec::new();
            for take in steps {
                if take { held.extend(pool.take()) } else if let Some(share) = held.pop() { pool.give(share) }
                prop_assert!(held.iter().map(|s| s.threads).sum::<u64>() <= threads);
                prop_assert!(held.iter().map(|s| s.memory).sum::<u64>() <= memory);
                prop_assert!(held.iter().all(|s| s.threads >= 1 && s.memory >= LEAST_MEMORY));
                prop_assert!(!held.is_empty() || pool.take().map(|s| pool.give(s)).is_some(), "a lone build always finds room");
            }
        }
    }

    #[test]
    fn a_share_is_a_configuration_with_smaller_limits() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::load(Some(dir.path()), dir.path(), &Default::default()).unwrap();
        let shared = Share { threads: 1, memory: 70 }.apply(&config).unwrap();
        assert_eq!((shared.threads(), shared.memory()), (1, 70 << 20));
        assert_eq!(shared.run_config_digest("f", "o"), config.run_config_digest("f", "o"));
    }
}
