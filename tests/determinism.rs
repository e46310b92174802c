//! One identity, one set of bytes: whatever differs between machines, moments and arrangements of the
//! same truth must not show in what is published.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, StringArray, StructArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::support::{
    FLIGHTS_RUN, FLIGHTS_TOPIC, Random, Workspace, archive_folder, archive_record, assertion, blake3_hex, facts, files, flights_lane,
    intent, lines, payload_hash,
};

type Published = BTreeMap<String, Vec<u8>>;

/// What both intents of the untouched fixture publish.
fn wanted() -> &'static Published {
    static WANTED: OnceLock<Published> = OnceLock::new();
    WANTED.get_or_init(|| both(&Workspace::flights()))
}

fn both(w: &Workspace) -> Published {
    w.build("train");
    w.build("audit");
    w.published(FLIGHTS_RUN)
}

fn same(what: &str, found: &Published) {
    let names = |p: &Published| p.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(wanted()), "{what}");
    for (name, bytes) in wanted() {
        let text = |b: &[u8]| String::from_utf8_lossy(b).chars().take(4_000).collect::<String>();
        assert!(&found[name] == bytes, "{what}: {name} differs\n{}\n{}", text(&found[name]), text(bytes));
    }
}

#[test]
fn neither_clock_nor_locale_nor_threads_nor_memory_show() {
    for (what, environment) in [
        ("a zone", vec![("TZ", "Asia/Kathmandu"), ("LC_ALL", "tr_TR.UTF-8"), ("LANG", "C"), ("USER", "someone")]),
        ("one thread", vec![("OFS_LIMITS_THREADS", "1")]),
        ("two threads, little memory", vec![("OFS_LIMITS_THREADS", "2"), ("OFS_LIMITS_MEMORY", "64MiB")]),
        ("eight threads, much memory", vec![("OFS_LIMITS_THREADS", "8"), ("OFS_LIMITS_MEMORY", "2GiB")]),
        (
            "another policy",
            vec![("OFS_LAUNCHER_REVISION", "r9"), ("OFS_WORKSPACE_PROFILE", "prod"), ("OFS_REPLAY_VERIFY_PAYLOAD_HASHES", "false")],
        ),
    ] {
        let w = Workspace::flights();
        for name in ["train", "audit"] {
            w.ofs_with(&environment, &["run", w.path(&format!("intents/{name}.json")).to_str().unwrap()]).expect(0);
        }
        same(what, &w.published(FLIGHTS_RUN));
    }
}

#[test]
fn spill_space_changes_no_byte() {
    let w = crate::support::large(20_000);
    let spilled = Workspace::copy_of(&w);
    for (w, environment) in [
        (&w, [("OFS_LIMITS_MEMORY", "2GiB"), ("OFS_LIMITS_THREADS", "1")]),
        (&spilled, [("OFS_LIMITS_MEMORY", "64MiB"), ("OFS_LIMITS_THREADS", "8")]),
    ] {
        w.ofs_with(&environment, &["run", w.path("intents/x.json").to_str().unwrap()]).expect(0);
    }
    assert_eq!(w.published("platform_20260301T000000Z"), spilled.published("platform_20260301T000000Z"));
}

/// Lays the archive of every lane out anew; returns what was there.
fn lay_out(w: &Workspace, write: impl Fn(&str, i32, Vec<(u64, Value)>)) {
    for partition in 0..4 {
        let folder = archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, partition, "kafka_offset");
        let mut records = Vec::new();
        for path in files(&w.path(&folder)) {
            for line in fs::read_to_string(&path).unwrap().lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                records.push((record["origin_offset"]["offset"].as_str().unwrap().parse().unwrap(), record));
            }
        }
        fs::remove_dir_all(w.path(&folder)).unwrap();
        write(&folder, partition, records);
    }
}

