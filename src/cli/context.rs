//! What every command starts from: the configuration, and doors to the store and the ledger.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::config::Config;
use crate::contract::ReasonCode;
use crate::ledger::{Ledger, LedgerError, Owner, RunRow};
use crate::operate::mishap::Trap;
use crate::pipeline::gate::{Env, outside_of_runs};
use crate::pipeline::progress::Progress;
use crate::pipeline::run::{Host, StopSignal};
use crate::store::{LocalStore, Store, Unrecorded};
use crate::time::{Clock, SystemClock};

/// What a test wants to go wrong in this process, see [`Trap::parse`].
#[cfg(debug_assertions)]
fn trap() -> Option<Arc<Trap>> {
    static TRAP: std::sync::OnceLock<Option<Arc<Trap>>> = std::sync::OnceLock::new();
    TRAP.get_or_init(|| Trap::parse(&std::env::var("OFS_FAULT").ok()?).map(Arc::new)).clone()
}

/// A release build has no mishaps of its own.
#[cfg(not(debug_assertions))]
fn trap() -> Option<Arc<Trap>> {
    None
}

/// The configuration and the clock of one command.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) json: bool,
}

impl Context {
    pub(crate) fn load(workspace: Option<&Path>, json: bool) -> Result<Self, Failure> {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .filter(|(k, _)| k.starts_with("OFS_"))
            .collect();
        let config = Config::load(workspace, &std::env::current_dir()?, &environment)?;
        Ok(Context { config: Arc::new(config), clock: Arc::new(SystemClock), json })
    }

    /// The store; a missing root is a usage error, since a store is an input.
    pub(crate) fn store(&self) -> Result<LocalStore, Failure> {
        crate::operate::open::store(&self.config).map_err(|e| Failure {
            exit: e.code.info().exit,
            code: Some(e.code),
            message: e.message,
            hint: Some(e.hint),
        })
    }

    /// What a build runs in.
    pub(crate) fn env(&self) -> Result<Env, Failure> {
        let store = self.store()?;
        let (store_root, store): (_, Arc<dyn Store>) = (Some(store.root().to_owned()), Arc::new(store));
        Ok(Env {
            store_root,
            store: trap().map_or(store.clone(), |trap| trap.store(store)),
            config: self.config.clone(),
            cancel: CancellationToken::new(),
            progress: Arc::new(Progress::default()),
            attempt: outside_of_runs(SystemClock.now()),
            audit: Arc::new(Unrecorded),
        })
    }

    /// Refuses to write inside what is only ever read, or inside the object store (O125, O166).
    pub(crate) fn may_write(&self, path: &Path) -> Result<(), Failure> {
        may_write(&self.config, path)
    }

    /// The same for a folder that becomes a workspace.
    pub(crate) fn may_fill(&self, folder: &Path) -> Result<(), Failure> {
        may_fill(&self.config, folder)
    }

    /// Who acts, for the record.
    pub(crate) fn actor(&self) -> String {
        std::env::var("USER")
            .ok()
            .filter(|u| !u.is_empty())
            .map_or_else(|| self.config.text("access", "actor").to_owned(), |user| format!("HUMAN::{user}"))
    }

    /// The ledger for writing, made where there is none.
    pub(crate) fn ledger(&self) -> Result<Ledger, Failure> {
        self.store()?;
        let ledger = Ledger::open(&self.config.path("ledger"), self.clock.clone(), &self.actor())?;
        Ok(match trap() {
            Some(trap) => ledger.with_watch(trap),
            None => ledger,
        })
    }

    /// The ledger for reading; nothing where there is none yet.
    pub(crate) fn reader(&self) -> Result<Option<Ledger>, Failure> {
        let path = self.config.path("ledger");
        if !path.exists() {
            self.store()?;
            return Ok(None);
        }
        match Ledger::open_read_only(&path, self.clock.clone(), &self.actor()) {
            Ok(ledger) => Ok(Some(ledger)),
            // A process that was killed before it had made its ledger leaves an empty one: no runs yet.
            Err(LedgerError::Unborn) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The ledger as a witness: one that cannot be used vouches for nothing, and is told of on stderr.
    pub(crate) fn witness(&self) -> Option<Ledger> {
        match self.reader() {
            Ok(ledger) => ledger,
            Err(Failure { message, .. }) => {
                eprintln!("ofs: {}", crate::text::safe(&message));
                None
            }
        }
    }

    /// This process as the owner of a run.
    pub(crate) fn host(&self) -> Result<Host, Failure> {
        Ok(Host { ledger: Arc::new(self.ledger()?), clock: self.clock.clone(), owner: Owner::current(), signal: StopSignal::default() })
    }

    /// A run by its key, a unique beginning of it, or its request id.
    pub(crate) fn find_run(&self, ledger: &Ledger, given: &str) -> Result<RunRow, Failure> {
        if let Some(row) = ledger.run(given)?.or(ledger.run_by_request(given)?) {
            return Ok(row);
        }
        let all = ledger.runs(&crate::ledger::RunFilter::default())?;
        let mut near = all.into_iter().filter(|r| given.len() >= 4 && r.run_key.starts_with(given));
        match (near.next(), near.next()) {
            (Some(row), None) => Ok(row),
            (Some(_), Some(_)) => {
                Err(Failure::usage(format!("{given} begins several run keys")).hint("give more of the key; `ofs runs` lists them"))
            }
            _ => Err(LedgerError::NotFound(given.to_owned()).into()),
        }
    }

    /// Starts the log; without one the program works all the same.
    pub(crate) fn log(&self) -> Option<tracing_appender::non_blocking::WorkerGuard> {
        let filter = std::env::var("OFS_LOG").ok();
        crate::observe::start_logging(&self.config.path("logs"), filter.as_deref())
            .map_err(|e| eprintln!("ofs: no log is written: {e}"))
            .ok()
    }
}

/// Refuses to write inside what is only ever read, or inside the object store.
fn may_write(config: &Config, path: &Path) -> Result<(), Failure> {
    let Some(key) = config.reads_only(path) else { return Ok(()) };
    let code = ReasonCode::OutputPathRefused;
    let message = format!("{} lies inside {key}; nothing was written", path.display());
    Err(Failure { exit: code.info().exit, code: Some(code), message, hint: Some(code.info().remedy.to_owned()) })
}

/// A workspace has its folders by names that an input may have elsewhere; what counts is where it is put.
pub(crate) fn may_fill(config: &Config, folder: &Path) -> Result<(), Failure> {
    let folder = std::path::absolute(folder)?;
    let Some(parent) = folder.parent() else { return Ok(()) };
    // Folders on the way that are not there yet are made; what holds the first of them decides. Where a step leads up
    // again, that is not the nearest one that is there.
    let climbs = folder.components().any(|step| step == Component::ParentDir);
    let home = parent.ancestors().find(|home| climbs || home.exists()).unwrap_or(parent);
    may_write(config, home)
}
