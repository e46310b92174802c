//! One shard of events: who remains, and which label each remaining row has.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeBinaryArray, Int32Array, Int32Builder, Int64Array, Int64Builder, RecordBatch, StringArray,
    StringBuilder,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};
use serde_json::{Value, json};

use super::intake::{Assertions, EFFECTIVE_BAD, FAULTY, OBSERVED_BAD, OBSERVED_DIFFERS, OUTSIDE, UNREAD, column, id_digest};
use super::{KEPT, PHASE, decision_schema, maturity_cutoff};
use crate::contract::ReasonCode;
use crate::digest::pieces::Pieces;
use crate::engine::EngineError;
use crate::engine::offsets::Offsets;
use crate::engine::order::{by_text, find};
use crate::engine::spool::Spool;
use crate::pipeline::gate::Refusal;
use crate::pipeline::projection::{KEPT as KEPT_ROW, subject};
use crate::pipeline::replay::Replayed;
use crate::time::Instant;

/// Upper bounds, in micros, of the distances to the cut-off that assertions are counted by; the last has
/// none. An observation for whoever looks at a build, never a part of what is proved.
pub(super) const DISTANCES_US: [i64; DISTANCES - 1] =
    [60_000_000, 3_600_000_000, 21_600_000_000, 86_400_000_000, 259_200_000_000, 604_800_000_000, 2_592_000_000_000];
pub(super) const DISTANCES: usize = 8;

/// Counts of one label type.
#[derive(Debug, Clone, Default)]
pub(super) struct TypeCounts {
    pub(super) resolved: u64,
    pub(super) conflict: u64,
    pub(super) not_found: u64,
    pub(super) late: u64,
    pub(super) eligible: u64,
    pub(super) violations: u64,
    /// Assertions by how far from the cut-off they were observed, see [`DISTANCES_US`].
    pub(super) before: [u64; DISTANCES],
    pub(super) after: [u64; DISTANCES],
    pub(super) mature_selected: u64,
    pub(super) values: BTreeMap<String, u64>,
}

/// An assertion that refuses the build.
#[derive(Debug, Clone)]
pub(super) struct Violation {
    pub(super) code: ReasonCode,
    pub(super) assertion: String,
    event_id: String,
    label_type: usize,
    observed: Option<i64>,
    delta_us: Option<i64>,
    pub(super) why: String,
}

/// An assertion that came too late, lawfully left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Late {
    delta_us: i64,
    assertion: String,
    event_id: String,
    label_type: usize,
    observed: i64,
}

impl Violation {
    pub(super) fn line(&self) -> String {
        format!("assertion {} of event {}: {}", self.assertion, self.event_id, self.why)
    }

    pub(super) fn to_json(&self, types: &[String]) -> Value {
        json!({"code": self.code, "label_assertion_id": self.assertion, "event_id": self.event_id, "label_type": types.get(self.label_type),
            "observed_utc": self.observed.map(Instant), "delta_us": self.delta_us, "why": self.why})
    }
}

impl Late {
    pub(super) fn to_json(&self, types: &[String]) -> Value {
        json!({"label_assertion_id": self.assertion, "event_id": self.event_id, "label_type": types.get(self.label_type), "observed_utc": Instant(self.observed),
            "delta_us": self.delta_us, "why": "observed after the cut-off"})
    }
}

/// What one shard, or all of them together, came to.
#[derive(Debug)]
pub(super) struct ShardOutcome {
    pub(super) targets: u64,
    pub(super) mature_rows: u64,
    pub(super) redelivered: u64,
    pub(super) drops: BTreeMap<i32, u64>,
    pub(super) types: Vec<TypeCounts>,
    pub(super) violations: Vec<Violation>,
    pub(super) violation_total: u64,
    pub(super) late: Vec<Late>,
    pub(super) id_conflicts: Vec<String>,
    pub(super) id_conflict_total: u64,
    selection: Pieces,
}

impl ShardOutcome {
    pub(super) fn new(types: usize) -> Self {
        ShardOutcome {
            targets: 0,
            mature_rows: 0,
            redelivered: 0,
            drops: BTreeMap::new(),
            types: vec![TypeCounts::default(); types],
            violations: Vec::new(),
            violation_total: 0,
            late: Vec::new(),
            id_conflicts: Vec::new(),
            id_conflict_total: 0,
            selection: Pieces::new(),
        }
    }

