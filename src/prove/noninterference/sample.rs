//! Rows drawn from a published data set, and what depends on one of them: read from the rows alone, with no help of the
//! engine that computed them.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;

use super::draw::Draw;
use crate::contract::intent::Lane;
use crate::contract::profile::Availability;
use crate::contract::{Offset, OffsetKind};
use crate::engine::cell::cell;
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::lineage::Place;
use crate::prove::dataset::{Opened, batch, open_part};
use crate::time::Instant;

/// A drawn row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) event_id: String,
    pub(super) key: String,
    pub(super) place: Place,
    /// Type, value and assertion of every label that was resolved.
    pub(super) labels: Vec<(String, String, String)>,
}

/// Walks the rows of a data set in order.
fn walk(env: &Env, opened: &Opened, mut take: impl FnMut(u64, &RecordBatch, usize)) -> Result<(), Refusal> {
    let mut number = 0;
    for part in &opened.parts {
        for rows in open_part(&env.store, part)? {
            env.check(super::PHASE)?;
            let rows = batch(part, rows)?;
            for at in 0..rows.num_rows() {
                take(number, &rows, at);
                number += 1;
            }
        }
    }
    Ok(())
}

fn text(rows: &RecordBatch, name: &str, at: usize) -> Option<String> {
    rows.column_by_name(name).map(|c| cell(c.as_ref(), at)).and_then(|v| v.as_str().map(str::to_owned))
}

fn place(rows: &RecordBatch, at: usize) -> Option<Place> {
    let of = |name: &str| rows.column_by_name(name).map(|c| cell(c.as_ref(), at));
    let offset = of("offset")?;
    Some(Place {
        ts: Instant(rows.column_by_name("ts_utc")?.as_primitive_opt::<TimestampMicrosecondType>()?.value(at)),
        lane: Lane {
            topic: text(rows, "topic", at)?,
            partition: i32::try_from(of("partition")?.as_i64()?).ok()?,
            kind: OffsetKind::parse(&text(rows, "offset_kind", at)?)?,
        },
        offset: Offset::parse(&offset.as_str().map_or_else(|| offset.to_string(), str::to_owned))?,
    })
}

fn sample(opened: &Opened, rows: &RecordBatch, at: usize) -> Option<Sample> {
    let label = |name: &String| {
        let of = |suffix: &str| text(rows, &format!("label_{name}{suffix}"), at);
        Some((name.clone(), of("")?, of("_assertion_id")?))
    };
    Some(Sample {
        event_id: text(rows, "event_id", at)?,
        key: text(rows, "key", at)?,
        place: place(rows, at)?,
        labels: opened.intent.label_types.iter().filter_map(label).collect(),
    })
}

/// Draws rows in canonical order; all of them where there are no more.
pub(super) fn draw(env: &Env, opened: &Opened, seed: u64, count: u64) -> Result<Vec<Sample>, Refusal> {
    let rows = opened.index.get("rows").and_then(serde_json::Value::as_u64).unwrap_or_default();
    let mut choices = Draw::new(seed, &["samples"]);
    let mut wanted = std::collections::BTreeSet::new();
    while (wanted.len() as u64) < count.min(rows) {
        wanted.insert(choices.below(rows));
    }
    let mut samples = Vec::new();
    walk(env, opened, |number, rows, at| {
        if wanted.contains(&number) {
            samples.extend(sample(opened, rows, at));
        }
    })?;
    Ok(samples)
}

/// The rows that an event counts for, with each window's own: those of its key, not before it, and less than the
/// window after it; where rows see by arrival, none of its partition that had come before it.
pub(super) struct Dependents {
    /// Event ids of the rows within the window of this length in microseconds.
    pub(super) by_window: Vec<(i64, std::collections::BTreeSet<String>)>,
}

/// Finds them.
pub(super) fn dependents(env: &Env, opened: &Opened, of: &Sample) -> Result<Dependents, Refusal> {
    let mut by_window: Vec<_> = opened.group.windows.iter().map(|w| (w.duration_us, std::collections::BTreeSet::new())).collect();
    walk(env, opened, |_, rows, at| {
        if text(rows, "key", at).as_deref() != Some(&of.key) {
            return;
        }
        let (Some(here), Some(id)) = (place(rows, at), text(rows, "event_id", at)) else { return };
        let unseen = opened.group.availability == Availability::Arrival && here.lane == of.place.lane && here.offset < of.place.offset;
        if here < of.place || unseen {
            return;
        }
        for (duration, ids) in &mut by_window {
            if here.ts.0.saturating_sub(*duration) < of.place.ts.0 {
                ids.insert(id.clone());
            }
        }
    })?;
    Ok(Dependents { by_window })
}

/// How many rows stand up to a place.
pub(super) fn up_to(env: &Env, opened: &Opened, end: &Place) -> Result<u64, Refusal> {
    let mut count = 0;
    walk(env, opened, |_, rows, at| count += u64::from(place(rows, at).is_some_and(|here| here <= *end)))?;
    Ok(count)
}
