//! The parts of a data set: each file against its digest, and every row against its schema, its place in
//! canonical order, its id, the basis and the label cut-off. Parts are read in parallel; what they say is
//! put together in their order, so the digest is that of the rows in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, AsArray, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int32Type, Schema, TimestampMicrosecondType};
use bytes::Bytes;
use serde_json::{Value, json};

use super::parts::{self, FIXED, File, names};
use super::{Findings, Kind, Place, Stored};
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, OffsetKind};
use crate::digest::{hex, push_hex, unhex32};
use crate::engine::dataset_file::{read_part, schema_of};
use crate::engine::digest::{Hash, Tree, leaves, schema_digest};
use crate::engine::offsets::Offsets;
use crate::identity::{RowIds, RowPlace};
use crate::pipeline::feature::schema_json;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::label::STATUS;
use crate::pipeline::parallel::{self, InOrder};
use crate::store::{Ref, read};
use crate::time::Instant;

/// What the parts say together.
pub(super) struct Outcome {
    pub(super) rows: u64,
    /// Nothing where some part could not be read.
    pub(super) read: Option<Read>,
}

/// What was computed from the rows alone.
pub(super) struct Read {
    pub(super) rows_digest: String,
    pub(super) schema_digest: String,
    pub(super) features: Vec<String>,
    pub(super) labels: Vec<[u64; 3]>,
    pub(super) range: (Instant, Instant),
}

/// A place in canonical order: event time, number of the lane in the basis, offset.
type Key = (i64, usize, Offset);

/// The lanes of the basis in order, so that their numbers order as they do.
type Basis = Vec<(Lane, Vec<OffsetRange>)>;

/// What one part says.
struct Part {
    findings: Findings,
    leaves: Vec<Hash>,
    ends: Option<(Key, Key)>,
    range: (i64, i64),
    labels: Vec<[u64; 3]>,
    whole: bool,
}

/// What every row is held against.
struct Frame<'f> {
    env: &'f Env,
    run: &'f str,
    group_digest: &'f str,
    asof: i64,
    basis: Basis,
    schema: &'f Value,
    label_types: Vec<String>,
}

/// Reads every part and every row.
///
/// # Errors
/// `INTERRUPTED`; everything else is a finding.
pub(super) fn check(env: &Env, place: &Place, index: &Stored, findings: &mut Findings) -> Result<Outcome, Refusal> {
    let files = parts::files(place, index, findings);
    let null = Value::Null;
    let frame = Frame {
        env,
        run: index.text("/identity/platform_run_id"),
        group_digest: index.text("/identity/feature_definition_set/group_digest"),
        asof: Instant::parse(index.text("/identity/label_basis/label_asof_utc")).map_or(i64::MIN, |i| i.0),
        basis: basis(index),
        schema: index.get("/schema").unwrap_or(&null),
        label_types: parts::label_types(index),
    };
    parts::check_columns(index, findings);
    env.progress.enter(Phase::Publication, files.len() as u64);
    let together = Mutex::new((InOrder::new(), Together::new(findings, &frame)));
    parallel::each(
        env,
        Phase::Publication,
        files.len(),
        || (),
        |(), at| {
            if let Some(file) = files.get(at) {
                let part = frame.part(file);
                let (parts, together) = &mut *together.lock().unwrap_or_else(PoisonError::into_inner);
                parts.put(at, (&file.at, part), |(at, part)| together.join(at, part));
            }
            env.progress.advance(1);
            Ok(())
        },
        |()| Ok(()),
    )?;
    let (_, together) = together.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rows = together.tree.count();
    let read = together.finish(&files);
    Ok(Outcome { rows, read })
}

fn basis(index: &Stored) -> Basis {
    let mut lanes: BTreeMap<Lane, Vec<OffsetRange>> = BTreeMap::new();
    for slice in index.get("/identity/replay_basis").and_then(Value::as_array).into_iter().flatten() {
        let text = |key: &str| slice.get(key).and_then(Value::as_str).unwrap_or_default();
        let partition = slice.get("partition").and_then(Value::as_i64).and_then(|n| i32::try_from(n).ok());
        let range = Offset::parse(text("start_offset")).zip(Offset::parse(text("end_offset")));
        if let (Some(partition), Some(kind), Some((start, end))) = (partition, OffsetKind::parse(text("offset_kind")), range) {
            lanes.entry(Lane { topic: text("topic").to_owned(), partition, kind }).or_default().push(OffsetRange { start, end });
        }
    }
    lanes.into_iter().collect()
}

/// The parts so far, in order.
struct Together<'t> {
    findings: &'t mut Findings,
    frame: &'t Frame<'t>,
    tree: Tree,
    last: Option<Key>,
    labels: Vec<[u64; 3]>,
    range: (i64, i64),
    whole: bool,
}

impl<'t> Together<'t> {
    fn new(findings: &'t mut Findings, frame: &'t Frame<'t>) -> Self {
        Together {
            findings,
            frame,
            tree: Tree::new(),
            last: None,
            labels: vec![[0; 3]; frame.label_types.len()],
            range: (i64::MAX, i64::MIN),
            whole: true,
        }
    }

