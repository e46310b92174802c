//! Random small worlds: events on bus and archive, labels, a feature authority and an intent, with every
//! kind of untidiness that is lawful, and now and then something that must be refused.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::support::{Random, Workspace, archive_folder, archive_record, assertion, facts, intent, lines, payload_hash, spelled};

/// An event at its place.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) lane: usize,
    pub(super) offset: u64,
    pub(super) envelope: Value,
    pub(super) ts: i64,
}

/// One partition.
#[derive(Debug, Clone)]
pub(super) struct Lane {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) kind: &'static str,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Whether the last offset is a record of another run, on the bus only.
    pub(super) foreign: bool,
}

/// One feature of the authority.
#[derive(Debug, Clone)]
pub(super) struct Feature {
    pub(super) name: String,
    pub(super) agg: &'static str,
    pub(super) field: Option<&'static str>,
    pub(super) type_name: String,
    pub(super) conditions: BTreeMap<&'static str, Value>,
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) run: String,
    pub(super) lanes: Vec<Lane>,
    /// Every event of the basis, at each place once.
    pub(super) events: Vec<Event>,
    pub(super) assertions: Vec<Value>,
    pub(super) vocabulary: BTreeMap<&'static str, Vec<&'static str>>,
    pub(super) key_precedence: Vec<&'static str>,
    pub(super) windows: Vec<(&'static str, i64)>,
    pub(super) features: Vec<Feature>,
    /// Whether a row sees of its own partition only what stands before it.
    pub(super) arrival: bool,
    pub(super) intent: Value,
    pub(super) authority: String,
    pub(super) cutoff: i64,
    layout: u64,
}

const START: i64 = 1_769_904_000_000_000;
const SECOND: i64 = 1_000_000;
const S1: &str = "11111111111111111111111111111111";
const S2: &str = "22222222222222222222222222222222";

fn number(text: &str) -> Value {
    let value: Value = serde_json::from_str(text).unwrap();
    assert_eq!(value.to_string(), text, "number tokens are kept");
    value
}

fn payload(random: &mut Random, huge: bool, misfit: bool) -> Value {
    let mut map = Map::new();
    let mut maybe = |random: &mut Random, name: &str, value: Option<Value>| {
        match (value, random.below(8)) {
            (_, 0) => drop(map.insert(name.into(), Value::Null)),
            (_, 1) | (None, _) => {}
            (Some(value), _) => drop(map.insert(name.into(), value)),
        };
    };
    let key = match random.below(20) {
        0 => None,
        1 => Some(json!("")),
        2 => Some(json!(7)),
        3 => Some(json!(true)),
        4 => Some(json!("clé \"x\"")),
        n => Some(json!(["k1", "k1", "k2", "k3"][n % 4])),
    };
    if let Some(key) = key {
        maybe(random, "flow_id", Some(key));
    }
    let account = random.pick(&["a1", "a2"]).to_string();
    maybe(random, "account", Some(json!(account)));
    let whole = match random.below(if huge { 10 } else { 7 }) {
        0 => "10".into(),
        1 => "10.0".into(),
        2 => "-1e+1".into(),
        3 => "0".into(),
        n if n < 7 => format!("{}", random.below(2_000) as i64 - 1_000),
        7 => i64::MAX.to_string(),
        8 => i64::MIN.to_string(),
        _ => format!("{}", random.next() as i64),
    };
    maybe(random, "n", Some(if misfit { json!("ten") } else { number(&whole) }));
    let decimal = match random.below(if huge { 8 } else { 6 }) {
        0 => json!("12.50"),
        1 => number("-0.01"),
        2 => number("1.5e+2"),
        3 => json!("0"),
        4 | 5 => json!(format!("{}.{:02}", random.below(1_000) as i64 - 500, random.below(100))),
        _ => json!(format!("{}{}", ["", "-"][random.below(2)], "9".repeat(36))),
    };
    maybe(random, "d", Some(decimal));
    let float = match random.below(if huge { 9 } else { 6 }) {
        0 => "0.1".into(),
        1 => "-0.0".into(),
        2 => "1e+16".into(),
        3 => "-1e+16".into(),
        4 | 5 => format!("{}.{}", random.below(100), random.below(1_000_000)),
        6 => "1.7e+308".into(),
        7 => "5e-324".into(),
        _ => "-1.7e+308".into(),
    };
    maybe(random, "x", Some(number(&float)));
    let text = random.pick(&["", "ab", "aB", "é", "\u{10348}", "z\u{202e}z", "10", "ab "]).to_string();
    maybe(random, "s", Some(json!(text)));
    let flag = random.chance(50);
    maybe(random, "b", Some(json!(flag)));
    let country = random.pick(&["US", "GB", "FR"]).to_string();
    maybe(random, "country", Some(json!(country)));
    let level = random.pick(&["1", "1.0", "2", "3"]).to_string();
    maybe(random, "level", Some(number(&level)));
    Value::Object(map)
}

