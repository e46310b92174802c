//! The raw archive: `<store>/R/archive/events/topic=…/partition=…/offset_kind=…/`, one record a file
//! (`offset=<n>.json`) and one record a line (`*.jsonl`), mixed freely.

use std::io::Read;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::lines::{Line, Lines, blank};
use super::sealed::Index;
use super::{Bounds, Chunk, ChunkFile, Decoder, Delivery, EventLog, Fault, Needs, ReadScope, Sink, Source, SourceError, of_store};
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, ReasonCode};
use crate::json::MAX_TEXT;
use crate::store::{Ref, Store};

/// Single-record files that make one piece of work.
const FILES_A_CHUNK: usize = 256;

/// The archive of one platform run.
#[derive(Debug)]
pub struct Archive {
    store: Arc<dyn Store>,
    platform_run_id: String,
    sealed: Option<Arc<Index>>,
}

/// Names and sizes of a lane's files of lines, and the offsets that have a file of their own, sorted.
pub type Holds = (Vec<(String, u64)>, Vec<Offset>);

/// A file of the archive by its name.
enum Named {
    Single(Offset),
    Lines,
    Other,
}

fn named(name: &str) -> Named {
    if let Some(digits) = name.strip_prefix("offset=").and_then(|n| n.strip_suffix(".json")) {
        return Offset::parse(digits).map_or(Named::Other, Named::Single);
    }
    if name.ends_with(".jsonl") { Named::Lines } else { Named::Other }
}

impl Archive {
    /// The archive of `platform_run_id` in `store`.
    pub fn new(store: Arc<dyn Store>, platform_run_id: &str) -> Self {
        Archive { store, platform_run_id: platform_run_id.to_owned(), sealed: None }
    }

    /// The same, without the records that sealed segments stand for.
    #[must_use]
    pub fn beside(self, sealed: Arc<Index>) -> Self {
        Archive { sealed: Some(sealed), ..self }
    }

    /// What of a lane is not sealed, and what the lane holds in all, by the names of its files. Both come of one listing: what a
    /// segment says that it was made of must have been there to be read.
    ///
    /// # Errors
    /// The environment's; those of the segments' sidecars.
    pub fn unsealed(&self, lane: &Lane) -> Result<(Vec<Chunk>, Holds), SourceError> {
        let files = self.files(lane)?;
        let (mut lines, mut singles) = (Vec::new(), Vec::new());
        for (at, bytes, kind) in &files {
            match kind {
                Named::Lines => lines.push((at.as_str().rsplit('/').next().unwrap_or_default().to_owned(), *bytes)),
                Named::Single(offset) => singles.push(*offset),
                Named::Other => {}
            }
        }
        singles.sort();
        Ok((self.pieces(lane, &[lane.kind.everything()], files)?, (lines, singles)))
    }

    /// Pieces of work of a lane's files, but for what is sealed.
    fn pieces(&self, lane: &Lane, ranges: &[OffsetRange], files: Vec<(Ref, u64, Named)>) -> Result<Vec<Chunk>, SourceError> {
        let scope = ReadScope { platform_run_id: &self.platform_run_id, lane, ranges, verify: false, needs: Needs::Envelope };
        let cover = self.sealed.as_ref().map(|index| index.cover(lane)).transpose()?.unwrap_or_default();
        let mut chunks = Vec::new();
        let mut singles = Vec::new();
        for (at, bytes, kind) in files {
            let place = at.as_str().to_owned();
            match kind {
                Named::Lines if cover.file(place.rsplit('/').next().unwrap_or_default(), bytes) => {}
                Named::Lines => chunks.push(Chunk { files: vec![ChunkFile { place, offset: None }] }),
                Named::Single(offset) => singles.push((offset, place)),
                Named::Other => {}
            }
        }
        singles.sort();
        let sealed = cover.singles(&singles.iter().map(|(offset, _)| *offset).collect::<Vec<_>>());
        let wanted = singles.into_iter().zip(sealed).filter(|((offset, _), sealed)| !sealed && scope.wants(*offset));
        let singles: Vec<ChunkFile> = wanted.map(|((offset, place), _)| ChunkFile { place, offset: Some(offset) }).collect();
        chunks.extend(singles.chunks(FILES_A_CHUNK).map(|files| Chunk { files: files.to_vec() }));
        Ok(chunks)
    }

