//! The JSON Schemas of `contracts/` hold what the program accepts and writes, and the lists of what it
//! owes name proofs that exist.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, Workspace, files, repository};

pub(crate) fn schema(name: &str) -> jsonschema::Validator {
    let text = fs::read_to_string(repository().join(format!("contracts/{name}.schema.json"))).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

pub(crate) fn valid(schema: &jsonschema::Validator, what: &str, document: &Value) {
    let problems: Vec<String> = schema.iter_errors(document).map(|e| format!("{} at {}", e, e.instance_path())).collect();
    assert_eq!(problems, [""; 0], "{what}: {document}");
}

/// Changes of a good intent: where, what stands there then (nothing removes it).
fn changes() -> Vec<(&'static str, Option<Value>)> {
    let mut all = Vec::new();
    for at in [
        "/schema_version",
        "/request_id",
        "/intent_kind",
        "/platform_run_id",
        "/scenario_run_ids",
        "/replay_basis",
        "/label_basis",
        "/feature_definition_set",
        "/join_scope",
        "/filters",
        "/run_facts_ref",
        "/policy_revision",
        "/config_revision",
        "/ofs_code_release_id",
        "/non_training_allowed",
        "/parity_anchor_ref",
        "/replay_basis/0/topic",
        "/replay_basis/0/partition",
        "/replay_basis/0/offset_kind",
        "/replay_basis/0/start_offset",
        "/replay_basis/0/end_offset",
        "/label_basis/label_asof_utc",
        "/label_basis/resolution_rule",
        "/label_basis/maturity_days",
        "/feature_definition_set/feature_set_id",
        "/feature_definition_set/feature_set_version",
        "/filters/label_types",
        "/filters/label_coverage_policy",
        "/filters/label_coverage_policy/min_coverage_by_label_type",
        "/filters/label_coverage_policy/max_conflict_ratio",
        "/filters/label_coverage_policy/min_mature_ratio",
        "/join_scope/required_output_ids",
        "/join_scope/subject_key",
        "/filters/country",
        "/join_scope/label_types",
    ] {
        all.push((at, None));
        for value in [
            json!(null),
            json!(""),
            json!(0),
            json!(-1),
            json!(1.5),
            json!(true),
            json!([]),
            json!({}),
            json!("x"),
            json!([""]),
            json!([1]),
            json!(["ok"]),
            json!({"a": 1}),
            json!("00012"),
            json!([{"a": []}]),
        ] {
            all.push((at, Some(value)));
        }
    }
    for at in [
        "/unknown",
        "/replay_basis/0/unknown",
        "/label_basis/unknown",
        "/feature_definition_set/unknown",
        "/filters/label_coverage_policy/unknown",
    ] {
        all.push((at, Some(json!(1))));
    }
    all
}

fn change(intent: &mut Value, at: &str, value: Option<Value>) {
    let (parent, key) = at.rsplit_once('/').unwrap();
    let map = intent.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        None => drop(map.remove(key)),
        Some(value) => drop(map.insert(key.to_owned(), value)),
    }
}

/// What no schema can say, and what the parser reads more generously or strictly than it on purpose.
fn beyond_the_schema(code: &str) -> bool {
    // Instants, rules, scopes and label policies have meanings of their own; blank text counts as absent.
    ["AS_OF_SPEC_INVALID", "RULE_NOT_SUPPORTED", "SUBJECT_MAPPING_MISSING", "LABEL_TYPE_SCOPE_UNRESOLVED", "FILTER_INVALID"].contains(&code)
}

