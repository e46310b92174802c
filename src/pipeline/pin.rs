//! Gate 3: every input that shapes meaning is frozen and written down before anything is replayed
//! (O035 to O049).

use std::sync::Arc;

use serde_json::{Value, json};

use super::admit::Admitted;
use super::gate::{Env, Phase, Refusal, keep_receipt};
use crate::contract::anchor::{self, Anchor};
use crate::contract::facts::{self, RunFacts};
use crate::contract::intent::{Intent, IntentKind};
use crate::contract::manifest::DatasetId;
use crate::contract::profile::{self, Group};
use crate::contract::{ReasonCode, manifest, ownership};
use crate::engine::shard;
use crate::identity::{self, DefinitionDigests};
use crate::store::{ErrorKind, Ref, RefType, read};

const PHASE: Phase = Phase::Pins;
/// Largest ownership file in bytes.
const OWNERSHIP_BYTES: u64 = 1 << 20;

/// Proof that every pin is resolved.
#[derive(Debug, Clone)]
pub struct Pinned {
    admitted: Admitted,
    group: Group,
    vocabulary: Vec<(String, Vec<String>)>,
    identity: Value,
    id: DatasetId,
    group_digest: String,
    shards: usize,
    plan: Value,
    anchor: Option<Arc<Anchor>>,
    scenario: Option<String>,
}

/// A data set that is published under this identity.
#[derive(Debug, Clone)]
pub struct Found {
    /// Ref of the manifest.
    pub manifest_ref: Ref,
    /// The index beside the parts.
    pub index: Value,
    /// BLAKE3 of the manifest and of the index as they are stored.
    pub manifest_blake3: String,
    /// BLAKE3 of the index.
    pub index_blake3: String,
    /// Files that the index names and that are not there with their size.
    pub missing: Vec<String>,
}

fn refuse(code: ReasonCode, message: impl Into<String>) -> Refusal {
    Refusal::new(code, PHASE, message)
}

/// Resolves every pin without writing anything.
///
/// # Errors
/// A refusal of gate 3.
pub fn resolve(admitted: Admitted, env: &Env) -> Result<Pinned, Refusal> {
    let intent = admitted.intent().clone();
    let (facts, facts_digest) = run_facts(&intent, env)?;
    let world = passed_outputs(&intent, &facts, env)?;
    let (profile, run_config_digest) = configured(env)?;
    let group = profile.group(&intent.feature_set_id, &intent.feature_set_version).map_err(|p| Refusal::of_problem(PHASE, p))?.clone();
    let mut vocabulary = Vec::new();
    for name in &intent.label_types {
        let values = profile.vocabulary.get(name).ok_or_else(|| {
            let known: Vec<&str> = profile.vocabulary.keys().map(String::as_str).collect();
            refuse(ReasonCode::LabelPolicyInvalid, format!("label type {name} is not in the vocabulary, which knows {}", known.join(", ")))
        })?;
        vocabulary.push((name.clone(), values.clone()));
    }
    if let Some(stray) = intent.coverage.min_coverage.keys().find(|name| !intent.label_types.contains(name)) {
        return Err(refuse(
            ReasonCode::LabelPolicyInvalid,
            format!("a coverage threshold for {stray}, which is not among the label types of the intent"),
        ));
    }
    let (anchor_pins, anchor) = anchor(&intent, &facts, env)?;
    let scenario = anchor.as_ref().and_then(|a| a.pin("scenario_run_id")).or_else(|| match intent.scenario_run_ids.as_slice() {
        [only] => Some(only.clone()),
        _ => None,
    });
    let definitions = DefinitionDigests { group: group.digest(), vocabulary: profile.vocabulary_digest() };
    let identity = identity::identity_payload(&intent, &definitions, admitted.superseded());
    let id = identity::dataset_id(&identity);
    let shards = shard::shards(&intent.basis);
    check_superseded(&admitted, &id, env)?;
    let launcher = env.config.launcher();
    let plan = json!({
        "schema_version": "learning.ofs_resolved_build_plan.v1", "run_key": admitted.run_key(), "request_id": intent.request_id,
        "intent_kind": intent.kind.as_str(), "training": intent.training(), "platform_run_id": intent.platform_run_id, "scenario_run_ids": intent.scenario_run_ids,
        "plan_id": identity::plan_id(&identity), "dataset_fingerprint": id.fingerprint, "dataset_manifest_id": id.manifest_id,
        "replay_basis": intent.basis_json(), "basis_hash": identity::basis_hash(&intent), "label_basis": intent.label_basis_json(),
        "label_types": intent.label_types, "join_scope": intent.join_scope, "filters": intent.filters, "shards": shards,
        "run_facts": {"ref": intent.run_facts_ref, "digest": facts_digest, "scenario_run_id": facts.scenario_run_id},
        "world": world,
        "feature_profile": {
            "feature_set_id": intent.feature_set_id, "feature_set_version": intent.feature_set_version, "policy_id": profile.policy_id, "revision": profile.revision,
            "resolved_revision": format!("{}@{}", profile.policy_id, profile.revision), "profile_digest": profile.digest(), "group_digest": definitions.group,
            "content_digest": profile.content_digest, "label_vocabulary_digest": definitions.vocabulary,
        },
        "parity_anchor": anchor_pins, "supersedes": admitted.superseded(),
        "claimed": {"policy_revision": intent.policy_revision, "config_revision": intent.config_revision, "ofs_code_release_id": intent.code_release},
        "running": {
            "release": RELEASE, "profile": env.config.text("workspace", "profile"), "launcher_policy": {"policy_id": launcher.policy_id, "revision": launcher.revision},
            "verify_payload_hashes": verifies_hashes(&intent, env), "run_config_digest": run_config_digest,
        },
    });
    Ok(Pinned { group_digest: definitions.group, admitted, group, vocabulary, identity, id, shards, plan, anchor, scenario })
}

