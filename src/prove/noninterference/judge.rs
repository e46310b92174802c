//! What a world must have come to. Judged by the rows alone: what depends on a change follows from key, time and window
//! of each row, never from the engine that computed it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::sample::{self, Sample};
use super::view::Check;
use super::{Built, PHASE, Subject};
use crate::contract::profile::{Agg, FieldType};
use crate::pipeline::feature::Drafted;
use crate::pipeline::gate::{Phase, Refusal};
use crate::prove::dataset::{Opened, Part};
use crate::prove::diff::{self, Change, ChangedRow, Diff, DiffSide};

/// Most changed rows that are judged one by one; more than these are interference of their own.
const JUDGED: usize = 100_000;

/// Takes note of a refusal where rows were wanted. Events that cannot be replayed from the raw archive alone, as where
/// a sparse range is proved by a sealed segment, say nothing about the rows.
pub(super) fn refused(mut check: Check, refusal: &Refusal) -> Check {
    if refusal.phase == Phase::Replay {
        return check.uncheckable(format!("its events could not be replayed, {}: {}", refusal.code, refusal.message));
    }
    check.interference(format!("the build was refused with {}: {}", refusal.code, refusal.message));
    check
}

/// How the rows of a draft differ from the published ones.
fn differing(subject: &Subject<'_>, built: &Built, drafted: &Drafted, limit: usize) -> Result<Diff, Refusal> {
    let opened = subject.opened;
    let side = |rows_digest: &str| DiffSide {
        manifest_id: opened.manifest_id.clone(),
        manifest_ref: opened.manifest_ref.clone(),
        rows_digest: rows_digest.to_owned(),
        rows: 0,
    };
    let published = opened.index.get("rows_digest").and_then(Value::as_str).unwrap_or_default();
    let mut diff = Diff::new(side(published), side(drafted.rows_digest()), Vec::new());
    let staged =
        |f: &crate::pipeline::feature::PartFile| Part { at: drafted.staged_ref(f), bytes: f.stats.bytes, blake3: f.stats.blake3.clone() };
    let left = diff::open_rows(subject.env, &subject.env.store, opened.parts.clone())?;
    let right = diff::open_rows(subject.env, &built.store, drafted.files().iter().map(staged).collect())?;
    diff::merge(left, right, &diff::Rebuild, limit, &mut diff)?;
    Ok(diff)
}

fn counted(mut check: Check, built: &Built) -> Check {
    check.changed_inputs = built.made.changed;
    check
}

/// Rows and proofs are those that were published.
pub(super) fn unmoved(subject: &Subject<'_>, built: Built, check: Check) -> Result<Check, Refusal> {
    let mut check = counted(check, &built);
    let drafted = match &built.draft {
        Ok(drafted) => drafted,
        Err(refusal) => return Ok(refused(check, refusal)),
    };
    if subject.opened.index.get("rows_digest") != Some(&json!(drafted.rows_digest())) {
        let diff = differing(subject, &built, drafted, JUDGED)?;
        check.changed_rows = diff.rows.added + diff.rows.removed + diff.rows.changed;
        check.equal_rows = diff.unchanged;
        rows_of(&diff).for_each(|row| check.interference(row));
        // Whatever the columns say, another digest is another data set.
        check.interference(format!("rows_digest {}", drafted.rows_digest()));
        return Ok(check);
    }
    check.equal_rows = drafted.rows();
    for (name, proof) in drafted.proofs() {
        let digest = blake3::hash(&crate::pipeline::gate::document(proof)).to_hex().to_string();
        if subject.opened.index.pointer(&format!("/evidence/{name}/blake3")) != Some(&json!(digest)) {
            check.interference(format!("the proof of the {name} is another one"));
        }
    }
    Ok(check)
}

/// Every differing row in words.
fn rows_of(diff: &Diff) -> impl Iterator<Item = String> + '_ {
    let alone = |list: &'_ [(diff::RowRef, diff::Cause)], what: &'static str| -> Vec<String> {
        list.iter().map(|(row, _)| format!("{} {what}", row.event_id)).collect()
    };
    let changed = diff.changed.iter().map(told);
    changed.chain(alone(&diff.removed, "is gone")).chain(alone(&diff.added, "is new"))
}

fn told(row: &ChangedRow) -> String {
    let first = row.changes.first().map(|c| format!("{} was {}, is {}", c.column, c.left, c.right)).unwrap_or_default();
    format!("{}: {first}", row.row.event_id)
}

