//! Records as columns, as a log hands them over that keeps them so. A column holds what the record of its row
//! says, so who takes columns and who takes records learn the same.

use std::borrow::Cow;

use arrow::array::{Array, FixedSizeBinaryArray, Int64Array, StringArray};

use super::payload::{FieldColumn, FieldValues, Payload};
use super::{Delivery, EventRecord};
use crate::contract::Offset;
use crate::engine::offsets::Offsets;
use crate::time::Instant;

/// What a log hands over where columns are welcome.
#[derive(Debug)]
pub enum Handed<'a> {
    /// One record, or what stands in its place.
    Record(Delivery<'a>),
    /// Readable records of this run, all of them wanted.
    Columns(&'a Columns),
}

/// Records of one lane in the order of their offsets, without their envelopes.
#[derive(Debug)]
pub struct Columns {
    offset: Offsets,
    event_id: StringArray,
    ts: Int64Array,
    hash: FixedSizeBinaryArray,
    scenario: StringArray,
    fields: Vec<FieldColumn>,
}

impl Columns {
    /// Columns of one length: offsets, event ids, event times in micros, 32 bytes of hash, scenario runs, payload.
    pub(crate) fn new(
        offset: Offsets,
        event_id: StringArray,
        ts: Int64Array,
        hash: FixedSizeBinaryArray,
        scenario: StringArray,
        fields: Vec<FieldColumn>,
    ) -> Self {
        Columns { offset, event_id, ts, hash, scenario, fields }
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.event_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offsets, which were checked to be such.
    pub fn offsets(&self) -> &Offsets {
        &self.offset
    }

    /// The offset in a row.
    pub fn offset(&self, row: usize) -> Offset {
        self.offset.get(row)
    }

    /// Event ids.
    pub fn event_ids(&self) -> &StringArray {
        &self.event_id
    }

    /// Event times in micros.
    pub fn ts(&self) -> &Int64Array {
        &self.ts
    }

    /// SHA-256 of each canonical envelope.
    pub fn hashes(&self) -> &FixedSizeBinaryArray {
        &self.hash
    }

    /// Scenario runs, where events name one.
    pub fn scenarios(&self) -> &StringArray {
        &self.scenario
    }

    /// A payload field, where any of the records has it.
    pub fn field(&self, name: &str) -> Option<&FieldValues> {
        self.fields.iter().find(|field| field.name == name).map(|field| &field.values)
    }

    /// The payload in a row.
    pub fn payload(&self, row: usize) -> Payload<'_> {
        Payload::Row(&self.fields, row)
    }

    /// The record in a row; nothing where its hash is not 32 bytes.
    pub fn event(&self, row: usize) -> Option<EventRecord<'_>> {
        Some(EventRecord {
            offset: self.offset.checked(row)?,
            event_id: Cow::Borrowed(self.event_id.value(row)),
            ts: Instant(self.ts.value(row)),
            payload_hash: self.hash.value(row).try_into().ok()?,
            scenario_run_id: self.scenario.is_valid(row).then(|| Cow::Borrowed(self.scenario.value(row))),
            declared: None,
            payload: self.payload(row),
            envelope: None,
        })
    }
}
