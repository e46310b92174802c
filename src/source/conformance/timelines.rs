//! What every [`LabelTimeline`] must do, and what is particular to one.

use super::*;

const TYPE: &str = "fraud_disposition";

/// One assertion; what is absent is null or not there at all, as the form has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stated {
    id: Option<String>,
    run: Option<String>,
    event: Option<String>,
    kind: Option<String>,
    value: Option<String>,
    effective: Option<String>,
    observed: Option<String>,
    hash: Option<String>,
}

fn stated(n: u64) -> Stated {
    let text = |t: &str| Some(t.to_owned());
    Stated {
        id: Some(format!("{n:032x}")),
        run: text(RUN),
        event: Some(format!("evt_{n}")),
        kind: text(TYPE),
        value: text("FRAUD_CONFIRMED"),
        effective: text("2026-02-09T00:00:00.000000Z"),
        observed: Some(Instant(1_770_717_600_000_000 + i64::try_from(n).unwrap()).to_string()),
        hash: Some(format!("{n:064x}")),
    }
}

impl Stated {
    fn subject(&self) -> Value {
        let fields = [("platform_run_id", &self.run), ("event_id", &self.event)];
        fields.into_iter().filter_map(|(k, v)| v.as_ref().map(|v| (k.to_owned(), json!(v)))).collect::<serde_json::Map<_, _>>().into()
    }

    fn to_json(&self) -> Value {
        let mut value = json!({"label_subject_key": self.subject(), "source_type": "EXTERNAL", "evidence_refs": [{"ref_type": "EXTERNAL_REF", "ref_id": "x"}]});
        for (key, text) in [
            ("label_assertion_id", &self.id),
            ("label_type", &self.kind),
            ("label_value", &self.value),
            ("effective_time", &self.effective),
            ("observed_time", &self.observed),
            ("payload_hash", &self.hash),
        ] {
            if let Some(text) = text {
                value[key] = json!(text);
            }
        }
        value
    }
}

/// A variety of assertions: two types, two runs, texts outside ASCII, absent optional fields.
fn assertions() -> Vec<Stated> {
    let mut all: Vec<Stated> = (0..40).map(stated).collect();
    for (i, a) in all.iter_mut().enumerate() {
        match i % 8 {
            1 => a.kind = Some("chargeback_status".into()),
            2 => a.run = Some(OTHER_RUN.into()),
            3 => a.event = Some(format!("é\u{1f600}\"\\\n{i}")),
            4 => a.value = None,
            5 => a.hash = None,
            6 => a.effective = None,
            7 => a.kind = Some("account_takeover".into()),
            _ => {}
        }
    }
    all[8].observed = None;
    // One event may have many assertions, also at one instant.
    all[16] = Stated { event: all[0].event.clone(), observed: all[0].observed.clone(), ..all[16].clone() };
    all
}

/// One way to write a timeline.
struct Store {
    name: &'static str,
    describes: &'static str,
    make: fn(&Path, &[Stated]) -> PathBuf,
}

const STORES: [Store; 10] = [
    Store { name: "one file of lines", describes: "jsonl", make: |dir, all| jsonl(&dir.join("labels.jsonl"), all) },
    Store {
        name: "three files of lines",
        describes: "jsonl",
        make: |dir, all| split(dir, all, 3, "jsonl", |at, part| drop(jsonl(at, part))),
    },
    Store {
        name: "Parquet with a subject",
        describes: "parquet",
        make: |dir, all| parquet(&dir.join("labels.parquet"), all, Columns::Struct),
    },
    Store { name: "Parquet, flat", describes: "parquet", make: |dir, all| parquet(&dir.join("labels.parquet"), all, Columns::Flat) },
    Store { name: "Parquet, large", describes: "parquet", make: |dir, all| parquet(&dir.join("labels.parquet"), all, Columns::Large) },
    Store { name: "Parquet, views", describes: "parquet", make: |dir, all| parquet(&dir.join("labels.parquet"), all, Columns::View) },
    Store {
        name: "Parquet, dictionaries",
        describes: "parquet",
        make: |dir, all| parquet(&dir.join("labels.parquet"), all, Columns::Dictionary),
    },
    Store {
        name: "lines and Parquet with timestamps",
        describes: "jsonl+parquet",
        make: |dir, all| {
            let (some, more) = all.split_at(all.len() / 2);
            jsonl(&dir.join("a.jsonl"), some);
            split(dir, more, 2, "parquet", |at, part| drop(parquet(at, part, Columns::Timestamp)))
        },
    },
    Store { name: "SQLite", describes: "sqlite", make: |dir, all| sqlite(&dir.join("labels.db"), all, "DELETE") },
    Store { name: "SQLite in WAL mode", describes: "sqlite", make: |dir, all| sqlite(&dir.join("labels.sqlite"), all, "WAL") },
];

