//! The console on a pseudo-terminal: what a person sees, and how the terminal is left behind.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::support::{FLIGHTS_RUN, Workspace, thorough, usage, wait_for, woken};

const PATIENCE: Duration = Duration::from_secs(60);

/// A console on a terminal of its own.
struct Tty {
    master: Option<Box<dyn MasterPty + Send>>,
    keys: Mutex<Option<Box<dyn Write + Send>>>,
    child: Box<dyn Child + Send + Sync>,
    seen: Arc<Mutex<Seen>>,
    reader: std::thread::JoinHandle<()>,
    deaf: Arc<AtomicBool>,
    /// The terminal's settings before the console took it.
    calm: String,
}

/// What came from it.
struct Seen {
    bytes: Vec<u8>,
    screen: vt100::Parser,
    reads: usize,
}

impl Tty {
    fn start(workspace: &Workspace, size: (u16, u16), args: &[&str], environment: &[(&str, &str)]) -> Self {
        let (cols, rows) = size;
        let pair = native_pty_system().openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).unwrap();
        let calm = format!("{:?}", pair.master.get_termios());
        let mut command = CommandBuilder::new(binary());
        command.env_clear();
        for (name, value) in [("TERM", "xterm-256color"), ("LANG", "C.UTF-8"), ("USER", "operator"), ("PATH", "/usr/bin:/bin")] {
            command.env(name, value);
        }
        command.env("HOME", workspace.root().parent().unwrap());
        environment.iter().for_each(|(name, value)| command.env(name, value));
        command.cwd(workspace.root());
        command.args(args);
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let screen = vt100::Parser::new(rows.try_into().unwrap(), cols.try_into().unwrap(), 0);
        let seen = Arc::new(Mutex::new(Seen { bytes: Vec::new(), screen, reads: 0 }));
        let (mut reader, told) = (pair.master.try_clone_reader().unwrap(), seen.clone());
        let deaf = Arc::new(AtomicBool::new(false));
        let closed = deaf.clone();
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                let mut seen = told.lock().unwrap();
                seen.bytes.extend_from_slice(&buffer[..n]);
                seen.screen.process(&buffer[..n]);
                seen.reads += 1;
                if closed.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        let keys = pair.master.take_writer().unwrap();
        Tty { master: Some(pair.master), keys: Mutex::new(Some(keys)), child, seen, reader, deaf, calm }
    }

    fn text(&self) -> String {
        self.seen.lock().unwrap().screen.screen().contents()
    }

    fn bytes(&self) -> usize {
        self.seen.lock().unwrap().bytes.len()
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().bytes).into_owned()
    }

    fn until(&self, text: &str) -> &Self {
        let began = Instant::now();
        while !self.text().contains(text) {
            assert!(began.elapsed() < PATIENCE, "{text} never came; the screen is\n{}", self.text());
            std::thread::sleep(Duration::from_millis(2));
        }
        self
    }

    fn gone(&self, text: &str) -> &Self {
        wait_for(text, PATIENCE, || !self.text().contains(text));
        self
    }

    fn press(&self, keys: &str) -> &Self {
        let mut keyboard = self.keys.lock().unwrap();
        let keyboard = keyboard.as_mut().unwrap();
        keyboard.write_all(keys.as_bytes()).unwrap();
        keyboard.flush().unwrap();
        self
    }

    fn signal(&self, name: &str) {
        let pid = self.child.process_id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for its end; the exit code and how long it took.
    fn end(&mut self) -> (u32, Duration) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.exit_code(), began.elapsed());
            }
            assert!(began.elapsed() < PATIENCE, "it does not end; the screen is\n{}", self.text());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Closes the line: whatever is typed last wakes the reader, which then lets go of its end, too.
    fn hang_up(&mut self) {
        self.hang_up_after("?");
    }

    fn hang_up_after(&mut self, key: &str) {
        self.deaf.store(true, Ordering::SeqCst);
        self.press(key);
        wait_for("the reader's end", PATIENCE, || self.reader.is_finished());
        (self.keys, self.master) = (Mutex::new(None), None);
    }

    /// The terminal's settings as they are now.
    fn termios(&self) -> String {
        format!("{:?}", self.master.as_ref().unwrap().get_termios())
    }

    /// Nothing more is written for a while.
    fn settle(&self) {
        let (mut bytes, mut since) = (self.bytes(), Instant::now());
        wait_for("a screen at rest", PATIENCE, || {
            if self.bytes() != bytes {
                (bytes, since) = (self.bytes(), Instant::now());
            }
            since.elapsed() > Duration::from_millis(700)
        });
    }

    /// The modes that a terminal must not be left in.
    fn restored(&self) {
        wait_for("the end of the alternate screen", PATIENCE, || self.raw().contains("\u{1b}[?1049l"));
        let raw = self.raw();
        for mode in ["\u{1b}[?25h", "\u{1b}[?2004l", "\u{1b}[?1000l", "\u{1b}[?1004l", "\u{1b}[?2026l"] {
            assert!(raw.rfind(mode) > raw.rfind("\u{1b}[?1049h"), "{mode:?} was not sent");
        }
        assert_eq!(self.termios(), self.calm, "the terminal has other settings than before");
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

#[test]
fn a_person_looks_around_and_leaves() {
    let workspace = Workspace::flights();
    workspace.build("train");
    let mut tty = Tty::start(&workspace, (80, 24), &[], &[]);
    tty.until("DONE").press("\r");
    tty.until("PASSED").press("2");
    tty.until("[2 replay]").press("?");
    tty.until("everywhere").press("q");
    tty.gone("everywhere").press("/zzz\r1");
    tty.press("qqqq");
    assert_eq!(tty.end().0, 0);
    tty.restored();
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let workspace = Workspace::empty();
    for args in [&[][..], &["console"]] {
        let output = workspace.ofs(args).expect(2);
        assert!(output.err.contains("needs a terminal") && output.err.contains("ofs runs"), "{}", output.err);
    }
    let mut dumb = Tty::start(&workspace, (80, 24), &["console"], &[("TERM", "dumb")]);
    assert_eq!(dumb.end().0, 2);
    assert!(!dumb.raw().contains('\u{1b}'), "{:?}", dumb.raw());
    let mut odd = Tty::start(&workspace, (80, 24), &["console", "--view", "nothing"], &[]);
    assert_eq!(odd.end().0, 2);
    odd.until("dashboard, runs, replay");
}

#[test]
fn keys_are_listed_moved_and_their_conflicts_named() {
    let workspace = Workspace::empty();
    let keys = workspace.ofs(&["keys", "--json"]).expect(0).json();
    assert_eq!(keys["schema_version"], "ofs.keys.v1");
    let quit = keys["keys"].as_array().unwrap().iter().find(|k| k["action"] == "quit").unwrap();
    assert_eq!(quit["keys"], serde_json::json!(["q"]));
    workspace.write("ofs.toml", "[console.keys]\nquit = \"Q\"\nmouse = \"\"\n");
    let keys = workspace.ofs(&["keys"]).expect(0).out;
    assert!(keys.lines().any(|l| l.starts_with("Q ") && l.contains("quit")) && keys.contains(":mouse"), "{keys}");
    workspace.write("ofs.toml", "[console.keys]\nhelp = \"q\"\n");
    let refused = workspace.ofs(&["keys"]).expect(2).err;
    assert!(refused.contains("help") && refused.contains("quit"), "{refused}");
}

#[test]
fn p11_every_way_out_gives_the_terminal_back_as_it_was() {
    let workspace = Workspace::empty();
    for (name, exit) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let mut tty = Tty::start(&workspace, (80, 24), &[], &[]);
        tty.until("no runs yet");
        assert_ne!(tty.termios(), tty.calm, "raw mode");
        tty.signal(name);
        let (code, took) = tty.end();
        assert_eq!(code, exit, "{name}");
        println!("{name}: gone after {took:?}");
        tty.restored();
    }
    for (keys, exit) in [("q", 0), ("\u{3}\u{3}", 130)] {
        let mut tty = Tty::start(&workspace, (80, 24), &[], &[]);
        tty.until("no runs yet").press(keys);
        assert_eq!(tty.end().0, exit, "{keys:?}");
        tty.restored();
    }
}

