//! What crosses a boundary: intents, run facts, the feature authority, records, assertions, reason
//! codes. Pure types that parse and validate; no I/O happens here.

pub mod anchor;
pub mod decimal;
pub mod embedded;
pub mod facts;
pub mod intent;
pub mod manifest;
pub mod offset;
pub mod ownership;
pub mod profile;
pub mod reason;

pub use offset::{Offset, OffsetKind};
pub use reason::ReasonCode;

/// One thing that is wrong with an input: where, what, and the code that its field decides (O010).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field, like `label_basis.label_asof_utc`.
    pub path: String,
    /// What was expected and what was found.
    pub message: String,
    /// The code that belongs to the field (never chosen by searching the message).
    pub code: ReasonCode,
}

impl Problem {
    /// A problem at `path`.
    pub fn new(code: ReasonCode, path: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { path: path.into(), message: message.into(), code }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// Whether a token may be a path segment of ours: letters, digits, `_ . : -`, not a dot name.
pub fn path_safe(token: &str) -> bool {
    !token.is_empty()
        && token.len() <= 249
        && token != "."
        && token != ".."
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
}