fn split(dir: &Path, all: &[Stated], files: usize, extension: &str, write: impl Fn(&Path, &[Stated])) -> PathBuf {
    fs::write(dir.join("README"), "not read").unwrap();
    for (i, part) in all.chunks(all.len().div_ceil(files).max(1)).enumerate() {
        write(&dir.join(format!("part-{i}.{extension}")), part);
    }
    dir.to_owned()
}

fn jsonl(at: &Path, all: &[Stated]) -> PathBuf {
    let lines: Vec<String> = all.iter().map(|a| a.to_json().to_string()).collect();
    fs::write(at, lines.join("\n") + if all.len().is_multiple_of(2) { "\n" } else { "" }).unwrap();
    at.to_owned()
}

#[derive(Clone, Copy, PartialEq)]
enum Columns {
    Struct,
    Flat,
    Large,
    View,
    Dictionary,
    Timestamp,
}

fn text_column<'t>(columns: Columns, texts: impl Iterator<Item = Option<&'t str>>) -> ArrayRef {
    match columns {
        Columns::Large => Arc::new(texts.collect::<LargeStringArray>()),
        Columns::View => Arc::new(texts.collect::<StringViewArray>()),
        Columns::Dictionary => Arc::new(texts.collect::<DictionaryArray<Int32Type>>()),
        _ => Arc::new(texts.collect::<StringArray>()),
    }
}

fn parquet(at: &Path, all: &[Stated], columns: Columns) -> PathBuf {
    let column = |field: fn(&Stated) -> &Option<String>| text_column(columns, all.iter().map(|a| field(a).as_deref()));
    let time = |field: fn(&Stated) -> &Option<String>| -> ArrayRef {
        if columns != Columns::Timestamp {
            return column(field);
        }
        let stamps: TimestampMicrosecondArray = all.iter().map(|a| field(a).as_ref().map(|t| Instant::parse(t).unwrap().0)).collect();
        Arc::new(stamps.with_timezone("UTC"))
    };
    let (runs, events) = (column(|a| &a.run), column(|a| &a.event));
    let mut batch = vec![
        ("label_assertion_id", column(|a| &a.id), true),
        ("label_type", column(|a| &a.kind), true),
        ("label_value", column(|a| &a.value), true),
        ("effective_time", time(|a| &a.effective), true),
        ("observed_time", time(|a| &a.observed), true),
        ("payload_hash", column(|a| &a.hash), true),
    ];
    if columns == Columns::Struct {
        let field = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
        let subject = StructArray::from(vec![(field("platform_run_id"), runs), (field("event_id"), events)]);
        batch.push(("label_subject_key", Arc::new(subject), true));
    } else {
        batch.extend([("platform_run_id", runs, true), ("event_id", events, true)]);
    }
    write_parquet(at, &RecordBatch::try_from_iter_with_nullable(batch).unwrap())
}

/// Small row groups, so that one file is several pieces.
fn write_parquet(at: &Path, batch: &RecordBatch) -> PathBuf {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(7)).build();
    let mut writer = ArrowWriter::try_new(fs::File::create(at).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    at.to_owned()
}

const TABLE: &str = "CREATE TABLE ls_label_timeline(label_assertion_id TEXT PRIMARY KEY, platform_run_id TEXT, event_id TEXT, \
    label_type TEXT, label_value TEXT, effective_time TEXT, observed_time TEXT, source_type TEXT, actor_id TEXT, payload_hash TEXT, \
    evidence_refs_json TEXT, assertion_ref TEXT, assertion_json TEXT, committed_at_utc TEXT)";

fn sqlite(at: &Path, all: &[Stated], journal: &str) -> PathBuf {
    drop(sqlite_open(at, all, journal));
    at.to_owned()
}

fn sqlite_open(at: &Path, all: &[Stated], journal: &str) -> Connection {
    let db = Connection::open(at).unwrap();
    db.pragma_update(None, "journal_mode", journal).unwrap();
    db.execute(TABLE, []).unwrap();
    db.execute_batch("BEGIN").unwrap();
    all.iter().for_each(|a| insert(&db, a, Some(a.to_json().to_string())));
    db.execute_batch("COMMIT").unwrap();
    db
}