#[test]
fn the_last_screen_is_left_behind_where_that_is_wanted() {
    let workspace = Workspace::empty();
    for (args, left) in [(&["console", "--print-on-exit"][..], true), (&["console"], false)] {
        let mut tty = Tty::start(&workspace, (80, 24), args, &[]);
        tty.until("no runs yet").press("q");
        assert_eq!(tty.end().0, 0);
        tty.restored();
        let raw = tty.raw();
        let after = raw.rsplit_once("\u{1b}[?1049l").map(|(_, after)| after.to_owned()).unwrap_or_default();
        assert_eq!(after.contains("no runs yet"), left, "{after:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn p11_a_suspended_console_leaves_the_terminal_alone_and_comes_back() {
    let workspace = Workspace::empty();
    let mut tty = Tty::start(&workspace, (80, 24), &[], &[]);
    tty.until("no runs yet");
    let raw = tty.termios();
    let stat = format!("/proc/{}/stat", tty.child.process_id().unwrap());
    let stopped =
        || std::fs::read_to_string(&stat).is_ok_and(|s| s.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')));
    tty.press("\u{1a}");
    wait_for("the stop", PATIENCE, stopped);
    tty.restored();
    tty.signal("CONT");
    wait_for("raw mode again", PATIENCE, || tty.termios() == raw);
    tty.until("no runs yet").press("?");
    tty.until("everywhere").press("qq");
    assert_eq!(tty.end().0, 0);
    tty.restored();
}

#[test]
fn p12_a_terminal_that_goes_away_takes_the_console_with_it() {
    let workspace = Workspace::empty();
    let mut tty = Tty::start(&workspace, (80, 24), &[], &[]);
    tty.until("no runs yet");
    tty.hang_up();
    let (_, took) = tty.end();
    println!("gone {took:?} after the hang-up");
}

#[test]
fn a_demo_ends_with_its_terminal_and_at_a_signal() {
    let workspace = Workspace::empty();
    let mut tty = Tty::start(&workspace, (80, 24), &["demo", "--pace", "1000"], &[]);
    tty.until("archive-gap");
    tty.hang_up_after("j");
    tty.end();
    let mut tty = Tty::start(&workspace, (80, 24), &["demo", "--pace", "1000"], &[]);
    tty.until("archive-gap").signal("TERM");
    assert_eq!(tty.end().0, 143);
    tty.restored();
}

#[test]
fn p1_p9_an_idle_console_writes_nothing_and_sleeps() {
    let workspace = Workspace::flights();
    workspace.build("train");
    let tty = Tty::start(&workspace, (80, 24), &[], &[]);
    tty.until("DONE");
    tty.settle();
    let pid = tty.child.process_id().unwrap();
    let (before, bytes) = (usage(pid), tty.bytes());
    // The target speaks of ten seconds; a shorter look with the same rates keeps the suite short.
    let began = Instant::now();
    woken(pid, 10);
    let (after, seconds) = (usage(pid), began.elapsed().as_secs_f64());
    println!(
        "idle for {seconds:.1} s: {} bytes, {} ms of processor time, {} wake-ups",
        tty.bytes() - bytes,
        after.0 - before.0,
        after.1 - before.1
    );
    assert_eq!(tty.bytes(), bytes, "{}", tty.text());
    let (time, wakes) = ((after.0 - before.0) as f64 / seconds, (after.1 - before.1) as f64 / seconds);
    assert!(!thorough() || time <= 4.0 && wakes <= 2.8, "{time} ms and {wakes} wake-ups a second");
}

#[test]
fn p10_the_first_frame_comes_at_once_and_q_leaves_at_once() {
    let workspace = Workspace::flights();
    workspace.build("train");
    let times: Vec<(Duration, Duration)> = (0..3)
        .map(|_| {
            let began = Instant::now();
            let mut tty = Tty::start(&workspace, (80, 24), &[], &[]);
            tty.until("DONE");
            let first = began.elapsed();
            tty.press("q");
            let (code, left) = tty.end();
            assert_eq!(code, 0);
            (first, left)
        })
        .collect();
    let (first, left) = (times.iter().map(|t| t.0).min().unwrap(), times.iter().map(|t| t.1).min().unwrap());
    println!("first frame with its rows after {first:?}, prompt back after {left:?}");
    if thorough() {
        assert!(first < Duration::from_millis(150) && left < Duration::from_millis(100), "{first:?} {left:?}");
    }
}

#[test]
fn p13_no_colour_is_no_colour() {
    let workspace = Workspace::flights();
    workspace.build("train");
    let tty = Tty::start(&workspace, (80, 24), &[], &[("NO_COLOR", "1")]);
    tty.until("DONE");
    tty.settle();
    for sgr in tty.raw().split("\u{1b}[").skip(1).filter_map(|part| part.split_once('m')).map(|(sgr, _)| sgr) {
        if sgr.chars().all(|c| c.is_ascii_digit() || c == ';') {
            let fine = |n: &str| matches!(n.parse::<u8>(), Ok(0..=9 | 21..=29 | 39 | 49 | 59));
            assert!(sgr.split(';').all(fine), "ESC[{sgr}m");
        }
    }
    let seen = tty.seen.lock().unwrap();
    let screen = seen.screen.screen();
    let row = (0..24).find(|y| screen.cell(*y, 1).is_some_and(|c| c.contents() == ">")).expect("a mark");
    assert!(screen.cell(row, 4).unwrap().inverse());
}

#[test]
fn changes_of_another_process_show_within_two_seconds() {
    let workspace = Workspace::flights();
    let tty = Tty::start(&workspace, (80, 24), &[], &[]);
    tty.until("no runs yet");
    let intent = workspace.path("intents/train.json");
    workspace.ofs(&["submit", intent.to_str().unwrap()]).expect(0);
    let began = Instant::now();
    tty.until("QUEUED");
    let took = began.elapsed();
    println!("seen after {took:?}");
    assert!(!thorough() || took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_build_is_started_stepped_and_called_off_from_the_keyboard() {
    let workspace = Workspace::flights();
    let mut tty = Tty::start(&workspace, (80, 24), &[], &[]);
    tty.until("no runs yet").press("b");
    tty.until("train.json").press("js\r");
    tty.until("PAUSED pins").press("C");
    tty.until("PAUSED replay").press("\t");
    tty.until("match").press("A");
    tty.until("Call the paused run off?").press("y");
    tty.until("is CANCELLED");
    assert_eq!(workspace.ofs(&["runs", "--json"]).expect(0).json()["runs"][0]["status"], "CANCELLED");
    workspace.assert_nothing_published(FLIGHTS_RUN);
    tty.press("q");
    assert_eq!(tty.end().0, 0);
}

#[cfg(feature = "otlp")]
#[test]
fn otlp_what_the_console_builds_is_told_and_a_dead_collector_is_named() {
    use crate::otlp::{Collector, ENDPOINT, signals};
    let build = |endpoint: &str| {
        let workspace = Workspace::flights();
        let tty = Tty::start(&workspace, (100, 30), &[], &[(ENDPOINT, endpoint)]);
        tty.until("no runs yet").press("b");
        tty.until("train.json").press("j\r");
        tty.until("DONE");
        (workspace, tty)
    };
    let collector = Collector::taking();
    let (workspace, mut tty) = build(&collector.endpoint());
    wait_for("both signals", PATIENCE, || signals(&workspace).len() == 2);
    assert_eq!((collector.heard().len(), signals(&workspace)["otlp-traces"].0.as_str()), (2, "SENT"));
    tty.press("q");
    assert_eq!(tty.end().0, 0);
    let (workspace, mut tty) = build("http://127.0.0.1:1");
    tty.until("telemetry could not be sent").press("q");
    assert_eq!((tty.end().0, signals(&workspace)["otlp-traces"].0.as_str()), (0, "FAILED_TO_SEND"));
}

#[test]
fn a_hang_up_during_a_build_hands_the_run_back() {
    let workspace = Workspace::flights();
    let mut tty = Tty::start(&workspace, (80, 24), &[], &[]);
    tty.until("no runs yet").press("b");
    tty.until("train.json").press("js\r");
    tty.until("PAUSED pins");
    tty.signal("HUP");
    let (code, took) = tty.end();
    assert_eq!(code, 129);
    assert!(!thorough() || took < Duration::from_secs(4), "{took:?}");
    let run = &workspace.ofs(&["runs", "--json"]).expect(0).json()["runs"][0];
    assert_eq!(run["status"], "QUEUED", "{run}");
    let types = workspace.event_types(run["run_key"].as_str().unwrap());
    assert!(types.iter().any(|t| t == "RUN_INTERRUPTED"), "{types:?}");
}

#[test]
fn p12_a_line_that_closes_during_a_build_hands_the_run_back() {
    let workspace = Workspace::flights();
    let mut tty = Tty::start(&workspace, (80, 24), &[], &[]);
    tty.until("no runs yet").press("b");
    tty.until("train.json").press("js\r");
    tty.until("PAUSED pins");
    tty.hang_up_after("/");
    let (_, took) = tty.end();
    println!("gone {took:?} after the line closed");
    let run = &workspace.ofs(&["runs", "--json"]).expect(0).json()["runs"][0];
    assert_eq!(run["status"], "QUEUED", "{run}");
    let types = workspace.event_types(run["run_key"].as_str().unwrap());
    assert!(types.iter().any(|t| t == "RUN_INTERRUPTED"), "{types:?}");
    workspace.assert_nothing_published(FLIGHTS_RUN);
}

#[cfg(unix)]
#[test]
fn a_full_disk_for_the_log_is_said_once_and_stops_nothing() {
    let workspace = Workspace::flights();
    let logs = workspace.path("state/logs");
    std::fs::create_dir_all(&logs).unwrap();
    for hours in [0, 24] {
        let day = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours)).to_string();
        std::os::unix::fs::symlink("/dev/full", logs.join(format!("ofs.{}.jsonl", &day[..10]))).unwrap();
    }
    let mut tty = Tty::start(&workspace, (100, 30), &[], &[]);
    tty.until("no runs yet").press("b");
    tty.until("train.json").press("j\r");
    // Nothing but the log is full.
    tty.until("DONE").press("7");
    tty.until("the log cannot be written").press("/the log cannot\r");
    tty.until("/the log cannot").settle();
    let text = tty.text();
    assert_eq!(text.matches("the log cannot be written").count(), 1, "{text}");
    tty.press("\u{1b}");
    tty.gone("/the log cannot").press("qq");
    assert_eq!(tty.end().0, 0);
    tty.restored();
    assert_eq!(workspace.ofs(&["runs", "--json"]).expect(0).json()["runs"][0]["status"], "DONE");
}

#[test]
fn json_plain_and_the_screen_count_the_same_runs() {
    let workspace = Workspace::flights();
    workspace.build("train");
    workspace.intent("late", "train", |intent| {
        intent["request_id"] = "request.late".into();
        for slice in intent["replay_basis"].as_array_mut().unwrap() {
            slice["end_offset"] = "99999999".into();
        }
    });
    workspace.intent("other", "train", |intent| intent["request_id"] = "request.other".into());
    workspace.run("late").expect(3);
    for name in ["audit", "other"] {
        workspace.ofs(&["submit", workspace.path(&format!("intents/{name}.json")).to_str().unwrap()]).expect(0);
    }
    let count = |states: &mut dyn Iterator<Item = String>| {
        let mut counts = std::collections::BTreeMap::<String, usize>::new();
        states.for_each(|state| *counts.entry(state).or_default() += 1);
        counts
    };
    let json = workspace.ofs(&["runs", "--json"]).expect(0).json();
    let by_json = count(&mut json["runs"].as_array().unwrap().iter().map(|run| run["status"].as_str().unwrap().to_owned()));
    let plain = workspace.ofs(&["runs"]).expect(0).out;
    let by_plain = count(&mut plain.lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()));
    let mut tty = Tty::start(&workspace, (120, 40), &[], &[]);
    tty.until("DONE").press("1:export json seen.json\r");
    tty.until("4 rows of runs");
    let seen: serde_json::Value = serde_json::from_str(&workspace.text("seen.json")).unwrap();
    let by_screen = count(&mut seen["rows"].as_array().unwrap().iter().map(|run| run["state"].as_str().unwrap().to_owned()));
    assert_eq!((&by_json, &by_plain), (&by_screen, &by_screen));
    assert_eq!(by_json, [("DONE", 1), ("FAILED", 1), ("QUEUED", 2)].map(|(state, n)| (state.to_owned(), n)).into());
    let header = tty.text().lines().next().unwrap().to_owned();
    for (state, n) in &by_json {
        assert!(header.contains(&format!("{n} {}", state.to_lowercase())), "{header}");
    }
    tty.press("qq");
    tty.end();
}

#[test]
fn evidence_is_rechecked_a_row_explained_and_the_report_read_from_the_keyboard() {
    let workspace = Workspace::flights();
    let mut tty = Tty::start(&workspace, (100, 30), &[], &[]);
    tty.until("no runs yet").press("b");
    tty.until("train.json").press("j\r");
    tty.until("DONE").press("6");
    tty.until("UNCHECKED").press("r");
    // An Esc and a key right behind it are one key with Alt to a terminal: each Esc is waited for.
    tty.until("VERIFIED ").until("anchored").press("\u{1b}");
    tty.until("r recheck").gone("UNCHECKED").press("e");
    tty.until("  key ").press("\r");
    tty.until("ROW ").until("window").press("\u{1b}");
    tty.until("r recheck").press("m");
    tty.until("GREEN").until("STUCK_RED").press("\u{1b}");
    tty.until("r recheck");
    // A build of the console has sent its facts, as one of the command line does.
    let facts = || !workspace.tree(&format!("store/{FLIGHTS_RUN}/ofs/governance/facts")).is_empty();
    wait_for("the facts of the build", PATIENCE, facts);
    let waiting = workspace.ofs(&["report", "--look", "--json"]).expect(0).json();
    let facts = &waiting["platform_runs"][0]["metrics"]["facts"];
    assert!(facts["SENT"].as_u64() > Some(0), "{facts}");
    // Another cut-off is another data set, and diff says so.
    workspace.build("audit");
    tty.until("2 done").press("1gd");
    tty.until("Compare with which data set?").press("\r");
    tty.until("identity").until("rows ").press("\u{1b}");
    tty.gone("identity").press("qqqq");
    assert_eq!(tty.end().0, 0);
    tty.restored();
}

#[test]
fn a_read_only_console_changes_nothing_and_makes_no_file() {
    let workspace = Workspace::flights();
    workspace.build("train");
    let before = workspace.tree("state");
    let mut tty = Tty::start(&workspace, (80, 24), &["console", "--read-only"], &[]);
    tty.until("READ-ONLY").until("DONE").press("X");
    tty.until("read-only").press("q");
    assert_eq!(tty.end().0, 0);
    let logs =
        |tree: &std::collections::BTreeMap<String, Vec<u8>>| tree.keys().filter(|name| !name.contains("logs")).cloned().collect::<Vec<_>>();
    assert_eq!(logs(&workspace.tree("state")), logs(&before));
}

#[test]
fn a_megabyte_of_paste_and_a_storm_of_sizes_leave_it_alive() {
    let workspace = Workspace::flights();
    let mut tty = Tty::start(&workspace, (80, 24), &[], &[]);
    tty.until("no runs yet");
    tty.press(&format!("\u{1b}[200~{}\u{1b}[201~", "q".repeat(1 << 20)));
    tty.until("pasted bytes were left out");
    for n in 0..40u16 {
        let size = PtySize { rows: 10 + n, cols: 40 + 4 * n, pixel_width: 0, pixel_height: 0 };
        tty.master.as_ref().unwrap().resize(size).unwrap();
    }
    let back = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
    tty.master.as_ref().unwrap().resize(back).unwrap();
    // While it still believes in one of the sizes that are too small, it rightly takes no key but q.
    tty.settle();
    tty.press("?");
    tty.until("everywhere").press("qq");
    assert_eq!(tty.end().0, 0);
    tty.restored();
}

/// The program under test: for figures that matter, a release build of it.
fn binary() -> String {
    std::env::var("OFS_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_ofs").into())
}

/// Resident memory of a process, in MB.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0").trim().trim_end_matches(" kB").to_owned();
    line.parse::<f64>().unwrap_or(0.0) / 1024.0
}

