//! From a payload to typed columns: what the features, the conditions and the filters need of an event
//! is taken out once, while the record is at hand.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, FixedSizeBinaryBuilder, Float64Builder, Int32Builder, Int64Builder, RecordBatch,
    StringBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

use super::gate::Refusal;
use crate::contract::intent::{Intent, RowFilter};
use crate::contract::profile::{FieldType, Group};
use crate::engine::shard::shard_of;
use crate::engine::spool::Spool;
use crate::source::{EventRecord, Field as Found, Payload, equals};

/// Rows that a thread gathers before it hands them to the spools.
const GATHER: usize = 16_384;
/// The drop code of a row that stays.
pub const KEPT: i32 = 0;
/// The drop code of an event without a key; filters count from 1.
pub const NO_KEY: i32 = -1;

/// Where the fixed columns of the event spool stand.
pub mod event {
    /// Event time, int64 micros.
    pub const TS: usize = 0;
    /// Lane number, int32.
    pub const LANE: usize = 1;
    /// Offset, int64 or decimal text.
    pub const OFFSET: usize = 2;
    /// Event id.
    pub const EVENT_ID: usize = 3;
    /// SHA-256 of the envelope.
    pub const HASH: usize = 4;
    /// Key.
    pub const KEY: usize = 5;
    /// Drop code.
    pub const DROP: usize = 6;
    /// One bit a condition set.
    pub const MASK: usize = 7;
    /// First payload field.
    pub const FIELDS: usize = 8;
}

/// Where the columns of the subject spool stand.
pub mod subject {
    /// Event id.
    pub const EVENT_ID: usize = 0;
    /// SHA-256 of the envelope.
    pub const HASH: usize = 1;
    /// Lane number.
    pub const LANE: usize = 2;
    /// Offset.
    pub const OFFSET: usize = 3;
    /// Event time.
    pub const TS: usize = 4;
    /// Shard of the event's key.
    pub const KEY_SHARD: usize = 5;
    /// Drop code.
    pub const DROP: usize = 6;
}

/// A payload field that some feature reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSpec {
    /// Payload field.
    pub name: String,
    /// Declared type.
    pub field_type: FieldType,
}

/// What is taken out of every event.
#[derive(Debug, Clone)]
pub struct Projection {
    key_precedence: Vec<String>,
    scenarios: Vec<String>,
    filters: Vec<RowFilter>,
    fields: Vec<FieldSpec>,
    conditions: Vec<Vec<(String, Value)>>,
    /// Per feature: its field's number and its condition set's number.
    features: Vec<(Option<usize>, Option<usize>)>,
    sparse: bool,
}

/// Most distinct condition sets of a group: one bit each.
const MAX_CONDITIONS: usize = 63;

impl Projection {
    /// What this group and this intent need.
    ///
    /// # Errors
    /// `FEATURE_DEFINITION_INVALID` for more than 63 distinct `where` clauses.
    pub fn new(intent: &Intent, group: &Group) -> Result<Self, Refusal> {
        let mut fields: Vec<FieldSpec> = Vec::new();
        let mut conditions: Vec<Vec<(String, Value)>> = Vec::new();
        let mut features = Vec::new();
        for feature in &group.features {
            let field = feature.input.as_ref().map(|(name, field_type)| {
                let spec = FieldSpec { name: name.clone(), field_type: *field_type };
                position(&mut fields, spec)
            });
            let condition =
                (!feature.conditions.is_empty()).then(|| position(&mut conditions, feature.conditions.clone().into_iter().collect()));
            features.push((field, condition));
        }
        if conditions.len() > MAX_CONDITIONS {
            let message = format!("{} distinct where clauses; the limit is {MAX_CONDITIONS}", conditions.len());
            return Err(Refusal::new(crate::contract::ReasonCode::FeatureDefinitionInvalid, super::Phase::Features, message));
        }
        let sparse = intent.basis.iter().any(|s| !s.lane.kind.dense());
        Ok(Projection {
            key_precedence: group.key_precedence.clone(),
            scenarios: intent.scenario_run_ids.clone(),
            filters: intent.row_filters.clone(),
            fields,
            conditions,
            features,
            sparse,
        })
    }

