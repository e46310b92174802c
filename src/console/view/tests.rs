//! How screens look, at every size, and what they cost on the wire.

use std::fmt::Write as _;
use std::time::{Duration, Instant as Moment};

use proptest::prelude::*;
use ratatui::style::Modifier;

use super::*;
use crate::answer::{Line, Tone};
use crate::console::data::inquiry::{Answer, Question, answer, offered};
use crate::console::data::runs::RunsUpdate;
use crate::console::data::testing::World;
use crate::console::filter::Filter;
use crate::console::model::View;
use crate::console::model::inquiry::{Inquiry, State};
use crate::console::model::popup::Popup;
use crate::console::msg::{Heard, Msg};
use crate::console::panes::parts::Cursor;
use crate::console::panes::testing::dump;
use crate::console::terminal::Screen;
use crate::console::testing::{Wire, detail, empty, failed, line, one_of_each, press, screen, with, write};
use crate::console::update::update;
use crate::ledger::Status;

#[test]
fn screens_look_as_they_did() {
    for (name, size, keys) in [
        ("runs", (80, 24), ""),
        ("runs", (200, 50), "1"),
        ("dashboard", (120, 40), "j j"),
        ("compact", (60, 16), "j"),
        ("too_small", (59, 15), ""),
        ("help", (80, 24), "?"),
        ("palette", (80, 24), ": c a n"),
        ("ask", (80, 24), "j j X h m m enter"),
        ("confirm", (80, 24), "G k k k k P"),
        ("empty", (80, 24), ""),
    ] {
        let mut model = if name == "empty" { with(80, 24, Vec::new()) } else { with(size.0, size.1, one_of_each()) };
        press(&mut model, keys);
        insta::assert_snapshot!(format!("{name}_{}x{}", size.0, size.1), dump(&screen(&model)));
    }
}

#[test]
fn every_pane_as_the_whole_screen() {
    let detail = detail("backdated-label-column", &line(3).run_key);
    for (width, height) in [(80, 24), (200, 50)] {
        for view in View::PANES.into_iter().chain([View::Triage]) {
            let mut model = failed(width, height, &detail);
            model.log = log();
            let key = model.keys.first(view.action()).unwrap();
            press(&mut model, &key);
            insta::assert_snapshot!(format!("pane_{}_{width}x{height}", view.name()), dump(&screen(&model)));
        }
        let mut model = failed(width, height, &detail);
        press(&mut model, "b n tab 2 0 2 6");
        insta::assert_snapshot!(format!("form_{width}x{height}"), dump(&screen(&model)));
    }
    for (width, height) in [(80, 24), (120, 40), (200, 50), (60, 16), (59, 15)] {
        insta::assert_snapshot!(format!("whole_dashboard_{width}x{height}"), dump(&screen(&failed(width, height, &detail))));
    }
}

/// What is known of a run with as much of everything as a run can have: 4,096 partitions in its basis, five million
/// violations of which its receipt names a thousand.
fn largest() -> std::sync::Arc<crate::console::data::detail::Detail> {
    let mut detail = (*detail("backdated-label-column", &line(3).run_key)).clone();
    let lanes = detail.replay.lanes.clone();
    detail.replay.lanes = (0..4_096)
        .map(|partition| {
            let mut lane = lanes[partition % lanes.len()].clone();
            (lane.partition, lane.name) = (i64::try_from(partition).unwrap(), format!("{}/{partition}", lane.topic));
            lane
        })
        .collect();
    detail.replay.lanes_total = 4_096;
    let named = detail.labels.listed[0].clone();
    detail.labels.listed = vec![named; 1_000];
    (detail.labels.violation_total, detail.labels.types[0].violations) = (Some(5_000_000), Some(5_000_000));
    std::sync::Arc::new(detail)
}

#[test]
fn the_largest_run_is_counted_whole_and_drawn_by_what_is_in_sight() {
    let detail = largest();
    let mut model = failed(80, 24, &detail);
    press(&mut model, "2 G");
    let text = super::text(&model);
    assert!(text.contains("Replay 4096") && text.contains("4095"), "{text}");
    press(&mut model, "3 G");
    let text = super::text(&model);
    assert!(text.contains("VIOLATION 5,000,000") && text.contains("Labels 1000"), "{text}");
    if std::env::var_os("OFS_THOROUGH").is_some() {
        figures(&detail);
    }
}

