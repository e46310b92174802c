//! `ofs explain`: where one row comes from (O163). The row as it was published, beside what bus, archive and
//! timeline say about it now: the record, every event that each feature counted, every assertion about it
//! with what became of it, and the policy, definition, cut-off and code that it rests on.

mod told;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, RecordBatch};
use serde_json::{Value, json};

pub use view::{Contributor, Explanation, FeatureLine, LabelLine, Outcome, RowLine, RunLine, ServedLine};

use super::dataset::{Opened, batch, open_part};
use crate::contract::intent::Lane;
use crate::contract::{Offset, OffsetKind};
use crate::digest;
use crate::engine::cell::cell;
use crate::ledger::Ledger;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::label::story::{self, Considered, Decided, Question};
use crate::pipeline::lineage::{Feature, History, Lineage, Place, Served};
use crate::pipeline::pin;
use crate::source::labels;
use crate::store::{Ref, read};
use crate::time::Instant;

/// Contributing events that are listed for each feature unless told otherwise; their number is exact.
pub const LIMIT: usize = 20;

/// The row as it was published.
struct Published {
    batch: RecordBatch,
    line: RowLine,
    place: Place,
}

/// Explains one event of a published data set. Reads only.
///
/// # Errors
/// `DATASET_NOT_FOUND`, `DIGEST_MISMATCH` where what names the data set was altered, whatever keeps bus,
/// archive or timeline from being read, `MEMORY_BUDGET`, `INTERRUPTED`. That the sources now say something
/// else is no error but an answer: [`Explanation::holds`].
pub fn explain(env: &Env, ledger: Option<&Ledger>, manifest: &Ref, event_id: &str, limit: usize) -> Result<Explanation, Refusal> {
    let opened = Opened::open(env, manifest)?;
    let published = find_row(env, &opened, event_id)?;
    let lineage = Lineage::open(env, &opened.intent, &opened.group)?;
    let row = published.as_ref().map(|p| (p.line.key.as_str(), &p.place));
    let (found, history) = lineage.trace(event_id, row)?;
    let mut explanation = Explanation::new(&opened, event_id, rests_on(&opened));
    explanation.runs = runs(env, ledger, &opened, &mut explanation.notes);
    explanation.served = found.served.iter().map(ServedLine::of).collect();
    explanation.unusable = found.unusable;
    match published {
        Some(published) => {
            explanation.outcome = Outcome::Row;
            served(&published, &found.served, &mut explanation);
            explanation.features = history.map(|h| features(&h, &published, limit, &mut explanation.differences)).unwrap_or_default();
            labels_of(env, &opened, event_id, Some(&published.batch), &mut explanation)?;
            explanation.row = Some(published.line);
        }
        None if found.served.is_empty() => explanation.outcome = Outcome::NotInBasis,
        None => {
            let why = found.served.iter().find_map(|s| s.dropped.clone());
            let why = why.unwrap_or_else(|| "delivered now, but it is no row of the data set".into());
            explanation.outcome = Outcome::Dropped(why);
            labels_of(env, &opened, event_id, None, &mut explanation)?;
        }
    }
    Ok(explanation)
}

/// The row of an event, part by part: an event id says nothing about where its row is.
fn find_row(env: &Env, opened: &Opened, event_id: &str) -> Result<Option<Published>, Refusal> {
    env.progress.enter(Phase::Publication, opened.parts.len() as u64);
    for part in &opened.parts {
        let mut before = 0;
        for rows in open_part(&env.store, part)? {
            env.check(Phase::Publication)?;
            let rows = batch(part, rows)?;
            let ids = rows.column_by_name("event_id").and_then(|c| c.as_string_opt::<i32>());
            if let Some(at) = ids.and_then(|ids| ids.iter().position(|id| id == Some(event_id))) {
                return Ok(published(&rows.slice(at, 1), &part.at, before + at as u64));
            }
            before += rows.num_rows() as u64;
        }
        env.progress.advance(1);
    }
    Ok(None)
}

