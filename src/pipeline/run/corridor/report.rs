//! The runs that end in a report and in no data set: parity and forensic rebuilds. They pass the same pins and
//! the same replay gate; labels are not asked for.

use serde_json::{Value, json};

use super::{Attempt, Stop, event_logs};
use crate::contract::ReasonCode;
use crate::contract::intent::IntentKind;
use crate::ledger::{End, LedgerError, RUN_DONE, Status};
use crate::pipeline::forensic::{self, Forensic};
use crate::pipeline::gate::{Phase, Refusal};
use crate::pipeline::parity::{self, Compared, Outcome};
use crate::pipeline::pin::Pinned;
use crate::pipeline::replay::{self, Examined, Replayed};
use crate::pipeline::run::{Gatekeeper, RunResult};
use crate::store::Ref;

/// Where a report of this kind of intent lies, and what evidence calls it.
pub(super) fn folder(pinned: &Pinned) -> (&'static str, &'static str) {
    match pinned.intent().kind {
        IntentKind::ForensicRebuild => ("forensic", forensic::FOLDER),
        _ => ("parity", parity::FOLDER),
    }
}

impl Attempt<'_> {
    /// Pins, replay, and the report that is asked for.
    pub(super) fn report(&mut self, keeper: &dyn Gatekeeper) -> Result<Ref, Stop> {
        let pinned = self.pins(keeper)?;
        self.test_store(&pinned)?;
        let ended = match pinned.intent().kind {
            IntentKind::ForensicRebuild => self.forensic(pinned.clone(), keeper),
            _ => self.parity(pinned.clone(), keeper),
        };
        // A report stages nothing; what an earlier test of the store left behind goes with it.
        pinned.clear_staging(&self.env, |_| true);
        ended
    }

    /// The digest of the report that an earlier attempt left behind its gate.
    fn earlier_report(&self) -> Result<Option<String>, Stop> {
        let recorded = if self.resumed { self.recorded()? } else { Default::default() };
        Ok(recorded.receipt_digest(Phase::Features).map(str::to_owned))
    }

    fn parity(&mut self, pinned: Pinned, keeper: &dyn Gatekeeper) -> Result<Ref, Stop> {
        let earlier = self.earlier_report()?.and_then(|digest| Compared::reprove(pinned.clone(), &self.env, Some(&digest)).ok());
        let compared = match earlier.or_else(|| parity::settle(&pinned)) {
            Some(compared) => {
                self.enter(Phase::Features)?;
                compared
            }
            None => match self.replay(pinned, keeper)? {
                Examined::Complete(replayed) => parity::prove(&replayed, &self.env)?,
                Examined::Incomplete(incomplete) => parity::incomplete(&incomplete),
            },
        };
        let at = self.tell_parity(&compared)?;
        match compared.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => {
                let facts = vec![("outcome", compared.outcome().as_str().to_owned()), ("report", at.to_string())];
                self.passed(Phase::Features, compared.pinned(), facts, None, compared.pinned(), keeper)?;
                Ok(at)
            }
        }
    }

    /// Publishes the report of a comparison, and says in ledger and result how it ended.
    fn tell_parity(&mut self, compared: &Compared) -> Result<Ref, Stop> {
        let at = compared.publish(&self.env)?;
        let (digest, _) = crate::store::digest(self.env.store.as_ref(), &at).map_err(|e| Refusal::of_store(Phase::Features, &e))?;
        let mut detail = compared.summary();
        self.findings.insert("parity".into(), detail.clone());
        self.evidence.insert("parity".into(), json!(at.as_str()));
        if let Some(map) = detail.as_object_mut() {
            map.insert("report_blake3".into(), json!(digest));
        }
        self.host.ledger.record(&self.lease, "PARITY_RESULT", compared.reason(), &detail)?;
        Ok(at)
    }

    /// A data set that names an anchor is compared with it and published all the same: a mismatch is a warning
    /// here (O162), and so is a comparison that fails.
    pub(super) fn warn_of_parity(&mut self, replayed: &Replayed) -> Result<(), Stop> {
        let compared = match parity::prove(replayed, &self.env) {
            Err(refusal) if refusal.code == ReasonCode::Interrupted => return Err(refusal.into()),
            Err(refusal) => Err(Stop::from(refusal)),
            Ok(compared) => self.tell_parity(&compared).map(|_| compared),
        };
        match compared {
            Ok(compared) if compared.outcome() == Outcome::Match => {}
            Ok(compared) => {
                tracing::warn!(
                    run_key = self.lease.run_key,
                    phase = "replay",
                    outcome = compared.outcome().as_str(),
                    "parity: {}",
                    compared.summary()
                );
            }
            Err(Stop::Refused(refusal)) => {
                tracing::warn!(run_key = self.lease.run_key, phase = "replay", code = %refusal.code, "parity: {}", refusal.message);
                self.host.ledger.record(&self.lease, "PARITY_RESULT", Some(refusal.code), &refusal.to_json())?;
            }
            Err(other) => return Err(other),
        }
        Ok(())
    }

    fn forensic(&mut self, pinned: Pinned, keeper: &dyn Gatekeeper) -> Result<Ref, Stop> {
        let earlier = self.earlier_report()?.and_then(|digest| Forensic::reprove(pinned.clone(), &self.env, Some(&digest)).ok());
        let rebuilt = match earlier {
            Some(rebuilt) => {
                self.enter(Phase::Features)?;
                rebuilt
            }
            None => match self.replay(pinned, keeper)? {
                Examined::Complete(replayed) => forensic::prove(&replayed, &self.env)?,
                Examined::Incomplete(incomplete) => forensic::incomplete(&incomplete, &self.env)?,
            },
        };
        let at = rebuilt.publish(&self.env)?;
        self.findings.insert("forensic".into(), rebuilt.summary());
        let facts = vec![("status", rebuilt.status().to_owned()), ("report", at.to_string())];
        self.passed(Phase::Features, rebuilt.pinned(), facts, None, rebuilt.pinned(), keeper)?;
        Ok(at)
    }

    /// The replay gate, which a report may leave without its proof but not without its receipt (O058).
    fn replay(&mut self, pinned: Pinned, keeper: &dyn Gatekeeper) -> Result<Examined, Stop> {
        self.enter(Phase::Replay)?;
        let logs = event_logs(&self.env, &pinned.intent().platform_run_id)?;
        let examined = replay::examine(pinned, &self.env, &logs)?;
        match &examined {
            Examined::Complete(replayed) => {
                let events = replayed.proof().get("events").map(Value::to_string).unwrap_or_default();
                let facts = vec![("events", events), ("partitions", replayed.lanes().len().to_string()), ("status", "COMPLETE".to_owned())];
                self.passed(Phase::Replay, replayed.pinned(), facts, None, replayed.as_ref(), keeper)?;
            }
            Examined::Incomplete(incomplete) => {
                let at = incomplete.pinned().receipt_ref("replay_completeness");
                self.evidence.insert("replay".into(), json!(at.as_str()));
                self.host.ledger.record(
                    &self.lease,
                    "REPLAY_INCOMPLETE",
                    Some(incomplete.refusal().code),
                    &incomplete.refusal().to_json(),
                )?;
            }
        }
        self.enter(Phase::Features)?;
        Ok(examined)
    }

    /// Writes the end of an attempt that publishes a report.
    pub(super) fn close_report(self, outcome: Result<Ref, Stop>) -> Result<RunResult, LedgerError> {
        let at = match outcome {
            Ok(at) => at,
            Err(stop) => return self.close(Err(stop)),
        };
        let result = self.result(Status::Done, Some("NEW"), None, Value::Null, self.evidence.clone());
        let detail = json!({"report_ref": at.as_str(), "findings": self.findings, "outcome": "NEW"});
        let end = End::Done { manifest_ref: None, result: result.document.clone(), event: RUN_DONE, detail };
        self.finish(end, result)
    }
}
