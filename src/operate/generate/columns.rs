//! Label assertions as columns, with the names of the fields that a build reads.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::event::RUN;
use super::label::{Assertion, TYPE};
use super::{GenerateError, at};

/// Assertions of one row group, which is what one worker of a build reads at a time.
const GROUP: usize = 1 << 16;
/// The columns of texts.
const TEXTS: [&str; 6] = ["label_assertion_id", "platform_run_id", "event_id", "label_type", "label_value", "payload_hash"];
/// The columns of instants.
const INSTANTS: [&str; 2] = ["effective_time", "observed_time"];

/// A Parquet file of assertions.
pub(super) struct Columns {
    path: PathBuf,
    schema: Arc<Schema>,
    writer: ArrowWriter<File>,
    texts: [StringBuilder; TEXTS.len()],
    instants: [TimestampMicrosecondBuilder; INSTANTS.len()],
    rows: usize,
}

impl Columns {
    pub(super) fn create(path: PathBuf) -> Result<Self, GenerateError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let fields = TEXTS.map(|name| Field::new(name, DataType::Utf8, false)).into_iter();
        let schema = Arc::new(Schema::new(fields.chain(INSTANTS.map(|name| Field::new(name, instant.clone(), false))).collect::<Vec<_>>()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP))
            .build();
        let file = File::create_new(&path).map_err(at(&path))?;
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(|e| failed(&path, e))?;
        Ok(Columns { path, schema, writer, texts: Default::default(), instants: Default::default(), rows: 0 })
    }

    pub(super) fn push(&mut self, assertion: &Assertion<'_>) -> Result<(), GenerateError> {
        let (hash, text) = (assertion.payload_hash().to_hex(), |id: &'_ [u8; 32]| String::from_utf8_lossy(id).into_owned());
        let (id, event) = (text(&assertion.id), text(&assertion.event.id));
        let texts = [id.as_str(), RUN, event.as_str(), TYPE, assertion.value, hash.as_str()];
        self.texts.iter_mut().zip(texts).for_each(|(column, text)| column.append_value(text));
        self.instants.iter_mut().zip([assertion.event.ts, assertion.seen]).for_each(|(column, instant)| column.append_value(instant));
        self.rows += 1;
        if self.rows == GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), GenerateError> {
        let texts = self.texts.iter_mut().map(|column| Arc::new(column.finish()) as ArrayRef);
        let instants = self.instants.iter_mut().map(|column| Arc::new(column.finish().with_timezone("UTC")) as ArrayRef);
        let batch = RecordBatch::try_new(self.schema.clone(), texts.chain(instants).collect()).map_err(|e| failed(&self.path, e.into()))?;
        self.rows = 0;
        self.writer.write(&batch).map_err(|e| failed(&self.path, e))
    }

    pub(super) fn finish(mut self) -> Result<(), GenerateError> {
        self.flush()?;
        let path = self.path;
        self.writer.close().map(drop).map_err(|e| failed(&path, e))
    }
}

fn failed(path: &std::path::Path, error: parquet::errors::ParquetError) -> GenerateError {
    GenerateError::Io { path: path.to_owned(), source: std::io::Error::other(error) }
}
