//! What becomes known of an event, and when: nothing, a first word, a correction, a contradiction.

use std::io::Write;

use super::event::{Event, FINGERPRINT, PARAMETERS, RUN, SCENARIO, SCENARIO_RUN};
use super::stream::Draw;
use crate::time::Instant;

/// The one label type.
pub(super) const TYPE: &str = "fraud_disposition";

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

const LEGIT: &str = "LEGIT_CONFIRMED";
const SUSPECTED: &str = "FRAUD_SUSPECTED";
const CONFIRMED: &str = "FRAUD_CONFIRMED";

/// Writes the assertions about one event; how many.
pub(super) fn assertions(out: &mut Vec<u8>, draw: &mut Draw, event: &Event, seed: u64) -> u64 {
    if draw.chance(200) {
        return 0;
    }
    let fraud = draw.chance(150);
    let first = if fraud { SUSPECTED } else { LEGIT };
    let seen = event.ts + HOUR + draw.below(10 * DAY as u64) as i64;
    one(out, draw, event, first, seen, "AUTO", seed);
    let mut count = 1;
    if draw.chance(5_300) {
        // The word of a person, up to six weeks later: for many events that is after any cut-off.
        let again = seen + DAY + draw.below(44 * DAY as u64) as i64;
        let value = match (fraud, draw.chance(1_000)) {
            (true, false) | (false, true) => CONFIRMED,
            _ => LEGIT,
        };
        one(out, draw, event, value, again, "HUMAN", seed);
        count += 1;
        if draw.chance(10) {
            let other = if value == LEGIT { CONFIRMED } else { LEGIT };
            one(out, draw, event, other, again, "HUMAN", seed);
            count += 1;
        }
    }
    count
}

fn one(out: &mut Vec<u8>, draw: &mut Draw, event: &Event, value: &str, seen: i64, source: &str, seed: u64) {
    let (assertion, case) = (draw.id(), draw.id());
    let hash = blake3::hash(&assertion);
    out.extend_from_slice(b"{");
    if source == "HUMAN" {
        let _ = write!(out, "\"actor_id\":\"HUMAN::analyst_{}\",", draw.below(12));
    }
    out.extend_from_slice(b"\"case_timeline_event_id\":\"");
    out.extend_from_slice(&case);
    let _ = write!(out, "\",\"effective_time\":\"{}\",\"label_assertion_id\":\"", Instant(event.ts));
    out.extend_from_slice(&assertion);
    out.extend_from_slice(b"\",\"label_subject_key\":{\"event_id\":\"");
    out.extend_from_slice(&event.id);
    let _ = writeln!(
        out,
        "\",\"platform_run_id\":\"{RUN}\"}},\"label_type\":\"{TYPE}\",\"label_value\":\"{value}\",\"observed_time\":\"{}\",\"payload_hash\":\"{}\",\"pins\":{{\"manifest_fingerprint\":\"{FINGERPRINT}\",\"parameter_hash\":\"{PARAMETERS}\",\"platform_run_id\":\"{RUN}\",\"scenario_id\":\"{SCENARIO}\",\"scenario_run_id\":\"{SCENARIO_RUN}\",\"seed\":{seed}}},\"source_type\":\"{source}\"}}",
        Instant(seen),
        hash.to_hex()
    );
}
