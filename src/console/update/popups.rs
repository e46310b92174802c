//! Keys and pasted text while something lies over the panes.

use std::path::Path;

use crossterm::event::KeyCode;

use super::act::set_filter;
use super::{build, command, follow, form, inquiry, palette, say};
use crate::console::action::Action;
use crate::console::filter::Filter;
use crate::console::keys::Chord;
use crate::console::model::Model;
use crate::console::model::form::Form;
use crate::console::model::popup::{Answer, Ask, Confirm, Picker, Popup};
use crate::console::model::prompt::Prompt;
use crate::console::msg::{Effect, IntentFile, Told};
use crate::pipeline::run::step;

/// What a key means to a popup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Yes,
    No,
    Move(isize),
    Other,
}

pub(super) fn step(chord: Chord) -> Step {
    match (chord.code(), chord.typed()) {
        (KeyCode::Enter, _) => Step::Yes,
        (KeyCode::Esc, _) => Step::No,
        (KeyCode::Down | KeyCode::Tab, _) => Step::Move(1),
        (KeyCode::Up | KeyCode::BackTab, _) => Step::Move(-1),
        (KeyCode::PageDown, _) => Step::Move(10),
        (KeyCode::PageUp, _) => Step::Move(-10),
        _ => Step::Other,
    }
}

fn moved(at: usize, by: isize, len: usize) -> usize {
    at.saturating_add_signed(by).min(len.saturating_sub(1))
}

/// A key.
pub(super) fn key(model: &mut Model, chord: Chord) -> Vec<Effect> {
    let Some(popup) = model.popups.pop() else { return Vec::new() };
    match popup {
        Popup::Help { top } => scrolled(model, chord, top, |top| Popup::Help { top }),
        Popup::Text { title, lines, top } => {
            let last = lines.len().saturating_sub(1);
            scrolled(model, chord, top, |top| Popup::Text { title, lines, top: top.min(last) })
        }
        Popup::Filter { prompt, before, .. } => filter(model, chord, prompt, before),
        Popup::Confirm(confirm) => answer(model, chord, confirm),
        Popup::Ask(ask) => asked(model, chord, ask),
        Popup::Picker(picker) => picked(model, chord, picker),
        Popup::Form(filled) => form::key(model, chord, filled),
        Popup::Gate(gate) => build::key(model, chord, gate),
        Popup::Inquiry(asked) => inquiry::key(model, chord, asked),
        Popup::Choose(choose) => inquiry::choose(model, chord, choose),
        Popup::Palette(mut palette) => match step(chord) {
            Step::No => Vec::new(),
            Step::Yes => command::run(model, palette),
            // Above the best hit stand the commands that were given before.
            Step::Move(-1) if palette.at == 0 && !model.commands.is_empty() => {
                palette::recall(model, &mut palette, true);
                keep(model, Popup::Palette(palette))
            }
            Step::Move(1) if palette.recall.is_some() => {
                palette::recall(model, &mut palette, false);
                keep(model, Popup::Palette(palette))
            }
            Step::Move(by) => {
                palette.at = moved(palette.at, by, palette.hits.len());
                keep(model, Popup::Palette(palette))
            }
            Step::Other => {
                palette.recall = None;
                if palette.prompt.key(chord) {
                    palette::find(model, &mut palette);
                }
                keep(model, Popup::Palette(palette))
            }
        },
    }
}

pub(super) fn keep(model: &mut Model, popup: Popup) -> Vec<Effect> {
    model.popups.push(popup);
    Vec::new()
}

/// Calls off what lies on top, as Esc does.
pub(super) fn call_off(model: &mut Model) -> Vec<Effect> {
    key(model, Chord::plain(KeyCode::Esc))
}

