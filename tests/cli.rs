//! The command line from outside: exit codes, documents, errors, signals, races, hostile text.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    FLIGHTS_RUN, FLIGHTS_TOPIC, Kills, Output, Workspace, archive_folder, blake3_hex, files, flights_lane, hostile, keys, large, outcome,
    signal, wait_for,
};

const TRAIN: &str = "nycflights13.train.2013-01-01.2013-01-02";
const PATIENCE: Duration = Duration::from_secs(30);

fn has(value: &Value, wanted: &[&str]) {
    let found = keys(value);
    let missing: Vec<&&str> = wanted.iter().filter(|k| !found.contains(**k)).collect();
    assert!(missing.is_empty(), "{missing:?} missing in {value}");
}

const RESULT: [&str; 9] = ["schema_version", "request_id", "run_key", "status", "outcome", "reason", "dataset", "evidence", "timings_ms"];

/// A result document with all its keys.
fn result(output: &Output) -> Value {
    let document = output.json();
    has(&document, &RESULT);
    assert_eq!(document["schema_version"], "ofs.run_result.v1");
    has(&document["evidence"], &["plan", "replay", "labels", "draft", "publication"]);
    if document["reason"].is_object() {
        has(&document["reason"], &["code", "phase", "message", "evidence"]);
    }
    document
}

#[test]
fn the_configuration_check_says_what_the_console_would_refuse() {
    let w = Workspace::flights();
    let checked = |toml: &str| {
        w.write("ofs.toml", toml);
        w.ofs(&["config", "check", "--json"])
    };
    checked("[console]\ntheme = \"ansi16\"\n[console.keys]\nquit = \"Q\"\n").expect(0);
    for (toml, words) in [
        ("[console.keys]\nqiut = \"Q\"\n", "no action is called qiut; did you mean quit?"),
        ("[console.keys]\nquit = \"hyper-x\"\n", "hyper-x is no key"),
        ("[console.keys]\nquit = \"ctrl-c\"\n", "cannot be bound"),
        ("[console.keys]\nhelp = \"q\"\n", "would be both"),
        ("[console]\ntheme = \"neon\"\n", "neon"),
        ("[console]\ncolumns = [\"state\", \"colour\"]\n", "no column is called colour; there are"),
    ] {
        let refused = checked(toml).refused(2, "CONFIG_INVALID");
        assert!(refused.err.contains(words), "{toml}: {}", refused.err);
    }
}

#[test]
fn a_run_prints_one_result_document_and_its_progress_on_stderr() {
    let w = Workspace::flights();
    let output = w.run("train").expect(0);
    let document = result(&output);
    assert_eq!((&document["status"], &document["outcome"], &document["reason"]), (&json!("DONE"), &json!("NEW"), &Value::Null));
    assert_eq!(document["request_id"], TRAIN);
    let dataset = &document["dataset"];
    has(dataset, &["manifest_id", "fingerprint", "manifest_ref", "rows", "rows_digest", "files"]);
    assert_eq!(dataset["rows"], 842);
    for file in dataset["files"].as_array().unwrap() {
        has(file, &["ref", "blake3", "rows", "bytes"]);
        let bytes = fs::read(w.path(&format!("store/{}", file["ref"].as_str().unwrap()))).unwrap();
        assert_eq!((file["blake3"].as_str().unwrap(), &file["bytes"]), (blake3_hex(&bytes).as_str(), &json!(bytes.len())));
    }
    for (name, at) in document["evidence"].as_object().unwrap() {
        assert!(w.path(&format!("store/{}", at.as_str().unwrap())).is_file(), "{name}");
    }
    for gate in ["pins", "replay", "labels", "features", "publication"] {
        assert!(output.err.contains(gate) && document["timings_ms"][gate].is_u64(), "{gate}: {}", output.err);
    }
    // Nothing is left in scratch space or staging.
    assert_eq!(files(&w.scratch()), [""; 0].map(std::path::PathBuf::from));
    assert_eq!(w.tree(&format!("store/{FLIGHTS_RUN}/ofs/staging")).len(), 0);
    // The same in words.
    let words = w.ofs(&["run", w.path("intents/audit.json").to_str().unwrap()]).expect(0);
    for part in ["DONE (NEW)", "data set", "manifest", "rows         842", "rows digest", "files"] {
        assert!(words.out.contains(part), "{part}: {}", words.out);
    }
}

#[test]
fn a_request_that_ended_is_answered_again_and_exits_as_then() {
    let w = Workspace::flights();
    let first = w.build("train");
    let again = result(&w.run("train").expect(0));
    assert_eq!((&again["outcome"], &again["dataset"], &again["status"]), (&json!("DUPLICATE"), &first["dataset"], &json!("DONE")));
    // A refusal that no retry can help is kept, with its exit code.
    w.intent("forged", "train", |i| {
        i["request_id"] = json!("request.forged");
        i["policy_revision"] = json!("another");
    });
    let single = format!("{}/offset=1.json", archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 0, "kafka_offset"));
    let record = w.text(&single);
    w.write(&single, record.replace("\"amount\":-4", "\"amount\":-5"));
    let refused = result(&w.run("forged").refused(3, "PAYLOAD_HASH_MISMATCH"));
    w.write(&single, record);
    assert_eq!((&refused["status"], &refused["outcome"], &refused["dataset"]), (&json!("FAILED"), &Value::Null, &Value::Null));
    assert_eq!(refused["reason"]["phase"], "replay");
    let again = result(&w.run("forged").refused(3, "PAYLOAD_HASH_MISMATCH"));
    assert_eq!((&again["outcome"], &again["reason"]), (&json!("DUPLICATE"), &refused["reason"]));
    // Same meaning under another id.
    w.intent("twin", "train", |i| i["request_id"] = json!("request.twin"));
    let twin = result(&w.run("twin").expect(0));
    assert_eq!((&twin["outcome"], &twin["dataset"]), (&json!("ALREADY_PUBLISHED"), &first["dataset"]));
    assert_eq!(w.manifests(FLIGHTS_RUN).len(), 1);
}

