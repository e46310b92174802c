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
        let offset = match origin(doc, scope, named) {
            Ok(offset) => offset,
            Err((offset, bad)) => return fault(offset.or(named), bad),
        };
        if !scope.wants(offset) {
            return None;
        }
        match archived(doc, offset, scope, &mut self.scratch) {
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

/// A field that is there and not null.
fn stated<'a>(item: Item<'a>, key: &str) -> Option<Item<'a>> {
    item.get(key).filter(|field| !field.is_null())
}

fn text<'a>(item: Item<'a>, key: &str) -> Option<Cow<'a, str>> {
    item.get(key).and_then(Item::str)
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
fn origin(doc: Doc<'_>, scope: ReadScope<'_>, named: Option<Offset>) -> Result<Offset, (Option<Offset>, Bad)> {
    let lost = |message: String| (None, Bad(ReasonCode::ReplayEventInvalid, message));
    let origin = doc.root().get("origin_offset").ok_or_else(|| lost("origin_offset is missing".into()))?;
    let offset = origin.get("offset").and_then(offset_of).ok_or_else(|| lost("origin_offset.offset is not decimal digits".into()))?;
    let here = (scope.lane.topic.as_str(), i64::from(scope.lane.partition), Some(scope.lane.kind));
    let topic = text(origin, "topic").unwrap_or_default();
    let partition = origin.get("partition").and_then(Item::number).and_then(|t| t.parse::<i64>().ok()).unwrap_or(-1);
    let kind = text(origin, "offset_kind").and_then(|k| OffsetKind::parse(&k));
    if (topic.as_ref(), partition, kind) != here {
        let says = format!("the record says it comes from {topic}/{partition}, but lies in {}", scope.lane);
        return Err((Some(offset), Bad(ReasonCode::ReplayEventInvalid, says)));
    }
    if named.is_some_and(|n| n != offset) {
        return Err((named, Bad(ReasonCode::ReplayEventInvalid, format!("the record says offset {offset}, its file name another"))));
    }
    Ok(offset)
}

fn archived<'a>(doc: Doc<'a>, offset: Offset, scope: ReadScope<'_>, scratch: &mut Vec<u8>) -> Result<EventRecord<'a>, Bad> {
    let root = doc.root();
    let Some(envelope) = root.get("envelope").filter(|e| e.kind() == Kind::Object) else {
        return invalid("envelope is missing or not an object");
    };
    // An envelope need not name its run; the record does so in its place, but never against it.
    let run = stated(envelope, "platform_run_id").or_else(|| stated(root, "platform_run_id")).and_then(Item::str);
    match run.as_deref() {
        Some(run) if run == scope.platform_run_id => {}
        Some(run) => return bad(ReasonCode::RunScopeInvalid, format!("a record of {run} in the archive of {}", scope.platform_run_id)),
        None => return invalid("platform_run_id is missing"),
    }
    let Some(declared) = text(root, "payload_hash") else { return invalid("payload_hash is missing") };
    let payload_hash = verified(envelope, Some(&declared), scope.verify, scratch)?;
    let event = event_of(envelope, offset, payload_hash, Some(declared))?;
    // The copies beside the envelope are not covered by its hash, so they must say the same.
    for key in ["event_id", "platform_run_id", "scenario_run_id", "event_type"] {
        if let (Some(copy), Some(original)) = (stated(root, key), text(envelope, key))
            && copy.str() != Some(original)
        {
            return invalid(format!("{key} of the record differs from its envelope's"));
        }
    }
    if let Some(copy) = stated(root, "ts_utc")
        && copy.str().and_then(|t| Instant::parse(&t).ok()) != Some(event.ts)
    {
        return invalid("ts_utc of the record differs from its envelope's");
    }
    Ok(event)
}

fn published<'a>(doc: Doc<'a>, offset: Offset, scope: ReadScope<'_>, scratch: &mut Vec<u8>) -> Result<Option<EventRecord<'a>>, Bad> {
    no_duplicates(doc)?;
    let root = doc.root();
    let Some(envelope) = root.get("payload").filter(|e| e.kind() == Kind::Object) else {
        return invalid("payload is missing or not an object");
    };
    match text(envelope, "platform_run_id").as_deref() {
        Some(run) if run == scope.platform_run_id => {}
        Some(_) => return Ok(None),
        None => return invalid("platform_run_id is missing"),
    }
    let declared = match stated(root, "payload_hash") {
        None => None,
        Some(item) => match item.str() {
            Some(declared) => Some(declared),
            None => return bad(ReasonCode::PayloadHashMismatch, "the declared hash is not text"),
        },
    };
    let payload_hash = verified(envelope, declared.as_deref(), scope.verify, scratch)?;
    event_of(envelope, offset, payload_hash, declared).map(Some)
}

/// The bare SHA-256 of the canonical envelope; what was declared is recomputed under its own recipe.
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
    if let (false, "sha256", Some(expected)) = (verify, recipe, expected) {
        return Ok(expected);
    }
    let canonical = envelope.canonical(scratch);
    let sha: [u8; 32] = Sha256::digest(canonical).into();
    let computed = if recipe == "blake3" { *blake3::hash(canonical).as_bytes() } else { sha };
    match expected {
        Some(expected) if verify && expected != computed => bad(
            ReasonCode::PayloadHashMismatch,
            format!("declared {}, but the envelope has {}", crate::digest::hex(&expected), crate::digest::hex(&computed)),
        ),
        _ => Ok(sha),
    }
}

fn event_of<'a>(
    envelope: Item<'a>,
    offset: Offset,
    payload_hash: [u8; 32],
    declared: Option<Cow<'a, str>>,
) -> Result<EventRecord<'a>, Bad> {
    let event_id = match text(envelope, "event_id") {
        Some(id) if !id.is_empty() && id.len() <= MAX_EVENT_ID => id,
        Some(_) => return invalid(format!("event_id is empty or longer than {MAX_EVENT_ID} bytes")),
        None => return invalid("event_id is missing"),
    };
    let Some(stamp) = text(envelope, "ts_utc") else { return invalid("ts_utc is missing") };
    let ts = match Instant::parse(&stamp) {
        Ok(ts) => ts,
        Err(e) => return invalid(format!("ts_utc: {e}")),
    };
    Ok(EventRecord {
        offset,
        event_id,
        ts,
        payload_hash,
        scenario_run_id: text(envelope, "scenario_run_id"),
        declared,
        payload: Payload::of(envelope),
        envelope: Some(envelope),
    })
}
