//! Traces and metrics for a collector: what a build tells is what the ledger says, and what becomes of it changes
//! nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, Output, Workspace, outcome, small, wait_for};

pub(crate) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const GATES: [&str; 5] = ["pins", "replay", "labels", "features", "publication"];

/// A request as a collector hears it.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// How a collector answers.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// With a status and a body.
    Says(&'static str, &'static str),
    /// Not at all; it keeps the line open.
    Silent,
}

/// A collector on this host.
pub(crate) struct Collector {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    over: Arc<AtomicBool>,
}

fn hear(stream: &mut TcpStream) -> Option<Heard> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    let mut more = |bytes: &mut Vec<u8>| {
        let n = stream.read(&mut chunk).unwrap_or(0);
        bytes.extend_from_slice(&chunk[..n]);
        n > 0
    };
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if !more(&mut bytes) {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.lines();
    let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let header = |line: &str| line.split_once(':').map(|(k, v)| (k.to_lowercase(), v.trim().to_owned()));
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let length: usize = headers["content-length"].parse().unwrap();
    while bytes.len() < head + 4 + length {
        assert!(more(&mut bytes), "a request was cut off");
    }
    Some(Heard { path, headers, body: bytes[head + 4..head + 4 + length].to_vec() })
}

impl Collector {
    fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, heard, over) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (all, end) = (heard.clone(), over.clone());
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let Some(request) = hear(&mut stream) else { continue };
                all.lock().unwrap().push(request);
                match manner {
                    Manner::Says(status, body) => {
                        let length = body.len();
                        let head = format!(
                            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                        );
                        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
                    }
                    Manner::Silent => open.push(stream),
                }
            }
        });
        Collector { address, heard, over }
    }

    pub(crate) fn taking() -> Self {
        Self::new(Manner::Says("200 OK", "{}"))
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// The only thing it heard on a path, as JSON.
    fn only(&self, path: &str) -> Value {
        let heard: Vec<Heard> = self.heard().into_iter().filter(|h| h.path == path).collect();
        assert_eq!(heard.len(), 1, "{path}");
        assert_eq!(heard[0].headers["content-type"], "application/json");
        serde_json::from_slice(&heard[0].body).unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// Runs a command that tells a collector; it ends, whatever that does.
fn tell(w: &Workspace, environment: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = w.command(args);
    command.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json").envs(environment.iter().copied());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the command to end", Duration::from_secs(60), || child.try_wait().unwrap().is_some());
    outcome(child)
}

fn run(w: &Workspace, endpoint: &str, environment: &[(&str, &str)]) -> Output {
    let intent = w.path("intents/train.json");
    tell(w, &[&[(ENDPOINT, endpoint)], environment].concat(), &["run", intent.to_str().unwrap(), "--json"])
}

/// Attributes by name: texts, numbers in their text, lists as arrays of texts.
fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let text = |v: &Value| v.as_object().unwrap().values().next().unwrap().as_str().map_or_else(|| v.to_string(), str::to_owned);
    let value = |v: &Value| match v.pointer("/arrayValue/values").and_then(Value::as_array) {
        Some(list) => json!(list.iter().map(text).collect::<Vec<_>>()),
        None if v.get("arrayValue").is_some() => json!([]),
        None => json!(text(v)),
    };
    let list = of["attributes"].as_array().into_iter().flatten();
    list.map(|kv| (kv["key"].as_str().unwrap().to_owned(), value(&kv["value"]))).collect()
}

