//! Parity: the totals that the online plane must have held, rebuilt and compared with what it says it held
//! (O160 to O162).
//!
//! A comparison is made only where both sides speak of one basis, one definition and one world; each of them
//! that differs is a MISMATCH of its own class, each that is not stated makes the outcome UNCHECKABLE, and
//! nothing is guessed in its place. What the anchor says of itself (pins, as-of, basis, graph, freshness) enters
//! the recomputed `snapshot_hash` as stated; the features enter it as rebuilt.

mod content;

use serde_json::{Value, json};

use super::gate::{Env, Phase, Refusal};
use super::pin::Pinned;
use super::replay::{Incomplete, Replayed};
use super::report;
use super::totals::Tap;
use crate::contract::anchor::{Anchor, Basis, Position};
use crate::contract::intent::Intent;
use crate::contract::{OffsetKind, ReasonCode};
use crate::store::Ref;

const PHASE: Phase = Phase::Features;
/// Where reports lie.
pub const FOLDER: &str = "parity";
/// The recipe of the online plane's snapshot hash, by the name that reports give it.
const RECIPE: &str = "ofp.snapshot_hash.v0";
/// Lines of evidence that a report keeps of what is missing or differs.
const KEPT: usize = 200;

/// How a comparison ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The rebuilt totals give the anchor's own hash.
    Match,
    /// Both sides are known, and differ.
    Mismatch,
    /// Something that a comparison needs is not there. A result, and no error.
    Uncheckable,
}

/// Where the difference lies, or what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The offsets that were read.
    Basis,
    /// Feature definition or world.
    Version,
    /// The way in which equal content is written or ordered.
    Canonicalization,
    /// Records or whole keys that one side lacks.
    DataGap,
    /// The values.
    Content,
}

impl Outcome {
    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Match => "MATCH",
            Outcome::Mismatch => "MISMATCH",
            Outcome::Uncheckable => "UNCHECKABLE",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Outcome::Match, Outcome::Mismatch, Outcome::Uncheckable].into_iter().find(|o| o.as_str() == name)
    }
}

impl Class {
    const ALL: [Class; 5] = [Class::Basis, Class::Version, Class::Canonicalization, Class::DataGap, Class::Content];

    /// The name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Basis => "BASIS",
            Class::Version => "VERSION",
            Class::Canonicalization => "CANONICALIZATION",
            Class::DataGap => "DATA_GAP",
            Class::Content => "CONTENT",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == name)
    }
}

/// What a comparison came to, before it is a report.
#[derive(Debug)]
struct Verdict {
    outcome: Outcome,
    class: Option<Class>,
    /// What a comparison would have needed.
    missing: Vec<String>,
    /// What differs, most telling first.
    differences: Vec<String>,
    rebuilt: Value,
    comparison: Value,
}

impl Verdict {
    fn of(outcome: Outcome, class: Option<Class>) -> Self {
        Verdict { outcome, class, missing: Vec::new(), differences: Vec::new(), rebuilt: Value::Null, comparison: Value::Null }
    }

    fn uncheckable(class: Option<Class>, missing: impl IntoIterator<Item = String>) -> Self {
        Verdict { missing: missing.into_iter().collect(), ..Verdict::of(Outcome::Uncheckable, class) }
    }

    fn mismatch(class: Class, differences: Vec<String>) -> Self {
        Verdict { differences, ..Verdict::of(Outcome::Mismatch, Some(class)) }
    }
}

/// Proof that the comparison was made, or that it could not be: the report, complete.
#[derive(Debug)]
pub struct Compared {
    pinned: Pinned,
    report: Value,
    outcome: Outcome,
    class: Option<Class>,
}

/// What can be settled without reading a single event: an anchor that is not there or not complete, or that
/// speaks of something else.
pub fn settle(pinned: &Pinned) -> Option<Compared> {
    prerequisites(pinned).map(|verdict| made(pinned.clone(), verdict, &Value::Null))
}

