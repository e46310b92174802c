//! What every pane is made of: a frame with its heading, lines cut by display width, columns that give way
//! where there is no room, a cursor over windowed rows, ages, gauges and sparklines.
//!
//! All drawing goes through a [`Canvas`], which cannot draw outside its area and which escapes what it draws.

use std::borrow::Cow;
use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::symbols::border;
use unicode_width::UnicodeWidthStr;

use crate::console::action::Action;
use crate::console::look::{Glyphs, Look, Role};
use crate::text::safe;

/// What goes into the clipboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copyable {
    /// What the selected row is called.
    pub id: String,
    /// The text to copy.
    pub text: String,
}

/// A piece of a line: a text and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'t> {
    /// The text, escaped when it is drawn.
    pub text: Cow<'t, str>,
    /// Its meaning.
    pub role: Role,
}

/// A piece of a line.
pub fn piece<'t>(text: impl Into<Cow<'t, str>>, role: Role) -> Piece<'t> {
    Piece { text: text.into(), role }
}

/// What the frame of a pane says.
#[derive(Debug, Clone, Default)]
pub struct Heading<'t> {
    /// The pane's name.
    pub title: &'t str,
    /// What it shows of whom, like a run key.
    pub subject: Cow<'t, str>,
    /// Rows that pass the filter, and rows that there are.
    pub count: Option<(usize, usize)>,
    /// The filter, empty where there is none.
    pub filter: Cow<'t, str>,
    /// How the rows are sorted, empty where they are not.
    pub sort: Cow<'t, str>,
    /// Microseconds since what is shown was read; none where it is not known.
    pub age: Option<i64>,
}

/// An area to draw in, with the look to draw with.
#[derive(Debug)]
pub struct Canvas<'b> {
    buf: &'b mut Buffer,
    area: Rect,
    look: &'b Look,
}

impl<'b> Canvas<'b> {
    /// The part of `area` that the buffer has.
    pub fn new(buf: &'b mut Buffer, area: Rect, look: &'b Look) -> Self {
        let area = area.intersection(buf.area);
        Canvas { buf, area, look }
    }

    /// Draws the frame of a pane and leaves its inside; a pane too small for a frame has no inside.
    pub fn framed(buf: &'b mut Buffer, area: Rect, heading: &Heading<'_>, look: &'b Look, focused: bool) -> Self {
        let mut canvas = Canvas::new(buf, area, look);
        canvas.clear();
        let role = if focused { Role::Focus } else { Role::Border };
        canvas.border(&look.glyphs.border, role);
        canvas.heading(heading, focused);
        canvas.inset(1, 1)
    }

    /// Columns that there are.
    pub fn width(&self) -> u16 {
        self.area.width
    }

    /// Rows that there are.
    pub fn height(&self) -> u16 {
        self.area.height
    }