/// Prints what a frame and a key cost over the largest run, beside a small one. No machine is too slow for it.
fn figures(detail: &std::sync::Arc<crate::console::data::detail::Detail>) {
    let small = self::detail("backdated-label-column", &line(3).run_key);
    for (name, detail) in [("4 partitions, 1 violation", &small), ("4,096 partitions, 5,000,000 violations", detail)] {
        for (width, height) in [(80, 24), (200, 50)] {
            for keys in ["0", "2", "2 s", "3", "4", "5", "6"] {
                let mut model = failed(width, height, detail);
                press(&mut model, keys);
                let mut buf = Buffer::empty(Rect::new(0, 0, width, height));
                let mut took: Vec<Duration> = (0..200)
                    .map(|at| {
                        let began = Moment::now();
                        press(&mut model, if at % 2 == 0 { "j" } else { "k" });
                        view(&model, &mut buf);
                        began.elapsed()
                    })
                    .collect();
                took.sort_unstable();
                println!("{name}, {width}x{height}, keys {keys}: key and frame median {:?}, 95th {:?}", took[100], took[190]);
            }
        }
    }
}

/// A log whose clock stands still.
fn log() -> crate::console::data::log::LogView {
    let record = |seq: u64| {
        std::sync::Arc::new(crate::console::data::log::Record {
            seq,
            at: crate::console::testing::NOW.plus_micros(i64::try_from(seq).unwrap() * 1_000_000),
            level: [tracing::Level::INFO, tracing::Level::WARN, tracing::Level::ERROR][usize::try_from(seq).unwrap() % 3],
            target: "ofs::pipeline::run".into(),
            text: format!("record {seq}"),
        })
    };
    crate::console::data::log::LogView { records: (1..=30).map(record).collect(), dropped: 0 }
}

#[test]
fn answers_look_as_they_did() {
    let world = World::play("clean");
    let (source, row, _) = world.run(Status::Done);
    let env = source.env().unwrap();
    let manifest = row.manifest_id.clone().unwrap();
    let (event_id, _) = offered(&source, &env, &manifest).unwrap().swap_remove(40);
    for (name, keys, question) in [
        ("recheck", "6 r", Question::Recheck { run_key: row.run_key.clone(), manifest: Some(manifest.clone()) }),
        ("explain", "6 d", Question::Explain { manifest: manifest.clone(), event_id }),
        ("diff", "6 d", Question::Diff { left: manifest.clone(), right: manifest.clone() }),
        ("report", "m", Question::Report { run_key: Some(row.run_key.clone()) }),
    ] {
        let mut answer = answer(&source, &env, &question);
        // How long it took is another number every time.
        answer.lines.retain(|line| !line.text.starts_with("duration"));
        for (width, height) in [(80, 24), (200, 50)] {
            let mut model = with(width, height, vec![line(0), line(1)]);
            press(&mut model, keys);
            model.popups.clear();
            let inquiry =
                Inquiry { id: 1, question: question.clone(), state: State::Answered(answer.lines.clone()), cursor: Cursor::default() };
            model.popups.push(Popup::Inquiry(inquiry));
            press(&mut model, "j");
            insta::assert_snapshot!(format!("answer_{name}_{width}x{height}"), dump(&screen(&model)));
        }
    }
}

#[test]
fn a_rechecked_pane_says_what_came_of_it() {
    let detail = detail("clean", &line(3).run_key);
    let mut model = failed(80, 24, &detail);
    press(&mut model, "6 r");
    let mut evidence = detail.evidence.clone();
    evidence.rechecked = Some((Tone::Bad, "UNANCHORED 99 things agree".into()));
    let answer = Answer { lines: vec![Line::new(Tone::Bad, "UNANCHORED")], evidence: Some(Box::new(evidence)) };
    update(&mut model, Msg::Inquiry { id: 1, heard: Heard::Answer(Box::new(answer)) });
    press(&mut model, "esc");
    insta::assert_snapshot!("rechecked_80x24", dump(&screen(&model)));
    // The verdict outlives the next reading of the same record.
    update(&mut model, Msg::Detail { run_key: detail.run_key.clone(), found: Ok(detail) });
    assert!(super::text(&model).contains("UNANCHORED 99 things agree"));
}

