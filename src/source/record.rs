//! Decoding one record: what a record says is checked against the envelope that its hash covers, since
//! only the envelope is proven (O060, O061, pitfall 13).

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::payload::Payload;
use super::{Delivery, Fault, ReadScope};
use crate::contract::{Offset, OffsetKind, ReasonCode};
use crate::digest::unhex32;
use crate::json::{Doc, Item, Kind, Tape};
use crate::time::Instant;

/// Longest event id in bytes.
const MAX_EVENT_ID: usize = 512;

/// An event as the build sees it. Everything here was read from the verified envelope.
#[derive(Debug)]
pub struct EventRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Event id.
    pub event_id: Cow<'a, str>,
    /// Event time.
    pub ts: Instant,
    /// SHA-256 of the canonical envelope.
    pub payload_hash: [u8; 32],
    /// Scenario run, where the event names one.
    pub scenario_run_id: Option<Cow<'a, str>>,
    /// The payload hash as its record declares it, where it does.
    pub declared: Option<Cow<'a, str>>,
    /// The payload's fields, at least those that were asked for.
    pub payload: Payload<'a>,
    /// The whole envelope; of a sealed segment only where it was asked for.
    pub envelope: Option<Item<'a>>,
}

/// Per-thread state for decoding, reused from record to record.
#[derive(Debug, Default)]
pub struct Decoder {
    pub(super) tape: Tape,
    scratch: Vec<u8>,
}

/// A record that failed, before its place is known.
struct Bad(ReasonCode, String);

fn bad<T>(code: ReasonCode, message: impl Into<String>) -> Result<T, Bad> {
    Err(Bad(code, message.into()))
}

fn invalid<T>(message: impl Into<String>) -> Result<T, Bad> {
    bad(ReasonCode::ReplayEventInvalid, message)
}

impl Decoder {
    /// A fresh decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes an archive record. `named` is the offset that the file's name gives, if it gives one.
    /// Nothing comes back for a record outside the wanted ranges.
    pub(super) fn archive<'d>(
        &'d mut self,
        text: &'d [u8],
        named: Option<Offset>,
        scope: ReadScope<'_>,
        place: &dyn Fn() -> String,
    ) -> Option<Delivery<'d>> {
        let fault = |offset, Bad(code, message): Bad| Some(Delivery::Fault(Fault { offset, code, place: place(), message }));
        let doc = match self.tape.parse(text) {
            Ok(doc) => doc,
            Err(e) => return fault(named, Bad(ReasonCode::DecodeError, e.to_string())),
        };
        if let Err(bad) = no_duplicates(doc) {
            // An offset that stands twice is not known, unless the file's name says it.
            let offset = named.or_else(|| sole_offset(doc));
            return if offset.is_some_and(|o| !scope.wants(o)) { None } else { fault(offset, bad) };
        }
        let record = Archived::of(doc.root());
        let offset = match origin(record.origin, scope, named) {
            Ok(offset) => offset,
            Err((offset, bad)) => return fault(offset.or(named), bad),
        };
        if !scope.wants(offset) {
            return None;
        }
        match archived(&record, offset, scope, &mut self.scratch) {
            Ok(event) => Some(Delivery::Event(event)),
            Err(bad) => fault(Some(offset), bad),
        }
    }

    /// Decodes a bus record at an offset that its line gives.
    pub(super) fn bus<'d>(&'d mut self, text: &'d [u8], offset: Offset, scope: ReadScope<'_>, place: &dyn Fn() -> String) -> Delivery<'d> {
        let fault = |Bad(code, message): Bad| Delivery::Fault(Fault { offset: Some(offset), code, place: place(), message });
        let doc = match self.tape.parse(text) {
            Ok(doc) => doc,
            Err(e) => return fault(Bad(ReasonCode::DecodeError, e.to_string())),
        };
        match published(doc, offset, scope, &mut self.scratch) {
            Ok(Some(event)) => Delivery::Event(event),
            Ok(None) => Delivery::Foreign(offset),
            Err(bad) => fault(bad),
        }
    }
}

fn no_duplicates(doc: Doc<'_>) -> Result<(), Bad> {
    match doc.duplicate_key() {
        Some(key) => bad(ReasonCode::DecodeError, format!("the key `{key}` stands twice in one object")),
        None => Ok(()),
    }
}

