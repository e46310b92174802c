//! `ofs explain` against a reading of the raw files that shares no code with the program.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, FLIGHTS_TOPIC, Random, Workspace, archive_folder, files, payload_hash};

/// An event of the fixture, as its archive record holds it.
#[derive(Debug, Clone)]
struct Event {
    ts: String,
    partition: i64,
    offset: u64,
    id: String,
    key: String,
    payload: Value,
    hash: String,
}

impl Event {
    /// Canonical order. The fixture's instants all have one spelling.
    fn order(&self) -> (&str, i64, u64) {
        (&self.ts, self.partition, self.offset)
    }
}

/// Every event of archive and bus, each place once.
fn events(w: &Workspace) -> Vec<Event> {
    let mut found: BTreeMap<(i64, u64), Event> = BTreeMap::new();
    for path in files(&w.path(&format!("store/{FLIGHTS_RUN}/archive/events"))) {
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            let origin = &record["origin_offset"];
            let place = (origin["partition"].as_i64().unwrap(), origin["offset"].as_str().unwrap().parse().unwrap());
            found.insert(place, event(place, &record["envelope"]));
        }
    }
    for partition in 0..4 {
        let base = w.json(&format!("bus/{FLIGHTS_TOPIC}/partition={partition}.meta.json"))["base_offset"].as_u64().unwrap();
        for (n, line) in w.text(&format!("bus/{FLIGHTS_TOPIC}/partition={partition}.jsonl")).lines().enumerate() {
            let record: Value = serde_json::from_str(line).unwrap();
            found.entry((partition, base + n as u64)).or_insert_with_key(|place| event(*place, &record["payload"]));
        }
    }
    let mut all: Vec<Event> = found.into_values().collect();
    all.sort_by(|a, b| a.order().cmp(&b.order()));
    all
}

fn event((partition, offset): (i64, u64), envelope: &Value) -> Event {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    Event {
        ts: text(&envelope["ts_utc"]),
        partition,
        offset,
        id: text(&envelope["event_id"]),
        key: text(&envelope["payload"]["flow_id"]),
        payload: envelope["payload"].clone(),
        hash: payload_hash(envelope),
    }
}

fn micros(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

/// The events that a window of `hours` before and with `of` covers.
fn window<'e>(all: &'e [Event], of: &Event, hours: i64) -> Vec<&'e Event> {
    let from = micros(&of.ts) - hours * 3_600_000_000;
    all.iter().filter(|e| e.key == of.key && micros(&e.ts) > from && e.order() <= of.order()).collect()
}

/// What each feature column must say: value, and the events that count.
fn expected<'e>(all: &'e [Event], of: &Event) -> Vec<(String, Value, Vec<&'e Event>)> {
    let mut columns = Vec::new();
    let windows = [("1h", 1), ("24h", 24), ("7d", 168)];
    for name in ["departures", "delay_sum", "delay_max", "delay_mean", "airports"] {
        for (suffix, hours) in windows {
            let field = if name == "airports" { "origin" } else { "amount" };
            let counted = window(all, of, hours);
            let counted: Vec<&Event> =
                counted.into_iter().filter(|e| name == "departures" || e.payload.get(field).is_some_and(|v| !v.is_null())).collect();
            let amounts: Vec<i64> = counted.iter().filter_map(|e| e.payload["amount"].as_i64()).collect();
            let sum: i64 = amounts.iter().sum();
            let value = match name {
                "departures" => json!(counted.len()),
                "airports" => json!(counted.iter().map(|e| e.payload["origin"].as_str().unwrap()).collect::<BTreeSet<_>>().len()),
                _ if amounts.is_empty() => Value::Null,
                "delay_sum" => json!(sum),
                "delay_max" => json!(amounts.iter().max()),
                // Small whole numbers: their quotient is rounded once by the division itself.
                _ => json!(sum as f64 / amounts.len() as f64),
            };
            columns.push((format!("{name}_{suffix}"), value, counted));
        }
    }
    columns
}