/// Whether declared payload hashes are verified. What models learn from is never taken on trust (O060), for a later
/// build that verifies would be told that its data set is there already; the setting is for what nobody trains on.
pub fn verifies_hashes(intent: &Intent, env: &Env) -> bool {
    intent.training() || env.config.flag("replay", "verify_payload_hashes")
}

/// The feature authority, and the digest of the configuration that is in force.
///
/// # Errors
/// A refusal of gate 3 where ownership file or feature authority cannot be used.
pub fn configured(env: &Env) -> Result<(profile::Profile, String), Refusal> {
    let ownership_digest = check_ownership(env)?;
    let (profile, file_digest) = feature_authority(env)?;
    let digest = env.config.run_config_digest(&file_digest, &ownership_digest);
    Ok((profile, digest))
}

/// The digest of the configuration that is in force, stamped on requests and held to when they are
/// worked off (O132).
///
/// # Errors
/// A refusal of gate 3 where ownership file or feature authority cannot be used.
pub fn run_config_digest(env: &Env) -> Result<String, Refusal> {
    configured(env).map(|(_, digest)| digest)
}

/// The release of the running binary.
pub const RELEASE: &str = concat!("ofs ", env!("CARGO_PKG_VERSION"));

/// What of a plan must not change between two attempts of one request: its pins. What merely describes
/// the attempt (`running`) may.
const PINS: [&str; 18] = [
    "schema_version",
    "run_key",
    "request_id",
    "intent_kind",
    "training",
    "platform_run_id",
    "scenario_run_ids",
    "plan_id",
    "dataset_fingerprint",
    "replay_basis",
    "basis_hash",
    "label_basis",
    "label_types",
    "run_facts",
    "world",
    "feature_profile",
    "parity_anchor",
    "supersedes",
];

/// Resolves every pin and writes the plan receipt, before any replay (O035, O045).
///
/// # Errors
/// A refusal of gate 3; `BUILD_PLAN_IMMUTABILITY_VIOLATION` where the request was planned differently.
pub fn prove(admitted: Admitted, env: &Env) -> Result<Pinned, Refusal> {
    let pinned = resolve(admitted, env)?;
    keep_receipt(
        env.store.as_ref(),
        &pinned.receipt_ref("resolved_build_plan"),
        &pinned.plan,
        &PINS,
        ReasonCode::BuildPlanImmutabilityViolation,
        PHASE,
    )?;
    Ok(pinned)
}