#[test]
fn how_the_archive_lies_does_not_show() {
    // Lines in any order, over any files.
    let w = Workspace::flights();
    lay_out(&w, |folder, partition, mut records| {
        let random = &mut Random::new(partition as u64 + 7);
        random.shuffle(&mut records);
        let mut parts: Vec<Vec<Value>> = vec![Vec::new(); 5];
        records.into_iter().for_each(|(_, record)| parts[random.below(5)].push(record));
        for (i, part) in parts.iter().enumerate() {
            w.write(&format!("{folder}/{}.jsonl", ["z", "a", "m", "0", "part"][i]), lines(part));
        }
    });
    same("shuffled lines", &both(&w));
    // One file a record.
    let w = Workspace::flights();
    lay_out(&w, |folder, _, records| {
        records.into_iter().for_each(|(offset, record)| w.write(&format!("{folder}/offset={offset}.json"), record.to_string()))
    });
    same("one file a record", &both(&w));
    // One file of lines, every record twice, keys of the envelope in another order, another hash recipe.
    let w = Workspace::flights();
    lay_out(&w, |folder, _, records| {
        let mut text = String::new();
        for (_, mut record) in records {
            text += &format!("{record}\n");
            let envelope = record["envelope"].as_object().unwrap().clone();
            let canonical = crate::support::canonical(&record["envelope"], true);
            record["payload_hash"] = json!(format!("blake3:{}", crate::support::blake3_hex(canonical.as_bytes())));
            let turned: Vec<String> = envelope.iter().rev().map(|(k, v)| format!("{} : {v}", json!(k))).collect();
            record["envelope"] = json!("HERE");
            text += &format!("{}\n", record.to_string().replace("\"HERE\"", &format!("{{ {} }}", turned.join(" ,"))));
        }
        w.write(&format!("{folder}/all.jsonl"), text);
        w.write(&format!("{folder}/README"), "not a record");
    });
    same("doubled and respelled", &both(&w));
}

/// Completes the archive from the bus.
fn complete(w: &Workspace) {
    for partition in 0..4 {
        let folder = archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, partition, "kafka_offset");
        let base = w.json(&format!("bus/{FLIGHTS_TOPIC}/partition={partition}.meta.json"))["base_offset"].as_u64().unwrap();
        let records: Vec<Value> = flights_lane(w, partition)
            .iter()
            .filter(|(offset, _)| **offset >= base)
            .map(|(offset, e)| archive_record(FLIGHTS_TOPIC, partition, "kafka_offset", &offset.to_string(), e))
            .collect();
        w.write(&format!("{folder}/rest.jsonl"), lines(&records));
    }
}

#[test]
fn neither_does_who_served_it_nor_where_retention_stands() {
    let w = Workspace::flights();
    // Retention moves up to where the archive ends.
    for partition in 0..4 {
        let (data, meta) =
            (format!("bus/{FLIGHTS_TOPIC}/partition={partition}.jsonl"), format!("bus/{FLIGHTS_TOPIC}/partition={partition}.meta.json"));
        let base = w.json(&meta)["base_offset"].as_u64().unwrap();
        let text: Vec<String> = w.text(&data).lines().map(str::to_owned).collect();
        let gone = text.len() / 2 - 2;
        w.write(&data, text[gone..].join("\n") + "\n");
        w.write(&meta, json!({"base_offset": base + gone as u64, "offset_kind": "kafka_offset"}).to_string());
    }
    same("after retention moved", &both(&w));
    // The bus is gone.
    let w = Workspace::flights();
    complete(&w);
    fs::remove_dir_all(w.path("bus")).unwrap();
    same("archive only", &both(&w));
    // The archive is gone.
    let w = Workspace::flights();
    for partition in 0..4 {
        let lane = flights_lane(&w, partition);
        let text: String = lane.values().map(|e| format!("{}\n", json!({"payload": e, "payload_hash": payload_hash(e)}))).collect();
        w.write(&format!("bus/{FLIGHTS_TOPIC}/partition={partition}.jsonl"), text);
        w.write(
            &format!("bus/{FLIGHTS_TOPIC}/partition={partition}.meta.json"),
            json!({"base_offset": 0, "offset_kind": "kafka_offset"}).to_string(),
        );
    }
    fs::remove_dir_all(w.path(&format!("store/{FLIGHTS_RUN}/archive"))).unwrap();
    same("bus only", &both(&w));
}

