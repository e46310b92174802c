//! Metrics of one platform run: counters from the ledger, numbers from the receipts that its runs left
//! (O141, O149). Everything is derived anew, so it always agrees with what it is derived from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::health::anomaly;
use super::world::{World, evidence};
use crate::contract::decimal;
use crate::ledger::{Delivery, RunRow, Status};

/// The newest runs whose receipts are read; counters cover all runs.
pub const DETAILED: usize = 200;

/// Counters of one kind of build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were admitted.
    pub requested: u64,
    /// Runs by status, by its name.
    pub status: BTreeMap<&'static str, u64>,
    /// Runs that do not move.
    pub stuck: u64,
    /// Times that a run of this kind has failed, also those that were made good since.
    pub failures: u64,
}

/// How long runs took, in milliseconds: their latest attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Durations {
    /// Runs that have ended.
    pub count: u64,
    /// All of them together.
    pub sum_ms: u64,
    /// The shortest.
    pub min_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

/// What the replays of one partition came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partition {
    /// Events replayed.
    pub events: u64,
    /// Offsets that the bases span.
    pub span: u64,
    /// Of these, served by the archive.
    pub archive: u64,
    /// Of these, served by the bus.
    pub bus: u64,
    /// Offsets that nothing delivered.
    pub missing: u64,
    /// Offsets on which the sources contradicted each other.
    pub mismatched: u64,
}

/// What label resolution came to, by label type.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Rows that wanted a label.
    pub targets: u64,
    /// Rows that have one.
    pub resolved: u64,
    /// Rows whose assertions contradict each other.
    pub conflict: u64,
    /// Rows without one.
    pub not_found: u64,
    /// Assertions observed after the cut-off, lawfully left out.
    pub late: u64,
}

/// One run with its keys and its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// The keys that tie it to everything else (O150).
    pub keys: Value,
    /// Its status.
    pub status: Status,
    /// Why it stands there.
    pub reason: Option<String>,
    /// Milliseconds that its latest attempt took.
    pub took_ms: Option<u64>,
    /// By phase, as its result says.
    pub phases_ms: Value,
    /// What its replay came to, over all partitions.
    pub replay: Partition,
    /// Its rows' labels.
    pub labels: BTreeMap<String, Coverage>,
}

/// The metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    /// Counters by kind of intent; `unknown` where a refused request named none.
    pub counters: BTreeMap<String, Counters>,
    /// Data sets that runs of this ledger published.
    pub datasets_built: u64,
    /// How publications ended: NEW, ALREADY_PUBLISHED, PENDING, RETRIED.
    pub publications: BTreeMap<&'static str, u64>,
    /// Parity outcomes.
    pub parity: BTreeMap<String, u64>,
    /// Refusals and failures by reason code, ever.
    pub anomalies: BTreeMap<String, u64>,
    /// Durations by kind of intent.
    pub durations: BTreeMap<String, Durations>,
    /// Replay by (topic, partition, offset kind), of the detailed runs.
    pub partitions: BTreeMap<(String, i64, String), Partition>,
    /// Labels by type, of the detailed runs.
    pub labels: BTreeMap<String, Coverage>,
    /// Detailed runs that the archive served, and detailed runs with gaps.
    pub archive_used_runs: u64,
    /// Detailed runs whose basis has gaps.
    pub gap_runs: u64,
    /// Facts by what became of them: SENT, SKIPPED_BY_POLICY, FAILED_TO_SEND, WAITING.
    pub facts: BTreeMap<&'static str, u64>,
    /// The newest runs, at most [`DETAILED`].
    pub builds: Vec<Build>,
    /// All runs.
    pub runs: u64,
}

fn kind(row: &RunRow) -> String {
    row.intent_kind.clone().unwrap_or_else(|| "unknown".into())
}