/// No row up to the drawn one differs. Rows come in canonical order, so that the first that differ are the first
/// of all.
pub(super) fn unmoved_before(subject: &Subject<'_>, built: Built, sample: &Sample, check: Check) -> Result<Check, Refusal> {
    let mut check = counted(check, &built);
    let drafted = match &built.draft {
        Ok(drafted) => drafted,
        Err(refusal) => return Ok(refused(check, refusal)),
    };
    let diff = differing(subject, &built, drafted, 8)?;
    check.changed_rows = diff.rows.added + diff.rows.removed + diff.rows.changed;
    let before = |place: &crate::pipeline::lineage::Place| *place <= sample.place;
    for row in diff.changed.iter().filter(|c| before(&c.row.place)) {
        check.interference(told(row));
    }
    for (list, what) in [(&diff.removed, "is gone"), (&diff.added, "is new")] {
        for (row, _) in list.iter().filter(|(row, _)| before(&row.place)) {
            check.interference(format!("{} {what}", row.event_id));
        }
    }
    check.equal_rows = sample::up_to(subject.env, subject.opened, &sample.place)?;
    Ok(check)
}

/// One row has another label, and nothing else differs.
pub(super) fn label_moved(subject: &Subject<'_>, built: Built, sample: &Sample, label: &str, check: Check) -> Result<Check, Refusal> {
    let mut check = counted(check, &built);
    let Ok(drafted) = &built.draft else { return Ok(check) };
    let diff = differing(subject, &built, drafted, JUDGED)?;
    (check.dependent_rows, check.changed_rows, check.equal_rows) = (Some(1), diff.rows.changed, diff.unchanged);
    let lawful = BTreeSet::from(["", "_status", "_observed_utc", "_assertion_id"].map(|end| format!("label_{label}{end}")));
    moved(&diff, &BTreeMap::from([(sample.event_id.clone(), lawful)]), &mut check);
    if !diff.changed.iter().any(|row| row.row.event_id == sample.event_id) {
        check.interference(format!("{}: label_{label} did not change with its assertion", sample.event_id));
    }
    Ok(check)
}

/// No row is new or gone, and each that differs does so where it may.
fn moved(diff: &Diff, lawful: &BTreeMap<String, BTreeSet<String>>, check: &mut Check) {
    for (list, what) in [(&diff.removed, "is gone"), (&diff.added, "is new")] {
        list.iter().for_each(|(row, _)| check.interference(format!("{} {what}", row.event_id)));
    }
    if diff.rows.changed > diff.changed.len() as u64 {
        check.interference(format!("{} rows changed", diff.rows.changed));
    }
    for row in &diff.changed {
        let may = lawful.get(&row.row.event_id);
        for change in row.changes.iter().filter(|c| may.is_none_or(|columns| !columns.contains(&c.column))) {
            check.interference(format!("{}: {} was {}, is {}", row.row.event_id, change.column, change.left, change.right));
        }
    }
}

/// The numeric payload fields that features read, those of sums first; none that selects events, keys or rows.
pub(super) fn amounts(opened: &Opened) -> Vec<String> {
    let (group, intent) = (&opened.group, &opened.intent);
    let mut fields: Vec<(bool, String)> = Vec::new();
    for feature in &group.features {
        let Some((name, FieldType::Int64 | FieldType::Float64 | FieldType::Decimal(..))) = &feature.input else { continue };
        let selects = group.key_precedence.contains(name)
            || intent.row_filters.iter().any(|f| f.field == *name)
            || group.features.iter().any(|f| f.conditions.contains_key(name));
        if !selects && !fields.iter().any(|(_, known)| known == name) {
            fields.push((feature.agg != Agg::Sum, name.clone()));
        }
    }
    fields.sort_by_key(|(not_a_sum, _)| *not_a_sum);
    fields.into_iter().map(|(_, name)| name).collect()
}

/// What a number of an event must do to the columns.
struct Reach {
    /// Columns that each row may change in.
    lawful: BTreeMap<String, BTreeSet<String>>,
    /// Exact sums without condition, each with the rows in which it must have changed by just as much.
    sums: Vec<(String, BTreeSet<String>)>,
}

fn reach(subject: &Subject<'_>, sample: &Sample, field: &str) -> Result<Reach, Refusal> {
    let group = &subject.opened.group;
    let dependents = sample::dependents(subject.env, subject.opened, sample)?;
    let mut reach = Reach { lawful: BTreeMap::new(), sums: Vec::new() };
    // The event is another one, whatever it counts for.
    reach.lawful.entry(sample.event_id.clone()).or_default().insert("payload_hash".into());
    for feature in group.features.iter().filter(|f| f.input.as_ref().is_some_and(|(name, _)| name == field)) {
        let exact = matches!(feature.input, Some((_, FieldType::Int64 | FieldType::Decimal(..))));
        for (column, (_, rows)) in group.columns_of(feature).into_iter().zip(&dependents.by_window) {
            for row in rows {
                reach.lawful.entry(row.clone()).or_default().insert(column.clone());
            }
            if feature.agg == Agg::Sum && exact && feature.conditions.is_empty() {
                reach.sums.push((column, rows.clone()));
            }
        }
    }
    Ok(reach)
}

