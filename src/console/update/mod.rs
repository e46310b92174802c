//! What each message does to the model, and what it wants done outside. Pure: no clock, no file, no terminal.

mod act;
mod build;
mod command;
mod form;
mod history;
mod inquiry;
mod operate;
mod palette;
pub mod past;
mod popups;
mod stale;

use std::sync::Arc;

use super::action::Action;
use super::data::detail::Detail;
use super::data::runs::RunsUpdate;
use super::filter::Filter;
use super::keys::Chord;
use super::model::popup::Popup;
use super::model::{Model, Slot, View};
use super::msg::{Effect, Feed, Mood, Msg, Told};
use super::terminal::Signal;
use super::view::layout;
use crate::ledger::Status;
use crate::time::Instant;

pub use act::why_not;
pub use stale::SILENCE;

/// How long a word stands, in micros; a bad one stands until the next key.
const FLASH: i64 = 6_000_000;

/// Two interrupts within this time leave the console, in micros.
const TWICE: i64 = 1_000_000;

/// Most batches that a frozen screen keeps; beyond them the ledger is read anew when it thaws.
const MAX_PENDING: usize = 256;

/// Takes in a message.
pub fn update(model: &mut Model, msg: Msg) -> Vec<Effect> {
    if let Msg::Silent(silent) = msg {
        stale::silent(model, silent);
        return Vec::new();
    }
    model.dirty = true;
    match msg {
        Msg::Silent(_) => Vec::new(),
        Msg::Clock(now) => clock(model, now),
        Msg::Key(chord) => {
            let effects = key(model, chord);
            if model.popups.is_empty() {
                history::note(model);
            }
            effects
        }
        Msg::Paste(text) => popups::paste(model, &text),
        Msg::Wheel { down } => wheel(model, down),
        Msg::Resize(width, height) => {
            model.size = (width, height);
            refresh(model);
            Vec::new()
        }
        Msg::Signal(Signal::Stop(stop)) => vec![Effect::Leave(stop.exit())],
        Msg::Signal(Signal::Suspend) => vec![Effect::Suspend],
        Msg::Signal(Signal::Continue) => vec![Effect::Resumed],
        Msg::Runs(update) => runs(model, update),
        Msg::Feed(feed) => {
            fed(model, feed);
            Vec::new()
        }
        Msg::Detail { run_key, found } => {
            detail(model, run_key, found);
            build::remeasure(model);
            past::begin(model)
        }
        Msg::Past { run_key, found } => {
            past::heard(model, &run_key, found);
            Vec::new()
        }
        Msg::Build { run_key, event } => build::heard(model, run_key, event),
        Msg::Progress { run_key, sampled } => {
            build::measured(model, &run_key, sampled);
            Vec::new()
        }
        Msg::Authority => {
            model.asked = None;
            follow(model)
        }
        Msg::Intents(found) => {
            popups::intents(model, found);
            Vec::new()
        }
        Msg::Inquiry { id, heard } => {
            inquiry::heard(model, id, heard);
            Vec::new()
        }
        Msg::Offered { manifest, rows } => {
            inquiry::offered(model, &manifest, rows);
            Vec::new()
        }
        Msg::Formed(written) => form::answered(model, written),
        Msg::Told(told) => {
            say(model, told);
            Vec::new()
        }
        Msg::Text { title, lines } => {
            model.popups.push(Popup::Text { title, lines, top: 0 });
            Vec::new()
        }
        Msg::Log(log) => {
            model.log = log;
            Vec::new()
        }
    }
}

/// What became of the way to the ledger.
fn fed(model: &mut Model, feed: Feed) {
    if let Feed::Stale(why) = &feed
        && !matches!(model.feed, Feed::Stale(_))
    {
        say(model, Told::bad(format!("the ledger cannot be read: {why}")));
    }
    stale::told(model, &feed);
    model.feed = feed;
}

/// What was found out about a run; an answer about one that nobody looks at any more is dropped.
fn detail(model: &mut Model, run_key: String, found: Result<Arc<Detail>, String>) {
    if model.frozen.is_some() || model.panes.runs.selected() != Some(&run_key) {
        return;
    }
    model.slot = match found {
        Ok(mut detail) => {
            if let Some(before) = model.detail().filter(|before| before.run_key == run_key) {
                Arc::make_mut(&mut detail).evidence.carry(&before.evidence);
            }
            Slot::Ready(detail)
        }
        Err(why) => Slot::Failed { run_key, why },
    };
}

/// Starts where a deep link points.
pub fn open(model: &mut Model, view: Option<View>, run: Option<String>, filter: Filter) {
    if let Some(view) = view {
        act::goto(model, view);
        model.trail.clear();
    }
    model.wanted = run;
    let height = layout::pane(model, View::Runs).height;
    model.panes.runs.set_filter(filter, &model.runs, model.now, height);
    history::begin(model);
}

