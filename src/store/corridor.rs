//! The evidence corridor: every ref that an intent, a profile, a job request or the configuration carries
//! passes here before anything is read through it (O145 to O147, pitfall 44). Checked are actor, form, run
//! scope, kind, containment after links are followed, and existence; whoever reads, reads what was checked.
//! Each resolution leaves exactly one record with the [`AuditSink`], whether it was granted or denied, and
//! before anything is handed out. A denial always blocks.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{ErrorKind, Ref, Store, contained, read};
use crate::contract::ReasonCode;

/// What a ref is resolved as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefType {
    /// The scenario runner's statement about a run.
    RunFacts,
    /// An output that the run facts locate and whose digest is checked.
    RunOutput,
    /// What a parity rebuild is held against.
    ParityAnchor,
    /// The manifest of a data set that is superseded.
    SupersededManifest,
    /// A queued request.
    JobRequest,
    /// The feature definitions, named by the configuration.
    FeatureAuthority,
    /// The ownership boundaries, named by the configuration.
    OwnershipBoundary,
    /// The label timeline, named by the configuration.
    LabelTimeline,
}

impl RefType {
    /// All of them.
    pub const ALL: [RefType; 8] = [
        RefType::RunFacts,
        RefType::RunOutput,
        RefType::ParityAnchor,
        RefType::SupersededManifest,
        RefType::JobRequest,
        RefType::FeatureAuthority,
        RefType::OwnershipBoundary,
        RefType::LabelTimeline,
    ];

    /// The stable name, like `RUN_FACTS`.
    pub fn as_str(self) -> &'static str {
        match self {
            RefType::RunFacts => "RUN_FACTS",
            RefType::RunOutput => "RUN_OUTPUT",
            RefType::ParityAnchor => "PARITY_ANCHOR",
            RefType::SupersededManifest => "SUPERSEDED_MANIFEST",
            RefType::JobRequest => "JOB_REQUEST",
            RefType::FeatureAuthority => "FEATURE_AUTHORITY",
            RefType::OwnershipBoundary => "OWNERSHIP_BOUNDARY",
            RefType::LabelTimeline => "LABEL_TIMELINE",
        }
    }

    /// The same in words.
    pub fn words(self) -> &'static str {
        match self {
            RefType::RunFacts => "run facts",
            RefType::RunOutput => "output of the run",
            RefType::ParityAnchor => "parity anchor",
            RefType::SupersededManifest => "superseded manifest",
            RefType::JobRequest => "job request",
            RefType::FeatureAuthority => "feature authority",
            RefType::OwnershipBoundary => "ownership boundaries",
            RefType::LabelTimeline => "label timeline",
        }
    }

    /// Whether evidence of this kind can lie at a ref: what this program writes proves nothing about what it
    /// was given, and a record of an event is no statement about a run.
    fn may_lie(self, at: &Ref) -> bool {
        let below = at.as_str().split_once('/').map_or("", |(_, below)| below);
        let within = |folders: &[&str]| folders.iter().any(|f| below.strip_prefix(f).is_some_and(|rest| rest.starts_with('/')));
        match self {
            RefType::RunFacts | RefType::ParityAnchor => !within(&["ofs", "archive"]),
            RefType::RunOutput => !within(&["ofs"]),
            RefType::SupersededManifest => within(&["ofs/manifests", "ofs/manifests_nontraining"]) && below.ends_with(".json"),
            RefType::JobRequest => within(&["ofs/job_requests"]),
            // Files of the workspace, never of the store.
            RefType::FeatureAuthority | RefType::OwnershipBoundary | RefType::LabelTimeline => false,
        }
    }
}

impl fmt::Display for RefType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One resolution, as the audit keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The acting identity.
    pub actor: String,
    /// As what the ref was resolved.
    pub ref_type: RefType,
    /// What for.
    pub purpose: &'static str,
    /// The ref as it was given.
    pub given: String,
    /// Where it leads, after links were followed; nothing where that is not known or nothing is there.
    pub resolved: Option<String>,
    /// Why it was denied, if it was.
    pub denied: Option<(ReasonCode, String)>,
}