#[test]
fn the_parser_and_the_schema_of_intents_agree() {
    let w = Workspace::flights();
    let schema = schema("ofs_build_intent_v0");
    for name in ["train", "audit"] {
        valid(&schema, name, &w.json(&format!("intents/{name}.json")));
    }
    let mut good = w.json("intents/train.json");
    good["filters"]["country"] = json!(["US", null, 1, true]);
    let (mut accepted, mut refused, mut quarrels) = (0, 0, Vec::new());
    for (at, value) in changes() {
        let mut intent = good.clone();
        change(&mut intent, at, value.clone());
        let parsed = ofs::contract::intent::parse(intent.to_string().as_bytes());
        match (&parsed, schema.is_valid(&intent)) {
            (Ok(read), true) => {
                accepted += 1;
                valid(&schema, "normal form", &read.to_json());
            }
            (Err(_), false) => refused += 1,
            (Ok(_), false) => quarrels.push(format!("{at} = {value:?}: the parser accepts what the schema refuses")),
            (Err(why), true) if beyond_the_schema(why.problems[0].code.as_str()) => refused += 1,
            (Err(why), true) => quarrels.push(format!("{at} = {value:?}: the schema accepts what the parser refuses: {}", why.problems[0])),
        }
    }
    // What takes two changes: a least share of mature rows, and nothing that says when a row is mature.
    good["filters"]["label_coverage_policy"]["min_mature_ratio"] = json!(0.5);
    valid(&schema, "a maturity gate", &good);
    change(&mut good, "/label_basis/maturity_days", None);
    assert!(!schema.is_valid(&good) && ofs::contract::intent::parse(good.to_string().as_bytes()).is_err());
    println!("{accepted} intents accepted, {refused} refused by both");
    assert!(quarrels.is_empty(), "{}", quarrels.join("\n"));
    assert!(accepted > 50 && refused > 200);
}

