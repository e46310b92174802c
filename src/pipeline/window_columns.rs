//! From a shard's events to its feature columns: the kernels get plain slices in canonical order, and
//! every result is turned back into an Arrow column of the declared type.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type};

use super::projection::{FieldSpec, Projection, event};
use crate::contract::profile::{Agg, Feature, FieldType, Group};
use crate::engine::EngineError;
use crate::engine::window::arrival::Arrivals;
use crate::engine::window::{self, Column, Output, Values, Window, WindowError};

/// A feature's result that does not fit its type.
#[derive(Debug, Clone)]
pub(super) struct Overflow {
    /// Row in canonical order within the shard.
    pub(super) row: usize,
    /// Column name.
    pub(super) column: String,
}

/// Why a shard's features could not be computed.
pub(super) enum WindowFailure {
    Overflow(Overflow),
    Engine(EngineError),
}

/// One payload field of a shard, in canonical order.
struct FieldValues {
    values: Owned,
    valid: Vec<bool>,
}

enum Owned {
    Int64(Vec<i64>),
    Decimal(Vec<i128>),
    Float64(Vec<f64>),
    Rank(Vec<u32>, Vec<String>),
    Bool(Vec<bool>),
}

impl FieldValues {
    fn column(&self) -> Column<'_> {
        let values = match &self.values {
            Owned::Int64(v) => Values::Int64(v),
            Owned::Decimal(v) => Values::Decimal(v),
            Owned::Float64(v) => Values::Float64(v),
            Owned::Rank(v, _) => Values::Rank(v),
            Owned::Bool(v) => Values::Bool(v),
        };
        Column { values, valid: Some(&self.valid) }
    }
}

fn ordered<T: Default>(rows: &[u32], array: &dyn Array, value: impl Fn(usize) -> T) -> (Vec<T>, Vec<bool>) {
    let valid: Vec<bool> = rows.iter().map(|r| array.is_valid(*r as usize)).collect();
    let values = rows.iter().zip(&valid).map(|(r, valid)| if *valid { value(*r as usize) } else { T::default() }).collect();
    (values, valid)
}

fn field_values(array: &ArrayRef, spec: &FieldSpec, rows: &[u32]) -> FieldValues {
    let array = array.as_ref();
    let (values, valid) = match spec.field_type {
        FieldType::Int64 => {
            let a = array.as_primitive::<Int64Type>();
            let (v, valid) = ordered(rows, array, |r| a.value(r));
            (Owned::Int64(v), valid)
        }
        FieldType::Decimal(..) => {
            let a = array.as_primitive::<Decimal128Type>();
            let (v, valid) = ordered(rows, array, |r| a.value(r));
            (Owned::Decimal(v), valid)
        }
        FieldType::Float64 => {
            let a = array.as_primitive::<Float64Type>();
            let (v, valid) = ordered(rows, array, |r| a.value(r));
            (Owned::Float64(v), valid)
        }
        FieldType::Bool => {
            let a = array.as_boolean();
            let (v, valid) = ordered(rows, array, |r| a.value(r));
            (Owned::Bool(v), valid)
        }
        FieldType::Utf8 => {
            // Ranks keep the order of the texts, so that min and max compare numbers.
            let a = array.as_string::<i32>();
            let distinct: BTreeSet<&str> = a.iter().flatten().collect();
            let names: Vec<String> = distinct.into_iter().map(str::to_owned).collect();
            let rank = |r: usize| names.binary_search_by(|n| n.as_str().cmp(a.value(r))).unwrap_or_default() as u32;
            let (v, valid) = ordered(rows, array, rank);
            (Owned::Rank(v, names), valid)
        }
    };
    FieldValues { values, valid }
}

fn array_of(output: Output, names: &[String], field_type: Option<FieldType>) -> Result<ArrayRef, EngineError> {
    // What stands where the value is null is a default, the same in every run.
    let nulls = |valid: Vec<bool>| Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
    Ok(match output {
        Output::Int64 { values, valid } => Arc::new(Int64Array::new(values.into(), nulls(valid))),
        Output::Float64 { values, valid } => Arc::new(Float64Array::new(values.into(), nulls(valid))),
        Output::Bool { values, valid } => Arc::new(BooleanArray::new(values.into(), nulls(valid))),
        Output::Rank { values, valid } => {
            let name = |(rank, valid): (u32, bool)| names.get(rank as usize).filter(|_| valid);
            Arc::new(values.into_iter().zip(valid).map(name).collect::<StringArray>())
        }
        Output::Decimal { values, valid } => {
            let (precision, scale) = if let Some(FieldType::Decimal(p, s)) = field_type { (p, s as i8) } else { (38, 0) };
            Arc::new(Decimal128Array::new(values.into(), nulls(valid)).with_precision_and_scale(precision, scale)?)
        }
    })
}

