//! Reconciliation: what the ledger says was done, held against what lies in the store, by reference and
//! without copies (O144). One file holds the latest state, one each day's facts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::facts;
use super::world::World;
use crate::ledger::{Delivery, RunRow, Status};
use crate::store::{Ref, StoreError};

/// The newest runs that are held against the store; what lies there is held against all.
pub const RECONCILED: usize = 10_000;
/// The newest days of which a file is kept up to date.
pub const DAYS: usize = 31;
/// Folders with manifests below `<run>/ofs/`.
const MANIFESTS: [&str; 2] = ["manifests", "manifests_nontraining"];

/// Something on which ledger and store do not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Stable kind: MANIFEST_MISSING, EVIDENCE_MISSING, INDEX_MISSING, FACT_MISSING, MANIFEST_UNCLAIMED, FACT_UNKNOWN.
    pub kind: &'static str,
    /// The run, where it is one's.
    pub run_key: Option<String>,
    /// Where it lies or should lie.
    pub at: String,
    /// In words.
    pub message: &'static str,
}

/// A run and everything it left, by reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The keys that tie it to everything else (O150).
    pub keys: Value,
    /// Its status.
    pub status: Status,
    /// Why it stands there.
    pub reason: Option<String>,
    /// NEW or ALREADY_PUBLISHED, once it is DONE.
    pub outcome: Option<String>,
    /// What it left, by name.
    pub refs: BTreeMap<String, String>,
    /// Its facts that were sent.
    pub facts: Vec<String>,
    /// Number and hash of its latest event: the head of its chain.
    pub head: (u64, String),
}

/// The reconciliation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reconciliation {
    /// Runs, newest first, at most [`RECONCILED`].
    pub entries: Vec<Entry>,
    /// All runs.
    pub runs: u64,
    /// Where ledger and store do not agree; empty when all is well.
    pub differences: Vec<Difference>,
    /// The facts of each of the newest days, oldest first.
    pub days: BTreeMap<String, Vec<Value>>,
}

impl Reconciliation {
    /// Whether ledger and store agree.
    pub fn ok(&self) -> bool {
        self.differences.is_empty()
    }

    /// The fields of `ofs.reconciliation.v1` beside the common ones.
    pub fn to_json(&self) -> Value {
        let runs: Vec<Value> = self
            .entries
            .iter()
            .map(|e| {
                json!({"keys": e.keys, "status": e.status, "reason_code": e.reason, "outcome": e.outcome, "refs": e.refs, "fact_ids": e.facts,
                    "ledger": {"last_seq": e.head.0, "last_hash": e.head.1}})
            })
            .collect();
        json!({"ok": self.ok(), "runs": runs, "runs_total": self.runs, "differences": self.differences.iter().map(Difference::to_json).collect::<Vec<_>>()})
    }
}

impl Difference {
    fn to_json(&self) -> Value {
        json!({"kind": self.kind, "run_key": self.run_key, "ref": self.at, "message": self.message})
    }
}

/// Everything that a run's result refers to, by name.
fn refs(row: &RunRow) -> BTreeMap<String, String> {
    let empty = Map::new();
    let named = row.result.as_ref().and_then(|r| r.get("evidence")).and_then(Value::as_object).unwrap_or(&empty);
    let mut refs: BTreeMap<String, String> = named.iter().filter_map(|(name, at)| Some((name.clone(), at.as_str()?.to_owned()))).collect();
    if let Some(at) = row.manifest_ref.as_ref().filter(|_| row.status == Status::Done) {
        refs.insert("manifest".into(), at.clone());
        if let (Some(id), Some(run)) = (&row.manifest_id, &row.platform_run_id) {
            refs.insert("index".into(), format!("{run}/ofs/datasets/{id}/index.json"));
        }
    }
    refs
}

struct Reconciler<'r> {
    world: &'r World<'r>,
    /// Ids of the facts that were sent, by run.
    sent: BTreeMap<&'r str, Vec<String>>,
    differences: Vec<Difference>,
}

impl<'r> Reconciler<'r> {
    fn new(world: &'r World<'r>) -> Self {
        let mut sent: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for fact in world.facts.iter().filter(|f| f.delivery == Some(Delivery::Sent)) {
            sent.entry(&fact.run_key).or_default().push(fact.id.clone());
        }
        Reconciler { world, sent, differences: Vec::new() }
    }

    fn differ(&mut self, kind: &'static str, run_key: Option<&str>, at: impl ToString, message: &'static str) {
        self.differences.push(Difference { kind, run_key: run_key.map(str::to_owned), at: at.to_string(), message });
    }

