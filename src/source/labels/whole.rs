//! Every assertion of a file as one JSON text, for whoever keeps assertions and does not ask about some of
//! them: the line as it stands, or the row of a Parquet file with all its columns.

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type};
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
    Int32(arrow::array::Int32Array),
    Bool(arrow::array::BooleanArray),
    Struct(arrow::array::StructArray, Vec<(String, Column)>),
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
        DataType::Int64 => Column::Int64(array.as_primitive::<Int64Type>().clone()),
        DataType::Int32 => Column::Int32(array.as_primitive::<Int32Type>().clone()),
        DataType::Struct(fields) => {
            let whole = array.as_struct();
            let inner = fields.iter().zip(whole.columns());
            let inner = inner.map(|(field, array)| Ok((field.name().clone(), column(array, name, field.name())?)));
            Column::Struct(whole.clone(), inner.collect::<Result<_, LabelError>>()?)
        }
        _ => Column::Text(texts(array, name, what)?),
    })
}

impl Column {
    fn value(&self, row: usize) -> Option<Value> {
        match self {
            Column::Text(a) => a.is_valid(row).then(|| Value::String(a.value(row).to_owned())),
            Column::Int64(a) => a.is_valid(row).then(|| Value::from(a.value(row))),
            Column::Int32(a) => a.is_valid(row).then(|| Value::from(a.value(row))),
            Column::Bool(a) => a.is_valid(row).then(|| Value::Bool(a.value(row))),
            Column::Struct(a, fields) => a
                .is_valid(row)
                .then(|| Value::Object(fields.iter().filter_map(|(key, column)| Some((key.clone(), column.value(row)?))).collect())),
            Column::Null => None,
        }
    }
}
