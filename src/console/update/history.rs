//! The way through views, runs and filters, back and forward, as in a browser.

use super::act::return_to;
use super::{follow, say};
use crate::console::model::history::Spot;
use crate::console::model::{Model, View};
use crate::console::msg::{Effect, Told};
use crate::console::view::layout;

/// Most steps that are remembered.
const MAX: usize = 100;

/// Where the console stands.
pub(super) fn here(model: &Model) -> Spot {
    Spot {
        view: model.view,
        focus: model.focus,
        filter: model.panes.runs.filter().clone(),
        run: model.panes.runs.selected().map(str::to_owned),
    }
}

/// Remembers the place that was left: another view, another filter, or a run that was jumped to. Moving along
/// the rows is no step.
pub(super) fn note(model: &mut Model) {
    let now = here(model);
    let history = &mut model.history;
    let jumped = std::mem::take(&mut history.jumped) && now.run != history.here.run;
    let left = std::mem::replace(&mut history.here, now);
    if jumped || (left.view, &left.filter) != (history.here.view, &history.here.filter) {
        history.back.push(left);
        history.forward.clear();
        let over = history.back.len().saturating_sub(MAX);
        history.back.drain(..over);
    }
}

/// Goes there without a step.
pub(super) fn begin(model: &mut Model) {
    model.history.here = here(model);
}

/// Why there is no way.
pub(super) fn why_not(model: &Model, on: bool) -> Option<String> {
    let way = if on { &model.history.forward } else { &model.history.back };
    way.is_empty().then(|| if on { "nothing was gone back from" } else { "this is where it began" }.to_owned())
}

/// Back, or forward again.
pub(super) fn go(model: &mut Model, on: bool) -> Vec<Effect> {
    note(model);
    let history = &mut model.history;
    let (from, to) = if on { (&mut history.forward, &mut history.back) } else { (&mut history.back, &mut history.forward) };
    let Some(spot) = from.pop() else { return Vec::new() };
    to.push(std::mem::replace(&mut history.here, spot.clone()));
    let height = layout::pane(model, View::Runs).height;
    if model.panes.runs.filter() != &spot.filter {
        model.panes.runs.set_filter(spot.filter.clone(), &model.runs, model.now, height);
    }
    return_to(model, spot.view);
    model.focus = spot.focus;
    if spot.view == View::Dashboard {
        model.trail.clear();
    }
    if let Some(run) = &spot.run {
        model.panes.runs.select(&model.runs, run, height);
    }
    say(model, Told::plain(spot.to_string()));
    follow(model)
}