    /// Payload fields in column order.
    pub fn fields(&self) -> &[FieldSpec] {
        &self.fields
    }

    /// Per feature of the group: its field's number and its condition set's number.
    pub fn features(&self) -> &[(Option<usize>, Option<usize>)] {
        &self.features
    }

    /// Whether offsets are text because some kind of the basis is sparse.
    pub fn sparse(&self) -> bool {
        self.sparse
    }

    pub(super) fn offset_type(&self) -> DataType {
        if self.sparse { DataType::Utf8 } else { DataType::Int64 }
    }

    /// Schema of the event spool.
    pub fn event_schema(&self) -> SchemaRef {
        let mut columns = vec![
            Field::new("ts", DataType::Int64, false),
            Field::new("lane", DataType::Int32, false),
            Field::new("offset", self.offset_type(), false),
            Field::new("event_id", DataType::Utf8, false),
            Field::new("payload_hash", DataType::FixedSizeBinary(32), false),
            Field::new("key", DataType::Utf8, false),
            Field::new("drop", DataType::Int32, false),
            Field::new("mask", DataType::Int64, false),
        ];
        for (i, field) in self.fields.iter().enumerate() {
            let data_type = match field.field_type {
                FieldType::Int64 => DataType::Int64,
                FieldType::Float64 => DataType::Float64,
                FieldType::Decimal(p, s) => DataType::Decimal128(p, s as i8),
                FieldType::Utf8 => DataType::Utf8,
                FieldType::Bool => DataType::Boolean,
            };
            columns.push(Field::new(format!("f{i}"), data_type, true));
        }
        Arc::new(Schema::new(columns))
    }

    /// Schema of the subject spool.
    pub fn subject_schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("event_id", DataType::Utf8, false),
            Field::new("payload_hash", DataType::FixedSizeBinary(32), false),
            Field::new("lane", DataType::Int32, false),
            Field::new("offset", self.offset_type(), false),
            Field::new("ts", DataType::Int64, false),
            Field::new("key_shard", DataType::Int32, false),
            Field::new("drop", DataType::Int32, false),
        ]))
    }

    /// Whether the intent's scenario runs include this event's.
    pub fn selects(&self, event: &EventRecord<'_>) -> bool {
        self.scenarios.is_empty()
            || event.scenario_run_id.as_ref().is_some_and(|s| self.scenarios.binary_search_by(|x| x.as_str().cmp(s)).is_ok())
    }

    /// The key: the first field of the precedence that holds one, as text.
    pub fn key<'a>(&self, payload: Payload<'a>) -> Option<std::borrow::Cow<'a, str>> {
        self.key_precedence.iter().find_map(|name| {
            let field = payload.get(name)?;
            field.str().filter(|s| !s.is_empty()).or_else(|| field.number())
        })
    }

    /// The payload fields that anything here asks for, sorted.
    pub fn wanted(&self) -> Vec<String> {
        let conditions = self.conditions.iter().flatten().map(|(field, _)| field);
        let filters = self.filters.iter().map(|filter| &filter.field);
        let fields = self.fields.iter().map(|field| &field.name);
        let mut wanted: Vec<String> = self.key_precedence.iter().chain(fields).chain(conditions).chain(filters).cloned().collect();
        wanted.sort();
        wanted.dedup();
        wanted
    }

    /// Which filter drops an event, counted from 1, or [`KEPT`].
    pub fn drop_code(&self, payload: Payload<'_>) -> i32 {
        let failing = self.filters.iter().position(|filter| {
            let value = payload.get(&filter.field);
            !filter.any_of.iter().any(|wanted| equals(value, wanted))
        });
        failing.map_or(KEPT, |i| i as i32 + 1)
    }

    fn mask(&self, payload: Payload<'_>) -> i64 {
        self.conditions.iter().enumerate().fold(0, |mask, (bit, set)| {
            let holds = set.iter().all(|(field, wanted)| equals(payload.get(field), wanted));
            mask | i64::from(holds) << bit
        })
    }

    /// The name of a drop code, for counts.
    pub fn drop_name(&self, code: i32) -> String {
        match code {
            NO_KEY => "missing_key".into(),
            code => usize::try_from(code - 1)
                .ok()
                .and_then(|i| self.filters.get(i))
                .map_or_else(|| "none".into(), |f| format!("filter:{}", f.field)),
        }
    }
}

