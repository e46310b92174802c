//! The object store: by-ref reads below one root, immutable conditional writes, a self-test.
//!
//! Nothing is ever overwritten outside staging. "Already there" is answered by reading back and
//! comparing: equal bytes are success, different bytes an immutability violation (pitfall 37).

mod corridor;
mod local;
mod overlay;

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;

pub use corridor::{AuditSink, Corridor, RefType, Resolution, Unrecorded};
pub use local::LocalStore;
pub(crate) use local::{contained, temporary};
pub use overlay::Overlay;

use sha2::{Digest as _, Sha256};

use crate::contract::ReasonCode;
use crate::digest::hex;

/// Where in the store: segments parted by `/`, none of them empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref(String);

/// Folders below `<run>/ofs/` that hold a latest state, made anew from the ledger whenever it is wanted.
const LATEST: [&str; 3] = ["health", "metrics", "reconciliation"];

/// Longest ref in bytes.
const MAX_REF: usize = 1024;

impl Ref {
    /// Reads a relative ref.
    ///
    /// # Errors
    /// `REF_INVALID` with the reason in words: empty, absolute, a URL, a dot segment, a control character.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let invalid = |what: &str| {
            StoreError::new(ErrorKind::Invalid, text, format!("{what}; expected a path below the store root, like run/folder/file.json"))
        };
        if text.is_empty() || text.len() > MAX_REF {
            return Err(invalid("empty or longer than 1024 bytes"));
        }
        if text.contains("://") {
            return Err(invalid("a URL"));
        }
        if text.starts_with('/') || text.contains('\\') {
            return Err(invalid("an absolute path or a backslash"));
        }
        if text.split('/').any(|s| s.is_empty() || s == "." || s == "..") {
            return Err(invalid("an empty, `.` or `..` segment"));
        }
        if text.chars().any(char::is_control) {
            return Err(invalid("a control character"));
        }
        Ok(Ref(text.to_owned()))
    }

    /// A ref made by this program of path-safe parts.
    pub fn of(parts: &[&str]) -> Self {
        Ref(parts.join("/"))
    }

    /// A ref below this one.
    pub fn join(&self, part: &str) -> Self {
        Ref(format!("{}/{part}", self.0))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first segment.
    pub fn first(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Whether this program may write here: only below `<run>/ofs/` (O166).
    pub fn writable(&self) -> bool {
        let mut segments = self.0.split('/');
        segments.next().is_some() && segments.next() == Some("ofs") && segments.next().is_some()
    }

    /// Whether a finished file may take the place of an earlier one here: in staging, and where the
    /// observers keep their latest state. What was published, proved or told is never replaced.
    pub fn replaceable(&self) -> bool {
        self.staging() || (self.writable() && self.0.split('/').nth(2).is_some_and(|f| LATEST.contains(&f)))
    }

    /// Whether this lies in staging, the only place where anything is removed.
    pub fn staging(&self) -> bool {
        self.writable() && self.0.split('/').nth(2) == Some("staging")
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What went wrong, by what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The ref is not one.
    Invalid,
    /// Nothing is there.
    NotFound,
    /// It is there, but outside the root (a link), or not to be written.
    Denied,
    /// It is larger than the limit for its kind.
    TooLarge,
    /// The environment failed: no space, unreadable, unreachable.
    Io,
}

/// An error of the store.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{place}: {message}")]
pub struct StoreError {
    /// What kind.
    pub kind: ErrorKind,
    /// The ref.
    pub place: String,
    /// What happened.
    pub message: String,
}

impl StoreError {
    /// An error at a ref.
    pub fn new(kind: ErrorKind, place: impl Into<String>, message: impl Into<String>) -> Self {
        StoreError { kind, place: place.into(), message: message.into() }
    }

    /// The reason code of this error where nothing more specific is known.
    pub fn code(&self) -> ReasonCode {
        match self.kind {
            ErrorKind::Invalid => ReasonCode::RefInvalid,
            ErrorKind::NotFound => ReasonCode::RefNotFound,
            ErrorKind::Denied => ReasonCode::RefAccessDenied,
            ErrorKind::TooLarge => ReasonCode::LimitExceeded,
            ErrorKind::Io => ReasonCode::StoreIo,
        }
    }
}

/// How a conditional create ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// This call made it.
    New,
    /// Something was there before.
    Exists,
}

/// A file being staged. Dropping it without `finish` leaves nothing that has a name.
pub trait StagedFile: Write + Send {
    /// Makes everything written durable under its staging ref.
    ///
    /// # Errors
    /// The environment's.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

/// The store's operations. Small on purpose: everything that a fault can hit is one of these.
pub trait Store: Send + Sync + fmt::Debug {
    /// Opens an object for reading.
    ///
    /// # Errors
    /// `NotFound`, `Denied` for a link that leaves the root, `Io`.
    fn open(&self, at: &Ref) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Size in bytes, or nothing where there is nothing.
    ///
    /// # Errors
    /// `Denied`, `Io`.
    fn size(&self, at: &Ref) -> Result<Option<u64>, StoreError>;

    /// The ref under which an object really lies, after links were followed; nothing where nothing is there.
    ///
    /// # Errors
    /// `Denied` for a link that leaves the root, `Io`.
    fn real(&self, at: &Ref) -> Result<Option<Ref>, StoreError> {
        Ok(self.size(at)?.map(|_| at.clone()))
    }

    /// All objects below a prefix with their sizes, sorted by ref; temporary names are left out.
    ///
    /// # Errors
    /// `Denied`, `Io`.
    fn list(&self, below: &Ref) -> Result<Vec<(Ref, u64)>, StoreError>;

    /// Creates an object, durably and only if nothing is there.
    ///
    /// # Errors
    /// `Denied` outside `<run>/ofs/`, `Io`.
    fn create(&self, at: &Ref, bytes: &[u8]) -> Result<Created, StoreError>;

    /// Starts a file in staging or among the observers' latest states, replacing an earlier one of that
    /// name when it is finished.
    ///
    /// # Errors
    /// `Denied` elsewhere, `Io`.
    fn stage(&self, at: &Ref) -> Result<Box<dyn StagedFile>, StoreError>;

    /// Gives a staged file its final name, only if nothing is there. The staged name stays.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `Io`.
    fn promote(&self, staged: &Ref, to: &Ref) -> Result<Created, StoreError>;

    /// Removes from staging; nothing there is not an error.
    ///
    /// # Errors
    /// `Denied` outside staging, `Io`.
    fn unstage(&self, at: &Ref) -> Result<(), StoreError>;
}

/// Reads a whole object of at most `limit` bytes.
///
/// # Errors
/// As [`Store::open`], and `TooLarge` naming the limit.
pub fn read(store: &dyn Store, at: &Ref, limit: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let mut reader = store.open(at)?.take(limit.saturating_add(1));
    reader.read_to_end(&mut bytes).map_err(|e| StoreError::new(ErrorKind::Io, at.as_str(), e.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(StoreError::new(ErrorKind::TooLarge, at.as_str(), format!("larger than the limit of {limit} bytes")));
    }
    Ok(bytes)
}

/// How writing an immutable object ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Immutable {
    /// Written now.
    New,
    /// Exactly these bytes were there.
    Same,
    /// Other bytes are there; they stay. Their BLAKE3.
    Different(String),
}

/// Creates an immutable object, or compares with what is there. An error of the create is settled by
/// reading back: an answer can be lost after the write has landed.
///
/// # Errors
/// As [`Store::create`] where the read-back finds nothing.
pub fn create_immutable(store: &dyn Store, at: &Ref, bytes: &[u8]) -> Result<Immutable, StoreError> {
    match store.create(at, bytes) {
        Ok(Created::New) => Ok(Immutable::New),
        Ok(Created::Exists) => compare(store, at, bytes),
        Err(error) => match read(store, at, bytes.len() as u64 + 1) {
            Ok(found) if found == bytes => Ok(Immutable::New),
            _ => Err(error),
        },
    }
}

/// Holds what stands somewhere against what was to stand there, whatever its size.
fn compare(store: &dyn Store, at: &Ref, bytes: &[u8]) -> Result<Immutable, StoreError> {
    let (mut hasher, mut rest) = (blake3::Hasher::new(), Some(bytes));
    pieces(store, at, &mut vec![0; PIECE], |piece| {
        hasher.update(piece);
        rest = rest.and_then(|rest| rest.strip_prefix(piece));
        ControlFlow::Continue(())
    })?;
    let same = rest.is_some_and(<[u8]>::is_empty);
    Ok(if same { Immutable::Same } else { Immutable::Different(hasher.finalize().to_hex().to_string()) })
}

/// Bytes read at once: many for a call, few enough to be digested while they are still in a core's cache.
pub const PIECE: usize = 256 << 10;

/// Hands over an object piece by piece through the caller's buffer, until its end or until `take` has enough; how many
/// bytes that were.
///
/// # Errors
/// As [`Store::open`].
pub fn pieces(store: &dyn Store, at: &Ref, buffer: &mut [u8], mut take: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<u64, StoreError> {
    through(store.open(at)?.as_mut(), buffer, &mut take).map_err(|e| StoreError::new(ErrorKind::Io, at.as_str(), e.to_string()))
}

fn through(reader: &mut dyn Read, buffer: &mut [u8], take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> io::Result<u64> {
    let mut size = 0;
    loop {
        let n = match reader.read(buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            n => n?,
        };
        size += n as u64;
        if n == 0 || take(buffer.get(..n).unwrap_or_default()).is_break() {
            return Ok(size);
        }
    }
}

/// BLAKE3 and size of an object, streamed.
///
/// # Errors
/// As [`Store::open`].
pub fn digest(store: &dyn Store, at: &Ref) -> Result<(String, u64), StoreError> {
    let mut hasher = blake3::Hasher::new();
    let size = pieces(store, at, &mut vec![0; PIECE], |piece| {
        hasher.update(piece);
        ControlFlow::Continue(())
    })?;
    Ok((hasher.finalize().to_hex().to_string(), size))
}

/// SHA-256 of an object, streamed.
///
/// # Errors
/// As [`Store::open`].
pub fn sha256(store: &dyn Store, at: &Ref) -> Result<String, StoreError> {
    let mut hasher = Sha256::new();
    pieces(store, at, &mut vec![0; PIECE], |piece| {
        hasher.update(piece);
        ControlFlow::Continue(())
    })?;
    Ok(hex(&hasher.finalize()))
}

/// Proves that a second create of one name is answered with "exists" and changes nothing. A store
/// that fails may not publish.
///
/// # Errors
/// The environment's; `Ok(false)` where the store does not keep the promise.
pub fn self_test(store: &dyn Store, run: &str, owner: &str, attempt: &str) -> Result<bool, StoreError> {
    // Under the attempt's own name: two owners testing at once must not fail each other.
    let at = Ref::of(&[run, "ofs", "staging", owner, &format!("self-test-{attempt}")]);
    store.unstage(&at)?;
    let first = store.create(&at, b"first")?;
    let second = store.create(&at, b"second");
    let found = read(store, &at, 64);
    store.unstage(&at)?;
    Ok(first == Created::New && second? == Created::Exists && found? == b"first")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Every other read of it is interrupted by a signal.
    struct Disturbed(&'static [u8], bool);

    impl Read for Disturbed {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 { Err(io::ErrorKind::Interrupted.into()) } else { self.0.read(buffer) }
        }
    }

    #[test]
    fn an_object_is_read_through_signals_until_its_end_or_until_it_is_enough() {
        let read = |enough: usize| {
            let mut seen = Vec::new();
            let size = through(&mut Disturbed(b"seven bytes", false), &mut [0; 4], &mut |piece| {
                seen.extend_from_slice(piece);
                if seen.len() >= enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            (size.unwrap(), String::from_utf8(seen).unwrap())
        };
        assert_eq!((read(100), read(5)), ((11, "seven bytes".into()), (8, "seven by".into())));
    }

    #[test]
    fn refs_cannot_leave_the_root() {
        for text in ["", "/etc/passwd", "a/../b", "../a", "a//b", "./a", "s3://b/k", "a\\b", "a\u{0}b", "a/", "https://x/y"] {
            assert_eq!(Ref::parse(text).unwrap_err().kind, ErrorKind::Invalid, "{text:?}");
        }
        assert!(Ref::parse("run/sr/facts.json").is_ok());
    }

    #[test]
    fn only_the_ofs_folder_of_a_run_is_writable() {
        assert!(Ref::of(&["R", "ofs", "manifests", "m.json"]).writable());
        for text in ["R/archive/x", "ofs/x/y", "R/ofs", "R/sr/ofs/x"] {
            assert!(!Ref::parse(text).unwrap().writable(), "{text}");
        }
    }

    #[test]
    fn only_staging_and_latest_states_are_ever_replaced() {
        for (text, replaceable) in [
            ("R/ofs/staging/k/part", true),
            ("R/ofs/metrics/last_metrics.json", true),
            ("R/ofs/health/last_health.json", true),
            ("R/ofs/reconciliation/2026-02-10.json", true),
            ("R/ofs/governance/facts/f.json", false),
            ("R/ofs/manifests/m.json", false),
            ("R/metrics/x/y", false),
        ] {
            assert_eq!(Ref::parse(text).unwrap().replaceable(), replaceable, "{text}");
        }
    }
}
