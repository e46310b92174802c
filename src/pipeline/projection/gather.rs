//! Delivered events on their way to the spools, one by one or as whole columns. Both ways end in the same
//! columns, which the two spools share.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBuilder, Decimal128Builder, FixedSizeBinaryBuilder, Float64Builder, Int32Array, Int32Builder,
    Int64Array, Int64Builder, RecordBatch, StringArray, StringBuilder,
};
use arrow::compute::{filter, is_not_null};

use super::{FieldSpec, NO_KEY, Projection};
use crate::contract::Offset;
use crate::contract::profile::FieldType;
use crate::engine::EngineError;
use crate::engine::offsets::Offsets;
use crate::engine::shard::shard_of;
use crate::engine::spool::{Spool, full};
use crate::source::{Columns, EventRecord, Field as Found, FieldValues, equals};

/// A payload value that does not fit its declared type; the first in canonical place order is reported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueFault {
    /// Lane number.
    pub lane: i32,
    /// Offset.
    pub offset: Offset,
    /// Payload field.
    pub field: String,
    /// Declared type.
    pub declared: String,
    /// What is there, clipped.
    pub found: String,
}

/// Values that did not fit.
#[derive(Debug, Default)]
struct Faults {
    first: Option<ValueFault>,
    total: u64,
}

impl Faults {
    fn add(&mut self, lane: i32, offset: Offset, spec: &FieldSpec, item: Option<Found<'_>>) {
        self.total += 1;
        let found = item.map(|i| crate::text::clip(&i.raw(), 40).into_owned()).unwrap_or_default();
        let fault = ValueFault { lane, offset, field: spec.name.clone(), declared: spec.field_type.to_string(), found };
        if self.first.as_ref().is_none_or(|earlier| fault < *earlier) {
            self.first = Some(fault);
        }
    }
}

enum ColumnBuilder {
    Int64(Int64Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder, u8, u8),
    Utf8(StringBuilder),
    Bool(BooleanBuilder),
}

impl ColumnBuilder {
    fn new(field_type: FieldType) -> Self {
        match field_type {
            FieldType::Int64 => ColumnBuilder::Int64(Int64Builder::new()),
            FieldType::Float64 => ColumnBuilder::Float64(Float64Builder::new()),
            FieldType::Decimal(p, s) => ColumnBuilder::Decimal(Decimal128Builder::new(), p, s),
            FieldType::Utf8 => ColumnBuilder::Utf8(StringBuilder::new()),
            FieldType::Bool => ColumnBuilder::Bool(BooleanBuilder::new()),
        }
    }

    /// Bytes of text that wait.
    fn text(&self) -> usize {
        if let ColumnBuilder::Utf8(texts) = self { texts.values_slice().len() } else { 0 }
    }

