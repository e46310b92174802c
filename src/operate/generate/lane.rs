//! One partition: its log, the parts of it that archive and bus hold, and the labels of its events.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::event::{Event, KIND, RUN, TOPIC};
use super::stream::{Draw, Zipf};
use super::{BEGIN, FILE_EVENTS, GenerateError, SPAN, Spec, at, label};

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
}

/// A file that is written in large pieces.
struct Out {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
}

impl Out {
    fn create(path: PathBuf) -> Result<Self, GenerateError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(at(folder))?;
        }
        let file = File::create_new(&path).map_err(at(&path))?;
        Ok(Out { path, file, buffer: Vec::with_capacity(BUFFER + (4 << 10)) })
    }

    /// Writes what was gathered once it is enough.
    fn pass(&mut self, enough: usize) -> Result<(), GenerateError> {
        if self.buffer.len() >= enough && !self.buffer.is_empty() {
            self.file.write_all(&self.buffer).map_err(at(&self.path))?;
            self.buffer.clear();
        }
        Ok(())
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

/// Writes the archive files, the bus file and the label file of a partition.
pub(super) fn write(spec: &Spec, partition: u32, written: &AtomicU64) -> Result<Written, GenerateError> {
    let share = spec.events / u64::from(spec.partitions);
    let events = share + u64::from(u64::from(partition) < spec.events % u64::from(spec.partitions));
    // The archive trails the bus, the bus forgets: a tenth of the log is on both.
    let (archived, retained) = if spec.archived { (events, events) } else { (events * 9 / 10, events * 8 / 10) };
    let folder = spec.out.join(format!("store/{RUN}/archive/events/topic={TOPIC}/partition={partition}/offset_kind={KIND}"));
    let topic = spec.out.join(format!("bus/{TOPIC}"));
    let mut bus = Out::create(topic.join(format!("partition={partition}.jsonl")))?;
    let mut labels = Out::create(spec.out.join(format!("labels/assertions-{partition:05}.jsonl")))?;
    let mut archive: Option<Out> = None;
    let mut traffic = Traffic::new(spec, partition, events);
    let mut told = Draw::new(spec.seed, &format!("labels {partition}"));
    let mut count = 0;
    for offset in 0..events {
        if offset < archived && offset % FILE_EVENTS == 0 {
            close(&mut archive)?;
            archive = Some(Out::create(file(&folder, offset, archived))?);
        }
        let (event, first) = traffic.next();
        let arrived = event.ts + 300_000_000;
        if let Some(out) = archive.as_mut().filter(|_| offset < archived) {
            event.archived(&mut out.buffer, partition, offset, arrived, spec.seed);
            out.pass(BUFFER)?;
        }
        if offset >= retained {
            event.published(&mut bus.buffer, arrived);
            bus.pass(BUFFER)?;
        }
        if first {
            count += label::assertions(&mut labels.buffer, &mut told, event, spec.seed);
            labels.pass(BUFFER)?;
        }
        if offset % 1_024 == 1_023 {
            written.fetch_add(1_024, Ordering::Relaxed);
        }
    }
    written.fetch_add(events % 1_024, Ordering::Relaxed);
    close(&mut archive)?;
    bus.pass(0)?;
    labels.pass(0)?;
    let meta = topic.join(format!("partition={partition}.meta.json"));
    std::fs::write(&meta, format!("{{\"base_offset\":{retained},\"offset_kind\":\"{KIND}\"}}\n")).map_err(at(&meta))?;
    Ok(Written { partition, events, labels: count })
}

fn close(open: &mut Option<Out>) -> Result<(), GenerateError> {
    open.take().map_or(Ok(()), |mut out| out.pass(0))
}

fn file(folder: &Path, offset: u64, archived: u64) -> PathBuf {
    let last = (offset + FILE_EVENTS).min(archived) - 1;
    folder.join(format!("part-{offset:012}-{last:012}.jsonl"))
}