#[test]
fn every_receipt_says_under_which_profile_and_policy_it_was_written() {
    let w = Workspace::flights();
    let environment = [("OFS_WORKSPACE_PROFILE", "night"), ("OFS_LAUNCHER_POLICY_ID", "launch"), ("OFS_LAUNCHER_REVISION", "r9")];
    let done = result(&w.ofs_with(&environment, &["run", w.path("intents/train.json").to_str().unwrap(), "--json"]).expect(0));
    for name in ["plan", "replay", "labels", "draft", "publication"] {
        let running = w.json(&format!("store/{}", done["evidence"][name].as_str().unwrap()))["running"].clone();
        let policy = json!({"policy_id": "launch", "revision": "r9"});
        assert_eq!((&running["profile"], &running["launcher_policy"]), (&json!("night"), &policy), "{name}");
    }
    // Whoever publishes later may do so under another one.
    let w = Workspace::flights();
    let blocked = format!("store/{FLIGHTS_RUN}/ofs/manifests");
    w.write(&blocked, "in the way");
    w.run("train").refused(4, "COMMIT_FAILED");
    std::fs::remove_file(w.path(&blocked)).unwrap();
    w.ofs_with(&environment, &["retry", TRAIN]).expect(0);
}

#[test]
fn a_payload_hash_is_never_believed_for_training_and_nowhere_taken_over() {
    let w = Workspace::flights();
    let single = format!("{}/offset=1.json", archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 0, "kafka_offset"));
    w.write(&single, w.text(&single).replace("\"amount\":-4", "\"amount\":-5"));
    w.write("ofs.toml", "[replay]\nverify_payload_hashes = false\n");
    w.run("train").refused(3, "PAYLOAD_HASH_MISMATCH");
    // What nobody trains on may be built all the same, and says of each row what it is.
    let done = w.build("audit");
    let verified = w.ofs(&["verify", done["dataset"]["manifest_id"].as_str().unwrap(), "--reprove", "--json"]).expect(0).json();
    assert_eq!(verified["ok"], true, "{verified}");
    let plan = w.json(&format!("store/{}", done["evidence"]["plan"].as_str().unwrap()));
    assert_eq!(plan["running"]["verify_payload_hashes"], false);
}

#[test]
fn global_flags_may_stand_before_and_after_the_subcommand() {
    let w = Workspace::flights();
    let (dir, train) = (w.root(), w.path("intents/train.json"));
    let (dir, train) = (dir.to_str().unwrap(), train.to_str().unwrap());
    let nowhere = w.scratch();
    let nowhere = [("OFS_WORKSPACE", nowhere.to_str().unwrap())];
    let mut seen = Vec::new();
    for args in [
        vec!["--workspace", dir, "--json", "plan", train],
        vec!["plan", "--workspace", dir, train, "--json"],
        vec!["--json", "plan", train, "--workspace", dir],
    ] {
        seen.push(w.ofs_with(&nowhere, &args).expect(0).json());
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    // The environment, and the nearest parent with an ofs.toml.
    assert_eq!(w.ofs(&["plan", train, "--json"]).expect(0).json(), seen[0]);
    w.write("ofs.toml", "");
    fs::create_dir_all(w.path("intents/deeper")).unwrap();
    let mut command = w.command(&["plan", train, "--json"]);
    command.env_remove("OFS_WORKSPACE").current_dir(w.path("intents/deeper"));
    assert_eq!(w.finish(command).expect(0).json(), seen[0]);
}

#[test]
fn a_plan_resolves_everything_and_writes_nothing() {
    let w = Workspace::flights();
    let train = w.path("intents/train.json");
    let plan = w.ofs(&["plan", train.to_str().unwrap(), "--json"]).expect(0).json();
    has(
        &plan,
        &[
            "schema_version",
            "dataset_manifest_id",
            "dataset_fingerprint",
            "plan_id",
            "shards",
            "memory_bound_bytes",
            "partitions",
            "feasible",
        ],
    );
    assert_eq!((&plan["schema_version"], &plan["feasible"]), (&json!("ofs.plan.v1"), &json!(true)));
    // Who and what planned it, under which policy; and which definition, by its revision and digests.
    let running = &plan["running"];
    assert_eq!((&running["profile"], &running["launcher_policy"]["revision"]), (&json!("local"), &json!("r1")));
    assert!(running["release"].as_str().unwrap().starts_with("ofs ") && running["run_config_digest"].is_string());
    let profile = &plan["feature_profile"];
    assert_eq!(profile["resolved_revision"], "ofp.features.v0@r1");
    for digest in ["profile_digest", "group_digest", "content_digest", "label_vocabulary_digest"] {
        assert_eq!(profile[digest].as_str().map(str::len), Some(64), "{digest}");
    }
    for p in plan["partitions"].as_array().unwrap() {
        assert_eq!((&p["feasibility"], &p["missing_offsets"]), (&json!("FEASIBLE_REQUIRES_ARCHIVE"), &json!(0)), "{p}");
    }
    assert!(!w.path("state").exists() && !w.path(&format!("store/{FLIGHTS_RUN}/ofs")).exists());
    assert_eq!(files(&w.scratch()).len(), 0);
    assert_eq!(w.build("train")["dataset"]["manifest_id"], plan["dataset_manifest_id"]);
}

#[test]
fn a_plan_says_per_partition_why_the_basis_cannot_be_complete() {
    let feasibility = |w: &Workspace| -> Vec<String> {
        let plan = w.ofs(&["plan", w.path("intents/train.json").to_str().unwrap(), "--json"]).expect(0).json();
        plan["partitions"].as_array().unwrap().iter().map(|p| p["feasibility"].as_str().unwrap().to_owned()).collect()
    };
    let w = Workspace::flights();
    // Of a sparse kind nobody attests a range that nothing serves.
    w.intent("sparse", "train", |i| {
        i["request_id"] = json!("request.sparse");
        i["replay_basis"] =
            json!([{"topic": FLIGHTS_TOPIC, "partition": 9, "offset_kind": "kinesis_sequence", "start_offset": "5", "end_offset": "9"}]);
    });
    let sparse = w.ofs(&["plan", w.path("intents/sparse.json").to_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(sparse["partitions"][0]["feasibility"], "UNCHECKABLE_ARCHIVE_COMPLETENESS");
    // No archive for partition 1, whose bus begins too late; a hole in partition 0.
    fs::remove_dir_all(w.path(&archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, "kafka_offset"))).unwrap();
    fs::remove_file(w.path(&format!("{}/offset=7.json", archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 0, "kafka_offset")))).unwrap();
    // Partition 2 is all on the bus.
    let lane = flights_lane(&w, 2);
    fs::remove_dir_all(w.path(&archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 2, "kafka_offset"))).unwrap();
    let text: String = lane.values().map(|e| format!("{}\n", json!({"payload": e}))).collect();
    w.write(&format!("bus/{FLIGHTS_TOPIC}/partition=2.jsonl"), text);
    w.write(&format!("bus/{FLIGHTS_TOPIC}/partition=2.meta.json"), "{\"base_offset\":0,\"offset_kind\":\"kafka_offset\"}");
    assert_eq!(
        feasibility(&w),
        ["INFEASIBLE_ARCHIVE_GAP", "INFEASIBLE_RETENTION_EXCEEDED_NO_ARCHIVE", "FEASIBLE_EB_ONLY", "FEASIBLE_REQUIRES_ARCHIVE"]
    );
}

