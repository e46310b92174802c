//! `ofs plan`: the resolved pins, and per partition whether the basis can be complete. Writes nothing.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Context, Failure, Outcome, document, say};
use crate::pipeline::admit::{self, Supersession};
use crate::pipeline::gate::EVIDENCE_LINES;
use crate::pipeline::{pin, replay};

/// Arguments of `ofs plan`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The intent file.
    intent: PathBuf,
}

pub(super) fn run(context: &Context, args: &Args) -> Outcome {
    let text = std::fs::read(&args.intent).map_err(|e| Failure::usage(format!("{}: {e}", args.intent.display())))?;
    let env = context.env()?;
    let admitted = admit::prove(&text, Supersession::default(), context.config.text("workspace", "platform_run_id"))
        .map_err(|not| Failure::from(not.refusal))?;
    let pinned = pin::resolve(admitted, &env)?;
    let found = replay::feasibility(&pinned, &env)?;
    let partitions = &found.partitions;
    let feasible = partitions.iter().all(|p| p.get("feasibility").and_then(Value::as_str).is_some_and(|f| f.starts_with("FEASIBLE")));
    let bound = context.config.memory_bound();
    if context.json {
        let mut plan = pinned.plan().clone();
        if let Some(map) = plan.as_object_mut() {
            map.insert("schema_version".into(), json!("ofs.plan.v1"));
            map.insert("feasible".into(), json!(feasible));
            map.insert("partitions".into(), json!(partitions));
            map.insert("undecodable_unplaced".into(), json!(found.unplaced));
            map.insert("unplaced_records".into(), json!(found.unplaced_sample));
            map.insert("memory_bound_bytes".into(), json!(bound));
        }
        document(&plan);
    } else {
        say(format!("data set     {}", pinned.id().manifest_id));
        say(format!("feature set  {}@{}  digest {}", pinned.group().name, pinned.group().version, pinned.group_digest()));
        say(format!("label asof   {}", pinned.intent().labels.asof));
        say(format!("shards       {}    memory bound {} MiB", pinned.shards(), bound >> 20));
        for p in partitions {
            let text = |key: &str| text_of(p, key);
            say(format!(
                "{}/{}  {}  required {}  archive {}  bus {}  missing {}",
                text("topic"),
                text("partition"),
                text("feasibility"),
                text("required_offsets"),
                text("on_archive"),
                text("on_bus"),
                text("missing_offsets")
            ));
            say_unusable(p);
        }
        if let Some(first) = found.unplaced_sample.first().filter(|_| !feasible) {
            let told = format!("{}: {}", text_of(first, "place"), text_of(first, "message"));
            say(format!("{} record(s) of the archive cannot be read and may be among the missing; the first: {told}", found.unplaced));
        }
    }
    Ok(0)
}

/// A value as it is printed: a text without its quotes.
fn text_of(value: &Value, key: &str) -> String {
    value.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).unwrap_or_default()
}

/// The records of a partition that a build would refuse, as its refusal would tell them.
fn say_unusable(partition: &Value) {
    let listed = partition.get("faults").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for fault in listed.iter().take(EVIDENCE_LINES) {
        let text = |key: &str| text_of(fault, key);
        say(format!("  offset {} ({}, {}): {} {}", text("offset"), text("source"), text("place"), text("code"), text("message")));
    }
    let told = listed.len().min(EVIDENCE_LINES) as u64;
    let more = partition.get("unusable_records").and_then(Value::as_u64).unwrap_or(0).saturating_sub(told);
    if more > 0 {
        say(format!("  and {more} more record(s) that cannot be used"));
    }
}