    /// Appends a value; `false` where it does not fit.
    fn append(&mut self, item: Option<Found<'_>>) -> bool {
        let item = item.filter(|i| !i.is_null());
        match self {
            ColumnBuilder::Int64(b) => {
                let value = item.and_then(Found::int64);
                b.append_option(value);
                item.is_none() || value.is_some()
            }
            ColumnBuilder::Float64(b) => {
                let value = item.and_then(Found::float64);
                b.append_option(value.map(|v| v + 0.0));
                item.is_none() || value.is_some()
            }
            ColumnBuilder::Decimal(b, precision, scale) => {
                let value = item.and_then(|i| i.decimal(*precision, *scale));
                b.append_option(value);
                item.is_none() || value.is_some()
            }
            ColumnBuilder::Utf8(b) => {
                let value = item.and_then(Found::str);
                b.append_option(value.as_deref());
                item.is_none() || value.is_some()
            }
            ColumnBuilder::Bool(b) => {
                let value = item.and_then(Found::bool);
                b.append_option(value);
                item.is_none() || value.is_some()
            }
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, EngineError> {
        Ok(match self {
            ColumnBuilder::Int64(b) => Arc::new(b.finish()),
            ColumnBuilder::Float64(b) => Arc::new(b.finish()),
            ColumnBuilder::Decimal(b, p, s) => Arc::new(b.finish().with_precision_and_scale(*p, *s as i8)?),
            ColumnBuilder::Utf8(b) => Arc::new(b.finish()),
            ColumnBuilder::Bool(b) => Arc::new(b.finish()),
        })
    }
}

/// A column of offsets in either form.
pub(in crate::pipeline) enum OffsetBuilder {
    Dense(Int64Builder),
    Text(StringBuilder),
}

impl OffsetBuilder {
    pub(in crate::pipeline) fn new(sparse: bool) -> Self {
        if sparse { OffsetBuilder::Text(StringBuilder::new()) } else { OffsetBuilder::Dense(Int64Builder::new()) }
    }

    pub(in crate::pipeline) fn append(&mut self, offset: Offset) {
        match self {
            OffsetBuilder::Dense(b) => b.append_value(offset.to_i64().unwrap_or(i64::MAX)),
            OffsetBuilder::Text(b) => b.append_value(offset.to_string()),
        }
    }

    pub(in crate::pipeline) fn finish(&mut self) -> ArrayRef {
        match self {
            OffsetBuilder::Dense(b) => Arc::new(b.finish()),
            OffsetBuilder::Text(b) => Arc::new(b.finish()),
        }
    }
}

/// What the build needs of some selected events. An event without a key has no fields either.
struct Taken {
    ts: ArrayRef,
    lane: ArrayRef,
    offset: ArrayRef,
    event_id: StringArray,
    hash: ArrayRef,
    key: StringArray,
    drop: ArrayRef,
    mask: ArrayRef,
    fields: Vec<ArrayRef>,
}

impl Taken {
    /// To the spools: the events that have a key, and every one as a subject.
    fn hand_over(self, projection: &Projection, events: &Spool, subjects: &Spool) -> Result<(), EngineError> {
        let key_shards: Vec<u32> = self.key.iter().map(|key| key.map_or(0, |key| shard_of(key.as_bytes(), events.shards()))).collect();
        let id_shards: Vec<u32> = self.event_id.iter().flatten().map(|id| shard_of(id.as_bytes(), subjects.shards())).collect();
        let event_id: ArrayRef = Arc::new(self.event_id);
        let subject: Vec<ArrayRef> = vec![
            event_id.clone(),
            self.hash.clone(),
            self.lane.clone(),
            self.offset.clone(),
            self.ts.clone(),
            Arc::new(Int32Array::from_iter_values(key_shards.iter().map(|shard| *shard as i32))),
            self.drop.clone(),
        ];
        subjects.push(&RecordBatch::try_new(projection.subject_schema(), subject)?, &id_shards)?;
        let mut event: Vec<ArrayRef> = vec![self.ts, self.lane, self.offset, event_id, self.hash];
        event.extend([Arc::new(self.key.clone()) as ArrayRef, self.drop, self.mask]);
        event.extend(self.fields);
        if self.key.null_count() == 0 {
            return events.push(&RecordBatch::try_new(projection.event_schema(), event)?, &key_shards);
        }
        let keyed = is_not_null(&self.key)?;
        let event = event.iter().map(|column| filter(column, &keyed)).collect::<Result<Vec<_>, _>>()?;
        let key_shards: Vec<u32> = key_shards.into_iter().zip(keyed.values()).filter_map(|(shard, keyed)| keyed.then_some(shard)).collect();
        events.push(&RecordBatch::try_new(projection.event_schema(), event)?, &key_shards)
    }
}

/// Gathers events for the two spools; one a thread.
pub struct Gatherer<'p> {
    projection: &'p Projection,
    events: &'p Spool,
    subjects: &'p Spool,
    rows: usize,
    ts: Int64Builder,
    lane: Int32Builder,
    offset: OffsetBuilder,
    event_id: StringBuilder,
    hash: FixedSizeBinaryBuilder,
    key: StringBuilder,
    drop: Int32Builder,
    mask: Int64Builder,
    fields: Vec<ColumnBuilder>,
    faults: Faults,
    keyless: u64,
}

impl<'p> Gatherer<'p> {
    /// An empty gatherer.
    pub fn new(projection: &'p Projection, events: &'p Spool, subjects: &'p Spool) -> Self {
        Gatherer {
            projection,
            events,
            subjects,
            rows: 0,
            ts: Int64Builder::new(),
            lane: Int32Builder::new(),
            offset: OffsetBuilder::new(projection.sparse),
            event_id: StringBuilder::new(),
            hash: FixedSizeBinaryBuilder::new(32),
            key: StringBuilder::new(),
            drop: Int32Builder::new(),
            mask: Int64Builder::new(),
            fields: projection.fields.iter().map(|f| ColumnBuilder::new(f.field_type)).collect(),
            faults: Faults::default(),
            keyless: 0,
        }
    }

