//! What is particular to sealed segments.

use super::*;

#[test]
fn sealed_segments_stand_for_the_whole_archive_and_for_nothing_that_is_new() {
    for kind in [OffsetKind::KafkaOffset, OffsetKind::KinesisSequence] {
        let (lane, specs): (Lane, Vec<Spec>) = (lane(kind), (0..10).map(|n| Spec::event(off(n * 3))).collect());
        let (dir, log) = sealed(&lane, &specs);
        let places = |log: &dyn EventLog| -> Vec<bool> {
            log.chunks(&lane, &all()).unwrap().iter().map(|c| c.place().contains("/ofs/sealed/")).collect()
        };
        assert_eq!(places(log.as_ref()), [true], "{kind}");
        assert_eq!(
            read(log.as_ref(), &lane, &all(), true),
            {
                let mut w = whole(&specs);
                w.sort();
                w
            },
            "{kind}"
        );
        // A file of lines that grew and a new file are read; a segment that is gone hands back what it stood for.
        let folder = archive_folder(dir.path(), &lane);
        let grown = fs::read_to_string(folder.join("second.jsonl")).unwrap() + "\n" + &Spec::event(off(100)).archived(&lane);
        fs::write(folder.join("second.jsonl"), grown).unwrap();
        fs::write(folder.join("offset=101.json"), Spec::event(off(101)).archived(&lane)).unwrap();
        let again = || {
            let store: Arc<dyn crate::store::Store> = Arc::new(LocalStore::open(dir.path()).unwrap());
            let sealed = Sealed::new(store.clone(), RUN);
            Together { archive: Archive::new(store, RUN).beside(sealed.index()), sealed }
        };
        let ids = |log: &dyn EventLog| -> BTreeSet<Seen> { read(log, &lane, &all(), true).into_iter().collect() };
        let wanted: BTreeSet<Seen> = whole(&specs).into_iter().chain([100, 101].map(|n| Spec::event(off(n)).delivered())).collect();
        assert_eq!(ids(&again()), wanted, "{kind}");
        let sidecar = files_below(&dir.path().join(RUN).join("ofs/sealed")).into_iter().find(|p| p.extension().unwrap() == "json").unwrap();
        fs::remove_file(sidecar).unwrap();
        assert_eq!(ids(&again()), wanted, "{kind}");
        assert!(places(&again()).iter().all(|sealed| !sealed), "{kind}");
    }
}

#[test]
fn single_files_are_skipped_only_where_they_are_those_that_were_sealed() {
    for kind in [OffsetKind::KafkaOffset, OffsetKind::KinesisSequence] {
        let (lane, specs): (Lane, Vec<Spec>) = (lane(kind), (0..10).map(|n| Spec::event(off(n * 3))).collect());
        let (dir, _log) = sealed(&lane, &specs);
        let folder = archive_folder(dir.path(), &lane);
        let (remove, add) = (
            |n: u64| fs::remove_file(folder.join(format!("offset={n}.json"))).unwrap(),
            |n: u64| fs::write(folder.join(format!("offset={n}.json")), Spec::event(off(n)).archived(&lane)).unwrap(),
        );
        let read = || -> Vec<String> {
            let store: Arc<dyn crate::store::Store> = Arc::new(LocalStore::open(dir.path()).unwrap());
            let archive = Archive::new(store.clone(), RUN).beside(Sealed::new(store, RUN).index());
            let files = archive.chunks(&lane, &all()).unwrap().into_iter().flat_map(|chunk| chunk.files);
            files.map(|file| file.place.rsplit('/').next().unwrap().to_owned()).collect()
        };
        let names = |offsets: &[u64]| -> Vec<String> { offsets.iter().map(|n| format!("offset={n}.json")).collect() };
        assert_eq!(read(), names(&[]), "{kind}");
        // One is gone: of a dense kind, what is left may be what came after it.
        remove(27);
        assert_eq!(read(), if kind.dense() { names(&[3, 9, 15, 21]) } else { names(&[]) }, "{kind}");
        // As many as before, but another one, which lay in a file of lines; and one at an offset without a record.
        for stranger in [12, 13] {
            add(stranger);
            assert_eq!(read(), names(&[3, 9, stranger, 15, 21]), "{kind}");
            remove(stranger);
        }
        add(27);
        assert_eq!(read(), names(&[]), "{kind}");
        // Revision 1 only counted them.
        let file = files_below(&dir.path().join(RUN).join("ofs/sealed")).into_iter().find(|p| p.extension().unwrap() == "parquet").unwrap();
        edit(&file, |s| _ = s.as_object_mut().unwrap().remove("single_ranges").unwrap());
        assert_eq!(read(), names(&[3, 9, 15, 21, 27]), "{kind}");
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|p| if p.is_dir() { files_below(&p) } else { vec![p] }).collect()
}

#[test]
fn a_sealed_segment_is_refused_unless_it_is_what_its_sidecar_says() {
    let (lane, specs): (Lane, Vec<Spec>) = (lane(OffsetKind::KafkaOffset), (0..10).map(|n| Spec::event(off(n))).collect());
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 9] = [
        ("a flipped bit", |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes[200] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("a cut file", |file| fs::write(file, &fs::read(file).unwrap()[..100]).unwrap()),
        ("a longer file", |file| fs::write(file, [fs::read(file).unwrap(), vec![0]].concat()).unwrap()),
        ("no file", |file| fs::remove_file(file).unwrap()),
        ("a sidecar that is none", |file| fs::write(file.with_extension("json"), "{}").unwrap()),
        ("a sidecar of another range", |file| edit(file, |s| s["end_offset"] = json!("12"))),
        ("a sidecar that counts wrongly", |file| edit(file, |s| s["records"] = json!(9))),
        ("a sidecar that counts other single files than it names", |file| edit(file, |s| s["single_files"] = json!(6))),
        ("a sidecar that names single files out of order", |file| edit(file, |s| s["single_ranges"].as_array_mut().unwrap().reverse())),
    ];
    for (what, damage) in cases {
        let (dir, _log) = sealed(&lane, &specs);
        let file = files_below(&dir.path().join(RUN).join("ofs/sealed")).into_iter().find(|p| p.extension().unwrap() == "parquet").unwrap();
        damage(&file);
        let log = Sealed::new(Arc::new(LocalStore::open(dir.path()).unwrap()), RUN);
        let ranges = all();
        let scope = ReadScope { platform_run_id: RUN, lane: &lane, ranges: &ranges, verify: false, needs: Needs::Fields(&[]) };
        let mut delivered = 0;
        let read = log.chunks(&lane, &ranges).and_then(|chunks| {
            chunks.iter().try_for_each(|c| {
                log.read(c, scope, &mut Decoder::new(), &mut |_| {
                    delivered += 1;
                    ControlFlow::Continue(())
                })
            })
        });
        let error = read.unwrap_err();
        assert_eq!(error.code, ReasonCode::SealedSegmentInvalid, "{what}");
        assert!(error.message.contains("segment-0-9.parquet and ") && error.message.contains("ofs archive seal"), "{what}: {error}");
        assert_eq!(delivered, 0, "{what}");
    }
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let sidecar = file.with_extension("json");
    let mut value: Value = serde_json::from_slice(&fs::read(&sidecar).unwrap()).unwrap();
    change(&mut value);
    fs::write(sidecar, value.to_string()).unwrap();
}