#[test]
fn a_rerun_in_the_same_store_after_everything_around_it_moved_still_fits() {
    let w = Workspace::flights();
    let first = w.build("train");
    complete(&w);
    fs::remove_dir_all(w.path("bus")).unwrap();
    let late =
        assertion(FLIGHTS_RUN, &"f".repeat(32), "0e3bcb1937f3c27767950448f75e6b77", ("arrival_status", "LATE"), "2013-06-01T00:00:00Z");
    w.write("labels/later.jsonl", lines([&late]));
    // A part that is gone is rebuilt from what is there now, and must be the same.
    let part = first["dataset"]["files"][0]["ref"].as_str().unwrap();
    let bytes = fs::read(w.path(&format!("store/{part}"))).unwrap();
    fs::remove_file(w.path(&format!("store/{part}"))).unwrap();
    let again = w.build("train");
    assert_eq!((&again["outcome"], &again["dataset"]), (&json!("DUPLICATE"), &first["dataset"]));
    assert_eq!(fs::read(w.path(&format!("store/{part}"))).unwrap(), bytes);
    w.build("audit");
    same("after everything moved", &w.published(FLIGHTS_RUN));
}

#[test]
fn what_is_appended_after_the_cutoff_does_not_show() {
    let w = Workspace::flights();
    let mut appended = Vec::new();
    for (i, envelope) in flights_lane(&w, 1).values().enumerate() {
        let event = envelope["event_id"].as_str().unwrap();
        appended.push(assertion(
            FLIGHTS_RUN,
            &format!("{i:032x}"),
            event,
            ("arrival_status", "NOT_EVEN_A_VALUE"),
            "2013-02-01T00:00:00.000001Z",
        ));
    }
    // About others, of other types, and the same again.
    appended.push(assertion(FLIGHTS_RUN, &"1".repeat(32), "nobody", ("arrival_status", "?"), "never"));
    appended.push(assertion(FLIGHTS_RUN, &"2".repeat(32), "nobody", ("other_type", "?"), "never"));
    appended.push(assertion("platform_x", &"3".repeat(32), "nobody", ("arrival_status", "?"), "never"));
    // An id that is used again for something else.
    let mut reused = assertions(&w)[0].clone();
    (reused["label_value"], reused["observed_time"]) = (json!("DIVERTED"), json!("2013-06-01T00:00:00Z"));
    appended.push(reused);
    w.write("labels/zz.jsonl", lines(&appended) + w.text("labels/assertions.jsonl").lines().next().unwrap() + "\n\n");
    let built = w.build("train");
    let key = built["run_key"].as_str().unwrap().to_owned();
    // Whoever asks about the row of the id that is used again hears what the gate decided.
    let (id, event) = (built["dataset"]["manifest_id"].as_str().unwrap(), assertions(&w)[0]["label_subject_key"]["event_id"].clone());
    let told = w.ofs(&["explain", id, event.as_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(told["holds"], json!(true), "{told:#}");
    w.build("audit");
    same("late assertions", &w.published(FLIGHTS_RUN));
    // They are counted, and named, in the observation alone.
    let receipt = w.json(&format!("store/{FLIGHTS_RUN}/ofs/label_resolution/{key}.json"));
    let count = flights_lane(&w, 1).len() + 1;
    assert_eq!(receipt["observation"]["late"], json!([{"label_type": "arrival_status", "late": count}]));
    assert_eq!(receipt["observation"]["late_assertions"].as_array().unwrap().len(), count);
}

fn assertions(w: &Workspace) -> Vec<Value> {
    w.text("labels/assertions.jsonl").lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn column(all: &[Value], at: &str) -> ArrayRef {
    Arc::new(all.iter().map(|a| a.pointer(at).and_then(Value::as_str)).collect::<StringArray>())
}

/// The timeline as Parquet: the subject as a struct or as columns, instants as text or as timestamps.
fn parquet(w: &Workspace, name: &str, all: &[Value], nested: bool) {
    let stamps = |at: &str| -> ArrayRef {
        let micros =
            all.iter().map(|a| a.pointer(at).and_then(Value::as_str).map(|t| t.parse::<jiff::Timestamp>().unwrap().as_microsecond()));
        Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
    };
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("label_assertion_id", column(all, "/label_assertion_id")),
        ("label_type", column(all, "/label_type")),
        ("label_value", column(all, "/label_value")),
        ("payload_hash", column(all, "/payload_hash")),
    ];
    let subject = ["platform_run_id", "event_id"].map(|key| (key, column(all, &format!("/label_subject_key/{key}"))));
    if nested {
        let fields: Fields = subject.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, false)).collect();
        let arrays = subject.into_iter().map(|(_, a)| a).collect();
        columns.push(("label_subject_key", Arc::new(StructArray::new(fields, arrays, None))));
        columns.extend(["effective_time", "observed_time"].map(|key| (key, stamps(&format!("/{key}")))));
    } else {
        columns.extend(subject);
        columns.extend(["effective_time", "observed_time"].map(|key| (key, column(all, &format!("/{key}")))));
    }
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(w.path(name)).unwrap(), batch.schema(), None).unwrap();
    for start in (0..batch.num_rows()).step_by(100) {
        writer.write(&batch.slice(start, 100.min(batch.num_rows() - start))).unwrap();
        writer.flush().unwrap();
    }
    writer.close().unwrap();
}