fn insert(db: &Connection, a: &Stated, assertion: Option<String>) {
    let sql = "INSERT INTO ls_label_timeline VALUES (?,?,?,?,?,?,?,'EXTERNAL',NULL,?,'[]','ref',?,'2026-02-10T11:00:00.000000Z')";
    db.execute(sql, rusqlite::params![a.id, a.run, a.event, a.kind, a.value, a.effective, a.observed, a.hash, assertion]).unwrap();
}

fn types(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|t| (*t).to_owned()).collect()
}

fn scan_parts(timeline: &dyn LabelTimeline, parts: &[Part], run: &str, types: &BTreeSet<String>) -> Result<Vec<Stated>, LabelError> {
    let mut out = Vec::new();
    for part in parts {
        timeline.scan(part, LabelQuery { platform_run_id: run, types }, &mut |a| {
            assert!(a.embedded_observed.is_none() || a.embedded_observed == a.observed, "{a:?}");
            let text = |t: Option<&str>| t.map(str::to_owned);
            let stamp = |t: Option<Stamp<'_>>| t.map(|t| t.text().into_owned());
            out.push(Stated {
                id: text(Some(a.id)),
                run: text(Some(run)),
                event: text(Some(a.event_id)),
                kind: text(Some(a.label_type)),
                value: text(a.value),
                effective: stamp(a.effective),
                observed: stamp(a.observed),
                hash: text(a.payload_hash),
            });
            ControlFlow::Continue(())
        })?;
    }
    out.sort();
    Ok(out)
}

fn scan(path: &Path, run: &str, types: &BTreeSet<String>) -> Result<Vec<Stated>, LabelError> {
    let timeline = labels::open(path)?;
    let parts = timeline.parts()?;
    scan_parts(timeline.as_ref(), &parts, run, types)
}

fn chosen(all: &[Stated], run: &str, types: &BTreeSet<String>) -> Vec<Stated> {
    let wanted = |a: &&Stated| a.run.as_deref() == Some(run) && a.kind.as_ref().is_some_and(|k| types.contains(k));
    let mut out: Vec<Stated> = all.iter().filter(wanted).cloned().collect();
    out.sort();
    out
}

/// Names and contents of a folder, with the times of change.
fn state_of(dir: &Path) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
    let paths = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut out: Vec<_> = paths.map(|p| (p.clone(), fs::read(&p).unwrap(), p.metadata().unwrap().modified().unwrap())).collect();
    out.sort();
    out
}

#[test]
fn every_timeline_gives_the_same_scan_and_leaves_no_trace() {
    let all = assertions();
    for store in &STORES {
        let dir = tempfile::tempdir().unwrap();
        let path = (store.make)(dir.path(), &all);
        let before = state_of(dir.path());
        assert_eq!(labels::open(&path).unwrap().describe(), store.describes, "{}", store.name);
        for run in [RUN, OTHER_RUN, "platform_20990101T000000Z", ""] {
            for list in [&[TYPE][..], &["chargeback_status", "account_takeover"], &[TYPE, "unheard_of"], &["unheard_of"], &[]] {
                let types = types(list);
                assert_eq!(scan(&path, run, &types).unwrap(), chosen(&all, run, &types), "{} {run} {list:?}", store.name);
            }
        }
        assert_eq!(state_of(dir.path()), before, "{}", store.name);
    }
}

#[test]
fn every_timeline_may_be_empty() {
    for store in &STORES {
        let dir = tempfile::tempdir().unwrap();
        let path = (store.make)(dir.path(), &[]);
        if store.name == "three files of lines" {
            fs::write(path.join("empty.jsonl"), "").unwrap();
        }
        assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap(), [], "{}", store.name);
    }
}

#[test]
fn every_timeline_is_the_same_in_any_order_of_pieces_and_stops_when_told() {
    let all = assertions();
    let types = types(&[TYPE]);
    for store in &STORES {
        let dir = tempfile::tempdir().unwrap();
        let timeline = labels::open(&(store.make)(dir.path(), &all)).unwrap();
        let mut parts = timeline.parts().unwrap();
        parts.reverse();
        assert_eq!(scan_parts(timeline.as_ref(), &parts, RUN, &types).unwrap(), chosen(&all, RUN, &types), "{}", store.name);
        for part in &parts {
            let mut count = 0;
            timeline
                .scan(part, LabelQuery { platform_run_id: RUN, types: &types }, &mut |_| {
                    count += 1;
                    ControlFlow::Break(())
                })
                .unwrap();
            assert_eq!(count, 1, "{} {part:?}", store.name);
        }
    }
}

