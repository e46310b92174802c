//! The other door to the proof of labels: the decisions that an earlier attempt of this run kept.

use serde_json::{Value, json};

use super::{Labelled, PHASE, decision_schema};
use crate::contract::ReasonCode;
use crate::engine::spool::Spool;
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::kept::{Keep, Kept, Recorded, go_on};
use crate::pipeline::pin::Pinned;
use crate::pipeline::replay::{Replayed, Rows, Waiting};

impl Labelled {
    /// Keeps the decisions in staging, for a later attempt.
    ///
    /// # Errors
    /// `STORE_IO`, `SCRATCH_IO`, `INTERRUPTED`.
    pub fn keep(&self, env: &Env) -> Result<Value, Refusal> {
        let mut keep = Keep::begin(self.pinned(), env, PHASE);
        keep.rows("decisions", |share, to| self.decisions.save(share, to, |batch| go_on(env).map(|()| batch)))?;
        let drops: Vec<Value> = self.drops.iter().map(|(code, n)| json!([code, n])).collect();
        keep.seal(&self.proof, &json!({"rows": self.rows, "redelivered": self.redelivered, "drops": drops}))
    }

    /// Takes this run's own labels again, with the replay that they rest on: receipts are held against the
    /// ledger, and what both gates kept is hashed anew. No label store is asked.
    ///
    /// # Errors
    /// `PROVENANCE_INCONSISTENT` or `DIGEST_MISMATCH` where anything differs; the environment's.
    pub fn reprove(pinned: Pinned, env: &Env, recorded: &Recorded) -> Result<Labelled, Refusal> {
        let receipt = recorded.receipt(&pinned, env, PHASE, PHASE)?;
        let part = |key: &str| receipt.get(key).cloned().unwrap_or(Value::Null);
        let (proof, observation) = (part("proof"), part("observation"));
        if proof.get("label_basis") != Some(&pinned.intent().label_basis_json()) {
            return Err(Refusal::new(ReasonCode::ProvenanceInconsistent, PHASE, "the receipt of the labels is not of this cut-off"));
        }
        let kept = Kept::find(&pinned, env, PHASE, recorded, &proof)?;
        let replayed = Replayed::reprove(pinned, env, recorded, Rows::Events)?;
        let (pinned, work) = (replayed.pinned(), replayed.work());
        let schema = decision_schema(pinned.vocabulary().len());
        let decisions = Spool::new(schema, pinned.shards(), work.budget(Waiting::Decisions), work.scratch.clone());
        kept.rows("decisions", |from| decisions.load(from, |_, _| go_on(env)))?;
        let (rows, redelivered) = (kept.number("/rows")?, kept.number("/redelivered")?);
        let drop = |pair: &Value| Some((i32::try_from(pair.get(0)?.as_i64()?).ok()?, pair.get(1)?.as_u64()?));
        let drops = kept.about("/drops").and_then(Value::as_array).into_iter().flatten().filter_map(drop).collect();
        Ok(Labelled { replayed, decisions, proof, observation, rows, drops, redelivered })
    }
}
