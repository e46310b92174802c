//! Random choices that follow from a seed and from what they are made for, and from nothing else: not from the order in
//! which files are read, so that two copies of one record are changed alike.

/// A stream of choices.
pub(super) struct Draw(blake3::OutputReader);

impl Draw {
    /// The choices that a seed makes for something.
    pub(super) fn new(seed: u64, about: &[&str]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("ofs.noninterference.draw.v1");
        hasher.update(&seed.to_le_bytes());
        for text in about {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        Draw(hasher.finalize_xof())
    }

    fn next(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A number below `n`, or 0 where there is none.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        // The bias of the remainder is beyond notice for lists that fit a memory.
        self.next().checked_rem(n).unwrap_or(0)
    }

    /// One of a list.
    pub(super) fn pick<'t, T>(&mut self, list: &'t [T]) -> Option<&'t T> {
        list.get(self.below(list.len() as u64) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_follow_from_seed_and_subject() {
        let numbers =
            |seed, about: &[&str]| (0..8).map(|_| 0).scan(Draw::new(seed, about), |d, _: i32| Some(d.below(1_000))).collect::<Vec<_>>();
        assert_eq!(numbers(7, &["a", "b"]), numbers(7, &["a", "b"]));
        assert_ne!(numbers(7, &["a", "b"]), numbers(8, &["a", "b"]));
        assert_ne!(numbers(7, &["a", "b"]), numbers(7, &["ab"]));
        assert!(numbers(1, &["x"]).iter().all(|n| *n < 1_000));
        assert_eq!(Draw::new(1, &[]).pick::<u8>(&[]), None);
    }
}
