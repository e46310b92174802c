//! The menu of all demos.

use ratatui::buffer::Buffer;

use crate::console::action::Action;
use crate::console::look::{Look, Role};
use crate::console::panes::parts::{Canvas, Cursor, Heading};

/// Rows that are no scenarios: two of the frame, two of explanation and one of keys.
const AROUND: u16 = 5;

/// Scenarios to choose from.
#[derive(Debug, Clone)]
pub struct Menu {
    items: Vec<(String, String, String)>,
    cursor: Cursor,
    /// How the latest one went.
    pub told: String,
}

impl Menu {
    /// A menu of (name, title, what it shows).
    pub fn new(items: Vec<(String, String, String)>) -> Self {
        Menu { items, cursor: Cursor::default(), told: String::new() }
    }

    /// Obeys an action on a screen of that height. Says whether it had a meaning here.
    pub fn act(&mut self, action: Action, height: u16) -> bool {
        self.cursor.act(action, self.items.len(), usize::from(height.saturating_sub(AROUND)))
    }

    /// The name of the selected scenario.
    pub fn selected(&self) -> Option<&str> {
        self.items.get(self.cursor.selected(self.items.len())?).map(|item| item.0.as_str())
    }

    /// Draws it over the whole screen.
    pub fn draw(&self, buf: &mut Buffer, look: &Look) {
        let area = buf.area;
        let (width, rows) = (area.width.saturating_sub(4), area.height.saturating_sub(AROUND));
        let heading = Heading { title: "demos", count: Some((self.items.len(), self.items.len())), age: Some(0), ..Heading::default() };
        let mut canvas = Canvas::framed(buf, area, &heading, look, true);
        let names = self.items.iter().map(|item| item.0.chars().count()).max().unwrap_or(0);
        for (y, at) in (0..rows).zip(self.cursor.window(self.items.len(), usize::from(rows))) {
            let Some((name, title, _)) = self.items.get(at) else { continue };
            let chosen = self.cursor.selected(self.items.len()) == Some(at);
            let mark = if chosen { ">" } else { " " };
            canvas.text(0, y, width, &format!("{mark} {name:<names$}  {title}"), if chosen { Role::Focus } else { Role::Text });
        }
        let shows = self.cursor.selected(self.items.len()).and_then(|at| self.items.get(at)).map_or("", |item| item.2.as_str());
        canvas.text(0, rows, width, shows, Role::Dim);
        canvas.text(0, rows + 1, width, &self.told, Role::Title);
        canvas.text(0, rows + 2, width, "Enter show  j/k choose  q leave", Role::Dim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::look::{Glyphs, Theme};
    use ratatui::layout::Rect;

    #[test]
    fn a_menu_scrolls_marks_its_row_and_draws_at_every_size() {
        let items = (0..80).map(|n| (format!("demo-{n}"), format!("title {n}"), format!("shows {n}"))).collect();
        let mut menu = Menu::new(items);
        let look = Look { theme: Theme::named("ansi16").unwrap(), glyphs: Glyphs::UNICODE };
        assert_eq!(menu.selected(), Some("demo-0"));
        assert!(menu.act(Action::Last, 24) && !menu.act(Action::Sort, 24));
        assert_eq!(menu.selected(), Some("demo-79"));
        for (width, height) in [(0, 0), (1, 1), (5, 5), (80, 24), (200, 50)] {
            menu.draw(&mut Buffer::empty(Rect::new(0, 0, width, height)), &look);
        }
        let mut buf = Buffer::empty(Rect::new(0, 0, 80, 24));
        menu.draw(&mut buf, &look);
        let text: Vec<String> = (0..24).map(|y| (0..80).map(|x| buf[(x, y)].symbol()).collect()).collect();
        let text = text.join("\n");
        assert!(text.contains("> demo-79") && text.contains("shows 79") && !text.contains("demo-0 "), "{text}");
        assert_eq!(Menu::new(Vec::new()).selected(), None);
    }
}
