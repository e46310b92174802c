//! Builds of this console: what is heard of them, and the answers at their gates.

use std::sync::Arc;

use crossterm::event::KeyCode;

use super::popups::{Step, keep, step};
use super::{refresh, say};
use crate::console::action::{Action, Place};
use crate::console::builds::{BuildEvent, Ending, Sampled};
use crate::console::data::Verdict;
use crate::console::keys::Chord;
use crate::console::model::popup::{Answer as Choose, Choice, Confirm, Gate, Popup};
use crate::console::model::prompt::Prompt;
use crate::console::model::{Model, Own, Slot, View};
use crate::console::msg::{Effect, Told};
use crate::pipeline::gate::Phase;
use crate::pipeline::peek::{Look, Peeked, Question};
use crate::pipeline::run::step::{Answer, Told as AtGate};

use super::act::LINE;

/// Rows asked for at a look.
const ROWS: usize = 50;

/// Rows that a page key moves over.
const PAGE: usize = 10;

/// Ended builds that are remembered.
const MAX_ENDED: usize = 64;

/// A build was looked at. A screen that is held keeps it for later.
pub(super) fn measured(model: &mut Model, run_key: &str, sampled: Sampled) {
    if let Some(own) = model.own.get_mut(run_key).filter(|own| own.ended.is_none()) {
        own.sampled = Some(sampled);
        remeasure(model);
    }
}

/// Puts what builds were last seen doing over what the ledger says of them: its owner writes that once a second.
pub(super) fn remeasure(model: &mut Model) {
    if model.frozen.is_some() {
        return;
    }
    let Model { own, runs, slot, .. } = model;
    for (run_key, sampled) in own.iter().filter(|(_, own)| own.ended.is_none()).filter_map(|(key, own)| Some((key, own.sampled.as_ref()?)))
    {
        runs.measure(run_key, sampled.phase.map(Phase::as_str), sampled.units);
        if let Slot::Ready(detail) = slot
            && detail.run_key == *run_key
            && sampled.phase == Some(Phase::Replay)
            && matches!(detail.replay.verdict, Verdict::NotReached | Verdict::Running)
        {
            let lanes = sampled.lanes.iter().map(|(name, wanted, read)| (name.as_str(), *wanted, *read));
            Arc::make_mut(detail).replay.progress(lanes);
        }
    }
}

/// Something was heard of a build.
pub(super) fn heard(model: &mut Model, run_key: String, event: BuildEvent) -> Vec<Effect> {
    let short = run_key.get(..8).unwrap_or(&run_key).to_owned();
    match event {
        BuildEvent::Started => {
            model.own.insert(run_key, Own::default());
        }
        BuildEvent::Gate(AtGate::Passed(_)) => {}
        BuildEvent::Gate(AtGate::Paused(paused)) => {
            model.own.entry(run_key.clone()).or_default().paused = Some(paused);
            say(model, Told::plain(format!("run {short} waits at a gate; Enter on it shows why")));
            // A person who is not in the middle of something else is taken there.
            if model.popups.is_empty() && !model.too_small() {
                select(model, &run_key);
                return show(model);
            }
        }
        BuildEvent::Gate(AtGate::Shown(shown)) => {
            model.own.entry(run_key).or_default().shown = Some(shown);
        }
        BuildEvent::Gate(AtGate::Unpaused) => {
            let own = model.own.entry(run_key.clone()).or_default();
            (own.paused, own.shown) = (None, None);
            model.popups.retain(|popup| !matches!(popup, Popup::Gate(gate) if gate.run_key == run_key));
        }
        BuildEvent::Ended(ending) => ended(model, run_key, &short, ending),
    }
    Vec::new()
}

fn ended(model: &mut Model, run_key: String, short: &str, ending: Box<Ending>) {
    let told = match ending.as_ref() {
        Ending::Result(result) => {
            let (status, code) = (result.text("/status"), result.text("/reason/code"));
            let outcome = match result.document.get("outcome").and_then(|o| o.as_str()) {
                Some("DUPLICATE") => " (DUPLICATE: it had ended before; a new build needs a new request id)",
                Some("ALREADY_PUBLISHED") => " (ALREADY_PUBLISHED by another request)",
                _ => "",
            };
            if result.exit == 0 {
                Told::good(format!("run {short} is {status}{outcome}"))
            } else {
                Told::bad(format!("run {short} is {status} {code}"))
            }
        }
        Ending::Ledger(error) => Told::bad(format!("run {short} stopped: {error}")),
        Ending::Panicked(words) => Told::bad(format!("the build of run {short} panicked: {words}")),
    };
    model.popups.retain(|popup| !matches!(popup, Popup::Gate(gate) if gate.run_key == run_key));
    model.own.insert(run_key, Own { ended: Some(ending), ..Own::default() });
    let gone: Vec<String> = model.own.iter().filter(|(_, own)| own.ended.is_some()).map(|(key, _)| key.clone()).collect();
    for key in gone.iter().take(gone.len().saturating_sub(MAX_ENDED)) {
        model.own.remove(key);
    }
    say(model, told);
}

fn select(model: &mut Model, run_key: &str) {
    let height = crate::console::view::layout::pane(model, View::Runs).height;
    if !model.panes.runs.select(&model.runs, run_key, height) {
        // Its row comes with the ledger's next news.
        model.wanted = Some(run_key.to_owned());
        refresh(model);
    }
}