/// A text that is only read: it moves, and anything that closes closes it.
fn scrolled(model: &mut Model, chord: Chord, top: usize, again: impl FnOnce(usize) -> Popup) -> Vec<Effect> {
    let action = model.keys.action(&[crate::console::action::Place::Global], chord);
    let page = isize::try_from(model.size.1.saturating_sub(6)).unwrap_or(1);
    let by = match action {
        Some(Action::Down) => 1,
        Some(Action::Up) => -1,
        Some(Action::HalfDown) => page / 2,
        Some(Action::HalfUp) => -page / 2,
        Some(Action::PageDown) => page,
        Some(Action::PageUp) => -page,
        Some(Action::First) => isize::MIN / 2,
        Some(Action::Last) => 100_000,
        Some(Action::Quit | Action::Back | Action::Help | Action::Open) => return Vec::new(),
        _ => 0,
    };
    let popup = again(top.saturating_add_signed(by));
    keep(model, popup)
}

fn filter(model: &mut Model, chord: Chord, mut prompt: Prompt, before: Filter) -> Vec<Effect> {
    match step(chord) {
        Step::No => {
            set_filter(model, before);
            follow(model)
        }
        Step::Yes => match Filter::parse(prompt.text()) {
            Ok(filter) => {
                set_filter(model, filter);
                follow(model)
            }
            Err(problem) => keep(model, Popup::Filter { prompt, before, problem: Some(problem.to_string()) }),
        },
        Step::Move(_) => keep(model, Popup::Filter { prompt, before, problem: None }),
        Step::Other => {
            prompt.key(chord);
            typed_filter(model, prompt, before)
        }
    }
}

/// Narrows the rows while the filter is typed.
fn typed_filter(model: &mut Model, prompt: Prompt, before: Filter) -> Vec<Effect> {
    let problem = match Filter::parse(prompt.text()) {
        Ok(filter) => {
            set_filter(model, filter);
            None
        }
        Err(problem) => Some(problem.to_string()),
    };
    model.popups.push(Popup::Filter { prompt, before, problem });
    follow(model)
}

fn answer(model: &mut Model, chord: Chord, mut confirm: Confirm) -> Vec<Effect> {
    let typed = chord.typed().map(|c| c.to_ascii_lowercase());
    if let Some(choice) = confirm.choices.iter().find(|choice| Some(choice.key) == typed) {
        return answered(choice.answer.clone());
    }
    let by = match (step(chord), chord.code()) {
        (Step::No, _) => return Vec::new(),
        (Step::Yes, _) => {
            return confirm.choices.get(confirm.at).map(|choice| answered(choice.answer.clone())).unwrap_or_default();
        }
        (Step::Move(by), _) => by,
        (_, KeyCode::Right) => 1,
        (_, KeyCode::Left) => -1,
        // A key that says neither yes nor no: q, too, means no.
        _ if typed == Some('q') => return Vec::new(),
        _ => 0,
    };
    confirm.at = moved(confirm.at, by, confirm.choices.len());
    keep(model, Popup::Confirm(confirm))
}

fn answered(answer: Answer) -> Vec<Effect> {
    match answer {
        Answer::No => Vec::new(),
        Answer::Operate { run_key, order } => vec![Effect::Operate { run_key, order }],
        Answer::OperateAll { run_keys, order } => vec![Effect::OperateAll { run_keys, order }],
        Answer::Build { path, step } => vec![Effect::Build { path, step }],
        Answer::Abort(run_key) => vec![Effect::Answer { run_key, answer: step::Answer::Abort }],
        Answer::Leave => vec![Effect::Leave(0)],
    }
}

