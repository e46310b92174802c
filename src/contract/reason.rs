//! Reason codes. `contracts/reasons.toml` is their single source; the enum is made from it at build
//! time, so a code that is not documented there does not compile.

use std::fmt;

use serde::{Serialize, Serializer};

include!(concat!(env!("OUT_DIR"), "/reasons.rs"));

/// What the file says of one code.
#[derive(Debug)]
pub struct Reason {
    /// The code.
    pub code: ReasonCode,
    /// Its stable name.
    pub name: &'static str,
    /// The phase (1 to 10) whose gate raises it.
    pub phase: u8,
    /// refusal, failure, pending, conflict, usage or event.
    pub kind: &'static str,
    /// End class of a run that ends with it, or empty (O034).
    pub end_class: &'static str,
    /// Whether a new attempt of the same request can help.
    pub retry: bool,
    /// Exit code.
    pub exit: u8,
    /// What it means.
    pub meaning: &'static str,
    /// What to do next.
    pub remedy: &'static str,
    /// Not empty: why no user and no environment can cause it.
    pub internal: &'static str,
}

impl ReasonCode {
    /// What the file says of this code.
    pub fn info(self) -> &'static Reason {
        // The enum and the table come from one loop, so the position is the variant's number.
        static FALLBACK: Reason = Reason {
            code: ReasonCode::InternalError,
            name: "INTERNAL_ERROR",
            phase: 8,
            kind: "failure",
            end_class: "FAILED",
            retry: false,
            exit: 1,
            meaning: "",
            remedy: "",
            internal: "",
        };
        REASONS.get(self as usize).unwrap_or(&FALLBACK)
    }

    /// The stable name, like `REPLAY_INCOMPLETE`.
    pub fn as_str(self) -> &'static str {
        self.info().name
    }

    /// The code with this name.
    pub fn parse(name: &str) -> Option<Self> {
        REASONS.iter().find(|r| r.name == name).map(|r| r.code)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ReasonCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_at_its_own_place_and_round_trips() {
        for (i, reason) in REASONS.iter().enumerate() {
            assert_eq!(reason.code as usize, i);
            assert_eq!(ReasonCode::parse(reason.name), Some(reason.code));
            assert_eq!(reason.code.info().name, reason.name);
            assert!((1..=10).contains(&reason.phase), "{}", reason.name);
            assert!(!reason.meaning.is_empty() && !reason.remedy.is_empty(), "{}", reason.name);
        }
    }
}
