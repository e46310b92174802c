//! The data set as it must be: every rule of the interface written down once more, slowly.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::numbers::{Big, nearest, one, scaled, token, units};
use super::world::{Event, Feature, World};
use crate::support::{canonical, payload_hash};

/// A value of the data set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    /// By its bits, so that -0.0 and 0.0 differ.
    Float(u64),
    Decimal(String, u8, u8),
    Text(String),
    Bool(bool),
    Instant(i64),
}

#[derive(Debug)]
pub(super) struct Expected {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
    pub(super) index: Vec<(&'static str, Value)>,
}

/// A typed value of a payload field.
#[derive(Debug, Clone, PartialEq)]
enum Typed {
    Whole(Big),
    Float(f64),
    Text(String),
    Bool(bool),
}

fn decimal_of(name: &str) -> Option<(u8, u8)> {
    let (precision, scale) = name.strip_prefix("decimal(")?.strip_suffix(')')?.split_once(',')?;
    Some((precision.parse().unwrap(), scale.parse().unwrap()))
}

/// A payload value as its declared type: nothing for null, an error for what does not fit.
fn typed(value: Option<&Value>, type_name: &str) -> Result<Option<Typed>, &'static str> {
    const MISFIT: &str = "FEATURE_VALUE_INVALID";
    let Some(value) = value.filter(|v| !v.is_null()) else { return Ok(None) };
    let number = value.as_number().map(ToString::to_string);
    let typed = match type_name {
        "int64" => number.and_then(|t| scaled(&t, 0)).filter(|n| n.to_i128().is_some_and(|n| i64::try_from(n).is_ok())).map(Typed::Whole),
        "float64" => {
            number.and_then(|t| t.parse::<f64>().ok()).filter(|x| x.is_finite()).map(|x| Typed::Float(if x == 0.0 { 0.0 } else { x }))
        }
        "utf8" => value.as_str().map(|s| Typed::Text(s.to_owned())),
        "bool" => value.as_bool().map(Typed::Bool),
        other => {
            let (precision, scale) = decimal_of(other).unwrap();
            let text = number.or_else(|| value.as_str().map(str::to_owned));
            text.and_then(|t| scaled(&t, scale.into()))
                .filter(|n| n.magnitude_below(&Big::power_of_ten(precision.into())))
                .map(Typed::Whole)
        }
    };
    typed.map(Some).ok_or(MISFIT)
}

fn equal(value: Option<&Value>, wanted: &Value) -> bool {
    match (value.unwrap_or(&Value::Null), wanted) {
        (Value::Number(a), Value::Number(b)) => token(&a.to_string()) == token(&b.to_string()),
        (a, b) => a == b,
    }
}

struct Row<'w> {
    event: &'w Event,
    key: String,
    drop: Option<String>,
}

/// Canonical order.
fn order<'w>(world: &'w World, e: &'w Event) -> (i64, &'w str, i32, u64, &'w str) {
    let lane = &world.lanes[e.lane];
    (e.ts, &lane.topic, lane.partition, e.offset, e.envelope["event_id"].as_str().unwrap())
}

fn place(world: &World, e: &Event) -> (String, i32, u64) {
    let lane = &world.lanes[e.lane];
    (lane.topic.clone(), lane.partition, e.offset)
}

fn key_of(world: &World, e: &Event) -> Option<String> {
    world.key_precedence.iter().find_map(|name| match &e.envelope["payload"][*name] {
        Value::String(s) if !s.is_empty() => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    })
}

