//! Every assertion of a file as one JSON text, for whoever keeps assertions and does not ask about some of
//! them: the line as it stands, or the row of a Parquet file with all its columns.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use super::LabelError;
use super::column::texts;
use crate::source::lines::{Line, Lines, blank};

/// Takes an assertion's text, with where it stands.
pub type WholeSink<'s> = dyn FnMut(&dyn Fn() -> String, &str) -> Result<(), LabelError> + 's;

/// Hands over every assertion of a `*.jsonl` or `*.parquet` file.
///
/// # Errors
/// `LABEL_STORE_UNAVAILABLE`; `LABEL_TIMELINE_INCONSISTENT` for text that is no JSON and columns that would
/// have to be guessed; whatever the sink says.
pub fn each_whole(path: &Path, sink: &mut WholeSink<'_>) -> Result<(), LabelError> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match path.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => of_lines(path, &name, sink),
        Some("parquet") => of_columns(path, &name, sink),
        _ => Err(LabelError::unavailable(path.display().to_string(), "expected *.jsonl or *.parquet")),
    }
}

fn of_lines(path: &Path, name: &str, sink: &mut WholeSink<'_>) -> Result<(), LabelError> {
    let unavailable = |e: std::io::Error| LabelError::unavailable(path.display().to_string(), e);
    let mut lines = Lines::new(File::open(path).map_err(unavailable)?);
    let mut number = 0u64;
    while let Some(line) = lines.next().map_err(unavailable)? {
        number += 1;
        let place = || format!("{name} line {number}");
        match line {
            Line::TooLong(_) => return Err(LabelError::inconsistent(place(), "a line longer than the limit of 16 MiB")),
            Line::Text(text, _) if blank(text) => {}
            Line::Text(text, _) => {
                let text = std::str::from_utf8(text).map_err(|e| LabelError::inconsistent(place(), e))?;
                sink(&place, text.trim_matches(|c: char| c.is_ascii_whitespace()))?;
            }
        }
    }
    Ok(())
}

fn of_columns(path: &Path, name: &str, sink: &mut WholeSink<'_>) -> Result<(), LabelError> {
    let file = File::open(path).map_err(|e| LabelError::unavailable(path.display().to_string(), e))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|b| b.build()).map_err(|e| LabelError::unavailable(name, e))?;
    let mut before = 0;
    for batch in reader {
        let batch = batch.map_err(|e| LabelError::unavailable(name, e))?;
        let columns = columns(&batch, name)?;
        for row in 0..batch.num_rows() {
            let mut assertion: Map<String, Value> =
                columns.iter().filter_map(|(key, column)| Some((key.clone(), column.value(row)?))).collect();
            // The subject may stand in two columns of its own.
            if !assertion.contains_key("label_subject_key") {
                let subject = ["platform_run_id", "event_id"].into_iter().filter_map(|key| Some((key.to_owned(), assertion.remove(key)?)));
                let subject: Map<String, Value> = subject.collect();
                assertion.insert("label_subject_key".into(), Value::Object(subject));
            }
            sink(&|| format!("{name} row {}", before + row + 1), &crate::json::canonical(&Value::Object(assertion)))?;
        }
        before += batch.num_rows();
    }
    Ok(())
}

/// A column of which every value has one JSON form.
enum Column {
    Text(arrow::array::StringArray),
    Int64(arrow::array::Int64Array),
    UInt64(arrow::array::UInt64Array),
    Bool(arrow::array::BooleanArray),
    Struct(arrow::array::StructArray, Vec<(String, Column)>),
    /// Where the items of each row lie in the column of all items; nothing where the row is null.
    List(Vec<Option<Range<usize>>>, Box<Column>),
    Null,
}

fn columns(batch: &RecordBatch, name: &str) -> Result<Vec<(String, Column)>, LabelError> {
    let schema = batch.schema();
    let pairs = schema.fields().iter().zip(batch.columns());
    pairs.map(|(field, array)| Ok((field.name().clone(), column(array, name, field.name())?))).collect()
}

fn column(array: &ArrayRef, name: &str, what: &str) -> Result<Column, LabelError> {
    Ok(match array.data_type() {
        DataType::Null => Column::Null,
        DataType::Boolean => Column::Bool(array.as_boolean().clone()),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Column::Int64(widened(array, name)?),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Column::UInt64(widened(array, name)?),
        DataType::Struct(fields) => {
            let whole = array.as_struct();
            let inner = fields.iter().zip(whole.columns());
            let inner = inner.map(|(field, array)| Ok((field.name().clone(), column(array, name, field.name())?)));
            Column::Struct(whole.clone(), inner.collect::<Result<_, LabelError>>()?)
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let at = list.offsets().windows(2).map(|ends| ends.iter().map(|end| *end as usize).collect());
            listed(array, at, list.values(), name, what)?
        }
        DataType::LargeList(_) => {
            let list = array.as_list::<i64>();
            let at = list.offsets().windows(2).map(|ends| ends.iter().map(|end| *end as usize).collect());
            listed(array, at, list.values(), name, what)?
        }
        DataType::FixedSizeList(_, size) => {
            let size = usize::try_from(*size).unwrap_or_default();
            let at = (0..array.len()).map(|row| vec![row * size, (row + 1) * size]);
            listed(array, at, array.as_fixed_size_list().values(), name, what)?
        }
        _ => Column::Text(texts(array, name, what)?),
    })
}

/// Whole numbers of one sign in their widest form, which holds each exactly.
fn widened<T: ArrowPrimitiveType>(array: &ArrayRef, name: &str) -> Result<PrimitiveArray<T>, LabelError> {
    let wide = arrow::compute::cast(array, &T::DATA_TYPE).map_err(|e| LabelError::inconsistent(name, e))?;
    Ok(wide.as_primitive::<T>().clone())
}

/// A column of lists, of which each row's begins and ends at two places in the column of all items.
fn listed(
    array: &ArrayRef,
    ends: impl Iterator<Item = Vec<usize>>,
    items: &ArrayRef,
    name: &str,
    what: &str,
) -> Result<Column, LabelError> {
    let ranges = ends.enumerate().map(|(row, ends)| match ends.as_slice() {
        [from, to] if array.is_valid(row) => Some(*from..*to),
        _ => None,
    });
    Ok(Column::List(ranges.collect(), Box::new(column(items, name, what)?)))
}

impl Column {
    fn value(&self, row: usize) -> Option<Value> {
        match self {
            Column::Text(a) => a.is_valid(row).then(|| Value::String(a.value(row).to_owned())),
            Column::Int64(a) => a.is_valid(row).then(|| Value::from(a.value(row))),
            Column::UInt64(a) => a.is_valid(row).then(|| Value::from(a.value(row))),
            Column::Bool(a) => a.is_valid(row).then(|| Value::Bool(a.value(row))),
            Column::Struct(a, fields) => a
                .is_valid(row)
                .then(|| Value::Object(fields.iter().filter_map(|(key, column)| Some((key.clone(), column.value(row)?))).collect())),
            // A list keeps its nulls, which stand for their places; a field that is null is one that is not there.
            Column::List(ranges, items) => {
                let range = ranges.get(row)?.clone()?;
                Some(Value::Array(range.map(|at| items.value(at).unwrap_or(Value::Null)).collect()))
            }
            Column::Null => None,
        }
    }
}
