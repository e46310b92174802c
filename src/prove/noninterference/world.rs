//! Worlds: copies of the inputs in scratch space, each with one kind of change. Events are copied record by record,
//! labels assertion by assertion, so that what is held does not grow with them (but for the offsets of a sparse kind,
//! where some are sealed); what a world takes on disk is at most what its raw inputs take, and it goes when the world does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::PHASE;
use super::draw::Draw;
use super::sample::Sample;
use super::scramble::{Fields, put_at, raised, restate};
use crate::contract::intent::{Intent, Lane, OffsetRange};
use crate::contract::{Offset, OffsetKind, ReasonCode};
use crate::pipeline::gate::{Env, Refusal};
use crate::source::labels::{self, Assertion, LabelQuery, Stamp};
use crate::store::{Ref, Store};
use crate::time::Instant;

/// Longest record in bytes that is copied.
const LINE: u64 = 32 << 20;
/// Records that are added beyond each end of the basis, and assertions for each sampled row.
const ADDED: u64 = 4;

/// What differs in a world.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// Assertions observed after the cut-off say something else, are gone, or are new.
    LateAssertions,
    /// Records outside the basis say something else, and there are more of them.
    OutsideBasis,
    /// Events after an instant say something else.
    EventsAfter(Instant),
    /// The assertion that a label was taken from has another value.
    Label {
        /// Its id.
        assertion_id: String,
        /// What it says now.
        value: String,
    },
    /// One event has another number in one field.
    Amount {
        /// The event.
        event_id: String,
        /// The payload field.
        field: String,
    },
}

/// What is known of the data set when its worlds are made.
pub(super) struct Known<'k> {
    pub(super) env: &'k Env,
    pub(super) intent: &'k Intent,
    pub(super) fields: Fields,
    pub(super) vocabulary: BTreeMap<String, Vec<String>>,
    pub(super) samples: &'k [Sample],
    /// First and last event time.
    pub(super) range: (Instant, Instant),
    pub(super) seed: u64,
}

/// What a change came to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Made {
    /// Records and assertions that differ from those of the user, or are new.
    pub(super) changed: u64,
    /// By how much a number was raised.
    pub(super) by: i64,
}

/// What the pass over the events gathers.
#[derive(Default)]
pub(super) struct Pass {
    pub(super) made: Made,
    /// An envelope of every lane, to make strangers of.
    templates: BTreeMap<Lane, Value>,
    /// Offsets of the raw archive's records, by the lanes of the basis that have segments.
    pub(super) raw: BTreeMap<Lane, Vec<OffsetRange>>,
}

/// Where a record stands.
pub(super) struct At<'a> {
    pub(super) lane: &'a Lane,
    pub(super) offset: Offset,
}

pub(super) fn failed(at: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(ReasonCode::ScratchIo, PHASE, format!("{}: {error}", at.display()))
}

pub(super) fn create(path: &Path) -> Result<BufWriter<File>, Refusal> {
    path.parent()
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| File::create(path))
        .map(BufWriter::new)
        .map_err(|e| failed(path, &e))
}

/// Hands over every line with its line feed, if it has one.
fn each_line(place: &str, from: impl Read, mut take: impl FnMut(&[u8]) -> Result<(), Refusal>) -> Result<(), Refusal> {
    let io = |message: String| Refusal::new(ReasonCode::SourceIo, PHASE, format!("{place}: {message}"));
    let (mut reader, mut line) = (BufReader::with_capacity(1 << 20, from), Vec::new());
    loop {
        line.clear();
        let n = reader.by_ref().take(LINE).read_until(b'\n', &mut line).map_err(|e| io(e.to_string()))?;
        match n as u64 {
            0 => return Ok(()),
            LINE => return Err(io("a line longer than the limit of 32 MiB".into())),
            _ => take(&line)?,
        }
    }
}

