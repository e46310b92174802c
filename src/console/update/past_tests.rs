//! Time travel on a real record: what keys do, what the screen says, and what stays as it is.

use super::*;
use crate::console::data::Source;
use crate::console::data::detail::Detail;
use crate::console::data::testing::World;
use crate::console::model::past::speed;
use crate::console::panes::testing::plain;
use crate::console::scrub::Stop;
use crate::console::testing::{press, screen, write};
use crate::ledger::{Limits, RunLine};

/// A console over a world that was played, in which what is wished for is read at once.
struct Travel {
    model: Model,
    source: Source,
    line: RunLine,
    _world: World,
}

impl Travel {
    fn new(scenario: &str, size: (u16, u16)) -> Self {
        let world = World::play(scenario);
        let source = world.source();
        let line = source.ledger.newest_lines(1).unwrap().remove(0);
        let mut model = crate::console::testing::empty(size.0, size.1);
        (model.now, model.clock) = (line.updated, line.updated);
        model.runs = crate::console::data::runs::Runs::new(Limits { stall_us: 1 << 40, max_pause_us: 1, max_retries: 3 });
        let mut travel = Travel { model, source, line: line.clone(), _world: world };
        travel.feed(Msg::Runs(RunsUpdate { lines: vec![line], complete: true, workers: 0 }));
        travel
    }

    fn feed(&mut self, msg: Msg) -> Vec<Effect> {
        let wanted = update(&mut self.model, msg);
        self.read(wanted)
    }

    fn press(&mut self, keys: &str) -> Vec<Effect> {
        let wanted = press(&mut self.model, keys);
        self.read(wanted)
    }

    fn command(&mut self, text: &str) -> Vec<Effect> {
        press(&mut self.model, ":");
        write(&mut self.model, text);
        self.press("enter")
    }

    /// Reads what was wished for; whatever else was wished comes back.
    fn read(&mut self, wanted: Vec<Effect>) -> Vec<Effect> {
        let mut left = Vec::new();
        for effect in wanted {
            match effect {
                Effect::Load(run_key) => {
                    let found = Detail::read(&self.source, &run_key, None);
                    update(&mut self.model, Msg::Detail { run_key, found });
                }
                Effect::LoadAt { run_key, stop } => {
                    let found = Detail::read(&self.source, &run_key, Some(&stop));
                    update(&mut self.model, Msg::Past { run_key, found });
                }
                other => left.push(other),
            }
        }
        left
    }

    fn clock(&mut self, micros: i64) {
        let now = self.model.clock.plus_micros(micros);
        self.feed(Msg::Clock(now));
    }

    fn at(&self) -> Option<Stop> {
        self.model.detail().and_then(Detail::past)
    }

    fn stops(&self) -> usize {
        self.model.slot.detail().unwrap().stops.len()
    }

    fn text(&self) -> String {
        plain(&screen(&self.model))
    }

    fn flash(&self) -> &str {
        self.model.flash.as_ref().map(|(told, _)| told.text.as_str()).unwrap_or_default()
    }
}

#[test]
fn every_key_of_time_travel_goes_where_it_says() {
    let mut t = Travel::new("clean", (80, 24));
    let stops = t.model.slot.detail().unwrap().stops.clone();
    let last = stops.len() - 1;
    let event = |from: usize, on: bool| stops.event(from, on).unwrap();
    for (keys, at) in [
        ("[", Some(last - 1)),
        ("[", Some(last - 2)),
        ("]", Some(last - 1)),
        ("] ]", None),
        ("{", Some(event(last, false))),
        ("{", Some(event(event(last, false), false))),
        ("}", Some(event(last, false))),
        (")", None),
        ("(", Some(0)),
        ("[", Some(0)),
        ("}", Some(1)),
        ("esc", None),
        ("( 2 esc", None),
    ] {
        t.press(keys);
        assert_eq!(t.at(), at.and_then(|at| stops.get(at)), "{keys}");
    }
    // Esc left the past, not the view.
    assert_eq!(t.model.view, View::Replay);
}

