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
use crate::pipeline::peek::{Look, Question};
use crate::pipeline::run::step::{Answer, Told as AtGate};

use super::act::LINE;

/// Rows asked for at a look.
const ROWS: usize = 50;

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
                show(model);
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

/// Shows the gate at which the selected run waits.
pub(super) fn show(model: &mut Model) {
    let Some((run_key, _)) = model.at_gate() else { return };
    let gate = Gate { run_key: run_key.to_owned(), find: Prompt::new(LINE), ..Gate::default() };
    model.popups.push(Popup::Gate(gate));
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
    let Some(paused) = model.own.get(&gate.run_key).and_then(|own| own.paused.as_deref()) else { return Vec::new() };
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
        Some(Action::Back | Action::Quit) => return Vec::new(),
        Some(Action::Filter) => gate.typing = true,
        Some(Action::NextPane | Action::Right) => {
            gate.look = (gate.look + 1) % looks.len().max(1);
            return look(model, gate, looks);
        }
        Some(Action::PreviousPane | Action::Left) => {
            gate.look = (gate.look + looks.len().saturating_sub(1)) % looks.len().max(1);
            return look(model, gate, looks);
        }
        Some(Action::Open) => return look(model, gate, looks),
        Some(Action::Down) => gate.top += 1,
        Some(Action::Up) => gate.top = gate.top.saturating_sub(1),
        Some(Action::PageDown | Action::HalfDown) => gate.top += 10,
        Some(Action::PageUp | Action::HalfUp) => gate.top = gate.top.saturating_sub(10),
        _ if chord.code() == KeyCode::Esc => return Vec::new(),
        _ => {}
    }
    let rows = model.own.get(&gate.run_key).and_then(|own| own.shown.as_ref()?.as_ref().ok().map(|peeked| peeked.rows.len())).unwrap_or(0);
    gate.top = gate.top.min(rows.saturating_sub(1));
    keep(model, Popup::Gate(gate))
}

/// Asks for what is chosen, with what is looked for in it.
fn look(model: &mut Model, mut gate: Gate, looks: &[Look]) -> Vec<Effect> {
    gate.top = 0;
    let effect = looks.get(gate.look).map(|look| Effect::Answer {
        run_key: gate.run_key.clone(),
        answer: Answer::Look(Question { look: *look, find: gate.find.text().trim().to_owned(), limit: ROWS }),
    });
    keep(model, Popup::Gate(gate));
    effect.into_iter().collect()
}