fn kernel(agg: Agg) -> Option<window::Agg> {
    Some(match agg {
        Agg::Count => window::Agg::Count,
        Agg::CountDistinct => window::Agg::CountDistinct,
        Agg::Sum => window::Agg::Sum,
        Agg::Mean => window::Agg::Mean,
        Agg::Min => window::Agg::Min,
        Agg::Max => window::Agg::Max,
        Agg::First => window::Agg::First,
        Agg::Last => window::Agg::Last,
        Agg::Stddev => window::Agg::Stddev,
        Agg::SecondsSincePrevious => return None,
    })
}

/// The Arrow field of each feature column, in the order of the data set.
pub(super) fn feature_fields(group: &Group) -> Vec<Field> {
    let mut fields = Vec::new();
    for feature in &group.features {
        let input = feature.input.as_ref().map(|(_, t)| *t);
        let (data_type, nullable) = match feature.agg {
            Agg::Count | Agg::CountDistinct => (DataType::Int64, false),
            Agg::Mean | Agg::Stddev | Agg::SecondsSincePrevious => (DataType::Float64, true),
            _ => (
                match input {
                    Some(FieldType::Float64) => DataType::Float64,
                    Some(FieldType::Decimal(p, s)) => DataType::Decimal128(p, s as i8),
                    Some(FieldType::Utf8) => DataType::Utf8,
                    Some(FieldType::Bool) => DataType::Boolean,
                    _ => DataType::Int64,
                },
                true,
            ),
        };
        fields.extend(group.columns_of(feature).into_iter().map(|name| Field::new(name, data_type.clone(), nullable)));
    }
    fields
}

/// The rows of a shard in order, key by key.
#[derive(Clone, Copy)]
pub(super) struct Rows<'r> {
    /// Row numbers in the batch.
    pub(super) rows: &'r [u32],
    /// Which of them belong to each key.
    pub(super) groups: &'r [Range<usize>],
    /// Event times.
    pub(super) ts: &'r [i64],
    /// The order of arrival, where rows may not see what came later.
    pub(super) arrival: Option<&'r Arrivals>,
    /// Rows that are no events but only points in time to ask at: they get a result and count in none.
    pub(super) asking: Option<&'r [bool]>,
}

/// Computes every feature column over the rows of a shard.
pub(super) fn compute(group: &Group, projection: &Projection, batch: &RecordBatch, rows: Rows<'_>) -> Result<Vec<ArrayRef>, WindowFailure> {
    let missing = || WindowFailure::Engine(EngineError::Internal("a spool column is missing".into()));
    let mut fields = Vec::new();
    for (i, spec) in projection.fields().iter().enumerate() {
        fields.push(field_values(batch.columns().get(event::FIELDS + i).ok_or_else(missing)?, spec, rows.rows));
    }
    let bits = batch.columns().get(event::MASK).and_then(|c| c.as_primitive_opt::<Int64Type>()).ok_or_else(missing)?;
    let holds = |bit: usize| rows.rows.iter().map(|r| bits.value(*r as usize) >> bit & 1 == 1).collect::<Vec<bool>>();
    let mut columns = Vec::new();
    for (feature, (field, condition)) in group.features.iter().zip(projection.features()) {
        let mask = match (condition.map(holds), rows.asking) {
            (mask, None) => mask,
            (None, Some(asking)) => Some(asking.iter().map(|asks| !asks).collect()),
            (Some(mask), Some(asking)) => Some(mask.iter().zip(asking).map(|(holds, asks)| *holds && !asks).collect()),
        };
        let values = field.and_then(|f| fields.get(f));
        feature_columns(group, feature, values, mask.as_deref(), rows, &mut columns)?;
    }
    Ok(columns)
}

fn feature_columns(
    group: &Group,
    feature: &Feature,
    values: Option<&FieldValues>,
    mask: Option<&[bool]>,
    rows: Rows<'_>,
    columns: &mut Vec<ArrayRef>,
) -> Result<(), WindowFailure> {
    let engine = WindowFailure::Engine;
    let Rows { groups, ts, arrival, .. } = rows;
    let field_type = feature.input.as_ref().map(|(_, t)| *t);
    let names: &[String] = match values.map(|v| &v.values) {
        Some(Owned::Rank(_, names)) => names,
        _ => &[],
    };
    let Some(agg) = kernel(feature.agg) else {
        columns.push(array_of(window::seconds_since_previous(groups, ts, mask, arrival), names, None).map_err(engine)?);
        return Ok(());
    };
    let decimal = if let Some(FieldType::Decimal(p, s)) = field_type { Some((p, s)) } else { None };
    for (w, name) in group.windows.iter().zip(group.columns_of(feature)) {
        let window = Window { agg, column: values.map(FieldValues::column), mask, duration_us: w.duration_us, decimal, arrival };
        let output = window::aggregate(groups, ts, &window).map_err(|e| match e {
            WindowError::Overflow { row } => WindowFailure::Overflow(Overflow { row, column: name.clone() }),
            WindowError::Unsupported => WindowFailure::Engine(EngineError::Internal(format!("the kernel refuses {name}"))),
        })?;
        columns.push(array_of(output, names, field_type).map_err(engine)?);
    }
    Ok(())
}