fn took_ms(row: &RunRow) -> Option<u64> {
    let (from, to) = (row.started?, row.completed?);
    u64::try_from(to.0.saturating_sub(from.0) / 1_000).ok()
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn list<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = &'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

impl Partition {
    fn of(observed: &Value) -> Self {
        Partition {
            events: number(observed, "delivered_events"),
            span: number(observed, "required_offsets"),
            archive: number(observed, "served_by_archive"),
            bus: number(observed, "served_by_bus"),
            missing: number(observed, "missing_offsets"),
            mismatched: number(observed, "mismatch_count"),
        }
    }

    fn add(&mut self, other: &Partition) {
        self.events += other.events;
        self.span += other.span;
        self.archive += other.archive;
        self.bus += other.bus;
        self.missing += other.missing;
        self.mismatched += other.mismatched;
    }

    fn to_json(&self) -> Value {
        json!({
            "events": self.events, "offsets_spanned": self.span, "served_by_archive": self.archive, "served_by_bus": self.bus,
            "missing_offsets": self.missing, "mismatches": self.mismatched, "archive_used": self.archive > 0, "gaps": self.missing > 0,
        })
    }
}

impl Coverage {
    fn add(&mut self, other: &Coverage) {
        self.targets += other.targets;
        self.resolved += other.resolved;
        self.conflict += other.conflict;
        self.not_found += other.not_found;
        self.late += other.late;
    }

    /// Resolved rows among all, in millionths, rounded as the label receipt rounds; nothing where no row wanted a label.
    pub fn ratio_millionths(&self) -> Option<u64> {
        decimal::millionths(self.resolved, self.targets).map(|ratio| u64::try_from(ratio).unwrap_or(u64::MAX))
    }

    fn to_json(&self) -> Value {
        let ratio = self.ratio_millionths().map(|r| format!("{}.{:06}", r / 1_000_000, r % 1_000_000));
        json!({"targets": self.targets, "resolved": self.resolved, "conflict": self.conflict, "not_found": self.not_found, "late": self.late, "coverage_ratio": ratio})
    }
}

/// Per partition what a run's replay came to, as its receipt or its refusal says.
fn replayed(world: &World<'_>, row: &RunRow) -> Vec<((String, i64, String), Partition)> {
    let receipt = evidence(row, "replay").and_then(|at| world.document(at));
    let refusal = || evidence(row, "refusal").and_then(|at| world.document(at));
    let Some(document) = receipt.or_else(refusal) else { return Vec::new() };
    let text = |v: &Value, key: &str| v.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let observed = list(&document, "/observation/partitions").chain(list(&document, "/findings/replay/partitions"));
    observed
        .map(|p| {
            let lane = (text(p, "topic"), p.get("partition").and_then(Value::as_i64).unwrap_or(0), text(p, "offset_kind"));
            (lane, Partition::of(p))
        })
        .collect()
}

fn labelled(world: &World<'_>, row: &RunRow) -> BTreeMap<String, Coverage> {
    let Some(document) = evidence(row, "labels").and_then(|at| world.document(at)) else { return BTreeMap::new() };
    let name = |v: &Value| v.get("label_type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut types: BTreeMap<String, Coverage> = BTreeMap::new();
    for counted in list(&document, "/proof/types") {
        let coverage = Coverage {
            targets: number(counted, "targets"),
            resolved: number(counted, "resolved"),
            conflict: number(counted, "conflict"),
            not_found: number(counted, "not_found"),
            late: 0,
        };
        types.insert(name(counted), coverage);
    }
    for counted in list(&document, "/observation/late") {
        types.entry(name(counted)).or_default().late = number(counted, "late");
    }
    types
}

impl Metrics {
    fn count(&mut self, world: &World<'_>) {
        let mut built = BTreeSet::new();
        for row in &world.runs {
            let counters = self.counters.entry(kind(row)).or_default();
            counters.requested += u64::from(row.status != Status::Rejected);
            *counters.status.entry(row.status.as_str()).or_default() += 1;
            counters.stuck += u64::from(world.stuck(row).is_some());
            let text = |pointer| row.result.as_ref().and_then(|r| r.pointer(pointer)).and_then(Value::as_str);
            match (row.status, text("/outcome")) {
                (Status::PublishPending, _) => *self.publications.entry("PENDING").or_default() += 1,
                (Status::Done, Some("NEW")) => {
                    *self.publications.entry("NEW").or_default() += 1;
                    built.extend(row.manifest_id.as_ref().filter(|_| row.manifest_ref.is_some()));
                }
                (Status::Done, Some("ALREADY_PUBLISHED")) => *self.publications.entry("ALREADY_PUBLISHED").or_default() += 1,
                _ => {}
            }
            *self.publications.entry("RETRIED").or_default() += u64::from(row.publish_retry_attempts);
            if let Some(outcome) = text("/parity/outcome") {
                *self.parity.entry(outcome.to_owned()).or_default() += 1;
            }
            if let Some(took) = took_ms(row) {
                let of = self.durations.entry(kind(row)).or_default();
                (of.min_ms, of.max_ms) = if of.count == 0 { (took, took) } else { (of.min_ms.min(took), of.max_ms.max(took)) };
                (of.count, of.sum_ms) = (of.count + 1, of.sum_ms + took);
            }
        }
        self.datasets_built = built.len() as u64;
        self.runs = world.runs.len() as u64;
    }

    fn count_facts(&mut self, world: &World<'_>) {
        let kinds: BTreeMap<&str, String> = world.runs.iter().map(|r| (r.run_key.as_str(), kind(r))).collect();
        for fact in &world.facts {
            let fate = match fact.delivery {
                Some(delivery) => delivery.as_str(),
                None if fact.failures > 0 => Delivery::Failed.as_str(),
                None => "WAITING",
            };
            *self.facts.entry(fate).or_default() += 1;
            if fact.body.get("status").is_some_and(|s| s == "FAILED")
                && let Some(kind) = kinds.get(fact.run_key.as_str())
            {
                self.counters.entry(kind.clone()).or_default().failures += 1;
            }
        }
        for (_, _, code) in world.reasons.iter().filter(|(_, _, code)| anomaly(code)) {
            *self.anomalies.entry(code.clone()).or_default() += 1;
        }
    }

    fn detail(&mut self, world: &World<'_>) {
        for row in world.runs.iter().take(DETAILED) {
            let mut all = Partition::default();
            for (lane, partition) in replayed(world, row) {
                all.add(&partition);
                self.partitions.entry(lane).or_default().add(&partition);
            }
            let labels = labelled(world, row);
            for (name, coverage) in &labels {
                self.labels.entry(name.clone()).or_default().add(coverage);
            }
            self.archive_used_runs += u64::from(all.archive > 0);
            self.gap_runs += u64::from(all.missing > 0);
            let phases = row.result.as_ref().and_then(|r| r.get("timings_ms")).cloned().unwrap_or_default();
            self.builds.push(Build {
                keys: row.correlation(),
                status: row.status,
                reason: row.reason_code.clone(),
                took_ms: took_ms(row),
                phases_ms: phases,
                replay: all,
                labels,
            });
        }
    }

    /// The fields of `ofs.metrics.v1` beside the common ones.
    pub fn to_json(&self) -> Value {
        let counters: Map<String, Value> = self.counters.iter().map(|(kind, c)| (kind.clone(), c.to_json())).collect();
        let labels: Map<String, Value> = self.labels.iter().map(|(name, c)| (name.clone(), c.to_json())).collect();
        let durations: Map<String, Value> = self
            .durations
            .iter()
            .map(|(kind, d)| (kind.clone(), json!({"count": d.count, "sum": d.sum_ms, "min": d.min_ms, "max": d.max_ms})))
            .collect();
        let partitions: Vec<Value> = self
            .partitions
            .iter()
            .map(|((topic, partition, offset_kind), p)| {
                let mut value = p.to_json();
                if let Some(map) = value.as_object_mut() {
                    map.insert("topic".into(), json!(topic));
                    map.insert("partition".into(), json!(partition));
                    map.insert("offset_kind".into(), json!(offset_kind));
                }
                value
            })
            .collect();
        json!({
            "counters": counters, "datasets_built": self.datasets_built, "publications": self.publications, "parity": self.parity,
            "anomalies": self.anomalies, "durations_ms": durations, "labels": labels, "facts": self.facts,
            "replay": {"partitions": partitions, "archive_used_runs": self.archive_used_runs, "gap_runs": self.gap_runs},
            "builds": self.builds.iter().map(Build::to_json).collect::<Vec<_>>(), "runs": self.runs, "detailed_at_most": DETAILED,
        })
    }
}

impl Counters {
    /// Runs with a status.
    pub fn of(&self, status: Status) -> u64 {
        self.status.get(status.as_str()).copied().unwrap_or(0)
    }

    fn to_json(&self) -> Value {
        let mut map = Map::from_iter([
            ("requested".to_owned(), json!(self.requested)),
            ("completed".to_owned(), json!(self.of(Status::Done))),
            ("stuck".to_owned(), json!(self.stuck)),
            ("failures_ever".to_owned(), json!(self.failures)),
        ]);
        for status in Status::ALL.into_iter().filter(|s| *s != Status::Done) {
            map.insert(status.as_str().to_ascii_lowercase(), json!(self.of(status)));
        }
        Value::Object(map)
    }
}

impl Build {
    fn to_json(&self) -> Value {
        let labels: Map<String, Value> = self.labels.iter().map(|(name, c)| (name.clone(), c.to_json())).collect();
        json!({
            "keys": self.keys, "status": self.status, "reason_code": self.reason, "took_ms": self.took_ms, "phases_ms": self.phases_ms,
            "replay": self.replay.to_json(), "labels": labels,
        })
    }
}

/// Measures a platform run.
pub(super) fn measure(world: &World<'_>) -> Metrics {
    let mut metrics = Metrics::default();
    metrics.count(world);
    metrics.count_facts(world);
    metrics.detail(world);
    metrics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_labels_is_rounded_as_the_receipt_rounds_it() {
        let of = |resolved, targets| Coverage { resolved, targets, ..Coverage::default() }.to_json()["coverage_ratio"].clone();
        // 0.97895791…, which cut off would be another share than the receipt's.
        assert_eq!(of(977, 998), json!("0.978958"));
        for (resolved, targets) in [(0, 7), (2, 3), (1, 2_000_000), (7, 7), (u64::MAX, u64::MAX)] {
            assert_eq!(of(resolved, targets), json!(decimal::share(resolved, targets)), "{resolved} of {targets}");
        }
        assert_eq!(of(0, 0), Value::Null);
    }
}