impl Resolution {
    /// `GRANTED` or `DENIED`.
    pub fn decision(&self) -> &'static str {
        if self.denied.is_some() { "DENIED" } else { "GRANTED" }
    }
}

/// Keeps one record of each resolution.
pub trait AuditSink: Send + Sync + fmt::Debug {
    /// Records a resolution; where that fails nothing is handed out.
    ///
    /// # Errors
    /// Code and message of what keeps the record from being made.
    fn record(&self, resolution: &Resolution) -> Result<(), (ReasonCode, String)>;
}

/// Records nothing: for questions that change nothing, like `ofs plan`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unrecorded;

impl AuditSink for Unrecorded {
    fn record(&self, _: &Resolution) -> Result<(), (ReasonCode, String)> {
        Ok(())
    }
}

/// Who resolves refs, for which run, and who keeps the record.
#[derive(Debug)]
pub struct Corridor<'s> {
    /// The store that refs point into.
    pub store: &'s dyn Store,
    /// Its absolute root, so that an absolute path below it can be taken as relative.
    pub root: Option<&'s Path>,
    /// The workspace, within which relative paths of the configuration lie.
    pub workspace: &'s Path,
    /// The acting identity.
    pub actor: &'s str,
    /// Identities that may resolve protected refs.
    pub allowed: Vec<String>,
    /// The run that every ref into the store must belong to.
    pub platform_run_id: &'s str,
    /// Where each resolution goes on record.
    pub audit: &'s dyn AuditSink,
}

/// Why a resolution is denied, in code and words.
type Denied = (ReasonCode, String);

