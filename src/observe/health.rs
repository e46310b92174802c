//! Health: a verdict on the current state, by thresholds that stand in the configuration. Each rule says
//! how it recovers, so nothing stays red for ever (pitfall 46).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::World;
use crate::contract::ReasonCode;
use crate::ledger::{RunRow, Status};

/// Most runs that a reason names.
const NAMED: usize = 12;

/// A verdict, the worst of its reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing needs attention.
    Green,
    /// Somebody should look.
    Amber,
    /// Somebody has to act.
    Red,
}

impl Level {
    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Green => "GREEN",
            Level::Amber => "AMBER",
            Level::Red => "RED",
        }
    }
}

/// A rule: what is counted, from which count on it speaks, and how it falls silent again.
#[derive(Debug)]
pub struct Rule {
    /// Stable code.
    pub code: &'static str,
    /// What the verdict becomes.
    pub level: Level,
    /// The key of `[observe]` that holds the threshold.
    pub threshold: &'static str,
    /// What is counted.
    pub counts: &'static str,
    /// What makes it fall silent.
    pub recovers: &'static str,
}

const fn rule(code: &'static str, level: Level, threshold: &'static str, counts: &'static str, recovers: &'static str) -> Rule {
    Rule { code, level, threshold, counts, recovers }
}

const RETRIED: &str = "the run or another of its identity is DONE, an operator gives it up, or it is older than observe.window_hours";

/// Every rule, in the order in which they are judged.
pub static RULES: [Rule; 6] = [
    rule("STUCK_RED", Level::Red, "stuck_red", "runs that do not move", "each has moved on (`ofs runs --stuck` says how)"),
    rule("FAILED_TOTAL_RED", Level::Red, "failed_red", "runs that FAILED within the window and are not resolved", RETRIED),
    rule("ANOMALIES_RED", Level::Red, "anomalies_red", "refusals and failures of unresolved runs within the window", RETRIED),
    rule("ANOMALIES_AMBER", Level::Amber, "anomalies_amber", "refusals and failures of unresolved runs within the window", RETRIED),
    rule(
        "PUBLISH_PENDING_AMBER",
        Level::Amber,
        "pending_amber",
        "runs whose publication is pending",
        "each is published, cancelled or given up",
    ),
    rule(
        "FACTS_UNSENT_AMBER",
        Level::Amber,
        "unsent_amber",
        "governance facts whose sending failed",
        "the store takes them (`ofs report` sends again)",
    ),
];

/// What a rule found.
#[derive(Debug, Clone, PartialEq)]
pub struct Reason {
    /// The rule's code.
    pub code: &'static str,
    /// Its level.
    pub level: Level,
    /// What it found.
    pub found: u64,
    /// From which count on it speaks.
    pub threshold: u64,
    /// The runs that are meant, at most twelve.
    pub runs: Vec<String>,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// The worst level of the reasons.
    pub level: Level,
    /// The rules that speak.
    pub reasons: Vec<Reason>,
    /// The rules that do not, with what they found.
    pub quiet: Vec<Reason>,
    /// How far back failures and anomalies count, in hours.
    pub window_hours: u64,
}

impl Health {
    /// The fields of `ofs.health.v1` beside the common ones.
    pub fn to_json(&self) -> Value {
        let rule = |code| RULES.iter().find(|r| r.code == code);
        let reasons: Vec<Value> = self
            .reasons
            .iter()
            .map(|r| {
                let (counts, recovers) = rule(r.code).map(|rule| (rule.counts, rule.recovers)).unzip();
                json!({"code": r.code, "level": r.level.as_str(), "found": r.found, "threshold": r.threshold, "counts": counts, "recovers": recovers, "runs": r.runs})
            })
            .collect();
        json!({"status": self.level.as_str(), "reasons": reasons, "window_hours": self.window_hours})
    }
}

/// Whether a reason is trouble: not what an operator wanted, nor a conflict that the ledger has settled.
pub(super) fn anomaly(code: &str) -> bool {
    // A code of a newer program is taken for one.
    ReasonCode::parse(code).is_none_or(|code| matches!(code.info().kind, "refusal" | "failure" | "pending"))
}

/// What each rule counts: how many, and the runs that are meant.
fn found(world: &World<'_>, hours: u64) -> BTreeMap<&'static str, (u64, Vec<String>)> {
    let since = world.now.plus_micros(-i64::try_from(hours.saturating_mul(3_600_000_000)).unwrap_or(i64::MAX));
    let resolved = world.resolved();
    let of = |test: &dyn Fn(&RunRow) -> bool| {
        let keys: Vec<String> = world.runs.iter().filter(|r| test(r)).map(|r| r.run_key.clone()).collect();
        (keys.len() as u64, keys)
    };
    let trouble = |r: &RunRow| r.reason_code.as_deref().is_some_and(anomaly);
    let open: BTreeMap<&str, &RunRow> =
        world.runs.iter().filter(|r| !resolved(r) && trouble(r)).map(|r| (r.run_key.as_str(), *r)).collect();
    let anomalies = world.reasons.iter().filter(|(key, at, code)| *at >= since && open.contains_key(key.as_str()) && anomaly(code));
    let anomalies: Vec<String> = anomalies.map(|(key, _, _)| key.clone()).collect();
    let (count, mut keys) = (anomalies.len() as u64, anomalies);
    keys.dedup();
    let unsent: Vec<String> = world.facts.iter().filter(|f| f.delivery.is_none() && f.failures > 0).map(|f| f.run_key.clone()).collect();
    BTreeMap::from([
        ("STUCK_RED", of(&|r| world.stuck(r).is_some())),
        ("FAILED_TOTAL_RED", of(&|r| r.status == Status::Failed && r.updated >= since && !resolved(r) && trouble(r))),
        ("ANOMALIES_RED", (count, keys.clone())),
        ("ANOMALIES_AMBER", (count, keys)),
        ("PUBLISH_PENDING_AMBER", of(&|r| r.status == Status::PublishPending)),
        ("FACTS_UNSENT_AMBER", (unsent.len() as u64, unsent)),
    ])
}

/// Judges a platform run.
pub(super) fn judge(world: &World<'_>) -> Health {
    let window_hours = world.env.config.int("observe", "window_hours");
    let found = found(world, window_hours);
    let judged = |rule: &Rule| {
        let (count, runs) = found.get(rule.code)?;
        let runs = runs.iter().take(NAMED).cloned().collect();
        Some(Reason { code: rule.code, level: rule.level, found: *count, threshold: world.env.config.int("observe", rule.threshold), runs })
    };
    let (reasons, quiet): (Vec<Reason>, Vec<Reason>) = RULES.iter().filter_map(judged).partition(|r| r.found >= r.threshold);
    Health { level: reasons.iter().map(|r| r.level).max().unwrap_or(Level::Green), reasons, quiet, window_hours }
}
