//! Reading a segment: the file's digest stands for every hash in it, and only the columns that are needed
//! are decoded.

use std::borrow::Cow;
use std::io::Read;
use std::ops::ControlFlow;

use arrow::array::{Array, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::columns::{DECLARED, ENVELOPE, EVENT_ID, FIELD, HASH, OFFSET, SCENARIO, TS, agrees, field_values};
use super::{Segment, invalid};
use crate::contract::Offset;
use crate::contract::intent::OffsetRange;
use crate::engine::offsets::Offsets;
use crate::source::columns::Columns;
use crate::source::payload::{FieldColumn, Payload};
use crate::source::{Decoder, Delivery, EventRecord, Needs, ReadScope, Sink, SourceError, of_store};
use crate::store::Store;

/// Rows that are decoded at a time.
const BATCH: usize = 16_384;

/// The bytes of a segment's file, which are those of its sidecar.
pub(super) fn whole(store: &dyn Store, segment: &Segment) -> Result<Bytes, SourceError> {
    let wanted = &segment.sidecar.file;
    let mut bytes = Vec::new();
    let reader = store.open(&segment.file).map_err(of_store)?;
    // One byte more than there may be tells a longer file.
    reader.take(wanted.bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| SourceError::io(segment.file.as_str(), &e))?;
    let found = blake3::hash(&bytes).to_hex();
    if bytes.len() as u64 != wanted.bytes || found.as_str() != wanted.blake3 {
        return Err(invalid(&segment.file, format!("the file's digest is {found}, and its sidecar says {}", wanted.blake3)));
    }
    Ok(Bytes::from(bytes))
}

/// One batch: its records, and where envelopes were asked for, what goes with them.
pub(super) struct Batch {
    columns: Columns,
    declared: Option<StringArray>,
    envelope: Option<StringArray>,
}

fn text(batch: &RecordBatch, name: &str) -> Option<StringArray> {
    batch.column_by_name(name)?.as_string_opt::<i32>().cloned()
}

fn offsets(batch: &RecordBatch) -> Option<Offsets> {
    Offsets::of(batch.column_by_name(OFFSET)?.as_ref()).ok()
}

impl Batch {
    fn of(batch: &RecordBatch, segment: &Segment) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name);
        let mut fields = Vec::new();
        for spec in &segment.sidecar.schema {
            if let (Some(name), Some(array)) = (spec.name.strip_prefix(FIELD), column(&spec.name)) {
                fields.push(FieldColumn { name: name.to_owned(), values: field_values(spec.column_type, array)? });
            }
        }
        let columns = Columns::new(
            offsets(batch)?,
            text(batch, EVENT_ID)?,
            column(TS)?.as_primitive_opt::<TimestampMicrosecondType>()?.reinterpret_cast(),
            column(HASH)?.as_fixed_size_binary_opt().filter(|hashes| hashes.value_length() == 32)?.clone(),
            text(batch, SCENARIO)?,
            fields,
        );
        Some(Batch { columns, declared: text(batch, DECLARED), envelope: text(batch, ENVELOPE) })
    }

    /// The record in a row; `decoder` reads its envelope where that is there.
    fn record<'a>(&'a self, row: usize, decoder: &'a mut Decoder) -> Result<EventRecord<'a>, String> {
        let event = self.columns.event(row).ok_or("a hash that is not 32 bytes")?;
        let Some(envelopes) = &self.envelope else { return Ok(event) };
        let envelope = decoder.tape.parse(envelopes.value(row).as_bytes()).map_err(|e| e.to_string())?.root();
        let declared = self.declared.as_ref().filter(|declared| declared.is_valid(row)).map(|declared| Cow::Borrowed(declared.value(row)));
        Ok(EventRecord { declared, payload: Payload::of(envelope), envelope: Some(envelope), ..event })
    }

    /// Hands every record to `sink`.
    pub(super) fn records(&self, segment: &Segment, decoder: &mut Decoder, sink: &mut Sink<'_>) -> Result<ControlFlow<()>, SourceError> {
        for row in 0..self.columns.len() {
            let event = self.record(row, decoder).map_err(|what| invalid(&segment.file, what))?;
            if sink(Delivery::Event(event)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The records as columns, where those are all that was asked for.
    pub(super) fn columns(&self) -> Option<&Columns> {
        self.envelope.is_none().then_some(&self.columns)
    }
}

/// Which columns answer the needs: the payload's where that is enough, else the envelope.
fn projection(segment: &Segment, needs: Needs<'_>) -> Vec<usize> {
    let schema = &segment.sidecar.schema;
    let has = |field: &String| schema.iter().any(|c| c.name.strip_prefix(FIELD) == Some(field));
    let fields = match needs {
        Needs::Fields(fields) if segment.sidecar.payload_complete || fields.iter().all(has) => Some(fields),
        _ => None,
    };
    let wanted = |name: &str| match (name.strip_prefix(FIELD), fields) {
        (Some(field), Some(fields)) => fields.iter().any(|f| f == field),
        (Some(_), None) => false,
        (None, Some(_)) => name != ENVELOPE && name != DECLARED,
        (None, None) => true,
    };
    schema.iter().enumerate().filter(|(_, column)| wanted(&column.name)).map(|(at, _)| at).collect()
}

/// Hands the wanted records of a segment whose bytes were checked to `each`, batch by batch.
pub(super) fn deliver(
    segment: &Segment,
    bytes: Bytes,
    scope: ReadScope<'_>,
    each: &mut dyn FnMut(&Batch) -> Result<ControlFlow<()>, SourceError>,
) -> Result<ControlFlow<()>, SourceError> {
    let broken = |what: &str| invalid(&segment.file, what);
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| broken(&e.to_string()))?;
    if !agrees(builder.schema(), &segment.sidecar.schema) {
        return Err(broken("the file has other columns than its sidecar says"));
    }
    if u64::try_from(builder.metadata().file_metadata().num_rows()) != Ok(segment.sidecar.records) {
        return Err(broken("it holds another number of records than its sidecar says"));
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), projection(segment, scope.needs));
    let reader = builder.with_projection(mask).with_batch_size(BATCH).build().map_err(|e| broken(&e.to_string()))?;
    let all_wanted = scope.ranges.iter().any(|r| r.start <= segment.sidecar.start_offset && segment.sidecar.end_offset <= r.end);
    let mut checked = Checked { segment: segment.sidecar.range(), last: None };
    for batch in reader {
        let mut batch = batch.map_err(|e| broken(&e.to_string()))?;
        let offsets = offsets(&batch).ok_or_else(|| broken("a column of another type than its sidecar says"))?;
        let mut wanted = BooleanBufferBuilder::new(offsets.len());
        for row in 0..offsets.len() {
            let offset = offsets.checked(row).filter(|o| checked.next(*o));
            let offset = offset.ok_or_else(|| broken("offsets out of order or outside its range"))?;
            wanted.append(all_wanted || scope.wants(offset));
        }
        if !all_wanted {
            let wanted = BooleanArray::new(wanted.finish(), None);
            batch = filter_record_batch(&batch, &wanted).map_err(|e| broken(&e.to_string()))?;
            if batch.num_rows() == 0 {
                continue;
            }
        }
        let batch = Batch::of(&batch, segment).ok_or_else(|| broken("a column of another type than its sidecar says"))?;
        if each(&batch)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Whether offsets come as a segment must have them.
struct Checked {
    segment: OffsetRange,
    last: Option<Offset>,
}

impl Checked {
    fn next(&mut self, offset: Offset) -> bool {
        let lawful = self.segment.contains(offset) && self.last.is_none_or(|last| last < offset);
        self.last = Some(offset);
        lawful
    }
}
