//! No link leads out of a root, whichever log it lies in.

use super::*;

#[cfg(unix)]
#[test]
fn links_that_leave_the_root_are_refused() {
    use std::os::unix::fs::symlink;
    let here = lane(OffsetKind::FileLine);
    let denied = |log: &dyn EventLog| {
        assert_eq!(log.bounds(&here).unwrap_err().code, ReasonCode::RefAccessDenied);
        assert_eq!(log.chunks(&here, &all()).unwrap_err().code, ReasonCode::RefAccessDenied);
    };

    // The bus: the partition, its meta file, the whole topic.
    let (outside, _log) = bus_of(&here, line(0).as_bytes(), Some("{}"));
    let there = outside.path().join(TOPIC);
    for linked in ["partition=0.jsonl", "partition=0.meta.json", ""] {
        let dir = tempfile::tempdir().unwrap();
        let topic = dir.path().join(TOPIC);
        if linked.is_empty() {
            symlink(&there, &topic).unwrap();
        } else {
            fs::create_dir(&topic).unwrap();
            fs::write(topic.join("partition=0.jsonl"), line(0)).unwrap();
            let _ = fs::remove_file(topic.join(linked));
            symlink(there.join(linked), topic.join(linked)).unwrap();
        }
        denied(&FileBus::open(dir.path()).unwrap());
    }

    // The archive: one record, one file of lines, the whole lane.
    let record = Spec::event(off(0)).archived(&here);
    let (outside, _log) = archive_of(&here, &[("offset=0.json".into(), record.clone()), ("a.jsonl".into(), record)]);
    let there = archive_folder(outside.path(), &here);
    for linked in ["offset=0.json", "a.jsonl", ""] {
        let dir = tempfile::tempdir().unwrap();
        let folder = archive_folder(dir.path(), &here);
        if linked.is_empty() {
            fs::create_dir_all(folder.parent().unwrap()).unwrap();
            symlink(&there, &folder).unwrap();
        } else {
            fs::create_dir_all(&folder).unwrap();
            symlink(there.join(linked), folder.join(linked)).unwrap();
        }
        denied(&Archive::new(Arc::new(LocalStore::open(dir.path()).unwrap()), RUN));
    }

    // A link that stays inside is a file like any other.
    let (dir, log) = archive_of(&here, &[("kept".into(), Spec::event(off(0)).archived(&here))]);
    let folder = archive_folder(dir.path(), &here);
    symlink(folder.join("kept"), folder.join("offset=0.json")).unwrap();
    assert_eq!(read(log.as_ref(), &here, &all(), true), [Spec::event(off(0)).delivered()]);
}

#[cfg(unix)]
#[test]
fn a_link_made_after_the_pieces_were_cut_is_refused_too() {
    let here = lane(OffsetKind::FileLine);
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    fs::write(&secret, line(0)).unwrap();
    for form in &FORMS {
        let (dir, log) = (form.make)(&here, &[Spec::event(off(0)), Spec::event(off(1))]);
        let ranges = all();
        let scope = ReadScope { platform_run_id: RUN, lane: &here, ranges: &ranges, verify: true, needs: Needs::Envelope };
        for chunk in log.chunks(&here, &ranges).unwrap() {
            let file = dir.path().join(&chunk.files[0].place);
            fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink(&secret, &file).unwrap();
            let error = log.read(&chunk, scope, &mut Decoder::new(), &mut |d| panic!("{d:?}")).unwrap_err();
            assert_eq!(error.code, ReasonCode::RefAccessDenied, "{}", form.name);
        }
    }
}
