//! `ofs diff`: why two data sets differ. What their identities say first, since most differences are asked
//! for there; then the rows, merged in canonical order part by part, so that neither data set is ever held:
//! every count is exact, and the first rows of each kind are told in detail with the input that explains them.

mod cause;
mod side;
mod told;
mod view;

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

pub use cause::Cause;
pub use view::{Change, ChangedRow, Columns, Counts, Diff, DiffSide, IdentityField, RowRef};

use self::cause::{Explain, Frame};
use self::side::{Row, Side};
use super::dataset::Opened;
use crate::engine::cell::{cell, same};
use crate::pipeline::gate::{Env, Phase, Refusal};
use crate::store::Ref;

pub(super) use self::cause::Rebuild;
pub(super) use self::side::open as open_rows;

/// Rows of each kind that are told in detail unless told otherwise.
pub const LIMIT: usize = 20;
/// Most rows of each kind that are told in detail: they are held in memory.
pub const MAX_LIMIT: usize = 1_000_000;

/// Compares two published data sets. Reads only.
///
/// # Errors
/// `DATASET_NOT_FOUND`, `DIGEST_MISMATCH` where what names either was altered, the store's, `INTERRUPTED`.
pub fn diff(env: &Env, left: &Ref, right: &Ref, limit: usize) -> Result<Diff, Refusal> {
    let (left, right) = (Opened::open(env, left)?, Opened::open(env, right)?);
    let frame = Frame::of(&left, &right);
    let mut diff = Diff::new(side_of(&left), side_of(&right), identity(&left, &right));
    let rows = (left.parts.clone(), right.parts.clone());
    env.progress.enter(Phase::Publication, (rows.0.len() + rows.1.len()) as u64);
    let (left, right) = (Side::open(env, &env.store, rows.0)?, Side::open(env, &env.store, rows.1)?);
    merge(left, right, &frame, limit.min(MAX_LIMIT), &mut diff)?;
    Ok(diff)
}

fn side_of(opened: &Opened) -> DiffSide {
    let text = |key: &str| opened.index.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    DiffSide {
        manifest_id: opened.manifest_id.clone(),
        manifest_ref: opened.manifest_ref.clone(),
        rows_digest: text("rows_digest"),
        rows: 0,
    }
}

/// The fields in which two identities differ.
fn identity(left: &Opened, right: &Opened) -> Vec<IdentityField> {
    fields(&left.identity, &right.identity)
}

/// The fields in which two documents differ, each as far down as it is an object on both sides.
pub fn fields(left: &Value, right: &Value) -> Vec<IdentityField> {
    let mut fields = Vec::new();
    unequal("", left, right, &mut fields);
    fields
}

fn unequal(path: &str, left: &Value, right: &Value, fields: &mut Vec<IdentityField>) {
    if left == right {
        return;
    }
    let (Value::Object(a), Value::Object(b)) = (left, right) else {
        fields.push(IdentityField { field: path.to_owned(), left: left.clone(), right: right.clone() });
        return;
    };
    for key in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        unequal(&path, &of(a), &of(b), fields);
    }
}

/// Walks both sides in canonical order.
pub(super) fn merge(mut left: Side<'_>, mut right: Side<'_>, explain: &dyn Explain, limit: usize, diff: &mut Diff) -> Result<(), Refusal> {
    diff.columns = columns(&left, &right, explain);
    let pairs = Pairs::of(&left, &right);
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(a), Some(b)) => a.cmp(&b),
        };
        match order {
            Ordering::Less => {
                if let Some(row) = left.row() {
                    diff.removed(|| row.reference(), explain.only_left(&row), limit);
                }
                diff.left.rows += 1;
                left.advance()?;
            }
            Ordering::Greater => {
                if let Some(row) = right.row() {
                    diff.added(|| row.reference(), explain.only_right(&row), limit);
                }
                diff.right.rows += 1;
                right.advance()?;
            }
            Ordering::Equal => {
                if let (Some(a), Some(b)) = (left.row(), right.row()) {
                    compare(&pairs, &a, &b, explain, limit, diff);
                }
                diff.left.rows += 1;
                diff.right.rows += 1;
                left.advance()?;
                right.advance()?;
            }
        }
    }
    Ok(())
}

/// Columns that only one side has, and those that both have under different definitions.
fn columns(left: &Side<'_>, right: &Side<'_>, explain: &dyn Explain) -> Columns {
    let (a, b): (BTreeSet<&String>, BTreeSet<&String>) = (left.names().iter().collect(), right.names().iter().collect());
    let list = |set: Vec<&&String>| set.into_iter().map(|name| (*name).clone()).collect::<Vec<String>>();
    Columns {
        only_left: list(a.difference(&b).collect()),
        only_right: list(b.difference(&a).collect()),
        redefined: list(a.intersection(&b).filter(|name| explain.redefined(name)).collect()),
    }
}

/// What the columns that both sides have are compared as.
struct Pairs {
    /// Where each shared column stands on either side; the place itself and the row id are left out.
    columns: Vec<(String, usize, usize)>,
}

/// Columns by which rows were paired, and the one that follows from the others and the definition.
const DERIVED: [&str; 6] = ["row_id", "ts_utc", "topic", "partition", "offset", "offset_kind"];

impl Pairs {
    fn of(left: &Side<'_>, right: &Side<'_>) -> Self {
        let names = left.names().iter().enumerate().filter(|(_, name)| !DERIVED.contains(&name.as_str()));
        let both = names.filter_map(|(i, name)| right.names().iter().position(|n| n == name).map(|j| (name.clone(), i, j)));
        Pairs { columns: both.collect() }
    }
}

fn compare(pairs: &Pairs, left: &Row<'_>, right: &Row<'_>, explain: &dyn Explain, limit: usize, diff: &mut Diff) {
    let both = |(_, i, j): &(String, usize, usize)| left.column(*i).zip(right.column(*j));
    let differs = |pair: &&(String, usize, usize)| both(pair).is_some_and(|(a, b)| !same(a, left.at(), b, right.at()));
    let differing: Vec<&(String, usize, usize)> = pairs.columns.iter().filter(differs).collect();
    if differing.is_empty() {
        diff.unchanged += 1;
        return;
    }
    let columns: Vec<(&str, Cause)> = differing.iter().map(|(name, ..)| (name.as_str(), explain.change(name, left, right))).collect();
    let change = |(pair, (column, cause)): (&&(String, usize, usize), &(&str, Cause))| {
        let (a, b) = both(pair)?;
        Some(Change { column: (*column).to_owned(), left: cell(a, left.at()), right: cell(b, right.at()), cause: *cause })
    };
    let row = || ChangedRow { row: right.reference(), changes: differing.iter().zip(&columns).filter_map(change).collect() };
    diff.changed(&columns, row, limit);
}