fn spans(document: &Value) -> Vec<Value> {
    document["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

fn named<'s>(spans: &'s [Value], name: &str) -> Vec<&'s Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

/// Data points by the name of their metric.
fn points(document: &Value) -> BTreeMap<String, Vec<Value>> {
    let metrics = document["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let of = |m: &Value| ["sum", "gauge", "histogram"].iter().find_map(|kind| m[kind]["dataPoints"].as_array().cloned()).unwrap();
    metrics.iter().map(|m| (m["name"].as_str().unwrap().to_owned(), of(m))).collect()
}

fn number(point: &Value) -> f64 {
    let value = ["asInt", "asDouble", "sum"].iter().find_map(|key| point.get(key)).unwrap();
    value.as_f64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn sum(points: &[Value]) -> f64 {
    points.iter().map(number).sum()
}

/// Nanoseconds, as this JSON writes them, of an event's instant.
fn nanos(event: &Value) -> String {
    let at = ofs::time::Instant::parse(event["at_utc"].as_str().unwrap()).unwrap();
    format!("{}000", at.0)
}

/// The first event of a type, in a phase where one is named.
fn event<'e>(events: &'e [Value], event_type: &str, phase: Option<&str>) -> &'e Value {
    let found = events.iter().find(|e| e["event_type"] == event_type && phase.is_none_or(|phase| e["detail"]["phase"] == phase));
    found.unwrap_or_else(|| panic!("no {event_type} {phase:?}"))
}

/// The keys that a run's fact bears, as attributes.
fn keys(w: &Workspace, fact_type: &str) -> BTreeMap<String, Value> {
    let facts = w.tree(&format!("store/{FLIGHTS_RUN}/ofs/governance/facts"));
    let mut facts = facts.values().map(|bytes| serde_json::from_slice::<Value>(bytes).unwrap());
    let fact = facts.find(|fact| fact["fact_type"] == fact_type).unwrap();
    let keys = fact["keys"].as_object().unwrap().iter().filter(|(_, value)| !value.is_null());
    keys.map(|(key, value)| (format!("ofs.{key}"), value.clone())).collect()
}

/// Every record bears the keys, and nothing else under their names.
fn assert_keyed<'r>(records: impl IntoIterator<Item = &'r Value>, keys: &BTreeMap<String, Value>) {
    for record in records {
        let attributes = attributes(record);
        let found: BTreeMap<_, _> = attributes.into_iter().filter(|(key, _)| keys.contains_key(key)).collect();
        assert_eq!(&found, keys, "{record}");
    }
}

pub(crate) fn signals(w: &Workspace) -> BTreeMap<String, (String, String, u64)> {
    let report = w.ofs(&["report", "--look", "--json"]).expect(0).json();
    let signals = report["platform_runs"][0]["signals"].as_array().unwrap().clone();
    let text = |s: &Value, key: &str| s[key].as_str().unwrap().to_owned();
    let otlp = signals.iter().filter(|s| s["signal"].as_str().unwrap().starts_with("otlp-"));
    otlp.map(|s| (text(s, "signal"), (text(s, "delivery"), text(s, "note"), s["failures"].as_u64().unwrap()))).collect()
}

#[test]
fn a_build_leaves_a_span_for_the_run_and_one_below_it_for_each_gate() {
    let (w, collector) = (Workspace::flights(), Collector::taking());
    let said = run(&w, &collector.endpoint(), &[]).expect(0);
    assert!(!said.err.contains("telemetry"), "{}", said.err);
    let document = collector.only("/v1/traces");
    let (spans, events) = (spans(&document), w.events("nycflights13.train.2013-01-01.2013-01-02"));
    assert_eq!(spans.len(), 1 + GATES.len());
    let run = named(&spans, "ofs.run")[0];
    let lasted = [event(&events, "RUN_STARTED", None), event(&events, "RUN_DONE", None)].map(|e| json!(nanos(e)));
    assert_eq!([&run["startTimeUnixNano"], &run["endTimeUnixNano"]], lasted.each_ref());
    let own = attributes(run);
    let about = ["ofs.status", "ofs.outcome", "ofs.attempt", "ofs.mode"].map(|key| own[key].as_str().unwrap().to_owned());
    assert_eq!(
        (about.map(|v| v.trim_matches('"').to_owned()), run["status"]["code"].as_i64()),
        (["DONE", "NEW", "1", "FULL"].map(str::to_owned), Some(1))
    );
    for gate in GATES {
        let span = named(&spans, &format!("ofs.gate.{gate}"))[0];
        assert_eq!((&span["traceId"], &span["parentSpanId"]), (&run["traceId"], &run["spanId"]), "{gate}");
        let (from, to) = (event(&events, "PHASE_ENTERED", Some(gate)), event(&events, "GATE_PASSED", Some(gate)));
        assert_eq!((&span["startTimeUnixNano"], &span["endTimeUnixNano"]), (&json!(nanos(from)), &json!(nanos(to))), "{gate}");
        let own = attributes(span);
        assert_eq!((&own["ofs.gate_result"], &own["ofs.receipt_ref"]), (&json!("PASSED"), &to["detail"]["evidence"]["receipt_ref"]));
    }
    // What belongs to no gate happened to the run.
    let happened: Vec<&str> = run["events"].as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    assert_eq!(happened, ["IDENTITY_RESOLVED", "COMMIT_STARTED"]);
    assert_keyed(&spans, &keys(&w, "DATASET_BUILD_COMPLETED"));
    let signals = signals(&w);
    assert_eq!(signals["otlp-traces"], ("SENT".into(), format!("6 span(s) to {}/v1/traces", collector.endpoint()), 0));
    assert_eq!(signals["otlp-metrics"].0, "SENT");
    // Asked again, nothing is built, and nothing is told.
    self::run(&w, &collector.endpoint(), &[]).expect(0);
    assert_eq!(collector.heard().len(), 2);
    assert!(w.ofs(&["report", "--look"]).expect(0).out.contains("signal      otlp-traces"));
}

