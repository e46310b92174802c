//! Sealed segments: verified once, proved by a digest afterwards, and nothing of what is published shows
//! whether a record came raw, sealed, or both.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use ofs::operate::fault::until_killed;
use ofs::operate::mishap::{Mishap, Site, Trap};
use ofs::operate::seal::{self, Attestation};
use ofs::pipeline::gate::Refusal;
use serde_json::{Value, json};

use crate::contracts::{schema, valid};
use crate::support::{
    FLIGHTS_RUN, FLIGHTS_TOPIC, Workspace, archive_folder, archive_record, blake3_hex, environment, files, lines, store_of,
};

const KIND: &str = "kafka_offset";
/// Records that the fixture's archive holds.
const ARCHIVED: u64 = 183 + 181 + 218 + 173;

fn sealed_folder(partition: i32, kind: &str) -> String {
    archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, partition, kind).replace("/archive/events/", "/ofs/sealed/")
}

fn seal(w: &Workspace) -> Value {
    let report = w.ofs(&["archive", "seal", "--json"]).expect(0).json();
    valid(&schema("seal_v1"), "the report", &report);
    let sidecars = schema("sealed_segment_v1");
    for path in files(&w.path(&format!("store/{FLIGHTS_RUN}/ofs/sealed"))).iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
        valid(&sidecars, "a sidecar", &serde_json::from_slice(&fs::read(path).unwrap()).unwrap());
    }
    report
}

/// Both intents of the fixture, built.
fn both(w: &Workspace) -> BTreeMap<String, Vec<u8>> {
    w.build("train");
    w.build("audit");
    w.published(FLIGHTS_RUN)
}

fn outcomes(report: &Value) -> Vec<&str> {
    report["lanes"].as_array().unwrap().iter().map(|l| l["outcome"].as_str().unwrap()).collect()
}

#[test]
fn raw_sealed_and_mixed_archives_publish_the_same_bytes() {
    let wanted = both(&Workspace::flights());
    let w = Workspace::flights();
    let report = seal(&w);
    assert_eq!((report["schema_version"].as_str(), report["records"].as_u64()), (Some("ofs.seal.v1"), Some(ARCHIVED)));
    assert_eq!(outcomes(&report), ["SEALED"; 4]);
    let again = seal(&w);
    assert_eq!((again["segments"].as_u64(), outcomes(&again)), (Some(0), vec!["UP_TO_DATE"; 4]));
    assert!(files(&w.path(&format!("store/{FLIGHTS_RUN}/ofs"))).iter().all(|p| !p.to_str().unwrap().contains("/staging/")));
    // A second sealing elsewhere, on other threads and with little memory, writes the same bytes.
    let other = Workspace::flights();
    other.ofs_with(&[("OFS_LIMITS_THREADS", "8"), ("OFS_LIMITS_MEMORY", "64MiB")], &["archive", "seal"]).expect(0);
    let tree = |w: &Workspace| w.tree(&format!("store/{FLIGHTS_RUN}/ofs/sealed"));
    assert_eq!(tree(&w), tree(&other));

    let mixed = Workspace::copy_of(&w);
    for name in fs::read_dir(mixed.path(&sealed_folder(0, KIND))).unwrap() {
        fs::remove_file(name.unwrap().path()).unwrap();
    }
    fs::remove_dir_all(mixed.path(&archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, KIND))).unwrap();
    let gone = Workspace::copy_of(&w);
    fs::remove_dir_all(gone.path(&format!("store/{FLIGHTS_RUN}/archive"))).unwrap();
    for (what, w) in [("sealed", &w), ("mixed", &mixed), ("sealed, the raw records gone", &gone)] {
        assert!(both(w) == wanted, "{what}");
        let receipts = w.tree(&format!("store/{FLIGHTS_RUN}/ofs/replay_completeness"));
        let receipt: Value = serde_json::from_slice(receipts.values().next().unwrap()).unwrap();
        let served: Vec<u64> =
            receipt["observation"]["partitions"].as_array().unwrap().iter().map(|p| p["served_by_sealed"].as_u64().unwrap()).collect();
        assert!(served[1] > 0 && (served[0] > 0) == (what != "mixed"), "{what}: {served:?}");
        assert_eq!(receipt["observation"]["partitions"][1]["selected_ranges"][0]["source"], "SEALED", "{what}");
    }
    // Every question about the data set is answered from segments as well.
    let manifest = gone.manifests(FLIGHTS_RUN).into_iter().next().unwrap();
    gone.ofs(&["verify", &format!("{FLIGHTS_RUN}/ofs/{manifest}"), "--reprove"]).expect(0);
    let plan = gone.ofs(&["plan", gone.path("intents/train.json").to_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!((plan["feasible"].as_bool(), plan["partitions"][0]["on_sealed"].as_u64()), (Some(true), Some(183)));
}

#[test]
fn worlds_are_made_from_segments_where_the_raw_records_are_gone() {
    let w = Workspace::flights();
    let id = w.build("train")["dataset"]["manifest_id"].as_str().unwrap().to_owned();
    let prove = |w: &Workspace| w.ofs(&["prove", &id, "--noninterference", "--samples", "1", "--json"]).expect(0).json();
    let wanted = prove(&w);
    seal(&w);
    let mixed = Workspace::copy_of(&w);
    fs::remove_dir_all(mixed.path(&archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, KIND))).unwrap();
    fs::remove_dir_all(w.path(&format!("store/{FLIGHTS_RUN}/archive"))).unwrap();
    for (what, w) in [("mixed", mixed), ("the raw records gone", w)] {
        let told = prove(&w);
        assert_eq!(told["holds"], json!(true), "{what}: {told}");
        let rows = |told: &Value| -> Vec<Value> {
            told["checks"]
                .as_array()
                .unwrap()
                .iter()
                .map(|c| json!([c["what"], c["equal_rows"], c["changed_rows"], c["dependent_rows"]]))
                .collect()
        };
        assert_eq!(rows(&told), rows(&wanted), "{what}");
        assert_eq!(fs::read_dir(w.scratch()).unwrap().count(), 0, "{what}");
    }
}

