//! What is particular to the archive.

use super::*;

fn archive_reads(files: &[(&str, String)], wanted: &[OffsetRange]) -> Vec<Seen> {
    let lane = lane(OffsetKind::KafkaOffset);
    let files: Vec<(String, String)> = files.iter().map(|(n, t)| ((*n).to_owned(), t.clone())).collect();
    let (_dir, log) = archive_of(&lane, &files);
    read(log.as_ref(), &lane, wanted, true)
}

fn record(n: u64) -> Value {
    serde_json::from_str(&Spec::event(off(n)).archived(&lane(OffsetKind::KafkaOffset))).unwrap()
}

#[test]
fn archive_record_must_lie_where_it_says_it_comes_from() {
    let astray = |pointer: &str, value: Value| {
        let mut record = record(3);
        *record.pointer_mut(pointer).unwrap() = value;
        record.to_string()
    };
    let invalid = |offset: Option<u64>| vec![fault(offset.map(off), ReasonCode::ReplayEventInvalid)];
    for (pointer, value) in [
        ("/origin_offset/topic", json!("other")),
        ("/origin_offset/topic", json!(1)),
        ("/origin_offset/partition", json!(1)),
        ("/origin_offset/partition", json!("0")),
        ("/origin_offset/offset_kind", json!("file_line")),
        ("/origin_offset/offset_kind", json!("pulsar")),
    ] {
        let text = astray(pointer, value);
        assert_eq!(archive_reads(&[("offset=3.json", text.clone())], &all()), invalid(Some(3)), "{text}");
        assert_eq!(archive_reads(&[("a.jsonl", text.clone())], &all()), invalid(Some(3)), "{text}");
    }
    for (pointer, value) in [
        ("/origin_offset", Value::Null),
        ("/origin_offset/offset", Value::Null),
        ("/origin_offset/offset", json!("-3")),
        ("/origin_offset/offset", json!(3.0)),
    ] {
        let text = astray(pointer, value);
        assert_eq!(archive_reads(&[("offset=3.json", text.clone())], &all()), invalid(Some(3)), "{text}");
        assert_eq!(archive_reads(&[("a.jsonl", text.clone())], &all()), invalid(None), "{text}");
    }
    // The file's name outranks the record, so the fault stands at the name's offset.
    assert_eq!(archive_reads(&[("offset=4.json", record(3).to_string())], &all()), invalid(Some(4)));
    assert_eq!(archive_reads(&[("offset=0003.json", record(3).to_string())], &all()), [Spec::event(off(3)).delivered()]);
    assert_eq!(archive_reads(&[("a.jsonl", astray("/origin_offset/offset", json!(3)))], &all()), [Spec::event(off(3)).delivered()]);
}

#[test]
fn archive_copies_beside_the_envelope_must_agree_with_it() {
    let edited = |key: &str, value: Value| {
        let mut record = record(0);
        record[key] = value;
        archive_reads(&[("offset=0.json", record.to_string())], &all())
    };
    let invalid = [fault(off(0), ReasonCode::ReplayEventInvalid)];
    for (key, value) in [
        ("ts_utc", json!("2026-02-10T10:00:00.000001Z")),
        ("ts_utc", json!("yesterday")),
        ("ts_utc", json!(0)),
        ("event_id", json!("another")),
        ("event_id", json!(1)),
        ("platform_run_id", json!(OTHER_RUN)),
        ("scenario_run_id", json!("s2")),
        ("event_type", json!("other")),
        ("payload_hash", Value::Null),
        ("payload_hash", json!(1)),
        ("envelope", Value::Null),
    ] {
        assert_eq!(edited(key, value.clone()), invalid, "{key} = {value}");
    }
    // The same instant in another spelling, and fields that say nothing.
    for (key, value) in
        [("ts_utc", json!("2026-02-10T11:00:00+01:00")), ("scenario_run_id", Value::Null), ("archived_at_utc", json!("whenever"))]
    {
        assert_eq!(edited(key, value.clone()), [Spec::event(off(0)).delivered()], "{key} = {value}");
    }
}

#[test]
fn archive_run_stands_in_the_envelope_and_only_else_in_the_record() {
    let lane = lane(OffsetKind::KafkaOffset);
    let silent = with("e", |e| drop(e.as_object_mut().unwrap().remove("platform_run_id")));
    let of = |run: &str| Spec::of(off(0), &silent).archived(&lane).replacen("\"absent\"", run, 1);
    let reads = |text: String| archive_reads(&[("a.jsonl", text)], &all());
    assert_eq!(reads(of(&json!(RUN).to_string())), [Spec::of(off(0), &silent).delivered()]);
    assert_eq!(reads(of(&json!(OTHER_RUN).to_string())), [fault(off(0), ReasonCode::RunScopeInvalid)]);
    assert_eq!(reads(of("null")), [fault(off(0), ReasonCode::ReplayEventInvalid)]);
}