#[test]
fn what_is_published_and_printed_fits_its_schema() {
    let w = Workspace::flights();
    let (results, manifests, indexes) = (schema("run_result_v1"), schema("dataset_manifest_v0"), schema("dataset_index_v1"));
    for name in ["train", "audit"] {
        let result = w.build(name);
        valid(&results, name, &result);
        valid(&manifests, name, &w.json(&format!("store/{}", result["dataset"]["manifest_ref"].as_str().unwrap())));
        let folder = format!("store/{FLIGHTS_RUN}/ofs/datasets/{}", result["dataset"]["manifest_id"].as_str().unwrap());
        let index = w.json(&format!("{folder}/index.json"));
        valid(&indexes, name, &index);
        let named: BTreeSet<String> = index["files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| f["path"].as_str().unwrap().to_owned())
            .chain(index["evidence"].as_object().unwrap().values().map(|e| {
                // Refs count from the store's root.
                format!("store/{}", e["ref"].as_str().unwrap()).strip_prefix(&format!("{folder}/")).unwrap().to_owned()
            }))
            .chain(["index.json".to_owned()])
            .collect();
        assert_eq!(w.tree(&folder).into_keys().collect::<BTreeSet<_>>(), named, "the index names every file and no other");
        for (_, evidence) in index["evidence"].as_object().unwrap() {
            let bytes = fs::read(w.path(&format!("store/{}", evidence["ref"].as_str().unwrap()))).unwrap();
            assert_eq!(evidence["blake3"], json!(crate::support::blake3_hex(&bytes)));
        }
        // How it is to be read stands in the data set itself.
        assert_eq!((&index["intervals"]["offsets"], &index["sampling"]), (&json!("closed"), &Value::Null));
        assert!(index["intervals"]["windows"].as_str().unwrap().contains("(ts - duration, ts]"));
        assert_eq!(index["row_order"], json!(["ts_utc", "topic", "partition", "offset", "event_id"]));
        let features = w.json(&format!("{folder}/evidence/features.json"));
        for key in [
            "schema",
            "schema_digest",
            "feature_list_digest",
            "min_ts_utc",
            "max_ts_utc",
            "rows",
            "dropped",
            "redelivered_events",
            "delivered_events",
        ] {
            assert!(features.get(key).is_some_and(|v| !v.is_null()), "{key}: {features}");
        }
        // A manifest with anything more is none.
        let mut more = w.json(&format!("store/{}", result["dataset"]["manifest_ref"].as_str().unwrap()));
        more["extra"] = json!(1);
        assert!(!manifests.is_valid(&more));
        assert!(more["provenance"].get("run_config_digest").is_none());
    }
    // The other ends of a run.
    valid(&results, "duplicate", &w.build("train"));
    w.intent("twin", "train", |i| i["request_id"] = json!("request.twin"));
    valid(&results, "already published", &w.build("twin"));
    w.intent("v9", "train", |i| {
        i["request_id"] = json!("request.v9");
        i["feature_definition_set"]["feature_set_version"] = json!("v9");
    });
    valid(&results, "failed", &w.run("v9").expect(3).json());
    w.write("intents/none.json", "[]");
    valid(&results, "rejected", &w.run("none").expect(3).json());
    w.intent("noid", "train", |i| i["request_id"] = json!("x"));
    valid(&results, "rejected", &w.run("noid").expect(3).json());
    w.intent("clash", "train", |i| i["policy_revision"] = json!("other"));
    valid(&results, "mismatch", &w.run("clash").expect(3).json());
}

#[test]
fn what_is_asked_about_a_data_set_fits_its_schema() {
    let w = Workspace::flights();
    let id = |name: &str| w.build(name)["dataset"]["manifest_id"].as_str().unwrap().to_owned();
    let (train, audit) = (id("train"), id("audit"));
    let event = {
        let first: Value = serde_json::from_str(w.text("labels/assertions.jsonl").lines().next().unwrap()).unwrap();
        first["label_subject_key"]["event_id"].as_str().unwrap().to_owned()
    };
    let told = |args: &[&str]| {
        let output = w.ofs(&[args, &["--json"]].concat());
        assert!(!output.out.is_empty(), "{args:?}: {}", output.err);
        output.json()
    };
    let (verify, diff, explain, report) = (schema("verify_v1"), schema("diff_v1"), schema("explain_v1"), schema("report_v1"));
    let how = |args: &[&str]| {
        let document = told(&[&["verify", &train], args].concat());
        valid(&verify, "verify", &document);
        document["rows_checked"].as_str().unwrap().to_owned()
    };
    assert_eq!([how(&[]), how(&["--rows"]), how(&["--reprove"])], ["BY_DIGEST", "DECODED", "DECODED"]);
    valid(&diff, "diff", &told(&["diff", &audit, &train]));
    valid(&explain, "explain", &told(&["explain", &train, &event]));
    valid(&explain, "explain of nothing", &told(&["explain", &train, "nobody"]));
    valid(&report, "look", &told(&["report", "--look"]));
    w.intent("v9", "train", |i| {
        i["request_id"] = json!("request.v9");
        i["feature_definition_set"]["feature_set_version"] = json!("v9");
    });
    w.run("v9").expect(3);
    valid(&report, "report", &told(&["report"]));
    // What does not hold fits, too.
    w.write(&format!("store/{FLIGHTS_RUN}/ofs/datasets/{train}/part-00000.parquet"), "x");
    let broken = told(&["verify", &train]);
    valid(&verify, "verify of a broken one", &broken);
    assert_eq!(broken["rows_checked"], "DECODED");
    let mut more = broken;
    more["extra"] = json!(1);
    assert!(!verify.is_valid(&more));
}

#[test]
fn requests_receipts_and_actions_fit_their_schemas() {
    let w = Workspace::flights();
    let (requests, receipts, actions) = (schema("ofs_job_request_v0"), schema("ofs_job_invocation_receipt_v0"), schema("action_v1"));
    let manifest = w.build("train")["dataset"]["manifest_id"].as_str().unwrap().to_owned();
    w.intent("second", "train", |i| i["request_id"] = json!("request.second"));
    let (train, second) = (w.path("intents/train.json"), w.path("intents/second.json"));
    let (train, second) = (train.to_str().unwrap(), second.to_str().unwrap());
    w.ofs(&["submit", train]).expect(0);
    w.ofs(&["submit", second, "--supersedes", &manifest, "--reason", "late labels"]).expect(0);
    let folder = format!("store/{FLIGHTS_RUN}/ofs/job_requests");
    w.write(&format!("{folder}/a.broken.request.json"), "{}");
    w.ofs(&["worker", "--once"]).expect(0);
    let blocked = format!("store/{FLIGHTS_RUN}/ofs/manifests_nontraining");
    w.write(&blocked, "in the way");
    w.ofs(&["submit", w.path("intents/audit.json").to_str().unwrap()]).expect(0);
    w.ofs(&["worker", "--once"]).expect(0);
    let audit = "nycflights13.audit.2013-01-01.2013-01-02";
    w.ofs(&["submit", "--publish-retry", audit]).expect(0);
    w.ofs(&["worker", "--once"]).expect(0);
    let mut commands = BTreeSet::new();
    for (name, bytes) in w.tree(&folder).into_iter().filter(|(name, _)| name != "a.broken.request.json") {
        let request: Value = serde_json::from_slice(&bytes).unwrap();
        valid(&requests, &name, &request);
        commands.insert(request["command"].as_str().unwrap().to_owned());
        let mut more = request.clone();
        more["extra"] = json!(1);
        assert!(!requests.is_valid(&more));
    }
    assert_eq!(commands.into_iter().collect::<Vec<_>>(), ["dataset_build", "publish_retry"]);
    assert!(!requests.is_valid(&json!({})));
    let mut ends = BTreeSet::new();
    for (name, bytes) in w.tree(&format!("store/{FLIGHTS_RUN}/ofs/job_invocations")) {
        let receipt: Value = serde_json::from_slice(&bytes).unwrap();
        valid(&receipts, &name, &receipt);
        ends.insert(receipt["status"].as_str().unwrap().to_owned());
    }
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), ["ALREADY_DONE", "DONE", "FAILED", "PUBLISH_PENDING"]);
    let file = w.scratch().join("b.json");
    for args in [
        vec!["note", audit, "look at the store"],
        vec!["bundle", audit, "-o", file.to_str().unwrap()],
        vec!["cancel", audit, "--reason", "not needed"],
    ] {
        let told = w.ofs(&[args.as_slice(), &["--json"]].concat()).expect(0).json();
        valid(&actions, args[0], &told);
    }
}

