//! A parity anchor: what the online plane says of a snapshot that it took, as a typed value (O043).
//!
//! Nothing that an anchor leaves out is filled in: a missing part is named, and the comparison is then
//! UNCHECKABLE. The document keeps its number tokens, because its hash covers their spelling.

use serde_json::{Map, Value, json};

use super::intent::{Lane, OffsetRange, Slice};
use super::{Offset, OffsetKind, Problem, ReasonCode};
use crate::json::{self, Kind, Tape};

/// Largest anchor in bytes; a snapshot holds every key of a scenario.
pub const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The fields that the snapshot's hash covers, besides `feature_groups` and `features`, as they stand.
const HASHED: [&str; 7] =
    ["pins", "as_of_time_utc", "feature_def_policy_rev", "eb_offset_basis", "graph_version", "run_config_digest", "freshness"];

/// How far the online plane had read one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub lane: Lane,
    /// Its checkpoint token.
    pub token: Offset,
}

/// What the anchor says it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// Checkpoints of the online plane, one a partition.
    Positions(Vec<Position>),
    /// Explicit ranges, both ends inclusive, as in an intent.
    Slices(Vec<Slice>),
}

/// The definition that the anchor says it was made under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Feature groups as (name, version), sorted.
    pub groups: Vec<(String, String)>,
    /// Policy id, revision and content digest of the definition.
    pub policy: (String, String, String),
}

/// A parity anchor.
#[derive(Debug, Clone, PartialEq)]
pub struct Anchor {
    document: Map<String, Value>,
    /// What kind of document it is.
    pub kind: &'static str,
    /// The hash that it states.
    pub snapshot_hash: Option<String>,
    /// Its basis, or what is missing of it.
    pub basis: Result<Basis, String>,
    /// Its definition, or what is missing of it.
    pub definition: Result<Definition, String>,
    /// Its content by key, where it has it.
    pub features: Option<Map<String, Value>>,
}

fn text(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).filter(|t| !t.trim().is_empty()).map(str::to_owned)
}

/// Reads an anchor, or a served answer that holds one.
///
/// # Errors
/// `PARITY_ANCHOR_INVALID` where the document is none. That something is missing from it is no error.
pub fn parse(bytes: &[u8]) -> Result<Anchor, Problem> {
    let invalid = |path: &str, message: String| Problem::new(ReasonCode::ParityAnchorInvalid, path, message);
    let mut tape = Tape::new();
    let doc = tape.parse(bytes).map_err(|e| invalid("", format!("not a JSON document: {e}")))?;
    if let Some(key) = doc.duplicate_key() {
        return Err(invalid(&key, "the key stands twice in one object".into()));
    }
    if doc.root().kind() != Kind::Object {
        return Err(invalid("", format!("expected a JSON object, found {}", doc.root().kind())));
    }
    let root = doc.root().to_value();
    let inner = root.get("snapshot").filter(|s| s.is_object() && root.get("snapshot_hash").is_none());
    let document = inner.unwrap_or(&root).as_object().cloned().unwrap_or_default();
    let has = |key: &str| document.get(key).is_some_and(|v| !v.is_null());
    let kind = match () {
        () if has("audit_id") => "audit_record",
        () if has("decision_id") => "decision_payload",
        () if has("snapshot_ref") => "snapshot_ref",
        () => "generic",
    };
    let snapshot_hash = text(document.get("snapshot_hash")).map(|hash| hash.to_ascii_lowercase());
    Ok(Anchor {
        kind,
        snapshot_hash,
        basis: basis(&document),
        definition: definition(&document),
        features: document.get("features").and_then(Value::as_object).cloned(),
        document,
    })
}