/// Compares what was replayed with the anchor.
///
/// # Errors
/// The environment, and the order to stop. That the two differ is a result.
pub fn prove(replayed: &Replayed, env: &Env) -> Result<Compared, Refusal> {
    let pinned = replayed.pinned();
    let verdict = match prerequisites(pinned) {
        Some(verdict) => {
            replayed.tap().into_iter().for_each(Tap::clear);
            verdict
        }
        None => rebuilt(replayed, env)?,
    };
    let proof = replayed.proof();
    let replay = json!({
        "status": "COMPLETE", "proof_digest": crate::digest::digest(proof), "events": proof.get("events"),
        "delivered_sequence_digest": proof.get("delivered_sequence_digest"),
    });
    Ok(made(pinned.clone(), verdict, &replay))
}

/// The basis can no longer be delivered completely, so there is nothing to compare with (O058).
pub fn incomplete(replay: &Incomplete) -> Compared {
    let refusal = replay.refusal();
    let lines = std::iter::once(format!("{}: {}", refusal.code, refusal.message)).chain(refusal.evidence.iter().cloned());
    let verdict = Verdict::uncheckable(Some(Class::DataGap), lines);
    made(replay.pinned().clone(), verdict, &json!({"status": "INCOMPLETE", "proof_digest": null, "reason": refusal.code}))
}

fn prerequisites(pinned: &Pinned) -> Option<Verdict> {
    let Some(anchor) = pinned.anchor() else { return Some(Verdict::uncheckable(None, ["parity_anchor_ref".to_owned()])) };
    let mut lacks: Vec<(Option<Class>, String)> = Vec::new();
    if anchor.snapshot_hash.is_none() {
        lacks.push((None, "snapshot_hash".into()));
    }
    if let Err(missing) = &anchor.basis {
        lacks.push((Some(Class::Basis), missing.clone()));
    }
    if let Err(missing) = &anchor.definition {
        lacks.push((Some(Class::Version), missing.clone()));
    }
    if pinned.snapshot_scope().is_none() {
        lacks.push((None, "pins.scenario_run_id".into()));
    }
    if let Some((class, _)) = lacks.first() {
        return Some(Verdict::uncheckable(*class, lacks.iter().map(|(_, missing)| missing.clone())));
    }
    if let Err(differences) = reading(anchor, pinned.intent()) {
        return Some(Verdict::mismatch(Class::Basis, differences));
    }
    let versions = versions(anchor, pinned);
    if !versions.is_empty() {
        return Some(Verdict::mismatch(Class::Version, versions));
    }
    let unfit = if anchor.own_hash().is_some_and(|hash| Some(&hash) != anchor.snapshot_hash.as_ref()) {
        Some(format!("content of the anchor that {RECIPE} gives its snapshot_hash for"))
    } else if !anchor.basis_digest_holds() {
        Some("eb_offset_basis that its basis_digest fits".to_owned())
    } else {
        None
    };
    unfit.map(|missing| Verdict::uncheckable(Some(Class::Canonicalization), [missing]))
}

/// How the tokens of an anchor name the last offset that went into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// The token is the last offset.
    Last,
    /// The token is the offset that comes next.
    Next,
    /// The anchor states ranges.
    Ranges,
}

impl Reading {
    fn as_str(self) -> &'static str {
        match self {
            Reading::Last => "LAST",
            Reading::Next => "EXCLUSIVE_NEXT",
            Reading::Ranges => "RANGES",
        }
    }

    /// The readings that a kind of offset allows, the usual one first. A line file's checkpoint is always the
    /// next line; a Kafka consumer commits the last offset or the next one, and then for all partitions alike;
    /// of a sparse kind no next one is known.
    fn of(kind: OffsetKind) -> &'static [Reading] {
        match kind {
            OffsetKind::FileLine => &[Reading::Next],
            OffsetKind::KafkaOffset => &[Reading::Last, Reading::Next],
            OffsetKind::KinesisSequence => &[Reading::Last],
        }
    }
}