fn features(random: &mut Random) -> Vec<Feature> {
    const WHERE: [(&str, &str); 5] = [("b", "true"), ("b", "false"), ("country", "\"US\""), ("level", "1"), ("country", "null")];
    let count = 3 + random.below(6);
    (0..count)
        .map(|i| {
            let (field, type_name) = match random.below(7) {
                0 | 1 => (Some("n"), "int64".to_owned()),
                2 => (Some("d"), (*random.pick(&["decimal(38,2)", "decimal(38,4)", "decimal(38,2)"])).to_owned()),
                3 | 4 => (Some("x"), "float64".into()),
                5 => (Some("s"), "utf8".into()),
                _ => (Some("b"), "bool".into()),
            };
            let offered: &[&'static str] = match type_name.as_str() {
                "int64" => &["count", "count_distinct", "sum", "mean", "min", "max", "first", "last", "stddev"],
                "float64" => &["count", "count_distinct", "sum", "mean", "min", "max", "first", "last"],
                "utf8" => &["count", "count_distinct", "min", "max", "first", "last"],
                "bool" => &["count", "count_distinct", "first", "last"],
                _ => &["count", "count_distinct", "sum", "mean", "min", "max", "first", "last", "stddev"],
            };
            let (agg, field, type_name) = match random.below(10) {
                0 => ("count", None, String::new()),
                1 => ("seconds_since_previous", None, String::new()),
                _ => (*random.pick(offered), field, type_name),
            };
            let mut conditions = BTreeMap::new();
            for _ in 0..[0, 0, 1, 1, 2][random.below(5)] {
                let (name, value) = *random.pick(&WHERE);
                conditions.insert(name, number(value));
            }
            Feature { name: format!("f{i}"), agg, field, type_name, conditions }
        })
        .collect()
}