#[test]
fn every_timeline_refuses_an_assertion_without_id_run_event_or_type() {
    let maims: [fn(&mut Stated); 4] = [|a| a.id = None, |a| a.run = None, |a| a.event = None, |a| a.kind = None];
    for store in &STORES {
        for (i, maim) in maims.iter().enumerate() {
            let mut all: Vec<Stated> = (0..20).map(stated).collect();
            maim(&mut all[17]);
            let dir = tempfile::tempdir().unwrap();
            let error = scan(&(store.make)(dir.path(), &all), RUN, &types(&[TYPE])).unwrap_err();
            assert_eq!(error.code, ReasonCode::LabelTimelineInconsistent, "{} {i}", store.name);
            let file = ["labels.", "part-"].iter().any(|stem| error.place.starts_with(stem));
            assert!(file, "{}: {}", store.name, error.place);
        }
    }
}

#[test]
fn a_timeline_that_cannot_be_used_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let unavailable = |path: &Path| {
        let error =
            labels::open(path).and_then(|t| t.parts().and_then(|parts| scan_parts(t.as_ref(), &parts, RUN, &types(&[TYPE])))).unwrap_err();
        assert_eq!(error.code, ReasonCode::LabelStoreUnavailable, "{}", path.display());
    };
    for name in ["nowhere", "nowhere.jsonl", "nowhere.db", "nowhere.parquet"] {
        unavailable(&dir.path().join(name));
    }
    unavailable(dir.path());
    for name in [
        "labels.csv",
        "labels",
        "labels.json",
        "labels.DB2",
        "labels.jsonl.gz",
        "broken.parquet",
        "broken.db",
        "empty.parquet",
        "tableless.db",
    ] {
        let text = if name == "tableless.db" {
            ""
        } else {
            "nonsense that is longer than any header, to be read as what its name says: neither one nor the other"
        };
        fs::write(dir.path().join(name), if name == "empty.parquet" { "" } else { text }).unwrap();
        unavailable(&dir.path().join(name));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("labels.db"), "").unwrap();
    unavailable(folder.path());
}

#[test]
fn a_timeline_that_vanishes_is_unavailable() {
    let all = assertions();
    for store in &STORES {
        let dir = tempfile::tempdir().unwrap();
        let timeline = labels::open(&(store.make)(dir.path(), &all)).unwrap();
        let parts = timeline.parts().unwrap();
        fs::read_dir(dir.path()).unwrap().for_each(|e| fs::remove_file(e.unwrap().path()).unwrap());
        let error = scan_parts(timeline.as_ref(), &parts, RUN, &types(&[TYPE])).unwrap_err();
        assert_eq!(error.code, ReasonCode::LabelStoreUnavailable, "{}", store.name);
        assert_eq!(state_of(dir.path()), [], "{}", store.name);
    }
}

#[cfg(unix)]
#[test]
fn links_in_a_folder_of_labels_stay_inside_or_are_refused() {
    use std::os::unix::fs::symlink;
    let outside = tempfile::tempdir().unwrap();
    let target = jsonl(&outside.path().join("labels.jsonl"), &[stated(1)]);
    for (extension, to, code) in [
        ("jsonl", target.as_path(), ReasonCode::RefAccessDenied),
        ("parquet", target.as_path(), ReasonCode::RefAccessDenied),
        // Labels that ought to be there and are not must not pass for no labels.
        ("jsonl", Path::new("gone"), ReasonCode::LabelStoreUnavailable),
        ("parquet", Path::new("gone"), ReasonCode::LabelStoreUnavailable),
    ] {
        let dir = tempfile::tempdir().unwrap();
        jsonl(&dir.path().join("a.jsonl"), &[stated(0)]);
        symlink(to, dir.path().join(format!("b.{extension}"))).unwrap();
        assert_eq!(labels::open(dir.path()).unwrap_err().code, code, "{extension}");
    }
    let dir = tempfile::tempdir().unwrap();
    jsonl(&dir.path().join("kept"), &[stated(0)]);
    symlink("kept", dir.path().join("a.jsonl")).unwrap();
    assert_eq!(scan(dir.path(), RUN, &types(&[TYPE])).unwrap(), [stated(0)]);
}

// ---- labels as JSON lines ----