    /// Adds the next shard, in shard order.
    pub(super) fn absorb(&mut self, other: ShardOutcome) {
        self.targets += other.targets;
        self.mature_rows += other.mature_rows;
        self.redelivered += other.redelivered;
        for (code, n) in other.drops {
            *self.drops.entry(code).or_default() += n;
        }
        for (mine, theirs) in self.types.iter_mut().zip(other.types) {
            mine.resolved += theirs.resolved;
            mine.conflict += theirs.conflict;
            mine.not_found += theirs.not_found;
            mine.late += theirs.late;
            mine.eligible += theirs.eligible;
            mine.violations += theirs.violations;
            for (near, more) in mine.before.iter_mut().zip(theirs.before).chain(mine.after.iter_mut().zip(theirs.after)) {
                *near += more;
            }
            mine.mature_selected += theirs.mature_selected;
            for (value, n) in theirs.values {
                *mine.values.entry(value).or_default() += n;
            }
        }
        self.violation_total += other.violation_total;
        self.violations.extend(other.violations);
        self.trim_violations();
        self.late.extend(other.late);
        self.trim_late();
        self.id_conflict_total += other.id_conflict_total;
        self.id_conflicts.extend(other.id_conflicts);
        self.id_conflicts.sort();
        self.id_conflicts.truncate(KEPT);
        self.selection.push(other.selection.digest().as_bytes());
    }

    /// A leak outranks what is merely unreadable; within a code, the assertion id decides.
    fn trim_violations(&mut self) {
        self.violations.sort_by(|a, b| (rank(a.code), &a.assertion).cmp(&(rank(b.code), &b.assertion)));
        self.violations.truncate(KEPT);
    }

    /// Keeps those nearest to the cut-off and those farthest from it, so that the worst one is told.
    fn trim_late(&mut self) {
        self.late.sort();
        if self.late.len() > KEPT {
            self.late.drain(KEPT / 2..self.late.len() - (KEPT - KEPT / 2));
        }
    }

    /// Digest over every selection, shard by shard, in event order.
    pub(super) fn digest(&self) -> String {
        self.selection.digest().to_hex().to_string()
    }
}

fn rank(code: ReasonCode) -> u8 {
    match code {
        ReasonCode::LeakagePolicyViolation => 0,
        ReasonCode::LabelTimelineInconsistent => 1,
        ReasonCode::LabelScopeInvalid => 2,
        _ => 3,
    }
}

/// What deciding needs.
pub(super) struct Decide<'d> {
    replayed: &'d Replayed,
    assertions: &'d Assertions,
    decisions: &'d Spool,
    cutoff: Instant,
    mature: i64,
}

/// The subjects of a shard in the order of (event id, lane, offset).
struct Subjects {
    event_id: StringArray,
    hash: FixedSizeBinaryArray,
    lane: Int32Array,
    offset: Offsets,
    ts: Int64Array,
    key_shard: Int32Array,
    drop: Int32Array,
}

/// The assertions of a shard in the order of (event id, type, observed descending, assertion descending).
struct Claims {
    event_id: StringArray,
    label_type: Int32Array,
    assertion: StringArray,
    value: Int32Array,
    observed: Int64Array,
    embedded: Int64Array,
    flags: Int32Array,
    other_value: StringArray,
}

fn internal(what: &str) -> EngineError {
    EngineError::Internal(format!("a spool column is missing or of another type: {what}"))
}

fn texts(batch: &RecordBatch, at: usize) -> Result<StringArray, EngineError> {
    batch.columns().get(at).and_then(|c| c.as_string_opt::<i32>()).cloned().ok_or_else(|| internal("text"))
}

fn ints(batch: &RecordBatch, at: usize) -> Result<Int32Array, EngineError> {
    batch.columns().get(at).and_then(|c| c.as_primitive_opt::<Int32Type>()).cloned().ok_or_else(|| internal("int32"))
}

