//! Expected against found, and what must hold after every action whatever was expected.

use std::collections::BTreeMap;

use super::act::{config, reader};
use super::{Expect, Observed};
use crate::ledger::RunFilter;
use crate::operate::mutate::{self, Broken, Scratchpad, broken, to_json};
use crate::operate::untouched::Snapshot;

pub(super) fn snapshot(pad: &Scratchpad) -> Result<Snapshot, Broken> {
    Ok(Snapshot::of(pad.root(), pad.name("run"))?)
}

/// What is not as expected.
pub(super) fn judge(
    pad: &Scratchpad,
    named: &BTreeMap<String, Observed>,
    expect: &Expect,
    found: &Observed,
) -> Result<Vec<String>, Broken> {
    let mut problems = Vec::new();
    let mut same = |what: &str, expected: Option<&str>, found: Option<&str>| {
        if expected != found {
            problems.push(format!("{what}: expected {}, found {}", expected.unwrap_or("none"), found.unwrap_or("none")));
        }
    };
    same("status", Some(&expect.status), Some(&found.status));
    same("exit code", Some(&expect.exit.to_string()), Some(&found.exit.to_string()));
    same("outcome", expect.outcome.as_deref(), found.outcome.as_deref());
    same("reason code", expect.code.as_deref(), found.code.as_deref());
    same("phase", expect.phase.as_deref(), found.phase.as_deref());
    if let Some(rows) = expect.rows {
        same("rows", Some(&rows.to_string()), found.rows.map(|n| n.to_string()).as_deref());
    }
    let identity = |name: &String| match named.get(name).and_then(|o| o.manifest_id.as_deref()) {
        Some(id) => Ok(id),
        None => broken(format!("no step {name} resolved to a data set")),
    };
    if let Some(name) = &expect.same_manifest_as {
        same("data set", Some(identity(name)?), found.manifest_id.as_deref());
    }
    if let Some(name) = &expect.different_manifest_from
        && found.manifest_id.as_deref().is_none_or(|id| identity(name) == Ok(id))
    {
        problems.push(format!("data set: expected another than that of step {name}, found {:?}", found.manifest_id));
    }
    if let Some(text) = expect.evidence.as_ref().map(|text| pad.fill(text)) {
        let all: Vec<&str> = found.message.iter().chain(&found.evidence).map(String::as_str).collect();
        if !all.iter().any(|line| line.contains(text.as_str())) {
            problems.push(format!("evidence: nothing says `{text}`, only: {}", all.join(" | ")));
        }
    }
    for (place, value) in &expect.json {
        let Some((file, pointer)) = place.split_once('#') else { return broken(format!("{place} is no <file>#<pointer>")) };
        let (wanted, stands) = (to_json(value), mutate::at(&pad.path(file), pointer));
        if stands.as_ref() != Some(&wanted) {
            problems.push(format!("{}: expected {wanted}, found {}", pad.fill(place), stands.unwrap_or_default()));
        }
    }
    if !expect.refs.is_empty() {
        problems.extend(not_audited(pad, found, &expect.refs));
    }
    if let Some(event) = &expect.event {
        problems.extend(lacks_event(pad, found, event));
    }
    Ok(problems)
}

/// Ref types whose latest resolution is not on record as it must be.
fn not_audited(pad: &Scratchpad, found: &Observed, refs: &BTreeMap<String, String>) -> Vec<String> {
    let rows = config(pad.root()).ok().and_then(|config| reader(&config).ok()?.ref_rows(found.run_key.as_deref()).ok()).unwrap_or_default();
    let verdict = |kind: &str| {
        let row = rows.iter().rev().find(|row| row.ref_type == kind)?;
        Some(row.reason_code.clone().unwrap_or_else(|| row.decision.clone()))
    };
    let wrong = |(kind, wanted): (&String, &String)| {
        let stands = verdict(kind).unwrap_or_else(|| "nothing".into());
        (stands != *wanted).then(|| format!("audit of {kind}: expected {wanted}, found {stands}"))
    };
    refs.iter().filter_map(wrong).collect()
}

fn lacks_event(pad: &Scratchpad, found: &Observed, event: &str) -> Option<String> {
    let events = config(pad.root()).ok().and_then(|config| {
        let ledger = reader(&config).ok()?;
        ledger.events(found.run_key.as_deref()?, 0).ok()
    });
    let seen: Vec<String> = events.unwrap_or_default().into_iter().map(|e| e.event_type).collect();
    (!seen.iter().any(|e| e == event)).then(|| format!("events: no {event} among {}", seen.join(", ")))
}

/// Inputs are byte-identical and nothing new lies beside them; nothing looks published that is not; the
/// ledger's chains are whole; scratch space is empty.
pub(super) fn aftermath(pad: &Scratchpad, before: &Snapshot, expect: &Expect) -> Result<Vec<String>, Broken> {
    let after = snapshot(pad)?;
    let mut problems = Snapshot::changed(&before.inputs, &after.inputs);
    if expect.status != "DONE" && !expect.commits {
        problems.extend(Snapshot::changed(&before.published, &after.published));
    }
    // A ledger that cannot be opened has no chain; that it could not be is what the step expected.
    if let Ok(config) = config(pad.root())
        && config.path("object_store").is_dir()
        && let Ok(ledger) = reader(&config)
    {
        for row in ledger.runs(&RunFilter::default()).unwrap_or_default() {
            let chain = ledger.verify_chain(&row.run_key).unwrap_or_else(|e| vec![e.to_string()]);
            problems.extend(chain.into_iter().map(|p| format!("ledger of {}: {p}", row.run_key)));
        }
    }
    let scratch = pad.root().join("scratch");
    if scratch.is_dir() {
        problems
            .extend(std::fs::read_dir(scratch)?.flatten().map(|e| format!("scratch/{} was left behind", e.file_name().to_string_lossy())));
    }
    Ok(problems)
}