impl World {
    pub(super) fn random(seed: u64) -> World {
        let random = &mut Random::new(seed);
        let run = "platform_20260201T000000Z".to_owned();
        let kinds: Vec<&'static str> =
            random.pick(&[vec!["kafka_offset"], vec!["kafka_offset"], vec!["file_line"], vec!["kafka_offset", "kinesis_sequence"]]).clone();
        let mut lanes = Vec::new();
        for topic in 0..1 + random.below(2) {
            for partition in 0..1 + random.below(3) as i32 {
                let first = [0, 3, 99_999][random.below(3)];
                let last = first + random.below(14) as u64;
                let kind = *random.pick(&kinds);
                lanes.push(Lane { topic: format!("t.{topic}"), partition, kind, first, last, foreign: last > first && random.chance(15) });
            }
        }
        let (huge, misfit, clash) = (random.chance(35), random.chance(5), random.chance(6));
        let step = *random.pick(&[SECOND / 2, SECOND, 60 * SECOND, 3600 * SECOND]);
        let mut events: Vec<Event> = Vec::new();
        for (at, lane) in lanes.iter().enumerate() {
            for offset in lane.first..=lane.last - u64::from(lane.foreign) {
                if random.chance(12) && !events.is_empty() {
                    // A redelivery, perhaps elsewhere.
                    let earlier = random.pick(&events).clone();
                    events.push(Event { lane: at, offset, ..earlier });
                    continue;
                }
                let ts = START + (random.below(12) as i64) * step + [0, 0, 0, 1, -1][random.below(5)];
                let misfit = misfit && random.chance(15);
                let mut envelope = json!({
                    "event_id": format!("e{:016x}", random.next()), "event_type": "x", "platform_run_id": run,
                    "ts_utc": spelled(ts, random.below(4)), "payload": payload(random, huge, misfit), "note": "ü\u{7f}\u{1}",
                });
                match random.below(6) {
                    0 => {}
                    1 => envelope["scenario_run_id"] = json!(S2),
                    _ => envelope["scenario_run_id"] = json!(S1),
                }
                events.push(Event { lane: at, offset, envelope, ts });
            }
        }
        if clash && events.len() > 3 {
            // One event id with two contents.
            let (from, to) = (random.below(events.len()), random.below(events.len()));
            if from != to {
                let place = (events[to].lane, events[to].offset);
                events[to] = Event { lane: place.0, offset: place.1, ..events[from].clone() };
                events[to].envelope["payload"]["extra"] = json!(1);
            }
        }
        let cutoff = START + 20 * step;
        let mut world = World {
            vocabulary: BTreeMap::from([("alpha", vec!["X", "Y", "Z"]), ("beta", vec!["P", "Q"]), ("gamma", vec!["G"])]),
            key_precedence: random.pick(&[vec!["flow_id"], vec!["account", "flow_id"], vec!["flow_id", "account"]]).clone(),
            windows: random
                .pick(&[
                    vec![("1s", SECOND), ("90s", 90 * SECOND)],
                    vec![("1h", 3600 * SECOND)],
                    vec![("2m", 120 * SECOND), ("1s", SECOND), ("7d", 7 * 86_400 * SECOND)],
                    vec![("24h", 86_400 * SECOND), ("1h", 3600 * SECOND)],
                ])
                .clone(),
            features: features(random),
            // Drawn apart, so that the worlds are those from before there was a choice.
            arrival: Random::new(seed ^ 0xa11).chance(40),
            assertions: Vec::new(),
            intent: Value::Null,
            authority: String::new(),
            layout: random.next(),
            run,
            lanes,
            events,
            cutoff,
        };
        world.label(random, step);
        world.authority = world.authority_text();
        world.intent = world.make_intent(random);
        world
    }