#[test]
fn panes_of_the_past_say_so_and_know_nothing_of_what_came_later() {
    let mut t = Travel::new("archive-gap", (120, 40));
    assert!(t.text().contains("REPLAY_INCOMPLETE") && !t.text().contains("AS OF"));
    t.press("(");
    let (text, told) = (t.text(), t.at().unwrap().to_string());
    // The header, the four panes and the row each say it.
    assert!(text.matches("AS OF #1 ").count() >= 5 && text.contains(&told), "{text}");
    assert!(!text.contains("REPLAY_INCOMPLETE") && !text.contains("COMPLETE") && text.contains("QUEUED"), "{text}");
    t.press("t");
    assert!(t.text().contains("none in the past; Esc goes back to now") && t.text().contains("pins -"), "{}", t.text());
    t.press("5");
    // The whole record stays in sight, the cursor at the moment.
    assert!(t.text().contains("RUN_FAILED") && t.text().contains("AS OF #1 "), "{}", t.text());
}

#[test]
fn the_screens_of_a_moment_look_as_they_did() {
    for (name, size, keys) in [("dashboard", (120, 40), "( ] ]"), ("triage", (80, 24), "( ] ] t"), ("compact", (60, 16), "( ] ]")] {
        let mut t = Travel::new("archive-gap", size);
        t.press(keys);
        // What changes from run to run of the test is taken out: times, hosts, processes.
        let text = t.text();
        // The owner's name is as long as it is, and breaks its line where it does: the line, and the rows that are left
        // empty below because of it, are not part of what is looked at.
        let mut owners = false;
        let masked: Vec<String> = text
            .lines()
            .filter(|line| {
                owners = line.starts_with("│ request ") || owners && line.starts_with("│          ");
                !owners && line.chars().any(|c| !matches!(c, '│' | ' '))
            })
            .map(masked)
            .collect();
        insta::assert_snapshot!(format!("past_{name}_{}x{}", size.0, size.1), masked.join("\n"));
    }
}

/// A line without instants and owners, at its own width.
fn masked(line: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    let flush = |word: &mut String, out: &mut String| {
        let digits = word.chars().filter(char::is_ascii_digit).count();
        let volatile = word.contains("T") && digits >= 10 && word.contains("-");
        let owner = word.contains(':') && word.chars().last().is_some_and(|c| c.is_ascii_digit()) && digits >= 3;
        if volatile || owner {
            out.extend(std::iter::repeat_n('~', word.chars().count()))
        } else {
            out.push_str(word)
        }
        word.clear();
    };
    for c in line.chars() {
        if c.is_whitespace() {
            flush(&mut word, &mut out);
            out.push(c);
        } else {
            word.push(c);
        }
    }
    flush(&mut word, &mut out);
    // Who worked on it is another process each time.
    match (out.find("owner pid"), out.rfind('│')) {
        (Some(from), Some(to)) if from < to => {
            format!("{}{:<w$}{}", &out[..from], "owner ~", &out[to..], w = out[from..to].chars().count())
        }
        _ => out,
    }
}

#[test]
fn what_changes_a_run_is_refused_in_the_past_with_the_reason() {
    let mut t = Travel::new("archive-gap", (80, 24));
    t.press("(");
    for key in ["R", "P", "X", "K", "O", "W", "c"] {
        assert_eq!(t.press(key), [], "{key}");
        assert!(t.flash().contains("shows the past; Esc goes back to now"), "{key}: {}", t.flash());
        assert!(t.model.popups.is_empty(), "{key}");
    }
    t.press(") R");
    assert_eq!(t.model.popups.len(), 1, "in the present it asks");
}

#[test]
fn what_is_live_does_not_disturb_the_past() {
    let mut t = Travel::new("clean", (120, 40));
    t.press("( ] ]");
    let before = t.text();
    let moved = RunLine { last_seq: 99, updated: t.line.updated.plus_micros(1), ..t.line.clone() };
    t.feed(Msg::Runs(RunsUpdate { lines: vec![moved], complete: true, workers: 0 }));
    assert_eq!(t.text(), before);
    // An answer about another run's past, or about one that was left, is dropped.
    let detail = t.model.past.as_ref().unwrap().shown.clone().unwrap();
    t.feed(Msg::Past { run_key: "other".into(), found: Ok(detail.clone()) });
    assert_eq!(t.text(), before);
    t.press("esc");
    t.feed(Msg::Past { run_key: detail.run_key.clone(), found: Ok(detail) });
    assert_eq!(t.at(), None);
    // Whoever selects another run is in the present again.
    t.feed(Msg::Runs(RunsUpdate { lines: vec![crate::console::testing::line(7)], complete: true, workers: 0 }));
    t.press("[ 1 j");
    assert!(t.model.past.is_none() && t.flash().contains("another run is selected"), "{}", t.flash());
}