#[test]
fn reports_that_need_whole_envelopes_come_out_the_same_from_segments() {
    let raw = Workspace::flights();
    let intents = |w: &Workspace| {
        w.intent("forensic", "train", |intent| {
            intent["request_id"] = "sealed.forensic".into();
            intent["intent_kind"] = "forensic_rebuild".into();
            intent["join_scope"]["forensic"] = json!({"keys": ["N488UA"], "as_of_utc": "2013-01-02T00:00:00Z"});
        });
        let anchor = files(&w.path(&format!("store/{FLIGHTS_RUN}/online_feature_plane")))[0].clone();
        let anchor = anchor.strip_prefix(w.path("store")).unwrap().to_str().unwrap().to_owned();
        w.intent("parity", "train", |intent| {
            intent["request_id"] = "sealed.parity".into();
            intent["intent_kind"] = "parity_rebuild".into();
            intent["parity_anchor_ref"] = anchor.into();
        });
    };
    intents(&raw);
    let sealed = Workspace::copy_of(&raw);
    seal(&sealed);
    fs::remove_dir_all(sealed.path(&format!("store/{FLIGHTS_RUN}/archive"))).unwrap();
    let reports = |w: &Workspace| {
        let codes = ["forensic", "parity"].map(|intent| w.run(intent).code);
        (codes, w.tree(&format!("store/{FLIGHTS_RUN}/ofs/forensic")), w.tree(&format!("store/{FLIGHTS_RUN}/ofs/parity")))
    };
    let wanted = reports(&raw);
    assert!(!wanted.1.is_empty() && !wanted.2.is_empty());
    assert!(reports(&sealed) == wanted);
}

