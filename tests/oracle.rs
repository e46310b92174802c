//! A second opinion: a deliberately naive reference that computes whole data sets from the same inputs,
//! held against the published Parquet cell by cell over random small worlds. Nothing here is shared with
//! the program: own numbers, own label collapse, own windows (every row looks at every event), own order.

mod numbers;
mod reference;
mod world;

use std::collections::BTreeMap;
use std::fs::File;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

pub(crate) use self::reference::Cell;
use self::reference::Expected;
use self::world::World;
use crate::support::{Workspace, blake3_hex};

/// Reads a data set: column names and every row.
pub(crate) fn read(workspace: &Workspace, dataset: &Value) -> (Vec<String>, Vec<Vec<Cell>>) {
    let (mut names, mut rows) = (Vec::new(), Vec::new());
    for file in dataset["files"].as_array().unwrap() {
        let path = workspace.path(&format!("store/{}", file["ref"].as_str().unwrap()));
        assert_eq!(blake3_hex(&std::fs::read(&path).unwrap()), file["blake3"].as_str().unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        names = reader.schema().fields().iter().map(|f| f.name().clone()).collect();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            rows.extend((0..batch.num_rows()).map(|row| batch.columns().iter().map(|c| cell(c.as_ref(), row)).collect::<Vec<_>>()));
        }
    }
    (names, rows)
}

fn cell(column: &dyn Array, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Null;
    }
    match column.data_type() {
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::Int32 => Cell::Int(column.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Cell::Int(column.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => Cell::Float(column.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Boolean => Cell::Bool(column.as_boolean().value(row)),
        DataType::Decimal128(precision, scale) => {
            Cell::Decimal(column.as_primitive::<Decimal128Type>().value(row).to_string(), *precision, *scale as u8)
        }
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => {
            Cell::Instant(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        other => panic!("a column of type {other}"),
    }
}

fn compare(seed: u64, world: &World, workspace: &Workspace, result: &Value, expected: &Expected) {
    let dataset = &result["dataset"];
    let (names, rows) = read(workspace, dataset);
    assert_eq!(names, expected.columns, "seed {seed}");
    assert_eq!(rows.len(), expected.rows.len(), "seed {seed}");
    assert_eq!(dataset["rows"], json!(rows.len()), "seed {seed}");
    for (at, (found, wanted)) in rows.iter().zip(&expected.rows).enumerate() {
        // The row id rests on all the other cells and is held below.
        for ((name, found), wanted) in names.iter().zip(found).zip(wanted).skip(1) {
            assert_eq!(found, wanted, "seed {seed} row {at} ({:?}) column {name}\n{}", rows[at][1], world.authority);
        }
    }
    let index = workspace.json(&format!("store/{}/ofs/datasets/{}/index.json", world.run, dataset["manifest_id"].as_str().unwrap()));
    for (key, wanted) in &expected.index {
        assert_eq!(&index[*key], wanted, "seed {seed} index.{key}");
    }
    let group = index["identity"]["feature_definition_set"]["group_digest"].as_str().unwrap();
    for row in &rows {
        assert_eq!(row[0], Cell::Text(reference::row_id(&world.run, group, row)), "seed {seed}");
    }
}

fn check(seeds: std::ops::Range<u64>) {
    let mut ends: BTreeMap<String, u32> = BTreeMap::new();
    for seed in seeds {
        let world = World::random(seed);
        let workspace = Workspace::empty();
        world.write(&workspace);
        let run = workspace.ofs_with(
            &[("OFS_LIMITS_THREADS", ["1", "2", "8"][(seed % 3) as usize])],
            &["run", workspace.path("intents/x.json").to_str().unwrap(), "--json"],
        );
        let result = run.json();
        let code = result.pointer("/reason/code").and_then(Value::as_str).unwrap_or("DONE").to_owned();
        match reference::build(&world) {
            Ok(expected) => {
                assert_eq!(code, "DONE", "seed {seed}: the reference builds {} row(s)\n{}", expected.rows.len(), run.err);
                compare(seed, &world, &workspace, &result, &expected);
            }
            Err(refusal) => {
                assert_eq!(code, refusal, "seed {seed}: the reference refuses\n{}\n{}", run.err, world.authority);
                assert_eq!(run.code, 3, "seed {seed}");
                workspace.assert_nothing_published(&world.run);
            }
        }
        *ends.entry(code).or_default() += 1;
    }
    println!("worlds by end: {ends:?}");
    assert!(ends.get("DONE").copied().unwrap_or(0) * 2 > ends.values().sum::<u32>(), "most worlds must build: {ends:?}");
}

#[test]
fn random_worlds_are_what_a_naive_reference_says() {
    std::thread::scope(|scope| {
        let parts: Vec<_> = [0..40, 40..80, 80..120].into_iter().map(|seeds| scope.spawn(move || check(seeds))).collect();
        parts.into_iter().for_each(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    });
}

/// The reference would be worth little if the worlds never met what is hard.
#[test]
fn the_random_worlds_meet_every_kind_of_end_and_every_aggregate() {
    let (mut ends, mut aggregates): (BTreeMap<&str, u32>, BTreeMap<String, u32>) = (BTreeMap::new(), BTreeMap::new());
    let mut hidden = 0;
    for seed in 0..120 {
        let world = World::random(seed);
        *ends.entry(reference::build(&world).map_or_else(|code| code, |_| "DONE")).or_default() += 1;
        hidden += u32::from(reference::arrival_matters(&world));
        world
            .features
            .iter()
            .for_each(|f| *aggregates.entry(format!("{} {}", f.agg, f.type_name.split('(').next().unwrap())).or_default() += 1);
    }
    println!("{ends:?}\n{aggregates:?}");
    for code in [
        "DONE",
        "FEATURE_VALUE_INVALID",
        "FEATURE_OVERFLOW",
        "REPLAY_EVENT_ID_CONFLICT",
        "LABEL_SCHEMA_INCOMPATIBLE",
        "COVERAGE_POLICY_VIOLATION",
    ] {
        assert!(ends.contains_key(code), "no world ends with {code}: {ends:?}");
    }
    assert!(aggregates.len() >= 24, "{aggregates:?}");
    assert!(hidden >= 10, "{hidden} world(s) in which an event that arrived later is left out");
}

#[test]
fn the_reference_rounds_exactly() {
    numbers::check();
}