fn sqlite(w: &Workspace, name: &str, all: &[Value], journal: &str) {
    let db = rusqlite::Connection::open(w.path(name)).unwrap();
    db.pragma_update(None, "journal_mode", journal).unwrap();
    db.execute_batch(
        "CREATE TABLE ls_label_timeline(label_assertion_id TEXT PRIMARY KEY, platform_run_id TEXT, event_id TEXT, label_type TEXT, \
         label_value TEXT, effective_time TEXT, observed_time TEXT, source_type TEXT, actor_id TEXT, payload_hash TEXT, assertion_json TEXT); BEGIN",
    )
    .unwrap();
    for a in all {
        let text = |at: &str| a.pointer(at).and_then(Value::as_str).map(str::to_owned);
        db.execute(
            "INSERT INTO ls_label_timeline VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            rusqlite::params![
                text("/label_assertion_id"),
                text("/label_subject_key/platform_run_id"),
                text("/label_subject_key/event_id"),
                text("/label_type"),
                text("/label_value"),
                text("/effective_time"),
                text("/observed_time"),
                text("/source_type"),
                text("/actor_id"),
                text("/payload_hash"),
                a.to_string()
            ],
        )
        .unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
}

#[test]
fn the_kind_of_label_store_does_not_show() {
    let given = |w: &Workspace, path: &str| {
        for name in ["train", "audit"] {
            w.ofs_with(&[("OFS_PATHS_LABELS", path)], &["run", w.path(&format!("intents/{name}.json")).to_str().unwrap()]).expect(0);
        }
        same(path, &w.published(FLIGHTS_RUN));
    };
    for nested in [true, false] {
        let w = Workspace::flights();
        parquet(&w, "labels.parquet", &assertions(&w), nested);
        fs::remove_file(w.path("labels/assertions.jsonl")).unwrap();
        given(&w, "labels.parquet");
    }
    for journal in ["delete", "wal"] {
        let w = Workspace::flights();
        sqlite(&w, "timeline.db", &assertions(&w), journal);
        fs::remove_file(w.path("labels/assertions.jsonl")).unwrap();
        given(&w, "timeline.db");
    }
    // A folder with both: some assertions in both, and their instants spelled differently there.
    let w = Workspace::flights();
    let mut all = assertions(&w);
    parquet(&w, "labels/half.parquet", &all[..600], true);
    for a in &mut all[300..] {
        a["observed_time"] = json!(a["observed_time"].as_str().unwrap().replace(".000000Z", "+00:00"));
    }
    w.write("labels/assertions.jsonl", lines(&all[300..]));
    given(&w, "labels");
}