/// Assertion id to what must have become of it, and the label, for one event and cut-off.
fn labels(w: &Workspace, event_id: &str, cutoff: &str) -> (BTreeMap<String, &'static str>, Value) {
    let mut mine: Vec<(String, String, String)> = Vec::new();
    for line in w.text("labels/assertions.jsonl").lines() {
        let a: Value = serde_json::from_str(line).unwrap();
        if a["label_subject_key"]["event_id"] == event_id {
            let text = |key: &str| a[key].as_str().unwrap().to_owned();
            mine.push((text("observed_time"), text("label_assertion_id"), text("label_value")));
        }
    }
    mine.sort();
    mine.reverse();
    let known: Vec<&(String, String, String)> = mine.iter().filter(|a| micros(&a.0) <= micros(cutoff)).collect();
    let top: Vec<&(String, String, String)> = known.iter().filter(|a| a.0 == known[0].0).copied().collect();
    let conflict = top.iter().any(|a| a.2 != top[0].2);
    let verdict = |a: &(String, String, String)| match () {
        _ if micros(&a.0) > micros(cutoff) => "LATE",
        _ if a.0 != known[0].0 => "SUPERSEDED",
        _ if conflict => "CONFLICT",
        _ if a.1 == known[0].1 => "TAKEN",
        _ => "TIE_SAME_VALUE",
    };
    let verdicts = mine.iter().map(|a| (a.1.clone(), verdict(a))).collect();
    let label = if conflict || known.is_empty() { Value::Null } else { json!(known[0].2) };
    (verdicts, label)
}

fn explain(w: &Workspace, manifest: &Value, event_id: &str) -> Value {
    w.ofs(&["explain", manifest.as_str().unwrap(), event_id, "--limit", "10000", "--json"]).expect(0).json()
}

fn place(v: &Value) -> (i64, u64) {
    (v["partition"].as_i64().unwrap(), v["offset"].as_str().unwrap().parse().unwrap())
}

