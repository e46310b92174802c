//! `rows_digest`: what the rows are, whatever the file format around them.
//!
//! **Encoding of a row** (revision 1). For each column in order: a type tag, a null tag (0 null, 1
//! value), and for a value its bytes. Tags and bytes: 1 utf8 (length as u32 LE, then UTF-8), 2 int64
//! (LE), 3 int32 (LE), 4 timestamp µs UTC (i64 LE), 5 float64 (IEEE bits LE, -0.0 as 0.0), 6 bool (one
//! byte), 7 decimal (i128 LE, then the scale as i8).
//!
//! **Tree.** A leaf is BLAKE3(0x00 ‖ row); an inner node is BLAKE3(0x01 ‖ left ‖ right); a list of n
//! leaves is split at the largest power of two below n, as in RFC 6962. The root is
//! BLAKE3(0x02 ‖ schema ‖ n as u64 LE ‖ top), where schema is BLAKE3 of canonical JSON
//! `[[name, tag, scale|null],…]` and top is the top node, or 32 zero bytes without rows. So a change
//! of a column's name, of the number of rows, or of their order is a change of the root.

use arrow::array::{
    Array, AsArray, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType};
use serde_json::{Value, json};

use super::EngineError;
pub use crate::digest::many::Hash;
use crate::digest::many::Texts;

enum Column<'b> {
    Utf8(&'b StringArray),
    Int64(&'b Int64Array),
    Int32(&'b Int32Array),
    Timestamp(&'b TimestampMicrosecondArray),
    Float64(&'b Float64Array),
    Bool(&'b BooleanArray),
    Decimal(&'b Decimal128Array, i8),
}

fn tag(data_type: &DataType) -> Result<(u8, Value), EngineError> {
    Ok(match data_type {
        DataType::Utf8 => (1, Value::Null),
        DataType::Int64 => (2, Value::Null),
        DataType::Int32 => (3, Value::Null),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => (4, Value::Null),
        DataType::Float64 => (5, Value::Null),
        DataType::Boolean => (6, Value::Null),
        DataType::Decimal128(_, scale) => (7, json!(scale)),
        other => return Err(EngineError::Internal(format!("no row encoding for {other}"))),
    })
}

/// Digest of a schema, as the root covers it.
///
/// # Errors
/// A type that no column of a data set has.
pub fn schema_digest(schema: &Schema) -> Result<Hash, EngineError> {
    let columns = schema
        .fields()
        .iter()
        .map(|f| tag(f.data_type()).map(|(tag, scale)| json!([f.name(), tag, scale])))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(*blake3::hash(crate::json::canonical(&Value::Array(columns)).as_bytes()).as_bytes())
}

fn column(array: &dyn Array) -> Result<Column<'_>, EngineError> {
    Ok(match array.data_type() {
        DataType::Utf8 => Column::Utf8(array.as_string()),
        DataType::Int64 => Column::Int64(array.as_primitive::<Int64Type>()),
        DataType::Int32 => Column::Int32(array.as_primitive::<Int32Type>()),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => Column::Timestamp(array.as_primitive::<TimestampMicrosecondType>()),
        DataType::Float64 => Column::Float64(array.as_primitive::<Float64Type>()),
        DataType::Boolean => Column::Bool(array.as_boolean()),
        DataType::Decimal128(_, scale) => Column::Decimal(array.as_primitive::<Decimal128Type>(), *scale),
        other => return Err(EngineError::Internal(format!("no row encoding for {other}"))),
    })
}

/// Tag and null tag of a cell.
fn begin(tag: u8, valid: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&[tag, u8::from(valid)]);
}

/// A whole cell of eight bytes in one piece: most columns are such.
fn eight_bytes(tag: u8, value: Option<[u8; 8]>, out: &mut Vec<u8>) {
    match value {
        Some([a, b, c, d, e, f, g, h]) => out.extend_from_slice(&[tag, 1, a, b, c, d, e, f, g, h]),
        None => begin(tag, false, out),
    }
}

impl Column<'_> {
    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Column::Utf8(a) => {
                if a.is_valid(row) {
                    let text = a.value(row).as_bytes();
                    let [p, q, r, s] = (text.len() as u32).to_le_bytes();
                    out.extend_from_slice(&[1, 1, p, q, r, s]);
                    out.extend_from_slice(text);
                } else {
                    begin(1, false, out);
                }
            }
            Column::Int64(a) => eight_bytes(2, a.is_valid(row).then(|| a.value(row).to_le_bytes()), out),
            Column::Int32(a) => {
                begin(3, a.is_valid(row), out);
                if a.is_valid(row) {
                    out.extend_from_slice(&a.value(row).to_le_bytes());
                }
            }
            Column::Timestamp(a) => eight_bytes(4, a.is_valid(row).then(|| a.value(row).to_le_bytes()), out),
            // Adding zero turns -0.0 into 0.0 and leaves everything else alone.
            Column::Float64(a) => eight_bytes(5, a.is_valid(row).then(|| (a.value(row) + 0.0).to_bits().to_le_bytes()), out),
            Column::Bool(a) => {
                begin(6, a.is_valid(row), out);
                if a.is_valid(row) {
                    out.push(u8::from(a.value(row)));
                }
            }
            Column::Decimal(a, scale) => {
                begin(7, a.is_valid(row), out);
                if a.is_valid(row) {
                    out.extend_from_slice(&a.value(row).to_le_bytes());
                    out.extend_from_slice(&scale.to_le_bytes());
                }
            }
        }
    }
}

/// The leaf of every row of a batch.
///
/// # Errors
/// A type that no column of a data set has.
pub fn leaves(batch: &RecordBatch) -> Result<Vec<Hash>, EngineError> {
    let columns = batch.columns().iter().map(|a| column(a.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let mut texts = Texts::new();
    let mut leaves = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let text = texts.text();
        text.push(0);
        for column in &columns {
            column.encode(row, text);
        }
        texts.end();
        if texts.len() >= Texts::BATCH {
            texts.digest_into(&mut leaves);
        }
    }
    texts.digest_into(&mut leaves);
    Ok(leaves)
}

/// The encoding of one row of a batch: what its leaf is taken of, after the leaf's own first byte.
///
/// # Errors
/// A type that no column of a data set has.
pub fn encoded(batch: &RecordBatch, row: usize) -> Result<Vec<u8>, EngineError> {
    let mut bytes = Vec::with_capacity(512);
    for array in batch.columns() {
        column(array.as_ref())?.encode(row, &mut bytes);
    }
    Ok(bytes)
}

fn node_text(left: &Hash, right: &Hash, out: &mut Vec<u8>) {
    out.push(1);
    out.extend_from_slice(left);
    out.extend_from_slice(right);
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let mut text = Vec::with_capacity(65);
    node_text(left, right, &mut text);
    *blake3::hash(&text).as_bytes()
}

/// The nodes above a level of an even number of nodes.
fn above(level: &[Hash], texts: &mut Texts) -> Vec<Hash> {
    let mut nodes = Vec::with_capacity(level.len() / 2);
    for pair in level.chunks_exact(2) {
        if let [left, right] = pair {
            node_text(left, right, texts.text());
            texts.end();
        }
        if texts.len() >= Texts::BATCH {
            texts.digest_into(&mut nodes);
        }
    }
    texts.digest_into(&mut nodes);
    nodes
}

/// The way of one leaf to the top: what its subtree was joined with, from the bottom up. On which side each
/// stands follows from the number of the leaf and the number of all.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// Number of the watched leaf, from 0; nothing is noted where none is watched.
    pub leaf: Option<u64>,
    /// The siblings.
    pub path: Vec<Hash>,
}

impl Audit {
    /// Two neighbouring subtrees, the left of which begins at leaf `from`, become one.
    fn joined(&mut self, from: u64, left: (u64, &Hash), right: (u64, &Hash)) {
        let Some(leaf) = self.leaf else { return };
        if (from..from + left.0).contains(&leaf) {
            self.path.push(*right.1);
        } else if (from + left.0..from + left.0 + right.0).contains(&leaf) {
            self.path.push(*left.1);
        }
    }
}

/// The tree while it grows: complete subtrees with their sizes, largest first.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    stack: Vec<(u64, Hash)>,
    count: u64,
}

