//! A store that misbehaves on purpose, in one place, so that a scenario shows what follows.

use std::any::Any;
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use crate::ledger::Owner;
use crate::store::{Created, ErrorKind, Ref, StagedFile, Store, StoreError};

/// How a store misbehaves; every text is a part of the refs that are hit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Creating fails and leaves nothing.
    pub deny_create: Option<String>,
    /// Creating works, yet answers with an error.
    pub lose_answer: Option<String>,
    /// Creating works, yet what was created cannot be read back.
    pub lose_read_back: Option<String>,
    /// What is read has one bit flipped.
    pub bit_rot: Option<String>,
    /// Creating never says that something was there.
    #[serde(default)]
    pub careless: bool,
    /// The owner dies right before it creates this; its lease stays in the ledger.
    pub die_before: Option<String>,
    /// Right before the owner creates this it is stalled for so long that another process takes its run over.
    pub overtaken_before: Option<String>,
    /// The owner is a process of another host, of which nobody here can say whether it is alive.
    #[serde(default)]
    pub elsewhere: bool,
}

impl Fault {
    /// What it does, in a few words.
    pub fn words(&self) -> String {
        let cases = [
            ("the store refuses to create", &self.deny_create),
            ("the store takes, but answers with an error for", &self.lose_answer),
            ("the store takes, but cannot read back", &self.lose_read_back),
            ("one bit is wrong when reading", &self.bit_rot),
            ("the process is killed right before it creates", &self.die_before),
            ("the process stalls and is taken over right before it creates", &self.overtaken_before),
        ];
        let mut words: Vec<String> = cases.into_iter().filter_map(|(what, at)| at.as_ref().map(|at| format!("{what} *{at}*"))).collect();
        if self.careless {
            words.push("the store never says that something was there".into());
        }
        words.join("; ")
    }

    /// An owner of this host that is gone.
    pub fn gone() -> Owner {
        Owner { pid: NO_PID, ..Owner::current() }
    }

    /// The owner that a run has under this fault: one that dies must not be a process that lives.
    pub fn owner(&self) -> Owner {
        let mut owner = Owner::current();
        if self.elsewhere {
            owner.host = "another-host".into();
        } else if self.die_before.is_some() {
            owner.pid = NO_PID;
        }
        owner
    }
}

/// Above every process id that Linux gives (`PID_MAX_LIMIT` is 4,194,304).
const NO_PID: u32 = 4_999_999;

/// What unwinds when an owner dies.
struct Killed;

/// Dies, as far as a process can that goes on. Not a panic: nothing is wrong with the program, so no hook
/// may report one.
pub(super) fn die() -> ! {
    std::panic::resume_unwind(Box::new(Killed) as Box<dyn Any + Send>)
}

/// Runs `work`; nothing comes back where its owner died.
pub fn until_killed<T>(work: impl FnOnce() -> T) -> Option<T> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(done) => Some(done),
        Err(cause) if cause.is::<Killed>() => None,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

/// A store with a fault.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    fault: Fault,
    created: Mutex<BTreeSet<Ref>>,
    overtake: Overtake,
}

/// What happens while an owner is stalled: once, whatever the number of refs that are hit.
#[derive(Default)]
struct Overtake(Mutex<Option<Box<dyn Fn() + Send + Sync>>>);

impl std::fmt::Debug for Overtake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Overtake")
    }
}

fn hit(pattern: &Option<String>, at: &Ref) -> bool {
    pattern.as_ref().is_some_and(|p| at.as_str().contains(p.as_str()))
}

fn broken(at: &Ref, message: &str) -> StoreError {
    StoreError::new(ErrorKind::Io, at.as_str(), message)
}

impl FaultyStore {
    /// Puts a fault before a store.
    pub fn new(inner: Arc<dyn Store>, fault: Fault) -> Self {
        FaultyStore { inner, fault, created: Mutex::new(BTreeSet::new()), overtake: Overtake::default() }
    }

    /// Says what another process does while the owner is stalled.
    #[must_use]
    pub fn overtaken(self, by: Box<dyn Fn() + Send + Sync>) -> Self {
        *self.overtake.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(by);
        self
    }

    /// Dies, refuses, or lets a write happen and falsifies its answer.
    fn guard(&self, at: &Ref, write: impl FnOnce() -> Result<Created, StoreError>) -> Result<Created, StoreError> {
        if hit(&self.fault.die_before, at) {
            die();
        }
        if hit(&self.fault.overtaken_before, at)
            && let Some(overtake) = self.overtake.0.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            overtake();
        }
        if hit(&self.fault.deny_create, at) {
            return Err(broken(at, "the store is full (a fault of this scenario)"));
        }
        let created = write()?;
        self.created.lock().unwrap_or_else(PoisonError::into_inner).insert(at.clone());
        match created {
            _ if hit(&self.fault.lose_answer, at) => Err(broken(at, "the connection broke before the answer (a fault of this scenario)")),
            Created::Exists if self.fault.careless => Ok(Created::New),
            created => Ok(created),
        }
    }
}

/// Flips the lowest bit of the first byte.
struct Rotten(Box<dyn Read + Send>, bool);

impl Read for Rotten {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buffer)?;
        if let (true, Some(byte)) = (n > 0 && !std::mem::replace(&mut self.1, true), buffer.first_mut()) {
            *byte ^= 1;
        }
        Ok(n)
    }
}

impl Store for FaultyStore {
    fn open(&self, at: &Ref) -> Result<Box<dyn Read + Send>, StoreError> {
        let mine = self.created.lock().unwrap_or_else(PoisonError::into_inner).contains(at);
        if mine && hit(&self.fault.lose_read_back, at) {
            return Err(broken(at, "the store is unreachable (a fault of this scenario)"));
        }
        let reader = self.inner.open(at)?;
        Ok(if hit(&self.fault.bit_rot, at) { Box::new(Rotten(reader, false)) } else { reader })
    }

    fn size(&self, at: &Ref) -> Result<Option<u64>, StoreError> {
        self.inner.size(at)
    }

    fn real(&self, at: &Ref) -> Result<Option<Ref>, StoreError> {
        self.inner.real(at)
    }

    fn list(&self, below: &Ref) -> Result<Vec<(Ref, u64)>, StoreError> {
        self.inner.list(below)
    }

    fn create(&self, at: &Ref, bytes: &[u8]) -> Result<Created, StoreError> {
        self.guard(at, || self.inner.create(at, bytes))
    }

    fn stage(&self, at: &Ref) -> Result<Box<dyn StagedFile>, StoreError> {
        self.inner.stage(at)
    }

    fn promote(&self, staged: &Ref, to: &Ref) -> Result<Created, StoreError> {
        self.guard(to, || self.inner.promote(staged, to))
    }

    fn unstage(&self, at: &Ref) -> Result<(), StoreError> {
        self.inner.unstage(at)
    }
}
