//! Identity recipes: what names a run, a data set and a row (`interface` 4 "Identity").
//!
//! In the fingerprint: intent kind, training posture, platform run, scenario runs (sorted, unique),
//! merged basis, label basis, feature set id, version and group digest, label vocabulary digest, join
//! scope, filters, policy, config and code revisions, correction stamp. Not in it: request id, run
//! facts, parity anchor, profile and launcher policy, label state, serving source, clock, host.

use std::io::Write;

use serde_json::{Map, Value, json};

use crate::contract::intent::Intent;
use crate::contract::manifest::DatasetId;
use crate::digest::many::{Hash, Texts};
use crate::digest::{digest, push_hex, recipe_digest};

/// What the authority resolved to, as far as it is part of the identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionDigests {
    /// Digest of the feature group in normal form.
    pub group: String,
    /// Digest of the label vocabulary.
    pub vocabulary: String,
}

fn first32(text: &str) -> String {
    text.chars().take(32).collect()
}

/// The run key of a request: first 32 hex of BLAKE3 (O020).
pub fn run_key(request_id: &str) -> String {
    first32(&digest(&json!({"recipe": "ofs.run_key.v2", "request_id": request_id})))
}

/// The key under which a request with an invalid id is recorded.
pub fn invalid_run_key(payload: &[u8]) -> String {
    format!("invalid-{}", blake3::hash(payload).to_hex().chars().take(16).collect::<String>())
}

/// The hash of every field of the intent in normal form, with what it supersedes.
pub fn request_hash(intent: &Intent, superseded: &[String]) -> String {
    let mut payload = intent.to_json();
    if let (false, Some(map)) = (superseded.is_empty(), payload.as_object_mut()) {
        map.insert("supersedes".into(), json!(superseded));
    }
    recipe_digest("ofs.intent_payload.v2", &payload)
}

/// BLAKE3 of the sorted superseded ids; null without any.
pub fn correction_stamp(superseded: &[String]) -> Value {
    if superseded.is_empty() { Value::Null } else { Value::String(digest(&json!(superseded))) }
}

/// The fields of the identity, canonical and complete: what the fingerprint is taken of.
pub fn identity_payload(intent: &Intent, definitions: &DefinitionDigests, superseded: &[String]) -> Value {
    let mut feature_set = Map::new();
    feature_set.insert("feature_set_id".into(), json!(intent.feature_set_id));
    feature_set.insert("feature_set_version".into(), json!(intent.feature_set_version));
    feature_set.insert("group_digest".into(), json!(definitions.group));
    json!({
        "intent_kind": intent.kind.as_str(), "training": intent.training(), "platform_run_id": intent.platform_run_id,
        "scenario_run_ids": intent.scenario_run_ids, "replay_basis": intent.basis_json(), "label_basis": intent.label_basis_json(),
        "feature_definition_set": feature_set, "label_vocabulary_digest": definitions.vocabulary, "join_scope": intent.join_scope,
        "filters": intent.filters, "policy_revision": intent.policy_revision, "config_revision": intent.config_revision,
        "ofs_code_release_id": intent.code_release, "correction_stamp": correction_stamp(superseded),
    })
}

/// The name that an identity has.
pub fn dataset_id(identity: &Value) -> DatasetId {
    let fingerprint = recipe_digest("ofs.dataset_fingerprint.v2", identity);
    let manifest_id = manifest_id(&fingerprint);
    DatasetId { fingerprint, manifest_id }
}

/// The manifest id: a pure function of the fingerprint (O015).
pub fn manifest_id(fingerprint: &str) -> String {
    format!("dm_{}", first32(&digest(&json!({"recipe": "ofs.dataset_manifest_id.v2", "dataset_fingerprint": fingerprint}))))
}

/// Digest of the merged basis (O046).
pub fn basis_hash(intent: &Intent) -> String {
    recipe_digest("ofs.replay_basis.v1", &intent.basis_json())
}

/// Digest of all meaning pins including the output kind (O046).
pub fn plan_id(identity: &Value) -> String {
    format!("plan_{}", first32(&recipe_digest("ofs.build_plan.v1", identity)))
}

/// Makes row ids, many at once: the parts that never change are laid down once.
#[derive(Debug)]
pub struct RowIds {
    /// What stands between event id and offset.
    before_offset: String,
    /// What stands between payload hash and topic.
    before_topic: String,
    texts: Texts,
    ids: Vec<Hash>,
}

/// What names a row besides the data set's constants.
#[derive(Debug, Clone, Copy)]
pub struct RowPlace<'a> {
    /// Event id.
    pub event_id: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset kind.
    pub offset_kind: &'a str,
    /// Offset as decimal text.
    pub offset: &'a str,
    /// SHA-256 of the canonical envelope.
    pub payload_hash: &'a [u8; 32],
}

