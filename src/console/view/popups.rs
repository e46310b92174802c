//! How popups look.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{form, gate, help, inquiry};
use crate::console::look::Role;
use crate::console::model::Model;
use crate::console::model::popup::{Ask, Confirm, Palette, Picker, Popup};
use crate::console::model::prompt::Prompt;
use crate::console::panes::parts::{Canvas, Cursor, Heading, Piece, columns, piece};

/// Draws one over `body`; a filter is typed in the last line, so that its rows stay in sight.
pub(super) fn draw(model: &Model, popup: &Popup, buf: &mut Buffer, body: Rect, hint: Rect) {
    match popup {
        Popup::Help { top } => text(model, buf, body, "Keys", &help::lines(model), *top),
        Popup::Text { title, lines, top } => {
            let lines: Vec<Vec<Piece<'_>>> = lines.iter().map(|line| vec![piece(line.as_str(), Role::Text)]).collect();
            text(model, buf, body, title, &lines, *top);
        }
        Popup::Filter { prompt, problem, .. } => {
            let mut canvas = Canvas::new(buf, hint, &model.look);
            canvas.clear();
            let at = typed(&mut canvas, 1, 0, "/", prompt);
            let told = problem.clone().unwrap_or_else(|| "text  key=value  age<2h".into());
            let told = format!("Enter keeps, Esc undoes   {told}");
            let role = if problem.is_some() { Role::Bad } else { Role::Dim };
            let room = canvas.width().saturating_sub(at + 3);
            canvas.text(at + 3, 0, room, &told, role);
        }
        Popup::Confirm(asked) => confirm(model, buf, body, asked),
        Popup::Ask(asked) => ask(model, buf, body, asked),
        Popup::Palette(shown) => palette(model, buf, body, shown),
        Popup::Picker(shown) => picker(model, buf, body, shown),
        Popup::Form(shown) => form::draw(model, buf, body, shown),
        Popup::Gate(shown) => gate::draw(model, buf, body, shown),
        Popup::Inquiry(shown) => inquiry::draw(model, buf, body, shown),
        Popup::Choose(shown) => inquiry::choose(model, buf, body, shown),
    }
}

/// A box in the middle of `body`, as large as its content wants and there is room for.
pub(super) fn boxed<'b>(model: &'b Model, buf: &'b mut Buffer, body: Rect, title: &str, width: u16, height: u16) -> Canvas<'b> {
    let (width, height) = (width.saturating_add(4).min(body.width), height.saturating_add(2).min(body.height));
    let area = Rect::new(body.x + (body.width - width) / 2, body.y + (body.height - height) / 2, width, height);
    Canvas::framed(buf, area, &Heading { title, age: Some(-1), ..Heading::default() }, &model.look, true)
}