#[test]
fn a_plan_tells_a_record_that_the_build_would_refuse() {
    let w = Workspace::flights();
    let intent = w.path("intents/train.json");
    let plan = || w.ofs(&["plan", intent.to_str().unwrap(), "--json"]).expect(0).json();
    // The bus has every offset of partition 0 as well, so that none is missing.
    let text: String = flights_lane(&w, 0).values().map(|e| format!("{}\n", json!({"payload": e}))).collect();
    w.write(&format!("bus/{FLIGHTS_TOPIC}/partition=0.jsonl"), text);
    w.write(&format!("bus/{FLIGHTS_TOPIC}/partition=0.meta.json"), "{\"base_offset\":0,\"offset_kind\":\"kafka_offset\"}");
    let whole = plan();
    assert_eq!((&whole["feasible"], &whole["partitions"][0]["faults"]), (&json!(true), &json!([])));
    // Half a record of the archive: the run refuses it, wherever else its offset can be had.
    let folder = archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 0, "kafka_offset");
    w.write(&format!("{folder}/offset=7.json"), "{\"torn\":");
    let torn = plan();
    let lane = &torn["partitions"][0];
    assert_eq!((&torn["feasible"], &lane["feasibility"]), (&json!(false), &json!("INFEASIBLE_ARCHIVE_GAP")), "{lane}");
    assert_eq!((&lane["missing_offsets"], &lane["unusable_records"]), (&json!(0), &json!(1)), "{lane}");
    let fault = &lane["faults"][0];
    assert_eq!((&fault["code"], &fault["offset"], &fault["source"]), (&json!("DECODE_ERROR"), &json!("7"), &json!("ARCHIVE")));
    assert!(fault["place"].as_str().unwrap().contains("offset=7.json"), "{fault}");
    let told = w.ofs(&["plan", intent.to_str().unwrap()]).expect(0).out;
    assert!(told.contains("  offset 7 (ARCHIVE, ") && told.contains("offset=7.json") && told.contains("DECODE_ERROR"), "{told}");
    let refused = w.run("train").refused(3, "DECODE_ERROR").json();
    assert!(refused["reason"]["evidence"][0].as_str().unwrap().contains("offset 7 (ARCHIVE, "), "{refused}");
}

#[test]
fn intent_check_names_all_problems_at_once_with_their_paths() {
    let w = Workspace::flights();
    let check = |name: &str| w.ofs(&["intent", "check", w.path(&format!("intents/{name}.json")).to_str().unwrap(), "--json"]);
    let good = check("train").expect(0).json();
    has(&good, &["schema_version", "ok", "problems", "run_key", "normal_form"]);
    assert_eq!((&good["schema_version"], &good["ok"], &good["problems"]), (&json!("ofs.intent_check.v1"), &json!(true), &json!([])));
    w.intent("bad", "train", |i| {
        i["request_id"] = json!("short");
        i["label_basis"]["label_asof_utc"] = json!("yesterday");
        i["replay_basis"][1]["partition"] = json!(-1);
        i["policy_revision"] = json!(" ");
        i["filters"]["label_coverage_policy"]["max_conflict_ratio"] = json!(2);
        i["my_request_id"] = json!(1);
    });
    let output = check("bad").expect(3);
    let bad = output.json();
    let found: BTreeSet<(String, String)> = bad["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            has(p, &["code", "path", "message", "remedy"]);
            (p["code"].as_str().unwrap().to_owned(), p["path"].as_str().unwrap().to_owned())
        })
        .collect();
    let wanted = [
        ("REQUEST_ID_INVALID", "request_id"),
        ("AS_OF_SPEC_INVALID", "label_basis.label_asof_utc"),
        ("BASIS_UNRESOLVED", "replay_basis[1].partition"),
        ("POLICY_REVISION_MISSING", "policy_revision"),
        ("LABEL_POLICY_INVALID", "filters.label_coverage_policy.max_conflict_ratio"),
        ("SCHEMA_INVALID", "my_request_id"),
    ];
    assert_eq!(found, wanted.map(|(c, p)| (c.to_owned(), p.to_owned())).into());
    assert!(!w.path("state").exists(), "a check writes nothing");
    assert!(check("none").expect(2).err.contains("none.json"));
}

