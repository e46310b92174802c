//! Conformance: what every [`EventLog`] and every [`LabelTimeline`] must do, run against each of them,
//! and what is particular to one.
//!
//! A form is a way to write the same logical records to disk; the suites never look behind the trait.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, LargeStringArray, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Int32Type};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::labels::{self, LabelError, LabelQuery, LabelTimeline, Part, Stamp};
use super::{
    Archive, Bounds, Chunk, Decoder, Delivery, EventLog, FileBus, Handed, Needs, ReadScope, Sealed, Sink, Source, SourceError, WideSink,
};
use crate::contract::intent::{Lane, OffsetRange};
use crate::contract::{Offset, OffsetKind, ReasonCode};
use crate::digest::{hex, sha256_hex};
use crate::json::MAX_TEXT;
use crate::operate::seal;
use crate::store::LocalStore;
use crate::time::Instant;

mod archive;
mod bus;
mod links;
mod segments;
mod timelines;

const RUN: &str = "platform_20260210T122800Z";
const OTHER_RUN: &str = "platform_20260211T000000Z";
const TOPIC: &str = "fp.bus.traffic.v1";
/// A Kinesis sequence number of the full length.
const LONG: &str = "49590338271490256608559692538361571095921575989136588898";
const AT: &str = "2026-02-10T10:00:00.000000Z";

/// What the tests look at of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Event { offset: Offset, id: String, ts: String, hash: String, scenario: Option<String>, amount: Option<String> },
    Foreign(Offset),
    Fault(Option<Offset>, &'static str),
}

fn fault(offset: impl Into<Option<Offset>>, code: ReasonCode) -> Seen {
    Seen::Fault(offset.into(), code.as_str())
}

fn seen(delivery: &Delivery<'_>) -> Seen {
    match delivery {
        Delivery::Event(event) => Seen::Event {
            offset: event.offset,
            id: event.event_id.to_string(),
            ts: event.ts.to_string(),
            hash: hex(&event.payload_hash),
            scenario: event.scenario_run_id.as_deref().map(str::to_owned),
            amount: event.payload.get("amount").map(|a| a.raw().into_owned()),
        },
        Delivery::Foreign(offset) => Seen::Foreign(*offset),
        Delivery::Fault(f) => {
            assert!(!f.place.is_empty() && !f.message.is_empty(), "{f:?}");
            Seen::Fault(f.offset, f.code.as_str())
        }
    }
}

fn lane(kind: OffsetKind) -> Lane {
    Lane { topic: TOPIC.into(), partition: 0, kind }
}

fn off(n: u64) -> Offset {
    Offset::from(n)
}

fn ranges(list: &[(u64, u64)]) -> Vec<OffsetRange> {
    list.iter().map(|(start, end)| OffsetRange { start: off(*start), end: off(*end) }).collect()
}

fn all() -> Vec<OffsetRange> {
    vec![OffsetRange { start: off(0), end: Offset::from_bytes([0xff; 24]) }]
}

/// One logical record.
#[derive(Debug, Clone)]
struct Spec {
    offset: Offset,
    /// The envelope as its producer spelled it.
    envelope: String,
    /// The declared hash; the right one where nothing is said.
    declared: Option<String>,
    /// What lies there instead of a record.
    garbage: Option<&'static str>,
}

impl Spec {
    fn of(offset: Offset, envelope: &Value) -> Self {
        Spec { offset, envelope: envelope.to_string(), declared: None, garbage: None }
    }

    fn event(offset: Offset) -> Self {
        Spec::of(offset, &envelope(&format!("evt_{offset}")))
    }

    fn garbage(offset: Offset, text: &'static str) -> Self {
        Spec { garbage: Some(text), ..Spec::event(offset) }
    }

    fn declaring(self, hash: impl Into<String>) -> Self {
        Spec { declared: Some(hash.into()), ..self }
    }

    fn value(&self) -> Value {
        serde_json::from_str(&self.envelope).unwrap_or(Value::Null)
    }