impl RowIds {
    /// For one run and feature group.
    pub fn new(platform_run_id: &str, group_digest: &str) -> Self {
        let mut run = Vec::new();
        push_json_string(platform_run_id, &mut run);
        RowIds {
            before_offset: format!(",\"feature_group_digest\":\"{group_digest}\",\"offset\":\""),
            before_topic: format!("\",\"platform_run_id\":{},\"recipe\":\"ofs.row_id.v1\",\"topic\":", String::from_utf8_lossy(&run)),
            texts: Texts::new(),
            ids: Vec::new(),
        }
    }

    /// Adds the next row. Its id is the first 16 bytes of BLAKE3 over canonical
    /// `{recipe:"ofs.row_id.v1", platform_run_id, event_id, topic, partition, offset_kind, offset,
    /// payload_hash, feature_group_digest}`; the offset is text, the partition a number, as in every slice.
    pub fn push(&mut self, place: RowPlace<'_>) {
        let out = self.texts.text();
        out.extend_from_slice(b"{\"event_id\":");
        push_json_string(place.event_id, out);
        out.extend_from_slice(self.before_offset.as_bytes());
        out.extend_from_slice(place.offset.as_bytes());
        out.extend_from_slice(b"\",\"offset_kind\":\"");
        out.extend_from_slice(place.offset_kind.as_bytes());
        out.extend_from_slice(b"\",\"partition\":");
        // Writing to memory does not fail.
        let _ = write!(out, "{}", place.partition);
        out.extend_from_slice(b",\"payload_hash\":\"");
        push_hex(place.payload_hash, out);
        out.extend_from_slice(self.before_topic.as_bytes());
        push_json_string(place.topic, out);
        out.push(b'}');
        self.texts.end();
        if self.texts.len() >= Texts::BATCH {
            self.texts.digest_into(&mut self.ids);
        }
    }

    /// The ids of the rows that were added since the last call, in their order.
    pub fn take(&mut self) -> impl Iterator<Item = [u8; 16]> {
        self.texts.digest_into(&mut self.ids);
        self.ids.drain(..).map(|hash| hash.first_chunk().copied().unwrap_or_default())
    }
}