/// A timeline in SQLite whose last assertion says of itself another observed time than its column: a leak, which is
/// told whatever else is wrong.
fn backdated(w: &Workspace, mut all: Vec<Value>) {
    sqlite(w, "timeline.db", &all, "delete");
    let leak = all.last_mut().unwrap();
    let victim = leak["label_assertion_id"].as_str().unwrap().to_owned();
    leak["observed_time"] = json!("2014-01-01T00:00:00.000000Z");
    let db = rusqlite::Connection::open(w.path("timeline.db")).unwrap();
    db.execute("UPDATE ls_label_timeline SET assertion_json = ?1 WHERE label_assertion_id = ?2", [&leak.to_string(), &victim]).unwrap();
    drop(db);
    let output = w.ofs_with(&[("OFS_PATHS_LABELS", "timeline.db")], &["run", w.path("intents/train.json").to_str().unwrap(), "--json"]);
    let reason = output.refused(3, "LEAKAGE_POLICY_VIOLATION").json()["reason"].to_string();
    assert!(reason.contains(&victim), "{reason}");
    w.assert_nothing_published(FLIGHTS_RUN);
}

#[test]
fn a_backdated_column_of_a_sqlite_timeline_is_a_leak() {
    let w = Workspace::flights();
    let mut all = assertions(&w);
    all.truncate(6);
    backdated(&w, all);
}

#[test]
fn two_copies_that_differ_refuse_only_where_the_assertion_matters() {
    let w = Workspace::flights();
    w.ofs(&["run", w.path("intents/train.json").to_str().unwrap()]).expect(0);
    let wanted = w.published(FLIGHTS_RUN);
    let spoilt = |statements: &[String]| {
        let w = Workspace::flights();
        let mut all = assertions(&w);
        let mut copy = |id: &str, change: &dyn Fn(&mut Value)| {
            let mut new = all[0].clone();
            new["label_assertion_id"] = json!(id);
            change(&mut new);
            all.push(new);
        };
        // An event outside the basis, and an observation after the cut-off of one within.
        copy("00000000000000000000000000000001", &|a| a["label_subject_key"]["event_id"] = json!("nobody"));
        copy("00000000000000000000000000000002", &|a| a["observed_time"] = json!("2014-01-01T00:00:00.000000Z"));
        sqlite(&w, "timeline.db", &all, "delete");
        let db = rusqlite::Connection::open(w.path("timeline.db")).unwrap();
        for statement in statements {
            assert_eq!(db.execute(&format!("UPDATE ls_label_timeline SET {statement}"), []).unwrap(), 1, "{statement}");
        }
        drop(db);
        let output = w.ofs_with(&[("OFS_PATHS_LABELS", "timeline.db")], &["run", w.path("intents/train.json").to_str().unwrap(), "--json"]);
        (w, output)
    };
    let first = assertions(&w)[0].clone();
    let (id, event) = (first["label_assertion_id"].as_str().unwrap(), first["label_subject_key"]["event_id"].as_str().unwrap());
    let changes = [
        "label_value = 'other'".to_owned(),
        "effective_time = '2013-01-05T00:00:00Z'".to_owned(),
        "assertion_json = 'nonsense'".to_owned(),
        "assertion_json = x'00ff'".to_owned(),
        "assertion_json = '{\"observed_time\": \"2013-01-05T00:00:00Z\", \"observed_time\": \"2014-01-01T00:00:00Z\"}'".to_owned(),
        "assertion_json = json_set(assertion_json, '$.observed_time', 5)".to_owned(),
    ];
    for change in &changes {
        let of = |n: &str| format!("{change} WHERE label_assertion_id = '{n:0>32}'");
        // Where the assertion itself cannot be read, its column alone is not believed that it came later.
        let unread = change.starts_with("assertion_json");
        let others: Vec<String> = if unread { vec![of("1")] } else { vec![of("1"), of("2")] };
        let (w, output) = spoilt(&others);
        output.expect(0);
        assert!(w.published(FLIGHTS_RUN) == wanted, "{change}");
        if unread {
            spoilt(&[of("2")]).1.refused(3, "LABEL_TIMELINE_INCONSISTENT");
        }
        let (w, output) = spoilt(&[format!("{change} WHERE label_assertion_id = '{id}'")]);
        let reason = output.refused(3, "LABEL_TIMELINE_INCONSISTENT").json()["reason"].to_string();
        assert!(reason.contains(id) && reason.contains(event), "{reason}");
        w.assert_nothing_published(FLIGHTS_RUN);
    }
    // Of two copies that name two events, it is enough that one is a row.
    let moved = format!(
        "assertion_json = json_set(assertion_json, '$.label_subject_key.event_id', '{event}') WHERE label_assertion_id = '{:0>32}'",
        "1"
    );
    spoilt(&[moved]).1.refused(3, "LABEL_TIMELINE_INCONSISTENT");
}