impl Tty {
    /// The row with the mark of the selected run, and the beginning of that run's key.
    fn marked(&self) -> Option<(u16, String)> {
        let seen = self.seen.lock().unwrap();
        let screen = seen.screen.screen();
        let (rows, columns) = screen.size();
        let row = (0..rows.get()).find(|y| screen.cell(*y, 1).is_some_and(|cell| cell.contents() == ">"))?;
        let text = screen.rows(0, columns.get()).nth(row.into())?;
        let key = text.split_whitespace().find(|word| word.len() == 8 && word.chars().all(|c| c.is_ascii_hexdigit()))?;
        Some((row, key.to_owned()))
    }

    /// Presses j on the first row and k elsewhere and waits for another run to be the selected one, until `over` says
    /// so: how long each took. Where the list itself moved meanwhile, the key is pressed again and does not count.
    fn latencies(&self, mut over: impl FnMut(usize) -> bool) -> Vec<Duration> {
        let mut took = Vec::new();
        let key = |marked: &Option<(u16, String)>| marked.as_ref().map(|(_, key)| key.clone());
        while !over(took.len()) {
            let (before, began) = (self.marked(), Instant::now());
            self.press(if before.as_ref().is_some_and(|(row, _)| *row == 4) { "j" } else { "k" });
            while key(&self.marked()) == key(&before) && began.elapsed() < Duration::from_secs(3) {
                std::thread::sleep(Duration::from_micros(100));
            }
            if key(&self.marked()) != key(&before) {
                took.push(began.elapsed());
            }
            std::thread::sleep(Duration::from_millis(40));
        }
        took.sort_unstable();
        took
    }
}

