//! The online plane's rules for one event: whether it counts, for which key, and with which amount.
//!
//! The online plane is a Python program, so texts and numbers are read and written as Python does.

use sha2::{Digest, Sha256};

use crate::json::{Item, Kind};
use crate::source::EventRecord;

/// Pins that an event must carry.
const PINS: [&str; 6] = ["platform_run_id", "scenario_run_id", "manifest_fingerprint", "parameter_hash", "scenario_id", "seed"];
/// Events that the decisions themselves make, which never feed a feature.
const IGNORED: [&str; 3] = ["decision_response", "action_intent", "action_outcome"];
/// Payload fields that may hold the amount.
const AMOUNTS: [&str; 1] = ["amount"];
/// The key where no field of the precedence holds one.
pub(super) const OWN_ID: &str = "event_id";
/// Classes of the topics that have one; any other topic is a class of its own.
const CLASSES: [(&str, &str); 6] = [
    ("fp.bus.traffic.fraud.v1", "traffic_fraud"),
    ("fp.bus.traffic.baseline.v1", "traffic_baseline"),
    ("fp.bus.context.arrival_events.v1", "context_arrival"),
    ("fp.bus.context.arrival_entities.v1", "context_arrival_entities"),
    ("fp.bus.context.flow_anchor.fraud.v1", "context_flow_fraud"),
    ("fp.bus.context.flow_anchor.baseline.v1", "context_flow_baseline"),
];

/// What becomes of an event before anything is compared with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts, unless it was seen before.
    Counts = 0,
    /// Its type is one that is ignored.
    IgnoredType = 1,
    /// It lacks a pin.
    InvalidPins = 2,
    /// It has no event type.
    InvalidEnvelope = 3,
    /// Its key or amount is something whose text or value the online plane's own would not be.
    Unreadable = 4,
}

/// An event as the online plane takes it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Taken {
    pub(super) verdict: Verdict,
    pub(super) class: String,
    pub(super) key_type: String,
    pub(super) key_id: String,
    pub(super) amount: f64,
    pub(super) ts: String,
    pub(super) hash: [u8; 32],
}

fn present<'t>(object: Item<'t>, key: &str) -> Option<Item<'t>> {
    object.get(key).filter(|v| !v.is_null() && v.str().is_none_or(|s| !s.is_empty()))
}

/// Takes one event of a topic; `envelope` is its own.
pub(super) fn take(event: &EventRecord<'_>, envelope: Item<'_>, topic: &str, precedence: &[String], scratch: &mut Vec<u8>) -> Taken {
    let text = |key: &str| envelope.get(key).and_then(Item::str).map(|s| s.trim().to_owned()).unwrap_or_default();
    let (event_type, class) = (text("event_type"), text("event_class"));
    let of_topic = || CLASSES.iter().find(|(name, _)| *name == topic).map_or(topic, |(_, class)| class).to_owned();
    let (key, amount) = (key(event, precedence), amount(event.payload.item()));
    let verdict = match () {
        () if event_type.is_empty() => Verdict::InvalidEnvelope,
        () if PINS.iter().any(|pin| present(envelope, pin).is_none()) => Verdict::InvalidPins,
        () if IGNORED.contains(&event_type.as_str()) => Verdict::IgnoredType,
        () if key.is_none() || amount.is_none() => Verdict::Unreadable,
        () => Verdict::Counts,
    };
    let (key_type, key_id) = key.unwrap_or_default();
    Taken {
        verdict,
        class: if class.is_empty() { of_topic() } else { class },
        key_type,
        key_id,
        amount: amount.unwrap_or_default(),
        ts: envelope.get("ts_utc").and_then(Item::str).unwrap_or_default().into_owned(),
        hash: content_hash(envelope, scratch),
    }
}