/// A text that is longer than its box.
fn text(model: &Model, buf: &mut Buffer, body: Rect, title: &str, lines: &[Vec<Piece<'_>>], top: usize) {
    let wanted = lines.iter().map(|line| line.iter().map(|p| columns(&p.text)).fold(0, u16::saturating_add)).max().unwrap_or(0);
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
    let mut canvas = boxed(model, buf, body, title, wanted.max(30), height);
    let rows = usize::from(canvas.height());
    let top = top.min(lines.len().saturating_sub(rows));
    for (y, line) in (0u16..).zip(lines.iter().skip(top).take(rows)) {
        canvas.line(1, y, line);
    }
}

/// A line being typed, with its cursor. Returns the column after it.
pub(super) fn typed(canvas: &mut Canvas<'_>, x: u16, y: u16, label: &str, prompt: &Prompt) -> u16 {
    let at = x + canvas.text(x, y, canvas.width(), label, Role::Key);
    let room = usize::from(canvas.width().saturating_sub(at + 1)).max(1);
    let skip = prompt.cursor().saturating_sub(room.saturating_sub(1));
    let shown: String = prompt.text().chars().skip(skip).take(room).collect();
    let taken = canvas.text(at, y, canvas.width().saturating_sub(at), &shown, Role::Value);
    let before: String = shown.chars().take(prompt.cursor() - skip).collect();
    canvas.tint(at + columns(&crate::text::safe(&before)), y, 1, Role::Selection);
    at + taken
}

fn confirm(model: &Model, buf: &mut Buffer, body: Rect, asked: &Confirm) {
    let wanted = asked.lines.iter().map(|line| columns(line)).max().unwrap_or(0).max(40);
    let height = u16::try_from(asked.lines.len() + 2).unwrap_or(u16::MAX);
    let mut canvas = boxed(model, buf, body, &asked.title, wanted, height);
    let width = canvas.width();
    let rows = canvas.height().saturating_sub(2);
    for (y, line) in (0..rows).zip(&asked.lines) {
        canvas.text(1, y, width.saturating_sub(1), line, Role::Text);
    }
    let (mut x, y) = (1, canvas.height().saturating_sub(1));
    for (index, choice) in asked.choices.iter().enumerate() {
        let mark = if index == asked.at { model.look.glyphs.selected } else { " " };
        let label = format!("{mark}[{}] {} ", choice.key, choice.label);
        let taken = canvas.text(x, y, width.saturating_sub(x), &label, Role::Key);
        if index == asked.at {
            canvas.tint(x, y, taken, Role::Selection);
        }
        x += taken + 2;
    }
}

fn ask(model: &Model, buf: &mut Buffer, body: Rect, asked: &Ask) {
    let mut canvas = boxed(model, buf, body, asked.kind.order("").name(), 72, 8);
    let width = canvas.width().saturating_sub(1);
    canvas.text(1, 0, width, &format!("{}  now {}", asked.whom(), asked.stood), Role::Value);
    canvas.text(1, 1, width, asked.kind.question(), Role::Text);
    typed(&mut canvas, 1, 2, "> ", &asked.words);
    if let Some(key) = &asked.typed {
        canvas.text(1, 4, width, &format!("This cannot be undone. Type {} to do it:", asked.expected()), Role::Danger);
        typed(&mut canvas, 1, 5, "> ", key);
    }
    let key = if asked.all.is_empty() { asked.run_key.as_str() } else { "KEY" };
    let command = asked.kind.order(asked.words.text()).command(key) + if asked.all.is_empty() { "" } else { "  for each" };
    match &asked.problem {
        Some(problem) => canvas.text(1, 7, width, problem, Role::Bad),
        None => canvas.text(1, 7, width, &command, Role::Dim),
    };
}

fn palette(model: &Model, buf: &mut Buffer, body: Rect, shown: &Palette) {
    let mut canvas = boxed(model, buf, body, "Commands", 76, body.height.min(22));
    typed(&mut canvas, 1, 0, ":", &shown.prompt);
    let mut list = canvas.below(1);
    let width = list.width();
    let cursor = Cursor { at: shown.at, top: 0 };
    for (y, index) in (0u16..).zip(cursor.window(shown.hits.len(), usize::from(list.height()))) {
        let Some(hit) = shown.hits.get(index) else { continue };
        let (name, about) = if hit.enabled { (Role::Text, Role::Dim) } else { (Role::Dim, Role::Dim) };
        list.text(1, y, 17, &hit.name, name);
        list.text(19, y, 12, &hit.key, Role::Key);
        let about_text = if hit.enabled { hit.about.clone() } else { format!("({})", hit.about) };
        list.text(32, y, width.saturating_sub(33), &about_text, about);
        if index == shown.at {
            list.select(y, true);
        }
    }
    if shown.hits.is_empty() {
        list.text(1, 0, width, "nothing is called so", Role::Dim);
    }
}

fn picker(model: &Model, buf: &mut Buffer, body: Rect, shown: &Picker) {
    let mut canvas = boxed(model, buf, body, "Build from an intent", 76, body.height.min(16));
    let width = canvas.width();
    let step = if shown.step { "[x] stop at each gate (s)" } else { "[ ] stop at each gate (s)" };
    canvas.text(1, 0, width, step, if shown.step { Role::Warn } else { Role::Text });
    let mut list = canvas.below(2);
    let Some(intents) = &shown.intents else {
        list.text(1, 0, width, "looking for intents", Role::Dim);
        return;
    };
    if intents.is_empty() {
        list.text(1, 0, width, "no intents/*.json here; n makes one, :run PATH builds from any file", Role::Dim);
    }
    let cursor = Cursor { at: shown.at, top: 0 };
    for (y, index) in (0u16..).zip(cursor.window(intents.len(), usize::from(list.height()))) {
        let Some(intent) = intents.get(index) else { continue };
        let name = list.text(1, y, 30, &intent.name, Role::Text).max(20);
        let (about, role) = match &intent.about {
            Ok(about) => (about, Role::Dim),
            Err(problem) => (problem, Role::Bad),
        };
        list.text(name + 2, y, width.saturating_sub(name + 3), about, role);
        if index == shown.at {
            list.select(y, true);
        }
    }
}
