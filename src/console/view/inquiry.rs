//! How questions, their answers and what one chooses from look.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::popups::{boxed, typed};
use crate::console::look::Role;
use crate::console::model::Model;
use crate::console::model::inquiry::{Choose, Choosing, Inquiry, State};
use crate::console::panes::answer;
use crate::console::panes::parts::{Canvas, Cursor, Heading, piece, thousands};

/// An answer has all the room that panes have.
pub(super) fn draw(model: &Model, buf: &mut Buffer, body: Rect, shown: &Inquiry) {
    let title = shown.question.title();
    let heading = Heading { title: &crate::text::safe(&title), age: Some(-1), ..Heading::default() };
    let mut canvas = Canvas::framed(buf, body, &heading, &model.look, true);
    match &shown.state {
        State::Asking(done, total) => {
            let far = if *total > 0 { format!("  {} of {}", thousands(*done), thousands(*total)) } else { String::new() };
            let glyph = canvas.glyphs().running;
            canvas.line(1, 0, &[piece(format!("{glyph} RUNNING{far}"), Role::Running), piece("   Esc calls it off", Role::Dim)]);
            let width = canvas.width().saturating_sub(1);
            canvas.text(1, 1, width, &shown.question.command(), Role::Dim);
        }
        State::Answered(lines) => {
            // The terminal may have another size than when the cursor was moved.
            let mut cursor = shown.cursor;
            answer::settle(&mut cursor, lines, canvas.width(), canvas.height());
            answer::draw(&mut canvas, lines, &cursor);
        }
    }
}

/// Something to choose, with a line to type.
pub(super) fn choose(model: &Model, buf: &mut Buffer, body: Rect, shown: &Choose) {
    let title = match &shown.what {
        Choosing::Row(_) => "Explain which row?",
        Choosing::Run(_) => "Compare pins with which run?",
        Choosing::DataSet(_) => "Compare with which data set?",
    };
    let mut canvas = boxed(model, buf, body, title, 116, body.height.min(22));
    typed(&mut canvas, 1, 0, "> ", &shown.prompt);
    let width = canvas.width();
    if let Some(problem) = &shown.problem {
        canvas.text(1, 1, width.saturating_sub(1), problem, Role::Bad);
    }
    let mut list = canvas.below(2);
    let Some(offers) = &shown.offers else {
        list.text(1, 0, width, "looking; Enter takes what is typed", Role::Dim);
        return;
    };
    let cursor = Cursor { at: shown.at, top: 0 };
    for (y, index) in (0u16..).zip(cursor.window(shown.hits.len(), usize::from(list.height()))) {
        let Some((name, about)) = shown.hits.get(index).and_then(|at| offers.get(*at)) else { continue };
        let taken = list.text(1, y, width.saturating_sub(2), name, Role::Value).max(12);
        list.text(taken + 3, y, width.saturating_sub(taken + 4), about, Role::Dim);
        if index == shown.at {
            list.select(y, true);
        }
    }
    if shown.hits.is_empty() {
        let none = if shown.prompt.text().trim().is_empty() { "nothing to choose from" } else { "Enter takes what is typed" };
        list.text(1, 0, width, none, Role::Dim);
    }
}