#[test]
fn a_moment_that_cannot_be_read_is_said_and_left() {
    let mut t = Travel::new("clean", (80, 24));
    t.press("(");
    let run_key = t.line.run_key.clone();
    t.feed(Msg::Past { run_key, found: Err("the disk is gone".into()) });
    assert!(t.model.past.is_none() && t.flash().contains("the disk is gone"), "{}", t.flash());
}

#[test]
fn the_cursor_of_the_timeline_is_the_moment() {
    let mut t = Travel::new("clean", (80, 24));
    t.press("5 g");
    assert_eq!(t.at().map(|stop| stop.seq), Some(1));
    t.press("j");
    assert_eq!(t.at().map(|stop| (stop.seq, stop.sample)), Some((2, false)));
    t.press("o o");
    assert_eq!(t.at().map(|stop| stop.seq), Some(2), "another order is the same moment");
    t.press("G");
    assert_eq!(t.at(), None);
}

#[test]
fn a_run_is_played_at_its_speed_paused_and_ended_at_its_last_moment() {
    let mut t = Travel::new("clean", (80, 24));
    let stops = t.model.slot.detail().unwrap().stops.clone();
    t.command("play 2");
    assert_eq!(t.at(), stops.get(0));
    assert!(t.text().contains("PLAYING 2x"), "{}", t.text());
    for at in 1..stops.len() {
        let due = next_turn(&t.model).unwrap();
        assert!(due.0 - t.model.clock.0 <= 3_000_000);
        let now = due.max(t.model.clock);
        t.feed(Msg::Clock(now));
        assert!(t.model.past.as_ref().unwrap().at >= at.min(stops.len() - 1) || t.model.past.as_ref().unwrap().play.is_none());
    }
    assert_eq!((t.at(), t.model.past.as_ref().unwrap().play), (stops.get(stops.len() - 1), None));
    assert!(!t.text().contains("PLAYING"));
    // From its end it is played again, from its beginning; Space and p pause it; what is due then stays undone.
    t.press("p");
    assert_eq!(t.at(), stops.get(0));
    t.press("space");
    t.clock(60_000_000);
    assert_eq!((t.at(), t.model.past.as_ref().unwrap().play), (stops.get(0), None));
    t.press("] p");
    assert_eq!(t.at(), stops.get(1), "it goes on from where it stands");
    t.clock(600_000_000);
    assert_eq!(t.at(), stops.get(t.stops() - 1), "a clock that jumps passes over what it missed");
}

#[test]
fn the_speed_is_doubled_halved_and_kept_within_its_bounds() {
    let mut t = Travel::new("clean", (80, 24));
    for (keys, speed) in [("> >", 4.0), ("<", 2.0), ("< < < < < < < < <", 0.05)] {
        t.press(keys);
        assert!((t.model.speed - speed).abs() < 1e-9, "{keys}: {}", t.model.speed);
    }
    assert_eq!((speed("2"), speed("0.5")), (Ok(2.0), Ok(0.5)));
    for bad in ["0", "-1", "NaN", "inf", "fast", "1e9"] {
        assert!(speed(bad).is_err(), "{bad}");
        t.command(&format!("play {bad}"));
        assert!(t.flash().contains("expected a number") && t.model.past.is_none(), "{bad}: {}", t.flash());
    }
}

#[test]
fn without_a_record_there_is_nowhere_to_go() {
    let mut model = crate::console::testing::with(80, 24, vec![crate::console::testing::line(1)]);
    for key in ["[", "]", "(", "{", "}", "p"] {
        assert_eq!(press(&mut model, key), [], "{key}");
        assert!(model.past.is_none(), "{key}");
    }
    assert!(press(&mut model, ")").is_empty());
}