fn run_facts(intent: &Intent, env: &Env) -> Result<(RunFacts, String), Refusal> {
    let (_, bytes) = env
        .corridor(&intent.platform_run_id)
        .read(RefType::RunFacts, &intent.run_facts_ref, "to pin the world and its PASSes", facts::MAX_BYTES)
        .map_err(|denied| Refusal::of_denial(PHASE, &denied, ReasonCode::RunFactsUnavailable))?;
    let facts = facts::parse(&bytes).map_err(|p| Refusal::of_problem(PHASE, p))?;
    if facts.platform_run_id != intent.platform_run_id {
        return Err(refuse(
            ReasonCode::RunScopeInvalid,
            format!("the run facts are of {}, the intent of {}", facts.platform_run_id, intent.platform_run_id),
        ));
    }
    if let Some(scenario) =
        facts.scenario_run_id.as_ref().filter(|s| !intent.scenario_run_ids.is_empty() && !intent.scenario_run_ids.contains(s))
    {
        return Err(refuse(
            ReasonCode::RunScopeInvalid,
            format!("the run facts are of scenario run {scenario}, which the intent does not name"),
        ));
    }
    Ok((facts, blake3::hash(&bytes).to_hex().to_string()))
}

fn passed_outputs(intent: &Intent, facts: &RunFacts, env: &Env) -> Result<Vec<Value>, Refusal> {
    let mut wanted: Vec<&str> = intent.required_outputs.iter().map(String::as_str).collect();
    if wanted.is_empty() {
        wanted = facts.locators.iter().map(|l| l.output_id.as_str()).collect();
        wanted.sort_unstable();
        wanted.dedup();
    }
    let mut world = Vec::new();
    for output in wanted {
        let locator = facts.passed(output).map_err(|p| Refusal::of_problem(PHASE, p))?;
        check_digest(locator, intent, env)?;
        world.push(json!({"output_id": locator.output_id, "path": locator.path, "manifest_fingerprint": locator.manifest_fingerprint,
            "content_digest": locator.content_digest.as_ref().map(|(algo, hex)| format!("{algo}:{hex}"))}));
    }
    Ok(world)
}

/// An output that states a digest and is in the store must have it (O039). One without a digest, or in
/// another store (a URL), is never read, so there is nothing to resolve: its PASS speaks for it.
fn check_digest(locator: &facts::Locator, intent: &Intent, env: &Env) -> Result<(), Refusal> {
    let Some((algorithm, wanted)) = locator.content_digest.as_ref().filter(|_| !locator.path.contains("://")) else { return Ok(()) };
    let places = [locator.path.clone()];
    let found = env
        .corridor(&intent.platform_run_id)
        .find(RefType::RunOutput, &locator.path, "to check the digest that its locator states", &places)
        .map_err(|denied| Refusal::of_denial(PHASE, &denied, ReasonCode::OutputDigestMismatch))?;
    let Some(at) = found else { return Ok(()) };
    let found = match algorithm.as_str() {
        "blake3" => crate::store::digest(env.store.as_ref(), &at).map_err(|e| Refusal::of_store(PHASE, &e))?.0,
        "sha256" => crate::store::sha256(env.store.as_ref(), &at).map_err(|e| Refusal::of_store(PHASE, &e))?,
        _ => return Ok(()),
    };
    if found == *wanted {
        return Ok(());
    }
    Err(refuse(
        ReasonCode::OutputDigestMismatch,
        format!("output {} ({}) has {algorithm}:{found}, but its locator names {wanted}", locator.output_id, locator.path),
    ))
}

fn check_ownership(env: &Env) -> Result<String, Refusal> {
    let found = env
        .corridor("")
        .file(RefType::OwnershipBoundary, env.config.text("paths", "ownership"), "to hold the boundaries of this program")
        .map_err(|denied| Refusal::of_denial(PHASE, &denied, ReasonCode::OwnershipBoundaryViolation))?;
    let Some(path) = found else { return Ok("built-in".into()) };
    match std::fs::metadata(&path) {
        Err(e) => Err(refuse(ReasonCode::OwnershipBoundaryViolation, format!("{}: {e}", path.display()))),
        Ok(data) if data.len() > OWNERSHIP_BYTES => {
            Err(refuse(ReasonCode::OwnershipBoundaryViolation, format!("larger than the limit of {OWNERSHIP_BYTES} bytes")))
        }
        Ok(_) => {
            let text = std::fs::read_to_string(&path)
                .map_err(|e| refuse(ReasonCode::OwnershipBoundaryViolation, format!("{}: {e}", path.display())))?;
            ownership::check(&text).map_err(|p| Refusal::of_problem(PHASE, p))?;
            Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
        }
    }
}

