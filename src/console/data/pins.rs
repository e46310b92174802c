//! What a run has pinned, and what the world says of it now: the intent, the plan's receipt, the feature
//! authority, the running program and its policy, other runs of the same feature set, the parity anchor.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;

use super::document::{Gap, load, receipt, text};
use super::{Origin, Source, Verdict};
use crate::console::filter::Filterable;
use crate::contract::facts;
use crate::ledger::{EventRow, RunFilter, RunRow};
use crate::pipeline::{Phase, pin};
use crate::store::Ref;

/// Newest runs that are asked whether they pin the same feature set.
const RUNS: u64 = 200;
/// Other runs whose plans are read.
const OTHERS: usize = 12;
/// Largest plan of another run, in bytes.
const MAX_PLAN: u64 = 4 << 20;

/// Whether a pin still says what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drift {
    /// It differs.
    Drift,
    /// It cannot be known.
    Unknown,
    /// It is the same.
    Same,
}

impl Drift {
    /// The word that is shown.
    pub fn word(self) -> &'static str {
        match self {
            Drift::Drift => "DRIFT",
            Drift::Unknown => "UNKNOWN",
            Drift::Same => "SAME",
        }
    }
}

/// One pinned thing: what was pinned, what is found now, and whether both are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinRow {
    /// With what it is compared: the intent, the authority, the program, another run, the anchor.
    pub against: &'static str,
    /// What.
    pub name: String,
    /// As the run has it.
    pub pinned: String,
    /// As it is found now.
    pub now: String,
    /// Whether both are one.
    pub drift: Drift,
    /// What that means, or why it cannot be known.
    pub note: String,
}

impl Filterable for PinRow {
    fn field(&self, key: &str) -> Option<Cow<'_, str>> {
        Some(match key {
            "state" | "drift" => Cow::Borrowed(self.drift.word()),
            "against" => Cow::Borrowed(self.against),
            "pin" | "name" => Cow::Borrowed(self.name.as_str()),
            _ => return None,
        })
    }

    fn age(&self) -> Option<Duration> {
        None
    }

    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(format!("{} {} {} {} {} {}", self.drift.word(), self.against, self.name, self.pinned, self.now, self.note))
    }
}

/// The pins of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinsView {
    /// Whether the plan is proved.
    pub verdict: Verdict,
    /// Where it was read from.
    pub origin: Origin,
    /// Feature set, policy and revision in a few words.
    pub subject: String,
    /// All comparisons.
    pub rows: Vec<PinRow>,
}

impl PinsView {
    /// How many rows drift, are unknown, are the same.
    pub fn counts(&self) -> (usize, usize, usize) {
        let of = |drift: Drift| self.rows.iter().filter(|r| r.drift == drift).count();
        (of(Drift::Drift), of(Drift::Unknown), of(Drift::Same))
    }

    /// Reads it.
    pub fn load(source: &Source, row: &RunRow, events: &[EventRow]) -> Self {
        let intent = row.intent.clone().unwrap_or(Value::Null);
        let found = receipt(source, row, events, Phase::Pins);
        let (verdict, origin, plan) = match found {
            Ok((at, plan)) => (Verdict::Proved, Origin::Receipt(at.to_string()), plan),
            Err(Gap::Untrusted(why)) => (Verdict::Unknown, Origin::Unknown(why), Value::Null),
            Err(Gap::Absent) => (Verdict::NotReached, Origin::Plan, Value::Null),
        };
        let mut rows = against_intent(&intent, &plan);
        rows.extend(against_authority(source, &intent, &plan));
        rows.extend(against_program(source, row, &intent, &plan));
        rows.extend(against_store(source, row, &intent, &plan));
        rows.extend(against_others(source, row, &intent, &plan));
        let set = |key: &str| text(&intent, &format!("/feature_definition_set/{key}")).unwrap_or("UNKNOWN");
        let revision = text(&plan, "/feature_profile/resolved_revision").unwrap_or("not resolved");
        let subject = format!("{}@{} {revision}", set("feature_set_id"), set("feature_set_version"));
        PinsView { verdict, origin, subject, rows }
    }
}

/// A row that compares two statements of one thing; what one side does not say is unknown.
fn row(against: &'static str, name: &str, pinned: Option<&str>, now: Result<&str, &str>, note: &str) -> PinRow {
    let (drift, found, note) = match (pinned, now) {
        (_, Err(why)) => (Drift::Unknown, "UNKNOWN", why),
        (None, Ok(now)) => (Drift::Unknown, now, "nothing is pinned to compare it with"),
        (Some(pinned), Ok(now)) if pinned == now => (Drift::Same, now, ""),
        (Some(_), Ok(now)) => (Drift::Drift, now, note),
    };
    let pinned = pinned.unwrap_or("UNKNOWN").to_owned();
    PinRow { against, name: name.to_owned(), pinned, now: found.to_owned(), drift, note: note.to_owned() }
}

