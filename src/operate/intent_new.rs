//! `ofs intent new`: a complete intent from what the workspace holds. Here, and nowhere in a build, times
//! and "the active one" are resolved: a span of time becomes concrete offsets, a feature set without version
//! the one that the authority holds, a missing cut-off the latest assertion's instant. What was asked for and
//! what it came to is recorded beside the intent (O047), so that nothing has to be resolved a second time.

mod scan;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::scan::{LaneFound, TypeFound};
use crate::contract::intent::{self, RESOLUTION_RULE, SCHEMA_VERSION};
use crate::contract::profile::{Group, Profile};
use crate::contract::{ReasonCode, facts, path_safe};
use crate::digest;
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::pipeline::pin;
use crate::store::{Ref, read};
use crate::time::Instant;

/// What is asked for. Whatever is left out is resolved from the workspace, and refused where it holds
/// several answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selectors {
    /// Events from this instant on; from the first one where it is left out.
    pub from: Option<Instant>,
    /// Events before this instant; to the last one where it is left out.
    pub to: Option<Instant>,
    /// `SET@VERSION`, or `SET` where the authority holds one version of it.
    pub features: Option<String>,
    /// The label cut-off; the latest observed time of the timeline where it is left out.
    pub asof: Option<Instant>,
    /// The platform run; the active one, or the only one of the store.
    pub run: Option<String>,
    /// Topics; all that hold events of the run where none is named.
    pub topics: Vec<String>,
    /// Label types; all that the timeline speaks of where none is named.
    pub label_types: Vec<String>,
    /// Least share of rows with a label, for every type; all rows where it is left out.
    pub min_coverage: Option<String>,
    /// Whether the data set may be unfit for training.
    pub non_training: bool,
    /// The request id; a digest of everything else where it is left out.
    pub request_id: Option<String>,
}

/// An intent, and how each selector was resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct NewIntent {
    /// The intent in normal form.
    pub intent: Value,
    /// `ofs.intent_mapping.v1`.
    pub mapping: Value,
}

/// Writes an intent and, beside it as `<file>.mapping.json`, how it was resolved; both files are new, nothing of
/// the user's is ever replaced. The mapping comes first: an intent without it would have lost how it came about.
/// Where either cannot be made, neither is there afterwards.
///
/// # Errors
/// The file that could not be made, and why.
pub fn write(made: &NewIntent, path: &Path) -> Result<(), (PathBuf, std::io::Error)> {
    let mut beside = path.to_owned().into_os_string();
    beside.push(".mapping.json");
    let beside = PathBuf::from(beside);
    create(&beside, &made.mapping).map_err(|e| (beside.clone(), e))?;
    create(path, &made.intent).map_err(|e| {
        // Alone it would stand beside a file that is not its intent, and in the way of the next try.
        let _ = std::fs::remove_file(&beside);
        (path.to_owned(), e)
    })
}

/// Makes a new file of a document; where that fails, nothing that was made of it stays.
fn create(file: &Path, document: &Value) -> std::io::Result<()> {
    let mut open = std::fs::File::create_new(file)?;
    let written = open.write_all(format!("{document:#}\n").as_bytes()).and_then(|()| open.sync_all());
    if written.is_err() {
        let _ = std::fs::remove_file(file);
    }
    written
}

fn refuse(code: ReasonCode, message: impl Into<String>) -> Refusal {
    Refusal::new(code, Phase::Intent, message)
}

fn several(what: &str, found: &[String]) -> Refusal {
    refuse(ReasonCode::AmbiguousInput, format!("{what}: the workspace holds {}; name one", found.join(", ")))
}

