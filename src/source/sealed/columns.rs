//! The columns of a segment, and how records become columns and columns bytes.
//!
//! The envelope is kept as its text, so that nothing is lost; beside it stands whatever a build reads, so that
//! it need not read the text. A payload field gets the narrowest type that gives every value back as it was
//! written: booleans, 64-bit integers, number tokens, strings, else JSON text.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, FixedSizeBinaryBuilder, Int64Array, Int64Builder, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use crate::contract::intent::OffsetRange;
use crate::contract::{Offset, OffsetKind};
use crate::digest::hex;
use crate::digest::pieces::Pieces;
use crate::json::{Kind, Tape};
use crate::source::payload::{FieldValues, Payload};

/// Most records of a segment.
pub const SEGMENT_RECORDS: usize = 32_768;
/// Most bytes of envelope text in a segment, but for a single record that is longer.
pub const SEGMENT_TEXT: u64 = 12 << 20;
/// Payload fields that get a column; of more, the later ones stay in the envelope.
const MAX_FIELDS: usize = 512;

/// Offset: int64, or decimal text for a sparse kind.
pub(super) const OFFSET: &str = "offset";
/// Event id.
pub(super) const EVENT_ID: &str = "event_id";
/// Event time.
pub(super) const TS: &str = "ts_utc";
/// Bare SHA-256 of the canonical envelope, verified.
pub(super) const HASH: &str = "envelope_sha256";
/// The payload hash as it was declared, where that is not the bare SHA-256 in lower-case hex.
pub(super) const DECLARED: &str = "declared_hash";
/// Scenario run, where the event names one.
pub(super) const SCENARIO: &str = "scenario_run_id";
/// The envelope as its producer wrote it.
pub(super) const ENVELOPE: &str = "envelope";
/// Begins the names of payload columns.
pub(super) const FIELD: &str = "payload_";

/// One column, as the sidecar lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnSpec {
    /// Its name.
    pub name: String,
    /// Its type; a payload column's says which texts its values stand for.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
}

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// 64-bit integers.
    Int64,
    /// Booleans.
    Bool,
    /// Number tokens, as text.
    Number,
    /// Text.
    Text,
    /// JSON values, as text.
    Json,
    /// Microseconds, UTC.
    TimestampMicros,
    /// 32 bytes.
    Binary32,
}

/// One record on its way into a segment.
#[derive(Debug, Clone, Copy)]
pub struct Row<'r> {
    /// Its offset.
    pub offset: Offset,
    /// Event id.
    pub event_id: &'r str,
    /// Event time in micros.
    pub ts: i64,
    /// SHA-256 of the canonical envelope.
    pub hash: &'r [u8],
    /// The payload hash as declared.
    pub declared: Option<&'r str>,
    /// Scenario run.
    pub scenario: Option<&'r str>,
    /// The envelope's text.
    pub envelope: &'r str,
}

/// The records of one segment, gathered in the order of their offsets.
pub struct Rows {
    kind: OffsetKind,
    offsets: Vec<Offset>,
    event_id: StringBuilder,
    ts: Vec<i64>,
    hash: FixedSizeBinaryBuilder,
    declared: StringBuilder,
    scenario: StringBuilder,
    envelope: StringBuilder,
    fields: Fields,
    digest: Pieces,
    recipes: BTreeMap<String, u64>,
}

/// A segment that is ready to be stored.
#[derive(Debug)]
pub struct Encoded {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its columns.
    pub schema: Vec<ColumnSpec>,
    /// Whether every payload field has one.
    pub payload_complete: bool,
    /// Records.
    pub records: u64,
    /// Maximal ranges of adjacent offsets.
    pub runs: Vec<OffsetRange>,
    /// See [`super::sidecar::Sidecar::records_digest`].
    pub records_digest: String,
    /// Declared hashes by recipe.
    pub recipes: BTreeMap<String, u64>,
}

impl Rows {
    /// An empty segment of this kind.
    pub fn new(kind: OffsetKind) -> Self {
        Rows {
            kind,
            offsets: Vec::new(),
            event_id: StringBuilder::new(),
            ts: Vec::new(),
            hash: FixedSizeBinaryBuilder::new(32),
            declared: StringBuilder::new(),
            scenario: StringBuilder::new(),
            envelope: StringBuilder::new(),
            fields: Fields::default(),
            digest: Pieces::new(),
            recipes: BTreeMap::new(),
        }
    }