pub(super) fn build(world: &World) -> Result<Expected, &'static str> {
    let strings = |value: &Value| -> Vec<String> { value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().to_owned()).collect() };
    let scenarios = strings(&world.intent["scenario_run_ids"]);
    let selected: Vec<&Event> = world
        .events
        .iter()
        .filter(|e| {
            scenarios.is_empty()
                || e.envelope.get("scenario_run_id").and_then(Value::as_str).is_some_and(|s| scenarios.iter().any(|x| x == s))
        })
        .collect();
    if selected.is_empty() {
        return Err("REPLAY_EVENTS_EMPTY");
    }
    let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
    if selected.len() < world.events.len() {
        dropped.insert("scenario_not_selected".into(), (world.events.len() - selected.len()) as u64);
    }
    // Each event once, at its lowest place.
    let mut by_id: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    selected.iter().for_each(|e| by_id.entry(e.envelope["event_id"].as_str().unwrap()).or_default().push(e));
    let mut redelivered = 0u64;
    let mut history: Vec<Row<'_>> = Vec::new();
    let mut keyless = 0;
    for deliveries in by_id.values_mut() {
        deliveries.sort_by_key(|e| place(world, e));
        if deliveries.iter().any(|e| payload_hash(&e.envelope) != payload_hash(&deliveries[0].envelope)) {
            return Err("REPLAY_EVENT_ID_CONFLICT");
        }
        redelivered += deliveries.len() as u64 - 1;
        let event = deliveries[0];
        match key_of(world, event) {
            None => keyless += 1,
            Some(key) => history.push(Row { event, key, drop: failing_filter(world, event) }),
        }
    }
    if keyless > 0 {
        dropped.insert("missing_key".into(), keyless);
    }
    for row in &history {
        if let Some(field) = &row.drop {
            *dropped.entry(format!("filter:{field}")).or_default() += 1;
        }
    }
    history.sort_by(|a, b| order(world, a.event).cmp(&order(world, b.event)));
    let rows: Vec<&Row<'_>> = history.iter().filter(|r| r.drop.is_none()).collect();
    if rows.is_empty() {
        return Err("LABEL_SCOPE_EMPTY");
    }
    let mut types = strings(&world.intent["filters"]["label_types"]);
    types.sort();
    let labels = resolve(world, &rows, &types)?;
    let coverage = judge(world, &rows, &types, &labels)?;
    let features = compute(world, &history)?;
    let mut columns: Vec<String> =
        ["row_id", "event_id", "ts_utc", "topic", "partition", "offset", "offset_kind", "payload_hash", "key"].map(str::to_owned).into();
    for f in &world.features {
        match f.agg {
            "seconds_since_previous" => columns.push(f.name.clone()),
            _ => columns.extend(world.windows.iter().map(|(w, _)| format!("{}_w{w}", f.name))),
        }
    }
    for t in &types {
        columns.extend([
            format!("label_{t}"),
            format!("label_{t}_status"),
            format!("label_{t}_observed_utc"),
            format!("label_{t}_assertion_id"),
        ]);
    }
    let sparse = world.lanes.iter().any(|l| l.kind == "kinesis_sequence");
    let mut out = Vec::new();
    for (row, values) in history.iter().zip(features).filter(|(row, _)| row.drop.is_none()) {
        let lane = &world.lanes[row.event.lane];
        let (offset, id) = (row.event.offset, row.event.envelope["event_id"].as_str().unwrap());
        let text = |s: &str| Cell::Text(s.to_owned());
        let mut cells = vec![
            Cell::Null,
            text(id),
            Cell::Instant(row.event.ts),
            text(&lane.topic),
            Cell::Int(lane.partition.into()),
            if sparse { text(&offset.to_string()) } else { Cell::Int(offset as i64) },
            text(lane.kind),
            text(&payload_hash(&row.event.envelope)),
            text(&row.key),
        ];
        cells.extend(values);
        labels[id].iter().for_each(|label| cells.extend(label.cells()));
        out.push(cells);
    }
    let index = vec![
        ("delivered_events", json!(world.events.len())),
        ("redelivered_events", json!(redelivered)),
        ("dropped", json!(dropped)),
        ("rows_using_later_arrivals", json!(if world.arrival { 0 } else { late_use(world, &history) })),
        ("feature_availability", json!(if world.arrival { "arrival" } else { "event_time" })),
        ("label_coverage", coverage),
        ("training", json!(world.intent["non_training_allowed"] != json!(true))),
    ];
    Ok(Expected { columns, rows: out, index })
}

/// The row id that the other cells of a row give.
pub(super) fn row_id(run: &str, group: &str, row: &[Cell]) -> String {
    let text = |cell: &Cell| match cell {
        Cell::Text(s) => s.clone(),
        Cell::Int(n) => n.to_string(),
        other => panic!("{other:?}"),
    };
    let Cell::Int(partition) = row[4] else { panic!("{row:?}") };
    let named = json!({
        "recipe": "ofs.row_id.v1", "platform_run_id": run, "event_id": text(&row[1]), "topic": text(&row[3]), "partition": partition,
        "offset_kind": text(&row[6]), "offset": text(&row[5]), "payload_hash": text(&row[7]), "feature_group_digest": group,
    });
    crate::support::blake3_hex(canonical(&named, false).as_bytes())[..32].to_owned()
}

