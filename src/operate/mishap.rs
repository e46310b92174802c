//! The N-th operation of a store or of a ledger goes wrong: what a test needs to try every one of them.
//!
//! A debug build of the program takes such a mishap from the environment, so that the real binary can be
//! killed or stopped at any operation; a release build knows nothing of it.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;

use super::fault;
use crate::ledger::{Access, LedgerError, Watch};
use crate::store::{Created, ErrorKind, Ref, StagedFile, Store, StoreError};

/// Whose operations are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// The object store's.
    Store,
    /// The run ledger's.
    Ledger,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// It fails and did nothing.
    Error,
    /// It was done, but its answer is an error.
    LostAnswer,
    /// From here on everything fails, until another process begins.
    Outage,
    /// Half of what was to be written is, then it fails. Of a store, writes only.
    ShortWrite,
    /// No space is left. Of a store, writes only.
    NoSpace,
    /// Another process keeps the file locked. Of a ledger.
    Busy,
    /// The process dies before it.
    Kill,
    /// The process dies after it.
    KillAfter,
    /// The process is stopped before it, until somebody lets it go on.
    Stop,
}

impl Mishap {
    /// What can befall a store in one process.
    pub const OF_STORE: [Mishap; 7] =
        [Mishap::Error, Mishap::LostAnswer, Mishap::Outage, Mishap::ShortWrite, Mishap::NoSpace, Mishap::Kill, Mishap::KillAfter];
    /// What can befall a ledger in one process.
    pub const OF_LEDGER: [Mishap; 6] = [Mishap::Error, Mishap::LostAnswer, Mishap::Outage, Mishap::Busy, Mishap::Kill, Mishap::KillAfter];

    /// Whether the owner does not live on.
    pub fn deadly(self) -> bool {
        matches!(self, Mishap::Kill | Mishap::KillAfter)
    }

    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "error" => Mishap::Error,
            "lost-answer" => Mishap::LostAnswer,
            "outage" => Mishap::Outage,
            "short-write" => Mishap::ShortWrite,
            "no-space" => Mishap::NoSpace,
            "busy" => Mishap::Busy,
            "kill" => Mishap::Kill,
            "kill-after" => Mishap::KillAfter,
            "stop" => Mishap::Stop,
            _ => return None,
        })
    }

    fn words(self) -> &'static str {
        match self {
            Mishap::NoSpace => "No space left on device (an injected fault)",
            Mishap::Busy => "another process kept it locked (an injected fault)",
            _ => "an injected fault",
        }
    }
}

/// How a process dies of a mishap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    /// This thread unwinds to [`fault::until_killed`]; any other one only sees an error.
    Unwind(ThreadId),
    /// The process itself is killed, as nobody can catch.
    Signal,
}

/// A mishap that waits for its operation.
#[derive(Debug)]
pub struct Trap {
    site: Site,
    /// One kind of operation, like `create`; all, where there is none.
    only: Option<String>,
    mishap: Mishap,
    at: u64,
    seen: AtomicU64,
    death: Death,
}

impl Trap {
    /// For the `at`-th operation, from 1; a mishap that kills unwinds this thread.
    pub fn new(site: Site, mishap: Mishap, at: u64) -> Self {
        Trap { site, only: None, mishap, at, seen: AtomicU64::new(0), death: Death::Unwind(std::thread::current().id()) }
    }

    /// Reads `<mishap>@<site>[.<operation>]:<n>`, like `kill@store:17` or `stop@ledger.write:3`. A mishap
    /// that kills takes the process.
    pub fn parse(text: &str) -> Option<Self> {
        let (mishap, place) = text.split_once('@')?;
        let (place, at) = place.rsplit_once(':')?;
        let (site, only) = place.split_once('.').map_or((place, None), |(site, only)| (site, Some(only.to_owned())));
        let site = match site {
            "store" => Site::Store,
            "ledger" => Site::Ledger,
            _ => return None,
        };
        Some(Trap { site, only, mishap: Mishap::parse(mishap)?, at: at.parse().ok()?, seen: AtomicU64::new(0), death: Death::Signal })
    }

    /// Whether the operation came that this was waiting for.
    pub fn sprung(&self) -> bool {
        self.seen.load(Ordering::SeqCst) >= self.at
    }

    /// A store in which it waits.
    pub fn store(self: &Arc<Self>, inner: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(TrappedStore { inner, trap: self.clone() })
    }

    /// What befalls an operation, if it is the one.
    fn meets(&self, site: Site, operation: &str, writes: bool) -> Option<Mishap> {
        let meant = self.site == site && self.only.as_deref().is_none_or(|only| only == operation);
        if !meant || (site == Site::Store && !writes && matches!(self.mishap, Mishap::ShortWrite | Mishap::NoSpace)) {
            return None;
        }
        let number = self.seen.fetch_add(1, Ordering::SeqCst) + 1;
        (number == self.at || (self.mishap == Mishap::Outage && number > self.at)).then_some(self.mishap)
    }

