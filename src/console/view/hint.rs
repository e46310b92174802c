//! The last line: the latest word, or the keys that matter most here, as many as there is room for. How to
//! leave is always among them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::console::action::{Action, Entry, Place, TABLE};
use crate::console::look::Role;
use crate::console::model::popup::Popup;
use crate::console::model::{Model, View};
use crate::console::msg::Mood;
use crate::console::panes::parts::{Canvas, Piece, columns, piece};

/// Draws it.
pub(super) fn last_line(model: &Model, buf: &mut Buffer, area: Rect) {
    let mut canvas = Canvas::new(buf, area, &model.look);
    let width = canvas.width();
    if let (Some((told, _)), None) = (&model.flash, model.popups.last()) {
        let (mark, role) = match told.mood {
            Mood::Good => (model.look.glyphs.ok, Role::Good),
            Mood::Plain => (model.look.glyphs.separator, Role::Text),
            Mood::Bad => (model.look.glyphs.bad, Role::Bad),
        };
        canvas.text(1, 0, width.saturating_sub(2), &format!("{mark} {}", told.text), role);
        return;
    }
    let pieces = match model.popups.last() {
        Some(popup) => fitted(&own_keys(popup), width),
        None => fitted(&keys(model), width),
    };
    canvas.line(1, 0, &pieces);
}

/// The hints of this place, by their weight in the table; those of the narrow place first.
fn keys(model: &Model) -> Vec<(String, String)> {
    if model.past.is_some() {
        let keys = [
            (Action::ScrubBack, "back"),
            (Action::ScrubOn, "on"),
            (Action::Play, "play"),
            (Action::ScrubNow, "now"),
            (Action::Help, "help"),
        ];
        let keys = keys.into_iter().chain([(Action::Quit, "quit")]);
        return keys.filter_map(|(action, name)| Some((model.keys.first(action)?, name.to_owned()))).collect();
    }
    let here = model.places();
    let mut entries: Vec<&Entry> =
        TABLE.iter().filter(|e| weight(model, e) > 0 && model.offers(e.action)).filter(|e| here.contains(&e.place)).collect();
    entries.sort_by_key(|e| (weight(model, e), e.place == Place::Global));
    entries.into_iter().filter_map(|e| Some((model.keys.first(e.action)?, short(e.action).to_owned()))).collect()
}

/// What is asked of evidence is hinted at where evidence is, what is legal for a run where that is told.
fn weight(model: &Model, entry: &Entry) -> u8 {
    let about = match model.pane() {
        View::Evidence => matches!(entry.action, Action::Explain | Action::Diff),
        View::Triage if matches!(entry.action, Action::Resume | Action::Retry | Action::Cancel | Action::Fail) => {
            model.detail().is_some_and(|detail| detail.triage.actions.iter().any(|legal| legal.name == entry.name))
        }
        View::Runs | View::Triage => false,
        // Enter means nothing in the other panes.
        _ if entry.action == Action::Open => return 0,
        _ => false,
    };
    if about { 1 } else { entry.hint }
}

fn short(action: Action) -> &'static str {
    match action {
        Action::Palette => "commands",
        Action::CopySummary => "summary",
        other => other.entry().name,
    }
}

/// The keys of a popup.
fn own_keys(popup: &Popup) -> Vec<(String, String)> {
    let pairs: &[(&str, &str)] = match popup {
        Popup::Help { .. } | Popup::Text { .. } => &[("j/k", "scroll"), ("PgDn", "page"), ("Esc", "close")],
        Popup::Palette(_) => &[("Enter", "do it"), ("Up/Down", "choose"), ("Esc", "close")],
        Popup::Filter { .. } => &[("Enter", "keep"), ("Esc", "as before")],
        Popup::Confirm(_) => &[("y/n", "answer"), ("Enter", "the marked one"), ("Esc", "no")],
        Popup::Ask(_) => &[("Enter", "go on"), ("Esc", "nothing is done")],
        Popup::Gate(gate) if gate.typing => &[("Enter", "look"), ("Esc", "as before")],
        Popup::Gate(gate) if gate.open.is_some() => &[("j/k", "scroll"), ("C", "continue"), ("Esc", "back to the rows")],
        Popup::Gate(_) => &[
            ("C", "continue"),
            ("E", "to the end"),
            ("A", "abort"),
            ("Tab", "next"),
            ("Enter", "row"),
            ("h/l", "columns"),
            ("/", "find"),
            ("Esc", "leave it"),
        ],
        Popup::Inquiry(asked) if asked.lines().is_empty() => &[("c", "copy as command"), ("Esc", "call it off")],
        Popup::Inquiry(asked) if asked.lines().iter().all(|line| line.event.is_none()) => {
            &[("j/k", "move"), ("y", "copy"), ("c", "as command"), ("Esc", "close")]
        }
        Popup::Inquiry(_) => &[("j/k", "move"), ("Enter", "explain the row"), ("y", "copy"), ("c", "as command"), ("Esc", "close")],
        Popup::Choose(_) => &[("Enter", "take it"), ("Up/Down", "choose"), ("Esc", "close")],
        Popup::Form(_) => &[("Tab", "next line"), ("Enter", "write it"), ("Esc", "close")],
        Popup::Picker(_) => &[("Enter", "build"), ("s", "step mode"), ("n", "new intent"), ("Esc", "close")],
    };
    pairs.iter().map(|(key, name)| ((*key).to_owned(), (*name).to_owned())).collect()
}

/// As many as fit; the last one always does.
fn fitted(keys: &[(String, String)], width: u16) -> Vec<Piece<'static>> {
    let size = |(key, name): &(String, String)| columns(key) + columns(name) + 3;
    let Some((last, rest)) = keys.split_last() else { return Vec::new() };
    let mut room = width.saturating_sub(1 + size(last));
    let fitting = rest.iter().take_while(|pair| {
        let fits = size(pair) <= room;
        room = room.saturating_sub(size(pair));
        fits
    });
    fitting
        .chain(std::iter::once(last))
        .flat_map(|(key, name)| [piece(key.clone(), Role::Key), piece(format!(" {name}  "), Role::Dim)])
        .collect()
}