fn failing_filter(world: &World, e: &Event) -> Option<String> {
    let filters: BTreeMap<&String, &Value> = world.intent["filters"].as_object().unwrap().iter().collect();
    filters.into_iter().filter(|(field, _)| !["label_types", "label_coverage_policy"].contains(&field.as_str())).find_map(
        |(field, wanted)| {
            let value = e.envelope["payload"].get(field.as_str());
            let holds = match wanted {
                Value::Array(list) => list.iter().any(|w| equal(value, w)),
                one => equal(value, one),
            };
            (!holds).then(|| field.clone())
        },
    )
}

/// A row's label of one type.
#[derive(Debug, Clone)]
struct Label {
    status: &'static str,
    value: Option<String>,
    observed: Option<i64>,
    assertion: Option<String>,
}

impl Label {
    fn cells(&self) -> [Cell; 4] {
        let text = |t: &Option<String>| t.clone().map_or(Cell::Null, Cell::Text);
        [text(&self.value), Cell::Text(self.status.into()), self.observed.map_or(Cell::Null, Cell::Instant), text(&self.assertion)]
    }
}

fn micros(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_microsecond()
}

fn resolve(world: &World, rows: &[&Row<'_>], types: &[String]) -> Result<BTreeMap<String, Vec<Label>>, &'static str> {
    let mut all = BTreeMap::new();
    let mut strange = false;
    for row in rows {
        let id = row.event.envelope["event_id"].as_str().unwrap();
        let mut mine = Vec::new();
        for name in types {
            let known: BTreeSet<(i64, String, String)> = world
                .assertions
                .iter()
                .filter(|a| {
                    a["label_subject_key"] == json!({"platform_run_id": world.run, "event_id": id}) && a["label_type"] == json!(name)
                })
                .map(|a| {
                    let text = |key: &str| a[key].as_str().unwrap().to_owned();
                    (micros(&text("observed_time")), text("label_assertion_id"), text("label_value"))
                })
                .filter(|(observed, ..)| *observed <= world.cutoff)
                .collect();
            strange |= known.iter().any(|(_, _, value)| !world.vocabulary[name.as_str()].contains(&value.as_str()));
            let latest = known.iter().map(|k| k.0).max();
            let tied: Vec<_> = known.iter().filter(|k| Some(k.0) == latest).collect();
            let values: BTreeSet<&str> = tied.iter().map(|t| t.2.as_str()).collect();
            mine.push(match values.len() {
                0 => Label { status: "NOT_FOUND", value: None, observed: None, assertion: None },
                1 => Label {
                    status: "RESOLVED",
                    value: Some(tied[0].2.clone()),
                    observed: latest,
                    assertion: tied.iter().map(|t| t.1.clone()).max(),
                },
                _ => Label { status: "CONFLICT", value: None, observed: latest, assertion: None },
            });
        }
        all.insert(id.to_owned(), mine);
    }
    if strange { Err("LABEL_SCHEMA_INCOMPATIBLE") } else { Ok(all) }
}

/// `part / whole` with six decimals, half up.
fn share(part: u64, whole: u64) -> String {
    let millionths = (part * 10_000_000 / whole + 5) / 10;
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

fn judge(world: &World, rows: &[&Row<'_>], types: &[String], labels: &BTreeMap<String, Vec<Label>>) -> Result<Value, &'static str> {
    let policy = &world.intent["filters"]["label_coverage_policy"];
    let mature = world.cutoff - world.intent["label_basis"]["maturity_days"].as_i64().unwrap() * 86_400_000_000;
    let mature_rows = rows.iter().filter(|r| r.event.ts <= mature).count() as u64;
    let whole = rows.len() as u64;
    let mut covered = true;
    let mut list = Vec::new();
    for (i, name) in types.iter().enumerate() {
        let mine: Vec<&Label> = labels.values().map(|l| &l[i]).collect();
        let of = |status: &str| mine.iter().filter(|l| l.status == status).count() as u64;
        let (resolved, conflict) = (of("RESOLVED"), of("CONFLICT"));
        let mut values: BTreeMap<String, u64> = BTreeMap::new();
        mine.iter().filter_map(|l| l.value.clone()).for_each(|v| *values.entry(v).or_default() += 1);
        let seasoned = mine.iter().filter(|l| l.status == "RESOLVED" && l.observed.is_some_and(|o| o <= mature)).count();
        // Thresholds in hundredths: no more digits stand in these intents.
        let hundredths = |value: Option<&Value>, default: f64| (value.and_then(Value::as_f64).unwrap_or(default) * 100.0).round() as u64;
        let minimum = hundredths(policy["min_coverage_by_label_type"].get(name), 1.0);
        covered &= resolved * 100 >= minimum * whole && conflict * 100 <= hundredths(policy.get("max_conflict_ratio"), 0.0) * whole;
        list.push(json!({
            "label_type": name, "targets": whole, "resolved": resolved, "conflict": conflict, "not_found": of("NOT_FOUND"),
            "coverage_ratio": share(resolved, whole), "conflict_ratio": share(conflict, whole), "values": values,
            "mature_rows": mature_rows, "mature_row_ratio": share(mature_rows, whole), "selected_by_maturity_cutoff": seasoned,
        }));
    }
    let training = world.intent["non_training_allowed"] != json!(true);
    if training && !covered { Err("COVERAGE_POLICY_VIOLATION") } else { Ok(json!(list)) }
}

/// The features of every event of the history, in its order.
fn compute(world: &World, history: &[Row<'_>]) -> Result<Vec<Vec<Cell>>, &'static str> {
    for f in world.features.iter().filter(|f| f.field.is_some()) {
        for row in history {
            typed(row.event.envelope["payload"].get(f.field.unwrap()), &f.type_name)?;
        }
    }
    let mut out = Vec::new();
    for (at, row) in history.iter().enumerate() {
        let arrived = |r: &&Row<'_>| !world.arrival || r.event.lane != row.event.lane || r.event.offset <= row.event.offset;
        let before: Vec<&Row<'_>> = history[..=at].iter().filter(|r| r.key == row.key).filter(arrived).collect();
        let mut cells = Vec::new();
        for f in &world.features {
            let matches = |r: &Row<'_>| f.conditions.iter().all(|(field, wanted)| equal(r.event.envelope["payload"].get(*field), wanted));
            if f.agg == "seconds_since_previous" {
                let previous = before[..before.len() - 1].iter().rev().find(|r| matches(r));
                cells.push(previous.map_or(Cell::Null, |p| Cell::Float(((row.event.ts - p.event.ts) as f64 / 1e6).to_bits())));
                continue;
            }
            for (_, duration) in &world.windows {
                let window: Vec<&&Row<'_>> = before.iter().filter(|r| r.event.ts > row.event.ts - duration && matches(r)).collect();
                cells.push(aggregate(f, &window)?);
            }
        }
        out.push(cells);
    }
    Ok(out)
}

fn aggregate(f: &Feature, window: &[&&Row<'_>]) -> Result<Cell, &'static str> {
    let Some(field) = f.field else { return Ok(Cell::Int(window.len() as i64)) };
    let mut values: Vec<Typed> = Vec::new();
    for row in window {
        values.extend(typed(row.event.envelope["payload"].get(field), &f.type_name)?);
    }
    let decimal = decimal_of(&f.type_name);
    let cell = |value: &Typed| match (value, decimal) {
        (Typed::Whole(n), Some((p, s))) => Cell::Decimal(n.to_i128().unwrap().to_string(), p, s),
        (Typed::Whole(n), None) => Cell::Int(n.to_i128().unwrap() as i64),
        (Typed::Float(x), _) => Cell::Float(x.to_bits()),
        (Typed::Text(s), _) => Cell::Text(s.clone()),
        (Typed::Bool(b), _) => Cell::Bool(*b),
    };
    let n = values.len();
    let smaller = |a: &Typed, b: &Typed| match (a, b) {
        (Typed::Whole(a), Typed::Whole(b)) => a.to_i128() < b.to_i128(),
        (Typed::Float(a), Typed::Float(b)) => a < b,
        (Typed::Text(a), Typed::Text(b)) => a < b,
        _ => unreachable!(),
    };
    let float = f.type_name == "float64";
    let sum = || {
        values.iter().fold(Big::default(), |sum, v| match v {
            Typed::Whole(n) => sum.plus(n),
            Typed::Float(x) => sum.plus(&units(*x)),
            _ => unreachable!(),
        })
    };
    // One, in the units that sums are counted in.
    let unit = || if float { one() } else { Big::power_of_ten(decimal.map_or(0, |(_, s)| s.into())) };
    Ok(match f.agg {
        "count" => Cell::Int(n as i64),
        "count_distinct" => {
            let mut distinct: Vec<&Typed> = Vec::new();
            values.iter().for_each(|v| {
                if !distinct.contains(&v) {
                    distinct.push(v)
                }
            });
            Cell::Int(distinct.len() as i64)
        }
        _ if n == 0 => Cell::Null,
        "min" => cell(values.iter().fold(&values[0], |best, v| if smaller(v, best) { v } else { best })),
        "max" => cell(values.iter().fold(&values[0], |best, v| if smaller(best, v) { v } else { best })),
        "first" => cell(&values[0]),
        "last" => cell(&values[n - 1]),
        "sum" if float => {
            let total = nearest(&sum(), &one());
            if total.is_infinite() {
                return Err("FEATURE_OVERFLOW");
            }
            Cell::Float(total.to_bits())
        }
        "sum" => {
            let total = sum();
            let fits = match decimal {
                Some((precision, _)) => total.magnitude_below(&Big::power_of_ten(precision.into())),
                None => total.to_i128().is_some_and(|n| i64::try_from(n).is_ok()),
            };
            if !fits {
                return Err("FEATURE_OVERFLOW");
            }
            cell(&Typed::Whole(total))
        }
        "mean" => Cell::Float(nearest(&sum(), &unit().times(&Big::of(n as i128))).to_bits()),
        "stddev" if n < 2 => Cell::Null,
        "stddev" => {
            let squares = values.iter().fold(Big::default(), |sum, v| match v {
                Typed::Whole(n) => sum.plus(&n.times(n)),
                _ => unreachable!(),
            });
            let (total, count) = (sum(), Big::of(n as i128));
            let numerator = count.times(&squares).plus(&total.times(&total).negated());
            let denominator = count.times(&Big::of(n as i128 - 1)).times(&unit()).times(&unit());
            Cell::Float(nearest(&numerator, &denominator).sqrt().to_bits())
        }
        other => unreachable!("{other}"),
    })
}

/// Rows whose features looked at an event of their own partition that stands at a higher offset: inside
/// the widest window, or as the previous event that `seconds_since_previous` found.
fn late_use(world: &World, history: &[Row<'_>]) -> u64 {
    let widest = world.windows.iter().map(|w| w.1).max().unwrap();
    let windowed = world.features.iter().any(|f| f.agg != "seconds_since_previous");
    let mut count = 0;
    for (at, row) in history.iter().enumerate().filter(|(_, r)| r.drop.is_none()) {
        let later = |r: &Row<'_>| r.event.lane == row.event.lane && r.event.offset > row.event.offset;
        let before: Vec<&Row<'_>> = history[..at].iter().filter(|r| r.key == row.key).collect();
        let in_window = windowed && before.iter().any(|r| r.event.ts > row.event.ts - widest && later(r));
        let as_previous = world.features.iter().filter(|f| f.agg == "seconds_since_previous").any(|f| {
            let matches = |r: &&&Row<'_>| f.conditions.iter().all(|(field, wanted)| equal(r.event.envelope["payload"].get(*field), wanted));
            before.iter().rev().find(matches).is_some_and(|r| later(r))
        });
        count += u64::from(in_window || as_previous);
    }
    count
}

/// Whether the world hides events that arrived later, and other rows come of that.
pub(super) fn arrival_matters(world: &World) -> bool {
    let mut seen = world.clone();
    seen.arrival = false;
    match (build(world), build(&seen)) {
        (Ok(hidden), Ok(all)) => world.arrival && hidden.rows != all.rows,
        _ => false,
    }
}
