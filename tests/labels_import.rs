//! `ofs labels import`: a new SQLite timeline that says what the file said, or nothing at all.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, LargeListArray, ListArray, ListBuilder, StringArray, StringBuilder, StructArray, UInt32Array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::contracts::{schema, valid};
use crate::support::{FLIGHTS_RUN, Output, Workspace, lines};

const LINES: &str = "labels/assertions.jsonl";

/// Imports into a folder beside the workspace, whose inputs are held.
fn import(w: &Workspace, file: &str, out: &str) -> Output {
    w.ofs(&["labels", "import", w.path(file).to_str().unwrap(), "--out", w.scratch().join(out).to_str().unwrap(), "--json"])
}

/// Whether nothing but the timeline is left of an import.
fn alone(w: &Workspace) -> bool {
    std::fs::read_dir(w.scratch()).unwrap().all(|e| !e.unwrap().file_name().to_str().unwrap().contains("import"))
}

fn assertions(w: &Workspace) -> Vec<Value> {
    w.text(LINES).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The same assertions as a Parquet file of text columns with a subject.
fn parquet(w: &Workspace, at: &str) {
    let all = assertions(w);
    let column =
        |pointer: &str| -> ArrayRef { Arc::new(all.iter().map(|a| a.pointer(pointer).and_then(Value::as_str)).collect::<StringArray>()) };
    let text = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
    let inner = Fields::from(vec![text("platform_run_id"), text("event_id")]);
    let subject = StructArray::new(inner, vec![column("/label_subject_key/platform_run_id"), column("/label_subject_key/event_id")], None);
    let names = ["label_assertion_id", "label_type", "label_value", "effective_time", "observed_time", "source_type", "payload_hash"];
    let mut columns: Vec<(String, ArrayRef)> = names.iter().map(|n| ((*n).to_owned(), column(&format!("/{n}")))).collect();
    columns.push(("label_subject_key".into(), Arc::new(subject)));
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(w.path(at)).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn builds_from_an_imported_timeline_are_those_from_its_file() {
    let raw = Workspace::flights();
    raw.build("train");
    let wanted = raw.published(FLIGHTS_RUN);
    let count = assertions(&raw).len();
    for form in ["jsonl", "parquet"] {
        let w = Workspace::flights();
        let file = if form == "jsonl" { LINES } else { "aside.parquet" };
        if form == "parquet" {
            parquet(&w, file);
        }
        let document = import(&w, file, "labels.db").expect(0).json();
        assert_eq!(
            (document["schema_version"].as_str(), document["assertions"].as_u64()),
            (Some("ofs.labels_import.v1"), Some(count as u64))
        );
        valid(&schema("labels_import_v1"), "the document", &document);
        let total: u64 = document["counts"].as_array().unwrap().iter().map(|c| c["assertions"].as_u64().unwrap()).sum();
        assert_eq!(total, count as u64);
        let timeline = w.scratch().join("labels.db");
        let environment = [("OFS_PATHS_LABELS", timeline.to_str().unwrap())];
        w.ofs_with(&environment, &["run", w.path("intents/train.json").to_str().unwrap()]).expect(0);
        assert!(w.published(FLIGHTS_RUN) == wanted, "{form}");
        // What stands is never touched, and nothing is left of the attempt.
        let before = std::fs::read(&timeline).unwrap();
        let refused = import(&w, file, "labels.db").expect(2);
        assert!(refused.err.contains("is there already"), "{}", refused.err);
        assert_eq!(std::fs::read(&timeline).unwrap(), before);
        assert!(alone(&w));
    }
}

/// All that a timeline holds.
fn held(at: &Path) -> Vec<Vec<Option<String>>> {
    let db = rusqlite::Connection::open(at).unwrap();
    let mut all = db.prepare("SELECT * FROM ls_label_timeline ORDER BY label_assertion_id").unwrap();
    let rows = all.query_map([], |row| (0..row.as_ref().column_count()).map(|at| row.get(at)).collect()).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn evidence_in_columns_is_what_it_is_in_lines() {
    let w = Workspace::flights();
    let reference =
        |n: usize, ref_id: &str| json!({"ref_id": ref_id, "ref_type": "DLA_AUDIT_RECORD", "rank": n, "tags": ["x", null, "\u{e4}\"\n"]});
    let evidence = [json!([]), json!([reference(0, "a")]), json!([reference(u32::MAX as usize, "b"), {"ref_id": "c"}]), Value::Null];
    let mut all = assertions(&w);
    for (a, refs) in all.iter_mut().zip(evidence.iter().cycle()) {
        let map = a.as_object_mut().unwrap();
        map.remove("pins");
        match refs.is_null() {
            true => map.remove("evidence_refs"),
            false => map.insert("evidence_refs".into(), refs.clone()),
        };
    }
    w.write("aside.jsonl", lines(&all));
    import(&w, "aside.jsonl", "lines.db").expect(0);
    let wanted = held(&w.scratch().join("lines.db"));

    // Every text of the lines as a column, and the evidence as lists of structs.
    let texts: BTreeSet<String> =
        all.iter().flat_map(|a| a.as_object().unwrap().iter().filter(|(_, v)| v.is_string()).map(|(k, _)| k.clone())).collect();
    let column = |of: &dyn Fn(&Value) -> Option<String>| -> ArrayRef { Arc::new(all.iter().map(of).collect::<StringArray>()) };
    let text = |v: &Value, at: &str| v.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let mut columns: Vec<(String, ArrayRef)> =
        texts.iter().map(|name| (name.clone(), column(&|a: &Value| text(a, &format!("/{name}"))))).collect();
    let field = |name: &str, kind: DataType| Arc::new(Field::new(name, kind, true));
    let inner = Fields::from(vec![field("platform_run_id", DataType::Utf8), field("event_id", DataType::Utf8)]);
    let subject = ["platform_run_id", "event_id"].map(|key| column(&|a: &Value| text(a, &format!("/label_subject_key/{key}"))));
    columns.push(("label_subject_key".into(), Arc::new(StructArray::new(inner, subject.into(), None))));
    let refs: Vec<&Value> = all.iter().flat_map(|a| a.get("evidence_refs").and_then(Value::as_array).into_iter().flatten()).collect();
    let mut tags = ListBuilder::new(StringBuilder::new());
    for entry in &refs {
        match entry.get("tags").and_then(Value::as_array) {
            Some(list) => tags.append_value(list.iter().map(|tag| tag.as_str())),
            None => tags.append_null(),
        }
    }
    let of_refs = |key: &str| -> ArrayRef { Arc::new(refs.iter().map(|r| r.get(key).and_then(Value::as_str)).collect::<StringArray>()) };
    let ranks: ArrayRef = Arc::new(refs.iter().map(|r| r.get("rank").and_then(Value::as_u64).map(|n| n as u32)).collect::<UInt32Array>());
    let tags: ArrayRef = Arc::new(tags.finish());
    let fields: Vec<_> = [("ref_type", of_refs("ref_type")), ("ref_id", of_refs("ref_id")), ("rank", ranks), ("tags", tags)].into();
    let items = Fields::from(fields.iter().map(|(name, array)| field(name, array.data_type().clone())).collect::<Vec<_>>());
    let items = StructArray::new(items, fields.into_iter().map(|(_, array)| array).collect(), None);
    let lengths = all.iter().map(|a| a.get("evidence_refs").map_or(0, |list| list.as_array().unwrap().len()));
    let valid: NullBuffer = all.iter().map(|a| a.get("evidence_refs").is_some()).collect::<Vec<_>>().into();
    let item = field("element", items.data_type().clone());
    let list = ListArray::new(item, OffsetBuffer::from_lengths(lengths), Arc::new(items), Some(valid));
    for (name, list) in [("list", Arc::new(list.clone()) as ArrayRef), ("large", large(&list))] {
        let columns = columns.iter().cloned().chain([("evidence_refs".to_owned(), list)]);
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(File::create(w.path("aside.parquet")).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        import(&w, "aside.parquet", &format!("{name}.db")).expect(0);
        assert!(held(&w.scratch().join(format!("{name}.db"))) == wanted, "{name}");
    }
}

/// The same lists with wider offsets.
fn large(list: &ListArray) -> ArrayRef {
    let DataType::List(item) = list.data_type() else { unreachable!() };
    let offsets = OffsetBuffer::new(list.offsets().iter().map(|o| i64::from(*o)).collect());
    Arc::new(LargeListArray::new(item.clone(), offsets, list.values().clone(), list.nulls().cloned()))
}

#[test]
fn an_assertion_that_cannot_be_kept_is_named_and_nothing_is_imported() {
    let refuse = |line: usize, code: &str, words: &[&str], change: &dyn Fn(&mut Vec<Value>)| {
        let w = Workspace::flights();
        let mut all = assertions(&w);
        change(&mut all);
        w.write("aside.jsonl", lines(&all));
        let refused = import(&w, "aside.jsonl", "labels.db").refused(3, code);
        for word in words.iter().chain([&format!("aside.jsonl line {line}").as_str()]) {
            assert!(refused.err.contains(word), "{word}: {}", refused.err);
        }
        assert!(!w.scratch().join("labels.db").exists());
        assert!(alone(&w));
    };
    let id = |n: usize| assertions(&Workspace::flights())[n]["label_assertion_id"].as_str().unwrap().to_owned();
    refuse(7, "LABEL_SCOPE_INVALID", &["observed_time", &id(6)], &|all| all[6]["observed_time"] = "2013-01-01 10:00".into());
    refuse(7, "LABEL_TIMELINE_INCONSISTENT", &["label_value must be text", &id(6)], &|all| all[6]["label_value"] = 5.into());
    refuse(3, "LABEL_TIMELINE_INCONSISTENT", &["event_id must be text"], &|all| all[2]["label_subject_key"]["event_id"] = "".into());
    refuse(3, "LABEL_TIMELINE_INCONSISTENT", &["without label_assertion_id"], &|all| {
        all[2].as_object_mut().unwrap().remove("label_assertion_id");
    });
    refuse(9, "LABEL_TIMELINE_INCONSISTENT", &["payload_hash must be text"], &|all| all[8]["payload_hash"] = 7.into());
    refuse(12, "LABEL_TIMELINE_INCONSISTENT", &["has two contents", &id(1)], &|all| {
        all[11] = all[1].clone();
        all[11]["label_value"] = "LATE".into();
    });
    refuse(12, "LABEL_TIMELINE_INCONSISTENT", &["expected an object"], &|all| all[11] = 5.into());
}

#[test]
fn what_is_said_twice_is_kept_once() {
    let w = Workspace::flights();
    let mut all = assertions(&w);
    let count = all.len() as u64;
    all.push(all[4].clone());
    w.write("aside.jsonl", format!("\n{}  \n", lines(&all)));
    let document = import(&w, "aside.jsonl", "labels.sqlite").expect(0).json();
    assert_eq!((document["assertions"].as_u64(), document["repeated"].as_u64()), (Some(count), Some(1)));
    let refused = import(&w, "aside.jsonl", "nowhere/labels.db").expect(2);
    assert!(refused.err.contains("in a folder that is there"), "{}", refused.err);
}