#[test]
fn archive_lines_that_are_no_records_are_lost_without_an_offset() {
    let text = format!("{}\n\n{{\n{}\n \r\n", record(0), record(1));
    let lost = fault(None, ReasonCode::DecodeError);
    let mut wanted = vec![lost.clone(), lost.clone(), lost, Spec::event(off(0)).delivered(), Spec::event(off(1)).delivered()];
    wanted.sort();
    assert_eq!(archive_reads(&[("a.jsonl", text)], &all()), wanted);
    let long = format!("{}\n{}", " ".repeat(MAX_TEXT + 1), record(1));
    let mut wanted = vec![fault(None, ReasonCode::DecodeError), Spec::event(off(1)).delivered()];
    wanted.sort();
    assert_eq!(archive_reads(&[("a.jsonl", long), ("empty.jsonl", String::new())], &all()), wanted);
    for text in [String::new(), "\n".into(), " ".repeat(MAX_TEXT + 1), format!("{} {}", record(0), record(0))] {
        assert_eq!(archive_reads(&[("offset=0.json", text)], &all()), [fault(off(0), ReasonCode::DecodeError)]);
    }
}

#[test]
fn archive_offset_that_stands_twice_is_not_known() {
    let text = record(5).to_string();
    let doubled = text.replace("\"offset\":\"5\"", "\"offset\":\"999\",\"offset\":\"5\"");
    let origins = text.replacen('{', "{\"origin_offset\":{\"offset\":\"999\"},", 1);
    let elsewhere = text.replacen('{', "{\"x\":1,\"x\":1,", 1);
    let decode = |offset: Option<u64>| vec![fault(offset.map(off), ReasonCode::DecodeError)];
    // It must not slip out through the offset that happens to come first.
    let wanted = ranges(&[(0, 10)]);
    for text in [&doubled, &origins] {
        assert_ne!(**text, record(5).to_string());
        assert_eq!(archive_reads(&[("a.jsonl", text.clone())], &wanted), decode(None), "{text}");
        assert_eq!(archive_reads(&[("offset=5.json", text.clone())], &wanted), decode(Some(5)), "{text}");
    }
    assert_eq!(archive_reads(&[("a.jsonl", elsewhere.clone())], &wanted), decode(Some(5)));
    assert_eq!(archive_reads(&[("a.jsonl", elsewhere)], &ranges(&[(6, 10)])), []);
}

#[test]
fn archive_leaves_unknown_neighbours_alone_and_counts_them() {
    let here = lane(OffsetKind::KafkaOffset);
    let names = ["README", "offset=x.json", "offset=-1.json", "offset=2.json.tmp", "offset=.json", "a.jsonl.gz", "a.parquet"];
    let mut files: Vec<(String, String)> = names.iter().map(|n| ((*n).to_owned(), "nonsense".to_owned())).collect();
    files.push(("offset=0.json".into(), record(0).to_string()));
    files.push(("b.jsonl".into(), record(1).to_string()));
    let (dir, log) = archive_of(&here, &files);
    let deeper = archive_folder(dir.path(), &here).join("deeper");
    fs::create_dir(&deeper).unwrap();
    fs::write(deeper.join("offset=7.json"), record(7).to_string()).unwrap();
    assert_eq!(log.bounds(&here).unwrap(), Bounds { ignored_files: names.len() as u64 + 1, ..Bounds::default() });
    assert_eq!(read(log.as_ref(), &here, &all(), true), whole(&[Spec::event(off(0)), Spec::event(off(1))]));
}

#[test]
fn archive_delivers_an_offset_as_often_as_it_is_there() {
    let other = Spec::of(off(0), &envelope("another"));
    let lines = format!("{}\n{}\n", record(0), other.archived(&lane(OffsetKind::KafkaOffset)));
    let mut wanted = vec![Spec::event(off(0)).delivered(), Spec::event(off(0)).delivered(), other.delivered()];
    wanted.sort();
    assert_eq!(archive_reads(&[("offset=0.json", record(0).to_string()), ("a.jsonl", lines)], &all()), wanted);
}