#[test]
fn a_build_of_this_console_moves_the_partitions_between_two_heartbeats() {
    use crate::console::builds::{BuildEvent, Sampled};
    use crate::console::terminal::Screen;
    use crate::console::testing::Wire;
    use crate::pipeline::gate::Phase;

    let mut t = Travel::new("clean", (120, 40));
    let run_key = t.line.run_key.clone();
    // The run as the ledger had it when its replay began, as if that were now.
    let entered = |d: &Detail| d.timeline.events.iter().filter(|e| e.name == "PHASE_ENTERED").nth(1).map(|e| e.seq);
    let seq = entered(t.model.slot.detail().unwrap()).unwrap();
    let stop = t.model.slot.detail().unwrap().stops.clone();
    let stop = stop.get(stop.of_event(seq).unwrap()).unwrap();
    let then = Detail::read(&t.source, &run_key, Some(&stop)).unwrap();
    let live = std::sync::Arc::new(Detail { moment: None, ..then.as_ref().clone() });
    let running = RunLine { status: Status::Running, phase: Some("replay".into()), progress: None, ..t.line.clone() };
    t.feed(Msg::Runs(RunsUpdate { lines: vec![running.clone()], complete: true, workers: 0 }));
    update(&mut t.model, Msg::Build { run_key: run_key.clone(), event: BuildEvent::Started });
    update(&mut t.model, Msg::Detail { run_key: run_key.clone(), found: Ok(live.clone()) });
    assert!(t.text().contains("NOT_REACHED"));
    let lane = |name: &str, read| (name.to_owned(), 204, read);
    let names: Vec<String> = live.replay.lanes.iter().map(|lane| lane.name.clone()).collect();
    let sampled = |done: u64| Sampled {
        phase: Some(Phase::Replay),
        units: (done * 4, 816),
        lanes: names.iter().map(|name| lane(name, done)).collect(),
    };
    let wire = Wire::default();
    let mut frames = Screen::new(wire.clone(), 120, 40, true);
    let mut shown = |t: &Travel| {
        frames.draw(|buf| crate::console::view::view(&t.model, buf)).unwrap();
        wire.take().concat().len()
    };
    let mut bytes = vec![shown(&t)];
    for done in [10, 51, 102, 153, 200] {
        t.feed(Msg::Progress { run_key: run_key.clone(), sampled: sampled(done) });
        bytes.push(shown(&t));
    }
    let text = t.text();
    assert!(text.contains("RUNNING") && text.contains("delivered 800 of"), "{text}");
    assert_eq!(t.model.runs.get(&run_key).unwrap().progress, Some((800, 816)));
    println!("frames of a replay that moves: {bytes:?} bytes");
    assert!(bytes[3..].iter().all(|n| *n < 400), "{bytes:?}");
    // What the ledger says a moment later is older than what was seen here.
    update(&mut t.model, Msg::Detail { run_key: run_key.clone(), found: Ok(live.clone()) });
    t.feed(Msg::Runs(RunsUpdate { lines: vec![RunLine { progress: Some((40, 816)), ..running }], complete: true, workers: 0 }));
    assert_eq!((t.text(), shown(&t)), (text, 0));
    // A gate that has passed is believed before any sample, and an end forgets them.
    let passed = Detail::read(&t.source, &run_key, None).unwrap();
    update(&mut t.model, Msg::Detail { run_key: run_key.clone(), found: Ok(passed) });
    assert!(t.text().contains("COMPLETE"), "{}", t.text());
}

#[test]
fn what_may_be_old_says_stale_with_its_age_and_looks_neither_good_nor_alive() {
    use std::time::Duration;

    use crate::console::look::Role;

    let mut t = Travel::new("clean", (120, 40));
    let look = t.model.look.clone();
    let good = |t: &Travel| {
        let buf = screen(&t.model);
        let style = look.style(Role::Good).fg;
        buf.content().iter().filter(|cell| style == Some(cell.fg)).count()
    };
    assert!(good(&t) > 0 && !t.text().contains("STALE"));
    for (gone, back) in [
        (Msg::Feed(Feed::Stale("disk I/O error".into())), Msg::Feed(Feed::Live)),
        (Msg::Silent(Duration::from_secs(10)), Msg::Silent(Duration::ZERO)),
        (Msg::Silent(Duration::from_secs(600)), Msg::Runs(RunsUpdate { complete: true, ..RunsUpdate::default() })),
    ] {
        t.feed(gone.clone());
        // Header and panes say so.
        assert!(t.text().matches("STALE").count() >= 5, "{gone:?}: {}", t.text());
        assert_eq!(good(&t), 0, "{gone:?}");
        let before = t.model.stale().unwrap();
        let now = t.model.clock.plus_micros(150_000_000);
        assert!(next_turn(&t.model).is_some());
        t.feed(Msg::Clock(now));
        assert!(t.text().contains(&format!("STALE {}m", (before + 150_000_000) / 60_000_000)), "{}", t.text());
        t.feed(back);
        assert!(!t.text().contains("STALE") && good(&t) > 0, "{gone:?}");
    }
    // Asked every few seconds, and drawn only where it matters.
    t.model.dirty = false;
    t.feed(Msg::Silent(Duration::from_secs(9)));
    assert!(!t.model.dirty);
    // The past is what it is, however old the present.
    t.feed(Msg::Feed(Feed::Stale("x".into())));
    t.press("( 2");
    assert!(!t.text().lines().nth(2).unwrap().contains("STALE"), "{}", t.text());
}