#[test]
fn runs_show_and_events_are_documents_with_stable_keys() {
    let w = Workspace::flights();
    let empty = w.ofs(&["runs", "--json"]).expect(0).json();
    assert_eq!((&empty["schema_version"], &empty["runs"]), (&json!("ofs.runs.v1"), &json!([])));
    assert!(!w.path("state").exists(), "a look makes no ledger");
    let done = w.build("train");
    w.write("intents/broken.json", "[1, 2]");
    w.run("broken").refused(3, "SCHEMA_INVALID");
    let runs = w.ofs(&["runs", "--json"]).expect(0).json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 2);
    for row in runs["runs"].as_array().unwrap() {
        has(
            row,
            &[
                "run_key",
                "request_id",
                "intent_kind",
                "status",
                "stuck",
                "reason_code",
                "phase",
                "attempts",
                "owner",
                "lease_expires_utc",
                "updated_at_utc",
                "manifest_id",
                "end_class",
                "stuck_reason",
            ],
        );
    }
    let only = w.ofs(&["runs", "--status", "done", "--json"]).expect(0).json();
    assert_eq!(only["runs"][0]["manifest_id"], done["dataset"]["manifest_id"]);
    assert_eq!(only["runs"].as_array().unwrap().len(), 1);
    assert_eq!(w.ofs(&["runs", "--stuck", "--json"]).expect(0).json()["runs"], json!([]));
    let unknown = w.ofs(&["runs", "--status", "GONE"]).expect(2);
    assert!(unknown.err.contains("GONE") && unknown.err.contains("next: one of QUEUED"), "{}", unknown.err);
    let key = done["run_key"].as_str().unwrap();
    let show = w.ofs(&["show", key, "--json"]).expect(0).json();
    has(&show, &["schema_version", "run", "intent", "gates", "actions"]);
    assert_eq!((&show["schema_version"], &show["run"]), (&json!("ofs.run.v1"), &only["runs"][0]));
    let gates: Vec<_> = show["gates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| {
            has(g, &["phase", "result", "reason", "evidence"]);
            (g["phase"].as_str().unwrap(), g["result"].as_str().unwrap())
        })
        .collect();
    assert_eq!(gates, ["pins", "replay", "labels", "features", "publication"].map(|g| (g, "PASSED")));
    // By a unique beginning of the key, and by request id.
    for given in [&key[..8], TRAIN] {
        assert_eq!(w.ofs(&["show", given, "--json"]).expect(0).json(), show);
    }
    let events = w.ofs(&["events", key, "--json"]).expect(0).json();
    assert_eq!((&events["schema_version"], &events["run_key"]), (&json!("ofs.events.v1"), &json!(key)));
    for (i, event) in events["events"].as_array().unwrap().iter().enumerate() {
        has(event, &["seq", "event_type", "status", "at_utc", "actor", "reason_code", "detail", "hash"]);
        assert_eq!(event["seq"], json!(i + 1));
    }
    // A follower of an ended run prints it and ends, one document a line.
    let followed = w.ofs(&["events", key, "--follow", "--json"]).expect(0);
    let mut lines: Vec<Value> = followed.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    for line in &mut lines {
        let line = line.as_object_mut().unwrap();
        assert_eq!((line.remove("schema_version"), line.remove("run_key")), (Some(json!("ofs.event.v1")), Some(json!(key))));
    }
    assert_eq!(json!(lines), events["events"]);
    for command in ["show", "events", "resume", "retry"] {
        let unknown = w.ofs(&[command, "feedfacefeedfacefeedfacefeedface", "--json"]).expect(2);
        assert!(unknown.err.contains("feedface") && unknown.err.contains("next:"), "{}", unknown.err);
        has(&unknown.json(), &["schema_version", "code", "message", "hint", "exit"]);
    }
}

#[test]
fn a_new_workspace_has_copies_of_the_inputs_and_nothing_else() {
    let w = Workspace::flights();
    w.build("train");
    let to = w.scratch().join("new");
    let (from, to) = (w.root(), to.to_str().unwrap().to_owned());
    let made = w.ofs(&["init", &to, "--from", from.to_str().unwrap(), "--json"]).expect(0).json();
    has(&made, &["schema_version", "workspace", "files"]);
    assert_eq!(made["schema_version"], "ofs.init.v1");
    let other = Workspace::empty();
    crate::support::copy(std::path::Path::new(&to), &other.root());
    assert_eq!(other.inputs().into_keys().collect::<Vec<_>>(), w.inputs().into_keys().collect::<Vec<_>>());
    assert!(!other.path("state").exists() && !other.path(&format!("store/{FLIGHTS_RUN}/ofs")).exists());
    other.build("train");
    assert_eq!(other.published(FLIGHTS_RUN), w.published(FLIGHTS_RUN));
    // Never over something, never from nothing.
    let full = w.ofs(&["init", &to, "--from", from.to_str().unwrap()]).expect(2);
    assert!(full.err.contains("not empty"), "{}", full.err);
    let nothing = w.ofs(&["--json", "init", "x", "--from", "nowhere"]).expect(2);
    assert!(nothing.err.contains("nowhere"), "{}", nothing.err);
}

