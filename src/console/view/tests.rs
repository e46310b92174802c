//! How screens look, at every size, and what they cost on the wire.

use std::fmt::Write as _;
use std::time::{Duration, Instant as Moment};

use proptest::prelude::*;
use ratatui::style::Modifier;

use super::*;
use crate::console::data::runs::RunsUpdate;
use crate::console::filter::Filter;
use crate::console::msg::Msg;
use crate::console::panes::testing::dump;
use crate::console::terminal::Screen;
use crate::console::testing::{Wire, empty, line, one_of_each, press, screen, with, write};
use crate::console::update::update;

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
    fn every_size_is_drawn(width in 0u16..210, height in 0u16..62, keys in prop::sample::select(vec!["", "2", "3", "4", "5", "6", "7", "t", "?", ":", "/", "b", "X a enter", "R"])) {
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