/// When something on the screen changes by time alone: an age that turns over, a word that has stood long
/// enough. None where nothing does.
pub fn next_turn(model: &Model) -> Option<Instant> {
    let flash = model.flash.as_ref().filter(|(told, _)| told.mood != Mood::Bad).map(|(_, since)| since.plus_micros(FLASH));
    let played = model.past.as_ref().and_then(|past| past.play).map(|play| play.due);
    if model.frozen.is_some() || model.too_small() {
        return flash.into_iter().chain(played).min();
    }
    let shows_runs = matches!(model.view, View::Dashboard | View::Runs);
    let height = layout::pane(model, View::Runs).height;
    let rows = model.panes.runs.in_sight(&model.runs, height).filter(|_| shows_runs);
    let ages = rows.map(|line| {
        let age = model.now.0.saturating_sub(line.sign().0).max(0);
        let step = match age / 1_000_000 {
            0..60 if line.status == Status::Running => 1_000_000,
            0..3_600 => 60_000_000,
            3_600..172_800 => 3_600_000_000,
            _ => 86_400_000_000,
        };
        model.now.plus_micros(step - age % step)
    });
    // How old what is known of the run is, where a pane says so.
    let read =
        model.detail().filter(|detail| detail.moment.is_none() && model.view != View::Runs && model.view != View::Log).map(|detail| {
            let age = model.now.0.saturating_sub(detail.as_of.0).max(0);
            let step = if age < 3_600_000_000 { 60_000_000 } else { 3_600_000_000 };
            model.now.plus_micros(step - age % step)
        });
    ages.chain(flash).chain(read).chain(played).chain(stale::next_turn(model)).min()
}

fn clock(model: &mut Model, now: Instant) -> Vec<Effect> {
    model.clock = now;
    if model.frozen.is_none() {
        model.now = now;
        model.runs.clock(now);
    }
    if model.flash.as_ref().is_some_and(|(told, since)| told.mood != Mood::Bad && now >= since.plus_micros(FLASH)) {
        model.flash = None;
    }
    past::tick(model)
}

/// Says something in the last line.
fn say(model: &mut Model, told: Told) {
    model.flash = Some((told, model.clock));
}

fn key(model: &mut Model, chord: Chord) -> Vec<Effect> {
    if chord == Chord::INTERRUPT {
        return interrupt(model);
    }
    model.flash = None;
    let action = model.keys.action(&model.places(), chord);
    if model.too_small() {
        return if action == Some(Action::Quit) { vec![Effect::Leave(0)] } else { Vec::new() };
    }
    if !model.popups.is_empty() {
        return popups::key(model, chord);
    }
    match action {
        Some(action) => act::act(model, action),
        None => Vec::new(),
    }
}

/// Ctrl-C calls off what is being typed or asked; twice within a second it leaves.
fn interrupt(model: &mut Model) -> Vec<Effect> {
    let twice = model.interrupted.is_some_and(|at| model.clock.0.saturating_sub(at.0) <= TWICE);
    model.interrupted = Some(model.clock);
    if twice {
        return vec![Effect::Leave(130)];
    }
    if model.popups.is_empty() {
        say(model, Told::plain("Ctrl-C again within a second leaves; q closes"));
        return Vec::new();
    }
    popups::call_off(model)
}

fn wheel(model: &mut Model, down: bool) -> Vec<Effect> {
    if !model.popups.is_empty() || model.too_small() {
        return Vec::new();
    }
    let action = if down { Action::Down } else { Action::Up };
    (0..3).flat_map(|_| act::act(model, action)).collect()
}

fn runs(model: &mut Model, update: RunsUpdate) -> Vec<Effect> {
    stale::heard(model);
    if let Some(frozen) = &mut model.frozen {
        // Bounded: whoever holds the screen for a night reads the ledger anew afterwards.
        if frozen.pending.len() < MAX_PENDING {
            frozen.pending.push(update);
        }
        return Vec::new();
    }
    model.runs.merge(update, model.now);
    build::remeasure(model);
    refresh(model);
    follow(model)
}

/// Brings the rows up to the list, the filter and the size.
fn refresh(model: &mut Model) {
    let height = layout::pane(model, View::Runs).height;
    model.panes.runs.refresh(&model.runs, model.now, height);
    if let Some(wanted) = &model.wanted {
        let found = model.runs.find(wanted).map(|line| line.run_key.clone());
        if found.is_some_and(|key| model.panes.runs.select(&model.runs, &key, height)) {
            model.wanted = None;
        } else if model.runs.complete() {
            let told = Told::bad(format!("no run is {wanted}, or the filter hides it"));
            model.wanted = None;
            say(model, told);
        }
    }
}

/// Asks for what there is to know about the selected run, where the run or what is known of it changed.
fn follow(model: &mut Model) -> Vec<Effect> {
    past::settle(model);
    let Some(line) = model.selected() else { return Vec::new() };
    let now = (line.run_key.clone(), line.last_seq, line.sign());
    if model.asked.as_ref() == Some(&now) {
        return Vec::new();
    }
    let run_key = now.0.clone();
    model.asked = Some(now);
    vec![Effect::Load(run_key)]
}

#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod past_tests;
#[cfg(test)]
mod tests;
