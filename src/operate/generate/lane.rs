//! One partition: its log, the parts of it that archive and bus hold, and the labels of its events.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::columns::Columns;
use super::event::{Event, KIND, RUN, TOPIC};
use super::stream::{Draw, Zipf};
use super::{BEGIN, FILE_EVENTS, GenerateError, SPAN, Spec, TRAINED, at, label};
use crate::contract::intent::Lane;
use crate::digest::push_hex;
use crate::operate::seal::Stream;
use crate::pipeline::gate::Env;

/// Bytes gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Events back of which one may be delivered again.
const RECENT: usize = 64;

const HOUR: i64 = 3_600_000_000;

/// What was written of a partition.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) partition: u32,
    pub(super) events: u64,
    pub(super) labels: u64,
    pub(super) sealed: u64,
    pub(super) known: Known,
}

/// Events by what is known of them at the cut-off of the training intent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    pub(super) events: u64,
    /// Those with a label.
    pub(super) resolved: u64,
    /// Those with several at the latest instant.
    pub(super) conflicts: u64,
}

impl Known {
    fn count(&mut self, assertions: &[Option<label::Assertion<'_>>; 3]) {
        let known = || assertions.iter().flatten().filter(|a| a.seen <= TRAINED.0);
        let latest = known().map(|a| a.seen).max();
        let mut values = known().filter(|a| Some(a.seen) == latest).map(|a| a.value);
        self.events += 1;
        match values.next() {
            Some(first) if values.all(|value| value == first) => self.resolved += 1,
            Some(_) => self.conflicts += 1,
            None => {}
        }
    }

    /// Both together.
    pub(super) fn plus(self, other: Known) -> Known {
        Known { events: self.events + other.events, resolved: self.resolved + other.resolved, conflicts: self.conflicts + other.conflicts }
    }
}

/// A file that is written in large pieces.
struct Out {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    /// Bytes written so far.
    bytes: u64,
}

impl Out {
    fn create(path: PathBuf) -> Result<Self, GenerateError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let file = File::create_new(&path).map_err(at(&path))?;
        Ok(Out { path, file, buffer: Vec::with_capacity(BUFFER + (4 << 10)), bytes: 0 })
    }