impl Corridor<'_> {
    /// Resolves and reads a protected ref of at most `limit` bytes.
    ///
    /// # Errors
    /// The resolution with its denial: `REF_ACCESS_DENIED`, `REF_INVALID`, `REF_SCOPE_MISMATCH`,
    /// `REF_TYPE_NOT_ALLOWED`, `REF_NOT_FOUND`, `LIMIT_EXCEEDED`, `STORE_IO`, or what the audit says.
    pub fn read(&self, ref_type: RefType, given: &str, purpose: &'static str, limit: u64) -> Result<(Ref, Vec<u8>), Box<Resolution>> {
        let judged = self.allowed(ref_type).and_then(|()| self.locate(ref_type, given)).and_then(|at| {
            let at = at.ok_or_else(|| not_found(given))?;
            let bytes = read(self.store, &at, limit).map_err(|e| (e.code(), e.to_string()))?;
            Ok((at, bytes))
        });
        self.settle(ref_type, given, purpose, judged, |(at, _)| Some(at.to_string()))
    }

    /// Resolves a protected ref without reading it: the first of `places` where something lies, or nothing
    /// where `given` names what need not be there.
    ///
    /// # Errors
    /// As of [`Corridor::read`].
    pub fn find(&self, ref_type: RefType, given: &str, purpose: &'static str, places: &[String]) -> Result<Option<Ref>, Box<Resolution>> {
        let judged = self.allowed(ref_type).and_then(|()| self.first(ref_type, places));
        self.settle(ref_type, given, purpose, judged, |at| at.as_ref().map(Ref::to_string))
    }

    /// [`Corridor::find`] of what must be there.
    ///
    /// # Errors
    /// As of [`Corridor::read`].
    pub fn resolve(&self, ref_type: RefType, given: &str, purpose: &'static str, places: &[String]) -> Result<Ref, Box<Resolution>> {
        let found = self.allowed(ref_type).and_then(|()| self.first(ref_type, places));
        let judged = found.and_then(|at| at.ok_or_else(|| not_found(given)));
        self.settle(ref_type, given, purpose, judged, |at| Some(at.to_string()))
    }

    /// Resolves a file or folder that the configuration names: a relative path must stay in the workspace, an
    /// absolute one is a root that whoever configures has chosen, and no link may lead out of its folder.
    /// Nothing comes back where nothing is there.
    ///
    /// # Errors
    /// `REF_ACCESS_DENIED`, `REF_INVALID`, `SOURCE_IO`, or what the audit says.
    pub fn file(&self, ref_type: RefType, given: &str, purpose: &'static str) -> Result<Option<PathBuf>, Box<Resolution>> {
        let judged = self.allowed(ref_type).and_then(|()| self.within_workspace(given));
        self.settle(ref_type, given, purpose, judged, |at| at.as_ref().map(|path| path.display().to_string()))
    }

    fn allowed(&self, ref_type: RefType) -> Result<(), Denied> {
        if self.allowed.iter().any(|a| a == self.actor) {
            return Ok(());
        }
        let message = format!("{} is not among access.allowed_actors and may not read the {}", self.actor, ref_type.words());
        Err((ReasonCode::RefAccessDenied, message))
    }

    fn first(&self, ref_type: RefType, places: &[String]) -> Result<Option<Ref>, Denied> {
        for place in places {
            if let Some(at) = self.locate(ref_type, place)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Where a ref leads, with links followed; scope and kind are judged before and after that.
    fn locate(&self, ref_type: RefType, given: &str) -> Result<Option<Ref>, Denied> {
        let relative = self.root.and_then(|root| Path::new(given).strip_prefix(root).ok()).and_then(Path::to_str).unwrap_or(given);
        let at = Ref::parse(relative).map_err(|e| (e.code(), e.to_string()))?;
        self.fits(ref_type, &at, "")?;
        match self.store.real(&at) {
            Ok(Some(real)) => self.fits(ref_type, &real, " through a link").map(|()| Some(real)),
            Ok(None) => Ok(None),
            Err(e) if e.kind == ErrorKind::Denied => Err((ReasonCode::RefAccessDenied, e.to_string())),
            Err(e) => Err((e.code(), e.to_string())),
        }
    }

    fn fits(&self, ref_type: RefType, at: &Ref, how: &str) -> Result<(), Denied> {
        if at.first() != self.platform_run_id {
            let message = format!("it leads{how} to {at}, which does not lie below {}, the run at hand", self.platform_run_id);
            return Err((ReasonCode::RefScopeMismatch, message));
        }
        if !ref_type.may_lie(at) {
            let message = format!("it leads{how} to {at}, where nothing can be taken for {}", ref_type.words());
            return Err((ReasonCode::RefTypeNotAllowed, message));
        }
        Ok(())
    }

    fn within_workspace(&self, given: &str) -> Result<Option<PathBuf>, Denied> {
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::PermissionDenied if e.get_ref().is_some() => (ReasonCode::RefAccessDenied, format!("{given}: {e}")),
            _ => (ReasonCode::SourceIo, format!("{given}: {e}")),
        };
        let path = Path::new(given);
        if given.is_empty() || path.components().any(|part| part == Component::ParentDir) {
            let message = format!("{given}: expected a path within the workspace or an absolute one, without parent steps");
            return Err((ReasonCode::RefInvalid, message));
        }
        let full = self.workspace.join(path);
        let root = if path.is_absolute() { full.parent().unwrap_or(&full) } else { self.workspace };
        match root.canonicalize() {
            Ok(root) => contained(&root, &full).map_err(io),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(io(e)),
        }
    }

    /// Puts the judgement on record, and hands out what was found only then.
    fn settle<T>(
        &self,
        ref_type: RefType,
        given: &str,
        purpose: &'static str,
        judged: Result<T, Denied>,
        resolved: impl FnOnce(&T) -> Option<String>,
    ) -> Result<T, Box<Resolution>> {
        let (actor, given) = (self.actor.to_owned(), given.to_owned());
        let mut resolution = Resolution { actor, ref_type, purpose, given, resolved: None, denied: None };
        match &judged {
            Ok(found) => resolution.resolved = resolved(found),
            Err(denied) => resolution.denied = Some(denied.clone()),
        }
        if let Err(unrecorded) = self.audit.record(&resolution) {
            return Err(Box::new(Resolution { denied: Some(unrecorded), ..resolution }));
        }
        judged.map_err(|_| Box::new(resolution))
    }
}

