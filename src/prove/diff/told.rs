//! The answer of `diff` in lines: identity first, then how many rows differ and which input explains them, then
//! the rows.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Change, Diff, IdentityField, RowRef};
use crate::answer::{Line, Tone};
use crate::text::{clip, grouped};

/// Most places told of one field.
const PLACES: usize = 20;

impl Diff {
    /// How the two differ.
    pub fn lines(&self) -> Vec<Line> {
        let side =
            |(mark, side): (char, &super::DiffSide)| Line::plain(format!("{mark} {}  {} rows", side.manifest_id, grouped(side.rows)));
        let mut lines: Vec<Line> = [('-', &self.left), ('+', &self.right)].map(side).into();
        if self.same() {
            lines.push(Line::new(Tone::Good, "same: identities and rows do not differ"));
            return lines;
        }
        self.identities(&mut lines);
        self.totals(&mut lines);
        for (mark, of, list) in [('-', 0, &self.removed), ('+', 1, &self.added)] {
            for (reference, cause) in list {
                lines.push(Line::plain(format!("{mark} {}  {}", row(reference), cause.as_str())).about(&reference.event_id, of));
            }
        }
        for changed in &self.changed {
            lines.push(Line::plain(format!("~ {}", row(&changed.row))).about(&changed.row.event_id, 1));
            lines.extend(changed.changes.iter().map(|told| change(told).about(&changed.row.event_id, 1)));
        }
        lines.extend(self.untold());
        lines
    }

    /// In what the identities and the columns differ.
    fn identities(&self, lines: &mut Vec<Line>) {
        lines.extend(self.identity.iter().flat_map(|field| field.lines("identity")));
        let columns = &self.columns;
        for (words, columns) in [("only in -", &columns.only_left), ("only in +", &columns.only_right), ("redefined", &columns.redefined)] {
            if !columns.is_empty() {
                lines.push(Line::new(Tone::Warn, format!("columns   {words}: {}", columns.join(", "))));
            }
        }
    }

    /// How many rows differ, by what explains them and by column.
    fn totals(&self, lines: &mut Vec<Line>) {
        let n = self.rows;
        let [added, removed, changed, unchanged] = [n.added, n.removed, n.changed, self.unchanged].map(grouped);
        lines.push(Line::new(Tone::Head, format!("rows      {added} added, {removed} removed, {changed} changed, {unchanged} unchanged")));
        for (cause, n) in &self.by_cause {
            let told: Vec<String> = [("added", n.added), ("removed", n.removed), ("changed", n.changed)]
                .into_iter()
                .filter(|(_, n)| *n > 0)
                .map(|(what, n)| format!("{} {what}", grouped(n)))
                .collect();
            lines.push(Line::new(Tone::Warn, format!("  {:<15} {}: {}", cause.as_str(), told.join(", "), cause.words())));
        }
        lines.extend(self.by_column.iter().map(|(column, n)| Line::plain(format!("  {column} differs in {} row(s)", grouped(*n)))));
    }

    /// How many rows were not told in detail.
    fn untold(&self) -> Option<Line> {
        let told = [(self.rows.removed, self.removed.len()), (self.rows.added, self.added.len()), (self.rows.changed, self.changed.len())];
        let hidden: u64 = told.iter().map(|(all, told)| all.saturating_sub(*told as u64)).sum();
        (hidden > 0).then(|| Line::new(Tone::Dim, format!("… {} more row(s); --limit N tells more of them", grouped(hidden))))
    }
}

impl IdentityField {
    /// What either side says of it; of a long document only where the two differ.
    pub fn lines(&self, what: &str) -> Vec<Line> {
        let mut lines = vec![Line::new(Tone::Head, format!("{what}  {}", self.field))];
        let mut places = Vec::new();
        differing(&self.left, &self.right, String::new(), &mut places);
        for (at, left, right) in places.iter().take(PLACES) {
            let at = if at.is_empty() { String::new() } else { format!("{at}  ") };
            lines.push(Line::plain(format!("  - {at}{}", value(left))));
            lines.push(Line::plain(format!("  + {at}{}", value(right))));
        }
        if let Some(more) = places.len().checked_sub(PLACES).filter(|more| *more > 0) {
            lines.push(Line::new(Tone::Dim, format!("  … {more} more place(s)")));
        }
        lines
    }
}

/// The places at which two documents differ, as JSON pointers; what only one side has is null on the other.
fn differing<'v>(left: &'v Value, right: &'v Value, at: String, places: &mut Vec<(String, &'v Value, &'v Value)>) {
    match (left, right) {
        _ if left == right => {}
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().for_each(|key| {
                differing(a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), format!("{at}/{key}"), places);
            });
        }
        (Value::Array(a), Value::Array(b)) => (0..a.len().max(b.len())).for_each(|n| {
            differing(a.get(n).unwrap_or(&Value::Null), b.get(n).unwrap_or(&Value::Null), format!("{at}/{n}"), places);
        }),
        _ => places.push((at, left, right)),
    }
}

fn value(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    clip(&text, 80).into_owned()
}

fn row(row: &RowRef) -> String {
    format!("{}  {} offset {} at {}", row.event_id, row.place.lane, row.place.offset, row.place.ts)
}

fn change(change: &Change) -> Line {
    let (left, right) = (value(&change.left), value(&change.right));
    Line::plain(format!("    {}: {left} -> {right}  {}", change.column, change.cause.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_a_long_document_only_what_differs_is_told() {
        let slice = |end: &str| json!({"topic": "t".repeat(100), "start_offset": "0", "end_offset": end});
        let field =
            IdentityField { field: "replay_basis".into(), left: json!([slice("1"), slice("2")]), right: json!([slice("1"), slice("9")]) };
        let told: Vec<String> = field.lines("identity").into_iter().map(|line| line.text).collect();
        assert_eq!(told, ["identity  replay_basis", "  - /1/end_offset  2", "  + /1/end_offset  9"]);
        let plain = IdentityField { field: "f".into(), left: json!("a"), right: json!("b") };
        assert_eq!(plain.lines("pin").into_iter().map(|line| line.text).collect::<Vec<_>>(), ["pin  f", "  - a", "  + b"]);
        let many = |n: usize| json!((0..30).map(|i| i * n).collect::<Vec<_>>());
        let field = IdentityField { field: "f".into(), left: many(1), right: many(2) };
        assert_eq!(field.lines("pin").last().unwrap().text, "  … 9 more place(s)");
    }
}
