//! The rule of resolution for one event, told assertion by assertion: what gate 5 decides for every row at
//! once is decided here again for one, with the reason for each that was not taken (O075 to O080).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use super::{PHASE, STATUS};
use crate::pipeline::gate::{Env, Refusal};
use crate::pipeline::parallel;
use crate::source::labels::{Assertion, LabelQuery, LabelTimeline, Stamp};
use crate::time::{Instant, ObservedTime};

/// What became of an assertion. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It is the row's label.
    Taken,
    /// Another assertion was observed later, still by the cut-off.
    Superseded,
    /// Another one of the same instant says the same and has the higher id.
    TieSameValue,
    /// Another one of the same, latest instant says otherwise, so that none is taken.
    Conflict,
    /// It was observed after the cut-off.
    Late,
    /// The same assertion stands a second time, word for word.
    Repeated,
    /// It is about a label type that the data set does not have.
    OtherType,
    /// It cannot be trusted, and gate 5 refuses a build that meets it.
    Untrusted,
}

impl Verdict {
    /// The stable name, like `SUPERSEDED`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Taken => "TAKEN",
            Verdict::Superseded => "SUPERSEDED",
            Verdict::TieSameValue => "TIE_SAME_VALUE",
            Verdict::Conflict => "CONFLICT",
            Verdict::Late => "LATE",
            Verdict::Repeated => "REPEATED",
            Verdict::OtherType => "OTHER_TYPE",
            Verdict::Untrusted => "UNTRUSTED",
        }
    }
}

/// An assertion about the event, with what became of it and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Considered {
    /// Label type.
    pub label_type: String,
    /// Observed time, where it is an instant.
    pub observed: Option<Instant>,
    /// Assertion id.
    pub assertion_id: String,
    /// Value.
    pub value: Option<String>,
    /// Effective time as written.
    pub effective: Option<String>,
    /// Digest of everything else that it says.
    pub payload_hash: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, in words.
    pub why: String,
}

/// The label of one type, as the timeline gives it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// `RESOLVED`, `CONFLICT` or `NOT_FOUND`.
    pub status: &'static str,
    /// The value, where it is resolved.
    pub value: Option<String>,
    /// Observed time of the selected or tied assertions.
    pub observed: Option<Instant>,
    /// The selected assertion.
    pub assertion_id: Option<String>,
}

/// What is asked of a timeline about one event.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// The run.
    pub platform_run_id: &'q str,
    /// The event.
    pub event_id: &'q str,
    /// The label types that are looked for.
    pub types: &'q BTreeSet<String>,
    /// The cut-off.
    pub cutoff: Instant,
    /// The values of each type, where they are known.
    pub vocabulary: &'q BTreeMap<String, Vec<String>>,
}

/// An assertion as it stands, with what is wrong with it by itself.
struct Claim {
    told: Considered,
    /// Whether it was observed by the cut-off.
    known: bool,
    fault: Option<String>,
    content: Vec<Option<String>>,
}

impl Claim {
    fn of(assertion: Assertion<'_>, question: &Question<'_>) -> Self {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let observed = assertion.observed.and_then(Stamp::instant);
        let known = observed.is_some_and(|o| ObservedTime(o).known_at(question.cutoff));
        let outside = || {
            let values = question.vocabulary.get(assertion.label_type);
            values.is_some_and(|values| !assertion.value.is_some_and(|v| values.iter().any(|known| known == v)))
        };
        let fault = if assertion.embedded_observed.is_some_and(|own| own.instant() != observed) {
            Some("its column and the assertion itself say different observed times")
        } else if let Some(fault) = assertion.fault {
            Some(fault).filter(|_| known || observed.is_none() || assertion.unread)
        } else if observed.is_none() {
            Some("its observed_time is not an RFC 3339 instant")
        } else if known && assertion.effective.is_some_and(|t| t.instant().is_none()) {
            Some("its effective_time is not an RFC 3339 instant")
        } else if known && outside() {
            Some("its value is not in the vocabulary")
        } else {
            None
        };
        // Two spellings of one instant are one content.
        let stamp = |stamp: Option<Stamp<'_>>| stamp.map(|s| s.instant().map_or_else(|| s.text().into_owned(), |at| at.to_string()));
        let content = vec![
            Some(assertion.label_type.to_owned()),
            own(assertion.value),
            stamp(assertion.effective),
            stamp(assertion.observed),
            stamp(assertion.embedded_observed),
            own(assertion.payload_hash),
            own(assertion.fault),
        ];
        let told = Considered {
            label_type: assertion.label_type.to_owned(),
            observed,
            assertion_id: assertion.id.to_owned(),
            value: own(assertion.value),
            effective: assertion.effective.map(|t| t.text().into_owned()),
            payload_hash: own(assertion.payload_hash),
            verdict: Verdict::Untrusted,
            why: String::new(),
        };
        Claim { told, known, fault: fault.map(str::to_owned), content }
    }
}