#[test]
fn label_lines_are_neither_lost_nor_doubled_at_the_edges_of_pieces() {
    const PIECE: usize = 16 << 20;
    let types = types(&[TYPE]);
    let padded = |n: u64, size: usize| {
        let mut value = stated(n).to_json();
        value["evidence_refs"] = json!("");
        let pad = size - value.to_string().len() - 1;
        value["evidence_refs"] = json!("x".repeat(pad));
        value.to_string() + "\n"
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels.jsonl");
    let mut text = String::new();
    let mut count = 0;
    let mut add = |text: &mut String, size: usize| {
        text.push_str(&padded(count, size));
        count += 1;
    };
    // A line that begins exactly with the second piece, and one that lies across the edge of the third.
    while text.len() < PIECE {
        let left = PIECE - text.len();
        add(&mut text, if left < 2_000_000 { left } else { 1_000_003 });
    }
    assert_eq!(text.len(), PIECE);
    while text.len() < 2 * PIECE + 1_500_000 {
        add(&mut text, 999_979);
    }
    for _ in 0..100 {
        add(&mut text, 600);
    }
    assert!(text.len() > 33 << 20);
    fs::write(&path, &text).unwrap();
    let timeline = labels::open(&path).unwrap();
    let parts = timeline.parts().unwrap();
    assert_eq!(parts.len(), 3);
    let mut wanted: Vec<Stated> = (0..count).map(stated).collect();
    wanted.sort();
    let found = scan_parts(timeline.as_ref(), &parts, RUN, &types).unwrap();
    assert!(found == wanted, "{} of {} assertions", found.len(), wanted.len());
    let first = scan_parts(timeline.as_ref(), &parts[..1], RUN, &types).unwrap();
    assert_eq!(first.len(), text[..PIECE].lines().count());
}

#[test]
fn label_lines_may_be_cut_at_any_byte() {
    let all: Vec<Stated> = (0..4).map(stated).collect();
    let types = types(&[TYPE]);
    let dir = tempfile::tempdir().unwrap();
    let line = |i: usize| all[i].to_json().to_string();
    for end in ["\n", "", "\r\n\n"] {
        let text = format!("{}\n\n{}\r\n{}\n{}{end}", line(0), line(1), line(2), line(3));
        let path = dir.path().join("labels.jsonl");
        fs::write(&path, &text).unwrap();
        let timeline = labels::open(&path).unwrap();
        let size = text.len() as u64;
        for cut in 1..size {
            let parts = [Part { file: 0, from: 0, to: cut }, Part { file: 0, from: cut, to: size }];
            assert_eq!(scan_parts(timeline.as_ref(), &parts, RUN, &types).unwrap(), all, "cut at {cut}");
        }
        let bytes: Vec<Part> = (0..size).map(|at| Part { file: 0, from: at, to: at + 1 }).collect();
        assert_eq!(scan_parts(timeline.as_ref(), &bytes, RUN, &types).unwrap(), all, "byte by byte");
    }
}

#[test]
fn a_line_that_is_no_assertion_is_named_by_its_place() {
    let types = types(&[TYPE]);
    let dir = tempfile::tempdir().unwrap();
    let good = stated(0).to_json().to_string();
    let without = |key: &str| {
        let mut value = stated(1).to_json();
        value.as_object_mut().unwrap().remove(key);
        value.to_string()
    };
    let mut flat = stated(1).to_json();
    flat["platform_run_id"] = json!(RUN);
    flat["event_id"] = json!("e");
    flat["label_subject_key"] = json!("e");
    let mut other = stated(1);
    other.run = Some(OTHER_RUN.into());
    let bad = [
        "nonsense".into(),
        "{".into(),
        "[]".into(),
        "null".into(),
        "{}".into(),
        "\u{feff}{}".into(),
        without("label_assertion_id"),
        without("label_subject_key"),
        without("label_type"),
        flat.to_string(),
        good.replacen('{', "{\"label_value\":\"LEGIT_CONFIRMED\",", 1),
        // What cannot be read may be about any run.
        other.to_json().to_string().replacen('{', "{\"x\":1,\"x\":1,", 1),
        format!("{good} {good}"),
        " ".repeat(MAX_TEXT + 1),
    ];
    for text in bad {
        let path = dir.path().join("labels.jsonl");
        fs::write(&path, format!("{good}\n{text}\n{good}\n")).unwrap();
        let error = scan(&path, RUN, &types).unwrap_err();
        let shown: String = text.chars().take(80).collect();
        assert_eq!(error.code, ReasonCode::LabelTimelineInconsistent, "{shown}");
        assert_eq!(error.place, format!("labels.jsonl at byte {}", good.len() + 1), "{shown}");
    }
}

#[test]
fn label_fields_that_are_not_text_are_absent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels.jsonl");
    let mut value = stated(0).to_json();
    for key in ["label_value", "effective_time", "observed_time", "payload_hash"] {
        value[key] = json!(5);
    }
    fs::write(&path, value.to_string()).unwrap();
    let wanted = Stated { value: None, effective: None, observed: None, hash: None, ..stated(0) };
    assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap(), [wanted]);
}

// ---- labels as Parquet ----

