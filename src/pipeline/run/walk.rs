//! From pins to a draft, gate by gate, from wherever the proof begins.

use serde_json::Value;

use super::corridor::{Stop, event_logs, timeline};
use crate::pipeline::feature::{self, Drafted};
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::label::{self, Labelled};
use crate::pipeline::peek::Peek;
use crate::pipeline::pin::Pinned;
use crate::pipeline::replay::{self, Replayed};

/// How far a run has come.
pub(super) enum Reached {
    /// Its inputs are frozen.
    Pins(Box<Pinned>),
    /// Its basis is delivered.
    Replay(Box<Replayed>),
    /// Its labels are resolved.
    Labels(Box<Labelled>),
    /// Its draft is complete.
    Draft(Box<Drafted>),
}

impl Reached {
    /// The proofs before this one, and this one: gate and proof document.
    pub(super) fn proofs(&self) -> Vec<(Phase, &Value)> {
        match self {
            Reached::Pins(_) => Vec::new(),
            Reached::Replay(replayed) => vec![(Phase::Replay, replayed.proof())],
            Reached::Labels(labelled) => vec![(Phase::Replay, labelled.replayed().proof()), (Phase::Labels, labelled.proof())],
            Reached::Draft(drafted) => {
                let [(_, features), (_, labels), (_, replay)] = drafted.proofs();
                vec![(Phase::Replay, replay), (Phase::Labels, labels), (Phase::Features, features)]
            }
        }
    }

    /// What can be looked into.
    pub(super) fn peek(&self) -> &dyn Peek {
        match self {
            Reached::Pins(pinned) => pinned.as_ref(),
            Reached::Replay(replayed) => replayed.as_ref(),
            Reached::Labels(labelled) => labelled.as_ref(),
            Reached::Draft(drafted) => drafted.as_ref(),
        }
    }

    /// The pins.
    pub(super) fn pinned(&self) -> &Pinned {
        match self {
            Reached::Pins(pinned) => pinned,
            Reached::Replay(replayed) => replayed.pinned(),
            Reached::Labels(labelled) => labelled.pinned(),
            Reached::Draft(drafted) => drafted.pinned(),
        }
    }
}

/// Hears of every gate on the way.
pub(super) trait Story {
    /// The replay of a data set that names an anchor, to be held against it.
    fn compare(&mut self, replayed: &Replayed) -> Result<(), Stop>;

    /// A gate is entered.
    fn enter(&mut self, phase: Phase) -> Result<(), Stop>;

    /// A gate was passed. `keep` lets it leave in staging what a later attempt can go on with,
    /// `proof` lets its keeper look into what was proved.
    fn passed(&mut self, phase: Phase, pinned: &Pinned, facts: Facts, keep: Option<Keeper<'_>>, proof: &dyn Peek) -> Result<(), Stop>;
}

/// What a gate proved, as (what, value).
pub(super) type Facts = Vec<(&'static str, String)>;

/// Keeps what a gate has made; what comes back is for the ledger.
pub(super) type Keeper<'p> = &'p dyn Fn(&Env) -> Result<Value, Refusal>;

/// A way that nobody asks about.
pub(super) struct Untold;

impl Story for Untold {
    fn compare(&mut self, _: &Replayed) -> Result<(), Stop> {
        Ok(())
    }

    fn enter(&mut self, _: Phase) -> Result<(), Stop> {
        Ok(())
    }

    fn passed(&mut self, _: Phase, _: &Pinned, _: Facts, _: Option<Keeper<'_>>, _: &dyn Peek) -> Result<(), Stop> {
        Ok(())
    }
}

/// What a gate's proof says, in brief.
pub(super) fn facts(phase: Phase, proof: &Value) -> Facts {
    let text = |pointer: &str| match proof.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    match phase {
        Phase::Replay => {
            let lanes = proof.get("lanes").and_then(Value::as_array).map_or(0, Vec::len);
            vec![("events", text("/events")), ("partitions", lanes.to_string()), ("status", text("/status"))]
        }
        Phase::Labels => vec![("rows", text("/rows")), ("ready for training", text("/gate/ready"))],
        _ => vec![("rows", text("/rows")), ("rows digest", text("/rows_digest"))],
    }
}

/// Walks on to the draft.
pub(super) fn draft(from: Reached, env: &Env, story: &mut dyn Story) -> Result<Drafted, Stop> {
    let labelled = match from {
        Reached::Draft(drafted) => return Ok(*drafted),
        Reached::Labels(labelled) => *labelled,
        Reached::Replay(replayed) => labels(*replayed, env, story)?,
        Reached::Pins(pinned) => {
            let replayed = replay(*pinned, env, story)?;
            labels(replayed, env, story)?
        }
    };
    story.enter(Phase::Features)?;
    let drafted = feature::prove(labelled, env)?;
    let [(_, proof), ..] = drafted.proofs();
    let mut facts = facts(Phase::Features, proof);
    facts.push(("parts", drafted.files().len().to_string()));
    story.passed(Phase::Features, drafted.pinned(), facts, None, &drafted)?;
    Ok(drafted)
}

fn replay(pinned: Pinned, env: &Env, story: &mut dyn Story) -> Result<Replayed, Stop> {
    story.enter(Phase::Replay)?;
    let logs = event_logs(env, &pinned.intent().platform_run_id)?;
    let replayed = replay::prove(pinned, env, &logs)?;
    let facts = facts(Phase::Replay, replayed.proof());
    story.passed(Phase::Replay, replayed.pinned(), facts, Some(&|env| replayed.keep(env)), &replayed)?;
    if replayed.pinned().anchor().is_some() {
        story.compare(&replayed)?;
    }
    Ok(replayed)
}

fn labels(replayed: Replayed, env: &Env, story: &mut dyn Story) -> Result<Labelled, Stop> {
    story.enter(Phase::Labels)?;
    let labelled = label::prove(replayed, env, timeline(env)?.as_ref())?;
    let mut facts = facts(Phase::Labels, labelled.proof());
    let late = labelled.observation().get("late_total").map(Value::to_string).unwrap_or_default();
    facts.insert(1, ("late assertions (excluded)", late));
    story.passed(Phase::Labels, labelled.pinned(), facts, Some(&|env| labelled.keep(env)), &labelled)?;
    Ok(labelled)
}