#[test]
fn the_metrics_of_a_build_are_those_of_the_report_with_the_same_keys() {
    let (w, collector) = (Workspace::flights(), Collector::taking());
    run(&w, &collector.endpoint(), &[]).expect(0);
    let points = points(&collector.only("/v1/metrics"));
    let report = w.ofs(&["report", "--look", "--json"]).expect(0).json();
    let metrics = &report["platform_runs"][0]["metrics"];
    for lane in metrics["replay"]["partitions"].as_array().unwrap() {
        let of = |name: &str, more: &[(&str, &str)]| {
            let here = |p: &&Value| {
                let own = attributes(p);
                own["ofs.topic"] == lane["topic"]
                    && own["ofs.partition"] == json!(lane["partition"].to_string())
                    && more.iter().all(|(key, value)| own[*key] == json!(value))
            };
            number(points[name].iter().find(here).unwrap_or_else(|| panic!("{name} of {lane}")))
        };
        let is = |key: &str| lane[key].as_f64().unwrap_or_else(|| f64::from(u8::from(lane[key].as_bool().unwrap())));
        assert_eq!(of("ofs.replay.events", &[]), is("events"));
        assert_eq!(of("ofs.replay.basis_span", &[]), is("offsets_spanned"));
        assert_eq!(of("ofs.replay.served", &[("ofs.source", "archive")]), is("served_by_archive"));
        assert_eq!(of("ofs.replay.served", &[("ofs.source", "bus")]), is("served_by_bus"));
        assert_eq!(of("ofs.replay.archive_used", &[]), is("archive_used"));
        assert_eq!(of("ofs.replay.gaps", &[]), is("gaps"));
        assert_eq!(of("ofs.replay.missing", &[]) + of("ofs.replay.mismatched", &[]), 0.0);
    }
    assert_eq!(sum(&points["ofs.replay.events"]), 842.0);
    let labels = &metrics["labels"]["arrival_status"];
    assert_eq!(sum(&points["ofs.labels.rows"]), labels["targets"].as_f64().unwrap());
    assert_eq!(sum(&points["ofs.labels.late"]), labels["late"].as_f64().unwrap());
    assert_eq!(sum(&points["ofs.labels.coverage"]), labels["coverage_ratio"].as_str().unwrap().parse::<f64>().unwrap());
    let took = metrics["durations_ms"]["dataset_build"]["sum"].as_f64().unwrap();
    assert!((sum(&points["ofs.build.duration"]) * 1_000.0 - took).abs() < 1e-6);
    for (name, own) in [("ofs.publications", ("ofs.outcome", "NEW")), ("ofs.builds", ("ofs.status", "DONE"))] {
        assert_eq!((sum(&points[name]), &attributes(&points[name][0])[own.0]), (1.0, &json!(own.1)));
    }
    assert_keyed(points.values().flatten(), &keys(&w, "DATASET_BUILD_COMPLETED"));
}