impl Known<'_> {
    /// Makes a world's labels in a folder.
    pub(super) fn labels(&self, change: &Change, folder: &Path) -> Result<Made, Refusal> {
        let label = |e: labels::LabelError| Refusal::new(e.code, PHASE, e.to_string());
        let timeline = labels::open(&self.env.config.path("labels")).map_err(label)?;
        let types: BTreeSet<String> = self.intent.label_types.iter().cloned().collect();
        let query = LabelQuery { platform_run_id: &self.intent.platform_run_id, types: &types };
        let path = folder.join("assertions.jsonl");
        let (mut out, mut made, mut broken) = (create(&path)?, Made::default(), None);
        for part in timeline.parts().map_err(label)? {
            self.env.check(PHASE)?;
            let scan = timeline.scan(&part, query, &mut |a| match self.assertion(change, a, &mut made) {
                None => ControlFlow::Continue(()),
                Some(line) => match writeln!(out, "{line}") {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(e) => {
                        broken = Some(e);
                        ControlFlow::Break(())
                    }
                },
            });
            scan.map_err(label)?;
        }
        if let Change::LateAssertions = change {
            for line in self.new_assertions() {
                made.changed += 1;
                broken = broken.or(writeln!(out, "{line}").err());
            }
        }
        broken.map_or_else(|| out.flush(), Err).map_err(|e| failed(&path, &e))?;
        Ok(made)
    }

    /// An assertion as the world has it; nothing where it has none.
    fn assertion(&self, change: &Change, a: Assertion<'_>, made: &mut Made) -> Option<Value> {
        let (mut value, mut observed) = (a.value.map(str::to_owned), a.observed.map(|t| t.text().into_owned()));
        match change {
            Change::LateAssertions => {
                let late = a.observed.and_then(Stamp::instant).filter(|t| *t > self.intent.labels.asof);
                if let Some(at) = late {
                    let mut draw = Draw::new(self.seed, &["late", a.id]);
                    made.changed += 1;
                    if draw.below(3) == 0 {
                        return None;
                    }
                    value = self.some_value(a.label_type, &mut draw).or(value);
                    observed = Some(at.plus_micros(draw.below(86_400_000_000) as i64).to_string());
                }
            }
            Change::Label { assertion_id, value: new } if a.id == assertion_id => {
                made.changed += 1;
                value = Some(new.clone());
            }
            _ => {}
        }
        let mut line = json!({
            "label_assertion_id": a.id, "label_subject_key": {"platform_run_id": self.intent.platform_run_id, "event_id": a.event_id}, "label_type": a.label_type,
        });
        if let Some(map) = line.as_object_mut() {
            let effective = a.effective.map(Stamp::text);
            let texts = [
                ("label_value", value.as_deref()),
                ("observed_time", observed.as_deref()),
                ("effective_time", effective.as_deref()),
                ("payload_hash", a.payload_hash),
            ];
            map.extend(texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), json!(text?)))));
        }
        Some(line)
    }

    fn some_value(&self, label_type: &str, draw: &mut Draw) -> Option<String> {
        self.vocabulary.get(label_type).and_then(|values| draw.pick(values)).cloned()
    }

    /// Assertions that must not count: about sampled rows, from the first instant after the cut-off on; and about
    /// events that are no rows.
    fn new_assertions(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        for label_type in &self.intent.label_types {
            for (at, sample) in self.samples.iter().enumerate() {
                for n in 0..ADDED {
                    let mut draw = Draw::new(self.seed, &["new", label_type, &sample.event_id, &n.to_string()]);
                    let Some(value) = self.some_value(label_type, &mut draw) else { continue };
                    let late = if n == 0 { 1 } else { 1 + draw.below(86_400_000_000) as i64 };
                    let stranger = n + 1 == ADDED;
                    let event = if stranger { format!("{}-of-no-row", sample.event_id) } else { sample.event_id.clone() };
                    let observed = if stranger { self.intent.labels.asof } else { self.intent.labels.asof.plus_micros(late) };
                    lines.push(json!({
                        "label_assertion_id": format!("noninterference-{label_type}-{at}-{n}"), "label_type": label_type, "label_value": value,
                        "label_subject_key": {"platform_run_id": self.intent.platform_run_id, "event_id": event},
                        "effective_time": observed, "observed_time": observed, "payload_hash": "0".repeat(64),
                    }));
                }
            }
        }
        lines
    }

    /// Makes a world's archive below `root`, the root of its store, and its bus in `bus`.
    pub(super) fn events(&self, change: &Change, root: &Path, bus: &Path) -> Result<Made, Refusal> {
        let mut pass = Pass { raw: self.sealed_lanes()?, ..Pass::default() };
        self.archive(change, root, &mut pass)?;
        self.segments(change, root, &mut pass)?;
        self.bus(change, bus, &mut pass)?;
        if let Change::OutsideBasis = change {
            self.beyond(root, &mut pass)?;
        }
        Ok(pass.made)
    }

    fn archive(&self, change: &Change, root: &Path, pass: &mut Pass) -> Result<(), Refusal> {
        let store: &dyn Store = self.env.store.as_ref();
        let of_store = |e| Refusal::of_store(PHASE, &e);
        let folder = Ref::of(&[&self.intent.platform_run_id, "archive"]);
        for (at, _) in store.list(&folder).map_err(of_store)? {
            self.env.check(PHASE)?;
            let Some(lane) = lane_of(&at).filter(|_| at.as_str().ends_with(".jsonl") || at.as_str().ends_with(".json")) else { continue };
            let path = root.join(at.as_str());
            let mut out = create(&path)?;
            each_line(at.as_str(), store.open(&at).map_err(of_store)?, |line| {
                let changed = self.archived(change, &lane, line, pass);
                out.write_all(changed.as_deref().unwrap_or(line)).map_err(|e| failed(&path, &e))
            })?;
            out.flush().map_err(|e| failed(&path, &e))?;
        }
        Ok(())
    }

    /// A raw record as the world has it; nothing where it stays as it is.
    fn archived(&self, change: &Change, lane: &Lane, line: &[u8], pass: &mut Pass) -> Option<Vec<u8>> {
        let record: Value = serde_json::from_slice(line).ok()?;
        let offset = Offset::parse(record.pointer("/origin_offset/offset").and_then(Value::as_str)?)?;
        if let Some(raw) = pass.raw.get_mut(lane) {
            match raw.last_mut() {
                Some(last) if offset == last.end.next() => last.end = offset,
                _ => raw.push(OffsetRange { start: offset, end: offset }),
            }
        }
        self.record(change, &At { lane, offset }, record, "envelope", pass)
    }

    fn bus(&self, change: &Change, bus: &Path, pass: &mut Pass) -> Result<(), Refusal> {
        let from = self.env.config.path("bus");
        let files = |folder: &Path| -> Vec<PathBuf> {
            let mut all: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
            all.sort();
            all
        };
        for topic in files(&from).into_iter().filter(|p| p.is_dir()) {
            let Some(name) = topic.file_name().and_then(|n| n.to_str()) else { continue };
            for file in files(&topic).into_iter().filter(|p| p.is_file()) {
                self.env.check(PHASE)?;
                let Some(of_file) = file.file_name().and_then(|n| n.to_str()) else { continue };
                let path = bus.join(name).join(of_file);
                let partition = of_file.strip_prefix("partition=").and_then(|n| n.strip_suffix(".jsonl")).and_then(|n| n.parse().ok());
                let mut out = create(&path)?;
                let open = File::open(&file).map_err(|e| Refusal::new(ReasonCode::SourceIo, PHASE, format!("{}: {e}", file.display())))?;
                let meta = partition.and_then(|p: i32| bus_lane(&topic, name, p));
                let mut next = meta.as_ref().map(|(_, base)| *base);
                each_line(of_file, open, |line| {
                    let here = meta.as_ref().map(|(lane, _)| lane).zip(next);
                    next = next.map(Offset::next);
                    let changed = here.and_then(|(lane, offset)| {
                        self.record(change, &At { lane, offset }, serde_json::from_slice(line).ok()?, "payload", pass)
                    });
                    out.write_all(changed.as_deref().unwrap_or(line)).map_err(|e| failed(&path, &e))
                })?;
                // Beyond the end of the basis the bus has more, too.
                if let (Change::OutsideBasis, Some((lane, next))) = (change, meta.as_ref().map(|(lane, _)| lane).zip(next))
                    && self.last(lane).is_some_and(|last| next > last)
                    && let Some(template) = pass.templates.get(lane)
                {
                    for n in 0..ADDED {
                        let line =
                            json!({"partition_key": "", "payload": self.stranger(template, lane, n), "published_at_utc": self.range.1});
                        writeln!(out, "{line}").map_err(|e| failed(&path, &e))?;
                        pass.made.changed += 1;
                    }
                }
                out.flush().map_err(|e| failed(&path, &e))?;
            }
        }
        Ok(())
    }

    /// A record as the world has it; nothing where it stays as it is.
    pub(super) fn record(&self, change: &Change, at: &At<'_>, mut record: Value, envelope: &str, pass: &mut Pass) -> Option<Vec<u8>> {
        let ours = |v: &Value| v.get("platform_run_id").and_then(Value::as_str).is_none_or(|r| r == self.intent.platform_run_id);
        let inner = record.get_mut(envelope).filter(|e| e.is_object() && ours(e))?;
        if !pass.templates.contains_key(at.lane) {
            pass.templates.insert(at.lane.clone(), inner.clone());
        }
        let by = self.event(change, at, inner)?;
        restate(&mut record, envelope)?;
        pass.made.changed += 1;
        pass.made.by = by;
        Some(line_of(&record))
    }

    /// Changes an envelope; nothing where it stays as it is.
    fn event(&self, change: &Change, at: &At<'_>, envelope: &mut Value) -> Option<i64> {
        let id = envelope.get("event_id")?.as_str()?.to_owned();
        match change {
            Change::OutsideBasis if !self.covered(at) => {
                let mut draw = Draw::new(self.seed, &["outside", &id]);
                self.fields.scramble(envelope, &self.keys(), &mut draw);
                put_at(envelope, self.some_time(&mut draw));
                Some(0)
            }
            Change::EventsAfter(anchor) => {
                let ts = Instant::parse(envelope.get("ts_utc")?.as_str()?).ok().filter(|ts| ts > anchor)?;
                let mut draw = Draw::new(self.seed, &["after", &id]);
                self.fields.scramble(envelope, &self.keys(), &mut draw);
                // A later event may make a label immature, and the gate may lawfully mind.
                if self.intent.coverage.min_mature.is_none() {
                    put_at(envelope, ts.plus_micros(draw.below(3_600_000_000) as i64));
                }
                Some(0)
            }
            Change::Amount { event_id, field } if *event_id == id => {
                let slot = envelope.get_mut("payload")?.get_mut(field)?;
                let (value, by) = raised(slot)?;
                *slot = value;
                Some(by)
            }
            _ => None,
        }
    }

    fn keys(&self) -> Vec<String> {
        self.samples.iter().map(|s| s.key.clone()).collect()
    }

    fn covered(&self, at: &At<'_>) -> bool {
        self.intent.basis.iter().any(|slice| slice.lane == *at.lane && slice.range.contains(at.offset))
    }

    fn last(&self, lane: &Lane) -> Option<Offset> {
        self.intent.basis.iter().filter(|slice| slice.lane == *lane).map(|slice| slice.range.end).max()
    }

    fn some_time(&self, draw: &mut Draw) -> Instant {
        let (first, last) = self.range;
        first.plus_micros(draw.below((last.0 - first.0).max(0) as u64 + 1) as i64)
    }

    /// An event that is in no basis: of a sampled key, at an instant that its windows cover.
    fn stranger(&self, template: &Value, lane: &Lane, n: u64) -> Value {
        let mut envelope = template.clone();
        let mut draw = Draw::new(self.seed, &["stranger", &lane.to_string(), &n.to_string()]);
        self.fields.scramble(&mut envelope, &self.keys(), &mut draw);
        put_at(&mut envelope, self.some_time(&mut draw));
        if let Some(map) = envelope.as_object_mut() {
            map.insert("event_id".into(), json!(format!("noninterference-{lane}-{n}")));
        }
        envelope
    }

    /// More records behind the end of every lane of the basis, and in a partition that it does not name.
    fn beyond(&self, root: &Path, pass: &mut Pass) -> Result<(), Refusal> {
        for (lane, template) in &pass.templates {
            let Some(mut offset) = self.last(lane) else { continue };
            let elsewhere = Lane { partition: lane.partition.saturating_add(100_000), ..lane.clone() };
            for n in 0..ADDED {
                offset = offset.next();
                for lane in [lane, &elsewhere] {
                    let envelope = self.stranger(template, lane, n);
                    let record = recorded(envelope, &self.intent.platform_run_id, &At { lane, offset });
                    let path = root.join(folder_of(&self.intent.platform_run_id, lane)).join(format!("offset={offset}.json"));
                    if path.exists() {
                        continue;
                    }
                    let mut out = create(&path)?;
                    out.write_all(&line_of(&record)).and_then(|()| out.flush()).map_err(|e| failed(&path, &e))?;
                    pass.made.changed += 1;
                }
            }
        }
        Ok(())
    }
}

