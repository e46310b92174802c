//! BLAKE3 of many short texts at once.
//!
//! One text after the other, each of a few hundred bytes, is where a digest is slowest: every block waits
//! for the block before it. Blocks of *different* texts do not wait for each other, so up to sixteen texts
//! go through the vector units side by side. What comes out is the BLAKE3 of every text, nothing else;
//! a test holds every length against `blake3::hash`.
//!
//! The crate has this inside (it is how it hashes the chunks of a large text) but promises no interface
//! for it: its version is fixed in the manifest, and whoever raises it runs that test.

use blake3::platform::Platform;
use blake3::{BLOCK_LEN, CHUNK_LEN, IncrementCounter, OUT_LEN};

/// A BLAKE3 digest.
pub type Hash = [u8; OUT_LEN];

/// Most texts side by side.
const LANES: usize = 16;
/// Blocks of a text of one chunk.
const BLOCKS: usize = CHUNK_LEN / BLOCK_LEN;
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const ROOT: u8 = 8;
/// The initial chaining value (that of SHA-256).
const START: [u32; 8] = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Texts that wait for their digests; reuse one, so that its space is taken once.
#[derive(Debug, Default)]
pub struct Texts {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Texts by how many blocks of them go side by side: all of them, where the last one is a whole one.
    by_blocks: [Groups; BLOCKS + 1],
}

#[derive(Debug, Default)]
struct Groups {
    whole: Vec<usize>,
    /// Texts that have a last block of their own besides.
    ended: Vec<usize>,
}