#[test]
fn a_refused_build_tells_which_gate_and_why() {
    let (w, collector) = (Workspace::flights(), Collector::taking());
    let record =
        format!("store/{FLIGHTS_RUN}/archive/events/topic=fp.bus.traffic.flights.v1/partition=0/offset_kind=kafka_offset/offset=17.json");
    fs::remove_file(w.path(&record)).unwrap();
    run(&w, &collector.endpoint(), &[]).expect(3);
    let spans = spans(&collector.only("/v1/traces"));
    let names: BTreeSet<&str> = spans.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ofs.gate.pins", "ofs.gate.replay", "ofs.run"].into());
    for name in ["ofs.run", "ofs.gate.replay"] {
        let span = named(&spans, name)[0];
        assert_eq!((span["status"]["code"].as_i64(), span["status"]["message"].as_str()), (Some(2), Some("REPLAY_INCOMPLETE")), "{name}");
        assert_eq!(attributes(span)["ofs.reason_code"], "REPLAY_INCOMPLETE");
    }
    assert_eq!(attributes(named(&spans, "ofs.gate.replay")[0])["ofs.gate_result"], "REFUSED");
    let points = points(&collector.only("/v1/metrics"));
    let ended = attributes(&points["ofs.builds"][0]);
    assert_eq!((&ended["ofs.status"], &ended["ofs.reason_code"]), (&json!("FAILED"), &json!("REPLAY_INCOMPLETE")));
    assert_eq!((sum(&points["ofs.replay.gaps"]), sum(&points["ofs.replay.missing"])), (1.0, 1.0));
    assert!(!points.contains_key("ofs.publications") && !points.contains_key("ofs.labels.rows"));
    assert_keyed(spans.iter().chain(points.values().flatten()), &keys(&w, "DATASET_BUILD_FAILED"));
}

#[test]
fn a_resumed_run_tells_of_the_owner_that_was_killed() {
    // Killed before its n-th write to the ledger: the first at which the replay gate had been passed.
    let (w, collector) = (1..)
        .map(|n| {
            let (w, collector) = (small(), Collector::taking());
            let ended = run(&w, &collector.endpoint(), &[("OFS_FAULT", &format!("kill@ledger.write:{n}"))]);
            assert_eq!((ended.code, collector.heard().len()), (-1, 0), "no kill leaves the replay gate passed");
            (w, collector)
        })
        .find(|(w, _)| w.path("state/ledger.db").exists() && passed(w).contains(&"replay".to_owned()))
        .unwrap();
    let request = "nycflights13.train.2013-01-01.2013-01-02";
    tell(&w, &[(ENDPOINT, &collector.endpoint())], &["resume", request, "--json"]).expect(0);
    let (spans, events) = (spans(&collector.only("/v1/traces")), w.events(request));
    let runs = named(&spans, "ofs.run");
    let [lost, resumed] = runs[..] else { panic!("{runs:?}") };
    assert_eq!((&lost["traceId"], &resumed["links"][0]["spanId"]), (&resumed["traceId"], &lost["spanId"]));
    assert_eq!((&attributes(lost)["ofs.status"], &attributes(resumed)["ofs.status"]), (&json!("ABANDONED"), &json!("DONE")));
    assert_eq!(lost["startTimeUnixNano"], nanos(event(&events, "RUN_STARTED", None)));
    assert_eq!(resumed["startTimeUnixNano"], nanos(event(&events, "LEASE_TAKEN_OVER", None)));
    let results = |run: &Value| -> Vec<(String, String)> {
        let below = spans.iter().filter(|s| s["parentSpanId"] == run["spanId"]);
        below
            .map(|s| (s["name"].as_str().unwrap()[9..].to_owned(), attributes(s)["ofs.gate_result"].as_str().unwrap().to_owned()))
            .collect()
    };
    let pairs = |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
    assert_eq!(results(lost)[..2], pairs(&[("pins", "PASSED"), ("replay", "PASSED")]));
    let after = results(resumed);
    assert_eq!((&after[1], after.last().unwrap().1.as_str()), (&pairs(&[("replay", "PROVED_AGAIN")])[0], "PASSED"));
    // What the killed owner replayed is told once, by its successor.
    assert_eq!(sum(&points(&collector.only("/v1/metrics"))["ofs.replay.events"]), 20.0);
}