/// The plan against the intent: what was asked for must be what was planned.
fn against_intent(intent: &Value, plan: &Value) -> Vec<PinRow> {
    let pairs = [
        ("feature set", "/feature_definition_set/feature_set_id", "/feature_profile/feature_set_id"),
        ("feature set version", "/feature_definition_set/feature_set_version", "/feature_profile/feature_set_version"),
        ("label cut-off", "/label_basis/label_asof_utc", "/label_basis/label_asof_utc"),
        ("policy revision", "/policy_revision", "/claimed/policy_revision"),
        ("config revision", "/config_revision", "/claimed/config_revision"),
        ("code release", "/ofs_code_release_id", "/claimed/ofs_code_release_id"),
    ];
    let planned = |pointer: &str| text(plan, pointer).ok_or("there is no plan to compare with");
    let mut rows: Vec<PinRow> = pairs
        .iter()
        .map(|(name, asked, got)| row("intent", name, text(intent, asked), planned(got), "the plan is not of this intent"))
        .collect();
    let basis = |value: &Value| value.get("replay_basis").map(|basis| crate::digest::digest(basis).chars().take(16).collect::<String>());
    let (asked, got) = (basis(intent), basis(plan));
    rows.push(row(
        "intent",
        "replay basis",
        asked.as_deref(),
        got.as_deref().ok_or("there is no plan to compare with"),
        "the plan reads other offsets",
    ));
    rows
}

/// The plan against the feature authority as it is now.
fn against_authority(source: &Source, intent: &Value, plan: &Value) -> Vec<PinRow> {
    let pinned = |key: &str| text(plan, &format!("/feature_profile/{key}"));
    let rebuild = "a rebuild under this request is refused; under a new one it is another data set";
    let now = source.env().and_then(|env| pin::configured(&env).map_err(|refusal| format!("{} {}", refusal.code, refusal.message)));
    let (profile, config) = match now {
        Ok(found) => found,
        Err(why) => {
            let names = ["policy@revision", "group digest", "label vocabulary", "file content", "run config"];
            let keys = ["resolved_revision", "group_digest", "label_vocabulary_digest", "content_digest", ""];
            return names.iter().zip(keys).map(|(name, key)| row("authority", name, pinned(key), Err(&why), "")).collect();
        }
    };
    let set = |key: &str| text(intent, &format!("/feature_definition_set/{key}")).unwrap_or_default();
    let group = profile.group(set("feature_set_id"), set("feature_set_version")).map(|g| g.digest()).map_err(|p| p.to_string());
    let revision = format!("{}@{}", profile.policy_id, profile.revision);
    vec![
        row("authority", "policy@revision", pinned("resolved_revision"), Ok(&revision), "the authority has moved on"),
        row("authority", "group digest", pinned("group_digest"), group.as_deref().map_err(String::as_str), rebuild),
        row("authority", "label vocabulary", pinned("label_vocabulary_digest"), Ok(&profile.vocabulary_digest()), rebuild),
        row(
            "authority",
            "file content",
            pinned("content_digest"),
            Ok(&profile.content_digest),
            "edited since; the digests above say what it means",
        ),
        row(
            "policy",
            "run config",
            text(plan, "/running/run_config_digest"),
            Ok(&config),
            "profile, launcher, access or replay settings differ, or an authority file",
        ),
    ]
}

/// The plan against the running program and its policy.
fn against_program(source: &Source, run: &RunRow, intent: &Value, plan: &Value) -> Vec<PinRow> {
    let launcher = source.config.launcher();
    let policy = format!("{}@{}", launcher.policy_id, launcher.revision);
    let planned = text(plan, "/running/launcher_policy/policy_id").zip(text(plan, "/running/launcher_policy/revision"));
    let planned = planned.map(|(id, revision)| format!("{id}@{revision}"));
    let release = text(plan, "/running/release").or_else(|| run.provenance.as_ref().and_then(|p| text(p, "/running_release")));
    let verify = plan.pointer("/running/verify_payload_hashes").map(Value::to_string);
    let training = text(intent, "/intent_kind") == Some("dataset_build") && intent.get("non_training_allowed") != Some(&Value::Bool(true));
    let verifies = (training || source.config.flag("replay", "verify_payload_hashes")).to_string();
    vec![
        row("program", "release", release, Ok(pin::RELEASE), "another program than the one that planned it"),
        row("policy", "launcher policy", planned.as_deref(), Ok(&policy), "another launcher policy"),
        row("policy", "profile", text(plan, "/running/profile"), Ok(source.config.text("workspace", "profile")), "another profile"),
        row("policy", "verify payload hashes", verify.as_deref(), Ok(&verifies), "hashes are checked differently now"),
    ]
}

