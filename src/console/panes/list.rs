//! What the panes about one run share: rows that pass a filter in some order, and how such rows are drawn.

use std::borrow::Cow;

use super::parts::{Canvas, Column, Cursor, Heading, Piece, layout};
use crate::console::action::Action;
use crate::console::data::Verdict;
use crate::console::filter::{Filter, Filterable};
use crate::console::look::{Glyphs, Look, Role};

/// How a pane is drawn this time.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'l> {
    /// Theme and glyphs.
    pub look: &'l Look,
    /// Whether the pane has the keys.
    pub focused: bool,
    /// Whose data it shows, like a run key.
    pub subject: &'l str,
    /// Micros since the data was read; none where that is not known, negative to say nothing.
    pub age: Option<i64>,
}

/// Cursor, filter and order of a list of rows.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// The selected row among those shown.
    pub cursor: Cursor,
    /// What narrows them.
    pub filter: Filter,
    /// Which order, from 0: the order of the data.
    pub order: usize,
    /// Turned round.
    pub reversed: bool,
}

impl Rows {
    /// The rows that are shown, as places in the data: those that pass the filter, in order.
    pub fn shown<T: Filterable>(&self, data: &[T], order: impl Fn(&T, &T) -> std::cmp::Ordering) -> Vec<usize> {
        let mut shown: Vec<usize> = if self.filter.is_empty() {
            (0..data.len()).collect()
        } else {
            data.iter().enumerate().filter(|(_, row)| self.filter.matches(*row)).map(|(at, _)| at).collect()
        };
        if self.order > 0 {
            shown.sort_by(|a, b| match (data.get(*a), data.get(*b)) {
                (Some(a), Some(b)) => order(a, b),
                _ => std::cmp::Ordering::Equal,
            });
        }
        if self.reversed {
            shown.reverse();
        }
        shown
    }

    /// The selected row, as a place in the data.
    pub fn selected(&self, shown: &[usize]) -> Option<usize> {
        shown.get(self.cursor.selected(shown.len())?).copied()
    }

    /// Obeys an action that moves, sorts or turns the order round, with the row that was selected kept in
    /// sight where it stays. Returns whether it was one.
    pub fn act(&mut self, action: Action, len: usize, height: usize, orders: usize) -> bool {
        match action {
            Action::Sort if orders > 1 => {
                (self.order, self.reversed) = ((self.order + 1) % orders, false);
                self.cursor = Cursor::default();
            }
            Action::Reverse => {
                self.reversed = !self.reversed;
                self.cursor = Cursor::default();
            }
            _ => return self.cursor.act(action, len, height),
        }
        true
    }

    /// Narrows the rows.
    pub fn narrow(&mut self, filter: &Filter) {
        self.filter = filter.clone();
        self.cursor = Cursor::default();
    }

    /// The heading of its pane.
    pub fn heading<'h>(&self, title: &'static str, frame: &Frame<'h>, shown: usize, all: usize, sort: &str) -> Heading<'h> {
        let sort = match (sort, self.reversed) {
            ("", false) => String::new(),
            ("", true) => "reversed".to_owned(),
            (by, false) => format!("by {by}"),
            (by, true) => format!("by {by} reversed"),
        };
        Heading {
            title,
            subject: Cow::Borrowed(frame.subject),
            count: Some((shown, all)),
            filter: Cow::Owned(self.filter.to_string()),
            sort: Cow::Owned(sort),
            age: frame.age,
        }
    }
}

/// Draws heads and the rows in sight; `cells` makes the row at a place of what is shown.
pub fn list<'c>(
    canvas: &mut Canvas<'_>,
    columns: &[Column],
    rows: &Rows,
    shown: usize,
    focused: bool,
    cells: impl Fn(usize) -> Vec<Piece<'c>>,
) {
    let widths = layout(canvas.width().saturating_sub(1), columns);
    canvas.heads(0, columns, &widths, None);
    let mut body = canvas.below(1);
    if body.height() == 0 {
        return;
    }
    if shown == 0 {
        let text = if rows.filter.is_empty() { "nothing here" } else { "no row passes the filter; Esc clears it" };
        body.text(1, 0, body.width(), text, Role::Dim);
        return;
    }
    let selected = rows.cursor.selected(shown);
    for (y, row) in (0u16..).zip(rows.cursor.window(shown, usize::from(body.height()))) {
        let mut cells = cells(row);
        // The selected row has one style: told apart from afar, and cheap to move.
        if selected == Some(row) && focused {
            cells.iter_mut().for_each(|cell| cell.role = Role::Text);
        }
        body.row(y, columns, &widths, &cells);
        if selected == Some(row) {
            body.select(y, focused);
        }
    }
}

/// A verdict as a glyph, so that neither colour nor word alone has to say it.
pub fn verdict(verdict: Verdict, glyphs: &Glyphs) -> (&'static str, Role) {
    match verdict {
        Verdict::Contradicted => (glyphs.mismatch, Role::Mismatch),
        Verdict::Refused => (glyphs.bad, Role::Bad),
        Verdict::Unknown => (glyphs.unknown, Role::Unknown),
        Verdict::Running => (glyphs.running, Role::Running),
        Verdict::NotReached => (glyphs.waiting, Role::Waiting),
        Verdict::Proved => (glyphs.ok, Role::Good),
    }
}

/// Breaks a text into lines of at most `width` columns, at spaces where it can; at most `most` lines, the
/// last one with what is left.
pub fn wrap(text: &str, width: u16, most: usize) -> Vec<String> {
    let text = crate::text::safe(text);
    let (width, mut lines) = (usize::from(width.max(8)), Vec::new());
    let mut rest = text.trim();
    while !rest.is_empty() {
        if lines.len() + 1 >= most || unicode_width::UnicodeWidthStr::width(rest) <= width {
            lines.push(rest.to_owned());
            break;
        }
        let mut taken = 0;
        let fits = rest.char_indices().take_while(|(_, c)| {
            taken += unicode_width::UnicodeWidthChar::width(*c).unwrap_or(0);
            taken <= width
        });
        let end = fits.last().map_or(rest.len(), |(at, c)| at + c.len_utf8());
        let (head, _) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let cut = head.rfind(' ').filter(|at| *at > end / 2).unwrap_or(end);
        let (line, more) = rest.split_at_checked(cut).unwrap_or((rest, ""));
        lines.push(line.trim_end().to_owned());
        rest = more.trim_start();
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_broken_at_its_spaces_and_loses_nothing() {
        assert_eq!(wrap("one two three four", 9, 9), ["one two", "three", "four"]);
        assert_eq!(wrap("abcdefghijklmnop", 8, 9), ["abcdefgh", "ijklmnop"]);
        assert_eq!(wrap("one two three four", 9, 2), ["one two", "three four"]);
        assert_eq!(wrap("", 9, 2), [""; 0]);
        assert_eq!(wrap("日本語日本語", 8, 9), ["日本語日", "本語"]);
    }
}