/// A field where it is there and not null.
fn stated(field: Option<Item<'_>>) -> Option<Item<'_>> {
    field.filter(|field| !field.is_null())
}

fn text(field: Option<Item<'_>>) -> Option<Cow<'_, str>> {
    field.and_then(Item::str)
}

/// What a build looks at of a record of the archive.
struct Archived<'a> {
    envelope: Option<Item<'a>>,
    origin: Option<Item<'a>>,
    payload_hash: Option<Item<'a>>,
    copies: Told<'a>,
}

impl<'a> Archived<'a> {
    fn of(root: Item<'a>) -> Self {
        let [envelope, event_id, event_type, origin, payload_hash, run, scenario_run, ts] = root.pick([
            "envelope",
            "event_id",
            "event_type",
            "origin_offset",
            "payload_hash",
            "platform_run_id",
            "scenario_run_id",
            "ts_utc",
        ]);
        Archived { envelope, origin, payload_hash, copies: Told { event_id, event_type, run, scenario_run, ts } }
    }
}

/// What an envelope says, and a record of the archive beside it.
#[derive(Clone, Copy)]
struct Told<'a> {
    event_id: Option<Item<'a>>,
    event_type: Option<Item<'a>>,
    run: Option<Item<'a>>,
    scenario_run: Option<Item<'a>>,
    ts: Option<Item<'a>>,
}

/// An envelope and its fields.
#[derive(Clone, Copy)]
struct Envelope<'a> {
    item: Item<'a>,
    told: Told<'a>,
    payload: Option<Item<'a>>,
}

impl<'a> Envelope<'a> {
    /// Nothing comes back for anything but an object.
    fn of(field: Option<Item<'a>>) -> Option<Self> {
        let item = field.filter(|e| e.kind() == Kind::Object)?;
        let [event_id, event_type, payload, run, scenario_run, ts] =
            item.pick(["event_id", "event_type", "payload", "platform_run_id", "scenario_run_id", "ts_utc"]);
        Some(Envelope { item, told: Told { event_id, event_type, run, scenario_run, ts }, payload })
    }
}

/// The offset of a record whose keys repeat, where that one is not in doubt.
fn sole_offset(doc: Doc<'_>) -> Option<Offset> {
    let sole = |object: Item<'_>, key: &str| object.fields().filter(|(k, _)| k == key).count() == 1;
    let origin = doc.root().get("origin_offset").filter(|_| sole(doc.root(), "origin_offset"))?;
    let item = origin.get("offset").filter(|_| sole(origin, "offset"))?;
    offset_of(item)
}

fn offset_of(item: Item<'_>) -> Option<Offset> {
    item.str().or_else(|| item.number().map(Cow::Borrowed)).and_then(|t| Offset::parse(&t))
}

/// The record's own statement of where it came from, held against where it lies.
fn origin(origin: Option<Item<'_>>, scope: ReadScope<'_>, named: Option<Offset>) -> Result<Offset, (Option<Offset>, Bad)> {
    let lost = |message: String| (None, Bad(ReasonCode::ReplayEventInvalid, message));
    let origin = origin.ok_or_else(|| lost("origin_offset is missing".into()))?;
    let [offset, kind, partition, topic] = origin.pick(["offset", "offset_kind", "partition", "topic"]);
    let offset = offset.and_then(offset_of).ok_or_else(|| lost("origin_offset.offset is not decimal digits".into()))?;
    let here = (scope.lane.topic.as_str(), i64::from(scope.lane.partition), Some(scope.lane.kind));
    let topic = text(topic).unwrap_or_default();
    let partition = partition.and_then(Item::number).and_then(|t| t.parse::<i64>().ok()).unwrap_or(-1);
    let kind = text(kind).and_then(|k| OffsetKind::parse(&k));
    if (topic.as_ref(), partition, kind) != here {
        let says = format!("the record says it comes from {topic}/{partition}, but lies in {}", scope.lane);
        return Err((Some(offset), Bad(ReasonCode::ReplayEventInvalid, says)));
    }
    if named.is_some_and(|n| n != offset) {
        return Err((named, Bad(ReasonCode::ReplayEventInvalid, format!("the record says offset {offset}, its file name another"))));
    }
    Ok(offset)
}

