//! The log pane: the newest records of the program itself, followed or stood still.

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use tracing::Level;

use super::list::{Frame, list};
use super::parts::{Canvas, Column, Copyable, Cursor, Heading, Piece, piece, thousands};
use crate::console::action::Action;
use crate::console::data::log::{LogView, Record};
use crate::console::filter::Filter;
use crate::console::look::{Glyphs, Role};
use crate::console::panes::list::Rows;

const COLUMNS: &[Column] = &[
    Column::left("TIME", 12, 2),
    Column::left("LEVEL", 7, 0),
    Column { min: 8, ..Column::left("TARGET", 22, 3) },
    Column::rest("RECORD", 20, 0),
];

/// Whether the newest record is followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Scroll {
    /// The newest record is always in sight.
    #[default]
    Following,
    /// The screen stands still on the record of that number.
    Manual {
        /// The record.
        seq: u64,
    },
}

/// What the log pane remembers.
#[derive(Debug, Clone, Default)]
pub struct LogPane {
    scroll: Scroll,
    filter: Filter,
    /// The lowest level that is shown; all where there is none.
    level: Option<Level>,
    top: usize,
}

impl LogPane {
    fn shown<'d>(&self, data: &'d LogView) -> Vec<&'d Arc<Record>> {
        let grave = |record: &Record| self.level.is_none_or(|least| record.level <= least);
        data.records.iter().filter(|r| grave(r) && (self.filter.is_empty() || self.filter.matches(r.as_ref()))).collect()
    }

    fn cursor(&self, shown: &[&Arc<Record>]) -> Cursor {
        let last = shown.len().saturating_sub(1);
        let at = match self.scroll {
            Scroll::Following => last,
            // Where the record fell out, the oldest after it stands for it.
            Scroll::Manual { seq } => shown.iter().position(|r| r.seq >= seq).unwrap_or(last),
        };
        Cursor { at, top: self.top }
    }

    /// Obeys an action that has a meaning here. Says whether it did. Scrolling up stops following; coming to
    /// the end follows again. Sorting goes through the levels.
    pub fn act(&mut self, action: Action, data: &LogView, height: u16) -> bool {
        let shown = self.shown(data);
        let mut cursor = self.cursor(&shown);
        match action {
            Action::Follow => self.scroll = Scroll::Following,
            Action::Sort => {
                self.level = match self.level {
                    None => Some(Level::INFO),
                    Some(Level::INFO) => Some(Level::WARN),
                    Some(Level::WARN) => Some(Level::ERROR),
                    Some(_) => None,
                };
            }
            _ if cursor.act(action, shown.len(), usize::from(height.saturating_sub(4)).max(1)) => {
                let following = cursor.at + 1 >= shown.len();
                let seq = shown.get(cursor.at).map_or(0, |r| r.seq);
                self.scroll = if following { Scroll::Following } else { Scroll::Manual { seq } };
                self.top = cursor.top;
            }
            _ => return false,
        }
        true
    }

    /// Narrows the rows; whether the newest is followed does not depend on it.
    pub fn set_filter(&mut self, filter: &Filter, _: &LogView) {
        self.filter = filter.clone();
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Whether the newest record is followed.
    pub fn scroll(&self) -> Scroll {
        self.scroll
    }

    /// The selected record.
    pub fn selected(&self, data: &LogView) -> Option<Copyable> {
        let shown = self.shown(data);
        let record = shown.get(self.cursor(&shown).at)?;
        Some(Copyable {
            id: format!("record {}", record.seq),
            text: format!("{} {} {} {}", record.at, record.level, record.target, record.text),
        })
    }

    /// All rows as shown, the names of the columns first.
    pub fn table(&self, data: &LogView) -> Vec<Vec<String>> {
        let mut table = vec![["seq", "at_utc", "level", "target", "record"].map(str::to_owned).to_vec()];
        let rows = self.shown(data).into_iter();
        table.extend(rows.map(|r| vec![r.seq.to_string(), r.at.to_string(), r.level.to_string(), r.target.clone(), r.text.clone()]));
        table
    }

    /// Draws it.
    pub fn draw(&self, buf: &mut Buffer, area: Rect, data: &LogView, frame: &Frame<'_>) {
        let shown = self.shown(data);
        let mode = match self.scroll {
            Scroll::Following => "following",
            Scroll::Manual { .. } => "stands still, f follows",
        };
        let level = self.level.map(|l| format!(" {l} and worse")).unwrap_or_default();
        let dropped = if data.dropped > 0 { format!(" dropped {}", thousands(data.dropped)) } else { String::new() };
        let heading = Heading {
            title: "Log",
            count: Some((shown.len(), data.records.len())),
            filter: self.filter.to_string().into(),
            sort: format!("{mode}{level}{dropped}").into(),
            subject: "".into(),
            age: Some(-1),
        };
        let mut canvas = Canvas::framed(buf, area, &heading, frame.look, frame.focused);
        let rows = Rows { cursor: self.cursor(&shown), filter: self.filter.clone(), ..Rows::default() };
        list(&mut canvas, COLUMNS, &rows, shown.len(), frame.focused, |row| {
            shown.get(row).map(|record| cells(record, frame.look.glyphs)).unwrap_or_default()
        });
    }
}