fn check(w: &Workspace, all: &[Event], told: &Value, of: &Event, cutoff: &str) {
    let row = &told["row"];
    assert_eq!((told["outcome"].as_str(), &told["holds"]), (Some("ROW"), &json!(true)), "{told:#}");
    assert_eq!(place(row), (of.partition, of.offset), "{}", of.id);
    assert_eq!((&row["payload_hash"], &row["key"], &row["ts_utc"]), (&json!(of.hash), &json!(of.key), &json!(of.ts)));
    assert!(told["served"].as_array().unwrap().iter().all(|s| s["payload_hash"] == json!(of.hash)));
    let wanted = expected(all, of);
    let features = told["features"].as_array().unwrap();
    assert_eq!(features.len(), wanted.len());
    for (found, (column, value, counted)) in features.iter().zip(&wanted) {
        assert_eq!((found["column"].as_str(), &found["value"]), (Some(column.as_str()), value), "{}", of.id);
        assert_eq!(found["contributors_total"], json!(counted.len()), "{} {column}", of.id);
        let places: Vec<(i64, u64)> = found["contributors"].as_array().unwrap().iter().map(place).collect();
        assert_eq!(places, counted.iter().map(|e| (e.partition, e.offset)).collect::<Vec<_>>(), "{} {column}", of.id);
    }
    let label = &told["labels"][0];
    let (verdicts, value) = labels(w, &of.id, cutoff);
    assert_eq!(label["published"]["value"], value, "{}", of.id);
    let found: BTreeMap<String, &str> = label["considered"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["label_assertion_id"].as_str().unwrap().to_owned(), c["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(found, verdicts, "{}", of.id);
}

#[test]
fn a_row_is_explained_as_a_reading_of_the_raw_files_says() {
    let w = Workspace::flights().unguarded();
    let all = events(&w);
    let audit = w.build("audit");
    let (manifest, cutoff) = (&audit["dataset"]["manifest_id"], w.json("intents/audit.json")["label_basis"]["label_asof_utc"].clone());
    let mut random = Random::new(163);
    // The last row of the busiest key has the longest history; rows with a late assertion, the most verdicts.
    let last = all.iter().rfind(|e| e.key == all.last().unwrap().key).unwrap();
    let late = all.iter().find(|e| labels(&w, &e.id, cutoff.as_str().unwrap()).0.values().any(|v| *v == "LATE")).unwrap();
    let sampled: Vec<&Event> = (0..10).map(|_| random.pick(&all)).chain([last, late]).collect();
    for of in sampled {
        check(&w, &all, &explain(&w, manifest, &of.id), of, cutoff.as_str().unwrap());
    }
    // A record that is gone does not take the row with it: what was published stands, and what is missing is told.
    let gone = all.iter().find(|e| (e.partition, e.offset) == (0, 10)).unwrap();
    let folder = archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 0, "kafka_offset");
    std::fs::remove_file(w.path(&format!("{folder}/offset=10.json"))).unwrap();
    let told = w.ofs(&["explain", manifest.as_str().unwrap(), &gone.id, "--json"]).expect(3).json();
    assert_eq!((&told["outcome"], &told["row"]["payload_hash"], &told["served"]), (&json!("ROW"), &json!(gone.hash), &json!([])));
    assert!(told["differences"][0].as_str().unwrap().contains("does not deliver"), "{told:#}");
    assert_eq!(told["labels"][0]["holds"], json!(true));
}

#[test]
fn what_is_no_row_and_what_has_changed_since_is_told() {
    let w = Workspace::flights().unguarded();
    let all = events(&w);
    let of = &all[400];
    w.intent("some", "train", |intent| {
        intent["request_id"] = json!("request.some.origins");
        intent["filters"]["origin"] = json!([of.payload["origin"]]);
    });
    let dataset = w.build("some")["dataset"].clone();
    let id = dataset["manifest_id"].as_str().unwrap();
    let other = all.iter().find(|e| e.payload["origin"] != of.payload["origin"]).unwrap();
    let dropped = w.ofs(&["explain", id, &other.id, "--json"]).expect(0).json();
    assert_eq!((&dropped["outcome"], &dropped["dropped"], &dropped["row"]), (&json!("DROPPED"), &json!("filter:origin"), &Value::Null));
    let nowhere = w.ofs(&["explain", id, "no-such-event", "--json"]).expect(2);
    assert_eq!(nowhere.json()["outcome"], "NOT_IN_BASIS");
    w.ofs(&["explain", "dm_0", &of.id, "--json"]).refused(2, "DATASET_NOT_FOUND");
    let text = w.ofs(&["explain", id, &of.id]).expect(0).out;
    for part in ["ROW", &of.hash, "departures_24h = ", "window       (", "TAKEN", "policy ", "cut-off", &of.key] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    // A label that was added afterwards under an old observed time does not change the row, and is told.
    let mut line: Value = serde_json::from_str(w.text("labels/assertions.jsonl").lines().next().unwrap()).unwrap();
    line["label_assertion_id"] = json!("f".repeat(32));
    line["label_subject_key"]["event_id"] = json!(of.id);
    line["observed_time"] = json!("2013-01-20T00:00:00.000000Z");
    line["label_value"] = json!("DIVERTED");
    w.write("labels/late.jsonl", format!("{line}\n"));
    let told = w.ofs(&["explain", id, &of.id, "--json"]).expect(3).json();
    assert_eq!(told["holds"], json!(false));
    assert!(told["differences"][0].as_str().unwrap().starts_with("LABEL_STATE_DRIFT"), "{told:#}");
    assert_eq!(told["labels"][0]["now"]["value"], json!("DIVERTED"));
}