/// The feature authority as the file holds it now, and the digest of the file.
///
/// # Errors
/// A refusal of gate 3.
pub fn feature_authority(env: &Env) -> Result<(profile::Profile, String), Refusal> {
    let given = env.config.text("paths", "features");
    let unresolved = |message: String| refuse(ReasonCode::FeatureProfileUnresolved, format!("{given}: {message}"));
    let path = env
        .corridor("")
        .file(RefType::FeatureAuthority, given, "to pin the feature definitions")
        .map_err(|denied| Refusal::of_denial(PHASE, &denied, ReasonCode::FeatureProfileUnresolved))?
        .ok_or_else(|| unresolved("nothing is there".into()))?;
    let data = std::fs::metadata(&path).map_err(|e| unresolved(e.to_string()))?;
    if data.is_dir() {
        return Err(refuse(ReasonCode::AmbiguousInput, format!("{} is a folder; nothing says which revision in it is meant", given)));
    }
    if data.len() > profile::MAX_BYTES {
        return Err(unresolved(format!("larger than the limit of {} bytes", profile::MAX_BYTES)));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| unresolved(e.to_string()))?;
    let profile = profile::parse(&text).map_err(|p| Refusal::of_problem(PHASE, p))?;
    Ok((profile, blake3::hash(text.as_bytes()).to_hex().to_string()))
}

/// The parity anchor, where the intent names one. What it lacks is found when it is compared with; that it is
/// of another run or scenario is refused here (O044).
fn anchor(intent: &Intent, facts: &RunFacts, env: &Env) -> Result<(Value, Option<Arc<Anchor>>), Refusal> {
    let Some(given) = &intent.parity_anchor_ref else { return Ok((Value::Null, None)) };
    let (_, bytes) = env
        .corridor(&intent.platform_run_id)
        .read(RefType::ParityAnchor, given, "to pin what a rebuild is held against", anchor::MAX_BYTES)
        .map_err(|denied| Refusal::of_denial(PHASE, &denied, ReasonCode::ParityAnchorInvalid))?;
    let anchor = anchor::parse(&bytes).map_err(|p| Refusal::of_problem(PHASE, p))?;
    let foreign = |what: &str, found: &str, of: &str| {
        refuse(ReasonCode::RunScopeInvalid, format!("the parity anchor is of {what} {found}, the intent of {of}"))
    };
    if let Some(run) = anchor.pin("platform_run_id").filter(|run| *run != intent.platform_run_id) {
        return Err(foreign("platform run", &run, &intent.platform_run_id));
    }
    let scenarios = &intent.scenario_run_ids;
    if let Some(scenario) = anchor.pin("scenario_run_id").filter(|s| !scenarios.is_empty() && !scenarios.contains(s)) {
        return Err(foreign("scenario run", &scenario, &scenarios.join(", ")));
    }
    let pins = json!({
        "ref": given, "kind": anchor.kind, "payload_digest": hex(&bytes), "snapshot_hash": anchor.snapshot_hash, "world_fingerprint": facts.manifest_fingerprint,
    });
    Ok((pins, Some(Arc::new(anchor))))
}

/// What is superseded must exist, and cannot be the build itself (O122).
fn check_superseded(admitted: &Admitted, id: &DatasetId, env: &Env) -> Result<(), Refusal> {
    let run = &admitted.intent().platform_run_id;
    for (old, given) in admitted.superseded().iter().zip(admitted.superseded_as_given()) {
        // A bare id says where to look, a ref is looked up as it stands.
        let named = |folder: &str| Ref::of(&[run, "ofs", folder, &format!("{old}.json")]).to_string();
        let places = if old == given { vec![named("manifests"), named("manifests_nontraining")] } else { vec![given.clone()] };
        let found = env.corridor(run).resolve(RefType::SupersededManifest, given, "to supersede what it names", &places);
        found.map_err(|denied| match denied.denied {
            Some((ReasonCode::RefNotFound, _)) => {
                refuse(ReasonCode::SupersessionLinkInvalid, format!("{old} is not published under {run}, so it cannot be superseded"))
            }
            _ => Refusal::of_denial(PHASE, &denied, ReasonCode::SupersessionLinkInvalid),
        })?;
        if *old == id.manifest_id {
            return Err(refuse(ReasonCode::SupersessionLinkInvalid, format!("{old} cannot supersede itself")));
        }
    }
    Ok(())
}

