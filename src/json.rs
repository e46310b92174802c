//! A strict JSON scanner over text that may be hostile.
//!
//! Records carry amounts whose *tokens* are part of a hash, so nothing here turns a number into a
//! machine number: `10`, `10.0` and `1e1` stay what was written. A [`Doc`] borrows the text and keeps
//! a flat list of nodes that is reused from record to record, so reading a record allocates nothing.
//! Duplicate keys, depth, and size are checked while scanning; whether a value's text already is in
//! canonical form is known afterwards for free, so that hashing seldom has to rewrite it.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Number, Value};

/// Deepest nesting that any input may have.
pub const MAX_DEPTH: usize = 64;
/// Largest single JSON text (an intent, one record) in bytes.
pub const MAX_TEXT: usize = 16 * 1024 * 1024;
/// Above this many keys an object's duplicate check sorts instead of comparing pairs.
const PAIRWISE_KEYS: usize = 12;

/// Why a text is not JSON that this program reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    /// What was wrong, in words.
    pub what: Cow<'static, str>,
    /// Byte offset in the text.
    pub at: usize,
}

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number token, as written.
    Number,
    /// A string.
    String,
    /// An array.
    Array,
    /// An object.
    Object,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Null => "null",
            Kind::Bool => "a boolean",
            Kind::Number => "a number",
            Kind::String => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
        })
    }
}

#[derive(Debug, Clone, Copy)]
struct Node {
    kind: Kind,
    /// Strings: whether the span holds a backslash.
    escaped: bool,
    /// Whether this subtree's text is in canonical (ASCII-escaped, key-sorted, compact) form.
    canonical: bool,
    start: u32,
    end: u32,
    /// Index of the node after this subtree.
    next: u32,
}

/// The nodes of the last parsed text; reuse one per thread.
#[derive(Debug, Default)]
pub struct Tape {
    nodes: Vec<Node>,
    keys: Vec<(u32, u32)>,
    duplicate: Option<u32>,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Scans one JSON text.
    ///
    /// # Errors
    /// Anything that is not exactly one JSON value, deeper than [`MAX_DEPTH`] or longer than
    /// [`MAX_TEXT`]. Duplicate keys are not an error here, see [`Doc::duplicate_key`]: a record with
    /// one still has an offset, and that offset must be accounted for.
    pub fn parse<'t>(&'t mut self, text: &'t [u8]) -> Result<Doc<'t>, JsonError> {
        if text.len() > MAX_TEXT {
            return Err(error(format!("longer than the limit of {MAX_TEXT} bytes"), 0));
        }
        let text = std::str::from_utf8(text).map_err(|e| error("not UTF-8", e.valid_up_to()))?;
        self.nodes.clear();
        self.keys.clear();
        self.duplicate = None;
        let mut scan = Scan {
            text: text.as_bytes(),
            at: 0,
            rough: None,
            nodes: &mut self.nodes,
            keys: &mut self.keys,
            duplicate: &mut self.duplicate,
        };
        scan.space();
        scan.value(0)?;
        scan.space();
        if scan.at != text.len() {
            return Err(error("text after the value", scan.at));
        }
        Ok(Doc { text, tape: self })
    }
}

fn error(what: impl Into<Cow<'static, str>>, at: usize) -> JsonError {
    JsonError { what: what.into(), at }
}

struct Scan<'s> {
    text: &'s [u8],
    at: usize,
    /// Position of the latest construct that canonical text would not hold.
    rough: Option<usize>,
    nodes: &'s mut Vec<Node>,
    keys: &'s mut Vec<(u32, u32)>,
    duplicate: &'s mut Option<u32>,
}

impl Scan<'_> {
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    fn space(&mut self) {
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

    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
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
fn plain(text: &[u8]) -> usize {
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

/// What stands between the quotes of a scanned string, as it is meant.
pub(crate) fn unescape(raw: &[u8]) -> Cow<'_, str> {
    let text = std::str::from_utf8(raw).unwrap_or_default();
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('b') => out.push('\u{8}'),
            Some('f') => out.push('\u{c}'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => {
                let mut unit = || -> u32 { (0..4).fold(0, |code, _| code * 16 + chars.next().and_then(|c| c.to_digit(16)).unwrap_or(0)) };
                let mut code = unit();
                if (0xd800..0xdc00).contains(&code) {
                    let low = {
                        chars.next();
                        chars.next();
                        let mut unit =
                            || -> u32 { (0..4).fold(0, |code, _| code * 16 + chars.next().and_then(|c| c.to_digit(16)).unwrap_or(0)) };
                        unit()
                    };
                    code = 0x10000 + ((code - 0xd800) << 10) + low.saturating_sub(0xdc00);
                }
                out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Cow::Owned(out)
}

/// One scanned text.
#[derive(Debug, Clone, Copy)]
pub struct Doc<'t> {
    text: &'t str,
    tape: &'t Tape,
}

/// A value inside a [`Doc`].
#[derive(Debug, Clone, Copy)]
pub struct Item<'t> {
    doc: Doc<'t>,
    at: usize,
}

impl<'t> Doc<'t> {
    /// The value that the text holds.
    pub fn root(self) -> Item<'t> {
        Item { doc: self, at: 0 }
    }

    /// The first key that an object of this text holds twice, if any.
    pub fn duplicate_key(self) -> Option<String> {
        let at = self.tape.duplicate?;
        let node = self.tape.nodes.iter().find(|n| n.start == at && n.kind == Kind::String)?;
        Some(unescape(self.text.as_bytes().get(node.start as usize..node.end as usize)?).into_owned())
    }
}

