//! The answer of `explain` as a view model: what the command line prints, what `--json` holds, and what the
//! console draws.

use serde_json::{Value, json};

use crate::contract::profile::Agg;
use crate::digest;
use crate::ledger::Status;
use crate::pipeline::label::story::{Considered, Decided};
use crate::pipeline::lineage::{Past, Place, Served, Unusable};
use crate::prove::dataset::Opened;
use crate::source::Source;
use crate::store::Ref;
use crate::time::Instant;

/// What the event is to the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is a row.
    Row,
    /// It is delivered, but gives no row, for this reason.
    Dropped(String),
    /// No record of the basis has this event id.
    NotInBasis,
}

impl Outcome {
    /// The stable name, like `ROW`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Outcome::Row => "ROW",
            Outcome::Dropped(_) => "DROPPED",
            Outcome::NotInBasis => "NOT_IN_BASIS",
        }
    }
}

/// The row as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowLine {
    /// The part that holds it.
    pub file: Ref,
    /// Its number in that part, from 0.
    pub number: u64,
    /// Row id.
    pub row_id: String,
    /// Where the event stands.
    pub place: Place,
    /// SHA-256 of the canonical envelope.
    pub payload_hash: String,
    /// Key.
    pub key: String,
}

/// A record of the event as one side serves it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedLine {
    /// Which side.
    pub source: Source,
    /// Where it stands.
    pub place: Place,
    /// SHA-256 of its canonical envelope, recomputed.
    pub payload_hash: String,
    /// Why this record gives no row, if it gives none.
    pub dropped: Option<String>,
}

impl ServedLine {
    pub(super) fn of(served: &Served) -> Self {
        ServedLine {
            source: served.source,
            place: served.place.clone(),
            payload_hash: digest::hex(&served.payload_hash),
            dropped: served.dropped.clone(),
        }
    }
}

/// An event that a feature counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Contributor {
    /// The event.
    pub past: Past,
    /// What it brought, where the feature reads a field.
    pub value: Option<Value>,
    /// Whether it has a higher offset of the row's own partition, so that it had not arrived when the row did.
    pub arrived_later: bool,
}

/// One feature of the row.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureLine {
    /// Column.
    pub column: String,
    /// What is computed.
    pub agg: Agg,
    /// Payload field and declared type.
    pub field: Option<(String, String)>,
    /// Equality conditions.
    pub conditions: Value,
    /// The window: its beginning is outside, its end inside. None for what looks at the previous event.
    pub window: Option<(Instant, Instant)>,
    /// The value in the row.
    pub value: Value,
    /// The value that the delivered events give now.
    pub now: Value,
    /// How many events count.
    pub contributors_total: usize,
    /// The newest of them, oldest first.
    pub contributors: Vec<Contributor>,
}

/// One label of the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelLine {
    /// Label type.
    pub label_type: String,
    /// What the row says; nothing for an event that is no row.
    pub published: Option<Decided>,
    /// What the timeline gives now.
    pub now: Option<Decided>,
    /// Every assertion of this type about the event, latest observed first.
    pub considered: Vec<Considered>,
}

/// A run that resolved to the data set.
#[derive(Debug, Clone, PartialEq)]
pub struct RunLine {
    /// Its key.
    pub run_key: String,
    /// Its request.
    pub request_id: String,
    /// Where it stands.
    pub status: Status,
    /// Policy, revision and digests of the feature profile that it resolved.
    pub profile: Value,
    /// Program, profile and configuration that it ran under.
    pub running: Value,
    /// The run facts that it rests on.
    pub run_facts: Value,
    /// Its plan.
    pub plan_ref: Ref,
}

/// Where one event of a data set comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The data set.
    pub manifest_id: String,
    /// Its manifest.
    pub manifest_ref: Ref,
    /// The event.
    pub event_id: String,
    /// What it is to the data set.
    pub outcome: Outcome,
    /// The row, where it is one.
    pub row: Option<RowLine>,
    /// Every record of the event in the basis, as it is served now.
    pub served: Vec<ServedLine>,
    /// Records of the basis that cannot be used now, the first few.
    pub unusable: Vec<Unusable>,
    /// The features in the order of their columns; none where the event is not delivered any more.
    pub features: Vec<FeatureLine>,
    /// The labels in the order of their columns.
    pub labels: Vec<LabelLine>,
    /// Assertions about the event of types that the data set does not have.
    pub other_assertions: Vec<Considered>,
    /// Policy, definition, basis, cut-off and code: what the identity is made of.
    pub rests_on: Value,
    /// The runs that resolved to the data set, as far as the ledger knows them.
    pub runs: Vec<RunLine>,
    /// What the sources say otherwise than the row. Empty where it holds.
    pub differences: Vec<String>,
    /// What could not be asked, and what that leaves open.
    pub notes: Vec<String>,
}