/// Run facts and parity anchor as they lie in the store now.
fn against_store(source: &Source, run: &RunRow, intent: &Value, plan: &Value) -> Vec<PinRow> {
    let digest = |at: Option<&str>| -> Result<(String, Option<Value>), String> {
        let at = Ref::parse(at.ok_or("no ref")?).map_err(|e| e.to_string())?;
        if Some(at.first()) != run.platform_run_id.as_deref() {
            return Err(format!("{at} lies outside this run"));
        }
        match load(source, &at, facts::MAX_BYTES) {
            Ok((value, digest)) => Ok((digest, Some(value))),
            Err(Gap::Absent) => Err(format!("{at} is not there")),
            Err(Gap::Untrusted(why)) => Err(why),
        }
    };
    let now = digest(text(intent, "/run_facts_ref"));
    let now = now.as_ref().map(|(digest, _)| digest.as_str()).map_err(String::as_str);
    let mut rows = vec![row(
        "store",
        "run facts",
        text(plan, "/run_facts/digest"),
        now,
        "the run facts were written anew: a new request id is needed",
    )];
    let anchor = text(intent, "/parity_anchor_ref");
    if anchor.is_none() {
        return rows;
    }
    let found = digest(anchor);
    let now = found.as_ref().map(|(digest, _)| digest.as_str()).map_err(String::as_str);
    rows.push(row(
        "anchor",
        "anchor content",
        text(plan, "/parity_anchor/payload_digest"),
        now,
        "another snapshot than the one planned with",
    ));
    if let Ok((_, Some(anchor))) = &found {
        let said = |pointer: &str| text(anchor, pointer).ok_or("the anchor does not say");
        rows.push(row("anchor", "snapshot hash", text(plan, "/parity_anchor/snapshot_hash"), said("/snapshot_hash"), "another snapshot"));
        rows.push(row("anchor", "platform run", run.platform_run_id.as_deref(), said("/pins/platform_run_id"), "an anchor of another run"));
    }
    rows
}

/// Other runs that pin the same version of the same feature set: one version must be one definition.
fn against_others(source: &Source, run: &RunRow, intent: &Value, plan: &Value) -> Vec<PinRow> {
    let Some(set) = intent.get("feature_definition_set") else { return Vec::new() };
    let runs = match source.ledger.runs(&RunFilter { limit: Some(RUNS), ..RunFilter::default() }) {
        Ok(runs) => runs,
        Err(error) => return vec![row("other runs", "group digest", None, Err(&error.to_string()), "")],
    };
    let same =
        |other: &&RunRow| other.run_key != run.run_key && other.intent.as_ref().and_then(|i| i.get("feature_definition_set")) == Some(set);
    let pinned = text(plan, "/feature_profile/group_digest");
    let mut rows = Vec::new();
    for other in runs.iter().filter(same).take(OTHERS) {
        let at = super::document::receipt_ref(other, Phase::Pins);
        let theirs = at.and_then(|at| load(source, &at, MAX_PLAN)).ok().and_then(|(plan, _)| {
            (text(&plan, "/run_key") == Some(&other.run_key))
                .then(|| text(&plan, "/feature_profile/group_digest").map(str::to_owned))
                .flatten()
        });
        // A run that was refused before it had a plan says nothing of the definition.
        if let Some(theirs) = theirs {
            let name = format!("{} {}", other.run_key.get(..8).unwrap_or(&other.run_key), other.status);
            rows.push(row("other runs", &name, pinned, Ok(&theirs), "one version, two definitions"));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;

    fn view(world: &World) -> PinsView {
        let (source, row, events) = world.newest();
        PinsView::load(&source, &row, &events)
    }

    fn drifting(view: &PinsView) -> Vec<(&str, &str)> {
        view.rows.iter().filter(|r| r.drift == Drift::Drift).map(|r| (r.against, r.name.as_str())).collect()
    }

    #[test]
    fn a_world_at_rest_does_not_drift() {
        let view = view(&World::play("clean"));
        assert_eq!((view.verdict, drifting(&view), view.counts().1), (Verdict::Proved, vec![], 0), "{:#?}", view.rows);
        assert_eq!(view.subject, "aircraft_history@v1 ofp.features.v0@r1");
    }

    #[test]
    fn an_edited_definition_drifts_against_the_authority() {
        let world = World::play("clean");
        let path = world.root().join("authority/features_v0.yaml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("revision: r1", "revision: r2", 1)).unwrap();
        let view = view(&world);
        assert!(drifting(&view).contains(&("authority", "policy@revision")), "{:?}", drifting(&view));
        assert!(drifting(&view).contains(&("authority", "file content")));
        assert!(!drifting(&view).contains(&("authority", "group digest")));
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_never_the_same() {
        let world = World::play("clean");
        std::fs::remove_file(world.root().join("authority/features_v0.yaml")).unwrap();
        world.damage("resolved_build_plan", Some("{}"));
        let view = view(&world);
        assert_eq!(view.verdict, Verdict::Unknown);
        assert!(view.origin.unknown().is_some_and(|why| why.contains("another run")));
        assert!(view.rows.iter().filter(|r| r.against == "authority").all(|r| r.drift == Drift::Unknown && !r.note.is_empty()));
        assert!(view.rows.iter().filter(|r| r.against == "intent").all(|r| r.drift == Drift::Unknown));
    }

    #[test]
    fn another_run_of_the_same_version_with_another_definition_drifts() {
        let view = view(&World::play("profile-edited-same-version"));
        assert!(view.rows.iter().any(|r| r.against == "other runs" && r.drift == Drift::Drift), "{:#?}", view.rows);
    }
}