impl Tree {
    /// A tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next leaf, and notes what the watched leaf meets on its way up.
    pub fn push_beside(&mut self, leaf: Hash, audit: &mut Audit) {
        self.grow(1, leaf, audit);
    }

    /// Adds the next leaves.
    pub fn extend(&mut self, mut leaves: &[Hash]) {
        let mut texts = Texts::new();
        while !leaves.is_empty() {
            // The largest complete subtree that can begin here and has all its leaves.
            let fits = 1 << leaves.len().ilog2();
            let size = 1u64.checked_shl(self.count.trailing_zeros()).map_or(fits, |aligned| fits.min(aligned));
            let Some((subtree, rest)) = leaves.split_at_checked(usize::try_from(size).unwrap_or(1)) else { return };
            leaves = rest;
            let mut level = above(subtree, &mut texts);
            while level.len() > 1 {
                level = above(&level, &mut texts);
            }
            self.grow(size, level.first().or(subtree.first()).copied().unwrap_or_default(), &mut Audit::default());
        }
    }

    /// Adds a complete subtree of `size` leaves.
    fn grow(&mut self, size: u64, top: Hash, audit: &mut Audit) {
        let mut entry = (size, top);
        self.count += size;
        while let Some((size, left)) = self.stack.last().copied().filter(|(size, _)| *size == entry.0) {
            self.stack.pop();
            audit.joined(self.count - 2 * size, (size, &left), (size, &entry.1));
            entry = (size * 2, node(&left, &entry.1));
        }
        self.stack.push(entry);
    }

    /// How many leaves there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The root over the schema, the count and all leaves.
    pub fn root(&self, schema: &Hash) -> Hash {
        self.root_beside(schema, &mut Audit::default())
    }

