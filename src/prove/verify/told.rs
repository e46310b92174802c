//! The answer of `verify` in lines.

use super::{Kind, Report, RowsChecked};
use crate::answer::{Line, Tone};
use crate::prove::supersession::Correction;
use crate::text::grouped;

impl Report {
    /// What was checked, who vouches for it, and everything that does not hold.
    pub fn lines(&self) -> Vec<Line> {
        let (tone, verdict) = if self.ok() { (Tone::Good, "ok") } else { (Tone::Bad, "NOT OK") };
        let mut lines = vec![
            Line::new(tone, format!("{verdict}  {}", self.manifest_id)),
            Line::plain(format!("manifest  {}", self.manifest_ref)),
            Line::plain(format!("checked   {}", self.things())),
            if self.anchored {
                Line::new(Tone::Good, "anchored  the ledger's chain holds the receipts that hold manifest and index")
            } else {
                Line::new(Tone::Bad, "UNANCHORED  nothing outside the store vouches for this data set")
            },
        ];
        lines.extend(match self.rebuilt {
            Some(true) => Some(Line::new(Tone::Good, "rebuilt   from the inputs as they are now, and compared")),
            Some(false) => Some(Line::new(Tone::Bad, "NOT REBUILT  what does not hold stands in the way")),
            None => None,
        });
        if !self.supersedes.is_empty() {
            lines.push(Line::plain(format!("supersedes  {}", self.supersedes.join(", "))));
        }
        lines.extend(self.superseded_by.iter().map(Correction::line));
        for problem in &self.problems {
            lines.push(Line::new(Tone::Bad, format!("{}  {}", problem.kind.as_str(), problem.place)));
            lines.push(Line::plain(format!("    expected  {}", problem.expected)));
            lines.push(Line::plain(format!("    found     {}", problem.found)));
        }
        lines
    }

    /// How much was checked, and whether rows were decoded for it.
    fn things(&self) -> String {
        let (checked, rows) = (grouped(self.checked), grouped(self.rows));
        match self.rows_checked {
            RowsChecked::ByDigest => format!("{checked} things, {rows} rows by file digest"),
            RowsChecked::Decoded => format!("{checked} things, {rows} rows among them"),
        }
    }

    /// The verdict in a few words: what a line of its own has room for.
    pub fn verdict(&self) -> String {
        let checked = grouped(self.checked);
        let things = self.things();
        let others = self.problems.iter().filter(|problem| problem.kind != Kind::Unanchored).count();
        match (self.ok(), others) {
            (true, _) => format!("VERIFIED {things}; anchored in the ledger"),
            (false, 0) => format!("UNANCHORED {checked} things agree, and nothing outside the store vouches for them"),
            (false, n) => format!("NOT OK {n} of {checked} things do not hold{}", if self.anchored { "" } else { "; UNANCHORED" }),
        }
    }
}

impl Correction {
    /// A correction of what is being looked at.
    pub fn line(&self) -> Line {
        let reason = self.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        Line::new(Tone::Warn, format!("SUPERSEDED  by {}{reason}", self.manifest_id))
    }
}