fn cells<'c>(record: &Record, glyphs: &Glyphs) -> Vec<Piece<'c>> {
    let (glyph, role) = match record.level {
        Level::ERROR => (glyphs.bad, Role::Bad),
        Level::WARN => (glyphs.stuck, Role::Warn),
        Level::INFO => (glyphs.waiting, Role::Text),
        _ => (glyphs.waiting, Role::Dim),
    };
    let time = record.at.to_string();
    vec![
        piece(time.get(11..23).unwrap_or(&time).to_owned(), Role::Value),
        piece(format!("{glyph} {}", record.level), role),
        piece(record.target.clone(), Role::Dim),
        piece(record.text.clone(), role),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::panes::testing::{at_every_size, drawn, dump, look, plain};
    use crate::time::Instant;

    fn view(first: u64, last: u64) -> LogView {
        let record = |seq: u64| {
            let level = [Level::INFO, Level::WARN, Level::ERROR, Level::DEBUG][seq as usize % 4];
            Arc::new(Record {
                seq,
                at: Instant(1_770_717_600_000_000 + seq as i64 * 1_000),
                level,
                target: "ofs::pipeline::run".into(),
                text: format!("record {seq}"),
            })
        };
        LogView { records: (first..=last).map(record).collect(), dropped: first - 1 }
    }

    #[test]
    fn it_follows_until_somebody_scrolls_up_and_follows_again_at_the_end() {
        let mut pane = LogPane::default();
        let id = |pane: &LogPane, data: &LogView| pane.selected(data).unwrap().id;
        assert_eq!(id(&pane, &view(1, 9)), "record 9");
        assert_eq!(id(&pane, &view(1, 10)), "record 10");
        pane.act(Action::Up, &view(1, 10), 12);
        assert_eq!((pane.scroll(), id(&pane, &view(5, 50))), (Scroll::Manual { seq: 9 }, "record 9".into()));
        // What it stood on fell out of the ring.
        assert_eq!(id(&pane, &view(20, 50)), "record 20");
        pane.act(Action::Last, &view(20, 50), 12);
        assert_eq!((pane.scroll(), id(&pane, &view(20, 51))), (Scroll::Following, "record 51".into()));
    }

    #[test]
    fn level_and_text_narrow_it_whether_it_follows_or_not() {
        let (mut pane, data) = (LogPane::default(), view(1, 100));
        pane.act(Action::Sort, &data, 22);
        pane.act(Action::Sort, &data, 22);
        assert_eq!(pane.table(&data).len(), 51);
        pane.set_filter(&Filter::parse("record level=error").unwrap(), &data);
        assert_eq!((pane.table(&data).len(), pane.scroll()), (26, Scroll::Following));
    }

    #[test]
    fn it_says_what_was_dropped_and_draws_at_every_size() {
        let look = look(Glyphs::UNICODE);
        let frame = Frame { look: &look, focused: true, subject: "", age: None };
        let mut data = view(1_001, 1_040);
        for (width, height) in [(80, 22), (200, 48)] {
            let buf = drawn(width, height, |buf, area| LogPane::default().draw(buf, area, &data, &frame));
            assert!(plain(&buf).contains("dropped 1,000"), "{}", plain(&buf));
            insta::assert_snapshot!(format!("log_{width}x{height}"), dump(&buf));
        }
        Arc::make_mut(data.records.last_mut().unwrap()).text = "\u{1b}[2J\u{202e}\u{9b}\n日本".into();
        at_every_size(|buf, area| {
            LogPane::default().draw(buf, area, &data, &frame);
            assert!(buf.content().iter().all(|c| !c.symbol().contains(['\u{1b}', '\u{9b}', '\u{202e}', '\n'])));
        });
    }
}
