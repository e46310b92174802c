//! Sealing one lane: two passes over what is not sealed yet, then one segment after the other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::{
    Array, AsArray, FixedSizeBinaryArray, FixedSizeBinaryBuilder, Int64Array, Int64Builder, RecordBatch, StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use super::attest::Attestation;
use super::census::{self, Known, RECORD, Side, Window};
use super::shelf::{Place, RawLines, Shelf, grow};
use super::{LaneSealed, Outcome, PHASE, internal};
use crate::contract::Offset;
use crate::contract::intent::{Lane, OffsetRange};
use crate::engine::EngineError;
use crate::engine::interval::RangeSet;
use crate::engine::scratch::Budget;
use crate::engine::sorter::Sorter;
use crate::engine::spool::Spool;
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::replay::{Waiting, Work};
use crate::source::sealed::{Attested, Index, Row, Rows, Segment, contains, merged};
use crate::source::{Archive, Chunk, Decoder, Delivery, EventLog, EventRecord, Needs, ReadScope, Sealed};

/// Records gathered before they are handed on.
const GATHER_RECORDS: usize = 4_096;
/// Bytes of text gathered before they are handed on.
const GATHER_TEXT: usize = 4 << 20;

/// A lane to be sealed.
pub(super) struct Task<'t> {
    pub(super) env: &'t Env,
    pub(super) run: &'t str,
    pub(super) lane: &'t Lane,
    pub(super) index: &'t Arc<Index>,
    pub(super) work: &'t Work,
    pub(super) attestations: &'t [Attestation],
}

/// Takes a raw record, with the file of lines that it lies in, if it lies in one.
type TakeRaw<'t> = dyn FnMut(&EventRecord<'_>, Option<&mut RawLines>) -> Result<(), Refusal> + 't;

/// What is new of a lane.
struct Pending<'p> {
    task: &'p Task<'p>,
    archive: Archive,
    chunks: Vec<Chunk>,
    /// Files of lines by name.
    files: BTreeMap<String, RawLines>,
    singles: Vec<Offset>,
    segments: Arc<Vec<Segment>>,
    unreadable: u64,
    refusal: Option<(Offset, Refusal)>,
}

fn engine(error: EngineError) -> Refusal {
    Refusal::of_engine(PHASE, &error)
}

/// Seals what is new in a lane.
///
/// # Errors
/// What contradicts itself, as a refusal; the environment's.
pub(super) fn seal(task: &Task<'_>) -> Result<LaneSealed, Refusal> {
    let source = |e| Refusal::of_source(PHASE, &e);
    let archive = Archive::new(task.env.store.clone(), task.run).beside(task.index.clone());
    let segments = task.index.lane(task.lane).map_err(source)?;
    let (chunks, (lines, singles)) = archive.unsealed(task.lane).map_err(source)?;
    let attestations: Vec<&Attestation> = task.attestations.iter().filter(|a| a.lane() == *task.lane && !settled(&segments, a)).collect();
    let done = |outcome, unreadable| LaneSealed { lane: task.lane.clone(), outcome, segments: Vec::new(), unreadable, refusal: None };
    if attestations.is_empty() && (chunks.is_empty() || !task.lane.kind.dense()) {
        return Ok(done(if chunks.is_empty() { Outcome::UpToDate } else { Outcome::Unattested }, 0));
    }
    let files = lines.into_iter().map(|(name, bytes)| (name, RawLines { bytes, ..RawLines::default() })).collect();
    let mut pending = Pending { task, archive, chunks, files, singles, segments, unreadable: 0, refusal: None };
    let (windows, beside) = pending.census(&attestations)?;
    let written = pending.write(&windows, &beside, &attestations)?;
    let outcome = if written.is_empty() { Outcome::UpToDate } else { Outcome::Sealed };
    Ok(LaneSealed { segments: written, ..done(outcome, pending.unreadable) })
}

/// Whether segments prove an attested range already, by the same attestation.
fn settled(segments: &[Segment], attestation: &Attestation) -> bool {
    let said = told(attestation);
    let proved = segments.iter().filter(|s| s.sidecar.proof.attestation == Some(said)).filter_map(|s| s.sidecar.attested());
    RangeSet::of(&merged(proved.collect())).missing_from(&[attestation.range()]).is_empty()
}

fn told(attestation: &Attestation) -> Attested {
    Attested { start_offset: attestation.start_offset, end_offset: attestation.end_offset, record_count: attestation.record_count }
}