#[test]
fn a_damaged_segment_is_refused_with_the_way_out_and_sealed_anew() {
    let w = Workspace::flights();
    seal(&w);
    let file = w.path(&sealed_folder(2, KIND)).join("segment-0-217.parquet");
    let whole = fs::read(&file).unwrap();
    let mut bytes = whole.clone();
    bytes[1_000] ^= 4;
    fs::write(&file, &bytes).unwrap();
    let refused = w.run("train").refused(3, "SEALED_SEGMENT_INVALID").json();
    let message = refused["reason"]["message"].as_str().unwrap();
    assert!(message.contains("segment-0-217.parquet") && message.contains("ofs archive seal"), "{message}");
    w.assert_nothing_published(FLIGHTS_RUN);
    fs::remove_file(&file).unwrap();
    fs::remove_file(file.with_extension("json")).unwrap();
    let report = seal(&w);
    assert_eq!((report["segments"].as_u64(), report["records"].as_u64()), (Some(1), Some(218)));
    assert_eq!(fs::read(&file).unwrap(), whole);
    w.build("train");
}

#[test]
fn only_what_is_new_is_sealed() {
    let w = Workspace::flights();
    let folder = archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 3, KIND);
    let path = files(&w.path(&folder)).into_iter().next().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let all: Vec<&str> = text.lines().collect();
    let first: String = all[..100].iter().map(|l| format!("{l}\n")).collect();
    fs::write(&path, &first).unwrap();
    let segments = |report: &Value| -> Vec<String> {
        let lane = &report["lanes"].as_array().unwrap()[3];
        let range = |s: &Value| format!("{}-{} {}", s["start_offset"].as_str().unwrap(), s["end_offset"].as_str().unwrap(), s["records"]);
        lane["segments"].as_array().unwrap().iter().map(range).collect()
    };
    assert_eq!(segments(&seal(&w)), ["0-99 100"]);
    // The file grows, with an old record once more; one record comes in a file of its own.
    fs::write(&path, format!("{text}{}\n", all[7])).unwrap();
    let before = fs::read(w.path(&sealed_folder(3, KIND)).join("segment-0-99.json")).unwrap();
    assert_eq!(segments(&seal(&w)), ["100-172 73"]);
    assert_eq!(segments(&seal(&w)), [""; 0]);
    assert_eq!(fs::read(w.path(&sealed_folder(3, KIND)).join("segment-0-99.json")).unwrap(), before);
    assert!(both(&w) == both(&Workspace::flights()));
}

/// Moves a partition of the archive to a sparse kind without its record 100; the intent that wants it.
fn sparse() -> Workspace {
    let w = Workspace::flights();
    let (from, to) =
        (archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, KIND), archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, "kinesis_sequence"));
    let path = files(&w.path(&from)).into_iter().next().unwrap();
    let text = fs::read_to_string(&path).unwrap().replace(KIND, "kinesis_sequence");
    let kept: Vec<&str> = text.lines().enumerate().filter(|(i, _)| *i != 100).map(|(_, l)| l).collect();
    fs::remove_file(path).unwrap();
    w.write(&format!("{to}/part.jsonl"), kept.iter().map(|l| format!("{l}\n")).collect::<String>());
    w.intent("sparse", "train", |intent| {
        intent["request_id"] = "sealed.sparse".into();
        intent["replay_basis"][1]["offset_kind"] = "kinesis_sequence".into();
        intent["replay_basis"][1]["end_offset"] = "180".into();
    });
    w
}

fn attestation(partition: i32, kind: &str, start: u64, end: u64, count: u64) -> Value {
    json!({"topic": FLIGHTS_TOPIC, "partition": partition, "offset_kind": kind, "start_offset": start.to_string(), "end_offset": end.to_string(), "record_count": count})
}

