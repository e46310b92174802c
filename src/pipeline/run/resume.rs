//! Going on with what earlier attempts of this run left (decision 6): a gate that was passed is proved again
//! from its own files; a gate that was interrupted inside begins again.

use serde_json::json;

use super::Gatekeeper;
use super::corridor::{Attempt, Stop};
use super::walk::{self, Reached};
use crate::contract::ReasonCode;
use crate::ledger::LedgerError;
use crate::pipeline::feature::Drafted;
use crate::pipeline::gate::{Phase, Refusal};
use crate::pipeline::kept::Recorded;
use crate::pipeline::label::Labelled;
use crate::pipeline::pin::Pinned;
use crate::pipeline::replay::{Replayed, Rows};

impl Attempt<'_> {
    /// What the ledger recorded of the gates that this run has passed.
    pub(super) fn recorded(&self) -> Result<Recorded, LedgerError> {
        Ok(Recorded::of(&self.host.ledger.events(&self.lease.run_key, 0)?))
    }

    /// The furthest gate that this run has passed and whose files still prove it. Where they do not, an event says
    /// why, and the gate before it is tried: that costs time and never truth.
    pub(super) fn furthest(&mut self, pinned: Pinned, keeper: &dyn Gatekeeper) -> Result<Reached, Stop> {
        if !self.resumed {
            return Ok(Reached::Pins(Box::new(pinned)));
        }
        let recorded = self.recorded()?;
        for gate in [Phase::Features, Phase::Labels, Phase::Replay] {
            if recorded.evidence(gate).is_none() {
                continue;
            }
            self.env.progress.enter(gate, 0);
            match self.reprove(gate, pinned.clone(), &recorded) {
                Ok(reached) => {
                    self.tell(&reached, &recorded, keeper)?;
                    return Ok(reached);
                }
                Err(refusal) if refusal.code == ReasonCode::Interrupted => return Err(refusal.into()),
                Err(refusal) => {
                    tracing::warn!(run_key = self.lease.run_key, phase = gate.as_str(), code = %refusal.code, "not gone on with: {}", refusal.message);
                    let detail = json!({"phase": gate.as_str(), "message": refusal.message, "evidence": refusal.evidence});
                    self.host.ledger.record(&self.lease, "EVIDENCE_DISCARDED", Some(refusal.code), &detail)?;
                }
            }
        }
        Ok(Reached::Pins(Box::new(pinned)))
    }

    fn reprove(&self, gate: Phase, pinned: Pinned, recorded: &Recorded) -> Result<Reached, Refusal> {
        let env = &self.env;
        Ok(match gate {
            Phase::Replay => Reached::Replay(Box::new(Replayed::reprove(pinned, env, recorded, Rows::All)?)),
            Phase::Labels => Reached::Labels(Box::new(Labelled::reprove(pinned, env, recorded)?)),
            _ => {
                let drafted = Drafted::reprove(pinned, env, recorded)?;
                drafted.check_staged(env)?;
                Reached::Draft(Box::new(drafted))
            }
        })
    }

    /// Each gate up to the one that was reached is on record as proved again, not as walked.
    pub(super) fn tell(&mut self, reached: &Reached, recorded: &Recorded, keeper: &dyn Gatekeeper) -> Result<(), Stop> {
        for (phase, proof) in reached.proofs() {
            self.enter(phase)?;
            if let Some(evidence) = recorded.evidence(phase) {
                self.reproved(phase, reached.pinned(), evidence, (walk::facts(phase, proof), reached.peek()), keeper)?;
            }
        }
        Ok(())
    }
}
