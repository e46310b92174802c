//! Canonical texts of values.

use serde_json::{Number, Value};

/// A JSON number with exactly this token (which must be a JSON number, else `null`).
pub fn number(token: &str) -> Value {
    serde_json::from_str::<Number>(token).map_or(Value::Null, Value::Number)
}

/// A string in ASCII, with its quotes.
pub(super) fn write_ascii(text: &str, out: &mut Vec<u8>) {
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
