//! What was typed into the palette and confirmed: a command with its argument, or the selected hit.

use std::path::PathBuf;

use super::act::{act, goto, set_filter};
use super::{follow, past, refresh, say};
use crate::console::action::Action;
use crate::console::filter::Filter;
use crate::console::look::Theme;
use crate::console::model::past::speed;
use crate::console::model::popup::{Palette, Popup, Target};
use crate::console::model::{Model, View};
use crate::console::msg::{Effect, Told};
use crate::console::panes::runs::RunsPane;
use crate::console::view;
use crate::console::view::export::{Format, render};
use crate::console::view::layout;

/// Most commands that are remembered.
const MAX_COMMANDS: usize = 100;

/// Obeys.
pub(super) fn run(model: &mut Model, palette: Palette) -> Vec<Effect> {
    let text = palette.prompt.text().trim().to_owned();
    if !text.is_empty() && model.commands.last() != Some(&text) {
        model.commands.push(text.clone());
        let over = model.commands.len().saturating_sub(MAX_COMMANDS);
        model.commands.drain(..over);
    }
    let (name, argument) = text.split_once(char::is_whitespace).map_or((text.as_str(), ""), |(name, rest)| (name, rest.trim()));
    let takes =
        [Action::Export, Action::Snapshot, Action::Run, Action::Filter, Action::Break, Action::Theme, Action::Columns, Action::Play];
    if let Some(action) = Action::named(name).filter(|action| takes.contains(action)) {
        if argument.is_empty() && palette.prompt.text().contains(' ') {
            say(model, Told::bad(usage(action)));
            model.popups.push(Popup::Palette(palette));
            return Vec::new();
        }
        if !argument.is_empty() {
            return with(model, action, argument);
        }
    }
    let Some(hit) = palette.hits.get(palette.at).cloned() else {
        say(model, Told::bad(format!("nothing is called {text}")));
        return Vec::new();
    };
    match hit.target {
        Target::Act(action) => act(model, action),
        Target::Run(run_key) => {
            goto_run(model, &run_key);
            follow(model)
        }
    }
}

/// Selects a run, taking the filter away where it hides it.
fn goto_run(model: &mut Model, run_key: &str) {
    model.history.jumped = true;
    if !matches!(model.view, View::Dashboard | View::Runs) {
        goto(model, View::Runs);
    }
    model.focus = View::Runs;
    let height = layout::pane(model, View::Runs).height;
    if !model.panes.runs.select(&model.runs, run_key, height) {
        model.panes.runs.set_filter(Filter::default(), &model.runs, model.now, height);
        model.panes.runs.select(&model.runs, run_key, height);
    }
    refresh(model);
}

fn usage(action: Action) -> String {
    match action {
        Action::Theme => return format!(":theme NAME, one of {}", Theme::names().join(", ")),
        Action::Columns => return format!(":columns all, or some of {}, parted by commas", RunsPane::columns().join(",").to_lowercase()),
        Action::Export => ":export json|csv|md PATH",
        Action::Snapshot => ":snapshot PATH",
        Action::Run => ":run PATH of an intent file",
        Action::Filter => ":filter EXPR, like state=FAILED age<2h",
        Action::Play => ":play SPEED, like 4 or 0.5; p pauses, > and < change it",
        _ => ":break PHASE or REASON_CODE; :break off takes all away",
    }
    .into()
}

fn with(model: &mut Model, action: Action, argument: &str) -> Vec<Effect> {
    if let Some(why) = super::why_not(model, action) {
        say(model, Told::bad(format!("{}: {why}", action.entry().name)));
        return Vec::new();
    }
    match action {
        Action::Run => vec![Effect::Build { path: argument.into(), step: false }],
        Action::Snapshot => vec![Effect::Write { what: "snapshot".into(), path: argument.into(), content: view::text(model) }],
        Action::Filter => match Filter::parse(argument) {
            Ok(filter) => {
                set_filter(model, filter);
                follow(model)
            }
            Err(problem) => {
                say(model, Told::bad(problem.to_string()));
                Vec::new()
            }
        },
        Action::Break => vec![Effect::Break(argument.to_owned())],
        Action::Theme => match model.look.theme.another(argument) {
            Ok(theme) => {
                model.look.theme = theme;
                vec![Effect::Repaint]
            }
            Err(problem) => {
                say(model, Told::bad(problem.to_string()));
                Vec::new()
            }
        },
        Action::Columns => {
            let names: Vec<&str> = argument.split(',').map(str::trim).filter(|name| *name != "all").collect();
            if let Err(problem) = model.panes.runs.choose(&names) {
                say(model, Told::bad(problem));
            }
            Vec::new()
        }
        Action::Export => export(model, argument),
        Action::Play => match speed(argument) {
            Ok(speed) => past::play(model, Some(speed)),
            Err(problem) => {
                say(model, Told::bad(format!("play: {problem}")));
                Vec::new()
            }
        },
        _ => {
            say(model, Told::bad(usage(action)));
            Vec::new()
        }
    }
}

/// Writes what the pane shows: the rows that pass its filter, in its order.
fn export(model: &mut Model, argument: &str) -> Vec<Effect> {
    let (format, path) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
    let (Some(format), false) = (Format::named(format), path.trim().is_empty()) else {
        say(model, Told::bad(usage(Action::Export)));
        return Vec::new();
    };
    let table = model.panes.table(model.pane(), &model.seen());
    let what = format!("{} rows of {}", table.len().saturating_sub(1), model.pane().name());
    vec![Effect::Write { what, path: PathBuf::from(path.trim()), content: render(&table, format) }]
}
