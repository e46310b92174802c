//! From a payload to typed columns: what the features, the conditions and the filters need of an event
//! is taken out once, while the record is at hand.

mod gather;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::Value;

pub(super) use self::gather::OffsetBuilder;
pub use self::gather::{Gatherer, ValueFault};
use super::gate::Refusal;
use crate::contract::intent::{Intent, RowFilter};
use crate::contract::profile::{FieldType, Group};
use crate::source::{EventRecord, Payload, equals};

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
        self.includes(event.scenario_run_id.as_deref())
    }

    /// Whether the intent's scenario runs include this one; where it names none, they include everything.
    fn includes(&self, scenario: Option<&str>) -> bool {
        self.scenarios.is_empty() || scenario.is_some_and(|s| self.scenarios.binary_search_by(|x| x.as_str().cmp(s)).is_ok())
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
