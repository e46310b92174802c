//! The first two lines: where we are, what there is to look at, and what is unusual about this screen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::console::look::{Look, Role};
use crate::console::model::{Mode, Model, View};
use crate::console::msg::Feed;
use crate::console::panes::parts::{Canvas, Piece, ago, columns, piece};
use crate::console::panes::stale;
use crate::console::update::past;
use crate::text::safe;

/// Workspace and counts on the left, banners on the right. A banner is never dropped for a count.
pub(super) fn header(model: &Model, look: &Look, buf: &mut Buffer, area: Rect) {
    let mut canvas = Canvas::new(buf, area, look);
    let banners = banners(model);
    let taken: u16 = banners.iter().map(|text| columns(text) + 3).sum();
    let room = canvas.width().saturating_sub(taken);
    let counts = model.runs.counts();
    let glyphs = model.look.glyphs;
    let mut pieces = vec![piece(" ofs ", Role::Title), piece(safe(&model.workspace), Role::Dim)];
    let some = |n: usize, glyph: &str, name: &str, role: Role| (n > 0).then(|| piece(format!("  {glyph} {n} {name}"), role));
    pieces.extend(
        [
            some(counts.stuck, glyphs.stuck, "stuck", Role::Warn),
            some(counts.failed, glyphs.bad, "failed", Role::Bad),
            some(counts.pending, glyphs.waiting, "pending", Role::Warn),
            some(counts.running.saturating_sub(counts.stalled), glyphs.running, "running", Role::Running),
            some(counts.queued, glyphs.waiting, "queued", Role::Waiting),
            some(counts.done, glyphs.ok, "done", Role::Good),
        ]
        .into_iter()
        .flatten(),
    );
    canvas.part(0, 0, room, 1).line(0, 0, &pieces);
    let mut x = room;
    for text in &banners {
        x += canvas.text(x + 1, 0, columns(text) + 2, &format!(" {text} "), Role::Banner) + 1;
    }
}

/// What is unusual about this screen.
fn banners(model: &Model) -> Vec<String> {
    let mut banners: Vec<String> = past::banner(model).into_iter().collect();
    if let Some(frozen) = &model.frozen {
        banners.push(format!("FROZEN {}", since(model, frozen.since.0)));
    }
    match model.stale() {
        Some(age) => banners.push(stale(age)),
        None if model.feed == Feed::Static => banners.push("STATIC".into()),
        None => {}
    }
    if let Mode::ReadOnly(_) = model.mode {
        banners.push("READ-ONLY".into());
    }
    banners
}

fn since(model: &Model, micros: i64) -> String {
    let age = model.clock.0.saturating_sub(micros);
    if age < 60_000_000 { "<1m".into() } else { ago(age) }
}

/// The views with their keys, the one shown set apart; the selected run on the right.
pub(super) fn tabs(model: &Model, buf: &mut Buffer, area: Rect) {
    let mut canvas = Canvas::new(buf, area, &model.look);
    let run = model.selected().map(|line| format!("run {} ", line.run_key.get(..8).unwrap_or(&line.run_key))).unwrap_or_default();
    let views: Vec<View> = std::iter::once(View::Dashboard).chain(View::PANES).collect();
    let wanted: u16 = views.iter().map(|view| columns(&label(model, *view, true)) + 1).sum();
    let width = canvas.width();
    // The views come before the run: its key stands in the list and in every pane's frame, too.
    let run = if wanted + columns(&run) < width { run } else { String::new() };
    let (room, whole) = (width.saturating_sub(columns(&run)), wanted <= width);
    let pieces: Vec<Piece<'_>> = views
        .iter()
        .flat_map(|view| {
            let here = *view == model.view || (model.view == View::Triage && *view == View::Runs);
            let role = if here { Role::Focus } else { Role::Dim };
            [piece(label(model, *view, whole || here), role), piece(" ", Role::Text)]
        })
        .collect();
    canvas.part(0, 0, room, 1).line(0, 0, &pieces);
    canvas.text(room, 0, columns(&run), &run, Role::Value);
}

fn label(model: &Model, view: View, whole: bool) -> String {
    let key = model.keys.first(view.action()).unwrap_or_default();
    let mut name = if view == View::Dashboard { "dash".to_owned() } else { view.name().to_owned() };
    if model.view == View::Triage && view == View::Runs {
        name = "runs>triage".into();
    }
    let mark = if view == model.view { [" [", "]"] } else { [" ", ""] };
    if whole { format!("{}{key} {name}{}", mark[0], mark[1]) } else { format!(" {key}") }
}