    /// Whether the scenario selection includes an event.
    pub fn selects(&self, event: &EventRecord<'_>) -> bool {
        self.projection.selects(event)
    }

    /// Which of some events the scenario selection includes.
    pub fn selection(&self, columns: &Columns) -> BooleanArray {
        // One run's events name few scenario runs, and mostly the same as the event before.
        let mut last = (None, self.projection.includes(None));
        let selected = columns.scenarios().iter().map(|scenario| {
            if scenario != last.0 {
                last = (scenario, self.projection.includes(scenario));
            }
            Some(last.1)
        });
        selected.collect()
    }

    /// Takes what the build needs of a selected event.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn push(&mut self, lane: i32, event: &EventRecord<'_>) -> Result<(), EngineError> {
        let projection = self.projection;
        let key = projection.key(event.payload);
        self.ts.append_value(event.ts.0);
        self.lane.append_value(lane);
        self.offset.append(event.offset);
        self.event_id.append_value(&event.event_id);
        self.hash.append_value(event.payload_hash)?;
        self.key.append_option(key.as_ref());
        self.drop.append_value(if key.is_some() { projection.drop_code(event.payload) } else { NO_KEY });
        self.mask.append_value(if key.is_some() { projection.mask(event.payload) } else { 0 });
        for (builder, spec) in self.fields.iter_mut().zip(&projection.fields) {
            let item = event.payload.get(&spec.name).filter(|_| key.is_some());
            if !builder.append(item) {
                self.faults.add(lane, event.offset, spec, item);
            }
        }
        self.rows += 1;
        if full(self.rows, self.text()) { self.flush() } else { Ok(()) }
    }

    /// Bytes of text that wait.
    fn text(&self) -> usize {
        let fields: usize = self.fields.iter().map(ColumnBuilder::text).sum();
        self.event_id.values_slice().len() + self.key.values_slice().len() + fields
    }

    /// Takes what the build needs of selected events.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn take(&mut self, lane: i32, columns: &Columns) -> Result<(), EngineError> {
        let projection = self.projection;
        let key = projection.keys(columns);
        let drop = (0..columns.len()).map(|row| if key.is_valid(row) { projection.drop_code(columns.payload(row)) } else { NO_KEY });
        let taken = Taken {
            ts: Arc::new(columns.ts().clone()),
            lane: Arc::new(Int32Array::from_value(lane, columns.len())),
            offset: projection.offsets(columns),
            event_id: columns.event_ids().clone(),
            hash: Arc::new(columns.hashes().clone()),
            drop: Arc::new(Int32Array::from_iter_values(drop)),
            mask: Arc::new(projection.masks(columns)),
            fields: projection.fields.iter().map(|spec| field(lane, columns, spec, &key, &mut self.faults)).collect::<Result<_, _>>()?,
            key,
        };
        self.keyless += taken.key.null_count() as u64;
        taken.hand_over(projection, self.events, self.subjects)
    }

    /// Hands everything gathered to the spools.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn flush(&mut self) -> Result<(), EngineError> {
        self.rows = 0;
        let taken = Taken {
            ts: Arc::new(self.ts.finish()),
            lane: Arc::new(self.lane.finish()),
            offset: self.offset.finish(),
            event_id: self.event_id.finish(),
            hash: Arc::new(self.hash.finish()),
            key: self.key.finish(),
            drop: Arc::new(self.drop.finish()),
            mask: Arc::new(self.mask.finish()),
            fields: self.fields.iter_mut().map(ColumnBuilder::finish).collect::<Result<_, _>>()?,
        };
        self.keyless += taken.key.null_count() as u64;
        taken.hand_over(self.projection, self.events, self.subjects)
    }

    /// How many of the events handed over have no key.
    pub fn keyless(&self) -> u64 {
        self.keyless
    }

    /// The first value that did not fit, and how many there were.
    pub fn faults(self) -> (Option<ValueFault>, u64) {
        (self.faults.first, self.faults.total)
    }
}

