//! Key by key and feature by feature: what the anchor holds against what was rebuilt.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Class, Verdict};
use crate::pipeline::totals::{Total, Totals};
use crate::text::safe;
use crate::time::Instant;

/// Features of a snapshot.
const FEATURES: [&str; 3] = ["event_count", "amount_sum", "last_event_ts_utc"];
/// Differences a report lists; the counts are complete in any case.
const LISTED: usize = 100;
/// Worst deltas that a report keeps of each feature.
const WORST: usize = 5;

/// How one value stands to the other.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stand {
    Equal,
    /// Equal in value, written otherwise.
    Spelled,
    /// Within what another order of the same events could have given.
    Ordered(f64),
    /// Different, by so much where that can be said.
    Different(Option<f64>),
}

#[derive(Debug, Default)]
struct Tally {
    equal: u64,
    spelled: u64,
    ordered: u64,
    mismatch: u64,
    missing: u64,
    extra: u64,
    worst: Vec<(f64, String, Value, Value)>,
}

impl Tally {
    fn to_json(&self) -> Value {
        let worst: Vec<Value> = self
            .worst
            .iter()
            .map(|(delta, key, theirs, ours)| json!({"key": key, "anchor": theirs, "rebuilt": ours, "delta": delta}))
            .collect();
        json!({
            "equal": self.equal, "spelled_otherwise": self.spelled, "order_of_arrival": self.ordered, "mismatch": self.mismatch,
            "missing": self.missing, "extra": self.extra, "worst": worst,
        })
    }

    fn note(&mut self, delta: f64, key: &str, theirs: &Value, ours: &Value) {
        self.worst.push((delta, key.to_owned(), theirs.clone(), ours.clone()));
        self.worst.sort_by(|a, b| b.0.abs().total_cmp(&a.0.abs()).then_with(|| a.1.cmp(&b.1)));
        self.worst.truncate(WORST);
    }
}

/// Compares two contents whose hashes differ. `missing` is what the anchor holds and the rebuild does not,
/// `extra` the reverse; deltas are the anchor's value less the rebuilt one, of times in seconds.
pub(super) fn compare(held: &Map<String, Value>, totals: &Totals) -> Verdict {
    let mut tallies: BTreeMap<&str, Tally> = FEATURES.iter().map(|f| (*f, Tally::default())).collect();
    let keys: BTreeSet<&String> = held.keys().chain(totals.by_key.keys()).collect();
    let (mut lines, mut equal, mut mismatch) = (Vec::new(), 0_u64, 0_u64);
    for key in &keys {
        match (held.get(*key), totals.by_key.get(*key)) {
            (Some(theirs), Some(ours)) => {
                let before = lines.len();
                shared(key, theirs, ours, &mut tallies, &mut lines);
                if lines.len() > before { mismatch += 1 } else { equal += 1 }
            }
            (Some(_), None) => {
                tallies.values_mut().for_each(|t| t.missing += 1);
                lines.push(format!("{}: the anchor holds it, the rebuild does not", safe(key)));
            }
            (None, _) => {
                tallies.values_mut().for_each(|t| t.extra += 1);
                lines.push(format!("{}: the rebuild holds it, the anchor does not", safe(key)));
            }
        }
    }
    let of = |count: fn(&Tally) -> u64| tallies.values().map(count).sum::<u64>();
    let (missing, extra) =
        (held.keys().filter(|k| !totals.by_key.contains_key(*k)).count(), totals.by_key.keys().filter(|k| !held.contains_key(*k)).count());
    let comparison = json!({
        "keys": {"anchor": held.len(), "rebuilt": totals.by_key.len(), "equal": equal, "mismatch": mismatch, "missing": missing, "extra": extra},
        "features": tallies.iter().map(|(feature, tally)| ((*feature).to_owned(), tally.to_json())).collect::<Map<_, _>>(),
        "differing": lines.iter().take(LISTED).collect::<Vec<_>>(), "differing_total": lines.len(),
    });
    let mut verdict = if of(|t| t.mismatch) > 0 {
        Verdict::mismatch(Class::Content, lines)
    } else if missing + extra > 0 {
        Verdict::mismatch(Class::DataGap, lines)
    } else if of(|t| t.ordered) > 0 {
        let missing = format!("order in which events of several partitions arrived, for {} key(s)", of(|t| t.ordered));
        Verdict { differences: lines, ..Verdict::uncheckable(Some(Class::Canonicalization), [missing]) }
    } else {
        Verdict::mismatch(Class::Canonicalization, lines)
    };
    verdict.comparison = comparison;
    verdict
}

