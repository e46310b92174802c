//! Answers in lines: broken to the width that there is, with a cursor over the lines. Only what is in sight is
//! broken, however long the answer is.

use super::list::wrap;
use super::parts::{Canvas, Cursor};
use crate::answer::{Line, Tone};
use crate::console::look::{Glyphs, Role};

/// Most rows that one line is broken into.
const MAX_ROWS: usize = 12;
/// Columns before the text: the mark of the selected line and the glyph of its tone.
const LEFT: u16 = 3;

/// The glyph and the role of a tone.
pub fn tone_of(tone: Tone, glyphs: &Glyphs) -> (&'static str, Role) {
    match tone {
        Tone::Plain => (" ", Role::Text),
        Tone::Head => (" ", Role::Header),
        Tone::Good => (glyphs.ok, Role::Good),
        Tone::Bad => (glyphs.bad, Role::Bad),
        Tone::Warn => (glyphs.stuck, Role::Warn),
        Tone::Unknown => (glyphs.unknown, Role::Unknown),
        Tone::Dim => (" ", Role::Dim),
    }
}

/// A line as the rows that it takes; those after the first stand a little further in.
fn rows(line: &Line, width: u16) -> Vec<String> {
    let text = line.text.trim_start();
    let indent = line.text.len() - text.len();
    let room = width.saturating_sub(LEFT).saturating_sub(u16::try_from(indent).unwrap_or(0)).saturating_sub(2);
    let broken = wrap(text, room, MAX_ROWS);
    let more = |(at, row): (usize, String)| format!("{}{row}", " ".repeat(indent + if at > 0 { 2 } else { 0 }));
    let rows: Vec<String> = broken.into_iter().enumerate().map(more).collect();
    if rows.is_empty() { vec![String::new()] } else { rows }
}

/// Puts the first line in sight where the selected one is seen whole, as far as there is room; it stands still
/// while that is so already.
pub fn settle(cursor: &mut Cursor, lines: &[Line], width: u16, height: u16) {
    cursor.at = cursor.at.min(lines.len().saturating_sub(1));
    let (mut earliest, mut taken) = (cursor.at, 0);
    for (at, line) in lines.iter().enumerate().take(cursor.at + 1).rev() {
        taken += rows(line, width).len();
        if taken > usize::from(height) {
            break;
        }
        earliest = at;
    }
    cursor.top = cursor.top.clamp(earliest, cursor.at);
}

/// Draws the lines from the first in sight on.
pub fn draw(canvas: &mut Canvas<'_>, lines: &[Line], cursor: &Cursor) {
    let (width, mut y) = (canvas.width(), 0u16);
    for (at, line) in lines.iter().enumerate().skip(cursor.top) {
        if y >= canvas.height() {
            break;
        }
        let (glyph, role) = tone_of(line.tone, canvas.glyphs());
        let (first, selected) = (y, at == cursor.at);
        for row in rows(line, width) {
            if y >= canvas.height() {
                break;
            }
            if y == first {
                canvas.text(1, y, 1, glyph, if selected { Role::Text } else { role });
            }
            canvas.text(LEFT, y, width.saturating_sub(LEFT), &row, if selected { Role::Text } else { role });
            if selected && y == first {
                canvas.select(y, true);
            } else if selected {
                canvas.tint(0, y, width, Role::Selection);
            }
            y += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::panes::testing::{at_every_size, drawn, look, plain};

    fn lines(n: usize) -> Vec<Line> {
        (0..n).map(|i| Line::new(Tone::Bad, format!("  line {i} of a rather long text that has to be broken somewhere"))).collect()
    }

    #[test]
    fn long_lines_are_broken_and_the_selected_one_is_always_in_sight() {
        let (all, look) = (lines(100), look(crate::console::look::Glyphs::ASCII));
        let mut cursor = Cursor::default();
        for at in [0, 1, 2, 50, 99, 98, 97, 60, 0] {
            cursor.at = at;
            settle(&mut cursor, &all, 40, 6);
            let text = plain(&drawn(40, 6, |buf, area| draw(&mut Canvas::new(buf, area, &look), &all, &cursor)));
            assert!(text.contains(&format!(">x   line {at} of a")) && text.contains('\n'), "{at}\n{text}");
            assert!(text.lines().all(|row| !row.contains('~')), "nothing is cut\n{text}");
        }
        // It stands still while what is selected is in sight.
        (cursor.at, cursor.top) = (51, 50);
        settle(&mut cursor, &all, 40, 6);
        assert_eq!(cursor.top, 50);
    }

    #[test]
    fn an_answer_of_a_million_lines_costs_what_is_in_sight() {
        let all = vec![Line::plain("x"); 1_000_000];
        let mut cursor = Cursor { at: 999_999, top: 0 };
        settle(&mut cursor, &all, 80, 22);
        assert_eq!(cursor.top, 999_978);
    }

    #[test]
    fn it_draws_at_every_size_and_hostile_text_stays_text() {
        let look = look(crate::console::look::Glyphs::UNICODE);
        let all = vec![Line { tone: Tone::Warn, text: "\u{1b}[2J\u{202e}日本語".repeat(40), event: None }; 3];
        at_every_size(|buf, area| {
            let mut cursor = Cursor { at: 2, top: 0 };
            settle(&mut cursor, &all, area.width, area.height);
            draw(&mut Canvas::new(buf, area, &look), &all, &cursor);
            assert!(buf.content().iter().all(|c| !c.symbol().contains(['\u{1b}', '\u{202e}'])));
        });
    }
}
