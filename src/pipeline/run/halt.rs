//! A run that stands at a gate, as its keeper sees it.

use crate::ledger::{Lease, LedgerError};
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::peek::{Look, Peek, Peeked, Question};
use crate::pipeline::run::{Halt, Host};
use crate::time::Instant;

/// A run that stands at a gate.
pub(super) struct Standing<'s> {
    pub(super) lease: &'s Lease,
    pub(super) host: &'s Host,
    pub(super) env: &'s Env,
    pub(super) proof: &'s dyn Peek,
}

impl Halt for Standing<'_> {
    fn run_key(&self) -> &str {
        &self.lease.run_key
    }

    fn set_paused(&self, paused: bool) -> Result<(), LedgerError> {
        self.host.ledger.set_paused(self.lease, paused)
    }

    fn told_to_stop(&self) -> bool {
        self.env.cancel.is_cancelled()
    }

    fn now(&self) -> Instant {
        self.host.clock.now()
    }

    fn max_pause_us(&self) -> i64 {
        i64::try_from(self.env.config.launcher().max_pause_seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
    }

    fn looks(&self) -> &'static [Look] {
        self.proof.looks()
    }

    fn peek(&self, question: &Question) -> Result<Peeked, Refusal> {
        self.proof.peek(self.env, question)
    }
}
