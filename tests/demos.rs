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
fn a_stored_run_is_played_into_the_same_recording_every_time() {
    let w = Workspace::flights();
    let run = w.build("train")["run_key"].as_str().unwrap().to_owned();
    let path = |file: &str| w.root().with_file_name(file).to_str().unwrap().to_owned();
    let record = |file: &str| w.ofs(&["console", "--run", &run[..8], "--play", "4", "--record", &path(file)]);
    record("one.cast").expect(0);
    record("two.cast").expect(0);
    assert_eq!(w.text(&path("one.cast")), w.text(&path("two.cast")));
    let (header, events) = cast(&w, &path("one.cast"));
    assert_eq!((&header["version"], &header["width"]), (&Value::from(2), &Value::from(120)));
    let shown = screen(&header, &events);
    assert!(shown.contains("AS OF #") && shown.contains("DONE") && shown.contains("RUN_DONE"), "{shown}");
    let first = screen(&header, &events[..1]);
    assert!(first.contains("AS OF #1 ") && first.contains("PLAYING 4x") && !first.contains("COMPLETE"), "{first}");
    for (args, told) in [
        (&["--run", &run, "--play", "4", "--record", &path("one.cast")][..], "is there; nothing was written"),
        (&["--play", "4"], "--run"),
        (&["--run", &run, "--record", "f"], "--play"),
        (&["--run", &run, "--play", "0", "--record", "f"], "expected a number"),
        (&["--run", "nothing", "--play", "1", "--record", "f"], "nothing"),
    ] {
        let refused = w.ofs(&[&["console"], args].concat()).expect(2);
        assert!(refused.err.contains(told), "{args:?}: {}", refused.err);
    }
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

/// A program on a terminal of its own.
#[cfg(unix)]
mod on_a_terminal {
    use std::io::{Read, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

    use crate::support::{Workspace, wait_for};

    const PATIENCE: Duration = Duration::from_secs(30);
    const TRAIN: &str = "nycflights13.train.2013-01-01.2013-01-02";

    struct Terminal {
        screen: Arc<Mutex<vt100::Parser>>,
        keys: Box<dyn Write + Send>,
        child: Box<dyn Child + Send + Sync>,
        _master: Box<dyn MasterPty + Send>,
    }

    impl Terminal {
        fn start(w: &Workspace, args: &[&str]) -> Self {
            let size = PtySize { rows: 40, cols: 150, ..PtySize::default() };
            let pair = native_pty_system().openpty(size).unwrap();
            let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_ofs"));
            command.args(args);
            command.env_clear();
            let home = w.scratch();
            for (name, value) in [("PATH", "/usr/bin:/bin"), ("TERM", "xterm-256color"), ("LANG", "C.UTF-8")] {
                command.env(name, value);
            }
            for name in ["HOME", "TMPDIR"] {
                command.env(name, &home);
            }
            command.env("OFS_WORKSPACE", w.root());
            command.cwd(&home);
            let child = pair.slave.spawn_command(command).unwrap();
            drop(pair.slave);
            let screen = Arc::new(Mutex::new(vt100::Parser::new(40.try_into().unwrap(), 150.try_into().unwrap(), 0)));
            let (mut reader, shown) = (pair.master.try_clone_reader().unwrap(), screen.clone());
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(n @ 1..) = reader.read(&mut bytes) {
                    shown.lock().unwrap().process(&bytes[..n]);
                }
            });
            Terminal { screen, keys: pair.master.take_writer().unwrap(), child, _master: pair.master }
        }

        fn text(&self) -> String {
            self.screen.lock().unwrap().screen().contents()
        }

        fn wait(&self, text: &str) {
            wait_for(text, PATIENCE, || self.text().contains(text));
        }

        fn press(&mut self, keys: &str) {
            self.keys.write_all(keys.as_bytes()).unwrap();
            self.keys.flush().unwrap();
        }

        fn exit(&mut self) -> u32 {
            let mut status = None;
            wait_for("the end", PATIENCE, || {
                status = self.child.try_wait().unwrap();
                status.is_some()
            });
            status.unwrap().exit_code()
        }
    }

    impl Drop for Terminal {
        fn drop(&mut self) {
            let _ = self.child.kill();
        }
    }

    #[test]
    fn step_mode_asks_at_each_gate_and_shows_what_was_proved() {
        let w = Workspace::flights();
        let mut t = Terminal::start(&w, &["run", w.path("intents/train.json").to_str().unwrap(), "--step"]);
        t.wait("to look at: pins");
        t.wait("Enter: go on");
        let row = w.row(TRAIN);
        assert_eq!(row["status"], "RUNNING");
        assert_eq!(w.event_types(TRAIN).last().map(String::as_str), Some("RUN_PAUSED"));
        t.press("\r");
        t.wait("to look at: events, pins");
        t.press("l events 0/17\r");
        t.wait("1 of 1 that fit");
        t.press("what\r");
        t.wait("means nothing here");
        t.press("e\r");
        t.wait("DONE (NEW)");
        assert_eq!(t.exit(), 0);
        let story = w.event_types(TRAIN);
        assert_eq!(story.iter().filter(|e| *e == "RUN_PAUSED").count(), 2, "{story:?}");
    }

    #[test]
    fn an_input_that_ends_hands_the_run_back_and_a_signal_does_at_once() {
        for (keys, signal) in [("\u{4}", "NOBODY_ASKED"), ("\u{3}", "INT")] {
            let w = Workspace::flights();
            let mut t = Terminal::start(&w, &["run", w.path("intents/train.json").to_str().unwrap(), "--step"]);
            t.wait("Enter: go on");
            t.press(keys);
            assert_eq!(t.exit(), 130, "{}", t.text());
            assert_eq!(w.row(TRAIN)["status"], "QUEUED");
            assert_eq!(w.events(TRAIN).last().unwrap()["detail"]["signal"], signal);
        }
    }

    #[test]
    fn the_menu_plays_a_demo_and_gives_the_terminal_back() {
        let w = Workspace::empty();
        let listed = w.ofs(&["demo", "--list", "--json"]).expect(0).json();
        let place = listed["scenarios"].as_array().unwrap().iter().position(|s| s["name"] == "archive-gap").unwrap();
        let mut t = Terminal::start(&w, &["demo", "--pace", "1000"]);
        t.wait("archive-gap");
        assert!(t.screen.lock().unwrap().screen().alternate_screen());
        t.press(&"j".repeat(place));
        t.wait("> archive-gap");
        t.press("\r");
        wait_for("the menu again", PATIENCE, || {
            let text = t.text();
            text.contains("archive-gap: every expectation held") && text.contains("Enter show")
        });
        t.press("q");
        assert_eq!(t.exit(), 0);
        wait_for("the screen of before", PATIENCE, || !t.screen.lock().unwrap().screen().alternate_screen());
        let left: Vec<_> = std::fs::read_dir(w.scratch()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn space_stops_a_demo_until_it_is_let_go() {
        let w = Workspace::empty();
        let out = w.path("kept");
        let mut t = Terminal::start(&w, &["demo", "late-label", "--out", out.to_str().unwrap(), "--pace", "0.05"]);
        t.wait("demo late-label  1");
        t.press(" ");
        t.wait("PAUSED: look around");
        t.press("?");
        t.wait("j/k scroll");
        t.press("\u{1b}");
        wait_for("the help to go", PATIENCE, || !t.text().contains("j/k scroll"));
        t.press("\r");
        t.wait("demo late-label  2");
        t.press("\u{3}");
        assert_eq!(t.exit(), 130);
    }
}