impl<'t> Item<'t> {
    fn node(self) -> Node {
        self.doc.tape.nodes.get(self.at).copied().unwrap_or(Node {
            kind: Kind::Null,
            escaped: false,
            canonical: false,
            start: 0,
            end: 0,
            next: u32::MAX,
        })
    }

    /// What kind of value this is.
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// The text of the value as written; for a string, what stands between its quotes.
    pub fn raw(self) -> &'t str {
        let node = self.node();
        self.doc.text.get(node.start as usize..node.end as usize).unwrap_or_default()
    }

    /// The string, where this is one.
    pub fn str(self) -> Option<Cow<'t, str>> {
        let node = self.node();
        if node.kind != Kind::String {
            return None;
        }
        Some(if node.escaped { unescape(self.raw().as_bytes()) } else { Cow::Borrowed(self.raw()) })
    }

    /// The number token, where this is a number.
    pub fn number(self) -> Option<&'t str> {
        (self.kind() == Kind::Number).then(|| self.raw())
    }

    /// The boolean, where this is one.
    pub fn bool(self) -> Option<bool> {
        (self.kind() == Kind::Bool).then(|| self.raw() == "true")
    }

    /// Whether this is `null`.
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The fields of an object in the order written; none for anything else.
    pub fn fields(self) -> impl Iterator<Item = (Cow<'t, str>, Item<'t>)> {
        self.pairs().map(|(key, value)| (key.str().unwrap_or_default(), value))
    }

    fn pairs(self) -> impl Iterator<Item = (Item<'t>, Item<'t>)> {
        let node = self.node();
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            if node.kind != Kind::Object || at >= node.next as usize {
                return None;
            }
            let key = Item { doc: self.doc, at };
            let value = Item { doc: self.doc, at: at + 1 };
            at = value.node().next as usize;
            Some((key, value))
        })
    }

    /// The elements of an array; none for anything else.
    pub fn elements(self) -> impl Iterator<Item = Item<'t>> {
        let node = self.node();
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            if node.kind != Kind::Array || at >= node.next as usize {
                return None;
            }
            let item = Item { doc: self.doc, at };
            at = item.node().next as usize;
            Some(item)
        })
    }

    /// The field `key` of an object.
    pub fn get(self, key: &str) -> Option<Item<'t>> {
        // Every record is asked for a dozen fields: keys are passed over by their length alone.
        let nodes = self.doc.tape.nodes.as_slice();
        let object = nodes.get(self.at).filter(|node| node.kind == Kind::Object)?;
        let mut at = self.at + 1;
        while at < object.next as usize {
            let (name, value) = (nodes.get(at)?, nodes.get(at + 1)?);
            let length = (name.end - name.start) as usize;
            if name.escaped || length == key.len() {
                let text = self.doc.text.as_bytes().get(name.start as usize..name.end as usize)?;
                if text == key.as_bytes() || name.escaped && unescape(text) == key {
                    return Some(Item { doc: self.doc, at: at + 1 });
                }
            }
            at = value.next as usize;
        }
        None
    }

    /// The fields of an object by these keys, each as [`Item::get`] finds it, in one pass. It costs the least
    /// where the keys are asked for in the order in which they are written.
    pub fn pick<const N: usize>(self, keys: [&str; N]) -> [Option<Item<'t>>; N] {
        let mut found = [None; N];
        let (nodes, text) = (self.doc.tape.nodes.as_slice(), self.doc.text.as_bytes());
        let Some(object) = nodes.get(self.at).filter(|node| node.kind == Kind::Object) else { return found };
        let (mut at, mut next) = (self.at + 1, 0);
        while at < object.next as usize {
            let (Some(name), Some(value)) = (nodes.get(at), nodes.get(at + 1)) else { break };
            let raw = text.get(name.start as usize..name.end as usize).unwrap_or_default();
            let is = |key: &&str| raw == key.as_bytes() || name.escaped && unescape(raw) == *key;
            let which = if keys.get(next).is_some_and(is) { Some(next) } else { keys.iter().position(is) };
            if let Some((which, slot)) = which.and_then(|which| Some((which, found.get_mut(which)?))) {
                slot.get_or_insert(Item { doc: self.doc, at: at + 1 });
                next = which + 1;
            }
            at = value.next as usize;
        }
        found
    }

    /// Canonical text of this value: keys sorted by code point, compact, ASCII with `\uXXXX` escapes,
    /// number tokens as written. `scratch` is used only where the text is not canonical already.
    pub fn canonical<'o>(self, scratch: &'o mut Vec<u8>) -> &'o [u8]
    where
        't: 'o,
    {
        let node = self.node();
        if node.canonical && node.kind != Kind::String {
            return self.raw().as_bytes();
        }
        scratch.clear();
        self.write_canonical(scratch);
        scratch
    }

    fn write_canonical(self, out: &mut Vec<u8>) {
        match self.kind() {
            Kind::Null | Kind::Bool | Kind::Number => out.extend_from_slice(self.raw().as_bytes()),
            Kind::String => write_ascii(&self.str().unwrap_or_default(), out),
            Kind::Array => {
                out.push(b'[');
                for (i, item) in self.elements().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.write_canonical(out);
                }
                out.push(b']');
            }
            Kind::Object => {
                let mut fields: Vec<_> = self.fields().collect();
                fields.sort_by(|a, b| a.0.cmp(&b.0));
                out.push(b'{');
                for (i, (key, value)) in fields.into_iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_ascii(&key, out);
                    out.push(b':');
                    value.write_canonical(out);
                }
                out.push(b'}');
            }
        }
    }

    /// An owned copy in which number tokens keep their digits (an exponent's letter becomes lower case).
    pub fn to_value(self) -> Value {
        match self.kind() {
            Kind::Null => Value::Null,
            Kind::Bool => Value::Bool(self.raw() == "true"),
            Kind::Number => number(self.raw()),
            Kind::String => Value::String(self.str().unwrap_or_default().into_owned()),
            Kind::Array => Value::Array(self.elements().map(Item::to_value).collect()),
            Kind::Object => Value::Object(self.fields().map(|(k, v)| (k.into_owned(), v.to_value())).collect::<Map<_, _>>()),
        }
    }
}

