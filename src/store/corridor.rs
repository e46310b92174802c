//! The evidence corridor: every ref that an intent or a profile carries passes here before anything
//! is read through it (O145 to O147, pitfall 44). Order: actor, form, run scope, containment and
//! existence; a denial always blocks.

use super::{ErrorKind, Ref, Store, StoreError, read};
use crate::contract::ReasonCode;

/// Who resolves refs, and for which run.
#[derive(Debug)]
pub struct Corridor<'s> {
    /// The store that the refs point into.
    pub store: &'s dyn Store,
    /// The acting identity.
    pub actor: &'s str,
    /// Identities that may resolve protected refs.
    pub allowed: &'s [String],
    /// The run that every ref must belong to.
    pub platform_run_id: &'s str,
    /// Absolute root, so that an absolute path below it can be taken as relative.
    pub root: Option<&'s std::path::Path>,
}

/// The outcome of one resolution, for the audit.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The ref as it was given.
    pub given: String,
    /// What it was for.
    pub purpose: &'static str,
    /// Why it was denied, if it was.
    pub denied: Option<(ReasonCode, String)>,
}

impl Corridor<'_> {
    /// Resolves and reads a protected ref.
    ///
    /// # Errors
    /// `REF_ACCESS_DENIED`, `REF_INVALID`, `REF_SCOPE_MISMATCH`, `REF_NOT_FOUND`, `LIMIT_EXCEEDED`,
    /// `STORE_IO`, with a message that names the ref.
    pub fn read(&self, given: &str, purpose: &'static str, limit: u64) -> Result<(Ref, Vec<u8>), Resolution> {
        let denied = |code: ReasonCode, message: String| Resolution { given: given.to_owned(), purpose, denied: Some((code, message)) };
        let at = self.resolve(given, purpose)?;
        let bytes = read(self.store, &at, limit).map_err(|e: StoreError| denied(e.code(), e.to_string()))?;
        Ok((at, bytes))
    }

    /// Resolves a protected ref without reading it.
    ///
    /// # Errors
    /// As [`Corridor::read`].
    pub fn resolve(&self, given: &str, purpose: &'static str) -> Result<Ref, Resolution> {
        let denied = |code: ReasonCode, message: String| Resolution { given: given.to_owned(), purpose, denied: Some((code, message)) };
        if !self.allowed.iter().any(|a| a == self.actor) {
            return Err(denied(ReasonCode::RefAccessDenied, format!("{} is not among access.allowed_actors", self.actor)));
        }
        let relative =
            self.root.and_then(|root| std::path::Path::new(given).strip_prefix(root).ok()).and_then(|p| p.to_str()).unwrap_or(given);
        let at = Ref::parse(relative).map_err(|e| denied(ReasonCode::RefInvalid, e.to_string()))?;
        if at.first() != self.platform_run_id {
            return Err(denied(
                ReasonCode::RefScopeMismatch,
                format!("{given} does not lie below {}, the run of the intent", self.platform_run_id),
            ));
        }
        match self.store.size(&at) {
            Ok(Some(_)) => Ok(at),
            Ok(None) => Err(denied(ReasonCode::RefNotFound, format!("{given}: nothing is there"))),
            Err(e) if e.kind == ErrorKind::Denied => Err(denied(ReasonCode::RefAccessDenied, e.to_string())),
            Err(e) => Err(denied(e.code(), e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::LocalStore;
    use super::*;

    #[test]
    fn denials_name_their_reason_and_always_block() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("R/sr")).unwrap();
        std::fs::write(dir.path().join("R/sr/f.json"), b"{}").unwrap();
        std::fs::write(dir.path().join("secret.json"), b"{}").unwrap();
        let store = LocalStore::open(dir.path()).unwrap();
        let allowed = ["me".to_owned()];
        let corridor = |actor| Corridor { store: &store, actor, allowed: &allowed, platform_run_id: "R", root: Some(store.root()) };
        let code = |actor, given: &str| corridor(actor).read(given, "run facts", 10).map(|_| ()).map_err(|r| r.denied.unwrap().0);
        assert_eq!(code("me", "R/sr/f.json"), Ok(()));
        let absolute = store.root().join("R/sr/f.json");
        assert_eq!(code("me", absolute.to_str().unwrap()), Ok(()));
        assert_eq!(code("you", "R/sr/f.json"), Err(ReasonCode::RefAccessDenied));
        assert_eq!(code("me", "R/../secret.json"), Err(ReasonCode::RefInvalid));
        assert_eq!(code("me", "secret.json"), Err(ReasonCode::RefScopeMismatch));
        assert_eq!(code("me", "x/R/f.json"), Err(ReasonCode::RefScopeMismatch));
        assert_eq!(code("me", "R/none.json"), Err(ReasonCode::RefNotFound));
        assert_eq!(code("me", "R/sr"), Err(ReasonCode::RefNotFound));
    }
}