/// Resolves the selectors and makes the intent. Reads only.
///
/// # Errors
/// `AMBIGUOUS_INPUT` where the workspace holds several answers, `BASIS_UNRESOLVED` where no event lies in the
/// span, `FEATURE_PROFILE_UNRESOLVED`, `LABEL_ASOF_MISSING`, `LABEL_TYPE_SCOPE_UNRESOLVED`,
/// `RUN_FACTS_UNAVAILABLE`, `SCHEMA_INVALID` for a value that no intent may hold; whatever keeps a source from
/// being read.
pub fn resolve(env: &Env, selectors: &Selectors) -> Result<NewIntent, Refusal> {
    let (run, run_from) = run(env, selectors)?;
    let (profile, _) = pin::feature_authority(env)?;
    let group = group(&profile, selectors.features.as_deref())?;
    let lanes = scan::lanes(env, &run, selectors)?;
    let taken: Vec<&LaneFound> = lanes.iter().filter(|lane| lane.range.is_some()).collect();
    if taken.is_empty() {
        let message = format!("no readable event of {run} lies in the span, in {} partition(s)", lanes.len());
        return Err(refuse(ReasonCode::BasisUnresolved, message));
    }
    let labels = labels(env, &run, &profile, selectors)?;
    let (asof, asof_from) = cutoff(&labels, selectors)?;
    let (facts_ref, facts_digest, facts) = run_facts(env, &run)?;
    let outputs: BTreeSet<&str> = facts.locators.iter().map(|l| l.output_id.as_str()).collect();
    let launcher = env.config.launcher();
    let types: Vec<&str> = labels.iter().map(|l| l.label_type.as_str()).collect();
    let mut intent = json!({
        "schema_version": SCHEMA_VERSION, "request_id": selectors.request_id.as_deref().unwrap_or("new.intent"), "intent_kind": "dataset_build",
        "platform_run_id": run, "scenario_run_ids": facts.scenario_run_id.iter().collect::<Vec<_>>(),
        "replay_basis": taken.iter().filter_map(|lane| lane.slice()).collect::<Vec<_>>(),
        "label_basis": {"label_asof_utc": asof, "resolution_rule": RESOLUTION_RULE},
        "feature_definition_set": {"feature_set_id": group.name, "feature_set_version": group.version},
        "join_scope": {"subject_key": "platform_run_id,event_id", "required_output_ids": outputs},
        "filters": {"label_types": types, "label_coverage_policy": coverage(&types, selectors)?},
        "run_facts_ref": facts_ref.as_str(), "policy_revision": format!("{}@{}", launcher.policy_id, launcher.revision),
        "config_revision": format!("run-config:{}", pin::run_config_digest(env)?), "ofs_code_release_id": pin::RELEASE,
        "non_training_allowed": selectors.non_training,
    });
    if selectors.request_id.is_none()
        && let Some(map) = intent.as_object_mut()
    {
        // The same selection asked for again is the same request.
        let digest: String = digest::recipe_digest("ofs.new_intent.v1", &Value::Object(map.clone())).chars().take(24).collect();
        map.insert("request_id".into(), json!(format!("new.{digest}")));
    }
    let parsed = intent::parse(intent.to_string().as_bytes()).map_err(|refused| match refused.problems.into_iter().next() {
        Some(problem) => Refusal::of_problem(Phase::Intent, problem),
        None => refuse(ReasonCode::InternalError, "the intent that was made is none"),
    })?;
    let mapping = json!({
        "schema_version": "ofs.intent_mapping.v1", "request_id": parsed.request_id,
        "asked": {"from": selectors.from, "to": selectors.to, "features": selectors.features, "asof": selectors.asof, "topics": selectors.topics, "label_types": selectors.label_types},
        "span": "[from, to) in event time; a slice is the smallest range of offsets that holds every event of the span, and so may hold others",
        "platform_run": {"id": run, "from": run_from},
        "lanes": lanes.iter().map(LaneFound::to_json).collect::<Vec<_>>(),
        "features": {"resolved": format!("{}@{}", group.name, group.version), "profile": format!("{}@{}", profile.policy_id, profile.revision), "group_digest": group.digest()},
        "labels": {"label_asof_utc": asof, "from": asof_from, "types": labels.iter().map(TypeFound::to_json).collect::<Vec<_>>()},
        "run_facts": {"ref": facts_ref.as_str(), "blake3": facts_digest},
    });
    Ok(NewIntent { intent: parsed.to_json(), mapping })
}

/// The platform run, and what it was taken from.
fn run(env: &Env, selectors: &Selectors) -> Result<(String, &'static str), Refusal> {
    let active = env.config.text("workspace", "platform_run_id");
    match (&selectors.run, active) {
        (Some(run), _) if path_safe(run) => return Ok((run.clone(), "asked for")),
        (Some(run), _) => return Err(refuse(ReasonCode::SchemaInvalid, format!("`{run}` is no platform run id"))),
        (None, active) if !active.is_empty() => return Ok((active.to_owned(), "the active run of the workspace")),
        _ => {}
    }
    let mut runs = env.store_root.as_deref().map(folders).unwrap_or_default();
    runs.retain(|run| {
        path_safe(run) && ["archive", "sr"].iter().any(|f| env.store_root.as_deref().is_some_and(|r| r.join(run).join(f).is_dir()))
    });
    match runs.as_slice() {
        [only] => Ok((only.clone(), "the only run of the store")),
        [] => Err(refuse(ReasonCode::BasisUnresolved, "the store holds no platform run")),
        _ => Err(several("platform run", &runs)),
    }
}

