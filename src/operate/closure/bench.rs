//! A scratch workspace on which the gate runs what every command runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::tree;
use crate::config::Config;
use crate::ledger::{Ledger, LedgerError, RunRow};
use crate::operate::fault::{Fault, FaultyStore, until_killed};
use crate::operate::mutate::{Broken, Scratchpad};
use crate::operate::open;
use crate::operate::scenario::Verb;
use crate::pipeline::admit::Supersession;
use crate::pipeline::gate::{Env, outside_of_runs};
use crate::pipeline::progress::Progress;
use crate::pipeline::run::{self, Host, Request, RunResult, StopSignal, Unattended};
use crate::store::Store;
use crate::time::{Clock, SystemClock};

/// Who acts, in the ledger's words.
const ACTOR: &str = "CLOSURE::gate";

impl From<LedgerError> for Broken {
    fn from(error: LedgerError) -> Self {
        Broken(format!("{}: {error}", error.code()))
    }
}

/// A workspace with the embedded day of data.
pub(super) struct Bench {
    pad: Scratchpad,
    /// Settings that differ from the defaults, as `section`, `key`, value.
    settings: Vec<(&'static str, &'static str, String)>,
}

impl Bench {
    pub(super) fn new(into: &Path) -> Result<Self, Broken> {
        Ok(Bench { pad: Scratchpad::unpack("flights-day", into)?, settings: vec![("paths", "scratch", "scratch".into())] })
    }

    /// The same workspace under another setting.
    pub(super) fn set(&mut self, section: &'static str, key: &'static str, value: &str) {
        self.settings.retain(|(s, k, _)| (*s, *k) != (section, key));
        self.settings.push((section, key, value.to_owned()));
    }

    pub(super) fn platform_run(&self) -> &str {
        self.pad.name("run")
    }

    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.pad.path(relative)
    }

    /// An intent of another meaning: its request id and configuration revision are `name`.
    pub(super) fn variant(&self, name: &str) -> Result<(), Broken> {
        let text = |v: &str| toml::Value::String(v.to_owned());
        let set = [("/request_id".to_owned(), text(&format!("closure.{name}"))), ("/config_revision".to_owned(), text(name))];
        self.pad.change(&Verb::Intent { name: name.to_owned(), from: "train".into(), set: set.into_iter().collect(), remove: Vec::new() })
    }

    pub(super) fn open(&self, fault: &Fault) -> Result<(Env, Host), Broken> {
        let mut config = Config::load(Some(self.pad.root()), self.pad.root(), &Default::default()).map_err(|e| Broken(e.to_string()))?;
        for (section, key, value) in &self.settings {
            config.set_flag(section, key, value).map_err(|e| Broken(e.to_string()))?;
        }
        let store = open::store(&config).map_err(|e| Broken(e.message))?;
        let ledger = Ledger::open(&config.path("ledger"), Arc::new(SystemClock), ACTOR)?;
        let (store_root, inner): (_, Arc<dyn Store>) = (Some(store.root().to_owned()), Arc::new(store));
        let env = Env {
            store: Arc::new(FaultyStore::new(inner, fault.clone())),
            store_root,
            config: Arc::new(config),
            cancel: CancellationToken::new(),
            progress: Arc::new(Progress::default()),
            attempt: outside_of_runs(SystemClock.now()),
            audit: Arc::new(crate::store::Unrecorded),
        };
        Ok((env, Host { ledger: Arc::new(ledger), clock: Arc::new(SystemClock), owner: fault.owner(), signal: StopSignal::default() }))
    }

    pub(super) fn request(&self, intent: &str) -> Result<Request, Broken> {
        let intent = std::fs::read(self.path(&format!("intents/{intent}.json")))?;
        Ok(Request { intent, supersession: Supersession::default() })
    }

    /// Runs an intent; nothing comes back where its owner died.
    pub(super) fn run(&self, intent: &str, fault: &Fault) -> Result<Option<RunResult>, Broken> {
        let ((env, host), request) = (self.open(fault)?, self.request(intent)?);
        until_killed(|| run::run(&request, &env, &host, &Unattended)).transpose().map_err(Broken::from)
    }

    /// Runs an intent that must end so.
    pub(super) fn expect(&self, intent: &str, fault: &Fault, status: &str, exit: u8) -> Result<RunResult, Broken> {
        let result = self.run(intent, fault)?.ok_or_else(|| Broken(format!("the owner of {intent} died")))?;
        if (result.text("/status"), result.exit) == (status, exit) {
            return Ok(result);
        }
        let reason = result.document.get("reason").cloned().unwrap_or(Value::Null);
        Err(Broken(format!(
            "{intent} ended {} with exit {} instead of {status} with {exit}: {reason}",
            result.text("/status"),
            result.exit
        )))
    }

    /// The record of an intent's run.
    pub(super) fn row(&self, host: &Host, intent: &str) -> Result<RunRow, Broken> {
        let intent: Value = serde_json::from_slice(&self.request(intent)?.intent).map_err(|e| Broken(e.to_string()))?;
        let id = intent.get("request_id").and_then(Value::as_str).unwrap_or_default();
        host.ledger.run_by_request(id)?.ok_or_else(|| Broken(format!("the ledger holds no run of {id}")))
    }

    /// A JSON document of the store by its ref.
    pub(super) fn document(&self, at: &str) -> Result<Value, Broken> {
        let bytes = std::fs::read(self.path(&format!("store/{at}"))).map_err(|e| Broken(format!("{at}: {e}")))?;
        serde_json::from_slice(&bytes).map_err(|e| Broken(format!("{at}: {e}")))
    }

    /// Everything that is published: data sets with their evidence, and manifests.
    pub(super) fn published(&self) -> Result<std::collections::BTreeMap<String, Vec<u8>>, Broken> {
        let all = tree(&self.path("{ofs}"))?;
        Ok(all.into_iter().filter(|(name, _)| name.starts_with("datasets/") || name.starts_with("manifests")).collect())
    }
}