#[test]
fn parquet_columns_that_are_all_null_or_missing_are_absent() {
    let bare = |n| Stated { value: None, effective: None, observed: None, hash: None, ..stated(n) };
    let all: Vec<Stated> = (0..9).map(bare).collect();
    for columns in [Columns::Struct, Columns::Flat, Columns::Large, Columns::View, Columns::Dictionary, Columns::Timestamp] {
        let dir = tempfile::tempdir().unwrap();
        let path = parquet(&dir.path().join("labels.parquet"), &all, columns);
        assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap(), all);
    }
    let dir = tempfile::tempdir().unwrap();
    let text = |t: &str| text_column(Columns::Flat, [Some(t)].into_iter());
    let columns = [
        ("label_assertion_id", stated(0).id),
        ("platform_run_id", stated(0).run),
        ("event_id", stated(0).event),
        ("label_type", stated(0).kind),
    ];
    let batch = |without: Option<usize>| {
        let kept = columns.iter().enumerate().filter(|(i, _)| Some(*i) != without);
        RecordBatch::try_from_iter(kept.map(|(_, (name, value))| (*name, text(value.as_ref().unwrap())))).unwrap()
    };
    let path = write_parquet(&dir.path().join("labels.parquet"), &batch(None));
    assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap(), [bare(0)]);
    for missing in 0..columns.len() {
        let path = write_parquet(&dir.path().join("labels.parquet"), &batch(Some(missing)));
        let error = scan(&path, RUN, &types(&[TYPE])).unwrap_err();
        assert_eq!((error.code, error.place.as_str()), (ReasonCode::LabelTimelineInconsistent, "labels.parquet"));
    }
}

/// The columns of a subject may be such that they cannot be null, while the subject is.
#[test]
fn parquet_subject_that_is_null_is_no_subject() {
    let field = |name: &str| Arc::new(Field::new(name, DataType::Utf8, false));
    let column = |texts: [&str; 2]| text_column(Columns::Flat, texts.into_iter().map(Some));
    let subject = StructArray::try_new(
        vec![field("platform_run_id"), field("event_id")].into(),
        vec![column([RUN, ""]), column(["evt_0", ""])],
        Some(NullBuffer::from(vec![true, false])),
    )
    .unwrap();
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("label_assertion_id", column(["a", "b"]), false),
        ("label_subject_key", Arc::new(subject) as ArrayRef, true),
        ("label_type", column([TYPE, TYPE]), false),
    ])
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let error = scan(&write_parquet(&dir.path().join("labels.parquet"), &batch), RUN, &types(&[TYPE])).unwrap_err();
    assert_eq!((error.code, error.place.as_str()), (ReasonCode::LabelTimelineInconsistent, "labels.parquet row group 0 row 1"));
}

/// A typed value beyond the calendar is no instant, and is told as it would be written.
#[test]
fn parquet_instants_beyond_the_calendar_are_none() {
    let text = |t: &str| text_column(Columns::Flat, [t; 3].into_iter().map(Some));
    let stamps = [i64::MAX, i64::MIN, 1];
    let observed: ArrayRef = Arc::new(TimestampMicrosecondArray::from(stamps.to_vec()).with_timezone("UTC"));
    let columns = [("label_assertion_id", "a"), ("platform_run_id", RUN), ("event_id", "e"), ("label_type", TYPE)];
    let columns = columns.map(|(name, value)| (name, text(value))).into_iter().chain([("observed_time", observed)]);
    let dir = tempfile::tempdir().unwrap();
    let path = write_parquet(&dir.path().join("labels.parquet"), &RecordBatch::try_from_iter(columns).unwrap());
    let timeline = labels::open(&path).unwrap();
    let mut found = Vec::new();
    timeline
        .scan(&timeline.parts().unwrap()[0], LabelQuery { platform_run_id: RUN, types: &types(&[TYPE]) }, &mut |a| {
            found.extend(a.observed.map(|stamp| (stamp.instant(), stamp.text().into_owned())));
            ControlFlow::Continue(())
        })
        .unwrap();
    let wanted = stamps.map(|micros| (Some(Instant(micros)).filter(|_| micros == 1), Instant(micros).to_string()));
    assert_eq!(found, wanted);
}