    /// The record of the archive around the envelope.
    fn archived(&self, lane: &Lane) -> String {
        if let Some(text) = self.garbage {
            return text.into();
        }
        let envelope = self.value();
        let copy = |key: &str| envelope.get(key).cloned().unwrap_or(json!("absent"));
        let declared = self.declared.clone().unwrap_or_else(|| bare(&envelope));
        let (id, ts, run) = (copy("event_id"), copy("ts_utc"), copy("platform_run_id"));
        let origin = origin(lane, self.offset);
        let hash = json!(declared);
        let text = &self.envelope;
        format!(
            "{{\"platform_run_id\":{run},\"event_id\":{id},\"ts_utc\":{ts},\"payload_hash\":{hash},\"origin_offset\":{origin},\"envelope\":{text}}}"
        )
    }

    /// The record of the bus around the envelope.
    fn published(&self) -> String {
        if let Some(text) = self.garbage {
            return text.into();
        }
        let hash = self.declared.as_ref().map(|h| format!("\"payload_hash\":{},", json!(h))).unwrap_or_default();
        format!("{{\"partition_key\":\"k\",{hash}\"payload\":{},\"published_at_utc\":\"{AT}\"}}", self.envelope)
    }

    /// What every log must deliver for it when it is whole.
    fn delivered(&self) -> Seen {
        let envelope = self.value();
        let text = |key: &str| envelope[key].as_str().map(str::to_owned);
        Seen::Event {
            offset: self.offset,
            id: text("event_id").unwrap(),
            ts: Instant::parse(&text("ts_utc").unwrap()).unwrap().to_string(),
            hash: bare(&envelope),
            scenario: text("scenario_run_id"),
            amount: envelope["payload"].get("amount").map(Value::to_string),
        }
    }
}

fn origin(lane: &Lane, offset: Offset) -> Value {
    json!({"topic": lane.topic, "partition": lane.partition, "offset": offset.to_string(), "offset_kind": lane.kind})
}

fn envelope(id: &str) -> Value {
    json!({"event_id": id, "event_type": "tx", "platform_run_id": RUN, "scenario_run_id": "s1", "ts_utc": AT, "payload": {"amount": 5, "flow_id": "f"}})
}

fn with(id: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut value = envelope(id);
    change(&mut value);
    value
}

/// Canonical ASCII-escaped JSON, written apart from the code under test.
fn ascii(value: &Value) -> String {
    let mut units = [0; 2];
    value
        .to_string()
        .chars()
        .map(|c| match c {
            '\u{20}'..='\u{7e}' => c.to_string(),
            _ => c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        })
        .collect()
}

fn bare(envelope: &Value) -> String {
    sha256_hex(ascii(envelope).as_bytes())
}

/// A log and the folder that it lies in.
type Made = (TempDir, Box<dyn EventLog>);

/// One way to write records.
struct Form {
    name: &'static str,
    /// Whether the place of a record with an odd offset says the offset even when its text cannot be read.
    placed: bool,
    make: fn(&Lane, &[Spec]) -> Made,
}

const FORMS: [Form; 5] = [
    Form { name: "bus", placed: true, make: bus },
    Form { name: "archive of single files", placed: true, make: |lane, specs| archive(lane, specs, |_| true) },
    Form { name: "archive of JSON lines", placed: false, make: |lane, specs| archive(lane, specs, |_| false) },
    Form { name: "mixed archive", placed: true, make: |lane, specs| archive(lane, specs, |i| i % 2 == 1) },
    Form { name: "sealed segments beside what stays raw", placed: true, make: sealed },
];

/// Segments, and the archive without what they stand for.
#[derive(Debug)]
struct Together {
    sealed: Sealed,
    archive: Archive,
}

impl EventLog for Together {
    fn source(&self) -> Source {
        Source::Archive
    }

    fn bounds(&self, lane: &Lane) -> Result<Bounds, SourceError> {
        Ok(Bounds { attested: self.sealed.bounds(lane)?.attested, ..self.archive.bounds(lane)? })
    }

    fn chunks(&self, lane: &Lane, ranges: &[OffsetRange]) -> Result<Vec<Chunk>, SourceError> {
        Ok([self.sealed.chunks(lane, ranges)?, self.archive.chunks(lane, ranges)?].concat())
    }

    fn read(&self, chunk: &Chunk, scope: ReadScope<'_>, decoder: &mut Decoder, sink: &mut Sink<'_>) -> Result<(), SourceError> {
        let log: &dyn EventLog = if chunk.place().contains("/ofs/sealed/") { &self.sealed } else { &self.archive };
        log.read(chunk, scope, decoder, sink)
    }

