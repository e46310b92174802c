//! The palette: every action and run by name, the best fit first. What cannot be done now is there too,
//! with the reason.

use nucleo_matcher::pattern::{CaseMatching, Normalization, Pattern};
use nucleo_matcher::{Config, Matcher, Utf32Str};

use super::act::{LINE, why_not};
use crate::console::action::{Action, Entry, TABLE};
use crate::console::keys::shown;
use crate::console::model::Model;
use crate::console::model::popup::{Hit, Palette, Popup, Target};
use crate::console::model::prompt::Prompt;
use crate::console::panes::runs::word;
use crate::ledger::RunLine;

/// Most hits that are kept.
const MAX_HITS: usize = 100;

/// Opens it, with something typed already.
pub(super) fn open(model: &mut Model, text: &str) {
    let mut palette = Palette { prompt: Prompt::with(text, LINE), hits: Vec::new(), at: 0, recall: None };
    find(model, &mut palette);
    model.popups.push(Popup::Palette(palette));
}

/// Finds what fits what was typed.
pub(super) fn find(model: &Model, palette: &mut Palette) {
    let typed = palette.prompt.text().trim();
    // With an argument it is a command, not a name that is being looked for.
    let name = typed.split_whitespace().next().unwrap_or_default();
    let command = palette.prompt.text().contains(' ') && TABLE.iter().any(|e| e.name == name);
    let pattern = Pattern::parse(if command { name } else { typed }, CaseMatching::Ignore, Normalization::Smart);
    let mut matcher = Matcher::new(Config::DEFAULT);
    let mut space = Vec::new();
    let mut score = |text: &str| pattern.score(Utf32Str::new(text, &mut space), &mut matcher);

    let mut scored: Vec<(u32, Hit)> = Vec::new();
    for entry in TABLE {
        // A name that was typed out comes before one that only resembles it.
        let exact = u32::from(entry.name == name) * 10_000;
        let by_name = score(entry.name).map(|points| points * 2 + exact);
        if let Some(points) = by_name.max(score(entry.help)) {
            scored.push((points, action_hit(model, entry)));
        }
    }
    if typed.len() >= 2 && !command {
        let mut runs: Vec<(u32, &RunLine)> = model
            .runs
            .iter()
            .filter_map(|line| Some((score(&line.run_key).max(line.request_id.as_deref().and_then(&mut score))?, line)))
            .collect();
        runs.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| b.1.updated.cmp(&a.1.updated)));
        scored.extend(runs.into_iter().take(MAX_HITS).map(|(points, line)| (points, run_hit(line))));
    }
    if !typed.is_empty() {
        scored.sort_by_key(|(points, _)| std::cmp::Reverse(*points));
    }
    palette.hits = scored.into_iter().map(|(_, hit)| hit).take(MAX_HITS).collect();
    palette.at = 0;
}

fn action_hit(model: &Model, entry: &Entry) -> Hit {
    let why = why_not(model, entry.action);
    let keys: Vec<String> = model.keys.keys(entry.action).iter().map(|chord| shown(*chord)).collect();
    Hit {
        target: Target::Act(entry.action),
        name: entry.name.into(),
        enabled: why.is_none(),
        about: why.or_else(|| way(model, entry.action)).unwrap_or_else(|| entry.help.into()),
        key: keys.join(" "),
    }
}

/// Where the way through views, runs and filters leads from here.
fn way(model: &Model, action: Action) -> Option<String> {
    match action {
        Action::HistoryBack => model.history.back.last().map(|spot| format!("back to {spot}")),
        Action::HistoryOn => model.history.forward.last().map(|spot| format!("on to {spot}")),
        _ => None,
    }
}

/// Takes up an earlier command, or a later one; past the latest there is an empty line again.
pub(super) fn recall(model: &Model, palette: &mut Palette, earlier: bool) {
    let all = model.commands.len();
    let at = palette.recall.unwrap_or(all);
    let at = if earlier { at.saturating_sub(1) } else { at + 1 };
    palette.recall = (at < all).then_some(at);
    palette.prompt.set(model.commands.get(at).map_or("", String::as_str));
    find(model, palette);
}

fn run_hit(line: &RunLine) -> Hit {
    Hit {
        target: Target::Run(line.run_key.clone()),
        name: line.run_key.get(..8).unwrap_or(&line.run_key).into(),
        about: format!("{} {}", word(line), line.request_id.as_deref().unwrap_or("-")),
        key: String::new(),
        enabled: true,
    }
}
