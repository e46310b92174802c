//! BLAKE3 of a text that comes in small pieces.

/// Gathers pieces until they are worth hashing: blocks of one piece wait for each other, thousands of bytes go
/// through the vector units side by side.
#[derive(Debug, Default)]
pub struct Pieces {
    hasher: blake3::Hasher,
    waiting: Vec<u8>,
}

impl Pieces {
    /// Most bytes that wait.
    const MOST: usize = 1 << 16;

    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.waiting.len() + bytes.len() > Self::MOST {
            self.hasher.update(&self.waiting);
            self.waiting.clear();
        }
        self.waiting.extend_from_slice(bytes);
    }

    /// The digest of everything so far.
    pub fn digest(&self) -> blake3::Hash {
        self.hasher.clone().update(&self.waiting).finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_have_the_digest_of_the_whole() {
        let mut pieces = Pieces::new();
        let mut whole = Vec::new();
        assert_eq!(pieces.digest(), blake3::hash(b""));
        for length in [0, 1, 40, Pieces::MOST - 41, 1, 7, Pieces::MOST, Pieces::MOST + 1, 3] {
            let piece: Vec<u8> = (0..length).map(|at| (at * 31 + length) as u8).collect();
            pieces.push(&piece);
            whole.extend(piece);
            assert_eq!(pieces.digest(), blake3::hash(&whole), "after {length} bytes more");
        }
    }
}