/// A payload field in its declared type. Of an event without a key nobody reads it, so nothing is at fault there.
fn field(lane: i32, columns: &Columns, spec: &FieldSpec, key: &StringArray, faults: &mut Faults) -> Result<ArrayRef, EngineError> {
    let values = columns.field(&spec.name);
    match (spec.field_type, values) {
        (FieldType::Int64, Some(FieldValues::Int(values))) => return Ok(Arc::new(values.clone())),
        (FieldType::Utf8, Some(FieldValues::Text(values))) => return Ok(Arc::new(values.clone())),
        (FieldType::Bool, Some(FieldValues::Bool(values))) => return Ok(Arc::new(values.clone())),
        _ => {}
    }
    let mut builder = ColumnBuilder::new(spec.field_type);
    for row in 0..columns.len() {
        let item = values.and_then(|values| values.get(row)).filter(|_| key.is_valid(row));
        if !builder.append(item) {
            faults.add(lane, columns.offset(row), spec, item);
        }
    }
    builder.finish()
}

impl Projection {
    /// The key of each event, as [`Projection::key`] finds it.
    fn keys(&self, columns: &Columns) -> StringArray {
        let first = self.key_precedence.first().and_then(|name| columns.field(name));
        match first {
            Some(FieldValues::Text(keys)) if keys.null_count() == 0 && keys.offsets().lengths().all(|length| length > 0) => keys.clone(),
            _ => (0..columns.len()).map(|row| self.key(columns.payload(row))).collect(),
        }
    }

    /// Offsets in the form of the spools.
    fn offsets(&self, columns: &Columns) -> ArrayRef {
        match columns.offsets() {
            Offsets::Dense(offsets) if !self.sparse => Arc::new(offsets.clone()),
            Offsets::Text(offsets) if self.sparse => Arc::new(offsets.clone()),
            _ => {
                let mut builder = OffsetBuilder::new(self.sparse);
                (0..columns.len()).for_each(|row| builder.append(columns.offset(row)));
                builder.finish()
            }
        }
    }