#[test]
fn a_leak_is_told_however_many_unreadable_assertions_come_before_it() {
    let w = Workspace::flights();
    // Several times as many as are kept as evidence.
    let once = assertions(&w);
    let copy = |n: usize| once.iter().map(move |a| (a.clone(), format!("{n}{}", &a["label_assertion_id"].as_str().unwrap()[1..])));
    let renamed = (0..5).flat_map(copy).map(|(mut a, id)| {
        a["label_assertion_id"] = json!(id);
        a["effective_time"] = json!("some day");
        a
    });
    let mut all: Vec<Value> = renamed.collect();
    all.sort_by_key(|a| a["label_subject_key"]["event_id"].to_string());
    backdated(&w, all);
}

#[test]
fn one_assertion_id_with_two_contents_is_never_chosen_between() {
    let w = Workspace::flights();
    let mut all = assertions(&w);
    // Word for word the same once more is one assertion; another spelling of its instant, too.
    let mut twice = all[3].clone();
    twice["observed_time"] = json!(twice["observed_time"].as_str().unwrap().replace(".000000Z", "+00:00"));
    let same = [all.clone(), vec![all[3].clone(), twice]].concat();
    w.write("labels/assertions.jsonl", lines(&same));
    w.ofs_with(&[], &["run", w.path("intents/audit.json").to_str().unwrap()]).expect(0);
    let victim = all[3]["label_assertion_id"].as_str().unwrap().to_owned();
    let mut other = all[3].clone();
    other["label_value"] = json!(if other["label_value"] == "FRAUD_TRUE" { "FRAUD_FALSE" } else { "FRAUD_TRUE" });
    all.push(other);
    w.write("labels/assertions.jsonl", lines(&all));
    let output = w.ofs_with(&[], &["run", w.path("intents/train.json").to_str().unwrap(), "--json"]);
    let reason = output.refused(3, "LABEL_TIMELINE_INCONSISTENT").json()["reason"].to_string();
    assert!(reason.contains(&victim), "{reason}");
}