/// How the anchor's basis is to be read so that it is the intent's, or how the two differ.
fn reading(anchor: &Anchor, intent: &Intent) -> Result<Reading, Vec<String>> {
    match &anchor.basis {
        Err(missing) => Err(vec![format!("{missing} is missing")]),
        Ok(Basis::Slices(slices)) if *slices == intent.basis => Ok(Reading::Ranges),
        Ok(Basis::Slices(slices)) => {
            let only = |of: &[crate::contract::intent::Slice], not: &[crate::contract::intent::Slice], who: &str| {
                of.iter().filter(|s| !not.contains(s)).map(|s| format!("{} {}: only {who}", s.lane, s.range)).collect::<Vec<_>>()
            };
            Err([only(slices, &intent.basis, "the anchor"), only(&intent.basis, slices, "the intent")].concat())
        }
        Ok(Basis::Positions(positions)) => {
            let kind = positions.first().map_or(OffsetKind::KafkaOffset, |p| p.lane.kind);
            let tried: Vec<Vec<String>> = Reading::of(kind).iter().map(|way| disagreements(positions, intent, *way)).collect();
            match Reading::of(kind).iter().zip(&tried).find(|(_, found)| found.is_empty()) {
                Some((way, _)) => Ok(*way),
                None => Err(tried.into_iter().next().unwrap_or_default()),
            }
        }
    }
}

fn disagreements(positions: &[Position], intent: &Intent, way: Reading) -> Vec<String> {
    let lanes = intent.lanes();
    let mut found = Vec::new();
    for position in positions {
        let last = match way {
            Reading::Next if position.token == crate::contract::Offset::default() => None,
            Reading::Next => Some(position.token.previous()),
            _ => Some(position.token),
        };
        let said = || last.map_or_else(|| "nothing".to_owned(), |last| format!("up to {last}"));
        match lanes.iter().find(|(lane, _)| *lane == position.lane) {
            None => found.push(format!("{}: the anchor read {}, the intent does not read it", position.lane, said())),
            Some((lane, ranges)) => match ranges.as_slice() {
                [one] if Some(one.end) == last => {}
                [one] => found.push(format!("{lane}: the anchor read {}, the intent ends at {}", said(), one.end)),
                _ => found.push(format!("{lane}: the anchor read without a break, the intent in {} ranges", ranges.len())),
            },
        }
    }
    let unread = lanes.iter().filter(|(lane, _)| !positions.iter().any(|p| p.lane == *lane));
    found.extend(unread.map(|(lane, _)| format!("{lane}: only the intent reads it")));
    found
}

/// What of definition and world is not the same on both sides.
fn versions(anchor: &Anchor, pinned: &Pinned) -> Vec<String> {
    let Ok(definition) = &anchor.definition else { return Vec::new() };
    let plan = |pointer: &str| pinned.plan().pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let named =
        |groups: &[(String, String)]| groups.iter().map(|(name, version)| format!("{name}@{version}")).collect::<Vec<_>>().join(", ");
    let group = [(pinned.group().name.clone(), pinned.group().version.clone())];
    let (policy_id, revision, content_digest) = &definition.policy;
    let mut pairs = vec![
        ("feature_groups", named(&definition.groups), named(&group)),
        ("feature_def_policy_rev.policy_id", policy_id.clone(), plan("/feature_profile/policy_id")),
        ("feature_def_policy_rev.revision", revision.clone(), plan("/feature_profile/revision")),
        ("feature_def_policy_rev.content_digest", content_digest.to_ascii_lowercase(), plan("/feature_profile/content_digest")),
    ];
    let world = plan("/parity_anchor/world_fingerprint");
    if let Some(of_anchor) = anchor.pin("manifest_fingerprint").filter(|_| !world.is_empty()) {
        pairs.push(("pins.manifest_fingerprint", of_anchor, world));
    }
    let differ = pairs.into_iter().filter(|(_, theirs, ours)| theirs != ours);
    differ.map(|(what, theirs, ours)| format!("{what}: the anchor has {theirs}, the pins have {ours}")).collect()
}