#[test]
fn without_a_workspace_every_command_exits_2_and_makes_nothing() {
    let w = Workspace::empty();
    let source = Workspace::flights();
    let train = source.path("intents/train.json");
    let train = train.to_str().unwrap();
    for args in [
        vec!["run", train],
        vec!["plan", train],
        vec!["runs"],
        vec!["show", "x"],
        vec!["events", "x"],
        vec!["resume", "x"],
        vec!["retry", "x"],
        vec!["run", train, "--json"],
    ] {
        let output = w.ofs(&args).expect(2);
        assert!(output.err.contains("next:") && output.err.contains("no workspace"), "{args:?}: {}", output.err);
        assert_eq!(files(&w.root()).len(), 0, "{args:?}");
        let gone = w.ofs_with(&[("OFS_WORKSPACE", "/nonexistent/w")], &args).expect(2);
        assert!(gone.err.contains("/nonexistent/w"), "{args:?}: {}", gone.err);
    }
    assert!(fs::read_dir(w.root()).unwrap().next().is_none());
}

#[test]
fn errors_name_what_where_and_what_next() {
    let w = Workspace::flights();
    for (args, parts) in [
        (vec!["run", "intents/none.json"], vec!["intents/none.json", "No such file", "next:"]),
        (vec!["plan", "intents/none.json"], vec!["intents/none.json", "No such file"]),
        (vec!["nonsense"], vec!["nonsense"]),
        (vec!["run"], vec!["INTENT"]),
        (vec!["run", "x.json", "--supersedes", "dm_1"], vec!["--reason"]),
    ] {
        let output = w.ofs(&args).expect(2);
        parts.iter().for_each(|p| assert!(output.err.contains(p), "{args:?} lacks {p}: {}", output.err));
    }
    assert!(!w.path("state").exists());
    // Configuration: the key and the nearest known one.
    w.write("ofs.toml", "[limits]\nmemroy = \"1GiB\"\n");
    let output = w.ofs(&["runs"]).expect(2);
    assert!(output.err.contains("memroy") && output.err.contains("memory") && output.err.contains("CONFIG_INVALID"), "{}", output.err);
    w.write("ofs.toml", "[limits]\nmemory = \"1MiB\"\n");
    assert!(w.ofs(&["runs"]).expect(2).err.contains("64MiB"));
    w.write("ofs.toml", "[paths]\nobject_store = \"s3://bucket/prefix\"\n");
    assert!(w.run("train").expect(2).err.contains("STORE_UNSUPPORTED"));
    w.write("ofs.toml", "");
    assert!(w.ofs_with(&[("OFS_LIMITS_THREADS", "many")], &["runs"]).expect(2).err.contains("OFS_LIMITS_THREADS"));
}

#[test]
fn an_intent_that_is_no_json_object_is_rejected_on_record() {
    let w = Workspace::flights();
    let missing = w.run("absent").expect(2);
    assert!(missing.err.contains("absent.json") && !w.path("state").exists());
    for (i, text) in
        ["", "not json", "[1]", "\"x\"", "null", "{\"request_id\": \"twice.0001\", \"request_id\": \"twice.0002\"}", "\u{feff}{}", "{} {}"]
            .iter()
            .enumerate()
    {
        w.write("intents/odd.json", text);
        let output = w.run("odd").expect(3);
        let document = result(&output);
        assert_eq!((&document["status"], &document["reason"]["phase"]), (&json!("REJECTED"), &json!("intent")), "{text}");
        assert_eq!(document["reason"]["code"], "SCHEMA_INVALID", "{text}");
        if i < 5 {
            let key = format!("invalid-{}", &blake3_hex(text.as_bytes())[..16]);
            assert_eq!(document["run_key"], json!(key));
            assert_eq!(w.row(&key)["status"], "REJECTED");
            assert_eq!(w.event_types(&key), ["INTENT_REJECTED"]);
        }
    }
    w.assert_nothing_published(FLIGHTS_RUN);
}

#[test]
fn an_id_that_was_rejected_can_be_used_again_by_a_corrected_intent() {
    let w = Workspace::flights();
    w.intent("wrong", "train", |i| i["label_basis"]["resolution_rule"] = json!("anything goes"));
    let rejected = result(&w.run("wrong").refused(3, "RULE_NOT_SUPPORTED"));
    assert_eq!((&rejected["status"], &rejected["request_id"]), (&json!("REJECTED"), &json!(TRAIN)));
    assert_eq!(w.row(TRAIN)["end_class"], "REJECTED");
    // Rejected twice is rejected still.
    w.run("wrong").refused(3, "RULE_NOT_SUPPORTED");
    let done = w.build("train");
    assert_eq!((&done["outcome"], &done["run_key"]), (&json!("NEW"), &rejected["run_key"]));
    // Now the id is taken: the wrong intent is refused and changes nothing.
    w.run("wrong").refused(3, "RULE_NOT_SUPPORTED");
    let row = w.row(TRAIN);
    assert_eq!((&row["status"], &row["reason_code"]), (&json!("DONE"), &Value::Null));
    // So is one of another meaning.
    w.intent("other", "train", |i| i["policy_revision"] = json!("another"));
    let other = result(&w.run("other").refused(3, "REQUEST_ID_PAYLOAD_MISMATCH"));
    assert_eq!(other["run_key"], done["run_key"]);
    assert_eq!(w.row(TRAIN)["status"], "DONE");
    assert_eq!(w.event_types(TRAIN).last().map(String::as_str), Some("REQUEST_REFUSED"));
    // An id that is no id is on record under the digest of what came.
    w.intent("noid", "train", |i| i["request_id"] = json!("a/b"));
    let noid = result(&w.run("noid").refused(3, "REQUEST_ID_INVALID"));
    assert_eq!(noid["run_key"], json!(format!("invalid-{}", &blake3_hex(w.text("intents/noid.json").as_bytes())[..16])));
}

