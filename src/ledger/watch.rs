//! A place to stand at every operation of a ledger: what a test needs to make each of them go wrong.

use std::fmt;
use std::sync::Arc;

use super::{Ledger, LedgerError, Result};

/// What an operation does to the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It asks.
    Read,
    /// It is one write transaction.
    Write,
}

/// Stands around every operation, and may let it fail.
pub trait Watch: Send + Sync + fmt::Debug {
    /// Lets an operation happen, once at most, and answers for it.
    ///
    /// # Errors
    /// The operation's own, or another one: before it, or although it was done.
    fn around(&self, access: Access, operation: &mut dyn FnMut() -> Result<()>) -> Result<()>;
}

impl Ledger {
    /// The same ledger, watched.
    #[must_use]
    pub fn with_watch(self, watch: Arc<dyn Watch>) -> Self {
        Ledger { watch: Some(watch), ..self }
    }

    /// Lets a watch stand around an operation.
    pub(super) fn watched<T>(&self, access: Access, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(watch) = &self.watch else { return operation() };
        let (mut operation, mut out) = (Some(operation), None);
        watch.around(access, &mut || {
            if let Some(operation) = operation.take() {
                out = Some(operation()?);
            }
            Ok(())
        })?;
        out.ok_or_else(|| LedgerError::Misuse("an operation that was answered for and did not happen".into()))
    }
}