    /// Adds the part that comes next. Within a part order was checked by its reader; between parts it is checked here.
    fn join(&mut self, at: &Ref, part: Part) {
        self.findings.take(part.findings);
        self.findings.checked += 1;
        self.whole &= part.whole;
        self.tree.extend(&part.leaves);
        self.range = (self.range.0.min(part.range.0), self.range.1.max(part.range.1));
        for (sum, counts) in self.labels.iter_mut().zip(&part.labels) {
            sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
        }
        if let Some((first, last)) = part.ends {
            if self.last.is_some_and(|before| before >= first) {
                self.findings.add(at, Kind::Order, "rows after those of the part before", self.frame.brief_key(first));
            }
            self.last = Some(last);
        }
    }

    fn finish(self, files: &[File]) -> Option<Read> {
        // The schema of the digest is that of the files; each was held against the index by its reader.
        let (frame, first) = (self.frame, files.first().filter(|_| self.whole)?);
        let limit = first.entry.get("bytes").and_then(Value::as_u64)?;
        let schema = schema_of(Bytes::from(read(frame.env.store.as_ref(), &first.at, limit).ok()?)).ok()?;
        let digest = schema_digest(&schema).ok()?;
        let names = names(frame.schema);
        let features = names.len().saturating_sub(FIXED.len() + 4 * frame.label_types.len());
        Some(Read {
            rows_digest: hex(&self.tree.root(&digest)),
            schema_digest: hex(&digest),
            features: names.into_iter().skip(FIXED.len()).take(features).map(str::to_owned).collect(),
            labels: self.labels,
            range: (Instant(self.range.0), Instant(self.range.1)),
        })
    }
}

impl Frame<'_> {
    fn brief_key(&self, (ts, lane, offset): Key) -> String {
        let lane = self.basis.get(lane).map(|(lane, _)| lane.to_string()).unwrap_or_default();
        format!("{} {lane} offset {offset}", Instant(ts))
    }

    /// The number of a lane of the basis.
    fn lane(&self, topic: &str, partition: i32, kind: &str) -> Option<usize> {
        let wanted = (topic, partition, OffsetKind::parse(kind)?);
        self.basis.binary_search_by(|(lane, _)| (lane.topic.as_str(), lane.partition, lane.kind).cmp(&wanted)).ok()
    }

    fn part(&self, file: &File) -> Part {
        let mut part = Part {
            findings: Findings::default(),
            leaves: Vec::new(),
            ends: None,
            range: (i64::MAX, i64::MIN),
            labels: vec![[0; 3]; self.label_types.len()],
            whole: false,
        };
        if let Some(bytes) = file.read(self.env, &mut part.findings) {
            let rows = self.rows(file, bytes, &mut part);
            if let Err(message) = rows {
                part.findings.hold(false, &file.at, Kind::Unreadable, "a Parquet file", message);
            }
        }
        part
    }

    fn rows(&self, file: &File, bytes: Bytes, part: &mut Part) -> Result<(), String> {
        let schema = schema_of(bytes.clone())?;
        if !part.findings.same(&file.at, Kind::Schema, "schema", Some(self.schema), Some(&schema_json(&schema))) {
            return Ok(());
        }
        let mut rows = Rows::new(self, file, &schema);
        for batch in read_part(bytes)? {
            let batch = batch.map_err(|e| e.to_string())?;
            part.leaves.extend(leaves(&batch).map_err(|e| e.to_string())?);
            rows.batch(&batch, part)?;
        }
        part.findings.checked += part.leaves.len() as u64;
        let count = part.leaves.len();
        let stands = file.entry.get("rows");
        part.findings.same(&file.at, Kind::Rows, "rows", stands, Some(&json!(count)));
        let stamp = |ts: i64| if count == 0 { Value::Null } else { json!(Instant(ts)) };
        part.findings.same(&file.at, Kind::Rows, "min_ts_utc", file.entry.get("min_ts_utc"), Some(&stamp(part.range.0)));
        part.findings.same(&file.at, Kind::Rows, "max_ts_utc", file.entry.get("max_ts_utc"), Some(&stamp(part.range.1)));
        part.whole = true;
        Ok(())
    }
}

/// Walks the rows of one part.
struct Rows<'r> {
    frame: &'r Frame<'r>,
    file: &'r File,
    ids: RowIds,
    /// The lane of the row before, which is often that of the next one.
    lane: Option<usize>,
    last: Option<Key>,
    /// Kinds reported for this part: one example of each says enough.
    told: BTreeSet<Kind>,
    label_columns: Vec<usize>,
    row: u64,
}

impl<'r> Rows<'r> {
    fn new(frame: &'r Frame<'r>, file: &'r File, schema: &Schema) -> Self {
        let label_columns = frame.label_types.iter().filter_map(|t| schema.index_of(&format!("label_{t}")).ok()).collect();
        let ids = RowIds::new(frame.run, frame.group_digest);
        Rows { frame, file, ids, lane: None, last: None, told: BTreeSet::new(), label_columns, row: 0 }
    }

