//! What each action does.

use super::{build, follow, history, inquiry, operate, palette, past, refresh, say};
use crate::console::action::{Action, Place};
use crate::console::filter::Filter;
use crate::console::model::form::Form;
use crate::console::model::popup::{Answer, Choice, Confirm, Picker, Popup};
use crate::console::model::prompt::Prompt;
use crate::console::model::{Frozen, Model, View, seen_detail};
use crate::console::msg::{Effect, Told};
use crate::console::panes::Seen;
use crate::console::view::layout;

/// Longest line in a prompt, in bytes.
pub(super) const LINE: usize = 512;

/// Why an action cannot be done now; nothing where it can.
pub fn why_not(model: &Model, action: Action) -> Option<String> {
    if !model.offers(action) {
        return Some("the console is read-only".into());
    }
    if model.past.is_some() && past::presents(action) {
        return Some("the screen shows the past; Esc goes back to now".into());
    }
    match action {
        Action::Resume | Action::Retry | Action::Cancel | Action::Fail | Action::Note | Action::Bundle => operate::why_not(model, action),
        Action::Recheck | Action::Explain | Action::Diff if inquiry::why_not(model, action).is_some() => inquiry::why_not(model, action),
        Action::HistoryBack | Action::HistoryOn => history::why_not(model, action == Action::HistoryOn),
        Action::CopySummary | Action::CopyCommand | Action::Triage | Action::Play if model.selected().is_none() => {
            Some("no run is selected".into())
        }
        _ => {
            let place = action.entry().place;
            let why = if place == Place::Step {
                "no build of this console waits at a gate here".to_owned()
            } else {
                format!("only in {}", place.name())
            };
            (!model.places().contains(&place)).then_some(why)
        }
    }
}

/// Does it.
pub(super) fn act(model: &mut Model, action: Action) -> Vec<Effect> {
    if let Some(why) = why_not(model, action) {
        say(model, Told::bad(format!("{}: {why}", action.entry().name)));
        return Vec::new();
    }
    if let Some(view) = view_of(action) {
        goto(model, view);
        if view == View::Dashboard {
            // It begins with its list, whichever pane was looked at before.
            model.focus = View::Runs;
        }
        return follow(model);
    }
    if let Some(line) = line_of(action) {
        palette::open(model, line);
        return follow(model);
    }
    match action {
        Action::Open if model.view == View::Triage => {
            let chosen =
                model.detail().and_then(|detail| model.panes.triage.action(&detail.triage)).and_then(|legal| Action::named(legal.name));
            return chosen.map(|action| act(model, action)).unwrap_or_default();
        }
        Action::Open if model.pane() == View::Runs && model.at_gate().is_some() => return build::show(model),
        Action::Open if model.pane() == View::Runs && model.selected().is_some() => goto(model, View::Triage),
        Action::HistoryBack | Action::HistoryOn => return history::go(model, action == Action::HistoryOn),
        Action::LastView => {
            let last = model.last.unwrap_or(View::Dashboard);
            goto(model, last);
        }
        Action::Zoom => zoom(model),
        Action::NextPane => turn(model, 1),
        Action::PreviousPane => turn(model, -1),
        Action::Back => back(model),
        Action::Quit => return quit(model),
        Action::Help => model.popups.push(Popup::Help { top: 0 }),
        Action::Filter => {
            let before = model.panes.filter(model.pane()).clone();
            let prompt = Prompt::with(&before.to_string(), LINE);
            model.popups.push(Popup::Filter { prompt, before, problem: None });
        }
        Action::Build => {
            model.popups.push(Popup::Picker(Picker::default()));
            return vec![Effect::FindIntents];
        }
        Action::NewIntent => model.popups.push(Popup::Form(Form::default())),
        Action::Freeze => return freeze(model),
        Action::Refresh => {
            model.asked = None;
            say(model, Told::plain("reading again"));
            return std::iter::once(Effect::Refresh).chain(follow(model)).collect();
        }
        Action::Copy | Action::CopyCommand | Action::CopySummary => return copy(model, action),
        Action::Resume | Action::Retry | Action::Cancel | Action::Fail | Action::Note | Action::Bundle => operate::ask(model, action),
        Action::Continue | Action::RunToEnd | Action::Abort => return build::answer(model, action),
        Action::Recheck | Action::Explain | Action::Diff | Action::Report => return inquiry::begin(model, action),
        Action::ScrubBack | Action::ScrubOn | Action::ScrubEventBack | Action::ScrubEventOn | Action::ScrubStart => {
            return past::scrub(model, action);
        }
        Action::ScrubNow => return past::now(model),
        Action::Play => return past::play(model, None),
        Action::Mark if model.past.as_ref().is_some_and(|past| past.play.is_some()) => return past::play(model, None),
        Action::Faster | Action::Slower => past::pace(model, action == Action::Faster),
        Action::Mouse => {
            model.mouse = !model.mouse;
            let told = if model.mouse { "the mouse is taken; hold Shift to select text" } else { "the mouse is yours again" };
            say(model, Told::plain(told));
            return vec![Effect::Mouse(model.mouse)];
        }
        Action::Repaint => return vec![Effect::Repaint],
        Action::Suspend => return vec![Effect::Suspend],
        _ => return pane(model, action),
    }
    follow(model)
}