fn longs(batch: &RecordBatch, at: usize) -> Result<Int64Array, EngineError> {
    batch.columns().get(at).and_then(|c| c.as_primitive_opt::<Int64Type>()).cloned().ok_or_else(|| internal("int64"))
}

fn offsets(batch: &RecordBatch, at: usize) -> Result<Offsets, EngineError> {
    Offsets::of(batch.columns().get(at).ok_or_else(|| internal("offset"))?.as_ref())
}

impl Subjects {
    fn of(batch: &RecordBatch) -> Result<Self, EngineError> {
        let (event_id, lane, offset) = (texts(batch, subject::EVENT_ID)?, ints(batch, subject::LANE)?, offsets(batch, subject::OFFSET)?);
        let order = by_text(&event_id, |a, b| (lane.value(a), offset.get(a)).cmp(&(lane.value(b), offset.get(b))));
        let batch = &take_record_batch(batch, &order)?;
        let hash = batch.columns().get(subject::HASH).and_then(|c| c.as_fixed_size_binary_opt()).cloned();
        Ok(Subjects {
            event_id: texts(batch, subject::EVENT_ID)?,
            hash: hash.ok_or_else(|| internal("hash"))?,
            lane: ints(batch, subject::LANE)?,
            offset: offsets(batch, subject::OFFSET)?,
            ts: longs(batch, subject::TS)?,
            key_shard: ints(batch, subject::KEY_SHARD)?,
            drop: ints(batch, subject::DROP)?,
        })
    }
}

impl Claims {
    fn of(batch: &RecordBatch) -> Result<Self, EngineError> {
        let (label_type, assertion, observed) =
            (ints(batch, column::TYPE)?, texts(batch, column::ASSERTION)?, longs(batch, column::OBSERVED)?);
        let seen = |row: usize| if observed.is_valid(row) { observed.value(row) } else { i64::MAX };
        let order = by_text(&texts(batch, column::EVENT_ID)?, |a, b| {
            let by_type = label_type.value(a).cmp(&label_type.value(b));
            by_type.then_with(|| seen(b).cmp(&seen(a))).then_with(|| assertion.value(b).cmp(assertion.value(a)))
        });
        let batch = &take_record_batch(batch, &order)?;
        Ok(Claims {
            event_id: texts(batch, column::EVENT_ID)?,
            label_type: ints(batch, column::TYPE)?,
            assertion: texts(batch, column::ASSERTION)?,
            value: ints(batch, column::VALUE)?,
            observed: longs(batch, column::OBSERVED)?,
            embedded: longs(batch, column::EMBEDDED)?,
            flags: ints(batch, column::FLAGS)?,
            other_value: texts(batch, column::OTHER)?,
        })
    }
}

/// A decision for one row and label type.
struct Decision<'c> {
    status: i32,
    value: Option<&'c str>,
    observed: Option<i64>,
    assertion: Option<&'c str>,
}

/// Decisions on their way to the shards of their keys.
struct Sink {
    event_id: StringBuilder,
    columns: Vec<(StringBuilder, Int32Builder, Int64Builder, StringBuilder)>,
    key_shard: Vec<u32>,
}

impl Sink {
    fn new(types: usize) -> Self {
        Sink {
            event_id: StringBuilder::new(),
            columns: (0..types).map(|_| (StringBuilder::new(), Int32Builder::new(), Int64Builder::new(), StringBuilder::new())).collect(),
            key_shard: Vec::new(),
        }
    }

    fn push(&mut self, label_type: usize, decision: &Decision<'_>) {
        if let Some((value, status, observed, assertion)) = self.columns.get_mut(label_type) {
            value.append_option(decision.value);
            status.append_value(decision.status);
            observed.append_option(decision.observed);
            assertion.append_option(decision.assertion);
        }
    }

    fn flush(mut self, spool: &Spool) -> Result<(), EngineError> {
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.event_id.finish())];
        let types = self.columns.len();
        for (mut value, mut status, mut observed, mut assertion) in self.columns {
            columns.push(Arc::new(value.finish()));
            columns.push(Arc::new(status.finish()));
            columns.push(Arc::new(observed.finish()));
            columns.push(Arc::new(assertion.finish()));
        }
        spool.push(&RecordBatch::try_new(decision_schema(types), columns)?, &self.key_shard)
    }
}