/// The first field of the precedence that holds something, as text, else the event's own id; nothing
/// where it holds a list or an object.
fn key(event: &EventRecord<'_>, precedence: &[String]) -> Option<(String, String)> {
    let held = event.payload.item().and_then(|payload| precedence.iter().find_map(|name| present(payload, name).map(|item| (name, item))));
    match held {
        Some((name, item)) => as_text(item).map(|id| (name.clone(), id)),
        None => Some((OWN_ID.to_owned(), event.event_id.to_string())),
    }
}

fn as_text(item: Item<'_>) -> Option<String> {
    match item.kind() {
        Kind::String => item.str().map(|s| s.into_owned()),
        Kind::Bool => item.bool().map(|b| if b { "True".into() } else { "False".into() }),
        Kind::Number => item.number().and_then(|token| {
            if token.contains(['.', 'e', 'E']) {
                token.parse().ok().filter(|x: &f64| x.is_finite()).map(python_float)
            } else {
                Some(if token == "-0" { "0".into() } else { token.to_owned() })
            }
        }),
        _ => None,
    }
}

/// The first amount that is a number or the text of one, else zero; nothing where it is not finite.
fn amount(payload: Option<Item<'_>>) -> Option<f64> {
    let Some(payload) = payload else { return Some(0.0) };
    for item in AMOUNTS.iter().filter_map(|field| present(payload, field)) {
        let value = match item.kind() {
            Kind::Bool => item.bool().map(f64::from),
            Kind::Number => item.number().and_then(|token| token.parse().ok()),
            Kind::String => item.str().and_then(|text| read_float(&text)),
            _ => None,
        };
        if let Some(value) = value {
            return value.is_finite().then_some(value);
        }
    }
    Some(0.0)
}

/// Reads a float as Python's `float` reads text.
fn read_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    let lawful = text.match_indices('_').all(|(at, _)| {
        let (before, after) = text.split_at(at);
        digit(before.chars().next_back()) && digit(after.chars().nth(1))
    });
    if lawful { text.replace('_', "").parse().ok() } else { None }
}

/// SHA-256 over canonical `{event_type, payload, schema_version}`: by it the online plane tells a
/// redelivery from a contradiction. It is not the archive's hash, which covers the whole envelope.
fn content_hash(envelope: Item<'_>, scratch: &mut Vec<u8>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for (i, key) in ["event_type", "payload", "schema_version"].iter().enumerate() {
        hasher.update(if i == 0 { "{" } else { "," });
        hasher.update(format!("\"{key}\":"));
        match envelope.get(key) {
            Some(item) => hasher.update(item.canonical(scratch)),
            None => hasher.update("null"),
        }
    }
    hasher.update("}");
    hasher.finalize().into()
}

