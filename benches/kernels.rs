//! The kernels that a build spends its time in, one at a time: `cargo bench --bench kernels`.
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot make its data ends")]

use std::hint::black_box;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use ofs::contract::Offset;
use ofs::contract::intent::OffsetRange;
use ofs::digest::sha256_hex;
use ofs::engine::dataset_file::PartWriter;
use ofs::engine::digest::{Tree, leaves};
use ofs::engine::interval::{RangeSet, total};
use ofs::engine::order::{by_text, places};
use ofs::engine::window::{Agg, Column, Values, Window, aggregate};
use ofs::json::Tape;

const ROWS: usize = 65_536;

fn main() {
    divan::main();
}

/// Numbers that repeat in no pattern, the same in every run.
fn scattered(n: usize) -> u64 {
    (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn ids() -> StringArray {
    (0..ROWS).map(|n| Some(format!("{:016x}{:016x}", scattered(n), scattered(n + ROWS)))).collect()
}

fn envelope(spaced: bool) -> String {
    let mut text = String::from("{\"event_id\":\"cd2b5e41c61fd36c61b65fee20b3fd76\",\"event_type\":\"transaction\",");
    text.push_str("\"manifest_fingerprint\":\"6f66732067656e657261746564206d616e69666573742066696e6765727072696e\",");
    text.push_str("\"payload\":{\"amount\":565,\"channel\":\"atm\",\"country\":\"US\",\"declined\":false,\"flow_id\":\"acct-00025870\"},");
    text.push_str("\"platform_run_id\":\"platform_20260101T000000Z\",\"seed\":1,\"ts_utc\":\"2026-01-01T00:00:18.563682Z\"}");
    if spaced { text.replace(",\"", ", \"") } else { text }
}

/// Scanning an envelope and hashing its canonical text; written canonically it is not written again.
#[divan::bench(args = [false, true])]
fn canonical_json_and_hash(bencher: Bencher<'_, '_>, spaced: bool) {
    let text = envelope(spaced);
    let (mut tape, mut scratch) = (Tape::new(), Vec::new());
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| {
        let doc = tape.parse(black_box(text.as_bytes())).unwrap();
        sha256_hex(doc.root().canonical(&mut scratch))
    });
}

/// One aggregate over 24 hours of keys with twenty events each.
#[divan::bench(args = ["count", "sum", "mean", "max"])]
fn window(bencher: Bencher<'_, '_>, what: &str) {
    let groups: Vec<Range<usize>> = (0..ROWS / 20).map(|key| key * 20..key * 20 + 20).collect();
    let ts: Vec<i64> = (0..ROWS).map(|row| (row % 20) as i64 * 7_000_000_000).collect();
    let values: Vec<i64> = (0..ROWS).map(|row| (scattered(row) % 10_000) as i64).collect();
    let (agg, column) = match what {
        "count" => (Agg::Count, None),
        "sum" => (Agg::Sum, Some(Column { values: Values::Int64(&values), valid: None })),
        "mean" => (Agg::Mean, Some(Column { values: Values::Int64(&values), valid: None })),
        _ => (Agg::Max, Some(Column { values: Values::Int64(&values), valid: None })),
    };
    let window = Window { agg, column, mask: None, duration_us: 86_400_000_000, decimal: None, arrival: None };
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| aggregate(&groups, &ts, black_box(&window)).unwrap());
}

/// Assertions brought into the order in which the first of each event is the one that counts.
#[divan::bench]
fn label_collapse(bencher: Bencher<'_, '_>) {
    let events: StringArray = ids().iter().enumerate().map(|(n, id)| id.filter(|_| n % 3 != 0)).map(|id| id.or(Some("conflict"))).collect();
    let observed: Vec<i64> = (0..ROWS).map(|n| scattered(n) as i64).collect();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| by_text(black_box(&events), |a, b| observed.get(b).cmp(&observed.get(a))).len());
}

/// Decisions joined to the rows that they are for.
#[divan::bench]
fn label_join(bencher: Bencher<'_, '_>) {
    let decisions = ids();
    let rows: Vec<&str> = decisions.iter().flatten().rev().collect();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| places(black_box(&decisions), rows.iter().copied()).unwrap());
}

fn batch() -> RecordBatch {
    let numbers = || Arc::new((0..ROWS).map(|n| Some((scattered(n) % 1_000) as i64)).collect::<Int64Array>()) as ArrayRef;
    let stamps = TimestampMicrosecondArray::from((0..ROWS as i64).collect::<Vec<_>>()).with_timezone("UTC");
    let keys: StringArray = (0..ROWS).map(|n| Some(format!("acct-{:08}", scattered(n) % 3_000))).collect();
    let columns: [(&str, ArrayRef); 8] = [
        ("row_id", Arc::new(ids())),
        ("event_id", Arc::new(ids())),
        ("ts_utc", Arc::new(stamps)),
        ("key", Arc::new(keys)),
        ("events_1h", numbers()),
        ("events_24h", numbers()),
        ("amount_sum_1h", numbers()),
        ("amount_sum_24h", numbers()),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// The leaves of a part's rows, and the tree above them.
#[divan::bench]
fn merkle_rows(bencher: Bencher<'_, '_>) {
    let batch = batch();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        let mut tree = Tree::new();
        tree.extend(&leaves(black_box(&batch)).unwrap());
        tree.root(&[0; 32])
    });
}

/// A part, encoded, compressed and digested.
#[divan::bench]
fn parquet_write(bencher: Bencher<'_, '_>) {
    let batch = batch();
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        let mut part = PartWriter::new(Vec::new(), batch.schema(), 2).unwrap();
        part.write(black_box(&batch)).unwrap();
        part.finish().unwrap()
    });
}

/// Offsets of a lane gathered into ranges and held against what was asked for; every hundredth is a gap.
#[divan::bench]
fn offset_ranges(bencher: Bencher<'_, '_>) {
    let wanted = [OffsetRange { start: Offset::from(0), end: Offset::from(ROWS as u64 - 1) }];
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        let mut covered = RangeSet::new();
        (0..ROWS as u64).filter(|n| n % 100 != 99).for_each(|n| covered.push(black_box(Offset::from(n))));
        total(&covered.missing_from(&wanted))
    });
}
