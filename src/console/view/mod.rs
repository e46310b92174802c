//! How the model looks: pure, at every size.

pub mod export;
mod form;
mod frame;
mod gate;
mod help;
mod hint;
mod inquiry;
pub mod layout;
mod popups;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::look::{Look, Role};
use super::model::{Model, View};
use super::panes::parts::Canvas;

/// Draws everything.
pub fn view(model: &Model, buf: &mut Buffer) {
    let area = buf.area;
    if model.too_small() || area.width < 60 || area.height < 16 {
        return too_small(model, buf);
    }
    let areas = layout::areas(model, area);
    let doubtful = model.stale().map(|_| model.look.doubtful());
    let look = doubtful.as_ref().unwrap_or(&model.look);
    frame::header(model, look, buf, areas.header);
    frame::tabs(model, buf, areas.tabs);
    for (view, area) in &areas.panes {
        pane(model, look, *view, buf, *area);
    }
    hint::last_line(model, buf, areas.hint);
    if let Some(popup) = model.popups.last() {
        popups::draw(model, popup, buf, areas.body, areas.hint);
    }
}

fn pane(model: &Model, look: &Look, view: View, buf: &mut Buffer, area: Rect) {
    let focused = view == model.pane();
    model.panes.draw(view, buf, area, &model.seen(), &model.slot, look, focused);
}

fn too_small(model: &Model, buf: &mut Buffer) {
    let area = buf.area;
    let mut canvas = Canvas::new(buf, area, &model.look);
    let (width, y) = (canvas.width(), canvas.height() / 2);
    canvas.text(0, y, width, "too small", Role::Banner);
    canvas.text(0, y + 1, width, "60x16 needed; q quits", Role::Text);
}

/// The screen as text, without spaces at the end of its lines.
pub fn text(model: &Model) -> String {
    let mut buf = Buffer::empty(Rect::new(0, 0, model.size.0, model.size.1));
    let mut still = Vec::new();
    view(model, &mut buf);
    for y in 0..buf.area.height {
        let row: String = (0..buf.area.width).filter_map(|x| buf.cell((x, y))).map(|cell| cell.symbol()).collect();
        still.push(row.trim_end().to_owned());
    }
    still.join("\n") + "\n"
}

#[cfg(test)]
mod tests;