fn position<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|x| *x == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

/// A payload value that does not fit its declared type; the first in canonical place order is reported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueFault {
    /// Lane number.
    pub lane: i32,
    /// Offset.
    pub offset: crate::contract::Offset,
    /// Payload field.
    pub field: String,
    /// Declared type.
    pub declared: String,
    /// What is there, clipped.
    pub found: String,
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

    fn finish(&mut self) -> Result<ArrayRef, arrow::error::ArrowError> {
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
pub(super) enum OffsetBuilder {
    Dense(Int64Builder),
    Text(StringBuilder),
}

impl OffsetBuilder {
    pub(super) fn new(sparse: bool) -> Self {
        if sparse { OffsetBuilder::Text(StringBuilder::new()) } else { OffsetBuilder::Dense(Int64Builder::new()) }
    }

    pub(super) fn append(&mut self, offset: crate::contract::Offset) {
        match self {
            OffsetBuilder::Dense(b) => b.append_value(offset.to_i64().unwrap_or(i64::MAX)),
            OffsetBuilder::Text(b) => b.append_value(offset.to_string()),
        }
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            OffsetBuilder::Dense(b) => Arc::new(b.finish()),
            OffsetBuilder::Text(b) => Arc::new(b.finish()),
        }
    }
}

/// Gathers events into batches for the two spools; one a thread.
pub struct Gatherer<'p> {
    projection: &'p Projection,
    events: &'p Spool,
    subjects: &'p Spool,
    ts: Int64Builder,
    lane: Int32Builder,
    offset: OffsetBuilder,
    event_id: StringBuilder,
    hash: FixedSizeBinaryBuilder,
    key: StringBuilder,
    drop: Int32Builder,
    mask: Int64Builder,
    fields: Vec<ColumnBuilder>,
    key_shard: Vec<u32>,
    subject_shard: Vec<u32>,
    s_event_id: StringBuilder,
    s_hash: FixedSizeBinaryBuilder,
    s_lane: Int32Builder,
    s_offset: OffsetBuilder,
    s_ts: Int64Builder,
    s_key_shard: Int32Builder,
    s_drop: Int32Builder,
    /// The first value that did not fit.
    pub fault: Option<ValueFault>,
    /// How many did not fit.
    pub faults: u64,
}

impl<'p> Gatherer<'p> {
    /// An empty gatherer.
    pub fn new(projection: &'p Projection, events: &'p Spool, subjects: &'p Spool) -> Self {
        Gatherer {
            projection,
            events,
            subjects,
            ts: Int64Builder::new(),
            lane: Int32Builder::new(),
            offset: OffsetBuilder::new(projection.sparse),
            event_id: StringBuilder::new(),
            hash: FixedSizeBinaryBuilder::new(32),
            key: StringBuilder::new(),
            drop: Int32Builder::new(),
            mask: Int64Builder::new(),
            fields: projection.fields.iter().map(|f| ColumnBuilder::new(f.field_type)).collect(),
            key_shard: Vec::new(),
            subject_shard: Vec::new(),
            s_event_id: StringBuilder::new(),
            s_hash: FixedSizeBinaryBuilder::new(32),
            s_lane: Int32Builder::new(),
            s_offset: OffsetBuilder::new(projection.sparse),
            s_ts: Int64Builder::new(),
            s_key_shard: Int32Builder::new(),
            s_drop: Int32Builder::new(),
            fault: None,
            faults: 0,
        }
    }

