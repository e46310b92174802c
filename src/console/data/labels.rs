//! Labels as they were known at the cut-off: what was eligible, what came too late and lawfully stayed out,
//! what was refused as a violation, and what the gate made of it.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use super::document::{Gap, count, items, receipt, refusal, text};
use super::{Origin, Source, Verdict};
use crate::console::filter::Filterable;
use crate::ledger::{EventRow, RunRow, Status};
use crate::pipeline::Phase;

/// Most assertions that are listed; receipts keep no more.
pub const MAX_LISTED: usize = 2_000;

/// What became of an assertion that was not simply used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// It cannot be trusted: the build was refused.
    Violation,
    /// Observed after the cut-off: left out, as the law wants it.
    Late,
}

impl Fate {
    /// The word that is shown.
    pub fn word(self) -> &'static str {
        match self {
            Fate::Violation => "VIOLATION",
            Fate::Late => "LATE",
        }
    }
}

/// An assertion that was late or that violated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// What became of it.
    pub fate: Fate,
    /// Reason code of a violation.
    pub code: String,
    /// Its id.
    pub id: String,
    /// The event it is about.
    pub event_id: String,
    /// Its type.
    pub label_type: String,
    /// When it was observed, as written.
    pub observed: String,
    /// How far from the cut-off it was observed, in micros; none where it has no instant.
    pub delta_us: Option<i64>,
    /// Why.
    pub why: String,
}

impl Filterable for Assertion {
    fn field(&self, key: &str) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(match key {
            "state" | "fate" => self.fate.word(),
            "code" | "reason" => self.code.as_str(),
            "type" => self.label_type.as_str(),
            "event" => self.event_id.as_str(),
            "assertion" | "id" => self.id.as_str(),
            _ => return None,
        }))
    }

    fn age(&self) -> Option<Duration> {
        None
    }

    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(format!(
            "{} {} {} {} {} {} {}",
            self.fate.word(),
            self.code,
            self.label_type,
            self.event_id,
            self.id,
            self.observed,
            self.why
        ))
    }
}

/// Counts of one label type; none where nothing says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeView {
    /// Its name.
    pub name: String,
    /// Rows that want this label.
    pub rows: Option<u64>,
    /// Rows that have one.
    pub resolved: Option<u64>,
    /// Rows whose latest assertions contradict.
    pub conflict: Option<u64>,
    /// Rows that have none.
    pub not_found: Option<u64>,
    /// Rows too young for their label to be final.
    pub immature: Option<u64>,
    /// Assertions known at the cut-off.
    pub eligible: Option<u64>,
    /// Assertions after it.
    pub late: Option<u64>,
    /// Assertions that cannot be trusted. At least so many where `violations_at_least`.
    pub violations: Option<u64>,
    /// The receipt names only so many violations; there may be more of this type.
    pub violations_at_least: bool,
    /// Share of rows resolved, as written.
    pub coverage: String,
    /// Share that the policy asks for.
    pub min_coverage: String,
    /// Share of rows in conflict, as written.
    pub conflict_ratio: String,
    /// Assertions by distance before and after the cut-off; empty where the receipt does not say.
    pub before: Vec<u64>,
    /// The same after the cut-off.
    pub after: Vec<u64>,
}

/// The labels of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelsView {
    /// How it stands.
    pub verdict: Verdict,
    /// Where this was read from.
    pub origin: Origin,
    /// What the gate found, most telling first.
    pub findings: Vec<String>,
    /// The cut-off, as in the intent.
    pub cutoff: String,
    /// The rule of resolution.
    pub rule: String,
    /// Days that a row must be old for its label to be final.
    pub maturity_days: Option<u64>,
    /// Whether the build is for training, so that coverage gates it.
    pub training: Option<bool>,
    /// Whether the gate holds it ready for training; none where it was not asked.
    pub ready: Option<bool>,
    /// Why not, as the gate wrote it.
    pub reasons: Vec<String>,
    /// Largest share of conflicts that the policy bears.
    pub max_conflict: String,
    /// Least share of mature rows, where the policy gates by it.
    pub min_mature: Option<String>,
    /// Counts by type.
    pub types: Vec<TypeView>,
    /// Upper bounds of the distances that assertions are counted by, in micros.
    pub bounds_us: Vec<i64>,
    /// Late ones in all.
    pub late_total: Option<u64>,
    /// Violations in all.
    pub violation_total: Option<u64>,
    /// Violations first, then late ones, the nearest to the cut-off first.
    pub listed: Vec<Assertion>,
}