#[test]
fn label_types_must_be_declared_and_known() {
    let w = Workspace::flights();
    let ends = |name: &str, code: &str, change: &dyn Fn(&mut Value)| {
        w.intent(name, "train", |i| {
            i["request_id"] = json!(format!("request.{name}"));
            change(&mut i["filters"]);
        });
        w.run(name).refused(3, code);
    };
    ends("none", "LABEL_TYPE_SCOPE_UNRESOLVED", &|f| *f = json!({}));
    ends("unknown", "LABEL_POLICY_INVALID", &|f| *f = json!({"label_types": ["arrival_status", "weather"]}));
    ends("stray", "LABEL_POLICY_INVALID", &|f| f["label_coverage_policy"]["min_coverage_by_label_type"] = json!({"weather": 0.5}));
    w.assert_nothing_published(FLIGHTS_RUN);
}

#[test]
fn step_mode_needs_a_terminal() {
    let w = Workspace::flights();
    let output = w.ofs(&["run", w.path("intents/train.json").to_str().unwrap(), "--step"]).expect(2);
    assert!(output.err.contains("--step needs a terminal") && output.err.contains("next:"), "{}", output.err);
    assert!(!w.path("state").exists());
}

const EVIL: &str = "a\u{1b}[31mRED\u{1b}]0;title\u{7}\u{202e}gnp.exe\u{2066}\u{200b}\u{9b}2J\u{7f}";

fn harmless(what: &str, output: &Output) {
    for (stream, text) in [("stdout", &output.out), ("stderr", &output.err)] {
        let found: Vec<char> = text.chars().filter(|c| hostile(*c)).collect();
        assert!(found.is_empty(), "{what}: {found:?} on {stream}: {text:?}");
    }
}

