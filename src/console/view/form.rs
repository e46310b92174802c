//! How the form for a new intent looks.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::popups::{boxed, typed};
use crate::console::look::Role;
use crate::console::model::Model;
use crate::console::model::form::Form;

/// Columns of a line's name.
const NAME: u16 = 13;

pub(super) fn draw(model: &Model, buf: &mut Buffer, body: Rect, form: &Form) {
    let mut canvas = boxed(model, buf, body, "New intent", 74, 12);
    let width = canvas.width().saturating_sub(1);
    canvas.text(1, 0, width, "what is left empty is resolved from the workspace, or refused", Role::Dim);
    for (index, (y, field)) in (2u16..).zip(&form.fields).enumerate() {
        let mark = if index == form.at { model.look.glyphs.selected } else { " " };
        canvas.text(0, y, NAME, &format!("{mark}{}", field.name), Role::Key);
        if index == form.at {
            typed(&mut canvas, NAME, y, "", &field.prompt);
        } else if field.prompt.text().is_empty() {
            canvas.text(NAME, y, width.saturating_sub(NAME), &format!("({})", field.empty), Role::Dim);
        } else {
            canvas.text(NAME, y, width.saturating_sub(NAME), field.prompt.text(), Role::Value);
        }
    }
    let (text, role) = match &form.problem {
        Some(problem) => (problem.clone(), Role::Bad),
        None if form.waiting => ("resolving against the workspace".into(), Role::Running),
        None => (form.command(), Role::Dim),
    };
    // A refusal is longer than a line, and is what matters then.
    let shown: Vec<char> = text.chars().collect();
    for (y, line) in (10u16..12).zip(shown.chunks(usize::from(width).max(1))) {
        canvas.text(1, y, width, &line.iter().collect::<String>(), role);
    }
}
