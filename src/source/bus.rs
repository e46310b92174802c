//! The file bus: `<root>/<topic>/partition=<p>.jsonl`, one record a line. The offset of a line is
//! `base_offset` plus its zero-based number; `base_offset` is where retention now begins.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::lines::{Line, Lines, blank};
use super::{Bounds, Chunk, ChunkFile, Decoder, Delivery, EventLog, Fault, ReadScope, Sink, Source, SourceError};
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, OffsetKind, ReasonCode, path_safe};
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

    /// The partitions that it serves, under the kind of offsets that each is served under.
    ///
    /// # Errors
    /// The environment's, and a partition whose own file does not say where it begins and how it counts.
    pub fn lanes(&self) -> Result<BTreeSet<Lane>, SourceError> {
        let mut lanes = BTreeSet::new();
        for topic in names(&self.root)?.into_iter().filter(|topic| path_safe(topic)) {
            for name in names(&self.root.join(&topic))? {
                let partition = name.strip_prefix("partition=").and_then(|n| n.strip_suffix(".jsonl")).and_then(|n| n.parse().ok());
                let Some(partition) = partition.filter(|p| *p >= 0) else { continue };
                if let Some(meta) = self.stated(&topic, partition)? {
                    lanes.insert(Lane { topic: topic.clone(), partition, kind: meta.kind });
                }
            }
        }
        Ok(lanes)
    }

    fn file(&self, topic: &str, partition: i32, suffix: &str) -> Result<Option<PathBuf>, SourceError> {
        let path = self.root.join(topic).join(format!("partition={partition}.{suffix}"));
        crate::store::contained(&self.root, &path).map_err(|e| SourceError::io(path.display().to_string(), &e))
    }

    /// Where the partition's lines begin; nothing where the bus does not serve this lane.
    fn meta(&self, lane: &Lane) -> Result<Option<Meta>, SourceError> {
        Ok(self.stated(&lane.topic, lane.partition)?.filter(|meta| meta.kind == lane.kind))
    }

    /// What a partition says of itself; nothing where there is none.
    fn stated(&self, topic: &str, partition: i32) -> Result<Option<Meta>, SourceError> {
        if self.file(topic, partition, "jsonl")?.is_none() {
            return Ok(None);
        }
        Ok(Some(match self.file(topic, partition, "meta.json")? {
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
        }))
    }
}

/// What lies in a folder, by name; nothing where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>, SourceError> {
    let failed = |e: io::Error| SourceError::io(folder.display().to_string(), &e);
    let entries = match std::fs::read_dir(folder) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    Ok(names)
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
        let path = self.file(&scope.lane.topic, scope.lane.partition, "jsonl")?.ok_or_else(gone)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_tells_its_partitions_by_what_they_say_of_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("bus");
        let lanes = || FileBus::open(&root).unwrap().lanes();
        assert!(lanes().unwrap().is_empty());
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        for name in ["t/partition=0.jsonl", "t/partition=1.jsonl", "t/partition=02.jsonl", "t/partition=-1.jsonl", "t/other.jsonl", "x"] {
            write(name, "");
        }
        write("t/partition=1.meta.json", r#"{"base_offset":7,"offset_kind":"kafka_offset"}"#);
        write("t/partition=3.meta.json", "{}");
        let lane = |partition, kind| Lane { topic: "t".into(), partition, kind };
        assert_eq!(lanes().unwrap(), BTreeSet::from([lane(0, OffsetKind::FileLine), lane(1, OffsetKind::KafkaOffset)]));
        // What a log could not be read by tells no lane either.
        for doubtful in [r#"{"offset_kind":"kafka_offset","offset_kind":"file_line"}"#, r#"{"base_offset":"x"}"#, "[]"] {
            write("t/partition=1.meta.json", doubtful);
            assert_eq!(lanes().unwrap_err().code, ReasonCode::SourceIo, "{doubtful}");
        }
    }
}
