//! What stands around the events: run facts, feature authority and two intents.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::event::{FINGERPRINT, KIND, PARAMETERS, RUN, SCENARIO, SCENARIO_RUN, TOPIC};
use super::lane::{Known, Written};
use super::{BEGIN, GenerateError, SPAN, Spec, TRAINED, at, label};

const AUTHORITY: &str = "\
policy_id: ofp.features.v0
revision: r1
feature_groups:
  - name: account_activity
    version: v1
    key_type: flow_id
    windows:
      - {window: 1h, duration: 1h, ttl: 1h}
      - {window: 24h, duration: 24h, ttl: 24h}
      - {window: 7d, duration: 7d, ttl: 7d}
    features:
      - {name: events, agg: count}
      - {name: amount_sum, agg: sum, field: amount, type: int64}
      - {name: amount_mean, agg: mean, field: amount, type: int64}
      - {name: amount_max, agg: max, field: amount, type: int64}
";

fn write_text(path: &Path, text: &str) -> Result<(), GenerateError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
    }
    std::fs::write(path, text).map_err(at(path))
}

/// Writes the frame; where the intents lie.
pub(super) fn write(spec: &Spec, lanes: &[Written]) -> Result<Vec<PathBuf>, GenerateError> {
    let out = &spec.out;
    write_text(&out.join("authority/features_v0.yaml"), AUTHORITY)?;
    let world = format!("{RUN}/world/transactions.json");
    write_text(&out.join("store").join(&world), &format!("{}\n", json!({"source": "ofs generate", "events": spec.events})))?;
    let facts = format!("{RUN}/sr/run_facts_view/{SCENARIO_RUN}.json");
    write_text(&out.join("store").join(&facts), &format!("{}\n", crate::json::canonical(&run_facts(spec, &world))))?;
    [("train", true), ("audit", false)]
        .into_iter()
        .map(|(name, training)| {
            let path = out.join(format!("intents/{name}.json"));
            let intent = intent(spec, lanes, name, training, &facts);
            write_text(&path, &format!("{intent:#}\n"))?;
            Ok(path)
        })
        .collect()
}

fn run_facts(spec: &Spec, world: &str) -> Value {
    json!({
        "run_id": SCENARIO_RUN, "platform_run_id": RUN, "scenario_run_id": SCENARIO_RUN,
        "pins": {
            "manifest_fingerprint": FINGERPRINT, "parameter_hash": PARAMETERS, "platform_run_id": RUN,
            "scenario_run_id": SCENARIO_RUN, "scenario_id": SCENARIO, "seed": spec.seed, "run_id": SCENARIO_RUN,
        },
        "locators": [{"output_id": "transactions", "path": world, "manifest_fingerprint": FINGERPRINT}],
        "gate_receipts": [{"gate_id": "gate.generated", "status": "PASS", "scope": {"manifest_fingerprint": FINGERPRINT}}],
        "instance_receipts": [{"output_id": "transactions", "status": "PASS", "target_ref": {"output_id": "transactions", "path": world}}],
    })
}

/// The smallest coverage and the largest share of conflicts that an intent allows: the usual ones, or in whole
/// hundredths what chance has left of a world of few events.
fn policy(known: Known) -> (f64, f64) {
    let hundredths = |n: u64| n as f64 / 100.0;
    let events = known.events.max(1);
    let enough = known.resolved * 10 >= events * 9;
    let few = known.conflicts * 20 <= events;
    (
        if enough { 0.9 } else { hundredths(known.resolved * 100 / events) },
        if few { 0.05 } else { hundredths((known.conflicts * 100).div_ceil(events)) },
    )
}

/// A training intent that looks back a month later, or an audit in the middle of the traffic.
fn intent(spec: &Spec, lanes: &[Written], name: &str, training: bool, facts: &str) -> Value {
    let asof = if training { TRAINED } else { BEGIN.plus_micros(SPAN * 3 / 4) };
    let basis: Vec<Value> = lanes
        .iter()
        .map(|lane| {
            json!({"topic": TOPIC, "partition": lane.partition, "offset_kind": KIND, "start_offset": "0", "end_offset": (lane.events - 1).to_string()})
        })
        .collect();
    let (min_coverage, max_conflicts) = policy(lanes.iter().map(|lane| lane.known).fold(Known::default(), Known::plus));
    json!({
        "schema_version": "learning.ofs_build_intent.v0",
        "request_id": format!("generated.{name}.{}.{}", spec.events, spec.seed),
        "intent_kind": "dataset_build",
        "platform_run_id": RUN,
        "scenario_run_ids": [SCENARIO_RUN],
        "replay_basis": basis,
        "label_basis": {"label_asof_utc": asof.to_string(), "resolution_rule": "observed_time<=label_asof_utc", "maturity_days": 7},
        "feature_definition_set": {"feature_set_id": "account_activity", "feature_set_version": "v1"},
        "join_scope": {"subject_key": "platform_run_id,event_id", "required_output_ids": ["transactions"]},
        "filters": {
            "label_types": [label::TYPE],
            "label_coverage_policy": {"min_coverage_by_label_type": {label::TYPE: min_coverage}, "max_conflict_ratio": max_conflicts},
        },
        "run_facts_ref": facts,
        "policy_revision": "ofs-policy-v0",
        "config_revision": "generated-v0",
        "ofs_code_release_id": "git:unreleased",
        "non_training_allowed": !training,
    })
}