/// A record of the archive around an envelope.
pub(super) fn recorded(envelope: Value, run: &str, at: &At<'_>) -> Value {
    let At { lane, offset } = at;
    let mut record = json!({
        "envelope": envelope, "event_id": "", "ts_utc": "", "payload_hash": "", "platform_run_id": run,
        "origin_offset": {"topic": lane.topic, "partition": lane.partition, "offset_kind": lane.kind.as_str(), "offset": offset.to_string()},
    });
    restate(&mut record, "envelope");
    record
}

/// A record as a line.
pub(super) fn line_of(record: &Value) -> Vec<u8> {
    let mut line = crate::json::canonical(record).into_bytes();
    line.push(b'\n');
    line
}

pub(super) fn folder_of(run: &str, lane: &Lane) -> String {
    format!("{run}/archive/events/topic={}/partition={}/offset_kind={}", lane.topic, lane.partition, lane.kind)
}

/// The lane that a file of the archive belongs to.
fn lane_of(at: &Ref) -> Option<Lane> {
    let [_, "archive", "events", topic, partition, kind, _] = at.as_str().split('/').collect::<Vec<_>>()[..] else { return None };
    Some(Lane {
        topic: topic.strip_prefix("topic=")?.to_owned(),
        partition: partition.strip_prefix("partition=")?.parse().ok()?,
        kind: OffsetKind::parse(kind.strip_prefix("offset_kind=")?)?,
    })
}

/// The lane of a bus file and the offset of its first line.
fn bus_lane(folder: &Path, topic: &str, partition: i32) -> Option<(Lane, Offset)> {
    let meta = std::fs::read(folder.join(format!("partition={partition}.meta.json"))).unwrap_or_else(|_| b"{}".to_vec());
    let meta: Value = serde_json::from_slice(&meta).ok()?;
    let base = match meta.get("base_offset") {
        None => Offset::from(0),
        Some(base) => Offset::parse(&base.as_str().map_or_else(|| base.to_string(), str::to_owned))?,
    };
    let kind = meta.get("offset_kind").map_or(Some(OffsetKind::FileLine), |k| OffsetKind::parse(k.as_str()?))?;
    Some((Lane { topic: topic.to_owned(), partition, kind }, base))
}