fn passed(w: &Workspace) -> Vec<String> {
    let runs = w.ofs(&["runs", "--json"]).expect(0).json();
    let Some(key) = runs["runs"][0]["run_key"].as_str() else { return Vec::new() };
    let events = w.events(key);
    let gates = events.iter().filter(|e| e["event_type"] == "GATE_PASSED");
    gates.map(|e| e["detail"]["phase"].as_str().unwrap().to_owned()).collect()
}

/// A name, an endpoint, more of the environment, and what must be said.
type Case<'c> = (&'c str, String, &'c [(&'c str, &'c str)], &'c str);

#[test]
fn what_cannot_be_sent_is_recorded_and_changes_nothing_else() {
    let plain = Workspace::flights();
    plain.build("train");
    let rejects = r#"{"partialSuccess": {"rejectedSpans": "2", "rejectedDataPoints": "2", "errorMessage": "too\u001b[31m old"}}"#;
    let (full, picky) = (Collector::new(Manner::Says("503 Service Unavailable", "")), Collector::new(Manner::Says("200 OK", rejects)));
    // Field 1 of the answer, two bytes of it: in that, field 1 is 2.
    let binary = Collector::new(Manner::Says("200 OK", "\n\u{2}\u{8}\u{2}"));
    let (silent, moved) = (Collector::new(Manner::Silent), Collector::new(Manner::Says("307 Temporary Redirect", "")));
    let quick = [("OTEL_EXPORTER_OTLP_TIMEOUT", "300")];
    let cases: [Case<'_>; 9] = [
        ("dead", "http://user:secret@127.0.0.1:1".into(), &[], "refused"),
        ("silent", silent.endpoint(), &quick, "no answer within 300 ms"),
        ("full", full.endpoint(), &[], "status 503"),
        ("picky", picky.endpoint(), &[], "rejected 2 of what was sent: too"),
        ("picky in binary", binary.endpoint(), &[], "rejected 2 of what was sent"),
        ("moved", moved.endpoint(), &[], "status 307"),
        ("no URL", "http://[secret".into(), &[], "no URL that can be used"),
        ("no http", "ftp://127.0.0.1:1".into(), &[], "no http URL"),
        ("encrypted", "https://127.0.0.1:1".into(), &[], "plain http only"),
    ];
    for (name, endpoint, environment, why) in cases {
        let w = Workspace::flights();
        let said = run(&w, &endpoint, environment).expect(0);
        let lines: Vec<&str> = said.err.lines().filter(|line| line.contains("telemetry")).collect();
        let [line] = lines[..] else { panic!("{name}: {}", said.err) };
        assert!(line.starts_with("ofs: telemetry could not be sent, the run and its data set stand as they are: otlp-traces:"), "{line}");
        assert!(line.contains(why) && !line.contains("secret") && !line.contains('\u{1b}'), "{name}: {line}");
        assert_eq!(said.json()["status"], "DONE");
        assert_eq!(w.published(FLIGHTS_RUN), plain.published(FLIGHTS_RUN), "{name}");
        for (signal, (delivery, note, failures)) in signals(&w) {
            assert_eq!((delivery.as_str(), failures), ("FAILED_TO_SEND", 1), "{name}: {signal}");
            assert!(note.contains(why) && !note.contains("secret"), "{name}: {note}");
        }
        assert_eq!(signals(&w).len(), 2);
    }
    // Nothing is tried twice, and what waited for one signal is not waited for again by the other.
    assert_eq!((silent.heard().len(), full.heard().len(), picky.heard().len(), moved.heard().len()), (1, 2, 2, 2));
}