/// Every assertion of the wanted types about one event.
///
/// # Errors
/// A timeline that cannot be read, as a refusal of gate 5.
fn claims(env: &Env, timeline: &dyn LabelTimeline, question: &Question<'_>) -> Result<Vec<Claim>, Refusal> {
    let labels = |e: crate::source::labels::LabelError| Refusal::new(e.code, PHASE, e.to_string());
    let parts = timeline.parts().map_err(labels)?;
    let query = LabelQuery { platform_run_id: question.platform_run_id, types: question.types };
    let all = Mutex::new(Vec::new());
    parallel::each(
        env,
        PHASE,
        parts.len(),
        Vec::new,
        |mine: &mut Vec<Claim>, index| {
            let Some(part) = parts.get(index) else { return Ok(()) };
            timeline
                .scan(part, query, &mut |assertion| {
                    if assertion.event_id == question.event_id {
                        mine.push(Claim::of(assertion, question));
                    }
                    if env.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })
                .map_err(labels)
        },
        |mine| {
            all.lock().unwrap_or_else(PoisonError::into_inner).extend(mine);
            Ok(())
        },
    )?;
    env.check(PHASE)?;
    Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What the timeline says about one event now: the label of each of `wanted`, and what became of every
/// assertion, those of other types among them.
///
/// # Errors
/// A timeline that cannot be read, as a refusal of gate 5.
pub fn tell(
    env: &Env,
    timeline: &dyn LabelTimeline,
    wanted: &[String],
    question: &Question<'_>,
) -> Result<(BTreeMap<String, Decided>, Vec<Considered>), Refusal> {
    let mut claims = claims(env, timeline, question)?;
    // Latest first, then the highest id: the order in which the rule looks at them.
    claims.sort_by(|a, b| {
        let key = |c: &Claim| (c.told.observed, c.told.assertion_id.clone());
        a.told.label_type.cmp(&b.told.label_type).then_with(|| key(b).cmp(&key(a))).then_with(|| a.content.cmp(&b.content))
    });
    contradicted(&mut claims);
    let mut decided = BTreeMap::new();
    for name in wanted {
        let mut mine: Vec<&mut Claim> = claims.iter_mut().filter(|c| c.told.label_type == *name).collect();
        decided.insert(name.clone(), resolve(&mut mine, question.cutoff));
    }
    for claim in claims.iter_mut().filter(|c| !wanted.contains(&c.told.label_type)) {
        (claim.told.verdict, claim.told.why) = (Verdict::OtherType, "the data set has no label of this type".into());
    }
    Ok((decided, claims.into_iter().map(|c| c.told).collect()))
}

/// One id, two contents that were both known: neither can be trusted. What was observed later is none of the build's
/// knowledge, and an id that is used again then says nothing against it.
fn contradicted(claims: &mut [Claim]) {
    let mut contents: BTreeMap<String, BTreeSet<Vec<Option<String>>>> = BTreeMap::new();
    for claim in claims.iter().filter(|claim| claim.known) {
        contents.entry(claim.told.assertion_id.clone()).or_default().insert(claim.content.clone());
    }
    for claim in claims {
        if claim.fault.is_none() && claim.known && contents.get(&claim.told.assertion_id).is_some_and(|c| c.len() > 1) {
            claim.fault = Some("this assertion id stands for two contents".into());
        }
    }
}

/// Latest observed wins among what was known; several values at that instant are a CONFLICT.
fn resolve(claims: &mut [&mut Claim], cutoff: Instant) -> Decided {
    let mut seen = BTreeSet::new();
    let mut known: Vec<usize> = Vec::new();
    for (at, claim) in claims.iter_mut().enumerate() {
        let first = seen.insert((claim.told.assertion_id.clone(), claim.told.observed));
        let observed = claim.told.observed.unwrap_or(cutoff);
        let (verdict, why) = match claim.fault.take() {
            Some(fault) => (Verdict::Untrusted, fault),
            None if !first => (Verdict::Repeated, "the same assertion stands a second time".into()),
            None if observed > cutoff => {
                (Verdict::Late, format!("observed {} after the cut-off", crate::time::span(observed.0.saturating_sub(cutoff.0))))
            }
            None => {
                known.push(at);
                (Verdict::Superseded, String::new())
            }
        };
        (claim.told.verdict, claim.told.why) = (verdict, why);
    }
    let told =
        |at: usize, claims: &[&mut Claim]| claims.get(at).map(|c| (c.told.observed, c.told.value.clone(), c.told.assertion_id.clone()));
    let Some((top, value, id)) = known.first().and_then(|at| told(*at, claims)) else {
        return Decided { status: STATUS[2], value: None, observed: None, assertion_id: None };
    };
    let tied = |at: &usize| told(*at, claims).is_some_and(|(observed, ..)| observed == top);
    let conflict = known.iter().filter(|at| tied(at)).any(|at| told(*at, claims).is_some_and(|(_, v, _)| v != value));
    let stamp = top.map(|t| t.to_string()).unwrap_or_default();
    for (nth, at) in known.iter().enumerate() {
        let Some(claim) = claims.get_mut(*at) else { continue };
        (claim.told.verdict, claim.told.why) = match (claim.told.observed == top, conflict, nth) {
            (false, ..) => (Verdict::Superseded, format!("another one was observed later, at {stamp}")),
            (true, true, _) => (Verdict::Conflict, format!("several values were observed at {stamp}, so none is taken")),
            (true, false, 0) => (Verdict::Taken, "the latest that was observed by the cut-off".into()),
            (true, false, _) => {
                (Verdict::TieSameValue, format!("observed at the same instant with the same value as {id}, which has the higher id"))
            }
        };
    }
    if conflict {
        return Decided { status: STATUS[1], value: None, observed: top, assertion_id: None };
    }
    Decided { status: STATUS[0], value, observed: top, assertion_id: Some(id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(id: &str, value: &str, observed: &str) -> Claim {
        let (types, vocabulary) = (BTreeSet::new(), BTreeMap::from([("t".to_owned(), vec!["a".to_owned(), "b".to_owned()])]));
        let cutoff = Instant::parse("2026-01-10T00:00:00Z").unwrap();
        let question = Question { platform_run_id: "R", event_id: "e", types: &types, cutoff, vocabulary: &vocabulary };
        let assertion = Assertion {
            id,
            event_id: "e",
            label_type: "t",
            value: Some(value),
            effective: None,
            observed: Some(Stamp::Text(observed)),
            embedded_observed: None,
            fault: None,
            unread: false,
            payload_hash: None,
        };
        Claim::of(assertion, &question)
    }

    /// Assertions latest first, as `tell` hands them over; what became of them, and the label.
    fn judged(mut claims: Vec<Claim>) -> (Vec<&'static str>, &'static str, Option<String>) {
        contradicted(&mut claims);
        let decided = resolve(&mut claims.iter_mut().collect::<Vec<_>>(), Instant::parse("2026-01-10T00:00:00Z").unwrap());
        (claims.iter().map(|c| c.told.verdict.as_str()).collect(), decided.status, decided.assertion_id)
    }

    #[test]
    fn every_assertion_has_a_verdict_and_the_rule_is_that_of_the_gate() {
        let (first, second, late) = ("2026-01-01T00:00:00Z", "2026-01-10T00:00:00Z", "2026-01-10T00:00:00.000001Z");
        let taken = |id: &str| Some(id.to_owned());
        assert_eq!(judged(vec![]), (vec![], "NOT_FOUND", None));
        assert_eq!(judged(vec![claim("1", "a", late)]), (vec!["LATE"], "NOT_FOUND", None));
        assert_eq!(
            judged(vec![claim("4", "b", late), claim("3", "a", second), claim("2", "a", second), claim("1", "b", first)]),
            (vec!["LATE", "TAKEN", "TIE_SAME_VALUE", "SUPERSEDED"], "RESOLVED", taken("3"))
        );
        assert_eq!(
            judged(vec![claim("3", "a", second), claim("2", "b", second), claim("1", "b", first)]),
            (vec!["CONFLICT", "CONFLICT", "SUPERSEDED"], "CONFLICT", None)
        );
        assert_eq!(judged(vec![claim("1", "a", first), claim("1", "a", first)]), (vec!["TAKEN", "REPEATED"], "RESOLVED", taken("1")));
        assert_eq!(judged(vec![claim("1", "a", second), claim("1", "b", first)]), (vec!["UNTRUSTED", "UNTRUSTED"], "NOT_FOUND", None));
        // An id that is used again after the cut-off changes nothing of what was known.
        assert_eq!(judged(vec![claim("1", "b", late), claim("1", "a", first)]), (vec!["LATE", "TAKEN"], "RESOLVED", taken("1")));
        assert_eq!(judged(vec![claim("2", "z", first), claim("1", "a", "yesterday")]), (vec!["UNTRUSTED", "UNTRUSTED"], "NOT_FOUND", None));
    }
}
