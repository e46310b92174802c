//! One event, and its text: the canonical envelope that the payload hash covers, the archive record and the
//! bus line that carry it.

use std::io::Write;

use sha2::{Digest, Sha256};

use super::GenerateError;
use super::stream::Draw;
use crate::contract::{Offset, OffsetKind};
use crate::source::sealed::Row;
use crate::time::Instant;

/// The platform run that the world belongs to.
pub(super) const RUN: &str = "platform_20260101T000000Z";
/// The one topic.
pub(super) const TOPIC: &str = "fp.bus.traffic.fraud.v1";
/// How its offsets count.
pub(super) const KIND: OffsetKind = OffsetKind::KafkaOffset;
/// Name of the scenario.
pub(super) const SCENARIO: &str = "generated";
/// The scenario run.
pub(super) const SCENARIO_RUN: &str = "6f66735f67656e6572617465645f7631";
/// What the world's upstream pins are called.
pub(super) const FINGERPRINT: &str = "6f66732067656e657261746564206d616e69666573742066696e6765727072696e";
/// Digest of the upstream parameters.
pub(super) const PARAMETERS: &str = "6f66732067656e65726174656420706172616d65746572732068617368207631ff";

const CHANNELS: &[&str] = &["app", "atm", "card_present", "ecommerce", "wire"];
const COUNTRIES: &[&str] = &["AT", "BR", "CH", "DE", "FR", "GB", "GH", "IN", "NG", "US", "US", "US"];

/// The text of one event, with what else speaks of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Event {
    /// Its id.
    pub(super) id: [u8; 32],
    /// Its key.
    pub(super) key: Vec<u8>,
    /// When it happened.
    pub(super) ts: i64,
    /// The canonical envelope.
    pub(super) envelope: Vec<u8>,
    /// SHA-256 of the envelope.
    pub(super) hash: [u8; 32],
}

impl Event {
    /// Draws an event of this key at this time into `self`, reusing its buffers.
    pub(super) fn draw(&mut self, draw: &mut Draw, rank: u64, ts: i64, seed: u64) {
        self.id = draw.id();
        self.ts = ts;
        self.key.clear();
        let _ = write!(self.key, "acct-{rank:08}");
        let envelope = &mut self.envelope;
        envelope.clear();
        envelope.extend_from_slice(b"{\"event_id\":\"");
        envelope.extend_from_slice(&self.id);
        let _ = write!(
            envelope,
            "\",\"event_type\":\"transaction\",\"manifest_fingerprint\":\"{FINGERPRINT}\",\"parameter_hash\":\"{PARAMETERS}\",\"payload\":{{\"amount\":"
        );
        // Skewed over four orders of magnitude, in cents; now and then unknown.
        if draw.chance(50) {
            envelope.extend_from_slice(b"null");
        } else {
            let size = 1 << (4 + draw.below(14));
            let _ = write!(envelope, "{}", size + draw.below(size));
        }
        let (channel, country, device) = (draw.one(CHANNELS), draw.one(COUNTRIES), draw.below(3));
        let _ = write!(
            envelope,
            ",\"channel\":\"{channel}\",\"country\":\"{country}\",\"declined\":{},\"device_id\":\"dev-{rank}-{device}\",\"flow_id\":\"",
            draw.chance(300)
        );
        envelope.extend_from_slice(&self.key);
        let _ = write!(
            envelope,
            "\"}},\"platform_run_id\":\"{RUN}\",\"scenario_id\":\"{SCENARIO}\",\"scenario_run_id\":\"{SCENARIO_RUN}\",\"schema_version\":\"v1\",\"seed\":{seed},\"ts_utc\":\"{}\"}}",
            Instant(ts)
        );
        self.hash = Sha256::digest(&*envelope).into();
    }

    /// The archive's line for it, delivered at this place, with its hash in hex.
    pub(super) fn archived(&self, out: &mut Vec<u8>, hash: &[u8], partition: u32, offset: u64, arrived: i64, seed: u64) {
        let _ = write!(out, "{{\"archived_at_utc\":\"{}\",\"envelope\":", Instant(arrived));
        out.extend_from_slice(&self.envelope);
        out.extend_from_slice(b",\"event_id\":\"");
        out.extend_from_slice(&self.id);
        let _ = write!(
            out,
            "\",\"event_type\":\"transaction\",\"manifest_fingerprint\":\"{FINGERPRINT}\",\"origin_offset\":{{\"offset\":\"{offset}\",\"offset_kind\":\"{KIND}\",\"partition\":{partition},\"topic\":\"{TOPIC}\"}},\"parameter_hash\":\"{PARAMETERS}\",\"payload_hash\":\""
        );
        out.extend_from_slice(hash);
        let _ = writeln!(
            out,
            "\",\"platform_run_id\":\"{RUN}\",\"scenario_id\":\"{SCENARIO}\",\"scenario_run_id\":\"{SCENARIO_RUN}\",\"seed\":\"{seed}\",\"ts_utc\":\"{}\"}}",
            Instant(self.ts)
        );
    }

    /// The same record on its way into a segment.
    ///
    /// # Errors
    /// `Unusable` for text that is no UTF-8, which none is.
    pub(super) fn row<'e>(&'e self, hash: &'e [u8], offset: u64) -> Result<Row<'e>, GenerateError> {
        let text = |bytes: &'e [u8]| std::str::from_utf8(bytes).map_err(|e| GenerateError::Unusable(format!("offset {offset}: {e}")));
        Ok(Row {
            offset: Offset::from(offset),
            event_id: text(&self.id)?,
            ts: self.ts,
            hash: &self.hash,
            declared: Some(text(hash)?),
            scenario: Some(SCENARIO_RUN),
            envelope: text(&self.envelope)?,
        })
    }

    /// The bus's line for it.
    pub(super) fn published(&self, out: &mut Vec<u8>, arrived: i64) {
        out.extend_from_slice(b"{\"partition_key\":\"");
        out.extend_from_slice(&self.key);
        out.extend_from_slice(b"\",\"payload\":");
        out.extend_from_slice(&self.envelope);
        let _ = writeln!(out, ",\"published_at_utc\":\"{}\"}}", Instant(arrived));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_is_canonical_so_that_its_hash_is_the_recipe() {
        let mut draw = Draw::new(1, "t");
        let mut event = Event::default();
        for rank in 0..200 {
            event.draw(&mut draw, rank, 1_767_225_600_000_000 + rank as i64, 42);
            let value: serde_json::Value = serde_json::from_slice(&event.envelope).unwrap();
            assert_eq!(crate::json::canonical(&value).into_bytes(), event.envelope);
            let mut line = Vec::new();
            event.archived(&mut line, crate::digest::hex(&event.hash).as_bytes(), 3, 17, 5, 42);
            let record: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(record["envelope"], value);
            assert_eq!(record["origin_offset"]["offset"], "17");
            line.clear();
            event.published(&mut line, 5);
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&line).unwrap()["payload"], value);
        }
    }
}