fn told(what: &str, took: &[Duration]) {
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    println!("{what}: {} keys, key to paint median {:?}, 95th {:?}, 99th {:?}, worst {:?}", took.len(), at(50), at(95), at(99), at(100));
}

/// Key to paint while builds use both cores, the console's own and another process's, and what the console's
/// memory does meanwhile. Prints figures: no machine is too slow for this test.
#[test]
fn p6_keys_are_painted_while_builds_use_both_cores() {
    if !thorough() {
        return;
    }
    let events = std::env::var("OFS_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(60_000);
    let workspace = crate::support::large(events);
    for name in ["y", "z"] {
        workspace.intent(name, "x", |intent| {
            intent["request_id"] = format!("request.{name}").into();
            intent["label_basis"]["label_asof_utc"] = format!("2026-06-0{}T00:00:00Z", if name == "y" { 2 } else { 3 }).into();
        });
    }
    // A run to move the mark to and from.
    workspace.intent("none", "x", |intent| intent["request_id"] = "request.none".into());
    for name in ["none", "x"] {
        workspace.ofs(&["submit", workspace.path(&format!("intents/{name}.json")).to_str().unwrap()]).expect(0);
    }
    let mut tty = Tty::start(&workspace, (120, 40), &["console", "--view", "runs"], &[("SSH_CONNECTION", "1 2 3 4")]);
    tty.until("QUEUED").settle();
    let pid = tty.child.process_id().unwrap();
    told("at rest", &tty.latencies(|n| n >= 100));

    let before = resident(pid);
    let mut command = std::process::Command::new(binary());
    command.args(["run", workspace.path("intents/y.json").to_str().unwrap(), "--json"]).env("OFS_WORKSPACE", workspace.root());
    command.env("TMPDIR", workspace.scratch()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut other = command.spawn().unwrap();
    let took = tty.latencies(|_| !matches!(other.try_wait(), Ok(None)));
    told("a build of another process on both cores", &took);
    println!("resident memory of the console {before:.1} MB before, {:.1} MB after", resident(pid));

    tty.press(":run intents/z.json\r");
    tty.until("RUNNING");
    let done = || tty.text().lines().any(|line| line.contains("request.z") && line.contains("DONE"));
    let took = tty.latencies(|_| done());
    told("a build of the console on both cores", &took);
    println!("resident memory of the console after its own build {:.1} MB", resident(pid));
    tty.press("qy");
    tty.end();
}

/// A hundred thousand runs in a ledger. Prints figures.
#[test]
fn p10_a_hundred_thousand_runs_are_started_on_moved_in_and_filtered() {
    if !thorough() {
        return;
    }
    let workspace = Workspace::flights();
    workspace.build("train");
    multiply(&workspace, 100_000);
    for size in [(80, 24), (200, 50)] {
        let began = Instant::now();
        let mut tty = Tty::start(&workspace, size, &["console", "--view", "runs"], &[]);
        tty.until("DONE");
        let first = began.elapsed();
        tty.until("100001");
        println!("{size:?}: first rows after {first:?}, all of 100,001 runs after {:?}", began.elapsed());
        tty.settle();
        let pid = tty.child.process_id().unwrap();
        told("moving", &tty.latencies(|n| n >= 200));
        let began = Instant::now();
        tty.press("/request.99999");
        tty.until("1/100001");
        println!("a filter typed letter by letter: {:?}", began.elapsed());
        tty.press("\r\u{1b}");
        tty.gone("1/100001").press("G").settle();
        let (before, bytes) = (usage(pid), tty.bytes());
        let began = Instant::now();
        woken(pid, 20);
        let after = usage(pid);
        println!(
            "idle for {:?}: {} bytes, {} ms of processor time, {} wake-ups; resident {:.1} MB",
            began.elapsed(),
            tty.bytes() - bytes,
            after.0 - before.0,
            after.1 - before.1,
            resident(pid)
        );
        tty.press("qqq");
        tty.end();
    }
}

/// Makes many of the one run that is in the ledger.
fn multiply(workspace: &Workspace, n: usize) {
    let ledger = rusqlite::Connection::open(workspace.path("state/ledger.db")).unwrap();
    let mut columns = ledger.prepare("SELECT name FROM pragma_table_info('runs')").unwrap();
    let columns: Vec<String> = columns.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let value = |name: &String| match name.as_str() {
        "run_key" => "printf('%08x%024x', i * 7919, i)".to_owned(),
        "request_id" => "'request.' || i".to_owned(),
        "updated_us" => "updated_us - i * 1000000".to_owned(),
        other => other.to_owned(),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let sql = format!(
        "INSERT INTO runs ({}) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n}) SELECT {} FROM runs, n",
        columns.join(", "),
        values.join(", ")
    );
    assert_eq!(ledger.execute(&sql, []).unwrap(), n);
}

#[test]
fn the_past_of_a_run_is_looked_at_played_and_left() {
    let workspace = Workspace::flights();
    workspace.run("train").expect(0);
    let mut tty = Tty::start(&workspace, (80, 24), &["console", "--view", "replay"], &[]);
    tty.until("COMPLETE").press("(");
    tty.until("AS OF #1 ").until("NOT_REACHED").press("R");
    tty.until("the screen shows the past").press("\x1b");
    tty.gone("AS OF").until("COMPLETE").press(":");
    tty.until("Commands").press("play 1000\r");
    // It ends at the last moment of the record, where everything was known.
    tty.until("AS OF #").gone("PLAYING").until("COMPLETE").press(")");
    tty.gone("AS OF").press("qq");
    assert_eq!(tty.end().0, 0);
}

#[test]
fn a_pin_that_drifts_is_shown_without_a_key() {
    let workspace = Workspace::flights().unguarded();
    workspace.run("train").expect(0);
    let mut tty = Tty::start(&workspace, (80, 24), &["console", "--view", "pins", "--read-only"], &[]);
    tty.until("DRIFT 0");
    let edited = workspace.text("authority/features_v0.yaml").replace("24h", "23h");
    workspace.write("authority/features_v0.yaml", edited);
    tty.gone("DRIFT 0").until("DRIFT").press("qqqq");
    assert_eq!(tty.end().0, 0);
}

#[test]
fn an_order_for_marked_runs_is_carried_out_one_by_one() {
    let workspace = Workspace::flights();
    workspace.run("train").expect(0);
    for n in 0..2 {
        workspace.intent(&format!("more-{n}"), "train", |intent| intent["request_id"] = format!("more-000{n}").into());
        let intent = workspace.path(&format!("intents/more-{n}.json"));
        workspace.ofs(&["submit", intent.to_str().unwrap()]).expect(0);
    }
    let mut tty = Tty::start(&workspace, (120, 40), &["console", "--view", "runs"], &[]);
    tty.until("more-0000").until("more-0001").until("DONE").press(" j j ");
    tty.until("3 marked").press("X");
    tty.until("2 allow it").press("not wanted\r");
    tty.until("Type cancel 3").press("cancel 3\r");
    tty.until("cancel: 2 done, 1 refused (INVALID_TRANSITION)").press("\x1b");
    wait_for("both are called off", PATIENCE, || {
        let runs = workspace.ofs(&["runs", "--json"]).expect(0).json();
        runs["runs"].as_array().unwrap().iter().filter(|run| run["status"] == "CANCELLED").count() == 2
    });
    tty.press("\x03\x03");
    assert_eq!(tty.end().0, 130);
}

#[test]
fn a_ledger_that_cannot_be_read_is_said_and_its_return_too() {
    let workspace = Workspace::flights();
    workspace.run("train").expect(0);
    let mut tty = Tty::start(&workspace, (80, 24), &["console", "--read-only"], &[]);
    tty.until("DONE");
    std::fs::rename(workspace.path("state"), workspace.path("away")).unwrap();
    tty.until("STALE <1m");
    let _ = std::fs::remove_dir_all(workspace.path("state"));
    std::fs::rename(workspace.path("away"), workspace.path("state")).unwrap();
    tty.gone("STALE").until("DONE").press("q");
    assert_eq!(tty.end().0, 0);
}