    fn read_wide(&self, chunk: &Chunk, scope: ReadScope<'_>, decoder: &mut Decoder, sink: &mut WideSink<'_>) -> Result<(), SourceError> {
        let log: &dyn EventLog = if chunk.place().contains("/ofs/sealed/") { &self.sealed } else { &self.archive };
        log.read_wide(chunk, scope, decoder, sink)
    }
}

/// A mixed archive after sealing. A lane with a record that cannot be used stays raw.
fn sealed(lane: &Lane, specs: &[Spec]) -> Made {
    let (dir, _log) = archive(lane, specs, |i| i % 2 == 1);
    let store: Arc<dyn crate::store::Store> = Arc::new(LocalStore::open(dir.path()).unwrap());
    let attestation = json!([{"topic": lane.topic, "partition": lane.partition, "offset_kind": lane.kind, "start_offset": "0",
        "end_offset": "9".repeat(56), "record_count": specs.len()}]);
    let attestations = if lane.kind.dense() { Vec::new() } else { seal::parse_attestations(attestation.to_string().as_bytes()).unwrap() };
    seal::seal(&seal::testing::env(dir.path(), store.clone()), RUN, &attestations).unwrap();
    let sealed = Sealed::new(store.clone(), RUN);
    let archive = Archive::new(store, RUN).beside(sealed.index());
    (dir, Box::new(Together { sealed, archive }))
}

/// A bus whose base is the first offset; offsets must be contiguous.
fn bus(lane: &Lane, specs: &[Spec]) -> Made {
    let text: String = specs.iter().map(|s| s.published() + "\n").collect();
    let base = specs.first().map(|s| s.offset).unwrap_or_default();
    bus_of(lane, text.as_bytes(), Some(&json!({"base_offset": base, "offset_kind": lane.kind}).to_string()))
}

fn bus_of(lane: &Lane, text: &[u8], meta: Option<&str>) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let topic = dir.path().join(&lane.topic);
    fs::create_dir(&topic).unwrap();
    fs::write(topic.join(format!("partition={}.jsonl", lane.partition)), text).unwrap();
    if let Some(meta) = meta {
        fs::write(topic.join(format!("partition={}.meta.json", lane.partition)), meta).unwrap();
    }
    let log = FileBus::open(dir.path()).unwrap();
    (dir, Box::new(log))
}

/// One line of the bus.
fn line(n: u64) -> String {
    Spec::event(off(n)).published() + "\n"
}

fn archive_folder(root: &Path, lane: &Lane) -> PathBuf {
    let folder = format!("{RUN}/archive/events/topic={}/partition={}/offset_kind={}", lane.topic, lane.partition, lane.kind);
    root.join(folder)
}

/// An archive in which `single` says which records are files of their own; the others share two files.
fn archive(lane: &Lane, specs: &[Spec], single: impl Fn(usize) -> bool) -> Made {
    let mut lines = [String::new(), String::new()];
    let mut files = Vec::new();
    for (i, spec) in specs.iter().enumerate() {
        if single(i) {
            files.push((format!("offset={}.json", spec.offset), spec.archived(lane)));
        } else {
            lines[usize::from(i * 2 >= specs.len())].push_str(&format!("{}\n", spec.archived(lane)));
        }
    }
    let [first, mut second] = lines;
    second.truncate(second.trim_end().len());
    files.extend([("first.jsonl".into(), first), ("second.jsonl".into(), second)].into_iter().filter(|(_, text)| !text.is_empty()));
    archive_of(lane, &files)
}

fn archive_of(lane: &Lane, files: &[(String, String)]) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let folder = archive_folder(dir.path(), lane);
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    let log = Archive::new(Arc::new(LocalStore::open(dir.path()).unwrap()), RUN);
    (dir, Box::new(log))
}