    fn around<T, E>(
        &self,
        mishap: Option<Mishap>,
        broken: impl Fn(&'static str) -> E,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(mishap) = mishap else { return work() };
        let error = || Err(broken(mishap.words()));
        match mishap {
            Mishap::Error | Mishap::Outage | Mishap::ShortWrite | Mishap::NoSpace | Mishap::Busy => error(),
            Mishap::LostAnswer => work().and_then(|_| error()),
            Mishap::Kill => {
                self.die();
                error()
            }
            Mishap::KillAfter => {
                let _ = work();
                self.die();
                error()
            }
            Mishap::Stop => {
                signal(Signal::Stop);
                work()
            }
        }
    }

    fn die(&self) {
        match self.death {
            Death::Signal => signal(Signal::Kill),
            Death::Unwind(thread) if std::thread::current().id() == thread => fault::die(),
            Death::Unwind(_) => {}
        }
    }
}

enum Signal {
    Kill,
    Stop,
}

/// Signals this process.
#[cfg(unix)]
fn signal(signal: Signal) {
    use rustix::process::{Signal as S, getpid, kill_process};
    let signal = match signal {
        Signal::Kill => S::KILL,
        Signal::Stop => S::STOP,
    };
    // A process may always signal itself.
    let _ = kill_process(getpid(), signal);
}

#[cfg(not(unix))]
fn signal(signal: Signal) {
    if let Signal::Kill = signal {
        std::process::abort();
    }
}

impl Watch for Trap {
    fn around(&self, access: Access, operation: &mut dyn FnMut() -> Result<(), LedgerError>) -> Result<(), LedgerError> {
        let (name, writes) = match access {
            Access::Read => ("read", false),
            Access::Write => ("write", true),
        };
        self.around(self.meets(Site::Ledger, name, writes), |words| LedgerError::Io(words.into()), operation)
    }
}

struct TrappedStore {
    inner: Arc<dyn Store>,
    trap: Arc<Trap>,
}

impl fmt::Debug for TrappedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrappedStore").field("trap", &self.trap).finish_non_exhaustive()
    }
}

impl TrappedStore {
    fn around<T>(&self, name: &str, writes: bool, at: &Ref, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let broken = |words: &str| StoreError::new(ErrorKind::Io, at.as_str(), words);
        self.trap.around(self.trap.meets(Site::Store, name, writes), broken, work)
    }
}

impl Store for TrappedStore {
    fn open(&self, at: &Ref) -> Result<Box<dyn Read + Send>, StoreError> {
        self.around("open", false, at, || self.inner.open(at))
    }
    fn size(&self, at: &Ref) -> Result<Option<u64>, StoreError> {
        self.around("size", false, at, || self.inner.size(at))
    }
    fn real(&self, at: &Ref) -> Result<Option<Ref>, StoreError> {
        self.around("real", false, at, || self.inner.real(at))
    }
    fn list(&self, below: &Ref) -> Result<Vec<(Ref, u64)>, StoreError> {
        self.around("list", false, below, || self.inner.list(below))
    }
    fn create(&self, at: &Ref, bytes: &[u8]) -> Result<Created, StoreError> {
        self.around("create", true, at, || self.inner.create(at, bytes))
    }
    fn stage(&self, at: &Ref) -> Result<Box<dyn StagedFile>, StoreError> {
        let inner = self.around("stage", true, at, || self.inner.stage(at))?;
        Ok(Box::new(TrappedFile { inner, at: at.clone(), trap: self.trap.clone() }))
    }
    fn promote(&self, staged: &Ref, to: &Ref) -> Result<Created, StoreError> {
        self.around("promote", true, to, || self.inner.promote(staged, to))
    }
    fn unstage(&self, at: &Ref) -> Result<(), StoreError> {
        self.around("unstage", false, at, || self.inner.unstage(at))
    }
}

/// A staged file whose writes and whose end count, too.
struct TrappedFile {
    inner: Box<dyn StagedFile>,
    at: Ref,
    trap: Arc<Trap>,
}

impl Write for TrappedFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mishap = self.trap.meets(Site::Store, "write", true);
        if mishap == Some(Mishap::ShortWrite) {
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            let _ = self.inner.write(half);
        }
        self.trap.around(mishap, std::io::Error::other, || self.inner.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl StagedFile for TrappedFile {
    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        let TrappedFile { inner, at, trap } = *self;
        let broken = |words: &str| StoreError::new(ErrorKind::Io, at.as_str(), words);
        trap.around(trap.meets(Site::Store, "finish", true), broken, || inner.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mishap_is_read_from_text_or_not_at_all() {
        let trap = Trap::parse("stop@ledger.write:3").unwrap();
        assert_eq!((trap.site, trap.only.as_deref(), trap.mishap, trap.at), (Site::Ledger, Some("write"), Mishap::Stop, 3));
        assert_eq!(Trap::parse("kill@store:17").unwrap().only, None);
        for text in ["", "kill", "kill@store", "kill@store:x", "kill@disk:1", "sleep@store:1"] {
            assert!(Trap::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn it_strikes_once_at_its_number_and_an_outage_stays() {
        let run = |mishap, only: Option<&str>| -> Vec<bool> {
            let trap = Trap { only: only.map(str::to_owned), ..Trap::new(Site::Ledger, mishap, 2) };
            [Access::Write, Access::Read, Access::Write, Access::Read]
                .map(|access| Watch::around(&trap, access, &mut || Ok(())).is_ok())
                .to_vec()
        };
        assert_eq!(run(Mishap::Busy, None), [true, false, true, true]);
        assert_eq!(run(Mishap::Outage, None), [true, false, false, false]);
        assert_eq!(run(Mishap::Error, Some("write")), [true, true, false, true]);
    }

    #[test]
    fn a_lost_answer_was_carried_out_and_an_error_was_not() {
        for (mishap, done) in [(Mishap::LostAnswer, true), (Mishap::Error, false)] {
            let mut happened = false;
            let trap = Trap::new(Site::Ledger, mishap, 1);
            let answer = Watch::around(&trap, Access::Write, &mut || {
                happened = true;
                Ok(())
            });
            assert_eq!((answer.is_err(), happened, trap.sprung()), (true, done, true), "{mishap:?}");
        }
    }
}
