//! `ofs demo` without a terminal: recordings, their pace, and what a mask hides.

use serde_json::Value;

use crate::support::Workspace;

/// The header and the events of a recording.
fn cast(w: &Workspace, name: &str) -> (Value, Vec<(f64, String)>) {
    let text = w.text(name);
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let header = lines.next().unwrap();
    let events = lines.map(|event| (event[0].as_f64().unwrap(), event[2].as_str().unwrap().to_owned())).collect();
    (header, events)
}

/// What a terminal shows at the end of a recording.
fn screen(header: &Value, events: &[(f64, String)]) -> String {
    let size = |key: &str| u16::try_from(header[key].as_u64().unwrap()).unwrap().try_into().unwrap();
    let mut vt = vt100::Parser::new(size("height"), size("width"), 0);
    events.iter().for_each(|(_, text)| vt.process(text.as_bytes()));
    vt.screen().contents()
}

fn record(w: &Workspace, scenario: &str, file: &str, more: &[&str]) -> crate::support::Output {
    let file = w.path(file);
    let args = ["demo", scenario, "--headless", "--record", file.to_str().unwrap()];
    let mut command = w.command(&[&args, more].concat());
    command.env("USER", "marguerite").env("HOSTNAME", "workstation-7");
    let output = command.output().unwrap();
    crate::support::Output {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_recording_is_an_asciicast_that_ends_with_the_refusal_and_the_next_step() {
    let w = Workspace::empty();
    record(&w, "archive-gap", "a.cast", &[]).expect(0);
    let (header, events) = cast(&w, "a.cast");
    assert_eq!((&header["version"], &header["width"]), (&Value::from(2), &Value::from(100)));
    assert!(events.len() > 5 && events.is_sorted_by(|a, b| a.0 <= b.0));
    let shown = screen(&header, &events);
    assert!(shown.contains("next:") && shown.contains("FAILED") && shown.contains("REPLAY_INCOMPLETE"), "{shown}");
    let first = screen(&header, &events[..events.len() / 2]);
    assert!(first.contains("demo archive-gap"), "{first}");
    // Nothing that is there is replaced, and nothing is played for it.
    let again = record(&w, "archive-gap", "a.cast", &[]).expect(2);
    assert!(again.err.contains("nothing was written"), "{}", again.err);
}

#[test]
fn a_pace_scales_the_time_and_nothing_else() {
    let w = Workspace::empty();
    let texts = [("1", "one.cast"), ("10", "ten.cast")].map(|(speed, file)| {
        record(&w, "late-label", file, &["--pace", speed]).expect(0);
        cast(&w, file).1
    });
    let last = |events: &[(f64, String)]| events.last().unwrap().0;
    assert!((last(&texts[0]) / last(&texts[1]) - 10.0).abs() < 0.01);
    let what = |events: &[(f64, String)]| events.iter().map(|e| e.1.clone()).collect::<Vec<_>>();
    assert_eq!(what(&texts[0]), what(&texts[1]));
    for bad in ["0", "fast"] {
        record(&w, "late-label", "bad.cast", &["--pace", bad]).expect(2);
    }
    assert!(!w.path("bad.cast").exists());
}

#[test]
fn a_mask_hides_host_and_user_on_screen_in_recordings_and_in_what_is_printed() {
    let w = Workspace::empty();
    let out = w.path("marguerite-workstation-7");
    let more = ["--mask", "--out", out.to_str().unwrap()];
    let plain = record(&w, "run-busy", "m.cast", &more).expect(0);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let text = w.text("m.cast");
    for hidden in ["marguerite", "workstation-7", host.trim()].into_iter().filter(|word| word.len() > 2) {
        assert!(!plain.out.contains(hidden) && !text.contains(hidden), "{hidden}: {}", plain.out);
    }
    assert!(plain.out.contains("**********-*************"), "{}", plain.out);
}

#[test]
fn without_a_terminal_there_is_no_menu() {
    let w = Workspace::empty();
    let said = w.ofs(&["demo"]).expect(2);
    assert!(said.err.contains("--headless") && said.err.contains("--list"), "{}", said.err);
    w.ofs(&["demo", "--record", "x.cast"]).expect(2);
}