    /// The glyphs of the look.
    pub fn glyphs(&self) -> &'static Glyphs {
        self.look.glyphs
    }

    /// Where it lies on the screen.
    pub fn area(&self) -> Rect {
        self.area
    }

    /// A part of it, cut to what there is.
    pub fn part(&mut self, x: u16, y: u16, width: u16, height: u16) -> Canvas<'_> {
        let part = Rect::new(self.area.x.saturating_add(x), self.area.y.saturating_add(y), width, height);
        Canvas { area: part.intersection(self.area), buf: self.buf, look: self.look }
    }

    /// Without its first rows.
    pub fn below(&mut self, rows: u16) -> Canvas<'_> {
        let (width, height) = (self.width(), self.height());
        self.part(0, rows, width, height.saturating_sub(rows))
    }

    /// Blanks it.
    pub fn clear(&mut self) {
        for y in self.area.top()..self.area.bottom() {
            for x in self.area.left()..self.area.right() {
                if let Some(cell) = self.buf.cell_mut((x, y)) {
                    cell.reset();
                }
            }
        }
    }

    /// Draws `text` from column `x` of row `y`, at most `width` columns; where it is cut it ends in an
    /// ellipsis. Returns the columns that it took.
    pub fn text(&mut self, x: u16, y: u16, width: u16, text: &str, role: Role) -> u16 {
        let style = self.look.style(role);
        self.styled(x, y, width, text, style)
    }

    /// [`Canvas::text`], flush with the right end of its columns; a number that does not fit is cut on its
    /// left, so that it cannot be taken for a smaller one.
    pub fn right(&mut self, x: u16, y: u16, width: u16, text: &str, role: Role) {
        let text = safe(text);
        let length = columns(&text);
        if length <= width {
            self.text(x.saturating_add(width - length), y, length, &text, role);
            return;
        }
        let kept: String = tail(&text, width.saturating_sub(1)).into();
        self.text(x, y, width, &format!("{}{kept}", self.look.glyphs.ellipsis), role);
    }

    /// Draws pieces one after another along row `y`, from column `x`. Returns the column after the last.
    pub fn line(&mut self, x: u16, y: u16, pieces: &[Piece<'_>]) -> u16 {
        let mut at = x;
        for piece in pieces {
            let room = self.width().saturating_sub(at);
            if room == 0 {
                break;
            }
            at = at.saturating_add(self.text(at, y, room, &piece.text, piece.role));
        }
        at
    }

    /// Paints row `y` as the selected one. Draw the row first: what the style does not say stays.
    pub fn select(&mut self, y: u16, focused: bool) {
        if self.width() == 0 || y >= self.height() {
            return;
        }
        // Where the pane has not the keys the mark alone says which row is meant.
        let style = if focused { self.look.style(Role::Selection) } else { Style::new() };
        let row = Rect::new(self.area.x, self.area.y.saturating_add(y), self.area.width, 1);
        self.buf.set_style(row.intersection(self.area), style);
        let mark = self.look.glyphs.selected;
        if let Some(cell) = self.buf.cell_mut((row.x, row.y)) {
            cell.set_symbol(mark);
        }
    }

    /// Gives the cells of row `y` from `x` the style of a role, without changing what they say.
    pub fn tint(&mut self, x: u16, y: u16, width: u16, role: Role) {
        let at = Rect::new(self.area.x.saturating_add(x), self.area.y.saturating_add(y), width, 1);
        self.buf.set_style(at.intersection(self.area), self.look.style(role));
    }

    /// A row of a table: each cell in its column, one column of space between two; the first column of the
    /// canvas is left for the mark of the selected row.
    pub fn row(&mut self, y: u16, columns: &[Column], layout: &[Option<u16>], cells: &[Piece<'_>]) {
        let mut x = 1u16;
        for ((column, width), cell) in columns.iter().zip(layout).zip(cells) {
            let Some(width) = *width else { continue };
            if column.right {
                self.right(x, y, width, &cell.text, cell.role);
            } else {
                self.text(x, y, width, &cell.text, cell.role);
            }
            x = x.saturating_add(width).saturating_add(1);
        }
    }

    /// The heads of the columns, with the mark of the one that sorts.
    pub fn heads(&mut self, y: u16, columns: &[Column], layout: &[Option<u16>], sorted: Option<(usize, bool)>) {
        let heads: Vec<Piece<'_>> = columns
            .iter()
            .enumerate()
            .map(|(index, column)| match sorted {
                Some((by, down)) if by == index => {
                    let [up, downwards] = self.look.glyphs.sort;
                    piece(format!("{}{}", column.name, if down { downwards } else { up }), Role::Header)
                }
                _ => piece(column.name, Role::Header),
            })
            .collect();
        self.row(y, columns, layout, &heads);
    }

    fn styled(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        let width = width.min(self.area.width.saturating_sub(x));
        if width == 0 || y >= self.area.height {
            return 0;
        }
        let (left, top) = (self.area.x.saturating_add(x), self.area.y.saturating_add(y));
        // More characters than this cannot be seen, whatever the text is: bounded work for any text.
        let clipped = crate::text::clip(text, usize::from(width) * 8);
        let text = safe(&clipped);
        let length = columns(&text);
        if length <= width {
            let (end, _) = self.buf.set_stringn(left, top, &text, usize::from(width), style);
            return end.saturating_sub(left);
        }
        let (end, _) = self.buf.set_stringn(left, top, &text, usize::from(width - 1), style);
        let (end, _) = self.buf.set_stringn(end, top, self.look.glyphs.ellipsis, 1, style);
        end.saturating_sub(left)
    }

    fn inset(self, x: u16, y: u16) -> Self {
        let inner = if self.area.width < 2 * x || self.area.height < 2 * y {
            Rect::new(self.area.x, self.area.y, 0, 0)
        } else {
            Rect::new(self.area.x + x, self.area.y + y, self.area.width - 2 * x, self.area.height - 2 * y)
        };
        Canvas { area: inner, ..self }
    }

    fn border(&mut self, set: &border::Set<'_>, role: Role) {
        let (right, bottom) = (self.width().saturating_sub(1), self.height().saturating_sub(1));
        for x in 1..right {
            self.text(x, 0, 1, set.horizontal_top, role);
            self.text(x, bottom, 1, set.horizontal_bottom, role);
        }
        for y in 1..bottom {
            self.text(0, y, 1, set.vertical_left, role);
            self.text(right, y, 1, set.vertical_right, role);
        }
        for (x, y, corner) in
            [(0, 0, set.top_left), (right, 0, set.top_right), (0, bottom, set.bottom_left), (right, bottom, set.bottom_right)]
        {
            self.text(x, y, 1, corner, role);
        }
    }

    /// Title, subject, count, filter and order on the left of the top border, the age of the data on its right.
    fn heading(&mut self, heading: &Heading<'_>, focused: bool) {
        let width = self.width();
        if width < 6 || self.height() == 0 {
            return;
        }
        let title = if focused { Role::Focus } else { Role::Title };
        let mut pieces = vec![piece(" ", title), piece(heading.title, title)];
        if let Some((shown, all)) = heading.count {
            pieces.push(piece(if shown == all { format!(" {all}") } else { format!(" {shown}/{all}") }, Role::Value));
        }
        if !heading.filter.is_empty() {
            pieces.push(piece(format!(" /{}", heading.filter), Role::Key));
        }
        if !heading.sort.is_empty() {
            pieces.push(piece(format!(" {}", heading.sort), Role::Dim));
        }
        if !heading.subject.is_empty() {
            pieces.push(piece(format!(" {}", heading.subject), Role::Dim));
        }
        pieces.push(piece(" ", title));
        let age = match heading.age {
            Some(age) if age < 0 => String::new(),
            Some(age) => format!(" {} old ", ago(age)),
            None => format!(" {} age UNKNOWN ", self.glyphs().unknown),
        };
        let taken = columns(&age);
        // The age gives way to the title, never the other way round.
        let wanted: u16 = pieces.iter().map(|p| columns(&safe(&p.text))).fold(0, u16::saturating_add);
        let fits = wanted.saturating_add(taken).saturating_add(3) <= width;
        let room = if fits { width.saturating_sub(taken + 3) } else { width.saturating_sub(2) };
        self.part(1, 0, room, 1).line(0, 0, &pieces);
        if fits {
            let role = if heading.age.is_some() { Role::Dim } else { Role::Unknown };
            self.text(width - 1 - taken, 0, taken, &age, role);
        }
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy, Default)]
pub struct Column {
    /// Its head.
    pub name: &'static str,
    /// Columns of the screen that it would like.
    pub width: u16,
    /// Columns that it can do with.
    pub min: u16,
    /// Flush right: numbers.
    pub right: bool,
    /// Takes what is left over.
    pub grow: bool,
    /// Who goes first where there is no room: the highest; 0 never goes.
    pub rank: u8,
}

impl Column {
    /// A column of texts.
    pub const fn left(name: &'static str, width: u16, rank: u8) -> Self {
        Column { name, width, min: width, right: false, grow: false, rank }
    }

    /// A column of numbers.
    pub const fn number(name: &'static str, width: u16, rank: u8) -> Self {
        Column { name, width, min: width, right: true, grow: false, rank }
    }

    /// A column of texts that takes what is left over.
    pub const fn rest(name: &'static str, min: u16, rank: u8) -> Self {
        Column { name, width: min, min, right: false, grow: true, rank }
    }
}

/// How wide each column is drawn in a table of that width; none where it had to go. Columns shrink to what
/// they can do with before one goes.
pub fn layout(table: u16, wanted: &[Column]) -> Vec<Option<u16>> {
    let mut widths: Vec<Option<u16>> = wanted.iter().map(|c| Some(c.width.max(c.min))).collect();
    let taken = |widths: &[Option<u16>]| widths.iter().flatten().map(|w| u32::from(*w) + 1).sum::<u32>();
    let table = u32::from(table);
    while taken(&widths) > table {
        let mut over = taken(&widths) - table;
        for (width, column) in widths.iter_mut().zip(wanted) {
            if let Some(width) = width.as_mut().filter(|w| **w > column.min) {
                let less = over.min(u32::from(*width - column.min));
                *width -= u16::try_from(less).unwrap_or(0);
                over -= less;
            }
        }
        if over == 0 {
            break;
        }
        let goes = wanted.iter().enumerate().filter(|(i, c)| c.rank > 0 && widths.get(*i).is_some_and(Option::is_some));
        let Some((index, _)) = goes.max_by_key(|(_, c)| c.rank) else { break };
        if let Some(slot) = widths.get_mut(index) {
            *slot = None;
        }
        // With one gone the others may be as wide as they like again.
        for (width, column) in widths.iter_mut().zip(wanted) {
            *width = width.map(|_| column.width.max(column.min));
        }
    }
    let left = table.saturating_sub(taken(&widths));
    if let Some((width, _)) = widths.iter_mut().zip(wanted).find(|(w, c)| c.grow && w.is_some()) {
        *width = width.map(|w| w.saturating_add(u16::try_from(left).unwrap_or(0)));
    }
    widths
}

/// The selected row and the first row in sight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The selected row.
    pub at: usize,
    /// The first row in sight.
    pub top: usize,
}