fn basis(document: &Map<String, Value>) -> Result<Basis, String> {
    if let Some(basis) = document.get("eb_offset_basis").filter(|b| !b.is_null()) {
        let stream = text(basis.get("stream"));
        let kind = text(basis.get("offset_kind")).and_then(|k| OffsetKind::parse(&k)).ok_or("eb_offset_basis.offset_kind")?;
        let entries = basis.get("offsets").and_then(Value::as_array).filter(|list| !list.is_empty()).ok_or("eb_offset_basis.offsets")?;
        let mut positions = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            let at = |key: &str| format!("eb_offset_basis.offsets[{i}].{key}");
            let topic = text(entry.get("topic")).or_else(|| stream.clone()).ok_or_else(|| at("topic"))?;
            let partition = integer(entry.get("partition")).and_then(|p| p.parse::<i32>().ok()).filter(|p| *p >= 0);
            let token = integer(entry.get("offset")).and_then(|t| Offset::parse(&t));
            positions.push(Position {
                lane: Lane { topic, partition: partition.ok_or_else(|| at("partition"))?, kind },
                token: token.ok_or_else(|| at("offset"))?,
            });
        }
        positions.sort_by(|a, b| a.lane.cmp(&b.lane));
        return Ok(Basis::Positions(positions));
    }
    let slices = document.get("replay_basis").and_then(Value::as_array).filter(|list| !list.is_empty());
    let slices = slices.ok_or("eb_offset_basis or replay_basis")?;
    let read = |(i, slice): (usize, &Value)| {
        let at = |key: &str| format!("replay_basis[{i}].{key}");
        let kind = text(slice.get("offset_kind")).and_then(|k| OffsetKind::parse(&k)).ok_or_else(|| at("offset_kind"))?;
        let partition = integer(slice.get("partition")).and_then(|p| p.parse::<i32>().ok()).filter(|p| *p >= 0);
        let offset = |key: &str| integer(slice.get(key)).and_then(|t| Offset::parse(&t)).ok_or_else(|| at(key));
        let lane = Lane {
            topic: text(slice.get("topic")).ok_or_else(|| at("topic"))?,
            partition: partition.ok_or_else(|| at("partition"))?,
            kind,
        };
        Ok(Slice { lane, range: OffsetRange { start: offset("start_offset")?, end: offset("end_offset")? } })
    };
    let slices: Result<Vec<Slice>, String> = slices.iter().enumerate().map(read).collect();
    Ok(Basis::Slices(super::intent::merge(slices?)))
}