fn published(row: &RecordBatch, file: &Ref, number: u64) -> Option<Published> {
    let of = |name: &str| row.column_by_name(name).map(|c| cell(c.as_ref(), 0)).unwrap_or_default();
    let text = |name: &str| of(name).as_str().map(str::to_owned);
    let offset = text("offset").unwrap_or_else(|| of("offset").to_string());
    let lane = Lane {
        topic: text("topic")?,
        partition: i32::try_from(of("partition").as_i64()?).ok()?,
        kind: OffsetKind::parse(&text("offset_kind")?)?,
    };
    let place = Place { ts: Instant::parse(&text("ts_utc")?).ok()?, lane, offset: Offset::parse(&offset)? };
    let line = RowLine {
        file: file.clone(),
        number,
        row_id: text("row_id")?,
        place: place.clone(),
        payload_hash: text("payload_hash")?,
        key: text("key")?,
    };
    Some(Published { batch: row.clone(), line, place })
}

/// Whether the record that the row was made of is still served as it was.
fn served(published: &Published, found: &[Served], explanation: &mut Explanation) {
    let line = &published.line;
    let here: Vec<&Served> = found.iter().filter(|s| s.place.lane == line.place.lane && s.place.offset == line.place.offset).collect();
    if here.is_empty() {
        explanation.differences.push(format!("{} offset {} does not deliver this event any more", line.place.lane, line.place.offset));
    }
    for served in here {
        let hash = digest::hex(&served.payload_hash);
        if hash != line.payload_hash {
            explanation.differences.push(format!("{} now serves other content under this offset: {hash}", served.source));
        }
        if served.key.as_deref() != Some(&line.key) {
            explanation.differences.push(format!("{} now gives another key", served.source));
        }
    }
}

fn features(history: &History, published: &Published, limit: usize, differences: &mut Vec<String>) -> Vec<FeatureLine> {
    let lines: Vec<FeatureLine> = history.features.iter().map(|f| feature(history, f, published, limit)).collect();
    differences.extend(
        lines.iter().filter(|l| l.value != l.now).map(|l| format!("{}: the row says {}, its events give {}", l.column, l.value, l.now)),
    );
    lines
}

fn feature(history: &History, feature: &Feature, published: &Published, limit: usize) -> FeatureLine {
    let to = published.place.ts;
    let contributor = |position: &usize| {
        history.past(*position).map(|past| Contributor {
            value: feature.field.as_ref().map(|_| history.value(feature, *position)),
            arrived_later: past.place.lane == published.place.lane && past.place.offset > published.place.offset,
            past,
        })
    };
    // The newest tell most: they are what came last before the row.
    let skipped = feature.contributors.len().saturating_sub(limit);
    FeatureLine {
        column: feature.column.clone(),
        agg: feature.agg,
        field: feature.field.as_ref().map(|f| (f.name.clone(), f.field_type.to_string())),
        conditions: feature.conditions.clone(),
        window: feature.duration_us.map(|d| (Instant(to.0.saturating_sub(d)), to)),
        value: published.batch.column_by_name(&feature.column).map(|c| cell(c.as_ref(), 0)).unwrap_or_default(),
        now: feature.value.clone(),
        contributors_total: feature.contributors.len(),
        contributors: feature.contributors.iter().skip(skipped).filter_map(contributor).collect(),
    }
}

/// Every label type of the data set, and every assertion about the event.
fn labels_of(env: &Env, opened: &Opened, event_id: &str, row: Option<&RecordBatch>, explanation: &mut Explanation) -> Result<(), Refusal> {
    let timeline = labels::open(&env.config.path("labels")).map_err(|e| Refusal::new(e.code, Phase::Labels, e.to_string()))?;
    let known = vocabulary(env, opened, &mut explanation.notes);
    // A type that neither the data set nor the authority knows is no label type at all.
    let types: BTreeSet<String> = known.keys().cloned().chain(opened.intent.label_types.iter().cloned()).collect();
    let question = Question {
        platform_run_id: &opened.intent.platform_run_id,
        event_id,
        types: &types,
        cutoff: opened.intent.labels.asof,
        vocabulary: &known,
    };
    let (decided, considered) = story::tell(env, timeline.as_ref(), &opened.intent.label_types, &question)?;
    for name in &opened.intent.label_types {
        let now = decided.get(name).cloned();
        let line = label(name, row, now, considered.iter().filter(|c| c.label_type == *name).cloned().collect());
        if let (Some(was), Some(now)) = (&line.published, &line.now)
            && was != now
        {
            let message = format!("LABEL_STATE_DRIFT: label {name} was {}, the timeline now gives {}", words(was), words(now));
            explanation.differences.push(message);
        }
        explanation.labels.push(line);
    }
    let other = |c: &&Considered| !opened.intent.label_types.contains(&c.label_type);
    explanation.other_assertions = considered.iter().filter(other).cloned().collect();
    Ok(())
}

