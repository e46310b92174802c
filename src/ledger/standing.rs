//! What may be done with a run, and whether it moves: decided from a few facts, so that a long list can
//! say so without reading every document of every run.

use super::Status;
use crate::contract::ReasonCode;
use crate::time::Instant;

/// The facts about a run that its legal actions and its being stuck depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Where it stands.
    pub status: Status,
    /// Why, where this program knows the name.
    pub code: Option<ReasonCode>,
    /// Nobody holds it, or its owner was a process of this host that is gone.
    pub owner_gone: bool,
    /// When the lease ends unless renewed.
    pub lease_expires: Option<Instant>,
    /// When the owner's progress last changed.
    pub last_progress: Option<Instant>,
    /// Since when it waits at a gate for a person.
    pub paused_since: Option<Instant>,
    /// When its latest event happened.
    pub updated: Instant,
    /// Publish-only retries used.
    pub publish_retry_attempts: u32,
    /// Publish-only retries granted beyond the policy's.
    pub retries_granted: u32,
    /// A commit was journalled and is not settled.
    pub commit_started: bool,
}

/// The limits beyond which a run counts as stuck, in micros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long nothing may happen.
    pub stall_us: i64,
    /// How long a person may keep a run waiting at a gate.
    pub max_pause_us: i64,
    /// Publish-only retries of the policy.
    pub max_retries: u32,
}

impl Standing {
    /// Whether a new attempt can help a run that failed.
    pub fn retryable(&self) -> bool {
        self.status == Status::Failed && self.code.is_some_and(|code| code.info().retry)
    }

    /// See [`super::RunRow::takeover_legal`].
    pub fn takeover_legal(&self, now: Instant) -> bool {
        let expired = self.lease_expires.is_none_or(|at| at <= now);
        self.status == Status::Running && (expired || self.owner_gone)
    }

    /// See [`super::RunRow::stuck_reason`].
    pub fn stuck_reason(&self, now: Instant, limits: &Limits, workers_alive: bool) -> Option<&'static str> {
        let past = |since: Instant, limit: i64| now.0.saturating_sub(since.0) > limit;
        match self.status {
            // Of a process of this host that is gone the lease need not run out first.
            Status::Running if self.takeover_legal(now) => Some("LEASE_EXPIRED"),
            Status::Running => match self.paused_since {
                Some(since) => past(since, limits.max_pause_us).then_some("PAUSED_TOO_LONG"),
                None => past(self.last_progress.unwrap_or(self.updated), limits.stall_us).then_some("NO_PROGRESS"),
            },
            Status::Queued => (!workers_alive && past(self.updated, limits.stall_us)).then_some("QUEUED_NO_WORKER"),
            Status::PublishPending => {
                let budget = limits.max_retries.saturating_add(self.retries_granted);
                (self.publish_retry_attempts >= budget).then_some("RETRY_EXHAUSTED")
            }
            Status::Done | Status::Failed | Status::Cancelled | Status::Rejected => None,
        }
    }

    /// What an operator may do at that moment.
    pub fn actions(&self, now: Instant) -> Vec<&'static str> {
        let mut actions = match self.status {
            Status::Queued => vec!["resume"],
            Status::Running if self.takeover_legal(now) => vec!["resume"],
            Status::Failed if self.retryable() => vec!["resume"],
            Status::PublishPending => vec!["retry"],
            _ => Vec::new(),
        };
        // What may have been published can neither be called off nor given up (O030, O033).
        if matches!(self.status, Status::Queued | Status::Running | Status::PublishPending) && !self.commit_started {
            actions.extend(["cancel", "fail"]);
        }
        actions.extend(["note", "bundle"]);
        actions
    }
}
