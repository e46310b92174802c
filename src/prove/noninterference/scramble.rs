//! Other values for what a build reads of an event, each lawful under the definition: a world with them must pass the
//! same gates, or its refusal would hide what is looked for.

use serde_json::{Map, Value, json};

use super::draw::Draw;
use crate::contract::intent::Intent;
use crate::contract::profile::{FieldType, Group};
use crate::json::{Tape, number};
use crate::time::Instant;

/// What of a payload may be changed.
#[derive(Debug)]
pub(super) struct Fields {
    /// Key fields, in order of precedence.
    keys: Vec<String>,
    /// Fields that features read, with their types, and those that conditions look at.
    read: Vec<(String, Option<FieldType>)>,
}

impl Fields {
    /// Everything that features read, but nothing that selects rows: a filter decides which rows there are.
    pub(super) fn of(intent: &Intent, group: &Group) -> Self {
        let mut read: Vec<(String, Option<FieldType>)> = Vec::new();
        let inputs = group.features.iter().flat_map(|f| f.input.iter().map(|(name, kind)| (name.clone(), Some(*kind))));
        let conditions = group.features.iter().flat_map(|f| f.conditions.keys().map(|name| (name.clone(), None)));
        for (name, kind) in inputs.chain(conditions) {
            let taken = group.key_precedence.contains(&name) || intent.row_filters.iter().any(|f| f.field == name);
            if !taken && !read.iter().any(|(known, _)| *known == name) {
                read.push((name, kind));
            }
        }
        let keys = group.key_precedence.iter().filter(|k| !intent.row_filters.iter().any(|f| f.field == **k)).cloned().collect();
        Fields { keys, read }
    }

    /// Gives an envelope other values, and one of the keys where there are some.
    pub(super) fn scramble(&self, envelope: &mut Value, keys: &[String], draw: &mut Draw) {
        let Some(payload) = envelope.get_mut("payload").and_then(Value::as_object_mut) else { return };
        for (name, kind) in &self.read {
            if let Some(value) = payload.get_mut(name).filter(|v| !v.is_null()) {
                other(value, *kind, draw);
            }
        }
        self.rekey(payload, keys, draw);
    }

    fn rekey(&self, payload: &mut Map<String, Value>, keys: &[String], draw: &mut Draw) {
        let Some(key) = draw.pick(keys) else { return };
        if let Some(slot) = self.keys.iter().find(|k| payload.get(*k).is_some_and(Value::is_string)).and_then(|k| payload.get_mut(k)) {
            *slot = json!(key);
        }
    }
}

/// Another value of the same type.
fn other(value: &mut Value, kind: Option<FieldType>, draw: &mut Draw) {
    let text = match kind {
        Some(FieldType::Int64) => format!("{}", draw.below(2_000) as i64 - 1_000),
        Some(FieldType::Float64) => format!("{}.{}", draw.below(1_000), 1 + draw.below(9)),
        Some(FieldType::Decimal(precision, scale)) => decimal(precision, scale, draw),
        Some(FieldType::Utf8) => {
            *value = json!(format!("x{}", draw.below(1_000_000)));
            return;
        }
        // Of a condition's field no type is known but that of what stands there.
        Some(FieldType::Bool) | None => {
            if value.is_boolean() {
                *value = json!(draw.below(2) == 1);
            }
            return;
        }
    };
    *value = if value.is_string() { json!(text) } else { number(&text) };
}

fn decimal(precision: u8, scale: u8, draw: &mut Draw) -> String {
    let whole = if precision > scale { draw.below(10) } else { 0 };
    let fraction: String = (0..scale.min(6)).map(|_| char::from(b'0' + draw.below(10) as u8)).collect();
    if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
}

/// Moves the event of an envelope to another instant.
pub(super) fn put_at(envelope: &mut Value, at: Instant) {
    if let Some(map) = envelope.as_object_mut() {
        map.insert("ts_utc".into(), json!(at));
    }
}

/// Seven more, away from zero: the changed token and what was added. Nothing where the token is no plain number.
pub(super) fn raised(value: &Value) -> Option<(Value, i64)> {
    const MORE: i64 = 7;
    let quoted = value.as_str().map(str::to_owned);
    let token = quoted.clone().or_else(|| value.is_number().then(|| value.to_string()))?;
    let (sign, digits) = token.strip_prefix('-').map_or(("", token.as_str()), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
    let plain = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || fraction.is_some_and(|f| !plain(f)) || whole.len() > 15 {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let text = format!("{sign}{}{}", whole + MORE, fraction.map(|f| format!(".{f}")).unwrap_or_default());
    let by = if sign.is_empty() { MORE } else { -MORE };
    Some((if quoted.is_some() { json!(text) } else { number(&text) }, by))
}

/// Makes everything that a record says about its envelope true of the envelope as it now is.
pub(super) fn restate(record: &mut Value, envelope_key: &str) -> Option<()> {
    let envelope = record.get(envelope_key)?.clone();
    let (mut tape, mut scratch) = (Tape::new(), Vec::new());
    let text = crate::json::canonical(&envelope);
    let hash = crate::digest::sha256_hex(tape.parse(text.as_bytes()).ok()?.root().canonical(&mut scratch));
    let map = record.as_object_mut()?;
    for key in ["event_id", "ts_utc"] {
        if let (true, Some(value)) = (map.get(key).is_some_and(|v| !v.is_null()), envelope.get(key)) {
            map.insert(key.into(), value.clone());
        }
    }
    if map.get("payload_hash").is_some_and(|v| !v.is_null()) {
        map.insert("payload_hash".into(), json!(hash));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_raised_in_its_own_spelling() {
        for (token, wanted, by) in [("3", "10", 7), ("0", "7", 7), ("-2", "-9", -7), ("10.250", "17.250", 7), ("-0.5", "-7.5", -7)] {
            let (value, more) = raised(&number(token)).unwrap();
            assert_eq!((value.to_string().as_str(), more), (wanted, by), "{token}");
            let (value, more) = raised(&json!(token)).unwrap();
            assert_eq!((value.as_str(), more), (Some(wanted), by), "{token}");
        }
        for value in [json!("x"), json!(true), number("1e3"), json!(""), json!(null), number("9999999999999999999")] {
            assert_eq!(raised(&value), None, "{value}");
        }
    }

    #[test]
    fn values_stay_of_their_type() {
        let mut draw = Draw::new(3, &["t"]);
        for _ in 0..50 {
            for (kind, pattern) in [(FieldType::Decimal(4, 2), 4), (FieldType::Decimal(2, 2), 4), (FieldType::Decimal(3, 0), 1)] {
                let mut value = json!("1");
                other(&mut value, Some(kind), &mut draw);
                assert_eq!(value.as_str().unwrap().len(), pattern, "{kind} {value}");
            }
            let mut value = number("5");
            other(&mut value, Some(FieldType::Int64), &mut draw);
            assert!(value.as_i64().is_some_and(|n| n.abs() <= 1_000), "{value}");
        }
    }
}