    /// Writes what was gathered once it is enough.
    fn pass(&mut self, enough: usize) -> Result<(), GenerateError> {
        if self.buffer.len() >= enough && !self.buffer.is_empty() {
            self.file.write_all(&self.buffer).map_err(at(&self.path))?;
            self.bytes += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// The labels of a partition: lines of JSON, or columns.
enum Labels {
    Lines(Out),
    Columns(Box<Columns>),
}

impl Labels {
    fn create(spec: &Spec, partition: u32) -> Result<Self, GenerateError> {
        let path = |kind: &str| spec.out.join(format!("labels/assertions-{partition:05}.{kind}"));
        Ok(if spec.columns {
            Labels::Columns(Box::new(Columns::create(path("parquet"))?))
        } else {
            Labels::Lines(Out::create(path("jsonl"))?)
        })
    }

    /// Takes the assertions about one event; how many.
    fn take(&mut self, assertions: [Option<label::Assertion<'_>>; 3], seed: u64) -> Result<u64, GenerateError> {
        let mut count = 0;
        for assertion in assertions.iter().flatten() {
            match self {
                Labels::Lines(out) => assertion.line(&mut out.buffer, seed),
                Labels::Columns(columns) => columns.push(assertion)?,
            }
            count += 1;
        }
        if let Labels::Lines(out) = self {
            out.pass(BUFFER)?;
        }
        Ok(count)
    }

    fn finish(self) -> Result<(), GenerateError> {
        match self {
            Labels::Lines(mut out) => out.pass(0),
            Labels::Columns(columns) => columns.finish(),
        }
    }
}

/// The traffic of a partition: draws one delivery after the other.
struct Traffic {
    draw: Draw,
    zipf: Zipf,
    clock: i64,
    gap: u64,
    partition: u32,
    partitions: u32,
    seed: u64,
    recent: Vec<Event>,
    drawn: usize,
}

impl Traffic {
    fn new(spec: &Spec, partition: u32, events: u64) -> Self {
        Traffic {
            draw: Draw::new(spec.seed, &format!("partition {partition}")),
            // A twentieth as many keys as events; keys are dealt to partitions in turn.
            zipf: Zipf::new(events / 20),
            clock: BEGIN.0,
            gap: SPAN as u64 / events.max(1),
            partition,
            partitions: spec.partitions,
            seed: spec.seed,
            recent: vec![Event::default(); RECENT],
            drawn: 0,
        }
    }

    /// The next delivery and whether it is the first of its event.
    #[expect(clippy::indexing_slicing, reason = "a slot is a remainder by the length of the ring")]
    fn next(&mut self) -> (&Event, bool) {
        let again = self.drawn >= RECENT && self.draw.chance(50);
        if again {
            let slot = self.draw.below(RECENT as u64) as usize % RECENT;
            return (&self.recent[slot], false);
        }
        // A fiftieth shares the instant of its predecessor.
        if !self.draw.chance(200) {
            self.clock += self.draw.below(2 * self.gap + 1) as i64;
        }
        // A hundredth comes late by up to an hour.
        let late = if self.draw.chance(100) { self.draw.below(HOUR as u64) as i64 } else { 0 };
        let rank = self.zipf.draw(&mut self.draw) * u64::from(self.partitions) + u64::from(self.partition);
        let slot = self.drawn % RECENT;
        self.drawn += 1;
        let event = &mut self.recent[slot];
        event.draw(&mut self.draw, rank, (self.clock - late).max(BEGIN.0), self.seed);
        (event, true)
    }
}

/// The archive of a partition, from its first offset on: files of lines, and segments where it is sealed.
struct Archive<'a> {
    folder: PathBuf,
    partition: u32,
    seed: u64,
    /// The first offset that it does not hold.
    end: u64,
    /// Records of one file; none where there is no raw archive.
    file_events: Option<u64>,
    out: Option<Out>,
    sealing: Option<Stream<'a>>,
    /// The hash of a record as its line spells it.
    hash: Vec<u8>,
}

impl Archive<'_> {
    fn take(&mut self, event: &Event, offset: u64, arrived: i64) -> Result<(), GenerateError> {
        if offset >= self.end {
            return Ok(());
        }
        if let Some(file_events) = self.file_events.filter(|n| offset.is_multiple_of(*n)) {
            self.close()?;
            let last = (offset + file_events).min(self.end) - 1;
            let name = format!("part-{offset:012}-{last:012}.jsonl");
            self.out = Some(Out::create(self.folder.join(&name))?);
            self.sealing.iter_mut().for_each(|sealing| sealing.open(name.clone()));
        }
        self.hash.clear();
        push_hex(&event.hash, &mut self.hash);
        if let Some(out) = &mut self.out {
            event.archived(&mut out.buffer, &self.hash, self.partition, offset, arrived, self.seed);
            out.pass(BUFFER)?;
        }
        match &mut self.sealing {
            Some(sealing) => Ok(sealing.push(event.row(&self.hash, offset)?)?),
            None => Ok(()),
        }
    }

    fn close(&mut self) -> Result<(), GenerateError> {
        let Some(mut out) = self.out.take() else { return Ok(()) };
        out.pass(0)?;
        self.sealing.iter_mut().for_each(|sealing| sealing.close(out.bytes));
        Ok(())
    }

    /// Ends it; how many records are sealed.
    fn finish(mut self) -> Result<u64, GenerateError> {
        self.close()?;
        let sealed = self.sealing.map(Stream::finish).transpose()?;
        Ok(sealed.iter().flat_map(|lane| &lane.segments).map(|segment| segment.records).sum())
    }
}

/// Writes the archive files, the bus file and the label file of a partition, and the segments of its archive
/// where there is something to seal in.
pub(super) fn write(spec: &Spec, sealing: Option<&Env>, partition: u32, written: &AtomicU64) -> Result<Written, GenerateError> {
    let share = spec.events / u64::from(spec.partitions);
    let events = share + u64::from(u64::from(partition) < spec.events % u64::from(spec.partitions));
    // The archive trails the bus, the bus forgets: a tenth of the log is on both.
    let (archived, retained) = if spec.archived { (events, events) } else { (events * 9 / 10, events * 8 / 10) };
    let folder = spec.out.join(format!("store/{RUN}/archive/events/topic={TOPIC}/partition={partition}/offset_kind={KIND}"));
    let lane = Lane { topic: TOPIC.into(), partition: partition.try_into().unwrap_or(i32::MAX), kind: KIND };
    let sealing = sealing.map(|env| Stream::begin(env, RUN, &lane)).transpose()?;
    let file_events = (!spec.columns).then_some(FILE_EVENTS);
    let mut archive = Archive { folder, partition, seed: spec.seed, end: archived, file_events, out: None, sealing, hash: Vec::new() };
    let topic = spec.out.join(format!("bus/{TOPIC}"));
    let mut bus = Out::create(topic.join(format!("partition={partition}.jsonl")))?;
    let mut labels = Labels::create(spec, partition)?;
    let mut traffic = Traffic::new(spec, partition, events);
    let mut told = Draw::new(spec.seed, &format!("labels {partition}"));
    let (mut count, mut known) = (0, Known::default());
    for offset in 0..events {
        let (event, first) = traffic.next();
        let arrived = event.ts + 300_000_000;
        archive.take(event, offset, arrived)?;
        if offset >= retained {
            event.published(&mut bus.buffer, arrived);
            bus.pass(BUFFER)?;
        }
        if first {
            let assertions = label::assertions(&mut told, event);
            known.count(&assertions);
            count += labels.take(assertions, spec.seed)?;
        }
        if offset % 1_024 == 1_023 {
            written.fetch_add(1_024, Ordering::Relaxed);
        }
    }
    written.fetch_add(events % 1_024, Ordering::Relaxed);
    bus.pass(0)?;
    labels.finish()?;
    let meta = topic.join(format!("partition={partition}.meta.json"));
    std::fs::write(&meta, format!("{{\"base_offset\":{retained},\"offset_kind\":\"{KIND}\"}}\n")).map_err(at(&meta))?;
    Ok(Written { partition, events, labels: count, sealed: archive.finish()?, known })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::contract::ReasonCode;
    use crate::operate::seal;
    use crate::source::sealed;
    use crate::store::{LocalStore, Ref, Store, read};

    fn env(root: &Path) -> Env {
        seal::testing::env(root, Arc::new(LocalStore::open(root).unwrap()))
    }

    fn lane() -> Lane {
        Lane { topic: TOPIC.into(), partition: 0, kind: KIND }
    }

    fn folder() -> String {
        format!("{RUN}/archive/events/topic={TOPIC}/partition=0/offset_kind={KIND}")
    }

    /// Events of three megabytes, so that three of them fill a segment.
    fn large(count: u64) -> Vec<Event> {
        let mut draw = Draw::new(9, "large");
        (0..count)
            .map(|n| {
                let mut event = Event::default();
                event.draw(&mut draw, n, BEGIN.0 + n as i64, 9);
                let text = String::from_utf8(event.envelope).unwrap();
                event.envelope = text.replace("\"dev-", &format!("\"{}dev-", "x".repeat(3 << 20))).into_bytes();
                event.hash = Sha256::digest(&event.envelope).into();
                event
            })
            .collect()
    }

    fn segments(store: &dyn Store) -> BTreeMap<String, Vec<u8>> {
        let listed = store.list(&sealed::folder(RUN, &lane())).unwrap();
        listed.into_iter().map(|(at, _)| (at.to_string(), read(store, &at, 1 << 30).unwrap())).collect()
    }

    #[test]
    fn sealing_on_the_way_is_sealing_afterwards() {
        let events = large(8);
        // Files that end where segments end, files that end elsewhere, and one file of everything.
        for (file_events, files) in [(3, 3), (5, 2), (100, 1)] {
            let (dir, later) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let (env, place) = (env(dir.path()), lane());
            let sealing = Some(Stream::begin(&env, RUN, &place).unwrap());
            let folder = dir.path().join(folder());
            let mut archive =
                Archive { folder, partition: 0, seed: 9, end: 8, file_events: Some(file_events), out: None, sealing, hash: Vec::new() };
            for (offset, event) in events.iter().enumerate() {
                archive.take(event, offset as u64, event.ts).unwrap();
            }
            assert_eq!(archive.finish().unwrap(), 8);
            let store = LocalStore::open(later.path()).unwrap();
            let raw = env.store.list(&Ref::of(&[RUN, "archive"])).unwrap();
            assert_eq!(raw.len(), files);
            for (at, _) in raw {
                let to = later.path().join(at.as_str());
                std::fs::create_dir_all(to.parent().unwrap()).unwrap();
                std::fs::copy(dir.path().join(at.as_str()), to).unwrap();
            }
            let report = seal::seal(&self::env(later.path()), RUN, &[]).unwrap();
            assert_eq!((report.records(), report.lanes[0].segments.len()), (8, 3));
            let (on_the_way, afterwards) = (segments(env.store.as_ref()), segments(&store));
            assert_eq!(on_the_way.keys().collect::<Vec<_>>(), afterwards.keys().collect::<Vec<_>>());
            assert!(on_the_way == afterwards, "{file_events} records a file");
            // Nothing is left to be sealed.
            let again = seal::seal(&env, RUN, &[]).unwrap();
            assert_eq!(again.lanes[0].outcome, seal::Outcome::UpToDate);
            let refused = Stream::begin(&env, RUN, &place).err().unwrap();
            assert_eq!(refused.code, ReasonCode::SealedSegmentConflict);
        }
    }

    #[test]
    fn what_is_out_of_order_or_still_being_written_is_not_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let (env, place) = (env(dir.path()), lane());
        let mut event = Event::default();
        event.draw(&mut Draw::new(9, "t"), 1, BEGIN.0, 9);
        let mut sealing = Stream::begin(&env, RUN, &place).unwrap();
        sealing.open("part.jsonl".into());
        sealing.push(event.row(b"", 7).unwrap()).unwrap();
        for offset in [7, 3] {
            assert_eq!(sealing.push(event.row(b"", offset).unwrap()).unwrap_err().code, ReasonCode::InternalError);
        }
        assert!(sealing.finish().unwrap_err().message.contains("still being written"));
        let sparse = Lane { kind: crate::contract::OffsetKind::KinesisSequence, ..place.clone() };
        assert!(Stream::begin(&env, RUN, &sparse).err().unwrap().message.contains("attestation"));
        assert_eq!(segments(env.store.as_ref()), BTreeMap::new());
    }
}