impl Texts {
    /// Texts gathered before it is time to digest them: enough for the lanes, few enough for the cache.
    pub const BATCH: usize = 256;

    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many texts wait.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many bytes they have together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The text that is being written: append to it, then call [`Texts::end`].
    pub fn text(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ends the text that is being written; the next one begins.
    pub fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Ends the text that is being written after zeros up to a whole block: such texts go side by side to the end.
    /// It is for texts that tell by themselves where they end.
    pub fn end_of_blocks(&mut self) {
        let begun = self.ends.last().copied().unwrap_or_default();
        self.bytes.resize(begun + (self.bytes.len() - begun).next_multiple_of(BLOCK_LEN), 0);
        self.end();
    }

    fn get(&self, text: usize) -> &[u8] {
        let at = |end: Option<&usize>| end.copied().unwrap_or_default();
        let start = text.checked_sub(1).map_or(0, |before| at(self.ends.get(before)));
        self.bytes.get(start..at(self.ends.get(text))).unwrap_or_default()
    }

    /// Appends the digest of every text in order, and forgets the texts.
    pub fn digest_into(&mut self, out: &mut Vec<Hash>) {
        let first = out.len();
        out.resize(first + self.len(), [0; OUT_LEN]);
        let hashes = out.get_mut(first..).unwrap_or_default();
        for text in 0..self.len() {
            let (length, blocks) = (self.get(text).len(), self.get(text).len() / BLOCK_LEN);
            match self.by_blocks.get_mut(blocks) {
                Some(groups) if blocks > 0 && length == blocks * BLOCK_LEN => groups.whole.push(text),
                Some(groups) if length < CHUNK_LEN => groups.ended.push(text),
                _ => set(hashes, text, *blake3::hash(self.get(text)).as_bytes()),
            }
        }
        let platform = Platform::detect();
        let mut by_blocks = std::mem::take(&mut self.by_blocks);
        for (blocks, Groups { whole, ended }) in by_blocks.iter_mut().enumerate() {
            self.of_length(platform, blocks, whole, CHUNK_END | ROOT, hashes);
            self.of_length(platform, blocks, ended, 0, hashes);
            whole.clear();
            ended.clear();
        }
        self.by_blocks = by_blocks;
        self.bytes.clear();
        self.ends.clear();
    }

    /// The length of what goes side by side is part of a type, so each has an arm.
    fn of_length(&self, platform: Platform, blocks: usize, texts: &[usize], end: u8, hashes: &mut [Hash]) {
        match blocks {
            0 => texts.iter().for_each(|text| set(hashes, *text, last(platform, START, CHUNK_START, self.get(*text)))),
            1 => self.side_by_side::<64>(platform, texts, end, hashes),
            2 => self.side_by_side::<128>(platform, texts, end, hashes),
            3 => self.side_by_side::<192>(platform, texts, end, hashes),
            4 => self.side_by_side::<256>(platform, texts, end, hashes),
            5 => self.side_by_side::<320>(platform, texts, end, hashes),
            6 => self.side_by_side::<384>(platform, texts, end, hashes),
            7 => self.side_by_side::<448>(platform, texts, end, hashes),
            8 => self.side_by_side::<512>(platform, texts, end, hashes),
            9 => self.side_by_side::<576>(platform, texts, end, hashes),
            10 => self.side_by_side::<640>(platform, texts, end, hashes),
            11 => self.side_by_side::<704>(platform, texts, end, hashes),
            12 => self.side_by_side::<768>(platform, texts, end, hashes),
            13 => self.side_by_side::<832>(platform, texts, end, hashes),
            14 => self.side_by_side::<896>(platform, texts, end, hashes),
            15 => self.side_by_side::<960>(platform, texts, end, hashes),
            16 => self.side_by_side::<1_024>(platform, texts, end, hashes),
            _ => {}
        }
    }

    /// Digests texts from their first `N` bytes. `end` has the flags of a digest's end where that is all of them;
    /// without flags there is a last block to come.
    fn side_by_side<const N: usize>(&self, platform: Platform, texts: &[usize], end: u8, hashes: &mut [Hash]) {
        let mut heads: Vec<&[u8; N]> = Vec::with_capacity(LANES);
        let mut values = [0u8; LANES * OUT_LEN];
        for group in texts.chunks(LANES) {
            heads.clear();
            heads.extend(group.iter().filter_map(|text| self.get(*text).first_chunk::<N>()));
            platform.hash_many(&heads, &START, 0, IncrementCounter::No, 0, CHUNK_START, end, &mut values);
            for (text, value) in group.iter().zip(values.as_chunks::<OUT_LEN>().0) {
                if end == 0 {
                    let rest = self.get(*text).get(N..).unwrap_or_default();
                    set(hashes, *text, last(platform, words(value), 0, rest));
                } else {
                    set(hashes, *text, *value);
                }
            }
        }
    }
}

fn set(hashes: &mut [Hash], at: usize, hash: Hash) {
    if let Some(slot) = hashes.get_mut(at) {
        *slot = hash;
    }
}

fn words(bytes: &[u8]) -> [u32; 8] {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// The digest, from what comes before the last block and the last block.
fn last(platform: Platform, mut value: [u32; 8], flags: u8, rest: &[u8]) -> Hash {
    let mut block = [0u8; BLOCK_LEN];
    if let Some(slot) = block.get_mut(..rest.len()) {
        slot.copy_from_slice(rest);
    }
    platform.compress_in_place(&mut value, &block, rest.len() as u8, 0, flags | CHUNK_END | ROOT);
    let mut hash = [0; OUT_LEN];
    for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(value) {
        *bytes = word.to_le_bytes();
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_has_the_digest_that_it_has_alone() {
        let text = |length: usize| -> Vec<u8> { (0..length).map(|at| (at * 31 + length) as u8).collect() };
        // Lengths in an order that mixes the groups, some of them often enough to fill all lanes.
        let lengths: Vec<usize> = (0..2 * CHUNK_LEN + 3)
            .map(|n| n * 577 % (2 * CHUNK_LEN + 3))
            .chain([450; 40])
            .chain([65; 17])
            .chain([64; 19])
            .chain([1024; 18])
            .collect();
        let mut texts = Texts::new();
        let mut found = vec![[7; OUT_LEN]];
        for length in &lengths {
            texts.text().extend_from_slice(&text(*length));
            texts.end();
        }
        texts.digest_into(&mut found);
        let wanted: Vec<Hash> = lengths.iter().map(|length| *blake3::hash(&text(*length)).as_bytes()).collect();
        assert_eq!(found[0], [7; OUT_LEN]);
        assert!(found[1..] == wanted);
        // Used again, nothing of the texts before is left.
        texts.text().extend_from_slice(b"once more");
        texts.end();
        found.clear();
        texts.digest_into(&mut found);
        assert_eq!(found, [*blake3::hash(b"once more").as_bytes()]);
        assert!(texts.is_empty());
    }

    #[test]
    fn a_text_of_whole_blocks_ends_in_zeros() {
        for length in [0, 1, 63, 64, 65, 127, 128, 1_000, 1_024, 1_025] {
            let (mut texts, mut found) = (Texts::new(), Vec::new());
            let text = vec![7; length];
            for _ in 0..3 {
                texts.text().extend_from_slice(&text);
                texts.end_of_blocks();
            }
            texts.digest_into(&mut found);
            let padded = [text, vec![0; length.div_ceil(64) * 64 - length]].concat();
            assert_eq!(found, [*blake3::hash(&padded).as_bytes(); 3], "{length}");
        }
    }
}
