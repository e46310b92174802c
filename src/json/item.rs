//! Values of a scanned text, read where they stand.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::canonical::{number, write_ascii};
use super::{Kind, Node, Tape};

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
    pub(super) text: &'t str,
    pub(super) tape: &'t Tape,
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
