//! Label assertions as Parquet, with the same fields as the JSON lines. The subject may be a struct
//! `label_subject_key` or the two columns `platform_run_id` and `event_id`.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::column::{Stamps, Texts, read_as};
use super::{Assertion, LabelError, LabelQuery, LabelSink, LabelTimeline, Part};

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
        let meta = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|e| LabelError::unavailable(&name, e))?;
        let wanted = ArrowReaderOptions::new().with_schema(Arc::new(read_as(meta.schema())));
        // A file whose columns cannot be had in that form is read as it is.
        let meta = ArrowReaderMetadata::try_new(meta.metadata().clone(), wanted).unwrap_or(meta);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, meta);
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

fn deliver(
    batch: &RecordBatch,
    query: LabelQuery<'_>,
    name: &str,
    place: &dyn Fn(usize) -> String,
    sink: &mut LabelSink<'_>,
) -> Result<ControlFlow<()>, LabelError> {
    let texts = |column: Option<&ArrayRef>, key: &str| column.map(|c| Texts::of(c, name, key)).transpose();
    let stamps = |key: &str| batch.column_by_name(key).map(|c| Stamps::of(c, name, key)).transpose();
    let column = |key: &str| texts(batch.column_by_name(key), key);
    let subject: Option<&StructArray> = batch.column_by_name("label_subject_key").and_then(|c| c.as_struct_opt());
    let of_subject = |key: &str| match subject {
        Some(subject) => texts(subject.column_by_name(key), key),
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
    let (values, hashes) = (column("label_value")?, column("payload_hash")?);
    let (effective, observed) = (stamps("effective_time")?, stamps("observed_time")?);
    for row in 0..batch.num_rows() {
        // A subject that is null as a whole may still have values in columns that cannot be null.
        let no_subject = subject.is_some_and(|s| s.is_null(row));
        let (Some(id), Some(run), Some(event_id), Some(label_type), false) =
            (ids.get(row), runs.get(row), events.get(row), types.get(row), no_subject)
        else {
            return Err(LabelError::inconsistent(place(row), "an assertion without id, subject or type"));
        };
        if run != query.platform_run_id || !query.types.contains(label_type) {
            continue;
        }
        let flow = sink(Assertion {
            id,
            event_id,
            label_type,
            value: values.as_ref().and_then(|c| c.get(row)),
            effective: effective.as_ref().and_then(|c| c.get(row)),
            observed: observed.as_ref().and_then(|c| c.get(row)),
            embedded_observed: None,
            fault: None,
            unread: false,
            payload_hash: hashes.as_ref().and_then(|c| c.get(row)),
        });
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}
