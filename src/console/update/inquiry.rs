//! Questions about what a run left behind: asked, chosen for, answered, called off.

use std::sync::Arc;

use super::popups::{Step, keep, step};
use super::{act::LINE, say};
use crate::console::action::{Action, Place};
use crate::console::data::inquiry::{Answer, Question};
use crate::console::keys::Chord;
use crate::console::model::inquiry::{Choose, Choosing, Inquiry, Offer, State};
use crate::console::model::popup::Popup;
use crate::console::model::prompt::Prompt;
use crate::console::model::{Model, Slot, View};
use crate::console::msg::{Effect, Heard, Told};
use crate::console::panes::answer::settle;
use crate::console::panes::parts::Cursor;
use crate::console::panes::runs::word;
use crate::console::view::layout;
use crate::ledger::{RunLine, Status};

/// Why the selected run cannot be asked about.
pub(super) fn why_not(model: &Model, action: Action) -> Option<String> {
    let line = model.selected();
    match action {
        Action::Report => None,
        _ if line.is_none() => Some("no run is selected".into()),
        Action::Explain if line.and_then(data_set).is_none() => Some("the run has published no data set".into()),
        _ => None,
    }
}

fn data_set(line: &RunLine) -> Option<&String> {
    line.manifest_id.as_ref().filter(|_| line.status == Status::Done)
}

/// Asks what an action asks, or offers what has to be chosen first.
pub(super) fn begin(model: &mut Model, action: Action) -> Vec<Effect> {
    let Some(line) = model.selected() else { return ask(model, Question::Report { run_key: None }) };
    let (run_key, manifest) = (line.run_key.clone(), data_set(line).cloned());
    match (action, manifest) {
        (Action::Recheck, manifest) => ask(model, Question::Recheck { run_key, manifest }),
        (Action::Explain, Some(manifest)) => {
            let prompt = Prompt::with(&chosen_event(model).unwrap_or_default(), LINE);
            model.popups.push(Popup::Choose(Choose::new(Choosing::Row(manifest.clone()), None, prompt)));
            vec![Effect::Offer(manifest)]
        }
        (Action::Diff, Some(manifest)) => compare(model, manifest),
        (Action::Diff, None) => compare_pins(model, run_key),
        _ => ask(model, Question::Report { run_key: Some(run_key) }),
    }
}

/// The event that the selected value of the evidence names.
fn chosen_event(model: &Model) -> Option<String> {
    let selected = model.panes.copyable(View::Evidence, &model.seen()).filter(|_| model.pane() == View::Evidence)?;
    selected.id.ends_with(" event_id").then_some(selected.text)
}

/// Compares with the one data set that is marked, or lets one be chosen.
fn compare(model: &mut Model, right: String) -> Vec<Effect> {
    let marked = model.panes.runs.marked();
    let mut others: Vec<&RunLine> = model.runs.all().filter(|line| data_set(line).is_some_and(|id| *id != right)).collect();
    others.sort_by(|a, b| marked.contains(&b.run_key).cmp(&marked.contains(&a.run_key)).then(b.updated.cmp(&a.updated)));
    let mut offers: Vec<Offer> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for line in &others {
        let Some(id) = data_set(line).filter(|id| seen.insert(id.as_str())) else { continue };
        let mark = if marked.contains(&line.run_key) { "marked  " } else { "" };
        let run = line.run_key.get(..8).unwrap_or(&line.run_key);
        offers.push((id.clone(), format!("{mark}{}  run {run}  {}", line.request_id.as_deref().unwrap_or("-"), word(line))));
    }
    let chosen: Vec<&String> = others.iter().filter(|line| marked.contains(&line.run_key)).filter_map(|line| data_set(line)).collect();
    if let [left] = chosen.as_slice() {
        let left = (*left).clone();
        return ask(model, Question::Diff { left, right });
    }
    model.popups.push(Popup::Choose(Choose::new(Choosing::DataSet(right), Some(offers), Prompt::new(LINE))));
    Vec::new()
}

/// A run without a data set has its pins all the same: they are compared with those of another run.
fn compare_pins(model: &mut Model, right: String) -> Vec<Effect> {
    let marked = model.panes.runs.marked();
    let mut others: Vec<&RunLine> = model.runs.all().filter(|line| line.run_key != right).collect();
    others.sort_by(|a, b| marked.contains(&b.run_key).cmp(&marked.contains(&a.run_key)).then(b.updated.cmp(&a.updated)));
    let about = |line: &&RunLine| (line.run_key.clone(), format!("{}  {}", line.request_id.as_deref().unwrap_or("-"), word(line)));
    let offers: Vec<Offer> = others.iter().map(about).collect();
    let chosen: Vec<&String> = marked.iter().filter(|key| **key != right).collect();
    if let [left] = chosen.as_slice() {
        let left = (*left).clone();
        return ask(model, Question::Pins { left, right });
    }
    model.popups.push(Popup::Choose(Choose::new(Choosing::Run(right), Some(offers), Prompt::new(LINE))));
    Vec::new()
}