#[test]
fn hostile_text_commands_nothing() {
    let hostile = "a\u{1b}]52;c;eA==\u{7}\u{9b}2J\u{202e}b";
    let mut bad = line(1);
    (bad.request_id, bad.reason_code, bad.phase) = (Some(hostile.into()), Some(hostile.into()), Some(hostile.into()));
    let mut model = with(200, 50, vec![bad]);
    model.workspace = hostile.into();
    model.feed = crate::console::msg::Feed::Stale(hostile.into());
    press(&mut model, ":");
    write(&mut model, "a");
    for row in super::text(&model).lines() {
        assert!(!row.contains(|c: char| c.is_control() || c == '\u{202e}'), "{row:?}");
    }
    assert!(super::text(&model).contains("\\u{1b}"));
}

#[test]
fn how_to_leave_is_always_in_sight() {
    for width in 60..200 {
        for keys in ["", "2", "t", "?", ":", "/", "O", "b"] {
            let mut model = with(width, 24, one_of_each());
            press(&mut model, keys);
            let text = super::text(&model);
            let last = text.lines().last().unwrap();
            assert!(last.contains("q quit") || last.contains("Esc"), "{width} {keys}: {last}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn every_size_is_drawn(width in 0u16..210, height in 0u16..62, keys in prop::sample::select(vec!["", "2", "3", "4", "5", "6", "7", "t", "?", ":", "/", "b", "X a enter", "R", "m", "G d", "G e", "G 6 r"])) {
        let mut model = with(width, height, one_of_each());
        press(&mut model, keys);
        screen(&model);
        // A screen whose size the model has not heard of yet.
        let mut buf = Buffer::empty(Rect::new(0, 0, height, width));
        view(&model, &mut buf);
    }
}

/// A screen over a wire, with the model drawn once; what the first frame cost.
fn wired(model: &Model) -> (Screen<Wire>, Wire, usize) {
    let wire = Wire::default();
    let mut screen = Screen::new(wire.clone(), model.size.0, model.size.1, true);
    screen.draw(|buf| view(model, buf)).unwrap();
    let writes = wire.take();
    assert_eq!(writes.len(), 1, "one write a frame");
    (screen, wire, writes[0].len())
}

fn many(n: usize, width: u16, height: u16) -> Model {
    let mut lines: Vec<_> = (0..n).map(line).collect();
    for (at, each) in one_of_each().into_iter().enumerate().take(n) {
        lines[at] = each;
    }
    with(width, height, lines)
}

#[test]
fn p3_p4_p14_frames_are_small_and_one_write() {
    let mut told = String::new();
    for (size, full, key, dashboard) in [((80, 24), 4_500, 280, 0), ((120, 40), 9_000, 360, 1), ((200, 50), 12_000, 530, 1)] {
        let mut model = many(100, size.0, size.1);
        if dashboard == 0 {
            press(&mut model, "1");
        }
        let (mut screen, wire, first) = wired(&model);
        let mut worst = 0;
        for _ in 0..8 {
            press(&mut model, "j");
            screen.draw(|buf| view(&model, buf)).unwrap();
            let writes = wire.take();
            assert_eq!(writes.len(), 1);
            worst = worst.max(writes[0].len());
        }
        let _ = writeln!(told, "{size:?}: full paint {first} B, j {worst} B");
        assert!(first <= full && worst <= key, "{told}");
        // At 16 kbit/s: an answer within half a second, a full paint within six.
        assert!(worst * 8 < 8_000 && first * 8 < 96_000);
    }
    println!("{told}");
}

#[test]
fn p1_p2_nothing_changed_is_nothing_written_and_a_running_build_costs_little() {
    let idle = with(80, 24, vec![line(0), line(1)]);
    let (mut screen, wire, _) = wired(&idle);
    for _ in 0..10 {
        assert!(!screen.draw(|buf| view(&idle, buf)).unwrap());
    }
    assert!(wire.take().is_empty());

    let mut busy = with(80, 24, one_of_each());
    let (mut screen, wire, _) = wired(&busy);
    let mut bytes = 0;
    for second in 1..=10 {
        update(&mut busy, Msg::Clock(crate::console::testing::NOW.plus_micros(second * 1_000_000)));
        screen.draw(|buf| view(&busy, buf)).unwrap();
        let writes = wire.take();
        assert!(writes.len() <= 1);
        bytes += writes.iter().map(Vec::len).sum::<usize>();
    }
    println!("running without progress: {} B/s", bytes / 10);
    assert!(bytes <= 640, "{bytes} bytes in ten seconds");
}

#[test]
fn p13_without_colour_no_colour_is_sent_and_the_selection_is_seen() {
    crossterm::style::force_color_output(true);
    for keys in ["", "j", "?", ":", "X"] {
        let mut model = many(100, 80, 24);
        model.look.theme = model.look.theme.clone().without_colour();
        press(&mut model, keys);
        let wire = Wire::default();
        let mut screen = Screen::new(wire.clone(), 80, 24, true);
        screen.draw(|buf| view(&model, buf)).unwrap();
        let bytes = wire.take().concat();
        let text = String::from_utf8(bytes.clone()).unwrap();
        for sgr in text.split("\x1b[").skip(1).filter_map(|part| part.split_once('m')).map(|(sgr, _)| sgr) {
            if sgr.chars().all(|c| c.is_ascii_digit() || c == ';') {
                let fine = |n: &str| matches!(n.parse::<u8>(), Ok(0..=9 | 21..=29 | 39 | 49 | 59));
                assert!(sgr.split(';').all(fine), "ESC[{sgr}m");
            }
        }
        let mut terminal = vt100::Parser::new(24u16.try_into().unwrap(), 80u16.try_into().unwrap(), 0);
        terminal.process(&bytes);
        if ["", "j"].contains(&keys) {
            let row = (0..24).find(|y| terminal.screen().cell(*y, 1).is_some_and(|c| c.contents() == ">")).expect("a mark");
            let cell = terminal.screen().cell(row, 5).unwrap();
            assert!(cell.inverse(), "the selected row is told apart");
        }
        // What a terminal shows is what was drawn.
        let shown: Vec<String> = terminal.screen().rows(0, 80).map(|row| row.trim_end().to_owned()).collect();
        assert_eq!(shown.join("\n") + "\n", super::text(&model));
    }
}

fn best_of<T>(n: usize, mut work: impl FnMut() -> T) -> Duration {
    (0..n)
        .map(|_| {
            let began = Moment::now();
            std::hint::black_box(work());
            began.elapsed()
        })
        .min()
        .unwrap()
}

#[test]
fn p7_a_frame_of_100_000_runs_costs_what_one_of_1_000_does() {
    let (small, large) = (many(1_000, 200, 50), many(100_000, 200, 50));
    let area = Rect::new(0, 0, 200, 50);
    let frame = |model: &Model| {
        let mut buf = Buffer::empty(area);
        best_of(7, || view(model, &mut buf))
    };
    let (few, many) = (frame(&small), frame(&large));
    println!("frame over 1,000 runs {few:?}, over 100,000 {many:?}");
    assert!(many <= few * 3, "{few:?} {many:?}");
}

#[test]
fn p8_a_filter_over_100_000_runs_is_typed_without_waiting() {
    let mut model = many(100_000, 80, 24);
    let plain = best_of(3, || update_filter(&mut model, "train-99"));
    let sorted = best_of(3, || update_filter(&mut model, ""));
    // The palette's fuzzy search over all of them.
    press(&mut model, ": t r");
    let fuzzy = best_of(3, || press(&mut model, "a backspace")) / 2;
    println!("100,000 runs: substring {plain:?}, all sorted {sorted:?}, fuzzy {fuzzy:?} (build without optimisation)");
    // Generous: this build is not optimised and the machine may be busy.
    assert!(plain < Duration::from_millis(1_500) && fuzzy < Duration::from_secs(4), "{plain:?} {fuzzy:?}");
}

fn update_filter(model: &mut Model, text: &str) {
    let filter = Filter::parse(text).unwrap();
    model.panes.runs.set_filter(Filter::default(), &model.runs, model.now, 20);
    model.panes.runs.set_filter(filter, &model.runs, model.now, 20);
}

#[test]
fn a_hundred_thousand_runs_arrive_in_pages() {
    let mut model = empty(80, 24);
    let lines: Vec<_> = (0..20_000).map(line).collect();
    for page in lines.chunks(5_000) {
        update(&mut model, Msg::Runs(RunsUpdate { lines: page.to_vec(), complete: false, workers: 0 }));
    }
    assert!(super::text(&model).contains("20000"), "{}", super::text(&model));
    let cell = screen(&model).cell((5, 4)).cloned().unwrap();
    assert!(cell.modifier.contains(Modifier::REVERSED));
}
