//! The pins pane: what the run has pinned against what intent, authority, program, policy, store, other runs
//! and parity anchor say now.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::list::{Frame, Rows, list, verdict, wrap};
use super::parts::{Canvas, Column, Copyable, Piece, piece};
use crate::console::action::Action;
use crate::console::data::Verdict;
use crate::console::data::pins::{Drift, PinRow, PinsView};
use crate::console::filter::Filter;
use crate::console::look::{Glyphs, Role};

const ORDERS: [&str; 2] = ["", "drift"];
const READOUT: u16 = 3;

const COLUMNS: &[Column] = &[
    Column::left("STATE", 9, 0),
    Column::left("AGAINST", 10, 1),
    Column { min: 16, ..Column::left("PIN", 21, 0) },
    Column { min: 10, width: 28, name: "PINNED", right: false, grow: false, rank: 0 },
    Column { min: 10, width: 28, name: "NOW", right: false, grow: false, rank: 0 },
    Column::rest("MEANING", 20, 2),
];

/// What the pins pane remembers.
#[derive(Debug, Clone, Default)]
pub struct PinsPane {
    rows: Rows,
}

impl PinsPane {
    fn shown(&self, data: &PinsView) -> Vec<usize> {
        self.rows.shown(&data.rows, |a, b| a.drift.cmp(&b.drift))
    }

    /// Obeys an action that has a meaning here. Says whether it did.
    pub fn act(&mut self, action: Action, data: &PinsView, height: u16) -> bool {
        let shown = self.shown(data);
        let height = usize::from(height.saturating_sub(READOUT + 5)).max(1);
        if let Action::NextMatch | Action::PreviousMatch = action {
            let at = self.rows.cursor.at.min(shown.len());
            let differs = |at: &usize| shown.get(*at).and_then(|i| data.rows.get(*i)).is_some_and(|row| row.drift != Drift::Same);
            let found = if action == Action::NextMatch {
                (at + 1..shown.len()).chain(0..=at).find(differs)
            } else {
                (0..at).rev().chain((at..shown.len()).rev()).find(differs)
            };
            if let Some(found) = found {
                self.rows.cursor.go(found, shown.len(), height);
            }
            return true;
        }
        self.rows.act(action, shown.len(), height, ORDERS.len())
    }

    /// Narrows the rows.
    pub fn set_filter(&mut self, filter: &Filter, _: &PinsView) {
        self.rows.narrow(filter);
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.rows.filter
    }

    fn row<'d>(&self, data: &'d PinsView) -> Option<&'d PinRow> {
        data.rows.get(self.rows.selected(&self.shown(data))?)
    }

    /// The selected pin with both of its values.
    pub fn selected(&self, data: &PinsView) -> Option<Copyable> {
        let row = self.row(data)?;
        let text = format!("{} {} {}: pinned {}, now {} {}", row.drift.word(), row.against, row.name, row.pinned, row.now, row.note);
        Some(Copyable { id: format!("pin {}", row.name), text: text.trim_end().to_owned() })
    }

    /// All rows as shown, the names of the columns first.
    pub fn table(&self, data: &PinsView) -> Vec<Vec<String>> {
        let mut table = vec![["state", "against", "pin", "pinned", "now", "meaning"].map(str::to_owned).to_vec()];
        let rows = self.shown(data).into_iter().filter_map(|at| data.rows.get(at));
        table.extend(
            rows.map(|r| vec![r.drift.word().into(), r.against.into(), r.name.clone(), r.pinned.clone(), r.now.clone(), r.note.clone()]),
        );
        table
    }

    /// Draws it.
    pub fn draw(&self, buf: &mut Buffer, area: Rect, data: &PinsView, frame: &Frame<'_>) {
        let shown = self.shown(data);
        let order = ORDERS.get(self.rows.order).copied().unwrap_or_default();
        let heading = self.rows.heading("Pins", frame, shown.len(), data.rows.len(), order);
        let mut canvas = Canvas::framed(buf, area, &heading, frame.look, frame.focused);
        let head = summary(&mut canvas, data);
        let readout = if canvas.height() > head + READOUT + 4 { READOUT } else { 0 };
        let (width, body) = (canvas.width(), canvas.height().saturating_sub(head + readout));
        list(&mut canvas.part(0, head, width, body), COLUMNS, &self.rows, shown.len(), frame.focused, |row| {
            let row = shown.get(row).and_then(|at| data.rows.get(*at));
            row.map(|row| cells(row, frame.look.glyphs)).unwrap_or_default()
        });
        // Digests differ where they differ, not where a column is cut: both in full.
        if let Some(row) = self.row(data).filter(|_| readout > 0) {
            let (_, role) = look_of(row.drift, frame.look.glyphs);
            let mut foot = canvas.part(0, head + body, width, readout);
            for (y, label, text) in [(0, "pinned", &row.pinned), (1, "now   ", &row.now), (2, "means ", &row.note)] {
                let text = if text.is_empty() { "the same" } else { text.as_str() };
                foot.line(1, y, &[piece(format!("{label} "), Role::Header), piece(text, if y == 0 { Role::Value } else { role })]);
            }
        }
    }
}

