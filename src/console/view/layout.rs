//! Where everything is, by the size of the screen: four live panes where there is room, else one.

use ratatui::layout::Rect;

use crate::console::model::{Model, View};

/// Columns and rows from which the dashboard shows its four panes at once.
pub const WIDE: (u16, u16) = (110, 30);

/// The parts of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Areas {
    /// The first line: workspace, counts, banners.
    pub header: Rect,
    /// The second line: the views.
    pub tabs: Rect,
    /// All that the panes have.
    pub body: Rect,
    /// Each pane in sight.
    pub panes: Vec<(View, Rect)>,
    /// The last line: keys, or the latest word.
    pub hint: Rect,
}

/// The parts of a screen of that area.
pub fn areas(model: &Model, area: Rect) -> Areas {
    let row = |y: u16| Rect::new(area.x, area.y + y.min(area.height), area.width, u16::from(y < area.height));
    let body = Rect::new(area.x, area.y + 2.min(area.height), area.width, area.height.saturating_sub(3));
    Areas { header: row(0), tabs: row(1), body, panes: panes(model, body), hint: row(area.height.saturating_sub(1)) }
}

fn panes(model: &Model, body: Rect) -> Vec<(View, Rect)> {
    let wide = model.size.0 >= WIDE.0 && model.size.1 >= WIDE.1;
    if model.view != View::Dashboard || !wide {
        return vec![(model.pane(), body)];
    }
    let (left, top) = (body.width / 2, body.height / 2);
    let at = |x: u16, y: u16| {
        let (width, height) = (if x == 0 { left } else { body.width - left }, if y == 0 { top } else { body.height - top });
        Rect::new(body.x + if x == 0 { 0 } else { left }, body.y + if y == 0 { 0 } else { top }, width, height)
    };
    View::LIVE.into_iter().zip([at(0, 0), at(1, 0), at(0, 1), at(1, 1)]).collect()
}

/// Where a pane is, or would be if it were in sight.
pub fn pane(model: &Model, view: View) -> Rect {
    let areas = areas(model, Rect::new(0, 0, model.size.0, model.size.1));
    areas.panes.iter().find(|(shown, _)| *shown == view).map_or(areas.body, |(_, area)| *area)
}

/// The inside of an answer, which has all the room that panes have.
pub fn answer(model: &Model) -> Rect {
    let body = areas(model, Rect::new(0, 0, model.size.0, model.size.1)).body;
    Rect::new(body.x + 1, body.y + 1, body.width.saturating_sub(2), body.height.saturating_sub(2))
}