fn push_json_string(text: &str, out: &mut Vec<u8>) {
    // Every byte is looked at, so that many are at once.
    let plain = text.bytes().fold(true, |plain, b| plain & (b >= 0x20) & (b != b'"') & (b != b'\\'));
    if plain {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(Value::String(text.to_owned()).to_string().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::intent;
    use crate::digest::{hex, sha256_hex};
    use crate::json::canonical;

    fn sample() -> Value {
        intent::tests::sample()
    }

    fn definitions() -> DefinitionDigests {
        DefinitionDigests { group: "g".repeat(64), vocabulary: "v".repeat(64) }
    }

    fn id_of(value: &Value) -> DatasetId {
        let intent = intent::parse(value.to_string().as_bytes()).unwrap();
        dataset_id(&identity_payload(&intent, &definitions(), &[]))
    }

    #[test]
    fn golden_vectors() {
        assert_eq!(canonical(&json!({"b": 1, "a": {"d": "é", "c": [1, 2]}})), "{\"a\":{\"c\":[1,2],\"d\":\"é\"},\"b\":1}");
        let id = id_of(&sample());
        let request = request_hash(&intent::parse(sample().to_string().as_bytes()).unwrap(), &[]);
        let mut ids = RowIds::new("platform_20260210T122800Z", &"f".repeat(64));
        ids.push(RowPlace {
            event_id: "evt_001",
            topic: "t",
            partition: 0,
            offset_kind: "kinesis_sequence",
            offset: "100",
            payload_hash: &[0xaa; 32],
        });
        let row = ids.take().map(|id| hex(&id)).collect::<String>();
        let golden = [
            (run_key("ofs.phase8.req.001"), "6be3ed997ca84bd9a164bfd46a15f578"),
            (id.fingerprint, "b4844b53f7100cc23314118a19b901a7a7fae3c6c4f979c52426801307d0306a"),
            (id.manifest_id, "dm_aae19524b73166c9d32a13186e8ef955"),
            (request, "593768f483cd8caf1c6664742a9b2667f476646a4a9b83495d03082159af1739"),
            (row, "f3731198bdf13f95093e276c349c9585"),
        ];
        for (found, wanted) in golden {
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn a_row_id_is_the_digest_of_canonical_json() {
        let mut ids = RowIds::new("R", "d");
        let place =
            RowPlace { event_id: "e\"\n", topic: "t", partition: 3, offset_kind: "kafka_offset", offset: "7", payload_hash: &[1; 32] };
        let value = json!({"recipe": "ofs.row_id.v1", "platform_run_id": "R", "event_id": "e\"\n", "topic": "t", "partition": 3, "offset_kind": "kafka_offset", "offset": "7", "payload_hash": "01".repeat(32), "feature_group_digest": "d"});
        // More rows than are digested at once, and one whose neighbours differ in length.
        let other = RowPlace { event_id: "a much longer event id than that of all the rows around it", offset: "123456789", ..place };
        (0..600).for_each(|row| ids.push(if row == 300 { other } else { place }));
        let found: Vec<String> = ids.take().map(|id| hex(&id)).collect();
        let wanted: String = digest(&value).chars().take(32).collect();
        assert!(found.len() == 600 && found.iter().enumerate().all(|(row, id)| (*id == wanted) == (row != 300)));
    }

    #[test]
    fn the_online_payload_hash_recipe_is_the_archive_writers() {
        let mut tape = crate::json::Tape::new();
        let mut scratch = Vec::new();
        let doc = tape.parse("{\"event_id\":\"e\",\"payload\":{\"amount\":10.0,\"name\":\"é\"}}".as_bytes()).unwrap();
        assert_eq!(sha256_hex(doc.root().canonical(&mut scratch)), "579e69fedb01e4879ec34ccea5a6cc97db6cb3541a4271f4bf6355b6ba9a0321");
    }

    #[test]
    fn an_identity_gives_back_the_intent_that_it_was_taken_of() {
        let mut sample = sample();
        sample["filters"]["label_coverage_policy"] = json!({"max_conflict_ratio": crate::json::number("0.10")});
        let intent = intent::parse(sample.to_string().as_bytes()).unwrap();
        let definitions = DefinitionDigests { group: "g".into(), vocabulary: "v".into() };
        let identity = identity_payload(&intent, &definitions, &[]);
        let again = intent::of_identity(&identity).unwrap();
        assert_eq!(identity_payload(&again, &definitions, &[]), identity);
        assert_eq!((&again.label_types, &again.row_filters, &again.coverage), (&intent.label_types, &intent.row_filters, &intent.coverage));
        assert_eq!(intent::of_identity(&json!({})), None);
    }

    #[test]
    fn spelling_never_reaches_the_identity() {
        let plain = id_of(&sample());
        let mut other = sample();
        other["label_basis"]["label_asof_utc"] = json!("2026-02-10T12:00:00.000+02:00");
        other["scenario_run_ids"] = json!(["a", "a", "b"]);
        other["request_id"] = json!("another.request");
        other["run_facts_ref"] = json!("elsewhere.json");
        let slice = |start: &str, end: &str| json!({"topic": "t", "partition": 0, "offset_kind": "kafka_offset", "start_offset": start, "end_offset": end});
        other["replay_basis"] = json!([slice("05", "9"), slice("0", "007")]);
        assert_eq!(id_of(&other), plain);
    }

    #[test]
    fn every_meaning_field_changes_the_identity() {
        let plain = id_of(&sample());
        let changes: [(&str, Value); 14] = [
            ("/intent_kind", json!("parity_rebuild")),
            ("/platform_run_id", json!("other_run")),
            ("/scenario_run_ids", json!(["a"])),
            ("/replay_basis/0/end_offset", json!("8")),
            ("/replay_basis/0/topic", json!("u")),
            ("/label_basis/label_asof_utc", json!("2026-02-10T10:00:00.000001Z")),
            ("/label_basis/maturity_days", json!(8)),
            ("/feature_definition_set/feature_set_id", json!("x")),
            ("/feature_definition_set/feature_set_version", json!("v2")),
            ("/join_scope/required_output_ids", json!(["a"])),
            ("/filters/country", json!(["FR"])),
            ("/policy_revision", json!("p1")),
            ("/config_revision", json!("c1")),
            ("/ofs_code_release_id", json!("git:2")),
        ];
        let mut seen = std::collections::BTreeSet::from([plain.manifest_id]);
        for (pointer, new) in changes {
            let mut value = sample();
            *value.pointer_mut(pointer).unwrap() = new;
            assert!(seen.insert(id_of(&value).manifest_id), "{pointer}");
        }
        let mut value = sample();
        value["non_training_allowed"] = json!(true);
        assert!(seen.insert(id_of(&value).manifest_id));
        let intent = intent::parse(sample().to_string().as_bytes()).unwrap();
        let with = |definitions: &DefinitionDigests, superseded: &[String]| {
            dataset_id(&identity_payload(&intent, definitions, superseded)).manifest_id
        };
        assert!(seen.insert(with(&DefinitionDigests { group: "h".into(), ..definitions() }, &[])));
        assert!(seen.insert(with(&DefinitionDigests { vocabulary: "h".into(), ..definitions() }, &[])));
        assert!(seen.insert(with(&definitions(), &["dm_1".into()])));
    }
}