fn look_of(drift: Drift, glyphs: &Glyphs) -> (&'static str, Role) {
    match drift {
        Drift::Drift => (glyphs.drift, Role::Bad),
        Drift::Unknown => (glyphs.unknown, Role::Unknown),
        Drift::Same => (glyphs.ok, Role::Good),
    }
}

fn cells<'c>(row: &PinRow, glyphs: &Glyphs) -> Vec<Piece<'c>> {
    let (glyph, role) = look_of(row.drift, glyphs);
    vec![
        piece(format!("{glyph} {}", row.drift.word()), role),
        piece(row.against, Role::Dim),
        piece(row.name.clone(), Role::Text),
        piece(row.pinned.clone(), Role::Value),
        piece(row.now.clone(), if row.drift == Drift::Same { Role::Value } else { role }),
        piece(row.note.clone(), Role::Dim),
    ]
}

fn summary(canvas: &mut Canvas<'_>, data: &PinsView) -> u16 {
    let (drift, unknown, same) = data.counts();
    let (glyph, role, word) = match data.verdict {
        Verdict::Proved if drift > 0 => (canvas.glyphs().drift, Role::Bad, "DRIFT"),
        Verdict::Proved if unknown > 0 => (canvas.glyphs().unknown, Role::Unknown, "UNKNOWN"),
        Verdict::Proved => (canvas.glyphs().ok, Role::Good, "SAME"),
        other => {
            let (glyph, role) = verdict(other, canvas.glyphs());
            (glyph, role, other.word())
        }
    };
    let loud = |n: usize, role: Role| if n > 0 { role } else { Role::Dim };
    let counts = [
        piece(format!("{glyph} {word}"), role),
        piece(format!("  DRIFT {drift}"), loud(drift, Role::Bad)),
        piece(format!("  UNKNOWN {unknown}"), loud(unknown, Role::Unknown)),
        piece(format!("  SAME {same}  "), Role::Dim),
        piece(data.subject.as_str(), Role::Value),
    ];
    canvas.line(1, 0, &counts);
    let Some(why) = data.origin.unknown() else { return 1 };
    let width = canvas.width().saturating_sub(2);
    let lines = wrap(&format!("UNKNOWN: {why}"), width, 2);
    for (y, line) in (1u16..).zip(&lines) {
        canvas.text(1, y, width, line, Role::Unknown);
    }
    u16::try_from(lines.len()).unwrap_or(1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::data::testing::World;
    use crate::console::panes::testing::{at_every_size, drawn, dump, look, plain};

    fn view(scenario: &str) -> PinsView {
        let world = World::play(scenario);
        let (source, row, events) = world.newest();
        PinsView::load(&source, &row, &events)
    }

    #[test]
    fn drift_is_on_the_screen_and_one_key_away() {
        let data = view("profile-edited-same-version");
        for (glyphs, name) in [(Glyphs::UNICODE, "unicode"), (Glyphs::ASCII, "ascii")] {
            let look = look(glyphs);
            let frame = Frame { look: &look, focused: true, subject: "run", age: Some(0) };
            let mut pane = PinsPane::default();
            pane.act(Action::NextMatch, &data, 22);
            for (width, height) in [(80, 22), (200, 48), (60, 18)] {
                let buf = drawn(width, height, |buf, area| pane.draw(buf, area, &data, &frame));
                assert!(plain(&buf).contains("DRIFT 1"), "{}", plain(&buf));
                insta::assert_snapshot!(format!("drift_{name}_{width}x{height}"), dump(&buf));
            }
            assert!(pane.selected(&data).unwrap().text.starts_with("DRIFT other runs"));
        }
    }

    #[test]
    fn it_draws_at_every_size_and_hostile_text_stays_text() {
        let mut data = view("clean");
        data.rows[0].now = "\u{1b}[31m\u{202e}日本".into();
        data.subject = "\u{9b}x\n".into();
        let look = look(Glyphs::ASCII);
        let frame = Frame { look: &look, focused: true, subject: "k", age: None };
        at_every_size(|buf, area| {
            PinsPane::default().draw(buf, area, &data, &frame);
            assert!(buf.content().iter().all(|c| !c.symbol().contains(['\u{1b}', '\u{9b}', '\u{202e}', '\n'])));
        });
    }

    #[test]
    fn the_table_and_the_filter_agree_with_the_counts() {
        let data = view("profile-edited-same-version");
        let mut pane = PinsPane::default();
        assert_eq!(pane.table(&data).len(), data.rows.len() + 1);
        pane.set_filter(&Filter::parse("state=drift").unwrap(), &data);
        assert_eq!(pane.table(&data).len(), data.counts().0 + 1);
    }
}