fn archived<'a>(record: &Archived<'a>, offset: Offset, scope: ReadScope<'_>, scratch: &mut Vec<u8>) -> Result<EventRecord<'a>, Bad> {
    let Some(envelope) = Envelope::of(record.envelope) else { return invalid("envelope is missing or not an object") };
    let (told, copies) = (envelope.told, record.copies);
    // An envelope need not name its run; the record does so in its place, but never against it.
    let run = stated(told.run).or_else(|| stated(copies.run)).and_then(Item::str);
    match run.as_deref() {
        Some(run) if run == scope.platform_run_id => {}
        Some(run) => return bad(ReasonCode::RunScopeInvalid, format!("a record of {run} in the archive of {}", scope.platform_run_id)),
        None => return invalid("platform_run_id is missing"),
    }
    let Some(declared) = text(record.payload_hash) else { return invalid("payload_hash is missing") };
    let payload_hash = verified(envelope.item, Some(&declared), scope.verify, scratch)?;
    let event = event_of(envelope, offset, payload_hash, Some(declared))?;
    // The copies beside the envelope are not covered by its hash, so they must say the same.
    for (key, copy, original) in [
        ("event_id", copies.event_id, told.event_id),
        ("platform_run_id", copies.run, told.run),
        ("scenario_run_id", copies.scenario_run, told.scenario_run),
        ("event_type", copies.event_type, told.event_type),
    ] {
        if let (Some(copy), Some(original)) = (stated(copy), text(original))
            && copy.str() != Some(original)
        {
            return invalid(format!("{key} of the record differs from its envelope's"));
        }
    }
    if let Some(copy) = stated(copies.ts).map(Item::str)
        && copy != text(told.ts)
        && copy.and_then(|t| Instant::parse(&t).ok()) != Some(event.ts)
    {
        return invalid("ts_utc of the record differs from its envelope's");
    }
    Ok(event)
}

fn published<'a>(doc: Doc<'a>, offset: Offset, scope: ReadScope<'_>, scratch: &mut Vec<u8>) -> Result<Option<EventRecord<'a>>, Bad> {
    no_duplicates(doc)?;
    let [payload, payload_hash] = doc.root().pick(["payload", "payload_hash"]);
    let Some(envelope) = Envelope::of(payload) else { return invalid("payload is missing or not an object") };
    match text(envelope.told.run).as_deref() {
        Some(run) if run == scope.platform_run_id => {}
        Some(_) => return Ok(None),
        None => return invalid("platform_run_id is missing"),
    }
    let declared = match stated(payload_hash) {
        None => None,
        Some(item) => match item.str() {
            Some(declared) => Some(declared),
            None => return bad(ReasonCode::PayloadHashMismatch, "the declared hash is not text"),
        },
    };
    let payload_hash = verified(envelope.item, declared.as_deref(), scope.verify, scratch)?;
    event_of(envelope, offset, payload_hash, declared).map(Some)
}

/// The bare SHA-256 of the canonical envelope; what was declared is recomputed under its own recipe. The hash of a row is
/// never one that was merely declared: one identity has one set of bytes, whether declarations are verified or not.
fn verified(envelope: Item<'_>, declared: Option<&str>, verify: bool, scratch: &mut Vec<u8>) -> Result<[u8; 32], Bad> {
    let (recipe, hex) = match declared {
        None => ("", None),
        Some(text) => match text.split_once(':') {
            None => ("sha256", Some(text)),
            Some((recipe @ ("sha256" | "blake3"), hex)) => (recipe, Some(hex)),
            Some((other, _)) => {
                return bad(ReasonCode::PayloadHashMismatch, format!("unknown hash recipe `{}`", crate::text::clip(other, 20)));
            }
        },
    };
    let expected = match hex {
        None => None,
        Some(hex) => match unhex32(hex) {
            Some(bytes) => Some(bytes),
            None => return bad(ReasonCode::PayloadHashMismatch, "the declared hash is not 64 hex digits"),
        },
    };
    let canonical = envelope.canonical(scratch);
    let sha: [u8; 32] = Sha256::digest(canonical).into();
    let Some(expected) = expected.filter(|_| verify) else { return Ok(sha) };
    let computed = if recipe == "blake3" { *blake3::hash(canonical).as_bytes() } else { sha };
    if expected == computed {
        return Ok(sha);
    }
    bad(
        ReasonCode::PayloadHashMismatch,
        format!("declared {}, but the envelope has {}", crate::digest::hex(&expected), crate::digest::hex(&computed)),
    )
}

fn event_of<'a>(
    envelope: Envelope<'a>,
    offset: Offset,
    payload_hash: [u8; 32],
    declared: Option<Cow<'a, str>>,
) -> Result<EventRecord<'a>, Bad> {
    let told = envelope.told;
    let event_id = match text(told.event_id) {
        Some(id) if !id.is_empty() && id.len() <= MAX_EVENT_ID => id,
        Some(_) => return invalid(format!("event_id is empty or longer than {MAX_EVENT_ID} bytes")),
        None => return invalid("event_id is missing"),
    };
    let Some(stamp) = text(told.ts) else { return invalid("ts_utc is missing") };
    let ts = match Instant::parse(&stamp) {
        Ok(ts) => ts,
        Err(e) => return invalid(format!("ts_utc: {e}")),
    };
    Ok(EventRecord {
        offset,
        event_id,
        ts,
        payload_hash,
        scenario_run_id: text(told.scenario_run),
        declared,
        payload: Payload::in_field(envelope.payload),
        envelope: Some(envelope.item),
    })
}
