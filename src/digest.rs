//! Digests of bytes and of canonical JSON, and their spelling in hex. Names of things are made of these in
//! `identity`.

pub mod many;
pub mod pieces;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::json::canonical;

/// BLAKE3 hex of canonical JSON.
pub fn digest(value: &Value) -> String {
    blake3::hash(canonical(value).as_bytes()).to_hex().to_string()
}

/// BLAKE3 hex of canonical `{"payload":…,"recipe":…}`.
pub fn recipe_digest(recipe: &str, payload: &Value) -> String {
    digest(&json!({"recipe": recipe, "payload": payload}))
}

/// SHA-256 hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    push_hex(bytes, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends lower-case hex.
pub fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    // Without a table, so that the digits of many bytes are made at once.
    let digit = |nibble: u8| nibble + if nibble < 10 { b'0' } else { b'a' - 10 };
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    // As arrays: copied as slices, each pair would be a call.
    for (pair, byte) in out.get_mut(start..).unwrap_or_default().as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
}

/// 32 bytes from 64 hex digits.
pub fn unhex32(text: &str) -> Option<[u8; 32]> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    // What is no digit is remembered and told at the end, so that no byte waits for the one before it.
    let value = |digit: u8| match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => u8::MAX,
    };
    let mut out = [0u8; 32];
    let mut seen = 0;
    for (slot, [high, low]) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
        let (high, low) = (value(*high), value(*low));
        seen |= high | low;
        *slot = high << 4 | low & 15;
    }
    (seen < 16).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_goes_both_ways_and_what_is_none_is_refused() {
        let bytes: [u8; 32] = std::array::from_fn(|at| (at * 37 + 250) as u8);
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((hex(&bytes), unhex32(&text), unhex32(&text.to_uppercase())), (text.clone(), Some(bytes), Some(bytes)));
        for wrong in ["g", "/", ":", "@", "`", "G", "\u{e9}"] {
            let mut text = text.clone();
            text.replace_range(40..40 + wrong.len(), wrong);
            assert_eq!(unhex32(&text), None, "{wrong}");
        }
        assert_eq!(unhex32(&text[1..]), None);
    }
}
