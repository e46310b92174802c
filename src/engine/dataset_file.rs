//! Parquet parts with pinned properties: one identity and one writer revision give one set of bytes.

use std::io::{self, Write};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::EngineError;
use super::scratch::width;

/// Raised with any change of the writer, its settings or its crates.
pub const WRITER_REVISION: &str = "2";
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

/// How the values of a column are laid down that no dictionary takes. Compression costs by the byte that it is given
/// and by the pattern that it tries in vain, so integers go as packed differences (half of a data set's time of
/// compression otherwise) and the lengths of texts, which are mostly equal, apart from the texts.
fn encoding(data_type: &DataType) -> Encoding {
    match data_type {
        // Decimals of up to eighteen digits are stored as integers.
        DataType::Int32 | DataType::Int64 | DataType::Timestamp(..) | DataType::Decimal128(..=18, _) => Encoding::DELTA_BINARY_PACKED,
        DataType::Utf8 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        _ => Encoding::PLAIN,
    }
}

/// Columns of digests: no range of theirs ever leaves a page out.
fn digests(name: &str) -> bool {
    matches!(name, "row_id" | "payload_hash")
}

/// About how many bytes a row takes while its part is being encoded.
pub fn encoded_width(schema: &SchemaRef) -> u64 {
    const IN_A_DICTIONARY: u64 = 4;
    schema.fields().iter().map(|field| if repeats(field.name()) { IN_A_DICTIONARY } else { width(field.data_type()) }).sum()
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
        let column = ColumnPath::from(field.name().as_str());
        builder = builder
            .set_column_encoding(column.clone(), encoding(field.data_type()))
            .set_column_dictionary_enabled(column.clone(), repeats(field.name()));
        if digests(field.name()) {
            builder = builder.set_column_statistics_enabled(column, EnabledStatistics::None);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;

    /// Extremes beside each other, where differences wrap around, and every type that a data set has.
    fn rows() -> RecordBatch {
        let wide = [i64::MIN, i64::MAX, 0, -1, i64::MAX, i64::MIN, 7];
        let instants: TimestampMicrosecondArray = wide.iter().map(|n| (*n != 0).then_some(*n)).collect();
        let texts =
            |n: usize| -> ArrayRef { Arc::new((0..7).map(|row| (row != n).then(|| "é".repeat(row * n))).collect::<StringArray>()) };
        let decimal = |precision: u8| -> ArrayRef {
            let top = 10i128.pow(precision.into()) - 1;
            let values = Decimal128Array::from(vec![Some(-top), None, Some(top), Some(0), Some(-1), Some(top), Some(-top)]);
            Arc::new(values.with_precision_and_scale(precision, 2).unwrap())
        };
        let columns: Vec<(&str, ArrayRef, bool)> = vec![
            ("row_id", Arc::new(StringArray::from(vec!["00ff"; 7])), false),
            ("topic", Arc::new(StringArray::from(vec!["t"; 7])), false),
            ("ts_utc", Arc::new(instants.with_timezone("UTC")), true),
            ("offset", Arc::new(Int64Array::from(wide.to_vec())), false),
            ("partition", Arc::new(Int32Array::from(vec![i32::MIN, i32::MAX, 0, i32::MIN, -1, 1, i32::MAX])), false),
            ("sum", Arc::new(Int32Array::from(vec![i32::MIN, i32::MAX, 0, i32::MIN, -1, 1, i32::MAX])), false),
            ("mean", Arc::new(Float64Array::from(vec![Some(0.1), None, Some(-0.0), Some(f64::MAX), None, Some(5e-324), Some(1.0)])), true),
            ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), None, None, Some(true), None])), true),
            ("nine", decimal(9), true),
            ("eighteen", decimal(18), true),
            ("nineteen", decimal(19), true),
            ("thirty_eight", decimal(38), true),
            ("label_x", texts(1), true),
            ("label_x_assertion_id", texts(3), true),
        ];
        RecordBatch::try_from_iter_with_nullable(columns).unwrap()
    }

    fn part(rows: &RecordBatch) -> (Bytes, PartStats) {
        let mut writer = PartWriter::new(Vec::new(), rows.schema(), 2).unwrap();
        writer.write(rows).unwrap();
        let (bytes, stats) = writer.finish().unwrap();
        (bytes.into(), stats)
    }

    #[test]
    fn every_value_of_every_type_comes_back() {
        let rows = rows();
        let (bytes, stats) = part(&rows);
        let found: Vec<RecordBatch> = read_part(bytes.clone()).unwrap().map(|batch| batch.unwrap()).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].columns(), rows.columns());
        assert_eq!(schema_of(bytes.clone()).unwrap().fields().len(), rows.num_columns());
        assert_eq!((stats.rows, stats.bytes, &stats.blake3), (7, bytes.len() as u64, &blake3::hash(&bytes).to_hex().to_string()));
        assert_eq!((stats.min_ts, stats.max_ts), (i64::MIN, i64::MAX));
        assert_eq!(part(&rows), (bytes, stats));
    }

    /// What makes a part cheap to write and to read: a dictionary only where values repeat, ranges only where
    /// they say something, everything compressed.
    #[test]
    fn every_column_is_laid_down_in_its_own_way() {
        let reader = SerializedFileReader::new(part(&rows()).0).unwrap();
        let group = reader.metadata().row_group(0).clone();
        let column = |name: &str| group.columns().iter().find(|c| c.column_path().string() == name).unwrap();
        for (name, encoding) in [
            ("row_id", Encoding::DELTA_LENGTH_BYTE_ARRAY),
            ("topic", Encoding::RLE_DICTIONARY),
            ("ts_utc", Encoding::DELTA_BINARY_PACKED),
            ("offset", Encoding::DELTA_BINARY_PACKED),
            ("partition", Encoding::RLE_DICTIONARY),
            ("sum", Encoding::DELTA_BINARY_PACKED),
            ("mean", Encoding::PLAIN),
            ("eighteen", Encoding::DELTA_BINARY_PACKED),
            ("nineteen", Encoding::PLAIN),
            ("label_x", Encoding::RLE_DICTIONARY),
            ("label_x_assertion_id", Encoding::DELTA_LENGTH_BYTE_ARRAY),
        ] {
            assert!(column(name).encodings().any(|found| found == encoding), "{name}");
            assert!(matches!(column(name).compression(), Compression::ZSTD(_)), "{name}");
            assert_eq!(column(name).statistics().is_some(), name != "row_id", "{name}");
        }
    }
}
