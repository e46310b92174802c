//! What the panes show, as plain data: how it is read from the ledger and the store, without a word about
//! how it is drawn.
//!
//! Loading never fails for what it finds: what is missing, unreadable, forged or of another run is a part of
//! the view that says UNKNOWN with the cause. Everything is bounded, whatever lies in the store.

pub mod detail;
pub mod document;
pub mod evidence;
pub mod inquiry;
pub mod labels;
pub mod log;
mod past;
pub mod pins;
pub mod replay;
pub mod runs;
#[cfg(test)]
pub mod testing;
pub mod timeline;
pub mod triage;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::ledger::Ledger;
use crate::pipeline::gate::Env;
use crate::store::{Store, Unrecorded};
use crate::time::{Clock, Instant};

/// Where the views are read from.
#[derive(Debug, Clone)]
pub struct Source {
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The object store, or why there is none.
    pub store: Result<Arc<dyn Store>, String>,
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The moment of the past that is looked at; none for the present.
    pub then: Option<Instant>,
}

impl Source {
    /// What asking the pipeline about the present needs. Looking at a screen is no resolution of a ref, so nothing
    /// is put on record.
    ///
    /// # Errors
    /// Why there is no store.
    pub(crate) fn env(&self) -> Result<Env, String> {
        Ok(Env {
            store: self.store.clone()?,
            store_root: None,
            config: self.config.clone(),
            cancel: CancellationToken::new(),
            progress: Arc::default(),
            attempt: "look".into(),
            audit: Arc::new(Unrecorded),
        })
    }
}

/// How far a statement is proved. Only `Proved` may ever look good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Two things that must be one contradict each other.
    Contradicted,
    /// A gate said no.
    Refused,
    /// It cannot be known now.
    Unknown,
    /// Work is going on.
    Running,
    /// It was not asked yet.
    NotReached,
    /// A receipt proves it.
    Proved,
}

impl Verdict {
    /// The word that is shown.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Contradicted => "MISMATCH",
            Verdict::Refused => "REFUSED",
            Verdict::Unknown => "UNKNOWN",
            Verdict::Running => "RUNNING",
            Verdict::NotReached => "NOT_REACHED",
            Verdict::Proved => "PROVED",
        }
    }
}

/// Where a view was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A receipt of a gate that passed, by its ref.
    Receipt(String),
    /// What a refused gate found, by its ref.
    Refusal(String),
    /// The owner's progress in the ledger.
    Progress,
    /// The plan alone: nothing was done yet.
    Plan,
    /// Nothing that can be trusted; the cause.
    Unknown(String),
}

impl Origin {
    /// In a few words.
    pub fn words(&self) -> String {
        match self {
            Origin::Receipt(at) => format!("receipt {at}"),
            Origin::Refusal(at) => format!("refusal {at}"),
            Origin::Progress => "live progress of its owner".into(),
            Origin::Plan => "the plan; nothing is delivered yet".into(),
            Origin::Unknown(why) => format!("UNKNOWN: {why}"),
        }
    }

    /// Why it is not known, where it is not.
    pub fn unknown(&self) -> Option<&str> {
        match self {
            Origin::Unknown(why) => Some(why),
            _ => None,
        }
    }
}