impl Pinned {
    /// The intent.
    pub fn intent(&self) -> &Intent {
        self.admitted.intent()
    }

    /// The admission that this rests on.
    pub fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// The feature group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Digest of the feature group.
    pub fn group_digest(&self) -> &str {
        &self.group_digest
    }

    /// The label types of the build with their values, sorted by name.
    pub fn vocabulary(&self) -> &[(String, Vec<String>)] {
        &self.vocabulary
    }

    /// The identity payload.
    pub fn identity(&self) -> &Value {
        &self.identity
    }

    /// The name that the data set has.
    pub fn id(&self) -> &DatasetId {
        &self.id
    }

    /// The online snapshot to compare with.
    pub fn anchor(&self) -> Option<&Anchor> {
        self.anchor.as_deref()
    }

    /// What the totals of the online snapshot are kept by, where there is one to compare with: the payload
    /// fields that may hold the key, and the scenario run.
    pub fn snapshot_scope(&self) -> Option<(&[String], &str)> {
        self.anchor.as_ref()?;
        Some((&self.group.key_precedence, self.scenario.as_deref()?))
    }

    /// How many shards the work is cut into.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// What this attempt runs under: program, profile, launcher policy. Every receipt says it, no proof does.
    pub fn running(&self) -> &Value {
        self.plan.get("running").unwrap_or(&Value::Null)
    }

    /// The resolved plan.
    pub fn plan(&self) -> &Value {
        &self.plan
    }

    /// The ref of one of this run's receipts.
    pub fn receipt_ref(&self, folder: &str) -> Ref {
        Ref::of(&[&self.intent().platform_run_id, "ofs", folder, &format!("{}.json", self.admitted.run_key())])
    }

    /// The folder of the data set.
    pub fn dataset_ref(&self) -> Ref {
        Ref::of(&[&self.intent().platform_run_id, "ofs", "datasets", &self.id.manifest_id])
    }

    /// This run's staging folder.
    pub fn staging_ref(&self) -> Ref {
        staging_ref(&self.admitted)
    }

    /// Removes the files of this run from staging whose names are `unwanted`.
    pub(super) fn clear_staging(&self, env: &Env, unwanted: impl Fn(&str) -> bool) {
        clear_staging(&self.admitted, env, unwanted);
    }

    /// Where the manifest is committed: training data sets apart from all others.
    pub fn manifest_ref(&self) -> Ref {
        let folder = if self.intent().training() { "manifests" } else { "manifests_nontraining" };
        Ref::of(&[&self.intent().platform_run_id, "ofs", folder, &format!("{}.json", self.id.manifest_id)])
    }

    /// Whether this kind publishes a data set.
    pub fn publishes(&self) -> bool {
        self.intent().kind == IntentKind::DatasetBuild
    }

