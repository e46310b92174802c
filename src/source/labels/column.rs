//! Columns of a Parquet file of label assertions: in which form each is read, and what it says of a row.

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, PrimitiveArray, StringArray, StringBuilder, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int32Type, Schema, TimeUnit, TimestampMicrosecondType};

use super::{LabelError, Stamp};
use crate::time::Instant;

/// Columns of few different texts.
const FEW: [&str; 3] = ["platform_run_id", "label_type", "label_value"];

/// The schema that a file is read with: few different texts as a dictionary, all other texts where they lie in
/// their pages. None is copied before it is known to matter.
pub(super) fn read_as(schema: &Schema) -> Schema {
    let fields: Fields = schema.fields().iter().map(field_as).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn field_as(field: &FieldRef) -> FieldRef {
    let read = match field.data_type() {
        DataType::Struct(inner) => DataType::Struct(inner.iter().map(field_as).collect()),
        kind if !is_text(kind) => return field.clone(),
        _ if FEW.contains(&field.name().as_str()) => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        _ => DataType::Utf8View,
    };
    Field::clone(field).with_data_type(read).into()
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(_, values) => is_text(values),
        kind => matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    }
}

/// The instants of a column, where it holds such.
fn stamps(column: &ArrayRef) -> Option<&TimestampMicrosecondArray> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) if matches!(zone.as_ref(), "UTC" | "+00:00") => {
            column.as_primitive_opt::<TimestampMicrosecondType>()
        }
        _ => None,
    }
}

/// A column of texts.
pub(super) enum Texts {
    Plain(StringArray),
    Views(StringViewArray),
    Few { keys: PrimitiveArray<Int32Type>, values: StringArray },
}

impl Texts {
    /// The texts of a column; timestamps become RFC 3339.
    ///
    /// # Errors
    /// `LABEL_TIMELINE_INCONSISTENT` for what would have to be guessed.
    pub(super) fn of(column: &ArrayRef, name: &str, what: &str) -> Result<Self, LabelError> {
        let few = || {
            let dictionary: &DictionaryArray<Int32Type> = column.as_dictionary_opt()?;
            Some(Texts::Few { keys: dictionary.keys().clone(), values: dictionary.values().as_string_opt()?.clone() })
        };
        match (column.as_string_view_opt(), few()) {
            (Some(views), _) => Ok(Texts::Views(views.clone())),
            (None, Some(few)) => Ok(few),
            (None, None) => Ok(Texts::Plain(texts(column, name, what)?)),
        }
    }

    /// The text in a row.
    pub(super) fn get(&self, row: usize) -> Option<&str> {
        match self {
            Texts::Plain(texts) => texts.is_valid(row).then(|| texts.value(row)),
            Texts::Views(texts) => texts.is_valid(row).then(|| texts.value(row)),
            Texts::Few { keys, values } => {
                let at = keys.is_valid(row).then(|| keys.value(row) as usize).filter(|at| *at < values.len())?;
                values.is_valid(at).then(|| values.value(at))
            }
        }
    }
}

/// A column of instants, typed or as texts.
pub(super) enum Stamps {
    Typed(TimestampMicrosecondArray),
    Written(Texts),
}

impl Stamps {
    /// The instants of a column.
    ///
    /// # Errors
    /// `LABEL_TIMELINE_INCONSISTENT` for what would have to be guessed.
    pub(super) fn of(column: &ArrayRef, name: &str, what: &str) -> Result<Self, LabelError> {
        match stamps(column) {
            Some(stamps) => Ok(Stamps::Typed(stamps.clone())),
            None => Texts::of(column, name, what).map(Stamps::Written),
        }
    }

    /// What a row says.
    pub(super) fn get(&self, row: usize) -> Option<Stamp<'_>> {
        match self {
            Stamps::Typed(stamps) => stamps.is_valid(row).then(|| Stamp::Typed(Instant(stamps.value(row)))),
            Stamps::Written(texts) => texts.get(row).map(Stamp::Text),
        }
    }
}

/// A column as text; timestamps become RFC 3339.
///
/// # Errors
/// `LABEL_TIMELINE_INCONSISTENT` for what would have to be guessed.
pub(super) fn texts(column: &ArrayRef, name: &str, what: &str) -> Result<StringArray, LabelError> {
    if let Some(stamps) = stamps(column) {
        let mut texts = StringBuilder::with_capacity(stamps.len(), stamps.len() * 27);
        stamps.iter().for_each(|stamp| texts.append_option(stamp.map(|micros| Instant(micros).to_string())));
        return Ok(texts.finish());
    }
    match column.data_type() {
        DataType::Utf8 => Ok(column.as_string::<i32>().clone()),
        DataType::LargeUtf8 => Ok(column.as_string::<i64>().iter().collect()),
        DataType::Utf8View => Ok(column.as_string_view().iter().collect()),
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            let values = texts(dictionary.values(), name, what)?;
            if values.is_empty() {
                return Ok(StringArray::new_null(column.len()));
            }
            let keys = dictionary.normalized_keys();
            let text = |(row, key): (usize, &usize)| (column.is_valid(row) && values.is_valid(*key)).then(|| values.value(*key));
            Ok(keys.iter().enumerate().map(text).collect())
        }
        other => {
            Err(LabelError::inconsistent(name, format!("column {what} has type {other}; expected text or a UTC timestamp in microseconds")))
        }
    }
}