impl Cursor {
    /// Obeys an action that moves among `len` rows of which `height` are in sight. Returns whether it was one.
    pub fn act(&mut self, action: Action, len: usize, height: usize) -> bool {
        let page = height.max(1);
        let last = len.saturating_sub(1);
        self.at = match action {
            Action::Down => self.at.saturating_add(1),
            Action::Up => self.at.saturating_sub(1),
            Action::HalfDown => self.at.saturating_add(page.div_ceil(2)),
            Action::HalfUp => self.at.saturating_sub(page.div_ceil(2)),
            Action::PageDown => self.at.saturating_add(page),
            Action::PageUp => self.at.saturating_sub(page),
            Action::First => 0,
            Action::Last => last,
            _ => return false,
        }
        .min(last);
        self.top = self.window(len, height).start;
        true
    }

    /// Selects a row and brings it into sight.
    pub fn go(&mut self, at: usize, len: usize, height: usize) {
        self.at = at.min(len.saturating_sub(1));
        self.top = self.window(len, height).start;
    }

    /// The selected row, where there is one.
    pub fn selected(&self, len: usize) -> Option<usize> {
        (len > 0).then(|| self.at.min(len - 1))
    }

    /// The rows in sight: the window stands still while the selected row is in it.
    pub fn window(&self, len: usize, height: usize) -> Range<usize> {
        let height = height.max(1);
        let at = self.at.min(len.saturating_sub(1));
        let top = self.top.min(len.saturating_sub(height));
        let top = if at < top {
            at
        } else if at >= top.saturating_add(height) {
            at + 1 - height
        } else {
            top
        };
        top..top.saturating_add(height).min(len)
    }
}