impl<'d> Decide<'d> {
    pub(super) fn new(replayed: &'d Replayed, assertions: &'d Assertions, decisions: &'d Spool) -> Self {
        let pinned = replayed.pinned();
        Decide { replayed, assertions, decisions, cutoff: pinned.intent().labels.asof, mature: maturity_cutoff(pinned) }
    }

    pub(super) fn shard(&self, index: usize) -> Result<ShardOutcome, Refusal> {
        self.decide(index).map_err(|e| Refusal::of_engine(PHASE, &e))
    }

    fn decide(&self, index: usize) -> Result<ShardOutcome, EngineError> {
        let types = self.replayed.pinned().vocabulary().len();
        let subjects = Subjects::of(&self.replayed.subjects().shard(index)?)?;
        let claims = Claims::of(&self.assertions.spool.shard(index)?)?;
        let mut outcome = ShardOutcome::new(types);
        let mut sink = Sink::new(types);
        let (mut at, mut claim_at) = (0, 0);
        while at < subjects.event_id.len() {
            let rows = find(&subjects.event_id, subjects.event_id.value(at), at);
            at = rows.end;
            let Some(survivor) = self.survivor(&subjects, rows, &mut outcome) else { continue };
            let drop = subjects.drop.value(survivor);
            if drop != KEPT_ROW {
                *outcome.drops.entry(drop).or_default() += 1;
                continue;
            }
            outcome.targets += 1;
            outcome.mature_rows += u64::from(subjects.ts.value(survivor) <= self.mature);
            let id = subjects.event_id.value(survivor);
            let mine = find(&claims.event_id, id, claim_at);
            claim_at = mine.end;
            sink.event_id.append_value(id);
            sink.key_shard.push(subjects.key_shard.value(survivor) as u32);
            outcome.selection.push(&(id.len() as u64).to_le_bytes());
            outcome.selection.push(id.as_bytes());
            self.label(&claims, mine, types, &mut outcome, &mut sink);
        }
        outcome.trim_late();
        sink.flush(self.decisions)?;
        Ok(outcome)
    }

    /// The delivery that counts: the lowest place. A second content under one event id is a conflict.
    fn survivor(&self, subjects: &Subjects, rows: Range<usize>, outcome: &mut ShardOutcome) -> Option<usize> {
        let first = rows.start;
        let mut place = (subjects.lane.value(first), subjects.offset.get(first));
        for row in rows.skip(1) {
            if subjects.hash.value(row) != subjects.hash.value(first) {
                outcome.id_conflict_total += 1;
                if outcome.id_conflicts.len() < KEPT {
                    let lane = |row: usize| {
                        self.replayed.lanes().get(subjects.lane.value(row) as usize).map(ToString::to_string).unwrap_or_default()
                    };
                    outcome.id_conflicts.push(format!(
                        "{} at {} offset {} and at {} offset {}",
                        subjects.event_id.value(row),
                        lane(first),
                        subjects.offset.get(first),
                        lane(row),
                        subjects.offset.get(row)
                    ));
                }
                return None;
            }
            let here = (subjects.lane.value(row), subjects.offset.get(row));
            // The same place twice is bus and archive serving one record, not a redelivery.
            if here != place {
                outcome.redelivered += 1;
                place = here;
            }
        }
        Some(first)
    }

    fn label(&self, claims: &Claims, mine: Range<usize>, types: usize, outcome: &mut ShardOutcome, sink: &mut Sink) {
        let mut at = mine.start;
        for label_type in 0..types {
            let start = at;
            while at < mine.end && claims.label_type.value(at) == label_type as i32 {
                at += 1;
            }
            let decision = self.resolve(claims, start..at, label_type, outcome);
            record(&decision, label_type, outcome, self.mature);
            sink.push(label_type, &decision);
        }
    }

