//! The file bus: `<root>/<topic>/partition=<p>.jsonl`, one record a line. The offset of a line is
//! `base_offset` plus its zero-based number; `base_offset` is where retention now begins.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::lines::{Line, Lines, blank};
use super::{Bounds, Chunk, ChunkFile, Decoder, Delivery, EventLog, Fault, ReadScope, Sink, Source, SourceError};
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, OffsetKind, ReasonCode};
use crate::json::Tape;
use crate::store::StoreError;

/// A topic-wide bus below one directory.
#[derive(Debug)]
pub struct FileBus {
    root: PathBuf,
}

struct Meta {
    base: Offset,
    kind: OffsetKind,
}

impl FileBus {
    /// The bus below `root`; a root that does not exist serves nothing, which is lawful (O073).
    ///
    /// # Errors
    /// The environment's.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        match root.canonicalize() {
            Ok(root) => Ok(FileBus { root }),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(FileBus { root: root.to_owned() }),
            Err(e) => Err(StoreError::new(crate::store::ErrorKind::Io, root.display().to_string(), e.to_string())),
        }
    }

    fn file(&self, lane: &Lane, suffix: &str) -> Result<Option<PathBuf>, SourceError> {
        let path = self.root.join(&lane.topic).join(format!("partition={}.{suffix}", lane.partition));
        crate::store::contained(&self.root, &path).map_err(|e| SourceError::io(path.display().to_string(), &e))
    }

    /// Where the partition's lines begin; nothing where the bus does not serve this lane.
    fn meta(&self, lane: &Lane) -> Result<Option<Meta>, SourceError> {
        if self.file(lane, "jsonl")?.is_none() {
            return Ok(None);
        }
        let meta = match self.file(lane, "meta.json")? {
            None => Meta { base: Offset::from(0), kind: OffsetKind::FileLine },
            Some(path) => {
                let place = path.display().to_string();
                let text = std::fs::read(&path).map_err(|e| SourceError::io(&place, &e))?;
                read_meta(&text).ok_or_else(|| SourceError {
                    place,
                    message: "expected {\"base_offset\":<digits>,\"offset_kind\":<kind>}".into(),
                    code: ReasonCode::SourceIo,
                })?
            }
        };
        Ok((meta.kind == lane.kind).then_some(meta))
    }
}

fn read_meta(text: &[u8]) -> Option<Meta> {
    let mut tape = Tape::new();
    let doc = tape.parse(text).ok().filter(|doc| doc.duplicate_key().is_none())?;
    let root = doc.root();
    let base = match root.get("base_offset") {
        None => Offset::from(0),
        Some(item) => Offset::parse(item.number().or_else(|| (item.kind() == crate::json::Kind::String).then(|| item.raw()))?)?,
    };
    let kind = match root.get("offset_kind") {
        None => OffsetKind::FileLine,
        Some(item) => item.str().and_then(|k| OffsetKind::parse(&k))?,
    };
    (root.kind() == crate::json::Kind::Object).then_some(Meta { base, kind })
}

impl EventLog for FileBus {
    fn source(&self) -> Source {
        Source::Bus
    }

    fn bounds(&self, lane: &Lane) -> Result<Bounds, SourceError> {
        Ok(Bounds { retained_from: self.meta(lane)?.map(|m| m.base), ..Bounds::default() })
    }

    fn chunks(&self, lane: &Lane, ranges: &[OffsetRange]) -> Result<Vec<Chunk>, SourceError> {
        let Some(meta) = self.meta(lane)? else { return Ok(Vec::new()) };
        if ranges.last().is_none_or(|r| r.end < meta.base) {
            return Ok(Vec::new());
        }
        Ok(vec![Chunk {
            files: vec![ChunkFile { place: format!("{}/partition={}.jsonl", lane.topic, lane.partition), offset: Some(meta.base) }],
        }])
    }

    fn read(&self, chunk: &Chunk, scope: ReadScope<'_>, decoder: &mut Decoder, sink: &mut Sink<'_>) -> Result<(), SourceError> {
        let Some(file) = chunk.files.first() else { return Ok(()) };
        let gone = || SourceError::io(&file.place, &io::ErrorKind::NotFound.into());
        let path = self.file(scope.lane, "jsonl")?.ok_or_else(gone)?;
        let last = scope.ranges.last().map(|r| r.end).unwrap_or_default();
        let mut lines = Lines::new(File::open(&path).map_err(|e| SourceError::io(&file.place, &e))?);
        let mut offset = file.offset.unwrap_or_default();
        let mut number = 0u64;
        while let Some(line) = lines.next().map_err(|e| SourceError::io(&file.place, &e))? {
            number += 1;
            if offset > last {
                break;
            }
            let place = || format!("{}:{number}", file.place);
            let unreadable = |message: &str| {
                Delivery::Fault(Fault { offset: Some(offset), code: ReasonCode::DecodeError, place: place(), message: message.into() })
            };
            let delivery = match line {
                // A last line without its line feed is still being written: it does not exist yet.
                Line::Text(_, false) | Line::TooLong(false) => break,
                _ if !scope.wants(offset) => None,
                Line::TooLong(_) => Some(unreadable("longer than the limit of 16 MiB")),
                Line::Text(text, _) if blank(text) => Some(unreadable("a blank line")),
                Line::Text(text, _) => Some(decoder.bus(text, offset, scope, &place)),
            };
            if let Some(delivery) = delivery
                && sink(delivery).is_break()
            {
                break;
            }
            offset = offset.next();
        }
        // Offsets count from where retention began when the piece was cut; had that moved, they would be wrong.
        if self.meta(scope.lane)?.map(|m| m.base) != file.offset {
            return Err(SourceError {
                place: file.place.clone(),
                message: "retention moved while the partition was read; run again".into(),
                code: ReasonCode::SourceIo,
            });
        }
        Ok(())
    }
}