    /// Asks for a published data set of this identity: one read by name, never a scan (O048, O124).
    ///
    /// # Errors
    /// `MANIFEST_IMMUTABILITY_VIOLATION` where another manifest stands under this name,
    /// `DATASET_ARTIFACT_IMMUTABILITY_VIOLATION` where the index is not one of this data set.
    pub fn find_published(&self, env: &Env) -> Result<Option<Found>, Refusal> {
        let manifest_ref = self.manifest_ref();
        let bytes = match read(env.store.as_ref(), &manifest_ref, 64 << 20) {
            Ok(bytes) => bytes,
            Err(e) if e.kind == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Refusal::of_store(Phase::Publication, &e)),
        };
        if bytes != manifest::manifest_bytes(self.intent(), &self.id) {
            return Err(Refusal::new(
                ReasonCode::ManifestImmutabilityViolation,
                Phase::Publication,
                format!("{manifest_ref} stands and is not the manifest of this identity"),
            )
            .with_evidence([format!("BLAKE3 of what stands: {}", blake3::hash(&bytes).to_hex())]));
        }
        self.found(env, hex(&bytes)).map(Some)
    }

    /// What stands of a data set of this identity whose manifest is gone.
    ///
    /// # Errors
    /// As of [`Pinned::find_published`].
    pub fn find_remains(&self, env: &Env) -> Result<Found, Refusal> {
        let mut found = self.found(env, hex(&manifest::manifest_bytes(self.intent(), &self.id)))?;
        found.missing.insert(0, self.manifest_ref().to_string());
        Ok(found)
    }

    /// What stands beside a manifest.
    fn found(&self, env: &Env, manifest_blake3: String) -> Result<Found, Refusal> {
        let (manifest_ref, index_ref) = (self.manifest_ref(), self.dataset_ref().join("index.json"));
        let index_bytes = match read(env.store.as_ref(), &index_ref, 1 << 30) {
            Ok(bytes) => bytes,
            Err(e) if e.kind == ErrorKind::NotFound => {
                return Ok(Found {
                    manifest_ref,
                    index: Value::Null,
                    manifest_blake3,
                    index_blake3: String::new(),
                    missing: vec![index_ref.to_string()],
                });
            }
            Err(e) => return Err(Refusal::of_store(Phase::Publication, &e)),
        };
        let broken = |what: String| {
            Refusal::new(ReasonCode::DatasetArtifactImmutabilityViolation, Phase::Publication, format!("{index_ref}: {what}"))
        };
        let index: Value = serde_json::from_slice(&index_bytes).map_err(|e| broken(e.to_string()))?;
        if index.get("manifest_id").and_then(Value::as_str) != Some(&self.id.manifest_id)
            || index.get("fingerprint").and_then(Value::as_str) != Some(&self.id.fingerprint)
        {
            return Err(broken("it names another data set".into()));
        }
        let missing = self.missing_files(&index, env)?;
        Ok(Found { manifest_ref, manifest_blake3, index_blake3: hex(&index_bytes), index, missing })
    }

    fn missing_files(&self, index: &Value, env: &Env) -> Result<Vec<String>, Refusal> {
        let folder = self.dataset_ref();
        let mut wanted: Vec<(Ref, Option<u64>)> = Vec::new();
        for file in index.get("files").and_then(Value::as_array).into_iter().flatten() {
            if let Some(path) = file.get("path").and_then(Value::as_str).filter(|p| crate::contract::path_safe(p)) {
                wanted.push((folder.join(path), file.get("bytes").and_then(Value::as_u64)));
            }
        }
        for name in ["replay", "labels", "features"] {
            wanted.push((folder.join("evidence").join(&format!("{name}.json")), None));
        }
        let mut missing = Vec::new();
        for (at, bytes) in wanted {
            let size = env.store.size(&at).map_err(|e| Refusal::of_store(Phase::Publication, &e))?;
            if size.is_none() || (bytes.is_some() && size != bytes) {
                missing.push(at.to_string());
            }
        }
        Ok(missing)
    }
}

fn staging_ref(admitted: &Admitted) -> Ref {
    Ref::of(&[&admitted.intent().platform_run_id, "ofs", "staging", admitted.run_key()])
}

/// Removes the files of a run from staging whose names are `unwanted`, but none that a later owner of the run
/// has written: this one may be superseded without knowing. What cannot be removed is a leftover that the
/// next time or `ofs doctor --sweep` takes.
pub(super) fn clear_staging(admitted: &Admitted, env: &Env, unwanted: impl Fn(&str) -> bool) {
    let folder = staging_ref(admitted);
    let mine = env.attempt.parse().unwrap_or(u64::MAX);
    for (at, _) in env.store.list(&folder).unwrap_or_default() {
        let name = at.as_str().strip_prefix(folder.as_str()).map(|name| name.trim_start_matches('/'));
        if name.is_some_and(|name| epoch_of(name).is_none_or(|epoch| epoch <= mine) && unwanted(name)) {
            let _ = env.store.unstage(&at);
        }
    }
}

/// The owner in a name like `unproved-<epoch>-00000`; a content-addressed name has none.
fn epoch_of(name: &str) -> Option<u64> {
    name.split('-').nth(1)?.parse().ok()
}

fn hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}