    /// Latest observed wins among what was known; several values at that instant are a CONFLICT (O078, O080).
    fn resolve<'c>(&'c self, claims: &'c Claims, mine: Range<usize>, label_type: usize, outcome: &mut ShardOutcome) -> Decision<'c> {
        let mut chosen: Option<(usize, i64)> = None;
        let mut contradicted = false;
        let mut previous = None;
        for row in mine {
            // The same assertion twice, word for word, is one assertion. Its id may have been used again later.
            let said = (claims.assertion.value(row), claims.observed.is_valid(row).then(|| claims.observed.value(row)));
            if previous.replace(said) == Some(said) && self.assertions.inconsistent.is_empty() {
                continue;
            }
            if !self.trusted(claims, row, label_type, outcome) {
                continue;
            }
            let observed = claims.observed.value(row);
            if observed > self.cutoff.0 {
                self.late(claims, row, label_type, outcome);
                continue;
            }
            if let Some(counts) = outcome.types.get_mut(label_type) {
                counts.eligible += 1;
                near(&mut counts.before, self.cutoff.0.saturating_sub(observed));
            }
            match chosen {
                None => chosen = Some((row, observed)),
                Some((first, top)) => contradicted |= top == observed && claims.value.value(first) != claims.value.value(row),
            }
        }
        match chosen {
            None => Decision { status: 2, value: None, observed: None, assertion: None },
            Some((_, top)) if contradicted => Decision { status: 1, value: None, observed: Some(top), assertion: None },
            Some((row, top)) => {
                let value = self.vocabulary(label_type).get(claims.value.value(row) as usize).map(String::as_str);
                Decision { status: 0, value, observed: Some(top), assertion: Some(claims.assertion.value(row)) }
            }
        }
    }

    /// Whether an assertion about a row may be considered at all; what is wrong is a violation. The leak
    /// check looks at the assertion's own observed time, not at the column that was selected by (O087).
    fn trusted(&self, claims: &Claims, row: usize, label_type: usize, outcome: &mut ShardOutcome) -> bool {
        let flags = claims.flags.value(row);
        let observed = claims.observed.is_valid(row).then(|| claims.observed.value(row));
        let known = observed.is_some_and(|o| o <= self.cutoff.0);
        let (code, why, own) = if flags & OBSERVED_DIFFERS != 0 {
            let own = claims.embedded.is_valid(row).then(|| claims.embedded.value(row));
            let says = |t: Option<i64>| t.map_or("no instant".to_owned(), |t| Instant(t).to_string());
            (
                ReasonCode::LeakagePolicyViolation,
                format!("its column says observed {}, the assertion itself {}", says(observed), says(own)),
                own,
            )
        } else if flags & FAULTY != 0 {
            // Of what was observed later nothing is taken, so nothing in it can be wrong: but that it was later, both
            // of its copies have to say.
            if observed.is_some() && !known && flags & UNREAD == 0 {
                return true;
            }
            (ReasonCode::LabelTimelineInconsistent, claims.other_value.value(row).to_owned(), observed)
        } else if known
            && !self.assertions.inconsistent.is_empty()
            && self.assertions.inconsistent.contains(&id_digest(claims.assertion.value(row)))
        {
            (ReasonCode::LabelTimelineInconsistent, "this assertion id stands for two contents".to_owned(), observed)
        } else if flags & OBSERVED_BAD != 0 {
            (ReasonCode::LabelScopeInvalid, "its observed_time is not an RFC 3339 instant".to_owned(), observed)
        } else if known && flags & EFFECTIVE_BAD != 0 {
            (ReasonCode::LabelScopeInvalid, "its effective_time is not an RFC 3339 instant".to_owned(), observed)
        } else if known && claims.value.value(row) == OUTSIDE {
            let value = claims.other_value.is_valid(row).then(|| claims.other_value.value(row));
            let value = value.map_or("(none)".into(), |v| format!("`{}`", crate::text::clip(v, 60)));
            (ReasonCode::LabelSchemaIncompatible, format!("its value {value} is not in the vocabulary"), observed)
        } else {
            return true;
        };
        outcome.violation_total += 1;
        if let Some(counts) = outcome.types.get_mut(label_type) {
            counts.violations += 1;
        }
        outcome.violations.push(Violation {
            code,
            assertion: claims.assertion.value(row).to_owned(),
            event_id: claims.event_id.value(row).to_owned(),
            label_type,
            observed: own,
            delta_us: own.map(|o| o.saturating_sub(self.cutoff.0)),
            why,
        });
        if outcome.violations.len() >= 2 * KEPT {
            outcome.trim_violations();
        }
        false
    }