    /// The bits of each event, as [`Projection::mask`] has them.
    fn masks(&self, columns: &Columns) -> Int64Array {
        let mut masks = vec![0i64; columns.len()];
        for (bit, set) in self.conditions.iter().enumerate() {
            let set: Vec<_> = set.iter().map(|(field, wanted)| (columns.field(field), wanted)).collect();
            for (row, mask) in masks.iter_mut().enumerate() {
                let holds = set.iter().all(|(values, wanted)| equals(values.and_then(|values| values.get(row)), wanted));
                *mask |= i64::from(holds) << bit;
            }
        }
        Int64Array::from(masks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::intent::RowFilter;
    use crate::engine::scratch::{Budget, Scratch};
    use crate::source::FieldColumn;
    use arrow::array::{BooleanArray, FixedSizeBinaryArray};
    use serde_json::json;

    fn texts(text: impl Fn(usize) -> Option<String>) -> StringArray {
        (0..60).map(text).collect()
    }

    /// Records of every type of column, some of which have no key, or a key of another field.
    fn columns() -> Columns {
        let words = |i: usize| Some(["a", "b", "c"][i % 3].to_owned());
        let some = |part: bool, text: &str| part.then(|| text.to_owned());
        let any = |i: usize| some(!i.is_multiple_of(4), ["1.0", "7", "\"many\"", "null", "[1]", "1e2"][i % 6]);
        let fields = vec![
            (
                "account",
                FieldValues::Text(texts(|i| (i % 5 != 0).then(|| if i % 7 == 0 { String::new() } else { format!("k{}", i % 11) }))),
            ),
            ("other", FieldValues::Int((0..60).map(|i| (i % 10 != 0).then_some(i)).collect())),
            ("any", FieldValues::Json(texts(any))),
            ("price", FieldValues::Number(texts(|i| some(i % 9 != 0, ["1.50", "-0", "0.001"][i % 3])))),
            ("flag", FieldValues::Bool((0..60).map(|i| (i % 8 != 0).then_some(i % 2 == 0)).collect::<BooleanArray>())),
            ("word", FieldValues::Text(texts(words))),
        ];
        Columns::new(
            Offsets::Dense((0..60).map(|i| i * 3).collect::<Vec<i64>>().into()),
            texts(|i| Some(format!("e{i}"))),
            (0..60).rev().collect::<Vec<i64>>().into(),
            FixedSizeBinaryArray::try_from_iter((0..60u8).map(|i| [i; 32])).unwrap(),
            texts(|i| some(i % 2 == 0, "s")),
            fields.into_iter().map(|(name, values)| FieldColumn { name: name.to_owned(), values }).collect(),
        )
    }

    fn projection(sparse: bool) -> Projection {
        let field = |name: &str, field_type| FieldSpec { name: name.to_owned(), field_type };
        let condition = |field: &str, wanted| (field.to_owned(), wanted);
        Projection {
            key_precedence: vec!["account".into(), "other".into()],
            scenarios: Vec::new(),
            filters: vec![RowFilter { field: "word".into(), any_of: vec![json!("a"), json!("b")] }],
            fields: vec![
                field("other", FieldType::Int64),
                field("any", FieldType::Int64),
                field("any", FieldType::Utf8),
                field("other", FieldType::Float64),
                field("price", FieldType::Decimal(10, 2)),
                field("flag", FieldType::Bool),
                field("word", FieldType::Utf8),
                field("word", FieldType::Bool),
                field("absent", FieldType::Utf8),
            ],
            conditions: vec![vec![condition("flag", json!(true))], vec![condition("absent", json!(null)), condition("word", json!("b"))]],
            features: Vec::new(),
            sparse,
        }
    }

    #[test]
    fn columns_and_records_come_to_the_same_rows_and_faults() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Arc::new(Scratch::new(dir.path(), "t", "1").unwrap());
        let columns = columns();
        for sparse in [false, true] {
            let projection = projection(sparse);
            let spool = |schema| Spool::new(schema, 4, Arc::new(Budget::new(1 << 30)), scratch.clone());
            let gathered = |fill: &dyn Fn(&mut Gatherer<'_>)| {
                let (events, subjects) = (spool(projection.event_schema()), spool(projection.subject_schema()));
                let mut gatherer = Gatherer::new(&projection, &events, &subjects);
                fill(&mut gatherer);
                gatherer.flush().unwrap();
                let faults = gatherer.faults();
                (faults, [events, subjects].map(|spool| (0..4).map(|shard| spool.shard(shard).unwrap()).collect::<Vec<_>>()))
            };
            let one_by_one =
                gathered(&|gatherer| (0..columns.len()).for_each(|row| gatherer.push(3, &columns.event(row).unwrap()).unwrap()));
            let whole = gathered(&|gatherer| gatherer.take(3, &columns).unwrap());
            assert_eq!(whole, one_by_one);
            let ((first, faults), [events, subjects]) = whole;
            assert!(first.is_some() && faults > 0);
            let rows = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
            assert!(rows(&subjects) == 60 && (1..60).contains(&rows(&events)));
        }
    }

    #[test]
    fn the_selection_of_columns_is_that_of_their_records() {
        let columns = columns();
        for scenarios in [vec![], vec!["s".to_owned()], vec!["other".to_owned()]] {
            let projection = Projection { scenarios, ..projection(false) };
            let dir = tempfile::tempdir().unwrap();
            let spool = Spool::new(
                projection.event_schema(),
                1,
                Arc::new(Budget::new(1 << 20)),
                Arc::new(Scratch::new(dir.path(), "t", "1").unwrap()),
            );
            let gatherer = Gatherer::new(&projection, &spool, &spool);
            let each: Vec<bool> = (0..columns.len()).map(|row| gatherer.selects(&columns.event(row).unwrap())).collect();
            assert_eq!(gatherer.selection(&columns).values().iter().collect::<Vec<_>>(), each);
        }
    }
}