#[test]
fn what_is_already_published_is_answered_without_a_replay() {
    let w = Workspace::flights();
    let first = w.build("train");
    fs::remove_dir_all(w.path(&format!("store/{FLIGHTS_RUN}/archive"))).unwrap();
    fs::remove_dir_all(w.path("bus")).unwrap();
    fs::remove_dir_all(w.path("labels")).unwrap();
    w.intent("twin", "train", |i| {
        i["request_id"] = json!("request.twin");
        // The same meaning in another spelling.
        i["label_basis"]["label_asof_utc"] = json!("2013-02-01T01:00:00+01:00");
        i["scenario_run_ids"] = json!([i["scenario_run_ids"][0], i["scenario_run_ids"][0]]);
        let mut basis = i["replay_basis"].as_array().unwrap().clone();
        basis.reverse();
        basis[0]["end_offset"] = json!("00100");
        let mut rest = basis[0].clone();
        (rest["start_offset"], rest["end_offset"]) = (json!("90"), json!("0192"));
        basis.push(rest);
        i["replay_basis"] = json!(basis);
    });
    let twin = w.build("twin");
    assert_eq!((&twin["outcome"], &twin["dataset"]), (&json!("ALREADY_PUBLISHED"), &first["dataset"]));
    assert_eq!(w.build("train")["outcome"], "DUPLICATE");
    let types = w.event_types("request.twin");
    assert!(types.contains(&"RUN_DONE".to_owned()));
    let phases: Vec<_> = w
        .events("request.twin")
        .iter()
        .filter(|e| e["event_type"] == "PHASE_ENTERED")
        .map(|e| e["detail"]["phase"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(phases, ["pins", "publication"]);
}

/// Two worlds with the same events, one served twice: the proof may not count deliveries.
#[test]
fn a_scenario_selection_counts_an_offset_once_whoever_serves_it() {
    const RUN: &str = "platform_20260201T000000Z";
    let make = |doubled: bool| {
        let w = Workspace::empty();
        let envelopes: Vec<Value> = (0..20)
            .map(|i| {
                json!({"event_id": format!("e{i}"), "platform_run_id": RUN, "ts_utc": format!("2026-01-01T00:00:{i:02}Z"),
                    "scenario_run_id": if i % 4 == 0 { "s1" } else { "s2" }, "payload": {"flow_id": "k", "amount": i}})
            })
            .collect();
        let records: Vec<Value> =
            envelopes.iter().enumerate().map(|(i, e)| archive_record("t", 0, "file_line", &i.to_string(), e)).collect();
        w.write(&format!("{}/a.jsonl", archive_folder(RUN, "t", 0, "file_line")), lines(&records));
        if doubled {
            w.write("bus/t/partition=0.jsonl", envelopes.iter().map(|e| format!("{}\n", json!({"payload": e}))).collect::<String>());
            w.write(&format!("{}/b.jsonl", archive_folder(RUN, "t", 0, "file_line")), lines(&records[..9]));
        }
        w.write("labels/a.jsonl", lines([&assertion(RUN, "a", "e0", ("alpha", "X"), "2026-01-01T00:00:00Z")]));
        w.write(
            "authority/features_v0.yaml",
            "policy_id: p\nrevision: r1\nlabel_types: {alpha: [X]}\nfeature_groups: [{name: group, version: v1}]\n",
        );
        w.write(&format!("store/{RUN}/sr/facts.json"), facts(RUN, "s1").to_string());
        let basis = json!([{"topic": "t", "partition": 0, "offset_kind": "file_line", "start_offset": "0", "end_offset": "19"}]);
        let mut it = intent(RUN, "request.0001", basis, "group");
        it["scenario_run_ids"] = json!(["s1"]);
        w.write("intents/x.json", it.to_string());
        w
    };
    let (once, twice) = (make(false), make(true));
    let (a, b) = (once.build("x"), twice.build("x"));
    assert_eq!((&a["dataset"], &a["dataset"]["rows"]), (&b["dataset"], &json!(5)));
    assert_eq!(once.published(RUN), twice.published(RUN));
}

/// No clock, host, path or user is in a receipt: the same request leaves the same receipts anywhere.
#[test]
fn receipts_of_one_request_are_the_same_everywhere() {
    let (a, b) = (Workspace::flights(), Workspace::flights());
    a.ofs_with(&[("TZ", "UTC"), ("OFS_LIMITS_THREADS", "1")], &["run", a.path("intents/train.json").to_str().unwrap()]).expect(0);
    b.ofs_with(
        &[("TZ", "Asia/Tokyo"), ("USER", "x"), ("OFS_LIMITS_THREADS", "8")],
        &["run", b.path("intents/train.json").to_str().unwrap()],
    )
    .expect(0);
    // Governance facts tell of a run, with its times; everything that is evidence does not.
    let evidence = |w: &Workspace| -> Vec<(String, String)> {
        let tree = w.tree(&format!("store/{FLIGHTS_RUN}/ofs")).into_iter();
        tree.filter(|(name, _)| !name.starts_with("governance/")).map(|(name, bytes)| (name, blake3_hex(&bytes))).collect()
    };
    assert_eq!(evidence(&a), evidence(&b));
}