impl LabelsView {
    /// Reads it.
    pub fn load(source: &Source, row: &RunRow, events: &[EventRow]) -> Self {
        let mut view = Self::asked(row);
        match refusal(source, row, Phase::Labels) {
            Ok((at, found)) => view.refused(&at.to_string(), &found),
            Err(Gap::Untrusted(why)) => view.unknown(why),
            Err(Gap::Absent) => match receipt(source, row, events, Phase::Labels) {
                Ok((at, found)) => view.passed(&at.to_string(), &found),
                Err(Gap::Untrusted(why)) => view.unknown(why),
                Err(Gap::Absent) => view.going_on(row),
            },
        }
        view
    }

    /// What the intent says: cut-off, rule and thresholds.
    fn asked(row: &RunRow) -> Self {
        let intent = row.intent.clone().unwrap_or(Value::Null);
        let words = |pointer: &str| text(&intent, pointer).unwrap_or("UNKNOWN").to_owned();
        let policy = intent.pointer("/filters/label_coverage_policy").cloned().unwrap_or(Value::Null);
        let number = |value: Option<&Value>, default: &str| value.map_or_else(|| default.to_owned(), Value::to_string);
        let mut names: Vec<String> = items(&intent, "/filters/label_types")
            .chain(items(&intent, "/join_scope/label_types"))
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let thresholds = policy.get("min_coverage_by_label_type").and_then(Value::as_object);
        if names.is_empty() {
            names = thresholds.into_iter().flat_map(|t| t.keys().cloned()).collect();
        }
        names.sort();
        names.dedup();
        let typed = |name: String| TypeView {
            min_coverage: number(thresholds.and_then(|t| t.get(&name)), "1"),
            coverage: "UNKNOWN".into(),
            conflict_ratio: "UNKNOWN".into(),
            name,
            ..TypeView::default()
        };
        LabelsView {
            verdict: Verdict::NotReached,
            origin: Origin::Plan,
            findings: Vec::new(),
            cutoff: words("/label_basis/label_asof_utc"),
            rule: words("/label_basis/resolution_rule"),
            maturity_days: count(&intent, "/label_basis/maturity_days"),
            training: row.intent.as_ref().map(|_| intent.get("non_training_allowed").and_then(Value::as_bool) != Some(true)),
            ready: None,
            reasons: Vec::new(),
            max_conflict: number(policy.get("max_conflict_ratio"), "0"),
            min_mature: policy.get("min_mature_ratio").map(Value::to_string),
            types: names.into_iter().map(typed).collect(),
            bounds_us: Vec::new(),
            late_total: None,
            violation_total: None,
            listed: Vec::new(),
        }
    }

    fn unknown(&mut self, why: String) {
        (self.verdict, self.origin) = (Verdict::Unknown, Origin::Unknown(why));
    }

    fn going_on(&mut self, row: &RunRow) {
        if row.status == Status::Running && row.phase.as_deref() == Some("labels") {
            (self.verdict, self.origin) = (Verdict::Running, Origin::Progress);
        }
    }

    fn refused(&mut self, at: &str, found: &Value) {
        (self.verdict, self.origin) = (Verdict::Refused, Origin::Refusal(at.to_owned()));
        self.findings = items(found, "/evidence").filter_map(Value::as_str).map(str::to_owned).collect();
        let Some(findings) = found.get("findings").filter(|f| f.is_object()) else { return };
        self.gate(findings.get("gate"));
        self.counts(items(findings, "/counts"));
        if let Some(observed) = findings.get("labels") {
            self.observed(observed);
        }
    }

    fn passed(&mut self, at: &str, found: &Value) {
        let Some(proof) = found.get("proof").filter(|p| p.is_object()) else {
            return self.unknown(format!("{at} holds no proof"));
        };
        (self.verdict, self.origin) = (Verdict::Proved, Origin::Receipt(at.to_owned()));
        self.gate(proof.get("gate"));
        self.counts(items(proof, "/types"));
        if let Some(observed) = found.get("observation") {
            self.observed(observed);
        }
        // Rows that are neither resolved, in conflict nor without a label would be rows that nobody accounts for.
        let whole = |t: &TypeView| match (t.resolved, t.conflict, t.not_found) {
            (Some(resolved), Some(conflict), Some(not_found)) => t.rows == Some(resolved + conflict + not_found),
            _ => false,
        };
        if self.types.is_empty() || !self.types.iter().all(whole) {
            self.unknown(format!("{at}: its counts do not add up"));
        }
    }