    fn label(&mut self, random: &mut Random, step: i64) {
        let (run, cutoff) = (self.run.clone(), self.cutoff);
        let stray = random.chance(6);
        let mut ids: Vec<String> = self.events.iter().map(|e| e.envelope["event_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids.dedup();
        ids.push("e-of-nobody".into());
        for event in &ids {
            for _ in 0..random.below(4) {
                let (name, values) = *random.pick(&[
                    ("alpha", &["X", "Y", "Z"][..]),
                    ("alpha", &["X"]),
                    ("beta", &["P", "Q"]),
                    ("gamma", &["G"]),
                    ("unknown", &["?"]),
                ]);
                let mut value = *random.pick(values);
                let observed = cutoff + [-2 * step, -step, -step, -1, 0, 0, 1, step][random.below(8)];
                // Out of the vocabulary: matters only where it is known, wanted and about a row.
                if observed > cutoff && random.chance(20) || event == "e-of-nobody" || (stray && random.chance(8)) {
                    value = "NEVER_HEARD_OF";
                }
                let id = hex32(random);
                let spelling = spelled(observed, random.below(4));
                let of = if random.chance(5) { "platform_19990101T000000Z" } else { run.as_str() };
                let mut made = assertion(of, &id, event, (name, value), &spelling);
                // From when on it holds says nothing about when it was known.
                let effective = cutoff + [-1_000 * step, -step, 0, step, 1_000 * step][random.below(5)];
                made["effective_time"] = json!(spelled(effective, random.below(4)));
                if random.chance(10) {
                    self.assertions.push(made.clone());
                }
                self.assertions.push(made);
            }
        }
    }

    fn authority_text(&self) -> String {
        let mut text = String::from("policy_id: ofp.features.v0\nrevision: r1\nlabel_types:\n");
        for (name, values) in &self.vocabulary {
            text += &format!("  {name}: [{}]\n", values.join(", "));
        }
        text += &format!(
            "feature_groups:\n  - name: group\n    version: v1\n    key_precedence: [{}]\n    windows:\n",
            self.key_precedence.join(", ")
        );
        if self.arrival {
            text = text.replace("    windows:\n", "    availability: arrival\n    windows:\n");
        }
        for (name, micros) in &self.windows {
            let seconds = micros / SECOND;
            text += &format!("      - {{window: w{name}, duration: {seconds}s, ttl: {seconds}s}}\n");
        }
        text += "    features:\n";
        for f in &self.features {
            let mut parts = vec![format!("name: {}", f.name), format!("agg: {}", f.agg)];
            if let Some(field) = f.field {
                parts.push(format!("field: {field}"));
                parts.push(format!("type: \"{}\"", f.type_name));
            }
            if !f.conditions.is_empty() {
                let list: Vec<String> = f.conditions.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                parts.push(format!("where: {{{}}}", list.join(", ")));
            }
            text += &format!("      - {{{}}}\n", parts.join(", "));
        }
        text
    }

    fn make_intent(&self, random: &mut Random) -> Value {
        let mut basis = Vec::new();
        let slice = |lane: &Lane, from: u64, to: u64| json!({"topic": lane.topic, "partition": lane.partition, "offset_kind": lane.kind, "start_offset": format!("00{from}"), "end_offset": to.to_string()});
        for lane in &self.lanes {
            let middle = lane.first + (lane.last - lane.first) / 2;
            match random.below(3) {
                0 => basis.push(slice(lane, lane.first, lane.last)),
                // Touching, then overlapping.
                1 if middle < lane.last => basis.extend([slice(lane, middle + 1, lane.last), slice(lane, lane.first, middle)]),
                _ => basis.extend([slice(lane, lane.first, middle), slice(lane, lane.first, lane.last)]),
            }
        }
        random.shuffle(&mut basis);
        let mut it = intent(&self.run, "request.0001", Value::Array(basis), "group");
        it["scenario_run_ids"] = random.pick(&[json!([]), json!([]), json!([S1, S1]), json!([S2, S1])]).clone();
        it["label_basis"]["label_asof_utc"] = json!(spelled(self.cutoff, random.below(4)));
        it["label_basis"]["maturity_days"] = json!(random.below(2));
        let types = random.pick(&[vec!["alpha"], vec!["beta", "alpha"], vec!["gamma", "alpha", "beta"]]).clone();
        let minimum: Map<String, Value> = types.iter().map(|t| ((*t).to_owned(), json!(0))).collect();
        let mut filters =
            json!({"label_types": types, "label_coverage_policy": {"min_coverage_by_label_type": minimum, "max_conflict_ratio": 1}});
        for (field, choices) in [
            ("country", [json!("US"), json!(["GB", "US"]), json!(["US", null])]),
            ("level", [number("1"), json!([2, 3, 1]), json!([null, 1])]),
        ] {
            if random.chance(25) {
                filters[field] = random.pick(&choices).clone();
            }
        }
        match random.below(8) {
            0 => {
                // A real threshold.
                filters["label_coverage_policy"] =
                    json!({"min_coverage_by_label_type": {types[0]: random.pick(&[number("0.3"), number("0.75"), number("1")])}});
            }
            1 => it["non_training_allowed"] = json!(true),
            _ => {}
        }
        if it["non_training_allowed"] == json!(true) {
            filters["label_coverage_policy"] = json!({});
        }
        it["filters"] = filters;
        it
    }

    /// Lays the world out below a workspace: archive, bus and labels in any lawful arrangement.
    pub(super) fn write(&self, workspace: &Workspace) {
        let random = &mut Random::new(self.layout);
        for (at, lane) in self.lanes.iter().enumerate() {
            let mut all: Vec<&Event> = self.events.iter().filter(|e| e.lane == at).collect();
            all.sort_by_key(|e| e.offset);
            // The archive holds a beginning, the bus an end, and something may be on both.
            let cut = random.below(all.len() + 1);
            let from = random.below(cut + 1);
            let mut records: Vec<Value> = all[..cut]
                .iter()
                .map(|e| archive_record(&lane.topic, lane.partition, lane.kind, &e.offset.to_string(), &e.envelope))
                .collect();
            // Beyond the basis, and twice, is no harm.
            if random.chance(30)
                && let Some(record) = records.first().cloned()
            {
                records.push(record);
            }
            let mut outside = all[0].envelope.clone();
            outside["event_id"] = json!("e-outside");
            records.push(archive_record(&lane.topic, lane.partition, lane.kind, &(lane.last + 1_000).to_string(), &outside));
            random.shuffle(&mut records);
            let folder = archive_folder(&self.run, &lane.topic, lane.partition, lane.kind);
            let mut files: BTreeMap<String, Vec<Value>> = BTreeMap::new();
            for (i, record) in records.into_iter().enumerate() {
                let offset = record["origin_offset"]["offset"].as_str().unwrap().to_owned();
                let single = format!("offset={offset}.json");
                let name = if random.chance(40) && !files.contains_key(&single) { single } else { format!("part-{}.jsonl", i % 3) };
                files.entry(name).or_default().push(record);
            }
            for (name, records) in files {
                workspace.write(&format!("{folder}/{name}"), lines(&records));
            }
            if from < all.len() || lane.foreign || random.chance(50) {
                let mut text = String::new();
                for e in &all[from..] {
                    let mut record = json!({"partition_key": "k", "payload": e.envelope, "published_at_utc": "2030-01-01T00:00:00Z"});
                    match random.below(3) {
                        0 => record["payload_hash"] = json!(payload_hash(&e.envelope)),
                        1 => {
                            let text = crate::support::canonical(&e.envelope, true);
                            record["payload_hash"] = json!(format!("blake3:{}", crate::support::blake3_hex(text.as_bytes())));
                        }
                        _ => {}
                    }
                    text += &format!("{record}\n");
                }
                if lane.foreign {
                    let of_another = json!({"event_id": "x", "platform_run_id": "platform_19990101T000000Z", "ts_utc": "2026-01-01T00:00:00Z", "payload": {}});
                    text += &format!("{}\n", json!({"partition_key": "k", "payload": of_another}));
                }
                let base = lane.first + from as u64;
                workspace.write(&format!("bus/{}/partition={}.jsonl", lane.topic, lane.partition), text + "{\"still being written");
                workspace.write(
                    &format!("bus/{}/partition={}.meta.json", lane.topic, lane.partition),
                    json!({"base_offset": base, "offset_kind": lane.kind}).to_string(),
                );
            }
        }
        let mut assertions = self.assertions.clone();
        random.shuffle(&mut assertions);
        let half = random.below(assertions.len() + 1);
        workspace.write("labels/a.jsonl", lines(&assertions[..half]));
        workspace.write("labels/b.jsonl", lines(&assertions[half..]));
        workspace.write("authority/features_v0.yaml", &self.authority);
        workspace.write(&format!("store/{}/sr/facts.json", self.run), facts(&self.run, S1).to_string());
        workspace.write(&format!("store/{}/world/world.json", self.run), "{}");
        workspace.write("intents/x.json", self.intent.to_string());
    }
}

fn hex32(random: &mut Random) -> String {
    format!("{:016x}{:016x}", random.next(), random.next())
}
