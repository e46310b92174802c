//! Sealed segments as an event log.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::read::{self, Batch};
use super::{Index, Segment};
use crate::contract::intent::{Lane, OffsetRange};
use crate::source::{Bounds, Chunk, ChunkFile, Decoder, EventLog, Handed, ReadScope, Sink, Source, SourceError, WideSink};
use crate::store::Store;

/// The sealed segments of one platform run.
#[derive(Debug)]
pub struct Sealed {
    store: Arc<dyn Store>,
    index: Arc<Index>,
}

impl Sealed {
    /// The segments of `platform_run_id` in `store`.
    pub fn new(store: Arc<dyn Store>, platform_run_id: &str) -> Self {
        Sealed { index: Arc::new(Index::new(store.clone(), platform_run_id)), store }
    }

    /// What is sealed, for the archive that it stands for.
    pub fn index(&self) -> Arc<Index> {
        self.index.clone()
    }
}

/// Takes a batch of a segment; `Break` ends the read early.
type Each<'e> = dyn FnMut(&Batch, &Segment) -> Result<ControlFlow<()>, SourceError> + 'e;

impl Sealed {
    /// Hands the wanted records of a piece to `each`, batch by batch, once the piece's bytes were checked.
    fn batches(&self, chunk: &Chunk, scope: ReadScope<'_>, each: &mut Each<'_>) -> Result<(), SourceError> {
        let segments = self.index.lane(scope.lane)?;
        for file in &chunk.files {
            let Some(segment) = segments.iter().find(|s| s.file.as_str() == file.place) else { continue };
            let bytes = read::whole(self.store.as_ref(), segment)?;
            if read::deliver(segment, bytes, scope, &mut |batch| each(batch, segment))?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn overlap(a: OffsetRange, b: OffsetRange) -> bool {
    a.start <= b.end && b.start <= a.end
}

impl EventLog for Sealed {
    fn source(&self) -> Source {
        Source::Sealed
    }

    fn bounds(&self, lane: &Lane) -> Result<Bounds, SourceError> {
        Ok(Bounds { attested: self.index.attested(lane)?, ..Bounds::default() })
    }

    fn chunks(&self, lane: &Lane, ranges: &[OffsetRange]) -> Result<Vec<Chunk>, SourceError> {
        let segments = self.index.lane(lane)?;
        let wanted = segments.iter().filter(|s| ranges.iter().any(|range| overlap(*range, s.sidecar.range())));
        Ok(wanted.map(|s| Chunk { files: vec![ChunkFile { place: s.file.as_str().to_owned(), offset: None }] }).collect())
    }

    fn read(&self, chunk: &Chunk, scope: ReadScope<'_>, decoder: &mut Decoder, sink: &mut Sink<'_>) -> Result<(), SourceError> {
        self.batches(chunk, scope, &mut |batch, segment| batch.records(segment, decoder, sink))
    }

    fn read_wide(&self, chunk: &Chunk, scope: ReadScope<'_>, decoder: &mut Decoder, sink: &mut WideSink<'_>) -> Result<(), SourceError> {
        self.batches(chunk, scope, &mut |batch, segment| match batch.columns() {
            Some(columns) => Ok(sink(Handed::Columns(columns))),
            None => batch.records(segment, decoder, &mut |delivery| sink(Handed::Record(delivery))),
        })
    }
}
