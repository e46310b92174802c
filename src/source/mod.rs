//! Where truth is read: event logs and label timelines, each behind one trait and one conformance
//! suite. Readers stream; a record that cannot be read is delivered as a fault, never skipped.

mod archive;
mod bus;
mod columns;
#[cfg(test)]
mod conformance;
pub mod labels;
mod lanes;
mod lines;
mod payload;
mod record;
pub mod sealed;

use std::fmt;
use std::ops::ControlFlow;

pub use archive::{Archive, Holds};
pub use bus::FileBus;
pub use columns::{Columns, Handed};
pub use lanes::lanes_below;
pub use payload::{Field, FieldColumn, FieldValues, Payload, equals};
pub use record::{Decoder, EventRecord};
pub use sealed::Sealed;

use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, ReasonCode};
use crate::store::{ErrorKind, StoreError};

/// Which side served a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The archive: the truth.
    Archive,
    /// A sealed segment, which stands for records of the archive.
    Sealed,
    /// The event bus: an accelerator for what is still retained.
    Bus,
}

impl Source {
    /// The name in receipts.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Archive => "ARCHIVE",
            Source::Sealed => "SEALED",
            Source::Bus => "EB",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A source that could not be read at all (not: a record that could not).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{place}: {message}")]
pub struct SourceError {
    /// File or folder.
    pub place: String,
    /// What happened.
    pub message: String,
    /// `SOURCE_IO`, `REF_ACCESS_DENIED` for a link that leaves the root, or `SEALED_SEGMENT_INVALID`.
    pub code: ReasonCode,
}

impl SourceError {
    pub(crate) fn io(place: impl Into<String>, error: &std::io::Error) -> Self {
        let code = if error.kind() == std::io::ErrorKind::PermissionDenied && error.get_ref().is_some() {
            ReasonCode::RefAccessDenied
        } else {
            ReasonCode::SourceIo
        };
        SourceError { place: place.into(), message: error.to_string(), code }
    }
}

pub(crate) fn of_store(error: StoreError) -> SourceError {
    let code = if error.kind == ErrorKind::Denied { ReasonCode::RefAccessDenied } else { ReasonCode::SourceIo };
    SourceError { place: error.place, message: error.message, code }
}

/// A piece of one lane that can be read on its own, in parallel with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What to read, meaningful to the log that made it.
    pub(crate) files: Vec<ChunkFile>,
}

impl Chunk {
    /// The first file of the piece; of a file of lines it is the only one.
    pub fn place(&self) -> &str {
        self.files.first().map(|file| file.place.as_str()).unwrap_or_default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChunkFile {
    /// Ref or file name, for messages too.
    pub(crate) place: String,
    /// The single record's offset, where the name says it.
    pub(crate) offset: Option<Offset>,
}

/// What a log hands over.
#[derive(Debug)]
pub enum Delivery<'a> {
    /// A readable record of this run.
    Event(EventRecord<'a>),
    /// A readable record of another run on a topic-wide log: its offset is covered, its content dropped.
    Foreign(Offset),
    /// A record that cannot be used.
    Fault(Fault),
}

/// A record that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Its offset, where that can be known.
    pub offset: Option<Offset>,
    /// The reason code that it stands for.
    pub code: ReasonCode,
    /// File and line.
    pub place: String,
    /// What is wrong.
    pub message: String,
}

/// What a log knows of a lane before anything is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Where retention begins, for a log that forgets.
    pub retained_from: Option<Offset>,
    /// Files whose names are not this log's, left alone and counted.
    pub ignored_files: u64,
    /// Ranges, sorted and disjoint, of which this log holds every record that there ever was: where all of it
    /// was read, an offset that it did not deliver is none (O066).
    pub attested: Vec<OffsetRange>,
}

/// What is asked of a record besides its place, id, time and hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs<'a> {
    /// The envelope as text, and with it everything.
    Envelope,
    /// These payload fields.
    Fields(&'a [String]),
}

/// What a read needs to know.
#[derive(Debug, Clone, Copy)]
pub struct ReadScope<'a> {
    /// The run in scope.
    pub platform_run_id: &'a str,
    /// The lane.
    pub lane: &'a Lane,
    /// Wanted offsets, sorted and disjoint; records outside are passed over.
    pub ranges: &'a [OffsetRange],
    /// Whether declared payload hashes are verified, where that was not done before; a record's hash is computed in any case.
    pub verify: bool,
    /// What is asked of each record; a log may give more.
    pub needs: Needs<'a>,
}

impl ReadScope<'_> {
    /// Whether the basis wants this offset.
    pub fn wants(&self, offset: Offset) -> bool {
        let after = self.ranges.partition_point(|r| r.start <= offset);
        after.checked_sub(1).and_then(|i| self.ranges.get(i)).is_some_and(|r| r.contains(offset))
    }
}

/// Takes deliveries; `Break` ends the read early.
pub type Sink<'s> = dyn FnMut(Delivery<'_>) -> ControlFlow<()> + 's;

/// Takes records or whole columns of them; `Break` ends the read early.
pub type WideSink<'s> = dyn FnMut(Handed<'_>) -> ControlFlow<()> + 's;

/// A log of events: the file bus, the raw archive.
pub trait EventLog: Send + Sync + fmt::Debug {
    /// Which side this is.
    fn source(&self) -> Source;

    /// What is known of a lane without reading records.
    ///
    /// # Errors
    /// The environment's.
    fn bounds(&self, lane: &Lane) -> Result<Bounds, SourceError>;

    /// Splits a lane into pieces. Nothing there is no error: then there are none.
    ///
    /// # Errors
    /// The environment's.
    fn chunks(&self, lane: &Lane, ranges: &[OffsetRange]) -> Result<Vec<Chunk>, SourceError>;

    /// Delivers every wanted record of a piece, in the order of the file.
    ///
    /// # Errors
    /// The environment's. A bad record is a [`Delivery::Fault`] instead.
    fn read(&self, chunk: &Chunk, scope: ReadScope<'_>, decoder: &mut Decoder, sink: &mut Sink<'_>) -> Result<(), SourceError>;

    /// Delivers the same in the same order, but as columns where the log keeps them and no envelope is asked for.
    ///
    /// # Errors
    /// As [`EventLog::read`].
    fn read_wide(&self, chunk: &Chunk, scope: ReadScope<'_>, decoder: &mut Decoder, sink: &mut WideSink<'_>) -> Result<(), SourceError> {
        self.read(chunk, scope, decoder, &mut |delivery| sink(Handed::Record(delivery)))
    }
}