#[test]
fn parquet_types_that_would_have_to_be_guessed_are_refused() {
    use arrow::array::{Int64Array, TimestampMillisecondArray};
    let micros = TimestampMicrosecondArray::from(vec![0]);
    let columns: [(&str, ArrayRef); 5] = [
        ("observed_time", Arc::new(TimestampMillisecondArray::from(vec![0]).with_timezone("UTC"))),
        ("observed_time", Arc::new(micros.clone())),
        ("observed_time", Arc::new(micros.with_timezone("Europe/Paris"))),
        ("label_value", Arc::new(Int64Array::from(vec![1]))),
        ("label_assertion_id", Arc::new(Int64Array::from(vec![1]))),
    ];
    for (name, column) in columns {
        let text = |t: &str| text_column(Columns::Flat, [Some(t)].into_iter());
        let mut batch = vec![("platform_run_id", text(RUN)), ("event_id", text("e")), ("label_type", text(TYPE))];
        if name != "label_assertion_id" {
            batch.push(("label_assertion_id", text("a")));
        }
        batch.push((name, column));
        let dir = tempfile::tempdir().unwrap();
        let path = write_parquet(&dir.path().join("labels.parquet"), &RecordBatch::try_from_iter(batch).unwrap());
        assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap_err().code, ReasonCode::LabelTimelineInconsistent, "{name}");
    }
}

// ---- labels in SQLite ----

#[test]
fn sqlite_shows_a_backdated_column_beside_what_the_assertion_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("labels.db");
    let db = sqlite_open(&path, &[], "DELETE");
    let embedded = stated(0);
    let backdated = Stated { observed: Some("2020-01-01T00:00:00Z".into()), ..stated(0) };
    insert(&db, &backdated, Some(embedded.to_json().to_string()));
    insert(&db, &stated(1), None);
    insert(&db, &stated(2), Some(Stated { observed: None, ..stated(2) }.to_json().to_string()));
    drop(db);
    let timeline = labels::open(&path).unwrap();
    let mut found = Vec::new();
    timeline
        .scan(&timeline.parts().unwrap()[0], LabelQuery { platform_run_id: RUN, types: &types(&[TYPE]) }, &mut |a| {
            let text = |t: Option<Stamp<'_>>| t.map(|t| t.text().into_owned());
            found.push((text(a.observed), text(a.embedded_observed)));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(found, [(backdated.observed, embedded.observed), (stated(1).observed, None), (stated(2).observed, None)]);
}

/// Every assertion of the table with what is wrong with it, by event.
fn faults(path: &Path) -> Vec<(String, Option<String>)> {
    let timeline = labels::open(path).unwrap();
    let mut found = Vec::new();
    timeline
        .scan(&timeline.parts().unwrap()[0], LabelQuery { platform_run_id: RUN, types: &types(&[TYPE]) }, &mut |a| {
            found.push((a.event_id.to_owned(), a.fault.map(str::to_owned)));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

#[test]
fn sqlite_hands_on_any_other_difference_between_column_and_assertion_with_its_row() {
    let scanned = |assertion: &str| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.db");
        insert(&sqlite_open(&path, &[], "DELETE"), &stated(0), Some(assertion.to_owned()));
        faults(&path)
    };
    let edited = |pointer: &str, value: Value| {
        let mut assertion = stated(0).to_json();
        assertion["actor_id"] = Value::Null;
        *assertion.pointer_mut(pointer).unwrap() = value;
        assertion.to_string()
    };
    let mut bad: Vec<(&str, String)> = ["", "nonsense", "[]", "5", "null", "\"x\""].map(|text| ("", text.to_owned())).into();
    bad.push(("stands twice", stated(0).to_json().to_string().replacen('{', "{\"observed_time\":\"2020-01-01T00:00:00Z\",", 1)));
    bad.push(("observed_time is not text", edited("/observed_time", json!(5))));
    for pointer in [
        "/label_assertion_id",
        "/label_subject_key/platform_run_id",
        "/label_subject_key/event_id",
        "/label_type",
        "/label_value",
        "/effective_time",
        "/payload_hash",
        "/source_type",
        "/actor_id",
    ] {
        let name = pointer.rsplit('/').next().unwrap();
        bad.push((name, edited(pointer, json!("other"))));
        bad.push((name, edited(pointer, json!(7))));
    }
    let mine = stated(0).event.unwrap();
    for (words, text) in bad {
        let found = scanned(&text);
        assert!(found.iter().all(|(_, fault)| fault.as_ref().is_some_and(|f| f.contains(words))), "{text}: {found:?}");
        // Where the two copies name two events, it may be about either.
        let both = text == edited("/label_subject_key/event_id", json!("other"));
        let events: Vec<&str> = found.iter().map(|(event, _)| event.as_str()).collect();
        assert_eq!(events, if both { vec![mine.as_str(), "other"] } else { vec![mine.as_str()] }, "{text}");
    }
    // The same instant in another spelling, and fields that no column has.
    for text in [edited("/effective_time", json!("2026-02-09T01:00:00+01:00")), edited("/evidence_refs", json!([]))] {
        assert_eq!(scanned(&text), [(mine.clone(), None)], "{text}");
    }
}

#[test]
fn sqlite_values_that_are_not_text_are_refused_where_nobody_could_say_whom_they_are_about() {
    for column in ["label_assertion_id", "platform_run_id", "event_id", "label_type", "label_value", "observed_time", "assertion_json"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.db");
        let db = sqlite_open(&path, &[stated(0), stated(1)], "DELETE");
        db.execute(&format!("UPDATE ls_label_timeline SET {column} = x'00ff' WHERE event_id = 'evt_1'"), []).unwrap();
        drop(db);
        if ["label_value", "observed_time", "assertion_json"].contains(&column) {
            let found = faults(&path);
            let [(_, None), (event, Some(fault))] = found.as_slice() else { panic!("{column}: {found:?}") };
            assert!(event == "evt_1" && fault.contains(column), "{column}: {fault}");
        } else {
            assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap_err().code, ReasonCode::LabelTimelineInconsistent, "{column}");
        }
    }
}

#[test]
fn sqlite_in_wal_mode_is_read_with_what_its_writer_has_committed() {
    let wanted = [stated(0), stated(1)];
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("labels #1?.db");
    let db = sqlite_open(&path, &[stated(0)], "WAL");
    db.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    insert(&db, &stated(1), None);
    let main = (fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap());
    assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap(), wanted);
    db.execute_batch("BEGIN").unwrap();
    insert(&db, &stated(2), None);
    assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap(), wanted, "what is not committed is not there");
    assert_eq!((fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap()), main);

    // As after a crash of the writer: commits in the log, no index of the log.
    for suffix in ["", "-wal"] {
        fs::copy(format!("{}{suffix}", path.display()), copy.path().join(format!("labels.db{suffix}"))).unwrap();
    }
    let crashed = copy.path().join("labels.db");
    let before = fs::read(&crashed).unwrap();
    assert_eq!(scan(&crashed, RUN, &types(&[TYPE])).unwrap(), wanted);
    assert_eq!(fs::read(&crashed).unwrap(), before);
    drop(db);
    assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap(), wanted);
}