#[test]
fn an_attestation_makes_a_sparse_kind_complete() {
    let w = sparse();
    let plan = || {
        let plan = w.ofs(&["plan", w.path("intents/sparse.json").to_str().unwrap(), "--json"]).expect(0).json();
        plan["partitions"][1]["feasibility"].as_str().unwrap().to_owned()
    };
    let report = seal(&w);
    assert_eq!(outcomes(&report)[1], "UNATTESTED");
    assert_eq!(plan(), "UNCHECKABLE_ARCHIVE_COMPLETENESS");
    let attest = |count| {
        w.write("attest.json", json!([attestation(1, "kinesis_sequence", 0, 180, count)]).to_string());
        w.ofs(&["archive", "seal", "--attest", w.path("attest.json").to_str().unwrap(), "--json"])
    };
    let wrong = attest(181).expect(3);
    valid(&schema("seal_v1"), "a refusal", &wrong.json());
    assert_eq!(wrong.json()["lanes"][1]["reason"]["code"], "ATTESTATION_INVALID");
    assert!(wrong.err.contains("ATTESTATION_INVALID"), "{}", wrong.err);
    assert!(!w.path(&sealed_folder(1, "kinesis_sequence")).exists());
    let right = attest(180).expect(0).json();
    valid(&schema("seal_v1"), "the report", &right);
    assert_eq!((outcomes(&right)[1], right["lanes"][1]["segments"][0]["attested"].as_bool()), ("SEALED", Some(true)));
    assert_eq!(outcomes(&attest(180).expect(0).json())[1], "UP_TO_DATE");
    let sidecar = w.json(&format!("{}/segment-0-180.json", sealed_folder(1, "kinesis_sequence")));
    valid(&schema("sealed_segment_v1"), "the sidecar", &sidecar);
    assert_eq!(
        sidecar["proof"],
        json!({"by": "ATTESTATION", "ranges": [{"start_offset": "0", "end_offset": "180"}],
        "attestation": {"start_offset": "0", "end_offset": "180", "record_count": 180}})
    );
    assert_eq!(plan(), "FEASIBLE_REQUIRES_ARCHIVE");
    assert_eq!(w.build("sparse")["dataset"]["rows"], 820);
    // That a record was never there is attested, and cannot be said of a world of raw records: labels alone can differ.
    let id = w.run("sparse").json()["dataset"]["manifest_id"].as_str().unwrap().to_owned();
    let told = w.ofs(&["prove", &id, "--noninterference", "--samples", "1", "--json"]).expect(3).json();
    assert_eq!((&told["holds"], &told["reason"]["code"]), (&json!(false), &json!("CERTIFICATE_INCOMPLETE")), "{told}");
    let verdicts: Vec<&str> = told["checks"].as_array().unwrap().iter().map(|c| c["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["HOLDS", "UNCHECKABLE", "UNCHECKABLE", "HOLDS", "UNCHECKABLE"], "{told}");
    assert!(told["checks"][1]["found"][0].as_str().unwrap().contains("REPLAY_INCOMPLETE"), "{told}");
    // A record that turns up in a range that was attested without it contradicts the attestation.
    let record =
        Workspace::flights().text(&format!("{}/part-000000000000-000000000180.jsonl", archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, KIND)));
    let late = record.lines().nth(100).unwrap().replace(KIND, "kinesis_sequence");
    w.write(&format!("{}/offset=100.json", archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, "kinesis_sequence")), late);
    w.intent("again", "sparse", |intent| intent["policy_revision"] = "other".into());
    w.intent("again", "again", |intent| intent["request_id"] = "sealed.sparse.again".into());
    w.run("again").refused(3, "SEALED_SEGMENT_CONFLICT");
}

#[test]
fn a_single_record_that_turns_up_after_sealing_is_held_against_its_segment() {
    let sealed = Workspace::flights();
    seal(&sealed);
    let altered = |partition: i32, offset: usize| {
        let folder = archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, partition, KIND);
        let flights = Workspace::flights();
        let record: Value = match partition {
            0 => flights.json(&format!("{folder}/offset={offset}.json")),
            _ => {
                let text = flights.text(&format!("{folder}/part-000000000000-000000000180.jsonl"));
                serde_json::from_str(text.lines().nth(offset).unwrap()).unwrap()
            }
        };
        let mut envelope = record["envelope"].clone();
        envelope["payload"]["amount"] = json!(987_654);
        let altered = archive_record(FLIGHTS_TOPIC, partition, KIND, &offset.to_string(), &envelope);
        (format!("{folder}/offset={offset}.json"), record.to_string(), altered.to_string())
    };
    // Beside a file of lines that was sealed; and where the single records that were sealed are gone.
    let (path, record, other) = altered(1, 10);
    let w = Workspace::copy_of(&sealed);
    w.write(&path, &record);
    w.build("train");
    let w = Workspace::copy_of(&sealed);
    w.write(&path, &other);
    w.run("train").refused(3, "SEALED_SEGMENT_CONFLICT");
    let (path, _, other) = altered(0, 10);
    let w = Workspace::copy_of(&sealed);
    fs::remove_dir_all(w.path(&archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 0, KIND))).unwrap();
    w.write(&path, &other);
    w.run("train").refused(3, "SEALED_SEGMENT_CONFLICT");
}