/// Rebuilds the totals and compares them.
fn rebuilt(replayed: &Replayed, env: &Env) -> Result<Verdict, Refusal> {
    let (Some(anchor), Some(tap)) = (replayed.pinned().anchor(), replayed.tap()) else {
        return Err(Refusal::new(ReasonCode::InternalError, PHASE, "the replay was not tapped for the totals"));
    };
    let totals = tap.totals(env, replayed.work())?;
    if totals.counts.unreadable > 0 {
        let missing = format!("{} event(s) or sum(s) that the online plane reads or writes in a way of its own", totals.counts.unreadable);
        return Ok(Verdict::uncheckable(Some(Class::Canonicalization), [missing]));
    }
    let features = Value::Object(totals.by_key.iter().map(|(key, total)| (key.clone(), total.to_json())).collect());
    let hash = anchor.hash_with(&features);
    let summary = json!({"snapshot_hash": hash, "keys": totals.by_key.len(), "events": totals.counts.to_json()});
    let mut verdict = match (&anchor.features, Some(&hash) == anchor.snapshot_hash.as_ref()) {
        (_, true) => Verdict::of(Outcome::Match, None),
        (None, false) => Verdict::uncheckable(None, ["features".to_owned()]),
        (Some(held), false) => content::compare(held, &totals),
    };
    verdict.rebuilt = summary;
    Ok(verdict)
}

/// Makes the report. It holds no clock and nothing that a second attempt could see differently.
fn made(pinned: Pinned, verdict: Verdict, replay: &Value) -> Compared {
    let reading = pinned.anchor().and_then(|anchor| reading(anchor, pinned.intent()).ok()).map(Reading::as_str);
    let part = |pointer: &str| pinned.plan().pointer(pointer).cloned().unwrap_or(Value::Null);
    let kept = |lines: &[String]| lines.iter().take(KEPT).cloned().collect::<Vec<_>>();
    let report = json!({
        "schema_version": "ofs.parity_report.v1", "run_key": pinned.admitted().run_key(), "request_id": pinned.intent().request_id,
        "platform_run_id": pinned.intent().platform_run_id, "outcome": verdict.outcome.as_str(), "class": verdict.class.map(Class::as_str),
        "missing": kept(&verdict.missing), "missing_total": verdict.missing.len(),
        "differences": kept(&verdict.differences), "differences_total": verdict.differences.len(),
        "recipe": RECIPE, "anchor": part("/parity_anchor"), "anchor_offsets": reading,
        "basis_hash": part("/basis_hash"), "replay_basis": pinned.intent().basis_json(), "offset_interval": "closed",
        "scenario_run_id": pinned.snapshot_scope().map(|(_, scenario)| scenario),
        "feature_profile": part("/feature_profile"), "plan_id": part("/plan_id"),
        "replay": replay, "rebuilt": verdict.rebuilt, "comparison": verdict.comparison,
    });
    Compared { outcome: verdict.outcome, class: verdict.class, report, pinned }
}

impl Compared {
    /// Takes this run's own report again, held against the digest that the ledger recorded.
    ///
    /// # Errors
    /// `PROVENANCE_INCONSISTENT` where the report is not the one on record; the store's.
    pub fn reprove(pinned: Pinned, env: &Env, recorded: Option<&str>) -> Result<Compared, Refusal> {
        let report = report::reread(&pinned, FOLDER, env, recorded)?;
        let text = |key: &str| report.get(key).and_then(Value::as_str).unwrap_or_default();
        let outcome = Outcome::parse(text("outcome")).ok_or_else(|| report::foreign(&pinned.receipt_ref(FOLDER), "states no outcome"))?;
        let class = Class::parse(text("class"));
        Ok(Compared { pinned, outcome, class, report })
    }

    /// Publishes the report: created once, and the same again is the same.
    ///
    /// # Errors
    /// `PUBLICATION_RECEIPT_IMMUTABILITY_VIOLATION` where another report of this run stands; the store's.
    pub fn publish(&self, env: &Env) -> Result<Ref, Refusal> {
        report::publish(&self.pinned, FOLDER, &self.report, env)
    }

    /// The pins.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// How it ended.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The report.
    pub fn report(&self) -> &Value {
        &self.report
    }

