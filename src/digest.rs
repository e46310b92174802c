//! Digests of bytes and of canonical JSON, and their spelling in hex. Names of things are made of these in
//! `identity`.

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
    let mut out = String::with_capacity(bytes.len() * 2);
    push_hex(bytes, &mut out);
    out
}

/// Appends lower-case hex.
pub fn push_hex(bytes: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0')));
        }
    }
}

/// 32 bytes from 64 hex digits.
pub fn unhex32(text: &str) -> Option<[u8; 32]> {
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let mut out = [0u8; 32];
    for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        let mut value = 0;
        for digit in pair {
            value = value << 4 | (*digit as char).to_digit(16)? as u8;
        }
        *slot = value;
    }
    Some(out)
}