#[test]
fn a_single_record_in_the_place_of_another_is_held_against_its_segment() {
    let sealed = Workspace::flights();
    let folder = archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, KIND);
    let path = files(&sealed.path(&folder)).into_iter().next().unwrap();
    let records: Vec<Value> = fs::read_to_string(&path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    fs::remove_file(path).unwrap();
    let single = |offset: usize| format!("{folder}/offset={offset}.json");
    sealed.write(&format!("{folder}/first.jsonl"), lines(&records[..90]));
    for (offset, record) in records.iter().enumerate().skip(90) {
        sealed.write(&single(offset), record.to_string());
    }
    seal(&sealed);
    let named = format!("{}/segment-0-180.json", sealed_folder(1, KIND));
    let mut sidecar = sealed.json(&named);
    assert_eq!((&sidecar["single_files"], &sidecar["single_ranges"]), (&json!(91), &json!([{"start_offset": "90", "end_offset": "180"}])));
    // As revision 1 wrote it, which only counted the single records.
    sidecar.as_object_mut().unwrap().remove("single_ranges");
    sidecar["writer_revision"] = "1".into();
    let before = Workspace::copy_of(&sealed);
    before.write(&named, sidecar.to_string());
    let mut envelope = records[10]["envelope"].clone();
    envelope["payload"]["amount"] = json!(987_654);
    let other = archive_record(FLIGHTS_TOPIC, 1, KIND, "10", &envelope).to_string();
    for (what, sealed) in [("named", &sealed), ("counted", &before)] {
        let w = Workspace::copy_of(sealed);
        w.build("train");
        let w = Workspace::copy_of(sealed);
        fs::remove_file(w.path(&single(150))).unwrap();
        w.build("train");
        let w = Workspace::copy_of(sealed);
        fs::remove_file(w.path(&single(150))).unwrap();
        w.write(&single(10), records[10].to_string());
        w.build("train");
        // The same number of files as was sealed, and one of them says otherwise than the segment.
        let w = Workspace::copy_of(sealed);
        fs::remove_file(w.path(&single(150))).unwrap();
        w.write(&single(10), &other);
        let refused = w.run("train").refused(3, "SEALED_SEGMENT_CONFLICT").json();
        assert!(refused["reason"]["evidence"][0].as_str().unwrap().contains("/1 offset 10:"), "{what}: {refused}");
        w.assert_nothing_published(FLIGHTS_RUN);
        let report = w.ofs(&["archive", "seal", "--json"]).expect(3).json();
        assert_eq!(report["lanes"][1]["reason"]["code"], "SEALED_SEGMENT_CONFLICT", "{what}: {report}");
    }
}

#[test]
fn a_dense_gap_is_lawful_where_it_is_attested() {
    let w = Workspace::flights();
    let path = files(&w.path(&archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, KIND))).into_iter().next().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let kept: String = text.lines().enumerate().filter(|(i, _)| *i != 100).map(|(_, l)| format!("{l}\n")).collect();
    fs::write(&path, kept).unwrap();
    seal(&w);
    w.run("train").refused(3, "REPLAY_INCOMPLETE");
    w.write("attest.json", json!([attestation(1, KIND, 50, 150, 100)]).to_string());
    let report = w.ofs(&["archive", "seal", "--attest", w.path("attest.json").to_str().unwrap(), "--json"]).expect(0).json();
    assert_eq!(report["lanes"][1]["segments"][0]["records"], 0);
    assert_eq!(w.build("train")["dataset"]["rows"], 841);
}

