//! `ofs generate`: a world that builds, and that holds what it says it holds.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Workspace, files, outcome, wait_for};

const RUN: &str = "platform_20260101T000000Z";

fn generated(events: &str, seed: &str) -> (Workspace, Value) {
    let w = Workspace::empty();
    let out = w.scratch().join("world");
    let document =
        w.ofs(&["generate", "--events", events, "--partitions", "3", "--seed", seed, out.to_str().unwrap(), "--json"]).expect(0).json();
    (w, document)
}

fn build(w: &Workspace, intent: &str) -> Value {
    let (world, intent) = (w.scratch().join("world"), w.scratch().join("world/intents").join(intent));
    w.ofs(&["--workspace", world.to_str().unwrap(), "run", intent.to_str().unwrap(), "--json"]).expect(0).json()
}

#[test]
fn both_intents_of_a_generated_world_build_to_done() {
    let (w, document) = generated("6000", "11");
    assert_eq!(
        (&document["schema_version"], &document["events"], &document["partitions"]),
        (&"ofs.generate.v1".into(), &6_000.into(), &3.into())
    );
    assert_eq!(document["intents"].as_array().unwrap().len(), 2);
    let labels = document["labels"].as_u64().unwrap();
    assert!((8_400..9_600).contains(&labels), "1.5 assertions an event: {labels}");

    let train = build(&w, "train.json");
    assert_eq!((&train["status"], &train["outcome"]), (&"DONE".into(), &"NEW".into()));
    // Redelivered events are one row.
    let rows = train["dataset"]["rows"].as_u64().unwrap();
    assert!((5_900..6_000).contains(&rows), "{rows}");

    let receipt = |what: &str, run: &Value| -> Value {
        let key = run["run_key"].as_str().unwrap();
        let path = w.scratch().join(format!("world/store/{RUN}/ofs/{what}/{key}.json"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let replay = receipt("replay_completeness", &train);
    let lanes = replay["observation"]["partitions"].as_array().unwrap().clone();
    assert!(lanes.iter().all(|lane| lane["compared_on_both"].as_u64().unwrap() > 0), "bus and archive overlap");
    assert!(lanes.iter().all(|lane| lane["served_by_bus"].as_u64().unwrap() > 0 && lane["served_by_archive"].as_u64().unwrap() > 0));

    let audit = build(&w, "audit.json");
    assert_eq!(audit["status"], "DONE");
    let (then, later) = (receipt("label_resolution", &audit), receipt("label_resolution", &train));
    let late = |receipt: &Value| receipt["observation"]["late_total"].as_u64().unwrap();
    assert!(late(&then) > late(&later) && late(&later) > 0, "labels come after either cut-off");
    let conflicts = later["proof"]["types"][0]["conflict"].as_u64().unwrap();
    assert!((1..60).contains(&conflicts), "{conflicts}");
}

#[test]
fn a_sealed_world_builds_to_the_same_rows() {
    let (raw, _) = generated("3000", "5");
    let sealed = Workspace::empty();
    let out = sealed.scratch().join("world");
    let arguments = ["generate", "--events", "3000", "--partitions", "3", "--seed", "5", "--sealed", out.to_str().unwrap(), "--json"];
    let document = sealed.ofs(&arguments).expect(0).json();
    assert_eq!(document["sealed_records"], 3_000, "{document}");
    // The archive is there raw as well, and sealing it afterwards comes to the same bytes.
    let segments = || sealed.tree(&format!("../tmp/world/store/{RUN}/ofs/sealed"));
    let written = segments();
    assert_eq!(written.len(), 6, "a segment and its sidecar for each partition");
    std::fs::remove_dir_all(out.join(format!("store/{RUN}/ofs"))).unwrap();
    let again = sealed.ofs(&["--workspace", out.to_str().unwrap(), "archive", "seal", "--json"]).expect(0).json();
    assert_eq!(again["records"], 3_000, "{again}");
    assert!(segments() == written);
    let [raw, sealed] = [&raw, &sealed].map(|w| build(w, "train.json")["dataset"].clone());
    assert_eq!((&raw["rows_digest"], &raw["files"]), (&sealed["rows_digest"], &sealed["files"]));
}

#[test]
fn columns_alone_are_the_same_world_in_less_space() {
    let worlds = [&["--sealed"][..], &["--sealed", "--columns"]].map(|flags| {
        let w = Workspace::empty();
        let out = w.scratch().join("world");
        let arguments = ["generate", "--events", "3000", "--partitions", "3", "--seed", "5", out.to_str().unwrap(), "--json"];
        let document = w.ofs(&[&arguments[..], flags].concat()).expect(0).json();
        (w, document["labels"].clone())
    });
    let [(text, labels), (columns, same)] = &worlds;
    assert_eq!(labels, same);
    let world = columns.scratch().join("world");
    assert!(!world.join(format!("store/{RUN}/archive")).exists());
    assert!(files(&world.join("labels")).iter().all(|p| p.extension().is_some_and(|e| e == "parquet")));
    for intent in ["train.json", "audit.json"] {
        let [a, b] = [text, columns].map(|w| build(w, intent)["dataset"].clone());
        assert_eq!((&a["rows_digest"], &a["files"]), (&b["rows_digest"], &b["files"]), "{intent}");
    }
    let refused = columns.ofs(&["generate", "--events", "100", "--columns", columns.scratch().join("other").to_str().unwrap()]).expect(2);
    assert!(refused.err.contains("--sealed"), "{}", refused.err);
}

/// Kept in memory as a whole, this world takes about 420 MB.
#[cfg(target_os = "linux")]
#[test]
fn a_build_stays_within_the_memory_that_its_plan_names() {
    let w = Workspace::empty();
    let world = w.scratch().join("world");
    let [world, intent] = [world.clone(), world.join("intents/train.json")].map(|path| path.to_str().unwrap().to_owned());
    w.ofs(&["generate", "--events", "600000", "--partitions", "4", "--seed", "1", "--sealed", "--columns", &world]).expect(0);
    let limits = [("OFS_LIMITS_MEMORY", "128MiB"), ("OFS_LIMITS_THREADS", "2")];
    let plan = w.ofs_with(&limits, &["--workspace", &world, "plan", &intent]).expect(0).out;
    let named = plan.split("memory bound ").nth(1).and_then(|rest| rest.split(' ').next()).and_then(|mib| mib.parse::<u64>().ok());
    let bound = named.unwrap_or_else(|| panic!("{plan}"));
    assert!(bound < 250, "{bound} MiB");

    let mut command = w.command(&["--workspace", &world, "run", &intent, "--json"]);
    let mut build = command.envs(limits).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", build.id());
    let mut peak = 0;
    wait_for("the build", Duration::from_secs(600), || {
        let now = std::fs::read_to_string(&status).unwrap_or_default();
        let peak_kb = now.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(peak_kb.unwrap_or(0));
        build.try_wait().unwrap().is_some()
    });
    assert_eq!(outcome(build).expect(0).json()["status"], "DONE");
    assert!((50_000..=bound * 1024).contains(&peak), "{peak} KB at the peak, {bound} MiB named");
}

/// A part is written as a whole, so rows of very many columns need memory that no spilling saves.
#[test]
fn rows_of_too_many_features_are_refused_before_any_is_computed_and_built_with_more_memory() {
    let w = Workspace::empty();
    let world = w.scratch().join("world");
    let text = |path: &str| world.join(path).to_str().unwrap().to_owned();
    w.ofs(&["generate", "--events", "40000", "--partitions", "2", "--seed", "1", "--sealed", "--columns", &text("")]).expect(0);
    let authority = world.join("authority/features_v0.yaml");
    let mut features = std::fs::read_to_string(&authority).unwrap();
    (0..60).for_each(|n| features.push_str(&format!("      - {{name: sum_{n}, agg: sum, field: amount, type: int64}}\n")));
    std::fs::write(&authority, features).unwrap();
    let run = ["--workspace", &text(""), "run", &text("intents/train.json"), "--json"];
    let refused = w.ofs_with(&[("OFS_LIMITS_MEMORY", "64MiB")], &run).expect(3).json();
    assert_eq!((&refused["reason"]["code"], &refused["reason"]["phase"]), (&"MEMORY_BUDGET".into(), &"features".into()));
    let message = refused["reason"]["message"].as_str().unwrap();
    assert!(message.contains("MiB are needed at least") && message.ends_with("205 columns"), "{message}");
    // With exactly what it says is needed, it is built.
    let needed = format!("{}MiB", message.split(' ').next().unwrap());
    let built = w.ofs_with(&[("OFS_LIMITS_MEMORY", &needed)], &run).expect(0).json();
    assert_eq!(built["status"], "DONE");
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let w = Workspace::empty();
    w.write("world/mine.txt", "mine");
    let out = w.root().join("world");
    let refused = w.ofs(&["generate", "--events", "100", out.to_str().unwrap()]).expect(2);
    assert!(refused.err.contains("is not empty; nothing was written"), "{}", refused.err);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
}

#[test]
fn the_smallest_worlds_build_to_done_too() {
    // Worlds of which less is known at the cut-off than a training build usually asks for, and a few others.
    for (events, seed) in [("1", "3"), ("1", "7"), ("2", "2"), ("3", "1"), ("4", "5"), ("8", "6"), ("12", "9")] {
        let w = Workspace::empty();
        let out = w.scratch().join("world");
        let document = w.ofs(&["generate", "--events", events, "--seed", seed, out.to_str().unwrap(), "--json"]).expect(0).json();
        let partitions = events.parse::<u64>().unwrap().min(4);
        assert_eq!(document["partitions"].as_u64(), Some(partitions), "{events} events");
        for intent in ["train.json", "audit.json"] {
            let built = build(&w, intent);
            assert_eq!((&built["status"], &built["dataset"]["rows"].to_string()), (&"DONE".into(), &events.to_owned()), "seed {seed}");
        }
    }
}