fn not_found(given: &str) -> Denied {
    (ReasonCode::RefNotFound, format!("{given}: nothing is there"))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::LocalStore;
    use super::*;

    #[derive(Debug, Default)]
    struct Kept(Mutex<Vec<Resolution>>);

    impl AuditSink for Kept {
        fn record(&self, resolution: &Resolution) -> Result<(), (ReasonCode, String)> {
            self.0.lock().unwrap().push(resolution.clone());
            Ok(())
        }
    }

    /// An audit that cannot be written.
    #[derive(Debug)]
    struct Full;

    impl AuditSink for Full {
        fn record(&self, _: &Resolution) -> Result<(), (ReasonCode, String)> {
            Err((ReasonCode::LedgerIo, "full".into()))
        }
    }

    struct House {
        _dir: tempfile::TempDir,
        workspace: PathBuf,
        store: LocalStore,
        kept: Kept,
    }

    fn house() -> House {
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("w");
        for (name, text) in [
            ("w/store/R/sr/f.json", "{}"),
            ("w/store/R/ofs/manifests/m.json", "{}"),
            ("w/store/R/archive/events/e.json", "{}"),
            ("w/store/S/sr/f.json", "{}"),
            ("w/store/secret.json", "{}"),
            ("w/authority/features.yaml", "x"),
            ("elsewhere/features.yaml", "x"),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let store = LocalStore::open(&workspace.join("store")).unwrap();
        House { _dir: dir, workspace, store, kept: Kept::default() }
    }

    impl House {
        fn corridor<'h>(&'h self, actor: &'h str, audit: &'h dyn AuditSink) -> Corridor<'h> {
            Corridor {
                store: &self.store,
                root: Some(self.store.root()),
                workspace: &self.workspace,
                actor,
                allowed: vec!["me".into()],
                platform_run_id: "R",
                audit,
            }
        }

        fn code(&self, actor: &str, given: &str) -> Result<(), ReasonCode> {
            let read = self.corridor(actor, &self.kept).read(RefType::RunFacts, given, "facts", 10);
            read.map(|_| ()).map_err(|r| r.denied.unwrap().0)
        }
    }

    #[cfg(unix)]
    fn link(to: &Path, at: PathBuf) {
        std::os::unix::fs::symlink(to, at).unwrap();
    }

    #[test]
    fn denials_name_their_reason_and_always_block() {
        let house = house();
        assert_eq!(house.code("me", "R/sr/f.json"), Ok(()));
        assert_eq!(house.code("me", house.store.root().join("R/sr/f.json").to_str().unwrap()), Ok(()));
        for (actor, given, code) in [
            ("you", "R/sr/f.json", ReasonCode::RefAccessDenied),
            ("me", "R/../secret.json", ReasonCode::RefInvalid),
            ("me", "/etc/hostname", ReasonCode::RefInvalid),
            ("me", "secret.json", ReasonCode::RefScopeMismatch),
            ("me", "x/R/f.json", ReasonCode::RefScopeMismatch),
            ("me", "R/ofs/manifests/m.json", ReasonCode::RefTypeNotAllowed),
            ("me", "R/archive/events/e.json", ReasonCode::RefTypeNotAllowed),
            ("me", "R/none.json", ReasonCode::RefNotFound),
            ("me", "R/sr", ReasonCode::RefNotFound),
        ] {
            assert_eq!(house.code(actor, given), Err(code), "{given}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_before_scope_and_kind_are_judged() {
        let house = house();
        let at = |name: &str| house.store.root().join("R/sr").join(name);
        link(&house.store.root().join("S/sr/f.json"), at("other-run.json"));
        link(&house.store.root().join("R/ofs/manifests/m.json"), at("own-product.json"));
        link(&house.workspace.join("authority/features.yaml"), at("outside.json"));
        link(&house.store.root().join("R/sr/f.json"), at("same-run.json"));
        assert_eq!(house.code("me", "R/sr/other-run.json"), Err(ReasonCode::RefScopeMismatch));
        assert_eq!(house.code("me", "R/sr/own-product.json"), Err(ReasonCode::RefTypeNotAllowed));
        assert_eq!(house.code("me", "R/sr/outside.json"), Err(ReasonCode::RefAccessDenied));
        assert_eq!(house.code("me", "R/sr/same-run.json"), Ok(()));
        assert_eq!(house.kept.0.lock().unwrap().last().unwrap().resolved.as_deref(), Some("R/sr/f.json"));
    }

    #[cfg(unix)]
    #[test]
    fn files_of_the_configuration_stay_in_the_workspace() {
        let house = house();
        link(&house.workspace.parent().unwrap().join("elsewhere/features.yaml"), house.workspace.join("authority/link.yaml"));
        let outside = house.workspace.parent().unwrap().join("elsewhere/features.yaml");
        let corridor = |actor| house.corridor(actor, &house.kept);
        let find = |actor, given: &str| {
            let found = corridor(actor).file(RefType::FeatureAuthority, given, "features");
            found.map(|path| path.is_some()).map_err(|r| r.denied.unwrap().0)
        };
        assert_eq!(find("me", "authority/features.yaml"), Ok(true));
        assert_eq!(find("me", outside.to_str().unwrap()), Ok(true));
        assert_eq!(find("me", "authority/none.yaml"), Ok(false));
        assert_eq!(find("me", "/no/such/folder/x.yaml"), Ok(false));
        assert_eq!(find("me", "../elsewhere/features.yaml"), Err(ReasonCode::RefInvalid));
        assert_eq!(find("me", "authority/link.yaml"), Err(ReasonCode::RefAccessDenied));
        assert_eq!(find("you", "authority/features.yaml"), Err(ReasonCode::RefAccessDenied));
    }

    #[test]
    fn every_resolution_leaves_one_record_and_none_is_granted_without_it() {
        let house = house();
        let told = |r: &Resolution| (r.ref_type, r.decision(), r.denied.as_ref().map(|(code, _)| *code));
        let kept = || house.kept.0.lock().unwrap().iter().map(told).collect::<Vec<_>>();
        let last = || kept().pop().unwrap();
        let corridor = house.corridor("me", &house.kept);
        for (n, given) in ["R/sr/f.json", "R/none.json", "S/sr/f.json"].into_iter().enumerate() {
            let granted = corridor.read(RefType::RunFacts, given, "facts", 10).is_ok();
            assert_eq!((kept().len(), last().1 == "GRANTED"), (n + 1, granted), "{given}");
        }
        let places = ["R/ofs/manifests/none.json".to_owned(), "R/ofs/manifests_nontraining/none.json".to_owned()];
        assert!(corridor.resolve(RefType::SupersededManifest, "none", "superseded", &places).is_err());
        assert_eq!(last(), (RefType::SupersededManifest, "DENIED", Some(ReasonCode::RefNotFound)));
        assert_eq!(corridor.find(RefType::RunOutput, "R/none", "digest", &["R/none".into()]), Ok(None));
        assert_eq!((last(), kept().len()), ((RefType::RunOutput, "GRANTED", None), 5));
        assert!(corridor.read(RefType::RunFacts, "R/sr/f.json", "facts", 1).is_err());
        assert_eq!(last(), (RefType::RunFacts, "DENIED", Some(ReasonCode::LimitExceeded)));
        let unrecorded = house.corridor("me", &Full).read(RefType::RunFacts, "R/sr/f.json", "facts", 10).unwrap_err();
        assert_eq!(unrecorded.denied.unwrap().0, ReasonCode::LedgerIo);
    }
}
