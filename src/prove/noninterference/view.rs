//! The answer: what the command line prints, and what `--json` holds.

use serde_json::{Value, json};

use crate::contract::ReasonCode;
use crate::store::Ref;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be.
    Holds,
    /// A row depends on what it may not know, or not on what it must.
    Interference,
    /// There is nothing to change.
    NotApplicable,
    /// The events of the world could not be replayed, so that nothing can be told from it.
    Uncheckable,
}

impl Verdict {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Holds => "HOLDS",
            Verdict::Interference => "INTERFERENCE",
            Verdict::NotApplicable => "NOT_APPLICABLE",
            Verdict::Uncheckable => "UNCHECKABLE",
        }
    }
}

/// One world and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is looked at, in two or three words; stable.
    pub what: &'static str,
    /// What was changed.
    pub world: &'static str,
    /// The event of the row that it is about.
    pub event_id: Option<String>,
    /// Records or assertions that were changed, removed or added.
    pub changed_inputs: u64,
    /// Rows that had to come out as they were published, and did.
    pub equal_rows: u64,
    /// Rows that came out otherwise.
    pub changed_rows: u64,
    /// Rows that depend on the change, by a reading of the rows alone; nothing where none may change.
    pub dependent_rows: Option<u64>,
    /// What it came to.
    pub verdict: Verdict,
    /// What was found, where that needs words: the first few rows.
    pub found: Vec<String>,
}

impl Check {
    pub(super) fn new(what: &'static str, world: &'static str) -> Self {
        Check {
            what,
            world,
            event_id: None,
            changed_inputs: 0,
            equal_rows: 0,
            changed_rows: 0,
            dependent_rows: None,
            verdict: Verdict::Holds,
            found: Vec::new(),
        }
    }

    pub(super) fn about(self, event_id: &str) -> Self {
        Check { event_id: Some(event_id.to_owned()), ..self }
    }

    pub(super) fn not_applicable(mut self, why: &str) -> Self {
        self.verdict = Verdict::NotApplicable;
        self.found.push(why.to_owned());
        self
    }

    pub(super) fn uncheckable(mut self, why: String) -> Self {
        self.verdict = Verdict::Uncheckable;
        self.found.push(why);
        self
    }

    /// Something that must not be.
    pub(super) fn interference(&mut self, found: String) {
        const TOLD: usize = 5;
        self.verdict = Verdict::Interference;
        if self.found.len() < TOLD {
            self.found.push(found);
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "what": self.what, "world": self.world, "event_id": self.event_id, "changed_inputs": self.changed_inputs, "equal_rows": self.equal_rows,
            "changed_rows": self.changed_rows, "dependent_rows": self.dependent_rows, "verdict": self.verdict.as_str(), "found": self.found,
        })
    }
}

/// The certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The data set.
    pub manifest_id: String,
    /// Its manifest.
    pub manifest_ref: Ref,
    /// What all choices follow from.
    pub seed: u64,
    /// The worlds.
    pub checks: Vec<Check>,
}

impl Certificate {
    /// Whether every world was built and no interference was found.
    pub fn holds(&self) -> bool {
        self.reason().is_none()
    }

    /// Why it does not hold: `INTERFERENCE_FOUND`, or `CERTIFICATE_INCOMPLETE` where a world could not be built.
    pub fn reason(&self) -> Option<ReasonCode> {
        let any = |verdict| self.checks.iter().any(|c| c.verdict == verdict);
        match (any(Verdict::Interference), any(Verdict::Uncheckable)) {
            (true, _) => Some(ReasonCode::InterferenceFound),
            (false, true) => Some(ReasonCode::CertificateIncomplete),
            (false, false) => None,
        }
    }

    /// `ofs.noninterference.v1`.
    pub fn to_json(&self) -> Value {
        json!({
            "schema_version": "ofs.noninterference.v1", "manifest_id": self.manifest_id, "manifest_ref": self.manifest_ref.as_str(), "holds": self.holds(),
            "reason": self.reason().map(|code| json!({"code": code, "message": code.info().meaning})), "seed": self.seed,
            "checks": self.checks.iter().map(Check::to_json).collect::<Vec<_>>(),
        })
    }
}