/// Rows change where the event counts for them, and the sums among their columns by as much as it did.
pub(super) fn amount_moved(subject: &Subject<'_>, built: Built, sample: &Sample, field: &str, check: Check) -> Result<Check, Refusal> {
    let mut check = counted(check, &built);
    let Ok(drafted) = &built.draft else { return Ok(check) };
    let reach = reach(subject, sample, field)?;
    let diff = differing(subject, &built, drafted, JUDGED)?;
    (check.dependent_rows, check.changed_rows, check.equal_rows) = (Some(reach.lawful.len() as u64), diff.rows.changed, diff.unchanged);
    moved(&diff, &reach.lawful, &mut check);
    let changed: BTreeMap<&str, &ChangedRow> = diff.changed.iter().map(|row| (row.row.event_id.as_str(), row)).collect();
    let change = |row: &str, column: &str| changed.get(row).and_then(|r| r.changes.iter().find(|c| c.column == column));
    if change(&sample.event_id, "payload_hash").is_none() {
        check.interference(format!("{}: payload_hash did not change with the payload", sample.event_id));
    }
    for (column, rows) in &reach.sums {
        for row in rows {
            if !change(row, column).is_some_and(|c| grew(c, built.made.by)) {
                check.interference(format!("{row}: {column} did not change by {}", built.made.by));
            }
        }
    }
    subject.env.check(PHASE)?;
    Ok(check)
}

/// Whether an exact value grew by so many units.
fn grew(change: &Change, by: i64) -> bool {
    let exact = |value: &Value| -> Option<(i128, u32)> {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let scale = text.split_once('.').map_or(0, |(_, fraction)| fraction.len() as u32);
        Some((text.replace('.', "").parse().ok()?, scale))
    };
    let Some(((left, scale), (right, same))) = exact(&change.left).zip(exact(&change.right)) else { return false };
    let unit = 10i128.checked_pow(scale).and_then(|unit| unit.checked_mul(i128::from(by)));
    scale == same && unit.is_some_and(|unit| right.checked_sub(left) == Some(unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::OffsetKind;
    use crate::contract::intent::Lane;
    use crate::pipeline::lineage::Place;
    use crate::prove::diff::{Cause, RowRef};
    use crate::prove::noninterference::view::Verdict;
    use crate::store::Ref;
    use crate::time::Instant;

    fn row(event: &str) -> RowRef {
        let lane = Lane { topic: "t".into(), partition: 0, kind: OffsetKind::KafkaOffset };
        RowRef { event_id: event.into(), key: "k".into(), place: Place { ts: Instant(0), lane, offset: 0.into() } }
    }

    fn change(column: &str, left: Value, right: Value) -> Change {
        Change { column: column.into(), left, right, cause: Cause::Content }
    }

    fn diff() -> Diff {
        let side = || DiffSide { manifest_id: "m".into(), manifest_ref: Ref::of(&["m"]), rows_digest: String::new(), rows: 0 };
        Diff::new(side(), side(), Vec::new())
    }

    /// What a difference comes to where `a` may change in `x`.
    fn verdict(diff: &Diff) -> Verdict {
        let lawful = BTreeMap::from([("a".to_owned(), BTreeSet::from(["x".to_owned()]))]);
        let mut check = Check::new("one amount", "");
        moved(diff, &lawful, &mut check);
        check.verdict
    }

    #[test]
    fn a_row_that_changes_where_it_may_not_is_interference() {
        let changed = |event: &str, column: &str| {
            let mut diff = diff();
            diff.changed = vec![ChangedRow { row: row(event), changes: vec![change(column, json!(1), json!(2))] }];
            diff.rows.changed = 1;
            diff
        };
        assert_eq!(verdict(&changed("a", "x")), Verdict::Holds);
        assert_eq!(verdict(&changed("a", "y")), Verdict::Interference);
        assert_eq!(verdict(&changed("b", "x")), Verdict::Interference);
        let mut more = changed("a", "x");
        more.rows.changed = 2;
        assert_eq!(verdict(&more), Verdict::Interference);
        let (mut gone, mut new) = (diff(), diff());
        gone.removed = vec![(row("a"), Cause::Content)];
        new.added = vec![(row("a"), Cause::Content)];
        assert_eq!((verdict(&gone), verdict(&new)), (Verdict::Interference, Verdict::Interference));
    }

    #[test]
    fn a_sum_grows_by_exactly_what_was_added() {
        for (left, right, by, holds) in [
            (json!(5), json!(12), 7, true),
            (json!(5), json!(11), 7, false),
            (json!(-5), json!(-12), -7, true),
            (json!("-0.50"), json!("6.50"), 7, true),
            (json!("1.5"), json!("8.50"), 7, false),
            (json!(null), json!(7), 7, false),
        ] {
            assert_eq!(grew(&change("x", left.clone(), right.clone()), by), holds, "{left} {right}");
        }
    }
}
