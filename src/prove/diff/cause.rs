//! Which input explains a difference. The identities say what may differ; the row says which of it does.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::side::{Row, Spot};
use crate::contract::intent::{Intent, Slice};
use crate::contract::profile::Group;
use crate::prove::dataset::Opened;
use crate::time::Instant;

/// An input that explains a difference. The names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The basis: an event is in one of the two only.
    Basis,
    /// The selection: scenario runs or row filters.
    Selection,
    /// The definition: key, field, window, condition or label vocabulary.
    Definition,
    /// The definition, too, but only in what a row may see of its own partition: an event arrived after the row
    /// and counts for it on one side only.
    Availability,
    /// The label cut-off: an assertion was observed between the two.
    LabelCutoff,
    /// An assertion that one build did not know although it was observed by both cut-offs: it was added
    /// under an earlier observed time, changed or removed.
    LateAssertion,
    /// The record itself: one place, two contents, with nothing in the identities to explain it.
    Content,
}

impl Cause {
    /// The stable name, like `LABEL_CUTOFF`.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Basis => "BASIS",
            Cause::Selection => "SELECTION",
            Cause::Definition => "DEFINITION",
            Cause::Availability => "AVAILABILITY",
            Cause::LabelCutoff => "LABEL_CUTOFF",
            Cause::LateAssertion => "LATE_ASSERTION",
            Cause::Content => "CONTENT",
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Cause::Basis => "the replay basis differs",
            Cause::Selection => "scenario runs or filters differ",
            Cause::Definition => "the definition differs",
            Cause::Availability => "a late event counts where rows see by event time, and not where they see by arrival",
            Cause::LabelCutoff => "observed between the two cut-offs",
            Cause::LateAssertion => "an assertion was added, changed or removed under an observed time before both cut-offs",
            Cause::Content => "one place with two contents",
        }
    }
}

/// What can say why rows differ.
pub(in crate::prove) trait Explain {
    /// Why a row is on the left only.
    fn only_left(&self, row: &Row<'_>) -> Cause;
    /// Why a row is on the right only.
    fn only_right(&self, row: &Row<'_>) -> Cause;
    /// Why one column of a row differs.
    fn change(&self, column: &str, left: &Row<'_>, right: &Row<'_>) -> Cause;
    /// Whether both sides have the column under different definitions.
    fn redefined(&self, column: &str) -> bool;
}

/// What two identities say.
pub(super) struct Frame {
    basis: (Vec<Slice>, Vec<Slice>),
    same_basis: bool,
    same_selection: bool,
    same_key: bool,
    same_vocabulary: bool,
    same_availability: bool,
    definitions: (BTreeMap<String, Value>, BTreeMap<String, Value>),
    labels: BTreeMap<String, String>,
    first_cutoff: Instant,
    same_cutoff: bool,
}

/// The definition of every feature column.
fn definitions(group: &Group) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for feature in &group.features {
        let mut windows = group.windows.iter().map(|w| w.duration_us);
        for column in group.columns_of(feature) {
            let field = feature.input.as_ref().map(|(name, field_type)| json!([name, field_type.to_string()]));
            all.insert(
                column,
                json!({"agg": feature.agg.as_str(), "field": field, "where": feature.conditions, "duration_us": windows.next()}),
            );
        }
    }
    all
}

fn covers(basis: &[Slice], spot: &Spot<'_>) -> bool {
    basis.iter().any(|slice| spot.lies_in(&slice.lane) && slice.range.contains(spot.offset))
}

impl Frame {
    pub(super) fn of(left: &Opened, right: &Opened) -> Self {
        let (a, b): (&Intent, &Intent) = (&left.intent, &right.intent);
        let same = |key: &str| left.identity(key) == right.identity(key);
        Frame {
            same_basis: a.platform_run_id == b.platform_run_id && a.basis == b.basis,
            same_selection: a.scenario_run_ids == b.scenario_run_ids && a.row_filters == b.row_filters,
            same_key: left.group.key_precedence == right.group.key_precedence,
            same_vocabulary: same("label_vocabulary_digest"),
            same_availability: left.group.availability == right.group.availability,
            definitions: (definitions(&left.group), definitions(&right.group)),
            labels: label_columns(a, b),
            first_cutoff: a.labels.asof.min(b.labels.asof),
            same_cutoff: a.labels.asof == b.labels.asof,
            basis: (a.basis.clone(), b.basis.clone()),
        }
    }

