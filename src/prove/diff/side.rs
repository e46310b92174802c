//! One side of a comparison: the rows of a data set in canonical order, one batch of one part in hand.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int32Type, SchemaRef, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;
use serde_json::Value;

use super::view::RowRef;
use crate::contract::intent::Lane;
use crate::contract::{Offset, OffsetKind, ReasonCode};
use crate::engine::cell::cell;
use crate::engine::offsets::Offsets;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::lineage::Place;
use crate::prove::dataset::{Part, batch, open_part};
use crate::store::Store;
use crate::time::Instant;

/// Rows in order.
pub(in crate::prove) struct Side<'e> {
    env: &'e Env,
    store: Arc<dyn Store>,
    parts: std::vec::IntoIter<Part>,
    open: Option<(Part, ParquetRecordBatchReader)>,
    names: Vec<String>,
    rows: Option<Rows>,
    at: usize,
    /// Kind and offset of the row in hand, which may not be what they should be.
    here: Option<(OffsetKind, Offset)>,
}

/// A batch, and those of its columns that say where a row stands.
struct Rows {
    batch: RecordBatch,
    ts: TimestampMicrosecondArray,
    topic: StringArray,
    partition: Int32Array,
    kind: StringArray,
    offset: Offsets,
}

/// Where a row stands, in the order of [`Place`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::prove) struct Spot<'r> {
    ts: Instant,
    topic: &'r str,
    partition: i32,
    kind: OffsetKind,
    pub(super) offset: Offset,
}

/// The row in hand.
pub(in crate::prove) struct Row<'r> {
    batch: &'r RecordBatch,
    at: usize,
    spot: Spot<'r>,
}

/// Opens a side over parts of any store.
///
/// # Errors
/// As of [`Side::advance`].
pub(in crate::prove) fn open<'e>(env: &'e Env, store: &Arc<dyn Store>, parts: Vec<Part>) -> Result<Side<'e>, Refusal> {
    Side::open(env, store, parts)
}

impl<'e> Side<'e> {
    pub(super) fn open(env: &'e Env, store: &Arc<dyn Store>, parts: Vec<Part>) -> Result<Self, Refusal> {
        let parts = parts.into_iter();
        let mut side = Side { env, store: store.clone(), parts, open: None, names: Vec::new(), rows: None, at: 0, here: None };
        side.fill()?;
        Ok(side)
    }

    /// The columns, by name.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Where the row in hand stands; nothing at the end.
    pub(super) fn peek(&self) -> Option<Spot<'_>> {
        let (rows, (kind, offset)) = self.rows.as_ref().zip(self.here)?;
        let (ts, topic, partition) = (Instant(rows.ts.value(self.at)), rows.topic.value(self.at), rows.partition.value(self.at));
        Some(Spot { ts, topic, partition, kind, offset })
    }

    /// The row in hand.
    pub(in crate::prove) fn row(&self) -> Option<Row<'_>> {
        Some(Row { batch: &self.rows.as_ref()?.batch, at: self.at, spot: self.peek()? })
    }

    /// Goes to the next row.
    ///
    /// # Errors
    /// `DIGEST_MISMATCH` for a part that is not what names it or has no such columns, the store's, `INTERRUPTED`.
    pub(in crate::prove) fn advance(&mut self) -> Result<(), Refusal> {
        self.at += 1;
        self.fill()
    }

    /// Makes sure that a row is in hand, unless this is the end.
    fn fill(&mut self) -> Result<(), Refusal> {
        loop {
            if let Some(rows) = self.rows.as_ref().filter(|rows| self.at < rows.batch.num_rows()) {
                self.here = Some(rows.here(self.at).ok_or_else(placeless)?);
                return Ok(());
            }
            self.env.check(Phase::Publication)?;
            (self.rows, self.at, self.here) = (None, 0, None);
            match self.open.as_mut().and_then(|(part, reader)| reader.next().map(|rows| batch(part, rows))) {
                Some(rows) => self.rows = Some(Rows::of(rows?).ok_or_else(placeless)?),
                None => match self.parts.next() {
                    None => return Ok(()),
                    Some(part) => {
                        let reader = open_part(&self.store, &part)?;
                        self.schema(arrow::array::RecordBatchReader::schema(&reader))?;
                        self.open = Some((part, reader));
                        self.env.progress.advance(1);
                    }
                },
            }
        }
    }

    fn schema(&mut self, schema: SchemaRef) -> Result<(), Refusal> {
        let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        if !self.names.is_empty() && self.names != names {
            return Err(broken("two parts of one data set have different columns"));
        }
        self.names = names;
        Ok(())
    }
}

fn broken(what: &str) -> Refusal {
    Refusal::new(ReasonCode::DigestMismatch, Phase::Publication, format!("{what}; `ofs verify` tells what else does not hold"))
}

fn placeless() -> Refusal {
    broken("a row has no place")
}

impl Rows {
    fn of(batch: RecordBatch) -> Option<Self> {
        let column = |name: &str| batch.column_by_name(name);
        let text = |name: &str| column(name)?.as_string_opt::<i32>().cloned();
        Some(Rows {
            ts: column("ts_utc")?.as_primitive_opt::<TimestampMicrosecondType>()?.clone(),
            topic: text("topic")?,
            partition: column("partition")?.as_primitive_opt::<Int32Type>()?.clone(),
            kind: text("offset_kind")?,
            offset: Offsets::of(column("offset")?.as_ref()).ok()?,
            batch,
        })
    }

    /// What of a row's place has to be read first.
    fn here(&self, at: usize) -> Option<(OffsetKind, Offset)> {
        Some((OffsetKind::parse(self.kind.value(at))?, self.offset.checked(at)?))
    }
}

impl Spot<'_> {
    /// Whether the lane is its own.
    pub(super) fn lies_in(&self, lane: &Lane) -> bool {
        self.partition == lane.partition && self.topic == lane.topic && self.kind == lane.kind
    }

    fn place(&self) -> Place {
        let lane = Lane { topic: self.topic.to_owned(), partition: self.partition, kind: self.kind };
        Place { ts: self.ts, lane, offset: self.offset }
    }
}

impl Row<'_> {
    /// Its number in its batch.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// A column of its batch.
    pub(super) fn column(&self, at: usize) -> Option<&dyn Array> {
        self.batch.columns().get(at).map(|c| c.as_ref())
    }

    /// Where it stands.
    pub(super) fn spot(&self) -> &Spot<'_> {
        &self.spot
    }

    /// A value by the name of its column; null where there is none.
    pub(super) fn value(&self, name: &str) -> Value {
        self.batch.column_by_name(name).map(|c| cell(c.as_ref(), self.at)).unwrap_or_default()
    }

    /// What names it in an answer.
    pub(in crate::prove) fn reference(&self) -> RowRef {
        let text = |name: &str| self.value(name).as_str().unwrap_or_default().to_owned();
        RowRef { event_id: text("event_id"), key: text("key"), place: self.spot.place() }
    }
}