impl Explanation {
    pub(super) fn new(opened: &Opened, event_id: &str, rests_on: Value) -> Self {
        Explanation {
            manifest_id: opened.manifest_id.clone(),
            manifest_ref: opened.manifest_ref.clone(),
            event_id: event_id.to_owned(),
            outcome: Outcome::NotInBasis,
            row: None,
            served: Vec::new(),
            unusable: Vec::new(),
            features: Vec::new(),
            labels: Vec::new(),
            other_assertions: Vec::new(),
            rests_on,
            runs: Vec::new(),
            differences: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Whether the sources still say what the row says.
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }

    /// `ofs.explain.v1`.
    pub fn to_json(&self) -> Value {
        let why = if let Outcome::Dropped(why) = &self.outcome { Some(why) } else { None };
        json!({
            "schema_version": "ofs.explain.v1", "manifest_id": self.manifest_id, "manifest_ref": self.manifest_ref.as_str(), "event_id": self.event_id,
            "outcome": self.outcome.as_str(), "dropped": why, "holds": self.holds(), "differences": self.differences, "notes": self.notes,
            "row": self.row.as_ref().map(RowLine::to_json), "served": self.served.iter().map(ServedLine::to_json).collect::<Vec<_>>(),
            "unusable": self.unusable.iter().map(|u| json!({"at": u.at, "source": u.source.as_str(), "code": u.code, "message": u.message})).collect::<Vec<_>>(),
            "features": self.features.iter().map(FeatureLine::to_json).collect::<Vec<_>>(),
            "labels": self.labels.iter().map(LabelLine::to_json).collect::<Vec<_>>(),
            "other_assertions": self.other_assertions.iter().map(considered).collect::<Vec<_>>(),
            "rests_on": self.rests_on, "runs": self.runs.iter().map(RunLine::to_json).collect::<Vec<_>>(),
        })
    }
}

/// The fields of a place, with others.
fn placed(place: &Place, mut more: Value) -> Value {
    if let Some(map) = more.as_object_mut() {
        map.insert("topic".into(), json!(place.lane.topic));
        map.insert("partition".into(), json!(place.lane.partition));
        map.insert("offset_kind".into(), json!(place.lane.kind));
        map.insert("offset".into(), json!(place.offset));
        map.insert("ts_utc".into(), json!(place.ts));
    }
    more
}

fn considered(c: &Considered) -> Value {
    json!({
        "label_type": c.label_type, "label_assertion_id": c.assertion_id, "value": c.value, "observed_utc": c.observed, "effective": c.effective,
        "payload_hash": c.payload_hash, "verdict": c.verdict.as_str(), "why": c.why,
    })
}

fn decided(d: &Decided) -> Value {
    json!({"status": d.status, "value": d.value, "observed_utc": d.observed, "label_assertion_id": d.assertion_id})
}

impl RowLine {
    fn to_json(&self) -> Value {
        let more = json!({"file": self.file.as_str(), "row": self.number, "row_id": self.row_id, "payload_hash": self.payload_hash, "key": self.key});
        placed(&self.place, more)
    }
}

impl ServedLine {
    fn to_json(&self) -> Value {
        placed(&self.place, json!({"source": self.source.as_str(), "payload_hash": self.payload_hash, "dropped": self.dropped}))
    }
}

impl FeatureLine {
    fn to_json(&self) -> Value {
        let contributor = |c: &Contributor| {
            let more = json!({"event_id": c.past.event_id, "payload_hash": c.past.payload_hash, "value": c.value, "arrived_later": c.arrived_later});
            placed(&c.past.place, more)
        };
        json!({
            "column": self.column, "agg": self.agg.as_str(), "field": self.field.as_ref().map(|f| &f.0), "type": self.field.as_ref().map(|f| &f.1),
            "where": self.conditions, "window": self.window.map(|(from, to)| json!({"after_utc": from, "until_utc": to})),
            "value": self.value, "now": self.now, "holds": self.value == self.now,
            "contributors_total": self.contributors_total, "contributors": self.contributors.iter().map(contributor).collect::<Vec<_>>(),
        })
    }
}

impl LabelLine {
    fn to_json(&self) -> Value {
        json!({
            "label_type": self.label_type, "published": self.published.as_ref().map(decided), "now": self.now.as_ref().map(decided),
            "holds": self.published.is_none() || self.published == self.now,
            "considered": self.considered.iter().map(considered).collect::<Vec<_>>(),
        })
    }
}

impl RunLine {
    fn to_json(&self) -> Value {
        json!({
            "run_key": self.run_key, "request_id": self.request_id, "status": self.status, "plan_ref": self.plan_ref.as_str(),
            "feature_profile": self.profile, "running": self.running, "run_facts": self.run_facts,
        })
    }
}