    fn vocabulary(&self, label_type: usize) -> &[String] {
        self.replayed.pinned().vocabulary().get(label_type).map(|(_, values)| values.as_slice()).unwrap_or_default()
    }

    fn late(&self, claims: &Claims, row: usize, label_type: usize, outcome: &mut ShardOutcome) {
        let observed = claims.observed.value(row);
        if let Some(counts) = outcome.types.get_mut(label_type) {
            counts.late += 1;
            near(&mut counts.after, observed.saturating_sub(self.cutoff.0));
        }
        outcome.late.push(Late {
            delta_us: observed.saturating_sub(self.cutoff.0),
            assertion: claims.assertion.value(row).to_owned(),
            event_id: claims.event_id.value(row).to_owned(),
            label_type,
            observed,
        });
        if outcome.late.len() >= 2 * KEPT {
            outcome.trim_late();
        }
    }
}

/// Counts a distance to the cut-off.
fn near(counts: &mut [u64; DISTANCES], distance_us: i64) {
    let place = DISTANCES_US.iter().position(|bound| distance_us <= *bound).unwrap_or(DISTANCES - 1);
    if let Some(count) = counts.get_mut(place) {
        *count += 1;
    }
}

fn record(decision: &Decision<'_>, label_type: usize, outcome: &mut ShardOutcome, mature: i64) {
    let Some(counts) = outcome.types.get_mut(label_type) else { return };
    match decision.status {
        0 => {
            counts.resolved += 1;
            counts.mature_selected += u64::from(decision.observed.is_some_and(|o| o <= mature));
            if let Some(value) = decision.value {
                match counts.values.get_mut(value) {
                    Some(n) => *n += 1,
                    None => drop(counts.values.insert(value.to_owned(), 1)),
                }
            }
        }
        1 => counts.conflict += 1,
        _ => counts.not_found += 1,
    }
    let text = |t: Option<&str>| t.map_or(u64::MAX, |t| t.len() as u64).to_le_bytes();
    outcome.selection.push(&[decision.status as u8]);
    outcome.selection.push(&decision.observed.unwrap_or(i64::MIN).to_le_bytes());
    for part in [decision.value, decision.assertion] {
        outcome.selection.push(&text(part));
        outcome.selection.push(part.unwrap_or_default().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_violations_the_worst_are_kept() {
        let violation = |code, n: usize| Violation {
            code,
            assertion: format!("a{n:05}"),
            event_id: String::new(),
            label_type: 0,
            observed: None,
            delta_us: None,
            why: String::new(),
        };
        let mut outcome = ShardOutcome::new(1);
        outcome.violations.extend((0..2 * KEPT).map(|n| violation(ReasonCode::LabelScopeInvalid, n)));
        outcome.violations.push(violation(ReasonCode::LeakagePolicyViolation, 99_999));
        outcome.trim_violations();
        assert_eq!((outcome.violations.len(), outcome.violations[0].code), (KEPT, ReasonCode::LeakagePolicyViolation));
        assert_eq!(outcome.violations[1].assertion, "a00000");
    }

    #[test]
    fn of_many_late_assertions_the_nearest_and_the_farthest_are_told() {
        let late = |delta_us: i64| Late { delta_us, assertion: String::new(), event_id: String::new(), label_type: 0, observed: delta_us };
        let mut whole = ShardOutcome::new(1);
        for shard in 0..3 {
            let mut part = ShardOutcome::new(1);
            part.late.extend((0..KEPT as i64).map(|n| late(1 + shard + n * 3)));
            whole.absorb(part);
        }
        let told: Vec<i64> = whole.late.iter().map(|l| l.delta_us).collect();
        let (half, last) = (KEPT as i64 / 2, 3 * KEPT as i64);
        assert_eq!(told, (1..=half).chain(last - half + 1..=last).collect::<Vec<_>>());
    }
}
