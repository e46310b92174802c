//! The answer of `diff` as a view model: what the command line prints, what `--json` holds, and what the
//! console draws.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::cause::Cause;
use crate::pipeline::lineage::Place;
use crate::store::Ref;

/// One of the two data sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffSide {
    /// Its id.
    pub manifest_id: String,
    /// Its manifest.
    pub manifest_ref: Ref,
    /// Digest of its rows, as its index says.
    pub rows_digest: String,
    /// Rows that were read.
    pub rows: u64,
}

/// A field in which the identities differ.
#[derive(Debug, Clone, PartialEq)]
pub struct IdentityField {
    /// Its path, like `label_basis.label_asof_utc`.
    pub field: String,
    /// What the left one says.
    pub left: Value,
    /// What the right one says.
    pub right: Value,
}

/// How the columns differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Columns {
    /// Only in the left one.
    pub only_left: Vec<String>,
    /// Only in the right one.
    pub only_right: Vec<String>,
    /// In both, under different definitions.
    pub redefined: Vec<String>,
}

/// What names a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowRef {
    /// Event id.
    pub event_id: String,
    /// Key.
    pub key: String,
    /// Where the event stands.
    pub place: Place,
}

/// A value that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Column.
    pub column: String,
    /// What the left one says.
    pub left: Value,
    /// What the right one says.
    pub right: Value,
    /// What explains it.
    pub cause: Cause,
}

/// A row that both have, with different values.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangedRow {
    /// The row, as the right one has it.
    pub row: RowRef,
    /// What differs.
    pub changes: Vec<Change>,
}

/// Rows that one cause explains; a changed row with several causes counts for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows that only the right one has.
    pub added: u64,
    /// Rows that only the left one has.
    pub removed: u64,
    /// Rows that both have, with different values.
    pub changed: u64,
}

/// How two data sets differ. Counts are exact; rows are told in detail up to a limit of each kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Diff {
    /// The left one.
    pub left: DiffSide,
    /// The right one.
    pub right: DiffSide,
    /// In which fields their identities differ.
    pub identity: Vec<IdentityField>,
    /// How their columns differ.
    pub columns: Columns,
    /// Rows by kind.
    pub rows: Counts,
    /// Rows that are the same in every column that both have.
    pub unchanged: u64,
    /// Rows by what explains them.
    pub by_cause: BTreeMap<Cause, Counts>,
    /// Changed rows by column.
    pub by_column: BTreeMap<String, u64>,
    /// The first rows that only the right one has.
    pub added: Vec<(RowRef, Cause)>,
    /// The first rows that only the left one has.
    pub removed: Vec<(RowRef, Cause)>,
    /// The first rows that differ.
    pub changed: Vec<ChangedRow>,
}

impl Diff {
    pub(in crate::prove) fn new(left: DiffSide, right: DiffSide, identity: Vec<IdentityField>) -> Self {
        Diff {
            left,
            right,
            identity,
            columns: Columns::default(),
            rows: Counts::default(),
            unchanged: 0,
            by_cause: BTreeMap::new(),
            by_column: BTreeMap::new(),
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
        }
    }

    /// Whether identity and rows are the same.
    pub fn same(&self) -> bool {
        self.identity.is_empty() && self.columns == Columns::default() && self.rows == Counts::default()
    }

    pub(super) fn added(&mut self, row: impl FnOnce() -> RowRef, cause: Cause, limit: usize) {
        self.rows.added += 1;
        self.by_cause.entry(cause).or_default().added += 1;
        if self.added.len() < limit {
            self.added.push((row(), cause));
        }
    }

    pub(super) fn removed(&mut self, row: impl FnOnce() -> RowRef, cause: Cause, limit: usize) {
        self.rows.removed += 1;
        self.by_cause.entry(cause).or_default().removed += 1;
        if self.removed.len() < limit {
            self.removed.push((row(), cause));
        }
    }

    /// Counts a row by its columns that differ, and why.
    pub(super) fn changed(&mut self, columns: &[(&str, Cause)], row: impl FnOnce() -> ChangedRow, limit: usize) {
        self.rows.changed += 1;
        for cause in columns.iter().map(|(_, cause)| *cause).collect::<BTreeSet<_>>() {
            self.by_cause.entry(cause).or_default().changed += 1;
        }
        for (column, _) in columns {
            match self.by_column.get_mut(*column) {
                Some(count) => *count += 1,
                None => drop(self.by_column.insert((*column).to_owned(), 1)),
            }
        }
        if self.changed.len() < limit {
            self.changed.push(row());
        }
    }

