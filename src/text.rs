//! Text from outside, made safe to show: a terminal must never obey data.

use std::borrow::Cow;
use std::fmt::Write;
use std::path::Path;

/// Whether a character could command a terminal, reorder a line, or hide in it.
fn hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// The text with control, bidi and zero-width characters written as `\u{hex}` (decision 10).
pub fn safe(text: &str) -> Cow<'_, str> {
    if !text.contains(hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hostile(c) {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// [`safe`] line by line: line feeds of our own multi-line messages stay.
pub fn safe_lines(text: &str) -> String {
    text.split('\n').map(|line| safe(line)).collect::<Vec<_>>().join("\n")
}

/// The text of a JSON document with the same characters escaped as JSON does: for any reader the same
/// document, for a terminal harmless.
pub fn safe_json(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| hostile(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if hostile(c) && c != '\n' {
            // They can only stand inside strings: between values there is nothing but spaces and line feeds.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A path as a `file:` URI, byte by byte: whatever the path is called, the URI names it and asks for nothing else.
pub fn file_uri(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut uri = String::from("file://");
    for byte in absolute.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri
}

/// The text cut to at most `limit` characters, with an ellipsis where something was cut.
pub fn clip(text: &str, limit: usize) -> Cow<'_, str> {
    match text.char_indices().nth(limit) {
        None => Cow::Borrowed(text),
        Some((at, _)) => Cow::Owned(format!("{}…", text.get(..at).unwrap_or_default())),
    }
}

/// The candidate nearest to `word` by edit distance, if any is near enough to be meant.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    candidates.into_iter().map(|c| (distance(word, c), c)).filter(|(d, c)| *d <= 2.max(c.len() / 3)).min().map(|(_, c)| c)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let next = (*cell + 1).min(left + 1).min(diagonal + usize::from(x != *y));
            diagonal = std::mem::replace(cell, next);
            left = next;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// A word as a shell takes it.
pub fn quoted(text: &str) -> String {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:@=+,".contains(c));
    if plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// Digits in groups of three.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_characters_are_spelled_out() {
        assert_eq!(safe("a\u{1b}[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(safe("x\u{202e}y\u{200b}z\u{9b}"), "x\\u{202e}y\\u{200b}z\\u{9b}");
        assert!(matches!(safe("plain é"), Cow::Borrowed(_)));
        assert_eq!(safe_lines("a\nb\r"), "a\nb\\u{d}");
    }

    #[test]
    fn a_document_stays_the_same_document() {
        let value = serde_json::json!({"a\u{202e}b": "x\u{1b}[2J\u{9b}\u{7f}\u{e0041}\n", "n": 1});
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let shown = safe_json(&pretty);
        assert!(!shown.contains(|c| hostile(c) && c != '\n'), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(matches!(safe_json("{\n  \"é\": 1\n}"), Cow::Borrowed(_)));
    }

    #[test]
    fn the_nearest_word_is_found_and_nonsense_is_not() {
        assert_eq!(nearest("memroy", ["memory", "threads"]), Some("memory"));
        assert_eq!(nearest("zzzzzz", ["memory", "threads"]), None);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(336_776), "336,776");
        assert_eq!(grouped(1_000), "1,000");
    }
}