fn read_chunk(log: &dyn EventLog, chunk: &Chunk, scope: ReadScope<'_>, decoder: &mut Decoder) -> Vec<Seen> {
    let mut out = Vec::new();
    log.read(chunk, scope, decoder, &mut |delivery| {
        out.push(seen(&delivery));
        ControlFlow::Continue(())
    })
    .unwrap();
    // Through the other door comes the same, in the same order, though not an envelope that nobody asked for.
    let mut wide = Vec::new();
    log.read_wide(chunk, scope, decoder, &mut |handed| {
        match handed {
            Handed::Record(delivery) => wide.push(seen(&delivery)),
            Handed::Columns(columns) => {
                assert!(scope.needs != Needs::Envelope && !columns.is_empty());
                wide.extend((0..columns.len()).map(|row| seen(&Delivery::Event(columns.event(row).unwrap()))));
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(wide, out, "the two doors deliver the same");
    out
}

/// Everything that a log delivers, sorted.
fn read(log: &dyn EventLog, lane: &Lane, ranges: &[OffsetRange], verify: bool) -> Vec<Seen> {
    let fields = ["amount".to_owned()];
    let [columns, text] = [Needs::Fields(&fields), Needs::Envelope].map(|needs| {
        let scope = ReadScope { platform_run_id: RUN, lane, ranges, verify, needs };
        let mut decoder = Decoder::new();
        let mut out: Vec<Seen> = log.chunks(lane, ranges).unwrap().iter().flat_map(|c| read_chunk(log, c, scope, &mut decoder)).collect();
        out.sort();
        out
    });
    assert_eq!(columns, text, "what is asked for changes nothing of it");
    text
}

/// Writes the records in every form and expects the same deliveries. `wanted` may depend on the form.
fn every_log(kind: OffsetKind, specs: &[Spec], wanted: impl Fn(&Form, &dyn EventLog) -> Vec<Seen>) {
    for form in &FORMS {
        let lane = lane(kind);
        let (_dir, log) = (form.make)(&lane, specs);
        let mut wanted = wanted(form, log.as_ref());
        wanted.sort();
        assert_eq!(read(log.as_ref(), &lane, &all(), true), wanted, "{}", form.name);
    }
}

fn whole(specs: &[Spec]) -> Vec<Seen> {
    specs.iter().map(Spec::delivered).collect()
}

// ---- every event log ----

#[test]
fn every_log_delivers_the_same_events() {
    let variety = |base: Offset| -> Vec<Spec> {
        let envelopes = [
            envelope("plain"),
            with("é \u{1f600} \u{7f} \" \\ \n", |e| e["payload"]["name"] = json!("Zoë")),
            with("no-scenario", |e| drop(e.as_object_mut().unwrap().remove("scenario_run_id"))),
            with("no-payload", |e| drop(e.as_object_mut().unwrap().remove("payload"))),
            with("payload-is-text", |e| e["payload"] = json!("x")),
            with("zoned", |e| e["ts_utc"] = json!("2026-02-10T12:00:00.5+02:00")),
            with("nested", |e| e["payload"]["amount"] = json!({"b": [1, {}], "a": null})),
            with(&"x".repeat(512), |_| ()),
        ];
        let mut offset = base;
        envelopes
            .iter()
            .map(|e| {
                let spec = Spec::of(offset, e);
                offset = offset.next();
                spec
            })
            .collect()
    };
    for (kind, base) in [
        (OffsetKind::FileLine, off(0)),
        (OffsetKind::FileLine, off(7)),
        (OffsetKind::KafkaOffset, off(9_000_000_000)),
        (OffsetKind::KinesisSequence, Offset::parse(LONG).unwrap()),
        (OffsetKind::KinesisSequence, Offset::parse("18446744073709551610").unwrap()),
    ] {
        let specs = variety(base);
        every_log(kind, &specs, |_, _| whole(&specs));
    }
}

#[test]
fn every_log_hashes_the_envelope_and_not_its_spelling() {
    let spelled = |texts: &[&str]| -> Vec<Spec> {
        texts.iter().zip(0..).map(|(text, n)| Spec { envelope: (*text).into(), ..Spec::event(off(n)) }).collect()
    };
    let same = spelled(&[
        r#"{"event_id":"\u00e9","payload":{"amount":10.0,"b":"\ud83d\ude00/"},"platform_run_id":"platform_20260210T122800Z","ts_utc":"2026-02-10T10:00:00Z"}"#,
        r#"{"ts_utc":"2026-02-10T10:00:00Z","event_id":"é","payload":{"b":"😀/","amount":10.0},"platform_run_id":"platform_20260210T122800Z"}"#,
        "{ \"platform_run_id\" : \"platform_20260210T122800Z\",\t\"ts_utc\":\"2026-02-10T10:00:00Z\", \"payload\":{\"b\":\"\\uD83D\\uDE00\\/\",  \"amount\":10.0}, \"event_id\":\"\\u00E9\" }",
        r#"{"\u0065vent_id":"é","payload":{"amount":10.0,"b":"\ud83d\ude00/"},"platform_run_id":"platform_20260210T122800Z","ts_utc":"2026-02-10T10:00:00\u005a"}"#,
    ]);
    every_log(OffsetKind::FileLine, &same, |_, _| whole(&same));
    let hashes: BTreeSet<String> = same.iter().map(|s| bare(&s.value())).collect();
    assert_eq!(hashes.len(), 1);

    let tokens = ["10", "10.0", "10.00", "1e1", "1E+1", "-0", "0", "0.0", "123456789012345678901234567890.5"];
    let texts: Vec<String> = tokens.iter().map(|t| envelope("e").to_string().replace("\"amount\":5", &format!("\"amount\":{t}"))).collect();
    let numbers: Vec<Spec> = texts.iter().zip(0..).map(|(t, n)| Spec { envelope: t.clone(), ..Spec::event(off(n)) }).collect();
    for form in &FORMS {
        let lane = lane(OffsetKind::FileLine);
        // The texts are canonical as they stand, so their own bytes are what is hashed.
        let declared: Vec<Spec> = numbers.iter().map(|s| s.clone().declaring(sha256_hex(s.envelope.as_bytes()))).collect();
        let (_dir, log) = (form.make)(&lane, &declared);
        let found: Vec<(String, String)> = read(log.as_ref(), &lane, &all(), true)
            .into_iter()
            .map(|s| match s {
                Seen::Event { hash, amount, .. } => (amount.unwrap(), hash),
                other => panic!("{}: {other:?}", form.name),
            })
            .collect();
        let wanted: Vec<(String, String)> =
            tokens.iter().zip(&texts).map(|(t, text)| ((*t).to_owned(), sha256_hex(text.as_bytes()))).collect();
        assert_eq!(found, wanted, "{}", form.name);
        assert_eq!(found.iter().map(|f| &f.1).collect::<BTreeSet<_>>().len(), tokens.len());
    }
}

/// The digest was made by the archive writer's own recipe (Python's `json.dumps` with sorted keys,
/// compact separators and ASCII escapes).
#[test]
fn every_log_agrees_with_the_archive_writers_digest() {
    const GOLDEN: &str = "f579b3e26e636f56e8cd14ea52b32e19755414192297bea695f15da8fa071c5e";
    let text = "{\"event_id\":\"é-1\",\"platform_run_id\":\"platform_20260210T122800Z\",\"ts_utc\":\"2026-02-10T10:00:00.000001Z\",\
                \"payload\":{\"b\":10.0,\"a\":[\"\u{7f}\",\"😀\",null,true,-1],\"z\":{\"k\\n\":1e+16}}}";
    let spec = Spec { envelope: text.into(), ..Spec::event(off(0)) }.declaring(GOLDEN);
    let wanted = Seen::Event {
        offset: off(0),
        id: "é-1".into(),
        ts: "2026-02-10T10:00:00.000001Z".into(),
        hash: GOLDEN.into(),
        scenario: None,
        amount: None,
    };
    every_log(OffsetKind::KafkaOffset, &[spec], |_, _| vec![wanted.clone()]);
}

#[test]
fn every_log_verifies_what_is_declared_and_delivers_the_bare_hash() {
    let value = envelope("evt_0");
    let (sha, blake) = (bare(&value), blake3::hash(ascii(&value).as_bytes()).to_hex().to_string());
    let zeros = "0".repeat(64);
    let good = [sha.clone(), format!("sha256:{sha}"), format!("blake3:{blake}"), sha.to_uppercase()];
    let lies =
        [zeros.clone(), format!("sha256:{zeros}"), format!("blake3:{zeros}"), format!("blake3:{sha}"), format!("sha256:{blake}"), blake];
    let malformed =
        [format!("md5:{sha}"), format!("SHA256:{sha}"), "sha256:".into(), "x".into(), String::new(), format!("{sha}0"), "g".repeat(64)];
    for form in &FORMS {
        let lane = lane(OffsetKind::FileLine);
        let deliver = |declared: &str, verify: bool| {
            let (_dir, log) = (form.make)(&lane, &[Spec::of(off(0), &value).declaring(declared)]);
            read(log.as_ref(), &lane, &all(), verify)
        };
        let honest = vec![Spec::of(off(0), &value).delivered()];
        for declared in &good {
            assert_eq!(deliver(declared, true), honest, "{} {declared}", form.name);
            assert_eq!(deliver(declared, false), honest, "{} {declared} unverified", form.name);
        }
        let mismatch = vec![fault(off(0), ReasonCode::PayloadHashMismatch)];
        for declared in lies.iter().chain(&malformed) {
            assert_eq!(deliver(declared, true), mismatch, "{} {declared}", form.name);
        }
        for declared in &malformed {
            assert_eq!(deliver(declared, false), mismatch, "{} {declared} unverified", form.name);
        }
        // Unverified, a lie is passed over and never believed.
        for declared in &lies {
            assert_eq!(deliver(declared, false), honest, "{} {declared} unverified", form.name);
        }
    }
}

#[test]
fn every_log_turns_what_it_cannot_use_into_a_fault_and_reads_on() {
    let edited = |offset, change: fn(&mut Value)| {
        let honest = envelope("edited");
        let mut value = honest.clone();
        change(&mut value);
        Spec::of(off(offset), &value).declaring(bare(&honest))
    };
    let odd = |offset, change: fn(&mut Value)| Spec::of(off(offset), &with("odd", change));
    use ReasonCode::{PayloadHashMismatch as Hash, ReplayEventInvalid as Invalid};
    let cases: Vec<(Spec, ReasonCode)> = vec![
        (edited(0, |e| e["payload"]["amount"] = json!(6)), Hash),
        (edited(1, |e| e["payload"]["amount"] = crate::json::number("5.0")), Hash),
        (edited(2, |e| e["ts_utc"] = json!("2026-02-10T10:00:01Z")), Hash),
        (edited(3, |e| e["more"] = Value::Null), Hash),
        (odd(4, |e| e["ts_utc"] = json!("2026-02-10 10:00:00")), Invalid),
        (odd(5, |e| e["ts_utc"] = json!("2026-02-10T10:00:00")), Invalid),
        (odd(6, |e| e["ts_utc"] = json!("2026-02-10T10:00:00.0000001Z")), Invalid),
        (odd(7, |e| e["ts_utc"] = json!(1_770_717_600)), Invalid),
        (odd(8, |e| drop(e.as_object_mut().unwrap().remove("ts_utc"))), Invalid),
        (odd(9, |e| drop(e.as_object_mut().unwrap().remove("event_id"))), Invalid),
        (odd(10, |e| e["event_id"] = json!("")), Invalid),
        (odd(11, |e| e["event_id"] = json!("x".repeat(513))), Invalid),
        (odd(12, |e| e["event_id"] = json!(12)), Invalid),
        (Spec { envelope: "[1]".into(), ..Spec::event(off(13)) }, Invalid),
        (Spec { envelope: "null".into(), ..Spec::event(off(14)) }, Invalid),
        (odd(15, |e| e["platform_run_id"] = json!(7)), Invalid),
    ];
    let mut specs: Vec<Spec> = cases.iter().map(|c| c.0.clone()).collect();
    specs.push(Spec::event(off(16)));
    every_log(OffsetKind::KafkaOffset, &specs, |_, _| {
        cases.iter().map(|(spec, code)| fault(spec.offset, *code)).chain([specs[16].delivered()]).collect()
    });
}

#[test]
fn every_log_knows_the_offset_of_unreadable_text_where_its_place_says_it() {
    for text in ["{", "nonsense", "{\"envelope\":", "1 2", "{\"payload\":NaN}", "{\"payload\":{\"a\":\"\\ud800\"}}", "\u{feff}{}"] {
        let specs = [Spec::event(off(0)), Spec::garbage(off(1), text), Spec::event(off(2)), Spec::garbage(off(3), text)];
        every_log(OffsetKind::FileLine, &specs, |form, _| {
            let lost = |offset| fault(form.placed.then_some(off(offset)), ReasonCode::DecodeError);
            vec![specs[0].delivered(), specs[2].delivered(), lost(1), lost(3)]
        });
    }
}

#[test]
fn every_log_refuses_a_key_that_stands_twice_at_the_records_offset() {
    let twice = [
        envelope("e").to_string().replacen('{', "{\"event_id\":\"other\",", 1),
        envelope("e").to_string().replace("\"amount\":5", "\"amount\":5,\"amount\":5"),
        envelope("e").to_string().replace("\"amount\":5", "\"amount\":5,\"amoun\\u0074\":6"),
        envelope("e").to_string().replace("\"amount\":5", "\"amount\":[{\"k\":1,\"j\":1,\"k\":2}]"),
    ];
    let mut specs: Vec<Spec> = twice.iter().zip(0..).map(|(t, n)| Spec { envelope: t.clone(), ..Spec::event(off(n)) }).collect();
    specs.push(Spec::event(off(4)));
    every_log(OffsetKind::FileLine, &specs, |_, _| {
        (0..4).map(|n| fault(off(n), ReasonCode::DecodeError)).chain([specs[4].delivered()]).collect()
    });
}

#[test]
fn every_log_keeps_other_runs_out() {
    let specs = [Spec::event(off(0)), Spec::of(off(1), &with("theirs", |e| e["platform_run_id"] = json!(OTHER_RUN))), Spec::event(off(2))];
    every_log(OffsetKind::KafkaOffset, &specs, |_, log| {
        let theirs = match log.source() {
            // A topic is shared by all runs; an archive belongs to one.
            Source::Bus => Seen::Foreign(off(1)),
            Source::Archive | Source::Sealed => fault(off(1), ReasonCode::RunScopeInvalid),
        };
        vec![specs[0].delivered(), theirs, specs[2].delivered()]
    });
}

#[test]
fn every_log_delivers_only_the_wanted_ranges_both_ends_included() {
    let specs: Vec<Spec> = (100..120).map(|n| Spec::event(off(n))).collect();
    for form in &FORMS {
        let lane = lane(OffsetKind::KafkaOffset);
        let (_dir, log) = (form.make)(&lane, &specs);
        for list in [
            vec![(100, 119)],
            vec![(0, 1000)],
            vec![(105, 105)],
            vec![(0, 100), (119, 200)],
            vec![(101, 103), (107, 107), (110, 112)],
            vec![(0, 99)],
            vec![(120, 130)],
            vec![],
        ] {
            let wanted: Vec<Seen> =
                specs.iter().filter(|s| list.iter().any(|(a, b)| (off(*a)..=off(*b)).contains(&s.offset))).map(Spec::delivered).collect();
            assert_eq!(read(log.as_ref(), &lane, &ranges(&list), true), wanted, "{} {list:?}", form.name);
        }
    }
}

#[test]
fn every_log_passes_over_the_faults_of_unwanted_offsets() {
    let bad = |n| Spec::event(off(n)).declaring("0".repeat(64));
    let twice = |n| Spec { envelope: "{\"a\":1,\"a\":1}".into(), ..Spec::event(off(n)) };
    let specs = [bad(0), twice(1), Spec::event(off(2)), bad(3), twice(4)];
    for form in &FORMS {
        let lane = lane(OffsetKind::FileLine);
        let (_dir, log) = (form.make)(&lane, &specs);
        assert_eq!(read(log.as_ref(), &lane, &ranges(&[(2, 2)]), true), [specs[2].delivered()], "{}", form.name);
    }
}

#[test]
fn every_log_delivers_the_same_in_any_order_of_pieces() {
    // More records than one piece of an archive of single files holds.
    let specs: Vec<Spec> = (0..600).map(|n| Spec::event(off(n))).collect();
    let wanted = {
        let mut wanted = whole(&specs);
        wanted.sort();
        wanted
    };
    let ranges = all();
    for form in &FORMS {
        let lane = lane(OffsetKind::KafkaOffset);
        let (_dir, log) = (form.make)(&lane, &specs);
        let scope = ReadScope { platform_run_id: RUN, lane: &lane, ranges: &ranges, verify: true, needs: Needs::Envelope };
        let chunks = log.chunks(&lane, &ranges).unwrap();
        assert_eq!(log.chunks(&lane, &ranges).unwrap(), chunks, "{}: pieces are cut anew the same way", form.name);
        let order = |ids: Vec<usize>| -> Vec<Seen> {
            let mut decoder = Decoder::new();
            let mut out: Vec<Seen> = ids.iter().flat_map(|i| read_chunk(log.as_ref(), &chunks[*i], scope, &mut decoder)).collect();
            out.sort();
            out
        };
        let n = chunks.len();
        assert_eq!(order((0..n).collect()), wanted, "{}", form.name);
        assert_eq!(order((0..n).rev().collect()), wanted, "{}", form.name);
        assert_eq!(order((0..n).map(|i| (i + n / 2) % n).collect()), wanted, "{}", form.name);
        let mut side_by_side: Vec<Seen> = std::thread::scope(|threads| {
            let (log, chunks) = (log.as_ref(), &chunks);
            let readers: Vec<_> = (0..n).map(|i| threads.spawn(move || read_chunk(log, &chunks[i], scope, &mut Decoder::new()))).collect();
            readers.into_iter().flat_map(|r| r.join().unwrap()).collect()
        });
        side_by_side.sort();
        assert_eq!(side_by_side, wanted, "{}", form.name);
    }
}

#[test]
fn every_log_stops_when_told() {
    let specs: Vec<Spec> = (0..10).map(|n| Spec::event(off(n))).collect();
    let ranges = all();
    for form in &FORMS {
        let lane = lane(OffsetKind::KafkaOffset);
        let (_dir, log) = (form.make)(&lane, &specs);
        let scope = ReadScope { platform_run_id: RUN, lane: &lane, ranges: &ranges, verify: true, needs: Needs::Envelope };
        for chunk in log.chunks(&lane, &ranges).unwrap() {
            let mut count = 0;
            log.read(&chunk, scope, &mut Decoder::new(), &mut |_| {
                count += 1;
                if count == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
            assert_eq!(count, 2, "{}", form.name);
        }
    }
}

#[test]
fn every_log_serves_nothing_for_a_lane_that_is_not_there() {
    for form in &FORMS {
        let here = lane(OffsetKind::KafkaOffset);
        let (_dir, log) = (form.make)(&here, &[Spec::event(off(0))]);
        for other in [
            Lane { topic: "fp.bus.other.v1".into(), ..here.clone() },
            Lane { partition: 1, ..here.clone() },
            Lane { kind: OffsetKind::FileLine, ..here.clone() },
        ] {
            assert_eq!(log.chunks(&other, &all()).unwrap(), [], "{}", form.name);
            assert_eq!(log.bounds(&other).unwrap(), Bounds::default(), "{}", form.name);
        }
    }
}

#[test]
fn every_log_calls_a_piece_that_is_gone_an_error_and_no_gap() {
    for form in &FORMS {
        let lane = lane(OffsetKind::FileLine);
        let (dir, log) = (form.make)(&lane, &[Spec::event(off(0)), Spec::event(off(1))]);
        let ranges = all();
        let scope = ReadScope { platform_run_id: RUN, lane: &lane, ranges: &ranges, verify: true, needs: Needs::Envelope };
        for chunk in log.chunks(&lane, &ranges).unwrap() {
            chunk.files.iter().for_each(|file| fs::remove_file(dir.path().join(&file.place)).unwrap());
            let error = log.read(&chunk, scope, &mut Decoder::new(), &mut |d| panic!("{d:?}")).unwrap_err();
            assert_eq!(error.code, ReasonCode::SourceIo, "{}", form.name);
        }
    }
}

#[test]
fn every_log_names_the_place_of_a_fault() {
    for form in &FORMS {
        let lane = lane(OffsetKind::FileLine);
        let (dir, log) = (form.make)(&lane, &[Spec::event(off(0)), Spec::garbage(off(1), "{")]);
        let ranges = all();
        let scope = ReadScope { platform_run_id: RUN, lane: &lane, ranges: &ranges, verify: true, needs: Needs::Envelope };
        let mut places = Vec::new();
        for chunk in log.chunks(&lane, &ranges).unwrap() {
            log.read(&chunk, scope, &mut Decoder::new(), &mut |delivery| {
                if let Delivery::Fault(fault) = delivery {
                    places.push(fault.place);
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        let [place] = &places[..] else { panic!("{}: {places:?}", form.name) };
        assert!(place.contains(TOPIC) && !place.contains(dir.path().to_str().unwrap()), "{}: {place}", form.name);
        let end = match form.name {
            "bus" => "partition=0.jsonl:2",
            "archive of JSON lines" => "second.jsonl:1",
            _ => "offset=1.json",
        };
        assert!(place.ends_with(end), "{}: {place}", form.name);
    }
}