    fn gate(&mut self, gate: Option<&Value>) {
        let Some(gate) = gate else { return };
        self.ready = gate.get("ready").and_then(Value::as_bool);
        self.reasons = items(gate, "/reasons").chain(items(gate, "/maturity")).filter_map(Value::as_str).map(str::to_owned).collect();
        if let Some(max) = text(gate, "/max_conflict_ratio") {
            max.clone_into(&mut self.max_conflict);
        }
        if let Some(min) = text(gate, "/min_mature_ratio") {
            self.min_mature = Some(min.to_owned());
        }
        for kind in &mut self.types {
            if let Some(min) = gate.get("min_coverage_by_label_type").and_then(|t| t.get(&kind.name)).and_then(Value::as_str) {
                min.clone_into(&mut kind.min_coverage);
            }
        }
    }

    fn of_type(&mut self, name: &str) -> Option<&mut TypeView> {
        if !self.types.iter().any(|t| t.name == name) && self.types.len() < 256 {
            self.types.push(TypeView { name: name.to_owned(), min_coverage: "UNKNOWN".into(), ..TypeView::default() });
        }
        self.types.iter_mut().find(|t| t.name == name)
    }

    fn counts<'v>(&mut self, counts: impl Iterator<Item = &'v Value>) {
        for counted in counts {
            let Some(kind) = text(counted, "/label_type").and_then(|name| self.of_type(name)) else { continue };
            kind.rows = count(counted, "/targets");
            kind.resolved = count(counted, "/resolved");
            kind.conflict = count(counted, "/conflict");
            kind.not_found = count(counted, "/not_found");
            kind.immature = kind.rows.zip(count(counted, "/mature_rows")).map(|(rows, mature)| rows.saturating_sub(mature));
            text(counted, "/coverage_ratio").unwrap_or("UNKNOWN").clone_into(&mut kind.coverage);
            text(counted, "/conflict_ratio").unwrap_or("UNKNOWN").clone_into(&mut kind.conflict_ratio);
        }
    }

    fn observed(&mut self, observed: &Value) {
        self.late_total = count(observed, "/late_total");
        self.violation_total = count(observed, "/violation_total");
        self.bounds_us = items(observed, "/distances_us").take(64).filter_map(Value::as_i64).collect();
        self.listed = items(observed, "/violations")
            .map(|v| assertion(Fate::Violation, v))
            .chain(items(observed, "/late_assertions").map(|v| assertion(Fate::Late, v)))
            .take(MAX_LISTED)
            .collect();
        for late in items(observed, "/late") {
            if let Some(kind) = text(late, "/label_type").and_then(|name| self.of_type(name)) {
                kind.late = count(late, "/late");
            }
        }
        let named: Vec<(String, u64)> = self.types.iter().map(|t| (t.name.clone(), self.violations_of(&t.name))).collect();
        let more = self.violation_total.unwrap_or(0) > named.iter().map(|(_, n)| n).sum();
        for (name, listed) in named {
            if let Some(kind) = self.of_type(&name) {
                (kind.violations, kind.violations_at_least) = (Some(listed), more);
            }
        }
        // Receipts of newer builds count by type and distance what older ones only list.
        for counted in items(observed, "/by_type") {
            if let Some(kind) = text(counted, "/label_type").and_then(|name| self.of_type(name)) {
                kind.eligible = count(counted, "/eligible");
                if let Some(violations) = count(counted, "/violations") {
                    (kind.violations, kind.violations_at_least) = (Some(violations), false);
                }
                kind.before = items(counted, "/before_cutoff").take(64).filter_map(Value::as_u64).collect();
                kind.after = items(counted, "/after_cutoff").take(64).filter_map(Value::as_u64).collect();
            }
        }
    }

    fn violations_of(&self, name: &str) -> u64 {
        self.listed.iter().filter(|a| a.fate == Fate::Violation && a.label_type == name).count() as u64
    }

    /// Assertions by distance over all types, before and after the cut-off; nothing where no receipt says.
    pub fn around(&self) -> Option<(Vec<u64>, Vec<u64>)> {
        let size = self.bounds_us.len() + 1;
        let (mut before, mut after) = (vec![0u64; size], vec![0u64; size]);
        for kind in &self.types {
            if kind.before.len() != size || kind.after.len() != size {
                return None;
            }
            for (sum, n) in before.iter_mut().zip(&kind.before).chain(after.iter_mut().zip(&kind.after)) {
                *sum += n;
            }
        }
        (!self.bounds_us.is_empty() && !self.types.is_empty()).then_some((before, after))
    }
}