fn words(label: &Decided) -> String {
    match (&label.value, label.observed) {
        (Some(value), Some(observed)) => format!("{value} (observed {observed})"),
        (None, Some(observed)) => format!("{} at {observed}", label.status),
        _ => label.status.to_owned(),
    }
}

/// The label columns of the row, in the form in which the timeline's answer comes.
fn label(name: &str, row: Option<&RecordBatch>, now: Option<Decided>, considered: Vec<Considered>) -> LabelLine {
    let of = |row: &RecordBatch, suffix: &str| {
        let column = row.column_by_name(&format!("label_{name}{suffix}"));
        column.map(|c| cell(c.as_ref(), 0)).and_then(|v| v.as_str().map(str::to_owned))
    };
    let published = row.map(|row| {
        let status = of(row, "_status").unwrap_or_default();
        Decided {
            status: crate::pipeline::label::STATUS.iter().find(|s| **s == status).copied().unwrap_or("UNKNOWN"),
            value: of(row, ""),
            observed: of(row, "_observed_utc").and_then(|t| Instant::parse(&t).ok()),
            assertion_id: of(row, "_assertion_id"),
        }
    });
    LabelLine { label_type: name.to_owned(), published, now, considered }
}

/// The vocabulary that the data set was built with, where the authority still has it.
fn vocabulary(env: &Env, opened: &Opened, notes: &mut Vec<String>) -> BTreeMap<String, Vec<String>> {
    let wanted = opened.identity("label_vocabulary_digest");
    match pin::feature_authority(env) {
        Ok((profile, _)) if json!(profile.vocabulary_digest()) == wanted => profile.vocabulary,
        Ok(_) => {
            notes.push("the feature authority has another label vocabulary now, so values are not held against it".into());
            BTreeMap::new()
        }
        Err(refusal) => {
            notes.push(format!("the feature authority cannot be read, so values are not held against the vocabulary: {}", refusal.message));
            BTreeMap::new()
        }
    }
}

/// What all rows of the data set rest on.
fn rests_on(opened: &Opened) -> Value {
    let of = |key: &str| opened.identity(key);
    json!({
        "policy_revision": of("policy_revision"), "config_revision": of("config_revision"), "ofs_code_release_id": of("ofs_code_release_id"),
        "feature_definition_set": of("feature_definition_set"), "key_precedence": opened.group.key_precedence,
        "label_basis": of("label_basis"), "label_vocabulary_digest": of("label_vocabulary_digest"),
        "basis_hash": opened.index.get("basis_hash"), "scenario_run_ids": of("scenario_run_ids"), "filters": of("filters"), "join_scope": of("join_scope"),
        "correction_stamp": of("correction_stamp"), "rows_digest": opened.index.get("rows_digest"), "fingerprint": opened.index.get("fingerprint"),
    })
}

/// The runs that resolved to the data set, with the profile and the program that each ran under.
fn runs(env: &Env, ledger: Option<&Ledger>, opened: &Opened, notes: &mut Vec<String>) -> Vec<RunLine> {
    let rows = ledger.map_or_else(|| Ok(Vec::new()), |ledger| ledger.by_manifest(&opened.manifest_id)).unwrap_or_else(|e| {
        notes.push(format!("which runs resolved to the data set is UNKNOWN: {}: {e}", e.code()));
        Vec::new()
    });
    let line = |row: crate::ledger::RunRow| {
        let at = Ref::of(&[&opened.run, "ofs", "resolved_build_plan", &format!("{}.json", row.run_key)]);
        let plan = read(env.store.as_ref(), &at, 1 << 30).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let of = |pointer: &str| plan.as_ref().and_then(|p| p.pointer(pointer)).cloned().unwrap_or_default();
        RunLine {
            run_key: row.run_key,
            request_id: row.request_id.unwrap_or_default(),
            status: row.status,
            profile: of("/feature_profile"),
            running: of("/running"),
            run_facts: of("/run_facts"),
            plan_ref: at,
        }
    };
    rows.into_iter().map(line).collect()
}