#[test]
fn the_fixture_fits_the_schemas_of_its_records() {
    let w = Workspace::flights();
    let (records, assertions, facts) = (schema("archive_event_record_v0"), schema("label_assertion_v0"), schema("run_facts_view_v0"));
    for path in files(&w.path(&format!("store/{FLIGHTS_RUN}/archive"))) {
        for line in fs::read_to_string(&path).unwrap().lines() {
            valid(&records, "record", &serde_json::from_str(line).unwrap());
        }
    }
    for line in w.text("labels/assertions.jsonl").lines() {
        valid(&assertions, "assertion", &serde_json::from_str(line).unwrap());
    }
    for path in files(&w.path(&format!("store/{FLIGHTS_RUN}/sr"))) {
        valid(&facts, "facts", &serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap());
    }
}

#[test]
fn every_schema_is_a_schema() {
    for path in files(&repository().join("contracts")) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(stem) = name.strip_suffix(".schema.json") {
            schema(stem);
        }
    }
}

/// Every test function and every scenario that a proof may name.
fn provers() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["src", "tests"] {
        for path in files(&repository().join(folder)) {
            if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for part in text.split("fn ").skip(1) {
                    let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                    if part[name.len()..].starts_with('(') {
                        names.insert(name);
                    }
                }
            }
        }
    }
    for path in files(&repository().join("fixtures/scenarios")) {
        if path.extension().is_some_and(|e| e == "toml") {
            names.insert(format!("scenario:{}", path.file_stem().unwrap().to_str().unwrap()));
        }
    }
    names
}

/// Reads a list of what is owed: how many entries it has and how many are proved.
fn owed(file: &str, table: &str) -> (usize, usize) {
    let text = fs::read_to_string(repository().join("contracts").join(file)).unwrap();
    let list: toml::Table = text.parse().unwrap();
    let provers = provers();
    let (mut ids, mut proved) = (BTreeSet::new(), 0);
    let entries = list[table].as_array().unwrap();
    for entry in entries {
        let id = entry["id"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "{id} stands twice");
        let proof = entry["proof"].as_array().unwrap();
        for name in proof {
            let name = name.as_str().unwrap();
            assert!(provers.contains(name), "{id}: nothing is called {name}");
        }
        proved += usize::from(!proof.is_empty());
    }
    (entries.len(), proved)
}

#[test]
fn every_proof_that_is_named_exists() {
    let (obligations, proved) = owed("obligations.toml", "obligation");
    let (pitfalls, shut) = owed("pitfalls.toml", "pitfall");
    assert_eq!((obligations, pitfalls), (167, 49));
    println!("obligations proved {proved}/167, pitfalls {shut}/49");
}