#[test]
fn sqlite_in_the_middle_of_a_write_is_never_read_as_it_lies() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = dir.path().join("labels.db");
    let all: Vec<Stated> = (0..2000).map(stated).collect();
    let db = sqlite_open(&path, &all, "DELETE");
    db.pragma_update(None, "cache_size", 5).unwrap();
    db.execute_batch("BEGIN; UPDATE ls_label_timeline SET label_value = 'LEGIT_CONFIRMED', assertion_json = NULL").unwrap();
    // The writer crashes: half of its pages are in the file, the old ones in the journal.
    for suffix in ["", "-journal"] {
        fs::copy(format!("{}{suffix}", path.display()), copy.path().join(format!("labels.db{suffix}"))).unwrap();
    }
    let crashed = copy.path().join("labels.db");
    assert_ne!(fs::read(&crashed).unwrap(), {
        db.execute_batch("ROLLBACK").unwrap();
        fs::read(&path).unwrap()
    });
    let before = state_of(copy.path());
    assert_eq!(scan(&crashed, RUN, &types(&[TYPE])).unwrap_err().code, ReasonCode::LabelStoreUnavailable);
    assert_eq!(state_of(copy.path()), before);

    // The writer is at work: its lock is waited for, not passed by.
    db.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap_err().code, ReasonCode::LabelStoreUnavailable);
    db.execute_batch("ROLLBACK").unwrap();
    let mut wanted = all;
    wanted.sort();
    assert!(scan(&path, RUN, &types(&[TYPE])).unwrap() == wanted);
}

#[test]
fn sqlite_that_changes_under_a_reader_without_locks_is_unavailable() {
    let dir = tempfile::tempdir().unwrap();
    let path = sqlite(&dir.path().join("labels.db"), &[stated(0)], "WAL");
    let timeline = labels::open(&path).unwrap();
    let error = timeline
        .scan(&timeline.parts().unwrap()[0], LabelQuery { platform_run_id: RUN, types: &types(&[TYPE]) }, &mut |_| {
            // Closing the last connection moves its commits into the file.
            let writer = Connection::open(&path).unwrap();
            (1..100).for_each(|n| insert(&writer, &stated(n), Some(stated(n).to_json().to_string())));
            ControlFlow::Break(())
        })
        .unwrap_err();
    assert_eq!(error.code, ReasonCode::LabelStoreUnavailable);
    assert_eq!(scan(&path, RUN, &types(&[TYPE])).unwrap().len(), 100);
}