    /// Adds a record, whose offset is above all earlier ones and whose envelope was verified.
    ///
    /// # Errors
    /// An envelope that is no JSON, in words.
    pub fn push(&mut self, row: Row<'_>) -> Result<(), String> {
        self.offsets.push(row.offset);
        self.event_id.append_value(row.event_id);
        self.ts.push(row.ts);
        self.hash.append_value(row.hash).map_err(|e| e.to_string())?;
        let plain = row.declared.is_none_or(|declared| declared == hex(row.hash));
        self.declared.append_option(row.declared.filter(|_| !plain));
        let recipe = row.declared.and_then(|d| d.split_once(':')).map_or("sha256", |(recipe, _)| recipe);
        match self.recipes.get_mut(recipe) {
            Some(count) => *count += 1,
            None => drop(self.recipes.insert(recipe.to_owned(), 1)),
        }
        self.scenario.append_option(row.scenario);
        self.envelope.append_value(row.envelope);
        self.digest.push(&row.offset.to_bytes());
        self.digest.push(row.hash);
        self.fields.push(row.envelope)
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is none yet.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// First and last offset.
    pub fn span(&self) -> Option<OffsetRange> {
        Some(OffsetRange { start: *self.offsets.first()?, end: *self.offsets.last()? })
    }

    /// The segment as a file: the same records give the same bytes.
    ///
    /// # Errors
    /// A defect of the writer, in words.
    pub fn encode(mut self) -> Result<Encoded, String> {
        let runs = runs(self.offsets.iter().copied()).collect();
        let records = self.offsets.len() as u64;
        let (payload, payload_complete) = self.fields.finish(self.offsets.len());
        let dense = self.kind.dense();
        let offsets: ArrayRef = if dense {
            Arc::new(self.offsets.iter().map(|o| o.to_i64()).collect::<Int64Array>())
        } else {
            Arc::new(StringArray::from_iter_values(self.offsets.iter().map(Offset::to_string)))
        };
        let ts = TimestampMicrosecondArray::from(self.ts).with_timezone("UTC");
        use ColumnType::{Binary32, Int64, Text, TimestampMicros};
        let mut columns: Vec<(String, ColumnType, ArrayRef, bool)> = vec![
            (OFFSET.into(), if dense { Int64 } else { Text }, offsets, false),
            (EVENT_ID.into(), Text, Arc::new(self.event_id.finish()), false),
            (TS.into(), TimestampMicros, Arc::new(ts), false),
            (HASH.into(), Binary32, Arc::new(self.hash.finish()), false),
            (DECLARED.into(), Text, Arc::new(self.declared.finish()), true),
            (SCENARIO.into(), Text, Arc::new(self.scenario.finish()), true),
        ];
        columns.extend(payload.into_iter().map(|(name, column_type, array)| (format!("{FIELD}{name}"), column_type, array, true)));
        columns.push((ENVELOPE.into(), Text, Arc::new(self.envelope.finish()), false));
        let fields: Vec<Field> =
            columns.iter().map(|(name, column_type, _, nullable)| Field::new(name, arrow_type(*column_type), *nullable)).collect();
        let schema: Vec<ColumnSpec> =
            columns.iter().map(|(name, column_type, ..)| ColumnSpec { name: name.clone(), column_type: *column_type }).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, _, array, _)| array).collect());
        let bytes = write(&batch.map_err(|e| e.to_string())?, &schema)?;
        let records_digest = self.digest.digest().to_hex().to_string();
        Ok(Encoded { bytes, schema, payload_complete, records, runs, records_digest, recipes: self.recipes })
    }
}

/// Ascending offsets as ranges of adjacent ones.
pub(super) fn runs(offsets: impl Iterator<Item = Offset>) -> impl Iterator<Item = OffsetRange> {
    let mut offsets = offsets.peekable();
    std::iter::from_fn(move || {
        let start = offsets.next()?;
        let mut end = start;
        while let Some(next) = offsets.next_if(|next| *next == end.next()) {
            end = next;
        }
        Some(OffsetRange { start, end })
    })
}

fn arrow_type(column_type: ColumnType) -> DataType {
    match column_type {
        ColumnType::Int64 => DataType::Int64,
        ColumnType::Bool => DataType::Boolean,
        ColumnType::Number | ColumnType::Text | ColumnType::Json => DataType::Utf8,
        ColumnType::TimestampMicros => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        ColumnType::Binary32 => DataType::FixedSizeBinary(32),
    }
}

/// Whether a column's values repeat, so that a dictionary pays.
fn repeats(column: &ColumnSpec) -> bool {
    column.name == SCENARIO || (column.name.starts_with(FIELD) && column.column_type == ColumnType::Text)
}