/// A JSON number with exactly this token (which must be a JSON number, else `null`).
pub fn number(token: &str) -> Value {
    serde_json::from_str::<Number>(token).map_or(Value::Null, Value::Number)
}

fn write_ascii(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let unit = |out: &mut Vec<u8>, code: u16| {
        out.extend_from_slice(b"\\u");
        out.extend([12, 8, 4, 0].map(|shift| HEX.get(usize::from(code >> shift & 15)).copied().unwrap_or(b'0')));
    };
    out.push(b'"');
    for c in text.chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            ' '..='~' => out.push(c as u8),
            _ => {
                let mut units = [0; 2];
                for code in c.encode_utf16(&mut units) {
                    unit(out, *code);
                }
            }
        }
    }
    out.push(b'"');
}

/// Canonical JSON of identity and evidence: keys sorted, compact, UTF-8 (`interface` 4).
///
/// `serde_json`'s map is ordered by key in this build; a golden test holds it to that.
pub fn canonical(value: &Value) -> String {
    value.to_string()
}

/// Canonical JSON of the other planes: keys sorted by code point, compact, ASCII with `\uXXXX` escapes,
/// number tokens as they are.
pub fn ascii(value: &Value) -> String {
    fn write(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::String(text) => write_ascii(text, out),
            Value::Array(list) => {
                out.push(b'[');
                for (i, item) in list.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write(item, out);
                }
                out.push(b']');
            }
            Value::Object(map) => {
                out.push(b'{');
                for (i, (key, item)) in map.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_ascii(key, out);
                    out.push(b':');
                    write(item, out);
                }
                out.push(b'}');
            }
            other => out.extend_from_slice(other.to_string().as_bytes()),
        }
    }
    let mut out = Vec::new();
    write(value, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn canon(text: &str) -> String {
        let mut tape = Tape::new();
        let doc = tape.parse(text.as_bytes()).unwrap();
        let mut scratch = Vec::new();
        String::from_utf8(doc.root().canonical(&mut scratch).to_vec()).unwrap()
    }

    #[test]
    fn canonical_text_sorts_keys_keeps_number_tokens_and_escapes_to_ascii() {
        assert_eq!(
            canon(r#"{"b": 10.0, "a": 1e1, "é": "\u00E9\/x", "a\u0000": [ 1 , -0 ]}"#),
            "{\"a\":1e1,\"a\\u0000\":[1,-0],\"b\":10.0,\"\\u00e9\":\"\\u00e9/x\"}"
        );
        assert_eq!(canon("\"\u{1f600}\u{7f}\""), "\"\\ud83d\\ude00\\u007f\"");
    }

    #[test]
    fn canonical_text_is_borrowed_and_rough_text_is_rewritten() {
        for (text, borrowed) in [
            (r#"{"a":1,"b":{"c":[]}}"#, true),
            (r#"{"a":"\n\u00e9"}"#, true),
            (r#"{"a":"\u000a"}"#, false),
            (r#"{"b":1,"a":1}"#, false),
            (r#"{"a": 1}"#, false),
            (r#"{"a":"\u00E9"}"#, false),
        ] {
            let mut tape = Tape::new();
            let doc = tape.parse(text.as_bytes()).unwrap();
            let mut scratch = Vec::new();
            let out = doc.root().canonical(&mut scratch).as_ptr();
            assert_eq!(std::ptr::eq(out, text.as_ptr()), borrowed, "{text}");
        }
    }

    #[test]
    fn hostile_text_is_refused_with_its_place() {
        for text in
            ["", "{", "[1,]", "{\"a\":1,}", "01", "1.", "+1", "nul", "\"\\x\"", "\"\\ud800\"", "\"\t\"", "1 2", "NaN", "{1:2}", "\"abc"]
        {
            assert!(Tape::new().parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Tape::new().parse(&[b'"', 0xff, b'"']).is_err());
        let deep = "[".repeat(MAX_DEPTH + 2);
        assert!(Tape::new().parse(deep.as_bytes()).unwrap_err().what.contains("limit"));
    }

    #[test]
    fn duplicate_keys_are_seen_at_any_depth_and_spelling() {
        for (text, key) in [
            (r#"{"a":1,"a":2}"#, Some("a")),
            (r#"{"x":[{"k":1,"j":2,"k":3}]}"#, Some("k")),
            (r#"{"a":1,"\u0061":2}"#, Some("a")),
            (r#"{"a":1,"b":{"a":1}}"#, None),
        ] {
            let mut tape = Tape::new();
            assert_eq!(tape.parse(text.as_bytes()).unwrap().duplicate_key().as_deref(), key, "{text}");
        }
    }

    #[test]
    fn fields_picked_together_are_those_found_one_by_one() {
        let keys = ["a", "b", "c", "é"];
        for text in [
            r#"{"a":1,"b":2,"c":3}"#,
            r#"{"c":1,"x":{"a":9},"a":2,"b":[3]}"#,
            r#"{"b":1,"b":2,"a":3,"b":4}"#,
            r#"{"\u0061":1,"a":2,"\u00e9":3}"#,
            "[1]",
            "{}",
        ] {
            let mut tape = Tape::new();
            let root = tape.parse(text.as_bytes()).unwrap().root();
            let raw = |item: Option<Item<'_>>| item.map(|item| item.raw().to_owned());
            assert_eq!(root.pick(keys).map(raw), keys.map(|key| raw(root.get(key))), "{text}");
        }
    }

    #[test]
    fn owned_values_keep_tokens_and_sort_keys() {
        let mut tape = Tape::new();
        let value = tape.parse(br#"{"z":1e+05,"a":10.00,"m":123456789012345678901234567890}"#).unwrap().root().to_value();
        assert_eq!(canonical(&value), r#"{"a":10.00,"m":123456789012345678901234567890,"z":1e+05}"#);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Tape::new().parse(&bytes);
        }

        #[test]
        fn plain_stretches_are_measured_exactly(bytes in proptest::collection::vec(prop_oneof![8 => 0x20u8..0x7f, 1 => any::<u8>()], 0..60)) {
            let naive = bytes.iter().position(|b| !matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)).unwrap_or(bytes.len());
            prop_assert_eq!(plain(&bytes), naive);
        }

        #[test]
        fn strings_survive(text in ".*") {
            let quoted = serde_json::to_string(&text).unwrap();
            let mut tape = Tape::new();
            let doc = tape.parse(quoted.as_bytes()).unwrap();
            prop_assert_eq!(doc.root().str().unwrap(), text.as_str());
            let ascii = canon(&quoted);
            prop_assert!(ascii.is_ascii());
            let back: String = serde_json::from_str(&ascii).unwrap();
            prop_assert_eq!(back, text);
        }
    }
}