/// A whole number as text, whether it is written as a string or as a number.
fn integer(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn definition(document: &Map<String, Value>) -> Result<Definition, String> {
    let pair = |of: &Value, name: &str, version: &str| Some((text(of.get(name))?, text(of.get(version))?));
    let groups = match (document.get("feature_groups").and_then(Value::as_array), document.get("feature_definition_set")) {
        (Some(list), _) if !list.is_empty() => list.iter().map(|g| pair(g, "name", "version")).collect::<Option<Vec<_>>>(),
        (_, Some(set)) => pair(set, "feature_set_id", "feature_set_version").map(|p| vec![p]),
        _ => None,
    };
    let mut groups = groups.ok_or("feature_groups")?;
    groups.sort();
    let rev = document.get("feature_def_policy_rev");
    let part = |key: &str| text(rev.and_then(|r| r.get(key))).ok_or_else(|| format!("feature_def_policy_rev.{key}"));
    Ok(Definition { groups, policy: (part("policy_id")?, part("revision")?, part("content_digest")?) })
}

impl Anchor {
    /// A pin of the anchor as text.
    pub fn pin(&self, name: &str) -> Option<String> {
        text(self.document.get("pins").and_then(|p| p.get(name)))
    }

    /// The snapshot hash that these features give, all else being as the anchor states it: SHA-256 of
    /// canonical ASCII JSON; what the anchor does not state is null.
    pub fn hash_with(&self, features: &Value) -> String {
        let mut payload: Map<String, Value> =
            HASHED.iter().map(|key| ((*key).to_owned(), self.document.get(*key).cloned().unwrap_or(Value::Null))).collect();
        let name = |group: &Value, key: &str| group.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
        let mut groups: Vec<(Option<String>, Option<String>)> = self
            .document
            .get("feature_groups")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|g| (name(g, "name"), name(g, "version")))
            .collect();
        groups.sort();
        let groups: Vec<Value> = groups.into_iter().map(|(name, version)| json!({"name": name, "version": version})).collect();
        payload.insert("feature_groups".into(), Value::Array(groups));
        payload.insert("features".into(), features.clone());
        crate::digest::sha256_hex(json::ascii(&Value::Object(payload)).as_bytes())
    }

    /// The hash of the anchor's own content, where it has content (pitfall 39).
    pub fn own_hash(&self) -> Option<String> {
        self.features.as_ref().map(|features| self.hash_with(&Value::Object(features.clone())))
    }

    /// Whether the digest that the basis states is that of its stream, kind and offsets; true where it
    /// states none.
    pub fn basis_digest_holds(&self) -> bool {
        let Some(basis) = self.document.get("eb_offset_basis") else { return true };
        let Some(stated) = text(basis.get("basis_digest")) else { return true };
        let part = |key: &str| basis.get(key).cloned().unwrap_or(Value::Null);
        let covered = json!({"stream": part("stream"), "offset_kind": part("offset_kind"), "offsets": part("offsets")});
        stated.eq_ignore_ascii_case(&crate::digest::sha256_hex(json::ascii(&covered).as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        json!({
            "pins": {"platform_run_id": "R", "scenario_run_id": "s"}, "as_of_time_utc": "2026-01-01T00:00:00Z", "snapshot_hash": "AB",
            "feature_groups": [{"name": "g", "version": "v1"}], "feature_def_policy_rev": {"policy_id": "p", "revision": "r1", "content_digest": "d"},
            "eb_offset_basis": {"stream": "t", "offset_kind": "file_line", "offsets": [{"partition": 0, "offset": "7"}]},
            "features": {"flow_id:é": {"event_count": 1, "amount_sum": 1.5, "last_event_ts_utc": "x"}}
        })
    }

    fn read(change: impl FnOnce(&mut Value)) -> Anchor {
        let mut value = sample();
        change(&mut value);
        parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_an_anchor_lacks_is_named_and_not_filled_in() {
        let whole = read(|_| {});
        assert!(whole.basis.is_ok() && whole.definition.is_ok() && whole.features.is_some());
        assert_eq!(whole.snapshot_hash.as_deref(), Some("ab"));
        let basis = |change: fn(&mut Value)| read(change).basis.unwrap_err();
        assert_eq!(basis(|v| drop(v.as_object_mut().unwrap().remove("eb_offset_basis"))), "eb_offset_basis or replay_basis");
        assert_eq!(basis(|v| v["eb_offset_basis"]["offset_kind"] = json!("x")), "eb_offset_basis.offset_kind");
        assert_eq!(basis(|v| v["eb_offset_basis"]["offsets"] = json!([])), "eb_offset_basis.offsets");
        assert_eq!(basis(|v| v["eb_offset_basis"]["offsets"][0]["offset"] = json!("-1")), "eb_offset_basis.offsets[0].offset");
        let definition = |change: fn(&mut Value)| read(change).definition.unwrap_err();
        // That the definition of the intent is meant is never assumed (pitfall 38).
        assert_eq!(definition(|v| drop(v.as_object_mut().unwrap().remove("feature_groups"))), "feature_groups");
        assert_eq!(definition(|v| v["feature_def_policy_rev"] = json!({"policy_id": "p"})), "feature_def_policy_rev.revision");
        assert!(parse(b"[]").is_err() && parse(b"{").is_err() && parse(b"{\"a\":1,\"a\":2}").is_err());
    }

    #[test]
    fn the_topic_of_an_entry_goes_before_the_stream() {
        let anchor = read(|v| {
            v["eb_offset_basis"]["offsets"] = json!([{"partition": 1, "offset": 9}, {"topic": "a", "partition": 0, "offset": "3"}])
        });
        let Ok(Basis::Positions(positions)) = anchor.basis else { panic!() };
        let seen: Vec<String> = positions.iter().map(|p| format!("{} {}", p.lane, p.token)).collect();
        assert_eq!(seen, ["a/0 3", "t/1 9"]);
    }

    #[test]
    fn a_hash_covers_the_content_and_its_spelling() {
        let plain = read(|_| {}).own_hash().unwrap();
        // Made once by Python's json.dumps(sort_keys=True, ensure_ascii=True, separators=(",", ":")) and hashlib.
        assert_eq!(plain, "a21a81e02951e2ae3811c46037cc11b39f279b25e5984d609cae3b4b4bd7956e");
        assert_eq!(read(|v| v["notes"] = json!("not covered")).own_hash().unwrap(), plain);
        assert_ne!(read(|v| v["freshness"] = json!({})).own_hash().unwrap(), plain);
        let respelled = parse(sample().to_string().replace("1.5", "1.50").as_bytes()).unwrap();
        assert_ne!(respelled.own_hash().unwrap(), plain);
        assert_eq!(read(|v| drop(v.as_object_mut().unwrap().remove("features"))).own_hash(), None);
    }

    #[test]
    fn a_served_answer_is_read_as_the_snapshot_in_it() {
        let served = json!({"status": "OK", "snapshot": sample()});
        assert_eq!(parse(served.to_string().as_bytes()).unwrap().snapshot_hash.as_deref(), Some("ab"));
    }
}
