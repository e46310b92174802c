//! Gate 1: the intent is complete, consistent and in normal form. No I/O.

use super::gate::{Phase, Refusal};
use crate::contract::intent::{self, Intent, IntentKind};
use crate::contract::{Problem, ReasonCode};
use crate::identity;

/// Proof that an intent may be asked for.
#[derive(Debug, Clone)]
pub struct Admitted {
    intent: Intent,
    superseded: Vec<String>,
    superseded_as_given: Vec<String>,
    supersede_reason: Option<String>,
    request_hash: String,
    run_key: String,
}

/// A refusal at admission with what its ledger record needs.
#[derive(Debug, Clone)]
pub struct NotAdmitted {
    /// The key under which it is recorded.
    pub run_key: String,
    /// The request id, if it is a valid one.
    pub request_id: Option<String>,
    /// The platform run, if one is named.
    pub platform_run_id: Option<String>,
    /// The intent kind, if a known one is named.
    pub intent_kind: Option<String>,
    /// Why.
    pub refusal: Refusal,
    /// Every problem found.
    pub problems: Vec<Problem>,
}

/// What comes with an intent besides its file.
#[derive(Debug, Clone, Default)]
pub struct Supersession {
    /// What the build supersedes: manifest ids, or refs of manifests.
    pub manifests: Vec<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Admits an intent.
///
/// # Errors
/// All problems at once; the first one gives the code.
pub fn prove(text: &[u8], supersession: Supersession, active_run: &str) -> Result<Admitted, Box<NotAdmitted>> {
    let intent = intent::parse(text).map_err(|refused| {
        let run_key = refused.request_id.as_deref().map_or_else(|| identity::invalid_run_key(text), identity::run_key);
        Box::new(NotAdmitted {
            run_key,
            refusal: of_problems(&refused.problems),
            request_id: refused.request_id,
            platform_run_id: refused.platform_run_id,
            intent_kind: refused.intent_kind,
            problems: refused.problems,
        })
    })?;
    let mut named: Vec<(String, String)> = supersession.manifests.into_iter().map(|given| named(given, &intent.platform_run_id)).collect();
    named.sort();
    named.dedup_by(|later, earlier| later.0 == earlier.0);
    let (superseded, superseded_as_given): (Vec<String>, Vec<String>) = named.into_iter().unzip();
    let problems = consistency(&intent, &superseded, supersession.reason.as_deref(), active_run);
    let run_key = identity::run_key(&intent.request_id);
    if problems.is_empty() {
        let request_hash = identity::request_hash(&intent, &superseded);
        return Ok(Admitted { intent, superseded, superseded_as_given, supersede_reason: supersession.reason, request_hash, run_key });
    }
    Err(Box::new(NotAdmitted {
        run_key,
        request_id: Some(intent.request_id),
        platform_run_id: Some(intent.platform_run_id),
        intent_kind: Some(intent.kind.as_str().to_owned()),
        refusal: of_problems(&problems),
        problems,
    }))
}

/// The id of a superseded manifest, and how it was given. A ref names the id by its last segment; one of the
/// run itself says no more than the id does, any other has to be resolved as it stands.
fn named(given: String, run: &str) -> (String, String) {
    let parts = given.rsplit_once('/').and_then(|(folder, name)| {
        let (run, kind) = folder.rsplit_once("/ofs/")?;
        let known = ["manifests", "manifests_nontraining"].contains(&kind);
        name.strip_suffix(".json").filter(|_| known).map(|id| (id.to_owned(), run))
    });
    match parts {
        None => (given.clone(), given),
        Some((id, of)) if of == run => (id.clone(), id),
        Some((id, _)) => (id, given),
    }
}

fn of_problems(problems: &[Problem]) -> Refusal {
    match problems.first() {
        None => Refusal::new(ReasonCode::SchemaInvalid, Phase::Intent, "the intent is not readable"),
        Some(first) => {
            let more = if problems.len() > 1 { format!(" (and {} more)", problems.len() - 1) } else { String::new() };
            Refusal::new(first.code, Phase::Intent, format!("{first}{more}"))
                .with_evidence(problems.iter().map(|p| format!("{} {p}", p.code)))
        }
    }
}

fn consistency(intent: &Intent, superseded: &[String], reason: Option<&str>, active_run: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !active_run.is_empty() && intent.platform_run_id != active_run {
        problems.push(Problem::new(
            ReasonCode::RunScopeInvalid,
            "platform_run_id",
            format!("{} is not the active run {active_run} of this workspace", intent.platform_run_id),
        ));
    }
    let has_reason = reason.is_some_and(|r| !r.trim().is_empty());
    if superseded.is_empty() == has_reason {
        problems.push(Problem::new(
            ReasonCode::SupersessionLinkInvalid,
            "supersedes",
            "superseded manifests and a reason come together, or not at all",
        ));
    }
    if superseded.iter().any(|m| !m.starts_with("dm_") || m.len() != 35 || !crate::contract::path_safe(m)) {
        problems.push(Problem::new(ReasonCode::SupersessionLinkInvalid, "supersedes", "expected manifest ids like dm_ and 32 hex digits"));
    }
    if !superseded.is_empty() && intent.kind != IntentKind::DatasetBuild {
        problems.push(Problem::new(
            ReasonCode::SupersessionLinkInvalid,
            "supersedes",
            "only a dataset_build publishes something that can supersede",
        ));
    }
    problems
}

impl Admitted {
    /// The intent in normal form.
    pub fn intent(&self) -> &Intent {
        &self.intent
    }

    /// The run key of the request.
    pub fn run_key(&self) -> &str {
        &self.run_key
    }

    /// The hash of the whole request in normal form.
    pub fn request_hash(&self) -> &str {
        &self.request_hash
    }

    /// Superseded manifest ids, sorted and unique.
    pub fn superseded(&self) -> &[String] {
        &self.superseded
    }

    /// The same as they were given: ids, or refs that have to be resolved as they stand.
    pub fn superseded_as_given(&self) -> &[String] {
        &self.superseded_as_given
    }

    /// Why they are superseded.
    pub fn supersede_reason(&self) -> Option<&str> {
        self.supersede_reason.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supersession_needs_targets_and_a_reason_together() {
        let text = intent::tests::sample().to_string();
        let code = |manifests: &[&str], reason: Option<&str>| {
            let supersession =
                Supersession { manifests: manifests.iter().map(|m| (*m).to_owned()).collect(), reason: reason.map(str::to_owned) };
            prove(text.as_bytes(), supersession, "").map(|_| ()).map_err(|n| n.refusal.code)
        };
        let id = format!("dm_{}", "a".repeat(32));
        assert_eq!(code(&[], None), Ok(()));
        assert_eq!(code(&[&id], Some("late labels")), Ok(()));
        for (manifests, reason) in [(vec![id.as_str()], None), (vec![], Some("x")), (vec!["../x"], Some("x"))] {
            assert_eq!(code(&manifests, reason), Err(ReasonCode::SupersessionLinkInvalid));
        }
    }

    #[test]
    fn another_run_than_the_active_one_is_refused_with_its_request_id_kept() {
        let text = intent::tests::sample().to_string();
        let refused = prove(text.as_bytes(), Supersession::default(), "other").unwrap_err();
        assert_eq!(refused.refusal.code, ReasonCode::RunScopeInvalid);
        assert_eq!(refused.request_id.as_deref(), Some("request.001"));
        let broken = prove(b"{\"request_id\":\"short\"}", Supersession::default(), "").unwrap_err();
        assert!(broken.run_key.starts_with("invalid-") && broken.request_id.is_none());
    }
}