/// Names of the folders in a folder, sorted.
fn folders(at: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(at).into_iter().flatten().flatten().filter(|e| e.path().is_dir());
    let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The feature group that is asked for; never a near one.
fn group<'p>(profile: &'p Profile, asked: Option<&str>) -> Result<&'p Group, Refusal> {
    let (set, version) = match asked.map(|a| a.split_once('@').map_or((a, None), |(set, version)| (set, Some(version)))) {
        None => (None, None),
        Some((set, version)) => (Some(set), version),
    };
    if let (Some(set), Some(version)) = (set, version) {
        return profile.group(set, version).map_err(|p| Refusal::of_problem(Phase::Intent, p));
    }
    let fitting: Vec<&Group> = profile.groups.iter().filter(|g| set.is_none_or(|set| g.name == set)).collect();
    match fitting.as_slice() {
        [only] => Ok(only),
        [] => profile.group(set.unwrap_or_default(), "").map_err(|p| Refusal::of_problem(Phase::Intent, p)),
        _ => Err(several("feature set", &fitting.iter().map(|g| format!("{}@{}", g.name, g.version)).collect::<Vec<_>>())),
    }
}

/// The label types that are asked for, or all that the timeline speaks of.
fn labels(env: &Env, run: &str, profile: &Profile, selectors: &Selectors) -> Result<Vec<TypeFound>, Refusal> {
    if let Some(stray) = selectors.label_types.iter().find(|name| !profile.vocabulary.contains_key(*name)) {
        let known: Vec<&str> = profile.vocabulary.keys().map(String::as_str).collect();
        let message = format!("label type {stray} is not in the vocabulary, which knows {}", known.join(", "));
        return Err(refuse(ReasonCode::LabelTypeScopeUnresolved, message));
    }
    let types: BTreeSet<String> = if selectors.label_types.is_empty() {
        profile.vocabulary.keys().cloned().collect()
    } else {
        selectors.label_types.iter().cloned().collect()
    };
    let found = scan::labels(env, run, &types, selectors.asof)?;
    let named = !selectors.label_types.is_empty();
    let found: Vec<TypeFound> = found.into_iter().filter(|l| named || l.assertions > 0).collect();
    if found.is_empty() {
        return Err(refuse(
            ReasonCode::LabelTypeScopeUnresolved,
            format!("the timeline holds no assertion about {run}; name the label types"),
        ));
    }
    Ok(found)
}

fn cutoff(labels: &[TypeFound], selectors: &Selectors) -> Result<(Instant, &'static str), Refusal> {
    if let Some(asof) = selectors.asof {
        return Ok((asof, "asked for"));
    }
    let latest = labels.iter().filter_map(|l| l.latest).max();
    let latest =
        latest.ok_or_else(|| refuse(ReasonCode::LabelAsofMissing, "the timeline holds no assertion to take the cut-off from; name one"))?;
    Ok((latest, "the latest observed time of these label types in the timeline"))
}

/// The only run facts of the run.
fn run_facts(env: &Env, run: &str) -> Result<(Ref, String, facts::RunFacts), Refusal> {
    let folder = Ref::of(&[run, "sr", "run_facts_view"]);
    let found = env.store.list(&folder).map_err(|e| Refusal::of_store(Phase::Intent, &e))?;
    let at = match found.as_slice() {
        [(at, _)] => at.clone(),
        [] => return Err(refuse(ReasonCode::RunFactsUnavailable, format!("{folder} holds no run facts"))),
        _ => return Err(several("run facts", &found.iter().map(|(at, _)| at.to_string()).collect::<Vec<_>>())),
    };
    let bytes = read(env.store.as_ref(), &at, facts::MAX_BYTES).map_err(|e| Refusal::of_store(Phase::Intent, &e))?;
    let facts = facts::parse(&bytes).map_err(|p| Refusal::of_problem(Phase::Intent, p))?;
    Ok((at, blake3::hash(&bytes).to_hex().to_string(), facts))
}

/// The coverage that is asked for, spelled out for every type.
fn coverage(types: &[&str], selectors: &Selectors) -> Result<Value, Refusal> {
    let share = selectors.min_coverage.as_deref().unwrap_or("1.0");
    if crate::contract::decimal::Ratio::parse(share).is_none() {
        return Err(refuse(ReasonCode::SchemaInvalid, format!("`{}` is no share from 0 to 1", crate::text::clip(share, 40))));
    }
    let each: serde_json::Map<String, Value> = types.iter().map(|name| ((*name).to_owned(), crate::json::number(share))).collect();
    Ok(json!({"min_coverage_by_label_type": each, "max_conflict_ratio": crate::json::number("0.0")}))
}