/// The view that an action goes to.
fn view_of(action: Action) -> Option<View> {
    Some(match action {
        Action::Dashboard => View::Dashboard,
        Action::Runs => View::Runs,
        Action::Replay => View::Replay,
        Action::Labels => View::Labels,
        Action::Pins => View::Pins,
        Action::Timeline => View::Timeline,
        Action::Evidence => View::Evidence,
        Action::Log => View::Log,
        Action::Triage => View::Triage,
        _ => return None,
    })
}

/// How the command line begins of an action that needs words.
fn line_of(action: Action) -> Option<&'static str> {
    Some(match action {
        Action::Palette => "",
        Action::Export => "export csv ",
        Action::Snapshot => "snapshot ",
        Action::Run => "run ",
        Action::Break => "break ",
        Action::Theme => "theme ",
        Action::Columns => "columns ",
        _ => return None,
    })
}

/// Lets the pane that has the keys obey.
fn pane(model: &mut Model, action: Action) -> Vec<Effect> {
    // What goes to the next match goes to the next row: rows that do not match are not there.
    let action = match action {
        Action::NextMatch => Action::Down,
        Action::PreviousMatch => Action::Up,
        other => other,
    };
    let view = model.pane();
    let height = layout::pane(model, view).height;
    let scrubbed = model.panes.timeline.scrubbed();
    let stale = model.stale();
    let Model { runs, slot, past, log, now, panes, .. } = model;
    let seen = Seen { runs, detail: seen_detail(past.as_ref(), slot), log, now: *now, stale };
    let obeyed = panes.act(view, action, &seen, height);
    match (obeyed, action) {
        (true, _) => {
            let travel = past::follow_cursor(model, scrubbed);
            follow(model).into_iter().chain(travel).collect()
        }
        // Left is out and right is in, where a pane makes nothing else of them.
        (false, Action::Left) => {
            back(model);
            follow(model)
        }
        (false, Action::Right | Action::Open) if view == View::Runs && model.selected().is_some() => {
            goto(model, View::Triage);
            follow(model)
        }
        (false, _) => Vec::new(),
    }
}

/// Goes to a view and remembers the one before.
pub(super) fn goto(model: &mut Model, view: View) {
    if view == model.view {
        return;
    }
    model.last = Some(model.view);
    // Walking in circles is one way back, not many.
    model.trail.retain(|v| *v != model.view && *v != view);
    if view != View::Dashboard {
        let from = model.view;
        model.trail.push(from);
    } else {
        model.trail.clear();
    }
    model.view = view;
    if View::LIVE.contains(&view) {
        model.focus = view;
    }
    refresh(model);
}

fn zoom(model: &mut Model) {
    match model.view {
        View::Dashboard => goto(model, model.focus),
        _ => goto(model, View::Dashboard),
    }
}

/// The next pane, or the one before.
fn turn(model: &mut Model, by: isize) {
    let next = |ring: &[View], now: View| {
        let at = ring.iter().position(|view| *view == now).unwrap_or(0);
        let to = (at as isize + by).rem_euclid(ring.len() as isize);
        usize::try_from(to).ok().and_then(|to| ring.get(to).copied()).unwrap_or(now)
    };
    if model.view == View::Dashboard {
        model.focus = next(&View::LIVE, model.focus);
        refresh(model);
    } else {
        let to = next(&View::PANES, model.view);
        let trail = model.trail.clone();
        goto(model, to);
        // Turning pages is not drilling in: the way back stays the same.
        model.trail = trail;
    }
}