fn assertion(fate: Fate, value: &Value) -> Assertion {
    let words = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Assertion {
        fate,
        code: words("code"),
        id: words("label_assertion_id"),
        event_id: words("event_id"),
        label_type: words("label_type"),
        observed: words("observed_utc"),
        delta_us: value.get("delta_us").and_then(Value::as_i64),
        why: words("why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;

    fn view(world: &World) -> LabelsView {
        let (source, row, events) = world.newest();
        LabelsView::load(&source, &row, &events)
    }

    #[test]
    fn late_is_lawful_and_counted_on_its_side_of_the_cutoff() {
        let world = World::play("late-label");
        let source = world.source();
        let rows = source.ledger.runs(&Default::default()).unwrap();
        let row = rows.iter().find(|r| r.request_id.as_deref().unwrap().contains("audit")).unwrap();
        let view = LabelsView::load(&source, row, &source.ledger.events(&row.run_key, 0).unwrap());
        assert_eq!((view.verdict, view.late_total, view.violation_total), (Verdict::Proved, Some(396), Some(0)));
        let kind = &view.types[0];
        assert_eq!((kind.late, kind.violations, kind.rows), (Some(396), Some(0), Some(842)));
        let (before, after) = view.around().unwrap();
        assert_eq!((before.iter().sum::<u64>(), after.iter().sum::<u64>()), (kind.eligible.unwrap(), 396));
        assert!(view.listed.iter().all(|a| a.fate == Fate::Late && a.delta_us > Some(0)));
    }

    #[test]
    fn a_violation_is_refused_and_stands_before_what_is_late() {
        let view = view(&World::play("backdated-label-column"));
        assert_eq!((view.verdict, view.violation_total, view.late_total), (Verdict::Refused, Some(1), Some(395)));
        let first = &view.listed[0];
        assert_eq!((first.fate, first.code.as_str(), first.delta_us.is_some()), (Fate::Violation, "LEAKAGE_POLICY_VIOLATION", true));
        assert!(view.listed[1..].iter().all(|a| a.fate == Fate::Late));
        assert_eq!(view.types[0].violations, Some(1));
    }

    #[test]
    fn conflicts_and_coverage_are_told_with_their_thresholds() {
        let conflict = view(&World::play("label-conflict"));
        assert_eq!((conflict.types[0].conflict, conflict.ready, conflict.reasons.len()), (Some(1), Some(false), 1));
        assert!(conflict.reasons[0].starts_with("CONFLICT_RATIO_ABOVE_MAX:arrival_status:0.001188"));
        let coverage = view(&World::play("coverage-below-minimum"));
        let kind = &coverage.types[0];
        assert_eq!((kind.not_found, kind.coverage.as_str(), kind.min_coverage.as_str()), (Some(39), "0.953682", "0.99"));
    }

    #[test]
    fn what_cannot_be_believed_is_unknown_with_the_cause() {
        for (damage, cause) in
            [(None, "is gone"), (Some("["), "not a JSON document"), (Some("forged"), "not the one that the ledger recorded")]
        {
            let world = World::play("clean");
            world.damage("label_resolution", damage);
            let view = view(&world);
            assert_eq!((view.verdict, view.ready), (Verdict::Unknown, None), "{damage:?}");
            assert!(view.origin.unknown().is_some_and(|why| why.contains(cause)), "{damage:?}: {:?}", view.origin);
            assert!(view.types.iter().all(|t| t.resolved.is_none()) && !view.cutoff.is_empty());
        }
    }

    #[test]
    fn a_run_that_did_not_come_so_far_says_so() {
        let view = view(&World::play("archive-gap"));
        assert_eq!((view.verdict, view.ready, view.types[0].rows), (Verdict::NotReached, None, None));
        assert_eq!(view.cutoff, "2013-02-01T00:00:00.000000Z");
    }
}
