//! Sealed segments as an event log.

use std::sync::Arc;

use super::{Index, read};
use crate::contract::intent::{Lane, OffsetRange};
use crate::source::{Bounds, Chunk, ChunkFile, Decoder, EventLog, ReadScope, Sink, Source, SourceError};
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
        let segments = self.index.lane(scope.lane)?;
        for file in &chunk.files {
            let Some(segment) = segments.iter().find(|s| s.file.as_str() == file.place) else { continue };
            let bytes = read::whole(self.store.as_ref(), segment)?;
            if read::deliver(segment, bytes, scope, decoder, sink)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