impl Pending<'_> {
    /// Reads every pending record once.
    fn pass(&mut self, verify: bool, take: &mut TakeRaw<'_>) -> Result<(), Refusal> {
        let Pending { task, archive, chunks, files, unreadable, refusal, .. } = self;
        let all = [task.lane.kind.everything()];
        let scope = ReadScope { platform_run_id: task.run, lane: task.lane, ranges: &all, verify, needs: Needs::Envelope };
        let mut decoder = Decoder::new();
        for chunk in chunks.iter() {
            task.env.check(PHASE)?;
            let mut failed = None;
            let name = chunk.place().rsplit('/').next().unwrap_or_default();
            let mut file = files.get_mut(name);
            let read = archive.read(chunk, scope, &mut decoder, &mut |delivery| {
                let step = match delivery {
                    Delivery::Event(event) => take(&event, file.as_deref_mut()),
                    Delivery::Fault(fault) => {
                        file.iter_mut().for_each(|file| file.whole = false);
                        match fault.offset {
                            None => *unreadable += 1,
                            Some(offset) if refusal.as_ref().is_none_or(|(first, _)| offset < *first) => {
                                let message = format!("{} offset {offset} ({}): {}", task.lane, fault.place, fault.message);
                                *refusal = Some((offset, Refusal::new(fault.code, PHASE, message)));
                            }
                            Some(_) => {}
                        }
                        Ok(())
                    }
                    Delivery::Foreign(_) => Ok(()),
                };
                if let Err(refusal) = step {
                    failed = Some(refusal);
                }
                if failed.is_some() || task.env.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            read.map_err(|e| Refusal::of_source(PHASE, &e))?;
            failed.map_or(Ok(()), Err)?;
        }
        task.env.check(PHASE)?;
        refusal.take().map_or(Ok(()), |(_, refusal)| Err(refusal))
    }

    /// Reads the records of the segments that overlap what is new.
    fn beside(&self, spans: &[OffsetRange], take: &mut dyn FnMut(&EventRecord<'_>) -> Result<(), Refusal>) -> Result<(), Refusal> {
        let task = self.task;
        let scope = ReadScope { platform_run_id: task.run, lane: task.lane, ranges: spans, verify: true, needs: Needs::Fields(&[]) };
        let sealed = Sealed::new(task.env.store.clone(), task.run);
        let mut decoder = Decoder::new();
        for chunk in sealed.chunks(task.lane, spans).map_err(|e| Refusal::of_source(PHASE, &e))? {
            task.env.check(PHASE)?;
            let mut failed = None;
            let read = sealed.read(&chunk, scope, &mut decoder, &mut |delivery| {
                if let Delivery::Event(event) = delivery
                    && let Err(refusal) = take(&event)
                {
                    failed = Some(refusal);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            read.map_err(|e| Refusal::of_source(PHASE, &e))?;
            failed.map_or(Ok(()), Err)?;
        }
        Ok(())
    }

    /// The first pass: how the lane is cut, and where segments overlap what is new.
    fn census(&mut self, attestations: &[&Attestation]) -> Result<(Vec<Window>, Vec<OffsetRange>), Refusal> {
        let task = self.task;
        let sorter = Sorter::<RECORD>::new(share(task, Waiting::Proofs), task.work.scratch.clone());
        let mut gathered = Gathered { sorter: &sorter, records: Vec::new() };
        let mut span: Option<OffsetRange> = None;
        self.pass(false, &mut |event, file| {
            let here = OffsetRange { start: event.offset, end: event.offset };
            grow(&mut span, here);
            file.into_iter().for_each(|file| grow(&mut file.span, here));
            gathered.push(event, Side::Raw)
        })?;
        let spans = merged(span.into_iter().chain(attestations.iter().map(|a| a.range())).collect());
        self.beside(&spans, &mut |event| gathered.push(event, Side::Sealed))?;
        gathered.flush()?;
        let proved = merged(self.segments.iter().flat_map(|s| s.sidecar.proof.ranges.iter().map(|span| span.range())).collect());
        let attested: Vec<OffsetRange> = attestations.iter().map(|a| a.range()).collect();
        let closed = merged(self.segments.iter().filter_map(|s| s.sidecar.attested()).collect());
        let pieces = RangeSet::of(&proved).missing_from(&attested);
        let known = Known { lane: task.lane, attestations, pieces: &pieces, closed: &closed };
        Ok((census::take(sorter.finish().map_err(engine)?, &known)?, spans))
    }

    /// The second pass, and the segments.
    fn write(&mut self, windows: &[Window], beside: &[OffsetRange], attestations: &[&Attestation]) -> Result<Vec<super::Written>, Refusal> {
        let task = self.task;
        let schema = schema();
        let spool = Spool::new(schema.clone(), windows.len(), share(task, Waiting::Events), task.work.scratch.clone());
        let mut gathered = Records::new(&spool, &schema);
        let window_of = |offset: Offset| {
            let at = windows.partition_point(|w| w.range.end < offset);
            windows.get(at).filter(|w| w.range.contains(offset)).and(u32::try_from(at).ok())
        };
        let closed = merged(self.segments.iter().filter_map(|s| s.sidecar.attested()).collect());
        self.pass(true, &mut |event, file| match window_of(event.offset) {
            Some(window) => gathered.push(event, Side::Raw, window),
            None => {
                // Of no window are records of a sparse kind outside what is attested; and those of a file that
                // grew since the first pass.
                file.into_iter().filter(|_| !contains(&closed, event.offset)).for_each(|file| file.whole = false);
                Ok(())
            }
        })?;
        self.beside(beside, &mut |event| window_of(event.offset).map_or(Ok(()), |window| gathered.push(event, Side::Sealed, window)))?;
        gathered.flush()?;
        let place = Place { env: task.env, run: task.run, lane: task.lane };
        let mut shelf = Shelf::new(place, self.segments.clone(), std::mem::take(&mut self.singles), std::mem::take(&mut self.files));
        for (at, window) in windows.iter().enumerate() {
            task.env.check(PHASE)?;
            let rows = rows_of(&spool.shard(at).map_err(engine)?, task.lane).map_err(internal)?;
            let attestation = attestations.iter().find(|a| window.attested && a.range().contains(window.range.start)).map(|a| told(a));
            let range = if window.attested { Some(window.range) } else { rows.span() };
            if let Some(range) = range {
                shelf.add(range, attestation, rows)?;
            }
        }
        shelf.finish()
    }
}

/// A thread's share of the memory that a kind of rows may hold.
fn share(task: &Task<'_>, kind: Waiting) -> Arc<Budget> {
    let workers = task.env.config.workers() as u64;
    Arc::new(Budget::new(task.work.budget(kind).limit() / workers))
}

/// Offsets on their way into the census.
struct Gathered<'g> {
    sorter: &'g Sorter<RECORD>,
    records: Vec<[u8; RECORD]>,
}

impl Gathered<'_> {
    fn push(&mut self, event: &EventRecord<'_>, side: Side) -> Result<(), Refusal> {
        let text = event.envelope.map_or(0, |envelope| envelope.raw().len());
        self.records.push(census::record(event.offset, side, &event.payload_hash, text));
        if self.records.len() >= 4 * GATHER_RECORDS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        self.sorter.push(std::mem::take(&mut self.records)).map_err(engine)
    }
}

/// Columns of records on their way to their windows.
mod column {
    pub(super) const OFFSET: usize = 0;
    pub(super) const SIDE: usize = 1;
    pub(super) const HASH: usize = 2;
    pub(super) const TS: usize = 3;
    pub(super) const EVENT_ID: usize = 4;
    pub(super) const DECLARED: usize = 5;
    pub(super) const SCENARIO: usize = 6;
    pub(super) const ENVELOPE: usize = 7;
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("offset", DataType::FixedSizeBinary(24), false),
        Field::new("side", DataType::Int64, false),
        Field::new("hash", DataType::FixedSizeBinary(32), false),
        Field::new("ts", DataType::Int64, false),
        Field::new("event_id", DataType::Utf8, false),
        Field::new("declared", DataType::Utf8, true),
        Field::new("scenario", DataType::Utf8, true),
        Field::new("envelope", DataType::Utf8, false),
    ]))
}