/// A finite double as Python writes it: the shortest digits that read back as the same value.
pub(super) fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
    let plain = value.to_string();
    if plain.contains('.') { plain } else { format!("{plain}.0") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Tape;
    use crate::source::Payload;
    use crate::time::Instant;

    fn taken(envelope: &str, topic: &str) -> Taken {
        let mut tape = Tape::new();
        let doc = tape.parse(envelope.as_bytes()).unwrap();
        let envelope = doc.root();
        let event = EventRecord {
            offset: 0.into(),
            event_id: "e1".into(),
            ts: Instant(0),
            payload_hash: [0; 32],
            scenario_run_id: None,
            declared: None,
            payload: Payload::of(envelope),
            envelope: Some(envelope),
        };
        take(&event, envelope, topic, &["flow_id".into(), OWN_ID.into()], &mut Vec::new())
    }

    const PINNED: &str = r#""event_type":"x","platform_run_id":"R","scenario_run_id":"s","manifest_fingerprint":"m","parameter_hash":"p","scenario_id":"i","seed":0,"ts_utc":"T""#;

    fn of_payload(payload: &str) -> Taken {
        taken(&format!("{{{PINNED},\"payload\":{payload}}}"), "t")
    }

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (10.0, "10.0"),
            (-1.5, "-1.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e22, "1.25e+22"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (0.1 + 0.2, "0.30000000000000004"),
            (5e-324, "5e-324"),
            (123456789.125, "123456789.125"),
        ] {
            assert_eq!(python_float(value), text);
        }
    }

    #[test]
    fn keys_follow_the_precedence_and_end_with_the_events_own_id() {
        for (payload, key) in [
            (r#"{"flow_id":"a","event_id":"b"}"#, Some(("flow_id", "a"))),
            (r#"{"flow_id":"","event_id":"b"}"#, Some(("event_id", "b"))),
            (r#"{"flow_id":null}"#, Some(("event_id", "e1"))),
            ("7", Some(("event_id", "e1"))),
            (r#"{"flow_id":7}"#, Some(("flow_id", "7"))),
            (r#"{"flow_id":1e1}"#, Some(("flow_id", "10.0"))),
            (r#"{"flow_id":false}"#, Some(("flow_id", "False"))),
            (r#"{"flow_id":["a"]}"#, None),
        ] {
            let taken = of_payload(payload);
            match key {
                Some(key) => assert_eq!((taken.verdict, taken.key_type.as_str(), taken.key_id.as_str()), (Verdict::Counts, key.0, key.1)),
                None => assert_eq!(taken.verdict, Verdict::Unreadable),
            }
        }
    }

    #[test]
    fn an_amount_is_a_number_or_its_text_else_zero() {
        for (payload, amount) in [
            (r#"{"amount":10}"#, Some(10.0)),
            (r#"{"amount":"1_0.5 "}"#, Some(10.5)),
            (r#"{"amount":"1__0"}"#, Some(0.0)),
            (r#"{"amount":"ten"}"#, Some(0.0)),
            (r#"{"amount":true}"#, Some(1.0)),
            (r#"{"amount":null}"#, Some(0.0)),
            (r#"{"amount":[1]}"#, Some(0.0)),
            ("{}", Some(0.0)),
            (r#"{"amount":"nan"}"#, None),
            (r#"{"amount":1e999}"#, None),
        ] {
            let taken = of_payload(payload);
            assert_eq!((taken.verdict == Verdict::Counts).then_some(taken.amount), amount, "{payload}");
        }
    }

    #[test]
    fn what_does_not_count_says_why() {
        let with = |from: &str, to: &str| taken(&format!("{{{}}}", PINNED.replace(from, to)), "t").verdict;
        assert_eq!(with("\"x\"", "\"action_intent\""), Verdict::IgnoredType);
        assert_eq!(with("\"x\"", "\"\""), Verdict::InvalidEnvelope);
        assert_eq!(with("\"seed\":0", "\"seed\":null"), Verdict::InvalidPins);
        assert_eq!(with("\"scenario_id\":\"i\"", "\"scenario_id\":\"\""), Verdict::InvalidPins);
    }

    #[test]
    fn classes_come_from_the_envelope_else_the_topic() {
        let class = |extra: &str, topic: &str| taken(&format!("{{{PINNED}{extra}}}"), topic).class;
        assert_eq!(class(r#","event_class":"c""#, "t"), "c");
        assert_eq!(class("", "fp.bus.traffic.fraud.v1"), "traffic_fraud");
        assert_eq!(class("", "t"), "t");
    }

    #[test]
    fn the_content_hash_knows_type_version_and_payload_only() {
        let hash = |extra: &str| taken(&format!("{{{PINNED},\"payload\":{{\"amount\":1}}{extra}}}"), "t").hash;
        assert_eq!(hash(r#","trace_id":"a""#), hash(""));
        assert_ne!(hash(r#","schema_version":"v2""#), hash(""));
        let text = br#"{"event_type":"x","payload":{"amount":1},"schema_version":null}"#;
        assert_eq!(hash(""), <[u8; 32]>::from(Sha256::digest(text)));
    }
}
