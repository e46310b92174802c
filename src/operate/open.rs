//! Opening a configured object store, with what to tell a user where that cannot be done.

use crate::config::Config;
use crate::contract::ReasonCode;
use crate::store::{ErrorKind, LocalStore};

/// Why the store cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct OpenError {
    /// `STORE_UNSUPPORTED`, `WORKSPACE_INVALID` (a missing root: a store is an input), or the store's own.
    pub code: ReasonCode,
    /// What was found.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// Opens the object store of a configuration.
///
/// # Errors
/// See [`OpenError::code`].
pub fn store(config: &Config) -> Result<LocalStore, OpenError> {
    let root = config.text("paths", "object_store");
    if root.contains("://") {
        let code = ReasonCode::StoreUnsupported;
        let message = format!("object store {root}: only a local directory is supported");
        return Err(OpenError { code, message, hint: code.info().remedy.into() });
    }
    LocalStore::open(&config.path("object_store")).map_err(|e| match e.kind {
        ErrorKind::NotFound => OpenError {
            code: ReasonCode::WorkspaceInvalid,
            message: format!("{e}; this is no workspace"),
            hint: "name one with --workspace DIR, make one with `ofs init DIR --from WORKSPACE`, or try `ofs demo clean --headless`".into(),
        },
        _ => OpenError { code: e.code(), message: e.to_string(), hint: e.code().info().remedy.into() },
    })
}