    /// `ofs.diff.v1`.
    pub fn to_json(&self) -> Value {
        let alone = |list: &[(RowRef, Cause)]| -> Vec<Value> {
            list.iter().map(|(row, cause)| row.to_json(json!({"cause": cause.as_str()}))).collect()
        };
        let changed = |c: &ChangedRow| {
            let changes: Vec<Value> = c
                .changes
                .iter()
                .map(|c| json!({"column": c.column, "left": c.left, "right": c.right, "cause": c.cause.as_str()}))
                .collect();
            c.row.to_json(json!({"changes": changes}))
        };
        json!({
            "schema_version": "ofs.diff.v1", "same": self.same(), "left": self.left.to_json(), "right": self.right.to_json(),
            "identity": self.identity.iter().map(|f| json!({"field": f.field, "left": f.left, "right": f.right})).collect::<Vec<_>>(),
            "columns": {"only_left": self.columns.only_left, "only_right": self.columns.only_right, "redefined": self.columns.redefined},
            "counts": {"added": self.rows.added, "removed": self.rows.removed, "changed": self.rows.changed, "unchanged": self.unchanged},
            "by_cause": self.by_cause.iter().map(|(cause, n)| (cause.as_str().to_owned(), counts(n))).collect::<serde_json::Map<_, _>>(),
            "by_column": self.by_column, "added": alone(&self.added), "removed": alone(&self.removed),
            "changed": self.changed.iter().map(changed).collect::<Vec<_>>(),
        })
    }
}

fn counts(n: &Counts) -> Value {
    json!({"added": n.added, "removed": n.removed, "changed": n.changed})
}

impl DiffSide {
    fn to_json(&self) -> Value {
        json!({"manifest_id": self.manifest_id, "manifest_ref": self.manifest_ref.as_str(), "rows": self.rows, "rows_digest": self.rows_digest})
    }
}

impl RowRef {
    fn to_json(&self, mut more: Value) -> Value {
        if let Some(map) = more.as_object_mut() {
            map.insert("event_id".into(), json!(self.event_id));
            map.insert("key".into(), json!(self.key));
            map.insert("topic".into(), json!(self.place.lane.topic));
            map.insert("partition".into(), json!(self.place.lane.partition));
            map.insert("offset_kind".into(), json!(self.place.lane.kind));
            map.insert("offset".into(), json!(self.place.offset));
            map.insert("ts_utc".into(), json!(self.place.ts));
        }
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::intent::Lane;
    use crate::contract::{Offset, OffsetKind};
    use crate::time::Instant;

    #[test]
    fn rows_beyond_the_limit_are_counted_and_never_put_into_words() {
        let side = || DiffSide { manifest_id: "m".into(), manifest_ref: Ref::of(&["m"]), rows_digest: String::new(), rows: 0 };
        let mut diff = Diff::new(side(), side(), Vec::new());
        let made = std::cell::Cell::new(0);
        let row = || {
            made.set(made.get() + 1);
            let lane = Lane { topic: "t".into(), partition: 0, kind: OffsetKind::FileLine };
            RowRef { event_id: "e".into(), key: "k".into(), place: Place { ts: Instant(0), lane, offset: Offset::default() } }
        };
        for _ in 0..5 {
            diff.added(row, Cause::Basis, 2);
            diff.removed(row, Cause::Selection, 1);
            let columns = [("a", Cause::Content), ("b", Cause::Content)];
            diff.changed(&columns, || ChangedRow { row: row(), changes: Vec::new() }, 0);
        }
        assert_eq!((made.get(), diff.added.len(), diff.removed.len(), diff.changed.len()), (3, 2, 1, 0));
        assert_eq!(diff.rows, Counts { added: 5, removed: 5, changed: 5 });
        assert_eq!(diff.by_cause[&Cause::Content], Counts { changed: 5, ..Counts::default() });
        assert_eq!(diff.by_column, BTreeMap::from([("a".to_owned(), 5), ("b".to_owned(), 5)]));
    }
}