    fn tell(&mut self, part: &mut Part, kind: Kind, expected: &str, found: String) {
        if self.told.insert(kind) {
            part.findings.add(&self.file.at, kind, expected, format_args!("row {}: {found}", self.row));
        }
    }

    fn batch(&mut self, batch: &RecordBatch, part: &mut Part) -> Result<(), String> {
        let missing = || "a column is missing or of another type".to_owned();
        let column = |at: usize| batch.columns().get(at).ok_or_else(missing);
        let text = |at: usize| -> Result<&StringArray, String> { column(at)?.as_string_opt().ok_or_else(missing) };
        let (ids, events, topics, kinds, hashes) = (text(0)?, text(1)?, text(3)?, text(6)?, text(7)?);
        let stamps: &TimestampMicrosecondArray = column(2)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(missing)?;
        let partitions: &Int32Array = column(4)?.as_primitive_opt::<Int32Type>().ok_or_else(missing)?;
        let offsets = Offsets::of(column(5)?.as_ref()).map_err(|_| missing())?;
        let mut written = String::new();
        for row in 0..batch.num_rows() {
            let ts = stamps.value(row);
            part.range = (part.range.0.min(ts), part.range.1.max(ts));
            written.clear();
            offsets.write(row, &mut written);
            let place = (topics.value(row), partitions.value(row), kinds.value(row));
            let hash = unhex32(hashes.value(row)).unwrap_or_default();
            let (topic, partition, offset_kind) = place;
            self.ids.push(RowPlace { event_id: events.value(row), topic, partition, offset_kind, offset: &written, payload_hash: &hash });
            self.place(ts, place, offsets.checked(row), part);
            self.row += 1;
        }
        self.row_ids(ids, part);
        self.labels(batch, part)
    }

    /// Every row of the batch that was just walked has the id that its place and content give it.
    fn row_ids(&mut self, stated: &StringArray, part: &mut Part) {
        let ids: Vec<[u8; 16]> = self.ids.take().collect();
        self.row = self.row.saturating_sub(ids.len() as u64);
        let mut text = Vec::with_capacity(32);
        for (row, id) in ids.iter().enumerate() {
            text.clear();
            push_hex(id, &mut text);
            if text != stated.value(row).as_bytes() {
                self.tell(part, Kind::RowId, &hex(id), stated.value(row).to_owned());
            }
            self.row += 1;
        }
    }

    /// The row lies within the basis and after the row before it.
    fn place(&mut self, ts: i64, (topic, partition, kind): (&str, i32, &str), offset: Option<Offset>, part: &mut Part) {
        let basis = |lane: usize| self.frame.basis.get(lane);
        let same = |(l, _): &(Lane, _)| l.partition == partition && l.topic == topic && l.kind.as_str() == kind;
        if !self.lane.and_then(basis).is_some_and(same) {
            self.lane = self.frame.lane(topic, partition, kind);
        }
        let inside = |lane: usize, offset: Offset| basis(lane).is_some_and(|(_, ranges)| ranges.iter().any(|r| r.contains(offset)));
        let Some((lane, offset)) = self.lane.zip(offset).filter(|(lane, offset)| inside(*lane, *offset)) else {
            return self.tell(part, Kind::OutsideBasis, "an offset of the replay basis", format!("{topic}/{partition} {kind}"));
        };
        let key = (ts, lane, offset);
        if self.last.is_some_and(|last| last >= key) {
            self.tell(part, Kind::Order, "rows in canonical order", self.frame.brief_key(key));
        }
        part.ends = Some((part.ends.map_or(key, |(first, _)| first), key));
        self.last = Some(key);
    }

    /// No label that was not known at the cut-off, and none where none was resolved (O074, O084).
    fn labels(&mut self, batch: &RecordBatch, part: &mut Part) -> Result<(), String> {
        let missing = || "a label column is missing or of another type".to_owned();
        for (name, at) in self.label_columns.clone().into_iter().enumerate() {
            let column = |shift: usize| batch.columns().get(at + shift).ok_or_else(missing);
            let text = |shift: usize| -> Result<&StringArray, String> { column(shift)?.as_string_opt().ok_or_else(missing) };
            let (values, states, assertions) = (text(0)?, text(1)?, text(3)?);
            let observed: &TimestampMicrosecondArray = column(2)?.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(missing)?;
            for row in 0..batch.num_rows() {
                let state = STATUS.iter().position(|s| *s == states.value(row));
                if let Some(count) = part.labels.get_mut(name).and_then(|c| c.get_mut(state.unwrap_or(usize::MAX))) {
                    *count += 1;
                }
                let resolved = state == Some(0);
                let lawful = values.is_valid(row) == resolved
                    && assertions.is_valid(row) == resolved
                    && observed.is_valid(row) == matches!(state, Some(0 | 1));
                let known = observed.is_null(row) || observed.value(row) <= self.frame.asof;
                if !lawful || !known {
                    let found =
                        format!("{} with value {}, observed {}", states.value(row), values.is_valid(row), Instant(observed.value(row)));
                    self.tell(part, Kind::Leakage, "a label that was resolved from what was known at the cut-off", found);
                }
            }
        }
        Ok(())
    }
}