/// Columns that a text takes on the screen; what is drawn is escaped, so measure what [`safe`] made.
pub fn columns(text: &str) -> u16 {
    u16::try_from(text.width()).unwrap_or(u16::MAX)
}

/// The end of a text that fits into `width` columns.
fn tail(text: &str, width: u16) -> &str {
    let mut kept = 0usize;
    for (at, c) in text.char_indices().rev() {
        let next = kept + unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
        if next > usize::from(width) {
            return text.get(at + c.len_utf8()..).unwrap_or_default();
        }
        kept = next;
    }
    text
}

/// An age in one number and its unit: `12s`, `4m`, `3h`, `9d`. Micros in. One unit, so that a screen at
/// rest changes at most once a minute.
pub fn ago(micros: i64) -> String {
    let seconds = micros.max(0) / 1_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A signed distance in time: `+12s`, `-3.5h`, `+2.0d`; micros in. Fine enough to tell a microsecond.
pub fn distance(micros: i64) -> String {
    let sign = if micros < 0 { '-' } else { '+' };
    let n = micros.unsigned_abs();
    let tenths = |unit: u64| format!("{}.{}", n / unit, n % unit * 10 / unit);
    let text = match n {
        0..1_000 => format!("{n}us"),
        1_000..1_000_000 => format!("{}ms", n / 1_000),
        1_000_000..60_000_000 => format!("{}s", tenths(1_000_000)),
        60_000_000..3_600_000_000 => format!("{}m", tenths(60_000_000)),
        3_600_000_000..172_800_000_000 => format!("{}h", tenths(3_600_000_000)),
        _ => format!("{}d", tenths(86_400_000_000)),
    };
    format!("{sign}{text}")
}

/// A whole number with its thousands parted: `1,234,567`.
pub fn thousands(number: impl std::fmt::Display) -> String {
    let digits = number.to_string();
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    out.push_str(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A whole number in at most four columns and a unit: `999`, `12.3k`, `4.5M`, `7.8G`.
pub fn short(number: u64) -> String {
    let tenths = |unit: u64, name: &str| match number / unit {
        whole @ 0..100 => format!("{whole}.{}{name}", number % unit / (unit / 10)),
        whole => format!("{whole}{name}"),
    };
    match number {
        0..10_000 => number.to_string(),
        10_000..1_000_000 => tenths(1_000, "k"),
        1_000_000..1_000_000_000 => tenths(1_000_000, "M"),
        1_000_000_000..1_000_000_000_000 => tenths(1_000_000_000, "G"),
        _ => tenths(1_000_000_000_000, "T"),
    }
}

/// A number in three columns: digits, or the two that count most and a unit.
pub fn terse(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..100_000 => format!("{}k", number / 1_000),
        100_000..1_000_000 => format!(".{}M", number / 100_000),
        1_000_000..100_000_000 => format!("{}M", number / 1_000_000),
        100_000_000..1_000_000_000 => format!(".{}G", number / 100_000_000),
        _ => format!("{}G", (number / 1_000_000_000).min(99)),
    }
}

/// A bar of `width` columns that is full at `done` of `whole`; a bar is full only when nothing is left, and
/// empty only when nothing was done.
pub fn gauge(width: u16, done: u64, whole: u64, glyphs: &Glyphs) -> String {
    let width = u128::from(width);
    let filled = match (u128::from(done), u128::from(whole)) {
        (0, _) => 0,
        (done, whole) if done >= whole => width,
        (done, whole) => (done * width / whole).clamp(u128::from(width > 1), width.saturating_sub(1)),
    };
    let [full, open] = glyphs.gauge;
    (0..width).map(|i| if i < filled { full } else { open }).collect()
}

/// The newest values, at most `width`, as levels between the least and the greatest of them.
pub fn sparkline(values: &[u64], width: u16, glyphs: &Glyphs) -> String {
    let shown = values.get(values.len().saturating_sub(usize::from(width))..).unwrap_or_default();
    let (Some(low), Some(high)) = (shown.iter().min().copied(), shown.iter().max().copied()) else { return String::new() };
    let range = u128::from(high - low).max(1);
    let level = |value: &u64| {
        let index = usize::try_from(u128::from(value - low) * 7 / range).unwrap_or(0);
        glyphs.levels.get(index).copied().unwrap_or_default()
    };
    shown.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::panes::testing::look;
    use proptest::prelude::*;

    #[test]
    fn a_number_in_three_columns_keeps_its_size() {
        let numbers = [0, 999, 1_000, 99_999, 100_000, 219_345, 999_999, 1_000_000, 99_999_999, 100_000_000, 2_000_000_000, u64::MAX];
        let wanted = ["0", "999", "1k", "99k", ".1M", ".2M", ".9M", "1M", "99M", ".1G", "2G", "99G"];
        assert_eq!(numbers.map(terse), wanted);
    }

    #[test]
    fn columns_shrink_then_go_by_rank_and_the_rest_goes_to_the_one_that_grows() {
        let wanted = [Column::left("name", 10, 0), Column::number("a", 6, 2), Column::number("b", 6, 1), Column::rest("why", 8, 3)];
        assert_eq!(layout(60, &wanted), [Some(10), Some(6), Some(6), Some(34)]);
        assert_eq!(layout(34, &wanted), [Some(10), Some(6), Some(6), Some(8)]);
        assert_eq!(layout(33, &wanted), [Some(10), Some(6), Some(6), None]);
        assert_eq!(layout(20, &wanted), [Some(10), None, Some(6), None]);
        assert_eq!(layout(3, &wanted), [Some(10), None, None, None]);
        let soft = [Column { width: 20, ..Column::left("name", 5, 0) }, Column::left("b", 5, 0)];
        assert_eq!(layout(20, &[Column { min: 5, ..soft[0] }, soft[1]]), [Some(13), Some(5)]);
    }

    #[test]
    fn the_window_stands_still_while_the_cursor_is_in_it() {
        let mut cursor = Cursor::default();
        for _ in 0..9 {
            cursor.act(Action::Down, 100, 10);
        }
        assert_eq!((cursor.at, cursor.window(100, 10)), (9, 0..10));
        cursor.act(Action::Down, 100, 10);
        assert_eq!((cursor.at, cursor.window(100, 10)), (10, 1..11));
        cursor.act(Action::Last, 100, 10);
        assert_eq!((cursor.at, cursor.window(100, 10)), (99, 90..100));
        cursor.act(Action::HalfUp, 100, 10);
        assert_eq!((cursor.at, cursor.window(100, 10)), (94, 90..100));
        // Rows that went away, no rows, no height.
        assert_eq!((cursor.window(3, 10), cursor.selected(3)), (0..3, Some(2)));
        assert_eq!((cursor.window(0, 10), cursor.selected(0)), (0..0, None));
        assert_eq!(cursor.window(100, 0).len(), 1);
        assert!(!cursor.act(Action::Quit, 100, 10));
    }

    #[test]
    fn numbers_and_ages_read_the_same_at_every_size() {
        assert_eq!([ago(-5), ago(59_999_999), ago(60_000_000), ago(7_200_000_000), ago(200_000_000_000)], ["0s", "59s", "1m", "2h", "2d"]);
        assert_eq!(
            [distance(1), distance(-1_500_000), distance(5_400_000_000), distance(-200_000_000_000)],
            ["+1us", "-1.5s", "+1.5h", "-2.3d"]
        );
        assert_eq!([thousands(0), thousands(999), thousands(1_000), thousands(-1_234_567)], ["0", "999", "1,000", "-1,234,567"]);
        assert_eq!(
            [short(9_999), short(12_345), short(123_456), short(4_500_000), short(u64::MAX)],
            ["9999", "12.3k", "123k", "4.5M", "18446744T"]
        );
    }

    #[test]
    fn a_gauge_is_full_only_at_the_end_and_a_sparkline_spans_its_values() {
        let ascii = Glyphs::ASCII;
        assert_eq!(gauge(4, 0, 10, ascii), "....");
        assert_eq!(gauge(4, 1, 1_000, ascii), "#...");
        assert_eq!(gauge(4, 999, 1_000, ascii), "###.");
        assert_eq!(gauge(4, 10, 10, ascii), "####");
        assert_eq!(gauge(0, 10, 10, ascii), "");
        assert_eq!(sparkline(&[9, 0, 7, 14], 3, ascii), "_~#");
        assert_eq!(sparkline(&[], 3, ascii), "");
        assert_eq!(sparkline(&[0, u64::MAX], 9, Glyphs::UNICODE), "▁█");
    }

    #[test]
    fn a_number_is_cut_on_its_left_and_a_text_on_its_right() {
        let mut buf = Buffer::empty(Rect::new(0, 0, 6, 2));
        let look = look(Glyphs::UNICODE);
        let mut canvas = Canvas::new(&mut buf, Rect::new(0, 0, 6, 2), &look);
        canvas.right(0, 0, 6, "123456789", Role::Value);
        canvas.text(0, 1, 6, "\u{1b}[31mred", Role::Text);
        let row = |y: u16| (0..6).map(|x| buf[(x, y)].symbol()).collect::<String>();
        assert_eq!((row(0).as_str(), row(1).as_str()), ("…56789", "\\u{1b…"));
    }

    proptest! {
        #[test]
        fn nothing_is_drawn_outside(text in ".{0,40}", x in 0u16..30, y in 0u16..8, width in 0u16..40, w in 0u16..20, h in 0u16..6) {
            let whole = Rect::new(0, 0, 30, 8);
            let mut buf = Buffer::empty(whole);
            let look = look(Glyphs::ASCII);
            let area = Rect::new(3, 2, w, h);
            let heading = Heading { title: "t", filter: text.clone().into(), subject: text.clone().into(), count: Some((1, 2)), ..Heading::default() };
            let mut canvas = Canvas::framed(&mut buf, area, &heading, &look, true);
            canvas.text(x, y, width, &text, Role::Text);
            canvas.right(x, y, width, &text, Role::Text);
            canvas.select(y, true);
            for at in whole.positions().filter(|p| !area.contains(*p)) {
                prop_assert_eq!(buf[at].symbol(), " ");
            }
        }

        #[test]
        fn a_layout_never_overflows_what_may_go(table in 0u16..200, ranks in proptest::collection::vec((1u8..9, 1u16..30), 1..8)) {
            let wanted: Vec<Column> = ranks.iter().map(|(rank, width)| Column::left("c", *width, *rank)).collect();
            let taken: u32 = layout(table, &wanted).into_iter().flatten().map(|w| u32::from(w) + 1).sum();
            prop_assert!(taken <= u32::from(table));
        }
    }
}
