//! A strict JSON scanner over text that may be hostile.
//!
//! Records carry amounts whose *tokens* are part of a hash, so nothing here turns a number into a
//! machine number: `10`, `10.0` and `1e1` stay what was written. A [`Doc`] borrows the text and keeps
//! a flat list of nodes that is reused from record to record, so reading a record allocates nothing.
//! Duplicate keys, depth, and size are checked while scanning; whether a value's text already is in
//! canonical form is known afterwards for free, so that hashing seldom has to rewrite it.

mod canonical;
mod item;
mod scan;

use std::borrow::Cow;
use std::fmt;

pub use self::canonical::{ascii, canonical, number};
pub(crate) use self::item::unescape;
pub use self::item::{Doc, Item};
use self::scan::Scan;

/// Deepest nesting that any input may have.
pub const MAX_DEPTH: usize = 64;
/// Largest single JSON text (an intent, one record) in bytes.
pub const MAX_TEXT: usize = 16 * 1024 * 1024;

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
            prop_assert_eq!(scan::plain(&bytes), naive);
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
