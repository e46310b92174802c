//! What is particular to the file bus.

use super::*;

fn bus_reads(text: &[u8], meta: Option<&str>) -> Vec<Seen> {
    let lane = lane(OffsetKind::FileLine);
    let (_dir, log) = bus_of(&lane, text, meta);
    read(log.as_ref(), &lane, &all(), true)
}

#[test]
fn bus_offsets_are_the_base_and_the_line() {
    let text = line(0) + &line(1);
    assert_eq!(bus_reads(text.as_bytes(), None), whole(&[Spec::event(off(0)), Spec::event(off(1))]));
    assert_eq!(bus_reads(text.as_bytes(), Some("{}")), whole(&[Spec::event(off(0)), Spec::event(off(1))]));
    for meta in [r#"{"base_offset":40}"#, r#"{"base_offset":"0040","offset_kind":"file_line","more":[]}"#] {
        let moved = |n: u64| Spec { offset: off(40 + n), ..Spec::event(off(n)) }.delivered();
        assert_eq!(bus_reads(text.as_bytes(), Some(meta)), [moved(0), moved(1)]);
        let (_dir, log) = bus_of(&lane(OffsetKind::FileLine), text.as_bytes(), Some(meta));
        assert_eq!(log.bounds(&lane(OffsetKind::FileLine)).unwrap(), Bounds { retained_from: Some(off(40)), ..Bounds::default() });
        assert_eq!(log.chunks(&lane(OffsetKind::FileLine), &ranges(&[(0, 39)])).unwrap(), []);
    }
}

#[test]
fn bus_of_another_offset_kind_serves_nothing() {
    let (_dir, log) = bus_of(&lane(OffsetKind::FileLine), line(0).as_bytes(), Some(r#"{"offset_kind":"kafka_offset"}"#));
    assert_eq!(log.chunks(&lane(OffsetKind::FileLine), &all()).unwrap(), []);
    assert_eq!(log.bounds(&lane(OffsetKind::FileLine)).unwrap(), Bounds::default());
    assert_eq!(read(log.as_ref(), &lane(OffsetKind::KafkaOffset), &all(), true).len(), 1);
    let (_dir, log) = bus_of(&lane(OffsetKind::FileLine), line(0).as_bytes(), None);
    assert_eq!(log.chunks(&lane(OffsetKind::KafkaOffset), &all()).unwrap(), []);
}

#[test]
fn bus_meta_that_says_nothing_certain_is_an_error() {
    for meta in [
        "",
        "[]",
        "{",
        r#"{"base_offset":-1}"#,
        r#"{"base_offset":1.5}"#,
        r#"{"base_offset":null}"#,
        r#"{"base_offset":"x"}"#,
        r#"{"offset_kind":"pulsar"}"#,
        r#"{"base_offset":1,"base_offset":2}"#,
    ] {
        let (_dir, log) = bus_of(&lane(OffsetKind::FileLine), line(0).as_bytes(), Some(meta));
        assert_eq!(log.bounds(&lane(OffsetKind::FileLine)).unwrap_err().code, ReasonCode::SourceIo, "{meta}");
        assert_eq!(log.chunks(&lane(OffsetKind::FileLine), &all()).unwrap_err().code, ReasonCode::SourceIo, "{meta}");
    }
}

#[test]
fn bus_lines_keep_their_offsets_whatever_they_hold() {
    let text = [b"\n  \t\r\n".as_slice(), line(2).as_bytes(), b"\xff\xfe\n{\n", line(5).trim_end().as_bytes(), b"\r\n"].concat();
    let lost = |n| fault(off(n), ReasonCode::DecodeError);
    let mut wanted = vec![lost(0), lost(1), Spec::event(off(2)).delivered(), lost(3), lost(4), Spec::event(off(5)).delivered()];
    wanted.sort();
    assert_eq!(bus_reads(&text, None), wanted);
}

#[test]
fn bus_line_without_its_line_feed_does_not_exist_yet() {
    let wanted = [Spec::event(off(0)).delivered()];
    for tail in [line(1).trim_end(), "{\"payl", " "] {
        assert_eq!(bus_reads((line(0) + tail).as_bytes(), None), wanted, "{tail}");
    }
    assert_eq!(bus_reads(line(0).trim_end().as_bytes(), None), []);
    assert_eq!(bus_reads(b"", None), []);
}

#[test]
fn bus_line_over_the_limit_is_a_fault_once_it_is_ended() {
    let long = vec![b' '; MAX_TEXT + 1];
    let text = [&long, b"\n".as_slice(), line(1).as_bytes(), &long].concat();
    let mut wanted = vec![fault(off(0), ReasonCode::DecodeError), Spec::event(off(1)).delivered()];
    wanted.sort();
    assert_eq!(bus_reads(&text, None), wanted);
    let padded = |blanks: usize| [line(0).trim_end().as_bytes(), &b" ".repeat(blanks), b"\n"].concat();
    let room = MAX_TEXT - line(0).trim_end().len();
    assert_eq!(bus_reads(&padded(room), None), [Spec::event(off(0)).delivered()]);
    assert_eq!(bus_reads(&padded(room + 1), None), [fault(off(0), ReasonCode::DecodeError)]);
}

#[test]
fn bus_hash_is_verified_whenever_it_is_there() {
    let with_hash = |hash: &str| Spec::event(off(0)).published().replacen('{', &format!("{{\"payload_hash\":{hash},"), 1) + "\n";
    assert_eq!(bus_reads(with_hash("null").as_bytes(), None), [Spec::event(off(0)).delivered()]);
    for hash in ["5", "[]", "\"\"", "true"] {
        assert_eq!(bus_reads(with_hash(hash).as_bytes(), None), [fault(off(0), ReasonCode::PayloadHashMismatch)], "{hash}");
    }
}

#[test]
fn bus_without_a_root_serves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = FileBus::open(&dir.path().join("nowhere")).unwrap();
    assert_eq!(log.source(), Source::Bus);
    assert_eq!(log.bounds(&lane(OffsetKind::FileLine)).unwrap(), Bounds::default());
    assert_eq!(log.chunks(&lane(OffsetKind::FileLine), &all()).unwrap(), []);
}

#[test]
fn bus_whose_retention_moves_under_a_reader_is_an_error() {
    let lane = lane(OffsetKind::FileLine);
    let (dir, log) = bus_of(&lane, (line(0) + &line(1)).as_bytes(), Some(r#"{"base_offset":0}"#));
    let ranges = all();
    let chunks = log.chunks(&lane, &ranges).unwrap();
    fs::write(dir.path().join(TOPIC).join("partition=0.jsonl"), line(1)).unwrap();
    fs::write(dir.path().join(TOPIC).join("partition=0.meta.json"), r#"{"base_offset":1}"#).unwrap();
    let scope = ReadScope { platform_run_id: RUN, lane: &lane, ranges: &ranges, verify: true, needs: Needs::Envelope };
    let error = log.read(&chunks[0], scope, &mut Decoder::new(), &mut |_| ControlFlow::Continue(())).unwrap_err();
    assert_eq!(error.code, ReasonCode::SourceIo);
}