/// Shows the gate at which the selected run waits, with the first of what it proved.
pub(super) fn show(model: &mut Model) -> Vec<Effect> {
    let Some((run_key, own)) = model.at_gate() else { return Vec::new() };
    let looks = own.paused.as_deref().map_or(&[][..], |paused| paused.looks);
    let gate = Gate { run_key: run_key.to_owned(), find: Prompt::new(LINE), ..Gate::default() };
    look(model, gate, looks)
}

/// Answers the gate at which the selected run waits; an abort is asked for first.
pub(super) fn answer(model: &mut Model, action: Action) -> Vec<Effect> {
    let Some((run_key, _)) = model.at_gate() else { return Vec::new() };
    let run_key = run_key.to_owned();
    let answer = match action {
        Action::Continue => Answer::Continue,
        Action::RunToEnd => Answer::RunToEnd,
        _ => {
            let lines = vec![format!("run {run_key}"), "It ends as CANCELLED; nothing is published.".to_owned()];
            let choices = vec![
                Choice { key: 'n', label: "no", answer: Choose::No },
                Choice { key: 'y', label: "yes, call it off", answer: Choose::Abort(run_key) },
            ];
            model.popups.push(Popup::Confirm(Confirm { title: "Call the paused run off?".into(), lines, choices, at: 0 }));
            return Vec::new();
        }
    };
    model.popups.retain(|popup| !matches!(popup, Popup::Gate(gate) if gate.run_key == run_key));
    vec![Effect::Answer { run_key, answer }]
}

/// A key at a gate.
pub(super) fn key(model: &mut Model, chord: Chord, mut gate: Gate) -> Vec<Effect> {
    let own = model.own.get(&gate.run_key);
    let Some(paused) = own.and_then(|own| own.paused.as_deref()) else { return Vec::new() };
    let looks = paused.looks;
    if gate.typing {
        match step(chord) {
            Step::No => gate.typing = false,
            Step::Yes => {
                gate.typing = false;
                return look(model, gate, looks);
            }
            _ => drop(gate.find.key(chord)),
        }
        return keep(model, Popup::Gate(gate));
    }
    match model.keys.action(&[Place::Step, Place::Global], chord) {
        Some(action @ (Action::Continue | Action::RunToEnd | Action::Abort)) => {
            if action == Action::Abort {
                keep(model, Popup::Gate(gate));
            }
            return answer(model, action);
        }
        Some(Action::Back | Action::Quit) => return closed(model, gate),
        Some(Action::Filter) => gate.typing = true,
        Some(Action::NextPane) => {
            gate.look = (gate.look + 1) % looks.len().max(1);
            return look(model, gate, looks);
        }
        Some(Action::PreviousPane) => {
            gate.look = (gate.look + looks.len().saturating_sub(1)) % looks.len().max(1);
            return look(model, gate, looks);
        }
        _ if chord.code() == KeyCode::Esc => return closed(model, gate),
        Some(action) => moved(&mut gate, action, own.and_then(|own| own.shown.as_ref()?.as_ref().ok())),
        None => {}
    }
    keep(model, Popup::Gate(gate))
}

/// Back from a whole row to the table, from the table to the view.
fn closed(model: &mut Model, mut gate: Gate) -> Vec<Effect> {
    match gate.open.take() {
        Some(_) => keep(model, Popup::Gate(gate)),
        None => Vec::new(),
    }
}

/// Moves over the rows and columns of what was looked at, or over the lines of the row that is shown whole.
fn moved(gate: &mut Gate, action: Action, shown: Option<&Peeked>) {
    let (rows, columns) = shown.map_or((0, 0), |shown| (shown.rows.len(), shown.columns.len()));
    let over = |at: usize, most: usize| match action {
        Action::Down => at.saturating_add(1).min(most),
        Action::Up => at.saturating_sub(1).min(most),
        Action::PageDown | Action::HalfDown => at.saturating_add(PAGE).min(most),
        Action::PageUp | Action::HalfUp => at.saturating_sub(PAGE).min(most),
        Action::First => 0,
        Action::Last => most,
        _ => at,
    };
    match (action, gate.open) {
        (Action::Open, None) if rows > 0 => gate.open = Some(0),
        (Action::Open, _) => gate.open = None,
        (_, Some(line)) => gate.open = Some(over(line, columns.saturating_sub(1))),
        (Action::Right, None) => gate.left = (gate.left + 1).min(columns.saturating_sub(1)),
        (Action::Left, None) => gate.left = gate.left.saturating_sub(1),
        _ => gate.row = over(gate.row, rows.saturating_sub(1)),
    }
}

/// The event of the selected row.
fn event_at(model: &Model, gate: &Gate) -> Option<String> {
    let shown = model.own.get(&gate.run_key)?.shown.as_ref()?.as_ref().ok()?;
    let at = shown.columns.iter().position(|name| name == "event_id")?;
    shown.rows.get(gate.row)?.get(at).cloned()
}

/// Asks for what is chosen, with what is looked for in it.
fn look(model: &mut Model, mut gate: Gate, looks: &[Look]) -> Vec<Effect> {
    // A window is one row's: that of the row that was selected.
    let at_row = event_at(model, &gate).unwrap_or_default();
    (gate.row, gate.left, gate.open) = (0, 0, None);
    let typed = gate.find.text().trim().to_owned();
    let effect = looks.get(gate.look).map(|look| {
        let find = if typed.is_empty() && matches!(look, Look::Window) { at_row } else { typed };
        Effect::Answer { run_key: gate.run_key.clone(), answer: Answer::Look(Question { look: *look, find, limit: ROWS }) }
    });
    keep(model, Popup::Gate(gate));
    effect.into_iter().collect()
}