/// A key that both sides hold.
fn shared(key: &str, theirs: &Value, ours: &Total, tallies: &mut BTreeMap<&str, Tally>, lines: &mut Vec<String>) {
    let rebuilt = ours.to_json();
    for feature in FEATURES {
        let (Some(tally), Some(now)) = (tallies.get_mut(feature), rebuilt.get(feature)) else { continue };
        let Some(held) = theirs.get(feature).filter(|v| !v.is_null()) else {
            tally.extra += 1;
            tally.mismatch += 1;
            lines.push(format!("{} {feature}: the anchor holds none, rebuilt {now}", safe(key)));
            continue;
        };
        let stand = match feature {
            "last_event_ts_utc" => stamps(held, now),
            "amount_sum" => numbers(held, now, ours.order_bound()),
            _ => numbers(held, now, 0.0),
        };
        let line = |how: &str| format!("{} {feature}: anchor {}, rebuilt {}{how}", safe(key), brief(held), brief(now));
        match stand {
            Stand::Equal => tally.equal += 1,
            Stand::Spelled => {
                tally.spelled += 1;
                lines.push(line(", written otherwise"));
            }
            Stand::Ordered(delta) => {
                tally.ordered += 1;
                tally.note(delta, key, held, now);
                lines.push(line(", as another order of arrival would give it"));
            }
            Stand::Different(delta) => {
                tally.mismatch += 1;
                if let Some(delta) = delta {
                    tally.note(delta, key, held, now);
                }
                lines.push(line(&delta.map(|d| format!(", delta {d}")).unwrap_or_default()));
            }
        }
    }
    for stray in theirs.as_object().into_iter().flatten().filter(|(name, _)| !FEATURES.contains(&name.as_str())) {
        if let Some(tally) = tallies.get_mut("event_count") {
            tally.mismatch += 1;
        }
        lines.push(format!("{} {}: the online plane's totals have no such feature", safe(key), safe(stray.0)));
    }
}

fn brief(value: &Value) -> String {
    safe(&crate::text::clip(&value.to_string(), 60)).into_owned()
}

fn numbers(held: &Value, now: &Value, bound: f64) -> Stand {
    use crate::contract::decimal::Token;
    let (Value::Number(a), Value::Number(b)) = (held, now) else { return Stand::Different(None) };
    if a == b {
        return Stand::Equal;
    }
    if let (Some(a), Some(b)) = (Token::parse(a.as_str(), true), Token::parse(b.as_str(), true))
        && a.normal() == b.normal()
    {
        return Stand::Spelled;
    }
    match (a.as_f64(), b.as_f64()) {
        // Another text of the same double.
        (Some(a), Some(b)) if a == b => Stand::Spelled,
        (Some(a), Some(b)) if (a - b).abs() <= bound => Stand::Ordered(a - b),
        (Some(a), Some(b)) => Stand::Different(Some(a - b).filter(|d| d.is_finite())),
        _ => Stand::Different(None),
    }
}

