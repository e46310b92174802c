//! `ofs plan`: the resolved pins, and per partition whether the basis can be complete. Writes nothing.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Context, Failure, Outcome, document, say};
use crate::pipeline::admit::{self, Supersession};
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
    let partitions = replay::feasibility(&pinned, &env)?;
    let feasible = partitions.iter().all(|p| p.get("feasibility").and_then(Value::as_str).is_some_and(|f| f.starts_with("FEASIBLE")));
    let bound = context.config.memory_bound();
    if context.json {
        let mut plan = pinned.plan().clone();
        if let Some(map) = plan.as_object_mut() {
            map.insert("schema_version".into(), json!("ofs.plan.v1"));
            map.insert("feasible".into(), json!(feasible));
            map.insert("partitions".into(), json!(partitions));
            map.insert("memory_bound_bytes".into(), json!(bound));
        }
        document(&plan);
    } else {
        say(format!("data set     {}", pinned.id().manifest_id));
        say(format!("feature set  {}@{}  digest {}", pinned.group().name, pinned.group().version, pinned.group_digest()));
        say(format!("label asof   {}", pinned.intent().labels.asof));
        say(format!("shards       {}    memory bound {} MiB", pinned.shards(), bound >> 20));
        for p in &partitions {
            let text = |key: &str| p.get(key).map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).unwrap_or_default();
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
        }
    }
    Ok(0)
}