    fn folder(&self, lane: &Lane) -> Ref {
        let (topic, partition, kind) =
            (format!("topic={}", lane.topic), format!("partition={}", lane.partition), format!("offset_kind={}", lane.kind));
        Ref::of(&[&self.platform_run_id, "archive", "events", &topic, &partition, &kind])
    }

    fn files(&self, lane: &Lane) -> Result<Vec<(Ref, u64, Named)>, SourceError> {
        let folder = self.folder(lane);
        let prefix = format!("{folder}/");
        let listed = self.store.list(&folder).map_err(of_store)?;
        // Only the folder itself is the lane; whatever lies deeper is not a record.
        let here =
            |at: &Ref| at.as_str().strip_prefix(prefix.as_str()).map(|name| if name.contains('/') { Named::Other } else { named(name) });
        Ok(listed.into_iter().filter_map(|(at, bytes)| here(&at).map(|kind| (at, bytes, kind))).collect())
    }

    fn read_single(
        &self,
        file: &ChunkFile,
        scope: ReadScope<'_>,
        decoder: &mut Decoder,
        sink: &mut Sink<'_>,
    ) -> Result<ControlFlow<()>, SourceError> {
        let mut text = Vec::new();
        let reader = self.open(&file.place)?;
        reader.take(MAX_TEXT as u64 + 1).read_to_end(&mut text).map_err(|e| SourceError::io(&file.place, &e))?;
        let place = || file.place.clone();
        Ok(match decoder.archive(&text, file.offset, scope, &place) {
            Some(delivery) => sink(delivery),
            None => ControlFlow::Continue(()),
        })
    }

    fn open(&self, place: &str) -> Result<Box<dyn Read + Send>, SourceError> {
        let at = Ref::parse(place).map_err(of_store)?;
        self.store.open(&at).map_err(of_store)
    }

    fn read_lines(
        &self,
        file: &ChunkFile,
        scope: ReadScope<'_>,
        decoder: &mut Decoder,
        sink: &mut Sink<'_>,
    ) -> Result<ControlFlow<()>, SourceError> {
        let mut lines = Lines::new(self.open(&file.place)?);
        let mut number = 0u64;
        while let Some(line) = lines.next().map_err(|e| SourceError::io(&file.place, &e))? {
            number += 1;
            let place = || format!("{}:{number}", file.place);
            let lost = |message: &str| {
                Delivery::Fault(Fault { offset: None, code: ReasonCode::DecodeError, place: place(), message: message.into() })
            };
            let delivery = match line {
                Line::TooLong(_) => Some(lost("longer than the limit of 16 MiB")),
                Line::Text(text, _) if blank(text) => Some(lost("a blank line")),
                Line::Text(text, _) => decoder.archive(text, None, scope, &place),
            };
            if let Some(delivery) = delivery
                && sink(delivery).is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

impl EventLog for Archive {
    fn source(&self) -> Source {
        Source::Archive
    }

    fn bounds(&self, lane: &Lane) -> Result<Bounds, SourceError> {
        let ignored = self.files(lane)?.iter().filter(|(_, _, kind)| matches!(kind, Named::Other)).count();
        Ok(Bounds { ignored_files: ignored as u64, ..Bounds::default() })
    }

    fn chunks(&self, lane: &Lane, ranges: &[OffsetRange]) -> Result<Vec<Chunk>, SourceError> {
        self.pieces(lane, ranges, self.files(lane)?)
    }

    fn read(&self, chunk: &Chunk, scope: ReadScope<'_>, decoder: &mut Decoder, sink: &mut Sink<'_>) -> Result<(), SourceError> {
        for file in &chunk.files {
            let flow = if file.offset.is_some() {
                self.read_single(file, scope, decoder, sink)?
            } else {
                self.read_lines(file, scope, decoder, sink)?
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }
}
