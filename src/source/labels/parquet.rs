//! Label assertions as Parquet, with the same fields as the JSON lines. The subject may be a struct
//! `label_subject_key` or the two columns `platform_run_id` and `event_id`.

use std::fs::File;
use std::path::PathBuf;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StringBuilder, StructArray};
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};

use super::{Assertion, LabelError, LabelQuery, LabelSink, LabelTimeline, Part};
use crate::time::Instant;

/// The columns that are read.
const READ: [&str; 9] = [
    "label_assertion_id",
    "label_subject_key",
    "platform_run_id",
    "event_id",
    "label_type",
    "label_value",
    "effective_time",
    "observed_time",
    "payload_hash",
];
/// Rows read at once.
const BATCH_ROWS: usize = 4_096;

/// A timeline of Parquet files.
#[derive(Debug)]
pub struct ParquetLabels {
    files: Vec<PathBuf>,
}

impl ParquetLabels {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        ParquetLabels { files }
    }

    fn name(&self, file: usize) -> String {
        self.files.get(file).and_then(|p| p.file_name()).map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl LabelTimeline for ParquetLabels {
    fn describe(&self) -> &'static str {
        "parquet"
    }

    fn parts(&self) -> Result<Vec<Part>, LabelError> {
        let mut parts = Vec::new();
        for (file, path) in self.files.iter().enumerate() {
            let reader = File::open(path).map_err(|e| LabelError::unavailable(self.name(file), e))?;
            let meta = ArrowReaderMetadata::load(&reader, Default::default()).map_err(|e| LabelError::unavailable(self.name(file), e))?;
            parts.extend((0..meta.metadata().num_row_groups() as u64).map(|group| Part { file, from: group, to: group + 1 }));
        }
        Ok(parts)
    }

    fn scan(&self, part: &Part, query: LabelQuery<'_>, sink: &mut LabelSink<'_>) -> Result<(), LabelError> {
        let name = self.name(part.file);
        let Some(path) = self.files.get(part.file) else { return Ok(()) };
        let file = File::open(path).map_err(|e| LabelError::unavailable(&name, e))?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| LabelError::unavailable(&name, e))?;
        let group = usize::try_from(part.from).unwrap_or(usize::MAX);
        // What else an assertion says is covered by its payload hash and need not be read.
        let wanted: Vec<usize> =
            builder.schema().fields().iter().enumerate().filter(|(_, f)| READ.contains(&f.name().as_str())).map(|(at, _)| at).collect();
        let columns = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let builder = builder.with_row_groups(vec![group]).with_projection(columns).with_batch_size(BATCH_ROWS);
        let reader = builder.build().map_err(|e| LabelError::unavailable(&name, e))?;
        let mut rows = 0;
        for batch in reader {
            let batch = batch.map_err(|e| LabelError::unavailable(&name, e))?;
            let place = |row: usize| format!("{name} row group {group} row {}", rows + row);
            if deliver(&batch, query, &name, &place, sink)?.is_break() {
                break;
            }
            rows += batch.num_rows();
        }
        Ok(())
    }
}

/// A column as text; timestamps become RFC 3339.
pub(super) fn texts(column: Option<ArrayRef>, name: &str, what: &str) -> Result<Option<StringArray>, LabelError> {
    let Some(column) = column else { return Ok(None) };
    match column.data_type() {
        DataType::Utf8 => Ok(Some(column.as_string::<i32>().clone())),
        DataType::LargeUtf8 => Ok(Some(column.as_string::<i64>().iter().collect())),
        DataType::Utf8View => Ok(Some(column.as_string_view().iter().collect())),
        DataType::Dictionary(_, _) => {
            let dictionary = column.as_any_dictionary();
            let values = texts(Some(dictionary.values().clone()), name, what)?.unwrap_or_else(|| StringArray::new_null(0));
            if values.is_empty() {
                return Ok(Some(StringArray::new_null(column.len())));
            }
            let keys = dictionary.normalized_keys();
            Ok(Some(
                keys.iter()
                    .enumerate()
                    .map(|(row, key)| (column.is_valid(row) && values.is_valid(*key)).then(|| values.value(*key)))
                    .collect(),
            ))
        }
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some(zone)) if matches!(zone.as_ref(), "UTC" | "+00:00") => {
            let stamps = column.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
            let mut texts = StringBuilder::with_capacity(stamps.len(), stamps.len() * 27);
            for stamp in stamps {
                let text = stamp.and_then(|micros| Instant(micros).text());
                match text.as_ref().map(|text| std::str::from_utf8(text).unwrap_or_default()) {
                    Some(text) => texts.append_value(text),
                    // Beyond the calendar it is no instant, and says so.
                    None => texts.append_option(stamp.map(|micros| Instant(micros).to_string())),
                }
            }
            Ok(Some(texts.finish()))
        }
        other => {
            Err(LabelError::inconsistent(name, format!("column {what} has type {other}; expected text or a UTC timestamp in microseconds")))
        }
    }
}

fn deliver(
    batch: &RecordBatch,
    query: LabelQuery<'_>,
    name: &str,
    place: &dyn Fn(usize) -> String,
    sink: &mut LabelSink<'_>,
) -> Result<std::ops::ControlFlow<()>, LabelError> {
    let column = |key: &str| texts(batch.column_by_name(key).cloned(), name, key);
    let subject: Option<StructArray> = batch.column_by_name("label_subject_key").and_then(|c| c.as_struct_opt().cloned());
    let of_subject = |key: &str| match &subject {
        Some(subject) => texts(subject.column_by_name(key).cloned(), name, key),
        None => column(key),
    };
    let (ids, runs, events, types) =
        (column("label_assertion_id")?, of_subject("platform_run_id")?, of_subject("event_id")?, column("label_type")?);
    let (Some(ids), Some(runs), Some(events), Some(types)) = (ids, runs, events, types) else {
        return Err(LabelError::inconsistent(
            name,
            "expected the columns label_assertion_id, label_subject_key (or platform_run_id and event_id) and label_type",
        ));
    };
    let (values, effective, observed, hashes) =
        (column("label_value")?, column("effective_time")?, column("observed_time")?, column("payload_hash")?);
    fn at(array: &Option<StringArray>, row: usize) -> Option<&str> {
        array.as_ref().filter(|a| a.is_valid(row)).map(|a| a.value(row))
    }
    for row in 0..batch.num_rows() {
        // A subject that is null as a whole may still have values in columns that cannot be null.
        let no_subject = subject.as_ref().is_some_and(|s| s.is_null(row));
        if no_subject || [&ids, &runs, &events, &types].iter().any(|a| a.is_null(row)) {
            return Err(LabelError::inconsistent(place(row), "an assertion without id, subject or type"));
        }
        if runs.value(row) != query.platform_run_id || !query.types.contains(types.value(row)) {
            continue;
        }
        let flow = sink(Assertion {
            id: ids.value(row),
            event_id: events.value(row),
            label_type: types.value(row),
            value: at(&values, row),
            effective: at(&effective, row),
            observed: at(&observed, row),
            embedded_observed: None,
            payload_hash: at(&hashes, row),
        });
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(std::ops::ControlFlow::Continue(()))
}