    /// As [`Tree::root`], and ends the watched leaf's way up.
    pub fn root_beside(&self, schema: &Hash, audit: &mut Audit) -> Hash {
        let mut top = None;
        for (size, left) in self.stack.iter().rev() {
            top = Some(match top {
                None => (*size, *left),
                Some((behind, right)) => {
                    audit.joined(self.count - behind - size, (*size, left), (behind, &right));
                    (behind + size, node(left, &right))
                }
            });
        }
        let top = top.map_or([0; 32], |(_, hash)| hash);
        let mut bytes = vec![2u8];
        bytes.extend_from_slice(schema);
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&top);
        *blake3::hash(&bytes).as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => [0; 32],
            [one] => *one,
            many => {
                let mut split = 1;
                while split * 2 < many.len() {
                    split *= 2;
                }
                node(&naive(&many[..split]), &naive(&many[split..]))
            }
        }
    }

    proptest! {
        #[test]
        fn the_streamed_tree_is_the_recursive_one(n in 0usize..70, cuts in prop::collection::vec(0usize..40, 0..9)) {
            let leaves: Vec<Hash> = (0..n).map(|i| *blake3::hash(&[i as u8]).as_bytes()).collect();
            let mut tree = Tree::new();
            let mut rest = leaves.as_slice();
            for cut in cuts {
                let (next, after) = rest.split_at(cut.min(rest.len()));
                tree.extend(next);
                rest = after;
            }
            tree.extend(rest);
            prop_assert_eq!(tree.count(), n as u64);
            let mut bytes = vec![2u8];
            bytes.extend_from_slice(&[9; 32]);
            bytes.extend_from_slice(&(n as u64).to_le_bytes());
            bytes.extend_from_slice(&naive(&leaves));
            prop_assert_eq!(tree.root(&[9; 32]), *blake3::hash(&bytes).as_bytes());
        }
    }

    /// The top, from a leaf and its siblings, by the recursive definition.
    fn climb(leaf: Hash, at: usize, n: usize, path: &[Hash]) -> Hash {
        let Some((last, rest)) = path.split_last() else {
            assert_eq!((at, n), (0, 1));
            return leaf;
        };
        let mut split = 1;
        while split * 2 < n {
            split *= 2;
        }
        if at < split { node(&climb(leaf, at, split, rest), last) } else { node(last, &climb(leaf, at - split, n - split, rest)) }
    }

    #[test]
    fn every_leaf_has_a_way_to_the_top() {
        for n in 1usize..40 {
            let leaves: Vec<Hash> = (0..n).map(|i| *blake3::hash(&[i as u8]).as_bytes()).collect();
            for at in 0..n {
                let (mut tree, mut audit) = (Tree::new(), Audit { leaf: Some(at as u64), path: Vec::new() });
                leaves.iter().for_each(|l| tree.push_beside(*l, &mut audit));
                let root = tree.root_beside(&[9; 32], &mut audit);
                assert_eq!(root, tree.root(&[9; 32]));
                assert_eq!(climb(leaves[at], at, n, &audit.path), naive(&leaves), "{at} of {n}");
            }
        }
    }

    fn batch(ints: Vec<Option<i64>>, texts: Vec<Option<&str>>) -> RecordBatch {
        RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(ints)) as arrow::array::ArrayRef),
            ("b", Arc::new(StringArray::from(texts)) as _),
        ])
        .unwrap()
    }

    #[test]
    fn every_cell_its_place_and_its_nullness_are_covered() {
        let rows = |b: &RecordBatch| leaves(b).unwrap();
        let plain = batch(vec![Some(1), Some(2)], vec![Some("x"), None]);
        assert_eq!(rows(&plain), rows(&plain));
        assert_ne!(rows(&plain)[1], rows(&batch(vec![Some(1), Some(2)], vec![Some("x"), Some("")]))[1]);
        assert_ne!(rows(&plain)[0], rows(&batch(vec![None, Some(2)], vec![Some("x"), None]))[0]);
        let mut other = schema_digest(&plain.schema()).unwrap();
        let renamed = RecordBatch::try_from_iter([("a", plain.column(0).clone()), ("c", plain.column(1).clone())]).unwrap();
        assert_ne!(other, schema_digest(&renamed.schema()).unwrap());
        other = schema_digest(&plain.schema()).unwrap();
        assert_ne!(Tree::new().root(&other), Tree::new().root(&[0; 32]));
        for (row, leaf) in rows(&plain).iter().enumerate() {
            let bytes = [vec![0], encoded(&plain, row).unwrap()].concat();
            assert_eq!(*leaf, *blake3::hash(&bytes).as_bytes());
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let text = crate::digest::hex(&leaves(&batch(vec![Some(-5)], vec![Some("é")])).unwrap()[0]);
        let mut row = vec![0u8, 2, 1];
        row.extend_from_slice(&(-5i64).to_le_bytes());
        row.extend_from_slice(&[1, 1, 2, 0, 0, 0, 0xc3, 0xa9]);
        assert_eq!(text, blake3::hash(&row).to_hex().to_string());
        let zeros = RecordBatch::try_from_iter([("f", Arc::new(Float64Array::from(vec![0.0, -0.0])) as arrow::array::ArrayRef)]).unwrap();
        let zeros = leaves(&zeros).unwrap();
        assert_eq!(zeros[0], zeros[1]);
    }
}
