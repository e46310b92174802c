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

/// One word about an event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assertion<'e> {
    pub(super) event: &'e Event,
    pub(super) id: [u8; 32],
    case: [u8; 32],
    pub(super) value: &'static str,
    /// When it was observed.
    pub(super) seen: i64,
    /// The person whose word it is, where it is one's.
    analyst: Option<u64>,
}

impl<'e> Assertion<'e> {
    fn drawn(draw: &mut Draw, event: &'e Event, value: &'static str, seen: i64, human: bool) -> Self {
        let (id, case) = (draw.id(), draw.id());
        Assertion { event, id, case, value, seen, analyst: human.then(|| draw.below(12)) }
    }

    /// Digest of what it says.
    pub(super) fn payload_hash(&self) -> blake3::Hash {
        blake3::hash(&self.id)
    }

    /// Appends it as a line of JSON.
    pub(super) fn line(&self, out: &mut Vec<u8>, seed: u64) {
        out.extend_from_slice(b"{");
        if let Some(analyst) = self.analyst {
            let _ = write!(out, "\"actor_id\":\"HUMAN::analyst_{analyst}\",");
        }
        out.extend_from_slice(b"\"case_timeline_event_id\":\"");
        out.extend_from_slice(&self.case);
        let _ = write!(out, "\",\"effective_time\":\"{}\",\"label_assertion_id\":\"", Instant(self.event.ts));
        out.extend_from_slice(&self.id);
        out.extend_from_slice(b"\",\"label_subject_key\":{\"event_id\":\"");
        out.extend_from_slice(&self.event.id);
        let source = if self.analyst.is_some() { "HUMAN" } else { "AUTO" };
        let _ = writeln!(
            out,
            "\",\"platform_run_id\":\"{RUN}\"}},\"label_type\":\"{TYPE}\",\"label_value\":\"{}\",\"observed_time\":\"{}\",\"payload_hash\":\"{}\",\"pins\":{{\"manifest_fingerprint\":\"{FINGERPRINT}\",\"parameter_hash\":\"{PARAMETERS}\",\"platform_run_id\":\"{RUN}\",\"scenario_id\":\"{SCENARIO}\",\"scenario_run_id\":\"{SCENARIO_RUN}\",\"seed\":{seed}}},\"source_type\":\"{source}\"}}",
            self.value,
            Instant(self.seen),
            self.payload_hash().to_hex()
        );
    }
}

/// Draws the assertions about one event: the first word, the word of a person, one that contradicts it.
pub(super) fn assertions<'e>(draw: &mut Draw, event: &'e Event) -> [Option<Assertion<'e>>; 3] {
    if draw.chance(200) {
        return [None; 3];
    }
    let fraud = draw.chance(150);
    let first = if fraud { SUSPECTED } else { LEGIT };
    let seen = event.ts + HOUR + draw.below(10 * DAY as u64) as i64;
    let mut all = [Some(Assertion::drawn(draw, event, first, seen, false)), None, None];
    if draw.chance(5_300) {
        // The word of a person, up to six weeks later: for many events that is after any cut-off.
        let again = seen + DAY + draw.below(44 * DAY as u64) as i64;
        let value = match (fraud, draw.chance(1_000)) {
            (true, false) | (false, true) => CONFIRMED,
            _ => LEGIT,
        };
        all[1] = Some(Assertion::drawn(draw, event, value, again, true));
        if draw.chance(10) {
            let other = if value == LEGIT { CONFIRMED } else { LEGIT };
            all[2] = Some(Assertion::drawn(draw, event, other, again, true));
        }
    }
    all
}