fn write(batch: &RecordBatch, columns: &[ColumnSpec]) -> Result<Vec<u8>, String> {
    let level = ZstdLevel::try_new(1).map_err(|e| e.to_string())?;
    let mut properties = WriterProperties::builder()
        .set_created_by("ofs".into())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(SEGMENT_RECORDS))
        .set_data_page_size_limit(1 << 20)
        .set_data_page_row_count_limit(20_000)
        .set_write_batch_size(1_024)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false);
    for column in columns.iter().filter(|column| repeats(column)) {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column.name.as_str()), true);
    }
    let options = ArrowWriterOptions::new().with_properties(properties.build()).with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, batch.schema(), options).map_err(|e| e.to_string())?;
    writer.write(batch).map_err(|e| e.to_string())?;
    writer.close().map_err(|e| e.to_string())?;
    Ok(bytes)
}

/// Payload fields as texts, until it is known which types they have.
#[derive(Default)]
struct Fields {
    tape: Tape,
    rows: usize,
    columns: BTreeMap<String, Gathered>,
    beyond: bool,
}

/// What was seen of a field: one value's text and kind a row.
#[derive(Default)]
struct Gathered {
    texts: StringBuilder,
    kinds: Vec<Option<Kind>>,
    escaped: bool,
    /// Whether a number was seen that is not written as a 64-bit integer is.
    wide: bool,
}

impl Fields {
    fn push(&mut self, envelope: &str) -> Result<(), String> {
        let Fields { tape, rows, columns, beyond } = self;
        let doc = tape.parse(envelope.as_bytes()).map_err(|e| e.to_string())?;
        if let Payload::Json(payload) = Payload::of(doc.root()) {
            for (name, value) in payload.fields().filter(|(_, value)| !value.is_null()) {
                if let Some(column) = columns.get_mut(name.as_ref()) {
                    column.push(*rows, value.kind(), value.raw());
                } else if columns.len() < MAX_FIELDS {
                    columns.entry(name.into_owned()).or_default().push(*rows, value.kind(), value.raw());
                } else {
                    *beyond = true;
                }
            }
        }
        *rows += 1;
        Ok(())
    }

    /// The columns by name, and whether that is all of the payload.
    fn finish(&mut self, rows: usize) -> (Vec<(String, ColumnType, ArrayRef)>, bool) {
        let columns = std::mem::take(&mut self.columns);
        let typed = columns.into_iter().map(|(name, mut column)| {
            column.pad(rows);
            let (column_type, array) = column.finish();
            (name, column_type, array)
        });
        (typed.collect(), !self.beyond)
    }
}

impl Gathered {
    fn pad(&mut self, rows: usize) {
        while self.kinds.len() < rows {
            self.texts.append_null();
            self.kinds.push(None);
        }
    }

    /// The value of a row; the rows that were passed over have none.
    fn push(&mut self, row: usize, kind: Kind, text: &str) {
        self.pad(row);
        self.escaped |= kind == Kind::String && text.contains('\\');
        self.wide |= kind == Kind::Number && !integer(text);
        self.texts.append_value(text);
        self.kinds.push(Some(kind));
    }

    fn finish(mut self) -> (ColumnType, ArrayRef) {
        let texts = self.texts.finish();
        let all = |kind: Kind| self.kinds.iter().flatten().all(|k| *k == kind);
        if all(Kind::Bool) {
            return (ColumnType::Bool, Arc::new(texts.iter().map(|t| t.map(|t| t == "true")).collect::<BooleanArray>()));
        }
        if all(Kind::Number) && !self.wide {
            let mut numbers = Int64Builder::with_capacity(texts.len());
            texts.iter().for_each(|t| numbers.append_option(t.and_then(|t| t.parse().ok())));
            return (ColumnType::Int64, Arc::new(numbers.finish()));
        }
        if all(Kind::Number) {
            return (ColumnType::Number, Arc::new(texts));
        }
        if all(Kind::String) && !self.escaped {
            return (ColumnType::Text, Arc::new(texts));
        }
        let json = texts.iter().zip(&self.kinds).map(|(text, kind)| {
            let text = text?;
            Some(if *kind == Some(Kind::String) { format!("\"{text}\"") } else { text.to_owned() })
        });
        (ColumnType::Json, Arc::new(json.collect::<StringArray>()))
    }
}

/// Whether a number token is what a 64-bit integer is written as.
fn integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    text.parse::<i64>().is_ok() && !digits.starts_with('+') && (text == "0" || !digits.starts_with('0'))
}