/// Asks.
fn ask(model: &mut Model, question: Question) -> Vec<Effect> {
    model.inquiries += 1;
    let id = model.inquiries;
    let inquiry = Inquiry { id, question: question.clone(), state: State::Asking(0, 0), cursor: Cursor::default() };
    model.popups.push(Popup::Inquiry(inquiry));
    vec![Effect::Inquire { id, question }]
}

/// Something was heard of a question. An answer to one that was called off is dropped.
pub(super) fn heard(model: &mut Model, id: u64, heard: Heard) {
    let open = model.popups.iter_mut().find_map(|popup| match popup {
        Popup::Inquiry(inquiry) if inquiry.id == id => Some(inquiry),
        _ => None,
    });
    let Some(inquiry) = open else { return };
    match heard {
        Heard::Progress(done, total) => {
            if matches!(inquiry.state, State::Asking(..)) {
                inquiry.state = State::Asking(done, total);
            }
        }
        Heard::Answer(answer) => {
            let Answer { lines, evidence } = *answer;
            inquiry.state = State::Answered(lines);
            if let (Some(evidence), Question::Recheck { run_key, .. }) = (evidence, inquiry.question.clone())
                && let Slot::Ready(detail) = &mut model.slot
                && detail.run_key == run_key
            {
                Arc::make_mut(detail).evidence = *evidence;
            }
        }
    }
}

/// A key while a question or its answer is on the screen.
pub(super) fn key(model: &mut Model, chord: Chord, mut inquiry: Inquiry) -> Vec<Effect> {
    let body = layout::answer(model);
    let action = model.keys.action(&[Place::Global], chord);
    let asking = matches!(inquiry.state, State::Asking(..));
    let about = inquiry.lines().get(inquiry.cursor.at).and_then(|line| line.event.clone());
    match (action, about) {
        (Some(Action::Back | Action::Quit), _) => {
            if asking {
                say(model, Told::plain("called off"));
                return vec![Effect::CallOff(inquiry.id)];
            }
            return Vec::new();
        }
        (Some(Action::Open | Action::Right | Action::Explain), Some((event_id, of))) => {
            if let Some(manifest) = inquiry.question.manifest(of).map(str::to_owned) {
                keep(model, Popup::Inquiry(inquiry));
                return ask(model, Question::Explain { manifest, event_id });
            }
        }
        (Some(Action::Copy), _) if !asking => {
            let text: Vec<&str> = inquiry.lines().iter().map(|line| line.text.as_str()).collect();
            let effect = Effect::Copy { what: inquiry.question.title(), text: text.join("\n") };
            keep(model, Popup::Inquiry(inquiry));
            return vec![effect];
        }
        (Some(Action::CopyCommand), _) => {
            let command = inquiry.question.command();
            keep(model, Popup::Inquiry(inquiry));
            return vec![Effect::Copy { what: command.clone(), text: command }];
        }
        (Some(action), _) => {
            let len = inquiry.lines().len();
            inquiry.cursor.act(action, len, usize::from(body.height));
        }
        (None, _) => {}
    }
    if let State::Answered(lines) = &inquiry.state {
        settle(&mut inquiry.cursor, lines, body.width, body.height);
    }
    keep(model, Popup::Inquiry(inquiry))
}

/// A key while something is being chosen.
pub(super) fn choose(model: &mut Model, chord: Chord, mut choose: Choose) -> Vec<Effect> {
    choose.problem = None;
    match step(chord) {
        Step::No => return Vec::new(),
        Step::Yes => match (choose.chosen(), &choose.what) {
            (Some(event_id), Choosing::Row(manifest)) => {
                let manifest = manifest.clone();
                return ask(model, Question::Explain { manifest, event_id });
            }
            (Some(left), Choosing::DataSet(right)) => {
                let right = right.clone();
                return ask(model, Question::Diff { left, right });
            }
            (Some(left), Choosing::Run(right)) => {
                let right = right.clone();
                return ask(model, Question::Pins { left, right });
            }
            (None, _) => choose.problem = Some("choose one, or type it".into()),
        },
        Step::Move(by) => choose.at = choose.at.saturating_add_signed(by).min(choose.hits.len().saturating_sub(1)),
        Step::Other => {
            if choose.prompt.key(chord) {
                choose.narrow();
            }
        }
    }
    keep(model, Popup::Choose(choose))
}

/// The rows that a data set offers.
pub(super) fn offered(model: &mut Model, manifest: &str, rows: Result<Vec<Offer>, String>) {
    for popup in &mut model.popups {
        if let Popup::Choose(choose) = popup
            && choose.what == Choosing::Row(manifest.to_owned())
        {
            match rows {
                Ok(rows) => choose.offers = Some(rows),
                Err(why) => (choose.offers, choose.problem) = (Some(Vec::new()), Some(why)),
            }
            choose.narrow();
            return;
        }
    }
}