#[test]
fn what_contradicts_itself_is_not_sealed() {
    let edit = |change: &dyn Fn(&mut Vec<Value>)| {
        let w = Workspace::flights();
        let path = files(&w.path(&archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 1, KIND))).into_iter().next().unwrap();
        let mut records: Vec<Value> = fs::read_to_string(&path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        change(&mut records);
        fs::write(&path, lines(&records)).unwrap();
        let output = w.ofs(&["archive", "seal", "--json"]).expect(3);
        let report = output.json();
        assert_eq!(outcomes(&report), ["SEALED", "REFUSED", "SEALED", "SEALED"]);
        assert!(!w.path(&sealed_folder(1, KIND)).exists());
        report["lanes"][1]["reason"]["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(edit(&|r| r[9]["envelope"]["payload"]["amount"] = json!(999)), "PAYLOAD_HASH_MISMATCH");
    assert_eq!(
        edit(&|r| {
            let (mut copy, offset) = (r[9].clone(), r[8]["origin_offset"].clone());
            copy["origin_offset"] = offset;
            r.push(copy);
        }),
        "REPLAY_DUPLICATE_OFFSET_MISMATCH"
    );
    assert_eq!(edit(&|r| r[9]["envelope"]["platform_run_id"] = json!("platform_20140101T000000Z")), "RUN_SCOPE_INVALID");
}

// ---- mishaps ----

/// One small lane, sealed in three pieces, since its writer attested the one in the middle.
fn small() -> (Workspace, Vec<Attestation>) {
    let w = Workspace::flights();
    for partition in [0, 1, 2] {
        fs::remove_dir_all(w.path(&archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, partition, KIND))).unwrap();
    }
    let path = files(&w.path(&archive_folder(FLIGHTS_RUN, FLIGHTS_TOPIC, 3, KIND))).into_iter().next().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.lines().take(40).map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    let list = [(10, 29)].map(|(from, to)| attestation(3, KIND, from, to, to - from + 1));
    (w, seal::parse_attestations(json!(list).to_string().as_bytes()).unwrap())
}

/// Every segment that exists is whole.
fn lawful(w: &Workspace, case: &str) {
    for path in files(&w.path(&format!("store/{FLIGHTS_RUN}/ofs"))).into_iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let sidecar: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let bytes = fs::read(path.with_file_name(sidecar["file"]["path"].as_str().unwrap())).unwrap();
        assert_eq!(sidecar["file"]["blake3"], blake3_hex(&bytes), "{case}: {}", path.display());
    }
}

fn every_operation(mishap: Mishap) -> u64 {
    let (undisturbed, attestations) = small();
    let run = |w: &Workspace, trap: Option<&Arc<Trap>>| -> Option<Result<u64, Refusal>> {
        let clean = store_of(&w.root());
        let env = environment(&w.root(), trap.map_or(clean.clone(), |trap| trap.store(clean)));
        until_killed(|| {
            seal::seal(&env, FLIGHTS_RUN, &attestations).map(|report| {
                assert!(report.refusal().is_none(), "{:?}", report.refusal());
                report.records()
            })
        })
    };
    assert_eq!(run(&undisturbed, None).unwrap().unwrap(), 40);
    let ofs = format!("store/{FLIGHTS_RUN}/ofs");
    let wanted = undisturbed.tree(&ofs);
    assert_eq!(wanted.len(), 2 * 3, "{:?}", wanted.keys());
    for at in 1.. {
        let (w, _) = small();
        let trap = Arc::new(Trap::new(Site::Store, mishap, at));
        let first = run(&w, Some(&trap));
        if !trap.sprung() {
            first.unwrap().unwrap();
            return at - 1;
        }
        let case = format!("{mishap:?} at {at}");
        lawful(&w, &case);
        run(&w, None).unwrap().unwrap_or_else(|e| panic!("{case}: {e:?}"));
        assert_eq!(w.tree(&ofs).keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "{case}");
        assert!(w.tree(&ofs) == wanted, "{case}");
    }
    unreachable!("the loop ends at a sealing that its mishap did not meet")
}

#[test]
fn sealing_comes_out_the_same_after_a_mishap_at_any_store_operation() {
    for mishap in Mishap::OF_STORE {
        let points = every_operation(mishap);
        println!("{points} operations with {mishap:?}");
        assert!(points >= 10, "{mishap:?}: {points}");
    }
}