/// The values of a payload column that was read back.
pub(super) fn field_values(column_type: ColumnType, array: &ArrayRef) -> Option<FieldValues> {
    use arrow::array::AsArray;
    let text = || array.as_string_opt::<i32>().cloned();
    Some(match column_type {
        ColumnType::Bool => FieldValues::Bool(array.as_boolean_opt()?.clone()),
        ColumnType::Int64 => FieldValues::Int(array.as_primitive_opt()?.clone()),
        ColumnType::Number => FieldValues::Number(text()?),
        ColumnType::Text => FieldValues::Text(text()?),
        ColumnType::Json => FieldValues::Json(text()?),
        ColumnType::TimestampMicros | ColumnType::Binary32 => return None,
    })
}

/// Whether a file has exactly the listed columns.
pub(super) fn agrees(schema: &SchemaRef, columns: &[ColumnSpec]) -> bool {
    schema.fields().len() == columns.len()
        && schema
            .fields()
            .iter()
            .zip(columns)
            .all(|(field, column)| *field.name() == column.name && *field.data_type() == arrow_type(column.column_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(envelopes: &[String]) -> Encoded {
        let mut rows = Rows::new(OffsetKind::KafkaOffset);
        for (n, envelope) in envelopes.iter().enumerate() {
            let offset = Offset::from(n as u64 * 2);
            let row = Row { offset, event_id: "e", ts: 0, hash: &[7; 32], declared: None, scenario: None, envelope };
            rows.push(row).unwrap();
        }
        rows.encode().unwrap()
    }

    #[test]
    fn a_field_gets_the_narrowest_type_that_gives_its_text_back() {
        let types = |values: &[&str]| -> Vec<String> {
            let envelopes: Vec<String> = values.iter().map(|v| format!("{{\"payload\":{{{v}}}}}")).collect();
            let encoded = rows(&envelopes);
            let payload = encoded.schema.iter().filter(|c| c.name.starts_with(FIELD));
            payload.map(|c| format!("{} {:?}", c.name, c.column_type)).collect()
        };
        assert_eq!(types(&["\"a\":1", "\"a\":-5", "\"a\":null", ""]), ["payload_a Int64"]);
        assert_eq!(types(&["\"a\":1", "\"a\":1.0"]), ["payload_a Number"]);
        assert_eq!(types(&["\"a\":-0"]), ["payload_a Number"]);
        assert_eq!(types(&["\"a\":9223372036854775808"]), ["payload_a Number"]);
        assert_eq!(types(&["\"a\":true,\"b\":\"x\"", "\"b\":\"y\""]), ["payload_a Bool", "payload_b Text"]);
        assert_eq!(types(&["\"a\":\"x\"", "\"a\":\"\\n\""]), ["payload_a Json"]);
        assert_eq!(types(&["\"a\":\"x\"", "\"a\":1"]), ["payload_a Json"]);
        assert_eq!(types(&["\"a\":[1]"]), ["payload_a Json"]);
        assert_eq!(types(&["\"a\":null"]), [] as [&str; 0]);
    }

    #[test]
    fn an_integer_is_what_it_is_written_as() {
        for text in ["0", "-1", "7", "10", "100", "9223372036854775807", "-9223372036854775808"] {
            assert!(integer(text), "{text}");
        }
        for text in ["", "-", "-0", "+1", "-+1", "00", "01", "-01", "1.0", "1e3", " 1", "9223372036854775808", "-9223372036854775809"] {
            assert!(!integer(text) && text.parse::<i64>().map_or(true, |n| n.to_string() != text), "{text}");
        }
    }

    #[test]
    fn the_same_records_give_the_same_bytes_and_their_runs() {
        let envelopes: Vec<String> = (0..2_000).map(|n| format!("{{\"payload\":{{\"a\":{n},\"b\":\"k{}\"}}}}", n % 7)).collect();
        let (a, b) = (rows(&envelopes), rows(&envelopes));
        assert_eq!(a.bytes, b.bytes);
        assert_eq!((a.records, a.runs.len()), (2_000, 2_000));
    }

    #[test]
    fn fields_beyond_the_limit_stay_in_the_envelope() {
        let fields: Vec<String> = (0..=MAX_FIELDS).map(|n| format!("\"f{n:04}\":{n}")).collect();
        let encoded = rows(&[format!("{{\"payload\":{{{}}}}}", fields.join(","))]);
        assert!(!encoded.payload_complete);
        assert_eq!(encoded.schema.iter().filter(|c| c.name.starts_with(FIELD)).count(), MAX_FIELDS);
    }
}
