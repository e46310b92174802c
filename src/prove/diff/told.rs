//! The answer of `diff` in lines: identity first, then how many rows differ and which input explains them, then
//! the rows.

use serde_json::Value;

use super::{Change, Diff, IdentityField, RowRef};
use crate::answer::{Line, Tone};
use crate::text::{clip, grouped};

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
    /// What either side says of it.
    pub fn lines(&self, what: &str) -> [Line; 3] {
        [
            Line::new(Tone::Head, format!("{what}  {}", self.field)),
            Line::plain(format!("  - {}", value(&self.left))),
            Line::plain(format!("  + {}", value(&self.right))),
        ]
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
