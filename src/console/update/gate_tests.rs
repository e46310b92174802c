//! At a gate: what was proved is on the screen at once, and every row of it can be read whole.

use crate::console::builds::BuildEvent;
use crate::console::model::Model;
use crate::console::model::popup::Popup;
use crate::console::msg::{Effect, Msg};
use crate::console::panes::testing::plain;
use crate::console::testing::{one_of_each, press, screen, with};
use crate::console::update::update;
use crate::pipeline::Phase;
use crate::pipeline::peek::{Look, Peeked, Question};
use crate::pipeline::run::GateView;
use crate::pipeline::run::step::{Answer, Paused, Told, Why};
use crate::time::Instant;

/// A run that waits at its replay gate, with a table of forty events to look at.
fn waiting() -> (Model, Vec<Effect>) {
    let mut model = with(80, 24, one_of_each());
    let run_key = model.selected().unwrap().run_key.clone();
    let facts = vec![("events", "40".into())];
    let gate = GateView { run_key: run_key.clone(), phase: Phase::Replay, facts, evidence: String::new(), reproved: false };
    let paused = Paused { gate, why: Why::Step, looks: &[Look::Events, Look::Window], since: Instant(0), until: Instant(1) };
    let mut told = |told| update(&mut model, Msg::Build { run_key: run_key.clone(), event: BuildEvent::Gate(told) });
    let effects = told(Told::Paused(Box::new(paused)));
    let columns = ["offset", "event_id", "ts_utc", "note", "amount"].map(str::to_owned).to_vec();
    let row = |n: usize| vec![n.to_string(), format!("evt_{n:030}"), "2013-01-01T00:00:00Z".into(), "x".repeat(90), format!("{n}.25")];
    let question = Question { look: Look::Events, find: String::new(), limit: 50 };
    told(Told::Shown(Ok(Peeked {
        question,
        columns,
        rows: (0..40).map(row).collect(),
        scanned: 40,
        matched: 40,
        whole: true,
        note: None,
    })));
    (model, effects)
}

fn asked(effects: &[Effect]) -> Vec<Look> {
    let look = |effect: &Effect| match effect {
        Effect::Answer { answer: Answer::Look(question), .. } => Some(question.look),
        _ => None,
    };
    effects.iter().filter_map(look).collect()
}

#[test]
fn the_first_of_what_was_proved_is_looked_at_unasked_and_tab_takes_the_next() {
    let (mut model, effects) = waiting();
    assert_eq!(asked(&effects), [Look::Events]);
    assert_eq!(asked(&press(&mut model, "tab")), [Look::Window]);
    assert_eq!(asked(&press(&mut model, "tab")), [Look::Events]);
}

#[test]
fn columns_that_do_not_fit_come_into_sight() {
    let (mut model, _) = waiting();
    assert!(!plain(&screen(&model)).contains("7.25"));
    press(&mut model, "l l l l");
    let text = plain(&screen(&model));
    assert!(text.contains("amount") && text.contains("7.25") && !text.contains("event_id"), "{text}");
    press(&mut model, "l l h h h h h h");
    assert!(plain(&screen(&model)).contains("offset"));
}

#[test]
fn a_row_is_shown_whole_and_the_way_back_is_one_step() {
    let (mut model, _) = waiting();
    press(&mut model, "G k enter");
    let text = plain(&screen(&model));
    assert!(text.contains(&format!("evt_{:030}", 38)) && text.contains("38.25") && !text.contains("37.25"), "{text}");
    press(&mut model, "esc");
    assert!(matches!(model.popups.last(), Some(Popup::Gate(gate)) if gate.open.is_none() && gate.row == 38));
    press(&mut model, "g");
    assert!(matches!(model.popups.last(), Some(Popup::Gate(gate)) if gate.row == 0));
    press(&mut model, "esc");
    assert!(model.popups.is_empty());
}

#[test]
fn the_window_is_that_of_the_selected_row() {
    let (mut model, _) = waiting();
    press(&mut model, "j j");
    let effects = press(&mut model, "tab");
    let find = match &effects[..] {
        [Effect::Answer { answer: Answer::Look(question), .. }] => question.find.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(find, format!("evt_{:030}", 2));
}