    /// Whether the scenario selection includes an event.
    pub fn selects(&self, event: &EventRecord<'_>) -> bool {
        self.projection.selects(event)
    }

    /// Takes what the build needs of a selected event.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn push(&mut self, lane: i32, event: &EventRecord<'_>) -> Result<(), crate::engine::EngineError> {
        let projection = self.projection;
        let key = projection.key(event.payload);
        let drop = if key.is_none() { NO_KEY } else { projection.drop_code(event.payload) };
        let key_shard = key.as_ref().map_or(0, |k| shard_of(k.as_bytes(), self.events.shards()));
        if let Some(key) = &key {
            self.push_event(lane, event, key, drop);
            self.key_shard.push(key_shard);
        }
        self.s_event_id.append_value(&event.event_id);
        self.s_hash.append_value(event.payload_hash)?;
        self.s_lane.append_value(lane);
        self.s_offset.append(event.offset);
        self.s_ts.append_value(event.ts.0);
        self.s_key_shard.append_value(key_shard as i32);
        self.s_drop.append_value(drop);
        self.subject_shard.push(shard_of(event.event_id.as_bytes(), self.subjects.shards()));
        if self.subject_shard.len() >= GATHER { self.flush() } else { Ok(()) }
    }

    fn push_event(&mut self, lane: i32, event: &EventRecord<'_>, key: &str, drop: i32) {
        self.ts.append_value(event.ts.0);
        self.lane.append_value(lane);
        self.offset.append(event.offset);
        self.event_id.append_value(&event.event_id);
        // The builder is 32 wide and so is the hash.
        let _ = self.hash.append_value(event.payload_hash);
        self.key.append_value(key);
        self.drop.append_value(drop);
        self.mask.append_value(self.projection.mask(event.payload));
        for (builder, spec) in self.fields.iter_mut().zip(&self.projection.fields) {
            let item = event.payload.get(&spec.name);
            if !builder.append(item) {
                self.faults += 1;
                let found = item.map(|i| crate::text::clip(&i.raw(), 40).into_owned()).unwrap_or_default();
                let fault =
                    ValueFault { lane, offset: event.offset, field: spec.name.clone(), declared: spec.field_type.to_string(), found };
                if self.fault.as_ref().is_none_or(|earlier| fault < *earlier) {
                    self.fault = Some(fault);
                }
            }
        }
    }

    /// Hands everything gathered to the spools.
    ///
    /// # Errors
    /// Spill space that fails.
    pub fn flush(&mut self) -> Result<(), crate::engine::EngineError> {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.ts.finish()),
            Arc::new(self.lane.finish()),
            self.offset.finish(),
            Arc::new(self.event_id.finish()),
            Arc::new(self.hash.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.drop.finish()),
            Arc::new(self.mask.finish()),
        ];
        for field in &mut self.fields {
            columns.push(field.finish()?);
        }
        let batch = RecordBatch::try_new(self.projection.event_schema(), columns)?;
        self.events.push(&batch, &self.key_shard)?;
        let subjects: Vec<ArrayRef> = vec![
            Arc::new(self.s_event_id.finish()),
            Arc::new(self.s_hash.finish()),
            Arc::new(self.s_lane.finish()),
            self.s_offset.finish(),
            Arc::new(self.s_ts.finish()),
            Arc::new(self.s_key_shard.finish()),
            Arc::new(self.s_drop.finish()),
        ];
        self.subjects.push(&RecordBatch::try_new(self.projection.subject_schema(), subjects)?, &self.subject_shard)?;
        self.key_shard.clear();
        self.subject_shard.clear();
        Ok(())
    }
}
