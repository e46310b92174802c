//! Random draws that are the same everywhere: bytes of a BLAKE3 stream, integers only.

use blake3::OutputReader;

/// Bytes taken from the stream at a time.
const BUFFER: usize = 8 << 10;

/// A stream of random numbers.
pub(super) struct Draw {
    stream: OutputReader,
    buffer: Box<[u8; BUFFER]>,
    at: usize,
}

impl Draw {
    /// The stream of this seed and name.
    pub(super) fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("ofs generate, random draws, v1");
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        Draw { stream: hasher.finalize_xof(), buffer: Box::new([0; BUFFER]), at: BUFFER }
    }

    /// The next bytes of the stream; `N` divides the buffer.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        if self.at + N > BUFFER {
            self.stream.fill(self.buffer.as_mut_slice());
            self.at = 0;
        }
        let bytes = self.buffer.get(self.at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N]);
        self.at += N;
        bytes
    }

    /// Any number.
    pub(super) fn any(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// A number below `end`, evenly (but for a part in 2^64).
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.any()) * u128::from(end);
        (wide >> 64) as u64
    }

    /// True so many times in ten thousand.
    pub(super) fn chance(&mut self, in_ten_thousand: u64) -> bool {
        self.below(10_000) < in_ten_thousand
    }

    /// One of a list.
    pub(super) fn one<T: Copy + Default>(&mut self, of: &[T]) -> T {
        of.get(self.below(of.len() as u64) as usize).copied().unwrap_or_default()
    }

    /// An id of 32 hex digits.
    pub(super) fn id(&mut self) -> [u8; 32] {
        let mut hex = [0; 32];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.take::<16>()) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
        hex
    }
}

/// The hex digit of a number below 16.
fn digit(number: u8) -> u8 {
    if number < 10 { b'0' + number } else { b'a' + number - 10 }
}

/// Ranks by Zipf's law with exponent 1, in whole numbers: rank `r` weighs 2^32 / r.
pub(super) struct Zipf {
    sums: Vec<u64>,
}

impl Zipf {
    /// So many ranks, at least one.
    pub(super) fn new(ranks: u64) -> Self {
        let mut sum = 0;
        let sums = (1..=ranks.max(1)).map(|rank| {
            sum += (1u64 << 32) / rank;
            sum
        });
        Zipf { sums: sums.collect() }
    }

    /// A rank, from 0.
    pub(super) fn draw(&self, draw: &mut Draw) -> u64 {
        let point = draw.below(self.sums.last().copied().unwrap_or(1));
        self.sums.partition_point(|sum| *sum <= point) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_and_name_and_repeat_otherwise() {
        let first = |seed, name: &str| Draw::new(seed, name).any();
        assert_eq!(first(1, "a"), first(1, "a"));
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
    }

    #[test]
    fn draws_keep_their_bounds_and_ranks_their_law() {
        let mut draw = Draw::new(3, "t");
        assert!((0..10_000).all(|_| draw.below(7) < 7));
        let zipf = Zipf::new(1_000);
        let mut counts = [0u32; 1_000];
        for _ in 0..100_000 {
            counts[usize::try_from(zipf.draw(&mut draw)).unwrap()] += 1;
        }
        // The first of a thousand ranks has 1/7.49 of the weight, the second half of that.
        assert!((12_900..13_800).contains(&counts[0]), "{}", counts[0]);
        assert!((6_400..7_000).contains(&counts[1]), "{}", counts[1]);
        assert!(counts.iter().filter(|c| **c > 0).count() > 900);
    }
}