/// One step back: out of the past, the filter, the marks, then the view. Never out of the console.
fn back(model: &mut Model) {
    let view = model.pane();
    if model.past.is_some() {
        past::now(model);
    } else if !model.panes.filter(view).is_empty() {
        set_filter(model, Filter::default());
    } else if !model.marked().is_empty() {
        model.panes.runs.unmark();
    } else if let Some(before) = model.trail.pop() {
        return_to(model, before);
    } else if model.view == View::Dashboard && model.focus != View::Runs {
        model.focus = View::Runs;
    }
}

/// Narrows the rows of the pane that has the keys.
pub(super) fn set_filter(model: &mut Model, filter: Filter) {
    let view = model.pane();
    let height = layout::pane(model, view).height;
    let stale = model.stale();
    let Model { runs, slot, past, log, now, panes, .. } = model;
    let seen = Seen { runs, detail: seen_detail(past.as_ref(), slot), log, now: *now, stale };
    panes.set_filter(view, filter, &seen, height);
}

/// Back while there is a way back; at the top, out.
fn quit(model: &mut Model) -> Vec<Effect> {
    if model.trail.is_empty() {
        return leave(model);
    }
    let before = model.trail.pop().unwrap_or(View::Dashboard);
    return_to(model, before);
    follow(model)
}

pub(super) fn return_to(model: &mut Model, view: View) {
    model.last = Some(model.view);
    model.view = view;
    if View::LIVE.contains(&view) {
        model.focus = view;
    }
    refresh(model);
}

fn leave(model: &mut Model) -> Vec<Effect> {
    let own = model.own_builds();
    if own == 0 {
        return vec![Effect::Leave(0)];
    }
    let no = Choice { key: 'n', label: "stay", answer: Answer::No };
    let yes = Choice { key: 'y', label: "leave, hand back", answer: Answer::Leave };
    model.popups.push(Popup::Confirm(Confirm {
        title: "Leave?".into(),
        lines: vec![
            format!("{own} build(s) of this console are running."),
            "Leaving hands them back: QUEUED, receipts kept, for the next run, resume or worker.".into(),
            "To end one for good: stay, and cancel it with X.".into(),
        ],
        choices: vec![no, yes],
        at: 0,
    }));
    Vec::new()
}

fn freeze(model: &mut Model) -> Vec<Effect> {
    match model.frozen.take() {
        None => {
            model.frozen = Some(Frozen { since: model.clock, pending: Vec::new() });
            Vec::new()
        }
        Some(frozen) => {
            model.now = model.clock;
            let full = frozen.pending.len() >= super::MAX_PENDING;
            for update in frozen.pending {
                model.runs.merge(update, model.now);
            }
            refresh(model);
            model.asked = None;
            let again = full.then_some(Effect::Refresh);
            again.into_iter().chain(follow(model)).collect()
        }
    }
}

fn copy(model: &mut Model, action: Action) -> Vec<Effect> {
    let marked: Vec<&str> = model.marked().iter().map(|line| line.run_key.as_str()).collect();
    let found = match action {
        Action::Copy if !marked.is_empty() => Some((format!("{} run keys", marked.len()), marked.join("\n"))),
        Action::CopySummary => model.detail().map(|detail| ("incident summary".to_owned(), detail.summary(model.now))),
        Action::CopyCommand if model.view == View::Triage => {
            model.detail().and_then(|detail| model.panes.triage.selected(&detail.triage)).map(|c| (c.text.clone(), c.text))
        }
        Action::CopyCommand => operate::command(model).map(|command| (command.clone(), command)),
        _ => model.panes.copyable(model.pane(), &model.seen()).map(|c| (c.id, c.text)),
    };
    match found {
        Some((what, text)) => vec![Effect::Copy { what, text }],
        None => {
            say(model, Told::bad("there is nothing to copy here yet"));
            Vec::new()
        }
    }
}