fn stamps(held: &Value, now: &Value) -> Stand {
    let (Some(a), Some(b)) = (held.as_str(), now.as_str()) else { return Stand::Different(None) };
    if a == b {
        return Stand::Equal;
    }
    match (Instant::parse(a), Instant::parse(b)) {
        (Ok(a), Ok(b)) if a == b => Stand::Spelled,
        (Ok(a), Ok(b)) => Stand::Different(Some(a.0.saturating_sub(b.0) as f64 / 1e6)),
        _ => Stand::Different(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    fn total(count: u64, sum: f64, spans: bool) -> Total {
        Total { count, sum, magnitude: sum.abs(), last_ts: "2026-01-01T00:00:00.000000Z".into(), spans }
    }

    /// Class, outcome and the first line, for one key with the anchor's value changed.
    fn verdict(anchor: &str, spans: bool) -> (Outcome, Option<Class>, Vec<String>, Value) {
        let held: Value = serde_json::from_str(anchor).unwrap();
        let totals = Totals { by_key: BTreeMap::from([("k:a".to_owned(), total(2, 10.5, spans))]), counts: Default::default() };
        let verdict = compare(held.as_object().unwrap(), &totals);
        (verdict.outcome, verdict.class, verdict.differences, verdict.comparison)
    }

    fn of(count: &str, sum: &str, ts: &str) -> String {
        format!("{{\"k:a\":{{\"event_count\":{count},\"amount_sum\":{sum},\"last_event_ts_utc\":\"{ts}\"}}}}")
    }
    const TS: &str = "2026-01-01T00:00:00.000000Z";

    #[test]
    fn values_that_differ_are_content_and_name_key_feature_and_delta() {
        let (outcome, class, lines, comparison) = verdict(&of("2", "11.5", TS), false);
        assert_eq!((outcome, class), (Outcome::Mismatch, Some(Class::Content)));
        assert_eq!(lines, ["k:a amount_sum: anchor 11.5, rebuilt 10.5, delta 1"]);
        assert_eq!(comparison["features"]["amount_sum"]["mismatch"], 1);
        assert_eq!(comparison["features"]["amount_sum"]["worst"][0]["key"], "k:a");
        assert_eq!(comparison["features"]["event_count"]["equal"], 1);
        assert_eq!(comparison["keys"]["mismatch"], 1);
        assert_eq!(verdict(&of("3", "10.5", TS), false).1, Some(Class::Content));
        assert_eq!(verdict(&of("2", "10.5", "2026-01-01T00:00:01Z"), false).1, Some(Class::Content));
        assert_eq!(verdict(&of("\"2\"", "10.5", TS), false).1, Some(Class::Content));
    }

    #[test]
    fn equal_values_in_other_words_are_canonicalization() {
        for anchor in [of("2", "10.50", TS), of("2.0", "10.5", TS), of("2", "10.5", "2026-01-01T00:00:00Z")] {
            let (outcome, class, lines, _) = verdict(&anchor, false);
            assert_eq!((outcome, class, lines.len()), (Outcome::Mismatch, Some(Class::Canonicalization), 1), "{anchor}");
        }
    }

    #[test]
    fn keys_that_one_side_lacks_are_a_data_gap() {
        let (outcome, class, lines, comparison) = verdict("{}", false);
        assert_eq!((outcome, class, lines.len()), (Outcome::Mismatch, Some(Class::DataGap), 1));
        assert_eq!((&comparison["keys"]["extra"], &comparison["keys"]["missing"]), (&json!(1), &json!(0)));
        let other = of("2", "10.5", TS).replace("}}", "},\"k:b\":{}}");
        let (_, class, _, comparison) = verdict(&other, false);
        assert_eq!((class, &comparison["keys"]["missing"]), (Some(Class::DataGap), &json!(1)));
    }

    #[test]
    fn what_another_order_of_arrival_would_give_cannot_be_checked() {
        let near = of("2", "10.500000000000002", TS);
        assert_eq!(verdict(&near, true).0, Outcome::Uncheckable);
        assert_eq!(verdict(&near, false).1, Some(Class::Content));
        assert_eq!(verdict(&of("2", "10.50000000001", TS), true).1, Some(Class::Content));
    }
}