#[test]
fn hostile_text_never_reaches_a_terminal_raw() {
    let w = Workspace::flights();
    // At admission: names of fields, ids, values.
    for (name, change) in [
        ("field", json!({EVIL: 1})),
        ("id", json!({"request_id": EVIL})),
        ("kind", json!({"intent_kind": EVIL})),
        ("run", json!({"platform_run_id": EVIL})),
        ("asof", json!({"label_basis": {"label_asof_utc": EVIL, "resolution_rule": EVIL, EVIL: EVIL}})),
        ("facts", json!({"run_facts_ref": format!("{FLIGHTS_RUN}/{EVIL}.json")})),
        ("features", json!({"feature_definition_set": {"feature_set_id": EVIL, "feature_set_version": EVIL}})),
        ("types", json!({"filters": {"label_types": [EVIL]}})),
        ("output", json!({"join_scope": {"required_output_ids": [EVIL]}})),
    ] {
        w.intent(name, "train", |i| {
            i["request_id"] = json!(format!("request.{name}"));
            for (key, value) in change.as_object().unwrap() {
                i[key] = value.clone();
            }
        });
        let path = w.path(&format!("intents/{name}.json"));
        let path = path.to_str().unwrap();
        for args in [
            vec!["run", path],
            vec!["run", path, "--json"],
            vec!["plan", path],
            vec!["plan", path, "--json"],
            vec!["intent", "check", path],
            vec!["intent", "check", path, "--json"],
        ] {
            let output = w.ofs(&args);
            harmless(&format!("{args:?}"), &output);
            assert!(output.code == 3 || args[0] == "intent", "{args:?}: {}", output.err);
            if args.contains(&"--json") {
                output.json();
            }
        }
    }
    // In data: an event id in conflict, a value that does not fit, a label value, a place in the message.
    let folder = archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 0, "kafka_offset");
    let lane = flights_lane(&w, 0);
    let hurt = |offset: u64, change: &dyn Fn(&mut Value)| {
        let mut envelope = lane[&offset].clone();
        change(&mut envelope);
        w.write(
            &format!("{folder}/offset={offset}.json"),
            crate::support::archive_record(FLIGHTS_TOPIC, 0, "kafka_offset", &offset.to_string(), &envelope).to_string(),
        );
    };
    let build = |name: &str, code: &str| {
        w.intent(name, "train", |i| i["request_id"] = json!(format!("request.{name}")));
        let path = w.path(&format!("intents/{name}.json"));
        let plain = w.ofs(&["run", path.to_str().unwrap()]).expect(3);
        assert!(plain.err.contains(code), "{}", plain.err);
        harmless(name, &plain);
        let document = w.run(name).expect(3);
        harmless(name, &document);
        assert!(document.json()["reason"].to_string().contains("RED"), "the document keeps the text: {}", document.out);
    };
    hurt(3, &|e| e["payload"]["amount"] = json!(EVIL));
    build("value", "FEATURE_VALUE_INVALID");
    hurt(3, &|e| e["event_id"] = json!(EVIL));
    hurt(4, &|e| e["event_id"] = json!(EVIL));
    build("conflict", "REPLAY_EVENT_ID_CONFLICT");
    hurt(3, &|_| ());
    hurt(4, &|e| e["platform_run_id"] = json!(EVIL));
    build("stranger", "RUN_SCOPE_INVALID");
    hurt(4, &|_| ());
    let labels = w.text("labels/assertions.jsonl");
    w.write("labels/assertions.jsonl", labels.replacen("ON_TIME", &json!(EVIL).to_string()[1..json!(EVIL).to_string().len() - 1], 1));
    build("label", "LABEL_SCHEMA_INCOMPATIBLE");
    // The ledger's views of all that.
    for args in [vec!["runs"], vec!["runs", "--json"]] {
        harmless("runs", &w.ofs(&args).expect(0));
    }
    let runs = w.ofs(&["runs", "--json"]).json();
    for run in runs["runs"].as_array().unwrap() {
        let key = run["run_key"].as_str().unwrap();
        for args in [
            vec!["show", key],
            vec!["events", key],
            vec!["events", key, "--follow"],
            vec!["show", key, "--json"],
            vec!["events", key, "--json"],
        ] {
            let output = w.ofs(&args).expect(0);
            harmless(&format!("{args:?}"), &output);
            if args.contains(&"--json") {
                output.json();
            }
        }
        let followed = w.ofs(&["events", key, "--follow", "--json"]).expect(0);
        harmless("events --follow --json", &followed);
        followed.out.lines().for_each(|line| drop(serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"))));
    }
    // From the command line itself.
    for args in [
        vec!["show", EVIL],
        vec!["runs", "--status", EVIL],
        vec!["run", EVIL],
        vec!["init", "x", "--from", EVIL],
        vec![EVIL],
        vec!["runs", EVIL],
        vec!["--workspace", EVIL, "runs"],
    ] {
        harmless(&format!("{args:?}"), &w.ofs(&args).expect(2));
        let mut json = args.clone();
        json.push("--json");
        harmless(&format!("{json:?}"), &w.ofs(&json).expect(2));
    }
}

fn event_seen(w: &Workspace, request: &str, event: &str, times: usize) -> bool {
    let output = w.ofs(&["events", request, "--json"]);
    output.code == 0 && output.json()["events"].as_array().unwrap().iter().filter(|e| e["event_type"] == event).count() >= times
}

#[test]
fn signals_end_a_build_within_two_seconds_and_hand_the_run_back() {
    const RUN: &str = "platform_20260301T000000Z";
    let w = large(60_000);
    let reference = Workspace::copy_of(&w);
    let path = w.path("intents/x.json");
    let run = ["run", path.to_str().unwrap(), "--json"];
    for (attempt, (name, code)) in [("HUP", 129), ("INT", 130), ("TERM", 143)].into_iter().enumerate() {
        let child = w.start(&run);
        wait_for("RUN_STARTED", PATIENCE, || event_seen(&w, "request.large", "RUN_STARTED", attempt + 1));
        let sent = Instant::now();
        signal(&child, name);
        let output = outcome(child).expect(code);
        println!("{name}: handed back after {:?}", sent.elapsed());
        let document = result(&output);
        assert_eq!((&document["status"], &document["reason"]["code"]), (&json!("QUEUED"), &json!("INTERRUPTED")));
        let row = w.row("request.large");
        assert_eq!((&row["status"], &row["owner"], &row["lease_expires_utc"]), (&json!("QUEUED"), &Value::Null, &Value::Null));
        let events = w.events("request.large");
        let last = events.last().unwrap();
        assert_eq!((&last["event_type"], &last["detail"]["signal"]), (&json!("RUN_INTERRUPTED"), &json!(name)));
        w.assert_no_manifest(RUN);
        assert_eq!(files(&w.scratch()).len(), 0, "scratch space is given back");
    }
    let done = result(&w.ofs(&run).expect(0));
    assert_eq!((&done["outcome"], &w.row("request.large")["attempts"]), (&json!("NEW"), &json!(4)));
    // A build that was never disturbed has the same bytes.
    reference.ofs(&["run", reference.path("intents/x.json").to_str().unwrap()]).expect(0);
    assert_eq!(w.published(RUN), reference.published(RUN));
    assert_eq!(w.tree(&format!("store/{RUN}/ofs/staging")).len(), 0);
}

#[test]
fn a_run_killed_at_any_instant_completes_with_the_same_bytes() {
    let reference = Workspace::flights();
    let began = Instant::now();
    reference.build("train");
    let whole = began.elapsed();
    let wanted = reference.published(FLIGHTS_RUN);
    let mut kills = Kills::new(u64::from(std::process::id()), whole);
    let (mut round, mut states) = (0, BTreeSet::new());
    while round < 8 || kills.met() < 8 {
        let w = Workspace::flights();
        let path = w.path("intents/train.json");
        for _ in 0..1 + round % 3 {
            let ended = !kills.kill(w.start(&["run", path.to_str().unwrap(), "--json"]));
            let runs = w.ofs(&["runs", "--json"]).expect(0).json();
            states.insert(format!("{} {}", runs["runs"][0]["status"], runs["runs"][0]["phase"]));
            // What is done is answered at once: there is nothing left to be killed in.
            if ended {
                break;
            }
        }
        let done = w.build("train");
        assert!(["NEW", "DUPLICATE"].contains(&done["outcome"].as_str().unwrap()), "{done}");
        assert_eq!(w.published(FLIGHTS_RUN), wanted, "round {round}");
        assert_eq!(w.tree(&format!("store/{FLIGHTS_RUN}/ofs/staging")).len(), 0, "round {round}");
        assert_eq!(w.row(TRAIN)["status"], "DONE");
        assert_eq!(w.event_types(TRAIN).iter().filter(|e| e.starts_with("RUN_DONE")).count(), 1);
        round += 1;
    }
    println!("killed {} builds, which stood at {states:?}", kills.met());
}

#[test]
fn a_ledger_whose_maker_was_killed_before_its_first_commit_holds_no_runs() {
    let w = Workspace::flights();
    let makes: [fn(&std::path::Path); 2] =
        [|at| fs::write(at, "").unwrap(), |at| rusqlite::Connection::open(at).unwrap().execute_batch("PRAGMA journal_mode = WAL").unwrap()];
    for make in makes {
        let _ = fs::remove_dir_all(w.path("state"));
        fs::create_dir_all(w.path("state")).unwrap();
        make(&w.path("state/ledger.db"));
        assert_eq!(w.ofs(&["runs", "--json"]).expect(0).json()["runs"], json!([]));
    }
    assert_eq!(w.build("train")["outcome"], "NEW");
}

#[test]
fn of_several_that_race_for_one_request_one_builds() {
    for _ in 0..3 {
        let w = Workspace::flights();
        let path = w.path("intents/train.json");
        let children: Vec<_> = (0..3).map(|_| w.start(&["run", path.to_str().unwrap(), "--json"])).collect();
        let mut ends: Vec<String> = Vec::new();
        for child in children {
            let output = outcome(child);
            let document = result(&output);
            ends.push(match output.code {
                0 => document["outcome"].as_str().unwrap().to_owned(),
                5 => {
                    assert_eq!((&document["status"], &document["reason"]["code"]), (&json!("RUNNING"), &json!("RUN_BUSY")));
                    assert!(output.err.contains("pid") && output.err.contains("lease"), "{}", output.err);
                    "BUSY".into()
                }
                other => panic!("exit {other}: {}", output.err),
            });
        }
        assert_eq!(ends.iter().filter(|e| *e == "NEW").count(), 1, "{ends:?}");
        assert!(ends.iter().all(|e| ["NEW", "BUSY", "DUPLICATE"].contains(&e.as_str())), "{ends:?}");
        assert_eq!(w.manifests(FLIGHTS_RUN).len(), 1);
        assert_eq!(w.event_types(TRAIN).iter().filter(|e| *e == "RUN_DONE").count(), 1);
    }
}

#[test]
fn of_several_requests_of_one_meaning_that_race_one_publishes() {
    let reference = Workspace::flights();
    reference.build("train");
    for round in 0..4 {
        let w = Workspace::flights();
        let mut children = Vec::new();
        for i in 0..3 {
            w.intent(&format!("r{i}"), "train", |it| it["request_id"] = json!(format!("request.{i}.{round}")));
        }
        for i in 0..3 {
            children.push(w.start(&["run", w.path(&format!("intents/r{i}.json")).to_str().unwrap(), "--json"]));
        }
        let ends: Vec<String> =
            children.into_iter().map(|c| result(&outcome(c).expect(0))["outcome"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ends.iter().filter(|e| *e == "NEW").count(), 1, "{ends:?}");
        assert_eq!(ends.iter().filter(|e| *e == "ALREADY_PUBLISHED").count(), 2, "{ends:?}");
        assert_eq!(w.published(FLIGHTS_RUN), reference.published(FLIGHTS_RUN));
        for i in 0..3 {
            assert_eq!(w.row(&format!("request.{i}.{round}"))["status"], "DONE");
        }
    }
}

/// Between the making of the file and its first commit there is a ledger that is none yet.
#[test]
fn a_ledger_that_is_just_being_made_is_waited_for() {
    for _ in 0..5 {
        let w = Workspace::flights().unguarded();
        let path = w.path("intents/train.json");
        let child = w.start(&["run", path.to_str().unwrap(), "--json"]);
        let mut looks = 0;
        while w.ofs(&["runs", "--json"]).expect(0).json()["runs"].as_array().unwrap().is_empty() && looks < 1_000 {
            looks += 1;
        }
        outcome(child).expect(0);
        assert!(looks < 1_000);
    }
}

/// As root the mode says nothing to the system; the guard around every command holds then as well.
#[cfg(unix)]
#[test]
fn read_only_inputs_are_enough() {
    use std::os::unix::fs::PermissionsExt;
    let w = Workspace::flights();
    let writable = Workspace::flights();
    writable.build("train");
    let mut folders = BTreeSet::new();
    for name in w.inputs().keys() {
        let path = w.path(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        folders.insert(path.parent().unwrap().to_owned());
    }
    for folder in &folders {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o555)).unwrap();
    }
    w.build("train");
    w.build("audit");
    for args in [vec!["runs"], vec!["show", TRAIN], vec!["events", TRAIN]] {
        w.ofs(&args).expect(0);
    }
    assert_eq!(w.tree(&format!("store/{FLIGHTS_RUN}/ofs/manifests")), writable.tree(&format!("store/{FLIGHTS_RUN}/ofs/manifests")));
    for folder in &folders {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn resume_and_retry_refuse_what_is_not_theirs() {
    let w = Workspace::flights();
    w.build("train");
    let resumed = w.ofs(&["resume", TRAIN, "--json"]).refused(3, "INVALID_TRANSITION");
    assert!(resumed.err.contains("DONE") && resumed.err.contains("note"), "the legal actions are named: {}", resumed.err);
    w.ofs(&["retry", TRAIN, "--json"]).refused(3, "RETRY_NOT_PENDING");
    assert_eq!(w.event_types(TRAIN).last().map(String::as_str), Some("PUBLISH_RETRY_SKIPPED"));
    assert_eq!(w.row(TRAIN)["status"], "DONE");
}
