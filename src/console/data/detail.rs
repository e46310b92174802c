//! What there is to know about one run.

use crate::ledger::{Ledger, RunRow};
use crate::time::Instant;

/// What there is to know about one run.
#[derive(Debug, Clone)]
pub struct Detail {
    /// The run.
    pub run_key: String,
    /// Its record.
    pub row: RunRow,
}

impl Detail {
    /// Reads it.
    pub fn load(ledger: &Ledger, run_key: &str) -> Result<Self, String> {
        let row = ledger.run(run_key).map_err(|e| e.to_string())?.ok_or("the ledger holds no such run")?;
        Ok(Detail { run_key: run_key.to_owned(), row })
    }

    /// An incident summary.
    pub fn summary(&self, _now: Instant) -> String {
        self.run_key.clone()
    }
}
