//! Parquet parts with pinned properties: one identity and one writer revision give one set of bytes.

use std::io::{self, Write};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::EngineError;

/// Raised with any change of the writer, its settings or its crates.
pub const WRITER_REVISION: &str = "1";
/// Rows of a part; also of its single row group.
pub const PART_ROWS: u64 = 131_072;

/// What a finished part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartStats {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub blake3: String,
    /// Smallest event time, micros.
    pub min_ts: i64,
    /// Largest event time, micros.
    pub max_ts: i64,
}

struct Hashing<W> {
    inner: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Columns whose values repeat, so that a dictionary pays; the rest is unique or numeric.
fn repeats(name: &str) -> bool {
    matches!(name, "topic" | "partition" | "offset_kind" | "key")
        || (name.starts_with("label_") && !name.ends_with("_observed_utc") && !name.ends_with("_assertion_id"))
}

fn properties(schema: &SchemaRef) -> Result<WriterProperties, EngineError> {
    let level = ZstdLevel::try_new(1).map_err(internal)?;
    let mut builder = WriterProperties::builder()
        .set_created_by("ofs".into())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(PART_ROWS as usize))
        .set_data_page_size_limit(1 << 20)
        .set_data_page_row_count_limit(20_000)
        .set_write_batch_size(1_024)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_dictionary_enabled(false);
    for field in schema.fields() {
        if repeats(field.name()) {
            builder = builder.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), true);
        }
    }
    Ok(builder.build())
}

fn internal(error: ParquetError) -> EngineError {
    EngineError::Internal(error.to_string())
}

fn written(error: ParquetError) -> EngineError {
    match error {
        ParquetError::External(source) => EngineError::Scratch { place: "a part of the data set".into(), message: source.to_string() },
        other => EngineError::Internal(other.to_string()),
    }
}

/// Writes one part.
pub struct PartWriter<W: Write + Send> {
    writer: ArrowWriter<Hashing<W>>,
    ts_column: usize,
    stats: PartStats,
}

impl<W: Write + Send> PartWriter<W> {
    /// A part with this schema; `ts_column` is where `ts_utc` stands.
    ///
    /// # Errors
    /// A sink that fails.
    pub fn new(sink: W, schema: SchemaRef, ts_column: usize) -> Result<Self, EngineError> {
        let options = ArrowWriterOptions::new().with_properties(properties(&schema)?).with_skip_arrow_metadata(true);
        let sink = Hashing { inner: sink, hasher: blake3::Hasher::new(), bytes: 0 };
        let writer = ArrowWriter::try_new_with_options(sink, schema, options).map_err(written)?;
        Ok(PartWriter {
            writer,
            ts_column,
            stats: PartStats { rows: 0, bytes: 0, blake3: String::new(), min_ts: i64::MAX, max_ts: i64::MIN },
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// A sink that fails.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), EngineError> {
        let stamps = batch.columns().get(self.ts_column).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        for ts in stamps.map(|a| a.values().iter()).into_iter().flatten() {
            self.stats.min_ts = self.stats.min_ts.min(*ts);
            self.stats.max_ts = self.stats.max_ts.max(*ts);
        }
        self.stats.rows += batch.num_rows() as u64;
        self.writer.write(batch).map_err(written)
    }

    /// Completes the file and hands the sink back.
    ///
    /// # Errors
    /// A sink that fails.
    pub fn finish(self) -> Result<(W, PartStats), EngineError> {
        let PartWriter { writer, mut stats, .. } = self;
        // What has not reached the sink yet goes there now, and of a sink that fails then only words are left.
        let hashing = writer.into_inner().map_err(|e| match e {
            ParquetError::General(message) => EngineError::Scratch { place: "a part of the data set".into(), message },
            other => written(other),
        })?;
        stats.bytes = hashing.bytes;
        stats.blake3 = hashing.hasher.finalize().to_hex().to_string();
        Ok((hashing.inner, stats))
    }
}

/// Reads the rows of a part in batches.
///
/// # Errors
/// Bytes that are no Parquet file.
pub fn read_part(bytes: Bytes) -> Result<ParquetRecordBatchReader, String> {
    ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|b| b.with_batch_size(8_192).build()).map_err(|e| e.to_string())
}

/// The arrow schema of a part.
///
/// # Errors
/// Bytes that are no Parquet file.
pub fn schema_of(bytes: Bytes) -> Result<SchemaRef, String> {
    ParquetRecordBatchReaderBuilder::try_new(bytes).map(|b| b.schema().clone()).map_err(|e| e.to_string())
}