    fn lines(&self, key: &str) -> Vec<String> {
        let list = self.report.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|line| line.as_str().map(str::to_owned)).collect()
    }

    /// As in the result of the run.
    pub fn summary(&self) -> Value {
        json!({
            "outcome": self.outcome.as_str(), "class": self.class.map(Class::as_str), "missing": self.lines("missing"),
            "report_ref": self.pinned.receipt_ref(FOLDER).as_str(),
        })
    }

    /// The reason that goes with it into the ledger: none for a match.
    pub fn reason(&self) -> Option<ReasonCode> {
        match (self.outcome, self.class) {
            (Outcome::Match, _) => None,
            (Outcome::Mismatch, _) => Some(ReasonCode::ParityMismatch),
            (Outcome::Uncheckable, Some(Class::Basis)) => Some(ReasonCode::ParityUncheckableBasis),
            (Outcome::Uncheckable, Some(Class::Version)) => Some(ReasonCode::ParityUncheckableVersion),
            (Outcome::Uncheckable, Some(Class::Canonicalization)) => Some(ReasonCode::ParityUncheckableCanonicalization),
            (Outcome::Uncheckable, Some(Class::DataGap)) => Some(ReasonCode::ParityUncheckableDataGap),
            (Outcome::Uncheckable, Some(Class::Content)) => Some(ReasonCode::ParityUncheckable),
            (Outcome::Uncheckable, None) => Some(ReasonCode::ParityUncheckableAnchor),
        }
    }

    /// What a parity rebuild ends with where the two sides differ (O162).
    pub fn refusal(&self) -> Option<Refusal> {
        if self.outcome != Outcome::Mismatch {
            return None;
        }
        let class = self.class.map_or("CONTENT", Class::as_str);
        let total = self.report.get("differences_total").and_then(Value::as_u64).unwrap_or(0);
        let message =
            format!("the online snapshot and its rebuild differ in {class}: {total} difference(s), in the report with their totals");
        Some(Refusal::new(ReasonCode::ParityMismatch, PHASE, message).with_evidence(self.lines("differences")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{anchor, intent};

    /// How an anchor whose one partition stands at `token` is read against a basis of offsets 0 to 9.
    fn read(kind: &str, token: &str) -> Result<Reading, Vec<String>> {
        let mut asked = intent::tests::sample();
        asked["replay_basis"][0]["offset_kind"] = json!(kind);
        let asked = intent::parse(asked.to_string().as_bytes()).unwrap();
        let basis = json!({"stream": "t", "offset_kind": kind, "offsets": [{"partition": 0, "offset": token}]});
        let anchor = anchor::parse(json!({"eb_offset_basis": basis}).to_string().as_bytes()).unwrap();
        reading(&anchor, &asked)
    }

    #[test]
    fn a_token_is_the_next_offset_or_the_last_one_by_its_kind() {
        assert_eq!(read("file_line", "10"), Ok(Reading::Next));
        assert_eq!(read("kafka_offset", "9"), Ok(Reading::Last));
        assert_eq!(read("kafka_offset", "10"), Ok(Reading::Next));
        assert_eq!(read("kinesis_sequence", "9"), Ok(Reading::Last));
        assert_eq!(read("file_line", "9").unwrap_err(), ["t/0: the anchor read up to 8, the intent ends at 9"]);
        assert_eq!(read("file_line", "0").unwrap_err(), ["t/0: the anchor read nothing, the intent ends at 9"]);
        assert_eq!(read("kinesis_sequence", "10").unwrap_err(), ["t/0: the anchor read up to 10, the intent ends at 9"]);
        assert!(read("kafka_offset", "11").is_err());
    }

    #[test]
    fn ranges_are_compared_as_ranges() {
        let asked = intent::parse(intent::tests::sample().to_string().as_bytes()).unwrap();
        let slice =
            |end: &str| json!({"topic": "t", "partition": 0, "offset_kind": "kafka_offset", "start_offset": "0", "end_offset": end});
        let anchor = |end: &str| anchor::parse(json!({"replay_basis": [slice(end)]}).to_string().as_bytes()).unwrap();
        assert_eq!(reading(&anchor("09"), &asked), Ok(Reading::Ranges));
        assert_eq!(reading(&anchor("8"), &asked).unwrap_err(), ["t/0 0-8: only the anchor", "t/0 0-9: only the intent"]);
    }

    #[test]
    fn names_of_outcomes_and_classes_are_read_back() {
        for outcome in [Outcome::Match, Outcome::Mismatch, Outcome::Uncheckable] {
            assert_eq!(Outcome::parse(outcome.as_str()), Some(outcome));
        }
        for class in Class::ALL {
            assert_eq!(Class::parse(class.as_str()), Some(class));
        }
    }
}