fn asked(model: &mut Model, chord: Chord, mut ask: Ask) -> Vec<Effect> {
    ask.problem = None;
    match step(chord) {
        Step::No => {
            say(model, Told::plain("nothing was done"));
            return Vec::new();
        }
        Step::Yes if ask.words.text().trim().is_empty() => ask.problem = Some("say it in a few words; they go on record".into()),
        Step::Yes => match &ask.typed {
            None if ask.kind.irreversible() => ask.typed = Some(Prompt::new(64)),
            Some(typed) if typed.text().trim() != ask.expected() && (!ask.all.is_empty() || typed.text().trim() != ask.run_key) => {
                ask.problem = Some(format!("that is not {}; type it, or Esc to leave it alone", ask.expected()));
            }
            _ => {
                let order = ask.kind.order(ask.words.text());
                return vec![if ask.all.is_empty() {
                    Effect::Operate { run_key: ask.run_key, order }
                } else {
                    Effect::OperateAll { run_keys: ask.all, order }
                }];
            }
        },
        Step::Move(_) => {}
        Step::Other => {
            ask.typed.as_mut().unwrap_or(&mut ask.words).key(chord);
        }
    }
    keep(model, Popup::Ask(ask))
}

fn picked(model: &mut Model, chord: Chord, mut picker: Picker) -> Vec<Effect> {
    let len = picker.intents.as_ref().map_or(0, Vec::len);
    match (step(chord), chord.typed()) {
        (Step::No, _) | (_, Some('q')) => return Vec::new(),
        (Step::Yes, _) => match picker.intents.as_ref().and_then(|intents| intents.get(picker.at)) {
            Some(intent) => match &intent.about {
                Ok(_) => return vec![Effect::Build { path: intent.path.clone(), step: picker.step }],
                Err(problem) => say(model, Told::bad(problem.clone())),
            },
            None => return Vec::new(),
        },
        (_, Some('n')) => return keep(model, Popup::Form(Form::default())),
        (_, Some('s' | ' ')) => picker.step = !picker.step,
        (Step::Move(by), _) => picker.at = moved(picker.at, by, len),
        (_, Some('j')) => picker.at = moved(picker.at, 1, len),
        (_, Some('k')) => picker.at = moved(picker.at, -1, len),
        _ => {}
    }
    keep(model, Popup::Picker(picker))
}

/// The intents that were found, for whom the picker is still open; the one that was just written is selected.
pub(super) fn intents(model: &mut Model, found: Vec<IntentFile>) {
    let Some(Popup::Picker(picker)) = model.popups.last_mut() else { return };
    let written = model.written.as_deref().map(Path::new).and_then(Path::file_name);
    picker.at = found.iter().position(|intent| Some(intent.name.as_ref()) == written).unwrap_or(0);
    picker.intents = Some(found);
}

/// Pasted text goes into the line that is being typed, and nowhere else: it is never taken for keys.
pub(super) fn paste(model: &mut Model, text: &str) -> Vec<Effect> {
    let left = match model.popups.last_mut() {
        Some(Popup::Palette(palette)) => palette.prompt.paste(text),
        Some(Popup::Filter { prompt, .. }) => prompt.paste(text),
        Some(Popup::Form(form)) => form.fields.get_mut(form.at).map_or(text.len(), |field| field.prompt.paste(text)),
        Some(Popup::Choose(choose)) => choose.prompt.paste(text),
        Some(Popup::Gate(gate)) if gate.typing => gate.find.paste(text),
        Some(Popup::Ask(ask)) => ask.typed.as_mut().unwrap_or(&mut ask.words).paste(text),
        _ => text.len(),
    };
    let effects = match model.popups.pop() {
        Some(Popup::Palette(mut palette)) => {
            palette::find(model, &mut palette);
            keep(model, Popup::Palette(palette))
        }
        Some(Popup::Filter { prompt, before, .. }) => typed_filter(model, prompt, before),
        Some(Popup::Choose(mut choose)) => {
            choose.narrow();
            keep(model, Popup::Choose(choose))
        }
        Some(other) => keep(model, other),
        None => Vec::new(),
    };
    if left > 0 {
        let whole = if left == text.len() { "no line is being typed; " } else { "" };
        say(model, Told::plain(format!("{whole}{left} pasted bytes were left out")));
    }
    effects
}