    /// Why a row is on one side only; `other` is the basis of the side that lacks it.
    fn alone(&self, spot: &Spot<'_>, other: &[Slice]) -> Cause {
        if !covers(other, spot) {
            Cause::Basis
        } else if !self.same_selection {
            Cause::Selection
        } else if !self.same_key {
            Cause::Definition
        } else if !self.same_basis {
            // The other basis holds the same event at an earlier place, which counts there instead.
            Cause::Basis
        } else {
            Cause::Content
        }
    }

    fn label(&self, name: &str, left: &Row<'_>, right: &Row<'_>) -> Cause {
        let observed = |row: &Row<'_>| {
            let text = row.value(&format!("label_{name}_observed_utc"));
            text.as_str().and_then(|t| Instant::parse(t).ok())
        };
        // Whatever the later build knew that the earlier cut-off forbade was observed between the two.
        let later = observed(left).max(observed(right)).is_some_and(|at| at > self.first_cutoff);
        match later && !self.same_cutoff {
            true => Cause::LabelCutoff,
            false if !self.same_vocabulary => Cause::Definition,
            false => Cause::LateAssertion,
        }
    }
}

/// The label columns with their types. A type's own name may end like a suffix, so that no column can be
/// taken apart without knowing the types.
fn label_columns(left: &Intent, right: &Intent) -> BTreeMap<String, String> {
    let types = left.label_types.iter().chain(&right.label_types);
    types
        .flat_map(|name| ["", "_status", "_observed_utc", "_assertion_id"].map(|end| (format!("label_{name}{end}"), name.clone())))
        .collect()
}

impl Explain for Frame {
    fn only_left(&self, row: &Row<'_>) -> Cause {
        self.alone(row.spot(), &self.basis.1)
    }

    fn only_right(&self, row: &Row<'_>) -> Cause {
        self.alone(row.spot(), &self.basis.0)
    }

    fn change(&self, column: &str, left: &Row<'_>, right: &Row<'_>) -> Cause {
        if let Some(name) = self.labels.get(column) {
            return self.label(name, left, right);
        }
        match column {
            "event_id" | "payload_hash" => Cause::Content,
            "key" if !self.same_key => Cause::Definition,
            "key" => Cause::Content,
            _ if self.redefined(column) => Cause::Definition,
            // Where nothing else could have changed it, it is what arrived late; else no single input explains it.
            _ if !self.same_availability && self.same_basis && self.same_selection => Cause::Availability,
            _ if !self.same_basis => Cause::Basis,
            _ if !self.same_selection => Cause::Selection,
            _ => Cause::Content,
        }
    }

    fn redefined(&self, column: &str) -> bool {
        let (a, b) = (self.definitions.0.get(column), self.definitions.1.get(column));
        a != b || (a.is_some() && !self.same_key)
    }
}

/// A rebuild of one identity: nothing may differ, so what does is an input that has drifted.
pub(in crate::prove) struct Rebuild;

impl Explain for Rebuild {
    fn only_left(&self, _: &Row<'_>) -> Cause {
        Cause::Content
    }

    fn only_right(&self, _: &Row<'_>) -> Cause {
        Cause::Content
    }

    fn change(&self, column: &str, _: &Row<'_>, _: &Row<'_>) -> Cause {
        // The prefix belongs to labels; no feature may have it.
        if column.starts_with("label_") { Cause::LateAssertion } else { Cause::Content }
    }

    fn redefined(&self, _: &str) -> bool {
        false
    }
}
