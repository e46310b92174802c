//! One pass over a text: its nodes, whether they are in canonical form, and the first key that is there twice.

use std::borrow::Cow;

use super::item::unescape;
use super::{JsonError, Kind, MAX_DEPTH, Node, error};

/// Above this many keys an object's duplicate check sorts instead of comparing pairs.
const PAIRWISE_KEYS: usize = 12;

/// A text on its way onto a tape.
pub(super) struct Scan<'s> {
    pub(super) text: &'s [u8],
    pub(super) at: usize,
    /// Position of the latest construct that canonical text would not hold.
    pub(super) rough: Option<usize>,
    pub(super) nodes: &'s mut Vec<Node>,
    pub(super) keys: &'s mut Vec<(u32, u32)>,
    pub(super) duplicate: &'s mut Option<u32>,
}

impl Scan<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    pub(super) fn space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.rough = Some(self.at);
            self.at += 1;
        }
    }

    fn push(&mut self, kind: Kind) -> usize {
        self.nodes.push(Node { kind, escaped: false, canonical: true, start: self.at as u32, end: 0, next: 0 });
        self.nodes.len() - 1
    }

    fn close(&mut self, node: usize) {
        let (end, next, rough) = (self.at as u32, self.nodes.len() as u32, self.rough);
        if let Some(node) = self.nodes.get_mut(node) {
            node.end = end;
            node.next = next;
            node.canonical = rough.is_none_or(|at| (at as u32) < node.start);
        }
    }

    pub(super) fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth > MAX_DEPTH {
            return Err(error(format!("nested deeper than the limit of {MAX_DEPTH}"), self.at));
        }
        match self.peek() {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(|_| ()),
            b't' => self.word(b"true", Kind::Bool),
            b'f' => self.word(b"false", Kind::Bool),
            b'n' => self.word(b"null", Kind::Null),
            b'-' | b'0'..=b'9' => self.number(),
            _ => Err(error("expected a JSON value", self.at)),
        }
    }

    fn word(&mut self, word: &'static [u8], kind: Kind) -> Result<(), JsonError> {
        let node = self.push(kind);
        if !self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(error("expected a JSON value", self.at));
        }
        self.at += word.len();
        self.close(node);
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let from = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at == from { Err(error("expected a digit", from)) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let node = self.push(Kind::Number);
        if self.peek() == b'-' {
            self.at += 1;
        }
        if self.peek() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        self.close(node);
        Ok(())
    }

    fn string(&mut self) -> Result<usize, JsonError> {
        self.at += 1;
        let node = self.push(Kind::String);
        loop {
            self.at += plain(self.text.get(self.at..).unwrap_or_default());
            match self.peek() {
                b'"' => break,
                b'\\' => {
                    if let Some(n) = self.nodes.get_mut(node) {
                        n.escaped = true;
                    }
                    self.escape()?;
                }
                0x7f.. => {
                    self.rough = Some(self.at);
                    self.at += 1;
                }
                _ if self.at >= self.text.len() => return Err(error("a string without its end", self.at)),
                _ => return Err(error("a bare control character in a string", self.at)),
            }
        }
        self.close(node);
        self.at += 1;
        Ok(node)
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self.text.get(self.at..self.at + 4).ok_or_else(|| error("a cut \\u escape", self.at))?;
        let mut code = 0;
        for digit in digits {
            let value = (*digit as char).to_digit(16).ok_or_else(|| error("a \\u escape that is not hex", self.at))?;
            if digit.is_ascii_uppercase() {
                self.rough = Some(self.at);
            }
            code = code * 16 + value;
        }
        self.at += 4;
        Ok(code)
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 2;
        match self.text.get(start + 1) {
            Some(b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(()),
            Some(b'/') => {
                self.rough = Some(start);
                Ok(())
            }
            Some(b'u') => {
                let code = self.hex4()?;
                match code {
                    0xd800..=0xdbff => {
                        if self.text.get(self.at..self.at + 2) != Some(b"\\u") {
                            return Err(error("half of a surrogate pair", start));
                        }
                        self.at += 2;
                        if !(0xdc00..=0xdfff).contains(&self.hex4()?) {
                            return Err(error("half of a surrogate pair", start));
                        }
                    }
                    0xdc00..=0xdfff => return Err(error("half of a surrogate pair", start)),
                    // Canonical text writes these in a shorter way.
                    8 | 9 | 10 | 12 | 13 | 0x20..=0x7e => self.rough = Some(start),
                    _ => {}
                }
                Ok(())
            }
            _ => Err(error("an unknown escape", start)),
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        let node = self.push(Kind::Array);
        self.at += 1;
        self.space();
        if self.peek() != b']' {
            loop {
                self.value(depth + 1)?;
                self.space();
                match self.peek() {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return Err(error("expected `,` or `]`", self.at)),
                }
                self.space();
            }
        }
        self.at += 1;
        self.close(node);
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        let node = self.push(Kind::Object);
        let first_key = self.keys.len();
        let mut ordered = true;
        self.at += 1;
        self.space();
        if self.peek() != b'}' {
            loop {
                if self.peek() != b'"' {
                    return Err(error("expected a key", self.at));
                }
                let key = self.string()?;
                ordered &= self.key(key, first_key);
                self.space();
                if self.peek() != b':' {
                    return Err(error("expected `:`", self.at));
                }
                self.at += 1;
                self.space();
                self.value(depth + 1)?;
                self.space();
                match self.peek() {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return Err(error("expected `,` or `}`", self.at)),
                }
                self.space();
            }
        }
        self.at += 1;
        if !ordered {
            self.duplicates(first_key);
        }
        self.keys.truncate(first_key);
        self.close(node);
        Ok(())
    }

    /// Takes a key of the object whose keys begin at `first_key`; whether it comes after the one before it, as
    /// canonical text has them. Keys of which that holds cannot repeat.
    fn key(&mut self, key: usize, first_key: usize) -> bool {
        let Some(node) = self.nodes.get(key).copied() else { return false };
        let span = (node.start, node.end);
        let before = self.keys.get(first_key..).and_then(<[_]>::last);
        // Escapes do not sort like the characters they stand for, so such keys take the slow way.
        let ordered = !node.escaped && before.is_none_or(|before| less(self.bytes(*before), self.bytes(span)));
        if !ordered {
            self.rough = Some(node.start as usize);
        }
        self.keys.push(span);
        ordered
    }

    fn bytes(&self, span: (u32, u32)) -> &[u8] {
        self.text.get(span.0 as usize..span.1 as usize).unwrap_or_default()
    }

    fn duplicates(&mut self, first_key: usize) {
        let keys = self.keys.get(first_key..).unwrap_or_default();
        let escaped = keys.iter().any(|k| self.bytes(*k).contains(&b'\\'));
        let found = if keys.len() <= PAIRWISE_KEYS && !escaped {
            keys.iter()
                .enumerate()
                .find(|(i, key)| keys.iter().skip(i + 1).any(|other| self.bytes(*other) == self.bytes(**key)))
                .map(|(_, k)| k.0)
        } else {
            let mut all: Vec<(Cow<'_, str>, u32)> = keys.iter().map(|k| (unescape(self.bytes(*k)), k.0)).collect();
            all.sort();
            all.windows(2).find_map(|pair| match pair {
                [a, b] if a.0 == b.0 => Some(a.1),
                _ => None,
            })
        };
        if self.duplicate.is_none() {
            *self.duplicate = found;
        }
    }
}

/// Whether one key comes before another; mostly their first bytes tell.
fn less(a: &[u8], b: &[u8]) -> bool {
    match (a.first(), b.first()) {
        (Some(first), Some(second)) if first != second => first < second,
        _ => a < b,
    }
}

/// How many bytes from the start are neither quote, backslash, control, delete nor beyond ASCII; eight
/// at a time, since most of every record is inside strings.
pub(super) fn plain(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // The high bit of every byte that is zero. What is borrowed may mark a byte after such a one, never one before.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, rest) = text.as_chunks::<8>();
    for (count, bytes) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*bytes);
        let beyond = word | word.wrapping_add(ONES);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let special = (zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c)) | control | beyond) & HIGH;
        if special != 0 {
            return 8 * count + special.trailing_zeros() as usize / 8;
        }
    }
    let tail = rest.iter().position(|b| !matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    8 * words.len() + tail.unwrap_or(rest.len())
}