struct Records<'r> {
    spool: &'r Spool,
    schema: &'r SchemaRef,
    offset: FixedSizeBinaryBuilder,
    side: Int64Builder,
    hash: FixedSizeBinaryBuilder,
    ts: Int64Builder,
    event_id: StringBuilder,
    declared: StringBuilder,
    scenario: StringBuilder,
    envelope: StringBuilder,
    windows: Vec<u32>,
    text: usize,
}

impl<'r> Records<'r> {
    fn new(spool: &'r Spool, schema: &'r SchemaRef) -> Self {
        Records {
            spool,
            schema,
            offset: FixedSizeBinaryBuilder::new(24),
            side: Int64Builder::new(),
            hash: FixedSizeBinaryBuilder::new(32),
            ts: Int64Builder::new(),
            event_id: StringBuilder::new(),
            declared: StringBuilder::new(),
            scenario: StringBuilder::new(),
            envelope: StringBuilder::new(),
            windows: Vec::new(),
            text: 0,
        }
    }

    fn push(&mut self, event: &EventRecord<'_>, side: Side, window: u32) -> Result<(), Refusal> {
        let arrow = |e: arrow::error::ArrowError| engine(e.into());
        let envelope = event.envelope.map_or("", |envelope| envelope.raw());
        self.offset.append_value(event.offset.to_bytes()).map_err(arrow)?;
        self.side.append_value(side as i64);
        self.hash.append_value(event.payload_hash).map_err(arrow)?;
        self.ts.append_value(event.ts.0);
        self.event_id.append_value(&event.event_id);
        self.declared.append_option(event.declared.as_deref());
        self.scenario.append_option(event.scenario_run_id.as_deref());
        self.envelope.append_value(envelope);
        self.windows.push(window);
        self.text += envelope.len();
        if self.windows.len() >= GATHER_RECORDS || self.text >= GATHER_TEXT { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        let batch = RecordBatch::try_new(
            self.schema.clone(),
            vec![
                Arc::new(self.offset.finish()),
                Arc::new(self.side.finish()),
                Arc::new(self.hash.finish()),
                Arc::new(self.ts.finish()),
                Arc::new(self.event_id.finish()),
                Arc::new(self.declared.finish()),
                Arc::new(self.scenario.finish()),
                Arc::new(self.envelope.finish()),
            ],
        );
        self.spool.push(&batch.map_err(|e| engine(e.into()))?, &self.windows).map_err(engine)?;
        self.windows.clear();
        self.text = 0;
        Ok(())
    }
}

/// The records of a window that are not sealed yet, each once, in the order of their offsets.
fn rows_of(batch: &RecordBatch, lane: &Lane) -> Result<Rows, String> {
    let missing = || "a column of the gathered records is missing".to_owned();
    let text = |at: usize| batch.columns().get(at).and_then(|c| c.as_string_opt::<i32>()).ok_or_else(missing);
    let binary = |at: usize| batch.columns().get(at).and_then(|c| c.as_fixed_size_binary_opt()).ok_or_else(missing);
    let number = |at: usize| batch.columns().get(at).and_then(|c| c.as_primitive_opt::<Int64Type>()).ok_or_else(missing);
    let (offsets, hashes): (&FixedSizeBinaryArray, &FixedSizeBinaryArray) = (binary(column::OFFSET)?, binary(column::HASH)?);
    let (sides, ts): (&Int64Array, &Int64Array) = (number(column::SIDE)?, number(column::TS)?);
    let (ids, envelopes): (&StringArray, &StringArray) = (text(column::EVENT_ID)?, text(column::ENVELOPE)?);
    let (declared, scenarios) = (text(column::DECLARED)?, text(column::SCENARIO)?);
    let or_none = |array: &'_ StringArray, row: usize| array.is_valid(row).then(|| array.value(row).to_owned());
    let mut order: Vec<usize> = (0..batch.num_rows()).collect();
    // A record that was delivered twice may be spelled in two ways: which is kept must not depend on files.
    order.sort_by(|a, b| {
        let key = |row: usize| (offsets.value(row), sides.value(row), envelopes.value(row), declared.value(row));
        key(*a).cmp(&key(*b))
    });
    let mut rows = Rows::new(lane.kind);
    let mut last: Option<usize> = None;
    for row in order {
        if let Some(last) = last.filter(|last| offsets.value(*last) == offsets.value(row)) {
            if hashes.value(last) != hashes.value(row) {
                return Err(format!("an offset of {lane} has another hash than in the first pass"));
            }
            continue;
        }
        last = Some(row);
        if sides.value(row) == Side::Sealed as i64 {
            continue;
        }
        let offset = offsets.value(row).try_into().map(Offset::from_bytes).map_err(|_| missing())?;
        let (declared, scenario) = (or_none(declared, row), or_none(scenarios, row));
        rows.push(Row {
            offset,
            event_id: ids.value(row),
            ts: ts.value(row),
            hash: hashes.value(row),
            declared: declared.as_deref(),
            scenario: scenario.as_deref(),
            envelope: envelopes.value(row),
        })?;
    }
    Ok(rows)
}