#[test]
fn nothing_is_sent_unasked_and_a_policy_that_keeps_it_back_is_on_record() {
    let (w, collector) = (small(), Collector::taking());
    w.build("train");
    assert_eq!(signals(&w), BTreeMap::new());
    let (skipped, sent) = ("SKIPPED_BY_POLICY", "SENT");
    let cases = [
        (("OTEL_SDK_DISABLED", "true"), skipped, skipped, 0),
        (("OTEL_TRACES_EXPORTER", "none"), skipped, sent, 1),
        (("OTEL_METRICS_EXPORTER", "none"), sent, skipped, 1),
        (("OFS_OBSERVE_METRICS", "false"), sent, skipped, 1),
    ];
    for (policy, traces, metrics, heard) in cases {
        let (w, before) = (small(), collector.heard().len());
        let said = run(&w, &collector.endpoint(), &[policy]).expect(0);
        assert!(!said.err.contains("telemetry"), "{}", said.err);
        let signals = signals(&w);
        assert_eq!((signals["otlp-traces"].0.as_str(), signals["otlp-metrics"].0.as_str()), (traces, metrics), "{policy:?}");
        assert_eq!(collector.heard().len() - before, heard, "{policy:?}");
        let why = if policy.0.starts_with("OFS_") { "observe.metrics is off" } else { policy.0 };
        let kept_back: Vec<&String> = signals.values().filter(|(delivery, ..)| delivery == skipped).map(|(_, note, _)| note).collect();
        assert!(kept_back.iter().all(|note| note.starts_with(why)), "{kept_back:?}");
    }
    // One signal alone, by its own endpoint, which is taken as it is.
    let w = small();
    let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("{}/mine", collector.endpoint()));
    let intent = w.path("intents/train.json");
    tell(&w, &[(own.0, &own.1)], &["run", intent.to_str().unwrap()]).expect(0);
    assert_eq!(signals(&w).into_keys().collect::<Vec<_>>(), ["otlp-traces"]);
    assert_eq!(collector.heard().last().unwrap().path, "/mine");
}

#[test]
fn the_standard_variables_say_who_tells_and_how() {
    let (w, collector) = (small(), Collector::taking());
    let environment = [
        ("OTEL_SERVICE_NAME", "nightly"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"),
    ];
    run(&w, &collector.endpoint(), &environment).expect(0);
    for (path, of) in [("/v1/traces", "resourceSpans"), ("/v1/metrics", "resourceMetrics")] {
        let who = attributes(&collector.only(path)[of][0]["resource"]);
        assert_eq!((&who["service.name"], &who["deployment.environment.name"]), (&json!("nightly"), &json!("test")));
        assert_eq!(who["service.version"], format!("ofs {}", env!("CARGO_PKG_VERSION")));
    }
    assert!(collector.heard().iter().all(|h| h.headers["x-key"] == "a b"));
    // Unless JSON is asked for, the binary form; a worker tells as `ofs run` does.
    let (w, collector) = (small(), Collector::taking());
    w.ofs(&["submit", w.path("intents/train.json").to_str().unwrap()]).expect(0);
    let binary = [(ENDPOINT, collector.endpoint()), ("OTEL_EXPORTER_OTLP_PROTOCOL", String::new())];
    tell(&w, &binary.each_ref().map(|(k, v)| (*k, v.as_str())), &["worker", "--once"]).expect(0);
    let heard = collector.heard();
    assert_eq!(heard.iter().map(|h| h.path.as_str()).collect::<Vec<_>>(), ["/v1/traces", "/v1/metrics"]);
    assert!(heard.iter().all(|h| h.headers["content-type"] == "application/x-protobuf"));
    let holds = |h: &Heard, word: &str| h.body.windows(word.len()).any(|w| w == word.as_bytes());
    assert!(holds(&heard[0], "ofs.gate.publication") && holds(&heard[1], "ofs.replay.events") && holds(&heard[1], "ofs.run_key"));
    // Nobody need know of the rest.
    let doctor = w.ofs_with(&[(ENDPOINT, "http://127.0.0.1:1")], &["doctor"]).expect(0).out;
    assert!(doctor.contains("leaves after each build"), "{doctor}");
}