    fn there(&self, at: &str) -> Result<bool, StoreError> {
        Ref::parse(at).map_or(Ok(false), |at| Ok(self.world.env.store.size(&at)?.is_some()))
    }

    fn entry(&mut self, row: &RunRow) -> Result<Entry, StoreError> {
        let refs = refs(row);
        for (name, at) in &refs {
            if !self.there(at)? {
                let (kind, message) = match name.as_str() {
                    "manifest" => ("MANIFEST_MISSING", "the run is DONE and its manifest is gone"),
                    "index" => ("INDEX_MISSING", "the run is DONE and the index of its data set is gone"),
                    _ => ("EVIDENCE_MISSING", "the run's result names evidence that is gone"),
                };
                self.differ(kind, Some(&row.run_key), at, message);
            }
        }
        Ok(Entry {
            keys: row.correlation(),
            status: row.status,
            reason: row.reason_code.clone(),
            outcome: row.result.as_ref().and_then(|r| r.get("outcome")?.as_str().map(str::to_owned)),
            refs,
            facts: self.sent.get(row.run_key.as_str()).cloned().unwrap_or_default(),
            head: (row.last_seq, row.last_hash.clone()),
        })
    }

    /// Manifests that no run answers for.
    fn manifests(&mut self) -> Result<(), StoreError> {
        let claimed: BTreeSet<&str> = self.world.runs.iter().filter_map(|r| r.manifest_ref.as_deref()).collect();
        // The commit of a run that has not settled it yet is neither known nor unknown.
        let unsettled: BTreeSet<&str> =
            self.world.runs.iter().filter(|r| r.commit_started).filter_map(|r| r.manifest_id.as_deref()).collect();
        for folder in MANIFESTS {
            for (at, _) in self.world.env.store.list(&Ref::of(&[self.world.platform_run_id, "ofs", folder]))? {
                let id = at.as_str().rsplit('/').next().and_then(|name| name.strip_suffix(".json")).unwrap_or_default();
                if !claimed.contains(at.as_str()) && !unsettled.contains(id) {
                    self.differ("MANIFEST_UNCLAIMED", None, at, "a manifest for which no run of this ledger answers");
                }
            }
        }
        Ok(())
    }

    /// Facts that were sent and are gone, and facts that nobody of this ledger sent.
    fn facts(&mut self) -> Result<(), StoreError> {
        let listed = self.world.env.store.list(&facts::folder(self.world.platform_run_id))?;
        let lying: BTreeSet<&str> = listed.iter().map(|(at, _)| at.as_str()).collect();
        let mut known = BTreeSet::new();
        for fact in &self.world.facts {
            let at = facts::place(self.world.platform_run_id, &fact.id).to_string();
            if fact.delivery == Some(Delivery::Sent) && !lying.contains(at.as_str()) {
                self.differ("FACT_MISSING", Some(&fact.run_key), &at, "the fact was sent and is gone");
            }
            known.insert(at);
        }
        for at in lying.into_iter().filter(|at| !known.contains(*at)) {
            self.differ("FACT_UNKNOWN", None, at, "a fact that this ledger never told");
        }
        Ok(())
    }
}

/// The facts of each day, with where they lie.
fn days(world: &World<'_>) -> BTreeMap<String, Vec<Value>> {
    let mut days: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for fact in &world.facts {
        let day = fact.created.to_string().chars().take(10).collect();
        let sent = fact.delivery == Some(Delivery::Sent);
        days.entry(day).or_default().push(json!({
            "fact_id": fact.id, "fact_type": fact.fact_type, "run_key": fact.run_key, "seq": fact.seq, "at_utc": fact.created,
            "delivery": fact.delivery.map(Delivery::as_str), "fact_ref": sent.then(|| facts::place(world.platform_run_id, &fact.id).to_string()),
            "keys": fact.body.get("keys"),
        }));
    }
    while days.len() > DAYS {
        days.pop_first();
    }
    days
}

/// Reconciles a platform run.
///
/// # Errors
/// The store's: what cannot be looked at is neither there nor gone.
pub(super) fn reconcile(world: &World<'_>) -> Result<Reconciliation, StoreError> {
    let mut reconciler = Reconciler::new(world);
    let entries = world.runs.iter().take(RECONCILED).map(|row| reconciler.entry(row)).collect::<Result<_, _>>()?;
    reconciler.manifests()?;
    reconciler.facts()?;
    Ok(Reconciliation { entries, runs: world.runs.len() as u64, differences: reconciler.differences, days: days(world) })
}
